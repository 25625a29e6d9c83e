//! reach gives every workload of a Kubernetes cluster the right HTTP proxy configuration.
//!
//! The map: bytes go through [`admission`], [`inject`] decides over one snapshot of [`presets`], and a
//! patch comes back. `inject`, `no_proxy`, `clients`, `host` and `manifest` are pure; the rest is a thin edge around them.

pub mod admin; // livez, readyz, metrics
pub mod admission; // AdmissionReview in, AdmissionReview out
pub mod api; // ClusterPodPreset, PodPreset: types, schema, rules
mod api_server; // how its errors read, when to ask it again
pub mod certs; // the serving certificate
pub mod cli; // one file per command
pub mod clients; // how HTTP clients read their proxy variables
mod expansion; // $(NAME) in values
pub mod hooks; // Cluster API's Runtime Hooks over HTTP
pub mod host; // the same presets as files of a host
pub mod inject; // the engine: pod + presets -> what to add
pub mod lease; // a Lease, taken when there is something to do
pub mod lint; // the rules of `reach lint`
pub mod manifest; // streams of YAML and JSON documents, edited as text
pub mod no_proxy; // one no_proxy list
pub mod presets; // where presets come from
pub mod registration; // caBundle in the MutatingWebhookConfiguration
pub mod server; // TLS listener: limits, timeouts, drain
pub mod telemetry; // logs and metrics
