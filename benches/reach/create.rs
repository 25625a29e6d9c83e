//! What the webhook adds to the creation of a pod by a real API server, which calls it through its Service; and what one
//! adds that answers the same without looking.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{self, Process};
use super::report::Row;
use super::support::control_plane::{ControlPlane, Options};
use super::support::eventually;
use super::support::installation::{
    API_SERVER_FLAG, Installation, VARIABLE, base64, is_injected, own_address,
};
use super::support::kubectl::Kubectl as _;
use super::support::load::pod;
use super::support::serve;
use super::{constant, load};

/// Pods of each kind. They are dry runs: what is stored afterwards is the same for both.
const PODS: usize = 4000;
/// Those before, which do not count.
const WARM_UP: usize = 400;
/// The namespace whose pods the constant webhook gets, and its name.
const CONSTANT: &str = "constant";

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
    let preset = json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": "corporate-proxy"},
        "spec": {"env": [
            {"name": name, "value": value},
            {"name": "https_proxy", "value": value},
            {"name": "no_proxy", "value": ".svc,.cluster.local,10.96.0.0/12"},
        ]},
    });
    control_plane.apply(&preset);
    let release = Installation::new(&control_plane, "bench", &json!({}));
    let _replicas = release.serve(1);
    control_plane.create_namespace("without");
    control_plane.create_namespace(CONSTANT);
    let _constant = serve_constant(&release, &preset);

    let api = &release.apis[0];
    let create = |namespace: &str| -> (Duration, Value) {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let start = Instant::now();
        let created = api.create(&path, &pod());
        (start.elapsed(), created.expect("a pod"))
    };
    eventually("the constant webhook is called", || {
        is_injected(&create(CONSTANT).1).then_some(()).ok_or("it is not")
    });
    let mut times = [(release.pods.as_str(), true), ("without", false), (CONSTANT, true)]
        .map(|(namespace, injects)| (namespace, injects, Vec::with_capacity(PODS)));
    for number in 0..WARM_UP + PODS {
        for (namespace, injects, times) in &mut times {
            let (time, created) = create(namespace);
            assert_eq!(is_injected(&created), *injects, "a pod in {namespace} is injected");
            if number >= WARM_UP {
                times.push(time);
            }
        }
    }
    let [with, without, constant] = times.map(|(_, _, mut times)| {
        times.sort_unstable();
        times
    });
    let millis = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    let row = |what: &str, times: &[Duration], percent| {
        Row::new(format!("create: a pod {what} the webhook, p{percent}"), millis(times, percent), "ms")
    };
    let added = |what: &str, times: &[Duration], percent| {
        let added = millis(times, percent) - millis(&without, percent);
        Row::new(format!("create: added by {what}, p{percent}"), added, "ms")
    };
    let constant_answer = "a webhook that gives the same answer without looking";
    vec![
        row("without", &without, 50),
        row("with", &with, 50),
        added("the webhook", &with, 50).below(0.5),
        added(constant_answer, &constant, 50),
        row("without", &without, 99),
        row("with", &with, 99),
        added("the webhook", &with, 99).below(2.0),
        added(constant_answer, &constant, 99),
    ]
}

/// Starts a server that answers each review as reach does with this preset, and has the API server call it through a Service
/// as it calls reach, for the pods of a namespace.
fn serve_constant(release: &Installation<'_>, preset: &Value) -> Process {
    let folder = process::folder();
    let file = |name| folder.path().join(name);
    let (presets, answer, ca) = (file("presets.json"), file("answer.json"), file("ca.pem"));
    fs::write(&presets, preset.to_string()).expect("a new file");
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "operation": "CREATE", "namespace": CONSTANT,
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": pod(),
    }});
    let reach = process::Reach::start(["--presets".as_ref(), presets.as_os_str()]);
    reach.await_ready();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answered = runtime.block_on(async {
        let mut client = load::Client::connect(1, reach.webhook, &reach.ca()).await?;
        client.answer(&load::request(review.to_string().as_bytes())).await
    });
    fs::write(&answer, answered.expect("an answer")).expect("a new file");

    let Installation { namespace, .. } = release;
    let (process, address) = constant::start(constant::Options {
        ca: &ca,
        answer: &answer,
        listen: (own_address(), 0).into(),
        name: &format!("{CONSTANT}.{namespace}.svc"),
        echo: true,
    })
    .expect("it serves");
    let mut configuration = release.manifest.clone();
    configuration["metadata"] = json!({"name": CONSTANT});
    for webhook in configuration["webhooks"].as_array_mut().expect("webhooks") {
        webhook["clientConfig"]["service"]["name"] = CONSTANT.into();
        webhook["clientConfig"]["caBundle"] = base64(fs::read(&ca).expect("its CA")).into();
        webhook["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": CONSTANT}});
    }
    let service = &configuration["webhooks"][0]["clientConfig"]["service"];
    let port = service["port"].as_u64().unwrap_or(443);
    let metadata = |labels| json!({"name": CONSTANT, "namespace": namespace, "labels": labels});
    release.control_plane().apply(&json!([
        {
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(json!({})),
            "spec": {"ports": [{"name": "https", "port": port, "targetPort": address.port()}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(json!({"kubernetes.io/service-name": CONSTANT})),
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
        },
        configuration,
    ]));
    process
}
