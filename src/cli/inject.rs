//! `reach inject`: manifests as the webhook would change their pods.

use std::process::ExitCode;

use serde_json::Value;

use super::input::{File, Input, Lookup, complain_all};
use super::output::{self, Form};
use super::{Failure, shared_out};
use crate::inject::pod::Pod;
use crate::inject::workload::workloads;
use crate::inject::{self, Target, annotation, json, patch};
use crate::manifest::{self, Document, Operation};

/// Show manifests as the webhook would change them
///
/// Pods and the pod templates of Deployments, StatefulSets, DaemonSets, ReplicaSets,
/// ReplicationControllers, Jobs, CronJobs, PodTemplates and Lists are injected; everything else passes
/// through as it is. Manifests are edited as text: what is not injected stays to the letter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach inject -f deployment.yaml --presets presets/ | kubectl apply -f -
  helm template shop ./chart | reach inject -f - -n shop
  reach inject -f manifests/ --presets presets/ -o diff

Exit code with -o diff: 0 when nothing changes, 1 when something does, 2 on errors.")]
pub struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Form of the output [default: that of each document]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// All documents as YAML
    Yaml,
    /// The object as JSON; several as one List
    Json,
    /// For each document, one line with its RFC 6902 patch
    Patch,
    /// What changes, as a unified diff
    Diff,
}

/// A document and what became of it.
pub(super) struct Injected {
    /// The document, changed or not.
    pub text: String,
    /// As they are in an answer of the webhook, one for each workload that is injected.
    patches: Vec<Vec<u8>>,
    warnings: Vec<String>,
}

impl Injected {
    fn operations(&self) -> Vec<Value> {
        self.patches.iter().flat_map(|patch| patch::operations(patch)).collect()
    }
}

impl Arguments {
    /// Whether exit code 1 says that something differs.
    pub fn is_diff(&self) -> bool {
        self.output == Some(Output::Diff)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.input.files()?;
    let lookup = arguments.input.lookup()?;
    let mut texts = Vec::new();
    let mut patches = String::new();
    let mut errors = Vec::new();
    let mut changed = false;
    for file in &files {
        let mut text = String::new();
        for result in documents(file, &lookup) {
            match result {
                Ok(document) => {
                    complain_all(&document.warnings);
                    changed |= !document.patches.is_empty();
                    text.push_str(&document.text);
                    if arguments.output == Some(Output::Patch) {
                        patches.push_str(&Value::Array(document.operations()).to_string());
                        patches.push('\n');
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        texts.push(text);
    }
    if !errors.is_empty() {
        return Err(Failure::Messages(errors));
    }
    let form = match arguments.output {
        None => Form::Same,
        Some(Output::Yaml) => Form::Yaml,
        Some(Output::Json) => Form::Json,
        Some(Output::Diff) => Form::Diff { what: "injected" },
        Some(Output::Patch) => {
            super::print(&patches)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    super::print(&output::write(form, &files, &texts))?;
    Ok(ExitCode::from(u8::from(arguments.is_diff() && changed)))
}

/// Injects the documents of a file, in order.
pub(super) fn documents(file: &File, lookup: &Lookup) -> Vec<Result<Injected, String>> {
    shared_out(manifest::documents(&file.text), |document| {
        let placed = |message: String| format!("{}, document {}: {message}", file.name, document.number);
        let mut injected = inject(&document, lookup).map_err(placed)?;
        injected.warnings = injected.warnings.into_iter().map(placed).collect();
        Ok(injected)
    })
}

fn inject(document: &Document<'_>, lookup: &Lookup) -> Result<Injected, String> {
    let mut injected = Injected { text: document.text.to_owned(), patches: Vec::new(), warnings: Vec::new() };
    let Some(object) = document.read().map_err(|error| error.to_string())? else {
        return Ok(injected);
    };
    for workload in workloads(&object) {
        let wrong = |message: String| format!("{}: {message}", workload.reference);
        let (_, _, namespace) = lookup.namespace(workload.namespace).map_err(wrong)?;
        let json = workload.pod.to_string();
        let pod = read_pod(&json, &workload.pointer).map_err(wrong)?;
        let plan = inject::plan(&namespace, &pod, Target::Pod)
            .map_err(|error| wrong(format!("{}{error}", place(&workload.pointer))))?;
        let Ok(plan) = plan else { continue };
        injected.warnings.extend(
            annotation::warnings(&plan, &pod)
                .into_iter()
                .map(|warning| format!("{}: {}", workload.reference, warning.trim_start_matches("reach: "))),
        );
        injected.patches.extend(patch::write(&plan, &pod, &workload.pointer));
    }
    if !injected.patches.is_empty() {
        let add = |mut operation: Value| {
            let value = operation["value"].take();
            Operation::add(operation["path"].as_str().unwrap_or_default(), value)
        };
        let operations: Vec<Operation> = injected.operations().into_iter().map(add).collect();
        let edited = document.edit(&operations).map_err(|error| error.to_string())?;
        if edited.reemitted {
            injected.warnings.push(
                "aliases or tags stand where it is injected, so it is written anew, without its comments"
                    .to_owned(),
            );
        }
        injected.text = edited.text;
    }
    Ok(injected)
}

/// Reads the pod at a place of an object. The message of an error names the field and what was expected
/// there, and leaves out what stands there: it may be a secret.
pub(super) fn read_pod<'a>(text: &'a str, pointer: &str) -> Result<Pod<'a>, String> {
    serde_path_to_error::deserialize(&mut json::Deserializer::new(text)).map_err(|error| {
        let message = error.inner().to_string();
        let expected = message.split_once("expected ").map_or("a pod", |(_, expected)| expected);
        format!("{}{}: expected {expected}", place(pointer), error.path())
    })
}

/// The place of a pod in its object, as the beginning of a path.
pub(super) fn place(pointer: &str) -> String {
    pointer.trim_start_matches('/').split('/').filter(|part| !part.is_empty()).fold(
        String::new(),
        |mut path, part| {
            path.push_str(part);
            path.push('.');
            path
        },
    )
}
