//! The models of HTTP clients are compared with the clients themselves (docs/clients.md).
//!
//! `cargo test --test clients` compares the models with what was measured before, and runs those real clients that are
//! on this machine for a sample. `make clients` installs all of them and measures everything anew:
//!
//! - `tests/clients/matrix.txt`: one case for each rule in which clients differ, with what each client does.
//! - `tests/clients/regressions.txt`: every case in which a model was once wrong, with what that client does.
//! - generated lists and URLs, and generated environments, the same ones each time.
//!
//! Each client runs in a network namespace of its own (`tests/clients/namespace.rs`), which needs root or unprivileged
//! user namespaces, and `ip`. Without, its tests are listed as ignored, and with `CI=true` that is a failure.

#[path = "clients/case.rs"]
mod case;
#[path = "clients/generate.rs"]
mod generate;
#[path = "clients/measure.rs"]
mod measure;
#[path = "clients/namespace.rs"]
mod namespace;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "only a part of it is used")]
mod process;
#[path = "clients/program.rs"]
mod program;
#[path = "support/promises.rs"]
#[allow(dead_code, reason = "only a part of it is used")]
mod promises;

use std::fmt::Write;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use reach::clients::Client;

use case::{Case, Measured};

/// Cases of the sample that the clients of this machine get.
const SAMPLE: usize = 250;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--inside", client, mode, folder] => return inside(client, mode, folder),
        ["--measure", folder] => return measure::everything(folder.as_ref()),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("models_agree_with_the_matrix", || agree("matrix.txt", MATRIX)),
        Trial::test("models_agree_with_all_cases_in_which_one_was_wrong", || {
            agree("regressions.txt", REGRESSIONS)
        }),
        Trial::test("the_matrix_has_every_client_that_can_be_had", the_matrix_is_complete),
        Trial::test("cases_are_read_as_they_are_written", cases_are_read_as_written),
        Trial::test("generated_cases_are_the_same_each_time", generated_cases_are_stable),
        Trial::test("what_was_measured_is_what_the_docs_say", the_docs_say_what_was_measured),
    ];
    let available = namespace::is_available();
    for program in program::machine() {
        let name = format!(
            "{}_of_this_machine_does_what_its_model_says",
            program.client.name().replace(['-', '.'], "_")
        );
        let trial = Trial::test(name, move || measure::sample(&program, SAMPLE).map_err(Failed::from));
        trials.push(trial.with_ignored_flag(available.is_err()));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(reason) = available
        && !arguments.list
    {
        eprintln!("not run: the clients of this machine: {reason}");
        if std::env::var_os("CI").is_some_and(|value| value == "true") {
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}

const MATRIX: &str = include_str!("clients/matrix.txt");
const REGRESSIONS: &str = include_str!("clients/regressions.txt");
/// FNV-1a of both files, so that neither changes without notice: only what was measured goes into them.
const DIGEST: u64 = 0xef5f_db1f_c2b8_aacf;
const DOCS: &str = include_str!("../docs/clients.md");

/// This process is in a namespace: it runs a client there.
fn inside(client: &str, mode: &str, folder: &str) -> ExitCode {
    let programs = if folder == "-" { program::machine() } else { program::installed(folder.as_ref()) };
    let program =
        programs.into_iter().find(|program| program.client.name() == client).expect("a client that is there");
    let program = if mode == "fresh" { program.fresh() } else { program };
    match namespace::serve(&program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{client}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cases(name: &str, text: &str) -> Result<Vec<Measured>, Failed> {
    case::read(text).map_err(|error| Failed::from(format!("tests/clients/{name}: {error}")))
}

/// Every model says for every case of a file what its client was measured to do.
fn agree(name: &str, text: &str) -> Result<(), Failed> {
    let mut wrong = String::new();
    for (title, case, verdicts) in cases(name, text)? {
        for (verdict, clients) in &verdicts {
            for client in clients {
                let (modelled, why) = case.modelled(*client);
                if modelled != *verdict {
                    let _ = writeln!(
                        wrong,
                        "{title}\n{case}\n  {client}: measured {verdict}, the model says {modelled}: {why}"
                    );
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}

fn the_matrix_is_complete() -> Result<(), Failed> {
    for (title, case, verdicts) in cases("matrix.txt", MATRIX)? {
        let mut measured: Vec<Client> = verdicts.into_values().flatten().collect();
        // The one that no registry has.
        measured.push(Client::Dotnet);
        for client in Client::ALL {
            let times = measured.iter().filter(|known| **known == client).count();
            if times != 1 {
                return Err(format!("{title}: {case}: {client} is there {times} times").into());
            }
        }
    }
    Ok(())
}

fn cases_are_read_as_written() -> Result<(), Failed> {
    for text in [MATRIX, REGRESSIONS] {
        let cases = case::read(text)?;
        if case::write(&cases) != text {
            return Err("a file of cases is not as it would be written: see case::write".into());
        }
    }
    for case in generate::environments(7, 200).into_iter().chain(generate::pairs(7, 200)) {
        if Case::parse(&case.to_string()) != Ok(case.clone()) {
            return Err(format!("{case} is read as {:?}", Case::parse(&case.to_string())).into());
        }
    }
    Ok(())
}

fn the_docs_say_what_was_measured() -> Result<(), Failed> {
    let (matrix, regressions) =
        (cases("matrix.txt", MATRIX)?.len(), cases("regressions.txt", REGRESSIONS)?.len());
    let clients = Client::ALL.len() - 1;
    let each = matrix + regressions + measure::PAIRS + measure::PORTABLE + measure::ENVIRONMENTS;
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for expected in [
        format!("- {matrix} cases of `tests/clients/matrix.txt`"),
        format!("- the {regressions} cases of `tests/clients/regressions.txt`"),
        format!("- {} generated pairs", thousands(measure::PAIRS)),
        format!("{} of them once more", thousands(measure::PORTABLE)),
        format!("{} generated environments", thousands(measure::ENVIRONMENTS)),
        format!("**{} runs of {clients} clients, 0 disagreements.**", thousands(each * clients)),
    ] {
        if !DOCS.contains(&expected) {
            return Err(format!("docs/clients.md: expected: {expected}").into());
        }
    }
    let digest = [MATRIX, REGRESSIONS].concat().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    if digest != DIGEST {
        return Err(
            format!("a file of cases has changed: when it was measured, write {digest:#x} here").into()
        );
    }
    Ok(())
}

fn generated_cases_are_stable() -> Result<(), Failed> {
    let text = |cases: Vec<Case>| cases.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pairs = text(generate::pairs(measure::SEED, measure::PAIRS));
    if pairs != text(generate::pairs(measure::SEED, measure::PAIRS)) {
        return Err("the same seed gave other cases".into());
    }
    let mut unique = pairs.clone();
    unique.sort();
    unique.dedup();
    if unique.len() < 5000 {
        return Err(format!("only {} of the generated pairs differ", unique.len()).into());
    }
    Ok(())
}
