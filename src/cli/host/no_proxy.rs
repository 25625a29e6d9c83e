//! `reach host no-proxy`: what manifests of Cluster API add to the list of hosts.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::stream::{Stream, StreamInput};
use super::{HostInput, HostPresets, Known};
use crate::cli::{self, Failure};
use crate::host::cluster_api::{Entry, Group};
use crate::inject::preset::ProxyVariable;

/// Print what manifests of Cluster API add to no_proxy, each entry with its origin
///
/// With --presets, what the presets say comes first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach host no-proxy -f cluster.yaml
  reach host no-proxy -f cluster.yaml --presets presets/ -o value
  reach host no-proxy -f cluster.yaml --without pools,vcenter")]
pub struct Arguments {
    #[command(flatten)]
    stream: StreamInput,
    #[command(flatten)]
    input: HostInput,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// An entry a line, with its origin
    Text,
    /// The value, as in a variable; a line for each cluster
    Value,
    /// For machines
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.stream.files()?;
    let stream = arguments.stream.facts().read(&files)?;
    let presets = arguments.input.load_if_given(&stream)?;
    let mut text = String::new();
    let mut all = Vec::new();
    for group in &stream.groups {
        let notes: Vec<String> = group.notes.iter().map(ToString::to_string).collect();
        cli::input::complain_all(&notes);
        let value = value(&presets, &stream, group)?;
        let name = stream.name(group);
        match arguments.output {
            Output::Text => {
                if stream.groups.len() > 1 {
                    let _ = writeln!(text, "{}{name}", if text.is_empty() { "" } else { "\n" });
                }
                lines(&mut text, &stream, group);
            }
            Output::Value => {
                let _ = writeln!(text, "{value}");
            }
            Output::Json => all.push(json!({
                "of": name,
                "value": value,
                "entries": group.entries.iter().map(|entry| of(&stream, entry)).collect::<Vec<_>>(),
                "notes": notes,
            })),
        }
    }
    if arguments.output == Output::Json {
        text = serde_json::to_string_pretty(&all)? + "\n";
    }
    cli::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The list that hosts get.
fn value(presets: &HostPresets, stream: &Stream<'_>, group: &Group) -> Result<String, Failure> {
    let known = Known::of(group, false);
    let values = presets.values_of(&known, stream.namespace(group)).map_err(super::messages)?;
    let list = values.settings.iter().find(|setting| setting.proxy == ProxyVariable::No);
    let list = list.map_or_else(|| known.text(), |setting| setting.value.clone());
    Ok(known.filled(&list))
}

fn lines(text: &mut String, stream: &Stream<'_>, group: &Group) {
    let width = group.entries.iter().map(|entry| entry.text.len()).max().unwrap_or_default();
    for entry in &group.entries {
        let _ = writeln!(text, "{:width$}  {}: {}", entry.text, origin(stream, entry), entry.why);
    }
}

fn origin(stream: &Stream<'_>, entry: &Entry) -> String {
    match entry.object {
        Some(index) => format!("{}, {}", stream.manifests.objects()[index], entry.field),
        None => entry.from.name(),
    }
}

fn of(stream: &Stream<'_>, entry: &Entry) -> Value {
    json!({
        "entry": entry.text,
        "source": entry.from.name(),
        "object": entry.object.map(|index| stream.manifests.objects()[index].to_string()),
        "field": entry.field,
        "why": entry.why,
    })
}
