//! What is wrong with a cluster's network and with what its author does about proxies by hand.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::field::{Field, Place, Report};
use super::files::{self, Content, File};
use super::pools::Pool;
use super::{Finding, Group, Manifests, Object};
use crate::host::node::StaticPods;
use crate::host::targets::{Target, Unit};
use crate::host::values::Setting;
use crate::host::variables::has_reference;
use crate::inject::preset::ProxyVariable;
use crate::lint::{self, Facts, Id, Role, Scope, Subject};
use crate::no_proxy;
use crate::no_proxy::entry::Entry;

/// Our script, by which a command is known to be ours.
const OURS: &str = "/etc/reach/apply-proxy.sh";

/// The first Kubernetes whose kubeadm reads `extraEnvs` (kubeadm.k8s.io/v1beta4).
const EXTRA_ENVS_SINCE: (u32, u32) = (1, 31);

/// Programs that download whatever their arguments are.
const DOWNLOADERS: [&str; 2] = ["curl", "wget"];
/// Programs that download with some of their commands.
const MANAGERS: [&str; 19] = [
    "apk", "apt", "apt-get", "aptitude", "crictl", "ctr", "dnf", "docker", "git", "helm", "microdnf",
    "nerdctl", "pip", "pip3", "podman", "snap", "tdnf", "yum", "zypper",
];
/// These commands.
const DOWNLOADS: [&str; 12] = [
    "add",
    "clone",
    "dist-upgrade",
    "download",
    "fetch",
    "in",
    "install",
    "makecache",
    "pull",
    "refresh",
    "update",
    "upgrade",
];

/// What a Jinja expression of cloud-init's instance data begins with: these are meant.
const INSTANCE_DATA: [&str; 8] = [
    "ds",
    "v1",
    "local_hostname",
    "local-hostname",
    "instance_id",
    "region",
    "availability_zone",
    "platform",
];

/// Characters of which Jinja makes something, each with what it makes of them.
const JINJA: [(&str, &str); 3] = [("{%", "a statement"), ("{#", "a comment"), ("{{", "an expression")];

/// What is wrong with a group: with the networks of its cluster, with the proxies that its hosts get, and with what its
/// configurations say of proxies themselves.
///
/// `settings` are what hosts get, the group's entries among them; `static_pods` says whether static pods get them, too, and
/// how.
/// Groups that share an object share what is found in it.
#[must_use]
pub fn check(
    manifests: &Manifests,
    group: &Group,
    settings: &[Setting],
    static_pods: StaticPods,
) -> Vec<Finding> {
    let mut check = Check { objects: manifests.objects(), group, settings, static_pods, found: Vec::new() };
    check.virtual_addresses();
    check.overlaps();
    check.pools();
    check.zones();
    check.variables();
    if static_pods != StaticPods::None {
        check.static_pods();
    }
    if let Some(index) = group.cluster.filter(|_| check.is_explicit()) {
        check.kubernetes(&Field::of(check.objects, index).at("spec.topology.version"));
    }
    for &index in &group.configurations {
        check.configuration(&Field::of(check.objects, index));
    }
    let mut found = check.found;
    found.sort();
    found.dedup();
    found
}

struct Check<'c> {
    objects: &'c [Object],
    group: &'c Group,
    settings: &'c [Setting],
    static_pods: StaticPods,
    found: Vec<Finding>,
}

// === impl Check ===

impl Check<'_> {
    fn add(&mut self, place: &Place, rule: &'static str, message: String) {
        self.found.push(place.finding(self.objects, rule, message));
    }

    /// Whether there is a proxy at all.
    fn has_proxy(&self) -> bool {
        self.settings.iter().any(|setting| setting.proxy != ProxyVariable::No)
    }

    fn virtual_addresses(&mut self) {
        let known = &self.group.known;
        for (vip, place) in &known.vips {
            // Nobody knows whether two variables are the same, and what address a name has.
            let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
            let may_be_it = |(host, _): &(String, Place)| {
                *host == vip.address
                    || has_reference(host)
                    || has_reference(&vip.address)
                    || is_address(host) != is_address(&vip.address)
            };
            if let Some((endpoint, elsewhere)) = known.endpoints.first()
                && !known.endpoints.iter().any(may_be_it)
            {
                let message = format!(
                    "kube-vip holds {}, but {} says {endpoint}, where machines join and nothing answers: write the same \
                     in both places",
                    vip.address,
                    elsewhere.shown(self.objects)
                );
                self.add(place, "vip-mismatch", message);
            }
            if let Ok(address) = vip.address.parse::<IpAddr>()
                && vip.is_arp
                && let Some((net, elsewhere)) =
                    known.nodes.iter().find(|(net, _)| net.addr().is_ipv4() == address.is_ipv4())
                && !known.nodes.iter().any(|(net, _)| net.contains(&address))
            {
                let message = format!(
                    "{address} is in no network of the machines, such as {net} ({}), and kube-vip announces it with ARP, \
                     which stays in one network: write an address of the machines' network",
                    elsewhere.shown(self.objects)
                );
                self.add(place, "vip-outside-nodes", message);
            }
        }
        let vips = known.vips.iter().map(|(vip, place)| (&vip.address, place));
        let mut seen: Vec<IpAddr> = Vec::new();
        for (host, place) in known.endpoints.iter().map(|(host, place)| (host, place)).chain(vips) {
            let Ok(address) = host.parse::<IpAddr>() else { continue };
            if seen.contains(&address) {
                continue;
            }
            seen.push(address);
            let gives = |(index, pool): &&(usize, Arc<Pool>)| {
                // The endpoint is one of these addresses because the pool gave it.
                !known.endpoint_pools.contains(index) && pool.parts.iter().any(|part| part.gives(address))
            };
            if let Some((index, _)) = known.pools.iter().find(gives) {
                let message = format!(
                    "{address} is what {} may give to a machine: write it among the addresses that the pool excludes",
                    self.objects[*index]
                );
                self.add(place, "vip-in-pool", message);
            }
        }
    }

    fn overlaps(&mut self) {
        let known = &self.group.known;
        let kinds = [("pods", &known.pods), ("Services", &known.services), ("machines", &known.nodes)];
        for (at, (kind, networks)) in kinds.iter().enumerate() {
            for (other_kind, others) in &kinds[at + 1..] {
                for (net, place) in distinct(networks) {
                    for (other, elsewhere) in distinct(others) {
                        if !net.contains(other) && !other.contains(net) {
                            continue;
                        }
                        let message = format!(
                            "{net} of {kind} overlaps {other} of {other_kind} ({}): write networks that have no address \
                             in common",
                            elsewhere.shown(self.objects)
                        );
                        self.found.push(place.finding(self.objects, "network-overlap", message));
                    }
                }
            }
        }
    }

    fn pools(&mut self) {
        for part in self.group.known.pools.iter().flat_map(|(_, pool)| &pool.parts) {
            for (range, net, place) in part.outside() {
                let message = format!(
                    "{range} is not, or not all, in {net}, the network of the pool: write a shorter prefix, or another \
                     pool for it"
                );
                self.found.push(place.finding(self.objects, "pool-outside-subnet", message));
            }
            for (range, place) in part.useless_exclusions() {
                let message = format!(
                    "{range} is not, or not all, among the addresses of the pool, so excluding it does nothing there: \
                     write addresses that the pool has"
                );
                self.found.push(place.finding(self.objects, "pool-exclusions", message));
            }
        }
    }

    fn zones(&mut self) {
        for place in &self.group.known.strange_zones {
            let message = "not the text that the VSphereCluster has as its server, so no machine of a control plane comes \
                           here, and other machines only if they name this failure domain: write the same text, or name \
                           it in a MachineDeployment";
            self.found.push(place.finding(self.objects, "zone-server", message.to_owned()));
        }
    }

    /// What `reach lint` has against the variables that comes from more than one preset.
    fn variables(&mut self) {
        let group = self.group;
        let Some(anchor) = group.cluster.or(group.class).or_else(|| group.configurations.first().copied())
        else {
            return;
        };
        let variable = |setting: &Setting| lint::Variable {
            name: setting.proxy.lower().to_owned(),
            value: Some(setting.value.clone()),
            pointer: String::new(),
        };
        let subject = Subject {
            name: String::new(),
            scope: Scope::File,
            is_rewritten: true,
            has_both_spellings: true,
            is_open: true,
            variables: self.settings.iter().map(variable).collect(),
            role: Role::Any,
        };
        for finding in lint::check(&subject, &Facts::default()) {
            let rule = match finding.id {
                Id::E7 => "E7",
                Id::W8 => "W8",
                _ => continue,
            };
            let field = &subject.variables[finding.variable].name;
            let breaks = if finding.breaks.is_empty() { "" } else { ": " };
            let message = format!("{}{breaks}{}; write {}", finding.message, finding.breaks, finding.advice);
            self.found.push(self.objects[anchor].finding(rule, field, message));
        }
    }

    /// What the API server reaches has to be in the list once it has a proxy.
    fn static_pods(&mut self) {
        let group = self.group;
        let Some(anchor) = group.cluster.or(group.class).or_else(|| group.configurations.first().copied())
        else {
            return;
        };
        if !self.has_proxy() {
            return;
        }
        let list = self.settings.iter().find(|setting| setting.proxy == ProxyVariable::No);
        let list = List::new(list.map_or("", |setting| &setting.value));
        let mut missing = Vec::new();
        if !list.has_name("webhook.namespace.svc") {
            missing.push(".svc".to_owned());
        }
        let known = &group.known;
        for (net, _) in known.services.iter().chain(&known.pods).chain(&known.nodes) {
            if !list.has_network(net) {
                missing.push(net.to_string());
            }
        }
        let vips = known.vips.iter().map(|(vip, _)| &vip.address);
        for host in known.endpoints.iter().map(|(host, _)| host).chain(vips) {
            if !list.has_host(host) {
                missing.push(host.clone());
            }
        }
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return;
        }
        let message = format!(
            "static pods get a proxy, and the list lacks what the API server reaches by itself: write {}",
            missing.join(",")
        );
        self.found.push(self.objects[anchor].finding("static-pods", "no_proxy", message));
    }

    /// Whether static pods get the variables by `extraEnvs`.
    fn is_explicit(&self) -> bool {
        self.static_pods == StaticPods::Explicit && self.has_proxy()
    }

    /// The version that a control plane has, where `extraEnvs` are to do something.
    fn kubernetes(&mut self, field: &Field<'_>) {
        let Some(text) = field.value.as_str() else { return };
        let mut numbers = text.trim_start_matches('v').split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return };
        if (major, minor) < EXTRA_ENVS_SINCE {
            let (major, minor) = EXTRA_ENVS_SINCE;
            let message = format!(
                "before {major}.{minor}, whose kubeadm is the first that reads extraEnvs, so static pods get no proxy: \
                 write --static-pods inherit"
            );
            self.found.push(field.finding("old-kubernetes", message));
        }
    }

    /// What a configuration says of proxies itself.
    fn configuration(&mut self, object: &Field<'_>) {
        let Some(path) = object.object.configuration() else { return };
        let spec = object.at(path);
        // Types were looked at when the entries were derived.
        let mut report = Report::default();
        let is_cloud_init = spec.at("format").value != "ignition";
        let mut of_components =
            ["apiServer", "controllerManager", "scheduler"].iter().flat_map(|component| {
                spec.at(&format!("clusterConfiguration.{component}.extraEnvs")).items(&mut report)
            });
        let is_proxy = |item: Field<'_>| item.value["name"].as_str().is_some_and(is_about_proxies);
        if of_components.any(is_proxy) || self.is_explicit() {
            self.kubernetes(&object.at("spec.version"));
        }
        let networking = spec.at("clusterConfiguration.networking");
        if networking.value.as_object().is_some_and(|members| !members.is_empty()) {
            let message = "Cluster API drops this since 1.11 and takes what the Cluster says: write it into \
                           spec.clusterNetwork of the Cluster";
            self.found.push(networking.finding("dropped-networking", message.to_owned()));
        }
        if self.has_proxy() {
            self.downloads(&spec, &mut report);
        }
        for list in ["bootCommands", "preKubeadmCommands", "postKubeadmCommands"] {
            for field in spec.at(list).items(&mut report) {
                let Some(command) = field.value.as_str().filter(|text| is_about_proxies(text)) else {
                    continue;
                };
                if list == "preKubeadmCommands" && !command.contains("/etc/reach/") && exports(command) {
                    let message = "exports proxy variables, which kubeadm copies into static pods and kube-proxy: take it \
                                   out, and say with --static-pods what they are to have";
                    self.found.push(field.finding("exported-proxy", message.to_owned()));
                }
                if is_cloud_init {
                    self.jinja(&field, command);
                }
            }
        }
        for file in files::files(&spec, &mut report) {
            self.file(&file, is_cloud_init);
        }
    }

    fn downloads(&mut self, spec: &Field<'_>, report: &mut Report) {
        let message = |when: &str| {
            format!("downloads {when}, so without a proxy: write it into preKubeadmCommands, behind {OURS}")
        };
        let is_download = |field: &Field<'_>| field.value.as_str().is_some_and(downloads);
        for field in spec.at("bootCommands").items(report).iter().filter(|field| is_download(field)) {
            let message = message("before any file is written");
            self.found.push(field.finding("early-download", message));
        }
        let commands = spec.at("preKubeadmCommands").items(report);
        let is_ours = |field: &Field<'_>| field.value.as_str().is_some_and(|text| text.contains(OURS));
        let ours = commands.iter().position(is_ours).unwrap_or_default();
        for field in commands[..ours].iter().filter(|field| is_download(field)) {
            let message = message("before the proxy is set up");
            self.found.push(field.finding("early-download", message));
        }
    }

    /// A file that is not ours and has to do with proxies.
    fn file(&mut self, file: &File<'_>, is_cloud_init: bool) {
        let text = file.text().unwrap_or_default();
        let from = file.field.at("contentFrom");
        // Cluster API copies it as it is.
        if is_cloud_init
            && !is_ours(file.path)
            && !file.field.at("encoding").is_set()
            && let Some(text) = self.of_secret(&from)
            && (is_about_proxies(file.path) || is_about_proxies(&text))
        {
            self.jinja(&from, &text);
        }
        if is_ours(file.path) || !(is_about_proxies(file.path) || is_about_proxies(text)) {
            return;
        }
        let content = file.field.at("content");
        if is_cloud_init && let Content::Plain(text) = &file.content {
            self.jinja(&content, text);
        }
        if !file.path.contains("/systemd/") {
            return;
        }
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("Environment=")) {
            if is_about_proxies(line) && line.replace("%%", "").contains('%') {
                let message = format!(
                    "{}: systemd replaces % and what follows it in Environment=, or drops the variable: write %% instead, \
                     or leave the file to reach, which has none in its drop-ins",
                    file.path
                );
                self.found.push(content.finding("systemd-percent", message));
                break;
            }
        }
        let is_drop_in = file.path.contains(".service.d/");
        let is_named = file.path.ends_with("/http-proxy.conf");
        if is_drop_in
            && (is_named
                || ["_proxy=", "environmentfile="]
                    .iter()
                    .any(|sign| text.to_ascii_lowercase().contains(sign)))
        {
            let message = format!(
                "{} sets the proxy of a service by hand: take the file out, since reach's drop-ins say the same from its \
                 presets",
                file.path
            );
            self.found.push(file.field.finding("own-drop-in", message));
        }
    }

    /// What is in a Secret to which `contentFrom` refers, if that is among the documents.
    fn of_secret(&self, from: &Field<'_>) -> Option<String> {
        let of = &from.value["secret"];
        let is_it = |object: &&Object| {
            object.group.is_empty()
                && object.kind == "Secret"
                && of["name"] == *object.name
                && object.namespace == from.object.namespace
        };
        let (secret, key) = (self.objects.iter().find(is_it)?, of["key"].as_str()?);
        let text = || secret.value["stringData"][key].as_str().map(str::to_owned);
        let encoded = || {
            let value = secret.value["data"][key].as_str()?;
            String::from_utf8(base64_simd::STANDARD.decode_to_vec(value.trim()).ok()?).ok()
        };
        text().or_else(encoded)
    }

    fn jinja(&mut self, field: &Field<'_>, text: &str) {
        let is_trap = |(opener, _): &&(&str, &str)| {
            text.match_indices(*opener).any(|(at, _)| {
                let rest = text[at + opener.len()..].trim_start_matches(['-', '+', ' ']);
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'));
                *opener != "{{" || !INSTANCE_DATA.contains(&&rest[..end.unwrap_or(rest.len())])
            })
        };
        if let Some((opener, meaning)) = JINJA.iter().find(is_trap) {
            let message = format!(
                "{opener} begins {meaning} of Jinja, as which cloud-init reads it: write it into a file with encoding: \
                 base64"
            );
            self.found.push(field.finding("jinja", message));
        }
    }
}

/// Each network once.
fn distinct(networks: &[(IpNet, Place)]) -> impl Iterator<Item = (&IpNet, &Place)> {
    let is_first = |at: usize| networks[..at].iter().all(|(net, _)| *net != networks[at].0);
    let first = (0..networks.len()).filter(move |at| is_first(*at));
    first.map(|at| (&networks[at].0, &networks[at].1))
}

fn is_about_proxies(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("proxy") || text.contains("proxies")
}

/// Whether a file is one that reach writes.
fn is_ours(path: &str) -> bool {
    let known = [Target::EnvironmentFile, Target::Profile, Target::Apt, Target::Sudoers];
    path.starts_with("/etc/reach/")
        || known.iter().any(|target| target.path() == path)
        || Unit::ALL.iter().any(|unit| Target::DropIn(*unit).path() == path)
}

/// Whether a command gives proxy variables to what runs after it in the same shell.
fn exports(command: &str) -> bool {
    let lower = command.to_ascii_lowercase();
    let mut statements = lower.split([';', '\n', '&', '|']).map(str::trim);
    statements.any(|statement| {
        statement.strip_prefix("export ").is_some_and(|rest| {
            rest.split_whitespace()
                .any(|word| word.split('=').next().is_some_and(|name| name.ends_with("_proxy")))
        })
    })
}

/// Whether a command downloads, and does not say through which proxy.
fn downloads(command: &str) -> bool {
    if is_about_proxies(command) {
        return false;
    }
    let mut words = command
        .split(|c: char| c.is_whitespace() || matches!(c, ';' | '|' | '&' | '(' | ')' | '`' | '"' | '\''))
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
        .map(|word| word.rsplit('/').next().unwrap_or(word))
        .peekable();
    while let Some(word) = words.next() {
        let is_with = |next: &&str| DOWNLOADS.contains(next);
        if DOWNLOADERS.contains(&word) || (MANAGERS.contains(&word) && words.peek().is_some_and(is_with)) {
            return true;
        }
    }
    false
}

/// A list, as Go reads it: the programs of a control plane are written in it.
struct List<'v> {
    entries: Vec<(&'v str, Entry)>,
}

// === impl List ===

impl<'v> List<'v> {
    fn new(value: &'v str) -> Self {
        Self { entries: no_proxy::entries(value).map(|text| (text, Entry::parse(text))).collect() }
    }

    fn has(&self, is_it: impl Fn(&str, &Entry) -> bool) -> bool {
        self.entries.iter().any(|(text, entry)| *entry == Entry::Any || is_it(text, entry))
    }

    fn has_name(&self, name: &str) -> bool {
        self.has(|_, entry| match entry {
            Entry::Name(own) => {
                name.strip_suffix(&*own.text).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        })
    }

    fn has_network(&self, net: &IpNet) -> bool {
        self.has(|_, entry| match entry {
            Entry::Network(own) => own.trunc().contains(net),
            Entry::Address(own) => IpNet::from(*own) == *net,
            _ => false,
        })
    }

    fn has_host(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.has_network(&address.into()),
            // A variable has to be there as it is.
            Err(_) => self.has_name(&host.to_ascii_lowercase()) || self.has(|text, _| text == host),
        }
    }
}
