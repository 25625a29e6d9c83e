//! What happens to pods when something happens to reach.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::json;

use crate::place::{PROXY_VARIABLE, Product, is_injected};
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::{Kubectl as _, text};
use crate::support::load::{self, Load};
use crate::support::workloads::deployment;

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
    assert!(unnoticed, "{counts:?}{}", product.replica_logs());
}

/// Waits until none of these pods is there any more.
fn await_end(product: &Product, pods: &BTreeSet<String>) {
    eventually("the old replicas have ended", || {
        let present = product.replicas_and_those_that_end();
        let left: Vec<_> = pods.intersection(&present).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

pub fn by_a_rolling_restart_loses_no_call(product: &Product) {
    assert_unnoticed(product, "rolling restart", || {
        let before = product.replicas();
        product.ask(&["rollout", "restart", "deployment/reach", "--namespace", NAMESPACE]);
        product.await_rollout(NAMESPACE, "deployment/reach");
        // They go on serving for a while, until everybody knows that they go.
        await_end(product, &before);
        let after = product.replicas();
        assert!(before.is_disjoint(&after), "{before:?} {after:?}");
        println!("rolling restart: {} of {} replicas replaced", after.len(), before.len());
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

pub fn to_no_replica_stops_nobody(product: &Product) {
    product.release(&[]);
    product.namespace("none");
    product.await_injection("none", true);
    product.changed();
    product.scale(0);
    let failed_open = product.failed_open();
    for namespace in ["none", "kube-system"] {
        assert_eq!(product.injects(namespace), Ok(false), "pods are made in {namespace}");
    }
    assert!(product.failed_open() > failed_open, "it is counted");
    // Also when there is nothing that would bring replicas back.
    product.ask(&["delete", "deployment", "reach", "--namespace", NAMESPACE]);
    assert_eq!(product.injects("none"), Ok(false));
    product.release(&[]);
    product.await_injection("none", true);
    println!(
        "no replica, policy Ignore: pods are made without injection, and injected again after an upgrade"
    );
}

/// Values with which pods are refused rather than created without injection.
const FAIL: [&str; 1] = ["--set=failurePolicy=Fail"];

pub fn to_no_replica_with_policy_fail_stops_no_one_it_should_not(product: &Product) {
    product.release(&FAIL);
    product.namespace("none-fail");
    product.await_injection("none-fail", true);
    product.changed();
    product.scale(0);
    let refusal = eventually("pods that must be injected are refused", || {
        product.injects("none-fail").map_or_else(Ok, |injected| Err(format!("made, injected: {injected}")))
    });
    assert!(refusal.contains("pods.reach.dev"), "{refusal}");
    assert_eq!(product.injects("kube-system"), Ok(false), "kube-system goes on");
    // Its own pods are made, and it serves again.
    product.scale(2);
    product.await_injection("none-fail", true);
    product.is(&FAIL);
    println!(
        "no replica, policy Fail: pods are refused but in kube-system and for reach itself, which comes back by itself"
    );
}

/// With the policy that could keep a cluster from coming back.
pub fn by_a_cold_start_heals_by_itself(product: &Product) {
    let Some(cluster) = product.node() else {
        println!("NOT RUN: this cluster is not ours to be switched off");
        return;
    };
    product.release(&FAIL);
    product.namespace("cold");
    let pod = json!({
        "containers": [{"name": "app", "image": "example.test/pause:1", "imagePullPolicy": "IfNotPresent"}],
    });
    product.apply(&deployment("cold", "app", 2, &pod));
    product.await_rollout("cold", "deployment/app");
    let replicas = product.replicas();
    cluster.shut_down();
    let off = product.kubectl(&["get", "nodes", "--request-timeout=2s"]);
    assert!(!off.status.success(), "it is off: {}", text(&off));
    let start = Instant::now();
    let timings = cluster.boot();
    let first = loop {
        if product.injects("cold") == Ok(true) {
            break start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_mins(5), "no pod is injected{}", product.replica_logs());
        thread::sleep(Duration::from_millis(200));
    };
    product.await_rollout(NAMESPACE, "deployment/reach");
    assert_eq!(product.replicas(), replicas, "the same replicas, started anew");
    product.ask(&["rollout", "restart", "deployment/app", "--namespace=cold"]);
    product.await_rollout("cold", "deployment/app");
    let pods = product.get(&["pods", "--namespace=cold", "--selector=app=app"]);
    let living = pods["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_injected(pod));
    let injected = living.count();
    assert_eq!(injected, 2, "{pods}");
    println!(
        "cold start, policy Fail: cluster ready after {:.1} s, first injected pod after {:.1} s, 2 of 2 new pods of a Deployment injected",
        timings.ready.as_secs_f32(),
        first.as_secs_f32()
    );
}
