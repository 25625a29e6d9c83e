//! Where presets come from, as one immutable snapshot.
//!
//! A source ([`directory`] or [`cluster`]) publishes a new [`Snapshot`] on every change; reviews read
//! the current one without a lock. Whatever happens to a source, the last good snapshot stays.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::inject::snapshot::Snapshot;

pub mod cluster;
pub mod directory;
pub mod network; // ClusterNetwork, Nodes
pub mod services; // Services, AllServices
pub mod sources; // what noProxyFrom asks for and gets

/// The current snapshot, and news of a next one.
#[derive(Debug)]
pub struct Presets {
    current: ArcSwapOption<Snapshot>,
    changes: watch::Sender<()>,
}

impl Default for Presets {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), changes: watch::Sender::new(()) }
    }
}

impl Presets {
    /// The current snapshot; `None` until a source has published its first one.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        let current = self.current.load();
        current.is_some().then_some(Current(current))
    }

    /// Takes over a snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Some(Arc::new(snapshot)));
        self.changes.send_replace(());
    }

    /// Whether a source has published.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// News of snapshots published from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// The snapshot that was current when a review began.
#[derive(Debug)]
pub struct Current(arc_swap::Guard<Option<Arc<Snapshot>>>);

impl std::ops::Deref for Current {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        // `Presets::current` makes it only of a snapshot.
        self.0.as_deref().expect("there is a snapshot")
    }
}
