//! Rules about one entry of a `no_proxy` list.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets};

use super::list::{Item, List};
use super::probe::{self, names, outcome, url, verb};
use super::rules::Id;
use super::{Finding, Findings, Scope, Severity, mask, unread};
use crate::clients::{Client, Route, Target};
use crate::no_proxy::entry::{Entry, Name, NameForm};
use crate::presets::services::is_top_level;

/// Networks with a prefix up to this length are as good as everything: two halves make a whole.
const WIDEST: u8 = 1;

pub(super) fn check(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>) {
    let scope = findings.subject.scope;
    match &item.entry {
        Entry::Other(why) => unread::check(findings, list, item, *why),
        Entry::Any => any(findings, list, item),
        Entry::Name(name) => self::name(findings, list, item, name),
        Entry::Address(IpAddr::V6(_)) => ipv6_address(findings, list, item, scope),
        Entry::Address(IpAddr::V4(_)) | Entry::Reference => {}
        Entry::Bracketed(address) => {
            let finding = ipv6(list, item, scope, &address.to_string(), &address.to_string());
            findings.add(finding.solved());
        }
        Entry::Network(net) => network(findings, list, item, *net, scope),
        Entry::Range(..) => range(findings, list, item),
        Entry::Port { host, port } => self::port(findings, list, item, host, *port, scope),
        Entry::Wildcard => wildcard(findings, list, item),
    }
}

/// What the value of an entry is about: a URL that it should match.
pub(super) fn target(entry: &Entry) -> Option<(String, Target)> {
    let (host, port) = match entry {
        Entry::Name(Name { text, form: NameForm::Bare, .. }) => (text.to_string(), None),
        Entry::Name(Name { text, .. }) => (format!("www.{text}"), None),
        Entry::Address(address) => (address.to_string(), None),
        Entry::Bracketed(address) => (address.to_string(), None),
        Entry::Network(net) => (inside(*net).to_string(), None),
        Entry::Range(from, _) => (from.to_string(), None),
        Entry::Port { host, port } => {
            let (host, _) = target(host)?;
            (host, Some(*port))
        }
        Entry::Any => ("web.example".to_owned(), None),
        Entry::Wildcard | Entry::Reference | Entry::Other(_) => return None,
    };
    let target = url(&host, port)?;
    Some((port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")), target))
}

/// An address in a network that is not written in it.
fn inside(net: IpNet) -> IpAddr {
    let mut hosts = net.trunc().hosts();
    hosts.by_ref().find(|address| *address != net.addr()).unwrap_or(net.addr())
}

fn any(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>) {
    let Some((_, target)) = target(&item.entry) else { return };
    let is_alone = list.items.len() == 1;
    let outcome = outcome(if is_alone { "*" } else { "x.invalid,*" }, &target);
    let (message, advice) = if is_alone {
        (
            "* switches the proxy off, but not for every client",
            "leave the proxy variables out instead, or set them to nothing",
        )
    } else {
        ("* in a longer list switches the proxy off for some clients", "* alone, or names and networks")
    };
    let finding = Finding::new(Id::W2, list.variable, message, advice)
        .at(list.value, item.range.clone())
        .breaking(outcome.breaks("other hosts"), outcome.others());
    findings.add(finding);
}

fn name(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>, name: &Name) {
    let text = &*name.text;
    if name.form == NameForm::Star {
        let host = format!("www.{text}");
        if let Some(target) = url(&host, None) {
            let outcome = outcome(&format!("*.{text}"), &target);
            let finding = Finding::new(
                Id::W1,
                list.variable,
                format!("*.{text}: few clients know the star"),
                format!(".{text},{text}"),
            )
            .at(list.value, item.range.clone())
            .breaking(outcome.breaks(&host), outcome.others())
            .fixable();
            findings.add(finding);
        }
    }
    // Told once: the pair `.x,x` is one thing, which the portable form has of either.
    if is_top_level(text) && list.is_first(text, item) {
        let finding = Finding::new(
            Id::W8,
            list.variable,
            format!("{} is a whole top-level domain", mask::shown(item.text)),
            format!("the names that you mean, for example .corp.{text}"),
        )
        .at(list.value, item.range.clone())
        .breaking(format!("every host below .{text} is reached past the proxy"), Vec::new());
        findings.add(finding);
    }
    if name.rooted && !list.has_name(text, NameForm::Bare) {
        let host = if name.form == NameForm::Bare { text.to_owned() } else { format!("www.{text}") };
        if let Some(target) = url(&host, None) {
            let outcome = outcome(item.text, &target);
            let finding = Finding::new(
                Id::W6,
                list.variable,
                format!("{} ends with a dot", mask::shown(item.text)),
                format!(".{text},{text}"),
            )
            .at(list.value, item.range.clone())
            .breaking(outcome.breaks(&host), outcome.others())
            .fixable();
            findings.add(finding);
        }
    }
    if item.text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = item.text.to_ascii_lowercase();
        let clients = target(&item.entry)
            .map(|(_, target)| probe::differing(item.text, &lower, &[target]))
            .unwrap_or_default();
        let (severity, breaks) = harm(&clients);
        let finding = Finding::new(
            Id::W6,
            list.variable,
            format!("{} has upper-case letters", mask::shown(item.text)),
            lower,
        )
        .at(list.value, item.range.clone())
        .breaking(breaks, clients)
        .severity(severity)
        .fixable();
        findings.add(finding);
    }
}

/// How bad a spelling is that these clients read differently.
pub(super) fn harm(clients: &[Client]) -> (Severity, String) {
    if clients.is_empty() {
        return (Severity::Info, "no client that reach knows minds; others may".to_owned());
    }
    (Severity::Warning, format!("{} {} it differently", names(clients), verb(clients, "reads", "read")))
}

fn ipv6_address(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>, scope: Scope) {
    let Entry::Address(IpAddr::V6(address)) = item.entry else { return };
    // Ruby splits entries at colons too, and compares what is left with the end of the host.
    let digits = item.text.rsplit(':').next().unwrap_or_default();
    let number = digits.parse::<u8>().ok().filter(|number| number.to_string() == digits);
    let bypassed = number.and_then(|number| {
        let host = format!("192.0.2.{number}");
        let direct = |client| {
            matches!(
                probe::ask(client, &probe::with_list(item.text), &url(&host, None)?),
                Route::Direct { .. }
            )
            .then_some(client)
        };
        let wrong: Vec<Client> = probe::readers().filter_map(direct).collect();
        (!wrong.is_empty()).then_some((wrong, number))
    });
    let host = format!("[{address}]");
    let Some(target) = url(&address.to_string(), None) else { return };
    let outcome = outcome(item.text, &target);
    let mut clients = outcome.others();
    let mut breaks = outcome.breaks(&host);
    if let Some((wrong, number)) = bypassed {
        let goes = verb(&wrong, "goes", "go");
        breaks = format!(
            "{} {goes} past the proxy to every IPv4 address that ends in .{number}; {breaks}",
            names(&wrong)
        );
        clients.extend(wrong.into_iter().filter(|client| !clients.contains(client)).collect::<Vec<_>>());
    }
    // On a host there are fewer clients, and ::1 is its loopback.
    let severity = if scope == Scope::File { Severity::Info } else { Severity::Warning };
    let finding = Finding::new(
        Id::W9,
        list.variable,
        format!("{} is an IPv6 address", item.text),
        "a name for it, as in .corp.example,corp.example, if its clients can use one",
    )
    .at(list.value, item.range.clone())
    .breaking(breaks.trim_end_matches("; "), clients)
    .severity(severity);
    findings.add(finding);
}

/// E5: what httpx fails for.
fn ipv6(list: &List<'_>, item: &Item<'_>, scope: Scope, host: &str, write: &str) -> Finding {
    let outcome = url(host, None).map(|target| outcome(item.text, &target)).unwrap_or_default();
    // IPv6 networks are for hosts, whose programs are mostly Go and curl.
    let severity = if scope == Scope::File { Severity::Warning } else { Severity::Error };
    Finding::new(
        Id::E5,
        list.variable,
        format!("{} breaks httpx, whatever URL it is asked for", mask::shown(item.text)),
        write,
    )
    .at(list.value, item.range.clone())
    .breaking(outcome.breaks(&format!("[{host}]")), outcome.others())
    .severity(severity)
}

fn network(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>, net: IpNet, scope: Scope) {
    let masked = net.trunc();
    if let IpNet::V6(_) = net {
        let mut finding = ipv6(
            list,
            item,
            scope,
            &inside(net).to_string(),
            "names, or the addresses one by one: no IPv6 network works in every client",
        );
        if scope == Scope::Preset && findings.subject.is_rewritten {
            finding.message.push_str(", so reach leaves it out");
        }
        findings.add(finding);
    }
    if net.addr() != masked.addr() {
        let host = inside(net).to_string();
        let outcome = outcome(item.text, &outcome_target(&host));
        let baseline = probe::outcome(&masked.to_string(), &outcome_target(&host));
        // Only what the host bits change: who knows no networks is told by W7.
        let clients: Vec<Client> =
            outcome.others().into_iter().filter(|client| !baseline.others().contains(client)).collect();
        let breaks = if clients.is_empty() {
            format!("clients that know networks read it as {masked}; httpx as the address alone")
        } else {
            format!("{} {} it differently from {masked}", names(&clients), verb(&clients, "reads", "read"))
        };
        let write =
            if net.addr().is_ipv4() { format!("{masked},{}", net.addr()) } else { masked.to_string() };
        let finding = Finding::new(
            Id::W4,
            list.variable,
            format!("{} has bits set behind its prefix", item.text),
            write,
        )
        .at(list.value, item.range.clone())
        .breaking(breaks, clients)
        .fixable();
        findings.add(finding);
    }
    let proxies = list.proxies.iter().filter(|address| masked.contains(*address));
    if net.prefix_len() <= WIDEST {
        let finding = Finding::new(
            Id::W8,
            list.variable,
            format!("{} is every address, or half of them", item.text),
            "your own networks; to switch the proxy off, leave the variables out",
        )
        .at(list.value, item.range.clone())
        .breaking("clients that know networks reach every address past the proxy", Vec::new());
        findings.add(finding);
    } else {
        for address in proxies {
            let finding = Finding::new(
                Id::W8,
                list.variable,
                format!("{} covers {address}, the proxy itself", item.text),
                "a network without the proxy, or the name of the proxy instead of its address",
            )
            .at(list.value, item.range.clone())
            .breaking(
                "the network of the proxy is often the way out, and is now reached past it",
                Vec::new(),
            );
            findings.add(finding);
        }
    }
}

fn outcome_target(host: &str) -> Target {
    // An address is a host in every URL.
    url(host, None).expect("an address makes a URL")
}

fn range(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>) {
    let Entry::Range(from, to) = item.entry else { return };
    let known: Vec<Ipv4Net> = list.items.iter().filter_map(|item| item.entry.network_v4()).collect();
    let known = Ipv4Net::aggregate(&known);
    let missing = Ipv4Subnets::new(from, to, 0).filter(|net| !known.iter().any(|known| known.contains(net)));
    let networks: Vec<String> = missing.map(|net| net.to_string()).collect();
    if networks.is_empty() {
        return;
    }
    let outcome = outcome(item.text, &outcome_target(&from.to_string()));
    let finding = Finding::new(
        Id::W7,
        list.variable,
        format!("{} is a range without its networks", item.text),
        format!("{},{}", networks.join(","), item.text),
    )
    .at(list.value, item.range.clone())
    .breaking(outcome.breaks(&from.to_string()), outcome.others());
    findings.add(finding);
}

fn port(
    findings: &mut Findings<'_>,
    list: &List<'_>,
    item: &Item<'_>,
    host: &Entry,
    port: u16,
    scope: Scope,
) {
    if let Entry::Bracketed(address) = host {
        // The port decides nothing when httpx fails.
        let advice = format!("{address}, if all of its ports are meant");
        findings.add(ipv6(list, item, scope, &address.to_string(), &advice));
        return;
    }
    let Some((shown, target)) = target(&item.entry) else { return };
    let outcome = outcome(item.text, &target);
    let without = item.text.rsplit_once(':').map_or(item.text, |(host, _)| host);
    let advice = if outcome.is_direct() {
        item.text.to_owned()
    } else {
        format!("{without}, if all of its ports may be reached directly")
    };
    let finding = Finding::new(
        Id::W5,
        list.variable,
        format!("{}: few clients look at the port {port} of an entry", mask::shown(item.text)),
        advice,
    )
    .at(list.value, item.range.clone())
    .breaking(outcome.breaks(&shown), outcome.others());
    findings.add(finding);
}

fn wildcard(findings: &mut Findings<'_>, list: &List<'_>, item: &Item<'_>) {
    // The star stands for something: what is short and a label is as good as anything.
    let host = item.text.replace('*', "x").trim_matches('.').to_owned();
    let Some(target) = url(&host, None) else { return };
    let outcome = outcome(item.text, &target);
    let finding = Finding::new(
        Id::W1,
        list.variable,
        format!("{} has a star inside a name", mask::shown(item.text)),
        "the domain that all of these hosts are in, as in .corp.example,corp.example, or each host",
    )
    .at(list.value, item.range.clone())
    .breaking(outcome.breaks(&host), outcome.others());
    findings.add(finding);
}
