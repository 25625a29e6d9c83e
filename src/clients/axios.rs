//! axios in Node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::addresses::{self, decimal, network};
use super::undici::{host_and_port, split};
use super::{Environment, Route, Scheme, Target, Variable, Why, node, proxy};

/// axios lib/adapters/http.js, lib/helpers/shouldBypassProxy.js 1.21.1 and proxy-from-env index.js 2; measured
/// with 1.21.1 on Node 24.21.0.
///
/// Two readings of one list, and a match in either is one. A Node that uses the variables itself is left to do so.
pub fn route(environment: &Environment, target: &Target) -> Route {
    if node::is_enabled(environment).is_ok() {
        return node::route(environment, target);
    }
    let list = environment.first_filled(&["no_proxy", "NO_PROXY"]);
    let names: &[&str] = target.scheme().choose(
        &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    );
    let Some(found) = environment.first_filled(names) else {
        return Route::direct(Why::rule(target.scheme().choose(
            "none of http_proxy, HTTP_PROXY, all_proxy and ALL_PROXY is set",
            "none of https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY is set",
        )));
    };
    if let Some(list) = list
        && let Some((entry, rule)) = matching(list, target)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    // A value without a scheme gets that of the URL.
    let is_url = match proxy::scheme(found.value) {
        None => proxy::check_authority(proxy::authority(found.value)),
        // A tunnel is asked for whatever the scheme says.
        Some(_) if target.scheme() == Scheme::Https => proxy::whatwg_scheme(found.value).is_some(),
        Some(_) => matches!(proxy::whatwg_scheme(found.value).as_deref(), Some("http" | "https")),
    };
    if is_url {
        Route::proxied(&found, Why::unmatched(list))
    } else {
        Route::error(Why::variable(&found, "expected a proxy URL with http or https"))
    }
}

fn matching<'a>(list: Variable<'a>, target: &Target) -> Option<(&'a str, &'static str)> {
    if list.value == "*" {
        return Some(("*", "a lone * matches everything"));
    }
    split(list.value).find_map(|entry| {
        let lower = entry.to_lowercase();
        from_env(&lower, target).or_else(|| should_bypass(&lower, target)).map(|rule| (entry, rule))
    })
}

/// proxy-from-env (`shouldProxy`).
fn from_env(entry: &str, target: &Target) -> Option<&'static str> {
    let host = match target.ip() {
        Some(IpAddr::V6(_)) => format!("[{}]", target.whatwg_host()),
        _ => target.whatwg_host(),
    };
    let (name, port) = host_and_port(entry);
    if port != 0 && port != u64::from(target.effective_port()) {
        return None;
    }
    if !name.starts_with(['.', '*']) {
        return (name == host).then_some("the text is the same");
    }
    let suffix = name.strip_prefix('*').unwrap_or(name);
    host.ends_with(suffix)
        .then_some("the host ends with what stands behind the *, or with the dot and the name")
}

/// shouldBypassProxy.js.
fn should_bypass(entry: &str, target: &Target) -> Option<&'static str> {
    if entry == "*" {
        return Some("* matches everything, wherever it stands in the list");
    }
    let host = normal(&target.whatwg_host());
    if entry.contains('/') {
        let network = parse_network(entry)?;
        return host
            .parse()
            .is_ok_and(|address: IpAddr| network.contains(&address))
            .then_some("the network has the address of the URL");
    }
    let (name, port) = parse_entry(entry);
    let name = normal(name);
    if name.is_empty() || port != 0 && port != u64::from(target.effective_port()) {
        return None;
    }
    let name = name.strip_prefix('*').unwrap_or(&name);
    if name.starts_with('.') {
        return host.ends_with(name).then_some("a name with a leading dot or *. matches the names below it");
    }
    if host == name {
        return Some("the host is the same, dots at the end do not count");
    }
    (is_loopback(&host) && is_loopback(name)).then_some("all names and addresses of this machine are alike")
}

/// `parseNoProxyEntry`.
fn parse_entry(entry: &str) -> (&str, u64) {
    let number = |text: &str| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok().or(Some(u64::MAX))
        } else {
            None
        }
    };
    if let Some((host, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(number).unwrap_or(0));
    }
    if entry.matches(':').count() == 1
        && let Some((host, port)) = entry.split_once(':')
        && let Some(port) = number(port)
    {
        return (host, port);
    }
    (entry, 0)
}

/// `normalizeNoProxyHost`: no brackets, no dots at the end, addresses in one spelling.
fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.trim_end_matches('.');
    if host.contains(':') {
        return match host.parse::<Ipv6Addr>() {
            Ok(address) => unmapped(address),
            Err(_) => host.to_owned(),
        };
    }
    short_ipv4(host).map_or_else(|| host.to_owned(), |address| address.to_string())
}

fn unmapped(address: Ipv6Addr) -> String {
    address.to_ipv4_mapped().map_or_else(|| addresses::whatwg(address), |address| address.to_string())
}

/// `normalizeIPAddress`: two to four numbers, decimal, octal or hexadecimal.
fn short_ipv4(host: &str) -> Option<Ipv4Addr> {
    let allowed = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | 'x' | 'X');
    if host.matches('.').count() == 0 || !host.chars().all(allowed) {
        return None;
    }
    addresses::inet_aton(host)
}

/// `parseCidrEntry`.
fn parse_network(entry: &str) -> Option<IpNet> {
    let (base, prefix) = entry.rsplit_once('/')?;
    if prefix.is_empty() || prefix.len() > 3 || prefix.len() > 1 && prefix.starts_with('0') {
        return None;
    }
    let prefix = decimal(prefix)?;
    let bracketed = base.strip_prefix('[').and_then(|base| base.strip_suffix(']'));
    if base.contains(['[', ']']) && bracketed.is_none_or(|base| !base.contains(':')) || base.ends_with('.') {
        return None;
    }
    let base = bracketed.unwrap_or(base);
    if base.contains(':') {
        let address: Ipv6Addr = base.parse().ok()?;
        return match address.to_ipv4_mapped() {
            Some(address) => network(address.into(), prefix.checked_sub(96)?),
            None => network(address.into(), prefix),
        };
    }
    network(short_ipv4(base)?.into(), prefix)
}

/// `isLoopback`.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost",
    }
}
