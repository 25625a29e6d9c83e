//! `values.schema.json`: complete, strict, and with messages that name the value.

use serde_json::{Value, json};

use crate::support::helm::{VERSIONS, chart, objects, root, template};

pub fn schema() -> Value {
    let text = std::fs::read_to_string(chart().join("values.schema.json")).expect("the schema");
    serde_json::from_str(&text).expect("JSON")
}

pub fn defaults() -> Value {
    let text = std::fs::read_to_string(chart().join("values.yaml")).expect("the values");
    objects(&text).remove(0)
}

/// Follows a `$ref`.
pub fn resolved<'a>(schema: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).expect("a definition"),
        None => part,
    }
}

#[test]
fn every_value_is_described_and_nothing_else_is_taken() {
    fn check(schema: &Value, path: &str, part: &Value, seen: &mut usize) {
        let resolved = resolved(schema, part);
        if let Some(properties) = resolved["properties"].as_object() {
            assert_eq!(resolved["additionalProperties"], false, "{path} takes anything");
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                assert!(
                    property["description"].as_str().is_some_and(|text| text.ends_with('.')),
                    "{path} is described"
                );
                check(schema, &path, property, seen);
            }
        } else if resolved["type"] == "object" {
            let map = resolved["additionalProperties"].is_object();
            assert!(map || resolved["$comment"] == "as Kubernetes has it", "{path} takes anything");
            if map {
                check(schema, path, &resolved["additionalProperties"], seen);
            }
        } else if resolved["type"] == "array" {
            check(schema, &format!("{path}[]"), &resolved["items"], seen);
        } else {
            assert!(resolved.get("type").or(resolved.get("anyOf")).is_some(), "{path} has a type");
        }
        *seen += 1;
    }
    let schema = schema();
    let mut seen = 0;
    check(&schema, "", &schema, &mut seen);
    assert!(seen > 100, "{seen} values");
}

#[test]
fn the_schema_and_the_values_have_the_same_names() {
    fn check(schema: &Value, path: &str, part: &Value, value: &Value) {
        let part = resolved(schema, part);
        if let (Some(properties), Some(values)) = (part["properties"].as_object(), value.as_object()) {
            for name in properties.keys().filter(|name| *name != "global") {
                // An empty object is a value as a whole, such as affinity.
                assert!(
                    values.is_empty() || values.contains_key(name),
                    "{path}.{name} has no default in values.yaml"
                );
            }
            for (name, value) in values {
                let property = properties.get(name);
                check(
                    schema,
                    &format!("{path}.{name}"),
                    property.unwrap_or_else(|| panic!("{path}.{name}")),
                    value,
                );
            }
        }
    }
    let schema = schema();
    check(&schema, "", &schema, &defaults());
}

#[test]
fn every_default_has_a_comment() {
    let text = std::fs::read_to_string(chart().join("values.yaml")).expect("the values");
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    for (index, line) in lines.iter().enumerate() {
        let key = line.trim_start();
        let is_key = !key.starts_with(['#', '-']) && key.contains(':');
        // A group needs none when each of its members has one.
        let is_group = lines.get(index + 1).is_some_and(|next| indent(next) > indent(line));
        if is_key && !is_group {
            let above =
                lines[..index].iter().rposition(|above| indent(above) <= indent(line)).expect("a line above");
            let free = ["kubernetes.io/os", "grafana_dashboard", "cpu", "memory"];
            let known = free.iter().any(|name| key.starts_with(name));
            assert!(
                known || lines[above].trim_start().starts_with('#'),
                "no comment above line {}: {line}",
                index + 1
            );
        }
    }
}

#[test]
fn the_specs_of_presets_have_the_fields_of_the_crd() {
    let crd = std::fs::read_to_string(root().join("crds/reach.dev_clusterpodpresets.yaml")).expect("the CRD");
    let crd = objects(&crd).remove(0);
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let schema = schema();
    let preset = &schema["definitions"]["preset"];
    let names = |object: &Value| {
        let mut names: Vec<String> =
            object["properties"].as_object().expect("fields").keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(preset), names(spec));
    assert_eq!(names(&preset["properties"]["env"]["items"]), names(&spec["properties"]["env"]["items"]));
    for field in ["mergeStrategy", "letterCase", "noProxyForm", "noProxyFrom", "derive"] {
        let of = |object: &Value| {
            let fields = &object["properties"];
            let field = fields.get(field).unwrap_or(&fields["env"]["items"]["properties"][field]);
            let item = field.get("items").map_or(field, |items| resolved(&schema, items));
            item["enum"].clone()
        };
        assert!(of(spec).is_array(), "{field}");
        assert_eq!(of(preset), of(spec), "{field}");
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let digest = format!("sha256:{}", "0".repeat(63));
    let wrong = [
        (json!({"replica": 3}), "replica"),
        (json!({"replicas": 0}), "/replicas"),
        (json!({"replicas": "2"}), "/replicas"),
        (json!({"image": {"name": "x"}}), "/image"),
        (json!({"image": {"digest": digest}}), "/image/digest"),
        (json!({"image": {"pullPolicy": "always"}}), "/image/pullPolicy"),
        (json!({"proxy": {"http": "proxy.corp.example:3128"}}), "/proxy/http"),
        (json!({"proxy": {"http": "http://user:password@proxy.corp.example:3128"}}), "/proxy/http"),
        (json!({"proxy": {"https": "http://a b"}}), "/proxy/https"),
        (json!({"proxy": {"http": "http://p:1", "noProxy": "a,b"}}), "/proxy/noProxy"),
        (json!({"proxy": {"http": "http://p:1", "noProxy": ["a,b"]}}), "/proxy/noProxy/0"),
        (json!({"proxy": {"noProxy": ["mysql"]}}), "/proxy/http"),
        (json!({"presets": {"Upper": {}}}), "Upper"),
        (json!({"presets": {"a": {"envs": []}}}), "/presets/a"),
        (json!({"presets": {"a": {"env": [{"name": "A", "mergeStrategi": "Merge"}]}}}), "/presets/a/env/0"),
        (
            json!({"presets": {"a": {"env": [{"name": "A", "mergeStrategy": "merge"}]}}}),
            "/presets/a/env/0/mergeStrategy",
        ),
        (json!({"proxy": {"http": "http://p:1", "noProxyFrom": ["services"]}}), "/proxy/noProxyFrom/0"),
        (json!({"noProxyFrom": {"Services": true}}), "/noProxyFrom"),
        (json!({"noProxyFrom": {"networks": ["cluster.local"]}}), "/noProxyFrom/networks/0"),
        (json!({"namespaces": {"mode": "optout"}}), "/namespaces/mode"),
        (json!({"namespaces": {"exclude": ["Kube_System"]}}), "/namespaces/exclude/0"),
        (json!({"failurePolicy": "fail"}), "/failurePolicy"),
        (json!({"failurePolicy": "Fail", "replicas": 1}), "/replicas"),
        (
            json!({"failurePolicy": "Fail", "podDisruptionBudget": {"enabled": false}}),
            "/podDisruptionBudget/enabled",
        ),
        (json!({"timeoutSeconds": 0}), "/timeoutSeconds"),
        (json!({"timeoutSeconds": 11}), "/timeoutSeconds"),
        (json!({"webhook": {"port": 443}}), "/webhook/port"),
        (json!({"webhook": {"caBundle": "x"}}), "/webhook"),
        (json!({"listenAddress": "localhost"}), "/listenAddress"),
        (json!({"certificates": {"mode": "helm"}}), "/certificates/mode"),
        (json!({"certificates": {"mode": "secret"}}), "/certificates/secret/name"),
        (json!({"certificates": {"caBundle": "certManager"}}), "/certificates/caBundle"),
        (
            json!({"certificates": {"mode": "secret", "secret": {"name": "a"}, "caBundle": "certManager"}}),
            "/certificates/caBundle",
        ),
        (
            json!({"certificates": {"selfManaged": {"caLifetime": "1y"}}}),
            "/certificates/selfManaged/caLifetime",
        ),
        (json!({"clientAuth": {"enabled": true}}), "/clientAuth/caConfigMap"),
        (json!({"podDisruptionBudget": {"maxUnavailable": 0}}), "/podDisruptionBudget/maxUnavailable"),
        (json!({"networkPolicy": {"apiServerPorts": []}}), "/networkPolicy/apiServerPorts"),
        (json!({"networkPolicy": {"metricsFrom": [{"namespaces": {}}]}}), "/networkPolicy/metricsFrom/0"),
        (json!({"monitoring": {"serviceMonitor": {"enabled": "yes"}}}), "/monitoring/serviceMonitor/enabled"),
        (json!({"resources": {"requests": {"cpu": {}}}}), "/resources/requests/cpu"),
        (json!({"drainSeconds": 0}), "/drainSeconds"),
        (json!({"runAsUser": 0}), "/runAsUser"),
        (json!({"tolerations": [{"effect": "Never"}]}), "/tolerations/0/effect"),
        (json!({"affinity": {"podAffinitty": {}}}), "/affinity"),
        (json!({"extraArgs": "--a"}), "/extraArgs"),
        (json!({"extraEnv": [{"value": "a"}]}), "/extraEnv/0"),
        (json!({"podLabels": {"a": 1}}), "/podLabels/a"),
    ];
    for version in VERSIONS {
        for (values, named) in &wrong {
            let error = template(version, values, &[]).expect_err(&values.to_string());
            assert!(error.contains(named), "{version:?}: {values} is refused by name, {named}: {error}");
        }
    }
    eprintln!("chart: {} wrong values are refused by name", wrong.len());
}

#[test]
fn what_a_schema_cannot_say_the_templates_say() {
    for version in VERSIONS {
        let skip = ["--skip-schema-validation"];
        for (values, skip, expected) in [
            (json!({"failurePolicy": "Fail", "replicas": 1}), &skip[..], "failurePolicy Fail needs replicas"),
            (json!({"certificates": {"mode": "secret"}}), &skip, "certificates.secret.name is needed"),
            (json!({"clientAuth": {"enabled": true}}), &skip, "clientAuth.caConfigMap is needed"),
            (
                json!({"proxy": {"http": "http://p:1", "presetName": "a"}, "presets": {"a": {"env": [{"name": "A"}]}}}),
                &[],
                "presets.a and proxy make the same",
            ),
            (json!({"webhook": {"port": 9080}}), &[], "webhook.port and admin.port are the same"),
            (
                json!({"proxy": {"http": "http://p:1", "noProxyFrom": ["Services"]}}),
                &[],
                "noProxyFrom.services is needed: preset corporate-proxy has noProxyFrom Services",
            ),
            (
                json!({"presets": {"a": {"noProxyFrom": ["Nodes"]}}, "noProxyFrom": {"services": true}}),
                &[],
                "noProxyFrom.nodes is needed: preset a",
            ),
            (
                json!({"presets": {"a": {"noProxyFrom": ["ClusterNetwork"]}}, "noProxyFrom": {"nodes": true}}),
                &[],
                "noProxyFrom.clusterNetwork (or noProxyFrom.networks) is needed: preset a",
            ),
        ] {
            let error = template(version, &values, skip).expect_err(&values.to_string());
            assert!(error.contains(expected), "{version:?}: {values}: {error}");
        }
    }
}
