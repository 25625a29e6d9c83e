//! What infrastructure says: vCenters, endpoints, and the addresses of machines, in templates and in pools.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value as Json;

use super::super::field::Field;
use super::super::links::{Members, Reference, machine_spec};
use super::super::{FactSource, INFRASTRUCTURE, NodeRanges, Object, pools};
use super::{Collector, VCENTER};
use crate::host::variables::has_reference;
use crate::inject::select::{Labels, Selector};

/// The annotation of a `Cluster` that says where its pools of metal3 are, for capv-static-ip.
const POOL_NAMESPACE: &str = "cluster.x-k8s.io/ip-pool-namespace";

const MACHINES: &str = "machines, whose kubelets the API server calls";

// === impl Collector ===

impl<'m> Collector<'_, 'm> {
    /// What an object of an infrastructure provider says.
    pub(super) fn infrastructure(&mut self, object: &Field<'m>, members: &Members<'m>) {
        let is_template = object.object.kind.ends_with("Template");
        let spec = object.at(if is_template { "spec.template.spec" } else { "spec" });
        match (&*object.object.group, &*object.object.kind) {
            (INFRASTRUCTURE, "VSphereCluster" | "VSphereClusterTemplate") => {
                self.endpoint(&spec.at("controlPlaneEndpoint.host"));
                self.host(FactSource::Vcenter, &spec.at("server"), VCENTER);
                self.load_balancer(&spec);
                self.zones(&spec, members);
                self.labelled_pools(object.object, members);
            }
            (INFRASTRUCTURE, "VSphereMachine" | "VSphereMachineTemplate") => {
                self.machine(&spec);
                self.labelled_pools(object.object, members);
            }
            // Every provider's cluster has an endpoint, in a field that Cluster API's contract names. Of their other
            // types nothing is known.
            _ => {
                let field = spec.at("controlPlaneEndpoint.host");
                if field.value.is_string() {
                    self.endpoint(&field);
                }
            }
        }
    }

    /// Until v1alpha3, HAProxy in front of the control plane was an object of its own.
    fn load_balancer(&mut self, spec: &Field<'m>) {
        let Some(reference) = Reference::read(&spec.at("loadBalancerRef"), &mut self.report) else { return };
        let found = self.links.follow(&reference).to_vec();
        if found.is_empty() {
            self.missing(&reference);
        }
        let why = "the load balancer in front of the API server";
        for index in found {
            let object = Field::of(self.objects, index);
            let devices =
                object.at("spec.virtualMachineConfiguration.network.devices").items(&mut self.report);
            for device in devices {
                for address in device.at("ipAddrs").items(&mut self.report) {
                    self.host(FactSource::LoadBalancer, &address, why);
                }
            }
            self.host(FactSource::LoadBalancer, &object.at("status.address"), why);
        }
    }

    /// What a `VSphereMachineSpec` says.
    fn machine(&mut self, spec: &Field<'m>) {
        self.host(FactSource::Vcenter, &spec.at("server"), VCENTER);
        let network = spec.at("network");
        let preferred = network.at("preferredAPIServerCidr");
        if self.mode != NodeRanges::None
            && let Some(text) = preferred.text(&mut self.report)
        {
            let why = "the network in which machines look for the API server";
            self.network(&preferred, text, FactSource::Machines, why);
        }
        for device in network.at("devices").items(&mut self.report) {
            for field in device.at("ipAddrs").items(&mut self.report) {
                self.address_of_machine(&field);
            }
            for gateway in ["gateway4", "gateway6"] {
                let gateway = device.at(gateway);
                if self.mode != NodeRanges::None {
                    self.host(FactSource::Machines, &gateway, "the gateway of machines");
                }
            }
            let namespace = &*spec.object.namespace;
            self.pools_of(&device.at("addressesFromPools"), namespace);
        }
    }

    /// An address with the length of its network's prefix.
    fn address_of_machine(&mut self, field: &Field<'m>) {
        let Some(text) = field.text(&mut self.report) else { return };
        if has_reference(text) {
            match (self.mode, text.split_once('/')) {
                (NodeRanges::None, _) => {}
                (NodeRanges::Subnet, Some(_)) => self.report.notes.push(field.unresolved()),
                _ => drop(self.host(FactSource::Machines, field, MACHINES)),
            }
            return;
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(net) = net else {
            self.report.wrong.push(field.expected("an address with its prefix, as in 10.0.0.10/24"));
            return;
        };
        let is_network = net.prefix_len() < net.max_prefix_len();
        let text = match self.mode {
            NodeRanges::Subnet => pools::text(net),
            NodeRanges::Exact => net.addr().to_string(),
            NodeRanges::None => String::new(),
        };
        if self.mode != NodeRanges::None {
            self.add(FactSource::Machines, Some(field.place()), text, MACHINES);
        }
        if is_network {
            self.known.nodes.push((net.trunc(), field.place()));
        }
    }

    /// Pools that a list of references means.
    fn pools_of(&mut self, list: &Field<'m>, namespace: &'m str) {
        for field in list.items(&mut self.report) {
            let Some(mut reference) = Reference::read(&field, &mut self.report) else { continue };
            reference.namespace = namespace;
            if self.mode != NodeRanges::None && self.links.follow(&reference).is_empty() {
                self.missing(&reference);
            }
            for index in self.links.follow(&reference).to_vec() {
                self.pool(index);
            }
        }
    }

    /// Pools of metal3 that labels name.
    fn labelled_pools(&mut self, object: &'m Object, members: &Members<'m>) {
        let cluster = members.clusters.first().map(|index| &self.objects[*index]);
        let elsewhere =
            cluster.and_then(|cluster| cluster.value["metadata"]["annotations"][POOL_NAMESPACE].as_str());
        match self.pools.of_labels(self.links, object, elsewhere.unwrap_or(&object.namespace)) {
            Ok(found) => {
                if object.kind == "VSphereCluster" {
                    self.known.endpoint_pools.extend(&found);
                }
                for index in found {
                    self.pool(index);
                }
            }
            Err(_) if self.mode == NodeRanges::None => {}
            Err(name) => {
                let message =
                    format!("IPPool {name} is not among the documents: its addresses are not in the list");
                self.report.notes.push(object.finding("missing-object", "metadata.labels", message));
            }
        }
    }

    pub(super) fn pool(&mut self, index: usize) {
        let Some(pool) = self.pools.get(index) else { return };
        if self.known.pools.iter().any(|(known, _)| *known == index) {
            return;
        }
        for (text, place) in pool.entries(self.mode, &mut self.report.notes) {
            self.add(FactSource::Pools, Some(place), text, MACHINES);
        }
        self.known.nodes.extend(pool.networks());
        self.known.pools.push((index, Arc::clone(pool)));
    }

    /// Failure domains that the selector of a `VSphereCluster` takes.
    fn zones(&mut self, spec: &Field<'m>, members: &Members<'m>) {
        let field = spec.at("failureDomainSelector");
        if !field.is_set() {
            return;
        }
        let selector = LabelSelector::deserialize(field.value).ok();
        let Some(selector) = selector.and_then(|selector| Selector::compile(Some(&selector)).ok()) else {
            self.report.wrong.push(field.expected("a label selector, or {} for every failure domain"));
            return;
        };
        let zones = self.links.of_kind(INFRASTRUCTURE, "VSphereDeploymentZone");
        let is_it = |index: &&usize| selector.matches(&MetadataLabels(&self.objects[**index].value));
        let zones: Vec<usize> = zones.iter().filter(is_it).copied().collect();
        if zones.is_empty() {
            let message = "no VSphereDeploymentZone among the documents is meant: vCenters of failure domains are not in \
                           the list";
            self.report.notes.push(field.finding("missing-object", message.to_owned()));
        }
        let namespace = members.clusters.first().map_or("", |index| &*self.objects[*index].namespace);
        for index in zones {
            let server = Field::of(self.objects, index).at("spec.server");
            let own = spec.at("server");
            if server.value.is_string() && own.value.is_string() && server.value != own.value {
                self.known.strange_zones.push(server.place());
            }
            self.zone(index, namespace);
        }
    }

    /// Failure domains that machines name.
    pub(super) fn zones_of_machines(&mut self, members: &Members<'m>, namespace: &'m str) {
        let is_vsphere = |index: &usize| self.objects[*index].kind.starts_with("VSphere");
        let is_missing = |reference: &Reference<'m>| reference.kind.starts_with("VSphere");
        if !members.infrastructure.iter().any(is_vsphere) && !members.missing.iter().any(is_missing) {
            return;
        }
        let mut fields = Vec::new();
        for &index in &members.workers {
            let object = Field::of(self.objects, index);
            fields.push(machine_spec(&object).at("failureDomain"));
            fields.extend(object.at("spec.failureDomains").items(&mut self.report));
        }
        let topologies = members.clusters.iter().map(|index| (*index, "spec.topology.workers"));
        let classes = members.classes.iter().map(|index| (*index, "spec.workers"));
        for (index, path) in topologies.chain(classes) {
            let workers = Field::of(self.objects, index).at(path);
            for kind in ["machineDeployments", "machinePools"] {
                for worker in workers.at(kind).items(&mut self.report) {
                    fields.push(worker.at("failureDomain"));
                    fields.extend(worker.at("failureDomains").items(&mut self.report));
                }
            }
        }
        for field in fields {
            let Some(name) = field.text(&mut self.report) else { continue };
            let found = self.links.find(INFRASTRUCTURE, "VSphereDeploymentZone", "", name).to_vec();
            if found.is_empty() {
                let message = format!(
                    "VSphereDeploymentZone {name} is not among the documents: its vCenter is not in the list"
                );
                self.report.notes.push(field.finding("missing-object", message));
            }
            for index in found {
                // What machines name is taken whatever its vCenter is.
                self.known.strange_zones.retain(|place| place.object != index);
                self.zone(index, namespace);
            }
        }
    }

    /// A failure domain: its vCenter, and the pools that its networks take addresses from. What it calls hosts are
    /// groups of vSphere, no names of hosts.
    fn zone(&mut self, index: usize, namespace: &'m str) {
        let zone = Field::of(self.objects, index);
        self.host(FactSource::Vcenter, &zone.at("spec.server"), "the vCenter of a failure domain");
        let Some(name) = zone.at("spec.failureDomain").text(&mut self.report) else { return };
        for index in self.links.find(INFRASTRUCTURE, "VSphereFailureDomain", "", name).to_vec() {
            let topology = Field::of(self.objects, index).at("spec.topology");
            for network in topology.at("networkConfigurations").items(&mut self.report) {
                self.pools_of(&network.at("addressesFromPools"), namespace);
            }
        }
    }
}

/// The labels of an object.
struct MetadataLabels<'m>(&'m Json);

// === impl MetadataLabels ===

impl Labels for MetadataLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["labels"][key].as_str()
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.0["metadata"]["labels"].as_object();
        labels.into_iter().flatten().filter_map(|(key, value)| Some((&**key, value.as_str()?)))
    }
}
