//! E6: what the input shows of a cluster, and whether lists have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::Value;

use super::objects;
use super::probe;
use super::rules::Id;
use super::{Finding, Findings, Role, Scope, Subject, portable};
use crate::clients::{Client, Environment, Route, route};
use crate::inject::preset::ProxyVariable;

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
            let kind = object["kind"].as_str().unwrap_or_default();
            let api_version = object["apiVersion"].as_str().unwrap_or_default();
            if kind == "ClusterConfiguration" && api_version.starts_with("kubeadm.k8s.io/") {
                self.subnets(object["networking"]["serviceSubnet"].as_str().unwrap_or_default());
                self.endpoints.extend(object["controlPlaneEndpoint"].as_str().and_then(host));
            }
            // Every cluster has this one, and its address is the API server's.
            let metadata = &object["metadata"];
            if (kind, api_version) == ("Service", "v1")
                && metadata["name"] == "kubernetes"
                && metadata["namespace"] == "default"
            {
                let addresses = object["spec"]["clusterIPs"].as_array().into_iter().flatten();
                let addresses = addresses.chain([&object["spec"]["clusterIP"]]).filter_map(Value::as_str);
                self.service.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
            }
        }
        for subject in objects::subjects(object) {
            if is_api_server(&subject) {
                self.subnets(flag(&subject, "--service-cluster-ip-range").unwrap_or_default());
                self.endpoints.extend(flag(&subject, "--advertise-address").and_then(host));
            }
        }
    }

    /// The first address of a network of Services is the API server's.
    fn subnets(&mut self, subnets: &str) {
        let first = |subnet: &str| match subnet.trim().parse().ok()? {
            IpNet::V4(net) => Some(IpAddr::V4(u32::from(net.network()).checked_add(1)?.into())),
            IpNet::V6(net) => Some(IpAddr::V6(u128::from(net.network()).checked_add(1)?.into())),
        };
        self.service.extend(subnets.split(',').filter_map(first));
    }

    /// Whether the subject reaches the API server without the proxy that it has, as far as the input shows where it is.
    pub(super) fn check(&self, findings: &mut Findings<'_>) {
        let subject = findings.subject;
        let Some((proxy_index, proxy)) = proxy(subject) else { return };
        let list = subject.spellings(ProxyVariable::No).next();
        let is_component = !subject.command().is_empty();
        let (index, text) = match list {
            Some((index, variable)) => match &variable.value {
                Some(value) if subject.is_rewritten => (index, portable(&[value])),
                Some(value) => (index, value.clone()),
                None => return,
            },
            // Other presets, or a ConfigMap, may have the list.
            None if subject.is_open || !is_component => return,
            None => (proxy_index, String::new()),
        };
        if subject.is_open && subject.scope == Scope::Preset {
            return;
        }
        let needed = self.needed(subject);
        let environment = probe::with_list(&text);
        let missing: Vec<&Needed> =
            needed.iter().filter(|needed| !is_direct(&environment, &needed.host)).collect();
        if missing.is_empty() {
            return;
        }
        let mut parts: Vec<&str> = missing.iter().map(|needed| needed.why).collect();
        parts.dedup();
        let mut write: Vec<&str> = missing.iter().map(|needed| &*needed.write).collect();
        write.dedup();
        let who = match subject.command().first() {
            Some(program) => program.as_str(),
            None => "what runs here",
        };
        let finding = Finding::new(
            Id::E6,
            index,
            format!("{proxy} is set, and no_proxy lacks {}", parts.join(", ")),
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

/// The variable that names a proxy for the API server's URL.
fn proxy(subject: &Subject) -> Option<(usize, &str)> {
    [ProxyVariable::Https, ProxyVariable::All]
        .into_iter()
        .flat_map(|proxy| subject.spellings(proxy))
        .find_map(|(index, variable)| {
            let is_set = variable.value.as_ref().is_none_or(|value| !value.trim().is_empty());
            is_set.then_some((index, variable.name.as_str()))
        })
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

/// Whether Go, which the control plane is written in, reaches a host directly.
fn is_direct(environment: &Environment, host: &str) -> bool {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    // What no URL can have is not missing.
    let Ok(target) = format!("https://{host}/").parse() else { return true };
    matches!(route(Client::Go, environment, &target), Route::Direct { .. })
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
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-apiserver-a"},
            "spec": {"containers": [{"name": "kube-apiserver", "command": [
                "kube-apiserver", "--service-cluster-ip-range=172.20.0.0/16", "--advertise-address", "192.168.7.1",
            ]}]},
        }));
        let service: Vec<String> = facts.service.iter().map(ToString::to_string).collect();
        assert_eq!(service, ["10.43.0.1", "10.96.0.1", "172.20.0.1", "fd00:96::1"]);
        assert_eq!(facts.endpoints.into_iter().collect::<Vec<_>>(), ["192.168.7.1", "api.corp.example"]);
    }
}
