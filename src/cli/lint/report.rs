//! Findings with their places, as text, JSON and annotations of GitHub.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::lint::{Finding, Severity};
use crate::manifest::Place;

/// A finding and where it is.
#[derive(Debug)]
pub struct Located {
    pub file: String,
    /// The document of the file; `None` in a file of variables and in a cluster.
    pub document: Option<usize>,
    /// The preset or container; empty in a file of variables.
    pub object: String,
    pub variable: String,
    pub place: Option<Place>,
    pub finding: Finding,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Located>,
    /// What cannot be read or written, as complete messages.
    pub errors: Vec<String>,
    /// Presets, containers and files of variables that were looked at.
    pub subjects: usize,
}

impl Located {
    /// What it is about, in words.
    pub fn about(&self) -> String {
        let of = if self.object.is_empty() { String::new() } else { format!(" of {}", self.object) };
        format!("{}{of}", self.variable)
    }

    /// All that there is to say, in one line.
    pub fn message(&self) -> String {
        let finding = &self.finding;
        let mut message = format!("{}: {}.", self.about(), finding.message);
        if !finding.breaks.is_empty() {
            let _ = write!(message, " What breaks: {}.", finding.breaks);
        }
        let _ = write!(message, " Write: {}", finding.advice);
        message
    }
}

impl Report {
    pub fn add(&mut self, located: Located) {
        self.findings.push(located);
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|located| located.finding.severity == severity).count()
    }

    fn unreadable(&self) -> usize {
        self.findings.iter().filter(|located| located.finding.is_unreadable).count()
    }

    fn fixable(&self) -> usize {
        self.findings.iter().filter(|located| located.finding.is_fixable).count()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for located in &self.findings {
            let finding = &located.finding;
            let _ = write!(text, "{}", located.file);
            if let Some(place) = located.place {
                let _ = write!(text, ":{}:{}", place.line, place.column);
            }
            let _ = writeln!(text, ": {} {} {}", finding.severity, finding.id, located.about());
            let _ = writeln!(text, "  {}", finding.message);
            if !finding.breaks.is_empty() {
                let _ = writeln!(text, "  breaks: {}", finding.breaks);
            }
            let _ = writeln!(text, "  write:  {}", finding.advice);
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let number =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let looked = format!("in {}", number(self.subjects, "set of variables", "sets of variables"));
        if self.findings.is_empty() {
            return format!("nothing found {looked}");
        }
        let mut summary = format!(
            "{}, {}, {} {looked}",
            number(self.count(Severity::Error), "error", "errors"),
            number(self.count(Severity::Warning), "warning", "warnings"),
            number(self.count(Severity::Info), "note", "notes"),
        );
        if self.unreadable() > 0 {
            let entries = number(self.unreadable(), "unreadable entry", "unreadable entries");
            let _ = write!(summary, "; {entries}");
        }
        if self.fixable() > 0 {
            let _ = write!(summary, "; --fix helps with {}", self.fixable());
        }
        if let Some(first) = self.findings.first() {
            let _ = write!(summary, "; reach lint --explain {} says more", first.finding.id);
        }
        summary
    }

    /// For machines.
    pub fn json(&self) -> serde_json::Result<String> {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|located| {
                let finding = &located.finding;
                let clients: Vec<&str> = finding.clients.iter().map(|client| client.name()).collect();
                let mut object = json!({
                    "id": finding.id.to_string(),
                    "severity": finding.severity,
                    "title": finding.id.rule().title,
                    "file": located.file,
                });
                let mut set = |key: &str, value: Value| object[key] = value;
                if let Some(document) = located.document {
                    set("document", document.into());
                }
                if !located.object.is_empty() {
                    set("object", located.object.as_str().into());
                }
                set("variable", located.variable.as_str().into());
                if let Some(entry) = &finding.entry {
                    set("entry", entry.as_str().into());
                }
                if let Some(place) = located.place {
                    set("line", place.line.into());
                    set("column", place.column.into());
                    set("endLine", place.end_line.into());
                    set("endColumn", place.end_column.into());
                }
                set("message", finding.message.as_str().into());
                set("breaks", finding.breaks.as_str().into());
                set("clients", clients.into());
                set("write", finding.advice.as_str().into());
                set("fixable", finding.is_fixable.into());
                object
            })
            .collect();
        let report = json!({
            "findings": findings,
            "summary": {
                "errors": self.count(Severity::Error),
                "warnings": self.count(Severity::Warning),
                "notes": self.count(Severity::Info),
                "unreadable": self.unreadable(),
                "fixable": self.fixable(),
                "lookedAt": self.subjects,
            },
            "failures": self.errors,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }

    /// Workflow commands: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
    pub fn github(&self) -> String {
        let mut text = String::new();
        for located in &self.findings {
            let command = match located.finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "notice",
            };
            let _ = write!(text, "::{command} ");
            if let Some(place) = located.place {
                let _ = write!(
                    text,
                    "file={},line={},col={},endLine={},endColumn={},",
                    property(&located.file),
                    place.line,
                    place.column,
                    place.end_line,
                    place.end_column
                );
            }
            let rule = located.finding.id.rule();
            let _ = writeln!(
                text,
                "title={}::{}",
                property(&format!("{} {}", rule.id, rule.title)),
                data(&located.message())
            );
        }
        text
    }
}

/// Text behind `::`, as actions/toolkit escapes it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_command_or_a_property_is_escaped() {
        assert_eq!(data("50%\r\na: b, c"), "50%25%0D%0Aa: b, c");
        assert_eq!(property("a: b, 5%\n"), "a%3A b%2C 5%25%0A");
    }
}
