//! Processes that are measured. Each is ended by its process id when its value is dropped, so also when
//! the bench panics.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tempfile::TempDir;

use super::report::median;
use super::support::serve;

/// The longest time for anything to become as it should.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// A process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Closed with the process: a child of ours that outlives the bench sees the end of it.
    _stdin: Option<ChildStdin>,
}

/// A running `reach serve`.
#[derive(Debug)]
pub struct Reach {
    /// The process.
    pub process: Process,
    /// When it was started.
    pub started: Instant,
    /// Where reviews go.
    pub webhook: SocketAddr,
    /// Where `/readyz` is.
    pub admin: SocketAddr,
    folder: TempDir,
}

/// Memory of a process in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The most there was.
    pub peak: f64,
    /// What there is.
    pub now: f64,
}

/// Runs of a command, each figure the median.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// From its start to its end.
    pub seconds: f64,
    /// Processor time, of all processors.
    pub cpu_seconds: f64,
    /// The most memory there was, in MiB.
    pub peak: f64,
}

/// Time between two looks at the memory of a command.
const LOOK: Duration = Duration::from_millis(2);

/// Runs `reach` with these arguments some times, its output into a file.
///
/// # Panics
/// If it fails.
pub fn command_runs(runs: usize, arguments: &[&OsStr], output: &Path) -> Runs {
    let (mut seconds, mut cpu, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let output = File::create(output).expect("a new file");
        let mut child =
            serve::command().args(arguments).stdout(output).stderr(Stdio::null()).spawn().expect("reach");
        let mut peak = 0.0_f64;
        // Looked at after its end and before it is waited for, while the kernel still knows its time. Its memory is gone
        // by then.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(Pid::from_child(&child)), options).expect("a child").is_none() {
            peak = peak.max(memory(child.id()).map_or(0.0, |memory| memory.peak));
            thread::sleep(LOOK);
        }
        seconds.push(start.elapsed().as_secs_f64());
        cpu.push(cpu_seconds(child.id()));
        peaks.push(peak);
        let status = child.wait().expect("a status");
        assert!(status.success(), "reach {arguments:?}: {status}");
    }
    Runs { seconds: median(seconds), cpu_seconds: median(cpu), peak: median(peaks) }
}

/// The processor time of a process, user and system, of all its threads.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    // After the name, which is in brackets and may hold anything; see proc_pid_stat(5).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A folder that goes with its value.
///
/// # Panics
/// If it cannot be made.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("reach-bench-").tempdir().expect("a temporary folder")
}

// === impl Process ===

impl Process {
    /// Starts a process and reads what it prints.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        // Ends with the process, whose end closes the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { _stdin: child.stdin.take(), child, lines }
    }

    /// The address in the next line it prints, between `start` and `end`. `None` when it ends instead, or
    /// does not print one in time.
    pub fn address(&self, start: &str, end: char) -> Option<SocketAddr> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        let (_, rest) = line.split_once(start)?;
        rest.split(end).next()?.parse().ok()
    }

    /// The time it has had a processor, in nanoseconds: of all its threads that there are, user and
    /// system.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn cpu_nanos(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Its memory.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn memory(&self) -> Memory {
        memory(self.child.id()).expect("memory")
    }
}

/// Memory of a process; `None` when it has ended.
fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok().map(|kib| kib / 1024.0)
    };
    Some(Memory { peak: mib("VmHWM:")?, now: mib("VmRSS:")? })
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to lose. An error is that of a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Reach ===

impl Reach {
    /// Starts `reach serve` on free ports, and waits until it says where it listens.
    ///
    /// # Panics
    /// If it ends instead; the message has its log.
    pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let folder = folder();
        let log = folder.path().join("log");
        let mut command = serve::command();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--ca-out"])
            .arg(folder.path().join("ca.pem"))
            .args(arguments)
            .stderr(File::create(&log).expect("a new file"));
        let started = Instant::now();
        let process = Process::start(&mut command);
        let addresses = process.address("https://", '/').zip(process.address("http://", ' '));
        let (webhook, admin) = addresses.unwrap_or_else(|| {
            panic!("reach serve does not serve: {}", fs::read_to_string(&log).unwrap_or_default())
        });
        Self { process, started, webhook, admin, folder }
    }

    /// The CA of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Waits until `/readyz` says yes; returns how long that took from the start of the process.
    ///
    /// # Panics
    /// If it does not.
    pub fn await_ready(&self) -> Duration {
        while !self.is_ready() {
            assert!(self.started.elapsed() < PATIENCE, "reach is not ready");
            thread::sleep(Duration::from_millis(1));
        }
        self.started.elapsed()
    }

    fn is_ready(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok::<_, std::io::Error>(status)
        };
        ask().is_ok_and(|status| &status == b"HTTP/1.1 200")
    }
}
