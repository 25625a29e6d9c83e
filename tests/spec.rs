//! The contract of injection as examples: rule -> example -> result, in the order of docs/injection.md.
//!
//! Every expectation is written by hand. `tests/properties.rs` checks the same contract on random cases.

#![allow(
    clippy::needless_pass_by_value,
    reason = "examples are read, and `json!` is easier to read without `&`"
)]

#[path = "support/engine.rs"]
mod engine;
#[path = "spec/limits.rs"]
mod limits;
#[path = "support/review.rs"]
mod review;

use std::sync::{Arc, LazyLock};

use engine::Injection;
use reach::admission::MAX_PATCH;
use reach::api::PresetKind;
use reach::api::validate::validate;
use reach::inject::LeftAlone;
use reach::inject::preset::Preset;
use reach::inject::snapshot::{ClusterLists, NamespaceLabels, Snapshot};
use reach::no_proxy::portable::{Author, List};
use reach::presets::services::Services;
use serde_json::{Value, json};

// === how the examples are written ===

/// A `ClusterPodPreset` of a name and a spec, generation 1.
fn cluster(name: &str, spec: Value) -> Value {
    object("ClusterPodPreset", json!({"name": name, "generation": 1}), spec)
}

/// A `PodPreset` in the namespace `shop`, in which all examples are.
fn namespaced(name: &str, spec: Value) -> Value {
    object("PodPreset", json!({"name": name, "namespace": "shop", "generation": 1}), spec)
}

/// As written, unless the example says otherwise: the portable form is sorted, and most examples are about order.
fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    let spec = merge(json!({"noProxyForm": "AsWritten"}), spec);
    json!({"apiVersion": "reach.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A cluster preset with nothing but variables.
fn cluster_env(name: &str, env: Value) -> Value {
    cluster(name, json!({"env": env}))
}

/// The same of the namespace.
fn namespaced_env(name: &str, env: Value) -> Value {
    namespaced(name, json!({"env": env}))
}

/// A pod with one container, `app`, of these fields.
fn pod(fields: Value) -> Value {
    pod_of(json!({"containers": [container("app", fields)]}))
}

fn pod_of(spec: Value) -> Value {
    let metadata = json!({"name": "web-0", "labels": {"app": "shop"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn container(name: &str, fields: Value) -> Value {
    merge(json!({"name": name}), fields)
}

/// A pod with one container that has these variables: `NAME=value`, or `NAME<source` for one with
/// `valueFrom`.
fn pod_env(variables: &[&str]) -> Value {
    pod(json!({"env": variables.iter().map(|text| variable(text)).collect::<Value>()}))
}

fn variable(text: &str) -> Value {
    match text.split_once(['=', '<']) {
        Some((name, secret)) if text[name.len()..].starts_with('<') => {
            json!({"name": name, "valueFrom": source(secret)})
        }
        Some((name, value)) => json!({"name": name, "value": value}),
        None => json!({"name": text}),
    }
}

/// A `valueFrom`.
fn source(secret: &str) -> Value {
    json!({"secretKeyRef": {"name": secret, "key": "key"}})
}

fn merge(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

/// A list of as many names.
fn names(count: usize, before: &str, after: &str) -> String {
    (0..count).map(|number| format!("{before}{number}{after}")).collect::<Vec<_>>().join(",")
}

static NO_LABELS: LazyLock<Value> = LazyLock::new(|| json!({}));

fn inject(presets: &[Value], pod: &Value) -> Injection {
    inject_in(&NO_LABELS, presets, pod, None)
}

/// Injects into the ephemeral containers that are not among `old`.
fn inject_ephemeral(presets: &[Value], pod: &Value, old: &[&str]) -> Injection {
    inject_in(&NO_LABELS, presets, pod, Some(old))
}

/// Injects in a namespace with these labels; the API server would accept every preset.
fn inject_in(labels: &Value, presets: &[Value], pod: &Value, ephemeral: Option<&[&str]>) -> Injection {
    for preset in presets {
        let kind = if preset["kind"] == "PodPreset" { PresetKind::Namespaced } else { PresetKind::Cluster };
        assert_eq!(validate(kind, preset), [], "{preset}");
    }
    let snapshot = engine::snapshot(presets, [("shop", labels)]);
    let injection = engine::inject(&snapshot, "shop", pod, ephemeral);
    let again = engine::inject(&snapshot, "shop", &injection.pod, ephemeral);
    assert!(again.patch.is_none(), "injecting twice is injecting once");
    injection
}

/// The variables of a container, as in [`pod_env`].
fn env_of(pod: &Value, list: &str, index: usize) -> Vec<String> {
    let env = pod["spec"][list][index]["env"].as_array().cloned().unwrap_or_default();
    let shown = |variable: &Value| {
        let name = variable["name"].as_str().expect("a name");
        match (&variable["value"], &variable["valueFrom"]["secretKeyRef"]["name"]) {
            (Value::String(value), _) => format!("{name}={value}"),
            (_, Value::String(secret)) => format!("{name}<{secret}"),
            _ => name.to_owned(),
        }
    };
    env.iter().map(shown).collect()
}

/// The variables of the one container.
fn env(presets: &[Value], pod: &Value) -> Vec<String> {
    env_of(&inject(presets, pod).pod, "containers", 0)
}

/// An empty list of variables, for comparison.
const NONE: [&str; 0] = [];

fn annotation<'i>(injection: &'i Injection, key: &str) -> Option<&'i str> {
    injection.pod["metadata"]["annotations"][key].as_str()
}

fn presets_of(injection: &Injection) -> Option<&str> {
    annotation(injection, "reach.dev/presets")
}

fn skipped_of(injection: &Injection) -> Option<&str> {
    annotation(injection, "reach.dev/skipped")
}

/// A preset with one variable of no importance.
fn any(name: &str) -> Value {
    cluster_env(name, json!([{"name": "X", "value": "x"}]))
}

// === which pods ===

#[test]
fn a_preset_without_selectors_selects_every_pod() {
    assert_eq!(env(&[any("p")], &pod_env(&[])), ["X=x"]);
}

#[test]
fn the_selector_selects_pods_by_label() {
    let spec = |selector: Value| json!({"selector": selector, "env": [{"name": "X", "value": "x"}]});
    let selects = |selector: Value| !env(&[cluster("p", spec(selector))], &pod_env(&[])).is_empty();
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [merge(json!({"key": key, "operator": operator}), values)]});
    // The pod is labelled `app: shop`.
    assert!(selects(json!({})));
    assert!(selects(json!({"matchLabels": {"app": "shop"}})));
    assert!(!selects(json!({"matchLabels": {"app": "shop", "tier": "web"}})));
    assert!(selects(expression("app", "In", json!({"values": ["web", "shop"]}))));
    assert!(!selects(expression("app", "NotIn", json!({"values": ["web", "shop"]}))));
    assert!(
        selects(expression("tier", "NotIn", json!({"values": ["web"]}))),
        "an absent label is in no list"
    );
    assert!(selects(expression("app", "Exists", json!({}))));
    assert!(!selects(expression("app", "DoesNotExist", json!({}))));
    assert!(selects(expression("tier", "DoesNotExist", json!({}))));
}

#[test]
fn the_namespace_selector_selects_namespaces_by_label_and_by_name() {
    let preset = |labels: Value| {
        cluster("p", json!({"namespaceSelector": {"matchLabels": labels}, "env": [{"name": "X"}]}))
    };
    let selects = |labels: Value| {
        inject_in(&json!({"zone": "eu"}), &[preset(labels)], &pod_env(&[]), None).left_alone.is_none()
    };
    assert!(selects(json!({"zone": "eu"})));
    assert!(!selects(json!({"zone": "us"})));
    assert!(selects(json!({"kubernetes.io/metadata.name": "shop"})));
    assert!(!selects(json!({"kubernetes.io/metadata.name": "pay"})));
}

#[test]
fn a_pod_preset_concerns_its_own_namespace_only() {
    let other =
        object("PodPreset", json!({"name": "p", "namespace": "pay"}), json!({"env": [{"name": "X"}]}));
    assert_eq!(inject(&[other], &pod_env(&[])).left_alone, Some(LeftAlone::NoPreset));
}

#[test]
fn a_mirror_pod_is_left_alone() {
    let mut mirror = pod_env(&[]);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "4f2a"});
    assert_eq!(inject(&[any("p")], &mirror).left_alone, Some(LeftAlone::Mirror));
}

#[test]
fn a_namespace_labelled_disabled_is_left_alone() {
    let inject = |value: &str| {
        inject_in(&json!({"reach.dev/injection": value}), &[any("p")], &pod_env(&[]), None).left_alone
    };
    assert_eq!(inject("disabled"), Some(LeftAlone::NamespaceOptOut));
    assert_eq!(inject("enabled"), None);
}

#[test]
fn a_pod_labelled_disabled_is_left_alone() {
    let mut labelled = pod_env(&[]);
    labelled["metadata"]["labels"]["reach.dev/injection"] = json!("disabled");
    assert_eq!(inject(&[any("p")], &labelled).left_alone, Some(LeftAlone::PodOptOut));
}

#[test]
fn a_pod_with_the_opt_out_of_the_old_pod_preset_is_left_alone() {
    let inject = |value: &str| {
        let mut annotated = pod_env(&[]);
        annotated["metadata"]["annotations"] = json!({"podpreset.admission.kubernetes.io/exclude": value});
        inject(&[any("p")], &annotated).left_alone
    };
    assert_eq!(inject("true"), Some(LeftAlone::PodOptOut));
    assert_eq!(inject("false"), None);
}

#[test]
fn containers_init_containers_and_native_sidecars_get_the_same() {
    let pod = pod_of(json!({
        "initContainers": [
            container("setup", json!({})),
            container("proxy", json!({"restartPolicy": "Always"})),
        ],
        "containers": [container("app", json!({})), container("log", json!({}))],
    }));
    let injected = inject(&[any("p")], &pod).pod;
    for (list, index) in [("initContainers", 0), ("initContainers", 1), ("containers", 0), ("containers", 1)]
    {
        assert_eq!(env_of(&injected, list, index), ["X=x"], "{list} {index}");
    }
}

#[test]
fn excluded_containers_get_nothing_by_exact_name_or_prefix() {
    let excludes = json!(["istio-proxy", "linkerd-*"]);
    let preset = cluster("p", json!({"excludeContainers": excludes, "env": [{"name": "X", "value": "x"}]}));
    let gets = |name: &str| {
        let pod = pod_of(json!({"containers": [container("app", json!({})), container(name, json!({}))]}));
        !env_of(&inject(std::slice::from_ref(&preset), &pod).pod, "containers", 1).is_empty()
    };
    assert!(!gets("istio-proxy"));
    assert!(gets("istio-proxy-2"), "an exact name is no prefix");
    assert!(!gets("linkerd-proxy"));
    assert!(!gets("linkerd-"));
    assert!(gets("linkerd"));
}

#[test]
fn a_container_that_one_preset_excludes_still_gets_the_others() {
    let mesh =
        cluster("a", json!({"excludeContainers": ["app"], "env": [{"name": "no_proxy", "value": "a"}]}));
    let plain = cluster_env("b", json!([{"name": "no_proxy", "value": "b"}]));
    let pod = pod_of(json!({"containers": [container("app", json!({})), container("log", json!({}))]}));
    let injected = inject(&[mesh, plain], &pod).pod;
    assert_eq!(env_of(&injected, "containers", 0), ["no_proxy=b", "NO_PROXY=b"]);
    assert_eq!(env_of(&injected, "containers", 1), ["no_proxy=a,b", "NO_PROXY=a,b"]);
}

#[test]
fn a_preset_that_excludes_every_container_does_not_concern_the_pod() {
    let preset = cluster(
        "p",
        json!({
            "excludeContainers": ["*"], "env": [{"name": "X"}], "volumes": [{"name": "ca", "emptyDir": {}}],
        }),
    );
    assert_eq!(inject(&[preset], &pod_env(&[])).left_alone, Some(LeftAlone::NoPreset));
}

#[test]
fn a_namespace_that_nobody_knows_exists_only_where_nobody_says_which_do() {
    let presets = [any("p"), namespaced("q", json!({})), namespaced("r", json!({}))];
    for open in [false, true] {
        let labels = [("shop".into(), NamespaceLabels::new([("team", "a")]))];
        let snapshot = Snapshot::from_parts(presets.iter().map(engine::preset), labels, open);
        assert!(snapshot.namespace("shop").is_some());
        assert_eq!(snapshot.namespace("other").is_some(), open);
        assert_eq!(snapshot.counts(), (1, 2));
        let names: Vec<&str> = snapshot.cluster_presets().iter().map(|preset| preset.reference()).collect();
        assert_eq!(names, ["ClusterPodPreset/p"]);
    }
}

#[test]
fn among_many_presets_the_same_are_selected_as_among_few() {
    let labels = json!({"team": "t3", "zone": "a"});
    let of = |name: String, spec: Value| {
        cluster(&name, merge(json!({"env": [{"name": "X", "value": "x"}]}), spec))
    };
    let any_of = |key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]});
    let mut presets = Vec::new();
    for n in 0..10 {
        let (next, app) =
            (format!("t{}", (n + 1) % 10), if n == 3 { "shop".to_owned() } else { format!("a{n}") });
        let team = any_of("team", json!([format!("t{n}"), next, format!("t{n}")]));
        presets.extend([
            of(format!("namespace-{n}"), json!({"namespaceSelector": team})),
            of(format!("pod-{n}"), json!({"selector": {"matchLabels": {"app": app}}})),
            of(
                format!("both-{n}"),
                json!({"namespaceSelector": team, "selector": {"matchLabels": {"app": "shop"}}}),
            ),
            of(
                format!("neither-{n}"),
                json!({"namespaceSelector": team, "selector": {"matchLabels": {"app": "a"}}}),
            ),
        ]);
    }
    presets.push(of("zone".to_owned(), json!({"namespaceSelector": any_of("zone", json!(["b", "a", "a"]))})));
    presets.push(of("absent".to_owned(), json!({"selector": any_of("tier", json!(["x"]))})));
    presets.push(of("everything".to_owned(), json!({})));
    let mut used: Vec<String> = presets_of(&inject_in(&labels, &presets, &pod_env(&[]), None))
        .expect("presets")
        .split(',')
        .map(str::to_owned)
        .collect();
    let mut wanted = ["namespace-2", "namespace-3", "pod-3", "both-2", "both-3", "zone", "everything"]
        .map(|name| format!("ClusterPodPreset/{name}@1"));
    wanted.sort();
    assert_eq!(used, wanted);
    // Each by itself is selected or not as among all of them.
    used.clear();
    for preset in &presets {
        let alone = inject_in(&labels, std::slice::from_ref(preset), &pod_env(&[]), None);
        used.extend(presets_of(&alone).map(str::to_owned));
    }
    used.sort();
    assert_eq!(used, wanted);
}

// === how a value is made: 1. strategy of an item ===

#[test]
fn an_item_follows_its_own_strategy() {
    let of = |strategy: &str| {
        let cluster = cluster_env("c", json!([{"name": "no_proxy", "value": "c"}]));
        let own = namespaced_env("n", json!([{"name": "no_proxy", "value": "n", "mergeStrategy": strategy}]));
        env(&[cluster, own], &pod_env(&[]))
    };
    assert_eq!(of("Merge"), ["no_proxy=c,n", "NO_PROXY=c,n"]);
    assert_eq!(of("Replace"), ["no_proxy=n", "NO_PROXY=n"]);
}

#[test]
fn an_item_without_a_strategy_follows_the_one_that_the_cluster_declares() {
    let of = |name: &str, strategy: &str| {
        let cluster = cluster_env("c", json!([{"name": name, "value": "c", "mergeStrategy": strategy}]));
        env(&[cluster, namespaced_env("n", json!([{"name": name, "value": "n"}]))], &pod_env(&[]))
    };
    assert_eq!(of("ftp_proxy", "Merge"), ["ftp_proxy=c,n", "FTP_PROXY=c,n"]);
    assert_eq!(of("no_proxy", "Replace"), ["no_proxy=n", "NO_PROXY=n"]);
}

#[test]
fn of_several_strategies_that_the_cluster_declares_the_first_counts() {
    let first = cluster_env("a", json!([{"name": "X", "value": "a"}]));
    let second = cluster_env("b", json!([{"name": "X", "value": "b", "mergeStrategy": "Merge"}]));
    let third = cluster_env("c", json!([{"name": "X", "value": "a", "mergeStrategy": "Replace"}]));
    let own = namespaced_env("n", json!([{"name": "X", "value": "n"}]));
    // `a` declares none, so `Merge` of `b` is what the namespace inherits.
    assert_eq!(env(&[first, second, third, own], &pod_env(&[])), ["X=a,b,n"]);
}

#[test]
fn by_default_no_proxy_is_merged_and_everything_else_is_replaced() {
    let both = |name: &str| {
        let cluster = cluster_env("c", json!([{"name": name, "value": "c"}]));
        env(&[cluster, namespaced_env("n", json!([{"name": name, "value": "n"}]))], &pod_env(&[]))
    };
    assert_eq!(both("no_proxy"), ["no_proxy=c,n", "NO_PROXY=c,n"]);
    assert_eq!(both("NO_PROXY"), ["no_proxy=c,n", "NO_PROXY=c,n"]);
    assert_eq!(both("http_proxy"), ["http_proxy=n", "HTTP_PROXY=n"]);
    assert_eq!(both("https_proxy"), ["https_proxy=n", "HTTPS_PROXY=n"]);
    assert_eq!(both("ftp_proxy"), ["ftp_proxy=n", "FTP_PROXY=n"]);
    assert_eq!(both("all_proxy"), ["all_proxy=n", "ALL_PROXY=n"]);
    assert_eq!(both("PATH"), ["PATH=n"]);
}

#[test]
fn an_item_with_value_from_always_replaces() {
    let cluster = cluster_env("c", json!([{"name": "no_proxy", "value": "c", "mergeStrategy": "Merge"}]));
    let own = namespaced_env("n", json!([{"name": "no_proxy", "valueFrom": source("list")}]));
    assert_eq!(env(&[cluster, own], &pod_env(&[])), ["no_proxy<list", "NO_PROXY<list"]);
}

// === how a value is made: 2. inside a level ===

#[test]
fn presets_of_a_level_are_used_by_priority_then_by_name() {
    let of = |name: &str, priority: i32| {
        cluster(name, json!({"priority": priority, "env": [{"name": "no_proxy", "value": name}]}))
    };
    let presets = [of("b", 0), of("z", 10), of("a", 0), of("c", -1)];
    assert_eq!(env(&presets, &pod_env(&[]))[0], "no_proxy=z,a,b,c");
}

#[test]
fn a_cluster_preset_is_used_before_a_namespaced_one_whatever_the_priority() {
    let own = namespaced("a", json!({"priority": 1000, "env": [{"name": "no_proxy", "value": "n"}]}));
    let cluster = cluster_env("z", json!([{"name": "no_proxy", "value": "c"}]));
    assert_eq!(env(&[own, cluster], &pod_env(&[]))[0], "no_proxy=c,n");
}

#[test]
fn of_several_replace_items_the_first_stands_and_another_that_differs_is_a_conflict() {
    let first = cluster_env("a", json!([{"name": "http_proxy", "value": "http://a"}]));
    let second =
        cluster_env("b", json!([{"name": "HTTP_PROXY", "value": "http://b"}, {"name": "X", "value": "x"}]));
    let presets = [first, second];
    let injection = inject(&presets, &pod_env(&[]));
    assert_eq!(
        env_of(&injection.pod, "containers", 0),
        ["http_proxy=http://a", "HTTP_PROXY=http://a", "X=x"],
        "a conflict of variables concerns that variable only"
    );
    assert_eq!(presets_of(&injection), Some("ClusterPodPreset/a@1,ClusterPodPreset/b@1"));
    assert_eq!(
        skipped_of(&injection),
        Some("ClusterPodPreset/b@1: variable HTTP_PROXY differs from that of ClusterPodPreset/a")
    );
    assert_eq!(
        injection.warnings,
        [
            "reach: variable HTTP_PROXY of ClusterPodPreset/b differs from that of ClusterPodPreset/a; ClusterPodPreset/a is followed"
        ]
    );
    // Told once, however many containers it concerns and whatever else they get.
    let third = cluster("c", json!({"excludeContainers": ["other"], "env": [{"name": "Y", "value": "y"}]}));
    let presets = [&presets[..], &[third]].concat();
    let pod = pod_of(json!({"containers": [container("app", json!({})), container("other", json!({}))]}));
    let both = inject(&presets, &pod);
    assert_eq!(skipped_of(&both), skipped_of(&injection));
    assert_eq!(both.warnings, injection.warnings);
}

#[test]
fn replace_items_that_are_equal_are_no_conflict() {
    let preset = |name: &str| cluster_env(name, json!([{"name": "http_proxy", "value": "http://a"}]));
    let injection = inject(&[preset("a"), preset("b")], &pod_env(&[]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["http_proxy=http://a", "HTTP_PROXY=http://a"]);
    assert_eq!(skipped_of(&injection), None);
}

#[test]
fn merge_items_join_a_replace_item_of_their_level_in_order_of_use() {
    let item = |name: &str, strategy: &str| {
        cluster_env(name, json!([{"name": "no_proxy", "value": name, "mergeStrategy": strategy}]))
    };
    let presets = [item("a", "Merge"), item("b", "Replace"), item("c", "Merge")];
    assert_eq!(env(&presets, &pod_env(&[]))[0], "no_proxy=a,b,c");
}

#[test]
fn merge_items_cannot_join_a_value_from_and_are_the_conflict() {
    let literal = cluster_env("a", json!([{"name": "no_proxy", "value": "a"}]));
    let sourced = cluster_env("b", json!([{"name": "no_proxy", "valueFrom": source("list")}]));
    let injection = inject(&[literal, sourced], &pod_env(&[]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["no_proxy<list", "NO_PROXY<list"]);
    assert_eq!(
        skipped_of(&injection),
        Some("ClusterPodPreset/a@1: variable no_proxy cannot be merged with that of ClusterPodPreset/b")
    );
}

// === how a value is made: 3. namespace over cluster ===

#[test]
fn a_replace_item_of_the_namespace_drops_the_value_of_the_cluster() {
    let cluster = cluster_env("c", json!([{"name": "http_proxy", "value": "http://c"}]));
    let own = namespaced_env("n", json!([{"name": "HTTP_PROXY", "value": "http://n"}]));
    let injection = inject(&[cluster, own], &pod_env(&[]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["http_proxy=http://n", "HTTP_PROXY=http://n"]);
    assert_eq!(skipped_of(&injection), None, "that is what levels are for");
}

#[test]
fn the_namespace_can_drop_a_list_and_extend_its_own() {
    let cluster = cluster_env("c", json!([{"name": "no_proxy", "value": "c"}]));
    let replace =
        namespaced_env("a", json!([{"name": "no_proxy", "value": "a", "mergeStrategy": "Replace"}]));
    let merge = namespaced_env("b", json!([{"name": "no_proxy", "value": "b", "mergeStrategy": "Merge"}]));
    assert_eq!(env(&[cluster, replace, merge], &pod_env(&[]))[0], "no_proxy=a,b");
}

#[test]
fn merged_values_of_both_levels_are_united_cluster_first() {
    let cluster = cluster_env("z", json!([{"name": "no_proxy", "value": ".svc,.cluster.local"}]));
    let own = namespaced_env("a", json!([{"name": "no_proxy", "value": "mysql,.svc"}]));
    assert_eq!(env(&[cluster, own], &pod_env(&[]))[0], "no_proxy=.svc,.cluster.local,mysql");
}

#[test]
fn the_namespace_wins_over_a_value_from_of_the_cluster_and_that_is_a_conflict() {
    let cluster = cluster_env("c", json!([{"name": "no_proxy", "valueFrom": source("list")}]));
    let own = namespaced_env("n", json!([{"name": "no_proxy", "value": "n"}]));
    let injection = inject(&[cluster, own], &pod_env(&[]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["no_proxy=n", "NO_PROXY=n"]);
    assert_eq!(
        skipped_of(&injection),
        Some("ClusterPodPreset/c@1: variable no_proxy cannot be merged with that of PodPreset/n")
    );
}

// === how a value is made: 4. pod over both ===

#[test]
fn the_strategy_towards_the_pod_is_the_first_declared_by_the_namespace_then_by_the_cluster() {
    let own = pod_env(&["X=own"]);
    let item = |strategy: &str| json!([{"name": "X", "value": "p", "mergeStrategy": strategy}]);
    assert_eq!(env(&[cluster_env("c", item("Merge"))], &own), ["X=p,own"]);
    assert_eq!(
        env(&[cluster_env("c", item("Merge")), namespaced_env("n", item("Replace"))], &own),
        ["X=own"]
    );
    let silent = namespaced_env("n", json!([{"name": "X", "value": "n"}]));
    assert_eq!(env(&[cluster_env("c", item("Merge")), silent], &own), ["X=p,n,own"]);
}

#[test]
fn a_variable_that_the_container_lacks_is_added_after_its_own() {
    let preset = cluster_env(
        "p",
        json!([{"name": "X", "value": "x"}, {"name": "Y", "valueFrom": source("y")}, {"name": "Z"}]),
    );
    assert_eq!(env(&[preset], &pod_env(&["A=a"])), ["A=a", "X=x", "Y<y", "Z="]);
}

#[test]
fn env_may_be_absent_null_or_empty() {
    for fields in [json!({}), json!({"env": null}), json!({"env": []})] {
        assert_eq!(env(&[any("p")], &pod(fields)), ["X=x"]);
    }
}

#[test]
fn a_replaced_variable_of_the_container_stands() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "http://p"}]));
    for own in ["http_proxy=http://own", "http_proxy=", "http_proxy", "http_proxy<own"] {
        // The empty string is how people switch the proxy off.
        assert_eq!(env(std::slice::from_ref(&preset), &pod_env(&[own])), [own]);
    }
}

#[test]
fn a_replaced_proxy_variable_of_the_container_stands_under_every_spelling() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "http://p"}]));
    for own in ["HTTP_PROXY=", "http_proxy=", "Http_Proxy="] {
        assert_eq!(env(std::slice::from_ref(&preset), &pod_env(&[own])), [own]);
    }
}

#[test]
fn a_value_from_of_a_preset_does_not_touch_the_containers_value() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "valueFrom": source("list")}]));
    let injection = inject(&[preset], &pod_env(&["no_proxy=own"]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["no_proxy=own"]);
    assert_eq!(injection.warnings, NONE);
}

#[test]
fn merged_literals_are_united_in_place_the_containers_own_last() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": ".svc"}]));
    assert_eq!(
        env(&[preset], &pod_env(&["A=a", "no_proxy=own", "NO_PROXY=own", "B=b"])),
        ["A=a", "no_proxy=.svc,own", "NO_PROXY=.svc,own", "B=b"]
    );
}

#[test]
fn a_merge_with_an_empty_value_of_the_container_is_the_presets_value() {
    let list = cluster_env("p", json!([{"name": "no_proxy", "value": ".svc"}]));
    assert_eq!(env(std::slice::from_ref(&list), &pod_env(&["no_proxy="]))[0], "no_proxy=.svc");
    assert_eq!(env(&[list], &pod_env(&["no_proxy"]))[0], "no_proxy=.svc");
    let other = cluster_env("p", json!([{"name": "X", "value": "p", "mergeStrategy": "Merge"}]));
    assert_eq!(env(&[other], &pod_env(&["X="])), ["X=p"]);
}

#[test]
fn several_spellings_in_the_container_are_united_and_all_set() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "p"}]));
    assert_eq!(
        env(&[preset], &pod_env(&["NO_PROXY=upper", "no_proxy=lower"])),
        ["NO_PROXY=p,upper,lower", "no_proxy=p,upper,lower"]
    );
}

#[test]
fn a_value_from_in_the_container_cannot_be_merged_and_is_left_alone_with_a_warning() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "p"}]));
    let injection = inject(&[preset], &pod_env(&["no_proxy<list", "NO_PROXY=own"]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["no_proxy<list", "NO_PROXY=own"]);
    assert_eq!(
        injection.warnings,
        ["reach: variable no_proxy of container app has valueFrom: left as it is"]
    );
}

#[test]
fn of_a_name_that_stands_twice_in_the_container_the_last_counts() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "p"}]));
    assert_eq!(
        env(std::slice::from_ref(&preset), &pod_env(&["no_proxy=first", "no_proxy=last"])),
        ["no_proxy=first", "no_proxy=p,last", "NO_PROXY=p,last"]
    );
    assert_eq!(
        env(&[preset], &pod_env(&["no_proxy<list", "no_proxy=last"]))[1],
        "no_proxy=p,last",
        "the valueFrom does not count"
    );
}

#[test]
fn a_merge_that_changes_nothing_changes_nothing() {
    let preset = cluster_env(
        "p",
        json!([{"name": "PATH", "value": "/opt", "mergeStrategy": "Merge", "separator": ":"}]),
    );
    assert_eq!(env(&[preset], &pod_env(&["PATH=/bin::/opt"])), ["PATH=/bin::/opt"]);
}

// === how a value is made: 5. spellings ===

#[test]
fn a_proxy_variable_is_written_in_lower_and_upper_case_however_it_is_spelled_in_the_preset() {
    for name in ["http_proxy", "HTTP_PROXY", "Http_Proxy"] {
        let preset = cluster_env("p", json!([{"name": name, "value": "v"}]));
        assert_eq!(env(&[preset], &pod_env(&[])), ["http_proxy=v", "HTTP_PROXY=v"]);
    }
}

#[test]
fn every_other_name_is_exact() {
    let preset =
        cluster_env("p", json!([{"name": "Path", "value": "p"}, {"name": "my_http_proxy", "value": "p"}]));
    assert_eq!(env(&[preset], &pod_env(&["PATH=own"])), ["PATH=own", "Path=p", "my_http_proxy=p"]);
}

#[test]
fn as_written_is_written_as_written_only() {
    let preset =
        cluster("p", json!({"letterCase": "AsWritten", "env": [{"name": "Http_Proxy", "value": "v"}]}));
    assert_eq!(env(&[preset], &pod_env(&[])), ["Http_Proxy=v"]);
}

#[test]
fn every_spelling_that_a_contributing_preset_wants_is_written() {
    let upper = |name: &str| {
        cluster(name, json!({"letterCase": "AsWritten", "env": [{"name": "NO_PROXY", "value": name}]}))
    };
    let both = cluster_env("b", json!([{"name": "no_proxy", "value": "b"}]));
    assert_eq!(env(&[upper("a"), upper("c")], &pod_env(&[])), ["NO_PROXY=a,c"]);
    assert_eq!(env(&[upper("a"), both], &pod_env(&[])), ["NO_PROXY=a,b", "no_proxy=a,b"], "in order of use");
}

#[test]
fn a_spelling_that_the_container_lacks_is_added_with_the_united_value() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": "p"}]));
    assert_eq!(
        env(std::slice::from_ref(&preset), &pod_env(&["NO_PROXY=own"])),
        ["NO_PROXY=p,own", "no_proxy=p,own"]
    );
    assert_eq!(
        env(&[preset], &pod_env(&["No_Proxy=own"])),
        ["No_Proxy=p,own", "no_proxy=p,own", "NO_PROXY=p,own"]
    );
}

// === how a value is made: 6. no_proxy ===

#[test]
fn no_proxy_is_split_at_commas_and_white_space_and_joined_with_commas() {
    let preset = cluster_env(
        "p",
        json!([{"name": "no_proxy", "value": " .svc, .cluster.local\t10.0.0.0/8\n,,mysql "}]),
    );
    assert_eq!(env(&[preset], &pod_env(&[]))[0], "no_proxy=.svc,.cluster.local,10.0.0.0/8,mysql");
}

#[test]
fn no_proxy_has_no_duplicates_whatever_their_case_and_keeps_the_first_spelling_and_place() {
    let preset = cluster_env("p", json!([{"name": "no_proxy", "value": ".SVC,b,.svc"}]));
    assert_eq!(env(&[preset], &pod_env(&["no_proxy=B, a ,.Svc"]))[0], "no_proxy=.SVC,b,a");
}

#[test]
fn no_proxy_is_tidied_also_where_it_replaces_and_whatever_its_separator() {
    let preset = cluster_env(
        "p",
        json!([{"name": "no_proxy", "value": "a b", "mergeStrategy": "Replace", "separator": ":"}]),
    );
    assert_eq!(env(&[preset], &pod_env(&[]))[0], "no_proxy=a,b");
}

/// The `no_proxy` that presets of these lists, cluster first, and a container of this one make.
fn portable(cluster_list: &str, namespace_list: &str, own: Option<&str>) -> String {
    let spec = |list: &str| json!({"noProxyForm": "Portable", "env": [{"name": "no_proxy", "value": list}]});
    let presets = [cluster("c", spec(cluster_list)), namespaced("n", spec(namespace_list))];
    let own: Vec<String> = own.iter().map(|own| format!("no_proxy={own}")).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    env(&presets, &pod_env(&own))[0].trim_start_matches("no_proxy=").to_owned()
}

#[test]
fn no_proxy_is_portable_unless_a_preset_says_otherwise_the_namespace_before_the_cluster() {
    let list = json!([{"name": "no_proxy", "value": "b,a"}]);
    let replacing = json!([{"name": "no_proxy", "value": "b,a", "mergeStrategy": "Replace"}]);
    let preset = |level: fn(&str, Value) -> Value, form: Option<&str>, env: &Value| {
        level("p", json!({"noProxyForm": form, "env": env}))
    };
    let [as_written, in_portable] = ["no_proxy=b,a", "no_proxy=.a,a,.b,b,localhost,127.0.0.1"];
    for (of_cluster, of_namespace, expected) in [
        (None, None, in_portable),
        (Some("AsWritten"), None, as_written),
        (None, Some("AsWritten"), as_written),
        (Some("AsWritten"), Some("Portable"), in_portable),
        (Some("Portable"), Some("AsWritten"), as_written),
    ] {
        // Also where the list of one of them is not followed, or it has none.
        for own in [&list, &replacing, &json!([{"name": "X", "value": "x"}])] {
            let mut presets = [preset(cluster, of_cluster, &list), preset(namespaced, of_namespace, own)];
            for preset in &mut presets {
                let spec = preset["spec"].as_object_mut().unwrap();
                spec.retain(|_, value| !value.is_null());
            }
            assert_eq!(env(&presets, &pod_env(&[]))[0], expected, "{of_cluster:?} {of_namespace:?} {own}");
        }
    }
}

#[test]
fn the_portable_form_sorts_names_then_addresses_then_networks_and_has_loopback() {
    assert_eq!(
        portable("10.96.0.0/12,.svc,10.0.0.10", "MySQL,10.0.0.9,.SVC", None),
        ".mysql,mysql,.svc,svc,localhost,10.0.0.9,10.0.0.10,127.0.0.1,10.96.0.0/12"
    );
}

#[test]
fn the_portable_form_has_both_spellings_of_a_name() {
    let expected = ".corp.example,corp.example,localhost,127.0.0.1";
    for name in ["corp.example", ".corp.example", "*.corp.example", "corp.example,.CORP.example"] {
        assert_eq!(portable(name, "", None), expected, "{name}");
    }
    assert_eq!(portable("corp.", "", None), ".corp,corp,.corp.,corp.,localhost,127.0.0.1");
    assert_eq!(portable(".localhost", "localhost", None), ".localhost,localhost,127.0.0.1");
}

#[test]
fn the_portable_form_keeps_the_address_of_a_network_with_host_bits() {
    assert_eq!(portable("10.10.192.1/18", "", None), "localhost,10.10.192.1,127.0.0.1,10.10.192.0/18");
    assert_eq!(portable("10.1.2.3/32", "", None), "localhost,10.1.2.3,127.0.0.1,10.1.2.3/32");
}

#[test]
fn everything_alone_stays_alone_and_among_others_is_one_more() {
    assert_eq!(portable("*", "", None), "*");
    assert_eq!(portable(".svc", "", Some("*")), "*");
    assert_eq!(portable(".svc", "a,*", None), ".a,a,.svc,svc,localhost,127.0.0.1,*");
}

#[test]
fn what_some_clients_cannot_be_given_is_never_widened() {
    assert_eq!(
        portable("web:8080,foo.*.bar,10.96.*,10.0.0.1-10.0.0.9", "$(EXTRA)", None),
        "localhost,127.0.0.1,10.0.0.1-10.0.0.9,web:8080,$(EXTRA),10.96.*,foo.*.bar"
    );
}

#[test]
fn what_breaks_a_client_is_left_out_of_presets_and_stays_in_the_container() {
    assert_eq!(portable("fd00::/64,[fd00:0::1],web:http", "a", None), ".a,a,localhost,127.0.0.1,fd00::1");
    assert_eq!(
        portable("a", "", Some("fd00::/64,[fd00::2]")),
        ".a,a,localhost,127.0.0.1,fd00::2,[fd00::2],fd00::/64"
    );
}

// === how a value is made: 7. other merged values ===

#[test]
fn other_values_are_united_at_commas_by_default() {
    let cluster = cluster_env("c", json!([{"name": "HOSTS", "value": "a, b", "mergeStrategy": "Merge"}]));
    let own = namespaced_env("n", json!([{"name": "HOSTS", "value": "b,c,A", "mergeStrategy": "Merge"}]));
    assert_eq!(env(&[cluster, own], &pod_env(&[])), ["HOSTS=a,b,c,A"]);
}

#[test]
fn a_path_is_united_at_its_separator() {
    let item =
        |value: &str| json!([{"name": "PATH", "value": value, "mergeStrategy": "Merge", "separator": ":"}]);
    let presets = [
        cluster_env("c", item("/opt/corp/bin:/usr/bin")),
        namespaced_env("n", item("/opt/shop/bin:/usr/bin")),
    ];
    assert_eq!(env(&presets, &pod_env(&[])), ["PATH=/opt/corp/bin:/usr/bin:/opt/shop/bin"]);
    assert_eq!(
        env(&presets, &pod_env(&["PATH=/app/bin:/usr/bin:/bin"])),
        ["PATH=/opt/corp/bin:/opt/shop/bin:/app/bin:/usr/bin:/bin"],
        "what the container has already is not added again"
    );
}

#[test]
fn what_replaces_is_not_split() {
    let preset = cluster_env("p", json!([{"name": "X", "value": " a, b,,a ", "separator": ","}]));
    assert_eq!(env(&[preset], &pod_env(&[])), ["X= a, b,,a "]);
}

#[test]
fn what_the_container_wrote_stays_to_the_letter_and_comes_last() {
    let preset = cluster_env("p", json!([{"name": "X", "value": "p", "mergeStrategy": "Merge"}]));
    assert_eq!(env(&[preset], &pod_env(&["X= a, b,,a "])), ["X=p, a, b,,a "]);
}

#[test]
fn a_command_line_is_one_entry() {
    let item = |value: &str| json!([{"name": "JAVA_TOOL_OPTIONS", "value": value, "mergeStrategy": "Merge", "separator": " "}]);
    let presets = [
        cluster_env("c", item("-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128")),
        namespaced_env("n", item("-Dhttp.proxyHost=proxy -Dx=1")),
    ];
    assert_eq!(
        env(&presets, &pod_env(&["JAVA_TOOL_OPTIONS=-Xmx1g"])),
        [
            "JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=proxy -Dhttp.proxyPort=3128 -Dhttp.proxyHost=proxy -Dx=1 -Xmx1g"
        ],
        "a word that stands in both is part of both"
    );
}

#[test]
fn an_entry_of_several_words_is_found_where_it_overlaps_with_itself() {
    let item =
        json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-v -v", "mergeStrategy": "Merge", "separator": " "}]);
    let own = "JAVA_TOOL_OPTIONS=x-v -v -v";
    assert_eq!(env(&[cluster_env("c", item)], &pod_env(&[own])), [own]);
}

#[test]
fn words_of_a_command_line_are_not_torn_apart() {
    let options = "--require /a.js --require /b.js";
    let preset = cluster_env(
        "p",
        json!([{"name": "NODE_OPTIONS", "value": options, "mergeStrategy": "Merge", "separator": " "}]),
    );
    assert_eq!(env(std::slice::from_ref(&preset), &pod_env(&[])), [format!("NODE_OPTIONS={options}")]);
    assert_eq!(
        env(&[preset], &pod_env(&["NODE_OPTIONS=--require /own.js"])),
        [format!("NODE_OPTIONS={options} --require /own.js")]
    );
}

#[test]
fn a_command_line_that_is_there_already_is_not_added_again() {
    let preset = cluster_env(
        "p",
        json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-Dx=1", "mergeStrategy": "Merge", "separator": " "}]),
    );
    let same = "JAVA_TOOL_OPTIONS=-Xmx1g -Dx=1 -Dy=2";
    assert_eq!(env(std::slice::from_ref(&preset), &pod_env(&[same])), [same]);
    // `-Dx=10` only begins with it.
    assert_eq!(env(&[preset], &pod_env(&["JAVA_TOOL_OPTIONS=-Dx=10"])), ["JAVA_TOOL_OPTIONS=-Dx=1 -Dx=10"]);
}

// === how a value is made: 8. place ===

#[test]
fn a_password_stands_before_the_proxy_that_refers_to_it() {
    let preset = cluster_env(
        "p",
        json!([
            {"name": "PROXY_PASSWORD", "valueFrom": source("proxy")},
            {"name": "http_proxy", "value": "http://u:$(PROXY_PASSWORD)@proxy:3128"},
        ]),
    );
    assert_eq!(
        env(&[preset], &pod_env(&["A=a"])),
        [
            "A=a",
            "PROXY_PASSWORD<proxy",
            "http_proxy=http://u:$(PROXY_PASSWORD)@proxy:3128",
            "HTTP_PROXY=http://u:$(PROXY_PASSWORD)@proxy:3128"
        ]
    );
}

#[test]
fn a_variable_stands_where_the_last_item_that_contributed_to_it_stands() {
    let cluster = cluster_env(
        "c",
        json!([{"name": "no_proxy", "value": "c"}, {"name": "http_proxy", "value": "http://c"}]),
    );
    let own = namespaced_env(
        "n",
        json!([
            {"name": "HOST", "valueFrom": source("host")},
            {"name": "no_proxy", "value": "$(HOST)"},
        ]),
    );
    assert_eq!(
        env(&[cluster, own], &pod_env(&[])),
        [
            "http_proxy=http://c",
            "HTTP_PROXY=http://c",
            "HOST<host",
            "no_proxy=c,$(HOST)",
            "NO_PROXY=c,$(HOST)"
        ]
    );
}

#[test]
fn a_variable_that_takes_the_clusters_place_stands_where_the_namespace_has_it() {
    let cluster =
        cluster_env("c", json!([{"name": "http_proxy", "value": "http://c"}, {"name": "X", "value": "x"}]));
    let own = namespaced_env(
        "n",
        json!([
            {"name": "PROXY_PASSWORD", "valueFrom": source("proxy")},
            {"name": "http_proxy", "value": "http://$(PROXY_PASSWORD)@n"},
        ]),
    );
    assert_eq!(
        env(&[cluster, own], &pod_env(&[]))[..3],
        ["X=x", "PROXY_PASSWORD<proxy", "http_proxy=http://$(PROXY_PASSWORD)@n"]
    );
}

#[test]
fn a_value_stands_behind_what_it_refers_to_whichever_level_says_it() {
    let cluster = cluster_env(
        "c",
        json!([
            {"name": "PROXY_PASSWORD", "valueFrom": source("corporate")},
            {"name": "http_proxy", "value": "http://$(PROXY_PASSWORD)@c"},
            {"name": "X", "value": "$$(Y)"},
        ]),
    );
    let own = namespaced_env(
        "n",
        json!([
            {"name": "Y", "value": "$(PROXY_PASSWORD)"},
            {"name": "PROXY_PASSWORD", "valueFrom": source("shop")},
        ]),
    );
    assert_eq!(
        env(&[cluster, own], &pod_env(&[])),
        [
            "PROXY_PASSWORD<shop",
            "http_proxy=http://$(PROXY_PASSWORD)@c",
            "HTTP_PROXY=http://$(PROXY_PASSWORD)@c",
            "X=$$(Y)",
            "Y=$(PROXY_PASSWORD)"
        ]
    );
    // Of variables that refer to each other, no order is right.
    let circle = cluster_env(
        "p",
        json!([{"name": "A", "value": "$(B)$(A)"}, {"name": "B", "value": "$(A)"}, {"name": "C", "value": "$(B)"}]),
    );
    assert_eq!(env(&[circle], &pod_env(&[])), ["B=$(A)", "A=$(B)$(A)", "C=$(B)"]);
}

// === how a value is made: 9. noProxyFrom ===

#[test]
fn no_proxy_from_alone_is_a_no_proxy() {
    let preset = cluster("p", json!({"noProxyForm": "Portable", "noProxyFrom": ["Services"]}));
    assert_eq!(
        env(&[preset], &pod_env(&[])),
        ["no_proxy=localhost,127.0.0.1", "NO_PROXY=localhost,127.0.0.1"]
    );
}

#[test]
fn no_proxy_from_alone_adds_to_a_list_that_others_replace() {
    let replaces =
        cluster_env("c", json!([{"name": "no_proxy", "value": ".svc", "mergeStrategy": "Replace"}]));
    let adds = namespaced("n", json!({"noProxyFrom": ["Services"]}));
    let services = [("shop", Arc::new(List::parse("db", Author::Preset)))];
    let snapshot = engine::snapshot(&[replaces, adds], [("shop", &json!({}))]).with_services(services);
    let list = |own: &[&str]| {
        let injection = engine::inject(&snapshot, "shop", &pod_env(own), None);
        env_of(&injection.pod, "containers", 0).remove(0)
    };
    assert_eq!(list(&[]), "no_proxy=.svc,.db,db");
    // It says nothing of the pod's own list.
    assert_eq!(list(&["no_proxy=own"]), "no_proxy=own");
    // Where it cannot be added, it takes the place of nothing.
    let from = cluster_env("c", json!([{"name": "no_proxy", "valueFrom": source("list")}]));
    let adds = namespaced("n", json!({"noProxyFrom": ["Services"]}));
    let injection = inject(&[from, adds], &pod_env(&[]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["no_proxy<list", "NO_PROXY<list"]);
    assert_eq!(
        skipped_of(&injection),
        Some("PodPreset/n@1: variable no_proxy cannot be merged with that of ClusterPodPreset/c")
    );
}

#[test]
fn other_lists_of_the_cluster_count_whatever_was_asked_before() {
    let preset = cluster("p", json!({"noProxyForm": "Portable", "noProxyFrom": ["Nodes"]}));
    let labels = json!({});
    let mut snapshot = engine::snapshot([&preset], [("shop", &labels)]);
    for node in ["10.1.2.3", "10.4.5.6"] {
        let nodes = List::parse(node, Author::Preset);
        snapshot = snapshot.with_derived(Arc::new(ClusterLists { nodes, ..ClusterLists::default() }));
        let injection = engine::inject(&snapshot, "shop", &pod_env(&[]), None);
        let list = env_of(&injection.pod, "containers", 0).remove(0);
        assert_eq!(list, format!("no_proxy=localhost,{node},127.0.0.1"));
    }
}

#[test]
fn each_namespace_gets_its_own_services_whoever_asked_before() {
    let preset = cluster("p", json!({"noProxyForm": "Portable", "noProxyFrom": ["Services"]}));
    let namespaces = ["shop", "other"];
    let labels = json!({});
    let services =
        namespaces.map(|name| (name, Arc::new(List::parse(&format!("db.{name}"), Author::Preset))));
    let snapshot =
        engine::snapshot([&preset], namespaces.map(|name| (name, &labels))).with_services(services);
    let pod = pod_env(&[]);
    for name in ["shop", "other", "shop", "other"] {
        let injection = engine::inject(&snapshot, name, &pod, None);
        let list = env_of(&injection.pod, "containers", 0).remove(0);
        let known = namespaces.map(|other| list.contains(&format!("db.{other}")));
        assert_eq!(known, namespaces.map(|other| other == name), "{name}: {list}");
    }
}

#[test]
fn as_many_containers_as_are_said_have_room_for_the_longest_list_of_a_source() {
    // Short names and long ones: each entry takes its share of what is written around it.
    for length in [1_usize, 20, 63] {
        let mut services = Services::default();
        for number in 0..3000 {
            services.insert("shop", &format!("s{}{number}", "x".repeat(length.saturating_sub(5))));
        }
        let made = services.all();
        assert!(made.left_out.over > 0, "as long as it gets");
        for (containers, derive) in [(7, json!([])), (5, json!(["Java"]))] {
            let env = json!([{"name": "http_proxy", "value": "http://proxy.corp.example:3128"}]);
            let preset = cluster(
                "p",
                json!({"noProxyForm": "Portable", "env": env, "noProxyFrom": ["AllServices"], "derive": derive}),
            );
            let lists = ClusterLists { all_services: (*made.list).clone(), ..ClusterLists::default() };
            let snapshot = engine::snapshot([&preset], [("shop", &*NO_LABELS)]).with_derived(Arc::new(lists));
            let names = (0..containers).map(|number| container(&format!("c{number}"), json!({})));
            let pod = pod_of(json!({"containers": names.collect::<Value>()}));
            let patch = engine::inject(&snapshot, "shop", &pod, None).patch.expect("a patch");
            assert!(patch.len() <= MAX_PATCH, "{containers} containers, {derive}: {} bytes", patch.len());
        }
    }
}

#[test]
fn lists_with_other_sources_do_not_say_the_same() {
    let preset = |name: &str, sources: Value| {
        let env = json!([{"name": "no_proxy", "value": "a", "mergeStrategy": "Replace"}]);
        cluster(name, json!({"env": env, "noProxyFrom": sources}))
    };
    let skipped = |of_one: Value, of_other: Value| {
        let injection = inject(&[preset("a", of_one), preset("b", of_other)], &pod_env(&[]));
        injection.pod["metadata"]["annotations"]["reach.dev/skipped"].as_str().map(str::to_owned)
    };
    assert_eq!(skipped(json!(["Nodes", "Services"]), json!(["Services", "Nodes"])), None);
    assert_eq!(
        skipped(json!(["Nodes"]), json!(["Nodes", "Services"])).as_deref(),
        Some("ClusterPodPreset/b@1: variable no_proxy differs from that of ClusterPodPreset/a")
    );
}

// === how a value is made: 10. derive ===

#[test]
fn node_is_told_to_read_the_variables_unless_the_container_says_otherwise() {
    let preset = cluster("p", json!({"derive": ["Node"]}));
    assert_eq!(env(std::slice::from_ref(&preset), &pod_env(&[])), ["NODE_USE_ENV_PROXY=1"]);
    assert_eq!(env(&[preset], &pod_env(&["NODE_USE_ENV_PROXY=0"])), ["NODE_USE_ENV_PROXY=0"]);
}

fn java_preset() -> Value {
    let env = json!([
        {"name": "http_proxy", "value": "http://user:secret@proxy.corp.example:3128"},
        {"name": "no_proxy", "value": ".svc,10.96.0.0/15,web:80"},
    ]);
    cluster(
        "p",
        json!({"noProxyForm": "Portable", "letterCase": "AsWritten", "derive": ["Java"], "env": env}),
    )
}

#[test]
fn a_jvm_is_told_the_same_without_the_password() {
    assert_eq!(
        env(&[java_preset()], &pod_env(&[]))[2],
        "JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=proxy.corp.example -Dhttp.proxyPort=3128 \
         -Dhttp.nonProxyHosts=*.svc|svc|localhost|127.0.0.1|10.96.*|10.97.*"
    );
}

#[test]
fn a_jvm_keeps_its_own_options_and_is_told_what_the_container_ends_up_with() {
    let own = ["JAVA_TOOL_OPTIONS=-Xmx1g", "http_proxy=http://own:1", "no_proxy=db"];
    assert_eq!(
        env(&[java_preset()], &pod_env(&own))[0],
        "JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=own -Dhttp.proxyPort=1 \
         -Dhttp.nonProxyHosts=*.db|db|*.svc|svc|localhost|127.0.0.1|10.96.*|10.97.* -Xmx1g"
    );
    let own = ["JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=x -Dhttp.nonProxyHosts=y"];
    assert_eq!(env(&[java_preset()], &pod_env(&own))[0], own[0]);
}

#[test]
fn a_jvm_is_told_nothing_where_no_proxy_is_known() {
    let env_items = json!([{"name": "http_proxy", "valueFrom": source("proxy")}]);
    let preset = cluster("p", json!({"letterCase": "AsWritten", "derive": ["Java"], "env": env_items}));
    assert_eq!(env(&[preset], &pod_env(&[])), ["http_proxy<proxy"]);
}

#[test]
fn a_jvm_is_told_nothing_where_nobody_knows_what_goes_past_the_proxy() {
    let env_items = json!([
        {"name": "http_proxy", "value": "http://proxy:1"},
        {"name": "no_proxy", "valueFrom": source("list")},
    ]);
    let preset = cluster("p", json!({"letterCase": "AsWritten", "derive": ["Java"], "env": env_items}));
    assert_eq!(env(&[preset], &pod_env(&[])), ["http_proxy=http://proxy:1", "no_proxy<list"]);
}

#[test]
fn what_others_tell_a_jvm_stands_and_a_host_has_its_own_port() {
    let derives = java_preset();
    for said in ["-Dhttp.proxyHost=team", "-Dhttp.proxyPort=8080"] {
        // By the container itself.
        let own = [&*format!("JAVA_TOOL_OPTIONS={said}")];
        assert_eq!(env(std::slice::from_ref(&derives), &pod_env(&own))[0], own[0]);
        // By a preset of the namespace.
        let item =
            json!([{"name": "JAVA_TOOL_OPTIONS", "value": said, "mergeStrategy": "Merge", "separator": " "}]);
        let injected = env(&[derives.clone(), namespaced_env("n", item)], &pod_env(&[]));
        assert!(injected.contains(&own[0].to_owned()), "{injected:?}");
    }
}

/// HotSpot 8 ignores the whole variable if it has more.
#[test]
fn options_of_others_are_not_lost_to_a_list_that_is_too_long_for_java_8() {
    let names = |count: usize| (0..count).map(|n| format!("a{n:03}.x")).collect::<Vec<_>>().join(",");
    let options = |names: &str, own: &[&str]| {
        let list = format!("no_proxy={names}");
        let own = [own, &[&*list]].concat();
        let injection = inject(&[java_preset()], &pod_env(&own));
        let of_java = |text: &String| text.starts_with("JAVA_TOOL_OPTIONS=");
        let env = env_of(&injection.pod, "containers", 0);
        (env.into_iter().find(of_java).expect("the variable"), injection.warnings)
    };
    let agent = ["JAVA_TOOL_OPTIONS=-javaagent:/otel.jar"];
    let length = |text: &str| text.len() - "JAVA_TOOL_OPTIONS=".len();
    let fits =
        (1..99).map(names).take_while(|names| length(&options(names, &agent).0) > length(agent[0])).last();
    let (longest, warnings) = options(&fits.clone().expect("some fit"), &agent);
    assert!(length(&longest) <= 1023 && length(&longest) > 1000 && warnings.is_empty(), "{longest}");
    let (left, warnings) = options(&(fits.expect("some fit") + ",one.more.example"), &agent);
    assert_eq!(left, agent[0]);
    assert!(
        matches!(&warnings[..], [one] if one.contains("JAVA_TOOL_OPTIONS of container app")),
        "{warnings:?}"
    );
    // Where nobody says anything else, there is nothing to lose: Java 9 and later read it.
    let (alone, warnings) = options(&names(98), &[]);
    assert!(length(&alone) > 1023 && warnings.is_empty(), "{alone}");
}

#[test]
fn options_of_a_jvm_may_have_as_many_bytes_as_java_8_reads() {
    let options = |own: usize| {
        let own = format!("JAVA_TOOL_OPTIONS=-Dx={}", "x".repeat(own - "-Dx=".len()));
        let injection = inject(&[java_preset()], &pod_env(&[&own]));
        let all = env_of(&injection.pod, "containers", 0).remove(0);
        (all.len() - "JAVA_TOOL_OPTIONS=".len(), injection.warnings.len())
    };
    let added = options(100).0 - 100;
    assert_eq!(options(1023 - added), (1023, 0));
    assert_eq!(options(1024 - added), (1024 - added, 1));
}

#[test]
fn a_jvm_does_without_names_of_the_cluster_before_it_does_without_the_proxy() {
    let preset = cluster(
        "p",
        merge(java_preset()["spec"].clone(), json!({"noProxyFrom": ["Services", "ClusterNetwork", "Nodes"]})),
    );
    let known = |services: usize| {
        let lists = ClusterLists {
            cluster_network: List::parse("10.32.0.0/16", Author::Preset),
            nodes: List::parse("192.0.2.7", Author::Preset),
            ..ClusterLists::default()
        };
        let services = [("shop", Arc::new(List::parse(&names(services, "service-", ""), Author::Preset)))];
        engine::snapshot([&preset], [("shop", &*NO_LABELS)])
            .with_services(services)
            .with_derived(Arc::new(lists))
    };
    let agent = "JAVA_TOOL_OPTIONS=-javaagent:/otel.jar";
    let told = |services: usize, own: &[&str]| {
        let injection = engine::inject(&known(services), "shop", &pod_env(&[&[agent], own].concat()), None);
        (env_of(&injection.pod, "containers", 0).remove(0), injection.warnings)
    };
    let options = |patterns: &str| {
        format!(
            "JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=proxy.corp.example -Dhttp.proxyPort=3128 \
             -Dhttp.nonProxyHosts={patterns} -javaagent:/otel.jar"
        )
    };
    let warning = |left_out: &str| {
        vec![format!(
            "reach: variable JAVA_TOOL_OPTIONS of container app {left_out}: \
             with more than 1023 bytes Java 8 would ignore all of it"
        )]
    };
    let without_names = || warning("is without Services and Nodes of noProxyFrom");
    let whole = "*.service-0|service-0|*.svc|svc|localhost|127.0.0.1|192.0.2.7|10.32.*|10.96.*|10.97.*";
    assert_eq!(told(1, &[]), (options(whole), vec![]));
    let shorter = "*.svc|svc|localhost|127.0.0.1|10.32.*|10.96.*|10.97.*";
    assert_eq!(told(99, &[]), (options(shorter), without_names()));
    // With what the container itself does not send to the proxy, under whichever name.
    for own in ["no_proxy=db", "NO_PROXY=db"] {
        assert_eq!(told(99, &[own]), (options(&format!("*.db|db|{shorter}")), without_names()));
    }
    // Too long without them, too.
    let own = format!("no_proxy={}", names(99, "host-", ""));
    assert_eq!(told(99, &[&own]), (agent.to_owned(), warning("does not get the proxy")));
    // The list itself has the names.
    let list =
        env_of(&engine::inject(&known(99), "shop", &pod_env(&[]), None).pod, "containers", 0).remove(1);
    assert!(list.starts_with("no_proxy=") && list.contains("service-98"), "{list}");
}

#[test]
fn a_jvm_with_options_from_elsewhere_is_left_alone_with_a_warning() {
    let injection = inject(&[java_preset()], &pod_env(&["JAVA_TOOL_OPTIONS<java"]));
    assert_eq!(injection.pod["spec"]["containers"][0]["env"][0]["valueFrom"], source("java"));
    assert_eq!(injection.warnings.len(), 1, "{:?}", injection.warnings);
}

// === envFrom ===

#[test]
fn an_env_from_entry_is_appended_unless_it_is_there() {
    let preset = cluster(
        "p",
        json!({"envFrom": [
            {"configMapRef": {"name": "common"}},
            {"prefix": "P_", "configMapRef": {"name": "common"}},
            {"secretRef": {"name": "common"}},
        ]}),
    );
    let own = pod(json!({"envFrom": [{"configMapRef": {"name": "common", "optional": true}, "prefix": ""}]}));
    assert_eq!(
        inject(&[preset], &own).pod["spec"]["containers"][0]["envFrom"],
        json!([
            {"configMapRef": {"name": "common", "optional": true}, "prefix": ""},
            {"prefix": "P_", "configMapRef": {"name": "common"}},
            {"secretRef": {"name": "common"}},
        ])
    );
}

#[test]
fn an_env_from_entry_of_two_presets_is_appended_once_in_order_of_use() {
    let preset = |name: &str, spec: Value| cluster(name, json!({"envFrom": spec}));
    let (common, other) =
        (json!({"configMapRef": {"name": "common"}}), json!({"secretRef": {"name": "other"}}));
    let presets = [preset("b", json!([other, common])), preset("a", json!([common]))];
    for own in [json!({}), json!({"envFrom": null})] {
        assert_eq!(
            inject(&presets, &pod(own)).pod["spec"]["containers"][0]["envFrom"],
            json!([common, other])
        );
    }
}

// === volumes and mounts ===

/// A preset that mounts a CA at /etc/ssl/corporate.
fn ca(kind: fn(&str, Value) -> Value, name: &str, volume: Value) -> Value {
    kind(
        name,
        json!({
            "volumes": [merge(json!({"name": "ca"}), volume)],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/corporate", "readOnly": true}],
        }),
    )
}

/// A pod with these volumes and a container with these mounts.
fn pod_storage(volumes: Value, mounts: Value) -> Value {
    pod_of(json!({"volumes": volumes, "containers": [container("app", json!({"volumeMounts": mounts}))]}))
}

#[test]
fn volumes_and_mounts_are_added_after_those_of_the_pod() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let own = pod_storage(
        json!([{"name": "data", "emptyDir": {}}]),
        json!([{"name": "data", "mountPath": "/data"}]),
    );
    let injected = inject(std::slice::from_ref(&preset), &own).pod;
    assert_eq!(
        injected["spec"]["volumes"],
        json!([{"name": "data", "emptyDir": {}}, {"name": "ca", "configMap": {"name": "ca"}}])
    );
    assert_eq!(
        injected["spec"]["containers"][0]["volumeMounts"],
        json!([
            {"name": "data", "mountPath": "/data"},
            {"name": "ca", "mountPath": "/etc/ssl/corporate", "readOnly": true},
        ])
    );
    let none = inject(&[preset], &pod_storage(Value::Null, Value::Null)).pod;
    assert_eq!(none["spec"]["volumes"], json!([{"name": "ca", "configMap": {"name": "ca"}}]));
}

/// Sources of volumes as somebody writes them, and as an API server completes them; `tests/e2e/pods.rs` asks a real one.
const VOLUMES: &str = include_str!("fixtures/volumes.json");

#[test]
fn a_volume_that_the_api_server_has_completed_is_the_presets_own() {
    let pairs: Vec<Value> = serde_json::from_str(VOLUMES).expect("JSON");
    for pair in &pairs {
        let (written, completed) = (&pair["written"], &pair["completed"]);
        let own = pod_storage(json!([merge(json!({"name": "ca"}), completed.clone())]), json!([]));
        let injection = inject(&[ca(cluster, "p", written.clone())], &own);
        assert_eq!(injection.pod["spec"]["volumes"], own["spec"]["volumes"], "{written}");
        assert_eq!(skipped_of(&injection), None, "{written}");
    }
    let limit = |limit: &str| json!([{"name": "ca", "emptyDir": {"sizeLimit": limit}}]);
    // It keeps these as they are written.
    for (one, other) in [("+5n", "5n"), ("1e3", "1k"), ("2E6", "2M"), ("+1k", "1000")] {
        let own = pod_storage(limit(other), json!([]));
        let injection = inject(&[ca(cluster, "p", limit(one)[0].clone())], &own);
        assert_eq!(skipped_of(&injection), None, "{one} is {other}");
    }
    for (one, other) in
        [("1", "2"), ("1G", "1Gi"), ("-1Gi", "1Gi"), ("1.2Gi", "1.3Gi"), ("x", "y"), ("1", "1k")]
    {
        let own = pod_storage(limit(other), json!([]));
        let injection = inject(&[ca(cluster, "p", limit(one)[0].clone())], &own);
        assert!(skipped_of(&injection).is_some(), "{one} is not {other}");
    }
}

#[test]
fn a_mount_that_is_there_already_is_not_added_again() {
    let preset = cluster(
        "p",
        json!({
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl"}],
        }),
    );
    let volumes = json!([{"name": "ca", "configMap": {"name": "ca", "defaultMode": 420}}]);
    for fields in [json!({}), json!({"readOnly": false}), json!({"mountPath": "/etc/ssl/"})] {
        let own = pod_storage(
            volumes.clone(),
            json!([merge(json!({"name": "ca", "mountPath": "/etc/ssl"}), fields)]),
        );
        let injection = inject(std::slice::from_ref(&preset), &own);
        assert_eq!(injection.pod["spec"], own["spec"]);
        assert_eq!(presets_of(&injection), Some("ClusterPodPreset/p@1"));
    }
}

#[test]
fn a_volume_of_the_namespace_takes_the_place_of_the_clusters() {
    let presets = [
        ca(cluster, "c", json!({"configMap": {"name": "corporate"}})),
        namespaced("n", json!({"volumes": [{"name": "ca", "secret": {"secretName": "shop"}}]})),
    ];
    let injection = inject(&presets, &pod_env(&[]));
    assert_eq!(injection.pod["spec"]["volumes"], json!([{"name": "ca", "secret": {"secretName": "shop"}}]));
    assert_eq!(
        injection.pod["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": "ca", "mountPath": "/etc/ssl/corporate", "readOnly": true}])
    );
    assert_eq!(presets_of(&injection), Some("ClusterPodPreset/c@1,PodPreset/n@1"));
    assert_eq!(skipped_of(&injection), None);
}

// === ephemeral containers ===

/// A running pod with two ephemeral containers, `old` and `new`.
fn running(volumes: Value) -> Value {
    pod_of(json!({
        "volumes": volumes,
        "containers": [container("app", json!({}))],
        "ephemeralContainers": [container("old", json!({})), container("new", json!({}))],
    }))
}

#[test]
fn only_new_ephemeral_containers_are_touched_and_there_are_no_annotations() {
    let injection = inject_ephemeral(&[any("p")], &running(json!([])), &["old"]);
    assert_eq!(env_of(&injection.pod, "ephemeralContainers", 1), ["X=x"]);
    assert_eq!(env_of(&injection.pod, "ephemeralContainers", 0), NONE);
    assert_eq!(env_of(&injection.pod, "containers", 0), NONE);
    assert_eq!(injection.pod["metadata"], running(json!([]))["metadata"]);
}

#[test]
fn without_new_ephemeral_containers_nothing_is_to_do() {
    let injection = inject_ephemeral(&[any("p")], &running(json!([])), &["old", "new"]);
    assert_eq!(injection.left_alone, Some(LeftAlone::NoPreset));
}

#[test]
fn a_mount_whose_volume_the_running_pod_lacks_keeps_the_preset_from_an_ephemeral_container() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let injection = inject_ephemeral(&[preset.clone(), any("q")], &running(json!([])), &["old"]);
    assert_eq!(injection.pod["spec"]["volumes"], json!([]));
    assert_eq!(env_of(&injection.pod, "ephemeralContainers", 1), ["X=x"]);
    assert_eq!(
        injection.warnings,
        ["reach: ClusterPodPreset/p not applied: volume ca is not in the pod and cannot be added to it now"]
    );
    // One that was injected as it was created has it.
    let injection =
        inject_ephemeral(&[preset], &running(json!([{"name": "ca", "configMap": {"name": "ca"}}])), &["old"]);
    assert_eq!(injection.pod["spec"]["ephemeralContainers"][1]["volumeMounts"][0]["name"], "ca");
    assert_eq!(injection.warnings, NONE);
}

#[test]
fn a_sub_path_keeps_the_preset_from_an_ephemeral_container() {
    let preset = cluster(
        "p",
        json!({
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca.pem", "subPath": "ca.pem"}],
        }),
    );
    let pod = running(json!([{"name": "ca", "configMap": {"name": "ca"}}]));
    let injection = inject_ephemeral(&[preset], &pod, &["old"]);
    assert!(injection.patch.is_none());
    assert_eq!(
        injection.warnings,
        [
            "reach: ClusterPodPreset/p not applied: mount path /etc/ca.pem has a subPath, which ephemeral container new cannot have"
        ]
    );
}

// === conflicts ===

/// Expects that `p` is kept out of the pod altogether, for this reason, and `q` is applied.
fn kept_out(preset: Value, pod: &Value, reason: &str) {
    let before = pod["spec"].clone();
    let injection = inject(&[preset, any("q")], pod);
    let mut after = injection.pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        for (index, container) in after[list].as_array_mut().into_iter().flatten().enumerate() {
            assert_eq!(env_of(&injection.pod, list, index), ["X=x"], "the other preset is applied");
            container.as_object_mut().expect("a container").shift_remove("env");
        }
    }
    if before["initContainers"].is_null() {
        after.as_object_mut().expect("a spec").shift_remove("initContainers");
    }
    assert_eq!(
        after, before,
        "nothing of the conflicting preset is applied, and nothing of the pod's is lost"
    );
    assert_eq!(presets_of(&injection), Some("ClusterPodPreset/q@1"));
    assert_eq!(skipped_of(&injection), Some(format!("ClusterPodPreset/p@1: {reason}").as_str()));
    assert_eq!(injection.warnings, [format!("reach: ClusterPodPreset/p not applied: {reason}")]);
}

#[test]
fn a_volume_name_taken_by_other_content_of_the_pod_is_a_conflict() {
    let mut preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    preset["spec"]["env"] = json!([{"name": "http_proxy", "value": "http://p"}]);
    let pod = pod_storage(json!([{"name": "ca", "emptyDir": {}}]), json!([]));
    // A proxy without its CA is worse than none: not even the variable.
    kept_out(preset, &pod, "volume ca is taken by different content");
}

#[test]
fn a_volume_name_taken_by_an_earlier_preset_of_the_level_is_a_conflict() {
    let presets = [
        ca(cluster, "a", json!({"configMap": {"name": "a"}})),
        ca(cluster, "b", json!({"configMap": {"name": "b"}})),
    ];
    let injection = inject(&presets, &pod_env(&[]));
    assert_eq!(injection.pod["spec"]["volumes"], json!([{"name": "ca", "configMap": {"name": "a"}}]));
    assert_eq!(presets_of(&injection), Some("ClusterPodPreset/a@1"));
    assert_eq!(skipped_of(&injection), Some("ClusterPodPreset/b@1: volume ca is taken by different content"));
}

#[test]
fn equal_volumes_and_mounts_of_two_presets_are_no_conflict() {
    let presets = [
        ca(cluster, "a", json!({"configMap": {"name": "ca"}})),
        ca(cluster, "b", json!({"configMap": {"name": "ca", "defaultMode": 420}})),
    ];
    let injection = inject(&presets, &pod_env(&[]));
    assert_eq!(injection.pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(injection.pod["spec"]["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
    assert_eq!(skipped_of(&injection), None);
}

#[test]
fn a_mount_path_taken_by_another_mount_of_a_container_is_a_conflict() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let pod = pod_storage(
        json!([{"name": "own", "emptyDir": {}}]),
        json!([{"name": "own", "mountPath": "/etc/ssl/corporate/"}]),
    );
    kept_out(preset, &pod, "mount path /etc/ssl/corporate in container app is taken");
}

#[test]
fn a_mount_path_taken_in_one_container_keeps_the_preset_from_all() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let taken = json!({"volumeMounts": [{"name": "own", "mountPath": "/etc/ssl/corporate"}]});
    let pod = pod_of(json!({
        "volumes": [{"name": "own", "emptyDir": {}}],
        "initContainers": [container("setup", taken)],
        "containers": [container("app", json!({}))],
    }));
    kept_out(preset, &pod, "mount path /etc/ssl/corporate in container setup is taken");
}

#[test]
fn a_mount_path_taken_in_an_excluded_container_is_no_conflict() {
    let mut preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    preset["spec"]["excludeContainers"] = json!(["istio-*"]);
    let taken = json!({"volumeMounts": [{"name": "own", "mountPath": "/etc/ssl/corporate"}]});
    let pod = pod_of(json!({"containers": [container("app", json!({})), container("istio-proxy", taken)]}));
    assert_eq!(presets_of(&inject(&[preset], &pod)), Some("ClusterPodPreset/p@1"));
}

#[test]
fn a_mount_path_taken_by_a_block_device_is_a_conflict() {
    let preset = cluster(
        "p",
        json!({
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/dev/xvda"}],
        }),
    );
    let pod = pod(json!({"volumeDevices": [{"name": "disk", "devicePath": "/dev/xvda"}]}));
    kept_out(preset, &pod, "mount path /dev/xvda in container app is taken");
}

#[test]
fn a_mount_path_that_both_levels_want_is_the_namespaces() {
    let preset = |kind: fn(&str, Value) -> Value, name: &str| {
        kind(
            name,
            json!({
                "volumes": [{"name": name, "emptyDir": {}}],
                "volumeMounts": [{"name": name, "mountPath": "/etc/ssl"}],
            }),
        )
    };
    let injection = inject(&[preset(cluster, "c"), preset(namespaced, "n")], &pod_env(&[]));
    assert_eq!(presets_of(&injection), Some("PodPreset/n@1"));
    assert_eq!(
        skipped_of(&injection),
        Some("ClusterPodPreset/c@1: mount path /etc/ssl in container app is taken")
    );
}

#[test]
fn a_preset_that_is_kept_out_takes_nothing_from_the_next_one() {
    let loser = ca(cluster, "a", json!({"configMap": {"name": "a"}}));
    let next = cluster(
        "b",
        json!({
            "volumes": [{"name": "other", "emptyDir": {}}],
            "volumeMounts": [{"name": "other", "mountPath": "/etc/ssl/corporate"}],
        }),
    );
    let pod = pod_storage(json!([{"name": "ca", "emptyDir": {}}]), json!([]));
    assert_eq!(presets_of(&inject(&[loser, next], &pod)), Some("ClusterPodPreset/b@1"));
}

// === what is left on the pod ===

#[test]
fn the_presets_applied_are_named_in_order_of_use_with_their_generation() {
    let of = |kind: &str, metadata: Value, priority: i32| {
        object(kind, metadata, json!({"priority": priority, "env": [{"name": "no_proxy", "value": "x"}]}))
    };
    let presets = [
        of("PodPreset", json!({"name": "shop", "namespace": "shop", "generation": 7}), 0),
        of("ClusterPodPreset", json!({"name": "b"}), 5),
        of("ClusterPodPreset", json!({"name": "a", "generation": 3}), 0),
    ];
    assert_eq!(
        presets_of(&inject(&presets, &pod_env(&[]))),
        Some("ClusterPodPreset/b@0,ClusterPodPreset/a@3,PodPreset/shop@7")
    );
}

#[test]
fn a_preset_that_had_nothing_to_change_is_named_too() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "http://p"}]));
    assert_eq!(presets_of(&inject(&[preset], &pod_env(&["http_proxy="]))), Some("ClusterPodPreset/p@1"));
}

#[test]
fn the_hash_is_16_hexadecimal_digits_over_what_is_injected() {
    let hash = |preset: Value| {
        let injection = inject(&[preset], &pod_env(&[]));
        let hash = annotation(&injection, "reach.dev/hash").expect("a hash").to_owned();
        assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
        hash
    };
    let of = |value: &str, priority: i32| {
        cluster("p", json!({"priority": priority, "env": [{"name": "X", "value": value}]}))
    };
    assert_ne!(hash(of("a", 0)), hash(of("b", 0)));
    assert_eq!(hash(of("a", 0)), hash(of("a", 5)), "order of use is not what is injected");
    let mut renewed = of("a", 0);
    renewed["metadata"]["generation"] = json!(2);
    assert_eq!(hash(of("a", 0)), hash(renewed));
    for selector in ["selector", "namespaceSelector"] {
        let mut selecting = of("a", 0);
        selecting["spec"][selector] = json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
        assert_eq!(
            hash(of("a", 0)),
            hash(selecting),
            "{selector}: which pods get it is not what is injected"
        );
    }
}

#[test]
fn other_annotations_stay_and_ours_are_renewed() {
    let mut pod = pod_env(&[]);
    pod["metadata"]["annotations"] = json!({"a/b~c": "\"\\", "reach.dev/presets": "ClusterPodPreset/gone@1"});
    let injection = inject(&[any("p")], &pod);
    assert_eq!(annotation(&injection, "a/b~c"), Some("\"\\"));
    assert_eq!(presets_of(&injection), Some("ClusterPodPreset/p@1"));
}

#[test]
fn what_a_copied_pod_was_told_of_others_presets_goes() {
    let mut pod = pod_env(&[]);
    pod["metadata"]["annotations"] = json!({"reach.dev/skipped": "ClusterPodPreset/q@1: volume ca is taken"});
    let injection = inject(&[any("p")], &pod);
    assert_eq!(skipped_of(&injection), Some(""));
    assert_eq!(inject(&[any("p")], &injection.pod).pod, injection.pod);
    // Where no preset is applied, nothing is said.
    assert_eq!(inject(&[], &pod).pod, pod);
}

#[test]
fn metadata_and_annotations_may_be_absent_or_null() {
    for metadata in [
        None,
        Some(Value::Null),
        Some(json!({})),
        Some(json!({"annotations": null})),
        Some(json!({"annotations": {}})),
    ] {
        let mut pod = json!({"spec": {"containers": [{"name": "app"}]}});
        if let Some(metadata) = metadata {
            pod["metadata"] = metadata;
        }
        assert_eq!(presets_of(&inject(&[any("p")], &pod)), Some("ClusterPodPreset/p@1"));
    }
}

#[test]
fn neither_warnings_nor_annotations_show_a_value() {
    let secret = "http://user:hunter2@proxy";
    let item = |value: &str| json!([{"name": "http_proxy", "value": value}]);
    let literal = cluster_env("c", json!([{"name": "no_proxy", "value": secret}]));
    let sourced = cluster_env("d", json!([{"name": "no_proxy", "valueFrom": source("hunter2")}]));
    let taken = ca(cluster, "e", json!({"configMap": {"name": "hunter2"}}));
    let merged = cluster_env("f", json!([{"name": "X", "value": secret, "mergeStrategy": "Merge"}]));
    let presets = [
        cluster_env("a", item(secret)),
        cluster_env("b", item("http://user:hunter2@other")),
        literal,
        sourced,
        taken,
        merged,
    ];
    let mut pod = pod_env(&["X<hunter2"]);
    pod["spec"]["volumes"] = json!([{"name": "ca", "configMap": {"name": "hunter2-own"}}]);
    let injection = inject(&presets, &pod);
    assert_eq!(injection.warnings.len(), 4, "{:?}", injection.warnings);
    let shown = injection.warnings.join("\n") + &injection.pod["metadata"].to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

// === what always holds ===

#[test]
fn a_sidecar_that_another_webhook_adds_later_is_injected_on_reinvocation() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let presets = [preset, cluster_env("q", json!([{"name": "no_proxy", "value": "a"}]))];
    let mut pod = inject(&presets, &pod_env(&["no_proxy=own"])).pod;
    let before = pod.clone();
    pod["spec"]["containers"].as_array_mut().expect("a list").push(container("late", json!({})));
    let again = inject(&presets, &pod);
    assert_eq!(again.pod["spec"]["containers"][0], before["spec"]["containers"][0]);
    assert_eq!(again.pod["spec"]["volumes"], before["spec"]["volumes"]);
    assert_eq!(again.pod["metadata"], before["metadata"]);
    assert_eq!(env_of(&again.pod, "containers", 1), ["no_proxy=a", "NO_PROXY=a"]);
    assert_eq!(again.pod["spec"]["containers"][1]["volumeMounts"][0]["name"], "ca");
}

#[test]
fn unknown_fields_survive() {
    let fields = json!({
        "x-new": {"deep": [18_446_744_073_709_551_615_u64, null]},
        "env": [{"name": "X", "value": "a", "x-new": "\u{1f980}"}],
    });
    let pod = pod(fields.clone());
    let preset = cluster_env("p", json!([{"name": "X", "value": "b", "mergeStrategy": "Merge"}]));
    let injected = inject(&[preset], &pod).pod;
    let container = &injected["spec"]["containers"][0];
    assert_eq!(container["x-new"], fields["x-new"]);
    assert_eq!(container["env"], json!([{"name": "X", "value": "b,a", "x-new": "\u{1f980}"}]));
}

// === differences to the PodPreset of Kubernetes < 1.20 ===

#[test]
fn unlike_in_old_kubernetes_a_differing_value_in_the_pod_is_no_conflict() {
    let preset = cluster_env("p", json!([{"name": "LOG", "value": "info"}, {"name": "X", "value": "x"}]));
    let injection = inject(&[preset], &pod_env(&["LOG=debug"]));
    assert_eq!(env_of(&injection.pod, "containers", 0), ["LOG=debug", "X=x"]);
    assert_eq!(skipped_of(&injection), None);
}

#[test]
fn unlike_in_old_kubernetes_one_conflict_does_not_drop_the_other_presets() {
    let broken = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let pod = pod_storage(json!([{"name": "ca", "emptyDir": {}}]), json!([]));
    assert_eq!(env(&[broken, any("q")], &pod), ["X=x"]);
}

#[test]
fn unlike_in_old_kubernetes_a_volume_may_be_mounted_twice() {
    let preset = ca(cluster, "p", json!({"configMap": {"name": "ca"}}));
    let pod = pod_storage(
        json!([{"name": "ca", "configMap": {"name": "ca"}}]),
        json!([{"name": "ca", "mountPath": "/own"}]),
    );
    let injection = inject(&[preset], &pod);
    assert_eq!(injection.pod["spec"]["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(skipped_of(&injection), None);
}

#[test]
fn unlike_in_old_kubernetes_the_annotations_have_fixed_keys() {
    let long = "p".repeat(200);
    let injection = inject(&[any(&long)], &pod_env(&[]));
    let annotations = injection.pod["metadata"]["annotations"].as_object().expect("annotations");
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["reach.dev/presets", "reach.dev/hash"]);
}

#[test]
fn unlike_in_old_kubernetes_upper_and_lower_case_of_a_proxy_variable_are_one() {
    let preset = cluster_env("p", json!([{"name": "http_proxy", "value": "http://p"}]));
    assert_eq!(env(&[preset], &pod_env(&["HTTP_PROXY=http://own"])), ["HTTP_PROXY=http://own"]);
}

// === which presets are the same ===

#[test]
fn a_preset_that_was_deleted_and_made_again_is_another_one_unless_it_says_the_same() {
    let spec = json!({"env": [{"name": "X", "value": "x"}]});
    let same = |one: &Value, other: &Value| engine::preset(one) == engine::preset(other);
    let first = cluster("p", spec.clone());
    assert!(same(&first, &first.clone()));
    for more in [
        json!({"priority": 1}),
        json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}),
        json!({"selector": {"matchLabels": {"app": "shop"}}}),
        json!({"env": [{"name": "X", "value": "y"}]}),
        json!({"excludeContainers": ["x"]}),
        json!({"noProxyForm": "Portable"}),
    ] {
        assert!(!same(&first, &cluster("p", merge(spec.clone(), more.clone()))), "{more}");
    }
    assert!(!same(&first, &cluster("q", spec.clone())));
    let mut changed = first.clone();
    changed["metadata"]["generation"] = 2.into();
    assert!(!same(&first, &changed));
    let mut elsewhere = namespaced("p", spec);
    let here = elsewhere.clone();
    elsewhere["metadata"]["namespace"] = "other".into();
    assert!(same(&here, &here.clone()) && !same(&here, &elsewhere));
}

#[test]
fn a_selector_that_names_no_value_is_an_error() {
    for operator in ["In", "NotIn"] {
        let expression = json!({"key": "app", "operator": operator, "values": []});
        let object = cluster("p", json!({"selector": {"matchExpressions": [expression]}}));
        let object = serde_json::from_value(object).expect("a ClusterPodPreset");
        let error = Preset::cluster(&object).expect_err(operator).to_string();
        assert!(error.contains("selector") && error.contains(operator), "{error}");
    }
}
