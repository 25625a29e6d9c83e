//! Tests of pods and proxies without reach: what it changes is measured against this.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::kubectl::{Kubectl as _, text};
use crate::support::node::{Client, Cluster, OUTSIDE, OUTSIDE_PAGE};
use crate::support::workloads::{
    NEIGHBOUR_PAGE, await_neighbour, container, create_strict_namespace, deploy_clients, deployment, fetch,
};

fn deploy(cluster: &Cluster, namespace: &str, replicas: u8, env: &Value) {
    create_strict_namespace(cluster, namespace);
    deploy_clients(cluster, namespace, replicas, env);
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
    cluster.apply(&deployment("logs", "speaker", 1, &json!({"containers": [speaker]})));
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
