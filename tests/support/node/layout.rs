//! The folder of a cluster: its certificates, the configuration of its parts, and the commands that run them.
//!
//! `config` is written once. `var` is what a machine keeps on its disk, `run` what it loses when it is switched off.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::super::kubectl;
use super::super::process::{bound, etcd_arguments, flag, programs, random_token};
use super::network::{Addresses, Network};
use super::{
    CONTAINERD_NAMESPACE, NODE, OUTSIDE, OUTSIDE_PAGE, Options, PAUSE_IMAGE, PROXY_PORT, Part, unproxied,
};

/// Port of each API server, at its address.
pub const API_PORT: u16 = 6443;

/// Where kubelet says whether it is healthy.
pub const KUBELET_HEALTH_PORT: u16 = 10248;

/// Where kube-proxy says whether it is healthy.
pub const KUBE_PROXY_HEALTH_PORT: u16 = 10256;

/// Addresses of Services.
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// Addresses of pods.
const POD_RANGE: &str = "10.244.0.0/24";

/// The API server's address as a Service, the first of them.
const API_SERVICE: &str = "10.96.0.1";

/// Who connects to the API server: name of the kubeconfig, name and group of the user. What each may do is what Kubernetes
/// gives to users of these names.
const USERS: [(&str, &str, &str); 6] = [
    ("admin", "reach-test", "system:masters"),
    ("kubelet", "system:node:node", "system:nodes"),
    ("kube-controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("coredns", "system:coredns", ""),
];

/// Where things are.
#[derive(Debug)]
pub struct Layout {
    /// The folder with etcd, kube-apiserver, kube-controller-manager and kubectl.
    pub control_plane: PathBuf,
    /// The folder with the programs of the node.
    pub node: PathBuf,
    pub folder: PathBuf,
    pub logs: PathBuf,
    pub kubeconfig: PathBuf,
    pub second_kubeconfig: PathBuf,
    pub proxy_log: PathBuf,
    pub other_proxy_log: PathBuf,
    pub addresses: Addresses,
    pub network: Network,
    number: u8,
    detached: bool,
}

/// The folder of the cluster with a number. A fixed one, so that what an aborted run left is found; in a place where only root
/// can have made it.
pub fn folder(number: u8) -> PathBuf {
    PathBuf::from(format!("/var/lib/reach-cluster-{number}"))
}

/// Waits until this process is the one that has to do with the cluster of a number.
pub fn lock(number: u8) -> File {
    lock_name(&format!("cluster-{number}"))
}

/// Waits until this process is the one that has to do with what has a name.
pub fn lock_name(name: &str) -> File {
    let path = format!("/run/reach-{name}.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("cannot open {path}: {error}"));
    if file.try_lock().is_err() {
        eprintln!("{name}: waiting for another process to be done with it");
        file.lock().unwrap_or_else(|error| panic!("cannot lock {path}: {error}"));
    }
    file
}

/// `PATH` with folders before it, and with those that have programs for root, which are not on everyone's.
pub fn search_path(before: &[&Path]) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = before.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let folders = folders.chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(folders).expect("no colon in a folder's name")
}

// === impl Layout ===

impl Layout {
    /// Makes the folder with everything that does not change.
    pub fn new(options: &Options) -> Self {
        let layout = Self { detached: options.detached, ..Self::of(options.number).with_programs() };
        for (name, mode) in
            [("", 0o711), ("config", 0o711), ("var", 0o711), ("logs", 0o711), ("logs/proxies", 0o755)]
        {
            make_folder(&layout.path(name), mode);
        }
        let user = proxy_user();
        if let Some((user, group)) = user {
            chown(layout.path("logs/proxies"), Some(user), Some(group)).expect("root may give a folder away");
        }
        for log in [&layout.proxy_log, &layout.other_proxy_log] {
            fs::write(log, "").expect("a new file");
            chown(log, user.map(|(user, _)| user), None).expect("root may give a file away");
        }
        layout.write_certificates();
        layout.write_users();
        layout.write_containerd();
        layout.write_kubelet(&options.kubelet);
        layout.write_dns();
        layout.write_proxies();
        layout.write_outside();
        layout
    }

    /// That of the cluster with a number, without looking for programs.
    pub fn of(number: u8) -> Self {
        let folder = folder(number);
        Self {
            control_plane: PathBuf::new(),
            node: PathBuf::new(),
            logs: folder.join("logs"),
            kubeconfig: folder.join("config/admin.kubeconfig"),
            second_kubeconfig: folder.join("config/second.kubeconfig"),
            proxy_log: folder.join("logs/proxies/proxy.log"),
            other_proxy_log: folder.join("logs/proxies/other-proxy.log"),
            addresses: Addresses::new(number),
            network: Network::new(number),
            folder,
            number,
            detached: false,
        }
    }

    /// Looks for the programs, and builds them when they are not there yet.
    pub fn with_programs(self) -> Self {
        Self { control_plane: programs("control-plane/build.sh"), node: programs("node/build.sh"), ..self }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.folder.clone() } else { self.folder.join(name) }
    }

    /// The control group of all pods.
    pub fn cgroup(&self) -> String {
        format!("reach-{}", self.number)
    }

    /// The name of the pods' network, which files outside the folder have in their names.
    pub fn pod_network(&self) -> String {
        format!("reach-{}", self.number)
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.path("run/containerd.sock")
    }

    pub fn etcd_socket(&self) -> PathBuf {
        self.path("run/etcd.sock")
    }

    /// Makes anew what a machine has in memory only.
    pub fn prepare_run(&self) {
        make_folder(&self.path("run"), 0o711);
        for folder in control_groups() {
            let group = folder.join(self.cgroup());
            make_control_group(&group);
            hand_down_controllers(&group);
        }
    }

    /// Removes the folder, but for the logs when they are to be kept.
    pub fn remove_folder(&self) {
        if std::env::var_os("REACH_TEST_KEEP").is_none() {
            super::remove::folder(&self.folder);
            return;
        }
        for name in ["config", "var", "run", "images"] {
            super::remove::folder(&self.path(name));
        }
        eprintln!("cluster: logs are kept in {}", self.logs.display());
    }

    /// kubectl, as a user who may do everything.
    pub fn kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output {
        self.kubectl_at(&self.kubeconfig, arguments, stdin)
    }

    fn kubectl_at(&self, kubeconfig: &Path, arguments: &[&str], stdin: Stdio) -> Output {
        kubectl::run(&self.control_plane, kubeconfig, &self.path("run/kubectl-cache"), arguments, stdin)
    }

    /// Whether the API server of a kubeconfig is ready.
    pub fn api_is_ready(&self, kubeconfig: &Path) -> bool {
        self.kubectl_at(kubeconfig, &kubectl::READY, Stdio::null()).status.success()
    }

    /// ctr, in the namespace of kubelet's images and containers.
    pub fn ctr(&self) -> Command {
        let mut command = bound(self.node.join("ctr"));
        command
            .arg("--address")
            .arg(self.containerd_socket())
            .args(["--namespace", CONTAINERD_NAMESPACE])
            .stdin(Stdio::null());
        command
    }

    /// Makes an image of files of this machine and returns its archive.
    pub fn make_image(&self, name: &str, files: &[String]) -> PathBuf {
        make_folder(&self.path("images"), 0o755);
        let archive = self.path("images").join(format!("{}.tar", name.replace(['/', ':'], "-")));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/image.sh");
        let output = Command::new(script).arg(name).arg(&archive).args(files).output().expect("image.sh");
        super::succeeded("tests/node/image.sh", output);
        archive
    }

    /// The command that runs a part.
    pub fn command(&self, part: Part, options: &Options) -> Command {
        let config = |name: &str| self.path("config").join(name);
        let kubeconfig = |name: &str| flag("kubeconfig", &config(&format!("{name}.kubeconfig")));
        match part {
            Part::Outside => {
                let mut command = self.inside("/usr/bin/python3");
                command.arg("-I").arg(config("outside.py"));
                command
            }
            Part::Proxy | Part::OtherProxy => {
                // It does not serve as root, and would give up being so in places of its own choice.
                let mut command = self.inside("setpriv");
                if let Some((user, group)) = proxy_user() {
                    command.args([
                        format!("--reuid={user}"),
                        format!("--regid={group}"),
                        "--clear-groups".to_owned(),
                    ]);
                }
                if !self.detached {
                    // The kernel forgets that of a process that becomes another user's.
                    command.args(["--pdeathsig", "KILL"]);
                }
                command.args(["squid", "-N", "-f"]).arg(config(&format!("{}.conf", part.name())));
                command
            }
            Part::Containerd => {
                let mut command = self.inside(self.node.join("containerd"));
                command.arg("--config").arg(config("containerd.toml"));
                command
            }
            Part::Etcd => {
                let mut command = self.inside(self.control_plane.join("etcd"));
                command.args(etcd_arguments(&self.path("var/etcd"), &self.etcd_socket()));
                command
            }
            Part::ApiServer => self.api_server(self.addresses.node, options),
            Part::SecondApiServer => self.api_server(self.addresses.second_api, options),
            Part::ControllerManager => {
                let mut command = self.inside(self.control_plane.join("kube-controller-manager"));
                command
                    .arg(kubeconfig("kube-controller-manager"))
                    .arg(flag("root-ca-file", &config("ca.crt")))
                    .arg(flag("service-account-private-key-file", &config("service-accounts.key")))
                    // Each controller with the rights that Kubernetes gives it, as everywhere.
                    .arg("--use-service-account-credentials=true")
                    // The only one of its kind needs no election, and serves nothing that a test asks for.
                    .args(["--leader-elect=false", "--secure-port=0"]);
                command
            }
            Part::Scheduler => {
                let mut command = self.inside(self.node.join("kube-scheduler"));
                command.arg(kubeconfig("kube-scheduler")).args(["--leader-elect=false", "--secure-port=0"]);
                command
            }
            Part::Dns => {
                let mut command = self.inside(self.node.join("coredns"));
                command.arg("-conf").arg(config("Corefile"));
                command
            }
            Part::KubeProxy => {
                let mut command = self.inside(self.node.join("kube-proxy"));
                command.arg(flag("config", &config("kube-proxy.json")));
                command
            }
            Part::Kubelet => {
                let mut command = self.inside(self.node.join("kubelet"));
                command
                    .arg(flag("config", &config("kubelet.json")))
                    .arg(kubeconfig("kubelet"))
                    .arg(flag("root-dir", &self.path("var/kubelet")))
                    .arg(format!("--hostname-override={NODE}"))
                    .arg(format!("--node-ip={}", self.addresses.node));
                command
            }
        }
    }

    fn api_server(&self, address: std::net::Ipv4Addr, options: &Options) -> Command {
        let config = |name: &str| self.path("config").join(name);
        // API servers are told apart by the names of their machines, so each has one of its own.
        let mut command = self.inside("unshare");
        command
            .args(["--uts", "sh", "-c", "echo \"$1\" >/proc/sys/kernel/hostname; shift; exec \"$@\"", "sh"])
            .arg(format!("api-{}", address.octets()[3]))
            .arg(self.control_plane.join("kube-apiserver"))
            .arg(format!("--etcd-servers=unix://{}", self.etcd_socket().display()))
            .arg(format!("--bind-address={address}"))
            .arg(format!("--advertise-address={address}"))
            .arg(format!("--secure-port={API_PORT}"))
            .arg(flag("tls-cert-file", &config("kube-apiserver.crt")))
            .arg(flag("tls-private-key-file", &config("kube-apiserver.key")))
            .arg(flag("token-auth-file", &config("tokens.csv")))
            .arg(flag("service-account-key-file", &config("service-accounts.pub")))
            .arg(flag("service-account-signing-key-file", &config("service-accounts.key")))
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"))
            .args([
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                // Nobody resolves the node's name.
                "--kubelet-preferred-address-types=InternalIP",
                // Its end then takes about 2 seconds. Without, it waits up to a minute for open watches to end by themselves.
                "--shutdown-send-retry-after=true",
            ])
            .args(&options.api_server_flags);
        command
    }

    /// A command that runs a program in the cluster's network, with the same view of files and mounts as everyone: containerd
    /// has to see what kubelet mounts.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let network = flag("net", &self.network.path());
        let mut command = if self.detached {
            // A session of its own, which the end of a terminal does not concern.
            let mut command = unproxied("setsid");
            command.arg("nsenter").arg(network);
            command
        } else {
            let mut command = bound("nsenter");
            command.arg(network);
            command
        };
        command.arg(program).env("PATH", search_path(&[&self.node, &self.control_plane]));
        // A person's own cluster is not this one's business.
        command.env_remove("KUBECONFIG").current_dir("/");
        command
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path("config").join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Writes what only root may read.
    fn write_secret(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write(name, "");
        fs::set_permissions(self.path("config").join(name), Permissions::from_mode(0o600)).expect("our file");
        self.write(name, content);
    }

    fn write_certificates(&self) {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "reach test cluster");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        self.write("ca.crt", ca.self_signed(&ca_key).expect("a certificate").pem());
        let issuer = Issuer::from_params(&ca, &ca_key);
        let Addresses { node, second_api, outside, .. } = self.addresses;
        let serve = |file: &str, names: Vec<String>| {
            let key = KeyPair::generate().expect("a key");
            let certificate =
                CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer));
            self.write(&format!("{file}.crt"), certificate.expect("a certificate").pem());
            self.write_secret(&format!("{file}.key"), key.serialize_pem());
        };
        let mut names =
            vec![node.to_string(), second_api.to_string(), API_SERVICE.to_owned(), "localhost".to_owned()];
        names.extend(
            ["", ".default", ".default.svc", ".default.svc.cluster.local"]
                .map(|end| format!("kubernetes{end}")),
        );
        serve("kube-apiserver", names);
        serve("outside", vec![OUTSIDE.to_owned(), outside.to_string()]);
        let accounts = KeyPair::generate().expect("a key");
        self.write_secret("service-accounts.key", accounts.serialize_pem());
        self.write("service-accounts.pub", accounts.public_key_pem());
    }

    fn write_users(&self) {
        let mut tokens = String::new();
        for (name, user, group) in USERS {
            let token = random_token();
            writeln!(tokens, "{token},{user},{user},\"{group}\"").expect("a string takes all");
            let mut kubeconfigs = vec![(name, self.addresses.node)];
            if name == "admin" {
                kubeconfigs.push(("second", self.addresses.second_api));
            }
            for (name, server) in kubeconfigs {
                let server = format!("https://{server}:{API_PORT}");
                let kubeconfig = kubectl::kubeconfig(&server, &self.path("config/ca.crt"), &token);
                self.write_secret(&format!("{name}.kubeconfig"), kubeconfig);
            }
        }
        self.write_secret("tokens.csv", tokens);
    }

    fn write_containerd(&self) {
        let shown = |name: &str| self.path(name).display().to_string();
        self.write(
            "containerd.toml",
            format!(
                r#"version = 3
root = "{root}"
state = "{state}"
# Less than it has, a process without CAP_SYS_RESOURCE may not ask for.
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{socket}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
conf_dir = "{cni}"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
Root = "{runc}"
SystemdCgroup = false
"#,
                root = shown("var/containerd"),
                state = shown("run/containerd"),
                socket = self.containerd_socket().display(),
                cni = shown("config/cni"),
                runc = shown("run/runc"),
            ),
        );
        make_folder(&self.path("config/cni"), 0o755);
        // A link of its own for each pod, rather than a bridge: answers of a Service in the pod's own network would go over
        // a bridge without the kernel's translation of addresses, unless it has one more module.
        let network = json!({
            "cniVersion": "0.4.0",
            "name": self.pod_network(),
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.path("run/pod-addresses"),
                        "ranges": [[{"subnet": POD_RANGE}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        self.write("cni/reach.conflist", network.to_string());
    }

    fn write_kubelet(&self, more: &serde_json::Map<String, Value>) {
        let Addresses { node, .. } = self.addresses;
        let mut kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node,
            "healthzBindAddress": node,
            "healthzPort": KUBELET_HEALTH_PORT,
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{}", self.containerd_socket().display()),
            "clusterDNS": [node],
            "clusterDomain": "cluster.local",
            "resolvConf": self.path("config/resolv.conf"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup()),
            "failCgroupV1": false,
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "enforceNodeAllocatable": [],
            // The disk of a developer's machine may be nearly full.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": false,
            "podLogsDir": self.path("run/pod-logs"),
            "volumePluginDir": self.path("var/volume-plugins"),
            // It is not root of the machine's own namespaces in each place where tests run.
            "featureGates": {"KubeletInUserNamespace": true},
            "maxPods": 200,
        });
        kubelet.as_object_mut().expect("an object").extend(more.clone());
        self.write("kubelet.json", kubelet.to_string());
        // Names that pods look up are not completed with this machine's domains.
        self.write("resolv.conf", format!("nameserver {node}\n"));
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": node,
            "healthzBindAddress": format!("{node}:{KUBE_PROXY_HEALTH_PORT}"),
            "hostnameOverride": NODE,
            "clientConnection": {"kubeconfig": self.path("config/kube-proxy.kubeconfig")},
            "mode": "iptables",
            "clusterCIDR": POD_RANGE,
            // Those are settings of the whole machine.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        self.write("kube-proxy.json", proxy.to_string());
    }

    fn write_dns(&self) {
        let Addresses { node, outside, proxy, other_proxy, .. } = self.addresses;
        let kubeconfig = self.path("config/coredns.kubeconfig");
        let corefile = format!(
            "# The cluster's.
            .:53 {{
                bind {node}
                errors
                kubernetes cluster.local {{
                    kubeconfig {kubeconfig} reach-test
                }}
                hosts {{
                    {proxy} proxy.corp.example
                    {other_proxy} other-proxy.corp.example
                    fallthrough
                }}
                template ANY ANY {{
                    rcode NXDOMAIN
                }}
            }}
            # The company's, which only the proxies ask.
            .:53 {{
                bind {proxy}
                errors
                hosts {{
                    {outside} {OUTSIDE}
                    fallthrough
                }}
                template ANY ANY {{
                    rcode NXDOMAIN
                }}
            }}
            ",
            kubeconfig = kubeconfig.display(),
        );
        self.write("Corefile", corefile);
    }

    fn write_proxies(&self) {
        let Addresses { outside, proxy, other_proxy, .. } = self.addresses;
        self.write("corp-hosts", format!("{outside} {OUTSIDE}\n"));
        for (part, address, log) in
            [(Part::Proxy, proxy, &self.proxy_log), (Part::OtherProxy, other_proxy, &self.other_proxy_log)]
        {
            let name = part.name();
            let config = format!(
                "visible_hostname {name}.corp.example
                http_port {address}:{PROXY_PORT}
                icp_port 0
                # Even while the DNS is stopped, it knows the outside.
                hosts_file {hosts}
                dns_nameservers {proxy}
                dns_retransmit_interval 1 second
                dns_timeout 2 seconds
                # It is a process of the node, but stands for one elsewhere: it does not reach the cluster's own.
                acl cluster dst {SERVICE_RANGE} {POD_RANGE}
                http_access deny cluster
                http_access allow all
                cache deny all
                access_log stdio:{log} logformat=squid
                buffered_logs off
                cache_log {logs}/proxies/{name}.diagnosis.log
                cache_store_log none
                netdb_filename none
                pid_filename none
                coredump_dir none
                pinger_enable off
                shutdown_lifetime 0 seconds
                ",
                hosts = self.path("config/corp-hosts").display(),
                log = log.display(),
                logs = self.logs.display(),
            );
            self.write(&format!("{name}.conf"), config);
        }
    }

    fn write_outside(&self) {
        let script = format!(
            r#"import http.server, ssl, threading

PAGE = {OUTSIDE_PAGE:?}.encode()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

def serve(port, context=None):
    server = http.server.ThreadingHTTPServer(("{address}", port), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    return server

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("{config}/outside.crt", "{config}/outside.key")
threading.Thread(target=serve(443, context).serve_forever, daemon=True).start()
serve(80).serve_forever()
"#,
            address = self.addresses.outside,
            config = self.path("config").display(),
        );
        self.write("outside.py", script);
    }
}

/// What CoreDNS may read.
pub fn dns_rights() -> Value {
    json!([
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
        },
    ])
}

/// The folders of this machine's control groups: one for each hierarchy of version 1, or the only one of version 2.
pub fn control_groups() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let Ok(entries) = fs::read_dir(&root) else { return Vec::new() };
    let folders = entries.flatten().map(|entry| entry.path());
    folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

/// Makes a control group in which processes can be.
pub fn make_control_group(folder: &Path) {
    let parent = folder.parent().expect("a folder of control groups");
    make_folder(folder, 0o755);
    // Version 1 begins without any, and takes no process until it has some.
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read(parent.join(name))
            && !parent.join("cgroup.controllers").exists()
        {
            fs::write(folder.join(name), value).expect("a control group takes what its parent has");
        }
    }
    hand_down_controllers(parent);
}

/// Gives a control group's controllers to those below it. One of version 2 then takes no process itself any more.
fn hand_down_controllers(group: &Path) {
    // Version 2 hands a controller down only when told. One that cannot be had, kubelet names.
    for controller in ["+cpu", "+cpuset", "+memory", "+pids", "+io", "+hugetlb"] {
        let switch = group.join("cgroup.subtree_control");
        if switch.exists() {
            let _ = fs::write(switch, controller);
        }
    }
}

pub fn make_folder(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    // Control groups have modes of their own.
    if !path.starts_with("/sys") {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("our folder");
    }
}

/// The user and group as whom squid serves; `None` when this machine has none for it, and squid chooses.
pub fn proxy_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let mut numbers = fields.skip(1).map_while(|field| field.parse().ok());
        ["proxy", "squid"].contains(&name).then_some((numbers.next()?, numbers.next()?))
    })
}

/// Whether root made a file, and not somebody else a link in its place.
pub fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0)
}
