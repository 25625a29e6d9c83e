//! A second reading of "The portable form" in docs/injection.md. Like the oracle it shares no code with the engine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where something stands: its class, then what it is sorted by.
type Sorted = BTreeSet<(u8, u128, String)>;

const NAME: u8 = 0;
const ADDRESS: u8 = 1;
const NETWORK: u8 = 2;
const RANGE: u8 = 3;
const PORT: u8 = 4;
const OTHER: u8 = 5;
const ANY: u8 = 6;

/// What presets and a container's own values make.
pub fn portable(presets: &[&str], own: &[&str]) -> String {
    let mut sorted =
        Sorted::from([(NAME, 0, "localhost".to_owned()), (ADDRESS, 0x7f00_0001, "127.0.0.1".to_owned())]);
    for (list, is_own) in presets.iter().map(|list| (list, false)).chain(own.iter().map(|list| (list, true)))
    {
        let entries: Vec<&str> =
            list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()).collect();
        if !entries.is_empty() && entries.iter().all(|entry| *entry == "*") {
            return "*".to_owned();
        }
        for entry in entries {
            if !put(entry, &mut sorted) && is_own {
                sorted.insert((OTHER, 0, entry.to_owned()));
            }
        }
    }
    sorted.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>().join(",")
}

/// Puts what an entry becomes; returns whether it may stay.
fn put(entry: &str, sorted: &mut Sorted) -> bool {
    let mut add = |class: u8, number: u128, text: String| {
        sorted.insert((class, number, text));
    };
    if entry.contains("$(") {
        add(OTHER, 0, entry.to_owned());
        return true;
    }
    if entry.bytes().any(|byte| byte >= 0x80) {
        return false;
    }
    if entry == "*" {
        add(ANY, 0, entry.to_owned());
        return true;
    }
    if entry.contains(';') {
        add(OTHER, 0, entry.to_owned());
        return true;
    }
    if let Some(address) = v4(entry) {
        add(ADDRESS, address.into(), dotted(address));
        return true;
    }
    if let Ok(address) = entry.parse::<Ipv6Addr>() {
        add(ADDRESS, address.into(), address.to_string());
        return true;
    }
    if entry.starts_with('[') && entry.ends_with(']') {
        if let Ok(address) = entry[1..entry.len() - 1].parse::<Ipv6Addr>() {
            add(ADDRESS, address.into(), address.to_string());
        }
        return false;
    }
    if let Some((host, prefix)) = entry.split_once('/') {
        return slash(entry, host, prefix, add);
    }
    if let Some((from, to)) = entry.split_once('-') {
        let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
        match (v4(from), v4(to)) {
            (Some(a), Some(b)) if a <= b => {
                add(RANGE, u128::from(a) << 32 | u128::from(b), entry.to_owned());
                return true;
            }
            (Some(_), _) if v4(to).is_some() || is_v6(to) => return false,
            (None, _) if is_v6(from) && (v4(to).is_some() || is_v6(to)) => return false,
            _ => {}
        }
    }
    if let Some((host, port)) = entry.rsplit_once(':') {
        return colon(entry, host, port, add);
    }
    let Some((name, end)) = name(entry) else {
        // A star in a name has no case; what is no name at all stays as it is.
        let starred = is_starred(entry) && !entry.contains('@');
        add(OTHER, 0, if starred { entry.to_ascii_lowercase() } else { entry.to_owned() });
        return true;
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
    true
}

/// Something with a slash: a network, or something that clients do not read.
fn slash(entry: &str, host: &str, prefix: &str, mut add: impl FnMut(u8, u128, String)) -> bool {
    if entry.contains("://") || entry.contains('@') {
        add(OTHER, 0, entry.to_owned());
        return true;
    }
    let length = |text: &str, most: u32| -> Option<u32> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
            && !text.is_empty();
        text.parse().ok().filter(|length| is_number && *length <= most)
    };
    let is_v6 = host.parse::<Ipv6Addr>().is_ok();
    if let Some((prefix, port)) = prefix.split_once(':')
        && port.parse::<u16>().is_ok()
    {
        if v4(host).is_some() && length(prefix, 32).is_some() {
            add(PORT, 0, entry.to_ascii_lowercase());
            return true;
        }
        if is_v6 && length(prefix, 128).is_some() {
            return false;
        }
    }
    if let Some(address) = v4(host) {
        let Some(length) = length(prefix, 32) else {
            return false;
        };
        let masked = if length == 0 { 0 } else { address >> (32 - length) << (32 - length) };
        if masked != address || length == 32 {
            add(ADDRESS, address.into(), dotted(address));
        }
        add(NETWORK, u128::from(masked) << 8 | u128::from(length), format!("{}/{length}", dotted(masked)));
        return true;
    }
    if is_v6 {
        return false;
    }
    add(OTHER, 0, entry.to_owned());
    true
}

/// Something with a colon: a host with a port, or something that makes a client fail.
fn colon(entry: &str, host: &str, port: &str, mut add: impl FnMut(u8, u128, String)) -> bool {
    if host.contains("//") || host.contains('@') {
        add(OTHER, 0, entry.to_owned());
        return true;
    }
    if host.contains(':') || host.starts_with('[') && host.ends_with(']') || port.parse::<u16>().is_err() {
        return false;
    }
    let is_range = host.split_once('-').is_some_and(|(from, to)| v4(from).is_some() && v4(from) <= v4(to));
    if v4(host).is_some() || is_range || host == "*" || is_starred(host) || name(host).is_some() {
        add(PORT, 0, entry.to_ascii_lowercase());
    } else {
        add(OTHER, 0, entry.to_owned());
    }
    true
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
    let is_name = rest.len() < 254 && rest.split('.').all(label) && !numeric(rest);
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
