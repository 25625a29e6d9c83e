//! Each source of entries.

use clap::ValueEnum as _;
use proptest::prelude::*;

use super::*;

#[test]
fn a_cluster_says_its_networks_and_what_it_does_not_say_is_kubeadms_default() {
    let written = json!({
        "pods": {"cidrBlocks": ["192.168.3.1/16", "FD00:0:1::/48"]},
        "services": {"cidrBlocks": ["172.30.0.0/16", "fd00:2::/112"]},
        "serviceDomain": "corp.internal.",
    });
    let one = |network: Json| {
        let mut cluster = cluster("c");
        cluster["spec"]["clusterNetwork"] = network;
        derived(&objects(&[cluster])).remove(0)
    };
    let group = one(written);
    assert_eq!(
        texts(&group, FactSource::ClusterNetwork),
        ["192.168.0.0/16", "fd00:0:1::/48", "172.30.0.0/16", "172.30.0.1", "fd00:2::/112", "fd00:2::1"]
    );
    assert_eq!(texts(&group, FactSource::ServiceDomain), [".svc", ".corp.internal"]);
    let service = &group.entries[3];
    assert_eq!((service.object, &*service.field), (Some(0), "spec.clusterNetwork.services.cidrBlocks[0]"));

    for network in [Json::Null, json!({}), json!({"pods": null, "services": null, "serviceDomain": ""})] {
        let group = one(network);
        assert_eq!(texts(&group, FactSource::ClusterNetwork), ["10.96.0.0/12", "10.96.0.1"]);
        assert_eq!(texts(&group, FactSource::ServiceDomain), [".svc", ".cluster.local"]);
        let whys: Vec<&str> = group.entries.iter().map(|entry| entry.why).collect();
        assert!(whys[0].contains("kubeadm's default") && whys[3].contains("kubeadm's default"), "{whys:?}");
    }

    // Another provider of control planes has other defaults.
    let mut other = cluster("c");
    other["spec"]["clusterNetwork"] = Json::Null;
    other["spec"]["controlPlaneRef"]["kind"] = json!("RKE2ControlPlane");
    let group = derived(&objects(&[other])).remove(0);
    assert_eq!(group.entries.iter().map(|entry| &*entry.text).collect::<Vec<_>>(), [".svc"]);
}

#[test]
fn a_configuration_of_v1beta1_says_networks_beside_those_of_the_cluster() {
    let mut cluster = cluster("c");
    cluster["spec"]["clusterNetwork"] = Json::Null;
    let networking = json!({"serviceSubnet": "172.30.0.0/16, fd00:2::/112", "podSubnet": "172.31.0.0/16", "dnsDomain": "k8s.corp"});
    let config = json!({"clusterConfiguration": {"networking": networking, "controlPlaneEndpoint": "api.corp.example:6443"}});
    let group = derived(&objects(&[cluster, control_plane("c", &config)])).remove(0);
    assert_eq!(
        texts(&group, FactSource::ClusterNetwork),
        [
            "10.96.0.0/12",
            "10.96.0.1",
            "172.30.0.0/16",
            "172.30.0.1",
            "fd00:2::/112",
            "fd00:2::1",
            "172.31.0.0/16"
        ]
    );
    assert_eq!(texts(&group, FactSource::ServiceDomain), [".svc", ".cluster.local", ".k8s.corp"]);
    assert_eq!(texts(&group, FactSource::ControlPlaneEndpoint), ["api.corp.example"]);
}

#[test]
fn vsphere_says_endpoint_and_vcenters_without_scheme_and_port() {
    let zone = |name: &str, labels: Json, server: &str| {
        json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1",
            "kind": "VSphereDeploymentZone",
            "metadata": {"name": name, "labels": labels},
            "spec": {"server": server, "failureDomain": name},
        })
    };
    let domain = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1",
        "kind": "VSphereFailureDomain",
        "metadata": {"name": "z1"},
        "spec": {"topology": {
            "hosts": {"vmGroupName": "vms", "hostGroupName": "hosts.corp.example"},
            "networkConfigurations": [{"networkName": "n", "addressesFromPools": [
                {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "GlobalInClusterIPPool", "name": "g"},
            ]}],
        }},
    });
    let global = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha2",
        "kind": "GlobalInClusterIPPool",
        "metadata": {"name": "g"},
        "spec": {"addresses": ["10.3.0.10-10.3.0.20"], "prefix": 24},
    });
    let worker = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "MachineDeployment",
        "metadata": {"name": "md", "namespace": "a"},
        "spec": {"clusterName": "c", "template": {"spec": {"failureDomain": "z3"}}},
    });
    let with = |selector: Json| {
        let spec = json!({
            "server": "https://vc.corp.example:443/sdk",
            "controlPlaneEndpoint": {"host": "10.0.0.5", "port": 6443},
            "failureDomainSelector": selector,
        });
        let manifests = objects(&[
            cluster("c"),
            vsphere("c", &spec),
            machines("c", &json!([])),
            zone("z1", json!({"site": "one"}), "vc1.corp.example"),
            zone("z2", json!({"site": "two"}), "vc2.corp.example:443"),
            zone("z3", json!({"site": "none"}), "vc3.corp.example"),
            domain.clone(),
            global.clone(),
            worker.clone(),
        ]);
        derived(&manifests).remove(0)
    };
    let everything = with(json!({}));
    assert_eq!(texts(&everything, FactSource::ControlPlaneEndpoint), ["10.0.0.5"]);
    assert_eq!(
        texts(&everything, FactSource::Vcenter),
        ["vc.corp.example", "vc1.corp.example", "vc2.corp.example", "vc3.corp.example"]
    );
    assert_eq!(texts(&everything, FactSource::Pools), ["10.3.0.0/24"]);
    let one = with(json!({"matchLabels": {"site": "two"}}));
    assert_eq!(texts(&one, FactSource::Vcenter), ["vc.corp.example", "vc2.corp.example", "vc3.corp.example"]);
    assert!(texts(&one, FactSource::Pools).is_empty());
    // Without a selector, a cluster has none but those that its machines name.
    assert_eq!(texts(&with(Json::Null), FactSource::Vcenter), ["vc.corp.example", "vc3.corp.example"]);
    let not_one = with(json!({"matchExpressions": [{"key": "site", "operator": "In", "values": ["x"]}]}));
    assert!(rules(&not_one.notes).contains(&("missing-object", "spec.failureDomainSelector")));
}

#[test]
fn kube_vip_says_the_virtual_address_in_every_form() {
    let encoded = base64_simd::STANDARD.encode_to_string(kube_vip("10.0.0.6"));
    let old = kube_vip("10.0.0.7").replace("name: address", "name: vip_address");
    let file = |path: &str, content: &str, encoding: &str| json!({"files": [{"path": path, "content": content, "encoding": encoding}]});
    let path = "/etc/kubernetes/manifests/vip.yml";
    let cases: [(Json, &[&str], &[&str]); 7] = [
        (file(path, &kube_vip("10.0.0.5"), ""), &["10.0.0.5"], &[]),
        (file(path, &encoded, "base64"), &["10.0.0.6"], &[]),
        (file(path, &old, ""), &["10.0.0.7"], &[]),
        (file(path, &kube_vip("${VIP:-10.0.0.8}"), ""), &["${VIP:-10.0.0.8}"], &[]),
        (file("/etc/other.yaml", &kube_vip("10.0.0.5"), ""), &[], &[]),
        (file(path, "kube-vip: [", ""), &[], &["unread"]),
        (file("/etc/kubernetes/manifests/kube-vip.yaml", "H4sI", "gzip+base64"), &[], &["unread"]),
    ];
    for (config, expected, notes) in cases {
        let manifests = objects(&[control_plane("c", &config)]);
        let group = derived(&manifests).remove(0);
        assert_eq!(texts(&group, FactSource::KubeVip), expected, "{config}");
        let unread: Vec<&str> =
            group.notes.iter().map(|note| note.rule).filter(|rule| *rule == "unread").collect();
        assert_eq!(unread, notes, "{config}");
    }
    // Other static pods have variables of this name, too.
    let other = kube_vip("10.0.0.5").replace("kube-vip", "keepalived");
    let group = derived(&objects(&[control_plane("c", &static_pod(&other))])).remove(0);
    assert!(texts(&group, FactSource::KubeVip).is_empty());
}

#[test]
fn etcd_elsewhere_and_old_load_balancers_are_hosts() {
    let endpoints =
        json!(["https://etcd-1.corp.example:2379", "https://10.0.0.21:2379", "https://[fd00::21]:2379"]);
    let config = json!({"clusterConfiguration": {"etcd": {"external": {"endpoints": endpoints}}}});
    let group = derived(&objects(&[control_plane("c", &config)])).remove(0);
    assert_eq!(texts(&group, FactSource::Etcd), ["etcd-1.corp.example", "10.0.0.21", "fd00::21"]);

    let old = stream(
        "apiVersion: cluster.x-k8s.io/v1alpha3
kind: Cluster
metadata: {name: c}
spec:
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha3, kind: VSphereCluster, name: c}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha3
kind: VSphereCluster
metadata: {name: c}
spec:
  server: vc.corp.example
  loadBalancerRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha3, kind: HAProxyLoadBalancer, name: lb}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha3
kind: HAProxyLoadBalancer
metadata: {name: lb}
spec:
  virtualMachineConfiguration:
    network:
      devices:
      - ipAddrs: [10.0.0.30/24]
status:
  address: 10.0.0.31
",
    );
    let group = derived(&old).remove(0);
    assert_eq!(texts(&group, FactSource::LoadBalancer), ["10.0.0.30", "10.0.0.31"]);
    assert!(!rules(&group.notes).iter().any(|(rule, _)| *rule == "no-endpoint"));
}

#[test]
fn templates_of_machines_say_addresses_in_each_mode() {
    let devices = json!([
        {"ipAddrs": ["10.10.192.1/18", "10.10.192.2/18"], "gateway4": "10.10.192.254"},
        {"ipAddrs": ["fd00::5/64", "10.9.0.1"]},
    ]);
    let manifests = objects(&[cluster("c"), control_plane("c", &json!({})), machines("c", &devices)]);
    let of = |mode| {
        let group = in_mode(&manifests, mode).remove(0);
        texts(&group, FactSource::Machines).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(NodeRanges::Subnet), ["10.10.192.0/18", "10.10.192.254", "fd00::/64", "10.9.0.1"]);
    assert_eq!(of(NodeRanges::Exact), ["10.10.192.1", "10.10.192.2", "10.10.192.254", "fd00::5", "10.9.0.1"]);
    assert!(of(NodeRanges::None).is_empty());
}

#[test]
fn pools_say_addresses_in_each_mode() {
    let metal3 =
        |spec: Json| json!({"apiVersion": "ipam.metal3.io/v1alpha1", "kind": "IPPool", "spec": spec});
    let in_cluster = |version: &str, kind: &str, spec: Json| json!({"apiVersion": format!("ipam.cluster.x-k8s.io/{version}"), "kind": kind, "spec": spec});
    let v2 = |spec: Json| in_cluster("v1alpha2", "InClusterIPPool", spec);
    let v1 = |spec: Json| in_cluster("v1alpha1", "InClusterIPPool", spec);
    let cases: [(Json, &[&str], &[&str]); 13] = [
        (
            v2(json!({"addresses": ["10.16.56.88-10.16.56.93"], "prefix": 24, "gateway": "10.16.56.1"})),
            &["10.16.56.0/24"],
            &["10.16.56.88/30", "10.16.56.92/31"],
        ),
        (
            v2(json!({"addresses": ["10.0.0.10", "10.0.0.11", "10.0.0.64/26"], "prefix": 24})),
            &["10.0.0.0/24"],
            &["10.0.0.10/31", "10.0.0.64/26"],
        ),
        // A pool that is still empty: the gateway says where its machines will be.
        (v2(json!({"addresses": [], "prefix": 18, "gateway": "10.10.100.1"})), &["10.10.64.0/18"], &[]),
        // What is outside of the pool's network is there all the same.
        (
            v2(json!({"addresses": ["10.0.0.5", "10.0.9.5"], "prefix": 24})),
            &["10.0.0.0/24", "10.0.9.5"],
            &["10.0.0.5", "10.0.9.5"],
        ),
        (v2(json!({"addresses": ["fd00::10-fd00::1f"], "prefix": 64})), &["fd00::/64"], &["fd00::10/124"]),
        (v1(json!({"subnet": "10.0.0.0/29"})), &["10.0.0.0/29"], &["10.0.0.1", "10.0.0.2/31", "10.0.0.4/30"]),
        (
            v1(json!({"start": "10.0.0.4", "end": "10.0.0.7", "prefix": 24})),
            &["10.0.0.0/24"],
            &["10.0.0.4/30"],
        ),
        (v1(json!({"addresses": ["10.0.0.4"]})), &["10.0.0.4"], &["10.0.0.4"]),
        (
            in_cluster(
                "v1alpha2",
                "InClusterPrefixPool",
                json!({"prefixes": ["fd00:1::/48", "fd00:2::/48"]}),
            ),
            &["fd00:1::/48", "fd00:2::/48"],
            &["fd00:1::/48", "fd00:2::/48"],
        ),
        // A part takes from the pool what it does not say itself.
        (
            metal3(json!({
                "pools": [
                    {"start": "10.10.100.20", "end": "10.10.100.23"},
                    {"start": "10.20.0.5", "end": "10.20.0.5", "prefix": 24, "gateway": "10.20.0.1"},
                ],
                "prefix": 18,
                "gateway": "10.10.100.1",
            })),
            &["10.10.64.0/18", "10.20.0.0/24"],
            &["10.10.100.20/30", "10.20.0.5"],
        ),
        (
            metal3(
                json!({"pools": [{"subnet": "192.168.0.0/30"}], "preAllocations": {"a": "192.168.0.2", "b": "10.1.1.1"}}),
            ),
            &["192.168.0.0/30", "10.1.1.1"],
            &["10.1.1.1", "192.168.0.1", "192.168.0.2/31"],
        ),
        (
            metal3(json!({"pools": [{"subnet": "10.0.0.0/24", "start": "10.0.0.254"}]})),
            &["10.0.0.0/24"],
            &["10.0.0.254/31"],
        ),
        (metal3(json!({"namePrefix": "x"})), &[], &[]),
    ];
    for (mut pool, subnet, exact) in cases {
        pool["metadata"] = json!({"name": "p", "namespace": "a"});
        let (group, kind) = (pool["apiVersion"].as_str().unwrap().split('/').next().unwrap(), &pool["kind"]);
        let devices = json!([{"addressesFromPools": [{"apiGroup": group, "kind": kind, "name": "p"}]}]);
        let manifests =
            objects(&[cluster("c"), control_plane("c", &json!({})), machines("c", &devices), pool.clone()]);
        let of = |mode| {
            let group = in_mode(&manifests, mode).remove(0);
            texts(&group, FactSource::Pools).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(NodeRanges::Subnet), subnet, "{pool}");
        assert_eq!(of(NodeRanges::Exact), exact, "{pool}");
        assert!(of(NodeRanges::None).is_empty(), "{pool}");
    }
}

#[test]
fn variables_of_a_class_are_hosts() {
    let class = stream(
        "apiVersion: cluster.x-k8s.io/v1beta1
kind: ClusterClass
metadata: {name: k, namespace: a}
spec:
  variables:
  - name: infraServer
    schema: {openAPIV3Schema: {type: object, default: {url: 'https://vc.corp.example'}}}
  - name: controlPlaneIpAddr
    schema: {openAPIV3Schema: {type: string, default: 10.0.0.99}}
",
    );
    let with = |variables: Json| {
        let cluster = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": "c", "namespace": "a"},
            "spec": {"topology": {"class": "k", "variables": variables}},
        });
        let mut all = class.objects().to_vec();
        all.push(Object::new(Source { file: "d.yaml".to_owned(), document: 1 }, cluster));
        let manifests = Manifests::new(all);
        derived(&manifests).remove(1)
    };
    let group = with(json!([
        {"name": "controlPlaneIpAddr", "value": "10.0.0.5"},
        {"name": "controlPlanePort", "value": 6443},
        {"name": "kubeVipPodManifest", "value": kube_vip("10.0.0.6")},
        {"name": "credsSecretName", "value": "secret.corp.example"},
    ]));
    assert_eq!(group.class, Some(0));
    assert_eq!(texts(&group, FactSource::TopologyVariables), ["10.0.0.5", "10.0.0.6", "vc.corp.example"]);
    // A variable of another class may have the same name.
    let other = with(
        json!([{"name": "controlPlaneIpAddr", "value": 5}, {"name": "infraServer", "value": "not a host"}]),
    );
    assert!(texts(&other, FactSource::TopologyVariables).is_empty());
    assert!(rules(&other.notes).contains(&("no-endpoint", "spec.controlPlaneEndpoint")));
}

#[test]
fn a_variable_is_an_entry_and_nothing_is_computed_from_it() {
    let mut cluster = cluster("${CLUSTER_NAME}");
    cluster["spec"]["clusterNetwork"] = json!({
        "pods": {"cidrBlocks": "${POD_CIDR:=[\"192.168.0.0/16\"]}"},
        "services": {"cidrBlocks": ["${SERVICES}"]},
        "serviceDomain": "${DOMAIN:=\"cluster.local\"}",
    });
    let manifests = objects(&[
        cluster,
        vsphere(
            "${CLUSTER_NAME}",
            &json!({
                "server": "https://${VSPHERE_SERVER}/sdk",
                "controlPlaneEndpoint": {"host": "${IP}", "port": "${PORT:=6443}"},
            }),
        ),
        control_plane("${CLUSTER_NAME}", &json!({})),
        machines(
            "${CLUSTER_NAME}",
            &json!([{"ipAddrs": ["${A}/24"], "addressesFromPools": [
                {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "${CLUSTER_NAME}"},
                {"apiGroup": "${GROUP}", "kind": "${KIND}", "name": "${POOL}"},
            ]}]),
        ),
        pool(
            "${CLUSTER_NAME}",
            &json!({"addresses": ["${IP_1}"], "prefix": "${PREFIX:-24}", "gateway": "${GATEWAY}"}),
        ),
    ]);
    let all = |mode| {
        let group = in_mode(&manifests, mode).remove(0);
        let texts: Vec<String> = group.entries.iter().map(|entry| entry.text.clone()).collect();
        (texts, rules(&group.notes).iter().map(|(rule, field)| format!("{rule} {field}")).collect::<Vec<_>>())
    };
    let (texts, notes) = all(NodeRanges::Subnet);
    assert_eq!(texts, ["${SERVICES}", ".svc", "${IP}", "${VSPHERE_SERVER}", "vc.corp.example"]);
    assert_eq!(
        notes,
        [
            "unresolved-variable spec.clusterNetwork.pods.cidrBlocks",
            "unresolved-variable spec.clusterNetwork.serviceDomain",
            "unresolved-variable spec.clusterNetwork.services.cidrBlocks[0]",
            "missing-object spec.template.spec.network.devices[0].addressesFromPools[1]",
            "unresolved-variable spec.template.spec.network.devices[0].ipAddrs[0]",
            "unresolved-variable spec.addresses[0]",
            "unresolved-variable spec.gateway",
            "unresolved-variable spec.prefix",
        ]
    );
    let (texts, _) = all(NodeRanges::Exact);
    assert_eq!(
        texts,
        ["${SERVICES}", ".svc", "${IP}", "${VSPHERE_SERVER}", "vc.corp.example", "${A}", "${IP_1}"]
    );
}

#[test]
fn what_is_not_known_of_a_pool_is_told_only_where_it_matters() {
    let notes = |spec: Json, mode| {
        let group = in_mode(&with_pool("10.0.0.5", &json!({}), &spec), mode).remove(0);
        rules(&group.notes).iter().map(|(_, field)| (*field).to_owned()).collect::<Vec<_>>()
    };
    let gateway = json!({"addresses": ["10.0.0.9"], "prefix": 24, "gateway": "${GATEWAY}"});
    let prefix = json!({"addresses": ["10.0.0.9"], "prefix": "${PREFIX}"});
    let address = json!({"addresses": ["10.0.0.9", "${FROM}-${TO}"], "prefix": 24});
    let none = Vec::<String>::new();
    assert_eq!(notes(gateway, NodeRanges::Subnet), none);
    assert_eq!(notes(prefix.clone(), NodeRanges::Subnet), ["spec.prefix"]);
    assert_eq!(notes(prefix, NodeRanges::Exact), none);
    // The network is known by the other address.
    assert_eq!(notes(address.clone(), NodeRanges::Subnet), none);
    assert_eq!(notes(address.clone(), NodeRanges::None), none);
    assert_eq!(notes(address, NodeRanges::Exact), ["spec.addresses[1]"]);
}

#[test]
fn sources_can_be_left_out() {
    let manifests = with_pool("10.0.0.5", &json!({}), &json!({"addresses": ["10.0.0.10"], "prefix": 24}));
    let of = |without: &[&str]| {
        let without = without.iter().map(|name| FactSource::from_str(name, false).unwrap()).collect();
        let groups = groups(&manifests, &Options { node_ranges: NodeRanges::Subnet, without }).unwrap();
        groups[0].entries.iter().map(|entry| entry.text.clone()).collect::<Vec<_>>().join(",")
    };
    assert_eq!(
        of(&[]),
        "172.20.0.0/16,172.21.0.0/16,172.21.0.1,.svc,.cluster.local,10.0.0.5,vc.corp.example,10.0.0.0/24"
    );
    assert_eq!(of(&["cluster-network", "pools", "vcenter"]), ".svc,.cluster.local,10.0.0.5");
    let documented = include_str!("../../../../docs/hosts.md");
    for source in FactSource::value_variants() {
        assert!(documented.contains(&format!("\n| `{}` |", source.name())), "{source:?}");
    }
    assert!(
        FactSource::value_variants()
            .iter()
            .all(|source| FactSource::from_str(&source.name(), false) == Ok(*source))
    );
}

#[test]
fn moving_addresses_into_a_pool_changes_no_entry() {
    // A predefined range that is taken over machine by machine.
    let addresses: Vec<String> = (20..=30).map(|last| format!("10.10.100.{last}")).collect();
    let lists: Vec<Vec<Entry>> = (0..=addresses.len())
        .map(|moved| {
            let spec = json!({"addresses": addresses[..moved], "prefix": 18, "gateway": "10.10.100.1"});
            derived(&with_pool("10.10.100.10", &json!({}), &spec)).remove(0).entries
        })
        .collect();
    assert!(lists.iter().all(|list| *list == lists[0]));
    assert_eq!(lists[0].last().unwrap().text, "10.10.64.0/18");
}

proptest! {
    #[test]
    fn growing_a_pool_inside_its_network_changes_no_entry(
        prefix in 16_u8..=28,
        base in any::<u32>(),
        has_gateway in any::<bool>(),
        first in any::<u32>(),
        more in prop::collection::vec((any::<u32>(), any::<u32>()), 0..6),
    ) {
        let net = ipnet::Ipv4Net::new(base.into(), prefix).unwrap().trunc();
        let size = 1_u32 << (32 - prefix);
        let address = |at: u32| std::net::Ipv4Addr::from(u32::from(net.addr()) + at % size);
        let spec = |addresses: &[String]| {
            let mut spec = json!({"addresses": addresses, "prefix": prefix});
            if has_gateway {
                spec["gateway"] = json!(address(1).to_string());
            }
            spec
        };
        let entries = |addresses: &[String]| {
            derived(&with_pool("10.0.0.5", &json!({}), &spec(addresses))).remove(0).entries
        };
        let mut addresses = vec![address(first).to_string()];
        let before = entries(&addresses);
        for (from, to) in more {
            let (from, to) = (address(from).min(address(to)), address(from).max(address(to)));
            addresses.insert(0, format!("{from}-{to}"));
            prop_assert_eq!(&entries(&addresses), &before);
        }
    }

    #[test]
    fn exact_networks_hold_the_addresses_of_a_pool_and_nothing_else(
        ranges in prop::collection::vec((0_u32..512, 0_u32..512), 1..5),
    ) {
        let base = u32::from(std::net::Ipv4Addr::new(10, 1, 0, 0));
        let ranges: Vec<(u32, u32)> = ranges.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        let address = |at: u32| std::net::Ipv4Addr::from(base + at);
        let texts_of: Vec<String> =
            ranges.iter().map(|(from, to)| format!("{}-{}", address(*from), address(*to))).collect();
        let spec = json!({"addresses": texts_of, "prefix": 16});
        let group = in_mode(&with_pool("10.0.0.5", &json!({}), &spec), NodeRanges::Exact).remove(0);
        let networks: Vec<ipnet::IpNet> = texts(&group, FactSource::Pools)
            .iter()
            .map(|text| text.parse().unwrap_or_else(|_| text.parse::<std::net::IpAddr>().unwrap().into()))
            .collect();
        for at in 0..512 {
            let is_wanted = ranges.iter().any(|(from, to)| (from..=to).contains(&&at));
            let held = networks.iter().filter(|net| net.contains(&std::net::IpAddr::from(address(at)))).count();
            prop_assert_eq!(held, usize::from(is_wanted), "{}", address(at));
        }
    }
}
