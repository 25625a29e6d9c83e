//! E6: what the input shows of a cluster, and whether lists have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::objects;
use super::probe::PROXY;
use super::rules::Id;
use super::{Finding, Findings, Role, Scope, Subject, Variable, portable};
use crate::clients::{Client, Environment, Route, route};
use crate::inject::preset::ProxyVariable;
use crate::presets::cluster::source::{API_SERVICE, KUBEADM};
use crate::presets::network::{self, Part};

/// What the input shows of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the API server's Service.
    service: BTreeSet<IpAddr>,
    /// Hosts under which the API server is reached from outside: the virtual IP address or its name.
    endpoints: BTreeSet<String>,
}

/// A host that a list should have, and why.
struct Needed {
    host: String,
    why: &'static str,
    write: String,
}

impl Facts {
    /// Takes over what an object shows.
    pub fn learn(&mut self, object: &Value) {
        for (_, object) in objects::items(object) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let part = || Part::deserialize(object).unwrap_or_default();
            let api_version = text(&object["apiVersion"]);
            let (group, _) = api_version.split_once('/').unwrap_or_default();
            match (group, object["kind"].as_str().unwrap_or_default()) {
                // Every cluster has this one, and its address is the API server's.
                ("", "Service") if (&*namespace, &*name) == API_SERVICE => {
                    self.service.extend(part().api_service().addresses);
                }
                // It is in the network of this name; others are for more Services.
                ("networking.k8s.io", "ServiceCIDR") if name == API_SERVICE.1 => {
                    self.subnets(&part().service_cidr().networks);
                }
                ("", "ConfigMap") if (&*namespace, &*name) == KUBEADM => {
                    self.kubeadm(&part().cluster_configuration());
                }
                ("kubeadm.k8s.io", "ClusterConfiguration") => self.kubeadm(object),
                _ => {}
            }
        }
        for subject in objects::subjects(object) {
            if is_api_server(&subject) {
                let subnets = flag(&subject, "--service-cluster-ip-range").unwrap_or_default();
                self.subnets(&network::parsed(subnets.split(',')));
                self.endpoints.extend(flag(&subject, "--advertise-address").and_then(host));
            }
        }
    }

    fn kubeadm(&mut self, configuration: &Value) {
        let subnets = configuration["networking"]["serviceSubnet"].as_str().unwrap_or_default();
        self.subnets(&network::parsed(subnets.split(',')));
        self.endpoints.extend(configuration["controlPlaneEndpoint"].as_str().and_then(host));
    }

    /// The first address of a network of Services is the API server's.
    fn subnets(&mut self, subnets: &[IpNet]) {
        let first = |subnet: &IpNet| match subnet {
            IpNet::V4(net) => Some(IpAddr::V4(u32::from(net.network()).checked_add(1)?.into())),
            IpNet::V6(net) => Some(IpAddr::V6(u128::from(net.network()).checked_add(1)?.into())),
        };
        self.service.extend(subnets.iter().filter_map(first));
    }

    /// Whether the subject reaches the API server without the proxy that it has, as far as the input shows where it is.
    pub(super) fn check(&self, findings: &mut Findings<'_>) {
        let subject = findings.subject;
        let lists: Vec<(usize, &Variable)> = subject.spellings(ProxyVariable::No).collect();
        // Other presets, or a ConfigMap, may have the list, or more of it.
        let is_elsewhere = subject.is_open && (subject.scope == Scope::Preset || lists.is_empty());
        let is_known = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.contains("$("));
        if is_elsewhere
            || (lists.is_empty() && subject.command().is_empty())
            || !lists.iter().all(|(_, variable)| is_known(&variable.value))
        {
            return;
        }
        let needed = self.needed(subject);
        let environment = environment(subject);
        let missing: Vec<(String, &Needed)> = needed
            .iter()
            .filter_map(|needed| Some((proxied_by(&environment, &needed.host)?, needed)))
            .collect();
        let Some((proxy, _)) = missing.first() else { return };
        let mut parts: Vec<&str> = missing.iter().map(|(_, needed)| needed.why).collect();
        parts.dedup();
        let mut write: Vec<&str> = missing.iter().map(|(_, needed)| &*needed.write).collect();
        write.dedup();
        let who = match subject.command().first() {
            Some(program) => program.as_str(),
            None => "what runs here",
        };
        // As the subject spells it; reach writes the other spelling as well.
        let find = |of: ProxyVariable, name: &str| {
            subject.spellings(of).find(|(_, variable)| variable.name == name).or(subject.spellings(of).next())
        };
        let Some((proxy_index, proxy)) = find(ProxyVariable::Https, proxy) else { return };
        let list = find(ProxyVariable::No, "NO_PROXY");
        let finding = Finding::new(
            Id::E6,
            list.map_or(proxy_index, |(index, _)| index),
            format!("{} is set, and no_proxy lacks {}", proxy.name, parts.join(", ")),
            format!("{} in no_proxy", write.join(",")),
        )
        .breaking(
            format!("{who} asks the proxy for it, which cannot reach into the cluster"),
            vec![Client::Go],
        );
        findings.add(finding);
    }

    fn needed(&self, subject: &Subject) -> Vec<Needed> {
        let mut needed = Vec::new();
        let mut need = |host: String, why, write: &str| {
            let write = if write.is_empty() { host.clone() } else { write.to_owned() };
            needed.push(Needed { host, why, write });
        };
        if is_api_server(subject) {
            need(
                "webhook.namespace.svc".to_owned(),
                "the names of Services (webhooks, aggregated APIs)",
                ".svc",
            );
            for server in flag(subject, "--etcd-servers").unwrap_or_default().split(',') {
                if let Some(host) = host(server) {
                    need(host, "etcd", "");
                }
            }
        }
        if subject.role != Role::KnowsNetworks {
            for address in &self.service {
                need(address.to_string(), "the address of the API server's Service", "");
            }
        }
        for endpoint in &self.endpoints {
            need(endpoint.clone(), "the endpoint of the control plane", "");
        }
        needed
    }
}

/// The proxy variables of a subject as its process has them.
fn environment(subject: &Subject) -> Environment {
    let mut environment = Environment::default();
    for (_, variable) in subject.effective() {
        let Some(proxy) = ProxyVariable::of(&variable.name) else { continue };
        let value = match &variable.value {
            Some(value) if proxy == ProxyVariable::No && subject.is_rewritten => portable(&[value]),
            Some(value) if !value.contains("$(") => value.clone(),
            // Some proxy.
            _ => PROXY.to_owned(),
        };
        if subject.has_both_spellings {
            environment.set(proxy.lower(), value.as_str());
            environment.set(proxy.upper(), value);
        } else {
            environment.set(&*variable.name, value);
        }
    }
    environment
}

fn is_api_server(subject: &Subject) -> bool {
    subject.command().first().is_some_and(|program| program == "kube-apiserver")
}

/// The value of a flag, as `--flag=value` or `--flag value`.
fn flag<'s>(subject: &'s Subject, name: &str) -> Option<&'s str> {
    let mut words = subject.command().iter();
    while let Some(word) = words.next() {
        if let Some(value) = word.strip_prefix(name) {
            return match value.strip_prefix('=') {
                Some(value) => Some(value),
                None if value.is_empty() => words.next().map(String::as_str),
                None => continue,
            };
        }
    }
    None
}

/// The host of a URL or of `host:port`. `None` for a reference.
fn host(text: &str) -> Option<String> {
    let host = super::urls::host(text)?;
    let is_host = !host.contains('$') && host.is_ascii();
    // An IPv6 address may stand without brackets in a flag.
    if let Ok(address) = text.trim().parse::<IpAddr>() {
        return Some(address.to_string());
    }
    is_host.then(|| host.to_ascii_lowercase())
}

/// The variable because of which Go, which the control plane is written in, reaches a host through a proxy.
fn proxied_by(environment: &Environment, host: &str) -> Option<String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    // What no URL can have is not missing.
    let target = format!("https://{host}/").parse().ok()?;
    match route(Client::Go, environment, &target) {
        Route::Proxied { variable, .. } => Some(variable),
        Route::Direct { .. } | Route::Error { .. } => None,
    }
}

/// Addresses that are reached as such: those of the cluster, and those in URLs of other variables.
pub(super) fn addresses_in_use(subject: &Subject, facts: &Facts) -> BTreeSet<IpAddr> {
    let mut addresses: BTreeSet<IpAddr> =
        facts.endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect();
    if subject.role != Role::KnowsNetworks {
        addresses.extend(&facts.service);
    }
    let others = subject.effective().filter(|(_, variable)| ProxyVariable::of(&variable.name).is_none());
    for value in others.filter_map(|(_, variable)| variable.value.as_deref()) {
        // More than one in a list of servers.
        for url in value.split([',', ' ', ';']).filter(|url| {
            let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            scheme.is_some_and(|scheme| scheme == "http" || scheme == "https")
        }) {
            let address = super::urls::host(url).and_then(|host| host.parse::<Ipv4Addr>().ok());
            addresses.extend(address.filter(|address| !address.is_loopback()).map(IpAddr::V4));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_come_from_kubeadm_the_service_and_the_api_server() {
        let mut facts = Facts::default();
        facts.learn(&json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
            "controlPlaneEndpoint": "API.corp.example:6443",
            "networking": {"serviceSubnet": "10.96.0.0/12, fd00:96::/112"},
        }));
        facts.learn(&json!({"apiVersion": "v1", "kind": "List", "items": [{
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"]},
        }]}));
        facts.learn(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.97.0.0/16"]},
        }));
        facts.learn(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
            "data": {"ClusterConfiguration": "controlPlaneEndpoint: vip.corp.example\nnetworking: {serviceSubnet: 10.98.0.0/16, podSubnet: 10.99.0.0/16}"},
        }));
        facts.learn(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-apiserver-a"},
            "spec": {"containers": [{"name": "kube-apiserver", "command": [
                "kube-apiserver", "--service-cluster-ip-range=172.20.0.0/16", "--advertise-address", "192.168.7.1",
            ]}]},
        }));
        let service: Vec<String> = facts.service.iter().map(ToString::to_string).collect();
        assert_eq!(service, ["10.43.0.1", "10.96.0.1", "10.97.0.1", "10.98.0.1", "172.20.0.1", "fd00:96::1"]);
        assert_eq!(
            facts.endpoints.into_iter().collect::<Vec<_>>(),
            ["192.168.7.1", "api.corp.example", "vip.corp.example"]
        );
    }
}
