//! Logs and the metrics of reviews and presets.
//!
//! Never a value: logs and metrics carry names, counts and times only.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

pub use self::reviews::{Outcome, ReviewMetrics, Skip};
use crate::api::PresetKind;

mod reviews;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
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
