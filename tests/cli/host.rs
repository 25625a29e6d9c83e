//! `reach host`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use reach::host::cluster_api::RULES;
use reach::manifest::documents;
use serde_json::{Value, json};

use super::{Run, command, golden, json_stream, pipe, root, run, values};

const PRESETS: [&str; 2] = ["--presets", "examples/cluster-api/presets"];

/// Real manifests, by name.
const EXAMPLES: [&str; 5] = ["vsphere", "static-ip-metal3", "static-ip", "template", "clusterclass"];

fn example(name: &str) -> String {
    fs::read_to_string(root().join(format!("examples/cluster-api/{name}.yaml"))).unwrap()
}

fn host(subcommand: &str, manifests: &str, more: &[&str]) -> Run {
    pipe(&[&["host", subcommand, "-f", "-"], &PRESETS[..], more].concat(), manifests)
}

fn patch(manifests: &str, more: &[&str]) -> String {
    host("patch", manifests, more).succeeded()
}

/// A small cluster, with this as the specification of its control plane's configuration.
fn cluster(spec: &str) -> String {
    format!(
        "\
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {{name: web, namespace: prod}}
spec:
  clusterNetwork: {{pods: {{cidrBlocks: [10.244.0.0/16]}}}}
  controlPlaneEndpoint: {{host: 10.0.0.10, port: 6443}}
  controlPlaneRef: {{apiGroup: controlplane.cluster.x-k8s.io, kind: KubeadmControlPlane, name: web}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlane
metadata: {{name: web, namespace: prod}}
spec:
  kubeadmConfigSpec:
{}
",
        spec.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    )
}

/// The configuration of the control plane in a stream.
fn spec(stream: &str) -> Value {
    let found = values(stream).into_iter().find(|object| object["kind"] == "KubeadmControlPlane").unwrap();
    found["spec"]["kubeadmConfigSpec"].clone()
}

/// What is in the files of a configuration, as a host would have it.
fn files(spec: &Value) -> BTreeMap<String, String> {
    let files = spec["files"].as_array().cloned().unwrap_or_default();
    let content = |file: &Value| reach::host::patch::content(file).unwrap_or_default();
    files.iter().map(|file| (file["path"].as_str().unwrap().to_owned(), content(file))).collect()
}

/// The entries of `no_proxy` in the file of variables.
fn no_proxy(stream: &str) -> Vec<String> {
    let files = files(&spec(stream));
    let line = files["/etc/reach/proxy.env"].lines().find(|line| line.starts_with("no_proxy=")).unwrap();
    let list = line.trim_start_matches("no_proxy='").trim_end_matches('\'');
    list.split(',').map(str::to_owned).collect()
}

fn fails(manifests: &str, more: &[&str]) -> String {
    let run = host("patch", manifests, more);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    run.stderr
}

#[test]
fn patching_adds_lines_and_leaves_all_others_and_twice_is_once() {
    for name in EXAMPLES {
        let before = example(name);
        let whole = patch(&before, &[]);
        let mut rest = whole.lines();
        for line in before.lines() {
            assert!(rest.any(|kept| kept == line), "{name}: lost or changed: {line}");
        }
        assert_ne!(before, whole, "{name}");
        assert_eq!(patch(&whole, &[]), whole, "{name}");
        // Without a final line break, there is none behind what was the last line either.
        let cut = before.trim_end();
        let after = patch(cut, &[]);
        assert_eq!(patch(&after, &[]), after, "{name}");
        assert_eq!(values(&after), values(&whole), "{name}");
        // Documents that are not patched are there byte for byte.
        let patched = ["KubeadmControlPlane", "KubeadmConfigTemplate", "ClusterClass"];
        for document in documents(&before) {
            let kind = document.read().unwrap().unwrap_or_default()["kind"].clone();
            if !patched.iter().any(|patched| kind == *patched) {
                assert!(whole.contains(document.text.trim_end()), "{name}: {kind}");
            }
        }
    }
}

#[test]
fn a_patched_cluster_has_the_files_and_the_command_and_the_addresses_of_the_cluster() {
    let after = patch(&example("vsphere"), &[]);
    let spec = spec(&after);
    assert_eq!(spec["preKubeadmCommands"][0], "sh /etc/reach/apply-proxy.sh");
    let own: Vec<String> = files(&spec).into_keys().filter(|path| path.contains("reach")).collect();
    assert_eq!(
        own,
        [
            "/etc/reach/apply-proxy.sh",
            "/etc/reach/proxy.env",
            "/etc/systemd/system/containerd.service.d/10-reach-proxy.conf",
        ]
    );
    let list = no_proxy(&after);
    for entry in ["10.20.0.10", "vcenter.infra.example", "10.96.0.1", ".svc"] {
        assert!(list.iter().any(|own| own == entry), "{entry}: {list:?}");
    }
    golden("host-no-proxy.txt", &host("no-proxy", &example("vsphere"), &[]).succeeded());
    golden("host-no-proxy.json", &host("no-proxy", &example("static-ip"), &["-o", "json"]).succeeded());
    let value = host("no-proxy", &example("vsphere"), &["-o", "value"]).succeeded();
    assert_eq!(value.trim_end(), list.join(","));
}

#[test]
fn presets_that_change_replace_and_presets_without_a_proxy_take_away() {
    let folder = tempfile::tempdir().unwrap();
    let presets = |env: &str| {
        let file = folder.path().join("preset.yaml");
        let text = format!(
            "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {{name: a}}\nspec: {{env: [{env}]}}\n"
        );
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let patch = |manifests: &str, env: &str| {
        pipe(&["host", "patch", "-f", "-", "--presets", &presets(env)], manifests).succeeded()
    };
    for name in EXAMPLES {
        let before = example(name);
        let first = patch(&before, "{name: http_proxy, value: 'http://one:1'}");
        let second = patch(&first, "{name: http_proxy, value: 'http://two:1'}");
        assert_eq!(second, patch(&before, "{name: http_proxy, value: 'http://two:1'}"), "{name}");
        let none =
            pipe(&["host", "patch", "-f", "-", "--presets", &presets("{name: TZ, value: UTC}")], &second);
        // Once, however many clusters and configurations there are.
        let told =
            "warning: nothing to add: ClusterPodPreset/a has no proxy for hosts; expected http_proxy, ";
        assert_eq!(none.stderr.matches(told).count(), 1, "{name}: {}", none.stderr);
        assert!(none.stderr.contains("; files of reach of an earlier time are taken away\n"), "{name}");
        let text = none.succeeded();
        assert!(!text.contains("/etc/reach/") && !text.contains("reach-proxy"), "{name}: {text}");
    }
}

#[test]
fn the_output_is_a_stream_a_diff_or_json() {
    let before = cluster("files: [] # none");
    let stream = patch(&before, &[]);
    let yaml = patch(&before, &["-o", "yaml"]);
    assert_eq!(stream, yaml);
    let json: Value = serde_json::from_str(&patch(&before, &["-o", "json"])).unwrap();
    assert_eq!(json["kind"], "List");
    assert_eq!(json["items"], Value::from(values(&stream)));
    let diff = host("patch", &before, &["-o", "diff"]);
    assert_eq!(diff.code, Some(1));
    assert!(
        diff.stdout.contains("+    preKubeadmCommands:\n+    - sh /etc/reach/apply-proxy.sh\n"),
        "{}",
        diff.stdout
    );
    let none = host("patch", &stream, &["-o", "diff"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
    assert_eq!(host("patch", "a: [", &["-o", "diff"]).code, Some(2));
    // JSON stays JSON, a List a List.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": values(&before)}).to_string();
    let after: Value = serde_json::from_str(&patch(&list, &[])).unwrap();
    assert_eq!(after["items"], Value::from(values(&stream)));
}

#[test]
fn lists_of_a_kind_are_read_as_a_list_of_any_is() {
    let before = values(&cluster("bootCommands: [curl x]"));
    let list = |api_version: &str, kind: &str, object: &Value| json!({"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": [object]});
    let typed = [
        list("cluster.x-k8s.io/v1beta2", "ClusterList", &before[0]),
        list("controlplane.cluster.x-k8s.io/v1beta2", "KubeadmControlPlaneList", &before[1]),
    ];
    let stream = format!("{}\n---\n# typed\n{}\n", typed[0], typed[1]);
    let in_a_list = json!({"apiVersion": "v1", "kind": "List", "items": typed}).to_string();
    let plain = values(&patch(&cluster("bootCommands: [curl x]"), &[]));
    let after = values(&patch(&stream, &[]));
    assert_eq!((&after[0]["items"][0], &after[1]["items"][0]), (&plain[0], &plain[1]));
    let nested = values(&patch(&in_a_list, &[]));
    assert_eq!(nested[0]["items"][1]["items"][0], plain[1]);
    // The Secret is put at the end of the stream, and taken from inside of a list.
    let secret = values(&patch(&stream, &["--env-secret", "web-proxy-env"])).pop().unwrap();
    let secrets = list("v1", "SecretList", &secret);
    let gone = values(&patch(&format!("{stream}---\n{secrets}\n"), &[]));
    assert_eq!(gone[2]["items"], json!([]));
    assert!(host("lint", &stream, &[]).stdout.contains("[early-download]"));
    let value = |manifests: &str| host("no-proxy", manifests, &["-o", "value"]).succeeded();
    assert_eq!(value(&stream), value(&cluster("files: []")));
}

#[test]
fn a_stream_of_json_stays_one_with_its_secret_and_is_yaml_beside_yaml() {
    let objects = values(&cluster("files: []"));
    let without_end = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let indented = format!("{:#}\n{:#}\n", objects[0], objects[1]);
    for before in [&format!("{without_end}\n"), &without_end, &indented] {
        let with_secret = ["--env-secret", "web-proxy-env"];
        let after = patch(before, &with_secret);
        let found = json_stream(&after);
        let kinds: Vec<&str> = found.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Cluster", "KubeadmControlPlane", "Secret"], "{after}");
        assert_eq!(patch(&after, &with_secret), after);
        // A Secret that changes, and one that goes.
        let changed = patch(&after, &[&with_secret[..], &["--without", "control-plane-endpoint"]].concat());
        assert_ne!(json_stream(&changed)[2], found[2]);
        assert_eq!(json_stream(&patch(&after, &[])).len(), 2);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), objects[0].to_string()).unwrap();
    let control_plane = cluster("files: [] # none").split_once("---\n").unwrap().1.to_owned();
    fs::write(folder.path().join("b.yaml"), &control_plane).unwrap();
    let names = ["a.json", "b.yaml"].map(|name| folder.path().join(name).display().to_string());
    for [first, second] in [[&names[0], &names[1]], [&names[1], &names[0]]] {
        let arguments = ["host", "patch", "-f", first, "-f", second, "--env-secret", "web-proxy-env"];
        let mixed = run(&[&arguments[..], &PRESETS].concat()).succeeded();
        assert!(documents(&mixed).iter().all(|document| !document.is_json()), "{mixed}");
        let found = values(&mixed);
        let mut kinds: Vec<&str> = found.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["Cluster", "KubeadmControlPlane", "Secret"], "{mixed}");
        assert_eq!(patch(&mixed, &["--env-secret", "web-proxy-env"]), mixed);
    }
}

#[test]
fn variables_of_clusterctl_come_out_as_they_went_in_and_can_be_filled_in_before_or_after() {
    let template = example("template");
    let patched = patch(&template, &[]);
    let list = no_proxy(&patched);
    for entry in ["${CONTROL_PLANE_ENDPOINT_IP}", "${VSPHERE_SERVER}", "${POD_CIDR:=10.244.0.0/16}"] {
        assert!(list.iter().any(|own| own == entry), "{entry}: {list:?}");
    }
    let given = [
        ("CLUSTER_NAME", "web"),
        ("NAMESPACE", "prod"),
        ("CONTROL_PLANE_ENDPOINT_IP", "10.20.0.10"),
        ("VSPHERE_SERVER", "vcenter.infra.example"),
    ];
    let fill = |text: &str| {
        reach::host::variables::substitute(text, |name| {
            let known = given.iter().find(|(known, _)| *known == name);
            Some(known.map_or_else(|| "1".to_owned(), |(_, value)| (*value).to_owned()))
        })
        .unwrap()
    };
    let after = no_proxy(&fill(&patched));
    for entry in ["10.20.0.10", "vcenter.infra.example"] {
        assert!(after.iter().any(|own| own == entry), "{entry}: {after:?}");
    }
    // The same by the environment; what has no value is named, all of it.
    let run = |values: &[(&str, &str)]| {
        let template = root().join("examples/cluster-api/template.yaml").display().to_string();
        let arguments = ["host", "patch", "-f", &template, "--values-from-env"];
        Run::from(
            command()
                .args([&arguments[..], &PRESETS].concat())
                .envs(values.iter().copied())
                .output()
                .unwrap(),
        )
    };
    let missing = run(&given[..2]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""));
    for name in ["CONTROL_PLANE_ENDPOINT_IP", "VSPHERE_SERVER"] {
        assert!(missing.stderr.contains(name), "{}", missing.stderr);
    }
}

#[test]
fn a_secret_keeps_the_variables_out_of_the_manifest() {
    let before = cluster("files: []");
    let after = patch(&before, &["--env-secret", "{cluster}-proxy-env"]);
    let first = &spec(&after)["files"][0];
    assert_eq!(first["contentFrom"], json!({"secret": {"name": "web-proxy-env", "key": "proxy.env"}}));
    assert_eq!(first.get("content"), None);
    let secret = values(&after).pop().unwrap();
    assert_eq!(
        (&secret["kind"], &secret["metadata"]["name"], &secret["metadata"]["namespace"]),
        (&json!("Secret"), &json!("web-proxy-env"), &json!("prod"))
    );
    assert_eq!(patch(&after, &["--env-secret", "{cluster}-proxy-env"]), after);
    // Without it, it goes again.
    assert_eq!(values(&patch(&after, &[])), values(&patch(&before, &[])));
    let error = fails(&before, &["--env-secret", "Shop_Proxy"]);
    let expected =
        "not a name of a Secret: write lower-case letters, digits, '-' and '.', for example shop-proxy-env\n";
    assert_eq!(error, format!("error: Cluster prod/web: --env-secret Shop_Proxy: {expected}"));
    let alone = before.split_once("---\n").unwrap().1;
    let error = fails(alone, &["--env-secret", "{cluster}-proxy-env"]);
    assert!(error.contains("--env-secret -proxy-env: not a name of a Secret, since no Cluster"), "{error}");
    patch(alone, &["--env-secret", "${CLUSTER_NAME}-proxy-env"]);
    // Cluster API's own names are not for others: a cluster would never start.
    for name in ["{cluster}-proxy", "web-kubeconfig"] {
        let error = fails(&before, &["--env-secret", name]);
        assert!(error.contains("Cluster API's own for the cluster web"), "{error}");
    }
    let taken =
        format!("{before}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: mine, namespace: prod}}\n");
    let error = fails(&taken, &["--env-secret", "mine"]);
    assert!(error.contains("document 3, Secret prod/mine: is there already"), "{error}");
}

#[test]
fn a_password_of_a_secret_needs_the_secret_and_is_never_in_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("preset.yaml");
    let text = "\
apiVersion: reach.dev/v1alpha1
kind: ClusterPodPreset
metadata: {name: corporate}
spec:
  env:
  - name: PROXY_PASSWORD
    valueFrom: {secretKeyRef: {name: proxy, key: password}}
  - name: https_proxy
    value: http://me:$(PROXY_PASSWORD)@proxy.corp.example:3128
";
    fs::write(&preset, text).unwrap();
    let preset = preset.display().to_string();
    let patch = |manifests: &str, more: &[&str]| {
        pipe(&[&["host", "patch", "-f", "-", "--presets", &preset], more].concat(), manifests)
    };
    let before = cluster("files: []");
    let run = patch(&before, &["--env-secret", "web-proxy-env"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("PROXY_PASSWORD comes from key password of Secret proxy"), "{}", run.stderr);
    let with = format!(
        "{before}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: proxy, namespace: prod}}\nstringData: {{password: s3cret%40}}\n"
    );
    let run = patch(&with, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(
        run.stderr.contains("https_proxy comes from a Secret") && run.stderr.contains("--env-secret"),
        "{}",
        run.stderr
    );
    let (_, secret) = with.rsplit_once("---\n").unwrap();
    let class = example("clusterclass").replace("namespace: clusters", "namespace: prod");
    let run = patch(&format!("{}\n---\n{secret}", class.split("\n---\n").next().unwrap()), &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("would stand in the class"), "{}", run.stderr);
    assert!(!run.stderr.contains("--env-secret") && !run.stderr.contains("s3cret"), "{}", run.stderr);
    let run = patch(&with, &["--env-secret", "web-proxy-env"]);
    assert!(!run.stderr.contains("s3cret"));
    let after = run.succeeded();
    let control_plane = serde_json::to_string(&spec(&after)).unwrap();
    let secret = values(&after).pop().unwrap();
    let encoded = secret["data"]["proxy.env"].as_str().unwrap();
    let decoded = |text: &str| String::from_utf8(base64_simd::STANDARD.decode_to_vec(text).unwrap()).unwrap();
    // Once as every `data`, once for Jinja.
    let value = decoded(encoded);
    let env = decoded(&value);
    assert!(env.contains("https_proxy='http://me:s3cret%40@proxy.corp.example:3128'\n"), "{env}");
    assert!(!control_plane.contains(encoded) && !control_plane.contains(&value));
}

#[test]
fn inline_credentials_are_warned_about_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("preset.yaml");
    let text = "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {name: a}\nspec: {env: [{name: http_proxy, value: 'http://me:s3cret@p:1'}]}\n";
    fs::write(&preset, text).unwrap();
    let preset = preset.display().to_string();
    let run = pipe(&["host", "patch", "-f", "-", "--presets", &preset], &cluster("files: []"));
    assert!(run.stderr.contains("http_proxy has a user or a password in it"), "{}", run.stderr);
    assert!(run.stderr.contains("--env-secret NAME") && !run.stderr.contains("s3cret"));
    // A class cannot follow that advice.
    let class = example("clusterclass");
    let class = class.split("\n---\n").next().unwrap();
    let run = pipe(&["host", "patch", "-f", "-", "--presets", &preset], class);
    assert!(run.stderr.contains("a class cannot refer to a Secret"), "{}", run.stderr);
    assert!(!run.stderr.contains("--env-secret") && !run.stderr.contains("s3cret"));
}

#[test]
fn user_data_that_vsphere_would_not_take_is_told_and_other_is_not() {
    // With what Cluster API and reach add, a third more in base64: just below and just above 64 KiB.
    let patch = |bytes: usize| {
        let own = format!("files:\n- path: /etc/own\n  content: {}", "x".repeat(bytes));
        pipe(&["host", "patch", "-f", "-", "--presets", "examples/presets"], &cluster(&own))
    };
    assert_eq!(patch(30_000).stderr, "");
    let run = patch(33_000);
    assert!(
        run.stderr.contains("of which vSphere takes 65536: the largest file of reach is /etc/"),
        "{}",
        run.stderr
    );
    run.succeeded();
}

#[test]
fn a_list_that_is_long_is_compressed_and_for_ignition_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("preset.yaml");
    let list: Vec<String> = (0..400).map(|number| format!("host-{number}.corp.example")).collect();
    let text = format!(
        "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {{name: a}}\nspec: {{env: [{{name: http_proxy, value: 'http://p:1'}}, {{name: no_proxy, value: '{}'}}]}}\n",
        list.join(",")
    );
    fs::write(&preset, text).unwrap();
    let preset = preset.display().to_string();
    let patch = |spec: &str, more: &[&str]| {
        pipe(&[&["host", "patch", "-f", "-", "--presets", &preset], more].concat(), &cluster(spec))
    };
    let after = patch("files: []", &[]).succeeded();
    assert_eq!(spec(&after)["files"][0]["encoding"], "gzip+base64");
    assert!(no_proxy(&after).iter().any(|entry| entry == "host-399.corp.example"));
    let run = patch("format: ignition", &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    for expected in
        ["document 2, KubeadmControlPlane prod/web: /etc/reach/proxy.env has", "--env-secret NAME"]
    {
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    patch("format: ignition", &["--env-secret", "web-proxy-env"]).succeeded();
}

#[test]
fn a_pool_that_grows_in_its_subnet_changes_no_file() {
    let before = example("static-ip");
    let grown = before.replacen("addresses:\n", "addresses:\n  - 10.30.0.40-10.30.0.45\n", 1);
    assert_ne!(grown, before, "the example has a pool");
    let bootstrap = |stream: &str, more: &[&str]| spec(&patch(stream, more))["files"].clone();
    assert_eq!(bootstrap(&grown, &[]), bootstrap(&before, &[]));
    let exact = ["--node-ranges", "exact"];
    assert_ne!(bootstrap(&grown, &exact), bootstrap(&before, &exact));
}

#[test]
fn sources_can_be_left_out() {
    let list =
        no_proxy(&patch(&example("vsphere"), &["--without", "vcenter,kube-vip,control-plane-endpoint"]));
    assert!(!list.iter().any(|entry| entry.contains("vcenter") || entry == "10.20.0.10"), "{list:?}");
    let run = host("patch", &example("vsphere"), &["--without", "everything"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("possible values: cluster-network, service-domain"), "{}", run.stderr);
}

#[test]
fn static_pods_get_nothing_what_kubeadm_has_or_what_is_written() {
    let before = cluster("files: []");
    let commands = |more: &[&str]| spec(&patch(&before, more))["preKubeadmCommands"].clone();
    let apply = "sh /etc/reach/apply-proxy.sh";
    assert_eq!(commands(&[]), json!([apply]));
    let export = "set -a; . /etc/reach/proxy.env; set +a";
    assert_eq!(commands(&["--static-pods", "inherit"]), json!([apply, export]));
    let explicit = patch(&before, &["--static-pods", "explicit"]);
    let names: Vec<String> = spec(&explicit)["clusterConfiguration"]["apiServer"]["extraEnvs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"]);
    assert_eq!(
        values(&patch(&explicit, &[]))[1]["spec"]["kubeadmConfigSpec"]["preKubeadmCommands"],
        json!([apply])
    );
}

#[test]
fn bad_input_is_told_with_its_place_and_loses_nothing() {
    let own = "files:\n- path: /etc/reach/proxy.env\n  content: mine";
    let second = cluster("files: []").replace(
        "metadata: {name: web, namespace: prod}\nspec:\n  clusterNetwork",
        "metadata: {name: other, namespace: prod}\nspec:\n  clusterNetwork",
    );
    let shared = format!("{}---\n{}", cluster("files: []"), second.split("---\n").next().unwrap());
    for (manifests, expected) in [
        ("a: [".to_owned(), "error: standard input, document 1: line 1"),
        (
            cluster(own),
            "error: standard input, document 2, KubeadmControlPlane prod/web: spec.kubeadmConfigSpec.files[0]: /etc/reach/proxy.env is there already and not written by reach",
        ),
        (
            cluster("files: nothing"),
            "error: standard input, document 2, KubeadmControlPlane prod/web, spec.kubeadmConfigSpec.files: expected a list",
        ),
        (
            cluster("files: []")
                .replace("controlplane.cluster.x-k8s.io/v1beta2", "controlplane.cluster.x-k8s.io/v9"),
            "error: standard input, document 2, KubeadmControlPlane prod/web, apiVersion: unknown version v9: expected controlplane.cluster.x-k8s.io/v1beta1 or controlplane.cluster.x-k8s.io/v1beta2 [version]",
        ),
        (shared, "[shared-configuration]"),
    ] {
        let error = fails(&manifests, &[]);
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    }
    let old = cluster("files: []").replace("io/v1beta2", "io/v1alpha3");
    let run = host("patch", &old, &[]);
    assert!(
        run.stderr.contains(
            "apiVersion: too old a version v1alpha3: expected controlplane.cluster.x-k8s.io/v1beta1"
        ),
        "{}",
        run.stderr
    );
    assert_eq!(run.succeeded(), old);
    // Other kinds are nobody's business here.
    let other = "# ours\nkind: Whatever\na: {b: [1,   2]}";
    assert_eq!(patch(other, &[]), other);
}

#[test]
fn what_a_class_cannot_know_is_said() {
    let class = example("clusterclass");
    assert_eq!(host("patch", &class, &[]).stderr, "");
    let unknown = class.replace("controlPlaneIpAddr", "vip");
    let told = host("patch", &unknown, &[]).stderr;
    assert!(told.contains("has no variable controlPlaneIpAddr"), "{told}");
    let told = host("patch", &class, &["--static-pods", "explicit"]).stderr;
    assert!(told.contains("a patch of a class writes no extraEnvs"), "{told}");
    let sometimes = class
        .replace("- name: createEmptyArrays\n", "- name: createEmptyArrays\n    enabledIf: '{{ .empty }}'\n");
    let told = host("patch", &sometimes, &[]).stderr;
    let expected = "ClusterClass clusters/vsphere: the patch createEmptyArrays has enabledIf";
    assert!(told.contains(expected), "{told}");
    let without: Vec<&str> = documents(&class)
        .iter()
        .filter(|document| {
            let kind = document.read().unwrap().unwrap_or_default()["kind"].clone();
            kind != "ClusterClass" && kind != "Cluster"
        })
        .map(|document| document.text)
        .collect();
    let run = host("patch", &without.concat(), &[]);
    assert!(run.stderr.contains("its ClusterClass is not in the stream"), "{}", run.stderr);
    assert!(run.succeeded().contains("/etc/reach/proxy.env"), "the template is patched");
}

#[test]
fn a_line_of_the_environment_that_a_cluster_can_make_too_long_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("preset.yaml");
    let patch = |manifests: &str, bytes: usize| {
        let text = format!(
            "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {{name: a}}\nspec: {{env: [{{name: http_proxy, value: 'http://p:1'}}, {{name: no_proxy, value: {}}}]}}\n",
            "x".repeat(bytes)
        );
        fs::write(&preset, text).unwrap();
        let preset = preset.display().to_string();
        let run = pipe(&["host", "patch", "-f", "-", "--os", "environment", "--presets", &preset], manifests);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    let class = example("clusterclass");
    let class = class.split("\n---\n").next().unwrap();
    let (template, told) = (example("template"), "in /etc/environment with what clusters or variables add");
    assert!(!patch(class, 300).contains(told));
    assert!(patch(class, 600).contains(told));
    assert!(patch(&template, 300).contains(told));
    // Where all is known, it is an error or nothing.
    assert!(!patch(&cluster("files: []"), 600).contains(told));
}

#[test]
fn lint_says_what_is_wrong_and_exits_with_1() {
    let clean = host("lint", &example("static-ip"), &[]);
    assert_eq!((clean.code, clean.stdout.as_str()), (Some(0), ""), "{clean:?}");
    let overlap = cluster("files: []").replace("10.244.0.0/16", "10.96.0.0/16");
    let run = host("lint", &overlap, &[]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("[network-overlap]"), "{}", run.stdout);
    let json = host("lint", &overlap, &["-o", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[0]["rule"], "network-overlap");
    // The same as warnings of patch.
    assert!(host("patch", &overlap, &[]).stderr.contains("[network-overlap]"));
    assert_eq!(host("lint", "a: [", &[]).code, Some(2));
}

#[test]
fn lint_says_what_could_not_be_derived_as_patch_does() {
    let objects = cluster("files: []");
    let (of_cluster, control_plane) = objects.split_once("---\n").unwrap();
    let without_endpoint = objects.replace("  controlPlaneEndpoint: {host: 10.0.0.10, port: 6443}\n", "");
    let unknown =
        objects.replace("controlplane.cluster.x-k8s.io/v1beta2", "controlplane.cluster.x-k8s.io/v9");
    for (manifests, rule) in [
        (example("template"), "unresolved-variable"),
        (of_cluster.to_owned(), "missing-object"),
        (control_plane.to_owned(), "no-cluster"),
        (without_endpoint, "no-endpoint"),
        (objects.replace("io/v1beta2", "io/v1alpha4"), "version"),
        (unknown, "version"),
    ] {
        let linted = host("lint", &manifests, &[]);
        assert_eq!((linted.code, linted.stderr.as_str()), (Some(1), ""), "{rule}: {linted:?}");
        assert!(linted.stdout.contains(&format!("[{rule}]\n")), "{rule}: {}", linted.stdout);
        let patched = host("patch", &manifests, &[]).stderr;
        for line in linted.stdout.lines() {
            assert!(patched.contains(line), "{line}\n{patched}");
        }
    }
    // What a class leaves to its clusters is in its patch.
    for name in EXAMPLES.into_iter().filter(|name| *name != "template") {
        let clean = host("lint", &example(name), &[]);
        assert_eq!((clean.code, clean.stdout.as_str()), (Some(0), ""), "{name}");
    }
}

#[test]
fn the_docs_have_every_check() {
    let rows = RULES
        .iter()
        .map(|rule| format!("| `{}` | {} | {} | {} |", rule.name, rule.title, rule.why, rule.write));
    let table = ["| | what is wrong | why it matters | write |".to_owned(), "|---|---|---|---|".to_owned()];
    let table: Vec<String> = table.into_iter().chain(rows).collect();
    let file = root().join("docs/hosts.md");
    let docs = fs::read_to_string(&file).unwrap();
    let (before, rest) = docs.split_once("REACH_UPDATE=1 -->\n").unwrap();
    let (shown, after) = rest.split_once("\n<!-- end of rules -->").unwrap_or(("", rest));
    if std::env::var_os("REACH_UPDATE").is_some() {
        let after = after.trim_start_matches("<!-- end of rules -->");
        let text = format!("{before}REACH_UPDATE=1 -->\n{}\n<!-- end of rules -->{after}", table.join("\n"));
        fs::write(&file, text).unwrap();
    } else {
        assert_eq!(shown, table.join("\n"));
    }
}

// === render ===

#[test]
fn render_writes_each_form() {
    let render =
        |format: &str| run(&[&["host", "render", "--format", format], &PRESETS[..]].concat()).succeeded();
    for format in ["cloud-config", "kubeadm", "ignition", "env"] {
        golden(&format!("host-render-{format}.txt"), &render(format));
    }
}

#[test]
fn render_takes_the_addresses_of_a_cluster_from_its_manifests() {
    let render = |name: &str, more: &[&str]| {
        let file = format!("examples/cluster-api/{name}.yaml");
        run(&[&["host", "render", "--format", "env", "--from", &file], &PRESETS[..], more].concat())
    };
    let text = render("vsphere", &[]).succeeded();
    let list = no_proxy(&patch(&example("vsphere"), &[])).join(",");
    assert!(text.contains(&format!("no_proxy='{list}'\n")), "{text}");
    let two = render("clusterclass", &[]);
    assert_eq!((two.code, two.stdout.as_str()), (Some(1), ""));
    assert_eq!(two.stderr, "error: --from has the clusters north, south: choose one with --of NAME\n");
    let south = render("clusterclass", &["--of", "south"]).succeeded();
    assert!(south.contains("10.60.0.10") && !south.contains("10.50.0.10"), "{south}");
    let variables = render("template", &[]);
    assert!(variables.stderr.contains("${CONTROL_PLANE_ENDPOINT_IP}"), "{}", variables.stderr);
}

#[test]
fn render_writes_a_folder_and_nothing_over_files_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().display().to_string();
    let render = || run(&[&["host", "render", "--format", "drop-ins", "-o", &into], &PRESETS[..]].concat());
    render().succeeded();
    let file = folder.path().join("etc/reach/proxy.env");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    render().succeeded();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    fs::write(&file, "mine").unwrap();
    let script = folder.path().join("etc/reach/apply-proxy.sh");
    fs::remove_file(&script).unwrap();
    let error = render();
    assert_eq!(error.code, Some(1));
    assert!(
        error.stderr.contains("proxy.env: is there already and not written by reach"),
        "{}",
        error.stderr
    );
    assert!(!script.exists() && fs::read_to_string(&file).unwrap() == "mine");
    let error = run(&[&["host", "render", "--format", "drop-ins"], &PRESETS[..]].concat());
    assert_eq!(error.code, Some(2));
    assert!(error.stderr.contains("-o DIR"), "{}", error.stderr);
}

#[test]
fn render_says_when_there_is_nothing_to_write() {
    let run = |more: &[&str]| {
        run(&[&["host", "render", "--format", "env", "--presets", "examples/presets/shop.yaml"], more]
            .concat())
    };
    let none = run(&[]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""));
    assert!(none.stderr.contains("nothing to write: no preset has a proxy for hosts"), "{}", none.stderr);
    let named = self::run(
        &[
            &["host", "render", "--format", "env", "--presets", "examples/corporate-ca.yaml"][..],
            &["--preset", "corporate-ca"],
        ]
        .concat(),
    );
    assert!(
        named.stderr.contains("nothing to write: ClusterPodPreset/corporate-ca has no proxy for hosts"),
        "{}",
        named.stderr
    );
    let patched = pipe(
        &["host", "patch", "-f", "-", "--presets", "examples/presets/shop.yaml"],
        &format!("{}---\n{}", example("static-ip"), example("clusterclass")),
    );
    assert_eq!(patched.stderr.matches("no preset has a proxy for hosts; ").count(), 1, "{}", patched.stderr);
    let unknown = run(&["--preset", "corp"]);
    assert!(unknown.stderr.contains("there is no ClusterPodPreset corp"), "{}", unknown.stderr);
}
