//! A file of variables, as `/etc/environment`, `EnvironmentFile=` and `--env-file` have them.

use std::ops::Range;
use std::path::Path;

use super::super::Failure;
use super::super::input::{self, File};
use crate::clients::Environment;

/// An assignment in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The line; the first is 1.
    pub line: usize,
    /// Where the line is in the text, without white space at its ends.
    pub line_range: Range<usize>,
    /// Where the value is in the text, with its quotes.
    pub range: Range<usize>,
}

/// Reads a file, or standard input. Every line that is wrong is reported.
pub fn read(file: &Path) -> Result<Environment, Failure> {
    let File { name, text, .. } = input::file(file).map_err(|error| Failure::Messages(vec![error]))?;
    parse(&text).map_err(|errors| {
        Failure::Messages(errors.into_iter().map(|error| format!("{name}, {error}")).collect())
    })
}

fn parse(text: &str) -> Result<Environment, Vec<String>> {
    let (assignments, errors) = assignments(text);
    if errors.is_empty() {
        Ok(assignments.into_iter().map(|assignment| (assignment.name, assignment.value)).collect())
    } else {
        Err(errors)
    }
}

/// Lines of `KEY=VALUE` or `export KEY=VALUE`, with or without quotes; `#` begins a comment. What is wrong has no value
/// in its message: it may be a secret.
pub fn assignments(text: &str) -> (Vec<Assignment>, Vec<String>) {
    let mut assignments = Vec::new();
    let mut errors = Vec::new();
    let range = |part: &str| {
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        start..start + part.len()
    };
    // Who reads such files takes it for a part of the first name.
    let marked = text.strip_prefix('\u{feff}');
    if marked.is_some() {
        errors.push("line 1 begins with a byte order mark: save the file without it".to_owned());
    }
    for (index, line) in marked.unwrap_or(text).lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok((name, value, raw)) => assignments.push(Assignment {
                name: name.to_owned(),
                value,
                line: index + 1,
                line_range: range(line),
                range: range(raw),
            }),
            Err(message) => errors.push(format!("line {}: {message}", index + 1)),
        }
    }
    (assignments, errors)
}

/// Name, value, and the value as it is written.
fn parse_line(line: &str) -> Result<(&str, String, &str), String> {
    let assignment = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) =
        assignment.split_once('=').ok_or("expected KEY=VALUE, for example no_proxy=.svc,10.96.0.0/12")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("expected a name of letters, digits and _ in front of =, without spaces".to_owned());
    }
    let value = value.trim_start();
    if let Some(quote @ ('"' | '\'')) = value.chars().next() {
        let (plain, rest) = unquote(&value[1..], quote)
            .ok_or_else(|| format!("{name}: the quote has no end: write another {quote} behind the value"))?;
        let raw = &value[..value.len() - rest.len()];
        let rest = rest.trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err(format!("{name}: expected nothing behind the quotes: quote the whole value"));
        }
        return Ok((name, plain, raw));
    }
    let comment = value
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| *at == 0 || value[..*at].ends_with(char::is_whitespace));
    let raw = value[..comment.unwrap_or(value.len())].trim_end();
    Ok((name, raw.to_owned(), raw))
}

/// What stands before the closing quote, and behind it. Between double quotes, a backslash makes the next of
/// `" \ $ `` ` plain, as in a shell.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            _ if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            '\\' if quote == '"' => match characters.next()? {
                (_, plain @ ('"' | '\\' | '$' | '`')) => value.push(plain),
                (_, other) => value.extend(['\\', other]),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read() {
        let text = "# comment\n\nhttp_proxy=http://proxy:3128\nexport  https_proxy=\"http://proxy:3128\" # too\r\n\
            no_proxy='.svc, 10.96.0.0/12'\nNO_PROXY=.svc, #rest\n EMPTY=\nhash=a#b\nescaped=\"a\\\"b\\n\\\\\"\nhttp_proxy=last\n";
        let environment = parse(text).unwrap();
        let pairs: Vec<_> = environment.iter().map(|variable| (variable.name, variable.value)).collect();
        assert_eq!(
            pairs,
            [
                ("http_proxy", "last"),
                ("https_proxy", "http://proxy:3128"),
                ("no_proxy", ".svc, 10.96.0.0/12"),
                ("NO_PROXY", ".svc,"),
                ("EMPTY", ""),
                ("hash", "a#b"),
                ("escaped", "a\"b\\n\\"),
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_is_named_and_hides_no_other_error() {
        let errors = parse("\u{feff}http_proxy=http://proxy:3128\nsecret\n").unwrap_err();
        assert_eq!(errors[0], "line 1 begins with a byte order mark: save the file without it");
        assert!(errors.len() == 2 && errors[1].starts_with("line 2: expected KEY=VALUE"), "{errors:?}");
        assert_eq!(parse("\u{feff}# comment").unwrap_err().len(), 1);
    }

    #[test]
    fn every_wrong_line_is_reported_without_its_value() {
        let errors = parse("secret\nno proxy=secret\nx='secret\ny=\"sec\"ret\n=secret\nok=1").unwrap_err();
        for (error, expected) in errors.iter().zip([
            "line 1: expected KEY=VALUE",
            "line 2: expected a name",
            "line 3: x: the quote has no end",
            "line 4: y: expected nothing behind the quotes",
            "line 5: expected a name",
        ]) {
            assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
        }
        assert_eq!(errors.len(), 5);
    }
}
