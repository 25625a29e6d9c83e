//! What holds for every client, environment and URL.

use reach::clients::{Client, Environment, Target, route};

use super::{cases, check_tapes};

/// What lists are made of, so that the tapes get somewhere.
const PIECES: [&str; 40] = [
    ",",
    ".",
    ":",
    "*",
    "/",
    "[",
    "]",
    "-",
    " ",
    "\t",
    "\n",
    "%",
    "@",
    "#",
    "|",
    "\"",
    "'",
    "\\",
    "0",
    "1",
    "10",
    "255",
    "999999999999",
    "a",
    "B",
    "corp",
    "local",
    "xn--",
    "\u{fc}",
    "\u{130}",
    "\u{feff}",
    "::",
    "fd00",
    "10.96.0.1",
    "/12",
    "http://",
    "socks5://",
    "localhost",
    "-Dhttp.proxyHost=",
    "-Dhttp.nonProxyHosts=",
];

const NAMES: [&str; 12] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "No_Proxy",
    "REQUEST_METHOD",
    "NODE_USE_ENV_PROXY",
    "JAVA_TOOL_OPTIONS",
];

/// Around the part of a password that must not show: people do not encode what has a meaning in a URL.
const AROUND: [&str; 8] = ["", "/", "@", "://", "#", ":", "?", "%2f"];

const HOSTS: [&str; 8] = [
    "a",
    "a.corp.local.",
    "localhost",
    "10.96.0.1",
    "[fd00::1]",
    "[::ffff:10.96.0.1]",
    "xn--a",
    "B.corp:8080",
];

#[test]
fn every_client_has_a_route_for_any_environment_and_url() {
    let check = |tape: &[u16]| {
        let mut tape = tape.iter().map(|number| usize::from(*number));
        let mut next = |limit: usize| tape.next().unwrap_or_default() % limit;
        let url = format!("{}://{}/", ["http", "https"][next(2)], HOSTS[next(HOSTS.len())]);
        let target: Target = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let environment: Environment = (0..=next(8))
            .map(|_| {
                let name = NAMES[next(NAMES.len())];
                let mut userinfo = String::new();
                if next(2) == 1 {
                    let scheme = ["", "http://", "https://", "socks5://"][next(4)];
                    let [before, behind] = [0; 2].map(|_| AROUND[next(AROUND.len())]);
                    userinfo = format!("{scheme}me:{before}s3cret{behind}@");
                }
                let pieces: String = (0..next(12)).map(|_| PIECES[next(PIECES.len())]).collect();
                (name, userinfo + &pieces)
            })
            .collect();
        for client in Client::ALL {
            let route = route(client, &environment, &target);
            // A route that names a variable names one that is there.
            if let Some(variable) = &route.why().variable
                && environment.get(variable).is_none()
            {
                return Err(format!("{client} is led by {variable}, which is not set"));
            }
            if route.why().to_string().is_empty() {
                return Err(format!("{client} does not say why"));
            }
            if format!("{route:?} {}", route.why()).contains("s3cret") {
                return Err(format!("{client} shows a password: {route:?}"));
            }
        }
        // Nor does taking any text apart panic.
        let text: String = (0..next(12)).map(|_| PIECES[next(PIECES.len())]).collect();
        let _ = text.parse::<Target>();
        let _ = format!("http://{text}").parse::<Target>();
        Ok(())
    };
    check_tapes(cases(1), check, |reason, tape| format!("{reason}\n{tape:?}"));
}
