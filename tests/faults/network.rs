//! Replicas that the network loses, in part or altogether, and the API servers that it loses for them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::observed::{Observed, await_calm, longest_trouble};
use crate::place::{Product, REPLICAS as REPLICA_LABELS, is_injected, variable};
use crate::replicas::{self, KNOWN_PRESETS, Replica};
use crate::report::Size;
use crate::stage::{REPLICAS, Stage};
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::Kubectl as _;
use crate::support::{PATIENCE, eventually_within};

/// The address of the API servers as pods have it.
const API_SERVICE: &str = "10.96.0.1";

/// What lets everything through again.
const MEND: &str = "iptables -w -F";

pub fn a_lost_node_costs_the_calls_on_their_way_to_it(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let lost_for = Duration::from_secs(size.of(8, 60));
    let losses = size.of(1, 3);
    let mut moments = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        for _ in 0..losses {
            let all = replicas::await_all_busiest_first(product);
            moments.push(Instant::now());
            // No packet comes or goes, and nobody is told.
            all[0].in_its_network("iptables -w -I INPUT -j DROP; iptables -w -I OUTPUT -j DROP");
            thread::sleep(lost_for);
            all[0].in_its_network(MEND);
            replicas::await_all(product);
            await_calm(product);
        }
    });
    let mut row = observed.row(
        "13",
        "loss of a node",
        format!(
            "{losses} × all packets of the busiest of {REPLICAS} replicas dropped for {} s, without a reset",
            lost_for.as_secs()
        ),
    );
    row.recovery = longest_trouble(&observed.counts, &moments);
    row.more.push_str(
        "its kubelet's probes take it out of the Service; where the kubelet is lost, too, that takes the 40 s after which \
                Kubernetes gives up a node",
    );
    let _recorded = row.record();
    observed.assert_explained();
}

pub fn a_network_that_loses_packets_only_costs_time(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let least = size.of(500, 10_000);
    let lose = "for chain in INPUT OUTPUT; do \
                iptables -w -I $chain -m statistic --mode random --probability 0.05 -j DROP; done";
    let observed = Observed::of(product, least, |load| {
        let all = replicas::await_all(product);
        for replica in &all {
            replica.in_its_network(lose);
        }
        load.await_pods(load.so_far() + least);
        mend(&all);
        replicas::await_all(product);
    });
    let mut row = observed.row(
        "13a",
        "5 % of all packets lost",
        format!("of all {REPLICAS} replicas, in each direction"),
    );
    row.more = format!("{} calls took longer than 3 s and failed open", observed.opened);
    let _recorded = row.record();
    observed.assert_explained();
}

pub fn replicas_serve_on_while_no_api_server_can_be_reached(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let away = Duration::from_secs(size.of(5, 300));
    product.namespace(LATE);
    let all = replicas::await_all(product);
    replicas::await_metric(product, &all, KNOWN_PRESETS, 0.0);
    let (containers, ready) = (containers_of(&all), ready_since(product));
    let mut told = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        cut_off(&all);
        product.apply(&late_preset());
        thread::sleep(away);
        assert_eq!(knows_late_preset(product), Ok(false), "they could not learn of it");
        mend(&all);
        let start = Instant::now();
        told = learned(product, &all, 1.0, start);
        assert_eq!(knows_late_preset(product), Ok(true));
    });
    let now = containers_of(&replicas::await_all(product));
    let ready_now = ready_since(product);
    product.ask(&["delete", "podpreset", "late", "--namespace", LATE]);
    replicas::await_metric(product, &all, KNOWN_PRESETS, 0.0);
    let mut row = observed.row(
        "15",
        "no API server within reach of replicas",
        format!(
            "all packets between {REPLICAS} replicas and the API servers dropped for {} s",
            away.as_secs()
        ),
    );
    row.recovery = told.last().copied();
    row.more = format!(
        "recovery: a preset that was made meanwhile is known to each replica after {}; none was restarted or unready",
        seconds(&told)
    );
    let _recorded = row.record();
    observed.assert_unnoticed();
    assert_eq!(now, containers, "no replica was restarted");
    assert_eq!(ready_now, ready, "no replica was unready");
}

fn containers_of(replicas: &[Replica]) -> Vec<String> {
    replicas.iter().map(|replica| replica.container.clone()).collect()
}

/// Since when each replica is ready, by name.
fn ready_since(product: &Product) -> Vec<(String, String)> {
    let pods = product.get(&["pods", "--namespace", NAMESPACE, "--selector", REPLICA_LABELS]);
    let pods = pods["items"].as_array().expect("a list").iter();
    let since = pods.map(|pod| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready =
            conditions.filter(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        (
            pod["metadata"]["name"].to_string(),
            ready.map(|ready| ready["lastTransitionTime"].to_string()).collect(),
        )
    });
    since.collect()
}

/// The namespace of what is made while nobody can learn of it.
pub const LATE: &str = "faults-late";

/// A preset there.
pub fn late_preset() -> Value {
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "PodPreset",
        "metadata": {"name": "late", "namespace": LATE},
        "spec": {"env": [{"name": "LATE", "value": "yes"}]},
    })
}

/// Whether a pod there has its variable.
pub fn knows_late_preset(product: &Product) -> Result<bool, String> {
    let pod = product.try_pod(LATE, &json!({}))?;
    assert!(is_injected(&pod), "the other preset is in use: {pod}");
    Ok(variable(&pod, "LATE") == Some("yes"))
}

/// When each replica knew of so many presets of namespaces, shortest first.
pub fn learned(product: &Product, all: &[Replica], presets: f64, start: Instant) -> Vec<Duration> {
    let mut told = Vec::new();
    // How long it may take is what is to be found.
    eventually_within(10 * PATIENCE, "every replica knows the preset", || {
        let knows = |replica: &&Replica| replica.metric(product, KNOWN_PRESETS) == Some(presets);
        let knowing = all.iter().filter(knows).count();
        told.resize(knowing.max(told.len()), start.elapsed());
        if knowing == all.len() { Ok(()) } else { Err(format!("{knowing} of {}", all.len())) }
    });
    told
}

/// Times, for a person.
pub fn seconds(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{:.1} s", time.as_secs_f32())).collect::<Vec<_>>().join(", ")
}

/// Keeps replicas and API servers from each other.
pub fn cut_off(replicas: &[Replica]) {
    let cut = format!(
        "iptables -w -I OUTPUT -d {API_SERVICE} -j DROP; iptables -w -I INPUT -s {API_SERVICE} -j DROP"
    );
    for replica in replicas {
        replica.in_its_network(&cut);
    }
}

/// Lets everything through again.
pub fn mend(replicas: &[Replica]) {
    for replica in replicas {
        replica.in_its_network(MEND);
    }
}
