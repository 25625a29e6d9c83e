//! What a real node needs of this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::layout::{control_groups, search_path};
use super::text;

/// Programs that have to be there, and the Debian package of each.
const PROGRAMS: [(&str, &str); 17] = [
    ("curl", "curl"),
    ("go", "Go 1.26 or newer"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("jq", "jq"),
    ("ldd", "libc-bin"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("/usr/bin/python3", "python3"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("squid", "squid-openssl"),
    ("tar", "tar"),
    ("umount", "mount"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("wget", "wget"),
];

/// What a kernel has to be able to do: a name for it, and a script that does it, in a mount and a network namespace of its own.
const FEATURES: [(&str, &str); 5] = [
    ("a bridge", "ip link add node type bridge"),
    ("veth devices", "ip link add name left type veth peer name right"),
    (
        "iptables with nat",
        "iptables -w -t nat -A OUTPUT -p tcp -m comment --comment test -j DNAT --to-destination 127.0.0.1:1",
    ),
    (
        "iptables with conntrack",
        "iptables -w -A OUTPUT -m conntrack --ctstate NEW -m mark --mark 1/1 -j DROP",
    ),
    (
        "overlayfs",
        "mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m &&
         mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w none /mnt/m",
    ),
];

/// What a real node needs and is not here, each by its name; empty when a [`Cluster`](super::Cluster) can be started.
pub fn missing() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["Linux".to_owned()];
    }
    let mut missing = Vec::new();
    for (program, package) in PROGRAMS {
        if sh(&format!("command -v {program}")).is_err() {
            missing.push(format!("{program} ({package})"));
        }
    }
    if !rustix::process::geteuid().is_root() {
        // The rest cannot be tried without.
        missing.push("root".to_owned());
        return missing;
    }
    if let Err(error) = sh("unshare --net --mount true") {
        missing.push(format!("network and mount namespaces ({error})"));
        return missing;
    }
    for (name, script) in FEATURES {
        if let Err(error) = sh(&format!("unshare --net --mount sh -c '{script}'")) {
            missing.push(format!("{name} ({error})"));
        }
    }
    let groups = control_groups();
    let offered = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in ["cpu", "cpuset", "memory", "pids"] {
        let alone = groups.iter().any(|folder| folder.file_name().is_some_and(|name| name == controller));
        let joint = groups
            .iter()
            .any(|folder| folder.to_string_lossy().split([',', '/']).any(|name| name == controller));
        if !alone && !joint && !offered.split_whitespace().any(|name| name == controller) {
            missing.push(format!("the control group controller {controller}"));
        }
    }
    let writable = |folder: &Path| {
        let probe = folder.join("reach-probe");
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
    };
    if !groups.iter().all(|folder| writable(folder)) {
        missing.push("writable control groups".to_owned());
    }
    missing
}

/// Says what is missing, and for which tests, loudly, if something is. A failure where nobody would read it.
pub fn report_missing() -> ExitCode {
    report("tests/cluster.rs and tests/product.rs, of running pods", "a real node", &missing())
}

/// Says that tests are not run since something needs what is missing, loudly, if something is. A failure where nobody would
/// read it.
pub fn report(tests: &str, who: &str, missing: &[String]) -> ExitCode {
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\n{}", "!".repeat(100));
    println!("!! NOT RUN: every test of {tests}, since {who} needs what is missing here:");
    for thing in missing {
        println!("!!   {thing}");
    }
    println!("{}", "!".repeat(100));
    if std::env::var("CI").is_ok_and(|ci| ci == "true") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The first line of what a failing script says.
fn sh(script: &str) -> Result<(), String> {
    let output = Command::new("sh")
        .args(["-c", script])
        .env("PATH", search_path(&[]))
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(text(&output).lines().next().unwrap_or_default().to_owned())
}
