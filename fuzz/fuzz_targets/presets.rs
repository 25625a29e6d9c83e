//! Preset documents: never a panic, from the bytes of a file to a pod with what they say in it.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use reach::inject::pod::Pod;
use reach::inject::preset::Preset;
use reach::inject::snapshot::{NamespaceLabels, Snapshot};
use reach::inject::{Target, annotation, patch, plan};
use reach::manifest;
use reach::presets::directory;
use serde_json::{Value, json};

/// A pod that has something of everything that a preset can meet.
static POD: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "metadata": {"labels": {"app": "shop"}, "annotations": {}},
        "spec": {
            "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}],
            "containers": [
                {
                    "name": "app",
                    "env": [
                        {"name": "no_proxy", "value": "own"},
                        {"name": "NO_PROXY", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                        {"name": "PATH", "value": "/bin"},
                        {"name": "JAVA_TOOL_OPTIONS", "value": "-Dx=1"},
                    ],
                    "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl"}],
                },
                {"name": "bare"},
            ],
            "volumes": [{"name": "ca", "configMap": {"name": "ca", "defaultMode": 420}}],
        },
    })
});

/// The patch for a pod.
fn patch_of(snapshot: &Snapshot, pod: &Value) -> Option<json_patch::Patch> {
    let bytes = pod.to_string();
    let pod = Pod::from_slice(bytes.as_bytes()).expect("a pod");
    let namespace = snapshot.namespace("shop").expect("every namespace counts as existing");
    let plan = plan(&namespace, &pod, Target::Pod).expect("a readable pod").ok()?;
    let _ = annotation::warnings(&plan, &pod);
    let patch = patch::write(&plan, &pod, "")?;
    Some(serde_json::from_slice(&patch).expect("a patch is RFC 6902"))
}

fuzz_target!(|text: &str| {
    let documents = manifest::documents(text);
    let whole: String = documents.iter().map(|document| document.text).collect();
    assert_eq!(whole, text, "documents are the stream");
    let objects = documents.iter().filter_map(|document| document.read().ok().flatten());
    let presets: Vec<Arc<Preset>> = objects
        .filter_map(|object| match directory::preset(&object) {
            Ok(preset) => Some(Arc::new(preset)),
            Err(errors) => {
                assert!(!errors.is_empty(), "what is refused has a reason");
                None
            }
        })
        .collect();
    let snapshot = Snapshot::from_parts(presets, [("shop".into(), NamespaceLabels::default())], true);
    let mut pod = POD.clone();
    let Some(patch) = patch_of(&snapshot, &pod) else { return };
    json_patch::patch(&mut pod, &patch).expect("the patch applies");
    assert!(patch_of(&snapshot, &pod).is_none(), "injecting twice is injecting once");
});
