//! What Cluster API's webhooks say to the examples.

use serde_json::{Value, json};

use crate::streams::{example, objects, patched};
use crate::support::cluster_api::ClusterApi;
use crate::support::kubectl::{Kubectl as _, succeeded, text};

/// The examples that are objects as they are, without a value to fill in.
const EXAMPLES: [&str; 4] = ["vsphere.yaml", "static-ip.yaml", "static-ip-metal3.yaml", "clusterclass.yaml"];

/// Versions of Cluster API's own kinds.
const VERSIONS: [&str; 2] = ["v1beta1", "v1beta2"];

pub fn are_the_examples_in_both_versions(cluster_api: &ClusterApi) {
    for name in EXAMPLES {
        let namespace = format!("accepted-{}", name.trim_end_matches(".yaml"));
        let stream = example(name, &namespace);
        succeeded(name, cluster_api.apply(&namespace, &stream));
        for version in VERSIONS {
            // What the API server has of it in this version, patched in that version's form. In a namespace of its own, since
            // some templates may not change.
            let other = format!("{namespace}-{version}");
            let kinds: Vec<_> = objects(&stream).iter().filter_map(kind_of_kubeadm).collect();
            assert!(kinds.len() >= 2, "{name}: {kinds:?}");
            for (kind, group, object) in kinds {
                let of_version = format!("{kind}.{version}.{group}");
                let given = cluster_api.management.get(&[&of_version, &object, "--namespace", &namespace]);
                assert_eq!(given["apiVersion"], format!("{group}/{version}"));
                let manifest = json!({
                    "apiVersion": given["apiVersion"],
                    "kind": given["kind"],
                    "metadata": {"name": object, "namespace": other},
                    "spec": given["spec"],
                });
                let manifest = patched(&reach::manifest::to_yaml(&manifest));
                assert!(manifest.contains("/etc/reach/proxy.env"), "{name}: {manifest}");
                succeeded(&format!("{name}, {version}"), cluster_api.apply(&other, &manifest));
            }
        }
        let patched_namespace = format!("{namespace}-patched");
        let stream = example(name, &patched_namespace);
        succeeded(name, cluster_api.apply(&patched_namespace, &patched(&stream)));
    }
}

pub fn is_nothing_wrong(cluster_api: &ClusterApi) {
    let stream = patched(&example("vsphere.yaml", "refused"));
    let wrong = stream.replace("permissions: \"0600\"", "permissions: 0600");
    assert_ne!(stream, wrong);
    let answer = cluster_api.apply("refused", &wrong);
    assert!(!answer.status.success() && text(&answer).contains("permissions"), "{}", text(&answer));
}

/// The kind, the group and the name of an object that holds a kubeadm configuration.
fn kind_of_kubeadm(object: &Value) -> Option<(String, String, String)> {
    let kind = object["kind"].as_str()?.to_owned();
    let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
    let name = object["metadata"]["name"].as_str()?;
    kind.starts_with("Kubeadm").then(|| (kind, group.to_owned(), name.to_owned()))
}
