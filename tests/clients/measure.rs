//! Real clients against their models.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::{fs, thread};

use reach::clients::Client;

use super::case::{self, Case, Measured, Verdict};
use super::program::{self, Program};
use super::promises::{excepted, readers};
use super::{generate, namespace};

/// Seed of the generated cases.
pub const SEED: u64 = 20_261_121;

/// Generated lists and URLs.
pub const PAIRS: usize = 5200;

/// Those of them that are measured once more with the portable form of the list.
pub const PORTABLE: usize = 1500;

/// Generated environments.
pub const ENVIRONMENTS: usize = 1000;

/// Clients that are measured at a time.
const AT_ONCE: usize = 3;

/// What a client did, and what it said.
type Answer = (Verdict, String);

/// Clients that read their variables when they start, so that rules are measured by starting them.
const READ_AT_START: [Client; 3] = [Client::NodeFetch, Client::NodeHttp, Client::Java];

/// Runs a client for cases, in a namespace of its own.
fn run(program: &Program, folder: Option<&Path>, fresh: bool, cases: &[Case]) -> Result<Vec<Answer>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", program.client);
    let itself = std::env::current_exe().map_err(failed)?;
    let mut command = namespace::command(&itself);
    command.args(["--inside", program.client.name(), if fresh { "fresh" } else { "worker" }]);
    command.arg(folder.unwrap_or(Path::new("-")));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".to_owned());
    };
    let lines: Vec<String> =
        cases.iter().map(|case| program::line(&case.url, &case.environment(program.client))).collect();
    let answers = thread::scope(|scope| {
        scope.spawn(move || {
            for line in lines {
                // The reader says what is missing when the other side has ended.
                if writeln!(input, "{line}").is_err() {
                    return;
                }
            }
        });
        let mut answers = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line.map_err(failed)?;
            let (verdict, said) = line.split_once('\t').unwrap_or((&line, ""));
            answers.push((verdict.parse()?, said.to_owned()));
        }
        Ok::<_, String>(answers)
    })?;
    let status = child.wait().map_err(failed)?;
    if answers.len() == cases.len() {
        Ok(answers)
    } else {
        Err(format!("{}: {} answers to {} cases ({status})", program.client, answers.len(), cases.len()))
    }
}

/// A client of this machine against its model: the matrix and some of the generated cases.
pub fn sample(program: &Program, count: usize) -> Result<(), String> {
    let matrix = case::read(super::MATRIX)?.into_iter().map(|(_, case, _)| case);
    let mut cases: Vec<Case> = matrix.collect();
    cases.extend(case::read(super::REGRESSIONS)?.into_iter().filter_map(|(_, case, verdicts)| {
        verdicts.into_values().flatten().any(|client| client == program.client).then_some(case)
    }));
    cases.extend(generate::pairs(SEED, count));
    cases.extend(generate::environments(SEED, count / 5));
    // Options of a virtual machine are read by starting one.
    let has_options = |case: &Case| case.variables.iter().any(|(name, _)| name.ends_with("_OPTIONS"));
    let (options, cases): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(has_options);
    let answers = run(program, None, false, &cases)?;
    let options_answers = run(program, None, READ_AT_START.contains(&program.client), &options)?;
    let mut wrong = compare(program, &cases, &answers);
    wrong.extend(compare(program, &options, &options_answers));
    if wrong.is_empty() { Ok(()) } else { Err(report(program, &wrong)) }
}

struct Disagreement<'a> {
    case: &'a Case,
    measured: &'a Answer,
    modelled: Answer,
}

fn compare<'a>(program: &Program, cases: &'a [Case], answers: &'a [Answer]) -> Vec<Disagreement<'a>> {
    cases
        .iter()
        .zip(answers)
        .map(|(case, measured)| Disagreement { case, measured, modelled: case.modelled(program.client) })
        .filter(|found| found.measured.0 != found.modelled.0)
        .collect()
}

fn report(program: &Program, wrong: &[Disagreement<'_>]) -> String {
    let mut text = format!("{} ({}): {} disagreements\n", program.client, program.version, wrong.len());
    for Disagreement { case, measured: (measured, said), modelled: (modelled, why) } in wrong {
        let _ = writeln!(text, "{case}\n  measured {measured}, the model says {modelled}: {why}\n  {said}");
    }
    text
}

/// All clients against their models: `make clients`. With `REACH_UPDATE=1`, what was measured goes into the files:
/// into the matrix what each client does, and into the regressions each case in which a model was wrong. `REACH_SEED`
/// gives other cases than the usual ones, `REACH_CLIENTS=curl,go` measures only those.
pub fn everything(folder: &Path) -> ExitCode {
    if let Err(reason) = namespace::is_available() {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    let programs = chosen(folder);
    let mut matrix = case::read(super::MATRIX).expect("the matrix is read by a test");
    let mut regressions = case::read(super::REGRESSIONS).expect("the regressions are read by a test");
    let rules: Vec<Case> = matrix.iter().chain(&regressions).map(|(_, case, _)| case.clone()).collect();
    let seed =
        std::env::var("REACH_SEED").map_or(SEED, |seed| seed.parse().expect("REACH_SEED is a number, not 0"));
    let mut generated = generate::pairs(seed, PAIRS);
    generated.extend(generate::portable(&generated[..PORTABLE]));
    generated.extend(generate::environments(seed, ENVIRONMENTS));
    println!(
        "{} cases of the matrix, {} in which a model was wrong, {PAIRS} lists and URLs, {PORTABLE} of them also in the portable form, {ENVIRONMENTS} environments",
        matrix.len(),
        regressions.len()
    );

    let queue = Mutex::new(programs.iter());
    let results = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic").next();
                    let Some(program) = next else { return };
                    let fresh = READ_AT_START.contains(&program.client);
                    let answers = run(program, Some(folder), fresh, &rules)
                        .and_then(|rules| Ok((rules, run(program, Some(folder), false, &generated)?)));
                    println!("{}: measured", program.client);
                    results.lock().expect("no panic").insert(program.client.name(), answers);
                }
            });
        }
    });
    let results = results.into_inner().expect("no panic");

    let mut failed = programs.is_empty();
    let mut found: Vec<(Client, Case, Verdict)> = Vec::new();
    for (_, _, verdicts) in &mut matrix {
        for clients in verdicts.values_mut() {
            clients.retain(|client| !programs.iter().any(|program| program.client == *client));
        }
    }
    let mut summary = String::new();
    for program in &programs {
        let (rules_answers, generated_answers) = match &results[program.client.name()] {
            Ok(answers) => answers,
            Err(error) => {
                failed = true;
                eprintln!("{error}");
                continue;
            }
        };
        for ((_, _, verdicts), (verdict, _)) in matrix.iter_mut().zip(rules_answers) {
            verdicts.entry(*verdict).or_default().push(program.client);
        }
        for ((_, _, verdicts), (verdict, _)) in regressions.iter_mut().zip(&rules_answers[matrix.len()..]) {
            if verdicts.values().flatten().any(|client| *client == program.client) {
                for clients in verdicts.values_mut() {
                    clients.retain(|client| *client != program.client);
                }
                verdicts.entry(*verdict).or_default().push(program.client);
            }
        }
        let mut wrong = compare(program, &rules, rules_answers);
        wrong.extend(compare(program, &generated, generated_answers));
        let (kept, lost) = promises(program.client, &generated, generated_answers);
        failed |= !lost.is_empty();
        for case in lost {
            println!("{}: not as promised: {case}", program.client);
        }
        let all = || rules_answers.iter().chain(generated_answers);
        let count = |is: fn(&Verdict) -> bool| all().filter(|(verdict, _)| is(verdict)).count();
        let _ = writeln!(
            summary,
            "{:13}  {:5} cases: {:4} direct, {:4} proxied, {:4} failed; {} disagreements; {kept} portable lists as promised  {}",
            program.client,
            all().count(),
            count(|verdict| *verdict == Verdict::Direct),
            count(|verdict| matches!(verdict, Verdict::Proxied(_))),
            count(|verdict| *verdict == Verdict::Error),
            wrong.len(),
            program.version
        );
        if !wrong.is_empty() {
            failed = true;
            println!("{}", report(program, &wrong));
            found.extend(wrong.iter().map(|wrong| (program.client, wrong.case.clone(), wrong.measured.0)));
        }
    }
    print!("{summary}");
    if std::env::var_os("REACH_UPDATE").is_some_and(|value| value == "1") {
        update(matrix, &mut regressions, found);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Those that are installed, or of them those that `REACH_CLIENTS` names.
fn chosen(folder: &Path) -> Vec<Program> {
    let only: Option<Vec<String>> =
        std::env::var("REACH_CLIENTS").ok().map(|names| names.split(',').map(str::to_owned).collect());
    let is_named = |program: &Program| {
        only.as_ref().is_none_or(|only| only.iter().any(|name| name == program.client.name()))
    };
    program::installed(folder).into_iter().filter(is_named).collect()
}

/// Whether the client itself does with portable lists what is promised of each client by itself: it still reaches
/// directly what it did, and fails nowhere that it did not. Returns how many it kept, and the others.
fn promises<'a>(client: Client, generated: &'a [Case], answers: &[Answer]) -> (usize, Vec<&'a Case>) {
    let (mut kept, mut lost) = (0, Vec::new());
    if !readers().any(|reader| reader == client) {
        return (kept, lost);
    }
    for (index, case) in generated[..PORTABLE].iter().enumerate() {
        let (before, after) = (answers[index].0, answers[PAIRS + index].0);
        let lost_it = before == Verdict::Direct && after != Verdict::Direct;
        let fails = after == Verdict::Error && before != Verdict::Error;
        if (fails || lost_it) && excepted(client, case.list(), &case.target()).is_none() {
            lost.push(case);
        } else {
            kept += 1;
        }
    }
    (kept, lost)
}

fn update(mut matrix: Vec<Measured>, regressions: &mut Vec<Measured>, found: Vec<(Client, Case, Verdict)>) {
    let position = |client: &Client| Client::ALL.iter().position(|known| known == client);
    for (client, case, verdict) in found {
        let title = "a model was wrong";
        let at = regressions.iter().position(|(_, known, _)| *known == case).unwrap_or_else(|| {
            regressions.push((title.to_owned(), case, BTreeMap::new()));
            regressions.len() - 1
        });
        let clients = regressions[at].2.entry(verdict).or_default();
        if !clients.contains(&client) {
            clients.push(client);
        }
    }
    for (_, _, verdicts) in matrix.iter_mut().chain(regressions.iter_mut()) {
        verdicts.retain(|_, clients| !clients.is_empty());
        for clients in verdicts.values_mut() {
            clients.sort_by_key(position);
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    for (name, cases) in [("matrix.txt", &matrix), ("regressions.txt", &*regressions)] {
        fs::write(folder.join(name), case::write(cases)).expect("the file can be written");
    }
}
