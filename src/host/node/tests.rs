use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::*;
use crate::inject::preset::ProxyVariable;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn settings() -> Vec<Setting> {
    [(ProxyVariable::Http, "http://me:a%40b@p:1"), (ProxyVariable::No, "localhost,10.0.0.0/8")]
        .map(|(proxy, value)| Setting { proxy, value: value.to_owned(), secret: false })
        .into()
}

fn everything() -> Options {
    Options {
        units: vec![Unit::Kubelet, Unit::Containerd, Unit::Docker, Unit::Containerd],
        system: vec![System::Sudoers, System::Dnf, System::Apt, System::Environment, System::Profile],
        certificates: vec![Certificate { name: "corp-1".to_owned(), pem: PEM.to_owned() }],
        static_pods: StaticPods::Inherit,
    }
}

fn paths(node: &Node) -> Vec<(&str, u32)> {
    node.files.iter().map(|file| (file.path.as_str(), file.mode)).collect()
}

/// Runs the script with `/etc` and `/usr` in a folder, and programs of the folder in front of the machine's.
fn run(root: &Path, script: &str, arguments: &[&str]) -> Output {
    let here = |text: &str| {
        text.replace("/etc/", &format!("{}/etc/", root.display()))
            .replace("/usr/", &format!("{}/usr/", root.display()))
    };
    let file = root.join("script");
    fs::write(&file, here(script)).unwrap();
    Command::new("sh")
        .arg(&file)
        .args(arguments)
        .env("PATH", format!("{}/bin:/usr/bin:/bin", root.display()))
        .output()
        .unwrap()
}

/// A program that writes its name and arguments to `calls`.
fn program(root: &Path, name: &str, more: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = root.join("bin").join(name);
    let calls = root.join("calls");
    fs::write(&file, format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{more}\n", calls.display())).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A machine on which the files are.
fn machine(node: &Node) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "etc/reach/ca", "etc/dnf", "usr/local/share/ca-certificates"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for file in &node.files {
        let path = root.path().join(file.path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.content).unwrap();
    }
    // containerd and the kubelet are there, Docker is not.
    program(
        root.path(),
        "systemctl",
        "case \"$*\" in show*docker*) echo not-found;; show*) echo loaded;; esac",
    );
    program(root.path(), "update-ca-certificates", "");
    root
}

fn script_of(node: &Node) -> &str {
    &node.files.iter().find(|file| file.path == SCRIPT).unwrap().content
}

#[test]
fn certificates_are_read_one_by_one_and_nothing_else_with_them() {
    let made = || rcgen::generate_simple_self_signed(["ca.corp.example".to_owned()]).unwrap();
    let (first, second) = (made(), made());
    let names = |text: &str| -> Option<Vec<String>> {
        Some(Certificate::read("corp.ca", text)?.into_iter().map(|certificate| certificate.name).collect())
    };
    assert_eq!(names(&first.cert.pem()), Some(vec!["corp-ca".to_owned()]));
    let both = format!("# The company's\n{}{}", first.cert.pem(), second.cert.pem());
    assert_eq!(names(&both), Some(vec!["corp-ca-1".to_owned(), "corp-ca-2".to_owned()]));
    let read = Certificate::read("corp.ca", &both.replace('\n', "\r\n")).unwrap();
    assert_eq!([&*read[0].pem, &*read[1].pem], [first.cert.pem(), second.cert.pem()]);
    let key = first.signing_key.serialize_pem();
    let misnamed = first.cert.pem().replace("CERTIFICATE", "X509 CRL");
    for other in ["", "text", PEM, &key, &misnamed, &(first.cert.pem() + &key), &(first.cert.pem() + PEM)] {
        assert_eq!(names(other), None, "{other}");
    }
}

#[test]
fn a_node_gets_its_files_in_one_order_whatever_order_is_given() {
    let node = Node::new(&settings(), &Options::default()).unwrap();
    let expected = [
        ("/etc/reach/proxy.env", 0o600),
        ("/etc/systemd/system/containerd.service.d/10-reach-proxy.conf", 0o644),
        ("/etc/reach/apply-proxy.sh", 0o700),
    ];
    assert_eq!(paths(&node), expected);
    assert_eq!(node.commands, [APPLY]);
    let node = Node::new(&settings(), &everything()).unwrap();
    let expected = [
        ("/etc/reach/proxy.env", 0o600),
        ("/etc/systemd/system/containerd.service.d/10-reach-proxy.conf", 0o644),
        ("/etc/systemd/system/docker.service.d/10-reach-proxy.conf", 0o644),
        ("/etc/systemd/system/kubelet.service.d/10-reach-proxy.conf", 0o644),
        ("/etc/profile.d/reach-proxy.sh", 0o644),
        ("/etc/reach/environment", 0o600),
        ("/etc/apt/apt.conf.d/95reach-proxy", 0o644),
        ("/etc/reach/dnf.conf", 0o600),
        ("/etc/sudoers.d/reach-proxy", 0o440),
        ("/etc/reach/ca/corp-1.crt", 0o644),
        ("/etc/reach/apply-proxy.sh", 0o700),
    ];
    assert_eq!(paths(&node), expected);
    assert_eq!(node.commands, [APPLY, EXPORT]);
    assert_eq!(node.for_worker(), Node { commands: vec![APPLY], ..node.clone() });
    assert!(node.files.iter().all(|file| is_path_of_reach(&file.path)));
    assert!(node.files.iter().all(|file| file.content.starts_with(MARK)));
    assert!(!is_path_of_reach("/etc/systemd/system/containerd.service.d/http-proxy.conf"));
    assert_eq!(Node::new(&[], &Options::default()), Ok(Node::default()));
}

#[test]
fn neither_the_script_nor_a_command_has_anything_for_jinja_or_clusterctl() {
    for options in [Options::default(), everything()] {
        let node = Node::new(&settings(), &options).unwrap();
        for text in node.commands.iter().copied().chain([script_of(&node)]) {
            assert!(!["${", "{{", "{%", "{#"].iter().any(|opener| text.contains(opener)), "{text}");
        }
    }
}

#[test]
fn every_value_that_cannot_be_written_is_told() {
    let wrong = [
        Setting { proxy: ProxyVariable::Http, value: "http://a\"b#@p:1".to_owned(), secret: false },
        Setting { proxy: ProxyVariable::Https, value: "p:1".to_owned(), secret: false },
    ];
    let errors = Node::new(&wrong, &everything()).unwrap_err();
    let found: Vec<(&str, &str)> =
        errors.iter().map(|error| (error.path.as_str(), error.variable.lower())).collect();
    let expected = [
        ("/etc/environment", "http_proxy"),
        ("/etc/apt/apt.conf.d/95reach-proxy", "http_proxy"),
        ("/etc/dnf/dnf.conf", "https_proxy"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_script_restarts_what_is_there_and_may_run_twice() {
    let node = Node::new(&settings(), &everything()).unwrap();
    let root = machine(&node);
    let etc = |name: &str| root.path().join("etc").join(name);
    fs::write(etc("environment"), "LANG=C\nno_final_newline=1").unwrap();
    fs::write(etc("dnf/dnf.conf"), "[main]\ngpgcheck=1\n[other]\nproxy=http://own\n").unwrap();
    fs::write(root.path().join("usr/local/share/ca-certificates/reach-old.crt"), "old").unwrap();
    let first = run(root.path(), script_of(&node), &[]);
    assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
    let block = |path: &str| {
        let file = node.files.iter().find(|file| file.path == path).unwrap();
        file.content.clone()
    };
    let environment = format!("LANG=C\nno_final_newline=1\n{}", block("/etc/reach/environment"));
    let dnf = format!("[main]\ngpgcheck=1\n{}[other]\nproxy=http://own\n", block("/etc/reach/dnf.conf"));
    let calls = [
        "update-ca-certificates ",
        "systemctl daemon-reload",
        "systemctl show --property=LoadState --value containerd.service",
        "systemctl restart containerd.service",
        "systemctl show --property=LoadState --value docker.service",
        "systemctl show --property=LoadState --value kubelet.service",
        "systemctl try-restart kubelet.service",
        "",
    ]
    .join("\n");
    let certificates = root.path().join("usr/local/share/ca-certificates");
    let check = |times: usize| {
        assert_eq!(fs::read_to_string(etc("environment")).unwrap(), environment);
        assert_eq!(fs::read_to_string(etc("dnf/dnf.conf")).unwrap(), dnf);
        assert_eq!(fs::read_to_string(root.path().join("calls")).unwrap(), calls.repeat(times));
        let certificate = fs::read_to_string(certificates.join("reach-corp-1.crt")).unwrap();
        assert_eq!(certificate, format!("{MARK}\n{PEM}"));
        assert!(!certificates.join("reach-old.crt").exists());
        assert!(!etc("environment.reach").exists());
    };
    check(1);
    assert!(run(root.path(), script_of(&node), &[]).status.success());
    check(2);
}

/// The last value of a name in `[main]`, as libdnf takes it.
fn dnf_reads(text: &str, name: &str) -> Option<String> {
    let (mut section, mut value) = (None, None);
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            section = header.split(']').next();
        } else if let Some((key, text)) = line.split_once('=')
            && section == Some("main")
            && key.trim_end() == name
        {
            value = Some(text.trim().to_owned());
        }
    }
    value
}

#[test]
fn dnf_takes_our_proxy_whatever_others_say_and_no_password_of_theirs_goes_to_it() {
    let theirs = "proxy=http://theirs:8080\nproxy_username=they\nproxy_password=their-own\n";
    for value in ["http://p:1", "http://me:a%40b@p:1"] {
        let settings = [Setting { proxy: ProxyVariable::Http, value: value.to_owned(), secret: false }];
        let node = Node::new(&settings, &everything()).unwrap();
        let root = machine(&node);
        let file = root.path().join("etc/dnf/dnf.conf");
        let block = &node.files.iter().find(|file| file.path == "/etc/reach/dnf.conf").unwrap().content;
        for (before, expected) in [
            (format!("[main]\n{theirs}"), format!("[main]\n{theirs}{block}")),
            (format!("[main]\n{theirs}\n[other]\nx=1"), format!("[main]\n{theirs}\n{block}[other]\nx=1\n")),
            ("[main]".to_owned(), format!("[main]\n{block}")),
            ("[a]\nb=1\n[main]".to_owned(), format!("[a]\nb=1\n[main]\n{block}")),
            (
                format!(" [main] # ours\n{theirs} [o]\n[ p]\n[main]\n{theirs}[q]\n[r]\n"),
                format!(" [main] # ours\n{theirs}{block} [o]\n[ p]\n[main]\n{theirs}{block}[q]\n[r]\n"),
            ),
            // Where an earlier version put it.
            (
                format!("[main]\n{MARK}\nproxy=http://old\n{END}\n{theirs}"),
                format!("[main]\n{theirs}{block}"),
            ),
        ] {
            fs::write(&file, &before).unwrap();
            for _ in 0..2 {
                let output = run(root.path(), script_of(&node), &["--no-restart"]);
                assert!(output.stderr.is_empty(), "{output:?}");
                let text = fs::read_to_string(&file).unwrap();
                assert_eq!(text, expected);
                let has_user = value.contains('@');
                let read = |name: &str| dnf_reads(&text, name).unwrap();
                assert_eq!(read("proxy"), "http://p:1");
                assert_eq!(read("proxy_username"), if has_user { "me" } else { "" });
                assert_eq!(read("proxy_password"), if has_user { "a@b" } else { "" });
            }
        }
        for without in ["", "# nothing\n", "[other]\nx=1\n"] {
            fs::write(&file, without).unwrap();
            let output = run(root.path(), script_of(&node), &["--no-restart"]);
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.contains("dnf.conf has no line [main], "), "{told}");
            assert_eq!(fs::read_to_string(&file).unwrap(), without);
        }
    }
}

#[test]
fn a_block_that_has_lost_its_end_takes_no_line_of_others_with_it() {
    let node = Node::new(&settings(), &everything()).unwrap();
    let root = machine(&node);
    let etc = |name: &str| root.path().join("etc").join(name);
    let block = format!("{MARK}\nA=1\n{END}\n");
    for (text, is_torn) in [
        (format!("LANG=C\n{MARK}\nA=1\nMINE=1\n"), true),
        (format!("LANG=C\n{MARK}"), true),
        (format!("{block}LANG=C\n{MARK}\nMINE=1\n"), true),
        (format!("{MARK}\nA=1\nMINE=1\n{block}"), true),
        (format!("LANG=C\n{block}"), false),
        (format!("{block}LANG=C\n{block}"), false),
        (format!("{END}\nLANG=C\n"), false),
    ] {
        fs::write(etc("environment"), &text).unwrap();
        let output = run(root.path(), script_of(&node), &["--no-restart"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let after = fs::read_to_string(etc("environment")).unwrap();
        if is_torn {
            let expected =
                format!("{} has the first line of what reach writes", etc("environment").display());
            assert!(told.contains(&expected), "{text}: {told}");
            assert_eq!(after, text);
        } else {
            assert_eq!((told.as_str(), after.contains("LANG=C\n")), ("", true), "{text}");
            assert_eq!(after.matches(MARK).count(), 1, "{after}");
        }
    }
}

#[test]
fn a_line_that_a_pam_env_would_cut_stays_out_of_the_environment() {
    let node = Node::new(&settings(), &everything()).unwrap();
    let root = machine(&node);
    let etc = |name: &str| root.path().join("etc").join(name);
    let block = |bytes: usize| {
        let value = "x".repeat(bytes - "NO_PROXY=".len());
        format!("{MARK}\nhttp_proxy=http://p:1\nNO_PROXY={value}\n{END}\n")
    };
    // What Cluster API or clusterctl has made of the file.
    fs::write(etc("environment"), "LANG=C\n").unwrap();
    fs::write(etc("reach/environment"), block(1023)).unwrap();
    let output = run(root.path(), script_of(&node), &["--no-restart"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && told.contains("reach: NO_PROXY has more than the 1022 bytes"),
        "{told}"
    );
    assert!(!told.contains("xxx"), "{told}");
    assert_eq!(fs::read_to_string(etc("environment")).unwrap(), "LANG=C\n");
    fs::write(etc("reach/environment"), block(1022)).unwrap();
    let output = run(root.path(), script_of(&node), &["--no-restart"]);
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(fs::read_to_string(etc("environment")).unwrap(), format!("LANG=C\n{}", block(1022)));
}

#[test]
fn a_full_disk_loses_no_line_of_others() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let node = Node::new(&settings(), &everything()).unwrap();
    let root = machine(&node);
    let etc = |name: &str| root.path().join("etc").join(name);
    let before = [("environment", "LANG=C\n"), ("dnf/dnf.conf", "[main]\ngpgcheck=1\n")];
    for (name, text) in before {
        fs::write(etc(name), text).unwrap();
        fs::set_permissions(etc(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    // Not one byte can be written.
    let full = format!("trap '' XFSZ; ulimit -f 0\n{}", script_of(&node));
    let output = run(root.path(), &full, &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    for (name, text) in before {
        assert_eq!(fs::read_to_string(etc(name)).unwrap(), text);
        let expected = format!("reach: cannot write {}, it stays as it is", etc(name).display());
        assert!(told.contains(&expected), "{told}");
        assert!(!etc(&format!("{name}.reach")).exists());
    }
    // Nor does it lose them where the file is a link; and its mode stays.
    fs::rename(etc("environment"), etc("real")).unwrap();
    std::os::unix::fs::symlink(etc("real"), etc("environment")).unwrap();
    assert!(run(root.path(), script_of(&node), &[]).status.success());
    assert!(fs::symlink_metadata(etc("environment")).unwrap().is_symlink());
    assert!(fs::read_to_string(etc("real")).unwrap().starts_with("LANG=C\n# Written by reach"));
    assert_eq!(fs::metadata(etc("real")).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn the_script_goes_on_when_something_fails_and_restarts_nothing_before_services_start() {
    let node = Node::new(&settings(), &everything()).unwrap();
    let root = machine(&node);
    program(root.path(), "systemctl", "case \"$*\" in show*) echo loaded;; *) exit 1;; esac");
    program(root.path(), "update-ca-certificates", "exit 1");
    let output = run(root.path(), script_of(&node), &[]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "reach: update-ca-certificates failed",
        "reach: systemctl daemon-reload failed",
        "reach: cannot restart containerd.service: see journalctl -u containerd.service",
        "reach: cannot restart kubelet.service",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    // dnf is not installed there, and gets no file of it.
    assert!(!root.path().join("etc/dnf/dnf.conf").exists());
    fs::remove_file(root.path().join("calls")).unwrap();
    assert!(run(root.path(), script_of(&node), &["--no-restart"]).status.success());
    let calls = fs::read_to_string(root.path().join("calls")).unwrap();
    assert_eq!(calls, "update-ca-certificates \n");
}
