//! .NET's HttpClient on Linux.

use super::{Environment, Route, Target, Variable, Why};

/// dotnet/runtime src/libraries/System.Net.Http/src/System/Net/Http/SocketsHttpHandler/HttpEnvironmentProxy.cs and
/// HttpEnvironmentProxy.Unix.cs, main of 2024; read, not measured.
pub fn route(environment: &Environment, target: &Target) -> Route {
    let usable = |name: &str| environment.get(name).filter(|variable| is_usable(variable.value));
    let capitals = || environment.get("GATEWAY_INTERFACE").is_none().then(|| usable("HTTP_PROXY")).flatten();
    let found = target
        .scheme()
        .choose(
            usable("http_proxy").or_else(capitals),
            usable("https_proxy").or_else(|| usable("HTTPS_PROXY")),
        )
        .or_else(|| usable("all_proxy"))
        .or_else(|| usable("ALL_PROXY"));
    let Some(found) = found else {
        return Route::direct(Why::rule(target.scheme().choose(
            "none of http_proxy, HTTP_PROXY, all_proxy and ALL_PROXY is set",
            "none of https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY is set",
        )));
    };
    let list = environment.first_set(&["no_proxy", "NO_PROXY"]).and_then(Variable::filled);
    // Uri.Host: an IPv6 address in its brackets.
    let host = if target.is_ipv6() { format!("[{}]", target.whatwg_host()) } else { target.lower() };
    if let Some(list) = list {
        for entry in list.value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let lower = entry.to_lowercase();
            let matches = match lower.strip_prefix('.') {
                Some(name) => host == name || host.ends_with(&lower),
                None => host == lower,
            };
            if matches {
                let rule = if entry.starts_with('.') {
                    "a name with a leading dot matches itself and the names below it"
                } else {
                    "the host is the same"
                };
                return Route::direct(Why::entry(&list, entry, rule));
            }
        }
    }
    Route::proxied(&found, Why::unmatched(list))
}

/// `GetUriFromString`: what has a colon behind the host and no number behind that is none.
fn is_usable(value: &str) -> bool {
    let value = match value.get(..7) {
        Some(start) if start.eq_ignore_ascii_case("http://") => &value[7..],
        _ => value,
    };
    let value = value.rsplit_once('@').map_or(value, |(_, host)| host);
    let colon = value.rfind(':').filter(|colon| value.find(']').is_none_or(|end| end < *colon));
    match colon {
        None => !value.is_empty(),
        Some(colon) => {
            let digits = &value[colon + 1..];
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            colon > 0 && digits[..end].parse::<u16>().is_ok()
        }
    }
}
