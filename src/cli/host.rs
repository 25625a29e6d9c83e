//! `reach host`: the presets as hosts get them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use k8s_openapi::api::core::v1;
use kube::Api;

use super::Failure;
use super::input::{self, PresetSource};
use crate::host::class;
use crate::host::cluster_api::{Group, Object};
use crate::host::node::{Certificate, Options, StaticPods, System};
use crate::host::patch as patch_text;
use crate::host::targets::Unit;
use crate::host::values::{self, Secrets, Surroundings, ValueError, Values};
use crate::host::variables::has_reference;
use crate::inject::preset::{Preset, ProxyVariable};
use crate::inject::snapshot::ClusterLists;
use crate::no_proxy::portable::{Author, List, unite};

use stream::Stream;

mod lint;
mod no_proxy;
mod patch;
mod render;
mod stream;

/// The same proxy for the operating system and the container runtime of nodes
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Patch(Box<patch::Arguments>),
    NoProxy(Box<no_proxy::Arguments>),
    Lint(Box<lint::Arguments>),
    Render(Box<render::Arguments>),
}

/// Presets, and what hosts get of them.
#[derive(Debug, clap::Args)]
struct HostInput {
    #[command(flatten)]
    source: PresetSource,
    /// ClusterPodPreset that hosts get, whatever it selects; may be repeated [default: all that select every pod of every namespace]
    #[arg(long = "preset", value_name = "NAME")]
    names: Vec<String>,
    /// Namespace of the Secrets that presets refer to [default: that of the current context, else default]
    #[arg(short, long, value_name = "NAMESPACE", env = "REACH_NAMESPACE")]
    namespace: Option<String>,
    /// Services that get the variables
    #[arg(long = "unit", value_name = "UNIT,...", value_delimiter = ',', default_value = "containerd")]
    units: Vec<Unit>,
    /// What else of the operating system gets them
    #[arg(long = "os", value_name = "PART,...", value_delimiter = ',')]
    system: Vec<System>,
    /// Certificates of CAs that hosts trust, in PEM; may be repeated
    #[arg(long = "ca-certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// What static pods of the control plane get
    #[arg(long, value_name = "WHAT", default_value = "none")]
    static_pods: StaticPods,
}

/// What manifests of Cluster API add to `no_proxy`.
struct Known {
    /// Entries.
    list: List,
    /// Entries that are variables of clusterctl, which nobody can read yet.
    variables: Vec<String>,
    /// Whether there are more that only a cluster knows.
    of_class: bool,
}

/// Presets of hosts, read.
struct HostPresets {
    presets: Vec<Arc<Preset>>,
    cluster: ClusterLists,
    secrets: Secrets,
    namespace: String,
    options: Options,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Patch(arguments) => patch::run(arguments),
        Command::NoProxy(arguments) => no_proxy::run(arguments),
        Command::Lint(arguments) => lint::run(arguments),
        Command::Render(arguments) => render::run(arguments),
    }
}

impl Arguments {
    /// Whether exit code 1 is an answer.
    pub fn answers_with_1(&self) -> bool {
        match &self.command {
            Command::Patch(patch) => patch.is_diff(),
            Command::Lint(_) => true,
            Command::NoProxy(_) | Command::Render(_) => false,
        }
    }
}

impl HostInput {
    /// Reads the presets and the certificates.
    fn load(&self) -> Result<HostPresets, Failure> {
        let options = Options {
            units: self.units.clone(),
            system: self.system.clone(),
            certificates: certificates(&self.certificates)?,
            static_pods: self.static_pods,
        };
        let named: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let select = |presets: &[Arc<Preset>]| values::select(presets, &named).map_err(messages);
        if let Some(loaded) = self.source.files()? {
            let (snapshot, accounts) = loaded.snapshot();
            input::complain_all(&accounts.warnings());
            return Ok(HostPresets {
                presets: select(snapshot.cluster_presets())?,
                cluster: snapshot.cluster_lists().clone(),
                secrets: loaded.secrets,
                namespace: self.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                options,
            });
        }
        input::block_on(async {
            let config = self.source.config().await?;
            let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
            let client = kube::Client::try_from(config)?;
            let snapshot = self.source.of_cluster(&client).await?;
            let presets = select(snapshot.cluster_presets())?;
            let secrets = secrets(client, &namespace, &values::secrets(&presets)).await?;
            let cluster = snapshot.cluster_lists().clone();
            Ok(HostPresets { presets, cluster, secrets, namespace, options })
        })
    }
}

impl HostInput {
    /// Reads the presets, for a command that can do without: a cluster is asked only where one is named.
    fn load_if_given(&self, stream: &Stream<'_>) -> Result<HostPresets, Failure> {
        let mut presets = if self.source.is_given() || !self.names.is_empty() {
            self.load()?
        } else {
            let mut none = HostPresets::none();
            none.options.static_pods = self.static_pods;
            none
        };
        presets.take_secrets(stream.manifests.objects())?;
        Ok(presets)
    }
}

/// Reads Secrets. One that is not there is told where its value is wanted.
async fn secrets(
    client: kube::Client,
    namespace: &str,
    names: &BTreeSet<String>,
) -> Result<Secrets, Failure> {
    let api: Api<v1::Secret> = Api::namespaced(client, namespace);
    let mut secrets = Secrets::default();
    for name in names {
        let Some(secret) = api.get_opt(name).await? else { continue };
        secrets
            .insert(&serde_json::to_value(&secret)?)
            .map_err(|error| Failure::Messages(vec![format!("Secret/{name}: {error}")]))?;
    }
    Ok(secrets)
}

/// The certificates of files, one by one.
fn certificates(files: &[PathBuf]) -> Result<Vec<Certificate>, Failure> {
    let mut certificates = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        let text = match input::file(file) {
            Ok(file) => file.text,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        match Certificate::read(&stem, &text) {
            Some(found) => certificates.extend(found),
            None => errors.push(format!("{}: expected certificates in PEM and nothing else", file.display())),
        }
    }
    if errors.is_empty() { Ok(certificates) } else { Err(Failure::Messages(errors)) }
}

impl HostPresets {
    /// No presets, for commands that can do without.
    fn none() -> Self {
        Self {
            presets: Vec::new(),
            cluster: ClusterLists::default(),
            secrets: Secrets::default(),
            namespace: String::new(),
            options: Options::default(),
        }
    }

    /// Takes in the Secrets among manifests.
    fn take_secrets(&mut self, objects: &[Object]) -> Result<(), Failure> {
        let secrets = objects.iter().filter(|object| object.group.is_empty() && object.kind == "Secret");
        let errors: Vec<String> = secrets
            .filter_map(|object| {
                let error = self.secrets.insert(&object.value).err()?;
                Some(format!("{}, {object}: {error}", object.source))
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(Failure::Messages(errors)) }
    }

    /// What the hosts get that presets are read for, from the cluster in which they are.
    fn values(&self) -> Result<Values, Failure> {
        let given = Surroundings {
            cluster: &self.cluster,
            no_proxy: &[],
            secrets: &self.secrets,
            namespace: &self.namespace,
        };
        values::values(&self.presets, &given).map_err(messages)
    }

    /// What hosts of a cluster get of which manifests tell. `noProxyFrom` of presets is about the cluster in which the
    /// presets are, so it gives nothing here: the manifests say the same of their own.
    fn values_of(&self, known: &Known, namespace: &str) -> Result<Values, Vec<ValueError>> {
        let cluster = ClusterLists::default();
        let given = Surroundings {
            cluster: &cluster,
            no_proxy: std::slice::from_ref(&known.list),
            secrets: &self.secrets,
            namespace,
        };
        let mut values = values::values(&self.presets, &given)?;
        let list = values.settings.iter_mut().find(|setting| setting.proxy == ProxyVariable::No);
        // All there is goes past the proxy already.
        if let Some(list) = list.filter(|list| list.value != "*") {
            let placeholders = (0..known.variables.len()).map(patch_text::placeholder);
            let more = placeholders.chain(known.of_class.then(|| class::PLACEHOLDER.to_owned()));
            for entry in more {
                list.value.push(',');
                list.value.push_str(&entry);
            }
        }
        Ok(values)
    }

    /// That hosts get nothing of the presets, and what was expected.
    fn have_no_proxy(&self) -> String {
        let names: Vec<String> = self.presets.iter().map(ToString::to_string).collect();
        let have = match names.len() {
            0 => "no preset has a".to_owned(),
            1 => format!("{} has no", names[0]),
            _ => format!("{} have no", names.join(", ")),
        };
        format!(
            "{have} proxy for hosts; expected http_proxy, https_proxy or all_proxy in a ClusterPodPreset that selects everything, or one named by --preset"
        )
    }
}

impl Known {
    /// What a group of manifests says.
    fn of(group: &Group, of_class: bool) -> Self {
        let (variables, entries): (Vec<&str>, Vec<&str>) =
            group.entries.iter().map(|entry| entry.text.as_str()).partition(|text| has_reference(text));
        let variables: BTreeSet<&str> = variables.into_iter().collect();
        Self {
            list: List::parse(&entries.join(","), Author::Host),
            variables: variables.into_iter().map(str::to_owned).collect(),
            of_class,
        }
    }

    /// The list, with placeholders.
    fn text(&self) -> String {
        let variables = (0..self.variables.len()).map(patch_text::placeholder);
        std::iter::once(unite(std::iter::once(&self.list))).chain(variables).collect::<Vec<_>>().join(",")
    }

    /// A list with variables in place of placeholders.
    fn filled(&self, list: &str) -> String {
        patch_text::fill(list, &self.variables)
    }
}

fn messages<E: ToString>(errors: impl IntoIterator<Item = E>) -> Failure {
    Failure::Messages(errors.into_iter().map(|error| error.to_string()).collect())
}
