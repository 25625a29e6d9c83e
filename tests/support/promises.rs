//! What the portable form of `no_proxy` cannot promise, for the tests of the models and of the real clients.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use reach::clients::{Client, Target};
use reach::no_proxy::entries;
use reach::no_proxy::entry::Entry;
use reach::no_proxy::portable::{Author, List};

/// Those that read a list. Java is told by `derive`, and the wget of busybox reads none.
pub fn readers() -> impl Iterator<Item = Client> {
    Client::ALL.into_iter().filter(|client| !matches!(client, Client::BusyboxWget | Client::Java))
}

/// What may not be as promised, and why no list can make it so.
pub struct Exception {
    /// Why.
    pub why: &'static str,
    /// Whether a client, an entry of the list, the entry as written and a target are the case.
    pub is: fn(Client, &Entry, &str, &Target) -> bool,
}

pub const EXCEPTIONS: [Exception; 6] = [
    Exception {
        why: "an address in another spelling is written as in RFC 5952; wget and httpx compare it with the URL as text",
        is: |_, entry, _, target| {
            let is_other = |address: Ipv6Addr| address.to_string() != target.host();
            matches!(entry, Entry::Address(IpAddr::V6(_))) && v6(target).is_some_and(is_other)
        },
    },
    Exception {
        why: "something with colons that is no address and no port makes httpx fail for every URL, so it is left out",
        is: |_, entry, written, target| {
            matches!(entry, Entry::Other(_))
                && List::parse(written, Author::Preset).left_out() == [written.into()]
                && is_about(written, target)
        },
    },
    Exception {
        why: "an IPv6 network makes httpx fail for every URL, so it is left out; those that read it lose it",
        is: |_, entry, _, target| matches!(entry, Entry::Network(IpNet::V6(net)) if v6(target).is_some_and(|ip| net.contains(&ip))),
    },
    Exception {
        why: "so does one whose address is in brackets, which axios alone reads",
        is: |client, _, written, target| {
            let net = written.replace(['[', ']'], "").parse();
            client == Client::Axios
                && written.starts_with('[')
                && net.is_ok_and(|net: ipnet::Ipv6Net| v6(target).is_some_and(|ip| net.contains(&ip)))
        },
    },
    Exception {
        why: "brackets make httpx fail for every URL, so they go; urllib, undici 7 and axios compare with them",
        is: |_, entry, _, target| {
            let host = if let Entry::Port { host, .. } = entry { host } else { entry };
            matches!(host, Entry::Bracketed(address) if v6(target) == Some(*address))
        },
    },
    Exception {
        why: "Ruby splits entries at colons, so an IPv6 address covers IPv4 addresses with its last number; it does not connect to those in IPv6 form, and fails",
        is: |client, entry, _, target| {
            let is_v6 = matches!(
                entry,
                Entry::Address(IpAddr::V6(_)) | Entry::Bracketed(_) | Entry::Network(IpNet::V6(_))
            );
            let host = target.host().parse::<IpAddr>();
            client == Client::Ruby && is_v6 && host.is_ok_and(|ip| ip.to_canonical().is_ipv4())
        },
    },
];

const EMPTY_ENTRY_OF_WGET: &str = "wget takes an empty entry for every name that ends with a dot";

fn v6(target: &Target) -> Option<Ipv6Addr> {
    target.host().parse().ok()
}

/// Whether an entry with colons is about a target: it is its address, but for dots, brackets and a port, or what stands
/// between its colons is a name that is the host or above it.
fn is_about(written: &str, target: &Target) -> bool {
    let (written, host) = (written.to_ascii_lowercase(), target.host().to_ascii_lowercase());
    let is_address = |text: &str| {
        let address = text.trim_matches(['.', '[', ']']).parse::<IpAddr>();
        address.is_ok_and(|address| host.parse() == Ok(address))
    };
    let is_or_is_above = |part: &str| {
        let (name, host_name) = (part.trim_matches('.'), host.trim_end_matches('.'));
        let is_above = || host_name.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        // A dot by itself is about names with one at their end.
        part.starts_with('.') && host.ends_with(part) || !name.is_empty() && (host_name == name || is_above())
    };
    let before_port = written.rsplit_once(':').map_or("", |(before, _)| before);
    is_address(&written) || is_address(before_port) || written.split(':').any(is_or_is_above)
}

/// Why a client need not do as promised with a target.
pub fn excepted(client: Client, list: &str, target: &Target) -> Option<&'static str> {
    if client == Client::Wget
        && list.split(',').any(|entry| entry.trim().is_empty())
        && target.host().ends_with('.')
    {
        return Some(EMPTY_ENTRY_OF_WGET);
    }
    let entries: Vec<(Entry, &str)> = entries(list).map(|written| (Entry::parse(written), written)).collect();
    let is_case = |known: &&Exception| {
        entries.iter().any(|(entry, written)| (known.is)(client, entry, written, target))
    };
    let known = EXCEPTIONS.iter().find(is_case);
    known.map(|known| known.why)
}
