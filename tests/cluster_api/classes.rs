//! Clusters of a ClusterClass.

use crate::machines::assert_environment;
use crate::rolls::{UP_TO_DATE, settled};
use crate::streams::{example, patched};
use crate::support::cluster_api::{ClusterApi, Role, Workload};
use crate::support::kubectl::succeeded;

const ENVIRONMENT: &str = "/etc/reach/proxy.env";

pub fn give_each_cluster_its_own(cluster_api: &ClusterApi) {
    let stream = patched(&example("clusterclass.yaml", "classes"));
    let north = cluster_api.expect("classes", "north", Workload::Running);
    let south = cluster_api.expect("classes", "south", Workload::Absent);
    succeeded("kubectl apply", cluster_api.apply("classes", &stream));
    north.provision();
    south.provision();

    let (of_north, of_south) = (north.user_data(Role::First), south.user_data(Role::First));
    let (north_file, south_file) = (of_north.file(ENVIRONMENT), of_south.file(ENVIRONMENT));
    assert_environment(&north_file.content, &["10.50.0.10", "10.96.0.1", "vcenter-north.infra.example"]);
    let southern = [
        "10.60.0.10",
        "vcenter-south.infra.example",
        "172.20.0.0/16",
        "172.21.0.0/20",
        "172.21.0.1",
        ".south.corp.example",
    ];
    assert_environment(&south_file.content, &southern);
    for entry in southern {
        assert!(!north_file.content.contains(entry), "{entry}: {}", north_file.content);
    }
    for data in [&of_north, &of_south] {
        assert_eq!(data.commands()[0], "sh /etc/reach/apply-proxy.sh");
        // What the class itself puts there is there as well.
        assert!(data.file("/etc/kubernetes/manifests/kube-vip.yaml").content.contains("kube-vip"));
    }
    north.boot();
    let worker = north.user_data(Role::Worker);
    assert_eq!(worker.file(ENVIRONMENT), north_file);
    assert_eq!(worker.commands()[0], "sh /etc/reach/apply-proxy.sh");

    let before = settled(&north, UP_TO_DATE);
    succeeded("kubectl apply", cluster_api.apply("classes", &patched(&stream)));
    assert_eq!(settled(&north, UP_TO_DATE), before, "patched twice, nothing rolls");
}
