//! The alerts and the dashboard: promtool takes them, each alert fires when it should, and every metric is there.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::rendered::visit;
use super::schemas::PROGRAMS;
use crate::support::helm::{Version, objects, root, template, text};
use crate::support::serve::Reach;

/// The groups of rules, as Prometheus reads them.
fn rules(values: &Value) -> Value {
    let rendered = objects(&template(Version::V4, values, &[]).expect("a rendering"));
    let rules = rendered.iter().find(|object| object["kind"] == "PrometheusRule").expect("rules");
    rules["spec"].clone()
}

fn enabled() -> Value {
    json!({"monitoring": {"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}}})
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAMS.join("promtool")).args(arguments).output().expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said.into_owned()
}

fn dashboard() -> Value {
    let rendered = objects(&template(Version::V4, &enabled(), &[]).expect("a rendering"));
    let map =
        rendered.iter().find(|object| object["metadata"]["name"] == "reach-dashboard").expect("a dashboard");
    serde_json::from_str(map["data"]["reach.json"].as_str().expect("a file")).expect("JSON")
}

/// The expressions of the dashboard, with its variables filled in as Grafana does.
fn dashboard_expressions() -> Vec<String> {
    let mut expressions = Vec::new();
    visit(&dashboard(), &mut |key, value| {
        if let ("expr", Some(text)) = (key, value.as_str()) {
            expressions
                .push(text.replace("$__rate_interval", "5m").replace("$namespace", "a").replace("$job", "b"));
        }
    });
    expressions
}

#[test]
fn promtool_takes_every_rule_and_every_expression_of_the_dashboard() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("rules.yaml");
    for certificates in
        [json!({}), json!({"mode": "certManager"}), json!({"mode": "secret", "secret": {"name": "own"}})]
    {
        let mut values = enabled();
        values["certificates"] = certificates;
        fs::write(&file, rules(&values).to_string()).expect("a file");
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", text(&file)]);
    }
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 10, "{expressions:?}");
    let panels: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(index, expression)| json!({"record": format!("panel:{index}"), "expr": expression}))
        .collect();
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": panels}]}).to_string())
        .expect("a file");
    promtool(&["check", "rules", text(&file)]);
}

#[test]
fn each_alert_fires_when_it_should_and_is_silent_otherwise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rules = rules(&enabled());
    let mut names = HashSet::new();
    for alert in rules["groups"][0]["rules"].as_array_mut().expect("alerts") {
        names.insert(alert["alert"].as_str().expect("a name").to_owned());
        let annotations = alert["annotations"].as_object_mut().expect("annotations");
        // promtool compares annotations as a whole. What to do is text without a variable, checked elsewhere.
        for (annotation, _) in [("runbook", ""), ("runbook_url", "")] {
            assert!(
                annotations.remove(annotation).is_some_and(|text| !text.to_string().contains("{{")),
                "{alert}"
            );
        }
    }
    fs::write(folder.path().join("rules.yaml"), rules.to_string()).expect("a file");
    let tests = fs::read_to_string(root().join("tests/chart/alerts.yaml")).expect("the tests");
    fs::write(folder.path().join("alerts.yaml"), &tests).expect("a file");
    promtool(&["test", "rules", text(&folder.path().join("alerts.yaml"))]);

    let (mut fires, mut silent) = (HashSet::new(), HashSet::new());
    for test in objects(&tests)[0]["tests"].as_array().expect("tests") {
        for expected in test["alert_rule_test"].as_array().expect("expectations") {
            let name = expected["alertname"].as_str().expect("a name").to_owned();
            let alerts = expected["exp_alerts"].as_array().map_or(0, Vec::len);
            if alerts > 0 {
                fires.insert(name)
            } else {
                silent.insert(name)
            };
        }
    }
    assert_eq!((&fires, &silent), (&names, &names), "each alert is tested both ways");
    eprintln!("chart: {} alerts fire and stay silent as they should", names.len());
}

#[test]
fn each_alert_says_what_to_do() {
    for alert in rules(&enabled())["groups"][0]["rules"].as_array().expect("alerts") {
        let name = alert["alert"].as_str().expect("a name");
        let annotations = &alert["annotations"];
        assert!(annotations["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
        assert!(
            annotations["runbook"].as_str().is_some_and(|text| text.len() > 40 && !text.contains('\n')),
            "{name}"
        );
        let url = annotations["runbook_url"].as_str().expect("an address");
        assert!(url.ends_with(&format!("#{}", name.to_lowercase())), "{url}");
    }
}

#[test]
fn every_metric_of_reach_in_alerts_and_dashboard_is_one_that_it_publishes() {
    // As the chart starts it; that nobody is at home at the API server changes no name.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    let nowhere = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    });
    std::fs::write(&kubeconfig, nowhere.to_string()).expect("a new file");
    let reach = Reach::start([
        "--presets",
        text(&root().join("examples/presets")),
        "--kubeconfig",
        text(&kubeconfig),
        "--namespace=reach-system",
        "--service=reach",
        "--webhook-configuration=reach",
        "--ca-secret=reach-ca",
    ]);
    let published = reach.status("/metrics").body;
    let mut expressions = dashboard_expressions();
    visit(&rules(&enabled()), &mut |key, value| {
        if key == "expr" {
            expressions.push(value.as_str().expect("text").to_owned());
        }
    });
    let mut seen = HashSet::new();
    for expression in &expressions {
        for word in expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')) {
            if word.starts_with("reach_") {
                assert!(
                    published
                        .lines()
                        .any(|line| line.starts_with(word) && line[word.len()..].starts_with(['{', ' '])),
                    "{word} of {expression} is not in:\n{published}"
                );
                seen.insert(word);
            }
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
    let outcomes =
        expressions.iter().find_map(|expression| expression.split_once("outcome=~\"")).expect("outcomes");
    for outcome in outcomes.1.split_once('"').expect("an end").0.split('|') {
        assert!(published.contains(&format!("reach_reviews_total{{outcome=\"{outcome}\"}}")), "{outcome}");
    }
}
