//! Presets from a cluster: watches of both kinds and of namespaces, feeding one snapshot, and of what
//! `noProxyFrom` of presets asks for.
//!
//! Objects are kept only in compiled form. A malformed one is left out and reported; it never stalls the
//! watch. While the API server is away, the last snapshot serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::StreamExt;
use kube::Client;
use kube::runtime::watcher::{self, Event};
use tokio::time::interval;

use self::source::{CALM, Change, Failures, Item, Source, changes, explain};
use self::state::State;
use self::status::{Notes, Seen};
use super::Presets;
use super::network::Facts;
use super::sources::{Sources, Watched};
use crate::inject::snapshot::Snapshot;
use crate::telemetry::PresetMetrics;

pub(crate) mod source;
mod state;
pub mod status;
mod store;

/// Changes that are ready together become one snapshot.
const BATCH: usize = 1024;

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
    loop {
        let batch = tokio::select! {
            batch = changes.next() => match batch {
                Some(batch) => batch,
                None => return,
            },
            _ = look.tick() => Vec::new(),
        };
        for Change { source, event } in batch {
            // Comes before each attempt, and says nothing of how it goes.
            if let Ok(Event::Init) = event {
                state.apply(source, Event::Init);
                continue;
            }
            let is_refused = event.as_ref().is_err_and(|error| source.is_refused(error));
            failures.note(source, event.is_err() && !is_refused, Instant::now());
            let preset = match &event {
                Ok(
                    Event::Apply(Item::Preset { key, compiled, is_news })
                    | Event::InitApply(Item::Preset { key, compiled, is_news }),
                ) => notes.as_ref().map(|notes| (notes, key.clone(), compiled.is_ok(), *is_news)),
                _ => None,
            };
            match event {
                Ok(event) => {
                    if refused.remove(&source) {
                        metrics.sources.refused(source.name(), false);
                    }
                    state.apply(source, event);
                    if let Some((notes, key, is_valid, is_news)) = preset {
                        let is_too_much = is_valid && !state.uses(&key);
                        notes.note(Seen { key, is_too_much, is_news });
                    }
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
