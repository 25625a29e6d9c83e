//! The control plane with reach in it, and what tests ask of it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::control_plane::{ControlPlane, Options};
use crate::support::eventually;
use crate::support::installation::API_SERVER_FLAG;
use crate::support::review::{patch, review_of};
use crate::support::serve::Reach;

/// A control plane, the CRDs, `reach serve` and its registration.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: it is a client of the other.
    pub reach: Reach,
    pub control_plane: ControlPlane,
    /// What reach connects with.
    pub kubeconfig: tempfile::NamedTempFile,
}

/// Namespaces with this label are not sent to the shared reach: their tests register their own.
pub const OWN_WEBHOOK: &str = "e2e.example/own-webhook";

/// A service account that may list and watch these.
fn account(name: &str, resources: &[(&str, &[&str])]) -> Vec<Value> {
    let group = "rbac.authorization.k8s.io";
    let rule = |(group, resources): &(&str, &[&str])| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let rules: Vec<Value> = resources.iter().map(rule).collect();
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "kube-system"}}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}],
        }),
    ]
}

/// What `reach serve` needs to be allowed: for presets only, and for what they refer to (but for kubeadm's ConfigMap).
fn rights() -> Value {
    let presets: [(&str, &[&str]); 2] =
        [("reach.dev", &["clusterpodpresets", "podpresets"]), ("", &["namespaces"])];
    let sources: [(&str, &[&str]); 2] =
        [("", &["services", "nodes"]), ("networking.k8s.io", &["servicecidrs"])];
    let all = [&presets[..], &sources].concat();
    [account("presets-only", &presets), account("reach", &all)].concat().into()
}

/// A kubeconfig of a service account.
pub fn token_config(control_plane: &ControlPlane, account: &str) -> tempfile::NamedTempFile {
    let token = ["create", "token", account, "-n", "kube-system", "--duration", "12h"];
    let token = ok(&control_plane.kubectl(&token));
    let kubeconfig = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(control_plane.kubeconfig()).expect("a kubeconfig"))
            .expect("JSON");
    config["users"][0]["user"] = json!({"token": token.trim()});
    std::fs::write(kubeconfig.path(), config.to_string()).expect("a temporary file");
    kubeconfig
}

/// A registration as documented: pods as they are created, and their new ephemeral containers.
pub fn registration(name: &str, url: &str, ca: &str, namespaces: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": "pods.reach.dev",
            "clientConfig": {"url": url, "caBundle": base64_simd::STANDARD.encode_to_string(ca)},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]},
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/ephemeralcontainers"], "operations": ["UPDATE"]},
            ],
            "namespaceSelector": namespaces,
            // So that a failure shows.
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
        }],
    })
}

impl Cluster {
    /// Starts all of it. reach is there before its CRDs and has to find them by itself.
    pub fn start() -> Self {
        let options = Options::default().with_controller_manager().with_api_server_flag(API_SERVER_FLAG);
        let control_plane = ControlPlane::start(options);
        apply(&control_plane, &rights());
        let kubeconfig = token_config(&control_plane, "reach");
        let reach = Reach::start([
            "--kubeconfig".as_ref(),
            kubeconfig.path().as_os_str(),
            "--no-proxy-from=services,cluster-network,nodes".as_ref(),
        ]);
        eventually("reach says what it misses", || {
            let log = reach.stderr();
            if log.contains("are the CRDs installed?") { Ok(()) } else { Err(log) }
        });
        let missing = reach.status("/readyz");
        assert_eq!((missing.status, missing.body.as_str()), (503, "presets: not loaded yet\n"));

        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let crds = crds.to_str().expect("UTF-8");
        // Accepted with the estimated cost of every CEL rule within the API server's budget.
        ok(&control_plane.kubectl(&["apply", "--server-side", "-f", crds]));
        ok(&control_plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", crds]));
        reach.await_ready();
        let others = json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kube-public", "kube-node-lease"]},
            {"key": OWN_WEBHOOK, "operator": "DoesNotExist"},
        ]});
        apply(&control_plane, &json!([registration("reach", &reach.url(), &reach.ca(), &others)]));

        let cluster = Self { reach, control_plane, kubeconfig };
        cluster.namespace("started", &json!({}));
        cluster.preset("started", "started", &json!({"env": [{"name": "STARTED", "value": "yes"}]}));
        // The API server learns of a registration a moment after it took it.
        eventually("the webhook is called", || {
            let pod = cluster.dry_run("started", &pod(&json!({"app": "started"}), &json!([])));
            if env(&pod, "web").is_empty() { Err(pod.to_string()) } else { Ok(()) }
        });
        cluster
    }

    /// Runs kubectl, which has to succeed, and returns its output.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        ok(&self.control_plane.kubectl(arguments))
    }

    /// Applies objects.
    #[track_caller]
    pub fn apply(&self, objects: &Value) {
        apply(&self.control_plane, objects);
    }

    /// Makes a namespace with these labels and waits for its service account.
    #[track_caller]
    pub fn namespace(&self, name: &str, labels: &Value) {
        // With its labels from the start, as admission reads them.
        self.apply(
            &json!([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}]),
        );
        eventually("the namespace has its service account", || {
            let account = self.control_plane.kubectl(&["get", "serviceaccount", "default", "-n", name]);
            if account.status.success() { Ok(()) } else { Err(stderr(&account)) }
        });
    }

    /// Makes a PodPreset and waits until it is served. Its selector, if it has one, has to be `app` or `row`.
    #[track_caller]
    pub fn preset(&self, namespace: &str, name: &str, spec: &Value) {
        self.apply(&json!([pod_preset(namespace, name, spec)]));
        self.await_presets(namespace, &spec["selector"]["matchLabels"], &[&format!("PodPreset/{name}@")]);
    }

    /// Makes a ClusterPodPreset for one namespace and waits until it is served.
    #[track_caller]
    pub fn cluster_preset(&self, namespace: &str, name: &str, spec: &Value) {
        self.apply(&json!([cluster_pod_preset(namespace, name, spec)]));
        self.await_presets(
            namespace,
            &spec["selector"]["matchLabels"],
            &[&format!("ClusterPodPreset/{name}@")],
        );
    }

    /// Waits until a pod with these labels would get these presets (the beginnings of `kind/name@generation`).
    #[track_caller]
    pub fn await_presets(&self, namespace: &str, labels: &Value, presets: &[&str]) {
        let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "probe"}]}});
        eventually(&format!("{presets:?} are served"), || {
            let applied = self.ask(namespace, &pod).map(|patch| patch.to_string()).unwrap_or_default();
            if presets.iter().all(|preset| applied.contains(preset)) { Ok(()) } else { Err(applied) }
        });
    }

    /// Asks reach itself, past the API server, for the patch of a pod.
    #[track_caller]
    pub fn ask(&self, namespace: &str, pod: &Value) -> Option<Value> {
        let mut review = review_of(pod);
        review["request"]["namespace"] = json!(namespace);
        patch(&self.reach.review(&review))
    }

    /// Creates a pod (or any object) and returns what the API server stored.
    #[track_caller]
    pub fn create(&self, namespace: &str, object: &Value) -> Value {
        self.create_with(namespace, object, &[]).0
    }

    /// What the API server would store.
    #[track_caller]
    pub fn dry_run(&self, namespace: &str, object: &Value) -> Value {
        self.create_with(namespace, object, &["--dry-run=server"]).0
    }

    /// Creates an object with more flags; also returns what kubectl says on standard error.
    #[track_caller]
    pub fn create_with(&self, namespace: &str, object: &Value, flags: &[&str]) -> (Value, String) {
        let (mut stored, stderr) = self.create_all(namespace, std::slice::from_ref(object), flags);
        (stored.remove(0), stderr)
    }

    /// Creates objects, one after the other.
    #[track_caller]
    pub fn create_all(&self, namespace: &str, objects: &[Value], flags: &[&str]) -> (Vec<Value>, String) {
        let arguments = [&["create", "-n", namespace, "-o", "json", "-f", "-"], flags].concat();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let output = self.control_plane.kubectl_with_stdin(&arguments, list.to_string());
        let stored = ok(&output);
        let stored =
            serde_json::Deserializer::from_str(&stored).into_iter().map(|object| object.expect("JSON"));
        (stored.collect(), stderr(&output))
    }

    /// Reads objects; several as the items of a list.
    #[track_caller]
    pub fn get(&self, namespace: &str, what: &[&str]) -> Value {
        let arguments = [&["get", "-n", namespace, "-o", "json"], what].concat();
        serde_json::from_str(&self.kubectl(&arguments)).expect("JSON")
    }
}

#[track_caller]
fn apply(control_plane: &ControlPlane, objects: &Value) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    ok(&control_plane.kubectl_with_stdin(&["apply", "--server-side", "-f", "-"], list.to_string()));
}

/// Standard output of what has to succeed.
#[track_caller]
pub fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A pod with one container, `web`.
pub fn pod(labels: &Value, env: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": labels},
        "spec": {"containers": [{"name": "web", "image": "web", "env": env}]},
    })
}

pub fn pod_preset(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "PodPreset",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

pub fn cluster_pod_preset(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// The env of a container of any list, as `NAME=value`, or `NAME<-source` for a `valueFrom`.
#[track_caller]
pub fn env(pod: &Value, container: &str) -> Vec<String> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let container = lists
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .find(|candidate| candidate["name"] == container)
        .unwrap_or_else(|| panic!("no container {container} in {pod}"));
    env_of(&container["env"])
}

/// Variables as `NAME=value`, or `NAME<-name/key` for those from a Secret or ConfigMap.
pub fn env_of(env: &Value) -> Vec<String> {
    let show = |variable: &Value| {
        let name = variable["name"].as_str().expect("a name");
        match variable["valueFrom"].as_object().and_then(|source| source.values().next()) {
            Some(source) => format!(
                "{name}<-{}/{}",
                source["name"].as_str().unwrap_or_default(),
                source["key"].as_str().unwrap_or_default()
            ),
            // The API server leaves out an empty value.
            None => format!("{name}={}", variable["value"].as_str().unwrap_or_default()),
        }
    };
    env.as_array().into_iter().flatten().map(show).collect()
}

/// An annotation of reach.
pub fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][format!("reach.dev/{name}")].as_str()
}
