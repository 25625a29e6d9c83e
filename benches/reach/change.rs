//! One preset of many changes: how long until reviews know, and what it costs.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::Cluster;
use super::fixture::{self, NAMESPACES, PRESETS};
use super::load::{Client, request};
use super::process::{PATIENCE, Reach, folder};
use super::report::{Row, median};

/// Changes of each kind of round.
const CHANGES: usize = 20;
/// How long its processor time is looked at after a change, and without one.
const LOOK: Duration = Duration::from_millis(300);

/// Changes the preset of a namespace beside [`PRESETS`] others.
pub fn measure() -> Vec<Row> {
    let mut presets: Vec<Value> = (0..PRESETS).map(fixture::other).collect();
    presets.extend(fixture::proxy());
    let mut namespaces: Vec<Value> = (0..NAMESPACES).map(fixture::namespace).collect();
    namespaces.push(fixture::shop());
    let cluster = Cluster::start(&presets, &namespaces, &[]);
    let folder = folder();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, cluster.kubeconfig()).expect("a new file");
    let reach = Reach::start(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]);
    reach.await_ready();

    let mut preset = presets.pop().expect("the preset of the namespace");
    let mut number = 0;
    let mut change = || {
        number += 1;
        let value = format!("http://proxy-{number}.corp.example:3128");
        preset["spec"]["env"][1]["value"] = value.as_str().into();
        cluster.modify(&preset);
        value
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = runtime.block_on(Client::connect(1, reach.webhook, &reach.ca())).expect("a connection");
    let request = request(&fixture::bytes(&fixture::review()));
    let mut known = || -> io::Result<f64> {
        let start = Instant::now();
        let value = change();
        while !runtime.block_on(client.patch(&request))?.contains(&value) {
            assert!(start.elapsed() < PATIENCE, "the change is never followed");
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let times: io::Result<Vec<f64>> = (0..CHANGES).map(|_| known()).collect();
    let times = times.expect("requests are answered");

    // What it does anyway is taken off.
    let busy = || {
        let before = reach.process.cpu_nanos();
        thread::sleep(LOOK);
        reach.process.cpu_nanos().saturating_sub(before) as f64 / 1e6
    };
    let (mut idle, mut changed) = (Vec::new(), Vec::new());
    for _ in 0..CHANGES {
        idle.push(busy());
        change();
        changed.push(busy());
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let what = format!("change: one of {PRESETS} presets");
    vec![
        Row::new(format!("{what}, until reviews follow, median of {CHANGES}"), median(times), "ms")
            .below(50.0),
        Row::new(format!("{what}, until reviews follow, slowest"), slowest, "ms").below(50.0),
        Row::new(format!("{what}, processor time"), (median(changed) - median(idle)).max(0.0), "ms")
            .below(5.0),
    ]
}
