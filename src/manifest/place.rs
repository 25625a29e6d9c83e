//! Where in the text of a document an operation takes place, and the text with
//! all of them applied.
//!
//! A [`Plan`] collects what becomes of each node of the tree, so that the
//! document is scanned once however many operations there are; then each
//! changed node gives a few [`Patch`]es of the text.

mod change;
mod flow;
mod layout;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Map, Value};

use super::tree::{Id, Kind, Tree};
use super::write::{self, Block, Flow, Lines};
use super::{BOM, Operation, apply, index};

/// The widest distance from a dash to its value, and the deepest indentation
/// of a mapping under its key, that new content takes over from the document.
/// Beyond it, it is alignment rather than a style.
const MAX_INDENT: usize = 8;

/// The indentation of JSON that shows none of its own.
const JSON_UNIT: &str = "  ";

/// What becomes of a document.
pub(super) struct Plan<'t, 'a> {
    text: &'a str,
    tree: &'t Tree<'a>,
    changes: BTreeMap<Id, (Spot, Change)>,
}

/// What becomes of one node.
enum Change {
    /// The value takes the place of the node.
    Replace(Value),
    /// The members of a mapping that has some.
    Members {
        /// The numbers of those that go.
        removed: BTreeSet<usize>,
        /// Those that come after the last one.
        added: Map<String, Value>,
    },
    /// The items of a list that has some. Those that stay keep their order.
    Items(Vec<Item>),
}

/// An item of a list that changes.
enum Item {
    /// The one of this number.
    Old(usize),
    New(Value),
}

/// What is around a node.
#[derive(Clone, Copy)]
struct Spot {
    /// How many collections the node is in.
    depth: usize,
    /// Whether the node is inside of a flow collection.
    flow: bool,
    role: Role,
}

impl Spot {
    /// What is around a member or an item of a collection.
    fn child(self, flow: bool, role: Role) -> Self {
        Self { depth: self.depth + 1, flow: self.flow || flow, role }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Root,
    /// The value of the key.
    Member(Id),
    Item,
}

/// Replaces `start..end` of the text.
struct Patch {
    start: usize,
    end: usize,
    /// Of what is inserted at one place, that of deeper nodes comes first.
    depth: usize,
    text: String,
}

impl<'t, 'a> Plan<'t, 'a> {
    pub fn new(text: &'a str, tree: &'t Tree<'a>) -> Self {
        Self { text, tree, changes: BTreeMap::new() }
    }

    /// Adds an operation that is known to apply to the values of the document
    /// (with the operations before it). `None` when it cannot be done in place.
    pub fn apply(&mut self, tokens: &[String], operation: &Operation) -> Option<()> {
        let tree = self.tree;
        let mut id = tree.root?;
        let mut spot = Spot { depth: 0, flow: false, role: Role::Root };
        for (position, token) in tokens.iter().enumerate() {
            let rest = &tokens[position..];
            if let Some((_, Change::Replace(new))) = self.changes.get_mut(&id) {
                return apply(new, rest, operation).ok();
            }
            if !self.is_free(id) {
                return None;
            }
            let next = match &tree.node(id).kind {
                Kind::Mapping { entries, .. } if entries.is_empty() => {
                    return self.fill(id, spot, Value::Object(Map::new()), rest, operation);
                }
                Kind::Sequence { items, .. } if items.is_empty() => {
                    return self.fill(id, spot, Value::Array(Vec::new()), rest, operation);
                }
                Kind::Mapping { flow, entries } => {
                    let number = entries.iter().position(|entry| entry.name.as_deref() == Some(token));
                    let Some(number) = number else {
                        return self.add_member(id, spot, rest, operation);
                    };
                    let entry = &entries[number];
                    let child = spot.child(*flow, Role::Member(entry.key));
                    match (rest, operation) {
                        ([_], Operation::Remove { .. }) => {
                            return self.remove_member(id, spot, number, entry.value);
                        }
                        ([_], Operation::Add { value, .. } | Operation::Replace { value, .. }) => {
                            if let Some((_, Change::Members { removed, .. })) = self.changes.get_mut(&id) {
                                removed.remove(&number);
                            }
                            return self.replace(entry.value, child, value);
                        }
                        _ => (entry.value, child),
                    }
                }
                Kind::Sequence { flow, items } => {
                    let child = spot.child(*flow, Role::Item);
                    match self.change_items(id, spot, items, rest, operation)? {
                        Some((number, Some(value))) => return self.replace(items[number], child, &value),
                        Some((number, None)) => (items[number], child),
                        None => return Some(()),
                    }
                }
                Kind::Scalar { .. } | Kind::Alias(_) => return None,
            };
            (id, spot) = next;
        }
        None
    }

    /// Whether changing the node changes nothing else and keeps its meaning.
    fn is_free(&self, id: Id) -> bool {
        self.tree.node(id).tag.is_none() && !self.tree.aliased.contains(&id)
    }

    /// Puts something into an empty list or mapping.
    fn fill(
        &mut self,
        id: Id,
        spot: Spot,
        mut new: Value,
        tokens: &[String],
        operation: &Operation,
    ) -> Option<()> {
        apply(&mut new, tokens, operation).ok()?;
        self.changes.insert(id, (spot, Change::Replace(new)));
        Some(())
    }

    fn replace(&mut self, id: Id, spot: Spot, value: &Value) -> Option<()> {
        if !self.is_free(id) {
            return None;
        }
        self.forget(id);
        self.changes.insert(id, (spot, Change::Replace(value.clone())));
        Some(())
    }

    /// Forgets what was to become of a node and of what is in it.
    fn forget(&mut self, id: Id) {
        let mut last = id;
        while let Some(child) = match &self.tree.node(last).kind {
            Kind::Sequence { items, .. } => items.last().copied(),
            Kind::Mapping { entries, .. } => entries.last().map(|entry| entry.value),
            Kind::Scalar { .. } | Kind::Alias(_) => None,
        } {
            last = child;
        }
        self.changes.retain(|other, _| !(id..=last).contains(other));
    }

    /// What becomes of the members of a mapping.
    fn members(&mut self, id: Id, spot: Spot) -> Option<(&mut BTreeSet<usize>, &mut Map<String, Value>)> {
        let none = || (spot, Change::Members { removed: BTreeSet::new(), added: Map::new() });
        match &mut self.changes.entry(id).or_insert_with(none).1 {
            Change::Members { removed, added } => Some((removed, added)),
            _ => None,
        }
    }

    fn remove_member(&mut self, id: Id, spot: Spot, number: usize, value: Id) -> Option<()> {
        self.forget(value);
        self.members(id, spot)?.0.insert(number);
        Some(())
    }

    /// An operation on a member that is not in the text.
    fn add_member(&mut self, id: Id, spot: Spot, tokens: &[String], operation: &Operation) -> Option<()> {
        let (_, added) = self.members(id, spot)?;
        match (tokens, operation) {
            ([name], Operation::Add { value, .. } | Operation::Replace { value, .. }) => {
                added.insert(name.clone(), value.clone());
                Some(())
            }
            // What is merged in cannot be removed, nor changed without being there twice.
            ([name], Operation::Remove { .. }) => added.shift_remove(name).map(|_| ()),
            ([name, rest @ ..], _) => apply(added.get_mut(name)?, rest, operation).ok(),
            ([], _) => None,
        }
    }

    /// An operation on the items of a list, or in one of them. When it is about an item of the text:
    /// its number, and the value that takes its place or `None` if it takes place inside of it.
    #[expect(
        clippy::option_option,
        reason = "the outer one is whether it is possible in place, as everywhere here"
    )]
    fn change_items(
        &mut self,
        id: Id,
        spot: Spot,
        old: &[Id],
        tokens: &[String],
        operation: &Operation,
    ) -> Option<Option<(usize, Option<Value>)>> {
        let (token, rest) = tokens.split_first()?;
        let all = || (spot, Change::Items((0..old.len()).map(Item::Old).collect()));
        let Change::Items(items) = &mut self.changes.entry(id).or_insert_with(all).1 else {
            return None;
        };
        let index = index(token, items.len()).filter(|index| *index <= items.len())?;
        match operation {
            Operation::Add { value, .. } if rest.is_empty() => {
                items.insert(index, Item::New(value.clone()));
                return Some(None);
            }
            Operation::Remove { .. } if rest.is_empty() => {
                if index >= items.len() {
                    return None;
                }
                if let Item::Old(number) = items.remove(index) {
                    self.forget(old[number]);
                }
                return Some(None);
            }
            _ => {}
        }
        match items.get_mut(index)? {
            Item::Old(number) => {
                let number = *number;
                let value = match operation {
                    Operation::Replace { value, .. } if rest.is_empty() => Some(value.clone()),
                    _ => None,
                };
                Some(Some((number, value)))
            }
            Item::New(new) => apply(new, rest, operation).ok().map(|()| None),
        }
    }

    /// The text with all operations applied; `None` when that cannot be done
    /// in place. `literal` is whether there may be literal blocks in what is new.
    pub fn text(&self, literal: bool) -> Option<String> {
        let writer = Writer::new(self.text, self.tree, literal);
        let mut patches = Vec::new();
        for (id, (spot, change)) in &self.changes {
            writer.change(*id, *spot, change, &mut patches)?;
        }
        patches.extend(writer.strip_last(&patches));
        // What is inserted at one place goes in front of what is taken away there.
        patches.sort_by_key(|patch| (patch.start, patch.end > patch.start, Reverse(patch.depth)));

        let line_break = line_break(self.text);
        let added: usize = patches.iter().map(|patch| patch.text.len()).sum();
        let mut out = String::with_capacity(self.text.len() + added);
        let mut done = 0;
        for patch in &patches {
            out.push_str(self.text.get(done..patch.start)?);
            if line_break == "\n" {
                out.push_str(&patch.text);
            } else {
                out.push_str(&patch.text.replace('\n', line_break));
            }
            done = patch.end;
        }
        out.push_str(self.text.get(done..)?);
        // The line break of a first line that is gone.
        let first = writer.first();
        if patches.iter().any(|patch| patch.start == first && patch.end > first && patch.text.is_empty()) {
            let rest = out.split_off(first);
            out.push_str(rest.strip_prefix(line_break).unwrap_or(&rest));
        }
        Some(out)
    }
}

/// What becomes of the items between two that stay: the numbers of those that go, and what comes.
/// Where some go and some come, these take the places of those, as far as they reach.
fn gaps(items: &[Item], old: usize) -> Vec<(Range<usize>, Vec<&Value>)> {
    let mut gaps = Vec::new();
    let (mut next, mut new) = (0, Vec::new());
    for item in items {
        match item {
            Item::New(value) => new.push(value),
            Item::Old(number) => {
                gaps.push((next..*number, std::mem::take(&mut new)));
                next = number + 1;
            }
        }
    }
    gaps.push((next..old, new));
    gaps
}

/// Writes changes in the style of a document.
struct Writer<'t, 'a> {
    text: &'a str,
    tree: &'t Tree<'a>,
    block: Block,
    /// The indentation of JSON that is on several lines.
    unit: Option<&'a str>,
    /// The style of a document that is in flow style as a whole.
    root_flow: Option<Flow>,
}

impl<'t, 'a> Writer<'t, 'a> {
    fn new(text: &'a str, tree: &'t Tree<'a>, literal: bool) -> Self {
        let mut writer =
            Self { text, tree, block: Block { literal, ..Block::default() }, unit: None, root_flow: None };
        match tree.root.map(|root| &tree.node(root).kind) {
            Some(Kind::Mapping { flow: true, entries }) => {
                writer.root_flow = Some(writer.first_flow());
                writer.unit = entries.first().and_then(|entry| writer.margin(entry.key));
            }
            Some(Kind::Sequence { flow: true, items }) => {
                writer.root_flow = Some(writer.first_flow());
                writer.unit = items.first().and_then(|item| writer.margin(*item));
            }
            _ => writer.take_over_style(),
        }
        writer
    }

    /// The style of the first flow mapping; that of JSON if there is none.
    fn first_flow(&self) -> Flow {
        let key = self.tree.nodes().find_map(|node| match &node.kind {
            Kind::Mapping { entries, .. } => entries.first().map(|entry| entry.key),
            _ => None,
        });
        let compact = key
            .and_then(|key| self.colon(key))
            .is_some_and(|colon| !self.text[colon..].starts_with([' ', '\t', '\r', '\n']));
        Flow { quoted: key.is_none_or(|key| self.is_quoted(key)), compact }
    }

    /// Takes the indentation of the first mapping and of the first list that
    /// is the value of a key.
    fn take_over_style(&mut self) {
        let (mut step, mut dash) = (None, None);
        for node in self.tree.nodes() {
            let Kind::Mapping { flow: false, entries } = &node.kind else {
                continue;
            };
            for entry in entries {
                let (found, value) = match &self.tree.node(entry.value).kind {
                    Kind::Mapping { flow: false, .. } => (&mut step, entry.value),
                    Kind::Sequence { flow: false, .. } => (&mut dash, entry.value),
                    _ => continue,
                };
                if found.is_none()
                    && let Some((_, column)) = self.opening(value)
                {
                    *found = column.checked_sub(self.tree.node(entry.key).column);
                }
            }
            if step.is_some() && dash.is_some() {
                break;
            }
        }
        if let Some(step) = step.filter(|step| (1..=MAX_INDENT).contains(step)) {
            self.block.step = step;
        }
        if let Some(dash) = dash.filter(|dash| *dash <= MAX_INDENT) {
            self.block.dash = dash;
        }
    }
}

/// The line break of a document: that of its first line.
fn line_break(text: &str) -> &'static str {
    match text.find('\n') {
        Some(end) if text[..end].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// A document written anew from its value, the best way first: between the
/// comments above and below what it was, and alone.
pub(super) fn reemissions(text: &str, tree: &Tree<'_>, value: &Value, is_json: bool) -> Vec<String> {
    let writer = Writer::new(text, tree, true);
    let content = if is_json {
        let style = Flow { compact: !text.trim().contains([' ', '\n']), ..Flow::JSON };
        let lines =
            text.trim().contains('\n').then(|| Lines { unit: writer.unit.unwrap_or(JSON_UNIT), indent: "" });
        write::flow(value, style, lines, true) + "\n"
    } else {
        write::to_yaml(value)
    };
    let content = content.replace('\n', line_break(text));

    let mut texts = Vec::new();
    if let Some(root) = tree.root
        && let Some((start, _)) = writer.opening(root)
    {
        let line = text[..start].rfind('\n').map_or(0, |line| line + 1);
        let marker = text[line..start].trim_start_matches(BOM).starts_with("---");
        let head = if marker {
            format!("{}---{}", &text[..line], line_break(text))
        } else {
            text[..line].to_owned()
        };
        let end = writer.line_end(tree.node(root).end);
        let tail = text[end..].split_once('\n').map_or("", |(_, tail)| tail);
        texts.push(format!("{head}{content}{tail}"));
    }
    let marker = if is_json { "" } else { "---\n" };
    texts.push(format!("{marker}{content}"));
    texts
}
