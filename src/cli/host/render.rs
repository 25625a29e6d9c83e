//! `reach host render`: files and commands for hosts that nobody else makes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::stream::{FactInput, Stream};
use super::{HostInput, HostPresets, Known, messages};
use crate::cli::{self, Failure};
use crate::host::cluster_api::Group;
use crate::host::node::{File, Node};
use crate::host::render::{self, Bootstrap};
use crate::host::targets::{MARK, Target};
use crate::host::values::Values;

/// Write what hosts get: cloud-config, a KubeadmConfig fragment, Ignition, or plain files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach host render --presets presets/ --format cloud-config > proxy.cfg
  reach host render --presets presets/ --format env --preset corporate-proxy
  reach host render --presets presets/ --from cluster.yaml --format kubeadm
  reach host render --presets presets/ --format drop-ins -o / && sh /etc/reach/apply-proxy.sh

What is written may hold a password: files that are made are for their owner only.")]
pub struct Arguments {
    #[command(flatten)]
    input: HostInput,
    /// Manifests of Cluster API, from which no_proxy gets the cluster's networks and addresses (folders inside of one are not read); may be repeated
    #[arg(long = "from", value_name = "FILE|DIR|-")]
    from: Vec<PathBuf>,
    /// Which of the clusters in them
    #[arg(long = "of", value_name = "CLUSTER", requires = "from")]
    cluster: Option<String>,
    #[command(flatten)]
    facts: FactInput,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to write it: a file, or for drop-ins a folder that stands for the root of the host
    #[arg(short, long, value_name = "FILE|DIR|-", default_value = "-")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A complete #cloud-config
    CloudConfig,
    /// files and preKubeadmCommands of a KubeadmConfig
    Kubeadm,
    /// An Ignition configuration, which Butane takes too
    Ignition,
    /// The variables, as systemd reads them (EnvironmentFile=)
    Env,
    /// Each file at its place
    DropIns,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut presets = arguments.input.load()?;
    let values = if arguments.from.is_empty() {
        presets.values()?
    } else {
        let files = arguments.facts.files(&arguments.from)?;
        let stream = arguments.facts.read(&files)?;
        presets.take_secrets(stream.manifests.objects())?;
        values_of(&presets, &stream, arguments.cluster.as_deref())?
    };
    cli::input::complain_all(&values.warnings().collect::<Vec<_>>());
    let node = Node::new(&values.settings, &presets.options).map_err(messages)?;
    if node.files.is_empty() {
        return Err(Failure::Messages(vec![format!("nothing to write: {}", presets.have_no_proxy())]));
    }
    let text = match arguments.format {
        Format::CloudConfig => render::cloud_config(&node),
        Format::Kubeadm => render::kubeadm(&node, Bootstrap::default()).map_err(messages)?,
        Format::Ignition => render::ignition(&node),
        Format::Env => Target::EnvironmentFile
            .write(&values.settings)
            .map_err(|error| Failure::Messages(vec![error.to_string()]))?,
        Format::DropIns => {
            write_all(&arguments.output, &node)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if cli::input::is_stdin(&arguments.output) {
        cli::print(&text)?;
    } else {
        cli::write_whole_as(&arguments.output, &text, Some(0o600))
            .map_err(|error| cannot_write(&arguments.output, &error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What hosts of one cluster of a stream get. What is written is not substituted any more, so nothing can be a variable.
fn values_of(presets: &HostPresets, stream: &Stream<'_>, cluster: Option<&str>) -> Result<Values, Failure> {
    let objects = stream.manifests.objects();
    let name = |group: &Group| group.cluster.map_or("", |index| objects[index].name.as_str());
    let named =
        |group: &&Group| group.cluster.is_some() && cluster.is_none_or(|cluster| name(group) == cluster);
    let found: Vec<&Group> = stream.groups.iter().filter(named).collect();
    let [group] = found[..] else {
        let all = stream.groups.iter().map(name).filter(|name| !name.is_empty());
        let all: Vec<&str> = all.collect();
        let message = if all.is_empty() {
            "--from: expected a Cluster among the manifests, and there is none".to_owned()
        } else {
            format!("--from has the clusters {}: choose one with --of NAME", all.join(", "))
        };
        return Err(Failure::Messages(vec![message]));
    };
    cli::input::complain_all(&group.notes.iter().map(ToString::to_string).collect::<Vec<_>>());
    let known = Known::of(group, false);
    if !known.variables.is_empty() {
        return Err(Failure::Messages(vec![format!(
            "--from: {} has no value: fill it in with --values-from-env",
            known.variables.join(", ")
        )]));
    }
    presets.values_of(&known, stream.namespace(group)).map_err(messages)
}

/// Writes the files of a node under a folder, all or, where one of them is somebody else's, none.
fn write_all(root: &Path, node: &Node) -> Result<(), Failure> {
    if cli::input::is_stdin(root) {
        let message =
            "drop-ins are several files: give the folder for them with -o DIR (/ on the host itself)";
        return Err(Failure::Usage(message.to_owned()));
    }
    let place = |file: &File| root.join(file.path.trim_start_matches('/'));
    let mut errors = Vec::new();
    for file in &node.files {
        match fs::read(place(file)) {
            Ok(found) if found.starts_with(MARK.as_bytes()) => {}
            Ok(_) => errors.push(format!(
                "{}: is there already and not written by reach: move it away, or leave its part out with --unit or --os",
                place(file).display()
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(format!("{}: cannot be read: {error}", place(file).display())),
        }
    }
    if !errors.is_empty() {
        return Err(Failure::Messages(errors));
    }
    for file in &node.files {
        let path = place(file);
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder)
            .and_then(|()| cli::write_whole_as(&path, &file.content, Some(file.mode)))
            .map_err(|error| cannot_write(&path, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Messages(vec![format!("{}: cannot be written: {error}", path.display())])
}
