//! What reach may do in the cluster.

use std::fs;
use std::path::Path;

use crate::place::Product;
use crate::support::eventually;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::{Kubectl as _, text};

/// What it may do beyond what every service account may, as kubectl has it. `REACH_UPDATE=1` writes it anew.
const GOLDEN: &str = "tests/product/rights.txt";

/// What a service account may do in a namespace, a line for each right.
fn rights(product: &Product, account: &str, namespace: &str) -> Vec<String> {
    let user = format!("--as=system:serviceaccount:{account}");
    let list = product.ask(&["auth", "can-i", "--list", &user, "--namespace", namespace, "--no-headers"]);
    // The width of a column depends on what is in it.
    let columns = |line: &str| {
        line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    };
    let mut rights: Vec<String> = list.lines().map(columns).collect();
    rights.sort_unstable();
    rights
}

pub fn are_exactly_these(product: &Product) {
    product.release(&[]);
    // They are enough for the status of presets, too: somebody who may not would say so only in a log.
    eventually("presets have their status", || {
        let wait = ["wait", "clusterpodpreset", "--all", "--for=condition=Usable", "--timeout=1s"];
        let output = product.kubectl(&wait);
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    });
    let own = |namespace: &str| {
        // An account that nobody has given anything.
        let common = rights(product, "default:default", namespace);
        assert!(!common.is_empty());
        let all = rights(product, &format!("{NAMESPACE}:reach"), namespace);
        let (common_ones, own): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|right| common.contains(right));
        assert_eq!(common_ones, common, "no less than the others");
        own.join("\n")
    };
    assert_eq!(own("default"), own("kube-system"), "one namespace is as the other");
    let all = format!(
        "Resources, non-resource URLs, resource names, verbs.\n\nIn its own namespace:\n{}\n\nIn every other one:\n{}\n",
        own(NAMESPACE),
        own("default")
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("REACH_UPDATE").is_some() {
        fs::write(&golden, &all).expect("the file can be written");
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(all, expected, "if this is wanted: REACH_UPDATE=1 cargo test --test product -- rights");
    let count = |text: &str| text.lines().count();
    println!(
        "rights, beyond those of every service account: {} in its own namespace, {} in every other one, as in {GOLDEN}",
        count(&own(NAMESPACE)),
        count(&own("default"))
    );
}
