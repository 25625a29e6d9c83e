//! Request bytes: never a panic; a patch always applies to the object it was made for, only adds, and says the same however the
//! object is spelled.
#![no_main]

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use reach::admission::{self, Answer};
use reach::inject::pod::{Pod, Text};
use reach::inject::snapshot::Snapshot;
use reach::inject::{self, Target, patch};
use reach::presets::directory;
use reach::telemetry::ReviewMetrics;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

const PRESETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let paths = ["presets", "corporate-ca.yaml"].map(|path| format!("{PRESETS}/{path}").into());
    directory::load(&paths).expect("the examples are valid").snapshot().0
});
static METRICS: LazyLock<ReviewMetrics> = LazyLock::new(|| ReviewMetrics::register(&mut Registry::default()));

/// JSON in which no mapping has a key twice: of such a one every reader may say something else.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;

        impl<'de> Visitor<'de> for UniqueVisitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E: Error>(self) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                while seq.next_element::<Unique>()?.is_some() {}
                Ok(Unique)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut seen = HashSet::new();
                while let Some((key, _)) = map.next_entry::<String, Unique>()? {
                    if !seen.insert(key) {
                        return Err(A::Error::custom("a key is there twice"));
                    }
                }
                Ok(Unique)
            }
        }

        deserializer.deserialize_any(UniqueVisitor)
    }
}

/// The patch for a pod, if it can be read.
fn patch_of(bytes: &[u8], target: Target<'_>) -> Option<Vec<u8>> {
    let pod = Pod::from_slice(bytes).ok()?;
    let namespace = SNAPSHOT.namespace("shop").expect("every namespace counts as existing");
    let plan = inject::plan(&namespace, &pod, target).ok()?.ok()?;
    patch::write(&plan, &pod, "")
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Answer { status, body, .. }) = admission::review(bytes, &SNAPSHOT, &METRICS) {
        let answer: Value = serde_json::from_slice(&body).expect("an answer is JSON");
        assert!(!status.is_success() || answer["response"]["allowed"] == true, "nothing is refused");
    }
    // The bytes as a pod. What is no JSON to others reaches nobody.
    let Ok(object) = serde_json::from_slice::<Value>(bytes) else {
        let _ = patch_of(bytes, Target::Pod);
        return;
    };
    let old = [Text("debug".into())];
    for target in [Target::Pod, Target::EphemeralContainers(&old)] {
        let patch = patch_of(bytes, target);
        if serde_json::from_slice::<Unique>(bytes).is_ok() {
            let respelled = object.to_string();
            assert_eq!(patch_of(respelled.as_bytes(), target), patch, "spelling does not matter");
        }
        let Some(patch) = patch else { continue };
        for operation in patch::operations(&patch) {
            assert_eq!(operation["op"], "add", "nothing is taken away");
        }
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch is RFC 6902");
        let mut object = object.clone();
        json_patch::patch(&mut object, &patch).expect("the patch applies");
        let again = object.to_string();
        assert!(Pod::from_slice(again.as_bytes()).is_ok(), "it is still a pod");
        assert!(patch_of(again.as_bytes(), target).is_none(), "injecting twice is injecting once");
    }
});
