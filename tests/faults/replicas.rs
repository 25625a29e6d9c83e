//! Replicas on the real node, as processes that something can be done to.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::place::{self, Product};
use crate::stage::REPLICAS;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::{Kubectl as _, succeeded};
use crate::support::node::Cluster;
use crate::support::{PATIENCE, eventually, eventually_within};

/// A replica that is ready.
#[derive(Debug)]
pub struct Replica {
    pub pod: String,
    /// Its container, which a restart replaces.
    pub container: String,
    address: String,
    process: Pid,
    /// Its network, which a restart leaves as it is.
    network: File,
}

/// Those that are ready and about to stay, by name.
pub fn ready(product: &Product) -> Vec<Replica> {
    let pods = product.get(&["pods", "--namespace", NAMESPACE, "--selector", place::REPLICAS]);
    let cluster = node(product);
    let mut replicas: Vec<_> = pods["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|pod| Replica::of(cluster, pod))
        .collect();
    replicas.sort_by(|a, b| a.pod.cmp(&b.pod));
    replicas
}

/// Waits until all replicas are ready, and returns them.
#[track_caller]
pub fn await_all(product: &Product) -> Vec<Replica> {
    eventually("all replicas are ready", || {
        let ready = ready(product);
        if ready.len() == REPLICAS { Ok(ready) } else { Err(format!("{ready:?}")) }
    })
}

/// All replicas, of which the first is the one that most connections are open to: what happens to it is noticed.
#[track_caller]
pub fn await_all_busiest_first(product: &Product) -> Vec<Replica> {
    let mut all = await_all(product);
    all.sort_by_cached_key(|replica| {
        let open = replica.metric(product, "reach_connections_open{listener=\"webhook\"}");
        #[expect(clippy::cast_possible_truncation, reason = "a count")]
        let open = open.unwrap_or_default() as i64;
        std::cmp::Reverse(open)
    });
    all
}

/// The node, which is ours in this test.
pub fn node(product: &Product) -> &Cluster {
    product.node().expect("a cluster of our own")
}

impl Replica {
    fn of(cluster: &Cluster, pod: &Value) -> Option<Self> {
        let metadata = &pod["metadata"];
        let status = &pod["status"]["containerStatuses"][0];
        if !metadata["deletionTimestamp"].is_null() || status["ready"] != true {
            return None;
        }
        let container = status["containerID"].as_str()?.strip_prefix("containerd://")?.to_owned();
        let process = cluster.process_in(&container)?;
        let network = File::open(format!("/proc/{}/ns/net", process.as_raw_nonzero())).ok()?;
        let address = pod["status"]["podIP"].as_str()?.to_owned();
        let pod = metadata["name"].as_str()?.to_owned();
        Some(Self { pod, container, address, process, network })
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.process, signal).expect("a process of our cluster");
    }

    /// Runs lines of shell in its network.
    pub fn in_its_network(&self, lines: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd()));
        command.args(["sh", "-c", &format!("set -e; PATH=$PATH:/usr/sbin:/sbin; {lines}")]);
        succeeded(lines, command.output().expect("nsenter"));
    }

    /// The value of one of its metrics, given with its labels; `None` when it has none or does not answer.
    pub fn metric(&self, product: &Product, name: &str) -> Option<f64> {
        let url = format!("http://{}:9080/metrics", self.address);
        let output =
            node(product).inside("curl").args(["--silent", "--max-time", "2", &url]).output().expect("curl");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Presets of a namespace that a replica knows.
pub const KNOWN_PRESETS: &str = "reach_presets{kind=\"PodPreset\"}";

/// Waits until a metric of each of these has a value.
#[track_caller]
pub fn await_metric(product: &Product, replicas: &[Replica], name: &str, value: f64) {
    for replica in replicas {
        eventually_within(5 * PATIENCE, &format!("{name} of {} is {value}", replica.pod), || {
            let metric = replica.metric(product, name);
            if metric == Some(value) { Ok(()) } else { Err(format!("{metric:?}")) }
        });
    }
}
