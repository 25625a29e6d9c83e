//! reach and the presets in a workload cluster, as an addon that the management cluster keeps there.

use base64_simd::STANDARD;
use serde_json::json;

use crate::streams::{example, patched, replaced};
use crate::support::cluster_api::{ClusterApi, Workload};
use crate::support::helm::root;
use crate::support::kubectl::{Kubectl as _, succeeded};
use crate::support::pki::Ca;

pub fn brings_reach_and_the_presets_and_keeps_them(cluster_api: &ClusterApi) {
    // The namespace of the examples: the command is the one that is documented.
    let stream = patched(&example("vsphere.yaml", "clusters"));
    let cluster = cluster_api.create("clusters", "shop", Workload::Running, &stream);
    cluster_api.apply_addon(&root());
    let workload = cluster.workload();
    let set = cluster.await_addon();
    for (namespace, object) in [
        ("reach-system", "deployment/reach"),
        ("reach-system", "service/reach"),
        ("reach-system", "mutatingwebhookconfiguration/reach"),
        ("reach-system", "clusterpodpreset/corporate-proxy"),
    ] {
        workload.await_object(namespace, object);
    }

    let ca_bundle = STANDARD.encode_to_string(Ca::new("reach").pem.as_bytes());
    // What reach writes in the cluster stays when the presets change.
    let bundle = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "reach"},
        "webhooks": [{
            "name": "pods.reach.dev",
            "clientConfig": {"caBundle": ca_bundle},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    });
    let arguments = ["apply", "--server-side", "--validate=false", "--field-manager=reach", "-f", "-"];
    succeeded("kubectl apply", workload.kubectl_with_stdin(&arguments, bundle.to_string()));
    let webhook = || workload.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"].clone();
    let before = webhook();
    assert_eq!(before[0]["clientConfig"]["caBundle"], ca_bundle);

    let presets = cluster_api.management.get(&["configmap", "reach-presets", "--namespace=clusters"]);
    let changed = presets["data"]["corporate-proxy.yaml"].as_str().expect("the presets");
    let changed = changed.replace("http://proxy.corp.example", "http://other.corp.example");
    let patch = json!({"data": {"corporate-proxy.yaml": changed}}).to_string();
    let target = ["configmap", "reach-presets", "--namespace=clusters"];
    cluster_api.management.ask(&[&["patch", "--type=merge", "--patch", &patch], &target[..]].concat());
    cluster.eventually("the changed preset is there", || {
        let preset = workload.get(&["clusterpodpreset", "corporate-proxy"]);
        let value = preset["spec"]["env"][0]["value"].as_str().unwrap_or_default();
        if value == "http://other.corp.example:3128" { Ok(()) } else { Err(preset.to_string()) }
    });
    assert_eq!(webhook(), before);
    assert_eq!(set["spec"]["strategy"], "Reconcile");

    // Another version of reach comes the same way.
    let release = cluster_api.management.get(&["configmap", "reach", "--namespace=clusters"]);
    let release = release["data"]["reach.yaml"].as_str().expect("the release");
    let patch = json!({"data": {"reach.yaml": replaced(release, "\n  replicas: 2\n", "\n  replicas: 3\n")}});
    // From a file: it is longer than an argument may be.
    let arguments =
        ["patch", "configmap", "reach", "--namespace=clusters", "--type=merge", "--patch-file=/dev/stdin"];
    let answer = cluster_api.management.kubectl_with_stdin(&arguments, patch.to_string());
    succeeded("kubectl patch", answer);
    cluster.eventually("the other version is there", || {
        let deployment = workload.get(&["deployment", "reach", "--namespace=reach-system"]);
        if deployment["spec"]["replicas"] == 3 { Ok(()) } else { Err(deployment.to_string()) }
    });
    cluster.await_addon();
    // What docs/hosts.md warns of: the controller takes away what the manifest does not have.
    assert_eq!(webhook()[0]["clientConfig"].get("caBundle"), None);
}
