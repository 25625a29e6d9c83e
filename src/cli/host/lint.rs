//! `reach host lint`: what is wrong with manifests of Cluster API, as far as proxies are concerned.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::stream::StreamInput;
use super::{HostInput, Known};
use crate::cli::{self, Failure, Output};
use crate::host::cluster_api::{Finding, Object, check};

/// Say what is wrong with manifests of Cluster API, as far as proxies are concerned
///
/// With --presets, also what is wrong with the proxy that hosts get of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach host lint -f cluster.yaml
  reach host lint -f cluster.yaml --presets presets/ --static-pods inherit

Exit code: 0 when nothing is wrong, 1 when something is, 2 on errors.")]
pub struct Arguments {
    #[command(flatten)]
    stream: StreamInput,
    #[command(flatten)]
    input: HostInput,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.stream.files()?;
    let stream = arguments.stream.facts().read(&files)?;
    let presets = arguments.input.load_if_given(&stream)?;
    let versions = stream.manifests.objects().iter().filter_map(Object::unpatchable);
    // Several groups may have one object.
    let mut findings: BTreeSet<Finding> = versions.map(|(finding, _)| finding).collect();
    for group in &stream.groups {
        let values =
            presets.values_of(&Known::of(group, false), stream.namespace(group)).map_err(super::messages)?;
        findings.extend(group.warnings().cloned());
        findings.extend(check(&stream.manifests, group, &values.settings, presets.options.static_pods));
    }
    let text = match arguments.output {
        Output::Text => findings.iter().fold(String::new(), |mut text, finding| {
            let _ = writeln!(text, "{finding}");
            text
        }),
        Output::Json => {
            let finding = |finding: &Finding| {
                json!({
                    "file": finding.source.file,
                    "document": finding.source.document,
                    "object": finding.object,
                    "field": finding.field,
                    "rule": finding.rule,
                    "message": finding.message,
                })
            };
            serde_json::to_string_pretty(&findings.iter().map(finding).collect::<Vec<_>>())? + "\n"
        }
    };
    cli::print(&text)?;
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}
