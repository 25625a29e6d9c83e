//! The table of rules about manifests of Cluster API: what `reach host lint` and the warnings of `reach host patch` are.

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name. Names are stable: one that goes is not given to another rule.
    pub name: &'static str,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to write.
    pub write: &'static str,
}

/// All rules, in the order of their names. Rules about proxy variables themselves are those of [`crate::lint::RULES`], of
/// which those apply here that need more than a preset: E7 and W8.
pub static RULES: [Rule; 24] = [
    Rule {
        name: "dropped-networking",
        title: "A configuration says networks that Cluster API drops",
        why: "`clusterConfiguration.networking` is gone with v1beta2, which Cluster API has used since 1.11 whatever version a document is written in: then the networks are those of the `Cluster`, or kubeadm's defaults. Earlier ones prefer it to the `Cluster`. The list has both.",
        write: "`clusterNetwork` of the `Cluster`, and nothing here.",
    },
    Rule {
        name: "early-download",
        title: "A command downloads before the proxy is set up",
        why: "`bootCommands` run before any file is written, and commands in front of ours before the runtime is restarted and CA certificates are known: what they download has no proxy.",
        write: "The command in `preKubeadmCommands`, behind ours.",
    },
    Rule {
        name: "exported-proxy",
        title: "A command exports proxy variables by hand",
        why: "`preKubeadmCommands` and kubeadm run in one shell. kubeadm copies every variable that ends in `_proxy` into the static pods of the control plane and into kube-proxy, with the list that this command has.",
        write: "Nothing: take the command out, and say with `--static-pods` what static pods are to have.",
    },
    Rule {
        name: "jinja",
        title: "cloud-init reads Jinja in a file or command about proxies",
        why: "Cluster API's user data is a Jinja template. `{{`, `{%` and `{#` in a plain file or a command are read as one, also in `${#array[@]}` of a shell; if that fails, cloud-init drops all of the user data, and no node comes up.",
        write: "The file with `encoding: base64`, which Jinja does not touch; with `contentFrom`, the base64 in the Secret; a command as a script in such a file.",
    },
    Rule {
        name: "left-to-the-cluster",
        title: "A class does not know the networks of its clusters",
        why: "The entries of a class by itself hold for all of its clusters. What differs comes from each `Cluster`.",
        write: "Nothing; or the `Cluster` among the documents, to see its list.",
    },
    Rule {
        name: "missing-object",
        title: "Something that is referred to is not among the documents",
        why: "What it would say of the network is not in the list.",
        write: "Its document among the others (`--from`), or the entries in a preset.",
    },
    Rule {
        name: "network-overlap",
        title: "Networks of pods, Services and machines overlap",
        why: "An address in both goes one way only: nodes cannot reach pods, or pods cannot reach nodes, and the virtual address of the API server may be among pods. 192.168.0.0/16, which many examples give to pods, often is the network of machines.",
        write: "Networks that have no address in common.",
    },
    Rule {
        name: "no-cluster",
        title: "No cluster uses a configuration",
        why: "Without the `Cluster`, its networks and its endpoint are unknown.",
        write: "The documents of the cluster beside it, or the entries in a preset.",
    },
    Rule {
        name: "no-endpoint",
        title: "The address of the API server is not known",
        why: "Machines join through it. Where a proxy is in between, kubeadm and the kubelet wait for it in vain.",
        write: "`controlPlaneEndpoint` of the `Cluster` or of its infrastructure; or its name in a preset, if the provider chooses the address.",
    },
    Rule {
        name: "old-kubernetes",
        title: "`extraEnvs` for a Kubernetes that does not read them",
        why: "kubeadm reads `extraEnvs` since Kubernetes 1.31. Cluster API leaves them out of the configuration of an earlier one without a word, and static pods have no proxy.",
        write: "`--static-pods inherit`, or a newer Kubernetes.",
    },
    Rule {
        name: "own-drop-in",
        title: "A drop-in of one's own sets the proxy of a service",
        why: "Two places say the same, and come apart with the next change: what is in an `EnvironmentFile=` wins over `Environment=`, whatever the order of drop-ins.",
        write: "Nothing: take the file out.",
    },
    Rule {
        name: "pool-exclusions",
        title: "A pool excludes addresses that it does not have",
        why: "Such an exclusion does nothing, so what was meant is perhaps another address, which is still given away.",
        write: "Addresses of the pool.",
    },
    Rule {
        name: "pool-outside-subnet",
        title: "A pool has addresses outside of its own network",
        why: "A machine with such an address has a gateway that it cannot reach, and the network of the pool does not cover it. The in-cluster provider refuses such a pool.",
        write: "A shorter prefix, or a pool for each network.",
    },
    Rule {
        name: "shared-configuration",
        title: "Two clusters use one configuration",
        why: "One object can hold one list only, and each cluster has its own networks and its own endpoint.",
        write: "An object for each cluster; or a ClusterClass, which is made for sharing.",
    },
    Rule {
        name: "static-pods",
        title: "Static pods have a proxy, and the list lacks parts of the cluster",
        why: "The API server calls webhooks by names that end in `.svc`, and nodes and pods by their addresses. With a proxy and without these entries it asks the proxy for them.",
        write: "The entries; or `--static-pods none`, so that static pods have no proxy.",
    },
    Rule {
        name: "systemd-percent",
        title: "`Environment=` has a percent sign that systemd reads",
        why: "systemd replaces `%` and what follows it, as in `%40` of a password, and drops the variable if it cannot.",
        write: "`%%` instead of `%`; or an `EnvironmentFile=`, where a percent sign is one.",
    },
    Rule {
        name: "type",
        title: "A field is of another type, or holds something else than it has to",
        why: "Cluster API refuses it, or does something else with it.",
        write: "What the message expects.",
    },
    Rule {
        name: "unread",
        title: "A value that should name a host cannot be read",
        why: "What it says is not in the list.",
        write: "A name or an IP address, or a manifest that is YAML; or the entry in a preset.",
    },
    Rule {
        name: "unresolved-variable",
        title: "Something would have to be computed from a variable of clusterctl",
        why: "clusterctl replaces text only. A variable can be an entry by itself, but no network can be computed from it.",
        write: "Its value in the environment, and `--values-from-env`; or the entries in a preset.",
    },
    Rule {
        name: "version",
        title: "A configuration is of a version that is not patched",
        why: "Its hosts get no proxy: `reach host patch` leaves one before v1beta1 as it is, and refuses one that it does not know.",
        write: "The same in v1beta1 or v1beta2.",
    },
    Rule {
        name: "vip-in-pool",
        title: "The address of the API server can be given to a machine",
        why: "The pool does not know that the address is taken. One day a machine gets it, and two hosts answer for the API server.",
        write: "The address among the pool's exclusions, or one that the pool does not have.",
    },
    Rule {
        name: "vip-mismatch",
        title: "kube-vip holds another address than the cluster's endpoint",
        why: "Machines join at the endpoint, where nothing answers.",
        write: "The same address in both places.",
    },
    Rule {
        name: "vip-outside-nodes",
        title: "kube-vip announces an address that is in no network of the machines",
        why: "With ARP (`vip_arp`), only hosts of the same network hear of the address; routers send it elsewhere.",
        write: "An address of the machines' network that no pool gives away; or kube-vip with BGP.",
    },
    Rule {
        name: "zone-server",
        title: "A failure domain has another vCenter than its cluster",
        why: "Of the failure domains that `failureDomainSelector` takes, the provider for vSphere passes over those whose `server` is not, letter for letter, that of the VSphereCluster: no machine of a control plane comes there.",
        write: "The same text in both places; for workers elsewhere, the failure domain by its name in a MachineDeployment, which is then taken whatever its vCenter is.",
    },
];
