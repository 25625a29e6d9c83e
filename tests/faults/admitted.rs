//! Pods on their way through a real API server, as other webhooks and odd users shape them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use hyper_util::service::TowerToHyperService;
use reach::certs;
use reach::server::{ConnectionMetrics, Drain, Limits, Server};
use serde_json::{Value, json};

use crate::report::{Row, Size, percentiles};
use crate::stage::Stage;
use crate::support::eventually;
use crate::support::load::Api;
use crate::support::review::{patch, review_of};
use crate::tenancy::{Cluster, annotation, env, pod, registration};

/// What the preset of [`with_proxy`] makes of a container without variables.
const PROXY: [&str; 4] = [
    "http_proxy=http://p:3128",
    "HTTP_PROXY=http://p:3128",
    "no_proxy=.svc,svc,localhost,127.0.0.1",
    "NO_PROXY=.svc,svc,localhost,127.0.0.1",
];

/// What it makes of one that has `no_proxy=redis`.
const MERGED: [&str; 4] = [
    "no_proxy=.redis,redis,.svc,svc,localhost,127.0.0.1",
    "http_proxy=http://p:3128",
    "HTTP_PROXY=http://p:3128",
    "NO_PROXY=.redis,redis,.svc,svc,localhost,127.0.0.1",
];

/// A namespace with a preset, and a client.
pub fn with_proxy(cluster: &Cluster, namespace: &str) -> Api {
    cluster.namespace(namespace, &json!({}));
    cluster.cluster_preset(
        namespace,
        &format!("{namespace}-proxy"),
        &json!({"env": [{"name": "http_proxy", "value": "http://p:3128"}, {"name": "no_proxy", "value": ".svc"}]}),
    );
    Api::new(cluster.control_plane.kubeconfig())
}

/// The path of pods of a namespace.
pub fn pods(namespace: &str, is_dry: bool) -> String {
    let query = if is_dry { "?dryRun=All" } else { "" };
    format!("/api/v1/namespaces/{namespace}/pods{query}")
}

// === 2 ===

/// Row 2: one pod in two gets its sidecar before its own container, so that nothing stands where it was.
pub fn pods_that_another_webhook_changes_are_injected_exactly_once(stage: &Stage) {
    let cluster = stage.tenancy();
    let namespace = "reinvoked";
    let api = with_proxy(cluster, namespace);
    let sidecars = Sidecars::start();
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    // Webhooks are called in the order of the names of their configurations: this one comes after `reach`.
    let mut other = registration("sidecars", &sidecars.url, &sidecars.ca, &selector);
    other["webhooks"][0]["name"] = json!("sidecars.example.com");
    other["webhooks"][0]["rules"].as_array_mut().expect("rules").truncate(1);
    other["webhooks"][0]["reinvocationPolicy"] = json!("Never");
    cluster.apply(&json!([other]));
    let own = json!([{"name": "no_proxy", "value": "redis"}]);
    let pod = |place: &str| pod(&json!({"sidecar": place}), &own);
    eventually("the other webhook is called", || {
        let pod = api.create(&pods(namespace, true), &pod("last"))?;
        if pod["spec"]["containers"][1]["name"] == "sidecar" { Ok(()) } else { Err(pod.to_string()) }
    });

    let (mut times, mut failed, mut wrong) = (Vec::new(), 0, Vec::new());
    let count = Size::wanted().of(40, 1000);
    for number in 0..count {
        let place = if number % 2 == 0 { "first" } else { "last" };
        let start = Instant::now();
        match api.create(&pods(namespace, number % 20 != 0), &pod(place)) {
            Err(_) => failed += 1,
            Ok(stored) => {
                times.push(start.elapsed());
                let is_right = stored["spec"]["containers"].as_array().map(Vec::len) == Some(2)
                    && env(&stored, "web") == MERGED
                    && env(&stored, "sidecar") == PROXY
                    && annotation(&stored, "presets") == Some("ClusterPodPreset/reinvoked-proxy@1");
                if !is_right {
                    wrong.push(stored["spec"].clone());
                }
            }
        }
    }
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "sidecars"]);
    let _recorded = Row {
        number: "2",
        fault: "another webhook adds a sidecar after reach, before or behind the container",
        done: format!("{count} pods, each reviewed twice (reinvocationPolicy: IfNeeded)"),
        calls: count,
        failed,
        uninjected: wrong.len(),
        latency: percentiles(&mut times),
        recovery: None,
        more: "both containers have each variable exactly once".to_owned(),
    }
    .record();
    assert_eq!((failed, wrong.first()), (0, None));
}

/// A webhook that adds a sidecar to each pod. It serves until it is dropped.
struct Sidecars {
    url: String,
    ca: String,
    _runtime: tokio::runtime::Runtime,
}

impl Sidecars {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let made = certs::self_made(&["127.0.0.1".to_owned()]).expect("a certificate");
        let tls = certs::server_config(Arc::clone(&made.resolver), None).expect("a configuration");
        let server = Server::new(Limits::default(), ConnectionMetrics::default()).with_tls(tls);
        let bound = runtime.block_on(async { server.bind(([127, 0, 0, 1], 0).into()) }).expect("a free port");
        let url = format!("https://{}/", bound.address());
        let router = Router::new().route("/", post(async |body: Bytes| add_sidecar(&body)));
        runtime.spawn(bound.serve(TowerToHyperService::new(router), Drain::default()));
        Self { url, ca: made.ca_pem, _runtime: runtime }
    }
}

fn add_sidecar(review: &[u8]) -> String {
    let review: Value = serde_json::from_slice(review).expect("a review");
    let is_first = review["request"]["object"]["metadata"]["labels"]["sidecar"] == "first";
    let position = if is_first { "0" } else { "-" };
    let path = format!("/spec/containers/{position}");
    let operations = json!([{"op": "add", "path": path, "value": {"name": "sidecar", "image": "sidecar"}}]);
    let response = json!({
        "uid": review["request"]["uid"],
        "allowed": true,
        "patchType": "JSONPatch",
        "patch": base64_simd::STANDARD.encode_to_string(operations.to_string()),
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

// === 26 ===

fn container(name: &str, env: &Value) -> Value {
    json!({"name": name, "image": "x", "env": env})
}

fn bare() -> Value {
    pod(&json!({}), &json!([]))
}

/// Row 26.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn pods_that_are_not_ours_are_untouched_and_large_ones_take_no_time(stage: &Stage) {
    let cluster = stage.tenancy();
    let namespace = "shapes";
    let api = with_proxy(cluster, namespace);
    let (mut calls, mut more) = (0, Vec::new());
    let mut create = |namespace: &str, pod: &Value| {
        calls += 1;
        api.create(&pods(namespace, true), pod).unwrap_or_else(|error| panic!("{namespace}: {error}"))
    };

    // As a kubelet writes it: bound to its node, without a service account.
    let mut mirror = bare();
    mirror["metadata"] = json!({
        "name": "static-node",
        "annotations": {"kubernetes.io/config.mirror": "1f2a", "kubernetes.io/config.source": "file"},
    });
    mirror["spec"]["nodeName"] = json!("node");
    let mut opted_out = bare();
    opted_out["metadata"]["labels"] = json!({"reach.dev/injection": "disabled"});
    let untouched = [
        ("a mirror pod", create(namespace, &mirror)),
        ("a pod of kube-system", create("kube-system", &bare())),
        ("a pod that opted out", create(namespace, &opted_out)),
    ];
    let mut windows = bare();
    windows["spec"]["os"] = json!({"name": "windows"});
    let windows = create(namespace, &windows);

    // What others make of a pod, and what that costs.
    let list = (0..60_000).map(|number| format!("h{number}.example")).collect::<Vec<_>>().join(",");
    let long = json!([{"name": "no_proxy", "value": list}]);
    let medium = json!([{"name": "no_proxy", "value": &list[..8 * 1024]}]);
    let many: Vec<Value> =
        (0..10_000).map(|number| json!({"name": format!("V{number}"), "value": "x"})).collect();
    let of = |count: usize, env: &Value| {
        let mut pod = bare();
        pod["spec"]["containers"] =
            (0..count).map(|number| container(&format!("c{number}"), env)).collect::<Vec<_>>().into();
        pod
    };
    let mut unbounded = Vec::new();
    let (mut refused, mut uninjected) = (0, 0);
    for (what, pod) in [
        ("500 containers", of(500, &json!([]))),
        ("10,000 variables", of(1, &json!(many))),
        ("100 containers with a no_proxy of 8 KiB each", of(100, &medium)),
        ("a no_proxy of 60,000 names", of(1, &long)),
        ("5,000 containers", of(5_000, &json!([]))),
    ] {
        let mut review = review_of(&pod);
        review["request"]["namespace"] = json!(namespace);
        let times = (0..Size::wanted().of(3, 20)).map(|_| {
            let start = Instant::now();
            let response = cluster.reach.review(&review);
            (start.elapsed(), response)
        });
        let (mut times, answers): (Vec<Duration>, Vec<Value>) = times.unzip();
        times.sort_unstable();
        let patch = patch(&answers[0]).map_or(0, |patch| patch.to_string().len());
        let stored = api.create(&pods(namespace, true), &pod);
        calls += 1 + times.len();
        uninjected += if patch == 0 { times.len() } else { 0 };
        refused += usize::from(stored.is_err());
        more.push(format!(
            "{what}: {} KB, {:.1} ms, {}",
            review.to_string().len() / 1000,
            times[times.len() / 2].as_secs_f64() * 1000.0,
            if patch > 0 {
                format!("patch {} KB", patch / 1000)
            } else {
                "not injected, with a warning".to_owned()
            },
        ));
        // The API server has limits of its own; ours is that the patch is not the reason.
        if patch > 256 * 1024 || (patch == 0 && answers[0]["warnings"][0].is_null()) {
            unbounded.push(what);
        }
        if let Err(error) = stored {
            assert!(!error.contains("reach"), "{what}: {error}");
        }
    }

    let named = |name: &str| {
        let mut pod = bare();
        pod["metadata"]["name"] = json!(name);
        pod
    };
    calls += 2;
    api.create(&pods(namespace, false), &named("debugged")).expect("a pod");
    let path = format!("/api/v1/namespaces/{namespace}/pods/debugged");
    let mut whole = api.get(&path).expect("the pod");
    whole["spec"]["ephemeralContainers"] =
        json!([{"name": "debug", "image": "x", "targetContainerName": "web"}]);
    let debugged = api.replace(&format!("{path}/ephemeralcontainers"), &whole);

    let _recorded = Row {
        number: "26",
        fault: "pods that are not to be touched, and pods as large as they get",
        done:
            "a mirror pod, a pod of kube-system, one that opted out, a Windows pod, an ephemeral container; \
               then each large one"
                .to_owned(),
        calls,
        failed: refused,
        uninjected,
        latency: None,
        recovery: None,
        more: more.join("; "),
    }
    .record();
    for (what, pod) in untouched {
        assert_eq!((env(&pod, "web"), annotation(&pod, "presets")), (vec![], None), "{what}");
    }
    assert_eq!(env(&windows, "web"), PROXY, "variables are for every system");
    assert_eq!(env(&debugged, "debug"), PROXY);
    assert_eq!(env(&debugged, "web"), PROXY, "from when it was made");
    assert_eq!(unbounded, [""; 0]);
}

// === 28 ===

/// Row 28.
pub fn dry_runs_show_what_is_stored_and_store_nothing(stage: &Stage) {
    let cluster = stage.tenancy();
    let namespace = "dry";
    let api = with_proxy(cluster, namespace);
    let count = Size::wanted().of(20, 500);
    let (mut times, mut differ, mut stored) = (Vec::new(), 0, 0);
    let before = api.get(&pods(namespace, false)).expect("pods");
    for number in 0..count {
        let own: Vec<Value> =
            (0..number % 4).map(|own| json!({"name": format!("V{own}"), "value": "x"})).collect();
        let mut pod = pod(&json!({"app": format!("app-{number}")}), &json!(own));
        pod["metadata"]["name"] = json!(format!("web-{number}"));
        let start = Instant::now();
        let dry = api.create(&pods(namespace, true), &pod).expect("a dry run");
        times.push(start.elapsed());
        // The one that says it, to reach.
        let mut reviews = [review_of(&pod), review_of(&pod)];
        for (review, is_dry) in reviews.iter_mut().zip([true, false]) {
            review["request"]["namespace"] = json!(namespace);
            review["request"]["dryRun"] = json!(is_dry);
        }
        let answers = reviews.map(|review| cluster.reach.review(&review).to_string());
        let mut is_same = answers[0] == answers[1];
        if number % 10 == 0 {
            let real = api.create(&pods(namespace, false), &pod).expect("a pod");
            stored += 1;
            for part in ["/spec/containers/0/env", "/spec/volumes", "/metadata/annotations"] {
                is_same &= without_tokens(dry.pointer(part)) == without_tokens(real.pointer(part));
            }
        }
        differ += usize::from(!is_same);
    }
    let after = api.get(&pods(namespace, false)).expect("pods");
    let there = |list: &Value| list["items"].as_array().map_or(0, Vec::len);
    let is_written = there(&after) - there(&before) - stored;
    let _recorded = Row {
        number: "28",
        fault: "dry runs",
        done: format!("{count} pods as dry runs, {stored} of them created after that"),
        calls: 3 * count + stored,
        failed: 0,
        uninjected: differ,
        latency: percentiles(&mut times),
        recovery: None,
        more: format!(
            "{differ} answers differ; {is_written} objects written (reach may only list and watch here: a write would fail)"
        ),
    }
    .record();
    assert_eq!((differ, is_written), (0, 0));
}

/// Volumes without that of the service account, whose name the API server makes up.
fn without_tokens(value: Option<&Value>) -> Option<Value> {
    let mut value = value?.clone();
    if let Some(items) = value.as_array_mut() {
        items.retain(|item| !item["name"].as_str().unwrap_or_default().starts_with("kube-api-access-"));
    }
    Some(value)
}
