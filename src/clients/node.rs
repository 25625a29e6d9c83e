//! Node's own http and https modules.

use std::net::{IpAddr, Ipv4Addr};

use super::{Environment, Route, Target, Variable, Why, proxy, undici};

/// Node lib/internal/http.js (`ProxyConfig`) 24.21.0; measured with 24.21.0.
pub fn route(environment: &Environment, target: &Target) -> Route {
    if let Err(why) = is_enabled(environment) {
        return Route::direct(why);
    }
    // fetch is set up with the process, so what is wrong for it ends the process.
    if environment.first_filled(&["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]).is_some()
        && let Err(why) = undici::check(environment)
    {
        return Route::error(why);
    }
    agent(environment, target)
}

/// What http.Agent does with `proxyEnv`.
fn agent(environment: &Environment, target: &Target) -> Route {
    let (names, none): (&[&str], _) = target.scheme().choose(
        (&["http_proxy", "HTTP_PROXY"], "neither http_proxy nor HTTP_PROXY is set"),
        (&["https_proxy", "HTTPS_PROXY"], "neither https_proxy nor HTTPS_PROXY is set"),
    );
    let Some(found) = environment.first_filled(names) else { return Route::direct(Why::rule(none)) };
    if !found.value.starts_with("http://") && !found.value.starts_with("https://") {
        return Route::direct(Why::variable(
            &found,
            "Node ignores what does not begin with http:// or https://",
        ));
    }
    if found.value.contains(['\r', '\n']) || proxy::whatwg_scheme(found.value).is_none() {
        return Route::error(Why::variable(&found, "expected a proxy URL"));
    }
    let list = environment.first_filled(&["no_proxy", "NO_PROXY"]);
    if let Some(list) = list
        && let Some((entry, rule)) = list
            .value
            .split(',')
            .map(|entry| entry.trim_matches(undici::is_js_space))
            .find_map(|entry| match_one(&entry.to_lowercase(), target).map(|rule| (entry, rule)))
    {
        return Route::direct(Why::entry(&list, entry, rule));
    }
    Route::proxied(&found, Why::unmatched(list))
}

/// Node reads the variables only when it is told to, by `NODE_USE_ENV_PROXY=1` or `--use-env-proxy`, here in
/// `NODE_OPTIONS` (src/node.cc, lib/internal/process/pre_execution.js).
pub fn is_enabled(environment: &Environment) -> Result<(), Why> {
    let by_variable = environment.get("NODE_USE_ENV_PROXY").is_some_and(|variable| variable.value == "1");
    let by_option = environment.get("NODE_OPTIONS").is_some_and(|variable: Variable<'_>| {
        variable.value.split(' ').any(|option| option == "--use-env-proxy")
    });
    if by_variable || by_option {
        Ok(())
    } else {
        Err(Why::rule("Node reads no proxy variables unless NODE_USE_ENV_PROXY is 1"))
    }
}

/// `shouldUseProxy`.
fn match_one(entry: &str, target: &Target) -> Option<&'static str> {
    let host = target.whatwg_host();
    if entry == "*" {
        return Some("* matches everything, wherever it stands in the list");
    }
    if entry == host {
        return Some("the text is the same");
    }
    if entry.strip_prefix(&*host).and_then(|rest| rest.strip_prefix(':'))
        == Some(target.effective_port().to_string().as_str())
    {
        return Some("the host and the port are those of the URL");
    }
    if let Some(suffix) = entry.strip_prefix('.')
        && (host == suffix || host.strip_suffix(suffix).is_some_and(|before| before.ends_with('.')))
    {
        return Some("a name with a leading dot matches itself and the names below it");
    }
    if let Some(suffix) = entry.strip_prefix('*')
        && suffix.starts_with('.')
        && host.ends_with(suffix)
    {
        return Some("a name with *. matches the names below it");
    }
    let mut ends = entry.split('-').map(|end| end.trim_matches(undici::is_js_space).parse::<Ipv4Addr>());
    if let (Some(IpAddr::V4(address)), Some(Ok(first)), Some(Ok(last))) =
        (target.ip(), ends.next(), ends.next())
        && (first..=last).contains(&address)
    {
        return Some("the range has the address of the URL");
    }
    None
}
