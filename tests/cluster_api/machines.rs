//! What machines are given at their first start.

use serde_json::{Value, json};

use crate::streams::{Presets, example, objects, patched, pipe, read, replaced};
use crate::support::cluster_api::{ClusterApi, Role, UserData, Workload, clusterctl};
use crate::support::kubectl::succeeded;
use crate::support::pki::Ca;

const ENVIRONMENT: &str = "/etc/reach/proxy.env";
const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/10-reach-proxy.conf";
const SCRIPT: &str = "/etc/reach/apply-proxy.sh";

/// The command that is to run before all others.
const COMMAND: &str = "sh /etc/reach/apply-proxy.sh";

/// What the preset of the examples sends past the proxy.
const OF_THE_PRESET: [&str; 5] =
    [".svc", ".cluster.local", "10.96.0.0/12", "10.244.0.0/16", "registry.corp.example"];

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
    let configuration = "\n    clusterConfiguration:";
    let stream = replaced(&original, configuration, &format!("{configuration}{EXTERNAL_ETCD}"));
    succeeded("kubectl apply", cluster_api.apply("machines", &etcd_certificates().to_string()));
    let cluster = cluster_api.create("machines", "shop", Workload::Running, &patched(&stream));

    let first = cluster.user_data(Role::First);
    assert_ours(&first, &["10.20.0.10", "10.96.0.1", "vcenter.infra.example", "10.20.0.21"]);
    assert!(first.commands().last().expect("commands").starts_with("kubeadm init "));
    cluster.boot();
    for role in [Role::Joining, Role::Worker] {
        let joining = cluster.user_data(role);
        assert!(joining.commands().last().expect("commands").starts_with("kubeadm join "), "{role:?}");
        assert_eq!(joining.commands()[..2], first.commands()[..2], "{role:?}");
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

pub fn of_v1beta1_are_given_the_same(cluster_api: &ClusterApi) {
    let stream = patched(&example("static-ip-metal3.yaml", "machines-v1beta1"));
    let cluster = cluster_api.create("machines-v1beta1", "demo", Workload::Running, &stream);
    let first = cluster.user_data(Role::First);
    assert_ours(&first, &["10.40.0.10", "10.40.0.0/27", "10.96.0.1", "vcenter.infra.example"]);
    cluster.boot();
    let worker = cluster.user_data(Role::Worker);
    for path in [ENVIRONMENT, DROP_IN, SCRIPT] {
        assert_eq!(worker.file(path), first.file(path));
    }
    assert_eq!(worker.commands()[0], COMMAND);
}

pub fn of_a_template_are_given_the_values_of_clusterctl(cluster_api: &ClusterApi) {
    let template = read("examples/cluster-api/template.yaml");
    let mut command = clusterctl();
    command.args(["generate", "yaml"]).envs([
        ("CLUSTER_NAME", "mill"),
        ("NAMESPACE", "template"),
        ("KUBERNETES_VERSION", "v1.37.1"),
        ("CONTROL_PLANE_MACHINE_COUNT", "1"),
        ("WORKER_MACHINE_COUNT", "1"),
        ("CONTROL_PLANE_ENDPOINT_IP", "10.70.0.10"),
        ("SERVICE_CIDR", "10.112.0.0/16"),
        ("VSPHERE_SERVER", "vcenter.infra.example"),
        ("VSPHERE_DATACENTER", "frankfurt"),
        ("VSPHERE_DATASTORE", "hall-1-nvme"),
        ("VSPHERE_FOLDER", "kubernetes"),
        ("VSPHERE_NETWORK", "nodes"),
        ("VSPHERE_RESOURCE_POOL", "kubernetes"),
        ("VSPHERE_TEMPLATE", "debian-13-kube-v1.37.1"),
        ("VSPHERE_SSH_AUTHORIZED_KEY", "ssh-ed25519 AAAA admin@corp.example"),
    ]);
    let stream = succeeded("clusterctl generate yaml", pipe(command, &patched(&template)));
    let cluster = cluster_api.create("template", "mill", Workload::Absent, &stream);
    assert_ours(&cluster.user_data(Role::First), &["10.70.0.10", "vcenter.infra.example", "10.112.0.0/16"]);
}

pub fn read_the_variables_from_a_secret(cluster_api: &ClusterApi) {
    const PASSWORD: &str = "Tr0ub4dor%263";
    let presets = "
apiVersion: reach.dev/v1alpha1
kind: ClusterPodPreset
metadata:
  name: corporate-proxy
spec:
  env:
  - name: https_proxy
    valueFrom:
      secretKeyRef:
        name: proxy
        key: url
---
apiVersion: v1
kind: Secret
metadata:
  name: proxy
  namespace: secret
stringData:
  url: http://builder:PASSWORD@proxy.corp.example:3128
";
    let presets = Presets::new(&presets.replace("PASSWORD", PASSWORD));
    let stream = presets.patch(
        &example("vsphere.yaml", "secret"),
        &["--env-secret", "{cluster}-proxy-env", "--namespace", "secret"],
    );
    for object in objects(&stream).iter().filter(|object| object["kind"] != "Secret") {
        assert!(!object.to_string().contains(PASSWORD), "{object}");
    }
    let cluster = cluster_api.create("secret", "shop", Workload::Absent, &stream);
    let first = cluster.user_data(Role::First);
    let environment = first.file(ENVIRONMENT);
    assert_eq!((&*environment.owner, &*environment.permissions), ("root:root", "0600"));
    let line = format!("HTTPS_PROXY='http://builder:{PASSWORD}@proxy.corp.example:3128'");
    assert!(environment.content.lines().any(|present| present == line), "the line of the variable");
    assert_eq!(first.commands()[0], COMMAND);
    let config = cluster.list("kubeadmconfigs").remove(0).to_string();
    assert!(
        config.contains("shop-proxy-env") && !config.contains(PASSWORD),
        "the template's copy has none either"
    );
}

pub fn give_static_pods_what_is_asked_for(cluster_api: &ClusterApi) {
    for mode in ["none", "inherit", "explicit"] {
        let namespace = format!("static-pods-{mode}");
        let stream =
            Presets::example().patch(&example("static-ip.yaml", &namespace), &["--static-pods", mode]);
        let cluster = cluster_api.create(&namespace, "bank", Workload::Absent, &stream);
        let first = cluster.user_data(Role::First);
        let exports: Vec<_> =
            first.commands().into_iter().filter(|command| command.contains("proxy.env")).collect();
        let expected: &[&str] =
            if mode == "inherit" { &["set -a; . /etc/reach/proxy.env; set +a"] } else { &[] };
        assert_eq!(exports, expected, "{mode}");
        let kubeadm = objects(&first.file("/run/kubeadm/kubeadm.yaml").content);
        let configuration = kubeadm.iter().find(|object| object["kind"] == "ClusterConfiguration");
        let configuration = configuration.expect("a ClusterConfiguration");
        for component in ["apiServer", "controllerManager", "scheduler"] {
            let variables = configuration[component]["extraEnvs"].as_array().map_or(&[][..], Vec::as_slice);
            let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
            assert_eq!(names.contains(&"HTTPS_PROXY"), mode == "explicit", "{mode}, {component}: {names:?}");
        }
    }
}

pub fn of_ignition_are_given_the_files_and_the_command(cluster_api: &ClusterApi) {
    let stream = replaced(
        &example("static-ip.yaml", "ignition"),
        "\n  kubeadmConfigSpec:",
        "\n  kubeadmConfigSpec:\n    format: ignition",
    );
    let cluster = cluster_api.create("ignition", "bank", Workload::Absent, &patched(&stream));
    let data = cluster.user_data(Role::First);
    let files = data.ignition_files();
    let file =
        |path: &str| files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"));
    for (path, mode) in [(ENVIRONMENT, "0600"), (DROP_IN, "0644"), (SCRIPT, "0700")] {
        assert_eq!(file(path).permissions, mode, "{path}");
    }
    assert_environment(&file(ENVIRONMENT).content, &["bank-api.corp.example", "10.30.0.0/26"]);
    let script = &file("/etc/kubeadm.sh").content;
    let place = |command: &str| script.find(command).unwrap_or_else(|| panic!("{command}: {script}"));
    assert!(
        place(COMMAND) < place("hostnamectl ") && place("hostnamectl ") < place("kubeadm init"),
        "{script}"
    );
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
fn assert_ours(user_data: &UserData, direct: &[&str]) {
    for (path, mode) in [(ENVIRONMENT, "0600"), (DROP_IN, "0644"), (SCRIPT, "0700")] {
        let file = user_data.file(path);
        assert_eq!((&*file.owner, &*file.permissions), ("root:root", mode), "{path}");
    }
    assert_environment(&user_data.file(ENVIRONMENT).content, direct);
    let drop_in = user_data.file(DROP_IN).content;
    assert!(drop_in.ends_with("\n[Service]\nEnvironmentFile=/etc/reach/proxy.env\n"), "{drop_in}");
    let commands = user_data.commands();
    assert_eq!(commands[0], COMMAND);
    assert!(commands[1].starts_with("hostnamectl "), "the user's own come after: {commands:?}");
}

/// The file with the variables has the example's proxy, and these are among what goes past it.
#[track_caller]
pub fn assert_environment(content: &str, direct: &[&str]) {
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] {
        let line = format!("{name}='http://proxy.corp.example:3128'");
        assert!(content.lines().any(|present| present == line), "{line}: {content}");
    }
    let list = |name: &str| {
        let line = content.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("='"));
        line.and_then(|line| line.strip_suffix('\'')).unwrap_or_else(|| panic!("{name}: {content}"))
    };
    assert_eq!(list("no_proxy"), list("NO_PROXY"));
    let entries: Vec<_> = list("no_proxy").split(',').collect();
    for entry in direct.iter().chain(&OF_THE_PRESET) {
        assert!(entries.contains(entry), "{entry}: {entries:?}");
    }
}
