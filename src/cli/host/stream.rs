//! Manifests of Cluster API as `reach host` reads them.

use std::path::PathBuf;

use serde_json::Value;

use crate::cli::input::{self, File};
use crate::cli::{Failure, shared_out};
use crate::host::cluster_api::{FactSource, Group, Manifests, NodeRanges, Object, Options, Source, groups};
use crate::host::variables;
use crate::manifest::{self, Document};

/// Which manifests, and what is taken from them.
#[derive(Debug, clap::Args)]
pub struct StreamInput {
    /// Manifests of Cluster API: file, folder of files (folders inside are not read), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    filenames: Vec<PathBuf>,
    #[command(flatten)]
    facts: FactInput,
}

/// What is taken from manifests.
#[derive(Debug, clap::Args)]
pub struct FactInput {
    /// Which addresses of machines go past the proxy
    #[arg(long, value_name = "RANGES", default_value = "subnet")]
    node_ranges: NodeRanges,
    /// Leave out entries from these sources
    #[arg(long, value_name = "SOURCE,...", value_delimiter = ',')]
    without: Vec<FactSource>,
    /// Put values of the environment into ${VARIABLES} first, as clusterctl generate does
    #[arg(long)]
    values_from_env: bool,
}

/// A stream of manifests, its objects and where each of them stands.
pub struct Stream<'a> {
    /// The documents of each file.
    pub documents: Vec<Vec<Document<'a>>>,
    /// The objects.
    pub manifests: Manifests,
    /// For each object, where it is.
    pub places: Vec<Place>,
    /// What belongs together, with the entries of each.
    pub groups: Vec<Group>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: usize,
    /// The document in it, from 0.
    pub document: usize,
    /// Where the object is in the document: empty, or a place in a `List`.
    pub pointer: String,
}

impl StreamInput {
    /// Reads the files, with values in place of variables if that is asked for.
    pub fn files(&self) -> Result<Vec<File>, Failure> {
        self.facts.files(&self.filenames)
    }

    /// What is taken from manifests.
    pub fn facts(&self) -> &FactInput {
        &self.facts
    }
}

impl FactInput {
    /// Reads files, with values in place of variables if that is asked for.
    pub fn files(&self, names: &[PathBuf]) -> Result<Vec<File>, Failure> {
        let mut files = input::files(names)?;
        if !self.values_from_env {
            return Ok(files);
        }
        let mut errors = Vec::new();
        for file in &mut files {
            // clusterctl looks every name up in capitals.
            match variables::substitute(&file.text, |name| std::env::var(name.to_uppercase()).ok()) {
                Ok(text) => file.text = text,
                Err(error) => errors.push(format!("{}: {error}", file.name)),
            }
        }
        if errors.is_empty() { Ok(files) } else { Err(Failure::Messages(errors)) }
    }

    /// Reads the objects of files.
    pub fn read<'a>(&self, files: &'a [File]) -> Result<Stream<'a>, Failure> {
        let documents: Vec<Vec<Document<'a>>> =
            files.iter().map(|file| manifest::documents(&file.text)).collect();
        let (mut objects, mut places, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (number, file) in files.iter().enumerate() {
            let values = shared_out(documents[number].iter().collect(), Document::read);
            for (position, (document, value)) in documents[number].iter().zip(values).enumerate() {
                let source = Source { file: file.name.clone(), document: document.number };
                match value {
                    Ok(None) => {}
                    Ok(Some(value)) => {
                        for (pointer, value) in items(value) {
                            objects.push(Object::new(source.clone(), value));
                            places.push(Place { file: number, document: position, pointer });
                        }
                    }
                    Err(error) => errors.push(format!("{source}: {error}")),
                }
            }
        }
        if !errors.is_empty() {
            return Err(Failure::Messages(errors));
        }
        let manifests = Manifests::new(objects);
        let options = Options { node_ranges: self.node_ranges, without: self.without.clone() };
        let groups = groups(&manifests, &options).map_err(super::messages)?;
        Ok(Stream { documents, manifests, places, groups })
    }
}

/// The objects of a document, each with its pointer: the items of a `List`, as `kubectl get -o yaml` writes it, and of a typed
/// list, as clients write it (`KubeadmConfigTemplateList`); or itself.
fn items(value: Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    collect(String::new(), value, &mut found);
    found
}

fn collect(pointer: String, mut value: Value, found: &mut Vec<(String, Value)>) {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").filter(|items| is_list && items.is_array()).map(Value::take) {
        Some(Value::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                collect(format!("{pointer}/items/{index}"), item, found);
            }
        }
        _ => found.push((pointer, value)),
    }
}

impl Stream<'_> {
    /// How messages name a group: its cluster, its class, or what belongs to neither.
    pub fn name(&self, group: &Group) -> String {
        self.head(group).map_or_else(|| "nothing".to_owned(), ToString::to_string)
    }

    /// The namespace of a group.
    pub fn namespace(&self, group: &Group) -> &str {
        self.head(group).map_or("", |object| &object.namespace)
    }

    fn head(&self, group: &Group) -> Option<&Object> {
        let index = group.cluster.or(group.class).or(group.configurations.first().copied());
        index.map(|index| &self.manifests.objects()[index])
    }
}
