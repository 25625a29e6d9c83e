//! What the integration tests share. A test includes it with `mod support;`.
//!
//! (A folder with a `mod.rs`, because Cargo would take a `tests/support.rs` for a test of its own.)

#![allow(dead_code, reason = "each test binary uses only a part of it")]

pub mod control_plane;
