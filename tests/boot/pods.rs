//! Pods in the cluster of the machine, in which reach is installed as its users do.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::journey::{CURL_IMAGE, Journey, MANIFESTS, REACH_IMAGE};
use crate::support::boot::{COMPANY_REGISTRY, OUTSIDE_REGISTRY};
use crate::support::cluster_api::ClusterApi;
use crate::support::eventually;
use crate::support::helm::{NAMESPACE, Version, objects, root, template};
use crate::support::kubectl::{self, Kubectl as _, succeeded};

/// The network of Services, as the manifests have it.
const SERVICES: &str = "10.96.0.0/12";

pub fn are_given_what_the_host_has(journey: &Journey) {
    let site = &journey.site;
    install(journey);
    let env = is_injected(journey, "shop");
    // The image of the pod, and reach's own, came through the proxy that the host has.
    let log = site.registry_log(OUTSIDE_REGISTRY);
    for image in [CURL_IMAGE, REACH_IMAGE] {
        let name = image.strip_prefix("ghcr.io/").and_then(|rest| rest.split(':').next()).expect("a name");
        assert!(log.contains(&format!("/v2/{name}/manifests/")), "{image} was not asked for: {log}");
    }

    // What the pod's programs see is what the host's do.
    for name in ["http_proxy", "https_proxy"] {
        assert!(env[name] == journey.variable(name), "{name} is another than the host's");
    }
    let entries = |list: &str| list.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
    let pod = entries(env["no_proxy"].as_str().expect("a list"));
    let host = entries(&journey.variable("no_proxy"));
    let missing: Vec<_> = pod.difference(&host).collect();
    assert!(missing.is_empty(), "the host has no {missing:?}");
    // What the host has besides is Cluster API's knowledge: its neighbours, and whom it asks.
    for entry in host.difference(&pod) {
        let is_name = [".svc", "svc", ".cluster.local", "cluster.local"].contains(&entry.as_str());
        let is_of_machines = entry.starts_with("172.31.90.") || entry.ends_with("vcenter.corp.example");
        assert!(is_name || is_of_machines, "pods have no {entry}");
    }

    // The outside through the proxy, the company past it.
    let fetch = |host: &str| {
        let url = format!("https://{host}/v2/");
        let command = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "10", &url];
        let output = site.exec("shop", "pod/client", &command);
        if output.stdout == b"{}" { Ok(()) } else { Err(kubectl::text(&output)) }
    };
    // The first one waits for the cluster's DNS.
    eventually("the pod reaches the outside", || fetch(OUTSIDE_REGISTRY));
    let from_pod = |request: &String| request.contains(" 10.244.0.");
    eventually("the proxy knows of it", || {
        let requests = site.proxy().requests(OUTSIDE_REGISTRY);
        if requests.iter().any(from_pod) { Ok(()) } else { Err(requests.join("\n")) }
    });
    assert_eq!(fetch(COMPANY_REGISTRY), Ok(()));
    assert_eq!(site.proxy().requests(COMPANY_REGISTRY), Vec::<String>::new());
}

/// Installs reach, and the presets that the host has, as docs/cluster-api.md says: a management cluster has Cluster API apply
/// them, as an addon.
pub fn install(journey: &Journey) {
    let site = &journey.site;
    site.await_system();
    if site.kubectl(&["get", "--namespace", NAMESPACE, "deployment/reach"]).status.success() {
        return;
    }
    let cluster_api = ClusterApi::start();
    let cluster = cluster_api.adopt("clusters", "shop", &site.kubeconfig(), &cluster());
    cluster_api.apply_addon(addon(journey).path());
    cluster.await_addon();
    site.await_rollout(NAMESPACE, "deployment/reach");
}

/// The cluster and its infrastructure, with the label of the addon. Its machines are there and are nobody's business any more.
fn cluster() -> String {
    let manifests = fs::read_to_string(root().join(MANIFESTS)).expect("our manifests");
    let mut objects: Vec<Value> = objects(&manifests)
        .into_iter()
        .filter(|object| object["kind"] == "Cluster" || object["kind"] == "VSphereCluster")
        .collect();
    for object in &mut objects {
        object["metadata"]["labels"] = json!({"proxy": "corporate"});
        object["spec"].as_object_mut().expect("a specification").remove("controlPlaneRef");
    }
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// The example's addon with what is the company's own in it: the presets, and reach with the right to ask for networks.
fn addon(journey: &Journey) -> TempDir {
    let folder = tempfile::Builder::new().prefix("reach-addon-").tempdir().expect("a temporary folder");
    let place = |path: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a temporary folder");
        path
    };
    for file in ["clusterresourceset.yaml", "kustomization.yaml"] {
        let path = format!("examples/cluster-api/addon/{file}");
        fs::copy(root().join(&path), place(&path)).expect("a temporary file");
    }
    fs::copy(&journey.presets, place("examples/cluster-api/presets/corporate-proxy.yaml"))
        .expect("a temporary file");
    let values = json!({"noProxyFrom": {"clusterNetwork": true}});
    let rendered = template(Version::V4, &values, &["--include-crds", "--no-hooks"]).expect("the chart");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    fs::write(place("webhook/reach.yaml"), format!("{namespace}\n{rendered}")).expect("a temporary file");
    folder
}

/// The environment of a pod of a namespace that says nothing of proxies itself, once reach has injected one.
pub fn is_injected(journey: &Journey, namespace: &str) -> Value {
    let site = &journey.site;
    install(journey);
    site.create_namespace(namespace);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": namespace},
        "spec": {
            "containers": [{
                "name": "client",
                "image": CURL_IMAGE,
                "imagePullPolicy": "Always",
                "command": ["sleep", "infinity"],
            }],
            "terminationGracePeriodSeconds": 0,
        },
    });
    // The webhook learns of presets, and of the cluster's networks, a moment later.
    eventually("pods are injected", || {
        let arguments = ["create", "--dry-run=server", "--output=json", "--filename=-"];
        let output = site.kubectl_with_stdin(&arguments, pod.to_string());
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let env = &said["spec"]["containers"][0]["env"];
        if env.to_string().contains(SERVICES) { Ok(()) } else { Err(kubectl::text(&output)) }
    });
    site.apply(&pod);
    site.await_pods(namespace, 1);
    let environment = succeeded("env", site.exec(namespace, "pod/client", &["env"]));
    environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name, json!(value)))
        .collect()
}
