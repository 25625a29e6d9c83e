//! Lists as people write them and as nobody should, and URLs that they may be about. The same seed gives the same cases.

use reach::no_proxy::portable::{Author, List, unite};

use super::case::Case;

const HOSTS: [&str; 32] = [
    "web.corp.local",
    "corp.local",
    "api.web.corp.local",
    "notcorp.local",
    "WEB.Corp.Local",
    "web.corp.local.",
    "corp.local.",
    "inside.corp.local",
    "loop.corp.local",
    "mysql",
    "mysql.shop.svc",
    "mysql.shop.svc.cluster.local",
    "localhost",
    "www.example.com",
    "example.com",
    "a-b.example.com",
    "xn--bcher-kva.example",
    "www.xn--bcher-kva.example",
    "10.96.0.1",
    "10.96.0.10",
    "10.10.192.7",
    "10.10.191.255",
    "192.168.1.20",
    "172.16.5.4",
    "127.0.0.1",
    "127.1.2.3",
    "203.0.113.9",
    "[fd00::1]",
    "[FD00::25]",
    "[fd00:0:0:0::1]",
    "[::1]",
    "[::ffff:10.96.0.1]",
];

const ENTRIES: [&str; 35] = [
    "*",
    ".",
    "*.",
    "*.local",
    "*corp.local",
    "web*",
    "*.corp.local",
    ".svc",
    ".cluster.local",
    "svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "127.0.0.0/8",
    "10.",
    "10.96.",
    "10.96.*",
    "10.0.0.0/8",
    "10.96.0.0/12",
    "10.96.0.0/012",
    "010.096.000.000/12",
    "010.096.000.001",
    "10.96.0.0-10.96.0.255",
    "192.168.1.0/24",
    "0.0.0.0/0",
    "::1",
    "[::1]",
    "fd00::/8",
    "fd00::/64",
    "[fd00::]/64",
    "::/0",
    "local",
    "com",
    "*:80",
    "1",
    "::",
];

/// xorshift64*: good enough to mix, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap_or_default() % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len())]
    }
}

/// Lists and URLs.
pub fn pairs(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| {
            let (url, host, port) = url(&mut random);
            Case::new(&url, &list(&mut random, &host, port))
        })
        .collect()
}

/// The same URLs with the portable form of the same lists.
pub fn portable(pairs: &[Case]) -> Vec<Case> {
    let portable = |list: &str| unite([&List::parse(list, Author::Preset)].into_iter());
    pairs.iter().map(|case| Case::new(&case.url, &portable(case.list()))).collect()
}

/// Environments in which variables are missing, empty, differ, or name odd proxies.
pub fn environments(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| {
            let (url, host, port) = url(&mut random);
            let mut variables = Vec::new();
            let proxies =
                ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
            for (name, proxy_port) in proxies.into_iter().zip(3128..) {
                if random.one_in(2) {
                    variables.push((name.to_owned(), proxy(&mut random, proxy_port)));
                }
            }
            for name in ["no_proxy", "NO_PROXY"] {
                if random.one_in(2) {
                    let value = if random.one_in(5) { String::new() } else { list(&mut random, &host, port) };
                    variables.push((name.to_owned(), value));
                }
            }
            if random.one_in(20) {
                variables.push(("REQUEST_METHOD".to_owned(), "GET".to_owned()));
            }
            // A case without any is one with the defaults.
            if variables
                .iter()
                .all(|(name, _)| name.eq_ignore_ascii_case("no_proxy") || name == "REQUEST_METHOD")
            {
                variables.push(("http_proxy".to_owned(), String::new()));
            }
            // The order of an environment is nobody's choice.
            let by = random.below(variables.len());
            variables.rotate_left(by);
            Case { url, variables }
        })
        .collect()
}

fn proxy(random: &mut Random, port: u16) -> String {
    match random.below(16) {
        0 | 1 => String::new(),
        2 => format!("127.0.0.1:{port}"),
        3 => format!("localhost:{port}"),
        4 => format!("http://127.0.0.1:{port}/"),
        5 => format!("HTTP://127.0.0.1:{port}"),
        6 => format!("https://127.0.0.1:{port}"),
        7 => format!("socks5://127.0.0.1:{port}"),
        _ => format!("http://127.0.0.1:{port}"),
    }
}

/// A URL, its host and its port.
fn url(random: &mut Random) -> (String, String, u16) {
    let host = random.pick(&HOSTS);
    let (scheme, usual, other) = if random.one_in(5) { ("https", 443, 8443) } else { ("http", 80, 8080) };
    match random.below(10) {
        0..=5 => (format!("{scheme}://{host}/"), host.to_owned(), usual),
        6 => (format!("{scheme}://{host}:{usual}/"), host.to_owned(), usual),
        _ => (format!("{scheme}://{host}:{other}/"), host.to_owned(), other),
    }
}

fn list(random: &mut Random, host: &str, port: u16) -> String {
    let mut list = String::new();
    if random.one_in(25) {
        list.push(' ');
    }
    for index in 0..=random.below(5) {
        if index > 0 {
            let separator = match random.below(40) {
                0..=4 => ", ",
                5 => " ",
                6 => " ,",
                7 => ",,",
                8 => ";",
                9 => "\t",
                10 => ",\t",
                11 => "\n",
                _ => ",",
            };
            list.push_str(separator);
        }
        list.push_str(&entry(random, host, port));
    }
    if random.one_in(30) {
        list.push_str(random.pick(&[" ", ",", ", "]));
    }
    list
}

fn entry(random: &mut Random, host: &str, port: u16) -> String {
    let host = if random.one_in(3) { random.pick(&HOSTS) } else { host };
    let mut entry = match random.below(10) {
        0 | 1 => random.pick(&ENTRIES).to_owned(),
        _ => about(random, host),
    };
    match random.below(24) {
        0 => entry = entry.to_uppercase(),
        1 | 2 => entry = format!("{entry}:{port}"),
        3 => entry = format!("{entry}:{}", random.pick(&["80", "8080", "443", "99", "0", "x"])),
        4 => entry.push('.'),
        5 => entry = format!("{}{entry}", random.pick(&["http://", "https://", "*", "*.", ".", "..", "x"])),
        6 => entry.push_str(random.pick(&["/", "/path", "*", "/8", "/24"])),
        _ => {}
    }
    entry
}

/// An entry about a host.
fn about(random: &mut Random, host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.contains(':') {
        return match random.below(6) {
            0 => host.to_owned(),
            1 => format!("{bare}/{}", random.pick(&["8", "16", "60", "64", "127", "128", "129", "0"])),
            2 => "fd00:0::1".to_owned(),
            _ => bare.to_owned(),
        };
    }
    let dotted: Vec<&str> = bare.trim_end_matches('.').split('.').collect();
    if dotted.len() == 4 && dotted.iter().all(|part| part.parse::<u8>().is_ok()) {
        let parent = dotted[..3].join(".");
        return match random.below(10) {
            0 => format!("{parent}.0/24"),
            1..=3 => format!(
                "{bare}/{}",
                random.pick(&["0", "1", "8", "12", "18", "24", "31", "32", "33", "08", "", "255.255.0.0"])
            ),
            4 => format!("{parent}.0-{parent}.255"),
            5 => format!("{parent}.*"),
            6 => dotted[2..].join("."),
            7 => format!("{}/{}", dotted[..2].join("."), random.pick(&["8", "16"])),
            _ => bare.to_owned(),
        };
    }
    let suffix = dotted[random.below(dotted.len())..].join(".");
    match random.below(8) {
        0 | 1 => bare.to_owned(),
        2 | 3 => format!(".{suffix}"),
        4 => format!("*.{suffix}"),
        5 => format!("*{suffix}"),
        _ => suffix,
    }
}
