//! Streams of manifests as commands that change them write them.

use std::borrow::Cow;

use serde_json::{Value, json};
use similar::TextDiff;

use super::input::File;
use crate::manifest::{self, Document};

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
        Form::Same => out = joined(texts),
        Form::Yaml => texts.iter().for_each(|text| append(&mut out, &yaml(text), false)),
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

/// The texts as they are. A stream is JSON or YAML, and no reader takes one that goes on as the other: where there is some of
/// each, all is YAML.
fn joined(texts: &[String]) -> String {
    let texts: Vec<&String> = texts.iter().filter(|text| !text.trim().is_empty()).collect();
    let [first, others @ ..] = &texts[..] else { return String::new() };
    if others.is_empty() {
        return (*first).clone();
    }
    let forms: Vec<bool> = texts.iter().map(|text| is_json(&manifest::documents(text))).collect();
    let json = forms.iter().all(|&json| json);
    let mixed = !json && forms.contains(&true);
    let mut out = String::new();
    for text in texts {
        append(&mut out, &if mixed { yaml(text).into() } else { Cow::Borrowed(text.as_str()) }, json);
    }
    out
}

/// Whether there is nothing but JSON.
pub fn is_json(documents: &[Document<'_>]) -> bool {
    !documents.is_empty() && documents.iter().all(Document::is_json)
}

/// A stream in which documents of JSON are written as YAML.
fn yaml(text: &str) -> String {
    let mut stream = String::new();
    for document in manifest::documents(text) {
        if document.is_json() {
            for object in objects(document.text) {
                append(&mut stream, &manifest::to_yaml(&object), false);
            }
        } else {
            append(&mut stream, document.text, false);
        }
    }
    stream
}

/// The objects of a text that is known to be read.
fn objects(text: &str) -> Vec<Value> {
    manifest::documents(text).iter().filter_map(|document| document.read().ok().flatten()).collect()
}

/// Puts a document of another stream behind those of this one, which is JSON, as the document is, or YAML.
pub fn append(stream: &mut String, document: &str, json: bool) {
    if stream.is_empty() {
        return stream.push_str(document);
    }
    if !stream.ends_with('\n') {
        stream.push('\n');
    }
    // The mark of an encoding stands in front of a file only.
    let document = document.trim_start_matches('\u{feff}');
    if !json && !document.starts_with("---") && !document.trim().is_empty() {
        stream.push_str("---\n");
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
