//! Cluster API's Runtime Hooks over HTTP: what is in front of [`host::extension`](crate::host::extension).
//!
//! They share the listener of the webhook, because they share its certificate, its Service and its limits. A call takes
//! milliseconds where a review takes microseconds, and there are few of them, so each runs on a thread that reviews do not use.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::admission;
use crate::host::extension::{self, API_VERSION, Hook};
use crate::presets::Presets;

/// Longest time for the body to arrive: what Cluster API waits for all of an answer, unless it is told otherwise.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Calls taken at once; one more is answered with 503 at once. Cluster API reconciles at most ten clusters at a time
/// (`--clustertopology-concurrency`), and asks again.
const MAX_CALLS: usize = 16;

/// Values in the bodies of calls that are worked on at once, and so of one: a value may be two bytes of JSON and a hundred of
/// memory. A cluster with fifty templates has some ten thousand.
const MAX_VALUES: usize = 200_000;

/// What the handler needs.
#[derive(Debug)]
pub struct Hooks {
    presets: Arc<Presets>,
    calls: Arc<Semaphore>,
    values: Arc<Semaphore>,
}

impl Hooks {
    /// A handler over these presets.
    #[must_use]
    pub fn new(presets: Arc<Presets>) -> Self {
        let [calls, values] = [MAX_CALLS, MAX_VALUES].map(|most| Arc::new(Semaphore::new(most)));
        Self { presets, calls, values }
    }

    /// Takes what is for hooks, and leaves all else to the webhook.
    pub fn in_front_of<B, S>(
        self,
        webhook: S,
    ) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone + Send
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
        S: Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>,
        S: Clone + Send + Sync,
    {
        let hooks = Arc::new(self);
        service_fn(move |request: Request<B>| {
            let is_ours =
                request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(API_VERSION));
            let (hooks, webhook) = (Arc::clone(&hooks), webhook.clone());
            async move { if is_ours { Ok(hooks.handle(request).await) } else { webhook.call(request).await } }
        })
    }

    async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
    {
        let Some(hook) = Hook::at(request.uri().path()) else {
            return refused(StatusCode::NOT_FOUND, "there is no such hook");
        };
        // Cluster API gives its body no media type.
        if request.method() != Method::POST {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "expected POST");
        }
        let body = match tokio::time::timeout(BODY_TIME, admission::read(request)).await {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return refusal.into(),
            Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        };
        // Only now: a body that never ends must not take the place of a call.
        let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "too many calls at once");
        };
        // At least as many as there are: commas and brackets of texts count as well.
        let values = body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        if values > MAX_VALUES {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body has too many values");
        }
        let values =
            Arc::clone(&self.values).try_acquire_many_owned(u32::try_from(values).unwrap_or(u32::MAX));
        let Ok(values) = values else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "too many values at once");
        };
        // Without presets, the answer would be to take the proxy away.
        let presets = match self.presets.current() {
            Some(snapshot) => snapshot.cluster_presets().to_vec(),
            None => return refused(StatusCode::SERVICE_UNAVAILABLE, "presets are not loaded yet"),
        };
        let start = Instant::now();
        let answered = tokio::task::spawn_blocking(move || {
            let _permits = (permit, values);
            extension::answer(hook, &body, &presets)
        });
        match answered.await {
            Ok(Ok(answer)) => {
                log(hook, &answer, start.elapsed());
                reply(StatusCode::OK, answer.body)
            }
            Ok(Err(error)) => refused(StatusCode::BAD_REQUEST, &error),
            Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"),
        }
    }
}

fn log(hook: Hook, answer: &extension::Answer, took: Duration) {
    let (hook, micros) = (hook.name(), took.as_micros());
    if let Some(failure) = &answer.failure {
        tracing::warn!(hook, micros, failure, "a hook of Cluster API fails");
    } else {
        tracing::debug!(hook, micros, notes = ?answer.notes, "answered a hook of Cluster API");
    }
}

fn refused(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    tracing::debug!(%status, message, "refused a call of Cluster API");
    reply(status, json!({"error": message}).to_string().into_bytes())
}

fn reply(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::inject::snapshot::Snapshot;

    async fn status(presets: &Arc<Presets>, path: &str) -> (StatusCode, String) {
        status_of(presets, path, json!({"apiVersion": API_VERSION, "kind": "DiscoveryRequest"}).to_string())
            .await
    }

    async fn status_of(presets: &Arc<Presets>, path: &str, body: String) -> (StatusCode, String) {
        let webhook = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(reply(StatusCode::IM_A_TEAPOT, Vec::new()))
        });
        let service = Hooks::new(Arc::clone(presets)).in_front_of(webhook);
        let request = Request::post(path).body(Full::from(body)).unwrap();
        let response = service.call(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn without_presets_nothing_is_said_about_a_proxy() {
        let presets = Arc::new(Presets::default());
        let path = format!("/{API_VERSION}/discovery");
        let (code, body) = status(&presets, &path).await;
        assert_eq!(
            (code, body.contains("presets are not loaded yet")),
            (StatusCode::SERVICE_UNAVAILABLE, true)
        );
        presets.publish(Snapshot::default());
        assert_eq!(status(&presets, &path).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_body_with_more_values_than_there_is_memory_for_is_not_read() {
        let presets = Arc::new(Presets::default());
        presets.publish(Snapshot::default());
        let body = |values: usize| format!("[{}]", vec!["[]"; values].join(","));
        let path = format!("/{API_VERSION}/discovery");
        for (values, expected) in
            [(90_000, StatusCode::BAD_REQUEST), (200_000, StatusCode::PAYLOAD_TOO_LARGE)]
        {
            assert_eq!(status_of(&presets, &path, body(values)).await.0, expected, "{values}");
        }
    }

    #[tokio::test]
    async fn what_is_for_no_hook_is_for_the_webhook() {
        let presets = Arc::new(Presets::default());
        assert_eq!(status(&presets, "/mutate/pods").await.0, StatusCode::IM_A_TEAPOT);
        assert_eq!(status(&presets, &format!("/{API_VERSION}/other")).await.0, StatusCode::NOT_FOUND);
    }
}
