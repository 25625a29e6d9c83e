//! What reach promises in numbers: `make bench`, or `cargo bench --bench reach [-- SECTION...]`.
//!
//! Prints one row for each measure, with what is wanted beside it, and writes the same to
//! `target/bench/reach.json`. Nothing fails when a number is missed: how fast a machine is, and what else
//! it does, is not the fault of a change. Where only a ratio says something, both sides of it are
//! measured in turns within one run, and medians are compared.
//!
//! Everything runs on the loopback interface, and ends by itself.

#![allow(clippy::cast_precision_loss, reason = "measured values are not that precise")]

mod cluster;
mod constant;
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

use report::{Report, Row};

/// A section of the report: its name, and what measures it.
type Section = (&'static str, fn() -> Vec<Row>);

const SECTIONS: [Section; 8] = [
    ("engine", engine::reviews),
    ("scale", engine::scale),
    ("services", engine::services),
    ("load", load::measure),
    ("ready", ready::measure),
    ("inject", inject::measure),
    ("hosts", hosts::measure),
    ("memory", memory::measure),
];

fn main() {
    // `--bench` is what cargo adds.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [command, ca, length] = arguments.as_slice()
        && command == constant::COMMAND
    {
        return constant::serve(ca.as_ref(), length.parse().expect("a length"));
    }
    let mut report = Report::new();
    for (name, measure) in SECTIONS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            eprintln!("{name} ...");
            report.add(measure());
        }
    }
    report.finish();
}
