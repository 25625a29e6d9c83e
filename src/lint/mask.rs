//! Keeping passwords out of what is printed.

/// What stands in the place of a user and a password.
const MASK: &str = "***";

/// Longest text that is shown as a whole, in characters.
const LONGEST: usize = 80;

/// An entry or a value as it may be shown: without user and password, in one line, and not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    let masked = line(text);
    // Without a scheme a password is not to be told from a path, so all that stands before the host goes.
    let masked = match masked.rfind('@') {
        Some(at) if !masked[..at].ends_with(MASK) => {
            let start = masked.find("://").filter(|start| *start < at).map_or(0, |start| start + 3);
            format!("{}{MASK}{}", &masked[..start], &masked[at..])
        }
        _ => masked,
    };
    let masked = without_half_a_password(masked);
    let mut shown: String = masked.chars().take(LONGEST).flat_map(escaped).collect();
    if masked.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A password with a space or a comma in it is cut there when a list is split, and its `@` is in the next entry.
fn without_half_a_password(text: String) -> String {
    let port = text
        .find("://")
        .filter(|scheme| !text[scheme + 3..].starts_with('['))
        .and_then(|scheme| Some(scheme + 3 + text[scheme + 3..].find(':')? + 1));
    match port {
        Some(at)
            if text[..at].bytes().filter(|byte| *byte == b'/').count() == 2 && !text[at..].contains('@') =>
        {
            let port = text[at..].split(['/', '?', '#']).next().unwrap_or_default();
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            if is_port { text } else { format!("{}{MASK}", &text[..at]) }
        }
        _ => text,
    }
}

/// A control character as a message has it.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escape) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}

/// A line of a file without what may be a user and a password in a URL: everything between the first `://` and the
/// last `@` behind it. That is too much where a line has two URLs, and never too little.
#[must_use]
pub fn line(text: &str) -> String {
    let masked = text.find("://").and_then(|start| {
        let rest = &text[start + 3..];
        let end = rest.rfind('@')?;
        Some(format!("{}{MASK}{}", &text[..start + 3], &rest[end..]))
    });
    masked.unwrap_or_else(|| text.to_owned())
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
            ("http://me:s3c", "http://me:***"),
            ("http://web:80/x", "http://web:80/x"),
            ("http://web/a:b", "http://web/a:b"),
            ("http://[fd00::1]:80", "http://[fd00::1]:80"),
            ("a\tb\u{1b}[31m", "a\\tb\\u{1b}[31m"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(100)), format!("{}…", "x".repeat(80)));
    }

    #[test]
    fn a_line_loses_the_credentials_of_every_url_in_it() {
        assert_eq!(
            line("  value: \"http://me:a b\\\"c@proxy\" # see http://x:y@z"),
            "  value: \"http://***@z"
        );
        assert_eq!(line("  value: http://proxy:3128 # ours"), "  value: http://proxy:3128 # ours");
        assert_eq!(line("mail: me@corp.example"), "mail: me@corp.example");
    }
}
