//! URLs and variables as clients read them: never a panic, and a route that a person can be told of.
//!
//! The first line is the URL, each other one a variable with its value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::clients::{Client, Environment, Target, route};

/// The part of a password that must not show.
const SECRET: &str = "s3cret";

fuzz_target!(|text: &str| {
    // Elsewhere it may well show.
    if text.contains(SECRET) {
        return;
    }
    let mut lines = text.split('\n');
    let Some(target) = lines.next().and_then(|url| url.parse::<Target>().ok()) else { return };
    // Before an `@` stand a user and a password, however odd they look.
    let environment: Environment = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name, value.replacen("//", &format!("//me:{SECRET}@"), 1)))
        .collect();
    for client in Client::ALL {
        let route = route(client, &environment, &target);
        if let Some(variable) = &route.why().variable {
            assert!(environment.get(variable).is_some(), "{client:?} is led by a variable that is not set");
        }
        assert!(!route.why().to_string().is_empty(), "{client:?} says why");
        let shown = format!("{route:?} {}", route.why());
        assert!(!shown.contains(SECRET), "{client:?} shows no password");
        serde_json::to_string(&route).expect("a route is JSON");
    }
});
