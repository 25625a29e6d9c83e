//! All presets and namespaces at one moment, immutable and indexed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::preset::Preset;
use super::select::{Labels, Level};
use super::set::PresetSets;
use crate::api::NoProxySource;
use crate::no_proxy::portable::List;

/// The label that every namespace has and that holds its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All presets and namespaces at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    cluster: Arc<Level>,
    namespaces: HashMap<Arc<str>, Arc<NamespaceEntry>>,
    derived: Arc<ClusterLists>,
    /// What presets say together, as far as reviews have asked.
    sets: PresetSets,
    /// Namespaces that are not known count as existing, with no labels but their name.
    open: bool,
}

/// A namespace: its labels, if it is known to exist, and its presets.
#[derive(Clone, Debug, Default)]
pub struct NamespaceEntry {
    /// Labels, sorted by key; `None` when only presets of the namespace are known.
    pub labels: Option<NamespaceLabels>,
    /// Its presets.
    pub presets: Level,
    /// Its Services, by name.
    pub services: Arc<List>,
}

/// Entries of `no_proxy` that come from the cluster and are the same in every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterLists {
    /// `service.namespace` of every Service.
    pub all_services: List,
    /// The networks of Services and pods, and the API server's address in them.
    pub cluster_network: List,
    /// The addresses of nodes.
    pub nodes: List,
}

/// Entries of `no_proxy` that come from the cluster, as a namespace sees them.
#[derive(Clone, Copy, Debug)]
pub struct Derived<'s> {
    cluster: &'s ClusterLists,
    services: Option<&'s Arc<List>>,
}

/// Labels of a namespace, shared by the cache of the watch and the snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLabels(Arc<[(Box<str>, Box<str>)]>);

/// What belongs to a namespace, while it is collected.
type Grouped = (Option<NamespaceLabels>, Vec<Arc<Preset>>);

/// One namespace of a snapshot, as a review sees it.
#[derive(Debug)]
pub struct Namespace<'s> {
    pub(super) labels: std::borrow::Cow<'s, NamespaceLabels>,
    cluster: &'s Level,
    presets: Option<&'s Level>,
    pub(super) derived: Derived<'s>,
    pub(super) sets: &'s PresetSets,
}

// === impl NamespaceLabels ===

impl NamespaceLabels {
    /// Labels from any order of pairs.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let sorted: BTreeMap<Box<str>, Box<str>> =
            pairs.into_iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into())).collect();
        Self(sorted.into_iter().collect())
    }

    /// With the label that Kubernetes gives every namespace.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        if self.label(NAME_LABEL).is_some() {
            return self;
        }
        Self::new(self.labels().chain([(NAME_LABEL, name)]))
    }
}

impl Labels for NamespaceLabels {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(key)).ok().map(|index| &*self.0[index].1)
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// A snapshot of these presets and namespaces.
    ///
    /// With `open`, a namespace that is not known counts as existing, with no labels but its name: right
    /// for presets from files, where nobody lists namespaces. In a cluster it is an error instead: an
    /// unknown namespace means that the cache lags, and must not pass for "no preset matches".
    #[must_use]
    pub fn new(cluster: Arc<Level>, namespaces: HashMap<Arc<str>, Arc<NamespaceEntry>>, open: bool) -> Self {
        Self { cluster, namespaces, open, ..Self::default() }
    }

    /// The same with what comes from the cluster.
    #[must_use]
    pub fn with_derived(self, derived: Arc<ClusterLists>) -> Self {
        Self { derived, sets: PresetSets::default(), ..self }
    }

    /// The same with the Services of namespaces.
    #[must_use]
    pub fn with_services<'n>(mut self, services: impl IntoIterator<Item = (&'n str, Arc<List>)>) -> Self {
        for (namespace, services) in services {
            let entry = self.namespaces.entry(namespace.into()).or_default();
            let old = std::mem::take(entry);
            // Nobody else has it yet, so nothing is copied.
            let old = Arc::unwrap_or_clone(old);
            *entry = Arc::new(NamespaceEntry { services, ..old });
        }
        self
    }

    /// Groups presets and namespaces of any order; see [`Snapshot::new`].
    pub fn from_parts(
        presets: impl IntoIterator<Item = Arc<Preset>>,
        labels: impl IntoIterator<Item = (Box<str>, NamespaceLabels)>,
        open: bool,
    ) -> Self {
        let mut cluster = Vec::new();
        let mut namespaces: HashMap<Box<str>, Grouped> = HashMap::new();
        for preset in presets {
            match &preset.namespace {
                None => cluster.push(preset),
                Some(namespace) => namespaces.entry(namespace.clone()).or_default().1.push(preset),
            }
        }
        for (name, labels) in labels {
            let labels = labels.named(&name);
            namespaces.entry(name).or_default().0 = Some(labels);
        }
        let entry = |(name, (labels, presets))| {
            (
                Arc::from(name),
                Arc::new(NamespaceEntry { labels, presets: Level::new(presets), services: Arc::default() }),
            )
        };
        Self::new(Arc::new(Level::new(cluster)), namespaces.into_iter().map(entry).collect(), open)
    }

    /// The namespace of a request; `None` when it is not known to exist.
    #[must_use]
    pub fn namespace<'s>(&'s self, name: &str) -> Option<Namespace<'s>> {
        let entry = self.namespaces.get(name);
        let labels = match entry.and_then(|entry| entry.labels.as_ref()) {
            Some(labels) => std::borrow::Cow::Borrowed(labels),
            None if self.open => std::borrow::Cow::Owned(NamespaceLabels::default().named(name)),
            None => return None,
        };
        Some(Namespace {
            labels,
            cluster: &self.cluster,
            presets: entry.map(|entry| &entry.presets),
            derived: Derived { cluster: &self.derived, services: entry.map(|entry| &entry.services) },
            sets: &self.sets,
        })
    }

    /// The cluster-scoped presets, in order of use.
    #[must_use]
    pub fn cluster_presets(&self) -> &[Arc<Preset>] {
        self.cluster.presets()
    }

    /// What comes from the cluster and is the same in every namespace.
    #[must_use]
    pub fn cluster_lists(&self) -> &ClusterLists {
        &self.derived
    }

    /// How many presets there are: cluster-scoped, namespaced.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (
            self.cluster.presets().len(),
            self.namespaces.values().map(|entry| entry.presets.presets().len()).sum(),
        )
    }
}

// === impl Derived ===

impl<'s> Derived<'s> {
    /// For what is in no namespace, such as a host: all but the Services of one, whose names only its pods can resolve.
    #[must_use]
    pub fn of_cluster(cluster: &'s ClusterLists) -> Self {
        Self { cluster, services: None }
    }

    /// The Services of the namespace.
    pub(super) fn services(self) -> Option<&'s Arc<List>> {
        self.services
    }

    /// The lists of these sources.
    pub fn lists(self, sources: impl Iterator<Item = NoProxySource>) -> impl Iterator<Item = &'s List> {
        sources.filter_map(move |source| match source {
            NoProxySource::Services => self.services.map(|services| &**services),
            NoProxySource::AllServices => Some(&self.cluster.all_services),
            NoProxySource::ClusterNetwork => Some(&self.cluster.cluster_network),
            NoProxySource::Nodes => Some(&self.cluster.nodes),
        })
    }
}

// === impl Namespace ===

impl<'s> Namespace<'s> {
    /// The same namespace with other labels, for `reach inject --namespace-labels`.
    #[must_use]
    pub fn with_labels(mut self, labels: NamespaceLabels) -> Self {
        self.labels = std::borrow::Cow::Owned(labels);
        self
    }

    /// Whether the cluster has names and addresses that a preset may ask for.
    #[must_use]
    pub fn has_names(&self) -> bool {
        let Derived { cluster, services } = self.derived;
        [services.map(|services| &**services), Some(&cluster.all_services), Some(&cluster.nodes)]
            .into_iter()
            .flatten()
            .any(|list| !list.is_empty())
    }

    /// The same namespace with these entries from the cluster, and none of its Services.
    #[must_use]
    pub fn with_lists<'l>(&self, lists: &'l ClusterLists, sets: &'l PresetSets) -> Namespace<'l>
    where
        's: 'l,
    {
        Namespace {
            labels: self.labels.clone(),
            cluster: self.cluster,
            presets: self.presets,
            derived: Derived::of_cluster(lists),
            sets,
        }
    }

    /// The lists of these sources.
    pub fn lists(&self, sources: &[NoProxySource]) -> impl Iterator<Item = &'s List> {
        self.derived.lists(sources.iter().copied())
    }

    /// The value of a label.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.label(key)
    }

    /// The presets that select a pod, in order of use.
    pub(super) fn select(&self, pod: &impl Labels) -> Vec<&'s Arc<Preset>> {
        let mut found = Vec::with_capacity(4);
        self.cluster.select(&*self.labels, pod, &mut found);
        if let Some(presets) = self.presets {
            presets.select(&*self.labels, pod, &mut found);
        }
        found
    }
}
