//! no_proxy lists: never a panic, and the portable form is what an independent reading of the contract makes of them.
//!
//! Lists stand between record separators, those of presets before the container's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::no_proxy::Union;
use reach::no_proxy::portable::{Author, List, unite};

#[path = "../../tests/properties/portable.rs"]
mod portable;

const SEPARATOR: char = '\u{1e}';

fuzz_target!(|text: &str| {
    let lists: Vec<&str> = text.split(SEPARATOR).collect();
    let (presets, own) = lists.split_at(lists.len() - 1);
    let read = |lists: &[&str], author| -> Vec<List> {
        lists.iter().map(|list| List::parse(list, author)).collect()
    };
    let (of_presets, of_pod) = (read(presets, Author::Preset), read(own, Author::Pod));
    let written = unite(of_presets.iter().chain(&of_pod));
    assert_eq!(written, portable::portable(presets, own), "as the contract says");
    let again = List::parse(&written, Author::Pod);
    assert_eq!(unite([&again].into_iter()), written, "written once more it stays as it is");
    assert_eq!(unite(of_pod.iter().chain(of_presets.iter().rev())), written, "in any order");
    assert_eq!(List::united(of_presets.iter().chain(&of_pod)).text(), written);
    // Hosts: what is read back is what was written.
    let of_host = unite(read(&lists, Author::Host).iter());
    assert_eq!(unite([&List::parse(&of_host, Author::Host)].into_iter()), of_host, "so it does on hosts");

    let mut union = Union::default();
    lists.iter().for_each(|list| union.add(list));
    let joined = union.join();
    union.add(&joined);
    assert_eq!(union.join(), joined, "what is there already is not added");
});
