//! Streams of manifests: the examples, and what `reach host patch` makes of them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use reach::manifest::documents;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::helm::{root, text};
use crate::support::kubectl::succeeded;
use crate::support::serve;

/// Presets for `reach host`.
#[derive(Debug)]
pub struct Presets {
    folder: TempDir,
}

/// The text of an example, with another namespace, so that tests do not meet.
pub fn example(name: &str, namespace: &str) -> String {
    let text = read(&format!("examples/cluster-api/{name}"));
    assert!(text.contains("\n  namespace: clusters\n"), "{name}");
    text.replace("\n  namespace: clusters\n", &format!("\n  namespace: {namespace}\n"))
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values of the documents of a stream.
pub fn objects(stream: &str) -> Vec<Value> {
    documents(stream).iter().filter_map(|document| document.read().expect("YAML")).collect()
}

/// `text` with `new` in the place of its only `old`.
#[track_caller]
pub fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old}");
    text.replace(old, new)
}

/// `reach host patch` of a stream, with the example's presets.
#[track_caller]
pub fn patched(stream: &str) -> String {
    Presets::example().patch(stream, &[])
}

/// Runs a command with a text as its standard input.
pub fn pipe(mut command: Command, input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), input).expect("a temporary file");
    command.stdin(file.reopen().expect("the file")).output().expect("the program runs")
}

// === impl Presets ===

impl Presets {
    /// Those of the examples.
    pub fn example() -> Self {
        Self::new(&read("examples/cluster-api/presets/corporate-proxy.yaml"))
    }

    /// Others.
    pub fn new(manifests: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("reach-presets-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("presets.yaml"), manifests).expect("a temporary file");
        Self { folder }
    }

    /// The folder they are in.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// `reach host patch` of a stream, with more arguments.
    #[track_caller]
    pub fn patch(&self, stream: &str, arguments: &[&str]) -> String {
        let mut command = self.command("patch");
        command.args(["-f", "-"]).args(arguments);
        succeeded("reach host patch", pipe(command, stream))
    }

    /// `reach host COMMAND --presets ...`
    pub fn command(&self, command: &str) -> Command {
        let mut reach = serve::command();
        reach.args(["host", command, "--presets", text(&self.path())]);
        reach
    }
}
