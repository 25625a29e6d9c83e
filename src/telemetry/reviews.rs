//! Metrics of reviews, which each thread counts for itself.
//!
//! A counter that two threads write goes from one processor to the other with every review, and that takes longer than all
//! else that is counted. So threads have counters of their own, and who reads metrics adds them up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};

use crate::inject::LeftAlone;

/// How a review ended; the label `outcome` of `reach_reviews_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are label values, which are written in snake case")]
pub enum Outcome {
    /// A patch was returned.
    injected,
    /// Presets select the pod, but it has everything already.
    unchanged,
    /// Nothing to do: not a pod, opted out, or no preset.
    skipped,
    /// The object cannot be read as a pod; admitted unchanged.
    unreadable,
    /// The patch is larger than what may be injected; admitted unchanged.
    too_large,
    /// A mistake in reach; admitted unchanged.
    panicked,
    /// Presets or the namespace are not known (yet): answered with an error, so that the API server
    /// counts a failed call.
    not_ready,
    /// The request is no `AdmissionReview` of version v1.
    bad_request,
    /// More requests at once than are taken.
    overloaded,
    /// The body did not arrive in time.
    timed_out,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::injected,
        Self::unchanged,
        Self::skipped,
        Self::unreadable,
        Self::too_large,
        Self::panicked,
        Self::not_ready,
        Self::bad_request,
        Self::overloaded,
        Self::timed_out,
    ];
}

/// Why a pod or a preset was left out; the label `reason` of `reach_skips_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are label values, which are written in snake case")]
pub enum Skip {
    /// A mirror pod.
    mirror_pod,
    /// The namespace has opted out.
    namespace_opt_out,
    /// The pod has opted out.
    pod_opt_out,
    /// No preset selects the pod.
    no_preset,
    /// Not a pod on CREATE, nor ephemeral containers on UPDATE.
    not_a_pod,
    /// A preset was not applied because of a conflict.
    preset_conflict,
    /// A variable of a preset was not followed because of a conflict.
    variable_conflict,
    /// A container's own variable could not be merged.
    unmergeable_variable,
    /// Something derived was left out, with which a variable or the patch would have been too long.
    too_long,
}

impl Skip {
    const ALL: [Self; 9] = [
        Self::mirror_pod,
        Self::namespace_opt_out,
        Self::pod_opt_out,
        Self::no_preset,
        Self::not_a_pod,
        Self::preset_conflict,
        Self::variable_conflict,
        Self::unmergeable_variable,
        Self::too_long,
    ];
}

impl From<LeftAlone> for Skip {
    fn from(reason: LeftAlone) -> Self {
        match reason {
            LeftAlone::Mirror => Self::mirror_pod,
            LeftAlone::NamespaceOptOut => Self::namespace_opt_out,
            LeftAlone::PodOptOut => Self::pod_opt_out,
            LeftAlone::NoPreset => Self::no_preset,
            LeftAlone::TooLarge => Self::too_long,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: Skip,
}

/// Metrics of reviews. Clones share their values.
#[derive(Clone, Debug)]
pub struct ReviewMetrics(Arc<[Counts; SHARES]>);

/// What some of the threads have counted; nearly always one. Aligned so that no cache line, nor the one that processors fetch
/// with it, holds counts of others.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    skips: [AtomicU64; Skip::ALL.len()],
    injections: AtomicU64,
    /// Reviews by the first of [`BOUNDS`] that is not below what they took; at last those that took longer than all.
    durations: [AtomicU64; BOUNDS.len() + 1],
    /// What all of them took, in nanoseconds.
    duration: AtomicU64,
}

/// As many as most replicas have threads, or more; beyond that, threads share.
const SHARES: usize = 32;

/// In microseconds: from what a review costs (tens of microseconds) to what the API server waits (seconds).
const BOUNDS: [u32; 14] =
    [25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 3_000_000];

// === impl ReviewMetrics ===

impl ReviewMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self(Arc::default());
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// Counts a review.
    pub fn reviewed(&self, outcome: Outcome, took: Duration) {
        let counts = self.own();
        increase(&counts.outcomes[outcome as usize], 1);
        let bound = BOUNDS.partition_point(|bound| Duration::from_micros((*bound).into()) < took);
        increase(&counts.durations[bound], 1);
        increase(&counts.duration, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a request that was turned away before it was read.
    pub fn refused(&self, outcome: Outcome) {
        increase(&self.own().outcomes[outcome as usize], 1);
    }

    /// Counts what was left out.
    pub fn skipped(&self, reason: Skip, count: usize) {
        if count > 0 {
            increase(&self.own().skips[reason as usize], count as u64);
        }
    }

    /// Counts presets applied.
    pub fn injected(&self, presets: usize) {
        increase(&self.own().injections, presets as u64);
    }

    /// Those of this thread.
    fn own(&self) -> &Counts {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARES;
        }
        &self.0[SHARE.with(|share| *share)]
    }

    /// What all threads have counted.
    fn sum(&self, count: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counts| count(counts).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

fn increase(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

impl Collector for ReviewMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Admission reviews by outcome.";
        let mut reviews = encoder.encode_descriptor("reviews", help, None, MetricType::Counter)?;
        for outcome in Outcome::ALL {
            let count = self.sum(|counts| &counts.outcomes[outcome as usize]);
            ConstCounter::new(count).encode(reviews.encode_family(&OutcomeLabel { outcome })?)?;
        }
        let help = "Pods, presets and variables left out, by reason.";
        let mut skips = encoder.encode_descriptor("skips", help, None, MetricType::Counter)?;
        for reason in Skip::ALL {
            let count = self.sum(|counts| &counts.skips[reason as usize]);
            ConstCounter::new(count).encode(skips.encode_family(&ReasonLabel { reason })?)?;
        }
        let help = "Presets applied to pods.";
        let injections = encoder.encode_descriptor("injections", help, None, MetricType::Counter)?;
        ConstCounter::new(self.sum(|counts| &counts.injections)).encode(injections)?;

        let help = "Time from the complete request to the reply.";
        let name = "review_duration";
        let mut duration =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let bounds = BOUNDS.iter().map(|micros| f64::from(*micros) / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(at, bound)| (bound, self.sum(|counts| &counts.durations[at]))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.sum(|counts| &counts.duration)).as_secs_f64();
        duration.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::telemetry;

    #[test]
    fn what_threads_count_is_published_as_one() {
        let mut registry = telemetry::registry();
        let metrics = ReviewMetrics::register(&mut registry);
        // More threads than shares: two of them have the same one.
        thread::scope(|scope| {
            for _ in 0..2 * SHARES {
                scope.spawn(|| {
                    metrics.reviewed(Outcome::injected, Duration::from_micros(25));
                    metrics.reviewed(Outcome::skipped, Duration::from_secs(4));
                    metrics.refused(Outcome::bad_request);
                    metrics.skipped(Skip::no_preset, 1);
                    metrics.skipped(Skip::pod_opt_out, 0);
                    metrics.injected(2);
                });
            }
        });
        let text = telemetry::encode(&Arc::new(registry));
        for line in [
            "# TYPE reach_reviews counter",
            "reach_reviews_total{outcome=\"injected\"} 64",
            "reach_reviews_total{outcome=\"skipped\"} 64",
            "reach_reviews_total{outcome=\"bad_request\"} 64",
            "reach_reviews_total{outcome=\"panicked\"} 0",
            "reach_skips_total{reason=\"no_preset\"} 64",
            "reach_skips_total{reason=\"pod_opt_out\"} 0",
            "reach_injections_total 128",
            "# TYPE reach_review_duration_seconds histogram",
            "reach_review_duration_seconds_sum 256.0016",
            "reach_review_duration_seconds_count 128",
            "reach_review_duration_seconds_bucket{le=\"0.000025\"} 64",
            "reach_review_duration_seconds_bucket{le=\"3.0\"} 64",
            "reach_review_duration_seconds_bucket{le=\"+Inf\"} 128",
        ] {
            assert!(text.lines().any(|published| published == line), "{line} is not in\n{text}");
        }
    }
}
