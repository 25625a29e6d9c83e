//! A real Kubernetes control plane for tests: etcd, kube-apiserver and, when asked for, kube-controller-manager.
//!
//! The programs come from `tests/control-plane/build.sh`. All of them listen on the loopback interface or on a socket in
//! a temporary folder, so control planes of concurrent test runs do not meet. Nothing runs pods: those that the
//! controllers make stay pending. Admission webhooks are called by URL, `https://127.0.0.1:PORT/...`.
//!
//! ```ignore
//! let control_plane = ControlPlane::start(Options::default().with_controller_manager());
//! let pods = control_plane.kubectl(&["get", "pods", "--all-namespaces"]);
//! assert!(pods.status.success());
//! ```
//!
//! # The end of the processes
//! Dropping a [`ControlPlane`] ends its processes, each by its own process id, and removes its folder; unwinding from a
//! panic does so too. `std::process::exit` drops nothing, so drop the control plane before it (libtest-mimic's
//! `Conclusion::exit` calls it; `Conclusion::exit_code` lets `main` return instead). However the test process ends, the
//! kernel kills what it started: each program runs under `setpriv --pdeathsig KILL`. The kernel ties that to the *thread*
//! that started the program, not to its process, so one thread starts them all and lives as long as the
//! [`ControlPlane`], whose methods may therefore be called from any thread.
//!
//! Requires util-linux (`setpriv`, `flock`) and what `build.sh` requires.
//!
//! # Environment
//! - `REACH_TEST_KEEP`: when set, the folder with the logs and the state is kept, and its path printed.
//! - `KUBEBUILDER_ASSETS`, `REACH_TEST_CACHE`: where the programs are, see `build.sh`.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::kubectl::{self, Kubectl};
use super::process::{
    Launcher, PORT_ATTEMPTS, Process, bound, etcd_arguments, flag, folder_of, free_port, is_healthy,
    programs, random_token,
};

/// What a [`ControlPlane`] consists of. The default is etcd and kube-apiserver alone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    controller_manager: bool,
    second_api_server: bool,
    api_server_flags: Vec<String>,
    audit_policy: Option<serde_json::Value>,
}

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: clients end before their servers, and the thread that starts processes, whose end
    // would kill them, and the folder come last.
    controller_manager: Option<Process>,
    api_servers: Vec<ApiServer>,
    _etcd: Process,
    launcher: Launcher,
    layout: Layout,
    options: Options,
}

/// An API server, which runs or has been stopped.
#[derive(Debug)]
struct ApiServer {
    process: Mutex<Option<Process>>,
    place: Place,
}

/// What is an API server's own: its log, its port, and the kubeconfig for it.
#[derive(Clone, Debug)]
struct Place {
    name: &'static str,
    port: u16,
    kubeconfig: &'static str,
}

/// Where things are.
#[derive(Debug)]
struct Layout {
    /// The folder with the control plane's programs.
    programs: PathBuf,
    /// The folder with keys, state and logs.
    folder: TempDir,
    kubeconfig: PathBuf,
    second_kubeconfig: PathBuf,
    audit_log: PathBuf,
}

// === impl Options ===

impl Options {
    /// Adds kube-controller-manager, so that `Deployment`s, `Job`s and `CronJob`s make pods, and namespaces get their
    /// service accounts. Without it, pods need no service account: the `ServiceAccount` admission plugin is off.
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// Adds a second API server with the same etcd, see [`ControlPlane::second_kubeconfig`].
    pub fn with_second_api_server(mut self) -> Self {
        self.second_api_server = true;
        self
    }

    /// Adds a flag for kube-apiserver, such as `--enable-aggregator-routing=true`. It comes after the harness's own
    /// flags, so that it wins where a flag has one value, and adds to those that are lists.
    pub fn with_api_server_flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// Turns on the audit log, see [`ControlPlane::audit_log`], with a policy of kind `audit.k8s.io/v1` `Policy`.
    pub fn with_audit_policy(mut self, policy: serde_json::Value) -> Self {
        self.audit_policy = Some(policy);
        self
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts a control plane and waits until it is ready: `/readyz` answers, the namespace `default` is there, and, with
    /// kube-controller-manager, its service account. Builds the programs first when they are not there yet.
    ///
    /// # Panics
    /// When the programs cannot be had, or when one of them ends or is not ready in time; the message has the end of
    /// its log.
    pub fn start(options: Options) -> Self {
        let layout = Layout::new(&options);
        let launcher = Launcher::new();
        let etcd = start_etcd(&layout, &launcher);
        let mut names = vec![("kube-apiserver", "kubeconfig")];
        if options.second_api_server {
            names.push(("second-kube-apiserver", "second-kubeconfig"));
        }
        let api_servers = names
            .into_iter()
            .map(|(name, kubeconfig)| {
                (0..PORT_ATTEMPTS)
                    .find_map(|_| {
                        let place = Place { name, port: free_port(), kubeconfig };
                        let process = start_api_server(&layout, &options, &launcher, &place)?;
                        Some(ApiServer { process: Mutex::new(Some(process)), place })
                    })
                    .expect("each free port was taken before kube-apiserver could bind it")
            })
            .collect();
        let mut control_plane =
            Self { controller_manager: None, api_servers, _etcd: etcd, launcher, layout, options };
        control_plane.await_object("default", "namespace/default");
        if control_plane.options.controller_manager {
            control_plane.start_controller_manager();
            control_plane.await_object("default", "serviceaccount/default");
        }
        control_plane
    }

    /// A kubeconfig of a user in the group `system:masters`, who may do everything. It trusts only this API server.
    pub fn kubeconfig(&self) -> &Path {
        &self.layout.kubeconfig
    }

    /// The same for the second API server, with [`Options::with_second_api_server`].
    pub fn second_kubeconfig(&self) -> &Path {
        &self.layout.second_kubeconfig
    }

    /// The API server's address, `https://127.0.0.1:PORT`. It stays the same when the API server is started again.
    pub fn url(&self) -> String {
        url(self.api_servers[0].place.port)
    }

    /// The folder with the programs: etcd, kube-apiserver, kube-controller-manager and kubectl.
    pub fn programs(&self) -> &Path {
        &self.layout.programs
    }

    /// The audit log: one event a line, as JSON. There is none without [`Options::with_audit_policy`].
    pub fn audit_log(&self) -> &Path {
        &self.layout.audit_log
    }

    /// Runs kubectl as a user who may do everything, and returns what came out of it, whether it succeeded or not.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        Kubectl::kubectl(self, arguments)
    }

    /// [`Self::kubectl`] with the given standard input, for `-f -`.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub fn kubectl_with_stdin(&self, arguments: &[&str], stdin: impl AsRef<[u8]>) -> Output {
        Kubectl::kubectl_with_stdin(self, arguments, stdin)
    }

    /// Sends a signal to the second API server.
    ///
    /// # Panics
    /// When there is none.
    pub fn signal_second_api_server(&self, signal: Signal) {
        let process = self.api_servers[1].process();
        kill_process(process.as_ref().expect("it runs").pid(), signal).expect("a process that we started");
    }

    /// Ends the API server (both, where there are two) as an administrator would, with SIGTERM, and waits for its end. Does
    /// nothing when it is already stopped.
    pub fn stop_api_server(&self) {
        for api_server in &self.api_servers {
            drop(api_server.process().take());
        }
    }

    /// Starts the API server (both, where there are two) again at the same address and waits until it is ready. Does nothing
    /// when it runs.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_api_server(&self) {
        for api_server in &self.api_servers {
            let mut process = api_server.process();
            if process.is_none() {
                // Its port may have become the local end of someone's connection meanwhile.
                let started = (0..PORT_ATTEMPTS).find_map(|attempt| {
                    thread::sleep(Duration::from_secs(attempt.into()));
                    start_api_server(&self.layout, &self.options, &self.launcher, &api_server.place)
                });
                *process = Some(started.expect("kube-apiserver's port is taken by another process"));
            }
        }
    }

    /// [`Self::stop_api_server`], then [`Self::start_api_server`].
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart_api_server(&self) {
        self.stop_api_server();
        self.start_api_server();
    }

    fn start_controller_manager(&mut self) {
        let mut command = self.layout.program("kube-controller-manager");
        command
            .arg(flag("kubeconfig", &self.layout.kubeconfig))
            .arg(flag("root-ca-file", &self.layout.path("ca.crt")))
            .arg(flag("service-account-private-key-file", &self.layout.api_server_key()))
            // The only one of its kind needs no election, and serves nothing that a test asks for.
            .args(["--leader-elect=false", "--secure-port=0"]);
        self.controller_manager =
            Some(self.launcher.launch("kube-controller-manager", command, self.layout.folder.path()));
    }
}

impl Kubectl for ControlPlane {
    fn run_kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        self.layout.kubectl_at(&self.layout.kubeconfig, arguments, stdin)
    }

    /// Without kube-controller-manager there is nothing to wait for.
    fn create_namespace(&self, name: &str) {
        self.ask(&["create", "namespace", name]);
        if self.options.controller_manager {
            self.await_object(name, "serviceaccount/default");
        }
    }
}

// === impl ApiServer ===

impl ApiServer {
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic under the lock is that of a failed start, which left `None` there: still a true account.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Layout ===

impl Layout {
    fn new(options: &Options) -> Self {
        let folder = folder_of("control plane");
        let layout = Self {
            programs: programs("control-plane/build.sh"),
            kubeconfig: folder.path().join("kubeconfig"),
            second_kubeconfig: folder.path().join("second-kubeconfig"),
            audit_log: folder.path().join("audit.log"),
            folder,
        };
        // Unguessable, because every user of this machine reaches the loopback interface.
        layout.write("tokens.csv", format!("{},reach-test,reach-test,system:masters\n", random_token()));
        if let Some(policy) = &options.audit_policy {
            layout.write("audit-policy.json", policy.to_string());
        }
        layout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: String) {
        // Others may be reading the kubeconfig while the API server is started again.
        if fs::read(self.path(name)).is_ok_and(|present| present == content.as_bytes()) {
            return;
        }
        fs::write(self.path(name), content).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("cannot read {name}: {error}"))
    }

    /// The private key that kube-apiserver makes for its serving certificate. It also signs service account tokens:
    /// kube-apiserver makes the key before it reads the flags of those, so no other program needs to make one.
    fn api_server_key(&self) -> PathBuf {
        self.path("certificates/apiserver.key")
    }

    /// Writes what clients need of the certificates that kube-apiserver has made, the kubeconfig among it.
    fn write_kubeconfig(&self, place: &Place) {
        // The file has the serving certificate and then the CA that signed it.
        let chain = self.read("certificates/apiserver.crt");
        let ca = chain
            .rfind("-----BEGIN CERTIFICATE-----")
            .map(|start| &chain[start..])
            .expect("apiserver.crt has no certificate");
        self.write("ca.crt", ca.to_owned());
        let tokens = self.read("tokens.csv");
        let (token, _) = tokens.split_once(',').expect("tokens.csv has a comma");
        let kubeconfig = kubectl::kubeconfig(&url(place.port), &self.path("ca.crt"), token);
        self.write(place.kubeconfig, kubeconfig);
    }

    /// A command that runs one of the control plane's programs. It is killed when the thread that spawns it ends.
    fn program(&self, name: &str) -> Command {
        bound(self.programs.join(name))
    }

    fn etcd_socket(&self) -> PathBuf {
        self.path("etcd.sock")
    }

    fn kubectl_at(&self, kubeconfig: &Path, arguments: &[&str], stdin: Stdio) -> Output {
        kubectl::run(&self.programs, kubeconfig, &self.path("kubectl-cache"), arguments, stdin)
    }
}

fn start_etcd(layout: &Layout, launcher: &Launcher) -> Process {
    let socket = layout.etcd_socket();
    let mut command = layout.program("etcd");
    command.args(etcd_arguments(&layout.path("etcd"), &socket));
    let mut etcd = launcher.launch("etcd", command, layout.folder.path());
    let started = etcd.await_ready(|| is_healthy(&socket).unwrap_or(false));
    started.unwrap_or_else(|message| panic!("{message}"));
    etcd
}

/// Starts kube-apiserver, waits until it is ready, and writes the kubeconfig. `None` when another process has the port.
fn start_api_server(
    layout: &Layout,
    options: &Options,
    launcher: &Launcher,
    place: &Place,
) -> Option<Process> {
    let port = place.port;
    let mut command = layout.program("kube-apiserver");
    command
        .arg(format!("--etcd-servers=unix://{}", layout.etcd_socket().display()))
        .arg(format!("--secure-port={port}"))
        .arg(flag("cert-dir", &layout.path("certificates")))
        .arg(flag("token-auth-file", &layout.path("tokens.csv")))
        .arg(flag("service-account-key-file", &layout.api_server_key()))
        .arg(flag("service-account-signing-key-file", &layout.api_server_key()))
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            // A loopback address may not stand in the endpoints of the service `kubernetes`.
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            // Its end then takes about 2 seconds. Without, it waits up to a minute for open watches to end by themselves.
            "--shutdown-send-retry-after=true",
        ]);
    if !options.controller_manager {
        // It requires the service accounts that kube-controller-manager makes.
        command.arg("--disable-admission-plugins=ServiceAccount");
    }
    if options.audit_policy.is_some() {
        command
            .arg(flag("audit-policy-file", &layout.path("audit-policy.json")))
            .arg(flag("audit-log-path", &layout.audit_log));
    }
    command.args(&options.api_server_flags);

    let mut api_server = launcher.launch(place.name, command, layout.folder.path());
    // Before it listens, there is no use in the costlier question. Its certificates are written by then, unless it is
    // another process that listens there.
    let mut listening = false;
    let started = api_server.await_ready(|| {
        if !listening
            && layout.path("certificates/apiserver.crt").exists()
            && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            layout.write_kubeconfig(place);
            listening = true;
        }
        listening
            && layout
                .kubectl_at(&layout.path(place.kubeconfig), &kubectl::READY, Stdio::null())
                .status
                .success()
    });
    match started {
        Ok(()) => Some(api_server),
        Err(_) if api_server.log().contains("address already in use") => None,
        Err(message) => panic!("{message}"),
    }
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}
