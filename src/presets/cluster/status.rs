//! What presets have in their status: whether reach can use them, and what `reach lint` has against them.
//!
//! Written once for each generation, by the replica that holds a Lease, and never in a request. It is news for people
//! only: nothing that reach does depends on it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::source::Key;
use super::state::MAX_WEIGHT;
use crate::api::validate::FieldError;
use crate::api::{ClusterPodPreset, PodPreset, PresetStatus};
use crate::api_server::explain;
use crate::lease::Lease;
use crate::lint::{self, Facts, Finding, Severity, objects};
use crate::presets::directory;

/// Who reach is in `managedFields`.
const FIELD_MANAGER: &str = "reach-status";
/// How long after a change its status may wait for others, and for somebody who changes it again.
const SETTLE: Duration = Duration::from_secs(1);
/// The pause between two writes: after an installation every preset is news.
const PAUSE: Duration = Duration::from_millis(50);
/// How long to leave the work to another replica, or an API server that is away alone.
const AWAY: Duration = Duration::from_secs(10);
/// How long to go on before the Lease is asked for again, which lasts longer.
const TURN: Duration = Duration::from_secs(10);
/// Findings that a condition shows.
const SHOWN: usize = 3;

/// What a watch says of a preset.
#[derive(Debug)]
pub(super) struct Seen {
    pub key: Key,
    /// It is left out: those of its namespace have too many bytes together.
    pub is_too_much: bool,
    /// Its status is of another generation.
    pub is_news: bool,
}

/// Where the watches leave their news.
#[derive(Clone, Debug)]
pub struct Notes(mpsc::UnboundedSender<Seen>);

/// Writes the status of presets.
pub struct Writer {
    client: Client,
    lease: Lease,
    news: mpsc::UnboundedReceiver<Seen>,
    /// Presets, and whether they are too much.
    waiting: BTreeMap<Key, bool>,
}

// === impl Notes ===

impl Notes {
    /// Takes note of a preset.
    pub(super) fn note(&self, seen: Seen) {
        // The writer may have given up.
        let _ = self.0.send(seen);
    }
}

// === impl Writer ===

impl Writer {
    /// A writer that works while it holds `lease`, and where to leave news for it.
    #[must_use]
    pub fn new(client: Client, lease: Lease) -> (Self, Notes) {
        let (sender, news) = mpsc::unbounded_channel();
        (Self { client, lease, news, waiting: BTreeMap::new() }, Notes(sender))
    }

    /// Runs until it is dropped, or may not write.
    pub async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                match self.news.recv().await {
                    Some(news) => self.take(news),
                    None => return,
                }
                sleep(SETTLE).await;
            }
            self.take_all();
            if self.waiting.is_empty() {
                continue;
            }
            if !self.lease.acquire().await {
                sleep(AWAY).await;
                continue;
            }
            let turn = Instant::now();
            while turn.elapsed() < TURN
                && let Some((next, is_too_much)) = self.waiting.pop_first()
            {
                match self.write(&next, is_too_much).await {
                    Ok(()) => sleep(PAUSE).await,
                    Err(error) if is_refusal(&error) => {
                        warn!(error = %explain(&error), "cannot write the status of presets, going on without");
                        return;
                    }
                    Err(error) => {
                        debug!(error = %explain(&error), "cannot write the status of a preset, retrying");
                        self.waiting.insert(next, is_too_much);
                        sleep(AWAY).await;
                    }
                }
                self.take_all();
            }
        }
    }

    fn take(&mut self, Seen { key, is_too_much, is_news }: Seen) {
        if is_news {
            self.waiting.insert(key, is_too_much);
        } else {
            self.waiting.remove(&key);
        }
    }

    fn take_all(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.take(news);
        }
    }

    /// Writes the status of a preset, unless it is gone or has one.
    async fn write(&self, (namespace, name): &Key, is_too_much: bool) -> kube::Result<()> {
        let client = self.client.clone();
        let (resource, api): (_, Api<DynamicObject>) = if namespace.is_empty() {
            let resource = ApiResource::erase::<ClusterPodPreset>(&());
            let api = Api::all_with(client, &resource);
            (resource, api)
        } else {
            let resource = ApiResource::erase::<PodPreset>(&());
            let api = Api::namespaced_with(client, namespace, &resource);
            (resource, api)
        };
        let Some(object) = api.get_opt(name).await?.filter(is_news) else { return Ok(()) };
        let status = status(&object, is_too_much, &Time(Timestamp::now()));
        // With the uid, so that it is no other preset of the same name.
        let apply = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "uid": object.meta().uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(name, &parameters, &Patch::Apply(apply)).await {
            // Another one by now: the watch brings what there is.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            // Gone, or a CRD without status.
            Err(kube::Error::Api(status)) if status.code == 404 && api.get_opt(name).await?.is_none() => {
                Ok(())
            }
            written => written.map(drop),
        }
    }
}

/// Nothing can be written: no right to do so, or a CRD without status.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403..=405))
}

/// Whether the status of a preset is not of its present generation.
pub(super) fn is_news(object: &DynamicObject) -> bool {
    let observed = object.data["status"]["observedGeneration"].as_i64();
    observed.is_none() || observed != object.meta().generation
}

/// What there is to say of a preset.
fn status(object: &DynamicObject, is_too_much: bool, now: &Time) -> PresetStatus {
    let value = serde_json::to_value(object).unwrap_or_default();
    let old: PresetStatus = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    let generation = object.meta().generation;
    let condition = |type_: &str, (holds, reason, message): (bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let same = old.conditions.iter().find(|known| known.type_ == type_ && known.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: same
                .map_or_else(|| now.clone(), |known| known.last_transition_time.clone()),
        }
    };
    PresetStatus {
        observed_generation: generation,
        conditions: vec![
            condition("Usable", usable(directory::preset(&value).err().as_deref(), is_too_much)),
            condition("Clean", clean(&value)),
        ],
    }
}

fn usable(errors: Option<&[FieldError]>, is_too_much: bool) -> (bool, &'static str, String) {
    match errors {
        None if is_too_much => {
            let message = format!(
                "it is left out: the presets of its namespace have more than {MAX_WEIGHT} bytes together; make others smaller, then change it"
            );
            (false, "TooManyBytes", message)
        }
        None => (true, "Valid", String::new()),
        Some(errors) => {
            let errors: Vec<String> = errors.iter().take(SHOWN).map(ToString::to_string).collect();
            (false, "Invalid", format!("it is left out: {}", errors.join("; ")))
        }
    }
}

/// What `reach lint` says of it, as far as somebody should do something about it.
fn clean(object: &Value) -> (bool, &'static str, String) {
    let mut found: BTreeMap<(std::cmp::Reverse<Severity>, lint::Id, String), Finding> = BTreeMap::new();
    for subject in objects::subjects(object) {
        for finding in lint::check(&subject, &Facts::default()) {
            if finding.severity > Severity::Info {
                let name = subject.variables[finding.variable].name.clone();
                found.insert((std::cmp::Reverse(finding.severity), finding.id, name), finding);
            }
        }
    }
    let Some(((std::cmp::Reverse(worst), ..), _)) = found.first_key_value() else {
        return (true, "NothingFound", String::new());
    };
    let reason = if *worst == Severity::Error { "ErrorsFound" } else { "WarningsFound" };
    let shown = found.iter().take(SHOWN).map(|((_, id, name), finding)| {
        format!("{id} in {name}: {}; write {}", finding.message, finding.advice)
    });
    let mut message = shown.collect::<Vec<_>>().join(". ");
    if found.len() > SHOWN {
        message = format!("{message}. And {} more: reach lint shows them", found.len() - SHOWN);
    }
    (false, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: i64, env: &Value, status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": "proxy", "generation": generation},
            "spec": {"env": env},
            "status": status,
        }))
        .unwrap()
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn conditions(status: &PresetStatus) -> Vec<(&str, &str, &str)> {
        status.conditions.iter().map(|known| (&*known.type_, &*known.status, &*known.reason)).collect()
    }

    #[test]
    fn it_says_what_lint_says_and_no_password() {
        let env = json!([
            {"name": "https_proxy", "value": "http://me:s3c/r@t@proxy:1"},
            {"name": "no_proxy", "value": "http://web,.svc,10.96.,db:5432,x;y"},
        ]);
        let status = status(&object(1, &env, &Value::Null), false, &at(1));
        assert_eq!(conditions(&status), [("Usable", "True", "Valid"), ("Clean", "False", "ErrorsFound")]);
        let message = &status.conditions[1].message;
        assert!(message.starts_with("E1 in no_proxy: http://web is a URL"), "{message}");
        assert!(message.ends_with("more: reach lint shows them"), "{message}");
        let all = serde_json::to_string(&status).unwrap();
        assert!(!all.contains("s3c") && !all.contains("r@t"), "{all}");
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let env = json!([{"name": "no_proxy", "value": ".svc"}]);
        let first = status(&object(1, &env, &Value::Null), false, &at(1));
        assert_eq!(conditions(&first), [("Usable", "True", "Valid"), ("Clean", "True", "NothingFound")]);
        let env = json!([{"name": "no_proxy", "value": "db:5432"}]);
        let second = status(&object(2, &env, &json!(first)), false, &at(2));
        assert_eq!(second.observed_generation, Some(2));
        assert_eq!(conditions(&second)[1], ("Clean", "False", "WarningsFound"));
        let times: Vec<&Time> = second.conditions.iter().map(|known| &known.last_transition_time).collect();
        assert_eq!(times, [&at(1), &at(2)]);
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_field() {
        let env = json!([{"name": "no_proxy", "value": 7}]);
        let status = status(&object(1, &env, &Value::Null), false, &at(1));
        assert_eq!(conditions(&status)[0], ("Usable", "False", "Invalid"));
        assert!(status.conditions[0].message.contains("spec.env[0].value"), "{status:?}");
        let env = json!([{"name": "no_proxy", "value": ".svc"}]);
        let status = super::status(&object(1, &env, &Value::Null), true, &at(1));
        assert_eq!(conditions(&status)[0], ("Usable", "False", "TooManyBytes"));
    }

    #[test]
    fn a_status_of_another_generation_is_news() {
        let env = json!([]);
        assert!(is_news(&object(1, &env, &Value::Null)));
        assert!(!is_news(&object(1, &env, &json!({"observedGeneration": 1}))));
        assert!(is_news(&object(2, &env, &json!({"observedGeneration": 1}))));
    }
}
