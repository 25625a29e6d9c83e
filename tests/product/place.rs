//! Where the product is tested, and its release there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::support::helm::{self, NAMESPACE, Version, chart};
use crate::support::kubectl::{Kubectl, succeeded, text};
use crate::support::node::{Client, Cluster, OTHER_PROXY, Options, PROXY, Proxy};
use crate::support::process::{bound, flag};
use crate::support::workloads::{Site, container};
use crate::support::{PATIENCE, eventually, eventually_within};

/// Values of every release here: the cluster's proxy, and its networks.
pub const VALUES: [&str; 2] =
    ["--set=proxy.http=http://proxy.corp.example:3128", "--set=proxy.noProxy={10.96.0.0/16,10.244.0.0/16}"];

/// What they give to every container.
pub const PROXY_VARIABLE: (&str, &str) = ("http_proxy", "http://proxy.corp.example:3128");

/// The product in a cluster.
#[derive(Debug)]
pub struct Product {
    place: Place,
    /// Values of the release beside [`VALUES`], when that is known.
    release: Mutex<Option<Vec<String>>>,
}

/// Whose cluster it is.
#[derive(Debug)]
enum Place {
    /// Ours.
    Node(Box<Cluster>),
    /// One that was there.
    Existing(Existing),
}

/// A cluster that somebody else has made, with reach's image and those of all clients in it, with proxies of the names
/// [`PROXY`] and [`OTHER_PROXY`], and with a web server that only those reach.
#[derive(Debug)]
pub struct Existing {
    kubeconfig: PathBuf,
    proxy_log: PathBuf,
    other_proxy_log: PathBuf,
    programs: PathBuf,
}

// === impl Existing ===

impl Existing {
    /// The one that `REACH_TEST_KUBECONFIG` names, with access logs of its proxies in `REACH_TEST_PROXY_LOG` and
    /// `REACH_TEST_OTHER_PROXY_LOG`.
    pub fn from_environment() -> Option<Self> {
        let file = |name: &str| {
            PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name}: expected a file")))
        };
        std::env::var_os("REACH_TEST_KUBECONFIG").map(|kubeconfig| Self {
            kubeconfig: kubeconfig.into(),
            proxy_log: file("REACH_TEST_PROXY_LOG"),
            other_proxy_log: file("REACH_TEST_OTHER_PROXY_LOG"),
            programs: folder_of("kubectl"),
        })
    }
}

// === impl Product ===

impl Product {
    /// Starts a cluster with reach's image in it. Nothing is installed.
    ///
    /// # Panics
    /// When the cluster cannot be had, or there is no image.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// [`Self::start`], of such a cluster.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(options: Options) -> Self {
        let archive = archive();
        let cluster = Cluster::start(options.with_second_api_server());
        println!("image: {}", cluster.import_reach(&archive));
        Self { place: Place::Node(Box::new(cluster)), release: Mutex::default() }
    }

    /// In a cluster that is there.
    pub fn of(existing: Existing) -> Self {
        Self { place: Place::Existing(existing), release: Mutex::default() }
    }

    /// The cluster, when it is ours to do with as we like.
    pub fn node(&self) -> Option<&Cluster> {
        match &self.place {
            Place::Node(cluster) => Some(cluster),
            Place::Existing(_) => None,
        }
    }

    /// A kubeconfig of each API server.
    pub fn kubeconfigs(&self) -> Vec<&Path> {
        match &self.place {
            Place::Node(cluster) => vec![cluster.kubeconfig(), cluster.second_kubeconfig()],
            Place::Existing(existing) => vec![&existing.kubeconfig],
        }
    }

    /// The folder with kubectl.
    pub fn programs(&self) -> &Path {
        match &self.place {
            Place::Node(cluster) => cluster.programs(),
            Place::Existing(existing) => &existing.programs,
        }
    }

    /// The corporate proxy.
    pub fn proxy(&self) -> Proxy<'_> {
        match &self.place {
            Place::Node(cluster) => cluster.proxy(),
            Place::Existing(existing) => Proxy::new(PROXY, &existing.proxy_log),
        }
    }

    /// The other proxy.
    pub fn other_proxy(&self) -> Proxy<'_> {
        match &self.place {
            Place::Node(cluster) => cluster.other_proxy(),
            Place::Existing(existing) => Proxy::new(OTHER_PROXY, &existing.other_proxy_log),
        }
    }

    /// Runs Helm.
    pub fn helm(&self, version: Version, arguments: &[&str]) -> Output {
        let all = [arguments, &["--kubeconfig", helm::text(self.kubeconfigs()[0]), "--namespace", NAMESPACE]];
        helm::helm(version, all.concat())
    }

    /// What a Helm that succeeds prints.
    ///
    /// # Panics
    /// When it fails; the message has what it said.
    #[track_caller]
    pub fn ask_helm(&self, version: Version, arguments: &[&str]) -> String {
        let output = self.helm(version, arguments);
        if !output.status.success() {
            eprintln!("{}{}", self.describe(NAMESPACE), self.replica_logs());
        }
        succeeded(&format!("helm {}", arguments.join(" ")), output)
    }

    /// Sees to it that a release of [`VALUES`] and these is installed, all of it ready.
    ///
    /// # Panics
    /// When Helm fails.
    #[track_caller]
    pub fn release(&self, values: &[&str]) {
        if self.release_state().as_deref().is_some_and(|present| present == values) {
            return;
        }
        self.changed();
        self.deploy(Version::V4, &["upgrade", "--install"], &chart(), values);
        self.is(values);
    }

    /// Runs `helm install`, or another command, of a chart as the release, with [`VALUES`] and these, and waits until all of it is
    /// ready. What Helm says.
    ///
    /// # Panics
    /// When Helm fails.
    #[track_caller]
    pub fn deploy(&self, version: Version, command: &[&str], chart: &Path, values: &[&str]) -> String {
        let fixed = ["reach", helm::text(chart), "--create-namespace", "--wait", "--timeout=3m"];
        self.ask_helm(version, &[command, &fixed, &VALUES, values].concat())
    }

    /// Changes the number of replicas, and waits until it is so.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn scale(&self, replicas: u8) {
        let count = format!("--replicas={replicas}");
        self.ask(&["scale", "deployment/reach", "--namespace", NAMESPACE, &count]);
        if replicas > 0 {
            return self.await_rollout(NAMESPACE, "deployment/reach");
        }
        // The controllers may have lost their API server a moment ago, and look for it again at ever longer intervals.
        eventually_within(3 * PATIENCE, "no replica is left", || {
            let left = self.replicas_and_those_that_end();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// Removes the CRDs, and with them all presets.
    pub fn delete_crds(&self) {
        let crds = ["clusterpodpresets.reach.dev", "podpresets.reach.dev"];
        self.ask(&[&["delete", "crds", "--ignore-not-found"], &crds[..]].concat());
    }

    /// Removes the release, if there is one. Presets stay.
    ///
    /// # Panics
    /// When Helm fails.
    #[track_caller]
    pub fn uninstall(&self, version: Version) {
        self.changed();
        self.ask_helm(version, &["uninstall", "reach", "--ignore-not-found", "--wait", "--timeout=3m"]);
    }

    /// Notes that the release has these values beside [`VALUES`], and all of it is ready.
    pub fn is(&self, values: &[&str]) {
        *self.release_state() = Some(values.iter().map(|&value| value.to_owned()).collect());
    }

    /// Notes that the release is not, or may not be, as it was.
    pub fn changed(&self) {
        *self.release_state() = None;
    }

    fn release_state(&self) -> std::sync::MutexGuard<'_, Option<Vec<String>>> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a namespace, unless it is there already.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        if !self.kubectl(&["get", "namespace", name]).status.success() {
            self.create_namespace(name);
        }
    }

    /// Asks the API server for a pod that it does not keep, and returns it as it would be. Otherwise what it says.
    pub fn try_pod(&self, namespace: &str, labels: &Value) -> Result<Value, String> {
        // One that every namespace takes.
        let app = container(Client::Curl, &json!([]));
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "try", "namespace": namespace, "labels": labels},
            "spec": {"containers": [app]},
        });
        let arguments = ["create", "--dry-run=server", "--output=json", "--filename=-"];
        let output = self.kubectl_with_stdin(&arguments, pod.to_string());
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).expect("kubectl prints JSON"))
        } else {
            Err(text(&output))
        }
    }

    /// Whether a pod of a namespace is injected. Otherwise what the API server says.
    pub fn injects(&self, namespace: &str) -> Result<bool, String> {
        self.try_pod(namespace, &json!({})).map(|pod| is_injected(&pod))
    }

    /// Waits until pods of a namespace are injected, or are not.
    ///
    /// # Panics
    /// When that does not become so.
    #[track_caller]
    pub fn await_injection(&self, namespace: &str, expected: bool) {
        let wanted = if expected { "injected" } else { "left alone" };
        // API servers learn of a change a moment later.
        eventually(&format!("a pod in {namespace} is {wanted}"), || match self.injects(namespace) {
            Ok(injected) if injected == expected => Ok(()),
            Ok(injected) => Err(format!("injected: {injected}")),
            Err(error) => Err(error),
        });
    }

    /// The names of reach's pods that are not about to end.
    pub fn replicas(&self) -> BTreeSet<String> {
        let pods = self.get(&["pods", "--namespace", NAMESPACE, "--selector", REPLICAS]);
        let pods = pods["items"].as_array().expect("a list").iter();
        let living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        living.map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// The names of all of reach's pods.
    pub fn replicas_and_those_that_end(&self) -> BTreeSet<String> {
        let names =
            self.ask(&["get", "pods", "--namespace", NAMESPACE, "--selector", REPLICAS, "--output=name"]);
        names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
    }

    /// The end of the logs of all replicas, for a message.
    pub fn replica_logs(&self) -> String {
        let arguments = [
            "logs",
            "--namespace",
            NAMESPACE,
            "--selector",
            REPLICAS,
            "--tail=30",
            "--prefix",
            "--all-containers",
        ];
        format!("\n--- logs of reach:\n{}", text(&self.kubectl(&arguments)))
    }

    /// Calls of the webhook that failed and were ignored, as all API servers have counted since their start.
    pub fn failed_open(&self) -> u64 {
        self.kubeconfigs().into_iter().map(|kubeconfig| self.failed_open_at(kubeconfig)).sum()
    }

    /// The same of the API server of a kubeconfig.
    pub fn failed_open_at(&self, kubeconfig: &Path) -> u64 {
        let metrics = self.ask(&["--kubeconfig", helm::text(kubeconfig), "get", "--raw", "/metrics"]);
        let ours = metrics.lines().filter(|line| {
            line.starts_with("apiserver_admission_webhook_fail_open_count{")
                && line.contains("name=\"pods.reach.dev\"")
        });
        let counts =
            ours.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number"));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let all = counts.sum::<f64>() as u64;
        all
    }
}

/// What the pods of the webhook are selected by.
pub const REPLICAS: &str = "app.kubernetes.io/name=reach,app.kubernetes.io/component=webhook";

impl Kubectl for Product {
    fn run_kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        match &self.place {
            Place::Node(cluster) => cluster.run_kubectl(arguments, stdin),
            Place::Existing(existing) => bound(existing.programs.join("kubectl"))
                .arg(flag("kubeconfig", &existing.kubeconfig))
                .args(arguments)
                .stdin(stdin)
                .output()
                .expect("cannot run kubectl under setpriv (util-linux)"),
        }
    }
}

impl Site for Product {
    fn provide(&self, client: Client) {
        if let Some(cluster) = self.node() {
            cluster.provide(client);
        }
    }
}

/// The chart as if it were of an earlier version, over CRDs that were, too. It has not been released yet, so there is no
/// other one.
pub fn earlier_chart(folder: &Path) {
    let copied = Command::new("cp").arg("-a").arg(chart()).arg(folder).output().expect("cp");
    succeeded("cp", copied);
    let edit = |file: &str, from: &str, to: &str| {
        let path = folder.join(file);
        let before = fs::read_to_string(&path).expect("a file of the chart");
        let after = before.replacen(from, to, 1);
        assert_ne!(before, after, "{file} has no {from}");
        fs::write(path, after).expect("a file of the chart");
    };
    edit("Chart.yaml", "\nversion: ", "\nversion: 0.0.1-before.");
    edit("crds/reach.dev_podpresets.yaml", "    shortNames:\n    - pp\n", "");
}

/// Whether a pod has the proxy of [`VALUES`] in its first container.
pub fn is_injected(pod: &Value) -> bool {
    variable(pod, PROXY_VARIABLE.0) == Some(PROXY_VARIABLE.1)
        && variable(pod, "no_proxy").is_some_and(|value| value.contains("10.96.0.0/16"))
}

/// A variable of the first container of a pod.
pub fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let variables = pod["spec"]["containers"][0]["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

/// The folder of a program of the machine.
fn folder_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders
        .find(|folder| folder.join(program).is_file())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

/// The archive of `make image`.
fn archive() -> PathBuf {
    let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("image").join("reach.tar");
    let archive = std::env::var_os("ARCHIVE").map_or_else(default, PathBuf::from);
    assert!(archive.exists(), "{}: no such file: run `make image` first", archive.display());
    archive
}
