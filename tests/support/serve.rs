//! `reach serve` as a process: the real binary, on ports of its own, ended by its own process id.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::http::{self, Reply};

/// Path of the webhook.
pub const PATH: &str = "/mutate/pods";

/// How much of the end of a log a failing test prints, in bytes.
const LOG_TAIL: usize = 4096;

/// A running `reach serve`. Dropping it ends it.
///
/// The kernel kills the process when the *thread* that started it ends, however that ends, so a server belongs to the
/// test function that starts it (or to `main`).
#[derive(Debug)]
pub struct Reach {
    child: Child,
    /// Where reviews go.
    pub webhook: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    folder: TempDir,
}

/// The binary under test, without what the environment of the test says about reach, proxies and clusters.
pub fn command() -> Command {
    clean(Command::new(program()))
}

/// The binary under test: that of this build, or `REACH_TEST_PROGRAM`, so that figures are of what ships.
pub fn program() -> OsString {
    let given = std::env::var_os("REACH_TEST_PROGRAM").filter(|program| !program.is_empty());
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_reach").into())
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let lower = name.to_ascii_lowercase();
        if name.starts_with("REACH_") || name == "KUBECONFIG" || lower.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

impl Reach {
    /// Starts `reach serve` with these arguments on free ports, and waits until it says where it listens. It makes its
    /// own certificate unless `--tls-cert` is among the arguments.
    ///
    /// # Panics
    /// When it ends instead; the message has its log.
    pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start_program(&[program()], arguments)
    }

    /// [`Self::start`] with another program, or one behind the words of a command that runs it.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_program<P: AsRef<OsStr>, A: AsRef<OsStr>>(
        program: &[P],
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::spawn(program, arguments).listening()
    }

    /// Starts as many `reach serve` with these arguments as there are lists of them, all before it waits for any of them.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_together<A: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = impl IntoIterator<Item = A>>,
    ) -> Vec<Self> {
        let spawned: Vec<_> =
            arguments.into_iter().map(|arguments| Self::spawn(&[program()], arguments)).collect();
        spawned.into_iter().map(Self::listening).collect()
    }

    fn spawn<P: AsRef<OsStr>, A: AsRef<OsStr>>(
        program: &[P],
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let folder = tempfile::Builder::new().prefix("reach-serve-").tempdir().expect("a temporary folder");
        let open = |name: &str| File::create(folder.path().join(name)).expect("a new file");
        let has = |names: &[&str]| {
            arguments.iter().any(|argument| {
                let argument = argument.to_string_lossy();
                names.contains(&argument.split_once('=').map_or(&*argument, |(name, _)| name))
            })
        };
        let mut command = clean(Command::new("setpriv"));
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(program)
            .arg("serve")
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(open("stdout"))
            .stderr(open("stderr"));
        for address in ["--listen", "--admin-listen"] {
            if !has(&[address]) {
                command.args([address, "127.0.0.1:0"]);
            }
        }
        if !has(&["--tls-cert", "--tls-secret", "--ca-secret"]) {
            command.arg("--ca-out").arg(folder.path().join("ca.pem"));
        }
        let child = command.spawn().expect("cannot run setpriv (util-linux)");
        // In place before anything can fail, so that a failure ends the process.
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, webhook: unknown, admin: unknown, folder }
    }

    fn listening(mut self) -> Self {
        (self.webhook, self.admin) = eventually("reach serve says where it listens", || {
            if let Some(status) = self.child.try_wait().expect("a status") {
                panic!("reach serve ended ({status}): {}", self.stderr());
            }
            let stdout = self.stdout();
            addresses(&stdout).ok_or_else(|| stdout + &self.stderr())
        });
        self
    }

    /// What it has printed.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has logged.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// The CA of the certificate that it made.
    pub fn ca(&self) -> String {
        self.read("ca.pem")
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned()
    }

    /// URL of the webhook, as in a MutatingWebhookConfiguration.
    pub fn url(&self) -> String {
        format!("https://{}{PATH}", self.webhook)
    }

    /// Sends bytes to the webhook and reads a reply.
    pub fn send(&self, request: &[u8]) -> io::Result<Reply> {
        http::exchange(http::connect_tls(self.webhook, &self.ca(), "http/1.1")?, request)
    }

    /// Sends a review, and returns the `response` in the answer.
    ///
    /// # Panics
    /// If there is none, or it is not that of a readable review.
    pub fn review(&self, review: &Value) -> Value {
        let reply = self.send(&http::post(PATH, review.to_string())).expect("a reply");
        assert_eq!(reply.status, 200, "{reply:?}");
        let answer = reply.json();
        assert_eq!(answer["response"]["uid"], review["request"]["uid"], "{answer}");
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        answer["response"].clone()
    }

    /// Asks the admin port.
    pub fn status(&self, path: &str) -> Reply {
        self.try_status(path).expect("a reply of the admin port")
    }

    /// Asks the admin port, which may give no reply.
    pub fn try_status(&self, path: &str) -> io::Result<Reply> {
        http::exchange(http::connect(self.admin)?, &http::request("GET", path, "", ""))
    }

    /// The value of a metric, given with its labels as it stands in `/metrics`; `None` when it is not there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.status("/metrics").body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric has a value.
    ///
    /// # Panics
    /// If it does not get it.
    #[track_caller]
    pub fn await_metric(&self, name: &str, value: f64) {
        eventually(&format!("{name} {value}"), || {
            // Only whole numbers are asked for.
            #[allow(clippy::float_cmp)]
            if self.metric(name) == Some(value) { Ok(()) } else { Err(self.status("/metrics").body) }
        });
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// If it does not.
    pub fn await_ready(&self) {
        eventually("reach is ready", || {
            let reply = self.status("/readyz");
            if reply.status == 200 { Ok(()) } else { Err(reply.body + &self.stderr()) }
        });
    }

    /// Waits until `/readyz` says no, because of this.
    ///
    /// # Panics
    /// If it says yes, or does not say this.
    pub fn await_unready(&self, because: &str) {
        eventually(&format!("reach is not ready: {because}"), || {
            let reply = self.status("/readyz");
            assert_eq!(reply.status, 503, "{}", reply.body);
            if reply.body.contains(because) { Ok(()) } else { Err(reply.body) }
        });
    }

    /// The most memory that the process has had, in KiB.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn peak_memory_kib(&self) -> u64 {
        self.status_of_process("VmHWM:")
    }

    /// The memory that the process has, in KiB.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn memory_kib(&self) -> u64 {
        self.status_of_process("VmRSS:")
    }

    /// The part of [`Self::memory_kib`] that is no page of its program, which the kernel reads in and takes away as it likes.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn own_memory_kib(&self) -> u64 {
        self.status_of_process("RssAnon:")
    }

    /// Lets the peak begin anew.
    ///
    /// # Panics
    /// If the kernel does not do that.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("a process of ours");
    }

    fn status_of_process(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many threads it has.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn threads(&self) -> u64 {
        self.status_of_process("Threads:")
    }

    /// How many files it has open, sockets included.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).expect("its files").count()
    }

    /// The process: that of the program, or of the first command before it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process that has not been waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn await_end(&mut self) -> ExitStatus {
        eventually("reach serve ends", || self.child.try_wait().expect("a status").ok_or("it runs"))
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.stderr();
            let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL));
            eprintln!("--- the end of what reach serve logged:\n{}", &log[start..]);
        }
        // It has nothing to lose. An error is that of a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addresses(stdout: &str) -> Option<(SocketAddr, SocketAddr)> {
    let after = |start: &str, end: &str| {
        let (_, rest) = stdout.split_once(start)?;
        rest.split_once(end)?.0.parse().ok()
    };
    Some((after("https://", "/")?, after("http://", " ")?))
}
