//! The serving certificate: where it comes from, and how it is replaced while connections are open.
//!
//! A [`CertResolver`] hands the current certificate to each new handshake. Replacing it touches no
//! connection: those that are open have done their handshake, the next one gets the new
//! certificate. The certificate comes either from two files that somebody else renews, for instance
//! cert-manager through a Secret volume ([`from_files`]), or is made in this process together with
//! the CA that vouches for it ([`self_made`]).

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// How often the files are looked at. The kubelet takes up to a minute or so to bring a changed
/// Secret to a volume, so that a second adds nothing to it; reading two small files a second costs
/// nothing either, and sees every way there is to change a file, while a watch on a directory has
/// to know that a Secret volume swaps a symbolic link.
pub const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Largest file accepted, in bytes. A chain of four certificates takes less than 10 KiB; the bound
/// keeps a wrong path or hostile file from costing memory and time each second.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Validity of what [`self_made`] makes, from now on.
const SELF_MADE_VALIDITY: Duration = Duration::from_hours(365 * 24);

/// How far in the past that validity begins, so that an API server whose clock is behind accepts a
/// new certificate.
const BACKDATED: Duration = Duration::from_hours(1);

/// Length of a serial number in bytes. RFC 5280, section 4.1.2.2, allows 20 and the CA/Browser
/// Forum asks for at least 64 random bits.
const SERIAL_BYTES: usize = 16;

/// A certificate chain with its key, checked: the key belongs to the certificate, and the
/// certificate is valid now.
#[derive(Debug)]
struct ServingCertificate {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
}

/// Hands out the current serving certificate, whatever name the client asks for: there is only one.
#[derive(Debug)]
pub struct CertResolver(ArcSwap<ServingCertificate>);

/// Keeps a [`CertResolver`] up to date with its files.
#[derive(Debug)]
pub struct Reloader {
    files: CertFiles,
    resolver: Arc<CertResolver>,
    serving: Material,
}

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
    reload_failing: Gauge,
}

/// Why there is no (new) serving certificate. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file could not be read.
    #[error("cannot read {path}: check the path, and that the user of this process may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause, as the system tells it.
        #[source]
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error(
        "{path} has more than {MAX_FILE_BYTES} bytes: give a file with nothing in it but the \
         certificate chain or the key"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not PEM.
    #[error(
        "cannot read {path} as PEM: expected text with `-----BEGIN ...-----` and \
         `-----END ...-----` lines"
    )]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause, as the PEM reader tells it.
        #[source]
        source: pem::Error,
    },
    /// The certificate file has no certificate.
    #[error(
        "no certificate in {path}: expected PEM blocks `BEGIN CERTIFICATE`, the serving \
         certificate first"
    )]
    NoCertificate {
        /// The certificate file.
        path: PathBuf,
    },
    /// The first certificate cannot be decoded.
    #[error("the first certificate in {path} is not an X.509 certificate: issue it anew")]
    Undecodable {
        /// The certificate file.
        path: PathBuf,
        /// The cause, as the X.509 reader tells it.
        #[source]
        source: x509_parser::error::X509Error,
    },
    /// The certificate has expired.
    #[error(
        "the certificate in {path} expired on {not_after}: renew it, or check the clock of this \
         machine"
    )]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// The last moment of its validity.
        not_after: ASN1Time,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate in {path} is not valid before {not_before}: check the clock of this \
         machine and of the issuer"
    )]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// The first moment of its validity.
        not_before: ASN1Time,
    },
    /// The key file has no key.
    #[error(
        "no private key in {path}: expected a PEM block `BEGIN PRIVATE KEY`, \
         `BEGIN EC PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`, not encrypted"
    )]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
    /// The key is of a kind that cannot be used.
    #[error(
        "cannot use the key in {path}: expected RSA of 2048 bits or more, ECDSA P-256, P-384 or \
         P-521, or Ed25519"
    )]
    UnusableKey {
        /// The key file.
        path: PathBuf,
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
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
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

/// The two files of a serving certificate.
#[derive(Clone, Debug)]
struct CertFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// What is in them.
#[derive(Debug, PartialEq, Eq)]
struct Material {
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// Reads a certificate chain and its key, both PEM. Run the [`Reloader`] to follow changes of the
/// files.
///
/// # Errors
/// When a file cannot be read or is not what it should be, when the two do not match, or when the
/// certificate has expired or is not valid yet. The error names the file, what was expected and
/// what to do.
pub fn from_files(
    certificate: impl Into<PathBuf>,
    key: impl Into<PathBuf>,
) -> Result<(Arc<CertResolver>, Reloader), CertError> {
    let files = CertFiles { certificate: certificate.into(), key: key.into() };
    let material = files.read()?;
    let resolver = CertResolver::new(files.check(&material, SystemTime::now())?);
    let reloader = Reloader { files, resolver: Arc::clone(&resolver), serving: material };
    Ok((resolver, reloader))
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
    let provider = aws_lc_rs::default_provider();
    let (ca_serial, leaf_serial) = (serial(&provider)?, serial(&provider)?);
    let (ca, leaf, key) = sign(names, now, ca_serial, leaf_serial)
        .map_err(|source| CertError::Make { names: names.to_vec(), source })?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider).map_err(CertError::Tls)?;
    Ok(SelfMade {
        resolver: CertResolver::new(ServingCertificate {
            key: Arc::new(key),
            not_after: now + SELF_MADE_VALIDITY,
        }),
        ca_pem: ca.pem(),
    })
}

/// TLS as the webhook serves it: version 1.2 or later, HTTP/1.1 only, a connection that is opened
/// again resumes cheaply.
///
/// # Errors
/// When the TLS library finds no randomness for the keys of its session tickets.
pub fn server_config(resolver: Arc<CertResolver>) -> Result<Arc<ServerConfig>, CertError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    // A client that offers other protocols only, such as `h2`, is refused in the handshake.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(CertError::Tls)?;
    Ok(Arc::new(config))
}

fn sign(
    names: &[String],
    now: SystemTime,
    ca_serial: SerialNumber,
    leaf_serial: SerialNumber,
) -> Result<(Certificate, Certificate, KeyPair), rcgen::Error> {
    // rcgen's own defaults are a certificate from 1975 to 4096 with a serial number that is a hash
    // of the key.
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "reach CA");
    ca.serial_number = Some(ca_serial);
    ca.not_before = (now - BACKDATED).into();
    ca.not_after = (now + SELF_MADE_VALIDITY).into();
    // Path length 0: it signs serving certificates and no other CA.
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

    // The name of the subject differs from that of the issuer, or clients take the leaf for
    // self-signed.
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "reach");
    leaf.serial_number = Some(leaf_serial);
    leaf.not_before = ca.not_before;
    leaf.not_after = ca.not_after;
    // Explicit, because then rcgen writes the identifier of the key, too.
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

    let (ca_key, leaf_key) = (KeyPair::generate()?, KeyPair::generate()?);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let leaf_certificate = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;
    Ok((ca_certificate, leaf_certificate, leaf_key))
}

fn serial(provider: &CryptoProvider) -> Result<SerialNumber, CertError> {
    let mut bytes = [0; SERIAL_BYTES];
    provider.secure_random.fill(&mut bytes).map_err(|_| CertError::Random)?;
    // A serial number is positive and written without leading zeros (RFC 5280, section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

// === impl CertResolver ===

impl CertResolver {
    fn new(certificate: ServingCertificate) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(certificate)))
    }

    /// Serves this certificate in new handshakes. Open connections stay as they are.
    fn replace(&self, certificate: ServingCertificate) {
        self.0.store(Arc::new(certificate));
    }

    /// The end of the validity of the certificate being served.
    #[must_use]
    pub fn expiry(&self) -> SystemTime {
        self.0.load().not_after
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

// === impl Reloader ===

impl Reloader {
    /// Looks at the files now and then ([`RELOAD_EVERY`]) and serves what is new and good; runs
    /// until it is dropped.
    ///
    /// When what is new is not good, the old certificate stays, the reason is logged once, and a
    /// metric tells until it is good again.
    pub async fn run(mut self, every: Duration, metrics: CertMetrics) {
        let mut failure = None;
        let mut logged = None;
        metrics.observe(&self.resolver);
        loop {
            sleep(every).await;
            let Err(error) = self.reload().await else {
                metrics.observe(&self.resolver);
                metrics.reload_failing.set(0);
                (failure, logged) = (None, None);
                continue;
            };
            // Two files cannot be read at one moment, so one of them may be the old one still. A
            // failure that is there the next time as well is real.
            let why = explain(&error);
            if failure.as_ref() == Some(&why) && logged.as_ref() != Some(&why) {
                warn!(error = why, "cannot use the new serving certificate, the old one stays");
                metrics.reload_failing.set(1);
                logged = Some(why.clone());
            }
            failure = Some(why);
        }
    }

    async fn reload(&mut self) -> Result<(), CertError> {
        let files = self.files.clone();
        let material = spawn_blocking(move || files.read())
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        // What has failed before is checked again, because time alone can make it good: it may not
        // have been valid yet.
        if material != self.serving {
            let certificate = self.files.check(&material, SystemTime::now())?;
            self.resolver.replace(certificate);
            self.serving = material;
            info!(file = %self.files.certificate.display(), "serving a new certificate");
        }
        Ok(())
    }
}

/// The error and all its causes, in one line.
fn explain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
            "serving_certificate_reload_failing",
            "1 while the certificate files hold something that cannot be served",
            metrics.reload_failing.clone(),
        );
        metrics
    }

    /// Takes over the expiry of the certificate being served.
    pub fn observe(&self, resolver: &CertResolver) {
        let since_1970 = resolver.expiry().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_1970.unwrap_or_default().as_secs();
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

// === impl CertFiles ===

impl CertFiles {
    fn read(&self) -> Result<Material, CertError> {
        Ok(Material { chain: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Whether `material`, read from these files, can be served at `now`.
    fn check(&self, material: &Material, now: SystemTime) -> Result<ServingCertificate, CertError> {
        let certificate = || self.certificate.clone();
        let chain = CertificateDer::pem_slice_iter(&material.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| CertError::Pem { path: certificate(), source })?;
        let Some(leaf) = chain.first() else {
            return Err(CertError::NoCertificate { path: certificate() });
        };
        let not_after = self.check_validity(leaf, now)?;
        let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| match source {
            pem::Error::NoItemsFound => CertError::NoKey { path: self.key.clone() },
            source => CertError::Pem { path: self.key.clone(), source },
        })?;
        let key =
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(
                |source| match source {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        CertError::Mismatch { certificate: certificate(), key: self.key.clone() }
                    }
                    source => CertError::UnusableKey { path: self.key.clone(), source },
                },
            )?;
        Ok(ServingCertificate { key: Arc::new(key), not_after })
    }

    /// The end of the validity of `leaf`, if `now` is within it.
    fn check_validity(&self, leaf: &[u8], now: SystemTime) -> Result<SystemTime, CertError> {
        let path = || self.certificate.clone();
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|source| CertError::Undecodable { path: path(), source: source.into() })?;
        let validity = leaf.validity();
        let not_after = moment(validity.not_after);
        if now < moment(validity.not_before) {
            return Err(CertError::NotYetValid { path: path(), not_before: validity.not_before });
        }
        if not_after < now {
            return Err(CertError::Expired { path: path(), not_after: validity.not_after });
        }
        Ok(not_after)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let failed = |source| CertError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CertError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Times before 1970 are all the same to us: long ago.
fn moment(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{GeneralName, ParsedExtension};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn files() -> CertFiles {
        CertFiles { certificate: "tls.crt".into(), key: "tls.key".into() }
    }

    fn made(now: SystemTime) -> (Certificate, Certificate, KeyPair) {
        let serial = || serial(&aws_lc_rs::default_provider()).unwrap();
        sign(&["reach.reach.svc".into(), "10.0.0.1".into()], now, serial(), serial()).unwrap()
    }

    fn material(chain: &str, key: &str) -> Material {
        Material { chain: chain.into(), key: key.into() }
    }

    fn message(chain: &str, key: &str, now: SystemTime) -> String {
        files().check(&material(chain, key), now).unwrap_err().to_string()
    }

    #[test]
    fn a_pair_that_is_valid_now_is_served_until_it_expires() {
        let now = SystemTime::now();
        let (ca, leaf, key) = made(now);
        let chain = leaf.pem() + &ca.pem();
        let checked = files().check(&material(&chain, &key.serialize_pem()), now).unwrap();
        let left = checked.not_after.duration_since(now).unwrap();
        assert!(left + HOUR > SELF_MADE_VALIDITY);
        assert_eq!(checked.key.cert.len(), 2);
    }

    #[test]
    fn a_message_names_the_file_and_what_to_do() {
        let now = SystemTime::now();
        let (ca, leaf, key) = made(now);
        let (ca, leaf, key) = (ca.pem(), leaf.pem(), key.serialize_pem());
        let other = made(now).2.serialize_pem();
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
    fn a_missing_file_is_named_with_its_cause() {
        let error = from_files("/does/not/exist.crt", "tls.key").unwrap_err();
        let text = explain(&error);
        assert!(text.starts_with("cannot read /does/not/exist.crt: check"), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_file_that_never_ends_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, CertError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_self_made_leaf_names_its_ca_and_serves_only_its_names() {
        let (ca, leaf, _) = made(SystemTime::now());
        let (_, ca) = X509Certificate::from_der(ca.der()).unwrap();
        let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
        assert_eq!(leaf.issuer(), ca.subject());
        assert_ne!(leaf.issuer(), leaf.subject());
        assert_ne!(leaf.raw_serial(), ca.raw_serial());
        assert_eq!(leaf.raw_serial().len(), SERIAL_BYTES);

        let identifier = |certificate: &X509Certificate<'_>| {
            certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            })
        };
        let issuer = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
            _ => None,
        });
        assert_eq!(issuer.unwrap().0, identifier(&ca).unwrap());
        assert_ne!(identifier(&leaf).unwrap(), identifier(&ca).unwrap());

        let constraints = ca.basic_constraints().unwrap().unwrap().value;
        assert!(constraints.ca);
        assert_eq!(constraints.path_len_constraint, Some(0));
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert_eq!(
            leaf.subject_alternative_name().unwrap().unwrap().value.general_names,
            [GeneralName::DNSName("reach.reach.svc"), GeneralName::IPAddress(&[10, 0, 0, 1])],
        );
    }

    #[test]
    fn a_self_made_certificate_is_valid_since_an_hour_ago_for_a_year() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 60);
        let (ca, leaf, _) = made(now);
        for certificate in [ca, leaf] {
            let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
            let validity = certificate.validity();
            assert_eq!(moment(validity.not_before), now - BACKDATED);
            assert_eq!(moment(validity.not_after), now + SELF_MADE_VALIDITY);
        }
    }

    #[test]
    fn nothing_is_made_without_a_name_or_for_what_is_none() {
        assert!(matches!(self_made(&[]), Err(CertError::NoNames)));
        assert!(matches!(self_made(&["ümlaut".into()]), Err(CertError::Make { .. })));
    }
}
