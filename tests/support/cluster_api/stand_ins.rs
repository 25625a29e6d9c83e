//! CRDs in the place of those whose controllers are no Go modules: they have no schema, and nobody acts on their objects.

use serde_json::{Value, json};

use super::contract_labels;

const INFRASTRUCTURE: (&str, [&str; 2]) = ("infrastructure.cluster.x-k8s.io", ["v1beta1", "v1beta2"]);
const IN_CLUSTER: (&str, [&str; 2]) = ("ipam.cluster.x-k8s.io", ["v1alpha1", "v1alpha2"]);
const METAL3: (&str, [&str; 1]) = ("ipam.metal3.io", ["v1alpha1"]);

/// The CRDs of vSphere's provider, of the in-cluster IPAM provider and of metal3's.
pub fn stand_ins() -> Vec<Value> {
    let (group, versions) = INFRASTRUCTURE;
    let mut all = vec![
        crd(group, &versions, "VSphereCluster", "Namespaced"),
        crd(group, &versions, "VSphereClusterTemplate", "Namespaced"),
        crd(group, &versions, "VSphereMachine", "Namespaced"),
        crd(group, &versions, "VSphereMachineTemplate", "Namespaced"),
        crd(group, &versions, "VSphereFailureDomain", "Cluster"),
        crd(group, &versions, "VSphereDeploymentZone", "Cluster"),
    ];
    let (group, versions) = IN_CLUSTER;
    all.push(crd(group, &versions, "InClusterIPPool", "Namespaced"));
    all.push(crd(group, &versions, "GlobalInClusterIPPool", "Cluster"));
    let (group, versions) = METAL3;
    all.push(crd(group, &versions, "IPPool", "Namespaced"));
    all
}

/// A CRD that takes everything, in all of its versions; the last of them is stored.
fn crd(group: &str, versions: &[&str], kind: &str, scope: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let versions: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(place, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": place + 1 == versions.len(),
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"status": {}},
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "labels": contract_labels()},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "singular": singular, "plural": plural, "listKind": format!("{kind}List")},
            "versions": versions,
        },
    })
}
