//! What the integration tests share. A test includes it with `mod support;`.
//!
//! (A folder with a `mod.rs`, because Cargo would take a `tests/support.rs` for a test of its own.)

#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses only a part of it")]

use std::thread;
use std::time::{Duration, Instant};

pub mod background;
pub mod boot;
pub mod cluster_api;
pub mod control_plane;
pub mod helm;
pub mod http;
pub mod installation;
pub mod kubectl;
pub mod load;
pub mod node;
pub mod pki;
pub mod process;
pub mod published;
pub mod review;
pub mod runner;
pub mod serve;
pub mod workloads;

/// How long anything that should happen may take. It only bounds a failure: no test asserts that something is fast.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Time between two looks at something that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Asks until there is an answer, and returns it.
///
/// # Panics
/// When there is none in time; the message has the last thing that was there instead.
pub fn eventually<T, E: std::fmt::Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// [`eventually`], for what has a reason to take longer.
///
/// # Panics
/// As [`eventually`].
pub fn eventually_within<T, E: std::fmt::Display>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(instead) => assert!(Instant::now() < deadline, "{what}: still not so; instead:\n{instead}"),
        }
        thread::sleep(POLL_INTERVAL);
    }
}
