//! Ruby's net/http.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::addresses::{self, decimal};
use super::{Environment, Route, Target, Variable, Why, proxy};

/// Ruby lib/net/http.rb (`proxy_uri`), lib/uri/generic.rb (`find_proxy`, `use_proxy?`), lib/ipaddr.rb 3.1.2;
/// measured with 3.1.2.
///
/// net/http asks for the proxy of an http URL whatever the scheme is. The host is resolved: what is on loopback is
/// direct, and a network matches a name with an address in it.
pub fn route(environment: &Environment, target: &Target) -> Route {
    match find_proxy(environment, target) {
        // Its sockets are of one family (ext/socket/init.c sets IPV6_V6ONLY).
        Route::Direct { .. } if matches!(target.ip(), Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some()) => {
            Route::error(Why::rule(
                "it would be direct, but Ruby does not connect to IPv4 addresses in IPv6 form",
            ))
        }
        route => route,
    }
}

fn find_proxy(environment: &Environment, target: &Target) -> Route {
    let found = match find_variable(environment) {
        Ok(found) => found,
        Err(why) => return Route::direct(why),
    };
    let address = address(target);
    if address.is_some_and(is_loopback) {
        return Route::direct(Why::rule("a host that is or resolves to a loopback address is always direct"));
    }
    // An empty list hides the other one.
    let list = environment.first_set(&["no_proxy", "NO_PROXY"]);
    if let Some(list) = list
        && let Some((entry, rule)) = matching(list.value, target, address)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    if proxy::scheme(found.value).is_some() && proxy::check_authority(proxy::authority(found.value)) {
        Route::proxied(&found, Why::unmatched(list))
    } else {
        Route::error(Why::variable(&found, "expected a proxy URL that begins with http://"))
    }
}

/// The variable that names the proxy. An empty one hides the other one, and a CGI program trusts only the
/// name in lower case.
fn find_variable(environment: &Environment) -> Result<Variable<'_>, Why> {
    let found = if environment.get("REQUEST_METHOD").is_some() {
        environment.get("http_proxy").or_else(|| environment.get("CGI_HTTP_PROXY"))
    } else {
        environment.first_set(&["http_proxy", "HTTP_PROXY"])
    };
    match found {
        Some(found) if found.value.is_empty() => {
            Err(Why::variable(&found, "it is empty, which means no proxy"))
        }
        Some(found) => Ok(found),
        None => {
            Err(Why::rule("neither http_proxy nor HTTP_PROXY is set (net/http reads them for https, too)"))
        }
    }
}

/// What the host resolves to. Of names, only `localhost` is known.
fn address(target: &Target) -> Option<IpAddr> {
    let localhost = || (target.lower() == "localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    target.ip().or_else(|| target.addresses().first().copied()).or_else(localhost)
}

/// `/\A127\.|\A::1\z/`
fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

/// `use_proxy?`: what `/([^:,\s]+)(?::(\d+))?/` finds, so an IPv6 address is several entries.
fn matching<'a>(list: &'a str, target: &Target, address: Option<IpAddr>) -> Option<(&'a str, &'static str)> {
    let dotted = format!(".{}", target.lower());
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches(is_separator);
        if rest.is_empty() {
            return None;
        }
        let start = rest;
        let (name, behind) = rest.split_at(rest.find(is_separator).unwrap_or(rest.len()));
        rest = behind;
        let mut port = None;
        if let Some(digits) = behind.strip_prefix(':') {
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            if end > 0 {
                port = Some(&digits[..end]);
                rest = &digits[end..];
            }
        }
        let entry = &start[..start.len() - rest.len()];
        if port.is_some_and(|port| port.parse() != Ok(target.effective_port())) {
            continue;
        }
        let lower = name.to_lowercase();
        let ends = if lower.starts_with('.') {
            dotted[1..].ends_with(&lower)
        } else {
            dotted.strip_suffix(&*lower).is_some_and(|before| before.ends_with('.'))
        };
        if ends {
            let rule = if lower.starts_with('.') {
                "a name with a leading dot matches the names below it"
            } else {
                "a name matches itself and the names below it; colons separate entries"
            };
            return Some((entry, rule));
        }
        if let (Some(network), Some(address)) = (network(name), address)
            && network.contains(&address)
        {
            return Some((entry, "the network has the address to which the host resolves"));
        }
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ':' | ',' | ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

/// IPAddr.new: an address, a prefix or a mask. Without colons, it can only be IPv4.
fn network(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix = match prefix {
        None => 32,
        Some(prefix) if !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
            if prefix.len() > 1 && prefix.starts_with('0') {
                return None;
            }
            decimal(prefix)?
        }
        Some(mask) => {
            let mask: Ipv4Addr = mask.parse().ok()?;
            let ones = mask.to_bits().leading_ones();
            (mask.to_bits().count_ones() == ones).then_some(ones)?
        }
    };
    addresses::network(address.into(), prefix)
}
