//! Cluster API's Runtime Hooks: what `reach host patch` writes into a `ClusterClass`, made for each cluster by a server that
//! Cluster API asks.
//!
//! A `GeneratePatches` request has all templates of one cluster, as the patches in front of ours have left them, so that what
//! a class makes of its variables is seen where it arrives: the endpoint in the template of the infrastructure, kube-vip among
//! the files. Variables themselves come only if reach defines them (`definitionsForPatch` of Cluster API), which is why there
//! is nothing to read from those of the class.
//!
//! Cluster API asks again whenever it reconciles a topology, and replaces machines when the answer changes: an answer depends
//! on the request and the presets, and on nothing else.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster_api::{self, CORE, Finding, Group, Manifests, Object, Source, groups};
use super::node::{APPLY, Certificate, Node, Options, StaticPods, is_path_of_reach};
use super::patch::{self, PatchError, Wanted};
use super::values::{self, Secrets, Setting, Surroundings};
use crate::inject::preset::{Preset, ProxyVariable};
use crate::inject::snapshot::ClusterLists;
use crate::manifest::Operation;
use crate::no_proxy::portable::{Author, List, unite};

/// The API of the hooks.
pub const API_VERSION: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";

/// The variable of a cluster's topology.
pub const VARIABLE: &str = "proxy";

/// How long Cluster API waits for an answer, in seconds: its default, thousands of times of what an answer takes.
const TIMEOUT_SECONDS: u32 = 10;

/// A hook, which is a path of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Which other hooks there are.
    Discovery,
    /// The variables that a class gets of reach.
    DiscoverVariables,
    /// The patches of a cluster's templates.
    GeneratePatches,
    /// Whether the templates are right once all patches have been applied.
    ValidateTopology,
}

/// The answer to a request that can be read.
#[derive(Debug)]
pub struct Answer {
    /// The response, as JSON.
    pub body: Vec<u8>,
    /// Why it is a `Failure`, which Cluster API shows in a condition of the cluster.
    pub failure: Option<String>,
    /// What a person may want to know, but nothing has to be stopped for.
    pub notes: Vec<String>,
}

/// What is read of all requests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    api_version: String,
    kind: String,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    variables: Vec<Variable>,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: Value,
}

/// A template.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    /// Not in requests of `ValidateTopology`.
    #[serde(default)]
    uid: String,
    holder_reference: Holder,
    object: Value,
    #[serde(default)]
    variables: Vec<Variable>,
}

/// The object that the template is for.
#[derive(Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct Holder {
    kind: String,
    name: String,
    field_path: String,
}

/// The variable [`VARIABLE`]. It may hold a password.
#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Given {
    http_proxy: String,
    https_proxy: String,
    no_proxy: Vec<String>,
    presets: Option<Vec<String>>,
}

/// The builtin variables that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Builtin {
    cluster: BuiltinCluster,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BuiltinCluster {
    name: String,
    namespace: String,
    metadata: Value,
    network: BuiltinNetwork,
    topology: BuiltinTopology,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BuiltinNetwork {
    service_domain: Option<String>,
    services: Option<Vec<String>>,
    pods: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BuiltinTopology {
    version: Option<String>,
}

/// What the settings of an `ExtensionConfig` or of a class's patch say.
struct Settings {
    options: Options,
    facts: cluster_api::Options,
}

/// A request, read, with what its cluster says of its network.
struct Topology<'a> {
    request: &'a Request,
    settings: Settings,
    presets: &'a [Arc<Preset>],
    manifests: Manifests,
    group: Group,
    /// The variable of the cluster.
    proxy: Option<Given>,
}

/// Answers a request. `presets` are those of the cluster, in any order.
///
/// # Errors
/// If it is no request of this hook. Everything else is answered, if need be with a `Failure`.
pub fn answer(hook: Hook, body: &[u8], presets: &[Arc<Preset>]) -> Result<Answer, String> {
    let kind = format!("{}Request", hook.name());
    let request: Request = read_bytes(body).map_err(|error| format!("expected a {kind}: {error}"))?;
    if request.api_version != API_VERSION || request.kind != kind {
        return Err(format!("expected a {kind} of {API_VERSION}"));
    }
    let mut notes = Vec::new();
    let made = match hook {
        Hook::Discovery => Ok(json!({"handlers": handlers()})),
        Hook::DiscoverVariables => Ok(json!({"variables": [variable()]})),
        Hook::GeneratePatches => Topology::read(&request, presets).and_then(|topology| {
            notes = topology.group.notes.iter().map(shown).collect();
            Ok(json!({"items": topology.patches()?}))
        }),
        Hook::ValidateTopology => Topology::read(&request, presets).and_then(|topology| {
            notes = topology.validate()?;
            Ok(json!({}))
        }),
    };
    let (status, failure) = match &made {
        Ok(_) => ("Success", None),
        Err(errors) => ("Failure", Some(format!("reach: {}", errors.join("; ")))),
    };
    let mut response = made.unwrap_or_else(|_| json!({}));
    response["apiVersion"] = API_VERSION.into();
    response["kind"] = format!("{}Response", hook.name()).into();
    response["status"] = status.into();
    if let Some(failure) = &failure {
        response["message"] = failure.as_str().into();
    }
    Ok(Answer { body: response.to_string().into_bytes(), failure, notes })
}

/// Every hook but the one that tells of them.
fn handlers() -> Vec<Value> {
    let hooks = Hook::ALL.into_iter().filter(|hook| *hook != Hook::Discovery);
    hooks
        .map(|hook| {
            json!({
                "name": hook.handler(),
                "requestHook": {"apiVersion": API_VERSION, "hook": hook.name()},
                "timeoutSeconds": TIMEOUT_SECONDS,
                // With Ignore, templates would be without a proxy while nobody answers, and all machines be replaced.
                "failurePolicy": "Fail",
            })
        })
        .collect()
}

/// The definition of [`VARIABLE`].
fn variable() -> Value {
    let url = |what: &str| {
        json!({
            "type": "string",
            "description": format!("Proxy for {what}, such as http://proxy.corp.example:3128; it goes before that of presets."),
            "pattern": "^https?://[^\\s]+$",
            "maxLength": 2048,
        })
    };
    let list = |description: &str, length: u32, items: u32| {
        json!({
            "type": "array",
            "description": description,
            "maxItems": items,
            "items": {"type": "string", "pattern": "^[^\\s,]+$", "maxLength": length},
        })
    };
    json!({
        "name": VARIABLE,
        "required": false,
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": "The proxy of hosts: of the container runtime and, where asked for, of the operating system.",
            "properties": {
                "httpProxy": url("plain HTTP"),
                "httpsProxy": url("HTTPS [default: that of presets, else httpProxy]"),
                "noProxy": list(
                    "What hosts reach directly, besides what presets and the cluster itself say.", 253, 1000,
                ),
                "presets": list(
                    "Names of ClusterPodPresets that hosts get [default: all that select every pod of every namespace]. \
                     An empty list: none.",
                    253,
                    100,
                ),
            },
        }},
    })
}

impl<'a> Topology<'a> {
    fn read(request: &'a Request, presets: &'a [Arc<Preset>]) -> Result<Self, Vec<String>> {
        let settings = Settings::read(&request.settings)?;
        let builtin: Builtin = find(&request.variables, "builtin").map_err(one)?.unwrap_or_default();
        let proxy = find(&request.variables, VARIABLE).map_err(one)?;
        let manifests = manifests(&request.items, &builtin.cluster);
        let all = |findings: Vec<Finding>| findings.iter().map(shown).collect::<Vec<_>>();
        let groups = groups(&manifests, &settings.facts).map_err(all)?;
        let group = groups.into_iter().find(|group| group.cluster.is_some());
        let group = group.ok_or_else(|| one("the request is about no cluster"))?;
        Ok(Self { request, settings, presets, manifests, group, proxy })
    }

    /// What hosts get of a template with this variable of its own.
    fn values(&self, proxy: &Given) -> Result<Vec<Setting>, Vec<String>> {
        let presets = match &proxy.presets {
            Some(names) if names.is_empty() => Vec::new(),
            names => {
                let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
                values::select(self.presets, &names).map_err(|errors| strings(&errors))?
            }
        };
        let entries: Vec<&str> = self.group.entries.iter().map(|entry| entry.text.as_str()).collect();
        let lists =
            [entries.join(","), proxy.no_proxy.join(",")].map(|list| List::parse(&list, Author::Host));
        // `noProxyFrom` of presets is about the cluster in which the presets are.
        let given = Surroundings {
            cluster: &ClusterLists::default(),
            no_proxy: &lists,
            secrets: &Secrets::default(),
            namespace: "",
        };
        let made = values::values(&presets, &given).map_err(|errors| strings(&errors))?;
        let mut settings = made.settings;
        let has_https = settings.iter().any(|setting| setting.proxy == ProxyVariable::Https);
        let https = match proxy.https_proxy.as_str() {
            "" if !has_https => &proxy.http_proxy,
            url => url,
        };
        for (field, proxy, url) in [
            ("httpProxy", ProxyVariable::Http, &*proxy.http_proxy),
            ("httpsProxy", ProxyVariable::Https, https),
        ] {
            if url.is_empty() {
                continue;
            }
            if !values::is_url(url) {
                return Err(one(format!(
                    "variable {VARIABLE}, {field}: expected a URL with a scheme, as in http://proxy.corp.example:3128"
                )));
            }
            settings.retain(|setting| setting.proxy != proxy);
            settings.push(Setting { proxy, value: url.to_owned(), secret: false });
        }
        let is_list = |setting: &Setting| setting.proxy == ProxyVariable::No;
        if !settings.is_empty() && !settings.iter().any(is_list) {
            let value = unite(lists.iter());
            settings.push(Setting { proxy: ProxyVariable::No, value, secret: false });
        }
        settings.sort_by_key(|setting| values::FAMILIES.iter().position(|proxy| *proxy == setting.proxy));
        Ok(settings)
    }

    /// The items of the response: a patch for each template with a `KubeadmConfigSpec`.
    fn patches(&self) -> Result<Vec<Value>, Vec<String>> {
        let mut patches = Vec::new();
        for (item, operations) in self.operations()? {
            if operations.is_empty() {
                continue;
            }
            let patch = serde_json::to_vec(&operations).map_err(one)?;
            patches.push(json!({
                "uid": item.uid,
                "patchType": "JSONPatch",
                "patch": base64_simd::STANDARD.encode_to_string(patch),
            }));
        }
        Ok(patches)
    }

    /// What has to change in each template.
    fn operations(&self) -> Result<Vec<(&'a Item, Vec<Operation>)>, Vec<String>> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for item in &self.request.items {
            match self.operations_of(item) {
                Ok(operations) => found.push((item, operations)),
                Err(own) => errors.extend(own),
            }
        }
        errors.sort();
        errors.dedup();
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    fn operations_of(&self, item: &Item) -> Result<Vec<Operation>, Vec<String>> {
        let object = Object::new(source(), item.object.clone());
        let field = object.patchable().map_err(|error| one(format!("{object}: apiVersion: {error}")))?;
        let Some(field) = field else { return Ok(Vec::new()) };
        let own = find(&item.variables, VARIABLE).map_err(one)?;
        let settings = self.values(&own.or_else(|| self.proxy.clone()).unwrap_or_default())?;
        let options = &self.settings.options;
        let node = Node::new(&settings, options).map_err(|errors| strings(&errors))?;
        let (node, extra_envs) = match object.is_control_plane() {
            true if options.static_pods == StaticPods::Explicit => (node, &settings[..]),
            true => (node, &[][..]),
            false => (node.for_worker(), &[][..]),
        };
        let wanted = Wanted { node: &node, secret: None, variables: &[], extra_envs };
        patch::patch(&item.object, field, &wanted).map_err(|errors| {
            let errors = errors.into_iter().map(PatchError::without_secret);
            errors.map(|error| format!("{object}: {error}")).collect()
        })
    }

    /// Whether what was added is still there: a later patch of the class may have replaced the list that it was added to. What
    /// is in it is not compared, because the variables in this request are those of the last patch; and where this may be why
    /// [`VARIABLE`] is not among them, only a command without its files is proof.
    fn validate(&self) -> Result<Vec<String>, Vec<String>> {
        let mut errors = Vec::new();
        for (item, operations) in self.operations()? {
            let is_missing = |operation: &&Operation| match operation {
                Operation::Add { value, .. } => {
                    let mut paths = std::iter::once(value).chain(value.as_array().into_iter().flatten());
                    paths.any(|file| file["path"].as_str().is_some_and(is_path_of_reach))
                }
                Operation::Replace { .. } | Operation::Remove { .. } => false,
            };
            let object = Object::new(source(), item.object.clone());
            let is_meant = self.proxy.is_some() || has_command(&object);
            if let Some(operation) = operations.iter().find(is_missing).filter(|_| is_meant) {
                let list = operation.path().trim_matches(['/', '-']).replace('/', ".");
                errors.push(format!(
                    "{object}: {list}: the files of reach are gone: a patch behind that of reach replaces the list: move \
                     the patch of reach to the end of spec.patches of the ClusterClass"
                ));
            }
        }
        errors.sort();
        if !errors.is_empty() {
            return Err(errors);
        }
        let settings = self.values(&self.proxy.clone().unwrap_or_default())?;
        let static_pods = self.settings.options.static_pods;
        let found = cluster_api::check(&self.manifests, &self.group, &settings, static_pods);
        Ok(found.iter().map(shown).collect())
    }
}

/// Whether the command of reach is in a template.
fn has_command(object: &Object) -> bool {
    let field = object.configuration().unwrap_or_default();
    let spec = field.split('.').fold(&object.value, |value, name| &value[name]);
    spec["preKubeadmCommands"]
        .as_array()
        .is_some_and(|commands| commands.iter().any(|command| command == APPLY))
}

/// The cluster of a request as manifests: what [`groups`] reads of one with a class.
fn manifests(items: &[Item], builtin: &BuiltinCluster) -> Manifests {
    const CLASS: &str = "class";
    let mut cluster = json!({
        "apiVersion": format!("{CORE}/v1beta2"),
        "kind": "Cluster",
        "metadata": builtin.metadata,
        "spec": {"clusterNetwork": {}, "topology": {"classRef": {"name": CLASS}, "version": builtin.topology.version}},
    });
    if !cluster["metadata"].is_object() {
        cluster["metadata"] = json!({});
    }
    cluster["metadata"]["name"] = builtin.name.as_str().into();
    cluster["metadata"]["namespace"] = builtin.namespace.as_str().into();
    let network = &mut cluster["spec"]["clusterNetwork"];
    if let Some(domain) = &builtin.network.service_domain {
        network["serviceDomain"] = domain.as_str().into();
    }
    for (field, blocks) in [("services", &builtin.network.services), ("pods", &builtin.network.pods)] {
        if let Some(blocks) = blocks {
            network[field] = json!({"cidrBlocks": blocks});
        }
    }

    // Machine deployments come in any order, and several may have one template.
    let mut items: Vec<&Item> = items.iter().collect();
    items.sort_by(|a, b| a.holder_reference.cmp(&b.holder_reference));
    let mut class = json!({
        "apiVersion": format!("{CORE}/v1beta2"),
        "kind": "ClusterClass",
        "metadata": {"name": CLASS, "namespace": builtin.namespace},
        "spec": {},
    });
    let mut objects = Vec::new();
    let mut workers = Vec::new();
    for item in items {
        let Holder { kind, name, field_path } = &item.holder_reference;
        let mut object = item.object.clone();
        if !object["metadata"].is_object() {
            continue;
        }
        let own = object["metadata"]["name"].as_str().unwrap_or_default();
        let name = format!("{own} for {field_path} of {kind}/{name}");
        object["metadata"]["name"] = name.as_str().into();
        object["metadata"]["namespace"] = builtin.namespace.as_str().into();
        let reference = json!({"templateRef": {
            "apiVersion": object["apiVersion"],
            "kind": object["kind"],
            "name": name,
        }});
        let spec = &mut class["spec"];
        match (kind.as_str(), field_path.as_str()) {
            ("Cluster", "spec.infrastructureRef") => spec["infrastructure"] = reference,
            ("Cluster", _) => spec["controlPlane"]["templateRef"] = reference["templateRef"].clone(),
            ("MachineDeployment" | "MachinePool", "spec.template.spec.bootstrap.configRef") => {
                workers.push(json!({"class": name, "bootstrap": reference}));
            }
            ("MachineDeployment" | "MachinePool", _) => {
                workers.push(json!({"class": name, "infrastructure": reference}));
            }
            _ => spec["controlPlane"]["machineInfrastructure"] = reference,
        }
        objects.push(Object::new(source(), object));
    }
    class["spec"]["workers"] = json!({"machineDeployments": workers});
    objects.splice(0..0, [cluster, class].map(|object| Object::new(source(), object)));
    Manifests::new(objects)
}

/// Nothing stands in a file.
fn source() -> Source {
    Source { file: String::new(), document: 0 }
}

/// A finding without a file.
fn shown(finding: &Finding) -> String {
    let field = if finding.field.is_empty() { "" } else { ", " };
    format!("{}{field}{}: {} [{}]", finding.object, finding.field, finding.message, finding.rule)
}

fn one(error: impl Display) -> Vec<String> {
    vec![error.to_string()]
}

fn strings<E: Display>(errors: &[E]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The variable of a name.
fn find<T: DeserializeOwned>(variables: &[Variable], name: &str) -> Result<Option<T>, String> {
    let Some(variable) = variables.iter().find(|variable| variable.name == name) else { return Ok(None) };
    let value = serde_path_to_error::deserialize(&variable.value);
    value.map(Some).map_err(|error| format!("variable {name}, {}: {}", error.path(), expected(error.inner())))
}

fn read_bytes<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| format!("{}: {}", error.path(), expected(error.inner())))?;
    reader.end().map_err(|_| "expected the end of the document".to_owned())?;
    Ok(value)
}

/// What an error says was expected. It leaves out what is there, which may be a secret.
fn expected(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.split_once("expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None if message.starts_with("missing field") => message,
        None => "it cannot be read".to_owned(),
    }
}

// === impl Hook ===

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 4] =
        [Self::Discovery, Self::DiscoverVariables, Self::GeneratePatches, Self::ValidateTopology];

    /// The hook at a path: that of the API, the hook in lower case, and behind it the handler, but for the one that tells of
    /// handlers (`GVHToPath` of Cluster API).
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let rest = path.strip_prefix('/')?.strip_prefix(API_VERSION)?.strip_prefix('/')?;
        Self::ALL.into_iter().find(|hook| {
            let own = hook.name().to_ascii_lowercase();
            match rest.strip_prefix(&*own) {
                Some("") => *hook == Self::Discovery,
                Some(handler) => handler.strip_prefix('/') == Some(hook.handler()),
                None => false,
            }
        })
    }

    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovery => "Discovery",
            Self::DiscoverVariables => "DiscoverVariables",
            Self::GeneratePatches => "GeneratePatches",
            Self::ValidateTopology => "ValidateTopology",
        }
    }

    /// The name by which a class refers to it, in front of that of the `ExtensionConfig`.
    #[must_use]
    pub fn handler(self) -> &'static str {
        match self {
            Self::Discovery => "",
            Self::DiscoverVariables => "discover-variables",
            Self::GeneratePatches => "generate-patches",
            Self::ValidateTopology => "validate-topology",
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Names and values are those of the options of `reach host patch`; certificates stand there themselves, as no file is there.
    fn read(settings: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut read = Self { options: Options::default(), facts: cluster_api::Options::default() };
        let mut errors = Vec::new();
        for (name, text) in settings {
            let set =
                match name.as_str() {
                    "unit" => list(text, value_of).map(|units| read.options.units = units),
                    "os" => list(text, value_of).map(|system| read.options.system = system),
                    "static-pods" => value_of(text).map(|pods| read.options.static_pods = pods),
                    "node-ranges" => value_of(text).map(|mode| read.facts.node_ranges = mode),
                    "without" => list(text, value_of).map(|without| read.facts.without = without),
                    "ca-certificates" => Certificate::read("ca", text)
                        .map(|certificates| read.options.certificates = certificates)
                        .ok_or_else(|| "expected certificates in PEM and nothing else".to_owned()),
                    _ => Err("expected one of unit, os, static-pods, ca-certificates, node-ranges, without"
                        .to_owned()),
                };
            errors.extend(set.err().map(|error| format!("settings, {name}: {error}")));
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }
}

fn list<T>(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

fn value_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests;
