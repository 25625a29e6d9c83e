//! A machine that boots: systemd as process 1, Debian's cloud-init, containerd, kubelet and kubeadm, from an image as a cloud
//! has it, in a network of its own, with a company around it that lets nobody out but through its proxy.
//!
//! The machine is a container of systemd-nspawn over a file system that `tests/boot/root.sh` makes, with the files of
//! `tests/boot/machine`, the programs of `tests/node/build.sh` and the images of `tests/boot/images.sh`. What is done with it is
//! said by user data alone, as of any machine of a cloud.
//!
//! ```ignore
//! let site = Site::start();
//! site.publish("ghcr.io/tools/curl:1", &archive);
//! site.boot(&user_data);
//! assert!(site.shell("cat /proc/$(pidof containerd)/environ").contains("HTTP_PROXY="));
//! assert!(!site.proxy().requests("ghcr.io").is_empty());
//! ```
//!
//! # What the machine sees
//! | name | where | what |
//! |---|---|---|
//! | `node` | [`NODE_ADDRESS`] | itself |
//! | | [`ENDPOINT`] | a load balancer of the company, before port 6443 of the machine |
//! | `proxy.corp.example:3128` | [`Site::proxy`] | the corporate proxy, which wants a password |
//! | `registry.corp.example` | [`COMPANY_REGISTRY`] | a registry of the company |
//! | `ghcr.io` | [`OUTSIDE_REGISTRY`] | no such name: only the proxy knows it, and only the proxy reaches its address |
//!
//! Both registries have certificates of the company's own CA, which no distribution knows.
//!
//! # The end
//! As that of a [`Cluster`](super::node::Cluster): everything ends with the [`Site`], or with the next one, which also removes
//! what a killed run left. There is one at a time.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kubectl::{self, Kubectl, succeeded, text};
use super::node::layout::{self, is_ours, make_folder};
use super::node::{Proxy, remove};
use super::process::{Launcher, POLL_INTERVAL, Process, bound, flag, programs};
use super::{eventually, eventually_within};
use company::Company;

mod company;
mod machine;
mod requirements;

pub use requirements::{missing, report_missing};

/// The machine's address.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 90, 11);

/// The address of the company's load balancer before the machine's API server.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(172, 31, 90, 10);

/// The network of the company in which the machine is.
pub const NETWORK: &str = "172.31.90.0/24";

/// Name of the corporate proxy, with its port.
pub const PROXY: &str = "proxy.corp.example:3128";

/// A registry of the company, which the machine reaches by itself.
pub const COMPANY_REGISTRY: &str = "registry.corp.example";

/// A registry outside, which only the proxy reaches: the one that the chart's image is in, played by ours.
pub const OUTSIDE_REGISTRY: &str = "ghcr.io";

/// Name of the machine.
pub const NODE: &str = "node";

/// Who the proxy lets through.
pub const USER: &str = "reach";

/// How long a machine may take to boot and to do what its user data says: a few times what it takes on an idle machine of
/// two cores.
const BOOT_TIMEOUT: Duration = Duration::from_mins(6);

/// A company, and a machine in it.
#[derive(Debug)]
pub struct Site {
    // Fields are dropped in this order: the thread that starts processes, whose end would kill them, comes after them.
    machine: Mutex<Option<Process>>,
    company: Company,
    launcher: Launcher,
    folder: PathBuf,
    programs: machine::Programs,
    /// Locked as long as this site is there.
    _lock: File,
}

/// A file of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What is in it.
    pub content: String,
    /// Its permissions.
    pub mode: u32,
    /// User and group, by number.
    pub owner: (u32, u32),
    /// When it was written, in nanoseconds since 1970.
    pub time: i128,
}

impl Site {
    /// Starts the company. The machine is off. Builds what it needs first, when that is not there yet.
    ///
    /// # Panics
    /// When something is [`missing`], or cannot be had, or does not start.
    pub fn start() -> Self {
        let lacks = missing();
        assert!(lacks.is_empty(), "a machine that boots needs what is missing here: {}", lacks.join("; "));
        let lock = layout::lock_name("boot");
        let folder = folder();
        remove_remains(&folder);
        remove::before_interruption("boot".to_owned(), remove_rest);
        let programs = machine::Programs::find();
        for (name, mode) in [("", 0o711), ("company", 0o711), ("logs", 0o711)] {
            make_folder(&folder.join(name), mode);
        }
        let launcher = Launcher::new();
        let company = Company::start(&folder, &programs, &launcher);
        Self { machine: Mutex::default(), company, launcher, folder, programs, _lock: lock }
    }

    /// The company's CA, in PEM.
    pub fn ca(&self) -> &str {
        &self.company.ca
    }

    /// The proxy's URL, with a password in it, which is percent-encoded where it has to be.
    pub fn proxy_url(&self) -> String {
        format!("http://{USER}:{}@{PROXY}", self.password_in_url())
    }

    /// The password in it.
    pub fn password_in_url(&self) -> String {
        self.company.password_in_url()
    }

    /// The corporate proxy.
    pub fn proxy(&self) -> Proxy<'_> {
        Proxy::new("proxy.corp.example", &self.company.proxy_log)
    }

    /// The proxy's requests for a host, once there are more than these: it logs one when its connection is closed.
    ///
    /// # Panics
    /// When there are none in time.
    #[track_caller]
    pub fn more_requests(&self, host: &str, than: usize) -> Vec<String> {
        eventually(&format!("the proxy has led somebody to {host}"), || {
            let requests = self.proxy().requests(host);
            if requests.len() > than { Ok(requests) } else { Err(self.proxy().log()) }
        })
    }

    /// What a registry was asked for, a line a request.
    pub fn registry_log(&self, registry: &str) -> String {
        self.company.registry_log(registry)
    }

    /// Puts an image into the registry that its name (`HOST/NAME:TAG`) says.
    ///
    /// # Panics
    /// When the registry does not take it.
    pub fn publish(&self, name: &str, archive: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boot/push.sh");
        let mut push = company::inside(&script);
        push.arg(archive).arg(name).args(self.company.curl_options());
        succeeded("tests/boot/push.sh", push.output().expect("nsenter"));
    }

    /// A folder of this machine in which images can be made.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boots a new machine with this user data, and waits until cloud-init has done all that it says.
    ///
    /// # Panics
    /// When the machine ends, when cloud-init is not done in time, and when something of it failed; the message has the end of
    /// its log.
    pub fn boot(&self, user_data: &str) {
        self.switch_off();
        machine::prepare(&self.folder, user_data);
        self.switch_on();
    }

    /// Switches the machine off as a power cut does and on again, and waits until cloud-init is done.
    ///
    /// # Panics
    /// As [`Self::boot`].
    pub fn power_cycle(&self) {
        self.switch_off();
        self.switch_on();
    }

    fn switch_off(&self) {
        if let Some(mut machine) = self.machine().take() {
            machine.kill();
            machine::clean(&self.folder);
        }
    }

    fn switch_on(&self) {
        company::connect_machine();
        let command = machine::command(&self.folder, &self.programs);
        let process = self.launcher.launch("machine", command, &self.folder.join("logs"));
        remove::note(&self.folder, process.pid());
        *self.machine() = Some(process);
        let deadline = Instant::now() + BOOT_TIMEOUT;
        let result = loop {
            if let Some(result) = self.cloud_init_result() {
                break result;
            }
            let ended = self.machine().as_mut().and_then(Process::end);
            if let Some(end) = ended {
                panic!("the machine ended: {end}{}", self.ends_of_logs());
            }
            assert!(Instant::now() < deadline, "cloud-init is not done{}", self.ends_of_logs());
            thread::sleep(POLL_INTERVAL);
        };
        let errors = result["v1"]["errors"].as_array().expect("a list of errors");
        assert!(errors.is_empty(), "cloud-init: {errors:?}{}", self.ends_of_logs());
    }

    /// What cloud-init says of this boot, once it is done.
    fn cloud_init_result(&self) -> Option<Value> {
        let output = self.try_inside("cat")?.arg("/run/cloud-init/result.json").output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What cloud-init, the kubelet and the containers of static pods say at their ends, of a machine that has not come up.
    fn ends_of_logs(&self) -> String {
        let log = fs::read_to_string(self.path("/var/log/cloud-init-output.log")).unwrap_or_default();
        let start = log.ceil_char_boundary(log.len().saturating_sub(6000));
        let script = "journalctl --unit=kubelet --lines=40 --no-pager --output=cat; tail -n 15 /var/log/pods/*/*/*.log";
        let output = self.try_inside("sh").and_then(|mut sh| sh.args(["-c", script]).output().ok());
        let said =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        format!("\n--- the end of cloud-init's log:\n{}\n--- kubelet and containers:\n{said}", &log[start..])
    }

    /// A command that runs a program of the machine in it, as root.
    ///
    /// # Panics
    /// When the machine is off.
    pub fn inside(&self, program: &str) -> Command {
        self.try_inside(program).expect("the machine is on")
    }

    fn try_inside(&self, program: &str) -> Option<Command> {
        let process = self.machine().as_ref()?.pid();
        let mut command = bound("nsenter");
        command
            .arg(format!("--target={}", machine::first_process(process)?))
            .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs([("HOME", "/root"), ("LANG", "C.UTF-8")])
            .stdin(Stdio::null());
        Some(command)
    }

    /// What a script prints that succeeds in the machine.
    ///
    /// # Panics
    /// When it does not; the message has what it said.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        succeeded(script, self.run(script))
    }

    /// Runs a script (POSIX sh, `set -e`) in the machine.
    pub fn run(&self, script: &str) -> Output {
        self.inside("sh").args(["-ec", script]).output().expect("nsenter")
    }

    /// Where a file of the machine's disk is on this one.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path.trim_start_matches('/'))
    }

    /// A file of the machine's disk.
    ///
    /// # Panics
    /// When it cannot be read, or is not UTF-8.
    #[track_caller]
    pub fn file(&self, path: &str) -> Written {
        let place = self.path(path);
        let metadata = fs::symlink_metadata(&place).unwrap_or_else(|error| panic!("{path}: {error}"));
        Written {
            content: fs::read_to_string(&place).unwrap_or_else(|error| panic!("{path}: {error}")),
            mode: metadata.permissions().mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            time: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }

    /// [`proxy_variables`] of a process of the machine.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn proxy_variables(&self, process: &str) -> Vec<String> {
        proxy_variables(&self.shell(&format!("tr '\\0' '\\n' </proc/{}/environ", process.trim())))
    }

    /// The kubeconfig that kubeadm wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("/etc/kubernetes/admin.conf")
    }

    /// Waits until the API server answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn await_api(&self) {
        eventually_within(Duration::from_mins(3), "the API server answers", || {
            let output = self.kubectl(&kubectl::READY);
            if output.status.success() { Ok(()) } else { Err(text(&output)) }
        });
    }

    /// Waits until everything that kubeadm makes is ready: four static pods, two of DNS, and kube-proxy.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn await_system(&self) {
        self.await_pods("kube-system", 7);
    }

    /// Waits until a namespace has a number of pods, all of them ready.
    ///
    /// # Panics
    /// When it has not in time.
    pub fn await_pods(&self, namespace: &str, count: usize) {
        eventually_within(Duration::from_mins(3), &format!("{count} pods of {namespace} are ready"), || {
            let output = self.kubectl(&["get", "pods", "--output=json", "--namespace", namespace]);
            let pods: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let is_ready = |pod: &&Value| {
                let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                conditions
                    .filter(|condition| condition["type"] == "Ready")
                    .any(|ready| ready["status"] == "True")
                    && pod["metadata"]["deletionTimestamp"].is_null()
            };
            let pods: Vec<_> = pods["items"].as_array().into_iter().flatten().collect();
            let ready = pods.iter().copied().filter(is_ready).count();
            if ready == count && pods.len() == count { Ok(()) } else { Err(self.describe(namespace)) }
        });
    }

    fn machine(&self) -> MutexGuard<'_, Option<Process>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kubectl for Site {
    fn run_kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        let cache = self.folder.join("kubectl-cache");
        kubectl::run(&self.programs.control_plane, &self.kubeconfig(), &cache, arguments, stdin)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _removing = remove::removing();
        if let Some(mut machine) = self.machine().take() {
            machine.kill();
        }
        self.company.kill();
        remove_rest();
    }
}

/// The variables of an environment, a line each, whose names end in `_proxy` in any case, as `NAME=value`, in order.
pub fn proxy_variables(environment: &str) -> Vec<String> {
    let is_ours = |line: &&str| {
        line.split_once('=').is_some_and(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy"))
    };
    let mut variables: Vec<_> = environment.lines().filter(is_ours).map(str::to_owned).collect();
    variables.sort_unstable();
    variables
}

/// The folder of the site. A fixed one, so that what an aborted run left is found; in a place where only root can have made it.
fn folder() -> PathBuf {
    PathBuf::from("/var/lib/reach-boot")
}

/// Removes what a killed run left.
fn remove_remains(folder: &Path) {
    if folder.exists() {
        assert!(is_ours(folder), "{} is not ours", folder.display());
    }
    remove_rest();
}

/// Ends and removes all that is there of a site; its logs are kept with `REACH_TEST_KEEP`.
fn remove_rest() {
    let folder = folder();
    remove::end_noted(&folder);
    machine::clean(&folder);
    remove::unmount(&folder);
    company::remove_networks();
    if std::env::var_os("REACH_TEST_KEEP").is_none() || !folder.join("logs").exists() {
        remove::folder(&folder);
        return;
    }
    for name in ["upper", "work", "root", "containerd", "kubelet", "company", "images"] {
        remove::folder(&folder.join(name));
    }
    eprintln!("boot: logs are kept in {}", folder.join("logs").display());
}
