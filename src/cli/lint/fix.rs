//! `--fix`: no_proxy in its portable form, and everything else to the letter.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::route::env_file::{self, Assignment};
use super::super::{Failure, complain, print, write_whole};
use super::report::Report;
use super::shell;
use super::source::{self, Kind, Source};
use crate::inject::preset::ProxyVariable;
use crate::lint::{Scope, Subject, Variable, mask, objects, portable};
use crate::manifest::{self, Document, Operation};

/// The inputs as they are written.
#[derive(Debug, Default)]
pub struct Fixed {
    pub sources: Vec<Source>,
    /// What is changed.
    changes: Vec<Rewritten>,
    /// What could not be, as lines for standard error.
    pub refusals: Vec<String>,
}

/// A subject whose `no_proxy` is changed.
#[derive(Debug)]
struct Rewritten {
    /// The place of its input among all of them.
    source: usize,
    file: String,
    subject: String,
    /// The variables with their old values; `None` for one that is added.
    variables: Vec<(String, Option<String>)>,
    value: String,
}

/// Rewrites what has findings that the portable form solves. Nothing is written yet.
pub fn fix(sources: &[Source], report: &Report) -> Fixed {
    let mut fixed = Fixed::default();
    for source in sources {
        let text = match source.kind {
            Kind::Manifests => manifests(source, report, &mut fixed),
            Kind::Variables => {
                let is_fixable = !source::fixable(report, &source.file.name, None).is_empty();
                if is_fixable { variables(source, &mut fixed) } else { source.file.text.clone() }
            }
        };
        fixed.sources.push(source.with_text(text));
    }
    fixed
}

/// What becomes of the spellings of `no_proxy` in a subject: new values by their place, and a spelling to add.
struct Change<'s> {
    value: String,
    literal: Vec<(usize, &'s Variable)>,
    missing: Option<&'static str>,
}

fn change<'s>(subject: &'s Subject, file: &str, refusals: &mut Vec<String>) -> Option<Change<'s>> {
    let found: Vec<(usize, &Variable)> = subject.spellings(ProxyVariable::No).collect();
    let literal: Vec<(usize, &Variable)> =
        found.iter().copied().filter(|(_, variable)| variable.value.is_some()).collect();
    let values: Vec<&str> = literal.iter().filter_map(|(_, variable)| variable.value.as_deref()).collect();
    // Set to nothing on purpose, or not known.
    if values.iter().all(|value| value.trim().is_empty()) {
        return None;
    }
    let value = portable(&values);
    // The union of * alone and a list is *, which takes the list away from clients that do not know it.
    if value == "*" && values.iter().any(|value| portable(&[value]) != "*") {
        refusals.push(format!(
            "not fixed: {file}: one spelling of no_proxy{} is *, which has no union with a list: write one of them in both",
            of(&subject.name)
        ));
        return None;
    }
    let has = |name: &str| found.iter().any(|(_, variable)| variable.name == name);
    let is_alone = subject.scope != Scope::Preset && !subject.is_open;
    let missing = ["no_proxy", "NO_PROXY"].into_iter().find(|name| is_alone && !has(name));
    // In the other spelling it would be another value, or the text itself.
    if let Some(name) = subject.divides(ProxyVariable::No, missing.is_some()) {
        let (why, write) = if ProxyVariable::of(&name) == Some(ProxyVariable::No) {
            ("refers to a spelling of it", "the list itself in its place")
        } else {
            ("does not stand in front of every spelling of it", "it in front of them")
        };
        refusals.push(format!(
            "not fixed: {file}: $({name}) in no_proxy{} {why}: write {write}",
            of(&subject.name)
        ));
        return None;
    }
    Some(Change { value, literal, missing })
}

/// Whose variables they are, behind their names; nothing in a file of variables.
fn of(subject: &str) -> String {
    if subject.is_empty() { String::new() } else { format!(" of {subject}") }
}

fn manifests(source: &Source, report: &Report, fixed: &mut Fixed) -> String {
    let name = &source.file.name;
    let mut text = String::new();
    for document in manifest::documents(&source.file.text) {
        let fixable = source::fixable(report, name, Some(document.number));
        let object = document.read().ok().flatten().filter(|_| !fixable.is_empty());
        match object {
            Some(object) => text.push_str(&self::document(name, &document, &object, &fixable, fixed)),
            None => text.push_str(document.text),
        }
    }
    text
}

fn document(
    file: &str,
    document: &Document<'_>,
    object: &Value,
    fixable: &HashSet<&str>,
    fixed: &mut Fixed,
) -> String {
    let mut text = document.text.to_owned();
    for subject in objects::subjects(object).iter().filter(|subject| fixable.contains(&*subject.name)) {
        let Some(change) = change(subject, file, &mut fixed.refusals) else { continue };
        let mut operations: Vec<Operation> = Vec::new();
        let mut variables = Vec::new();
        for (_, variable) in &change.literal {
            if variable.value.as_deref() != Some(&*change.value) {
                operations.push(Operation::add(&*variable.pointer, change.value.as_str().into()));
                variables.push((variable.name.clone(), variable.value.clone()));
            }
        }
        if let (Some(missing), Some((_, variable))) = (change.missing, change.literal.first()) {
            // Behind the last variable: `/…/env/3/value` is in `/…/env`.
            let list = variable.pointer.rsplitn(3, '/').nth(2).unwrap_or_default();
            operations
                .push(Operation::add(format!("{list}/-"), json!({"name": missing, "value": change.value})));
            variables.push((missing.to_owned(), None));
        }
        if operations.is_empty() {
            continue;
        }
        // One subject at a time, so that one behind an alias keeps no other one from being fixed.
        let edited = manifest::documents(&text).first().map(|document| document.edit(&operations));
        match edited {
            Some(Ok(edited)) if !edited.reemitted => {
                text = edited.text;
                fixed.changes.push(Rewritten {
                    source: fixed.sources.len(),
                    file: file.to_owned(),
                    subject: subject.name.clone(),
                    variables,
                    value: change.value,
                });
            }
            _ => fixed.refusals.push(format!(
                "not fixed: {file}, document {}: no_proxy of {} stands behind an alias or a tag: write it there as {}",
                document.number,
                subject.name,
                mask::list(&change.value)
            )),
        }
    }
    text
}

fn variables(source: &Source, fixed: &mut Fixed) -> String {
    let text = &source.file.text;
    let (assignments, _) = env_file::assignments(text);
    let subject = source::subject(&assignments, &shell::words(text, &assignments));
    let Some(change) = change(&subject, &source.file.name, &mut fixed.refusals) else {
        return text.clone();
    };
    for (index, variable) in &change.literal {
        let assignment = &assignments[*index];
        if let Some(why) = shell::refusal(text, assignment) {
            let (file, line, name) = (&source.file.name, assignment.line, &variable.name);
            fixed.refusals.push(format!("not fixed: {file}, line {line}: {name} {why}"));
            return text.clone();
        }
    }
    let mut edits: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    let mut variables = Vec::new();
    for (index, variable) in &change.literal {
        let assignment = &assignments[*index];
        if assignment.value == change.value {
            continue;
        }
        edits.push((assignment.range.clone(), quoted(text, assignment, &change.value)));
        variables.push((variable.name.clone(), variable.value.clone()));
    }
    if let (Some(missing), Some((index, variable))) = (change.missing, change.literal.last()) {
        let assignment = &assignments[*index];
        // The same line with another name, without the comment behind it.
        let line = &text[assignment.line_range.start..assignment.range.start];
        let start = line.rfind(&variable.name).unwrap_or_default();
        let head = format!("{}{missing}{}", &line[..start], &line[start + variable.name.len()..]);
        let line_end =
            text[assignment.range.end..].find('\n').map_or(text.len(), |at| assignment.range.end + at);
        let line_break = if text[..line_end].ends_with('\r') { "\r\n" } else { "\n" };
        let at = line_end - usize::from(text[..line_end].ends_with('\r'));
        let indent = indent(text, assignment);
        let added = format!("{line_break}{indent}{head}{}", quoted(text, assignment, &change.value));
        edits.push((at..at, added));
        variables.push((missing.to_owned(), None));
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut new_text = String::new();
    let mut done = 0;
    for (range, new) in &edits {
        new_text.push_str(&text[done..range.start]);
        new_text.push_str(new);
        done = range.end;
    }
    new_text.push_str(&text[done..]);
    // What cannot be written so that it reads back is left to its author.
    let (again, errors) = env_file::assignments(&new_text);
    let reads_back = change.literal.iter().all(|(_, variable)| {
        again.iter().rfind(|assignment| assignment.name == variable.name).map(|found| &found.value)
            == Some(&change.value)
    });
    let file = source.file.name.clone();
    if errors.is_empty() && reads_back {
        if !variables.is_empty() {
            let source = fixed.sources.len();
            fixed.changes.push(Rewritten {
                source,
                file,
                subject: String::new(),
                variables,
                value: change.value,
            });
        }
        new_text
    } else {
        fixed.refusals.push(format!(
            "not fixed: {file}: no_proxy has quotes or comment signs in it: write it as {}",
            mask::list(&change.value)
        ));
        text.clone()
    }
}

/// A value in the quotes of an assignment.
fn quoted(text: &str, assignment: &Assignment, value: &str) -> String {
    match text[assignment.range.clone()].chars().next() {
        Some('\'') => format!("'{value}'"),
        Some('"') => {
            let mut quoted = String::from('"');
            for c in value.chars() {
                if matches!(c, '"' | '\\' | '$' | '`') {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            quoted + "\""
        }
        _ => value.to_owned(),
    }
}

/// The white space in front of an assignment.
fn indent<'t>(text: &'t str, assignment: &Assignment) -> &'t str {
    let start = text[..assignment.line_range.start].rfind('\n').map_or(0, |at| at + 1);
    &text[start..assignment.line_range.start]
}

impl Fixed {
    /// What is changed, a line for each subject.
    pub fn notes(&self, word: &str) -> Vec<String> {
        self.changes.iter().map(|change| change.note(word)).collect()
    }

    /// The variables that change, before and after. Not the lines that they are in: what else stands there, or beside
    /// them, may be a password that nothing shows to be one.
    pub fn diff(&self) -> String {
        let mut diff = String::new();
        let mut file = None;
        for change in &self.changes {
            if file != Some(&change.file) {
                let _ = write!(diff, "--- {0}\n+++ {0} (fixed)\n", change.file);
                file = Some(&change.file);
            }
            if !change.subject.is_empty() {
                let _ = writeln!(diff, "@@ {} @@", change.subject);
            }
            for (name, old) in &change.variables {
                if let Some(old) = old {
                    let _ = writeln!(diff, "-{name}={}", mask::list(old));
                }
            }
            for (name, _) in &change.variables {
                let _ = writeln!(diff, "+{name}={}", mask::list(&change.value));
            }
        }
        diff
    }

    /// Writes what changed, and at last standard input to standard output. What is fixed is said once it is; what could not be
    /// written stays as it was, and is returned.
    pub fn write(&mut self, before: &[Source]) -> Result<Vec<String>, Failure> {
        let mut errors = Vec::new();
        for (number, (before, after)) in before.iter().zip(&mut self.sources).enumerate() {
            let Some(path) = after.file.path.as_ref().filter(|_| before.file.text != after.file.text) else {
                continue;
            };
            if let Err(error) = write_whole(path, &after.file.text) {
                errors.push(format!("{}: cannot be written: {error}", after.file.name));
                after.file.text.clone_from(&before.file.text);
                continue;
            }
            self.changes.iter().filter(|change| change.source == number).for_each(Rewritten::say);
        }
        for (number, source) in
            self.sources.iter().enumerate().filter(|(_, source)| source.file.path.is_none())
        {
            print(&source.file.text)?;
            self.changes.iter().filter(|change| change.source == number).for_each(Rewritten::say);
        }
        Ok(errors)
    }
}

impl Rewritten {
    fn note(&self, word: &str) -> String {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| &**name).collect();
        format!(
            "{word}: {}: {}{} = {}",
            self.file,
            names.join(", "),
            of(&self.subject),
            mask::list(&self.value)
        )
    }

    fn say(&self) {
        complain(&self.note("fixed"));
    }
}
