//! The schema and CEL rules of the CRDs, applied to an object outside of an API server.
//!
//! The API server does this for presets in a cluster; [`validate`] does the same for presets in files,
//! and for objects that were stored before the schema had a rule. The rules themselves stand in the CRD
//! and nowhere else.

use std::fmt;
use std::sync::LazyLock;

use kube_cel::{CompiledSchema, apply_defaults, compile_schema};
use serde_json::{Map, Value};

use super::{PresetKind, cel};

/// What is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, as in `spec.env[2].name`.
    pub path: String,
    /// What was expected and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// The schema of a kind, with its CEL rules compiled once.
struct Rules {
    schema: Value,
    compiled: CompiledSchema,
}

impl Rules {
    fn new(kind: PresetKind) -> Self {
        let schema = super::crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        let compiled = compile_schema(&schema);
        Self { schema, compiled }
    }
}

static CLUSTER: LazyLock<Rules> = LazyLock::new(|| Rules::new(PresetKind::Cluster));
static NAMESPACED: LazyLock<Rules> = LazyLock::new(|| Rules::new(PresetKind::Namespaced));

/// Everything that the CRD of `kind` has against an object, in the order of its fields; empty when the
/// API server would take it.
///
/// `null` counts as absent, as in the API server.
#[must_use]
pub fn validate(kind: PresetKind, object: &Value) -> Vec<FieldError> {
    let rules = match kind {
        PresetKind::Cluster => &*CLUSTER,
        PresetKind::Namespaced => &*NAMESPACED,
    };
    let mut errors = Vec::new();
    structure(&rules.schema, object, "", &mut errors);
    // CEL rules suppose the types of the schema; on an object that lacks them they only repeat the news.
    if errors.is_empty() {
        cel::check(&rules.compiled, &apply_defaults(&rules.schema, object), &mut errors);
    }
    errors
}

/// The structural part of a schema: types, required and unknown fields, enumerations, bounds.
fn structure(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut fail = |message: String| {
        errors.push(FieldError { path: path.to_owned(), message });
    };
    let expected = schema["type"].as_str();
    let right = match expected {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => schema["x-kubernetes-int-or-string"] != true || value.is_string() || value.is_i64(),
    };
    if !right {
        let hint = if expected == Some("string") && !value.is_object() && !value.is_array() {
            ": put it in quotes"
        } else {
            ""
        };
        fail(format!(
            "expected {}, found {}{hint}",
            name_of_type(expected.unwrap_or("a number or a string")),
            kind_of(value),
        ));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        fail(format!("unsupported value: write one of {}", allowed.join(", ")));
    }
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            bound(schema, "maxLength", length, |most| {
                fail(format!("too long: {length} characters, at most {most}"));
            });
            if schema["minLength"].as_u64().is_some_and(|least| length < least) {
                fail("may not be empty".to_owned());
            }
        }
        Value::Number(number) if schema["format"] == "int32" && !fits_i32(number) => {
            fail(format!("{number} does not fit: write a number from {} to {}", i32::MIN, i32::MAX));
        }
        Value::Number(number) => {
            if let Some(message) = out_of_range(schema, number) {
                fail(message);
            }
        }
        Value::Array(items) => {
            bound(schema, "maxItems", items.len() as u64, |most| {
                fail(format!("too many items: {}, at most {most}", items.len()));
            });
            for (index, item) in items.iter().enumerate() {
                structure(&schema["items"], item, &format!("{path}[{index}]"), errors);
            }
        }
        Value::Object(members) => fields(schema, members, path, errors),
        _ => {}
    }
}

/// The members of an object.
fn fields(schema: &Value, members: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    bound(schema, "maxProperties", members.len() as u64, |most| {
        errors.push(FieldError {
            path: path.to_owned(),
            message: format!("too many entries: {}, at most {most}", members.len()),
        });
    });
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if members.get(required).is_none_or(Value::is_null) {
            errors.push(FieldError { path: join(required), message: "required, but missing".to_owned() });
        }
    }
    // `metadata` is the API server's own; only its name is needed and read.
    for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        if let Some(property) = schema["properties"].get(key) {
            structure(property, value, &join(key), errors);
        } else if schema["additionalProperties"].is_object() {
            structure(&schema["additionalProperties"], value, &join(key), errors);
        } else if !(path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&key.as_str())) {
            let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
            errors.push(unknown(join(key), key, known));
        }
    }
}

/// Slips of the keyboard up to which one name is taken to mean another.
const TYPOS: usize = 2;

/// An unknown field, with the known one that is most likely meant.
fn unknown<'a>(path: String, key: &str, known: impl Iterator<Item = &'a String>) -> FieldError {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let folded = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let distance = |name: &str| strsim::osa_distance(&folded(name), &folded(key));
    let meant = known.iter().min_by_key(|name| distance(name)).filter(|name| distance(name) <= TYPOS);
    let message = match meant {
        Some(meant) => format!("unknown field: write {meant}"),
        None if known.len() <= 16 => format!("unknown field: known here are {}", known.join(", ")),
        None => "unknown field: remove it".to_owned(),
    };
    FieldError { path, message }
}

fn fits_i32(number: &serde_json::Number) -> bool {
    number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
}

/// What there is to say of a number that is less than `minimum` or more than `maximum`.
fn out_of_range(schema: &Value, number: &serde_json::Number) -> Option<String> {
    let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
    let is_less = least.is_some_and(|least| number.as_i64().is_some_and(|number| number < least));
    let is_more = most.is_some_and(|most| number.as_i64().is_none_or(|number| number > most));
    if !is_less && !is_more {
        return None;
    }
    let range = match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("of at least {least}"),
        (None, most) => format!("of at most {}", most.unwrap_or_default()),
    };
    // Modes of files are written in octal everywhere else, without the zero in front of it as well.
    let most_mode = i64::from(super::MAX_MODE);
    let meant =
        i64::from_str_radix(&number.to_string(), 8).ok().filter(|mode| (0..=most_mode).contains(mode));
    let hint =
        meant.filter(|_| most == Some(most_mode)).map(|mode| format!(", for mode 0{number} that is {mode}"));
    Some(format!("{number} is out of range: write a number {range}{}", hint.unwrap_or_default()))
}

fn bound(schema: &Value, key: &str, found: u64, fail: impl FnOnce(u64)) {
    if let Some(most) = schema[key].as_u64()
        && found > most
    {
        fail(most);
    }
}

fn name_of_type(name: &str) -> &str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

/// What a value is, without showing it: it may be a secret.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        let errors = validate(PresetKind::Cluster, &json!({"spec": spec}));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_of_a_pod_are_those_that_a_variable_can_have() {
        let of = |path: &str| {
            errors(&json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}))
        };
        for path in [
            "metadata.name",
            "metadata.uid",
            "spec.nodeName",
            "spec.host",
            "status.podIPs",
            "metadata.labels['app']",
            "metadata.labels['a.example/App_1']",
            "metadata.annotations['A.example/b']",
        ] {
            assert_eq!(of(path), Vec::<String>::new(), "{path}");
        }
        for path in [
            "status.phase",
            "spec.nodename",
            "metadata.labels",
            "metadata.labels['']",
            "metadata.labels[app]",
            "metadata.labels['A.example/b']",
            "metadata.annotations['a b']",
            "metadata.annotations['a'] ",
            "metadata-labels['a']",
            "spec.containers['a']",
        ] {
            let found = of(path);
            assert!(
                found.len() == 1
                    && found[0].starts_with("spec.env[0].valueFrom.fieldRef.fieldPath: not a field that a variable can have: write metadata.name"),
                "{path}: {found:?}"
            );
        }
    }

    #[test]
    fn modes_of_files_are_in_their_range_and_the_octal_that_is_meant_is_told() {
        let of = |volume: Value| {
            let mut volume = volume;
            volume["name"] = json!("a");
            errors(&json!({"volumes": [volume]}))
        };
        let item = |mode: i64| json!([{"key": "a", "path": "a", "mode": mode}]);
        for mode in [0, 256, 420, 511] {
            assert_eq!(
                of(json!({"configMap": {"name": "a", "defaultMode": mode, "items": item(mode)}})),
                Vec::<String>::new()
            );
        }
        assert_eq!(
            of(json!({"configMap": {"name": "a", "defaultMode": 644, "items": item(-1)}})),
            [
                "spec.volumes[0].configMap.defaultMode: 644 is out of range: write a number from 0 to 511, for mode 0644 that is 420",
                "spec.volumes[0].configMap.items[0].mode: -1 is out of range: write a number from 0 to 511",
            ]
        );
        for (volume, path) in [
            (json!({"secret": {"secretName": "a", "defaultMode": 512}}), "secret.defaultMode"),
            (json!({"secret": {"secretName": "a", "items": item(512)}}), "secret.items[0].mode"),
            (json!({"downwardAPI": {"defaultMode": 512}}), "downwardAPI.defaultMode"),
            (json!({"downwardAPI": {"items": [{"path": "a", "mode": 512}]}}), "downwardAPI.items[0].mode"),
            (json!({"projected": {"defaultMode": 512}}), "projected.defaultMode"),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "a", "items": item(512)}}]}}),
                "projected.sources[0].configMap.items[0].mode",
            ),
        ] {
            let found = of(volume);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("spec.volumes[0].{path}: 512 is")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_read_only_all_the_way_down_is_read_only() {
        let of = |mount: Value| {
            let mut mount = mount;
            mount["name"] = json!("a");
            mount["mountPath"] = json!("/a");
            errors(&json!({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [mount]}))
        };
        for right in [
            json!({"recursiveReadOnly": "Disabled"}),
            json!({"recursiveReadOnly": "Enabled", "readOnly": true}),
            json!({"recursiveReadOnly": "IfPossible", "readOnly": true, "mountPropagation": "None"}),
        ] {
            assert_eq!(of(right.clone()), Vec::<String>::new(), "{right}");
        }
        for wrong in [
            json!({"recursiveReadOnly": "Enabled"}),
            json!({"recursiveReadOnly": "IfPossible", "readOnly": false}),
            json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "HostToContainer"}),
        ] {
            let found = of(wrong.clone());
            assert!(found.len() == 1 && found[0].contains("write readOnly: true"), "{wrong}: {found:?}");
        }
    }
}
