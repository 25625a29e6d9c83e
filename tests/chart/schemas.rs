//! kubeconform over every rendering, with the schemas of several Kubernetes versions, made here from the API descriptions
//! in Kubernetes' own modules and from the CRDs of others.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::rendered::RENDERINGS;
use crate::support::helm::{chart, objects, root};
use crate::support::process::programs;

/// The folder with kubeconform, promtool and the files of modules.
pub static PROGRAMS: LazyLock<std::path::PathBuf> = LazyLock::new(|| programs("chart/build.sh"));

/// What a schema file is called after: kind, group and version.
type Kind = (String, String, String);

fn kind_of(object: &Value) -> Kind {
    let api = object["apiVersion"].as_str().expect("an apiVersion");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    (object["kind"].as_str().expect("a kind").to_owned(), group.to_owned(), version.to_owned())
}

/// Where kubeconform looks for the schema of a kind, as its template and as a path.
const LOCATION: &str = "{{ .ResourceKind }}_{{ .Group }}_{{ .ResourceAPIVersion }}.json";

fn write(folder: &Path, (kind, group, version): &Kind, schema: &Value) {
    // Without a group, kubeconform takes the version for it.
    let group = if group.is_empty() { version } else { group };
    let name = format!("{}_{group}_{version}.json", kind.to_lowercase());
    fs::write(folder.join(name), schema.to_string()).expect("a schema");
}

/// Makes an OpenAPI schema one of JSON that takes nothing it does not name, and notes what it refers to.
fn strict(schema: &mut Value, references: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            let is_open = members.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if members.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
                || members.get("format") == Some(&json!("int-or-string"))
            {
                members.remove("format");
                members.insert("type".to_owned(), json!(["integer", "string"]));
            }
            // A schema has a map of schemas here; a field that is called so has an object with a type.
            if members
                .get("properties")
                .is_some_and(|properties| properties.get("type").is_none_or(Value::is_object))
                && !members.contains_key("additionalProperties")
                && !is_open
            {
                members.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                references.push(reference.trim_start_matches("#/definitions/").to_owned());
            }
            // Formats of OpenAPI (int32, byte) are none of JSON schema.
            if members.get("format").is_some_and(Value::is_string) {
                members.remove("format");
            }
            for member in members.values_mut() {
                strict(member, references);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strict(item, references)),
        _ => {}
    }
}

/// Writes the schemas of these kinds, each with what it refers to, from the API description of a Kubernetes version.
fn kubernetes_schemas(file: &Path, kinds: &HashSet<Kind>, folder: &Path) -> usize {
    let description: Value =
        serde_json::from_slice(&fs::read(file).expect("an API description")).expect("JSON");
    let definitions = description["definitions"].as_object().expect("definitions");
    let mut written = 0;
    for (name, definition) in definitions {
        let Some(of) = definition["x-kubernetes-group-version-kind"].as_array() else { continue };
        let of = of
            .iter()
            .map(|of| ["kind", "group", "version"].map(|part| of[part].as_str().expect("a name").to_owned()));
        for kind in
            of.map(|[kind, group, version]| (kind, group, version)).filter(|kind| kinds.contains(kind))
        {
            let mut used = BTreeMap::new();
            let mut wanted = vec![name.clone()];
            while let Some(name) = wanted.pop() {
                if let Entry::Vacant(place) = used.entry(name) {
                    let mut definition = definitions[place.key()].clone();
                    strict(&mut definition, &mut wanted);
                    // Defined as an object for its documentation, written as what it is.
                    match place.key().rsplit('.').next() {
                        Some("IntOrString") => definition = json!({"type": ["integer", "string"]}),
                        Some("Quantity") => definition = json!({"type": ["number", "string"]}),
                        Some(
                            "JSON"
                            | "JSONSchemaPropsOrBool"
                            | "JSONSchemaPropsOrArray"
                            | "JSONSchemaPropsOrStringArray",
                        ) => {
                            definition = json!({});
                        }
                        _ => {}
                    }
                    place.insert(definition);
                }
            }
            let schema = json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": format!("#/definitions/{name}"),
                "definitions": used,
            });
            write(folder, &kind, &schema);
            written += 1;
        }
    }
    written
}

/// Writes the schemas of a CustomResourceDefinition.
fn crd_schemas(crd: &Value, folder: &Path) {
    let spec = &crd["spec"];
    for version in spec["versions"].as_array().expect("versions") {
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        strict(&mut schema, &mut Vec::new());
        let properties = schema["properties"].as_object_mut().expect("fields");
        for (name, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            properties.insert(name.to_owned(), json!({"type": kind}));
        }
        let name = |value: &Value| value.as_str().expect("a name").to_owned();
        write(folder, &(name(&spec["names"]["kind"]), name(&spec["group"]), name(&version["name"])), &schema);
    }
}

/// What kubeconform says about objects: one entry for each, without a problem or with one.
fn conform(folder: &Path, version: &str, objects: &[&Value]) -> HashMap<String, String> {
    let stream: Vec<Value> = objects.iter().map(|&object| object.clone()).collect();
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().expect("a temporary file");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": stream});
    std::io::Write::write_all(&mut file, list.to_string().as_bytes()).expect("a temporary file");
    let location = format!("{}/{LOCATION}", folder.display());
    let output = Command::new(PROGRAMS.join("kubeconform"))
        .args([
            "-strict",
            "-output",
            "json",
            "-verbose",
            "-kubernetes-version",
            version,
            "-schema-location",
            &location,
        ])
        .arg(file.path())
        .output()
        .expect("kubeconform runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: Value = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let resources = answer["resources"].as_array().expect("resources");
    assert_eq!(resources.len(), objects.len(), "each object is looked at");
    let mut problems = HashMap::new();
    for resource in resources {
        if resource["status"] != "statusValid" {
            problems.insert(format!("{} {}", resource["kind"], resource["name"]), resource.to_string());
        }
    }
    problems
}

fn versions() -> Vec<(String, std::path::PathBuf)> {
    let mut versions: Vec<_> = fs::read_dir(PROGRAMS.join("files"))
        .expect("files of modules")
        .filter_map(|entry| {
            let path = entry.expect("a file").path();
            let name =
                path.file_name()?.to_str()?.strip_prefix("kubernetes-")?.strip_suffix(".json")?.to_owned();
            Some((name, path))
        })
        .collect();
    versions.sort();
    versions
}

#[test]
fn everything_that_is_rendered_fits_the_schemas_of_every_kubernetes_version() {
    // Many renderings differ in a few objects only.
    let mut different: BTreeMap<String, &Value> = BTreeMap::new();
    for object in RENDERINGS.iter().flat_map(|rendering| &rendering.objects) {
        different.insert(object.to_string(), object);
    }
    let plain: Vec<Value> = ["webhook", "certs"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder"))
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| path.file_name().is_none_or(|name| name != "kustomization.yaml"))
        .flat_map(|path| objects(&fs::read_to_string(path).expect("a file")))
        .collect();
    let crds: Vec<Value> = fs::read_dir(chart().join("crds"))
        .expect("CRDs")
        .flat_map(|entry| objects(&fs::read_to_string(entry.expect("a file").path()).expect("a file")))
        .collect();
    let all: Vec<&Value> = different.values().copied().chain(&plain).chain(&crds).collect();

    let others: Vec<Value> = fs::read_dir(PROGRAMS.join("files"))
        .expect("files of modules")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .flat_map(|path| objects(&fs::read_to_string(path).expect("a file")))
        .collect();
    let kinds: HashSet<Kind> = all.iter().map(|object| kind_of(object)).collect();
    let versions = versions();
    assert_eq!(versions.len(), 4);
    for (version, file) in &versions {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let built_in = kubernetes_schemas(file, &kinds, folder.path());
        others.iter().chain(&crds).for_each(|crd| crd_schemas(crd, folder.path()));
        let problems = conform(folder.path(), version, &all);
        assert!(problems.is_empty(), "Kubernetes {version}: {problems:#?}");
        eprintln!(
            "chart: {} objects of {} kinds ({built_in} built in) fit Kubernetes {version}",
            all.len(),
            kinds.len()
        );

        // The same again with one thing wrong in each: what checks also refuses.
        for object in &all {
            if !different.contains_key(&object.to_string()) || object["metadata"]["name"] != "reach" {
                continue;
            }
            let mut typo = Map::new();
            for (key, value) in object.as_object().expect("an object") {
                typo.insert(
                    if key == "metadata" { "metadaata".to_owned() } else { key.clone() },
                    value.clone(),
                );
            }
            let mut deep = (*object).clone();
            if let Some(spec) = deep["spec"].as_object_mut() {
                spec.insert("replicass".to_owned(), json!(1));
            } else {
                deep["metadata"]["labells"] = json!({});
                if object["apiVersion"].as_str().is_some_and(|api| api.contains("reach.dev")) {
                    continue;
                }
            }
            for wrong in [Value::Object(typo), deep] {
                let problems = conform(folder.path(), version, &[&wrong]);
                assert_eq!(problems.len(), 1, "Kubernetes {version}: a typo is found: {wrong}");
            }
            if version != &versions[0].0 {
                break;
            }
        }
    }
}
