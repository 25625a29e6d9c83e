//! Memory of `reach serve` with the presets of a large cluster, from files and from an API server.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::fixture::{self, NAMESPACES, PRESETS, SERVICE_NAMESPACES, SERVICES_EACH};
use super::process::{Reach, folder};
use super::report::Row;

/// Presets in one file.
const PER_FILE: usize = 1000;
/// How long it is left alone before it is looked at: it may give memory back, or take more.
const REST: Duration = Duration::from_secs(3);
/// The most that is wanted, in MiB.
const MOST: f64 = 48.0;
/// The same with few presets and many Services, in MiB.
const MOST_SERVICES: f64 = 32.0;

/// Both sources.
pub fn measure() -> Vec<Row> {
    let presets: Vec<Value> = (0..PRESETS).map(fixture::other).collect();
    let namespaces: Vec<Value> = (0..NAMESPACES).map(fixture::namespace).collect();

    let folder = folder();
    let files = folder.path().join("presets");
    write_files(&files, &presets, &namespaces);
    let mut rows = look("from files", &Reach::start(["--presets".as_ref(), files.as_os_str()]));

    let cluster = Cluster::start(&presets, &namespaces, &[]);
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, cluster.kubeconfig()).expect("a new file");
    rows.extend(look("from a cluster", &Reach::start(["--kubeconfig".as_ref(), kubeconfig.as_os_str()])));
    rows.extend(services(&kubeconfig));
    rows
}

/// The same of many Services and few presets.
fn services(kubeconfig: &Path) -> Vec<Row> {
    let namespaces: Vec<Value> = (0..SERVICE_NAMESPACES).map(fixture::namespace).collect();
    let services: Vec<Value> = fixture::services(SERVICE_NAMESPACES - 1)
        .map(|(namespace, name)| fixture::service(&namespace, &name))
        .collect();
    let cluster = Cluster::start(&fixture::proxy_from("Services"), &namespaces, &services);
    fs::write(kubeconfig, cluster.kubeconfig()).expect("a file");
    let arguments = ["--kubeconfig".as_ref(), kubeconfig.as_os_str(), "--no-proxy-from=services".as_ref()];
    let reach = Reach::start(arguments);
    reach.await_ready();
    thread::sleep(REST);
    let memory = reach.process.memory();
    let what = format!("{} Services in {SERVICE_NAMESPACES} namespaces", SERVICE_NAMESPACES * SERVICES_EACH);
    vec![
        Row::new(format!("memory: {what}, resident"), memory.now, "MiB").at_most(MOST_SERVICES),
        Row::new(format!("memory: {what}, peak"), memory.peak, "MiB").at_most(MOST_SERVICES),
    ]
}

fn look(source: &str, reach: &Reach) -> Vec<Row> {
    let ready = reach.await_ready();
    thread::sleep(REST);
    let memory = reach.process.memory();
    let row = |what: &str, mib| {
        Row::new(format!("memory: {PRESETS} presets {source}, {what}"), mib, "MiB").at_most(MOST)
    };
    vec![
        row("resident", memory.now),
        row("peak", memory.peak),
        Row::new(format!("ready: start to ready, {PRESETS} presets {source}"), ready.as_secs_f64(), "s")
            .below(1.5),
    ]
}

/// Writes objects to files of many documents. JSON is YAML too, and one line each.
///
/// # Panics
/// If that fails.
fn write_files(folder: &Path, presets: &[Value], namespaces: &[Value]) {
    fs::create_dir(folder).expect("a new folder");
    for (number, objects) in presets.chunks(PER_FILE).chain(namespaces.chunks(PER_FILE)).enumerate() {
        let documents: Vec<String> = objects.iter().map(reach::manifest::to_yaml).collect();
        fs::write(folder.join(format!("{number}.yaml")), documents.join("---\n")).expect("a new file");
    }
}
