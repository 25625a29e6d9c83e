//! What reach promises in numbers: `cargo bench --bench reach [-- SECTION...]`, or `make bench`, which measures the program that
//! ships and writes the table of `docs/performance.md`.
//!
//! Prints one row for each measure, with what is wanted beside it, and writes the same to
//! `target/bench/reach.json`. Nothing fails when a number is missed: how fast a machine is, and what else
//! it does, is not the fault of a change. Where only a ratio says something, both sides of it are
//! measured in turns within one run, and medians are compared.
//!
//! Everything runs on the loopback interface, and ends by itself.

#![allow(clippy::cast_precision_loss, reason = "measured values are not that precise")]

mod binary;
mod change;
mod cluster;
mod constant;
mod cores;
mod create;
mod engine;
#[path = "../fixture/mod.rs"]
mod fixture;
mod hosts;
mod inject;
mod load;
mod memory;
mod process;
mod ready;
mod report;
#[path = "../../tests/support/mod.rs"]
mod support;

use report::{Report, Row};

// That of reach: for what is measured within this program, and for the server that it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A section of the report: its name, and what measures it.
type Section = (&'static str, fn() -> Vec<Row>);

const SECTIONS: [Section; 12] = [
    ("engine", engine::reviews),
    ("scale", engine::scale),
    ("services", engine::services),
    ("load", load::measure),
    ("cores", cores::measure),
    ("create", create::measure),
    ("change", change::measure),
    ("ready", ready::measure),
    ("inject", inject::measure),
    ("hosts", hosts::measure),
    ("memory", memory::measure),
    ("binary", binary::measure),
];

fn main() {
    // `--bench` is what cargo adds.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [command, options @ ..] = arguments.as_slice()
        && command == constant::COMMAND
    {
        return constant::serve(options);
    }
    let (publish, wanted): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument == "--publish");
    let publish = !publish.is_empty();
    assert!(
        !publish || wanted.is_empty(),
        "--publish: expected no section beside it, a table has all of them"
    );
    let mut report = Report::new();
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("{name} ...");
            report.add(name, measure());
        }
    }
    report.finish(publish);
}
