//! What `reach lint` looks at, and what the rules say about it.

use std::collections::HashSet;

use serde_json::Value;

use super::super::inject::read_pod;
use super::super::input::File;
use super::super::route::env_file::{self, Assignment};
use super::report::{Located, Report};
use super::shell::{self, Word};
use crate::api::{GROUP, VERSION};
use crate::inject::workload::workloads;
use crate::lint::{self, Facts, Finding, Role, Scope, Subject, Variable, objects};
use crate::manifest::{self, Document, Place};
use crate::presets::directory;

/// A file, and what it is read as.
#[derive(Debug)]
pub struct Source {
    pub file: File,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// YAML or JSON.
    Manifests,
    /// Lines of `KEY=VALUE`.
    Variables,
}

impl Source {
    pub fn manifests(file: File) -> Self {
        Self { file, kind: Kind::Manifests }
    }

    pub fn variables(file: File) -> Self {
        Self { file, kind: Kind::Variables }
    }

    /// The same with another text.
    pub fn with_text(&self, text: String) -> Self {
        Self {
            file: File { name: self.file.name.clone(), path: self.file.path.clone(), text },
            kind: self.kind,
        }
    }
}

/// A document that could be read, or an object of a cluster.
struct Read<'s> {
    /// The file, or `cluster`.
    name: &'s str,
    document: Option<Document<'s>>,
    object: Value,
}

/// Looks at files, and at the objects of a cluster.
pub fn lint(sources: &[Source], cluster: Vec<Value>) -> Report {
    let mut report = Report::default();
    let mut read: Vec<Read<'_>> =
        cluster.into_iter().map(|object| Read { name: "cluster", document: None, object }).collect();
    for source in sources.iter().filter(|source| matches!(source.kind, Kind::Manifests)) {
        let name = &source.file.name;
        for document in manifest::documents(&source.file.text) {
            match document.read() {
                Ok(Some(object)) => read.push(Read { name, document: Some(document), object }),
                Ok(None) => {}
                Err(error) => report.errors.push(format!("{name}, document {}: {error}", document.number)),
            }
        }
    }
    // What one file shows of a cluster is a fact for the others.
    let mut facts = Facts::default();
    for read in &read {
        facts.learn(&read.object);
    }
    for read in &read {
        object(&mut report, read, &facts);
    }
    for source in sources.iter().filter(|source| matches!(source.kind, Kind::Variables)) {
        variables(&mut report, source, &facts);
    }
    report
}

fn object(report: &mut Report, read: &Read<'_>, facts: &Facts) {
    let name = read.name;
    let at = match &read.document {
        Some(document) => format!("{name}, document {}", document.number),
        None => name.to_owned(),
    };
    let errors = errors(&read.object);
    if !errors.is_empty() {
        report.errors.extend(errors.into_iter().map(|error| format!("{at}, {error}")));
        return;
    }
    for subject in objects::subjects(&read.object) {
        report.subjects += 1;
        for finding in lint::check(&subject, facts) {
            let variable = &subject.variables[finding.variable];
            let place = read
                .document
                .as_ref()
                .and_then(|document| document.locate(&variable.pointer, finding.range.as_ref()));
            let number = read.document.as_ref().map(|document| document.number);
            report.add(located(name, number, &subject, variable, place, finding));
        }
    }
}

fn located(
    file: &str,
    document: Option<usize>,
    subject: &Subject,
    variable: &Variable,
    place: Option<Place>,
    finding: Finding,
) -> Located {
    Located {
        file: file.to_owned(),
        document,
        object: subject.name.clone(),
        variable: variable.name.clone(),
        place,
        finding,
    }
}

/// What keeps an object from being read, with its name and field.
fn errors(object: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for (_, object) in objects::items(object) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let label = format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        if objects::is_preset(object) {
            let api_version = object["apiVersion"].as_str().unwrap_or_default();
            if api_version != format!("{GROUP}/{VERSION}") {
                errors.push(format!("{label}: apiVersion: unknown version: write {GROUP}/{VERSION}"));
            } else if !matches!(kind, "ClusterPodPreset" | "PodPreset") {
                errors.push(format!("{label}: kind: unknown kind: write ClusterPodPreset or PodPreset"));
            } else if let Err(found) = directory::preset(object) {
                errors.extend(found.iter().map(|error| format!("{label}: {error}")));
            }
        }
    }
    for workload in workloads(object) {
        if let Err(message) = read_pod(&workload.pod.to_string(), &workload.pointer) {
            errors.push(format!("{}: {message}", workload.reference));
        }
    }
    errors
}

fn variables(report: &mut Report, source: &Source, facts: &Facts) {
    let name = &source.file.name;
    let text = &source.file.text;
    let (assignments, errors) = env_file::assignments(text);
    report.errors.extend(errors.into_iter().map(|error| format!("{name}, {error}")));
    report.subjects += 1;
    let words = shell::words(text, &assignments);
    let subject = subject(&assignments, &words);
    let found = lint::check(&subject, facts);
    for finding in found.into_iter().filter_map(|finding| shell::told(finding, &subject, &words)) {
        let index = finding.variable;
        let place = place(text, &assignments[index], &words[index], &finding);
        report.add(located(name, None, &subject, &subject.variables[finding.variable], Some(place), finding));
    }
}

/// The variables of a file.
pub fn subject(assignments: &[Assignment], words: &[Word]) -> Subject {
    let variables = assignments.iter().zip(words).map(|(assignment, word)| Variable {
        name: assignment.name.clone(),
        value: Some(word.value.clone()),
        pointer: String::new(),
    });
    Subject {
        name: String::new(),
        scope: Scope::File,
        is_rewritten: false,
        has_both_spellings: false,
        is_open: false,
        variables: variables.collect(),
        role: Role::Any,
    }
}

fn place(text: &str, assignment: &Assignment, word: &Word, finding: &Finding) -> Place {
    let raw = &text[assignment.range.clone()];
    let quote = usize::from(raw.starts_with(['"', '\'']));
    // Without escapes and references, the text is the value, or begins with it.
    let is_verbatim =
        raw.get(quote..raw.len() - quote).is_some_and(|written| written.starts_with(&word.value));
    let range = finding.range.as_ref().filter(|_| is_verbatim).map_or(assignment.range.clone(), |part| {
        let start = assignment.range.start + quote;
        start + part.start..start + part.end
    });
    let line_start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
    let column = |at: usize| text[line_start..at].chars().count() + 1;
    Place {
        line: assignment.line,
        column: column(range.start),
        end_line: assignment.line,
        end_column: column(range.end),
    }
}

/// The subjects of a document that a fix can change, each once.
pub fn fixable<'r>(report: &'r Report, file: &str, document: Option<usize>) -> HashSet<&'r str> {
    let found = report
        .findings
        .iter()
        .filter(|located| located.file == file && located.document == document && located.finding.is_fixable);
    found.map(|located| located.object.as_str()).collect()
}
