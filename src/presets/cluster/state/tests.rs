//! What becomes of events.

use serde_json::json;

use super::*;
use crate::presets::directory;
use crate::presets::network::Given;
use crate::presets::sources::Watched;

fn preset(source: &str) -> Item {
    let object = json!({
        "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": source.to_lowercase()},
        "spec": {"noProxyFrom": [source]},
    });
    let preset = directory::preset(&object).expect("a preset");
    Item::Preset { key: ("".into(), source.into()), compiled: Ok(Arc::new(preset)), is_news: false }
}

fn namespace(name: &str) -> Item {
    Item::Namespace(name.into(), NamespaceLabels::default().named(name))
}

fn service(namespace: &str, name: &str) -> Item {
    Item::Service((namespace.into(), name.into()))
}

fn node(name: &str, address: &str) -> Item {
    let addresses = vec![address.parse().expect("an address")];
    Item::Facts(name.into(), Facts { addresses, ..Facts::default() })
}

fn list(state: &mut State, source: Source, items: Vec<Item>) {
    state.apply(source, Event::Init);
    for item in items {
        state.apply(source, Event::InitApply(item));
    }
    state.apply(source, Event::InitDone);
}

/// What has been listed, with everything watched.
fn listed() -> State {
    let watched = vec![Watched::Services, Watched::Nodes];
    let mut state = State::new(Sources { watched, given: Facts::default() });
    state.await_sources(&[&Source::PRESETS[..], &[Source::Services, Source::Nodes]].concat());
    list(&mut state, Source::Cluster, vec![preset("Services"), preset("Nodes")]);
    list(&mut state, Source::Namespaced, vec![]);
    list(&mut state, Source::Namespaces, vec![namespace("shop"), namespace("web")]);
    list(&mut state, Source::Services, vec![service("shop", "mysql"), service("web", "front")]);
    state
}

fn services(state: &State, namespace: &str) -> String {
    state.entries[namespace].services.texts().collect::<Vec<_>>().join(",")
}

#[test]
fn nothing_is_published_before_every_watch_has_said_what_there_is_or_was_refused() {
    let mut state = listed();
    assert!(state.snapshot().is_none(), "nodes are not known yet");
    state.refused(Source::Nodes);
    assert!(state.snapshot().is_some());
    assert_eq!(services(&state, "shop"), ".mysql,mysql");
    // What was said before a refusal stays.
    list(&mut state, Source::Nodes, vec![node("a", "10.0.0.1")]);
    assert!(state.snapshot().is_some());
    state.refused(Source::Nodes);
    assert!(state.snapshot().is_none());
    assert_eq!(state.lists.of_cluster.nodes.texts().collect::<Vec<_>>(), ["10.0.0.1"]);
}

#[test]
fn a_service_makes_the_list_of_its_namespace_anew_and_no_other() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![node("a", "10.0.0.1")]);
    assert!(state.snapshot().is_some());
    let entry = |state: &State, name: &str| Arc::clone(&state.entries[name]);
    let (shop, web) = (entry(&state, "shop"), entry(&state, "web"));
    state.apply(Source::Services, Event::Apply(service("shop", "redis")));
    // Known already, and of a namespace that is not known yet.
    state.apply(Source::Services, Event::Apply(service("web", "front")));
    state.apply(Source::Services, Event::Apply(service("new", "early")));
    assert!(state.snapshot().is_some());
    assert_eq!(services(&state, "shop"), ".mysql,mysql,.redis,redis");
    assert!(!Arc::ptr_eq(&shop, &entry(&state, "shop")) && Arc::ptr_eq(&web, &entry(&state, "web")));
    state.apply(Source::Namespaces, Event::Apply(namespace("new")));
    state.apply(Source::Services, Event::Delete(service("shop", "mysql")));
    assert!(state.snapshot().is_some());
    assert_eq!(services(&state, "new"), ".early,early");
    assert_eq!(services(&state, "shop"), ".redis,redis");
    list(&mut state, Source::Services, vec![service("web", "front")]);
    assert!(state.snapshot().is_some());
    assert_eq!((services(&state, "shop"), services(&state, "new")), (String::new(), String::new()));
}

#[test]
fn what_says_nothing_new_publishes_nothing() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![node("a", "10.0.0.1")]);
    assert!(state.snapshot().is_some());
    state.apply(Source::Nodes, Event::Apply(node("a", "10.0.0.1")));
    state.apply(Source::Services, Event::Apply(service("shop", "mysql")));
    list(&mut state, Source::Nodes, vec![node("a", "10.0.0.1")]);
    list(&mut state, Source::Services, vec![service("web", "front"), service("shop", "mysql")]);
    state.apply(Source::Namespaces, Event::Apply(namespace("shop")));
    list(&mut state, Source::Namespaces, vec![namespace("web"), namespace("shop")]);
    // As after a status has been written.
    state.apply(Source::Cluster, Event::Apply(preset("Services")));
    assert!(!state.changes.any());
    assert!(state.snapshot().is_none());
    // Those that nobody sees.
    let networks = vec!["10.244.1.0/24".parse().expect("a network")];
    let Item::Facts(name, facts) = node("a", "10.0.0.1") else { panic!("a node") };
    state.apply(Source::Nodes, Event::Apply(Item::Facts(name, Facts { networks, ..facts })));
    state.apply(Source::Services, Event::Apply(service("early", "mysql")));
    state.apply(Source::Services, Event::Apply(service("shop", "app")));
    assert!(state.changes.any());
    assert!(state.snapshot().is_none());
    assert_eq!(state.warnings().len(), 1, "they are told: one is named like a top-level domain");
    state.apply(Source::Nodes, Event::Apply(node("a", "10.0.0.2")));
    assert!(state.snapshot().is_some());
    let labelled = NamespaceLabels::new([("a", "b")]).named("shop");
    state.apply(Source::Namespaces, Event::Apply(Item::Namespace("shop".into(), labelled)));
    assert!(state.snapshot().is_some());
    state.apply(Source::Namespaces, Event::Delete(namespace("shop")));
    assert!(state.snapshot().is_some());
}

#[test]
fn presets_are_counted_when_they_have_changed() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    assert!(state.snapshot().is_some() && state.uncounted);
    state.uncounted = false;
    state.apply(Source::Services, Event::Apply(service("shop", "redis")));
    assert!(state.snapshot().is_some() && !state.uncounted);
    state.apply(Source::Cluster, Event::Delete(preset("Nodes")));
    assert!(state.snapshot().is_some() && state.uncounted);
}

#[test]
fn lists_that_nobody_asks_for_are_made_when_somebody_does() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    assert!(state.snapshot().is_some());
    assert!(state.lists.of_cluster.all_services.is_empty());
    state.apply(Source::Cluster, Event::Apply(preset("AllServices")));
    assert!(state.snapshot().is_some());
    let all: Vec<&str> = state.lists.of_cluster.all_services.texts().collect();
    assert_eq!(all, [".front.web,front.web", ".mysql.shop,mysql.shop"]);
    assert!(state.warnings().is_empty(), "{:?}", state.warnings());
    state.apply(Source::Cluster, Event::Apply(preset("ClusterNetwork")));
    assert!(state.snapshot().is_some());
    assert_eq!(state.warnings().len(), 1, "that one is not watched");
    let given = Facts::given(&["10.96.0.0/12".parse::<Given>().expect("a network")]);
    state.set_sources(Sources { watched: vec![Watched::Services, Watched::Nodes], given });
    assert!(state.snapshot().is_some());
    assert!(state.warnings().is_empty(), "{:?}", state.warnings());
    assert_eq!(state.lists.of_cluster.cluster_network.texts().collect::<Vec<_>>(), ["10.96.0.0/12"]);
}

#[test]
fn presets_of_a_namespace_weigh_no_more_than_they_may_and_do_not_count_for_others() {
    let of = |namespace: &str, name: &str, bytes: usize| {
        let value = "x".repeat(16_000);
        let env: Vec<_> = (0..bytes / value.len())
            .map(|number| json!({"name": format!("V{number}"), "value": value}))
            .collect();
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset", "metadata": {"name": name, "namespace": namespace},
            "spec": {"env": env},
        });
        let preset = directory::preset(&object).expect("a preset");
        Item::Preset { key: (namespace.into(), name.into()), compiled: Ok(Arc::new(preset)), is_news: false }
    };
    let half = MAX_WEIGHT * 45 / 100;
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    let named = |state: &mut State, namespace: &str| {
        state.snapshot();
        let entry = &state.entries[namespace];
        entry.presets.presets().iter().map(|preset| preset.name.to_string()).collect::<Vec<_>>()
    };
    list(
        &mut state,
        Source::Namespaced,
        vec![of("shop", "a", half), of("shop", "b", half), of("shop", "c", half), of("web", "d", half)],
    );
    assert_eq!(
        (named(&mut state, "shop"), named(&mut state, "web")),
        (vec!["a".into(), "b".into()], vec!["d".into()])
    );
    assert_eq!(state.invalid(), ["shop/c"]);
    // One that is replaced counts once, and one that is gone no more.
    state.apply(Source::Namespaced, Event::Apply(of("shop", "a", half)));
    assert_eq!(named(&mut state, "shop"), ["a", "b"]);
    state.apply(Source::Namespaced, Event::Delete(of("shop", "a", half)));
    state.apply(Source::Namespaced, Event::Apply(of("shop", "c", half)));
    assert_eq!(named(&mut state, "shop"), ["b", "c"]);
    // Nor what was there before a gap.
    list(&mut state, Source::Namespaced, vec![of("shop", "a", half), of("shop", "c", half)]);
    assert_eq!(named(&mut state, "shop"), ["a", "c"]);
}
