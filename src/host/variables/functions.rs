//! The functions of references, as envsubst has them. Lengths and positions are in bytes.

use super::Problem;

/// What a reference does with the value of its variable.
#[derive(Clone, Copy)]
pub(super) enum Function {
    /// The value, or the arguments if it is empty.
    Default,
    /// `#`: its length.
    Length,
    /// `,`, `,,`, `^`, `^^`: lower case, upper case.
    Case(Case),
    /// `:`: a part of it.
    Part,
    /// `#`, `##`, `%`, `%%`: without the start or the end that a pattern matches.
    Trim { end: bool, longest: bool },
    /// `/`: with a text in the place of another.
    Replace(Where),
}

#[derive(Clone, Copy)]
pub(super) enum Case {
    Lower {
        all: bool,
    },
    Upper {
        all: bool,
    },
    /// Two different characters, which mean nothing.
    None,
}

#[derive(Clone, Copy)]
pub(super) enum Where {
    First,
    All,
    Start,
    End,
}

impl Function {
    /// The function that a text behind a name starts with, and the length of its operator; the default one
    /// without an operator at the closing brace.
    pub fn read(text: &str) -> Option<(Self, usize)> {
        let second = text.as_bytes().get(1).copied();
        Some(match text.as_bytes().first()? {
            b'}' => (Self::Default, 0),
            b'=' => (Self::Default, 1),
            b':' if matches!(second, Some(b'=' | b'-' | b'?' | b'+')) => (Self::Default, 2),
            // Its reader loses count there.
            b':' if second.is_some_and(|second| !second.is_ascii()) => return None,
            b':' => (Self::Part, 1),
            first @ (b',' | b'^') => {
                let all = second == Some(*first);
                let length = if matches!(second, Some(b',' | b'^')) { 2 } else { 1 };
                let case = match first {
                    _ if length == 2 && !all => Case::None,
                    b',' => Case::Lower { all },
                    _ => Case::Upper { all },
                };
                (Self::Case(case), length)
            }
            first @ (b'#' | b'%') => {
                let longest = second == Some(*first);
                (Self::Trim { end: *first == b'%', longest }, if longest { 2 } else { 1 })
            }
            b'/' => match second {
                Some(b'/') => (Self::Replace(Where::All), 2),
                Some(b'#') => (Self::Replace(Where::Start), 2),
                Some(b'%') => (Self::Replace(Where::End), 2),
                _ => (Self::Replace(Where::First), 1),
            },
            _ => return None,
        })
    }

    pub fn apply(self, value: String, arguments: &[String]) -> Result<String, Problem> {
        Ok(match (self, arguments) {
            (Self::Default, _) if value.is_empty() => arguments.concat(),
            (Self::Length, _) => value.len().to_string(),
            (Self::Case(case), _) => case.apply(value),
            (Self::Part, [start]) => part(&value, start, None)?.to_owned(),
            (Self::Part, [start, length]) => part(&value, start, Some(length))?.to_owned(),
            (Self::Trim { end, longest }, [pattern]) => trim(&value, pattern, end, longest),
            (Self::Replace(place), [from]) => place.apply(value, from, None),
            (Self::Replace(place), [from, to]) => place.apply(value, from, Some(to)),
            _ => value,
        })
    }
}

impl Case {
    fn apply(self, value: String) -> String {
        // One character for one, unlike those of Rust.
        let lower = |c: char| {
            let mut lower = c.to_lowercase();
            lower.next().filter(|_| lower.next().is_none()).unwrap_or(c)
        };
        let upper = |c: char| {
            let mut upper = c.to_uppercase();
            upper.next().filter(|_| upper.next().is_none()).unwrap_or(c)
        };
        let mut chars = value.chars();
        match self {
            Self::Lower { all: true } => chars.map(lower).collect(),
            Self::Upper { all: true } => chars.map(upper).collect(),
            Self::Lower { all: false } => chars.next().map(lower).into_iter().chain(chars).collect(),
            Self::Upper { all: false } => chars.next().map(upper).into_iter().chain(chars).collect(),
            Self::None => value,
        }
    }
}

/// The part of a value from a position, which counts from its end if it is below zero. What is no number
/// changes nothing.
fn part<'v>(value: &'v str, start: &str, length: Option<&String>) -> Result<&'v str, Problem> {
    let Ok(start) = start.parse::<i64>() else {
        return Ok(value);
    };
    let size = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let start = if start < 0 { (size + start).max(0) } else { start };
    let end = match length.map(|length| length.parse::<i64>()) {
        None => size,
        Some(Err(_)) => return Ok(value),
        Some(Ok(length)) => start.saturating_add(length).min(size),
    };
    if end >= size && start >= size {
        return Ok("");
    }
    // clusterctl itself ends in a panic for an end in front of the start.
    let (start, end) = (usize::try_from(start), usize::try_from(end));
    start.ok().zip(end.ok()).and_then(|(start, end)| value.get(start..end)).ok_or(Problem::Position)
}

impl Where {
    /// Without `to`, only the first and all of them are removed.
    fn apply(self, value: String, from: &str, to: Option<&String>) -> String {
        match (self, to) {
            (Self::First, to) => value.replacen(from, to.map_or("", String::as_str), 1),
            (Self::All, to) => value.replace(from, to.map_or("", String::as_str)),
            (Self::Start, Some(to)) if value.starts_with(from) => value.replacen(from, to, 1),
            (Self::End, Some(to)) => match value.strip_suffix(from) {
                Some(rest) => format!("{rest}{to}"),
                None => value,
            },
            _ => value,
        }
    }
}

/// The value without the shortest or longest start that is not empty and matches the pattern; or end, for
/// which both are read backwards.
fn trim(value: &str, pattern: &str, end: bool, longest: bool) -> String {
    let ordered =
        |text: &str| -> Vec<char> { if end { text.chars().rev().collect() } else { text.chars().collect() } };
    let mut value = ordered(value);
    if let Some(pattern) = glob(&ordered(pattern)) {
        let mut sizes = 1..=value.len();
        let matched = |size: &usize| matches(&pattern, &value[..*size]);
        let size = if longest { sizes.rev().find(matched) } else { sizes.find(matched) };
        value.drain(..size.unwrap_or(0));
    }
    if end { value.iter().rev().collect() } else { value.into_iter().collect() }
}

/// A part of a pattern, as `path.Match` of Go has them, but that `*` and `?` are any character.
enum Glob {
    Any,
    One,
    Class { negated: bool, ranges: Vec<(char, char)> },
    Char(char),
}

/// Reads a pattern; `None` for one that is malformed, which matches nothing.
fn glob(pattern: &[char]) -> Option<Vec<Glob>> {
    let mut parts = Vec::new();
    let mut rest = pattern.iter().copied().peekable();
    while let Some(c) = rest.next() {
        parts.push(match c {
            '*' => Glob::Any,
            '?' => Glob::One,
            '\\' => Glob::Char(rest.next()?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
                    let mut one = || match rest.next()? {
                        '-' | ']' => None,
                        '\\' => rest.next(),
                        c => Some(c),
                    };
                    let low = one()?;
                    let high = if rest.next_if_eq(&'-').is_some() {
                        match rest.next()? {
                            '-' | ']' => return None,
                            '\\' => rest.next()?,
                            c => c,
                        }
                    } else {
                        low
                    };
                    ranges.push((low, high));
                }
                Glob::Class { negated, ranges }
            }
            c => Glob::Char(c),
        });
    }
    Some(parts)
}

/// Whether a pattern matches all of a text. Only the last `*` has to be tried again.
fn matches(pattern: &[Glob], text: &[char]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut star = None;
    while at < text.len() || part < pattern.len() {
        let matched = match (pattern.get(part), text.get(at)) {
            (Some(Glob::Any), _) => {
                star = Some((part, at));
                part += 1;
                continue;
            }
            (Some(Glob::One), Some(_)) => true,
            (Some(Glob::Char(one)), Some(c)) => one == c,
            (Some(Glob::Class { negated, ranges }), Some(c)) => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&c)) != *negated
            }
            _ => false,
        };
        if matched {
            (part, at) = (part + 1, at + 1);
        } else if let Some((after, from)) = star.filter(|(_, from)| *from < text.len()) {
            star = Some((after, from + 1));
            (part, at) = (after + 1, from + 1);
        } else {
            return false;
        }
    }
    true
}
