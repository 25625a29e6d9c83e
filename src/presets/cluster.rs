//! Presets from a cluster: watches of both kinds and of namespaces, feeding one snapshot.
//!
//! Objects are kept only in compiled form. A malformed one is left out and reported; it never stalls the
//! watch. While the API server is away, the last snapshot serves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::interval;

use super::{Presets, directory};
use crate::api::validate::FieldError;
use crate::api::{ClusterPodPreset, PodPreset, PresetKind};
use crate::api_server::{self, Waits};
use crate::inject::preset::Preset;
use crate::inject::select::Level;
use crate::inject::snapshot::{NamespaceEntry, NamespaceLabels, Snapshot};
use crate::telemetry::PresetMetrics;

/// Changes that are ready together become one snapshot.
const BATCH: usize = 1024;

/// A watch that goes on where it was interrupted says nothing, so one whose last error is this long ago is
/// taken to be well. One that is not fails again within half of it.
const CALM: Duration = Duration::from_mins(2);
/// Objects asked for at once while listing. What is not compiled yet takes ten times the memory of what is,
/// and memory that was used once is seldom given back.
const PAGE: u32 = 100;

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// The three watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Cluster,
    Namespaced,
    Namespaces,
}

/// When each watch failed last, unless it has been heard of since.
#[derive(Debug, Default)]
struct Failures([Option<Instant>; 3]);

/// One change of one of the watches.
struct Change {
    source: Source,
    event: Result<Event<Item>, watcher::Error>,
}

/// An object, reduced to what is kept.
enum Item {
    Preset(Key, Result<Arc<Preset>, Vec<FieldError>>),
    Namespace(Box<str>, NamespaceLabels),
}

/// Objects of one watch. While it lists again after a gap, the old ones stay until the list is complete.
#[derive(Debug)]
struct Store<K, V> {
    current: HashMap<K, V>,
    listing: Option<HashMap<K, V>>,
    synced: bool,
}

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
struct State {
    cluster: Store<Key, Option<Arc<Preset>>>,
    namespaced: Store<Key, Option<Arc<Preset>>>,
    namespaces: Store<Box<str>, NamespaceLabels>,
    /// What has been published, so that a change rebuilds only what it touches.
    cluster_level: Arc<Level>,
    entries: HashMap<Arc<str>, Arc<NamespaceEntry>>,
    cluster_changed: bool,
    changed: BTreeSet<Box<str>>,
}

/// Watches the cluster and publishes a snapshot after every change; runs until it is dropped.
pub async fn watch(client: Client, presets: Arc<Presets>, metrics: PresetMetrics) {
    let mut changes = changes(&client).ready_chunks(BATCH);
    let mut state = State::default();
    let mut failures = Failures::default();
    let mut look = interval(CALM / 4);
    loop {
        let batch = tokio::select! {
            batch = changes.next() => match batch {
                Some(batch) => batch,
                None => return,
            },
            _ = look.tick() => Vec::new(),
        };
        for change in batch {
            failures.note(change.source, change.event.is_err(), Instant::now());
            match change.event {
                Ok(event) => state.apply(change.source, event),
                Err(error) => {
                    tracing::warn!(what = change.source.name(), error = %explain(&error), "watch interrupted, retrying; the last presets stay");
                }
            }
        }
        metrics.stale.set(i64::from(failures.any(Instant::now())));
        if let Some(snapshot) = state.snapshot() {
            state.count(&metrics);
            presets.publish(snapshot);
        }
    }
}

/// Reads the presets and namespaces of a cluster once.
///
/// # Errors
/// If the API server cannot be reached or refuses.
pub async fn load(client: &Client) -> Result<(Snapshot, Vec<String>), watcher::Error> {
    let mut changes = changes(client);
    let mut state = State::default();
    while !state.synced() {
        match changes.next().await {
            Some(Change { source, event: Ok(event) }) => state.apply(source, event),
            Some(Change { event: Err(error), .. }) => return Err(error),
            None => break,
        }
    }
    let invalid = [&state.cluster, &state.namespaced]
        .into_iter()
        .flat_map(|store| &store.current)
        .filter(|(_, preset)| preset.is_none())
        .map(
            |((namespace, name), _)| {
                if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") }
            },
        )
        .collect();
    Ok((state.snapshot().unwrap_or_default(), invalid))
}

/// The three watches as one stream, each with its own backoff.
fn changes(client: &Client) -> BoxStream<'static, Change> {
    let presets = |source: Source, resource: ApiResource| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        watch_objects(api, watcher::Config::default().page_size(PAGE))
            .backoff(Waits::default())
            .map(move |event| Change {
                source,
                event: event.map(|event| map(event, |object| preset(&object))),
            })
            .boxed()
    };
    let namespaces = watch_objects(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        watcher::Config::default().page_size(PAGE),
    )
    .backoff(Waits::default())
    .map(|event| Change {
        source: Source::Namespaces,
        event: event.map(|event| map(event, |object| namespace(&object))),
    })
    .boxed();
    select_all([
        presets(Source::Cluster, ApiResource::erase::<ClusterPodPreset>(&())),
        presets(Source::Namespaced, ApiResource::erase::<PodPreset>(&())),
        namespaces,
    ])
    .boxed()
}

fn map<T>(event: Event<T>, item: impl FnOnce(T) -> Item) -> Event<Item> {
    match event {
        Event::Apply(object) => Event::Apply(item(object)),
        Event::Delete(object) => Event::Delete(item(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(item(object)),
        Event::InitDone => Event::InitDone,
    }
}

fn preset(object: &DynamicObject) -> Item {
    let key = (object.namespace().unwrap_or_default().into(), object.name_any().into());
    let compiled = serde_json::to_value(object)
        .map_err(|error| vec![FieldError { path: String::new(), message: error.to_string() }])
        .and_then(|value| directory::preset(&value));
    if let Err(errors) = &compiled {
        for error in errors {
            tracing::error!(namespace = %key.0, name = %key.1, %error, "preset left out, it cannot be used");
        }
    }
    Item::Preset(key, compiled.map(Arc::new))
}

fn namespace(object: &PartialObjectMeta<Namespace>) -> Item {
    let name = object.name_any();
    let labels = NamespaceLabels::new(object.meta().labels.iter().flatten()).named(&name);
    Item::Namespace(name.into(), labels)
}

/// The message of a watch error, with what to do where that is known.
fn explain(error: &watcher::Error) -> String {
    let mut message = api_server::explain(error);
    if message.contains("404") || message.contains("NotFound") {
        message.push_str(" (are the CRDs installed? kubectl apply -f crds/)");
    }
    message
}

// === impl Source ===

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterPodPresets",
            Self::Namespaced => "PodPresets",
            Self::Namespaces => "Namespaces",
        }
    }
}

// === impl Failures ===

impl Failures {
    fn note(&mut self, source: Source, failed: bool, now: Instant) {
        self.0[source as usize] = failed.then_some(now);
    }

    fn any(&self, now: Instant) -> bool {
        self.0.iter().flatten().any(|failed| now.duration_since(*failed) < CALM)
    }
}

// === impl Store ===

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self { current: HashMap::new(), listing: None, synced: false }
    }
}

impl<K: Eq + std::hash::Hash, V> Store<K, V> {
    /// Applies an event; returns whether everything may have changed.
    fn apply(&mut self, event: Event<(K, V)>) -> bool {
        match event {
            Event::Apply((key, value)) => {
                self.current.insert(key, value);
            }
            Event::Delete((key, _)) => {
                self.current.remove(&key);
            }
            Event::Init => self.listing = Some(HashMap::new()),
            Event::InitApply((key, value)) => {
                self.listing.get_or_insert_default().insert(key, value);
            }
            Event::InitDone => {
                self.current = self.listing.take().unwrap_or_default();
                self.synced = true;
                return true;
            }
        }
        false
    }
}

// === impl State ===

impl State {
    fn synced(&self) -> bool {
        self.cluster.synced && self.namespaced.synced && self.namespaces.synced
    }

    fn apply(&mut self, source: Source, event: Event<Item>) {
        if let Event::Apply(item) | Event::Delete(item) = &event {
            match item {
                Item::Preset((namespace, _), _) if !namespace.is_empty() => {
                    self.changed.insert(namespace.clone());
                }
                Item::Preset(..) => self.cluster_changed = true,
                Item::Namespace(name, _) => {
                    self.changed.insert(name.clone());
                }
            }
        }
        match source {
            Source::Cluster => self.cluster_changed |= self.cluster.apply(presets_of(event)),
            Source::Namespaced => {
                if self.namespaced.apply(presets_of(event)) {
                    self.all_changed();
                }
            }
            Source::Namespaces => {
                let event = pairs(event, |item| match item {
                    Item::Namespace(name, labels) => Some((name, labels)),
                    Item::Preset(..) => None,
                });
                if self.namespaces.apply(event) {
                    self.all_changed();
                }
            }
        }
    }

    /// After a new list, anything may differ.
    fn all_changed(&mut self) {
        self.changed.extend(self.entries.keys().map(|name| Box::from(&**name)));
        self.changed.extend(self.namespaces.current.keys().cloned());
        self.changed.extend(self.namespaced.current.keys().map(|(namespace, _)| namespace.clone()));
    }

    /// The next snapshot, if all watches have listed and something has changed.
    fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.synced() || (!self.cluster_changed && self.changed.is_empty()) {
            return None;
        }
        if std::mem::take(&mut self.cluster_changed) {
            self.cluster_level =
                Arc::new(Level::new(self.cluster.current.values().flatten().cloned().collect()));
        }
        let changed = std::mem::take(&mut self.changed);
        let mut presets: HashMap<&str, Vec<Arc<Preset>>> = HashMap::with_capacity(changed.len());
        for ((namespace, _), preset) in &self.namespaced.current {
            if let Some(preset) = preset
                && changed.contains(namespace)
            {
                presets.entry(namespace).or_default().push(preset.clone());
            }
        }
        for name in changed {
            let labels = self.namespaces.current.get(&name).cloned();
            let presets = presets.remove(&*name).unwrap_or_default();
            if labels.is_none() && presets.is_empty() {
                self.entries.remove(&*name);
            } else {
                let entry = NamespaceEntry { labels, presets: Level::new(presets), services: Arc::default() };
                self.entries.insert(Arc::from(&*name), Arc::new(entry));
            }
        }
        Some(Snapshot::new(self.cluster_level.clone(), self.entries.clone(), false))
    }

    fn count(&self, metrics: &PresetMetrics) {
        for (kind, store) in
            [(PresetKind::Cluster, &self.cluster), (PresetKind::Namespaced, &self.namespaced)]
        {
            let invalid = store.current.values().filter(|preset| preset.is_none()).count();
            metrics.set(kind, store.current.len() - invalid, invalid);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        metrics.changed.set(now.as_secs_f64());
    }
}

fn presets_of(event: Event<Item>) -> Event<(Key, Option<Arc<Preset>>)> {
    pairs(event, |item| match item {
        Item::Preset(key, preset) => Some((key, preset.ok())),
        Item::Namespace(..) => None,
    })
}

/// An event over keys and values. A watch yields items of its own kind only.
fn pairs<K, V>(event: Event<Item>, pair: impl Fn(Item) -> Option<(K, V)>) -> Event<(K, V)> {
    let pair = |item| pair(item).expect("a watch yields items of its own kind");
    match event {
        Event::Apply(item) => Event::Apply(pair(item)),
        Event::Delete(item) => Event::Delete(pair(item)),
        Event::Init => Event::Init,
        Event::InitApply(item) => Event::InitApply(pair(item)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_watch_counts_until_it_is_heard_of_or_has_been_quiet_for_long() {
        let now = Instant::now();
        let mut failures = Failures::default();
        assert!(!failures.any(now));
        failures.note(Source::Namespaced, true, now);
        failures.note(Source::Namespaces, false, now);
        assert!(failures.any(now), "another watch does not speak for it");
        assert!(!failures.any(now + CALM), "a watch that was resumed says nothing");
        failures.note(Source::Namespaced, false, now);
        assert!(!failures.any(now));
    }
}
