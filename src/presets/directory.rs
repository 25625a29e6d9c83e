//! Presets from files: YAML or JSON, one or more documents each, alone or in folders.
//!
//! `Namespace` objects in them give namespaces their labels; `Service`, `ServiceCIDR`, `Node` and kubeadm's ConfigMap
//! give what `noProxyFrom` asks for. A file is taken as the API server would take it: an error in one object makes
//! the whole set unusable, and every error is reported.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use self::reader::Reader;
use super::Presets;
use super::network::{self, Facts};
use super::services::Services;
use super::sources::{self, Accounts, Lists};
use crate::api::validate::{FieldError, validate};
use crate::api::{ClusterPodPreset, NoProxySource, PodPreset, PresetKind};
use crate::host::values::Secrets;
use crate::inject::preset::Preset;
use crate::inject::snapshot::{NamespaceLabels, Snapshot};
use crate::telemetry::PresetMetrics;

mod reader;

/// How often files are looked at. Cheap, and unlike inotify right on every file system; a ConfigMap
/// volume swaps a symbolic link, which shows in the metadata too.
pub const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// What the files hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Presets of both kinds.
    pub presets: Vec<Arc<Preset>>,
    /// Labels of the namespaces that are given as objects.
    pub namespaces: BTreeMap<Box<str>, NamespaceLabels>,
    /// What presets of hosts refer to.
    pub secrets: Secrets,
    /// Networks that the command line gives.
    given: Facts,
    services: Services,
    /// What ServiceCIDRs, kubeadm's ConfigMap and the Service `kubernetes` say.
    networks: Vec<Facts>,
    nodes: Vec<Facts>,
}

/// What is wrong with a file or an object in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// The document in it, from 1; `None` when the file itself is the problem.
    pub document: Option<usize>,
    /// The object, as `Kind/name`; empty when it is not known.
    pub object: String,
    /// What was expected and what to write instead.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if !self.object.is_empty() {
            write!(f, ", {}", self.object)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Loaded {
    /// The same with networks that the command line gives.
    #[must_use]
    pub fn with_given(mut self, given: Facts) -> Self {
        self.given = given;
        self
    }

    /// The snapshot of these files, and what became of `noProxyFrom`. Namespaces that are not given count as existing.
    #[must_use]
    pub fn snapshot(&self) -> (Snapshot, Accounts) {
        let stated = [&self.given].into_iter().chain(&self.networks);
        let mut lists = Lists::default();
        lists.update(
            &sources::asked(self.presets.iter().map(|preset| &**preset)),
            |_| true,
            &self.services,
            || network::cluster_network(stated.clone(), self.nodes.iter()),
            || network::nodes(self.nodes.iter()),
        );
        lists.accounts.explain(|source, account| {
            let (is_missing, kind) = match source {
                NoProxySource::Services | NoProxySource::AllServices => (self.services.is_empty(), "Service"),
                NoProxySource::ClusterNetwork => {
                    (account.taken() == 0, "ServiceCIDR, Node or ConfigMap kubeadm-config")
                }
                NoProxySource::Nodes => (account.taken() == 0, "Node"),
            };
            is_missing.then(|| format!("--presets has no {kind}"))
        });
        let services = self.services.made().map(|(namespace, made)| (namespace, Arc::clone(&made.list)));
        let snapshot = Snapshot::from_parts(self.presets.iter().cloned(), self.namespaces.clone(), true)
            .with_services(services)
            .with_derived(lists.of_cluster);
        (snapshot, lists.accounts)
    }
}

/// Reads presets from files and folders (their `.yaml`, `.yml` and `.json` files, not those of folders
/// inside).
///
/// # Errors
/// Every file that cannot be read and every object that the API server would refuse.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Vec<FileError>> {
    let mut reader = Reader::default();
    for path in paths {
        match files(path) {
            Ok(files) => files.iter().for_each(|file| reader.file(file)),
            Err(error) => reader.fail(path, None, String::new(), cannot_read(&error)),
        }
    }
    reader.finish()
}

/// Looks at the files now and then and publishes what is new and good; runs until it is dropped.
///
/// `seen` is the fingerprint of the files before those presets were read that are published, and `said` what is known of their
/// `noProxyFrom`.
pub async fn watch(
    paths: Vec<PathBuf>,
    mut seen: Fingerprint,
    given: Facts,
    presets: Arc<Presets>,
    metrics: PresetMetrics,
    mut said: Accounts,
) {
    let mut errors: Vec<FileError> = Vec::new();
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let now = fingerprint(&paths);
        // What could not be read may be readable by now, and that does not show in it.
        let is_again = errors.iter().any(|error| error.document.is_none());
        if now == seen && !is_again {
            continue;
        }
        match load(&paths) {
            Ok(loaded) => {
                tracing::info!(presets = loaded.presets.len(), "presets reloaded");
                said = publish(&loaded.with_given(given.clone()), &presets, &metrics, &said);
                errors.clear();
            }
            Err(found) => {
                if now != seen || found != errors {
                    for error in &found {
                        tracing::error!(%error, "presets not reloaded, the last good ones stay");
                    }
                }
                errors = found;
                metrics.stale.set(1);
            }
        }
        // Files that change while they are read differ from `now` at the next look.
        seen = now;
    }
}

/// Publishes what was loaded. Of `noProxyFrom`, it tells what was not `said` before, and returns all there is to say.
pub fn publish(loaded: &Loaded, presets: &Presets, metrics: &PresetMetrics, said: &Accounts) -> Accounts {
    let (snapshot, accounts) = loaded.snapshot();
    accounts.tell(said, &metrics.sources);
    let (cluster, namespaced) = snapshot.counts();
    metrics.set(PresetKind::Cluster, cluster, 0);
    metrics.set(PresetKind::Namespaced, namespaced, 0);
    metrics.stale.set(0);
    metrics.changed_now();
    presets.publish(snapshot);
    accounts
}

/// The files that a path stands for, sorted.
pub(crate) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let wanted = file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if wanted && may_be_a_file(&file) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether it is a file, or cannot be told: left out, its presets would be missed by nobody, so that it is left to whoever reads it
/// to fail.
fn may_be_a_file(file: &Path) -> bool {
    // `metadata` follows links: a ConfigMap volume is made of them.
    fs::metadata(file).map_or_else(
        |_| {
            let name = file.file_name().unwrap_or_default().as_encoded_bytes();
            // Gone since it was listed; or a lock of Emacs, which is a link to nowhere.
            fs::symlink_metadata(file).is_ok() && !name.starts_with(b".#")
        },
        |metadata| metadata.is_file(),
    )
}

/// The folders in a folder, which are not read, sorted. Those of a ConfigMap volume, which begin with a dot, are no places
/// for files of one's own.
pub(crate) fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| !is_hidden(entry))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// Length, time of change, and where links lead to.
type Seen = (u64, SystemTime, PathBuf);

/// What changes when a file changes.
pub type Fingerprint = Vec<(PathBuf, Option<Seen>)>;

/// The fingerprint of files and folders.
#[must_use]
pub fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let look = |file: PathBuf| {
        let seen = fs::metadata(&file).ok().map(|metadata| {
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            (metadata.len(), modified, fs::canonicalize(&file).unwrap_or_default())
        });
        (file, seen)
    };
    paths.iter().flat_map(|path| files(path).unwrap_or_else(|_| vec![path.clone()])).map(look).collect()
}

pub(crate) fn cannot_read(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// An object without the members that are `null`, which the API server takes for absent.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Checks and compiles a preset.
///
/// # Errors
/// Everything that its CRD has against it.
pub fn preset(object: &Value) -> Result<Preset, Vec<FieldError>> {
    let one = |path: &str, message: String| vec![FieldError { path: path.to_owned(), message }];
    let object = &without_nulls(object);
    let namespaced = object["kind"] == "PodPreset";
    let kind = if namespaced { PresetKind::Namespaced } else { PresetKind::Cluster };
    let mut errors = validate(kind, object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(allowed) {
        errors.extend(one(
            "metadata.name",
            "not a valid name: write lower-case letters, digits, '-' and '.', at most 253".to_owned(),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let compiled = if namespaced {
        serde_json::from_value::<PodPreset>(object.clone()).map(|object| Preset::namespaced(&object))
    } else {
        serde_json::from_value::<ClusterPodPreset>(object.clone()).map(|object| Preset::cluster(&object))
    };
    match compiled {
        Ok(Ok(preset)) => Ok(preset),
        Ok(Err(error)) => Err(one("", error.to_string())),
        Err(error) => Err(one("", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_is_absent() {
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset",
            "metadata": {"name": "a", "namespace": "b", "labels": null},
            "spec": {"selector": null, "env": [{"name": "TZ", "value": "UTC", "valueFrom": null}], "volumes": null},
        });
        assert_eq!(preset(&object).unwrap().reference(), "PodPreset/a");
    }

    #[test]
    fn a_folder_with_nothing_in_it_is_no_error_because_it_may_be_filled_later() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("..data");
        fs::create_dir(&data).unwrap();
        fs::create_dir(folder.path().join("inside")).unwrap();
        assert_eq!(load(&[folder.path().to_owned()]).unwrap().presets.len(), 0);
        assert_eq!(folders(folder.path()), [folder.path().join("inside")]);
        assert_eq!(folders(&folder.path().join("none")), Vec::<PathBuf>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_an_error_and_not_a_file_less() {
        let folder = tempfile::tempdir().unwrap();
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        };
        fs::create_dir(folder.path().join("folder.yaml")).unwrap();
        link("me@host.1:2", ".#presets.yaml");
        link("nowhere", "notes.txt");
        assert!(load(&[folder.path().to_owned()]).is_ok(), "a folder, a lock of an editor, no presets");
        link("nowhere", "presets.yaml");
        let errors = load(&[folder.path().to_owned()]).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("presets.yaml: cannot be read"), "{}", errors[0]);
    }

    #[test]
    fn presets_may_be_in_a_list_of_their_own_kind() {
        let folder = tempfile::tempdir().unwrap();
        let preset = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "a"},
            "spec": {"env": [{"name": "TZ", "value": "UTC"}]},
        });
        for (api_version, kind) in [("v1", "List"), ("reach.dev/v1alpha1", "ClusterPodPresetList")] {
            let list = json!({"apiVersion": api_version, "kind": kind, "items": [preset]});
            let file = folder.path().join("list.json");
            fs::write(&file, list.to_string()).unwrap();
            assert_eq!(load(&[file]).unwrap().presets.len(), 1, "{kind}");
        }
    }

    #[test]
    fn every_error_of_an_object_is_reported_with_its_field() {
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "Not_A_Name"},
            "spec": {"letter_case": "Both", "priority": "high", "env": [{"name": "TZ", "value": 1}]},
        });
        let errors: Vec<String> = preset(&object).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.letter_case: unknown field: write letterCase",
                "spec.priority: expected a whole number, found a string",
                "spec.env[0].value: expected a string, found a number: put it in quotes",
                "metadata.name: not a valid name: write lower-case letters, digits, '-' and '.', at most 253",
            ]
        );
    }
}
