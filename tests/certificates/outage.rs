//! API servers that are away.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::Cluster;
use crate::support::installation::base64;

pub fn of_the_api_servers_lets_no_certificate_expire(cluster: &Cluster) {
    let lives = json!({"leafLifetime": "15s"});
    let release = cluster.install("outage", &json!({"certificates": {"selfManaged": lives}}));
    let replicas = release.serve(2);
    let ca = [release.await_one_ca(&replicas)];

    // Told that caBundle is somebody else's business, while nobody minds it.
    let other = cluster.install("waiting", &json!({})).with_argument("--ca-bundle", "check");
    let waiting = other.replica();
    let other_ca = other.await_one_ca(std::slice::from_ref(&waiting));
    waiting.await_unready("its caBundle does not vouch for the serving certificate yet");
    let bundle = json!([{
        "op": "add",
        "path": "/webhooks/0/clientConfig/caBundle",
        "value": base64(reach::certs::authority::pem(&other_ca)),
    }]);
    other.apis[0].patch(&other.configuration_path(), &bundle).expect("a patch");
    waiting.await_ready();

    cluster.control_plane.stop_api_server();
    let start = Instant::now();
    // A replica that starts now has no certificate and knows no preset.
    let early = release.replica();
    let mut leaves = vec![HashSet::new(); replicas.len()];
    let mut looks = 0;
    // Twice its life: what is not renewed is long expired then.
    while start.elapsed() < Duration::from_secs(30) {
        for (reach, leaves) in replicas.iter().zip(&mut leaves) {
            leaves.insert(release.served(reach, &ca).expect("a valid certificate"));
            assert_eq!(reach.status("/readyz").status, 200, "{}", reach.stderr());
            looks += 1;
        }
        assert_eq!(early.status("/readyz").status, 503);
        thread::sleep(Duration::from_millis(500));
    }
    let renewals: Vec<_> = leaves.iter().map(|leaves| leaves.len() - 1).collect();
    assert!(renewals.iter().all(|&renewals| renewals >= 2), "{renewals:?}");
    let reply = early.status("/readyz").body;
    assert!(reply.contains("not read yet") && reply.contains("certificate: none to serve yet"), "{reply}");

    cluster.control_plane.start_api_server();
    let start = Instant::now();
    early.await_ready();
    release.served(&early, &ca).expect("the same CA");
    println!(
        "outage: both API servers stopped for 30 s, leaves of 15 s: renewed {renewals:?} times, {looks} new connections and \
         readiness probes, 0 failed; a replica started meanwhile was not ready before, and {:.1} s after they were back",
        start.elapsed().as_secs_f32()
    );
}
