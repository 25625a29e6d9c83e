//! Tables of documents that are written by what measures them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The last commit that changed what ships, in short; empty outside of git.
pub fn program() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/program.sh");
    let output = Command::new(script).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// How large this machine is.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default();
    format!("{cores} processors, {} GiB", memory.div_ceil(1024 * 1024))
}

/// The day, as `2026-01-31`.
pub fn today() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// When, what, and where it was measured, by which command.
pub fn origin(command: &str) -> String {
    format!(
        "Measured on {} of the program of commit `{}`, on a machine with {}, by `{command}`.",
        today(),
        program(),
        machine()
    )
}

/// Writes a text between two lines of a document of this project.
///
/// # Panics
/// When it does not have them, or cannot be written.
pub fn write_between(document: &str, (start, end): (&str, &str), text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let whole = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{document}: {error}"));
    let parts = whole.split_once(start).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("{document} lacks the lines {start} and {end}"));
    fs::write(&file, format!("{before}{start}\n{text}{end}{after}"))
        .unwrap_or_else(|error| panic!("{document}: {error}"));
}
