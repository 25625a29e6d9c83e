//! The table, the same as JSON, and in `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::published::{origin, write_between};

/// Between these lines of `docs/performance.md` stands the table.
const LINES: (&str, &str) = ("<!-- measures: written by `make bench` -->", "<!-- end of measures -->");

/// One measure.
#[derive(Clone, Debug)]
pub struct Row {
    measure: String,
    value: f64,
    unit: &'static str,
    wanted: Option<Wanted>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// All measures of a run.
#[derive(Debug)]
pub struct Report {
    /// Each with the section that it is of.
    rows: Vec<(&'static str, Row)>,
    load_at_start: String,
}

/// The middle one of some values.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// === impl Row ===

impl Row {
    /// A measure of which nothing is wanted but to know it.
    pub fn new(measure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { measure: measure.into(), value, unit, wanted: None }
    }

    /// The value should be this or more.
    pub fn at_least(mut self, bound: f64) -> Self {
        self.wanted = Some(Wanted::AtLeast(bound));
        self
    }

    /// The value should be this or less.
    pub fn at_most(mut self, bound: f64) -> Self {
        self.wanted = Some(Wanted::AtMost(bound));
        self
    }

    /// The value should be less than this.
    pub fn below(mut self, bound: f64) -> Self {
        self.wanted = Some(Wanted::Below(bound));
        self
    }

    fn verdict(&self) -> &'static str {
        match self.wanted {
            None => "",
            Some(wanted) if wanted.is_met(self.value) => "ok",
            Some(_) => "not yet",
        }
    }

    fn json(&self) -> Value {
        json!({
            "measure": self.measure,
            "value": self.value,
            "unit": self.unit,
            "wanted": self.wanted.map(|wanted| wanted.text("")),
            "met": self.wanted.map(|wanted| wanted.is_met(self.value)),
        })
    }
}

// === impl Wanted ===

impl Wanted {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }

    fn text(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => (">=", bound),
            Self::AtMost(bound) => ("<=", bound),
            Self::Below(bound) => ("<", bound),
        };
        format!("{sign} {bound} {unit}").trim_end().to_owned()
    }
}

// === impl Report ===

impl Report {
    /// An empty report. Call it before anything is measured: it notes how busy the machine is.
    pub fn new() -> Self {
        Self { rows: Vec::new(), load_at_start: first_line("/proc/loadavg") }
    }

    /// Adds rows of a section.
    pub fn add(&mut self, section: &'static str, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (section, row)));
    }

    /// Prints the table and writes the JSON; with `publish`, the table in `docs/performance.md` too.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn finish(self, publish: bool) {
        let cells: Vec<[String; 4]> = self
            .rows
            .iter()
            .map(|(_, row)| {
                [
                    row.measure.clone(),
                    format!("{} {}", number(row.value), row.unit).trim_end().to_owned(),
                    row.wanted.map(|wanted| wanted.text(row.unit)).unwrap_or_default(),
                    row.verdict().to_owned(),
                ]
            })
            .collect();
        let head = ["measure", "value", "wanted", ""].map(str::to_owned);
        let width = |column: usize| {
            cells.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [width(0), width(1), width(2)];
        println!();
        for row in [&head].into_iter().chain(&cells) {
            let [measure, value, wanted, verdict] = row;
            let line = format!(
                "{measure:<0$} | {value:>1$} | {wanted:<2$} | {verdict}",
                widths[0], widths[1], widths[2]
            );
            println!("{}", line.trim_end());
        }

        // Beside cargo's folder for files of tests and benches, so inside of the target folder in use.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
        let folder = target.join("bench");
        let file = folder.join("reach.json");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| Some(text.trim_end_matches(" kB").parse::<u64>().ok()? / 1024));
        let report = json!({
            "date": output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            "commit": output("git", &["rev-parse", "HEAD"]),
            "changed": !output("git", &["status", "--porcelain"]).is_empty(),
            "machine": {
                "cores": cores,
                "memory_mib": memory,
                "cpu": field("/proc/cpuinfo", "model name"),
                "kernel": first_line("/proc/sys/kernel/osrelease"),
                "load_at_start": self.load_at_start,
            },
            "rows": self.rows.iter().map(|(_, row)| row.json()).collect::<Vec<_>>(),
        });
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, format!("{report:#}\n")))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        println!("\n{}", file.display());
        if !publish {
            return;
        }
        let mut table = format!(
            "{}\n\n| measure | value | wanted | | command |\n|---|--:|---|---|---|\n",
            origin("make bench")
        );
        for ((section, _), [measure, value, wanted, verdict]) in self.rows.iter().zip(&cells) {
            let wanted = wanted.replace("<=", "≤").replace(">=", "≥").replace('<', "&lt;");
            let verdict = if verdict == "not yet" { "**falls short**" } else { "" };
            let command = format!("`make bench SECTIONS={section}`");
            // Writing to memory cannot fail.
            let _ = writeln!(table, "| {measure} | {value} | {wanted} | {verdict} | {command} |");
        }
        write_between("docs/performance.md", LINES, &table);
        println!("docs/performance.md");
    }
}

/// A number with about three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn first_line(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// The value of `name: value` in a file of the kernel.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
