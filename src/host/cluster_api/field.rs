//! Reading fields of objects: what is missing is nothing, what is of another type is an error that names the field, and
//! what is a variable of clusterctl is told apart from both.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::{Finding, Object};
use crate::host::variables::{has_reference, references};
use crate::no_proxy::entry::{Entry, NameForm};

/// A field of an object.
#[derive(Clone)]
pub(super) struct Field<'m> {
    pub(super) object: &'m Object,
    pub(super) index: usize,
    pub(super) path: String,
    pub(super) value: &'m Json,
    /// Something on the way to it is no mapping; it is that.
    is_cut: bool,
}

/// Where a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) object: usize,
    pub(super) field: String,
}

/// What was found while reading.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What has to be corrected.
    pub(super) wrong: Vec<Finding>,
    /// What could not be derived.
    pub(super) notes: Vec<Finding>,
}

// === impl Field ===

impl<'m> Field<'m> {
    /// All of an object.
    pub(super) fn of(objects: &'m [Object], index: usize) -> Self {
        let object = &objects[index];
        Self { object, index, path: String::new(), value: &object.value, is_cut: false }
    }

    /// A field below, as in `spec.template`.
    pub(super) fn at(&self, path: &str) -> Self {
        let mut field = self.clone();
        for name in path.split('.') {
            field.step(name);
        }
        field
    }

    /// A member, whatever its name has in it.
    pub(super) fn member(&self, name: &str) -> Self {
        let mut field = self.clone();
        field.step(name);
        field
    }

    fn step(&mut self, name: &str) {
        if self.is_cut {
            return;
        }
        if !self.value.is_object() && !self.value.is_null() {
            self.is_cut = true;
            return;
        }
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.value = &self.value[name];
    }

    fn item(&self, index: usize, value: &'m Json) -> Self {
        let path = format!("{}[{index}]", self.path);
        Self { object: self.object, index: self.index, path, value, is_cut: false }
    }

    /// Whether it is there.
    pub(super) fn is_set(&self) -> bool {
        !self.is_cut && !self.value.is_null()
    }

    /// The text of it; nothing if it is empty or not there.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'m str> {
        match self.value {
            Json::String(text) if !self.is_cut => Some(&**text).filter(|text| !text.is_empty()),
            _ => self.other("text", report),
        }
    }

    /// Its items; none if it is not there.
    pub(super) fn items(&self, report: &mut Report) -> Vec<Self> {
        match self.value {
            Json::Array(items) if !self.is_cut => {
                items.iter().enumerate().map(|(index, item)| self.item(index, item)).collect()
            }
            _ => self.other("a list", report).unwrap_or_default(),
        }
    }

    /// Its members with their names; none if it is not there.
    pub(super) fn members(&self, report: &mut Report) -> Vec<(&'m str, Self)> {
        match self.value {
            Json::Object(members) if !self.is_cut => {
                members.keys().map(|name| (&**name, self.member(name))).collect()
            }
            _ => self.other("a mapping", report).unwrap_or_default(),
        }
    }

    /// The length of a prefix in it. As in the APIs, 0 is none.
    pub(super) fn prefix(&self, report: &mut Report) -> Option<u8> {
        match self.value {
            Json::Number(number) if !self.is_cut => {
                let prefix = number.as_u64().and_then(|number| u8::try_from(number).ok());
                let Some(prefix) = prefix.filter(|prefix| *prefix <= 128) else {
                    report.wrong.push(self.expected("the length of a prefix, from 1 to 128"));
                    return None;
                };
                Some(prefix).filter(|prefix| *prefix != 0)
            }
            _ => self.other("a number", report),
        }
    }

    /// Whether it is true; not if it is not there.
    pub(super) fn truth(&self, report: &mut Report) -> bool {
        match self.value {
            Json::Bool(truth) if !self.is_cut => *truth,
            _ => self.other("true or false", report).unwrap_or_default(),
        }
    }

    /// What is not as expected: nothing, a variable, or wrong.
    fn other<T>(&self, expected: &str, report: &mut Report) -> Option<T> {
        match self.value {
            Json::Null => {}
            Json::String(text) if has_reference(text) => report.notes.push(self.unresolved()),
            _ if self.is_cut => report.wrong.push(self.expected("a mapping")),
            _ => report.wrong.push(self.expected(expected)),
        }
        None
    }

    /// It is wrong. What is there is not shown.
    pub(super) fn expected(&self, expected: &str) -> Finding {
        self.finding("type", format!("expected {expected}"))
    }

    /// It has a variable in it, and something would have to be computed from it.
    pub(super) fn unresolved(&self) -> Finding {
        let message = "a variable of clusterctl, so what it stands for is not in the list: give it a value \
                       (--values-from-env), or write the entries into a preset";
        self.finding("unresolved-variable", message.to_owned())
    }

    pub(super) fn finding(&self, rule: &'static str, message: String) -> Finding {
        self.object.finding(rule, &self.path, message)
    }

    pub(super) fn place(&self) -> Place {
        Place { object: self.index, field: self.path.clone() }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn finding(&self, objects: &[Object], rule: &'static str, message: String) -> Finding {
        objects[self.object].finding(rule, &self.field, message)
    }

    /// As messages name it.
    pub(super) fn shown(&self, objects: &[Object]) -> String {
        format!("{} of {}", self.field, objects[self.object])
    }
}

/// A text in which variables are written in one way: clusterctl passes over blanks in `${ X }`.
pub(super) fn in_one_way(text: &str) -> Cow<'_, str> {
    if has_reference(text) && text.contains(' ') { text.replace(' ', "").into() } else { text.into() }
}

/// Whether a text with a variable can stand in a list: what separates entries must not be in a default.
pub(super) fn is_entry(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '\'' | '"' | '[' | ']'))
}

/// The host of a URL, of `host:port` or of a host alone, as clients compare it: without brackets. Variables are passed
/// over as they are; `None` if there is no name or address.
pub(super) fn host(text: &str) -> Option<String> {
    let text = text.trim();
    let rest = find(text, "://").map_or(text, |at| &text[at + 3..]);
    let end = ["/", "?", "#"].iter().filter_map(|end| find(rest, end)).min().unwrap_or(rest.len());
    let authority = &rest[..end];
    // A user, and perhaps a part of a password.
    if text.contains('@') {
        return None;
    }
    let host = if let Some(inner) = authority.strip_prefix('[') {
        inner.split_once(']')?.0
    } else {
        match find(authority, ":") {
            // More than one colon is an IPv6 address.
            Some(at) if find(&authority[at + 1..], ":").is_none() => &authority[..at],
            _ => authority,
        }
    };
    if has_reference(host) {
        return is_entry(host).then(|| host.to_owned());
    }
    match Entry::parse(host) {
        Entry::Address(address) => Some(address.to_string()),
        Entry::Name(name) if name.form == NameForm::Bare => Some(host.to_owned()),
        _ => None,
    }
}

/// Where something is for the first time, outside of variables.
pub(super) fn find(text: &str, what: &str) -> Option<usize> {
    let mut start = 0;
    for reference in references(text) {
        if let Some(at) = text[start..reference.range.start].find(what) {
            return Some(start + at);
        }
        start = reference.range.end;
    }
    text[start..].find(what).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_clients_compare() {
        let cases = [
            ("vcenter.corp.example", Some("vcenter.corp.example")),
            ("https://vcenter.corp.example:443/sdk", Some("vcenter.corp.example")),
            ("https://me:pa#ss@10.0.0.5/sdk", None),
            ("https://me:pass@10.0.0.5/sdk", None),
            ("10.0.0.5:2379", Some("10.0.0.5")),
            ("https://[FD00:0::1]:2379", Some("fd00::1")),
            ("fd00::1", Some("fd00::1")),
            ("${VSPHERE_SERVER}", Some("${VSPHERE_SERVER}")),
            ("https://${VSPHERE_SERVER:=vc.example}:443/sdk", Some("${VSPHERE_SERVER:=vc.example}")),
            ("${A:-${B}}.corp.example:6443", Some("${A:-${B}}.corp.example")),
            ("${LIST:=a,b}", None),
            ("$${ESCAPED}", None),
            ("", None),
            ("*.corp.example", None),
            ("10.0.0.300", None),
            ("10.0.0.0/8", Some("10.0.0.0")),
            ("a b", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}
