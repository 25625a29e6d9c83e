//! One entry of a `no_proxy` list: what it means.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// What an entry means. Reading one cannot fail: what no client understands is [`Entry::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `*`: everything is reached directly.
    Any,
    /// A name, and in nearly every client the names under it.
    Name(Name),
    /// An IP address, not bracketed.
    Address(IpAddr),
    /// An IPv6 address in brackets.
    Bracketed(Ipv6Addr),
    /// A network in CIDR notation (RFC 4632), perhaps with host bits.
    Network(IpNet),
    /// `10.0.0.1-10.0.0.9`: read by Node's http agent only.
    Range(Ipv4Addr, Ipv4Addr),
    /// A name, an address or a network with a port: the clients disagree on it.
    Port {
        /// What stands before the port.
        host: Box<Entry>,
        /// The port.
        port: u16,
    },
    /// `*` in, before or after a part of a name.
    Wildcard,
    /// `$(NAME)` in it: only the kubelet knows what it will be.
    Reference,
    /// None of these.
    Other(Unread),
}

/// A DNS name as an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In lower case, without dots at its ends.
    pub text: Box<str>,
    /// How it was written.
    pub form: NameForm,
    /// Whether it was written with a dot at its end.
    pub rooted: bool,
}

/// How a name was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameForm {
    /// `corp.example`
    Bare,
    /// `.corp.example`
    Suffix,
    /// `*.corp.example`
    Star,
}

/// Why an entry is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A URL, or something with a path or a user: clients compare with a host.
    Url,
    /// It looks like an IPv4 address or network and is none, such as `10.96.` or `10.0.0.300`.
    BadAddress,
    /// An address and a slash, and what follows is no length of a prefix of it.
    BadPrefix,
    /// Something with colons that is no IPv6 address, and no port.
    BadPort,
    /// A range that goes backwards, or with IPv6 addresses as its ends.
    BadRange,
    /// It has characters that are not ASCII.
    NotAscii,
    /// `;`: no client takes it for a separator.
    Semicolon,
    /// A character that stands in no name.
    BadName,
}

// === impl Entry ===

impl Entry {
    /// Reads an entry as it stands between separators.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.contains("$(") {
            return Self::Reference;
        }
        // First: a password can have anything in it.
        if text.contains('@') {
            return Self::Other(Unread::Url);
        }
        if !text.is_ascii() {
            return Self::Other(Unread::NotAscii);
        }
        if text == "*" {
            return Self::Any;
        }
        if text.contains(';') {
            return Self::Other(Unread::Semicolon);
        }
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse().map_or(Self::Other(Unread::BadPort), Self::Bracketed);
        }
        if let Some((address, prefix)) = text.split_once('/') {
            return Self::network(text, address, prefix);
        }
        if let Some(range) = Self::range(text) {
            return range;
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            return Self::port(host, port);
        }
        Self::name(text)
    }

    fn network(text: &str, address: &str, prefix: &str) -> Self {
        if text.contains("://") {
            return Self::Other(Unread::Url);
        }
        let Ok(address) = address.parse() else {
            let is_numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            let is_address = !address.is_empty() && address.bytes().all(is_numeric);
            return Self::Other(if is_address { Unread::BadAddress } else { Unread::Url });
        };
        // Digits without a leading zero: `IpNet` itself would take more than clients do.
        let net = |prefix: &str| {
            let length = prefix.parse().ok().filter(|length: &u8| length.to_string() == prefix)?;
            IpNet::new(address, length).ok()
        };
        if let Some((prefix, port)) = prefix.split_once(':')
            && let (Some(net), Some(port)) = (net(prefix), number_of_port(port))
        {
            return Self::Port { host: Box::new(Self::Network(net)), port };
        }
        net(prefix).map_or(Self::Other(Unread::BadPrefix), Self::Network)
    }

    fn range(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let (from, to): (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
        Some(match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => Self::Range(from, to),
            _ => Self::Other(Unread::BadRange),
        })
    }

    fn port(host: &str, port: &str) -> Self {
        // Without brackets, a colon in what stands before it is an address that was written wrong.
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !is_bracketed {
            return Self::Other(Unread::BadPort);
        }
        let Some(port) = number_of_port(port) else {
            return Self::Other(Unread::BadPort);
        };
        match Self::parse(host) {
            Self::Other(why) => Self::Other(why),
            host => Self::Port { host: Box::new(host), port },
        }
    }

    fn name(text: &str) -> Self {
        let (rest, form) = if let Some(rest) = text.strip_prefix("*.") {
            (rest, NameForm::Star)
        } else if let Some(rest) = text.strip_prefix('.') {
            (rest, NameForm::Suffix)
        } else {
            (text, NameForm::Bare)
        };
        let (name, rooted) = rest.strip_suffix('.').map_or((rest, false), |name| (name, true));
        if name.contains('*') {
            let is_numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'*');
            return if name.bytes().all(is_numeric) && name.bytes().any(|byte| byte.is_ascii_digit()) {
                Self::Other(Unread::BadAddress)
            } else {
                Self::Wildcard
            };
        }
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Self::Other(Unread::BadAddress);
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Self::Other(Unread::BadName);
        }
        // By itself it would be a range, of which others know more than names.
        if name.starts_with(|first: char| first.is_ascii_digit()) && Self::range(name).is_some() {
            return Self::Other(Unread::BadRange);
        }
        Self::Name(Name { text: name.to_ascii_lowercase().into(), form, rooted })
    }

    /// The IPv4 network that an entry is, with the host bits gone.
    #[must_use]
    pub fn network_v4(&self) -> Option<Ipv4Net> {
        match self {
            Self::Network(IpNet::V4(net)) => Some(net.trunc()),
            _ => None,
        }
    }
}

/// Digits: a number of Rust may have a sign, too.
fn number_of_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "a URL, where a host is expected",
            Self::BadAddress => "no IPv4 address",
            Self::BadPrefix => "no network: the length of the prefix is wrong",
            Self::BadPort => "neither an IPv6 address nor a host with a port",
            Self::BadRange => "no range of IPv4 addresses",
            Self::NotAscii => "not ASCII",
            Self::Semicolon => "has a ';', which separates nothing",
            Self::BadName => "no DNS name",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, form: NameForm, rooted: bool) -> Entry {
        Entry::Name(Name { text: text.into(), form, rooted })
    }

    #[test]
    fn entries_are_what_they_look_like() {
        use Unread::*;
        let cases = [
            ("*", Entry::Any),
            ("corp.example", name("corp.example", NameForm::Bare, false)),
            (".Corp.example", name("corp.example", NameForm::Suffix, false)),
            ("*.corp.example", name("corp.example", NameForm::Star, false)),
            (".svc.cluster.local.", name("svc.cluster.local", NameForm::Suffix, true)),
            ("my_db", name("my_db", NameForm::Bare, false)),
            ("10.0.0.1", Entry::Address("10.0.0.1".parse().unwrap())),
            ("fd00:0:0:0::1", Entry::Address("fd00::1".parse().unwrap())),
            ("[fd00::1]", Entry::Bracketed("fd00::1".parse().unwrap())),
            ("10.10.192.1/18", Entry::Network("10.10.192.1/18".parse().unwrap())),
            ("fd00::/64", Entry::Network("fd00::/64".parse().unwrap())),
            ("10.0.0.1-10.0.0.9", Entry::Range([10, 0, 0, 1].into(), [10, 0, 0, 9].into())),
            ("web:8080", Entry::Port { host: Box::new(name("web", NameForm::Bare, false)), port: 8080 }),
            (
                "[fd00::1]:80",
                Entry::Port { host: Box::new(Entry::Bracketed("fd00::1".parse().unwrap())), port: 80 },
            ),
            (
                "10.0.0.0/8:80",
                Entry::Port { host: Box::new(Entry::Network("10.0.0.0/8".parse().unwrap())), port: 80 },
            ),
            ("*corp.example", Entry::Wildcard),
            ("foo.*.bar", Entry::Wildcard),
            ("$(EXTRA)", Entry::Reference),
            ("http://web", Entry::Other(Url)),
            ("http://web:80", Entry::Other(Url)),
            ("web/path", Entry::Other(Url)),
            ("me@web", Entry::Other(Url)),
            ("me:secret@web", Entry::Other(Url)),
            ("me:s;cr\u{e9}t@web", Entry::Other(Url)),
            ("10.96.", Entry::Other(BadAddress)),
            ("10.96.*", Entry::Other(BadAddress)),
            ("10.0.0.300", Entry::Other(BadAddress)),
            ("010.0.0.1", Entry::Other(BadAddress)),
            ("10.0.0.300/8", Entry::Other(BadAddress)),
            ("010.0.0.1/8", Entry::Other(BadAddress)),
            ("10.0.0.0/08", Entry::Other(BadPrefix)),
            ("10.0.0.0/33", Entry::Other(BadPrefix)),
            ("web:http", Entry::Other(BadPort)),
            ("web:99999", Entry::Other(BadPort)),
            ("web:+80", Entry::Other(BadPort)),
            ("a:b:c", Entry::Other(BadPort)),
            ("10.0.0.9-10.0.0.1", Entry::Other(BadRange)),
            ("fd00::1-fd00::9", Entry::Other(BadRange)),
            (".10.0.0.1-10.0.0.9", Entry::Other(BadRange)),
            ("10.0.0.1-10.0.0.9.", Entry::Other(BadRange)),
            ("bücher.example", Entry::Other(NotAscii)),
            ("a;b", Entry::Other(Semicolon)),
            (".", Entry::Other(BadName)),
            ("..corp", Entry::Other(BadName)),
            ("a%b", Entry::Other(BadName)),
        ];
        for (text, expected) in cases {
            assert_eq!(Entry::parse(text), expected, "{text}");
        }
    }
}
