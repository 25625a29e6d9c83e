//! `reach lint`: what is wrong with proxy variables, which client does what because of it, what to write.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::input::{self, ClusterOptions};
use crate::lint::{Id, RULES, Severity};

mod cluster;
mod fix;
mod report;
mod sarif;
mod shell;
mod source;

use report::Report;
use source::Source;

/// Say what is wrong with proxy variables, which client does what because of it, and what to write
///
/// Looks at presets, at pods and workloads, and at files of KEY=VALUE lines; without -f and --env, at those of the
/// cluster of the current kubeconfig. What reach rewrites in a preset by itself is not reported there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach lint -f deployment.yaml -f presets/
  reach lint --env /etc/environment --fail-on warning
  reach lint -f deploy/ --fix --diff                 show what --fix would write
  reach lint -f deploy/ -o sarif > reach.sarif       for code scanning; -o github for annotations
  reach lint --explain E2

Exit code: 0 when nothing is found at or above --fail-on, 1 when something is, 2 on errors.")]
pub struct Arguments {
    /// Manifest, folder of manifests (folders inside are not read), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    filenames: Vec<PathBuf>,
    /// File of KEY=VALUE lines such as /etc/environment, or - for standard input; may be repeated
    #[arg(long, value_name = "FILE|-")]
    env: Vec<PathBuf>,
    /// Rewrite no_proxy to its portable form where that helps; comments and layout stay. Standard input goes to standard output
    #[arg(long)]
    fix: bool,
    /// Show what --fix would change instead of writing it
    #[arg(long)]
    diff: bool,
    /// Explain a rule, or all of them
    #[arg(long, value_name = "ID|all", value_parser = rule)]
    explain: Option<Explain>,
    /// Exit with 1 for findings of this severity and above
    #[arg(long, value_name = "SEVERITY", default_value = "error", env = "REACH_FAIL_ON")]
    fail_on: FailOn,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Namespace, when the objects of a cluster are looked at [default: all]
    #[arg(short, long, value_name = "NAMESPACE", env = "REACH_NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Clone, Copy, Debug)]
enum Explain {
    One(Id),
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Errors
    Error,
    /// Errors and warnings
    Warning,
    /// Anything
    Info,
    /// Nothing
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For machines
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

fn rule(text: &str) -> Result<Explain, String> {
    if text == "all" {
        return Ok(Explain::All);
    }
    Id::find(text).map(Explain::One).ok_or_else(|| {
        let ids: Vec<String> = RULES.iter().map(|rule| rule.id.to_string()).collect();
        format!("expected one of {}, or all", ids.join(", "))
    })
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(explain) = arguments.explain {
        let rules = RULES.iter().filter(|rule| match explain {
            Explain::One(id) => rule.id == id,
            Explain::All => true,
        });
        super::print(&rules.map(crate::lint::Rule::explain).collect::<Vec<_>>().join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Standard output has the rewritten standard input or the diff, and so the findings go where people look next.
    let files = arguments.filenames.iter().chain(&arguments.env);
    let stdins = files.filter(|file| input::is_stdin(file)).count();
    let is_taken = arguments.diff || (arguments.fix && stdins > 0);
    check_usage(arguments, stdins, is_taken)?;
    let sources = sources(arguments)?;
    let cluster = if is_cluster(arguments) {
        cluster::read(&arguments.cluster, arguments.namespace.as_deref())?
    } else {
        Vec::new()
    };
    let mut report = source::lint(&sources, cluster);
    // What could not be read is not rewritten, and neither is anything beside it: all of it or nothing.
    if (arguments.fix || arguments.diff) && report.errors.is_empty() {
        let mut fixed = fix::fix(&sources, &report);
        if arguments.diff {
            fixed.notes("would fix").iter().chain(&fixed.refusals).for_each(|line| super::complain(line));
            super::print(&fixed.diff())?;
        } else {
            let errors = fixed.write(&sources)?;
            fixed.refusals.iter().for_each(|line| super::complain(line));
            report = source::lint(&fixed.sources, Vec::new());
            report.errors.extend(errors);
        }
    }
    for error in &report.errors {
        super::complain(&format!("error: {error}"));
    }
    match arguments.output {
        Output::Text if is_taken => super::complain(report.text().trim_end()),
        Output::Text => super::print(&report.text())?,
        Output::Json => super::print(&report.json()?)?,
        Output::Sarif => super::print(&sarif::write(&report)?)?,
        Output::Github => super::print(&report.github())?,
    }
    Ok(exit_code(&report, arguments.fail_on))
}

fn exit_code(report: &Report, fail_on: FailOn) -> ExitCode {
    if !report.errors.is_empty() {
        return ExitCode::from(super::BAD_INPUT);
    }
    let least = match fail_on {
        FailOn::Error => Severity::Error,
        FailOn::Warning => Severity::Warning,
        FailOn::Info => Severity::Info,
        FailOn::Never => return ExitCode::SUCCESS,
    };
    let fails = report.findings.iter().any(|finding| finding.finding.severity >= least);
    ExitCode::from(u8::from(fails))
}

/// Without files, a cluster is looked at.
fn is_cluster(arguments: &Arguments) -> bool {
    arguments.filenames.is_empty() && arguments.env.is_empty()
}

/// Refuses what does not go together.
fn check_usage(arguments: &Arguments, stdins: usize, is_taken: bool) -> Result<(), Failure> {
    let wrong = |message: &str| Err(Failure::Usage(message.to_owned()));
    if stdins > 1 {
        return wrong("expected - once: standard input can be read only once");
    }
    if is_taken && arguments.output != Output::Text {
        return wrong(
            "expected no --output here: standard output has the diff, or the rewritten standard input",
        );
    }
    if is_cluster(arguments) && (arguments.fix || arguments.diff) {
        return wrong("expected -f or --env with --fix and --diff: objects of a cluster are not rewritten");
    }
    Ok(())
}

/// Reads the files.
fn sources(arguments: &Arguments) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> =
        input::files(&arguments.filenames)?.into_iter().map(Source::manifests).collect();
    for file in &arguments.env {
        let file = input::file(file).map_err(|error| Failure::Messages(vec![error]))?;
        sources.push(Source::variables(file));
    }
    Ok(sources)
}
