//! The real cert-manager: its controllers make and renew the certificate, and its injector writes caBundle.

use std::time::Duration;

use reach::certs::certificates;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::calls::Calls;
use crate::cluster::Cluster;
use crate::support::control_plane::ControlPlane;
use crate::support::eventually;
use crate::support::helm::{objects, root, text};
use crate::support::installation::{Installation, VARIABLE, value};
use crate::support::kubectl::Kubectl as _;
use crate::support::load::{Load, STORED};
use crate::support::process::{Launcher, Process, bound, folder_of, programs};
use crate::support::serve::Reach;

/// Pods that there have to be in each test.
const LEAST: usize = 500;

/// cert-manager with its CRDs. Dropping it ends it.
#[derive(Debug)]
pub struct CertManager {
    process: Process,
    // The kernel ends the process with the thread of this, so it comes after.
    _launcher: Launcher,
    _logs: TempDir,
}

pub fn renews_and_reach_keeps_the_bundle(cluster: &Cluster) {
    const BY_HAND: usize = 4;
    // The files that people apply, and no other.
    let release = Installation::of(&cluster.control_plane, "reach", plain());
    let release = release.with_arguments(|arguments| {
        assert!(arguments.contains(&"--ca-bundle=keep".to_owned()), "{arguments:?}");
        assert!(arguments.contains(&"--tls-secret=reach-tls".to_owned()), "{arguments:?}");
        arguments.push("--ca-propagation=3s".to_owned());
    });
    let manager = cluster.cert_manager();
    let replicas = start(&release, manager);
    let first_ca = manager.issued(&release, "reach-tls", "ca.crt").expect("a CA");

    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(60), STORED);
    let mut calls = Calls::new(&release, &replicas);
    for _ in 0..BY_HAND {
        let leaf = manager.renew(&release, "reach-tls");
        calls.until_served(&leaf);
    }
    // The other way that people know. For a moment there is no Secret at all.
    let before = manager.issued(&release, "reach-tls", "tls.crt").expect("a certificate");
    release.apis[0].delete(&release.secret_path("reach-tls"));
    let leaf = manager.await_other(&release, "reach-tls", &before);
    calls.until_served(&leaf);

    let ca = manager.renew(&release, "reach-ca");
    // Nothing of this CA is served before somebody renews the leaf.
    let leaf = manager.renew_under(&release, &ca);
    calls.until_served(&leaf);
    for api in &release.apis {
        let bundle = release.bundle(api);
        assert!(bundle.contains(&first_ca) && bundle.contains(&ca), "united");
    }
    load.await_pods(LEAST);
    let counts = load.stop();
    println!(
        "cert-manager, reach writes caBundle: {BY_HAND} renewals by hand, 1 of a deleted Secret, 1 with a new CA; \
         {counts}; {} new connections, 0 refused; leaf changes {:?}",
        calls.made,
        calls.changes()
    );
    counts.assert_all_injected(LEAST);
    assert!(calls.changes().iter().all(|&changes| changes >= BY_HAND + 2), "{:?}", calls.changes());
}

pub fn renews_and_its_injector_writes_the_bundle(cluster: &Cluster) {
    const RENEWALS: usize = 3;
    // cert-manager gives no life shorter than an hour, but renews as long before its end as one likes: here each 20 s.
    let times = json!({"duration": "1h", "renewBefore": "59m40s"});
    let certificates = json!({"mode": "certManager", "caBundle": "certManager", "certManager": times});
    let release = cluster.install("cainjected", &json!({"certificates": certificates}));
    let release = release.with_arguments(|arguments| {
        assert!(arguments.contains(&"--ca-bundle=check".to_owned()), "{arguments:?}");
        arguments.push("--ca-propagation=3s".to_owned());
    });
    let manager = cluster.cert_manager();
    let replicas = start(&release, manager);
    let first_ca = manager.issued(&release, "cainjected-tls", "ca.crt").expect("a CA");
    for api in &release.apis {
        assert_eq!(release.bundle(api), std::slice::from_ref(&first_ca), "the injector's");
    }

    // It goes on for a minute and a half, beside other tests.
    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(150), STORED);
    let mut calls = Calls::new(&release, &replicas);
    calls.until("it renews", |calls| calls.changes().iter().all(|&changes| changes >= RENEWALS));
    let ca = manager.renew(&release, "cainjected-ca");
    calls.until("a certificate of the new CA is served", |_| {
        replicas.iter().all(|reach| release.served(reach, std::slice::from_ref(&ca)).is_ok())
    });
    for api in &release.apis {
        let bundle = release.bundle(api);
        assert!(bundle.contains(&first_ca) && bundle.contains(&ca), "united");
    }
    load.await_pods(LEAST);
    let counts = load.stop();
    for reach in &replicas {
        assert_eq!(reach.metric("reach_ca_bundle_writes_total"), Some(0.0), "it only looks");
    }
    println!(
        "cert-manager, its injector writes caBundle: it renewed by itself, at the end under a new CA; {counts}; \
         {} new connections, 0 refused; leaf changes {:?}",
        calls.made,
        calls.changes()
    );
    counts.assert_all_injected(LEAST);
}

/// Starts replicas before there is a certificate, then has cert-manager make it, and waits until pods are injected.
fn start(release: &Installation<'_>, manager: &CertManager) -> Vec<Reach> {
    let replicas = release.replicas(2);
    for reach in &replicas {
        reach.await_unready("certificate: none to serve yet");
    }
    release.control_plane().apply(&json!(release.certificates));
    manager.await_ready(release);
    release.await_service(&replicas);
    replicas
}

/// `kubectl apply -f webhook/reach.yaml -f certs/cert-manager.yaml`, with a failure that is seen as one, and time for a busy
/// machine.
fn plain() -> Vec<Value> {
    let files = ["webhook/reach.yaml", "certs/cert-manager.yaml"];
    let files = files.map(|file| std::fs::read_to_string(root().join(file)).expect("a file"));
    let mut all: Vec<_> = files.iter().flat_map(|file| objects(file)).collect();
    for object in all.iter_mut().filter(|object| object["kind"] == "MutatingWebhookConfiguration") {
        object["webhooks"][0]["failurePolicy"] = json!("Fail");
        object["webhooks"][0]["timeoutSeconds"] = json!(10);
    }
    all
}

// === impl CertManager ===

impl CertManager {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be had, or the API server refuses its CRDs.
    pub fn start(control_plane: &ControlPlane) -> Self {
        let folder = programs("cert-manager/build.sh");
        let crds = folder.join("crds");
        control_plane.ask(&["apply", "--server-side", "-f", text(&crds)]);
        control_plane.ask(&["wait", "--for=condition=Established", "--timeout=60s", "-f", text(&crds)]);
        let logs = folder_of("cert-manager");
        let launcher = Launcher::new();
        let mut command = bound(folder.join("cert-manager"));
        command.arg(control_plane.kubeconfig());
        let process = launcher.launch("cert-manager", command, logs.path());
        Self { process, _launcher: launcher, _logs: logs }
    }

    /// What to look at when it does not do what it should.
    fn tail(&self) -> String {
        self.process.log_tail()
    }

    /// Waits until it says that all certificates of a release are there.
    fn await_ready(&self, release: &Installation<'_>) {
        for certificate in release.certificates.iter().filter(|object| object["kind"] == "Certificate") {
            let path = path(release, certificate["metadata"]["name"].as_str().expect("a name"));
            eventually("the certificate is there", || {
                let certificate = release.apis[0].get(&path).expect("a Certificate");
                let mut conditions = certificate["status"]["conditions"].as_array().into_iter().flatten();
                let is_ready =
                    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
                if is_ready { Ok(()) } else { Err(certificate["status"].to_string() + &self.tail()) }
            });
        }
    }

    /// The first certificate under a key of the Secret of a Certificate.
    fn issued(
        &self,
        release: &Installation<'_>,
        certificate: &str,
        key: &str,
    ) -> Result<CertificateDer<'static>, String> {
        let certificate = release.apis[0].get(&path(release, certificate)).ok_or("no Certificate")?;
        let secret = certificate["spec"]["secretName"].as_str().expect("a name");
        let secret = release.apis[0].get(&release.secret_path(secret)).ok_or("no Secret")?;
        let issued =
            certificates(&value(&secret, key), key).map_err(|error| error.to_string() + &self.tail())?;
        Ok(issued[0].clone())
    }

    /// Waits until there is another certificate, and returns that.
    fn await_other(
        &self,
        release: &Installation<'_>,
        certificate: &str,
        before: &CertificateDer<'_>,
    ) -> CertificateDer<'static> {
        eventually("cert-manager makes another certificate", || {
            let issued = self.issued(release, certificate, "tls.crt")?;
            if issued == *before { Err("the same one".to_owned() + &self.tail()) } else { Ok(issued) }
        })
    }

    /// Has it make a certificate anew, as `cmctl renew` does, and returns that.
    fn renew(&self, release: &Installation<'_>, certificate: &str) -> CertificateDer<'static> {
        let before = self.issued(release, certificate, "tls.crt").expect("a certificate");
        let path = path(release, certificate);
        let generation = release.apis[0].get(&path).expect("a Certificate")["metadata"]["generation"].clone();
        let condition = json!({
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "observedGeneration": generation,
        });
        let add = json!([{"op": "add", "path": "/status/conditions/-", "value": condition}]);
        // There is one such condition at most, so this fails until an issuance before it is over.
        eventually("a renewal can be asked for", || release.apis[0].patch(&format!("{path}/status"), &add));
        self.await_other(release, certificate, &before)
    }

    /// Renews the leaf of the release `reach` until it is of this CA: the one that signs may learn of it a moment late.
    fn renew_under(&self, release: &Installation<'_>, ca: &CertificateDer<'_>) -> CertificateDer<'static> {
        eventually("a leaf of the new CA", || {
            let leaf = self.renew(release, "reach-tls");
            let signer = self.issued(release, "reach-tls", "ca.crt")?;
            if signer == *ca { Ok(leaf) } else { Err("it is of the old CA".to_owned()) }
        })
    }
}

/// Path of a Certificate.
fn path(release: &Installation<'_>, certificate: &str) -> String {
    format!("/apis/cert-manager.io/v1/namespaces/{}/certificates/{certificate}", release.namespace)
}
