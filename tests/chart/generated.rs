//! What is made from the chart, or for it, is what stands in the repository; with `REACH_UPDATE=1` it is written.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::values::{defaults, resolved, schema};
use crate::support::helm::{NAMESPACE, Version, chart, objects, root, template};

/// Compares with a file of the repository, or writes it.
#[track_caller]
fn fresh(path: &Path, made: &str) {
    if std::env::var_os("REACH_UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, made).expect("a file");
        return;
    }
    let kept = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make manifests`", path.display()));
    assert!(
        kept == made,
        "{} is old: run `make manifests`\n{}",
        path.display(),
        similar::TextDiff::from_lines(kept.as_str(), made).unified_diff().header("kept", "made")
    );
}

#[test]
fn the_crds_of_the_chart_are_those_of_the_repository() {
    for entry in fs::read_dir(root().join("crds")).expect("CRDs") {
        let path = entry.expect("a file").path();
        let crd = fs::read_to_string(&path).expect("a file");
        fresh(&chart().join("crds").join(path.file_name().expect("a name")), &crd);
    }
    let count = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(count(&chart().join("crds")), count(&root().join("crds")));
}

#[test]
fn the_chart_installs_the_version_of_the_crate() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).expect("Chart.yaml");
    let chart = objects(&text).remove(0);
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    // What Artifact Hub shows is YAML in a string.
    let annotations = chart["annotations"].as_object().expect("annotations");
    for (name, value) in annotations {
        assert!(!objects(value.as_str().expect("text")).is_empty(), "{name}");
    }
    let crds = objects(annotations["artifacthub.io/crds"].as_str().expect("text")).remove(0);
    assert_eq!(crds.as_array().map(Vec::len), Some(2));
}

/// The documents of a rendering as plain manifests: without what only Helm needs, with their comments.
fn plain(values: &Value) -> Vec<String> {
    let text = template(Version::V4, values, &[]).expect("a rendering");
    text.split("\n---\n")
        .map(|document| {
            document
                .lines()
                .filter(|line| !["---", ""].contains(line) && !line.starts_with("# Source: "))
                .filter(|line| {
                    !line.trim_start().starts_with("helm.sh/chart:")
                        && line.trim() != "app.kubernetes.io/managed-by: Helm"
                })
                .fold(String::new(), |text, line| text + line + "\n")
        })
        .filter(|document| !document.contains("helm.sh/hook:") && !objects(document).is_empty())
        .collect()
}

const NOTE: &str = "# Generated from charts/reach by `make manifests`.";

#[test]
fn the_plain_install_is_the_chart_with_its_defaults() {
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n"
    );
    let mut all = vec![namespace];
    for name in ["clusterpodpresets", "podpresets"] {
        all.push(fs::read_to_string(root().join(format!("crds/reach.dev_{name}.yaml"))).expect("a CRD"));
    }
    let rendered = plain(&json!({}));
    assert!(rendered.len() >= 10);
    all.extend(rendered);
    let text = format!("{NOTE} See README.md.\n{}", all.join("---\n"));
    assert!(!text.contains("helm"), "nothing of Helm is left");
    fresh(&root().join("webhook/reach.yaml"), &text);
}

#[test]
fn the_certificate_modes_are_what_they_change_in_the_plain_install() {
    let default = plain(&json!({}));
    for (file, head, values) in [
        (
            "cert-manager.yaml",
            "# Certificates by cert-manager (https://cert-manager.io), which has to be installed. After webhook/reach.yaml:\n\
             #   kubectl apply --server-side -f webhook/reach.yaml -f certs/cert-manager.yaml\n\
             # reach goes on writing caBundle itself, so cert-manager's injector is not needed.\n",
            json!({"certificates": {"mode": "certManager"}}),
        ),
        (
            "bring-your-own.yaml",
            "# Certificates of your own, in the Secret reach-tls: tls.crt and tls.key for the name reach.reach-system.svc, and\n\
             # ca.crt, their CA. reach follows the Secret: to renew, write the new ones into it. After webhook/reach.yaml:\n\
             #   kubectl -n reach-system create secret generic reach-tls --type=kubernetes.io/tls \\\n\
             #     --from-file=tls.crt --from-file=tls.key --from-file=ca.crt\n\
             #   kubectl apply --server-side -f webhook/reach.yaml -f certs/bring-your-own.yaml\n",
            json!({"certificates": {"mode": "secret", "secret": {"name": "reach-tls"}}}),
        ),
    ] {
        let changed: Vec<String> =
            plain(&values).into_iter().filter(|document| !default.contains(document)).collect();
        assert!(changed.len() >= 2, "{file}");
        let text = format!("{NOTE}\n{head}{}", changed.join("---\n"));
        fresh(&root().join("certs").join(file), &text);
    }
}

/// Rows of the table: each value that is no group.
fn rows(schema: &Value, path: &str, part: &Value, default: &Value, table: &mut String) {
    let description = part["description"].as_str().unwrap_or_default();
    let whole = resolved(schema, part);
    match whole["properties"].as_object() {
        Some(properties) if default.as_object().is_none_or(|default| !default.is_empty()) => {
            for (name, property) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if path != "global" {
                    rows(schema, &path, property, &default[name], table);
                }
            }
        }
        _ => {
            let default = serde_json::to_string(default).expect("JSON");
            let _ = writeln!(table, "| `{path}` | `{default}` | {} |", description.replace('|', "\\|"));
        }
    }
}

#[test]
fn the_table_of_values_is_the_schema() {
    const START: &str =
        "<!-- values: generated from values.schema.json and values.yaml by `make manifests` -->\n";
    const END: &str = "<!-- end of values -->\n";
    let schema = schema();
    let mut table = "| Value | Default | |\n|---|---|---|\n".to_owned();
    rows(&schema, "", &schema, &defaults(), &mut table);
    let file = chart().join("README.md");
    let readme = fs::read_to_string(&file).expect("the README of the chart");
    let (before, rest) = readme.split_once(START).expect("the start of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    fresh(&file, &format!("{before}{START}{table}{END}{after}"));
    assert!(table.lines().count() > 70, "{table}");
}
