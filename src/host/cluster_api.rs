//! What manifests of Cluster API say of a cluster's network: which addresses and names a host has to reach without the
//! proxy, each with the field that says so.
//!
//! [`groups`] links the documents of a stream and gives each cluster its own entries; [`check`] says what is wrong with
//! what it found. Nothing is asked of a cluster: what only a controller knows is a note ([`Group::notes`]), not a guess.

use std::fmt;

use clap::ValueEnum as _;
use serde_json::Value as Json;

mod checks;
mod facts;
mod field;
mod files;
mod links;
mod pools;
mod rules;
#[cfg(test)]
mod tests;

pub use checks::check;
pub use rules::{RULES, Rule};

/// The group of `Cluster`, `ClusterClass` and the kinds of machines.
pub const CORE: &str = "cluster.x-k8s.io";
/// The group of `KubeadmControlPlane` and its template.
pub const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
/// The group of `KubeadmConfig` and its template.
pub const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
/// The group of what infrastructure providers have, that for vSphere with a vCenter among them. The same kinds of the
/// group `vmware.infrastructure.cluster.x-k8s.io` are for a Supervisor, and name no vCenter.
pub const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";

/// The rule of notes of a class by itself: what is known of each of its clusters only.
const LEFT_TO_THE_CLUSTER: &str = "left-to-the-cluster";

/// The label by which an object says whose it is.
const CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The file, as it is to be shown.
    pub file: String,
    /// The place of the document in it; the first is 1.
    pub document: usize,
}

/// An object of a stream.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Where it stands.
    pub source: Source,
    /// Its API group; empty for the core of Kubernetes.
    pub group: String,
    /// The version of its API.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty if it has none, or leaves it to kubectl.
    pub namespace: String,
    /// Its name, perhaps with variables of clusterctl in it.
    pub name: String,
    /// All of it.
    pub value: Json,
}

/// The objects of a stream.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    objects: Vec<Object>,
}

/// How addresses of nodes become entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NodeRanges {
    /// The network that a pool is a part of. It stays when the pool grows, and with it the files of the hosts: a file
    /// that changes replaces every machine.
    #[default]
    Subnet,
    /// The fewest networks that hold the addresses of a pool and nothing else.
    Exact,
    /// None.
    None,
}

/// What an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum FactSource {
    /// Networks of pods and Services, and the address of the API server's Service.
    ClusterNetwork,
    /// The domain of Services.
    ServiceDomain,
    /// Where the API server is reached: the endpoint of a `Cluster`, of its infrastructure or of its configuration.
    ControlPlaneEndpoint,
    /// The virtual address in the manifest of kube-vip.
    KubeVip,
    /// vCenters.
    Vcenter,
    /// Addresses in templates of machines.
    Machines,
    /// Pools of addresses that machines take theirs from.
    Pools,
    /// Load balancers in front of a control plane.
    LoadBalancer,
    /// An etcd elsewhere.
    Etcd,
    /// Variables that a `Cluster` gives to its class.
    TopologyVariables,
}

/// An entry of `no_proxy`, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry: a name, an address or a network; or a variable of clusterctl, as it is written there.
    pub text: String,
    /// What it comes from.
    pub from: FactSource,
    /// The object that says so; `None` if none has to.
    pub object: Option<usize>,
    /// The field that says so, as in `spec.clusterNetwork.services.cidrBlocks[0]`; where a default is taken, the field
    /// that could say otherwise.
    pub field: String,
    /// Why a host has to reach it without the proxy.
    pub why: &'static str,
}

/// What shares one list.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The `Cluster`; `None` for a class by itself, and for configurations without one.
    pub cluster: Option<usize>,
    /// The `ClusterClass` of the cluster, or the class that the group is about.
    pub class: Option<usize>,
    /// What gets the list, in the order of the stream: `KubeadmControlPlane`, `KubeadmConfigTemplate` and `KubeadmConfig`
    /// objects, and for a class by itself its templates. Empty for a cluster of a class: its machines are made of the
    /// class's templates, which serve other clusters too.
    pub configurations: Vec<usize>,
    /// The list, in an order that does not depend on that of the stream, each text once for each source.
    pub entries: Vec<Entry>,
    /// What could not be derived, and why.
    pub notes: Vec<Finding>,
    known: facts::Known,
}

/// A version of a kind with a `KubeadmConfigSpec` that cannot be patched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} version {version}: expected {group}/v1beta1 or {group}/v1beta2", if *.is_old { "too old a" } else { "unknown" })]
pub struct UnknownVersion {
    /// Whether it is one of Cluster API's before v1beta1, which there may be: it stays as it is.
    pub is_old: bool,
    group: String,
    version: String,
}

/// What is derived.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How addresses of nodes become entries.
    pub node_ranges: NodeRanges,
    /// What is left out.
    pub without: Vec<FactSource>,
}

/// Something that is wrong, or that could not be derived. It shows no value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where the object stands.
    pub source: Source,
    /// The object, as `Kind namespace/name`.
    pub object: String,
    /// The field.
    pub field: String,
    /// The rule, by its name in [`RULES`], or by its id in [`crate::lint::RULES`].
    pub rule: &'static str,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// The clusters of a stream, its classes, and the configurations that belong to neither, each with its entries. They are
/// in the order of the stream.
///
/// # Errors
/// If a field that is read is of another type than it has to be, or holds no address where one has to be, or if two
/// clusters share one configuration, which can hold only one list.
pub fn groups(manifests: &Manifests, options: &Options) -> Result<Vec<Group>, Vec<Finding>> {
    let (links, mut wrong) = links::Links::new(manifests);
    let pools = pools::Pools::read(manifests, &mut wrong);
    let mut groups = Vec::new();
    for members in links.groups() {
        let (mut group, errors) = facts::group(manifests, &links, &pools, &members, options.node_ranges);
        group.entries.retain(|entry| !options.without.contains(&entry.from));
        wrong.extend(errors);
        groups.push(group);
    }
    if wrong.is_empty() {
        return Ok(groups);
    }
    wrong.sort();
    wrong.dedup();
    Err(wrong)
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file, self.document)
    }
}

// === impl Object ===

impl Object {
    /// An object as it was read. What is not text where a name has to be, is taken for no name.
    #[must_use]
    pub fn new(source: Source, value: Json) -> Self {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let api_version = value["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (group, version) = (group.to_owned(), version.to_owned());
        let metadata = &value["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        Self { source, group, version, kind: text(&value["kind"]), namespace, name, value }
    }

    /// Whether it is of this kind, in any version.
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.kind == kind && self.group == group
    }

    /// Where a `KubeadmConfigSpec` is in it, as in `spec.kubeadmConfigSpec`; `None` for kinds without one.
    #[must_use]
    pub fn configuration(&self) -> Option<&'static str> {
        match (&*self.group, &*self.kind) {
            (CONTROL_PLANE, "KubeadmControlPlane") => Some("spec.kubeadmConfigSpec"),
            (CONTROL_PLANE, "KubeadmControlPlaneTemplate") => Some("spec.template.spec.kubeadmConfigSpec"),
            (BOOTSTRAP, "KubeadmConfigTemplate") => Some("spec.template.spec"),
            (BOOTSTRAP, "KubeadmConfig") => Some("spec"),
            _ => None,
        }
    }

    /// [`Self::configuration`], if the version is one that can be patched.
    ///
    /// # Errors
    /// What is to be said of one that cannot: whether it is an error, and which version was expected.
    pub fn patchable(&self) -> Result<Option<&'static str>, UnknownVersion> {
        let Some(field) = self.configuration() else { return Ok(None) };
        match self.version.as_str() {
            "v1beta1" | "v1beta2" => Ok(Some(field)),
            version => Err(UnknownVersion {
                is_old: ["v1alpha3", "v1alpha4"].contains(&version),
                group: self.group.clone(),
                version: version.to_owned(),
            }),
        }
    }

    /// What there is to say of a version that cannot be patched, and whether it is one that stays as it is.
    #[must_use]
    pub fn unpatchable(&self) -> Option<(Finding, bool)> {
        let error = self.patchable().err()?;
        let stays = if error.is_old { "; it stays as it is" } else { "" };
        Some((self.finding("version", "apiVersion", format!("{error}{stays}")), error.is_old))
    }

    /// Whether the `KubeadmConfigSpec` in it is for machines of a control plane, as far as can be told.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        let spec = &self.value["spec"];
        self.group == CONTROL_PLANE
            || ["clusterConfiguration", "initConfiguration"].iter().any(|field| spec[field].is_object())
            || spec["joinConfiguration"]["controlPlane"].is_object()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.value["metadata"]["labels"][key].as_str().filter(|value| !value.is_empty())
    }

    fn finding(&self, rule: &'static str, field: &str, message: String) -> Finding {
        let (source, field) = (self.source.clone(), field.to_owned());
        Finding { source, object: self.to_string(), field, rule, message }
    }
}

/// Without its value, in which passwords may stand.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("source", &self.source)
            .field("name", &self.to_string())
            .finish_non_exhaustive()
    }
}

/// `Kind namespace/name`
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

// === impl Manifests ===

impl Manifests {
    /// The objects of a stream, in its order.
    #[must_use]
    pub fn new(objects: Vec<Object>) -> Self {
        Self { objects }
    }

    /// The objects, as they were given.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }
}

// === impl Group ===

impl Group {
    /// What could not be derived for the hosts. What a class leaves to its clusters, its patch takes from each of them.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.notes.iter().filter(|note| note.rule != LEFT_TO_THE_CLUSTER)
    }
}

// === impl FactSource ===

impl FactSource {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        // No source is hidden.
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "" } else { ", " };
        write!(f, "{}, {}{field}{}: {} [{}]", self.source, self.object, self.field, self.message, self.rule)
    }
}
