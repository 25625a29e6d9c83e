//! What changes while reach serves: presets, namespaces, replicas, the API server.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, OWN_WEBHOOK, annotation, env, pod, pod_preset, registration};
use crate::support::eventually;
use crate::support::http::post;
use crate::support::review::review_of;
use crate::support::serve::{PATH, Reach};

fn timezone(zone: &str) -> Value {
    json!({"env": [{"name": "TZ", "value": zone}]})
}

/// Waits until a new pod has exactly these variables.
#[track_caller]
fn await_env(cluster: &Cluster, namespace: &str, expected: &[&str]) {
    eventually(&format!("a new pod has {expected:?}"), || {
        let env = env(&cluster.dry_run(namespace, &pod(&json!({}), &json!([]))), "web");
        if env == expected { Ok(()) } else { Err(format!("{env:?}")) }
    });
}

pub fn of_presets_show_in_the_next_pod(cluster: &Cluster) {
    let namespace = "changing";
    cluster.namespace(namespace, &json!({}));
    cluster.apply(&json!([pod_preset(namespace, "tz", &timezone("UTC"))]));
    await_env(cluster, namespace, &["TZ=UTC"]);
    let first = cluster.create(namespace, &pod(&json!({}), &json!([])));
    cluster.apply(&json!([pod_preset(namespace, "tz", &timezone("CET"))]));
    await_env(cluster, namespace, &["TZ=CET"]);
    let second = cluster.create(namespace, &pod(&json!({}), &json!([])));
    assert_eq!(annotation(&first, "presets"), Some("PodPreset/tz@1"));
    assert_eq!(annotation(&second, "presets"), Some("PodPreset/tz@2"));
    assert_ne!(annotation(&first, "hash"), annotation(&second, "hash"), "it tells that they differ");
    cluster.kubectl(&["delete", "pp", "tz", "-n", namespace]);
    await_env(cluster, namespace, &[]);
    let third = cluster.create(namespace, &pod(&json!({}), &json!([])));
    assert_eq!(annotation(&third, "presets"), None);
}

pub fn of_namespace_labels_show_in_the_next_pod(cluster: &Cluster) {
    let namespace = "labelled";
    cluster.namespace(namespace, &json!({}));
    let mut preset = crate::cluster::cluster_pod_preset(namespace, "labelled", &timezone("UTC"));
    preset["spec"]["namespaceSelector"] = json!({"matchLabels": {"e2e.example/labelled": "yes"}});
    cluster.apply(&json!([preset]));
    cluster.kubectl(&["label", "namespace", namespace, "e2e.example/labelled=yes"]);
    await_env(cluster, namespace, &["TZ=UTC"]);
    cluster.kubectl(&["label", "namespace", namespace, "reach.dev/injection=disabled"]);
    await_env(cluster, namespace, &[]);
    cluster.kubectl(&["label", "namespace", namespace, "reach.dev/injection-"]);
    await_env(cluster, namespace, &["TZ=UTC"]);
    cluster.kubectl(&["label", "namespace", namespace, "e2e.example/labelled-"]);
    await_env(cluster, namespace, &[]);
}

/// A pod can be reviewed before the watch has told of its namespace.
pub fn of_namespaces_are_waited_for(cluster: &Cluster) {
    let probe = json!({"spec": {"containers": [{"name": "web"}]}});
    let answered = |attempt: u32| {
        let namespace = format!("awaited-{attempt}");
        let mut review = review_of(&probe);
        review["request"]["namespace"] = json!(namespace);
        let reply = thread::scope(|scope| {
            let reply = scope.spawn(|| cluster.reach.send(&post(PATH, review.to_string())));
            // The review is to arrive first; if it does not, this shows less, and nothing fails.
            thread::sleep(Duration::from_millis(100));
            cluster.kubectl(&["create", "namespace", &namespace]);
            reply.join().expect("no panic")
        });
        reply.expect("a reply").status == 200
    };
    // reach waits for a second, and on a busy machine kubectl may take longer, but not always.
    assert!((0..5).any(answered), "a review is answered once its namespace is there");
}

/// A rolling update, as far as admission sees it: one replica drains while the registration moves to the next one. (There
/// is no Service here; a changed registration reaches the API server as late as a changed endpoint would.)
pub fn of_replicas_fail_no_pod(cluster: &Cluster) {
    let namespace = "rolling";
    cluster.namespace(namespace, &json!({OWN_WEBHOOK: "rolling"}));
    cluster.cluster_preset(namespace, "rolling", &timezone("UTC"));
    let start = || {
        // Long enough for a registration to arrive on a busy machine.
        let mut arguments = vec!["--drain".as_ref(), "5".as_ref(), "--kubeconfig".as_ref()];
        arguments.push(cluster.kubeconfig.path().as_os_str());
        let reach = Reach::start(arguments);
        reach.await_ready();
        reach
    };
    let register = |reach: &Reach| {
        let selector = json!({"matchLabels": {OWN_WEBHOOK: "rolling"}});
        cluster.apply(&json!([registration("rolling", &reach.url(), &reach.ca(), &selector)]));
    };
    let (mut old, new) = (start(), start());
    register(&old);
    await_env(cluster, namespace, &["TZ=UTC"]);

    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let make = || {
        // As many connections at once as there are threads.
        while !done.load(Ordering::Relaxed) {
            let pods = vec![pod(&json!({}), &json!([])); 10];
            let (stored, _) = cluster.create_all(namespace, &pods, &["--dry-run=server"]);
            assert!(stored.iter().all(|pod| env(pod, "web") == ["TZ=UTC"]), "{stored:?}");
            count.fetch_add(stored.len(), Ordering::Relaxed);
        }
    };
    let more = |pods: usize| {
        let goal = count.load(Ordering::Relaxed) + pods;
        eventually("pods are made", || {
            let now = count.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(now.to_string()) }
        });
    };
    let status = thread::scope(|scope| {
        // Also when this thread panics, so that the others end.
        let _done = SetOnDrop(&done);
        for _ in 0..3 {
            scope.spawn(make);
        }
        more(30);
        old.signal(Signal::TERM);
        more(30);
        assert!(!old.has_ended(), "it drains");
        register(&new);
        let status = old.await_end();
        more(30);
        status
    });
    assert_eq!(status.code(), Some(0));
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "rolling"]);
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn are_counted_in_metrics(cluster: &Cluster) {
    let metric = |name: &str| cluster.reach.metric(name);
    let injected = "reach_reviews_total{outcome=\"injected\"}";
    let before = metric(injected).expect(injected);
    cluster.cluster_preset(
        "started",
        "counted",
        &json!({"selector": {"matchLabels": {"app": "counted"}}, "env": [{"name": "A"}]}),
    );
    assert_eq!(env(&cluster.create("started", &pod(&json!({}), &json!([]))), "web"), ["STARTED=yes"]);
    assert!(metric(injected).expect(injected) > before);
    for name in [
        "reach_injections_total",
        "reach_presets{kind=\"PodPreset\"}",
        "reach_presets{kind=\"ClusterPodPreset\"}",
        "reach_presets_changed_timestamp_seconds",
        "reach_review_duration_seconds_count",
        "reach_serving_certificate_expiry_timestamp_seconds",
        "reach_connections_accepted_total{listener=\"webhook\"}",
    ] {
        let value = metric(name);
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {value:?}");
    }
    assert_eq!(metric(&format!("reach_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), Some(1.0));
    for outcome in ["unreadable", "panicked", "bad_request", "overloaded", "timed_out"] {
        let name = format!("reach_reviews_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(&name), Some(0.0), "{name}");
    }
}

pub fn of_the_api_server_leave_the_last_presets_serving(cluster: &Cluster) {
    let namespace = "restarted";
    cluster.namespace(namespace, &json!({}));
    cluster.preset(namespace, "tz", &timezone("UTC"));
    let probe = json!({"spec": {"containers": [{"name": "web"}]}});
    let answer = || cluster.ask(namespace, &probe).map(|patch| patch.to_string()).unwrap_or_default();

    cluster.control_plane.stop_api_server();
    cluster.reach.await_metric("reach_presets_stale", 1.0);
    assert_eq!(cluster.reach.status("/readyz").status, 200, "it has presets to serve");
    assert!(answer().contains("UTC"), "{}", answer());
    cluster.control_plane.start_api_server();

    cluster.apply(&json!([pod_preset(namespace, "tz", &timezone("CET"))]));
    await_env(cluster, namespace, &["TZ=CET"]);
    cluster.reach.await_metric("reach_presets_stale", 0.0);
}
