//! Lines of a file of variables that a shell reads: those with `export`. Elsewhere (`/etc/environment`, `EnvironmentFile=`)
//! a dollar sign means nothing.

use std::collections::HashMap;

use super::super::route::env_file::Assignment;
use crate::inject::preset::ProxyVariable;
use crate::lint::{Finding, Id, Subject};

/// Longest value in which variables are replaced, in bytes: a few that have each other twice would have no end.
const LONGEST: usize = 16 * 1024;

/// A value as its reader has it, as far as the file shows.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// With `$(NAME)`, which rules do not look into, for what only the shell knows.
    pub value: String,
    /// Whether a shell reads it.
    is_shell: bool,
    /// What is in the value for a reference, and how that may be shown.
    unknown: Vec<(String, String)>,
}

/// A part of a value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'t> {
    Plain(char),
    /// White space outside of quotes.
    Space(char),
    /// `$NAME`, `${NAME}`, a command: what a shell puts something else in the place of.
    Reference(&'t str),
    /// Outside of quotes, with what is behind it.
    Semicolon(&'t str),
}

/// What the values of a file are.
pub fn words(text: &str, assignments: &[Assignment]) -> Vec<Word> {
    let mut known: HashMap<&str, Word> = HashMap::new();
    let mut words = Vec::new();
    for assignment in assignments {
        let parts = parts(&text[assignment.range.clone()]);
        let is_shell = is_shell(text, assignment, &parts);
        let word = if is_shell {
            self::word(&assignment.name, &parts, &known)
        } else {
            Word { value: assignment.value.clone(), ..Word::default() }
        };
        let is_plain = parts.iter().all(|part| matches!(part, Part::Plain(_) | Part::Space(_)));
        if is_shell || is_plain {
            known.insert(&assignment.name, word.clone());
        } else {
            // Who knows who reads it.
            known.remove(&*assignment.name);
        }
        words.push(word);
    }
    words
}

fn is_shell(text: &str, assignment: &Assignment, parts: &[Part<'_>]) -> bool {
    let is_exported_behind =
        |part: &Part<'_>| matches!(part, Part::Semicolon(rest) if rest.trim_start().starts_with("export "));
    text[assignment.line_range.clone()].starts_with("export ") || parts.iter().any(is_exported_behind)
}

fn word(variable: &str, parts: &[Part<'_>], known: &HashMap<&str, Word>) -> Word {
    let mut word = Word { is_shell: true, ..Word::default() };
    let is_list = ProxyVariable::of(variable) == Some(ProxyVariable::No);
    for part in parts {
        match part {
            Part::Plain(c) | Part::Space(c) => word.value.push(*c),
            Part::Semicolon(_) => break,
            Part::Reference(text) => {
                let name = text.trim_start_matches(['$', '{']);
                let name = &name[..name.find(|c| !is_name(c)).unwrap_or(name.len())];
                let is_simple = *text == format!("${name}") || *text == format!("${{{name}}}");
                // Messages show entries, and hosts without a scheme: what no proxy variable has may be a secret. Of a URL with
                // a scheme they show nothing.
                let is_shown = |value: &str| match ProxyVariable::of(name) {
                    of if is_list => of == Some(ProxyVariable::No),
                    of => of.is_some() || [&word.value, value].iter().any(|text| text.contains("://")),
                };
                if let Some(value) = known.get(name).filter(|known| {
                    is_simple && is_shown(&known.value) && word.value.len() + known.value.len() <= LONGEST
                }) {
                    word.value.push_str(&value.value);
                    let new = value.unknown.iter().filter(|one| !word.unknown.contains(one)).cloned();
                    let new: Vec<_> = new.collect();
                    word.unknown.extend(new);
                    continue;
                }
                // What is in there may be anything, commas and passwords too.
                let (name, shown) = match name {
                    "" => ("command", "$(…)".to_owned()),
                    name if is_simple => (name, (*text).to_owned()),
                    name => (name, format!("${{{name}…}}")),
                };
                let reference = format!("$({name})");
                word.value.push_str(&reference);
                let one = (reference, shown);
                if !word.unknown.contains(&one) {
                    word.unknown.push(one);
                }
            }
        }
    }
    word
}

/// Why the value of an assignment cannot be written anew, and what to write. Whether a shell reads the file is not always known.
pub fn refusal(text: &str, assignment: &Assignment) -> Option<&'static str> {
    let parts = parts(&text[assignment.range.clone()]);
    let is_shell = is_shell(text, assignment, &parts);
    parts.iter().find_map(|part| match part {
        Part::Reference(_) => {
            Some("has what a shell replaces ($ or `), and would lose it: write the entries themselves, or rewrite it by hand")
        }
        Part::Semicolon(_) => {
            Some("has a ; outside of quotes, which ends it in a shell: write what is behind it in a line of its own, or quotes around the value")
        }
        Part::Space(_) if is_shell => {
            Some("has white space outside of quotes, which ends it in a shell: write quotes around the value, or another variable in a line of its own")
        }
        _ => None,
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Takes a value apart as [`super::super::route::env_file`] does: it takes quotes away from a value that begins with one.
fn parts(raw: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let is_quoted = raw.starts_with(['"', '\'']);
    let mut quote = None;
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let mut behind = &rest[c.len_utf8()..];
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                parts.extend((!is_quoted).then_some(Part::Plain(c)));
            }
            (_, Some(end)) if c == end => {
                quote = None;
                parts.extend((!is_quoted).then_some(Part::Plain(c)));
            }
            ('\\', None | Some('"')) => {
                let next = behind.chars().next();
                let is_escape = is_quoted && next.is_some_and(|next| matches!(next, '"' | '\\' | '$' | '`'));
                parts.extend((!is_escape).then_some(Part::Plain(c)));
                parts.extend(next.map(Part::Plain));
                behind = &behind[next.map_or(0, char::len_utf8)..];
            }
            ('$' | '`', None | Some('"')) => {
                if let Some(length) = reference(rest) {
                    parts.push(Part::Reference(&rest[..length]));
                    behind = &rest[length..];
                } else {
                    parts.push(Part::Plain(c));
                }
            }
            (';', None) => parts.push(Part::Semicolon(behind)),
            (c, None) if c.is_whitespace() => parts.push(Part::Space(c)),
            _ => parts.push(Part::Plain(c)),
        }
        rest = behind;
    }
    parts
}

/// The length of the reference that a text begins with; `None` if the dollar sign is one.
fn reference(text: &str) -> Option<usize> {
    let until = |open: char, close: char| {
        let mut depth = 0_usize;
        let end = text.char_indices().find(|(_, c)| {
            if *c == close && depth > 0 {
                depth -= 1;
                return depth == 0;
            }
            depth += usize::from(*c == open);
            false
        });
        // Without an end it goes on in the next line.
        end.map_or(text.len(), |(at, _)| at + close.len_utf8())
    };
    match text.chars().nth(1) {
        _ if text.starts_with('`') => Some(until('`', '`')),
        Some('{') => Some(until('{', '}')),
        Some('(') => Some(until('(', ')')),
        Some(c) if c.is_ascii_digit() || "@*#?$!-".contains(c) => Some(2),
        Some(c) if is_name(c) => {
            Some(text[1..].find(|c| !is_name(c)).map_or(text.len(), |length| 1 + length))
        }
        _ => None,
    }
}

/// A finding as it is told; `None` if it comes from nothing but what the shell alone knows.
pub fn told(mut finding: Finding, subject: &Subject, words: &[Word]) -> Option<Finding> {
    let word = &words[finding.variable];
    let is_unknown = match finding.id {
        Id::W11 => word.is_shell,
        Id::E3 => compares_unknown(&finding, subject, words),
        _ => false,
    };
    if is_unknown {
        return None;
    }
    for (reference, shown) in &word.unknown {
        let texts = [&mut finding.message, &mut finding.breaks, &mut finding.advice];
        for text in texts.into_iter().chain(finding.entry.as_mut()) {
            *text = text.replace(reference, shown);
        }
    }
    Some(finding)
}

/// Whether it is about two spellings, of which one has something in it that only the shell knows.
fn compares_unknown(finding: &Finding, subject: &Subject, words: &[Word]) -> bool {
    let name = &subject.variables[finding.variable].name;
    let Some(proxy) = ProxyVariable::of(name).filter(|proxy| name == proxy.upper()) else { return false };
    let places: Vec<usize> = subject
        .spellings(proxy)
        .filter(|(_, variable)| variable.name == proxy.lower() || variable.name == proxy.upper())
        .map(|(index, _)| index)
        .collect();
    places.len() == 2 && places.iter().any(|place| !words[*place].unknown.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::super::route::env_file;
    use super::*;

    fn read(text: &str) -> (Vec<Assignment>, Vec<Word>) {
        let (assignments, errors) = env_file::assignments(text);
        assert!(errors.is_empty(), "{errors:?}");
        let words = words(text, &assignments);
        (assignments, words)
    }

    #[test]
    fn a_line_with_export_has_the_values_of_a_shell_and_no_other_one_has() {
        for (text, expected) in [
            ("no_proxy=\"$X,a\"", "$X,a"),
            ("no_proxy=a;b", "a;b"),
            ("export no_proxy='$X,a'", "$X,a"),
            ("export no_proxy=\"\\$X,$,a\"", "$X,$,a"),
            (
                "export no_proxy=\"$X,${Y},${Z:-s3,cret}.a,`s3 cret`,$(s3 $(cret)),$1,b\"",
                "$(X),$(Y),$(Z).a,$(command),$(command),$(1),b",
            ),
            ("no_proxy=a;export no_proxy", "a"),
            ("export no_proxy=a; export NO_PROXY=b", "a"),
            ("X=s3cret\nexport no_proxy=$X", "$(X)"),
            ("X=s3cret\nexport http_proxy=$X", "$(X)"),
            ("http_proxy=http://me:s3,cret@a\nexport no_proxy=$http_proxy", "$(http_proxy)"),
            ("X=proxy\nexport http_proxy=http://$X:1", "http://proxy:1"),
            ("X=$Y\nexport http_proxy=http://$X:1", "http://$(X):1"),
            ("no_proxy=a\nexport NO_PROXY=\"${no_proxy},b\"", "a,b"),
            ("export no_proxy=$X\nexport NO_PROXY=$no_proxy", "$(X)"),
        ] {
            assert_eq!(read(text).1.last().expect("a word").value, expected, "{text}");
        }
    }

    #[test]
    fn values_that_double_with_each_line_have_an_end() {
        let text = "export http_proxy=http://$A\n".to_owned()
            + &"export http_proxy=$http_proxy$http_proxy\n".repeat(60);
        let (_, words) = read(&text);
        assert!(words.iter().all(|word| word.value.len() < 2 * LONGEST && word.unknown.len() <= 2));
    }

    #[test]
    fn what_a_shell_reads_otherwise_is_refused() {
        let is_refused = |text: &str| refusal(text, read(text).0.last().expect("an assignment")).is_some();
        for text in ["x=$X", "x=\"a $X\"", "x=a;b", "x='a'\nx=`b`", "export x=a y=b", "x=a'$b'$c"] {
            assert!(is_refused(text), "{text}");
        }
        for text in ["x='$X;'", "x=\"\\$X; a\"", "x=a b", "x=a\\;", "x=a$ # $X;", "export x=\"a b\""] {
            assert!(!is_refused(text), "{text}");
        }
    }
}
