//! The machine itself: its disk, its control groups, and the command that switches it on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use super::super::node::layout::{control_groups, make_control_group, make_folder};
use super::super::node::remove;
use super::{NODE, bound, company, programs, succeeded};

/// The control group of the machine.
const GROUP: &str = "reach-boot";

/// What the machine comes with.
#[derive(Debug)]
pub struct Programs {
    /// The folder with kubectl.
    pub control_plane: PathBuf,
    /// The folder with the programs of the node.
    pub node: PathBuf,
    /// The file system of the distribution.
    root: PathBuf,
    /// The folder with archives of images.
    images: PathBuf,
}

// === impl Programs ===

impl Programs {
    /// Looks for them, and builds them when they are not there yet.
    pub fn find() -> Self {
        Self {
            control_plane: programs("control-plane/build.sh"),
            node: programs("node/build.sh"),
            root: programs("boot/root.sh"),
            images: programs("boot/images.sh"),
        }
    }
}

/// Makes the disk of a new machine: what an image builder adds to a distribution, and the user data.
pub fn prepare(folder: &Path, user_data: &str) {
    remove::unmount(folder);
    // containerd's layers cannot lie upon the overlay that the root is, so they have a folder of their own.
    for name in ["upper", "work", "root", "containerd", "kubelet"] {
        remove::folder(&folder.join(name));
        make_folder(&folder.join(name), 0o755);
    }
    let upper = folder.join("upper");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boot/machine/.");
    let copy = Command::new("cp").args(["-R", "--no-preserve=ownership"]).arg(files).arg(&upper).output();
    succeeded("cp", copy.expect("cp"));
    let seed = upper.join("var/lib/cloud/seed/nocloud");
    make_folder(&seed, 0o755);
    fs::write(seed.join("user-data"), user_data).expect("a new file");
    fs::write(seed.join("meta-data"), format!("instance-id: {NODE}-1\nlocal-hostname: {NODE}\n"))
        .expect("a new file");
    fs::write(upper.join("etc/resolv.conf"), company::resolver()).expect("a new file");
}

/// The command that boots the machine from its disk.
pub fn command(folder: &Path, programs: &Programs) -> Command {
    let root = folder.join("root");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        programs.root.display(),
        folder.join("upper").display(),
        folder.join("work").display()
    );
    mount(&["-t", "overlay", "overlay", "-o", &layers], &root);
    let mut command = bound("sh");
    // It joins its control groups itself: those of a process that starts others are not changed.
    command.args([
        "-ec",
        "while [ \"$1\" != -- ]; do echo $$ >\"$1\"; shift; done; shift; exec \"$@\"",
        "sh",
    ]);
    let groups = groups(folder);
    for group in &groups {
        command.arg(group.join("cgroup.procs"));
    }
    command
        .args(["--", "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"])
        .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        .arg(format!("--hostname={NODE}"))
        .arg(format!("--directory={}", root.display()))
        .arg(format!("--network-namespace-path={}", company::machine_network().display()))
        // It is a machine to containers inside, whose sandboxes ask the kernel for more than those of other containers do.
        .args(["--capability=all", "--system-call-filter=@keyring bpf", "--bind=/dev/kmsg"]);
    // With control groups of version 1, a container may not make any by itself.
    if let [_, _, ..] = &groups[..] {
        command.arg(format!("--bind={}:/sys/fs/cgroup", folder.join("groups").display()));
    }
    let mut bind = |source: &Path, target: &str| {
        command.arg(format!("--bind-ro={}:{target}", source.display()));
    };
    for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        bind(&programs.node.join(program), &format!("/usr/local/bin/{program}"));
    }
    for program in ["kubelet", "kubeadm"] {
        bind(&programs.node.join(program), &format!("/usr/bin/{program}"));
    }
    bind(&programs.control_plane.join("kubectl"), "/usr/bin/kubectl");
    bind(&programs.images, "/opt/images");
    for name in ["containerd", "kubelet"] {
        command.arg(format!("--bind={}:/var/lib/{name}", folder.join(name).display()));
    }
    command
}

/// The first process of a machine, by the process that runs it; `None` when there is none yet.
pub fn first_process(of: Pid) -> Option<i32> {
    let of = of.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &i32| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        ids.split_whitespace().skip(1).eq(["1"])
    })
}

/// Removes what a machine that is off leaves besides its disk.
pub fn clean(folder: &Path) {
    // They outlive who runs the machine.
    remove::control_group(GROUP);
    remove::unmount(&folder.join("root"));
    remove::unmount(&folder.join("groups"));
    company::remove_machine_network();
}

/// Makes the control groups of the machine, and a folder in which they are what the machine takes for all that there is.
fn groups(folder: &Path) -> Vec<PathBuf> {
    let view = folder.join("groups");
    make_folder(&view, 0o755);
    let hierarchies = control_groups();
    let is_only = hierarchies.len() == 1;
    if !is_only {
        // As everywhere; systemd-nspawn changes its options.
        mount(&["-t", "tmpfs", "groups"], &view);
    }
    let groups = hierarchies.into_iter().map(|hierarchy| {
        let group = hierarchy.join(GROUP);
        make_control_group(&group);
        if !is_only {
            let name = hierarchy.file_name().expect("a folder of a hierarchy").to_owned();
            // Of those that systemd keeps itself, systemd-nspawn gives away a part.
            let inner = if ["systemd", "unified"].iter().any(|own| name == *own) {
                let inner = group.join("payload");
                make_folder(&inner, 0o755);
                inner
            } else {
                group.clone()
            };
            let place = view.join(name);
            make_folder(&place, 0o755);
            mount(&["--bind", super::super::helm::text(&inner)], &place);
        }
        group
    });
    groups.collect()
}

fn mount(arguments: &[&str], place: &Path) {
    succeeded("mount", Command::new("mount").args(arguments).arg(place).output().expect("mount"));
}
