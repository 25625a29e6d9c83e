//! `--fix`: no_proxy in its portable form, and everything else to the letter.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use similar::TextDiff;

use super::super::Failure;
use super::super::route::env_file::{self, Assignment};
use super::report::Report;
use super::source::{self, Kind, Source};
use crate::clients::proxy::Written;
use crate::inject::preset::ProxyVariable;
use crate::lint::{Scope, Subject, Variable, mask, objects, portable};
use crate::manifest::{self, Add, Document};
use crate::no_proxy;

/// The inputs as they are written.
#[derive(Debug)]
pub struct Fixed {
    pub sources: Vec<Source>,
    /// What was changed and what could not be, as lines for standard error.
    pub notes: Vec<String>,
}

/// Rewrites what has findings that the portable form solves. Nothing is written yet.
pub fn fix(sources: &[Source], report: &Report) -> Result<Fixed, Failure> {
    let mut notes = Vec::new();
    let mut fixed = Vec::new();
    for source in sources {
        let name = &source.file.name;
        let text = match source.kind {
            Kind::Manifests => manifests(source, report, &mut notes),
            Kind::Variables => {
                let is_fixable = !source::fixable(report, name, None).is_empty();
                if is_fixable { variables(source, &mut notes) } else { source.file.text.clone() }
            }
            Kind::Objects(_) => return Err(Failure::Messages(vec!["a cluster is not rewritten".to_owned()])),
        };
        fixed.push(source.with_text(text));
    }
    Ok(Fixed { sources: fixed, notes })
}

/// What becomes of the spellings of `no_proxy` in a subject: new values by their place, and a spelling to add.
struct Change<'s> {
    value: String,
    literal: Vec<(usize, &'s Variable)>,
    missing: Option<&'static str>,
}

fn change(subject: &Subject) -> Option<Change<'_>> {
    let found: Vec<(usize, &Variable)> = subject.spellings(ProxyVariable::No).collect();
    let literal: Vec<(usize, &Variable)> =
        found.iter().copied().filter(|(_, variable)| variable.value.is_some()).collect();
    let values: Vec<&str> = literal.iter().filter_map(|(_, variable)| variable.value.as_deref()).collect();
    // Set to nothing on purpose, or not known.
    if values.iter().all(|value| value.trim().is_empty()) {
        return None;
    }
    let has = |name: &str| found.iter().any(|(_, variable)| variable.name == name);
    let is_alone = subject.scope != Scope::Preset && !subject.is_open;
    let missing = ["no_proxy", "NO_PROXY"].into_iter().find(|name| is_alone && !has(name));
    Some(Change { value: portable(&values), literal, missing })
}

fn note(notes: &mut Vec<String>, file: &str, subject: &Subject, names: &[&str], value: &str) {
    let of = if subject.name.is_empty() { String::new() } else { format!(" of {}", subject.name) };
    let shown: Vec<String> = no_proxy::entries(value).map(mask::shown).collect();
    notes.push(format!("fixed: {file}: {}{of} = {}", names.join(", "), shown.join(",")));
}

fn manifests(source: &Source, report: &Report, notes: &mut Vec<String>) -> String {
    let name = &source.file.name;
    let mut text = String::new();
    for document in manifest::documents(&source.file.text) {
        let fixable = source::fixable(report, name, Some(document.number));
        let object = document.read().ok().flatten().filter(|_| !fixable.is_empty());
        match object {
            Some(object) => text.push_str(&self::document(name, &document, &object, &fixable, notes)),
            None => text.push_str(document.text),
        }
    }
    text
}

fn document(
    file: &str,
    document: &Document<'_>,
    object: &Value,
    fixable: &std::collections::HashSet<&str>,
    notes: &mut Vec<String>,
) -> String {
    let mut text = document.text.to_owned();
    for subject in objects::subjects(object).iter().filter(|subject| fixable.contains(&*subject.name)) {
        let Some(change) = change(subject) else { continue };
        let mut operations: Vec<Add> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for (_, variable) in &change.literal {
            if variable.value.as_deref() != Some(&*change.value) {
                operations.push(Add::new(&*variable.pointer, change.value.as_str().into()));
                names.push(&variable.name);
            }
        }
        if let (Some(missing), Some((_, variable))) = (change.missing, change.literal.first()) {
            // Behind the last variable: `/…/env/3/value` is in `/…/env`.
            let list = variable.pointer.rsplitn(3, '/').nth(2).unwrap_or_default();
            operations.push(Add::new(format!("{list}/-"), json!({"name": missing, "value": change.value})));
            names.push(missing);
        }
        if operations.is_empty() {
            continue;
        }
        // One subject at a time, so that one behind an alias keeps no other one from being fixed.
        let edited = manifest::documents(&text).first().map(|document| document.edit(&operations));
        match edited {
            Some(Ok(edited)) if !edited.reemitted => {
                text = edited.text;
                note(notes, file, subject, &names, &change.value);
            }
            _ => notes.push(format!(
                "not fixed: {file}, document {}: no_proxy of {} stands behind an alias or a tag: write it there as {}",
                document.number,
                subject.name,
                mask::line(&change.value)
            )),
        }
    }
    text
}

fn variables(source: &Source, notes: &mut Vec<String>) -> String {
    let text = &source.file.text;
    let (assignments, _) = env_file::assignments(text);
    let subject = source::subject(&assignments);
    let Some(change) = change(&subject) else { return text.clone() };
    let mut edits: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (index, variable) in &change.literal {
        let assignment = &assignments[*index];
        if assignment.value == change.value {
            continue;
        }
        edits.push((assignment.range.clone(), quoted(text, assignment, &change.value)));
        names.push(&variable.name);
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
        names.push(missing);
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut fixed = String::new();
    let mut done = 0;
    for (range, new) in &edits {
        fixed.push_str(&text[done..range.start]);
        fixed.push_str(new);
        done = range.end;
    }
    fixed.push_str(&text[done..]);
    // What cannot be written so that it reads back is left to its author.
    let (again, errors) = env_file::assignments(&fixed);
    let reads_back = change.literal.iter().all(|(_, variable)| {
        again.iter().rfind(|assignment| assignment.name == variable.name).map(|found| &found.value)
            == Some(&change.value)
    });
    if errors.len() == env_file::assignments(text).1.len() && reads_back {
        if !names.is_empty() {
            note(notes, &source.file.name, &subject, &names, &change.value);
        }
        fixed
    } else {
        notes.push(format!(
            "not fixed: {}: no_proxy has quotes or comment signs in it: write it as {}",
            source.file.name,
            mask::line(&change.value)
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
    /// What changes, as a unified diff without credentials.
    pub fn diff(&self, before: &[Source]) -> String {
        let mut diff = String::new();
        let secrets: Vec<String> = before.iter().flat_map(secrets).collect();
        for (before, after) in before.iter().zip(&self.sources) {
            if before.file.text == after.file.text {
                continue;
            }
            let name = &before.file.name;
            let text = TextDiff::from_lines(before.file.text.as_str(), after.file.text.as_str())
                .unified_diff()
                .header(name, &format!("{name} (fixed)"))
                .to_string();
            for line in text.split_inclusive('\n') {
                let known = secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret, "***@"));
                diff.push_str(&mask::line(&known));
            }
        }
        diff
    }

    /// Writes what changed. Whether standard output was used for it: standard input goes there.
    pub fn write(&self, before: &[Source]) -> Result<bool, Failure> {
        let mut is_stdout = false;
        for (before, after) in before.iter().zip(&self.sources) {
            match &after.file.path {
                Some(path) if before.file.text != after.file.text => write(path, &after.file.text)
                    .with_context(|| format!("{}: cannot be written", after.file.name))?,
                Some(_) => {}
                None => {
                    super::super::print(&after.file.text)?;
                    is_stdout = true;
                }
            }
        }
        Ok(is_stdout)
    }
}

/// Users and passwords of proxies and entries, with the @ behind them: without a scheme, a line does not show that they
/// are some.
fn secrets(source: &Source) -> Vec<String> {
    let subjects = match &source.kind {
        Kind::Variables => vec![source::subject(&env_file::assignments(&source.file.text).0)],
        _ => manifest::documents(&source.file.text)
            .iter()
            .filter_map(|document| document.read().ok()?)
            .flat_map(|object| objects::subjects(&object))
            .collect(),
    };
    let mut secrets = Vec::new();
    for subject in subjects {
        for variable in
            subject.variables.iter().filter(|variable| ProxyVariable::of(&variable.name).is_some())
        {
            let value = variable.value.as_deref().unwrap_or_default();
            let parts =
                no_proxy::entries(value).chain([value]).filter_map(|part| Written::read(part).userinfo);
            secrets.extend(parts.map(|secret| format!("{secret}@")));
        }
    }
    // The longest one first: one may be the end of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// Replaces a file as a whole: whoever reads it sees the old text or the new one, also when this ends halfway.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.reach-{}", std::process::id()));
    let result = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result
}
