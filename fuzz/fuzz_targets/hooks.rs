//! Requests of Cluster API's Runtime Hooks: never a panic, and patches that apply to the templates they are for.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use reach::host::extension::{Hook, answer};
use reach::inject::preset::Preset;
use reach::presets::directory;
use serde_json::Value;

const PRESETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/cluster-api/presets");

static PRESETS_OF_HOSTS: LazyLock<Vec<Arc<Preset>>> = LazyLock::new(|| {
    let loaded = directory::load(&[PRESETS.into()]).expect("the examples are valid");
    loaded.snapshot().0.cluster_presets().to_vec()
});

fuzz_target!(|bytes: &[u8]| {
    for hook in Hook::ALL {
        let Ok(answered) = answer(hook, bytes, &PRESETS_OF_HOSTS) else { continue };
        let response: Value = serde_json::from_slice(&answered.body).expect("an answer is JSON");
        assert_eq!(response["status"] == "Failure", answered.failure.is_some());
        // Of text that nobody looks at, nobody has seen whether it is UTF-8.
        let Ok(request) = serde_json::from_slice::<Value>(bytes) else { continue };
        for patched in response["items"].as_array().into_iter().flatten() {
            let patch = patched["patch"].as_str().expect("a patch is text");
            let patch = base64_simd::STANDARD.decode_to_vec(patch).expect("it is base64");
            let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("it is RFC 6902");
            let items = request["items"].as_array().expect("there are items");
            // A uid that is not there, or stands twice, says less than it should.
            let uid = |item: &Value| item["uid"].as_str().unwrap_or_default().to_owned();
            let mut of_uid = items.iter().filter(|item| uid(item) == uid(patched));
            let applies = |item: &Value| json_patch::patch(&mut item["object"].clone(), &patch).is_ok();
            assert!(of_uid.any(applies), "the patch applies to the item");
        }
    }
});
