//! Machines are replaced when what they are given at their first start changes: when it has to, and not otherwise.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::streams::{Presets, example, patched, read};
use crate::support::cluster_api::{ClusterApi, Role, Workload, WorkloadCluster};
use crate::support::kubectl::succeeded;

const PRESETS: &str = "examples/cluster-api/presets/corporate-proxy.yaml";

/// What the condition `MachinesUpToDate` of a control plane says when no machine has to be replaced.
pub const UP_TO_DATE: &str = "True";

/// What it says when one has to.
const OUTDATED: &str = "False";

pub fn nothing_when_patched_twice(cluster_api: &ClusterApi) {
    let once = patched(&example("vsphere.yaml", "twice"));
    let cluster = cluster_api.create("twice", "shop", Workload::Absent, &once);
    cluster.user_data(Role::First);
    let before = settled(&cluster, UP_TO_DATE);
    succeeded("kubectl apply", cluster_api.apply("twice", &patched(&once)));
    assert_eq!(settled(&cluster, UP_TO_DATE), before);

    // What would be seen if something did roll.
    let other = read(PRESETS).replace("proxy.corp.example", "other.corp.example");
    let changed = Presets::new(&other).patch(&example("vsphere.yaml", "twice"), &[]);
    succeeded("kubectl apply", cluster_api.apply("twice", &changed));
    assert_ne!(settled(&cluster, OUTDATED), before);
}

pub fn nothing_when_a_pool_grows(cluster_api: &ClusterApi) {
    for (file, name, pool, end, more) in [
        (
            "static-ip.yaml",
            "bank",
            "InClusterIPPool/bank",
            "  - 10.30.0.31\n",
            "  - 10.30.0.40\n  - 10.30.0.44\n",
        ),
        (
            "static-ip-metal3.yaml",
            "demo",
            "IPPool/demo",
            "    end: 10.40.0.25\n    prefix: 27\n    gateway: 10.40.0.1\n",
            "  - start: 10.40.0.30\n    end: 10.40.0.30\n    prefix: 27\n    gateway: 10.40.0.1\n",
        ),
    ] {
        let namespace = format!("grows-{name}");
        let stream = example(file, &namespace);
        let cluster = cluster_api.create(&namespace, name, Workload::Absent, &patched(&stream));
        cluster.user_data(Role::First);
        let before = settled(&cluster, UP_TO_DATE);
        let mut grown = stream.clone();
        grown.insert_str(stream.find(end).expect("the pool") + end.len(), more);
        succeeded("kubectl apply", cluster_api.apply(&namespace, &patched(&grown)));
        let mut after = settled(&cluster, UP_TO_DATE);
        let grown_pool = after.insert(pool.to_owned(), before[pool].clone());
        assert_ne!(grown_pool.as_ref(), Some(&before[pool]), "the pool itself has changed");
        assert_eq!(after, before);
    }
}

/// The identity and the spec of each object of a cluster, those that controllers made included, once the controllers have seen
/// them and the control plane's condition `MachinesUpToDate` says this. (Not `metadata.generation`: that grows
/// whenever somebody applies v1beta1 of something that is stored as v1beta2.)
pub fn settled(cluster: &WorkloadCluster<'_>, is_up_to_date: &str) -> BTreeMap<String, (Value, Value)> {
    cluster.eventually("the controllers have seen everything", || {
        let kinds = "clusters,kubeadmcontrolplanes,kubeadmconfigtemplates,kubeadmconfigs,machinedeployments,machinesets,\
                     machines,vspheremachinetemplates,vspheremachines,inclusterippools,ippools";
        let list = cluster.list(kinds);
        let mut specs = BTreeMap::new();
        for object in list {
            let (kind, metadata, status) = (&object["kind"], &object["metadata"], &object["status"]);
            let name = format!("{}/{}", kind.as_str().expect("a kind"), metadata["name"].as_str().expect("a name"));
            let is_settled = match kind.as_str() {
                // Its own `observedGeneration` stays behind as long as it does not reach the cluster.
                Some("KubeadmControlPlane") => {
                    let mut conditions = status["conditions"].as_array().into_iter().flatten();
                    conditions.any(|condition| {
                        condition["type"] == "MachinesUpToDate"
                            && condition["status"] == is_up_to_date
                            && condition["observedGeneration"] == metadata["generation"]
                    })
                }
                Some("MachineDeployment") => status["observedGeneration"] == metadata["generation"],
                // All of its machines are there.
                Some("MachineSet") => status["replicas"] == object["spec"]["replicas"],
                _ => true,
            };
            if !is_settled {
                return Err(object.to_string());
            }
            // What belongs to one machine, the controllers complete while they start it.
            let is_of_a_machine = matches!(kind.as_str(), Some("Machine" | "KubeadmConfig" | "VSphereMachine"));
            let spec = if is_of_a_machine { Value::Null } else { object["spec"].clone() };
            specs.insert(name, (metadata["uid"].clone(), spec));
        }
        Ok(specs)
    })
}
