//! Hosts of Cluster API clusters: the examples, patched, through the real controllers of Cluster API.
//!
//! One management cluster serves all tests; each has a namespace of its own. `cargo test --test cluster_api -- NAME` runs
//! those whose name has `NAME` in it. What a failure leaves to look at: `REACH_TEST_KEEP=1`, see
//! `tests/support/cluster_api.rs`.

mod support;

#[path = "cluster_api/accepted.rs"]
mod accepted;
#[path = "cluster_api/addon.rs"]
mod addon;
#[path = "cluster_api/classes.rs"]
mod classes;
#[path = "cluster_api/hooks.rs"]
mod hooks;
#[path = "cluster_api/ignition.rs"]
mod ignition;
#[path = "cluster_api/machines.rs"]
mod machines;
#[path = "cluster_api/rolls.rs"]
mod rolls;
#[path = "cluster_api/streams.rs"]
mod streams;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::cluster_api::ClusterApi;
use support::runner::{run, tests};

/// Tests at the same time: some have an API server of their own, and nearly all of their time they wait.
const TOGETHER: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(TOGETHER));
    let together = tests!(ClusterApi:
        // The longest first.
        machines::are_given_the_files_and_the_command,
        addon::brings_reach_and_the_presets_and_keeps_them,
        classes::give_each_cluster_its_own,
        hooks::give_the_hosts_of_classes_the_presets,
        machines::of_v1beta1_are_given_the_same,
        machines::give_static_pods_what_is_asked_for,
        machines::of_a_template_are_given_the_values_of_clusterctl,
        machines::read_the_variables_from_a_secret,
        machines::of_ignition_are_given_the_files_and_the_command,
        ignition::takes_what_is_rendered_for_it,
        rolls::nothing_when_patched_twice,
        rolls::nothing_when_a_pool_grows,
        accepted::are_the_examples_in_both_versions,
        accepted::is_nothing_wrong,
    );
    run(&arguments, together, vec![], ClusterApi::start)
}
