//! The command line as people and scripts meet it: the real binary, its output, its exit codes.
//!
//! What is printed is compared with files in `tests/fixtures/cli`; with `REACH_UPDATE=1` those are written instead, for
//! review with `git diff`.

#[path = "cli/host.rs"]
mod host;
#[path = "cli/no_proxy.rs"]
mod no_proxy;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;

use reach::manifest::documents;
use serde_json::{Value, json};
use support::serve::command;

const PRESETS: [&str; 2] = ["--presets", "examples/presets"];

/// Standard output, standard error and exit code of a run.
#[derive(Debug)]
struct Run {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

// === inject ===

#[test]
fn inject_shows_a_manifest_as_the_webhook_would_change_it() {
    let run = inject("examples/deployment.yaml", &[]);
    golden("inject-deployment.yaml", &run.succeeded());
    for (output, file) in [
        ("yaml", "inject-deployment.yaml"),
        ("json", "inject-deployment.json"),
        ("patch", "inject-deployment.patch"),
    ] {
        golden(file, &inject("examples/deployment.yaml", &["-o", output]).succeeded());
    }
}

#[test]
fn inject_gives_a_corporate_ca_to_every_container() {
    golden(
        "inject-ca.yaml",
        &inject("examples/deployment.yaml", &["--presets", "examples/corporate-ca.yaml"]).succeeded(),
    );
}

#[test]
fn inject_changes_every_kind_that_makes_pods_and_nothing_else() {
    golden("inject-kinds.yaml", &inject("tests/fixtures/cli/kinds.yaml", &[]).succeeded());
    golden("inject-kinds.json", &inject("tests/fixtures/cli/kinds.yaml", &["-o", "json"]).succeeded());
}

#[test]
fn inject_keeps_what_it_does_not_touch_to_the_letter() {
    let before = fixture("style.yaml");
    let after = inject("tests/fixtures/cli/style.yaml", &[]).succeeded();
    golden("inject-style.yaml", &after);
    // Lines are only added, so each one is still there, in order.
    let mut rest = after.lines();
    for line in before.lines() {
        assert!(rest.any(|kept| kept == line), "lost or changed: {line}");
    }
}

#[test]
fn inject_takes_and_gives_json_with_its_order_of_keys() {
    let after = inject("tests/fixtures/cli/pod.json", &[]).succeeded();
    golden("inject-pod.json", &after);
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let object: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!(keys(&object), ["kind", "apiVersion", "spec", "metadata"]);
    assert_eq!(
        keys(&object["spec"]["containers"][0]),
        ["zebra", "name", "image", "env", "ant"],
        "nothing is sorted"
    );
    assert!(after.contains("12345678901234567890"), "a large number keeps its digits: {after}");
    golden("inject-pod.yaml", &inject("tests/fixtures/cli/pod.json", &["-o", "yaml"]).succeeded());
}

#[test]
fn patches_apply_with_another_implementation_and_make_what_is_shown() {
    for file in [
        "examples/deployment.yaml",
        "tests/fixtures/cli/kinds.yaml",
        "tests/fixtures/cli/style.yaml",
        "tests/fixtures/cli/pod.json",
    ] {
        let patches = inject(file, &["-o", "patch"]).succeeded();
        let shown = inject(file, &[]).succeeded();
        let before = fs::read_to_string(root().join(file)).unwrap();
        let (before, shown) = (values(&before), values(&shown));
        assert_eq!(patches.lines().count(), before.len(), "{file}: one line for each document");
        assert_eq!(shown.len(), before.len(), "{file}");
        for ((mut object, patch), shown) in before.into_iter().zip(patches.lines()).zip(shown) {
            let patch: json_patch::Patch = serde_json::from_str(patch).expect("an RFC 6902 patch");
            json_patch::patch(&mut object, &patch).expect("a patch that applies");
            assert_eq!(object, shown, "{file}");
        }
    }
}

#[test]
fn what_the_cluster_adds_to_no_proxy_can_come_from_files() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: web}]}\n";
    let given = |command: &str, more: &[&str]| {
        let presets = ["--presets", "tests/fixtures/cli/from-cluster.yaml"];
        pipe(&[&[command, "-f", "-"], &presets[..], more].concat(), pod)
    };
    let run = given("explain", &[]);
    assert_eq!(
        run.stderr,
        "warning: noProxyFrom Services: left out, since clients would take the entry for a top-level domain: Service shop/app\n"
    );
    golden("explain-from-cluster.txt", &run.succeeded());
    golden("explain-from-cluster.json", &given("explain", &["-o", "json"]).succeeded());
    // With networks of the command line.
    let more = given("inject", &["--cluster-network", "10.10.192.1/18,192.0.2.7"]).succeeded();
    let expected = ".corp.example,corp.example,.mysql,mysql,localhost,10.96.0.1,127.0.0.1,172.31.77.1,192.0.2.7,\
                    10.10.192.0/18,10.96.0.0/16,10.244.0.0/24,10.245.0.0/16\"";
    assert!(more.contains(expected), "{more}");
}

#[test]
fn a_source_that_files_do_not_have_is_said_to_add_nothing() {
    let preset = "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {name: a}\nspec: {noProxyFrom: [Services, ClusterNetwork, Nodes]}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("preset.yaml");
    fs::write(&file, preset).unwrap();
    let run = run(&["inject", "-f", "tests/fixtures/cli/pod.json", "--presets", file.to_str().unwrap()]);
    assert_eq!(
        run.stderr,
        "warning: noProxyFrom Services of a preset adds nothing: --presets has no Service\n\
         warning: noProxyFrom ClusterNetwork of a preset adds nothing: --presets has no ServiceCIDR, Node or ConfigMap kubeadm-config\n\
         warning: noProxyFrom Nodes of a preset adds nothing: --presets has no Node\n"
    );
    assert_eq!(run.code, Some(0));

    // What an object has there is not shown.
    fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubeadm-config, namespace: kube-system}\ndata: {ClusterConfiguration: [s3cret]}\n").unwrap();
    let run =
        self::run(&["inject", "-f", "tests/fixtures/cli/pod.json", "--presets", file.to_str().unwrap()]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .contains("ConfigMap/kubeadm-config: data.ClusterConfiguration: not what a ConfigMap has there"),
        "{run:?}"
    );
    assert!(!run.stderr.contains("s3cret"), "{run:?}");
}

#[test]
fn injecting_what_was_injected_changes_nothing() {
    for file in ["examples/deployment.yaml", "tests/fixtures/cli/kinds.yaml", "tests/fixtures/cli/pod.json"] {
        let once = inject(file, &[]).succeeded();
        assert_eq!(pipe(&["inject", "-f", "-", "--presets", "examples/presets"], &once).succeeded(), once);
    }
}

#[test]
fn a_diff_exits_with_0_for_no_change_1_for_some_and_2_for_an_error() {
    let changed = inject("examples/deployment.yaml", &["-o", "diff"]);
    assert_eq!(changed.code, Some(1));
    golden("inject-deployment.diff", &changed.stdout);

    let once = inject("examples/deployment.yaml", &[]).succeeded();
    let unchanged = pipe(&["inject", "-f", "-", "--presets", "examples/presets", "-o", "diff"], &once);
    assert_eq!((unchanged.code, unchanged.stdout.as_str()), (Some(0), ""));

    for arguments in [
        ["-f", "tests/fixtures/cli/broken", "--presets", "examples/presets"],
        ["-f", "no-such-file.yaml", "--presets", "examples/presets"],
        ["-f", "examples/deployment.yaml", "--presets", "tests/fixtures/cli/broken-presets"],
    ] {
        let failed = run(&[&["inject", "-o", "diff"], &arguments[..]].concat());
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(2), ""), "{failed:?}");
    }
}

#[test]
fn manifests_come_from_standard_input_folders_and_several_files() {
    let alone = inject("examples/deployment.yaml", &[]).succeeded();
    let text = fs::read_to_string(root().join("examples/deployment.yaml")).unwrap();
    assert_eq!(pipe(&["inject", "-f", "-", "--presets", "examples/presets"], &text).succeeded(), alone);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("b.yml"), &text).unwrap();
    fs::write(folder.path().join("a.json"), fixture("pod.json")).unwrap();
    fs::write(folder.path().join("README.md"), "not a manifest: [").unwrap();
    fs::create_dir(folder.path().join("c.yaml")).unwrap();
    let folder = folder.path().to_str().unwrap();
    let together = inject(folder, &[]).succeeded();
    let objects = values(&together);
    assert_eq!(objects.len(), 2, "{together}");
    assert_eq!((&objects[0]["kind"], &objects[1]["kind"]), (&json!("Pod"), &json!("Deployment")));
    // No reader takes JSON that goes on as YAML; what was YAML stays to the letter.
    assert!(documents(&together).iter().all(|document| !document.is_json()), "{together}");
    assert!(together.ends_with(&format!("---\n{alone}")), "{together}");

    let several =
        inject("examples/deployment.yaml", &["-f", "tests/fixtures/cli/pod.json", "-o", "json"]).succeeded();
    let list: Value = serde_json::from_str(&several).unwrap();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
}

#[test]
fn files_of_one_form_are_joined_as_a_stream_of_that_form() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let join = |files: [&str; 2]| inject(files[0], &["-f", files[1]]).succeeded();
    // YAML in flow style begins as JSON does, and is none.
    let block =
        write("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}");
    let flow = write(
        "b.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c}]}}\n",
    );
    for (files, names) in [([&block, &flow], ["a", "b"]), ([&flow, &block], ["b", "a"])] {
        let joined = join(files.map(String::as_str));
        assert_eq!(joined.matches("\n---\n").count(), 1, "{joined}");
        let found: Vec<Value> = values(&joined).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
        assert_eq!(found, names, "{joined}");
    }
    // With a mark of its encoding in front of each file, and without a line break behind the first.
    let json = |name: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}});
        write(&format!("{name}.json"), &format!("\u{feff}{pod}"))
    };
    let joined = join([&json("c"), &json("d")]);
    assert_eq!(json_stream(joined.trim_start_matches('\u{feff}')).len(), 2, "{joined}");
}

#[test]
fn a_folder_without_manifests_is_an_error_that_names_the_folders_inside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.md"), "no manifest").unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let name = folder.path().to_str().unwrap();
    let error = format!(
        "error: {name}: no manifest in this folder: expected files that end in .yaml, .yml or .json; folders inside are not read"
    );
    let commands: [&[&str]; 7] = [
        &["inject", "--presets", "examples/presets", "-f"],
        &["explain", "--presets", "examples/presets", "-f"],
        &["lint", "-f"],
        &["host", "patch", "--presets", "examples/presets", "-f"],
        &["host", "lint", "-f"],
        &["host", "no-proxy", "-f"],
        &["host", "render", "--presets", "examples/presets", "--format", "env", "--from"],
    ];
    for command in commands {
        let run = run(&[command, &[name]].concat());
        let code = if command.contains(&"lint") { 2 } else { 1 };
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{command:?}: {run:?}");
        assert_eq!(run.stderr, format!("{error}\n"), "{command:?}");
    }
    for inside in ["b", "a.yaml"] {
        fs::create_dir(folder.path().join(inside)).unwrap();
    }
    assert_eq!(inject(name, &[]).stderr, format!("{error}: {name}/a.yaml, {name}/b\n"));
}

#[test]
fn presets_may_be_repeated_and_what_follows_them_is_no_preset() {
    let together =
        inject("examples/deployment.yaml", &["--presets", "examples/corporate-ca.yaml"]).succeeded();
    assert!(together.contains("/etc/ssl/corporate"), "{together}");
    let both = "examples/presets:examples/corporate-ca.yaml";
    let given = run(&["inject", "-f", "examples/deployment.yaml", "--presets", both]).succeeded();
    assert_eq!(given, together);
    let mut by_environment = command();
    by_environment.env("REACH_PRESETS", both).current_dir(root());
    let output = by_environment.args(["inject", "-f", "examples/deployment.yaml"]).output().unwrap();
    assert_eq!(Run::from(output).succeeded(), together);

    let url = "http://redis/";
    let first = ["route", url, "-f", "examples/deployment.yaml", "--container", "web"];
    let last = [
        "route",
        "-f",
        "examples/deployment.yaml",
        "--container",
        "web",
        "--presets",
        "examples/presets",
        url,
    ];
    assert_eq!(run(&last).succeeded(), run(&[&first[..], &PRESETS].concat()).succeeded());
    let refused = run(&["no-proxy", "--presets", "examples/presets", "corp.example"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--presets is for the list of a pod: leave LIST out"), "{refused:?}");
}

#[test]
fn presets_that_are_none_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inside")).unwrap();
    let name = folder.path().to_str().unwrap();
    let file = folder.path().join("namespace.txt");
    fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    let paths = format!("{}:{name}", file.display());
    let warning = format!(
        "warning: --presets {paths}: no ClusterPodPreset and no PodPreset there: expected files that end in .yaml, .yml or .json; folders inside are not read: {name}/inside\n"
    );
    let commands: [&[&str]; 3] = [
        &["inject", "-f", "examples/deployment.yaml"],
        &["explain", "-f", "examples/deployment.yaml"],
        &["host", "no-proxy", "-f", "examples/cluster-api/vsphere.yaml"],
    ];
    for command in commands {
        let run = run(&[command, &["--presets", &paths]].concat());
        assert_eq!((run.code, &run.stderr), (Some(0), &warning), "{command:?}");
    }
    assert_eq!(inject("examples/deployment.yaml", &[]).stderr, "", "there are presets");
    let file = file.to_str().unwrap();
    assert_eq!(
        run(&["inject", "-f", "examples/deployment.yaml", "--presets", file]).stderr,
        format!("warning: --presets {file}: no ClusterPodPreset and no PodPreset there\n")
    );
    let preset = folder.path().join("preset.yaml");
    fs::write(
        &preset,
        "kind: PodPreset\nmetadata: {name: a}\n---\nkind: PodPreset\napiVersion: example.com/v1\n",
    )
    .unwrap();
    let run = inject("examples/deployment.yaml", &["--presets", name]);
    assert_eq!(
        (run.code, run.stderr),
        (
            Some(1),
            format!(
                "error: {}, document 1, PodPreset/a: apiVersion: missing: write reach.dev/v1alpha1\n",
                preset.display()
            )
        )
    );
}

#[test]
fn the_namespace_and_its_labels_can_be_given() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: shop}}\nspec: {containers: [{name: web}]}\n";
    let value = |arguments: &[&str]| {
        let all = [&["inject", "-f", "-", "-o", "json"], &PRESETS[..], arguments].concat();
        let object: Value = serde_json::from_str(&pipe(&all, pod).succeeded()).unwrap();
        object["metadata"]["annotations"]["reach.dev/presets"].as_str().map(str::to_owned)
    };
    assert_eq!(value(&[]).as_deref(), Some("ClusterPodPreset/corporate-proxy@0"));
    assert_eq!(
        value(&["-n", "shop"]).as_deref(),
        Some("ClusterPodPreset/corporate-proxy@0,PodPreset/shop@0")
    );
    assert_eq!(value(&["-n", "shop", "--namespace-labels", "reach.dev/injection=disabled"]), None);
}

#[test]
fn every_error_in_manifests_is_reported_with_its_place() {
    let run = inject("tests/fixtures/cli/broken", &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    golden("inject-broken.stderr", &run.stderr);
    assert_eq!(run.stderr.lines().count(), 4, "{}", run.stderr);
    for (file, document, object, field) in [
        ("one.yaml", 2, "Deployment/containers-is-a-string", "spec.template"),
        ("one.yaml", 3, "", "line 12"),
        ("two.yaml", 1, "Pod/env-is-a-mapping", "spec.containers[0].env: expected a list"),
        ("two.yaml", 2, "", "line 11"),
    ] {
        let start = format!("error: tests/fixtures/cli/broken/{file}, document {document}: ");
        let found = run
            .stderr
            .lines()
            .any(|line| line.strip_prefix(&start).is_some_and(|e| e.contains(object) && e.contains(field)));
        assert!(found, "{start}{object} {field}\n{}", run.stderr);
    }
    // `explain` reads the same way.
    let explain = run_with("explain", "tests/fixtures/cli/broken", &[]);
    assert_eq!((explain.code, &explain.stderr), (Some(1), &run.stderr));
}

#[test]
fn every_error_in_presets_is_reported_with_its_place() {
    for command in ["inject", "explain"] {
        let run = run(&[
            command,
            "-f",
            "examples/deployment.yaml",
            "--presets",
            "tests/fixtures/cli/broken-presets",
        ]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
        golden("broken-presets.stderr", &run.stderr);
        for (file, document, object, field) in [
            ("one.yaml", 2, "ClusterPodPreset/numbers", "spec.priority"),
            ("one.yaml", 2, "ClusterPodPreset/numbers", "spec.env[0].value"),
            ("one.yaml", 2, "ClusterPodPreset/numbers", "spec.env[1].valeu"),
            ("one.yaml", 3, "PodPreset/old", "apiVersion"),
            ("two.yaml", 1, "ClusterPodPreset/good", ""),
            ("two.yaml", 2, "PodPreset/Upper", "metadata.name"),
            ("two.yaml", 2, "PodPreset/Upper", "spec.env"),
        ] {
            let start = format!(
                "error: tests/fixtures/cli/broken-presets/{file}, document {document}, {object}: {field}"
            );
            let found = run.stderr.lines().any(|line| line.starts_with(&start));
            assert!(found, "{start}\n{}", run.stderr);
        }
    }
}

#[test]
fn every_file_that_cannot_be_read_is_reported() {
    let run = inject("no-such-file.yaml", &["-f", "no-such-folder/"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    for name in ["no-such-file.yaml", "no-such-folder/"] {
        assert!(run.stderr.contains(&format!("error: {name}: cannot be read")), "{}", run.stderr);
    }
}

#[test]
fn a_conflict_is_a_warning_on_standard_error_that_shows_no_value() {
    let run = inject("tests/fixtures/cli/conflict.yaml", &["--presets", "examples/corporate-ca.yaml"]);
    golden("inject-conflict.stderr", &run.stderr);
    golden("inject-conflict.yaml", &run.succeeded());
}

// === explain ===

#[test]
fn explain_says_where_each_value_comes_from() {
    golden("explain-deployment.txt", &run_with("explain", "examples/deployment.yaml", &[]).succeeded());
    let json = run_with("explain", "examples/deployment.yaml", &["-o", "json"]).succeeded();
    golden("explain-deployment.json", &json);
    golden("explain-kinds.txt", &run_with("explain", "tests/fixtures/cli/kinds.yaml", &[]).succeeded());
    golden(
        "explain-conflict.txt",
        &run_with(
            "explain",
            "tests/fixtures/cli/conflict.yaml",
            &["--presets", "examples/corporate-ca.yaml"],
        )
        .succeeded(),
    );
}

/// What `explain` says of an example with a preset of this specification.
fn explained(spec: &str) -> String {
    let preset = format!(
        "{{apiVersion: reach.dev/v1alpha1, kind: ClusterPodPreset, metadata: {{name: p}}, spec: {{{spec}}}}}"
    );
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), preset).unwrap();
    let presets = file.path().to_str().unwrap();
    run(&["explain", "-f", "examples/deployment.yaml", "--presets", presets]).succeeded()
}

#[test]
fn explain_names_what_is_added_beside_variables() {
    let text = explained(
        "envFrom: [{configMapRef: {name: proxy}}, {prefix: P_, secretRef: {name: other}}], \
         volumes: [{name: ca, configMap: {name: ca}}], volumeMounts: [{name: ca, mountPath: /etc/ssl/corporate}]",
    );
    for line in [
        "\n  volumes added: ca\n",
        "\n    envFrom added: ConfigMap proxy\n",
        "\n    envFrom added: Secret other, prefix P_\n",
        "\n    mount added: /etc/ssl/corporate from volume ca\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn explain_names_no_one_value_where_spellings_differ() {
    let preset =
        "env: [{name: http_proxy, value: 'http://proxy:1'}, {name: https_proxy, value: 'http://proxy:1'}]";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("files.yaml");
    fs::write(
        &file,
        format!(
            "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {{name: p}}\nspec:\n  {preset}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - name: app\n    env:\n    \
             - {{name: http_proxy, value: 'http://old:1'}}\n    - {{name: HTTP_PROXY, value: ''}}\n    \
             - {{name: https_proxy, value: 'http://one:1'}}\n    - {{name: HTTPS_PROXY, value: 'http://one:1'}}\n"
        ),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let text = run(&["explain", "-f", file, "--presets", file]).succeeded();
    for expected in [
        "    http_proxy, HTTP_PROXY\n",
        "      + http://old:1: the container itself as http_proxy (pod)\n",
        "      + : the container itself as HTTP_PROXY (pod)\n",
        "    https_proxy, HTTPS_PROXY = http://one:1\n",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn explain_says_what_a_jvm_cannot_be_told() {
    let explained = |more: &str| explained(&format!("derive: [Java], env: [{more}]"));
    let list = "{name: no_proxy, value: '.svc,10.0.0.0/9,web:80'}";
    let with_proxy = explained(&format!("{{name: http_proxy, value: 'http://p:3128'}}, {list}"));
    assert!(with_proxy.contains("      what a JVM cannot be told: 10.0.0.0/9, web:80\n"), "{with_proxy}");
    let without = explained(list);
    assert!(without.contains("    JAVA_TOOL_OPTIONS\n      not added: "), "{without}");
    assert!(!without.contains("cannot be told"), "{without}");
}

#[test]
fn explain_and_inject_agree_on_every_value() {
    for file in ["examples/deployment.yaml", "tests/fixtures/cli/kinds.yaml"] {
        let explained: Value =
            serde_json::from_str(&run_with("explain", file, &["-o", "json"]).succeeded()).unwrap();
        let injected = inject(file, &["-o", "json"]).succeeded();
        let injected: Value = serde_json::from_str(&injected).unwrap();
        let pods = reach::inject::workload::workloads(&injected);
        assert_eq!(explained.as_array().map(Vec::len), Some(pods.len()), "{file}");
        for (explanation, pod) in explained.as_array().unwrap().iter().zip(pods) {
            assert_eq!(explanation["object"], pod.reference, "{file}");
            for container in explanation["containers"].as_array().unwrap() {
                let list = container["list"].as_str().unwrap();
                let injected = pod.pod["spec"][list]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|injected| injected["name"] == container["name"])
                    .unwrap();
                for variable in container["variables"].as_array().unwrap() {
                    for name in variable["names"].as_array().unwrap() {
                        let env = injected["env"].as_array().unwrap();
                        let own =
                            env.iter().rfind(|own| own["name"] == *name).expect("an explained variable");
                        assert_eq!(own["value"], variable["value"], "{} {name}", pod.reference);
                    }
                }
            }
        }
    }
}

// === route ===

#[test]
fn route_says_which_clients_go_through_the_proxy_and_why() {
    let urls = ["http://mysql.shop.svc/", "https://10.96.0.1:8443/", "http://[fd00::1]/"];
    let file = ["--env", "tests/fixtures/cli/environment"];
    golden("route.txt", &run(&[&["route"], &urls[..], &file].concat()).succeeded());
    golden("route.json", &run(&[&["route", "-o", "json"], &urls[..1], &file].concat()).succeeded());
    let one = run(&[&["route", "--client", "go,java"], &urls[..1], &file].concat()).succeeded();
    assert_eq!(one.lines().count(), 3, "{one}");
    let piped = pipe(&[&["route"], &urls[..], &["--env", "-"]].concat(), &fixture("environment"));
    assert_eq!(piped.succeeded(), run(&[&["route"], &urls[..], &file].concat()).succeeded());
}

#[test]
fn route_reads_the_current_environment() {
    let output = command()
        .env_clear()
        .envs([("http_proxy", "http://me:s3cret@proxy:3128"), ("no_proxy", "web")])
        .args(["route", "http://web/", "http://api/", "--client", "curl", "-o", "json"])
        .output()
        .expect("the binary");
    let text = Run::from(output).succeeded();
    let routes: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(routes[0]["routes"][0]["route"], "direct");
    assert_eq!(routes[0]["routes"][0]["why"]["entry"], "web");
    assert_eq!(routes[1]["routes"][0]["variable"], "http_proxy");
    assert_eq!(routes[1]["routes"][0]["proxy"], "http://proxy:3128", "no password is shown");
}

#[test]
fn route_reads_a_container_as_it_is_injected() {
    let route = |more: &[&str]| {
        let arguments =
            ["route", "http://redis/", "http://other/", "--client", "go", "-f", "examples/deployment.yaml"];
        run(&[&arguments[..], more, &PRESETS].concat())
    };
    let first = route(&[]);
    assert!(
        first.stderr.starts_with("note: container web of Deployment/shop; --container"),
        "{}",
        first.stderr
    );
    let text = first.succeeded();
    assert!(text.contains("direct") && text.contains("redis in NO_PROXY"), "{text}");
    assert!(text.contains("proxied by HTTP_PROXY"), "{text}");
    let named = route(&["--container", "web"]);
    assert_eq!((named.stderr.as_str(), named.stdout.as_str()), ("", text.as_str()));
    // One that presets leave alone.
    let excluded = route(&["--container", "istio-proxy"]).succeeded();
    assert!(!excluded.contains("proxied"), "{excluded}");
}

#[test]
fn route_names_every_input_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "http_proxy=http://proxy\nsecret\nno_proxy=\"secret\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let marked = folder.path().join("marked");
    fs::write(&marked, "\u{feff}http_proxy=http://proxy\n").unwrap();
    let marked = marked.to_str().unwrap();
    let mark = "marked, line 1 begins with a byte order mark: save the file without it\n";
    let linted = run(&["lint", "--env", marked, "--fix"]);
    assert!(linted.code == Some(2) && linted.stderr.ends_with(mark), "{linted:?}");
    for (arguments, expected) in [
        (
            &["--env", wrong][..],
            &["wrong, line 2: expected KEY=VALUE", "wrong, line 3: no_proxy: the quote"][..],
        ),
        (&["--env", "no-such-file"], &["no-such-file: cannot be read"]),
        (&["--env", marked], &[mark]),
        (
            &["-f", "examples/deployment.yaml", "--presets", "no-such-folder"],
            &["no-such-folder: cannot be read"],
        ),
        (
            &["-f", "examples/deployment.yaml", "--container", "db", "--presets", "examples/presets"],
            &["Deployment/shop has no container db, only web, istio-proxy"],
        ),
        (
            &["-f", "tests/fixtures/cli/kinds.yaml", "--presets", "examples/presets"],
            &["expected one pod or workload, and there are Pod/"],
        ),
        (
            &["-f", "examples/presets/cluster.yaml", "--presets", "examples/presets"],
            &["expected a pod or a workload with one"],
        ),
        (
            &["-f", "tests/fixtures/cli/broken/two.yaml", "--presets", "examples/presets"],
            &["env: expected a list"],
        ),
    ] {
        let run = run(&[&["route", "http://web/"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{arguments:?}: {run:?}");
        for expected in expected {
            assert!(run.stderr.contains(expected), "{arguments:?}: {}", run.stderr);
        }
        assert!(!run.stderr.contains("secret"), "no value is shown: {}", run.stderr);
    }
}

// === the rest ===

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in
        [&["inject", "-f", "-", "--presets", "examples/presets"][..], &["crds"], &["completions", "bash"]]
    {
        let mut child = command()
            .current_dir(root())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        // More than a pipe holds. A command that reads no input may have ended by now.
        let input = stream(50);
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {} {stderr}", output.status);
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn output_of_any_size_gets_through_a_slow_pipe() {
    let input = stream(200);
    let mut child = command()
        .current_dir(root())
        .args(["inject", "-f", "-", "--presets", "examples/presets"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(values(&output).len(), 200 * values(&fixture("kinds.yaml")).len());
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    for (arguments, expected) in [
        (&[][..], "Usage: reach"),
        (&["injcet"], "inject"),
        (&["inject"], "--filename"),
        (&["inject", "-f", "x", "-o", "xml"], "[possible values: yaml, json, patch, diff]"),
        (&["explain", "-f", "x", "--namespace-labels", "team"], "KEY=VALUE"),
        (&["serve", "--tls-cert", "x"], "--tls-key"),
        (&["serve", "--tls-cert", "x", "--tls-key", "y", "--ca-out", "z"], "cannot be used with"),
        (&["serve", "--listen", "9443"], "--listen"),
        (&["completions", "tcl"], "bash"),
        (&["route"], "<URL>"),
        (&["route", "http://"], "'http://' for '<URL>...': has no host: write it as http://web"),
        (&["route", "web.corp.example"], "write it as http://web"),
        (&["route", "http://web/", "--client", "curk"], "'curl'"),
        (&["route", "http://web/", "--resolve", "web"], "expected HOST=ADDRESS"),
        (&["route", "http://web/", "--env", "x", "-f", "y"], "cannot be used with"),
        (
            &["route", "http://web/", "--env", "x", "--presets", "y"],
            "--presets is for the container of a pod",
        ),
        (&["route", "http://web/", "--presets", "y"], "--presets is for the container of a pod"),
    ] {
        let run = run(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(expected), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_done_exits_with_1_and_one_line() {
    for (arguments, expected) in [
        (
            &["serve", "--presets", "examples/presets", "--tls-cert", "no.crt", "--tls-key", "no.key"][..],
            "no.crt",
        ),
        (&["serve", "--presets", "no-such-folder"], "no-such-folder: cannot be read"),
        (&["serve", "--presets", "examples/presets", "--listen", "192.0.2.1:1"], "--listen"),
        (&["serve", "--presets", "examples/presets", "--log", "reach=loud"], "--log"),
        (
            &["inject", "-f", "examples/deployment.yaml", "--kubeconfig", "no-such-kubeconfig"],
            "no-such-kubeconfig",
        ),
    ] {
        let run = run(arguments);
        assert_eq!(run.code, Some(1), "{arguments:?}: {run:?}");
        let errors: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{arguments:?}: {}", run.stderr);
        assert!(errors[0].contains(expected), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn without_a_cluster_each_command_says_what_it_takes() {
    for (arguments, expected) in [
        (
            &["inject", "-f", "examples/deployment.yaml"][..],
            "error: without --presets PATH, presets come from a cluster: no cluster: ",
        ),
        (&["lint"], "error: without -f and --env, a cluster is looked at: no cluster: "),
        (&["check"], "error: no cluster: "),
        (&["crds", "--apply"], "error: no cluster: "),
    ] {
        let mut alone = command();
        alone.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
        let output = alone.current_dir(root()).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.starts_with(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn completions_exist_for_every_shell() {
    for (shell, expected) in
        [("bash", "complete "), ("zsh", "#compdef reach"), ("fish", "complete -c reach"), ("elvish", "reach")]
    {
        let script = run(&["completions", shell]).succeeded();
        assert!(script.contains(expected) && script.contains("namespace-labels"), "{shell}:\n{script}");
    }
}

#[test]
fn version_and_help_are_answered() {
    assert_eq!(run(&["--version"]).succeeded(), format!("reach {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["serve", "inject", "explain", "route", "no-proxy", "lint", "crds", "check", "completions"]
    {
        let help = run(&[command, "--help"]).succeeded();
        assert!(help.contains("Usage: reach"), "{help}");
        assert!(help.contains("Example"), "{command} shows an example: {help}");
    }
}

#[test]
fn the_crds_in_the_repository_are_those_of_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    run(&["crds", "--output-dir", folder.path().to_str().unwrap()]).succeeded();
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.path()), names(&root().join("crds")));
    let mut all = Vec::new();
    for name in names(folder.path()) {
        let made = fs::read_to_string(folder.path().join(&name)).unwrap();
        let kept = fs::read_to_string(root().join("crds").join(&name)).unwrap();
        assert!(made == kept, "crds/{} is old: run `make crds`", name.display());
        all.extend(values(&made));
    }
    assert_eq!(values(&run(&["crds"]).succeeded()), all, "standard output has the same");
}

// === helpers ===

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> String {
    fs::read_to_string(root().join("tests/fixtures/cli").join(name)).unwrap()
}

/// A stream of many documents.
fn stream(copies: usize) -> String {
    (fixture("kinds.yaml") + "---\n").repeat(copies)
}

/// Compares with a file of `tests/fixtures/cli/golden`, or writes it.
#[track_caller]
fn golden(name: &str, actual: &str) {
    let file = root().join("tests/fixtures/cli/golden").join(name);
    if std::env::var_os("REACH_UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; write it with REACH_UPDATE=1", file.display()));
    assert!(
        expected == actual,
        "not as in {} (write it with REACH_UPDATE=1):\n{}",
        file.display(),
        similar::TextDiff::from_lines(expected.as_str(), actual).unified_diff().header("expected", "actual")
    );
}

/// The objects of a stream.
fn values(text: &str) -> Vec<Value> {
    documents(text).iter().filter_map(|document| document.read().expect("a readable document")).collect()
}

/// The objects of a stream of JSON, as a reader that knows no YAML has them.
#[track_caller]
fn json_stream(text: &str) -> Vec<Value> {
    let objects = serde_json::Deserializer::from_str(text).into_iter();
    objects.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

fn inject(file: &str, more: &[&str]) -> Run {
    run_with("inject", file, more)
}

/// Runs a command with the example presets.
fn run_with(command: &str, file: &str, more: &[&str]) -> Run {
    run(&[&[command, "-f", file], &PRESETS[..], more].concat())
}

fn run(arguments: &[&str]) -> Run {
    // Relative paths, so that outputs are the same in every checkout.
    let output =
        command().current_dir(root()).args(arguments).stdin(Stdio::null()).output().expect("the binary");
    output.into()
}

fn pipe(arguments: &[&str], input: &str) -> Run {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    command().current_dir(root()).args(arguments).stdin(file).output().expect("the binary").into()
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
            code: output.status.code(),
        }
    }
}

impl Run {
    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}
