//! Variables of clusterctl: what `clusterctl generate` makes of `${NAME}` in a template.
//!
//! It is what the processor of clusterctl and the library under it (drone/envsubst) do, to the letter, because a stream
//! that is substituted here must be the one that clusterctl gives. Some of it surprises:
//!
//! - A variable without a value is only missed where it stands for the first time, and not inside of a default: a later
//!   `${X}` behind a `${X:=d}` is empty, and so is `${B}` in `${A:-${B}}`.
//! - An empty value is none. `:-`, `:=`, `=`, `:?` and `:+` all mean a default; `${X-d}`, `${X+d}` and `${X?d}` are refused.
//! - `$$` is one `$` wherever it is outside of a reference, with braces behind it or not.
//! - `${ X }` is `${X}`.
//! - Whatever starts with `${` is a reference, also in a script that means a variable of its shell.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

mod functions;

use functions::Function;

/// How deep references may stand in the defaults of others, so that the stack is never exhausted; real ones are in one.
const MAX_DEPTH: usize = 32;

/// A variable that has neither a value nor a default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The line it first stands on; the first is 1.
    pub line: usize,
    /// Its name.
    pub name: String,
}

/// Why a text cannot be substituted. Messages show names, but neither values nor defaults: those may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// clusterctl does not understand a reference.
    #[error("line {line}: clusterctl cannot read {start}: {problem}")]
    Refused {
        /// The line of the reference; the first is 1.
        line: usize,
        /// How the reference starts: `${` and the name.
        start: String,
        /// What is wrong, and what to write instead.
        problem: Problem,
    },
    /// Variables without a value, by line.
    #[error("{}", missing(.0))]
    Missing(Vec<Missing>),
}

/// What is wrong with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no name.
    #[error("a name of letters, digits and `_` has to follow; write `$${{` where the text itself is meant")]
    Name,
    /// There is something behind the name that is no function, such as the `-` of `${X-d}`.
    #[error(
        "expected `}}` behind the name; write `${{NAME:-default}}` for a default, `$${{` where the text itself is meant"
    )]
    Operator,
    /// A function lacks an argument, or has something behind its last one.
    #[error("its function lacks an argument or its end `}}`; write `$${{` where the text itself is meant")]
    Function,
    /// A length below zero, or a part that would cut a character.
    #[error("its positions are outside of the value; write positions from 0 and a length")]
    Position,
    /// References in references.
    #[error("its defaults are nested too deep; write a value instead")]
    Depth,
    /// A character that ends the text for clusterctl.
    #[error("a NUL character is in front of it; remove that")]
    Nul,
}

fn missing(variables: &[Missing]) -> String {
    let list: Vec<String> =
        variables.iter().map(|missing| format!("{} (line {})", missing.name, missing.line)).collect();
    let (variables, them) = if list.len() == 1 { ("variable", "it") } else { ("variables", "them") };
    format!(
        "no value and no default for {variables} {}: set {them} in the environment, or write a default, ${{NAME:=default}}",
        list.join(", ")
    )
}

/// A reference in a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Where it is, in bytes.
    pub range: Range<usize>,
    /// All of it, from `${` to the brace that closes it.
    pub text: &'a str,
    /// The variable's name.
    pub name: &'a str,
}

impl fmt::Debug for Reference<'_> {
    /// Without a default: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("range", &self.range)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The references of a text, in order and without those inside of others. What is escaped (`$${X}`) is none, and neither is
/// what clusterctl refuses, such as the `${X-d}` of a script in a text that is not for clusterctl.
pub fn references(text: &str) -> impl Iterator<Item = Reference<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let dollar = at + text[at..].find('$')?;
            at = match text.as_bytes().get(dollar + 1) {
                Some(b'$') => dollar + 2,
                Some(b'{') => match Parser::new(text).reference(dollar, 0) {
                    Ok((call, end)) => {
                        at = end;
                        let range = dollar..end;
                        return Some(Reference { text: &text[range.clone()], range, name: call.name });
                    }
                    Err(_) => dollar + 2,
                },
                _ => dollar + 1,
            };
        }
    })
}

/// Whether a text holds a reference to a variable.
#[must_use]
pub fn has_reference(text: &str) -> bool {
    references(text).next().is_some()
}

/// A text such that clusterctl makes it what it is now: for what is put into a template beside references.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.contains('$') { text.replace('$', "$$").into() } else { text.into() }
}

/// A whole stream with the values of its variables, as `clusterctl generate` gives it. Values are taken as they are, as
/// clusterctl does: one with a line break can break the YAML around it.
///
/// `value` gives the value of a variable by its name, and `None` if it is not set. clusterctl looks names up in capitals and
/// takes an empty value for one that is set.
///
/// # Errors
///
/// [`Error::Refused`] for the first reference that clusterctl refuses, otherwise [`Error::Missing`] with all variables that it
/// misses.
pub fn substitute(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    let parts = Parser::new(text).all()?;
    let mut seen: HashMap<&str, bool> = HashMap::new();
    let mut missed = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for (call, range) in parts.iter().filter_map(Part::call) {
        if seen.contains_key(call.name) {
            continue;
        }
        let is_missing = !call.has_default() && value(call.name).is_none();
        seen.insert(call.name, is_missing);
        if is_missing {
            line += text[counted..range.start].matches('\n').count();
            counted = range.start;
            missed.push(Missing { line, name: call.name.to_owned() });
        }
    }
    if !missed.is_empty() {
        return Err(Error::Missing(missed));
    }
    let mut out = String::with_capacity(text.len());
    for part in &parts {
        match part {
            Part::Text(part) => out.push_str(part),
            Part::Call(call, range) => {
                let replaced = call.value(&value).map_err(|problem| refused(text, range.start, problem))?;
                out.push_str(&replaced);
            }
        }
    }
    Ok(out)
}

fn refused(text: &str, at: usize, problem: Problem) -> Error {
    let rest = &text[at + 2..];
    let name = rest.find(|c: char| !is_name(c)).map_or(rest, |end| &rest[..end]);
    Error::Refused { line: text[..at].matches('\n').count() + 1, start: format!("`${{{name}`"), problem }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A part of a text or of an argument.
enum Part<'a> {
    Text(Cow<'a, str>),
    Call(Call<'a>, Range<usize>),
}

impl<'a> Part<'a> {
    fn call(&self) -> Option<(&Call<'a>, &Range<usize>)> {
        match self {
            Part::Call(call, range) => Some((call, range)),
            Part::Text(_) => None,
        }
    }
}

/// A reference, read.
struct Call<'a> {
    name: &'a str,
    function: Function,
    arguments: Vec<Part<'a>>,
}

impl Call<'_> {
    /// Whether clusterctl takes it for one with a default: any argument is.
    fn has_default(&self) -> bool {
        self.arguments.iter().any(|argument| match argument {
            Part::Text(text) => !text.is_empty(),
            Part::Call(..) => true,
        })
    }

    fn value(&self, value: &impl Fn(&str) -> Option<String>) -> Result<String, Problem> {
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(match argument {
                Part::Text(text) => text.to_string(),
                Part::Call(call, _) => call.value(value)?,
            });
        }
        self.function.apply(value(self.name).unwrap_or_default(), &arguments)
    }
}

/// Reads text as envsubst does. Positions are in bytes of the whole text.
struct Parser<'a> {
    text: &'a str,
}

/// What an argument consists of.
struct Argument {
    /// Whether a character is part of it.
    accepts: fn(char) -> bool,
    /// Whether `$$`, `\\` and `\/` are one character.
    escapes: bool,
}

const UP_TO_BRACE: Argument = Argument { accepts: |c| c != '}', escapes: false };

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text }
    }

    fn all(&self) -> Result<Vec<Part<'a>>, Error> {
        let text = self.text;
        if let Some(at) = text.find('\0') {
            return Err(Error::Refused {
                line: text[..at].matches('\n').count() + 1,
                start: "the rest of the text".to_owned(),
                problem: Problem::Nul,
            });
        }
        let mut parts = Vec::new();
        let mut done = 0;
        let mut at = 0;
        while let Some(dollar) = text[at..].find('$').map(|dollar| at + dollar) {
            match text.as_bytes().get(dollar + 1) {
                Some(b'$') => {
                    parts.push(Part::Text(text[done..=dollar].into()));
                    at = dollar + 2;
                    // The blanks of an old form go from what is escaped too.
                    if let Some((name, end)) =
                        old_form(&text[at..], |c| c.is_ascii_alphanumeric() || "_$".contains(c))
                    {
                        parts.push(Part::Text(format!("{{{name}}}").into()));
                        at += end;
                    }
                    done = at;
                }
                Some(b'{') => {
                    let (call, end) =
                        self.reference(dollar, 0).map_err(|problem| refused(text, dollar, problem))?;
                    parts.push(Part::Text(text[done..dollar].into()));
                    parts.push(Part::Call(call, dollar..end));
                    (done, at) = (end, end);
                }
                _ => at = dollar + 1,
            }
        }
        parts.push(Part::Text(text[done..].into()));
        Ok(parts)
    }

    /// The reference whose `${` is at `start`, and its end.
    fn reference(&self, start: usize, depth: usize) -> Result<(Call<'a>, usize), Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::Depth);
        }
        let at = start + 2;
        let rest = &self.text[at..];
        if let Some((name, end)) =
            old_form(&self.text[start + 1..], |c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Ok((Call { name, function: Function::Default, arguments: Vec::new() }, start + 1 + end));
        }
        if let Some(rest) = rest.strip_prefix('#') {
            let name = name(rest).ok_or(Problem::Name)?;
            let end = self.close(at + 1 + name.len())?;
            return Ok((Call { name, function: Function::Length, arguments: Vec::new() }, end));
        }
        let name = name(rest).ok_or(Problem::Name)?;
        let at = at + name.len();
        let rest = &self.text[at..];
        let (function, operator) = Function::read(rest).ok_or(Problem::Operator)?;
        let mut at = at + operator;
        let mut arguments = Vec::new();
        match function {
            Function::Default if operator > 0 => {
                while !self.text[at..].starts_with('}') {
                    at = self.argument(at, &UP_TO_BRACE, depth, &mut arguments)?;
                }
            }
            Function::Default | Function::Length | Function::Case(_) => {}
            Function::Part => {
                let first = Argument { accepts: |c| c != ':' && c != '}', escapes: false };
                at = self.argument(at, &first, depth, &mut arguments)?;
                let colons = self.text[at..].len() - self.text[at..].trim_start_matches(':').len();
                if colons > 0 {
                    at = self.argument(at + colons, &UP_TO_BRACE, depth, &mut arguments)?;
                }
            }
            Function::Trim { .. } => at = self.argument(at, &UP_TO_BRACE, depth, &mut arguments)?,
            Function::Replace(_) => {
                let pattern = Argument { accepts: |c| c != '/', escapes: true };
                at = self.argument(at, &pattern, depth, &mut arguments)?;
                let slashes = self.text[at..].len() - self.text[at..].trim_start_matches('/').len();
                if slashes == 0 {
                    return Err(Problem::Function);
                }
                at += slashes;
                if !self.text[at..].starts_with('}') {
                    let replacement = Argument { accepts: |c| c != '}', escapes: true };
                    at = self.argument(at, &replacement, depth, &mut arguments)?;
                }
            }
        }
        let end = self.close(at)?;
        Ok((Call { name, function, arguments }, end))
    }

    /// Reads a reference, or text up to the next one; its end.
    fn argument(
        &self,
        start: usize,
        argument: &Argument,
        depth: usize,
        arguments: &mut Vec<Part<'a>>,
    ) -> Result<usize, Problem> {
        if self.text[start..].starts_with("${") {
            let (call, end) = self.reference(start, depth + 1)?;
            arguments.push(Part::Call(call, start..end));
            return Ok(end);
        }
        let mut text = String::new();
        let mut at = start;
        while let Some(c) = self.text[at..].chars().next() {
            let rest = &self.text[at..];
            let escaped = rest.chars().nth(1).filter(|next| match c {
                '$' => *next == '$',
                '\\' => matches!(next, '/' | '\\'),
                _ => false,
            });
            if rest.starts_with("${") {
                break;
            } else if let Some(next) = escaped.filter(|_| argument.escapes) {
                text.push(next);
                at += 2;
            } else if (argument.accepts)(c) {
                text.push(c);
                at += c.len_utf8();
            } else {
                break;
            }
        }
        if at == start {
            return Err(Problem::Function);
        }
        arguments.push(Part::Text(text.into()));
        Ok(at)
    }

    /// The end of the brace at `at`.
    fn close(&self, at: usize) -> Result<usize, Problem> {
        if self.text[at..].starts_with('}') { Ok(at + 1) } else { Err(Problem::Function) }
    }
}

/// The name a text starts with.
fn name(text: &str) -> Option<&str> {
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    Some(&text[..end]).filter(|name| !name.is_empty())
}

/// The name in `{ NAME }`, the form that clusterctl had before it had defaults, and where it ends.
fn old_form(text: &str, is_name: fn(char) -> bool) -> Option<(&str, usize)> {
    const BLANKS: [char; 5] = [' ', '\t', '\n', '\r', '\x0c'];
    let inner = text.strip_prefix('{')?;
    let trimmed = inner.trim_start_matches(BLANKS);
    let name = &trimmed[..trimmed.find(|c| !is_name(c))?];
    let rest = trimmed[name.len()..].trim_start_matches(BLANKS);
    let end = text.len() - rest.strip_prefix('}')?.len();
    (!name.is_empty() && end > name.len() + 2).then_some((name, end))
}

#[cfg(test)]
mod tests;
