//! What hosts get: the proxy variables of `ClusterPodPreset`s, merged by the code that merges them for pods.
//!
//! A host differs from a pod in three things. It is in no namespace, so it gets presets for everything or those that
//! are named, and no names of Services of one namespace. No kubelet replaces `$(NAME)` or reads a Secret for it, so that is
//! done here, with the Secrets that are given. And it may have IPv6 networks in `no_proxy` ([`Author::Host`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::clients::proxy::Written;
use crate::expansion::{expand, references};
use crate::inject::merge::{self, Part, Resolved, Value, VariableConflict};
use crate::inject::preset::{Preset, PresetLevel, ProxyVariable, Variable, VariableValue};
use crate::inject::snapshot::{ClusterLists, Derived};
use crate::no_proxy::Union;
use crate::no_proxy::portable::{self, Author, List};

/// The variables that hosts get, in the order in which they are written: proxies, then what goes past them.
pub const FAMILIES: [ProxyVariable; 5] =
    [ProxyVariable::Http, ProxyVariable::Https, ProxyVariable::Ftp, ProxyVariable::All, ProxyVariable::No];

/// A proxy variable and its value, which is never empty: reqwest takes an empty `HTTP_PROXY` for one that is set and
/// looks no further, so a variable without a value is left out.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable, in both spellings: a host's files are for every client, whatever `letterCase` says for pods.
    pub proxy: ProxyVariable,
    /// The value; it may hold a password.
    pub value: String,
    /// Whether it came from a Secret, or a part of it.
    pub secret: bool,
}

/// Secrets that are among the inputs.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, Vec<Secret>>);

/// A Secret of some namespace.
struct Secret {
    namespace: String,
    data: BTreeMap<String, String>,
}

/// What values are made of besides presets.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// What `noProxyFrom` asks for, as far as it is the same in every namespace.
    pub cluster: &'a ClusterLists,
    /// What else is in `no_proxy`, such as what Cluster API knows of a cluster.
    pub no_proxy: &'a [List],
    /// What `valueFrom.secretKeyRef` refers to.
    pub secrets: &'a Secrets,
    /// The namespace of these Secrets, which counts where two have one name.
    pub namespace: &'a str,
}

/// What hosts get.
#[derive(Debug, Default)]
pub struct Values {
    /// The variables, in the order of [`FAMILIES`].
    pub settings: Vec<Setting>,
    /// Entries of `no_proxy` that are left out, each with the preset that has it.
    pub left_out: Vec<LeftOut>,
    /// Items of proxy variables that are not followed.
    pub conflicts: Vec<VariableConflict>,
}

/// An entry of `no_proxy` that makes a client fail for every URL, on hosts too.
#[derive(Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The preset, as `kind/name`.
    pub preset: String,
    /// The entry as written; it may hold a password.
    pub entry: String,
}

/// Why a preset cannot say what hosts get. Messages show no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No such preset.
    #[error("there is no ClusterPodPreset {name}: {}", expected(.known))]
    NoPreset {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The value is in a Secret that is not among the inputs.
    #[error(
        "{preset}: {variable} comes from key {key} of Secret {secret}, which is not among the inputs: give its manifest or the cluster that has it, or give hosts a preset in which {variable} has a value"
    )]
    Secret {
        /// The preset, as `kind/name`.
        preset: String,
        /// The variable, as the preset writes it.
        variable: String,
        /// Name of the Secret.
        secret: String,
        /// Key in it.
        key: String,
    },
    /// The value comes from somewhere else that only the kubelet reads.
    #[error(
        "{preset}: {variable} comes from {field}, which a host cannot read: give hosts a preset in which {variable} has a value"
    )]
    Elsewhere {
        /// The preset, as `kind/name`.
        preset: String,
        /// The variable, as the preset writes it.
        variable: String,
        /// The field of `valueFrom`.
        field: String,
    },
    /// Not a URL with a scheme and a host, without which clients differ in what they make of it.
    #[error(
        "{preset}: {variable}: expected a URL with a scheme, of which clients without one make different things: write http:// in front of host and port"
    )]
    Scheme {
        /// The preset, as `kind/name`.
        preset: String,
        /// The variable, as the preset writes it.
        variable: String,
    },
    /// A reference to a variable that the presets do not have.
    #[error(
        "{preset}: {variable} refers to $({name}), which no preset of hosts has: write what it stands for, and a dollar sign in a URL as %24"
    )]
    Reference {
        /// The preset, as `kind/name`.
        preset: String,
        /// The variable, as the preset writes it.
        variable: String,
        /// What it refers to.
        name: String,
    },
}

/// How deep references may refer to variables with references, so that a circle has an end.
const MAX_REFERENCES: usize = 8;

/// The presets that hosts get, in order of use: those `ClusterPodPreset`s that select every pod of every namespace, or
/// those with these names, whatever they select.
///
/// A preset for some namespaces says nothing of a host, on which the pods of all of them run.
pub fn select(presets: &[Arc<Preset>], names: &[&str]) -> Result<Vec<Arc<Preset>>, Vec<ValueError>> {
    let mut cluster: Vec<&Arc<Preset>> =
        presets.iter().filter(|preset| preset.level == PresetLevel::Cluster).collect();
    cluster.sort_by(|a, b| a.order_of_use(b));
    let is_unknown = |name: &&&str| cluster.iter().all(|preset| *preset.name != ***name);
    let known = || cluster.iter().map(|preset| preset.name.to_string()).collect();
    let no_preset = |name: &&str| ValueError::NoPreset { name: (*name).to_owned(), known: known() };
    let unknown: Vec<ValueError> = names.iter().filter(is_unknown).map(no_preset).collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let is_meant = |preset: &&Arc<Preset>| {
        if names.is_empty() { preset.selects_everything() } else { names.contains(&&*preset.name) }
    };
    Ok(cluster.into_iter().filter(is_meant).cloned().collect())
}

/// The Secrets that proxy variables of presets refer to, and what those variables refer to.
#[must_use]
pub fn secrets(presets: &[Arc<Preset>]) -> BTreeSet<String> {
    let variables = || presets.iter().flat_map(|preset| preset.variables());
    let mut wanted: BTreeSet<String> = variables()
        .filter(|variable| ProxyVariable::of(&variable.name).is_some())
        .map(|variable| variable.name.to_string())
        .collect();
    for _ in 0..MAX_REFERENCES {
        for variable in variables().filter(|variable| wanted.contains(&*variable.name)).collect::<Vec<_>>() {
            if let VariableValue::Literal(text) = &variable.value {
                wanted.extend(references(text));
            }
        }
    }
    let of = |variable: &Variable| match &variable.value {
        VariableValue::Source(json) if wanted.contains(&*variable.name) => {
            let from: Json = serde_json::from_str(json).unwrap_or_default();
            from["secretKeyRef"]["name"].as_str().map(str::to_owned)
        }
        _ => None,
    };
    variables().filter_map(of).collect()
}

/// What hosts get of presets, given in order of use.
///
/// Every error is reported, those of variables that hosts do not get are none. Hosts get a `no_proxy` where they get a
/// proxy, also if no preset has one: there is always something that is not for the proxy.
pub fn values(presets: &[Arc<Preset>], given: &Surroundings<'_>) -> Result<Values, Vec<ValueError>> {
    let (variables, conflicts) = merge::resolve(presets, Derived::of_cluster(given.cluster));
    let is_proxy = |conflict: &VariableConflict| ProxyVariable::of(conflict.variable()).is_some();
    let mut values =
        Values { conflicts: conflicts.into_iter().filter(is_proxy).collect(), ..Values::default() };
    let mut errors = Vec::new();
    for proxy in FAMILIES {
        let is_it = |variable: &&Resolved| ProxyVariable::of(&variable.identity().name) == Some(proxy);
        let variable = variables.iter().find(is_it);
        let made = match (proxy, variable) {
            (ProxyVariable::No, None) if values.settings.is_empty() => continue,
            (ProxyVariable::No, _) => no_proxy(variable, given, &mut values.left_out),
            (_, None) => continue,
            (_, Some(variable)) => value(variable, &variables, given, 0),
        };
        match made {
            Ok((value, _)) if value.is_empty() => {}
            Ok((value, _)) if proxy != ProxyVariable::No && !is_url(&value) => {
                errors.extend(variable.and_then(|variable| variable.parts.last()).map(|part| {
                    ValueError::Scheme {
                        preset: part.preset.to_string(),
                        variable: part.variable().name.to_string(),
                    }
                }));
            }
            Ok((value, secret)) => values.settings.push(Setting { proxy, value, secret }),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

/// The value of a variable as a container would see it, and whether a Secret is in it.
fn value(
    variable: &Resolved,
    variables: &[Resolved],
    given: &Surroundings<'_>,
    depth: usize,
) -> Result<(String, bool), ValueError> {
    let Some(part) = variable.parts.last() else { return Ok(Default::default()) };
    if let VariableValue::Source(json) = &part.variable().value {
        return Ok((sourced(part, json, given)?, true));
    }
    let written = variable.value.literal().unwrap_or_default();
    let mut known: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for name in references(written) {
        let is_it = |other: &&Resolved| other.spellings.iter().any(|spelling| **spelling == *name);
        let Some(other) = variables.iter().find(is_it).filter(|_| depth < MAX_REFERENCES) else {
            return Err(reference(part, name));
        };
        let found = value(other, variables, given, depth + 1)?;
        known.insert(name, found);
    }
    let secret = known.values().any(|(_, secret)| *secret);
    Ok((expand(written, |name| known.get(name).map(|(value, _)| value.as_str())), secret))
}

/// Whether it says with which protocol a proxy is spoken to, and where.
pub(super) fn is_url(value: &str) -> bool {
    let Written { scheme, host, .. } = Written::read(value);
    scheme.is_some() && !host.is_empty()
}

fn reference(part: &Part, name: String) -> ValueError {
    ValueError::Reference {
        preset: part.preset.to_string(),
        variable: part.variable().name.to_string(),
        name,
    }
}

/// The list that pods get, with the IPv6 networks that were left out of it, and what else is known.
fn no_proxy(
    variable: Option<&Resolved>,
    given: &Surroundings<'_>,
    left_out: &mut Vec<LeftOut>,
) -> Result<(String, bool), ValueError> {
    let mut lists = given.no_proxy.to_vec();
    let mut secret = false;
    for part in variable.iter().flat_map(|variable| &variable.parts) {
        let text = match &part.variable().value {
            VariableValue::Literal(text) => text.to_string(),
            VariableValue::Source(json) => {
                secret = true;
                sourced(part, json, given)?
            }
            VariableValue::Java => continue,
        };
        if let Some(name) = references(&text).pop_first() {
            return Err(reference(part, name));
        }
        let own = List::parse(&text, Author::Host);
        left_out.extend(
            own.left_out()
                .iter()
                .map(|entry| LeftOut { preset: part.preset.to_string(), entry: entry.to_string() }),
        );
        lists.push(own);
        // What is left out of these is known to be networks: they are made of what a cluster says of itself.
        for of_cluster in
            Derived::of_cluster(given.cluster).lists(part.preset.no_proxy_from().iter().copied())
        {
            lists.push(List::parse(&of_cluster.left_out().join(","), Author::Host));
        }
    }
    let written = match variable.map(|variable| &variable.value) {
        Some(Value::Portable { list, .. }) => {
            lists.push(list.clone());
            None
        }
        // As its author wants it: what is known besides comes behind it.
        Some(value) => value.literal(),
        None => None,
    };
    let Some(written) = written else { return Ok((portable::unite(lists.iter()), secret)) };
    let known: Vec<String> = given.no_proxy.iter().map(List::text).collect();
    let mut union = Union::default();
    union.add(written);
    for list in &known {
        union.add(list);
    }
    Ok((union.join(), secret))
}

/// What a Secret has.
fn sourced(part: &Part, json: &str, given: &Surroundings<'_>) -> Result<String, ValueError> {
    let preset = part.preset.to_string();
    let variable = part.variable().name.to_string();
    let from: Json = serde_json::from_str(json).unwrap_or_default();
    let text = |field: &str| from["secretKeyRef"][field].as_str().unwrap_or_default().to_owned();
    if from["secretKeyRef"].is_object() {
        let (secret, key) = (text("name"), text("key"));
        return match given.secrets.get(given.namespace, &secret, &key) {
            Some(value) => Ok(value.to_owned()),
            None if from["secretKeyRef"]["optional"] == true => Ok(String::new()),
            None => Err(ValueError::Secret { preset, variable, secret, key }),
        };
    }
    let field = from.as_object().and_then(|from| from.keys().next()).map_or("valueFrom", String::as_str);
    Err(ValueError::Elsewhere { preset, variable, field: field.to_owned() })
}

fn expected(names: &[String]) -> String {
    if names.is_empty() {
        "there is none at all".to_owned()
    } else {
        format!("expected one of {}", names.join(", "))
    }
}

// === impl Values ===

impl Values {
    /// What of presets is not followed, for people. Values of proxies are not shown.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let conflicts = self.conflicts.iter().map(ToString::to_string);
        let left_out = self.left_out.iter().map(|LeftOut { preset, entry }| {
            format!("{entry} of {preset} is left out: httpx fails for every URL when it is in the list")
        });
        conflicts.chain(left_out)
    }
}

// === impl Secrets ===

impl Secrets {
    /// Takes in a Secret.
    ///
    /// # Errors
    /// The field that is not what a Secret has there, and what was expected.
    pub fn insert(&mut self, object: &Json) -> Result<(), String> {
        let text = |object: &Json, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let mut data = BTreeMap::new();
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            let decoded = value
                .as_str()
                .and_then(|text| base64_simd::STANDARD.decode_to_vec(text.trim()).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok());
            data.insert(key.clone(), decoded.ok_or_else(|| format!("data.{key}: expected text in base64"))?);
        }
        for (key, value) in object["stringData"].as_object().into_iter().flatten() {
            let value = value.as_str().ok_or_else(|| format!("stringData.{key}: expected a string"))?;
            data.insert(key.clone(), value.to_owned());
        }
        let metadata = &object["metadata"];
        let secret = Secret { namespace: text(metadata, "namespace"), data };
        self.0.entry(text(metadata, "name")).or_default().push(secret);
        Ok(())
    }

    /// The value of a key, without the line break at its end that an editor leaves there. Of Secrets with one name, that
    /// of the namespace counts, else the first.
    fn get(&self, namespace: &str, name: &str, key: &str) -> Option<&str> {
        let secrets = self.0.get(name)?;
        let secret =
            secrets.iter().find(|secret| secret.namespace == namespace).or_else(|| secrets.first())?;
        secret.data.get(key).map(|value| value.trim_end_matches(['\r', '\n']))
    }
}

/// Names only.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

// === impl Setting ===

impl Setting {
    /// The names under which it is written, lower case first. The values are the same: Go and reqwest prefer upper case,
    /// all others lower, and wget reads nothing else.
    #[must_use]
    pub fn names(&self) -> [&'static str; 2] {
        [self.proxy.lower(), self.proxy.upper()]
    }

    /// Whether a user or a password stands in it.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.proxy != ProxyVariable::No && Written::read(&self.value).userinfo.is_some()
    }
}

/// Without the value, which may be a secret.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Without the entry, in which a password may stand.
impl fmt::Debug for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeftOut").field("preset", &self.preset).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PodPreset;
    use crate::inject::snapshot::{NamespaceLabels, Snapshot};

    fn preset(name: &str, spec: &Json) -> Arc<Preset> {
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": name},
            "spec": spec,
        });
        Arc::new(Preset::cluster(&serde_json::from_value(object).unwrap()).unwrap())
    }

    fn env(name: &str, env: &[(&str, &str)]) -> Arc<Preset> {
        let env: Vec<Json> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        preset(name, &json!({"env": env}))
    }

    fn made(presets: &[Arc<Preset>]) -> Result<Values, Vec<ValueError>> {
        with(presets, &[], &[])
    }

    fn with(presets: &[Arc<Preset>], secrets: &[Json], no_proxy: &[List]) -> Result<Values, Vec<ValueError>> {
        let mut known = Secrets::default();
        for secret in secrets {
            known.insert(secret).unwrap();
        }
        let cluster = ClusterLists::default();
        values(presets, &Surroundings { cluster: &cluster, no_proxy, secrets: &known, namespace: "prod" })
    }

    fn pairs(presets: &[Arc<Preset>]) -> Vec<(&'static str, String)> {
        let values = made(presets).unwrap();
        values.settings.into_iter().map(|setting| (setting.proxy.lower(), setting.value)).collect()
    }

    fn names(presets: &[Arc<Preset>]) -> Vec<&str> {
        presets.iter().map(|preset| &*preset.name).collect()
    }

    #[test]
    fn hosts_get_presets_for_everything_or_those_that_are_named() {
        let labels = json!({"matchLabels": {"team": "a"}});
        let namespaced = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "PodPreset",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {},
        });
        let namespaced: PodPreset = serde_json::from_value(namespaced).unwrap();
        let presets = [
            preset("b", &json!({})),
            preset("a", &json!({"namespaceSelector": {}, "selector": {}})),
            preset("some-namespaces", &json!({"namespaceSelector": labels})),
            preset("some-pods", &json!({"selector": labels})),
            preset("first", &json!({"priority": 1})),
            Arc::new(Preset::namespaced(&namespaced).unwrap()),
        ];
        assert_eq!(names(&select(&presets, &[]).unwrap()), ["first", "a", "b"]);
        assert_eq!(names(&select(&presets, &["some-pods", "b"]).unwrap()), ["b", "some-pods"]);
        let errors = select(&presets, &["b", "shop", "c"]).unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["shop", "c"].map(|name| format!(
                "there is no ClusterPodPreset {name}: expected one of first, a, b, some-namespaces, some-pods"
            ))
        );
        let error = select(&[], &["c"]).unwrap_err()[0].to_string();
        assert_eq!(error, "there is no ClusterPodPreset c: there is none at all");
    }

    #[test]
    fn hosts_get_the_proxy_variables_in_one_order_and_no_empty_one() {
        let presets = [
            env("a", &[("no_proxy", ".corp"), ("HTTPS_PROXY", "http://p:1"), ("ftp_proxy", "")]),
            env("b", &[("all_proxy", "socks5h://p:2"), ("http_proxy", "http://p:3"), ("PATH", "/bin")]),
            env("c", &[("no_proxy", "web"), ("http_proxy", "http://other:1")]),
        ];
        let expected = [
            ("http_proxy", "http://p:3"),
            ("https_proxy", "http://p:1"),
            ("all_proxy", "socks5h://p:2"),
            ("no_proxy", ".corp,corp,.web,web,localhost,127.0.0.1"),
        ];
        assert_eq!(pairs(&presets), expected.map(|(name, value)| (name, value.to_owned())));
        let conflicts = made(&presets).unwrap().conflicts;
        assert_eq!(conflicts.iter().map(VariableConflict::variable).collect::<Vec<_>>(), ["http_proxy"]);
        assert!(pairs(&[]).is_empty());
    }

    #[test]
    fn the_list_of_hosts_is_that_of_pods_and_ipv6_networks() {
        let cluster = ClusterLists {
            all_services: List::parse("mysql.shop", Author::Preset),
            cluster_network: List::parse("10.96.0.1,10.96.0.0/12,fd00:96::/112", Author::Preset),
            nodes: List::parse("10.0.0.5", Author::Preset),
        };
        let written = ".svc,2001:DB8::/32,fd00:1::1,b\u{fc}cher.example,10.1.2.3/8";
        let presets = [preset(
            "corporate",
            &json!({
                "noProxyFrom": ["Services", "AllServices", "ClusterNetwork"],
                "env": [{"name": "no_proxy", "value": written}],
            }),
        )];
        let secrets = Secrets::default();
        let nothing = Surroundings { cluster: &cluster, no_proxy: &[], secrets: &secrets, namespace: "" };
        let of_host = values(&presets, &nothing).unwrap();
        let snapshot = Snapshot::from_parts(
            presets.iter().cloned(),
            [("shop".into(), NamespaceLabels::default())],
            false,
        )
        .with_derived(Arc::new(cluster));
        let namespace = snapshot.namespace("shop").unwrap();
        let pod = crate::inject::pod::Pod::from_slice(br#"{"spec":{"containers":[{"name":"c"}]}}"#).unwrap();
        let plan = crate::inject::plan(&namespace, &pod, crate::inject::Target::Pod).unwrap().unwrap();
        let (variable, _) = plan.variables(&plan.containers[0]).next().unwrap();
        let of_pod = variable.value.literal().unwrap();
        let of_host_entries: Vec<&str> = of_host.settings[0].value.split(',').collect();
        let more: Vec<&str> = of_host_entries
            .iter()
            .copied()
            .filter(|entry| !of_pod.split(',').any(|own| own == *entry))
            .collect();
        assert_eq!(more, ["2001:db8::/32", "fd00:96::/112"]);
        let same: Vec<&str> = of_host_entries.into_iter().filter(|entry| !more.contains(entry)).collect();
        assert_eq!(same.join(","), of_pod);
        let left_out = [("ClusterPodPreset/corporate".to_owned(), "b\u{fc}cher.example".to_owned())];
        let told: Vec<_> = of_host.left_out.into_iter().map(|left| (left.preset, left.entry)).collect();
        assert_eq!(told, left_out);
    }

    #[test]
    fn lists_that_are_not_made_portable_stay_as_they_are() {
        let written = json!([{"name": "no_proxy", "value": "B, fd00::1/64"}]);
        let presets = [preset("a", &json!({"noProxyForm": "AsWritten", "env": written}))];
        assert_eq!(pairs(&presets), [("no_proxy", "B,fd00::1/64".to_owned())]);
        assert_eq!(pairs(&[env("a", &[("no_proxy", "*")])]), [("no_proxy", "*".to_owned())]);
    }

    #[test]
    fn what_only_the_kubelet_can_read_is_an_error_without_a_value() {
        let from = |from: &Json| json!({"env": [{"name": "HTTP_PROXY", "valueFrom": from}]});
        let secret = json!({"secretKeyRef": {"name": "proxy", "key": "url"}});
        let config_map = json!({"configMapKeyRef": {"name": "proxy", "key": "url"}});
        let cases = [
            (
                preset("a", &from(&secret)),
                "ClusterPodPreset/a: HTTP_PROXY comes from key url of Secret proxy, which is not among the inputs: give its manifest or the cluster that has it, or give hosts a preset in which HTTP_PROXY has a value",
            ),
            (
                preset("a", &from(&config_map)),
                "ClusterPodPreset/a: HTTP_PROXY comes from configMapKeyRef, which a host cannot read: give hosts a preset in which HTTP_PROXY has a value",
            ),
            (
                env("a", &[("http_proxy", "http://me:$(PASSWORD)@p:1")]),
                "ClusterPodPreset/a: http_proxy refers to $(PASSWORD), which no preset of hosts has: write what it stands for, and a dollar sign in a URL as %24",
            ),
        ];
        for (preset, expected) in cases {
            let errors = made(&[preset]).unwrap_err();
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
        for value in ["proxy.corp.example:3128", "//p:1", "http://", "http://me:s3cret@/"] {
            let error = made(&[env("a", &[("https_proxy", value)])]).unwrap_err()[0].to_string();
            assert!(
                error.starts_with("ClusterPodPreset/a: https_proxy: expected a URL with a scheme"),
                "{error}"
            );
            assert!(!error.contains("s3cret"));
        }
        // What is not followed, and what hosts do not get, needs no value.
        let other =
            json!({"env": [{"name": "TOKEN", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]});
        assert!(pairs(&[preset("a", &other)]).is_empty());
    }

    #[test]
    fn references_and_secrets_are_what_a_container_would_see() {
        let secret = |namespace: &str, password: &str| json!({"kind": "Secret", "metadata": {"name": "proxy", "namespace": namespace}, "stringData": {"password": password}});
        let url = json!({"name": "http_proxy", "value": "http://$(WHO):$(PASSWORD)@p:1/$$"});
        let password =
            json!({"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "password"}}});
        let presets = [preset("a", &json!({"env": [password, {"name": "WHO", "value": "me"}, url]}))];
        let secrets = [secret("other", "no"), secret("prod", "s3cret\n")];
        let made = with(&presets, &secrets, &[]).unwrap();
        assert_eq!(made.settings[0].value, "http://me:s3cret@p:1/$");
        assert!(made.settings[0].secret && !made.settings[1].secret);
        let encoded = json!({"metadata": {"name": "proxy"}, "data": {"password": "czNjcmV0"}});
        assert_eq!(with(&presets, &[encoded], &[]).unwrap().settings[0].value, "http://me:s3cret@p:1/$");
        let wrong = json!({"metadata": {"name": "proxy"}, "data": {"password": "plain!"}});
        let error = Secrets::default().insert(&wrong).unwrap_err();
        assert_eq!(error, "data.password: expected text in base64");
        assert_eq!(super::secrets(&presets), ["proxy".to_owned()].into());
        let token = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "t"}}});
        assert!(super::secrets(&[preset("a", &json!({"env": [token]}))]).is_empty());
        // A circle is no reason to go on for ever.
        let circle = [env("a", &[("http_proxy", "$(A)"), ("A", "$(A)")])];
        assert!(with(&circle, &[], &[]).is_err());
    }

    #[test]
    fn what_is_known_of_a_cluster_is_in_the_list_also_where_no_preset_has_one() {
        let known = [List::parse("10.96.0.1,fd00::/64", Author::Host)];
        let value = |presets: &[Arc<Preset>]| {
            let made = with(presets, &[], &known).unwrap();
            made.settings.last().map(|setting| setting.value.clone())
        };
        let expected = "localhost,10.96.0.1,127.0.0.1,fd00::/64";
        assert_eq!(value(&[env("a", &[("http_proxy", "http://p:1")])]).as_deref(), Some(expected));
        assert_eq!(value(&[env("a", &[("no_proxy", "")])]).as_deref(), Some(expected));
        let as_written = json!({"noProxyForm": "AsWritten", "env": [{"name": "no_proxy", "value": "B"}]});
        assert_eq!(value(&[preset("a", &as_written)]).as_deref(), Some("B,10.96.0.1,fd00::/64"));
        // Also beside a list from a Secret.
        let from =
            json!([{"name": "no_proxy", "valueFrom": {"secretKeyRef": {"name": "list", "key": "no"}}}]);
        let secret = json!({"metadata": {"name": "list"}, "stringData": {"no": "corp.example"}});
        let made = with(&[preset("a", &json!({"env": from}))], &[secret], &known).unwrap();
        let expected = ".corp.example,corp.example,localhost,10.96.0.1,127.0.0.1,fd00::/64";
        assert_eq!((made.settings[0].value.as_str(), made.settings[0].secret), (expected, true));
        // Where nothing goes through a proxy, nothing has to go past it.
        assert_eq!(value(&[env("a", &[("TZ", "UTC")])]), None);
    }

    #[test]
    fn neither_values_nor_entries_are_shown() {
        let presets = [env("a", &[("http_proxy", "http://me:s3cret@p:1"), ("no_proxy", "[me:s3cret@p]:1x")])];
        let values = made(&presets).unwrap();
        assert!(!format!("{values:?}").contains("s3cret"));
    }
}
