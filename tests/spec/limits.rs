//! Where a plan, a patch and lists of a pod end, to the byte, so that what fits is never refused; and what is kept of presets.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use reach::admission;
use reach::inject::patch::{TooLong, write_within};
use reach::inject::pod::Pod;
use reach::inject::set::Shared;
use reach::inject::snapshot::{ClusterLists, Snapshot};
use reach::inject::{LeftAlone, Plan, Target, Unreadable, plan_within};
use reach::no_proxy::portable::{Author, List};
use reach::telemetry::{Outcome, ReviewMetrics};
use serde_json::{Value, json};

use super::review::{patch, review_of};
use super::{NO_LABELS, cluster, cluster_env, container, engine, env_of, merge, names, pod_env, pod_of};

/// Most bytes of the lists of volumes, and of mounts, that a pod may have.
const MOST_OF_LISTS: usize = 2 * 1024 * 1024;

fn shop<'p>(presets: impl IntoIterator<Item = &'p Value>) -> Snapshot {
    engine::snapshot(presets, [("shop", &*NO_LABELS)])
}

/// What is decided of a pod that is spelled like this, and what `then` makes of it.
fn planned<T>(
    snapshot: &Snapshot,
    pod: &str,
    most: usize,
    then: impl FnOnce(Result<Plan<'_>, LeftAlone>, &Pod<'_>) -> T,
) -> Result<T, Unreadable> {
    let pod = Pod::from_slice(pod.as_bytes()).expect("JSON");
    let namespace = snapshot.namespace("shop").expect("a known namespace");
    plan_within(&namespace, &pod, Target::Pod, most).map(|plan| then(plan, &pod))
}

/// What is decided when the patch may have this many bytes, and the patch that comes of it.
fn decided(preset: &Value, pod: &Value, most: usize) -> (Option<LeftAlone>, Result<Vec<u8>, TooLong>) {
    let (snapshot, pod) = (shop([preset]), pod.to_string());
    let left_alone = planned(&snapshot, &pod, most, |plan, _| plan.err());
    let patch = planned(&snapshot, &pod, usize::MAX, |plan, pod| {
        let patch = write_within(&plan.expect("something to do"), pod, "", most);
        patch.map(|patch| patch.expect("something to change"))
    });
    (left_alone.expect("a readable pod"), patch.expect("a readable pod"))
}

/// That the values alone are known to be too much before the patch is written, and that every byte of the patch counts.
fn ends(preset: &Value, pod: &Value, values: usize) {
    assert_eq!(decided(preset, pod, values - 1), (Some(LeftAlone::TooLarge), Err(TooLong)));
    let whole = decided(preset, pod, usize::MAX);
    let length = whole.1.as_ref().expect("no limit").len();
    assert!(length > values, "{length}");
    assert_eq!(decided(preset, pod, length), whole);
    assert_eq!(decided(preset, pod, length - 1).1, Err(TooLong));
}

#[test]
fn values_that_are_added_count_for_each_name_and_container() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "x".repeat(1000)}]));
    ends(&preset, &pod_env(&[]), 2000);
    let containers: Value = (0..10).map(|number| container(&format!("c{number}"), json!({}))).collect();
    ends(&preset, &pod_of(json!({"containers": containers})), 20_000);
}

#[test]
fn values_that_are_united_count_for_each_name_that_is_set_or_added() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "x".repeat(1000)}]));
    ends(&preset, &pod_env(&["no_proxy=own"]), 2000);
    ends(&preset, &pod_env(&["no_proxy=own", "NO_PROXY=own"]), 2000);
}

#[test]
fn annotations_count_where_nothing_else_changes() {
    let preset = cluster_env("p", json!([{"name": "X", "value": "x"}]));
    let pod = pod_env(&["X=own"]);
    let length = decided(&preset, &pod, usize::MAX).1.expect("no limit").len();
    assert_eq!(decided(&preset, &pod, length - 1), (None, Err(TooLong)));
    assert!(decided(&preset, &pod, length).1.is_ok());
}

/// What large sets of presets that are kept may weigh together.
const LARGE_KEPT: usize = 8 * 1024 * 1024;

/// How many of 150 sets are kept, each of one preset of this spec and of all `others`, and what the first set gives a container.
fn kept(spec: &Value, others: &[Value]) -> (usize, Vec<String>) {
    let number = |n: usize| json!({"n": n.to_string()});
    let own = |n: usize| {
        let selector = json!({"selector": {"matchLabels": number(n)}, "letterCase": "AsWritten"});
        cluster(&format!("own-{n}"), merge(spec.clone(), selector))
    };
    let own: Vec<Value> = (0..150).map(own).collect();
    let snapshot = shop(others.iter().chain(&own));
    let pod = |n: usize| {
        let mut pod = pod_env(&[]);
        pod["metadata"]["labels"] = number(n);
        pod
    };
    let is_kept = |n: &usize| {
        let kept = |plan: Result<Plan<'_>, LeftAlone>, _: &Pod<'_>| {
            matches!(plan.expect("something to do").sets[0], Shared::Kept(_))
        };
        planned(&snapshot, &pod(*n).to_string(), usize::MAX, kept).expect("a readable pod")
    };
    let count = (0..150).filter(is_kept).count();
    (count, env_of(&engine::inject(&snapshot, "shop", &pod(0), None).pod, "containers", 0))
}

#[test]
fn of_large_sets_of_presets_as_many_are_kept_as_there_is_memory_for() {
    let about = |count: usize, weight: usize| {
        let expected = LARGE_KEPT / weight;
        assert!(count.abs_diff(expected) <= expected / 20, "{count} of some {weight} bytes");
    };
    let env = json!([
        {"name": "http_proxy", "value": "http://proxy:1"},
        {"name": "no_proxy", "value": names(1500, "host-", ".example")},
    ]);
    // As JSON and as a value; in parts, with what is known of each, in the portable form only.
    let (count, list) = kept(&json!({"noProxyForm": "AsWritten", "env": env}), &[]);
    about(count, 3 * list[1].len());
    let (count, list) = kept(&json!({"noProxyForm": "Portable", "env": env}), &[]);
    about(count, 5 * list[1].len());
    // What a container without variables of its own is given beside.
    let (count, list) = kept(&json!({"noProxyForm": "Portable", "derive": ["Java"], "env": env}), &[]);
    about(count, 5 * list[1].len() + list[2].len());
    // The names of presets.
    let others: Vec<Value> = (0..220).map(|n| cluster_env(&format!("{n:0>253}"), json!([]))).collect();
    let (count, _) = kept(&json!({"env": [{"name": "X", "value": "x"}]}), &others);
    about(count, others.len() * (253 + "ClusterPodPreset/@1,".len()));
}

/// Plans with a volume and a mount for a pod that is spelled like this.
fn read(text: &str) -> Result<(), Unreadable> {
    let preset = cluster(
        "p",
        json!({
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        }),
    );
    planned(&shop([&preset]), text, usize::MAX, |_, _| ())
}

#[test]
fn lists_of_volumes_and_mounts_are_read_up_to_their_length() {
    let list = |length: usize| format!("[{}]", " ".repeat(length - 2));
    let volumes = |length: usize| format!(r#"{{"spec":{{"volumes":{},"containers":[{{}}]}}}}"#, list(length));
    // Those of all containers together.
    let mounts = |length: usize| {
        let (mounts, devices) = (list(length / 2), list(length - length / 2));
        format!(r#"{{"spec":{{"containers":[{{"volumeMounts":{mounts}}},{{"volumeDevices":{devices}}}]}}}}"#)
    };
    for (pod, field) in [(&volumes as &dyn Fn(usize) -> String, "spec.volumes"), (&mounts, "volumeMounts")] {
        read(&pod(MOST_OF_LISTS)).expect("not too long");
        for length in [MOST_OF_LISTS + 1, MOST_OF_LISTS + 2] {
            let error = read(&pod(length)).expect_err("too long").to_string();
            assert_eq!(error, format!("{field}: expected a list of a length that a pod can have"));
        }
    }
}

/// What the webhook answers to the creation of a pod, how many warnings it gives, and the pod that comes of it.
fn created(snapshot: &Snapshot, pod: &Value) -> (Outcome, usize, Value) {
    let metrics = ReviewMetrics::register(&mut Registry::default());
    let answer = admission::review(review_of(pod).to_string().as_bytes(), snapshot, &metrics);
    let answer = answer.expect("a known namespace");
    let reply: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let mut pod = pod.clone();
    if let Some(patch) = patch(&reply["response"]) {
        engine::apply(patch.to_string().as_bytes(), &mut pod);
    }
    (answer.outcome, reply["response"]["warnings"].as_array().map_or(0, Vec::len), pod)
}

#[test]
fn names_that_were_left_out_once_stay_out_until_presets_say_something_else() {
    let lists = Arc::new(ClusterLists {
        all_services: List::parse(&names(1500, "service-", ".shop"), Author::Preset),
        ..ClusterLists::default()
    });
    let of = |preset: &Value| shop([preset]).with_derived(Arc::clone(&lists));
    let env = json!([{"name": "X", "value": "x".repeat(60_000)}]);
    let preset = cluster("p", json!({"noProxyForm": "Portable", "noProxyFrom": ["AllServices"], "env": env}));
    let pod = pod_of(json!({"containers": [container("a", json!({})), container("b", json!({}))]}));
    let (outcome, warnings, injected) = created(&of(&preset), &pod);
    assert_eq!((outcome, warnings), (Outcome::injected, 1));
    assert!(!injected.to_string().contains("service-"));
    // With the long value there already, there would be room for the names now.
    assert_eq!(created(&of(&preset), &injected), (Outcome::unchanged, 1, injected.clone()));
    // Nor is anything left out where there are none any more.
    assert_eq!(created(&shop([&preset]), &injected), (Outcome::unchanged, 0, injected.clone()));
    // What somebody else has said of the pod is not what reach did.
    let mut told = injected.clone();
    told["metadata"]["annotations"]["reach.dev/skipped"] = json!("something else");
    assert!(created(&of(&preset), &told).2.to_string().contains("service-1499.shop"));
    let mut newer = preset.clone();
    newer["metadata"]["generation"] = json!(2);
    let mut other = preset;
    other["spec"]["env"][0]["value"] = json!("other");
    for preset in [newer, other] {
        let (outcome, warnings, again) = created(&of(&preset), &injected);
        assert_eq!((outcome, warnings), (Outcome::injected, 0));
        assert!(again.to_string().contains("service-1499.shop"));
    }
}
