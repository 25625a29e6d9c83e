//! Pods that are created while something happens, and what became of them.

use std::time::{Duration, Instant};

use crate::place::{PROXY_VARIABLE, Product};
use crate::report::{Row, percentiles};
use crate::support::eventually;
use crate::support::load::{Counts, Load};

/// Pause after each creation, so that the machine has time for what happens.
const PAUSE: Duration = Duration::from_millis(5);

/// The namespace of the pods.
pub const PODS: &str = "faults";

/// What became of pods.
#[derive(Debug)]
pub struct Observed {
    pub counts: Counts,
    /// Calls of the webhook that API servers gave up, as they counted them.
    pub opened: u64,
}

impl Observed {
    /// Creates pods through both API servers while something happens, and for a while before and after; so many at least.
    pub fn of(product: &Product, least: usize, happens: impl FnOnce(&Load)) -> Self {
        product.namespace(PODS);
        product.await_injection(PODS, true);
        let before = product.failed_open();
        let load = Load::start(&product.kubeconfigs(), PODS, PROXY_VARIABLE, PAUSE, None);
        load.await_pods(least / 10);
        happens(&load);
        load.await_pods(least.max(load.so_far() + least / 10));
        let counts = load.stop();
        Self { counts, opened: product.failed_open() - before }
    }

    /// A row of it.
    pub fn row(&self, number: &'static str, fault: &'static str, done: String) -> Row {
        row_of(&self.counts, number, fault, done)
    }

    /// Asserts that each pod was created, and each that was not injected is one that an API server counted.
    #[track_caller]
    pub fn assert_explained(&self) {
        let Self { counts, opened } = self;
        assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
        assert_eq!(counts.bare as u64, *opened, "{counts}");
    }

    /// Asserts that nobody noticed anything.
    #[track_caller]
    pub fn assert_unnoticed(&self) {
        self.assert_explained();
        assert_eq!(self.opened, 0, "{}", self.counts);
    }
}

/// A row of what became of pods.
pub fn row_of(counts: &Counts, number: &'static str, fault: &'static str, done: String) -> Row {
    Row {
        number,
        fault,
        done,
        calls: counts.total(),
        failed: counts.failed,
        uninjected: counts.bare,
        latency: percentiles(&mut counts.times.clone()),
        recovery: None,
        more: String::new(),
    }
}

/// How long after this moment, and before another one, the last call ended that was not injected; nothing when there is none.
pub fn trouble_lasted(counts: &Counts, from: Instant, until: Option<Instant>) -> Duration {
    let within = |&&moment: &&Instant| moment >= from && until.is_none_or(|until| moment < until);
    counts.troubles.iter().filter(within).max().map_or(Duration::ZERO, |&last| last - from)
}

/// The longest that it [lasted](trouble_lasted) after any of these moments, each until the next one.
pub fn longest_trouble(counts: &Counts, moments: &[Instant]) -> Option<Duration> {
    troubles(counts, moments).into_iter().max()
}

/// How long it [lasted](trouble_lasted) after each of these moments, each until the next one.
pub fn troubles(counts: &Counts, moments: &[Instant]) -> Vec<Duration> {
    let ends = moments.iter().copied().map(Some).skip(1).chain([None]);
    moments.iter().zip(ends).map(|(&from, until)| trouble_lasted(counts, from, until)).collect()
}

/// Creates pods in a row through the first API server until so many in succession are injected.
#[track_caller]
pub fn await_calm(product: &Product) {
    let mut injected = 0;
    eventually("pods are injected again and again", || {
        match product.injects(PODS) {
            Ok(true) => injected += 1,
            _ => injected = 0,
        }
        if injected == 5 { Ok(()) } else { Err(injected) }
    });
}
