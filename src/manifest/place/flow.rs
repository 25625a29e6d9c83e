//! Changes of collections in flow style: `{a: 1}`, `[1, 2]`, and all of JSON.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value};

use super::{Patch, Role, Spot, Writer};
use crate::manifest::tree::{Entry, Id, Node};
use crate::manifest::write::{self, Flow, Lines};

impl<'a> Writer<'_, 'a> {
    pub(super) fn flow_members(
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

    /// Where a node inside of a flow collection is; where its value would be
    /// if it has none.
    pub(super) fn flow_place(&self, node: &Node<'a>, spot: Spot) -> Option<(usize, usize)> {
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
    pub(super) fn append_flow(
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
    pub(super) fn insert_flow(&self, next: Id, new: &[&Value], spot: Spot, patches: &mut Vec<Patch>) {
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
    pub(super) fn remove_flow(
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
    pub(super) fn entry(&self, entry: &Entry<'a>) -> Range<usize> {
        let value = self.tree.node(entry.value);
        let end = if value.start == value.end {
            self.colon(entry.key).unwrap_or(self.tree.node(entry.key).end).max(value.end)
        } else {
            value.end
        };
        self.begin(entry.key)..end
    }

    /// The flow style for what is next to a node, which is a key or an item,
    /// or takes its place.
    pub(super) fn flow_style(&self, neighbour: Id, spot: Spot) -> Flow {
        let key_is_quoted = match spot.role {
            Role::Member(key) => spot.flow && self.is_quoted(key),
            Role::Item | Role::Root => false,
        };
        let root = self.root_flow.unwrap_or(Flow::YAML);
        Flow { quoted: root.quoted || key_is_quoted || self.is_quoted(neighbour), ..root }
    }
}
