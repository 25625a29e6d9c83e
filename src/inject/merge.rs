//! How a value is made: the merge of one variable over the three levels cluster, namespace, pod.
//!
//! [`resolve`] merges the two levels of presets, once for each [set](super::set::PresetSet) of them; [`meet`] lets the
//! result meet a container's own variables. Both are pure, and the only places where merge strategies are interpreted.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::java;
use super::pod::{Container, EnvVar};
use super::preset::{Preset, PresetLevel, ProxyVariable, Variable, VariableValue};
use super::snapshot::Derived;
use crate::api::{LetterCase, MergeStrategy, NoProxyForm, NoProxySource};
use crate::expansion::references;
use crate::no_proxy::Union;
use crate::no_proxy::portable::{self, Author, List};

/// A variable after the merge of all presets that apply to a container.
#[derive(Debug)]
pub struct Resolved {
    /// Where it came from, in order of use: the last one gave it its place.
    pub parts: Vec<Part>,
    /// What less specific levels, or later presets of the same level, say and is not followed.
    pub dropped: Vec<Part>,
    /// The value.
    pub value: Value,
    /// The same without the names and addresses that only the cluster knows, where options of a JVM may have to do without them.
    without_names: Option<Value>,
    /// How it meets the container's own value.
    pub strategy: MergeStrategy,
    /// The names under which it is added.
    pub spellings: Vec<Box<str>>,
    /// The variable under each of these names, as JSON.
    pub(super) json: Box<[Box<str>]>,
}

/// What one preset contributed to a variable.
#[derive(Clone, Debug)]
pub struct Part {
    /// The preset.
    pub preset: Arc<Preset>,
    /// The strategy of the item, and who said so.
    pub strategy: MergeStrategy,
    /// Who said so.
    pub because: Because,
    /// Order of use: the preset among those that apply, the item in its `env`.
    position: (usize, usize),
}

/// Why an item has its merge strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its own `mergeStrategy`.
    Own,
    /// A less specific level declared it.
    Inherited,
    /// The default of the variable.
    Default,
    /// It has `valueFrom`, so its value is not known and can only replace.
    ValueFrom,
}

/// A merged value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A `no_proxy` list as written.
    List(Box<str>),
    /// A `no_proxy` list in the portable form.
    Portable {
        /// The union.
        list: List,
        /// What it is emitted as.
        text: Box<str>,
        /// What it becomes with values that containers have: those of one workload have the same.
        met: [OnceLock<Box<Met>>; 4],
    },
    /// Entries between separators.
    Entries {
        /// The entries.
        entries: Vec<Box<str>>,
        /// What stands between them.
        separator: Box<str>,
        /// All of them.
        text: Box<str>,
    },
    /// `valueFrom`, as JSON text.
    Source(Box<str>),
}

/// A container's own list, and the union with it.
#[derive(Clone, Debug)]
pub struct Met {
    own: Box<str>,
    text: Box<str>,
}

/// Longest list of a container that is kept, in bytes: containers are many, and not ours.
const LONGEST_MET: usize = 1024;

/// Two items of one level that cannot both be followed.
#[derive(Clone, Debug)]
pub struct VariableConflict {
    /// The preset that is followed.
    pub winner: Arc<Preset>,
    /// The item that is not.
    pub loser: Part,
    /// Why both cannot be.
    pub reason: ConflictReason,
}

/// Why two items cannot both be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictReason {
    /// Both replace, with different values.
    Differs,
    /// One is merged and the other one's value comes from elsewhere.
    Unmergeable,
}

/// What becomes of a variable in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container has none: it is added under all its names.
    Added,
    /// It is united with the container's own.
    Merged {
        /// The union.
        value: String,
        /// Positions in the container's `env` that are set to it; those that already have it are left out.
        set: Vec<usize>,
        /// Positions in [`Resolved::spellings`] of the names under which it is added.
        add: Vec<usize>,
        /// What of the options of a JVM was left out, since with it the value would be longer than every JVM reads.
        left_out: LeftOut,
    },
    /// The container's own value stands.
    Kept,
    /// The container's own value comes from elsewhere and cannot be merged.
    Unmergeable,
}

/// What is not in a value that would be too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It is whole.
    Nothing,
    /// Services and Nodes of `noProxyFrom`.
    Names,
    /// All that is derived.
    Everything,
}

/// Merges the variables of presets, given in order of use, as they apply to one container.
#[must_use]
pub fn resolve(presets: &[Arc<Preset>], derived: Derived<'_>) -> (Vec<Resolved>, Vec<VariableConflict>) {
    let mut items: Vec<Part> = Vec::new();
    for (order, preset) in presets.iter().enumerate() {
        for index in 0..preset.env.len() {
            items.push(Part {
                preset: Arc::clone(preset),
                strategy: MergeStrategy::Replace,
                because: Because::Default,
                position: (order, index),
            });
        }
    }
    // Stable, so that the items of one variable stay in order of use.
    items.sort_by(|a, b| a.variable().key().cmp(b.variable().key()));
    let mut conflicts = Vec::new();
    let lists = Lists { derived, form: form(presets), names: true };
    let has_java = items.iter().any(|item| item.variable().value == VariableValue::Java);
    let mut resolved: Vec<Resolved> = items
        .chunk_by(|a, b| a.variable().key() == b.variable().key())
        .map(|items| variable(items, lists, has_java, &mut conflicts))
        .collect();
    resolved.sort_by_key(|variable| variable.parts.last().map(|part| part.position));
    (after_what_they_refer_to(resolved), conflicts)
}

/// Variables behind those that their values refer to, else in the order given: the kubelet replaces `$(NAME)` only if `NAME` is
/// defined before. Where some refer to each other, the first of them stands last. Presets may have many thousands of variables.
fn after_what_they_refer_to(variables: Vec<Resolved>) -> Vec<Resolved> {
    let by_name: HashMap<&str, usize> = variables
        .iter()
        .enumerate()
        .flat_map(|(position, variable)| variable.spellings.iter().map(move |name| (&**name, position)))
        .collect();
    let refers_to = |variable: &Resolved| {
        let names = references(variable.value.literal().unwrap_or_default());
        let positions: BTreeSet<usize> =
            names.iter().filter_map(|name| by_name.get(&**name).copied()).collect();
        positions.into_iter()
    };
    let mut waiting: Vec<_> = variables.iter().map(refers_to).collect();
    if waiting.iter().all(|positions| positions.len() == 0) {
        return variables;
    }
    let mut seen = vec![false; variables.len()];
    let mut order: Vec<usize> = Vec::with_capacity(variables.len());
    // Each refers to the next one.
    let mut path: Vec<usize> = Vec::new();
    for first in 0..variables.len() {
        let mut next = Some(first).filter(|first| !seen[*first]);
        loop {
            if let Some(position) = next {
                seen[position] = true;
                path.push(position);
            }
            let Some(&last) = path.last() else { break };
            next = waiting[last].find(|position| !seen[*position]);
            if next.is_none() {
                order.extend(path.pop());
            }
        }
    }
    let mut variables: Vec<Option<Resolved>> = variables.into_iter().map(Some).collect();
    order.into_iter().filter_map(|position| variables[position].take()).collect()
}

/// What a `no_proxy` is made of besides its parts.
#[derive(Clone, Copy)]
struct Lists<'d> {
    derived: Derived<'d>,
    form: NoProxyForm,
    /// Whether with names and addresses that only the cluster knows.
    names: bool,
}

/// Merges the items of one variable, in order of use.
fn variable(
    items: &[Part],
    lists: Lists<'_>,
    has_java: bool,
    conflicts: &mut Vec<VariableConflict>,
) -> Resolved {
    let is_list = items[0].variable().proxy == Some(ProxyVariable::No);
    let default = if is_list { MergeStrategy::Merge } else { MergeStrategy::Replace };
    let split = items.partition_point(|item| item.preset.level == PresetLevel::Cluster);
    let mut inherited = None;
    let mut parts: Vec<Part> = Vec::with_capacity(items.len());
    let mut dropped: Vec<Part> = Vec::new();
    for level in [&items[..split], &items[split..]] {
        if level.is_empty() {
            continue;
        }
        let items: Vec<Part> = level.iter().map(|item| strategy(item, inherited, default)).collect();
        let winner = items.iter().find(|item| item.strategy == MergeStrategy::Replace).cloned();
        let sourced = winner.as_ref().is_some_and(|winner| winner.variable().is_sourced());
        let (kept, lost): (Vec<Part>, Vec<Part>) = items.into_iter().partition(|item| {
            winner.as_ref().is_none_or(|winner| {
                item.position == winner.position || (item.strategy == MergeStrategy::Merge && !sourced)
            })
        });
        for item in &lost {
            let Some(winner) = &winner else { continue };
            let reason = match item.strategy {
                MergeStrategy::Merge => ConflictReason::Unmergeable,
                MergeStrategy::Replace if same_value(winner, item) => continue,
                MergeStrategy::Replace => ConflictReason::Differs,
            };
            let winner = Arc::clone(&winner.preset);
            conflicts.push(VariableConflict { winner, loser: item.clone(), reason });
        }
        dropped.extend(lost);
        if winner.is_some() {
            dropped.append(&mut parts);
        } else if let Some(source) = parts.iter().find(|part| part.variable().is_sourced()) {
            if kept.iter().all(|item| item.variable().is_implied) {
                let cannot = |item: &Part| VariableConflict {
                    winner: Arc::clone(&source.preset),
                    loser: item.clone(),
                    reason: ConflictReason::Unmergeable,
                };
                conflicts.extend(kept.iter().map(cannot));
                dropped.extend(kept);
                continue;
            }
            // The more specific level wins over what it cannot be united with.
            conflicts.push(VariableConflict {
                winner: Arc::clone(&kept[0].preset),
                loser: source.clone(),
                reason: ConflictReason::Unmergeable,
            });
            dropped.append(&mut parts);
        }
        parts.extend(kept);
        inherited = level.iter().find_map(|item| item.variable().strategy).or(inherited);
    }
    let value = if is_list { unite_lists(&parts, lists) } else { unite(&parts) };
    let has_names = || parts.iter().any(|part| part.preset.asks_for_names());
    let without_names =
        (is_list && has_java && has_names()).then(|| unite_lists(&parts, Lists { names: false, ..lists }));
    let spellings = spellings(&parts);
    Resolved {
        without_names,
        json: spellings.iter().map(|name| value.json(name)).collect(),
        value,
        strategy: inherited.unwrap_or(default),
        spellings,
        parts,
        dropped,
    }
}

/// The strategy of an item: its own, else what a less specific level declared, else the default.
fn strategy(item: &Part, inherited: Option<MergeStrategy>, default: MergeStrategy) -> Part {
    let (strategy, because) = if item.variable().is_sourced() {
        (MergeStrategy::Replace, Because::ValueFrom)
    } else if item.variable().is_implied {
        // It has nothing to put in the place of a list.
        (MergeStrategy::Merge, Because::Default)
    } else if let Some(own) = item.variable().strategy {
        (own, Because::Own)
    } else if let Some(inherited) = inherited {
        (inherited, Because::Inherited)
    } else {
        (default, Because::Default)
    };
    Part { strategy, because, ..item.clone() }
}

/// Whether two items of one variable say the same.
fn same_value(a: &Part, b: &Part) -> bool {
    let (one, other) = (a.variable(), b.variable());
    let Some(list) = one.list() else {
        return one.value == other.value;
    };
    let (of_one, of_other) = (&a.preset.no_proxy_from, &b.preset.no_proxy_from);
    let has_all =
        |one: &[NoProxySource], other: &[NoProxySource]| one.iter().all(|source| other.contains(source));
    other.list() == Some(list) && has_all(of_one, of_other) && has_all(of_other, of_one)
}

/// The `no_proxy` of the parts that are left, in order.
fn unite_lists(parts: &[Part], Lists { derived, form, names }: Lists<'_>) -> Value {
    if let Some(source) = parts.iter().find_map(|part| part.variable().source()) {
        return Value::Source(source.into());
    }
    let of_cluster = || {
        let sources = parts.iter().flat_map(|part| &part.preset.no_proxy_from);
        derived.lists(sources.copied().filter(move |source| names || !source.is_names()))
    };
    match form {
        NoProxyForm::Portable => {
            let own: Vec<List> = parts.iter().filter_map(|part| part.variable().list()).collect();
            let list = List::united(own.iter().chain(of_cluster()));
            Value::Portable { text: list.text().into(), list, met: Default::default() }
        }
        NoProxyForm::AsWritten => {
            let mut union = Union::default();
            for part in parts {
                if let VariableValue::Literal(text) = &part.variable().value {
                    union.add(text);
                }
            }
            of_cluster().flat_map(List::texts).for_each(|text| union.add(text));
            Value::List(union.join().into())
        }
    }
}

/// The form that the most specific level asks for, there the preset that comes first: of all, also of those whose list is not
/// followed.
fn form(presets: &[Arc<Preset>]) -> NoProxyForm {
    let of =
        |level| presets.iter().filter(|preset| preset.level == level).find_map(|preset| preset.no_proxy_form);
    of(PresetLevel::Namespace).or_else(|| of(PresetLevel::Cluster)).unwrap_or_default()
}

/// The value of the parts that are left, in order.
fn unite(parts: &[Part]) -> Value {
    let mut entries: Vec<&str> = Vec::new();
    let separator = parts.iter().find_map(|part| part.variable().separator.as_deref()).unwrap_or(",");
    for part in parts {
        match &part.variable().value {
            VariableValue::Source(source) => return Value::Source(source.clone()),
            // What it says depends on the container.
            VariableValue::Java => {}
            // A single value is not split: it is what its author wrote.
            VariableValue::Literal(text) if parts.len() == 1 && part.strategy == MergeStrategy::Replace => {
                entries.push(text);
            }
            VariableValue::Literal(text) => {
                for entry in split(text, separator) {
                    if !entries.iter().any(|known| contains(known, entry, separator)) {
                        entries.push(entry);
                    }
                }
            }
        }
    }
    Value::Entries {
        text: entries.join(separator).into(),
        entries: entries.into_iter().map(Into::into).collect(),
        separator: separator.into(),
    }
}

/// The entries of a value. Between white space stand the words of a command line (`--require a.js`),
/// which mean nothing apart, so such a value is one entry.
fn split<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    if separator.trim().is_empty() {
        let text = text.trim();
        if text.is_empty() { vec![] } else { vec![text] }
    } else {
        text.split(separator).map(str::trim).filter(|entry| !entry.is_empty()).collect()
    }
}

/// Whether a value has an entry already.
fn contains(text: &str, entry: &str, separator: &str) -> bool {
    if separator.trim().is_empty() {
        // At every place where a word begins: an entry of several words may overlap with itself.
        text.char_indices().any(|(start, _)| {
            let begins = text[..start].chars().next_back().is_none_or(char::is_whitespace);
            let after = text[start..].strip_prefix(entry);
            begins && after.is_some_and(|after| after.chars().next().is_none_or(char::is_whitespace))
        })
    } else {
        text.split(separator).any(|known| known.trim() == entry)
    }
}

/// The names under which a variable is added, in order of use, lower case before upper.
fn spellings(parts: &[Part]) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::with_capacity(2);
    for part in parts {
        let variable = part.variable();
        let wanted = match (variable.proxy, part.preset.letter_case) {
            (Some(proxy), LetterCase::Both) => [Some(proxy.lower()), Some(proxy.upper())],
            _ => [Some(&*variable.name), None],
        };
        for name in wanted.into_iter().flatten() {
            if names.iter().all(|known| **known != *name) {
                names.push(name.into());
            }
        }
    }
    names
}

/// Lets merged variables meet the container's own variables.
#[must_use]
pub fn meet(variables: &[Resolved], container: &Container<'_>) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = variables.iter().map(|variable| variable.meet(container, "")).collect();
    // After the others: it says what they have become.
    if let Some(position) = variables.iter().position(Resolved::is_java) {
        let effective = |proxy| effective(proxy, variables, &outcomes, container);
        let [http, https, no] = [ProxyVariable::Http, ProxyVariable::Https, ProxyVariable::No].map(effective);
        let variable = &variables[position];
        let own = variable.own(container).into_iter().map(|(_, own)| own.literal());
        let said = variable.value.literal().into_iter().chain(own).collect::<Vec<_>>().join(" ");
        let tell = |no| variable.meet(container, &java::options(java::Proxies { http, https, no }, &said));
        let mut outcome = tell(no);
        if outcome.left_out() == LeftOut::Everything
            && let Some(no) = without_names(variables, &outcomes, container)
        {
            let shorter = tell(Some(&no));
            if let Outcome::Merged { value, set, add, left_out: LeftOut::Nothing } = shorter {
                outcome = Outcome::Merged { value, set, add, left_out: LeftOut::Names };
            }
        }
        outcomes[position] = outcome;
    }
    outcomes
}

/// The `no_proxy` that a container ends up with, without names and addresses that only the cluster knows, if it has some.
fn without_names(variables: &[Resolved], outcomes: &[Outcome], container: &Container<'_>) -> Option<String> {
    let (variable, outcome) = variables.iter().zip(outcomes).find(|(variable, _)| variable.is_no_proxy())?;
    let value = variable.without_names.as_ref()?;
    match outcome {
        Outcome::Added => value.literal().map(str::to_owned),
        Outcome::Merged { .. } => {
            let own: Vec<&str> = variable.own(container).iter().map(|(_, own)| own.literal()).collect();
            Some(value.with(&own, ""))
        }
        Outcome::Kept | Outcome::Unmergeable => None,
    }
}

/// The value of a proxy variable that a container ends up with, empty where it has none; `None` where it is not known.
fn effective<'v>(
    proxy: ProxyVariable,
    variables: &'v [Resolved],
    outcomes: &'v [Outcome],
    container: &'v Container<'_>,
) -> Option<&'v str> {
    let position = variables.iter().position(|variable| variable.identity().proxy == Some(proxy));
    let own = || {
        let own = container.env.iter().rev().find(|own| ProxyVariable::of(&own.name) == Some(proxy));
        own.map_or(Some(""), |own| (!own.is_from()).then(|| own.literal()))
    };
    let Some(position) = position else { return own() };
    match &outcomes[position] {
        Outcome::Merged { value, .. } => Some(value),
        Outcome::Kept => own(),
        Outcome::Added => variables[position].value.literal(),
        Outcome::Unmergeable => None,
    }
}

// === impl VariableConflict ===

impl VariableConflict {
    /// Whether another one says the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.winner, &other.winner)
            && Arc::ptr_eq(&self.loser.preset, &other.loser.preset)
            && self.variable() == other.variable()
    }

    /// Why the variable is not followed.
    #[must_use]
    pub fn why(&self) -> String {
        match self.reason {
            ConflictReason::Differs => format!("differs from that of {}", self.winner),
            ConflictReason::Unmergeable => format!("cannot be merged with that of {}", self.winner),
        }
    }

    /// The variable, as the loser writes it.
    #[must_use]
    pub fn variable(&self) -> &str {
        &self.loser.variable().name
    }
}

/// One line, without a value.
impl fmt::Display for VariableConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variable, loser) = (self.variable(), &self.loser.preset);
        write!(f, "variable {variable} of {loser} {}; {} is followed", self.why(), self.winner)
    }
}

// === impl Part ===

impl Part {
    /// The item.
    #[must_use]
    pub fn variable(&self) -> &Variable {
        &self.preset.env[self.position.1]
    }
}

// === impl Resolved ===

impl Resolved {
    /// The variable, as its first part writes it.
    #[must_use]
    pub fn identity(&self) -> &Variable {
        self.parts[0].variable()
    }

    /// The container's own values of the variable and their positions, one for each spelling. If a name stands twice,
    /// the last one counts, as in the kubelet.
    #[must_use]
    pub fn own<'c, 'a>(&self, container: &'c Container<'a>) -> Vec<(usize, &'c EnvVar<'a>)> {
        let identity = self.identity();
        let mut own: Vec<(usize, &EnvVar<'_>)> = Vec::new();
        for (index, candidate) in container.env.iter().enumerate() {
            if identity.is(&candidate.name) {
                own.retain(|(_, known)| known.name != candidate.name);
                own.push((index, candidate));
            }
        }
        own
    }

    /// About how many bytes its texts take: as values, in parts, and as JSON.
    pub(super) fn weight(&self) -> usize {
        let values = [Some(&self.value), self.without_names.as_ref()];
        let values = values.into_iter().flatten().map(|value| match value {
            // The parts of a list are texts of their own, with what is known of each.
            Value::Portable { text, .. } => text.len() * 4,
            Value::List(text) | Value::Entries { text, .. } => text.len() * 2,
            Value::Source(source) => source.len(),
        });
        values.sum::<usize>() + self.json.iter().map(|json| json.len()).sum::<usize>()
    }

    fn is_no_proxy(&self) -> bool {
        self.identity().proxy == Some(ProxyVariable::No)
    }

    /// Whether it says what the container's proxy variables become.
    #[must_use]
    pub fn is_java(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.variable().value, VariableValue::Java))
    }

    /// Lets it meet the container's own variables. `extra` is an entry that the container itself is the reason for.
    fn meet(&self, container: &Container<'_>, extra: &str) -> Outcome {
        let own = self.own(container);
        if own.is_empty() && extra.is_empty() {
            let is_nothing = self.is_java() && self.value.literal() == Some("");
            return if is_nothing { Outcome::Kept } else { Outcome::Added };
        }
        let replaces = self.strategy == MergeStrategy::Replace || matches!(self.value, Value::Source(_));
        if replaces && !own.is_empty() {
            return Outcome::Kept;
        }
        if own.iter().any(|(_, variable)| variable.is_from()) {
            return Outcome::Unmergeable;
        }
        let literals: Vec<&str> = own.iter().map(|(_, variable)| variable.literal()).collect();
        let mut value = self.value.with(&literals, extra);
        // With what is too much, the JVM would ignore what others wrote as well.
        let is_too_long = value.len() > extra.len() && value.len() > java::LONGEST && !extra.is_empty();
        if is_too_long {
            value = self.value.with(&literals, "");
        }
        let left_out = if is_too_long { LeftOut::Everything } else { LeftOut::Nothing };
        let set = own.iter().filter(|(_, own)| own.literal() != value).map(|(index, _)| *index).collect();
        let is_missing = |name: &str| own.iter().all(|(_, own)| *own.name != *name);
        let add = self.spellings.iter().enumerate().filter(|(_, name)| is_missing(name));
        Outcome::Merged { value, set, add: add.map(|(index, _)| index).collect(), left_out }
    }
}

// === impl Outcome ===

impl Outcome {
    /// What is not in it.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        match self {
            Self::Merged { left_out, .. } => *left_out,
            Self::Added | Self::Kept | Self::Unmergeable => LeftOut::Nothing,
        }
    }
}

// === impl Value ===

impl Value {
    /// The literal value, or `None` when it comes from elsewhere.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::List(text) | Self::Portable { text, .. } | Self::Entries { text, .. } => Some(text),
            Self::Source(_) => None,
        }
    }

    /// The variable of this name, as JSON.
    fn json(&self, name: &str) -> Box<str> {
        let name = serde_json::Value::from(name);
        let json = if let Self::Source(source) = self {
            format!("{{\"name\":{name},\"valueFrom\":{source}}}")
        } else {
            let value = serde_json::Value::from(self.literal().unwrap_or_default());
            format!("{{\"name\":{name},\"value\":{value}}}")
        };
        json.into()
    }

    /// The union with the container's own values, which come last.
    fn with(&self, own: &[&str], extra: &str) -> String {
        match self {
            Self::List(text) => {
                let mut union = Union::default();
                union.add(text);
                for list in own {
                    union.add(list);
                }
                union.join()
            }
            Self::Portable { list, text, met } => {
                // A pod that comes by again has the very text, and both spellings say the same.
                let mut other: Vec<&str> = own.iter().copied().filter(|own| *own != &**text).collect();
                other.dedup();
                let unite = || {
                    let own: Vec<List> = other.iter().map(|list| List::parse(list, Author::Pod)).collect();
                    portable::unite(std::iter::once(list).chain(&own))
                };
                match other[..] {
                    [] => text.to_string(),
                    [own] if own.len() <= LONGEST_MET => {
                        let make = || Box::new(Met { own: own.into(), text: unite().into() });
                        let known = met.iter().map(|met| met.get_or_init(make)).find(|met| *met.own == *own);
                        known.map_or_else(unite, |met| met.text.to_string())
                    }
                    _ => unite(),
                }
            }
            Self::Entries { entries, separator, .. } => {
                // What the pod wrote stays to the letter; only what it lacks is put before it.
                let own: Vec<&str> = own.iter().copied().filter(|text| !text.is_empty()).collect();
                let mut united: Vec<&str> = entries
                    .iter()
                    .map(|entry| &**entry)
                    .chain(Some(extra).filter(|extra| !extra.is_empty()))
                    .filter(|entry| !own.iter().any(|own| contains(own, entry, separator)))
                    .collect();
                for (position, text) in own.iter().enumerate() {
                    if !own[..position].contains(text) {
                        united.push(text);
                    }
                }
                united.join(separator)
            }
            Self::Source(_) => String::new(),
        }
    }
}

// === impl Variable ===

impl Variable {
    /// The name that all spellings of the variable share.
    pub(super) fn key(&self) -> &str {
        match self.proxy {
            Some(proxy) => proxy.lower(),
            None => &self.name,
        }
    }

    fn is_sourced(&self) -> bool {
        self.source().is_some()
    }

    fn source(&self) -> Option<&str> {
        match &self.value {
            VariableValue::Source(source) => Some(source),
            VariableValue::Literal(_) | VariableValue::Java => None,
        }
    }
}
