//! What tests of running pods deploy: clients under the strictest Pod Security level, and a neighbour for them to talk to.

use serde_json::{Value, json};

use super::eventually;
use super::kubectl::{Kubectl, text};
use super::node::{Client, Cluster};

/// What the neighbour answers with.
pub const NEIGHBOUR_PAGE: &str = "the neighbour\n";

/// A cluster that has images of clients.
pub trait Site: Kubectl + Sized {
    /// Sees to it that the cluster has the image of a client.
    ///
    /// # Panics
    /// When it cannot be had.
    fn provide(&self, client: Client);
}

impl Site for Cluster {
    fn provide(&self, client: Client) {
        Cluster::provide(self, client);
    }
}

/// A container that sleeps until it is asked for something.
pub fn container(client: Client, env: &Value) -> Value {
    json!({
        "name": "client",
        "image": client.image(),
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
        "env": env,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// A Deployment of a pod's spec. Pods are labelled `app: NAME`.
pub fn deployment(namespace: &str, name: &str, replicas: u8, pod: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}

/// Deploys a web server behind the Service `mysql`, and waits until it is ready.
pub fn deploy_neighbour(cluster: &impl Site, namespace: &str) {
    cluster.provide(Client::Python);
    let mut server = container(Client::Python, &json!([]));
    let script = format!(
        "import http.server, os\nos.chdir('/tmp')\nopen('index.html', 'w').write({NEIGHBOUR_PAGE:?})\n\
         http.server.test(http.server.SimpleHTTPRequestHandler, http.server.ThreadingHTTPServer, port=8080)"
    );
    server["command"] = json!(["python3", "-I", "-c", script]);
    server["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    server["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
    let pod = json!({
        "containers": [server],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        // The first process of a container gets no signal that it does not handle.
        "terminationGracePeriodSeconds": 1,
    });
    cluster.apply(&json!([
        deployment(namespace, "mysql", 1, &pod),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "mysql", "namespace": namespace},
            "spec": {"selector": {"app": "mysql"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]));
    cluster.await_rollout(namespace, "deployment/mysql");
}

/// A namespace of the strictest Pod Security level.
pub fn create_strict_namespace(cluster: &impl Site, namespace: &str) {
    cluster.create_namespace(namespace);
    cluster.ask(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"]);
}

/// Deploys the neighbour and one client of each kind, whose containers have these variables.
pub fn deploy_clients(cluster: &impl Site, namespace: &str, replicas: u8, env: &Value) {
    for client in Client::ALL {
        cluster.provide(client);
    }
    let clients = Client::ALL.map(|client| {
        let pod = json!({"containers": [container(client, env)], "terminationGracePeriodSeconds": 1});
        deployment(namespace, name(client), replicas, &pod)
    });
    cluster.apply(&json!(clients));
    deploy_neighbour(cluster, namespace);
    for client in Client::ALL {
        cluster.await_rollout(namespace, &format!("deployment/{}", name(client)));
    }
}

/// The name of a client's Deployment.
pub fn name(client: Client) -> &'static str {
    match client {
        Client::Curl => "curl",
        Client::Wget => "wget",
        Client::Python => "python",
    }
}

/// What a client gets from a URL.
pub fn fetch(cluster: &impl Site, namespace: &str, client: Client, url: &str) -> Result<String, String> {
    let command = client.fetch(url);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let output = cluster.exec(namespace, &format!("deployment/{}", name(client)), &command);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(text(&output))
    }
}

/// Waits until kube-proxy and DNS have caught up with the Service of the neighbour.
pub fn await_neighbour(cluster: &impl Site, namespace: &str) {
    let command = ["curl", "-sS", "--noproxy", "*", "--fail", "--max-time", "5", "http://mysql/"];
    eventually("the neighbour answers", || {
        let output = cluster.exec(namespace, "deployment/curl", &command);
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    });
}
