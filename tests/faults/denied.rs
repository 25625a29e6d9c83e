//! Rights that somebody takes from reach while it runs.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::calls::Calls;
use crate::observed::{row_of, trouble_lasted};
use crate::report::Size;
use crate::rotation::{load, timeout};
use crate::stage::Stage;
use crate::support::eventually;
use crate::support::installation::Installation;
use crate::support::load::Api;

const FAILING: &str = "reach_serving_certificate_reload_failing";

pub fn replicas_without_rights_serve_on(stage: &Stage) {
    let size = Size::wanted();
    // At full size longer than watches live that are open when the rights go.
    let (least, leaf, denied_for) = size.of((500, "10s", 15), (10_000, "60s", 330));
    let lives = json!({"leafLifetime": leaf, "caPropagation": "3s"});
    let values = json!({"timeoutSeconds": timeout(), "certificates": {"selfManaged": lives}});
    let release = stage.cluster().install("denied", &values);
    let replicas = release.serve(2);
    let ca = release.await_one_ca(&replicas);
    let api = &release.apis[0];
    let load = load(stage.cluster(), &release);
    load.await_pods(least / 10);

    let start = Instant::now();
    let bindings = take_rights(api, &release);
    // What they would put back, and may not.
    api.delete(&release.ca_path());
    for reach in &replicas {
        reach.await_metric(FAILING, 1.0);
    }
    let mut calls = Calls::new(&release, &replicas);
    let denied_for = Duration::from_secs(denied_for);
    while start.elapsed() < denied_for {
        for api in &release.apis {
            calls.call(api);
        }
        for reach in &replicas {
            assert_eq!(reach.status("/readyz").status, 200, "{}", reach.stderr());
        }
        thread::sleep(Duration::from_millis(500));
    }
    assert!(api.get(&release.ca_path()).is_none(), "nobody may put it back");

    let end = Instant::now();
    for (path, binding) in &bindings {
        api.create(path, binding).expect("a binding");
    }
    eventually("the Secret is put back", || match release.ca()? {
        put_back if put_back == ca => Ok(()),
        _ => Err("another CA".to_owned()),
    });
    let put_back = end.elapsed();
    for reach in &replicas {
        reach.await_metric(FAILING, 0.0);
    }
    load.await_pods(least.max(load.so_far() + least / 10));
    let counts = load.stop();
    let mut row = row_of(
        &counts,
        "25",
        "all rights are taken from reach, and the Secret of its CA",
        format!("2 replicas without any RoleBinding for {} s", denied_for.as_secs()),
    );
    row.recovery = Some(trouble_lasted(&counts, start, None));
    row.more = format!(
        "ready all the time; {:?} renewals of leaves, {} new connections, 0 refused; the same CA back in its Secret {:.1} s after the \
         rights; policy Fail",
        calls.changes(),
        calls.made,
        put_back.as_secs_f32()
    );
    let _recorded = row.record();
    counts.assert_all_injected(least);
    assert!(calls.changes().iter().all(|&changes| changes >= 1), "leaves are renewed without rights");
}

/// Deletes the bindings of the release, and returns them, each with where to create it.
fn take_rights(api: &Api, release: &Installation<'_>) -> Vec<(String, Value)> {
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let collections = [
        format!("{group}/clusterrolebindings"),
        format!("{group}/namespaces/{}/rolebindings", release.namespace),
    ];
    let taken = collections.map(|collection| {
        let path = format!("{collection}/{}", release.name);
        let mut binding = api.get(&path).expect("a binding of the release");
        api.delete(&path);
        binding["metadata"] = json!({"name": release.name, "labels": binding["metadata"]["labels"]});
        (collection, binding)
    });
    taken.into()
}
