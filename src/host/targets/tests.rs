//! What is written is read back by readers that are written here, from the documentation of each format, and by a shell.

use std::process::Command;

use proptest::prelude::*;

use super::*;

fn setting(proxy: ProxyVariable, value: &str) -> Setting {
    Setting { proxy, value: value.to_owned(), secret: false }
}

/// Every printable character of ASCII.
fn every_character() -> String {
    (b' '..=b'~').map(char::from).collect()
}

/// The lines of a file without the mark, which is the first.
fn body(target: Target, settings: &[Setting]) -> Vec<String> {
    let text = target.write(settings).unwrap();
    assert!(text.ends_with('\n'));
    let mut lines = text.lines().map(str::to_owned);
    assert_eq!(lines.next().as_deref(), Some(MARK));
    lines.collect()
}

/// The line of `http_proxy`, or why there is none.
fn line(target: Target, value: &str) -> Result<String, Why> {
    match target.write(&[setting(ProxyVariable::Http, value)]) {
        Ok(text) => Ok(text.lines().nth(1).unwrap().to_owned()),
        Err(error) => Err(error.why),
    }
}

// === readers ===

type Pairs = Vec<(String, String)>;
type Reader = fn(&str) -> Pairs;

/// systemd.exec(5), `EnvironmentFile=`, for values on one line.
fn read_systemd(text: &str) -> Pairs {
    let mut pairs = Pairs::new();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let Some((name, raw)) = line.split_once('=') else { continue };
        let raw = raw.trim_matches([' ', '\t', '\r']);
        let value = if let Some(inner) = raw.strip_prefix('\'') {
            let (value, behind) = inner.split_once('\'').expect("the quote ends");
            assert_eq!(behind, "");
            value.to_owned()
        } else if let Some(inner) = raw.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = inner.chars();
            loop {
                match characters.next().expect("the quote ends") {
                    '"' => break,
                    '\\' => match characters.next().expect("the quote ends") {
                        plain @ ('"' | '\\' | '`' | '$') => value.push(plain),
                        other => value.extend(['\\', other]),
                    },
                    c => value.push(c),
                }
            }
            assert_eq!(characters.as_str(), "");
            value
        } else {
            let mut value = String::new();
            let mut characters = raw.chars();
            while let Some(c) = characters.next() {
                value.extend(if c == '\\' { characters.next() } else { Some(c) });
            }
            value
        };
        pairs.push((name.to_owned(), value));
    }
    pairs
}

/// POSIX sh, for what stands between single quotes or behind a backslash.
fn read_sh(text: &str) -> Pairs {
    let mut pairs = Pairs::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, word) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
        let (mut value, mut quoted) = (String::new(), false);
        let mut characters = word.chars();
        while let Some(c) = characters.next() {
            match c {
                '\'' => quoted = !quoted,
                '\\' if !quoted => value.extend(characters.next()),
                c if quoted || c.is_ascii_alphanumeric() => value.push(c),
                c => panic!("{c} is not quoted"),
            }
        }
        assert!(!quoted);
        pairs.push((name.to_owned(), value));
    }
    pairs
}

/// `_assemble_line` and `_parse_env_file` of Linux-PAM 1.3.1.
fn read_pam(text: &str) -> Pairs {
    let mut pairs = Pairs::new();
    for line in text.lines() {
        // With its end and a zero byte behind it; a longer one is cut, or the last that is read.
        assert!(line.len() + 2 <= 1024);
        let line = line.trim_start_matches([' ', '\t']);
        let line = line.split('#').next().unwrap();
        assert!(!line.trim_end().ends_with('\\'), "goes on in the next line");
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { continue };
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let value = match value.strip_prefix(['"', '\'']) {
            Some(inner) => inner.strip_suffix(['"', '\'']).unwrap_or(inner),
            None => value,
        };
        pairs.push((name.to_owned(), value.to_owned()));
    }
    pairs
}

/// environment.d(5), which reads `/etc/environment` as well: variables are replaced.
fn read_environment_d(text: &str) -> Pairs {
    let pairs = read_systemd(text);
    assert!(pairs.iter().all(|(_, value)| !value.contains('$')));
    pairs
}

/// apt.conf(5), one option a line: its name and its value.
fn read_apt(text: &str) -> Pairs {
    let option = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-:._+".contains(&byte)), "{name}");
        let value = value.strip_prefix('"').unwrap().strip_suffix("\";").unwrap();
        assert!(!value.contains(['"', '\\']));
        (name.to_owned(), value.to_owned())
    };
    text.lines().filter(|line| !line.starts_with(['#', '/'])).map(option).collect()
}

/// What a shell makes of a file: the values of these variables.
fn real_sh(text: &str, names: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, text).unwrap();
    let show: Vec<String> = names.iter().map(|name| format!("printf '%s\\n' \"${name}\"")).collect();
    let output = Command::new("sh")
        .args(["-euc", &format!(". \"$0\"\n{}", show.join("\n"))])
        .arg(&file)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

// === tables ===

#[test]
fn systemd_reads_values_between_quotes_and_no_specifiers() {
    let cases = [
        ("http://p:1", "http_proxy='http://p:1'"),
        // Not doubled, as a unit would need it.
        ("http://me:a%40b@p:1", "http_proxy='http://me:a%40b@p:1'"),
        ("a b;#$`\"\\c", "http_proxy='a b;#$`\"\\c'"),
        ("it's", "http_proxy=\"it's\""),
        ("'$`\"\\%", "http_proxy=\"'\\$\\`\\\"\\\\%\""),
    ];
    for (value, expected) in cases {
        assert_eq!(line(Target::EnvironmentFile, value).as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn a_shell_reads_values_between_single_quotes() {
    let cases = [
        ("http://me:a%40b@p:1", "export http_proxy='http://me:a%40b@p:1'"),
        ("$HOME`id`\"\\", "export http_proxy='$HOME`id`\"\\'"),
        ("it's", "export http_proxy='it'\\''s'"),
    ];
    for (value, expected) in cases {
        assert_eq!(line(Target::Profile, value).as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn pam_env_reads_plain_values_and_little_else() {
    assert_eq!(
        line(Target::EtcEnvironment, "http://me:a%23b@p:1/;`").as_deref(),
        Ok("http_proxy=http://me:a%23b@p:1/;`")
    );
    for value in ["a#b", "a'b", "\"a\"", "a\\", "a$b"] {
        assert_eq!(line(Target::EtcEnvironment, value), Err(Why::EnvironmentCharacter), "{value}");
    }
    for value in [" a", "a "] {
        assert_eq!(line(Target::EtcEnvironment, value), Err(Why::EnvironmentBlank));
    }
    // A buffer of 1,024 bytes, with the end of the line and of the string in it.
    let fits = "x".repeat(1022 - "http_proxy=".len());
    assert!(line(Target::EtcEnvironment, &fits).is_ok());
    assert_eq!(line(Target::EtcEnvironment, &format!("{fits}x")), Err(Why::EnvironmentLength(1023)));
}

#[test]
fn apt_reads_urls_with_a_scheme_that_it_knows() {
    assert_eq!(
        line(Target::Apt, "http://me:a#b;'$%40@p:1/").as_deref(),
        Ok("Acquire::http::Proxy \"http://me:a#b;'$%40@p:1/\";")
    );
    for value in ["http://a\"b", "http://a\\b"] {
        assert_eq!(line(Target::Apt, value), Err(Why::AptCharacter), "{value}");
    }
    for value in ["proxy:3128", "DIRECT", "socks5://p:1", ""] {
        assert_eq!(line(Target::Apt, value), Err(Why::AptScheme), "{value}");
    }
}

#[test]
fn apt_goes_directly_to_each_host_that_no_proxy_names() {
    let list = ".corp.example,corp.example,.my_db,my_db,localhost,10.0.0.1,fd00::1,10.0.0.0/8,web:80,10.0.0.1-10.0.0.9";
    let settings = [setting(ProxyVariable::Http, "http://p:1"), setting(ProxyVariable::No, list)];
    assert_eq!(
        body(Target::Apt, &settings),
        [
            "Acquire::http::Proxy \"http://p:1\";",
            "Acquire::https::Proxy \"DIRECT\";",
            "Acquire::http::Proxy::10.0.0.1 \"DIRECT\";",
            "Acquire::http::Proxy::corp.example \"DIRECT\";",
            "Acquire::http::Proxy::localhost \"DIRECT\";",
            "Acquire::http::Proxy::my_db \"DIRECT\";",
        ]
    );
}

#[test]
fn apt_takes_all_proxy_for_what_has_none_and_no_proxy_for_everything() {
    let all = setting(ProxyVariable::All, "socks5h://p:2");
    let https = setting(ProxyVariable::Https, "http://p:1");
    assert_eq!(
        body(Target::Apt, &[all.clone(), https]),
        ["Acquire::http::Proxy \"socks5h://p:2\";", "Acquire::https::Proxy \"http://p:1\";"]
    );
    let direct = ["Acquire::http::Proxy \"DIRECT\";", "Acquire::https::Proxy \"DIRECT\";"];
    assert_eq!(body(Target::Apt, &[all, setting(ProxyVariable::No, "*")]), direct);
    assert!(body(Target::Apt, &[setting(ProxyVariable::No, "web")]).is_empty());
}

#[test]
fn drop_ins_refer_to_the_file_of_variables() {
    for unit in Unit::ALL {
        let target = Target::DropIn(unit);
        assert_eq!(target.path(), format!("/etc/systemd/system/{}.d/10-reach-proxy.conf", unit.name()));
        assert_eq!(body(target, &[]), ["[Service]", "EnvironmentFile=/etc/reach/proxy.env"]);
    }
}

#[test]
fn sudo_keeps_both_spellings_of_what_is_set() {
    let settings = [setting(ProxyVariable::No, "web"), setting(ProxyVariable::Http, "http://p:1")];
    assert_eq!(
        body(Target::Sudoers, &settings),
        ["Defaults env_keep += \"http_proxy HTTP_PROXY no_proxy NO_PROXY\""]
    );
    assert!(body(Target::Sudoers, &[]).is_empty());
}

#[test]
fn files_have_both_spellings_in_one_order_whatever_order_is_given() {
    let settings: Vec<Setting> = FAMILIES.iter().rev().map(|proxy| setting(*proxy, "http://p:1")).collect();
    let names = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "ftp_proxy",
        "FTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ];
    let readers: [(Target, Reader); 3] = [
        (Target::EnvironmentFile, read_systemd),
        (Target::Profile, read_sh),
        (Target::EtcEnvironment, read_pam),
    ];
    for (target, read) in readers {
        let text = target.write(&settings).unwrap();
        assert_eq!(read(&text).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        let reversed: Vec<Setting> = settings.iter().rev().cloned().collect();
        assert_eq!(target.write(&reversed).unwrap(), text);
    }
}

#[test]
fn errors_name_file_and_variable_and_no_value() {
    let settings = [setting(ProxyVariable::Https, "http://me:s3\"cr#t\u{e9}@p:1")];
    for (target, expected) in [
        (Target::EnvironmentFile, "/etc/reach/proxy.env cannot hold https_proxy: expected printable ASCII"),
        (Target::Profile, "/etc/profile.d/reach-proxy.sh cannot hold https_proxy: expected printable ASCII"),
        (Target::EtcEnvironment, "/etc/environment cannot hold https_proxy: expected printable ASCII"),
        (Target::Apt, "/etc/apt/apt.conf.d/95reach-proxy cannot hold https_proxy: expected printable ASCII"),
    ] {
        let message = target.write(&settings).unwrap_err().to_string();
        assert!(message.starts_with(expected) && !message.contains("s3"), "{message}");
    }
    assert!(Target::Profile.write(&[setting(ProxyVariable::Http, "a\nb")]).is_err());
    assert!(!format!("{settings:?}").contains("s3"));
}

// === readers against writers ===

/// Values of printable ASCII, many of them the URLs that stand there.
fn values() -> impl Strategy<Value = String> {
    let url = ("(http|https|socks5h)", "[ -~]{0,20}").prop_map(|(scheme, rest)| format!("{scheme}://{rest}"));
    prop_oneof![url, "[ -~]{0,40}", "[a-z0-9:/@%.]{0,40}", "[#'\"\\\\$` %;a]{0,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_written_is_read_unchanged_or_refused(value in values()) {
        let settings = [setting(ProxyVariable::Http, &value)];
        let expected: Pairs = ["http_proxy", "HTTP_PROXY"].map(|name| (name.to_owned(), value.clone())).into();
        // These two can say everything.
        prop_assert_eq!(&read_systemd(&Target::EnvironmentFile.write(&settings).unwrap()), &expected);
        prop_assert_eq!(&read_sh(&Target::Profile.write(&settings).unwrap()), &expected);
        match Target::EtcEnvironment.write(&settings) {
            Ok(text) => {
                prop_assert_eq!(&read_pam(&text), &expected);
                prop_assert_eq!(&read_environment_d(&text), &expected);
            }
            Err(error) => {
                let is_plain = !value.contains(['#', '\'', '"', '\\', '$']) && value.trim() == value;
                prop_assert!(!is_plain, "{}", error);
            }
        }
        match Target::Apt.write(&settings) {
            Ok(text) => {
                let first = read_apt(&text).swap_remove(0);
                prop_assert_eq!(first, ("Acquire::http::Proxy".to_owned(), value));
            }
            Err(error) => {
                let is_url = ["http://", "https://", "socks5h://"].iter().any(|scheme| value.starts_with(scheme));
                prop_assert!(!is_url || value.contains(['"', '\\']), "{}", error);
            }
        }
    }
}

#[test]
fn a_shell_reads_back_what_was_meant() {
    let long: Vec<String> = (0..400).map(|number| format!("host-{number}.corp.example")).collect();
    let settings = [
        setting(ProxyVariable::Http, &format!("http://me:{}@p:1", every_character())),
        setting(ProxyVariable::Https, "http://me:a%40b%27%25@p:1"),
        setting(ProxyVariable::Ftp, "'$(exit 1)`exit 1`\\"),
        setting(ProxyVariable::No, &long.join(",")),
    ];
    let names: Vec<&str> = settings.iter().flat_map(Setting::names).collect();
    let expected: Vec<&str> = settings.iter().flat_map(|setting| [&*setting.value; 2]).collect();
    // The file for systemd is one that a shell can read as well.
    for target in [Target::Profile, Target::EnvironmentFile] {
        assert_eq!(real_sh(&target.write(&settings).unwrap(), &names), expected);
    }
}

#[test]
fn a_list_that_is_too_long_for_pam_env_is_refused_and_the_others_take_it() {
    let long: Vec<String> = (0..400).map(|number| format!("host-{number}")).collect();
    let settings = [setting(ProxyVariable::Http, "http://p:1"), setting(ProxyVariable::No, &long.join(","))];
    let error = Target::EtcEnvironment.write(&settings).unwrap_err();
    assert_eq!(error.variable, ProxyVariable::No);
    assert!(error.to_string().contains("/etc/profile.d/reach-proxy.sh"), "{error}");
    assert_eq!(read_apt(&Target::Apt.write(&settings).unwrap()).len(), 2 + 400);
    assert_eq!(read_systemd(&Target::EnvironmentFile.write(&settings).unwrap())[3].1, long.join(","));
}

#[test]
fn dnf_reads_user_and_password_apart_from_the_proxy_and_as_they_are() {
    let lines = |value: &str| match Target::Dnf.write(&[setting(ProxyVariable::Http, value)]) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!((lines[0], lines[lines.len() - 1]), (MARK, END));
            Ok(lines[1..lines.len() - 1].join(" "))
        }
        Err(error) => Err(error.why),
    };
    let cases = [
        // What somebody else has written for another proxy does not go to this one.
        ("http://p:1", "proxy=http://p:1 proxy_username= proxy_password="),
        ("https://p:1/", "proxy=https://p:1 proxy_username= proxy_password="),
        ("http://me:a%40b%25@p:1", "proxy=http://p:1 proxy_username=me proxy_password=a@b%"),
        ("http://me@p:1", "proxy=http://p:1 proxy_username=me proxy_password="),
    ];
    for (value, expected) in cases {
        assert_eq!(lines(value).as_deref(), Ok(expected), "{value}");
    }
    for value in ["p:1", "ftp://p:1", "http://", "http://p:1/path", "http://a b"] {
        assert_eq!(lines(value), Err(Why::DnfProxy), "{value}");
    }
    for value in ["http://me:'a'@p:1", "http://\"me\":a@p:1", "http://me:\"\"@p:1"] {
        assert_eq!(lines(value), Err(Why::DnfCharacter), "{value}");
    }
    assert_eq!(
        lines("http://me:'@p:1").as_deref(),
        Ok("proxy=http://p:1 proxy_username=me proxy_password='")
    );
    for value in ["http://me:a%24b@p:1", "http://me:%20a@p:1", "http://me:%ff@p:1", "http://me:%C3%A9@p:1"] {
        assert_eq!(lines(value), Err(Why::DnfCharacter), "{value}");
    }
    // One proxy for both.
    let both = [setting(ProxyVariable::Http, "http://a:1"), setting(ProxyVariable::Https, "http://b:1")];
    assert_eq!(Target::Dnf.write(&both).unwrap().lines().nth(1), Some("proxy=http://b:1"));
}

#[test]
fn what_others_have_lines_in_waits_in_a_file_of_its_own() {
    let settings = [setting(ProxyVariable::Http, "http://p:1")];
    for target in [Target::EtcEnvironment, Target::Dnf] {
        assert!(target.block().is_some_and(|file| file.starts_with("/etc/reach/")));
        let text = target.write(&settings).unwrap();
        assert!(text.starts_with(MARK) && text.ends_with(&format!("{END}\n")));
    }
    assert_eq!(Target::Apt.block(), None);
}
