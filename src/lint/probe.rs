//! What clients do, asked of their models.

use crate::clients::{Client, Environment, Route, Target, route};

/// A proxy that nobody has.
pub const PROXY: &str = "http://proxy.invalid:3128";

/// What clients do about one URL.
#[derive(Debug, Default)]
pub struct Outcome {
    direct: Vec<Client>,
    proxied: Vec<Client>,
    failed: Vec<Client>,
}

/// The clients that have a list at all: busybox's wget reads none and Java none of the environment's.
pub fn readers() -> impl Iterator<Item = Client> {
    Client::ALL.into_iter().filter(|client| !matches!(client, Client::BusyboxWget | Client::Java))
}

/// What a client does. Node's own clients read the variables only when they are told to, and are told so here; axios
/// in the same process would then leave them to Node, so it is asked without.
pub fn ask(client: Client, environment: &Environment, target: &Target) -> Route {
    if !matches!(client, Client::NodeFetch | Client::NodeHttp) {
        return route(client, environment, target);
    }
    let mut environment = environment.clone();
    environment.set("NODE_USE_ENV_PROXY", "1");
    route(client, &environment, target)
}

/// An environment with a proxy in every spelling and nothing else.
pub fn with_proxies(proxy: &str) -> Environment {
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];
    names.into_iter().map(|name| (name, proxy)).collect()
}

/// An environment with a proxy and a list.
pub fn with_list(list: &str) -> Environment {
    let mut environment = with_proxies(PROXY);
    environment.set("no_proxy", list);
    environment.set("NO_PROXY", list);
    environment
}

/// A URL of a host, or none if no client could be asked for it.
pub fn url(host: &str, port: Option<u16>) -> Option<Target> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or_else(|| format!("http://{host}/"), |port| format!("http://{host}:{port}/")).parse().ok()
}

/// What clients do about a URL with this list.
pub fn outcome(list: &str, target: &Target) -> Outcome {
    let environment = with_list(list);
    let mut outcome = Outcome::default();
    for client in readers() {
        match ask(client, &environment, target) {
            Route::Direct { .. } => outcome.direct.push(client),
            Route::Proxied { .. } => outcome.proxied.push(client),
            Route::Error { .. } => outcome.failed.push(client),
        }
    }
    outcome
}

/// The clients that take another route for one of the URLs with one list than with the other.
pub fn differing(one: &str, other: &str, targets: &[Target]) -> Vec<Client> {
    let (one, other) = (with_list(one), with_list(other));
    let kind =
        |client, environment: &Environment, target| std::mem::discriminant(&ask(client, environment, target));
    readers()
        .filter(|client| {
            targets.iter().any(|target| kind(*client, &one, target) != kind(*client, &other, target))
        })
        .collect()
}

/// `a`, `a and b`, `a, b and c`.
pub fn names(clients: &[Client]) -> String {
    let names: Vec<&str> = clients.iter().map(|client| client.name()).collect();
    match &names[..] {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// One of two words.
pub fn verb<'w>(clients: &[Client], one: &'w str, many: &'w str) -> &'w str {
    if clients.len() == 1 { one } else { many }
}

impl Outcome {
    /// The clients that do not go to the host directly.
    pub fn others(&self) -> Vec<Client> {
        let mut others: Vec<Client> = self.failed.iter().chain(&self.proxied).copied().collect();
        others.sort_by_key(|client| Client::ALL.iter().position(|known| known == client));
        others
    }

    /// Whether every client goes to the host directly.
    pub fn is_direct(&self) -> bool {
        self.proxied.is_empty() && self.failed.is_empty()
    }

    /// What breaks for those who want `host` to be reached directly; empty if nothing does.
    pub fn breaks(&self, host: &str) -> String {
        let mut parts = Vec::new();
        if !self.failed.is_empty() {
            parts.push(format!(
                "{} {} for every URL",
                names(&self.failed),
                verb(&self.failed, "fails", "fail")
            ));
        }
        if self.direct.is_empty() {
            parts.push(format!("no client reaches {host} directly because of it"));
        } else if self.direct.len() <= self.proxied.len() {
            let verb = verb(&self.direct, "reaches", "reach");
            parts.push(format!(
                "only {} {verb} {host} directly, the others go through the proxy",
                names(&self.direct)
            ));
        } else if !self.proxied.is_empty() {
            let verb = verb(&self.proxied, "goes", "go");
            parts.push(format!("{} {verb} to {host} through the proxy", names(&self.proxied)));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_half_is_named() {
        let says = |list, host| outcome(list, &url(host, None).unwrap()).breaks(host);
        assert_eq!(
            says("*.corp.example", "www.corp.example"),
            "only go, undici, node-fetch, node-http and axios reach www.corp.example directly, the others go through the proxy"
        );
        assert_eq!(
            says("corp.example", "www.corp.example"),
            "node-http, axios and dotnet go to www.corp.example through the proxy"
        );
        assert_eq!(says("web", "web"), "");
        assert!(says("fd00::/64", "fd00::1").starts_with("httpx fails for every URL; "));
    }
}
