//! What a row found, as JSON and as a line of the table in `docs/reliability.md`.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::published::{machine, origin, program, today, write_between};

/// Between these lines of `docs/reliability.md` stands the table.
const LINES: (&str, &str) = ("<!-- faults: written by `make faults` -->", "<!-- end of faults -->");

/// Rows of a full run: a table that lacks one would pass for a whole one.
const ROWS: usize = 46;

/// How much a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As much as shows that the row holds.
    Fast,
    /// What the published figures are from: `REACH_FAULTS=full`.
    Full,
}

/// What a fault did.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where it stands in the table: `11`, or `11a` where a fault has more rows than one.
    pub number: &'static str,
    /// The fault.
    pub fault: &'static str,
    /// What was done, and how often.
    pub done: String,
    /// Pods created, or requests sent, meanwhile.
    pub calls: usize,
    /// Those that were refused, or got no answer.
    pub failed: usize,
    /// Those that got through without what they should have got.
    pub uninjected: usize,
    /// Time of a call: the median, and that which one in a hundred takes longer than.
    pub latency: Option<(Duration, Duration)>,
    /// From the fault, or from its end where it lasts, until calls are as before.
    pub recovery: Option<Duration>,
    /// What else was measured, in words.
    pub more: String,
}

/// A row whose test still runs: kept when dropped, unless by a failure.
#[must_use = "what is asserted after it decides whether the row is kept"]
pub struct Recorded {
    file: PathBuf,
    text: String,
}

/// Forgets what earlier runs at full size have found: none of it is to stand for a row that fails before it has found anything.
pub fn forget() {
    match fs::remove_dir_all(folder(Size::Full)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            panic!("{}: {error}", folder(Size::Full).display())
        }
        _ => (),
    }
}

// === impl Size ===

impl Size {
    /// What was asked for.
    pub fn wanted() -> Self {
        match std::env::var("REACH_FAULTS").as_deref() {
            Ok("full") => Self::Full,
            Ok("fast") | Err(_) => Self::Fast,
            Ok(other) => panic!("REACH_FAULTS={other}: expected full or fast"),
        }
    }

    /// One of two numbers.
    pub fn of<T>(self, fast: T, full: T) -> T {
        match self {
            Self::Fast => fast,
            Self::Full => full,
        }
    }

    fn name(self) -> &'static str {
        self.of("fast", "full")
    }
}

// === impl Row ===

impl Row {
    /// Prints the row, and keeps it for the report when the test that found it ends well. Assert only after this, so that a
    /// figure is never lost to a failure.
    pub fn record(&self) -> Recorded {
        println!("{self}");
        let folder = folder(Size::wanted());
        fs::create_dir_all(&folder).expect("a folder for results");
        let file = folder.join(format!("{}.json", self.number));
        // That of an earlier run is not published in place of one that fails.
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != ErrorKind::NotFound
        {
            panic!("{}: {error}", file.display());
        }
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let row = json!({
            "row": self.number,
            "fault": self.fault,
            "done": self.done,
            "calls": self.calls,
            "failed": self.failed,
            "uninjected": self.uninjected,
            "p50_ms": self.latency.map(|(p50, _)| millis(p50)),
            "p99_ms": self.latency.map(|(_, p99)| millis(p99)),
            "recovery_ms": self.recovery.map(millis),
            "more": self.more,
            "program": program(),
        });
        Recorded { file, text: serde_json::to_string_pretty(&row).expect("JSON") }
    }
}

// === impl Recorded ===

impl Drop for Recorded {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::write(&self.file, &self.text).expect("a file for results");
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, fault, done, calls, failed, uninjected, .. } = self;
        write!(
            f,
            "row {number}, {fault}: {done}: {calls} calls, {failed} failed, {uninjected} not injected"
        )?;
        if let Some((p50, p99)) = self.latency {
            write!(f, ", p50 {}, p99 {}", time(p50), time(p99))?;
        }
        if let Some(recovery) = self.recovery {
            write!(f, ", as before after {}", time(recovery))?;
        }
        if !self.more.is_empty() {
            write!(f, "; {}", self.more)?;
        }
        Ok(())
    }
}

/// The median of times, and that which one in a hundred takes longer than.
pub fn percentiles(times: &mut [Duration]) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied();
    Some((at(50)?, at(99)?))
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn folder(size: Size) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults").join(size.name())
}

// === the table ===

/// Writes what `make faults` has found into `target/faults/faults.json` and `docs/reliability.md`.
pub fn publish() -> ExitCode {
    let rows = match collect() {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let report = json!({"date": today(), "program": program(), "machine": machine(), "rows": rows});
    let json = folder(Size::Full).with_file_name("faults.json");
    fs::write(&json, serde_json::to_string_pretty(&report).expect("JSON")).expect("a file for results");

    let mut table = format!(
        "{}\n\n\
         | | fault | what was done | calls | failed | not injected | p50 | p99 | as before after | |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|---|\n",
        origin("make faults")
    );
    for row in &rows {
        table.push_str(&line(row));
    }
    write_between("docs/reliability.md", LINES, &table);
    println!("{} rows: {} and docs/reliability.md", rows.len(), json.display());
    ExitCode::SUCCESS
}

/// The rows, in their order. All have to be of the program that is checked out.
fn collect() -> Result<Vec<Value>, String> {
    let folder = folder(Size::Full);
    let files =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}: run `make faults`", folder.display()))?;
    let mut rows: Vec<Value> = Vec::new();
    for file in files.filter_map(Result::ok) {
        let text =
            fs::read_to_string(file.path()).map_err(|error| format!("{}: {error}", file.path().display()))?;
        rows.push(
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.path().display()))?,
        );
    }
    let program = program();
    if let Some(row) = rows.iter().find(|row| row["program"] != *program) {
        return Err(format!(
            "row {} is of the program of commit {}, not of that of {program}: run `make faults`",
            row["row"], row["program"]
        ));
    }
    if rows.len() != ROWS {
        return Err(format!("{} rows of {ROWS}: run `make faults`", rows.len()));
    }
    rows.sort_by_key(|row| {
        let number = row["row"].as_str().unwrap_or_default().to_owned();
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        (number[..digits].parse::<u32>().unwrap_or_default(), number)
    });
    Ok(rows)
}

fn line(row: &Value) -> String {
    let text = |field: &str| row[field].as_str().unwrap_or_default().replace('|', "\\|");
    let millis = |field: &str| {
        row[field].as_f64().map(|millis| time(Duration::from_secs_f64(millis / 1000.0))).unwrap_or_default()
    };
    let cells = [
        text("row"),
        text("fault"),
        text("done"),
        row["calls"].to_string(),
        row["failed"].to_string(),
        row["uninjected"].to_string(),
        millis("p50_ms"),
        millis("p99_ms"),
        millis("recovery_ms"),
        text("more"),
    ];
    format!("| {} |\n", cells.join(" | "))
}
