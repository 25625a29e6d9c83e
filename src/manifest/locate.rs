//! Where a value is in the text of a stream.

use std::ops::Range;

use serde_saphyr::granit_parser::ScalarStyle;

use super::tree::{Id, Kind, Tree};
use super::{Document, index, tokens};

/// A part of a stream. Lines and columns begin with 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line of its first character.
    pub line: usize,
    /// The column of its first character.
    pub column: usize,
    /// The line of the character behind its last one.
    pub end_line: usize,
    /// The column of the character behind its last one.
    pub end_column: usize,
}

impl Document<'_> {
    /// Where the value at a JSON pointer is, or as much of the pointer as there is. With `part`, where that part (in
    /// bytes) of a string is, if it stands in the text as it is; else where the string is.
    ///
    /// `None` when the document cannot be read or is empty.
    #[must_use]
    pub fn locate(&self, pointer: &str, part: Option<&Range<usize>>) -> Option<Place> {
        let tree = self.tree().ok()?;
        let mut id = resolve(tree, tree.root?);
        for token in tokens(pointer).ok()? {
            let Some(child) = child(tree, id, &token, 0) else { break };
            id = resolve(tree, child);
        }
        let node = tree.node(id);
        let raw = self.text.get(node.start..node.end)?;
        let within = part.and_then(|part| {
            let Kind::Scalar { text, style } = &node.kind else { return None };
            let quote = match style {
                ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
                _ => 0,
            };
            // Without escapes and folded lines, the text is the value.
            let is_verbatim = raw.get(quote..raw.len().checked_sub(quote)?) == Some(text);
            (is_verbatim && raw.get(quote + part.start..quote + part.end).is_some())
                .then(|| node.start + quote + part.start..node.start + quote + part.end)
        });
        let range = within.unwrap_or(node.start..node.end);
        let (mut line, mut column) = (self.line + node.line - 1, node.column + 1);
        advance(&self.text[node.start..range.start], &mut line, &mut column);
        let (mut end_line, mut end_column) = (line, column);
        advance(&self.text[range], &mut end_line, &mut end_column);
        Some(Place { line, column, end_line, end_column })
    }
}

/// Goes over a text.
fn advance(text: &str, line: &mut usize, column: &mut usize) {
    match text.rsplit_once('\n') {
        Some((before, last)) => {
            *line += before.matches('\n').count() + 1;
            *column = last.chars().count() + 1;
        }
        None => *column += text.chars().count(),
    }
}

/// What an alias stands for.
fn resolve(tree: &Tree<'_>, mut id: Id) -> Id {
    // An alias stands behind its anchor, so this ends.
    while let Kind::Alias(target) = tree.node(id).kind {
        id = target;
    }
    id
}

/// A member or an item, also of what is merged in.
fn child(tree: &Tree<'_>, id: Id, token: &str, depth: usize) -> Option<Id> {
    match &tree.node(resolve(tree, id)).kind {
        Kind::Mapping { entries, .. } => {
            let own = entries.iter().find(|entry| entry.name.as_deref() == Some(token));
            own.map(|entry| entry.value).or_else(|| {
                // Deeper than any merge that can be read.
                if depth > super::tree::MAX_DEPTH {
                    return None;
                }
                entries.iter().filter(|entry| entry.name.is_none()).find_map(|entry| {
                    match &tree.node(resolve(tree, entry.value)).kind {
                        Kind::Sequence { items, .. } => {
                            items.iter().find_map(|item| child(tree, *item, token, depth + 1))
                        }
                        _ => child(tree, entry.value, token, depth + 1),
                    }
                })
            })
        }
        Kind::Sequence { items, .. } => items.get(index(token, items.len())?).copied(),
        Kind::Scalar { .. } | Kind::Alias(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::documents;

    /// Line, column, and the text up to the end if it is on one line.
    fn locate(
        stream: &str,
        number: usize,
        pointer: &str,
        part: Option<(usize, usize)>,
    ) -> (usize, usize, String) {
        let part = part.map(|(start, end)| start..end);
        let place = documents(stream)[number - 1].locate(pointer, part.as_ref()).expect("a place");
        let line: Vec<char> = stream.lines().nth(place.line - 1).unwrap().chars().collect();
        let end = if place.end_line == place.line { place.end_column - 1 } else { line.len() };
        (place.line, place.column, line[place.column - 1..end].iter().collect())
    }

    #[test]
    fn a_part_of_a_string_is_found_where_it_is_written() {
        let stream =
            "a: 1\n---\n# é\nenv:\n- {name: é, value: \"x, web\"} # y\n- value: 'x,web'\n- value: x,web\n";
        assert_eq!(locate(stream, 2, "/env/0/value", Some((3, 6))), (5, 24, "web".to_owned()));
        assert_eq!(locate(stream, 2, "/env/1/value", Some((2, 5))), (6, 13, "web".to_owned()));
        assert_eq!(locate(stream, 2, "/env/2/value", Some((2, 5))), (7, 12, "web".to_owned()));
        assert_eq!(locate(stream, 2, "/env/2/value", None), (7, 10, "x,web".to_owned()));
    }

    #[test]
    fn what_is_not_written_as_it_is_is_where_the_string_begins() {
        let stream = "a: \"x\\u002cweb\"\nb: >-\n  x,\n  web\nc: &c {d: web}\ne: *c\nf: {<<: *c}\n";
        assert_eq!(locate(stream, 1, "/a", Some((2, 5))), (1, 4, "\"x\\u002cweb\"".to_owned()));
        assert_eq!(locate(stream, 1, "/b", Some((3, 6))).0, 3);
        assert_eq!(locate(stream, 1, "/e/d", Some((0, 3))), (5, 11, "web".to_owned()));
        assert_eq!(locate(stream, 1, "/f/d", None), (5, 11, "web".to_owned()));
        assert_eq!(locate(stream, 1, "/c/nothing", None).0, 5);
        assert_eq!(documents("# nothing\n")[0].locate("/a", None), None);
    }
}
