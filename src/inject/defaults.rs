//! Volumes and mounts as the API server completes them.
//!
//! A webhook sees pods after defaulting (`k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`), presets are
//! stored as written. Two volumes are equal when nothing but that completion sets them apart.

use serde_json::{Map, Value, json};

/// The canonical form of a volume; equal forms mean equal volumes.
#[must_use]
pub fn volume(mut volume: Value) -> Value {
    let Value::Object(fields) = &mut volume else {
        return volume;
    };
    fields.retain(|_, value| !value.is_null());
    if fields.keys().all(|key| key == "name") {
        fields.insert("emptyDir".into(), json!({}));
    }
    for (source, content) in fields.iter_mut() {
        if let Value::Object(content) = content {
            complete(source, content);
            prune(content);
        }
    }
    volume
}

/// The canonical form of a mount.
#[must_use]
pub fn mount(mut mount: Value) -> Value {
    if let Value::Object(fields) = &mut mount {
        // "Disabled" and "None" are what absence means.
        for (field, default) in [("recursiveReadOnly", "Disabled"), ("mountPropagation", "None")] {
            if fields.get(field).is_some_and(|value| value == default) {
                fields.remove(field);
            }
        }
        if let Some(Value::String(path)) = fields.get_mut("mountPath") {
            *path = super::preset::normal_path(path).into();
        }
        prune(fields);
    }
    mount
}

/// Writes the default of each field that is absent.
fn complete(source: &str, fields: &mut Map<String, Value>) {
    let defaults: &[(&str, Value)] = &match source {
        "secret" | "configMap" | "downwardAPI" | "projected" => vec![("defaultMode", json!(0o644))],
        "iscsi" => vec![("iscsiInterface", json!("default"))],
        "rbd" => {
            vec![("pool", json!("rbd")), ("user", json!("admin")), ("keyring", json!("/etc/ceph/keyring"))]
        }
        "azureDisk" => {
            vec![("cachingMode", json!("ReadWrite")), ("kind", json!("Shared")), ("fsType", json!("ext4"))]
        }
        "scaleIO" => vec![("storageMode", json!("ThinProvisioned")), ("fsType", json!("xfs"))],
        "image" => {
            // As for a container's image: a tag of `latest`, or none, is pulled always.
            let reference = fields.get("reference").and_then(Value::as_str).unwrap_or_default();
            let name = reference.rsplit('/').next().unwrap_or_default();
            let latest = !name.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
            vec![("pullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }))]
        }
        _ => vec![],
    };
    for (field, default) in defaults {
        if fields.get(*field).is_none_or(Value::is_null) {
            fields.insert((*field).to_owned(), default.clone());
        }
    }
    match source {
        "downwardAPI" => downward(fields),
        "projected" => {
            let sources = fields.get_mut("sources").and_then(Value::as_array_mut);
            for source in sources.into_iter().flatten().filter_map(Value::as_object_mut) {
                if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
                    token.entry("expirationSeconds").or_insert(json!(3600));
                }
                if let Some(Value::Object(fields)) = source.get_mut("downwardAPI") {
                    downward(fields);
                }
            }
        }
        "ephemeral" => {
            if let Some(Value::Object(spec)) =
                fields.get_mut("volumeClaimTemplate").and_then(|template| template.get_mut("spec"))
            {
                spec.entry("volumeMode").or_insert(json!("Filesystem"));
            }
        }
        _ => {}
    }
}

/// Defaults inside the items of a downward API volume.
fn downward(fields: &mut Map<String, Value>) {
    let items = fields.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        if let Some(Value::Object(field)) = item.get_mut("fieldRef") {
            field.entry("apiVersion").or_insert(json!("v1"));
        }
        if let Some(Value::Object(resource)) = item.get_mut("resourceFieldRef") {
            resource.entry("divisor").or_insert(json!("0"));
        }
    }
}

/// Drops what the API server leaves out when it writes (nulls, and the zero values of fields that are
/// omitted when empty), and brings quantities to one spelling.
fn prune(fields: &mut Map<String, Value>) {
    fields.retain(|key, value| {
        match value {
            Value::Object(inner) => prune(inner),
            Value::Array(items) => {
                for inner in items.iter_mut().filter_map(Value::as_object_mut) {
                    prune(inner);
                }
            }
            _ => {}
        }
        if matches!(key.as_str(), "sizeLimit" | "divisor" | "storage")
            && let Some(nanos) = quantity(value)
        {
            *value = Value::String(format!("{nanos}n"));
        }
        match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(inner) => !inner.is_empty(),
            _ => true,
        }
    });
}

/// Billionths in one.
const NANO: i128 = 1_000_000_000;

/// A Kubernetes quantity (`1Gi`, `100m`, `1e3`, 5) in billionths, or `None` when it is none.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.trim_start_matches('+').parse().ok()?;
            NANO.checked_mul(10_i128.checked_pow(exponent)?)?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let whole: i128 = match whole.trim_start_matches(['+', '-']) {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let mut nanos = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        nanos = nanos.checked_add(i128::from(digit.checked_sub(b'0')?).checked_mul(unit)?)?;
    }
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: Value, b: Value) -> bool {
        volume(a) == volume(b)
    }

    #[test]
    fn absent_fields_equal_their_defaults() {
        assert!(same(
            json!({"name": "ca", "configMap": {"name": "ca"}}),
            json!({"name": "ca", "configMap": {"name": "ca", "defaultMode": 420}}),
        ));
        assert!(same(json!({"name": "tmp"}), json!({"name": "tmp", "emptyDir": {}})));
        assert!(same(
            json!({"name": "h", "hostPath": {"path": "/etc/ssl"}}),
            json!({"name": "h", "hostPath": {"path": "/etc/ssl", "type": ""}}),
        ));
        assert!(same(
            json!({"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
            json!({"name": "p", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}),
        ));
    }

    #[test]
    fn a_zero_that_is_not_the_default_differs() {
        assert!(!same(
            json!({"name": "ca", "secret": {"secretName": "ca", "defaultMode": 0}}),
            json!({"name": "ca", "secret": {"secretName": "ca"}}),
        ));
    }

    #[test]
    fn quantities_are_compared_by_what_they_say() {
        assert!(same(
            json!({"name": "t", "emptyDir": {"sizeLimit": "1024Mi"}}),
            json!({"name": "t", "emptyDir": {"sizeLimit": "1Gi"}}),
        ));
        assert!(same(
            json!({"name": "t", "emptyDir": {"sizeLimit": 1000}}),
            json!({"name": "t", "emptyDir": {"sizeLimit": "1k"}}),
        ));
        assert!(!same(
            json!({"name": "t", "emptyDir": {"sizeLimit": "1G"}}),
            json!({"name": "t", "emptyDir": {"sizeLimit": "1Gi"}}),
        ));
    }

    #[test]
    fn other_content_differs() {
        assert!(!same(
            json!({"name": "ca", "configMap": {"name": "ca"}}),
            json!({"name": "ca", "secret": {"secretName": "ca"}}),
        ));
        assert!(!same(json!({"name": "x", "downwardAPI": {}}), json!({"name": "x"})));
    }

    #[test]
    fn mounts_ignore_spelled_out_defaults() {
        assert_eq!(
            mount(
                json!({"name": "ca", "mountPath": "/etc/ssl/", "readOnly": false, "mountPropagation": "None"})
            ),
            mount(json!({"name": "ca", "mountPath": "/etc/ssl"})),
        );
        assert_ne!(
            mount(json!({"name": "ca", "mountPath": "/etc/ssl", "readOnly": true})),
            mount(json!({"name": "ca", "mountPath": "/etc/ssl"})),
        );
    }
}
