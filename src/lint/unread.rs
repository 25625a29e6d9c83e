//! Rules about entries that are none: E1, E4, and parts of E2 and W9.

use std::net::IpAddr;

use super::list::{Item, List};
use super::probe::{self, outcome, url};
use super::rules::Id;
use super::{Finding, Findings, mask};
use crate::clients::proxy::Written;
use crate::clients::{Client, httpx};
use crate::no_proxy::entry::Unread;

pub(super) fn check(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>, why: Unread) {
    let shown = mask::shown(item.text);
    let raises = if httpx::accepts(item.text) { "" } else { "httpx fails for every URL; " };
    let nobody = format!("{raises}no client reaches anything directly because of it");
    let clients: Vec<Client> = probe::readers().collect();
    let has_control = item.text.chars().any(char::is_control);
    let (id, message, breaks, advice) = match why {
        _ if has_control => (
            Id::E2,
            format!("{shown} has a control character in it"),
            nobody,
            "separate entries with commas, and nothing else".to_owned(),
        ),
        Unread::Url => {
            let host = host_of(item.text);
            let outcome = url(&host, None).map(|target| outcome(item.text, &target));
            let breaks = outcome.map_or(nobody, |outcome| outcome.breaks(&host));
            let advice = if host.is_empty() {
                "the host only, without scheme, path, user and password".to_owned()
            } else {
                format!("the host only: {host}")
            };
            (Id::E1, format!("{shown} is {why}"), breaks, advice)
        }
        Unread::Semicolon => (
            Id::E2,
            format!("{shown} {why}: it is one entry"),
            nobody,
            format!("commas: {}", shown.split(';').map(str::trim).collect::<Vec<_>>().join(",")),
        ),
        Unread::NotAscii => (
            Id::W9,
            format!("{shown} is {why}"),
            "httpx fails for every URL; other clients compare it with the host in its xn-- form or as it is, each in its own way".to_owned(),
            "a network or an address of those hosts, or a parent domain in ASCII: no spelling works everywhere".to_owned(),
        ),
        Unread::BadAddress | Unread::BadPrefix | Unread::BadRange => {
            let advice = repaired(item.text);
            (Id::E4, format!("{shown} is {why}"), nobody, advice)
        }
        Unread::BadPort => (
            Id::E4,
            format!("{shown} is {why}"),
            nobody,
            "a host, or a host with a number behind the colon; an IPv6 address as it is, without brackets".to_owned(),
        ),
        Unread::BadName => {
            (Id::E4, format!("{shown} is {why}"), nobody, "letters, digits and - between dots, as in .corp.example".to_owned())
        }
    };
    // The models that know better than the rule are believed.
    let clients = if id == Id::E1 { believed(item.text).unwrap_or(clients) } else { clients };
    let finding = Finding::new(id, list.variable, message, advice)
        .at(list.value, item.range.clone())
        .breaking(breaks, clients);
    findings.add(finding.unreadable());
}

fn believed(entry: &str) -> Option<Vec<Client>> {
    let target = url(&host_of(entry), None)?;
    Some(outcome(entry, &target).others())
}

/// The host that somebody meant who wrote a URL.
fn host_of(text: &str) -> String {
    mask::shown(Written::read(text).host.trim_matches(['[', ']']))
}

/// What to write for an address or a network that is none.
fn repaired(text: &str) -> String {
    let digits = text.trim_end_matches(['.', '*']);
    let octets: Vec<&str> = digits.split('.').collect();
    let are_octets = octets.iter().all(|octet| octet.parse::<u8>().is_ok_and(|n| n.to_string() == **octet));
    // `10.96.` and `10.96.*` can mean one network only.
    if are_octets && (1..=3).contains(&octets.len()) && text != digits {
        let mut address = octets.clone();
        address.resize(4, "0");
        return format!("a network: {}/{}", address.join("."), 8 * octets.len());
    }
    match text.split_once('/') {
        Some((address, _)) if address.contains(':') => {
            "the length of an IPv6 prefix: a number from 0 to 128 without a leading zero".to_owned()
        }
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            format!("a length from 0 to 32 without a leading zero, for example {address}/24")
        }
        _ => "an address as four numbers from 0 to 255 without leading zeros, a network as in 10.96.0.0/12"
            .to_owned(),
    }
}
