//! Values that may be secrets: where they must not be, everything being logged that can be.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::report::{Row, Size, percentiles};
use crate::stage::Stage;
use crate::support::eventually;
use crate::support::http::{self, post, request};
use crate::support::installation::{Installation, base64, value};
use crate::support::review::{patch, review_of};
use crate::support::serve::{PATH, command};
use crate::tenancy::{OWN_WEBHOOK, pod, pod_preset, stderr};

/// What is searched for. Whatever it is part of has it as a whole.
const CANARY: &str = "c4n4ry-s3cr3t";

/// Text that is searched, by where it is from.
type Outputs = Vec<(String, String)>;

fn value_of(place: &str) -> String {
    format!("{CANARY}-{place}")
}

/// A proxy with a password, and variables from everywhere.
fn spec() -> Value {
    json!({"env": [
        {"name": "http_proxy", "value": format!("http://me:{}@p:3128", value_of("password"))},
        // Lint and the status of a preset say which entry is wrong, so entries are no secrets; a password in one is.
        {"name": "no_proxy", "value": format!(".corp.example,http://me:{}@mistake.example", value_of("list"))},
        {"name": "TOKEN", "value": value_of("preset")},
        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "token"}}},
    ]})
}

/// A pod with such values of its own.
fn secretive() -> Value {
    let mut pod = pod(
        &json!({"app": "web"}),
        &json!([{"name": "no_proxy", "value": format!("http://me:{}@own.example:80", value_of("own-list"))}, {"name": "OWN", "value": value_of("pod")}]),
    );
    pod["metadata"]["annotations"] = json!({"note": value_of("annotation")});
    pod["spec"]["containers"][0]["args"] = json!([value_of("argument")]);
    pod
}

/// Row 31.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn values_are_in_no_log_metric_event_warning_or_status(stage: &Stage) {
    let cluster = stage.tenancy();
    let release = Installation::new(
        &cluster.control_plane,
        "canary",
        &json!({"logLevel": "trace", "clusterApiHooks": {"enabled": true}}),
    );
    let api = &release.apis[0];
    // Not the shared reach's.
    cluster.kubectl(&["label", "namespace", &release.pods, &format!("{OWN_WEBHOOK}=canary")]);
    let path = format!("/api/v1/namespaces/{}/secrets", release.pods);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"},
        "data": {"token": base64(value_of("secret"))},
    });
    api.create(&path, &secret).expect("a Secret");
    cluster.apply(&json!([pod_preset(&release.pods, "canary", &spec())]));
    let conflicting = json!({
        "env": [{"name": "OWN", "value": value_of("conflict"), "mergeStrategy": "Replace"}],
        "volumes": [{"name": "v", "configMap": {"name": value_of("volume")}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    });
    cluster.apply(&json!([pod_preset(&release.pods, "conflicting", &conflicting)]));
    let replicas = release.replicas(2);
    for replica in &replicas {
        replica.await_ready();
    }
    release.route(&replicas);
    let pods = format!("/api/v1/namespaces/{}/pods", release.pods);
    eventually("pods are injected", || {
        let stored = api.create(&format!("{pods}?dryRun=All"), &secretive())?;
        if stored.to_string().contains(&value_of("preset")) { Ok(()) } else { Err("not yet".to_owned()) }
    });

    let (mut outputs, mut times) = (Outputs::new(), Vec::new());
    let count = Size::wanted().of(20, 1000);
    for _ in 0..count {
        let start = Instant::now();
        api.create(&format!("{pods}?dryRun=All"), &secretive()).expect("a pod");
        times.push(start.elapsed());
    }
    // What reach adds to a pod beside what it is told to, and what kubectl shows of it.
    let mut conflicted = secretive();
    conflicted["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let (stored, warnings) = cluster.create_with(&release.pods, &conflicted, &[]);
    for (key, value) in stored["metadata"]["annotations"].as_object().into_iter().flatten() {
        if key.starts_with("reach.dev/") {
            outputs.push((format!("annotation {key}"), value.to_string()));
        }
    }
    outputs.push(("warnings".to_owned(), warnings));
    let ca = release.ca().expect("the CA");
    for replica in &replicas {
        let connect = || {
            http::handshake(
                replica.webhook,
                &release.server_name(),
                std::slice::from_ref(&ca),
                "http/1.1",
                None,
            )
        };
        for (what, bytes) in what_is_wrong() {
            let reply = connect().and_then(|stream| http::exchange(stream, &bytes)).expect("an answer");
            assert_ne!(reply.head.len(), 0, "{what}");
            outputs.push((format!("answer to {what}"), reply.head + &reply.body));
        }
    }
    // Status is written a moment after a change.
    let written = eventually("the status of the preset is written", || {
        let path = format!("/apis/reach.dev/v1alpha1/namespaces/{}/podpresets/canary", release.pods);
        let status = api.get(&path).expect("the preset")["status"].clone();
        if status.is_object() { Ok(status.to_string()) } else { Err("none") }
    });
    outputs.push(("status".to_owned(), written));
    for what in ["events", "leases", "mutatingwebhookconfigurations"] {
        outputs.push((what.to_owned(), cluster.kubectl(&["get", what, "-A", "-o", "json"])));
    }
    for (number, replica) in replicas.iter().enumerate() {
        outputs.push((format!("log of replica {number}"), replica.stderr() + &replica.stdout()));
        for path in ["/metrics", "/readyz", "/livez", "/", "/debug/pprof/", "/debug", "/config", "/presets"] {
            let reply = replica.status(path);
            outputs.push((format!("{path} of replica {number}"), reply.head + &reply.body));
        }
    }
    let (of_commands, by_design) = commands();
    outputs.extend(of_commands);

    // The CA's key as PEM, and the token that reach shows to the API server.
    let ca = api.get(&release.ca_path()).expect("the CA's Secret");
    let key = String::from_utf8(value(&ca, "ca.key")).expect("PEM");
    let key = key.lines().find(|line| !line.starts_with("-----")).expect("a key").to_owned();
    let config: Value =
        serde_json::from_slice(&fs::read(release.kubeconfig()).expect("a kubeconfig")).expect("JSON");
    let token = config["users"][0]["user"]["token"].as_str().expect("a token").to_owned();
    let secrets =
        [CANARY.to_owned(), base64(value_of("secret")), key.clone(), base64(&key)[..40].to_owned(), token];
    let found: Vec<&str> = outputs
        .iter()
        .filter(|(_, text)| secrets.iter().any(|secret| text.contains(secret)))
        .map(|(place, _)| place.as_str())
        .collect();
    let bytes: usize = outputs.iter().map(|(_, text)| text.len()).sum();
    let traced = replicas.iter().all(|replica| replica.stderr().contains("\"level\":\"TRACE\""));
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "canary"]);
    let _recorded = Row {
        number: "31",
        fault: "secrets in presets, pods, Secrets, the key of the CA and reach's own token, everything logged at trace level",
        done: format!("{count} pods, what is wrong in every way, then all outputs searched"),
        calls: count,
        failed: 0,
        uninjected: 0,
        latency: percentiles(&mut times),
        recovery: None,
        more: format!(
            "found in {} of {} outputs ({} KB of logs of {} replicas, metrics, events, warnings, annotations, status, \
             error replies, output of commands); shown by commands that are asked for values: {}",
            found.len(),
            outputs.len(),
            bytes / 1000,
            replicas.len(),
            by_design.join(", "),
        ),
    }
    .record();
    assert!(traced, "they log everything they can");
    assert_eq!(found, [""; 0]);
}

/// Requests with the canary in them that are refused or not understood.
fn what_is_wrong() -> Vec<(&'static str, Vec<u8>)> {
    let good = review_of(&secretive()).to_string();
    let json = "content-type: application/json\r\n";
    let hook = "/hooks.runtime.cluster.x-k8s.io/v1alpha1/generatepatches/generate-patches";
    let bearer = format!("{json}authorization: Bearer {}\r\n", value_of("header"));
    vec![
        ("half a review", post(PATH, &good[..good.len() / 2])),
        ("a list of the wrong kind", post(PATH, good.replacen("\"env\":[", "\"env\":7,\"x\":[", 1))),
        ("a pod that cannot be read", post(PATH, good.replacen("\"name\":\"web\"", "\"name\":7", 1))),
        ("another path", post(&format!("/{}", value_of("path")), &good)),
        ("another method", request("PATCH", PATH, &bearer, &good)),
        ("no HTTP", format!("{}\r\n\r\n", value_of("line")).into_bytes()),
        ("a hook", post(hook, format!(r#"{{"kind":"{}"}}"#, value_of("hook")))),
    ]
}

/// Commands on manifests with the canary in them: what they print, and those that show values because that is what they are for.
fn commands() -> (Outputs, Vec<&'static str>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, object: &Value| {
        fs::write(folder.path().join(name), object.to_string()).expect("a file");
    };
    let mut preset = pod_preset("default", "canary", &spec());
    preset["metadata"]["generation"] = json!(1);
    fs::create_dir(folder.path().join("presets")).expect("a folder");
    write("presets/preset.json", &preset);
    let mut named = secretive();
    named["metadata"]["name"] = json!("web");
    named["metadata"]["namespace"] = json!("default");
    write("pod.json", &named);
    fs::create_dir(folder.path().join("bad")).expect("a folder");
    let mut bad =
        pod_preset("default", "bad", &json!({"env": [{"name": "A", "value": {"b": value_of("bad")}}]}));
    bad["spec"]["selector"] = json!({"matchLabels": {"a": value_of("not a label")}});
    write("bad/preset.json", &bad);
    fs::write(
        folder.path().join("environment"),
        format!("http_proxy=http://me:{0}@p\nno_proxy=me:{0}@file.example\nTOKEN={0}\n", value_of("file")),
    )
    .expect("a file");

    let run = |arguments: &[&str]| {
        let output = command()
            .args(arguments)
            .current_dir(folder.path())
            .env("RUST_LOG", "trace")
            .env("KUBECONFIG", Path::new("/dev/null"))
            .stdin(Stdio::null())
            .output()
            .expect("the binary");
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    };
    let passwords_only = value_of("password");
    let mut outputs = Outputs::new();
    let hidden: [&[&str]; 6] = [
        &["lint", "-f", "presets"],
        &["lint", "-f", "pod.json", "-o", "json"],
        &["lint", "--env", "environment"],
        &["lint", "-f", "bad"],
        &["inject", "-f", "pod.json", "--presets", "bad"],
        &["check", "--kubeconfig", "bad/preset.json"],
    ];
    for arguments in hidden {
        outputs.push((format!("reach {}", arguments.join(" ")), run(arguments)));
    }
    // These are asked for values. Passwords are nobody's question but that of `inject`, whose output is the pod.
    let mut shown = Vec::new();
    for (name, arguments) in [
        ("explain", &["explain", "-f", "pod.json", "--presets", "presets"][..]),
        ("no-proxy", &["no-proxy", "-n", "default", "--presets", "presets"]),
        ("route", &["route", "http://web.example/", "-f", "pod.json", "--presets", "presets"]),
        ("inject", &["inject", "-f", "pod.json", "--presets", "presets"]),
    ] {
        let text = run(arguments);
        if text.contains(&passwords_only) && name != "inject" && name != "explain" {
            outputs.push((format!("reach {name}: the password of a proxy"), text.clone()));
        }
        if text.contains(CANARY) {
            shown.push(name);
        }
    }
    (outputs, shown)
}

/// The patch is where values belong, and nothing else of an answer is.
pub fn values_are_in_the_patch_and_in_nothing_else_of_an_answer(stage: &Stage) {
    let cluster = stage.tenancy();
    cluster.namespace("answered", &json!({}));
    cluster.preset("answered", "canary", &spec());
    let mut review = review_of(&secretive());
    review["request"]["namespace"] = json!("answered");
    let mut response = cluster.reach.review(&review);
    assert!(patch(&response).is_some_and(|patch| patch.to_string().contains(CANARY)));
    response.as_object_mut().expect("a response").remove("patch");
    assert!(!response.to_string().contains(CANARY));
    cluster.kubectl(&["delete", "pp", "--all", "-n", "answered"]);
}
