//! The patch: RFC 6902 operations, written as bytes.
//!
//! Only `add`, and only at places that the very object received has: Kubernetes rejects a pod whose
//! patch does not apply, whatever the failure policy of the webhook says.

use serde_json::Value;

use super::merge::{Outcome, Resolved, Value as Merged};
use super::pod::{Container, Pod};
use super::{ContainerPlan, Plan, annotation};

/// A list of operations that is being written.
#[derive(Debug, Default)]
pub struct Patch {
    json: Vec<u8>,
}

/// Writes the operations of a plan; `None` when nothing changes.
///
/// `prefix` is the RFC 6901 pointer of the pod (or pod template) inside the object: empty for a pod.
#[must_use]
pub fn write(plan: &Plan<'_>, pod: &Pod<'_>, prefix: &str) -> Option<Vec<u8>> {
    let mut patch = Patch { json: Vec::with_capacity(2048) };
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes);
    let has_volumes = volumes
        .is_some_and(|raw| !matches!(raw.get().trim_matches(['[', ']', ' ', '\n', '\r', '\t']), "" | "null"));
    patch.list(&format_args!("{prefix}/spec/volumes"), has_volumes, &plan.volumes, |volume, json| {
        json.extend_from_slice(volume.json.as_bytes());
    });
    for planned in &plan.containers {
        let Some(container) = spec.and_then(|spec| planned.list.of(spec).get(planned.index)) else {
            continue;
        };
        patch.container(prefix, planned, container, &plan.resolutions[planned.resolution]);
    }
    if let Some(annotations) = annotation::wanted(plan, pod, patch.json.is_empty()) {
        patch.annotations(prefix, pod, &annotations);
    }
    patch.finish()
}

// === impl Patch ===

impl Patch {
    /// Begins an operation; its value follows, then [`Patch::end`].
    fn begin(&mut self, path: &std::fmt::Arguments<'_>) {
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        self.json.extend_from_slice(b"{\"op\":\"add\",\"path\":\"");
        // Paths are made of field names, numbers and escaped annotation keys: nothing needs quoting.
        std::io::Write::write_fmt(&mut self.json, *path).unwrap_or_default();
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
    fn list<T>(
        &mut self,
        path: &std::fmt::Arguments<'_>,
        exists: bool,
        items: &[T],
        write: impl Fn(&T, &mut Vec<u8>),
    ) {
        if items.is_empty() {
            return;
        }
        if exists {
            for item in items {
                self.begin(&format_args!("{path}/-"));
                write(item, &mut self.json);
                self.end();
            }
        } else {
            self.begin(path);
            for (index, item) in items.iter().enumerate() {
                self.json.push(if index == 0 { b'[' } else { b',' });
                write(item, &mut self.json);
            }
            self.json.push(b']');
            self.end();
        }
    }

    fn container(
        &mut self,
        prefix: &str,
        plan: &ContainerPlan<'_>,
        container: &Container<'_>,
        resolved: &[Resolved<'_>],
    ) {
        let (list, index) = (plan.list.field(), plan.index);
        for outcome in &plan.variables {
            if let Outcome::Merged { value, set, .. } = outcome {
                for position in set {
                    self.begin(&format_args!("{prefix}/spec/{list}/{index}/env/{position}/value"));
                    string(&mut self.json, value);
                    self.end();
                }
            }
        }
        let mut added: Vec<Vec<u8>> = Vec::new();
        for (variable, outcome) in resolved.iter().zip(&plan.variables) {
            let (names, value) = match outcome {
                Outcome::Added => (&variable.spellings, None),
                Outcome::Merged { value, add, .. } => (add, Some(value)),
                Outcome::Kept | Outcome::Unmergeable => continue,
            };
            if names.is_empty() {
                continue;
            }
            let mut tail = Vec::with_capacity(64);
            match (&variable.value, value) {
                (_, Some(value)) => literal(&mut tail, value),
                (Merged::Source(source), None) => {
                    tail.extend_from_slice(b",\"valueFrom\":");
                    tail.extend_from_slice(source.as_bytes());
                }
                (merged, None) => literal(&mut tail, &merged.literal().unwrap_or_default()),
            }
            for name in names {
                let mut item = Vec::with_capacity(name.len() + tail.len() + 12);
                item.extend_from_slice(b"{\"name\":");
                string(&mut item, name);
                item.extend_from_slice(&tail);
                item.push(b'}');
                added.push(item);
            }
        }
        self.list(
            &format_args!("{prefix}/spec/{list}/{index}/env"),
            !container.env.is_empty(),
            &added,
            |item, json| json.extend_from_slice(item),
        );
        self.list(
            &format_args!("{prefix}/spec/{list}/{index}/envFrom"),
            plan.has_env_from,
            &plan.env_from,
            |entry, json| json.extend_from_slice(entry.json.as_bytes()),
        );
        self.list(
            &format_args!("{prefix}/spec/{list}/{index}/volumeMounts"),
            plan.has_mounts,
            &plan.mounts,
            |mount, json| json.extend_from_slice(mount.json.as_bytes()),
        );
    }

    fn annotations(&mut self, prefix: &str, pod: &Pod<'_>, annotations: &[(&str, String)]) {
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
                self.begin(&format_args!("{prefix}/metadata"));
                self.json.extend_from_slice(b"{\"annotations\":");
                object(&mut self.json);
                self.json.push(b'}');
                self.end();
            }
            Some(metadata) if metadata.annotations.is_none() => {
                self.begin(&format_args!("{prefix}/metadata/annotations"));
                object(&mut self.json);
                self.end();
            }
            Some(_) => {
                for (key, value) in annotations {
                    // RFC 6901: `/` in a key is written `~1`. The keys are ours and have no `~`.
                    self.begin(&format_args!("{prefix}/metadata/annotations/{}", key.replace('/', "~1")));
                    string(&mut self.json, value);
                    self.end();
                }
            }
        }
    }
}

/// Writes the `value` member of a variable.
fn literal(json: &mut Vec<u8>, value: &str) {
    json.extend_from_slice(b",\"value\":");
    string(json, value);
}

/// Writes a JSON string.
pub fn string(json: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail.
    serde_json::to_writer(json, text).unwrap_or_default();
}

/// The operations of a patch as values, for callers outside the hot path.
///
/// # Panics
/// Never for what [`write`] returns.
#[must_use]
pub fn operations(patch: &[u8]) -> Vec<Value> {
    serde_json::from_slice(patch).expect("a patch is a JSON array")
}
