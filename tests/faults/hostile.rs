//! Clients that mean harm, with an API server beside them that must not notice.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::client::{
    API_SERVER, Calls, Crowd, Load, SECOND_API_SERVER, SECOND_STRANGER, STRANGER, Stream, Target, alone,
    head, read, recovers,
};
use crate::report::{Row, Size};
use crate::stage::Stage;
use crate::support::background::Background;
use crate::support::eventually;
use crate::support::review::review_of;
use crate::support::serve::{Reach, program};

/// What the chart lets a replica have, in KiB.
const MEMORY: u64 = 128 * 1024;

/// What it has of that when nothing comes, in KiB.
const AT_REST: u64 = 16 * 1024;

/// The most that a body may have.
const MAX_BODY: usize = 7 * 1024 * 1024;

/// Between two calls of an API server that has little to do.
pub const PAUSE: Duration = Duration::from_millis(5);

/// `reach serve` with the presets of the examples, after a first call.
fn serve(program: &[OsString]) -> (Reach, Target) {
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets");
    let reach = Reach::start_program(program, ["--presets".as_ref(), presets.as_os_str()]);
    let target = Target::of(&reach);
    (reach, target)
}

/// The test has to have more files open than the server that it floods.
fn many_files(count: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(count + 512).expect("a number");
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("as many files as that: ulimit -Hn");
    }
}

fn mib(kib: u64) -> String {
    format!("{} MiB", kib.div_ceil(1024))
}

/// What calls beside a fault have to be: all of them answered.
pub fn row(number: &'static str, fault: &'static str, done: String, calls: &Calls, more: String) -> Row {
    Row {
        number,
        fault,
        done,
        calls: calls.total(),
        failed: calls.failed_count() + calls.refused + calls.late,
        uninjected: calls.bare,
        latency: calls.latency(),
        recovery: None,
        more,
    }
}

// === 5: bodies ===

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// More than is taken, and it says so.
    Announced,
    /// As much as is taken, slowly enough for all to be there at once.
    Largest,
    /// Chunks without an end.
    Endless,
    /// Less than it says.
    Short,
    /// Compressed.
    Gzip,
    /// A review that is as it should be, of a pod with as many containers as go into it.
    Containers,
}

const BODIES: [Body; 6] =
    [Body::Announced, Body::Largest, Body::Endless, Body::Short, Body::Gzip, Body::Containers];

/// Containers that say nothing take the fewest bytes, and the most memory for each of them.
static CONTAINERS: LazyLock<String> = LazyLock::new(|| {
    let review = review_of(&json!({"spec": {"containers": [{}]}})).to_string();
    let (before, after) = review.split_once("{}").expect("a container");
    let count = (MAX_BODY - review.len()) / ",{}".len();
    format!("{before}{{}}{}{after}", ",{}".repeat(count))
});

/// How many bodies were answered, with 200 and otherwise.
#[derive(Debug, Default)]
struct Answered {
    taken: AtomicUsize,
    refused: AtomicUsize,
}

impl Answered {
    fn counts(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

async fn send_body(target: &Target, from: Ipv4Addr, body: Body, answered: &Answered) -> io::Result<()> {
    let mut stream = target.connect(from).await?;
    let space = vec![b' '; 64 * 1024];
    match body {
        Body::Announced => {
            stream.write_all(&head(&format!("content-length: {}\r\n", MAX_BODY + 1))).await?;
        }
        Body::Largest => {
            stream.write_all(&head(&format!("content-length: {MAX_BODY}\r\n"))).await?;
            for _ in 1..MAX_BODY / space.len() {
                stream.write_all(&space).await?;
            }
            stream.flush().await?;
            // The end comes when the others are there, too.
            sleep(Duration::from_secs(1)).await;
            stream.write_all(&space).await?;
        }
        Body::Endless => {
            stream.write_all(&head("transfer-encoding: chunked\r\n")).await?;
            loop {
                stream.write_all(b"10000\r\n").await?;
                stream.write_all(&space).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Body::Short => {
            stream.write_all(&head("content-length: 1000000\r\n")).await?;
            stream.write_all(&space).await?;
        }
        Body::Gzip => {
            let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            stream.write_all(&head("content-encoding: gzip\r\ncontent-length: 20\r\n")).await?;
            stream.write_all(&packed).await?;
        }
        Body::Containers => {
            stream.write_all(&head(&format!("content-length: {}\r\n", CONTAINERS.len()))).await?;
            stream.write_all(CONTAINERS.as_bytes()).await?;
        }
    }
    stream.flush().await?;
    let is_taken = read(&mut stream).await?.status == 200;
    let count = if is_taken { &answered.taken } else { &answered.refused };
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Row 5.
pub fn bodies_without_end_take_no_memory_and_nobody_elses_time(_: &Stage) {
    let (reach, target) = serve(&[program()]);
    let before = reach.memory_kib();
    let mut peaks = Vec::new();
    let mut most = 0;
    let mut total = Calls::default();
    let mut wrong = Vec::new();
    for body in BODIES {
        let answered = Arc::new(Answered::default());
        reach.forget_peak();
        let load = Load::start(&target, API_SERVER, 2, PAUSE);
        load.await_more(10);
        let crowd = {
            let (target, answered) = (target.clone(), Arc::clone(&answered));
            // Of two addresses: what one may take is bounded for itself.
            Crowd::start(100, move |number| {
                let (target, answered) = (target.clone(), Arc::clone(&answered));
                let from = [STRANGER, SECOND_STRANGER][number % 2];
                async move { send_body(&target, from, body, &answered).await }
            })
        };
        let until = Instant::now() + Size::wanted().of(Duration::from_millis(1500), Duration::from_secs(20));
        while Instant::now() < until {
            load.await_more(1);
        }
        if !matches!(body, Body::Endless | Body::Short) {
            eventually("one of them is answered", || {
                let (taken, refused) = answered.counts();
                let count = if body == Body::Containers { taken } else { taken + refused };
                if count > 0 { Ok(()) } else { Err(format!("{body:?}: {answered:?}")) }
            });
        }
        total.add(load.stop());
        drop(crowd);
        let peak = reach.peak_memory_kib();
        most = most.max(peak);
        let (taken, refused) = answered.counts();
        peaks.push(format!("{body:?} {} ({taken} answered with 200, {refused} refused)", mib(peak)));
        if body != Body::Containers && taken > 0 {
            wrong.push(body);
        }
        recovers(&target, API_SERVER);
    }
    reach.await_metric("reach_reviews_total{outcome=\"panicked\"}", 0.0);
    let _recorded = row(
        "5",
        "bodies that are too large, endless, shorter than they say, compressed, or pods with 2.4 million containers",
        "100 connections of two addresses with each kind, again and again, beside 2 of an API server"
            .to_owned(),
        &total,
        format!("memory before {}, at most: {}", mib(before), peaks.join(", ")),
    )
    .record();
    assert_eq!(wrong, [], "{peaks:?}");
    // A debug build is larger to begin with, which is not what bodies take.
    assert!(most < before + MEMORY - AT_REST, "{before} KiB, then {most} KiB: {peaks:?}");
    total.assert_all_injected(10);
}

// === 6: connections that never get to the point ===

/// Where a peer stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    NoClientHello,
    HalfHandshake,
    NoRequest,
    HalfHeader,
    SlowHeader,
    SlowBody,
    NeverReads,
    Idle,
}

const STOPS: [Stop; 8] = [
    Stop::NoClientHello,
    Stop::HalfHandshake,
    Stop::NoRequest,
    Stop::HalfHeader,
    Stop::SlowHeader,
    Stop::SlowBody,
    Stop::NeverReads,
    Stop::Idle,
];

/// Large answers are those to `large`.
async fn stop_at(target: &Target, large: &[u8], from: Ipv4Addr, stop: Stop) -> io::Result<()> {
    match stop {
        Stop::NoClientHello | Stop::HalfHandshake => {
            let mut stream = target.dial(from).await?;
            if matches!(stop, Stop::HalfHandshake) {
                let hello = target.client_hello();
                stream.write_all(&hello[..hello.len() / 2]).await?;
            }
            until_closed(&mut stream).await?;
        }
        Stop::NoRequest => {
            until_closed(&mut target.connect(from).await?).await?;
        }
        Stop::HalfHeader => {
            let mut stream = target.connect(from).await?;
            // As much as is taken, so that it costs as much as it can.
            let field = format!("x: {}", "y".repeat(15 * 1024));
            stream.write_all(&head(&field)[..12 * 1024]).await?;
            stream.flush().await?;
            until_closed(&mut stream).await?;
        }
        Stop::SlowHeader => drip(target.connect(from).await?, b"POST /mutate/pods HTTP/1.1\r\nx: ").await?,
        Stop::SlowBody => drip(target.connect(from).await?, &head("content-length: 1000000\r\n")).await?,
        Stop::NeverReads => {
            let mut stream = target.connect(from).await?;
            loop {
                stream.write_all(large).await?;
            }
        }
        Stop::Idle => {
            let mut stream = target.connect(from).await?;
            target.call(&mut stream).await?;
            until_closed(&mut stream).await?;
        }
    }
    Ok(())
}

/// Ends a crowd. No more than these files stay open.
fn leaves(crowd: Crowd, reach: &Reach, files: usize) {
    drop(crowd);
    eventually("no connection stays", || {
        let now = reach.open_files();
        if now <= files + 2 { Ok(()) } else { Err(now) }
    });
}

/// Takes what comes until there is no more.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// A byte a second.
async fn drip(mut stream: Stream, start: &[u8]) -> io::Result<()> {
    stream.write_all(start).await?;
    loop {
        stream.write_all(b"y").await?;
        stream.flush().await?;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Row 6.
pub fn connections_that_never_get_to_the_point_keep_nobody_out(_: &Stage) {
    let count = Size::wanted().of(1500, 5000);
    many_files(count);
    let (reach, target) = serve(&[program()]);
    let large = Target::with(&reach, &review_of(&json!({"spec": {"containers": vec![json!({}); 200]}})));
    let (before, files) = (reach.memory_kib(), reach.open_files());
    reach.forget_peak();
    let load = Load::start(&target, API_SERVER, 2, PAUSE);
    load.await_more(10);
    let crowd = {
        let target = target.clone();
        Crowd::start(count, move |number| {
            let (target, large) = (target.clone(), Arc::clone(&large.request));
            async move { stop_at(&target, &large, STRANGER, STOPS[number % STOPS.len()]).await }
        })
    };
    eventually("all places are taken", || {
        let shed = reach.metric("reach_connections_shed_total{listener=\"webhook\"}").unwrap_or_default();
        if shed > 0.0 { Ok(()) } else { Err(shed) }
    });
    let until = Instant::now() + Size::wanted().of(Duration::from_secs(2), Duration::from_mins(2));
    while Instant::now() < until {
        load.await_more(1);
    }
    let calls = load.stop();
    let open = reach.metric("reach_connections_open{listener=\"webhook\"}").unwrap_or_default();
    let peak = reach.peak_memory_kib();
    leaves(crowd, &reach, files);
    let _recorded = row(
        "6",
        "connections that stop in the handshake, in a header, in a body, before they read (answers to pods with 200 containers), or idle",
        format!(
            "{count} connections of one client that come again when they are closed, beside 2 of an API server"
        ),
        &calls,
        format!(
            "{open} open; memory before {}, at most {}; all files closed again after",
            mib(before),
            mib(peak)
        ),
    )
    .record();
    assert!(peak < MEMORY, "{peak} KiB");
    calls.assert_all_injected(10);
}

/// Row 6: an API server keeps a connection for 90 s, and its next call on it must not fail.
pub fn idle_connections_outlive_those_that_keep_them(_: &Stage) {
    let idle = Size::wanted().of(Duration::from_secs(6), Duration::from_secs(95));
    let (_reach, target) = serve(&[program()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (used, unused) = runtime.block_on(async {
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let mut stream = target.connect(API_SERVER).await.expect("a connection");
            assert!(target.is_injected(&target.call(&mut stream).await.expect("an answer")));
            used.push(stream);
            unused.push(target.connect(API_SERVER).await.expect("a connection"));
        }
        sleep(idle).await;
        let mut calls = (Calls::default(), Calls::default());
        for (streams, calls) in [(&mut used, &mut calls.0), (&mut unused, &mut calls.1)] {
            for stream in streams {
                let start = Instant::now();
                match target.call(stream).await {
                    Ok(answer) if target.is_injected(&answer) => calls.times.push(start.elapsed()),
                    Ok(answer) => calls.failed(&answer.status.to_string()),
                    Err(error) => calls.failed(&error.kind().to_string()),
                }
            }
        }
        calls
    });
    let mut both = used.clone();
    both.add(unused.clone());
    let _recorded = row(
        "6a",
        "connections that are idle, after a call and before the first one",
        format!("20 of each, idle for {} s, then one call on each", idle.as_secs()),
        &both,
        String::new(),
    )
    .record();
    used.assert_all_injected(20);
    unused.assert_all_injected(20);
}

/// Row 6b: the kubelet gives a probe a second, and restarts what answers none.
pub fn connections_that_say_nothing_to_the_admin_port_keep_no_probe_out(_: &Stage) {
    const EACH: Duration = Duration::from_secs(1);
    let count = Size::wanted().of(200, 1000);
    many_files(count);
    let (reach, _) = serve(&[program()]);
    let files = reach.open_files();
    let crowd = Crowd::start(count, {
        let admin = reach.admin;
        move |number| async move {
            let [.., high, low] = u32::try_from(number).expect("a number").to_be_bytes();
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into())?;
            until_closed(&mut socket.connect(admin).await?).await
        }
    });
    eventually("all places are taken", || {
        let shed = reach.metric("reach_connections_shed_total{listener=\"admin\"}").unwrap_or_default();
        if shed > 0.0 { Ok(()) } else { Err(shed) }
    });
    let mut calls = Calls::default();
    let (mut in_a_row, mut longest_row) = (0, 0);
    let until = Instant::now() + Size::wanted().of(Duration::from_secs(3), Duration::from_mins(1));
    while Instant::now() < until {
        for path in ["/livez", "/readyz"] {
            let start = Instant::now();
            match reach.try_status(path) {
                Ok(reply) if reply.status == 200 => {
                    calls.times.push(start.elapsed());
                    in_a_row = 0;
                    continue;
                }
                Ok(reply) => calls.failed(&reply.status.to_string()),
                Err(error) => calls.failed(&error.kind().to_string()),
            }
            in_a_row += 1;
            longest_row = longest_row.max(in_a_row);
        }
        thread::sleep(PAUSE);
    }
    calls.late = calls.times.iter().filter(|&&time| time > EACH).count();
    leaves(crowd, &reach, files);
    let _recorded = row(
        "6b",
        "connections to the admin port that say nothing",
        format!("{count} connections, each from an address of its own, that come again when they are closed"),
        &calls,
        "calls: /livez and /readyz, in turn; one that takes longer than 1 s fails (by the chart, the kubelet waits for 3 and 2 s)".to_owned(),
    )
    .record();
    // Three in a row end a replica. A debug build on a busy machine may not come to a request within the moment that each has.
    assert!(longest_row < 3, "{:?}", calls.failures);
    if Size::wanted() == Size::Full {
        calls.assert_all_injected(10);
    }
}

// === 7: file descriptors ===

/// Row 7.
pub fn files_that_run_out_keep_nobody_out(_: &Stage) {
    let script = "ulimit -n 64 && exec \"$0\" \"$@\"";
    let (reach, target) = serve(&["sh".into(), "-c".into(), script.into(), program()]);
    let files = reach.open_files();
    let load = Load::start(&target, API_SERVER, 2, PAUSE);
    load.await_more(10);
    let crowd = {
        let target = target.clone();
        Crowd::start(Size::wanted().of(200, 1000), move |_| {
            let target = target.clone();
            async move { until_closed(&mut target.connect(STRANGER).await?).await }
        })
    };
    let until = Instant::now() + Size::wanted().of(Duration::from_secs(2), Duration::from_mins(1));
    while Instant::now() < until {
        load.await_more(1);
    }
    let calls = load.stop();
    let errors = reach.metric("reach_connections_accept_errors_total{listener=\"webhook\"}");
    let readiness = reach.status("/readyz").status;
    let shed = reach.metric("reach_connections_shed_total{listener=\"webhook\"}").unwrap_or_default();
    leaves(crowd, &reach, files);
    let _recorded = row(
        "7",
        "64 file descriptors, and a flood of connections",
        format!(
            "{} connections of one client that come again, beside 2 of an API server",
            Size::wanted().of(200, 1000)
        ),
        &calls,
        format!(
            "{shed} connections turned away; accepting failed {} times; /readyz meanwhile {readiness}",
            errors.unwrap_or_default()
        ),
    )
    .record();
    assert_eq!(readiness, 200);
    assert!(shed > 0.0, "all places are taken");
    calls.assert_all_injected(10);
}

// === 32: overload ===

/// For how long the replica that is overloaded runs, and then stands, as under a CPU limit: a call costs these tests about as
/// much time as it costs reach, so that they could not ask more of all of it than it can take.
const RUNS: Duration = Duration::from_millis(10);
const STANDS: Duration = Duration::from_millis(90);

/// Lets a replica run for a tenth of the time.
fn limit(reach: &Reach) -> Background<()> {
    let process = Pid::from_raw(reach.id().cast_signed()).expect("a process");
    let signal = move |signal| kill_process(process, signal).expect("a process that runs");
    Background::start(move |stop| {
        while !stop.load(Ordering::Relaxed) {
            signal(Signal::STOP);
            thread::sleep(STANDS);
            signal(Signal::CONT);
            thread::sleep(RUNS);
        }
    })
}

/// Row 32.
pub fn overload_is_shed_and_fails_no_other_api_server(_: &Stage) {
    let size = Size::wanted();
    many_files(2000);
    let (reach, target) = serve(&[program()]);
    let _limit = limit(&reach);
    let calls = size.of(200, 5000);
    // As much as it can take: more connections than processors, none of which ever waits.
    let (full, rate) = alone(&target, API_SERVER, 8, calls);
    let time = size.of(Duration::from_secs(1), Duration::from_secs(30));
    for (number, fault, connections) in [
        ("32", "as much load as it can take", 8),
        ("32a", "twice as many connections", 16),
        ("32b", "load from 10 times as many connections", 80),
        ("32c", "load from more connections than it takes", 1100),
    ] {
        reach.forget_peak();
        let other = Load::start(&target, SECOND_API_SERVER, 1, Duration::from_millis(20));
        other.await_more(1);
        let shed = || reach.metric("reach_connections_shed_total{listener=\"webhook\"}").unwrap_or_default();
        let load = Load::start_uncounted(&target, API_SERVER, connections, Duration::ZERO);
        // All of them are there, or were turned away.
        load.await_more(connections);
        // First, since one that is turned away while this is asked counts as a failed call.
        let before = shed();
        load.count();
        let (start, counted) = (Instant::now(), load.so_far());
        while start.elapsed() < time {
            load.await_more(1);
        }
        let taken = (load.so_far() - counted) as f64 / start.elapsed().as_secs_f64();
        let end = Instant::now();
        let calls = load.stop();
        recovers(&target, API_SERVER);
        let recovery = end.elapsed();
        let beside = other.stop();
        let (p50, p99) = beside.latency().expect("calls");
        let peak = reach.peak_memory_kib();
        let shed = shed() - before;
        let mut row = row(
            number,
            fault,
            format!(
                "{connections} connections that call without a pause for {} s, of a replica that runs {} of every {} ms",
                time.as_secs(),
                RUNS.as_millis(),
                (RUNS + STANDS).as_millis()
            ),
            &calls,
            format!(
                "{taken:.0} calls a second (alone, 8 connections: {rate:.0}); {} answered with 503, {} connections \
                 turned away, {} calls (new connections with them) took longer than 3 s; another API server beside it: {} \
                 calls, {} failed, p50 {:.1} ms, p99 {:.1} ms; memory at most {}",
                calls.refused,
                shed,
                calls.late,
                beside.total(),
                beside.total() - beside.times.len() + beside.late,
                p50.as_secs_f64() * 1000.0,
                p99.as_secs_f64() * 1000.0,
                mib(peak),
            ),
        );
        row.recovery = Some(recovery);
        let _recorded = row.record();
        assert!(peak < MEMORY, "{peak} KiB");
        assert_eq!(calls.bare, 0);
        // None fails but those that were turned away.
        assert!(calls.failed_count() as f64 <= shed, "{:?}", calls.failures);
        beside.assert_all_injected(1);
    }
    // As before.
    let (after, rate_after) = alone(&target, API_SERVER, 8, calls);
    let mut row = row(
        "32d",
        "after all of that",
        "8 connections that call without a pause".to_owned(),
        &after,
        format!("{rate_after:.0} calls a second, before {rate:.0}"),
    );
    row.recovery = None;
    let _recorded = row.record();
    full.assert_all_injected(1);
    after.assert_all_injected(1);
}
