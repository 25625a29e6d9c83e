//! Everything that is known of the cluster, and the snapshots made of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use kube::runtime::watcher::Event;

use super::source::{Item, Key, Source, pairs};
use super::store::Store;
use crate::api::{NoProxySource, PresetKind};
use crate::inject::preset::Preset;
use crate::inject::select::Level;
use crate::inject::snapshot::{ClusterLists, NamespaceEntry, NamespaceLabels, Snapshot};
use crate::presets::network::{self, Facts, Limited};
use crate::presets::services::{Made, Names, Services};
use crate::presets::sources::{self, Account, Accounts, Sources};
use crate::telemetry::PresetMetrics;

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct State {
    cluster: Store<Key, Option<Arc<Preset>>>,
    namespaced: Store<Key, Option<Arc<Preset>>>,
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
    derived: Arc<ClusterLists>,
    accounts: Accounts,
    said: Accounts,
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
        if matches!(event, Event::InitDone) {
            self.pending.remove(&source);
        }
        if let Event::Apply(item) | Event::Delete(item) = &event {
            match item {
                Item::Preset((namespace, _), _) => {
                    self.changes.presets = true;
                    if namespace.is_empty() {
                        self.changes.cluster = true;
                    } else {
                        self.changes.namespaces.insert(namespace.clone());
                    }
                }
                Item::Namespace(name, _) => {
                    self.changes.namespaces.insert(name.clone());
                }
                Item::Service(_) | Item::Facts(..) => {}
            }
        }
        match source {
            Source::Cluster => {
                let listed = self.cluster.apply(presets_of(event));
                self.changes.cluster |= listed;
                self.changes.presets |= listed;
            }
            Source::Namespaced => {
                if self.namespaced.apply(presets_of(event)) {
                    self.changes.presets = true;
                    self.all_changed();
                }
            }
            Source::Namespaces => {
                let event = pairs(event, |item| match item {
                    Item::Namespace(name, labels) => Some((name, labels)),
                    _ => None,
                });
                if self.namespaces.apply(event) {
                    self.all_changed();
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

    /// The next snapshot, if all watches have listed and something has changed.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.synced() || !self.changes.any() {
            return None;
        }
        let changes = std::mem::take(&mut self.changes);
        if changes.cluster {
            self.cluster_level =
                Arc::new(Level::new(self.cluster.current.values().flatten().cloned().collect()));
        }
        for namespace in &changes.services {
            self.services.update(namespace);
        }
        self.update_entries(&changes);
        if changes.presets {
            let presets = self.cluster.current.values().chain(self.namespaced.current.values());
            self.asked = sources::asked(presets.flatten().map(|preset| &**preset));
        }
        if changes.presets || changes.network || !changes.services.is_empty() {
            self.update_derived();
        }
        let snapshot = Snapshot::new(self.cluster_level.clone(), self.entries.clone(), false);
        Some(snapshot.with_derived(self.derived.clone()))
    }

    fn update_entries(&mut self, changes: &Changes) {
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
                *entry = Arc::new(NamespaceEntry { services, ..NamespaceEntry::clone(entry) });
            }
        }
    }

    /// Makes the lists anew that are the same in every namespace, as far as somebody asks for them.
    fn update_derived(&mut self) {
        // Long, and for those only who ask.
        let is_asked = self.asked.contains(&NoProxySource::AllServices);
        let all_services = if is_asked { self.services.all() } else { Made::default() };
        let cluster_network = self.network.cluster_network(&self.sources);
        let nodes = network::nodes(self.network.nodes.current.values());
        self.accounts = Accounts::new(&self.asked, |source| {
            let account = match source {
                NoProxySource::Services => Account::services(&self.services),
                NoProxySource::AllServices => Account::all_services(&all_services),
                NoProxySource::ClusterNetwork => Account::limited(&cluster_network),
                NoProxySource::Nodes => Account::limited(&nodes),
            };
            account.or_missing(self.sources.missing(source))
        });
        self.derived = Arc::new(ClusterLists {
            all_services: Arc::unwrap_or_clone(all_services.list),
            cluster_network: cluster_network.list,
            nodes: nodes.list,
        });
    }

    /// Sets the metrics, and logs what is new about entries of `no_proxy`.
    pub fn tell(&mut self, metrics: &PresetMetrics) {
        for (kind, store) in
            [(PresetKind::Cluster, &self.cluster), (PresetKind::Namespaced, &self.namespaced)]
        {
            let invalid = store.current.values().filter(|preset| preset.is_none()).count();
            metrics.set(kind, store.current.len() - invalid, invalid);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        metrics.changed.set(now.as_secs_f64());
        self.accounts.tell(&self.said, &metrics.sources);
        self.said.clone_from(&self.accounts);
    }

    /// What a person should know of the entries that presets ask for.
    pub fn warnings(&self) -> Vec<String> {
        self.accounts.warnings()
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
    }
}

fn presets_of(event: Event<Item>) -> Event<(Key, Option<Arc<Preset>>)> {
    pairs(event, |item| match item {
        Item::Preset(key, preset) => Some((key, preset.ok())),
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
