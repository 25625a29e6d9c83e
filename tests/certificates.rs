//! Certificates and registration, on a real control plane with two API servers: `reach serve` as the chart starts it, called
//! through its Service.
//!
//! One control plane serves all tests; each installs a release of its own (`tests/support/installation.rs`) and prints what it
//! counted. What happens to certificates of reach's own is in `tests/faults.rs`. `cargo test --test certificates -- NAME` runs those whose name has `NAME` in it. What a failure leaves to look at:
//! `REACH_TEST_KEEP=1`, see `tests/support/control_plane.rs`.

mod support;

#[path = "certificates/calls.rs"]
mod calls;
#[path = "certificates/cert_manager.rs"]
mod cert_manager;
#[path = "certificates/check.rs"]
mod check;
#[path = "certificates/clients.rs"]
mod clients;
#[path = "certificates/cluster.rs"]
mod cluster;
#[path = "certificates/outage.rs"]
mod outage;
#[path = "certificates/tls_secret.rs"]
mod tls_secret;

use std::process::ExitCode;

use cluster::Cluster;
use libtest_mimic::Arguments;
use support::runner::{run, tests};

/// Tests at the same time: nearly all of their time they wait.
const TOGETHER: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(TOGETHER));
    let together = tests!(Cluster:
        // The longest first.
        cert_manager::renews_and_its_injector_writes_the_bundle,
        cert_manager::renews_and_reach_keeps_the_bundle,
        tls_secret::of_others_is_followed_and_what_is_bad_is_not_taken,
        tls_secret::with_the_bundle_of_an_injector_is_followed,
        clients::without_the_right_certificate_are_refused,
        check::says_what_is_wrong,
        check::brings_crds_up_to_date,
    );
    // This takes away what the others stand on.
    let alone = tests!(Cluster: outage::of_the_api_servers_lets_no_certificate_expire);
    run(&arguments, together, alone, Cluster::start)
}
