//! Rules about a `no_proxy` value as a whole.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::entries::{self, harm};
use super::probe::{self, outcome, url};
use super::rules::Id;
use super::{Facts, Finding, Findings, Scope, Severity, mask};
use crate::clients::{Client, Target};
use crate::inject::preset::ProxyVariable;
use crate::no_proxy;
use crate::no_proxy::entry::{Entry, Name, NameForm};
use crate::no_proxy::portable::{self, Author};

/// Bytes of a line of `/etc/environment` that older versions of PAM read; what is longer is an error there.
const PAM_LINE: usize = 1024;
/// Bytes of one string of an environment that Linux takes (`MAX_ARG_STRLEN`), its final zero included.
const LINUX_STRING: usize = 128 * 1024;
/// Bytes of user data that VMware's guestinfo takes, in base64.
const GUESTINFO: usize = 64 * 1024;

/// A list, read once.
pub(super) struct List<'v> {
    /// The variable, by its place in the subject.
    pub variable: usize,
    /// As written.
    pub value: &'v str,
    /// The entries, in order.
    pub items: Vec<Item<'v>>,
    /// Addresses of the proxies of the same subject that are named by address.
    pub proxies: Vec<IpAddr>,
    names: HashSet<(Box<str>, bool)>,
    /// Where each name without a dot in it is first, in any of its forms.
    single: HashMap<Box<str>, usize>,
}

/// An entry in its place.
pub(super) struct Item<'v> {
    pub text: &'v str,
    pub range: Range<usize>,
    pub entry: Entry,
}

/// The value in its portable form, with everything that is in it: what `--fix` writes.
#[must_use]
pub fn portable(values: &[&str]) -> String {
    // As of a pod, from which nothing is taken away.
    let lists: Vec<portable::List> =
        values.iter().map(|value| portable::List::parse(value, Author::Pod)).collect();
    portable::unite(lists.iter())
}

pub(super) fn check(findings: &mut Findings<'_>, variable: usize, value: &str, facts: &Facts) {
    let list = List::new(findings, variable, value);
    separators(findings, &list);
    for item in &list.items {
        entries::check(findings, &list, item);
    }
    pairs(findings, &list);
    duplicates(findings, &list);
    subsumed(findings, &list);
    endpoints(findings, &list, facts);
    suffixes_of_requests(findings, &list);
    length(findings, &list);
}

impl<'v> List<'v> {
    fn new(findings: &Findings<'_>, variable: usize, value: &'v str) -> Self {
        let items: Vec<Item<'v>> = no_proxy::entries(value)
            .map(|text| {
                let start = text.as_ptr().addr() - value.as_ptr().addr();
                Item { text, range: start..start + text.len(), entry: Entry::parse(text) }
            })
            .collect();
        let names = items
            .iter()
            .filter_map(|item| match &item.entry {
                Entry::Name(name) if !name.rooted && name.form != NameForm::Star => {
                    Some((name.text.clone(), name.form == NameForm::Suffix))
                }
                _ => None,
            })
            .collect();
        let mut single = HashMap::new();
        for item in &items {
            if let Entry::Name(Name { text, .. }) = &item.entry
                && !text.contains('.')
            {
                single.entry(text.clone()).or_insert(item.range.start);
            }
        }
        let proxies = [ProxyVariable::Http, ProxyVariable::Https, ProxyVariable::All]
            .into_iter()
            .flat_map(|proxy| findings.subject.spellings(proxy))
            .filter_map(|(_, variable)| super::urls::host(variable.value.as_deref()?)?.parse().ok())
            .collect::<HashSet<IpAddr>>();
        let mut proxies: Vec<IpAddr> = proxies.into_iter().collect();
        proxies.sort_unstable();
        Self { variable, value, items, proxies, names, single }
    }

    /// Whether a name is there in one of its forms, without a dot at its end.
    pub fn has_name(&self, name: &str, form: NameForm) -> bool {
        self.names.contains(&(name.into(), form == NameForm::Suffix))
    }

    /// Whether a name without a dot in it is there for the first time.
    pub fn is_first(&self, name: &str, item: &Item<'_>) -> bool {
        self.single.get(name) == Some(&item.range.start)
    }

    /// The networks.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.items.iter().filter_map(|item| match item.entry {
            Entry::Network(net) => Some(net.trunc()),
            _ => None,
        })
    }

    /// What stands before the entry: separators and white space.
    fn gap(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.items[before].range.end);
        let end = self.items.get(index).map_or(self.value.len(), |item| item.range.start);
        start..end
    }
}

/// E2 and W6: what stands between entries. One finding of each sort says how many there are.
fn separators(findings: &mut Findings<'_>, list: &List<'_>) {
    let mut missing = Vec::new();
    let mut breaks = Vec::new();
    let mut spaces = Vec::new();
    for index in 0..=list.items.len() {
        let gap = list.gap(index);
        let text = &list.value[gap.clone()];
        if !text.contains(char::is_whitespace) || list.items.is_empty() {
            continue;
        }
        let is_between = index > 0 && index < list.items.len();
        if text.contains(|c: char| c.is_control()) {
            breaks.push(index);
        } else if is_between && !text.contains(',') {
            missing.push(index);
        } else {
            spaces.push(index);
        }
    }
    for (id, gaps, what, is_mild) in [
        (Id::E2, &missing, "white space instead of a comma", false),
        (Id::E2, &breaks, "a line break or a tab between entries", false),
        (Id::W6, &spaces, "white space beside a comma or at an end", true),
    ] {
        let Some(first) = gaps.first() else { continue };
        // The worst of a few is as good as all.
        let clients =
            gaps.iter().take(8).map(|gap| misread(list, *gap)).max_by_key(Vec::len).unwrap_or_default();
        let (harm, breaks) = harm(&clients);
        let times = if gaps.len() == 1 { String::new() } else { format!(", {} times", gaps.len()) };
        let mut finding = Finding::new(
            id,
            list.variable,
            format!("{what}{times}"),
            "one comma between entries, and nothing else",
        )
        .at(list.value, list.gap(*first))
        .breaking(breaks, clients)
        .fixable();
        if is_mild {
            finding.severity = harm;
        }
        // White space shows nothing.
        finding.entry = None;
        findings.add(finding);
    }
}

/// The clients that read two names with what stands there between them differently from two with a comma.
fn misread(list: &List<'_>, index: usize) -> Vec<Client> {
    let before = if index > 0 { "a.example" } else { "" };
    let after = if index < list.items.len() { "b.example" } else { "" };
    let clean = [before, after].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
    let targets: Vec<Target> = clean.iter().filter_map(|name| url(name, None)).collect();
    let written = format!("{before}{}{after}", &list.value[list.gap(index)]);
    probe::differing(&written, &clean.join(","), &targets)
}

/// W3: a name in one of its two forms only.
fn pairs(findings: &mut Findings<'_>, list: &List<'_>) {
    let mut seen = HashSet::new();
    for item in &list.items {
        let Entry::Name(Name { text, form, rooted: false }) = &item.entry else { continue };
        let is_suffix = *form == NameForm::Suffix;
        // Nothing is below the short name of a Service, and W1 has told about stars.
        let is_exempt =
            *form == NameForm::Star || (!is_suffix && !text.contains('.')) || **text == *"localhost";
        let twin = if is_suffix { NameForm::Bare } else { NameForm::Suffix };
        if is_exempt || list.has_name(text, twin) || !seen.insert((text.clone(), is_suffix)) {
            continue;
        }
        let host = if is_suffix { text.to_string() } else { format!("www.{text}") };
        let Some(target) = url(&host, None) else { continue };
        let outcome = outcome(item.text, &target);
        if outcome.is_direct() {
            continue;
        }
        let (message, severity) = if is_suffix {
            (format!(".{text} without {text}: the name itself is missing"), Severity::Warning)
        } else {
            // Often it is one host, with nothing below it.
            (format!("{text} without .{text}: some clients take it for one host"), Severity::Info)
        };
        let finding = Finding::new(Id::W3, list.variable, message, format!(".{text},{text}"))
            .at(list.value, item.range.clone())
            .breaking(outcome.breaks(&host), outcome.others())
            .severity(severity)
            .fixable();
        findings.add(finding);
    }
}

/// I1: an entry that is there already.
fn duplicates(findings: &mut Findings<'_>, list: &List<'_>) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for item in &list.items {
        let key = match &item.entry {
            Entry::Reference | Entry::Other(_) => item.text.to_owned(),
            Entry::Wildcard | Entry::Port { .. } => item.text.to_ascii_lowercase(),
            entry => format!("{entry:?}"),
        };
        if let Some(first) = seen.get(&key) {
            let message = if *first == item.text {
                format!("{} is there already", mask::shown(item.text))
            } else {
                format!("{} is there already, as {}", mask::shown(item.text), mask::shown(first))
            };
            let finding = Finding::new(Id::I1, list.variable, message, "it once")
                .at(list.value, item.range.clone())
                .fixable();
            findings.add(finding);
        } else {
            seen.insert(key, item.text);
        }
    }
}

/// I2 and I3: an entry that another one covers.
fn subsumed(findings: &mut Findings<'_>, list: &List<'_>) {
    let mut seen = HashSet::new();
    let networks: Vec<IpNet> = list.networks().collect();
    for item in &list.items {
        let covering = match &item.entry {
            // With a dot at its end it is for hosts that are written so, which a pair does not cover.
            Entry::Name(name) if !name.rooted && seen.insert(name.text.clone()) => {
                parents(&name.text)
                    .find(|parent| {
                        list.has_name(parent, NameForm::Bare) && list.has_name(parent, NameForm::Suffix)
                    })
                    .map(|parent| (Id::I2, format!(".{parent},{parent}"), "it may go: every client that reads it takes the names below a pair"))
            }
            // Loopback is on every list.
            Entry::Address(address) if !address.is_loopback() => {
                networks.iter().find(|net| net.contains(address)).map(|net| {
                    (Id::I3, net.to_string(), "it may go only if no client that knows no networks has to reach it: those read this entry alone")
                })
            }
            Entry::Network(net) => {
                let net = net.trunc();
                networks
                    .iter()
                    .find(|other| **other != net && other.contains(&net))
                    .map(|other| (Id::I3, other.to_string(), "it may go"))
            }
            _ => None,
        };
        if let Some((id, by, advice)) = covering {
            let message = format!("{} is covered by {by}", mask::shown(item.text));
            findings.add(Finding::new(id, list.variable, message, advice).at(list.value, item.range.clone()));
        }
    }
}

/// The domains that a name is in, the nearest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

/// W7: an address that is known to be reached, and that only a network covers.
fn endpoints(findings: &mut Findings<'_>, list: &List<'_>, facts: &Facts) {
    for address in super::facts::addresses_in_use(findings.subject, facts) {
        let is_listed = list.items.iter().any(|item| item.entry == Entry::Address(address));
        let Some(item) = list
            .items
            .iter()
            .find(|item| matches!(item.entry, Entry::Network(net) if net.contains(&address)))
        else {
            continue;
        };
        let Some(target) = url(&address.to_string(), None).filter(|_| !is_listed && address.is_ipv4()) else {
            continue;
        };
        let outcome = outcome(item.text, &target);
        if outcome.is_direct() {
            continue;
        }
        let finding = Finding::new(
            Id::W7,
            list.variable,
            format!("{address} is in {} only, and many clients know no networks", item.text),
            format!("{address} beside the network"),
        )
        .at(list.value, item.range.clone())
        .breaking(outcome.breaks(&address.to_string()), outcome.others());
        findings.add(finding);
    }
}

/// I4, once for a list. Beside its `.x` a name is for the sake of other clients, as in the portable form.
fn suffixes_of_requests(findings: &mut Findings<'_>, list: &List<'_>) {
    let is_bare = |item: &&Item<'_>| {
        matches!(&item.entry, Entry::Name(name) if name.form == NameForm::Bare
            && *name.text != *"localhost" && !list.has_name(&name.text, NameForm::Suffix))
    };
    if let Some(item) = list.items.iter().find(is_bare) {
        let name = mask::shown(item.text);
        let finding = Finding::new(
            Id::I4,
            list.variable,
            format!("{name} is a name without a dot in front of it"),
            "nothing else: other clients need it; update requests",
        )
        .at(list.value, item.range.clone())
        .breaking(
            format!(
                "requests before 2.34 compares the ends of texts: not{name} is reached past the proxy, too"
            ),
            vec![],
        )
        .solved();
        findings.add(finding);
    }
}

/// I5: more than what has to carry it takes.
fn length(findings: &mut Findings<'_>, list: &List<'_>) {
    let subject = findings.subject;
    let name = &subject.variables[list.variable].name;
    let emitted = portable(&[list.value]);
    let value = if subject.is_rewritten { emitted.len() } else { list.value.len().max(emitted.len()) };
    // NAME=VALUE
    let line = name.len() + 1 + value;
    let (severity, breaks) = if line + 1 > LINUX_STRING {
        (
            Severity::Error,
            format!("Linux starts no process with a variable of more than {LINUX_STRING} bytes"),
        )
    } else if subject.scope == Scope::File && line * 4 / 3 > GUESTINFO {
        (
            Severity::Warning,
            format!("in base64 it does not fit into the {GUESTINFO} bytes of VMware's guestinfo"),
        )
    } else if subject.scope == Scope::File && line > PAM_LINE {
        (
            Severity::Info,
            format!(
                "older versions of PAM stop reading /etc/environment at a line of more than {PAM_LINE} bytes, and lose what follows"
            ),
        )
    } else {
        return;
    };
    let finding = Finding::new(
        Id::I5,
        list.variable,
        format!("{line} bytes with its name, in the portable form"),
        "one network for many addresses, one domain for many names (I2 and I3 say which ones)",
    )
    .breaking(breaks, Vec::new())
    .severity(severity);
    findings.add(finding);
}
