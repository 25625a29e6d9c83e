//! Files of hosts: never a panic; a value stays a value, whatever is in it, and comes back from every form it is written in.
//!
//! Lines are the values of the variables, in the order of `FAMILIES`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::host::node::{Node, Options, StaticPods, System};
use reach::host::patch;
use reach::host::render::{self, Bootstrap};
use reach::host::targets::{MARK, Target, Unit};
use reach::host::values::{FAMILIES, Setting};
use reach::manifest;
use serde_json::Value;

const TARGETS: [Target; 7] = [
    Target::EnvironmentFile,
    Target::DropIn(Unit::Containerd),
    Target::Profile,
    Target::EtcEnvironment,
    Target::Apt,
    Target::Dnf,
    Target::Sudoers,
];

fn settings(text: &str) -> Vec<Setting> {
    // A line feed inside of a value has to be said in another way.
    let values = text.split('\n').map(|value| value.replace('\u{1e}', "\n"));
    let filled = FAMILIES.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
    filled.map(|(proxy, value)| Setting { proxy, value, secret: false }).collect()
}

fuzz_target!(|text: &str| {
    let settings = settings(text);
    let harmless: Vec<Setting> =
        settings.iter().map(|setting| Setting { value: "a".to_owned(), ..setting.clone() }).collect();
    for target in TARGETS {
        let Ok(written) = target.write(&settings) else { continue };
        assert!(written.starts_with(MARK) && written.ends_with('\n'));
        let is_clean = |c: char| c == '\n' || (' '..='~').contains(&c);
        assert!(written.chars().all(is_clean), "{target:?}: no control characters, ASCII only");
        if matches!(
            target,
            Target::EnvironmentFile | Target::Profile | Target::EtcEnvironment | Target::Sudoers
        ) {
            let lines = target.write(&harmless).expect("letters can be written").lines().count();
            assert_eq!(written.lines().count(), lines, "{target:?}: a value makes no lines of its own");
        }
    }
    let options = Options {
        system: vec![System::Profile, System::Sudoers],
        static_pods: StaticPods::Inherit,
        ..Options::default()
    };
    let Ok(node) = Node::new(&settings, &options) else { return };
    // One form of them each time: reading YAML back is what takes the time.
    match text.len() % 4 {
        0 => kubeadm(&node, Bootstrap::CloudConfig),
        1 => kubeadm(&node, Bootstrap::Ignition),
        2 => files(&node, &read(&render::cloud_config(&node))["write_files"], &patch::content),
        _ => {
            let ignition: Value = serde_json::from_str(&render::ignition(&node)).expect("Ignition is JSON");
            files(&node, &ignition["storage"]["files"], &|item| {
                let encoded = item["contents"]["source"].as_str()?.strip_prefix("data:;base64,")?;
                String::from_utf8(base64_simd::STANDARD.decode_to_vec(encoded).ok()?).ok()
            });
        }
    }
});

fn kubeadm(node: &Node, form: Bootstrap) {
    if let Ok(text) = render::kubeadm(node, form) {
        files(node, &read(&text)["files"], &patch::content);
    }
}

fn read(text: &str) -> Value {
    let documents = manifest::documents(text);
    documents[0].read().expect("it is YAML").expect("with something in it")
}

fn files(node: &Node, list: &Value, content: &dyn Fn(&Value) -> Option<String>) {
    for file in &node.files {
        let mut items = list.as_array().into_iter().flatten();
        let item = items.find(|item| item["path"] == file.path.as_str()).expect("every file is there");
        assert!(content(item).as_deref() == Some(&*file.content), "{} comes back as it was", file.path);
    }
}
