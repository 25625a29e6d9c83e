//! The processes of clusters of the tests: how they are started, waited for and ended, and where their programs are.
//!
//! However the test process ends, the kernel kills what it started with [`bound`]: each program runs under
//! `setpriv --pdeathsig KILL`. The kernel ties that to the *thread* that started the program, not to its process, so one
//! thread, the [`Launcher`]'s, starts them all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a process may take until it is ready: thirty times what it takes on an idle machine.
pub const START_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a process may take to end after SIGTERM, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a program is started anew because its port was taken between our choice of it and its use.
pub const PORT_ATTEMPTS: u32 = 5;

/// Time between two looks at something that is waited for.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How much of the end of a log a panic message carries, in bytes.
const LOG_TAIL: usize = 4096;

/// Environment variables that would lead a cluster's own connections through a proxy.
pub const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// The thread that starts processes. It lives as long as this value, and the processes do not outlive it.
#[derive(Debug)]
pub struct Launcher {
    /// `None` only while dropping: the thread ends when the sender is gone.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// A command for the [`Launcher`], and where its answer goes.
type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// A process of a cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this process's part of the log begins: a program started again writes behind the earlier part.
    log_start: u64,
}

// === impl Launcher ===

impl Launcher {
    /// Starts the thread.
    pub fn new() -> Self {
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

    /// Starts a process that writes to the log of its name, in the folder of logs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(&self, name: &'static str, mut command: Command, logs: &Path) -> Process {
        let log = logs.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()));
        let log_start = file.metadata().map_or(0, |metadata| metadata.len());
        let errors = file.try_clone().expect("cannot duplicate a file handle");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let program = PathBuf::from(command.get_program());
        let (sender, answer) = mpsc::channel();
        self.orders
            .as_ref()
            .expect("the launcher has orders until it is dropped")
            .send((command, sender))
            .expect("the launcher's thread lives as long as the launcher");
        let child = answer.recv().expect("the launcher answers each order").unwrap_or_else(|error| {
            panic!("cannot start {name} ({}, of util-linux): {error}", program.display())
        });
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
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        // An error is that of a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it run on without us.
    pub fn leave_running(self) {
        std::mem::forget(self);
    }

    /// Waits until `ready` says so. What to say of the process when it ends before.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn await_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(end) = self.end() {
                return Err(end);
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

    /// What to say of the process when it has ended by itself.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().expect("cannot wait for a process")?;
        Some(format!("{} ended ({status}){}", self.name, self.log_tail()))
    }

    /// What this process has logged so far.
    pub fn log(&self) -> String {
        let mut log = Vec::new();
        // A log that cannot be read must not hide the failure that it was to explain.
        let _ = File::open(&self.log).and_then(|mut file| {
            file.seek(io::SeekFrom::Start(self.log_start))?;
            file.read_to_end(&mut log)
        });
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of the log, for a message.
    pub fn log_tail(&self) -> String {
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
            eprintln!("{} outlived SIGTERM for {STOP_TIMEOUT:?}", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command for a program, without what the environment says about proxies. It is killed when the thread that spawns it
/// ends.
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// A temporary folder for what somebody may want to look at: it is kept, and named, with `REACH_TEST_KEEP`.
///
/// # Panics
/// When it cannot be made.
pub fn folder_of(what: &str) -> TempDir {
    let keep = std::env::var_os("REACH_TEST_KEEP").is_some();
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix(&format!("reach-{}-", what.replace(' ', "-"))).disable_cleanup(keep).tempdir();
    let folder = folder.expect("cannot make a temporary folder");
    if keep {
        eprintln!("{what}: kept in {}", folder.path().display());
    }
    folder
}

/// The folder with the programs that a script under `tests/` provides, built if need be.
///
/// # Panics
/// When the script fails; it says why itself.
pub fn programs(script: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    assert!(output.status.success(), "{} failed ({}), its message is above", script.display(), output.status);
    let folder = String::from_utf8(output.stdout).expect("the programs' folder is not UTF-8");
    PathBuf::from(folder.trim_end_matches('\n'))
}

/// The arguments of an etcd that only a socket leads to: no port to race for, and nobody else's etcd behind it.
pub fn etcd_arguments(data: &Path, socket: &Path) -> [String; 5] {
    let url = format!("unix://{}", socket.display());
    [
        flag("data-dir", data),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        // It has no peers, so any port does.
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        // Nothing here has to survive a power cut.
        "--unsafe-no-fsync".to_owned(),
    ]
}

/// Whether the etcd behind the socket says that it is healthy.
pub fn is_healthy(socket: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}

/// Asks etcd's gateway for gRPC, whose calls are JSON.
///
/// # Panics
/// When it does not answer, or not with what was asked for.
pub fn ask_etcd(socket: &Path, path: &str, question: &serde_json::Value) -> serde_json::Value {
    let question = question.to_string();
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{question}",
            question.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_else(|error| panic!("etcd does not answer {path}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert_eq!(head.split_whitespace().nth(1), Some("200"), "{path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// A port of the loopback interface that nobody has at the moment.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("cannot bind a port of the loopback interface")
        .port()
}

/// `--name=path`
pub fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// 128 random bits, in hexadecimal.
///
/// # Panics
/// When the kernel does not give them.
pub fn random_token() -> String {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("cannot read /dev/urandom");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
