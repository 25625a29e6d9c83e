//! How long `reach host patch` takes for the clusters of a large management cluster.

use std::fs;
use std::path::Path;

use super::process::{command_runs, folder};
use super::report::Row;

/// Clusters in the stream.
const CLUSTERS: usize = 1000;
/// Runs.
const RUNS: usize = 5;

/// Runs it some times.
///
/// # Panics
/// If it fails.
pub fn measure() -> Vec<Row> {
    let folder = folder();
    let (manifests, patched) = (folder.path().join("clusters.yaml"), folder.path().join("patched.yaml"));
    let (stream, documents) = stream();
    fs::write(&manifests, stream).expect("a new file");
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster-api/presets");
    let arguments = ["host".as_ref(), "patch".as_ref(), "-f".as_ref(), manifests.as_os_str()];
    let arguments = [&arguments[..], &["--presets".as_ref(), presets.as_os_str()]].concat();
    let runs = command_runs(RUNS, &arguments, &patched);
    let patched = fs::read_to_string(&patched).expect("its output");
    // A control plane and a template of workers each.
    assert_eq!(
        patched.matches("path: /etc/reach/proxy.env").count(),
        2 * CLUSTERS,
        "objects that are patched"
    );
    let what = format!("hosts: {CLUSTERS} clusters ({documents} documents)");
    vec![
        Row::new(format!("{what}, median of {RUNS}"), runs.seconds, "s").below(2.0),
        Row::new("hosts: the same in CPU seconds, of all processors", runs.cpu_seconds, "s"),
        Row::new("hosts: the same, most memory", runs.peak, "MiB").below(300.0),
    ]
}

/// What else belongs to each cluster in a management cluster, and is not patched.
const BESIDES: &str = r"apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: v1
kind: Secret
metadata:
  name: shop-vcenter
  namespace: shop
stringData:
  username: shop
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: shop-addon
  namespace: shop
data:
  addon.yaml: |
    apiVersion: v1
    kind: Namespace
    metadata:
      name: addon
---
apiVersion: addons.cluster.x-k8s.io/v1beta2
kind: ClusterResourceSet
metadata:
  name: shop-addon
  namespace: shop
spec:
  clusterSelector:
    matchLabels:
      cluster: shop
  resources:
  - kind: ConfigMap
    name: shop-addon";

/// The example with two failure domains, once for each cluster, its failure domains once for all, as they are in a
/// management cluster; and how many documents that is.
fn stream() -> (String, usize) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster-api/vsphere.yaml");
    let example = fs::read_to_string(file).expect("the example");
    let (zones, of_cluster): (Vec<&str>, Vec<&str>) = example.split("\n---\n").partition(|document| {
        document.contains("kind: VSphereDeploymentZone\n")
            || document.contains("kind: VSphereFailureDomain\n")
    });
    let of_cluster: Vec<&str> = of_cluster.into_iter().chain(BESIDES.split("\n---\n")).collect();
    let mut documents: Vec<String> = zones.iter().map(|zone| (*zone).to_owned()).collect();
    for number in 0..CLUSTERS {
        let name = format!("shop-{number}");
        let address = format!("10.{}.{}.10", 100 + number / 250, number % 250);
        documents.extend(
            of_cluster.iter().map(|document| document.replace("shop", &name).replace("10.20.0.10", &address)),
        );
    }
    let count = documents.len();
    (documents.join("\n---\n") + "\n", count)
}
