//! Everything that is known of the cluster, and the snapshots made of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::source::{Item, Key, Source, pairs};
use super::store::Store;
use crate::api::{NoProxySource, PresetKind};
use crate::inject::preset::Preset;
use crate::inject::select::Level;
use crate::inject::snapshot::{NamespaceEntry, NamespaceLabels, Snapshot};
use crate::presets::network::{self, Facts, Limited};
use crate::presets::services::{Names, Services};
use crate::presets::sources::{self, Accounts, Lists, Sources};
use crate::telemetry::PresetMetrics;

/// What the presets of one namespace may weigh together. A patch has a quarter of that at most.
pub(super) const MAX_WEIGHT: usize = 1024 * 1024;

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct State {
    cluster: Store<Key, Option<Arc<Preset>>>,
    namespaced: Store<Key, Option<Arc<Preset>>>,
    /// What the presets of each namespace weigh.
    weights: HashMap<Box<str>, usize>,
    namespaces: Store<Box<str>, NamespaceLabels>,
    services: Services,
    /// Services while they are listed.
    listing: Names,
    network: Network,
    sources: Sources,
    /// Watches that have not said yet what there is.
    pending: BTreeSet<Source>,
    changes: Changes,
    /// What has been published, so that a change rebuilds only what it touches.
    cluster_level: Arc<Level>,
    entries: HashMap<Arc<str>, Arc<NamespaceEntry>>,
    lists: Lists,
    said: Accounts,
    /// Whether presets have changed since they were counted.
    uncounted: bool,
    /// What presets ask for.
    pub asked: BTreeSet<NoProxySource>,
}

/// Objects that have networks and addresses in them.
#[derive(Debug, Default)]
struct Network {
    service_cidrs: Store<Box<str>, Facts>,
    nodes: Store<Box<str>, Facts>,
    kubeadm: Store<Box<str>, Facts>,
    api_service: Store<Box<str>, Facts>,
}

/// What has changed since the last snapshot.
#[derive(Debug, Default)]
struct Changes {
    /// A preset of either kind.
    presets: bool,
    cluster: bool,
    network: bool,
    /// Namespaces: their labels or presets.
    namespaces: BTreeSet<Box<str>>,
    /// Namespaces: their Services.
    services: BTreeSet<Box<str>>,
}

impl State {
    pub fn new(sources: Sources) -> Self {
        Self { sources, ..Self::default() }
    }

    /// Nothing is published before these watches have said what there is.
    pub fn await_sources(&mut self, sources: &[Source]) {
        self.pending.extend(sources);
    }

    pub fn synced(&self) -> bool {
        self.pending.is_empty()
    }

    /// Goes on without a watch. What it has said before stays.
    pub fn refused(&mut self, source: Source) {
        self.pending.remove(&source);
    }

    pub fn apply(&mut self, source: Source, event: Event<Item>) {
        let listed = matches!(event, Event::InitDone);
        if listed {
            self.pending.remove(&source);
        }
        match source {
            // Every other event of a preset is about what reach has written into its status.
            Source::Cluster => {
                let differs = self.cluster.update(presets_of(event)) || listed;
                self.changes.cluster |= differs;
                self.changes.presets |= differs;
            }
            Source::Namespaced => {
                let event = self.weighed(presets_of(event));
                let namespace = match &event {
                    Event::Apply(((namespace, _), _)) | Event::Delete(((namespace, _), _)) => {
                        Some(namespace.clone())
                    }
                    _ => None,
                };
                if self.namespaced.update(event) || listed {
                    self.changes.presets = true;
                    match namespace {
                        Some(namespace) => _ = self.changes.namespaces.insert(namespace),
                        None => self.all_changed(),
                    }
                }
            }
            Source::Namespaces => {
                let event = pairs(event, |item| match item {
                    Item::Namespace(name, labels) => Some((name, labels)),
                    _ => None,
                });
                let name = match &event {
                    Event::Apply((name, _)) | Event::Delete((name, _)) => Some(name.clone()),
                    _ => None,
                };
                // Most events of namespaces change something else than their labels.
                if self.namespaces.update(event) {
                    match name {
                        Some(name) => _ = self.changes.namespaces.insert(name),
                        None => self.all_changed(),
                    }
                }
            }
            Source::Services => self.apply_service(event),
            Source::ServiceCidrs | Source::Nodes | Source::Kubeadm | Source::ApiService => {
                let event = pairs(event, |item| match item {
                    Item::Facts(name, facts) => Some((name, facts)),
                    _ => None,
                });
                self.changes.network |= self.network.store(source).update(event);
            }
        }
    }

    /// Whether a preset is used, as far as it was listed.
    pub fn uses(&self, key: &Key) -> bool {
        let store = if key.0.is_empty() { &self.cluster } else { &self.namespaced };
        store.last(key).is_some_and(Option::is_some)
    }

    /// Leaves out a preset with which those of its namespace would weigh too much: its tenant's presets must not take the memory
    /// that every other tenant's pods depend on.
    fn weighed(&mut self, event: Event<(Key, Option<Arc<Preset>>)>) -> Event<(Key, Option<Arc<Preset>>)> {
        let weight = |preset: Option<&Option<Arc<Preset>>>| {
            preset.and_then(Option::as_ref).map_or(0, |preset| preset.weight)
        };
        let mut weigh = |(key, preset): (Key, Option<Arc<Preset>>), before: usize| {
            let all = self.weights.entry(key.0.clone()).or_default();
            *all = all.saturating_sub(before);
            let with = *all + weight(Some(&preset));
            if with > MAX_WEIGHT {
                tracing::error!(namespace = %key.0, name = %key.1, most = MAX_WEIGHT, "preset left out: those of its namespace have too many bytes together; make others smaller, then change it");
                return (key, None);
            }
            *all = with;
            (key, preset)
        };
        match event {
            Event::Apply(item) => {
                let before = weight(self.namespaced.current.get(&item.0));
                Event::Apply(weigh(item, before))
            }
            Event::InitApply(item) => Event::InitApply(weigh(item, 0)),
            Event::Delete(item) => {
                let before = weight(self.namespaced.current.get(&item.0));
                let all = self.weights.entry(item.0.0.clone()).or_default();
                *all = all.saturating_sub(before);
                if *all == 0 {
                    self.weights.remove(&item.0.0);
                }
                Event::Delete(item)
            }
            // They are listed anew, and weighed anew.
            Event::Init => {
                self.weights.clear();
                Event::Init
            }
            Event::InitDone => Event::InitDone,
        }
    }

    fn apply_service(&mut self, event: Event<Item>) {
        let event = pairs(event, |item| match item {
            Item::Service(key) => Some(key),
            _ => None,
        });
        match event {
            // Most events of Services change something else than their name.
            Event::Apply((namespace, name)) => {
                if self.services.insert(&namespace, &name) {
                    self.changes.services.insert(namespace);
                }
            }
            Event::Delete((namespace, name)) => {
                if self.services.remove(&namespace, &name) {
                    self.changes.services.insert(namespace);
                }
            }
            Event::Init => self.listing.clear(),
            Event::InitApply((namespace, name)) => {
                self.listing.entry(namespace).or_default().insert(name);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                self.changes.services.extend(self.services.replace(listed));
            }
        }
    }

    /// After a new list, anything may differ.
    fn all_changed(&mut self) {
        let changed = &mut self.changes.namespaces;
        changed.extend(self.entries.keys().map(|name| Box::from(&**name)));
        changed.extend(self.namespaces.current.keys().cloned());
        changed.extend(self.namespaced.current.keys().map(|(namespace, _)| namespace.clone()));
    }

    /// The next snapshot, if all watches have listed and there is something new in it.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.synced() || !self.changes.any() {
            return None;
        }
        let changes = std::mem::take(&mut self.changes);
        let mut is_new = changes.presets || changes.cluster || !changes.namespaces.is_empty();
        self.uncounted |= changes.presets;
        if changes.cluster {
            self.cluster_level =
                Arc::new(Level::new(self.cluster.current.values().flatten().cloned().collect()));
        }
        for namespace in &changes.services {
            self.services.update(namespace);
        }
        is_new |= self.update_entries(&changes);
        if changes.presets {
            let presets = self.cluster.current.values().chain(self.namespaced.current.values());
            self.asked = sources::asked(presets.flatten().map(|preset| &**preset));
        }
        if changes.presets || changes.network || !changes.services.is_empty() {
            is_new |= self.update_lists(&changes);
        }
        is_new.then(|| {
            let snapshot = Snapshot::new(self.cluster_level.clone(), self.entries.clone(), false);
            snapshot.with_derived(self.lists.of_cluster.clone())
        })
    }

    /// Makes anew what namespaces have; returns whether the Services of one made a difference.
    fn update_entries(&mut self, changes: &Changes) -> bool {
        let mut differs = false;
        let mut presets: HashMap<&str, Vec<Arc<Preset>>> = HashMap::with_capacity(changes.namespaces.len());
        if !changes.namespaces.is_empty() {
            for ((namespace, _), preset) in &self.namespaced.current {
                if let Some(preset) = preset
                    && changes.namespaces.contains(namespace)
                {
                    presets.entry(namespace).or_default().push(preset.clone());
                }
            }
        }
        for name in &changes.namespaces {
            let labels = self.namespaces.current.get(name).cloned();
            let presets = presets.remove(&**name).unwrap_or_default();
            if labels.is_none() && presets.is_empty() {
                self.entries.remove(&**name);
            } else {
                let entry =
                    NamespaceEntry { labels, presets: Level::new(presets), services: self.services.of(name) };
                self.entries.insert(Arc::from(&**name), Arc::new(entry));
            }
        }
        for name in changes.services.difference(&changes.namespaces) {
            if let Some(entry) = self.entries.get_mut(&**name) {
                let services = self.services.of(name);
                if services != entry.services {
                    *entry = Arc::new(NamespaceEntry { services, ..NamespaceEntry::clone(entry) });
                    differs = true;
                }
            }
        }
        differs
    }

    /// Makes the lists anew that are the same in every namespace, as far as they have changed and somebody asks for them;
    /// returns whether one differs from before.
    fn update_lists(&mut self, changes: &Changes) -> bool {
        let has_changed = |source| match source {
            NoProxySource::Services | NoProxySource::AllServices => !changes.services.is_empty(),
            NoProxySource::ClusterNetwork | NoProxySource::Nodes => changes.network,
        };
        let differs = self.lists.update(
            &self.asked,
            has_changed,
            &self.services,
            || self.network.cluster_network(&self.sources),
            || network::nodes(self.network.nodes.current.values()),
        );
        self.lists.accounts.explain(|source, _| self.sources.missing(source));
        differs
    }

    /// Sets the metrics, and logs what is new about entries of `no_proxy`.
    pub fn tell(&mut self, metrics: &PresetMetrics) {
        self.lists.accounts.tell(&self.said, &metrics.sources);
        if self.said != self.lists.accounts {
            self.said.clone_from(&self.lists.accounts);
        }
        if std::mem::take(&mut self.uncounted) {
            self.count(metrics);
        }
    }

    fn count(&self, metrics: &PresetMetrics) {
        for (kind, store) in
            [(PresetKind::Cluster, &self.cluster), (PresetKind::Namespaced, &self.namespaced)]
        {
            let invalid = store.current.values().filter(|preset| preset.is_none()).count();
            metrics.set(kind, store.current.len() - invalid, invalid);
        }
    }

    /// What a person should know of the entries that presets ask for.
    pub fn warnings(&self) -> Vec<String> {
        self.lists.accounts.warnings()
    }

    /// Presets that cannot be used, by name.
    pub fn invalid(&self) -> Vec<String> {
        let stores = [&self.cluster, &self.namespaced].into_iter().flat_map(|store| &store.current);
        let invalid = stores.filter(|(_, preset)| preset.is_none()).map(|((namespace, name), _)| {
            if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") }
        });
        invalid.collect()
    }

    /// Takes over what is watched from now on.
    pub fn set_sources(&mut self, sources: Sources) {
        self.sources = sources;
        self.changes.presets = true;
        self.changes.network = true;
    }
}

fn presets_of(event: Event<Item>) -> Event<(Key, Option<Arc<Preset>>)> {
    pairs(event, |item| match item {
        Item::Preset { key, compiled, .. } => Some((key, compiled.ok())),
        _ => None,
    })
}

// === impl Network ===

impl Network {
    fn store(&mut self, source: Source) -> &mut Store<Box<str>, Facts> {
        match source {
            Source::ServiceCidrs => &mut self.service_cidrs,
            Source::Kubeadm => &mut self.kubeadm,
            Source::ApiService => &mut self.api_service,
            _ => &mut self.nodes,
        }
    }

    fn cluster_network(&self, sources: &Sources) -> Limited {
        let mut service_cidrs: Vec<(&Box<str>, &Facts)> = self.service_cidrs.current.iter().collect();
        service_cidrs.sort_unstable_by_key(|(name, _)| *name);
        let stated = [&sources.given]
            .into_iter()
            .chain(service_cidrs.into_iter().map(|(_, facts)| facts).collect::<Vec<_>>())
            .chain(self.kubeadm.current.values())
            .chain(self.api_service.current.values());
        // Nodes may be watched for their addresses only.
        let nodes = self.nodes.current.values().filter(|_| sources.watches_networks());
        network::cluster_network(stated, nodes)
    }
}

// === impl Changes ===

impl Changes {
    fn any(&self) -> bool {
        self.presets
            || self.cluster
            || self.network
            || !self.namespaces.is_empty()
            || !self.services.is_empty()
    }
}

#[cfg(test)]
mod tests;
