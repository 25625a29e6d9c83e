//! What presets have in their status: whether reach can use them, and what `reach lint` has against them.
//!
//! Written for each generation, and when there is room for a preset or no more, by the replica that holds a Lease, and never in
//! a request. It is news for people
//! only: nothing that reach does depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::room::MAX_WEIGHT;
use super::source::Key;
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
/// How long to leave a preset alone that is refused, or all of them when they are; and the longest wait between two attempts.
const LONG: Duration = Duration::from_mins(10);
/// Presets in a row after whose failures the fault is with none of them.
const IN_A_ROW: usize = 3;
/// Attempts at a status that is not as the API server wants it.
const ATTEMPTS: u32 = 3;
/// How long to go on before the Lease is asked for again, which lasts longer.
const TURN: Duration = Duration::from_secs(10);
/// The reason of a preset for which there is no room.
const TOO_MUCH: &str = "TooManyBytes";
/// Findings that a condition shows.
const SHOWN: usize = 3;

/// What a watch says of a preset.
#[derive(Debug)]
pub(super) struct Seen {
    pub key: Key,
    /// It is left out: those of its namespace have too many bytes together.
    pub is_too_much: bool,
    /// Its status does not say so yet.
    pub is_news: bool,
}

/// What a preset has in its status already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// It is of another generation.
    is_old: bool,
    /// It is left out: those of its namespace have too many bytes together.
    is_too_much: bool,
}

/// Where the watches leave their news.
#[derive(Clone, Debug)]
pub struct Notes(mpsc::UnboundedSender<Seen>);

/// Writes the status of presets.
pub struct Writer {
    client: Client,
    lease: Lease,
    news: mpsc::UnboundedReceiver<Seen>,
    waiting: Waiting,
}

/// Presets whose status is to be written. One that fails waits by itself, so that it does not hold up the others.
#[derive(Debug, Default)]
struct Waiting {
    presets: BTreeMap<Key, Due>,
    /// Some that have failed since one was written, all refused or none.
    in_a_row: BTreeSet<Key>,
    is_refused: bool,
    /// One has been written.
    is_written: bool,
    /// It has been said that they are refused.
    is_said: bool,
}

/// When a status is to be written.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// The preset is left out: those of its namespace have too many bytes together.
    is_too_much: bool,
    at: Instant,
    /// Attempts that have failed.
    failures: u32,
}

/// What the failure of a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// No right to write it, or a CRD without status.
    Refused,
    /// A status that the API server does not take.
    Invalid,
    /// It may go better the next time.
    Passing,
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
        (Self { client, lease, news, waiting: Waiting::default() }, Notes(sender))
    }

    /// Runs until nobody leaves news any more.
    pub async fn run(mut self) {
        while self.turn().await.is_some() {}
    }

    /// One round: what is due, as long as the lease lasts. `None` when there will be no more news.
    async fn turn(&mut self) -> Option<()> {
        let Some(at) = self.waiting.next_at() else {
            let news = self.news.recv().await?;
            self.waiting.take(news, Instant::now());
            return self.pause(SETTLE).await;
        };
        let now = Instant::now();
        if at > now {
            return self.pause(at - now).await;
        }
        if !self.lease.acquire().await {
            return self.pause(AWAY).await;
        }
        let turn = Instant::now();
        while turn.elapsed() < TURN
            && let Some((key, due)) = self.waiting.pop(Instant::now())
        {
            let pause = match self.write(&key, due.is_too_much).await {
                Ok(is_written) => {
                    self.waiting.went_well(is_written);
                    PAUSE
                }
                Err(error) => self.waiting.failed(key, due, &error, Instant::now()),
            };
            self.pause(pause).await?;
        }
        Some(())
    }

    /// Waits, and takes news meanwhile.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let end = Instant::now() + pause;
        while let Ok(news) = timeout_at(end, self.news.recv()).await {
            self.waiting.take(news?, Instant::now());
        }
        Some(())
    }

    /// Writes the status of a preset, unless it is gone or has one; returns whether it did.
    async fn write(&self, (namespace, name): &Key, is_too_much: bool) -> kube::Result<bool> {
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
        let Some(object) = api.get_opt(name).await?.filter(|object| Said::of(object).is_news(is_too_much))
        else {
            return Ok(false);
        };
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
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            // Gone, or a CRD without status.
            Err(kube::Error::Api(status)) if status.code == 404 && api.get_opt(name).await?.is_none() => {
                Ok(false)
            }
            written => written.map(|_| true),
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn take(&mut self, Seen { key, is_too_much, is_news }: Seen, now: Instant) {
        if is_news {
            self.presets.insert(key, Due { is_too_much, at: now, failures: 0 });
        } else {
            self.presets.remove(&key);
        }
    }

    /// When there is something to do.
    fn next_at(&self) -> Option<Instant> {
        self.presets.values().map(|due| due.at).min()
    }

    /// One that is due.
    fn pop(&mut self, now: Instant) -> Option<(Key, Due)> {
        let key = self.presets.iter().find(|(_, due)| due.at <= now)?.0.clone();
        self.presets.remove_entry(&key)
    }

    fn went_well(&mut self, is_written: bool) {
        if is_written {
            self.in_a_row.clear();
            self.is_written = true;
        }
    }

    /// Sets a preset aside; returns how long to leave the others alone.
    fn failed(&mut self, key: Key, due: Due, error: &kube::Error, now: Instant) -> Duration {
        let failure = Failure::of(error);
        let failures = due.failures + 1;
        let is_refused = failure == Failure::Refused;
        if is_refused != self.is_refused {
            self.is_refused = is_refused;
            self.in_a_row.clear();
        }
        if self.in_a_row.len() < IN_A_ROW {
            self.in_a_row.insert(key.clone());
        }
        let wait = if is_refused { LONG } else { LONG.min(AWAY * (1 << (failures - 1).min(10))) };
        if failure == Failure::Invalid && failures >= ATTEMPTS {
            debug!(namespace = %key.0, name = %key.1, error = %explain(error), "cannot write the status of a preset, leaving it until it changes");
        } else {
            debug!(namespace = %key.0, name = %key.1, error = %explain(error), "cannot write the status of a preset, retrying");
            self.presets.insert(key, Due { at: now + wait, failures, ..due });
        }
        let are_many = self.in_a_row.len() >= IN_A_ROW;
        // There may be fewer.
        let are_all = !self.is_written && self.presets.values().all(|due| due.at > now);
        if self.is_refused && !self.is_said && (are_many || are_all) {
            self.is_said = true;
            warn!(error = %explain(error), "cannot write the status of presets, going on without");
        }
        match (are_many, self.is_refused) {
            (true, true) => LONG,
            (true, false) => AWAY,
            (false, _) => PAUSE,
        }
    }
}

// === impl Failure ===

impl Failure {
    fn of(error: &kube::Error) -> Self {
        match error {
            // What is gone is no failure, so that a 404 is a CRD without status.
            kube::Error::Api(status) if matches!(status.code, 401 | 403..=405) => Self::Refused,
            kube::Error::Api(status)
                if matches!(status.code, 400..=499) && !matches!(status.code, 408 | 409 | 429) =>
            {
                Self::Invalid
            }
            _ => Self::Passing,
        }
    }
}

// === impl Said ===

impl Said {
    pub fn of(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let observed = status["observedGeneration"].as_i64();
        let conditions = status["conditions"].as_array().into_iter().flatten();
        Self {
            is_old: observed.is_none() || observed != object.meta().generation,
            is_too_much: conditions.into_iter().any(|known| known["reason"] == TOO_MUCH),
        }
    }

    /// Whether there is something else to say. Other presets of the namespace, too, decide whether one is too much.
    pub fn is_news(self, is_too_much: bool) -> bool {
        self.is_old || self.is_too_much != is_too_much
    }
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
                "it is left out: the presets of its namespace have more than {MAX_WEIGHT} bytes together; make it or older ones smaller, or delete some"
            );
            (false, TOO_MUCH, message)
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
    use hyper::{Request, Response};
    use kube::client::Body;
    use kube::core::Status;

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
    fn a_status_of_another_generation_or_that_is_not_true_is_news() {
        let env = json!([{"name": "no_proxy", "value": ".svc"}]);
        let is_news = |object: &DynamicObject, is_too_much| Said::of(object).is_news(is_too_much);
        assert!(is_news(&object(1, &env, &Value::Null), false));
        assert!(!is_news(&object(1, &env, &json!({"observedGeneration": 1})), false));
        assert!(is_news(&object(2, &env, &json!({"observedGeneration": 1})), false));
        for is_too_much in [false, true] {
            let said = json!(status(&object(1, &env, &Value::Null), is_too_much, &at(1)));
            assert!(!is_news(&object(1, &env, &said), is_too_much), "{said}");
            assert!(is_news(&object(1, &env, &said), !is_too_much), "{said}");
        }
    }

    fn seen(name: &str) -> Seen {
        Seen { key: ("".into(), name.into()), is_too_much: false, is_news: true }
    }

    fn refusal(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, ..Status::default() }))
    }

    /// Has what is due fail, each with its code, and says in which order and how long is waited after each.
    fn fail(waiting: &mut Waiting, now: Instant, code: impl Fn(&str) -> u16) -> Vec<(String, Duration)> {
        let mut failed = Vec::new();
        while let Some((key, due)) = waiting.pop(now) {
            let name = key.1.to_string();
            let pause = waiting.failed(key, due, &refusal(code(&name)), now);
            failed.push((name, pause));
        }
        failed
    }

    fn waiting(names: &[&str], now: Instant) -> Waiting {
        let mut waiting = Waiting::default();
        for name in names {
            waiting.take(seen(name), now);
        }
        waiting
    }

    #[test]
    fn one_that_fails_waits_longer_each_time_and_the_others_do_not() {
        let mut now = Instant::now();
        let mut waiting = waiting(&["a", "b"], now);
        let (key, due) = waiting.pop(now).unwrap();
        assert_eq!((&*key.1, waiting.failed(key.clone(), due, &refusal(500), now)), ("a", PAUSE));
        assert_eq!(&*waiting.pop(now).unwrap().0.1, "b");
        waiting.went_well(true);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = waiting.next_at().unwrap();
            waits.push((next - now).as_secs());
            now = next;
            assert_eq!(fail(&mut waiting, now, |_| 500), [("a".to_owned(), PAUSE)]);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        // It has changed.
        waiting.take(seen("a"), now);
        assert_eq!(waiting.next_at(), Some(now));
        waiting.take(Seen { is_news: false, ..seen("a") }, now);
        assert_eq!(waiting.next_at(), None);
    }

    #[test]
    fn a_status_that_is_not_taken_is_left_until_its_preset_changes() {
        let mut now = Instant::now();
        for (code, attempts) in [(422, 3), (400, 3), (409, 9), (429, 9), (500, 9)] {
            let mut waiting = waiting(&["a"], now);
            for attempt in 0..attempts {
                now = waiting.next_at().unwrap_or_else(|| panic!("{code} after {attempt}"));
                fail(&mut waiting, now, |_| code);
            }
            assert_eq!(waiting.next_at().is_none(), attempts == 3, "{code}");
        }
    }

    #[test]
    fn one_that_is_refused_is_set_aside_and_several_are_said_once_and_waited_for() {
        let now = Instant::now();
        let mut some = waiting(&["a", "b", "c", "d"], now);
        some.went_well(true);
        let refused = fail(&mut some, now, |name| if name == "b" { 500 } else { 403 });
        assert_eq!(refused.iter().map(|(_, pause)| *pause).collect::<Vec<_>>(), [PAUSE; 4]);
        assert!(!some.is_said);
        for code in [401, 403, 404, 405] {
            let mut all = waiting(&["a", "b", "c", "d"], now);
            let refused = fail(&mut all, now, |_| code);
            assert_eq!(
                refused.iter().map(|(_, pause)| *pause).collect::<Vec<_>>(),
                [PAUSE, PAUSE, LONG, LONG]
            );
            assert!(all.is_said, "{code}");
            assert_eq!(all.next_at(), Some(now + LONG), "none is given up");
        }
        // There is one preset, and nothing has ever been written.
        let mut one = waiting(&["a"], now);
        assert_eq!(fail(&mut one, now, |_| 403), [("a".to_owned(), PAUSE)]);
        assert!(one.is_said);
        // One alone keeps none waiting, however often it is refused.
        for turn in 1..5 {
            assert_eq!(fail(&mut one, now + LONG * turn, |_| 403), [("a".to_owned(), PAUSE)]);
        }
    }

    #[test]
    fn an_api_server_that_is_away_is_asked_now_and_then() {
        let now = Instant::now();
        let mut all = waiting(&["a", "b", "c", "d"], now);
        let failed = fail(&mut all, now, |_| 503);
        assert_eq!(failed.iter().map(|(_, pause)| *pause).collect::<Vec<_>>(), [PAUSE, PAUSE, AWAY, AWAY]);
    }

    #[tokio::test]
    async fn a_status_that_cannot_be_written_does_not_hold_up_the_others() {
        let (written, mut statuses) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let (code, body) = match (request.method().as_str(), path.rsplit('/').next()) {
                ("PATCH", _) if path.contains("/broken/") => (500, json!({})),
                ("PATCH", _) if path.contains("/denied/") => (403, json!({})),
                ("GET", Some(name)) if path.contains("/clusterpodpresets/") => {
                    let mut object = json!(object(1, &json!([{"name": "A"}]), &Value::Null));
                    object["metadata"]["name"] = name.into();
                    (200, object)
                }
                ("PATCH", _) => {
                    written.send(path.clone()).unwrap();
                    (200, json!(object(1, &json!([{"name": "A"}]), &Value::Null)))
                }
                // No Leases to be had.
                _ => (403, json!({})),
            };
            let reply = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async { Ok::<_, tower::BoxError>(reply.unwrap()) }
        });
        let client = Client::new(service, "default");
        let lease = Lease::new(&client, "default", "reach-status".into(), "me".into());
        let (writer, notes) = Writer::new(client, lease);
        for name in ["broken", "denied", "later"] {
            notes.note(seen(name));
        }
        let writer = tokio::spawn(writer.run());
        assert!(statuses.recv().await.unwrap().ends_with("/clusterpodpresets/later/status"));
        notes.note(seen("new"));
        assert!(statuses.recv().await.unwrap().ends_with("/clusterpodpresets/new/status"));
        writer.abort();
    }
}
