//! A serving certificate from two files that somebody else renews.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertError, CertMetrics, CertResolver, MAX_BYTES, Material, Places, ServingCertificate};
use crate::api_server::explain;
use crate::registration::Trust;

/// How often the files are looked at. The kubelet takes up to a minute or so to bring a changed
/// Secret to a volume, so that a second adds nothing to it; reading two small files a second costs
/// nothing either, and sees every way there is to change a file, while a watch on a directory has
/// to know that a Secret volume swaps a symbolic link.
pub const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Keeps a [`CertResolver`] up to date with its files.
pub struct Reloader {
    files: CertFiles,
    resolver: Arc<CertResolver>,
    serving: Material,
    needed: watch::Sender<Vec<CertificateDer<'static>>>,
}

/// The two files of a serving certificate.
#[derive(Clone, Debug)]
struct CertFiles {
    certificate: PathBuf,
    key: PathBuf,
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
    let resolver = Arc::new(CertResolver::default());
    let certificate = material.check(&files.places(), SystemTime::now())?;
    let (needed, _) = watch::channel(authorities(&certificate));
    resolver.replace(certificate);
    let reloader = Reloader { files, resolver: Arc::clone(&resolver), serving: material, needed };
    Ok((resolver, reloader))
}

// === impl Reloader ===

impl Reloader {
    /// Looks at the files now and then ([`RELOAD_EVERY`]) and serves what is new and good; runs
    /// until it is dropped.
    ///
    /// When what is new is not good, the old certificate stays, the reason is logged once, and a
    /// metric tells until it is good again.
    ///
    /// With `trust`, what is new is served only once API servers accept it, or when the old one has expired.
    pub async fn run(mut self, every: Duration, metrics: CertMetrics, trust: Option<Trust>) {
        let mut failure = None;
        let mut logged = None;
        if let Some(served) = self.resolver.current() {
            metrics.serves(&served);
        }
        loop {
            sleep(every).await;
            let Err(error) = self.reload(&metrics, trust.as_ref()).await else {
                metrics.failing(false);
                (failure, logged) = (None, None);
                continue;
            };
            // Two files cannot be read at one moment, so one of them may be the old one still. A
            // failure that is there the next time as well is real.
            let why = explain(&error);
            if failure.as_ref() == Some(&why) && logged.as_ref() != Some(&why) {
                warn!(error = why, "cannot use the new serving certificate, the old one stays");
                metrics.failing(true);
                logged = Some(why.clone());
            }
            failure = Some(why);
        }
    }

    /// The CA certificates that have to be trusted: those that the chain ends with, in its file.
    #[must_use]
    pub fn authorities(&self) -> watch::Receiver<Vec<CertificateDer<'static>>> {
        self.needed.subscribe()
    }

    async fn reload(&mut self, metrics: &CertMetrics, trust: Option<&Trust>) -> Result<(), CertError> {
        let files = self.files.clone();
        let material = spawn_blocking(move || files.read())
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        // What has failed before is checked again, because time alone can make it good: it may not
        // have been valid yet.
        if material != self.serving {
            let now = SystemTime::now();
            let certificate = material.check(&self.files.places(), now)?;
            let needed = authorities(&certificate);
            self.needed.send_if_modified(|old| {
                let changed = *old != needed;
                *old = needed;
                changed
            });
            if self.resolver.offer(&certificate, trust, now) {
                metrics.serves(&certificate);
                self.serving = material;
                info!(file = %self.files.certificate.display(), "serving a new certificate");
            }
        }
        Ok(())
    }
}

/// The CA certificates in a chain.
fn authorities(certificate: &ServingCertificate) -> Vec<CertificateDer<'static>> {
    let is_ca = |certificate: &&CertificateDer<'static>| {
        X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.is_ca())
    };
    certificate.chain().iter().skip(1).filter(is_ca).cloned().collect()
}

// === impl CertFiles ===

impl CertFiles {
    fn places(&self) -> Places {
        Places { certificate: self.certificate.display().to_string(), key: self.key.display().to_string() }
    }

    fn read(&self) -> Result<Material, CertError> {
        Ok(Material { chain: read(&self.certificate)?, key: read(&self.key)? })
    }
}

/// Reads a file of certificates or keys.
///
/// # Errors
/// When it cannot be read, or is too large to be what it should be.
pub fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let place = || path.display().to_string();
    let failed = |source: io::Error| CertError::Read { place: place(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CertError::TooLarge { place: place() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_cause() {
        let error = from_files("/does/not/exist.crt", "tls.key").err().unwrap();
        let text = explain(&error);
        assert!(text.starts_with("cannot read /does/not/exist.crt: check"), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_file_that_never_ends_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, CertError::TooLarge { .. }), "{error}");
    }
}
