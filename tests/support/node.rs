//! A whole Kubernetes cluster of one real node for tests: containers run, Services answer, and a corporate proxy stands
//! between the pods and the outside.
//!
//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet, kube-proxy, CoreDNS, squid (twice) and a
//! web server run as processes in one network namespace, which no link leaves but one to this machine, over which the test
//! reaches the cluster. The programs come from `tests/control-plane/build.sh`, `tests/node/build.sh` and, as Debian packages,
//! `tests/node/packages.sh`.
//!
//! ```ignore
//! let cluster = Cluster::start(Options::default());
//! cluster.provide(Client::Curl);
//! cluster.create_namespace("shop");
//! cluster.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment", ...}));
//! cluster.await_rollout("shop", "deployment/client");
//! let page = cluster.exec("shop", "deployment/client", &["curl", "-sS", "http://mysql/"]);
//! assert!(cluster.proxy().requests("mysql").is_empty());
//! ```
//!
//! # What pods see
//! | name | where | what |
//! |---|---|---|
//! | `*.svc.cluster.local` | 10.96.0.0/16 | Services |
//! | `proxy.corp.example:3128` | [`Cluster::proxy`] | the corporate proxy |
//! | `other-proxy.corp.example:3128` | [`Cluster::other_proxy`] | another one, with a log of its own |
//! | `www.corp.example` | [`OUTSIDE`] | no such name: only the proxies know it |
//!
//! # The end
//! Dropping a [`Cluster`] ends its processes, each by its own process id, then the containers, and removes mounts, the
//! network namespace and its folder; unwinding from a panic does so too, and being interrupted or asked to end. What a killed run
//! left, the next one removes before it starts. At any time there is one cluster of a number ([`Options::number`]): a second one waits for the first.
//!
//! # Environment
//! - `REACH_TEST_KEEP`: when set, the logs are kept, and their folder printed.
//! - `KUBEBUILDER_ASSETS`, `REACH_TEST_CACHE`: where the programs are, see `build.sh`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use rustix::process::Pid;
use serde_json::Value;

use super::kubectl::{Kubectl, succeeded, text};
use super::process::{
    Launcher, POLL_INTERVAL, PROXY_VARIABLES, Process, START_TIMEOUT, bound, flag, is_healthy,
};
use layout::Layout;

pub(super) mod layout;
mod network;
pub(super) mod remove;
mod requirements;

pub use requirements::{missing, report, report_missing};

/// A name that only the proxies can resolve, of a web server that only they reach. It answers with [`OUTSIDE_PAGE`].
pub const OUTSIDE: &str = "www.corp.example";

/// What the web server outside answers with.
pub const OUTSIDE_PAGE: &str = "the outside\n";

/// Name of the corporate proxy.
pub const PROXY: &str = "proxy.corp.example";

/// Name of another one.
pub const OTHER_PROXY: &str = "other-proxy.corp.example";

/// The name of the only node.
pub const NODE: &str = "node";

/// Port of both proxies.
const PROXY_PORT: u16 = 3128;

/// Namespace of containerd in which kubelet's images and containers are.
const CONTAINERD_NAMESPACE: &str = "k8s.io";

/// The image of each pod's first process.
const PAUSE_IMAGE: &str = "example.test/pause:1";

/// The image that the chart names unless it is told otherwise.
const CHART_IMAGE: &str = concat!("ghcr.io/reach-dev/reach:", env!("CARGO_PKG_VERSION"));

/// What a [`Cluster`] is like. The default is one for tests: it ends with the test.
#[derive(Clone, Debug)]
pub struct Options {
    number: u8,
    detached: bool,
    second_api_server: bool,
    api_server_flags: Vec<String>,
    kubelet: serde_json::Map<String, Value>,
}

/// A running cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: the thread that starts processes, whose end would kill them, comes after them.
    parts: Mutex<BTreeMap<Part, Process>>,
    launcher: Launcher,
    layout: Layout,
    options: Options,
    /// Client images that are in the cluster.
    provided: Mutex<Vec<Client>>,
    /// Locked as long as this cluster has its number.
    _lock: File,
}

/// A process of a cluster, in the order of their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The web server that only the proxies reach.
    Outside,
    /// The corporate proxy.
    Proxy,
    /// The other proxy.
    OtherProxy,
    /// The container runtime. Containers outlive it.
    Containerd,
    /// Where the API servers keep everything.
    Etcd,
    /// The API server.
    ApiServer,
    /// The second API server, with [`Options::with_second_api_server`].
    SecondApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The cluster's DNS, CoreDNS.
    Dns,
    /// What makes Services answer, kube-proxy.
    KubeProxy,
    /// What runs pods.
    Kubelet,
}

/// How long the start of a cluster took, from its first process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Until the API server was ready.
    pub api: Duration,
    /// Until the node was ready.
    pub node: Duration,
    /// Until everything was.
    pub ready: Duration,
}

impl std::fmt::Display for Timings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [api, node, ready] = [self.api, self.node, self.ready].map(|time| time.as_secs_f32());
        write!(f, "API server ready after {api:.1} s, node after {node:.1} s, everything after {ready:.1} s")
    }
}

/// A client program of this machine, as an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// curl.
    Curl,
    /// GNU wget.
    Wget,
    /// Python, with its standard library.
    Python,
}

/// A proxy of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Proxy<'a> {
    name: &'static str,
    log: &'a Path,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            number: 1,
            detached: false,
            second_api_server: false,
            api_server_flags: Vec::new(),
            kubelet: serde_json::Map::new(),
        }
    }
}

impl Options {
    /// A cluster that outlives the process that starts it, until [`Cluster::remove`] is called with its number. It has the number 0.
    pub fn detached() -> Self {
        Self { number: 0, detached: true, ..Self::default() }
    }

    /// The number of the cluster, which its network and its folder are named by: 0 is that of `make cluster`, 1 that of
    /// tests. Clusters of different numbers do not meet.
    pub fn number(mut self, number: u8) -> Self {
        self.number = number;
        self
    }

    /// Adds a second API server with the same etcd, see [`Cluster::second_kubeconfig`]. Pods, controllers and everybody else
    /// use both, as the endpoints of the Service `kubernetes` are both.
    pub fn with_second_api_server(mut self) -> Self {
        self.second_api_server = true;
        self
    }

    /// Adds a flag for kube-apiserver. It comes after the harness's own flags, so that it wins where a flag has one value, and
    /// adds to those that are lists.
    pub fn with_api_server_flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// Adds a field to the KubeletConfiguration.
    pub fn with_kubelet(mut self, field: &str, value: Value) -> Self {
        self.kubelet.insert(field.to_owned(), value);
        self
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster and waits until all of it is ready: the node, the DNS, the proxies, and the namespace `default` with
    /// its service account. Builds the programs first when they are not there yet.
    ///
    /// # Panics
    /// When something is [`missing`], or when a program cannot be had, ends, or is not ready in time; the message has the end
    /// of its log.
    pub fn start(options: Options) -> Self {
        let lacks = missing();
        assert!(lacks.is_empty(), "a real node needs what is missing here: {}", lacks.join("; "));
        let lock = layout::lock(options.number);
        remove::remains(options.number);
        remove::when_interrupted(options.number);
        let layout = Layout::new(&options);
        let cluster = Self::of(layout, options, lock);
        println!("cluster: {}", cluster.start_all());
        cluster
    }

    fn of(layout: Layout, options: Options, lock: File) -> Self {
        Self {
            parts: Mutex::default(),
            launcher: Launcher::new(),
            layout,
            options,
            provided: Mutex::default(),
            _lock: lock,
        }
    }

    /// The [detached](Options::detached) cluster that runs already, if one does.
    pub fn attach() -> Option<Self> {
        let options = Options::detached();
        let lock = layout::lock(options.number);
        let layout = Layout::of(options.number);
        if !layout.kubeconfig.exists() {
            return None;
        }
        let layout = layout.with_programs();
        if !layout.api_is_ready(&layout.kubeconfig) {
            return None;
        }
        Some(Self::of(layout, options, lock))
    }

    /// Ends and removes the cluster of a number, if there is one.
    ///
    /// # Panics
    /// When something of it cannot be ended or removed.
    pub fn remove(number: u8) {
        let _lock = layout::lock(number);
        remove::remains(number);
    }

    /// A kubeconfig of a user in the group `system:masters`, who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.layout.kubeconfig
    }

    /// The same for the second API server.
    pub fn second_kubeconfig(&self) -> &Path {
        &self.layout.second_kubeconfig
    }

    /// The folder with kubectl.
    pub fn programs(&self) -> &Path {
        &self.layout.control_plane
    }

    /// The folder with the logs of all parts.
    pub fn logs(&self) -> &Path {
        &self.layout.logs
    }

    /// The address of the node, at which this machine reaches what listens there.
    pub fn node_address(&self) -> Ipv4Addr {
        self.layout.addresses.node
    }

    /// The address of this machine as the cluster has it.
    pub fn machine_address(&self) -> Ipv4Addr {
        self.layout.addresses.host
    }

    /// Makes an image of a client program of this machine, with `sh`, `sleep`, `cat` and `env`, brings it into the cluster,
    /// and returns its name, [`Client::image`]. Each is made once.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn provide(&self, client: Client) -> &'static str {
        // Locked while it is made: whoever asks for one has it when this returns.
        let mut provided = self.provided.lock().unwrap_or_else(PoisonError::into_inner);
        if !provided.contains(&client) {
            let mut files = vec![client.program().to_owned()];
            if client == Client::Python {
                let asked = Command::new(client.program())
                    .args(["-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])
                    .output()
                    .expect("python3");
                files.push(succeeded("python3", asked).trim().to_owned());
            }
            files.extend(["sh", "sleep", "cat", "env"].map(|name| format!("/bin/{name}")));
            self.import_image(&self.layout.make_image(client.image(), &files));
            provided.push(client);
        }
        client.image()
    }

    /// Imports an archive with images (an OCI image layout, or what `docker save` writes), and returns their full names. Pods
    /// use them with any `imagePullPolicy` but `Always`.
    ///
    /// # Panics
    /// When it cannot be imported.
    fn import_image(&self, archive: &Path) -> Vec<String> {
        let mut import = self.layout.ctr();
        import.args(["images", "import"]).arg(archive);
        succeeded("ctr images import", import.output().expect("ctr"));
        let index = Command::new("tar").arg("-xOf").arg(archive).arg("index.json").output().expect("tar");
        let index: Value =
            serde_json::from_str(&succeeded("tar", index)).expect("the archive's index.json is JSON");
        let names = index["manifests"].as_array().expect("manifests").iter().filter_map(|manifest| {
            let annotations = &manifest["annotations"];
            let name = &annotations["io.containerd.image.name"];
            let name = if name.is_null() { &annotations["org.opencontainers.image.ref.name"] } else { name };
            Some(name.as_str()?.to_owned())
        });
        names.collect()
    }

    /// Imports the archive of `make image` under the name of the chart's image, so that the chart needs no value for it,
    /// and returns that name.
    ///
    /// # Panics
    /// When it cannot be imported.
    pub fn import_reach(&self, archive: &Path) -> &'static str {
        for name in self.import_image(archive) {
            let tagged = self.layout.ctr().args(["images", "tag", "--force", &name, CHART_IMAGE]).output();
            succeeded("ctr images tag", tagged.expect("ctr"));
        }
        CHART_IMAGE
    }

    /// The corporate proxy.
    pub fn proxy(&self) -> Proxy<'_> {
        Proxy::new(PROXY, &self.layout.proxy_log)
    }

    /// The other proxy.
    pub fn other_proxy(&self) -> Proxy<'_> {
        Proxy::new(OTHER_PROXY, &self.layout.other_proxy_log)
    }

    /// A command that runs a program of this machine in the cluster's network, where Services, pods and everything else are
    /// within reach. The program is killed when the thread that spawns it ends.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = bound("nsenter");
        command.arg(flag("net", &self.layout.network.path())).arg(program);
        command
    }

    /// The process of a part that runs.
    ///
    /// # Panics
    /// When it does not.
    pub fn process_of(&self, part: Part) -> Pid {
        self.parts().get(&part).unwrap_or_else(|| panic!("{} is stopped", part.name())).pid()
    }

    /// The first process of a container, by the id that its pod's status gives; `None` when it has ended.
    ///
    /// # Panics
    /// When the container runtime does not tell.
    pub fn process_in(&self, container: &str) -> Option<Pid> {
        let tasks = self.layout.ctr().args(["tasks", "ls"]).output().expect("ctr");
        let tasks = succeeded("ctr tasks ls", tasks);
        let task = tasks
            .lines()
            .map(str::split_whitespace)
            .find_map(|mut words| (words.next() == Some(container)).then(|| (words.next(), words.next())));
        match task {
            Some((Some(id), Some("RUNNING"))) => Pid::from_raw(id.parse().expect("a process id")),
            _ => None,
        }
    }

    /// The socket of etcd.
    pub fn etcd_socket(&self) -> std::path::PathBuf {
        self.layout.etcd_socket()
    }

    /// Stops a part as an administrator would, with SIGTERM, and waits for its end. Does nothing when it is stopped already.
    pub fn stop_part(&self, part: Part) {
        drop(self.parts().remove(&part));
    }

    /// Starts a part again and waits until it is ready. Does nothing when it runs.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_part(&self, part: Part) {
        if !self.parts().contains_key(&part) {
            self.launch(part);
            self.await_part(part);
        }
    }

    /// Stops the cluster as if its machine were shut down: all processes, then all containers, network and mounts. What is on
    /// the disk stays: etcd's data, images, and what kubelet remembers.
    pub fn shut_down(&self) {
        while let Some((_, process)) = { self.parts().pop_last() } {
            drop(process);
        }
        remove::running(&self.layout);
    }

    /// Starts a cluster that is [shut down](Self::shut_down) and waits until it is ready, as [`Self::start`] does.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn boot(&self) -> Timings {
        self.start_all()
    }

    /// Lets a [detached](Options::detached) cluster run on when this process ends.
    ///
    /// # Panics
    /// When the cluster is not detached.
    pub fn leave_running(self) {
        assert!(self.options.detached, "the kernel would end the processes with this one");
        while let Some((_, process)) = { self.parts().pop_last() } {
            process.leave_running();
        }
        // Not dropped, which would remove it; the lock ends with this process.
        std::mem::forget(self);
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, Process>> {
        // A panic under the lock is that of a failed start, which left no entry: still a true account.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_all(&self) -> Timings {
        let layout = &self.layout;
        layout.network.create(&layout.addresses);
        layout.prepare_run();
        let start = Instant::now();
        self.launch_all(&[Part::Outside, Part::Proxy, Part::OtherProxy, Part::Containerd, Part::Etcd]);
        self.await_part(Part::Etcd);
        self.launch(Part::ApiServer);
        self.await_part(Part::Containerd);
        self.import_pause_image();
        self.await_part(Part::ApiServer);
        let api = start.elapsed();
        if self.options.second_api_server {
            self.launch(Part::SecondApiServer);
        }
        let kubelet_start = Timestamp::now();
        self.launch_all(&[Part::ControllerManager, Part::Scheduler, Part::Kubelet, Part::KubeProxy]);
        self.apply(&layout::dns_rights());
        self.launch(Part::Dns);
        self.await_part(Part::Kubelet);
        self.await_node(kubelet_start);
        let node = start.elapsed();
        let launched: Vec<Part> = self.parts().keys().copied().collect();
        for part in launched {
            self.await_part(part);
        }
        self.await_object("default", "serviceaccount/default");
        self.await_object("default", "configmap/kube-root-ca.crt");
        Timings { api, node, ready: start.elapsed() }
    }

    fn import_pause_image(&self) {
        let images = self.layout.ctr().args(["images", "ls", "--quiet"]).output().expect("ctr");
        if !text(&images).lines().any(|name| name == PAUSE_IMAGE) {
            let pause = format!("{}=/pause", self.layout.node.join("pause").display());
            self.import_image(&self.layout.make_image(PAUSE_IMAGE, &[pause]));
        }
    }

    fn launch_all(&self, parts: &[Part]) {
        for part in parts {
            self.launch(*part);
        }
    }

    fn launch(&self, part: Part) {
        let command = self.layout.command(part, &self.options);
        let process = self.launcher.launch(part.name(), command, &self.layout.logs);
        remove::note(&self.layout.folder, process.pid());
        self.parts().insert(part, process);
    }

    /// Waits until a part that was launched is ready.
    fn await_part(&self, part: Part) {
        // Taken out for the time, so that nobody waits for the lock; put back before any panic, so that it is ended.
        let mut process = self.parts().remove(&part).expect("a part that was launched");
        let ready = process.await_ready(|| self.is_ready(part));
        self.parts().insert(part, process);
        ready.unwrap_or_else(|message| panic!("{message}"));
    }

    fn is_ready(&self, part: Part) -> bool {
        let layout = &self.layout;
        let listens = |address: Ipv4Addr, port: u16| {
            TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(1)).is_ok()
        };
        let healthy =
            |port: u16| answers_well(SocketAddr::from((layout.addresses.node, port))).unwrap_or(false);
        match part {
            Part::Outside => listens(layout.addresses.outside, 80),
            Part::Proxy => listens(layout.addresses.proxy, PROXY_PORT),
            Part::OtherProxy => listens(layout.addresses.other_proxy, PROXY_PORT),
            // It listens before it has plugins to answer with.
            Part::Containerd => {
                UnixStream::connect(layout.containerd_socket()).is_ok()
                    && layout.ctr().arg("version").output().is_ok_and(|output| output.status.success())
            }
            Part::Etcd => is_healthy(&layout.etcd_socket()).unwrap_or(false),
            // Before it listens, there is no use in the costlier question.
            Part::ApiServer => {
                listens(layout.addresses.node, layout::API_PORT) && layout.api_is_ready(&layout.kubeconfig)
            }
            Part::SecondApiServer => {
                listens(layout.addresses.second_api, layout::API_PORT)
                    && layout.api_is_ready(&layout.second_kubeconfig)
            }
            // What they do is waited for; they serve nothing themselves.
            Part::ControllerManager | Part::Scheduler => true,
            Part::Dns => listens(layout.addresses.node, 53),
            Part::KubeProxy => healthy(layout::KUBE_PROXY_HEALTH_PORT),
            Part::Kubelet => healthy(layout::KUBELET_HEALTH_PORT),
        }
    }

    /// Waits until the node is ready, as this start's kubelet says and not an earlier one's.
    fn await_node(&self, kubelet_start: Timestamp) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let answer = self.kubectl(&["get", "node", NODE, "--output=json"]);
            let node: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.filter(|condition| condition["type"] == "Ready").any(|condition| {
                let said =
                    condition["lastHeartbeatTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
                // It is given in whole seconds.
                condition["status"] == "True"
                    && said.is_some_and(|said| said.as_second() >= kubelet_start.as_second())
            });
            // The taint goes a moment after, and keeps pods away until then.
            if ready && node["spec"]["taints"].is_null() {
                return;
            }
            if Instant::now() >= deadline {
                let log = self.parts().get(&Part::Kubelet).map_or_else(String::new, Process::log_tail);
                panic!("the node is not ready: {}{log}", text(&answer));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Kubectl for Cluster {
    fn run_kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        self.layout.kubectl(arguments, stdin)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _removing = remove::removing();
        // Nothing of it is needed any more, so nothing has to end in peace.
        for process in self.parts().values_mut().rev() {
            process.kill();
        }
        self.parts().clear();
        remove::running(&self.layout);
        self.layout.remove_folder();
    }
}

// === impl Part ===

impl Part {
    /// What the part is called, and its log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Proxy => "proxy",
            Self::OtherProxy => "other-proxy",
            Self::Containerd => "containerd",
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::SecondApiServer => "second-kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Dns => "coredns",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
        }
    }
}

// === impl Client ===

impl Client {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Curl, Self::Wget, Self::Python];

    /// The name of its image.
    pub fn image(self) -> &'static str {
        match self {
            Self::Curl => "example.test/curl:1",
            Self::Wget => "example.test/wget:1",
            Self::Python => "example.test/python:1",
        }
    }

    /// A command that prints the page at a URL, or fails within seconds.
    pub fn fetch(self, url: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Curl => &["curl", "--silent", "--show-error", "--fail", "--max-time", "10"],
            Self::Wget => &["wget", "--no-verbose", "--output-document=-", "--timeout=10", "--tries=1"],
            Self::Python => &[
                "python3",
                "-c",
                "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')",
            ],
        };
        words.iter().map(|word| (*word).to_owned()).chain([url.to_owned()]).collect()
    }

    fn program(self) -> &'static str {
        match self {
            Self::Curl => "/usr/bin/curl",
            Self::Wget => "/usr/bin/wget",
            Self::Python => "/usr/bin/python3",
        }
    }
}

// === impl Proxy ===

impl<'a> Proxy<'a> {
    /// One that writes its log there.
    pub fn new(name: &'static str, log: &'a Path) -> Self {
        Self { name, log }
    }

    /// Its URL, as in `http_proxy`.
    pub fn url(&self) -> String {
        format!("http://{}:{PROXY_PORT}", self.name)
    }

    /// Its access log: a line a request.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log).expect("the proxy's log can be read")
    }

    /// The lines of the log that are about a host: `GET http://HOST/...` and `CONNECT HOST:443`.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn requests(&self, host: &str) -> Vec<String> {
        let is_about = |line: &&str| {
            // time, duration, client, result, size, method, URL, ...
            let url = line.split_whitespace().nth(6).unwrap_or_default();
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            rest.split(['/', ':']).next() == Some(host)
        };
        self.log().lines().filter(is_about).map(str::to_owned).collect()
    }
}

/// Whether `/healthz` at an address answers with status 200.
fn answers_well(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_whitespace().nth(1) == Some("200"))
}

/// A command without what the environment says about proxies.
fn unproxied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    command
}
