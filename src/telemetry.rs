//! Logs and the metrics of reviews and presets.
//!
//! Never a value: logs and metrics carry names, counts and times only.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::api::PresetKind;
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
}

impl Skip {
    const ALL: [Self; 8] = [
        Self::mirror_pod,
        Self::namespace_opt_out,
        Self::pod_opt_out,
        Self::no_preset,
        Self::not_a_pod,
        Self::preset_conflict,
        Self::variable_conflict,
        Self::unmergeable_variable,
    ];
}

impl From<LeftAlone> for Skip {
    fn from(reason: LeftAlone) -> Self {
        match reason {
            LeftAlone::Mirror => Self::mirror_pod,
            LeftAlone::NamespaceOptOut => Self::namespace_opt_out,
            LeftAlone::PodOptOut => Self::pod_opt_out,
            LeftAlone::NoPreset => Self::no_preset,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Metrics of reviews. Counters are looked up once: the hot path touches atomics only.
#[derive(Clone, Debug)]
pub struct ReviewMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    skips: [Counter; Skip::ALL.len()],
    injections: Counter,
    duration: Histogram,
}

impl ReviewMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let outcomes = Family::<OutcomeLabel, Counter>::default();
        let skips = Family::<ReasonLabel, Counter>::default();
        let metrics = Self {
            outcomes: Outcome::ALL.map(|outcome| outcomes.get_or_create(&OutcomeLabel { outcome }).clone()),
            skips: Skip::ALL.map(|reason| skips.get_or_create(&ReasonLabel { reason }).clone()),
            injections: Counter::default(),
            // From what a review costs (tens of microseconds) to what the API server waits (seconds).
            duration: Histogram::new([
                0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1,
                0.5, 1.0, 3.0,
            ]),
        };
        registry.register("reviews", "Admission reviews by outcome", outcomes);
        registry.register("skips", "Pods, presets and variables left out, by reason", skips);
        registry.register("injections", "Presets applied to pods", metrics.injections.clone());
        registry.register_with_unit(
            "review_duration",
            "Time from the complete request to the reply",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        metrics
    }

    /// Counts a review.
    pub fn reviewed(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request that was turned away before it was read.
    pub fn refused(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }

    /// Counts what was left out.
    pub fn skipped(&self, reason: Skip, count: usize) {
        if count > 0 {
            self.skips[reason as usize].inc_by(count as u64);
        }
    }

    /// Counts presets applied.
    pub fn injected(&self, presets: usize) {
        self.injections.inc_by(presets as u64);
    }
}

/// Metrics of presets.
#[derive(Clone, Debug)]
pub struct PresetMetrics {
    loaded: Family<KindLabel, Gauge>,
    invalid: Family<KindLabel, Gauge>,
    /// 1 while the last attempt to read presets failed and older ones are served.
    pub stale: Gauge,
    /// Time of the last change that was taken over, in seconds since 1970.
    changed: Gauge<f64, AtomicU64>,
    /// Of what `noProxyFrom` of presets asks for.
    pub sources: SourceMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeftOutLabels {
    source: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabel {
    watch: &'static str,
}

/// Metrics of what `noProxyFrom` of presets asks for.
#[derive(Clone, Debug, Default)]
pub struct SourceMetrics {
    entries: Family<SourceLabel, Gauge>,
    left_out: Family<LeftOutLabels, Gauge>,
    missing: Family<SourceLabel, Gauge>,
    refused: Family<WatchLabel, Gauge>,
}

impl SourceMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "no_proxy_entries",
            "Entries of no_proxy that come from the cluster, by the source that presets ask for",
            metrics.entries.clone(),
        );
        registry.register(
            "no_proxy_entries_left_out",
            "Entries that are left out: beyond a limit, or named like a top-level domain",
            metrics.left_out.clone(),
        );
        registry.register(
            "no_proxy_source_missing",
            "1 while presets ask for a source that is not watched",
            metrics.missing.clone(),
        );
        registry.register(
            "no_proxy_watch_refused",
            "1 while the API server refuses a watch for entries of no_proxy",
            metrics.refused.clone(),
        );
        metrics
    }

    /// Sets what became of a source.
    pub fn set(&self, source: &'static str, entries: usize, over: usize, top_level: usize, missing: bool) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.entries.get_or_create(&SourceLabel { source }).set(number(entries));
        for (reason, count) in [("limit", over), ("top_level_domain", top_level)] {
            self.left_out.get_or_create(&LeftOutLabels { source, reason }).set(number(count));
        }
        self.missing.get_or_create(&SourceLabel { source }).set(i64::from(missing));
    }

    /// Sets whether a watch is refused.
    pub fn refused(&self, watch: &'static str, refused: bool) {
        self.refused.get_or_create(&WatchLabel { watch }).set(i64::from(refused));
    }
}

impl PresetMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            loaded: Family::default(),
            invalid: Family::default(),
            stale: Gauge::default(),
            changed: Gauge::default(),
            sources: SourceMetrics::register(registry),
        };
        registry.register("presets", "Presets loaded, by kind", metrics.loaded.clone());
        registry.register(
            "presets_invalid",
            "Presets left out because they cannot be used, by kind",
            metrics.invalid.clone(),
        );
        registry.register(
            "presets_stale",
            "1 while presets cannot be read and the last good ones are served",
            metrics.stale.clone(),
        );
        registry.register(
            "presets_changed_timestamp_seconds",
            "Time at which presets or namespaces last changed, in seconds since 1970",
            metrics.changed.clone(),
        );
        metrics
    }

    /// Presets or namespaces have changed.
    pub fn changed_now(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.changed.set(now.as_secs_f64());
    }

    /// Sets the counts of one kind.
    pub fn set(&self, kind: PresetKind, loaded: usize, invalid: usize) {
        let label = KindLabel { kind: kind.as_str() };
        self.loaded.get_or_create(&label).set(i64::try_from(loaded).unwrap_or(i64::MAX));
        self.invalid.get_or_create(&label).set(i64::try_from(invalid).unwrap_or(i64::MAX));
    }
}

/// A registry with the prefix `reach` and the build information in it.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("reach");
    registry.register("build", "Version of reach", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    registry
}

/// Everything that the admin port publishes, as Prometheus text.
#[must_use]
pub fn encode(registry: &Arc<Registry>) -> String {
    let mut text = String::new();
    // Writing to memory cannot fail.
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap_or_default();
    text
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people in a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error.
///
/// # Errors
/// If `filter` is no list of `level` or `target=level`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    // It warns at each attempt of what reach says once; whoever asks for more has that, too.
    let repeats = if matches!(filter, "info" | "warn") { ",kube_runtime=error" } else { "" };
    let filter = EnvFilter::try_new(format!("{filter}{repeats}"))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Auto if !terminal => builder.json().flatten_event(true).init(),
        LogFormat::Auto | LogFormat::Text => builder.with_target(false).with_ansi(terminal).init(),
    }
    quiet_panics();
    Ok(())
}

/// A panic is logged by its place only: its message may hold a part of what was being processed.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: this is a mistake in reach, please report the place");
    }));
}
