//! No replica at all.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::observed::{Observed, PODS, trouble_lasted};
use crate::place::is_injected;
use crate::replicas;
use crate::report::{Row, Size, percentiles};
use crate::stage::{REPLICAS, Stage, values};
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::{Kubectl as _, text};
use crate::support::workloads::deployment;

pub fn of_all_replicas_stops_nobody(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let without = size.of(100, 2000);
    let mut back = Instant::now();
    let observed = Observed::of(product, size.of(500, 10_000), |load| {
        product.changed();
        product.scale(0);
        load.await_pods(load.so_far() + without);
        assert_eq!(product.injects("kube-system"), Ok(false), "pods are made in kube-system");
        back = Instant::now();
        product.scale(u8::try_from(REPLICAS).expect("a few"));
        product.is(&values());
        product.await_injection(PODS, true);
    });
    let mut row = observed.row(
        "14",
        "no replica, policy Ignore",
        format!("{REPLICAS} replicas scaled to 0, {without} pods without any, scaled back"),
    );
    row.recovery = Some(trouble_lasted(&observed.counts, back, None));
    row.more.push_str("recovery: from `kubectl scale`, the start of pods among it");
    let _recorded = row.record();
    let counts = &observed.counts;
    assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
    assert!(counts.bare >= without, "{counts}");
    // More, because the pods with which the row asks whether it is over are counted, too.
    assert!(observed.opened >= counts.bare as u64, "each of {counts} is counted");
}

/// Values with which pods are refused rather than created without injection.
fn fail() -> Vec<&'static str> {
    [values(), vec!["--set=failurePolicy=Fail"]].concat()
}

pub fn of_all_replicas_with_policy_fail_stops_no_one_it_should_not(stage: &Stage) {
    let attempts = Size::wanted().of(10, 100);
    let product = stage.product();
    product.release(&fail());
    product.namespace(PODS);
    product.await_injection(PODS, true);
    product.changed();
    product.scale(0);
    eventually("pods that must be injected are refused", || {
        product.injects(PODS).map_or_else(Ok, |injected| Err(format!("made, injected: {injected}")))
    });
    let mut times = Vec::new();
    let mut refused = 0;
    for _ in 0..attempts {
        let start = Instant::now();
        let refusal = product.injects(PODS).expect_err("no pod without injection");
        times.push(start.elapsed());
        assert!(refusal.contains("pods.reach.dev"), "{refusal}");
        refused += 1;
        assert_eq!(product.injects("kube-system"), Ok(false), "kube-system goes on");
    }
    // Its own pods are made, and it serves again.
    let start = Instant::now();
    product.scale(u8::try_from(REPLICAS).expect("a few"));
    product.await_injection(PODS, true);
    let row = Row {
        number: "14a",
        fault: "no replica, policy Fail",
        done: format!("{REPLICAS} replicas scaled to 0, and back; {attempts} pods by kubectl, and as many in kube-system"),
        calls: 2 * attempts,
        failed: refused,
        uninjected: 0,
        latency: percentiles(&mut times),
        recovery: Some(start.elapsed()),
        more: "refused, as the policy says; none in kube-system, and none of reach's own: recovery is from `kubectl scale`".to_owned(),
    };
    let _recorded = row.record();
    product.is(&fail());
}

/// With the policy that could keep a cluster from coming back.
pub fn of_the_whole_cluster_is_healed_by_itself(stage: &Stage) {
    let product = stage.product();
    let cluster = replicas::node(product);
    product.release(&fail());
    product.namespace("cold");
    let pod = json!({
        "containers": [{"name": "app", "image": "example.test/pause:1", "imagePullPolicy": "IfNotPresent"}],
        "terminationGracePeriodSeconds": 1,
    });
    product.apply(&deployment("cold", "app", 2, &pod));
    product.await_rollout("cold", "deployment/app");
    let replicas = product.replicas();
    cluster.shut_down();
    let off = product.kubectl(&["get", "nodes", "--request-timeout=2s"]);
    assert!(!off.status.success(), "it is off: {}", text(&off));
    let start = Instant::now();
    let (timings, (first, refused)) = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut refused = 0;
            loop {
                match product.injects("cold") {
                    Ok(true) => return (start.elapsed(), refused),
                    Ok(false) => panic!("a pod without injection, with policy Fail"),
                    // Otherwise it is no API server that says so, or one that is not ready itself.
                    Err(why) => refused += usize::from(why.contains("pods.reach.dev")),
                }
                assert!(start.elapsed() < Duration::from_mins(5), "no pod is injected");
                thread::sleep(Duration::from_millis(200));
            }
        });
        (cluster.boot(), asked.join().expect("pods are injected in the end"))
    });
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
    let row = Row {
        number: "14b",
        fault: "cold start of the whole cluster, policy Fail",
        done: "every process and container of the node ended, then all started again".to_owned(),
        calls: refused + 1,
        failed: refused,
        uninjected: 0,
        latency: None,
        recovery: Some(first),
        more: format!(
            "all parts of the cluster ready after {:.1} s; failed: refused by API servers until reach answered; then {injected} of 2 new pods \
             of a Deployment injected",
            timings.ready.as_secs_f32()
        ),
    };
    let _recorded = row.record();
    assert_eq!(injected, 2, "{pods}");
    product.ask(&["delete", "namespace", "cold", "--wait=false"]);
}
