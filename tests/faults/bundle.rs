//! `caBundle` in the registration, and those who write there.

use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::observed::row_of;
use crate::report::Size;
use crate::rotation::load;
use crate::stage::Stage;
use crate::support::installation::{Installation, base64, bundle_of};
use crate::support::load::Api;
use crate::support::pki::Ca;
use crate::support::serve::Reach;
use crate::support::{PATIENCE, eventually};

const WRITES: &str = "reach_ca_bundle_writes_total";

const BUNDLE: &str = "/webhooks/0/clientConfig/caBundle";

pub fn the_bundle_is_healed_and_nothing_else_is_touched(stage: &Stage) {
    let cluster = stage.cluster();
    let least = Size::wanted().of(500, 10_000);
    // As the chart has it. What the bundle does not vouch for in the meantime fails open.
    let values = json!({"replicas": 2, "failurePolicy": "Ignore", "timeoutSeconds": 3});
    let release = cluster.install("bundle", &values);
    let replicas = release.serve(2);
    let ca = release.await_one_ca(&replicas);
    let api = &release.apis[0];
    let path = release.configuration_path();

    // Somebody else's webhook in the same configuration, and labels of theirs.
    let stranger = Ca::new("stranger");
    api.apply(&path, "stranger", &foreign_parts(&release, &stranger));
    let before = release.configuration();
    assert_eq!(before["webhooks"].as_array().expect("webhooks").len(), 2);

    let load = load(cluster, &release);
    load.await_pods(least / 10);
    let mut times = Vec::new();
    let mut disturb = |what: &str, disturb: &dyn Fn(&Api)| {
        let start = Instant::now();
        disturb(api);
        heal(&release, what, start, &ca, &mut times);
        assert_eq!(foreign(&release.configuration()), foreign(&before), "{what}");
    };
    let edit = |operation: Value| {
        let path = release.configuration_path();
        move |api: &Api| drop(api.patch(&path, &json!([operation])).expect("a patch"))
    };
    let set = |bundle: &str| edit(json!({"op": "replace", "path": BUNDLE, "value": base64(bundle)}));
    disturb("emptied", &edit(json!({"op": "remove", "path": BUNDLE})));
    disturb("another CA", &set(&stranger.pem));
    disturb("garbage", &set("garbage"));
    disturb("taken over by server-side apply", &|api| {
        let mut theirs = foreign_parts(&release, &stranger);
        let mut ours = release.manifest["webhooks"][0].clone();
        ours["clientConfig"]["caBundle"] = json!(base64(&stranger.pem));
        theirs["webhooks"].as_array_mut().expect("webhooks").push(ours);
        theirs["webhooks"].as_array_mut().expect("webhooks").reverse();
        api.apply(&path, "gitops", &theirs);
    });
    disturb("deleted and recreated", &|api| {
        api.delete(&path);
        let mut again = before.clone();
        again["metadata"] = json!({
            "name": before["metadata"]["name"],
            "labels": before["metadata"]["labels"],
            "annotations": before["metadata"]["annotations"],
        });
        again["webhooks"][0]["clientConfig"].as_object_mut().expect("an object").remove("caBundle");
        let collection = path.rsplit_once('/').expect("a path").0;
        api.create(collection, &again).expect("a configuration");
    });
    // It is known by its name: a label of the chart's may go.
    let label = |value: Value| json!({"metadata": {"labels": {"app.kubernetes.io/name": value}}});
    api.merge(&path, &label(Value::Null)).expect("a patch");
    let start = Instant::now();
    api.patch(&path, &json!([{"op": "remove", "path": BUNDLE}])).expect("a patch");
    heal(&release, "emptied without its label", start, &ca, &mut times);
    api.merge(&path, &label(json!("reach"))).expect("a patch");
    // With a pause between the two, so that it is seen to be gone.
    api.delete(&path);
    thread::sleep(Duration::from_secs(1));
    assert!(api.get(&path).is_none(), "reach does not create it");
    let start = Instant::now();
    api.create(path.rsplit_once('/').expect("a path").0, &release.manifest).expect("a configuration");
    heal(&release, "recreated later", start, &ca, &mut times);
    release.await_injection();
    load.await_pods(least.max(load.so_far() + least / 10));
    let counts = load.stop();

    // In the order of the managers, reach owns that one field.
    let configuration = release.configuration();
    let managers = configuration["metadata"]["managedFields"].as_array().expect("managers");
    let own = managers.iter().find(|manager| manager["manager"] == "reach").expect("reach");
    assert_eq!(own["operation"], "Apply");
    assert_eq!(
        own["fieldsV1"]["f:webhooks"],
        json!({"k:{\"name\":\"pods.reach.dev\"}": {".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}}})
    );

    // Nothing to do, nothing written. It looks each second.
    let writes = total(&replicas);
    let version = configuration["metadata"]["resourceVersion"].clone();
    thread::sleep(Duration::from_secs(5));
    assert_eq!(release.configuration()["metadata"]["resourceVersion"], version);
    assert_eq!(total(&replicas), writes);

    let (emptied, answered) = fight(&release, &replicas);
    let start = Instant::now();
    eventually("the last word is reach's", || is_right(&release, &ca));
    let peace = start.elapsed();
    let mut row = row_of(
        &counts,
        "23",
        "caBundle is emptied or replaced, the registration deleted and recreated",
        format!("{} kinds of change, 2 replicas, 2 API servers", times.len()),
    );
    row.recovery = times.iter().map(|(_, time)| *time).max();
    let times: Vec<_> =
        times.iter().map(|(what, time)| format!("{what} {:.1} s", time.as_secs_f32())).collect();
    row.more = format!(
        "healed after: {}; nothing else changed; {writes} writes for that, none in 5 s of rest; emptied {emptied} times within \
         20 s by a hostile reconciler, {answered} writes, healed {:.1} s after it gave up",
        times.join(", "),
        peace.as_secs_f32()
    );
    let _recorded = row.record();
    assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
    assert!(answered <= 24, "{answered} writes in 20 s");
}

/// Empties the bundle whenever there is something in it. How often it did, and how often reach wrote.
fn fight(release: &Installation<'_>, replicas: &[Reach]) -> (usize, u64) {
    let before = total(replicas);
    let start = Instant::now();
    let mut emptied = 0;
    while start.elapsed() < PATIENCE / 3 {
        let configuration = release.configuration();
        if !bundle_of(&configuration).is_empty() {
            let patch = json!([{"op": "remove", "path": BUNDLE}]);
            emptied += usize::from(release.apis[0].patch(&release.configuration_path(), &patch).is_ok());
        }
        thread::sleep(Duration::from_millis(20));
    }
    (emptied, total(replicas) - before)
}

fn heal(
    release: &Installation<'_>,
    what: &str,
    start: Instant,
    ca: &CertificateDer<'static>,
    times: &mut Vec<(String, Duration)>,
) {
    eventually(&format!("caBundle is healed after: {what}"), || is_right(release, ca));
    times.push((what.to_owned(), start.elapsed()));
}

fn is_right(release: &Installation<'_>, ca: &CertificateDer<'static>) -> Result<(), String> {
    let configuration = release.configuration();
    let ours = configuration["webhooks"].as_array().into_iter().flatten();
    let ours = ours.filter(|webhook| webhook["name"] == "pods.reach.dev");
    let bundle = bundle_of(&json!({"webhooks": ours.collect::<Vec<_>>()}));
    if bundle.contains(ca) { Ok(()) } else { Err(configuration.to_string()) }
}

/// The configuration without what is reach's to write and what each write changes.
fn foreign(configuration: &Value) -> Value {
    let mut rest = configuration.clone();
    for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
        rest["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    for webhook in rest["webhooks"].as_array_mut().expect("webhooks") {
        if webhook["name"] == "pods.reach.dev" {
            webhook["clientConfig"].as_object_mut().expect("an object").remove("caBundle");
        }
    }
    rest
}

fn foreign_parts(release: &Installation<'_>, stranger: &Ca) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": release.name, "labels": {"strange.example/kept": "yes"}},
        "webhooks": [{
            "name": "strange.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": base64(&stranger.pem)},
            "rules": [{"apiGroups": ["strange.example"], "apiVersions": ["v1"], "resources": ["things"], "operations": ["CREATE"]}],
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    })
}

fn total(replicas: &[Reach]) -> u64 {
    let count = |reach: &Reach| {
        // A count of writes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let writes = reach.metric(WRITES).expect("a metric") as u64;
        writes
    };
    replicas.iter().map(count).sum()
}
