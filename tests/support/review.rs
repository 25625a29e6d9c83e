//! A review as the API server sends it, and what is in the answer.

use serde_json::{Value, json};

/// A review of the creation of a pod in the namespace `shop`.
pub fn review_of(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "object": pod,
            "oldObject": null,
            "dryRun": false,
        },
    })
}

/// The patch in the `response` of an answer; `None` when there is none.
///
/// # Panics
/// If it is no JSON in base64.
pub fn patch(response: &Value) -> Option<Value> {
    let text = response.get("patch")?.as_str().expect("a string");
    let json = base64_simd::STANDARD.decode_to_vec(text).expect("base64");
    Some(serde_json::from_slice(&json).expect("JSON"))
}
