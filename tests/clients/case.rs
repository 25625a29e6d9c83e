//! A case: an environment and a URL.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use reach::clients::{Client, Environment, Route, Target, route};

/// The proxy of variables that a case does not set.
pub const PROXY: &str = "http://127.0.0.1:3128";

/// Ports of proxies, so that a case tells which variable was used.
pub const PROXY_PORTS: std::ops::RangeInclusive<u16> = 3128..=3135;

/// What the names of the namespace resolve to that do not resolve to [`ELSEWHERE`].
pub const NAMES: [(&str, &str); 2] = [("inside.corp.local", "10.96.0.10"), ("loop.corp.local", "127.0.0.1")];

/// What all other names resolve to.
pub const ELSEWHERE: [u8; 4] = [198, 51, 100, 7];

/// Variables that name a proxy.
const PROXIES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];

/// Written as a URL and variables: `http://web.corp.local/ list=".corp.local"`, where `list` is both spellings of
/// `no_proxy`, and both proxies are [`PROXY`] unless a variable of a proxy is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub url: String,
    pub variables: Vec<(String, String)>,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Direct,
    /// And the port of the proxy.
    Proxied(u16),
    Error,
}

impl Case {
    /// A list and a URL.
    pub fn new(url: &str, list: &str) -> Self {
        Self { url: url.to_owned(), variables: vec![("list".to_owned(), list.to_owned())] }
    }

    /// The list, in both spellings.
    pub fn list(&self) -> &str {
        let list = self.variables.iter().find(|(name, _)| name == "list");
        list.map_or("", |(_, list)| list)
    }

    /// The variables as a client's process gets them. Node is told to read them, and Java gets them as properties.
    pub fn environment(&self, client: Client) -> Environment {
        let mut environment = Environment::default();
        let names_proxy = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.ends_with("_proxy") && !matches!(name.as_str(), "no_proxy" | "node_use_env_proxy")
        };
        if !self.variables.iter().any(|(name, _)| names_proxy(name)) {
            for name in PROXIES {
                environment.set(name, PROXY);
            }
        }
        let mut list = None;
        for (name, value) in &self.variables {
            match name.as_str() {
                "list" => {
                    environment.set("no_proxy", value);
                    environment.set("NO_PROXY", value);
                    list = Some(value);
                }
                _ => environment.set(name, value),
            }
        }
        let is_set = |environment: &Environment, name| environment.get(name).is_some();
        match client {
            Client::NodeFetch | Client::NodeHttp if !is_set(&environment, "NODE_USE_ENV_PROXY") => {
                environment.set("NODE_USE_ENV_PROXY", "1");
            }
            Client::Java if !is_set(&environment, "JAVA_TOOL_OPTIONS") => {
                let mut options = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 \
                    -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128"
                    .to_owned();
                if let Some(list) = list {
                    let list = list.replace(',', "|").replace(['"', '\n'], "");
                    let _ = write!(options, " \"-Dhttp.nonProxyHosts={list}\"");
                }
                environment.set("JAVA_TOOL_OPTIONS", options);
            }
            _ => {}
        }
        environment
    }

    /// The target, with what its name resolves to in the namespace.
    pub fn target(&self) -> Target {
        let target: Target = self.url.parse().unwrap_or_else(|error| panic!("{}: {error}", self.url));
        let host = target.host().trim_end_matches('.').to_ascii_lowercase();
        let known = NAMES.iter().find(|(name, _)| *name == host);
        let address = match known {
            Some((_, address)) => address.parse().expect("an address"),
            None if host == "localhost" => std::net::Ipv4Addr::LOCALHOST.into(),
            None => ELSEWHERE.into(),
        };
        target.resolving_to(vec![address])
    }

    /// What the model of a client says, and its answer in words.
    pub fn modelled(&self, client: Client) -> (Verdict, String) {
        let route = route(client, &self.environment(client), &self.target());
        let verdict = match &route {
            Route::Direct { .. } => Verdict::Direct,
            Route::Error { .. } => Verdict::Error,
            Route::Proxied { proxy, .. } => {
                let authority = proxy.split_once("://").map_or(&**proxy, |(_, rest)| rest);
                let authority = authority.split('/').next().unwrap_or_default();
                let port = authority.rsplit(':').next().and_then(|port| port.parse().ok());
                Verdict::Proxied(port.unwrap_or_default())
            }
        };
        (verdict, route.why().to_string())
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (url, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut variables = Vec::new();
        while !rest.trim().is_empty() {
            let (name, value) = rest.trim_start().split_once('=').ok_or_else(|| format!("no = in {rest}"))?;
            let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
            let read = values.next().ok_or("no value")?.map_err(|error| format!("{value}: {error}"))?;
            variables.push((name.to_owned(), read));
            rest = &value[values.byte_offset()..];
        }
        Ok(Self { url: url.to_owned(), variables })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        for (name, value) in &self.variables {
            write!(f, " {name}={}", serde_json::Value::from(value.as_str()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("D"),
            // The usual one needs no number.
            Self::Proxied(3128) => f.write_str("P"),
            Self::Proxied(port) => write!(f, "P{port}"),
            Self::Error => f.write_str("E"),
        }
    }
}

impl std::str::FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "D" => Ok(Self::Direct),
            "E" => Ok(Self::Error),
            "P" => Ok(Self::Proxied(3128)),
            _ => text
                .strip_prefix('P')
                .and_then(|port| port.parse().ok())
                .map(Self::Proxied)
                .ok_or_else(|| format!("expected D, P, P and a port, or E, not {text}")),
        }
    }
}

/// A file of measured cases: a title behind `#`, a line for the case, and an indented one for each verdict, with the
/// clients that gave it.
pub type Measured = (String, Case, BTreeMap<Verdict, Vec<Client>>);

pub fn read(text: &str) -> Result<Vec<Measured>, String> {
    let mut cases: Vec<Measured> = Vec::new();
    let mut title = String::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |error: String| format!("line {}: {error}", index + 1);
        if let Some(text) = line.strip_prefix('#') {
            text.trim().clone_into(&mut title);
        } else if line.starts_with(' ') {
            let (_, _, verdicts) =
                cases.last_mut().ok_or_else(|| wrong("a verdict without a case".to_owned()))?;
            let (verdict, clients) =
                line.trim().split_once(' ').ok_or_else(|| wrong("expected clients".to_owned()))?;
            let clients =
                clients.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
            verdicts.insert(verdict.parse().map_err(wrong)?, clients);
        } else if !line.is_empty() {
            cases.push((title.clone(), Case::parse(line).map_err(wrong)?, BTreeMap::new()));
        }
    }
    Ok(cases)
}

pub fn write(cases: &[Measured]) -> String {
    let mut text = String::new();
    let mut last = "";
    for (title, case, verdicts) in cases {
        if title != last {
            let _ = writeln!(text, "{}# {title}", if text.is_empty() { "" } else { "\n" });
            last = title;
        }
        let _ = writeln!(text, "{case}");
        for (verdict, clients) in verdicts {
            let names: Vec<&str> = clients.iter().map(|client| client.name()).collect();
            let _ = writeln!(text, "  {verdict} {}", names.join(" "));
        }
    }
    text
}
