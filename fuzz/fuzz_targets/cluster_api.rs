//! Manifests of Cluster API: never a panic; what is patched has what hosts get once, and nothing else has changed.
//!
//! The first byte says what hosts get, the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::host::class;
use reach::host::cluster_api::{Group, Manifests, Object, Options as Facts, Source, check, groups};
use reach::host::node::{Node, Options, StaticPods, System};
use reach::host::patch::{self, Wanted, placeholder};
use reach::host::values::Setting;
use reach::host::variables;
use reach::inject::preset::ProxyVariable;
use reach::manifest::{self, Document, Operation};
use reach::no_proxy::portable::{Author, List, unite};
use serde_json::{Value, json};

struct Patched<'a, F> {
    /// The changes of a value, if it can be patched.
    operations: F,
    document: &'a Document<'a>,
    before: &'a Value,
}

fn options(number: u8) -> Options {
    let mut options = Options::default();
    if number & 1 == 1 {
        options.system =
            vec![System::Profile, System::Environment, System::Apt, System::Dnf, System::Sudoers];
    }
    options.static_pods = match number >> 1 & 3 {
        0 => StaticPods::None,
        1 => StaticPods::Inherit,
        _ => StaticPods::Explicit,
    };
    options
}

/// What hosts of a group get; the variables of clusterctl that stand in it.
fn settings(group: &Group) -> (Vec<Setting>, Vec<String>) {
    let (known, plain): (Vec<_>, Vec<_>) = group
        .entries
        .iter()
        .map(|entry| entry.text.as_str())
        .partition(|text| variables::has_reference(text));
    let mut no_proxy = unite([List::parse(&plain.join(","), Author::Host)].iter());
    for number in 0..known.len() {
        no_proxy = format!("{no_proxy},{}", placeholder(number));
    }
    let url = "http://me:p%40ss@proxy.corp.example:3128".to_owned();
    let setting = |proxy, value| Setting { proxy, value, secret: false };
    let settings = vec![
        setting(ProxyVariable::Http, url.clone()),
        setting(ProxyVariable::Https, url),
        setting(ProxyVariable::No, no_proxy),
    ];
    (settings, known.into_iter().map(str::to_owned).collect())
}

/// A value without what is empty: what was made for reach's own may be left behind empty.
fn without_empty(value: &Value) -> Value {
    let is_something = |value: &Value| {
        !(value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty))
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), without_empty(value)))
            .filter(|(_, value)| is_something(value))
            .collect(),
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

impl<F: Fn(&Value, &Wanted<'_>) -> Option<Vec<Operation>>> Patched<'_, F> {
    fn check(&self, wanted: &Wanted<'_>) {
        let nothing = Wanted { node: &Node::default(), secret: None, variables: &[], extra_envs: &[] };
        let Some(operations) = (self.operations)(self.before, wanted) else { return };
        let mut after = self.before.clone();
        let patch: json_patch::Patch =
            serde_json::from_value(json!(operations)).expect("operations are RFC 6902");
        json_patch::patch(&mut after, &patch).expect("they apply");
        // A document of many documents' length can be beyond what is written; no answer is wrong.
        if let Ok(edited) = self.document.edit(&operations) {
            let documents = manifest::documents(&edited.text);
            let read = documents.iter().find_map(|document| document.read().expect("it can be read"));
            assert_eq!(read.as_ref(), Some(&after), "the text says what the operations make");
        }
        let twice = (self.operations)(&after, wanted).expect("it can be patched again");
        assert_eq!(twice, [], "patching twice is patching once");
        let had_some = (self.operations)(self.before, &nothing).is_none_or(|of_reach| !of_reach.is_empty());
        let Some(away) = (self.operations)(&after, &nothing) else { panic!("it can be taken away") };
        let patch: json_patch::Patch = serde_json::from_value(json!(away)).expect("operations are RFC 6902");
        json_patch::patch(&mut after, &patch).expect("they apply");
        if !had_some {
            let [before, after] = [self.before, &after].map(without_empty);
            assert_eq!(after, before, "what is not reach's is as it was");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [number, text @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let substituted = variables::substitute(text, |name| (name.len() < 8).then(|| "10.0.0.1".to_owned()));
    let text = match &substituted {
        Ok(substituted) if number & 8 == 8 => substituted,
        _ => text,
    };
    let documents = manifest::documents(text);
    let mut objects = Vec::new();
    let mut of_object = Vec::new();
    for document in &documents {
        if let Ok(Some(value)) = document.read() {
            let source = Source { file: "-".to_owned(), document: document.number };
            objects.push(Object::new(source, value));
            of_object.push(document);
        }
    }
    let manifests = Manifests::new(objects);
    let options = options(*number);
    let Ok(groups) = groups(&manifests, &Facts::default()) else { return };
    for group in groups {
        let (settings, variables) = settings(&group);
        let _ = check(&manifests, &group, &settings, options.static_pods);
        let Ok(node) = Node::new(&settings, &options) else { continue };
        let extra_envs = if options.static_pods == StaticPods::Explicit { &settings[..] } else { &[] };
        let secret = (number & 16 == 16).then_some("proxy-env");
        for &index in &group.configurations {
            let object = &manifests.objects()[index];
            let Ok(Some(field)) = object.patchable() else { continue };
            let wanted = Wanted { node: &node, secret, variables: &variables, extra_envs };
            let operations = |value: &Value, wanted: &Wanted<'_>| patch::patch(value, field, wanted).ok();
            let document = of_object[index];
            Patched { operations, document, before: &object.value }.check(&wanted);
        }
        if let Some(index) = group.class {
            let object = &manifests.objects()[index];
            let template = |reference: &class::Reference| {
                let mut objects = manifests.objects().iter();
                let is_it = |object: &&Object| object.kind == reference.kind && object.name == reference.name;
                objects.find(is_it).map(|object| &object.value)
            };
            let wanted = Wanted { node: &node, secret: None, variables: &variables, extra_envs: &[] };
            let operations = |value: &Value, wanted: &Wanted<'_>| class::patch(value, template, wanted).ok();
            let document = of_object[index];
            Patched { operations, document, before: &object.value }.check(&wanted);
        }
    }
});
