//! Certificates that live for a minute, under load: each call that they cost would be a pod that is refused.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use reach::certs::authority::Authority;
use reach::certs::certificates;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::cluster::Cluster;
use crate::observed::{row_of, trouble_lasted};
use crate::report::Size;
use crate::stage::{REPLICAS, Stage};
use crate::support::background::{Background, SetOnDrop};
use crate::support::installation::{Installation, VARIABLE, base64, value};
use crate::support::load::{Api, Counts, Load, STORED};
use crate::support::serve::Reach;
use crate::support::{PATIENCE, eventually, eventually_within};

/// Pause after each creation.
const PAUSE: Duration = Duration::from_millis(5);

/// `timeoutSeconds`: the chart's, or more for a machine that is busy with other rows.
pub fn timeout() -> u32 {
    Size::wanted().of(10, 3)
}

pub fn a_renewed_leaf_loses_no_call(stage: &Stage) {
    let size = Size::wanted();
    let life = size.of("10s", "15s");
    let lives = json!({"leafLifetime": life});
    let values =
        json!({"replicas": REPLICAS, "timeoutSeconds": timeout(), "certificates": {"selfManaged": lives}});
    let release = stage.cluster().install("leaves", &values);
    let replicas = release.serve(REPLICAS);
    let (least, renewals) = size.of((500, 2), (10_000, 20));
    let load = load(stage.cluster(), &release);
    let mut calls = Calls::new(&release, &replicas);
    calls.until_within(10 * PATIENCE, "leaves are renewed", |calls| {
        calls.changes().iter().all(|&changes| changes >= renewals) && load.so_far() >= least
    });
    let counts = load.stop();
    let mut row = row_of(
        &counts,
        "19",
        "renewal of leaves",
        format!("leaves that live for {life}, {REPLICAS} replicas, 2 API servers"),
    );
    row.more =
        format!("{:?} renewals; {} new connections, 0 refused; policy Fail", calls.changes(), calls.made);
    row.recovery = Some(Duration::ZERO);
    let _recorded = row.record();
    counts.assert_all_injected(least);
    assert_no_complaint(&replicas);
}

pub fn a_rotated_ca_loses_no_call_though_an_api_server_lags(stage: &Stage) {
    let lives = Size::wanted().of(
        json!({"caLifetime": "36s", "leafLifetime": "12s", "caPropagation": "4s"}),
        json!({"caLifetime": "75s", "leafLifetime": "30s", "caPropagation": "6s"}),
    );
    // Shorter than reach waits for the rest of a call that the API server was in the middle of.
    let (lag, pause) = Size::wanted().of((1, 2), (2, 1));
    let (lag, pause) = (Duration::from_secs(lag), Duration::from_secs(pause));
    let done = AtomicBool::new(false);
    let (rotated, missed) = thread::scope(|scope| {
        let (release_is, installed) = mpsc::channel::<(Api, String)>();
        let done = &done;
        // Bundles that changed while it stood still, by what the other API server says.
        let lags = scope.spawn(move || {
            let Ok((other, path)) = installed.recv() else { return 0 };
            let bundle = || other.get(&path).map(|object| object["webhooks"][0]["clientConfig"].clone());
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                stage.cluster().control_plane.signal_second_api_server(Signal::STOP);
                let before = bundle();
                thread::sleep(lag);
                missed += usize::from(bundle() != before);
                stage.cluster().control_plane.signal_second_api_server(Signal::CONT);
                thread::sleep(pause);
            }
            missed
        });
        let release_is = Cell::new(Some(release_is));
        let rotated = {
            let _done = SetOnDrop(done);
            Rotated::of(stage.cluster(), "rotation", &lives, |cluster, release| {
                if let Some(release_is) = release_is.take() {
                    let api = Api::new(cluster.control_plane.kubeconfig());
                    release_is.send((api, release.configuration_path())).expect("it waits for that");
                }
            })
        };
        (rotated, lags.join().expect("no panic"))
    });
    rotated.record(
        "20",
        "rotation of the CA, an API server lags",
        &format!(
            "one of 2 API servers stood still for {} s of every {}, and came to know {missed} changes of the bundle later by that",
            lag.as_secs(),
            (lag + pause).as_secs()
        ),
    );
    // Two of three fall into such a time; of the few at small size, it may be none.
    assert!(missed >= Size::wanted().of(0, 1), "no change of the bundle while an API server stood still");
}

pub fn a_ca_rotates_though_others_write_all_the_time(stage: &Stage) {
    let lives = Size::wanted().of(
        json!({"caLifetime": "36s", "leafLifetime": "20s", "caPropagation": "4s"}),
        json!({"caLifetime": "75s", "leafLifetime": "30s", "caPropagation": "6s"}),
    );
    let mut writing: Option<Background<usize>> = None;
    let rotated = Rotated::of(stage.cluster(), "conflicts", &lives, |_, release| {
        writing.get_or_insert_with(|| writer(release));
    });
    let written = writing.expect("the bundle changed").stop();
    assert!(written > 0, "somebody else writes");
    rotated.record(
        "25a",
        "conflicts: somebody else writes all the time",
        &format!("{written} writes to the Secret and the registration by somebody else meanwhile"),
    );
}

/// Somebody who changes an annotation of the Secret and of the registration, as fast as that goes, so that whoever has read them
/// writes in vain. How often that was.
fn writer(release: &Installation<'_>) -> Background<usize> {
    let paths = [release.ca_path(), release.configuration_path()];
    let api = Api::new(release.control_plane().kubeconfig());
    Background::start(move |stop| {
        let mut writes: usize = 0;
        while !stop.load(Ordering::Relaxed) {
            let note = json!({"metadata": {"annotations": {"strange.example/writes": writes.to_string()}}});
            writes += paths.iter().filter(|path| api.merge(path, &note).is_ok()).count();
        }
        writes
    })
}

/// A rotation of a CA under load.
struct Rotated {
    counts: Counts,
    took: Duration,
    rotations: usize,
    changes: Vec<usize>,
    handshakes: usize,
    largest_bundle: usize,
    least: usize,
    start: Instant,
}

impl Rotated {
    /// Does it, with something that happens whenever the bundle has changed.
    fn of(
        cluster: &Cluster,
        name: &str,
        lives: &Value,
        mut changed: impl FnMut(&Cluster, &Installation<'_>),
    ) -> Self {
        let (least, rotations) = Size::wanted().of((500, 1), (10_000, 2));
        let values = json!({"replicas": REPLICAS, "timeoutSeconds": timeout(), "certificates": {"selfManaged": lives}});
        let release = cluster.install(name, &values);
        let replicas = release.serve(REPLICAS);
        let start = Instant::now();
        let mut current = release.await_one_ca(&replicas);
        let load = load(cluster, &release);
        let mut calls = Calls::new(&release, &replicas);
        // Those that were the current one, and have to go.
        let mut old: Vec<CertificateDer<'static>> = Vec::new();
        let mut done = 0;
        let mut largest_bundle = 0;
        // The bundle has changed when this begins.
        let mut known = Vec::new();
        while done < rotations || load.so_far() < least {
            for api in &release.apis {
                let bundle = calls.call(api);
                largest_bundle = largest_bundle.max(bundle.len());
                let secret = api.get(&release.ca_path()).expect("a Secret");
                let of = |key: &str| certificates(&value(&secret, key), key).unwrap_or_default();
                let in_secret = of("ca.crt");
                assert_eq!(in_secret.len(), 1, "a CA at any time");
                if in_secret[0] != current && !old.contains(&in_secret[0]) {
                    old.push(std::mem::replace(&mut current, in_secret[0].clone()));
                }
                let kept = of("previous-ca.crt");
                let gone = old.iter().filter(|ca| !kept.contains(ca) && !bundle.contains(ca)).count();
                done = done.max(gone);
                if bundle != known {
                    known = bundle;
                    changed(cluster, &release);
                }
            }
            assert!(
                start.elapsed() < 8 * PATIENCE,
                "{} promoted, {done} gone\n{}",
                old.len(),
                replicas[0].stderr()
            );
            thread::sleep(Duration::from_millis(250));
        }
        let counts = load.stop();
        assert_no_complaint(&replicas);
        Self {
            counts,
            took: start.elapsed(),
            rotations: done,
            changes: calls.changes(),
            handshakes: calls.made,
            largest_bundle,
            least,
            start,
        }
    }

    fn record(&self, number: &'static str, fault: &'static str, meanwhile: &str) {
        let Self { counts, took, rotations, changes, handshakes, largest_bundle, least, start } = self;
        let mut row = row_of(
            counts,
            number,
            fault,
            format!(
                "{rotations} × next CA published, promoted, the old one dropped, {REPLICAS} replicas; {meanwhile}"
            ),
        );
        row.recovery = Some(trouble_lasted(counts, *start, None));
        row.more = format!(
            "in {:.0} s; {changes:?} changes of leaves; {handshakes} new connections, 0 refused; at most {largest_bundle} CAs in \
             the bundle; policy Fail",
            took.as_secs_f32()
        );
        let _recorded = row.record();
        counts.assert_all_injected(*least);
        assert!(changes.iter().all(|&changes| changes >= 2), "each leaf is renewed: {changes:?}");
        assert!(*largest_bundle <= 3, "{largest_bundle} CAs");
    }
}

pub fn a_leader_that_freezes_in_a_rotation_is_overtaken_and_follows(stage: &Stage) {
    let least = Size::wanted().of(500, 10_000);
    let values = json!({
        "failurePolicy": "Ignore", "timeoutSeconds": 3, "certificates": {"selfManaged": {"caPropagation": "3s"}},
    });
    let cluster = stage.cluster();
    let release = cluster.install("split", &values);
    let replicas = release.serve(2);
    release.await_one_ca(&replicas);
    let load = load(cluster, &release);
    load.await_pods(least / 10);
    // Two thirds of the life of this one are over: its successor is due.
    let now = std::time::SystemTime::now();
    let aged = Authority::make(now - Duration::from_secs(220), Duration::from_secs(320)).expect("a CA");
    let data = json!({"ca.crt": base64(aged.pem()), "ca.key": base64(aged.key_pem())});
    eventually("the Secret is changed", || {
        release.apis[0].patch(&release.ca_path(), &json!([{"op": "add", "path": "/data", "value": data}]))
    });
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}-ca", release.namespace, release.name);
    let leader = eventually("a replica takes the lease", || {
        let taken = release.apis[0].get(&path).ok_or("no lease")?;
        let holder = taken["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let led = replicas.iter().position(|reach| holder.contains(&format!("_{}_", reach.id())));
        led.ok_or("held by nobody of these")
    });
    replicas[leader].signal(Signal::STOP);
    let start = Instant::now();
    let (frozen, other) = (&replicas[leader], &replicas[1 - leader]);
    release.route(std::slice::from_ref(other));
    let current = |what: &str| {
        let secret = release.apis[0].get(&release.ca_path()).expect("a Secret");
        certificates(&value(&secret, what), what).unwrap_or_default()
    };
    let promoted = eventually_within(2 * PATIENCE, "the other one takes over", || {
        let current = current("ca.crt");
        if current.len() == 1 && current[0] != *aged.certificate() && current[0] == release.ca()? {
            Ok(current[0].clone())
        } else {
            Err("the next CA is not the current one yet".to_owned())
        }
    });
    let took_over = start.elapsed();
    frozen.signal(Signal::CONT);
    let resumed = Instant::now();
    release.route(&replicas);
    let ca = release.await_one_ca(&replicas);
    let followed = resumed.elapsed();
    // Time for a write that the other one would have to undo.
    thread::sleep(Duration::from_secs(2));
    let at_the_end = release.await_one_ca(&replicas);
    release.await_injection();
    load.await_pods(least.max(load.so_far() + least / 10));
    let counts = load.stop();
    let mut row = row_of(
        &counts,
        "21a",
        "split brain: the leader of a rotation freezes for longer than its lease",
        "SIGSTOP of the replica that had taken the lease for it, SIGCONT when the other one of 2 had taken over and gone on".to_owned(),
    );
    row.recovery = Some(trouble_lasted(&counts, start, None));
    row.more = format!(
        "taken over after {:.0} s (a lease lasts 30 s); the old leader served a leaf of the new CA {:.1} s after it was back; one CA \
         at the end",
        took_over.as_secs_f32(),
        followed.as_secs_f32()
    );
    let _recorded = row.record();
    assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
    // Those that were on their way to it, or came before it was out of the Service: two for each of four connections.
    assert!(counts.bare <= 8, "{counts}");
    assert_eq!((&ca, &at_the_end), (&promoted, &promoted), "nobody makes a second one");
}

pub fn load(cluster: &Cluster, release: &Installation<'_>) -> Load {
    Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, PAUSE, STORED)
}

fn assert_no_complaint(replicas: &[Reach]) {
    for reach in replicas {
        assert_eq!(reach.metric("reach_serving_certificate_reload_failing"), Some(0.0), "{}", reach.stderr());
    }
}
