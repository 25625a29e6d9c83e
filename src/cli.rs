//! The command line: one file per command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::api_server;

mod check;
mod completions;
mod crds;
mod explain;
mod inject;
mod input;
mod lint;
mod no_proxy;
mod route;
mod serve;

/// Exit code of a failed operation or bad input. Wrong usage is 2, by clap.
const FAILED: u8 = 1;
/// The same for commands whose 1 is an answer.
const BAD_INPUT: u8 = 2;

/// The right HTTP proxy configuration for every workload of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "reach", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  reach serve --presets examples/presets             serve the webhook with presets from files
  reach inject -f deployment.yaml --presets presets  show a manifest as the webhook would change it
  reach explain -f deployment.yaml --presets presets say where each value comes from
  reach route https://web.corp.example/              say which clients go through the proxy, and why
  reach no-proxy -n shop                             print the list that a pod gets, with the origin of each entry
  reach lint -f deployment.yaml                      say what is wrong with proxy variables
  reach crds | kubectl apply -f -                    install the CRDs";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Arguments>),
    Inject(inject::Arguments),
    Explain(explain::Arguments),
    Route(route::Arguments),
    NoProxy(Box<no_proxy::Arguments>),
    Lint(lint::Arguments),
    Crds(crds::Arguments),
    Check(check::Arguments),
    Completions(completions::Arguments),
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// Lines for standard error, each a complete message.
    Messages(Vec<String>),
    /// An error with its causes.
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Runs the command of this process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    // kube and the server use the same provider; whoever comes first would else choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let answers_with_1 = match &arguments.command {
        Command::Inject(inject) => inject.is_diff(),
        Command::Lint(_) => true,
        _ => false,
    };
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Route(arguments) => route::run(&arguments),
        Command::NoProxy(arguments) => no_proxy::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, &mut Arguments::command()),
    };
    match result {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(Failure::Error(error)) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(failure) => {
            match failure {
                Failure::Messages(lines) => lines.iter().for_each(|line| complain(&format!("error: {line}"))),
                Failure::Error(error) => complain(&format!("error: {}", explain_all(&error))),
            }
            // As in `kubectl diff`, 1 says that something differs, so failing has to be something else.
            ExitCode::from(if answers_with_1 { BAD_INPUT } else { FAILED })
        }
    }
}

/// An error with its causes.
fn explain_all(error: &anyhow::Error) -> String {
    // Each context by itself, down to what the API server says, if it does.
    let is_api = |cause: &&(dyn std::error::Error + 'static)| cause.is::<kube::Error>();
    let Some(cause) = error.chain().find(is_api) else {
        return format!("{error:#}");
    };
    let context = error.chain().take_while(|cause| !is_api(cause)).map(|context| format!("{context}: "));
    context.chain([api_server::explain(cause)]).collect()
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a result to standard output.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to standard error.
fn complain(line: &str) {
    // Nothing is left to say it to when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
