//! Certificates, keys and the Secrets they are in: never a panic, and nothing unusable is taken into use.
//!
//! The bytes are a PEM text with certificates, with a key, or with both, the content of one, or a Secret.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use libfuzzer_sys::fuzz_target;
use pem::Pem;
use reach::certs::authority::Authority;
use reach::certs::managed::Authorities;
use reach::certs::{Material, Places, certificates};
use reach::host::node::Certificate;
use reach::host::values::Secrets;
use serde_json::Value;

/// A pair that is good, so that each half also meets what belongs to nobody.
static OURS: LazyLock<Material> = LazyLock::new(|| {
    let lifetime = Duration::from_hours(100 * 365 * 24);
    let authority = Authority::make(SystemTime::now(), lifetime).expect("a CA");
    Material { chain: authority.pem().into_bytes(), key: authority.key_pem().into_bytes() }
});

fn places() -> Places {
    Places { certificate: "tls.crt".to_owned(), key: "tls.key".to_owned() }
}

fn check(chain: &[u8], key: &[u8], now: SystemTime) {
    let material = Material { chain: chain.to_vec(), key: key.to_vec() };
    match material.check(&places(), now) {
        Ok(serving) => {
            assert!(!serving.chain().is_empty() && serving.is_valid(now), "what is served is valid");
        }
        // Messages are shown to people.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(authority) = Authority::read(chain, key, &places(), now) {
        assert!(authority.is_valid(now), "what signs is valid");
        let leaf = authority.sign(&["reach.shop.svc".to_owned()], now, Duration::from_hours(1));
        if let Ok(leaf) = leaf {
            assert!(leaf.not_after() <= authority.not_after(), "no leaf outlives its CA");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let now = SystemTime::now();
    check(bytes, bytes, now);
    check(bytes, &OURS.key, now);
    check(&OURS.chain, bytes, now);
    // As what is in a PEM text, which chance alone does not make.
    let certificate = pem::encode(&Pem::new("CERTIFICATE", bytes));
    let key = pem::encode(&Pem::new("PRIVATE KEY", bytes));
    check(certificate.as_bytes(), &OURS.key, now);
    check(&OURS.chain, key.as_bytes(), now);
    if let Ok(text) = std::str::from_utf8(bytes) {
        for one in Certificate::read("ca", text).into_iter().flatten() {
            let read = certificates(one.pem.as_bytes(), "ca").expect("what hosts get is a certificate");
            assert_eq!(read.len(), 1, "each file of a host has one");
        }
    }
    // A Secret, as reach keeps its CAs and as others keep a password.
    let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = Secrets::default().insert(&object);
    if let Ok(secret) = serde_json::from_value::<Secret>(object)
        && let Ok(authorities) = Authorities::read(&secret, "Secret/reach-ca", now)
    {
        assert!(!authorities.certificates().is_empty(), "there is a CA to trust");
    }
});
