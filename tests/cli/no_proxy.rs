//! `reach no-proxy`.

use std::fs;

use serde_json::{Value, json};

use super::{PRESETS, golden, inject, run, run_with, values};

#[test]
fn a_list_is_shown_in_the_portable_form_with_the_origin_of_each_entry() {
    let run = run(&[
        "no-proxy",
        "localhost, *.corp.example 10.10.192.1/18 fd00::/64",
        "--check",
        "http://corp.example/",
        "--check",
        "http://10.10.200.1/",
    ]);
    assert_eq!(
        run.stderr,
        "warning: fd00::/64 of the list is left out: httpx fails for every URL when it is in the list\n"
    );
    golden("no-proxy-list.txt", &run.succeeded());
}

#[test]
fn entries_that_come_from_the_cluster_name_what_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": "asks"},
            "spec": {"noProxyFrom": ["Services"]},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mysql", "namespace": "shop"}, "spec": {}},
    ]});
    let file = folder.path().join("objects.json");
    fs::write(&file, objects.to_string()).unwrap();
    let file = file.display().to_string();
    assert_eq!(
        run(&["no-proxy", "-n", "shop", "--presets", &file]).succeeded(),
        "\
.mysql     Services of the namespace, for ClusterPodPreset/asks
mysql      Services of the namespace, for ClusterPodPreset/asks
localhost  always there
127.0.0.1  always there
"
    );
}

#[test]
fn the_list_of_a_namespace_and_of_a_manifest_is_shown() {
    golden("no-proxy-namespace.txt", &run(&[&["no-proxy", "-n", "shop"], &PRESETS[..]].concat()).succeeded());
    golden("no-proxy-deployment.txt", &run_with("no-proxy", "examples/deployment.yaml", &[]).succeeded());
    golden(
        "no-proxy-deployment.json",
        &run_with("no-proxy", "examples/deployment.yaml", &["-o", "json", "--check", "http://mysql/"])
            .succeeded(),
    );
}

#[test]
fn it_is_the_value_that_is_injected() {
    let value = run_with("no-proxy", "examples/deployment.yaml", &["-o", "value"]).succeeded();
    let injected = inject("examples/deployment.yaml", &[]).succeeded();
    let variables = &values(&injected)[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    let own = variables.as_array().unwrap().iter().find(|variable| variable["name"] == "no_proxy").unwrap();
    assert_eq!(own["value"], value.trim_end());
}

#[test]
fn the_form_can_be_chosen() {
    let of = |form: &str| run(&["no-proxy", "b, .A ,b", "--form", form, "-o", "value"]).succeeded();
    assert_eq!(of("as-written"), "b,.A\n");
    assert_eq!(of("portable"), ".a,a,.b,b,localhost,127.0.0.1\n");
}

#[test]
fn every_entry_of_the_value_has_the_origin_that_wrote_it() {
    let shown = run_with("no-proxy", "examples/deployment.yaml", &["-o", "json"]).succeeded();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let of_cluster = "ClusterPodPreset/corporate-proxy";
    let of_namespace = "PodPreset/shop of the namespace";
    let entries = [
        (".cluster.local", of_cluster),
        ("cluster.local", of_cluster),
        (".mysql", of_namespace),
        ("mysql", of_namespace),
        (".redis", "container web"),
        ("redis", "container web"),
        (".svc", of_cluster),
        ("svc", of_cluster),
        ("localhost", "always there"),
        ("127.0.0.1", "always there"),
        ("10.96.0.0/12", of_cluster),
    ];
    let lines = entries.map(|(entry, origin)| json!({"entry": entry, "origins": [origin]}));
    assert_eq!(shown["entries"], json!(lines));
    assert_eq!(shown["value"], entries.map(|(entry, _)| entry).join(","));
}

#[test]
fn bad_input_is_named() {
    for (arguments, says) in [
        (vec!["no-proxy", "a", "--check", "no-url"], "no-url"),
        (
            vec!["no-proxy", "-f", "examples/deployment.yaml", "--container", "none"],
            "no container none is injected",
        ),
        (vec!["no-proxy", "-f", "tests/fixtures/cli/kinds.yaml"], "expected one pod or workload"),
        (vec!["no-proxy", "-f", "examples/presets/cluster.yaml"], "there is none"),
        (vec!["no-proxy", "a", "-f", "examples/deployment.yaml"], "cannot be used with"),
        (vec!["no-proxy", "a", "--presets", "examples/presets"], "leave LIST out"),
    ] {
        let is_usage = ["no-url", "cannot be used with", "leave LIST out"].contains(&says);
        let run = run(&[&arguments[..], if arguments.contains(&"a") { &[] } else { &PRESETS[..] }].concat());
        assert_eq!(run.code, Some(if is_usage { 2 } else { 1 }), "{run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
        assert_eq!(run.stdout, "", "{run:?}");
    }
}
