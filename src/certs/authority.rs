//! A certification authority of our own, and the leaf certificates it signs.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertError, Places, ServingCertificate, certificates, validity};

/// How far in the past the validity of what is made begins, so that an API server whose clock is behind
/// accepts a new certificate.
pub const BACKDATED: Duration = Duration::from_hours(1);

/// Length of a serial number in bytes. RFC 5280, section 4.1.2.2, allows 20 and the CA/Browser
/// Forum asks for at least 64 random bits.
const SERIAL_BYTES: usize = 16;

/// A CA certificate with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    valid: Range<SystemTime>,
}

// === impl Authority ===

impl Authority {
    /// Makes a CA that is valid for `lifetime` from `now` on.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn make(now: SystemTime, lifetime: Duration) -> Result<Self, CertError> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "reach CA");
        ca.serial_number = Some(serial()?);
        let valid = now - BACKDATED..now + lifetime;
        ca.not_before = valid.start.into();
        ca.not_after = valid.end.into();
        // Path length 0: it signs serving certificates and no other CA.
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let failed = |source| CertError::Make { names: Vec::new(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = ca.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Self { certificate, key, valid })
    }

    /// Reads a CA from PEM, found at these places.
    ///
    /// # Errors
    /// If it is not PEM, no CA, the key is not its key, or it has expired or is not valid yet.
    pub fn read(certificate: &[u8], key: &[u8], places: &Places, now: SystemTime) -> Result<Self, CertError> {
        let certificate = certificates(certificate, &places.certificate)?.swap_remove(0);
        let valid = validity(&certificate, &places.certificate, now)?;
        let no_key = || CertError::NoKey { place: places.key.clone() };
        let key = std::str::from_utf8(key).map_err(|_| no_key())?;
        let key = KeyPair::from_pem(key).map_err(|_| no_key())?;
        let place = || places.certificate.clone();
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|source| CertError::Undecodable { place: place(), source: source.into() })?;
        if !parsed.is_ca() {
            return Err(CertError::NoAuthority { place: place() });
        }
        if *parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertError::Mismatch { certificate: place(), key: places.key.clone() });
        }
        Ok(Self { certificate, key, valid })
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.certificate)
    }

    /// The key as PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The end of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.valid.end
    }

    /// Whether it is valid at this moment.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.valid.contains(&now)
    }

    /// When a successor is due: after two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        two_thirds(self.valid.start + BACKDATED, self.valid.end)
    }

    /// Signs a serving certificate with a new key for these DNS names and IP addresses, valid for
    /// `lifetime` and not longer than the CA.
    ///
    /// # Errors
    /// If a name is neither a DNS name nor an IP address, or there is no randomness.
    pub fn sign(
        &self,
        names: &[String],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<ServingCertificate, CertError> {
        let (leaf, key) = self.leaf(names, now, lifetime)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = CertifiedKey::from_der(vec![leaf.der().clone()], key, &aws_lc_rs::default_provider())
            .map_err(CertError::Tls)?;
        Ok(ServingCertificate { key: Arc::new(key), valid: self.life(now, lifetime) })
    }

    /// The validity of what it signs.
    fn life(&self, now: SystemTime, lifetime: Duration) -> Range<SystemTime> {
        (now - BACKDATED).max(self.valid.start)..(now + lifetime).min(self.valid.end)
    }

    pub(super) fn leaf(
        &self,
        names: &[String],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<(Certificate, KeyPair), CertError> {
        let failed = |source| CertError::Make { names: names.to_vec(), source };
        // rcgen's own defaults are a certificate from 1975 to 4096 with a serial number that is a hash
        // of the key. The name of the subject differs from that of the issuer, or clients take the
        // leaf for self-signed.
        let mut leaf = CertificateParams::new(names).map_err(failed)?;
        leaf.distinguished_name.push(DnType::CommonName, "reach");
        leaf.serial_number = Some(serial()?);
        let valid = self.life(now, lifetime);
        leaf.not_before = valid.start.into();
        leaf.not_after = valid.end.into();
        // Explicit, because then rcgen writes the identifier of the key, too.
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(failed)?;
        let leaf = leaf.signed_by(&key, &issuer).map_err(failed)?;
        Ok((leaf, key))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("valid", &self.valid).finish_non_exhaustive()
    }
}

/// The moment at which two thirds of a life have passed.
pub(super) fn two_thirds(from: SystemTime, to: SystemTime) -> SystemTime {
    from + to.duration_since(from).unwrap_or_default() * 2 / 3
}

/// A certificate as PEM.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", certificate.to_vec()), lines)
}

fn serial() -> Result<SerialNumber, CertError> {
    let mut bytes = [0; SERIAL_BYTES];
    aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| CertError::Random)?;
    // A serial number is positive and written without leading zeros (RFC 5280, section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{GeneralName, ParsedExtension};

    use super::super::moment;
    use super::*;

    const YEAR: Duration = Duration::from_hours(365 * 24);
    const WEEK: Duration = Duration::from_hours(7 * 24);

    fn made(now: SystemTime) -> (Authority, Certificate) {
        let ca = Authority::make(now, YEAR).unwrap();
        let leaf = ca.leaf(&["reach.reach.svc".into(), "10.0.0.1".into()], now, WEEK).unwrap().0;
        (ca, leaf)
    }

    #[test]
    fn a_leaf_names_its_ca_and_serves_only_its_names() {
        let (ca, leaf) = made(SystemTime::now());
        let (_, ca) = X509Certificate::from_der(ca.certificate()).unwrap();
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
    fn what_is_made_is_valid_since_an_hour_ago() {
        let now = SystemTime::UNIX_EPOCH + 60 * YEAR;
        let (ca, leaf) = made(now);
        for (certificate, lifetime) in [(ca.certificate(), YEAR), (leaf.der(), WEEK)] {
            let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
            let validity = certificate.validity();
            assert_eq!(moment(validity.not_before), now - BACKDATED);
            assert_eq!(moment(validity.not_after), now + lifetime);
        }
    }

    #[test]
    fn an_authority_survives_being_written_and_read() {
        let now = SystemTime::now();
        let ca = Authority::make(now, YEAR).unwrap();
        let places = Places { certificate: "ca.crt".into(), key: "ca.key".into() };
        let read = |certificate: &str, key: &str, now| {
            Authority::read(certificate.as_bytes(), key.as_bytes(), &places, now)
        };
        let again = read(&ca.pem(), &ca.key_pem(), now).unwrap();
        assert_eq!(again.certificate(), ca.certificate());
        let leaf = again.leaf(&["a.b.svc".into()], now, WEEK).unwrap().0;
        let (_, issuer) = X509Certificate::from_der(ca.certificate()).unwrap();
        let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
        leaf.verify_signature(Some(issuer.public_key())).unwrap();

        let other = Authority::make(now, YEAR).unwrap();
        let (not_ca, not_ca_key) = ca.leaf(&["a.b.svc".into()], now, WEEK).unwrap();
        for (certificate, key, now, says) in [
            (ca.pem(), other.key_pem(), now, "does not match"),
            (String::new(), ca.key_pem(), now, "no certificate in ca.crt"),
            (ca.pem(), String::new(), now, "no private key in ca.key"),
            ("garbage".into(), "garbage".into(), now, "no certificate in ca.crt"),
            (ca.pem(), ca.key_pem(), now + 2 * YEAR, "expired"),
            (not_ca.pem(), not_ca_key.serialize_pem(), now, "is no CA"),
        ] {
            let error = read(&certificate, &key, now).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_successor_is_due_after_two_thirds_and_a_leaf_never_outlives_its_ca() {
        let now = SystemTime::UNIX_EPOCH + 50 * YEAR;
        let ca = Authority::make(now, 3 * WEEK).unwrap();
        assert_eq!(ca.renew_at(), now + 2 * WEEK);
        let late = now + 3 * WEEK - Duration::from_hours(1);
        assert_eq!(ca.sign(&["a.b.svc".into()], late, WEEK).unwrap().not_after(), now + 3 * WEEK);
    }
}
