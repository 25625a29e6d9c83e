//! Each rule where it fires and where it does not, and values that nobody would write.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reach::lint::objects::subjects;
use reach::lint::{self, Facts, Finding, Id, RULES, Severity, mask, portable};
use serde_json::{Value, json};

const PROXY: &str = "http://proxy.corp.example:3128";

/// The findings about an object; what it shows of a cluster counts.
fn findings(object: &Value) -> Vec<Finding> {
    let mut facts = Facts::default();
    facts.learn(object);
    subjects(object).iter().flat_map(|subject| lint::check(subject, &facts)).collect()
}

/// A pod with variables; an object as a value is a `valueFrom`.
fn pod(env: &[(&str, Value)]) -> Value {
    let env: Vec<Value> = env
        .iter()
        .map(|(name, value)| match value {
            Value::String(value) => json!({"name": name, "value": value}),
            source => json!({"name": name, "valueFrom": source}),
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "env": env}]}})
}

/// A list in both spellings.
fn list(value: &str) -> Value {
    pod(&[("no_proxy", value.into()), ("NO_PROXY", value.into())])
}

/// The same in a pod that gets no variables of Services.
fn without_links(value: &str) -> Value {
    let mut pod = list(value);
    pod["spec"]["enableServiceLinks"] = false.into();
    pod
}

/// A proxy in both spellings, with a variable in front.
fn proxy(value: &str) -> Value {
    let secret = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    pod(&[
        ("SECRET", secret),
        ("OPEN", "word".into()),
        ("http_proxy", value.into()),
        ("HTTP_PROXY", value.into()),
    ])
}

fn preset(kind: &str, spec: Value) -> Value {
    let mut preset = json!({"apiVersion": "reach.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}});
    preset["spec"] = spec;
    preset
}

fn api_server(no_proxy: &str) -> Value {
    let mut pod = pod(&[
        ("https_proxy", PROXY.into()),
        ("HTTPS_PROXY", PROXY.into()),
        ("no_proxy", no_proxy.into()),
        ("NO_PROXY", no_proxy.into()),
    ]);
    pod["spec"]["containers"][0]["command"] = json!([
        "kube-apiserver",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--advertise-address=192.0.2.10",
        "--etcd-servers=https://192.0.2.11:2379"
    ]);
    pod
}

/// The same pod with another variable behind the others, of which the last one counts.
fn with(pod: &Value, name: &str, value: &str) -> Value {
    let mut pod = pod.clone();
    let env = pod["spec"]["containers"][0]["env"].as_array_mut().expect("variables");
    env.push(json!({"name": name, "value": value}));
    pod
}

fn ids(object: &Value) -> BTreeSet<Id> {
    findings(object).into_iter().map(|finding| finding.id).collect()
}

/// A rule, objects in which it fires, and objects in which it does not though they are near.
type Case = (Id, Vec<Value>, Vec<Value>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let lists = |values: &[&str]| values.iter().map(|value| list(value)).collect::<Vec<_>>();
    let proxies = |values: &[&str]| values.iter().map(|value| proxy(value)).collect::<Vec<_>>();
    let long = vec!["10.0.0.1"; 20_000].join(",");
    vec![
        (
            Id::E1,
            lists(&["http://web.corp.example", "web/path", "me:pw@web", "me:p;w@web"]),
            lists(&["web.corp.example"]),
        ),
        (Id::E2, lists(&["a b", "a;b", "a,\nb", "a\tb", "a\u{1}b"]), lists(&["a,b", "a, b"])),
        (
            Id::E3,
            vec![
                pod(&[("no_proxy", "a".into()), ("NO_PROXY", "b".into())]),
                pod(&[("NO_PROXY", "$(no_proxy)".into()), ("no_proxy", "a".into())]),
                pod(&[("no_proxy", "a".into()), ("NO_PROXY", "$$(no_proxy)".into())]),
                pod(&[("no_proxy", "a".into()), ("NO_PROXY", "$(no_proxy),b".into())]),
                pod(&[("HTTP_PROXY", PROXY.into())]),
                pod(&[("Http_Proxy", PROXY.into())]),
                pod(&[("http_proxy", "".into()), ("HTTP_PROXY", "".into())]),
                preset(
                    "ClusterPodPreset",
                    json!({"letterCase": "AsWritten", "env": [{"name": "HTTP_PROXY", "value": PROXY}]}),
                ),
                preset(
                    "ClusterPodPreset",
                    json!({"letterCase": "AsWritten", "env": [{"name": "no_proxy", "value": "web"}]}),
                ),
                pod(&[("FTP_PROXY", PROXY.into())]),
            ],
            vec![
                pod(&[("no_proxy", "a,b".into()), ("NO_PROXY", "B,a".into())]),
                // As the kubelet expands them.
                pod(&[("no_proxy", "a,b".into()), ("NO_PROXY", "$(no_proxy)".into())]),
                pod(&[
                    ("NO_PROXY", "a".into()),
                    ("X", "$(NO_PROXY),b".into()),
                    ("no_proxy", "$(X),a".into()),
                    ("NO_PROXY", "a,b".into()),
                ]),
                pod(&[("HTTPS_PROXY", PROXY.into()), ("https_proxy", "$(HTTPS_PROXY)".into())]),
                preset(
                    "ClusterPodPreset",
                    json!({"letterCase": "AsWritten", "env": [
                        {"name": "no_proxy", "value": "web"}, {"name": "NO_PROXY", "value": "$(no_proxy)"}]}),
                ),
                proxy(PROXY),
                preset("ClusterPodPreset", json!({"env": [{"name": "HTTP_PROXY", "value": PROXY}]})),
                pod(&[
                    ("no_proxy", "a".into()),
                    ("NO_PROXY", json!({"configMapKeyRef": {"name": "x", "key": "y"}})),
                ]),
            ],
        ),
        (
            Id::E4,
            lists(&[
                "10.96.",
                "10.96.*",
                "10.0.0.300",
                "10.96.0.0/33",
                "web:http",
                "10.0.0.9-10.0.0.1",
                "a..b",
            ]),
            lists(&["10.96.0.0/16", "10.0.0.30", "web:80"]),
        ),
        (Id::E5, lists(&["fd00::/64", "[fd00::1]", "[fd00::1]:80"]), lists(&["10.0.0.0/8"])),
        (
            Id::E6,
            vec![
                api_server(""),
                api_server("10.96.0.1,192.0.2.10,192.0.2.11"),
                api_server(".svc,192.0.2.10,192.0.2.11"),
                api_server(".svc,10.96.0.1,192.0.2.10"),
                // Of two lists, Go reads the one in upper case.
                with(&api_server(".svc,10.96.0.1,192.0.2.10,192.0.2.11"), "NO_PROXY", "web"),
                json!({"apiVersion": "v1", "kind": "List", "items": [
                    {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "controlPlaneEndpoint": "vip.corp.example:6443"},
                    preset("ClusterPodPreset", json!({"env": [{"name": "https_proxy", "value": PROXY}, {"name": "no_proxy", "value": "web"}]})),
                ]}),
            ],
            vec![
                api_server(".svc,10.96.0.0/12,192.0.2.0/24"),
                api_server("$(LIST)"),
                // Without a proxy that Go reads: none for https, none at all, and ALL_PROXY.
                with(&with(&api_server(""), "https_proxy", ""), "HTTPS_PROXY", ""),
                with(&with(&api_server(""), "https_proxy", ""), "HTTPS_PROXY", "://"),
                with(&with(&with(&api_server(""), "https_proxy", ""), "HTTPS_PROXY", ""), "ALL_PROXY", PROXY),
                pod(&[("https_proxy", PROXY.into()), ("no_proxy", "web".into())]),
                json!({"apiVersion": "v1", "kind": "List", "items": [
                    {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "controlPlaneEndpoint": "vip.corp.example:6443"},
                    preset("ClusterPodPreset", json!({"env": [{"name": "https_proxy", "value": PROXY}, {"name": "no_proxy", "value": ".corp.example"}]})),
                ]}),
            ],
        ),
        (
            Id::E7,
            proxies(&[
                "proxy.corp.example:3128",
                "http://me:p@ss@proxy:3128",
                "http://me:p#ss@proxy:3128",
                "http://me:p ss@proxy:3128",
                "'http://proxy:3128'",
                "http://proxy:http",
                "http://:3128",
                "https://proxy:3129",
                "socks5://proxy:1080",
            ]),
            proxies(&[
                "http://proxy.corp.example:3128/",
                "http://me:p%40ss@proxy:3128",
                "$(SECRET)",
                "http://$(SECRET):3128",
                "http://[fd00::1]:3128",
            ]),
        ),
        (
            Id::E8,
            proxies(&[
                "http://me:secret@proxy:3128",
                "me:secret@proxy:3128",
                "http://me:x$(SECRET)@proxy:3128",
            ]),
            proxies(&["http://me:$(SECRET)@proxy:3128", PROXY, "http://me@proxy:3128"]),
        ),
        (
            Id::W1,
            lists(&["*.corp.example", "*corp.example", "a.*.b"]),
            lists(&[".corp.example,corp.example"]),
        ),
        (Id::W2, lists(&["*", "web,*"]), lists(&["web"])),
        (
            Id::W3,
            lists(&[".corp.example", "corp.example"]),
            lists(&[".corp.example,corp.example", "redis", "localhost"]),
        ),
        (Id::W4, lists(&["10.10.192.1/18", "fd00::1/64"]), lists(&["10.10.192.0/18", "10.0.0.1/32"])),
        (Id::W5, lists(&["web:8080", "10.0.0.1:80"]), lists(&["web"])),
        (
            Id::W6,
            lists(&[".corp.example.", "Web", " a", "a ,b", "a,b\u{20}"]),
            lists(&["a,b", ".x,x,.x.,x."]),
        ),
        (
            Id::W7,
            vec![
                list("10.0.0.1-10.0.0.9"),
                pod(&[("API", "https://10.96.0.20:8443/x".into()), ("no_proxy", "10.96.0.0/12".into())]),
            ],
            vec![
                list("10.0.0.1-10.0.0.9,10.0.0.0/28"),
                list("10.0.0.1-10.0.0.9,10.0.0.0/29,10.0.0.8/29"),
                pod(&[
                    ("API", "https://10.96.0.20:8443/x".into()),
                    ("no_proxy", "10.96.0.20,10.96.0.0/12".into()),
                ]),
                pod(&[("API", "https://api.corp.example/".into()), ("no_proxy", "10.96.0.0/12".into())]),
            ],
        ),
        (
            Id::W8,
            vec![
                list("0.0.0.0/0"),
                list("::/0"),
                list(".com"),
                list("local"),
                list(".de"),
                list("de"),
                list("*.shop"),
                list("xn--p1ai"),
                pod(&[("http_proxy", "http://10.1.2.3:3128".into()), ("no_proxy", "10.0.0.0/8".into())]),
            ],
            vec![
                list("10.0.0.0/8,db,.svc"),
                // What reach writes for Services of these names.
                list(".db,db,.ui,ui,.web,web"),
                list("xn--p1ai.example"),
                pod(&[("http_proxy", "http://10.1.2.3:3128".into()), ("no_proxy", "10.2.0.0/16".into())]),
            ],
        ),
        (Id::W9, lists(&["::1", "fd00::25", "b\u{fc}cher.example"]), lists(&["10.0.0.1"])),
        (
            Id::W10,
            proxies(&["http://me:$(OPEN)@proxy:3128", "http://token@proxy:3128"]),
            proxies(&["http://me:$(SECRET)@proxy:3128"]),
        ),
        (
            Id::W11,
            vec![
                list("$(EXTRA)"),
                list("$(DB_HOST)"),
                list("$(db_SERVICE_HOST)"),
                list("$(KUBERNETES_SERVICE_NAME)"),
                without_links("$(DB_SERVICE_HOST)"),
                without_links("$(DB_PORT_5432_TCP_ADDR)"),
                pod(&[("no_proxy", "$(EXTRA)".into()), ("EXTRA", "web".into())]),
            ],
            vec![
                pod(&[("EXTRA", "web".into()), ("no_proxy", "$(EXTRA)".into())]),
                list("$$(EXTRA)"),
                // What the kubelet knows from Services.
                list(
                    "$(KUBERNETES_SERVICE_HOST),$(KUBERNETES_SERVICE_PORT_HTTPS),$(KUBERNETES_PORT_443_TCP_ADDR)",
                ),
                list("$(DB_SERVICE_HOST),$(MY_DB_1_SERVICE_PORT),$(DB_PORT_5432_TCP_ADDR)"),
                without_links("$(KUBERNETES_SERVICE_HOST),$(KUBERNETES_SERVICE_PORT)"),
                preset("ClusterPodPreset", json!({"env": [{"name": "no_proxy", "value": "$(EXTRA)"}]})),
            ],
        ),
        (Id::I1, lists(&["web,WEB", "fd00::1,fd00:0::1"]), lists(&["web,web2", ".web,web"])),
        (
            Id::I2,
            lists(&[".corp.example,corp.example,a.corp.example"]),
            lists(&[".corp.example,a.corp.example", ".corp.example,corp.example,a.corp.example."]),
        ),
        (
            Id::I3,
            lists(&["10.0.0.0/8,10.0.0.1", "10.0.0.0/8,10.96.0.0/12"]),
            lists(&["10.0.0.0/8,11.0.0.1", "127.0.0.0/8,127.0.0.1"]),
        ),
        (Id::I4, lists(&["corp.example"]), lists(&[".corp.example,corp.example", "localhost"])),
        (Id::I5, vec![list(&long)], lists(&["10.0.0.1"])),
    ]
}

/// The objects of the cases that `--fix` does something about.
pub fn fixable() -> Vec<Value> {
    let objects = cases().into_iter().flat_map(|(_, fires, silent)| fires.into_iter().chain(silent));
    objects.filter(|object| findings(object).iter().any(|finding| finding.is_fixable)).collect()
}

#[test]
fn every_rule_fires_where_it_should_and_nowhere_else() {
    let cases = cases();
    let covered: Vec<Id> = cases.iter().map(|(id, ..)| *id).collect();
    assert_eq!(covered, RULES.iter().map(|rule| rule.id).collect::<Vec<_>>(), "a case for each rule");
    for (id, fires, silent) in &cases {
        for object in fires {
            assert!(ids(object).contains(id), "{id} is silent about {object:.300}");
        }
        for object in silent {
            let found: Vec<Finding> =
                findings(object).into_iter().filter(|finding| finding.id == *id).collect();
            assert!(found.is_empty(), "{id} about {object}: {found:?}");
        }
    }
}

#[test]
fn variables_that_double_have_an_end() {
    let names: Vec<String> = (0..60).map(|number| format!("X{number}")).collect();
    let doubled: Vec<String> = (0..60).map(|number| format!("$(X{number})$(X{number})")).collect();
    let mut env = vec![("X0", Value::from("web"))];
    env.extend(names[1..].iter().zip(&doubled).map(|(name, value)| (&**name, value.as_str().into())));
    env.extend([("no_proxy", "$(X59)".into()), ("NO_PROXY", "$(X59)".into())]);
    assert!(!ids(&pod(&env)).contains(&Id::E3));
}

#[test]
fn each_finding_says_what_is_wrong_and_what_to_write() {
    for (_, fires, silent) in cases() {
        for finding in fires.iter().chain(&silent).flat_map(findings) {
            assert!(!finding.message.is_empty() && !finding.advice.is_empty(), "{finding:?}");
            // Whoever has to do something is told why.
            let is_why = finding.severity == Severity::Info || !finding.breaks.is_empty();
            assert!(is_why, "{finding:?}");
        }
    }
}

#[test]
fn what_reach_rewrites_is_not_reported_for_a_preset_and_the_rest_is() {
    let written = "*.corp.example web, Web 10.10.192.1/18,[fd00::2],fd00::/64,web:80,10.96.";
    let spec = |form: &str| json!({"noProxyForm": form, "env": [{"name": "no_proxy", "value": written}]});
    let rewritten = ids(&preset("ClusterPodPreset", spec("Portable")));
    assert_eq!(rewritten, BTreeSet::from([Id::E4, Id::E5, Id::W5]));
    let as_written = ids(&preset("ClusterPodPreset", spec("AsWritten")));
    assert!(
        as_written.is_superset(&BTreeSet::from([Id::E2, Id::W1, Id::W4, Id::W6, Id::I1])),
        "{as_written:?}"
    );
}

#[test]
fn messages_name_the_clients_that_differ() {
    let breaks = |object: &Value, id: Id| {
        findings(object).into_iter().find(|finding| finding.id == id).expect("a finding").breaks
    };
    assert_eq!(
        breaks(&list("*.corp.example"), Id::W1),
        "only go, undici, node-fetch, node-http and axios reach www.corp.example directly, the others go through the proxy"
    );
    assert!(breaks(&list("fd00::/64"), Id::E5).starts_with("httpx fails for every URL"));
    assert!(
        breaks(&list("fd00::25"), Id::W9)
            .starts_with("ruby goes past the proxy to every IPv4 address that ends in .25")
    );
    let differ = pod(&[("no_proxy", "a".into()), ("NO_PROXY", "b".into())]);
    assert_eq!(breaks(&differ, Id::E3), "go and reqwest read NO_PROXY, the others no_proxy");
    assert!(breaks(&list(" a"), Id::W6).contains("wget"));
    let of = |name: &str, value: &str| {
        let value = Value::from(value);
        breaks(&pod(&[(name, value.clone()), (&name.to_uppercase(), value)]), Id::E7)
    };
    // Only for URLs of its scheme, and only clients that read it at all; Go goes past what is no URL.
    let socks = of("http_proxy", "socks5://proxy:1080");
    assert!(socks.contains(" for every http URL") && !socks.contains("go,"), "{socks}");
    let quoted = of("https_proxy", "'http://proxy:3128'");
    assert!(quoted.ends_with(" fail for every https URL; go and reqwest go past the proxy"), "{quoted}");
    let all = of("all_proxy", "socks5://proxy:1080");
    assert!(all.contains(" for every http and https URL") && !all.contains("wget"), "{all}");
    assert!(!of("ftp_proxy", "socks5://proxy:1080").is_empty());
    assert_eq!(breaks(&pod(&[("FTP_PROXY", PROXY.into())]), Id::E3), "wget ignores FTP_PROXY");
    // Those that split at white space are not among them; axios reads its variables itself only outside of Node's own.
    let split = breaks(&list("a b"), Id::E2);
    assert!(split.starts_with("curl, wget, go, "), "{split}");
    for reader in ["axios", "undici", "ruby", "curl-7"] {
        assert!(!split.contains(reader), "{split}");
    }
}

// === anything goes ===

/// Entries, separators and rubbish.
fn lists() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "a.example", ".a.example", "*.a.example", "b", "LOCALHOST", "localhost.", ".c.", "10.0.0.1", "10.0.0.1/8",
            "10.0.0.0/33", "10.96.*", "fd00::/64", "[fd00::1]", "::1", "web:80", "http://u:p@h/x", "*", "a;b", "$(X)",
            "10.0.0.1-10.0.0.9", "b\u{fc}cher.example", "0.0.0.0/0", ".com", "'", "\"",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => any::<String>(),
    ];
    let separator = prop::sample::select(vec![",", ", ", " ", "\n", ",,", "\t,"]);
    prop::collection::vec((piece, separator), 0..8)
        .prop_map(|parts| parts.into_iter().map(|(piece, separator)| piece + separator).collect())
}

/// A part of a password, with what a URL is taken apart at.
fn password() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        1 => prop::sample::select(vec!["://", ":", "/", "@", "#", "?", "[", "]", "%"]).prop_map(str::to_owned),
        1 => "[^\\r\\n]",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_makes_it_panic_and_a_fix_helps_with_what_it_says(value in lists(), proxy in any::<String>()) {
        let object = pod(&[("http_proxy", proxy.as_str().into()), ("no_proxy", value.as_str().into()), ("NO_PROXY", value.as_str().into())]);
        for finding in findings(&object) {
            prop_assert!(finding.range.is_none_or(|range| range.end <= value.len().max(proxy.len())));
        }
        let fixed = portable(&[&value]);
        prop_assert_eq!(portable(&[&fixed]), fixed.clone());
        let left: Vec<Finding> = findings(&list(&fixed)).into_iter().filter(|finding| finding.is_fixable).collect();
        prop_assert!(left.is_empty(), "{} -> {}: {:?}", value, fixed, left);
    }

    #[test]
    fn no_message_has_a_part_of_a_password(before in password(), after in password(), scheme in "(http://|https://|socks5://|x:|)") {
        let value = format!("{scheme}me:{before}S3CRET{after}@proxy.corp.example:3128");
        for finding in findings(&proxy(&value)) {
            let said = format!("{finding:?}");
            prop_assert!(!said.contains("S3CRET"), "{value}: {said}");
        }
        // A list is split at separators: what stands between two of them can be any name.
        let whole = |part: &str| part.replace(|c: char| c == ',' || c.is_whitespace(), "");
        let value = format!("{scheme}me:{}S3CRET{}@web,b c", whole(&before), whole(&after));
        prop_assert!(!mask::list(&value).contains("S3CRET"), "{value}");
        for finding in findings(&list(&value)) {
            let said = format!("{finding:?}");
            prop_assert!(!said.contains("S3CRET"), "{value}: {said}");
        }
    }
}
