//! A serving certificate from a Secret of type `kubernetes.io/tls` that somebody else renews: cert-manager, or
//! the user.
//!
//! It is followed through the API and not through a volume, which the kubelet brings up to date a minute late.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{
    CertError, CertMetrics, CertResolver, Complaint, Material, Places, ServingCertificate, certificates,
};
use crate::api_server::{Waits, explain};
use crate::registration::Trust;

/// How often what could not be taken into use is tried again: time alone can make it good.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows the Secret.
pub struct Follower {
    api: Api<Secret>,
    namespace: String,
    name: String,
    server_name: ServerName<'static>,
    resolver: Arc<CertResolver>,
    needed: watch::Sender<Vec<CertificateDer<'static>>>,
    metrics: CertMetrics,
    /// What is served.
    served: Option<Material>,
    complaint: Complaint,
}

// === impl Follower ===

impl Follower {
    /// A follower of the Secret `name`, whose certificate has to be for `server_name`; the receiver tells which
    /// CAs have to be trusted (`ca.crt`, where there is one).
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: String,
        server_name: ServerName<'static>,
        resolver: Arc<CertResolver>,
        metrics: CertMetrics,
    ) -> (Self, watch::Receiver<Vec<CertificateDer<'static>>>) {
        let (needed, receiver) = watch::channel(Vec::new());
        let follower = Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name,
            server_name,
            resolver,
            needed,
            metrics,
            served: None,
            complaint: Complaint::default(),
        };
        (follower, receiver)
    }

    /// Runs until it is dropped. With `trust`, a new certificate is served only once API servers accept it, or
    /// when the old one has expired.
    pub async fn run(mut self, trust: Option<Trust>) {
        let mut trust_changes = trust.clone();
        let mut events =
            watcher::watch_object(self.api.clone(), &self.name).backoff(Waits::default()).boxed();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stored: Option<Option<Secret>> = None;
        let mut watched = Ok(());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(secret)) => {
                        stored = Some(secret);
                        watched = Ok(());
                    }
                    Some(Err(error)) => watched = Err(format!("cannot watch it: {}", explain(&error))),
                    None => return,
                },
                () = Trust::changed_in(&mut trust_changes) => {}
                _ = look.tick() => {}
            }
            let taken = stored.as_ref().map_or(Ok(()), |stored| {
                let taken = self.take(stored.as_ref(), trust.as_ref(), SystemTime::now());
                taken.map_err(|error| explain(&error))
            });
            let look = taken.and(watched.clone());
            self.metrics.failing(look.is_err());
            if let Some(error) = self.complaint.news(look) {
                warn!(secret = self.name, error, "cannot use the Secret; what is served stays");
            }
        }
    }

    /// Takes over what is in the Secret, if it is new and good.
    fn take(
        &mut self,
        secret: Option<&Secret>,
        trust: Option<&Trust>,
        now: SystemTime,
    ) -> Result<(), CertError> {
        let place = |key: &str| format!("{key} of Secret {}/{}", self.namespace, self.name);
        let value = |key: &str| {
            let value = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(key));
            value.map(|value| value.0.clone()).ok_or_else(|| CertError::Missing { place: place(key) })
        };
        let material = Material { chain: value("tls.crt")?, key: value("tls.key")? };
        let places = Places { certificate: place("tls.crt"), key: place("tls.key") };
        let certificate = material.check(&places, now)?;
        self.check_name(&certificate, &places)?;
        let ca = value("ca.crt").ok().filter(|ca| !ca.is_empty());
        let ca = ca.map(|ca| certificates(&ca, &place("ca.crt"))).transpose()?.unwrap_or_default();
        // Those of the certificate being served stay in the bundle by themselves.
        self.needed.send_if_modified(|needed| {
            let changed = *needed != ca;
            *needed = ca;
            changed
        });
        if self.served.as_ref() == Some(&material) {
            return Ok(());
        }
        if self.resolver.offer(&certificate, trust, now) {
            info!(secret = self.name, "serving a new certificate");
            self.metrics.serves(&certificate);
            self.served = Some(material);
        }
        Ok(())
    }

    fn check_name(&self, certificate: &ServingCertificate, places: &Places) -> Result<(), CertError> {
        let leaf = &certificate.chain()[0];
        let is_for_us = ParsedCertificate::try_from(leaf)
            .is_ok_and(|leaf| verify_server_name(&leaf, &self.server_name).is_ok());
        if is_for_us {
            return Ok(());
        }
        Err(CertError::WrongName {
            place: places.certificate.clone(),
            name: self.server_name.to_str().into_owned(),
        })
    }
}
