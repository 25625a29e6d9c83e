//! What the portable form of `no_proxy` cannot promise, for the tests of the models and of the real clients.

use std::net::IpAddr;

use reach::clients::{Client, Target};
use reach::no_proxy::entries;
use reach::no_proxy::entry::{Entry, Unread};

/// Those that read a list. Java is told by `derive`, and the wget of busybox reads none.
pub fn readers() -> impl Iterator<Item = Client> {
    Client::ALL.into_iter().filter(|client| !matches!(client, Client::BusyboxWget | Client::Java))
}

/// What may not be as promised, and why no list can make it so.
pub struct Exception {
    /// Why.
    pub why: &'static str,
    /// Whether a client, an entry of the list as written and a target are the case.
    pub is: fn(Client, &Entry, &Target) -> bool,
}

pub const EXCEPTIONS: [Exception; 5] = [
    Exception {
        why: "an address in another spelling is written as in RFC 5952; wget and httpx compare it with the URL as text",
        is: |_, entry, target| {
            let is_other = |address: std::net::Ipv6Addr| address.to_string() != target.host();
            matches!(entry, Entry::Address(IpAddr::V6(_))) && target.host().parse().is_ok_and(is_other)
        },
    },
    Exception {
        why: "something with colons that is no address and no port makes httpx fail for every URL, so it is left out",
        is: |_, entry, _| matches!(entry, Entry::Other(Unread::BadPort)),
    },
    Exception {
        why: "an IPv6 network makes httpx fail for every URL, so it is left out; those that read it lose it",
        is: |_, entry, target| matches!(entry, Entry::Network(net) if net.addr().is_ipv6()) && is_v6(target),
    },
    Exception {
        why: "brackets make httpx fail for every URL, so they go; urllib, undici 7 and axios compare with them",
        is: |_, entry, target| {
            let is_bracketed = |entry: &Entry| matches!(entry, Entry::Bracketed(_));
            let host_is = matches!(entry, Entry::Port { host, .. } if is_bracketed(host));
            (is_bracketed(entry) || host_is) && is_v6(target)
        },
    },
    Exception {
        why: "Ruby splits entries at colons, so an IPv6 address covers IPv4 addresses with its last number",
        is: |client, entry, _| {
            client == Client::Ruby
                && matches!(entry, Entry::Address(IpAddr::V6(_)) | Entry::Bracketed(_) | Entry::Network(_))
        },
    },
];

const EMPTY_ENTRY_OF_WGET: &str = "wget takes an empty entry for every name that ends with a dot";

fn is_v6(target: &Target) -> bool {
    target.host().parse::<std::net::Ipv6Addr>().is_ok()
}

/// Why a client need not do as promised with a target.
pub fn excepted(client: Client, list: &str, target: &Target) -> Option<&'static str> {
    if client == Client::Wget
        && list.split(',').any(|entry| entry.trim().is_empty())
        && target.host().ends_with('.')
    {
        return Some(EMPTY_ENTRY_OF_WGET);
    }
    let entries: Vec<Entry> = entries(list).map(Entry::parse).collect();
    let known = EXCEPTIONS.iter().find(|known| entries.iter().any(|entry| (known.is)(client, entry, target)));
    known.map(|known| known.why)
}
