//! `reach explain`: where each value comes from.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::inject::{place, read_pod};
use super::input::Input;
use super::{Failure, Output};
use crate::api::{MergeStrategy, NoProxySource};
use crate::inject::annotation::warnings;
use crate::inject::java;
use crate::inject::merge::{Because, Outcome, Part, Resolved};
use crate::inject::pod::{Container, EnvVar, Pod};
use crate::inject::preset::{PresetLevel, ProxyVariable, VariableValue};
use crate::inject::workload::{Workload, workloads};
use crate::inject::{self, LeftAlone, Plan, Target};
use crate::manifest;
use crate::presets::sources;

/// Say for each container and variable where its value comes from
///
/// Values from Secrets and ConfigMaps are never read nor shown, only where they come from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach explain -f deployment.yaml --presets presets/
  reach explain -f deployment.yaml -n shop -o json | jq '.[].containers[].variables'")]
pub struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// What happens to a pod or pod template.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    file: String,
    document: usize,
    object: String,
    namespace: String,
    /// Why nothing is injected at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_alone: Option<&'static str>,
    presets: Vec<String>,
    skipped: Vec<SkippedPreset>,
    warnings: Vec<String>,
    volumes: Vec<String>,
    containers: Vec<ContainerExplanation>,
}

#[derive(Debug, Serialize)]
struct SkippedPreset {
    preset: String,
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerExplanation {
    name: String,
    list: &'static str,
    variables: Vec<VariableExplanation>,
    env_from: Vec<String>,
    volume_mounts: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VariableExplanation {
    names: Vec<String>,
    /// The final literal value; absent when it comes from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Where a value that is not literal comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_from: Option<String>,
    rule: &'static str,
    /// Entries of `no_proxy` that the options of a JVM cannot say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_said: Vec<String>,
    parts: Vec<PartExplanation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartExplanation {
    /// The preset; absent for the container's own value.
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    /// Under which name the container has it, if it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    level: &'static str,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<MergeStrategy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    /// What the cluster adds to the value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    no_proxy_from: Vec<NoProxySource>,
    used: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.input.files()?;
    let lookup = arguments.input.lookup()?;
    let mut explanations = Vec::new();
    let mut errors = Vec::new();
    for file in &files {
        for document in manifest::documents(&file.text) {
            let place = format!("{}, document {}", file.name, document.number);
            let object = match document.read() {
                Ok(Some(object)) => object,
                Ok(None) => continue,
                Err(error) => {
                    errors.push(format!("{place}: {error}"));
                    continue;
                }
            };
            for workload in workloads(&object) {
                let found = lookup.namespace(workload.namespace).and_then(|(_, name, namespace)| {
                    explain(&workload, &namespace).map(|explanation| Explanation {
                        file: file.name.clone(),
                        document: document.number,
                        namespace: name,
                        ..explanation
                    })
                });
                match found {
                    Ok(explanation) => explanations.push(explanation),
                    Err(message) => errors.push(format!("{place}: {}: {message}", workload.reference)),
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(Failure::Messages(errors));
    }
    match arguments.output {
        Output::Json => super::print(&(serde_json::to_string_pretty(&explanations)? + "\n"))?,
        Output::Text => {
            let texts: Vec<String> = explanations.iter().map(text).collect();
            super::print(&texts.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(
    workload: &Workload<'_>,
    namespace: &inject::snapshot::Namespace<'_>,
) -> Result<Explanation, String> {
    let json = workload.pod.to_string();
    let pod = read_pod(&json, &workload.pointer)?;
    let mut explanation = Explanation {
        file: String::new(),
        document: 0,
        object: workload.reference.clone(),
        namespace: String::new(),
        left_alone: None,
        presets: Vec::new(),
        skipped: Vec::new(),
        warnings: Vec::new(),
        volumes: Vec::new(),
        containers: Vec::new(),
    };
    match inject::plan(namespace, &pod, Target::Pod)
        .map_err(|error| format!("{}{error}", place(&workload.pointer)))?
    {
        Err(reason) => explanation.left_alone = Some(in_words(reason)),
        Ok(plan) => fill(&mut explanation, &plan, &pod),
    }
    Ok(explanation)
}

fn fill(explanation: &mut Explanation, plan: &Plan<'_>, pod: &Pod<'_>) {
    explanation.presets = plan.applied().iter().map(|preset| preset.reference().to_owned()).collect();
    explanation.skipped = plan
        .skipped
        .iter()
        .map(|skipped| SkippedPreset {
            preset: skipped.preset.reference().to_owned(),
            reason: skipped.reason.to_string(),
        })
        .collect();
    explanation.warnings =
        warnings(plan, pod).iter().map(|line| line.trim_start_matches("reach: ").to_owned()).collect();
    explanation.volumes = plan.volumes.iter().map(|volume| volume.name().to_owned()).collect();
    for planned in &plan.containers {
        let Some(container) = pod.spec.as_ref().and_then(|spec| planned.list.of(spec).get(planned.index))
        else {
            continue;
        };
        explanation.containers.push(ContainerExplanation {
            name: container.name.to_string(),
            list: planned.list.field(),
            variables: variables(&plan.variables(planned).collect::<Vec<_>>(), container),
            env_from: planned.env_from.iter().map(|entry| entry.key().to_string()).collect(),
            volume_mounts: planned.mounts.iter().map(ToString::to_string).collect(),
        });
    }
}

fn variables(variables: &[(&Resolved, &Outcome)], container: &Container<'_>) -> Vec<VariableExplanation> {
    let explain = |&(variable, outcome): &(&Resolved, &Outcome)| {
        let own: Vec<_> = container.env.iter().filter(|own| variable.identity().is(&own.name)).collect();
        let own_names = own.iter().map(|own| own.name.to_string());
        let source = variable.parts.iter().find_map(|part| match &part.variable().value {
            VariableValue::Source(source) => Some(origin(source)),
            VariableValue::Literal(_) | VariableValue::Java => None,
        });
        let from_presets = matches!(outcome, Outcome::Added | Outcome::Merged { .. });
        let used = variable.parts.iter().map(|part| self::part(part, from_presets));
        let mut parts: Vec<PartExplanation> =
            variable.dropped.iter().map(|part| self::part(part, false)).chain(used).collect();
        let has_spellings = own.iter().any(|other| other.name != own[0].name);
        parts.extend(own.iter().map(|own| PartExplanation {
            preset: None,
            name: has_spellings.then(|| own.name.to_string()),
            level: "pod",
            value: if own.is_from() { "valueFrom".to_owned() } else { own.literal().to_owned() },
            strategy: None,
            because: None,
            no_proxy_from: Vec::new(),
            used: true,
        }));
        // Where not all of them say the same, each says its own below.
        let own_value = || {
            let counted = variable.own(container);
            let (_, first) = counted.first()?;
            let same = |own: &EnvVar<'_>| !own.is_from() && own.literal() == first.literal();
            counted.iter().all(|(_, own)| same(own)).then(|| first.literal().to_owned())
        };
        let (names, value, rule): (Vec<String>, _, _) = match outcome {
            Outcome::Added => (
                variable.spellings.iter().map(ToString::to_string).collect(),
                variable.value.literal().map(str::to_owned),
                ADDED,
            ),
            Outcome::Merged { value, add, .. } => {
                let names = own_names.chain(add.iter().map(|name| variable.spellings[*name].to_string()));
                (unique(names), Some(value.clone()), if own.is_empty() { ADDED } else { MERGED })
            }
            Outcome::Kept if own.is_empty() => {
                (variable.spellings.iter().map(ToString::to_string).collect(), None, NOTHING)
            }
            Outcome::Kept => (unique(own_names), own_value(), KEPT),
            Outcome::Unmergeable => (unique(own_names), None, UNMERGEABLE),
        };
        VariableExplanation {
            names,
            value_from: source.filter(|_| *outcome == Outcome::Added),
            value,
            rule,
            not_said: Vec::new(),
            parts,
        }
    };
    let mut explained: Vec<_> = variables.iter().map(explain).collect();
    let is_no_proxy =
        |names: &[String]| names.iter().any(|name| ProxyVariable::of(name) == Some(ProxyVariable::No));
    let list = explained.iter().find(|explained| is_no_proxy(&explained.names));
    let list = list.and_then(|explained| explained.value.clone()).unwrap_or_default();
    for (explained, variable) in explained.iter_mut().zip(variables) {
        if variable.0.is_java() && explained.rule != NOTHING {
            (_, explained.not_said) = java::non_proxy_hosts(&list);
        }
    }
    explained
}

const ADDED: &str = "added: the container does not have it";
const MERGED: &str = "merged: the container's own entries join, last";
const KEPT: &str = "kept: the container's own value replaces what presets say";
const NOTHING: &str = "not added: the container has no http_proxy or https_proxy whose value is known, or a no_proxy whose value is not";
const UNMERGEABLE: &str = "kept: the container's value comes from elsewhere and cannot be merged";

fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

fn part(part: &Part, used: bool) -> PartExplanation {
    PartExplanation {
        preset: Some(part.preset.reference().to_owned()),
        name: None,
        level: match part.preset.level {
            PresetLevel::Cluster => "cluster",
            PresetLevel::Namespace => "namespace",
        },
        value: match &part.variable().value {
            VariableValue::Literal(text) => text.to_string(),
            VariableValue::Source(source) => origin(source),
            VariableValue::Java => "derived from the proxy variables".to_owned(),
        },
        strategy: Some(part.strategy),
        because: Some(match part.because {
            Because::Own => "its own mergeStrategy",
            Because::Inherited => "mergeStrategy of a less specific level",
            Because::Default => "default of this variable",
            Because::ValueFrom => "valueFrom always replaces",
        }),
        no_proxy_from: if part.variable().is("no_proxy") {
            part.preset.no_proxy_from().to_vec()
        } else {
            vec![]
        },
        used,
    }
}

/// Where the value of a `valueFrom` comes from, in words.
fn origin(source: &str) -> String {
    let source: serde_json::Value = serde_json::from_str(source).unwrap_or_default();
    let text = |pointer: &str| {
        source.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    if source.get("secretKeyRef").is_some() {
        format!("key {} of Secret {}", text("/secretKeyRef/key"), text("/secretKeyRef/name"))
    } else if source.get("configMapKeyRef").is_some() {
        format!("key {} of ConfigMap {}", text("/configMapKeyRef/key"), text("/configMapKeyRef/name"))
    } else if source.get("fieldRef").is_some() {
        format!("field {}", text("/fieldRef/fieldPath"))
    } else {
        "valueFrom".to_owned()
    }
}

pub(super) fn in_words(reason: LeftAlone) -> &'static str {
    match reason {
        LeftAlone::Mirror => "a mirror pod is never changed",
        LeftAlone::NamespaceOptOut => "the namespace is labelled reach.dev/injection: disabled",
        LeftAlone::PodOptOut => "the pod has opted out by label or annotation",
        LeftAlone::NoPreset => "no preset selects it",
        LeftAlone::TooLarge => "it would get more than a patch may have",
    }
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    // Writing to memory cannot fail.
    let _ = write_text(&mut out, explanation);
    out
}

fn write_text(out: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let Explanation { file, document, object, namespace, .. } = explanation;
    writeln!(out, "{object} in namespace {namespace} ({file}, document {document})")?;
    if let Some(reason) = explanation.left_alone {
        return writeln!(out, "  nothing is injected: {reason}");
    }
    writeln!(out, "  presets, in order of use: {}", explanation.presets.join(", "))?;
    for warning in &explanation.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    if !explanation.volumes.is_empty() {
        writeln!(out, "  volumes added: {}", explanation.volumes.join(", "))?;
    }
    for container in &explanation.containers {
        writeln!(out, "  {} ({})", container.name, container.list)?;
        for variable in &container.variables {
            let names = variable.names.join(", ");
            match (&variable.value, &variable.value_from) {
                (Some(value), _) => writeln!(out, "    {names} = {value}")?,
                (None, Some(origin)) => writeln!(out, "    {names} from {origin}")?,
                (None, None) => writeln!(out, "    {names}")?,
            }
            writeln!(out, "      {}", variable.rule)?;
            if !variable.not_said.is_empty() {
                writeln!(out, "      what a JVM cannot be told: {}", variable.not_said.join(", "))?;
            }
            for part in &variable.parts {
                let mark = if part.used { '+' } else { '-' };
                let who = part.preset.as_deref().unwrap_or("the container itself");
                write!(out, "      {mark} {}: {who}", part.value)?;
                if let Some(name) = &part.name {
                    write!(out, " as {name}")?;
                }
                write!(out, " ({}", part.level)?;
                if let (Some(strategy), Some(because)) = (part.strategy, part.because) {
                    write!(out, "; {strategy:?}, {because}")?;
                }
                for (index, source) in part.no_proxy_from.iter().enumerate() {
                    let start = if index == 0 { "; noProxyFrom " } else { ", " };
                    write!(out, "{start}{}", sources::name(*source))?;
                }
                writeln!(out, ")")?;
            }
        }
        for entry in &container.env_from {
            writeln!(out, "    envFrom added: {entry}")?;
        }
        for mount in &container.volume_mounts {
            writeln!(out, "    mount added: {mount}")?;
        }
    }
    Ok(())
}
