//! What machines are given at their first start.

use serde_json::{Value, json};

use crate::streams::{example, objects, patched};
use crate::support::cluster_api::{ClusterApi, Role, UserData, Workload};
use crate::support::kubectl::succeeded;
use crate::support::pki::Ca;

const ENVIRONMENT: &str = "/etc/reach/proxy.env";
const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/10-reach-proxy.conf";
const SCRIPT: &str = "/etc/reach/apply-proxy.sh";

/// etcd outside of the cluster: the control plane can only grow when that is healthy, and a test cannot play one.
const EXTERNAL_ETCD: &str = "
      etcd:
        external:
          endpoints: [https://10.20.0.21:2379]
          caFile: /etc/kubernetes/pki/etcd/ca.crt
          certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt
          keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key";

pub fn are_given_the_files_and_the_command(cluster_api: &ClusterApi) {
    let original = example("vsphere.yaml", "machines");
    let stream = original.replacen(
        "\n    clusterConfiguration:",
        &format!("\n    clusterConfiguration:{EXTERNAL_ETCD}"),
        1,
    );
    assert_ne!(stream, original);
    let stream = patched(&stream, "http://proxy.corp.example:3128");
    succeeded("kubectl apply", cluster_api.apply("machines", &etcd_certificates().to_string()));
    let cluster = cluster_api.create("machines", "shop", Workload::Running, &stream);

    let first = cluster.user_data(Role::First);
    assert_ours(&first);
    assert!(first.commands().last().expect("commands").starts_with("kubeadm init "));
    cluster.boot();
    for role in [Role::Joining, Role::Worker] {
        let joining = cluster.user_data(role);
        assert_ours(&joining);
        assert!(joining.commands().last().expect("commands").starts_with("kubeadm join "), "{role:?}");
        // All nodes of a cluster have the same.
        for path in [ENVIRONMENT, DROP_IN, SCRIPT] {
            assert_eq!(joining.file(path), first.file(path));
        }
    }
    let theirs = objects(&original).into_iter().find(|object| object["kind"] == "KubeadmControlPlane");
    let theirs = theirs.expect("one")["spec"]["kubeadmConfigSpec"].clone();
    for file in theirs["files"].as_array().expect("files") {
        let content = first.file(file["path"].as_str().expect("a path")).content;
        assert_eq!(content.trim_end(), file["content"].as_str().expect("text").trim_end());
    }
}

/// What somebody who runs etcd gives to Cluster API.
fn etcd_certificates() -> Value {
    let ca = Ca::new("etcd");
    let client = ca.client("kube-apiserver-etcd-client");
    let secret = |purpose: &str, data: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": format!("shop-{purpose}"),
                "labels": {"cluster.x-k8s.io/cluster-name": "shop"},
            },
            "stringData": data,
        })
    };
    let items = [
        secret("etcd", json!({"tls.crt": ca.pem})),
        secret("apiserver-etcd-client", json!({"tls.crt": client.certificate, "tls.key": client.key})),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Our files are there, with the right owner, mode and bytes, and our command comes before all others.
#[track_caller]
fn assert_ours(user_data: &UserData) {
    for (path, mode) in [(ENVIRONMENT, "0600"), (DROP_IN, "0644"), (SCRIPT, "0700")] {
        let file = user_data.file(path);
        assert_eq!((&*file.owner, &*file.permissions), ("root:root", mode), "{path}");
    }
    let environment = user_data.file(ENVIRONMENT).content;
    for line in
        ["HTTP_PROXY='http://proxy.corp.example:3128'", "https_proxy='http://proxy.corp.example:3128'"]
    {
        assert!(environment.lines().any(|present| present == line), "{environment}");
    }
    let drop_in = user_data.file(DROP_IN).content;
    assert!(drop_in.ends_with("\n[Service]\nEnvironmentFile=/etc/reach/proxy.env\n"), "{drop_in}");
    let commands = user_data.commands();
    assert_eq!(commands[0], format!("sh {SCRIPT}"));
    assert!(commands[1].starts_with("hostnamectl "), "the user's own come after: {commands:?}");
}
