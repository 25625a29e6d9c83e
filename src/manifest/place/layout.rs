//! Where things are in the text of a document.

use std::ops::Range;

use serde_saphyr::granit_parser::ScalarStyle;

use super::{BOM, MAX_INDENT, Role, Spot, Writer};
use crate::manifest::tree::{Id, Kind};
use crate::manifest::write::DASH_WIDTH;

impl<'a> Writer<'_, 'a> {
    /// The column of the dash of an item, and the distance to its value.
    pub(super) fn item_style(&self, item: Id) -> Option<(usize, usize)> {
        let (dash, column) = self.dash(item)?;
        let (value, value_column) = self.opening(item)?;
        let same_line = !self.text.get(dash..value)?.contains('\n');
        let width = Some(value_column.saturating_sub(column))
            .filter(|width| same_line && (DASH_WIDTH..=MAX_INDENT).contains(width))
            .unwrap_or(DASH_WIDTH);
        Some((column, width))
    }

    /// Whether a node is a literal or folded block.
    pub(super) fn is_literal(&self, id: Id) -> bool {
        matches!(
            self.tree.node(id).kind,
            Kind::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. }
        )
    }

    /// Whether a value starts on a line below `colon`, which is right behind its key.
    pub(super) fn is_below(&self, id: Id, colon: usize) -> Option<bool> {
        Some(!self.is_literal(id) && self.text.get(colon..self.opening(id)?.0)?.contains('\n'))
    }

    /// The header (`|-`) of a literal or folded block, of which `before` is right behind the colon or
    /// the dash in front of it.
    pub(super) fn header(&self, before: usize) -> Option<Range<usize>> {
        let rest = &self.text[before..];
        let start = before + rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let header = &self.text[start..];
        let length = header.find([' ', '\t', '\r', '\n']).unwrap_or(header.len());
        header.starts_with(['|', '>']).then(|| start..start + length)
    }

    /// Where a node starts, with the tag and the anchor in front of it on its line.
    pub(super) fn begin(&self, id: Id) -> usize {
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
    pub(super) fn after_properties(&self, colon: usize) -> usize {
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

    pub(super) fn is_quoted(&self, id: Id) -> bool {
        matches!(self.tree.node(id).kind, Kind::Scalar { style: ScalarStyle::DoubleQuoted, .. })
    }

    /// Where the text of a block collection ends, with the comments on lines
    /// of their own that are indented like its content. Those further left
    /// belong to what follows.
    pub(super) fn end_with_comments(&self, id: Id, spot: Spot) -> Option<usize> {
        let outer = match spot.role {
            Role::Root => 0,
            Role::Member(key) => self.tree.node(key).column,
            Role::Item => self.dash(id)?.1,
        };
        Some(self.end_with_comments_below(self.tree.node(id).end, outer))
    }

    /// The end of the line that `at` is on, or of the last of the comments below it that are further
    /// right than `column`.
    pub(super) fn end_with_comments_below(&self, at: usize, column: usize) -> usize {
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
    pub(super) fn start_with_comments(&self, at: usize) -> usize {
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
    pub(super) fn lines(&self, start: usize, end: usize) -> (usize, usize) {
        let start = self.line_start(start);
        let before = self.text[..start].strip_suffix('\n');
        let start = before.map_or(start, |before| before.strip_suffix('\r').unwrap_or(before).len());
        (start, self.line_end(end))
    }

    pub(super) fn line_start(&self, at: usize) -> usize {
        match self.text[..at].rfind('\n') {
            Some(line) => line + 1,
            None => self.first(),
        }
    }

    /// Where the first line starts.
    pub(super) fn first(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(BOM).len()
    }

    pub(super) fn is_first_on_line(&self, at: usize) -> bool {
        self.text[self.line_start(at)..at].bytes().all(|byte| byte == b' ' || byte == b'\t')
    }

    /// Where a node starts and at which column: a list at its first dash.
    pub(super) fn opening(&self, id: Id) -> Option<(usize, usize)> {
        let node = self.tree.node(id);
        match &node.kind {
            Kind::Sequence { flow: false, items } => self.dash(*items.first()?),
            _ => Some((node.start, node.column)),
        }
    }

    /// The place and the column of the dash in front of an item.
    pub(super) fn dash(&self, item: Id) -> Option<(usize, usize)> {
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
    pub(super) fn colon(&self, key: Id) -> Option<usize> {
        let end = self.tree.node(key).end;
        let rest = &self.text[end..];
        let blanks = rest.len() - rest.trim_start().len();
        rest[blanks..].starts_with(':').then_some(end + blanks + 1)
    }

    /// Whether a key is the first thing on its line, but for dashes: without
    /// `? `, an anchor or a tag.
    pub(super) fn is_simple_key(&self, key: Id) -> bool {
        let node = self.tree.node(key);
        let line = self.text[..node.start].rfind('\n').map_or(0, |at| at + 1);
        !node.anchored && node.tag.is_none() && !self.text[line..node.start].contains(['?', '\t'])
    }

    /// The end of the line that `at` is on, in front of its line break.
    pub(super) fn line_end(&self, at: usize) -> usize {
        let end = self.text[at..].find('\n').map_or(self.text.len(), |end| at + end);
        if end > at && self.text[..end].ends_with('\r') { end - 1 } else { end }
    }

    /// The indentation of the line that `at` is on.
    pub(super) fn indent(&self, at: usize) -> &'a str {
        let start = self.text[..at].rfind('\n').map_or(0, |line| line + 1);
        let line = &self.text[start..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// What is in front of a node that is the first thing on a line other than
    /// the first one of the document.
    pub(super) fn margin(&self, id: Id) -> Option<&'a str> {
        let start = self.tree.node(id).start;
        let line = self.text[..start].rfind('\n')? + 1;
        let margin = &self.text[line..start];
        margin.trim_start_matches([' ', '\t']).is_empty().then_some(margin)
    }
}
