//! Presets from a cluster: watches of both kinds and of namespaces, feeding one snapshot, and of what
//! `noProxyFrom` of presets asks for.
//!
//! Objects are kept only in compiled form. A malformed one is left out and reported; it never stalls the
//! watch. While the API server is away, the last snapshot serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::ready;
use futures::stream::StreamExt;
use kube::Client;
use kube::runtime::watcher::{self, Event};
use tokio::time::{interval, timeout};

use self::source::{CALM, Change, Failures, Source, changes, explain};
use self::state::State;
use self::status::Notes;
use super::Presets;
use super::network::Facts;
use super::sources::{Sources, Watched};
use crate::api_server;
use crate::inject::snapshot::Snapshot;
use crate::telemetry::PresetMetrics;

mod room;
pub(crate) mod source;
mod state;
pub mod status;
mod store;

/// Changes that are ready together become one snapshot.
const BATCH: usize = 1024;
/// Presets that are read between two snapshots, and how long one may take: changes wait for it.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// What is read once.
#[derive(Debug)]
pub struct Loaded {
    /// Presets, namespaces and what `noProxyFrom` asks for.
    pub snapshot: Snapshot,
    /// What a person should know of it.
    pub warnings: Vec<String>,
}

/// Watches the cluster and publishes a snapshot after every change; runs until it is dropped. `notes` are for whoever
/// writes the status of presets.
pub async fn watch(
    client: Client,
    presets: Arc<Presets>,
    sources: Sources,
    metrics: PresetMetrics,
    notes: Option<Notes>,
) {
    let watched = [&Source::PRESETS[..], &Source::watched(&sources.watched)].concat();
    let mut changes = changes(&client, &watched).ready_chunks(BATCH);
    let mut state = State::new(sources);
    state.await_sources(&watched);
    let mut failures = Failures::default();
    let mut refused = BTreeSet::new();
    let mut look = interval(CALM / 4);
    let mut is_away = false;
    loop {
        let batch = tokio::select! {
            batch = changes.next() => match batch {
                Some(batch) => batch,
                None => return,
            },
            _ = look.tick() => {
                is_away = false;
                Vec::new()
            }
            () = ready(()), if !is_away && !state.namespaced.is_complete() => Vec::new(),
        };
        for Change { source, event } in batch {
            // Comes before each attempt, and says nothing of how it goes.
            if let Ok(Event::Init) = event {
                state.apply(source, Event::Init);
                continue;
            }
            let is_refused = event.as_ref().is_err_and(|error| source.is_refused(error));
            failures.note(source, event.is_err() && !is_refused, Instant::now());
            match event {
                Ok(event) => {
                    if refused.remove(&source) {
                        metrics.sources.refused(source.name(), false);
                    }
                    state.apply(source, event);
                }
                // It is asked again and again, and said once.
                Err(error) if is_refused => {
                    if refused.insert(source) {
                        metrics.sources.refused(source.name(), true);
                        tracing::warn!(what = source.name(), error = %explain(source, &error), "cannot watch for entries of no_proxy, going on without");
                    }
                    state.refused(source);
                }
                Err(error) => {
                    tracing::warn!(what = source.name(), error = %explain(source, &error), "watch interrupted, retrying; the last presets stay");
                }
            }
        }
        state.weigh();
        if !is_away && let Err(error) = read_wanted(&client, &mut state).await {
            is_away = true;
            tracing::warn!(error = %api_server::explain(&error), "cannot read presets for which there is room again, retrying");
        }
        state.tell_of_presets(|seen| {
            if let Some(notes) = &notes {
                notes.note(seen);
            }
        });
        metrics.stale.set(i64::from(failures.any(Instant::now())));
        let snapshot = state.snapshot();
        state.tell(&metrics);
        if let Some(snapshot) = snapshot {
            metrics.changed_now();
            presets.publish(snapshot);
        }
    }
}

/// Reads the presets and namespaces of a cluster once, and what those presets ask for.
///
/// # Errors
/// If the API server cannot be reached or refuses.
pub async fn load(client: &Client, given: Facts) -> Result<Loaded, watcher::Error> {
    let mut state = State::new(Sources { watched: Vec::new(), given: given.clone() });
    let mut warnings = read(client, &Source::PRESETS, &mut state).await?;
    state.weigh();
    while !state.namespaced.is_complete() {
        read_wanted(client, &mut state).await.map_err(watcher::Error::InitialListFailed)?;
    }
    let mut snapshot = state.snapshot().unwrap_or_default();
    if !state.asked.is_empty() {
        let watched: Vec<Watched> = state.asked.iter().copied().map(Watched::of).collect();
        warnings.extend(read(client, &Source::watched(&watched), &mut state).await?);
        state.set_sources(Sources { watched, given });
        snapshot = state.snapshot().unwrap_or_default();
    }
    let invalid = state.invalid().into_iter();
    warnings.extend(invalid.map(|name| format!("preset {name} cannot be used and is left out")));
    warnings.extend(state.warnings());
    Ok(Loaded { snapshot, warnings })
}

/// Reads until each of these has said what there is; returns what is refused.
async fn read(client: &Client, sources: &[Source], state: &mut State) -> Result<Vec<String>, watcher::Error> {
    let mut changes = changes(client, sources);
    state.await_sources(sources);
    let mut refused = Vec::new();
    while !state.synced() {
        match changes.next().await {
            Some(Change { source, event: Ok(event) }) => state.apply(source, event),
            Some(Change { source, event: Err(error) }) if source.is_refused(&error) => {
                refused.push(format!(
                    "no entries of no_proxy from {}: {}",
                    source.name(),
                    explain(source, &error)
                ));
                state.refused(source);
            }
            Some(Change { event: Err(error), .. }) => return Err(error),
            None => break,
        }
    }
    Ok(refused)
}

/// Reads some presets for which there is room, and of which nothing was kept while there was none. No change is taken meanwhile, so
/// that what is read is never older than what is known, and the watch has all that comes after it.
async fn read_wanted(client: &Client, state: &mut State) -> kube::Result<()> {
    for key in state.namespaced.wanted(AT_ONCE) {
        let read = timeout(PATIENCE, source::read(client, &key)).await;
        match read.map_err(|error| kube::Error::Service(error.into()))?? {
            Some(item) => state.apply(Source::Namespaced, Event::Apply(item)),
            None => state.namespaced.is_gone(&key),
        }
    }
    state.weigh();
    Ok(())
}

#[cfg(test)]
mod tests {
    use hyper::{Request, Response};
    use kube::client::Body;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    /// An API server that lists two PodPresets for which there is no room together, and has the second one by name; and then tells
    /// that the first one is gone.
    fn reply(path: &str, query: &str) -> String {
        let preset = |name: &str, second: u32| {
            let env: Vec<_> = (0..40)
                .map(|number| json!({"name": format!("V{number}"), "value": "x".repeat(16_000)}))
                .collect();
            json!({
                "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset",
                "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1", "creationTimestamp": format!("2026-01-01T00:00:0{second}Z")},
                "spec": {"env": env},
            })
        };
        let is_watch = query.contains("watch=");
        match path.rsplit('/').next().unwrap_or_default() {
            "second" => preset("second", 2).to_string(),
            "podpresets" if query.contains("sendInitialEvents") => {
                let event = |kind: &str, object: serde_json::Value| {
                    json!({"type": kind, "object": object}).to_string()
                };
                let end = json!({
                    "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset",
                    "metadata": {"name": "", "resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}},
                });
                [
                    event("ADDED", preset("second", 2)),
                    event("ADDED", preset("first", 1)),
                    event("BOOKMARK", end),
                    event("DELETED", preset("first", 1)),
                ]
                .join("\n")
                    + "\n"
            }
            _ if is_watch => String::new(),
            "namespaces" => {
                let shop = json!({"metadata": {"name": "shop"}});
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": [shop]}).to_string()
            }
            _ => {
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})
                    .to_string()
            }
        }
    }

    #[tokio::test]
    async fn a_preset_for_which_there_is_room_again_is_read_and_used() {
        let service = tower::service_fn(move |request: Request<Body>| {
            let reply = reply(request.uri().path(), request.uri().query().unwrap_or_default());
            async { Ok::<_, tower::BoxError>(Response::new(Body::from(reply.into_bytes()))) }
        });
        let presets = Arc::new(Presets::default());
        let mut changes = presets.changes();
        let metrics = PresetMetrics::register(&mut Registry::default());
        let client = Client::new(service, "default");
        let watch = tokio::spawn(watch(client, Arc::clone(&presets), Sources::default(), metrics, None));
        loop {
            changes.changed().await.unwrap();
            let snapshot = presets.current().unwrap();
            assert_eq!(snapshot.counts(), (0, 1));
            if format!("{:?}", snapshot.namespace("shop")).contains("PodPreset/second@") {
                break;
            }
        }
        watch.abort();
    }
}
