//! reach as Cluster API's Runtime Extension: a class that names it, and no command to run.

use std::fs;

use base64_simd::STANDARD;
use serde_json::json;
use tempfile::TempDir;

use crate::machines::assert_environment;
use crate::rolls::{UP_TO_DATE, settled};
use crate::streams::{example, replaced};
use crate::support::cluster_api::{ClusterApi, Role, Workload};
use crate::support::eventually;
use crate::support::helm::{root, text};
use crate::support::kubectl::{Kubectl as _, succeeded};
use crate::support::pki::Ca;
use crate::support::serve::Reach;

const ENVIRONMENT: &str = "/etc/reach/proxy.env";

/// The last patch of the class.
const PATCH: &str = "
  - name: reach
    external:
      discoverVariablesExtension: discover-variables.reach
      generatePatchesExtension: generate-patches.reach
      validateTopologyExtension: validate-topology.reach
      settings:
        unit: containerd,kubelet
";

/// A value for the variable that reach defines.
const VARIABLE: &str = "
    - name: proxy
      value:
        noProxy: [git.corp.example]
";

pub fn gives_clusters_of_a_class_that_names_it_their_own(cluster_api: &ClusterApi) {
    let (reach, ca, _folder) = serve();
    cluster_api.management.apply(&json!({
        "apiVersion": "runtime.cluster.x-k8s.io/v1beta2",
        "kind": "ExtensionConfig",
        "metadata": {"name": "reach"},
        "spec": {
            "clientConfig": {
                "url": format!("https://{}", reach.webhook),
                "caBundle": STANDARD.encode_to_string(ca.pem.as_bytes()),
            },
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "extension"}},
        },
    }));
    eventually("Cluster API knows the handlers", || {
        let config = cluster_api.management.get(&["extensionconfig", "reach"]);
        let handlers = config["status"]["handlers"].as_array().map_or(0, Vec::len);
        if handlers == 3 { Ok(()) } else { Err(format!("{}{}", config["status"], reach.stderr())) }
    });

    let stream = example("clusterclass.yaml", "extension");
    let end_of_class = "\n                    path: /etc/kubernetes/super-admin.conf\n";
    let stream = replaced(&stream, end_of_class, &format!("{}{PATCH}", end_of_class.trim_end()));
    let end_of_south = "\n        url: vcenter-south.infra.example\n";
    let stream = replaced(&stream, end_of_south, &format!("{}{VARIABLE}", end_of_south.trim_end()));
    let north = cluster_api.expect("extension", "north", Workload::Running);
    let south = cluster_api.expect("extension", "south", Workload::Absent);
    succeeded("kubectl apply", cluster_api.apply("extension", &stream));
    north.provision();
    south.provision();

    let (of_north, of_south) = (north.user_data(Role::First), south.user_data(Role::First));
    let northern = ["10.50.0.10", "10.96.0.1", "vcenter-north.infra.example"];
    let southern = ["10.60.0.10", "172.20.0.0/16", "172.21.0.0/20", "172.21.0.1", "git.corp.example"];
    let north_file = of_north.file(ENVIRONMENT);
    assert_environment(&north_file.content, &northern);
    assert_environment(&of_south.file(ENVIRONMENT).content, &southern);
    for entry in southern {
        assert!(!north_file.content.contains(entry), "{entry}: {}", north_file.content);
    }
    for data in [&of_north, &of_south] {
        assert_eq!(data.commands()[0], "sh /etc/reach/apply-proxy.sh");
        assert_eq!(data.file(ENVIRONMENT).permissions, "0600");
        // What the settings of the patch ask for, and what the class itself puts there.
        let unit = data.file("/etc/systemd/system/kubelet.service.d/10-reach-proxy.conf").content;
        assert!(unit.contains("EnvironmentFile=/etc/reach/proxy.env"), "{unit}");
        assert!(data.file("/etc/kubernetes/manifests/kube-vip.yaml").content.contains("kube-vip"));
    }
    north.boot();
    let worker = north.user_data(Role::Worker);
    assert_eq!(worker.file(ENVIRONMENT), north_file);
    assert_eq!(worker.commands()[0], "sh /etc/reach/apply-proxy.sh");

    // Asked again, it answers the same.
    let before = settled(&north, UP_TO_DATE);
    let label = json!({"metadata": {"labels": {"asked": "again"}}}).to_string();
    let cluster = ["patch", "cluster", "north", "--namespace=extension", "--type=merge", "--patch", &label];
    let calls = patches_made(&reach);
    cluster_api.management.ask(&cluster);
    eventually("it is asked again", || {
        let now = patches_made(&reach);
        if now > calls { Ok(()) } else { Err(format!("{now} calls")) }
    });
    assert_eq!(settled(&north, UP_TO_DATE), before);
}

/// `reach serve` with the presets of the examples, and the CA of its certificate.
fn serve() -> (Reach, Ca, TempDir) {
    let ca = Ca::new("CA of the extension");
    let pair = ca.server("127.0.0.1");
    let folder = tempfile::Builder::new().prefix("reach-extension-").tempdir().expect("a temporary folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a temporary file");
        text(&path).to_owned()
    };
    let presets = root().join("examples/cluster-api/presets");
    let reach = Reach::start([
        "--presets",
        text(&presets),
        "--cluster-api-hooks",
        "--log=debug",
        "--tls-cert",
        &file("tls.crt", &pair.certificate),
        "--tls-key",
        &file("tls.key", &pair.key),
    ]);
    (reach, ca, folder)
}

/// How often it was asked for patches.
fn patches_made(reach: &Reach) -> usize {
    reach.stderr().matches("GeneratePatches").count()
}
