//! Streams of manifests as commands that change them write them.

use serde_json::{Value, json};
use similar::TextDiff;

use super::input::File;
use crate::manifest;

/// Form of manifests that were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each document as it was
    Same,
    /// All documents as YAML
    Yaml,
    /// The object as JSON; several as one List
    Json,
    /// What changes, as a unified diff; `what` has been done with it.
    Diff {
        /// As in `deployment.yaml (injected)`.
        what: &'static str,
    },
}

/// What is printed for files that have become these texts.
pub fn write(form: Form, files: &[File], texts: &[String]) -> String {
    let mut out = String::new();
    match form {
        Form::Same => texts.iter().for_each(|text| append(&mut out, text)),
        Form::Yaml => texts.iter().for_each(|text| append(&mut out, &yaml(text))),
        Form::Json => {
            let mut items: Vec<Value> = texts.iter().flat_map(|text| objects(text)).collect();
            let object = match items.len() {
                1 => items.remove(0),
                _ => json!({"apiVersion": "v1", "kind": "List", "items": items}),
            };
            out = format!("{object:#}\n");
        }
        Form::Diff { what } => {
            for (file, text) in files.iter().zip(texts) {
                out.push_str(&diff(file, text, what));
            }
        }
    }
    out
}

/// A stream in which documents of JSON are written as YAML.
fn yaml(text: &str) -> String {
    let mut stream = String::new();
    for document in manifest::documents(text) {
        if document.is_json() {
            for object in objects(document.text) {
                append(&mut stream, &manifest::to_yaml(&object));
            }
        } else {
            append(&mut stream, document.text);
        }
    }
    stream
}

/// The objects of a text that is known to be read.
fn objects(text: &str) -> Vec<Value> {
    manifest::documents(text).iter().filter_map(|document| document.read().ok().flatten()).collect()
}

/// Joins documents of different streams.
pub fn append(stream: &mut String, document: &str) {
    if !stream.is_empty() {
        if !stream.ends_with('\n') {
            stream.push('\n');
        }
        let json = document.trim_start().starts_with('{');
        if !document.starts_with("---") && !json && !document.trim().is_empty() {
            stream.push_str("---\n");
        }
    }
    stream.push_str(document);
}

fn diff(file: &File, text: &str, what: &str) -> String {
    if file.text == text {
        return String::new();
    }
    TextDiff::from_lines(file.text.as_str(), text)
        .unified_diff()
        .header(&file.name, &format!("{} ({what})", file.name))
        .to_string()
}
