//! The serving certificate: where it comes from, and how it is replaced while connections are open.
//!
//! A [`CertResolver`] hands the current certificate to each new handshake. Replacing it touches no
//! connection: those that are open have done their handshake, the next one gets the new
//! certificate. Whatever the source, new material goes through one check ([`Material::check`]), and what
//! fails it leaves the old certificate in place:
//!
//! - [`managed`]: a CA that all replicas share through a Secret; each signs its own short-lived leaf.
//! - [`secret`]: a Secret of type `kubernetes.io/tls`, of cert-manager or of the user.
//! - [`files`]: two files that somebody else renews.
//! - [`self_made`]: a certificate and its CA made at start, for a try.
//!
//! The first three switch only to a certificate that API servers trust already: see [`crate::registration`].

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

pub mod authority;
pub mod clients;
pub mod files;
pub mod managed;
pub mod secret;

use self::authority::Authority;
use self::clients::ClientVerifier;
use crate::registration::Trust;

/// Validity of what [`self_made`] makes, from now on.
const SELF_MADE_VALIDITY: Duration = Duration::from_hours(365 * 24);

/// A certificate chain with its key, checked: the key belongs to the certificate, and the
/// certificate is valid now.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    key: Arc<CertifiedKey>,
    valid: Range<SystemTime>,
}

/// Hands out the current serving certificate, whatever name the client asks for: there is only one.
///
/// Before the first certificate, handshakes fail.
#[derive(Debug, Default)]
pub struct CertResolver(ArcSwapOption<ServingCertificate>);

/// What [`self_made`] makes.
#[derive(Debug)]
pub struct SelfMade {
    /// Serves the new certificate.
    pub resolver: Arc<CertResolver>,
    /// The CA certificate that clients have to trust, as PEM. Its key is gone already: nothing else
    /// will ever be signed with it.
    pub ca_pem: String,
}

/// The state of the serving certificate, in numbers. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct CertMetrics {
    expiry: Gauge,
    ca_expiry: Gauge,
    failing: Gauge,
    renewals: Counter,
}

/// What was wrong at the last look at something that is looked at again and again.
#[derive(Debug, Default)]
pub(crate) struct Complaint(String);

/// Why there is no (new) serving certificate. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file could not be read.
    #[error("cannot read {place}: check the path, and that the user of this process may read it")]
    Read {
        /// The file, or the key and the Secret.
        place: String,
        /// The cause, as the system tells it.
        #[source]
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error(
        "{place} has more than {MAX_BYTES} bytes: put nothing there but the certificate chain or the key"
    )]
    TooLarge {
        /// The file, or the key and the Secret.
        place: String,
    },
    /// A file is not PEM.
    #[error(
        "cannot read {place} as PEM: {cause}; expected text with `-----BEGIN ...-----` and \
         `-----END ...-----` lines"
    )]
    Pem {
        /// The file, or the key and the Secret.
        place: String,
        /// The cause. Not as the PEM reader tells it, which quotes what it read.
        cause: &'static str,
    },
    /// The certificate file has no certificate.
    #[error(
        "no certificate in {place}: expected PEM blocks `BEGIN CERTIFICATE`, the serving \
         certificate first"
    )]
    NoCertificate {
        /// Where the certificate is.
        place: String,
    },
    /// The first certificate cannot be decoded.
    #[error("the first certificate in {place} is not an X.509 certificate: issue it anew")]
    Undecodable {
        /// Where the certificate is.
        place: String,
        /// The cause, as the X.509 reader tells it.
        #[source]
        source: x509_parser::error::X509Error,
    },
    /// The certificate has expired.
    #[error(
        "the certificate in {place} expired on {not_after}: renew it, or check the clock of this \
         machine"
    )]
    Expired {
        /// Where the certificate is.
        place: String,
        /// The last moment of its validity.
        not_after: ASN1Time,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate in {place} is not valid before {not_before}: check the clock of this \
         machine and of the issuer"
    )]
    NotYetValid {
        /// Where the certificate is.
        place: String,
        /// The first moment of its validity.
        not_before: ASN1Time,
    },
    /// The key file has no key.
    #[error(
        "no private key in {place}: expected a PEM block `BEGIN PRIVATE KEY`, \
         `BEGIN EC PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`, not encrypted"
    )]
    NoKey {
        /// Where the key is.
        place: String,
    },
    /// The key is of a kind that cannot be used.
    #[error(
        "cannot use the key in {place}: expected RSA of 2048 bits or more, ECDSA P-256, P-384 or \
         P-521, or Ed25519"
    )]
    UnusableKey {
        /// Where the key is.
        place: String,
        /// The cause, as the TLS library tells it.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the key in {key} does not match the first certificate in {certificate}: give the key this \
         certificate was issued for, and put the serving certificate before those of its issuers"
    )]
    Mismatch {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
    },
    /// The certificate is for other names.
    #[error("the certificate in {place} is not for {name}: issue it with that DNS name (subjectAltName)")]
    WrongName {
        /// Where the certificate is.
        place: String,
        /// The name that API servers ask for.
        name: String,
    },
    /// A Secret lacks a key.
    #[error("{place} is missing: expected PEM text there")]
    Missing {
        /// The key and the Secret.
        place: String,
    },
    /// A certificate that is to sign others is no CA.
    #[error("the certificate in {place} is no CA: expected one with the basic constraint CA:TRUE")]
    NoAuthority {
        /// Where the certificate is.
        place: String,
    },
    /// There is no name to make a certificate for.
    #[error(
        "cannot make a certificate without a name: give the DNS names or IP addresses clients will \
         use"
    )]
    NoNames,
    /// A certificate could not be made.
    #[error("cannot make a certificate for {names:?}: give DNS names and IP addresses")]
    Make {
        /// The names asked for.
        names: Vec<String>,
        /// The cause, as the certificate library tells it.
        #[source]
        source: rcgen::Error,
    },
    /// The source of randomness failed.
    #[error("cannot get random bytes")]
    Random,
    /// The TLS library refused what we made.
    #[error("cannot configure TLS")]
    Tls(#[source] rustls::Error),
}

/// Largest certificate chain or key accepted, in bytes. A chain of four certificates takes less than 10 KiB;
/// the bound keeps a wrong path or hostile content from costing memory and time at each look.
const MAX_BYTES: u64 = 256 * 1024;

/// Where the two parts of a serving certificate are, for messages.
#[derive(Clone, Debug)]
pub struct Places {
    /// Of the certificate chain.
    pub certificate: String,
    /// Of its key.
    pub key: String,
}

/// A serving certificate as PEM, not checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Certificate chain.
    pub chain: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
}

/// Makes a CA, and a serving certificate for these DNS names and IP addresses signed by it. Both
/// are valid for 365 days.
///
/// # Errors
/// When there is no name, or one is neither a DNS name nor an IP address.
pub fn self_made(names: &[String]) -> Result<SelfMade, CertError> {
    if names.is_empty() {
        return Err(CertError::NoNames);
    }
    let now = SystemTime::now();
    let ca = Authority::make(now, SELF_MADE_VALIDITY)?;
    let resolver = Arc::new(CertResolver::default());
    resolver.replace(ca.sign(names, now, SELF_MADE_VALIDITY)?);
    Ok(SelfMade { resolver, ca_pem: ca.pem() })
}

/// TLS as the webhook serves it: version 1.2 or later, HTTP/1.1 only, a connection that is opened
/// again resumes cheaply.
///
/// # Errors
/// When the TLS library finds no randomness for the keys of its session tickets.
pub fn server_config(
    resolver: Arc<CertResolver>,
    clients: Option<Arc<ClientVerifier>>,
) -> Result<Arc<ServerConfig>, CertError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertError::Tls)?;
    let mut config = if let Some(clients) = clients {
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
        // A resumed session is not asked for its certificate again, and who may call can change.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    } else {
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(CertError::Tls)?;
        config
    };
    // A client that offers other protocols only, such as `h2`, is refused in the handshake.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What is wrong with a PEM text.
pub(crate) fn pem_trouble(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block has no end",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "it cannot be read",
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// If it is no PEM, or there is none in it.
pub fn certificates(pem: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    if pem.len() as u64 > MAX_BYTES {
        return Err(CertError::TooLarge { place: place.to_owned() });
    }
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertError::Pem { place: place.to_owned(), cause: pem_trouble(&error) })?;
    if chain.is_empty() {
        return Err(CertError::NoCertificate { place: place.to_owned() });
    }
    Ok(chain)
}

// === impl ServingCertificate ===

impl ServingCertificate {
    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// The end of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.valid.end
    }

    /// Whether it is valid at this moment. A clock that was set back can make it not valid yet.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.valid.contains(&now)
    }
}

// === impl CertResolver ===

impl CertResolver {
    /// Serves this certificate in new handshakes. Open connections stay as they are.
    pub fn replace(&self, certificate: ServingCertificate) {
        self.0.store(Some(Arc::new(certificate)));
    }

    /// Serves this certificate if API servers accept it, or if there is nothing better to serve any more:
    /// the one place where a certificate of somebody else's making is taken into use. Returns whether it is.
    pub fn offer(&self, certificate: &ServingCertificate, trust: Option<&Trust>, now: SystemTime) -> bool {
        let take = match (self.current().filter(|old| old.is_valid(now)), trust) {
            (Some(old), Some(trust)) => {
                // Whoever writes caBundle may have put the new CA in the place of the old one: then waiting helps nobody.
                let is_forgotten =
                    || !trust.vouches_for(old.chain()) && trust.vouches_for(certificate.chain());
                trust.has_spread(certificate.chain()) || is_forgotten()
            }
            _ => true,
        };
        if take {
            self.replace(certificate.clone());
        }
        take
    }

    /// The certificate being served, once there is one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<ServingCertificate>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|certificate| Arc::clone(&certificate.key))
    }
}

// === impl CertMetrics ===

impl CertMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "serving_certificate_expiry_timestamp_seconds",
            "End of the validity of the serving certificate, in seconds since 1970",
            metrics.expiry.clone(),
        );
        registry.register(
            "ca_certificate_expiry_timestamp_seconds",
            "End of the validity of the self-managed CA, in seconds since 1970; 0 when there is none",
            metrics.ca_expiry.clone(),
        );
        registry.register(
            "serving_certificate_reload_failing",
            "1 while the source of the serving certificate holds something that cannot be served, or cannot be written",
            metrics.failing.clone(),
        );
        registry.register(
            "serving_certificate_changes",
            "Serving certificates taken into use",
            metrics.renewals.clone(),
        );
        metrics
    }

    /// Counts a new certificate being served.
    pub fn serves(&self, certificate: &ServingCertificate) {
        self.expiry.set(seconds(certificate.not_after()));
        self.renewals.inc();
    }

    /// Whether the source is in order.
    pub fn failing(&self, failing: bool) {
        self.failing.set(i64::from(failing));
    }

    /// Sets the expiry of the CA.
    pub fn ca(&self, not_after: SystemTime) {
        self.ca_expiry.set(seconds(not_after));
    }
}

fn seconds(moment: SystemTime) -> i64 {
    let since_1970 = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

// === impl Complaint ===

impl Complaint {
    /// Takes note of how this look ended. What to log: an error, unless it is the one of the last look.
    pub(crate) fn news(&mut self, look: Result<(), String>) -> Option<&str> {
        let error = look.err().unwrap_or_default();
        let is_new = !error.is_empty() && error != self.0;
        self.0 = error;
        is_new.then_some(&self.0)
    }
}

// === impl Material ===

impl Material {
    /// Whether this, found at these places, can be served at `now`.
    ///
    /// # Errors
    /// When it is not PEM, the two parts do not match, or the certificate has expired or is not valid yet.
    /// The error names the place, what was expected and what to do.
    pub fn check(&self, places: &Places, now: SystemTime) -> Result<ServingCertificate, CertError> {
        let chain = certificates(&self.chain, &places.certificate)?;
        let valid = validity(&chain[0], &places.certificate, now)?;
        let place = || places.key.clone();
        if self.key.len() as u64 > MAX_BYTES {
            return Err(CertError::TooLarge { place: place() });
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| match source {
            pem::Error::NoItemsFound => CertError::NoKey { place: place() },
            error => CertError::Pem { place: place(), cause: pem_trouble(&error) },
        })?;
        let key =
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(
                |source| match source {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        CertError::Mismatch { certificate: places.certificate.clone(), key: place() }
                    }
                    source => CertError::UnusableKey { place: place(), source },
                },
            )?;
        Ok(ServingCertificate { key: Arc::new(key), valid })
    }
}

/// The validity of a certificate, if `now` is within it.
fn validity(certificate: &[u8], place: &str, now: SystemTime) -> Result<Range<SystemTime>, CertError> {
    let place = || place.to_owned();
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|source| CertError::Undecodable { place: place(), source: source.into() })?;
    let validity = certificate.validity();
    let valid = moment(validity.not_before)..moment(validity.not_after);
    if now < valid.start {
        return Err(CertError::NotYetValid { place: place(), not_before: validity.not_before });
    }
    if now >= valid.end {
        return Err(CertError::Expired { place: place(), not_after: validity.not_after });
    }
    Ok(valid)
}

/// Times before 1970 are all the same to us: long ago.
pub(crate) fn moment(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// A CA, a leaf and the key of the leaf, as PEM.
    fn made(now: SystemTime) -> (String, String, String) {
        let ca = Authority::make(now, SELF_MADE_VALIDITY).unwrap();
        let (leaf, key) = ca.leaf(&["reach.reach.svc".into()], now, SELF_MADE_VALIDITY).unwrap();
        (ca.pem(), leaf.pem(), key.serialize_pem())
    }

    fn material(chain: &str, key: &str) -> Material {
        Material { chain: chain.into(), key: key.into() }
    }

    fn message(chain: &str, key: &str, now: SystemTime) -> String {
        let places = Places { certificate: "tls.crt".into(), key: "tls.key".into() };
        material(chain, key).check(&places, now).unwrap_err().to_string()
    }

    #[test]
    fn a_pair_that_is_valid_now_is_served_until_it_expires() {
        let now = SystemTime::now();
        let (ca, leaf, key) = made(now);
        let places = Places { certificate: "tls.crt".into(), key: "tls.key".into() };
        let checked = material(&(leaf + &ca), &key).check(&places, now).unwrap();
        let left = checked.not_after().duration_since(now).unwrap();
        assert!(left + HOUR > SELF_MADE_VALIDITY);
        assert!(checked.is_valid(now) && !checked.is_valid(now + SELF_MADE_VALIDITY));
        assert_eq!(checked.key.cert.len(), 2);
    }

    #[test]
    fn a_message_names_the_file_and_what_to_do() {
        let now = SystemTime::now();
        let (ca, leaf, key) = made(now);
        let other = made(now).2;
        let (before, after) = (now - 2 * HOUR, now + SELF_MADE_VALIDITY + HOUR);
        for (chain, key, now, says, advice) in [
            ("", &key, now, "no certificate in tls.crt", "BEGIN CERTIFICATE"),
            (&key, &key, now, "no certificate in tls.crt", "BEGIN CERTIFICATE"),
            (&leaf, &String::new(), now, "no private key in tls.key", "BEGIN PRIVATE KEY"),
            (&leaf, &leaf, now, "no private key in tls.key", "not encrypted"),
            (&leaf, &other, now, "the key in tls.key does not match", "give the key"),
            (&(ca + &leaf), &key, now, "the key in tls.key does not match", "before those of its"),
            (&leaf, &key, before, "in tls.crt is not valid before", "check the clock"),
            (&leaf, &key, after, "in tls.crt expired on", "renew it"),
            (&leaf[..200], &key, now, "cannot read tls.crt as PEM", "-----END"),
        ] {
            let message = message(chain, key, now);
            assert!(message.contains(says) && message.contains(advice), "{message}");
        }
    }

    #[test]
    fn a_certificate_from_before_the_clock_was_set_back_gives_way_at_once() {
        let now = SystemTime::now();
        let ca = Authority::make(now, SELF_MADE_VALIDITY).unwrap();
        let later = Authority::make(now + 3 * HOUR, SELF_MADE_VALIDITY).unwrap();
        let sign = |ca: &Authority, now| ca.sign(&["reach.reach.svc".into()], now, HOUR).unwrap();
        let (_, live) = tokio::sync::watch::channel(crate::registration::Live::default());
        let name = "reach.reach.svc".try_into().unwrap();
        let trust = Trust::new(live, "reach", name, HOUR);
        let resolver = CertResolver::default();
        resolver.replace(sign(&later, now + 3 * HOUR));
        assert!(resolver.offer(&sign(&ca, now), Some(&trust), now));
        assert!(!resolver.offer(&sign(&ca, now), Some(&trust), now), "not for another one that waits");
    }

    #[test]
    fn a_complaint_is_news_once() {
        let mut complaint = Complaint::default();
        let mut looks = [Ok(()), Err("a"), Err("a"), Err("b"), Ok(()), Err("b")]
            .map(|look| complaint.news(look.map_err(str::to_owned)).map(str::to_owned))
            .into_iter();
        assert_eq!(looks.by_ref().flatten().collect::<Vec<_>>(), ["a", "b", "b"]);
    }

    #[test]
    fn nothing_is_made_without_a_name_or_for_what_is_none() {
        assert!(matches!(self_made(&[]), Err(CertError::NoNames)));
        assert!(matches!(self_made(&["ümlaut".into()]), Err(CertError::Make { .. })));
    }
}
