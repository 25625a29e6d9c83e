//! The control plane that the tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cert_manager::CertManager;
use crate::support::control_plane::{ControlPlane, Options};
use crate::support::installation::{API_SERVER_FLAG, Installation, VARIABLE};
use crate::support::kubectl::{Kubectl as _, succeeded};
use crate::support::pki::{Ca, Pair};
use crate::support::serve;

/// The name that API servers show to the release that asks for their certificate.
pub const API_SERVER: &str = "kube-apiserver.example";

/// The release that API servers show a certificate to, and no other.
pub const KNOWN: &str = "known";

/// A control plane with two API servers, the CRDs, and a preset for the pods of all releases.
#[derive(Debug)]
pub struct Cluster {
    // A client ends before its server.
    cert_manager: OnceLock<CertManager>,
    // Dropped before the folder that its API servers read.
    pub control_plane: ControlPlane,
    pub clients: Clients,
}

/// Certificates of those that call webhooks.
#[derive(Debug)]
pub struct Clients {
    pub ca: Ca,
    pub api_server: Pair,
    folder: TempDir,
}

impl Cluster {
    /// Starts it.
    pub fn start() -> Self {
        let clients = Clients::new();
        let options = Options::default()
            .with_second_api_server()
            .with_api_server_flag(API_SERVER_FLAG)
            .with_api_server_flag(format!(
                "--admission-control-config-file={}",
                clients.write_admission().display()
            ));
        let control_plane = ControlPlane::start(options);
        let names = apply_crds(&control_plane);
        assert_eq!(names.lines().count(), 2, "{names}");
        let crds = ["podpresets.reach.dev", "clusterpodpresets.reach.dev"];
        control_plane
            .ask(&[&["wait", "--for=condition=Established", "--timeout=60s", "crd"], &crds[..]].concat());
        let (name, value) = VARIABLE;
        let preset = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": "corporate-proxy"},
            "spec": {"env": [{"name": name, "value": value}]},
        });
        control_plane.apply(&preset);
        Self { cert_manager: OnceLock::new(), control_plane, clients }
    }

    /// Installs a release.
    pub fn install(&self, name: &str, values: &Value) -> Installation<'_> {
        Installation::new(&self.control_plane, name, values)
    }

    /// cert-manager, started for the first test that asks for it.
    pub fn cert_manager(&self) -> &CertManager {
        self.cert_manager.get_or_init(|| CertManager::start(&self.control_plane))
    }

    /// The kubeconfigs of both API servers.
    pub fn kubeconfigs(&self) -> [&Path; 2] {
        [self.control_plane.kubeconfig(), self.control_plane.second_kubeconfig()]
    }
}

/// `reach crds --apply`, and what it says.
pub fn apply_crds(control_plane: &ControlPlane) -> String {
    let mut command = serve::command();
    command.args(["crds", "--apply", "--kubeconfig"]).arg(control_plane.kubeconfig());
    succeeded("reach crds --apply", command.output().expect("reach runs"))
}

impl Clients {
    fn new() -> Self {
        let ca = Ca::new("CA of clients");
        let api_server = ca.client(API_SERVER);
        let folder = tempfile::Builder::new().prefix("reach-clients-").tempdir().expect("a temporary folder");
        Self { ca, api_server, folder }
    }

    /// The file with the CA, as `--client-ca` takes it.
    pub fn ca_file(&self) -> PathBuf {
        self.write("client-ca.crt", &self.ca.pem)
    }

    /// What makes API servers show their certificate, as the documentation of Kubernetes has it.
    fn write_admission(&self) -> PathBuf {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "users": [{
                "name": format!("{KNOWN}.{KNOWN}-system.svc"),
                "user": {
                    "client-certificate": self.write("api-server.crt", &self.api_server.certificate),
                    "client-key": self.write("api-server.key", &self.api_server.key),
                },
            }],
        });
        let kubeconfig = self.write("webhooks.kubeconfig", &kubeconfig.to_string());
        let admission = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{
                "name": "MutatingAdmissionWebhook",
                "configuration": {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "WebhookAdmissionConfiguration",
                    "kubeConfigFile": kubeconfig,
                },
            }],
        });
        self.write("admission.yaml", &admission.to_string())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a temporary file");
        path
    }
}
