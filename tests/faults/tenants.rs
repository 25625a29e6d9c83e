//! Tenants who mean harm: what is theirs must not be felt in another namespace.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admitted::{pods, with_proxy};
use crate::client::{API_SERVER, Calls, Load, Target};
use crate::report::{Row, Size, percentiles};
use crate::stage::Stage;
use crate::support::control_plane::{ControlPlane, Options};
use crate::support::kubectl::Kubectl as _;
use crate::support::load::{Api, Counts, Load as Creations};
use crate::support::review::{patch, review_of};
use crate::support::serve::Reach;
use crate::support::{eventually, eventually_within};
use crate::tenancy::{Cluster, env, ok, pod, pod_preset};

/// Path of the PodPresets of a namespace.
fn presets(namespace: &str) -> String {
    format!("/apis/reach.dev/v1alpha1/namespaces/{namespace}/podpresets")
}

/// The review of a pod in a namespace.
fn review(namespace: &str, labels: &Value) -> Value {
    let mut review = review_of(&pod(labels, &json!([{"name": "no_proxy", "value": "redis"}])));
    review["request"]["namespace"] = json!(namespace);
    review
}

fn variables(names: &[&str]) -> Value {
    let item = |name: &&str| json!({"name": name, "value": "hostile"});
    json!({"env": names.iter().map(item).collect::<Vec<_>>()})
}

/// As many presets as wanted, over several connections.
fn create_many(cluster: &Cluster, namespace: &str, count: usize, spec: impl Fn(usize) -> Value + Sync) {
    const CONNECTIONS: usize = 4;
    let spec = &spec;
    thread::scope(|scope| {
        for part in 0..CONNECTIONS {
            scope.spawn(move || {
                let api = Api::new(cluster.control_plane.kubeconfig());
                for number in (part..count).step_by(CONNECTIONS) {
                    let preset = pod_preset(namespace, &format!("hostile-{number}"), &spec(number));
                    api.create(&presets(namespace), &preset).expect("a preset that the API server takes");
                }
            });
        }
    });
}

/// Row 29.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn presets_of_a_namespace_are_for_its_pods_only(stage: &Stage) {
    let cluster = stage.tenancy();
    let (victim, hostile) = ("victim", "hostile");
    let api = with_proxy(cluster, victim);
    with_proxy(cluster, hostile);
    let expected = env(&api.create(&pods(victim, true), &pod(&json!({}), &json!([]))).expect("a pod"), "web");

    let mut refused = 0;
    let mut try_to = |name: &str, spec: &Value, change: &dyn Fn(&mut Value)| {
        let mut preset = pod_preset(hostile, name, spec);
        change(&mut preset);
        let is_taken = api.create(&presets(hostile), &preset).is_ok();
        refused += usize::from(!is_taken);
        is_taken
    };
    let nothing = |_: &mut Value| {};
    let to_host = json!({
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "volumeMounts": [{"name": "root", "mountPath": "/host"}],
    });
    let a = variables(&["A"]);
    // What must not be taken at all.
    let taken = [
        ("hostPath", try_to("host-path", &to_host, &nothing)),
        ("a path as name", try_to("../../victim", &a, &nothing)),
        ("a path as name, encoded", try_to("..%2f..%2fvictim", &a, &nothing)),
        ("another namespace", try_to("other", &a, &|preset| preset["metadata"]["namespace"] = json!(victim))),
        (
            "a selector of namespaces",
            try_to("everywhere", &a, &|preset| preset["spec"]["namespaceSelector"] = json!({}))
                && api
                    .get(&format!("{}/everywhere", presets(hostile)))
                    .is_some_and(|preset| !preset["spec"]["namespaceSelector"].is_null()),
        ),
        (
            "a regular expression as label",
            try_to(
                "regex",
                &json!({
                    "selector": {"matchLabels": {"app": "(a+)+$"}}, "env": [{"name": "A"}],
                }),
                &nothing,
            ),
        ),
    ];
    // What is its own affair.
    let keys: Vec<Value> = (0..32)
        .map(|number| {
            let values: Vec<String> = (0..32).map(|value| format!("{value:063}")).collect();
            json!({"key": format!("{}.example/{}", "a".repeat(200), number), "operator": "NotIn", "values": values})
        })
        .collect();
    for (name, spec) in [
        (
            "everything",
            variables(&["http_proxy", "no_proxy", "LD_PRELOAD", "KUBERNETES_SERVICE_HOST", "PATH"]),
        ),
        ("etc.passwd", variables(&["B"])),
        ("selective", json!({"selector": {"matchExpressions": keys}, "env": [{"name": "C", "value": "c"}]})),
        (
            "reference",
            json!({"env": [
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "../victim/secret", "key": "k"}}},
            ]}),
        ),
    ] {
        let created = api.create(&presets(hostile), &pod_preset(hostile, name, &spec));
        assert!(created.is_ok() || name == "reference", "{name}: {created:?}");
    }
    cluster.await_presets(hostile, &json!({}), &["PodPreset/everything@"]);

    let count = Size::wanted().of(100, 2000);
    let (mut times, mut wrong) = (Vec::new(), 0);
    for number in 0..count {
        // Labels that the hostile presets would select, too.
        let labels = json!({"app": "everything", "number": format!("{number}")});
        let start = Instant::now();
        let stored = api.create(&pods(victim, true), &pod(&labels, &json!([]))).expect("a pod");
        times.push(start.elapsed());
        wrong += usize::from(env(&stored, "web") != expected);
    }
    let own = api.create(&pods(hostile, true), &pod(&json!({}), &json!([])));
    let _recorded = Row {
        number: "29",
        fault: "a tenant's presets: LD_PRELOAD, hostPath, names like paths, selectors as nasty as they get",
        done: format!("{count} pods of another namespace, with labels that those presets select"),
        calls: count,
        failed: 0,
        uninjected: wrong,
        latency: percentiles(&mut times),
        recovery: None,
        more: format!("{refused} of {} attempts to reach out refused by the CRD, the others are as if they had said nothing", taken.len()),
    }
    .record();
    assert_eq!(wrong, 0, "what other namespaces have is no affair of theirs");
    for (what, is_taken) in taken {
        assert!(!is_taken, "{what}");
    }
    // Without a reference that the API server refuses, or with it: that is for the pods of its own namespace to find out.
    if let Ok(own) = own {
        assert!(env(&own, "web").contains(&"LD_PRELOAD=hostile".to_owned()), "{own}");
    }
    cluster.kubectl(&["delete", "pp", "--all", "-n", hostile]);
}

/// Row 29: as many bytes as a tenant can write.
pub fn large_presets_of_a_namespace_take_no_memory_from_others(stage: &Stage) {
    let cluster = stage.tenancy();
    let namespace = "large";
    with_proxy(cluster, namespace);
    with_proxy(cluster, "beside-large");
    let before = cluster.reach.memory_kib();
    let count = Size::wanted().of(20, 500);
    let start = Instant::now();
    // The largest that the API server takes.
    let sizes = [64, 48, 32, 16, 8, 4, 2].into_iter().find(|&variables| {
        let spec = filled(variables, 0);
        let api = Api::new(cluster.control_plane.kubeconfig());
        api.create(&format!("{}?dryRun=All", presets(namespace)), &pod_preset(namespace, "probe", &spec))
            .is_ok()
    });
    let variables = sizes.expect("a size that is taken");
    create_many(cluster, namespace, count, |number| filled(variables, number));
    let written = start.elapsed();
    let api = Api::new(cluster.control_plane.kubeconfig());
    cluster.preset("beside-large", "last", &json!({"env": [{"name": "LAST", "value": "yes"}]}));
    let stored = api.create(&pods("beside-large", true), &pod(&json!({}), &json!([]))).expect("a pod");
    let after = cluster.reach.memory_kib();
    // A replica that starts has to read all of it.
    let start = Instant::now();
    let fresh = Reach::start(["--kubeconfig".as_ref(), cluster.kubeconfig.path().as_os_str()]);
    fresh.await_ready();
    let ready = start.elapsed();
    let peak = fresh.peak_memory_kib();
    drop(fresh);
    let _recorded = Row {
        number: "29a",
        fault: "presets as large as the API takes, in one namespace",
        done: format!("{count} presets of {} KB", variables * 16_384 / 1000),
        calls: count,
        failed: 0,
        uninjected: 0,
        latency: None,
        recovery: None,
        more: format!(
            "written in {:.1} s; memory before {} MiB, after {} MiB; a replica that starts then: ready after {:.1} s, at most {} MiB",
            written.as_secs_f64(),
            before / 1024,
            after / 1024,
            ready.as_secs_f64(),
            peak / 1024
        ),
    }
    .record();
    cluster.kubectl(&["delete", "pp", "--all", "-n", namespace]);
    assert!(env(&stored, "web").contains(&"LAST=yes".to_owned()), "{stored}");
    assert!(after < 128 * 1024 && peak < 128 * 1024, "{after} KiB, {peak} KiB");
}

fn filled(variables: usize, number: usize) -> Value {
    let item = |variable| json!({"name": format!("V{variable}"), "value": format!("{number}-{variable}-").repeat(4096)[..16_384]});
    json!({"env": (0..variables).map(item).collect::<Vec<_>>()})
}

/// Row 29: 10,000 presets, each of which has to be looked at for each pod of their namespace.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn many_presets_of_a_namespace_take_no_time_from_others(stage: &Stage) {
    let cluster = stage.tenancy();
    let (victim, hostile, ordinary) = ("beside-many", "many", "few");
    let api = with_proxy(cluster, victim);
    with_proxy(cluster, hostile);
    with_proxy(cluster, ordinary);
    let count = Size::wanted().of(500, 10_000);
    let (rounds, calls) = Size::wanted().of((10, 30), (60, 100));
    let target = Target::with(&cluster.reach, &review(victim, &json!({"app": "web"})));

    // In turns, so that both see the same machine: one reach with those presets, one without.
    let values = json!({"env": [{"name": "http_proxy", "value": "http://p:3128"}, {"name": "no_proxy", "value": ".svc"}]});
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a temporary file");
    let mut same = crate::tenancy::cluster_pod_preset(victim, &format!("{victim}-proxy"), &values);
    same["metadata"]["generation"] = json!(1);
    let items = [same, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": victim}})];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(file.path(), list.to_string()).expect("a temporary file");
    let alone = Reach::start(["--presets".as_ref(), file.path().as_os_str()]);
    let alone_target = Target::with(&alone, &review(victim, &json!({"app": "web"})));

    let start = Instant::now();
    create_many(cluster, hostile, count, |number| {
        json!({
            "selector": {"matchExpressions": [
                {"key": "app", "operator": "NotIn", "values": (0..30).map(|value| format!("no-{value}")).collect::<Vec<_>>()},
                {"key": format!("k{number}"), "operator": "DoesNotExist"},
            ]},
            "env": [{"name": "no_proxy", "value": format!("h{number}.example")}],
        })
    });
    let written = start.elapsed();
    let mut probe = review(hostile, &json!({}));
    probe["request"]["object"]["metadata"]["labels"] = json!({"app": "web"});
    // As many as have 1 MiB together are used, and the others counted as left out.
    let metric =
        |name: &str| cluster.reach.metric(&format!("{name}{{kind=\"PodPreset\"}}")).unwrap_or_default();
    eventually_within(Duration::from_mins(2), "the presets are known", || {
        let known = metric("reach_presets") + metric("reach_presets_invalid");
        if known >= count as f64 { Ok(()) } else { Err(known) }
    });
    let used = metric("reach_presets");

    let turn = |target: &Target| {
        let load = Load::start(target, API_SERVER, 1, Duration::ZERO);
        load.await_more(calls);
        load.stop()
    };
    let (mut beside, mut without) = (Calls::default(), Calls::default());
    for _ in 0..rounds {
        beside.add(turn(&target));
        without.add(turn(&alone_target));
    }
    // What a pod of its own costs the tenant.
    let mut own = Vec::new();
    let mut answer = Value::Null;
    for _ in 0..Size::wanted().of(5, 50) {
        let start = Instant::now();
        answer = cluster.reach.review(&probe);
        own.push(start.elapsed());
    }
    let injected = patch(&answer).map_or(0, |patch| patch.to_string().len());
    // And what others feel while it makes one after the other: beside a reach that gets none of those pods, and beside this one
    // while it gets pods of a namespace like any other, which tells what the presets do from what company does.
    let creations = |namespace: &str| {
        let creations = Creations::start(
            &[cluster.control_plane.kubeconfig()],
            namespace,
            ("http_proxy", "http://p:3128"),
            Duration::ZERO,
            None,
        );
        creations.await_pods(3);
        creations
    };
    let (mut during, mut meanwhile, mut company) = (Calls::default(), Calls::default(), Calls::default());
    let (mut made, mut made_beside) = (Counts::default(), Counts::default());
    for _ in 0..rounds {
        let pods = creations(hostile);
        during.add(turn(&target));
        meanwhile.add(turn(&alone_target));
        made.add(pods.stop());
        let pods = creations(ordinary);
        company.add(turn(&target));
        made_beside.add(pods.stop());
    }
    let stored = api.create(&pods(victim, true), &pod(&json!({}), &json!([]))).expect("a pod");

    let of = |calls: &Calls| calls.latency().map_or(f64::NAN, |(p50, _)| p50.as_secs_f64() * 1e6);
    let (own_p50, own_p99) = percentiles(&mut own).expect("calls");
    let _recorded = Row {
        number: "29b",
        fault: "many presets in one namespace, with selectors that have to be looked at one by one",
        done: format!("{count} presets, of which {used} are used (1 MiB), then pods of another namespace, and then with pods of the first one beside"),
        calls: beside.total() + during.total(),
        failed: beside.failed_count() + during.failed_count(),
        uninjected: beside.bare + during.bare,
        latency: during.latency(),
        recovery: None,
        more: format!(
            "written in {:.1} s; median of another namespace {:.1} us with them and {:.1} us without ({:.2} times); \
             while {} pods of the first one are made {:.1} us, while {} pods of a namespace with one preset are made {:.1} us \
             ({:.2} times), and of a reach that gets neither {:.1} us ({:.2} times); a pod of the first one: p50 {:.1} ms, p99 {:.1} ms, patch {} KB",
            written.as_secs_f64(),
            of(&beside),
            of(&without),
            of(&beside) / of(&without),
            made.total(),
            of(&during),
            made_beside.total(),
            of(&company),
            of(&during) / of(&company),
            of(&meanwhile),
            of(&during) / of(&meanwhile),
            own_p50.as_secs_f64() * 1000.0,
            own_p99.as_secs_f64() * 1000.0,
            injected / 1000,
        ),
    }
    .record();
    cluster.kubectl(&["delete", "pp", "--all", "-n", hostile, "--wait=false"]);
    beside.assert_all_injected(1);
    during.assert_all_injected(1);
    made.add(made_beside);
    assert_eq!(made.failed, 0, "{:?}", made.failures);
    assert!(!env(&stored, "web").iter().any(|variable| variable.contains("example")), "{stored}");
}

/// API servers before Kubernetes 1.32 do not send objects one by one.
pub fn presets_are_read_in_pages_where_they_are_not_streamed(_: &Stage) {
    let options = Options::default().with_api_server_flag("--feature-gates=WatchList=false");
    let control_plane = ControlPlane::start(options);
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let crds = crds.to_str().expect("UTF-8");
    ok(&control_plane.kubectl(&["apply", "--server-side", "-f", crds]));
    ok(&control_plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", crds]));
    control_plane.create_namespace("paged");
    let spec = json!({"env": [{"name": "PAGED", "value": "yes"}]});
    let preset = |number: usize| pod_preset("paged", &format!("paged-{number}"), &spec);
    control_plane.apply(&json!((0..250).map(preset).collect::<Vec<_>>()));
    let reach = Reach::start(["--kubeconfig".as_ref(), control_plane.kubeconfig().as_os_str()]);
    reach.await_ready();
    reach.await_metric("reach_presets{kind=\"PodPreset\"}", 250.0);
    control_plane.apply(&preset(250));
    reach.await_metric("reach_presets{kind=\"PodPreset\"}", 251.0);
    assert!(patch(&reach.review(&review("paged", &json!({})))).is_some());
    assert!(!reach.stderr().contains("watch interrupted"), "{}", reach.stderr());
}

// === 30 ===

/// Row 30: objects from before a schema change.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn presets_that_cannot_be_used_leave_the_others_working(stage: &Stage) {
    let cluster = stage.tenancy();
    let namespace = "malformed";
    let api = with_proxy(cluster, namespace);
    cluster.preset(namespace, "good", &json!({"env": [{"name": "TZ", "value": "UTC"}]}));
    let crd = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/reach.dev_podpresets.yaml");
    let crd = crd.to_str().expect("UTF-8");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/podpresets.reach.dev";
    let definition = api.get(path).expect("the CRD");
    // As an earlier version of the CRD, or one of somebody else, could have let it in. (Of a version that is gone altogether, an
    // API server lists no preset at all, for nobody.)
    let mut loosened = definition.clone();
    loosened["spec"]["versions"][0]["schema"] =
        json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    api.replace(path, &loosened);
    let count = Size::wanted().of(30, 600);
    let malformed = [
        json!({"env": "s3cret"}),
        json!({"env": [{"name": "A", "value": {"s3cret": 1}}], "selector": 5}),
        json!({"env": [{"name": "no_proxy", "value": "a"}, {"name": "NO_PROXY", "value": "s3cret"}]}),
        json!({"env": [{"name": "A=B\n", "value": "s3cret"}]}),
        json!({"volumes": [{"name": "root", "hostPath": {"path": "/s3cret"}}], "volumeMounts": [{"name": "root", "mountPath": "/host"}]}),
        json!({"selector": {"matchExpressions": [{"key": "a", "operator": "s3cret"}]}, "env": [{"name": "A"}]}),
        Value::Null,
        json!([]),
    ];
    for number in 0..count {
        let preset = pod_preset(namespace, &format!("bad-{number}"), &malformed[number % malformed.len()]);
        eventually("the malformed preset is stored", || api.create(&presets(namespace), &preset));
    }
    // Back to what is installed.
    let mut restored = api.get(path).expect("the CRD");
    restored["spec"] = definition["spec"].clone();
    api.replace(path, &restored);
    ok(&cluster.control_plane.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", crd]));

    let invalid = "reach_presets_invalid{kind=\"PodPreset\"}";
    eventually_within(Duration::from_mins(5), "each is counted", || {
        let counted = cluster.reach.metric(invalid).unwrap_or_default();
        if counted >= count as f64 { Ok(()) } else { Err(format!("{counted}: {}", cluster.reach.stderr())) }
    });
    // A replica that starts after all of it, too.
    let fresh = Reach::start(["--kubeconfig".as_ref(), cluster.kubeconfig.path().as_os_str()]);
    fresh.await_ready();
    let (mut times, mut wrong) = (Vec::new(), 0);
    let pods_made = Size::wanted().of(50, 1000);
    for _ in 0..pods_made {
        let start = Instant::now();
        let stored = api.create(&pods(namespace, true), &pod(&json!({}), &json!([]))).expect("a pod");
        times.push(start.elapsed());
        wrong += usize::from(!env(&stored, "web").contains(&"TZ=UTC".to_owned()));
    }
    let answer = patch(&fresh.review(&review(namespace, &json!({})))).map(|patch| patch.to_string());
    // The watch goes on.
    cluster.apply(&json!([pod_preset(namespace, "good", &json!({"env": [{"name": "TZ", "value": "CET"}]}))]));
    let start = Instant::now();
    eventually("a change is served", || {
        let stored = api.create(&pods(namespace, true), &pod(&json!({}), &json!([])))?;
        if env(&stored, "web").contains(&"TZ=CET".to_owned()) { Ok(()) } else { Err(stored.to_string()) }
    });
    let changed = start.elapsed();
    let logs = cluster.reach.stderr() + &fresh.stderr();
    let readiness = cluster.reach.status("/readyz").status;
    let _recorded = Row {
        number: "30",
        fault: "presets that cannot be used beside a good one, stored before a schema change",
        done: format!("{count} presets of {} kinds, then {pods_made} pods", malformed.len()),
        calls: pods_made,
        failed: 0,
        uninjected: wrong,
        latency: percentiles(&mut times),
        recovery: Some(changed),
        more: format!("each counted and named in the log; /readyz {readiness}; as before: until a change of the good one is served"),
    }
    .record();
    assert_eq!((wrong, readiness), (0, 200));
    assert!(answer.is_some_and(|patch| patch.contains("UTC")), "a replica that starts after it");
    for number in 0..count {
        assert!(logs.contains(&format!("bad-{number}")), "bad-{number} is named");
    }
    assert!(!logs.contains("s3cret"), "without its values");
    cluster.kubectl(&["delete", "pp", "--all", "-n", namespace]);
    cluster.reach.await_metric(invalid, 0.0);
}
