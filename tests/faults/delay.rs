//! A network that is slow.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::observed::row_of;
use crate::relay::Relay;
use crate::report::Size;
use crate::rotation::timeout;
use crate::stage::Stage;
use crate::support::installation::{VARIABLE, own_address};
use crate::support::load::{Load, STORED};

/// What every byte is held back for, in each direction.
const DELAY: Duration = Duration::from_millis(500);

pub fn a_network_that_is_slow_loses_no_call(stage: &Stage) {
    let size = Size::wanted();
    let least = size.of(40, 10_000);
    // The chart's, or more for a machine that is busy with other rows: a call over a new connection takes two seconds at least.
    let values = json!({"failurePolicy": "Ignore", "timeoutSeconds": timeout()});
    let release = stage.cluster().install("slow", &values);
    let replicas = release.serve(2);
    let relays: Vec<_> =
        replicas.iter().map(|reach| Relay::new(own_address(), reach.webhook, pass)).collect();
    release.route_to(&relays.iter().map(|relay| relay.address).collect::<Vec<_>>());
    release.await_injection();
    // A call takes a second, so there are more of them at once.
    let kubeconfigs = stage.cluster().kubeconfigs().repeat(size.of(1, 16));
    let load = Load::start(&kubeconfigs, &release.pods, VARIABLE, Duration::ZERO, STORED);
    load.await_pods(least);
    let counts = load.stop();
    let connections: usize = relays.iter().map(Relay::accepted).sum();
    let mut row = row_of(&counts, "13b", "500 ms delay in each direction", "of all 2 replicas".to_owned());
    row.more = format!("{connections} connections of API servers, TLS handshakes among what is delayed");
    let _recorded = row.record();
    counts.assert_all_injected(least);
    assert!(connections > 0, "calls came through the relays");
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
