//! What a variable that names a proxy says.

/// The scheme in front of `://`, in lower case.
pub fn scheme(value: &str) -> Option<String> {
    value.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// The value without user and password, which nobody has to see.
pub fn without_credentials(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or((None, value), |(scheme, rest)| (Some(scheme), rest));
    let end = rest.find('/').unwrap_or(rest.len());
    // A password may have a slash that is not encoded.
    let rest = match rest[..end].rfind('@').or_else(|| rest.rfind('@')) {
        Some(at) => &rest[at + 1..],
        None => rest,
    };
    scheme.map_or_else(|| rest.to_owned(), |scheme| format!("{scheme}://{rest}"))
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
        assert_eq!(without_credentials("http://me:s3cret@proxy:3128/"), "http://proxy:3128/");
        assert_eq!(without_credentials("me:s3/cr@et@proxy:3128"), "proxy:3128");
        assert_eq!(without_credentials("proxy:3128"), "proxy:3128");
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
