//! Objects of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{FileError, Loaded, cannot_read, preset, without_nulls};
use crate::api::{GROUP, VERSION};
use crate::inject::snapshot::NamespaceLabels;
use crate::manifest;
use crate::presets::cluster::source::{API_SERVICE, KUBEADM};
use crate::presets::network::Part;

/// Reads objects and collects errors.
#[derive(Default)]
pub(super) struct Reader {
    loaded: Loaded,
    errors: Vec<FileError>,
    /// Where each object was found, to name both places of a duplicate.
    places: BTreeMap<String, String>,
    /// Namespaces that have a Service.
    of_services: BTreeSet<Box<str>>,
}

impl Reader {
    /// What was read.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn finish(mut self) -> Result<Loaded, Vec<FileError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        for namespace in &self.of_services {
            self.loaded.services.update(namespace);
        }
        Ok(self.loaded)
    }

    pub fn fail(&mut self, file: &Path, document: Option<usize>, object: String, message: String) {
        self.errors.push(FileError { file: file.to_owned(), document, object, message });
    }

    pub fn file(&mut self, file: &Path) {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return self.fail(file, None, String::new(), cannot_read(&error)),
        };
        for document in manifest::documents(&text) {
            match document.read() {
                Ok(None) => {}
                Ok(Some(object)) => self.object(file, document.number, &object),
                Err(error) => self.fail(file, Some(document.number), String::new(), error.to_string()),
            }
        }
    }

    fn object(&mut self, file: &Path, document: usize, object: &Value) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let label = format!("{kind}/{name}");
        let mut fail = |message: String| self.fail(file, Some(document), label.clone(), message);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match (group, kind) {
            // Clients write typed lists, too (`ClusterPodPresetList`).
            ("" | GROUP, kind) if kind.ends_with("List") && object["items"].is_array() => {
                for item in object["items"].as_array().into_iter().flatten() {
                    self.object(file, document, item);
                }
            }
            ("", "Namespace") => {
                let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
                let labels = labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
                self.loaded.namespaces.insert(name.into(), NamespaceLabels::new(labels));
            }
            ("", "Service" | "Node" | "ConfigMap") | ("networking.k8s.io", "ServiceCIDR") => {
                if let Err(message) = self.of_cluster(kind, name, object) {
                    self.fail(file, Some(document), label, message);
                }
            }
            ("", "Secret") => {
                if let Err(message) = self.loaded.secrets.insert(object) {
                    self.fail(file, Some(document), label, message);
                }
            }
            (GROUP, "ClusterPodPreset" | "PodPreset") if version == VERSION => {
                self.preset(file, document, label, object);
            }
            (GROUP, "ClusterPodPreset" | "PodPreset") => {
                fail(format!("apiVersion: unknown version {version}: write {GROUP}/{VERSION}"));
            }
            // Nothing else is called so, and left out it would be missed by nobody.
            ("", "ClusterPodPreset" | "PodPreset") if version.is_empty() => {
                fail(format!("apiVersion: missing: write {GROUP}/{VERSION}"));
            }
            (GROUP, _) => fail("kind: unknown kind: write ClusterPodPreset or PodPreset".to_owned()),
            ("settings.k8s.io", "PodPreset") => fail(format!(
                "apiVersion: the PodPreset of Kubernetes < 1.20: write {GROUP}/{VERSION}; the fields selector, env, envFrom, volumes and volumeMounts stay as they are"
            )),
            // Folders of manifests hold other objects too.
            ("", _) if kind.is_empty() => {
                fail("no kind: expected a ClusterPodPreset, a PodPreset or a Namespace".to_owned());
            }
            _ => {}
        }
    }

    /// An object that `noProxyFrom` is about.
    fn of_cluster(&mut self, kind: &str, name: &str, object: &Value) -> Result<(), String> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let is = |(of, called): (&str, &str)| namespace == of && name == called;
        // Where a value stands is said, and not what it is: a ConfigMap may hold anything.
        let part = || {
            let object = without_nulls(object);
            serde_path_to_error::deserialize::<_, Part>(&object)
                .map_err(|error| format!("{}: not what a {kind} has there", error.path()))
        };
        let loaded = &mut self.loaded;
        match kind {
            "Service" => {
                loaded.services.insert(namespace, name);
                self.of_services.insert(namespace.into());
                if is(API_SERVICE) {
                    loaded.networks.push(part()?.api_service());
                }
            }
            "ServiceCIDR" => loaded.networks.push(part()?.service_cidr()),
            "Node" => loaded.nodes.push(part()?.node()),
            "ConfigMap" if is(KUBEADM) => loaded.networks.push(part()?.kubeadm()),
            _ => {}
        }
        Ok(())
    }

    fn preset(&mut self, file: &Path, document: usize, label: String, object: &Value) {
        match preset(object) {
            Ok(preset) => {
                let id = format!(
                    "{}{label}",
                    preset.namespace.as_deref().map(|name| format!("{name}/")).unwrap_or_default()
                );
                let place = format!("{}, document {document}", file.display());
                if let Some(other) = self.places.insert(id, place) {
                    self.fail(
                        file,
                        Some(document),
                        label,
                        format!("stands in {other} too: keep one of them"),
                    );
                    return;
                }
                self.loaded.presets.push(Arc::new(preset));
            }
            Err(errors) => {
                for error in errors {
                    self.fail(file, Some(document), label.clone(), error.to_string());
                }
            }
        }
    }
}
