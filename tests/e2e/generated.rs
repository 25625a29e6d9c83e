//! Pods of the generator of the properties, as the API server stores them.

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use crate::cluster::{Cluster, OWN_WEBHOOK};
use crate::generate::{Tape, acceptable};
use crate::oracle;
use crate::real::Spelling;
use crate::support::eventually_within;
use crate::support::load::Api;

/// Pods of one namespace, which share its presets.
const PODS: usize = 20;

/// A namespace, and what is in it.
struct Place {
    name: String,
    labels: Value,
    presets: Vec<Value>,
}

/// `REACH_PODS` sets the number of pods, each time others; without it there are 200, the same ones each time.
pub fn pods_are_stored_with_what_the_contract_says_and_nothing_else(cluster: &Cluster) {
    let wanted: Option<usize> =
        std::env::var("REACH_PODS").ok().map(|pods| pods.parse().expect("REACH_PODS is a number"));
    let config = Config {
        rng_seed: if wanted.is_some() { RngSeed::Random } else { RngSeed::Fixed(20_201_208) },
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let mut tape = || vec(any::<u16>(), 400).new_tree(&mut runner).expect("numbers").current();
    let wanted = wanted.unwrap_or(200);
    let places: Vec<Place> = (0..wanted.div_ceil(PODS)).map(|number| Place::new(number, &tape())).collect();
    let api = Api::new(cluster.control_plane.kubeconfig());
    put(cluster, &api, &places);

    let create = |namespace: &str, text: &[u8]| {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Ignore");
        api.create_text(&path, text.to_owned())
    };
    let (mut injected, mut refused, mut created) = (0, 0, 0);
    while created < wanted {
        let place = &places[created / PODS];
        let tape = tape();
        let mut tape = Tape::new(&tape);
        let spelling = Spelling { space: created, escapes: created / Spelling::SPACES };
        let pod = acceptable(tape.pod(&place.presets));
        let text = spelling.write(&pod);
        // A pod that the API server refuses by itself says nothing of reach.
        let Ok(bare) = create(&place.bare(), &text) else {
            refused += 1;
            assert!(refused < wanted, "the pods are of use");
            continue;
        };
        let context = || format!("namespace {} {}, pod {pod}", place.name, place.labels);
        let stored = create(&place.name, &text)
            .unwrap_or_else(|error| panic!("refused because of reach: {error}\n{}", context()));
        let expected =
            oracle::inject(&place.presets, &place.name, &place.labels, &bare, oracle::Target::Pod, |_, _| "");
        injected += usize::from(expected.is_some());
        created += 1;
        let mut contract = expected.map_or(bare, |expected| expected.pod);
        // Their wording is the engine's.
        for key in ["reach.dev/hash", "reach.dev/skipped"] {
            if let Some(text) = stored["metadata"]["annotations"].get(key) {
                oracle::annotations(&mut contract).insert(key.to_owned(), text.clone());
            }
        }
        assert_eq!(said(&stored), said(&contract), "{}", context());
    }
    let version = api.get("/version").expect("a version");
    println!(
        "generated pods: {created} created by {}, {injected} of them with presets, 0 refused because of reach, {refused} refused anyway",
        version["gitVersion"].as_str().unwrap_or_default(),
    );
    assert!(injected * 2 > wanted, "the pods are of use");
}

impl Place {
    /// A namespace with presets for it alone.
    fn new(number: usize, tape: &[u16]) -> Self {
        let name = format!("generated-{number}");
        let mut tape = Tape::new(tape);
        let mut labels = tape.labels();
        labels.as_object_mut().expect("labels").remove("reach.dev/injection");
        let mut presets = tape.presets();
        for preset in &mut presets {
            let metadata = &mut preset["metadata"];
            metadata["name"] = format!("{}-{number}", metadata["name"].as_str().expect("a name")).into();
            metadata["generation"] = json!(1);
            // What it says depends on when it is asked.
            preset["spec"].as_object_mut().expect("a spec").remove("noProxyFrom");
            if preset["kind"] == "PodPreset" {
                preset["metadata"]["namespace"] = name.as_str().into();
            } else {
                preset["spec"]["namespaceSelector"]["matchLabels"] =
                    json!({"kubernetes.io/metadata.name": name});
            }
        }
        // What was of two namespaces may now be twice in one.
        let mut seen = Vec::new();
        presets.retain(|preset| {
            let identity = (preset["kind"].clone(), preset["metadata"]["name"].clone());
            let is_new = !seen.contains(&identity);
            seen.push(identity);
            is_new
        });
        Self { name, labels, presets }
    }

    /// The namespace beside it that reach does not see.
    fn bare(&self) -> String {
        format!("{}-bare", self.name)
    }
}

/// Puts namespaces and presets into the cluster, and waits until they count.
fn put(cluster: &Cluster, api: &Api, places: &[Place]) {
    let namespace = |name: &str, labels: &Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let namespaces: Vec<Value> = places
        .iter()
        .flat_map(|place| {
            let mut unseen = place.labels.clone();
            unseen[OWN_WEBHOOK] = "yes".into();
            [namespace(&place.name, &place.labels), namespace(&place.bare(), &unseen)]
        })
        .collect();
    cluster.apply(&namespaces.into());
    // Not by kubectl, to which some characters in JSON are the line breaks of YAML.
    for preset in places.iter().flat_map(|place| &place.presets) {
        let path = match preset["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("namespaces/{namespace}/podpresets"),
            None => "clusterpodpresets".to_owned(),
        };
        let created = api.create(&format!("/apis/reach.dev/v1alpha1/{path}"), preset);
        created.unwrap_or_else(|error| panic!("{error}: {preset}"));
    }
    // Each kind is watched in the order of its changes, so with the last ones all are there.
    cluster.namespace("generated-last", &json!({}));
    let spec = json!({"env": [{"name": "LAST", "value": "yes"}]});
    cluster.cluster_preset("generated-last", "generated-last", &spec);
    cluster.preset("generated-last", "generated-last", &spec);
    // kube-controller-manager makes some twenty a second.
    let patience = crate::support::PATIENCE * 5;
    eventually_within(patience, "every namespace has its service account", || {
        let accounts = cluster.kubectl(&["get", "serviceaccounts", "--all-namespaces", "--no-headers"]);
        let there = accounts.lines().filter(|line| line.starts_with("generated-")).count();
        if there > places.len() * 2 { Ok(()) } else { Err(there) }
    });
}

/// What a pod says, without what differs each time that it is created, and with what the API server completes of what
/// presets add.
fn said(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        *volume = oracle::complete(volume);
    }
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                if variable["valueFrom"]["fieldRef"].is_object() {
                    variable["valueFrom"]["fieldRef"]["apiVersion"] = "v1".into();
                }
            }
        }
    }
    let metadata =
        json!({"labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"]});
    without_nothing(json!({"metadata": metadata, "spec": spec}))
}

/// Without what the API server leaves out when it writes, and with one name for the volume of the token.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, without_nothing(value)))
            .filter(|(_, value)| !(value.is_null() || *value == json!("") || *value == json!(false)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nothing).collect(),
        Value::String(text) if text.starts_with("kube-api-access-") => json!("kube-api-access"),
        other => other,
    }
}
