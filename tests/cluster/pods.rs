//! Tests of pods and proxies without reach: what it changes is measured against this.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::node::{Client, Cluster, OUTSIDE, OUTSIDE_PAGE, text};

/// What the neighbour answers with.
pub const NEIGHBOUR_PAGE: &str = "the neighbour\n";

/// A container that sleeps until it is asked for something, under the strictest Pod Security level.
fn container(client: Client, env: &Value) -> Value {
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

fn deployment(name: &str, replicas: u8, pod: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}

fn place(mut object: Value, namespace: &str) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}

/// Deploys a web server behind the Service `mysql`, and waits until it is ready.
pub fn deploy_neighbour(cluster: &Cluster, namespace: &str) {
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
        place(deployment("mysql", 1, &pod), namespace),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "mysql", "namespace": namespace},
            "spec": {"selector": {"app": "mysql"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]));
    cluster.await_rollout(namespace, "deployment/mysql");
}

/// A namespace of the strictest Pod Security level with the neighbour in it, and one client of each kind, whose containers have
/// these variables.
fn deploy(cluster: &Cluster, namespace: &str, replicas: u8, env: &Value) {
    cluster.create_namespace(namespace);
    cluster.ask(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"]);
    for client in Client::ALL {
        cluster.provide(client);
    }
    deploy_neighbour(cluster, namespace);
    for client in Client::ALL {
        let pod = json!({"containers": [container(client, env)]});
        cluster.apply(&place(deployment(name(client), replicas, &pod), namespace));
    }
    for client in Client::ALL {
        cluster.await_rollout(namespace, &format!("deployment/{}", name(client)));
    }
}

fn name(client: Client) -> &'static str {
    match client {
        Client::Curl => "curl",
        Client::Wget => "wget",
        Client::Python => "python",
    }
}

/// What a client gets from a URL.
fn fetch(cluster: &Cluster, namespace: &str, client: Client, url: &str) -> Result<String, String> {
    let command = client.fetch(url);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let output = cluster.exec(namespace, &format!("deployment/{}", name(client)), &command);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(text(&output))
    }
}

/// Waits until kube-proxy and DNS have caught up with the Service.
fn await_neighbour(cluster: &Cluster, namespace: &str) {
    let command = ["env", "-u", "http_proxy", "curl", "-sS", "--fail", "--max-time", "5", "http://mysql/"];
    eventually("the neighbour answers", || {
        let output = cluster.exec(namespace, "deployment/curl", &command);
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    });
}

pub fn of_every_client_run(cluster: &Cluster) {
    let start = Instant::now();
    deploy(cluster, "clients", 2, &json!([]));
    println!("rolled out: 3 Deployments of 2 and a neighbour after {:.1} s", start.elapsed().as_secs_f32());
    let pods = cluster.get(&["pods", "--namespace=clients"]);
    assert_eq!(pods["items"].as_array().expect("a list").len(), 7, "{pods}");
}

pub fn have_a_log_and_run_commands(cluster: &Cluster) {
    cluster.create_namespace("logs");
    cluster.provide(Client::Curl);
    let mut speaker = container(Client::Curl, &json!([]));
    speaker["command"] = json!(["sh", "-c", "echo spoken; trap 'exit 0' TERM; sleep infinity & wait"]);
    cluster.apply(&place(deployment("speaker", 1, &json!({"containers": [speaker]})), "logs"));
    cluster.await_rollout("logs", "deployment/speaker");
    eventually("the log", || {
        let log = cluster.ask(&["logs", "--namespace=logs", "deployment/speaker"]);
        if log == "spoken\n" { Ok(()) } else { Err(log) }
    });
    let ran = cluster.exec("logs", "deployment/speaker", &["sh", "-c", "echo done; exit 3"]);
    assert_eq!(ran.status.code(), Some(3), "{}", text(&ran));
    assert_eq!(ran.stdout, b"done\n");
}

pub fn reach_only_their_neighbours_without_a_proxy(cluster: &Cluster) {
    deploy(cluster, "without-proxy", 1, &json!([]));
    await_neighbour(cluster, "without-proxy");
    for client in Client::ALL {
        let near = fetch(cluster, "without-proxy", client, "http://mysql/");
        assert_eq!(near.as_deref(), Ok(NEIGHBOUR_PAGE), "{client:?}");
        let far = fetch(cluster, "without-proxy", client, &format!("http://{OUTSIDE}/"));
        let problem = far.expect_err("nobody resolves the name");
        let reason =
            problem.lines().rfind(|line| !line.is_empty() && !line.starts_with("command terminated"));
        println!("{client:?} without a proxy: {}", reason.unwrap_or(&problem));
    }
}

pub fn reach_only_the_outside_with_http_proxy_written_by_hand(cluster: &Cluster) {
    let proxy = cluster.proxy();
    deploy(cluster, "by-hand", 1, &json!([{"name": "http_proxy", "value": proxy.url()}]));
    await_neighbour(cluster, "by-hand");
    for client in Client::ALL {
        let before = proxy.requests(OUTSIDE).len();
        let far = fetch(cluster, "by-hand", client, &format!("http://{OUTSIDE}/"));
        assert_eq!(far.as_deref(), Ok(OUTSIDE_PAGE), "{client:?}");
        eventually("the proxy has it in its log", || {
            if proxy.requests(OUTSIDE).len() > before { Ok(()) } else { Err(proxy.log()) }
        });
        // Asked for the neighbour, too, for want of no_proxy, and it does not know it.
        let before = proxy.requests("mysql").len();
        let near = fetch(cluster, "by-hand", client, "http://mysql/");
        assert!(near.is_err(), "{client:?}: {near:?}");
        eventually("the proxy has that in its log", || {
            if proxy.requests("mysql").len() > before { Ok(()) } else { Err(proxy.log()) }
        });
    }
}

pub fn use_the_proxy_that_they_are_told(cluster: &Cluster) {
    let other = cluster.other_proxy();
    deploy(
        cluster,
        "other-proxy",
        1,
        &json!([
            {"name": "http_proxy", "value": other.url()},
            {"name": "https_proxy", "value": other.url()},
        ]),
    );
    let before = other.requests(OUTSIDE).len();
    let far = fetch(cluster, "other-proxy", Client::Curl, &format!("http://{OUTSIDE}/"));
    assert_eq!(far.as_deref(), Ok(OUTSIDE_PAGE));
    let secure = cluster.exec(
        "other-proxy",
        "deployment/curl",
        &["curl", "-sS", "--insecure", "--max-time", "10", &format!("https://{OUTSIDE}/")],
    );
    assert_eq!(text(&secure), OUTSIDE_PAGE);
    eventually("the other proxy has both in its log", || {
        if other.requests(OUTSIDE).len() == before + 2 { Ok(()) } else { Err(other.log()) }
    });
}
