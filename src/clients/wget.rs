//! GNU wget and the one of busybox.

use super::{Environment, Route, Scheme, Target, Variable, Why, proxy};

/// GNU wget src/retr.c (`getproxy`), src/host.c (`sufmatch`), src/utils.c (`sepstring`), src/url.c
/// (`rewrite_shorthand_url`) 1.21.3; measured with 1.21.3. Without a `wgetrc` that says otherwise.
///
/// The list's names in capitals are not read.
pub fn gnu(environment: &Environment, target: &Target) -> Route {
    let list = environment.get("no_proxy").and_then(Variable::filled);
    let host = target.lower();
    if let Some(list) = list {
        for (index, entry) in list.value.split(',').enumerate() {
            // White space goes after a comma only: neither at the beginning of the list nor before commas.
            let entry = if index == 0 { entry } else { entry.trim_start_matches(SPACE) };
            if ends_with(&host, &entry.to_ascii_lowercase()) {
                let rule = if entry.starts_with('.') {
                    "a name with a leading dot matches the names below it"
                } else {
                    "a name matches itself and the names below it"
                };
                return Route::direct(Why::entry(&list, entry, rule));
            }
        }
    }
    let name = target.scheme().choose("http_proxy", "https_proxy");
    let Some(found) = environment.get(name).and_then(Variable::filled) else {
        return Route::direct(Why::rule(target.scheme().choose(
            "http_proxy is not set (capitals are not read)",
            "https_proxy is not set (capitals are not read)",
        )));
    };
    let usable = match proxy::scheme(found.value).as_deref() {
        Some("http") => true,
        // Only the scheme of the URL itself, besides http.
        Some("https") => target.scheme() == Scheme::Https,
        Some(_) => false,
        None => is_shorthand(found.value),
    };
    if usable && proxy::check_authority(proxy::authority(found.value)) {
        Route::proxied(&found, Why::unmatched(list))
    } else {
        Route::error(Why::variable(&found, "wget takes no such value for a proxy: it must be http"))
    }
}

/// busybox networking/wget.c 1.35.0; measured with 1.35.0: one variable for both schemes, and no list.
pub fn busybox(environment: &Environment, target: &Target) -> Route {
    match environment.get("http_proxy").and_then(Variable::filled) {
        // As Debian builds it, with openssl for https; a build with its own TLS may get there.
        None if target.scheme() == Scheme::Https && target.is_ipv6() && target.port().is_none() => {
            Route::error(Why::rule(
                "it would be direct, but openssl is given the IPv6 address without a port",
            ))
        }
        None => Route::direct(Why::rule("http_proxy, the only variable that it reads, is not set")),
        // Schemes in capitals are none.
        Some(found) => match found.value.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("http" | "https" | "ftp" | "ftps")
                if proxy::check_authority(proxy::authority(found.value)) =>
            {
                Route::proxied(
                    &found,
                    Why::rule("it reads http_proxy for every URL and no list of exceptions"),
                )
            }
            _ => Route::error(Why::variable(&found, "not an http or ftp url")),
        },
    }
}

const SPACE: [char; 6] = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];

fn ends_with(host: &str, entry: &str) -> bool {
    host.strip_suffix(entry)
        .is_some_and(|before| before.is_empty() || before.ends_with('.') || entry.starts_with('.'))
}

/// `host:port` and `host/`: what stands before a colon that no number follows is a host of an FTP server.
fn is_shorthand(value: &str) -> bool {
    match value.find([':', '/']) {
        Some(0) => false,
        Some(at) if value[at..].starts_with(':') => {
            let rest = value[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit());
            rest.len() < value.len() - at - 1 && (rest.is_empty() || rest.starts_with('/'))
        }
        _ => true,
    }
}
