//! What `reach inject`, `reach explain`, `reach route` and `reach no-proxy` read: manifests, presets, a namespace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::Failure;
use crate::inject::snapshot::{Namespace, NamespaceLabels, Snapshot};
use crate::inject::workload::Workload;
use crate::presets::network::{Facts, Given};
use crate::presets::{cluster, directory};

/// Inputs of a command that looks at manifests.
#[derive(Debug, clap::Args)]
pub struct Input {
    /// Manifest, folder of manifests (folders inside are not read), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    filenames: Vec<PathBuf>,
    #[command(flatten)]
    presets: PresetInput,
}

/// Where presets come from, and for which namespace.
#[derive(Debug, clap::Args)]
pub struct PresetInput {
    #[command(flatten)]
    source: PresetSource,
    /// Namespace of objects that say none [default: that of the current context, else default]
    #[arg(short, long, value_name = "NAMESPACE", env = "REACH_NAMESPACE")]
    namespace: Option<String>,
    /// Labels of the namespace, instead of those it has
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label, env = "REACH_NAMESPACE_LABELS")]
    namespace_labels: Option<Vec<(String, String)>>,
}

/// Where presets come from.
#[derive(Debug, clap::Args)]
pub struct PresetSource {
    /// Presets (and Namespaces, Services, ServiceCIDRs, Nodes, Secrets, which they refer to) from a file or a folder (folders inside are not read), or several with : between them; may be repeated; without it, from the cluster of the current kubeconfig
    #[arg(long, value_name = "PATH", env = "REACH_PRESETS", value_delimiter = ':')]
    presets: Vec<PathBuf>,
    #[command(flatten)]
    network: ClusterNetwork,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Networks that nobody has to be asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterNetwork {
    /// Networks of Services and pods, for presets with noProxyFrom: [ClusterNetwork], besides those that the cluster's objects have
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', env = "REACH_CLUSTER_NETWORK")]
    cluster_network: Vec<Given>,
}

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOptions {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the service account of the pod]
    #[arg(long, value_name = "FILE", env = "REACH_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME", env = "REACH_CONTEXT")]
    context: Option<String>,
}

/// A file as read.
#[derive(Debug)]
pub struct File {
    /// How messages name it.
    pub name: String,
    /// Where it is; `None` for standard input.
    pub path: Option<PathBuf>,
    /// What is in it.
    pub text: String,
}

/// Where presets and namespaces are looked up.
#[derive(Debug)]
pub struct Lookup {
    snapshot: Snapshot,
    namespace: String,
    labels: Option<NamespaceLabels>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example team=shop")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Input {
    /// Reads the manifests.
    pub fn files(&self) -> Result<Vec<File>, Failure> {
        files(&self.filenames)
    }

    /// Loads the presets.
    pub fn lookup(&self) -> Result<Lookup, Failure> {
        self.presets.lookup()
    }
}

/// Reads manifests. Every file that cannot be read is reported.
pub fn files(names: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        let found = if is_stdin(name) { Ok(vec![name.clone()]) } else { directory::files(name) };
        match found {
            // As kubectl has it: a wrong folder is not to look like one in which all is well.
            Ok(found) if found.is_empty() => {
                errors.push(format!("{}: no manifest in this folder: {}", name.display(), expected(&[name])));
            }
            Ok(found) => {
                for path in found {
                    match file(&path) {
                        Ok(file) => files.push(file),
                        Err(error) => errors.push(error),
                    }
                }
            }
            Err(error) => errors.push(cannot_read(&name.display().to_string(), &error)),
        }
    }
    if errors.is_empty() { Ok(files) } else { Err(Failure::Messages(errors)) }
}

/// What is read of folders, and what there is that is not.
fn expected<P: AsRef<Path>>(folders: &[P]) -> String {
    let inside = folders.iter().flat_map(|folder| directory::folders(folder.as_ref()));
    let inside: Vec<String> = inside.map(|folder| folder.display().to_string()).collect();
    let also = if inside.is_empty() { String::new() } else { format!(": {}", inside.join(", ")) };
    format!("expected files that end in .yaml, .yml or .json; folders inside are not read{also}")
}

/// Reads a file, or standard input.
///
/// # Errors
/// The file and why.
pub fn file(path: &Path) -> Result<File, String> {
    let (name, path, text) = if is_stdin(path) {
        ("standard input".to_owned(), None, std::io::read_to_string(std::io::stdin()))
    } else {
        (path.display().to_string(), Some(path.to_owned()), fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok(File { name, path, text }),
        Err(error) => Err(cannot_read(&name, &error)),
    }
}

/// Whether a name stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn cannot_read(name: &str, error: &std::io::Error) -> String {
    format!("{name}: {}", directory::cannot_read(error))
}

/// The one pod or workload of a manifest.
///
/// # Errors
/// What is there instead.
pub fn only<'a, 'o>(found: &'a [Workload<'o>]) -> Result<&'a Workload<'o>, String> {
    match found {
        [workload] => Ok(workload),
        [] => Err("expected a pod or a workload with one, and there is none".to_owned()),
        several => {
            let names: Vec<&str> = several.iter().map(|workload| workload.reference.as_str()).collect();
            Err(format!(
                "expected one pod or workload, and there are {}: give a file of one",
                names.join(", ")
            ))
        }
    }
}

impl PresetInput {
    /// Refuses presets where nothing asks for them. The variable is there for other commands as well.
    pub fn refuse(&self, message: &str) -> Result<(), Failure> {
        if self.source.presets.is_empty() || std::env::var_os("REACH_PRESETS").is_some() {
            return Ok(());
        }
        Err(Failure::Usage(message.to_owned()))
    }

    /// Loads the presets.
    pub fn lookup(&self) -> Result<Lookup, Failure> {
        let labels = self
            .namespace_labels
            .as_ref()
            .map(|pairs| NamespaceLabels::new(pairs.iter().map(|(key, value)| (key, value))));
        if let Some(loaded) = self.source.files()? {
            let namespace = self.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let (snapshot, accounts) = loaded.snapshot();
            complain_all(&accounts.warnings());
            return Ok(Lookup { snapshot, namespace, labels });
        }
        block_on(async {
            let config = self.source.config().await?;
            let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
            let snapshot = self.source.of_cluster(&kube::Client::try_from(config)?).await?;
            Ok(Lookup { snapshot, namespace, labels })
        })
    }
}

impl PresetSource {
    /// Whether somebody has said where presets are.
    pub fn is_given(&self) -> bool {
        !self.presets.is_empty() || self.cluster.kubeconfig.is_some() || self.cluster.context.is_some()
    }

    /// What is in the files that were given; `None` where presets come from a cluster.
    pub fn files(&self) -> Result<Option<directory::Loaded>, Failure> {
        if self.presets.is_empty() {
            return Ok(None);
        }
        let loaded = directory::load(&self.presets)
            .map_err(|errors| Failure::Messages(errors.iter().map(ToString::to_string).collect()))?;
        if loaded.presets.is_empty() {
            let paths: Vec<String> = self.presets.iter().map(|path| path.display().to_string()).collect();
            let is_folder = self.presets.iter().any(|path| path.is_dir());
            complain_all(&[format!(
                "--presets {}: no ClusterPodPreset and no PodPreset there{}{}",
                paths.join(":"),
                if is_folder { ": " } else { "" },
                if is_folder { expected(&self.presets) } else { String::new() },
            )]);
        }
        Ok(Some(loaded.with_given(self.network.facts())))
    }

    /// How to reach the cluster that has the presets.
    pub async fn config(&self) -> anyhow::Result<kube::Config> {
        self.cluster.config().await.context("without --presets PATH, presets come from a cluster")
    }

    /// The presets of a cluster.
    pub async fn of_cluster(&self, client: &kube::Client) -> anyhow::Result<Snapshot> {
        let loaded = cluster::load(client, self.network.facts())
            .await
            .context("cannot read presets from the cluster")?;
        complain_all(&loaded.warnings);
        Ok(loaded.snapshot)
    }
}

/// Runs what talks to a cluster.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Writes warnings to standard error.
pub fn complain_all(warnings: &[String]) {
    for warning in warnings {
        super::complain(&format!("warning: {warning}"));
    }
}

impl ClusterNetwork {
    /// What they say.
    pub fn facts(&self) -> Facts {
        Facts::given(&self.cluster_network)
    }
}

impl ClusterOptions {
    /// The configuration of the client.
    pub async fn config(&self) -> anyhow::Result<kube::Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file)
                    .with_context(|| format!("cannot read the kubeconfig {}", file.display()))?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
            }
            None if self.context.is_some() => kube::Config::from_kubeconfig(&options).await?,
            // One message: the error repeats its causes.
            None => kube::Config::infer().await.map_err(|error| {
                anyhow::anyhow!(
                    "no cluster: give one by --kubeconfig, $KUBECONFIG or ~/.kube/config ({error})"
                )
            })?,
        };
        Ok(config)
    }
}

impl Lookup {
    /// The namespace of an object.
    pub fn namespace(&self, own: Option<&str>) -> Result<(&Snapshot, String, Namespace<'_>), String> {
        let name = own.unwrap_or(&self.namespace);
        let namespace = self.snapshot.namespace(name).ok_or_else(|| {
            format!("namespace {name} does not exist in the cluster: create it, or choose another with -n")
        })?;
        let namespace = match &self.labels {
            Some(labels) => namespace.with_labels(labels.clone().named(name)),
            None => namespace,
        };
        Ok((&self.snapshot, name.to_owned(), namespace))
    }
}
