//! Replicas that end: as they should, and as they should not.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::observed::{Observed, troubles};
use crate::place::Product;
use crate::replicas::{self, Replica};
use crate::report::Size;
use crate::stage::{REPLICAS, Stage};
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::Kubectl as _;

pub fn a_rolling_restart_loses_no_call(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let restarts = size.of(1, 5);
    let start = Instant::now();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        for _ in 0..restarts {
            let before = product.replicas();
            product.ask(&["rollout", "restart", "deployment/reach", "--namespace", NAMESPACE]);
            product.await_rollout(NAMESPACE, "deployment/reach");
            // They go on serving for a while, until everybody knows that they go.
            eventually("the old replicas have ended", || {
                let present = product.replicas_and_those_that_end();
                let left: Vec<_> = before.intersection(&present).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
            assert_eq!(product.replicas().len(), REPLICAS);
        }
    });
    let mut row = observed.row(
        "11",
        "rolling restart",
        format!("{restarts} × `kubectl rollout restart` of {REPLICAS} replicas, each waited for until the last old one had ended"),
    );
    row.recovery = Some(Duration::ZERO);
    row.more = format!("in {:.0} s", start.elapsed().as_secs_f32());
    let _recorded = row.record();
    observed.assert_unnoticed();
}

/// Waits until the pod of a replica has another container, and all are ready.
fn await_return(product: &Product, killed: &Replica) {
    eventually("the killed replica is back", || {
        let ready = replicas::ready(product);
        let is_back = ready.iter().any(|new| new.pod == killed.pod && new.container != killed.container);
        if is_back && ready.len() == REPLICAS { Ok(()) } else { Err(format!("{ready:?}")) }
    });
}

pub fn a_kill_costs_the_calls_of_a_moment(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let kills = size.of(3, 200);
    let mut moments = Vec::new();
    let mut away = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        for turn in 0..kills {
            let all = replicas::await_all(product);
            let victim = &all[turn % all.len()];
            let start = Instant::now();
            moments.push(start);
            victim.signal(Signal::KILL);
            await_return(product, victim);
            away.push(start.elapsed());
        }
    });
    let counts = &observed.counts;
    let mut lasted = troubles(counts, &moments);
    lasted.sort();
    away.sort();
    let mut row = observed.row(
        "10",
        "kill -9 of a replica",
        format!("{kills} × one of {REPLICAS} replicas, restarted by the kubelet"),
    );
    row.recovery = lasted.last().copied();
    let untroubled = lasted.iter().filter(|lasted| lasted.is_zero()).count();
    row.more = format!(
        "no pod was left out after {untroubled} of {kills} kills; replica ready again after {:.1} s (median), {:.1} s at most",
        away[away.len() / 2].as_secs_f32(),
        away[away.len() - 1].as_secs_f32(),
    );
    let _recorded = row.record();
    observed.assert_explained();
}
