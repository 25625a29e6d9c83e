//! What reach writes for hosts, read back by the programs that read it there: each reads exactly what was meant, or the writer
//! had said that it cannot be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use reach::host::targets::Target;
use reach::host::values::Setting;
use reach::inject::preset::ProxyVariable;
use serde_json::Value;

use crate::journey::Journey;
use crate::support::boot::Site;

/// Where the machine's disk has files for one reader at a time.
const PLACE: &str = "/etc/try";

/// Variables that a reader found, by name.
type Variables = BTreeMap<String, String>;

/// Somebody who reads a file of a host: writes it where it belongs, and returns what is read.
type Reader = fn(&Site, &str) -> Variables;

/// Every reader, and what is written for it.
const READERS: [(&str, Target, Reader); 8] = [
    ("a service of systemd", Target::EnvironmentFile, service),
    ("sh", Target::EnvironmentFile, sh),
    ("sh, a login shell", Target::Profile, login_shell),
    ("bash, a login shell", Target::Profile, login_bash),
    ("pam_env", Target::EtcEnvironment, session),
    ("systemd, for services of users", Target::EtcEnvironment, environment_generator),
    ("apt", Target::Apt, apt),
    ("sudo", Target::Sudoers, sudo),
];

pub fn read_what_was_meant(journey: &Journey) {
    let site = &journey.site;
    let raw: String = (b' '..=b'~').map(char::from).collect();
    let encoded = percent_encoded(&raw);
    let long: Vec<String> =
        (0..400).map(|number| format!("host-{number}.department-{}.corp.example", number % 7)).collect();
    let list = long.join(",");
    // What is percent-encoded as a URL wants it, everybody reads. pam_env has no escapes and short lines, apt no escapes.
    let cases: [(_, _, &str, &[Target]); 5] = [
        ("a password that is percent-encoded", proxies(&encoded), ".corp.example,10.0.0.0/8", &[]),
        (
            "a password with every character as it is",
            proxies(&raw),
            ".corp.example",
            &[Target::EtcEnvironment, Target::Apt],
        ),
        ("a user without a password", "http://me@proxy.corp.example:3128".to_owned(), "localhost,web", &[]),
        ("a long list", proxies("plain"), &list, &[Target::EtcEnvironment]),
        ("an empty list", proxies("plain"), "", &[]),
    ];
    let mut report = String::new();
    for (case, proxy, no_proxy, refused_by) in cases {
        let settings: Vec<Setting> =
            [(ProxyVariable::Http, &*proxy), (ProxyVariable::Https, &*proxy), (ProxyVariable::No, no_proxy)]
                .into_iter()
                // As `reach::host::values` has it: what is empty is not there.
                .filter(|(_, value)| !value.is_empty())
                .map(|(proxy, value)| Setting { proxy, value: value.to_owned(), secret: false })
                .collect();
        let meant: Variables = settings
            .iter()
            .flat_map(|setting| setting.names().map(|name| (name.to_owned(), setting.value.clone())))
            .collect();
        for (reader, target, read) in READERS {
            let written = target.write(&settings);
            assert_eq!(written.is_err(), refused_by.contains(&target), "{case}: {reader}");
            let written = match written {
                Ok(text) => text,
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.starts_with(&target.path()) && !error.contains(&proxy), "{case}: {reader}");
                    writeln!(report, "{case}: {reader}: refused").expect("a string");
                    continue;
                }
            };
            let found = read(site, &written);
            let expected = if target == Target::Apt { of_apt(&meant) } else { meant.clone() };
            for (name, value) in &expected {
                assert!(found.get(name) == Some(value), "{case}: {reader} reads another {name}");
            }
            let unmeant: Vec<_> = found.keys().filter(|name| !expected.contains_key(*name)).collect();
            assert!(unmeant.is_empty(), "{case}: {reader} reads {unmeant:?}, too");
            writeln!(report, "{case}: {reader}: {} values", expected.len()).expect("a string");
        }
    }
    dnf(site);
    println!("{report}");
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        write!(all, "%{byte:02X}").expect("a string takes all");
        all
    })
}

fn proxies(password: &str) -> String {
    format!("http://me:{password}@proxy.corp.example:3128")
}

/// apt has options instead of variables, and no list: a host that is not behind the proxy is said to be `DIRECT`.
fn of_apt(meant: &Variables) -> Variables {
    let mut options = Variables::new();
    for (scheme, name) in [("http", "http_proxy"), ("https", "https_proxy")] {
        options.insert(format!("Acquire::{scheme}::Proxy"), meant[name].clone());
    }
    // One host each: neither what is below a name nor a network can be said.
    let list = meant.get("no_proxy").map(String::as_str).unwrap_or_default();
    let entries = list.split(',').filter(|entry| !entry.is_empty() && !entry.contains('/'));
    for host in entries.map(|entry| entry.trim_start_matches('.')) {
        options.insert(format!("Acquire::http::Proxy::{host}"), "DIRECT".to_owned());
    }
    options
}

fn service(site: &Site, text: &str) -> Variables {
    let file = format!("{PLACE}/proxy.env");
    write(site, &file, text);
    let run = "systemd-run --quiet --wait --pipe --collect";
    variables(&site.shell(&format!("{run} --property=EnvironmentFile={file} env --null")))
}

fn sh(site: &Site, text: &str) -> Variables {
    let file = format!("{PLACE}/proxy.env");
    write(site, &file, text);
    variables(&site.shell(&format!("set -a; . {file}; set +a; exec env --null")))
}

fn login_shell(site: &Site, text: &str) -> Variables {
    variables(&in_place(site, &Target::Profile.path(), text, || {
        site.shell("exec env -i sh -lc 'exec env --null'")
    }))
}

fn login_bash(site: &Site, text: &str) -> Variables {
    variables(&in_place(site, &Target::Profile.path(), text, || {
        site.shell("exec env -i bash -lc 'exec env --null'")
    }))
}

fn session(site: &Site, text: &str) -> Variables {
    variables(&in_place(site, &Target::EtcEnvironment.path(), text, || {
        site.shell("exec env -i /usr/bin/su --shell=/bin/sh --command='exec env --null' nobody")
    }))
}

/// systemd's user manager takes what these print.
fn environment_generator(site: &Site, text: &str) -> Variables {
    variables(&in_place(site, &Target::EtcEnvironment.path(), text, || {
        let generator = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator";
        // It escapes what it prints as a shell would read it.
        site.shell(&format!("eval \"$(env -i {generator} | sed 's/^/export /')\"; exec env --null"))
    }))
}

fn apt(site: &Site, text: &str) -> Variables {
    let dump = in_place(site, &Target::Apt.path(), text, || {
        site.shell("apt-config dump --format '%f %v%n' Acquire")
    });
    let lines = dump.lines().filter_map(|line| line.split_once(' '));
    let proxies = lines.filter(|(name, _)| name.contains("::Proxy"));
    proxies.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// It keeps the variables of who calls it, so it is called with those that [`sh`] has read before.
fn sudo(site: &Site, text: &str) -> Variables {
    variables(&in_place(site, &Target::Sudoers.path(), text, || {
        site.shell("visudo --check --quiet >/dev/null");
        site.shell(&format!("set -a; . {PLACE}/proxy.env; set +a; exec sudo --user=nobody env --null"))
    }))
}

/// dnf has one proxy, and the user and the password apart from it, as they are. `$` it takes for a variable, and blanks at the
/// ends away.
fn dnf(site: &Site) {
    let settings = |password: &str| {
        let value = proxies(&percent_encoded(password));
        vec![Setting { proxy: ProxyVariable::Https, value, secret: false }]
    };
    for refused in ["a$b", " a", "a "] {
        assert!(Target::Dnf.write(&settings(refused)).is_err(), "dnf does not read {refused:?}");
    }
    let password: String = (b' '..=b'~').filter(|byte| *byte != b'$').map(char::from).collect();
    let password = password.trim();
    let text = Target::Dnf.write(&settings(password)).expect("a password for dnf");
    let file = format!("{PLACE}/dnf.conf");
    write(site, &file, &format!("[main]\n{text}"));
    let ask = "import dnf.conf, json, sys; conf = dnf.conf.MainConf(); conf.read(sys.argv[1]); \
               print(json.dumps([conf.proxy, conf.proxy_username, conf.proxy_password]))";
    let read: Value = serde_json::from_str(&site.shell(&format!("python3 -c '{ask}' {file}"))).expect("JSON");
    assert_eq!(read[0], "http://proxy.corp.example:3128");
    assert_eq!(read[1], "me");
    assert!(read[2] == password, "dnf reads another password");
}

/// Puts a file on the machine's disk, for root alone.
pub fn write(site: &Site, path: &str, text: &str) {
    let place = site.path(path);
    fs::create_dir_all(place.parent().expect("a folder")).expect("the machine's disk");
    fs::write(&place, text).expect("the machine's disk");
    fs::set_permissions(&place, Permissions::from_mode(0o600)).expect("our file");
}

/// Lets somebody read a file at its own place, and gives back what stood there.
fn in_place(site: &Site, path: &str, text: &str, read: impl FnOnce() -> String) -> String {
    let place = site.path(path);
    let before = fs::read(&place).ok();
    fs::write(&place, text).expect("the machine's disk");
    let output = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    match before {
        Some(before) => fs::write(&place, before).expect("the machine's disk"),
        None => fs::remove_file(&place).expect("the machine's disk"),
    }
    output.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What `env --null` printed, as far as it is about proxies.
fn variables(environment: &str) -> Variables {
    let pairs = environment.split('\0').filter_map(|pair| pair.split_once('='));
    let ours = pairs.filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy"));
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
