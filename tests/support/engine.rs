//! The engine as tests call it: presets, namespaces and pods are JSON values, and the answer is a pod.

#![allow(dead_code, reason = "each test binary uses only a part of it")]

use std::sync::Arc;

use reach::inject::annotation::warnings;
use reach::inject::patch::{operations, write};
use reach::inject::pod::{Pod, Text};
use reach::inject::preset::Preset;
use reach::inject::snapshot::{NamespaceLabels, Snapshot};
use reach::inject::{LeftAlone, Target, plan};
use serde_json::Value;

/// What the engine answers.
#[derive(Debug)]
pub struct Injection {
    /// The patch, if anything changes.
    pub patch: Option<Vec<u8>>,
    /// The pod with the patch applied.
    pub pod: Value,
    /// Admission warnings.
    pub warnings: Vec<String>,
    /// Why the pod is left alone altogether, if it is.
    pub left_alone: Option<LeftAlone>,
}

/// Compiles a preset; the value is the whole object.
///
/// # Panics
/// If it is no preset.
pub fn preset(object: &Value) -> Arc<Preset> {
    let compiled = match object["kind"].as_str() {
        Some("ClusterPodPreset") => {
            Preset::cluster(&serde_json::from_value(object.clone()).expect("a ClusterPodPreset"))
        }
        Some("PodPreset") => {
            Preset::namespaced(&serde_json::from_value(object.clone()).expect("a PodPreset"))
        }
        other => panic!("no preset: kind {other:?}"),
    };
    Arc::new(compiled.expect("a usable preset"))
}

/// A snapshot of presets (whole objects) and namespaces (name, object of labels).
pub fn snapshot<'a>(
    presets: impl IntoIterator<Item = &'a Value>,
    namespaces: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Snapshot {
    let labels = namespaces.into_iter().map(|(name, labels)| {
        let pairs = labels.as_object().into_iter().flatten();
        (
            name.into(),
            NamespaceLabels::new(pairs.map(|(key, value)| (key, value.as_str().unwrap_or_default()))),
        )
    });
    Snapshot::from_parts(presets.into_iter().map(preset), labels, false)
}

/// Injects into a pod, or (with the names of those that are there already) into its new ephemeral containers.
///
/// # Panics
/// If the pod cannot be read or the patch does not apply to it.
pub fn inject(snapshot: &Snapshot, namespace: &str, pod: &Value, ephemeral: Option<&[&str]>) -> Injection {
    inject_text(snapshot, namespace, &serde_json::to_vec(pod).expect("JSON"), pod, ephemeral)
}

/// The same for a pod that is spelled like this.
///
/// # Panics
/// As [`inject`].
pub fn inject_text(
    snapshot: &Snapshot,
    namespace: &str,
    text: &[u8],
    pod: &Value,
    ephemeral: Option<&[&str]>,
) -> Injection {
    let read = Pod::from_slice(text).expect("a readable pod");
    let known: Vec<Text<'_>> = ephemeral.into_iter().flatten().map(|&name| Text(name.into())).collect();
    let target = if ephemeral.is_some() { Target::EphemeralContainers(&known) } else { Target::Pod };
    let namespace = snapshot.namespace(namespace).expect("a known namespace");
    let mut injected = pod.clone();
    match plan(&namespace, &read, target).expect("a readable pod") {
        Err(left_alone) => {
            Injection { patch: None, pod: injected, warnings: Vec::new(), left_alone: Some(left_alone) }
        }
        Ok(plan) => {
            let patch = write(&plan, &read, "");
            if let Some(patch) = &patch {
                apply(patch, &mut injected);
            }
            Injection { patch, pod: injected, warnings: warnings(&plan, &read), left_alone: None }
        }
    }
}

/// Applies a patch with an implementation of RFC 6902 that is not ours.
///
/// # Panics
/// If it does anything but add, or does not apply.
pub fn apply(patch: &[u8], pod: &mut Value) {
    for operation in operations(patch) {
        assert_eq!(operation["op"], "add", "only `add` is used: {operation}");
    }
    let parsed: json_patch::Patch = serde_json::from_slice(patch).expect("an RFC 6902 patch");
    json_patch::patch(pod, &parsed)
        .unwrap_or_else(|error| panic!("does not apply: {error}\n{}", String::from_utf8_lossy(patch)));
}
