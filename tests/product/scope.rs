//! Which namespaces are injected.

use serde_json::json;

use crate::place::{Product, is_injected};
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::Kubectl as _;

/// Namespaces of both tests: name, and label.
const NAMESPACES: [(&str, Option<&str>); 3] = [
    ("scope-unlabelled", None),
    ("scope-enabled", Some("reach.dev/injection=enabled")),
    ("scope-disabled", Some("reach.dev/injection=disabled")),
];

/// Those that are never injected, whatever the values and their labels say.
const LEFT_ALONE: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", NAMESPACE];

fn create_namespaces(product: &Product) {
    for (name, label) in NAMESPACES {
        product.namespace(name);
        if let Some(label) = label {
            product.ask(&["label", "--overwrite", "namespace", name, label]);
        }
    }
}

/// Asserts which of them are injected.
fn assert_scope(product: &Product, unlabelled: bool) {
    create_namespaces(product);
    // The first two differ between the modes, so that afterwards the API server has the new configuration.
    product.await_injection("scope-unlabelled", unlabelled);
    product.await_injection("scope-enabled", true);
    product.await_injection("scope-disabled", false);
    // A pod opts out by itself.
    let pod = product.try_pod("scope-enabled", &json!({"reach.dev/injection": "disabled"}));
    assert!(!is_injected(&pod.expect("a pod is made")));
    for namespace in LEFT_ALONE {
        // The label that asks for injection changes nothing.
        for label in ["reach.dev/injection=enabled", "reach.dev/injection-"] {
            product.ask(&["label", "--overwrite", "namespace", namespace, label]);
            assert_eq!(product.injects(namespace), Ok(false), "{namespace}");
        }
    }
}

pub fn opt_out_is_every_namespace_but_some(product: &Product) {
    product.release(&["--set=namespaces.exclude={scope-excluded}"]);
    assert_scope(product, true);
    product.namespace("scope-excluded");
    product.await_injection("scope-excluded", false);
    println!(
        "optOut: unlabelled and enabled namespaces are injected; disabled, excluded and {LEFT_ALONE:?} are not"
    );
}

pub fn opt_in_is_labelled_namespaces_only(product: &Product) {
    product.release(&["--set=namespaces.mode=optIn"]);
    assert_scope(product, false);
    println!("optIn: enabled namespaces are injected; unlabelled, disabled and {LEFT_ALONE:?} are not");
}
