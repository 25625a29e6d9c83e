//! Certificates of others: of a company's CA, of clients, good ones and bad ones.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const HOUR: Duration = Duration::from_hours(1);

/// A certification authority that reach knows nothing of.
#[derive(Debug)]
pub struct Ca {
    /// Its certificate as PEM.
    pub pem: String,
    /// Its key as PEM.
    pub key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Ca {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + 240 * HOUR).into();
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")
    }

    /// A serving certificate for a DNS name or an IP address.
    pub fn server(&self, name: &str) -> Pair {
        self.issue(Some(name), "server", ExtendedKeyUsagePurpose::ServerAuth, HOUR * 24)
    }

    /// A serving certificate that has expired.
    pub fn expired(&self, name: &str) -> Pair {
        self.issue(Some(name), "server", ExtendedKeyUsagePurpose::ServerAuth, Duration::ZERO)
    }

    /// A client's certificate with a common name.
    pub fn client(&self, common_name: &str) -> Pair {
        self.issue(None, common_name, ExtendedKeyUsagePurpose::ClientAuth, HOUR * 24)
    }

    fn issue(
        &self,
        name: Option<&str>,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
    ) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.extend(name.map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().expect("a DNS name")),
        }));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let now = SystemTime::now() - Duration::from_mins(1);
        params.not_before = (now - HOUR).into();
        params.not_after = (now + life).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}
