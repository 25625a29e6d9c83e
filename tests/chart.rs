//! The Helm chart and what is generated from it, as they are rendered by the real Helm: for every combination of values
//! what may never be missing or there, schemas of several Kubernetes versions, alerts. Needs no cluster.
//!
//! What is generated (`webhook/`, `certs/`, copies of the CRDs, the table of values) is compared with what is in the
//! repository; with `REACH_UPDATE=1` (`make manifests`) it is written instead.

mod support;

#[path = "chart/alerts.rs"]
mod alerts;
#[path = "chart/generated.rs"]
mod generated;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "chart/schemas.rs"]
mod schemas;
#[path = "chart/values.rs"]
mod values;
