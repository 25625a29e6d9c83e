//! SARIF 2.1.0 (OASIS), as code scanning reads it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::report::{Located, Report};
use crate::lint::{RULES, Severity};

pub fn write(report: &Report) -> serde_json::Result<String> {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id.to_string(),
                "shortDescription": {"text": rule.title},
                "fullDescription": {"text": rule.explanation},
                "help": {"text": rule.explain()},
                "defaultConfiguration": {"level": level(rule.severity)},
            })
        })
        .collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    let notifications: Vec<Value> =
        report.errors.iter().map(|error| json!({"level": "error", "message": {"text": error}})).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "reach",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": report.errors.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

fn result(located: &Located) -> Value {
    let mut location = json!({});
    if let Some(place) = located.place {
        location["physicalLocation"] = json!({
            "artifactLocation": {"uri": uri(&located.file)},
            "region": {
                "startLine": place.line,
                "startColumn": place.column,
                "endLine": place.end_line,
                "endColumn": place.end_column,
            },
        });
    }
    location["logicalLocations"] = json!([{"fullyQualifiedName": located.about()}]);
    json!({
        "ruleId": located.finding.id.to_string(),
        "ruleIndex": located.finding.id as usize,
        "level": level(located.finding.severity),
        "message": {"text": located.message()},
        "locations": [location],
    })
}

/// A path as a URI reference (RFC 3986): relative as it is given, absolute with its scheme.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri() {
        assert_eq!(uri("a b/ü:1.yaml"), "a%20b/%C3%BC%3A1.yaml");
        assert_eq!(uri("/etc/environment"), "file:///etc/environment");
    }
}
