//! `reach check` and `reach crds --apply`.

use std::fs;
use std::process::{Command, Output};

use reach::certs::authority::pem;
use serde_json::json;

use crate::cluster::{Cluster, apply_crds};
use crate::support::helm::text;
use crate::support::installation::{Installation, base64};
use crate::support::kubectl::Kubectl as _;
use crate::support::pki::Ca;
use crate::support::serve::{self, Reach};

pub fn says_what_is_wrong(cluster: &Cluster) {
    // It would heal what is broken here, so it is told not to.
    let release = cluster.install("check", &json!({})).with_argument("--ca-bundle", "check");
    let replicas = release.replicas(1);
    let reach = &replicas[0];
    let right = pem(&release.await_one_ca(&replicas));
    let api = &release.apis[0];
    let write = |bundle: &str| {
        let patch =
            json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": base64(bundle)}]);
        api.patch(&release.configuration_path(), &patch).expect("a patch");
    };
    write(&right);
    reach.await_ready();
    let mut said = Vec::new();
    let mut expect = |what: &str, output: Output, status: i32, says: &[&str]| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{what}: {all}");
        for says in says {
            assert!(all.contains(says), "{what}: expected {says:?} in: {all}");
        }
        said.push(format!("{what}: {}", all.trim()));
    };
    point(&release, reach.webhook.port());
    expect("in order", check(&release, reach), 0, &["ok  pods.reach.dev: ", "answers, and injects"]);

    write("");
    expect("empty caBundle", check(&release, reach), 1, &["pods.reach.dev: caBundle is empty"]);
    write("garbage");
    expect(
        "garbage as caBundle",
        check(&release, reach),
        1,
        &["pods.reach.dev: caBundle has no certificate"],
    );
    write(&right[..right.len() / 2]);
    expect("half a caBundle", check(&release, reach), 1, &["pods.reach.dev: caBundle is not PEM"]);
    write(&Ca::new("wrong").pem);
    let says = "pods.reach.dev: caBundle does not vouch for the certificate of check.check-system.svc";
    expect("wrong CA", check(&release, reach), 1, &[says]);
    write(&right);

    let free = std::net::TcpListener::bind((reach.webhook.ip(), 0)).expect("a port");
    let port = free.local_addr().expect("a port").port();
    drop(free);
    point(&release, port);
    let says = format!("pods.reach.dev: cannot connect to check.check-system.svc:{port}");
    expect("nobody listens", check(&release, reach), 1, &[&says]);

    let other = run(&release, reach, "other");
    expect("a configuration it may not read", other, 1, &["cannot read", "other", "forbidden"]);
    api.delete(&release.configuration_path());
    expect("no configuration", check(&release, reach), 1, &["does not exist: install reach"]);

    let clients = json!({"enabled": true, "caConfigMap": "client-ca"});
    let release = cluster.install("checked", &json!({"clientAuth": clients}));
    // Mounted from the ConfigMap in a pod.
    let release = release.with_argument("--client-ca", text(&cluster.clients.ca_file()));
    let replicas = release.replicas(1);
    replicas[0].await_ready();
    point(&release, replicas[0].webhook.port());
    expect(
        "with client authentication",
        check(&release, &replicas[0]),
        0,
        &["asks clients for a certificate"],
    );

    println!("check: {} answers as expected\n  {}", said.len(), said.join("\n  "));
}

pub fn brings_crds_up_to_date(cluster: &Cluster) {
    let control_plane = &cluster.control_plane;
    let apply = || apply_crds(control_plane);
    let crd = || {
        control_plane.ask(&["get", "crd", "podpresets.reach.dev", "--output=yaml", "--show-managed-fields"])
    };
    apply();
    let right = crd();
    let unchanged = "customresourcedefinition.apiextensions.k8s.io/clusterpodpresets.reach.dev unchanged\n\
                     customresourcedefinition.apiextensions.k8s.io/podpresets.reach.dev unchanged\n";
    assert_eq!(apply(), unchanged);
    assert_eq!(crd(), right, "applied twice, the CRDs are the same");

    // What a version of reach had that this one has not, in the name of who installed it.
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let old = json!([{"op": "add", "path": format!("{schema}/old"), "value": {"type": "string"}}]);
    let patch = ["patch", "crd", "podpresets.reach.dev", "--field-manager=helm", "--type=json", "--patch"];
    control_plane.ask(&[&patch[..], &[&old.to_string()]].concat());
    let has_old = || {
        let template =
            "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.old.type}";
        let get = ["get", "crd", "podpresets.reach.dev", "--output", template];
        control_plane.ask(&get) == "string"
    };
    assert!(has_old());
    assert_eq!(
        apply(),
        unchanged.replace("/podpresets.reach.dev unchanged", "/podpresets.reach.dev configured")
    );
    assert!(!has_old(), "a field that is no more is gone, whoever owns it");
    println!("crds --apply: unchanged twice, and one field of helm's removed");
}

/// Lets the registration call a port. Services have no address here, so their name stands for the replica's own.
fn point(release: &Installation<'_>, port: u16) {
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/service/port", "value": port}]);
    release.apis[0].patch(&release.configuration_path(), &patch).expect("a patch");
}

fn check(release: &Installation<'_>, reach: &Reach) -> Output {
    run(release, reach, &release.name)
}

/// Runs `reach check` where the name of the Service is known: with a file of hosts that only it sees.
fn run(release: &Installation<'_>, reach: &Reach, configuration: &str) -> Output {
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    let line = format!("127.0.0.1 localhost\n{} {}\n", reach.webhook.ip(), release.server_name());
    fs::write(hosts.path(), line).expect("a temporary file");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["--mount", "sh", "-ec"])
        .arg("mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"")
        .arg("sh")
        .arg(hosts.path())
        .arg(serve::command().get_program())
        .args(["check", "--webhook-configuration", configuration, "--kubeconfig"])
        .arg(release.kubeconfig())
        .env_remove("REACH_KUBECONFIG")
        .output()
        .expect("cannot run unshare (util-linux)")
}
