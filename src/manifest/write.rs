//! Writing values as YAML and JSON.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Writes a value as a YAML document in the style of kubectl: block style, two
/// spaces, lists at the indentation of their key.
///
/// Strings are plain only where every reader of YAML 1.1 and 1.2 reads them
/// back as the same string, and the result ends with a line break.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    Block::default().value(&mut text, value, 0);
    text.push('\n');
    text
}

/// The block style of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// By how many columns a mapping is indented under its key.
    pub step: usize,
    /// By how many columns the dashes of a list are indented under their key.
    pub dash: usize,
    /// Whether strings of several lines may be written as literal blocks
    /// (`|`). They cannot be at the end of a text without a final line break.
    pub literal: bool,
}

impl Default for Block {
    fn default() -> Self {
        Self { step: 2, dash: 0, literal: true }
    }
}

impl Block {
    /// Writes a value of which the first line is at `column`; the other lines
    /// are preceded by a line break and indented as far. No final line break.
    pub fn value(&self, out: &mut String, value: &Value, column: usize) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        line(out, column);
                    }
                    self.member(out, key, value, column);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        line(out, column);
                    }
                    self.item(out, item, column, DASH_WIDTH);
                }
            }
            Value::String(text) if self.literal && fits_literal(text) => {
                self.literal(out, text, column);
            }
            scalar => out.push_str(&flow(scalar, Flow::YAML, None, false)),
        }
    }

    /// Writes `key: value` with the key at `column`.
    pub fn member(&self, out: &mut String, key: &str, value: &Value, column: usize) {
        out.push_str(&string(key, false));
        out.push(':');
        self.after_colon(out, value, column);
    }

    /// Writes the value of a key at `column`, from right after the colon.
    pub fn after_colon(&self, out: &mut String, value: &Value, column: usize) {
        let column = match value {
            Value::Object(members) if !members.is_empty() => {
                line(out, column + self.step);
                column + self.step
            }
            Value::Array(items) if !items.is_empty() => {
                line(out, column + self.dash);
                column + self.dash
            }
            _ => {
                out.push(' ');
                column
            }
        };
        self.value(out, value, column);
    }

    /// Writes `- value` with the dash at `column` and the value `width`
    /// columns to the right of it.
    pub fn item(&self, out: &mut String, value: &Value, column: usize, width: usize) {
        out.push('-');
        spaces(out, width - 1);
        let column = match value {
            Value::Object(_) | Value::Array(_) => column + width,
            _ => column,
        };
        self.value(out, value, column);
    }

    fn literal(&self, out: &mut String, text: &str, column: usize) {
        let content = text.strip_suffix('\n');
        out.push_str(if content.is_some() { "|" } else { "|-" });
        for content in content.unwrap_or(text).split('\n') {
            out.push('\n');
            if !content.is_empty() {
                spaces(out, column + self.step);
                out.push_str(content);
            }
        }
    }
}

/// The columns from a dash to its value in `- value`.
pub(super) const DASH_WIDTH: usize = 2;

/// Starts a new line indented by `column`.
pub(super) fn line(out: &mut String, column: usize) {
    out.push('\n');
    spaces(out, column);
}

fn spaces(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// Whether a literal block gives the string back: several lines, at most one
/// final line break, no line of blanks only (which would be lost at the end),
/// no blank at the start (which would set the indentation), nothing that must
/// be escaped.
fn fits_literal(text: &str) -> bool {
    let content = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !content.is_empty()
        && !content.ends_with('\n')
        && !content.starts_with([' ', '\t', '\n'])
        && content.split('\n').all(|line| !line.ends_with([' ', '\t']))
        && text.chars().all(|c| c == '\n' || c == '\t' || !is_escaped(c))
}

/// The style of a flow collection (`{a: 1}`, `[1, 2]`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    /// Whether strings are always in double quotes, as in JSON.
    pub quoted: bool,
    /// Whether nothing follows colons and commas, as in `{"a":1,"b":2}`.
    pub compact: bool,
}

impl Flow {
    pub const YAML: Self = Self { quoted: false, compact: false };
    pub const JSON: Self = Self { quoted: true, compact: false };

    pub fn key(self, key: &str) -> String {
        let mut text = self.string(key);
        // Without quotes the space is what makes the colon one.
        text.push_str(if self.compact && self.quoted { ":" } else { ": " });
        text
    }

    pub fn comma(self) -> &'static str {
        if self.compact { "," } else { ", " }
    }

    fn string(self, text: &str) -> String {
        if self.quoted { double_quoted(text) } else { string(text, true) }
    }
}

/// The line layout of a flow collection that has its items on lines of their
/// own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// What one level of indentation is.
    pub unit: &'a str,
    /// The indentation of the line the collection starts on.
    pub indent: &'a str,
}

/// A value in flow style; a collection is on one line unless `lines` is given.
/// `inside` tells whether it is inside of another flow collection.
pub(super) fn flow(value: &Value, style: Flow, lines: Option<Lines<'_>>, inside: bool) -> String {
    let (open, close, entries): (_, _, Vec<(String, &Value)>) = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(true) => return "true".to_owned(),
        Value::Bool(false) => return "false".to_owned(),
        Value::Number(value) => return number(value),
        Value::String(text) if inside || style.quoted => return style.string(text),
        Value::String(text) => return string(text, false),
        Value::Array(items) => ('[', ']', items.iter().map(|item| (String::new(), item)).collect()),
        Value::Object(members) => ('{', '}', keyed(members, style)),
    };
    let deeper = lines.map(|lines| format!("{}{}", lines.indent, lines.unit));
    let break_to = |out: &mut String, indent: Option<&str>| {
        if let Some(indent) = indent.filter(|_| !entries.is_empty()) {
            out.push('\n');
            out.push_str(indent);
        }
    };
    let mut out = String::from(open);
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push_str(if lines.is_some() { "," } else { style.comma() });
        }
        break_to(&mut out, deeper.as_deref());
        out.push_str(key);
        let lines = lines.zip(deeper.as_deref()).map(|(lines, indent)| Lines { unit: lines.unit, indent });
        out.push_str(&flow(value, style, lines, true));
    }
    break_to(&mut out, lines.map(|lines| lines.indent));
    out.push(close);
    out
}

fn keyed(members: &Map<String, Value>, style: Flow) -> Vec<(String, &Value)> {
    members.iter().map(|(key, value)| (style.key(key), value)).collect()
}

/// A number such that every reader takes it for one: YAML 1.1 wants a point
/// and a sign in front of an exponent, so that `1e30` is `1.0e+30`.
fn number(number: &Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A string on one line: plain where that is safe, otherwise in quotes.
/// `inside` tells whether it is inside of a flow collection.
pub(super) fn string(text: &str, inside: bool) -> String {
    if is_plain(text, inside) {
        text.to_owned()
    } else if text.contains(['"', '\\']) && !text.contains('\'') && !text.chars().any(is_escaped) {
        format!("'{text}'")
    } else {
        double_quoted(text)
    }
}

/// Words that some reader takes for something else than a string, in lower
/// case: the booleans and nulls of YAML 1.1 and 1.2, and floats without digits.
const WORDS: [&str; 14] =
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nil", "nan", "inf", "infinity", "none"];

/// Letters that are in no number or date of any reader, as the digits `a` to
/// `f`, the prefixes `0b`, `0o` and `0x`, and `T` and `Z` are. Text that starts
/// with a digit is a string for sure with one of them.
const NO_NUMBER: &[u8] = b"ghijklmnpqrsuvwyGHIJKLMNPQRSUVWY";

/// Whether every reader takes the plain text for this very string. In doubt
/// the answer is no: quotes are never wrong.
fn is_plain(text: &str, inside: bool) -> bool {
    let bytes = text.as_bytes();
    let word = text.trim_start_matches(['-', '+']);
    let starts_well = match bytes {
        [b'0'..=b'9', ..] => bytes.iter().any(|byte| NO_NUMBER.contains(byte)),
        // A flag of a command: `-v`, `--verbose`.
        [b'-', rest @ ..] => {
            rest.strip_prefix(b"-").unwrap_or(rest).first().is_some_and(u8::is_ascii_alphabetic)
        }
        [b'_' | b'/' | b'$', ..] => true,
        _ => text.starts_with(char::is_alphabetic),
    };
    let safe = |c: char| {
        c.is_alphanumeric() || " _-./:@%+=$()~^*&!?;<>|'\"\\".contains(c) || (!inside && ",[]{}".contains(c))
    };
    // Some readers end a key at any colon there.
    let ends_key = inside && text.contains(':');
    starts_well
        && text.chars().all(safe)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !ends_key
        && !WORDS.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// Characters that do not stay what they are unless they are escaped: control
/// characters, what YAML 1.1 takes for a line break, and the byte order mark.
fn is_escaped(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A string in double quotes, with escapes that JSON has as well.
fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_escaped(c) => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all that is written");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
