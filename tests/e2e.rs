//! reach in a real Kubernetes control plane: its CRDs, its webhook, its client.
//!
//! One control plane and one `reach serve` serve all tests; each test has a namespace of its own, and
//! ClusterPodPresets that select it. `cargo test --test e2e -- NAME` runs those whose name has `NAME` in it. What a
//! failure leaves to look at: `REACH_TEST_KEEP=1`, see `tests/support/control_plane.rs`.

mod support;

#[path = "e2e/changes.rs"]
mod changes;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/crds.rs"]
mod crds;
#[path = "properties/generate.rs"]
mod generate;
#[path = "e2e/generated.rs"]
mod generated;
#[path = "properties/oracle.rs"]
mod oracle;
#[path = "e2e/pods.rs"]
mod pods;
#[path = "properties/portable.rs"]
mod portable;
#[path = "properties/real.rs"]
mod real;
#[path = "e2e/sources.rs"]
mod sources;
#[path = "e2e/status.rs"]
mod status;
#[path = "e2e/values.rs"]
mod values;

use std::process::ExitCode;

use cluster::Cluster;
use libtest_mimic::Arguments;
use support::runner::{run, tests};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let together = tests!(Cluster:
        crds::are_described_to_kubectl,
        crds::show_what_presets_do_in_columns,
        crds::accept_every_example,
        crds::refuse_every_invalid_example_and_accept_what_is_nearly_the_same,
        crds::agree_with_the_rules_for_files,
        pods::are_injected_however_they_are_made,
        pods::are_injected_in_every_kind_of_container,
        pods::get_ephemeral_containers_injected_and_nothing_else_changed,
        pods::get_env_from_volumes_and_mounts_once,
        pods::have_volumes_completed_as_the_contract_says,
        pods::are_admitted_without_the_preset_that_conflicts,
        pods::that_opted_out_are_left_alone,
        pods::in_a_namespace_made_a_moment_ago_are_injected,
        pods::by_the_hundreds_are_all_injected,
        pods::are_what_inject_and_explain_say,
        values::are_made_as_documented,
        sources::that_are_services_are_in_the_next_pod,
        sources::that_are_refused_leave_it_ready,
        status::says_what_lint_has_against_a_preset,
        status::that_may_not_be_written_is_said_once,
        changes::of_presets_show_in_the_next_pod,
        changes::of_namespace_labels_show_in_the_next_pod,
        changes::of_namespaces_are_waited_for,
        changes::of_replicas_fail_no_pod,
        changes::are_counted_in_metrics,
        generated::pods_are_stored_with_what_the_contract_says_and_nothing_else,
    );
    // These take away what the others stand on.
    let alone = tests!(Cluster:
        // A Node is a place for pods of DaemonSets.
        sources::that_are_networks_and_nodes_are_in_the_next_pod,
        changes::of_the_api_server_leave_the_last_presets_serving,
    );
    run(&arguments, together, alone, Cluster::start)
}
