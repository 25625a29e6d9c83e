//! Every fault that a webhook has to survive, each with figures: `make faults` does them at the sizes that are published in
//! `docs/reliability.md`, and `cargo test --test faults` at sizes for which nobody has to wait.
//!
//! Rows on a real node (the image, its replicas as pods, kube-proxy, two API servers) and rows on a control plane without nodes
//! (replicas as processes, so that one can be stopped, starved and lied to) share one report, see [`report`]. They run one after
//! another: what one measures, another would disturb. Only at small sizes, whose figures nobody publishes, those that wait for
//! nearly all of their time run together. `cargo test --test faults -- NAME` runs those whose name has `NAME` in it.
//!
//! A real node needs root and more of the kernel than other tests do. Where that is missing, its rows are listed as ignored,
//! with what is missing, and with `CI=true` that is a failure.

#![allow(clippy::cast_precision_loss, reason = "measured values are not that precise")]

mod support;

#[path = "faults/absence.rs"]
mod absence;
#[path = "faults/admitted.rs"]
mod admitted;
#[path = "faults/api_servers.rs"]
mod api_servers;
#[path = "faults/bundle.rs"]
mod bundle;
#[path = "certificates/calls.rs"]
mod calls;
#[path = "faults/canary.rs"]
mod canary;
#[allow(dead_code, reason = "rows use a part of it")]
#[path = "certificates/cert_manager.rs"]
mod cert_manager;
#[path = "faults/client.rs"]
mod client;
#[allow(dead_code, reason = "rows use a part of it")]
#[path = "certificates/cluster.rs"]
mod cluster;
#[path = "faults/delay.rs"]
mod delay;
#[path = "faults/denied.rs"]
mod denied;
#[path = "faults/hostile.rs"]
mod hostile;
#[path = "faults/lag.rs"]
mod lag;
#[path = "faults/managed.rs"]
mod managed;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/observed.rs"]
mod observed;
#[allow(dead_code, reason = "rows use a part of it")]
#[path = "product/place.rs"]
mod place;
#[path = "faults/relay.rs"]
mod relay;
#[path = "faults/releases.rs"]
mod releases;
#[path = "faults/replicas.rs"]
mod replicas;
#[path = "faults/report.rs"]
mod report;
#[path = "faults/restarts.rs"]
mod restarts;
#[path = "faults/rotation.rs"]
mod rotation;
#[path = "faults/silence.rs"]
mod silence;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/stage.rs"]
mod stage;
#[path = "faults/stuck.rs"]
mod stuck;
#[allow(dead_code, reason = "rows use a part of it")]
#[path = "e2e/cluster.rs"]
mod tenancy;
#[path = "faults/tenants.rs"]
mod tenants;

use std::process::ExitCode;
use std::thread;

use libtest_mimic::Arguments;
use report::Size;
use stage::Stage;
use support::node;
use support::runner::{Tests, list, run, tests};

/// Rows that run beside those on a node at small sizes.
const TOGETHER: usize = 4;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--report") {
        return report::publish();
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let on_a_node: Tests<Stage> = tests!(Stage:
        restarts::a_rolling_restart_loses_no_call,
        restarts::a_kill_costs_the_calls_of_a_moment,
        stuck::a_replica_that_hangs_costs_the_calls_on_their_way_to_it,
        stuck::pods_are_created_while_all_replicas_hang,
        network::a_lost_node_costs_the_calls_on_their_way_to_it,
        network::replicas_serve_on_while_no_api_server_can_be_reached,
        lag::of_a_new_preset_is_short,
        api_servers::that_have_forgotten_what_replicas_missed_bring_it_back_to_no_one,
        api_servers::without_etcd_cost_no_preset,
        api_servers::that_start_again_inject_from_the_first_pod,
        absence::of_all_replicas_stops_nobody,
        absence::of_all_replicas_with_policy_fail_stops_no_one_it_should_not,
        absence::of_the_whole_cluster_is_healed_by_itself,
    );
    // These take long however small they are, or are small in other tests.
    let long_on_a_node: Tests<Stage> = tests!(Stage:
        network::a_network_that_loses_packets_only_costs_time,
        releases::that_come_and_fail_and_go_lose_no_call,
        releases::that_are_removed_and_return_find_their_presets,
        stuck::a_replica_that_hangs_for_good_is_replaced,
    );
    let on_a_node = [on_a_node, Size::wanted().of(vec![], long_on_a_node)].concat();
    let long_without_a_node: Tests<Stage> = tests!(Stage:
        silence::of_the_api_server_is_noticed_and_leaves_the_last_presets_serving,
    );
    let without_a_node: Tests<Stage> = tests!(Stage:
        // The longest first.
        rotation::a_leader_that_freezes_in_a_rotation_is_overtaken_and_follows,
        rotation::a_rotated_ca_loses_no_call_though_an_api_server_lags,
        rotation::a_ca_rotates_though_others_write_all_the_time,
        bundle::the_bundle_is_healed_and_nothing_else_is_touched,
        managed::a_damaged_secret_costs_nothing,
        denied::replicas_without_rights_serve_on,
        rotation::a_renewed_leaf_loses_no_call,
        managed::replicas_that_start_together_make_one_ca,
        delay::a_network_that_is_slow_loses_no_call,
        tenants::presets_that_cannot_be_used_leave_the_others_working,
        admitted::pods_that_another_webhook_changes_are_injected_exactly_once,
        hostile::idle_connections_outlive_those_that_keep_them,
        tenants::presets_are_read_in_pages_where_they_are_not_streamed,
    );
    let without_a_node = [without_a_node, Size::wanted().of(vec![], long_without_a_node)].concat();
    // Those of hostile clients, overload and memory: what they do would be felt by others.
    let of_a_server: Tests<Stage> = tests!(Stage:
        hostile::bodies_without_end_take_no_memory_and_nobody_elses_time,
        hostile::connections_that_never_get_to_the_point_keep_nobody_out,
        hostile::connections_that_say_nothing_to_the_admin_port_keep_no_probe_out,
        hostile::files_that_run_out_keep_nobody_out,
        hostile::overload_is_shed_and_fails_no_other_api_server,
        admitted::pods_that_are_not_ours_are_untouched_and_large_ones_take_no_time,
        admitted::dry_runs_show_what_is_stored_and_store_nothing,
        tenants::presets_of_a_namespace_are_for_its_pods_only,
        tenants::large_presets_of_a_namespace_take_no_memory_from_others,
        tenants::many_presets_of_a_namespace_take_no_time_from_others,
        canary::values_are_in_no_log_metric_event_warning_or_status,
        canary::values_are_in_the_patch_and_in_nothing_else_of_an_answer,
        soak::everything_comes_and_goes_and_nothing_stays,
    );
    if arguments.list {
        return list(&arguments, on_a_node.into_iter().chain(without_a_node).chain(of_a_server), false);
    }
    let lacks = node::missing();
    if !lacks.is_empty() {
        list(&arguments, on_a_node.into_iter(), true);
        let end = run(&arguments, vec![], [without_a_node, of_a_server].concat(), Stage::default);
        let told = node::report("tests/faults.rs, of running pods", "a real node", &lacks);
        return if end == ExitCode::SUCCESS { told } else { end };
    }
    if Size::wanted() == Size::Full {
        if arguments.filter.is_none() && arguments.skip.is_empty() {
            report::forget();
        }
        return run(&arguments, vec![], [on_a_node, without_a_node, of_a_server].concat(), Stage::default);
    }
    let threads = |threads| Arguments { test_threads: Some(threads), ..arguments.clone() };
    let (on_a_node, without_a_node) = thread::scope(|scope| {
        // One after another also with two threads; with one, a test is named before it runs, on a line that others would write to.
        let on_a_node = scope.spawn(|| run(&threads(2), vec![], on_a_node, Stage::default));
        let without_a_node = run(&threads(TOGETHER), without_a_node, vec![], Stage::default);
        (on_a_node.join().expect("tests do not end their runner"), without_a_node)
    });
    let of_a_server = run(&arguments, vec![], of_a_server, Stage::default);
    if [on_a_node, without_a_node, of_a_server] == [ExitCode::SUCCESS; 3] {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
