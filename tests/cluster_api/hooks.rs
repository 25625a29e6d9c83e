//! Clusters of a ClusterClass whose hosts get the presets from `reach serve`, which Cluster API asks.

use base64_simd::STANDARD;
use reach::manifest::{Operation, documents};
use serde_json::{Value, json};

use crate::machines::assert_environment;
use crate::rolls::{UP_TO_DATE, settled};
use crate::streams::{Presets, example};
use crate::support::cluster_api::{ClusterApi, Role, Workload, WorkloadCluster};
use crate::support::kubectl::{Kubectl as _, succeeded};
use crate::support::serve::Reach;

const ENVIRONMENT: &str = "/etc/reach/proxy.env";

pub fn give_the_hosts_of_classes_the_presets(cluster_api: &ClusterApi) {
    let presets = Presets::example();
    let reach = Reach::start([
        "--presets".as_ref(),
        presets.path().as_os_str(),
        "--cluster-api-hooks".as_ref(),
        "--log=info,reach::hooks=debug".as_ref(),
    ]);
    cluster_api.management.apply(&json!({
        "apiVersion": "runtime.cluster.x-k8s.io/v1beta2",
        "kind": "ExtensionConfig",
        "metadata": {"name": "reach"},
        "spec": {
            "clientConfig": {
                "url": format!("https://{}", reach.webhook),
                "caBundle": STANDARD.encode_to_string(reach.ca()),
            },
            "settings": {"unit": "containerd,kubelet"},
        },
    }));

    let north = cluster_api.expect("hooks", "north", Workload::Running);
    let south = cluster_api.expect("hooks", "south", Workload::Absent);
    let clusters = of_class(cluster_api, &north, "-");
    let variable = json!({"name": "proxy", "value": {"noProxy": ["more.corp.example"]}});
    let clusters = edited(&clusters, "Cluster", "south", "/spec/topology/variables/-", &variable);
    succeeded("kubectl apply", cluster_api.apply("hooks", &clusters));
    north.provision();
    south.provision();
    let (of_north, of_south) = (north.user_data(Role::First), south.user_data(Role::First));
    let (north_file, south_file) = (of_north.file(ENVIRONMENT), of_south.file(ENVIRONMENT));
    assert_environment(&north_file.content, &["10.50.0.10", "10.96.0.1", "vcenter-north.infra.example"]);
    let southern =
        ["10.60.0.10", "vcenter-south.infra.example", "172.20.0.0/16", "172.21.0.1", "more.corp.example"];
    assert_environment(&south_file.content, &southern);
    for entry in southern {
        assert!(!north_file.content.contains(entry), "{entry}: {}", north_file.content);
    }
    for data in [&of_north, &of_south] {
        assert_eq!(data.commands()[0], "sh /etc/reach/apply-proxy.sh");
        data.file("/etc/systemd/system/kubelet.service.d/10-reach-proxy.conf");
        // What the class itself puts there is there as well.
        assert!(data.file("/etc/kubernetes/manifests/kube-vip.yaml").content.contains("kube-vip"));
    }
    north.boot();
    assert_eq!(north.user_data(Role::Worker).file(ENVIRONMENT), north_file);

    // Asked again, reach says the same.
    let before = settled(&north, UP_TO_DATE);
    let again = json!({"metadata": {"annotations": {"example.com/again": "yes"}}}).to_string();
    cluster_api.management.ask(&[
        "patch",
        "cluster",
        "north",
        "--namespace=hooks",
        "--type=merge",
        "--patch",
        &again,
    ]);
    let asked = |text: &str| text.matches("GeneratePatches").count();
    let answered = asked(&reach.stderr());
    north.eventually("reach is asked again", || {
        if asked(&reach.stderr()) > answered { Ok(()) } else { Err(reach.stderr()) }
    });
    assert_eq!(settled(&north, UP_TO_DATE), before);

    // Where the class's own patches come behind that of reach, they take its files away.
    let first = cluster_api.expect("hooks-first", "north", Workload::Absent);
    let clusters = of_class(cluster_api, &first, "0");
    succeeded("kubectl apply", cluster_api.apply("hooks-first", &clusters));
    first.eventually("Cluster API says what is wrong with the class", || {
        let cluster = first.get("clusters", "north")?;
        let mut conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions.find(|condition| condition["type"] == "TopologyReconciled");
        let message = condition.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        let expected = "the files of reach are gone: a patch behind that of reach replaces the list";
        if message.contains(expected) { Ok(()) } else { Err(cluster["status"].to_string()) }
    });
}

/// Applies the example's class with the patch of reach at a place of its patches, waits until Cluster API knows the variables
/// of that, and returns the clusters.
fn of_class(cluster_api: &ClusterApi, cluster: &WorkloadCluster<'_>, place: &str) -> String {
    let patch = json!({"name": "reach", "external": {
        "discoverVariablesExtension": "discover-variables.reach",
        "generatePatchesExtension": "generate-patches.reach",
        "validateTopologyExtension": "validate-topology.reach",
    }});
    let stream = example("clusterclass.yaml", &cluster.namespace);
    let stream = edited(&stream, "ClusterClass", "vsphere", &format!("/spec/patches/{place}"), &patch);
    let (mut clusters, mut others) = (String::new(), String::new());
    for document in documents(&stream) {
        let kind = document.read().expect("YAML").map(|object| object["kind"].clone());
        let part = if kind == Some("Cluster".into()) { &mut clusters } else { &mut others };
        part.push_str(document.text);
    }
    // Its webhook looks for the extension, which Cluster API has to have asked what it can.
    cluster.eventually("the class is taken", || {
        let output = cluster_api.apply(&cluster.namespace, &others);
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    cluster.eventually("the class has the variable", || {
        let class = cluster.get("clusterclasses", "vsphere")?;
        let mut variables = class["status"]["variables"].as_array().into_iter().flatten();
        if variables.any(|variable| variable["name"] == "proxy") {
            Ok(())
        } else {
            Err(class["status"].to_string())
        }
    });
    clusters
}

/// A stream with something added to one of its objects.
#[track_caller]
fn edited(stream: &str, kind: &str, name: &str, path: &str, value: &Value) -> String {
    let mut edits = 0;
    let mut text = String::new();
    for document in documents(stream) {
        let object = document.read().expect("YAML").unwrap_or_default();
        if object["kind"] == kind && object["metadata"]["name"] == name {
            let edited = document.edit(&[Operation::add(path, value.clone())]).expect("it can be added");
            assert!(!edited.reemitted);
            text.push_str(&edited.text);
            edits += 1;
        } else {
            text.push_str(document.text);
        }
    }
    assert_eq!(edits, 1, "{kind} {name}");
    text
}
