//! The life of a release: installed, tested, upgraded, removed, and installed again.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Product, earlier_chart, is_injected, variable};
use crate::support::eventually;
use crate::support::helm::{NAMESPACE, VERSIONS, Version, chart, root};
use crate::support::kubectl::{Kubectl as _, succeeded, text};
use crate::support::node::{Client, OUTSIDE_PAGE};
use crate::support::process::{PROXY_VARIABLES, programs};
use crate::support::workloads::Site as _;

/// Time between two looks of somebody who waits for the first injected pod.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn takes_one_command_under_the_restricted_level(product: &Product) {
    product.uninstall(Version::V4);
    // The chart needs none of this; that its pods pass the strictest level is what is shown.
    product.namespace(NAMESPACE);
    for level in ["enforce", "warn"] {
        let label = format!("pod-security.kubernetes.io/{level}=restricted");
        product.ask(&["label", "namespace", NAMESPACE, &label]);
    }
    product.namespace("first");
    let injected = product.injects("first").expect("pods are made");
    assert!(!injected, "nothing is installed");

    let start = Instant::now();
    let (first, said) = thread::scope(|scope| {
        let install = scope.spawn(|| {
            let said = product.deploy(Version::V4, &["install"], &chart(), &[]);
            (said, start.elapsed())
        });
        let first = loop {
            if product.injects("first").expect("pods are made during the install") {
                break start.elapsed();
            }
            assert!(
                !install.is_finished() || start.elapsed() < Duration::from_mins(5),
                "no pod is injected{}",
                product.replica_logs()
            );
            thread::sleep(LOOK_EVERY);
        };
        (first, install.join().expect("helm installs"))
    });
    let (said, ready) = said;
    println!(
        "first injected pod: {:.1} s after `helm install` was started; that returned, all replicas ready, after {:.1} s",
        first.as_secs_f32(),
        ready.as_secs_f32()
    );
    // The API server has a line for each field of a pod that a level forbids.
    assert!(!said.contains("would violate"), "{said}");
    assert_eq!(product.replicas().len(), 2);
    let pods = product.get(&["pods", "--namespace", NAMESPACE]);
    for pod in pods["items"].as_array().expect("a list") {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{}", product.replica_logs());
    }
    product.is(&[]);
}

pub fn is_tested_by_both_versions_of_helm(product: &Product) {
    product.release(&[]);
    for version in VERSIONS {
        // Without --logs: the chart has them printed, and Helm 3 looks for the Pod when it has deleted it. Helm 4 logs
        // them.
        let tested = product.helm(version, &["test", "reach", "--timeout=3m"]);
        let said = text(&tested);
        assert!(tested.status.success(), "{said}");
        let line = said.lines().find(|line| line.contains("ok  pods.reach.dev"));
        println!("helm test, {version:?}: {}", line.unwrap_or_else(|| panic!("{said}")));
    }
    // What cannot pass does not.
    product.changed();
    let webhooks = product.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"].clone();
    product.scale(0);
    let failed = product.helm(Version::V4, &["test", "reach", "--timeout=3m"]);
    assert!(!failed.status.success(), "{}", text(&failed));
    assert_eq!(product.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"], webhooks);
    product.ask(&["delete", "pod", "reach-test", "--namespace", NAMESPACE]);
    product.scale(2);
    product.is(&[]);
}

/// Every object of the release, from its name to its version: a write that changes anything changes that.
fn versions(product: &Product) -> BTreeMap<String, String> {
    let kinds = "services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,poddisruptionbudgets,\
                 networkpolicies,mutatingwebhookconfigurations,clusterpodpresets,deployments";
    let selector = "app.kubernetes.io/instance=reach";
    let objects = product.get(&[kinds, "--all-namespaces", "--selector", selector]);
    let crds = product.get(&["crds", "clusterpodpresets.reach.dev", "podpresets.reach.dev"]);
    let all = [&objects, &crds].into_iter().flat_map(|list| list["items"].as_array().expect("a list"));
    all.map(|object| {
        let kind = object["kind"].as_str().expect("a kind");
        let metadata = &object["metadata"];
        // What says how it is changes by itself, what says how it should be does not.
        let version = match kind {
            "Deployment" | "PodDisruptionBudget" => &metadata["generation"],
            _ => &metadata["resourceVersion"],
        };
        (format!("{kind}/{}", metadata["name"].as_str().expect("a name")), version.to_string())
    })
    .collect()
}

pub fn again_writes_nothing(product: &Product) {
    product.release(&[]);
    let (before, replicas) = (versions(product), product.replicas());
    assert!(before.len() > 12, "{before:?}");
    product.deploy(Version::V4, &["upgrade", "--install"], &chart(), &[]);
    assert_eq!(versions(product), before);
    assert_eq!(product.replicas(), replicas);
    println!(
        "`helm upgrade --install` of the same: {} objects and {} pods unchanged",
        before.len(),
        replicas.len()
    );
}

pub fn upgrades_an_earlier_chart(product: &Product) {
    product.uninstall(Version::V4);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let earlier = folder.path().join("reach");
    earlier_chart(&earlier);
    product.delete_crds();
    product.deploy(Version::V4, &["install"], &earlier, &[]);
    product.namespace("upgraded");
    product.await_injection("upgraded", true);
    let (crd, bundle) = (crd_version(product), ca_bundle(product));
    let replicas = product.replicas();

    let changed =
        ["--set=timeoutSeconds=2", "--set=replicas=3", "--set=proxy.https=http://secure.corp.example:3128"];
    let start = Instant::now();
    product.deploy(Version::V4, &["upgrade"], &chart(), &changed);
    println!(
        "upgrade with changed values: {:.1} s, the Job for CRDs among it",
        start.elapsed().as_secs_f32()
    );
    assert_ne!(crd_version(product), crd, "the Job has brought the CRDs up to date");
    assert_eq!(ca_bundle(product), bundle, "what reach wrote stays");
    let webhook = &product.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"][0];
    assert_eq!(webhook["timeoutSeconds"], 2);
    assert_eq!(product.replicas().len(), 3);
    let kept = product.replicas().intersection(&replicas).count();
    println!("upgrade: {kept} of {} replicas were kept", replicas.len());
    eventually("pods have the new value", || {
        let pod = product.try_pod("upgraded", &json!({}))?;
        match variable(&pod, "https_proxy") {
            Some("http://secure.corp.example:3128") if is_injected(&pod) => Ok(()),
            other => Err(format!("https_proxy: {other:?}")),
        }
    });
}

fn crd_version(product: &Product) -> String {
    product.get(&["crd", "podpresets.reach.dev"])["metadata"]["generation"].to_string()
}

fn ca_bundle(product: &Product) -> Value {
    let bundle =
        product.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"][0]["clientConfig"]["caBundle"]
            .clone();
    assert!(bundle.is_string(), "{bundle}");
    bundle
}

/// Everything of the release that is in the cluster, as kind/name.
fn left(product: &Product) -> Vec<String> {
    let kinds = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,jobs,pods,\
                 configmaps,poddisruptionbudgets,networkpolicies,mutatingwebhookconfigurations,clusterpodpresets";
    let selector = "app.kubernetes.io/instance=reach";
    let names = product.ask(&["get", kinds, "--all-namespaces", "--selector", selector, "--output=name"]);
    names.lines().map(str::to_owned).collect()
}

pub fn leaves_presets_and_comes_back(product: &Product) {
    product.release(&[]);
    product.namespace("removed");
    product.await_injection("removed", true);
    product.uninstall(Version::V4);
    eventually("only the preset is left", || {
        let left = left(product);
        if left == ["clusterpodpreset.reach.dev/corporate-proxy"] { Ok(()) } else { Err(left.join("\n")) }
    });
    product.ask(&["get", "crds", "clusterpodpresets.reach.dev", "podpresets.reach.dev"]);
    assert_eq!(product.injects("removed"), Ok(false), "pods are made, without injection");
    let start = Instant::now();
    product.release(&[]);
    product.await_injection("removed", true);
    println!(
        "uninstalled: 1 preset and 2 CRDs are left; installed again in {:.1} s",
        start.elapsed().as_secs_f32()
    );
}

pub fn is_done_by_helm_3_too(product: &Product) {
    product.uninstall(Version::V4);
    product.namespace("helm-3");
    let start = Instant::now();
    product.deploy(Version::V3, &["install"], &chart(), &[]);
    product.await_injection("helm-3", true);
    println!("Helm 3: installed, and a pod injected, after {:.1} s", start.elapsed().as_secs_f32());
    let before = versions(product);
    product.deploy(Version::V3, &["upgrade", "--install"], &chart(), &[]);
    assert_eq!(versions(product), before);
    product.ask_helm(Version::V3, &["test", "reach", "--timeout=3m"]);
    product.uninstall(Version::V3);
}

/// `docs/try-it.md`, to the letter, but for its cluster, which is this one.
pub fn goes_as_the_documentation_says(product: &Product) {
    product.uninstall(Version::V4);
    // A newcomer does not have them.
    product.delete_crds();
    product.provide(Client::Curl);
    let guide = fs::read_to_string(root().join("docs/try-it.md")).expect("the guide");
    let blocks = |language: &str| -> Vec<&str> {
        let fence = format!("```{language}\n");
        let parts = guide.split(fence.as_str()).skip(1);
        parts.map(|part| part.split_once("```").expect("a block ends").0).collect()
    };
    let typed: Vec<&str> = blocks("sh").into_iter().filter(|block| !block.contains("make ")).collect();
    let shown = blocks("console");
    assert!(!typed.is_empty() && !shown.is_empty(), "the guide shows commands");
    for block in &typed {
        shell(product, block);
    }
    let mut commands = 0;
    for block in shown {
        for command in block.split("$ ").skip(1) {
            let (command, output) = command.split_once('\n').expect("a command and its output");
            assert_eq!(shell(product, command), output, "{command}");
            commands += 1;
        }
    }
    assert!(guide.contains(OUTSIDE_PAGE), "the guide reaches the outside");
    println!("docs/try-it.md: {} blocks typed, {commands} outputs as shown", typed.len());
    product.ask(&["delete", "namespace", "shop", "--wait=false"]);
    product.changed();
}

/// Runs lines of shell as a person does in the root of the project, after the two lines that `make cluster` prints.
fn shell(product: &Product, lines: &str) -> String {
    let helm = programs("helm/build.sh");
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = Command::new("bash");
    for variable in PROXY_VARIABLES {
        shell.env_remove(variable);
    }
    shell
        .args(["-c", &format!("set -euo pipefail; {lines}")])
        .current_dir(root())
        .env("KUBECONFIG", product.kubeconfigs()[0])
        .env("PATH", format!("{}:{}:{path}", product.programs().display(), helm.display()));
    succeeded(lines, shell.output().expect("bash"))
}
