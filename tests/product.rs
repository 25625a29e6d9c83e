//! The product as its users have it: reach's own image, installed by the real Helm into a cluster with a real node, a corporate
//! proxy, and clients of this machine as images.
//!
//! One cluster serves all tests, one after another in the order below, since what they install and remove is one and the same
//! release. Each of them can also run alone: `cargo test --test product -- NAME`. The image is that of `make image`.
//!
//! With `REACH_TEST_KUBECONFIG`, it is the cluster of that kubeconfig which is tested, as `tests/kind/run.sh` does. It has to
//! have the images and the proxies already, see `tests/product/place.rs`, and is left as the last test leaves it.
//!
//! A real node needs root and more of the kernel than other tests do. Where that is missing, the tests are listed as ignored,
//! with what is missing, and with `CI=true` that is a failure.

mod support;

#[path = "product/change.rs"]
mod change;
#[path = "product/install.rs"]
mod install;
#[path = "product/load.rs"]
mod load;
#[path = "product/place.rs"]
mod place;
#[path = "product/promise.rs"]
mod promise;
#[path = "product/rights.rs"]
mod rights;
#[path = "product/scope.rs"]
mod scope;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};

use place::Product;
use support::node;

/// Names tests by their functions.
macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn(&Product))),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = tests![
        install::takes_one_command_under_the_restricted_level,
        promise::is_kept_for_unchanged_deployments,
        promise::is_kept_for_every_kind_of_container,
        rights::are_exactly_these,
        change::by_a_rolling_restart_loses_no_call,
        change::by_evictions_loses_no_call,
        scope::opt_out_is_every_namespace_but_some,
        scope::opt_in_is_labelled_namespaces_only,
        install::is_tested_by_both_versions_of_helm,
        install::again_writes_nothing,
        install::upgrades_an_earlier_chart,
        install::leaves_presets_and_comes_back,
        install::is_done_by_helm_3_too,
        install::goes_as_the_documentation_says,
        change::to_no_replica_stops_nobody,
        change::to_no_replica_with_policy_fail_stops_no_one_it_should_not,
        change::by_a_cold_start_heals_by_itself,
    ];
    let existing = place::Existing::from_environment();
    let runnable = existing.is_some() || node::missing().is_empty();
    if arguments.list || !runnable {
        let names = tests.iter().map(|(name, _)| Trial::test(*name, || Ok(())).with_ignored_flag(!runnable));
        let listed = libtest_mimic::run(&arguments, names.collect()).exit_code();
        return if runnable || arguments.list { listed } else { node::report_missing() };
    }
    let product = Arc::new(match existing {
        Some(existing) => Product::of(existing),
        None => Product::start(),
    });
    let start = Instant::now();
    let trial = |name: &str, test: fn(&Product)| {
        let product = Arc::clone(&product);
        Trial::test(name, move || {
            let start = Instant::now();
            test(&product);
            println!("took {:.0} s", start.elapsed().as_secs_f32());
            Ok(())
        })
    };
    let trials = tests.iter().map(|(name, test)| trial(name, *test)).collect();
    // Not `exit`, which would drop nothing and so leave the cluster behind.
    let exit = libtest_mimic::run(&arguments, trials).exit_code();
    println!("product: {:.0} s", start.elapsed().as_secs_f32());
    exit
}
