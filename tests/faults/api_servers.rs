//! API servers that restart, lose their etcd, or have forgotten what replicas ask for.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::network::{LATE, cut_off, knows_late_preset, late_preset, learned, mend, seconds};
use crate::observed::{Observed, PODS, row_of, trouble_lasted};
use crate::place::{PROXY_VARIABLE, Product, variable};
use crate::replicas::{self, KNOWN_PRESETS, Replica};
use crate::report::{Row, Size};
use crate::stage::{REPLICAS, Stage};
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::{Kubectl as _, text};
use crate::support::load::{Api, Counts, Load, pod};
use crate::support::node::Part;
use crate::support::process::ask_etcd;

/// Both API servers.
const API_SERVERS: [Part; 2] = [Part::ApiServer, Part::SecondApiServer];

/// A preset beside the [late one](late_preset).
fn preset(name: &str) -> Value {
    let mut preset = late_preset();
    preset["metadata"]["name"] = json!(name);
    preset["spec"]["env"][0]["name"] = json!(name.to_uppercase());
    preset
}

/// Starts a row about presets: nobody knows any of a namespace.
fn begin(product: &Product) -> Vec<Replica> {
    product.namespace(LATE);
    let all = replicas::await_all(product);
    replicas::await_metric(product, &all, KNOWN_PRESETS, 0.0);
    all
}

/// Ends it.
fn end(product: &Product) {
    product.ask(&["delete", "podpresets", "--all", "--namespace", LATE]);
    replicas::await_metric(product, &replicas::await_all(product), KNOWN_PRESETS, 0.0);
}

pub fn that_have_forgotten_what_replicas_missed_bring_it_back_to_no_one(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let cluster = replicas::node(product);
    let changes = size.of(20, 500);
    let all = begin(product);
    product.apply(&preset("gone"));
    replicas::await_metric(product, &all, KNOWN_PRESETS, 1.0);
    let pod = product.try_pod(LATE, &json!({})).expect("a pod");
    assert_eq!(variable(&pod, "GONE"), Some("yes"), "{pod}");

    cut_off(&all);
    product.ask(&["delete", "podpreset", "gone", "--namespace", LATE]);
    // So many that with the one that has gone, or without one of these, there is another number of them.
    product.apply(&json!([late_preset(), preset("later"), preset("latest")]));
    let api = Api::new(product.kubeconfigs()[0]);
    let path = format!("/apis/reach.dev/v1alpha1/namespaces/{LATE}/podpresets/late");
    for change in 0..changes {
        api.merge(&path, &json!({"metadata": {"annotations": {"n": change.to_string()}}})).expect("a change");
    }
    compact(&cluster.etcd_socket());
    // API servers remember for longer than etcd does.
    for part in API_SERVERS {
        cluster.stop_part(part);
        cluster.start_part(part);
    }
    let mut told = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |load| {
        load.await_pods(load.so_far() + size.of(50, 2000));
        assert_eq!(knows_late_preset(product), Ok(false), "they could not learn of it");
        mend(&all);
        let start = Instant::now();
        told = learned(product, &all, 3.0, start);
    });
    let pod = product.try_pod(LATE, &json!({})).expect("a pod");
    let [gone, late, later] = ["GONE", "LATE", "LATER"].map(|name| variable(&pod, name));
    let logs = product.kubectl(&[
        "logs",
        "--namespace",
        NAMESPACE,
        "--prefix",
        "--tail=-1",
        "--selector",
        crate::place::REPLICAS,
    ]);
    let logs = text(&logs);
    let expired = all.iter().filter(|replica| {
        logs.lines().any(|line| line.contains(&replica.pod) && line.contains("too old resource version"))
    });
    let expired = expired.count();
    let mut row = observed.row(
        "16a",
        "expired watches: etcd is compacted",
        format!("{REPLICAS} replicas cut off; a preset deleted, 3 created, {changes} changes, compaction, both API servers restarted"),
    );
    row.recovery = told.last().copied();
    row.more = format!(
        "right again, nothing lost and nothing resurrected, after {}; {expired} of {REPLICAS} replicas were told that their version is too old",
        seconds(&told)
    );
    let _recorded = row.record();
    end(product);
    observed.assert_unnoticed();
    assert_eq!((gone, late, later), (None, Some("yes"), Some("yes")), "{pod}");
    assert_eq!(expired, REPLICAS, "their versions were too old: {logs}");
}

/// Lets etcd forget every version of everything but the last.
fn compact(etcd: &Path) {
    let answer = ask_etcd(etcd, "/v3/kv/range", &json!({"key": "AA=="}));
    let revision = answer["header"]["revision"].as_str().expect("a revision").to_owned();
    ask_etcd(etcd, "/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
}

pub fn without_etcd_cost_no_preset(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let cluster = replicas::node(product);
    let away = Duration::from_secs(size.of(2, 30));
    let all = begin(product);
    product.apply(&preset("before"));
    replicas::await_metric(product, &all, KNOWN_PRESETS, 1.0);
    let containers: Vec<_> = all.iter().map(|replica| replica.container.clone()).collect();
    let mut told = Vec::new();
    let mut moments = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        let mut now = || moments.push(Instant::now());
        cluster.stop_part(Part::Etcd);
        thread::sleep(away);
        now();
        cluster.start_part(Part::Etcd);
        await_api_servers(product);
        let etcd = cluster.process_of(Part::Etcd);
        now();
        kill_process(etcd, Signal::STOP).expect("a process of our cluster");
        thread::sleep(away);
        now();
        kill_process(etcd, Signal::CONT).expect("a process of our cluster");
        await_api_servers(product);
        product.apply(&late_preset());
        let start = Instant::now();
        told = learned(product, &all, 2.0, start);
    });
    let after: Vec<_> = replicas::await_all(product).into_iter().map(|replica| replica.container).collect();
    let pod = product.try_pod(LATE, &json!({})).expect("a pod");
    let [before, late] = ["BEFORE", "LATE"].map(|name| variable(&pod, name));
    let mut row = observed.row(
        "16",
        "etcd is away",
        format!("etcd stopped for {0} s and started again, then SIGSTOP for {0} s", away.as_secs()),
    );
    let [back, stopped, again] = moments[..] else { panic!("three moments: {moments:?}") };
    let counts = &observed.counts;
    row.recovery = Some(trouble_lasted(counts, back, Some(stopped)).max(trouble_lasted(counts, again, None)));
    row.more = format!(
        "failed: refused by API servers, which had no etcd, none of it for the webhook's sake ({} had run out of time when the webhook \
         was to be called); a preset that was made after is known to each replica after {}; no replica was restarted",
        observed.opened,
        seconds(&told)
    );
    let _recorded = row.record();
    end(product);
    let Observed { counts, opened } = &observed;
    let ours = counts.failures.iter().find(|failure| failure.contains("webhook"));
    assert_eq!(ours, None);
    assert_eq!(counts.bare, 0, "{counts}");
    // An API server that waits for etcd before it calls a webhook may have no time left to call it: a call that it gives up,
    // of a creation that it refuses.
    assert!(*opened <= counts.failed as u64, "{opened} calls given up: {counts}");
    assert_eq!((before, late), (Some("yes"), Some("yes")), "{pod}");
    assert_eq!(after, containers, "no replica was restarted");
}

/// Waits until both API servers answer and store.
fn await_api_servers(product: &Product) {
    for kubeconfig in product.kubeconfigs() {
        let kubeconfig = crate::support::process::flag("kubeconfig", kubeconfig);
        eventually("the API server is ready", || {
            let ready = product.kubectl(&[&kubeconfig, "get", "--raw", "/readyz", "--request-timeout=5s"]);
            if ready.status.success() { Ok(()) } else { Err(text(&ready)) }
        });
    }
}

pub fn that_start_again_inject_from_the_first_pod(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let cluster = replicas::node(product);
    let (rounds, least, first_pods) = size.of((1, 500, 20), (5, 10_000, 100));
    let all = begin(product);
    product.namespace(PODS);
    product.await_injection(PODS, true);
    let mut total = Counts::default();
    let mut opened = 0;
    let mut first = Vec::new();
    let kubeconfigs = product.kubeconfigs();
    for round in 0..rounds {
        for (restarted, part) in API_SERVERS.into_iter().enumerate() {
            // The others use the one that stays.
            let other = kubeconfigs[1 - restarted];
            let failed_open = product.failed_open_at(other);
            let load = Load::start(&[other], PODS, PROXY_VARIABLE, Duration::from_millis(5), None);
            cluster.stop_part(part);
            cluster.start_part(part);
            let api = Api::new(kubeconfigs[restarted]);
            for _ in 0..first_pods {
                let pod = api.create(&format!("/api/v1/namespaces/{PODS}/pods?dryRun=All"), &pod());
                first.push(pod.map(|pod| variable(&pod, PROXY_VARIABLE.0) == Some(PROXY_VARIABLE.1)));
            }
            load.await_pods(least / (2 * rounds));
            let counts = load.stop();
            opened +=
                product.failed_open_at(other) - failed_open + product.failed_open_at(kubeconfigs[restarted]);
            println!("round {round}, {}: {counts}", part.name());
            total.add(counts);
        }
    }
    product.apply(&late_preset());
    let told = learned(product, &all, 1.0, Instant::now());
    let injected = first.iter().filter(|pod| **pod == Ok(true)).count();
    let mut row: Row = row_of(
        &total,
        "16b",
        "API servers restart",
        format!("{rounds} × each of 2 API servers stopped and started, pods through the other one"),
    );
    row.recovery = told.last().copied();
    row.more = format!(
        "{injected} of {} first pods through an API server that had just become ready were injected; a preset that was made after the last \
         restart is known to each replica after {}",
        first.len(),
        seconds(&told)
    );
    let _recorded = row.record();
    end(product);
    assert_eq!((total.failed, total.bare, opened), (0, 0, 0), "{total}: {:?}", total.failures);
    assert_eq!(injected, first.len(), "{first:?}");
}
