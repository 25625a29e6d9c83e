//! The portable form of a `no_proxy` list: one text that means the same to every client that reads it.
//!
//! Each rule stands here because clients disagree without it; docs/no-proxy.md says which ones, and the tests
//! run their models over both forms.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv6Net};

use super::entries;
use super::entry::{Entry, Name, NameForm};
use crate::clients::httpx;

/// A list, read once, in the portable form.
///
/// Lists are united item by item: the portable form of a union is the union of the portable forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Sorted, each once.
    items: Box<[Item]>,
    /// Entries that are left out, as written.
    left_out: Box<[Box<str>]>,
}

/// Something that is emitted as it is: one entry, or a pair that belongs together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    class: Class,
    /// What addresses and networks are sorted by; 0 for all else.
    number: u128,
    text: Box<str>,
}

/// The order in which items are emitted: what most clients understand comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Name,
    Address,
    Network,
    Range,
    Port,
    Other,
    Any,
}

/// Whose list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A preset. What makes a client fail for every URL is left out of it.
    Preset,
    /// A preset, as hosts get it: the same with IPv6 networks. What fails because of them is httpx, which runs in pods;
    /// what a host runs for everybody (containerd, kubelet, CRI-O: Go) reads them.
    Host,
    /// The pod itself, from which nothing is ever taken away.
    Pod,
}

/// The name that stays alone: nothing is under it unless somebody says so.
const LOCALHOST: &str = "localhost";

/// What is on every list: a proxy cannot reach the loopback of a pod. Go and Ruby know without being told.
///
/// `::1` is not: Ruby splits entries at colons, and then `::1` covers every IPv4 address that ends in `.1`.
static LOOPBACK: LazyLock<List> = LazyLock::new(|| List::parse("localhost,127.0.0.1", Author::Preset));

// === impl List ===

impl List {
    /// Reads a list.
    #[must_use]
    pub fn parse(text: &str, author: Author) -> Self {
        let mut items = Vec::new();
        let mut left_out = Vec::new();
        for written in entries(text) {
            let entry = Entry::parse(written);
            if let (Author::Host, Entry::Network(IpNet::V6(net))) = (author, &entry) {
                expand_v6(*net, &mut items);
                continue;
            }
            if !breaks_clients(&entry, written) {
                expand(&entry, written, &mut items);
                continue;
            }
            if let Entry::Bracketed(address) = entry {
                // What most clients compare with, and none minds.
                expand(&Entry::Address(address.into()), written, &mut items);
            }
            match author {
                Author::Preset | Author::Host => left_out.push(written.into()),
                Author::Pod => items.push(Item::new(Class::Other, 0, written.into())),
            }
        }
        items.sort_unstable();
        items.dedup();
        Self { items: items.into(), left_out: left_out.into() }
    }

    /// The union of lists, with loopback.
    ///
    /// A list that is `*` alone stays exactly that, whatever it is united with: curl, urllib, requests, aiohttp and Node's
    /// fetch know `*` only alone.
    #[must_use]
    pub fn united<'l>(lists: impl Iterator<Item = &'l Self>) -> Self {
        Self { items: union(lists).into_iter().cloned().collect(), left_out: Box::default() }
    }

    /// What it is emitted as.
    #[must_use]
    pub fn text(&self) -> String {
        join(&self.items.iter().collect::<Vec<_>>())
    }

    /// Whether it is `*` alone.
    fn is_any(&self) -> bool {
        matches!(&*self.items, [item] if item.class == Class::Any) && self.left_out.is_empty()
    }

    /// Entries that are left out, as written: each would make a client fail for every URL.
    #[must_use]
    pub fn left_out(&self) -> &[Box<str>] {
        &self.left_out
    }

    /// What it emits by itself, item by item, without loopback.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| &*item.text)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// The union of lists as it is emitted, with loopback: the text of [`List::united`].
#[must_use]
pub fn unite<'l>(lists: impl Iterator<Item = &'l List>) -> String {
    join(&union(lists))
}

/// The items of a union, or `*` alone.
fn union<'l>(lists: impl Iterator<Item = &'l List>) -> Vec<&'l Item> {
    let mut united: Vec<&Item> = LOOPBACK.items.iter().collect();
    let mut merged = Vec::new();
    for list in lists {
        if list.is_any() {
            return list.items.iter().collect();
        }
        if !list.items.is_empty() {
            merge(&united, &list.items, &mut merged);
            std::mem::swap(&mut united, &mut merged);
        }
    }
    united
}

fn join(items: &[&Item]) -> String {
    let mut text = String::with_capacity(items.iter().map(|item| item.text.len() + 1).sum());
    for item in items {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&item.text);
    }
    text
}

/// Two sorted lists as one, what is in both once.
fn merge<'l>(one: &[&'l Item], other: &'l [Item], merged: &mut Vec<&'l Item>) {
    merged.clear();
    merged.reserve(one.len() + other.len());
    let (mut ones, mut others) = (one.iter().copied().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        let order = (*a).cmp(b);
        if order != Ordering::Greater {
            merged.extend(ones.next());
        }
        if order != Ordering::Less {
            let b = others.next();
            if order == Ordering::Greater {
                merged.extend(b);
            }
        }
    }
    merged.extend(ones);
    merged.extend(others);
}

/// What an entry becomes that breaks no client.
fn expand(entry: &Entry, written: &str, items: &mut Vec<Item>) {
    let mut push = |class, number, text: String| items.push(Item::new(class, number, text.into()));
    match entry {
        Entry::Any => push(Class::Any, 0, "*".to_owned()),
        Entry::Name(name) => expand_name(name, push),
        Entry::Address(address) => push(Class::Address, number(*address), address.to_string()),
        Entry::Network(IpNet::V4(net)) => {
            let masked = net.trunc();
            // httpx reads only what stands before the slash, so the address that was written stays for it.
            if net.addr() != masked.addr() || net.prefix_len() == 32 {
                push(Class::Address, number(net.addr().into()), net.addr().to_string());
            }
            let sort = number(masked.addr().into()) << 8 | u128::from(masked.prefix_len());
            push(Class::Network, sort, masked.to_string());
        }
        Entry::Range(from, to) => {
            let sort = number((*from).into()) << 32 | number((*to).into());
            push(Class::Range, sort, format!("{from}-{to}"));
        }
        // As written: an entry without its port would let more past the proxy.
        Entry::Port { .. } => push(Class::Port, 0, written.to_ascii_lowercase()),
        Entry::Wildcard => push(Class::Other, 0, written.to_ascii_lowercase()),
        // Names of variables have a case.
        _ => push(Class::Other, 0, written.to_owned()),
    }
}

/// What an IPv6 network becomes: as with IPv4, the address that was written stays beside it. It is spelled as RFC 5952
/// says, which is what the standard library writes.
fn expand_v6(net: Ipv6Net, items: &mut Vec<Item>) {
    let masked = net.trunc();
    if net.addr() != masked.addr() || net.prefix_len() == 128 {
        items.push(Item::new(Class::Address, net.addr().into(), net.addr().to_string().into()));
    }
    items.push(Item::new(Class::Network, masked.addr().into(), masked.to_string().into()));
}

/// Whether this entry makes a client fail for every URL, not only for those that it is about. httpx is the only one.
fn breaks_clients(entry: &Entry, written: &str) -> bool {
    match entry {
        // It takes all of these, so there is no need to ask for each; the kubelet alone knows the last.
        Entry::Any | Entry::Name(_) | Entry::Address(_) | Entry::Range(..) | Entry::Reference => false,
        Entry::Network(net) if net.addr().is_ipv4() => false,
        _ => !httpx::accepts(written),
    }
}

/// `.x,x`: the first is the names under it for those who take `x` for a host (Node's http agent, axios, .NET), the
/// second the name itself for those who take `.x` for what is under it (wget, Go, httpx, axios, Ruby). With a dot at the
/// end of what was written, also the names with a dot at the end.
fn expand_name(name: &Name, mut push: impl FnMut(Class, u128, String)) {
    let text = &name.text;
    let ends: &[&str] = if name.rooted { &["", "."] } else { &[""] };
    for end in ends {
        if **text != *LOCALHOST {
            push(Class::Name, 0, format!(".{text}{end},{text}{end}"));
            continue;
        }
        push(Class::Name, 0, format!("{text}{end}"));
        if name.form != NameForm::Bare {
            push(Class::Name, 0, format!(".{text}{end}"));
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

// === impl Item ===

impl Item {
    fn new(class: Class, number: u128, text: Box<str>) -> Self {
        Self { class, number, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portable(lists: &[&str]) -> String {
        let lists: Vec<List> = lists.iter().map(|list| List::parse(list, Author::Preset)).collect();
        unite(lists.iter())
    }

    /// Without what is on every list.
    fn own(list: &str) -> String {
        let text = portable(&[list]);
        let own = text.split(',').filter(|entry| !["localhost", "127.0.0.1"].contains(entry));
        own.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn every_rule_in_a_line() {
        let cases = [
            // Names are pairs, in lower case, sorted; so are wildcards for everything under a name.
            ("web,.corp.example,*.CORP.example", ".corp.example,corp.example,.web,web"),
            (".x.,y.", ".x,x,.x.,x.,.y,y,.y.,y."),
            (".localhost", ".localhost"),
            ("localhost.", "localhost."),
            // Addresses by number, networks after them.
            ("10.0.0.10,10.0.0.9,10.0.0.0/8,fd00:0::1", "10.0.0.9,10.0.0.10,fd00::1,10.0.0.0/8"),
            ("10.10.192.1/18", "10.10.192.1,10.10.192.0/18"),
            ("10.1.2.3/32", "10.1.2.3,10.1.2.3/32"),
            ("[fd00::1]", "fd00::1"),
            ("10.0.0.1-10.0.0.9,10.0.0.0/28", "10.0.0.0/28,10.0.0.1-10.0.0.9"),
            // What some clients cannot be given stays as it is, and is never widened.
            ("web:8080,.A:80,10.0.0.0/8:80", ".a:80,10.0.0.0/8:80,web:8080"),
            ("foo.*.bar,10.96.,http://web,a;b", "10.96.,a;b,foo.*.bar,http://web"),
            ("$(Extra),b", ".b,b,$(Extra)"),
            ("foo,*", ".foo,foo,*"),
            // What makes a client fail for every URL goes.
            ("fd00::/64,[fd00::1]:80,bücher.example,web:http", ""),
            // Without a scheme it is a path, and one that begins with a colon is none.
            ("::1]2.3://.[,:://x,a]b://x:y", "a]b://x:y"),
            // A zone has a name without a percent sign.
            ("::1%,::1%a%b,::1%a", "::1%a"),
            (" ,,a\t b\n", ".a,a,.b,b"),
        ];
        for (list, expected) in cases {
            assert_eq!(own(list), expected, "{list}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_taken_by_httpx() {
        for entry in
            ["*", "a", ".a", "*.a.", "my_db", "10.0.0.1", "fd00::1", "10.0.0.0/8", "10.0.0.1-10.0.0.9"]
        {
            assert!(!breaks_clients(&Entry::parse(entry), entry) && httpx::accepts(entry), "{entry}");
        }
    }

    #[test]
    fn loopback_is_on_every_list_but_everything_alone() {
        assert_eq!(portable(&[""]), "localhost,127.0.0.1");
        assert_eq!(portable(&["*"]), "*");
        assert_eq!(portable(&["*,*"]), "*");
        assert_eq!(portable(&["a", "*"]), "*");
        assert_eq!(portable(&["a", "b,*"]), ".a,a,.b,b,localhost,127.0.0.1,*");
    }

    #[test]
    fn hosts_have_ipv6_networks_in_one_spelling_and_nothing_else_that_breaks_clients() {
        let written =
            "2001:DB8:0:0::/32,fd00::1/64,fd00:0:0::2/128,10.0.0.0/8,[fd00::1]:80,b\u{fc}cher.example,ok";
        let list = List::parse(written, Author::Host);
        assert_eq!(
            unite([&list].into_iter()),
            ".ok,ok,localhost,127.0.0.1,fd00::1,fd00::2,10.0.0.0/8,2001:db8::/32,fd00::/64,fd00::2/128"
        );
        let left_out: Vec<&str> = list.left_out().iter().map(|entry| &**entry).collect();
        assert_eq!(left_out, ["[fd00::1]:80", "b\u{fc}cher.example"]);
        // As for pods: alone, it stays alone.
        let any = [List::parse("*", Author::Host), list];
        assert_eq!(unite(any.iter()), "*");
    }

    #[test]
    fn what_is_left_out_of_a_preset_is_told_and_stays_in_a_pod() {
        let written = "fd00::/64,[fd00::1],bücher.example,web:http,ok";
        let of_preset = List::parse(written, Author::Preset);
        assert_eq!(
            of_preset.left_out().iter().map(|entry| &**entry).collect::<Vec<_>>(),
            ["fd00::/64", "[fd00::1]", "bücher.example", "web:http"]
        );
        assert_eq!(unite([&of_preset].into_iter()), ".ok,ok,localhost,127.0.0.1,fd00::1");
        let of_pod = List::parse(written, Author::Pod);
        assert_eq!(
            unite([&of_pod].into_iter()),
            ".ok,ok,localhost,127.0.0.1,fd00::1,[fd00::1],bücher.example,fd00::/64,web:http"
        );
    }
}
