//! New connections to the replicas of a release, again and again: those of API servers live long, so a certificate that
//! they would not accept might go unnoticed.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::support::installation::Installation;
use crate::support::load::Api;
use crate::support::serve::Reach;
use crate::support::{PATIENCE, eventually_within};

/// What came of them.
pub struct Calls<'r> {
    release: &'r Installation<'r>,
    replicas: &'r [Reach],
    /// How many there were.
    pub made: usize,
    leaves: Vec<HashSet<CertificateDer<'static>>>,
}

impl<'r> Calls<'r> {
    pub fn new(release: &'r Installation<'r>, replicas: &'r [Reach]) -> Self {
        Self { release, replicas, made: 0, leaves: vec![HashSet::new(); replicas.len()] }
    }

    /// Calls each replica, and trusts what an API server trusts at that moment: its caBundle, which is returned.
    ///
    /// # Panics
    /// When that does not vouch for what a replica serves.
    pub fn call(&mut self, api: &Api) -> Vec<CertificateDer<'static>> {
        let bundle = self.release.bundle(api);
        for (reach, leaves) in self.replicas.iter().zip(&mut self.leaves) {
            let leaf = self.release.served(reach, &bundle).unwrap_or_else(|error| {
                panic!("caBundle vouches for what {} serves: {error}", reach.webhook)
            });
            self.made += 1;
            leaves.insert(leaf);
        }
        bundle
    }

    /// Calls until it is so.
    pub fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        self.until_within(3 * PATIENCE, what, is);
    }

    /// [`Self::until`], for what has a reason to take longer.
    pub fn until_within(&mut self, patience: Duration, what: &str, is: impl Fn(&Self) -> bool) {
        eventually_within(patience, what, || {
            for api in &self.release.apis {
                self.call(api);
            }
            // Time for others.
            thread::sleep(Duration::from_millis(100));
            if is(self) { Ok(()) } else { Err(format!("leaf changes {:?}", self.changes())) }
        });
    }

    /// Calls until each replica has served this certificate.
    pub fn until_served(&mut self, leaf: &CertificateDer<'_>) {
        self.until("the certificate is served", |calls| {
            calls.leaves.iter().all(|leaves| leaves.contains(leaf))
        });
    }

    /// How often each replica has changed its certificate.
    pub fn changes(&self) -> Vec<usize> {
        self.leaves.iter().map(|leaves| leaves.len() - 1).collect()
    }
}
