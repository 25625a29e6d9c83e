//! Replicas that take calls and do not answer them.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::observed::{Observed, await_calm, longest_trouble, trouble_lasted};
use crate::replicas;
use crate::report::Size;
use crate::stage::{REPLICAS, Stage};
use crate::support::eventually_within;
use crate::support::kubectl::Kubectl as _;

/// Longer than an API server waits for an answer, by what the call takes otherwise.
const LONGEST: Duration = Duration::from_secs(8);

pub fn a_replica_that_hangs_costs_the_calls_on_their_way_to_it(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let stopped_for = Duration::from_secs(size.of(6, 20));
    let stops = size.of(1, 5);
    let mut moments = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        for _ in 0..stops {
            let all = replicas::await_all_busiest_first(product);
            moments.push(Instant::now());
            all[0].signal(Signal::STOP);
            thread::sleep(stopped_for);
            all[0].signal(Signal::CONT);
            replicas::await_all(product);
            await_calm(product);
        }
    });
    let mut row = observed.row(
        "12",
        "SIGSTOP of one replica",
        format!("{stops} × the busiest of {REPLICAS} replicas, for {} s", stopped_for.as_secs()),
    );
    row.recovery = longest_trouble(&observed.counts, &moments);
    row.more = longest(&observed);
    let _recorded = row.record();
    observed.assert_explained();
    assert_bounded(&observed);
}

pub fn a_replica_that_hangs_for_good_is_replaced(stage: &Stage) {
    let product = stage.product();
    let mut recovered = Duration::ZERO;
    let mut start = Instant::now();
    let observed = Observed::of(product, 10_000, |_| {
        let all = replicas::await_all_busiest_first(product);
        start = Instant::now();
        all[0].signal(Signal::STOP);
        eventually_within(Duration::from_mins(5), "the kubelet restarts it", || {
            let ready = replicas::ready(product);
            let is_new = |replica: &replicas::Replica| {
                replica.pod == all[0].pod && replica.container != all[0].container
            };
            if ready.iter().any(is_new) { Ok(()) } else { Err(format!("{ready:?}")) }
        });
        recovered = start.elapsed();
    });
    let mut row = observed.row(
        "12a",
        "SIGSTOP of one replica, for good",
        format!("the busiest of {REPLICAS} replicas"),
    );
    row.recovery = Some(trouble_lasted(&observed.counts, start, None));
    row.more =
        format!("restarted by the kubelet after {:.0} s; {}", recovered.as_secs_f32(), longest(&observed));
    let _recorded = row.record();
    observed.assert_explained();
    assert_bounded(&observed);
}

pub fn pods_are_created_while_all_replicas_hang(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let stopped_for = Duration::from_secs(size.of(5, 20));
    let mut resumed = Instant::now();
    let mut elsewhere = Duration::ZERO;
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        let all = replicas::await_all(product);
        for replica in &all {
            replica.signal(Signal::STOP);
        }
        let start = Instant::now();
        // Nobody else waits: those whose pods are not reach's business, and those who create no pods.
        assert_eq!(product.injects("kube-system"), Ok(false));
        product.ask(&["create", "configmap", "any", "--namespace=kube-system", "--dry-run=server"]);
        elsewhere = start.elapsed() / 2;
        thread::sleep(stopped_for.saturating_sub(start.elapsed()));
        for replica in &all {
            replica.signal(Signal::CONT);
        }
        resumed = Instant::now();
        replicas::await_all(product);
        await_calm(product);
    });
    let mut row = observed.row(
        "12b",
        "SIGSTOP of all replicas",
        format!("all {REPLICAS} replicas at once, for {} s", stopped_for.as_secs()),
    );
    row.recovery = Some(trouble_lasted(&observed.counts, resumed, None));
    row.more = format!(
        "{}; meanwhile a pod in kube-system or a ConfigMap took {:.1} s by kubectl",
        longest(&observed),
        elsewhere.as_secs_f32()
    );
    let _recorded = row.record();
    observed.assert_explained();
    assert_bounded(&observed);
}

fn longest(observed: &Observed) -> String {
    let longest = observed.counts.times.iter().max().copied().unwrap_or_default();
    format!("the longest call took {:.1} s", longest.as_secs_f32())
}

/// No call waited for longer than the timeout in the registration, give or take a busy machine.
#[track_caller]
fn assert_bounded(observed: &Observed) {
    let longest = observed.counts.times.iter().max().copied().unwrap_or_default();
    assert!(longest < LONGEST, "{longest:?}");
}
