//! Kubernetes manifest streams: reading them as `kubectl apply -f` does, and
//! changing their *text* so that every line that is not touched stays byte for
//! byte what its author wrote.
//!
//! [`documents`] cuts a stream into [`Document`]s without losing a byte,
//! [`Document::read`] gives the value of one, and [`Document::edit`] applies
//! RFC 6902 operations to the text of one:
//!
//! ```
//! use reach::manifest::{Operation, documents};
//! let stream = "# ours\nmetadata: {name: web} # keep\nmode: 0755\n";
//! let document = &documents(stream)[0];
//! let edited = document.edit(&[Operation::add("/metadata/labels", serde_json::json!({"a": "yes"}))])?;
//! assert_eq!(
//!     edited.text,
//!     "# ours\nmetadata: {name: web, labels: {a: \"yes\"}} # keep\nmode: 0755\n",
//! );
//! # Ok::<(), reach::manifest::Error>(())
//! ```
//!
//! # How values are read
//!
//! Plain scalars mean what they mean to kubectl, whose YAML reader follows YAML
//! 1.1 with a few exceptions: `yes`, `on`, `y` and the like are booleans, `0755`
//! and `0o755` are 493, `1_000` is 1000, and a date is a string. Keys become
//! strings after the same reading, so that `on:` is the key `true`. An integer
//! of more than 64 bits becomes a float.
//!
//! Two things differ on purpose. A key given twice is an error here, where
//! kubectl takes the last one; and a key of the mapping itself always wins over
//! one from a merge key (`<<`), where kubectl takes whichever comes last. And
//! one thing differs because of the parser: in a flow collection inside of a
//! block one, a line must not start with a tab.

mod locate;
mod place;
mod split;
mod tree;
mod write;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use serde::Serialize;
use serde_json::Value;

pub use locate::Place;
pub use split::documents;
pub use write::to_yaml;

use place::Plan;
use tree::Tree;

/// One document of a stream.
///
/// The texts of all documents of a stream, concatenated, are the stream.
#[derive(Debug)]
pub struct Document<'a> {
    /// The exact text, with the `---` line that starts it, the comments and
    /// directives above that line when no other document is above them, and
    /// the line break that ends it.
    pub text: &'a str,
    /// The place of the document in its stream; the first is 1.
    pub number: usize,
    /// The line of the stream at which the text starts; the first is 1.
    pub line: usize,
    /// The text as a tree: scanning is what costs, and a document is usually
    /// read before it is edited.
    tree: OnceLock<Result<Tree<'a>, Error>>,
}

/// One RFC 6902 operation. Its path is an RFC 6901 JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Puts a value there. A member that exists is replaced, an index of an
    /// array inserts in front of the item that is there, and `-` appends.
    Add {
        /// Where to add.
        path: String,
        /// What to add.
        value: Value,
    },
    /// Puts another value in the place of the one that is there.
    Replace {
        /// Where that value is.
        path: String,
        /// What takes its place.
        value: Value,
    },
    /// Takes away the member or the item that is there.
    Remove {
        /// Where it is.
        path: String,
    },
}

impl Operation {
    /// An operation that adds `value` at `path`.
    pub fn add(path: impl Into<String>, value: Value) -> Self {
        Self::Add { path: path.into(), value }
    }

    /// An operation that replaces what is at `path` by `value`.
    pub fn replace(path: impl Into<String>, value: Value) -> Self {
        Self::Replace { path: path.into(), value }
    }

    /// An operation that removes what is at `path`.
    pub fn remove(path: impl Into<String>) -> Self {
        Self::Remove { path: path.into() }
    }

    /// The same for a value that is at the JSON pointer `at`.
    #[must_use]
    pub fn under(self, at: &str) -> Self {
        match self {
            Self::Add { path, value } => Self::Add { path: format!("{at}{path}"), value },
            Self::Replace { path, value } => Self::Replace { path: format!("{at}{path}"), value },
            Self::Remove { path } => Self::Remove { path: format!("{at}{path}") },
        }
    }

    /// Where it takes place.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Add { path, .. } | Self::Replace { path, .. } | Self::Remove { path } => path,
        }
    }

    /// Its name in RFC 6902.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Replace { .. } => "replace",
            Self::Remove { .. } => "remove",
        }
    }
}

/// What [`Document::edit`] made of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The text to put in the place of the document's.
    pub text: String,
    /// Whether the document had to be written anew from its values. The
    /// comments between its first and its last value are lost then, and
    /// anchors, aliases and merge keys are written out.
    pub reemitted: bool,
}

/// Why a document cannot be read or edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not YAML, or is YAML that JSON (and so kubectl) has no
    /// equivalent for.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// The line in the stream; the first is 1.
        line: usize,
        /// The column in that line, in characters; the first is 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// An operation has no place in the document.
    #[error("cannot {operation} at \"{path}\": {message}")]
    Path {
        /// The operation's name.
        operation: &'static str,
        /// The operation's pointer.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// No text could be found that reads back as the document with the
    /// operations applied, such as for a key of more than 1,024 characters.
    #[error("line {line}: the edited document cannot be written as YAML")]
    Unwritable {
        /// The line of the stream at which the document starts.
        line: usize,
    },
}

impl<'a> Document<'a> {
    fn new(text: &'a str, number: usize, line: usize) -> Self {
        Self { text, number, line, tree: OnceLock::new() }
    }

    /// The value of the document: `None` when it holds nothing but comments or
    /// is `null`, which kubectl skips.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`] when the text is not YAML, when a key is given twice,
    /// is `null`, a list or a mapping, when an alias is inside of what it
    /// stands for or the aliases multiply out to more than a manifest can
    /// need, and when a number is `.inf` or `.nan`.
    pub fn read(&self) -> Result<Option<Value>, Error> {
        let value = self.tree()?.value(self.line)?;
        Ok(Some(value).filter(|value| !value.is_null()))
    }

    /// Whether the document is JSON (as opposed to other YAML).
    #[must_use]
    pub fn is_json(&self) -> bool {
        let text = self.text.trim_start_matches(BOM).trim_start();
        text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    /// Applies `operations`, one after the other, to the text.
    ///
    /// Lines that are not concerned stay as they are; what is new takes the
    /// indentation and the style of what is around it. A comment belongs to the
    /// item or member below it: an item that is inserted goes above both, and
    /// where an item is replaced or removed the comment above it stays.
    /// Comments behind or inside of its own lines go with a list or a mapping.
    ///
    /// Where the text cannot be changed in place (the place is behind an alias,
    /// a merge key or a tag, is aliased elsewhere, is in a mapping with `? `
    /// keys, or is the whole document), the document is written anew from its
    /// values, which [`Edited::reemitted`] tells. Either way the result has
    /// been read back and compared with the values it must have; that is half
    /// of the time an edit takes.
    ///
    /// # Errors
    ///
    /// Those of [`Document::read`], [`Error::Path`] when an operation cannot be
    /// applied, and [`Error::Unwritable`].
    pub fn edit(&self, operations: &[Operation]) -> Result<Edited, Error> {
        let tree = self.tree()?;
        let mut expected = tree.value(self.line)?;
        let mut places = Vec::with_capacity(operations.len());
        for operation in operations {
            let failed = |message: &str| Error::Path {
                operation: operation.name(),
                path: operation.path().to_owned(),
                message: message.to_owned(),
            };
            let tokens = tokens(operation.path()).map_err(failed)?;
            apply(&mut expected, &tokens, operation).map_err(failed)?;
            places.push(tokens);
        }
        if operations.is_empty() {
            return Ok(Edited { text: self.text.to_owned(), reemitted: false });
        }

        let mut plan = Plan::new(self.text, tree);
        let planned =
            places.iter().zip(operations).try_for_each(|(tokens, operation)| plan.apply(tokens, operation));
        if planned.is_some() {
            // A literal block cannot be everywhere: not above a comment that is indented like its content,
            // nor, with a final line break, at the end of a text without one.
            let texts = [(true, ""), (false, ""), (true, "\n")];
            for text in texts.into_iter().filter_map(|(literal, end)| Some(plan.text(literal)? + end)) {
                if reads_as(&text, &expected) {
                    return Ok(Edited { text, reemitted: false });
                }
            }
        }
        place::reemissions(self.text, tree, &expected, self.is_json())
            .into_iter()
            .find(|text| reads_as(text, &expected))
            .map(|text| Edited { text, reemitted: true })
            .ok_or(Error::Unwritable { line: self.line })
    }

    fn tree(&self) -> Result<&Tree<'a>, Error> {
        self.tree.get_or_init(|| Tree::parse(self.text, self.line)).as_ref().map_err(Clone::clone)
    }
}

/// The mark some editors put in front of a file; no part of its content.
const BOM: char = '\u{feff}';

fn reads_as(text: &str, expected: &Value) -> bool {
    Tree::parse(text, 1).and_then(|tree| tree.value(1)).is_ok_and(|value| value == *expected)
}

/// The reference tokens of a JSON pointer (RFC 6901).
fn tokens(pointer: &str) -> Result<Vec<String>, &'static str> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer.strip_prefix('/').ok_or("a JSON pointer starts with `/`")?;
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// The index an array's reference token stands for; `-` is the one after the
/// last.
fn index(token: &str, length: usize) -> Option<usize> {
    match token {
        "-" => Some(length),
        "0" => Some(0),
        _ if token.starts_with(|first: char| first.is_ascii_digit() && first != '0') => token.parse().ok(),
        _ => None,
    }
}

/// An operation on a value, at the place of `tokens` in it.
fn apply(value: &mut Value, tokens: &[String], operation: &Operation) -> Result<(), &'static str> {
    let Some((last, parents)) = tokens.split_last() else {
        return match operation {
            Operation::Add { value: new, .. } | Operation::Replace { value: new, .. } => {
                *value = new.clone();
                Ok(())
            }
            Operation::Remove { .. } => Err("a document cannot be removed from itself"),
        };
    };
    let mut parent = value;
    for token in parents {
        parent = match parent {
            Value::Object(members) => members.get_mut(token),
            Value::Array(items) => index(token, items.len()).and_then(|index| items.get_mut(index)),
            _ => None,
        }
        .ok_or("there is no such parent")?;
    }
    match parent {
        Value::Object(members) => match operation {
            Operation::Add { value, .. } => {
                members.insert(last.clone(), value.clone());
                Ok(())
            }
            Operation::Replace { value, .. } => {
                *members.get_mut(last).ok_or("there is no such member")? = value.clone();
                Ok(())
            }
            Operation::Remove { .. } => {
                members.shift_remove(last).map(|_| ()).ok_or("there is no such member")
            }
        },
        Value::Array(items) => {
            let index = index(last, items.len()).filter(|index| *index <= items.len());
            let index = index.ok_or("the list has no such place")?;
            match operation {
                Operation::Add { value, .. } => items.insert(index, value.clone()),
                Operation::Replace { value, .. } => {
                    *items.get_mut(index).ok_or("there is no such item")? = value.clone();
                }
                Operation::Remove { .. } if index < items.len() => drop(items.remove(index)),
                Operation::Remove { .. } => return Err("there is no such item"),
            }
            Ok(())
        }
        _ => Err("the parent is neither a list nor a mapping"),
    }
}
