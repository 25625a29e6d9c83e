//! What a machine that boots needs of this one.

use std::process::{Command, ExitCode};

use super::super::node::{self, layout::search_path};

/// Programs that have to be there besides those of a real node, and the Debian package of each.
const PROGRAMS: [(&str, &str); 6] = [
    ("docker-registry", "docker-registry"),
    ("gpgv", "gpgv"),
    ("mmdebstrap", "mmdebstrap"),
    ("openssl", "openssl"),
    ("systemd-nspawn", "systemd-container"),
    ("/usr/lib/squid/basic_ncsa_auth", "squid-openssl"),
];

/// What a machine that boots needs and is not here, each by its name; empty when a [`Site`](super::Site) can be started.
pub fn missing() -> Vec<String> {
    let mut missing = node::missing();
    for (program, package) in PROGRAMS {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program} >/dev/null")])
            .env("PATH", search_path(&[]))
            .status();
        if !found.is_ok_and(|status| status.success()) {
            missing.push(format!("{program} ({package})"));
        }
    }
    missing
}

/// Says what is missing, loudly, if something is. A failure where nobody would read it.
pub fn report_missing() -> ExitCode {
    node::report("tests/boot.rs, of a machine that boots", "a machine that boots", &missing())
}
