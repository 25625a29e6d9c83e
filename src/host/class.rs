//! The patch of a `ClusterClass`, by which each cluster of the class gets its own list.
//!
//! Files in the templates of a class are not enough: one class serves clusters with different networks, and the classes
//! that CAPV ships begin with a patch that empties `files`. So there is nothing in the templates, and one patch at the end
//! of the class's `spec.patches`, an inline one (Cluster API, "Writing a ClusterClass", "ClusterClass with patches"): a Go
//! template with the functions of sprig, which knows the cluster by its builtin variables and those of the class.

use serde_json::{Value, json};

use super::node::File;
use super::patch::{PatchError, Wanted, fill, filled};
use super::render::{self, Bootstrap, Content, LONGEST_CONTENT, TooLong};
use super::targets::{MARK, Target};
use crate::manifest::Operation;

/// Its name.
pub const NAME: &str = "reach-proxy";

/// What stands in a file for the entries that only the cluster knows, until Cluster API makes the file.
pub const PLACEHOLDER: &str = "reach-cluster.invalid";

/// The templates of a class that have a `KubeadmConfigSpec`.
const KINDS: [(&str, &str); 2] = [
    ("KubeadmControlPlaneTemplate", "spec/template/spec/kubeadmConfigSpec"),
    ("KubeadmConfigTemplate", "spec/template/spec"),
];

/// Collects what the cluster knows of itself, in the order in which a list of reach has it. Networks that it does not
/// state are kubeadm's defaults.
const ENTRIES: &str = r#"{{- $services := list "10.96.0.0/12" }}{{ $pods := list }}{{ $domain := "cluster.local" }}
{{- with .builtin.cluster.network }}
{{- with .services }}{{ $services = . }}{{ end }}
{{- with .pods }}{{ $pods = . }}{{ end }}
{{- with .serviceDomain }}{{ $domain = . }}{{ end }}
{{- end }}
{{- $entries := list (print "." $domain) $domain }}
{{- range $services }}
{{- $address := first (splitList "/" .) }}{{ $octets := splitList "." $address }}
{{- if eq (len $octets) 4 }}
{{- $entries = append $entries (printf "%s.%s.%s.%d" (index $octets 0) (index $octets 1) (index $octets 2) (add1 (atoi (index $octets 3)))) }}
{{- else if hasSuffix "::" $address }}{{ $entries = append $entries (print $address "1") }}{{ end }}
{{- $entries = append $entries . }}
{{- end }}
{{- range $pods }}{{ $entries = append $entries . }}{{ end }}
"#;

/// Variables of classes that hold an address, as those of CAPV do, and the entry they give.
const VARIABLES: [(&str, &str); 2] = [
    ("controlPlaneIpAddr", "{{- with .controlPlaneIpAddr }}{{ $entries = append $entries . }}{{ end }}\n"),
    (
        "infraServer",
        r#"{{- with .infraServer }}{{ with .url }}{{ $entries = append $entries (regexFind "^[^:/]+" (regexReplaceAll "^[a-z]+://" . "")) }}{{ end }}{{ end }}
"#,
    ),
];

/// A template that a class refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// What it is for.
    pub place: Place,
}

/// What a template of a class is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The control plane.
    ControlPlane,
    /// MachineDeployments of this class.
    MachineDeployments(String),
    /// MachinePools of this class.
    MachinePools(String),
}

/// The templates with a `KubeadmConfigSpec` that a class refers to, in `v1beta1` and `v1beta2`.
#[must_use]
pub fn references(class: &Value) -> Vec<Reference> {
    let spec = &class["spec"];
    let reference = |holder: &Value, place: Place| {
        let found = [&holder["templateRef"], &holder["ref"]].into_iter().find(|found| found.is_object())?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        let reference =
            Reference { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), place };
        KINDS.iter().any(|(kind, _)| *kind == reference.kind).then_some(reference)
    };
    let mut references: Vec<Reference> =
        reference(&spec["controlPlane"], Place::ControlPlane).into_iter().collect();
    for (list, place) in [
        ("machineDeployments", Place::MachineDeployments as fn(String) -> Place),
        ("machinePools", Place::MachinePools),
    ] {
        for class in spec["workers"][list].as_array().into_iter().flatten() {
            let holder = [&class["bootstrap"], &class["template"]["bootstrap"]];
            let Some(holder) = holder.into_iter().find(|holder| holder.is_object()) else { continue };
            let name = class["class"].as_str().unwrap_or_default().to_owned();
            references.extend(reference(holder, place(name)));
        }
    }
    references
}

/// The changes of a class. `template` gives the object of a reference, if it is among the inputs: whether it has lists that
/// a patch can add to.
///
/// # Errors
/// Everything that is in the way.
pub fn patch<'t>(
    class: &Value,
    template: impl Fn(&Reference) -> Option<&'t Value>,
    wanted: &Wanted<'_>,
) -> Result<Vec<Operation>, Vec<PatchError>> {
    let patches = &class["spec"]["patches"];
    let list: &[Value] = match patches {
        Value::Null => &[],
        Value::Array(list) => list,
        other => {
            return Err(vec![PatchError::wrong("spec.patches", "a list", other)]);
        }
    };
    let own = list.iter().position(|patch| patch["name"] == NAME);
    if let Some(index) = own
        && list[index]["description"] != MARK.trim_start_matches("# ")
    {
        return Err(vec![PatchError::Taken {
            field: format!("spec.patches[{index}]"),
            what: format!("the patch {NAME}"),
            option: "this class",
        }]);
    }
    if wanted.node.files.is_empty() {
        let remove = |index| Operation::remove(format!("/spec/patches/{index}"));
        return Ok(own.map(remove).into_iter().collect());
    }
    let before = &list[..own.unwrap_or(list.len())];
    let files = files(class, wanted)?;
    let mut definitions = Vec::new();
    for reference in references(class) {
        let path = KINDS.iter().find(|(kind, _)| *kind == reference.kind).map_or("", |(_, path)| path);
        let template = template(&reference);
        let mut json_patches = Vec::new();
        let node = match reference.place {
            Place::ControlPlane => wanted.node.clone(),
            Place::MachineDeployments(_) | Place::MachinePools(_) => wanted.node.for_worker(),
        };
        // Commands go in front of those of others, so the last one first.
        let commands: Vec<Item> =
            node.commands.iter().rev().map(|command| Item::Value((*command).into())).collect();
        for (list, place, items) in [("files", "-", &files), ("preKubeadmCommands", "0", &commands)] {
            let pointer = format!("/{path}/{list}");
            if matches!(listed(template, &pointer, before, &reference), Listed::No) {
                json_patches.push(json!({"op": "add", "path": pointer, "value": []}));
            }
            for item in items {
                let mut operation = json!({"op": "add", "path": format!("{pointer}/{place}")});
                match item {
                    Item::Value(value) => operation["value"] = value.clone(),
                    Item::Template(text) => operation["valueFrom"] = json!({"template": text}),
                }
                json_patches.push(operation);
            }
        }
        let names = |name: &String| json!({"names": [name]});
        let resources = match &reference.place {
            Place::ControlPlane => json!({"controlPlane": true}),
            Place::MachineDeployments(name) => json!({"machineDeploymentClass": names(name)}),
            Place::MachinePools(name) => json!({"machinePoolClass": names(name)}),
        };
        definitions.push(json!({
            "selector": {
                "apiVersion": reference.api_version,
                "kind": reference.kind,
                "matchResources": resources,
            },
            "jsonPatches": json_patches,
        }));
    }
    if definitions.is_empty() {
        return Ok(Vec::new());
    }
    let new = json!({
        "name": NAME,
        "description": MARK.trim_start_matches("# "),
        "definitions": definitions,
    });
    Ok(match own {
        Some(index) if list[index] == new => Vec::new(),
        Some(index) => vec![Operation::replace(format!("/spec/patches/{index}"), new)],
        None if patches.is_array() => vec![Operation::add("/spec/patches/-", new)],
        None => vec![Operation::add("/spec/patches", json!([new]))],
    })
}

/// A patch that may or may not apply makes a list, or takes it away: nobody can say whether ours has to make it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the patch {patch} has enabledIf and decides whether there is a list {list} of {kind} {name}; ours adds to it, and where it is missing, Cluster API reconciles no cluster of the class: in front of {patch}, write a patch without enabledIf that adds the empty list"
)]
pub struct Doubt {
    /// The patch.
    pub patch: String,
    /// Where the list is in the template.
    pub list: String,
    /// The kind of the template.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The lists of which nobody knows whether they are there when the patch applies. The patch takes them for there: making one
/// anew could take away what is in it, and that nobody would be told.
pub fn doubts<'t>(class: &Value, template: impl Fn(&Reference) -> Option<&'t Value>) -> Vec<Doubt> {
    let list = class["spec"]["patches"].as_array().map_or(&[][..], Vec::as_slice);
    let own = list.iter().position(|patch| patch["name"] == NAME);
    let before = &list[..own.unwrap_or(list.len())];
    let mut doubts = Vec::new();
    for reference in references(class) {
        let Some((_, path)) = KINDS.iter().find(|(kind, _)| *kind == reference.kind) else { continue };
        for name in ["files", "preKubeadmCommands"] {
            let pointer = format!("/{path}/{name}");
            let doubt = |patch: &Value| Doubt {
                patch: patch["name"].as_str().unwrap_or_default().to_owned(),
                list: pointer.clone(),
                kind: reference.kind.clone(),
                name: reference.name.clone(),
            };
            if let Listed::Perhaps(patch) = listed(template(&reference), &pointer, before, &reference) {
                doubts.push(doubt(patch));
            }
        }
    }
    doubts.dedup();
    doubts
}

/// Whether a list is there when the patch applies.
enum Listed<'c> {
    Yes,
    No,
    /// If this patch is enabled, or if it is not.
    Perhaps(&'c Value),
}

/// A list is in the template, or made by earlier patches that Cluster API applies to it. A template that is not among the
/// inputs is taken for one that has it, because making it anew would take away what is in it.
fn listed<'c>(
    template: Option<&Value>,
    pointer: &str,
    before: &'c [Value],
    reference: &Reference,
) -> Listed<'c> {
    let is_in = template.is_none_or(|template| template.pointer(pointer).is_some_and(Value::is_array));
    let mut found = if is_in { Listed::Yes } else { Listed::No };
    for patch in before {
        let definitions = patch["definitions"].as_array().into_iter().flatten();
        let operations = definitions
            .filter(|definition| covers(&definition["selector"], reference))
            .flat_map(|definition| definition["jsonPatches"].as_array().into_iter().flatten());
        let mut changes = operations.filter_map(|operation| leaves(operation, pointer));
        let Some(is_there) = changes.next_back() else {
            continue;
        };
        let is_sure = patch["enabledIf"].as_str().is_none_or(str::is_empty);
        found = match (found, is_there) {
            (Listed::Yes, true) => Listed::Yes,
            (Listed::No, false) => Listed::No,
            (_, true) if is_sure => Listed::Yes,
            (_, false) if is_sure => Listed::No,
            _ => Listed::Perhaps(patch),
        };
    }
    found
}

/// Whether a list is there behind an operation; `None` if the operation says nothing of it.
fn leaves(operation: &Value, pointer: &str) -> Option<bool> {
    let path = operation["path"].as_str()?;
    if path == pointer {
        return Some(operation["op"] != "remove");
    }
    if path.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/')) {
        // Otherwise it would fail by itself.
        return Some(true);
    }
    let rest = pointer.strip_prefix(path).filter(|rest| rest.starts_with('/'))?;
    match operation.get("value") {
        Some(value) => Some(value.pointer(rest).is_some_and(Value::is_array)),
        None => (operation["op"] == "remove").then_some(false),
    }
}

/// Whether Cluster API applies what is behind a selector to a template (`matchesSelector` of its generator of patches).
fn covers(selector: &Value, reference: &Reference) -> bool {
    let resources = &selector["matchResources"];
    let names = |of: &str, class: &str| {
        let names = resources[of]["names"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|name| {
            name == class
                || name.strip_prefix('*').is_some_and(|end| class.ends_with(end))
                || name.strip_suffix('*').is_some_and(|start| class.starts_with(start))
        })
    };
    selector["apiVersion"] == *reference.api_version
        && selector["kind"] == *reference.kind
        && match &reference.place {
            Place::ControlPlane => resources["controlPlane"] == true,
            Place::MachineDeployments(class) => names("machineDeploymentClass", class),
            Place::MachinePools(class) => names("machinePoolClass", class),
        }
}

/// An item that a patch adds.
enum Item {
    Value(Value),
    /// A Go template that gives it.
    Template(String),
}

fn files(class: &Value, wanted: &Wanted<'_>) -> Result<Vec<Item>, Vec<PatchError>> {
    let mut items = Vec::new();
    let mut errors = Vec::new();
    for file in &wanted.node.files {
        match file_item(class, file, wanted.variables) {
            Ok(item) => items.push(item),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(items) } else { Err(errors) }
}

fn file_item(class: &Value, file: &File, variables: &[String]) -> Result<Item, PatchError> {
    let mut file = file.clone();
    if file.path == Target::Apt.path() {
        // A line for one host: it cannot become several.
        let lines = file.content.split_inclusive('\n').filter(|line| !line.contains(PLACEHOLDER));
        file.content = lines.collect();
    }
    if !file.content.contains(PLACEHOLDER) {
        let filled = filled(&file, variables)?;
        let content = if filled.content == file.content {
            render::content(&file, Bootstrap::Ignition)
                .map_err(|error| TooLong { form: UNCOMPRESSED, ..error.without_secret() })?
        } else {
            render::plain(&filled).map_err(TooLong::without_secret)?
        };
        return Ok(Item::Value(render::kubeadm_file(&file, content)));
    }
    let text = template(class, &file, variables);
    // What it becomes is as long, a little more than a third longer in base64.
    let longest = text.len().max(fill(&file.content, variables).len().div_ceil(3) * 4);
    if longest > LONGEST_CONTENT {
        return Err(TooLong::new(&file, longest, UNCOMPRESSED).without_secret().into());
    }
    Ok(Item::Template(text))
}

/// Whether a class says of each cluster where its API server is.
#[must_use]
pub fn knows_endpoint(class: &Value) -> bool {
    defines(class, VARIABLES[0].0)
}

fn defines(class: &Value, name: &str) -> bool {
    let mut variables = class["spec"]["variables"].as_array().into_iter().flatten();
    variables.any(|variable| variable["name"] == name)
}

/// Why a file of a class cannot be longer: a template cannot compress, and patches of a class know no Secret.
const UNCOMPRESSED: &str = "in a ClusterClass, where it cannot be compressed";

/// The Go template of a file: base64 is made by Cluster API, after clusterctl has filled in its variables. clusterctl would
/// also replace `$$` and `${` of values, so there they have another spelling of `$`.
fn template(class: &Value, file: &File, variables: &[String]) -> String {
    let mut text = ENTRIES.to_owned();
    for (_, entry) in VARIABLES.iter().filter(|(name, _)| defines(class, name)) {
        text.push_str(entry);
    }
    // An interpreted string of Go takes every escape of JSON that is written.
    let quoted = |text: &str| Value::from(text).to_string();
    let variables: Vec<String> =
        variables.iter().map(|variable| quoted(variable).trim_matches('"').to_owned()).collect();
    let content = fill(&quoted(&file.content).replace('$', "\\x24"), &variables);
    let expression =
        format!("{{{{ replace \"{PLACEHOLDER}\" (join \",\" (uniq $entries)) {content} | b64enc }}}}");
    let shape = render::kubeadm_file(file, Content { encoding: Some("base64"), text: String::new() });
    for (key, value) in shape.as_object().into_iter().flatten() {
        let value = if key == "content" { expression.clone() } else { value.to_string() };
        text.extend([key, ": ", &value, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::node::{Node, Options, System};
    use crate::host::patch::placeholder;
    use crate::host::values::Setting;
    use crate::host::variables::substitute;
    use crate::inject::preset::ProxyVariable;
    use crate::manifest;

    fn node() -> Node {
        let list = format!("localhost,10.9.8.7,{PLACEHOLDER}");
        let settings = [(ProxyVariable::Http, "http://p:1".to_owned()), (ProxyVariable::No, list)]
            .map(|(proxy, value)| Setting { proxy, value, secret: false });
        Node::new(&settings, &Options { system: vec![System::Apt], ..Options::default() }).unwrap()
    }

    fn class() -> Value {
        let reference =
            |kind: &str, name: &str| json!({"apiVersion": "g/v1beta2", "kind": kind, "name": name});
        json!({
            "kind": "ClusterClass",
            "spec": {
                "controlPlane": {"templateRef": reference("KubeadmControlPlaneTemplate", "cp")},
                "infrastructure": {"templateRef": reference("VSphereClusterTemplate", "infra")},
                "workers": {
                    "machineDeployments": [
                        {"class": "new", "bootstrap": {"templateRef": reference("KubeadmConfigTemplate", "w")}},
                        {"class": "old", "template": {"bootstrap": {"ref": reference("KubeadmConfigTemplate", "w")}}},
                    ],
                    "machinePools": [
                        {"class": "pool", "bootstrap": {"templateRef": reference("KubeadmConfigTemplate", "p")}},
                    ],
                },
                "variables": [{"name": "controlPlaneIpAddr"}, {"name": "sshKey"}],
            },
        })
    }

    fn patched(
        class: &Value,
        template: Option<&Value>,
        node: &Node,
    ) -> Result<Vec<Operation>, Vec<PatchError>> {
        patch(class, |_| template, &Wanted { node, secret: None, variables: &[], extra_envs: &[] })
    }

    fn only(operations: &[Operation]) -> &Value {
        match operations {
            [Operation::Add { value, .. } | Operation::Replace { value, .. }] => {
                value.as_array().map_or(value, |list| &list[0])
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_class_refers_to_templates_in_both_versions() {
        let found: Vec<(String, Place)> =
            references(&class()).into_iter().map(|found| (found.name, found.place)).collect();
        let expected = [
            ("cp".to_owned(), Place::ControlPlane),
            ("w".to_owned(), Place::MachineDeployments("new".to_owned())),
            ("w".to_owned(), Place::MachineDeployments("old".to_owned())),
            ("p".to_owned(), Place::MachinePools("pool".to_owned())),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn one_patch_gives_every_template_its_files_and_commands() {
        let node = node();
        let operations = patched(&class(), None, &node).unwrap();
        assert_eq!(operations[0].path(), "/spec/patches");
        let new = only(&operations);
        assert_eq!((&new["name"], new["definitions"].as_array().unwrap().len()), (&json!(NAME), 4));
        let first = &new["definitions"][0];
        assert_eq!(first["selector"]["matchResources"], json!({"controlPlane": true}));
        let paths: Vec<&str> = first["jsonPatches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|patch| patch["path"].as_str().unwrap())
            .collect();
        let files = "/spec/template/spec/kubeadmConfigSpec/files/-";
        let commands = "/spec/template/spec/kubeadmConfigSpec/preKubeadmCommands/0";
        assert_eq!(paths, [files, files, files, files, commands]);
        let text = first["jsonPatches"][0]["valueFrom"]["template"].as_str().unwrap();
        assert!(text.contains(".controlPlaneIpAddr") && !text.contains(".infraServer"));
        assert!(text.contains("path: \"/etc/reach/proxy.env\"\n"));
        // A line of apt is for one host.
        let apt = first["jsonPatches"][2]["value"]["content"].as_str().unwrap();
        let apt = String::from_utf8(base64_simd::STANDARD.decode_to_vec(apt).unwrap()).unwrap();
        assert!(apt.contains("10.9.8.7") && !apt.contains(PLACEHOLDER), "{apt}");

        // What is there stays, and is replaced where it changes.
        let mut with = class();
        with["spec"]["patches"] = json!([{"name": "createEmptyArrays"}, new]);
        assert_eq!(patched(&with, None, &node), Ok(Vec::new()));
        with["spec"]["variables"] = json!([]);
        assert_eq!(patched(&with, None, &node).unwrap()[0].path(), "/spec/patches/1");
        assert_eq!(patched(&with, None, &Node::default()), Ok(vec![Operation::remove("/spec/patches/1")]));
    }

    #[test]
    fn a_list_that_nobody_makes_is_made() {
        let has = json!({"spec": {"template": {"spec": {
            "kubeadmConfigSpec": {"files": [], "preKubeadmCommands": []}, "files": [], "preKubeadmCommands": [],
        }}}});
        let empty = json!({});
        let made = |class: &Value, template: &Value| {
            let operations = patched(class, Some(template), &node()).unwrap();
            let patches = only(&operations)["definitions"][0]["jsonPatches"].as_array().unwrap().clone();
            patches.iter().filter(|patch| patch["value"] == json!([])).count()
        };
        assert_eq!((made(&class(), &has), made(&class(), &empty)), (0, 2));
        let mut with = class();
        with["spec"]["patches"] =
            json!([makes("KubeadmControlPlaneTemplate", &json!({"controlPlane": true}))]);
        assert_eq!(made(&with, &empty), 1);
    }

    /// A patch that makes the list of files.
    fn makes(kind: &str, resources: &Value) -> Value {
        let path = KINDS.iter().find(|(known, _)| *known == kind).unwrap().1;
        json!({"name": "createEmptyArrays", "definitions": [{
            "selector": {"apiVersion": "g/v1beta2", "kind": kind, "matchResources": resources},
            "jsonPatches": [{"op": "add", "path": format!("/{path}/files"), "value": []}],
        }]})
    }

    /// Which definitions make the list of files, and what is in doubt.
    fn made(patches: Value) -> (Vec<bool>, Vec<Doubt>) {
        let mut class = class();
        class["spec"]["patches"] = patches;
        let empty = json!({});
        let operations = patched(&class, Some(&empty), &node()).unwrap();
        let is_made = |definition: &Value| {
            let patches = definition["jsonPatches"].as_array().unwrap();
            let list = |patch: &Value| patch["path"].as_str().unwrap().ends_with("/files");
            patches.iter().any(|patch| list(patch) && patch["value"] == json!([]))
        };
        let made = only(&operations)["definitions"].as_array().unwrap().iter().map(is_made).collect();
        (made, doubts(&class, |_| Some(&empty)))
    }

    #[test]
    fn a_list_is_there_if_an_earlier_patch_makes_it_for_the_same_machines() {
        // The control plane, the classes `new` and `old` of deployments, the class `pool` of pools.
        let (control_plane, worker) = ("KubeadmControlPlaneTemplate", "KubeadmConfigTemplate");
        let deployments = |name: &str| json!({"machineDeploymentClass": {"names": [name]}});
        let pools = |name: &str| json!({"machinePoolClass": {"names": ["x", name]}});
        for (kind, resources, expected) in [
            (control_plane, json!({"controlPlane": true}), [false, true, true, true]),
            (control_plane, json!({"controlPlane": false}), [true; 4]),
            (control_plane, json!({}), [true; 4]),
            (worker, json!({"controlPlane": true}), [true; 4]),
            (worker, deployments("new"), [true, false, true, true]),
            (worker, deployments("*"), [true, false, false, true]),
            (worker, deployments("o*"), [true, true, false, true]),
            (worker, deployments("*w"), [true, false, true, true]),
            (worker, deployments("other"), [true; 4]),
            (worker, pools("pool"), [true, true, true, false]),
            (worker, pools("*l"), [true, true, true, false]),
            (worker, pools("new"), [true; 4]),
        ] {
            assert_eq!(made(json!([makes(kind, &resources)])).0, expected, "{kind} {resources}");
        }
        let mut of_another_version = makes(worker, &deployments("*"));
        of_another_version["definitions"][0]["selector"]["apiVersion"] = "g/v1beta1".into();
        assert_eq!(made(json!([of_another_version])).0, [true; 4]);
    }

    #[test]
    fn a_list_that_a_patch_makes_only_sometimes_is_not_made_anew_and_is_told() {
        let kind = "KubeadmControlPlaneTemplate";
        let sure = makes(kind, &json!({"controlPlane": true}));
        let mut sometimes = sure.clone();
        sometimes["name"] = "sometimes".into();
        sometimes["enabledIf"] = "{{ .x }}".into();
        let (lists, doubts) = made(json!([sometimes]));
        assert_eq!(lists, [false, true, true, true]);
        let told: Vec<String> = doubts.iter().map(ToString::to_string).collect();
        let expected = "the patch sometimes has enabledIf and decides whether there is a list \
                        /spec/template/spec/kubeadmConfigSpec/files of KubeadmControlPlaneTemplate cp; ";
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
        // Another one settles it, in front or behind.
        for patches in [json!([sometimes, sure]), json!([sure, sometimes])] {
            assert_eq!(made(patches), (vec![false, true, true, true], Vec::new()));
        }
        // So does one that could not add to the list without it.
        let mut adds = sure.clone();
        adds["definitions"][0]["jsonPatches"][0]["path"] =
            "/spec/template/spec/kubeadmConfigSpec/files/-".into();
        assert_eq!(made(json!([sometimes, adds])).1, []);
        // What takes it away, with what it is in or by itself.
        let mut removes = sure.clone();
        removes["definitions"][0]["jsonPatches"][0]["op"] = "remove".into();
        assert_eq!(made(json!([sure, removes])).0, [true; 4]);
        let mut replaces = sure.clone();
        replaces["definitions"][0]["jsonPatches"][0]["path"] = "/spec/template/spec/kubeadmConfigSpec".into();
        replaces["definitions"][0]["jsonPatches"][0]["value"] = json!({"files": []});
        assert_eq!(made(json!([replaces])).0, [false, true, true, true]);
        replaces["definitions"][0]["jsonPatches"][0]["value"] = json!({"verbosity": 1});
        assert_eq!(made(json!([sure, replaces])).0, [true; 4]);
    }

    #[test]
    fn clusterctl_changes_nothing_in_a_class_but_its_variables() {
        let proxy = "http://me:$$a${B}$${C}$D\\$@p:1";
        let list = format!("localhost,{PLACEHOLDER},{}", placeholder(0));
        let settings = [(ProxyVariable::Http, proxy.to_owned()), (ProxyVariable::No, list)]
            .map(|(proxy, value)| Setting { proxy, value, secret: false });
        let node = Node::new(&settings, &Options::default()).unwrap();
        let variables = ["${VIP:=\"a\"}".to_owned()];

        let text = |variables: &[String]| {
            let operations =
                patch(&class(), |_| None, &Wanted { node: &node, secret: None, variables, extra_envs: &[] })
                    .unwrap();
            manifest::to_yaml(only(&operations))
        };
        let substituted =
            substitute(&text(&variables), |name| (name == "VIP").then(|| "10.0.0.9".to_owned()));
        assert_eq!(substituted.unwrap(), text(&["10.0.0.9".to_owned()]));
        let plain = text(&[]);
        assert_eq!(substitute(&plain, |_| None).unwrap(), plain);
        // Go reads what was meant.
        let read = manifest::documents(&plain)[0].read().unwrap().unwrap();
        let template = &read["definitions"][0]["jsonPatches"][0]["valueFrom"]["template"];
        let template = template.as_str().unwrap();
        assert!(
            template.contains(r"HTTP_PROXY='http://me:\x24\x24a\x24{B}\x24\x24{C}\x24D\\\x24@p:1'\n"),
            "{template}"
        );
    }

    #[test]
    fn what_is_too_long_for_a_class_is_told_without_a_secret_that_it_cannot_have() {
        let long: Vec<String> = (0..800).map(|number| format!("host-{number}.corp.example")).collect();
        for list in [format!("{},{PLACEHOLDER}", long.join(",")), long.join(",")] {
            let settings = [(ProxyVariable::Http, "http://p:1".to_owned()), (ProxyVariable::No, list)]
                .map(|(proxy, value)| Setting { proxy, value, secret: false });
            let node = Node::new(&settings, &Options::default()).unwrap();
            let error = patched(&class(), None, &node).unwrap_err()[0].to_string();
            assert!(error.contains("in a ClusterClass") && error.contains("NO_PROXY with"), "{error}");
            assert!(!error.contains("--env-secret") && !error.contains("Ignition"), "{error}");
        }
    }

    #[test]
    fn a_patch_of_somebody_else_with_the_name_is_told() {
        let mut with = class();
        with["spec"]["patches"] = json!([{"name": NAME, "description": "mine"}]);
        let error = patched(&with, None, &node()).unwrap_err()[0].to_string();
        assert!(error.starts_with("spec.patches[0]: the patch reach-proxy is there already"), "{error}");
    }
}
