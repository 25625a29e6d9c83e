//! Releases of the chart that come, fail, go back and go.

use std::time::{Duration, Instant};

use crate::observed::{Observed, PODS, trouble_lasted};
use crate::place::{Product, VALUES, earlier_chart};
use crate::report::Size;
use crate::stage::{REPLICAS, Stage, values};
use crate::support::eventually;
use crate::support::helm::{self, NAMESPACE, Version, chart};
use crate::support::kubectl::{Kubectl as _, text};

/// Values with which the pods are others, and nothing else.
const OTHER_PODS: &str = "--set=podAnnotations.example\\.com/other=yes";

pub fn that_come_and_fail_and_go_lose_no_call(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let earlier = folder.path().join("reach");
    earlier_chart(&earlier);
    product.changed();
    product.deploy(Version::V4, &["upgrade", "--install"], &earlier, &values());
    let first = revision(product);
    let mut steps = Vec::new();
    let observed = Observed::of(product, size.of(500, 10_000), |_| {
        let mut step = |what: &str, change: &dyn Fn()| {
            let before = product.replicas();
            let start = Instant::now();
            change();
            steps.push(format!("{what} {:.0} s", start.elapsed().as_secs_f32()));
            // Each change of pods goes to its end, or the next one would find a mixture.
            before
        };
        let other = [values(), vec![OTHER_PODS]].concat();
        let old = step("upgrade", &|| drop(product.deploy(Version::V4, &["upgrade"], &chart(), &other)));
        assert!(old.is_disjoint(&product.replicas()), "all replicas are new");
        let mixed = step("upgrade to an image that does not exist", &|| fail_to_upgrade(product));
        assert!(mixed.is_subset(&product.replicas()), "the old ones stay while the new one does not come");
        step("rollback", &|| roll_back(product, first + 1));
        await_number(product);
        let new = step("rollback to the earlier chart", &|| roll_back(product, first));
        assert!(new.is_disjoint(&product.replicas()), "all replicas are of the earlier chart");
    });
    let mut row = observed.row(
        "34",
        "upgrade, failed upgrade, rollback, downgrade by Helm",
        format!("{REPLICAS} replicas of one version while the other one comes"),
    );
    row.recovery = Some(Duration::ZERO);
    row.more = format!(
        "{}; both versions are the same program, the chart is not, since there is no earlier release",
        steps.join(", ")
    );
    let _recorded = row.record();
    observed.assert_unnoticed();
}

/// The number of the release's last revision.
fn revision(product: &Product) -> u64 {
    let history = product.ask_helm(Version::V4, &["history", "reach", "--output=json"]);
    let history: serde_json::Value = serde_json::from_str(&history).expect("Helm prints JSON");
    history.as_array().expect("revisions").last().expect("one")["revision"].as_u64().expect("a number")
}

/// What somebody does who mistypes a tag.
fn fail_to_upgrade(product: &Product) {
    let chart = chart();
    let fixed =
        ["upgrade", "reach", helm::text(&chart), "--wait", "--timeout=10s", "--set=image.tag=no-such"];
    let failed = product.helm(Version::V4, &[&fixed[..], &VALUES, &values()].concat());
    assert!(!failed.status.success(), "{}", text(&failed));
}

fn roll_back(product: &Product, revision: u64) {
    let revision = revision.to_string();
    product.ask_helm(Version::V4, &["rollback", "reach", &revision, "--wait", "--timeout=3m"]);
    product.await_rollout(NAMESPACE, "deployment/reach");
}

/// Waits until there are no more replicas than there should be.
fn await_number(product: &Product) {
    eventually("as many replicas as there should be", || {
        let replicas = product.replicas();
        if replicas.len() == REPLICAS { Ok(()) } else { Err(format!("{replicas:?}")) }
    });
}

pub fn that_are_removed_and_return_find_their_presets(stage: &Stage) {
    let size = Size::wanted();
    let product = stage.product();
    let without = size.of(100, 2000);
    let mut back = Instant::now();
    let observed = Observed::of(product, size.of(500, 10_000), |load| {
        product.uninstall(Version::V4);
        load.await_pods(load.so_far() + without);
        product.ask(&["get", "clusterpodpreset", "corporate-proxy"]);
        back = Instant::now();
        product.release(&values());
        product.await_injection(PODS, true);
    });
    let mut row = observed.row(
        "34a",
        "uninstalled and installed again",
        format!("`helm uninstall`, {without} pods without reach, `helm install`"),
    );
    row.recovery = Some(trouble_lasted(&observed.counts, back, None));
    row.more = format!(
        "recovery: from the start of `helm install`; {} calls failed open, the others found no registration; the preset stayed",
        observed.opened
    );
    let _recorded = row.record();
    let Observed { counts, opened } = &observed;
    assert_eq!(counts.failed, 0, "{counts}: {:?}", counts.failures);
    assert!(counts.bare >= without && counts.bare as u64 >= *opened, "{counts}");
}
