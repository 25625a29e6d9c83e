//! A Lease that is taken when there is something to do, and let go by itself.
//!
//! Work behind it has to be right without it (here: optimistic locking); it only keeps replicas from doing
//! the same at the same time. So nothing is renewed while there is nothing to do, and when Leases cannot be
//! had at all, the work is done anyway.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{debug, warn};

/// How long a holder is believed after its last sign of life.
const DURATION: Duration = Duration::from_secs(30);

/// A Lease (coordination.k8s.io/v1), by name.
pub struct Lease {
    api: Api<LeaseObject>,
    name: String,
    holder: String,
    /// The version seen last and since when: the clock of the holder may be wrong, so its lease has run out
    /// when it has not changed for as long as it says, by our own clock.
    seen: Option<(String, Instant)>,
}

// === impl Lease ===

impl Lease {
    /// A lease of this name, to be held as `holder`, which has to be unique among replicas.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, name: String, holder: String) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), name, holder, seen: None }
    }

    /// Whether to go on: it is held from now on for 30 s, or there are no leases to be had.
    pub async fn acquire(&mut self) -> bool {
        match self.try_acquire().await {
            Ok(held) => held,
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => {
                warn!(lease = self.name, error = %crate::api_server::explain(&error), "cannot take the lease, going on without");
                true
            }
        }
    }

    async fn try_acquire(&mut self) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let spec = |acquired: MicroTime, transitions| LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions),
            preferred_holder: None,
            strategy: None,
        };
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = LeaseObject {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(spec(now.clone(), 0)),
            };
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let old = lease.spec.take().unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or_default();
        if old.holder_identity.as_ref() == Some(&self.holder) {
            lease.spec = Some(spec(old.acquire_time.unwrap_or_else(|| now.clone()), transitions));
        } else {
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match &self.seen {
                Some((seen, since)) if *seen == version => *since,
                _ => {
                    let since = Instant::now();
                    self.seen = Some((version, since));
                    since
                }
            };
            let held = old
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or_default();
            let is_free = old.holder_identity.as_ref().is_none_or(String::is_empty);
            if !is_free && since.elapsed() < Duration::from_secs(held) {
                debug!(lease = self.name, holder = old.holder_identity, "somebody else holds the lease");
                return Ok(false);
            }
            lease.spec = Some(spec(now.clone(), transitions + 1));
        }
        // With the version that was read, so that only one of several gets it.
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(true)
    }
}
