//! Where the pods are in an object: a pod itself, or the template of one.

use serde_json::Value;

/// A pod or pod template inside an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload<'a> {
    /// RFC 6901 pointer of the pod; empty when the object is one.
    pub pointer: String,
    /// The pod or template.
    pub pod: &'a Value,
    /// `Kind/name` of the object that holds it.
    pub reference: String,
    /// `metadata.namespace` of that object, if it says one.
    pub namespace: Option<&'a str>,
}

/// The pods and pod templates of an object, and of the items of a list, in order.
#[must_use]
pub fn workloads(object: &Value) -> Vec<Workload<'_>> {
    let mut found = Vec::new();
    collect(object, "", &mut found);
    found
}

fn collect<'a>(object: &'a Value, pointer: &str, found: &mut Vec<Workload<'a>>) {
    let kind = object["kind"].as_str().unwrap_or_default();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let template = match (group, kind) {
        ("", "Pod") => "",
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        ("", "PodTemplate") => "/template",
        _ => {
            // `List`, and the typed lists that clients write (`DeploymentList`).
            if kind.ends_with("List") {
                for (index, item) in object["items"].as_array().into_iter().flatten().enumerate() {
                    collect(item, &format!("{pointer}/items/{index}"), found);
                }
            }
            return;
        }
    };
    if let Some(pod) = object.pointer(template).filter(|pod| pod.is_object()) {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
        found.push(Workload {
            pointer: format!("{pointer}{template}"),
            pod,
            reference: format!("{kind}/{name}"),
            namespace: metadata["namespace"].as_str(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_that_makes_pods_is_found_where_its_template_is() {
        let template = json!({"spec": {"containers": []}});
        for (api_version, kind, spec, pointer) in [
            ("v1", "Pod", json!({}), ""),
            ("v1", "ReplicationController", json!({"template": template}), "/spec/template"),
            ("apps/v1", "Deployment", json!({"template": template}), "/spec/template"),
            ("apps/v1", "StatefulSet", json!({"template": template}), "/spec/template"),
            ("apps/v1", "DaemonSet", json!({"template": template}), "/spec/template"),
            ("apps/v1", "ReplicaSet", json!({"template": template}), "/spec/template"),
            ("batch/v1", "Job", json!({"template": template}), "/spec/template"),
            (
                "batch/v1",
                "CronJob",
                json!({"jobTemplate": {"spec": {"template": template}}}),
                "/spec/jobTemplate/spec/template",
            ),
        ] {
            let object =
                json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
            let found: Vec<String> =
                workloads(&object).into_iter().map(|workload| workload.pointer).collect();
            assert_eq!(found, [pointer], "{kind}");
        }
        let object = json!({"apiVersion": "v1", "kind": "PodTemplate", "template": template});
        assert_eq!(workloads(&object)[0].pointer, "/template");
    }

    #[test]
    fn kinds_of_other_groups_are_not_ours() {
        assert!(
            workloads(
                &json!({"apiVersion": "example.com/v1", "kind": "Deployment", "spec": {"template": {}}})
            )
            .is_empty()
        );
        assert!(workloads(&json!({"apiVersion": "v1", "kind": "Service"})).is_empty());
    }

    #[test]
    fn lists_are_looked_into() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Service"}, pod]});
        assert_eq!(workloads(&list)[0].pointer, "/items/1");
    }
}
