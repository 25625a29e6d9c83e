//! The text of a document as a tree whose nodes know where they are in it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{
    self as parser, Event, Marker, Parser, ScalarStyle, Span, StructureStyle, Tag,
};

use super::Error;
use crate::host::variables;

/// How deep values may be nested once the aliases are written out, so that
/// neither brackets nor a chain of aliases exhaust the stack. It is what
/// `serde_json` allows in JSON; real manifests stay below 40.
pub(super) const MAX_DEPTH: usize = 128;

/// How many values the aliases of a document may add to it. A manifest of this
/// size is far beyond what a cluster accepts; a few lines of aliases of aliases
/// can ask for billions.
const MAX_ALIASED: usize = 1_000_000;

/// The number of a node in its [`Tree`].
pub(super) type Id = usize;

/// A parsed document.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    /// `None` for a document without content.
    pub root: Option<Id>,
    /// The nodes that some alias stands for.
    pub aliased: HashSet<Id>,
}

/// One value or key in the text.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub kind: Kind<'a>,
    /// Where the content starts, behind its tag and anchor: for a block
    /// mapping at its first key, for a block scalar at its first line.
    pub start: usize,
    /// Where the content ends; for a block scalar or collection in front of
    /// the last line break that is part of it.
    pub end: usize,
    /// The line `start` is on; the first is 1.
    pub line: usize,
    /// The column `start` is at, in characters; the first is 0.
    pub column: usize,
    pub anchored: bool,
    pub tag: Option<Box<Tag>>,
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    Scalar { text: Cow<'a, str>, style: ScalarStyle },
    Sequence { flow: bool, items: Vec<Id> },
    Mapping { flow: bool, entries: Vec<Entry<'a>> },
    Alias(Id),
}

/// A member of a mapping.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The key as a string; `None` for a merge key.
    pub name: Option<Cow<'a, str>>,
    pub key: Id,
    pub value: Id,
}

impl<'a> Tree<'a> {
    /// Parses the text of one document that starts at line `first_line` of its
    /// stream.
    pub fn parse(text: &'a str, first_line: usize) -> Result<Self, Error> {
        let mut builder = Builder::new(text, first_line);
        let parsed = parse(text, first_line, |event, span| builder.event(event, span));
        let Err(error) = parsed else {
            return Ok(builder.tree);
        };
        // A variable of clusterctl where YAML has braces for itself, as in `[${X}]`.
        let Some(masked) = Masked::new(text) else {
            return Err(hint(error, text, first_line));
        };
        let mut builder = Builder::new(text, first_line);
        match parse(&masked.text, first_line, |event, span| builder.event(masked.unmask(event, &span), span))
        {
            Ok(()) => Ok(builder.tree),
            // What is wrong without the variables.
            Err(later) if place(&later) > place(&error) => Err(hint(later, text, first_line)),
            Err(_) => Err(hint(error, text, first_line)),
        }
    }

    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id]
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node<'a>> {
        self.nodes.iter()
    }

    /// The value the document stands for; `null` when it has no content.
    pub fn value(&self, first_line: usize) -> Result<Value, Error> {
        let mut reader = Reader { tree: self, first_line, aliases: 0, aliased: 0 };
        self.root.map_or(Ok(Value::Null), |root| reader.value(root, 0))
    }
}

/// Gives the events of a document to `each`.
fn parse<'a>(
    text: &'a str,
    first_line: usize,
    mut each: impl FnMut(Event<'a>, Span) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut options = parser::options! {};
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| syntax(first_line, error.marker(), error.info()))?;
        each(event, span)?;
    }
    Ok(())
}

/// The line and the column of an error.
fn place(error: &Error) -> Option<(usize, usize)> {
    match error {
        Error::Syntax { line, column, .. } => Some((*line, *column)),
        _ => None,
    }
}

/// Says what to do about a variable on the line of an error.
fn hint(error: Error, text: &str, first_line: usize) -> Error {
    match error {
        Error::Syntax { line, column, message }
            if text.lines().nth(line - first_line).is_some_and(variables::has_reference) =>
        {
            Error::Syntax { line, column, message: format!("{message}; put quotes around the variable here") }
        }
        error => error,
    }
}

/// A text with something else of the same length in the place of its references to variables, so that
/// what is in their braces is no YAML.
struct Masked<'a> {
    original: &'a str,
    text: String,
    /// The references, in order, each with what is in its place.
    references: Vec<(Range<usize>, String)>,
}

/// Characters that mean nothing inside of a plain scalar.
const FILLERS: [&str; 6] = ["~", "^", "=", "/", "+", "_"];

impl<'a> Masked<'a> {
    /// `None` when there is nothing to mask. References with quotes, backslashes or line breaks are left:
    /// inside of quotes they would not read as they do.
    fn new(original: &'a str) -> Option<Self> {
        let filler = FILLERS.into_iter().find(|filler| !original.contains(&format!("${filler}")))?;
        let mut text = String::with_capacity(original.len());
        let mut references = Vec::new();
        for reference in variables::references(original) {
            if reference.text.contains(['"', '\'', '\\', '\n', '\r']) {
                continue;
            }
            let mask: String = reference
                .text
                .chars()
                .enumerate()
                .map(|(index, c)| match c {
                    '$' if index == 0 => "$".to_owned(),
                    c if c.is_ascii() => filler.to_owned(),
                    c => c.to_string(),
                })
                .collect();
            text.push_str(&original[text.len()..reference.range.start]);
            text.push_str(&mask);
            references.push((reference.range, mask));
        }
        text.push_str(&original[text.len()..]);
        (!references.is_empty()).then_some(Self { original, text, references })
    }

    /// An event of the masked text as one of the original.
    fn unmask(&self, event: Event<'_>, span: &Span) -> Event<'a> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let (start, end) = (offset(&span.start), offset(&span.end));
                let first = self.references.partition_point(|(range, _)| range.start < start);
                let mut rest = &*text;
                let mut out = String::with_capacity(rest.len());
                for (range, mask) in
                    self.references[first..].iter().take_while(|(range, _)| range.start < end)
                {
                    // One in a comment is not part of the scalar.
                    if let Some((before, after)) = rest.split_once(mask.as_str()) {
                        out.extend([before, &self.original[range.clone()]]);
                        rest = after;
                    }
                }
                out.push_str(rest);
                Event::Scalar(out.into(), style, anchor, tag.map(|tag| Cow::Owned(tag.into_owned())))
            }
            Event::SequenceStart(style, anchor, tag) => {
                Event::SequenceStart(style, anchor, tag.map(|tag| Cow::Owned(tag.into_owned())))
            }
            Event::MappingStart(style, anchor, tag) => {
                Event::MappingStart(style, anchor, tag.map(|tag| Cow::Owned(tag.into_owned())))
            }
            Event::Alias(anchor) => Event::Alias(anchor),
            Event::SequenceEnd => Event::SequenceEnd,
            Event::MappingEnd => Event::MappingEnd,
            Event::DocumentStart(explicit, version) => Event::DocumentStart(explicit, version),
            // Nothing else says anything to a builder.
            _ => Event::StreamEnd,
        }
    }
}

/// The bytes of text for one node, for a first guess at their number; it is
/// about this in real manifests.
const BYTES_PER_NODE: usize = 12;

/// Builds a tree from the parser's events.
struct Builder<'a> {
    tree: Tree<'a>,
    text: &'a str,
    first_line: usize,
    /// The collections the current event is in, with the key whose value comes
    /// next for mappings.
    open: Vec<(Id, Option<Id>)>,
    /// The nodes of the parser's numbers of anchors.
    anchors: HashMap<usize, Id>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, first_line: usize) -> Self {
        Self {
            tree: Tree {
                nodes: Vec::with_capacity(text.len() / BYTES_PER_NODE),
                root: None,
                aliased: HashSet::new(),
            },
            text,
            first_line,
            open: Vec::new(),
            anchors: HashMap::new(),
        }
    }

    fn event(&mut self, event: Event<'a>, span: Span) -> Result<(), Error> {
        match event {
            Event::DocumentStart(..) if self.tree.root.is_some() => {
                Err(syntax(self.first_line, &span.start, "a document ends here without a `---` or `...`"))
            }
            Event::Scalar(mut text, style, anchor, tag) => {
                let end = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => {
                        let end = self.block_end(&text, &span);
                        // The parser gives a block at the end of the text a line break that is not there.
                        if end == self.text.len() && text.ends_with('\n') {
                            text.to_mut().pop();
                        }
                        end
                    }
                    _ => offset(&span.end),
                };
                let id = self.push(Kind::Scalar { text, style }, &span, end, anchor, tag);
                self.attach(id)
            }
            Event::Alias(anchor) => {
                let Some(&target) = self.anchors.get(&anchor) else {
                    return Err(syntax(self.first_line, &span.start, "unknown anchor"));
                };
                if self.open.iter().any(|(id, _)| *id == target) {
                    return Err(syntax(
                        self.first_line,
                        &span.start,
                        "the alias is inside of what it stands for",
                    ));
                }
                self.tree.aliased.insert(target);
                let id = self.push(Kind::Alias(target), &span, offset(&span.end), 0, None);
                self.attach(id)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let kind = Kind::Sequence { flow: style == StructureStyle::Flow, items: Vec::new() };
                let id = self.push(kind, &span, offset(&span.end), anchor, tag);
                self.open.push((id, None));
                Ok(())
            }
            Event::MappingStart(style, anchor, tag) => {
                let kind = Kind::Mapping { flow: style == StructureStyle::Flow, entries: Vec::new() };
                let id = self.push(kind, &span, offset(&span.end), anchor, tag);
                self.open.push((id, None));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((id, _)) = self.open.pop() else {
                    return Ok(());
                };
                let end = match &self.tree.node(id).kind {
                    Kind::Sequence { flow: false, items } => {
                        items.last().map(|last| self.tree.node(*last).end)
                    }
                    Kind::Mapping { flow: false, entries } => {
                        entries.last().map(|last| self.tree.node(last.value).end)
                    }
                    _ => Some(offset(&span.end)),
                };
                if let Some(end) = end {
                    self.tree.nodes[id].end = end;
                }
                self.attach(id)
            }
            _ => Ok(()),
        }
    }

    fn push(
        &mut self,
        kind: Kind<'a>,
        span: &Span,
        end: usize,
        anchor: usize,
        tag: Option<Cow<'a, Tag>>,
    ) -> Id {
        let id = self.tree.nodes.len();
        // The parser's number for "no anchor" is 0.
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        self.tree.nodes.push(Node {
            kind,
            start: offset(&span.start),
            end,
            line: span.start.line(),
            column: span.start.col(),
            anchored: anchor != 0,
            tag: tag.map(|tag| Box::new(tag.into_owned())),
        });
        id
    }

    /// Gives a complete node its place in the collection it is in.
    fn attach(&mut self, id: Id) -> Result<(), Error> {
        let Some((parent, pending)) = self.open.last_mut() else {
            self.tree.root = Some(id);
            return Ok(());
        };
        let parent = *parent;
        match (&self.tree.nodes[parent].kind, pending.take()) {
            (Kind::Mapping { .. }, None) => *pending = Some(id),
            (Kind::Mapping { .. }, Some(key)) => {
                let name = self.name(key)?;
                if let Kind::Mapping { entries, .. } = &mut self.tree.nodes[parent].kind {
                    entries.push(Entry { name, key, value: id });
                }
            }
            _ => {
                if let Kind::Sequence { items, .. } = &mut self.tree.nodes[parent].kind {
                    items.push(id);
                }
            }
        }
        Ok(())
    }

    /// The string a key stands for; `None` for a merge key.
    fn name(&self, key: Id) -> Result<Option<Cow<'a, str>>, Error> {
        let mut node = self.tree.node(key);
        while let Kind::Alias(target) = node.kind {
            node = self.tree.node(target);
        }
        let failed = |message| Err(error_at(self.first_line, self.tree.node(key), message));
        let Kind::Scalar { text, style } = &node.kind else {
            return failed("a key must be a string, not a list or a mapping".to_owned());
        };
        if *style == ScalarStyle::Plain && text == "<<" {
            return Ok(None);
        }
        // Most keys: no word or number starts like this.
        if !text.starts_with(|c: char| "yYnNtTfFoO~+-.0123456789".contains(c)) && !text.is_empty() {
            return Ok(Some(text.clone()));
        }
        Ok(Some(match scalar(text, *style, node.tag.as_deref()) {
            Ok(Value::String(_)) => text.clone(),
            Ok(Value::Null) => return failed("a key must be a string, not `null`".to_owned()),
            Ok(Value::Number(number)) if number.is_f64() => float_key(&number).into(),
            Ok(value) => value.to_string().into(),
            Err(message) => return failed(message),
        }))
    }

    /// Where the content of a block scalar ends. The parser's span goes on
    /// over the blank lines that follow, which are content only if the scalar
    /// keeps them (`|+`), and into the indentation of the next line.
    fn block_end(&self, content: &str, span: &Span) -> usize {
        let end = offset(&span.end);
        let keeps = content.ends_with("\n\n") || content == "\n";
        let lines = self.text[..end].trim_end_matches([' ', '\t']);
        if keeps && lines.ends_with('\n') {
            let lines = &lines[..lines.len() - 1];
            lines.strip_suffix('\r').unwrap_or(lines).len()
        } else if content.is_empty() {
            // Nothing but the header.
            self.text[..offset(&span.start).min(end)].trim_end().len()
        } else {
            lines.trim_end().len()
        }
    }
}

fn offset(marker: &Marker) -> usize {
    // The parser knows it for every string it parses.
    marker.byte_offset().unwrap_or_default()
}

fn syntax(first_line: usize, marker: &Marker, message: impl Into<String>) -> Error {
    Error::Syntax { line: first_line + marker.line() - 1, column: marker.col() + 1, message: message.into() }
}

fn error_at(first_line: usize, node: &Node<'_>, message: String) -> Error {
    Error::Syntax { line: first_line + node.line - 1, column: node.column + 1, message }
}

/// Reads values from a tree.
struct Reader<'t, 'a> {
    tree: &'t Tree<'a>,
    first_line: usize,
    /// How many aliases the current node is inside of.
    aliases: usize,
    /// How many values have come from aliases.
    aliased: usize,
}

impl Reader<'_, '_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<Value, Error> {
        let node = self.tree.node(id);
        if self.aliases > 0 {
            self.aliased += 1;
        }
        if depth > MAX_DEPTH {
            return Err(self.error(node, "the values are nested too deep"));
        }
        if self.aliased > MAX_ALIASED {
            return Err(self.error(node, "the aliases make this document too large"));
        }
        match &node.kind {
            Kind::Scalar { text, style } => scalar(text, *style, node.tag.as_deref())
                .map_err(|message| error_at(self.first_line, node, message)),
            Kind::Alias(target) => {
                self.aliases += 1;
                let value = self.value(*target, depth + 1);
                self.aliases -= 1;
                value
            }
            Kind::Sequence { items, .. } => items
                .iter()
                .map(|item| self.value(*item, depth + 1))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Kind::Mapping { entries, .. } => {
                let mut members = Map::with_capacity(entries.len());
                for entry in entries {
                    let Some(name) = &entry.name else { continue };
                    let value = self.value(entry.value, depth + 1)?;
                    if members.insert(name.to_string(), value).is_some() {
                        let key = self.tree.node(entry.key);
                        return Err(self.error(key, &format!("the key `{name}` is given twice")));
                    }
                }
                for entry in entries.iter().filter(|entry| entry.name.is_none()) {
                    let merged = self.value(entry.value, depth + 1)?;
                    let merged = match merged {
                        Value::Array(merged) => merged,
                        other => vec![other],
                    };
                    for merged in merged {
                        let Value::Object(merged) = merged else {
                            let key = self.tree.node(entry.key);
                            return Err(self.error(key, "`<<` takes a mapping or a list of them"));
                        };
                        for (name, value) in merged {
                            members.entry(name).or_insert(value);
                        }
                    }
                }
                Ok(Value::Object(members))
            }
        }
    }

    fn error(&self, node: &Node<'_>, message: &str) -> Error {
        error_at(self.first_line, node, message.to_owned())
    }
}

/// The value of a scalar.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag.map(Tag::core_suffix) {
        None if style == ScalarStyle::Plain => resolve(text),
        Some(Some("null" | "bool" | "int" | "float")) => resolve(text),
        Some(Some("binary")) => Err("the tag `!!binary` is not supported".to_owned()),
        // Quoted, or with another tag: kubectl takes it for a string.
        _ => Ok(Value::from(text)),
    }
}

/// The value of plain text, as kubectl resolves it.
fn resolve(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => {
            return Err(format!("`{text}` has no equivalent in JSON"));
        }
        _ => match text.as_bytes()[0] {
            b'0'..=b'9' | b'+' | b'-' => {
                let digits =
                    if text.contains('_') { Cow::Owned(text.replace('_', "")) } else { Cow::Borrowed(text) };
                integer(&digits).or_else(|| decimal(&digits)).map_or_else(|| Value::from(text), Value::Number)
            }
            b'.' => decimal(text).map_or_else(|| Value::from(text), Value::Number),
            _ => Value::from(text),
        },
    })
}

/// An integer of 64 bits: decimal, or of another base with the prefix `0x`,
/// `0b`, `0o` or the `0` of YAML 1.1.
fn integer(text: &str) -> Option<Number> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // A second sign is none of them.
    let size = digits
        .starts_with(|c: char| c.is_digit(radix))
        .then(|| u64::from_str_radix(digits, radix).ok())??;
    if negative { 0_i64.checked_sub_unsigned(size).map(Number::from) } else { Some(Number::from(size)) }
}

/// A decimal number with or without a point and an exponent.
fn decimal(text: &str) -> Option<Number> {
    // The standard library also takes words such as `infinity`.
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .then(|| text.parse().ok())
        .flatten()
        .and_then(Number::from_f64)
}

/// A float as kubectl writes it when it is a key: in single precision, with
/// an exponent of at least two digits for what is large or small.
fn float_key(number: &Number) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "this is what kubectl does")]
    let value = number.as_f64().unwrap_or_default() as f32;
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // The bounds of `%g` for the shortest notation that gives the value back.
    if value == 0.0 || (-4..6).contains(&exponent) {
        value.to_string()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}
