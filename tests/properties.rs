//! What holds for every pod and every set of presets (docs/injection.md).
//!
//! The engine is compared with [`oracle`], a second reading of the contract that shares no code with it.
//! `REACH_CASES` sets the number of cases of the main property, and the others scale with it; without it
//! there are 10,000, the same ones each time.

#[path = "support/engine.rs"]
mod engine;
#[path = "properties/generate.rs"]
mod generate;
#[path = "properties/oracle.rs"]
mod oracle;
#[path = "properties/portable.rs"]
mod portable;
#[path = "properties/real.rs"]
mod real;
#[path = "properties/routes.rs"]
mod routes;
#[path = "properties/skipped.rs"]
mod skipped;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::thread;

use generate::{Case, Tape};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use reach::inject::pod::{Pod, Text};
use reach::inject::snapshot::{ClusterLists, Snapshot};
use reach::inject::{Target, patch, plan};
use reach::no_proxy::portable::{Author, List, unite};
use real::Spelling;
use serde_json::{Value, json};

type Checked = Result<(), String>;

/// How many cases there are when one in `part` is wanted.
fn cases(part: u32) -> u32 {
    wanted().unwrap_or(10_000).div_ceil(part)
}

/// The number of cases asked for.
fn wanted() -> Option<u32> {
    Some(std::env::var("REACH_CASES").ok()?.parse().expect("REACH_CASES is a number"))
}

/// Runs a check on tapes; a failure is reported as `explain` tells it.
fn check_tapes(
    cases: u32,
    check: impl Fn(&[u16]) -> Checked + Sync,
    explain: impl FnOnce(String, Vec<u16>) -> String,
) {
    // New cases only when somebody looks for them, and then on all processors.
    let (seed, threads) = match wanted() {
        Some(_) => (RngSeed::Random, thread::available_parallelism().map_or(1, usize::from)),
        None => (RngSeed::Fixed(20_201_208), 1),
    };
    let config = Config {
        cases: cases.div_ceil(u32::try_from(threads).expect("a number of processors")),
        // Found cases become tests with a name.
        failure_persistence: None,
        max_shrink_iters: 5_000,
        rng_seed: seed,
        ..Config::default()
    };
    let run = || {
        TestRunner::new(config.clone())
            .run(&vec(any::<u16>(), 0..400), |tape| check(&tape).map_err(TestCaseError::fail))
    };
    let results = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|run| run.join().expect("no panic")).collect::<Vec<_>>()
    });
    match results.into_iter().find_map(Result::err) {
        None => {}
        Some(TestError::Fail(reason, tape)) => panic!("{}", explain(reason.to_string(), tape)),
        Some(error) => panic!("{error}"),
    }
}

/// Runs a check on cases.
///
/// A shorter tape is not always a smaller case, so a failing case is then made small itself: what can go
/// without the failure going too, goes.
fn check(part: u32, check: impl Fn(&Case) -> Checked + Sync) {
    let what = |reason: &str| reason.lines().next().unwrap_or_default().to_owned();
    let smallest = |mut reason: String, tape: Vec<u16>| {
        let mut smallest = case(&tape);
        while let Some((case, why)) = smaller(&smallest).into_iter().find_map(|case| {
            let why = check(&case).err().filter(|why| what(why) == what(&reason))?;
            Some((case, why))
        }) {
            (smallest, reason) = (case, why);
        }
        reason
    };
    check_tapes(cases(part), |tape| check(&case(tape)), smallest);
}

/// The cases that have one node less.
fn smaller(case: &Case) -> Vec<Case> {
    let presets = without_one(&Value::from(case.presets.clone()), false);
    let presets = presets
        .into_iter()
        .map(|presets| Case { presets: presets.as_array().expect("a list").clone(), ..case.clone() });
    let pods = without_one(&case.pod, false).into_iter().map(|pod| Case { pod, ..case.clone() });
    presets.chain(pods).collect()
}

/// A value without one of its nodes, for each that is not required.
fn without_one(value: &Value, required: bool) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if !(required && items.len() == 1) {
                    let mut fewer = items.clone();
                    fewer.remove(index);
                    all.push(fewer.into());
                }
                for item in without_one(item, false) {
                    let mut items = items.clone();
                    items[index] = item;
                    all.push(items.into());
                }
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                // Without these it is no preset or pod any more.
                let keep = [
                    "kind",
                    "apiVersion",
                    "name",
                    "namespace",
                    "mountPath",
                    "metadata",
                    "spec",
                    "key",
                    "operator",
                    "values",
                ];
                if !keep.contains(&key.as_str()) {
                    let mut fewer = fields.clone();
                    fewer.remove(key);
                    all.push(fewer.into());
                }
                for field in without_one(field, keep.contains(&key.as_str())) {
                    let mut fields = fields.clone();
                    fields[key] = field;
                    all.push(fields.into());
                }
            }
        }
        _ => {}
    }
    all
}

fn case(tape: &[u16]) -> Case {
    Tape::new(tape).case()
}

fn snapshot<'a>(presets: impl IntoIterator<Item = &'a Value>, case: &'a Case) -> Snapshot {
    let list =
        |source: &str, namespace: &str| List::parse(generate::source(source, namespace), Author::Preset);
    let lists = ClusterLists {
        all_services: list("AllServices", ""),
        cluster_network: list("ClusterNetwork", ""),
        nodes: list("Nodes", ""),
    };
    let names = case.namespaces.iter().map(|(name, _)| *name);
    engine::snapshot(presets, case.namespaces.iter().map(|(name, labels)| (*name, labels)))
        .with_derived(Arc::new(lists))
        .with_services(names.map(|name| (name, Arc::new(list("Services", name)))))
}

fn labels(case: &Case) -> &Value {
    let of = case.namespaces.iter().find(|(name, _)| *name == case.namespace);
    &of.expect("the namespace of the request exists").1
}

fn inject(snapshot: &Snapshot, case: &Case, pod: &Value) -> engine::Injection {
    inject_spelled(snapshot, case, pod, case.spelling)
}

fn inject_spelled(snapshot: &Snapshot, case: &Case, pod: &Value, spelling: Spelling) -> engine::Injection {
    engine::inject_text(snapshot, case.namespace, &spelling.write(pod), pod, case.ephemeral.as_deref())
}

/// A failure that a person can read.
fn failure(what: &str, case: &Case, results: &[(&str, &Value)]) -> String {
    let mut text = format!("{what}\n=== namespace {} {}", case.namespace, labels(case));
    if let Some(old) = &case.ephemeral {
        let _ = write!(text, ", new ephemeral containers only, old ones: {old:?}");
    }
    for preset in &case.presets {
        let _ = write!(text, "\n=== preset\n{preset}");
    }
    let _ = write!(text, "\n=== pod\n{:#}", case.pod);
    for (name, value) in results {
        let _ = write!(text, "\n=== {name}\n{value:#}");
    }
    text
}

/// Compares the engine with the oracle.
fn compare(case: &Case, injection: &engine::Injection) -> Checked {
    let target = case.ephemeral.as_deref().map_or(oracle::Target::Pod, oracle::Target::Ephemeral);
    let fail = |what: &str, expected: &Value| {
        Err(failure(
            what,
            case,
            &[("expected", expected), ("got", &injection.pod), ("warnings", &json!(injection.warnings))],
        ))
    };
    let Some(expected) =
        oracle::inject(&case.presets, case.namespace, labels(case), &case.pod, target, generate::source)
    else {
        return match &injection.left_alone {
            Some(_) => Ok(()),
            None => fail("must be left alone", &case.pod),
        };
    };
    if injection.left_alone.is_some() {
        return fail("must not be left alone", &expected.pod);
    }
    let summary = json!({
        "applied": expected.applied, "skipped": expected.skipped, "conflicts": expected.conflicts,
        "unmergeable": expected.unmergeable, "too_long": expected.too_long, "pod": expected.pod,
    });
    // The wording of two annotations is the engine's: their content is compared, then they are made equal.
    let mut wanted = expected.pod.clone();
    let got = |key: &str| injection.pod["metadata"]["annotations"][key].as_str();
    if case.ephemeral.is_none() {
        if !expected.applied.is_empty() {
            let hash = got("reach.dev/hash").unwrap_or_default();
            if hash.len() != 16 || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                return fail("reach.dev/hash must be 16 hexadecimal digits", &summary);
            }
            oracle::annotations(&mut wanted).insert("reach.dev/hash".into(), hash.into());
        }
        if !expected.skipped.is_empty() || !expected.conflicts.is_empty() {
            let skipped = got("reach.dev/skipped").unwrap_or_default();
            if mentioned(skipped) != (expected.skipped.clone(), expected.conflicts.clone()) {
                return fail("reach.dev/skipped must name the presets and variables not applied", &summary);
            }
            oracle::annotations(&mut wanted).insert("reach.dev/skipped".into(), skipped.into());
        } else if injection.pod != case.pod
            && wanted["metadata"]["annotations"]["reach.dev/skipped"].is_string()
        {
            // What stands there is about another pod.
            oracle::annotations(&mut wanted).insert("reach.dev/skipped".into(), "".into());
        }
    }
    // Of volumes that are equal once completed, any may be taken. (That those of the pod stay is `kept`'s
    // business.)
    let mut got = injection.pod.clone();
    for pod in [&mut wanted, &mut got] {
        for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
            *volume = oracle::complete(volume);
        }
    }
    if wanted != got {
        return fail("the pod must be as expected", &summary);
    }
    let variables = expected.unmergeable.iter().chain(&expected.too_long);
    let expected_warnings = expected.skipped.len() + expected.conflicts.len() + variables.clone().count();
    let enough = |id: &String| {
        let reference = id.rsplit_once('@').map_or(id.as_str(), |(reference, _)| reference);
        injection.warnings.iter().any(|warning| warning.contains(reference))
    };
    if !expected.skipped.iter().chain(expected.conflicts.iter().map(|(id, _)| id)).all(enough)
        || injection.warnings.len() < expected_warnings
        || (expected_warnings == 0 && !injection.warnings.is_empty())
    {
        return fail("warnings must say what the annotation says", &summary);
    }
    for (container, variable) in variables {
        let says = |warning: &String| {
            warning.contains(container) && warning.to_lowercase().contains(&variable.to_lowercase())
        };
        if !injection.warnings.iter().any(says) {
            return fail("a variable that is left as it is needs a warning", &summary);
        }
    }
    Ok(())
}

/// Presets, and variables of presets, that `reach.dev/skipped` names.
fn mentioned(annotation: &str) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let (mut presets, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for entry in annotation.split("; ").filter(|entry| !entry.is_empty()) {
        let (id, reason) = entry.split_once(": ").unwrap_or((entry, ""));
        match reason.strip_prefix("variable ") {
            Some(variable) => {
                let name = variable.split(' ').next().unwrap_or_default();
                variables.insert((id.to_owned(), oracle::family(name)));
            }
            None => drop(presets.insert(id.to_owned())),
        }
    }
    (presets, variables)
}

/// Nothing that was there is lost or changed, save what injection is about; `path` is where we are.
fn kept(before: &Value, after: &Value, path: &str) -> Checked {
    let field = path.rsplit('/').next().unwrap_or_default();
    let ours = ["metadata", "annotations", "env", "envFrom", "volumes", "volumeMounts"].contains(&field);
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                // The value of a variable may be merged; our own annotations may be renewed.
                let changeable = (key == "value" && path.contains("/env/")) || key.starts_with("reach.dev/");
                let now = after.get(key).ok_or_else(|| format!("{path}/{key} is gone"))?;
                if !changeable {
                    kept(value, now, &format!("{path}/{key}"))?;
                }
            }
            let new = after.keys().find(|key| {
                let known = ["metadata", "annotations", "env", "envFrom", "volumes", "volumeMounts", "value"];
                !before.contains_key(*key) && !known.contains(&key.as_str()) && !key.starts_with("reach.dev/")
            });
            new.map_or(Ok(()), |key| Err(format!("{path}/{key} is new")))
        }
        (Value::Array(before), Value::Array(after)) if ours || before.len() == after.len() => {
            if before.len() > after.len() {
                return Err(format!("{path} is shorter"));
            }
            (0..)
                .zip(before.iter().zip(after))
                .try_for_each(|(n, (was, is)): (usize, _)| kept(was, is, &format!("{path}/{n}")))
        }
        (Value::Null, _) if ours => Ok(()),
        _ if before == after => Ok(()),
        _ => Err(format!("{path} has changed")),
    }
}

/// The main property: agreement with the oracle, nothing lost, injected once, in any order of presets.
fn agrees(case: &Case) -> Checked {
    let snapshot_in_order = snapshot(&case.presets, case);
    let once = inject(&snapshot_in_order, case, &case.pod);
    compare(case, &once)?;
    kept(&case.pod, &once.pod, "").map_err(|what| failure(&what, case, &[("got", &once.pod)]))?;
    let twice = inject(&snapshot_in_order, case, &once.pod);
    if let Some(patch) = twice.patch {
        let patch = serde_json::from_slice(&patch).expect("a patch is JSON");
        return Err(failure(
            "injecting again must change nothing",
            case,
            &[("injected once", &once.pod), ("second patch", &patch)],
        ));
    }
    // As an encoder writes it.
    if case.spelling != Spelling::default() {
        let plain = inject_spelled(&snapshot_in_order, case, &case.pod, Spelling::default());
        if plain.patch != once.patch || plain.warnings != once.warnings {
            return Err(failure("the spelling of JSON must not matter", case, &[("got", &once.pod)]));
        }
    }
    let rotated = case.presets.iter().rev().skip(1).chain(case.presets.last());
    let other_order = inject(&snapshot(rotated, case), case, &case.pod);
    if other_order.patch != once.patch || other_order.warnings != once.warnings {
        return Err(failure(
            "the order in which presets are stored must not matter",
            case,
            &[("in order", &once.pod), ("in another order", &other_order.pod)],
        ));
    }
    Ok(())
}

#[test]
fn the_engine_agrees_with_a_plain_reading_of_the_contract_and_injects_once() {
    check(1, agrees);
}

#[test]
fn presets_that_do_not_concern_the_pod_change_nothing() {
    let unrelated = generate::unrelated(1000);
    check(200, |case| {
        let alone = inject(&snapshot(&case.presets, case), case, &case.pod);
        let among_many = inject(&snapshot(unrelated.iter().chain(&case.presets), case), case, &case.pod);
        if alone.patch == among_many.patch && alone.warnings == among_many.warnings {
            return Ok(());
        }
        Err(failure(
            "unrelated presets must not matter",
            case,
            &[("alone", &alone.pod), ("among 1,000 others", &among_many.pod)],
        ))
    });
}

/// Reads, plans and applies whatever is given as the pod; a failure is a panic, or a patch that does not
/// apply.
fn survive(case: &Case) -> Checked {
    survive_bytes(case, &case.spelling.write(&case.pod))
}

fn survive_bytes(case: &Case, json: &[u8]) -> Checked {
    let Ok(pod) = Pod::from_slice(json) else {
        return Ok(());
    };
    let old: Vec<Text<'_>> = case.ephemeral.iter().flatten().map(|name| Text((*name).into())).collect();
    let target = if case.ephemeral.is_some() { Target::EphemeralContainers(&old) } else { Target::Pod };
    let snapshot = snapshot(&case.presets, case);
    let namespace = snapshot.namespace(case.namespace).expect("a known namespace");
    let Ok(Ok(plan)) = plan(&namespace, &pod, target) else {
        return Ok(());
    };
    let _ = reach::inject::annotation::warnings(&plan, &pod);
    let Some(bytes) = patch::write(&plan, &pod, "") else {
        return Ok(());
    };
    let patch: json_patch::Patch =
        serde_json::from_slice(&bytes).map_err(|error| format!("no patch: {error}"))?;
    // What an API server would read: bytes that are no JSON to it never get here.
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else {
        return Ok(());
    };
    json_patch::patch(&mut value, &patch).map_err(|error| {
        let patch = serde_json::to_value(&patch).expect("JSON");
        let text = String::from_utf8_lossy(json);
        failure(
            "the patch must apply",
            case,
            &[("read", &text.into()), ("patch", &patch), ("error", &error.to_string().into())],
        )
    })
}

#[test]
fn any_json_in_place_of_the_pod_is_survived() {
    check_tapes(
        cases(6),
        |tape| {
            let mut tape = Tape::new(tape);
            let case = Case { pod: tape.json(5), ..tape.case() };
            survive(&case)
        },
        |reason, _| reason,
    );
}

#[test]
fn any_json_somewhere_inside_the_pod_is_survived() {
    check_tapes(
        cases(2),
        |tape| {
            let (mut tape, mut mutations) = (Tape::new(tape), Tape::new(&tape[tape.len() / 2..]));
            let mut case = tape.case();
            for _ in 0..3 {
                mutations.mutate(&mut case.pod);
                survive(&case)?;
            }
            Ok(())
        },
        |reason, _| reason,
    );
}

#[test]
fn bytes_that_are_no_json_are_survived() {
    check_tapes(
        cases(6),
        |tape| {
            let case = case(tape);
            let mut bytes = case.spelling.write(&case.pod);
            let position = tape.iter().map(|n| usize::from(*n)).sum::<usize>() % bytes.len();
            survive_bytes(&case, &bytes[..position])?;
            bytes[position] = u8::try_from(tape.len() % 256).expect("below 256");
            survive_bytes(&case, &bytes)
        },
        |reason, _| reason,
    );
}

#[test]
fn only_no_proxy_is_merged_by_default() {
    let names = [
        "no_proxy",
        "No_Proxy",
        "NO_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ftp_proxy",
        "all_proxy",
        "PATH",
        "no_proxy_x",
    ];
    for name in names {
        let preset = json!({
            "kind": "ClusterPodPreset", "apiVersion": "reach.dev/v1alpha1", "metadata": {"name": "p"},
            "spec": {"env": [{"name": name, "value": "cluster"}]},
        });
        let pod = json!({"spec": {"containers": [{"name": "app", "env": [{"name": name, "value": "own"}]}]}});
        let snapshot = engine::snapshot([&preset], [("shop", &json!({}))]);
        let injected = engine::inject(&snapshot, "shop", &pod, None).pod;
        let merged = name.eq_ignore_ascii_case("no_proxy");
        assert_eq!(oracle::default_strategy(&name.to_ascii_lowercase()) == "Merge", merged);
        assert_eq!(
            injected["spec"]["containers"][0]["env"][0]["value"],
            if merged { ".cluster,cluster,.own,own,localhost,127.0.0.1" } else { "own" },
            "{name}"
        );
    }
}

/// The generator is of no use if the API server would refuse what it makes, or if nothing ever happens.
#[test]
fn generated_cases_are_accepted_presets_and_exercise_the_rules() {
    use reach::api::{PresetKind, validate::validate};
    let counts = Mutex::new(BTreeMap::new());
    check_tapes(
        cases(30).max(1000),
        |tape| {
            let case = case(tape);
            for preset in &case.presets {
                let kind =
                    if preset["kind"] == "PodPreset" { PresetKind::Namespaced } else { PresetKind::Cluster };
                let errors = validate(kind, preset);
                if !errors.is_empty() {
                    return Err(format!("{errors:?}\n{preset:#}"));
                }
            }
            let target = case.ephemeral.as_deref().map_or(oracle::Target::Pod, oracle::Target::Ephemeral);
            let expected = oracle::inject(
                &case.presets,
                case.namespace,
                labels(&case),
                &case.pod,
                target,
                generate::source,
            );
            let mut counts = counts.lock().expect("no panic");
            let mut count = |what, is: bool| *counts.entry(what).or_insert(0) += u32::from(is);
            count("left alone", expected.is_none());
            if let Some(expected) = expected {
                count("applied", !expected.applied.is_empty());
                count("several applied", expected.applied.len() > 1);
                count("skipped", !expected.skipped.is_empty());
                count("conflicts", !expected.conflicts.is_empty());
                count("unmergeable", !expected.unmergeable.is_empty());
                count("too long for Java 8", !expected.too_long.is_empty());
                count("ephemeral", case.ephemeral.is_some());
                let env = |pod: &Value| pod["spec"]["containers"][0]["env"].clone();
                count("changed in place", env(&expected.pod)[0]["value"] != env(&case.pod)[0]["value"]);
                let says = |text: &str| {
                    let has = |pod: &Value| pod["spec"]["containers"].to_string().contains(text);
                    has(&expected.pod) && !has(&case.pod)
                };
                count("options of a JVM", says("proxyPort="));
                count("Node.js reads variables", says(r#"{"name":"NODE_USE_ENV_PROXY","value":"1"}"#));
                count("addresses of nodes", says("10.0.0.11"));
            }
            Ok(())
        },
        |reason, _| reason,
    );
    let counts = counts.into_inner().expect("no panic");
    println!("{counts:?}");
    assert!(counts.len() == 12 && counts.values().all(|count| *count > 0), "{counts:?}");
}

// === found cases ===

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "shop", "generation": 1});
    json!({"apiVersion": "reach.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// Injects twice; `reach.dev/presets` and `reach.dev/skipped` after the first and the second time.
fn twice(presets: &[Value], pod: &Value) -> [(Value, Value); 2] {
    let snapshot = engine::snapshot(presets, [("shop", &json!({}))]);
    let once = engine::inject(&snapshot, "shop", pod, None).pod;
    let again = engine::inject(&snapshot, "shop", &once, None).pod;
    [once, again].map(|pod| {
        let annotations = &pod["metadata"]["annotations"];
        (annotations["reach.dev/presets"].clone(), annotations["reach.dev/skipped"].clone())
    })
}

/// httpx minds those of ASCII only: measured with 0.28.1.
#[test]
fn of_control_characters_only_those_of_ascii_are_left_out() {
    let written = "10.0.0.1/a\u{93},10.0.0.1/b\u{1f},10.0.0.1/c\u{7f}";
    let expected = "localhost,127.0.0.1,10.0.0.1/a\u{93}";
    assert_eq!(unite([&List::parse(written, Author::Preset)].into_iter()), expected);
    assert_eq!(portable::portable(&[written], &[]), expected);
}

#[test]
fn a_list_where_core_v1_has_an_object_is_unreadable() {
    for pod in [
        json!({"metadata": [], "spec": {"containers": [{"name": "app"}]}}),
        json!({"spec": [null, [{"name": "app"}]]}),
        json!({"spec": {"containers": [["app"]]}}),
        json!({"spec": {"containers": [{"name": "app", "env": [["no_proxy", "own"]]}]}}),
    ] {
        let preset = object("ClusterPodPreset", "p", &json!({"env": [{"name": "no_proxy", "value": "p"}]}));
        let case = Case {
            presets: vec![preset],
            namespace: "shop",
            namespaces: vec![("shop", json!({}))],
            pod,
            ephemeral: None,
            spelling: Spelling::default(),
        };
        survive(&case).unwrap();
    }
}

#[test]
fn cluster_presets_that_differ_in_a_volume_that_the_namespace_replaces_stay_as_they_are() {
    let volume = |source: Value| {
        let mut volume = json!({"name": "ca"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"volumes": [volume]})
    };
    let presets = [
        object("ClusterPodPreset", "a", &volume(json!({"configMap": {"name": "a"}}))),
        object("ClusterPodPreset", "b", &volume(json!({"configMap": {"name": "b"}}))),
        object("PodPreset", "n", &volume(json!({"configMap": {"name": "n"}}))),
    ];
    let [once, again] = twice(&presets, &json!({"spec": {"containers": [{"name": "app"}]}}));
    assert_eq!(once, again, "injecting twice is injecting once");
}

#[test]
fn a_preset_that_is_not_applied_does_not_take_the_place_of_a_volume() {
    let volume = |name: &str| json!({"name": "ca", "configMap": {"name": name}});
    let presets = [
        object("ClusterPodPreset", "c", &json!({"volumes": [volume("c")]})),
        // Conflicts with the pod in another volume.
        object(
            "PodPreset",
            "n",
            &json!({"volumes": [volume("n"), {"name": "data", "configMap": {"name": "n"}}]}),
        ),
    ];
    let pod = json!({"spec": {
        "containers": [{"name": "app"}],
        "volumes": [volume("n"), {"name": "data", "emptyDir": {}}],
    }});
    let [(applied, skipped), _] = twice(&presets, &pod);
    assert_eq!(applied, Value::Null, "the pod has other content in ca than c wants");
    assert!(skipped.as_str().unwrap_or_default().contains("ClusterPodPreset/c@1"), "{skipped}");
}
