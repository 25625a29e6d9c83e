//! The API of reach: `ClusterPodPreset` and `PodPreset`, group `reach.dev/v1alpha1`.
//!
//! The types here are the one source of the CRDs (`reach crds`), and the CRDs are the one place where
//! a rule about a preset stands: the API server enforces their schema and CEL rules, and [`validate`]
//! applies the very same schema to presets that come from files.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

mod cel;
pub mod rules;
pub mod schema;
pub mod validate;

/// The API group of the presets.
pub const GROUP: &str = "reach.dev";
/// The API version of the presets.
pub const VERSION: &str = "v1alpha1";

/// Label on a namespace or a pod: `disabled` switches injection off for it.
pub const INJECTION_LABEL: &str = "reach.dev/injection";

/// Most variables in one preset.
pub const MAX_ENV: u64 = 64;
/// Longest name of a variable, in characters.
pub const MAX_NAME: u64 = 256;
/// Longest value of a variable, in characters. Times [`MAX_ENV`] it stays under what etcd stores in one object.
pub const MAX_VALUE: u64 = 16_384;
/// Most entries of `envFrom`, `volumes`, `volumeMounts` and of lists inside a selector.
pub const MAX_ITEMS: u64 = 32;
/// Most patterns in `excludeContainers`.
pub const MAX_EXCLUDES: u64 = 64;
/// Longest DNS label, in characters (RFC 1123).
pub const MAX_LABEL: u64 = 63;
/// Longest path, in characters (`PATH_MAX` of Linux).
pub const MAX_PATH: u64 = 4096;
/// Largest mode of a file. JSON has no octal numbers.
pub const MAX_MODE: u32 = 0o777;
/// Longest key of a label: a prefix of 253, a slash, a name of 63 (Kubernetes label syntax).
pub const MAX_LABEL_KEY: u64 = 317;

/// How the value of a variable meets the value of the less specific level.
///
/// The levels are cluster, namespace, pod; the pod's own value is the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MergeStrategy {
    /// Unite the value with the less specific level's.
    Merge,
    /// Take the place of the less specific level's value.
    Replace,
}

/// The spellings in which proxy variables are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LetterCase {
    /// Lower and upper case: clients disagree on which one they read.
    #[default]
    Both,
    /// Only as written in the preset.
    AsWritten,
}

/// How `no_proxy` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoProxyForm {
    /// So that it means the same to every client that reads it.
    #[default]
    Portable,
    /// Entries as in the preset, in their order.
    AsWritten,
}

/// Where entries of `no_proxy` come from beside what a preset says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NoProxySource {
    /// The names of the Services of the pod's namespace.
    Services,
    /// `service.namespace` of the Services of every namespace.
    AllServices,
    /// The networks of Services and pods, and the address of the API server's Service.
    ClusterNetwork,
    /// The addresses of the nodes.
    Nodes,
}

impl NoProxySource {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Services, Self::AllServices, Self::ClusterNetwork, Self::Nodes];

    /// Whether it has as many entries as others make: all but the networks, of which there are few.
    #[must_use]
    pub fn is_names(self) -> bool {
        self != Self::ClusterNetwork
    }
}

/// A runtime that ignores proxy variables, and for which its own settings are derived from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Runtime {
    /// `JAVA_TOOL_OPTIONS` with the system properties `http.proxyHost` and so on.
    Java,
    /// `NODE_USE_ENV_PROXY=1`, which makes Node.js 24 and later read the variables.
    Node,
}

/// A variable of a preset: a core/v1 `EnvVar` with the metadata of its merge.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::variable()))]
pub struct PresetVariable {
    /// Name of the variable. `http_proxy`, `https_proxy`, `ftp_proxy`, `all_proxy` and `no_proxy` stand
    /// for both spellings, in any letter case; every other name is exact.
    #[schemars(length(min = 1, max = MAX_NAME), extend("x-kubernetes-validations" = rules::variable_name()))]
    pub name: String,
    /// The value. `$(OTHER)` refers to a variable defined earlier, as in a container. Empty when
    /// neither `value` nor `valueFrom` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_VALUE))]
    pub value: Option<String>,
    /// Where the value comes from, as in a container. Put credentials into a Secret and refer to it
    /// here: values written in a preset can be read by everyone who may create a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value_from")]
    pub value_from: Option<Value>,
    /// `Merge` unites the value with that of the less specific level (cluster, then namespace, then
    /// the pod's own); `Replace` takes its place. Default: what a less specific level says for this
    /// variable, else `Merge` for `no_proxy` and `Replace` for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "enumeration::<MergeStrategy>")]
    pub merge_strategy: Option<MergeStrategy>,
    /// What stands between merged values: `,` by default; a space for `JAVA_TOOL_OPTIONS`, a colon for
    /// `PATH`. `no_proxy` is always joined with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub separator: Option<String>,
}

/// What a preset selects and adds, common to both kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PresetSpec {
    /// Pods by label. Absent or `{}` selects every pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub selector: Option<LabelSelector>,
    /// Order among presets of the same level: higher goes first; ties are broken by name.
    #[schemars(schema_with = "priority")]
    pub priority: i32,
    /// Spellings in which proxy variables are written: `Both` (lower and upper case) or `AsWritten`.
    #[schemars(schema_with = "enumeration_with_default::<LetterCase>")]
    pub letter_case: LetterCase,
    /// How `no_proxy` is written: `Portable` (so that it means the same to every client) or `AsWritten`.
    /// Default: what a less specific level says, else `Portable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "enumeration::<NoProxyForm>")]
    pub no_proxy_form: Option<NoProxyForm>,
    /// Entries of `no_proxy` from the cluster itself: `Services` (those of the pod's namespace, by name),
    /// `AllServices` (those of every namespace, as `service.namespace`), `ClusterNetwork` (the networks of
    /// Services and pods, and the API server's address in them), `Nodes` (the addresses of nodes).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "set_of::<NoProxySource>")]
    pub no_proxy_from: Vec<NoProxySource>,
    /// Runtimes that ignore proxy variables, and for which their own settings are derived from them: `Java`
    /// (`JAVA_TOOL_OPTIONS`), `Node` (`NODE_USE_ENV_PROXY`). Containers that set those themselves keep what
    /// they say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "set_of::<Runtime>")]
    pub derive: Vec<Runtime>,
    /// Containers that get nothing from this preset: exact names, or a prefix and one trailing `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_EXCLUDES), inner(length(min = 1, max = 64)), extend("x-kubernetes-validations" = rules::exclude_containers()))]
    pub exclude_containers: Vec<String>,
    /// Variables for every container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ENV), extend("x-kubernetes-validations" = rules::env()))]
    pub env: Vec<PresetVariable>,
    /// Sources of variables for every container, as `envFrom` of a container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env_from")]
    pub env_from: Vec<Value>,
    /// Volumes for the pod, as `volumes` of a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volumes")]
    pub volumes: Vec<Value>,
    /// Mounts for every container, as `volumeMounts` of a container. Each names a volume of this preset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<Value>,
}

/// What reach has to say of a preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PresetStatus {
    /// `metadata.generation` of what the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Usable`: whether reach can use it. `Clean`: whether `reach lint` finds no error and no warning in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What is the same in every namespace it selects: environment variables (proxy settings above all),
/// `envFrom`, volumes and mounts that are added to pods as they are created.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "reach.dev",
    version = "v1alpha1",
    kind = "ClusterPodPreset",
    shortname = "cpp",
    category = "reach",
    status = "PresetStatus",
    doc = "ClusterPodPreset holds what pods of every namespace it selects get as they are created: proxy variables and any other env, envFrom, volumes and mounts. PodPresets of a namespace add to it or change their own part.",
    printcolumn = r#"{"name":"Namespaces","type":"string","description":"Labels of the namespaces it selects; empty for all","jsonPath":".spec.namespaceSelector.matchLabels"}"#,
    printcolumn = r#"{"name":"Selector","type":"string","description":"Labels of the pods it selects; empty for all","jsonPath":".spec.selector.matchLabels"}"#,
    printcolumn = r#"{"name":"http_proxy","type":"string","description":"Value of the variable http_proxy","jsonPath":".spec.env[?(@.name==\"http_proxy\")].value"}"#,
    printcolumn = r#"{"name":"no_proxy","type":"string","description":"Value of the variable no_proxy","jsonPath":".spec.env[?(@.name==\"no_proxy\")].value"}"#,
    printcolumn = r#"{"name":"Variables","type":"string","description":"Every variable, as written","jsonPath":".spec.env","priority":1}"#,
    printcolumn = r#"{"name":"Priority","type":"integer","description":"Higher goes first","jsonPath":".spec.priority"}"#,
    printcolumn = r#"{"name":"Clean","type":"string","description":"Whether reach lint finds no error and no warning in it; status.conditions says what","jsonPath":".status.conditions[?(@.type==\"Clean\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::preset(false)))]
pub struct ClusterPodPresetSpec {
    /// Namespaces by label. Absent or `{}` selects every namespace that the webhook sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// What it selects in those namespaces and adds.
    #[serde(flatten)]
    pub preset: PresetSpec,
}

/// What pods of one namespace get in addition to, or instead of, the cluster's presets.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "reach.dev",
    version = "v1alpha1",
    kind = "PodPreset",
    namespaced,
    shortname = "pp",
    category = "reach",
    status = "PresetStatus",
    doc = "PodPreset adds to what ClusterPodPresets give to the pods of its namespace, or changes it: mergeStrategy on each variable says whether its value is merged with the cluster's or replaces it.",
    printcolumn = r#"{"name":"Selector","type":"string","description":"Labels of the pods it selects; empty for all","jsonPath":".spec.selector.matchLabels"}"#,
    printcolumn = r#"{"name":"http_proxy","type":"string","description":"Value of the variable http_proxy","jsonPath":".spec.env[?(@.name==\"http_proxy\")].value"}"#,
    printcolumn = r#"{"name":"no_proxy","type":"string","description":"Value of the variable no_proxy","jsonPath":".spec.env[?(@.name==\"no_proxy\")].value"}"#,
    printcolumn = r#"{"name":"Variables","type":"string","description":"Every variable, as written","jsonPath":".spec.env","priority":1}"#,
    printcolumn = r#"{"name":"Priority","type":"integer","description":"Higher goes first","jsonPath":".spec.priority"}"#,
    printcolumn = r#"{"name":"Clean","type":"string","description":"Whether reach lint finds no error and no warning in it; status.conditions says what","jsonPath":".status.conditions[?(@.type==\"Clean\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::preset(true)))]
pub struct PodPresetSpec {
    /// What it selects and adds.
    #[serde(flatten)]
    pub preset: PresetSpec,
}

// === schemas of core/v1 types, with the bounds that CEL needs to be affordable ===

fn selector(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = LabelSelector::json_schema(generator);
    let labels = schema::at(&mut schema, &["properties", "matchLabels"]);
    labels.insert("maxProperties".into(), MAX_ITEMS.into());
    let value = schema::child(labels, &["additionalProperties"]);
    value.insert("maxLength".into(), MAX_LABEL.into());
    let expressions = schema::at(&mut schema, &["properties", "matchExpressions"]);
    expressions.insert("maxItems".into(), MAX_ITEMS.into());
    let expression = schema::child(expressions, &["items"]);
    expression.insert(rules::KEY.into(), rules::match_expression());
    schema::child(expression, &["properties", "key"]).insert("maxLength".into(), MAX_LABEL_KEY.into());
    schema::child(expression, &["properties", "operator"])
        .insert("enum".into(), json!(["In", "NotIn", "Exists", "DoesNotExist"]));
    let values = schema::child(expression, &["properties", "values"]);
    values.insert("maxItems".into(), MAX_ITEMS.into());
    schema::child(values, &["items"]).insert("maxLength".into(), MAX_LABEL.into());
    schema.insert(rules::KEY.into(), rules::selector());
    schema
}

fn value_from(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = core::EnvVarSource::json_schema(generator);
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        let fields = schema::at(&mut schema, &["properties", reference]);
        fields.insert("required".into(), json!(["name", "key"]));
        for field in ["name", "key"] {
            let field = schema::child(fields, &["properties", field]);
            field.insert("minLength".into(), 1.into());
            field.insert("maxLength".into(), 253.into());
        }
    }
    let path = schema::at(&mut schema, &["properties", "fieldRef", "properties", "fieldPath"]);
    path.insert("minLength".into(), 1.into());
    path.insert("maxLength".into(), 512.into());
    path.insert(rules::KEY.into(), rules::field_path());
    schema.insert(rules::KEY.into(), rules::value_from(&schema::properties(&schema)));
    schema
}

fn env_from(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<core::EnvFromSource>::json_schema(generator);
    schema.insert("maxItems".into(), MAX_ITEMS.into());
    let item = schema::at(&mut schema, &["items"]);
    schema::child(item, &["properties", "prefix"]).insert("maxLength".into(), MAX_NAME.into());
    for reference in ["configMapRef", "secretRef"] {
        let fields = schema::child(item, &["properties", reference]);
        fields.insert("required".into(), json!(["name"]));
        let name = schema::child(fields, &["properties", "name"]);
        name.insert("minLength".into(), 1.into());
        name.insert("maxLength".into(), 253.into());
    }
    item.insert(rules::KEY.into(), rules::env_from());
    schema
}

fn volumes(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<core::Volume>::json_schema(generator);
    schema.insert("maxItems".into(), MAX_ITEMS.into());
    schema.insert(rules::KEY.into(), rules::volumes());
    let item = schema::at(&mut schema, &["items"]);
    let sources: Vec<String> =
        schema::child(item, &["properties"]).keys().filter(|name| *name != "name").cloned().collect();
    schema::child(item, &["properties", "name"]).insert("maxLength".into(), MAX_LABEL.into());
    // Kubernetes takes quantities as numbers too (`sizeLimit: 1048576`).
    let size = schema::child(item, &["properties", "emptyDir", "properties", "sizeLimit"]);
    size.remove("type");
    size.insert("x-kubernetes-int-or-string".into(), true.into());
    modes(item);
    item.insert(rules::KEY.into(), rules::volume(&sources));
    schema
}

/// Bounds of file modes, wherever a volume has them. No CEL: lists of keys have no bound of their own, so that rules on them
/// would cost too much.
fn modes(schema: &mut Map<String, Value>) {
    for (key, value) in schema {
        match value {
            Value::Object(mode)
                if matches!(key.as_str(), "defaultMode" | "mode") && mode["type"] == "integer" =>
            {
                mode.insert("minimum".into(), 0.into());
                mode.insert("maximum".into(), MAX_MODE.into());
            }
            Value::Object(members) => modes(members),
            _ => {}
        }
    }
}

fn volume_mounts(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<core::VolumeMount>::json_schema(generator);
    schema.insert("maxItems".into(), MAX_ITEMS.into());
    schema.insert(rules::KEY.into(), rules::volume_mounts());
    let item = schema::at(&mut schema, &["items"]);
    schema::child(item, &["properties", "name"]).insert("maxLength".into(), MAX_LABEL.into());
    for path in ["mountPath", "subPath", "subPathExpr"] {
        schema::child(item, &["properties", path]).insert("maxLength".into(), MAX_PATH.into());
    }
    schema::child(item, &["properties", "mountPath"]).insert("minLength".into(), 1.into());
    schema::child(item, &["properties", "mountPropagation"])
        .insert("enum".into(), json!(["None", "HostToContainer", "Bidirectional"]));
    schema::child(item, &["properties", "recursiveReadOnly"])
        .insert("enum".into(), json!(["Disabled", "IfPossible", "Enabled"]));
    item.insert(rules::KEY.into(), rules::volume_mount());
    schema
}

fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<Condition>::json_schema(generator);
    schema.insert("maxItems".into(), MAX_ITEMS.into());
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
    schema
}

/// A list in which each value of an enumeration stands once.
fn set_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let item = enumeration::<T>(generator).to_value();
    let values = item["enum"].as_array().map_or(0, Vec::len);
    schemars::json_schema!({"type": "array", "items": item, "maxItems": values, "x-kubernetes-list-type": "set"})
}

fn priority(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "default": 0})
}

/// An enumeration as a plain `enum` of strings: the `oneOf` of documented variants is not structural.
fn enumeration<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let schema = T::json_schema(generator).to_value();
    let variants: Vec<&Value> = schema["oneOf"]
        .as_array()
        .map(|variants| variants.iter().map(|variant| &variant["const"]).collect())
        .unwrap_or_default();
    schemars::json_schema!({"type": "string", "enum": variants})
}

fn enumeration_with_default<T: JsonSchema + Default + Serialize>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = enumeration::<T>(generator);
    schema.insert("default".into(), json!(T::default()));
    schema
}

/// The CRDs as `make crds` writes them, one in a line, in the order of [`PresetKind`]: to make them from the types takes as much
/// of a start as all the rest.
const CRDS: &str = include_str!("api/crds.jsonl");

/// The CRD of a kind.
///
/// # Panics
/// Never: a test compares what is compiled in with the types.
#[must_use]
pub fn crd(kind: PresetKind) -> Value {
    let line = CRDS.lines().nth(kind as usize).expect("a line for each kind");
    serde_json::from_str(line).expect("a CRD")
}

/// The kind of preset an object claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresetKind {
    /// `ClusterPodPreset`, cluster-scoped.
    Cluster,
    /// `PodPreset`, namespaced.
    Namespaced,
}

impl PresetKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cluster, Self::Namespaced];

    /// The `kind` of the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterPodPreset",
            Self::Namespaced => "PodPreset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CRD from its types.
    fn generate<K: kube::CustomResourceExt>() -> Value {
        let mut crd = serde_json::to_value(K::crd()).unwrap();
        crd["metadata"]["labels"] = json!({"app.kubernetes.io/name": "reach"});
        // A reader of the CRD does not need the title.
        let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].as_object_mut().unwrap();
        schema.remove("title");
        as_whole_numbers(&mut crd);
        crd
    }

    /// Bounds of numbers as they were given: the type that they pass through has fractions.
    fn as_whole_numbers(value: &mut Value) {
        match value {
            Value::Object(members) => members.values_mut().for_each(as_whole_numbers),
            Value::Array(items) => items.iter_mut().for_each(as_whole_numbers),
            Value::Number(number) => {
                if let Some(whole) =
                    number.to_string().strip_suffix(".0").and_then(|text| text.parse::<i64>().ok())
                {
                    *value = whole.into();
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_crds_that_are_compiled_in_are_those_of_the_types() {
        let made = [generate::<ClusterPodPreset>(), generate::<PodPreset>()];
        if std::env::var_os("REACH_UPDATE").is_some_and(|value| value == "1") {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/crds.jsonl");
            std::fs::write(file, made.map(|crd| format!("{crd}\n")).concat()).unwrap();
            return;
        }
        assert!(PresetKind::ALL.map(crd) == made, "src/api/crds.jsonl is old: run `make crds`");
        for (kind, crd) in PresetKind::ALL.iter().zip(made) {
            assert_eq!(crd["spec"]["names"]["kind"], kind.as_str());
        }
    }
}
