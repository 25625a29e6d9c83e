//! What the portable form of `no_proxy` promises, checked with the models of the clients:
//!
//! 1. What a client bypassed with the list as written it still bypasses.
//! 2. All clients agree on every name.
//! 3. What no client bypassed, none bypasses now.
//! 4. No client fails that did not.
//!
//! What no list can give is in [`EXCEPTIONS`], each with its reason; docs/no-proxy.md says the same.

#[path = "support/promises.rs"]
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use reach::clients::{Client, Environment, Route, Target};
use reach::no_proxy::entries;
use reach::no_proxy::entry::Entry;
use reach::no_proxy::portable::{Author, List, unite};

use promises::{EXCEPTIONS, excepted, readers};

/// Lists as people write them.
const REALISTIC: [&str; 40] = [
    "",
    "localhost",
    "localhost,127.0.0.1",
    "localhost,127.0.0.1,::1",
    "localhost, 127.0.0.1, .svc, .cluster.local",
    ".svc,.cluster.local,10.96.0.0/12,10.244.0.0/16",
    "localhost,127.0.0.1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,.svc,.cluster.local,.corp.example",
    "mysql,redis,.corp.example,10.96.0.1",
    "corp.example",
    "*.corp.example",
    "*.corp.example,*.svc,*.cluster.local",
    ".corp.example,corp.example",
    "Corp.Example,VCENTER.corp.example",
    "10.10.192.1/18",
    "10.0.0.1/32,10.0.0.2/32",
    "192.168.10.10,192.168.10.11,192.168.10.12",
    "169.254.169.254,metadata.google.internal,.internal",
    "*",
    "corp.example,*",
    "vcenter.corp.example:443,registry:5000",
    "10.96.0.1:443",
    "192.168.0.1-192.168.0.50",
    "192.168.0.1-192.168.0.50,192.168.0.0/24",
    "fd00:10:96::/112",
    "fd00:10:96::1,10.96.0.1",
    "[fd00:10:96::1]",
    "fd00:0:0:0::1",
    "::1",
    ".svc.cluster.local.",
    "kubernetes.default.svc.cluster.local.",
    "localhost 127.0.0.1 .svc",
    "localhost;127.0.0.1;.svc",
    ",,corp.example,,",
    "10.96.",
    "10.96.*",
    "http://corp.example",
    "https://vcenter.corp.example/sdk,.svc",
    "0.0.0.0/0",
    "10.0.0.300,10.0.0.0/33",
    "bücher.example,.svc",
];

/// Pieces of generated lists.
const PIECES: [&str; 51] = [
    ".::/0",
    "::ffff:10.96.0.1:8080",
    "fd00::1.",
    "[fd00::]/64",
    "[::ffff:10.96.0.1]",
    "https://fd00:0::1",
    "web.corp.example:80;.corp.example",
    "web.corp.example",
    "corp.example",
    ".corp.example",
    "*.corp.example",
    "*corp.example",
    "CORP.example",
    "corp.example.",
    ".corp.example.",
    "mysql",
    ".mysql",
    "a.b.c.example",
    "localhost",
    ".localhost",
    "127.0.0.1",
    "127.0.0.0/8",
    "10.96.0.1",
    "10.96.0.0/12",
    "10.96.5.1/12",
    "10.96.0.1/32",
    "10.96.0.0-10.96.0.255",
    "10.96.",
    "10.96.*",
    "fd00::1",
    "fd00:0:0:0::1",
    "[fd00::1]",
    "fd00::/64",
    "[fd00::1]:8080",
    "::1",
    "fd00::25",
    "web.corp.example:8080",
    "corp.example:80",
    "10.96.0.1:8080",
    "10.96.0.0/12:8080",
    "*",
    "http://web.corp.example",
    "web.corp.example/path",
    "user@corp.example",
    "foo.*.example",
    "a;b",
    "bücher.example",
    "xn--bcher-kva.example",
    "my_db",
    "web:http",
    "..corp.example",
];

fn environment(list: &str) -> Environment {
    let mut environment = Environment::default();
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] {
        environment.set(name, "http://proxy.example.net:3128");
    }
    for name in ["no_proxy", "NO_PROXY"] {
        environment.set(name, list);
    }
    environment
}

/// The route, where Node's own clients have been told to read the variables. axios would leave it to them then.
fn route(client: Client, environment: &Environment, target: &Target) -> Route {
    let mut environment = environment.clone();
    if matches!(client, Client::NodeFetch | Client::NodeHttp) {
        environment.set("NODE_USE_ENV_PROXY", "1");
    }
    reach::clients::route(client, &environment, target)
}

fn portable(list: &str) -> String {
    unite([&List::parse(list, Author::Preset)].into_iter())
}

/// Targets that a list is about, and some that it is not.
fn targets(list: &str) -> Vec<Target> {
    let mut hosts: Vec<String> =
        ["example.org", "localhost", "10.96.0.1", "10.96.0.7", "10.200.0.1", "8.8.8.8"]
            .map(str::to_owned)
            .into();
    hosts.extend(
        ["[fd00::1]", "[fd00:0:0:0::1]", "[fd00::7]", "[::ffff:10.96.0.1]", "[2001:db8::1]", "a.localhost"]
            .map(str::to_owned),
    );
    for entry in entries(list) {
        let entry = match Entry::parse(entry) {
            Entry::Port { host, .. } => *host,
            entry => entry,
        };
        match entry {
            Entry::Name(name) => {
                let name = name.text;
                let before = |text: &str| format!("{text}{name}");
                hosts.extend([
                    before(""),
                    before("sub."),
                    before("a.b."),
                    before("not"),
                    format!("{name}.evil"),
                ]);
                hosts.extend([before("SUB."), format!("{name}."), format!("sub.{name}.")]);
                if let Some((_, parent)) = name.split_once('.') {
                    hosts.push(parent.to_owned());
                }
            }
            Entry::Address(IpAddr::V4(address)) => {
                hosts.extend([address, (u32::from(address) ^ 1).into()].map(|address| address.to_string()));
            }
            Entry::Network(ipnet::IpNet::V4(net)) => {
                hosts.extend([net.addr(), net.network(), net.broadcast()].map(|address| address.to_string()));
                hosts.push(std::net::Ipv4Addr::from(u32::from(net.broadcast()).wrapping_add(1)).to_string());
            }
            Entry::Range(from, to) => hosts.extend([from, to].map(|address| address.to_string())),
            _ => {}
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
        .iter()
        .flat_map(|host| {
            [format!("http://{host}/"), format!("https://{host}/"), format!("http://{host}:8080/")]
        })
        .filter_map(|url| url.parse().ok())
        .collect()
}

/// Direct, proxied, error.
fn letter(route: &Route) -> char {
    match route {
        Route::Direct { .. } => 'D',
        Route::Proxied { .. } => 'P',
        Route::Error { .. } => 'E',
    }
}

fn client_of(name: &str) -> Client {
    name.parse().expect("a client")
}

/// The host in a URL, without the dot at its end: that does not make it another host.
fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.trim_end_matches('.').to_owned() }
}

/// Checks one list; returns how many pairs of client and target were compared, what was not as promised, and why that is
/// so where it may be.
fn check(list: &str) -> (usize, Vec<String>, BTreeSet<&'static str>) {
    let emitted = portable(list);
    let (before, after) = (environment(list), environment(&emitted));
    // White space separates, and what makes a client fail for every URL says nothing about what it would do.
    let safe: Vec<&str> = entries(list)
        .filter(|entry| !List::parse(entry, Author::Preset).left_out().contains(&(*entry).into()))
        .collect();
    let meant = environment(&safe.join(","));
    let (mut pairs, mut broken, mut reasons) = (0, Vec::new(), BTreeSet::new());
    let is_bypassed = |route: &Route| matches!(route, Route::Direct { .. });
    let fails = |route: &Route| matches!(route, Route::Error { .. });
    // Names are all that it is about, but for addresses that nobody takes for one.
    let names_only = entries(list).map(Entry::parse).all(|entry| {
        // httpx and aiohttp decode such a host before they compare, and not the entry.
        let is_encoded = |name: &str| name.split('.').any(|label| label.starts_with("xn--"));
        matches!(&entry, Entry::Name(name) if !is_encoded(&name.text))
            || matches!(entry, Entry::Address(IpAddr::V4(_)) | Entry::Network(ipnet::IpNet::V4(_)))
    });
    for target in targets(list) {
        let host = target.host().to_owned();
        let url = format!("{}://{host}", target.scheme().name());
        let mut written = BTreeMap::new();
        let mut now = BTreeMap::new();
        for client in readers() {
            written.insert(client.name(), route(client, &before, &target));
            now.insert(client.name(), route(client, &after, &target));
        }
        let mut complain = |promise: u8, client: &str| {
            let (old, new) = (letter(&written[client]), letter(&now[client]));
            broken.push(format!("{promise}: {client}, {list:?} -> {emitted:?}, {url}: {old} then {new}"));
        };
        for client in readers() {
            pairs += 1;
            let (old, new) = (&written[client.name()], &now[client.name()]);
            for (promise, is_broken) in
                [(1, is_bypassed(old) && !is_bypassed(new)), (4, fails(new) && !fails(old))]
            {
                match excepted(client, list, &target) {
                    _ if !is_broken => {}
                    Some(why) => _ = reasons.insert(why),
                    None => complain(promise, client.name()),
                }
            }
        }
        let lower = host.to_ascii_lowercase();
        let lower = lower.trim_end_matches('.');
        let is_loopback = lower == "127.0.0.1" || lower == "localhost" || lower.ends_with(".localhost");
        let bare: Target =
            format!("{}://{}", target.scheme().name(), url_host(&host)).parse().expect("a URL");
        let known = |client| {
            let routes = [
                &written[client],
                &route(client_of(client), &meant, &target),
                &route(client_of(client), &meant, &bare),
            ];
            routes.into_iter().any(is_bypassed)
        };
        if !is_loopback && now.values().any(is_bypassed) && !readers().any(|client| known(client.name())) {
            for client in readers().filter(|client| is_bypassed(&now[client.name()])) {
                match excepted(client, list, &target) {
                    Some(why) => _ = reasons.insert(why),
                    None => complain(3, client.name()),
                }
            }
        }
        // `localhost` stays alone, and most take it for a suffix, too.
        let is_name =
            host.parse::<IpAddr>().is_err() && !host.ends_with('.') && !host.ends_with(".localhost");
        if is_name && names_only {
            let first = now.values().next().map(is_bypassed);
            for client in readers().filter(|client| Some(is_bypassed(&now[client.name()])) != first) {
                complain(2, client.name());
            }
        }
    }
    (pairs, broken, reasons)
}

fn check_all(lists: impl Iterator<Item = String>) -> BTreeSet<&'static str> {
    let (mut lists_checked, mut pairs, mut broken, mut reasons) = (0, 0, Vec::new(), BTreeSet::new());
    for list in lists {
        let (more, wrong, why) = check(&list);
        reasons.extend(why);
        lists_checked += 1;
        pairs += more;
        broken.extend(wrong);
        assert_eq!(portable(&portable(&list)), portable(&list), "emitted twice, {list:?} stays as it is");
    }
    println!("{lists_checked} lists, {pairs} routes of {} clients", readers().count());
    // One of each kind says it.
    let mut kinds = BTreeSet::new();
    broken.retain(|text| kinds.insert(text.split(',').next().map(str::to_owned)));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    reasons
}

/// Rows of the table in docs/no-proxy.md: a list and a URL.
const MATRIX: [(&str, &str); 37] = [
    ("web.corp.example", "http://web.corp.example/"),
    ("corp.example", "http://web.corp.example/"),
    (".corp.example", "http://web.corp.example/"),
    (".corp.example", "http://corp.example/"),
    ("*.corp.example", "http://web.corp.example/"),
    ("*.corp.example", "http://corp.example/"),
    ("*corp.example", "http://web.corp.example/"),
    ("corp.example", "http://notcorp.example/"),
    ("CORP.example", "http://web.corp.example/"),
    (".corp.example", "http://web.corp.example./"),
    (".corp.example.", "http://web.corp.example./"),
    (".corp.example.", "http://web.corp.example/"),
    ("*", "http://web.corp.example/"),
    ("mysql,*", "http://web.corp.example/"),
    ("mysql, web.corp.example", "http://web.corp.example/"),
    ("mysql web.corp.example", "http://web.corp.example/"),
    (" web.corp.example", "http://web.corp.example/"),
    ("mysql;web.corp.example", "http://web.corp.example/"),
    ("http://web.corp.example", "http://web.corp.example/"),
    ("web.corp.example:8080", "http://web.corp.example:8080/"),
    ("web.corp.example:8080", "http://web.corp.example/"),
    ("10.96.0.1", "http://10.96.0.1/"),
    ("10.96.0.0/12", "http://10.96.0.1/"),
    ("10.96.0.1/12", "http://10.96.0.1/"),
    ("10.96.0.1/12", "http://10.96.0.2/"),
    ("10.96.", "http://10.96.0.1/"),
    ("10.96.*", "http://10.96.0.1/"),
    ("10.96.0.0-10.96.0.255", "http://10.96.0.1/"),
    ("10.96.0.1:8080", "http://10.96.0.1:8080/"),
    ("fd00::1", "http://[fd00::1]/"),
    ("[fd00::1]", "http://[fd00::1]/"),
    ("[fd00::1]", "http://web.corp.example/"),
    ("fd00:0:0:0::1", "http://[fd00::1]/"),
    ("fd00::/64", "http://[fd00::1]/"),
    ("fd00::/64", "http://web.corp.example/"),
    ("", "http://localhost/"),
    ("", "http://127.0.0.1/"),
];

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/no-proxy.md");
const CLIENTS_DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients.md");

#[test]
fn the_table_in_the_docs_is_what_the_models_say() {
    let clients: Vec<Client> = Client::ALL.into_iter().filter(|client| *client != Client::Java).collect();
    let mut table = String::from("| Entry | URL |");
    for client in &clients {
        let _ = write!(table, " {client} |");
    }
    let _ = writeln!(table, "\n|---|---|{}", "---|".repeat(clients.len()));
    for (list, url) in MATRIX {
        let target: Target = url.parse().expect("a URL");
        let emitted = portable(list);
        for (list, label) in [
            (list, format!("| `{}` | {url} |", list.replace(' ', "\u{2423}"))),
            (&emitted, "| (list) | |".to_owned()),
        ] {
            table += &label;
            for client in &clients {
                let _ = write!(table, " {} |", letter(&route(*client, &environment(list), &target)));
            }
            table += "\n";
        }
    }
    let text = std::fs::read_to_string(DOCS).expect("the docs");
    let (before, rest) = text.split_once("<!-- matrix").expect("a mark");
    let (mark, rest) = rest.split_once("-->\n").expect("the end of the mark");
    let (old, after) = rest.split_once("<!-- end -->").expect("the last mark");
    if std::env::var_os("REACH_UPDATE").is_some() {
        std::fs::write(DOCS, format!("{before}<!-- matrix{mark}-->\n{table}<!-- end -->{after}"))
            .expect("written");
    } else {
        assert_eq!(old, table, "write it with REACH_UPDATE=1 cargo test --test no_proxy");
    }
}

/// Clients that go this way to a URL with a list, of those that read one.
fn who(list: &str, url: &str, way: char) -> BTreeSet<&'static str> {
    let target: Target = url.parse().expect("a URL");
    let goes = |client: &Client| letter(&route(*client, &environment(list), &target)) == way;
    readers().filter(goes).map(Client::name).collect()
}

/// Names of clients as prose has them, in the usual order.
fn prose(clients: &BTreeSet<&str>) -> String {
    let curl = ["curl", "curl-7.88", "curl-7.85"].map(|curl| clients.contains(curl));
    let mut names = match curl {
        [true, true, true] => vec!["curl"],
        [true, true, false] => vec!["curl since 7.86"],
        [false, false, true] => vec!["curl before 7.86"],
        [false, false, false] => vec![],
        _ => panic!("no name for these curls: {clients:?}"),
    };
    let others =
        readers().map(Client::name).filter(|name| clients.contains(name) && !name.starts_with("curl"));
    names.extend(others.map(|name| match name {
        "go" => "Go",
        "python-urllib" => "urllib",
        "node-fetch" => "Node's fetch",
        "node-http" => "Node's http agent",
        "ruby" => "Ruby",
        "dotnet" => ".NET",
        name => name,
    }));
    match &names[..] {
        [] => "no client".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[test]
fn the_prose_of_the_docs_names_the_clients_that_the_models_say() {
    let (x, below) = ("http://x.example/", "http://a.x.example/");
    let address = "http://10.96.0.1/";
    let only_alone = &who("*", x, 'D') - &who("mysql,*", x, 'D');
    let no_proxy = [
        format!("`.x` alone leaves out `x` itself in {};", prose(&who(".x.example", x, 'P'))),
        format!("`x` alone leaves out `a.x` in {}.", prose(&who("x.example", below, 'P'))),
        format!("`*.x` is read by {} only.", prose(&who("*.x.example", below, 'D'))),
        format!("{} know it only so.", prose(&only_alone)),
        format!("{} know it only alone, {} not at all", prose(&only_alone), prose(&who("*", x, 'P'))),
        format!(
            "read by {} only; `*` alone not by {}",
            prose(&who("mysql,*", x, 'D')),
            prose(&who("*", x, 'P'))
        ),
        format!(
            "an entry with a port does nothing in {} |",
            prose(&who("x.example:8080", "http://x.example:8080/", 'P'))
        ),
        format!(
            "`host:8080` matches nothing in {}.",
            prose(&who("x.example:8080", "http://x.example:8080/", 'P'))
        ),
        format!("is a suffix in all clients but {}.", prose(&who("x.example", below, 'P'))),
        format!("only {} reads ranges", prose(&who("10.96.0.0-10.96.0.9", address, 'D'))),
        format!("**Addresses inside a network** for {}:", prose(&who("10.96.0.0/12", address, 'P'))),
        format!("**An IPv6 address** for {}:", prose(&who("fd00::1", "http://[fd00::1]/", 'P'))),
        format!(
            "and as `xn--...` {} do not match them",
            prose(&who("xn--bcher-kva.example", "http://xn--bcher-kva.example/", 'P'))
        ),
    ];
    let in_list = &only_alone - &who("*", x, 'P');
    let clients = [
        format!(
            "(`corp.local` and `web.corp.local`) is proxied by {};",
            prose(&who("x.example", below, 'P'))
        ),
        format!("(`.corp.local` and `corp.local`) by {}.", prose(&who(".x.example", x, 'P'))),
        format!("(`10.96.0.0/12`) are read by {},", prose(&who("10.96.0.0/12", address, 'D'))),
        format!("`*` alone is ignored by {};", prose(&who("*", x, 'P'))),
        format!("inside of a list, by {}, too.", prose(&in_list)),
    ];
    for (file, sentences) in [(DOCS, &no_proxy[..]), (CLIENTS_DOCS, &clients)] {
        let text = std::fs::read_to_string(file).expect("the docs");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing: Vec<&String> = sentences.iter().filter(|sentence| !text.contains(*sentence)).collect();
        assert!(missing.is_empty(), "{file}: expected:\n{missing:#?}");
    }
}

#[test]
fn lists_as_people_write_them_keep_what_is_promised() {
    check_all(REALISTIC.iter().map(|&list| list.to_owned()));
}

#[test]
fn every_entry_by_itself_keeps_what_is_promised() {
    check_all(PIECES.iter().map(|&list| list.to_owned()));
}

#[test]
fn generated_lists_keep_what_is_promised() {
    // A linear congruential generator: the same lists each time.
    let mut state = 20_261_121_u64;
    let mut below = move |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("fits") % end
    };
    let reasons = check_all((0..400).map(|_| {
        let separators = [",", ", ", " ", ",,", ","];
        let mut list = String::new();
        for _ in 0..=below(6) {
            list.push_str(PIECES[below(PIECES.len())]);
            list.push_str(separators[below(separators.len())]);
        }
        list
    }));
    let idle: Vec<_> =
        EXCEPTIONS.iter().filter(|known| !reasons.contains(known.why)).map(|known| known.why).collect();
    assert!(idle.is_empty(), "no exceptions any more: {idle:#?}");
}
