//! The product as its users have it: reach's own image, installed by the real Helm into a cluster with a real node, a corporate
//! proxy, and clients of this machine as images.
//!
//! One cluster serves all tests, one after another in the order below, since what they install and remove is one and the same
//! release. What faults do to it is in `tests/faults.rs`. Each of them can also run alone: `cargo test --test product -- NAME`. The image is that of `make image`.
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
#[path = "product/place.rs"]
mod place;
#[path = "product/promise.rs"]
mod promise;
#[path = "product/rights.rs"]
mod rights;
#[path = "product/scope.rs"]
mod scope;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use place::Product;
use support::node;
use support::runner::{list, run, tests};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // In this order: each of them changes what is installed.
    arguments.test_threads = Some(1);
    let tests = tests!(Product:
        install::takes_one_command_under_the_restricted_level,
        promise::is_kept_for_unchanged_deployments,
        promise::is_kept_for_every_kind_of_container,
        rights::are_exactly_these,
        change::by_evictions_loses_no_call,
        scope::opt_out_is_every_namespace_but_some,
        scope::opt_in_is_labelled_namespaces_only,
        install::is_tested_by_both_versions_of_helm,
        install::again_writes_nothing,
        install::upgrades_an_earlier_chart,
        install::leaves_presets_and_comes_back,
        install::is_done_by_helm_3_too,
        install::goes_as_the_documentation_says,
    );
    let existing = place::Existing::from_environment();
    if !arguments.list && existing.is_none() && !node::missing().is_empty() {
        list(&arguments, tests.into_iter(), true);
        return node::report_missing();
    }
    run(&arguments, vec![], tests, || existing.map_or_else(Product::start, Product::of))
}
