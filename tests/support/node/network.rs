//! The network namespace of a cluster.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use super::text;

/// Addresses in a cluster's network, which all are the node's.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The node itself: API server, kubelet, DNS.
    pub node: Ipv4Addr,
    /// The second API server.
    pub second_api: Ipv4Addr,
    /// The web server outside.
    pub outside: Ipv4Addr,
    /// The corporate proxy.
    pub proxy: Ipv4Addr,
    /// The other proxy.
    pub other_proxy: Ipv4Addr,
    /// This machine, as seen from the namespace.
    pub host: Ipv4Addr,
    /// The first address of the network.
    base: Ipv4Addr,
}

/// A network namespace.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// The end on this machine of the link between the two.
    link: String,
}

impl Addresses {
    /// Those of the cluster with a number.
    pub fn new(number: u8) -> Self {
        // Rarely met as a network of a company or at home.
        let third = 77_u8.checked_add(number).expect("a small number");
        let address = |last| Ipv4Addr::new(172, 31, third, last);
        Self {
            node: address(1),
            second_api: address(2),
            outside: address(3),
            proxy: address(4),
            other_proxy: address(5),
            host: Ipv4Addr::new(169, 254, third, 1),
            base: address(0),
        }
    }
}

impl Network {
    /// The namespace of the cluster with a number.
    pub fn new(number: u8) -> Self {
        Self { name: format!("reach-{number}"), link: format!("reach{number}") }
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Makes it.
    pub fn create(&self, addresses: &Addresses) {
        let Self { name, link } = self;
        let Addresses { node, second_api, outside, proxy, other_proxy, host, base } = addresses;
        // A bridge without ports carries the node's addresses: not each kernel has dummy devices. Traffic to this machine is
        // for answers only: the rest is dropped, so that nothing in there reaches what listens here.
        run(&format!(
            "set -e
            ip netns add {name}
            inside() {{ nsenter --net=/run/netns/{name} \"$@\"; }}
            inside ip link set lo up
            inside ip link add node type bridge
            for address in {node} {second_api} {outside} {proxy} {other_proxy}; do
              inside ip address add $address/24 dev node
            done
            inside ip link set node up
            inside ip route add default dev node
            ip link add {link} type veth peer name host netns {name}
            inside ip link set host up
            inside ip route add {host}/32 dev host
            ip address add {host}/32 dev {link}
            ip link set {link} up
            ip route add {base}/24 dev {link} src {host}
            inside iptables -w -A OUTPUT -o host -m conntrack --ctstate NEW -j DROP
            inside iptables -w -A FORWARD -o host -m conntrack --ctstate NEW -j DROP
            inside sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"
        ));
    }

    /// Removes it, when it is there.
    pub fn remove(&self) {
        let Self { name, link } = self;
        run(&format!(
            "set -e
            if [ -e /sys/class/net/{link} ]; then ip link delete {link}; fi
            if [ -e /run/netns/{name} ]; then ip netns delete {name}; fi"
        ));
    }
}

fn run(script: &str) {
    let output =
        Command::new("sh").args(["-c", script]).env("PATH", super::layout::search_path(&[])).output();
    let output = output.expect("sh");
    assert!(output.status.success(), "cannot set up the network: {}", text(&output));
}
