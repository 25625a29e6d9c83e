//! Pods on their way through the API server.

use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::cluster::{Cluster, annotation, env, env_of, pod, stderr};
use crate::support::eventually;
use crate::support::serve::command;

/// What the preset of [`proxy`] makes of a container without variables.
const PROXY: [&str; 4] = [
    "http_proxy=http://p:3128",
    "HTTP_PROXY=http://p:3128",
    "no_proxy=.svc,svc,localhost,127.0.0.1",
    "NO_PROXY=.svc,svc,localhost,127.0.0.1",
];

/// Number of pods, and of kubectls that make them at once.
const BURST: (usize, usize) = (500, 16);

fn proxy() -> Value {
    json!({
        "excludeContainers": ["istio-proxy", "linkerd-*"],
        "env": [{"name": "http_proxy", "value": "http://p:3128"}, {"name": "no_proxy", "value": ".svc"}],
    })
}

/// A namespace with the preset of [`proxy`].
fn with_proxy(cluster: &Cluster, namespace: &str) {
    cluster.namespace(namespace, &json!({}));
    cluster.cluster_preset(namespace, &format!("{namespace}-proxy"), &proxy());
}

/// Waits for a pod that a controller makes.
fn made(cluster: &Cluster, namespace: &str, selector: &str) -> Value {
    eventually(&format!("a pod with {selector}"), || {
        let pods = cluster.get(namespace, &["pods", "-l", selector]);
        pods["items"].get(0).cloned().ok_or_else(|| cluster.kubectl(&["get", "events", "-n", namespace]))
    })
}

pub fn are_injected_however_they_are_made(cluster: &Cluster) {
    let namespace = "made";
    with_proxy(cluster, namespace);
    let direct =
        cluster.create(namespace, &pod(&json!({}), &json!([{"name": "no_proxy", "value": "redis"}])));
    assert_eq!(
        env(&direct, "web"),
        [
            "no_proxy=.redis,redis,.svc,svc,localhost,127.0.0.1",
            "http_proxy=http://p:3128",
            "HTTP_PROXY=http://p:3128",
            "NO_PROXY=.redis,redis,.svc,svc,localhost,127.0.0.1"
        ]
    );
    assert_eq!(annotation(&direct, "presets"), Some("ClusterPodPreset/made-proxy@1"));
    assert_eq!(annotation(&direct, "hash").map(str::len), Some(16));
    assert_eq!(annotation(&direct, "skipped"), None);

    let template = |app: &str, restart: &str| {
        json!({
            "metadata": {"labels": {"app": app}},
            "spec": {"restartPolicy": restart, "containers": [{"name": "web", "image": "web"}]},
        })
    };
    let deployment = cluster.create(
        namespace,
        &json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template("web", "Always")},
        }),
    );
    assert_eq!(
        env_of(&deployment["spec"]["template"]["spec"]["containers"][0]["env"]),
        [""; 0],
        "the template is its owner's"
    );
    assert_eq!(env(&made(cluster, namespace, "app=web"), "web"), PROXY);

    let schedule = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "report"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template("report", "Never")}}},
    });
    cluster.create(namespace, &schedule);
    // Its next time is up to a year away.
    cluster.kubectl(&["create", "job", "report-now", "--from=cronjob/report", "-n", namespace]);
    assert_eq!(env(&made(cluster, namespace, "job-name=report-now"), "web"), PROXY);
}

pub fn are_injected_in_every_kind_of_container(cluster: &Cluster) {
    let namespace = "containers";
    with_proxy(cluster, namespace);
    let container = |name: &str| json!({"name": name, "image": "x"});
    let mut pod = pod(&json!({}), &json!([]));
    let mut native = container("native-sidecar");
    native["restartPolicy"] = json!("Always");
    pod["spec"]["initContainers"] = json!([container("init"), native, container("linkerd-init")]);
    pod["spec"]["containers"] = json!([
        container("web"),
        container("istio-proxy"),
        container("istio-proxy-2"),
        container("linkerd-proxy"),
        container("my-linkerd-proxy"),
    ]);
    let stored = cluster.create(namespace, &pod);
    for name in ["init", "native-sidecar", "web", "istio-proxy-2", "my-linkerd-proxy"] {
        assert_eq!(env(&stored, name), PROXY, "{name}");
    }
    for name in ["linkerd-init", "istio-proxy", "linkerd-proxy"] {
        assert_eq!(env(&stored, name), [""; 0], "{name} is excluded");
    }
}

pub fn get_ephemeral_containers_injected_and_nothing_else_changed(cluster: &Cluster) {
    let namespace = "ephemeral";
    cluster.namespace(namespace, &json!({}));
    // From before there are presets, to see that only what is new is injected.
    let mut before = pod(&json!({}), &json!([]));
    before["metadata"]["name"] = json!("old");
    cluster.create(namespace, &before);
    let debug = |name: &str| {
        let output = cluster.control_plane.kubectl(&[
            "debug",
            "pod/old",
            "-n",
            namespace,
            "--image=busybox",
            "--container",
            name,
            "--env=no_proxy=own",
            "--attach=false",
            "--profile=general",
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        (cluster.get(namespace, &["pod", "old"]), stderr(&output))
    };
    let (stored, _) = debug("first");
    assert_eq!(env(&stored, "first"), ["no_proxy=own"]);

    cluster.cluster_preset(namespace, "ephemeral-proxy", &proxy());
    let (stored, _) = debug("second");
    let merged = [
        "no_proxy=.own,own,.svc,svc,localhost,127.0.0.1",
        "http_proxy=http://p:3128",
        "HTTP_PROXY=http://p:3128",
        "NO_PROXY=.own,own,.svc,svc,localhost,127.0.0.1",
    ];
    assert_eq!(env(&stored, "second"), merged);
    assert_eq!(env(&stored, "first"), ["no_proxy=own"], "what is there already cannot change");
    assert_eq!(env(&stored, "web"), [""; 0], "what runs cannot change");
    assert_eq!(annotation(&stored, "presets"), None, "annotations cannot be written here");

    // The whole subresource at once, as other clients write it.
    let mut whole = stored;
    whole["spec"]["ephemeralContainers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "third", "image": "x", "targetContainerName": "web"}));
    let path = format!("/api/v1/namespaces/{namespace}/pods/old/ephemeralcontainers");
    let output =
        cluster.control_plane.kubectl_with_stdin(&["replace", "--raw", &path, "-f", "-"], whole.to_string());
    assert!(output.status.success(), "{}", stderr(&output));
    let stored = cluster.get(namespace, &["pod", "old"]);
    assert_eq!(env(&stored, "third"), PROXY);
    assert_eq!(env(&stored, "second"), merged);

    // A running pod gets no volumes, so a preset with one that it lacks cannot be applied.
    cluster.cluster_preset(
        namespace,
        "ephemeral-ca",
        &json!({
            "env": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.pem"}],
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        }),
    );
    let (stored, warnings) = debug("fourth");
    assert_eq!(env(&stored, "fourth"), merged);
    let warning = "Warning: reach: ClusterPodPreset/ephemeral-ca not applied: volume ca is not in the pod";
    assert!(warnings.contains(warning), "{warnings}");
}

pub fn get_env_from_volumes_and_mounts_once(cluster: &Cluster) {
    let namespace = "volumes";
    cluster.namespace(namespace, &json!({}));
    // Without what the API server adds to a pod by default: defaultMode, type, readOnly, ...
    cluster.cluster_preset(
        namespace,
        "volumes",
        &json!({
            "envFrom": [{"configMapRef": {"name": "proxy"}}, {"prefix": "P_", "secretRef": {"name": "proxy"}}],
            "volumes": [
                {"name": "ca", "configMap": {"name": "ca"}},
                {"name": "certificates", "hostPath": {"path": "/etc/ssl"}},
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "ca"}},
                    {"serviceAccountToken": {"path": "token"}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ]}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "1024Mi"}},
            ],
            "volumeMounts": [
                {"name": "ca", "mountPath": "/ca", "readOnly": true},
                {"name": "certificates", "mountPath": "/etc/ssl"},
                {"name": "all", "mountPath": "/all"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        }),
    );
    let bare = cluster.create(namespace, &pod(&json!({}), &json!([])));
    let names = |pod: &Value, list: &str| {
        let list = pod.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let name = |item: Value| item["name"].as_str().unwrap_or_default().to_owned();
        // Without the token of the service account, whose name the API server makes up.
        list.into_iter().map(name).filter(|name| !name.starts_with("kube-api-access-")).collect::<Vec<_>>()
    };
    let volumes = ["ca", "certificates", "all", "scratch"];
    assert_eq!(names(&bare, "/spec/volumes"), volumes);
    assert_eq!(names(&bare, "/spec/containers/0/volumeMounts"), volumes);
    assert_eq!(
        bare["spec"]["volumes"]
            .as_array()
            .and_then(|all| all.iter().find(|v| v["name"] == "ca"))
            .expect("ca")["configMap"]["defaultMode"],
        420
    );
    let from = json!([{"configMapRef": {"name": "proxy"}}, {"prefix": "P_", "secretRef": {"name": "proxy"}}]);
    assert_eq!(bare["spec"]["containers"][0]["envFrom"], from);

    // A pod that the API server has completed has everything already, in its own words; so has a copy of it.
    let mut copy = bare.clone();
    copy["metadata"] = json!({"generateName": "copy-"});
    copy["spec"]["volumes"].as_array_mut().expect("volumes").retain(|volume| volume["name"] != "scratch");
    copy["spec"]["containers"][0]["volumeMounts"]
        .as_array_mut()
        .expect("mounts")
        .retain(|mount| mount["name"] != "scratch");
    let stored = cluster.create(namespace, &copy);
    assert_eq!(annotation(&stored, "skipped"), None);
    assert_eq!(names(&stored, "/spec/volumes"), volumes, "what it lacks comes last");
    assert_eq!(names(&stored, "/spec/containers/0/volumeMounts"), volumes);
    assert_eq!(stored["spec"]["containers"][0]["envFrom"], from);

    // The same source under another prefix is another one.
    let mut prefixed = pod(&json!({}), &json!([]));
    prefixed["spec"]["containers"][0]["envFrom"] =
        json!([{"prefix": "MY_", "configMapRef": {"name": "proxy"}}]);
    let stored = cluster.create(namespace, &prefixed);
    assert_eq!(stored["spec"]["containers"][0]["envFrom"].as_array().map(Vec::len), Some(3));
}

pub fn have_volumes_completed_as_the_contract_says(cluster: &Cluster) {
    let namespace = "completed";
    cluster.namespace(namespace, &json!({}));
    let pairs: Vec<Value> =
        serde_json::from_str(include_str!("../fixtures/volumes.json")).expect("pairs of volumes");
    let volumes = |which: &str| -> Vec<Value> {
        let named = |(number, pair): (usize, &Value)| {
            let mut volume = pair[which].clone();
            volume["name"] = format!("volume-{number}").into();
            volume
        };
        pairs.iter().enumerate().map(named).collect()
    };
    let mut pod = pod(&json!({}), &json!([]));
    pod["spec"]["volumes"] = volumes("written").into();
    let stored = cluster.dry_run(namespace, &pod);
    let stored = stored["spec"]["volumes"].as_array().expect("volumes");
    assert_eq!(stored[..pairs.len()], volumes("completed"));
}

pub fn are_admitted_without_the_preset_that_conflicts(cluster: &Cluster) {
    let namespace = "conflicts";
    with_proxy(cluster, namespace);
    let spec = json!({
        "env": [{"name": "SSL_CERT_FILE", "value": "/s3cret/ca.pem"}],
        "volumes": [{"name": "ca", "configMap": {"name": "s3cret"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    });
    cluster.cluster_preset(namespace, "conflicts-ca", &spec);
    let mut volume = pod(&json!({}), &json!([{"name": "MINE", "value": "s3cret"}]));
    volume["spec"]["volumes"] = json!([{"name": "ca", "emptyDir": {}}]);
    let mut mount = volume.clone();
    mount["spec"]["volumes"][0]["name"] = json!("mine");
    mount["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "mine", "mountPath": "/ca"}]);
    for (pod, reason) in [
        (volume, "volume ca is taken by different content"),
        (mount, "mount path /ca in container web is taken"),
    ] {
        let (stored, warnings) = cluster.create_with(namespace, &pod, &[]);
        assert_eq!(annotation(&stored, "presets"), Some("ClusterPodPreset/conflicts-proxy@1"));
        assert_eq!(
            annotation(&stored, "skipped"),
            Some(&*format!("ClusterPodPreset/conflicts-ca@1: {reason}"))
        );
        let warning = format!("Warning: reach: ClusterPodPreset/conflicts-ca not applied: {reason}");
        assert_eq!(warnings.lines().collect::<Vec<_>>(), [warning], "once, without a value");
        assert_eq!(env(&stored, "web"), [&["MINE=s3cret"], &PROXY[..]].concat(), "the others are applied");
        assert_eq!(stored["spec"]["volumes"][0], {
            let mut own = pod["spec"]["volumes"][0].clone();
            own["emptyDir"] = json!({});
            own
        });
    }
}

pub fn that_opted_out_are_left_alone(cluster: &Cluster) {
    let namespace = "opted";
    with_proxy(cluster, namespace);
    let with = |field: &str, key: &str, value: &str| {
        let mut pod = pod(&json!({}), &json!([]));
        pod["metadata"][field] = json!({key: value});
        env(&cluster.create(namespace, &pod), "web")
    };
    assert_eq!(with("labels", "reach.dev/injection", "disabled"), [""; 0]);
    assert_eq!(with("annotations", "podpreset.admission.kubernetes.io/exclude", "true"), [""; 0]);
    assert_eq!(with("labels", "reach.dev/injection", "enabled"), PROXY);
    assert_eq!(with("annotations", "podpreset.admission.kubernetes.io/exclude", "false"), PROXY);

    let disabled = "opted-disabled";
    cluster.namespace(disabled, &json!({"reach.dev/injection": "disabled"}));
    cluster.apply(&json!([crate::cluster::pod_preset(disabled, "opted", &proxy())]));
    eventually("the preset is served", || {
        // That nothing is injected proves nothing until the preset is known.
        let known = cluster.reach.status("/metrics").body;
        let kubectl = cluster.kubectl(&["get", "pp", "-A", "-o", "name"]).lines().count();
        let line = format!("reach_presets{{kind=\"PodPreset\"}} {kubectl}");
        if known.lines().any(|counted| counted == line) { Ok(()) } else { Err(known + &line) }
    });
    let stored = cluster.create(disabled, &pod(&json!({}), &json!([])));
    assert_eq!((env(&stored, "web"), annotation(&stored, "presets")), (vec![], None));
}

pub fn in_a_namespace_made_a_moment_ago_are_injected(cluster: &Cluster) {
    // For every namespace of this team, before there is one.
    cluster.apply(&json!([{
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": "at-once"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"team": "at-once"}},
            "env": [{"name": "AT_ONCE", "value": "yes"}],
        },
    }]));
    cluster.namespace("at-once-before", &json!({"team": "at-once"}));
    cluster.await_presets("at-once-before", &json!({}), &["ClusterPodPreset/at-once@"]);
    for index in 0..10 {
        let namespace = format!("at-once-{index}");
        let mut pod = pod(&json!({}), &json!([]));
        pod["metadata"] = json!({"name": "web", "namespace": namespace});
        // One that does not have to wait for the default service account.
        pod["spec"]["serviceAccountName"] = json!("own");
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        let metadata = json!({"name": namespace, "labels": {"team": "at-once"}});
        let account = json!({"name": "own", "namespace": namespace});
        let objects = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}),
            pod,
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let output = cluster.control_plane.kubectl_with_stdin(&["create", "-f", "-"], list.to_string());
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(env(&cluster.get(&namespace, &["pod", "web"]), "web"), ["AT_ONCE=yes"]);
    }
}

pub fn by_the_hundreds_are_all_injected(cluster: &Cluster) {
    let namespace = "burst";
    with_proxy(cluster, namespace);
    let (pods, kubectls) = BURST;
    thread::scope(|scope| {
        for part in 0..kubectls {
            scope.spawn(move || {
                let share = (part * pods / kubectls)..((part + 1) * pods / kubectls);
                let objects: Vec<Value> = share.map(|_| pod(&json!({}), &json!([]))).collect();
                cluster.create_all(namespace, &objects, &[]);
            });
        }
    });
    let stored = cluster.get(namespace, &["pods"]);
    let stored = stored["items"].as_array().expect("pods");
    assert_eq!(stored.len(), pods);
    for pod in stored {
        assert_eq!(env(pod, "web"), PROXY);
    }
}

pub fn are_what_inject_and_explain_say(cluster: &Cluster) {
    let namespace = "foretold";
    with_proxy(cluster, namespace);
    cluster.preset(
        namespace,
        "own",
        &json!({"env": [
            {"name": "no_proxy", "value": "mysql"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}},
        ]}),
    );
    let mut object = pod(&json!({}), &json!([{"name": "no_proxy", "value": "redis"}]));
    object["metadata"] = json!({"name": "web", "namespace": namespace});
    object["spec"]["initContainers"] = json!([{"name": "init", "image": "init"}]);
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a temporary file");
    std::fs::write(file.path(), object.to_string()).expect("a temporary file");
    let run = |subcommand: &str| -> Value {
        let mut command: Command = command();
        command.args([subcommand, "-o", "json", "--kubeconfig"]).arg(cluster.kubeconfig.path());
        let output = command.arg("-f").arg(file.path()).stdin(Stdio::null()).output().expect("the binary");
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let (injected, explained) = (run("inject"), run("explain"));
    let stored = cluster.create(namespace, &object);
    for name in ["web", "init"] {
        assert_eq!(env(&injected, name), env(&stored, name));
    }
    assert!(
        env(&stored, "web")
            .contains(&"no_proxy=.mysql,mysql,.redis,redis,.svc,svc,localhost,127.0.0.1".to_owned()),
        "{stored}"
    );
    for key in ["presets", "hash"] {
        assert_eq!(annotation(&injected, key), annotation(&stored, key), "{key}");
    }

    assert_eq!(explained[0]["namespace"], namespace);
    for container in explained[0]["containers"].as_array().expect("containers") {
        let mut expected = env(&stored, container["name"].as_str().expect("a name"));
        let mut said: Vec<String> = Vec::new();
        for variable in container["variables"].as_array().expect("variables") {
            for name in variable["names"].as_array().expect("names") {
                let name = name.as_str().expect("a name");
                if variable["value"].is_null() {
                    assert_eq!(variable["valueFrom"], "key t of Secret token");
                    said.push(format!("{name}<-token/t"));
                } else {
                    said.push(format!("{name}={}", variable["value"].as_str().expect("a string")));
                }
            }
        }
        // They are explained in order of use, and stand where the container had them.
        expected.sort();
        said.sort();
        assert_eq!(said, expected);
    }
}
