//! Pools of addresses for machines: those of the in-cluster IPAM provider and of metal3.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

use super::field::{Field, Place, Report, find, is_entry};
use super::links::Links;
use super::{Finding, Manifests, NodeRanges, Object};
use crate::host::variables::has_reference;

/// The group of the in-cluster IPAM provider.
const IN_CLUSTER: &str = "ipam.cluster.x-k8s.io";
/// The group of metal3's IP address manager.
const METAL3: &str = "ipam.metal3.io";

/// The label of a template that names a pool of metal3, for capv-static-ip.
const POOL_NAME: &str = "cluster.x-k8s.io/ip-pool-name";
/// The labels that a template and its pool of metal3 share, where none is named.
const POOL_LABELS: [&str; 2] = ["cluster.x-k8s.io/ip-pool-group", "cluster.x-k8s.io/network-name"];

/// The pools of a stream.
#[derive(Debug, Default)]
pub(super) struct Pools<'m> {
    read: HashMap<usize, Arc<Pool>>,
    /// Those of metal3, by label, value and namespace.
    labelled: HashMap<(&'m str, &'m str, &'m str), Vec<usize>>,
    /// Those of metal3, by namespace and the cluster that they say they belong to.
    owned: HashMap<(&'m str, &'m str), Vec<usize>>,
}

/// A pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) parts: Vec<Part>,
    /// Addresses that are variables.
    variables: Vec<Variable>,
    /// What is not known of its addresses.
    notes: Vec<Finding>,
    /// What is not known of its network, though it may be known by other fields.
    network_notes: Vec<Finding>,
}

/// Addresses that are variables.
#[derive(Clone, Debug)]
struct Variable {
    /// The entry that they are; `None` for a range, which few clients read.
    text: Option<String>,
    place: Place,
    /// That they are not known.
    note: Finding,
}

/// A part of a pool, whose addresses are to be in one network.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) ranges: Vec<(Range, Place)>,
    /// Addresses that are not given to machines.
    pub(super) excluded: Vec<(Range, Place)>,
    pub(super) gateway: Option<IpAddr>,
    /// The network that the addresses are in, and the field that says so; `None` if nothing says so.
    pub(super) subnet: Option<(IpNet, Place)>,
    /// The first and last address of the network are given to machines as well.
    has_reserved: bool,
    /// What it has are networks, each of which goes to a machine as a whole.
    is_prefixes: bool,
}

/// Addresses from one to another, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
}

// === impl Pools ===

impl<'m> Pools<'m> {
    /// Reads every pool once, however many clusters share it.
    pub(super) fn read(manifests: &'m Manifests, wrong: &mut Vec<Finding>) -> Self {
        let mut pools = Self::default();
        for (index, object) in manifests.objects().iter().enumerate() {
            let read = match (&*object.group, &*object.kind) {
                (IN_CLUSTER, "InClusterIPPool" | "GlobalInClusterIPPool") => in_cluster,
                (IN_CLUSTER, "InClusterPrefixPool") => prefixes,
                (METAL3, "IPPool") => metal3,
                _ => continue,
            };
            let mut report = Report::default();
            let spec = Field::of(manifests.objects(), index).at("spec");
            let mut pool = read(&spec, &mut report);
            if object.group == METAL3 {
                for label in POOL_LABELS {
                    if let Some(value) = object.label(label) {
                        let key = (label, value, &*object.namespace);
                        pools.labelled.entry(key).or_default().push(index);
                    }
                }
                if let Some(cluster) = spec.at("clusterName").text(&mut report) {
                    pools.owned.entry((&object.namespace, cluster)).or_default().push(index);
                }
            }
            pool.notes = report.notes;
            wrong.append(&mut report.wrong);
            pools.read.insert(index, Arc::new(pool));
        }
        pools
    }

    /// A pool, by the place of its object.
    pub(super) fn get(&self, index: usize) -> Option<&Arc<Pool>> {
        self.read.get(&index)
    }

    /// Pools of metal3 that say that they belong to a cluster.
    pub(super) fn of_cluster(&self, cluster: &'m Object) -> Vec<usize> {
        let of = |namespace: &'m str| self.owned.get(&(namespace, &*cluster.name));
        [&*cluster.namespace, ""].into_iter().filter_map(of).flatten().copied().collect()
    }

    /// The pool of metal3 that the labels of an object name, or those that have the same labels, in a namespace: what
    /// capv-static-ip takes an address from.
    pub(super) fn of_labels(
        &self,
        links: &Links<'_>,
        object: &'m Object,
        namespace: &'m str,
    ) -> Result<Vec<usize>, &'m str> {
        if let Some(name) = object.label(POOL_NAME) {
            let found = links.find(METAL3, "IPPool", namespace, name);
            return if found.is_empty() { Err(name) } else { Ok(found.to_vec()) };
        }
        let wanted: Vec<_> =
            POOL_LABELS.iter().filter_map(|label| Some((*label, object.label(label)?))).collect();
        let of = |label: &'m str, value: &'m str| {
            let of = |namespace: &'m str| self.labelled.get(&(label, value, namespace));
            [namespace, ""].into_iter().filter_map(of).flatten().copied().collect::<Vec<usize>>()
        };
        let Some((label, value)) = wanted.first() else { return Ok(Vec::new()) };
        let mut found = of(label, value);
        for (label, value) in &wanted[1..] {
            let others = of(label, value);
            found.retain(|index| others.contains(index));
        }
        Ok(found)
    }
}

/// `InClusterIPPool` and `GlobalInClusterIPPool`: v1alpha2 has addresses and a prefix, v1alpha1 also a network, or a
/// first and a last address.
fn in_cluster(spec: &Field<'_>, report: &mut Report) -> Pool {
    let (mut pool, mut network) = (Pool::default(), Report::default());
    let mut part = Part {
        gateway: spec.at("gateway").address(&mut network),
        has_reserved: spec.at("allocateReservedIPAddresses").truth(report),
        ..Part::default()
    };
    for field in spec.at("addresses").items(report) {
        match field.text(report) {
            Some(text) if has_reference(text) => pool.variables.push(Variable::new(&field, text)),
            _ => part.ranges.extend(field.range(report)),
        }
    }
    for field in spec.at("excludedAddresses").items(report) {
        part.excluded.extend(field.range(report));
    }
    part.bounds(&spec.at("subnet"), &spec.at("start"), &spec.at("end"), report);
    let prefix = spec.at("prefix");
    part.subnet_by(prefix.prefix(&mut network), &prefix, &mut network);
    pool.parts.push(part);
    pool.network_notes = network.notes;
    report.wrong.extend(network.wrong);
    pool
}

/// `InClusterPrefixPool`: networks of which each machine gets a part.
fn prefixes(spec: &Field<'_>, report: &mut Report) -> Pool {
    let mut pool = Pool::default();
    let mut part = Part { is_prefixes: true, has_reserved: true, ..Part::default() };
    for field in spec.at("prefixes").items(report) {
        match field.text(report) {
            Some(text) if has_reference(text) => pool.variables.push(Variable::new(&field, text)),
            _ => part.ranges.extend(field.range(report)),
        }
    }
    for field in spec.at("excludedPrefixes").items(report) {
        part.excluded.extend(field.range(report));
    }
    pool.parts.push(part);
    pool
}

/// metal3's `IPPool`: parts with a first and a last address, or a network. What a part does not say, the pool does.
fn metal3(spec: &Field<'_>, report: &mut Report) -> Pool {
    let (mut pool, mut network) = (Pool::default(), Report::default());
    let gateway = spec.at("gateway").address(&mut network);
    let own_prefix = spec.at("prefix");
    let prefix = own_prefix.prefix(&mut network);
    for field in spec.at("pools").items(report) {
        // Its first and last addresses are as good as others.
        let mut part = Part {
            gateway: field.at("gateway").address(&mut network),
            has_reserved: true,
            ..Part::default()
        };
        part.gateway = part.gateway.or(gateway);
        part.bounds(&field.at("subnet"), &field.at("start"), &field.at("end"), report);
        let prefix_field = field.at("prefix");
        match prefix_field.prefix(&mut network) {
            Some(prefix) => part.subnet_by(Some(prefix), &prefix_field, &mut network),
            None => part.subnet_by(prefix, &own_prefix, &mut network),
        }
        pool.parts.push(part);
    }
    pool.network_notes = network.notes;
    report.wrong.extend(network.wrong);
    let mut allocated = Part { has_reserved: true, ..Part::default() };
    for (_, field) in spec.at("preAllocations").members(report) {
        if let Some((range, place)) = field.range(report) {
            let is_in = |part: &&mut Part| {
                part.subnet.as_ref().is_some_and(|(net, _)| range.is_in(net)) || part.holds(range)
            };
            pool.parts.iter_mut().find(is_in).unwrap_or(&mut allocated).ranges.push((range, place));
        }
    }
    if !allocated.ranges.is_empty() {
        pool.parts.push(allocated);
    }
    pool
}

// === impl Pool ===

impl Pool {
    /// Its entries in a mode, each with the field that it comes from; what cannot be computed is noted.
    pub(super) fn entries(&self, mode: NodeRanges, notes: &mut Vec<Finding>) -> Vec<(String, Place)> {
        let mut entries = Vec::new();
        match mode {
            NodeRanges::None => return entries,
            NodeRanges::Subnet => {
                if self.parts.iter().any(|part| part.subnet.is_none()) {
                    notes.extend(self.network_notes.iter().cloned());
                }
                for part in &self.parts {
                    let is_outside = |(range, _): &&(Range, Place)| {
                        part.is_prefixes || part.subnet.as_ref().is_none_or(|(net, _)| !range.is_in(net))
                    };
                    if let Some((net, place)) = &part.subnet {
                        entries.push((text(*net), place.clone()));
                    }
                    let outside: Vec<&(Range, Place)> = part.ranges.iter().filter(is_outside).collect();
                    entries.extend(exact(&outside));
                }
            }
            NodeRanges::Exact => {
                let all: Vec<&(Range, Place)> = self.parts.iter().flat_map(|part| &part.ranges).collect();
                entries.extend(exact(&all));
            }
        }
        let are_entries = mode == NodeRanges::Exact || self.parts.iter().all(|part| part.is_prefixes);
        let is_known = self.parts.iter().all(|part| part.subnet.is_some());
        for variable in &self.variables {
            match &variable.text {
                Some(text) if are_entries => entries.push((text.clone(), variable.place.clone())),
                // Others tell the network.
                _ if is_known && !are_entries => {}
                _ => notes.push(variable.note.clone()),
            }
        }
        notes.extend(self.notes.iter().cloned());
        entries
    }

    /// The networks that its machines are in.
    pub(super) fn networks(&self) -> Vec<(IpNet, Place)> {
        let mut networks = Vec::new();
        for part in &self.parts {
            match &part.subnet {
                Some((net, place)) => networks.push((*net, place.clone())),
                None => networks.extend(
                    part.ranges
                        .iter()
                        .flat_map(|(range, place)| range.networks().map(|net| (net, place.clone()))),
                ),
            }
        }
        networks
    }
}

/// The fewest networks that hold ranges. Each has the field of the first range that it holds a part of.
fn exact(ranges: &[&(Range, Place)]) -> Vec<(String, Place)> {
    let networks: Vec<IpNet> = ranges.iter().flat_map(|(range, _)| range.networks()).collect();
    let place_of = |net: &IpNet| {
        let is_in = |(range, _): &&&(Range, Place)| range.overlaps(&Range::of(net));
        ranges.iter().find(is_in).map(|(_, place)| place.clone())
    };
    IpNet::aggregate(&networks).iter().filter_map(|net| Some((text(*net), place_of(net)?))).collect()
}

/// A network as an entry: one address is no network.
pub(super) fn text(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

// === impl Variable ===

impl Variable {
    fn new(field: &Field<'_>, text: &str) -> Self {
        let is_one = is_entry(text) && find(text, "-").is_none();
        Self { text: is_one.then(|| text.to_owned()), place: field.place(), note: field.unresolved() }
    }
}

// === impl Part ===

impl Part {
    /// A network, or a first and a last address. What is missing of these is the network's.
    fn bounds(&mut self, subnet: &Field<'_>, start: &Field<'_>, end: &Field<'_>, report: &mut Report) {
        let net = subnet.network(report).map(|net| net.trunc());
        let (from, to) = (start.address(report), end.address(report));
        if let Some(net) = net {
            self.subnet = Some((net, subnet.place()));
        }
        let (place, range) = match (net, from, to) {
            (Some(net), None, to) => (subnet, Range::of(&net).without_first(to)),
            (Some(net), Some(from), None) => (start, Range::new(from, net.broadcast())),
            (_, Some(from), Some(to)) => (start, Range::new(from, to)),
            (None, Some(from), None) => (start, Range::new(from, from)),
            (None, None, Some(to)) => (end, Range::new(to, to)),
            (None, None, None) => return,
        };
        match range {
            Some(range) => self.ranges.push((range, place.place())),
            None => report.wrong.push(place.expected("a first address that is not behind the last one")),
        }
    }

    /// The network of a prefix around the first address, as the in-cluster provider infers it; around the gateway of a pool
    /// that has no address yet.
    fn subnet_by(&mut self, prefix: Option<u8>, field: &Field<'_>, report: &mut Report) {
        let (None, Some(prefix)) = (&self.subnet, prefix) else { return };
        let lowest = self.ranges.iter().map(|(range, _)| range.from).min();
        let Some(address) = lowest.or(self.gateway) else { return };
        match IpNet::new(address, prefix) {
            Ok(net) => self.subnet = Some((net.trunc(), field.place())),
            Err(_) => report.wrong.push(field.expected("the length of a prefix, up to 32 for IPv4")),
        }
    }

    fn holds(&self, other: Range) -> bool {
        self.ranges.iter().any(|(range, _)| range.overlaps(&other))
    }

    /// Whether a machine may get this address.
    pub(super) fn gives(&self, address: IpAddr) -> bool {
        let is_in = |ranges: &[(Range, Place)]| ranges.iter().any(|(range, _)| range.holds(address));
        let is_reserved = || {
            let reserved = self.subnet.as_ref().map(|(net, _)| Range::of(net));
            !self.has_reserved
                && reserved.is_some_and(|net| address == net.from || (address.is_ipv4() && address == net.to))
        };
        is_in(&self.ranges) && !is_in(&self.excluded) && self.gateway != Some(address) && !is_reserved()
    }

    /// Ranges that are not in the network that they are to be in.
    pub(super) fn outside(&self) -> impl Iterator<Item = (&Range, &IpNet, &Place)> {
        let subnet = self.subnet.as_ref().filter(|_| !self.is_prefixes);
        subnet.into_iter().flat_map(|(net, _)| {
            self.ranges
                .iter()
                .filter(|(range, _)| !range.is_in(net))
                .map(move |(range, place)| (range, net, place))
        })
    }

    /// Exclusions that are not, or not all, of the addresses that the part has.
    pub(super) fn useless_exclusions(&self) -> impl Iterator<Item = (&Range, &Place)> {
        let networks: Vec<IpNet> = self.ranges.iter().flat_map(|(range, _)| range.networks()).collect();
        let held = IpNet::aggregate(&networks);
        self.excluded
            .iter()
            .filter(move |(range, _)| !range.networks().all(|net| held.iter().any(|own| own.contains(&net))))
            .map(|(range, place)| (range, place))
    }
}

// === impl Range ===

impl Range {
    fn new(from: IpAddr, to: IpAddr) -> Option<Self> {
        (from.is_ipv4() == to.is_ipv4() && from <= to).then_some(Self { from, to })
    }

    fn of(net: &IpNet) -> Self {
        Self { from: net.network(), to: net.broadcast() }
    }

    /// An address, `first-last`, or a network.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some((from, to)) = text.split_once('-') {
            return Self::new(from.trim().parse().ok()?, to.trim().parse().ok()?);
        }
        if text.contains('/') {
            return text.parse().ok().map(|net: IpNet| Self::of(&net));
        }
        text.parse().ok().and_then(|address| Self::new(address, address))
    }

    /// From the second address, which is the first that metal3 and the in-cluster provider take of a network.
    fn without_first(self, to: Option<IpAddr>) -> Option<Self> {
        let from = match self.from {
            IpAddr::V4(from) => u32::from(from).checked_add(1).map(|from| IpAddr::V4(from.into())),
            IpAddr::V6(from) => u128::from(from).checked_add(1).map(|from| IpAddr::V6(from.into())),
        };
        Self::new(from?, to.unwrap_or(self.to))
    }

    /// The fewest networks that hold it and nothing else.
    fn networks(self) -> Box<dyn Iterator<Item = IpNet>> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Box::new(IpSubnets::from(Ipv4Subnets::new(from, to, 0))),
            (IpAddr::V6(from), IpAddr::V6(to)) => Box::new(IpSubnets::from(Ipv6Subnets::new(from, to, 0))),
            // `new` has seen to that.
            _ => Box::new(std::iter::empty()),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.from.is_ipv4() && self.from <= address && address <= self.to
    }

    fn is_in(&self, net: &IpNet) -> bool {
        net.contains(&self.from) && net.contains(&self.to)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.from.is_ipv4() == other.from.is_ipv4() && self.from <= other.to && other.from <= self.to
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.from == self.to { write!(f, "{}", self.from) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

// === impl Field ===

impl Field<'_> {
    /// An address in it.
    pub(super) fn address(&self, report: &mut Report) -> Option<IpAddr> {
        self.parsed("an IP address, as in 10.0.0.1", |text| text.parse().ok(), report)
    }

    /// A network in it, perhaps with host bits.
    pub(super) fn network(&self, report: &mut Report) -> Option<IpNet> {
        self.parsed("a network, as in 10.0.0.0/16", |text| text.parse().ok(), report)
    }

    fn range(&self, report: &mut Report) -> Option<(Range, Place)> {
        let expected = "an address, two with - between them, or a network, as in 10.0.0.10-10.0.0.20";
        self.parsed(expected, Range::parse, report).map(|range| (range, self.place()))
    }

    /// What is a variable is noted, and what is something else is wrong.
    fn parsed<T>(&self, expected: &str, parse: impl Fn(&str) -> Option<T>, report: &mut Report) -> Option<T> {
        let text = self.text(report)?;
        let parsed = parse(text.trim());
        if parsed.is_none() {
            if has_reference(text) {
                report.notes.push(self.unresolved());
            } else {
                report.wrong.push(self.expected(expected));
            }
        }
        parsed
    }
}
