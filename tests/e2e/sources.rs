//! What `noProxyFrom` of presets gets from the cluster.

use serde_json::{Value, json};

use crate::cluster::{Cluster, env, pod, token_config};
use crate::support::eventually;
use crate::support::review::{patch, review_of};
use crate::support::serve::Reach;

const KUBEADM: &str = "reach_no_proxy_watch_refused{watch=\"ConfigMap kubeadm-config\"}";

/// A preset that has its `no_proxy` from the cluster.
fn from(sources: &[&str]) -> Value {
    json!({"letterCase": "AsWritten", "noProxyForm": "Portable", "noProxyFrom": sources})
}

fn service(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

fn plain(namespace: &str, name: &str) -> Value {
    service(namespace, name, &json!({"selector": {"app": name}, "ports": [{"port": 80}]}))
}

/// The entries of the `no_proxy` of a new pod, of those that everybody has only `localhost`.
#[track_caller]
fn no_proxy(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let env = env(&cluster.dry_run(namespace, &pod(&json!({}), &json!([]))), "web");
    let [no_proxy] = &env[..] else { panic!("{env:?}") };
    let entries = no_proxy.strip_prefix("no_proxy=").unwrap_or_else(|| panic!("{no_proxy}"));
    entries.split(',').filter(|entry| *entry != "127.0.0.1").map(str::to_owned).collect()
}

/// Waits until a new pod has these entries, and not those.
#[track_caller]
fn await_entries(cluster: &Cluster, namespace: &str, present: &[&str], absent: &[&str]) {
    eventually(&format!("a new pod has {present:?} and not {absent:?}"), || {
        let entries = no_proxy(cluster, namespace);
        let has = |entry: &&str| entries.iter().any(|other| other == entry);
        if present.iter().all(has) && !absent.iter().any(has) { Ok(()) } else { Err(format!("{entries:?}")) }
    });
}

pub fn that_are_services_are_in_the_next_pod(cluster: &Cluster) {
    let namespace = "sources-shop";
    cluster.namespace(namespace, &json!({}));
    cluster.preset(namespace, "services", &from(&["Services"]));
    assert_eq!(no_proxy(cluster, namespace), ["localhost"]);
    let headless = json!({"clusterIP": "None", "selector": {"app": "kafka"}, "ports": [{"port": 9092}]});
    let external = json!({"type": "ExternalName", "externalName": "legacy.corp.example"});
    cluster.apply(&json!([
        plain(namespace, "mysql"),
        service(namespace, "kafka", &headless),
        service(namespace, "legacy", &external),
        // It would let every host of this top-level domain past the proxy.
        plain(namespace, "app"),
    ]));
    let all = [".kafka", "kafka", ".legacy", "legacy", ".mysql", "mysql", "localhost"];
    await_entries(cluster, namespace, &all, &[]);
    let stored = cluster.create(namespace, &pod(&json!({}), &json!([])));
    assert_eq!(
        env(&stored, "web"),
        ["no_proxy=.kafka,kafka,.legacy,legacy,.mysql,mysql,localhost,127.0.0.1"]
    );
    let left_out = "reach_no_proxy_entries_left_out{source=\"Services\",reason=\"top_level_domain\"}";
    assert_eq!(cluster.reach.metric(left_out), Some(1.0));
    let log = cluster.reach.stderr();
    assert!(log.contains("top-level domain: Service sources-shop/app"), "{log}");

    cluster.kubectl(&["delete", "service", "mysql", "-n", namespace]);
    await_entries(cluster, namespace, &["kafka"], &["mysql", ".mysql"]);

    // A name is that of its own namespace; from another one it takes both, and only who asks has them.
    let other = "sources-web";
    cluster.namespace(other, &json!({}));
    cluster.preset(other, "services", &from(&["Services"]));
    assert_eq!(no_proxy(cluster, other), ["localhost"]);
    cluster.preset(other, "all", &from(&["AllServices"]));
    let pairs = [".app.sources-shop", "app.sources-shop", "kafka.sources-shop", "kubernetes.default"];
    await_entries(cluster, other, &pairs, &["kafka", "app"]);
}

pub fn that_are_networks_and_nodes_are_in_the_next_pod(cluster: &Cluster) {
    let namespace = "sources-network";
    cluster.namespace(namespace, &json!({}));
    cluster.preset(namespace, "network", &from(&["ClusterNetwork", "Nodes"]));
    // As the control plane itself made them.
    let address = cluster.get("default", &["service", "kubernetes"])["spec"]["clusterIP"].clone();
    let range = cluster.get("default", &["servicecidr", "kubernetes"])["spec"]["cidrs"][0].clone();
    let of_cluster = [address, range].map(|value| value.as_str().expect("text").to_owned());
    let mut expected = vec!["localhost"];
    expected.extend(of_cluster.iter().map(String::as_str));
    assert_eq!(no_proxy(cluster, namespace), expected);

    let more = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "sources"},
        "spec": {"cidrs": ["10.200.0.0/24"]},
    });
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "sources"},
        "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]},
    });
    cluster.apply(&json!([more, node]));
    let status = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": "172.31.77.10"},
        {"type": "ExternalIP", "address": "203.0.113.7"},
        {"type": "Hostname", "address": "sources"},
    ]}});
    let patch = ["patch", "node", "sources", "--subresource=status", "--type=merge", "-p"];
    cluster.kubectl(&[&patch[..], &[&status.to_string()]].concat());
    let added = ["172.31.77.10", "10.200.0.0/24", "10.244.7.0/24"];
    await_entries(cluster, namespace, &added, &["203.0.113.7", "sources"]);

    // The right to kubeadm's ConfigMap comes while it runs; so far it does without.
    assert_eq!(cluster.reach.metric(KUBEADM), Some(1.0));
    assert!(!cluster.reach.stderr().contains("with 403"), "it is said once, in reach's own words");
    let (api_group, name) = ("rbac.authorization.k8s.io", "kubeadm-config");
    let metadata = json!({"name": name, "namespace": "kube-system"});
    cluster.apply(&json!([
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"ClusterConfiguration": "networking:\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n"},
        },
        {
            "apiVersion": format!("{api_group}/v1"),
            "kind": "Role",
            "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["list", "watch"]}],
        },
        {
            "apiVersion": format!("{api_group}/v1"),
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api_group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "reach", "namespace": "kube-system"}],
        },
    ]));
    await_entries(cluster, namespace, &["10.244.0.0/16"], &["10.244.7.0/24", "fd00:10:244::/56"]);
    cluster.reach.await_metric(KUBEADM, 0.0);

    cluster.kubectl(&["delete", "node", "sources"]);
    await_entries(cluster, namespace, &["10.244.0.0/16"], &["172.31.77.10"]);
    cluster.kubectl(&["delete", "configmap", name, "-n", "kube-system"]);
    await_entries(cluster, namespace, &[], &["10.244.0.0/16"]);
}

/// Who has the rights for presets only, and is told to watch everything.
pub fn that_are_refused_leave_it_ready(cluster: &Cluster) {
    let namespace = "sources-refused";
    cluster.namespace(namespace, &json!({}));
    let all = from(&["Services", "ClusterNetwork", "Nodes"]);
    cluster.preset(namespace, "all", &all);
    let kubeconfig = token_config(&cluster.control_plane, "presets-only");
    let start = |more: &[&str]| {
        let mut arguments = vec!["--kubeconfig".as_ref(), kubeconfig.path().as_os_str()];
        arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
        let reach = Reach::start(arguments);
        reach.await_ready();
        reach
    };
    let given = |reach: &Reach| {
        let mut review = review_of(&json!({"spec": {"containers": [{"name": "web"}]}}));
        review["request"]["namespace"] = json!(namespace);
        patch(&reach.review(&review)).expect("a patch").to_string()
    };
    let refused = start(&[
        "--no-proxy-from=services,cluster-network,nodes",
        "--cluster-network=10.10.192.1/18",
        "--log=info,kube_runtime=warn",
    ]);
    // It is asked again and again, which kube_runtime says each time. There are two watches of Services.
    for (objects, times) in [("services", 6), ("servicecidrs", 3), ("nodes", 3), ("configmaps", 3)] {
        eventually(&format!("{objects} are asked for {times} times"), || {
            let log = refused.stderr();
            let said = |line: &&str| line.contains("with 403") && line.contains(objects);
            if log.lines().filter(said).count() >= times { Ok(()) } else { Err(log) }
        });
    }
    for watch in ["Services", "ServiceCIDRs", "Nodes", "ConfigMap kubeadm-config", "Service kubernetes"] {
        let metric = format!("reach_no_proxy_watch_refused{{watch=\"{watch}\"}}");
        assert_eq!(refused.metric(&metric), Some(1.0), "{watch}");
        let said = |line: &&str| line.contains("going on without") && line.contains(&format!("\"{watch}\""));
        assert_eq!(refused.stderr().lines().filter(said).count(), 1, "{}", refused.stderr());
    }
    assert_eq!(refused.metric("reach_presets_stale"), Some(0.0));
    let patch = given(&refused);
    assert!(patch.contains("\"localhost,127.0.0.1,10.10.192.0/18\""), "{patch}");

    // Nobody told this one to watch anything.
    let without = start(&[]);
    let patch = given(&without);
    assert!(patch.contains("\"localhost,127.0.0.1\""), "{patch}");
    for source in ["Services", "ClusterNetwork", "Nodes"] {
        let missing = format!("reach_no_proxy_source_missing{{source=\"{source}\"}}");
        assert_eq!((without.metric(&missing), refused.metric(&missing)), (Some(1.0), Some(0.0)), "{source}");
        let said =
            format!("noProxyFrom {source} of a preset adds nothing: start reach with --no-proxy-from=");
        assert!(without.stderr().contains(&said), "{}", without.stderr());
    }
    assert!(!refused.stderr().contains("adds nothing"), "{}", refused.stderr());
}
