//! What becomes of events.

use serde_json::json;

use super::*;
use crate::presets::cluster::room::MAX_WEIGHT;
use crate::presets::cluster::status::Said;
use crate::presets::directory;
use crate::presets::network::Given;
use crate::presets::sources::Watched;

fn preset(source: &str) -> Item {
    let object = json!({
        "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": source.to_lowercase()},
        "spec": {"noProxyFrom": [source]},
    });
    let preset = directory::preset(&object).expect("a preset");
    let key = ("".into(), source.into());
    Item::Preset { key, compiled: Ok(Arc::new(preset)), created: 0, said: Said::default() }
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

/// Of a hundred of which a namespace may have together.
const PERCENT: usize = MAX_WEIGHT / 100;

/// A PodPreset that weighs about so much, made at that second.
fn sized(namespace: &str, name: &str, created: i64, percent: usize) -> Item {
    let value = "x".repeat(PERCENT - 100);
    let env: Vec<_> =
        (0..percent).map(|number| json!({"name": format!("V{number}"), "value": value})).collect();
    let object = json!({
        "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset", "metadata": {"name": name, "namespace": namespace},
        "spec": {"env": env},
    });
    let preset = directory::preset(&object).expect("a preset");
    let key = (namespace.into(), name.into());
    Item::Preset { key, compiled: Ok(Arc::new(preset)), created, said: Said::default() }
}

/// The presets that are used, and those that have to be read for that.
fn used(state: &mut State, namespace: &str) -> (Vec<String>, Vec<String>) {
    state.snapshot();
    let entry = &state.entries[namespace];
    let mut names: Vec<_> = entry.presets.presets().iter().map(|preset| preset.name.to_string()).collect();
    names.sort_unstable();
    let wanted = state.namespaced.wanted(usize::MAX);
    (names, wanted.into_iter().map(|(_, name)| name.into()).collect())
}

fn names(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

/// As read when it is wanted.
#[track_caller]
fn read(state: &mut State, item: Item) {
    let Item::Preset { key, .. } = &item else { panic!("a preset") };
    assert!(state.namespaced.wanted(usize::MAX).contains(key));
    state.apply(Source::Namespaced, Event::Apply(item));
}

#[test]
fn presets_of_a_namespace_weigh_no_more_than_they_may_and_do_not_count_for_others() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    let of = |name: &str, created: i64| sized("shop", name, created, 45);
    list(&mut state, Source::Namespaced, vec![of("a", 1), of("b", 2), of("c", 3), sized("web", "d", 1, 45)]);
    assert_eq!(used(&mut state, "shop"), (names("a b"), names("")));
    assert_eq!(used(&mut state, "web"), (names("d"), names("")));
    assert_eq!(state.invalid(), ["shop/c"]);
    // One that is replaced counts once.
    state.apply(Source::Namespaced, Event::Apply(of("a", 1)));
    assert_eq!(used(&mut state, "shop"), (names("a b"), names("")));
    // One that is gone counts no more, and there is room for another one.
    state.apply(Source::Namespaced, Event::Delete(of("a", 1)));
    assert_eq!(used(&mut state, "shop"), (names("b"), names("c")));
    read(&mut state, of("c", 3));
    assert_eq!(used(&mut state, "shop"), (names("b c"), names("")));
    assert!(state.invalid().is_empty());
    // Nor does what was there before a gap.
    list(&mut state, Source::Namespaced, vec![of("e", 4), of("c", 3)]);
    assert_eq!(used(&mut state, "shop"), (names("c e"), names("")));
    // One that is too large leaves room for others.
    list(
        &mut state,
        Source::Namespaced,
        vec![sized("shop", "f", 1, 64), of("c", 2), sized("shop", "e", 3, 30)],
    );
    assert_eq!(used(&mut state, "shop"), (names("e f"), names("")));
}

#[test]
fn which_presets_are_used_depends_on_what_there_is_and_not_on_how_it_was_heard_of() {
    let all = || {
        vec![
            sized("shop", "c", 1, 50),
            sized("shop", "b", 2, 40),
            sized("shop", "d", 2, 20),
            sized("shop", "a", 3, 5),
        ]
    };
    let expected = (names("a b c"), names(""));
    for turned in 0..4 {
        let mut items = all();
        items.rotate_left(turned);
        // Heard of one after the other.
        let mut state = listed();
        list(&mut state, Source::Nodes, vec![]);
        for item in items {
            state.apply(Source::Namespaced, Event::Apply(item));
            state.snapshot();
        }
        while let Some((_, name)) = state.namespaced.wanted(1).pop() {
            let is_it = |item: &Item| matches!(item, Item::Preset { key, .. } if key.1 == name);
            read(&mut state, all().into_iter().find(is_it).expect("one that there is"));
            state.snapshot();
        }
        assert_eq!(used(&mut state, "shop"), expected, "made, by {turned}");
        // Listed, for the first time and again.
        let mut anew = listed();
        list(&mut anew, Source::Nodes, vec![]);
        for state in [&mut state, &mut anew] {
            let mut items = all();
            items.rotate_left(turned);
            list(state, Source::Namespaced, items);
            assert_eq!(used(state, "shop"), expected, "listed, by {turned}");
        }
    }
}

#[test]
fn what_becomes_smaller_leaves_room_and_what_grows_takes_it_from_what_was_made_later() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    let of = |name: &str, created: i64, percent| sized("shop", name, created, percent);
    list(&mut state, Source::Namespaced, vec![of("a", 1, 60), of("b", 2, 60), of("c", 3, 30)]);
    assert_eq!(used(&mut state, "shop"), (names("a c"), names("")));
    state.apply(Source::Namespaced, Event::Apply(of("a", 1, 35)));
    assert_eq!(used(&mut state, "shop"), (names("a"), names("b")));
    // It changes before it is read.
    state.apply(Source::Namespaced, Event::Apply(of("b", 2, 61)));
    assert_eq!(used(&mut state, "shop"), (names("a b"), names("")));
    // One that is made is in nobody's place, and what it weighs while it is left out is nobody's matter.
    state.apply(Source::Namespaced, Event::Apply(of("d", 4, 10)));
    state.apply(Source::Namespaced, Event::Apply(of("d", 4, 20)));
    assert_eq!(used(&mut state, "shop"), (names("a b"), names("")));
    state.apply(Source::Namespaced, Event::Delete(of("b", 2, 61)));
    assert_eq!(used(&mut state, "shop"), (names("a"), names("c d")));
    // Gone before it is read: the watch says so, too.
    state.namespaced.is_gone(&("shop".into(), "c".into()));
    state.apply(Source::Namespaced, Event::Delete(of("c", 3, 30)));
    read(&mut state, of("d", 4, 20));
    assert_eq!(used(&mut state, "shop"), (names("a d"), names("")));
    state.apply(Source::Namespaced, Event::Apply(of("a", 1, 64)));
    state.apply(Source::Namespaced, Event::Apply(of("e", 5, 10)));
    assert_eq!(used(&mut state, "shop"), (names("a d e"), names("")));
    state.apply(Source::Namespaced, Event::Apply(of("d", 4, 30)));
    assert_eq!(used(&mut state, "shop"), (names("a d"), names("")));
}

#[test]
fn what_is_left_out_takes_no_memory_while_it_is_listed_either() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    state.apply(Source::Namespaced, Event::Init);
    let mut presets = Vec::new();
    let mut most = 0;
    // The first to be listed was made last.
    for number in 0..20 {
        let item = sized("shop", &format!("p{number:02}"), 100 - number, 40);
        let Item::Preset { compiled: Ok(preset), .. } = &item else { panic!("a preset") };
        presets.push(Arc::downgrade(preset));
        state.apply(Source::Namespaced, Event::InitApply(item));
        most = most.max(presets.iter().filter(|preset| preset.strong_count() > 0).count());
    }
    state.apply(Source::Namespaced, Event::InitDone);
    assert!(most <= 6, "{most}");
    assert_eq!(used(&mut state, "shop"), (names("p18 p19"), names("")));
    assert_eq!(presets.iter().filter(|preset| preset.strong_count() > 0).count(), 2);
}

#[test]
fn a_preset_whose_status_is_no_longer_true_is_news_and_no_other() {
    let mut state = listed();
    list(&mut state, Source::Nodes, vec![]);
    let of = |name: &str, created: i64, said: &str| {
        let mut item = sized("shop", name, created, 45);
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "PodPreset", "metadata": {"name": name, "generation": 1},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Usable", "reason": said}]},
        });
        if let Item::Preset { said, .. } = &mut item {
            *said = Said::of(&serde_json::from_value(object).expect("an object"));
        }
        item
    };
    let news = |state: &mut State| {
        state.weigh();
        let mut news = Vec::new();
        state.tell_of_presets(|seen| {
            if seen.is_news {
                news.push(format!("{} {}", seen.key.1, seen.is_too_much));
            }
        });
        news.sort_unstable();
        news.dedup();
        news
    };
    let (is_used, is_too_much) = ("Valid", "TooManyBytes");
    news(&mut state);
    list(
        &mut state,
        Source::Namespaced,
        vec![of("a", 1, is_used), of("b", 2, is_too_much), of("c", 3, is_used), of("d", 4, is_too_much)],
    );
    assert_eq!(news(&mut state), ["b false", "c true"]);
    // As it has been written.
    state.apply(Source::Namespaced, Event::Apply(of("b", 2, is_used)));
    state.apply(Source::Namespaced, Event::Apply(of("c", 3, is_too_much)));
    assert_eq!(news(&mut state), names(""));
    state.apply(Source::Namespaced, Event::Delete(of("a", 1, is_used)));
    assert_eq!(news(&mut state), ["c false"], "nothing has come of it itself");
    state.apply(Source::Namespaced, Event::Apply(of("a", 1, is_too_much)));
    assert_eq!(news(&mut state), ["a false"], "the other one has it in its status that it is left out");
}
