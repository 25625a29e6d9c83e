//! Where in the text of a document an operation takes place, and the text with
//! all of them applied.
//!
//! A [`Plan`] collects what becomes of each node of the tree, so that the
//! document is scanned once however many operations there are; then each
//! changed node gives a few [`Patch`]es of the text.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::ScalarStyle;

use super::tree::{Entry, Id, Kind, Node, Tree};
use super::write::{self, Block, DASH_WIDTH, Flow, Lines};
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

/// A member or an item of the block style in the text.
struct Part {
    /// Where its key or its dash is.
    start: usize,
    /// The column of that.
    column: usize,
    end: usize,
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

    fn change(&self, id: Id, spot: Spot, change: &Change, patches: &mut Vec<Patch>) -> Option<()> {
        let node = self.tree.node(id);
        match (change, &node.kind) {
            (Change::Replace(value), _) => self.replace(id, spot, value, patches),
            (Change::Members { removed, .. }, Kind::Mapping { flow: false, entries })
                if !removed.iter().all(|number| self.is_simple_key(entries[*number].key)) =>
            {
                None
            }
            (Change::Members { removed, added }, Kind::Mapping { flow: true, entries }) => {
                if removed.len() == entries.len() {
                    // Nothing to add to.
                    return self.replace(id, spot, &Value::Object(added.clone()), patches);
                }
                self.flow_members(node, entries, removed, added, spot, patches)
            }
            (Change::Members { removed, added }, Kind::Mapping { entries, .. }) => {
                if removed.len() == entries.len() && !added.is_empty() {
                    return self.replace(id, spot, &Value::Object(added.clone()), patches);
                }
                let parts: Vec<_> = removed
                    .iter()
                    .map(|number| {
                        let entry = &entries[*number];
                        let key = self.tree.node(entry.key);
                        Part { start: key.start, column: key.column, end: self.entry(entry).end }
                    })
                    .collect();
                if removed.len() == entries.len() {
                    return self.empty(id, spot, "{}", &parts, patches);
                }
                for part in &parts {
                    self.remove_block(part, spot, patches);
                }
                self.append_members(id, entries, added, spot, patches)
            }
            (Change::Items(new), Kind::Sequence { flow, items }) => {
                self.items(id, spot, *flow, items, new, patches)
            }
            _ => None,
        }
    }

    fn items(
        &self,
        id: Id,
        spot: Spot,
        flow: bool,
        items: &[Id],
        new: &[Item],
        patches: &mut Vec<Patch>,
    ) -> Option<()> {
        let mut removed = BTreeSet::new();
        for (gone, values) in gaps(new, items.len()) {
            let (mut gone, mut values) = (gone, values.as_slice());
            while let (Some(number), [value, rest @ ..]) = (gone.clone().next(), values) {
                if self.tree.node(items[number]).tag.is_some() {
                    return None;
                }
                self.replace(items[number], spot.child(flow, Role::Item), value, patches)?;
                (gone.start, values) = (number + 1, rest);
            }
            let next = items.get(gone.end);
            removed.extend(gone);
            match (values, next) {
                ([], _) => {}
                (values, Some(next)) if flow => self.insert_flow(*next, values, spot, patches),
                (values, Some(next)) => self.insert_items(*next, values, spot, patches)?,
                (values, None) => self.append_items(id, items, values, spot, patches)?,
            }
        }
        let is_empty = removed.len() == items.len();
        if flow && is_empty {
            return self.replace(id, spot, &Value::Array(Vec::new()), patches);
        }
        if flow {
            let places: Vec<_> =
                items.iter().map(|item| self.begin(*item)..self.tree.node(*item).end).collect();
            self.remove_flow(self.tree.node(id), &places, &removed, spot, patches);
            return Some(());
        }
        let mut parts = Vec::with_capacity(removed.len());
        for number in removed {
            let (start, column) = self.dash(items[number])?;
            parts.push(Part { start, column, end: self.tree.node(items[number]).end.max(start + 1) });
        }
        if is_empty {
            return self.empty(id, spot, "[]", &parts, patches);
        }
        for part in &parts {
            self.remove_block(part, spot, patches);
        }
        Some(())
    }

    fn flow_members(
        &self,
        node: &Node<'a>,
        entries: &[Entry<'a>],
        removed: &BTreeSet<usize>,
        added: &Map<String, Value>,
        spot: Spot,
        patches: &mut Vec<Patch>,
    ) -> Option<()> {
        // A single pair in a list (`[a: b]`) has no braces to be in.
        if !self.text[node.start..].starts_with('{') {
            return None;
        }
        let style = self.flow_style(entries.first()?.key, spot);
        let new: Vec<_> = added.iter().map(|(key, value)| (style.key(key), value)).collect();
        let places: Vec<_> = entries.iter().map(|entry| self.entry(entry)).collect();
        let last = (0..entries.len()).rev().find(|number| !removed.contains(number))?;
        let mut removed = removed.clone();
        if !new.is_empty() {
            // What comes takes the place of what was last.
            let tail = removed.split_off(&last);
            if let (Some(first), Some(end)) = (tail.first(), tail.last()) {
                let members: Vec<_> = new
                    .iter()
                    .map(|(key, value)| format!("{key}{}", write::flow(value, style, None, true)))
                    .collect();
                let (start, end) = (places[*first].start, places[*end].end);
                patches.push(Patch { start, end, depth: spot.depth, text: members.join(style.comma()) });
            } else {
                self.append_flow(node, entries[last].key, places[last].end, style, &new, spot, patches);
            }
        }
        self.remove_flow(node, &places, &removed, spot, patches);
        Some(())
    }

    fn append_members(
        &self,
        id: Id,
        entries: &[Entry<'a>],
        added: &Map<String, Value>,
        spot: Spot,
        patches: &mut Vec<Patch>,
    ) -> Option<()> {
        if added.is_empty() {
            return Some(());
        }
        if !entries.iter().all(|entry| self.is_simple_key(entry.key)) {
            return None;
        }
        let node = self.tree.node(id);
        let mut text = String::new();
        for (key, value) in added {
            write::line(&mut text, node.column);
            self.block.member(&mut text, key, value, node.column);
        }
        let at = self.end_with_comments(id, spot)?;
        patches.push(Patch { start: at, end: at, depth: spot.depth, text });
        Some(())
    }

    /// Adds items after the last one of a list.
    fn append_items(
        &self,
        id: Id,
        items: &[Id],
        new: &[&Value],
        spot: Spot,
        patches: &mut Vec<Patch>,
    ) -> Option<()> {
        let last = *items.last()?;
        if matches!(self.tree.node(id).kind, Kind::Sequence { flow: true, .. }) {
            let style = self.flow_style(last, spot);
            let new: Vec<_> = new.iter().map(|value| (String::new(), *value)).collect();
            let end = self.tree.node(last).end;
            self.append_flow(self.tree.node(id), last, end, style, &new, spot, patches);
            return Some(());
        }
        let (column, width) = self.item_style(last)?;
        let mut text = String::new();
        for value in new {
            write::line(&mut text, column);
            self.block.item(&mut text, value, column, width);
        }
        let at = self.end_with_comments(id, spot)?;
        patches.push(Patch { start: at, end: at, depth: spot.depth, text });
        Some(())
    }

    /// Inserts items of the block style in front of one, above the comments that belong to it.
    fn insert_items(&self, next: Id, new: &[&Value], spot: Spot, patches: &mut Vec<Patch>) -> Option<()> {
        let (dash, _) = self.dash(next)?;
        let (column, width) = self.item_style(next)?;
        let is_first_on_line = self.is_first_on_line(dash);
        let at = if is_first_on_line { self.start_with_comments(dash) } else { dash };
        let mut text = String::new();
        for value in new {
            if is_first_on_line {
                text.extend(std::iter::repeat_n(' ', column));
            }
            self.block.item(&mut text, value, column, width);
            text.push('\n');
            if !is_first_on_line {
                text.extend(std::iter::repeat_n(' ', column));
            }
        }
        patches.push(Patch { start: at, end: at, depth: spot.depth, text });
        Some(())
    }

    /// The column of the dash of an item, and the distance to its value.
    fn item_style(&self, item: Id) -> Option<(usize, usize)> {
        let (dash, column) = self.dash(item)?;
        let (value, value_column) = self.opening(item)?;
        let same_line = !self.text.get(dash..value)?.contains('\n');
        let width = Some(value_column.saturating_sub(column))
            .filter(|width| same_line && (DASH_WIDTH..=MAX_INDENT).contains(width))
            .unwrap_or(DASH_WIDTH);
        Some((column, width))
    }

    /// Removes the lines of a member or an item, with the comments inside of it. What is in front of it
    /// on its line, such as the dash of an outer list, stays.
    fn remove_block(&self, part: &Part, spot: Spot, patches: &mut Vec<Patch>) {
        let end = self.end_with_comments_below(part.end, part.column);
        let (start, end) = if self.is_first_on_line(part.start) {
            self.lines(part.start, end)
        } else {
            (self.text[..part.start].trim_end_matches([' ', '\t']).len(), end)
        };
        patches.push(Patch { start, end, depth: spot.depth, text: String::new() });
    }

    /// Makes a list or mapping of the block style an empty one, and keeps the comments between its
    /// parts.
    fn empty(&self, id: Id, spot: Spot, empty: &str, parts: &[Part], patches: &mut Vec<Patch>) -> Option<()> {
        let (first, others) = parts.split_first()?;
        let others = if let Role::Member(key) = spot.role {
            let colon = self.after_properties(self.colon(key)?);
            if !self.is_first_on_line(first.start)
                || self.text[colon..first.start].trim_start_matches([' ', '\t']).starts_with('-')
            {
                return self.replace(id, spot, &serde_json::from_str(empty).ok()?, patches);
            }
            patches.push(Patch { start: colon, end: colon, depth: spot.depth, text: format!(" {empty}") });
            parts
        } else {
            let end = self.end_with_comments_below(first.end, first.column);
            patches.push(Patch { start: first.start, end, depth: spot.depth, text: empty.to_owned() });
            others
        };
        for part in others {
            self.remove_block(part, spot, patches);
        }
        Some(())
    }

    /// Writes a value in the place of a node.
    fn replace(&self, id: Id, spot: Spot, value: &Value, patches: &mut Vec<Patch>) -> Option<()> {
        let node = self.tree.node(id);
        let depth = spot.depth;
        let mut patch = |start, end, text| patches.push(Patch { start, end, depth, text });
        if spot.flow || self.root_flow.is_some() {
            let (start, end) = self.flow_place(node, spot)?;
            let lines = self.unit.map(|unit| Lines { unit, indent: self.indent(start) });
            let style = self.flow_style(id, spot);
            let space = if start == end && !style.compact { " " } else { "" };
            patch(start, end, format!("{space}{}", write::flow(value, style, lines, true)));
            return Some(());
        }
        let (before, text) = match spot.role {
            Role::Member(key) => {
                let colon = self.colon(key)?;
                let key = self.tree.node(key);
                if node.start != node.end && self.is_below(id, colon)? {
                    return self.replace_below(id, key.column, colon, value, &mut patch);
                }
                let mut text = String::new();
                self.block.after_colon(&mut text, value, key.column);
                (colon, text)
            }
            Role::Item | Role::Root => {
                let (dash, column) = match spot.role {
                    Role::Item => self.dash(id)?,
                    _ => (0, 0),
                };
                let mut text = String::from(" ");
                let column = match value {
                    Value::Object(_) | Value::Array(_) if self.is_literal(id) => {
                        column + self.header(dash + 1)?.start - dash
                    }
                    Value::Object(_) | Value::Array(_) => self.opening(id)?.1,
                    _ => column,
                };
                self.block.value(&mut text, value, column);
                (dash + 1, text)
            }
        };
        let is_block = match &node.kind {
            Kind::Scalar { .. } if self.is_literal(id) => {
                return self.replace_literal(node, before, &text, &mut patch);
            }
            Kind::Sequence { flow, .. } | Kind::Mapping { flow, .. } => !flow,
            Kind::Scalar { .. } | Kind::Alias(_) => false,
        };
        if is_block {
            let (start, _) = self.opening(id)?;
            patch(start, self.line_end(node.end), text.trim_start_matches(' ').to_owned());
            return Some(());
        }
        // What of the new value is on the line of the key goes where the old value is, in front of a
        // comment; the lines that follow go under that line.
        let (first, rest) = text.find('\n').map_or((text.as_str(), ""), |end| text.split_at(end));
        let end = if node.start == node.end {
            // Something else is there, such as an anchor.
            if node.start > before {
                return None;
            }
            patch(before, before, first.to_owned());
            before
        } else {
            let start = if first.is_empty() {
                self.text[..node.start].trim_end_matches([' ', '\t']).len()
            } else {
                node.start
            };
            patch(start, node.end, first.trim_start().to_owned());
            node.end
        };
        let line_end = self.line_end(end);
        patch(line_end, line_end, rest.to_owned());
        Some(())
    }

    /// Writes the text of a value in the place of a literal or folded block. `before` is right behind
    /// the colon or the dash in front of it.
    fn replace_literal(
        &self,
        node: &Node<'a>,
        before: usize,
        text: &str,
        patch: &mut impl FnMut(usize, usize, String),
    ) -> Option<()> {
        let (first, rest) = text.find('\n').map_or((text, ""), |end| text.split_at(end));
        let header = self.header(before)?;
        let line_end = self.line_end(header.end);
        // No blank stays behind the colon of a list or a mapping.
        let start = if first.is_empty() { before } else { header.start };
        patch(start, header.end, first.trim_start().to_owned());
        patch(line_end, node.end.max(line_end), rest.to_owned());
        Some(())
    }

    /// Writes a value in the place of one on the lines below its key.
    fn replace_below(
        &self,
        id: Id,
        key_column: usize,
        colon: usize,
        value: &Value,
        patch: &mut impl FnMut(usize, usize, String),
    ) -> Option<()> {
        let node = self.tree.node(id);
        let (start, opening_column) = self.opening(id)?;
        let column = match (value, &node.kind) {
            (Value::Object(new), Kind::Mapping { flow: false, .. }) if !new.is_empty() => {
                Some(opening_column)
            }
            (Value::Array(new), Kind::Sequence { flow: false, .. }) if !new.is_empty() => {
                Some(opening_column)
            }
            (Value::Object(new), _) if !new.is_empty() => Some(key_column + self.block.step),
            (Value::Array(new), _) if !new.is_empty() => Some(key_column + self.block.dash),
            _ => None,
        };
        if let Some(column) = column {
            let mut text = " ".repeat(column);
            self.block.value(&mut text, value, column);
            patch(self.line_start(start), self.line_end(node.end), text);
            return Some(());
        }
        if matches!(node.kind, Kind::Scalar { .. } | Kind::Alias(_))
            && !matches!(value, Value::String(text) if text.contains('\n'))
        {
            let mut text = String::new();
            self.block.value(&mut text, value, key_column);
            patch(node.start, node.end, text);
            return Some(());
        }
        let mut text = String::new();
        self.block.after_colon(&mut text, value, key_column);
        let (first, rest) = text.find('\n').map_or((text.as_str(), ""), |end| text.split_at(end));
        let place = self.after_properties(colon);
        let line_end = self.line_end(colon);
        patch(place, place, first.to_owned());
        patch(line_end, line_end, rest.to_owned());
        let (start, end) = self.lines(start, node.end);
        patch(start, end, String::new());
        Some(())
    }

    /// Whether a node is a literal or folded block.
    fn is_literal(&self, id: Id) -> bool {
        matches!(
            self.tree.node(id).kind,
            Kind::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. }
        )
    }

    /// Whether a value starts on a line below `colon`, which is right behind its key.
    fn is_below(&self, id: Id, colon: usize) -> Option<bool> {
        Some(!self.is_literal(id) && self.text.get(colon..self.opening(id)?.0)?.contains('\n'))
    }

    /// The header (`|-`) of a literal or folded block, of which `before` is right behind the colon or
    /// the dash in front of it.
    fn header(&self, before: usize) -> Option<Range<usize>> {
        let rest = &self.text[before..];
        let start = before + rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let header = &self.text[start..];
        let length = header.find([' ', '\t', '\r', '\n']).unwrap_or(header.len());
        header.starts_with(['|', '>']).then(|| start..start + length)
    }

    /// A literal or folded block that ends the text without a line break has none at its end. What is
    /// written behind it gives it one, so that its header has to say that it is not content.
    fn strip_last(&self, patches: &[Patch]) -> Option<Patch> {
        let text = self.text.len();
        if self.text.ends_with('\n')
            || !patches.iter().any(|patch| patch.start == text && !patch.text.is_empty())
        {
            return None;
        }
        let (mut id, mut key) = (self.tree.root?, None);
        loop {
            (id, key) = match &self.tree.node(id).kind {
                Kind::Sequence { flow: false, items } => (*items.last()?, None),
                Kind::Mapping { flow: false, entries } => {
                    entries.last().map(|last| (last.value, Some(last.key)))?
                }
                _ => break,
            };
        }
        let node = self.tree.node(id);
        if !self.is_literal(id) {
            return None;
        }
        let before = match key {
            Some(key) => self.colon(key)?,
            None => self.dash(id)?.0 + 1,
        };
        let header = self.header(before)?;
        let is_gone = patches.iter().any(|patch| patch.start < header.end && header.start < patch.end);
        let indicators = &self.text[header.clone()];
        (node.end == text && !is_gone && !indicators.contains('-')).then(|| Patch {
            start: header.start,
            end: header.end,
            depth: 0,
            text: indicators.replace('+', "") + "-",
        })
    }

    /// Where a node inside of a flow collection is; where its value would be
    /// if it has none.
    fn flow_place(&self, node: &Node<'a>, spot: Spot) -> Option<(usize, usize)> {
        if node.start != node.end {
            return Some((node.start, node.end));
        }
        let Role::Member(key) = spot.role else {
            return None;
        };
        let colon = self.colon(key)?;
        (node.start <= colon).then_some((colon, colon))
    }

    /// Appends entries to a flow collection. `start` is the node its last entry starts with, and `end`
    /// where that one ends.
    #[expect(clippy::too_many_arguments, reason = "they are what an entry is written from")]
    fn append_flow(
        &self,
        node: &Node<'a>,
        start: Id,
        end: usize,
        style: Flow,
        new: &[(String, &Value)],
        spot: Spot,
        patches: &mut Vec<Patch>,
    ) {
        let margin = self.margin(start);
        let after = self.text[end..node.end].trim_start();
        let has_comma = after.starts_with(',');
        let line_end = self.line_end(end);
        let rest = &self.text[end..line_end];
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        let ends_line = rest.is_empty() || rest.starts_with('#');

        let lines = margin.filter(|_| ends_line);
        let mut text = String::new();
        for (index, (key, value)) in new.iter().enumerate() {
            match lines {
                Some(indent) => {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push('\n');
                    text.push_str(indent);
                }
                None => text.push_str(style.comma()),
            }
            text.push_str(key);
            let layout = lines.zip(self.unit).map(|(indent, unit)| Lines { unit, indent });
            text.push_str(&write::flow(value, style, layout, true));
        }
        let mut patch = |at, text| patches.push(Patch { start: at, end: at, depth: spot.depth, text });
        match lines {
            None => patch(end, text),
            Some(_) if has_comma => patch(line_end, text + ","),
            Some(_) => {
                patch(end, ",".to_owned());
                patch(line_end, text);
            }
        }
    }

    /// Inserts items of the flow style in front of one.
    fn insert_flow(&self, next: Id, new: &[&Value], spot: Spot, patches: &mut Vec<Patch>) {
        let style = self.flow_style(next, spot);
        let begin = self.begin(next);
        let margin = self.margin(next).filter(|_| self.is_first_on_line(begin));
        let at = if margin.is_some() { self.start_with_comments(begin) } else { begin };
        let mut text = String::new();
        for value in new {
            let lines = margin.zip(self.unit).map(|(indent, unit)| Lines { unit, indent });
            let value = write::flow(value, style, lines, true);
            match margin {
                Some(margin) => text.extend([margin, &value, ",\n"]),
                None => text.extend([value.as_str(), style.comma()]),
            }
        }
        patches.push(Patch { start: at, end: at, depth: spot.depth, text });
    }

    /// Removes entries of a flow collection that keeps some. `places` are those of all entries.
    fn remove_flow(
        &self,
        node: &Node<'a>,
        places: &[Range<usize>],
        removed: &BTreeSet<usize>,
        spot: Spot,
        patches: &mut Vec<Patch>,
    ) {
        let mut patch = |(start, end): (usize, usize)| {
            patches.push(Patch { start, end, depth: spot.depth, text: String::new() });
        };
        let comma = |at: usize| {
            let after = self.text[at..node.end].trim_start();
            after.starts_with(',').then(|| node.end - after.len())
        };
        for (number, place) in places.iter().enumerate().filter(|(number, _)| removed.contains(number)) {
            let own_comma = comma(place.end);
            let end = own_comma.map_or(place.end, |comma| comma + 1);
            let rest = self.text[end..self.line_end(end)].trim_start();
            let has_lines = self.is_first_on_line(place.start) && (rest.is_empty() || rest.starts_with('#'));
            let next = places.get(number + 1).map(|next| next.start);
            match next {
                _ if has_lines => patch(self.lines(place.start, end)),
                Some(next) if !self.text[end..next].contains('#') => patch((place.start, next)),
                _ => patch((place.start, end)),
            }
            // The last one to stay loses its comma, unless the last one had one too.
            let previous = (0..number).rev().find(|number| !removed.contains(number));
            let is_tail = (number..places.len()).all(|number| removed.contains(&number));
            let has_last_comma = places.last().is_some_and(|last| comma(last.end).is_some());
            if let Some(previous) =
                previous.filter(|previous| is_tail && previous + 1 == number && !has_last_comma)
                && let Some(comma) = comma(places[previous].end)
            {
                let blanks = self.text[comma + 1..place.start].chars().all(|c| c == ' ' || c == '\t');
                patch((comma, if blanks && !has_lines { place.start } else { comma + 1 }));
            }
        }
    }

    /// Where a member of a flow mapping is.
    fn entry(&self, entry: &Entry<'a>) -> Range<usize> {
        let value = self.tree.node(entry.value);
        let end = if value.start == value.end {
            self.colon(entry.key).unwrap_or(self.tree.node(entry.key).end).max(value.end)
        } else {
            value.end
        };
        self.begin(entry.key)..end
    }

    /// Where a node starts, with the tag and the anchor in front of it on its line.
    fn begin(&self, id: Id) -> usize {
        let mut begin = self.tree.node(id).start;
        loop {
            let before = self.text[..begin].trim_end_matches([' ', '\t']);
            let property = before.rfind([' ', '\t', '\n', ',', '[', '{']).map_or(0, |at| at + 1);
            if !before[property..].starts_with(['&', '!']) {
                return begin;
            }
            begin = property;
        }
    }

    /// The end of the tag and the anchor behind a colon; where it is if there are none.
    fn after_properties(&self, colon: usize) -> usize {
        let mut end = colon;
        loop {
            let rest = &self.text[end..];
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            if !rest[blanks..].starts_with(['&', '!']) {
                return end;
            }
            let property = &rest[blanks..];
            end += blanks + property.find([' ', '\t', '\r', '\n']).unwrap_or(property.len());
        }
    }

    /// The flow style for what is next to a node, which is a key or an item,
    /// or takes its place.
    fn flow_style(&self, neighbour: Id, spot: Spot) -> Flow {
        let key_is_quoted = match spot.role {
            Role::Member(key) => spot.flow && self.is_quoted(key),
            Role::Item | Role::Root => false,
        };
        let root = self.root_flow.unwrap_or(Flow::YAML);
        Flow { quoted: root.quoted || key_is_quoted || self.is_quoted(neighbour), ..root }
    }

    fn is_quoted(&self, id: Id) -> bool {
        matches!(self.tree.node(id).kind, Kind::Scalar { style: ScalarStyle::DoubleQuoted, .. })
    }

    /// Where the text of a block collection ends, with the comments on lines
    /// of their own that are indented like its content. Those further left
    /// belong to what follows.
    fn end_with_comments(&self, id: Id, spot: Spot) -> Option<usize> {
        let outer = match spot.role {
            Role::Root => 0,
            Role::Member(key) => self.tree.node(key).column,
            Role::Item => self.dash(id)?.1,
        };
        Some(self.end_with_comments_below(self.tree.node(id).end, outer))
    }

    /// The end of the line that `at` is on, or of the last of the comments below it that are further
    /// right than `column`.
    fn end_with_comments_below(&self, at: usize, column: usize) -> usize {
        let mut end = self.line_end(at);
        while let Some((_, next)) = self.text[end..].split_once('\n') {
            let start = self.text.len() - next.len();
            let content = next.trim_start_matches(' ');
            if !content.starts_with('#') || next.len() - content.len() <= column {
                break;
            }
            end = self.line_end(start);
        }
        end
    }

    /// The start of the line that `at` is the first thing on, or of the first of the comments right
    /// above it that are indented as far.
    fn start_with_comments(&self, at: usize) -> usize {
        let mut start = self.line_start(at);
        let margin = &self.text[start..at];
        while let Some(above) = self.text[..start].strip_suffix('\n') {
            let line = self.line_start(above.len());
            match above[line..].strip_prefix(margin) {
                Some(content) if content.starts_with('#') => start = line,
                _ => break,
            }
        }
        start
    }

    /// The lines from the one that `start` is on to the one that `end` is on, with the line break in
    /// front of them, so that a last line without one stays one.
    fn lines(&self, start: usize, end: usize) -> (usize, usize) {
        let start = self.line_start(start);
        let before = self.text[..start].strip_suffix('\n');
        let start = before.map_or(start, |before| before.strip_suffix('\r').unwrap_or(before).len());
        (start, self.line_end(end))
    }

    fn line_start(&self, at: usize) -> usize {
        match self.text[..at].rfind('\n') {
            Some(line) => line + 1,
            None => self.first(),
        }
    }

    /// Where the first line starts.
    fn first(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(BOM).len()
    }

    fn is_first_on_line(&self, at: usize) -> bool {
        self.text[self.line_start(at)..at].bytes().all(|byte| byte == b' ' || byte == b'\t')
    }

    /// Where a node starts and at which column: a list at its first dash.
    fn opening(&self, id: Id) -> Option<(usize, usize)> {
        let node = self.tree.node(id);
        match &node.kind {
            Kind::Sequence { flow: false, items } => self.dash(*items.first()?),
            _ => Some((node.start, node.column)),
        }
    }

    /// The place and the column of the dash in front of an item.
    fn dash(&self, item: Id) -> Option<(usize, usize)> {
        let (start, _) = self.opening(item)?;
        let node = self.tree.node(item);
        let is_literal = self.is_literal(item);
        // One without content starts behind its header.
        let mut before = &self.text[..if is_literal { start.min(node.end) } else { start }];
        loop {
            let line_start = before.rfind('\n').map_or(0, |line| line + 1);
            let line = before[line_start..].trim_start_matches(BOM);
            let line_start = before.len() - line.len();
            // A comment between the dash and its item.
            let comment = match line.find(" #") {
                _ if line.trim_start().starts_with('#') => Some(0),
                found => found,
            };
            let mut line = line[..comment.unwrap_or(line.len())].trim_end();
            // The header of a literal or folded block.
            if is_literal
                && let Some(header) =
                    line.rfind([' ', '\t']).filter(|at| line[at + 1..].starts_with(['|', '>']))
            {
                line = line[..header].trim_end();
            }
            // The tag and the anchor of the item.
            while let Some(property) =
                line.rfind([' ', '\t']).filter(|at| line[at + 1..].starts_with(['&', '!']))
            {
                line = line[..property].trim_end();
            }
            if let Some(indent) = line.strip_suffix('-') {
                return Some((line_start + indent.len(), indent.chars().count()));
            }
            if !line.is_empty() && !line.starts_with(['&', '!']) || line_start == 0 {
                return None;
            }
            before = &self.text[..line_start - 1];
        }
    }

    /// The place right after the colon of a key.
    fn colon(&self, key: Id) -> Option<usize> {
        let end = self.tree.node(key).end;
        let rest = &self.text[end..];
        let blanks = rest.len() - rest.trim_start().len();
        rest[blanks..].starts_with(':').then_some(end + blanks + 1)
    }

    /// Whether a key is the first thing on its line, but for dashes: without
    /// `? `, an anchor or a tag.
    fn is_simple_key(&self, key: Id) -> bool {
        let node = self.tree.node(key);
        let line = self.text[..node.start].rfind('\n').map_or(0, |at| at + 1);
        !node.anchored && node.tag.is_none() && !self.text[line..node.start].contains(['?', '\t'])
    }

    /// The end of the line that `at` is on, in front of its line break.
    fn line_end(&self, at: usize) -> usize {
        let end = self.text[at..].find('\n').map_or(self.text.len(), |end| at + end);
        if end > at && self.text[..end].ends_with('\r') { end - 1 } else { end }
    }

    /// The indentation of the line that `at` is on.
    fn indent(&self, at: usize) -> &'a str {
        let start = self.text[..at].rfind('\n').map_or(0, |line| line + 1);
        let line = &self.text[start..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// What is in front of a node that is the first thing on a line other than
    /// the first one of the document.
    fn margin(&self, id: Id) -> Option<&'a str> {
        let start = self.tree.node(id).start;
        let line = self.text[..start].rfind('\n')? + 1;
        let margin = &self.text[line..start];
        margin.trim_start_matches([' ', '\t']).is_empty().then_some(margin)
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
