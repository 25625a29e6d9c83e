//! curl in three eras, and with it what else uses libcurl (git, PHP, PycURL, R).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses;
use super::{Environment, Route, Scheme, Target, Variable, Why, proxy};

const SUFFIX: &str = "a name matches itself and the names below it";
const ADDRESS: &str = "the address or network has the address of the URL";
const TEXT: &str = "the text of the address is the same; IPv6 addresses are names to this curl";

/// The first entry that matches, and the rule.
type Match<'a> = Option<(&'a str, &'static str)>;

/// curl lib/proxy.c (`proxy_check_noproxy`) 8.22.0; measured with 8.22.0.
pub fn current(environment: &Environment, target: &Target) -> Route {
    route(environment, target, |list| {
        let mut rest = list;
        loop {
            rest = rest.trim_start_matches(BLANK);
            let token = &rest[..rest.find([' ', '\t', ',']).unwrap_or(rest.len())];
            if let Some(rule) = match_today(token, target) {
                return Some((token, rule));
            }
            // What follows a blank instead of a comma ends the list.
            rest = rest[token.len()..].trim_start_matches(BLANK).strip_prefix(',')?.trim_start_matches(',');
        }
    })
}

/// curl lib/noproxy.c 7.88.1; measured with 7.88.1. (7.86.0 alone did not match names below a bare name.)
pub fn from_7_86(environment: &Environment, target: &Target) -> Route {
    route(environment, target, |list| {
        let host = text_of_host(target);
        list.split([' ', '\t', ',']).find_map(|token| {
            let rule = match target.ip() {
                Some(IpAddr::V4(address)) => in_network_4(token, address, c_atoi).then_some(ADDRESS),
                Some(IpAddr::V6(_)) => below(token, &host).then_some(TEXT),
                None => below(token, host.strip_suffix('.').unwrap_or(&host)).then_some(SUFFIX),
            };
            rule.map(|rule| (token, rule))
        })
    })
}

/// curl lib/url.c (`check_noproxy`) 7.83.1; measured with 7.83.1.
pub fn before_7_86(environment: &Environment, target: &Target) -> Route {
    route(environment, target, |list| {
        let host = text_of_host(target);
        list.split([' ', ',']).filter(|token| !token.is_empty()).find_map(|token| {
            let name = token.strip_prefix('.').unwrap_or(token);
            is_or_ends_below(name, &host).then_some((token, SUFFIX))
        })
    })
}

const BLANK: [char; 2] = [' ', '\t'];

/// lib/url.c, lib/proxy.c: `*` alone, then the list, then the variables. An empty one is as good as none
/// (lib/getenv.c), and `HTTP_PROXY` is never read: a CGI server sets it from a request's header.
fn route<'a>(
    environment: &'a Environment,
    target: &Target,
    matches: impl FnOnce(&'a str) -> Match<'a>,
) -> Route {
    let list = environment.first_filled(&["no_proxy", "NO_PROXY"]);
    if let Some(list) = list {
        if list.value == "*" {
            return Route::direct(Why::entry(&list, "*", "a lone * matches everything"));
        }
        if let Some((entry, rule)) = matches(list.value) {
            return Route::direct(Why::entry(&list, entry, rule));
        }
    }
    let found = match target.scheme() {
        Scheme::Http => environment.first_filled(&["http_proxy", "all_proxy", "ALL_PROXY"]),
        Scheme::Https => environment.first_filled(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
    };
    let Some(found) = found else {
        return Route::direct(Why::rule(target.scheme().choose(
            "neither http_proxy nor all_proxy, ALL_PROXY is set (HTTP_PROXY is not read)",
            "neither https_proxy, HTTPS_PROXY nor all_proxy, ALL_PROXY is set",
        )));
    };
    through(&found, list)
}

fn through(found: &Variable<'_>, list: Option<Variable<'_>>) -> Route {
    match proxy::scheme(found.value).as_deref() {
        None | Some("http" | "https" | "socks" | "socks4" | "socks4a" | "socks5" | "socks5h")
            if proxy::check_authority(proxy::authority(found.value)) =>
        {
            Route::proxied(found, Why::unmatched(list))
        }
        _ => Route::error(Why::variable(found, "curl takes it for no proxy: unsupported syntax or scheme")),
    }
}

fn match_today(token: &str, target: &Target) -> Option<&'static str> {
    if token.is_empty() {
        return None;
    }
    match target.ip() {
        Some(IpAddr::V4(address)) => in_network_4(token, address, strict).then_some(ADDRESS),
        Some(IpAddr::V6(address)) => in_network_6(token, address).then_some(ADDRESS),
        None => {
            let host = target.host();
            below(token, host.strip_suffix('.').unwrap_or(host)).then_some(SUFFIX)
        }
    }
}

/// `match_host`: one dot at either end of an entry does not count.
fn below(token: &str, host: &str) -> bool {
    if token.is_empty() {
        return false;
    }
    let token = token.strip_suffix('.').unwrap_or(token);
    is_or_ends_below(token.strip_prefix('.').unwrap_or(token), host)
}

/// The host as it is compared as a name: lib/urlapi.c (`ipv6_parse`) writes IPv6 addresses anew.
fn text_of_host(target: &Target) -> String {
    match target.ip() {
        Some(IpAddr::V6(address)) => addresses::inet_ntop(address),
        _ => target.lower(),
    }
}

/// Whether a host is the name or ends with a dot and the name, which may be empty.
fn is_or_ends_below(name: &str, host: &str) -> bool {
    let Some(start) = host.len().checked_sub(name.len()) else { return false };
    host.as_bytes()[start..].eq_ignore_ascii_case(name.as_bytes())
        && (start == 0 || host.as_bytes()[start - 1] == b'.')
}

/// `cidr4_match`. No prefix and a prefix of 0 both mean the address itself.
fn in_network_4(token: &str, address: Ipv4Addr, number: impl Fn(&str) -> Option<u32>) -> bool {
    let (network, prefix) = match token.split_once('/') {
        Some((network, prefix)) => (network, number(prefix)),
        None => (token, Some(0)),
    };
    let prefix = prefix.map(|prefix| if prefix == 0 { 32 } else { prefix });
    matches!((network.parse(), prefix), (Ok(network), Some(prefix))
        if addresses::network(IpAddr::V4(network), prefix).is_some_and(|network| network.contains(&IpAddr::V4(address))))
}

/// `cidr6_match`, which knows networks since 8.18.0.
fn in_network_6(token: &str, address: Ipv6Addr) -> bool {
    let (network, prefix) = match token.split_once('/') {
        Some((network, prefix)) => (network, strict(prefix)),
        None => (token, Some(0)),
    };
    let prefix = prefix.map(|prefix| if prefix == 0 { 128 } else { prefix });
    matches!((network.parse(), prefix), (Ok(network), Some(prefix))
        if addresses::network(IpAddr::V6(network), prefix).is_some_and(|network| network.contains(&IpAddr::V6(address))))
}

/// `curlx_str_number`: digits, at least one, and nothing behind them.
fn strict(text: &str) -> Option<u32> {
    (!text.is_empty()).then(|| addresses::decimal(text))?
}

/// `atoi`: the digits that are there; a minus makes it too large.
fn c_atoi(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    match text[..end].parse::<u32>() {
        Ok(number) => (number == 0 || !negative).then_some(number),
        Err(_) => text[..end].is_empty().then_some(0),
    }
}
