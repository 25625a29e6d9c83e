//! undici: on its own, and built into Node as fetch.

use super::{Environment, Route, Scheme, Target, Variable, Why, node, proxy};

const SUFFIX: &str = "a name matches itself and the names below it";
const BELOW: &str = "a name with *. matches the names below it";

/// undici lib/dispatcher/env-http-proxy-agent.js 8.12.4; measured with 8.12.4.
pub fn undici_8(environment: &Environment, target: &Target) -> Route {
    route(environment, target, |list| {
        let host = target.whatwg_host();
        let host = if host.len() > 1 { host.strip_suffix('.').unwrap_or(&host) } else { &host };
        let port = u64::from(target.effective_port());
        split(list).find_map(|entry| {
            let (name, entry_port) = host_and_port_8(entry);
            if entry_port != 0 && entry_port != port {
                return None;
            }
            let name = name.strip_prefix("*.").or(name.strip_prefix('.')).unwrap_or(name);
            let name = if name.chars().count() > 1 { name.strip_suffix('.').unwrap_or(name) } else { name };
            let name = name.to_lowercase();
            if name == "*" {
                return Some((entry, "* matches everything, wherever it stands in the list"));
            }
            let is_wildcard = entry.starts_with('*');
            (!is_wildcard && host == name
                || host.strip_suffix(&*name).is_some_and(|before| before.ends_with('.')))
            .then_some((entry, if is_wildcard { BELOW } else { SUFFIX }))
        })
    })
}

/// The fetch of Node, which has undici 7.29.1 built in (lib/dispatcher/env-http-proxy-agent.js); measured with
/// Node 24.21.0.
pub fn node_24(environment: &Environment, target: &Target) -> Route {
    if let Err(why) = node::is_enabled(environment) {
        return Route::direct(why);
    }
    // Without any proxy, Node does not install the agent (lib/internal/process/pre_execution.js).
    if environment.first_filled(&["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]).is_none() {
        return Route::direct(none(target.scheme()));
    }
    route(environment, target, |list| {
        if list == "*" {
            return Some(("*", "a lone * matches everything"));
        }
        let host = match target.ip() {
            // Compared with its brackets.
            Some(std::net::IpAddr::V6(_)) => format!("[{}]", target.whatwg_host()),
            _ => target.whatwg_host(),
        };
        let port = u64::from(target.effective_port());
        split(list).find_map(|entry| {
            let (name, entry_port) = host_and_port(entry);
            if entry_port != 0 && entry_port != port {
                return None;
            }
            let name = name.strip_prefix("*.").or(name.strip_prefix('.')).unwrap_or(name).to_lowercase();
            (host == name || host.strip_suffix(&*name).is_some_and(|before| before.ends_with('.'))).then_some(
                (entry, "a name matches itself and the names below it, a leading dot or *. does not count"),
            )
        })
    })
}

/// `EnvHttpProxyAgent`: a name in lower case hides the other one even when it is empty, https uses the proxy
/// of http when it has none, and both proxies have to be URLs.
fn route<'a>(
    environment: &'a Environment,
    target: &Target,
    matches: impl FnOnce(&'a str) -> Option<(&'a str, &'static str)>,
) -> Route {
    let http = environment.first_set(&["http_proxy", "HTTP_PROXY"]).and_then(Variable::filled);
    let https = environment.first_set(&["https_proxy", "HTTPS_PROXY"]).and_then(Variable::filled);
    if let Err(why) = check(environment) {
        return Route::error(why);
    }
    let found = match target.scheme() {
        Scheme::Http => http,
        Scheme::Https => https.or(http),
    };
    let Some(found) = found else { return Route::direct(none(target.scheme())) };
    let list = environment.first_set(&["no_proxy", "NO_PROXY"]).and_then(Variable::filled);
    if let Some(list) = list
        && let Some((entry, rule)) = matches(list.value)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    Route::proxied(&found, Why::unmatched(list))
}

/// What creating the agent throws for.
pub fn check(environment: &Environment) -> Result<(), Why> {
    for names in [["http_proxy", "HTTP_PROXY"], ["https_proxy", "HTTPS_PROXY"]] {
        if let Some(found) = environment.first_set(&names).and_then(Variable::filled)
            && !is_origin(found.value)
        {
            return Err(Why::variable(&found, "expected a proxy URL that begins with http:// or https://"));
        }
    }
    Ok(())
}

/// A URL without path and query (lib/core/util.js, `parseOrigin`).
fn is_origin(value: &str) -> bool {
    let path = value.split_once("://").map(|(_, rest)| &rest[proxy::authority(value).len()..]);
    matches!(proxy::whatwg_scheme(value).as_deref(), Some("http" | "https" | "socks" | "socks5"))
        && path.is_none_or(|path| path.is_empty() || path == "/")
}

fn none(scheme: Scheme) -> Why {
    Why::rule(scheme.choose(
        "neither http_proxy nor HTTP_PROXY is set to a proxy",
        "no variable of https or http is set to a proxy",
    ))
}

/// `split(/[,\s]/)` without empty parts.
pub fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || is_js_space(c)).filter(|entry| !entry.is_empty())
}

pub fn is_js_space(c: char) -> bool {
    // ECMAScript counts the byte order mark and not U+0085.
    c == '\u{feff}' || c.is_whitespace() && c != '\u{85}'
}

/// `/^(.+):(\d+)$/`, the port 0 when there is none.
pub fn host_and_port(entry: &str) -> (&str, u64) {
    match entry.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (host, port.parse().unwrap_or(u64::MAX))
        }
        _ => (entry, 0),
    }
}

/// The same for undici 8, which knows brackets and leaves bare IPv6 addresses alone.
fn host_and_port_8(entry: &str) -> (&str, u64) {
    let unbracketed = |text: &'_ str| {
        text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).is_some_and(|t| !t.is_empty())
    };
    if let (host, port) = host_and_port(entry)
        && host.len() < entry.len()
        && unbracketed(host)
    {
        return (&host[1..host.len() - 1], port);
    }
    let entry = if unbracketed(entry) { &entry[1..entry.len() - 1] } else { entry };
    if entry.matches(':').count() == 1 { host_and_port(entry) } else { (entry, 0) }
}
