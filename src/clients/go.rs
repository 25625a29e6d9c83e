//! Go's net/http.

use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{decimal, network};
use super::{Environment, Route, Scheme, Target, Variable, Why, proxy};

/// golang.org/x/net http/httpproxy/proxy.go as vendored in Go 1.26.8; measured with net/http of Go 1.26.8.
///
/// (x/net on its own prefers names in lower case since 0.58; programs that use it directly are few.)
pub fn route(environment: &Environment, target: &Target) -> Route {
    let (names, none): (&[&str], _) = target.scheme().choose(
        (&["HTTP_PROXY", "http_proxy"], "neither HTTP_PROXY nor http_proxy is set"),
        (&["HTTPS_PROXY", "https_proxy"], "neither HTTPS_PROXY nor https_proxy is set"),
    );
    let Some(found) = environment.first_filled(names) else { return Route::direct(Why::rule(none)) };
    let proxy = parse_proxy(found.value);
    if proxy == Proxy::Bad {
        return Route::direct(Why::variable(&found, "Go ignores a value that is no URL"));
    }
    if target.scheme() == Scheme::Http
        && environment.get("REQUEST_METHOD").and_then(Variable::filled).is_some()
    {
        return Route::error(Why::variable(
            &found,
            "refused, because REQUEST_METHOD is set, as in a CGI program",
        ));
    }
    if target.host() == "localhost" {
        return Route::direct(Why::rule("localhost is always direct"));
    }
    if target.ip().is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return Route::direct(Why::rule("loopback addresses are always direct"));
    }
    let list = environment.first_filled(&["NO_PROXY", "no_proxy"]);
    if let Some(list) = list
        && let Some((entry, rule)) = matching(list.value, target)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    if proxy == Proxy::Unusable {
        return Route::error(Why::variable(
            &found,
            "expected a proxy URL with http, https, socks5 or socks5h",
        ));
    }
    Route::proxied(&found, Why::unmatched(list))
}

#[derive(PartialEq, Eq)]
enum Proxy {
    Url,
    Unusable,
    Bad,
}

/// `parseProxy`: what is no URL with a host is tried again behind `http://`.
fn parse_proxy(value: &str) -> Proxy {
    let is_url = |authority: &str| proxy::check_authority(authority);
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    match proxy::scheme(value).as_deref() {
        // What is neither http, https nor socks5 is spoken to as http.
        Some(scheme) if is_scheme(scheme) && is_url(proxy::authority(value)) => Proxy::Url,
        None if is_url(proxy::authority(value)) => Proxy::Url,
        // A URL of one scheme and no host, which cannot be connected to.
        None if value.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)) => Proxy::Unusable,
        Some(scheme) if is_scheme(scheme) => Proxy::Unusable,
        _ => Proxy::Bad,
    }
}

/// The entry that lets the target past. `*` ends the list, wherever it stands, and matches all.
fn matching<'a>(list: &'a str, target: &Target) -> Option<(&'a str, &'static str)> {
    let entries = || list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    if entries().any(|entry| entry == "*") {
        return Some(("*", "* matches everything, wherever it stands in the list"));
    }
    let host = target.lower();
    let port = target.effective_port().to_string();
    entries().find_map(|entry| {
        match_one(&entry.to_lowercase(), &host, &port, target.ip()).map(|rule| (entry, rule))
    })
}

fn match_one(entry: &str, host: &str, port: &str, ip: Option<IpAddr>) -> Option<&'static str> {
    if let Some(network) = parse_cidr(entry) {
        return ip
            .is_some_and(|ip| network.contains(&ip.to_canonical()))
            .then_some("the network has the address of the URL");
    }
    let (entry, entry_port) = match split_host_port(entry) {
        Some(("", _)) => return None,
        Some((entry, entry_port)) => (entry, entry_port),
        None => (entry, ""),
    };
    let rule = |without, with| if entry_port.is_empty() { without } else { with };
    if !entry_port.is_empty() && entry_port != port {
        return None;
    }
    if let Ok(address) = entry.parse::<IpAddr>() {
        return ip.is_some_and(|ip| ip.to_canonical() == address.to_canonical()).then_some(rule(
            "the address is that of the URL",
            "the address and the port are those of the URL",
        ));
    }
    if ip.is_some() {
        return None;
    }
    let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
    if entry.starts_with('.') {
        return host.ends_with(entry).then_some(rule(
            "a name with a leading dot or *. matches the names below it",
            "a name with a leading dot or *. matches the names below it on its port",
        ));
    }
    (host == entry || host.strip_suffix(entry).is_some_and(|before| before.ends_with('.'))).then_some(rule(
        "a name matches itself and the names below it",
        "a name matches itself and the names below it on its port",
    ))
}

/// net.ParseCIDR.
fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = (!prefix.is_empty()).then(|| decimal(prefix))??;
    match address.parse().ok()? {
        // Such a network is one of IPv4 addresses when it is compared.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && (96..=128).contains(&prefix) => {
            network(IpAddr::V6(v6).to_canonical(), prefix - 96)
        }
        address => network(address, prefix),
    }
}

/// net.SplitHostPort; `None` for its errors.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (before, port) = text.rsplit_once(':')?;
    let (host, rest) = if let Some(inner) = before.strip_prefix('[') {
        (inner.strip_suffix(']').filter(|inner| !inner.contains(']'))?, "")
    } else {
        (before, before)
    };
    (!rest.contains([':', '[', ']']) && !host.contains(['[', ']']) && !port.contains(['[', ']']))
        .then_some((host, port))
}
