//! What reach writes into the status of presets.

use serde_json::{Value, json};

use crate::cluster::{Cluster, pod_preset, token_config};
use crate::support::eventually;
use crate::support::serve::Reach;

/// What a preset has in its status once that is of its present generation: type, status and reason of each condition.
#[track_caller]
fn conditions(cluster: &Cluster, what: &[&str]) -> (Value, Vec<String>) {
    let mut object = Value::Null;
    eventually(&format!("{what:?} has its status"), || {
        object = cluster.get("status", what);
        let is_of_now = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        if is_of_now { Ok(()) } else { Err(object.to_string()) }
    });
    let text = |condition: &Value, field: &str| condition[field].as_str().expect("text").to_owned();
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    let conditions = conditions
        .iter()
        .map(|known| ["type", "status", "reason"].map(|field| text(known, field)).join(" "))
        .collect();
    (object, conditions)
}

/// As the chart gives them.
fn rights() -> Value {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let metadata = json!({"name": "status", "namespace": "kube-system"});
    let binding = |kind: &str, role: &str| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": role, "name": "status"},
            "subjects": [{"kind": "ServiceAccount", "name": "status", "namespace": "kube-system"}],
        })
    };
    json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": "status"}, "rules": [
            {"apiGroups": ["reach.dev"], "resources": ["clusterpodpresets", "podpresets"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["reach.dev"], "resources": ["clusterpodpresets/status", "podpresets/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
        ]},
        {"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["reach-status"], "verbs": ["get", "update"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        ]},
        binding("ClusterRoleBinding", "ClusterRole"),
        binding("RoleBinding", "Role"),
    ])
}

pub fn says_what_lint_has_against_a_preset(cluster: &Cluster) {
    cluster.namespace("status", &json!({}));
    let env = |list: &str| {
        json!({"env": [
            {"name": "https_proxy", "value": "http://me:s3cret@proxy:3128"},
            {"name": "no_proxy", "value": list},
        ]})
    };
    cluster.apply(&rights());
    cluster.apply(&json!([pod_preset("status", "early", &env(".svc,http://web"))]));
    let account = token_config(&cluster.control_plane, "status");
    let arguments = |account: &std::path::Path| {
        [
            "--kubeconfig".into(),
            account.as_os_str().to_owned(),
            "--namespace=kube-system".into(),
            "--status-lease=reach-status".into(),
        ]
    };
    let replicas = [(); 2].map(|()| Reach::start(arguments(account.path())));

    let (preset, said) = conditions(cluster, &["podpreset", "early"]);
    assert_eq!(said, ["Usable True Valid", "Clean False ErrorsFound"]);
    let message = preset["status"]["conditions"][1]["message"].as_str().expect("a message");
    assert!(message.contains("E1 in no_proxy: http://web is a URL"), "{message}");
    assert!(message.contains("E8 in https_proxy: a password"), "{message}");
    assert!(!preset["status"].to_string().contains("s3cret"), "{preset}");
    let columns = cluster.kubectl(&["get", "podpreset", "early", "-n", "status"]);
    assert!(columns.lines().next().is_some_and(|head| head.contains("CLEAN")), "{columns}");

    // Made while it watches, and mended.
    let spec = json!({"env": [{"name": "no_proxy", "value": "db:5432"}]});
    cluster.apply(&json!([pod_preset("status", "late", &spec)]));
    let (_, said) = conditions(cluster, &["podpreset", "late"]);
    assert_eq!(said, ["Usable True Valid", "Clean False WarningsFound"]);
    let spec = json!({"env": [{"name": "no_proxy", "value": "db"}]});
    cluster.apply(&json!([pod_preset("status", "late", &spec)]));
    let (after, said) = conditions(cluster, &["podpreset", "late"]);
    assert_eq!(said, ["Usable True Valid", "Clean True NothingFound"]);
    assert_eq!(after["metadata"]["generation"], 2, "a status is no new generation");
    // As large as one may be, it is more than those of a namespace may have together.
    let large: Vec<Value> =
        (0..64).map(|number| json!({"name": format!("V{number}"), "value": "x".repeat(16_384)})).collect();
    cluster.apply(&json!([pod_preset("status", "large", &json!({"env": large}))]));
    let (_, said) = conditions(cluster, &["podpreset", "large"]);
    assert_eq!(said, ["Usable False TooManyBytes", "Clean True NothingFound"]);
    // The first that was made is used, and another one when there is room for it.
    let half: Vec<Value> =
        (0..40).map(|number| json!({"name": format!("H{number}"), "value": "x".repeat(16_000)})).collect();
    for name in ["half-1", "half-2"] {
        cluster.apply(&json!([pod_preset("status", name, &json!({"env": half}))]));
    }
    let (_, said) = conditions(cluster, &["podpreset", "half-2"]);
    assert_eq!(said, ["Usable False TooManyBytes", "Clean True NothingFound"]);
    cluster.kubectl(&["delete", "podpreset", "half-1", "-n", "status"]);
    eventually("there is room for the other one", || {
        let (_, said) = conditions(cluster, &["podpreset", "half-2"]);
        if said[0] == "Usable True Valid" { Ok(()) } else { Err(said.join(", ")) }
    });
    // There is a Lease for it, and all serve all the same.
    let lease =
        cluster.control_plane.kubectl(&["get", "lease", "reach-status", "-n", "kube-system", "-o", "name"]);
    assert!(lease.status.success());
    for replica in &replicas {
        replica.await_ready();
        let log = replica.stderr();
        assert!(!log.contains("cannot"), "{log}");
    }
}

pub fn that_may_not_be_written_is_said_once(cluster: &Cluster) {
    let account = token_config(&cluster.control_plane, "presets-only");
    let reach = Reach::start([
        "--kubeconfig".as_ref(),
        account.path().as_os_str(),
        "--namespace=kube-system".as_ref(),
        "--status-lease=reach-refused".as_ref(),
    ]);
    reach.await_ready();
    eventually("it says so", || {
        let log = reach.stderr();
        if log.contains("cannot write the status of presets, going on without") { Ok(()) } else { Err(log) }
    });
    cluster.namespace("status-refused", &json!({}));
    cluster.preset("status-refused", "served", &json!({"env": [{"name": "A", "value": "1"}]}));
    reach.await_ready();
    let log = reach.stderr();
    assert_eq!(log.matches("cannot write the status").count(), 1, "{log}");
}
