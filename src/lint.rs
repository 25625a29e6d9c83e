//! The rules of `reach lint`: what is wrong with proxy variables, which client does what because of it, and
//! what to write instead.
//!
//! Pure: [`check`] looks at the variables of one preset, container or file. Where clients differ, their models
//! ([`crate::clients`]) say how, so that a message cannot claim what a model does not do.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::clients::Client;
use crate::expansion;
use crate::inject::preset::ProxyVariable;

mod entries;
mod facts;
mod list;
pub mod mask;
pub mod objects;
pub(crate) mod probe;
pub mod rules;
mod spellings;
mod unread;
mod urls;

pub use facts::Facts;
pub use list::portable;
pub use rules::{Id, RULES, Rule};

/// Most bytes that references of one subject are replaced by: a few variables that refer to each other twice would have no end.
const MOST_EXPANDED: usize = 1024 * 1024;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Info,
    /// Some clients do something else than what is written.
    Warning,
    /// It does not do what is written in any client, breaks one, or shows a password.
    Error,
}

/// Where variables are, which decides who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A preset: reach reads it.
    Preset,
    /// A container: its processes read it.
    Container {
        /// The kubelet adds addresses of the Services of its namespace (`enableServiceLinks`).
        has_service_links: bool,
    },
    /// A file of variables, of a host most of the time.
    File,
}

/// Variables that belong together.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What they belong to, as messages name it; empty for a file.
    pub name: String,
    /// Where they are.
    pub scope: Scope,
    /// reach writes `no_proxy` in its portable form, whatever form it has here.
    pub is_rewritten: bool,
    /// reach writes both spellings of proxy variables, whichever one is here.
    pub has_both_spellings: bool,
    /// Variables may come from elsewhere, too (`envFrom`, other presets), so one that is missing here may be there.
    pub is_open: bool,
    /// In order. Of a name that is there twice, the last one counts.
    pub variables: Vec<Variable>,
    /// What it has to do with the cluster itself.
    pub role: Role,
}

/// What a subject has to do with the cluster itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing special.
    Any,
    /// A component of the control plane: the words of its command line.
    Component(Vec<String>),
    /// A preset that takes the networks of the cluster from the cluster (`noProxyFrom`).
    KnowsNetworks,
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it comes from elsewhere (`valueFrom`).
    pub value: Option<String>,
    /// RFC 6901 pointer of the value in its object; empty in a file.
    pub pointer: String,
}

/// Something that a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub id: Id,
    /// How bad it is here.
    pub severity: Severity,
    /// The variable, by its place in [`Subject::variables`].
    pub variable: usize,
    /// The part of the value that it is about, in bytes; `None` if it is the whole value.
    pub range: Option<Range<usize>>,
    /// That part as it may be shown: without credentials.
    pub entry: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What breaks: which client does what instead. May be empty.
    pub breaks: String,
    /// What to write.
    pub advice: String,
    /// The clients that do not do what is written.
    pub clients: Vec<Client>,
    /// The portable form of the value does not have it, so `--fix` helps.
    pub is_fixable: bool,
    /// No client can read the entry.
    pub is_unreadable: bool,
    /// What reach writes does not have it, so it is no news about a preset that reach rewrites.
    is_solved: bool,
}

/// The findings of one subject while they are collected.
struct Findings<'s> {
    subject: &'s Subject,
    found: Vec<Finding>,
}

/// Everything that the rules have against the variables of a subject, in the order of its variables.
#[must_use]
pub fn check(subject: &Subject, facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings { subject, found: Vec::new() };
    let mut seen: Vec<(ProxyVariable, &str)> = Vec::new();
    for (index, variable) in subject.effective() {
        let Some(proxy) = ProxyVariable::of(&variable.name) else { continue };
        let Some(value) = variable.value.as_deref() else { continue };
        // The other spelling with the same value would only repeat the news.
        if seen.contains(&(proxy, value)) {
            continue;
        }
        seen.push((proxy, value));
        if proxy == ProxyVariable::No {
            list::check(&mut findings, index, value, facts);
        } else {
            urls::check(&mut findings, index, proxy, value);
        }
        urls::references(&mut findings, index, value);
    }
    spellings::check(&mut findings);
    facts.check(&mut findings);
    let mut found = findings.found;
    if subject.is_rewritten {
        found.retain(|finding| !finding.is_solved);
    }
    found.sort_by_key(|finding| {
        (finding.variable, finding.range.as_ref().map_or(0, |range| range.start), finding.id)
    });
    found
}

// === impl Subject ===

impl Subject {
    /// The words of the command line of a component of the control plane; nothing for others.
    fn command(&self) -> &[String] {
        match &self.role {
            Role::Component(words) => words,
            Role::Any | Role::KnowsNetworks => &[],
        }
    }

    /// The variables that count, with their places.
    pub fn effective(&self) -> impl Iterator<Item = (usize, &Variable)> {
        self.variables.iter().enumerate().filter(|(index, variable)| {
            self.variables[index + 1..].iter().all(|later| later.name != variable.name)
        })
    }

    /// The values as processes see them, with what stands in front in the place of `$(NAME)`; `None` for what comes from
    /// elsewhere. A file knows no such references.
    fn expanded(&self) -> Vec<Option<String>> {
        let mut known: HashMap<&str, Option<String>> = HashMap::new();
        let mut room = MOST_EXPANDED;
        let mut values = Vec::new();
        for variable in &self.variables {
            let value = variable.value.as_deref().map(|value| match self.scope {
                Scope::File => value.to_owned(),
                _ => expansion::expand(value, |name| {
                    let value = known.get(name)?.as_deref()?;
                    room = room.checked_sub(value.len())?;
                    Some(value)
                }),
            });
            known.insert(&variable.name, value.clone());
            values.push(value);
        }
        values
    }

    /// A reference because of which one value would not be the same in both spellings of a proxy variable: to one of
    /// these, or to what does not stand in front of both. `extra` is for a spelling that is added behind all variables.
    #[must_use]
    pub fn divides(&self, proxy: ProxyVariable, extra: bool) -> Option<String> {
        if self.scope == Scope::File {
            return None;
        }
        let places: Vec<usize> = self.spellings(proxy).map(|(index, _)| index).collect();
        let values = places.iter().filter_map(|index| self.variables[*index].value.as_deref());
        let mut names = values.flat_map(expansion::references);
        let in_front =
            |place: usize, name: &str| self.variables[..place].iter().rposition(|v| v.name == name);
        let ends = extra.then_some(self.variables.len());
        names.find(|name| {
            if ProxyVariable::of(name) == Some(proxy) {
                return true;
            }
            // reach puts what a preset refers to in front of all that refer to it.
            if self.scope == Scope::Preset {
                return false;
            }
            let mut found = places.iter().copied().chain(ends).map(|place| in_front(place, name));
            let first = found.next();
            found.any(|other| Some(other) != first)
        })
    }

    /// The variables that count and stand for one proxy variable.
    pub fn spellings(&self, proxy: ProxyVariable) -> impl Iterator<Item = (usize, &Variable)> {
        self.effective().filter(move |(_, variable)| ProxyVariable::of(&variable.name) == Some(proxy))
    }
}

// === impl Findings ===

impl Findings<'_> {
    fn add(&mut self, finding: Finding) {
        self.found.push(finding);
    }
}

// === impl Finding ===

impl Finding {
    fn new(id: Id, variable: usize, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            id,
            severity: id.rule().severity,
            variable,
            range: None,
            entry: None,
            message: message.into(),
            breaks: String::new(),
            advice: advice.into(),
            clients: Vec::new(),
            is_fixable: false,
            is_unreadable: false,
            is_solved: false,
        }
    }

    /// It is about a part of the value.
    fn at(mut self, value: &str, range: Range<usize>) -> Self {
        self.entry = Some(mask::shown(&value[range.clone()]));
        self.range = Some(range);
        self
    }

    /// What breaks, and the clients concerned.
    fn breaking(mut self, breaks: impl Into<String>, clients: Vec<Client>) -> Self {
        self.breaks = breaks.into();
        self.clients = clients;
        self
    }

    fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The portable form solves it, in what `--fix` writes and in what reach writes.
    fn fixable(mut self) -> Self {
        self.is_fixable = true;
        self.is_solved = true;
        self
    }

    /// reach solves it when it writes the value of a preset.
    fn solved(mut self) -> Self {
        self.is_solved = true;
        self
    }

    fn unreadable(mut self) -> Self {
        self.is_unreadable = true;
        self
    }
}

// === impl Severity ===

impl Severity {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
