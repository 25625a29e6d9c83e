//! reach as its chart installs it, on a control plane without nodes: the test plays the kubelet and runs the Deployment's
//! replicas as processes, with its arguments and the rights of its service account.
//!
//! API servers call replicas through the Service, at addresses in `EndpointSlice`s that the test writes. Those may not be
//! loopback addresses, so replicas listen on an address of this machine, each on a port of its own. For that the API
//! servers have to look up endpoints themselves: [`API_SERVER_FLAG`].

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use reach::certs::authority::Authority;
use reach::certs::{Places, certificates};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::control_plane::ControlPlane;
use super::helm::{self, Version};
use super::kubectl::Kubectl as _;
use super::load::{Api, pod};
use super::serve::Reach;
use super::{eventually, http};

/// What kube-apiserver needs to reach Services here.
pub const API_SERVER_FLAG: &str = "--enable-aggregator-routing=true";

/// What the shared preset gives to each pod.
pub const VARIABLE: (&str, &str) = ("http_proxy", "http://proxy.corp.example:3128");

/// Kinds of the chart that a control plane without nodes and controllers has a use for.
const KINDS: [&str; 7] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "MutatingWebhookConfiguration",
];

/// An installed release.
#[derive(Debug)]
pub struct Installation<'c> {
    /// Name of everything: the release, its Service, its configuration.
    pub name: String,
    /// Namespace of the release.
    pub namespace: String,
    /// The namespace whose pods are sent to this release, and to no other.
    pub pods: String,
    /// A client who may do everything, of each API server.
    pub apis: Vec<Api>,
    /// The MutatingWebhookConfiguration as the chart has it.
    pub manifest: Value,
    /// What the chart asks cert-manager for. Not applied: that takes its CRDs.
    pub certificates: Vec<Value>,
    arguments: Vec<String>,
    kubeconfig: NamedTempFile,
    control_plane: &'c ControlPlane,
}

/// An address of this machine that is no loopback address.
///
/// # Panics
/// When it has none.
pub fn own_address() -> IpAddr {
    // Nothing is sent: the kernel only chooses the address that it would send from.
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
            socket.local_addr()
        })
        .map(|address| address.ip())
        .expect("this machine has no address but loopback ones; API servers call no Service at those")
}

impl<'c> Installation<'c> {
    /// Installs the chart with these values, beside others: it serves the pods of a namespace of its own.
    ///
    /// # Panics
    /// When the chart refuses the values or the API server an object.
    pub fn new(control_plane: &'c ControlPlane, name: &str, values: &Value) -> Self {
        let mut all = json!({"fullnameOverride": name, "failurePolicy": "Fail", "timeoutSeconds": 10});
        let values = values.as_object().expect("values").clone();
        all.as_object_mut().expect("values").extend(values);
        let namespace = format!("{name}-system");
        let rendered = helm::template_as(Version::V4, name, &namespace, &all, &[]).expect("the chart");
        Self::of(control_plane, name, helm::objects(&rendered))
    }

    /// [`Self::new`] with the objects of a release of this name in the namespace `NAME-system`, wherever they come from. Of
    /// two that are the same object, the later one counts.
    ///
    /// # Panics
    /// When the API server refuses an object.
    pub fn of(control_plane: &'c ControlPlane, name: &str, given: Vec<Value>) -> Self {
        let (namespace, pods) = (format!("{name}-system"), format!("{name}-pods"));
        let mut arguments = Vec::new();
        let mut manifest = Value::Null;
        let mut certificates = Vec::new();
        let mut objects = Vec::new();
        for mut object in given {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            match kind.as_str() {
                "Deployment" => {
                    let given = &object["spec"]["template"]["spec"]["containers"][0]["args"];
                    arguments = given.as_array().expect("args").iter().map(text).skip(1).collect();
                }
                "Service" => {
                    object["spec"].as_object_mut().expect("a spec").remove("selector");
                }
                "MutatingWebhookConfiguration" => {
                    for webhook in object["webhooks"].as_array_mut().expect("webhooks") {
                        webhook["namespaceSelector"]["matchExpressions"]
                            .as_array_mut()
                            .expect("the chart excludes namespaces")
                            .push(json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [pods]}));
                    }
                    manifest = object.clone();
                }
                _ => {}
            }
            let is_hook = object["metadata"]["annotations"]["helm.sh/hook"].is_string();
            if text(&object["apiVersion"]).starts_with("cert-manager.io/") {
                certificates.push(object);
            } else if KINDS.contains(&kind.as_str()) && !is_hook {
                objects.push(object);
            }
        }
        for namespace in [&namespace, &pods] {
            control_plane.create_namespace(namespace);
        }
        control_plane.apply(&json!(objects));

        let apis = [control_plane.kubeconfig(), control_plane.second_kubeconfig()];
        let apis: Vec<_> = apis.into_iter().filter(|path| path.exists()).map(Api::new).collect();
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200},
        });
        let token = apis[0].create(&path, &request).expect("a token")["status"]["token"].clone();
        let kubeconfig = NamedTempFile::new().expect("a temporary file");
        let mut config: Value =
            serde_json::from_slice(&fs::read(control_plane.kubeconfig()).expect("a kubeconfig"))
                .expect("JSON");
        config["users"][0]["user"] = json!({"token": token});
        fs::write(kubeconfig.path(), config.to_string()).expect("a temporary file");

        arguments
            .retain(|argument| !argument.starts_with("--listen") && !argument.starts_with("--admin-listen"));
        arguments.extend([
            format!("--namespace={namespace}"),
            format!("--listen={}:0", own_address()),
            format!("--kubeconfig={}", kubeconfig.path().display()),
        ]);
        let name = name.to_owned();
        Self { name, namespace, pods, apis, manifest, certificates, arguments, kubeconfig, control_plane }
    }

    /// Changes the arguments of replicas.
    pub fn with_arguments(mut self, change: impl FnOnce(&mut Vec<String>)) -> Self {
        change(&mut self.arguments);
        self
    }

    /// Gives replicas another value of a flag that the chart sets.
    pub fn with_argument(self, name: &str, value: &str) -> Self {
        self.with_arguments(|arguments| {
            let set = arguments.iter_mut().find(|argument| argument.starts_with(&format!("{name}=")));
            *set.expect("the chart sets the flag") = format!("{name}={value}");
        })
    }

    /// What replicas connect with.
    pub fn kubeconfig(&self) -> &std::path::Path {
        self.kubeconfig.path()
    }

    /// Starts a replica, which need not be ready yet.
    pub fn replica(&self) -> Reach {
        Reach::start(&self.arguments)
    }

    /// Starts replicas at the same moment.
    pub fn replicas(&self, count: usize) -> Vec<Reach> {
        Reach::start_together(std::iter::repeat_n(&self.arguments, count))
    }

    /// Starts replicas and [waits until they serve](Self::await_service).
    pub fn serve(&self, count: usize) -> Vec<Reach> {
        let replicas = self.replicas(count);
        self.await_service(&replicas);
        replicas
    }

    /// Waits until replicas are ready, lets the Service point at them, and waits until pods are injected through each API
    /// server.
    pub fn await_service(&self, replicas: &[Reach]) {
        for reach in replicas {
            reach.await_ready();
        }
        self.route(replicas);
        self.await_injection();
    }

    /// Lets the Service point at these replicas.
    ///
    /// # Panics
    /// When the API server refuses that.
    pub fn route(&self, replicas: &[Reach]) {
        let addresses: Vec<_> = replicas.iter().map(|reach| reach.webhook).collect();
        self.route_to(&addresses);
    }

    /// Lets the Service point at these addresses.
    ///
    /// # Panics
    /// When the API server refuses that.
    pub fn route_to(&self, addresses: &[SocketAddr]) {
        let api = &self.apis[0];
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", self.namespace);
        // Each has a port of its own, so each has a slice of its own.
        let name = |address: &SocketAddr| format!("{}-{}", self.name, address.port());
        let present = api.get(&path).expect("a list");
        let mut present: Vec<_> = present["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|slice| text(&slice["metadata"]["name"]))
            .collect();
        for address in addresses {
            if present.contains(&name(address)) {
                continue;
            }
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name(address),
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
                "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
            });
            api.create(&path, &slice).expect("an EndpointSlice");
        }
        // At no time is there none: that would be a fault of its own.
        present.retain(|slice| !addresses.iter().any(|address| name(address) == *slice));
        for slice in present {
            api.delete(&format!("{path}/{slice}"));
        }
    }

    /// Waits until pods are injected through each API server.
    pub fn await_injection(&self) {
        for api in &self.apis {
            eventually("pods are injected", || {
                let pod = self.dry_run(api)?;
                if is_injected(&pod) { Ok(()) } else { Err(pod.to_string()) }
            });
        }
    }

    /// What an API server would store of a pod.
    pub fn dry_run(&self, api: &Api) -> Result<Value, String> {
        api.create(&format!("/api/v1/namespaces/{}/pods?dryRun=All", self.pods), &pod())
    }

    /// Path of the MutatingWebhookConfiguration.
    pub fn configuration_path(&self) -> String {
        format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}", self.name)
    }

    /// The MutatingWebhookConfiguration.
    pub fn configuration(&self) -> Value {
        self.apis[0].get(&self.configuration_path()).expect("a configuration")
    }

    /// Path of a Secret of the release.
    pub fn secret_path(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/secrets/{name}", self.namespace)
    }

    /// Path of the Secret with reach's own CA.
    pub fn ca_path(&self) -> String {
        self.secret_path(&format!("{}-ca", self.name))
    }

    /// reach's own CA in its Secret, if what is there can be used.
    pub fn ca(&self) -> Result<CertificateDer<'static>, String> {
        let secret = self.apis[0].get(&self.ca_path()).ok_or("no Secret")?;
        let places = Places { certificate: "ca.crt".to_owned(), key: "ca.key".to_owned() };
        let now = std::time::SystemTime::now();
        Authority::read(&value(&secret, "ca.crt"), &value(&secret, "ca.key"), &places, now)
            .map(|authority| authority.certificate().clone())
            .map_err(|error| error.to_string())
    }

    /// The certificates of caBundle, as an API server has it.
    pub fn bundle(&self, api: &Api) -> Vec<CertificateDer<'static>> {
        api.get(&self.configuration_path()).map(|configuration| bundle_of(&configuration)).unwrap_or_default()
    }

    /// The name that API servers call.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The certificate that a replica serves in a new connection, if one of these CAs vouches for it.
    pub fn served(
        &self,
        reach: &Reach,
        cas: &[CertificateDer<'static>],
    ) -> Result<CertificateDer<'static>, String> {
        let stream = http::handshake(reach.webhook, &self.server_name(), cas, "http/1.1", None)
            .map_err(|error| error.to_string())?;
        let chain = stream.conn.peer_certificates().expect("a server has a certificate");
        Ok(chain[0].clone().into_owned())
    }

    /// Waits until the Secret holds one usable CA and every replica serves a certificate of it.
    pub fn await_one_ca(&self, replicas: &[Reach]) -> CertificateDer<'static> {
        eventually("all replicas serve certificates of the CA in the Secret", || {
            let ca = self.ca()?;
            for reach in replicas {
                self.served(reach, std::slice::from_ref(&ca))?;
            }
            Ok::<_, String>(ca)
        })
    }

    /// The control plane.
    pub fn control_plane(&self) -> &'c ControlPlane {
        self.control_plane
    }
}

/// Whether a pod has what the shared preset gives.
pub fn is_injected(pod: &Value) -> bool {
    let (name, value) = VARIABLE;
    let containers = pod["spec"]["containers"].as_array().expect("containers");
    containers.iter().all(|container| {
        let mut env = container["env"].as_array().into_iter().flatten();
        env.any(|variable| variable["name"] == name && variable["value"] == value)
    })
}

/// The certificates of the first webhook's caBundle; none when it is empty or no PEM.
pub fn bundle_of(configuration: &Value) -> Vec<CertificateDer<'static>> {
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    let bundle = base64_simd::STANDARD.decode_to_vec(bundle).expect("base64");
    certificates(&bundle, "caBundle").unwrap_or_default()
}

/// A value of a Secret; empty when it is not there.
pub fn value(secret: &Value, key: &str) -> Vec<u8> {
    let value = secret["data"][key].as_str().unwrap_or_default();
    base64_simd::STANDARD.decode_to_vec(value).expect("base64")
}

/// As the data of a Secret.
pub fn base64(data: impl AsRef<[u8]>) -> String {
    base64_simd::STANDARD.encode_to_string(data)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
