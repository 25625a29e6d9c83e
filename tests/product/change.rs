//! What happens to pods when reach moves. What else may happen to it is in `tests/faults.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;

use crate::place::{PROXY_VARIABLE, Product};
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::Kubectl as _;
use crate::support::load::{self, Load};

/// Creations that have to go well during a change.
const CREATIONS: usize = 2000;

/// Pause after each, so that the machine has time for what is to be watched.
const PAUSE: Duration = Duration::from_millis(10);

/// Creates pods while something happens, and asserts that nobody noticed.
fn assert_unnoticed(product: &Product, what: &str, change: impl FnOnce()) {
    product.release(&[]);
    product.namespace("change");
    product.await_injection("change", true);
    let failed_open = product.failed_open();
    let start = Instant::now();
    let load = Load::start(&product.kubeconfigs(), "change", PROXY_VARIABLE, PAUSE, None);
    load.await_pods(CREATIONS / 10);
    change();
    let during = load.so_far();
    load.await_pods(CREATIONS.max(during + CREATIONS / 10));
    let counts = load.stop();
    let opened = product.failed_open() - failed_open;
    println!(
        "{what}: {counts}, {opened} calls failed open, in {:.0} s; {during} of them until it was over",
        start.elapsed().as_secs_f32(),
    );
    let unnoticed = counts.injected == counts.total() && opened == 0;
    assert!(unnoticed, "{counts}: {:?}{}", counts.failures, product.replica_logs());
}

/// Waits until none of these pods is there any more.
fn await_end(product: &Product, pods: &BTreeSet<String>) {
    eventually("the old replicas have ended", || {
        let present = product.replicas_and_those_that_end();
        let left: Vec<_> = pods.intersection(&present).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

pub fn by_evictions_loses_no_call(product: &Product) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pods: Api<Pod> =
        runtime.block_on(async { Api::namespaced(load::client(product.kubeconfigs()[0]).await, NAMESPACE) });
    // As `kubectl drain` does.
    let evict = |pod: &str| {
        let evicted = runtime.block_on(pods.evict(pod, &EvictParams::default()));
        evicted.map_err(|error| error.to_string())
    };
    assert_unnoticed(product, "eviction of each replica", || {
        let before = product.replicas();
        let [first, second] = &before.iter().collect::<Vec<_>>()[..] else {
            panic!("2 replicas: {before:?}")
        };
        eventually("the first one may go", || evict(first));
        // With one of two away, nobody else may go. The next one takes seconds until it is ready.
        let refusal = evict(second).expect_err("the PodDisruptionBudget keeps the second one");
        assert!(refusal.contains("disruption budget"), "{refusal}");
        eventually("the second one may go when the first one is replaced", || evict(second));
        product.await_rollout(NAMESPACE, "deployment/reach");
        await_end(product, &before);
        let after = product.replicas();
        assert!(before.is_disjoint(&after), "{before:?} {after:?}");
        println!(
            "eviction: {} of 2 replicas replaced; the second one was refused while one was away",
            after.len()
        );
    });
}
