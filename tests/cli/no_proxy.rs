//! `reach no-proxy`.

use serde_json::Value;

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
fn every_entry_of_the_value_has_an_origin() {
    let shown = run_with("no-proxy", "examples/deployment.yaml", &["-o", "json"]).succeeded();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let entries: Vec<&str> =
        shown["entries"].as_array().unwrap().iter().map(|line| line["entry"].as_str().unwrap()).collect();
    assert_eq!(entries.join(","), shown["value"].as_str().unwrap());
    assert!(shown["entries"].as_array().unwrap().iter().all(|line| !line["origins"][0].is_null()));
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
    ] {
        let is_usage = says == "no-url" || says == "cannot be used with";
        let run = run(&[&arguments[..], if arguments.contains(&"a") { &[] } else { &PRESETS[..] }].concat());
        assert_eq!(run.code, Some(if is_usage { 2 } else { 1 }), "{run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
        assert_eq!(run.stdout, "", "{run:?}");
    }
}
