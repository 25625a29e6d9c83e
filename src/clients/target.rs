//! What a client is asked to reach.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::addresses;

/// Scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// A URL, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    addresses: Vec<IpAddr>,
}

impl Scheme {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// One of two things, by scheme.
    pub(super) fn choose<T>(self, http: T, https: T) -> T {
        match self {
            Self::Http => http,
            Self::Https => https,
        }
    }
}

impl Target {
    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as written, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same target, whose host resolves to these addresses where the client runs. Only Ruby looks.
    #[must_use]
    pub fn resolving_to(mut self, addresses: Vec<IpAddr>) -> Self {
        self.addresses = addresses;
        self
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(super) fn lower(&self) -> String {
        self.host.to_ascii_lowercase()
    }

    /// The host in lower case for those who decode it before they compare: a label in `xn--` form is then one with
    /// letters that no entry in ASCII has. Which ones does not matter.
    pub(super) fn decoded(&self) -> String {
        let lower = self.lower();
        let labels = lower.split('.').map(|label| if label.starts_with("xn--") { "\u{fffd}" } else { label });
        labels.collect::<Vec<_>>().join(".")
    }

    /// The port that the URL says.
    pub(super) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port that the URL says, unless it is the one of its scheme.
    pub(super) fn unusual_port(&self) -> Option<u16> {
        self.port.filter(|port| *port != self.scheme.default_port())
    }

    pub(super) fn effective_port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// The address that the host is.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }

    /// The host as a URL has it, in brackets if it is an IPv6 address.
    pub(super) fn bracketed(&self) -> String {
        if self.is_ipv6() { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The host as the URL Standard writes it (section 3.5, host serializing), without brackets: in lower
    /// case, IPv6 addresses compressed and never with a dotted part.
    pub(super) fn whatwg_host(&self) -> String {
        match self.ip() {
            Some(IpAddr::V6(address)) => addresses::whatwg(address),
            _ => self.lower(),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Messages complete "URL: ".
    fn from_str(url: &str) -> Result<Self, String> {
        let example = "write it as http://web.corp.example:8080/";
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| format!("is no URL, it has no scheme: {example}"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err("expected http:// or https://, the schemes with a proxy".to_owned()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) =
                    rest.split_once(']').ok_or_else(|| "expected ] behind the IPv6 address".to_owned())?;
                host.parse::<Ipv6Addr>().map_err(|_| {
                    "expected an IPv6 address between the brackets, as in [fd00::1]".to_owned()
                })?;
                match rest {
                    "" => (host, ""),
                    _ => (host, rest.strip_prefix(':').ok_or("expected : and a port behind the brackets")?),
                }
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        if host.is_empty() {
            return Err(format!("has no host: {example}"));
        }
        if port.contains(':') {
            return Err("expected an IPv6 address in brackets, as in http://[fd00::1]/".to_owned());
        }
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| "expected a port up to 65535".to_owned())?)
            }
            _ => return Err("expected a number as port, or none".to_owned()),
        };
        check_name(host)?;
        Ok(Self { scheme, host: host.to_owned(), port, addresses: Vec::new() })
    }
}

/// Refuses hosts that clients do not read alike before they come to think of proxies.
fn check_name(host: &str) -> Result<(), String> {
    if !host.is_ascii() {
        return Err("expected an ASCII host: write an international name in its xn-- form".to_owned());
    }
    if let Some(wrong) =
        host.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | ':'))
    {
        return Err(format!("expected letters, digits, dots, - and _ in the host, not {wrong:?}"));
    }
    if host.starts_with('.') || host.contains("..") {
        return Err("expected a host without empty parts between its dots".to_owned());
    }
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").or(last.strip_prefix("0X")).map_or_else(
        || !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
        |hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
    );
    if digits && !host.contains(':') && host.parse::<IpAddr>().is_err() {
        return Err("expected an IPv4 address as four decimal numbers, as in 10.96.0.1".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target: Target = "HTTPS://user:word@[FD00::1]:8443/x?y#z".parse().unwrap();
        assert_eq!((target.scheme(), target.host(), target.port()), (Scheme::Https, "FD00::1", Some(8443)));
        assert_eq!((target.whatwg_host().as_str(), target.bracketed().as_str()), ("fd00::1", "[FD00::1]"));
        let target: Target = "http://Web.corp.example.".parse().unwrap();
        assert_eq!((target.host(), target.effective_port()), ("Web.corp.example.", 80));
        let mapped: Target = "http://[::ffff:10.0.0.1]:80/".parse().unwrap();
        assert_eq!((mapped.whatwg_host().as_str(), mapped.unusual_port()), ("::ffff:a00:1", None));
    }

    #[test]
    fn what_is_no_url_of_a_host_is_refused_with_what_is_right() {
        for (url, expected) in [
            ("web.corp.example", "write it as http://"),
            ("ftp://web", "http:// or https://"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http:///path", "no host"),
            ("http://user@/", "no host"),
            ("http://web:http/", "a number as port"),
            ("http://web:65536/", "65535"),
            ("http://fd00::1/", "in brackets"),
            ("http://[fd00::1", "]"),
            ("http://[web]/", "IPv6 address between"),
            ("http://[fd00::1]80/", "behind the brackets"),
            ("http://b\u{fc}cher.example/", "xn--"),
            ("http://a b/", "not ' '"),
            ("http://10.96.1/", "four decimal numbers"),
            ("http://0x7f.1/", "four decimal numbers"),
            ("http://a..b/", "empty parts"),
        ] {
            let error = url.parse::<Target>().expect_err(url);
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
