//! Keeps `caBundle` in the `MutatingWebhookConfiguration` right, and knows what API servers trust.
//!
//! reach writes `clientConfig.caBundle` of the webhooks that call its Service, and nothing else: it never
//! creates the configuration, and no other field is its business. What has to be trusted is united with
//! what is trusted already; only what has expired or cannot be read goes. So replicas with different
//! views of the world, and a change from one source of certificates to another, cannot take a CA away that
//! somebody still serves with.
//!
//! [`Live`] is the other half: the bundle as it is, and since when. New certificates are taken into use only
//! once API servers have had time to learn their CA ([`Trust`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::api_server::{LONGEST_WAIT, Waits, explain};
use crate::certs::authority::pem;
use crate::certs::managed::ATTEMPTS;
use crate::certs::{CertResolver, Complaint, moment};

/// Who reach is in `managedFields`.
pub(crate) const FIELD_MANAGER: &str = "reach";
/// How often the bundle is looked at without being told: certificates expire silently, and a write may have had to
/// wait.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the API server may take for a write. Without a bound, one that takes the request and never answers would keep
/// the bundle from being looked at.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Most certificates in a bundle. What reach needs itself are three at most.
const MAX_BUNDLE: usize = 16;
/// The pause between two writes. After a few it doubles with each: somebody else may be putting back what reach
/// writes.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How many writes follow each other at the shortest pause: a rotation takes two, and a person who breaks and mends
/// the bundle a few.
const PATIENCE: u32 = 8;
/// After so long without a write all is forgotten.
const CALM: Duration = Duration::from_mins(10);

/// Which configuration, and what in it is ours.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of the `MutatingWebhookConfiguration`.
    pub configuration: String,
    /// Namespace and name of the Service that our webhooks are called at.
    pub service: (String, String),
}

/// Who writes the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CaBundle {
    /// reach does.
    Keep,
    /// Somebody else does, for instance cert-manager's CA injector; reach only looks.
    Check,
}

/// The CA bundle of our webhooks as API servers have it.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Whether the configuration exists; `None` before it has been looked for.
    exists: Option<bool>,
    /// The certificates in it, and since when each has been.
    bundle: HashMap<CertificateDer<'static>, Instant>,
}

/// What API servers trust, as seen by what serves and by the admin port.
#[derive(Clone, Debug)]
pub struct Trust {
    live: watch::Receiver<Live>,
    configuration: Arc<str>,
    name: ServerName<'static>,
    /// How long a CA has to have been in the bundle before something is served that needs it.
    propagation: Duration,
    was_ready: Arc<AtomicBool>,
}

/// Metrics of the registration. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct RegistrationMetrics {
    writes: Counter,
    failures: Counter,
    trusted: Gauge,
}

/// Paces writes of what somebody else may be writing, too.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
    /// Writes that followed each other.
    streak: u32,
    /// The last attempt that failed, until one succeeds, and how many have failed since.
    failed: Option<Instant>,
    failures: u32,
}

/// Watches the configuration and, with [`CaBundle::Keep`], writes the bundle; runs until it is dropped.
///
/// `needed` are the CA certificates that have to be in it.
pub struct Keeper {
    api: Api<MutatingWebhookConfiguration>,
    registration: Registration,
    mode: CaBundle,
    needed: watch::Receiver<Vec<CertificateDer<'static>>>,
    live: watch::Sender<Live>,
    metrics: RegistrationMetrics,
    pace: Pace,
}

// === impl Keeper ===

impl Keeper {
    /// A keeper that tells `live` what it learns.
    #[must_use]
    pub fn new(
        client: Client,
        registration: Registration,
        mode: CaBundle,
        needed: watch::Receiver<Vec<CertificateDer<'static>>>,
        live: watch::Sender<Live>,
        metrics: RegistrationMetrics,
    ) -> Self {
        Self { api: Api::all(client), registration, mode, needed, live, metrics, pace: Pace::default() }
    }

    /// Runs until it is dropped. `resolver` is only asked whether its certificate is trusted, for the metric.
    pub async fn run(mut self, resolver: Arc<CertResolver>, trust: Trust) {
        let mut events = watcher::watch_object(self.api.clone(), &self.registration.configuration)
            .backoff(Waits::default())
            .boxed();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut current: Option<MutatingWebhookConfiguration> = None;
        let mut known = false;
        let (mut of_watch, mut of_write) = (Complaint::default(), Complaint::default());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(configuration)) => {
                        of_watch.news(Ok(()));
                        (current, known) = (configuration, true);
                    }
                    Some(Err(error)) => {
                        if let Some(error) = of_watch.news(Err(explain(&error))) {
                            warn!(error, "cannot watch the webhook configuration, retrying");
                        }
                        continue;
                    }
                    None => return,
                },
                Ok(()) = self.needed.changed() => {}
                _ = look.tick() => {}
            }
            if !known {
                continue;
            }
            self.learn(current.as_ref());
            // Somebody who keeps writing there for other reasons must not keep the bundle from being right.
            for _ in 0..ATTEMPTS {
                let Some(configuration) = &current else { break };
                let Some(bundle) = self.due(configuration) else { break };
                let written = self.write(configuration, &bundle).await;
                let is_overtaken = matches!(written, Ok(None));
                match &written {
                    Ok(Some(written)) => {
                        self.pace.wrote(Instant::now());
                        self.metrics.writes.inc();
                        info!(
                            configuration = self.registration.configuration,
                            certificates = bundle.len(),
                            "caBundle written"
                        );
                        self.learn(Some(written));
                        current = Some(written.clone());
                    }
                    Ok(None) => {}
                    Err(_) => {
                        self.pace.failed(Instant::now());
                        self.metrics.failures.inc();
                    }
                }
                if let Some(error) = of_write.news(written.map(drop)) {
                    let configuration = &self.registration.configuration;
                    warn!(configuration, error, "cannot write caBundle, retrying");
                }
                if !is_overtaken {
                    break;
                }
                // What they wrote. If it cannot be had, the watch brings it.
                match timeout(ANSWER_WITHIN, self.api.get_opt(&self.registration.configuration)).await {
                    Ok(Ok(theirs)) => current = theirs,
                    Ok(Err(_)) | Err(_) => break,
                }
                self.learn(current.as_ref());
            }
            let trusted = resolver.current().is_some_and(|served| trust.vouches_for(served.chain()));
            self.metrics.trusted.set(i64::from(trusted));
        }
    }

    fn ours<'c>(
        &self,
        configuration: &'c MutatingWebhookConfiguration,
    ) -> impl Iterator<Item = &'c MutatingWebhook> {
        let (namespace, name) = self.registration.service.clone();
        configuration.webhooks.iter().flatten().filter(move |webhook| {
            let service = webhook.client_config.service.as_ref();
            service.is_some_and(|service| service.namespace == namespace && service.name == name)
        })
    }

    /// Publishes what is in the bundle of all our webhooks.
    fn learn(&self, configuration: Option<&MutatingWebhookConfiguration>) {
        let mut common: Option<Vec<CertificateDer<'static>>> = None;
        for webhook in configuration.into_iter().flat_map(|configuration| self.ours(configuration)) {
            let (bundle, _) = read_bundle(webhook);
            common = Some(match common {
                None => bundle,
                Some(common) => common.into_iter().filter(|known| bundle.contains(known)).collect(),
            });
        }
        let now = Instant::now();
        self.live.send_if_modified(|live| {
            let exists = Some(common.is_some());
            let common = common.unwrap_or_default();
            let same = live.exists == exists
                && live.bundle.len() == common.len()
                && common.iter().all(|known| live.bundle.contains_key(known));
            if !same {
                let since = |known: &CertificateDer<'static>| live.bundle.get(known).copied().unwrap_or(now);
                let bundle = common.into_iter().map(|known| (known.clone(), since(&known))).collect();
                *live = Live { exists, bundle };
            }
            !same
        });
    }

    /// The bundle to write now, if any.
    fn due(&mut self, configuration: &MutatingWebhookConfiguration) -> Option<Vec<CertificateDer<'static>>> {
        let needed = self.needed.borrow_and_update().clone();
        if self.mode == CaBundle::Check || needed.is_empty() {
            return None;
        }
        let now = SystemTime::now();
        let bundles: Vec<_> = self.ours(configuration).map(read_bundle).collect();
        let wanted = unite(&needed, bundles.iter().flat_map(|(bundle, _)| bundle), now);
        let right = bundles.iter().all(|(bundle, clean)| {
            *clean
                && bundle.len() == wanted.len()
                && wanted.iter().all(|certificate| bundle.contains(certificate))
        });
        (!right && !wanted.is_empty() && self.pace.allows(Instant::now())).then_some(wanted)
    }

    /// Writes the bundle; `None` when somebody has changed the configuration meanwhile.
    async fn write(
        &self,
        configuration: &MutatingWebhookConfiguration,
        bundle: &[CertificateDer<'static>],
    ) -> Result<Option<MutatingWebhookConfiguration>, String> {
        let bundle = ByteString(bundle.iter().map(pem).collect::<String>().into_bytes());
        let webhooks: Vec<_> = self
            .ours(configuration)
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        // With the resource version, the object has to be the one that was looked at: an apply creates
        // nothing, and overwrites nothing that has not been read.
        let apply = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {
                "name": self.registration.configuration,
                "resourceVersion": configuration.metadata.resource_version,
            },
            "webhooks": webhooks,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let apply = Patch::Apply(apply);
        let write = self.api.patch(&self.registration.configuration, &parameters, &apply);
        match timeout(ANSWER_WITHIN, write).await {
            Ok(Ok(written)) => Ok(Some(written)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err("no answer from the API server".to_owned()),
        }
    }
}

/// The certificates of a webhook's bundle, and whether there is nothing else in it.
fn read_bundle(webhook: &MutatingWebhook) -> (Vec<CertificateDer<'static>>, bool) {
    let Some(ByteString(text)) = &webhook.client_config.ca_bundle else {
        return (Vec::new(), true);
    };
    let mut clean = true;
    let mut bundle: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        match certificate {
            Ok(certificate)
                if X509Certificate::from_der(&certificate).is_ok() && !bundle.contains(&certificate) =>
            {
                bundle.push(certificate);
            }
            _ => clean = false,
        }
    }
    // A text without any PEM block is not clean either.
    let clean = clean && (text.is_empty() || !bundle.is_empty());
    (bundle, clean)
}

/// What has to be in the bundle, then what is, as far as it has not expired.
fn unite<'c>(
    needed: &'c [CertificateDer<'static>],
    present: impl Iterator<Item = &'c CertificateDer<'static>>,
    now: SystemTime,
) -> Vec<CertificateDer<'static>> {
    let mut united: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in needed.iter().chain(present) {
        let alive = X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| now <= moment(certificate.validity().not_after));
        if alive && united.len() < MAX_BUNDLE && !united.contains(certificate) {
            united.push(certificate.clone());
        }
    }
    united
}

// === impl Pace ===

impl Pace {
    /// Whether to write now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let is_over = |since: Option<Instant>, doublings: u32, longest: Duration| {
            let pause = (SHORTEST_PAUSE * 2_u32.pow(doublings.min(16))).min(longest);
            since.is_none_or(|since| now.saturating_duration_since(since) >= pause)
        };
        is_over(self.last, self.streak.saturating_sub(PATIENCE), LONGEST_PAUSE)
            && is_over(self.failed, self.failures.saturating_sub(1), LONGEST_WAIT)
    }

    /// Takes account of a write.
    pub(crate) fn wrote(&mut self, now: Instant) {
        let is_calm = self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.streak = if is_calm { 1 } else { self.streak.saturating_add(1) };
        self.last = Some(now);
        (self.failed, self.failures) = (None, 0);
    }

    /// Takes account of an attempt that failed. Nobody can be putting back what was not written, and a replica that waits to
    /// be trusted must not go on waiting when the API server is well again.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(now);
    }
}

// === impl Trust ===

impl Trust {
    /// Trust in certificates for this DNS name, as told by a keeper.
    #[must_use]
    pub fn new(
        live: watch::Receiver<Live>,
        configuration: &str,
        name: ServerName<'static>,
        propagation: Duration,
    ) -> Self {
        Self { live, configuration: configuration.into(), name, propagation, was_ready: Arc::default() }
    }

    /// Waits until the bundle has changed: forever, when nobody tells or the keeper is gone.
    pub async fn changed_in(trust: &mut Option<Self>) {
        let changed = match trust {
            Some(trust) => trust.live.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }

    /// How long API servers get to learn a CA.
    #[must_use]
    pub fn propagation(&self) -> Duration {
        self.propagation
    }

    /// Whether the bundle, as it is now, vouches for this chain.
    #[must_use]
    pub fn vouches_for(&self, chain: &[CertificateDer<'static>]) -> bool {
        self.trusts(chain, Duration::ZERO)
    }

    /// Whether this CA certificate is in the bundle.
    #[must_use]
    pub fn knows_ca(&self, certificate: &CertificateDer<'static>) -> bool {
        self.live.borrow().bundle.contains_key(certificate)
    }

    /// Whether API servers have had the time to learn what makes them accept this chain.
    #[must_use]
    pub fn has_spread(&self, chain: &[CertificateDer<'static>]) -> bool {
        self.trusts(chain, self.propagation)
    }

    /// Whether this CA certificate has been in the bundle for long enough.
    #[must_use]
    pub fn ca_has_spread(&self, certificate: &CertificateDer<'static>) -> bool {
        let live = self.live.borrow();
        live.bundle.get(certificate).is_some_and(|since| since.elapsed() >= self.propagation)
    }

    /// Whether the bundle, as far as it is this old, vouches for a chain: verified as an API server does it.
    fn trusts(&self, chain: &[CertificateDer<'static>], age: Duration) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        let mut roots = RootCertStore::empty();
        for (certificate, since) in &self.live.borrow().bundle {
            if since.elapsed() >= age {
                // What cannot be a trust anchor vouches for nothing.
                let _ = roots.add(certificate.clone());
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().is_ok_and(|verifier| {
            verifier.verify_server_cert(leaf, intermediates, &self.name, &[], UnixTime::now()).is_ok()
        })
    }

    /// What keeps API servers from calling, until they could for the first time; after that, nothing: an
    /// API server that is away must not take the last replica that answers out of service.
    #[must_use]
    pub fn missing(&self, resolver: &CertResolver) -> Option<String> {
        if self.was_ready.load(Ordering::Relaxed) {
            return None;
        }
        let configuration = &self.configuration;
        let exists = self.live.borrow().exists;
        match exists {
            None => return Some(format!("MutatingWebhookConfiguration {configuration}: not read yet")),
            Some(false) => {
                return Some(format!(
                    "MutatingWebhookConfiguration {configuration}: not found, or without a webhook for this Service"
                ));
            }
            Some(true) => {}
        }
        if !resolver.current().is_some_and(|served| self.vouches_for(served.chain())) {
            return Some(format!(
                "MutatingWebhookConfiguration {configuration}: its caBundle does not vouch for the serving certificate yet"
            ));
        }
        self.was_ready.store(true, Ordering::Relaxed);
        None
    }
}

// === impl RegistrationMetrics ===

impl RegistrationMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("ca_bundle_writes", "caBundle written, at start or healed", metrics.writes.clone());
        registry.register(
            "ca_bundle_write_failures",
            "Failures to write caBundle, conflicts not counted",
            metrics.failures.clone(),
        );
        registry.register(
            "ca_bundle_trusts_serving_certificate",
            "1 while the caBundle that API servers have vouches for the serving certificate",
            metrics.trusted.clone(),
        );
        metrics
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::certs::authority::Authority;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_writes_follow_each_other_and_then_ever_fewer() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let writes = |pace: &mut Pace, from: u32, to: u32| {
            let mut writes = 0;
            for second in from..to {
                let now = start + second * SECOND;
                if pace.allows(now) {
                    pace.wrote(now);
                    writes += 1;
                }
            }
            writes
        };
        assert_eq!(writes(&mut pace, 0, PATIENCE), PATIENCE, "one each second");
        assert_eq!(writes(&mut pace, PATIENCE, 60), 5, "after 1, 2, 4, 8 and 16 s more");
        let hour = writes(&mut pace, 60, 3660);
        assert!(hour <= 16, "{hour} within an hour");
        let calm = 3660 + 660;
        assert_eq!(writes(&mut pace, calm, calm + 5), 5, "after some rest all is forgotten");
    }

    #[test]
    fn a_write_that_fails_is_tried_again_within_seconds_however_often_it_has_failed() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..100 {
            pace.failed(now);
            let failed = now;
            while !pace.allows(now) {
                now += SECOND;
            }
            waits.push((now - failed).as_secs());
        }
        assert_eq!(waits[..6], [1, 2, 4, 5, 5, 5]);
        assert!(waits[6..].iter().all(|wait| *wait == 5), "{waits:?}");
        // One that succeeds is the first of its kind.
        pace.wrote(now);
        assert!(!pace.allows(now));
        assert!(pace.allows(now + SECOND));
        pace.failed(now + SECOND);
        assert!(pace.allows(now + 2 * SECOND));
    }

    #[test]
    fn failures_do_not_hurry_those_who_fight() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..PATIENCE + 4 {
            pace.wrote(now);
        }
        pace.failed(now);
        assert!(!pace.allows(now + 15 * SECOND));
        assert!(pace.allows(now + 16 * SECOND));
    }

    #[test]
    fn a_bundle_unites_what_is_needed_and_present_but_nothing_expired() {
        let now = SystemTime::now();
        let [needed, present, old] = [100, 100, 1]
            .map(|seconds| Authority::make(now, seconds * SECOND).unwrap().certificate().clone());
        let both = [needed.clone(), present.clone()];
        let later = now + 10 * SECOND;
        assert_eq!(unite(&both[..1], [&present, &old, &needed].into_iter(), later), both);
        // One replica may have learned later than another that a CA has gone from the Secret.
        assert_eq!(unite(&[needed.clone(), old], std::iter::once(&present), later), both);
    }

    #[test]
    fn a_bundle_is_bounded_and_what_is_needed_comes_first() {
        let now = SystemTime::now();
        let make = || Authority::make(now, 100 * SECOND).unwrap().certificate().clone();
        let (needed, present) = (make(), (0..30).map(|_| make()).collect::<Vec<_>>());
        let united = unite(std::slice::from_ref(&needed), present.iter(), now);
        assert_eq!(united.len(), MAX_BUNDLE);
        assert_eq!(united[0], needed);
    }
}
