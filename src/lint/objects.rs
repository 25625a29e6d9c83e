//! Where proxy variables are in Kubernetes objects.

use serde_json::Value;

use super::{Role, Scope, Subject, Variable};
use crate::api::GROUP;
use crate::inject::workload::workloads;

/// The lists of containers of a pod.
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Components of the control plane, which kubeadm gives the proxy variables of the machine it runs on.
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// An object, or the objects in a list, each with its pointer.
#[must_use]
pub fn items(object: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect("", object, &mut found);
    found
}

fn collect<'a>(pointer: &str, object: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object["items"].as_array().filter(|_| is_list) {
        Some(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(&format!("{pointer}/items/{index}"), item, found);
            }
        }
        None => found.push((pointer.to_owned(), object)),
    }
}

/// Whether an object says that it is a preset, of whatever version.
#[must_use]
pub fn is_preset(object: &Value) -> bool {
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    let kind = object["kind"].as_str().unwrap_or_default();
    match group {
        Some(GROUP) => true,
        Some("settings.k8s.io") => kind == "PodPreset",
        // One that does not say it: nothing else is called so.
        None => object["apiVersion"].is_null() && ["ClusterPodPreset", "PodPreset"].contains(&kind),
        Some(_) => false,
    }
}

/// The presets and containers of an object, or of the objects in a list.
#[must_use]
pub fn subjects(object: &Value) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for (pointer, object) in items(object).into_iter().filter(|(_, object)| is_preset(object)) {
        subjects.push(preset(&pointer, object));
    }
    for workload in workloads(object) {
        for list in LISTS {
            let spec = &workload.pod["spec"];
            let containers = spec[list].as_array().into_iter().flatten();
            // The API server's default is true.
            let scope = Scope::Container { has_service_links: spec["enableServiceLinks"] != false };
            for (index, container) in containers.enumerate() {
                let pointer = format!("{}/spec/{list}/{index}", workload.pointer);
                subjects.push(self::container(&workload.reference, &pointer, container, scope));
            }
        }
    }
    subjects
}

fn preset(pointer: &str, object: &Value) -> Subject {
    let kind = object["kind"].as_str().unwrap_or_default();
    let metadata = &object["metadata"];
    let namespace =
        metadata["namespace"].as_str().map(|name| format!(" in namespace {name}")).unwrap_or_default();
    let spec = &object["spec"];
    let knows_networks = spec["noProxyFrom"]
        .as_array()
        .is_some_and(|sources| sources.iter().any(|source| source == "ClusterNetwork"));
    Subject {
        name: format!("{kind}/{}{namespace}", metadata["name"].as_str().unwrap_or_default()),
        scope: Scope::Preset,
        is_rewritten: spec["noProxyForm"] != "AsWritten",
        has_both_spellings: spec["letterCase"] != "AsWritten",
        // What is common is in a ClusterPodPreset.
        is_open: kind == "PodPreset" || spec["envFrom"].as_array().is_some_and(|sources| !sources.is_empty()),
        variables: variables(&format!("{pointer}/spec"), spec),
        role: if knows_networks { Role::KnowsNetworks } else { Role::Any },
    }
}

fn container(reference: &str, pointer: &str, container: &Value, scope: Scope) -> Subject {
    let words = |field: &str| {
        let words = container[field].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let words: Vec<String> = words("command").into_iter().chain(words("args")).collect();
    let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    let component = COMPONENTS.iter().find(|component| program == **component);
    let role = component.map_or(Role::Any, |component| {
        let arguments = words.iter().skip(1).cloned();
        Role::Component([(*component).to_owned()].into_iter().chain(arguments).collect())
    });
    Subject {
        name: format!("{reference}, container {}", container["name"].as_str().unwrap_or_default()),
        scope,
        is_rewritten: false,
        has_both_spellings: false,
        is_open: container["envFrom"].as_array().is_some_and(|sources| !sources.is_empty()),
        variables: variables(pointer, container),
        role,
    }
}

fn variables(pointer: &str, holder: &Value) -> Vec<Variable> {
    let variables = holder["env"].as_array().into_iter().flatten().enumerate();
    variables
        .filter_map(|(index, variable)| {
            let value = match variable.get("valueFrom") {
                None | Some(Value::Null) => Some(variable["value"].as_str().unwrap_or_default().to_owned()),
                Some(_) => None,
            };
            let name = variable["name"].as_str()?.to_owned();
            Some(Variable { name, value, pointer: format!("{pointer}/env/{index}/value") })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn presets_and_containers_are_found_in_lists_with_their_places() {
        let env = json!([{"name": "no_proxy", "value": "web"}, {"name": "X", "valueFrom": {}}]);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset", "metadata": {"name": "p", "namespace": "n"},
             "spec": {"env": env, "letterCase": "AsWritten", "noProxyFrom": ["ClusterNetwork"]}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
                "initContainers": [{"name": "i"}],
                "containers": [{"name": "c", "env": env, "envFrom": [{"configMapRef": {"name": "x"}}]}]}},
        ]});
        let subjects = subjects(&list);
        let names: Vec<&str> = subjects.iter().map(|subject| &*subject.name).collect();
        assert_eq!(names, ["PodPreset/p in namespace n", "Pod/a, container i", "Pod/a, container c"]);
        assert_eq!(subjects[0].variables[0].pointer, "/items/0/spec/env/0/value");
        assert_eq!(subjects[2].variables[0].pointer, "/items/2/spec/containers/0/env/0/value");
        assert_eq!(subjects[2].variables[1].value, None);
        assert!(
            subjects[0].is_rewritten
                && subjects[0].role == Role::KnowsNetworks
                && !subjects[0].has_both_spellings
        );
        assert!(subjects[2].is_open && !subjects[1].is_open);
    }
}
