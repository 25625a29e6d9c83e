//! The request to shut down, and how it reaches those it concerns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The request to shut down without losing a request.
///
/// Clones are the same request, so that one handle may be given to several servers. Dropping a
/// handle does nothing.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Latch>);

/// A switch that is thrown once and stays thrown.
#[derive(Debug, Default)]
pub(super) struct Latch {
    thrown: AtomicBool,
    waiting: Notify,
}

// === impl Drain ===

impl Drain {
    /// Asks every server that has this handle to drain. Asking again changes nothing.
    pub fn start(&self) {
        self.0.set();
    }

    /// Whether [`Drain::start`] has been called.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.0.is_set()
    }

    /// Waits for [`Drain::start`].
    pub async fn started(&self) {
        self.0.wait().await;
    }
}

// === impl Latch ===

impl Latch {
    pub(super) fn set(&self) {
        self.thrown.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    pub(super) fn is_set(&self) -> bool {
        self.thrown.load(Ordering::Acquire)
    }

    pub(super) async fn wait(&self) {
        // Made before the look at the switch: `notify_waiters` reaches whoever exists by then,
        // polled or not, so a switch thrown between the two lines is not missed.
        let thrown = self.waiting.notified();
        if !self.is_set() {
            thrown.await;
        }
    }
}
