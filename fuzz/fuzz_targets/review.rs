//! Request bytes: never a panic, and a patch always applies to the object it was made for.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use reach::admission::{self, Answer};
use reach::inject::pod::Pod;
use reach::inject::snapshot::Snapshot;
use reach::inject::{self, Target, patch};
use reach::presets::directory;
use reach::telemetry::ReviewMetrics;
use serde_json::Value;

const PRESETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let paths = ["presets", "corporate-ca.yaml"].map(|path| format!("{PRESETS}/{path}").into());
    directory::load(&paths).expect("the examples are valid").snapshot().0
});
static METRICS: LazyLock<ReviewMetrics> = LazyLock::new(|| ReviewMetrics::register(&mut Registry::default()));

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Answer { body, .. }) = admission::review(bytes, &SNAPSHOT, &METRICS) {
        let _: Value = serde_json::from_slice(&body).expect("an answer is JSON");
    }
    // The bytes as a pod.
    let Ok(pod) = Pod::from_slice(bytes) else { return };
    let namespace = SNAPSHOT.namespace("shop").expect("every namespace counts as existing");
    if let Ok(Ok(plan)) = inject::plan(&namespace, &pod, Target::Pod)
        && let Some(bytes_of_patch) = patch::write(&plan, &pod, "")
        && let Ok(mut object) = serde_json::from_slice::<Value>(bytes)
    {
        let patch: json_patch::Patch = serde_json::from_slice(&bytes_of_patch).expect("a patch is RFC 6902");
        json_patch::patch(&mut object, &patch).expect("the patch applies");
        let bytes = object.to_string();
        let again = Pod::from_slice(bytes.as_bytes()).expect("still a pod");
        if let Ok(Ok(plan)) = inject::plan(&namespace, &again, Target::Pod) {
            assert!(patch::write(&plan, &again, "").is_none(), "injecting twice is injecting once");
        }
    }
});
