//! The chart, and the real Helm that renders and installs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use reach::manifest::documents;
use serde_json::Value;

use super::process::programs;

/// Both versions that the chart is for.
pub const VERSIONS: [Version; 2] = [Version::V4, Version::V3];

/// Namespace of the release in tests of the rendered chart.
pub const NAMESPACE: &str = "reach-system";

/// A version of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Helm 4.
    V4,
    /// Helm 3.
    V3,
}

/// The programs of `tests/helm/build.sh`.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| programs("helm/build.sh"));

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the chart.
pub fn chart() -> PathBuf {
    root().join("charts/reach")
}

/// Runs Helm, without any cluster unless `--kubeconfig` is among the arguments.
///
/// # Panics
/// When it cannot be started.
pub fn helm<A: AsRef<OsStr>>(version: Version, arguments: impl IntoIterator<Item = A>) -> Output {
    let program = match version {
        Version::V4 => "helm",
        Version::V3 => "helm3",
    };
    // Not the user's own folders: nothing of theirs takes part.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    let mut command = Command::new(PROGRAMS.join(program));
    for (name, _) in std::env::vars_os() {
        let lower = name.to_string_lossy().to_ascii_lowercase();
        if lower.starts_with("helm_") || lower.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .env("KUBECONFIG", home.join("no-kubeconfig"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// `helm template` of the chart as the release `reach`, with these values.
pub fn template(version: Version, values: &Value, arguments: &[&str]) -> Result<String, String> {
    template_as(version, "reach", NAMESPACE, values, arguments)
}

/// `helm template` of the chart as a release of this name in this namespace.
pub fn template_as(
    version: Version,
    release: &str,
    namespace: &str,
    values: &Value,
    arguments: &[&str],
) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), values.to_string()).expect("a temporary file");
    let mut all =
        vec!["template", release, text(&chart()), "--namespace", namespace, "--values", text(file.path())]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let output = helm(version, all);
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("UTF-8"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The objects of a stream of YAML.
///
/// # Panics
/// When it is no YAML.
pub fn objects(text: &str) -> Vec<Value> {
    documents(text).iter().filter_map(|document| document.read().expect("a readable document")).collect()
}

/// A path as text.
///
/// # Panics
/// When it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
