//! reach's own CA in its Secret.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use reach::certs::authority::pem;
use serde_json::{Value, json};

use crate::observed::{row_of, trouble_lasted};
use crate::report::{Row, Size, percentiles};
use crate::rotation::{load, timeout};
use crate::stage::{REPLICAS, Stage};
use crate::support::eventually;
use crate::support::installation::{Installation, base64};
use crate::support::pki::Ca;
use crate::support::serve::Reach;

/// What the chart lets the process have.
const MEMORY_KIB: u64 = 128 * 1024;

/// How long somebody keeps emptying the Secret.
const FIGHT: Duration = Duration::from_secs(10);

pub fn replicas_that_start_together_make_one_ca(stage: &Stage) {
    let rounds = Size::wanted().of(5, 200);
    let release = stage.cluster().install("together", &json!({"replicas": REPLICAS}));
    let mut cas = HashSet::new();
    let mut times = Vec::new();
    for round in 1..=rounds {
        let start = Instant::now();
        let replicas = release.replicas(REPLICAS);
        for reach in &replicas {
            reach.await_ready();
        }
        times.push(start.elapsed());
        let ca = release.ca().expect("a CA");
        for reach in &replicas {
            release.served(reach, std::slice::from_ref(&ca)).expect("a certificate of the CA in the Secret");
        }
        for api in &release.apis {
            // The other one learns a moment later.
            eventually(&format!("round {round}: exactly this CA in the bundle"), || {
                let bundle = release.bundle(api);
                if bundle == std::slice::from_ref(&ca) {
                    Ok(())
                } else {
                    Err(format!("{} CAs", bundle.len()))
                }
            });
        }
        let secret = release.apis[0].get(&release.ca_path()).expect("a Secret");
        assert_eq!(secret["data"].as_object().expect("data").len(), 2, "a certificate and its key");
        assert!(cas.insert(ca), "a new CA in each round");
        // As on the first day again.
        drop(replicas);
        release.apis[0].delete(&release.ca_path());
        let empty = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
        release.apis[0].patch(&release.configuration_path(), &empty).expect("a patch");
    }
    let row = Row {
        number: "21",
        fault: "replicas start together without a CA",
        done: format!("{rounds} × {REPLICAS} replicas at once, no Secret, no caBundle"),
        calls: rounds * REPLICAS,
        failed: 0,
        uninjected: 0,
        latency: percentiles(&mut times),
        recovery: times.last().copied(),
        more: format!(
            "one CA {} of {rounds} times; calls: a new connection to each replica; times: from start until all are ready",
            cas.len()
        ),
    };
    let _recorded = row.record();
    assert_eq!(cas.len(), rounds);
}

pub fn a_damaged_secret_costs_nothing(stage: &Stage) {
    let cluster = stage.cluster();
    let least = Size::wanted().of(500, 10_000);
    let lives = json!({"caPropagation": "3s"});
    let values = json!({"timeoutSeconds": timeout(), "certificates": {"selfManaged": lives}});
    let release = cluster.install("damage", &values);
    let api = &release.apis[0];
    let mut replicas = release.serve(2);
    let first = release.await_one_ca(&replicas);
    let load = load(cluster, &release);
    let begin = Instant::now();

    let mut megabyte = String::new();
    while megabyte.len() < 700 * 1024 {
        megabyte.push_str(&pem(&first));
    }
    let (other, foreign) = (Ca::new("other"), Ca::new("foreign"));
    let data = |certificate: &str, key: &str| json!({"ca.crt": base64(certificate), "ca.key": base64(key)});
    let good = api.get(&release.ca_path()).expect("a Secret")["data"].clone();
    let with = |key: &str, value: &str| {
        let mut data = good.clone();
        data[key] = json!(base64(value));
        data
    };
    let damages = [
        ("emptied", json!({})),
        ("garbage", data("garbage", "garbage")),
        ("half a certificate", with("ca.crt", &pem(&first)[..200])),
        // As much as the API server takes, once in base64.
        ("1 MiB of PEM", with("ca.crt", &megabyte)),
        ("no key", json!({"ca.crt": good["ca.crt"]})),
        ("another CA's key", with("ca.key", &other.key)),
        ("a leaf for a CA", {
            let leaf = other.server(&release.server_name());
            data(&leaf.certificate, &leaf.key)
        }),
    ];
    let mut healed = Vec::new();
    for (what, data) in &damages {
        let start = Instant::now();
        change_data(&release, data);
        eventually(&format!("the CA is put back after: {what}"), || match release.ca()? {
            ca if ca == first => Ok(()),
            _ => Err("another CA".to_owned()),
        });
        healed.push(format!("{what} {:.1} s", start.elapsed().as_secs_f32()));
        serve_on(&release, &mut replicas);
    }
    let start = Instant::now();
    api.delete(&release.ca_path());
    eventually("a deleted Secret is put back", || release.ca());
    assert_eq!(release.ca().expect("a CA"), first);
    healed.push(format!("deleted {:.1} s", start.elapsed().as_secs_f32()));
    serve_on(&release, &mut replicas);

    // Another CA is somebody's decision, and taken over once API servers know it.
    let start = Instant::now();
    change_data(&release, &data(&foreign.pem, &foreign.key));
    let ca = release.await_one_ca(&replicas);
    assert_eq!(ca, foreign.der());
    let adopted = start.elapsed();
    serve_on(&release, &mut replicas);

    load.await_pods(least.max(load.so_far() + 50));
    let counts = load.stop();
    let peak = replicas.iter().map(Reach::peak_memory_kib).max().unwrap_or_default();

    // All replicas anew: with the Secret as it is, and with one that is of no use.
    drop(replicas);
    let replicas = release.serve(2);
    assert_eq!(release.await_one_ca(&replicas), foreign.der());
    drop(replicas);
    change_data(&release, &data("garbage", "garbage"));
    let replicas = release.serve(2);
    let new = release.await_one_ca(&replicas);
    assert!(new != first && new != foreign.der());
    let put_back = fight(&release);
    assert_eq!(release.await_one_ca(&replicas), new, "the last word is reach's");

    let mut row = row_of(
        &counts,
        "22",
        "the Secret of the CA is damaged",
        format!("{} kinds of damage, 2 replicas", damages.len() + 1),
    );
    row.recovery = Some(trouble_lasted(&counts, begin, None));
    row.more = format!(
        "put back after: {}; another CA is served after {:.1} s; at most {} MiB; restarted twice, they serve; emptied all the \
         time, it was put back {put_back} times in {} s; policy Fail",
        healed.join(", "),
        adopted.as_secs_f32(),
        peak / 1024,
        FIGHT.as_secs(),
    );
    let _recorded = row.record();
    counts.assert_all_injected(least);
    assert!(put_back <= 20, "{put_back} times by 2 replicas");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

/// Replaces all data of the Secret, as somebody else would.
fn change_data(release: &Installation<'_>, data: &Value) {
    eventually("the Secret is changed", || {
        let change = json!([{"op": "add", "path": "/data", "value": data}]);
        release.apis[0].patch(&release.ca_path(), &change)
    });
}

/// Empties the Secret whenever there is a CA in it. How often there was one.
fn fight(release: &Installation<'_>) -> usize {
    let start = Instant::now();
    let mut put_back = 0;
    while start.elapsed() < FIGHT {
        if release.ca().is_ok() {
            put_back += 1;
            change_data(release, &json!({}));
        }
        thread::sleep(Duration::from_millis(20));
    }
    put_back
}

/// Every replica lives, is ready, and serves what both API servers trust.
fn serve_on(release: &Installation<'_>, replicas: &mut [Reach]) {
    // Long enough for a write that somebody would answer with another one.
    thread::sleep(Duration::from_millis(500));
    for reach in replicas {
        assert!(!reach.has_ended(), "{}", reach.stderr());
        assert_eq!(reach.status("/readyz").status, 200);
        for api in &release.apis {
            release.served(reach, &release.bundle(api)).expect("caBundle vouches for the certificate");
        }
    }
}
