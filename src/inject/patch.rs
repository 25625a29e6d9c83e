//! The patch: RFC 6902 operations, written as bytes.
//!
//! Only `add`, and only at places that the very object received has: Kubernetes rejects a pod whose
//! patch does not apply, whatever the failure policy of the webhook says.

use std::borrow::Cow;

use serde_json::Value;

use super::merge::Outcome;
use super::pod::{Container, Pod};
use super::{ContainerPlan, Plan, annotation};

/// A list of operations that is being written.
#[derive(Debug)]
struct Patch {
    json: Vec<u8>,
}

/// A patch would be longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A list of a container or pod while items are added to it.
#[derive(Clone, Copy)]
struct Place<'p> {
    /// The pointer of the object, in parts.
    object: &'p [&'p str],
    /// The field, with a `/` before it.
    field: &'p str,
    /// Whether the list is there and has items: to it is added, any other is made.
    exists: bool,
}

/// Writes the operations of a plan; `None` when nothing changes.
///
/// `prefix` is the RFC 6901 pointer of the pod (or pod template) inside the object: empty for a pod.
#[must_use]
pub fn write(plan: &Plan<'_>, pod: &Pod<'_>, prefix: &str) -> Option<Vec<u8>> {
    write_within(plan, pod, prefix, usize::MAX).unwrap_or_default()
}

/// [`write()`], but not to its end when it would have more than `most` bytes.
///
/// # Errors
/// If it would be longer.
pub fn write_within(
    plan: &Plan<'_>,
    pod: &Pod<'_>,
    prefix: &str,
    most: usize,
) -> Result<Option<Vec<u8>>, TooLong> {
    let mut patch = Patch { json: Vec::with_capacity(2048) };
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes);
    let has_volumes = volumes
        .is_some_and(|raw| !matches!(raw.0.trim_matches(['[', ']', ' ', '\n', '\r', '\t']), "" | "null"));
    let volumes = Place { object: &[prefix, "/spec"], field: "/volumes", exists: has_volumes };
    patch.list(volumes, plan.volumes.iter().map(|volume| &*volume.json));
    for planned in &plan.containers {
        let Some(container) = spec.and_then(|spec| planned.list.of(spec).get(planned.index)) else {
            continue;
        };
        patch.container(prefix, plan, planned, container);
        if patch.json.len() > most {
            return Err(TooLong);
        }
    }
    if let Some(annotations) = annotation::wanted(plan, pod, patch.json.is_empty()) {
        patch.annotations(prefix, pod, &annotations);
    }
    match patch.finish() {
        Some(json) if json.len() > most => Err(TooLong),
        patch => Ok(patch),
    }
}

// === impl Patch ===

impl Patch {
    /// Begins an operation at a field of an object, or deeper; its value follows, then [`Patch::end`].
    fn begin(&mut self, object: &[&str], field: &[&str]) {
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        self.json.extend_from_slice(b"{\"op\":\"add\",\"path\":\"");
        // Paths are made of field names, numbers and escaped annotation keys: nothing needs quoting.
        for part in object.iter().chain(field) {
            self.json.extend_from_slice(part.as_bytes());
        }
        self.json.extend_from_slice(b"\",\"value\":");
    }

    fn end(&mut self) {
        self.json.push(b'}');
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push(b']');
        Some(self.json)
    }

    /// Appends to a list, or makes it when it is absent, `null` or empty.
    fn list<'j>(&mut self, place: Place<'_>, items: impl Iterator<Item = &'j str>) {
        let mut empty = true;
        for item in items {
            self.begin_item(place, empty);
            self.json.extend_from_slice(item.as_bytes());
            self.end_item(place);
            empty = false;
        }
        self.end_list(place, empty);
    }

    /// Begins an item of a list: an operation of its own, or a part of the one that makes the list.
    fn begin_item(&mut self, place: Place<'_>, first: bool) {
        if place.exists {
            self.begin(place.object, &[place.field, "/-"]);
        } else if first {
            self.begin(place.object, &[place.field]);
            self.json.push(b'[');
        } else {
            self.json.push(b',');
        }
    }

    fn end_item(&mut self, place: Place<'_>) {
        if place.exists {
            self.end();
        }
    }

    fn end_list(&mut self, place: Place<'_>, empty: bool) {
        if !place.exists && !empty {
            self.json.push(b']');
            self.end();
        }
    }

    fn container(
        &mut self,
        prefix: &str,
        plan: &Plan<'_>,
        planned: &ContainerPlan<'_>,
        container: &Container<'_>,
    ) {
        let mut index = itoa::Buffer::new();
        let object = [prefix, "/spec/", planned.list.field(), "/", index.format(planned.index)];
        for (_, outcome) in plan.variables(planned) {
            if let Outcome::Merged { value, set, .. } = outcome {
                for position in set {
                    let mut buffer = itoa::Buffer::new();
                    self.begin(&object, &["/env/", buffer.format(*position), "/value"]);
                    string(&mut self.json, value);
                    self.end();
                }
            }
        }
        let env = Place { object: &object, field: "/env", exists: !container.env.is_empty() };
        let mut empty = true;
        for (variable, outcome) in plan.variables(planned) {
            match outcome {
                Outcome::Added => {
                    for json in &variable.json {
                        self.begin_item(env, empty);
                        self.json.extend_from_slice(json.as_bytes());
                        self.end_item(env);
                        empty = false;
                    }
                }
                Outcome::Merged { value, add, .. } => {
                    for name in add {
                        self.begin_item(env, empty);
                        self.json.extend_from_slice(b"{\"name\":");
                        string(&mut self.json, &variable.spellings[*name]);
                        self.json.extend_from_slice(b",\"value\":");
                        string(&mut self.json, value);
                        self.json.push(b'}');
                        self.end_item(env);
                        empty = false;
                    }
                }
                Outcome::Kept | Outcome::Unmergeable => {}
            }
        }
        self.end_list(env, empty);
        let env_from = Place { object: &object, field: "/envFrom", exists: planned.has_env_from };
        self.list(env_from, planned.env_from.iter().map(|entry| &*entry.json));
        let mounts = Place { object: &object, field: "/volumeMounts", exists: planned.has_mounts };
        self.list(mounts, planned.mounts.iter().map(|mount| &*mount.json));
    }

    fn annotations(&mut self, prefix: &str, pod: &Pod<'_>, annotations: &[(&str, Cow<'_, str>)]) {
        let object = |json: &mut Vec<u8>| {
            for (index, (key, value)) in annotations.iter().enumerate() {
                json.push(if index == 0 { b'{' } else { b',' });
                string(json, key);
                json.push(b':');
                string(json, value);
            }
            json.push(b'}');
        };
        match &pod.metadata {
            None => {
                self.begin(&[prefix], &["/metadata"]);
                self.json.extend_from_slice(b"{\"annotations\":");
                object(&mut self.json);
                self.json.push(b'}');
                self.end();
            }
            Some(metadata) if metadata.annotations.is_none() => {
                self.begin(&[prefix], &["/metadata/annotations"]);
                object(&mut self.json);
                self.end();
            }
            Some(_) => {
                for (key, value) in annotations {
                    // RFC 6901: `/` in a key is written `~1`. The keys are ours, with one `/` and no `~`.
                    let (domain, name) = key.split_once('/').unwrap_or(("", key));
                    self.begin(&[prefix], &["/metadata/annotations/", domain, "~1", name]);
                    string(&mut self.json, value);
                    self.end();
                }
            }
        }
    }
}

/// Writes a JSON string.
pub fn string(json: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail.
    serde_json::to_writer(json, text).unwrap_or_default();
}

/// The operations of a patch as values, for callers outside the hot path.
///
/// # Panics
/// Never for what [`write()`] returns.
#[must_use]
pub fn operations(patch: &[u8]) -> Vec<Value> {
    serde_json::from_slice(patch).expect("a patch is a JSON array")
}
