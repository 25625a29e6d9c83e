//! A network that is slow.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::observed::row_of;
use crate::report::Size;
use crate::stage::Stage;
use crate::support::installation::{VARIABLE, own_address};
use crate::support::load::{Load, STORED};

/// What every byte is held back for, in each direction.
const DELAY: Duration = Duration::from_millis(500);

pub fn a_network_that_is_slow_loses_no_call(stage: &Stage) {
    let size = Size::wanted();
    let least = size.of(40, 10_000);
    let values = json!({"failurePolicy": "Ignore", "timeoutSeconds": 3});
    let release = stage.cluster().install("slow", &values);
    let replicas = release.serve(2);
    let relays: Vec<_> = replicas.iter().map(|reach| Relay::to(reach.webhook)).collect();
    release.route_to(&relays.iter().map(|relay| relay.address).collect::<Vec<_>>());
    release.await_injection();
    // A call takes a second, so there are more of them at once.
    let kubeconfigs = stage.cluster().kubeconfigs().repeat(size.of(1, 16));
    let load = Load::start(&kubeconfigs, &release.pods, VARIABLE, Duration::ZERO, STORED);
    load.await_pods(least);
    let counts = load.stop();
    let connections: usize = relays.iter().map(|relay| relay.accepted.load(Ordering::Relaxed)).sum();
    let mut row = row_of(&counts, "13b", "500 ms delay in each direction", "of all 2 replicas".to_owned());
    row.more = format!("{connections} connections of API servers, TLS handshakes among what is delayed");
    let _recorded = row.record();
    assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
    assert!(connections > 0, "calls came through the relays");
}

/// Passes connections on, and holds back what they carry: not each kernel can do that itself (netem).
struct Relay {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // Ends with the process: it is not many of them.
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    thread::spawn(move || pass(from, to));
                }
            }
        });
        Self { address, accepted }
    }
}

/// Passes on what comes from one end, later.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now() + DELAY, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}
