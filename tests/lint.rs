//! `reach lint`: each rule where it fires and where it does not, each form of output, and `--fix`.
//!
//! What is printed is compared with files in `tests/fixtures/lint/golden`; with `REACH_UPDATE=1` those are written instead.

mod support;

#[path = "lint/rules.rs"]
mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::Stdio;

use reach::lint::{RULES, rules};
use serde_json::{Value, json};
use support::serve::command;

// === outputs ===

#[test]
fn every_output_is_as_it_was() {
    for (output, file) in [
        ("text", "mistakes.txt"),
        ("json", "mistakes.json"),
        ("sarif", "mistakes.sarif"),
        ("github", "mistakes.github"),
    ] {
        let run = run(&["lint", "-f", "examples/mistakes.yaml", "-o", output]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""), "{run:?}");
        // The version is not what this is about.
        golden(file, &run.stdout.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
    let env = run(&["lint", "--env", "tests/fixtures/lint/environment"]);
    golden("environment.txt", &env.stdout);
}

/// What the schema of SARIF 2.1.0 requires of the members that are there (sections 3.13 to 3.52 of the standard).
#[test]
fn sarif_has_what_the_standard_requires() {
    let run = run(&["lint", "-f", "examples", "--env", "tests/fixtures/lint/environment", "-o", "sarif"]);
    let log: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let [run] = &log["runs"].as_array().expect("runs")[..] else { panic!("one run") };
    let driver = &run["tool"]["driver"];
    assert!(driver["name"].is_string());
    assert!(["utf16CodeUnits", "unicodeCodePoints"].contains(&run["columnKind"].as_str().unwrap()));
    assert!(run["invocations"][0]["executionSuccessful"].is_boolean());
    let levels = ["none", "note", "warning", "error"];
    let rules = driver["rules"].as_array().expect("rules");
    let ids: BTreeSet<&str> = rules.iter().map(|rule| rule["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), rules.len(), "ids are unique");
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(!rule[text]["text"].as_str().expect("text").is_empty());
        }
        assert!(levels.contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()));
    }
    let results = run["results"].as_array().expect("results");
    assert!(results.len() > 5);
    for result in results {
        assert!(!result["message"]["text"].as_str().expect("a message").is_empty());
        assert!(levels.contains(&result["level"].as_str().unwrap()));
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let physical = &result["locations"][0]["physicalLocation"];
        let uri = physical["artifactLocation"]["uri"].as_str().expect("a URI");
        let text = fs::read_to_string(root().join(uri)).expect("the file of the result");
        let number = |name: &str| usize::try_from(physical["region"][name].as_u64().unwrap()).unwrap();
        let (line, column) = (number("startLine"), number("startColumn"));
        let (end_line, end_column) = (number("endLine"), number("endColumn"));
        assert!((line, column) <= (end_line, end_column));
        let length = text.lines().nth(line - 1).expect("the line is there").chars().count();
        assert!((1..=length + 1).contains(&column), "{result}");
        if result["ruleId"] == "W1" {
            let found: String = text
                .lines()
                .nth(line - 1)
                .unwrap()
                .chars()
                .skip(column - 1)
                .take(end_column - column)
                .collect();
            assert!(found.starts_with('*'), "{found}");
        }
    }
}

#[test]
fn json_and_github_have_one_item_for_each_finding() {
    let json: Value =
        serde_json::from_str(&run(&["lint", "-f", "examples/mistakes.yaml", "-o", "json"]).stdout).unwrap();
    let found = json["findings"].as_array().unwrap();
    let summary = &json["summary"];
    let sum: u64 = ["errors", "warnings", "notes"].iter().map(|key| summary[key].as_u64().unwrap()).sum();
    assert_eq!(found.len() as u64, sum);
    assert_eq!(summary["unreadable"], 2);
    let github = run(&["lint", "-f", "examples/mistakes.yaml", "-o", "github"]).stdout;
    assert_eq!(github.lines().count(), found.len());
    for line in github.lines() {
        let (head, message) = line.split_once(",title=").expect("a title");
        assert!(
            head.starts_with("::error file=")
                || head.starts_with("::warning file=")
                || head.starts_with("::notice file=")
        );
        assert!(message.contains("::"), "{line}");
    }
}

// === exit codes and errors ===

#[test]
fn the_exit_code_follows_fail_on() {
    let warning = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, env: [{name: no_proxy, value: '*.a.b'}, {name: NO_PROXY, value: '*.a.b'}]}]}\n";
    let code = |more: &[&str]| pipe(&[&["lint", "-f", "-"], more].concat(), warning).code;
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--fail-on", "warning"]), Some(1));
    assert_eq!(code(&["--fail-on", "info"]), Some(1));
    assert_eq!(run(&["lint", "-f", "examples/mistakes.yaml", "--fail-on", "never"]).code, Some(0));
    assert_eq!(run(&["lint", "-f", "examples/presets"]).code, Some(0));
}

#[test]
fn what_cannot_be_read_exits_with_2_and_a_message_with_its_place() {
    let broken = run(&["lint", "-f", "tests/fixtures/cli/broken-presets", "-f", "examples/mistakes.yaml"]);
    assert_eq!(broken.code, Some(2));
    for expected in [
        "error: tests/fixtures/cli/broken-presets/one.yaml, document 2, ClusterPodPreset/numbers: spec.priority",
        "error: tests/fixtures/cli/broken-presets/one.yaml, document 3, PodPreset/old: apiVersion",
    ] {
        assert!(broken.stderr.contains(expected), "{}", broken.stderr);
    }
    assert!(broken.stdout.contains("examples/mistakes.yaml:"), "the rest is looked at");
    assert!(!broken.stdout.contains("error: "), "errors are on standard error");

    let pod = pipe(
        &["lint", "-f", "-"],
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, env: [{name: no_proxy, value: 7}]}]}\n",
    );
    assert_eq!(pod.code, Some(2));
    assert!(
        pod.stderr.contains("standard input, document 1, Pod/p: spec.containers[0].env[0].value: expected"),
        "{}",
        pod.stderr
    );

    let line = pipe(&["lint", "--env", "-"], "no_proxy=a\nsecret\n");
    assert_eq!(
        (line.code, line.stderr.contains("standard input, line 2: expected KEY=VALUE")),
        (Some(2), true)
    );
    for arguments in [
        &["-f", "no-such-file"][..],
        &["-f", "-", "--env", "-"],
        &["--fix", "--kubeconfig", "none"],
        &["-f", "x", "--diff", "-o", "json"],
        &["--explain", "E99"],
    ] {
        let run = run(&[&["lint"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
}

#[test]
fn no_password_is_shown_in_any_output() {
    let env = "http_proxy=http://me:s3cret@proxy:3128\nHTTP_PROXY=me:s3c#r3t@proxy\nno_proxy=http://me:s3cret@web,a b\n";
    let check = |run: &Run| {
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains("s3c") && !text.contains("r3t"), "{text}");
        }
    };
    for output in ["text", "json", "sarif", "github"] {
        let run = pipe(&["lint", "--env", "-", "-o", output], env);
        assert!(run.stdout.contains("E8"), "{}", run.stdout);
        check(&run);
    }
    let diff = pipe(&["lint", "--env", "-", "--diff"], env);
    assert!(diff.stdout.contains("+no_proxy="), "{}", diff.stdout);
    check(&diff);
    check(
        &pipe(&["lint", "--env", "-", "--fix", "--fail-on", "never"], "no_proxy=me:s3c://r3t@web,a b\n")
            .notes(),
    );
    // Behind an alias: not rewritten, but shown.
    let alias = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    env: &env\n    - {name: no_proxy, value: 'me:s3c@web b'}\n  - name: b\n    env: *env\n";
    let refused = pipe(&["lint", "-f", "-", "--fix"], alias);
    assert!(
        refused.stderr.contains("write it there as .b,b,localhost,127.0.0.1,***@web\n"),
        "{}",
        refused.stderr
    );
    check(&refused.notes());
}

#[test]
fn a_diff_has_nothing_but_the_variables_that_change() {
    // None of these is in a URL with a scheme, and the last one stands in the line that changes.
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {x: s3cret-1}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    env:\n    - name: TOKEN\n      \
        value: s3cret-2\n    - {name: PASSWORD, value: s3cret-3}\n    - {name: no_proxy, value: \"a\\n me:s3cret-4@b\"} # s3cret-5\n";
    let run = pipe(&["lint", "-f", "-", "--diff"], text);
    let portable = ".a,a,localhost,127.0.0.1,***@b";
    assert_eq!(
        run.stdout,
        format!(
            "--- standard input\n+++ standard input (fixed)\n@@ Pod/p, container c @@\n\
             -no_proxy=a\\n ***@b\n+no_proxy={portable}\n+NO_PROXY={portable}\n"
        )
    );
    let first = run.stderr.lines().next();
    let expected =
        format!("would fix: standard input: no_proxy, NO_PROXY of Pod/p, container c = {portable}");
    assert_eq!(first, Some(&*expected));
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
}

#[test]
fn standard_output_is_for_the_document_or_the_diff_alone() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, env: [{name: no_proxy, value: 'a;b'}]}]}\n";
    let broken = format!("{text}---\na: ]\n");
    for option in ["--fix", "--diff"] {
        let run = pipe(&["lint", "-f", "-", option], &broken);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(
            run.stderr.contains("error: standard input, document 2") && run.stderr.contains(" E2 "),
            "{run:?}"
        );
    }
    let fixed = pipe(&["lint", "-f", "-", "--fix"], text);
    assert!(fixed.stdout.starts_with("apiVersion: v1\n") && fixed.stderr.contains(" E2 "), "{fixed:?}");
}

#[test]
fn explain_has_every_rule() {
    let all = run(&["lint", "--explain", "all"]);
    assert_eq!(all.code, Some(0));
    for rule in &RULES {
        let one = run(&["lint", "--explain", &rule.id.to_string().to_lowercase()]).stdout;
        assert!(one.starts_with(&format!("{}: {}", rule.id, rule.title)) && all.stdout.contains(&one));
    }
    // What the environment says for other runs is no reason to refuse.
    let mut with_environment = command();
    with_environment.env("REACH_NAMESPACE", "n").args(["lint", "--explain", "E1"]);
    assert!(with_environment.output().expect("the binary").status.success());
}

#[test]
fn the_wrong_example_of_each_rule_is_found_and_the_right_one_is_not() {
    for rule in &RULES {
        for (example, is_wrong) in [(rule.wrong, true), (rule.right, false)] {
            let found = ids(example);
            assert_eq!(found.contains(&rule.id.to_string()), is_wrong, "{}: {example}\n{found:?}", rule.id);
        }
    }
}

#[test]
fn a_file_of_a_host_knows_no_variables_of_services() {
    assert!(ids("no_proxy=$(KUBERNETES_SERVICE_HOST)").contains("W11"));
}

/// The rules that an example breaks: lines of a file of variables, or the fields or variables of a container.
fn ids(example: &str) -> BTreeSet<String> {
    let run = if example.starts_with("- ") || example.starts_with("command:") {
        let read = reach::manifest::documents(example)[0].read().expect("YAML").expect("a document");
        let mut container = if read.is_array() { json!({"env": read}) } else { read };
        container["name"] = "c".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}});
        pipe(&["lint", "-f", "-", "-o", "json"], &pod.to_string())
    } else {
        let more: Vec<String> = (4..200).map(|n| format!("10.0.0.{n}")).collect();
        pipe(&["lint", "--env", "-", "-o", "json"], &example.replace("...", &more.join(",")))
    };
    assert!(run.code != Some(2), "{example}: {run:?}");
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().map(|finding| finding["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn the_documentation_has_the_table_of_the_program() {
    const MARKER: &str = "<!-- From here on generated: REACH_UPDATE=1 cargo test --test lint -->\n";
    let file = root().join("docs/lint.md");
    let text = fs::read_to_string(&file).expect("docs/lint.md");
    let (head, table) = text.split_once(MARKER).expect("the marker");
    if is_update() {
        fs::write(&file, format!("{head}{MARKER}{}", rules::table())).unwrap();
        return;
    }
    assert!(table == rules::table(), "docs/lint.md is old: REACH_UPDATE=1 cargo test --test lint");
}

// === a cluster ===

/// An API server that knows a few lists, and refuses the rest.
fn api(lists: &'static [(&'static str, &'static str)]) -> (tempfile::NamedTempFile, std::net::SocketAddr) {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(request) = lines.next() else { continue };
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let found = lists.iter().find(|(start, _)| target.split('?').next() == Some(*start));
            let (status, body) = match found {
                Some((_, body)) => ("200 OK", (*body).to_owned()),
                None => (
                    "403 Forbidden",
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "forbidden", "reason": "Forbidden", "code": 403})
                    .to_string(),
                ),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let mut kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    kubeconfig.write_all(config.to_string().as_bytes()).unwrap();
    (kubeconfig, address)
}

#[test]
fn a_cluster_is_looked_at_without_what_others_own_and_without_what_may_not_be_read() {
    let (kubeconfig, _) = api(&[
        (
            "/apis/reach.dev/v1alpha1/clusterpodpresets",
            r#"{"metadata": {}, "items": [{"metadata": {"name": "c"}, "spec": {"env": [
                {"name": "https_proxy", "value": "http://proxy.corp.example:3128"}, {"name": "no_proxy", "value": "10.0.0.0/33"}]}}]}"#,
        ),
        (
            "/api/v1/pods",
            r#"{"metadata": {}, "items": [
                {"metadata": {"name": "alone", "namespace": "n"}, "spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": "a;b"}]}]}},
                {"metadata": {"name": "owned", "namespace": "n", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]},
                 "spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": "a;b"}]}]}},
                {"metadata": {"name": "of-a-crd", "namespace": "n", "ownerReferences": [{"apiVersion": "db.example/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]},
                 "spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": "a;b"}]}]}},
                {"metadata": {"name": "of-a-job", "namespace": "n", "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u", "controller": true}]},
                 "spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": "a;b"}]}]}}]}"#,
        ),
        (
            "/apis/apps/v1/replicasets",
            r#"{"metadata": {}, "items": [
                {"metadata": {"name": "of-a-rollout", "namespace": "n", "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r", "uid": "u", "controller": true}]},
                 "spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": "a;b"}]}]}}}}]}"#,
        ),
        (
            "/api/v1/namespaces/default/services/kubernetes",
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1"}}"#,
        ),
    ]);
    let run = run(&["lint", "--kubeconfig", kubeconfig.path().to_str().unwrap()]);
    assert_eq!(run.code, Some(1), "{run:?}");
    for expected in [
        "cluster: error E4 no_proxy of ClusterPodPreset/c",
        "cluster: error E6 no_proxy of ClusterPodPreset/c",
        "10.96.0.1 in no_proxy",
        "cluster: error E2 no_proxy of Pod/alone, container c",
        // Who made them is not looked at: it is of another kind, or may not be read.
        "cluster: error E2 no_proxy of Pod/of-a-crd, container c",
        "cluster: error E2 no_proxy of Pod/of-a-job, container c",
        "cluster: error E2 no_proxy of ReplicaSet/of-a-rollout, container c",
    ] {
        assert!(run.stdout.contains(expected), "{expected}\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("owned"), "{}", run.stdout);
    assert!(run.stderr.contains("warning: deployments are not looked at"), "{}", run.stderr);
}

// === --fix ===

#[test]
fn a_fix_keeps_everything_else_to_the_letter_and_is_done_once() {
    for name in ["style.yaml", "environment", "list.json"] {
        let before = fs::read_to_string(root().join("tests/fixtures/lint").join(name)).unwrap();
        let option = if name == "environment" { "--env" } else { "-f" };
        let once = pipe(&["lint", option, "-", "--fix"], &before);
        assert_ne!(once.stdout, before, "{name}");
        golden(&format!("fixed-{name}"), &once.stdout);
        assert!(once.stderr.contains("fixed: standard input: "), "{}", once.stderr);
        // Lines without the variable stay, in order.
        let mut rest = once.stdout.lines();
        let is_changed = |line: &str| {
            line.contains("#!")
                || (name == "list.json" && line.contains("no_proxy"))
                || ["web", ".corp.example,"].contains(&line.trim())
        };
        let is_kept = |line: &&str| !is_changed(line);
        for line in before.lines().filter(is_kept) {
            assert!(rest.any(|kept| kept == line), "{name}: lost or changed: {line}");
        }
        let twice = pipe(&["lint", option, "-", "--fix"], &once.stdout);
        assert_eq!(twice.stdout, once.stdout, "{name}");
        let fixed: Vec<&str> = twice.stderr.lines().filter(|line| line.starts_with("fixed: ")).collect();
        assert_eq!(fixed, [""; 0], "{name}");
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_keeps_its_mode_and_its_link() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("real.yaml"), folder.path().join("link"));
    fs::copy(root().join("examples/mistakes.yaml"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let path = link.to_str().unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let diff = run(&["lint", "-f", path, "--fix", "--diff"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "a diff writes nothing");
    assert!(diff.stdout.contains("\n+no_proxy=.corp.example,"), "{}", diff.stdout);
    let fixed = run(&["lint", "-f", path, "--fix"]);
    assert_eq!(fixed.code, Some(1), "what cannot be fixed is still there");
    assert!(fixed.stdout.contains("E4") && !fixed.stdout.contains("W1"), "{}", fixed.stdout);
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn a_file_that_cannot_be_written_is_told_with_the_report_and_the_others_are_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let fixed = folder.path().join("environment");
    fs::write(&fixed, "no_proxy=web api\n").unwrap();
    // Nobody makes files in a folder of /proc, whoever runs this. What ends a variable there is in a comment.
    let mut process =
        std::process::Command::new("sleep").arg("600").env_clear().env("no_proxy", "a b\n#").spawn().unwrap();
    let name = format!("/proc/{}/environ", process.id());
    let run = run(&["lint", "--env", &name, "--env", fixed.to_str().unwrap(), "--fix"]);
    process.kill().unwrap();
    process.wait().unwrap();
    let error = format!(
        "error: {name}: cannot be written: no file can be made in its folder /proc/{}: ",
        process.id()
    );
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains(&error), "{run:?}");
    assert!(!run.stderr.contains(&format!("fixed: {name}")), "{run:?}");
    assert!(run.stderr.contains(&format!("fixed: {}: no_proxy", fixed.display())), "{run:?}");
    let now = fs::read_to_string(&fixed).unwrap();
    assert!(now.contains("\nNO_PROXY=.api,api,.web,web,"), "{now}");
    // What is there now: the one that was not fixed.
    assert!(run.stdout.starts_with(&format!("{name}:1:")), "{run:?}");
    assert!(!run.stdout.contains(&format!("{}:1", fixed.display())), "{run:?}");
}

#[test]
fn everything_and_a_list_are_not_united() {
    let text = "no_proxy=*\nNO_PROXY=*.corp.example\n";
    let run = pipe(&["lint", "--env", "-", "--fix"], text);
    assert_eq!(run.stdout, text);
    assert!(run.stderr.starts_with("not fixed: standard input: one spelling of no_proxy is *"), "{run:?}");
    assert!(
        run.stderr.contains("no_proxy and NO_PROXY differ") && !run.stderr.contains("writes the union"),
        "{run:?}"
    );
}

/// How many findings there are: all, warnings and errors, errors, and warnings and errors that no fix helps with.
fn counts(arguments: &[&str], input: &str) -> [usize; 4] {
    let run = pipe(&[&["lint", "-o", "json"], arguments].concat(), input);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let count = |is: &dyn Fn(&Value) -> bool| findings.iter().filter(|finding| is(finding)).count();
    let is_note = |finding: &Value| finding["severity"] == "info";
    [
        findings.len(),
        count(&|finding| !is_note(finding)),
        count(&|finding| finding["severity"] == "error"),
        count(&|finding| !is_note(finding) && finding["fixable"] == false),
    ]
}

#[test]
fn a_fix_leaves_no_more_findings_than_there_were() {
    let objects = cases::fixable().into_iter().map(|object| ("-f", object.to_string()));
    let files = RULES.iter().filter(|rule| rule.is_fixable).map(|rule| ("--env", rule.wrong.to_owned()));
    let pairs = ["db", ".db", "de", ".de", "*.app", "web db"].into_iter().flat_map(|list| {
        let file = format!("no_proxy=\"{list}\"\n");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "env": [{"name": "no_proxy", "value": list}]}]}});
        [("--env", file), ("-f", pod.to_string())]
    });
    let mut fixed = 0;
    for (option, before) in objects.chain(files).chain(pairs) {
        let after = pipe(&["lint", option, "-", "--fix"], &before).stdout;
        fixed += usize::from(after != before);
        let [before_all, after_all] = [&before, &after].map(|text| counts(&[option, "-"], text));
        let is_worse = before_all.iter().zip(after_all).any(|(before, after)| after > *before);
        assert!(!is_worse, "{before:.300}\n{after:.300}\n{before_all:?} -> {after_all:?}");
    }
    assert!(fixed > 20, "{fixed} were fixed");
}

#[test]
fn a_list_is_not_united_with_one_that_refers_to_it() {
    for (env, why) in [
        // The union would have itself in it.
        (
            "{name: no_proxy, value: a b}, {name: NO_PROXY, value: $(no_proxy)}",
            "$(no_proxy) in no_proxy of Pod/p, container c refers to a spelling of it: write the list itself in its place",
        ),
        (
            "{name: no_proxy, value: a b}, {name: NO_PROXY, value: '$(no_proxy),c'}",
            "$(no_proxy) in no_proxy of Pod/p",
        ),
        ("{name: no_proxy, value: 'a b,$(NO_PROXY)'}", "$(NO_PROXY) in no_proxy of Pod/p"),
        // Only the text of the reference in the first one.
        (
            "{name: no_proxy, value: a b}, {name: X, value: c}, {name: NO_PROXY, value: $(X)}",
            "$(X) in no_proxy of Pod/p, container c does not stand in front of every spelling of it: write it in front of them",
        ),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, env: [{env}]}}]}}\n"
        );
        let run = pipe(&["lint", "-f", "-", "--fix"], &text);
        assert_eq!(run.stdout, text);
        assert!(run.stderr.starts_with(&format!("not fixed: standard input: {why}")), "{run:?}");
        assert!(!run.stderr.contains("writes the union"), "{run:?}");
    }
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, env: [{name: X, value: c}, {name: no_proxy, value: a b}, {name: NO_PROXY, value: $(X)}]}]}\n";
    let run = pipe(&["lint", "-f", "-", "--fix"], text);
    assert_eq!(run.stdout.matches(",$(X)").count(), 2, "what is the same in both is united: {run:?}");
}

#[test]
fn what_a_shell_replaces_is_neither_reported_nor_rewritten() {
    let proxies = "export PROXY=http://proxy.corp.example:3128\nexport http_proxy=\"$PROXY\"\nexport HTTP_PROXY=$http_proxy\n\
        export https_proxy=\"${HTTPS:-$PROXY}\"\nexport HTTPS_PROXY=\"$https_proxy\"\n";
    let lists = "export no_proxy=\"$SITE_NO_PROXY,.corp.example\"\nexport NO_PROXY=\"$no_proxy\"\n";
    let text = format!("{proxies}{lists}");
    let run = pipe(&["lint", "--env", "-", "--fix"], &text);
    assert_eq!(run.stdout, text);
    let said: Vec<&str> = run.stderr.lines().filter(|line| !line.starts_with("  ")).collect();
    assert_eq!(
        said,
        [
            "not fixed: standard input, line 6: no_proxy has what a shell replaces ($ or `), and would lose it: \
             write the entries themselves, or rewrite it by hand",
            // Of what is written there.
            "standard input:6:17: warning W3 no_proxy",
            "0 errors, 1 warning, 0 notes in 1 set of variables; --fix helps with 1; reach lint --explain W3 says more",
        ]
    );
    for list in
        ["$A,b\nexport NO_PROXY=b", "b\nexport NO_PROXY=${B}", "`cat list`\nexport NO_PROXY=$(cat list)"]
    {
        let found = ids(&format!("export no_proxy={list}"));
        assert!(["E3", "E4", "W11"].iter().all(|id| !found.contains(*id)), "{list}: {found:?}");
    }
    // What is wrong without the shell, and what nobody replaces.
    for (text, id) in [
        ("export no_proxy=\"$A\"", "E3"),
        ("export no_proxy=\"$A,10.96.*\"", "E4"),
        ("export http_proxy=\"http://proxy.$DOMAIN:http\"", "E7"),
        ("P=s3cret\nexport http_proxy=\"http://me:$P@proxy:3128\"", "E8"),
        ("no_proxy=$A", "E4"),
        ("no_proxy=a\nNO_PROXY=$no_proxy", "E3"),
        ("http_proxy=$PROXY", "E7"),
        ("no_proxy=$(A)", "W11"),
        ("export no_proxy='$A'", "E4"),
    ] {
        let found = ids(text);
        assert!(found.contains(id), "{text}: {found:?}");
    }
}

#[test]
fn a_line_of_a_shell_with_more_than_one_command_is_not_rewritten() {
    for (text, why) in [
        ("no_proxy=.corp.example; export no_proxy\n", "no_proxy has a ; outside of quotes"),
        ("no_proxy=a b;c\n", "no_proxy has a ; outside of quotes"),
        ("export no_proxy=a NO_PROXY=a\n", "no_proxy has white space outside of quotes"),
        ("no_proxy=\"a b\"\nNO_PROXY=\"$no_proxy\"\n", "NO_PROXY has what a shell replaces"),
    ] {
        let run = pipe(&["lint", "--env", "-", "--fix"], text);
        assert_eq!(run.stdout, text);
        assert!(
            run.stderr.contains(why) && run.stderr.starts_with("not fixed: standard input, line "),
            "{run:?}"
        );
    }
    // The shell ends the list there.
    let found = ids("no_proxy=.a.b,a.b; export no_proxy");
    assert_eq!(found, BTreeSet::from(["E3".to_owned()]));
    assert!(ids("no_proxy=.a.b,a.b; no").contains("E2"));
    // Escaped, or in quotes, they are text.
    let run = pipe(&["lint", "--env", "-", "--fix"], "no_proxy=\"a b,\\$c\"\nNO_PROXY='a b,$c'\n");
    assert!(
        run.stdout.starts_with("no_proxy=\".a,") && run.stdout.contains("\\$c\"\nNO_PROXY='.a,"),
        "{run:?}"
    );
}

#[test]
fn what_stands_behind_an_alias_is_not_rewritten_but_named() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    env: &env\n    - {name: no_proxy, value: a b}\n  - name: b\n    env: *env\n";
    let run = pipe(&["lint", "-f", "-", "--fix"], text);
    assert_eq!(run.stdout, text);
    assert!(
        run.stderr.contains("not fixed: standard input, document 1: no_proxy of Pod/p, container a"),
        "{}",
        run.stderr
    );
}

// === helpers ===

/// Standard output, standard error and exit code of a run.
#[derive(Debug)]
struct Run {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

impl Run {
    /// Standard error alone: standard output is the document.
    fn notes(self) -> Self {
        Self { stdout: String::new(), ..self }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn is_update() -> bool {
    std::env::var_os("REACH_UPDATE").is_some_and(|value| value == "1")
}

#[track_caller]
fn golden(name: &str, actual: &str) {
    let file = root().join("tests/fixtures/lint/golden").join(name);
    if is_update() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(
        expected == actual,
        "not as in {} (write it with REACH_UPDATE=1):\n{}",
        file.display(),
        similar::TextDiff::from_lines(expected.as_str(), actual).unified_diff().header("expected", "actual")
    );
}

fn run(arguments: &[&str]) -> Run {
    start(arguments, Stdio::null())
}

fn pipe(arguments: &[&str], input: &str) -> Run {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    start(arguments, file.into())
}

fn start(arguments: &[&str], stdin: Stdio) -> Run {
    let output = command().current_dir(root()).args(arguments).stdin(stdin).output().expect("the binary");
    Run {
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        code: output.status.code(),
    }
}
