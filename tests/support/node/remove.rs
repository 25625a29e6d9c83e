//! The end of a cluster, also of one whose test was killed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::super::process::POLL_INTERVAL;
use super::layout::{self, Layout};
use super::{CONTAINERD_NAMESPACE, text};

/// How long killed processes may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// The file in which processes are noted.
const NOTES: &str = "processes";

/// Ends and removes the cluster of a number, if there is one. For who has the lock of the number.
pub fn remains(number: u8) {
    let layout = Layout::of(number);
    end_noted(&layout.folder);
    running(&layout);
    if layout.folder.exists() {
        assert!(layout::is_ours(&layout.folder), "{} is not ours", layout.folder.display());
        folder(&layout.folder);
    }
}

/// Removes the cluster of a number when this process is interrupted (Ctrl-C) or asked to end, and then ends it.
pub fn when_interrupted(number: u8) {
    before_interruption(format!("cluster {number}"), move || {
        let layout = Layout::of(number);
        end_noted(&layout.folder);
        running(&layout);
        layout.remove_folder();
    });
}

/// Removes something when this process is interrupted (Ctrl-C) or asked to end, and then ends it.
pub fn before_interruption(what: String, remove: impl FnOnce() + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let watch = move || {
        runtime.block_on(async {
            let mut end = signal(SignalKind::terminate()).expect("a handler");
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = end.recv() => {}
            }
        });
        eprintln!("{what}: interrupted, removing it");
        // The tests fail meanwhile, and would remove it, too.
        let _removing = removing();
        remove();
        // As a shell has it of a program that an interrupt ended.
        std::process::exit(130);
    };
    // It lives as long as the process.
    thread::Builder::new().name("interrupts".to_owned()).spawn(watch).expect("cannot start a thread");
}

/// The right to remove a cluster of this process.
pub fn removing() -> MutexGuard<'static, ()> {
    static REMOVING: Mutex<()> = Mutex::new(());
    REMOVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends everything in the control group of a name, in each hierarchy, and removes it.
pub fn control_group(name: &str) {
    end_all(|| contained(name));
    remove_control_groups(name);
}

/// Kills processes until there are none left.
fn end_all(find: impl Fn() -> Vec<Pid>) {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let rest = find();
        if rest.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "processes outlive their being killed: {rest:?}");
        for process in rest {
            // An error is that of a process that has ended already.
            let _ = kill_process(process, Signal::KILL);
        }
        thread::sleep(POLL_INTERVAL / 4);
    }
}

/// Notes a process in the folder of what it is a part of, so that it can be ended when this process does not do so: its id,
/// and when it started, by which it is told from a later one of that id.
pub fn note(folder: &Path, process: Pid) {
    if let Some(start) = start_of(process) {
        let mut file = File::options().create(true).append(true).open(folder.join(NOTES)).expect("a file");
        writeln!(file, "{} {start}", process.as_raw_nonzero()).expect("room on the disk");
    }
}

/// Ends the parts of what has this folder, which another process, or another thread, has started.
pub fn end_noted(folder: &Path) {
    let noted = fs::read_to_string(folder.join(NOTES)).unwrap_or_default();
    for line in noted.lines() {
        if let Some((process, start)) = line.split_once(' ')
            && let Some(process) = process.parse().ok().and_then(Pid::from_raw)
            && start_of(process).is_some_and(|now| now == start)
        {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Ends what runs beside the parts: the containers and those who mind them; then removes mounts and the network.
pub fn running(layout: &Layout) {
    end_all(|| shims(layout).into_iter().chain(contained(&layout.cgroup())).collect());
    remove_control_groups(&layout.cgroup());
    // They name files that are to be removed, so before those that name them.
    remove_traces(layout);
    unmount(&layout.folder);
    layout.network.remove();
    folder(&layout.path("run"));
    let _ = fs::remove_file(layout.path(NOTES));
}

/// When a process started, in the kernel's own terms; `None` when there is none of this id.
fn start_of(process: Pid) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // The second field, a name in parentheses, may have blanks in it.
    let (_, rest) = status.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// Removes a folder in which nothing is mounted.
pub fn folder(path: &Path) {
    // What is mounted there may be a folder of this machine, mounted into a pod.
    let mounted = mounts_below(path);
    assert!(
        mounted.is_empty(),
        "{} is not removed, because of what is mounted there: {mounted:?}",
        path.display()
    );
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// The processes that mind containers, told by the address of this cluster's containerd.
fn shims(layout: &Layout) -> Vec<Pid> {
    let socket = layout.containerd_socket();
    let processes = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0);
        let shim = words.next()?.ends_with(b"containerd-shim-runc-v2");
        (shim && words.any(|word| word == socket.as_os_str().as_bytes())).then_some(process)
    });
    processes.collect()
}

/// The processes in the control groups of a name, and below.
fn contained(name: &str) -> Vec<Pid> {
    fn collect(folder: &Path, processes: &mut Vec<Pid>) {
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        processes.extend(procs.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), processes);
            }
        }
    }
    let mut processes = Vec::new();
    for folder in layout::control_groups() {
        collect(&folder.join(name), &mut processes);
    }
    processes.sort_unstable_by_key(|process| process.as_raw_nonzero());
    processes.dedup();
    processes
}

fn remove_control_groups(name: &str) {
    for folder in layout::control_groups() {
        remove_control_group(&folder.join(name));
    }
}

fn remove_control_group(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_control_group(&entry.path());
        }
    }
    // The kernel takes a moment from the end of the last process.
    let deadline = Instant::now() + END_TIMEOUT;
    while folder.exists() && fs::remove_dir(folder).is_err() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL / 4);
    }
}

/// Unmounts everything in a folder.
pub fn unmount(folder: &Path) {
    // The last mounted first. Lazily: nobody uses them any more, but the kernel may not have noticed yet.
    for mount in mounts_below(folder).iter().rev() {
        let output =
            Command::new("umount").args(["--lazy", "--no-canonicalize"]).arg(mount).output().expect("umount");
        // It may have gone together with one above it.
        let gone = output.status.success() || !mounts_below(mount).contains(mount);
        assert!(gone, "cannot unmount {}: {}", mount.display(), text(&output));
    }
}

/// What is mounted in a folder, in the order of mounting.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // No folder of ours has a character that stands there escaped.
    points.map(PathBuf::from).filter(|point| point.starts_with(folder)).collect()
}

/// Removes what parts leave in folders that are not of their configuration.
fn remove_traces(layout: &Layout) {
    let tasks = layout.path("run/containerd/io.containerd.runtime.v2.task").join(CONTAINERD_NAMESPACE);
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let parameters = fs::read(task.path().join("bootstrap.json")).unwrap_or_default();
        let parameters: Value = serde_json::from_slice(&parameters).unwrap_or_default();
        if let Some(socket) =
            parameters["address"].as_str().and_then(|address| address.strip_prefix("unix://"))
        {
            let _ = fs::remove_file(socket);
        }
    }
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{}-", layout.pod_network())) {
            let _ = fs::remove_file(entry.path());
        }
    }
    for entry in fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&layout.folder)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
