//! Hosts: the presets that pods get, as files of the operating system and the container runtime of a node.
//!
//! [`values`] says what hosts get, by the same merge as for pods.
//! Pure: no clock, no I/O, no logging.

pub mod values;
