//! The listener: TLS, limits on every phase of a connection, and a drain that loses no request.
//!
//! This module knows connections and nothing above them. What is served is any [`Service`], usually
//! an [`axum::Router`] in a [`TowerToHyperService`](hyper_util::service::TowerToHyperService); the
//! time a request may take is that service's business, the time a *connection* may take without a
//! request is the business of this module. The same code serves the admin port, without TLS.
//!
//! Only HTTP/1.1 is spoken. The API server uses HTTP/1.1 for webhooks that it reaches through a
//! Service, and an HTTP/2 listener would add the rapid reset attack (CVE-2023-44487) for nothing.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Body;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

pub use self::drain::Drain;
use self::drain::Latch;
use self::places::{Places, Space};
pub use self::room::NoRoom;
use self::room::{FREE, Room};
pub use self::watch::RequestBody;
use self::watch::{Phase, Progress, ReplyBody, Watched, watch};

mod drain;
mod places;
mod room;
mod watch;

/// How long the accept loop rests after an error that is the machine's and not the peer's, such as
/// `EMFILE`. Without a rest the loop would spin; 100 ms lets a connection end and keeps the backlog
/// short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`. What comes when it is full is dropped
/// without a word, and asks again after one second, three, seven: of 128, which is what [`TcpListener::bind`] gives, API servers
/// that come all at once would run out of time.
const BACKLOG: u32 = 1024;

/// Largest read and write buffer of one connection, in bytes. hyper's own limit is about 400 KiB,
/// which 1024 connections turn into 400 MiB. A TLS record carries at most 16 KiB (RFC 8446, section
/// 5.1), so that a read rarely has more to give than a fraction of this.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a connection may take before it is closed.
///
/// While a request is being handled, only `write` and `finish` can end its connection: how long a
/// request may take is for its handler to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for the TLS handshake, from the accepted connection on. Default 5 s: many round trips
    /// even on a bad network, and as much as the API server is usually told to wait for a whole
    /// call.
    pub handshake: Duration,
    /// Time until the first byte of the first request, once the connection is ready for it. Default
    /// 120 s, as for an idle connection: Go's HTTP client keeps a connection that it opened while
    /// another one got free for later, unused, and does not repeat a POST that it sends on it in the
    /// moment in which we close it. Less would not keep anyone out who may send one request and idle.
    pub first_byte: Duration,
    /// Time for the whole header of a request, from its first byte on, however its bytes are
    /// spread. Default 5 s: clients write a header at once; one that trickles holds a connection on
    /// purpose.
    pub header: Duration,
    /// Time between two requests. Default 120 s: longer than the 90 s after which Go's HTTP client,
    /// and with it the API server, closes an idle connection itself. The other way round a request
    /// can meet a closing connection, and the API server does not repeat a POST.
    pub idle: Duration,
    /// Time for the peer to take all that is ready to be sent, from the moment its socket refused
    /// more. Default 10 s: a reply is small, and a peer that waits for it reads it.
    pub write: Duration,
    /// Time for the peer to close its end after we closed ours; until then what it still sends is
    /// read and thrown away. Default 2 s: closing a socket with unread bytes in it resets the
    /// connection, and the reset can overtake the last reply, such as a 413 to a body that is still
    /// arriving (RFC 9112, section 9.6).
    pub linger: Duration,
    /// Shortest age at which a connection is retired: its next reply carries `Connection: close`.
    /// Each connection draws its own age between this and twice this, so that connections opened
    /// together do not end together. Default 5 min, hence 5 to 10 min: an API server that keeps its
    /// connection for hours keeps all its calls on one replica. Age alone never closes a connection
    /// between two requests.
    pub max_age: Duration,
    /// Bytes of a request line with all header fields; more is answered with 431. Default 16 KiB:
    /// the API server sends less than 1 KiB.
    pub header_bytes: usize,
    /// Open connections, those in a handshake included. For one more, the client that has most of them
    /// loses one; if that is the one that comes, it is closed at once (but see `unused_give_way`). Default 1024: an API server
    /// opens as many as it has calls in flight, the rest is room for those who should not be here.
    pub connections: usize,
    /// Whether, when all are open and no client has more than the one that comes would have, the connection that has asked
    /// for nothing for longest is closed, instead of the one that comes. Default no: an API server keeps connections that it
    /// has not used yet, and those who hold places from everywhere would take them. It is for clients that ask at once, and
    /// would else be kept out by others that never do.
    pub unused_give_way: bool,
    /// Time from the request to shut down until nothing new is accepted. Default 20 s: for that
    /// long, clients may still believe that this replica is an endpoint. Zero means at once.
    pub drain: Duration,
    /// Time for requests in flight to end once nothing new is accepted; then they are abandoned.
    /// Default 15 s: longer than the API server should be told to wait for a call; together with
    /// `drain` it has to fit into the grace period of the Pod.
    pub finish: Duration,
}

/// A listener that is configured and not yet bound.
#[derive(Clone)]
pub struct Server {
    limits: Limits,
    tls: Option<Arc<ServerConfig>>,
    metrics: ConnectionMetrics,
}

/// A listener that is bound and does not serve yet: connections wait in the backlog.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    server: Server,
}

/// Why a [`Server`] could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// What happens to connections, in numbers.
///
/// Clones share their values. Two servers in one process want one of these each, told apart by a
/// label on the registry they are registered in.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    shed: Counter,
    accept_errors: Counter,
    handshake_failures: Counter,
    timeouts: Family<TimeoutLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeoutLabels {
    phase: Phase,
}

/// What all connections of one server share.
struct Shared {
    limits: Limits,
    tls: Option<TlsAcceptor>,
    http: http1::Builder,
    metrics: ConnectionMetrics,
    /// Thrown by the owner of the process: replies carry `Connection: close` from now on.
    drain: Drain,
    /// Thrown at the end of the drain period: connections without a request close.
    closing: Latch,
    room: Room,
}

/// What the parts of one connection share: its handler, the bodies in flight, the socket and the
/// watch.
struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    progress: Progress,
    /// From then on replies carry `Connection: close`.
    retire_at: Instant,
    /// Bytes of [`Room`] that the body of the current request has, or of its reply once that is made.
    held: AtomicUsize,
    /// Bytes of [`Room`] of replies that hyper has in its buffer, until the peer takes them.
    unflushed: AtomicUsize,
}

/// Counts a connection as open for as long as it lives, also when its task panics or is aborted.
struct Open(Gauge);

type BoxError = Box<dyn StdError + Send + Sync>;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_mins(2),
            header: Duration::from_secs(5),
            idle: Duration::from_mins(2),
            write: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            max_age: Duration::from_mins(5),
            header_bytes: 16 * 1024,
            connections: 1024,
            unused_give_way: false,
            drain: Duration::from_secs(20),
            finish: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// An age between `max_age` and twice that. `draw` is any evenly spread number.
    fn age(&self, draw: u64) -> Duration {
        let thousandths = u32::try_from(draw % 1000).unwrap_or_default();
        self.max_age + self.max_age * thousandths / 1000
    }
}

// === impl Server ===

impl Server {
    /// A server with these limits and metrics, without TLS.
    #[must_use]
    pub fn new(limits: Limits, metrics: ConnectionMetrics) -> Self {
        Self { limits, tls: None, metrics }
    }

    /// Serves over TLS. See [`crate::certs::server_config`].
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Takes the address, so that a port in use is an error before anything serves.
    ///
    /// # Errors
    /// When the address is in use, not of this machine, or not permitted.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn bind(self, address: SocketAddr) -> Result<Bound, BindError> {
        let failed = |source| BindError { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { listener, address, server: self })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: what a former process left in TIME_WAIT does not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

// === impl Bound ===

impl Bound {
    /// The address in use, with the real port when port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `drain` is started and its period has passed and the requests in flight have
    /// ended.
    ///
    /// From the start of the drain each reply carries `Connection: close` while everything is still
    /// served, because clients learn late that this replica is going. Idle connections are closed
    /// only after that period: closing them first makes a client's next request fail. A connection
    /// that is new by then may still send its one request. Dropping the returned future closes
    /// everything at once.
    pub async fn serve<S, B>(self, service: S, drain: Drain)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self { listener, address, server } = self;
        let shared = Arc::new(Shared::new(server, drain.clone()));
        let limits = &shared.limits;
        let ages = RandomState::new();
        let mut connections = JoinSet::new();
        let mut places = Places::default();
        let mut accept_fails = false;
        let mut drained = pin!(async {
            drain.started().await;
            info!(%address, period = ?limits.drain, "draining");
            sleep(limits.drain).await;
        });

        loop {
            // The order matters: the end of the drain must not starve under a flood of connections,
            // and ended connections must be counted out before a new one is shed.
            let accepted = tokio::select! {
                biased;
                () = &mut drained => break,
                Some(ended) = connections.join_next_with_id() => {
                    places.leave(ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
                    report(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    shared.metrics.accept_errors.inc();
                    if !is_of_the_peer(&error) {
                        if !accept_fails {
                            warn!(%address, %error, "cannot accept connections, will keep trying");
                        }
                        accept_fails = true;
                        sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            accept_fails = false;
            shared.metrics.accepted.inc();
            if places.taken() >= limits.connections {
                shared.metrics.shed.inc();
                debug!(%peer, "too many connections");
                let mut space = places.make_room_for(peer.ip(), limits.unused_give_way);
                // Short enough for all else to wait, too.
                while let Space::At(time) = space {
                    sleep_until(time).await;
                    space = places.make_room_for(peer.ip(), limits.unused_give_way);
                }
                if space == Space::Full {
                    continue;
                }
            }
            let age = limits.age(ages.hash_one(shared.metrics.accepted.get()));
            let open = Open::new(&shared.metrics.open);
            let connection = Arc::new(Connection::new(Arc::clone(&shared), peer, age));
            let (service, running) = (service.clone(), Arc::clone(&connection));
            let task = connections.spawn(async move {
                let _open = open;
                running.run(stream, service).await;
            });
            places.take(peer.ip(), connection, task);
        }

        drop(listener);
        shared.closing.set();
        let ended = timeout(limits.finish, async {
            while let Some(ended) = connections.join_next_with_id().await {
                places.leave(ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
                report(ended);
            }
        });
        if ended.await.is_err() {
            warn!(%address, connections = connections.len(), "abandoning requests in flight");
            connections.shutdown().await;
        }
        info!(%address, "drained");
    }
}

/// Whether accepting failed because of one peer, so that the next may be accepted right away.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A panic in a handler ends its connection and nothing else.
fn report<T>(ended: Result<T, JoinError>) {
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        error!(%error, "connection task failed");
    }
}

// === impl ConnectionMetrics ===

impl ConnectionMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "connections_open",
            "Connections that are open, those in a handshake included",
            metrics.open.clone(),
        );
        registry.register(
            "connections_accepted",
            "Connections accepted, those shed included",
            metrics.accepted.clone(),
        );
        registry.register(
            "connections_shed",
            "Connections closed because too many were open",
            metrics.shed.clone(),
        );
        registry.register(
            "connections_accept_errors",
            "Failures to accept a connection, for instance for want of file descriptors",
            metrics.accept_errors.clone(),
        );
        registry.register(
            "connections_handshake_failures",
            "TLS handshakes that failed, those of port scans and TCP probes included",
            metrics.handshake_failures.clone(),
        );
        registry.register(
            "connections_timeouts",
            "Connections closed by a time limit, by what was waited for",
            metrics.timeouts.clone(),
        );
        metrics
    }

    fn timed_out(&self, phase: Phase) {
        self.timeouts.get_or_create(&TimeoutLabels { phase }).inc();
    }
}

// === impl Shared ===

impl Shared {
    fn new(server: Server, drain: Drain) -> Self {
        let Server { limits, tls, metrics } = server;
        let mut http = http1::Builder::new();
        // hyper's timer for the header is also its limit for an idle connection, and without a
        // `Timer` it is silently off. The watch keeps the two apart, so hyper's is switched off in
        // so many words.
        http.header_read_timeout(None).max_header_size(limits.header_bytes).max_buf_size(BUFFER_BYTES);
        let (tls, closing, room) = (tls.map(TlsAcceptor::from), Latch::default(), Room::default());
        Self { limits, tls, http, metrics, drain, closing, room }
    }
}

// === impl Connection ===

impl Connection {
    fn new(shared: Arc<Shared>, peer: SocketAddr, age: Duration) -> Self {
        let progress = Progress::default();
        let (held, unflushed) = (AtomicUsize::default(), AtomicUsize::default());
        Self { shared, peer, progress, retire_at: Instant::now() + age, held, unflushed }
    }

    /// Does the handshake, here and not in the accept loop, where one slow peer would hold up all
    /// others; then serves.
    async fn run<S, B>(self: Arc<Self>, stream: TcpStream, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        // A reply is one write; waiting for more to send with it would only delay it. Fails on a
        // dead socket, which the next read notices.
        let _ = stream.set_nodelay(true);
        let (shared, peer) = (Arc::clone(&self.shared), self.peer);
        let Some(tls) = &shared.tls else {
            return self.serve(stream, service).await;
        };
        match timeout(shared.limits.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, service).await,
            Ok(Err(error)) => {
                shared.metrics.handshake_failures.inc();
                debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                shared.metrics.timed_out(Phase::Handshake);
                debug!(%peer, "TLS handshake timed out");
            }
        }
    }

    async fn serve<S, B, I>(self: Arc<Self>, stream: I, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connection = self;
        let (connection_of_handler, peer) = (Arc::clone(&connection), connection.peer);
        let handler = service_fn(move |request: Request<_>| {
            let connection = Arc::clone(&connection_of_handler);
            connection.progress.request_began();
            let request = request.map(|body| RequestBody::new(body, Arc::clone(&connection)));
            let reply = service.call(request);
            async move {
                let reply = reply.await?;
                let mut reply = match connection.hold_reply(reply.body()) {
                    Ok(()) => reply.map(Some),
                    Err(error) => {
                        debug!(%peer, %error, "reply refused");
                        let mut refused = Response::new(None);
                        *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                        refused
                    }
                };
                if connection.is_to_close() {
                    let close = HeaderValue::from_static("close");
                    reply.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(reply.map(|body| ReplyBody::new(body, connection)))
            }
        });
        let socket = Watched::new(stream, Arc::clone(&connection));
        let shared = &connection.shared;
        let http = shared.http.serve_connection(TokioIo::new(socket), handler);
        match watch(http, &connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%peer, %error, "connection failed"),
            Err(phase) => {
                shared.metrics.timed_out(phase);
                debug!(%peer, ?phase, "connection timed out");
            }
        }
    }

    /// Notes so many more bytes of the body of the current request.
    fn hold(&self, bytes: usize) -> Result<(), NoRoom> {
        self.shared.room.take(self.peer.ip(), bytes)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The request has been answered, so that its body is no more: what that had is for the reply.
    fn hold_reply(&self, body: &impl Body) -> Result<(), NoRoom> {
        // Of a body whose length is not known, hyper takes no more at once than its buffer holds.
        let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let needed = bytes.saturating_sub(FREE);
        let held = self.held.load(Ordering::Relaxed);
        if needed > held {
            return self.hold(needed - held);
        }
        if needed < held {
            self.held.fetch_sub(held - needed, Ordering::Relaxed);
            self.give_back(held - needed);
        }
        Ok(())
    }

    /// hyper has all of the reply in its buffer.
    fn buffered(&self) {
        // Nearly always there is nothing, and to find that out costs less than to put nothing in its place.
        if self.held.load(Ordering::Relaxed) > 0 {
            self.unflushed.fetch_add(self.held.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The peer has taken all that hyper had in its buffer.
    fn flushed(&self) {
        if self.unflushed.load(Ordering::Relaxed) > 0 {
            self.give_back(self.unflushed.swap(0, Ordering::Relaxed));
        }
    }

    fn give_back(&self, bytes: usize) {
        self.shared.room.give_back(self.peer.ip(), bytes);
    }

    /// Whether a reply sent now is to be the last of its connection.
    fn is_to_close(&self) -> bool {
        self.shared.drain.is_started() || Instant::now() >= self.retire_at
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.buffered();
        self.flushed();
    }
}

// === impl Open ===

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_between_the_shortest_and_twice_that() {
        let limits = Limits::default();
        let ages: Vec<_> = (0..2000).map(|draw| limits.age(draw)).collect();
        assert_eq!(ages.iter().min(), Some(&limits.max_age));
        assert!(ages.iter().all(|age| *age < limits.max_age * 2));
        assert!(ages.iter().max() > Some(&(limits.max_age * 199 / 100)));
    }

    #[test]
    fn an_idle_connection_outlives_the_90_seconds_of_the_api_server() {
        assert!(Limits::default().idle > Duration::from_secs(90));
    }
}
