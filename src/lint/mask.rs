//! Keeping passwords out of what is printed.

use crate::clients::proxy::Written;
use crate::no_proxy;

/// What stands in the place of a user and a password.
const MASK: &str = "***";

/// Longest text that is shown as a whole, in characters.
const LONGEST: usize = 80;

/// An entry or a value as it may be shown: without user and password, in one line, and not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    let Written { scheme, userinfo, .. } = Written::read(text);
    let start = scheme.map_or(0, |scheme| scheme.len() + 3);
    let rest = &text[start..];
    let masked = match (userinfo, half_a_password(rest)) {
        (Some(userinfo), _) => format!("{}{MASK}{}", &text[..start], &rest[userinfo.len()..]),
        (None, Some(at)) => format!("{}{MASK}", &text[..start + at]),
        (None, None) => text.to_owned(),
    };
    let mut shown: String = masked.chars().take(LONGEST).flat_map(escaped).collect();
    if masked.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A list as it may be shown, with what stands between its entries.
#[must_use]
pub fn list(value: &str) -> String {
    let mut shown = String::new();
    let mut done = 0;
    for entry in no_proxy::entries(value) {
        let start = entry.as_ptr().addr() - value.as_ptr().addr();
        shown.extend(value[done..start].chars().flat_map(escaped));
        shown.push_str(&self::shown(entry));
        done = start + entry.len();
    }
    shown.extend(value[done..].chars().flat_map(escaped));
    shown
}

/// Where one begins: a password with a space or a comma in it is cut there when a list is split, and its `@` is in the
/// next entry.
fn half_a_password(text: &str) -> Option<usize> {
    let is_of_ipv6 = |b: u8| b.is_ascii_hexdigit() || b":./-".contains(&b);
    let is_ipv6 = text.starts_with('[') || (text.matches(':').count() > 1 && text.bytes().all(is_of_ipv6));
    let colon = text.find(':').filter(|colon| !is_ipv6 && !text[..*colon].contains(['/', '?', '#']))?;
    let port = text[colon + 1..].trim_end_matches('/');
    let is_reference = port.starts_with("$(") && port.ends_with(')');
    (!is_reference && !port.bytes().all(|byte| byte.is_ascii_digit())).then_some(colon + 1)
}

/// A control character as a message has it.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escape) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_password_is_shown() {
        for (text, expected) in [
            ("http://me:s3cret@proxy:3128/", "http://***@proxy:3128/"),
            ("http://me:s3c/r@t#@proxy:3128", "http://***@proxy:3128"),
            ("me:s3cret@proxy", "***@proxy"),
            ("me@web", "***@web"),
            ("web.corp.example", "web.corp.example"),
            ("me:s3://cr@t@proxy", "***@proxy"),
            ("+a.b-1://me:s3c@proxy", "+a.b-1://***@proxy"),
            ("http://me:s3c", "http://me:***"),
            ("me:s3c", "me:***"),
            ("me:s3]c:r", "me:***"),
            ("http://me:s3/cr", "http://me:***"),
            ("10.0.0.0/8:80", "10.0.0.0/8:80"),
            ("$(HOST):$(PORT)", "$(HOST):$(PORT)"),
            ("fd00::/129", "fd00::/129"),
            ("fd00::1-fd00::9", "fd00::1-fd00::9"),
            ("http://me:/s3c", "http://me:***"),
            ("http://me:1/s3c", "http://me:***"),
            ("http://web:80/", "http://web:80/"),
            ("http://web/a:b", "http://web/a:b"),
            ("http://[fd00::1]:80", "http://[fd00::1]:80"),
            ("a\tb\u{1b}[31m", "a\\tb\\u{1b}[31m"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(100)), format!("{}…", "x".repeat(80)));
    }

    #[test]
    fn a_list_loses_the_credentials_of_every_entry_and_nothing_else() {
        assert_eq!(
            list(" .corp.example,me:s3c@web\thttp://a:b@c , fd00::1\n"),
            " .corp.example,***@web\\thttp://***@c , fd00::1\\n"
        );
    }
}
