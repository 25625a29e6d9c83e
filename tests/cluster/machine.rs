//! Tests of the cluster itself: what the others stand on.

use std::net::{TcpListener, TcpStream};

use crate::support::kubectl::{Kubectl as _, text};
use crate::support::node::{Cluster, NODE, Part};
use crate::support::workloads::{NEIGHBOUR_PAGE, deploy_neighbour};
use crate::support::{PATIENCE, eventually};

pub fn is_a_ready_node(cluster: &Cluster) {
    let node = cluster.get(&["node", NODE]);
    let runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().expect("a version");
    assert!(runtime.starts_with("containerd://2."), "{runtime}");
    println!("node: {runtime}, kubelet {}", node["status"]["nodeInfo"]["kubeletVersion"]);
}

pub fn has_two_api_servers(cluster: &Cluster) {
    let second = cluster.second_kubeconfig().to_str().expect("UTF-8").to_owned();
    let asked = cluster.ask(&["--kubeconfig", &second, "get", "--raw", "/readyz"]);
    assert_eq!(asked, "ok");
    eventually("the Service has both", || {
        let slices = cluster.get(&["endpointslices", "--selector=kubernetes.io/service-name=kubernetes"]);
        let count = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        if count == 2 { Ok(()) } else { Err(slices.to_string()) }
    });
}

pub fn reaches_nothing_that_listens_outside_of_it(cluster: &Cluster) {
    let listener = TcpListener::bind((cluster.machine_address(), 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    TcpStream::connect_timeout(&address, PATIENCE).expect("it listens for this machine itself");
    let url = format!("http://{address}/");
    let connect = cluster.inside("curl").args(["--silent", "--connect-timeout", "3", &url]).status();
    // It could not connect (7), or not in time (28).
    assert!(matches!(connect.expect("curl").code(), Some(7 | 28)));
}

pub fn comes_back_when_it_was_switched_off(cluster: &Cluster) {
    cluster.create_namespace("switched-off");
    deploy_neighbour(cluster, "switched-off");
    let before = cluster.get(&["pods", "--namespace=switched-off"]);
    cluster.shut_down();
    assert!(!cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).status.success(), "it is off");
    let timings = cluster.boot();
    println!("cold start: everything after {:.1} s", timings.ready.as_secs_f32());
    // The same pods, started anew, serve again.
    eventually("the containers are started anew", || {
        let pods = cluster.get(&["pods", "--namespace=switched-off"]);
        assert_eq!(pods["items"][0]["metadata"]["uid"], before["items"][0]["metadata"]["uid"]);
        let status = &pods["items"][0]["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("the Service answers", || {
        let mut fetch = cluster.inside("curl");
        let service = cluster.get(&["service", "mysql", "--namespace=switched-off"]);
        let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
        let answer = fetch
            .args(["--silent", "--max-time", "5", &format!("http://{address}/")])
            .output()
            .expect("curl");
        if answer.stdout == NEIGHBOUR_PAGE.as_bytes() { Ok(()) } else { Err(text(&answer)) }
    });
    // Parts can be restarted one by one, too.
    cluster.stop_part(Part::Kubelet);
    cluster.start_part(Part::Kubelet);
}
