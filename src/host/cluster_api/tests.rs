//! Manifests of our own, each with what the real templates of Cluster API's providers taught.

use serde_json::{Value as Json, json};

use super::*;
use crate::host::values::Setting;
use crate::inject::preset::ProxyVariable;

mod checks;
mod links;
mod sources;

/// The documents of a stream in YAML.
fn stream(text: &str) -> Manifests {
    let documents = crate::manifest::documents(text);
    let object = |document: &crate::manifest::Document<'_>| {
        let source = Source { file: "c.yaml".to_owned(), document: document.number };
        Some(Object::new(source, document.read().unwrap()?))
    };
    Manifests::new(documents.iter().filter_map(object).collect())
}

/// Objects as they are.
fn objects(values: &[Json]) -> Manifests {
    let object = |(at, value): (usize, &Json)| {
        let source = Source { file: "c.yaml".to_owned(), document: at + 1 };
        Object::new(source, value.clone())
    };
    Manifests::new(values.iter().enumerate().map(object).collect())
}

fn derived(manifests: &Manifests) -> Vec<Group> {
    in_mode(manifests, NodeRanges::Subnet)
}

fn in_mode(manifests: &Manifests, node_ranges: NodeRanges) -> Vec<Group> {
    groups(manifests, &Options { node_ranges, without: Vec::new() }).unwrap()
}

fn wrong(manifests: &Manifests) -> Vec<String> {
    let errors = groups(manifests, &Options::default()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

/// The entries of a source.
fn texts(group: &Group, from: FactSource) -> Vec<&str> {
    group.entries.iter().filter(|entry| entry.from == from).map(|entry| &*entry.text).collect()
}

fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// The rules of findings, and where.
fn rules(findings: &[Finding]) -> Vec<(&str, &str)> {
    findings.iter().map(|finding| (finding.rule, &*finding.field)).collect()
}

fn settings(proxy: &str, no_proxy: &str) -> Vec<Setting> {
    let setting = |proxy, value: &str| Setting { proxy, value: value.to_owned(), secret: false };
    vec![setting(ProxyVariable::Http, proxy), setting(ProxyVariable::No, no_proxy)]
}

/// A `Cluster` with kubeadm and vSphere.
fn cluster(name: &str) -> Json {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "Cluster",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "clusterNetwork": {"pods": {"cidrBlocks": ["172.20.0.0/16"]}, "services": {"cidrBlocks": ["172.21.0.0/16"]}},
            "controlPlaneRef":
                {"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": name},
            "infrastructureRef":
                {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereCluster", "name": name},
        },
    })
}

fn vsphere(name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
        "kind": "VSphereCluster",
        "metadata": {"name": name, "namespace": "a"},
        "spec": spec,
    })
}

fn control_plane(name: &str, config: &Json) -> Json {
    json!({
        "apiVersion": "controlplane.cluster.x-k8s.io/v1beta2",
        "kind": "KubeadmControlPlane",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "kubeadmConfigSpec": config,
            "machineTemplate": {"spec": {"infrastructureRef": {
                "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereMachineTemplate", "name": name,
            }}},
        },
    })
}

fn machines(name: &str, devices: &Json) -> Json {
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
        "kind": "VSphereMachineTemplate",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"template": {"spec": {"server": "vc.corp.example", "network": {"devices": devices}}}},
    })
}

fn pool(name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha2",
        "kind": "InClusterIPPool",
        "metadata": {"name": name, "namespace": "a"},
        "spec": spec,
    })
}

/// A cluster whose machines take their addresses from a pool `p`.
fn with_pool(endpoint: &str, config: &Json, pool_spec: &Json) -> Manifests {
    objects(&[
        cluster("c"),
        vsphere(
            "c",
            &json!({"server": "vc.corp.example", "controlPlaneEndpoint": {"host": endpoint, "port": 6443}}),
        ),
        control_plane("c", config),
        machines(
            "c",
            &json!([{"addressesFromPools": [
                {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "p"},
            ]}]),
        ),
        pool("p", pool_spec),
    ])
}

/// The manifest of kube-vip, as the templates for vSphere have it.
fn kube_vip(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-vip\nspec:\n  containers:\n  - args: [manager]\n    env:\n    \
         - name: vip_arp\n      value: \"true\"\n    - name: vip_interface\n      value: ${{VIP_INTERFACE:=\"\"}}\n    - \
         name: address\n      value: {address}\n    image: ghcr.io/kube-vip/kube-vip:v0.6.4\n    name: kube-vip\n"
    )
}

fn static_pod(content: &str) -> Json {
    json!({"files": [{"path": "/etc/kubernetes/manifests/kube-vip.yaml", "content": content}]})
}
