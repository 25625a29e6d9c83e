//! Client certificates: only those may call that a CA vouches for, and of those only some names.

use std::io;

use serde_json::json;

use crate::cluster::{API_SERVER, Cluster, KNOWN};
use crate::support::helm::text;
use crate::support::http::{self, Reply};
use crate::support::installation::{Installation, is_injected};
use crate::support::pki::{Ca, Pair};
use crate::support::review::review_of;
use crate::support::serve::{PATH, Reach};

/// Pods for each question.
const PODS: usize = 20;

pub fn without_the_right_certificate_are_refused(cluster: &Cluster) {
    let release = install(cluster, KNOWN, "Fail");
    let replicas = release.serve(2);
    let ca = &cluster.clients.ca;
    let also_named = ca.client("monitoring.example");
    let wrong_name = ca.client("somebody.example");
    let wrong_ca = Ca::new("CA of clients").client(API_SERVER);
    let expected = [
        ("the API server's", Some(&cluster.clients.api_server), true),
        ("another allowed name", Some(&also_named), true),
        ("wrong name", Some(&wrong_name), false),
        ("right name of a wrong CA", Some(&wrong_ca), false),
        ("none", None, false),
    ];
    let mut said = Vec::new();
    for (what, identity, accepted) in expected {
        for reach in &replicas {
            let reply = ask(&release, reach, identity);
            match reply {
                Ok(reply) => {
                    assert!(accepted, "{what}: {reply:?}");
                    assert_eq!(reply.status, 200, "{what}: {reply:?}");
                    assert!(reply.json()["response"]["patch"].is_string(), "{what}: {reply:?}");
                }
                Err(error) => assert!(!accepted, "{what}: {error}"),
            }
        }
        said.push(format!("{what} {}", if accepted { "accepted" } else { "refused" }));
    }

    // Through the API servers, which have a certificate for this release only.
    let injected = create(&release);
    assert_eq!(injected, 2 * PODS);
    let control = install(cluster, "unknown", "Ignore");
    let control_replicas = control.replicas(2);
    for reach in &control_replicas {
        reach.await_ready();
    }
    control.route(&control_replicas);
    let before = fail_open(&control);
    assert_eq!(create(&control), 0);
    let open = fail_open(&control) - before;
    println!(
        "clients: {}; API servers with a client certificate: {injected} of {} pods injected; without one: 0 of {}, {open} \
         counted as failed open",
        said.join(", "),
        2 * PODS,
        2 * PODS
    );
    assert_eq!(open, 2 * PODS);
}

fn install<'c>(cluster: &'c Cluster, name: &str, policy: &str) -> Installation<'c> {
    let names = json!([API_SERVER, "monitoring.example"]);
    let clients = json!({"enabled": true, "caConfigMap": "client-ca", "names": names});
    let release = cluster.install(name, &json!({"clientAuth": clients, "failurePolicy": policy}));
    // Mounted from the ConfigMap in a pod.
    release.with_argument("--client-ca", text(&cluster.clients.ca_file()))
}

/// Sends a review, with or without a client certificate.
fn ask(release: &Installation<'_>, reach: &Reach, identity: Option<&Pair>) -> io::Result<Reply> {
    let bundle = release.bundle(&release.apis[0]);
    let mut review = review_of(&json!({"spec": {"containers": [{"name": "web"}]}}));
    // The presets of any namespace that exists do.
    review["request"]["namespace"] = json!(release.pods);
    let stream = http::handshake(reach.webhook, &release.server_name(), &bundle, "http/1.1", identity)?;
    http::exchange(stream, &http::post(PATH, review.to_string()))
}

/// Asks each API server for pods, and returns how many were injected.
fn create(release: &Installation<'_>) -> usize {
    let pods = release.apis.iter().flat_map(|api| std::iter::repeat_n(api, PODS));
    pods.filter(|api| is_injected(&release.dry_run(api).expect("a pod"))).count()
}

/// Calls that failed and were ignored, as the API servers count them.
fn fail_open(release: &Installation<'_>) -> usize {
    let name = "apiserver_admission_webhook_fail_open_count{";
    let metrics = release.apis.iter().map(|api| api.text("/metrics"));
    let counts = metrics.flat_map(|text| {
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains("pods.reach.dev"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).collect::<Vec<_>>()
    });
    counts.sum()
}
