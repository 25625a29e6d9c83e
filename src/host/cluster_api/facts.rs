//! The entries of a group: each object is asked for what it says of the network.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::field::{Field, Place, Report, host, is_entry};
use super::files::{self, Vip};
use super::links::{Links, Members, Reference};
use super::pools::{Pool, Pools};
use super::{
    BOOTSTRAP, CONTROL_PLANE, CORE, Entry, FactSource, Finding, Group, INFRASTRUCTURE, LEFT_TO_THE_CLUSTER,
    Manifests, NodeRanges, Object,
};
use crate::host::variables::has_reference;

mod machines;

/// The network of Services that kubeadm takes where nobody names one (`DefaultServicesSubnet`).
const DEFAULT_SERVICES: &str = "10.96.0.0/12";
/// The domain that kubeadm takes where nobody names one (`DefaultServiceDNSDomain`).
const DEFAULT_DOMAIN: &str = "cluster.local";

/// Variables of the ClusterClasses of Cluster API's provider for vSphere that name a host, with the field in them.
const TOPOLOGY_HOSTS: [(&str, Option<&str>, &str); 2] =
    [("controlPlaneIpAddr", None, API_SERVER), ("infraServer", Some("url"), VCENTER)];
/// The variable of these classes that has the manifest of kube-vip.
const TOPOLOGY_KUBE_VIP: &str = "kubeVipPodManifest";

const API_SERVER: &str = "the API server";
const KUBE_VIP: &str = "the virtual address of the API server";
const VCENTER: &str = "the vCenter";

/// What is known of a group's network, for checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) pods: Vec<(IpNet, Place)>,
    pub(super) services: Vec<(IpNet, Place)>,
    pub(super) nodes: Vec<(IpNet, Place)>,
    /// Hosts under which the API server is reached.
    pub(super) endpoints: Vec<(String, Place)>,
    /// What kube-vip holds.
    pub(super) vips: Vec<(Vip, Place)>,
    pub(super) pools: Vec<(usize, Arc<Pool>)>,
    /// Failure domains that the selector of a cluster takes, whose vCenter is not that of the cluster.
    pub(super) strange_zones: Vec<Place>,
    /// Pools that the endpoint of the cluster itself is taken from.
    pub(super) endpoint_pools: Vec<usize>,
}

/// Collects the entries of a group.
struct Collector<'c, 'm> {
    objects: &'m [Object],
    links: &'c Links<'m>,
    pools: &'c Pools<'m>,
    mode: NodeRanges,
    report: Report,
    entries: Vec<Entry>,
    known: Known,
    /// The `Cluster` names a network of Services.
    has_services: bool,
    /// The `Cluster` names a domain.
    has_domain: bool,
}

/// The group that its members make, and what is wrong with them.
pub(super) fn group<'m>(
    manifests: &'m Manifests,
    links: &Links<'m>,
    pools: &Pools<'m>,
    members: &Members<'m>,
    mode: NodeRanges,
) -> (Group, Vec<Finding>) {
    let mut collector = Collector {
        objects: manifests.objects(),
        links,
        pools,
        mode,
        report: Report::default(),
        entries: Vec::new(),
        known: Known::default(),
        has_services: false,
        has_domain: false,
    };
    collector.members(members);
    let Collector { report, mut entries, known, objects, .. } = collector;
    // Not by their place in the stream, which people change.
    entries.sort_by(|a, b| a.from.cmp(&b.from).then_with(|| name(objects, a).cmp(&name(objects, b))));
    let mut seen = std::collections::HashSet::new();
    entries.retain(|entry| seen.insert((entry.from, entry.text.clone())));
    let Report { wrong, mut notes } = report;
    notes.sort();
    notes.dedup();
    let group = Group {
        cluster: members.clusters.first().copied(),
        class: members.classes.first().copied(),
        configurations: members.configurations.clone(),
        entries,
        notes,
        known,
    };
    (group, wrong)
}

fn name<'m>(objects: &'m [Object], entry: &Entry) -> Option<(&'m str, &'m str, &'m str)> {
    let object = &objects[entry.object?];
    Some((&object.kind, &object.namespace, &object.name))
}

// === impl Collector ===

impl<'m> Collector<'_, 'm> {
    fn members(&mut self, members: &Members<'m>) {
        let field = |index: usize| Field::of(self.objects, index);
        let namespace = members.clusters.first().map_or("", |index| &*self.objects[*index].namespace);
        self.add(
            FactSource::ServiceDomain,
            None,
            ".svc".to_owned(),
            "names by which the API server calls webhooks",
        );
        for &index in &members.clusters {
            self.cluster(&field(index));
            self.topology(&field(index), &members.classes);
        }
        for &index in members.configurations.iter().chain(&members.templates) {
            self.configuration(&field(index));
        }
        if let Some(&index) = members.clusters.first() {
            self.defaults(&field(index), members);
        }
        for &index in &members.infrastructure {
            self.infrastructure(&field(index), members);
        }
        self.zones_of_machines(members, namespace);
        for reference in &members.missing {
            self.missing(reference);
        }
        self.what_is_left(members);
    }

    /// An entry; without a field if nobody has to say it.
    fn add(&mut self, from: FactSource, place: Option<Place>, text: String, why: &'static str) {
        let (object, field) = place.map_or((None, String::new()), |place| (Some(place.object), place.field));
        self.entries.push(Entry { text, from, object, field, why });
    }

    /// A host in a field.
    fn host(&mut self, from: FactSource, field: &Field<'m>, why: &'static str) -> Option<String> {
        let text = field.text(&mut self.report)?;
        let Some(host) = host(text) else {
            if has_reference(text) {
                self.report.notes.push(field.unresolved());
            } else {
                self.report.wrong.push(field.expected("the name of a host or an IP address"));
            }
            return None;
        };
        self.add(from, Some(field.place()), host.clone(), why);
        Some(host)
    }

    /// A network in a text, and where it comes from.
    fn network(
        &mut self,
        field: &Field<'m>,
        text: &str,
        from: FactSource,
        why: &'static str,
    ) -> Option<IpNet> {
        if has_reference(text) {
            if is_entry(text) {
                self.add(from, Some(field.place()), text.to_owned(), why);
            } else {
                self.report.notes.push(field.unresolved());
            }
            return None;
        }
        let Ok(net) = text.parse::<IpNet>() else {
            self.report.wrong.push(field.expected("a network, as in 10.0.0.0/16"));
            return None;
        };
        self.add(from, Some(field.place()), net.trunc().to_string(), why);
        Some(net.trunc())
    }

    /// What a `Cluster` says by itself.
    fn cluster(&mut self, cluster: &Field<'m>) {
        let network = cluster.at("spec.clusterNetwork");
        for field in network.at("pods.cidrBlocks").items(&mut self.report) {
            if let Some(text) = field.text(&mut self.report) {
                self.pods(&field, text);
            }
        }
        for field in network.at("services.cidrBlocks").items(&mut self.report) {
            if let Some(text) = field.text(&mut self.report) {
                self.has_services = true;
                self.services(&field, text, "Services, which are inside the cluster");
            }
        }
        let domain = network.at("serviceDomain");
        if let Some(text) = domain.text(&mut self.report) {
            self.has_domain = true;
            self.domain(&domain, text);
        }
        self.endpoint(&cluster.at("spec.controlPlaneEndpoint.host"));
        for index in self.pools.of_cluster(cluster.object) {
            self.pool(index);
        }
    }

    fn pods(&mut self, field: &Field<'m>, text: &str) {
        let why = "pods, which are inside the cluster";
        let net = self.network(field, text, FactSource::ClusterNetwork, why);
        self.known.pods.extend(net.map(|net| (net, field.place())));
    }

    fn services(&mut self, field: &Field<'m>, text: &str, why: &'static str) {
        let from = FactSource::ClusterNetwork;
        let Some(net) = self.network(field, text, from, why) else {
            if has_reference(text) {
                let message = "a variable of clusterctl, so the address of the API server's Service, the first one of \
                               this network, is not in the list: give it a value (--values-from-env)";
                self.report.notes.push(field.finding("unresolved-variable", message.to_owned()));
            }
            return;
        };
        self.known.services.push((net, field.place()));
        // By itself, because many clients know no networks.
        if let Some(address) = first_host(net) {
            let why = "the API server's Service, which has the first address of its network";
            self.add(from, Some(field.place()), address.to_string(), why);
        }
    }

    fn domain(&mut self, field: &Field<'m>, text: &str) {
        let domain = text.trim_matches('.');
        if host(domain).is_none_or(|host| host != domain) {
            if has_reference(text) {
                self.report.notes.push(field.unresolved());
            } else {
                self.report.wrong.push(field.expected("a domain, as in cluster.local"));
            }
            return;
        }
        let why = "names inside the cluster";
        self.add(FactSource::ServiceDomain, Some(field.place()), format!(".{domain}"), why);
    }

    fn endpoint(&mut self, field: &Field<'m>) {
        if let Some(host) = self.host(FactSource::ControlPlaneEndpoint, field, API_SERVER) {
            self.known.endpoints.push((host, field.place()));
        }
    }

    /// What kubeadm takes where the cluster says nothing.
    fn defaults(&mut self, cluster: &Field<'m>, members: &Members<'m>) {
        let is_other = |field: Field<'m>, kind: &str| field.value.as_str().is_some_and(|own| own != kind);
        let of_class = |index: &usize| {
            let control_plane = Field::of(self.objects, *index).at("spec.controlPlane");
            ["templateRef.kind", "ref.kind"]
                .iter()
                .any(|path| is_other(control_plane.at(path), "KubeadmControlPlaneTemplate"))
        };
        if is_other(cluster.at("spec.controlPlaneRef.kind"), "KubeadmControlPlane")
            || members.classes.iter().any(of_class)
        {
            return;
        }
        let network = cluster.at("spec.clusterNetwork");
        let services = network.at("services.cidrBlocks");
        // Text in the place of the list is a variable.
        if !self.has_services && !services.value.is_string() {
            let why = "Services: kubeadm's default, because the cluster names no network of them";
            self.services(&services, DEFAULT_SERVICES, why);
        }
        if !self.has_domain {
            let why = "names inside the cluster: kubeadm's default, because the cluster names no domain";
            let place = network.at("serviceDomain").place();
            self.add(FactSource::ServiceDomain, Some(place), format!(".{DEFAULT_DOMAIN}"), why);
        }
    }

    /// Variables that a cluster gives to its class, or that the class has a default for.
    fn topology(&mut self, cluster: &Field<'m>, classes: &[usize]) {
        let topology = cluster.at("spec.topology");
        let mut lists = vec![topology.at("variables"), topology.at("controlPlane.variables.overrides")];
        for kind in ["workers.machineDeployments", "workers.machinePools"] {
            let workers = topology.at(kind).items(&mut self.report);
            lists.extend(workers.iter().map(|workers| workers.at("variables.overrides")));
        }
        let mut given = Vec::new();
        for list in lists {
            for variable in list.items(&mut self.report) {
                if let Some(name) = variable.at("name").text(&mut self.report) {
                    given.push(name);
                    self.variable(name, &variable.at("value"));
                }
            }
        }
        for &class in classes {
            let variables = Field::of(self.objects, class).at("spec.variables").items(&mut self.report);
            for variable in variables {
                let Some(name) = variable.at("name").text(&mut self.report) else { continue };
                let default = variable.at("schema.openAPIV3Schema.default");
                if !given.contains(&name) && default.is_set() {
                    self.variable(name, &default);
                }
            }
        }
    }

    fn variable(&mut self, name: &str, value: &Field<'m>) {
        if name == TOPOLOGY_KUBE_VIP {
            if let Some(text) = value.value.as_str() {
                self.kube_vip(FactSource::TopologyVariables, value, text);
            }
            return;
        }
        let Some((_, member, why)) = TOPOLOGY_HOSTS.iter().find(|(own, ..)| *own == name) else { return };
        let field = member.map_or_else(|| value.clone(), |member| value.member(member));
        // Other classes may have variables of these names, whose values are of other types.
        let Some(text) = field.value.as_str().filter(|text| !text.is_empty()) else { return };
        let Some(host) = host(text) else {
            let message = "no host, so it is not in the list: expected a name, an IP address or a URL";
            self.report.notes.push(field.finding("unread", message.to_owned()));
            return;
        };
        self.add(FactSource::TopologyVariables, Some(field.place()), host.clone(), why);
        if member.is_none() {
            self.known.endpoints.push((host, field.place()));
        }
    }

    /// What a `KubeadmConfigSpec` says.
    fn configuration(&mut self, object: &Field<'m>) {
        let Some(path) = object.object.configuration() else { return };
        let spec = object.at(path);
        let cluster = spec.at("clusterConfiguration");
        self.endpoint(&cluster.at("controlPlaneEndpoint"));
        // Up to Cluster API 1.10 these win over what the `Cluster` says; later ones drop them, so both are in the list.
        let networking = cluster.at("networking");
        let subnets = networking.at("serviceSubnet");
        for subnet in subnets.text(&mut self.report).into_iter().flat_map(|text| text.split(',')) {
            self.services(&subnets, subnet.trim(), "Services, which are inside the cluster");
        }
        let subnets = networking.at("podSubnet");
        for subnet in subnets.text(&mut self.report).into_iter().flat_map(|text| text.split(',')) {
            self.pods(&subnets, subnet.trim());
        }
        let domain = networking.at("dnsDomain");
        if let Some(text) = domain.text(&mut self.report) {
            self.domain(&domain, text);
        }
        for endpoint in cluster.at("etcd.external.endpoints").items(&mut self.report) {
            self.host(FactSource::Etcd, &endpoint, "etcd, which the API server asks");
        }
        for file in files::files(&spec, &mut self.report) {
            if !file.is_static_pod() {
                continue;
            }
            let content = file.field.at("content");
            if let Some(text) = file.text() {
                self.kube_vip(FactSource::KubeVip, &content, text);
            } else if file.path.contains("kube-vip") {
                let message = "not shown here (compressed, not base64, or elsewhere), so the virtual address is not in \
                               the list: write it into a preset if no controlPlaneEndpoint has it";
                self.report.notes.push(content.finding("unread", message.to_owned()));
            }
        }
    }

    /// What a manifest of kube-vip says.
    fn kube_vip(&mut self, from: FactSource, field: &Field<'m>, text: &str) {
        let Ok(vips) = files::kube_vip(text) else {
            let message = "no YAML, so the virtual address of kube-vip is not in the list: write it into a preset if \
                           no controlPlaneEndpoint has it";
            self.report.notes.push(field.finding("unread", message.to_owned()));
            return;
        };
        for vip in vips {
            if let Some(host) = host(&vip.address) {
                self.add(from, Some(field.place()), host.clone(), KUBE_VIP);
                self.known.vips.push((Vip { address: host, ..vip }, field.place()));
            } else {
                let message = "kube-vip's address is no host, so it is not in the list: expected a name or an IP address";
                self.report.notes.push(field.finding("unread", message.to_owned()));
            }
        }
    }

    fn missing(&mut self, reference: &Reference<'m>) {
        let what = match (reference.group, reference.kind) {
            (CORE, _) => "what its templates say is not in the list, and the list is not in them",
            (INFRASTRUCTURE, "VSphereCluster" | "VSphereClusterTemplate") => {
                "its vCenter and its endpoint are not in the list"
            }
            (INFRASTRUCTURE, "HAProxyLoadBalancer") => "its address is not in the list",
            (INFRASTRUCTURE, _) => "vCenter and addresses of its machines are not in the list",
            (CONTROL_PLANE | BOOTSTRAP, _) => "what it says is not in the list, and the list is not in it",
            // Pools.
            _ => "its addresses are not in the list",
        };
        let message = format!("{} {} is not among the documents: {what}", reference.kind, reference.name);
        self.report.notes.push(reference.field.finding("missing-object", message));
    }

    /// What only a controller, or another stream, knows.
    fn what_is_left(&mut self, members: &Members<'m>) {
        let of = |index: usize| Field::of(self.objects, index);
        if let Some(&index) = members.clusters.first() {
            let has_none = self.known.endpoints.is_empty() && self.known.vips.is_empty();
            if has_none && !self.entries.iter().any(|entry| entry.from == FactSource::LoadBalancer) {
                let message = "no endpoint of the API server is known, so it is not in the list: write it here, or into a \
                               preset if the infrastructure provider chooses it";
                let field = of(index).at("spec.controlPlaneEndpoint");
                self.report.notes.push(field.finding("no-endpoint", message.to_owned()));
            }
            return;
        }
        if let Some(&index) = members.classes.first() {
            let message = "networks, endpoint and variables are those of each cluster of the class, and not in the list \
                           of the class itself";
            self.report.notes.push(of(index).finding(LEFT_TO_THE_CLUSTER, message.to_owned()));
            return;
        }
        for &index in &members.configurations {
            let message = "no Cluster among the documents uses it, so networks and endpoint of a cluster are not in the \
                           list: add the documents of the cluster, or write the entries into a preset";
            self.report.notes.push(of(index).finding("no-cluster", message.to_owned()));
        }
    }
}

/// The first address of a network that is not the network's own.
fn first_host(net: IpNet) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(own) => IpAddr::V4(u32::from(own).checked_add(1)?.into()),
        IpAddr::V6(own) => IpAddr::V6(u128::from(own).checked_add(1)?.into()),
    };
    net.contains(&address).then_some(address)
}
