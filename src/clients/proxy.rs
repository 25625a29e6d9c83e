//! What a variable that names a proxy says.

/// The scheme in front of `://`, in lower case.
pub fn scheme(value: &str) -> Option<String> {
    value.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// A proxy's URL as people write it, with or without a scheme, in parts.
///
/// Passwords are often not encoded as they should be. So all that stands in front of the last `@` is taken for user and
/// password: rather too much than a part of a password among the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<'a> {
    /// What stands in front of `://`.
    pub scheme: Option<&'a str>,
    /// User and password.
    pub userinfo: Option<&'a str>,
    /// The host, an IPv6 address in its brackets.
    pub host: &'a str,
    /// What stands behind the host's colon.
    pub port: Option<&'a str>,
    /// Path, query and fragment.
    pub rest: &'a str,
}

impl<'a> Written<'a> {
    /// Takes a value apart; every value has parts.
    #[must_use]
    pub fn read(value: &'a str) -> Self {
        // A password can have `://` in it, but no scheme a colon. References are for the kubelet to replace.
        let is_scheme = |text: &&str| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.$()_".contains(&b)) && !text.is_empty()
        };
        let scheme = value.split_once("://").map(|(scheme, _)| scheme).filter(is_scheme);
        let value = scheme.map_or(value, |scheme| &value[scheme.len() + 3..]);
        let (userinfo, value) = match value.rsplit_once('@') {
            Some((userinfo, value)) => (Some(userinfo), value),
            None => (None, value),
        };
        let (authority, rest) = value.split_at(value.find(['/', '?', '#']).unwrap_or(value.len()));
        let end = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[end..].split_once(':') {
            Some((behind, port)) => (&authority[..end + behind.len()], Some(port)),
            None => (authority, None),
        };
        Self { scheme, userinfo, host, port, rest }
    }
}

/// The value without user and password, which nobody has to see.
#[must_use]
pub fn without_credentials(value: &str) -> String {
    let Written { scheme, userinfo, .. } = Written::read(value);
    let scheme = scheme.map_or(0, |scheme| scheme.len() + 3);
    let userinfo = userinfo.map_or(0, |userinfo| userinfo.len() + 1);
    format!("{}{}", &value[..scheme], &value[scheme + userinfo..])
}

/// The scheme of a value that the URL Standard's parser takes as a whole URL with a host: what `new URL()`
/// does in Node. Hosts are taken as they are.
pub fn whatwg_scheme(value: &str) -> Option<String> {
    let value = value.trim_matches(|c: char| c <= ' ');
    let (scheme, rest) = value.split_once(':')?;
    let mut characters = scheme.chars();
    if !characters.next()?.is_ascii_alphabetic()
        || !characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    if matches!(scheme.as_str(), "http" | "https") {
        let authority = rest.trim_start_matches(['/', '\\']).split(['/', '\\', '?', '#']).next()?;
        check_authority(authority).then_some(scheme)
    } else {
        Some(scheme)
    }
}

/// Whether there is a host and, if any, a port that is one.
pub fn check_authority(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.rfind(']') {
        Some(end) => (&host[..=end], host[end + 1..].strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    !host.is_empty()
        && !host.contains([' ', '<', '>', '^', '|', '%', '\t', '\n', '\r'])
        && port.is_none_or(|port| {
            port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

/// The authority of a value with or without a scheme.
pub fn authority(value: &str) -> &str {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (value, shown) in [
            ("http://me:s3cret@proxy:3128/", "http://proxy:3128/"),
            ("me:s3/cr@et@proxy:3128", "proxy:3128"),
            ("http://me:a@b/c@proxy:1", "http://proxy:1"),
            ("me:pa://ss@proxy:1", "proxy:1"),
            ("$(SCHEME)://me:x@proxy", "$(SCHEME)://proxy"),
            ("proxy:3128", "proxy:3128"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(value), shown, "{value}");
        }
    }

    #[test]
    fn a_url_in_parts() {
        let read = |value| {
            let Written { scheme, userinfo, host, port, rest } = Written::read(value);
            (scheme, userinfo, host, port, rest)
        };
        assert_eq!(read("http://proxy:3128/x?y"), (Some("http"), None, "proxy", Some("3128"), "/x?y"));
        assert_eq!(read("proxy"), (None, None, "proxy", None, ""));
        assert_eq!(read("me:p#1@[fd00::1]:80"), (None, Some("me:p#1"), "[fd00::1]", Some("80"), ""));
        assert_eq!(read("http://[fd00::1]#"), (Some("http"), None, "[fd00::1]", None, "#"));
        assert_eq!(read("me:a://b@proxy:"), (None, Some("me:a://b"), "proxy", Some(""), ""));
        assert_eq!(read("://"), (None, None, "", Some(""), "//"));
    }

    #[test]
    fn what_the_url_standard_takes() {
        assert_eq!(whatwg_scheme("http://proxy:3128").as_deref(), Some("http"));
        assert_eq!(whatwg_scheme("proxy:3128").as_deref(), Some("proxy"));
        for value in ["127.0.0.1:3128", "http://", "http://proxy:port", "http://:80", "proxy", ""] {
            assert_eq!(whatwg_scheme(value), None, "{value}");
        }
    }
}
