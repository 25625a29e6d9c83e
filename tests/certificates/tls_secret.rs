//! A Secret of type `kubernetes.io/tls` that somebody else writes, as cert-manager does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::eventually;
use crate::support::installation::{Installation, VARIABLE, base64};
use crate::support::load::{Load, STORED};
use crate::support::pki::{Ca, Pair};
use crate::support::serve::Reach;

/// Pods that there have to be.
const LEAST: usize = 200;

/// How long a new CA has to have been in caBundle where an injector writes it. Longer than anything takes on a busy machine
/// that need not wait for it.
const PROPAGATION: Duration = Duration::from_secs(20);

const FAILING: &str = "reach_serving_certificate_reload_failing";

pub fn of_others_is_followed_and_what_is_bad_is_not_taken(cluster: &Cluster) {
    let certificates = json!({"mode": "secret", "secret": {"name": "reach-tls"}});
    let release = cluster.install("keep", &json!({"certificates": certificates}));
    let release = release.with_arguments(|arguments| arguments.push("--ca-propagation=3s".to_owned()));
    let name = release.server_name();
    let replicas = release.replicas(2);
    for reach in &replicas {
        reach.await_unready("certificate: none to serve yet");
    }
    let (first_ca, second_ca) = (Ca::new("first"), Ca::new("second"));
    let first = first_ca.server(&name);
    write(&release, &first, &first_ca.pem);
    release.await_service(&replicas);
    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(60), STORED);

    let mut renewals = 0;
    let mut good = first;
    let mut times = Vec::new();
    for (what, ca) in [("same CA", &first_ca), ("same CA", &first_ca), ("new CA", &second_ca)] {
        let start = Instant::now();
        good = ca.server(&name);
        write(&release, &good, &ca.pem);
        await_served(&release, &replicas, &good);
        renewals += 1;
        times.push(format!("{what} {:.1} s", start.elapsed().as_secs_f32()));
    }
    for api in &release.apis {
        let bundle = release.bundle(api);
        assert!(bundle.contains(&first_ca.der()) && bundle.contains(&second_ca.der()), "united");
    }

    let other = second_ca.server(&name);
    let ca = second_ca.pem.as_str();
    let bad: [(&str, Option<Pair>, &str); 6] = [
        ("expired", Some(second_ca.expired(&name)), "expired on"),
        ("wrong name", Some(second_ca.server("other.example.svc")), "is not for "),
        (
            "mismatched key",
            Some(Pair { certificate: good.certificate.clone(), key: other.key.clone() }),
            "does not match",
        ),
        (
            "garbage",
            Some(Pair { certificate: "garbage".to_owned(), key: "garbage".to_owned() }),
            "no certificate in tls.crt",
        ),
        (
            "half a key",
            Some(Pair { key: other.key[..other.key.len() / 2].to_owned(), ..other.clone() }),
            "cannot read tls.key",
        ),
        ("deleted", None, "is missing"),
    ];
    for (what, pair, says) in &bad {
        match pair {
            Some(pair) => write(&release, pair, ca),
            None => release.apis[0].delete(&release.secret_path("reach-tls")),
        }
        for reach in &replicas {
            reach.await_metric(FAILING, 1.0);
            eventually(&format!("the log says why: {what}"), || {
                let log = reach.stderr();
                if log.contains(says) { Ok(()) } else { Err(log) }
            });
            assert_eq!(reach.status("/readyz").status, 200);
        }
        await_served(&release, &replicas, &good);
        write(&release, &good, ca);
        for reach in &replicas {
            reach.await_metric(FAILING, 0.0);
        }
    }
    for reach in &replicas {
        let log = reach.stderr();
        let keys = bad.iter().filter_map(|(_, pair, _)| pair.as_ref()).map(|pair| &pair.key);
        for line in keys.chain([&good.key]).flat_map(|key| key.lines()).filter(|line| line.len() > 20) {
            // The lines around it tell what to write.
            assert!(line.starts_with("-----") || !log.contains(line), "a key in the log");
        }
    }
    load.await_pods(LEAST);
    let counts = load.stop();
    println!(
        "tls-secret: {renewals} renewals ({}), {} kinds of bad material kept out; {counts}",
        times.join(", "),
        bad.len(),
    );
    counts.assert_all_injected(LEAST);
}

pub fn with_the_bundle_of_an_injector_is_followed(cluster: &Cluster) {
    let certificates =
        json!({"mode": "certManager", "caBundle": "certManager", "certManager": {"secretName": "reach-tls"}});
    let release = cluster.install("injected", &json!({"certificates": certificates}));
    let release = release.with_arguments(|arguments| {
        assert!(arguments.contains(&"--ca-bundle=check".to_owned()), "{arguments:?}");
        arguments.push(format!("--ca-propagation={}s", PROPAGATION.as_secs()));
    });
    let name = release.server_name();
    let (first_ca, second_ca) = (Ca::new("first"), Ca::new("second"));
    let first = first_ca.server(&name);
    write(&release, &first, &first_ca.pem);
    let replicas = release.replicas(2);
    await_served_by(&release, &replicas, &first, &first_ca);
    for reach in &replicas {
        reach.await_unready("does not vouch");
    }
    inject(&release, &first_ca.pem);
    release.await_service(&replicas);

    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(60), STORED);
    for _ in 0..3 {
        let next = first_ca.server(&name);
        write(&release, &next, &first_ca.pem);
        await_served(&release, &replicas, &next);
    }
    load.await_pods(LEAST);
    let same = load.stop();
    same.assert_all_injected(LEAST);

    // That of cert-manager before 1.19 puts the new CA in the place of the old one, so API servers refuse the old certificate
    // from then on.
    let load =
        Load::start(&cluster.kubeconfigs(), &release.pods, VARIABLE, Duration::from_millis(20), STORED);
    let next = second_ca.server(&name);
    write(&release, &next, &second_ca.pem);
    let start = Instant::now();
    inject(&release, &second_ca.pem);
    await_served(&release, &replicas, &next);
    let took = start.elapsed();
    release.await_injection();
    load.await_pods(load.so_far() + 50);
    let counts = load.stop();
    for reach in &replicas {
        assert_eq!(reach.metric("reach_ca_bundle_writes_total"), Some(0.0), "it only looks");
    }
    println!(
        "injector: 3 renewals with the same CA, {same}; CA replaced in caBundle: the new certificate is served {:.2} s later, \
         {} of {} pods failed",
        took.as_secs_f32(),
        counts.failed,
        counts.total()
    );
    assert_eq!(counts.bare, 0);
    // It does not wait for API servers to learn a CA when they have forgotten the other one.
    assert!(
        took < PROPAGATION,
        "{took:?}: the new certificate waits although nothing vouches for the old one"
    );
}

/// Writes the Secret as cert-manager does.
fn write(release: &Installation<'_>, pair: &Pair, ca: &str) {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "reach-tls",
            "namespace": release.namespace,
            "labels": {"controller.cert-manager.io/fao": "true"},
            "annotations": {
                "cert-manager.io/alt-names": release.server_name(),
                "cert-manager.io/certificate-name": "reach-tls",
                "cert-manager.io/common-name": "",
                "cert-manager.io/ip-sans": "",
                "cert-manager.io/issuer-group": "cert-manager.io",
                "cert-manager.io/issuer-kind": "Issuer",
                "cert-manager.io/issuer-name": "reach-ca",
                "cert-manager.io/uri-sans": "",
            },
        },
        "type": "kubernetes.io/tls",
        "data": {
            "ca.crt": base64(ca),
            "tls.crt": base64(&pair.certificate),
            "tls.key": base64(&pair.key),
        },
    });
    let path = release.secret_path("reach-tls");
    release.apis[0].apply(&path, "cert-manager-certificates-issuing", &secret);
}

/// Writes caBundle as cert-manager's injector does: an update of the whole object.
fn inject(release: &Installation<'_>, ca: &str) {
    let mut configuration = release.configuration();
    for webhook in configuration["webhooks"].as_array_mut().expect("webhooks") {
        let client: &mut Value = &mut webhook["clientConfig"];
        client["caBundle"] = json!(base64(ca));
    }
    release.apis[0].replace(&release.configuration_path(), &configuration);
}

/// Waits until each replica serves this certificate to those who trust what both API servers trust.
fn await_served(release: &Installation<'_>, replicas: &[Reach], pair: &Pair) {
    for reach in replicas {
        for api in &release.apis {
            eventually("the certificate is served", || {
                is_served(pair, &release.served(reach, &release.bundle(api))?)
            });
        }
    }
}

fn await_served_by(release: &Installation<'_>, replicas: &[Reach], pair: &Pair, ca: &Ca) {
    for reach in replicas {
        eventually("the certificate is served", || is_served(pair, &release.served(reach, &[ca.der()])?));
    }
}

fn is_served(pair: &Pair, served: &[u8]) -> Result<(), String> {
    let expected = reach::certs::certificates(pair.certificate.as_bytes(), "").expect("a certificate");
    if *expected[0] == *served { Ok(()) } else { Err("another certificate".to_owned()) }
}
