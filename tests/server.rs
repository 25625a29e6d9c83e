//! What a connection may and may not do, over real sockets and real TLS.
//!
//! Limits are parameters, so each test shortens the one it is about and leaves the others long. No
//! test asserts that something is fast: a connection ends or survives, and [`PATIENCE`] only bounds
//! a failure.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures::StreamExt as _;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use reach::certs::{self, CertMetrics, SelfMade};
use reach::server::{ConnectionMetrics, Drain, Limits, Server};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bounds what should happen and does not.
const PATIENCE: Duration = Duration::from_secs(30);
/// A limit that is not under test: a test that waits for it runs out of patience first.
const NEVER: Duration = Duration::from_mins(10);
/// A limit under test.
const SHORT: Duration = Duration::from_millis(300);
/// Well beyond a limit under test.
const LONGER: Duration = Duration::from_millis(1200);
const NAME: &str = "reach.reach.svc";
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: reach\r\n\r\n";
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: reach\r\n\r\n";
const LARGE_PLEASE: &[u8] = b"GET /large HTTP/1.1\r\nhost: reach\r\n\r\n";
/// More than sockets hold, and of what one client gets for bodies too much to have twice.
const LARGE: usize = 11 * 1024 * 1024;

struct Running {
    address: SocketAddr,
    drain: Drain,
    registry: Registry,
    ca_pem: String,
    server: JoinHandle<()>,
}

struct Client {
    stream: TlsStream<TcpStream>,
    /// Received and not yet part of a reply.
    received: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    head: String,
    body: Vec<u8>,
}

// === phases ===

#[tokio::test]
async fn a_peer_that_sends_no_client_hello_is_closed() {
    let running = serve(Limits { handshake: SHORT, ..patient() });
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    within(ended(&mut stream)).await;
    running.timed_out("handshake").await;
}

#[tokio::test]
async fn a_peer_that_stops_in_the_handshake_is_closed() {
    let running = serve(Limits { handshake: SHORT, ..patient() });
    let name = ServerName::try_from(NAME).unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(client_config(&running.ca_pem, b"http/1.1"), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&hello[..hello.len() / 2]).await.unwrap();
    within(ended(&mut stream)).await;
    running.timed_out("handshake").await;
}

#[tokio::test]
async fn a_new_connection_without_a_first_byte_is_closed() {
    let running = serve(Limits { first_byte: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.ended().await;
    running.timed_out("first_byte").await;
}

#[tokio::test]
async fn a_header_that_stops_half_way_is_closed() {
    let running = serve(Limits { header: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.send(&HELLO[..HELLO.len() / 2]).await;
    client.ended().await;
    running.timed_out("header").await;
}

#[tokio::test]
async fn a_header_that_trickles_after_a_reply_is_closed() {
    let running = serve(Limits { header: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.says_hello().await;
    let trickle = async {
        client.send(b"GET /hello HTTP/1.1\r\nx: ").await;
        while client.try_send(b"y").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    };
    within(trickle).await;
    running.timed_out("header").await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_limits_of_first_byte_and_header() {
    let running = serve(Limits { first_byte: SHORT, header: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.says_hello().await;
    sleep(LONGER).await;
    client.says_hello().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let running = serve(Limits { idle: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.says_hello().await;
    client.ended().await;
    running.timed_out("idle").await;
}

#[tokio::test]
async fn the_rest_of_a_body_nobody_read_is_not_taken_for_a_header() {
    let running = serve(Limits { header: SHORT, ..patient() });
    let mut client = running.connect().await;
    // More than hyper reads before it calls the handler, and little enough for it to read away
    // after the reply.
    client.send(&post_request("/refuse", &[b'x'; 12_000])).await;
    assert!(client.reply().await.head.starts_with("HTTP/1.1 404"));
    sleep(LONGER).await;
    client.says_hello().await;
}

#[tokio::test]
async fn a_request_is_never_cut_by_the_limits_of_the_connection() {
    let running = serve(Limits {
        first_byte: SHORT,
        header: SHORT,
        idle: SHORT,
        write: SHORT,
        linger: SHORT,
        ..patient()
    });
    let mut client = running.connect().await;
    client.send(b"POST /echo HTTP/1.1\r\nhost: reach\r\ncontent-length: 10\r\n\r\n").await;
    for _ in 0..10 {
        sleep(SHORT / 2).await;
        client.send(b"x").await;
    }
    assert_eq!(client.reply().await.body, b"xxxxxxxxxx");
}

#[tokio::test]
async fn a_peer_that_never_reads_its_reply_is_closed() {
    let running = serve(Limits { write: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.send(LARGE_PLEASE).await;
    running.timed_out("write").await;
    running.counts("connections_open 0").await;
}

#[tokio::test]
async fn a_peer_that_sends_requests_and_never_reads_is_closed() {
    let running = serve(Limits { write: SHORT, ..patient() });
    let mut client = running.connect().await;
    let flood = async { while client.try_send(HELLO).await.is_ok() {} };
    within(flood).await;
    running.timed_out("write").await;
}

// === protocol ===

#[tokio::test]
async fn a_client_that_speaks_http2_only_is_refused_in_the_handshake() {
    let running = serve(patient());
    let stream = TcpStream::connect(running.address).await.unwrap();
    let connector = TlsConnector::from(client_config(&running.ca_pem, b"h2"));
    let refused = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    running.counts("connections_handshake_failures_total 1").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = serve(patient());
    let mut client = running.connect().await;
    let requests = [SLOW, &post_request("/echo", b"second"), HELLO].concat();
    client.send(&requests).await;
    assert_eq!(client.reply().await.body, b"slow");
    assert_eq!(client.reply().await.body, b"second");
    assert_eq!(client.reply().await.body, b"hello");
}

#[tokio::test]
async fn a_header_that_is_too_large_is_answered_with_431() {
    let running = serve(Limits { header_bytes: 4096, ..patient() });
    let mut client = running.connect().await;
    client.send(b"GET /hello HTTP/1.1\r\nx: ").await;
    // The server may close before all of this is sent.
    let _ = client.try_send(&vec![b'y'; 200_000]).await;
    assert!(client.reply().await.head.starts_with("HTTP/1.1 431"));
    client.ended().await;
}

#[tokio::test]
async fn an_early_reply_reaches_a_client_that_is_still_sending() {
    let running = serve(patient());
    let mut client = running.connect().await;
    client.send(&post_request("/refuse", &vec![b'x'; 4 * 1024 * 1024])).await;
    assert!(client.reply().await.head.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_peer_that_does_not_close_after_the_last_reply_is_not_waited_for() {
    let running = serve(Limits { linger: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.send(b"GET /hello HTTP/1.1\r\nhost: reach\r\nconnection: close\r\n\r\n").await;
    assert!(client.reply().await.closes());
    running.timed_out("close").await;
    running.counts("connections_open 0").await;
}

#[tokio::test]
async fn the_same_limits_hold_without_tls() {
    let limits = Limits { header: SHORT, ..patient() };
    let server = Server::new(limits, ConnectionMetrics::default());
    let bound = server.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let mut stream = TcpStream::connect(bound.address()).await.unwrap();
    tokio::spawn(bound.serve(TowerToHyperService::new(router()), Drain::default()));
    stream.write_all(HELLO).await.unwrap();
    let mut reply = [0; 15];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200 OK");
    stream.write_all(b"GET /he").await.unwrap();
    within(ended(&mut stream)).await;
}

// === accepting ===

#[tokio::test]
async fn a_port_in_use_is_an_error_of_bind() {
    let running = serve(patient());
    let server = Server::new(patient(), ConnectionMetrics::default());
    let error = server.bind(running.address).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {}", running.address));
}

#[tokio::test]
async fn connections_that_come_all_at_once_wait_to_be_accepted() {
    let server = Server::new(patient(), ConnectionMetrics::default());
    let bound = server.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    // Nobody accepts: one that is dropped asks again in vain.
    let mut waiting = Vec::new();
    for _ in 0..300 {
        waiting.push(within(TcpStream::connect(bound.address())).await.unwrap());
    }
}

#[tokio::test]
async fn one_connection_too_many_is_shed_until_another_ends() {
    let running = serve(Limits { connections: 2, ..patient() });
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    first.says_hello().await;
    let mut third = TcpStream::connect(running.address).await.unwrap();
    within(ended(&mut third)).await;
    running.counts("connections_shed_total 1").await;
    second.says_hello().await;
    drop(first);
    running.counts("connections_open 1").await;
    running.connect().await.says_hello().await;
}

#[tokio::test]
async fn the_client_with_most_connections_makes_room_for_another_one() {
    let running = serve(Limits { connections: 3, ..patient() });
    let stranger = Ipv4Addr::new(127, 0, 0, 66);
    let (mut used, mut busy, mut unused) = (
        running.connect_from(stranger).await,
        running.connect_from(stranger).await,
        running.connect_from(stranger).await,
    );
    used.says_hello().await;
    busy.send(SLOW).await;
    sleep(SHORT).await;
    let mut other = running.connect().await;
    // The one that has not asked for anything.
    unused.ended().await;
    other.says_hello().await;
    used.says_hello().await;
    assert_eq!(busy.reply().await.body, b"slow");
    // With as many as the others there is no more to be had.
    let mut second = TcpStream::connect(running.address).await.unwrap();
    within(ended(&mut second)).await;
    running.counts("connections_shed_total 2").await;
    running.counts("connections_open 3").await;
}

#[tokio::test]
async fn of_connections_from_everywhere_the_one_unused_for_longest_gives_way_where_clients_ask_at_once() {
    let running = serve(Limits { connections: 3, unused_give_way: true, ..patient() });
    let from = async |last| running.connect_from(Ipv4Addr::new(127, 0, 0, last)).await;
    let (mut used, mut oldest, mut begun) = (from(2).await, from(3).await, from(4).await);
    used.says_hello().await;
    // Half a question is none.
    begun.send(&HELLO[..HELLO.len() / 2]).await;
    let mut first = from(5).await;
    oldest.ended().await;
    first.says_hello().await;
    let mut second = from(6).await;
    begun.ended().await;
    second.says_hello().await;
    // Now each of them has asked.
    let mut third = TcpStream::connect(running.address).await.unwrap();
    within(ended(&mut third)).await;
    for client in [&mut used, &mut first, &mut second] {
        client.says_hello().await;
    }
}

#[tokio::test]
async fn a_flood_from_one_client_gives_its_own_places_up_and_not_those_of_others() {
    let running = serve(Limits { connections: 3, unused_give_way: true, ..patient() });
    let stranger = Ipv4Addr::new(127, 0, 0, 66);
    let mut oldest = running.connect().await;
    let (mut older, mut newer) = (running.connect_from(stranger).await, running.connect_from(stranger).await);
    let mut newest = running.connect_from(stranger).await;
    older.ended().await;
    for client in [&mut oldest, &mut newer, &mut newest] {
        client.says_hello().await;
    }
}

#[tokio::test]
async fn who_asks_gets_another_place_although_those_who_never_do_have_one_each() {
    let running = serve(Limits { connections: 5, unused_give_way: true, ..patient() });
    let mut unused = Vec::new();
    for last in 2..7 {
        unused.push(running.connect_from(Ipv4Addr::new(127, 0, 0, last)).await);
    }
    let mut used = Vec::new();
    for unused in unused.iter_mut().take(3) {
        let mut client = running.connect().await;
        unused.ended().await;
        client.says_hello().await;
        used.push(client);
    }
    // Most are its own now, and in use.
    let mut refused = TcpStream::connect(running.address).await.unwrap();
    within(ended(&mut refused)).await;
}

#[tokio::test]
async fn who_comes_in_the_middle_of_a_flood_has_a_moment_to_ask() {
    let running = serve(Limits { connections: 1, unused_give_way: true, ..patient() });
    let start = Instant::now();
    let mut first = running.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    let mut second = running.connect_from(Ipv4Addr::new(127, 0, 0, 3)).await;
    first.ended().await;
    // At least, so that a busy machine makes no difference.
    assert!(start.elapsed() >= Duration::from_millis(10), "{:?}", start.elapsed());
    second.says_hello().await;
}

#[tokio::test]
async fn connections_kept_for_later_are_not_lost_to_those_who_come_from_everywhere() {
    let running = serve(Limits { connections: 2, ..patient() });
    let (mut spare, mut other) =
        (running.connect().await, running.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, 3), 0).into()).unwrap();
    let mut refused = socket.connect(running.address).await.unwrap();
    within(ended(&mut refused)).await;
    spare.says_hello().await;
    other.says_hello().await;
}

#[tokio::test]
async fn bodies_are_refused_when_there_is_no_memory_for_them_and_taken_again_after() {
    let running = serve(patient());
    let part = vec![b'x'; 1024 * 1024];
    let begin = async || {
        let mut client = running.connect().await;
        let head =
            format!("POST /count HTTP/1.1\r\nhost: reach\r\ncontent-length: {}\r\n\r\n", part.len() + 1);
        client.send(head.as_bytes()).await;
        client.send(&part).await;
        client
    };
    // What one client gets.
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(begin().await);
    }
    // What is sent has not yet been read, and who comes last is who is read last.
    let all = clients.len() * part.len();
    within(async {
        while COUNTED.load(Ordering::Relaxed) < all {
            sleep(SHORT / 10).await;
        }
    })
    .await;
    begin().await.ended().await;
    // Another client's are taken meanwhile, and small ones always.
    let mut other = running.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    other.send(&post_request("/echo", &part)).await;
    assert_eq!(other.reply().await.body, part);
    let mut small = running.connect().await;
    small.send(&post_request("/echo", &part[..16 * 1024])).await;
    assert_eq!(small.reply().await.body.len(), 16 * 1024);
    for mut client in clients {
        client.send(b"x").await;
        assert_eq!(client.reply().await.body, (part.len() + 1).to_string().as_bytes());
    }
    let mut again = running.connect().await;
    again.send(&post_request("/echo", &part)).await;
    assert_eq!(again.reply().await.body, part);
}

#[tokio::test]
async fn replies_that_nobody_reads_have_their_memory_counted_until_they_are_taken() {
    let running = serve(patient());
    let asks = async |mut client: Client| {
        client.send(LARGE_PLEASE).await;
        client.receive().await;
        client
    };
    // It has begun to arrive, so it is made, and there it stays.
    let mut unread = asks(running.connect().await).await;
    let mut refused = asks(running.connect().await).await;
    assert!(refused.reply().await.head.starts_with("HTTP/1.1 503"));
    // Another client's are made meanwhile, and small ones always, also for who was refused.
    let mut other = asks(running.connect_from(Ipv4Addr::new(127, 0, 0, 2)).await).await;
    assert_eq!(other.reply().await.body.len(), LARGE);
    refused.says_hello().await;
    assert_eq!(unread.reply().await.body.len(), LARGE);
    let again = async |running: &Running| {
        while asks(running.connect().await).await.reply().await.body.len() < LARGE {}
    };
    within(again(&running)).await;
    // What is not taken before the connection ends is given back, too.
    drop(asks(running.connect().await).await);
    within(again(&running)).await;
}

#[tokio::test]
async fn a_reply_no_larger_than_its_request_finds_the_memory_that_the_request_had() {
    let running = serve(patient());
    let body = vec![b'x'; LARGE];
    let mut client = running.connect().await;
    for _ in 0..3 {
        client.send(&post_request("/parrot", &body)).await;
        assert_eq!(client.reply().await.body.len(), LARGE);
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_connection_only() {
    let running = serve(patient());
    let (mut unlucky, mut other) = (running.connect().await, running.connect().await);
    unlucky.send(b"GET /panic HTTP/1.1\r\nhost: reach\r\n\r\n").await;
    unlucky.ended().await;
    other.says_hello().await;
    running.counts("connections_open 1").await;
}

/// Runs itself again in a process of its own, because file descriptors run out for all tests of a
/// process.
#[test]
fn accepting_goes_on_after_file_descriptors_ran_out() {
    const ALONE: &str = "REACH_TEST_WITH_FEW_DESCRIPTORS";
    if std::env::var_os(ALONE).is_none() {
        let script = r#"ulimit -n 64 && exec "$0" --exact accepting_goes_on_after_file_descriptors_ran_out"#;
        let itself = std::env::current_exe().unwrap();
        let status = Command::new("sh").arg("-c").arg(script).arg(itself).env(ALONE, "1").status();
        assert!(status.unwrap().success());
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let running = serve(patient());
        let socket = TcpSocket::new_v4().unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        let stream = socket.connect(running.address).await.unwrap();
        let out_of_descriptors = async {
            while running.metrics().contains("connections_accept_errors_total 0") {
                sleep(SHORT / 10).await;
            }
        };
        within(out_of_descriptors).await;
        drop(taken);
        running.client(stream).await.says_hello().await;
    });
}

// === certificates ===

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_leaves_open_ones_alone() {
    let files = tempfile::tempdir().unwrap();
    let (running, first) = serve_files(files.path());
    let mut open = running.connect_trusting(&first).await.unwrap();
    open.says_hello().await;
    let second = write_pair(files.path());
    let replaced = async {
        while running.connect_trusting(&first).await.is_ok() {
            sleep(SHORT / 10).await;
        }
    };
    within(replaced).await;
    running.connect_trusting(&second).await.unwrap().says_hello().await;
    open.says_hello().await;
}

#[tokio::test]
async fn broken_files_leave_the_old_certificate_in_place_and_raise_a_metric() {
    let files = tempfile::tempdir().unwrap();
    let (running, first) = serve_files(files.path());
    running.counts("serving_certificate_reload_failing 0").await;
    fs::write(files.path().join("tls.key"), "no key").unwrap();
    running.counts("serving_certificate_reload_failing 1").await;
    running.connect_trusting(&first).await.unwrap().says_hello().await;

    let second = write_pair(files.path());
    running.counts("serving_certificate_reload_failing 0").await;
    running.connect_trusting(&second).await.unwrap().says_hello().await;

    fs::remove_file(files.path().join("tls.crt")).unwrap();
    running.counts("serving_certificate_reload_failing 1").await;
    running.connect_trusting(&second).await.unwrap().says_hello().await;
}

#[tokio::test]
async fn a_second_connection_resumes_the_session_of_the_first() {
    let running = serve(patient());
    let config = client_config(&running.ca_pem, b"http/1.1");
    for resumed in [false, true] {
        let stream = TcpStream::connect(running.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
        let mut client = Client { stream, received: Vec::new() };
        client.says_hello().await;
        let kind = client.stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed, "{kind:?}");
    }
}

// === age and drain ===

#[tokio::test]
async fn an_aged_connection_is_closed_by_a_reply_and_not_before() {
    let running = serve(Limits { max_age: SHORT, ..patient() });
    let mut client = running.connect().await;
    assert!(!client.says_hello().await.closes());
    sleep(LONGER).await;
    assert!(client.says_hello().await.closes());
    client.ended().await;
    running.connect().await.says_hello().await;
}

#[tokio::test]
async fn while_draining_all_is_served_with_connection_close_and_then_refused() {
    let drain = LONGER * 2;
    let running = serve(Limits { drain, ..patient() });
    let (mut busy, mut idle) = (running.connect().await, running.connect().await);
    assert!(!busy.says_hello().await.closes());
    assert!(!idle.says_hello().await.closes());

    running.drain.start();
    assert!(busy.says_hello().await.closes());
    busy.ended().await;
    let mut new = running.connect().await;
    assert!(new.says_hello().await.closes());
    assert!(!running.server.is_finished());

    idle.ended().await;
    drop((busy, idle, new));
    running.ended().await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_drain() {
    let running = serve(Limits { drain: Duration::ZERO, ..patient() });
    let (mut slow, mut sending) = (running.connect().await, running.connect().await);
    slow.send(SLOW).await;
    sending.send(b"POST /echo HTTP/1.1\r\nhost: reach\r\ncontent-length: 2\r\n\r\n1").await;
    // Long enough for both to be read, and well within what the slow one takes.
    sleep(SHORT / 2).await;
    running.drain.start();
    sleep(SHORT / 2).await;
    sending.send(b"2").await;
    for (client, body) in [(&mut slow, b"slow".as_slice()), (&mut sending, b"12")] {
        let reply = client.reply().await;
        assert_eq!(reply.body, body);
        assert!(reply.closes());
        client.ended().await;
    }
    drop((slow, sending));
    running.ended().await;
}

#[tokio::test]
async fn a_connection_that_is_new_at_the_end_of_the_drain_is_served_once() {
    let running = serve(Limits { drain: Duration::ZERO, ..patient() });
    let (mut client, silent) = (running.connect().await, running.connect().await);
    running.drain.start();
    sleep(SHORT).await;
    assert!(client.says_hello().await.closes());
    client.ended().await;
    assert!(!running.server.is_finished());
    drop((client, silent));
    running.ended().await;
}

#[tokio::test]
async fn a_header_that_has_begun_is_answered_after_the_drain() {
    let running = serve(Limits { drain: Duration::ZERO, ..patient() });
    let mut client = running.connect().await;
    client.says_hello().await;
    let (begin, rest) = HELLO.split_at(HELLO.len() / 2);
    client.send(begin).await;
    sleep(SHORT).await;
    running.drain.start();
    sleep(SHORT).await;
    client.send(rest).await;
    assert!(client.reply().await.closes());
    drop(client);
    running.ended().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_abandoned_after_the_drain() {
    let running = serve(Limits { drain: Duration::ZERO, finish: SHORT, ..patient() });
    let mut client = running.connect().await;
    client.send(b"GET /forever HTTP/1.1\r\nhost: reach\r\n\r\n").await;
    sleep(SHORT).await;
    running.drain.start();
    client.ended().await;
    running.ended().await;
}

// === helpers ===

/// Limits that no test reaches.
fn patient() -> Limits {
    Limits {
        handshake: NEVER,
        first_byte: NEVER,
        header: NEVER,
        idle: NEVER,
        write: NEVER,
        linger: NEVER,
        max_age: NEVER,
        finish: NEVER,
        ..Limits::default()
    }
}

fn router() -> Router {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route(
            "/slow",
            get(async || {
                sleep(LONGER).await;
                "slow"
            }),
        )
        .route("/forever", get(std::future::pending::<()>))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/panic", get(async || -> () { panic!("as a test") }))
        .route("/echo", post(async |body: Bytes| body))
        .route("/parrot", post(async |body: Body| axum::body::to_bytes(body, LARGE).await.unwrap()))
        .route("/count", post(count))
        .fallback(async |_: Body| hyper::StatusCode::NOT_FOUND)
}

/// Bytes that [`count`] has got.
static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Answers how long a body is, once it is there.
async fn count(body: Body) -> Result<String, hyper::StatusCode> {
    let mut parts = body.into_data_stream();
    let mut length = 0;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| hyper::StatusCode::SERVICE_UNAVAILABLE)?;
        length += part.len();
        COUNTED.fetch_add(part.len(), Ordering::Relaxed);
    }
    Ok(length.to_string())
}

fn post_request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: reach\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Writes `tls.crt` and `tls.key` and returns the certificate to trust, which is the same: it
/// signed itself.
fn write_pair(directory: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.pem()
}

fn client_config(ca_pem: &str, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn serve(limits: Limits) -> Running {
    let SelfMade { resolver, ca_pem } = certs::self_made(&[NAME.to_owned()]).unwrap();
    serve_with(limits, resolver, ca_pem)
}

fn serve_with(limits: Limits, resolver: Arc<certs::CertResolver>, ca_pem: String) -> Running {
    let mut registry = Registry::default();
    let metrics = ConnectionMetrics::register(&mut registry);
    let tls = certs::server_config(resolver, None).unwrap();
    let server = Server::new(limits, metrics).with_tls(tls);
    let bound = server.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let drain = Drain::default();
    Running {
        address: bound.address(),
        drain: drain.clone(),
        registry,
        ca_pem,
        server: tokio::spawn(bound.serve(TowerToHyperService::new(router()), drain)),
    }
}

/// Serves the pair that it writes to this directory and follows its changes.
fn serve_files(directory: &Path) -> (Running, String) {
    let ca_pem = write_pair(directory);
    let files = [directory.join("tls.crt"), directory.join("tls.key")];
    let (resolver, reloader) = certs::files::from_files(&files[0], &files[1]).unwrap();
    let mut running = serve_with(patient(), resolver, ca_pem.clone());
    let metrics = CertMetrics::register(&mut running.registry);
    tokio::spawn(reloader.run(SHORT / 10, metrics, None));
    (running, ca_pem)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("should have happened by now")
}

/// Reads until the peer closes, orderly or not.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut waste = [0; 4096];
    while !matches!(stream.read(&mut waste).await, Ok(0) | Err(_)) {}
}

impl Running {
    async fn connect(&self) -> Client {
        self.client(TcpStream::connect(self.address).await.unwrap()).await
    }

    async fn client(&self, stream: TcpStream) -> Client {
        shake_hands(stream, &self.ca_pem).await.unwrap()
    }

    async fn connect_from(&self, address: Ipv4Addr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        self.client(socket.connect(self.address).await.unwrap()).await
    }

    async fn connect_trusting(&self, ca_pem: &str) -> io::Result<Client> {
        shake_hands(TcpStream::connect(self.address).await?, ca_pem).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until the metrics have this line.
    async fn counts(&self, line: &str) {
        let counted = timeout(PATIENCE, async {
            while !self.metrics().lines().any(|counted| counted == line) {
                sleep(SHORT / 10).await;
            }
        });
        assert!(counted.await.is_ok(), "no `{line}` in\n{}", self.metrics());
    }

    async fn timed_out(&self, phase: &str) {
        self.counts(&format!("connections_timeouts_total{{phase=\"{phase}\"}} 1")).await;
    }

    /// Waits for the server to return, after which nobody listens.
    async fn ended(self) {
        within(self.server).await.unwrap();
        let refused = TcpStream::connect(self.address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}

async fn shake_hands(stream: TcpStream, ca_pem: &str) -> io::Result<Client> {
    let connector = TlsConnector::from(client_config(ca_pem, b"http/1.1"));
    let name = ServerName::try_from(NAME).unwrap();
    let stream = within(connector.connect(name, stream)).await?;
    Ok(Client { stream, received: Vec::new() })
}

impl Client {
    async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn send(&mut self, bytes: &[u8]) {
        within(self.try_send(bytes)).await.unwrap();
    }

    /// Reads one reply that has a `content-length`.
    async fn reply(&mut self) -> Reply {
        let head = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
            }
            self.receive().await;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        while self.received.len() < length {
            self.receive().await;
        }
        let body = self.received.drain(..length).collect();
        Reply { head, body }
    }

    async fn receive(&mut self) {
        let read = within(self.stream.read_buf(&mut self.received)).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
    }

    async fn says_hello(&mut self) -> Reply {
        self.send(HELLO).await;
        let reply = self.reply().await;
        assert_eq!(reply.body, b"hello", "{}", reply.head);
        reply
    }

    async fn ended(&mut self) {
        within(ended(&mut self.stream)).await;
    }
}

impl Reply {
    fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}
