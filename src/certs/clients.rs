//! Client authentication: only those may call that a CA vouches for, and of those only some names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use tokio::time::sleep;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::files::read;
use super::{CertError, Complaint, certificates};
use crate::api_server::explain;

/// Accepts clients with a certificate of a CA in a file, and with one of some names.
pub struct ClientVerifier {
    file: PathBuf,
    /// Common names or DNS names; any when empty.
    names: Vec<String>,
    current: ArcSwap<Trusted>,
}

struct Trusted {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

// === impl ClientVerifier ===

impl ClientVerifier {
    /// Reads the CA certificates. Run [`ClientVerifier::follow`] to follow changes of the file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no CA certificate.
    pub fn new(file: impl Into<PathBuf>, names: Vec<String>) -> Result<Arc<Self>, CertError> {
        let file = file.into();
        let pem = read(&file)?;
        let current = ArcSwap::from_pointee(trusted(pem, &file)?);
        Ok(Arc::new(Self { file, names, current }))
    }

    /// Looks at the file now and then and takes over what is new and good; runs until it is dropped.
    pub async fn follow(self: Arc<Self>, every: Duration) {
        let mut complaint = Complaint::default();
        loop {
            sleep(every).await;
            let new = read(&self.file).and_then(|pem| {
                if pem == self.current.load().pem { Ok(None) } else { trusted(pem, &self.file).map(Some) }
            });
            let look = new.map(|new| {
                if let Some(new) = new {
                    self.current.store(Arc::new(new));
                    info!(file = %self.file.display(), "new CA of clients");
                }
            });
            if let Some(error) = complaint.news(look.map_err(|error| explain(&error))) {
                warn!(error, "cannot use the new CA of clients, the old one stays");
            }
        }
    }

    fn is_named(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let allowed = |name: &str| self.names.iter().any(|allowed| allowed == name);
        let by_common_name =
            certificate.subject().iter_common_name().any(|name| name.as_str().is_ok_and(allowed));
        let by_dns_name = certificate.subject_alternative_name().ok().flatten().is_some_and(|names| {
            names
                .value
                .general_names
                .iter()
                .any(|name| matches!(name, GeneralName::DNSName(name) if allowed(name)))
        });
        by_common_name || by_dns_name
    }
}

fn trusted(pem: Vec<u8>, file: &std::path::Path) -> Result<Trusted, CertError> {
    let place = file.display().to_string();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pem, &place)? {
        roots.add(certificate).map_err(|_| CertError::NoAuthority { place: place.clone() })?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| CertError::NoAuthority { place })?;
    Ok(Trusted { pem, verifier })
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("file", &self.file)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// None: hints would have to change with the file, and a client that is asked without them sends what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.current.load().verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.names.is_empty() || self.is_named(end_entity) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().verifier.supported_verify_schemes()
    }
}
