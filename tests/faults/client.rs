//! Those who call the webhook directly: one of whom nothing bad can be said, and those beside it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::report::{Size, percentiles};
use crate::support::background::Background;
use crate::support::eventually;
use crate::support::http::{NAME, post, request};
use crate::support::review::review_of;
use crate::support::serve::{PATH, Reach};

/// How long a call may take: what an API server is told to wait by default (the chart's `timeoutSeconds`).
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call is waited for, to tell one that is late (on a machine that is busy with other things, too) from one that is
/// never answered.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Every so many calls, a connection is made anew: API servers do so whenever two calls meet.
const CALLS_EACH: usize = 20;

/// When one that was turned away comes again.
const AGAIN: Duration = Duration::from_millis(100);

/// Where API servers call from in these tests, and where others do.
pub const API_SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;
pub const SECOND_API_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
pub const SECOND_STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 67);

/// A webhook, and how to call it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// A good request.
    pub request: Arc<[u8]>,
    /// The body of its answer.
    answer: Arc<[u8]>,
}

/// A connection.
pub type Stream = TlsStream<TcpStream>;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub closes: bool,
    pub body: Vec<u8>,
}

/// What became of calls.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Of those that were answered as they should be.
    pub times: Vec<Duration>,
    /// Answered as they should be, and later than an API server would have waited.
    pub late: usize,
    /// Answered with 503.
    pub refused: usize,
    /// Answered with 200 and not with the patch.
    pub bare: usize,
    /// Everything else, by what was wrong.
    pub failures: BTreeMap<String, usize>,
}

/// Calls one after the other, as an API server's, until it is stopped.
pub struct Load {
    counts: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    work: Background<Calls>,
}

/// Strangers, who go on until they are dropped.
pub struct Crowd(Option<Runtime>);

// === impl Target ===

impl Target {
    /// The webhook of a server that injects the pod of [`pod`].
    ///
    /// # Panics
    /// When it does not.
    pub fn of(reach: &Reach) -> Self {
        Self::with(reach, &review_of(&pod()))
    }

    /// The same with another review, which has to be answered with a patch.
    ///
    /// # Panics
    /// When it is not.
    pub fn with(reach: &Reach, review: &Value) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(reach.ca().as_bytes()).expect("PEM");
        roots.add(ca).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let path = format!("{PATH}?timeout={}s", TIMEOUT.as_secs());
        let request: Arc<[u8]> = post(&path, review.to_string()).into();
        let reply = reach.send(&request).expect("an answer");
        assert!(reply.json()["response"]["patch"].is_string(), "{reply:?}");
        Self { address: reach.webhook, tls: Arc::new(tls), request, answer: reply.body.into_bytes().into() }
    }

    /// A TCP connection from an address of this machine.
    pub async fn dial(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.connect(self.address).await
    }

    /// A connection from an address of this machine.
    pub async fn connect(&self, from: Ipv4Addr) -> io::Result<Stream> {
        let stream = self.dial(from).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).expect("a name");
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
    }

    /// What a client says first.
    pub fn client_hello(&self) -> Vec<u8> {
        let name = ServerName::try_from(NAME).expect("a name");
        let mut hello = Vec::new();
        ClientConnection::new(Arc::clone(&self.tls), name)
            .expect("a configuration")
            .write_tls(&mut hello)
            .expect("bytes");
        hello
    }

    /// Sends a good request.
    pub async fn call(&self, stream: &mut Stream) -> io::Result<Answer> {
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        read(stream).await
    }

    /// Whether it is what a good request gets.
    pub fn is_injected(&self, answer: &Answer) -> bool {
        answer.status == 200 && *answer.body == *self.answer
    }

    /// Calls until it is told to stop; some after this pause, or as fast as it can.
    async fn work(
        &self,
        from: Ipv4Addr,
        pause: Duration,
        (stop, counts): (&AtomicBool, &AtomicBool),
        good: &AtomicUsize,
    ) -> Calls {
        let mut calls = Calls::default();
        let mut counted = false;
        let mut stream = None;
        let mut made = 0;
        while !stop.load(Ordering::Relaxed) {
            if !counted && counts.load(Ordering::Relaxed) {
                counted = true;
                calls = Calls::default();
            }
            let before = calls.times.len();
            let start = Instant::now();
            let open = stream.take();
            let call = async {
                let mut open = match open {
                    Some(open) => open,
                    None => self.connect(from).await?,
                };
                let answer = self.call(&mut open).await?;
                Ok::<_, io::Error>((answer, open))
            };
            match tokio::time::timeout(PATIENCE, call).await {
                Err(_) => calls.failed("no answer"),
                Ok(Err(error)) => calls.failed(&error.kind().to_string()),
                Ok(Ok((answer, open))) => {
                    made += 1;
                    if !answer.closes && made % CALLS_EACH != 0 {
                        stream = Some(open);
                    }
                    if self.is_injected(&answer) {
                        let took = start.elapsed();
                        calls.late += usize::from(took > TIMEOUT);
                        calls.times.push(took);
                        good.fetch_add(1, Ordering::Relaxed);
                    } else {
                        match answer.status {
                            200 => calls.bare += 1,
                            503 => calls.refused += 1,
                            other => calls.failed(&other.to_string()),
                        }
                    }
                }
            }
            if calls.times.len() == before {
                // Who is turned away comes again with the next pod.
                tokio::time::sleep(AGAIN).await;
            } else if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        calls
    }
}

/// A pod with two containers, of which one has a list of its own.
pub fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": [
            {"name": "web", "image": "web", "env": [{"name": "no_proxy", "value": "redis"}]},
            {"name": "log", "image": "log"},
        ]},
    })
}

/// The head of a request with these header fields, without a length.
pub fn head(fields: &str) -> Vec<u8> {
    let request = request("POST", PATH, &format!("content-type: application/json\r\n{fields}"), "");
    let head = String::from_utf8(request).expect("UTF-8").replace("content-length: 0\r\n", "");
    head.into_bytes()
}

/// Reads one answer.
pub async fn read(stream: &mut Stream) -> io::Result<Answer> {
    let mut received = Vec::with_capacity(8 * 1024);
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        receive(stream, &mut received).await?;
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let field = |name: &str| {
        head.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([':', ' ']).to_owned()))
    };
    let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    while received.len() < end + length {
        receive(stream, &mut received).await?;
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        closes: field("connection").is_some_and(|value| value == "close"),
        body: received[end..end + length].to_vec(),
    })
}

async fn receive(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(received).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

// === impl Calls ===

impl Calls {
    pub fn failed(&mut self, why: &str) {
        *self.failures.entry(why.to_owned()).or_default() += 1;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.times.len() + self.refused + self.bare + self.failed_count()
    }

    /// Those without a right answer, but for those that were turned away with 503.
    pub fn failed_count(&self) -> usize {
        self.failures.values().sum()
    }

    /// The median and the 99th percentile of those that were answered.
    pub fn latency(&self) -> Option<(Duration, Duration)> {
        percentiles(&mut self.times.clone())
    }

    pub fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.late += other.late;
        self.refused += other.refused;
        self.bare += other.bare;
        for (why, count) in other.failures {
            *self.failures.entry(why).or_default() += count;
        }
    }

    /// # Panics
    /// If any call was not answered as it should be, or at full size in time, or there were fewer than so many.
    #[track_caller]
    pub fn assert_all_injected(&self, least: usize) {
        // At small size it may be a debug build, on a machine that is busy with other things.
        let late = Size::wanted().of(0, self.late);
        assert!(
            self.failures.is_empty() && self.refused == 0 && self.bare == 0 && late == 0,
            "{} refused, {} bare, {} late, {:?}",
            self.refused,
            self.bare,
            self.late,
            self.failures
        );
        assert!(self.times.len() >= least, "only {} calls", self.times.len());
    }
}

// === impl Load ===

impl Load {
    /// Starts so many connections that call one after the other, each with this pause between calls.
    pub fn start(target: &Target, from: Ipv4Addr, connections: usize, pause: Duration) -> Self {
        let load = Self::start_uncounted(target, from, connections, pause);
        load.count();
        load
    }

    /// The same, of which nothing counts before [`Self::count`].
    pub fn start_uncounted(target: &Target, from: Ipv4Addr, connections: usize, pause: Duration) -> Self {
        let counts = Arc::new(AtomicBool::new(false));
        let good = Arc::new(AtomicUsize::new(0));
        let (target, counted, count) = (target.clone(), Arc::clone(&counts), Arc::clone(&good));
        let work = Background::start(move |stop| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let workers = (0..connections).map(|_| target.work(from, pause, (stop, &counted), &count));
                let mut total = Calls::default();
                for calls in futures::future::join_all(workers).await {
                    total.add(calls);
                }
                total
            })
        });
        Self { counts, good, work }
    }

    /// From now on calls count.
    pub fn count(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// How many calls went well so far.
    pub fn so_far(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// Waits for as many more that go well.
    ///
    /// # Panics
    /// When none does for a while.
    pub fn await_more(&self, count: usize) {
        let goal = self.so_far() + count;
        while self.so_far() < goal {
            let before = self.so_far();
            eventually("another call", || if self.so_far() > before { Ok(()) } else { Err(before) });
        }
    }

    /// Ends it.
    pub fn stop(self) -> Calls {
        self.work.stop()
    }
}

/// As many calls in a row over one connection as are wanted: what it is like without anything beside it.
pub fn alone(target: &Target, from: Ipv4Addr, connections: usize, calls: usize) -> (Calls, f64) {
    let load = Load::start(target, from, connections, Duration::ZERO);
    load.await_more(connections);
    let (start, before) = (Instant::now(), load.so_far());
    load.await_more(calls);
    let rate = (load.so_far() - before) as f64 / start.elapsed().as_secs_f64();
    (load.stop(), rate)
}

// === impl Crowd ===

impl Crowd {
    /// So many that do the same again and again, each time with a number of their own, with a moment between two times.
    pub fn start<F>(count: usize, act: impl Fn(usize) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        for number in 0..count {
            let act = act.clone();
            runtime.spawn(async move {
                loop {
                    // That it is turned away is what it has to expect.
                    let _ = act(number).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Self(Some(runtime))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Waits until one call from this address is answered as it should be, and says how long that took.
///
/// # Panics
/// When it is not.
pub fn recovers(target: &Target, from: Ipv4Addr) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = Instant::now();
    eventually("a call is answered as it should be", || {
        let call = async { target.call(&mut target.connect(from).await?).await };
        match runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await }) {
            Ok(Ok(answer)) if target.is_injected(&answer) => Ok(()),
            Ok(Ok(answer)) => Err(answer.status.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(late) => Err(late.to_string()),
        }
    });
    start.elapsed()
}
