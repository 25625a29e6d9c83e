//! Python's httpx.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::python::proxy_from_environment;
use super::{Environment, Route, Target, Variable, Why, proxy};

/// A key of a client's `mounts`: what `URLPattern` makes of it.
struct Pattern<'a> {
    scheme: &'a str,
    host: String,
    port: Option<u64>,
    entry: &'a str,
}

/// httpx _utils.py (`get_environment_proxies`, `URLPattern`), _client.py, _urlparse.py 0.28.1; measured with
/// 0.28.1 on Python 3.11.7.
///
/// Every entry is made a URL when the client is created, so one that is none makes every request fail.
pub fn route<'a>(environment: &'a Environment, target: &Target) -> Route {
    let list = proxy_from_environment(environment, "no");
    let entries = |list: Variable<'a>| list.value.split(',').map(str::trim);
    if let Some(list) = list
        && entries(list).any(|entry| entry == "*")
    {
        return Route::direct(Why::entry(&list, "*", "* matches everything, wherever it stands in the list"));
    }
    let mut mounts: Vec<(Pattern<'_>, Route)> = Vec::new();
    for (scheme, key) in [("http", "http://"), ("https", "https://"), ("all", "all://")] {
        let Some(found) = proxy_from_environment(environment, scheme) else { continue };
        match proxy::scheme(found.value).as_deref() {
            None | Some("http" | "https") if check_url(proxy::authority(found.value)) => {}
            Some("socks5" | "socks5h") => {
                return Route::error(Why::variable(&found, "a SOCKS proxy needs httpx[socks]"));
            }
            _ => return Route::error(Why::variable(&found, "expected a proxy URL with http or https")),
        }
        mounts.extend(pattern(key).map(|pattern| (pattern, Route::proxied(&found, Why::unmatched(list)))));
    }
    if let Some(list) = list {
        for entry in entries(list).filter(|entry| !entry.is_empty()) {
            let Some(pattern) = pattern(entry) else {
                return Route::error(Why::entry(&list, entry, "httpx makes a URL of it, which is invalid"));
            };
            let route = Route::direct(Why::entry(&list, entry, pattern.rule()));
            // An entry can be the key of a proxy, whose place it takes.
            match mounts.iter_mut().find(|(known, _)| known.entry == entry) {
                Some(mount) => mount.1 = route,
                None => mounts.push((pattern, route)),
            }
        }
    }
    // The most specific first: those with a port, then the longest host, then the longest scheme. Of two that are alike,
    // the proxy stands before the entry.
    mounts.sort_by_key(|(pattern, _)| {
        (
            pattern.port.is_none(),
            std::cmp::Reverse(pattern.host.len()),
            std::cmp::Reverse(pattern.scheme.len()),
        )
    });
    let mounted = mounts.into_iter().find(|(pattern, _)| pattern.matches(target));
    mounted.map_or_else(
        || {
            Route::direct(Why::rule(target.scheme().choose(
                "none of http_proxy, HTTP_PROXY, all_proxy and ALL_PROXY is set",
                "none of https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY is set",
            )))
        },
        |(_, route)| route,
    )
}

/// Whether httpx can be told this entry. One that it cannot makes every request fail, whatever its URL.
#[must_use]
pub fn accepts(entry: &str) -> bool {
    pattern(entry).is_some()
}

/// `get_environment_proxies` for one entry: `all://*entry`, or as it is when it is a URL, an IPv4 address with
/// or without a prefix, or `localhost`. `None` when the URL is invalid.
fn pattern(entry: &str) -> Option<Pattern<'_>> {
    // What Python calls not printable.
    if entry.chars().any(|c| c.is_ascii_control()) {
        return None;
    }
    let (scheme, text) = if entry.contains("://") {
        let (scheme, rest) =
            entry.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", entry));
        let (text, path) = rest.strip_prefix("//").map_or(("", rest), |text| (text, text));
        // Without scheme and host, the path cannot begin like one of them.
        if scheme.is_empty() && (path.starts_with("//") || path.starts_with(':') && text.is_empty()) {
            return None;
        }
        (if scheme.eq_ignore_ascii_case("all") { "" } else { scheme }, text.to_owned())
    } else {
        let address = entry.split('/').next().unwrap_or_default();
        let text = if address.parse::<Ipv4Addr>().is_ok() || entry.eq_ignore_ascii_case("localhost") {
            entry.to_owned()
        } else if is_ipv6(address) {
            format!("[{entry}]")
        } else {
            format!("*{entry}")
        };
        ("", text)
    };
    let authority = text.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = split_authority(authority);
    let host = encode_host(host)?;
    let port = match port {
        "" => None,
        port => Some(integer(port)?),
    };
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Some(Pattern {
        scheme,
        host: if host == "*" { String::new() } else { host },
        port: port.filter(|port| Some(*port) != usual),
        entry,
    })
}

/// `int` of Python, in so far as a port can be one: a number that is none is one that no URL has.
fn integer(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let value = || digits.replace('_', "").parse().ok().filter(|_| !text.starts_with('-'));
    digits.split('_').all(is_number).then(|| value().unwrap_or(u64::MAX))
}

/// `IPv6Address` of Python, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('%'))
}

/// Whether `URL_REGEX` takes it for a scheme, which may be empty.
fn is_scheme(text: &str) -> bool {
    !text.starts_with(|c: char| !c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'))
}

/// The authority's parts as `AUTHORITY_REGEX` finds them.
fn split_authority(authority: &str) -> (&str, &str) {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let end = match authority.strip_prefix('[').and_then(|_| authority.rfind(']')) {
        Some(end) => end + 1,
        None => authority.find([':', '@']).unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    (host, rest.strip_prefix(':').unwrap_or(rest))
}

/// `encode_host`; `None` for what raises.
fn encode_host(host: &str) -> Option<String> {
    let parts: Vec<&str> = host.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 4 && parts.iter().all(is_number) {
        return host.parse::<Ipv4Addr>().is_ok().then(|| host.to_owned());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return is_ipv6(inner).then(|| inner.to_owned());
    }
    // A name outside of ASCII is encoded as IDNA, in which a `*` is invalid.
    (host.is_ascii() || !host.starts_with('*')).then(|| host.to_lowercase())
}

fn check_url(authority: &str) -> bool {
    let (host, port) = split_authority(authority);
    !authority.chars().any(|c| c.is_ascii_control())
        && encode_host(host).is_some_and(|host| !host.is_empty())
        && (port.is_empty() || integer(port).is_some())
}

impl Pattern<'_> {
    fn matches(&self, target: &Target) -> bool {
        (self.scheme.is_empty() || self.scheme.eq_ignore_ascii_case(target.scheme().name()))
            && self.port.is_none_or(|port| target.unusual_port().map(u64::from) == Some(port))
            && self.matches_host(target)
    }

    fn matches_host(&self, target: &Target) -> bool {
        // IPv6 addresses keep the spelling and case of the URL.
        let host = if matches!(target.ip(), Some(IpAddr::V6(_))) {
            target.host().to_owned()
        } else if self.host.starts_with('*') && target.lower().starts_with("xn--") {
            // Decoded if it begins like this; so are entries, but with a * in front they do not.
            target.decoded()
        } else {
            target.lower()
        };
        if let Some(domain) = self.host.strip_prefix("*.") {
            return host.strip_suffix(domain).is_some_and(|before| before.len() > 1 && before.ends_with('.'));
        }
        if let Some(domain) = self.host.strip_prefix('*') {
            return host == domain
                || host.strip_suffix(domain).is_some_and(|before| before.len() > 1 && before.ends_with('.'));
        }
        self.host.is_empty() || host == self.host
    }

    fn rule(&self) -> &'static str {
        if self.entry.contains("://") {
            "a URL matches its host exactly"
        } else if self.host.starts_with("*.") {
            "a name with a leading dot matches the names below it"
        } else if self.host.starts_with('*') {
            "a name matches itself and the names below it"
        } else if self.host.is_empty() {
            "an entry without a host matches every one"
        } else {
            "the text is the same, a prefix behind it does not count"
        }
    }
}
