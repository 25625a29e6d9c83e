//! Each check, by what it finds and by what it lets pass.

use std::collections::BTreeSet;

use super::*;
use crate::host::node::StaticPods;

/// A proxy and a list that has everything.
fn proxied() -> Vec<Setting> {
    settings("http://proxy.corp.example:3128", "*")
}

fn found(manifests: &Manifests) -> Vec<Finding> {
    found_with(manifests, &proxied(), false)
}

fn found_with(manifests: &Manifests, settings: &[Setting], static_pods: bool) -> Vec<Finding> {
    let static_pods = if static_pods { StaticPods::Inherit } else { StaticPods::None };
    derived(manifests).iter().flat_map(|group| check(manifests, group, settings, static_pods)).collect()
}

/// What is found in a configuration.
fn in_configuration(config: &Json) -> Vec<(&'static str, String)> {
    let found = found(&objects(&[control_plane("c", config)]));
    let field = |field: &str| field.trim_start_matches("spec.kubeadmConfigSpec.").to_owned();
    found.iter().map(|finding| (finding.rule, field(&finding.field))).collect()
}

fn in_pool(endpoint: &str, vip: &str, spec: &Json) -> Vec<String> {
    shown(&found(&with_pool(endpoint, &static_pod(&kube_vip(vip)), spec)))
}

const POOL: &str = "c.yaml, document 5, InClusterIPPool a/p";

#[test]
fn a_cluster_that_is_right_has_no_findings() {
    let spec = json!({
        "addresses": ["10.0.0.10-10.0.0.20", "10.0.0.5"],
        "excludedAddresses": ["10.0.0.5"],
        "prefix": 24,
        "gateway": "10.0.0.1",
    });
    let mut config = static_pod(&kube_vip("10.0.0.5"));
    config["preKubeadmCommands"] =
        json!(["sh /etc/reach/apply-proxy.sh", "apt-get update && apt-get -y install jq"]);
    config["bootCommands"] = json!(["systemctl stop apt-daily"]);
    let manifests = with_pool("10.0.0.5", &config, &spec);
    let group = derived(&manifests).remove(0);
    let list: Vec<&str> = group.entries.iter().map(|entry| &*entry.text).collect();
    let settings = settings("http://proxy.corp.example:3128", &list.join(","));
    assert_eq!(shown(&check(&manifests, &group, &settings, StaticPods::Explicit)), Vec::<String>::new());
    assert_eq!(shown(&group.notes), Vec::<String>::new());
}

#[test]
fn the_virtual_address_is_the_endpoint_in_the_network_of_machines_and_no_machines() {
    let open = json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": "10.0.0.1"});
    assert_eq!(
        in_pool("10.0.0.5", "10.0.0.6", &open),
        [
            "c.yaml, document 3, KubeadmControlPlane a/c, spec.kubeadmConfigSpec.files[0].content: kube-vip holds \
             10.0.0.6, but spec.controlPlaneEndpoint.host of VSphereCluster a/c says 10.0.0.5, where machines join and \
             nothing answers: write the same in both places [vip-mismatch]"
        ]
    );
    assert_eq!(
        in_pool("10.1.0.5", "10.1.0.5", &open),
        [
            "c.yaml, document 3, KubeadmControlPlane a/c, spec.kubeadmConfigSpec.files[0].content: 10.1.0.5 is in no \
             network of the machines, such as 10.0.0.0/24 (spec.prefix of InClusterIPPool a/p), and kube-vip announces it \
             with ARP, which stays in one network: write an address of the machines' network [vip-outside-nodes]"
        ]
    );
    assert_eq!(
        in_pool("10.0.0.15", "10.0.0.15", &open),
        [
            "c.yaml, document 2, VSphereCluster a/c, spec.controlPlaneEndpoint.host: 10.0.0.15 is what InClusterIPPool a/p \
             may give to a machine: write it among the addresses that the pool excludes [vip-in-pool]"
        ]
    );
    // BGP crosses networks.
    let bgp = kube_vip("10.1.0.5").replace("vip_arp", "bgp_enable");
    assert_eq!(shown(&found(&with_pool("10.1.0.5", &static_pod(&bgp), &open))), Vec::<String>::new());
    // Nobody knows what variables will be.
    assert_eq!(in_pool("${A}", "10.0.0.6", &open), Vec::<String>::new());
    assert_eq!(in_pool("10.0.0.6", "${B}", &open), Vec::<String>::new());
    assert_eq!(in_pool("api.corp.example", "10.0.0.6", &open), Vec::<String>::new());
}

#[test]
fn an_address_that_a_pool_does_not_give_away_is_free() {
    let whole = |more: Json| {
        let mut spec = json!({"addresses": ["10.0.0.0/24"], "prefix": 24});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let is_given = |address: &str, more: Json| {
        in_pool(address, address, &whole(more)).iter().any(|finding| finding.ends_with("[vip-in-pool]"))
    };
    assert!(is_given("10.0.0.5", json!({})));
    assert!(!is_given("10.0.0.5", json!({"excludedAddresses": ["10.0.0.5"]})));
    assert!(!is_given("10.0.0.5", json!({"excludedAddresses": ["10.0.0.0-10.0.0.9"]})));
    assert!(!is_given("10.0.0.5", json!({"gateway": "10.0.0.5"})));
    for reserved in ["10.0.0.0", "10.0.0.255"] {
        assert!(!is_given(reserved, json!({})));
        assert!(is_given(reserved, json!({"allocateReservedIPAddresses": true})));
    }
    // capv-static-ip takes the endpoint itself out of the pool that the VSphereCluster names.
    let labelled = |kind: usize| {
        let labels = json!({"cluster.x-k8s.io/ip-pool-name": "m"});
        let mut all = [
            cluster("c"),
            vsphere("c", &json!({"controlPlaneEndpoint": {"host": "10.0.0.5"}})),
            control_plane("c", &json!({})),
            machines("c", &json!([])),
            json!({
                "apiVersion": "ipam.metal3.io/v1alpha1",
                "kind": "IPPool",
                "metadata": {"name": "m", "namespace": "a"},
                "spec": {"pools": [{"start": "10.0.0.1", "end": "10.0.0.9", "prefix": 24}]},
            }),
        ];
        all[kind]["metadata"]["labels"] = labels;
        rules(&found(&objects(&all))).len()
    };
    assert_eq!((labelled(1), labelled(3)), (0, 1));
}

#[test]
fn networks_do_not_overlap() {
    let with = |pods: &str, services: &str, prefix: u8| {
        let mut manifests =
            with_pool("10.0.0.5", &json!({}), &json!({"addresses": ["10.0.0.10"], "prefix": prefix}));
        manifests.objects[0].value["spec"]["clusterNetwork"] =
            json!({"pods": {"cidrBlocks": [pods]}, "services": {"cidrBlocks": [services]}});
        shown(&found(&manifests))
    };
    let start = "c.yaml, document 1, Cluster a/c, spec.clusterNetwork.";
    let end = "write networks that have no address in common [network-overlap]";
    assert_eq!(with("172.16.0.0/16", "172.17.0.0/16", 24), Vec::<String>::new());
    assert_eq!(
        with("10.0.0.0/8", "172.17.0.0/16", 24),
        [format!(
            "{start}pods.cidrBlocks[0]: 10.0.0.0/8 of pods overlaps 10.0.0.0/24 of machines (spec.prefix of InClusterIPPool \
             a/p): {end}"
        )]
    );
    assert_eq!(
        with("172.16.0.0/16", "172.16.5.0/24", 24),
        [format!(
            "{start}pods.cidrBlocks[0]: 172.16.0.0/16 of pods overlaps 172.16.5.0/24 of Services \
             (spec.clusterNetwork.services.cidrBlocks[0] of Cluster a/c): {end}"
        )]
    );
    assert_eq!(with("fd00::/64", "10.0.0.64/26", 24).len(), 1);
}

#[test]
fn a_pool_has_and_excludes_addresses_of_its_own_network() {
    let spec = json!({
        "addresses": ["10.0.0.2-10.0.0.254", "10.0.1.10"],
        "excludedAddresses": ["10.0.0.3-10.0.1.6", "10.0.0.10", "10.0.0.192/26"],
        "prefix": 24,
    });
    assert_eq!(
        in_pool("10.0.0.1", "10.0.0.1", &spec),
        [
            format!(
                "{POOL}, spec.addresses[1]: 10.0.1.10 is not, or not all, in 10.0.0.0/24, the network of the pool: write a \
                 shorter prefix, or another pool for it [pool-outside-subnet]"
            ),
            format!(
                "{POOL}, spec.excludedAddresses[0]: 10.0.0.3-10.0.1.6 is not, or not all, among the addresses of the pool, \
                 so excluding it does nothing there: write addresses that the pool has [pool-exclusions]"
            ),
            format!(
                "{POOL}, spec.excludedAddresses[2]: 10.0.0.192-10.0.0.255 is not, or not all, among the addresses of the \
                 pool, so excluding it does nothing there: write addresses that the pool has [pool-exclusions]"
            ),
        ]
    );
}

#[test]
fn failure_domains_with_another_vcenter_are_told() {
    let zone = |server: &str| {
        json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
            "kind": "VSphereDeploymentZone",
            "metadata": {"name": "z"},
            "spec": {"server": server, "failureDomain": "z"},
        })
    };
    let worker = |name: &str| {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2",
            "kind": "MachineDeployment",
            "metadata": {"name": "md", "namespace": "a"},
            "spec": {"clusterName": "c", "template": {"spec": {"failureDomain": name}}},
        })
    };
    let with = |server: &str, named: &str| {
        let spec = json!({"server": "vc.corp.example", "failureDomainSelector": {}});
        rules(&found(&objects(&[cluster("c"), vsphere("c", &spec), zone(server), worker(named)]))).len()
    };
    assert_eq!((with("vc.corp.example", ""), with("VC.corp.example", "")), (0, 1));
    // Workers that name it go there all the same.
    assert_eq!((with("VC.corp.example", "z"), with("VC.corp.example", "other")), (0, 1));
}

#[test]
fn proxies_are_looked_at_as_reach_lint_does() {
    let manifests = with_pool("10.0.0.5", &json!({}), &json!({"addresses": ["10.0.0.10"], "prefix": 24}));
    let of = |proxy: &str, list: &str| {
        let found = found_with(&manifests, &settings(proxy, list), false);
        assert!(!shown(&found).concat().contains("s3cret"), "{found:?}");
        found.into_iter().map(|finding| (finding.rule, finding.field)).collect::<Vec<_>>()
    };
    assert_eq!(of("http://me:s3cret@proxy.corp.example:3128", "10.0.0.0/24,.svc,svc"), []);
    assert_eq!(of("proxy.corp.example:3128", ""), [("E7", "http_proxy".to_owned())]);
    assert_eq!(of("http://me:s3cret@x@proxy.corp.example:3128", ""), [("E7", "http_proxy".to_owned())]);
    // The machines' own network, in which the proxy is.
    assert_eq!(of("http://10.0.0.99:3128", "10.0.0.0/24"), [("W8", "no_proxy".to_owned())]);
}

#[test]
fn once_static_pods_have_a_proxy_the_list_has_what_the_api_server_reaches() {
    let manifests = with_pool(
        "api.corp.example",
        &static_pod(&kube_vip("${VIP}")),
        &json!({"addresses": ["10.0.0.10"], "prefix": 24}),
    );
    let missing = |list: &str, static_pods: bool| {
        let found = found_with(&manifests, &settings("http://proxy.corp.example:3128", list), static_pods);
        let found: Vec<Finding> = found.into_iter().filter(|finding| finding.rule == "static-pods").collect();
        found.first().map(|finding| finding.message.rsplit(' ').next().unwrap().to_owned())
    };
    let all = "172.20.0.0/16,172.21.0.0/16,10.0.0.0/24,.svc,svc,api.corp.example,${VIP}";
    assert_eq!(missing(all, true), None);
    assert_eq!(missing("*", true), None);
    assert_eq!(missing("", false), None);
    assert_eq!(missing("172.16.0.0/12,10.0.0.0/8,.svc,.corp.example,corp.example,${VIP}", true), None);
    assert_eq!(
        missing("vc,.cluster.local", true).as_deref(),
        Some("${VIP},.svc,10.0.0.0/24,172.20.0.0/16,172.21.0.0/16,api.corp.example")
    );
    // Without a proxy, nothing goes through one.
    let no_proxy = [Setting { proxy: ProxyVariable::No, value: String::new(), secret: false }];
    assert!(found_with(&manifests, &no_proxy, true).is_empty());
}

#[test]
fn downloads_come_after_the_proxy() {
    let commands = [
        ("curl -fsSL https://x.example/y | sh", true),
        ("/usr/bin/wget -q https://x.example/y", true),
        ("apt-get -y install jq", true),
        ("DEBIAN_FRONTEND=noninteractive apt update; true", true),
        ("for i in 1 2 3; do dnf install -y jq && break; done", true),
        ("ctr -n k8s.io images pull x", false),
        ("crictl pull x.example/y", true),
        ("git clone https://x.example/y", true),
        ("systemctl restart chrony", false),
        ("apt-mark hold kubelet", false),
        ("rm -f /etc/curl.cfg", false),
        ("https_proxy=http://proxy.corp.example:3128 curl https://x.example", false),
    ];
    for (command, is_download) in commands {
        let boot = in_configuration(&json!({"bootCommands": [command]}));
        assert_eq!(
            boot.contains(&("early-download", "bootCommands[0]".to_owned())),
            is_download,
            "{command}"
        );
        let ours = "sh /etc/reach/apply-proxy.sh";
        let before = in_configuration(&json!({"preKubeadmCommands": [command, ours, command]}));
        let expected = ("early-download", "preKubeadmCommands[0]".to_owned());
        assert_eq!(before.contains(&expected), is_download, "{command}");
        assert!(before.iter().filter(|(rule, _)| *rule == "early-download").count() <= 1, "{command}");
        // Ours comes first when it is not there yet.
        assert_eq!(in_configuration(&json!({"preKubeadmCommands": ["true", command]})), [], "{command}");
    }
    let manifests = objects(&[control_plane("c", &json!({"bootCommands": ["curl x"]}))]);
    assert!(found_with(&manifests, &[], false).is_empty(), "nothing goes through a proxy that is not there");
}

#[test]
fn static_pods_of_an_old_kubernetes_get_nothing_by_extra_envs() {
    let told = |version: &str, config: &Json, static_pods: StaticPods, proxy: &str| {
        let (mut of, mut control_plane) = (cluster("c"), control_plane("c", config));
        control_plane["spec"]["version"] = version.into();
        of["spec"]["topology"] = json!({"version": version});
        let manifests = objects(&[of, control_plane]);
        let group = derived(&manifests).remove(0);
        let found = check(&manifests, &group, &settings(proxy, "*"), static_pods);
        let found = found.into_iter().filter(|finding| finding.rule == "old-kubernetes");
        found.map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    let (none, proxy) = (json!({}), "http://proxy.corp.example:3128");
    let both = told("v1.30.9", &none, StaticPods::Explicit, proxy);
    assert_eq!(
        both,
        [
            "c.yaml, document 1, Cluster a/c, spec.topology.version: before 1.31, whose kubeadm is the first that reads \
             extraEnvs, so static pods get no proxy: write --static-pods inherit [old-kubernetes]",
            "c.yaml, document 2, KubeadmControlPlane a/c, spec.version: before 1.31, whose kubeadm is the first that \
             reads extraEnvs, so static pods get no proxy: write --static-pods inherit [old-kubernetes]",
        ]
    );
    for version in ["1.30.0", "v1.9.11", "v1.30.4+vmware.1-fips"] {
        assert_eq!(told(version, &none, StaticPods::Explicit, proxy).len(), 2, "{version}");
    }
    for version in ["v1.31.0", "v1.37.1", "v2.0.0", "${KUBERNETES_VERSION}", "", "v1"] {
        assert!(told(version, &none, StaticPods::Explicit, proxy).is_empty(), "{version}");
    }
    assert!(told("v1.30.9", &none, StaticPods::Inherit, proxy).is_empty());
    // What is written already is told whatever is asked for.
    let written =
        |name: &str| json!({"clusterConfiguration": {"scheduler": {"extraEnvs": [{"name": name}]}}});
    assert_eq!(told("v1.30.9", &written("HTTP_PROXY"), StaticPods::None, proxy).len(), 1);
    assert!(told("v1.30.9", &written("GODEBUG"), StaticPods::None, proxy).is_empty());
}

#[test]
fn exported_proxies_reach_static_pods() {
    let of = |command: &str| in_configuration(&json!({"preKubeadmCommands": [command]}));
    let expected = [("exported-proxy", "preKubeadmCommands[0]".to_owned())];
    assert_eq!(of("export HTTP_PROXY=http://proxy.corp.example:3128"), expected);
    assert_eq!(of("set -a; export FOO=1 no_proxy=x"), expected);
    assert_eq!(of("echo 'HTTP_PROXY=x' >>/etc/environment"), []);
    assert_eq!(of("set -a; . /etc/reach/proxy.env; set +a"), []);
}

#[test]
fn jinja_is_told_in_plain_files_and_commands_about_proxies() {
    let file = |path: &str, content: &str, encoding: &str| json!({"files": [{"path": path, "content": content, "encoding": encoding}]});
    let jinja = |config: &Json| in_configuration(config).iter().filter(|(rule, _)| *rule == "jinja").count();
    for (content, is_trap) in [
        ("proxies=(a b)\necho ${#proxies[@]}\n", true),
        ("no_proxy={{ .Values.list }}\n", true),
        ("{% raw %}http_proxy=x{% endraw %}\n", true),
        ("no_proxy={{ ds.meta_data.local_ipv4 }}\n", false),
        ("no_proxy={{local_hostname}}\n", false),
        ("http_proxy={x}\n", false),
        ("echo ${#a[@]}\n", false),
    ] {
        assert_eq!(jinja(&file("/opt/x.sh", content, "")), usize::from(is_trap), "{content}");
        let encoded = base64_simd::STANDARD.encode_to_string(content);
        assert_eq!(jinja(&file("/opt/x.sh", &encoded, "base64")), 0, "{content}");
        let mut ignition = file("/opt/x.sh", content, "");
        ignition["format"] = json!("ignition");
        assert_eq!(jinja(&ignition), 0, "{content}");
        assert_eq!(jinja(&json!({"postKubeadmCommands": [content]})), usize::from(is_trap), "{content}");
    }
    assert_eq!(jinja(&file("/opt/proxy.sh", "echo ${#a[@]}\n", "")), 1);
    assert_eq!(jinja(&file("/etc/reach/apply-proxy.sh", "echo ${#a[@]}\n", "")), 0);
}

#[test]
fn jinja_is_told_in_what_comes_from_a_secret_as_plain_text() {
    let jinja = |path: &str, more: Json, data: &Json| {
        let mut file = json!({"path": path, "contentFrom": {"secret": {"name": "s", "key": "k"}}});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}});
        secret.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        let found = found(&objects(&[control_plane("c", &json!({"files": [file]})), secret]));
        let found = found.into_iter().filter(|finding| finding.rule == "jinja");
        found.map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    let text = "http_proxy=http://me:s3{{cret@p:1\n";
    let plain = json!({"stringData": {"k": text}});
    let encoded = json!({"data": {"k": base64_simd::STANDARD.encode_to_string(text)}});
    for data in [&plain, &encoded] {
        let told = jinja("/opt/x.sh", json!({}), data);
        assert!(told.len() == 1 && told[0].contains("files[0].contentFrom: {{ begins"), "{told:?}");
        assert!(!told[0].contains("s3"), "{told:?}");
        assert!(jinja("/opt/x.sh", json!({"encoding": "base64"}), data).is_empty());
    }
    assert!(jinja("/opt/x.sh", json!({}), &json!({"stringData": {"other": text}})).is_empty());
    assert!(
        jinja("/opt/x.sh", json!({}), &json!({"stringData": {"k": "{{ about something else"}})).is_empty()
    );
}

#[test]
fn networks_in_a_configuration_are_told() {
    let of =
        |networking: Json| in_configuration(&json!({"clusterConfiguration": {"networking": networking}}));
    let expected = [("dropped-networking", "clusterConfiguration.networking".to_owned())];
    assert_eq!(of(json!({"podSubnet": "10.0.0.0/8"})), expected);
    assert_eq!(of(json!({})), []);
}

#[test]
fn drop_ins_of_ones_own_are_told_and_their_percent_signs() {
    let of =
        |path: &str, content: &str| in_configuration(&json!({"files": [{"path": path, "content": content}]}));
    let own = ("own-drop-in", "files[0]".to_owned());
    let percent = ("systemd-percent", "files[0].content".to_owned());
    let path = "/etc/systemd/system/containerd.service.d/http-proxy.conf";
    assert_eq!(of(path, "[Service]\nEnvironment=\"HTTP_PROXY=http://me:a%%40b@p:1\"\n"), vec![own.clone()]);
    assert_eq!(
        of(path, "[Service]\nEnvironment=\"HTTP_PROXY=http://me:a%40b@p:1\"\n"),
        vec![own.clone(), percent.clone()]
    );
    assert_eq!(
        of("/usr/lib/systemd/system/kubelet.service.d/env.conf", "[Service]\nEnvironment=no_proxy=x\n"),
        vec![own.clone()]
    );
    assert_eq!(of(path, "[Service]\nEnvironmentFile=/etc/proxy.env\n"), [own]);
    assert_eq!(
        of("/etc/systemd/system/x.service", "[Service]\nEnvironment=http_proxy=http://%41@p:1\n"),
        [percent]
    );
    // Ours, and what is about something else.
    assert_eq!(
        of(
            "/etc/systemd/system/containerd.service.d/10-reach-proxy.conf",
            "[Service]\nEnvironment=a_proxy=%4\n"
        ),
        []
    );
    assert_eq!(
        of("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "[Service]\nEnvironment=A=%n\n"),
        []
    );
    assert_eq!(of("/etc/environment", "http_proxy=http://p:1\n"), []);
}

#[test]
fn every_rule_is_told_by_something_and_has_a_name_in_the_table() {
    let class = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "ClusterClass", "metadata": {"name": "k", "namespace": "a"},
    });
    let zone = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2",
        "kind": "VSphereDeploymentZone",
        "metadata": {"name": "z"},
        "spec": {"server": "${VC}", "failureDomain": "z"},
    });
    let config = json!({
        "clusterConfiguration": {"networking": {"dnsDomain": "k8s.corp"}},
        "bootCommands": ["curl x"],
        "preKubeadmCommands": ["export http_proxy={{ x }}"],
        "files": [
            {"path": "/etc/systemd/system/a.service.d/http-proxy.conf", "content": "Environment=http_proxy=%4"},
            {"path": "/etc/kubernetes/manifests/kube-vip.yaml", "content": kube_vip("10.0.0.5")},
            {"path": "/etc/kubernetes/manifests/b.yaml", "content": "kube-vip: ["},
        ],
    });
    let pool =
        json!({"addresses": ["10.9.0.5", "10.8.0.1"], "excludedAddresses": ["10.7.0.1"], "prefix": 24});
    let mut all = with_pool("10.9.0.5", &config, &pool).objects().to_vec();
    all[0].value["spec"]["clusterNetwork"] = json!({
        "pods": {"cidrBlocks": ["10.0.0.0/8"]}, "services": {"cidrBlocks": ["${SERVICES}"]},
    });
    all[1].value["spec"]["failureDomainSelector"] = json!({});
    let mut lonely = control_plane("lonely", &json!({}));
    lonely["spec"]["version"] = json!("v1.30.9");
    let more = [class, zone, cluster("alone"), lonely];
    all.extend(objects(&more).objects().to_vec());
    let manifests = Manifests::new(all);
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for group in derived(&manifests) {
        told.extend(group.notes.iter().map(|finding| finding.rule));
        told.extend(
            check(&manifests, &group, &settings("http://p:1", ""), StaticPods::Explicit)
                .iter()
                .map(|finding| finding.rule),
        );
    }
    let mut shared = cluster("d");
    shared["spec"]["controlPlaneRef"]["name"] = json!("c");
    shared["spec"]["clusterNetwork"] = json!("text");
    let mut old = control_plane("c", &json!({}));
    old["apiVersion"] = json!("controlplane.cluster.x-k8s.io/v1alpha4");
    told.extend(objects(&[old]).objects()[0].unpatchable().map(|(finding, _)| finding.rule));
    let errors =
        groups(&objects(&[cluster("c"), shared, control_plane("c", &json!({}))]), &Options::default());
    told.extend(errors.unwrap_err().iter().map(|finding| finding.rule));
    assert_eq!(told.into_iter().collect::<Vec<_>>(), RULES.map(|rule| rule.name));
}
