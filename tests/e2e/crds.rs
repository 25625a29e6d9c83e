//! The CRDs in the API server: what they describe, show, accept and refuse.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use reach::api::PresetKind;
use reach::api::validate::validate;
use serde_json::{Value, json};

use crate::cluster::{Cluster, stderr};
use crate::support::eventually;

pub fn are_described_to_kubectl(cluster: &Cluster) {
    for (field, expected) in [
        ("clusterpodpresets", "what pods of every namespace it selects get"),
        ("podpresets", "adds to what ClusterPodPresets give"),
        ("clusterpodpresets.spec.namespaceSelector", "selects every namespace"),
        ("podpresets.spec.env.mergeStrategy", "unites the value with that of the less specific level"),
        ("podpresets.spec.env.value", "$(OTHER)"),
        ("podpresets.spec.excludeContainers", "one trailing `*`"),
        ("podpresets.spec.volumes", "as `volumes` of a pod"),
    ] {
        // The description of a new resource reaches kubectl a moment after the resource.
        eventually(field, || {
            let output = cluster.control_plane.kubectl(&["explain", field]);
            // kubectl breaks lines where it likes.
            let text = String::from_utf8_lossy(&output.stdout);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if text.contains(expected) { Ok(()) } else { Err(text + &stderr(&output)) }
        });
    }
}

pub fn show_what_presets_do_in_columns(cluster: &Cluster) {
    let namespace = "columns";
    cluster.namespace(namespace, &json!({}));
    let spec = json!({
        "selector": {"matchLabels": {"app": "shop"}},
        "priority": 7,
        "env": [
            {"name": "http_proxy", "value": "http://proxy.example:3128"},
            {"name": "no_proxy", "value": ".svc", "mergeStrategy": "Merge"},
        ],
    });
    cluster.preset(namespace, "columns", &spec);
    cluster.cluster_preset(namespace, "columns", &spec);
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (kind, titles, row) in [
        (
            "cpp",
            "NAME NAMESPACES SELECTOR HTTP_PROXY NO_PROXY PRIORITY CLEAN AGE",
            r#"columns {"kubernetes.io/metadata.name":"columns"} {"app":"shop"} http://proxy.example:3128 .svc 7"#,
        ),
        (
            "pp",
            "NAME SELECTOR HTTP_PROXY NO_PROXY PRIORITY CLEAN AGE",
            r#"columns {"app":"shop"} http://proxy.example:3128 .svc 7"#,
        ),
    ] {
        let table = cluster.kubectl(&["get", kind, "-n", namespace, "columns"]);
        let mut lines = table.lines();
        assert_eq!(columns(lines.next().expect("titles")), columns(titles), "{table}");
        assert!(columns(lines.next().expect("a row")).starts_with(&columns(row)), "{table}");
    }
    let wide = cluster.kubectl(&["get", "pp", "-n", namespace, "-o", "wide"]);
    assert!(wide.contains("VARIABLES") && wide.contains("mergeStrategy"), "{wide}");
    let all = cluster.kubectl(&["get", "reach", "-n", namespace, "-o", "name"]);
    for name in ["clusterpodpreset.reach.dev/columns", "podpreset.reach.dev/columns"] {
        assert!(all.lines().any(|line| line == name), "{all}");
    }
}

pub fn accept_every_example(cluster: &Cluster) {
    // An example names its namespace, which has to exist even for a dry run.
    cluster.namespace("shop", &json!({}));
    for file in files("examples/presets").into_iter().chain([root().join("examples/corporate-ca.yaml")]) {
        cluster.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", file.to_str().expect("UTF-8")]);
    }
}

/// Rules that no example breaks: a `spec` that does, words of its refusal, and what is nearly the same and right. No words
/// where the API server's own say it, which differ from version to version.
#[allow(clippy::too_many_lines, reason = "a table")]
fn more_refusals() -> Vec<(Value, Option<&'static str>, Value)> {
    let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
    let secret = json!({"name": "a", "key": "b"});
    let prefix = |prefix: &str| json!({"envFrom": [{"prefix": prefix, "secretRef": {"name": "a"}}]});
    let field = |path: &str| from(json!({"fieldRef": {"fieldPath": path}}));
    let volume = |name: &str| json!({"volumes": [{"name": name, "emptyDir": {}}]});
    let mount = |mount: Value| {
        let mut spec = volume("a");
        spec["volumeMounts"] = json!([{"name": "a", "mountPath": "/a"}]);
        for (field, value) in mount.as_object().expect("fields") {
            spec["volumeMounts"][0][field] = value.clone();
        }
        spec
    };
    let expression = |key: &str, value: &str| json!({"env": [{"name": "A"}], "selector": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}});
    let long = |length: usize| json!({"env": [{"name": "A", "value": "x".repeat(length)}]});
    let relative = "write the path inside the volume";
    vec![
        (from(json!({})), Some("valueFrom needs exactly one source"), from(json!({"secretKeyRef": secret}))),
        (
            from(json!({"secretKeyRef": secret, "configMapKeyRef": secret})),
            Some("valueFrom needs exactly one source"),
            from(json!({"fieldRef": {"fieldPath": "status.hostIP"}})),
        ),
        (prefix("1_"), Some("not a valid prefix"), prefix("")),
        (prefix("A="), Some("not a valid prefix"), prefix("A_")),
        (volume("Corporate_CA"), Some("for example corporate-ca"), volume("corporate-ca-2")),
        (
            mount(json!({"subPath": "a", "subPathExpr": "a"})),
            Some("both subPath and subPathExpr: keep one"),
            mount(json!({"subPathExpr": "$(A)"})),
        ),
        (mount(json!({"subPath": "a/../b"})), Some(relative), mount(json!({"subPath": "a/..b/c.."}))),
        (mount(json!({"subPath": "/a"})), Some(relative), mount(json!({"subPath": "a/"}))),
        (mount(json!({"subPathExpr": ".."})), Some(relative), mount(json!({"subPathExpr": "..."}))),
        (
            mount(json!({"mountPath": "/a:b"})),
            Some("mountPath may not contain ':'"),
            mount(json!({"mountPath": "/a b"})),
        ),
        (mount(json!({"mountPath": ""})), None, mount(json!({"mountPath": "/"}))),
        (
            mount(
                json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "Bidirectional"}),
            ),
            Some("leave mountPropagation out"),
            mount(json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "None"})),
        ),
        (
            mount(json!({"recursiveReadOnly": "IfPossible"})),
            Some("write readOnly: true"),
            mount(json!({"recursiveReadOnly": "Disabled"})),
        ),
        (
            field("metadata.labels"),
            Some("not a field that a variable can have"),
            field("metadata.labels['a.example/A']"),
        ),
        (
            field("metadata.labels['A.example/a']"),
            Some("write metadata.name"),
            field("metadata.annotations['A.example/a']"),
        ),
        (field("spec.nodename"), Some("spec.nodeName"), field("spec.host")),
        (
            json!({"volumes": [{"name": "a", "configMap": {"name": "a", "items": [{"key": "a", "path": "a", "mode": -1}]}}]}),
            None,
            json!({"volumes": [{"name": "a", "configMap": {"name": "a", "items": [{"key": "a", "path": "a", "mode": 0}]}}]}),
        ),
        (mount(json!({"mountPropagation": "Both"})), None, mount(json!({"mountPropagation": "None"}))),
        (expression("a b", "c"), Some("that is no label"), expression("a.example/b", "c")),
        (expression("a", "-c"), Some("that is no label"), expression("a", "c-d")),
        (long(16_385), None, long(16_384)),
        (json!({"env": [{"name": ""}]}), None, json!({"env": [{"name": "_"}]})),
        (json!({"env": [{"name": "A", "value": 1}]}), None, json!({"env": [{"name": "A", "value": "1"}]})),
        (json!({"env": [{"value": "a"}]}), None, json!({"env": [{"name": "A", "value": null}]})),
        // `null` is absent, for rules too.
        (
            json!({"env": null, "volumes": null}),
            Some("the preset is empty"),
            json!({"env": [{"name": "A", "value": "a", "valueFrom": null, "separator": null}], "volumes": null, "letterCase": null, "selector": {"matchLabels": null}}),
        ),
        (
            json!({"env": [{"name": "A"}], "letterCase": "Lower"}),
            None,
            json!({"env": [{"name": "A"}], "letterCase": "AsWritten"}),
        ),
        (
            json!({"env": [{"name": "A"}], "priority": "1"}),
            None,
            json!({"env": [{"name": "A"}], "priority": -1}),
        ),
        (
            json!({"env": [{"name": "A"}], "priority": 2_147_483_648_u64}),
            None,
            json!({"env": [{"name": "A"}], "priority": 2_147_483_647}),
        ),
        (
            json!({"env": [{"name": "A"}], "envfrom": []}),
            None,
            json!({"env": [{"name": "A"}], "envFrom": []}),
        ),
        (json!({"env": []}), Some("the preset is empty"), json!({"env": [{"name": "A"}], "volumes": []})),
        (
            json!({"noProxyFrom": [], "derive": []}),
            Some("the preset is empty"),
            json!({"noProxyFrom": ["Nodes"]}),
        ),
        (json!({"derive": ["Ruby"]}), None, json!({"derive": ["Java", "Node"]})),
        (json!({"noProxyFrom": ["Pods"]}), None, json!({"noProxyFrom": ["Services"]})),
        (
            json!({"noProxyForm": "portable", "env": [{"name": "A"}]}),
            None,
            json!({"noProxyForm": "Portable", "env": [{"name": "A"}]}),
        ),
        (
            json!({"noProxyFrom": ["Services"], "env": [{"name": "No_Proxy", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]}),
            Some("noProxyFrom cannot add to a no_proxy with valueFrom"),
            json!({"noProxyFrom": ["Services"], "env": [{"name": "No_Proxy", "value": "a"}, {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]}),
        ),
    ]
}

pub fn agree_with_the_rules_for_files(cluster: &Cluster) {
    let preset = |spec: &Value| json!({"apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "rule"}, "spec": spec});
    let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let mut wrong = Vec::new();
    for (refused, words, accepted) in more_refusals() {
        let words = words.unwrap_or_default();
        let object = preset(&refused);
        let output = cluster.control_plane.kubectl_with_stdin(&create, object.to_string());
        if output.status.success() || !stderr(&output).contains(words) {
            wrong.push(format!("API server, for `{words}` in {refused}: {}", stderr(&output)));
        }
        let errors = validate(PresetKind::Cluster, &object);
        if !errors.iter().any(|error| error.message.contains(words)) {
            wrong.push(format!("files, for `{words}` in {refused}: {errors:?}"));
        }
        let object = preset(&accepted);
        let output = cluster.control_plane.kubectl_with_stdin(&create, object.to_string());
        if !output.status.success() {
            wrong.push(format!("API server refuses {accepted}: {}", stderr(&output)));
        }
        let errors = validate(PresetKind::Cluster, &object);
        if !errors.is_empty() {
            wrong.push(format!("files refuse {accepted}: {errors:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files of `examples/presets-invalid`, words of the refusal that say what to do, and what is nearly the same and right:
/// changes to the file's `spec`.
#[allow(clippy::too_many_lines, reason = "a table")]
fn refusals() -> BTreeMap<&'static str, (&'static str, Value)> {
    let one = || json!([{"name": "TZ", "value": "UTC"}]);
    let many = |count: usize| {
        (0..count).map(|index| json!({"name": format!("VAR_{index}"), "value": "x"})).collect::<Value>()
    };
    BTreeMap::from([
        ("duplicate-name", ("keep one item for each", json!({"env": [{"name": "TZ"}, {"name": "tz"}]}))),
        (
            "duplicate-proxy-variable",
            (
                "write it once",
                json!({"env": [{"name": "no_proxy", "value": "a"}, {"name": "NO_PROXY_", "value": "a"}]}),
            ),
        ),
        (
            "empty",
            (
                "give at least one of env, envFrom, volumes, volumeMounts, noProxyFrom or derive",
                json!({"env": [{"name": "TZ"}]}),
            ),
        ),
        (
            "env-from-without-source",
            (
                "exactly one of configMapRef and secretRef",
                json!({"envFrom": [{"prefix": "CORP_", "configMapRef": {"name": "a"}}]}),
            ),
        ),
        (
            "exclude-pattern",
            (
                "write an exact name (istio-proxy), or a prefix and one trailing *",
                json!({"excludeContainers": ["istio-*", "*", "a-b"]}),
            ),
        ),
        (
            "field-path-unknown",
            (
                "metadata.labels['KEY']",
                json!({"env": [{"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]}),
            ),
        ),
        (
            "file-mode",
            (
                "less than or equal to 511",
                json!({"volumes": [{"name": "ca", "configMap": {"name": "ca", "defaultMode": 420}}]}),
            ),
        ),
        (
            "host-path-in-pod-preset",
            (
                "use a configMap, secret, projected or emptyDir volume",
                json!({"volumes": [{"name": "etc", "emptyDir": {}}]}),
            ),
        ),
        (
            "invalid-name",
            (
                "write letters, digits, '_', '-' or '.'",
                json!({"env": [{"name": "http_proxy"}, {"name": ".a-B.1"}]}),
            ),
        ),
        (
            "merge-with-value-from",
            (
                "write mergeStrategy: Replace, or give a literal value",
                json!({"env": [{"name": "no_proxy", "mergeStrategy": "Replace", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]}),
            ),
        ),
        (
            "mount-path-twice",
            (
                "mount each volume at a path of its own",
                json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]}),
            ),
        ),
        (
            "mount-without-volume",
            (
                "add that volume to spec.volumes",
                json!({"volumes": [{"name": "corporate-ca", "configMap": {"name": "ca"}}]}),
            ),
        ),
        (
            "recursive-read-only-of-a-writable-mount",
            (
                "write readOnly: true",
                json!({"volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": true, "recursiveReadOnly": "Enabled"}]}),
            ),
        ),
        (
            "selector-invalid-label",
            (
                "for example app: shop",
                json!({"selector": {"matchLabels": {"a.example/App_1": "Web.shop_1-a", "app": ""}}}),
            ),
        ),
        (
            "selector-operator-without-values",
            (
                "add at least one, or use Exists",
                json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
            ),
        ),
        (
            "selector-unknown-operator",
            (
                r#"supported values: "In", "NotIn", "Exists", "DoesNotExist""#,
                json!({"selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["shop"]}]}}),
            ),
        ),
        (
            "selector-values-with-exists",
            (
                "remove values, or use In or NotIn",
                json!({"namespaceSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist", "values": []}]}}),
            ),
        ),
        ("too-many-variables", ("must have at most", json!({"env": many(64)}))),
        (
            "unknown-merge-strategy",
            (
                r#"supported values: "Merge", "Replace""#,
                json!({"env": [{"name": "no_proxy", "mergeStrategy": "Replace"}]}),
            ),
        ),
        ("value-and-value-from", ("keep one of them", json!({"env": one()}))),
        (
            "volume-twice",
            (
                "give each volume its own name",
                json!({"volumes": [{"name": "a", "configMap": {"name": "a"}}, {"name": "b", "configMap": {"name": "a"}}]}),
            ),
        ),
        ("volume-with-two-sources", ("keep one (configMap, secret", json!({"volumes": [{"name": "ca"}]}))),
    ])
}

pub fn refuse_every_invalid_example_and_accept_what_is_nearly_the_same(cluster: &Cluster) {
    let refusals = refusals();
    let files = files("examples/presets-invalid");
    let name = |file: &Path| file.file_stem().expect("a name").display().to_string();
    let known: Vec<&str> = refusals.keys().copied().collect();
    assert_eq!(
        files.iter().map(|file| name(file)).collect::<Vec<_>>(),
        known,
        "each file has a row, each row a file"
    );

    let mut nearly = Vec::new();
    for file in &files {
        let (words, right) = &refusals[name(file).as_str()];
        let refused = cluster.control_plane.kubectl(&[
            "create",
            "--dry-run=server",
            "-f",
            file.to_str().expect("UTF-8"),
        ]);
        let message = stderr(&refused);
        assert!(!refused.status.success(), "{} is accepted", file.display());
        assert!(message.contains(words), "{}: expected `{words}` in: {message}", file.display());

        let text = fs::read_to_string(file).expect("a file");
        let mut object =
            reach::manifest::documents(&text)[0].read().expect("a readable file").expect("an object");
        for (field, value) in right.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        nearly.push(object);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": nearly});
    let created = cluster
        .control_plane
        .kubectl_with_stdin(&["create", "--dry-run=server", "-f", "-"], list.to_string());
    assert!(created.status.success(), "what is nearly the same: {}", stderr(&created));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, sorted by name.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort_by_key(|file| file.file_stem().map(ToOwned::to_owned));
    files
}
