//! The whole way of a node: manifests of Cluster API and presets, rendered by reach; the user data that Cluster API's own
//! controllers make of them; a machine that really boots it, up to a control plane by kubeadm; and reach itself in that cluster.
//!
//! One machine serves all tests, one after another in the order below. Each of them can also run alone: `cargo test --test
//! boot -- NAME`. What a failure leaves to look at: `REACH_TEST_KEEP=1`. `make demo-hosts` tells the same as a story.
//!
//! It needs root and more of the kernel than other tests do. Where that is missing, the tests are listed as ignored, with what
//! is missing, and with `CI=true` that is a failure.

mod support;

#[path = "boot/journey.rs"]
mod journey;
#[path = "boot/node.rs"]
mod node;
#[path = "boot/pods.rs"]
mod pods;
#[path = "boot/readers.rs"]
mod readers;
#[path = "boot/static_pods.rs"]
mod static_pods;
#[path = "boot/story.rs"]
mod story;

use std::process::ExitCode;

use journey::Journey;
use libtest_mimic::Arguments;
use support::boot;
use support::runner::{list, run, tests};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--story") => return story::tell(),
        Some("--missing") => return boot::report_missing(),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // In this order: the later ones change the machine.
    arguments.test_threads = Some(1);
    let tests = tests!(Journey:
        node::has_the_files_that_reach_renders,
        node::ran_ours_first_then_the_users_then_kubeadm,
        node::runs_a_containerd_with_exactly_these_variables,
        node::pulls_through_the_proxy_what_only_that_reaches,
        node::pulls_from_the_company_past_the_proxy,
        node::is_ready_in_a_cluster_of_its_own,
        readers::read_what_was_meant,
        static_pods::get_no_proxy_by_default,
        pods::are_given_what_the_host_has,
        static_pods::inherit_what_kubeadm_has,
        static_pods::are_given_the_variables_explicitly,
        node::is_the_same_after_a_power_cut,
    );
    if !arguments.list && !boot::missing().is_empty() {
        list(&arguments, tests.into_iter(), true);
        return boot::report_missing();
    }
    run(&arguments, vec![], tests, Journey::start)
}
