//! Certificates that live for a minute, under load.

use std::thread;
use std::time::{Duration, Instant};

use reach::certs::certificates;
use serde_json::json;

use crate::calls::Calls;
use crate::cluster::Cluster;
use crate::support::PATIENCE;
use crate::support::installation::{VARIABLE, value};
use crate::support::load::{Load, STORED};

const REPLICAS: usize = 3;
const LEAST: usize = 2000;

pub fn of_leaves_and_of_the_ca_fails_no_pod(cluster: &Cluster) {
    let lives = json!({"caLifetime": "75s", "leafLifetime": "30s", "caPropagation": "6s"});
    let release =
        cluster.install("rotation", &json!({"replicas": REPLICAS, "certificates": {"selfManaged": lives}}));
    let replicas = release.serve(REPLICAS);
    let start = Instant::now();
    let first = release.await_one_ca(&replicas);
    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(60), STORED);

    let mut calls = Calls::new(&release, &replicas);
    let (mut published, mut promoted, mut unkeyed, mut dropped) = (None, None, None, None);
    let mut largest_bundle = 0;
    loop {
        for api in &release.apis {
            let bundle = calls.call(api);
            largest_bundle = largest_bundle.max(bundle.len());
            let secret = api.get(&release.ca_path()).expect("a Secret");
            let of = |key: &str| certificates(&value(&secret, key), key).unwrap_or_default();
            let seen = |moment: &mut Option<Duration>, is: bool| {
                if is && moment.is_none() {
                    *moment = Some(start.elapsed());
                }
            };
            let current = of("ca.crt");
            assert_eq!(current.len(), 1, "a CA at any time");
            seen(&mut published, of("next-ca.crt").first().is_some_and(|next| bundle.contains(next)));
            seen(&mut promoted, current[0] != first);
            seen(&mut unkeyed, promoted.is_some() && !of("previous-ca.crt").contains(&first));
            seen(&mut dropped, promoted.is_some() && !bundle.contains(&first));
        }
        if unkeyed.is_some() && dropped.is_some() && load.so_far() >= LEAST {
            break;
        }
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "next {published:?}, promoted {promoted:?}, {unkeyed:?}, {dropped:?}\n{}",
            replicas[0].stderr()
        );
        thread::sleep(Duration::from_millis(250));
    }
    let took = start.elapsed();
    let counts = load.stop();
    let (changes, handshakes) = (calls.changes(), calls.made);
    let moment = |moment: Option<Duration>| moment.expect("it happened").as_secs_f32();
    println!(
        "rotation: {counts}, through 2 API servers in {:.0} s; \
         {handshakes} new connections, 0 refused; leaf changes of {REPLICAS} replicas {changes:?}; next CA published after \
         {:.0} s, promoted after {:.0} s, old one out of the Secret after {:.0} s and out of caBundle after {:.0} s; at \
         most {largest_bundle} CAs in it",
        took.as_secs_f32(),
        moment(published),
        moment(promoted),
        moment(unkeyed),
        moment(dropped),
    );
    counts.assert_all_injected(LEAST);
    assert!(changes.iter().all(|&changes| changes >= 2), "each leaf is renewed: {changes:?}");
    assert!(largest_bundle <= 3, "{largest_bundle} CAs");
    for reach in &replicas {
        assert_eq!(reach.metric("reach_serving_certificate_reload_failing"), Some(0.0), "{}", reach.stderr());
    }
}
