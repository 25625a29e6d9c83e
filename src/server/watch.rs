//! Time limits that know what a connection is doing.
//!
//! A socket alone cannot tell a client that rests between two requests, which is welcome, from one
//! that stopped in the middle of a header, which is not. So four parts report to one [`Progress`]:
//! the socket ([`Watched`]: bytes arrive, the peer does not take what we send), the handler (a
//! request began), and the two bodies (the request was not read to its end, the reply is complete).
//! [`watch`] drives the connection and looks at the clock whenever there is nothing else to do.
//!
//! This is on the path of each request, so it costs next to nothing there: reports are plain loads
//! and stores, the clock is read once per turn of a connection, and the one timer of a connection
//! is left where it is when a deadline moves to later; it goes off too early then, and is set anew.

use std::fmt::{self, Write as _};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::room::FREE;
use super::{BoxError, Connection, Limits};

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The TLS handshake.
    Handshake,
    /// The first byte on a new connection.
    FirstByte,
    /// The rest of a header.
    Header,
    /// The handler and the body of its request. The one phase without a limit here.
    Request,
    /// The next request.
    Idle,
    /// The peer, which does not take what we send.
    Write,
    /// The peer, which has not closed its end after we closed ours.
    Close,
}

/// What the parts of a connection report and the watch reads.
///
/// Two numbers, which only grow (and wrap): the watch has to see that something happened even if
/// all is as it was when it last looked. They are atomic because tasks move between threads. Those
/// who change them run within the task of the connection, one after the other, so that loads and
/// stores need no order and no read-modify-write.
#[derive(Debug)]
pub(super) struct Progress {
    /// `count * PHASE_STEP + phase`.
    phase: AtomicU32,
    /// Odd while the peer does not take what we send.
    stall: AtomicU32,
    /// The handler dropped the body of the last request before its end.
    unread: AtomicBool,
}

/// The socket of a connection, above TLS.
pub(super) struct Watched<I> {
    socket: I,
    connection: Arc<Connection>,
    is_shut: bool,
}

/// The body of a request, as it arrives.
pub struct RequestBody {
    body: Incoming,
    connection: Arc<Connection>,
    /// Bytes that have arrived.
    arrived: usize,
    is_over: bool,
}

/// The body of a reply. Dropped by hyper once all of it is in the buffer to be sent.
pub(super) struct ReplyBody<B> {
    /// Without one, it is empty.
    body: Option<B>,
    connection: Arc<Connection>,
}

/// A number of [`Progress`], and when the watch saw it change.
struct Seen {
    number: u32,
    since: Instant,
}

/// Room for the phases below the count in [`Progress`]. A power of two, so that the phase survives
/// when the count wraps.
const PHASE_STEP: u32 = 8;

/// Drives a connection to its end, or until it has taken too long over something.
///
/// # Errors
/// What was waited for when time was up. The caller drops the connection, which closes it.
pub(super) async fn watch<S, B, I>(
    http: http1::Connection<I, S>,
    connection: &Connection,
) -> Result<hyper::Result<()>, Phase>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let Connection { shared, progress, .. } = connection;
    let mut http = pin!(http);
    let mut closing = pin!(shared.closing.wait());
    let mut is_listening = false;
    let mut is_closing = false;
    let mut phase = Seen::new(&progress.phase);
    let mut stall = Seen::new(&progress.stall);
    let mut timer = pin!(sleep_until(phase.since + shared.limits.first_byte));

    std::future::poll_fn(move |cx| {
        loop {
            if let Poll::Ready(end) = http.as_mut().poll(cx) {
                return Poll::Ready(Ok(end));
            }
            if !is_listening {
                // Once is enough: the wake-up for this task stays registered, and a task has only
                // this one. Polling again would take a lock shared by all connections on each turn.
                is_listening = true;
                let _ = closing.as_mut().poll(cx);
            }
            // A new connection may be about to send its request, and hyper would take the middle of
            // a header for idle: both are waited for, within their limits.
            let is_to_wait = matches!(progress.phase(), Phase::FirstByte | Phase::Header);
            if is_closing || is_to_wait || !shared.closing.is_set() {
                break;
            }
            // hyper closes now if the connection is idle, after the reply if not. It was polled
            // just before, so that a request which has arrived counts.
            is_closing = true;
            http.as_mut().graceful_shutdown();
        }
        phase.look(&progress.phase);
        stall.look(&progress.stall);
        while let Some((deadline, waits_for)) = deadline(&shared.limits, &phase, &stall) {
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(Err(waits_for));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

/// The next moment at which a limit is reached, and what is being waited for.
fn deadline(limits: &Limits, phase: &Seen, stall: &Seen) -> Option<(Instant, Phase)> {
    let waits_for = Phase::of(phase.number);
    let limit = match waits_for {
        Phase::FirstByte => Some(limits.first_byte),
        Phase::Header => Some(limits.header),
        Phase::Idle => Some(limits.idle),
        Phase::Close => Some(limits.linger),
        // The handshake and the write have limits of their own, a request has none.
        Phase::Handshake | Phase::Request | Phase::Write => None,
    };
    let next = limit.map(|limit| (phase.since + limit, waits_for));
    let write = is_stalled(stall.number).then(|| (stall.since + limits.write, Phase::Write));
    next.into_iter().chain(write).min_by_key(|(at, _)| *at)
}

fn is_stalled(number: u32) -> bool {
    number % 2 == 1
}

// === impl Phase ===

impl Phase {
    const ALL: [Self; 7] =
        [Self::Handshake, Self::FirstByte, Self::Header, Self::Request, Self::Idle, Self::Write, Self::Close];

    /// The phase in a number of [`Progress`].
    fn of(number: u32) -> Self {
        Self::ALL[(number % PHASE_STEP) as usize]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::FirstByte => "first_byte",
            Self::Header => "header",
            Self::Request => "request",
            Self::Idle => "idle",
            Self::Write => "write",
            Self::Close => "close",
        }
    }
}

impl EncodeLabelValue for Phase {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

// === impl Progress ===

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: AtomicU32::new(Phase::FirstByte as u32),
            stall: AtomicU32::new(0),
            unread: AtomicBool::new(false),
        }
    }
}

impl Progress {
    pub(super) fn request_began(&self) {
        self.unread.store(false, Ordering::Relaxed);
        self.enter(Phase::Request);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    fn bytes_arrived(&self) {
        match self.phase() {
            Phase::FirstByte => self.enter(Phase::Header),
            // The rest of a request that was answered early is no header. Which of the two it is
            // cannot be told from here, so until the next request begins the limit is that of an
            // idle connection, which is what hyper makes of it when the rest was short.
            Phase::Idle if !self.unread.load(Ordering::Relaxed) => self.enter(Phase::Header),
            _ => {}
        }
    }

    fn enter(&self, phase: Phase) {
        let number = self.phase.load(Ordering::Relaxed);
        let count = number - number % PHASE_STEP;
        let next = count.wrapping_add(PHASE_STEP) + phase as u32;
        self.phase.store(next, Ordering::Relaxed);
    }

    fn stalled(&self, is_stalled_now: bool) {
        let number = self.stall.load(Ordering::Relaxed);
        if is_stalled(number) != is_stalled_now {
            self.stall.store(number.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

// === impl Watched ===

impl<I> Watched<I> {
    pub(super) fn new(socket: I, connection: Arc<Connection>) -> Self {
        Self { socket, connection, is_shut: false }
    }

    /// Notes a write that found no room. Only a flush, which leaves nothing behind, ends the stall:
    /// with each write that finds room for a few bytes, a peer that never reads would earn another
    /// period.
    fn noted<T>(&self, write: Poll<T>) -> Poll<T> {
        if write.is_pending() {
            self.connection.progress.stalled(true);
        }
        write
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.progress.bytes_arrived();
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        if flushed.is_ready() {
            self.connection.progress.stalled(false);
            self.connection.flushed();
        }
        self.noted(flushed)
    }

    /// Closes our end, then reads until the peer closes its own: see [`Limits::linger`].
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            self.connection.progress.enter(Phase::Close);
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        let mut waste = [0; 2048];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        Self { body, connection, arrived: 0, is_over: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    /// Fails with [`NoRoom`](super::NoRoom) when there is no memory for more of it.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_over = frame.is_none();
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        let before = self.arrived;
        self.arrived = before.saturating_add(bytes);
        if self.arrived > FREE
            && let Err(error) = self.connection.hold(self.arrived - before.max(FREE))
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_over && !self.body.is_end_stream() {
            self.connection.progress.unread.store(true, Ordering::Relaxed);
        }
    }
}

// === impl ReplyBody ===

impl<B> ReplyBody<B> {
    pub(super) fn new(body: Option<B>, connection: Arc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl<B: Body + Unpin> Body for ReplyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for ReplyBody<B> {
    fn drop(&mut self) {
        self.connection.progress.enter(Phase::Idle);
        self.connection.buffered();
    }
}

// === impl Seen ===

impl Seen {
    fn new(number: &AtomicU32) -> Self {
        Self { number: number.load(Ordering::Relaxed), since: Instant::now() }
    }

    fn look(&mut self, number: &AtomicU32) {
        let number = number.load(Ordering::Relaxed);
        if number != self.number {
            self.number = number;
            self.since = Instant::now();
        }
    }
}
