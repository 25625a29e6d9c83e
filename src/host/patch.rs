//! What becomes of a `KubeadmConfigSpec`: files and commands of reach in it, brought up to date or taken away, all else as it
//! is.
//!
//! What is reach's is known by its path and the first line of its content; a command by its text; a variable of `extraEnvs`
//! by an annotation of the object, because nothing in it could say so.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::node::{self, File, Node};
use super::render::{self, Bootstrap, Content, TooLong};
use super::targets::{MARK, Target, VARIABLES};
use super::values::Setting;
use super::variables::references;
use crate::manifest::Operation;

/// The label by which a Secret of reach is known (Kubernetes, "Recommended Labels").
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The annotation that names the variables of `extraEnvs` that are reach's.
pub const EXTRA_ENVS: &str = "reach.dev/extra-envs";

/// The static pods that kubeadm gives its own variables (cmd/kubeadm/app/phases/controlplane/manifests.go).
const COMPONENTS: [&str; 3] = ["apiServer", "controllerManager", "scheduler"];

/// What Cluster API puts behind the name of a cluster for the names of its Secrets (util/secret/consts.go, `Purpose`). `proxy` is
/// the CA of the front proxy.
const PURPOSES: [&str; 6] = ["ca", "etcd", "sa", "proxy", "kubeconfig", "apiserver-etcd-client"];

/// What clusterctl and Jinja replace in plain text, and who does.
const OPENERS: [(&str, &str); 5] = [
    ("${", "clusterctl"),
    ("$$", "clusterctl"),
    ("{{", "cloud-init"),
    ("{%", "cloud-init"),
    ("{#", "cloud-init"),
];

/// What a `KubeadmConfigSpec` is to have.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Files and commands.
    pub node: &'a Node,
    /// Name of the Secret that has the files with variables in them.
    pub secret: Option<&'a str>,
    /// Variables of clusterctl that stand in the files as [`placeholder`]s.
    pub variables: &'a [String],
    /// What static pods get in `extraEnvs`.
    pub extra_envs: &'a [Setting],
}

/// Why an object cannot be patched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Something of somebody else's is where reach's has to be.
    #[error(
        "{field}: {what} is there already and not written by reach, which writes the same: take it away, or leave {option} out"
    )]
    Taken {
        /// The field.
        field: String,
        /// What is there.
        what: String,
        /// What asks for it.
        option: &'static str,
    },
    /// A field is not what it has to be.
    #[error("{field}: expected {expected}, found {found}")]
    Type {
        /// The field.
        field: String,
        /// What has to be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A file is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A file that clusterctl and Jinja read has something in it that they replace.
    #[error(
        "{what} has {opener} in it and stands in the manifest as plain text, in which {reader} would replace it: percent-encode $ as %24 and {{ as %7B in a URL"
    )]
    Replaced {
        /// The file, or the field.
        what: String,
        /// What is replaced.
        opener: &'static str,
        /// Who would.
        reader: &'static str,
    },
}

/// What stands in a file for a variable of clusterctl until the file is written: every writer takes it for a name.
#[must_use]
pub fn placeholder(number: usize) -> String {
    format!("reach-variable-{number}.invalid")
}

/// The changes of an object whose `KubeadmConfigSpec` is at `field` (`spec.kubeadmConfigSpec`), as operations that are
/// applied in order. There are none where everything is as it is to be.
///
/// # Errors
/// Everything that is in the way.
pub fn patch(object: &Value, field: &str, wanted: &Wanted<'_>) -> Result<Vec<Operation>, Vec<PatchError>> {
    let spec = field.split('.').fold(object, |value, name| &value[name]);
    let mut patch = Patch { object, spec, field, wanted, operations: Vec::new(), errors: Vec::new() };
    let (mut value, mut place) = (object, String::new());
    for name in field.split('.') {
        value = &value[name];
        place = if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
        if !value.is_null() && !value.is_object() {
            patch.wrong(&place, "a mapping", value);
            return Err(patch.errors);
        }
    }
    if spec.is_null() && !wanted.node.files.is_empty() {
        // A template without one has its defaults, and gets what follows.
        patch.make_parents();
    }
    patch.files();
    patch.commands();
    patch.extra_envs();
    if patch.errors.is_empty() { Ok(patch.operations) } else { Err(patch.errors) }
}

/// The cluster for which Cluster API itself keeps a Secret of this name, if it were there.
#[must_use]
pub fn secret_of_cluster_api(name: &str) -> Option<&str> {
    PURPOSES.iter().find_map(|purpose| name.strip_suffix(purpose)?.strip_suffix('-'))
}

/// Whether a Secret can have this name (RFC 1123, as Kubernetes has it). A variable of clusterctl stands for a part of one.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let mut plain = name.to_owned();
    for reference in references(name).collect::<Vec<_>>().into_iter().rev() {
        plain.replace_range(reference.range, "x");
    }
    let is_end = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(|c| is_end(Some(c)) || *c == b'-')
    };
    plain.len() <= 253 && plain.split('.').all(is_label)
}

/// The files with variables in them, in a Secret.
///
/// Cluster API copies what is in it into user data, which is a Jinja template there too. So the value is base64, which the
/// item of `files` says (`encoding`, copied beside it); plain only where clusterctl has to find its variables.
///
/// # Errors
/// As [`patch`].
pub fn secret(
    node: &Node,
    name: &str,
    namespace: &str,
    variables: &[String],
) -> Result<Value, Vec<PatchError>> {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    // It moves with its cluster (clusterctl, "move").
    metadata
        .insert("labels".to_owned(), json!({MANAGED_BY: "reach", "clusterctl.cluster.x-k8s.io/move": ""}));
    let (mut data, mut string_data, mut errors) = (Map::new(), Map::new(), Vec::new());
    for file in node.files.iter().filter(|file| file.has_values) {
        match filled(file, variables) {
            Ok(filled) if filled.content == file.content => {
                let value = Content::base64(file).text;
                // `data` is base64 of any value.
                let encoded = base64_simd::STANDARD.encode_to_string(value);
                data.insert(file.name().to_owned(), encoded.into());
            }
            Ok(filled) => {
                string_data.insert(file.name().to_owned(), filled.content.into());
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"});
    for (field, members) in [("data", data), ("stringData", string_data)] {
        if !members.is_empty() {
            secret[field] = members.into();
        }
    }
    Ok(secret)
}

/// Whether a Secret is one that [`secret`] has made.
#[must_use]
pub fn is_secret_of_reach(object: &Value) -> bool {
    let key = node::name(VARIABLES);
    object["kind"] == "Secret"
        && object["metadata"]["labels"][MANAGED_BY] == "reach"
        && ["data", "stringData"].iter().any(|field| object[field].get(key).is_some())
}

/// A file with the variables of clusterctl in it.
pub(super) fn filled(file: &File, variables: &[String]) -> Result<File, PatchError> {
    if !has_variables(file, variables) {
        return Ok(file.clone());
    }
    check_plain(&file.path, &file.content)?;
    Ok(File { content: fill(&file.content, variables), ..file.clone() })
}

fn has_variables(file: &File, variables: &[String]) -> bool {
    (0..variables.len()).any(|number| file.content.contains(&placeholder(number)))
}

/// Puts variables where their placeholders are.
#[must_use]
pub fn fill(text: &str, variables: &[String]) -> String {
    let numbered = variables.iter().enumerate();
    numbered.fold(text.to_owned(), |text, (number, variable)| text.replace(&placeholder(number), variable))
}

/// Refuses what somebody would replace in plain text.
fn check_plain(what: &str, text: &str) -> Result<(), PatchError> {
    match OPENERS.into_iter().find(|(opener, _)| text.contains(opener)) {
        Some((opener, reader)) => Err(PatchError::Replaced { what: what.to_owned(), opener, reader }),
        None => Ok(()),
    }
}

/// Changes that are being found.
struct Patch<'a> {
    object: &'a Value,
    spec: &'a Value,
    field: &'a str,
    wanted: &'a Wanted<'a>,
    operations: Vec<Operation>,
    errors: Vec<PatchError>,
}

impl<'a> Patch<'a> {
    fn wrong(&mut self, field: &str, expected: &'static str, found: &Value) {
        self.errors.push(PatchError::wrong(field, expected, found));
    }

    /// A list of the specification; `None` when it is not there.
    fn list(&mut self, name: &str) -> Option<&'a [Value]> {
        match &self.spec[name] {
            Value::Null => None,
            Value::Array(items) => Some(items),
            other => {
                let field = format!("{}.{name}", self.field);
                self.wrong(&field, "a list", other);
                None
            }
        }
    }

    fn pointer(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.field.replace('.', "/"))
    }

    /// Mappings down to the specification.
    fn make_parents(&mut self) {
        let mut value = self.object;
        let mut path = String::new();
        for name in self.field.split('.') {
            value = &value[name];
            path = format!("{path}/{name}");
            if value.is_null() {
                self.operations.push(Operation::add(path.clone(), json!({})));
            }
        }
    }

    fn files(&mut self) {
        let own = self.list("files");
        let mut missing = self.wanted_files();
        // From the end, so that removing one leaves the places of those before it.
        let mut changes = Vec::new();
        for (index, item) in own.unwrap_or_default().iter().enumerate().rev() {
            let path = item["path"].as_str().unwrap_or_default();
            let wanted = missing.iter().position(|(file, _)| file.path == path);
            match wanted {
                _ if is_of_reach(item, path) => match wanted.map(|at| missing.remove(at).1) {
                    Some(new) if new == *item => {}
                    Some(new) => {
                        changes.push(Operation::replace(self.pointer(&format!("files/{index}")), new));
                    }
                    None => changes.push(Operation::remove(self.pointer(&format!("files/{index}")))),
                },
                Some(at) => {
                    let option = option(&missing[at].0.path);
                    self.errors.push(PatchError::Taken {
                        field: format!("{}.files[{index}]", self.field),
                        what: path.to_owned(),
                        option,
                    });
                }
                None => {}
            }
        }
        self.operations.extend(changes);
        let new = missing.into_iter().map(|(_, item)| item);
        self.append("files", own.is_some(), new.collect());
    }

    /// The items of `files`, each with the file it is for.
    fn wanted_files(&mut self) -> Vec<(File, Value)> {
        let bootstrap =
            if self.spec["format"] == "ignition" { Bootstrap::Ignition } else { Bootstrap::CloudConfig };
        let mut files = Vec::new();
        for file in &self.wanted.node.files {
            let item = match self.wanted.secret {
                Some(secret) if file.has_values => {
                    let is_plain = has_variables(file, self.wanted.variables);
                    Ok(render::kubeadm_file_from(file, secret, is_plain))
                }
                _ => self.item(file, bootstrap),
            };
            match item {
                Ok(item) => files.push((file.clone(), item)),
                Err(error) => self.errors.push(error),
            }
        }
        files
    }

    fn item(&self, file: &File, bootstrap: Bootstrap) -> Result<Value, PatchError> {
        let filled = filled(file, self.wanted.variables)?;
        let content = if filled.content == file.content {
            render::content(file, bootstrap)?
        } else {
            render::plain(&filled)?
        };
        Ok(render::kubeadm_file(file, content))
    }

    fn append(&mut self, list: &str, is_there: bool, new: Vec<Value>) {
        if is_there {
            for item in new {
                self.operations.push(Operation::add(self.pointer(&format!("{list}/-")), item));
            }
        } else if !new.is_empty() {
            self.operations.push(Operation::add(self.pointer(list), new.into()));
        }
    }

    /// Commands of reach come first: those of others may need the proxy. Where they stand elsewhere, somebody has put them
    /// there, and they stay.
    fn commands(&mut self) {
        const LIST: &str = "preKubeadmCommands";
        let own = self.list(LIST);
        let wanted = &self.wanted.node.commands;
        let found: Vec<(usize, &str)> = own
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Some((index, item.as_str()?)))
            .filter(|(_, command)| [node::APPLY, node::EXPORT].contains(command))
            .collect();
        if found.iter().map(|(_, command)| command).eq(wanted.iter()) {
            return;
        }
        for (index, _) in found.iter().rev() {
            self.operations.push(Operation::remove(self.pointer(&format!("{LIST}/{index}"))));
        }
        if own.is_none() {
            let all = wanted.iter().map(|command| Value::from(*command)).collect();
            return self.append(LIST, false, all);
        }
        for (index, command) in wanted.iter().enumerate() {
            let path = self.pointer(&format!("{LIST}/{index}"));
            self.operations.push(Operation::add(path, (*command).into()));
        }
    }

    fn extra_envs(&mut self) {
        let annotation = &self.object["metadata"]["annotations"][EXTRA_ENVS];
        let names = annotation.as_str().unwrap_or_default().split(',');
        // Otherwise an item without a name would be one of them.
        let of_reach: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        let mut wanted = Vec::new();
        for setting in self.wanted.extra_envs {
            for name in setting.names() {
                let value = fill(&setting.value, self.wanted.variables);
                let what = format!("{}.clusterConfiguration.apiServer.extraEnvs: {name}", self.field);
                if let Err(error) = check_plain(&what, &setting.value) {
                    self.errors.push(error);
                }
                wanted.push(json!({"name": name, "value": value}));
            }
        }
        if wanted.is_empty() && annotation.is_null() {
            return;
        }
        let (metadata, configuration) = (&self.object["metadata"], &self.spec["clusterConfiguration"]);
        let own = format!("{}.clusterConfiguration", self.field);
        let mut parents = vec![
            ("metadata".to_owned(), metadata),
            ("metadata.annotations".to_owned(), &metadata["annotations"]),
            (own.clone(), configuration),
        ];
        parents.extend(COMPONENTS.map(|component| (format!("{own}.{component}"), &configuration[component])));
        let wrong: Vec<_> =
            parents.into_iter().filter(|(_, value)| !value.is_null() && !value.is_object()).collect();
        if !wrong.is_empty() {
            return wrong.iter().for_each(|(field, value)| self.wrong(field, "a mapping", value));
        }
        for component in COMPONENTS {
            self.extra_envs_of(component, &of_reach, &wanted);
        }
        let names: Vec<&str> = wanted.iter().filter_map(|item| item["name"].as_str()).collect();
        self.annotate(&names.join(","));
    }

    fn extra_envs_of(&mut self, component: &str, of_reach: &[&str], wanted: &[Value]) {
        let configuration = &self.spec["clusterConfiguration"];
        let list = &configuration[component]["extraEnvs"];
        let field = format!("{}.clusterConfiguration.{component}.extraEnvs", self.field);
        let pointer = format!("/{}", field.replace('.', "/"));
        if !list.is_null() && !list.is_array() {
            return self.wrong(&field, "a list", list);
        }
        let mut missing = wanted.to_vec();
        let mut changes = Vec::new();
        for (index, item) in list.as_array().map_or(&[][..], Vec::as_slice).iter().enumerate().rev() {
            let name = item["name"].as_str().unwrap_or_default();
            let new = missing.iter().position(|new| new["name"] == name).map(|at| missing.remove(at));
            match new {
                Some(new) if new == *item => {}
                Some(_) if !of_reach.contains(&name) => self.errors.push(PatchError::Taken {
                    field: format!("{field}[{index}]"),
                    what: name.to_owned(),
                    option: "--static-pods explicit",
                }),
                Some(new) => changes.push(Operation::replace(format!("{pointer}/{index}"), new)),
                None if of_reach.contains(&name) => {
                    changes.push(Operation::remove(format!("{pointer}/{index}")));
                }
                None => {}
            }
        }
        self.operations.extend(changes);
        if missing.is_empty() {
            return;
        }
        if list.is_array() {
            self.operations
                .extend(missing.into_iter().map(|item| Operation::add(format!("{pointer}/-"), item)));
            return;
        }
        // The operations before may have made the configuration.
        let made = format!("/{}/clusterConfiguration", self.field.replace('.', "/"));
        let is_made = self.operations.iter().any(|operation| operation.path() == made);
        if configuration.is_null() && !is_made {
            let value = json!({component: {"extraEnvs": missing}});
            self.operations.push(Operation::add(made, value));
        } else if configuration[component].is_null() {
            let value = json!({"extraEnvs": missing});
            self.operations.push(Operation::add(format!("{made}/{component}"), value));
        } else {
            self.operations.push(Operation::add(pointer, missing.into()));
        }
    }

    /// Says which variables of `extraEnvs` are reach's, outside of what machines are made of.
    fn annotate(&mut self, names: &str) {
        let metadata = &self.object["metadata"];
        let path = format!("/metadata/annotations/{}", EXTRA_ENVS.replace('/', "~1"));
        let now = metadata["annotations"][EXTRA_ENVS].as_str();
        if names.is_empty() {
            if now.is_some() {
                self.operations.push(Operation::remove(path));
            }
        } else if metadata.is_null() {
            let value = json!({"annotations": {EXTRA_ENVS: names}});
            self.operations.push(Operation::add("/metadata", value));
        } else if metadata["annotations"].is_null() {
            let value = json!({EXTRA_ENVS: names});
            self.operations.push(Operation::add("/metadata/annotations", value));
        } else if now != Some(names) {
            self.operations.push(Operation::add(path, names.into()));
        }
    }
}

// === impl PatchError ===

impl PatchError {
    /// The same where no Secret can be referred to.
    #[must_use]
    pub(super) fn without_secret(self) -> Self {
        match self {
            Self::TooLong(error) => Self::TooLong(error.without_secret()),
            other => other,
        }
    }

    /// A field of another type.
    pub(super) fn wrong(field: &str, expected: &'static str, found: &Value) -> Self {
        Self::Type { field: field.to_owned(), expected, found: kind(found) }
    }
}

/// Whether an item of `files` is one that reach has written.
#[must_use]
pub fn is_of_reach(item: &Value, path: &str) -> bool {
    if !node::is_path_of_reach(path) {
        return false;
    }
    let from = &item["contentFrom"]["secret"];
    if from.is_object() {
        return from["key"] == node::name(path);
    }
    content(item).is_some_and(|content| content.lines().next() == Some(MARK))
}

/// What is in an item of `files`, decoded; `None` when it is not text, or not there.
#[must_use]
pub fn content(item: &Value) -> Option<String> {
    let text = item["content"].as_str()?;
    let base64 = || base64_simd::STANDARD.decode_to_vec(text.trim()).ok();
    match item["encoding"].as_str().unwrap_or_default() {
        "" => Some(text.to_owned()),
        "base64" => String::from_utf8(base64()?).ok(),
        "gzip+base64" => {
            let mut content = String::new();
            // What is ours is short; nobody else's file may take more memory than one of a manifest can.
            GzDecoder::new(&*base64()?).take(LONGEST_UNPACKED).read_to_string(&mut content).ok()?;
            Some(content)
        }
        _ => None,
    }
}

/// As much of a compressed file as is read, in bytes.
const LONGEST_UNPACKED: u64 = 1024 * 1024;

/// The option that asks for a file.
fn option(path: &str) -> &'static str {
    match path {
        path if path.ends_with("/10-reach-proxy.conf") => "its service of --unit",
        path if path == Target::Profile.path() => "--os profile",
        path if path == Target::Apt.path() => "--os apt",
        path if path == Target::Sudoers.path() => "--os sudoers",
        _ => "reach host patch",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests;
