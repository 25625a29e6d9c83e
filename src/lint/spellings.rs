//! E3: the two spellings of a proxy variable.

use std::collections::BTreeSet;

use super::probe::{self, PROXY, names, verb};
use super::rules::Id;
use super::{Finding, Findings, Scope, Severity, Subject, Variable, portable};
use crate::clients::{Client, Environment, Route, Target};
use crate::inject::preset::ProxyVariable;
use crate::no_proxy;

/// A second proxy that nobody has.
const OTHER: &str = "http://other.invalid:3128";

const ALL: [ProxyVariable; 5] =
    [ProxyVariable::Http, ProxyVariable::Https, ProxyVariable::Ftp, ProxyVariable::All, ProxyVariable::No];

pub(super) fn check(findings: &mut Findings<'_>) {
    let subject = findings.subject;
    let values = subject.expanded();
    for proxy in ALL {
        let found: Vec<(usize, &Variable)> = subject.spellings(proxy).collect();
        let (lower, upper) = (proxy.lower(), proxy.upper());
        let get = |name: &str| found.iter().copied().find(|(_, variable)| variable.name == name);
        if !subject.has_both_spellings {
            for (index, variable) in found.iter().filter(|(_, v)| v.name != lower && v.name != upper) {
                findings.add(mixed(proxy, *index, variable));
            }
            match (get(lower), get(upper)) {
                (Some(lower), Some(upper)) => {
                    let value = |(index, _): (usize, &Variable)| values[index].as_deref();
                    if let (Some(a), Some(b)) = (value(lower), value(upper)) {
                        findings.found.extend(differing(subject, proxy, (lower, a), (upper, b)));
                    }
                }
                (Some(only), None) | (None, Some(only)) if !subject.is_open => {
                    let mut finding = missing(proxy, only.0, &only.1.name);
                    // The other spelling goes into no preset: reach would write both but for its letterCase.
                    let has_list = only.1.value.as_ref().is_some_and(|value| !value.trim().is_empty());
                    finding.is_fixable =
                        proxy == ProxyVariable::No && subject.scope != Scope::Preset && has_list;
                    findings.add(finding);
                }
                _ => {}
            }
        }
        let is_empty = |(_, variable): &(usize, &Variable)| {
            variable.value.as_ref().is_some_and(|value| value.trim().is_empty())
        };
        if let Some((index, variable)) = found.first()
            && found.iter().all(is_empty)
        {
            let finding = Finding::new(
                Id::E3,
                *index,
                format!("{} is set to nothing", variable.name),
                "nothing else, if it is to be switched off here; else a value",
            )
            .severity(Severity::Info);
            findings.add(finding);
        }
    }
}

/// Neither lower nor upper case.
fn mixed(proxy: ProxyVariable, index: usize, variable: &Variable) -> Finding {
    let clients = ignoring(proxy, &variable.name);
    let breaks = format!("{} {} it", names(&clients), verb(&clients, "ignores", "ignore"));
    let (lower, upper) = (proxy.lower(), proxy.upper());
    Finding::new(
        Id::E3,
        index,
        format!("{} is neither {lower} nor {upper}", variable.name),
        format!("{lower} and {upper} with one value"),
    )
    .breaking(breaks, clients)
}

/// One of the two.
fn missing(proxy: ProxyVariable, index: usize, name: &str) -> Finding {
    let other = if name == proxy.lower() { proxy.upper() } else { proxy.lower() };
    let clients = ignoring(proxy, name);
    let (severity, breaks) = if clients.is_empty() {
        (Severity::Info, format!("every client that reach knows reads {name}; others may not"))
    } else {
        (Severity::Error, format!("{} {} {name}", names(&clients), verb(&clients, "ignores", "ignore")))
    };
    Finding::new(
        Id::E3,
        index,
        format!("{name} without {other}"),
        format!("{name} and {other} with one value"),
    )
    .breaking(breaks, clients)
    .severity(severity)
}

/// A spelling, and its value as processes see it.
type Expanded<'v> = ((usize, &'v Variable), &'v str);

/// Two values.
fn differing(
    subject: &Subject,
    proxy: ProxyVariable,
    (lower, a): Expanded<'_>,
    (upper, b): Expanded<'_>,
) -> Option<Finding> {
    let is_list = proxy == ProxyVariable::No;
    if a == b || (is_list && set(a) == set(b)) {
        return None;
    }
    let (lower_name, upper_name) = (&lower.1.name, &upper.1.name);
    let readers = readers_of_upper(proxy, is_list, a.trim().is_empty(), b.trim().is_empty());
    let breaks = if readers.is_empty() {
        format!("a client takes the one that it looks for first, most of them {lower_name}")
    } else {
        format!(
            "{} {} {upper_name}, the others {lower_name}",
            names(&readers),
            verb(&readers, "reads", "read")
        )
    };
    // * alone has no union with another list.
    let is_divided = is_list && subject.divides(proxy, false).is_some();
    let is_fixable = is_list && !is_divided && portable(&[a, b]) != "*";
    let advice = match (is_fixable, is_divided) {
        (true, _) => "one value for both; --fix writes the union",
        (_, true) => "one value for both; --fix writes no union because of what they refer to with $(NAME)",
        _ => "one value for both",
    };
    let mut finding = Finding::new(Id::E3, upper.0, format!("{lower_name} and {upper_name} differ"), advice)
        .breaking(breaks, readers);
    finding.is_fixable = is_fixable;
    Some(finding)
}

/// Entries without order and case.
fn set(list: &str) -> BTreeSet<String> {
    no_proxy::entries(list).map(str::to_ascii_lowercase).collect()
}

/// The clients that take the upper-case spelling where both are there. Their models are asked with values that tell
/// which one was read: the real ones may not.
fn readers_of_upper(proxy: ProxyVariable, is_list: bool, no_lower: bool, no_upper: bool) -> Vec<Client> {
    let (lower, upper) = (proxy.lower(), proxy.upper());
    let Some(target) = target(proxy) else { return Vec::new() };
    let value = |is_empty: bool, value: &'static str| if is_empty { "" } else { value };
    let mut environment = if is_list { probe::with_proxies(PROXY) } else { Environment::default() };
    if is_list {
        // Direct means that the upper-case list was read, or, if that is empty, that the other one was.
        let lower_value = if no_upper { target.host() } else { "other.invalid" };
        environment.set(lower, if no_lower { "" } else { lower_value });
        environment.set(upper, if no_upper { "" } else { target.host() });
        let reads = |client: &Client| is_direct(*client, &environment, &target) != no_upper;
        return probe::readers().filter(reads).collect();
    }
    environment.set(lower, value(no_lower, PROXY));
    environment.set(upper, value(no_upper, OTHER));
    let reads = |client: &Client| match probe::ask(*client, &environment, &target) {
        Route::Proxied { variable, .. } => variable == upper,
        // Past both: the empty one counted.
        Route::Direct { .. } => no_upper,
        Route::Error { .. } => false,
    };
    probe::readers().filter(reads).collect()
}

/// The clients that do not read a name which stands alone, and do read it beside the other spelling.
fn ignoring(proxy: ProxyVariable, name: &str) -> Vec<Client> {
    let Some(target) = target(proxy) else {
        // wget looks for lower case only, curl for upper case as well.
        return match name {
            _ if name == proxy.lower() => Vec::new(),
            _ if name == proxy.upper() => vec![Client::Wget],
            _ => vec![Client::Curl, Client::Wget],
        };
    };
    let is_list = proxy == ProxyVariable::No;
    let value = if is_list { target.host() } else { PROXY };
    let base = if is_list { probe::with_proxies(PROXY) } else { Environment::default() };
    let mut alone = base.clone();
    alone.set(name, value);
    let mut both = base;
    both.set(proxy.lower(), value);
    both.set(proxy.upper(), value);
    probe::readers()
        .filter(|client| is_direct(*client, &alone, &target) != is_direct(*client, &both, &target))
        .collect()
}

fn is_direct(client: Client, environment: &Environment, target: &Target) -> bool {
    matches!(probe::ask(client, environment, target), Route::Direct { .. })
}

/// A URL for which the variable counts. No model speaks FTP: of that, what is known of curl and wget has to do.
fn target(proxy: ProxyVariable) -> Option<Target> {
    match proxy {
        ProxyVariable::Ftp => None,
        ProxyVariable::Https => "https://web.example/".parse().ok(),
        _ => "http://web.example/".parse().ok(),
    }
}
