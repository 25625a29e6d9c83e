//! Rust's reqwest.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Environment, Route, Target, Variable, Why, proxy};

/// hyper-util src/client/proxy/matcher.rs 0.1.21; measured with reqwest 0.13.5.
///
/// It reads networks with the crate ipnet 2, and so does this.
pub fn route(environment: &Environment, target: &Target) -> Route {
    if let Some(variable) = environment.get("REQUEST_METHOD") {
        return Route::direct(Why::variable(&variable, "no proxy is used in a CGI program"));
    }
    // A name in capitals hides the other one even when it is empty.
    let list = environment.first_set(&["NO_PROXY", "no_proxy"]).and_then(Variable::filled);
    if let Some(list) = list
        && let Some((entry, rule)) = matching(list.value, target)
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    let names = target.scheme().choose(["HTTP_PROXY", "http_proxy"], ["HTTPS_PROXY", "https_proxy"]);
    let found = environment
        .first_set(&names)
        .filter(is_usable)
        .or_else(|| environment.first_set(&["ALL_PROXY", "all_proxy"]).filter(is_usable));
    match found {
        Some(found) if proxy::scheme(found.value).is_some_and(|scheme| scheme.starts_with("socks")) => {
            Route::error(Why::variable(&found, "a SOCKS proxy needs reqwest's feature socks"))
        }
        Some(found) => Route::proxied(&found, Why::unmatched(list)),
        None => Route::direct(Why::rule(target.scheme().choose(
            "none of HTTP_PROXY, http_proxy, ALL_PROXY and all_proxy is set to a proxy URL",
            "none of HTTPS_PROXY, https_proxy, ALL_PROXY and all_proxy is set to a proxy URL",
        ))),
    }
}

/// `parse_env_uri`: what it cannot read it ignores.
fn is_usable(variable: &Variable<'_>) -> bool {
    let is_scheme = match proxy::scheme(variable.value).as_deref() {
        // A value without a scheme is host and port, and nothing behind them.
        None => !variable.value.contains(['/', '?', '#']),
        Some("http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h") => true,
        Some(_) => false,
    };
    is_scheme && proxy::check_authority(proxy::authority(variable.value))
}

fn matching<'a>(list: &'a str, target: &Target) -> Option<(&'a str, &'static str)> {
    let entries = || list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    if let Some(ip) = target.ip() {
        return entries().find_map(|entry| {
            if let Ok(network) = entry.parse::<IpNet>() {
                return network.contains(&ip).then_some((entry, "the network has the address of the URL"));
            }
            (entry.parse::<IpAddr>() == Ok(ip)).then_some((entry, "the address is that of the URL"))
        });
    }
    let host = target.lower();
    // What is an address or a network is no name.
    let is_name = |entry: &&str| entry.parse::<IpNet>().is_err() && entry.parse::<IpAddr>().is_err();
    entries().filter(is_name).find_map(|entry| {
        let lower = entry.to_ascii_lowercase();
        if host == lower || lower.strip_prefix('.') == Some(host.as_str()) {
            return Some((entry, "the name is the same, a leading dot does not count"));
        }
        if host.strip_suffix(&*lower).is_some_and(|before| lower.starts_with('.') || before.ends_with('.')) {
            return Some((entry, "a name matches the names below it"));
        }
        (entry == "*").then_some((entry, "* matches every name, but no address"))
    })
}
