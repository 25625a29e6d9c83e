//! Which proxy the static pods of the control plane have.

use std::time::Duration;

use serde_json::Value;

use crate::journey::Journey;
use crate::pods::is_injected;
use crate::readers::write;
use crate::support::boot::proxy_variables;
use crate::support::eventually_within;
use crate::support::helm::objects;
use crate::support::kubectl::Kubectl as _;

/// Static pods that may be given a proxy, by the names of their programs.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

pub fn get_no_proxy_by_default(journey: &Journey) {
    journey.site.await_system();
    for program in PROGRAMS.into_iter().chain(["etcd", "kube-proxy"]) {
        let process = journey.site.shell(&format!("pidof {program}"));
        let variables = journey.site.proxy_variables(&process);
        assert!(variables.is_empty(), "{program} has {} variables", variables.len());
    }
}

pub fn inherit_what_kubeadm_has(journey: &Journey) {
    let site = &journey.site;
    let config = cloud_config(journey, "inherit");
    let commands = texts(&config["runcmd"]);
    // Ours come first, and are one script with that of kubeadm: the variables of one command are those of the next.
    assert_eq!(commands[0], "sh /etc/reach/apply-proxy.sh");
    let export = commands[1];
    assert!(commands[2..].iter().any(|command| command.starts_with("kubeadm init ")), "{commands:?}");
    // Not kubeadm's first run, whose certificates and etcd stay.
    site.shell(&format!("{export}\n{}", control_plane("/run/kubeadm/kubeadm.yaml")));
    await_variables(journey, &journey.variables());
    asks_nobody_of_the_cluster_through_the_proxy(journey, "inherit");
}

pub fn are_given_the_variables_explicitly(journey: &Journey) {
    let site = &journey.site;
    let config = cloud_config(journey, "explicit");
    let files = config["write_files"].as_array().expect("files");
    let kubeadm = files.iter().find(|file| file["path"] == "/run/kubeadm/kubeadm.yaml").expect("kubeadm's");
    write(site, "/root/explicit.yaml", kubeadm["content"].as_str().expect("text"));
    site.shell(&control_plane("/root/explicit.yaml"));
    await_variables(journey, &journey.variables());
    asks_nobody_of_the_cluster_through_the_proxy(journey, "explicit");
}

/// What writes the manifests of the static pods.
fn control_plane(config: &str) -> String {
    format!("kubeadm init phase control-plane all --config {config}")
}

/// The user data with an option, read.
fn cloud_config(journey: &Journey, choice: &str) -> Value {
    let text = &journey.user_data[choice];
    let text = text.strip_prefix("## template: jinja\n").expect("as Cluster API writes it");
    objects(text).remove(0)
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// With a proxy, the API server calls webhooks and kubelets, and everyone the API server, as without.
fn asks_nobody_of_the_cluster_through_the_proxy(journey: &Journey, namespace: &str) {
    let site = &journey.site;
    let before = site.proxy().log();
    is_injected(journey, namespace);
    let log = site.proxy().log();
    let new = log.strip_prefix(&before).expect("a log only grows");
    let asked = |line: &&str| {
        let host = line.split_whitespace().nth(6).unwrap_or_default();
        [".svc", ":6443", ":10250", "10.96."].iter().any(|part| host.contains(part))
    };
    assert_eq!(new.lines().find(asked), None);
}

/// Waits until the control plane runs with these variables and answers.
fn await_variables(journey: &Journey, expected: &[String]) {
    let site = &journey.site;
    for program in PROGRAMS {
        eventually_within(Duration::from_mins(2), &format!("{program} runs anew"), || {
            let found = site.run(&format!("pidof {program}"));
            let process = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            // Two while one takes the place of the other.
            if process.is_empty() || process.contains(' ') {
                return Err(format!("processes: {process}"));
            }
            let environment = site.run(&format!("tr '\\0' '\\n' </proc/{process}/environ"));
            let environment = String::from_utf8_lossy(&environment.stdout).into_owned();
            let variables = proxy_variables(&environment);
            if !environment.is_empty() && variables == expected {
                Ok(())
            } else {
                Err(format!("{} variables", variables.len()))
            }
        });
    }
    site.await_api();
    site.ask(&["get", "nodes"]);
}
