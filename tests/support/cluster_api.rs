//! Real Cluster API for tests: its core, kubeadm bootstrap and kubeadm control-plane controllers with their webhooks, over
//! a real API server, and one more for each workload cluster that a test wants.
//!
//! The programs, CRDs and webhook manifests come from `tests/cluster-api/build.sh`. What is no part of it is played:
//! - vSphere, metal3 and the in-cluster IPAM provider are only CRDs that take everything ([`stand_ins`]); a test says itself
//!   when the infrastructure is there ([`WorkloadCluster::provision`], [`WorkloadCluster::boot`]).
//! - No machine boots: [`WorkloadCluster::boot`] makes the Node and the static pods that the first one would have made.
//!
//! ```ignore
//! let cluster_api = ClusterApi::start();
//! let shop = cluster_api.create("shop", "shop", Workload::Running, &manifest);
//! let first = shop.user_data(Role::First).text;
//! shop.boot();
//! let worker = shop.user_data(Role::Worker).text;
//! ```
//!
//! # The end
//! Dropping a [`ClusterApi`] ends its processes, as with [`ControlPlane`]: the same holds for it.
//!
//! # Environment
//! - `REACH_TEST_KEEP`: when set, logs and state are kept, and their folders printed.
//! - `KUBEBUILDER_ASSETS`, `REACH_TEST_CACHE`: where the programs are, see `build.sh`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::control_plane::{ControlPlane, Options};
use super::http;
use super::kubectl::{self, Kubectl as _, succeeded, text};
use super::pki::Ca;
use super::process::{Launcher, PORT_ATTEMPTS, Process, bound, flag, folder_of, free_port, programs};
use stand_ins::stand_ins;
pub use user_data::UserData;

mod stand_ins;
mod user_data;

/// How long controllers may take for what they do step by step, with back-off between the steps: ten times what it takes on
/// an idle machine.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Time between two looks at something that is waited for: each of them is a kubectl.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// The programs of `tests/cluster-api/build.sh`.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| programs("cluster-api/build.sh"));

/// The addon of the examples, below the root of the project.
const ADDON: &str = "examples/cluster-api/addon/kustomization.yaml";

/// Where a machine stands in the life of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The control-plane machine that runs `kubeadm init`.
    First,
    /// A control-plane machine that joins it.
    Joining,
    /// A worker.
    Worker,
}

/// Cluster API. Dropping it ends it.
#[derive(Debug)]
pub struct ClusterApi {
    // Fields are dropped in this order: clients before their servers, and the thread that starts processes, whose end would
    // kill them, and the folder come last.
    managers: Vec<Process>,
    _launcher: Launcher,
    /// The API server that has Cluster API's objects.
    pub management: ControlPlane,
    _folder: TempDir,
}

/// One of the programs.
#[derive(Debug)]
struct Provider {
    /// Its program, and the folder of its manifests.
    name: &'static str,
    /// What its own deployment puts in front of the names of its webhook configurations.
    prefix: &'static str,
    feature_gates: &'static str,
}

/// What all of them are given.
#[derive(Debug)]
struct Layout {
    folder: TempDir,
    ca: Ca,
    kubeconfig: PathBuf,
}

const PROVIDERS: [Provider; 3] = [
    Provider { name: "core", prefix: "capi", feature_gates: "ClusterTopology=true,RuntimeSDK=true" },
    Provider {
        name: "bootstrap",
        prefix: "capi-kubeadm-bootstrap",
        feature_gates: "KubeadmBootstrapFormatIgnition=true",
    },
    Provider {
        name: "control-plane",
        prefix: "capi-kubeadm-control-plane",
        feature_gates: "ClusterTopology=true,KubeadmBootstrapFormatIgnition=true",
    },
];

/// Whether there is an API server where a Cluster's kubeconfig leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// There is one, from the beginning.
    Running,
    /// There is none, as before the first machine has started.
    Absent,
}

/// A Cluster and what is behind it.
#[derive(Debug)]
pub struct WorkloadCluster<'c> {
    cluster_api: &'c ClusterApi,
    workload: Option<ControlPlane>,
    /// Its namespace in the management cluster.
    pub namespace: String,
    /// The name of the Cluster.
    pub name: String,
}

/// The real clusterctl, without the user's configuration of it.
pub fn clusterctl() -> Command {
    let mut command = bound(PROGRAMS.join("clusterctl"));
    // Where there is none: it reads nothing but its environment then.
    command.env("HOME", "/nowhere").env("XDG_CONFIG_HOME", "/nowhere");
    command
}

/// Ignition's own validator.
pub fn ignition_validate() -> Command {
    bound(PROGRAMS.join("ignition-validate"))
}

// === impl ClusterApi ===

impl ClusterApi {
    /// Starts a control plane and the controllers, and waits until these are ready. Builds the programs first when they
    /// are not there yet.
    ///
    /// # Panics
    /// When the programs cannot be had, or when one of them ends or is not ready in time; the message has the end of its log.
    pub fn start() -> Self {
        let management = ControlPlane::start(Options::default());
        let layout = Layout {
            folder: folder_of("cluster api"),
            ca: Ca::new("CA of Cluster API's webhooks"),
            kubeconfig: management.kubeconfig().to_owned(),
        };
        layout.write_certificate();
        management.apply(&json!(stand_ins()));
        for provider in &PROVIDERS {
            let crds = Layout::manifests(provider).join("crds");
            management.ask(&["apply", "--server-side", "-f", super::helm::text(&crds)]);
        }
        let launcher = Launcher::new();
        let start = |provider| layout.start(provider, &launcher, &management);
        // All at once: most of its start, each of them waits.
        let mut managers: Vec<_> = PROVIDERS.iter().map(start).collect();
        for (provider, (process, port)) in PROVIDERS.iter().zip(&mut managers) {
            for attempt in 0.. {
                match process.await_ready(|| is_ready(*port)) {
                    Ok(()) => break,
                    Err(message) => {
                        let is_taken = process.log().contains("address already in use");
                        assert!(is_taken && attempt < PORT_ATTEMPTS, "{message}");
                        (*process, *port) = start(provider);
                    }
                }
            }
        }
        let managers = managers.into_iter().map(|(process, _)| process).collect();
        Self { managers, _launcher: launcher, management, _folder: layout.folder }
    }

    /// `kubectl apply --server-side` of a stream of manifests, in a namespace that is made for it when it is not there.
    /// Objects that name no namespace go into it; all others have to name this one.
    pub fn apply(&self, namespace: &str, stream: &str) -> Output {
        self.create_namespace(namespace);
        let arguments = ["apply", "--server-side", "--force-conflicts", "--namespace", namespace, "-f", "-"];
        self.management.kubectl_with_stdin(&arguments, stream)
    }

    /// Applies a stream of manifests that has a Cluster of this name, and [provisions](WorkloadCluster::provision) it.
    ///
    /// # Panics
    /// When a webhook or the API server refuses an object of it.
    #[track_caller]
    pub fn create(
        &self,
        namespace: &str,
        name: &str,
        workload: Workload,
        stream: &str,
    ) -> WorkloadCluster<'_> {
        let cluster = self.expect(namespace, name, workload);
        succeeded("kubectl apply", self.apply(namespace, stream));
        cluster.provision();
        cluster
    }

    /// Prepares for a Cluster that is not there yet: makes its namespace and its kubeconfig.
    pub fn expect(&self, namespace: &str, name: &str, workload: Workload) -> WorkloadCluster<'_> {
        let workload = (workload == Workload::Running).then(|| ControlPlane::start(Options::default()));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let cluster = WorkloadCluster { cluster_api: self, namespace, name, workload };
        self.create_namespace(&cluster.namespace);
        cluster.write_kubeconfig();
        cluster
    }

    /// Applies a stream of manifests that has a Cluster of this name, which runs already: this kubeconfig leads to it.
    ///
    /// # Panics
    /// As [`Self::create`].
    #[track_caller]
    pub fn adopt(&self, namespace: &str, name: &str, kubeconfig: &Path, stream: &str) -> WorkloadCluster<'_> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let cluster = WorkloadCluster { cluster_api: self, namespace, name, workload: None };
        self.create_namespace(&cluster.namespace);
        cluster.keep_kubeconfig(&fs::read_to_string(kubeconfig).expect("a kubeconfig"));
        succeeded("kubectl apply", self.apply(&cluster.namespace, stream));
        cluster.provision();
        cluster
    }

    /// Runs the command that the addon of the examples tells, in a copy of the project, or in itself.
    ///
    /// # Panics
    /// When it fails.
    pub fn apply_addon(&self, root: &Path) {
        let documented = fs::read_to_string(root.join(ADDON)).expect("the addon");
        let commands: Vec<_> =
            documented.lines().filter_map(|line| line.strip_prefix("#   kubectl ")).collect();
        assert_eq!(commands.len(), 1, "{documented}");
        let programs = self.management.programs().display().to_string();
        let output = Command::new("sh")
            .args(["-c", &format!("PATH={programs}:$PATH && kubectl {}", commands[0])])
            .env("KUBECONFIG", self.management.kubeconfig())
            .current_dir(root)
            .output()
            .expect("sh runs");
        succeeded(commands[0], output);
    }

    fn create_namespace(&self, name: &str) {
        self.management.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }

    /// The ends of the controllers' logs, for a message.
    pub fn log_tails(&self) -> String {
        self.managers.iter().map(Process::log_tail).collect()
    }
}

// === impl Layout ===

impl Layout {
    fn manifests(provider: &Provider) -> PathBuf {
        PROGRAMS.join("manifests").join(provider.name)
    }

    fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    fn write_certificate(&self) {
        let pair = self.ca.server("127.0.0.1");
        fs::create_dir(self.certificates()).expect("a temporary folder");
        fs::write(self.certificates().join("tls.crt"), pair.certificate).expect("a temporary file");
        fs::write(self.certificates().join("tls.key"), pair.key).expect("a temporary file");
    }

    /// Starts a program, and tells the API server where its webhooks are. With it comes the port that answers whether it is
    /// ready.
    fn start(&self, provider: &Provider, launcher: &Launcher, management: &ControlPlane) -> (Process, u16) {
        let (webhooks, health) = (free_port(), free_port());
        self.register(provider, management, webhooks);
        let mut command = bound(PROGRAMS.join(provider.name));
        command
            .arg(flag("kubeconfig", &self.kubeconfig))
            .arg(flag("webhook-cert-dir", &self.certificates()))
            .arg(format!("--webhook-port={webhooks}"))
            .arg(format!("--health-addr=127.0.0.1:{health}"))
            .arg(format!("--feature-gates={}", provider.feature_gates))
            .args([
                // Nobody asks for metrics.
                "--diagnostics-address=0",
                // There is nothing of an earlier version in a new cluster.
                "--skip-crd-migration-phases=StorageVersionMigration,CleanupManagedFields",
            ])
            .env("POD_NAMESPACE", "capi-system");
        (launcher.launch(provider.name, command, self.folder.path()), health)
    }

    /// What kustomize does to the manifests in Cluster API's own deployment, with a URL in the place of a Service.
    fn register(&self, provider: &Provider, management: &ControlPlane, port: u16) {
        let client = |path: &str| {
            json!({
                "url": format!("https://127.0.0.1:{port}{path}"),
                "caBundle": STANDARD.encode_to_string(self.ca.pem.as_bytes()),
            })
        };
        let manifests = Layout::manifests(provider);
        let mut objects: Vec<_> = files(&manifests.join("crds"))
            .iter()
            .map(|path| {
                // Each is named after its CRD: GROUP_PLURAL.yaml.
                let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8");
                let (group, plural) = stem.split_once('_').expect("a group and a plural");
                json!({
                    "apiVersion": "apiextensions.k8s.io/v1",
                    "kind": "CustomResourceDefinition",
                    "metadata": {
                        "name": format!("{plural}.{group}"),
                        "labels": contract_labels(),
                    },
                    "spec": {"conversion": {
                        "strategy": "Webhook",
                        "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client("/convert")},
                    }},
                })
            })
            .collect();
        let webhooks = fs::read_to_string(manifests.join("webhooks.yaml")).expect("a manifest");
        for mut object in super::helm::objects(&webhooks) {
            let name = object["metadata"]["name"].as_str().expect("a name");
            object["metadata"]["name"] = json!(format!("{}-{name}", provider.prefix));
            for webhook in object["webhooks"].as_array_mut().expect("webhooks") {
                let path = webhook["clientConfig"]["service"]["path"].as_str().expect("a path");
                webhook["clientConfig"] = client(path);
            }
            objects.push(object);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        // A manager of its own, which owns nothing of what the CRDs say themselves; what it applies is no whole CRD.
        let arguments = [
            "apply",
            "--server-side",
            "--validate=false",
            "--field-manager=reach-test",
            "--force-conflicts",
            "-f",
            "-",
        ];
        succeeded("kubectl apply", management.kubectl_with_stdin(&arguments, list));
    }
}

/// Says which version of which contract a CRD fulfils: Cluster API looks for it.
fn contract_labels() -> Value {
    json!({"cluster.x-k8s.io/v1beta1": "v1beta1", "cluster.x-k8s.io/v1beta2": "v1beta2"})
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

fn is_ready(port: u16) -> bool {
    let Ok(connection) = http::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) else { return false };
    http::exchange(connection, &http::request("GET", "/readyz", "", ""))
        .is_ok_and(|reply| reply.status == 200)
}

// === impl WorkloadCluster ===

impl WorkloadCluster<'_> {
    /// The API server of the cluster itself.
    ///
    /// # Panics
    /// When it has none.
    pub fn workload(&self) -> &ControlPlane {
        self.workload.as_ref().expect("the cluster was created with `Workload::Running`")
    }

    /// Before the controllers make one that leads to the cluster's endpoint, which nobody on this machine may call.
    fn write_kubeconfig(&self) {
        let kubeconfig = match &self.workload {
            Some(workload) => fs::read_to_string(workload.kubeconfig()).expect("a kubeconfig"),
            // The port is nobody's.
            None => kubectl::kubeconfig("https://127.0.0.1:1", Path::new("/nowhere"), ""),
        };
        let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
        let cluster = kubeconfig["clusters"][0]["cluster"].as_object_mut().expect("a cluster");
        let ca = cluster.remove("certificate-authority").expect("a CA");
        // Without, it would only be an error to read it.
        if let Ok(ca) = fs::read(ca.as_str().expect("a path")) {
            let ca = STANDARD.encode_to_string(ca);
            cluster.insert("certificate-authority-data".to_owned(), json!(ca));
        }
        self.keep_kubeconfig(&kubeconfig.to_string());
    }

    fn keep_kubeconfig(&self, kubeconfig: &str) {
        self.cluster_api.management.apply(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            // Of this type, it is a user's own, which the controllers leave alone.
            "type": "Opaque",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-kubeconfig", self.name),
                "labels": {"cluster.x-k8s.io/cluster-name": self.name},
            },
            "stringData": {"value": kubeconfig},
        }));
    }

    /// Plays vSphere for the cluster itself: its infrastructure is there.
    pub fn provision(&self) {
        // A class's is made by a controller.
        let (resource, name) = self.eventually("the Cluster has its infrastructure", || {
            let cluster = self.get("clusters", &self.name)?;
            resource_of(&cluster["spec"]["infrastructureRef"])
        });
        self.patch(
            &resource,
            &name,
            "--subresource=status",
            &json!({
                "status": {"initialization": {"provisioned": true}},
            }),
        );
    }

    /// Plays vSphere and kubeadm for the first control-plane machine: it is there, its Node has joined, its static pods run.
    /// etcd cannot be played, so that the control plane has to have an external one when it is to become larger.
    pub fn boot(&self) {
        let machine = self.machine(Role::First);
        let name = machine["metadata"]["name"].as_str().expect("a name").to_owned();
        let (resource, infrastructure) =
            resource_of(&machine["spec"]["infrastructureRef"]).expect("a reference");
        let provider_id = format!("vsphere://{name}");
        self.patch(&resource, &infrastructure, "", &json!({"spec": {"providerID": provider_id}}));
        let workload = self.workload();
        workload.apply(&json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {
                "providerID": provider_id,
                "taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
            },
        }));
        let ready =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let status =
            ["--subresource=status", "--type=merge", "--patch", &ready.to_string()].map(str::to_owned);
        let status: Vec<_> = status.iter().map(String::as_str).collect();
        workload.ask(&[&["patch", "node", &name][..], &status].concat());
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let pod = format!("{component}-{name}");
            workload.apply(&json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "namespace": "kube-system",
                    "name": pod,
                    // As kubeadm has them: the controllers look for these pods alone.
                    "labels": {"tier": "control-plane", "component": component},
                },
                "spec": {
                    "nodeName": name,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": component, "image": component}],
                },
            }));
            workload.ask(&[&["patch", "pod", "--namespace=kube-system", &pod][..], &status].concat());
        }
        workload.apply(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": "kubeadm-config"},
        }));
        self.patch(
            &resource,
            &infrastructure,
            "--subresource=status",
            &json!({
                "status": {"initialization": {"provisioned": true}},
            }),
        );
    }

    /// Waits until the controller says that it has applied all of the addon, and returns the ClusterResourceSet.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn await_addon(&self) -> Value {
        self.eventually("the addon is applied", || {
            let set = self.get("clusterresourcesets", "reach")?;
            let binding = self.get("clusterresourcesetbindings", &self.name)?;
            let resources =
                binding["spec"]["bindings"][0]["resources"].as_array().cloned().unwrap_or_default();
            let is_applied =
                resources.len() == 2 && resources.iter().all(|resource| resource["applied"] == true);
            if is_applied { Ok(set) } else { Err(format!("{}{binding}", set["status"])) }
        })
    }

    /// The bootstrap data that the controllers make for a machine, as soon as there is one.
    ///
    /// # Panics
    /// When there is none in time.
    #[track_caller]
    pub fn user_data(&self, role: Role) -> UserData {
        let machine = self.machine(role);
        let secret = machine["spec"]["bootstrap"]["dataSecretName"].as_str().expect("a name");
        let secret = self.get("secrets", secret).unwrap_or_else(|error| panic!("{error}"));
        let value = |key: &str| {
            let value = secret["data"][key].as_str().unwrap_or_default();
            let value = STANDARD.decode_to_vec(value).expect("base64");
            String::from_utf8(value).expect("UTF-8")
        };
        UserData { text: value("value"), format: value("format") }
    }

    /// A Machine with bootstrap data.
    #[track_caller]
    fn machine(&self, role: Role) -> Value {
        self.eventually(&format!("the bootstrap data of the machine {role:?}"), || {
            let mut machines = self.list("machines");
            machines.retain(|machine| {
                let labels = &machine["metadata"]["labels"];
                labels["cluster.x-k8s.io/cluster-name"] == self.name
                    && labels["cluster.x-k8s.io/control-plane"].is_string() == (role != Role::Worker)
            });
            // The control plane has one after the other.
            machines.sort_by_key(|machine| machine["metadata"]["creationTimestamp"].to_string());
            let machine = machines.into_iter().nth(usize::from(role == Role::Joining)).ok_or("no Machine")?;
            if machine["spec"]["bootstrap"]["dataSecretName"].is_string() {
                Ok(machine)
            } else {
                Err(machine["status"]["conditions"].to_string())
            }
        })
    }

    /// All objects of these resources in the cluster's namespace: `list("clusters,machines")`.
    pub fn list(&self, resources: &str) -> Vec<Value> {
        let mut list = self.cluster_api.management.get(&[resources, "--namespace", &self.namespace]);
        let Value::Array(items) = list["items"].take() else { panic!("no list of {resources}") };
        items
    }

    /// An object of the cluster's namespace: `get("kubeadmcontrolplanes", "shop")`.
    pub fn get(&self, resource: &str, name: &str) -> Result<Value, String> {
        let arguments = ["get", "--output=json", "--namespace", &self.namespace, resource, name];
        let answer = self.cluster_api.management.kubectl(&arguments);
        if !answer.status.success() {
            return Err(text(&answer));
        }
        Ok(serde_json::from_slice(&answer.stdout).expect("kubectl prints JSON"))
    }

    fn patch(&self, resource: &str, name: &str, option: &str, patch: &Value) {
        let patch = patch.to_string();
        let mut arguments =
            vec!["patch", resource, name, "--namespace", &self.namespace, "--type=merge", "--patch", &patch];
        arguments.extend((!option.is_empty()).then_some(option));
        self.cluster_api.management.ask(&arguments);
    }

    /// Waits for the controllers.
    ///
    /// # Panics
    /// When they do not do it in time; the message has their logs.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask() {
                Ok(answer) => return answer,
                Err(instead) => assert!(
                    Instant::now() < deadline,
                    "{what} ({}/{}): still not so; instead:\n{instead}\n{}",
                    self.namespace,
                    self.name,
                    self.cluster_api.log_tails()
                ),
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The resource and the name that a reference means, for kubectl.
fn resource_of(reference: &Value) -> Result<(String, String), String> {
    let field = |name: &str| reference[name].as_str().map(str::to_owned);
    let (Some(kind), Some(group), Some(name)) = (field("kind"), field("apiGroup"), field("name")) else {
        return Err(format!("a reference that is not there yet: {reference}"));
    };
    Ok((format!("{kind}.{group}"), name))
}
