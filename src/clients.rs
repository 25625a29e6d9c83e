//! How HTTP clients read their proxy variables: for an environment and a URL, whether a client goes through
//! a proxy, and why.
//!
//! No standard says what `no_proxy` means, so every client has rules of its own. Each model here is a
//! second writing of one client's code, whose file and version it names; `tests/clients` compares all of
//! them with the real programs (docs/clients.md has the result). Models share code only where their clients
//! do.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

mod addresses;
mod axios;
mod curl;
mod dotnet;
mod environment;
mod go;
pub(crate) mod httpx;
mod java;
mod node;
pub(crate) mod proxy;
mod python;
mod reqwest;
mod ruby;
mod target;
mod undici;
mod wget;

pub use environment::{Environment, Variable};
pub use target::{Scheme, Target};

/// A client and, where rules changed, its era.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// curl of today.
    Curl,
    /// curl 7.87 to 8.8, in which white space separates entries and IPv6 networks do not match.
    Curl7_88,
    /// curl before 7.86, which knows no networks.
    Curl7_85,
    /// GNU wget.
    Wget,
    /// The wget of busybox, as in Alpine images.
    BusyboxWget,
    /// Go's net/http.
    Go,
    /// Python's urllib.request.
    PythonUrllib,
    /// Python's requests.
    Requests,
    /// Python's httpx.
    Httpx,
    /// Python's aiohttp with `trust_env=True`.
    Aiohttp,
    /// undici's EnvHttpProxyAgent.
    Undici,
    /// fetch of Node 24 with `NODE_USE_ENV_PROXY=1`.
    NodeFetch,
    /// http and https of Node 24 with `NODE_USE_ENV_PROXY=1`.
    NodeHttp,
    /// axios.
    Axios,
    /// Ruby's net/http.
    Ruby,
    /// Rust's reqwest, and what else uses hyper-util's matcher.
    Reqwest,
    /// .NET's HttpClient.
    Dotnet,
    /// Java, which reads system properties only, here from `JAVA_TOOL_OPTIONS`.
    Java,
}

/// How a client reaches a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "route", rename_all = "camelCase")]
pub enum Route {
    /// Straight to the host.
    Direct {
        /// Why.
        why: Why,
    },
    /// Through a proxy.
    Proxied {
        /// The variable that names the proxy.
        variable: String,
        /// The proxy as the variable says it, without credentials.
        proxy: String,
        /// Why.
        why: Why,
    },
    /// The client fails before it connects to anything.
    Error {
        /// Why.
        why: Why,
    },
}

/// Why a client takes a route. Written out, it is one short sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The variable that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The entry of its list that decided, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The rule of the client.
    pub rule: &'static str,
}

/// How `client` reaches `target` in `environment`.
#[must_use]
pub fn route(client: Client, environment: &Environment, target: &Target) -> Route {
    match client {
        Client::Curl => curl::current(environment, target),
        Client::Curl7_88 => curl::from_7_86(environment, target),
        Client::Curl7_85 => curl::before_7_86(environment, target),
        Client::Wget => wget::gnu(environment, target),
        Client::BusyboxWget => wget::busybox(environment, target),
        Client::Go => go::route(environment, target),
        Client::PythonUrllib => python::urllib(environment, target),
        Client::Requests => python::requests(environment, target),
        Client::Httpx => httpx::route(environment, target),
        Client::Aiohttp => python::aiohttp(environment, target),
        Client::Undici => undici::undici_8(environment, target),
        Client::NodeFetch => undici::node_24(environment, target),
        Client::NodeHttp => node::route(environment, target),
        Client::Axios => axios::route(environment, target),
        Client::Ruby => ruby::route(environment, target),
        Client::Reqwest => reqwest::route(environment, target),
        Client::Dotnet => dotnet::route(environment, target),
        Client::Java => java::route(environment, target),
    }
}

// === impl Client ===

impl Client {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 18] = [
        Self::Curl,
        Self::Curl7_88,
        Self::Curl7_85,
        Self::Wget,
        Self::BusyboxWget,
        Self::Go,
        Self::PythonUrllib,
        Self::Requests,
        Self::Httpx,
        Self::Aiohttp,
        Self::Undici,
        Self::NodeFetch,
        Self::NodeHttp,
        Self::Axios,
        Self::Ruby,
        Self::Reqwest,
        Self::Dotnet,
        Self::Java,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Curl7_88 => "curl-7.88",
            Self::Curl7_85 => "curl-7.85",
            Self::Wget => "wget",
            Self::BusyboxWget => "busybox-wget",
            Self::Go => "go",
            Self::PythonUrllib => "python-urllib",
            Self::Requests => "requests",
            Self::Httpx => "httpx",
            Self::Aiohttp => "aiohttp",
            Self::Undici => "undici",
            Self::NodeFetch => "node-fetch",
            Self::NodeHttp => "node-http",
            Self::Axios => "axios",
            Self::Ruby => "ruby",
            Self::Reqwest => "reqwest",
            Self::Dotnet => "dotnet",
            Self::Java => "java",
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|client| client.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

// === impl Route ===

impl Route {
    fn direct(why: Why) -> Self {
        Self::Direct { why }
    }

    fn error(why: Why) -> Self {
        Self::Error { why }
    }

    fn proxied(variable: &Variable<'_>, why: Why) -> Self {
        Self::Proxied {
            variable: variable.name.to_owned(),
            proxy: proxy::without_credentials(variable.value),
            why,
        }
    }

    /// Why.
    #[must_use]
    pub const fn why(&self) -> &Why {
        match self {
            Self::Direct { why } | Self::Proxied { why, .. } | Self::Error { why } => why,
        }
    }
}

// === impl Why ===

impl Why {
    const fn rule(rule: &'static str) -> Self {
        Self { variable: None, entry: None, rule }
    }

    fn variable(variable: &Variable<'_>, rule: &'static str) -> Self {
        Self { variable: Some(variable.name.to_owned()), entry: None, rule }
    }

    fn entry(variable: &Variable<'_>, entry: &str, rule: &'static str) -> Self {
        Self {
            variable: Some(variable.name.to_owned()),
            entry: Some(proxy::without_credentials(entry)),
            rule,
        }
    }

    /// Nothing in the list, if there is one, lets the target past the proxy.
    fn unmatched(list: Option<Variable<'_>>) -> Self {
        match list {
            Some(list) => Self::variable(&list, "no entry matches"),
            None => Self::rule("no list of exceptions is set"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, &self.entry) {
            (Some(variable), Some(entry)) => write!(f, "{entry} in {variable}: {}", self.rule),
            (Some(variable), None) => write!(f, "{variable}: {}", self.rule),
            (None, Some(entry)) => write!(f, "{entry}: {}", self.rule),
            (None, None) => f.write_str(self.rule),
        }
    }
}
