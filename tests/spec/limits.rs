//! Where a plan, a patch and what is kept of presets end: each limit to the byte, so that what fits is never refused.

use reach::inject::patch::{TooLong, write_within};
use reach::inject::pod::Pod;
use reach::inject::snapshot::Snapshot;
use reach::inject::{LeftAlone, Plan, Target, Unreadable, plan, plan_within};
use serde_json::{Value, json};

use super::{NO_LABELS, cluster, cluster_env, container, engine, pod_env, pod_of};

/// Most bytes of the lists of volumes, and of mounts, that a pod may have.
const MOST_OF_LISTS: usize = 2 * 1024 * 1024;

fn shop(presets: &[Value]) -> Snapshot {
    engine::snapshot(presets, [("shop", &*NO_LABELS)])
}

/// What is decided when the patch may have this many bytes, and the patch that comes of it.
fn decided(presets: &[Value], pod: &Value, most: usize) -> (Option<LeftAlone>, Result<Vec<u8>, TooLong>) {
    let snapshot = shop(presets);
    let text = pod.to_string();
    let pod = Pod::from_slice(text.as_bytes()).expect("a readable pod");
    let namespace = snapshot.namespace("shop").expect("a known namespace");
    let left_alone = plan_within(&namespace, &pod, Target::Pod, most).expect("a readable pod").err();
    let plan = plan(&namespace, &pod, Target::Pod).expect("a readable pod").expect("something to do");
    let patch = write_within(&plan, &pod, "", most).map(|patch| patch.expect("something to change"));
    (left_alone, patch)
}

/// That the values alone are known to be too much before the patch is written, and that every byte of the patch counts.
fn ends(presets: &[Value], pod: &Value, values: usize) {
    assert_eq!(decided(presets, pod, values - 1), (Some(LeftAlone::TooLarge), Err(TooLong)));
    let whole = decided(presets, pod, usize::MAX);
    let length = whole.1.as_ref().expect("no limit").len();
    assert!(length > values, "{length}");
    assert_eq!(decided(presets, pod, length), whole);
    assert_eq!(decided(presets, pod, length - 1).1, Err(TooLong));
}

#[test]
fn values_that_are_added_count_for_each_name_and_container() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "x".repeat(1000)}]));
    ends(std::slice::from_ref(&preset), &pod_env(&[]), 2000);
    let containers: Value = (0..10).map(|number| container(&format!("c{number}"), json!({}))).collect();
    ends(&[preset], &pod_of(json!({"containers": containers})), 20_000);
}

#[test]
fn values_that_are_united_count_for_each_name_that_is_set_or_added() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "x".repeat(1000)}]));
    ends(std::slice::from_ref(&preset), &pod_env(&["no_proxy=own"]), 2000);
    ends(&[preset], &pod_env(&["no_proxy=own", "NO_PROXY=own"]), 2000);
}

#[test]
fn annotations_count_where_nothing_else_changes() {
    let preset = cluster_env("p", json!([{"name": "X", "value": "x"}]));
    let length =
        decided(std::slice::from_ref(&preset), &pod_env(&["X=own"]), usize::MAX).1.expect("no limit").len();
    assert_eq!(
        decided(std::slice::from_ref(&preset), &pod_env(&["X=own"]), length - 1),
        (None, Err(TooLong))
    );
    assert!(decided(&[preset], &pod_env(&["X=own"]), length).1.is_ok());
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
    let snapshot = shop(&[preset]);
    let pod = Pod::from_slice(text.as_bytes()).expect("a readable pod");
    let namespace = snapshot.namespace("shop").expect("a known namespace");
    plan(&namespace, &pod, Target::Pod).map(|plan| drop::<Result<Plan<'_>, LeftAlone>>(plan))
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
