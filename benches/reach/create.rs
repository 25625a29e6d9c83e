//! What the webhook adds to the creation of a pod by a real API server, which calls it through its Service.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::report::Row;
use super::support::control_plane::{ControlPlane, Options};
use super::support::installation::{API_SERVER_FLAG, Installation, VARIABLE, is_injected};
use super::support::kubectl::Kubectl as _;
use super::support::load::pod;
use super::support::serve;

/// Pods of each kind. They are dry runs: what is stored afterwards is the same for both.
const PODS: usize = 4000;
/// Those before, which do not count.
const WARM_UP: usize = 400;

/// Creates pods in turns where the webhook is called and where it is not.
pub fn measure() -> Vec<Row> {
    let control_plane = ControlPlane::start(Options::default().with_api_server_flag(API_SERVER_FLAG));
    let crds = serve::command()
        .args(["crds", "--apply", "--kubeconfig"])
        .arg(control_plane.kubeconfig())
        .status()
        .expect("reach runs");
    assert!(crds.success(), "reach crds --apply");
    let names = ["podpresets.reach.dev", "clusterpodpresets.reach.dev"];
    control_plane
        .ask(&[&["wait", "--for=condition=Established", "--timeout=60s", "crd"], &names[..]].concat());
    let (name, value) = VARIABLE;
    control_plane.apply(&json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": "corporate-proxy"},
        "spec": {"env": [
            {"name": name, "value": value},
            {"name": "https_proxy", "value": value},
            {"name": "no_proxy", "value": ".svc,.cluster.local,10.96.0.0/12"},
        ]},
    }));
    let release = Installation::new(&control_plane, "bench", &json!({}));
    let _replicas = release.serve(1);
    control_plane.create_namespace("without");

    let api = &release.apis[0];
    let create = |namespace: &str| -> (Duration, Value) {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let start = Instant::now();
        let created = api.create(&path, &pod());
        (start.elapsed(), created.expect("a pod"))
    };
    let (mut with, mut without) = (Vec::with_capacity(PODS), Vec::with_capacity(PODS));
    for number in 0..WARM_UP + PODS {
        let (time_with, injected) = create(&release.pods);
        let (time_without, bare) = create("without");
        assert!(is_injected(&injected) && !is_injected(&bare), "the webhook is called for one of the two");
        if number >= WARM_UP {
            with.push(time_with);
            without.push(time_without);
        }
    }
    with.sort_unstable();
    without.sort_unstable();
    let millis = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    let row = |what: &str, times: &[Duration], percent| {
        Row::new(format!("create: a pod {what} the webhook, p{percent}"), millis(times, percent), "ms")
    };
    let added = |percent, wanted| {
        let added = millis(&with, percent) - millis(&without, percent);
        Row::new(format!("create: added by the webhook, p{percent}"), added, "ms").below(wanted)
    };
    vec![
        row("without", &without, 50),
        row("with", &with, 50),
        added(50, 0.5),
        row("without", &without, 99),
        row("with", &with, 99),
        added(99, 2.0),
    ]
}
