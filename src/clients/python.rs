//! Python: urllib.request, and requests and aiohttp, which use it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{decimal, inet_aton, network};
use super::{Environment, Route, Scheme, Target, Variable, Why, proxy};

const SUFFIX: &str = "a name matches itself and the names below it, its leading dots do not count";
const SUFFIX_PORT: &str = "the name and port match, or the name is above the host";
const ALONE: &str = "a lone * matches everything";

/// CPython Lib/urllib/request.py (`getproxies_environment`) 3.11.7: any variable that ends in `_proxy` in any
/// case, by what stands before it in lower case. A name that ends in lower-case `_proxy` wins, and removes the
/// others when it is empty; `http` in capitals does not count in a CGI program.
pub fn proxy_from_environment<'a>(environment: &'a Environment, key: &str) -> Option<Variable<'a>> {
    let is_key = |name: &str| name.to_lowercase().strip_suffix("_proxy").is_some_and(|start| start == key);
    let mut found =
        environment.iter().filter(|variable| is_key(variable.name) && !variable.value.is_empty()).last();
    if key == "http" && environment.get("REQUEST_METHOD").is_some() {
        found = None;
    }
    match environment
        .iter()
        .filter(|variable| variable.name.ends_with("_proxy") && is_key(variable.name))
        .last()
    {
        Some(lower) => lower.filled(),
        None => found,
    }
}

/// CPython Lib/urllib/request.py (`ProxyHandler`, `proxy_bypass_environment`) 3.11.7; measured with 3.11.7.
pub fn urllib(environment: &Environment, target: &Target) -> Route {
    let Some(found) = proxy_from_environment(environment, target.scheme().name()) else {
        return Route::direct(none(target.scheme()));
    };
    let list = proxy_from_environment(environment, "no");
    let scheme = proxy::scheme(found.value);
    if scheme.is_none() && found.value.split_once(':').is_some_and(|(_, rest)| rest.starts_with('/')) {
        return Route::error(Why::variable(&found, "a proxy URL with no authority"));
    }
    // As the URL has it: with brackets and port.
    let mut host = target.bracketed();
    if let Some(port) = target.port() {
        host = format!("{host}:{port}");
    }
    if let Some(list) = list
        && let Some((entry, rule)) = bypass(list.value, &host)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    if !proxy::check_authority(proxy::authority(found.value)) {
        return Route::error(Why::variable(&found, "no host given, or a port that is no number"));
    }
    match (scheme.as_deref(), target.scheme()) {
        // A tunnel is asked for whatever the scheme says.
        (None | Some("http" | "ftp"), _) | (_, Scheme::Https) => Route::proxied(&found, Why::unmatched(list)),
        // A proxy that speaks TLS is opened as an https URL, for which https_proxy is asked in turn.
        (Some("https"), Scheme::Http) => match proxy_from_environment(environment, "https") {
            Some(second)
                if list.is_none_or(|list| bypass(list.value, proxy::authority(found.value)).is_none()) =>
            {
                Route::proxied(
                    &second,
                    Why::variable(&found, "it is an https URL, so it is reached by the proxy of https"),
                )
            }
            _ => Route::proxied(&found, Why::unmatched(list)),
        },
        (Some(_), Scheme::Http) => {
            Route::error(Why::variable(&found, "unknown url type: expected an http or https proxy"))
        }
    }
}

/// `proxy_bypass_environment`, which gets a host with or without port.
fn bypass<'a>(list: &'a str, host: &str) -> Option<(&'a str, &'static str)> {
    if list == "*" {
        return Some(("*", ALONE));
    }
    let host = host.to_lowercase();
    let bare = split_port(&host);
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).find_map(|entry| {
        let name = entry.trim_start_matches('.').to_lowercase();
        let is = |host: &str| {
            host == name || host.strip_suffix(&*name).is_some_and(|before| before.ends_with('.'))
        };
        if is(bare) { Some((entry, SUFFIX)) } else { is(&host).then_some((entry, SUFFIX_PORT)) }
    })
}

/// `_splitport`, which takes the last group of an IPv6 address without brackets for a port.
fn split_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((before, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => host,
    }
}

fn none(scheme: Scheme) -> Why {
    Why::rule(
        scheme
            .choose("neither http_proxy nor HTTP_PROXY is set", "neither https_proxy nor HTTPS_PROXY is set"),
    )
}

/// requests utils.py (`should_bypass_proxies`, `select_proxy`), adapters.py 2.34.2; measured with 2.34.2 on
/// Python 3.11.7.
pub fn requests(environment: &Environment, target: &Target) -> Route {
    let found = proxy_from_environment(environment, target.scheme().name())
        .or_else(|| proxy_from_environment(environment, "all"));
    let Some(found) = found else {
        return Route::direct(Why::rule(target.scheme().choose(
            "none of http_proxy, HTTP_PROXY, all_proxy and ALL_PROXY is set",
            "none of https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY is set",
        )));
    };
    let host = target.lower();
    let list = environment.first_filled(&["no_proxy", "NO_PROXY"]);
    if let Some(list) = list
        && let Some((entry, rule)) = requests_bypass(list.value, &host, target)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    // urllib is asked too, without the port.
    let urllib_list = proxy_from_environment(environment, "no");
    if let Some(list) = urllib_list
        && let Some((entry, rule)) = bypass(list.value, &host)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    let why = Why::unmatched(list.or(urllib_list));
    match proxy::scheme(found.value).as_deref() {
        None if is_scheme_to_urllib3(found.value) => Route::error(Why::variable(
            &found,
            "what stands before the colon is taken for a scheme: write http://",
        )),
        None | Some("http" | "https") if proxy::check_authority(proxy::authority(found.value)) => {
            Route::proxied(&found, why)
        }
        Some("socks4" | "socks4a" | "socks5" | "socks5h") => {
            Route::error(Why::variable(&found, "a SOCKS proxy needs requests[socks]"))
        }
        _ => Route::error(Why::variable(&found, "expected a proxy URL with http or https")),
    }
}

/// urllib3 util/url.py (`_SCHEME_RE`): a host without a dot in front of a port is a scheme.
fn is_scheme_to_urllib3(value: &str) -> bool {
    value.starts_with('/')
        || value.split_once(':').is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'))
        })
}

fn requests_bypass<'a>(list: &'a str, host: &str, target: &Target) -> Option<(&'a str, &'static str)> {
    // Spaces go, also those inside of an entry.
    let entries =
        list.split(',').map(|entry| (entry.trim(), entry.replace(' ', ""))).filter(|(_, e)| !e.is_empty());
    if let Some(IpAddr::V4(address)) = target.ip() {
        return entries.into_iter().find_map(|(written, entry)| match requests_network(&entry) {
            Some(network) => network
                .contains(&IpAddr::V4(address))
                .then_some((written, "the network has the address of the URL")),
            None => (entry == host).then_some((written, "the text of the address is the same")),
        });
    }
    let with_port = target.port().filter(|port| *port != 0).map(|port| format!("{host}:{port}"));
    entries.into_iter().find_map(|(written, entry)| {
        let name = entry.trim_start_matches('.');
        let is =
            |host: &str| host == name || host.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        if is(host) {
            Some((written, SUFFIX))
        } else {
            with_port.as_deref().is_some_and(is).then_some((written, SUFFIX_PORT))
        }
    })
}

/// `is_valid_cidr`, `address_in_network`: the address as the C library reads it, the prefix 1 to 32 as
/// Python's `int` does.
fn requests_network(entry: &str) -> Option<IpNet> {
    let (address, prefix) = entry.split_once('/')?;
    let prefix = prefix.trim();
    let prefix =
        decimal(prefix.strip_prefix('+').unwrap_or(prefix)).filter(|prefix| (1..=32).contains(prefix))?;
    network(inet_aton(address)?.into(), prefix)
}

/// aiohttp helpers.py (`get_env_proxy_for_url`) 3.14.5; measured with 3.14.5 on Python 3.11.7.
///
/// urllib is asked for the host without port, so no entry with a port matches.
pub fn aiohttp(environment: &Environment, target: &Target) -> Route {
    let list = proxy_from_environment(environment, "no");
    if let Some(list) = list
        && let Some((entry, rule)) = bypass(list.value, &aiohttp_host(target))
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    let Some(found) = proxy_from_environment(environment, target.scheme().name()) else {
        return Route::direct(none(target.scheme()));
    };
    match proxy::scheme(found.value).as_deref() {
        Some("https" | "wss") => {
            Route::direct(Why::variable(&found, "aiohttp ignores proxies that speak TLS"))
        }
        // Spoken to in HTTP, whatever else the scheme says.
        Some(_) if proxy::check_authority(proxy::authority(found.value)) => {
            Route::proxied(&found, Why::unmatched(list))
        }
        _ => Route::error(Why::variable(&found, "expected a proxy URL that begins with http://")),
    }
}

/// yarl's host (_url.py, `host`): in lower case, IPv6 addresses as Python's ipaddress writes them, names decoded unless
/// they end in a digit.
fn aiohttp_host(target: &Target) -> String {
    match target.ip() {
        Some(IpAddr::V6(_)) => target.whatwg_host(),
        _ if target.host().ends_with(|c: char| c.is_ascii_digit()) => target.lower(),
        _ => target.decoded(),
    }
}
