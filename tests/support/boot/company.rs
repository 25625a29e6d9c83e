//! The company around the machine: its network, proxy, DNS and registries.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::super::node::layout::{make_folder, proxy_user, search_path};
use super::super::node::remove;
use super::machine::Programs;
use super::{
    COMPANY_REGISTRY, ENDPOINT, Launcher, NETWORK, NODE_ADDRESS, OUTSIDE_REGISTRY, Process, USER, bound,
    flag, succeeded, text,
};

/// The router of the company's network.
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 90, 1);

/// The proxy, and the DNS.
const PROXY_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 90, 4);

/// The company's registry.
const COMPANY_REGISTRY_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 90, 5);

/// The registry outside, which no route of the machine leads to.
const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// This machine, as seen from the company.
const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 90, 1);

/// Addresses of pods, which the company's router knows to be behind the machine.
const PODS: &str = "10.244.0.0/16";

/// The network namespace of the company.
const COMPANY: &str = "reach-boot-corp";

/// The network namespace of the machine.
const MACHINE: &str = "reach-boot";

/// The end on this machine of the link to the company.
const LINK: &str = "reachboot";

/// What stands around the machine. It runs until it is killed.
#[derive(Debug)]
pub struct Company {
    /// Its CA, in PEM.
    pub ca: String,
    /// The proxy's access log.
    pub proxy_log: PathBuf,
    password: String,
    folder: PathBuf,
    logs: PathBuf,
    processes: Vec<Process>,
}

impl Company {
    /// Makes the network and starts everything in it.
    pub fn start(folder: &Path, programs: &Programs, launcher: &Launcher) -> Self {
        create_network();
        let logs = folder.join("logs");
        let mut company = Self {
            ca: String::new(),
            proxy_log: logs.join("proxy/access.log"),
            // Every printable character: what is right for this one is right for any.
            password: (b'!'..=b'~').chain([b' ']).map(char::from).collect(),
            folder: folder.join("company"),
            logs,
            processes: Vec::new(),
        };
        company.write_certificates();
        company.write_proxy();
        company.write_dns();
        let registries =
            [("company-registry", COMPANY_REGISTRY_ADDRESS), ("outside-registry", OUTSIDE_ADDRESS)];
        for (name, address) in registries {
            company.write_registry(name, address);
        }
        let config = |name: &str| company.folder.join(name);
        let mut squid = inside("setpriv");
        // As in a cluster of the tests: it does not serve as root.
        if let Some((user, group)) = proxy_user() {
            squid.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        }
        squid.args(["--pdeathsig", "KILL", "squid", "-N", "-f"]).arg(config("squid.conf"));
        let mut dns = inside(programs.node.join("coredns"));
        dns.arg("-conf").arg(config("Corefile"));
        let mut started = vec![("proxy", squid, PROXY_ADDRESS, 3128), ("dns", dns, PROXY_ADDRESS, 53)];
        for (name, address) in registries {
            let mut registry = inside("docker-registry");
            registry.arg("serve").arg(config(&format!("{name}.yml")));
            started.push((name, registry, address, 443));
        }
        for (name, command, address, port) in started {
            let mut process = launcher.launch(name, command, &company.logs);
            remove::note(folder, process.pid());
            let ready = process.await_ready(|| {
                let address = SocketAddr::from((address, port));
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            });
            company.processes.push(process);
            ready.unwrap_or_else(|message| panic!("{message}"));
        }
        company
    }

    /// Kills everything at once: nothing of it is needed any more.
    pub fn kill(&mut self) {
        for process in &mut self.processes {
            process.kill();
        }
    }

    /// Options with which curl reaches both registries by their names.
    pub fn curl_options(&self) -> Vec<String> {
        vec![
            "--cacert".to_owned(),
            self.folder.join("ca.crt").display().to_string(),
            "--resolve".to_owned(),
            format!("{COMPANY_REGISTRY}:443:{COMPANY_REGISTRY_ADDRESS}"),
            "--resolve".to_owned(),
            format!("{OUTSIDE_REGISTRY}:443:{OUTSIDE_ADDRESS}"),
        ]
    }

    /// The access log of a registry.
    pub fn registry_log(&self, registry: &str) -> String {
        let name = if registry == OUTSIDE_REGISTRY { "outside-registry" } else { "company-registry" };
        let log = self.logs.join(format!("{name}.log"));
        fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()))
    }

    /// The password with everything percent-encoded but what RFC 3986 has for itself.
    pub fn password_in_url(&self) -> String {
        self.password.bytes().fold(String::new(), |mut url, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                write!(url, "%{byte:02X}").expect("a string takes all");
            }
            url
        })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn write_certificates(&mut self) {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "Corp Example CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        self.ca = ca.self_signed(&ca_key).expect("a certificate").pem();
        self.write("ca.crt", &self.ca);
        let issuer = Issuer::from_params(&ca, &ca_key);
        let key = KeyPair::generate().expect("a key");
        let names = [COMPANY_REGISTRY, OUTSIDE_REGISTRY].map(str::to_owned).to_vec();
        let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer));
        self.write("registry.crt", certificate.expect("a certificate").pem());
        self.write("registry.key", "");
        let mode = Permissions::from_mode(0o600);
        fs::set_permissions(self.folder.join("registry.key"), mode).expect("our file");
        self.write("registry.key", key.serialize_pem());
    }

    fn write_proxy(&self) {
        let user = proxy_user();
        make_folder(&self.logs.join("proxy"), 0o755);
        fs::write(&self.proxy_log, "").expect("a new file");
        for path in [self.logs.join("proxy"), self.proxy_log.clone()] {
            chown(path, user.map(|(user, _)| user), user.map(|(_, group)| group))
                .expect("root may give away");
        }
        let hashed = Command::new("openssl")
            .args(["passwd", "-6", "-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                writeln!(child.stdin.take().expect("a pipe"), "{}", self.password)?;
                child.wait_with_output()
            });
        let hash = succeeded("openssl passwd", hashed.expect("openssl"));
        self.write("passwords", format!("{USER}:{hash}"));
        self.write("outside-hosts", format!("{OUTSIDE_ADDRESS} {OUTSIDE_REGISTRY}\n"));
        self.write(
            "squid.conf",
            format!(
                "visible_hostname proxy.corp.example
                http_port {PROXY_ADDRESS}:3128
                icp_port 0
                hosts_file {folder}/outside-hosts
                dns_nameservers {PROXY_ADDRESS}
                auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/passwords
                auth_param basic realm corp
                acl known proxy_auth REQUIRED
                # It leads out of the company, not back into it.
                acl company dst {NETWORK} {PODS} 10.96.0.0/12
                http_access deny company
                http_access allow known
                http_access deny all
                cache deny all
                # It logs a tunnel when that ends, and whoever pulls an image leaves it open for a while.
                read_timeout 2 seconds
                access_log stdio:{log} logformat=squid
                buffered_logs off
                cache_log {logs}/proxy/diagnosis.log
                cache_store_log none
                netdb_filename none
                pid_filename none
                coredump_dir none
                pinger_enable off
                shutdown_lifetime 0 seconds
                ",
                folder = self.folder.display(),
                log = self.proxy_log.display(),
                logs = self.logs.display(),
            ),
        );
    }

    fn write_dns(&self) {
        self.write(
            "Corefile",
            format!(
                ".:53 {{
                    bind {PROXY_ADDRESS}
                    errors
                    hosts {{
                        {PROXY_ADDRESS} proxy.corp.example
                        {COMPANY_REGISTRY_ADDRESS} {COMPANY_REGISTRY}
                        fallthrough
                    }}
                    template ANY ANY {{
                        rcode NXDOMAIN
                    }}
                }}
                "
            ),
        );
    }

    fn write_registry(&self, name: &str, address: Ipv4Addr) {
        let folder = self.folder.display();
        self.write(
            &format!("{name}.yml"),
            format!(
                "version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/{name}}}}}
http:
  addr: {address}:443
  secret: for one process
  tls: {{certificate: {folder}/registry.crt, key: {folder}/registry.key}}
"
            ),
        );
    }
}

/// A command that runs a program of this machine in the company's network.
pub fn inside(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = bound("nsenter");
    command.arg(format!("--net=/run/netns/{COMPANY}")).arg(program).env("PATH", search_path(&[]));
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// The file that stands for the network of the machine.
pub fn machine_network() -> PathBuf {
    PathBuf::from("/run/netns").join(MACHINE)
}

/// The machine's `resolv.conf`.
pub fn resolver() -> String {
    format!("nameserver {PROXY_ADDRESS}\n")
}

fn create_network() {
    // The load balancer is a rule of the router's: connections to it come from the router (and not over the bridge, where the
    // rule would hold too, if the kernel was told so: no port of it takes back what it gave). Traffic to this machine is for
    // answers only, so that nothing in there reaches what listens here.
    script(&format!(
        "ip netns add {COMPANY}
        company() {{ nsenter --net=/run/netns/{COMPANY} \"$@\"; }}
        company ip link set lo up
        company ip link add lan type bridge
        for address in {ROUTER} {PROXY_ADDRESS} {COMPANY_REGISTRY_ADDRESS}; do
          company ip address add $address/24 dev lan
        done
        company ip address add {ENDPOINT}/32 dev lan
        company ip address add {OUTSIDE_ADDRESS}/32 dev lo
        company ip link set lan up
        company ip route add {PODS} via {NODE_ADDRESS}
        company sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
          for name in all lan; do echo 0 >/proc/sys/net/ipv4/conf/$name/send_redirects; done
          nat=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $nat ] || echo 0 >$nat'
        company iptables -w -A INPUT -i lan -d {OUTSIDE_ADDRESS} -j REJECT
        company iptables -w -t nat -A PREROUTING -d {ENDPOINT} -p tcp --dport 6443 -j DNAT --to-destination {NODE_ADDRESS}
        company iptables -w -t nat -A POSTROUTING -d {NODE_ADDRESS} -p tcp --dport 6443 -j MASQUERADE
        ip link add {LINK} type veth peer name host netns {COMPANY}
        company ip link set host up
        company ip route add {HOST}/32 dev host
        ip address add {HOST}/32 dev {LINK}
        ip link set {LINK} up
        for network in {NETWORK} {OUTSIDE_ADDRESS}/32; do ip route add $network dev {LINK} src {HOST}; done
        company iptables -w -A OUTPUT -o host -m conntrack --ctstate NEW -j DROP
        company iptables -w -A FORWARD -o host -m conntrack --ctstate NEW -j DROP"
    ));
}

/// Makes the network of the machine, with a link to the company's.
pub fn connect_machine() {
    script(&format!(
        "# The kernel takes a moment to remove what was at the other end of it.
        if nsenter --net=/run/netns/{COMPANY} ip link show machine >/dev/null 2>&1; then
          ip -netns {COMPANY} link delete machine || true
        fi
        ip netns add {MACHINE}
        machine() {{ nsenter --net=/run/netns/{MACHINE} \"$@\"; }}
        machine ip link set lo up
        ip -netns {MACHINE} link add eth0 type veth peer name machine netns {COMPANY}
        ip -netns {COMPANY} link set machine master lan up
        machine ip address add {NODE_ADDRESS}/24 dev eth0
        machine ip link set eth0 up
        machine ip route add default via {ROUTER}
        machine sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"
    ));
}

/// Removes the machine's network, when it is there.
pub fn remove_machine_network() {
    script(&format!("if [ -e /run/netns/{MACHINE} ]; then ip netns delete {MACHINE}; fi"));
}

/// Removes both networks, when they are there.
pub fn remove_networks() {
    remove_machine_network();
    script(&format!(
        "if [ -e /sys/class/net/{LINK} ]; then ip link delete {LINK}; fi
        if [ -e /run/netns/{COMPANY} ]; then ip netns delete {COMPANY}; fi"
    ));
}

fn script(text_of: &str) {
    let output = Command::new("sh").args(["-ec", text_of]).env("PATH", search_path(&[])).output();
    let output = output.expect("sh");
    assert!(output.status.success(), "cannot set up the network: {}", text(&output));
}
