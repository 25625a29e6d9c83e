//! `reach host patch`: manifests of Cluster API with what hosts get.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::Value;

use super::stream::{Place, Stream, StreamInput};
use super::{HostInput, HostPresets, Known};
use crate::cli::output::{self, Form, append};
use crate::cli::{self, Failure, shared_out};
use crate::host::class;
use crate::host::cluster_api::{CORE, Group, Object, check};
use crate::host::node::{Node, StaticPods, System};
use crate::host::patch::{self, PatchError, Wanted, is_secret_of_reach};
use crate::host::render::LONGEST_USER_DATA;
use crate::host::targets::{LONGEST_LINE, MARK, Target};
use crate::host::values::Setting;
use crate::inject::preset::ProxyVariable;
use crate::manifest::{self, Operation};

/// Give nodes of Cluster API the proxy of presets
///
/// KubeadmControlPlane, KubeadmControlPlaneTemplate, KubeadmConfigTemplate and KubeadmConfig get files and a command, a
/// ClusterClass a patch that makes them for each of its clusters. no_proxy gets what the manifests say of the cluster's
/// network (see reach host no-proxy). Manifests are edited as text: all else stays to the letter, and patching again
/// changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach host patch -f cluster.yaml --presets presets/ | kubectl apply -f -
  clusterctl generate cluster web ... | reach host patch -f - --presets presets/
  reach host patch -f cluster.yaml --presets presets/ -o diff
  reach host patch -f cluster.yaml --presets presets/ --env-secret web-proxy-env

Exit code with -o diff: 0 when nothing changes, 1 when something does, 2 on errors.")]
pub struct Arguments {
    #[command(flatten)]
    stream: StreamInput,
    #[command(flatten)]
    input: HostInput,
    /// Keep the variables in a Secret of this name, which is put at the end of the stream; {cluster} stands for the name of the cluster
    #[arg(long, value_name = "NAME")]
    env_secret: Option<String>,
    /// Form of the output [default: that of each document]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// All documents as YAML
    Yaml,
    /// The object as JSON; several as one List
    Json,
    /// What changes, as a unified diff
    Diff,
}

/// What is to be done, while it is found.
struct Work<'a> {
    stream: &'a Stream<'a>,
    presets: &'a HostPresets,
    env_secret: Option<&'a str>,
    /// The operations of each document.
    edits: BTreeMap<(usize, usize), Vec<Operation>>,
    /// Secrets by namespace and name.
    secrets: BTreeMap<(String, String), Value>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Arguments {
    /// Whether exit code 1 says that something differs.
    pub fn is_diff(&self) -> bool {
        self.output == Some(Output::Diff)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.stream.files()?;
    let stream = arguments.stream.facts().read(&files)?;
    let mut presets = arguments.input.load()?;
    presets.take_secrets(stream.manifests.objects())?;
    let mut work = Work {
        stream: &stream,
        presets: &presets,
        env_secret: arguments.env_secret.as_deref(),
        edits: BTreeMap::new(),
        secrets: BTreeMap::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    work.versions();
    for group in &stream.groups {
        work.group(group);
    }
    let (texts, changed) = work.texts();
    if !work.errors.is_empty() {
        return Err(Failure::Messages(work.errors));
    }
    // What is wrong with presets, or with an object that several clusters have, is said once.
    let mut said = BTreeSet::new();
    work.warnings.retain(|warning| said.insert(warning.clone()));
    cli::input::complain_all(&work.warnings);
    let form = match arguments.output {
        None => Form::Same,
        Some(Output::Yaml) => Form::Yaml,
        Some(Output::Json) => Form::Json,
        Some(Output::Diff) => Form::Diff { what: "patched" },
    };
    cli::print(&output::write(form, &files, &texts))?;
    Ok(ExitCode::from(u8::from(arguments.is_diff() && changed)))
}

impl Work<'_> {
    /// Kinds that are patched have to be of a version that is known.
    fn versions(&mut self) {
        for object in self.stream.manifests.objects() {
            match object.unpatchable() {
                None => {}
                Some((finding, true)) => self.warnings.push(finding.to_string()),
                Some((finding, false)) => self.errors.push(finding.to_string()),
            }
        }
    }

    fn group(&mut self, group: &Group) {
        let objects = self.stream.manifests.objects();
        let of_class = group.class.filter(|_| group.cluster.is_none());
        self.warnings.extend(group.warnings().map(ToString::to_string));
        let namespace = self.stream.namespace(group);
        let known = Known::of(group, of_class.is_some());
        let values = match self.presets.values_of(&known, namespace) {
            Ok(values) => values,
            Err(errors) => {
                let name = self.stream.name(group);
                return self.errors.extend(errors.iter().map(|error| format!("{name}: {error}")));
            }
        };
        self.warnings.extend(values.warnings());
        let static_pods = self.presets.options.static_pods;
        let found = check(&self.stream.manifests, group, &values.settings, static_pods);
        self.warnings.extend(found.iter().map(ToString::to_string));
        if group.configurations.is_empty() && of_class.is_none() {
            return;
        }
        self.credentials(group, of_class.is_some(), &values.settings);
        let for_control_plane = match Node::new(&values.settings, &self.presets.options) {
            Ok(node) => node,
            Err(errors) => return self.errors.extend(errors.iter().map(ToString::to_string)),
        };
        if for_control_plane.files.is_empty() {
            self.warnings.push(format!(
                "nothing to add: {}; files of reach of an earlier time are taken away",
                self.presets.have_no_proxy()
            ));
        }
        self.room(group, &values.settings, &known);
        let for_workers = for_control_plane.for_worker();
        let secret = match self.secret(group, namespace, &for_control_plane, &known) {
            Ok(secret) => secret,
            Err(errors) => return self.errors.extend(errors),
        };
        let explicit = static_pods == StaticPods::Explicit;
        for &index in &group.configurations {
            let object = &objects[index];
            let is_control_plane = object.is_control_plane();
            let nothing = Node::default();
            // What a class makes of its templates is in its patch, and nothing of reach in them.
            let (node, extra_envs) = match of_class {
                Some(_) => (&nothing, &[][..]),
                None if is_control_plane => {
                    (&for_control_plane, if explicit { &values.settings[..] } else { &[] })
                }
                None => (&for_workers, &[][..]),
            };
            let wanted = Wanted { node, secret: secret.as_deref(), variables: &known.variables, extra_envs };
            self.object(index, group.class.is_none(), &wanted);
        }
        if let Some(index) = of_class {
            let wanted = Wanted {
                node: &for_control_plane,
                secret: None,
                variables: &known.variables,
                extra_envs: &[],
            };
            self.class(index, group, &wanted);
        }
    }

    /// What becomes of a line in `/etc/environment` that each cluster, or clusterctl, makes longer.
    fn room(&mut self, group: &Group, settings: &[Setting], known: &Known) {
        if !self.presets.options.system.contains(&System::Environment) {
            return;
        }
        let Some(list) = settings.iter().find(|setting| setting.proxy == ProxyVariable::No) else { return };
        let variables = (0..known.variables.len()).map(|number| (patch::placeholder(number), LONGEST_HOST));
        let room = |bytes: usize, (placeholder, room): (String, usize)| {
            let found = list.value.matches(&placeholder).count();
            bytes - found * placeholder.len() + found * room
        };
        let line = "NO_PROXY=".len() + list.value.len();
        let longest =
            variables.chain(std::iter::once((class::PLACEHOLDER.to_owned(), OF_A_CLUSTER))).fold(line, room);
        if longest > LONGEST_LINE && longest != line {
            self.warnings.push(format!(
                "{}: no_proxy can have {longest} bytes in {} with what clusters or variables add, of which not every pam_env reads more than {LONGEST_LINE}; hosts on which it has more get none of it there: write a name above many names and a network for many addresses, or --os profile instead of environment",
                self.stream.name(group),
                Target::EtcEnvironment.path()
            ));
        }
    }

    /// Values of Secrets stay in Secrets; other credentials are told of, without being shown.
    fn credentials(&mut self, group: &Group, is_class: bool, settings: &[Setting]) {
        let name = self.stream.name(group);
        if is_class && self.env_secret.is_some() {
            self.errors.push(format!(
                "{name}: --env-secret: a class makes a list for each of its clusters, which no Secret can hold: leave --env-secret out for it"
            ));
        }
        let explicit = self.presets.options.static_pods == StaticPods::Explicit;
        for setting in settings {
            let variable = setting.proxy.lower();
            if is_class && setting.secret {
                self.errors.push(format!(
                    "{name}: {variable} comes from a Secret, and would stand in the class, whose patches cannot refer to one: name presets without it with --preset, or write clusters without a class"
                ));
            } else if is_class && setting.has_credentials() {
                self.warnings.push(format!(
                    "{name}: {variable} has a user or a password in it, which everybody can read who can read the class, and a class cannot refer to a Secret: use a proxy that wants none from hosts, or clusters without a class"
                ));
            } else if setting.secret && (self.env_secret.is_none() || explicit) {
                let instead = if explicit { "--static-pods inherit" } else { "--env-secret NAME" };
                self.errors.push(format!(
                    "{name}: {variable} comes from a Secret, and would stand in the manifest: write {instead}"
                ));
            } else if self.env_secret.is_none() && setting.has_credentials() {
                self.warnings.push(format!(
                    "{name}: {variable} has a user or a password in it, which everybody can read who can read the manifest: keep it in a Secret with --env-secret NAME"
                ));
            }
        }
    }

    /// The name of the Secret of a group, which is made.
    fn secret(
        &mut self,
        group: &Group,
        namespace: &str,
        node: &Node,
        known: &Known,
    ) -> Result<Option<String>, Vec<String>> {
        let Some(given) = self.env_secret else { return Ok(None) };
        if node.files.is_empty() || group.configurations.is_empty() {
            return Ok(None);
        }
        let objects = self.stream.manifests.objects();
        let cluster = group.cluster.map_or("", |index| objects[index].name.as_str());
        let name = given.replace("{cluster}", cluster);
        if !patch::is_secret_name(&name) {
            let is_nobody = cluster.is_empty() && name != *given;
            let why =
                if is_nobody { ", since no Cluster is there that {cluster} could stand for" } else { "" };
            return Err(vec![format!(
                "{}: --env-secret {name}: not a name of a Secret{why}: write lower-case letters, digits, '-' and '.', for example shop-proxy-env",
                self.stream.name(group)
            )]);
        }
        if let Some(of) =
            patch::secret_of_cluster_api(&name).filter(|of| self.is_cluster(of, cluster, namespace))
        {
            return Err(vec![format!(
                "{}: --env-secret {name}: a Secret of this name is Cluster API's own for the cluster {of}, which would not start: write another name, such as {{cluster}}-proxy-env",
                self.stream.name(group)
            )]);
        }
        let object = patch::secret(node, &name, namespace, &known.variables)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let is_it = |object: &&Object| {
            object.group.is_empty()
                && object.kind == "Secret"
                && object.name == name
                && object.namespace == namespace
        };
        if let Some(own) = objects.iter().find(is_it).filter(|own| !is_secret_of_reach(&own.value)) {
            return Err(vec![format!(
                "{}, {own}: is there already and not written by reach: give another name with --env-secret",
                own.source
            )]);
        }
        let key = (namespace.to_owned(), name.clone());
        match self.secrets.insert(key, object.clone()) {
            Some(other) if other != object => Err(vec![format!(
                "{}: --env-secret {name}: another cluster of this namespace has other entries in no_proxy: write --env-secret '{{cluster}}-proxy-env' for a Secret of each",
                self.stream.name(group)
            )]),
            _ => Ok(Some(name)),
        }
    }

    /// Whether it is the name of the group's cluster, or of another one of the namespace.
    fn is_cluster(&self, name: &str, own: &str, namespace: &str) -> bool {
        name == own
            || self.stream.manifests.objects().iter().any(|object| {
                object.group == CORE
                    && object.kind == "Cluster"
                    && object.name == name
                    && object.namespace == namespace
            })
    }

    fn object(&mut self, index: usize, group_has_no_class: bool, wanted: &Wanted<'_>) {
        let object = &self.stream.manifests.objects()[index];
        if object.kind == "KubeadmControlPlaneTemplate" && group_has_no_class && !wanted.node.files.is_empty()
        {
            self.warnings.push(format!(
                "{}, {object}: its ClusterClass is not in the stream; if a patch of the class empties `files`, as those of the vSphere provider do, nothing of reach is left: give the class too, which then gets a patch; where the template is there already, Cluster API takes no change of it: give it another name",
                object.source
            ));
        }
        // What is said of other versions has been said.
        let Ok(Some(field)) = object.patchable() else { return };
        match patch::patch(&object.value, field, wanted) {
            Ok(operations) => {
                self.edit(index, operations);
                self.size(object, wanted);
            }
            Err(errors) => self.fail(object, &errors),
        }
    }

    fn class(&mut self, index: usize, group: &Group, wanted: &Wanted<'_>) {
        let objects = self.stream.manifests.objects();
        let object = &objects[index];
        let template = |reference: &class::Reference| {
            let is_it = |object: &&Object| object.kind == reference.kind && object.name == reference.name;
            let of_group = group.configurations.iter().map(|&index| &objects[index]);
            of_group.into_iter().find(is_it).map(|object| &object.value)
        };
        match class::patch(&object.value, template, wanted) {
            Ok(operations) => {
                if !wanted.node.files.is_empty() {
                    if self.presets.options.static_pods == StaticPods::Explicit {
                        self.warnings.push(format!(
                            "{}, {object}: a patch of a class writes no extraEnvs, so with --static-pods explicit static pods of its clusters get no proxy: write --static-pods inherit",
                            object.source
                        ));
                    }
                    let doubts = class::doubts(&object.value, template);
                    let place = format!("{}, {object}", object.source);
                    self.warnings.extend(doubts.iter().map(|doubt| format!("{place}: {doubt}")));
                }
                if !wanted.node.files.is_empty() && !class::knows_endpoint(&object.value) {
                    self.warnings.push(format!(
                        "{}, {object}: the class has no variable controlPlaneIpAddr, so the address of the API server is not in the list: write it, or its network, into a preset",
                        object.source
                    ));
                }
                self.edit(index, operations);
            }
            Err(errors) => self.fail(object, &errors),
        }
    }

    fn fail(&mut self, object: &Object, errors: &[PatchError]) {
        let place = format!("{}, {object}", object.source);
        self.errors.extend(errors.iter().map(|error| format!("{place}: {error}")));
    }

    fn edit(&mut self, index: usize, operations: Vec<Operation>) {
        if operations.is_empty() {
            return;
        }
        let Place { file, document, pointer } = &self.stream.places[index];
        let operations = operations.into_iter().map(|operation| operation.under(pointer));
        self.edits.entry((*file, *document)).or_default().extend(operations);
    }

    /// vSphere hands at most so much user data to a machine, all of it in base64.
    fn size(&mut self, object: &Object, wanted: &Wanted<'_>) {
        let own = object.configuration().unwrap_or_default();
        let spec = own.split('.').fold(&object.value, |value, name| &value[name]);
        let is_of_reach = |file: &&Value| patch::is_of_reach(file, file["path"].as_str().unwrap_or_default());
        let files = spec["files"].as_array().into_iter().flatten();
        let replaced: usize = files.filter(is_of_reach).map(|file| file.to_string().len()).sum();
        let ours: usize = wanted.node.files.iter().map(|file| file.content.len().div_ceil(3) * 4).sum();
        let user_data = (spec.to_string().len() - replaced + ours + OF_CLUSTER_API).div_ceil(3) * 4;
        if user_data > LONGEST_USER_DATA {
            let largest = wanted.node.files.iter().max_by_key(|file| file.content.len());
            self.warnings.push(format!(
                "{}, {object}: its user data will have about {user_data} bytes, of which vSphere takes {LONGEST_USER_DATA}: the largest file of reach is {} with {} bytes; write a name above many names or a network for many addresses in no_proxy",
                object.source,
                largest.map_or("none", |file| &file.path),
                largest.map_or(0, |file| file.content.len()),
            ));
        }
    }

    /// The texts of the files, and whether one has changed.
    fn texts(&mut self) -> (Vec<String>, bool) {
        let objects = self.stream.manifests.objects();
        // Secrets of an earlier time take their new content where they stand, or go. Items of a List go from its end, so that
        // the others stay where they are.
        let mut replaced: BTreeMap<(usize, usize), Option<Value>> = BTreeMap::new();
        for (index, (object, place)) in objects.iter().zip(&self.stream.places).enumerate().rev() {
            if !is_secret_of_reach(&object.value) {
                continue;
            }
            let new = self.secrets.remove(&(object.namespace.clone(), object.name.clone()));
            if new.as_ref() == Some(&object.value) {
                continue;
            }
            if place.pointer.is_empty() {
                replaced.insert((place.file, place.document), new);
            } else {
                self.edit(index, vec![new.map_or(Operation::remove(""), |new| Operation::replace("", new))]);
            }
        }
        let mut changed = !self.secrets.is_empty() || !replaced.is_empty();
        let mut texts = Vec::new();
        for (file, documents) in self.stream.documents.iter().enumerate() {
            let numbered: Vec<_> = documents.iter().enumerate().collect();
            let edited = shared_out(numbered.clone(), |(number, document)| {
                self.edits.get(&(file, number)).map(|operations| document.edit(operations)).transpose()
            });
            let json = output::is_json(documents);
            let mut text = String::new();
            for ((number, document), edited) in numbered.iter().zip(edited) {
                let source = || source(self.stream, file, *number);
                match (replaced.remove(&(file, *number)), edited) {
                    (Some(new), _) => {
                        if let Some(new) = new {
                            append(&mut text, &secret_text(&new, json), json);
                        }
                    }
                    (None, Ok(None)) => text.push_str(document.text),
                    (None, Ok(Some(edited))) => {
                        changed = true;
                        if edited.reemitted {
                            self.warnings.push(format!(
                                "{}: aliases or tags stand where it is patched, so it is written anew, without its comments",
                                source()
                            ));
                        }
                        text.push_str(&edited.text);
                    }
                    (None, Err(error)) => self.errors.push(format!("{}: {error}", source())),
                }
            }
            texts.push(text);
        }
        if let (Some(last), Some(documents)) = (texts.last_mut(), self.stream.documents.last()) {
            let json = output::is_json(documents);
            for secret in self.secrets.values() {
                append(last, &secret_text(secret, json), json);
            }
        }
        (texts, changed)
    }
}

/// What Cluster API puts into user data besides, in bytes: the keys and certificates of a control plane, and kubeadm's
/// configuration.
const OF_CLUSTER_API: usize = 16 * 1024;

/// Longest name of a host, in bytes, for which a variable of clusterctl can stand.
const LONGEST_HOST: usize = 253;

/// What a cluster of a class adds to a list, in bytes: two networks of Services with the first address of each and two of
/// pods, in IPv4 and IPv6, its domain, the address of its API server and the name of its vCenter.
const OF_A_CLUSTER: usize = 512;

/// How messages name a document.
fn source(stream: &Stream<'_>, file: usize, document: usize) -> String {
    let is_it = |place: &Place| place.file == file && place.document == document;
    let found = stream.places.iter().position(is_it);
    found.map_or_else(String::new, |index| {
        let object = &stream.manifests.objects()[index];
        format!("{}, {object}", object.source)
    })
}

fn secret_text(secret: &Value, json: bool) -> String {
    if json { format!("{secret:#}\n") } else { format!("---\n{MARK}\n{}", manifest::to_yaml(secret)) }
}
