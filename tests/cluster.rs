//! Running pods: a whole cluster with a real node, a corporate proxy, and clients of this machine as images.
//!
//! One cluster serves all tests; each test has a namespace of its own. `cargo test --test cluster -- NAME` runs those whose
//! name has `NAME` in it. What a failure leaves to look at: `REACH_TEST_KEEP=1`, see `tests/support/node.rs`.
//!
//! A real node needs root and more of the kernel than other tests do. Where that is missing, the tests are listed as ignored,
//! with what is missing, and with `CI=true` that is a failure. `make test` ends with the same list.
//!
//! The same program brings up a cluster for a person to try things in: `make cluster`, `make cluster-down`.

mod support;

#[path = "cluster/by_hand.rs"]
mod by_hand;
#[path = "cluster/machine.rs"]
mod machine;
#[path = "cluster/pods.rs"]
mod pods;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::node::{self, Cluster, Options};
use support::runner::{list, run, tests};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--up") => return by_hand::up(),
        Some("--down") => return by_hand::down(),
        Some("--missing") => return node::report_missing(),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let together = tests!(Cluster:
        machine::is_a_ready_node,
        machine::has_two_api_servers,
        machine::reaches_nothing_that_listens_outside_of_it,
        pods::of_every_client_run,
        pods::have_a_log_and_run_commands,
        pods::reach_only_their_neighbours_without_a_proxy,
        pods::reach_only_the_outside_with_http_proxy_written_by_hand,
        pods::use_the_proxy_that_they_are_told,
    );
    // These take away what the others stand on.
    let alone = tests!(Cluster: machine::comes_back_when_it_was_switched_off);
    if !arguments.list && !node::missing().is_empty() {
        list(&arguments, together.into_iter().chain(alone), true);
        return node::report_missing();
    }
    run(&arguments, together, alone, || Cluster::start(Options::default().with_second_api_server()))
}
