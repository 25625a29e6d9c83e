//! From manifests to a machine that has booted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::boot::{COMPANY_REGISTRY, OUTSIDE_REGISTRY, Site, proxy_variables};
use crate::support::cluster_api::{ClusterApi, Role, Workload};
use crate::support::helm::{root, text};
use crate::support::kubectl::succeeded;
use crate::support::process::programs;

/// The image that the chart names unless it is told otherwise.
pub const REACH_IMAGE: &str = concat!("ghcr.io/reach-dev/reach:", env!("CARGO_PKG_VERSION"));

/// An image with curl, which only the proxy reaches.
pub const CURL_IMAGE: &str = "ghcr.io/tools/curl:1";

/// A small one, which the cluster's own commands pull.
pub const PAUSE_IMAGE: &str = "ghcr.io/tools/pause:1";

/// A small one of the company.
pub const COMPANY_IMAGE: &str = "registry.corp.example/tools/pause:1";

/// What the company has written itself.
pub const MANIFESTS: &str = "tests/boot/cluster.yaml";

/// `--static-pods` by default.
pub const NONE: &str = "none";

/// What nodes get besides containerd.
const SYSTEM: &str = "--os=profile,environment,apt,sudoers";

/// A machine that has booted, and what it was made of.
#[derive(Debug)]
pub struct Journey {
    /// The machine, and the company around it.
    pub site: Site,
    /// The file with the presets.
    pub presets: PathBuf,
    /// What Cluster API made of them, by the option that says what static pods get: the machine was booted with [`NONE`].
    pub user_data: BTreeMap<&'static str, String>,
    /// What reach renders, by path.
    pub files: BTreeMap<String, String>,
}

impl Journey {
    /// Goes the whole way, until the machine has done what its user data says.
    ///
    /// # Panics
    /// When anything of it fails.
    pub fn start() -> Self {
        let mut start = Instant::now();
        let mut lap = |what| {
            let time = std::mem::replace(&mut start, Instant::now()).elapsed();
            println!("boot: {what}: {:.1} s", time.as_secs_f32());
        };
        let site = Site::start();
        publish_images(&site);
        lap("the company and its images");

        let presets = site.folder().join("presets.yaml");
        fs::write(&presets, preset(&site).to_string()).expect("our folder");
        let ca = site.folder().join("corp-example.crt");
        fs::write(&ca, site.ca()).expect("our folder");
        let options = ["--presets", text(&presets), "--ca-certificate", text(&ca), SYSTEM];
        let files = rendered_files(&site, &options);
        lap("reach");

        let user_data = user_data(&options);
        lap("Cluster API");

        site.boot(&user_data[NONE]);
        lap("boot, cloud-init, kubeadm");
        Self { site, presets, user_data, files }
    }

    /// What reach gives to hosts, as `NAME=value`, in order.
    ///
    /// # Panics
    /// When the file is not what a shell can read.
    pub fn variables(&self) -> Vec<String> {
        let mut read = Command::new("sh");
        read.args(["-ec", "set -a; eval \"$1\"; exec env", "sh"]).arg(&self.files["/etc/reach/proxy.env"]);
        let output = read.env_clear().env("PATH", "/usr/bin:/bin").output();
        proxy_variables(&succeeded("sh", output.expect("sh")))
    }

    /// The value of one of [`Self::variables`].
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn variable(&self, name: &str) -> String {
        let variables = self.variables();
        let found = variables.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} is not among what hosts get")).to_owned()
    }
}

/// What a company writes: where its proxy is, with the password, and what is not behind it.
fn preset(site: &Site) -> Value {
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": "corporate-proxy"},
        "spec": {
            // Pods have it from the cluster itself, hosts from Cluster API's manifests.
            "noProxyFrom": ["ClusterNetwork"],
            "env": [
                {"name": "http_proxy", "value": site.proxy_url()},
                {"name": "https_proxy", "value": site.proxy_url()},
                {"name": "no_proxy", "value": COMPANY_REGISTRY, "mergeStrategy": "Merge"},
            ],
        },
    })
}

/// Puts images of ours where the company and the world outside have theirs.
fn publish_images(site: &Site) {
    let node = programs("node/build.sh");
    let make = |name: &str, files: &[String]| {
        let archive = site.folder().join("images").join(format!("{}.tar", name.replace(['/', ':'], "-")));
        let script = root().join("tests/node/image.sh");
        let output = Command::new(script).arg(name).arg(&archive).args(files).output().expect("image.sh");
        succeeded("tests/node/image.sh", output);
        archive
    };
    let [pause, company] =
        ["/pause", "/company-pause"].map(|place| [format!("{}={place}", node.join("pause").display())]);
    let curl = ["/usr/bin/curl", "/bin/sh", "/bin/sleep", "/usr/bin/env"].map(str::to_owned);
    for (name, files) in [(PAUSE_IMAGE, &pause[..]), (COMPANY_IMAGE, &company), (CURL_IMAGE, &curl)] {
        site.publish(name, &make(name, files));
    }
    site.publish(REACH_IMAGE, &archive());
    assert!([PAUSE_IMAGE, CURL_IMAGE, REACH_IMAGE].iter().all(|name| name.starts_with(OUTSIDE_REGISTRY)));
}

/// The archive of `make image`.
fn archive() -> PathBuf {
    let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("image").join("reach.tar");
    // make gives a path in the project.
    let archive = std::env::var_os("ARCHIVE").map_or_else(default, |path| root().join(path));
    assert!(archive.exists(), "{}: no such file: run `make image` first", archive.display());
    archive
}

/// Runs `reach host`, and returns what it prints.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn reach_host(command: &str, arguments: &[&str]) -> String {
    let mut reach = Command::new(env!("CARGO_BIN_EXE_reach"));
    reach.args(["host", command]).args(arguments).env("KUBECONFIG", "/dev/null");
    succeeded(&format!("reach host {command}"), reach.output().expect("reach"))
}

/// What Cluster API's controllers make of the manifests, patched, for the first machine, with each option for static pods.
fn user_data(options: &[&str]) -> BTreeMap<&'static str, String> {
    let manifests = fs::read_to_string(root().join(MANIFESTS)).expect("our manifests");
    let cluster_api = ClusterApi::start();
    let clusters = [NONE, "inherit", "explicit"].map(|choice| {
        let choice_option = format!("--static-pods={choice}");
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        // Each is a cluster of its own.
        fs::write(file.path(), manifests.replace("namespace: clusters", &format!("namespace: {choice}")))
            .expect("a temporary file");
        let filename = ["--filename", text(file.path()), &choice_option];
        let stream = reach_host("patch", &[&filename, options].concat());
        (choice, cluster_api.create(choice, "shop", Workload::Absent, &stream))
    });
    clusters.iter().map(|(choice, cluster)| (*choice, cluster.user_data(Role::First).text)).collect()
}

/// The files that reach renders for the hosts of these manifests, by path.
fn rendered_files(site: &Site, options: &[&str]) -> BTreeMap<String, String> {
    let folder = site.folder().join("rendered");
    let manifests = root().join(MANIFESTS);
    let to = ["--format=drop-ins", "--output", text(&folder), "--from", text(&manifests)];
    reach_host("render", &[options, &to].concat());
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let place = Path::new("/").join(path.strip_prefix(&folder).expect("a path below it"));
                let content = fs::read_to_string(&path).expect("text");
                files.insert(place.to_str().expect("UTF-8").to_owned(), content);
            }
        }
    }
    files
}
