//! Where in the text of a document an operation takes place, and the text with
//! all of them applied.
//!
//! A [`Plan`] collects what becomes of each node of the tree, so that the
//! document is scanned once however many operations there are; then each
//! changed node gives a few [`Patch`]es of the text.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::ScalarStyle;

use super::tree::{Id, Kind, Node, Tree};
use super::write::{self, Block, DASH_WIDTH, Flow, Lines};
use super::{BOM, add, index};

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
    /// The value takes the place of the node, which is a scalar, an alias, or
    /// an empty list or mapping.
    Replace(Value),
    /// Members after the last one of a mapping that has some.
    Members(Map<String, Value>),
    /// Items after the last one of a list that has some.
    Items(Vec<Value>),
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
    /// Of the patches at one place, those of deeper nodes come first.
    depth: usize,
    text: String,
}

impl<'t, 'a> Plan<'t, 'a> {
    pub fn new(text: &'a str, tree: &'t Tree<'a>) -> Self {
        Self { text, tree, changes: BTreeMap::new() }
    }

    /// Adds an operation that is known to apply to the values of the document
    /// (with the operations before it). `None` when it cannot be done in place.
    pub fn add(&mut self, tokens: &[String], value: &Value) -> Option<()> {
        let mut id = self.tree.root?;
        let mut spot = Spot { depth: 0, flow: false, role: Role::Root };
        for (position, token) in tokens.iter().enumerate() {
            let rest = &tokens[position..];
            let tree = self.tree;
            let node = tree.node(id);
            if let Some((_, Change::Replace(new))) = self.changes.get_mut(&id) {
                return add(new, rest, value.clone()).ok();
            }
            if !self.is_free(id) {
                return None;
            }
            let (child, flow, role) = match &node.kind {
                Kind::Mapping { entries, .. } if entries.is_empty() => {
                    return self.replace(id, spot, Value::Object(Map::new()), rest, value);
                }
                Kind::Sequence { items, .. } if items.is_empty() => {
                    return self.replace(id, spot, Value::Array(Vec::new()), rest, value);
                }
                Kind::Mapping { flow, entries } => {
                    let entry = entries.iter().find(|entry| entry.name.as_deref() == Some(token));
                    let Some(entry) = entry else {
                        // Not for what is merged in: it would be there twice.
                        let merges = entries.iter().any(|entry| entry.name.is_none());
                        return self.append_member(id, spot, rest, value, merges);
                    };
                    (entry.value, *flow, Role::Member(entry.key))
                }
                Kind::Sequence { flow, items } => {
                    let index = index(token, items.len())?;
                    let Some(item) = items.get(index) else {
                        return self.append_item(id, spot, items.len(), rest, value);
                    };
                    (*item, *flow, Role::Item)
                }
                Kind::Scalar { .. } | Kind::Alias(_) => return None,
            };
            id = child;
            spot = Spot { depth: spot.depth + 1, flow: spot.flow || flow, role };
        }
        // `add` inserts in front of an item that exists, and moves it.
        let Role::Member(_) = spot.role else {
            return None;
        };
        if let Some((_, Change::Replace(new))) = self.changes.get_mut(&id) {
            *new = value.clone();
            return Some(());
        }
        let empty = match &self.tree.node(id).kind {
            Kind::Mapping { entries, .. } => entries.is_empty(),
            Kind::Sequence { items, .. } => items.is_empty(),
            Kind::Scalar { .. } | Kind::Alias(_) => true,
        };
        (empty && self.is_free(id))
            .then(|| self.changes.insert(id, (spot, Change::Replace(value.clone()))))
            .map(|_| ())
    }

    /// Whether changing the node changes nothing else and keeps its meaning.
    fn is_free(&self, id: Id) -> bool {
        self.tree.node(id).tag.is_none() && !self.tree.aliased.contains(&id)
    }

    fn replace(
        &mut self,
        id: Id,
        spot: Spot,
        mut new: Value,
        tokens: &[String],
        value: &Value,
    ) -> Option<()> {
        add(&mut new, tokens, value.clone()).ok()?;
        self.changes.insert(id, (spot, Change::Replace(new)));
        Some(())
    }

    fn append_member(
        &mut self,
        id: Id,
        spot: Spot,
        tokens: &[String],
        value: &Value,
        merges: bool,
    ) -> Option<()> {
        let (_, change) = self.changes.entry(id).or_insert_with(|| (spot, Change::Members(Map::new())));
        let Change::Members(members) = change else {
            return None;
        };
        match tokens {
            [name] => {
                members.insert(name.clone(), value.clone());
                Some(())
            }
            [name, rest @ ..] if !merges || members.contains_key(name) => {
                add(members.get_mut(name)?, rest, value.clone()).ok()
            }
            _ => None,
        }
    }

    fn append_item(
        &mut self,
        id: Id,
        spot: Spot,
        existing: usize,
        tokens: &[String],
        value: &Value,
    ) -> Option<()> {
        let (_, change) = self.changes.entry(id).or_insert_with(|| (spot, Change::Items(Vec::new())));
        let Change::Items(items) = change else {
            return None;
        };
        let (token, rest) = tokens.split_first()?;
        let index = index(token, existing + items.len())? - existing;
        if rest.is_empty() {
            (index <= items.len()).then(|| items.insert(index, value.clone()))
        } else {
            add(items.get_mut(index)?, rest, value.clone()).ok()
        }
    }

    /// The text with all operations applied; `None` when that cannot be done
    /// in place.
    pub fn text(&self) -> Option<String> {
        let writer = Writer::new(self.text, self.tree);
        let mut patches = Vec::new();
        for (id, (spot, change)) in &self.changes {
            writer.change(*id, *spot, change, &mut patches)?;
        }
        patches.sort_by_key(|patch| (patch.start, Reverse(patch.depth)));

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
        Some(out)
    }
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
    fn new(text: &'a str, tree: &'t Tree<'a>) -> Self {
        let mut writer = Self {
            text,
            tree,
            block: Block { literal: text.ends_with('\n'), ..Block::default() },
            unit: None,
            root_flow: None,
        };
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
        let depth = spot.depth;
        let mut patch = |start, end, text| {
            patches.push(Patch { start, end, depth, text });
        };
        match (change, &node.kind) {
            (Change::Replace(value), _) if spot.flow || self.root_flow.is_some() => {
                let (start, end) = self.flow_place(node, spot)?;
                let lines = self.unit.map(|unit| Lines { unit, indent: self.indent(start) });
                let style = self.flow_style(id, spot);
                let space = if start == end && !style.compact { " " } else { "" };
                let text = write::flow(value, style, lines, true);
                patch(start, end, format!("{space}{text}"));
            }
            (Change::Replace(value), _) => {
                self.replace(node, spot, value, &mut patch)?;
            }
            (Change::Members(new), Kind::Mapping { flow: true, entries }) => {
                let first = entries.first()?;
                let style = self.flow_style(first.key, spot);
                let last = entries.last()?;
                let new = new.iter().map(|(key, value)| (style.key(key), value));
                self.append_flow(node, last.key, last.value, style, new, &mut patch)?;
            }
            (Change::Items(new), Kind::Sequence { flow: true, items }) => {
                let last = *items.last()?;
                let style = self.flow_style(last, spot);
                let new = new.iter().map(|value| (String::new(), value));
                self.append_flow(node, last, last, style, new, &mut patch)?;
            }
            (Change::Members(new), Kind::Mapping { entries, .. }) => {
                if !entries.iter().all(|entry| self.is_simple_key(entry.key)) {
                    return None;
                }
                let mut text = String::new();
                for (key, value) in new {
                    write::line(&mut text, node.column);
                    self.block.member(&mut text, key, value, node.column);
                }
                let at = self.end_with_comments(id, spot)?;
                patch(at, at, text);
            }
            (Change::Items(new), Kind::Sequence { items, .. }) => {
                let last = *items.last()?;
                let (dash, column) = self.dash(last)?;
                let (value, value_column) = self.opening(last)?;
                let same_line = !self.text[dash..value].contains('\n');
                let width = Some(value_column.saturating_sub(column))
                    .filter(|width| same_line && (DASH_WIDTH..=MAX_INDENT).contains(width))
                    .unwrap_or(DASH_WIDTH);
                let mut text = String::new();
                for value in new {
                    write::line(&mut text, column);
                    self.block.item(&mut text, value, column, width);
                }
                let at = self.end_with_comments(id, spot)?;
                patch(at, at, text);
            }
            _ => return None,
        }
        Some(())
    }

    /// Replaces a node of the block style. What of the new value is on the line
    /// of the key goes where the old value is, in front of a comment; the lines
    /// that follow go under that line.
    fn replace(
        &self,
        node: &Node<'a>,
        spot: Spot,
        value: &Value,
        patch: &mut impl FnMut(usize, usize, String),
    ) -> Option<()> {
        let mut text = String::new();
        match spot.role {
            Role::Member(key) => {
                let key = self.tree.node(key);
                self.block.after_colon(&mut text, value, key.column);
            }
            Role::Item | Role::Root => {
                text.push(' ');
                self.block.value(&mut text, value, node.column);
            }
        }
        let (first, rest) = match text.find('\n') {
            Some(end) => text.split_at(end),
            None => (text.as_str(), ""),
        };

        let style = match &node.kind {
            Kind::Scalar { style, .. } => *style,
            _ => ScalarStyle::Plain,
        };
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            let Role::Member(key) = spot.role else {
                return None;
            };
            let start = self.colon(key)?;
            let header = self.text[start..].trim_start_matches([' ', '\t']);
            let header = header.starts_with(['|', '>']).then(|| header.find([' ', '\t', '\r', '\n']))??;
            let blanks = self.text[start..].find(['|', '>']).unwrap_or_default();
            let end = start + blanks + header;
            let line_end = self.line_end(end);
            patch(start, end, first.to_owned());
            patch(line_end, node.end.max(line_end), rest.to_owned());
            return Some(());
        }
        let end = if node.start == node.end {
            let Role::Member(key) = spot.role else {
                return None;
            };
            let colon = self.colon(key)?;
            // Something else is there, such as an anchor.
            if node.start > colon {
                return None;
            }
            patch(colon, colon, first.to_owned());
            colon
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

    /// Appends entries to a flow collection that has some. `start` and `end`
    /// are the nodes its last entry starts and ends with.
    fn append_flow<'v>(
        &self,
        node: &Node<'a>,
        start: Id,
        end: Id,
        style: Flow,
        new: impl Iterator<Item = (String, &'v Value)>,
        patch: &mut impl FnMut(usize, usize, String),
    ) -> Option<()> {
        // A single pair in a list (`[a: b]`) has no braces to be in.
        if !self.text[node.start..].starts_with(['{', '[']) {
            return None;
        }
        let margin = self.margin(start);
        let end = self.tree.node(end).end;
        let after = self.text[end..node.end].trim_start();
        let has_comma = after.starts_with(',');
        let line_end = self.line_end(end);
        let rest = &self.text[end..line_end];
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        let ends_line = rest.is_empty() || rest.starts_with('#');

        let lines = margin.filter(|_| ends_line);
        let mut text = String::new();
        for (index, (key, value)) in new.enumerate() {
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
            text.push_str(&key);
            let layout = lines.zip(self.unit).map(|(indent, unit)| Lines { unit, indent });
            text.push_str(&write::flow(value, style, layout, true));
        }
        match lines {
            None => patch(end, end, text),
            Some(_) if has_comma => patch(line_end, line_end, text + ","),
            Some(_) => {
                patch(end, end, ",".to_owned());
                patch(line_end, line_end, text);
            }
        }
        Some(())
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
        let mut end = self.line_end(self.tree.node(id).end);
        while let Some((_, next)) = self.text[end..].split_once('\n') {
            let start = self.text.len() - next.len();
            let content = next.trim_start_matches(' ');
            if !content.starts_with('#') || next.len() - content.len() <= outer {
                break;
            }
            end = self.line_end(start);
        }
        Some(end)
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
        let mut before = &self.text[..start];
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
    let writer = Writer::new(text, tree);
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
