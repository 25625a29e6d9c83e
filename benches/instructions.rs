//! Instructions and allocations that a review costs, and the union of `no_proxy` lists: `make bench-check`.
//!
//! Time differs from machine to machine and from second to second; how many instructions the same code executes for the same
//! input does not. Each case runs under valgrind twice, some times and more times, and the difference is what one run costs.
//! More than [`MOST`] above `benches/instructions.json` is a failure, and what got cheaper has to be written there too, so that
//! it stays so: `benches/check.sh --update`.

use std::alloc::System;
use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use reach::admission;
use reach::inject::snapshot::Snapshot;
use reach::no_proxy::portable::{Author, List, unite};
use reach::telemetry::Outcome;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod fixture;

/// Tells how often it is asked. It is not the allocator of `reach`: how many allocations there are is ours, what one costs not.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most that a case may cost above what is written down.
const MOST: f64 = 1.03;
/// How often a case is run, so that what happens once has happened, and how often more.
const WARM: usize = 200;
const COUNTED: usize = 1000;

/// Does something once.
type Case = (&'static str, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 6] = [
    ("review, injected", || reviewed(&fixture::review(), fixture::proxy(), Outcome::injected)),
    ("review, injected with a volume", || {
        let presets = fixture::proxy().into_iter().chain([fixture::corporate_ca()]);
        reviewed(&fixture::review(), presets, Outcome::injected)
    }),
    ("review, not matching", || reviewed(&fixture::unmatched(), fixture::proxy(), Outcome::skipped)),
    ("review, already injected", || {
        let injected = fixture::injected(&fixture::snapshot(fixture::proxy(), 0));
        reviewed(&injected, fixture::proxy(), Outcome::unchanged)
    }),
    ("no_proxy, union of short lists", || united(4)),
    ("no_proxy, union of long lists", || united(200)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", case, times] => {
            let mut run = start(case);
            (0..times.parse().expect("a number")).for_each(|_| run());
            ExitCode::SUCCESS
        }
        [] => check(),
        ["--update"] => {
            let measured: BTreeMap<_, _> = measure().into_iter().collect();
            let text = serde_json::to_string_pretty(&json!(measured)).expect("JSON");
            fs::write(baseline(), format!("{text}\n")).expect("the baseline is written");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("expected no argument or --update");
            ExitCode::from(2)
        }
    }
}

fn start(name: &str) -> Box<dyn FnMut()> {
    let (_, make) = CASES.iter().find(|(case, _)| *case == name).expect("a case");
    make()
}

fn reviewed(review: &Value, presets: impl IntoIterator<Item = Value>, expected: Outcome) -> Box<dyn FnMut()> {
    let (bytes, snapshot, metrics) =
        (fixture::bytes(review), fixture::snapshot(presets, 0), fixture::metrics());
    let review = move |snapshot: &Snapshot| {
        let answer = admission::review(black_box(&bytes), snapshot, &metrics).expect("a known namespace");
        assert_eq!(answer.outcome, expected, "the case is not what it says");
        black_box(answer);
    };
    Box::new(move || review(&snapshot))
}

/// The union of what the cluster, a namespace and a pod say, so many entries each.
fn united(entries: usize) -> Box<dyn FnMut()> {
    let list = |who: &str| {
        let names = (0..entries).map(|number| match number % 4 {
            0 => format!("10.{}.0.0/16", number % 256),
            1 => format!(".{who}-{number}.corp.example"),
            2 => format!("host-{number}.corp.example"),
            _ => format!("192.168.{}.7", number % 256),
        });
        names.collect::<Vec<_>>().join(",")
    };
    let (cluster, namespace, pod) = (list("cluster"), list("namespace"), list("pod"));
    Box::new(move || {
        let lists = [
            List::parse(black_box(&cluster), Author::Preset),
            List::parse(black_box(&namespace), Author::Preset),
            List::parse(black_box(&pod), Author::Pod),
        ];
        black_box(unite(lists.iter()));
    })
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

/// What each case costs.
fn measure() -> Vec<(&'static str, Value)> {
    let cost = |(name, _): &Case| {
        let instructions = (instructions(name, WARM + COUNTED) - instructions(name, WARM)) / COUNTED as u64;
        (*name, json!({"instructions": instructions, "allocations": allocations(name)}))
    };
    CASES.iter().map(cost).collect()
}

fn allocations(name: &str) -> usize {
    let mut run = start(name);
    (0..WARM).for_each(|_| run());
    let region = Region::new(ALLOCATOR);
    run();
    let change = region.change();
    change.allocations + change.reallocations
}

/// The instructions that this program executes for so many runs of a case.
///
/// # Panics
/// If valgrind is not there or does not say.
fn instructions(name: &str, times: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--run", name, &times.to_string()])
        .output()
        .expect("valgrind is not installed (Debian: valgrind)");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("I refs:").or(line.split_once("I   refs:")));
    let count = line.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    count.unwrap_or_else(|| panic!("valgrind does not say how many instructions it saw:\n{said}"))
}

fn check() -> ExitCode {
    let text = fs::read_to_string(baseline()).expect("benches/instructions.json");
    let known: Value = serde_json::from_str(&text).expect("JSON");
    let mut worse = false;
    println!(
        "{:34} | {:>12} | {:>12} | {:>6} | {:>11}",
        "case", "instructions", "written down", "ratio", "allocations"
    );
    for (name, cost) in measure() {
        let (now, before) = (cost["instructions"].as_f64(), known[name]["instructions"].as_f64());
        let (now, before) =
            now.zip(before).unwrap_or_else(|| panic!("{name} is not in benches/instructions.json"));
        let ratio = now / before;
        worse |= ratio > MOST || cost["allocations"].as_u64() > known[name]["allocations"].as_u64();
        println!(
            "{name:34} | {now:12} | {before:12} | {ratio:6.3} | {:>4} of {:>4}",
            cost["allocations"], known[name]["allocations"]
        );
    }
    if worse {
        eprintln!(
            "a case costs over {:.0} % more than benches/instructions.json says, or has more allocations: make it as cheap as \
             it was, or write down what it costs now, with a reason: benches/check.sh --update",
            (MOST - 1.0) * 100.0
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
