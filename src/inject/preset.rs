//! A preset as the engine uses it: parsed and checked once, when it changes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hasher;

use serde_json::Value;

use super::defaults;
use super::java;
use super::select::{Selector, SelectorError};
use crate::api::{
    ClusterPodPreset, LetterCase, MergeStrategy, NoProxyForm, NoProxySource, PodPreset, PresetKind,
    PresetSpec, PresetVariable, Runtime,
};
use crate::no_proxy::portable::{Author, List};

/// One of the two levels that presets have; the pod itself is the third and most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresetLevel {
    /// A `ClusterPodPreset`.
    Cluster,
    /// A `PodPreset`.
    Namespace,
}

/// A variable that clients of HTTP proxies read, in any letter case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVariable {
    /// `http_proxy`
    Http,
    /// `https_proxy`
    Https,
    /// `ftp_proxy`
    Ftp,
    /// `all_proxy`
    All,
    /// `no_proxy`
    No,
}

/// A compiled preset.
#[derive(Debug)]
pub struct Preset {
    /// Its level.
    pub level: PresetLevel,
    /// Its name.
    pub name: Box<str>,
    /// Its namespace; `None` for a `ClusterPodPreset`.
    pub namespace: Option<Box<str>>,
    /// `kind/name@generation`, as in the annotation `reach.dev/presets`.
    pub(super) stamp: Box<str>,
    /// Higher goes first.
    pub priority: i32,
    pub(super) namespace_selector: Selector,
    pub(super) selector: Selector,
    pub(super) letter_case: LetterCase,
    pub(super) no_proxy_form: Option<NoProxyForm>,
    pub(super) no_proxy_from: Box<[NoProxySource]>,
    exclude: Box<[NamePattern]>,
    pub(super) env: Box<[Variable]>,
    pub(super) env_from: Box<[EnvFrom]>,
    pub(super) volumes: Box<[Volume]>,
    pub(super) mounts: Box<[Mount]>,
    /// Digest of what it injects, and of nothing else.
    pub(super) digest: u64,
    /// Bytes of its spec as JSON: about what it takes to keep it.
    pub weight: usize,
}

#[derive(Debug)]
enum NamePattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// A variable of a preset.
#[derive(Debug)]
pub struct Variable {
    /// Name as written.
    pub name: Box<str>,
    pub(super) proxy: Option<ProxyVariable>,
    /// Where its value comes from.
    pub value: VariableValue,
    pub(super) strategy: Option<MergeStrategy>,
    pub(super) separator: Option<Box<str>>,
    /// Whether it is there only for what `noProxyFrom` adds to it.
    pub(super) is_implied: bool,
}

/// Where the value of a variable comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum VariableValue {
    /// A literal.
    Literal(Box<str>),
    /// `valueFrom`, as JSON text.
    Source(Box<str>),
    /// What [`super::java`] makes of the proxy variables of a container.
    Java,
}

/// An entry of `envFrom`.
#[derive(Debug)]
pub struct EnvFrom {
    pub(super) json: Box<str>,
    pub(super) key: EnvFromKey,
}

/// What makes two entries of `envFrom` the same one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnvFromKey {
    prefix: Box<str>,
    config_map: Box<str>,
    secret: Box<str>,
}

/// A volume.
#[derive(Debug)]
pub struct Volume {
    pub(super) name: Box<str>,
    pub(super) json: Box<str>,
    /// As the API server would have completed it.
    pub(super) canonical: Value,
}

/// A mount.
#[derive(Debug)]
pub struct Mount {
    pub(super) volume: Box<str>,
    /// Path without redundant slashes, for comparison.
    pub(super) path: Box<str>,
    pub(super) sub_path: bool,
    pub(super) json: Box<str>,
    pub(super) canonical: Value,
}

/// Why an object is no usable preset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// A selector that Kubernetes would refuse.
    #[error("spec.{0}: {1}")]
    Selector(&'static str, SelectorError),
}

// === impl ProxyVariable ===

impl ProxyVariable {
    /// The proxy variable that a name stands for, in any letter case.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        // By length first: nearly every name of a variable is settled by it.
        let candidates: &[Self] = match name.len() {
            8 => &[Self::No],
            9 => &[Self::Ftp, Self::All],
            10 => &[Self::Http],
            11 => &[Self::Https],
            _ => return None,
        };
        candidates.iter().copied().find(|proxy| proxy.lower().eq_ignore_ascii_case(name))
    }

    /// The spelling in lower case.
    #[must_use]
    pub fn lower(self) -> &'static str {
        match self {
            Self::Http => "http_proxy",
            Self::Https => "https_proxy",
            Self::Ftp => "ftp_proxy",
            Self::All => "all_proxy",
            Self::No => "no_proxy",
        }
    }

    /// The spelling in upper case.
    #[must_use]
    pub fn upper(self) -> &'static str {
        match self {
            Self::Http => "HTTP_PROXY",
            Self::Https => "HTTPS_PROXY",
            Self::Ftp => "FTP_PROXY",
            Self::All => "ALL_PROXY",
            Self::No => "NO_PROXY",
        }
    }
}

// === impl Preset ===

impl Preset {
    /// Compiles a `ClusterPodPreset` that its schema accepts.
    ///
    /// # Errors
    /// If a selector cannot be read.
    pub fn cluster(object: &ClusterPodPreset) -> Result<Self, PresetError> {
        let selector = object.spec.namespace_selector.as_ref();
        let namespaces =
            Selector::compile(selector).map_err(|error| PresetError::Selector("namespaceSelector", error))?;
        Self::compile(&object.metadata, PresetKind::Cluster, namespaces, &object.spec.preset)
    }

    /// Compiles a `PodPreset` that its schema accepts.
    ///
    /// # Errors
    /// If the selector cannot be read.
    pub fn namespaced(object: &PodPreset) -> Result<Self, PresetError> {
        Self::compile(&object.metadata, PresetKind::Namespaced, Selector::default(), &object.spec.preset)
    }

    fn compile(
        metadata: &kube::api::ObjectMeta,
        kind: PresetKind,
        namespace_selector: Selector,
        spec: &PresetSpec,
    ) -> Result<Self, PresetError> {
        let name = metadata.name.as_deref().unwrap_or_default();
        let level = match kind {
            PresetKind::Cluster => PresetLevel::Cluster,
            PresetKind::Namespaced => PresetLevel::Namespace,
        };
        let (digest, content) = digest(spec);
        let selector = serde_json::to_vec(&spec.selector).map_or(0, |json| json.len());
        Ok(Self {
            level,
            name: name.into(),
            namespace: (kind == PresetKind::Namespaced)
                .then(|| metadata.namespace.as_deref().unwrap_or("default").into()),
            stamp: format!("{}/{name}@{}", kind.as_str(), metadata.generation.unwrap_or(0)).into(),
            priority: spec.priority,
            namespace_selector,
            selector: Selector::compile(spec.selector.as_ref())
                .map_err(|error| PresetError::Selector("selector", error))?,
            letter_case: spec.letter_case,
            no_proxy_form: spec.no_proxy_form,
            no_proxy_from: spec.no_proxy_from.iter().copied().collect(),
            exclude: spec.exclude_containers.iter().map(|pattern| NamePattern::new(pattern)).collect(),
            env: variables(spec),
            env_from: spec.env_from.iter().map(EnvFrom::new).collect(),
            volumes: spec.volumes.iter().map(Volume::new).collect(),
            mounts: spec.volume_mounts.iter().map(Mount::new).collect(),
            digest,
            weight: content + selector,
        })
    }

    /// `kind/name`, as people refer to it.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.stamp.rsplit_once('@').map_or(&self.stamp, |(reference, _)| reference)
    }

    /// Where entries of its `no_proxy` come from beside what it says.
    #[must_use]
    pub fn no_proxy_from(&self) -> &[NoProxySource] {
        &self.no_proxy_from
    }

    /// Whether it asks for names and addresses that only the cluster knows.
    #[must_use]
    pub fn asks_for_names(&self) -> bool {
        self.no_proxy_from.iter().any(|source| source.is_names())
    }

    /// Whether it is for every pod of every namespace.
    #[must_use]
    pub fn selects_everything(&self) -> bool {
        let all = Selector::default();
        self.level == PresetLevel::Cluster && self.namespace_selector == all && self.selector == all
    }

    /// Its variables, in order.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.env
    }

    /// The order in which presets of one level are used: priority, high first; then name.
    #[must_use]
    pub fn order_of_use(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| self.name.cmp(&other.name))
    }

    pub(super) fn excludes(&self, container: &str) -> bool {
        self.exclude.iter().any(|pattern| match pattern {
            NamePattern::Exact(name) => **name == *container,
            NamePattern::Prefix(prefix) => container.starts_with(&**prefix),
        })
    }
}

/// Whether they select and inject the same, in the same generation.
impl PartialEq for Preset {
    fn eq(&self, other: &Self) -> bool {
        self.stamp == other.stamp
            && self.namespace == other.namespace
            && self.priority == other.priority
            && self.namespace_selector == other.namespace_selector
            && self.selector == other.selector
            && self.digest == other.digest
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reference())
    }
}

/// Makes Node.js read proxy variables, from 22.21 and 24.5 on.
const NODE: &str = "NODE_USE_ENV_PROXY";

/// FNV-1a over the content: short, and the same in every version of reach and on every machine. Also how long that is.
fn digest(spec: &PresetSpec) -> (u64, usize) {
    let content = PresetSpec { selector: None, priority: 0, ..spec.clone() };
    let content = serde_json::to_vec(&content).unwrap_or_default();
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(&content);
    (hasher.finish(), content.len())
}

/// The variables of a preset, and those that it implies.
fn variables(spec: &PresetSpec) -> Box<[Variable]> {
    let mut variables: Vec<Variable> = spec.env.iter().map(Variable::new).collect();
    let has = |proxy| variables.iter().any(|variable| variable.proxy == Some(proxy));
    if !spec.no_proxy_from.is_empty() && !has(ProxyVariable::No) {
        variables.push(Variable { is_implied: true, ..Variable::literal(ProxyVariable::No.lower(), "") });
    }
    for runtime in &spec.derive {
        match runtime {
            Runtime::Java => variables.push(Variable::java()),
            Runtime::Node if variables.iter().all(|variable| *variable.name != *NODE) => {
                variables.push(Variable::literal(NODE, "1"));
            }
            Runtime::Node => {}
        }
    }
    variables.into()
}

// === impl NamePattern ===

impl NamePattern {
    fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(pattern.into()),
        }
    }
}

// === impl Variable ===

impl Variable {
    fn new(item: &PresetVariable) -> Self {
        let value = match &item.value_from {
            Some(source) => VariableValue::Source(source.to_string().into()),
            None => VariableValue::Literal(item.value.as_deref().unwrap_or_default().into()),
        };
        Self {
            name: item.name.as_str().into(),
            proxy: ProxyVariable::of(&item.name),
            value,
            strategy: item.merge_strategy,
            separator: item.separator.as_deref().map(Into::into),
            is_implied: false,
        }
    }

    /// A literal `no_proxy`, read. Not kept: presets are many, and what those of a pod say together is kept.
    pub(super) fn list(&self) -> Option<List> {
        match &self.value {
            VariableValue::Literal(text) if self.proxy == Some(ProxyVariable::No) => {
                Some(List::parse(text, Author::Preset))
            }
            _ => None,
        }
    }

    /// A variable with a literal value and nothing else.
    fn literal(name: &str, value: &str) -> Self {
        Self::new(&PresetVariable {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
            merge_strategy: None,
            separator: None,
        })
    }

    /// The options of a JVM, joined with those that a container has.
    fn java() -> Self {
        Self {
            value: VariableValue::Java,
            strategy: Some(MergeStrategy::Merge),
            separator: Some(" ".into()),
            ..Self::literal(java::VARIABLE, "")
        }
    }

    /// Whether a variable of a container is this one.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        match self.proxy {
            Some(proxy) => ProxyVariable::of(name) == Some(proxy),
            None => *self.name == *name,
        }
    }
}

// === impl EnvFrom, Volume, Mount ===

impl EnvFrom {
    fn new(item: &Value) -> Self {
        Self { json: item.to_string().into(), key: EnvFromKey::of(item) }
    }
}

impl EnvFromKey {
    /// The key of an entry of `envFrom`.
    pub(super) fn of(item: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().into();
        Self {
            prefix: text(&item["prefix"]),
            config_map: text(&item["configMapRef"]["name"]),
            secret: text(&item["secretRef"]["name"]),
        }
    }
}

impl EnvFrom {
    /// What it refers to.
    #[must_use]
    pub fn key(&self) -> &EnvFromKey {
        &self.key
    }
}

impl fmt::Display for EnvFromKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret.is_empty() {
            write!(f, "ConfigMap {}", self.config_map)?;
        } else {
            write!(f, "Secret {}", self.secret)?;
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, ", prefix {}", self.prefix) }
    }
}

impl Volume {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn new(item: &Value) -> Self {
        Self {
            name: item["name"].as_str().unwrap_or_default().into(),
            json: item.to_string().into(),
            canonical: defaults::volume(item.clone()),
        }
    }
}

impl Mount {
    fn new(item: &Value) -> Self {
        Self {
            volume: item["name"].as_str().unwrap_or_default().into(),
            path: normal_path(item["mountPath"].as_str().unwrap_or_default()),
            sub_path: ["subPath", "subPathExpr"]
                .iter()
                .any(|field| item[field].as_str().is_some_and(|path| !path.is_empty())),
            json: item.to_string().into(),
            canonical: defaults::mount(item.clone()),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from volume {}", self.path, self.volume)
    }
}

/// A path without redundant slashes: a runtime mounts `/etc/ssl` and `/etc/ssl/` at the same place.
pub(super) fn normal_path(path: &str) -> Box<str> {
    let mut normal = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() { "/".into() } else { normal.into() }
}
