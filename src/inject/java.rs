//! `derive: [Java]`: what a JVM is told, since it ignores proxy variables.
//!
//! The system properties `http.proxyHost`, `http.proxyPort`, `https.proxyHost`, `https.proxyPort` and
//! `http.nonProxyHosts`, which both share ("Networking Properties" of the JDK), in `JAVA_TOOL_OPTIONS`, which every JVM
//! reads at its start.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::clients::proxy::Written;
use crate::no_proxy::entries;
use crate::no_proxy::entry::Entry;
use crate::no_proxy::portable::{Author, List, unite};

/// The variable that every JVM reads.
pub const VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// Longest value that every JVM reads, in bytes: HotSpot 8 has a buffer of 1024 for it, and ignores all of a longer one
/// (`parse_options_environment_variable` in `arguments.cpp`). Later ones have no limit.
pub const LONGEST: usize = 1023;

/// Most patterns that one network becomes: what is more would be a list that nobody can read.
const MAX_PATTERNS: usize = 64;

/// The proxy variables that a container ends up with: empty where it has none, `None` where the value is not known.
#[derive(Clone, Copy, Debug)]
pub struct Proxies<'a> {
    /// `http_proxy`
    pub http: Option<&'a str>,
    /// `https_proxy`
    pub https: Option<&'a str>,
    /// `no_proxy`
    pub no: Option<&'a str>,
}

/// The options that say the same as these variables, without those that are `said` already. Empty when there is no proxy, and
/// when nobody knows what goes past it.
#[must_use]
pub fn options(proxies: Proxies<'_>, said: &str) -> String {
    let Some(no_proxy) = proxies.no else { return String::new() };
    let mut options: Vec<String> = Vec::with_capacity(5);
    let is_said = |property: &str| said.contains(&format!("-D{property}="));
    for (scheme, proxy) in [("http", proxies.http), ("https", proxies.https)] {
        let (host, port) = (format!("{scheme}.proxyHost"), format!("{scheme}.proxyPort"));
        // A host and the port of another one would be a third proxy.
        let Some(proxy) = proxy.and_then(address).filter(|_| !is_said(&host) && !is_said(&port)) else {
            continue;
        };
        options.push(format!("-D{host}={}", proxy.host));
        options.push(format!("-D{port}={}", proxy.port));
    }
    if options.is_empty() {
        return String::new();
    }
    if !is_said("http.nonProxyHosts") {
        let (patterns, _) = non_proxy_hosts(no_proxy);
        options.push(format!("-Dhttp.nonProxyHosts={}", patterns.join("|")));
    }
    options.join(" ")
}

/// A `no_proxy` list as patterns of `http.nonProxyHosts`, and the entries that cannot be said in them.
///
/// A pattern may have `*` as its first or last character, and nothing else (`DefaultProxySelector`).
#[must_use]
pub fn non_proxy_hosts(list: &str) -> (Vec<String>, Vec<String>) {
    let portable = unite([&List::parse(list, Author::Pod)].into_iter());
    let (mut patterns, mut unsaid) = (Vec::new(), Vec::new());
    for text in entries(&portable) {
        match Entry::parse(text) {
            Entry::Any => patterns.push("*".to_owned()),
            // The portable form has both: `.x`, what is under the name, and `x`, the name.
            Entry::Name(_) => match text.strip_prefix('.') {
                Some(name) => patterns.push(format!("*.{name}")),
                None => patterns.push(text.to_owned()),
            },
            Entry::Address(std::net::IpAddr::V6(address)) => patterns.push(format!("[{address}]")),
            // Its twin without brackets is there, too.
            Entry::Bracketed(_) => {}
            Entry::Address(_) => patterns.push(text.to_owned()),
            entry => match entry.network_v4().and_then(|net| globs(net.network(), net.prefix_len())) {
                Some(globs) => patterns.extend(globs),
                None => unsaid.push(text.to_owned()),
            },
        }
    }
    (patterns, unsaid)
}

/// A network as patterns that end at an octet: `10.96.0.0/12` is `10.96.*` to `10.111.*`.
fn globs(network: Ipv4Addr, prefix: u8) -> Option<Vec<String>> {
    let octets = usize::from(prefix.div_ceil(8)).max(1);
    let count = 1_usize << (octets * 8 - usize::from(prefix));
    if count > MAX_PATTERNS {
        return None;
    }
    let step = 1_u32 << (32 - octets * 8);
    let first = u32::from(network);
    let glob = |index: usize| {
        let start = Ipv4Addr::from(first + step * u32::try_from(index).unwrap_or_default()).octets();
        let mut text = String::new();
        for octet in &start[..octets] {
            let _ = write!(text, "{octet}.");
        }
        if octets == 4 {
            text.pop();
        } else {
            text.push('*');
        }
        text
    };
    Some((0..count).map(glob).collect())
}

/// Where a proxy is.
struct Address<'a> {
    host: &'a str,
    port: &'a str,
}

/// The host and the port of a proxy's URL, when it is clear which they are. User and password stay behind: everyone who
/// sees a process sees its options.
fn address(url: &str) -> Option<Address<'_>> {
    let Written { scheme, userinfo, host, port, .. } = Written::read(url.trim());
    // Either a password that is not encoded, or a path with an `@` in it.
    if userinfo.is_some_and(|userinfo| userinfo.contains(['/', '?', '#'])) {
        return None;
    }
    let port = match port.filter(|port| !port.is_empty()) {
        None if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) => "443",
        None => "80",
        Some(port) => port,
    };
    // What separates options cannot be part of one, and what a reference stands for can have a password in it.
    let is_host = !host.is_empty() && !host.contains([' ', '\t', '\n', '\r', '"', '\'', '$']);
    (is_host && port.parse::<u16>().is_ok()).then_some(Address { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_becomes_properties_without_its_password() {
        let cases = [
            ("http://proxy:3128", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128"),
            ("http://user:p%40ss@proxy:3128/", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128"),
            ("http://user:a@b@proxy:3128", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128"),
            ("http://user:$(PASSWORD)@proxy", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=80"),
            ("proxy:3128", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128"),
            ("https://proxy", "-Dhttp.proxyHost=proxy -Dhttp.proxyPort=443"),
            ("http://[fd00::1]:8080", "-Dhttp.proxyHost=[fd00::1] -Dhttp.proxyPort=8080"),
            ("http://[fd00::1]", "-Dhttp.proxyHost=[fd00::1] -Dhttp.proxyPort=80"),
        ];
        for (url, expected) in cases {
            let said = options(Proxies { http: Some(url), https: None, no: Some("") }, "");
            assert_eq!(said, format!("{expected} -Dhttp.nonProxyHosts=localhost|127.0.0.1"), "{url}");
        }
        for url in [
            "",
            "http://",
            "http://a b:1",
            "http://me:s3c/r@t@proxy:1",
            "http://me:s3c#ret@proxy:1",
            "$(PROXY_URL)",
            "http://$(PROXY)",
            "http://me:$(REST)",
            "http://proxy:port",
        ] {
            assert_eq!(options(Proxies { http: Some(url), https: None, no: Some("") }, ""), "", "{url}");
        }
    }

    #[test]
    fn what_the_container_says_itself_is_left_to_it() {
        let proxies = Proxies { http: Some("http://a:1"), https: Some("http://b:2"), no: Some("c") };
        assert_eq!(
            options(proxies, "-Xmx1g -Dhttp.proxyHost=own"),
            "-Dhttps.proxyHost=b -Dhttps.proxyPort=2 -Dhttp.nonProxyHosts=*.c|c|localhost|127.0.0.1"
        );
        // A port alone is a part of a proxy, too.
        assert_eq!(options(Proxies { https: None, ..proxies }, "-Dhttp.proxyPort=8080"), "");
        // What goes past the proxy is not known: nothing is sent to it.
        assert_eq!(options(Proxies { no: None, ..proxies }, ""), "");
        let all = options(proxies, "");
        assert_eq!(options(proxies, &all), "");
    }

    #[test]
    fn lists_become_patterns_and_what_cannot_is_told() {
        let (patterns, lost) = non_proxy_hosts(".svc,10.96.0.0/12,10.1.0.0/16,192.168.1.128/26,fd00::1");
        assert_eq!(patterns[..4], ["*.svc", "svc", "localhost", "127.0.0.1"]);
        assert!(patterns.contains(&"[fd00::1]".to_owned()));
        assert!(patterns.contains(&"10.1.*".to_owned()));
        assert!(patterns.contains(&"10.111.*".to_owned()) && !patterns.contains(&"10.112.*".to_owned()));
        assert!(patterns.contains(&"192.168.1.191".to_owned()) && patterns.len() == 5 + 1 + 16 + 64);
        assert_eq!(lost, [""; 0]);
        let (_, lost) = non_proxy_hosts("10.0.0.0/9,web:8080,10.0.0.1-10.0.0.9,0.0.0.0/0");
        assert_eq!(lost, ["0.0.0.0/0", "10.0.0.0/9", "10.0.0.1-10.0.0.9", "web:8080"]);
        assert_eq!(non_proxy_hosts("*").0, ["*"]);
    }
}
