//! The patches that a change of a node is. What they are inside of flow collections is in `flow.rs`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Change, Item, Patch, Role, Spot, Writer, gaps};
use crate::manifest::tree::{Entry, Id, Kind, Node};
use crate::manifest::write::{self, Lines};

/// A member or an item of the block style in the text.
struct Part {
    /// Where its key or its dash is.
    start: usize,
    /// The column of that.
    column: usize,
    end: usize,
}

impl<'a> Writer<'_, 'a> {
    pub(super) fn change(&self, id: Id, spot: Spot, change: &Change, patches: &mut Vec<Patch>) -> Option<()> {
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
    pub(super) fn replace(&self, id: Id, spot: Spot, value: &Value, patches: &mut Vec<Patch>) -> Option<()> {
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

    /// A literal or folded block that ends the text without a line break has none at its end. What is
    /// written behind it gives it one, so that its header has to say that it is not content.
    pub(super) fn strip_last(&self, patches: &[Patch]) -> Option<Patch> {
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
}
