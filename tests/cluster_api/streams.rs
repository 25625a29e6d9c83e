//! Streams of manifests: the examples, and what `reach host patch` makes of them.

use std::fs;

use reach::host::node::{Node, Options, StaticPods};
use reach::host::render::{Bootstrap, content, kubeadm_file};
use reach::host::targets::Unit;
use reach::host::values::Setting;
use reach::inject::preset::ProxyVariable;
use reach::manifest::{Add, documents};
use serde_json::{Value, json};

use crate::support::helm::root;

/// The text of an example, with another namespace, so that tests do not meet.
pub fn example(name: &str, namespace: &str) -> String {
    let text = fs::read_to_string(root().join("examples/cluster-api").join(name)).expect("an example");
    assert!(text.contains("\n  namespace: clusters\n"), "{name}");
    text.replace("\n  namespace: clusters\n", &format!("\n  namespace: {namespace}\n"))
}

/// The values of the documents of a stream.
pub fn objects(stream: &str) -> Vec<Value> {
    documents(stream).iter().filter_map(|document| document.read().expect("YAML")).collect()
}

/// Stands in for `reach host patch` until it is there.
pub fn patched(stream: &str, proxy: &str) -> String {
    let setting = |proxy, value: &str| Setting { proxy, value: value.to_owned(), secret: false };
    let settings = [
        setting(ProxyVariable::Http, proxy),
        setting(ProxyVariable::Https, proxy),
        setting(ProxyVariable::No, "localhost,127.0.0.1,.svc,10.96.0.0/12"),
    ];
    let options = Options {
        units: vec![Unit::Containerd],
        system: Vec::new(),
        certificates: Vec::new(),
        static_pods: StaticPods::None,
    };
    let node = Node::new(&settings, &options).expect("writable");
    let edit = |document: &reach::manifest::Document<'_>| {
        let Some(object) = document.read().expect("YAML") else { return document.text.to_owned() };
        let at = match object["kind"].as_str() {
            Some("KubeadmControlPlane") => "/spec/kubeadmConfigSpec",
            Some("KubeadmControlPlaneTemplate") => "/spec/template/spec/kubeadmConfigSpec",
            Some("KubeadmConfigTemplate") => "/spec/template/spec",
            _ => return document.text.to_owned(),
        };
        let spec = object.pointer(at).expect("a spec");
        if spec["preKubeadmCommands"][0] == node.commands[0] {
            return document.text.to_owned();
        }
        let mut adds = vec![Add::new(format!("{at}/preKubeadmCommands/0"), json!(node.commands[0]))];
        if spec["files"].is_null() {
            adds.push(Add::new(format!("{at}/files"), json!([])));
        }
        for file in &node.files {
            let content = content(file, Bootstrap::CloudConfig).expect("short");
            adds.push(Add::new(format!("{at}/files/-"), kubeadm_file(file, content)));
        }
        document.edit(&adds).expect("an edit").text
    };
    documents(stream).iter().map(edit).collect()
}
