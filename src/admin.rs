//! The admin port: is it alive, is it ready and if not why, what does it count.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;

use crate::certs::CertResolver;
use crate::presets::Presets;
use crate::registration::Trust;
use crate::server::Drain;
use crate::telemetry;

/// What the admin port tells about.
#[derive(Clone, Debug)]
pub struct Admin {
    presets: Arc<Presets>,
    resolver: Arc<CertResolver>,
    trust: Option<Trust>,
    drain: Drain,
    registry: Arc<Registry>,
}

impl Admin {
    /// An admin port over these parts.
    #[must_use]
    pub fn new(
        presets: Arc<Presets>,
        resolver: Arc<CertResolver>,
        trust: Option<Trust>,
        drain: Drain,
        registry: Registry,
    ) -> Self {
        Self { presets, resolver, trust, drain, registry: Arc::new(registry) }
    }

    /// `/livez`, `/readyz`, `/metrics`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// What is missing before requests can be answered. Once presets are loaded they stay, and so does the
    /// trust of API servers, so losing the API server never makes it unready.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.presets.is_loaded() {
            missing.push("presets: not loaded yet".to_owned());
        }
        if self.resolver.current().is_none() {
            missing.push("certificate: none to serve yet".to_owned());
        }
        missing.extend(self.trust.as_ref().and_then(|trust| trust.missing(&self.resolver)));
        if self.drain.is_started() {
            missing.push("server: shutting down".to_owned());
        }
        missing
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let missing = admin.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], telemetry::encode(&admin.registry))
}
