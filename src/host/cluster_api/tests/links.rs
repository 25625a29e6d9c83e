//! Which objects belong together, and which must not.

use proptest::prelude::*;

use super::*;

/// The names of what gets a group's list.
fn configured(manifests: &Manifests, group: &Group) -> Vec<String> {
    group.configurations.iter().map(|index| manifests.objects()[*index].to_string()).collect()
}

fn named(manifests: &Manifests, index: Option<usize>) -> &str {
    index.map_or("", |index| &manifests.objects()[index].name)
}

/// A cluster with a worker in an old version, a control plane in another, and names that are variables.
const VERSIONS: &str = "apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: '${NAME}', namespace: '${NAMESPACE}'}
spec:
  controlPlaneRef:
    {apiVersion: controlplane.cluster.x-k8s.io/v1beta1, kind: KubeadmControlPlane, name: '${NAME}', namespace: '${NAMESPACE}'}
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: VSphereCluster, name: '${NAME}'}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta2
kind: VSphereCluster
metadata: {name: '${NAME}', namespace: '${NAMESPACE}'}
spec: {server: vc.corp.example, controlPlaneEndpoint: {host: 10.0.0.5}}
---
apiVersion: vmware.infrastructure.cluster.x-k8s.io/v1beta2
kind: VSphereCluster
metadata: {name: '${NAME}', namespace: '${NAMESPACE}'}
spec: {server: other.corp.example, controlPlaneEndpoint: {host: 10.9.9.9}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlane
metadata: {name: '${NAME}', namespace: '${NAMESPACE}'}
spec:
  machineTemplate:
    infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: VSphereMachineTemplate, name: '${NAME}-cp'}
  kubeadmConfigSpec: {}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: VSphereMachineTemplate
metadata: {name: '${NAME}-cp', namespace: '${NAMESPACE}'}
spec: {template: {spec: {server: vc-cp.corp.example}}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: MachineDeployment
metadata: {name: md, namespace: '${NAMESPACE}'}
spec:
  clusterName: '${NAME}'
  template:
    spec:
      bootstrap: {configRef: {apiVersion: bootstrap.cluster.x-k8s.io/v1beta1, kind: KubeadmConfigTemplate, name: '${NAME}-md-0'}}
      infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: VSphereMachineTemplate, name: '${NAME}-md'}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: VSphereMachineTemplate
metadata: {name: '${NAME}-md', namespace: '${NAMESPACE}'}
spec: {template: {spec: {server: vc-md.corp.example}}}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta1
kind: KubeadmConfigTemplate
metadata: {name: '${NAME}-md-0', namespace: '${NAMESPACE}'}
spec: {template: {spec: {}}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: MachinePool
metadata: {name: mp, namespace: '${NAMESPACE}'}
spec:
  clusterName: '${NAME}'
  template: {spec: {bootstrap: {configRef: {apiGroup: bootstrap.cluster.x-k8s.io, kind: KubeadmConfig, name: pool}}}}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta2
kind: KubeadmConfig
metadata: {name: pool, namespace: '${NAMESPACE}'}
spec: {}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Machine
metadata: {name: one, namespace: '${NAMESPACE}', labels: {cluster.x-k8s.io/cluster-name: '${NAME}'}}
spec:
  bootstrap: {configRef: {apiGroup: bootstrap.cluster.x-k8s.io, kind: KubeadmConfig, name: one}}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta2
kind: KubeadmConfig
metadata: {name: one, namespace: '${NAMESPACE}'}
spec: {}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta2
kind: KubeadmConfigTemplate
metadata: {name: labelled, namespace: '${NAMESPACE}', labels: {cluster.x-k8s.io/cluster-name: '${NAME}'}}
spec: {template: {spec: {}}}
";

#[test]
fn references_are_followed_by_group_and_kind_whatever_the_versions() {
    // clusterctl passes over blanks in variables.
    let manifests = stream(&VERSIONS.replace("clusterName: '${NAME}'", "clusterName: '${ NAME }'"));
    let groups = derived(&manifests);
    assert_eq!(groups.len(), 1);
    assert_eq!(
        configured(&manifests, &groups[0]),
        [
            "KubeadmControlPlane ${NAMESPACE}/${NAME}",
            "KubeadmConfigTemplate ${NAMESPACE}/${NAME}-md-0",
            "KubeadmConfig ${NAMESPACE}/pool",
            "KubeadmConfig ${NAMESPACE}/one",
            "KubeadmConfigTemplate ${NAMESPACE}/labelled",
        ]
    );
    assert_eq!(texts(&groups[0], FactSource::ControlPlaneEndpoint), ["10.0.0.5"]);
    assert_eq!(
        texts(&groups[0], FactSource::Vcenter),
        ["vc.corp.example", "vc-cp.corp.example", "vc-md.corp.example"]
    );
    assert_eq!(shown(&groups[0].notes), Vec::<String>::new());
}

#[test]
fn the_supervisors_objects_are_their_own_kinds() {
    let text = VERSIONS
        .replace("infrastructureRef: {apiVersion: infra", "infrastructureRef: {apiVersion: vmware.infra");
    let group = derived(&stream(&text)).remove(0);
    assert_eq!(texts(&group, FactSource::ControlPlaneEndpoint), ["10.9.9.9"]);
    // They name no vCenter, whatever is in a field of this name.
    assert!(texts(&group, FactSource::Vcenter).is_empty());
}

#[test]
fn clusters_of_one_stream_are_kept_apart() {
    let of = |name: &str, namespace: &str, host: &str| {
        let mut values = [
            cluster(name),
            vsphere(name, &json!({"controlPlaneEndpoint": {"host": host}})),
            control_plane(name, &static_pod(&kube_vip(host))),
        ];
        for value in &mut values {
            value["metadata"]["namespace"] = json!(namespace);
        }
        values
    };
    // The same name in two namespaces, and two names in one.
    let all = [of("c", "a", "10.0.0.1"), of("c", "b", "10.0.0.2"), of("d", "b", "10.0.0.3")].concat();
    let manifests = objects(&all);
    let groups = derived(&manifests);
    let hosts: Vec<_> = groups
        .iter()
        .map(|group| {
            let configured = configured(&manifests, group).join(",");
            (configured, texts(group, FactSource::ControlPlaneEndpoint), texts(group, FactSource::KubeVip))
        })
        .collect();
    let expected = [("a/c", "10.0.0.1"), ("b/c", "10.0.0.2"), ("b/d", "10.0.0.3")]
        .map(|(name, host)| (format!("KubeadmControlPlane {name}"), vec![host], vec![host]));
    assert_eq!(hosts, expected);
}

#[test]
fn what_names_no_namespace_is_in_that_of_the_others_if_there_is_one() {
    let mut plain = vsphere("c", &json!({"controlPlaneEndpoint": {"host": "10.0.0.1"}}));
    plain["metadata"].as_object_mut().unwrap().remove("namespace");
    let group = derived(&objects(&[cluster("c"), plain.clone()])).remove(0);
    assert_eq!(texts(&group, FactSource::ControlPlaneEndpoint), ["10.0.0.1"]);
    // Its own namespace comes first.
    let own = vsphere("c", &json!({"controlPlaneEndpoint": {"host": "10.0.0.2"}}));
    let group = derived(&objects(&[cluster("c"), plain, own.clone()])).remove(0);
    assert_eq!(texts(&group, FactSource::ControlPlaneEndpoint), ["10.0.0.2"]);
    // Of two namespaces, neither is meant.
    let mut bare = cluster("c");
    bare["metadata"].as_object_mut().unwrap().remove("namespace");
    let mut elsewhere = own.clone();
    elsewhere["metadata"]["namespace"] = json!("b");
    let group = derived(&objects(&[bare.clone(), own.clone()])).remove(0);
    assert_eq!(texts(&group, FactSource::ControlPlaneEndpoint), ["10.0.0.2"]);
    let group = derived(&objects(&[bare, own, elsewhere])).remove(0);
    assert!(texts(&group, FactSource::ControlPlaneEndpoint).is_empty());
}

/// A class as CAPV has it, in v1beta2, with what it refers to, and two clusters of it.
const CLASS: &str = "apiVersion: cluster.x-k8s.io/v1beta2
kind: ClusterClass
metadata: {name: k}
spec:
  controlPlane:
    templateRef: {apiVersion: controlplane.cluster.x-k8s.io/v1beta2, kind: KubeadmControlPlaneTemplate, name: k-cp}
    machineInfrastructure:
      templateRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta2, kind: VSphereMachineTemplate, name: k-machine}
  infrastructure:
    templateRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta2, kind: VSphereClusterTemplate, name: k}
  workers:
    machineDeployments:
    - class: w
      bootstrap:
        templateRef: {apiVersion: bootstrap.cluster.x-k8s.io/v1beta2, kind: KubeadmConfigTemplate, name: k-worker}
      infrastructure:
        templateRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta2, kind: VSphereMachineTemplate, name: k-missing}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlaneTemplate
metadata: {name: k-cp, namespace: '${NAMESPACE}'}
spec:
  template:
    spec: {kubeadmConfigSpec: {clusterConfiguration: {etcd: {external: {endpoints: ['https://etcd.corp.example:2379']}}}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta2
kind: VSphereMachineTemplate
metadata: {name: k-machine, namespace: '${NAMESPACE}'}
spec: {template: {spec: {server: vc.corp.example}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta2
kind: VSphereClusterTemplate
metadata: {name: k, namespace: '${NAMESPACE}'}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta2
kind: KubeadmConfigTemplate
metadata: {name: k-worker, namespace: '${NAMESPACE}'}
spec: {template: {spec: {}}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: one, namespace: '${NAMESPACE}'}
spec:
  topology: {classRef: {name: k}, variables: [{name: controlPlaneIpAddr, value: 10.0.0.1}]}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: two, namespace: '${NAMESPACE}'}
spec:
  clusterNetwork: {services: {cidrBlocks: [172.30.0.0/16]}}
  topology: {classRef: {name: k}, variables: [{name: controlPlaneIpAddr, value: 10.0.0.2}]}
";

#[test]
fn a_class_has_what_all_of_its_clusters_have_and_each_cluster_its_own() {
    let in_v1beta1 = CLASS
        .replace("cluster.x-k8s.io/v1beta2\nkind: C", "cluster.x-k8s.io/v1beta1\nkind: C")
        .replace("templateRef: {", "ref: {")
        .replace("      bootstrap:", "      template:\n       bootstrap:")
        .replace("      infrastructure:", "       infrastructure:")
        .replace("classRef: {name: k}", "class: k");
    for text in [CLASS, &in_v1beta1] {
        let manifests = stream(text);
        let groups = derived(&manifests);
        let names: Vec<_> = groups
            .iter()
            .map(|group| (named(&manifests, group.cluster), named(&manifests, group.class)))
            .collect();
        assert_eq!(names, [("", "k"), ("one", "k"), ("two", "k")]);
        let (class, clusters) = groups.split_first().unwrap();
        assert_eq!(
            configured(&manifests, class),
            ["KubeadmControlPlaneTemplate ${NAMESPACE}/k-cp", "KubeadmConfigTemplate ${NAMESPACE}/k-worker"]
        );
        let of_class = [".svc", "vc.corp.example", "etcd.corp.example"];
        assert_eq!(class.entries.iter().map(|entry| &*entry.text).collect::<Vec<_>>(), of_class);
        assert_eq!(
            rules(&class.notes).iter().map(|(rule, _)| *rule).collect::<Vec<_>>(),
            ["left-to-the-cluster", "missing-object"]
        );
        for cluster in clusters {
            assert!(cluster.configurations.is_empty());
            let texts: Vec<&str> = cluster.entries.iter().map(|entry| &*entry.text).collect();
            assert!(of_class.iter().all(|text| texts.contains(text)), "{texts:?}");
        }
        assert_eq!(texts(&clusters[0], FactSource::TopologyVariables), ["10.0.0.1"]);
        assert_eq!(texts(&clusters[0], FactSource::ClusterNetwork), ["10.96.0.0/12", "10.96.0.1"]);
        assert_eq!(texts(&clusters[1], FactSource::TopologyVariables), ["10.0.0.2"]);
        assert_eq!(texts(&clusters[1], FactSource::ClusterNetwork), ["172.30.0.0/16", "172.30.0.1"]);
    }
}

#[test]
fn what_no_cluster_refers_to_stands_by_itself() {
    let worker = |cluster: &str| {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2",
            "kind": "MachineDeployment",
            "metadata": {"name": cluster, "namespace": "a"},
            "spec": {"clusterName": cluster, "template": {"spec": {"bootstrap": {"configRef": {
                "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfigTemplate", "name": cluster,
            }}}}},
        })
    };
    let template = |name: &str, labels: Json| {
        json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2",
            "kind": "KubeadmConfigTemplate",
            "metadata": {"name": name, "namespace": "a", "labels": labels},
            "spec": {"template": {"spec": {}}},
        })
    };
    let label = json!({"cluster.x-k8s.io/cluster-name": "gone"});
    let mut labelled = control_plane("gone", &static_pod(&kube_vip("10.0.0.5")));
    labelled["metadata"]["labels"] = label.clone();
    let manifests = objects(&[
        template("alone", Json::Null),
        worker("gone"),
        template("gone", Json::Null),
        labelled,
        template("other", json!({"cluster.x-k8s.io/cluster-name": "other"})),
    ]);
    let groups = derived(&manifests);
    let all: Vec<_> = groups
        .iter()
        .map(|group| (configured(&manifests, group).join(", "), texts(group, FactSource::KubeVip)))
        .collect();
    assert_eq!(
        all,
        [
            ("KubeadmConfigTemplate a/alone".to_owned(), vec![]),
            // They name the same cluster, so they share what is known of it.
            ("KubeadmConfigTemplate a/gone, KubeadmControlPlane a/gone".to_owned(), vec!["10.0.0.5"]),
            ("KubeadmConfigTemplate a/other".to_owned(), vec![]),
        ]
    );
    assert!(groups.iter().all(|group| group.notes.iter().any(|note| note.rule == "no-cluster")));
}

#[test]
fn what_is_not_there_is_a_note_that_says_what_is_not_derived() {
    let mut topology = cluster("t");
    topology["spec"] = json!({"topology": {"classRef": {"name": "k"}}});
    let manifests = objects(&[cluster("c"), topology]);
    let notes: Vec<String> = derived(&manifests).iter().flat_map(|group| shown(&group.notes)).collect();
    assert_eq!(
        notes,
        [
            "c.yaml, document 1, Cluster a/c, spec.controlPlaneEndpoint: no endpoint of the API server is known, so it is \
             not in the list: write it here, or into a preset if the infrastructure provider chooses it [no-endpoint]",
            "c.yaml, document 1, Cluster a/c, spec.controlPlaneRef: KubeadmControlPlane c is not among the documents: what \
             it says is not in the list, and the list is not in it [missing-object]",
            "c.yaml, document 1, Cluster a/c, spec.infrastructureRef: VSphereCluster c is not among the documents: its \
             vCenter and its endpoint are not in the list [missing-object]",
            "c.yaml, document 2, Cluster a/t, spec.controlPlaneEndpoint: no endpoint of the API server is known, so it is \
             not in the list: write it here, or into a preset if the infrastructure provider chooses it [no-endpoint]",
            "c.yaml, document 2, Cluster a/t, spec.topology.classRef.name: ClusterClass k is not among the documents: what \
             its templates say is not in the list, and the list is not in them [missing-object]",
        ]
    );
}

#[test]
fn pools_of_metal3_are_found_by_name_by_labels_and_by_cluster() {
    const NAME: &str = "cluster.x-k8s.io/ip-pool-name";
    const GROUP: &str = "cluster.x-k8s.io/ip-pool-group";
    const NETWORK: &str = "cluster.x-k8s.io/network-name";
    let pool = |name: &str, namespace: &str, labels: Json, net: u8, cluster: &str| {
        json!({
            "apiVersion": "ipam.metal3.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"clusterName": cluster, "pools": [{"start": format!("10.{net}.0.9"), "end": format!("10.{net}.0.9"), "prefix": 16}]},
        })
    };
    let pools = [
        pool("one", "a", json!({GROUP: "dev", NETWORK: "vm"}), 1, ""),
        pool("two", "a", json!({GROUP: "dev", NETWORK: "other"}), 2, ""),
        pool("one", "ipam", json!({GROUP: "dev", NETWORK: "vm"}), 3, "x"),
        pool("four", "a", Json::Null, 4, "c"),
        pool("five", "a", Json::Null, 5, "d"),
    ];
    let cases: [(Json, &str, &[&str], bool); 7] = [
        (json!({NAME: "one"}), "", &["10.4.0.0/16", "10.1.0.0/16"], false),
        (json!({NAME: "one", GROUP: "dev"}), "", &["10.4.0.0/16", "10.1.0.0/16"], false),
        (json!({GROUP: "dev"}), "", &["10.4.0.0/16", "10.1.0.0/16", "10.2.0.0/16"], false),
        (json!({GROUP: "dev", NETWORK: "vm"}), "", &["10.4.0.0/16", "10.1.0.0/16"], false),
        (json!({GROUP: "dev", NETWORK: "vm"}), "ipam", &["10.4.0.0/16", "10.3.0.0/16"], false),
        (json!({NAME: "gone"}), "", &["10.4.0.0/16"], true),
        (Json::Null, "", &["10.4.0.0/16"], false),
    ];
    for (labels, namespace, expected, is_missing) in cases {
        let mut own = cluster("c");
        if !namespace.is_empty() {
            own["metadata"]["annotations"] = json!({"cluster.x-k8s.io/ip-pool-namespace": namespace});
        }
        let mut template = machines("c", &json!([]));
        template["metadata"]["labels"] = labels.clone();
        let mut all = vec![own, control_plane("c", &json!({})), template];
        all.extend(pools.clone());
        let group = derived(&objects(&all)).remove(0);
        let mut expected = expected.to_vec();
        let mut found = texts(&group, FactSource::Pools);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{labels}");
        let notes = rules(&group.notes).contains(&("missing-object", "metadata.labels"));
        assert_eq!(notes, is_missing, "{labels}");
    }
}

#[test]
fn two_clusters_that_share_a_configuration_are_an_error_that_names_both() {
    let mut other = cluster("d");
    other["spec"]["controlPlaneRef"]["name"] = json!("c");
    let manifests = objects(&[cluster("c"), other, control_plane("c", &json!({}))]);
    assert_eq!(
        wrong(&manifests),
        [
            "c.yaml, document 2, Cluster a/d, spec.controlPlaneRef: KubeadmControlPlane a/c is also what Cluster a/c \
             (c.yaml, document 1) uses, and one object can hold the list of one cluster only: give Cluster a/d its own \
             [shared-configuration]"
        ]
    );
    let worker = |cluster: &str| {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta1",
            "kind": "MachineDeployment",
            "metadata": {"name": cluster, "namespace": "a"},
            "spec": {"clusterName": cluster, "template": {"spec": {"bootstrap": {"configRef": {
                "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta1", "kind": "KubeadmConfigTemplate", "name": "shared",
            }}}}},
        })
    };
    let template = json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta1",
        "kind": "KubeadmConfigTemplate",
        "metadata": {"name": "shared", "namespace": "a"},
    });
    let errors = wrong(&objects(&[cluster("c"), cluster("d"), worker("c"), worker("d"), template]));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "c.yaml, document 4, MachineDeployment a/d, spec.template.spec.bootstrap.configRef: KubeadmConfigTemplate \
             a/shared is also what Cluster a/c "
        ),
        "{errors:?}"
    );
    // The same cluster twice is one cluster.
    let twice = objects(&[cluster("c"), cluster("c"), control_plane("c", &json!({}))]);
    let groups = derived(&twice);
    assert_eq!(groups.len(), 1);
    assert_eq!(configured(&twice, &groups[0]), ["KubeadmControlPlane a/c"]);
}

#[test]
fn wrong_types_and_texts_are_errors_that_name_the_field_and_show_no_value() {
    let with = |spec: Json| {
        let mut cluster = cluster("c");
        cluster["spec"] = spec;
        cluster
    };
    let network = |network: Json| with(json!({"clusterNetwork": network}));
    let pooled = |spec: Json| pool("p", &spec);
    let cases = [
        (network(json!([])), "spec.clusterNetwork: expected a mapping"),
        (
            network(json!({"pods": {"cidrBlocks": "10.0.0.0/8"}})),
            "spec.clusterNetwork.pods.cidrBlocks: expected a list",
        ),
        (
            network(json!({"pods": {"cidrBlocks": [5]}})),
            "spec.clusterNetwork.pods.cidrBlocks[0]: expected text",
        ),
        (
            network(json!({"services": {"cidrBlocks": ["s3cret"]}})),
            "spec.clusterNetwork.services.cidrBlocks[0]: expected a network, as in 10.0.0.0/16",
        ),
        (
            network(json!({"serviceDomain": "s3cret!"})),
            "spec.clusterNetwork.serviceDomain: expected a domain, as in cluster.local",
        ),
        (
            with(json!({"controlPlaneEndpoint": {"host": "me:s3cret@host"}})),
            "spec.controlPlaneEndpoint.host: expected the name of a host or an IP address",
        ),
        (with(json!({"controlPlaneRef": "s3cret"})), "spec.controlPlaneRef: expected a mapping"),
        (
            control_plane("c", &json!({"files": {"path": "/a"}})),
            "spec.kubeadmConfigSpec.files: expected a list",
        ),
        (
            pooled(json!({"addresses": ["10.0.0.300"]})),
            "spec.addresses[0]: expected an address, two with - between them, or a network, as in 10.0.0.10-10.0.0.20",
        ),
        (
            pooled(json!({"addresses": ["10.0.0.9-10.0.0.1"]})),
            "spec.addresses[0]: expected an address, two with - between",
        ),
        (pooled(json!({"prefix": "24"})), "spec.prefix: expected a number"),
        (pooled(json!({"prefix": 129})), "spec.prefix: expected the length of a prefix, from 1 to 128"),
        (
            pooled(json!({"prefix": 64, "gateway": "10.0.0.1"})),
            "spec.prefix: expected the length of a prefix, up to 32 for IPv4",
        ),
        (pooled(json!({"gateway": "router"})), "spec.gateway: expected an IP address, as in 10.0.0.1"),
        (
            pooled(json!({"start": "10.0.0.9", "end": "10.0.0.1"})),
            "spec.start: expected a first address that is not behind the last one",
        ),
    ];
    for (object, expected) in cases {
        let manifests = objects(std::slice::from_ref(&object));
        let errors = wrong(&manifests);
        let expected = format!("c.yaml, document 1, {}, {expected}", manifests.objects()[0]);
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{object}: {errors:?}");
        assert!(!errors[0].contains("s3cret"), "{errors:?}");
    }
    let selector = vsphere(
        "c",
        &json!({"failureDomainSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
    );
    let errors = wrong(&objects(&[cluster("c"), selector]));
    assert!(errors[0].contains("spec.failureDomainSelector: expected a label selector"), "{errors:?}");
}

/// Everything at once, in the order of a permutation.
fn everything(order: &[usize]) -> Manifests {
    let texts = [VERSIONS, CLASS];
    let mut all: Vec<Object> = texts.iter().flat_map(|text| stream(text).objects().to_vec()).collect();
    let spec = json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24});
    all.extend(with_pool("10.0.0.5", &static_pod(&kube_vip("10.0.0.6")), &spec).objects().to_vec());
    Manifests::new(order.iter().map(|at| all[at % all.len()].clone()).collect())
}

/// What is found of each cluster, whatever its place.
fn by_name(manifests: &Manifests) -> Vec<String> {
    let mut all: Vec<String> = derived(manifests)
        .iter()
        .map(|group| {
            let shown = |entry: &Entry| {
                let object = entry.object.map(|index| manifests.objects()[index].to_string());
                format!("{} {:?} {object:?} {} {}", entry.text, entry.from, entry.field, entry.why)
            };
            let entries: Vec<String> = group.entries.iter().map(shown).collect();
            let mut configured = configured(manifests, group);
            configured.sort();
            let names = (named(manifests, group.cluster), named(manifests, group.class));
            format!("{names:?} {configured:?} {entries:?} {} notes", group.notes.len())
        })
        .collect();
    all.sort();
    all
}

const EVERYTHING: usize = 25;

proptest! {
    #[test]
    fn the_order_of_documents_changes_nothing(order in Just((0..EVERYTHING).collect::<Vec<_>>()).prop_shuffle()) {
        let in_order = everything(&(0..EVERYTHING).collect::<Vec<_>>());
        prop_assert_eq!(by_name(&everything(&order)), by_name(&in_order));
    }
}

#[test]
fn everything_is_in_the_permutation() {
    let manifests = everything(&(0..EVERYTHING).collect::<Vec<_>>());
    assert_eq!(derived(&manifests).len(), 5);
    assert_eq!(manifests.objects()[0], everything(&[EVERYTHING]).objects()[0]);
}

#[test]
fn no_value_of_an_object_is_in_debug_output() {
    let manifests = objects(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "s3cret"}}),
        control_plane("c", &json!({"files": [{"path": "/etc/x", "content": "s3cret"}]})),
    ]);
    let shown = format!("{manifests:?} {:?}", derived(&manifests));
    assert!(shown.contains("KubeadmControlPlane a/c") && !shown.contains("s3cret"), "{shown}");
}
