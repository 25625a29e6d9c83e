//! The README is what a newcomer follows, so what it shows is run here, to the letter; of other documents, the commands whose
//! files are in this repository.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../README.md");
const REACH: &str = env!("CARGO_BIN_EXE_reach");

/// The fenced blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README
        .match_indices(&fence)
        .map(|(start, _)| {
            let block = &README[start + fence.len()..];
            &block[..block.find("```").expect("a block ends")]
        })
        .collect()
}

/// Runs a line of shell in the root of the project and returns its standard output.
fn shell(line: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {line}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("KUBECONFIG")
        .output()
        .expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    // `-o diff` says with 1 that something differs.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{line}: {:?}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("the output is text")
}

/// A server that ends with the test, also when it fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_console_block_prints_what_it_shows() {
    let blocks = blocks("console");
    assert!(blocks.len() >= 2, "inject and explain are shown");
    for block in blocks {
        let (command, shown) = block.split_once('\n').expect("a command and its output");
        let arguments = command.strip_prefix("$ reach ").expect("a command of reach");
        assert_eq!(shell(&format!("{REACH} {arguments}")), shown, "{command}");
    }
}

#[test]
fn the_first_command_serves_and_the_curl_line_gets_the_patch_that_is_shown() {
    let commands = blocks("sh");
    let serve = commands[0].trim().strip_prefix("cargo run --release -- ").expect("command one runs reach");
    let mut server = Command::new(REACH);
    server
        .args(serve.split(' '))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped());
    let mut server = Server(server.spawn().expect("reach starts"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("it says where it listens");
    let url = line.split_whitespace().nth(1).expect("an address");
    let curl = commands[1].replace("https://127.0.0.1:9443/mutate/pods", url);
    assert!(curl.contains(url), "the curl line calls the default address");
    assert_eq!(shell(curl.trim()), blocks("json")[0]);
}

#[test]
fn the_presets_shown_are_those_of_the_examples() {
    let shown = blocks("yaml")[0];
    let (cluster, namespaced) = shown.split_once("---\n").expect("two presets");
    for (shown, file) in [(cluster, "cluster.yaml"), (namespaced, "shop.yaml")] {
        let path = format!("{}/examples/presets/{file}", env!("CARGO_MANIFEST_DIR"));
        let example = std::fs::read_to_string(path).expect("the example is there");
        assert!(example.ends_with(shown), "{file}");
    }
}

#[test]
fn the_commands_of_the_journeys_work_with_the_examples() {
    let document = include_str!("../docs/cluster-api.md");
    let mut count = 0;
    // Indented ones stand in lists. What they are piped to needs a management cluster; tests/cluster_api.rs has one.
    for line in document.lines().filter_map(|line| line.trim_start().strip_prefix("reach host ")) {
        let command = line.split(" | ").next().unwrap_or_default();
        assert!(
            !shell(&format!("{REACH} host {command}")).is_empty() || command.starts_with("lint"),
            "{command}"
        );
        count += 1;
    }
    assert_eq!(count, 5, "each is run");
    let addon = include_str!("../examples/cluster-api/addon/kustomization.yaml");
    let command = document.lines().find(|line| line.contains("kubectl kustomize")).expect("the addon");
    assert!(addon.contains(command.trim_start()), "{command}");
}
