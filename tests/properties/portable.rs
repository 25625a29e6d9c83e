//! A second reading of "The portable form" in docs/injection.md. Like the oracle it shares no code with the engine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where something stands: its class, then what it is sorted by.
type Sorted = BTreeSet<(u8, u128, String)>;

pub const NAME: u8 = 0;
pub const ADDRESS: u8 = 1;
pub const NETWORK: u8 = 2;
const RANGE: u8 = 3;
const PORT: u8 = 4;
const OTHER: u8 = 5;
pub const ANY: u8 = 6;

/// What presets and a container's own values make.
pub fn portable(presets: &[&str], own: &[&str]) -> String {
    entries(presets, own).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// The same, one by one, each with its class; a name and what is under it are one entry.
pub fn entries(presets: &[&str], own: &[&str]) -> Vec<(u8, String)> {
    let mut sorted =
        Sorted::from([(NAME, 0, "localhost".to_owned()), (ADDRESS, 0x7f00_0001, "127.0.0.1".to_owned())]);
    for (list, is_own) in presets.iter().map(|list| (list, false)).chain(own.iter().map(|list| (list, true)))
    {
        let entries: Vec<&str> =
            list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()).collect();
        if !entries.is_empty() && entries.iter().all(|entry| *entry == "*") {
            return vec![(ANY, "*".to_owned())];
        }
        for entry in entries {
            // What breaks a client is no more than what can be said in another way.
            let breaks = !entry.contains("$(") && breaks(entry);
            let mut becomes = Sorted::new();
            put(entry, &mut becomes);
            becomes.retain(|(class, _, _)| !breaks || *class < PORT);
            sorted.append(&mut becomes);
            if breaks && is_own {
                sorted.insert((OTHER, 0, entry.to_owned()));
            }
        }
    }
    sorted.into_iter().map(|(class, _, text)| (class, text)).collect()
}

/// Whether httpx, which makes the URL `all://*ENTRY` of most entries, raises.
fn breaks(entry: &str) -> bool {
    if entry.chars().any(|c| c.is_ascii_control()) {
        return true;
    }
    let has_scheme = entry.contains("://");
    let before_slash = entry.split('/').next().expect("a first part");
    let text = if has_scheme {
        // A URL as httpx takes it apart. What is not behind a scheme and two slashes is a path.
        let is_scheme = |text: &str| {
            !text.starts_with(|c: char| !c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
        };
        let (scheme, rest) =
            entry.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", entry));
        let after_slashes = rest.strip_prefix("//");
        let path = after_slashes.unwrap_or(rest);
        if scheme.is_empty() && (path.starts_with("//") || (after_slashes.is_none() && path.starts_with(':')))
        {
            return true;
        }
        after_slashes.unwrap_or_default().to_owned()
    } else if v4(before_slash).is_some() {
        return false;
    } else if is_v6(before_slash) {
        format!("[{entry}]")
    } else {
        format!("*{entry}")
    };
    let authority = text.split(['/', '?', '#']).next().expect("a first part");
    let host_and_port = authority.rsplit('@').next().expect("a last part");
    let closing = if host_and_port.starts_with('[') { host_and_port.rfind(']') } else { None };
    let (host, port) = match closing {
        Some(end) => host_and_port.split_at(end + 1),
        None => host_and_port.split_at(host_and_port.find(':').unwrap_or(host_and_port.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let is_four_numbers = host.split('.').count() == 4
        && host.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()));
    (host.starts_with('*') && !host.is_ascii())
        || (closing.is_some() && !is_v6(&host[1..host.len() - 1]))
        || (is_four_numbers && v4(host).is_none())
        || !(port.is_empty() || is_integer(port))
}

/// What Python makes a number of.
fn is_integer(text: &str) -> bool {
    let unsigned = if text.starts_with(['+', '-']) { &text[1..] } else { text };
    unsigned.split('_').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
}

/// A port, in digits.
fn is_port(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// An IPv6 address as Python reads it: a zone has at least one character, and no percent sign.
fn is_v6(text: &str) -> bool {
    match text.split_once('%') {
        None => text.parse::<Ipv6Addr>().is_ok(),
        Some((address, zone)) => {
            address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && !zone.contains('%')
        }
    }
}

/// Puts what an entry becomes.
fn put(entry: &str, sorted: &mut Sorted) {
    let mut add = |class: u8, number: u128, text: String| {
        sorted.insert((class, number, text));
    };
    if entry.contains("$(") || !entry.is_ascii() {
        return add(OTHER, 0, entry.to_owned());
    }
    if entry == "*" {
        return add(ANY, 0, entry.to_owned());
    }
    if entry.contains(';') {
        return add(OTHER, 0, entry.to_owned());
    }
    if let Some(address) = v4(entry) {
        return add(ADDRESS, address.into(), dotted(address));
    }
    let unbracketed = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    if let Ok(address) = unbracketed.parse::<Ipv6Addr>() {
        return add(ADDRESS, address.into(), address.to_string());
    }
    if unbracketed != entry {
        return add(OTHER, 0, entry.to_owned());
    }
    if let Some((host, prefix)) = entry.split_once('/') {
        return slash(entry, host, prefix, add);
    }
    if let Some((from, to)) = entry.split_once('-') {
        let is_address = |text: &str| v4(text).is_some() || text.parse::<Ipv6Addr>().is_ok();
        if let (Some(from), Some(to)) = (v4(from), v4(to))
            && from <= to
        {
            return add(RANGE, u128::from(from) << 32 | u128::from(to), entry.to_owned());
        }
        if is_address(from) && is_address(to) {
            return add(OTHER, 0, entry.to_owned());
        }
    }
    if let Some((host, port)) = entry.rsplit_once(':') {
        return colon(entry, host, port, add);
    }
    let Some((name, end)) = name(entry) else {
        // A star in a name has no case; what is no name at all stays as it is.
        let starred = is_starred(entry) && !entry.contains('@');
        return add(OTHER, 0, if starred { entry.to_ascii_lowercase() } else { entry.to_owned() });
    };
    for end in if end { vec!["", "."] } else { vec![""] } {
        if name != "localhost" {
            add(NAME, 0, format!(".{name}{end},{name}{end}"));
            continue;
        }
        add(NAME, 0, format!("localhost{end}"));
        if entry.starts_with(['.', '*']) {
            add(NAME, 0, format!(".localhost{end}"));
        }
    }
}

/// Something with a slash: a network, or something that clients do not read.
fn slash(entry: &str, host: &str, prefix: &str, mut add: impl FnMut(u8, u128, String)) {
    let length = |text: &str, most: u32| -> Option<u32> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
            && !text.is_empty();
        text.parse().ok().filter(|length| is_number && *length <= most)
    };
    let is_v6 = host.parse::<Ipv6Addr>().is_ok();
    let of_host = if is_v6 { 128 } else { 32 };
    if let Some((prefix, port)) = prefix.split_once(':')
        && is_port(port)
        && (v4(host).is_some() || is_v6)
        && length(prefix, of_host).is_some()
    {
        return add(PORT, 0, entry.to_ascii_lowercase());
    }
    let Some(address) = v4(host).filter(|_| length(prefix, 32).is_some()) else {
        // An IPv6 network cannot be said in another way.
        return add(OTHER, 0, entry.to_owned());
    };
    let length = length(prefix, 32).expect("just seen");
    let masked = if length == 0 { 0 } else { address >> (32 - length) << (32 - length) };
    if masked != address || length == 32 {
        add(ADDRESS, address.into(), dotted(address));
    }
    add(NETWORK, u128::from(masked) << 8 | u128::from(length), format!("{}/{length}", dotted(masked)));
}

/// Something with a colon: a host with a port, or something that clients do not read.
fn colon(entry: &str, host: &str, port: &str, mut add: impl FnMut(u8, u128, String)) {
    let is_bracketed =
        host.starts_with('[') && host.ends_with(']') && host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok();
    let is_range = host.split_once('-').is_some_and(|(from, to)| v4(from).is_some() && v4(from) <= v4(to));
    let is_backwards =
        host.split_once('-').is_some_and(|(from, to)| v4(from).is_some() && v4(to).is_some()) && !is_range;
    let is_host = v4(host).is_some()
        || is_range
        || is_bracketed
        || host == "*"
        || (is_starred(host)
            && !host.contains([':', '@', '/'])
            && !(host.starts_with('[') && host.ends_with(']')))
        || (name(host).is_some() && !is_backwards);
    if is_host && is_port(port) {
        add(PORT, 0, entry.to_ascii_lowercase());
    } else {
        add(OTHER, 0, entry.to_owned());
    }
}

/// A name in lower case, without what stands around it, and whether a dot stands after it.
fn name(entry: &str) -> Option<(String, bool)> {
    let rest = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let (rest, end) = rest.strip_suffix('.').map_or((rest, false), |rest| (rest, true));
    let label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    // What would be two addresses without the dot around it.
    let is_range = rest.split_once('-').is_some_and(|(from, to)| v4(from).is_some() && v4(to).is_some());
    let is_name = rest.len() < 254 && rest.split('.').all(label) && !numeric(rest) && !is_range;
    is_name.then(|| (rest.to_ascii_lowercase(), end))
}

/// Whether there is a star in something that is not about an address.
fn is_starred(entry: &str) -> bool {
    let rest = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    rest.contains('*') && !(numeric(rest) && rest.contains(|c: char| c.is_ascii_digit()))
}

fn v4(text: &str) -> Option<u32> {
    text.parse::<Ipv4Addr>().ok().map(u32::from)
}

fn dotted(address: u32) -> String {
    address.to_be_bytes().map(|byte| byte.to_string()).join(".")
}

fn numeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b".*".contains(&byte))
}
