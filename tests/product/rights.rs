//! What reach may do in the cluster.

use std::fs;
use std::path::Path;

use crate::place::Product;
use crate::support::helm::NAMESPACE;
use crate::support::kubectl::Kubectl as _;

/// What it may do, as kubectl has it. `REACH_UPDATE=1` writes it anew.
const GOLDEN: &str = "tests/product/rights.txt";

pub fn are_exactly_these(product: &Product) {
    product.release(&[]);
    let user = format!("--as=system:serviceaccount:{NAMESPACE}:reach");
    let list = |namespace: &str| {
        let list = product.ask(&["auth", "can-i", "--list", &user, "--namespace", namespace]);
        let (title, rights) = list.split_once('\n').expect("a title");
        let mut rights: Vec<&str> = rights.lines().map(str::trim_end).collect();
        rights.sort_unstable();
        format!("{}\n{}\n", title.trim_end(), rights.join("\n"))
    };
    let all =
        format!("# In its own namespace\n{}\n# In every other one\n{}", list(NAMESPACE), list("default"));
    assert_eq!(list("default"), list("kube-system"), "one namespace is as the other");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("REACH_UPDATE").is_some() {
        fs::write(&golden, &all).expect("the file can be written");
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(all, expected, "if this is wanted: REACH_UPDATE=1 cargo test --test product -- rights");
    println!("rights: {} lines, as in {GOLDEN}", all.lines().count());
}
