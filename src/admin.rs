//! The admin port: is it alive, is it ready and if not why, what does it count.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;

use crate::presets::Presets;
use crate::server::Drain;
use crate::telemetry;

/// What the admin port tells about.
#[derive(Clone, Debug)]
pub struct Admin {
    presets: Arc<Presets>,
    drain: Drain,
    registry: Arc<Registry>,
}

impl Admin {
    /// An admin port over these parts.
    #[must_use]
    pub fn new(presets: Arc<Presets>, drain: Drain, registry: Registry) -> Self {
        Self { presets, drain, registry: Arc::new(registry) }
    }

    /// `/livez`, `/readyz`, `/metrics`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// What is missing before requests can be answered. Once presets are loaded they stay, so losing the
    /// API server never makes it unready.
    fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.presets.is_loaded() {
            missing.push("presets: not loaded yet");
        }
        if self.drain.is_started() {
            missing.push("server: shutting down");
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
