//! Hosts: the presets that pods get, as files of the operating system and the container runtime of a node.
//!
//! [`values`] says what hosts get, by the same merge as for pods; [`targets`] writes it as each reader of a file wants it.
//! [`cluster_api`] says what manifests of Cluster API tell of the addresses that hosts have to reach without a proxy.
//! Pure: no clock, no I/O, no logging.

pub mod class;
pub mod cluster_api;
pub mod extension;
pub mod node;
pub mod patch;
pub mod render;
pub mod targets;
pub mod values;
pub mod variables;
