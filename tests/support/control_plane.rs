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

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// How long a process may take until it is ready: thirty times what it takes on an idle machine.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a process may take to end after SIGTERM, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Time between two looks at something that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often kube-apiserver is started anew because its port was taken between our choice of it and its use.
const PORT_ATTEMPTS: u32 = 5;

/// How much of the end of a log a panic message carries, in bytes.
const LOG_TAIL: usize = 4096;

/// Environment variables that would lead the control plane's own connections through a proxy.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// What a [`ControlPlane`] consists of. The default is etcd and kube-apiserver alone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    controller_manager: bool,
    api_server_flags: Vec<String>,
    audit_policy: Option<serde_json::Value>,
}

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: clients end before their servers, and the thread that starts processes, whose end
    // would kill them, and the folder come last.
    controller_manager: Option<Process>,
    api_server: Mutex<Option<Process>>,
    _etcd: Process,
    launcher: Launcher,
    layout: Layout,
    options: Options,
    port: u16,
}

/// Where things are.
#[derive(Debug)]
struct Layout {
    /// The folder with the control plane's programs.
    programs: PathBuf,
    /// The folder with keys, state and logs.
    folder: TempDir,
    kubeconfig: PathBuf,
    audit_log: PathBuf,
}

/// The thread that starts processes. It lives as long as this value, and the processes do not outlive it.
#[derive(Debug)]
struct Launcher {
    /// `None` only while dropping: the thread ends when the sender is gone.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// A command for the [`Launcher`], and where its answer goes.
type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// A process of the control plane. Dropping it ends it.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this process's part of the log begins: a program started again writes behind the earlier part.
    log_start: u64,
}

// === impl Options ===

impl Options {
    /// Adds kube-controller-manager, so that `Deployment`s, `Job`s and `CronJob`s make pods, and namespaces get their
    /// service accounts. Without it, pods need no service account: the `ServiceAccount` admission plugin is off.
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
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
        let (api_server, port) = (0..PORT_ATTEMPTS)
            .find_map(|_| {
                let port = free_port();
                start_api_server(&layout, &options, &launcher, port).map(|process| (process, port))
            })
            .expect("each free port was taken before kube-apiserver could bind it");
        let mut control_plane = Self {
            controller_manager: None,
            api_server: Mutex::new(Some(api_server)),
            _etcd: etcd,
            launcher,
            layout,
            options,
            port,
        };
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

    /// The API server's address, `https://127.0.0.1:PORT`. It stays the same when the API server is started again.
    pub fn url(&self) -> String {
        url(self.port)
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
        self.layout.kubectl(arguments, Stdio::null())
    }

    /// [`Self::kubectl`] with the given standard input, for `-f -`.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub fn kubectl_with_stdin(&self, arguments: &[&str], stdin: impl AsRef<[u8]>) -> Output {
        // From a file: kubectl may print much before it has read all, and two pipes could then wait for each other.
        let mut file = tempfile::tempfile().expect("cannot make a temporary file");
        file.write_all(stdin.as_ref()).and_then(|()| file.rewind()).expect("cannot write a temporary file");
        self.layout.kubectl(arguments, file.into())
    }

    /// Makes a namespace. With kube-controller-manager it also waits for its service account, which that makes a moment
    /// later and without which the API server refuses pods.
    ///
    /// # Panics
    /// When the namespace cannot be made.
    pub fn create_namespace(&self, name: &str) {
        let created = self.kubectl(&["create", "namespace", name]);
        assert!(
            created.status.success(),
            "cannot make namespace {name}: {}",
            String::from_utf8_lossy(&created.stderr)
        );
        if self.options.controller_manager {
            self.await_object(name, "serviceaccount/default");
        }
    }

    /// Ends the API server as an administrator would, with SIGTERM, and waits for its end. Does nothing when it is
    /// already stopped.
    pub fn stop_api_server(&self) {
        drop(self.api_server().take());
    }

    /// Starts the API server again at the same address and waits until it is ready. Does nothing when it runs.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_api_server(&self) {
        let mut api_server = self.api_server();
        if api_server.is_none() {
            // Its port may have become the local end of someone's connection meanwhile.
            let process = (0..PORT_ATTEMPTS).find_map(|attempt| {
                thread::sleep(Duration::from_secs(attempt.into()));
                start_api_server(&self.layout, &self.options, &self.launcher, self.port)
            });
            *api_server = Some(process.expect("kube-apiserver's port is taken by another process"));
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

    fn api_server(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic under the lock is that of a failed start, which left `None` there: still a true account.
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
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
            Some(self.launcher.launch("kube-controller-manager", command, &self.layout));
    }

    /// Waits for an object that a controller makes by itself.
    fn await_object(&self, namespace: &str, object: &str) {
        let deadline = Instant::now() + START_TIMEOUT;
        let arguments = ["get", "--namespace", namespace, object];
        loop {
            let answer = self.kubectl(&arguments);
            if answer.status.success() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no {object} in namespace {namespace}: {}{}",
                String::from_utf8_lossy(&answer.stderr),
                self.controller_manager.as_ref().map_or_else(String::new, Process::log_tail)
            );
            thread::sleep(POLL_INTERVAL);
        }
    }
}

// === impl Layout ===

impl Layout {
    fn new(options: &Options) -> Self {
        let keep = std::env::var_os("REACH_TEST_KEEP").is_some();
        let folder = tempfile::Builder::new()
            .prefix("reach-control-plane-")
            .disable_cleanup(keep)
            .tempdir()
            .expect("cannot make a temporary folder");
        if keep {
            eprintln!("control plane: kept in {}", folder.path().display());
        }
        let layout = Self {
            programs: programs(),
            kubeconfig: folder.path().join("kubeconfig"),
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
    fn write_kubeconfig(&self, port: u16) {
        // The file has the serving certificate and then the CA that signed it.
        let chain = self.read("certificates/apiserver.crt");
        let ca = chain
            .rfind("-----BEGIN CERTIFICATE-----")
            .map(|start| &chain[start..])
            .expect("apiserver.crt has no certificate");
        self.write("ca.crt", ca.to_owned());
        let tokens = self.read("tokens.csv");
        let (token, _) = tokens.split_once(',').expect("tokens.csv has a comma");
        // YAML, which a kubeconfig is, includes JSON.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "reach-test",
                "cluster": {"server": url(port), "certificate-authority": self.path("ca.crt")},
            }],
            "users": [{"name": "reach-test", "user": {"token": token}}],
            "contexts": [{"name": "reach-test", "context": {"cluster": "reach-test", "user": "reach-test"}}],
            "current-context": "reach-test",
        });
        self.write("kubeconfig", kubeconfig.to_string());
    }

    /// A command that runs one of the control plane's programs. It is killed when the thread that spawns it ends.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.programs.join(name));
        for variable in PROXY_VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    fn kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        self.program("kubectl")
            .arg(flag("kubeconfig", &self.kubeconfig))
            // By default kubectl remembers the resources of this address from an earlier control plane at it.
            .arg(flag("cache-dir", &self.path("kubectl-cache")))
            .args(arguments)
            .stdin(stdin)
            .output()
            .expect("cannot run kubectl under setpriv (util-linux)")
    }
}

// === impl Launcher ===

impl Launcher {
    fn new() -> Self {
        let (sender, orders) = mpsc::channel::<Order>();
        let thread = thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                for (mut command, answer) in orders {
                    // Nobody waits for the answer only when the test process is already failing.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("cannot start a thread");
        Self { orders: Some(sender), thread: Some(thread) }
    }

    /// Starts a process that writes to the log of its name.
    fn launch(&self, name: &'static str, mut command: Command, layout: &Layout) -> Process {
        let log = layout.path(&format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()));
        let log_start = file.metadata().map_or(0, |metadata| metadata.len());
        let errors = file.try_clone().expect("cannot duplicate a file handle");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let (sender, answer) = mpsc::channel();
        self.orders
            .as_ref()
            .expect("the launcher has orders until it is dropped")
            .send((command, sender))
            .expect("the launcher's thread lives as long as the launcher");
        let child = answer
            .recv()
            .expect("the launcher answers each order")
            .unwrap_or_else(|error| panic!("cannot start {name} under setpriv (util-linux): {error}"));
        Process { name, child, log, log_start }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing that panics, and a panic here could be the second one.
            let _ = thread.join();
        }
    }
}

// === impl Process ===

impl Process {
    /// Waits until `ready` says so. The status of the process when it ends before.
    fn await_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), ExitStatus> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("cannot wait for a process") {
                return Err(status);
            }
            if ready() {
                return Ok(());
            }
            assert!(
                Instant::now() < deadline,
                "{} is not ready after {START_TIMEOUT:?}{}",
                self.name,
                self.log_tail()
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// What this process has logged so far.
    fn log(&self) -> String {
        let mut log = Vec::new();
        // A log that cannot be read must not hide the failure that it was to explain.
        let _ = File::open(&self.log).and_then(|mut file| {
            file.seek(io::SeekFrom::Start(self.log_start))?;
            file.read_to_end(&mut log)
        });
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of the log, for a message.
    fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL));
        format!("\n--- the end of {}'s log:\n{}", self.name, &log[start..])
    }

    /// Whether the process ends in time.
    fn ends_within(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL_INTERVAL / 10);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The id is this process's until it has been waited for, which only `try_wait` does.
        if self.ends_within(Duration::ZERO) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if !self.ends_within(STOP_TIMEOUT) {
            eprintln!("control plane: {} outlived SIGTERM for {STOP_TIMEOUT:?}", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The folder with the programs, built if need be.
fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build.sh");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    assert!(output.status.success(), "{} failed ({}), its message is above", script.display(), output.status);
    let folder = String::from_utf8(output.stdout).expect("the programs' folder is not UTF-8");
    PathBuf::from(folder.trim_end_matches('\n'))
}

fn start_etcd(layout: &Layout, launcher: &Launcher) -> Process {
    // A socket in our own folder: no port to race for, and nobody else's etcd behind it.
    let socket = layout.path("etcd.sock");
    let mut command = layout.program("etcd");
    command
        .arg(flag("data-dir", &layout.path("etcd")))
        .arg(format!("--listen-client-urls={}", etcd_url(layout)))
        .arg(format!("--advertise-client-urls={}", etcd_url(layout)))
        // It has no peers, so any port does.
        .arg("--listen-peer-urls=http://127.0.0.1:0")
        // Nothing here has to survive a power cut.
        .arg("--unsafe-no-fsync");
    let mut etcd = launcher.launch("etcd", command, layout);
    if let Err(status) = etcd.await_ready(|| is_healthy(&socket).unwrap_or(false)) {
        panic!("etcd ended at its start ({status}){}", etcd.log_tail());
    }
    etcd
}

/// Whether the etcd behind the socket says that it is healthy.
fn is_healthy(socket: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}

fn etcd_url(layout: &Layout) -> String {
    format!("unix://{}", layout.path("etcd.sock").display())
}

/// Starts kube-apiserver, waits until it is ready, and writes the kubeconfig. `None` when another process has the port.
fn start_api_server(layout: &Layout, options: &Options, launcher: &Launcher, port: u16) -> Option<Process> {
    let mut command = layout.program("kube-apiserver");
    command
        .arg(format!("--etcd-servers={}", etcd_url(layout)))
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

    let mut api_server = launcher.launch("kube-apiserver", command, layout);
    // Before it listens, there is no use in the costlier question. Its certificates are written by then, unless it is
    // another process that listens there.
    let mut listening = false;
    let started = api_server.await_ready(|| {
        if !listening
            && layout.path("certificates/apiserver.crt").exists()
            && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            layout.write_kubeconfig(port);
            listening = true;
        }
        listening
            && layout
                .kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"], Stdio::null())
                .status
                .success()
    });
    match started {
        Ok(()) => Some(api_server),
        Err(_) if api_server.log().contains("address already in use") => None,
        Err(status) => panic!("kube-apiserver ended at its start ({status}){}", api_server.log_tail()),
    }
}

/// A port of the loopback interface that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("cannot bind a port of the loopback interface")
        .port()
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// `--name=path`
fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// 128 random bits, in hexadecimal.
fn random_token() -> String {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("cannot read /dev/urandom");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
