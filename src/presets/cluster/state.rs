//! Everything that is known of the cluster, and the snapshots made of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::room::{Known, Room};
use super::source::{Item, Key, Source, pairs};
use super::status::Seen;
use super::store::Store;
use crate::api::{NoProxySource, PresetKind};
use crate::inject::preset::Preset;
use crate::inject::select::Level;
use crate::inject::snapshot::{NamespaceEntry, NamespaceLabels, Snapshot};
use crate::presets::network::{self, Facts, Limited};
use crate::presets::services::{Names, Services};
use crate::presets::sources::{self, Accounts, Lists, Sources};
use crate::telemetry::PresetMetrics;

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct State {
    cluster: Store<Key, Known>,
    /// PodPresets, and which of them there is room for.
    pub namespaced: Room,
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
    /// Presets that have been heard of since that was told to whoever writes their status, and watches that have listed all.
    heard: Vec<Key>,
    heard_all: BTreeSet<Source>,
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
            self.heard_all.insert(source);
        }
        if let Event::Apply(Item::Preset { key, .. }) = &event {
            self.heard.push(key.clone());
        }
        match source {
            Source::Cluster => {
                let differs = self.cluster.update(presets_of(event)) || listed;
                self.changes.cluster |= differs;
                self.changes.presets |= differs;
            }
            Source::Namespaced => {
                let event = presets_of(event);
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

    /// Decides which presets are used where there is no room for all.
    pub fn weigh(&mut self) {
        for key in self.namespaced.weigh() {
            self.changes.presets = true;
            self.changes.namespaces.insert(key.0.clone());
            self.heard.push(key);
        }
    }

    /// Tells whoever writes the status of presets what has been heard of them.
    pub fn tell_of_presets(&mut self, mut tell: impl FnMut(Seen)) {
        let stores =
            [(Source::Cluster, &self.cluster.current), (Source::Namespaced, self.namespaced.current())];
        for (source, presets) in stores {
            if self.heard_all.contains(&source) {
                for (key, known) in presets {
                    tell(known.seen(key.clone()));
                }
            }
        }
        self.heard_all.clear();
        for key in std::mem::take(&mut self.heard) {
            let presets = if key.0.is_empty() { &self.cluster.current } else { self.namespaced.current() };
            if let Some(known) = presets.get(&key) {
                tell(known.seen(key));
            }
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
        changed.extend(self.namespaced.current().keys().map(|(namespace, _)| namespace.clone()));
    }

    /// The next snapshot, if all watches have listed and there is something new in it.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.weigh();
        if !self.synced() || !self.changes.any() {
            return None;
        }
        let changes = std::mem::take(&mut self.changes);
        let mut is_new = changes.presets || changes.cluster || !changes.namespaces.is_empty();
        self.uncounted |= changes.presets;
        if changes.cluster {
            let presets = self.cluster.current.values().filter_map(|known| known.preset.clone());
            self.cluster_level = Arc::new(Level::new(presets.collect()));
        }
        for namespace in &changes.services {
            self.services.update(namespace);
        }
        is_new |= self.update_entries(&changes);
        if changes.presets {
            let presets = self.cluster.current.values().chain(self.namespaced.current().values());
            self.asked = sources::asked(presets.filter_map(|known| known.preset.as_deref()));
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
            for ((namespace, _), known) in self.namespaced.current() {
                if let Some(preset) = &known.preset
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
        let stores = [&self.cluster.current, self.namespaced.current()];
        for (kind, presets) in [PresetKind::Cluster, PresetKind::Namespaced].into_iter().zip(stores) {
            let invalid = presets.values().filter(|known| known.preset.is_none()).count();
            metrics.set(kind, presets.len() - invalid, invalid);
        }
    }

    /// What a person should know of the entries that presets ask for.
    pub fn warnings(&self) -> Vec<String> {
        self.lists.accounts.warnings()
    }

    /// Presets that cannot be used, by name.
    pub fn invalid(&self) -> Vec<String> {
        let presets = self.cluster.current.iter().chain(self.namespaced.current());
        let invalid = presets.filter(|(_, known)| known.preset.is_none()).map(|((namespace, name), _)| {
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

fn presets_of(event: Event<Item>) -> Event<(Key, Known)> {
    pairs(event, |item| match item {
        Item::Preset { key, compiled, created, said } => {
            Some((key, Known::new(compiled.ok(), created, said)))
        }
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
