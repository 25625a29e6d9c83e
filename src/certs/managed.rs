//! Self-managed certificates: a CA in a Secret that all replicas share, and a short-lived leaf in the memory
//! of each.
//!
//! The Secret is the only state. It is written with optimistic locking, so however many replicas start at
//! once there is one CA: the first to create it wins and the others adopt it. What is deleted or damaged is
//! put back by whoever notices, from memory.
//!
//! A CA is replaced in steps, each of them safe to be the last one for a while:
//! 1. After two thirds of its life a *next* CA is put beside the *current* one. [`crate::registration`] unites
//!    all of them in `caBundle`.
//! 2. Once the next CA has been in the bundle for long enough for every API server to have seen it, it
//!    becomes the current one. Replicas sign anew when they have seen the same for themselves.
//! 3. The previous CA, whose key is gone by then, stays in the bundle until it has expired, and with it the
//!    last leaf that it can have signed.
//!
//! Steps are taken by the holder of a Lease, so that replicas do not compete; the locking makes them right
//! without it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::authority::{Authority, pem, two_thirds};
use super::{CertError, CertMetrics, CertResolver, Complaint, Places, certificates, validity};
use crate::api_server::{Waits, explain};
use crate::lease::Lease;
use crate::registration::{FIELD_MANAGER, Pace, Trust};

/// Longest time between two looks at the clock. The wall clock, because timers stand still while a machine
/// is suspended.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// When what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// How often a write is tried anew at once when somebody else has written meanwhile. Not for long: a leaf may be due.
pub(crate) const ATTEMPTS: usize = 5;

/// How long the API server may take for what has to be written.
const PATIENCE: Duration = Duration::from_secs(20);

const CURRENT: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next-ca.crt", "next-ca.key");
const PREVIOUS: &str = "previous-ca.crt";
/// All keys of ours.
const KEYS: [&str; 5] = [CURRENT.0, CURRENT.1, NEXT.0, NEXT.1, PREVIOUS];

/// How self-managed certificates are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// DNS names of the leaf.
    pub names: Vec<String>,
    /// Life of a CA. A successor is made after two thirds of it.
    pub ca_lifetime: Duration,
    /// Life of a leaf. It is renewed after two thirds of it.
    pub leaf_lifetime: Duration,
}

/// The CAs of an installation, as the Secret holds them.
#[derive(Clone, Debug)]
pub struct Authorities {
    current: Arc<Authority>,
    next: Option<Arc<Authority>>,
    previous: Vec<CertificateDer<'static>>,
}

/// Keeps the Secret and the leaf.
pub struct Manager {
    settings: Settings,
    api: Api<Secret>,
    lease: Lease,
    trust: Option<Trust>,
    resolver: Arc<CertResolver>,
    needed: watch::Sender<Vec<CertificateDer<'static>>>,
    metrics: CertMetrics,
    stored: Stored,
    authorities: Option<Authorities>,
    leaf: Option<Leaf>,
    /// Of what is put back: somebody else may be putting something back, too.
    pace: Pace,
    complaint: Complaint,
}

/// The Secret as last seen.
#[derive(Clone)]
enum Stored {
    /// It has not been looked for yet, or may have changed since.
    Unknown,
    Absent,
    Present(Box<Secret>),
}

/// What signed the leaf being served, and when it is due.
struct Leaf {
    signer: Arc<Authority>,
    renew_at: SystemTime,
    valid: Range<SystemTime>,
}

// === impl Stored ===

impl Stored {
    /// What is ours in it; `None` when that is not known.
    fn authorities(&self) -> Option<Vec<Option<ByteString>>> {
        let secret = match self {
            Self::Unknown => return None,
            Self::Absent => None,
            Self::Present(secret) => Some(secret),
        };
        let data = secret.and_then(|secret| secret.data.as_ref());
        Some(KEYS.iter().map(|key| data.and_then(|data| data.get(*key).cloned())).collect())
    }
}

impl From<Option<Secret>> for Stored {
    fn from(secret: Option<Secret>) -> Self {
        secret.map_or(Self::Absent, |secret| Self::Present(Box::new(secret)))
    }
}

// === impl Authorities ===

impl Authorities {
    /// A first CA.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn make(now: SystemTime, lifetime: Duration) -> Result<Self, CertError> {
        let current = Arc::new(Authority::make(now, lifetime)?);
        Ok(Self { current, next: None, previous: Vec::new() })
    }

    /// Reads them from the data of a Secret. What is wrong with a CA beside the current one costs only that one.
    ///
    /// # Errors
    /// If there is no usable current CA. A next one takes its place when it has expired.
    pub fn read(secret: &Secret, place: &str, now: SystemTime) -> Result<Self, CertError> {
        let value = |key: &str| {
            let value =
                secret.data.as_ref().and_then(|data| data.get(key)).filter(|value| !value.0.is_empty());
            value
                .map(|value| value.0.as_slice())
                .ok_or_else(|| CertError::Missing { place: format!("{key} of {place}") })
        };
        let authority = |(certificate, key): (&str, &str)| {
            let places =
                Places { certificate: format!("{certificate} of {place}"), key: format!("{key} of {place}") };
            Authority::read(value(certificate)?, value(key)?, &places, now).map(Arc::new)
        };
        // Those that have expired, too: that they go is a step of its own.
        let previous = value(PREVIOUS).and_then(|pem| certificates(pem, PREVIOUS)).unwrap_or_default();
        let next = authority(NEXT).ok();
        match (authority(CURRENT), next) {
            (Ok(current), next) => Ok(Self { current, next, previous }),
            (Err(CertError::Expired { .. }), Some(next)) => Ok(Self { current: next, next: None, previous }),
            (Err(error), _) => Err(error),
        }
    }

    /// As the data of a Secret.
    fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: String| data.insert(key.to_owned(), ByteString(text.into_bytes()));
        put(CURRENT.0, self.current.pem());
        put(CURRENT.1, self.current.key_pem());
        if let Some(next) = &self.next {
            put(NEXT.0, next.pem());
            put(NEXT.1, next.key_pem());
        }
        if !self.previous.is_empty() {
            put(PREVIOUS, self.previous.iter().map(pem).collect());
        }
        data
    }

    /// The certificates that have to be trusted.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let own = std::iter::once(&self.current).chain(&self.next);
        own.map(|authority| authority.certificate().clone()).chain(self.previous.iter().cloned()).collect()
    }

    /// The next step of a rotation, if one is due. `spread` tells whether API servers know a CA.
    fn step(
        &self,
        now: SystemTime,
        lifetime: Duration,
        spread: impl Fn(&CertificateDer<'static>) -> bool,
    ) -> Result<Option<(&'static str, Self)>, CertError> {
        let expired = now >= self.current.not_after();
        if let Some(next) = &self.next {
            if !expired && !spread(next.certificate()) {
                return Ok(None);
            }
            let mut previous = self.previous.clone();
            previous.insert(0, self.current.certificate().clone());
            previous.retain(|certificate| validity(certificate, PREVIOUS, now).is_ok());
            let step = Self { current: Arc::clone(next), next: None, previous };
            return Ok(Some(("the next CA is the current one", step)));
        }
        if expired {
            // Nobody trusts what it signed any more, so there is nothing to wait for.
            let step = Self { previous: Vec::new(), ..Self::make(now, lifetime)? };
            return Ok(Some(("the CA had expired, there is a new one", step)));
        }
        if now >= self.current.renew_at() {
            let next = Some(Arc::new(Authority::make(now, lifetime)?));
            return Ok(Some(("a next CA", Self { next, ..self.clone() })));
        }
        let previous: Vec<_> = self
            .previous
            .iter()
            .filter(|certificate| validity(certificate, PREVIOUS, now).is_ok())
            .cloned()
            .collect();
        if previous.len() < self.previous.len() {
            return Ok(Some(("a previous CA has expired", Self { previous, ..self.clone() })));
        }
        Ok(None)
    }
}

// === impl Manager ===

impl Manager {
    /// A manager; the receiver tells which CAs have to be trusted.
    #[must_use]
    pub fn new(
        client: &Client,
        settings: Settings,
        lease: Lease,
        resolver: Arc<CertResolver>,
        metrics: CertMetrics,
    ) -> (Self, watch::Receiver<Vec<CertificateDer<'static>>>) {
        let (needed, receiver) = watch::channel(Vec::new());
        let manager = Self {
            api: Api::namespaced(client.clone(), &settings.namespace),
            settings,
            lease,
            trust: None,
            resolver,
            needed,
            metrics,
            stored: Stored::Unknown,
            authorities: None,
            leaf: None,
            pace: Pace::default(),
            complaint: Complaint::default(),
        };
        (manager, receiver)
    }

    /// Runs until it is dropped. With `trust`, a leaf of another CA is served only once API servers know that
    /// CA, and a rotation waits for the same.
    pub async fn run(mut self, trust: Option<Trust>) {
        self.trust = trust.clone();
        let mut trust_changes = trust;
        let mut events =
            watcher::watch_object(self.api.clone(), &self.settings.secret).backoff(Waits::default()).boxed();
        // Nobody tells that a CA has been in the bundle for long enough, nor that a leaf is due.
        let shortest = self.trust.as_ref().map_or(LOOK_EVERY, Trust::propagation);
        let every = LOOK_EVERY.min(self.settings.leaf_lifetime / 30).min(shortest);
        let every = every.max(Duration::from_millis(100));
        let mut look = interval(every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = Ok(());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(secret)) => {
                        self.stored = secret.into();
                        watched = Ok(());
                    }
                    Some(Err(error)) => {
                        watched = Err(format!("cannot watch the Secret of the CA: {}", explain(&error)));
                    }
                    None => return,
                },
                () = Trust::changed_in(&mut trust_changes) => {}
                _ = look.tick() => {}
            }
            let now = SystemTime::now();
            // What is cut off in the middle may have been written; then the watch brings it.
            let turned = match timeout(PATIENCE, self.turn(now)).await {
                Ok(turned) => turned,
                Err(_) => Err("no answer from the API server".to_owned()),
            };
            if turned.is_err() {
                // There may be nothing to serve yet, and nobody tells when it would work.
                look.reset_after(every.min(RETRY_AFTER));
            }
            // Even so: an API server that is away is no reason to let a leaf expire.
            let renewed = self.renew_leaf(now).map_err(|error| explain(&error));
            let look = turned.and(renewed).and(watched.clone());
            self.metrics.failing(look.is_err());
            if let Some(error) = self.complaint.news(look) {
                let secret = &self.settings.secret;
                warn!(secret, error, "trouble with the CA; what is served stays, retrying");
            }
        }
    }

    fn place(&self) -> String {
        format!("Secret {}/{}", self.settings.namespace, self.settings.secret)
    }

    /// Brings the Secret and the memory together, and takes a step of a rotation if one is due.
    async fn turn(&mut self, now: SystemTime) -> Result<(), String> {
        let read = match &self.stored {
            Stored::Unknown => return Ok(()),
            Stored::Present(secret) => Authorities::read(secret, &self.place(), now),
            Stored::Absent => Err(CertError::Missing { place: self.place() }),
        };
        match read {
            Ok(authorities) => self.adopt(authorities),
            // Put back a moment ago, and damaged again: it waits for a later look.
            Err(error) if !self.pace.allows(Instant::now()) => return Err(explain(&error)),
            Err(error) => {
                let from_memory = self.authorities.clone().filter(|known| known.current.is_valid(now));
                let (what, authorities) = if let Some(known) = from_memory {
                    ("put back from memory", known)
                } else {
                    let made = Authorities::make(now, self.settings.ca_lifetime);
                    ("new", made.map_err(|error| explain(&error))?)
                };
                if self.store(&authorities).await? {
                    info!(secret = self.place(), reason = %error, "CA {what}");
                    self.pace.wrote(Instant::now());
                    self.adopt(authorities);
                } else if let Stored::Present(secret) = &self.stored
                    && let Ok(theirs) = Authorities::read(secret, &self.place(), now)
                {
                    self.adopt(theirs);
                }
            }
        }
        let Some(authorities) = &self.authorities else {
            return Ok(());
        };
        let spread = |certificate: &CertificateDer<'static>| {
            self.trust.as_ref().is_none_or(|trust| trust.ca_has_spread(certificate))
        };
        let step =
            authorities.step(now, self.settings.ca_lifetime, spread).map_err(|error| explain(&error))?;
        if let Some((what, authorities)) = step
            && self.lease.acquire().await
            && self.store(&authorities).await?
        {
            info!(secret = self.place(), "CA rotation: {what}");
            self.adopt(authorities);
        }
        Ok(())
    }

    fn adopt(&mut self, authorities: Authorities) {
        self.metrics.ca(authorities.current.not_after());
        let certificates = authorities.certificates();
        self.needed.send_if_modified(|needed| {
            let changed = *needed != certificates;
            *needed = certificates;
            changed
        });
        self.authorities = Some(authorities);
    }

    /// Writes the Secret, unless somebody else has changed the CAs since they were seen; then it is known what they wrote, or
    /// the watch brings it. Somebody who keeps writing there for other reasons must not keep a CA from being replaced.
    async fn store(&mut self, authorities: &Authorities) -> Result<bool, String> {
        for _ in 0..ATTEMPTS {
            let seen = self.stored.authorities();
            match self.write(authorities).await {
                Ok(secret) => {
                    self.stored = Some(secret).into();
                    return Ok(true);
                }
                // 409: changed or created since. 404: deleted since.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    // What is in memory may be what the watch is about to bring; it says so itself.
                    self.stored =
                        self.api.get_opt(&self.settings.secret).await.map_or(Stored::Unknown, Stored::from);
                }
                Err(error) => return Err(format!("cannot write {}: {}", self.place(), explain(&error))),
            }
            if seen.is_none() || self.stored.authorities() != seen {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Writes the Secret as it was seen, with these CAs.
    async fn write(&self, authorities: &Authorities) -> kube::Result<Secret> {
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.stored.clone() {
            Stored::Present(mut secret) => {
                // Labels, annotations and keys of others stay.
                let data = secret.data.get_or_insert_default();
                data.retain(|key, _| !KEYS.contains(&key.as_str()));
                data.extend(authorities.data());
                self.api.replace(&self.settings.secret, &parameters, &secret).await
            }
            Stored::Absent | Stored::Unknown => {
                let labels =
                    BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "reach".to_owned())]);
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.settings.secret.clone()),
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    },
                    data: Some(authorities.data()),
                    type_: Some("Opaque".to_owned()),
                    ..Secret::default()
                };
                self.api.create(&parameters, &secret).await
            }
        }
    }

    /// Signs a new leaf when the one being served is due, or of another CA than the current one.
    fn renew_leaf(&mut self, now: SystemTime) -> Result<(), CertError> {
        let Some(Authorities { current, .. }) = &self.authorities else {
            return Ok(());
        };
        // Expired, or of a time when the clock was ahead.
        let served = self.leaf.as_ref().filter(|leaf| leaf.valid.contains(&now));
        let signer = match served {
            // A CA that API servers may not know yet has to wait as long as the old one lasts.
            Some(leaf) if leaf.signer.certificate() != current.certificate() => {
                let spread = |trust: &Trust| {
                    let is_forgotten = !trust.knows_ca(leaf.signer.certificate());
                    trust.ca_has_spread(current.certificate())
                        || is_forgotten && trust.knows_ca(current.certificate())
                };
                if self.trust.as_ref().is_none_or(spread) { current } else { &leaf.signer }
            }
            _ => current,
        };
        let is_due = served
            .is_none_or(|leaf| now >= leaf.renew_at || leaf.signer.certificate() != signer.certificate());
        if !is_due || !signer.is_valid(now) {
            return Ok(());
        }
        let certificate = signer.sign(&self.settings.names, now, self.settings.leaf_lifetime)?;
        let valid = certificate.valid.clone();
        self.metrics.serves(&certificate);
        self.resolver.replace(certificate);
        info!(
            days = valid.end.duration_since(now).unwrap_or_default().as_secs() / 86400,
            "serving a new certificate"
        );
        self.leaf = Some(Leaf { signer: Arc::clone(signer), renew_at: two_thirds(now, valid.end), valid });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const LIFE: Duration = Duration::from_hours(300);

    fn secret(authorities: &Authorities) -> Secret {
        Secret { data: Some(authorities.data()), ..Secret::default() }
    }

    fn stepped(
        authorities: &Authorities,
        now: SystemTime,
        spread: bool,
    ) -> Option<(&'static str, Authorities)> {
        authorities.step(now, LIFE, |_| spread).unwrap()
    }

    #[test]
    fn a_rotation_goes_step_by_step_and_trusts_the_old_ca_until_it_has_expired() {
        let start = SystemTime::now();
        let first = Authorities::make(start, LIFE).unwrap();
        assert!(stepped(&first, start + 199 * HOUR, true).is_none(), "not before two thirds of its life");

        let (_, both) = stepped(&first, start + 201 * HOUR, false).unwrap();
        assert_eq!(
            both.current.certificate(),
            first.current.certificate(),
            "the current one goes on signing"
        );
        assert_eq!(both.certificates().len(), 2, "both are to be trusted");
        assert!(stepped(&both, start + 202 * HOUR, false).is_none(), "not before API servers know it");

        let (_, promoted) = stepped(&both, start + 202 * HOUR, true).unwrap();
        assert_eq!(promoted.current.certificate(), both.next.as_ref().unwrap().certificate());
        assert_eq!(promoted.previous, [first.current.certificate().clone()]);
        assert!(!promoted.data().contains_key("next-ca.key"));
        assert!(
            stepped(&promoted, start + 299 * HOUR, true).is_none(),
            "the old CA's last leaf may still be served"
        );

        // As a replica does that has no memory.
        let read = Authorities::read(&secret(&promoted), "Secret a/b", start + 301 * HOUR).unwrap();
        let (_, rest) = stepped(&read, start + 301 * HOUR, true).unwrap();
        assert!(rest.previous.is_empty());
        assert_eq!(rest.current.certificate(), promoted.current.certificate());
    }

    #[test]
    fn each_state_survives_the_secret() {
        let now = SystemTime::now();
        let first = Authorities::make(now, LIFE).unwrap();
        let (_, both) = stepped(&first, now + 201 * HOUR, false).unwrap();
        let (_, promoted) = stepped(&both, now + 202 * HOUR, true).unwrap();
        for state in [first, both, promoted] {
            let again = Authorities::read(&secret(&state), "Secret a/b", now + 203 * HOUR).unwrap();
            assert_eq!(again.certificates(), state.certificates());
        }
    }

    #[test]
    fn a_damaged_secret_costs_no_more_than_what_is_damaged() {
        let now = SystemTime::now();
        let first = Authorities::make(now, LIFE).unwrap();
        let (_, both) = stepped(&first, now + 201 * HOUR, false).unwrap();
        let read = |change: &dyn Fn(&mut BTreeMap<String, ByteString>)| {
            let mut secret = secret(&both);
            change(secret.data.get_or_insert_default());
            Authorities::read(&secret, "Secret a/b", now)
        };
        let broken = |key: &'static str| {
            move |data: &mut BTreeMap<String, ByteString>| {
                data.insert(key.into(), ByteString(b"garbage".to_vec()));
            }
        };
        assert!(read(&broken("next-ca.crt")).unwrap().next.is_none());
        assert!(read(&broken("previous-ca.crt")).unwrap().previous.is_empty());
        for key in ["ca.crt", "ca.key"] {
            let error = read(&broken(key)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("Secret a/b"), "{error}");
            assert!(read(&|data| drop(data.remove(key))).is_err());
        }
        assert!(read(&BTreeMap::clear).is_err());
        // Another CA's key.
        let other = Authorities::make(now, LIFE).unwrap().data().remove("ca.key").unwrap();
        let error = read(&|data| drop(data.insert("ca.key".into(), other.clone()))).unwrap_err();
        assert!(matches!(error, CertError::Mismatch { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_leaf_of_a_clock_that_was_ahead_is_signed_anew() {
        let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(nobody).unwrap();
        let settings = Settings {
            namespace: "a".into(),
            secret: "b".into(),
            names: vec!["reach.a.svc".into()],
            ca_lifetime: LIFE,
            leaf_lifetime: HOUR,
        };
        let lease = Lease::new(&client, "a", "b".into(), "c".into());
        let resolver = Arc::new(CertResolver::default());
        let (mut manager, _) =
            Manager::new(&client, settings, lease, Arc::clone(&resolver), CertMetrics::default());
        let now = SystemTime::now();
        manager.adopt(Authorities::make(now, LIFE).unwrap());
        manager.renew_leaf(now + 5 * HOUR).unwrap();
        assert!(!resolver.current().unwrap().is_valid(now), "it begins an hour before that");
        manager.renew_leaf(now).unwrap();
        assert!(resolver.current().unwrap().is_valid(now));
    }

    #[test]
    fn a_cluster_that_was_off_for_a_year_gets_a_new_ca_at_once() {
        let now = SystemTime::now();
        let first = Authorities::make(now, LIFE).unwrap();
        let (_, new) = stepped(&first, now + 400 * HOUR, false).unwrap();
        assert_eq!(new.certificates().len(), 1);
        assert_ne!(new.current.certificate(), first.current.certificate());
        // A next one that is still good is taken as it is.
        let (_, both) = stepped(&first, now + 299 * HOUR, false).unwrap();
        let read = Authorities::read(&secret(&both), "Secret a/b", now + 301 * HOUR).unwrap();
        assert_eq!(read.current.certificate(), both.next.unwrap().certificate());
    }
}
