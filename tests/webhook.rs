//! `reach serve` with presets from files, as a client that means harm or is merely broken meets it.
//!
//! The real binary over real TLS; no Kubernetes is needed.

mod support;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::http::{self, Reply, post, request};
use support::review::{patch, review_of};
use support::serve::{PATH, Reach, command};
use support::{PATIENCE, eventually};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// The size above which a body is refused.
const MAX_BODY: usize = 7 * 1024 * 1024;

/// What the webhook has to answer.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// This status, with an error in words.
    Status(u16),
    /// `allowed: true`, the uid echoed, no patch.
    Unchanged,
    /// `allowed: true`, the uid echoed, and a patch: what is odd is none of its business.
    Injected,
}
use Expect::{Injected, Status, Unchanged};

// === hooks of Cluster API ===

const HOOKS: &str = "/hooks.runtime.cluster.x-k8s.io/v1alpha1";

/// Sends a hook's request as Cluster API does: with a time limit, and without a media type.
fn hook(reach: &Reach, path: &str, body: &Value) -> Reply {
    let path = format!("{HOOKS}/{path}?timeout=10s");
    reach.send(&request("POST", &path, "", body.to_string())).expect("a reply")
}

fn hook_request(kind: &str, more: &Value) -> Value {
    let mut request = json!({"apiVersion": &HOOKS[1..], "kind": kind});
    for (field, value) in more.as_object().expect("fields") {
        request[field] = value.clone();
    }
    request
}

#[test]
fn hooks_of_cluster_api_are_answered_beside_the_webhook_where_they_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let env = json!([
        {"name": "http_proxy", "value": "http://me:s3cret@proxy.corp.example:3128", "mergeStrategy": "Replace"},
    ]);
    fs::write(folder.path().join("preset.yaml"), preset("corporate", &env).to_string()).unwrap();
    let reach = Reach::start([
        "--presets".as_ref(),
        folder.path().as_os_str(),
        "--cluster-api-hooks".as_ref(),
        "--log=debug".as_ref(),
    ]);
    assert!(reach.stdout().contains(&format!("hooks    https://{}{HOOKS}\n", reach.webhook)));

    let reply = hook(&reach, "discovery", &hook_request("DiscoveryRequest", &json!({})));
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("Success")));
    assert_eq!(reply.json()["handlers"].as_array().map(Vec::len), Some(3));

    let template = json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2",
        "kind": "KubeadmConfigTemplate",
        "metadata": {"name": "worker", "namespace": "classes"},
        "spec": {"template": {"spec": {}}},
    });
    let holder = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "MachineDeployment",
        "namespace": "prod",
        "name": "web-md-0",
        "fieldPath": "spec.template.spec.bootstrap.configRef",
    });
    let generate = |proxy: Value| {
        let builtin = json!({"cluster": {"name": "web", "namespace": "prod"}});
        let variables = json!([{"name": "builtin", "value": builtin}, {"name": "proxy", "value": proxy}]);
        let items = json!([{"uid": "u-1", "holderReference": holder, "object": template}]);
        hook_request("GeneratePatchesRequest", &json!({"variables": variables, "items": items}))
    };
    let reply = hook(&reach, "generatepatches/generate-patches", &generate(json!({})));
    let response = reply.json();
    assert_eq!(response["items"][0]["uid"], "u-1", "{response}");
    let reply = hook(&reach, "generatepatches/generate-patches", &generate(json!({"presets": ["nobody"]})));
    assert_eq!(
        reply.json()["message"],
        "reach: there is no ClusterPodPreset nobody: expected one of corporate"
    );
    // What clients must not send.
    for (path, body, status) in [
        ("generatepatches/other", json!({}), 404),
        ("generatepatches/generate-patches", json!([]), 400),
        ("discovery", hook_request("GeneratePatchesRequest", &json!({})), 400),
    ] {
        assert_eq!(hook(&reach, path, &body).status, status, "{path}");
    }
    let get = reach.send(&request("GET", &format!("{HOOKS}/discovery"), "", "")).expect("a reply");
    assert_eq!(get.status, 405);
    serves_well(&reach, "hooks");
    assert!(!reach.stderr().contains("s3cret"), "{}", reach.stderr());

    let without = serve();
    let reply = hook(&without, "discovery", &hook_request("DiscoveryRequest", &json!({})));
    assert_eq!(reply.status, 404);
}

// === bad requests ===

#[test]
fn bad_bodies_are_refused_or_admitted_unchanged() {
    let reach = serve();
    let good = review_of(&pod()).to_string();
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1).into_bytes()
    };
    let with = |pointer: &str, value: Value| {
        let mut review = review_of(&pod());
        *review.pointer_mut(pointer).expect(pointer) = value;
        review.to_string().into_bytes()
    };
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    let containers = r#""containers":[{"#;
    let digits = "9".repeat(100_000);
    let without_containers =
        String::from_utf8(with("/request/object/spec/containers", json!("@"))).expect("JSON is UTF-8");

    let bodies: Vec<(&str, Vec<u8>, Expect)> = vec![
        ("empty", Vec::new(), Status(400)),
        ("not JSON", b"apiVersion: admission.k8s.io/v1\n".to_vec(), Status(400)),
        ("half of it", good.as_bytes()[..good.len() / 2].to_vec(), Status(400)),
        ("something behind it", format!("{good}{{}}").into_bytes(), Status(400)),
        ("null", b"null".to_vec(), Status(400)),
        ("a list", format!("[{good}]").into_bytes(), Status(400)),
        ("a string", b"\"AdmissionReview\"".to_vec(), Status(400)),
        ("v1beta1", replaced("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), Status(400)),
        ("another kind", replaced("AdmissionReview", "ConversionReview"), Status(400)),
        (
            "no request",
            br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec(),
            Status(400),
        ),
        ("null request", with("/request", Value::Null), Status(400)),
        ("no uid", replaced(r#""uid":"#, r#""uuid":"#), Status(400)),
        ("a number as uid", with("/request/uid", json!(1)), Status(400)),
        ("null object", with("/request/object", Value::Null), Unchanged),
        ("a string as object", with("/request/object", json!("pod")), Unchanged),
        ("an object that is empty", with("/request/object", json!({})), Unchanged),
        ("null spec", with("/request/object/spec", Value::Null), Unchanged),
        ("a string as containers", with("/request/object/spec/containers", json!("web")), Unchanged),
        ("a number as a container", with("/request/object/spec/containers/0", json!(1)), Unchanged),
        ("a number as value", with("/request/object/spec/containers/0/env/0/value", json!(1)), Unchanged),
        ("DELETE", with("/request/operation", json!("DELETE")), Unchanged),
        ("UPDATE of a pod", with("/request/operation", json!("UPDATE")), Unchanged),
        ("CONNECT", with("/request/operation", json!("CONNECT")), Unchanged),
        ("another resource", with("/request/resource/resource", json!("services")), Unchanged),
        ("pods of another group", with("/request/resource/group", json!("metrics.k8s.io")), Unchanged),
        (
            "another subresource",
            replaced(r#""operation":"#, r#""subResource":"binding","operation":"#),
            Unchanged,
        ),
        ("uid twice", replaced(r#""uid":"#, r#""uid":"1","uid":"#), Status(400)),
        ("request twice", replaced(r#""request":"#, r#""request":null,"request":"#), Status(400)),
        ("spec twice", replaced(r#""spec":"#, r#""spec":{},"spec":"#), Unchanged),
        ("env twice", replaced(r#""env":"#, r#""env":[],"env":"#), Unchanged),
        ("lists 10,000 deep", bytes(&without_containers, "\"@\"", deep("[", "]").as_bytes()), Unchanged),
        ("a deep list for the review", deep("[", "]").into_bytes(), Status(400)),
        ("a deep object for the review", deep(r#"{"request":"#, "}").into_bytes(), Status(400)),
        (
            "a deep list for containers",
            replaced(containers, &format!(r#""containers":{},"x":[{{"#, deep("[", "]"))),
            Unchanged,
        ),
        ("a bracket 100,000 times", "[".repeat(100_000).into_bytes(), Status(400)),
        ("NUL", b"\0".repeat(1000), Status(400)),
        ("NUL behind it", format!("{good}\0").into_bytes(), Status(400)),
        ("NUL in a name", replaced("\"web\"", "\"w\0b\""), Status(400)),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect(), Status(400)),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes(), Status(400)),
        ("no UTF-8 in a value", bytes(&good, "redis", b"r\xff\xfes"), Unchanged),
        ("no UTF-8 in the uid", bytes(&good, "705ab4f5", b"\xc3\x28"), Status(400)),
        ("half a surrogate pair in a value", replaced("redis", r"\ud800"), Unchanged),
        (
            "100,000 digits for the uid",
            replaced("\"705ab4f5-6393-11e8-b7cc-42010a800002\"", &digits),
            Status(400),
        ),
        ("100,000 digits for a value", replaced("\"redis\"", &digits), Unchanged),
        // What reach does not look at is the API server's to judge, which checks the patched pod. Only its
        // depth is not: no field of a pod goes 128 levels deep.
        (
            "100,000 digits elsewhere",
            replaced(containers, &format!(r#""priority":{digits},{containers}"#)),
            Injected,
        ),
        (
            "a deep object elsewhere",
            replaced(containers, &format!(r#""x":{},{containers}"#, deep("{\"a\":", "}"))),
            Unchanged,
        ),
        ("an escaped NUL in a value", replaced("redis", r"\u0000"), Injected),
    ];
    for (what, body, expect) in bodies {
        let reply = reach.send(&post(PATH, &body)).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(what, &reply, expect);
        serves_well(&reach, what);
    }
    assert_eq!(reach.metric("reach_reviews_total{outcome=\"panicked\"}"), Some(0.0), "nothing panicked");
}

#[test]
fn requests_that_no_api_server_sends_are_refused() {
    let reach = serve();
    let good = review_of(&pod()).to_string();
    let json = "content-type: application/json\r\n";
    let requests: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no content type", request("POST", PATH, "", &good), 415),
        ("another content type", request("POST", PATH, "content-type: application/yaml\r\n", &good), 415),
        ("text", request("POST", PATH, "content-type: text/plain\r\n", &good), 415),
        ("gzip", request("POST", PATH, &format!("{json}content-encoding: gzip\r\n"), &good), 415),
        ("GET", request("GET", PATH, "", ""), 405),
        ("PUT", request("PUT", PATH, json, &good), 405),
        ("DELETE", request("DELETE", PATH, json, ""), 405),
        ("OPTIONS", request("OPTIONS", PATH, "", ""), 405),
        ("an unknown method", request("BREW", PATH, json, &good), 405),
        ("the root", post("/", &good), 404),
        ("another path", post("/validate/pods", &good), 404),
        ("a path below", post("/mutate/pods/", &good), 404),
        ("dots in the path", post("/mutate/../mutate/pods", &good), 404),
        ("metrics on this port", request("GET", "/metrics", "", ""), 404),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n".to_vec(), 400),
        (
            "two lengths",
            format!(
                "POST {PATH} HTTP/1.1\r\nhost: x\r\n{json}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            )
            .into_bytes(),
            400,
        ),
        (
            "a length that is no number",
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{json}content-length: many\r\n\r\n{{}}").into_bytes(),
            400,
        ),
        (
            "a length below zero",
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{json}content-length: -1\r\n\r\n{{}}").into_bytes(),
            400,
        ),
        (
            "chunks without sizes",
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{json}transfer-encoding: chunked\r\n\r\nxyz\r\n")
                .into_bytes(),
            400,
        ),
        (
            "a header of 100 KiB",
            request("POST", PATH, &format!("{json}x: {}\r\n", "y".repeat(100 * 1024)), &good),
            431,
        ),
    ];
    for (what, request, status) in requests {
        let reply = reach.send(&request).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        serves_well(&reach, what);
    }
    // What does not differ in meaning is taken.
    for (what, path, fields) in [
        ("a charset", PATH, "content-type: application/json; charset=utf-8\r\n"),
        ("upper case", PATH, "Content-Type: Application/JSON\r\n"),
        ("identity", PATH, "content-type: application/json\r\ncontent-encoding: identity\r\n"),
        ("the time of the API server", "/mutate/pods?timeout=10s", json),
        ("a time that makes no sense", "/mutate/pods?timeout=-1h", json),
    ] {
        let reply = reach.send(&request("POST", path, fields, &good)).expect(what);
        check(what, &reply, Injected);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_and_takes_no_memory() {
    let reach = serve();
    serves_well(&reach, "before");
    let limit = |reach: &Reach| reach.peak_memory_kib() + 48 * 1024;
    let limit = limit(&reach);

    // Said in advance: refused without a byte of it.
    for length in [MAX_BODY + 1, 1 << 40, usize::MAX / 2] {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let reply = reach.send(head.as_bytes()).expect("a reply");
        check("too long", &reply, Status(413));
    }
    // Not said: refused once it is too much. Many times, since memory that is not given back adds up.
    let chunk = [&b"10000\r\n"[..], &vec![b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..8 {
        let mut connection = http::connect_tls(reach.webhook, &reach.ca(), "http/1.1").expect("a connection");
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).expect("a connection that takes a header");
        // It may refuse before all of this (64 MiB) is sent.
        let _ = (0..1024).try_for_each(|_| connection.write_all(&chunk));
        let reply = http::read_reply(&mut connection).expect("a reply");
        check("too many chunks", &reply, Status(413));
    }
    // The largest that is taken, and is answered.
    let mut padded = review_of(&pod()).to_string();
    padded.push_str(&" ".repeat(MAX_BODY - padded.len()));
    check("the largest", &reach.send(&post(PATH, &padded)).expect("a reply"), Injected);

    serves_well(&reach, "after");
    let peak = reach.peak_memory_kib();
    assert!(peak < limit, "{peak} KiB, at most {limit} KiB");
}

#[test]
fn a_length_that_is_not_true_harms_nobody() {
    let reach = serve();
    let good = review_of(&pod()).to_string();
    let head = |length: usize| {
        format!(
            "POST {PATH}?timeout=1s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    // Less is sent than said: the rest is waited for as long as the API server would.
    let waited = reach.send((head(good.len() + 10) + &good).as_bytes()).expect("a reply");
    check("too little", &waited, Status(408));
    // And not at all when the client goes.
    let mut connection = http::connect_tls(reach.webhook, &reach.ca(), "http/1.1").expect("a connection");
    connection.write_all((head(good.len() + 10) + &good).as_bytes()).expect("a connection that takes it");
    drop(connection);
    serves_well(&reach, "gone half way");
    // More is sent than said: what is behind is another request, and no good one.
    let cut = reach.send((head(10) + &good).as_bytes()).expect("a reply");
    check("too much", &cut, Status(400));
    let whole = reach.send((head(good.len()) + &good + "GARBAGE\r\n\r\n").as_bytes()).expect("a reply");
    check("garbage behind it", &whole, Injected);
    serves_well(&reach, "lengths");
}

#[test]
fn a_client_that_speaks_only_http2_is_refused_in_the_handshake() {
    let reach = serve();
    let refused = http::connect_tls(reach.webhook, &reach.ca(), "h2").map(drop).unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // HTTP without TLS is no handshake at all.
    let plain = http::connect(reach.webhook)
        .and_then(|stream| http::exchange(stream, &post(PATH, review_of(&pod()).to_string())));
    assert!(plain.is_err(), "{plain:?}");
    serves_well(&reach, "h2");
}

// === presets from files ===

#[test]
fn presets_that_change_are_served() {
    let folder = presets();
    let reach = serve_folder(&folder);
    assert_eq!(injected(&reach, "TZ").as_deref(), Some("UTC"));

    write(folder.path(), "tz.yaml", &timezone("CET"));
    eventually("a changed file is served", || {
        injected(&reach, "TZ").filter(|value| value == "CET").ok_or("the old value")
    });
    write(folder.path(), "more.json", &preset("more", &json!([{"name": "MORE", "value": "1"}])).to_string());
    eventually("a new file is served", || injected(&reach, "MORE").ok_or("nothing"));
    reach.await_metric("reach_presets{kind=\"ClusterPodPreset\"}", 2.0);
    fs::remove_file(folder.path().join("tz.yaml")).unwrap();
    eventually("a removed file is served no more", || match injected(&reach, "TZ") {
        None => Ok(()),
        Some(value) => Err(value),
    });
}

#[test]
fn files_swapped_as_a_config_map_volume_does_are_served() {
    // The kubelet writes a new folder and then renames a symbolic link to it.
    let folder = tempfile::tempdir().unwrap();
    let generation = |name: &str, zone: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        write(&folder.path().join(name), "tz.yaml", &timezone(zone));
        // As old as the other one, as on a file system that counts seconds: only the link tells.
        let file = fs::File::options().write(true).open(folder.path().join(name).join("tz.yaml")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join("..data.new")).unwrap();
        fs::rename(folder.path().join("..data.new"), folder.path().join("..data")).unwrap();
    };
    generation("..1", "UTC");
    std::os::unix::fs::symlink("..data/tz.yaml", folder.path().join("tz.yaml")).unwrap();
    let reach = serve_folder(&folder);
    assert_eq!(injected(&reach, "TZ").as_deref(), Some("UTC"));
    generation("..2", "CET");
    eventually("the new generation is served", || {
        injected(&reach, "TZ").filter(|value| value == "CET").ok_or("the old value")
    });
}

#[test]
fn a_bad_file_leaves_the_last_good_presets_and_says_what_is_wrong() {
    let folder = presets();
    let reach = serve_folder(&folder);
    reach.await_metric("reach_presets_stale", 0.0);

    let mut bad = timezone("CET");
    bad.push_str("---\n");
    bad.push_str(&preset("bad", &json!([{"name": "A", "value": 1}, {"name": "B", "valeu": ""}])).to_string());
    write(folder.path(), "tz.yaml", &bad);
    reach.await_metric("reach_presets_stale", 1.0);
    assert_eq!(injected(&reach, "TZ").as_deref(), Some("UTC"), "all or nothing");
    let log = reach.stderr();
    for field in ["spec.env[0].value: expected a string", "spec.env[1].valeu: unknown field: write value"] {
        let expected = format!("tz.yaml, document 2, ClusterPodPreset/bad: {field}");
        assert!(log.contains(&expected), "{expected}\n{log}");
    }
    assert_eq!(reach.status("/readyz").status, 200, "it still has presets");

    write(folder.path(), "tz.yaml", &timezone("CET"));
    reach.await_metric("reach_presets_stale", 0.0);
    eventually("the good file is served", || {
        injected(&reach, "TZ").filter(|value| value == "CET").ok_or("the old value")
    });
}

#[test]
fn a_link_to_nowhere_leaves_the_last_good_presets() {
    let folder = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    write(target.path(), "tz.yaml", &timezone("UTC"));
    std::os::unix::fs::symlink(target.path().join("tz.yaml"), folder.path().join("tz.yaml")).unwrap();
    let reach = serve_folder(&folder);
    reach.await_metric("reach_presets_stale", 0.0);
    fs::remove_file(target.path().join("tz.yaml")).unwrap();
    reach.await_metric("reach_presets_stale", 1.0);
    assert_eq!(injected(&reach, "TZ").as_deref(), Some("UTC"));
    assert!(reach.stderr().contains("tz.yaml: cannot be read"), "{}", reach.stderr());
    write(target.path(), "tz.yaml", &timezone("CET"));
    eventually("what can be read again is served", || {
        injected(&reach, "TZ").filter(|value| value == "CET").ok_or("the old value")
    });
}

#[test]
fn what_could_not_be_read_is_read_when_it_can_be_and_said_once() {
    let folder = presets();
    let reach = serve_folder(&folder);
    reach.await_metric("reach_presets_stale", 0.0);
    // Nothing but the bytes differs, as nothing but the rights do after a chmod, which does not bind the root that tests run as.
    let replace = |bytes: &[u8]| {
        let file = folder.path().join("new");
        fs::write(&file, bytes).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::rename(file, folder.path().join("tz.yaml")).unwrap();
    };
    let good = timezone("CET");
    replace(&vec![0xff; good.len()]);
    reach.await_metric("reach_presets_stale", 1.0);
    // It is looked at again meanwhile.
    thread::sleep(3 * reach::presets::directory::RELOAD_EVERY);
    let log = reach.stderr();
    assert_eq!(log.matches("tz.yaml: cannot be read").count(), 1, "{log}");
    replace(good.as_bytes());
    eventually("what can be read again is served", || {
        injected(&reach, "TZ").filter(|value| value == "CET").ok_or("the old value")
    });
}

#[test]
fn bad_presets_at_the_start_are_all_reported_and_end_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "syntax.yaml", "kind: [ClusterPodPreset\n");
    let invalid = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets-invalid");
    let output = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(
            [&invalid, folder.path(), Path::new("/no/such/folder")]
                .iter()
                .flat_map(|path| [Path::new("--presets"), path]),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
    for entry in fs::read_dir(&invalid).unwrap() {
        let file = entry.unwrap().path();
        let object = file.file_stem().unwrap().display().to_string();
        let start = format!("error: {}, document 1, ", file.display());
        let found = stderr.lines().any(|line| {
            line.strip_prefix(&start).is_some_and(|rest| rest.contains(&format!("PodPreset/{object}: spec")))
        });
        assert!(found, "nothing of {object} with its field:\n{stderr}");
    }
    assert!(stderr.contains("syntax.yaml, document 1: line 1"), "{stderr}");
    assert!(stderr.contains("/no/such/folder: cannot be read"), "{stderr}");
}

// === certificates ===

#[test]
fn certificate_files_that_change_are_served() {
    let folder = presets();
    let first = write_pair(folder.path());
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    let arguments = [
        "--presets".as_ref(),
        folder.path().as_os_str(),
        "--tls-cert".as_ref(),
        certificate.as_os_str(),
        "--tls-key".as_ref(),
        key.as_os_str(),
    ];
    let reach = Reach::start(arguments);
    let answers = |ca: &str| -> io::Result<()> {
        let connection = http::connect_tls(reach.webhook, ca, "http/1.1")?;
        let reply = http::exchange(connection, &post(PATH, review_of(&pod()).to_string()))?;
        check("over the new certificate", &reply, Injected);
        Ok(())
    };
    answers(&first).expect("the first certificate");
    let expiry = "reach_serving_certificate_expiry_timestamp_seconds";
    assert!(reach.metric(expiry).is_some_and(|seconds| seconds > 1.6e9), "{}", reach.status("/metrics").body);

    let second = write_pair(folder.path());
    eventually("the second certificate is served", || answers(&second));
    assert!(answers(&first).is_err(), "the first one is gone");

    // A key that does not belong to it: what was good stays.
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    reach.await_metric("reach_serving_certificate_reload_failing", 1.0);
    answers(&second).expect("the last good certificate");
    let third = write_pair(folder.path());
    eventually("the third certificate is served", || answers(&third));
    reach.await_metric("reach_serving_certificate_reload_failing", 0.0);
}

// === what is told ===

#[test]
fn no_value_appears_in_any_log() {
    // Each place has its own secret, so that a failure tells which one leaks.
    let folder = tempfile::tempdir().unwrap();
    let variables = json!([
        {"name": "http_proxy", "value": "http://user:s3cret-preset@proxy.corp.example:3128"},
        {"name": "no_proxy", "value": "s3cret-merged.example", "mergeStrategy": "Merge"},
    ]);
    write(folder.path(), "good.json", &preset("good", &variables).to_string());
    let reach =
        Reach::start(["--presets".as_ref(), folder.path().as_os_str(), "--log".as_ref(), "trace".as_ref()]);
    let pod = json!({
        "metadata": {
            "name": "web",
            "annotations": {"note": "s3cret-annotation"},
            "labels": {"app": "shop"},
        },
        "spec": {
            "containers": [{
                "name": "web",
                "args": ["--password=s3cret-argument"],
                "env": [
                    {"name": "no_proxy", "value": "s3cret-own.example"},
                    {"name": "TOKEN", "value": "s3cret-token"},
                    {"name": "HTTP_PROXY", "value": "http://s3cret-kept@x"},
                ],
            }],
        },
    });
    let answer = reach.review(&review_of(&pod));
    assert!(
        patch(&answer).is_some_and(|patch| patch.to_string().contains("s3cret-merged")),
        "it is injected"
    );
    let mut unreadable = review_of(&pod);
    unreadable["request"]["object"]["spec"]["containers"][0]["env"] = json!("s3cret-env");
    let answer = reach.review(&unreadable);
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    for body in [r#"{"request": "s3cret-request"}"#, "s3cret-body", r#"{"request": {"uid": ["s3cret-uid"]}}"#]
    {
        let reply = reach.send(&post(PATH, body)).expect("a reply");
        assert!(reply.status == 400 && !reply.body.contains("s3cret"), "{reply:?}");
    }
    let reply = reach
        .send(&request(
            "POST",
            PATH,
            "content-type: s3cret-type\r\nauthorization: Bearer s3cret-bearer\r\n",
            "{}",
        ))
        .expect("a reply");
    assert_eq!(reply.status, 415);

    // Files that become bad in many ways.
    for bad in [
        r#"{"name": "A", "value": {"s3cret-key": "s3cret-mapping"}}"#,
        r#"{"name": "A", "value": ["s3cret-list"]}"#,
        r#"{"name": "A", "value": "s3cret-both", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}"#,
        r#"{"name": "A", "valueFrom": "s3cret-source"}"#,
        r#"{"name": "A", "value": "s3cret-once"}, {"name": "A", "value": "s3cret-twice"}"#,
        r#"{"name": "A", "value": "s3cret-unclosed"#,
        r#"{"name": "A", "value": s3cret-plain: s3cret-nested: x}"#,
        "*s3cret-alias",
        "{name: A, value: \"s3cret-escape\\z\"}",
        "{name: A, value: x, value: s3cret-again}",
    ] {
        // A log that says so is the sign that the file has been looked at.
        let seen = reach.stderr().matches("presets not reloaded").count();
        let start =
            "apiVersion: reach.dev/v1alpha1\nkind: ClusterPodPreset\nmetadata: {name: bad}\nspec:\n  env: [";
        write(folder.path(), "bad.yaml", &format!("{start}{bad}]\n"));
        eventually("a bad file is reported", || {
            let log = reach.stderr();
            if log.matches("presets not reloaded").count() > seen {
                Ok(())
            } else {
                Err(format!("{bad}\n{log}"))
            }
        });
        assert_no_secret(&reach, bad);
    }
    assert!(reach.stderr().contains("\"level\":\"TRACE\""), "it logs everything it can");
    assert_no_secret(&reach, "in all");
}

#[track_caller]
fn assert_no_secret(reach: &Reach, when: &str) {
    for text in [reach.stdout(), reach.stderr(), reach.status("/metrics").body] {
        if let Some(line) = text.lines().find(|line| line.contains("s3cret")) {
            panic!("{when}: {line}");
        }
    }
}

#[test]
fn status_and_metrics_tell_what_is_served() {
    let folder = presets();
    let mut reach = serve_folder(&folder);
    assert_eq!((reach.status("/livez").status, reach.status("/readyz").status), (200, 200));
    assert_eq!(reach.status("/nothing").status, 404);
    serves_well(&reach, "metrics");
    let metrics = reach.status("/metrics");
    assert!(metrics.head.contains("application/openmetrics-text"), "{}", metrics.head);
    for line in [
        format!("reach_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "reach_reviews_total{outcome=\"injected\"} 1".to_owned(),
        "reach_injections_total 1".to_owned(),
        "reach_presets{kind=\"ClusterPodPreset\"} 1".to_owned(),
        "reach_review_duration_seconds_count 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(metrics.body.lines().any(|counted| counted == line), "no {line}:\n{}", metrics.body);
    }
    reach.signal(Signal::INT);
    assert!(reach.await_end().success(), "Ctrl-C is no failure");
}

#[test]
fn the_admin_port_answers_although_others_hold_all_its_places() {
    let reach = serve();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hold = |place: u8| {
        runtime.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 1, place], 0).into()).expect("an address of loopback");
            socket.connect(reach.admin).await.expect("a connection")
        })
    };
    let _held: Vec<_> = (1..=64).map(hold).collect();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(reach.status(path).status, 200, "{path}");
    }
}

#[test]
fn without_presets_it_is_alive_not_ready_and_answers_no_review() {
    // An API server that is not there. (Nobody listens at port 1, and nobody may without being root.)
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "dead", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "dead", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "dead"}}],
        "current-context": "dead",
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "kubeconfig", &kubeconfig.to_string());
    let file = folder.path().join("kubeconfig");
    let mut reach =
        Reach::start(["--kubeconfig".as_ref(), file.as_os_str(), "--drain".as_ref(), "0".as_ref()]);
    assert_eq!(reach.status("/livez").status, 200);
    let ready = reach.status("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "presets: not loaded yet\n"));
    // Not `allowed: true`: the API server counts an error, and its failure policy decides.
    let reply = reach.send(&post(PATH, review_of(&pod()).to_string())).expect("a reply");
    check("without presets", &reply, Status(500));
    reach.await_metric("reach_presets_stale", 1.0);
    assert!(reach.stderr().contains("watch interrupted, retrying"), "{}", reach.stderr());
    assert_no_secret(&reach, "without an API server");
    reach.signal(Signal::TERM);
    assert!(reach.await_end().success());
}

#[test]
fn a_drain_serves_to_its_end_and_says_that_it_is_going() {
    let folder = presets();
    let mut reach =
        Reach::start(["--presets".as_ref(), folder.path().as_os_str(), "--drain".as_ref(), "2".as_ref()]);
    serves_well(&reach, "before the drain");
    reach.signal(Signal::TERM);
    eventually("it is not ready any more", || {
        let reply = reach.status("/readyz");
        if reply.status == 503 && reply.body.contains("shutting down") { Ok(()) } else { Err(reply.body) }
    });
    let reply = reach.send(&post(PATH, review_of(&pod()).to_string())).expect("a reply while it drains");
    check("while it drains", &reply, Injected);
    assert!(reply.head.to_ascii_lowercase().contains("connection: close"), "{}", reply.head);
    assert!(reach.await_end().success());
}

// === helpers ===

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "web", "env": [{"name": "no_proxy", "value": "redis"}]}]},
    })
}

fn preset(name: &str, env: &Value) -> Value {
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": name},
        "spec": {"env": env},
    })
}

fn timezone(zone: &str) -> String {
    format!("{:#}\n", preset("tz", &json!([{"name": "TZ", "value": zone}])))
}

/// A folder with one preset.
fn presets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tz.yaml", &timezone("UTC"));
    folder
}

/// Writes a file at once, as editors do, so that nobody reads half of it.
fn write(folder: &Path, name: &str, text: &str) {
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, folder.join(name)).unwrap();
}

/// Writes `tls.crt` and `tls.key` and returns the certificate to trust, which is the same: it signed itself.
fn write_pair(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([http::NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    write(folder, "tls.crt", &certificate.pem());
    write(folder, "tls.key", &key.serialize_pem());
    certificate.pem()
}

fn serve() -> Reach {
    serve_paths(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets"))
}

fn serve_folder(folder: &TempDir) -> Reach {
    serve_paths(folder.path())
}

fn serve_paths(path: &Path) -> Reach {
    Reach::start(["--presets".as_ref(), path.as_os_str()])
}

/// The value that a new pod gets for a variable.
fn injected(reach: &Reach, name: &str) -> Option<String> {
    let mut pod = pod();
    let patch = patch(&reach.review(&review_of(&pod)))?;
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    Some(env.iter().find(|variable| variable["name"] == name)?["value"].as_str()?.to_owned())
}

#[track_caller]
fn check(what: &str, reply: &Reply, expect: Expect) {
    match expect {
        Status(status) => {
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            assert!(reply.json()["error"].is_string(), "{what}: {reply:?}");
        }
        Unchanged | Injected => {
            assert_eq!(reply.status, 200, "{what}: {reply:?}");
            let answer = reply.json();
            assert_eq!(
                answer["response"]["uid"],
                review_of(&json!({}))["request"]["uid"],
                "{what}: {answer}"
            );
            assert_eq!(answer["response"]["allowed"], true, "{what}: {answer}");
            let patched = answer["response"].get("patch").is_some();
            assert_eq!(patched, matches!(expect, Injected), "{what}: {answer}");
        }
    }
}

/// Whether a good review is still answered as it should be.
#[track_caller]
fn serves_well(reach: &Reach, after: &str) {
    let reply = reach.send(&post(PATH, review_of(&pod()).to_string()));
    let reply =
        reply.unwrap_or_else(|error| panic!("after {after}: {error} (waited for {PATIENCE:?} at most)"));
    check(after, &reply, Injected);
}

/// The text with bytes, which need not be UTF-8, in place of the first occurrence of a part.
fn bytes(text: &str, from: &str, to: &[u8]) -> Vec<u8> {
    let (before, after) = text.split_once(from).expect(from);
    [before.as_bytes(), to, after.as_bytes()].concat()
}
