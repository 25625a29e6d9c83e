//! Networks and addresses of a cluster as entries of `no_proxy`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest;
use crate::no_proxy::portable::{Author, List};

/// Most addresses and networks of `ClusterNetwork`. A cluster has two or three; networks of nodes that are not
/// neighbours may be many.
pub const MAX_NETWORKS: usize = 64;
/// Most addresses of `Nodes`, which is 4 KiB. With more nodes, state their network instead.
pub const MAX_NODES: usize = 256;

/// What one object says, or the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks.
    pub networks: Vec<IpNet>,
}

/// A network, or an address, as a person gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// `10.96.0.1`
    Address(IpAddr),
    /// `10.96.0.0/12`
    Network(IpNet),
}

/// A list, and how many entries are beyond its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// The list.
    pub list: List,
    /// How many entries were taken.
    pub taken: usize,
    /// How many were left out.
    pub over: usize,
}

/// The part of an object that is read. Everything else of it is gone as soon as it has arrived.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Part {
    /// Its metadata.
    pub metadata: ObjectMeta,
    spec: Spec,
    status: Status,
    data: Data,
}

/// What is read of the `spec` of a Node, a ServiceCIDR and a Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    cidrs: Vec<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
}

/// What is read of the `status` of a Node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// What is read of the ConfigMap `kubeadm-config`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Data {
    #[serde(rename = "ClusterConfiguration")]
    cluster_configuration: String,
}

// === impl Given ===

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = || text.parse().map(|net: IpNet| Self::Network(net.trunc())).ok();
        text.parse()
            .map(Self::Address)
            .ok()
            .or_else(network)
            .ok_or_else(|| "no network: write for instance 10.96.0.0/12, or an address".to_owned())
    }
}

// === impl Part ===

impl Part {
    /// What a Node says: the addresses at which others of the cluster reach it, and the networks of its pods.
    #[must_use]
    pub fn node(&self) -> Facts {
        let internal = self.status.addresses.iter().filter(|address| address.kind == "InternalIP");
        let addresses = one_family(internal.filter_map(|address| address.address.parse().ok()).collect());
        let networks = self.spec.pod_cidrs.iter().chain([&self.spec.pod_cidr]);
        Facts { addresses, networks: parsed(networks.map(String::as_str)) }
    }

    /// What a ServiceCIDR says.
    #[must_use]
    pub fn service_cidr(&self) -> Facts {
        Facts { networks: parsed(self.spec.cidrs.iter().map(String::as_str)), ..Facts::default() }
    }

    /// What the Service `kubernetes` says: the addresses at which pods reach the API server.
    #[must_use]
    pub fn api_service(&self) -> Facts {
        let addresses = self.spec.cluster_ips.iter().chain([&self.spec.cluster_ip]);
        // `None` for a headless one.
        let addresses = one_family(addresses.filter_map(|address| address.parse().ok()).collect());
        Facts { addresses, ..Facts::default() }
    }

    /// What kubeadm says in its ConfigMap: the networks of pods and Services.
    #[must_use]
    pub fn kubeadm(&self) -> Facts {
        let networking = &self.cluster_configuration()["networking"];
        let texts =
            ["serviceSubnet", "podSubnet"].map(|field| networking[field].as_str().unwrap_or_default());
        let networks = parsed(texts.iter().flat_map(|text| text.split(',')));
        Facts { networks, ..Facts::default() }
    }

    /// The configuration in kubeadm's ConfigMap.
    pub(crate) fn cluster_configuration(&self) -> Value {
        let document = manifest::documents(&self.data.cluster_configuration).into_iter().next();
        document.and_then(|document| document.read().ok().flatten()).unwrap_or_default()
    }
}

pub(crate) fn parsed<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = texts.filter_map(|text| text.trim().parse().ok()).collect();
    networks.dedup();
    networks
}

// === impl Facts ===

impl Facts {
    /// What the command line says.
    #[must_use]
    pub fn given(given: &[Given]) -> Self {
        let mut facts = Self::default();
        for given in given {
            match given {
                Given::Address(address) => facts.addresses.push(*address),
                Given::Network(network) => facts.networks.push(*network),
            }
        }
        facts
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.networks.is_empty()
    }
}

/// The networks of Services and pods, and the API server's addresses in them.
///
/// In the order in which they are taken while there is room: addresses, networks that somebody stated (`stated`, in
/// its order), then what the pods of nodes have beyond those, large networks first, neighbours joined.
#[must_use]
pub fn cluster_network<'f>(
    stated: impl Iterator<Item = &'f Facts> + Clone,
    nodes: impl Iterator<Item = &'f Facts>,
) -> Limited {
    let v4 = |network: &IpNet| match network {
        IpNet::V4(network) => Some(network.trunc()),
        // A client would fail for every URL because of it.
        IpNet::V6(_) => None,
    };
    let mut networks: Vec<Ipv4Net> = Vec::new();
    for network in stated.clone().flat_map(|facts| &facts.networks).filter_map(v4) {
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    let of_pods: BTreeSet<Ipv4Net> = nodes
        .flat_map(|facts| &facts.networks)
        .filter_map(v4)
        .filter(|network| !networks.iter().any(|stated| stated.contains(network)))
        .collect();
    let mut of_pods = Ipv4Net::aggregate(&of_pods.into_iter().collect());
    of_pods.sort_by_key(|network| (network.prefix_len(), network.addr()));
    networks.append(&mut of_pods);

    let addresses: BTreeSet<IpAddr> = stated.flat_map(|facts| &facts.addresses).copied().collect();
    let addresses = addresses.iter().map(ToString::to_string);
    limited(addresses.chain(networks.iter().map(ToString::to_string)), MAX_NETWORKS)
}

/// The addresses of nodes, by number.
#[must_use]
pub fn nodes<'f>(nodes: impl Iterator<Item = &'f Facts>) -> Limited {
    // Those of IPv4 sort before those of IPv6.
    let addresses: BTreeSet<IpAddr> = nodes.flat_map(|facts| &facts.addresses).copied().collect();
    limited(addresses.iter().map(ToString::to_string), MAX_NODES)
}

/// The addresses of something, those of IPv6 only where it has none of IPv4: some clients read the end of one as the end of an IPv4
/// address.
fn one_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses
}

fn limited(entries: impl Iterator<Item = String>, most: usize) -> Limited {
    let mut entries: Vec<String> = entries.collect();
    let over = entries.len().saturating_sub(most);
    entries.truncate(most);
    Limited { list: List::parse(&entries.join(","), Author::Preset), taken: entries.len(), over }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;

    fn part(object: &Value) -> Part {
        serde_json::from_value(object.clone()).expect("a part")
    }

    fn node(addresses: &[(&str, &str)], networks: &[&str]) -> Facts {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        part(&json!({
            "kind": "Node",
            "metadata": {"name": "n"},
            "spec": {"podCIDR": networks.first().copied().unwrap_or_default(), "podCIDRs": networks},
            "status": {"addresses": addresses, "images": [{"names": ["a"], "sizeBytes": 1}]},
        }))
        .node()
    }

    fn networks(networks: &[&str]) -> Facts {
        Facts { networks: parsed(networks.iter().copied()), ..Facts::default() }
    }

    fn text(limited: &Limited) -> String {
        limited.list.texts().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn objects_say_what_they_say() {
        let service =
            json!({"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:10:96::1"]}});
        assert_eq!(
            cluster_network([part(&service).api_service()].iter(), [].iter())
                .list
                .texts()
                .collect::<Vec<_>>(),
            ["10.96.0.1"]
        );
        let service = json!({"spec": {"clusterIP": "fd00:10:96::1", "clusterIPs": ["fd00:10:96::1"]}});
        assert!(!part(&service).api_service().is_empty());
        assert!(
            part(&json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}})).api_service().is_empty()
        );
        let cidr =
            json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00:10:96::/112"]}, "status": {"conditions": []}});
        assert_eq!(part(&cidr).service_cidr(), networks(&["10.96.0.0/16", "fd00:10:96::/112"]));
        let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  \
                             dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n  \
                             serviceSubnet: 10.96.0.0/16\n";
        assert_eq!(
            part(&json!({"data": {"ClusterConfiguration": configuration}})).kubeadm(),
            networks(&["10.96.0.0/16", "10.244.0.0/16", "fd00:10:244::/56"])
        );
        for nothing in ["", "networking: 1", "networking:\n  podSubnet: any", "a: ]"] {
            let object = json!({"data": {"ClusterConfiguration": nothing}});
            assert!(part(&object).kubeadm().is_empty(), "{nothing}");
        }
    }

    #[test]
    fn cluster_network_is_what_is_stated_and_what_nodes_have_beyond_it() {
        let stated = [networks(&["10.96.0.0/16", "fd00:10:96::/112"]), networks(&["10.244.0.0/17"])];
        let nodes = [
            node(&[], &["10.244.1.0/24"]),
            node(&[], &["10.244.128.0/25", "fd00:10:244::/64"]),
            node(&[], &["10.244.128.128/25"]),
            node(&[], &["10.245.0.0/24"]),
            node(&[], &[]),
        ];
        let made = cluster_network(stated.iter(), nodes.iter());
        assert_eq!(text(&made), "10.96.0.0/16,10.244.0.0/17,10.244.128.0/24,10.245.0.0/24");
        assert_eq!((made.taken, made.over), (4, 0));
    }

    #[test]
    fn beyond_its_limit_the_small_networks_of_nodes_go_first() {
        let nodes: Vec<Facts> = (0..MAX_NETWORKS).map(|n| node(&[], &[&format!("10.{n}.0.0/24")])).collect();
        let large = node(&[], &["10.200.0.0/20"]);
        let stated = [
            networks(&["192.168.0.0/28"]),
            Facts { addresses: vec!["192.168.0.1".parse().unwrap()], ..Facts::default() },
        ];
        let made = cluster_network(stated.iter(), nodes.iter().chain([&large]));
        assert_eq!((made.taken, made.over), (MAX_NETWORKS, 3));
        let texts: Vec<&str> = made.list.texts().collect();
        for kept in ["192.168.0.1", "192.168.0.0/28", "10.200.0.0/20", "10.0.0.0/24", "10.60.0.0/24"] {
            assert!(texts.contains(&kept), "{kept}: {texts:?}");
        }
        assert!(!texts.contains(&"10.61.0.0/24"), "{texts:?}");
    }

    #[test]
    fn nodes_are_their_internal_addresses_by_number() {
        let known = [
            node(&[("InternalIP", "10.0.0.10"), ("Hostname", "node-1"), ("ExternalIP", "203.0.113.7")], &[]),
            node(&[("InternalIP", "10.0.0.9"), ("InternalIP", "fd00::9")], &[]),
            node(&[("InternalIP", "fd00::8")], &[]),
            node(&[("InternalIP", "unknown")], &[]),
        ];
        assert_eq!(text(&nodes(known.iter())), "10.0.0.9,10.0.0.10,fd00::8");
        let many: Vec<Facts> = (0..300_u32)
            .rev()
            .map(|n| node(&[("InternalIP", &Ipv4Addr::from(0x0a00_0000 + n).to_string())], &[]))
            .collect();
        let made = nodes(many.iter());
        assert_eq!((made.taken, made.over), (MAX_NODES, 300 - MAX_NODES));
        assert_eq!(made.list.texts().last(), Some("10.0.0.255"));
    }

    #[test]
    fn networks_and_addresses_can_be_given() {
        let given = ["10.96.0.1", "10.10.192.1/18", "fd00::/64"].map(|text| text.parse().expect(text));
        assert_eq!(
            text(&cluster_network([Facts::given(&given)].iter(), [].iter())),
            "10.96.0.1,10.10.192.0/18"
        );
        for wrong in ["", "10.96.0.0/33", "10.96.", "cluster.local"] {
            assert!(wrong.parse::<Given>().is_err(), "{wrong}");
        }
    }
}
