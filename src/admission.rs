//! `AdmissionReview` in, `AdmissionReview` out; cannot fail.
//!
//! [`review`] is the pure part: bytes and a snapshot in, an answer out. A readable review is always
//! answered with `allowed: true`: reach is no policy engine, and a pod without a proxy is better than no
//! pod. What reach cannot decide (presets or namespace not known yet) is answered with an HTTP error, so
//! that the API server applies its failure policy and counts it, instead of a quiet "nothing to do".

use std::convert::Infallible;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;

use crate::inject::json::{self, Raw};
use crate::inject::merge::LeftOut;
use crate::inject::pod::{List, Pod, Text};
use crate::inject::set::PresetSets;
use crate::inject::snapshot::{ClusterLists, Snapshot};
use crate::inject::{self, LeftAlone, Plan, Target, annotation, patch};
use crate::presets::Presets;
use crate::server::NoRoom;
use crate::telemetry::{Outcome, ReviewMetrics, Skip};

/// Path of the webhook.
pub const PATH: &str = "/mutate/pods";
/// Largest request, in bytes: the API server takes objects of up to 3 MiB, and a review can hold two of
/// them and the growth of JSON (controller-runtime has the same limit).
pub const MAX_BODY: usize = 7 * 1024 * 1024;
/// Longest time for the body to arrive and a namespace to become known. `?timeout=` of the API server
/// shortens it.
pub const MAX_TIME: Duration = Duration::from_secs(3);
/// Largest patch, in bytes. The API server writes the patch to the audit log and the pod to etcd, whose
/// limit of 1.5 MiB a larger one could reach.
pub const MAX_PATCH: usize = 256 * 1024;
/// Most warnings in one answer, and the longest one in characters: past 4096 characters in all, the API
/// server cuts each to 256.
const MAX_WARNINGS: usize = 12;
const MAX_WARNING: usize = 240;
/// How long a namespace that is not known may take to become known. It was often created a moment ago,
/// and the API server does not wait for our watch.
const NAMESPACE_LAG: Duration = Duration::from_secs(1);

/// The answer to a review.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON.
    pub body: Vec<u8>,
    /// How it ended.
    pub outcome: Outcome,
}

/// The namespace of the request, which is not known, so that nothing can be said about the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownNamespace(pub Box<str>);

/// What the handler needs.
#[derive(Clone, Debug)]
pub struct Admission {
    presets: Arc<Presets>,
    metrics: ReviewMetrics,
}

/// The handler of one connection: the count of its references, which each request changes, is of this connection alone, and does
/// not go from one processor to the other.
#[derive(Debug)]
struct Connection(Arc<Admission>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Text<'a>,
    kind: Text<'a>,
    request: Option<ReviewRequest<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewRequest<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(default)]
    resource: Resource<'a>,
    #[serde(default)]
    sub_resource: Option<Text<'a>>,
    operation: Text<'a>,
    #[serde(default)]
    namespace: Option<Text<'a>>,
    #[serde(default)]
    object: Option<Pod<'a>>,
    #[serde(default)]
    old_object: Option<Raw<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource<'a> {
    #[serde(borrow)]
    group: Text<'a>,
    resource: Text<'a>,
}

/// Just enough of a review to answer it.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    request: EnvelopeRequest<'a>,
}

#[derive(Deserialize)]
struct EnvelopeRequest<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
}

/// The ephemeral containers of a pod before the request.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Before<'a> {
    #[serde(borrow)]
    spec: BeforeSpec<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BeforeSpec<'a> {
    #[serde(borrow)]
    ephemeral_containers: List<BeforeContainer<'a>>,
}

#[derive(Deserialize)]
struct BeforeContainer<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

// === the pure part ===

/// Answers a review. Never panics, whatever the bytes are.
///
/// # Errors
/// If the namespace is not known; ask again with a newer snapshot.
pub fn review(body: &[u8], snapshot: &Snapshot, metrics: &ReviewMetrics) -> Result<Answer, UnknownNamespace> {
    guard(body, || decide(body, snapshot, metrics))
}

/// A mistake in the engine admits the pod unchanged.
fn guard(
    body: &[u8],
    decide: impl FnOnce() -> Result<Answer, UnknownNamespace>,
) -> Result<Answer, UnknownNamespace> {
    // What `decide` borrows is read only, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
        Ok(match uid(body) {
            Some(uid) => allowed(&uid, Outcome::panicked, None, &[NOT_INJECTED.to_owned()]),
            None => bad_request("the review cannot be read"),
        })
    })
}

const NOT_INJECTED: &str =
    "reach: injection skipped because of an internal error; the pod is admitted unchanged";

fn decide(body: &[u8], snapshot: &Snapshot, metrics: &ReviewMetrics) -> Result<Answer, UnknownNamespace> {
    let review: Review<'_> = match json::from_slice(body) {
        Ok(review) => review,
        Err(_) => return Ok(unreadable(body)),
    };
    if *review.api_version != *"admission.k8s.io/v1" || *review.kind != *"AdmissionReview" {
        return Ok(bad_request("expected an AdmissionReview of admission.k8s.io/v1"));
    }
    let Some(request) = review.request else {
        return Ok(bad_request("the review has no request"));
    };
    let before;
    let target = match (&*request.operation, request.sub_resource.as_deref().unwrap_or_default()) {
        _ if *request.resource.resource != *"pods" || !request.resource.group.is_empty() => {
            return Ok(not_ours(&request.uid, metrics));
        }
        ("CREATE", "") => Target::Pod,
        ("UPDATE", "ephemeralcontainers") => {
            let Ok(names) = ephemeral_containers(request.old_object) else {
                return Ok(unreadable(body));
            };
            before = names;
            Target::EphemeralContainers(&before)
        }
        _ => return Ok(not_ours(&request.uid, metrics)),
    };
    let Some(pod) = request.object else {
        return Ok(unreadable(body));
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let namespace = snapshot.namespace(namespace).ok_or_else(|| UnknownNamespace(namespace.into()))?;
    // A pod may have thousands of containers: nothing is made of it that would not be sent.
    let plan = match inject::plan_within(&namespace, &pod, target, MAX_PATCH) {
        Err(_) => return Ok(unreadable(body)),
        Ok(Err(LeftAlone::TooLarge)) => None,
        Ok(Err(reason)) => {
            metrics.skipped(reason.into(), 1);
            return Ok(allowed(&request.uid, Outcome::skipped, None, &[]));
        }
        Ok(Ok(plan)) => Some(plan),
    };
    if let Some(plan) =
        plan.filter(|plan| !(annotation::was_without_names(plan, &pod) && namespace.has_names()))
        && let Ok(patch) = patch::write_within(&plan, &pod, "", MAX_PATCH)
    {
        return Ok(injected(&request.uid, &plan, &pod, patch.as_deref(), metrics));
    }
    // Whoever names Services is not to keep the proxy from pods of others.
    if namespace.has_names() {
        let cluster_network = snapshot.cluster_lists().cluster_network.clone();
        let lists = ClusterLists { cluster_network, ..ClusterLists::default() };
        let sets = PresetSets::default();
        let plan = inject::plan_within(&namespace.with_lists(&lists, &sets), &pod, target, MAX_PATCH);
        if let Ok(Ok(mut plan)) = plan
            && plan.applied().iter().any(|preset| preset.asks_for_names())
        {
            plan.without_names = true;
            if let Ok(patch) = patch::write_within(&plan, &pod, "", MAX_PATCH) {
                return Ok(injected(&request.uid, &plan, &pod, patch.as_deref(), metrics));
            }
        }
    }
    let warning = format!("reach: injection skipped: the patch would have more than {MAX_PATCH} bytes");
    Ok(allowed(&request.uid, Outcome::too_large, None, &[warning]))
}

/// The answer with what a plan makes of a pod.
fn injected(
    uid: &str,
    plan: &Plan<'_>,
    pod: &Pod<'_>,
    patch: Option<&[u8]>,
    metrics: &ReviewMetrics,
) -> Answer {
    metrics.skipped(Skip::preset_conflict, plan.skipped.len());
    metrics.skipped(Skip::variable_conflict, plan.conflicts().len());
    metrics.skipped(Skip::unmergeable_variable, plan.unmergeable(pod).count());
    let too_long = [LeftOut::Names, LeftOut::Everything].map(|what| plan.left_out(pod, what).count());
    metrics.skipped(Skip::too_long, too_long.iter().sum::<usize>() + usize::from(plan.without_names));
    let warnings = annotation::warnings(plan, pod);
    match patch {
        None => allowed(uid, Outcome::unchanged, None, &warnings),
        Some(patch) => {
            metrics.injected(plan.applied().len());
            allowed(uid, Outcome::injected, Some(patch), &warnings)
        }
    }
}

fn ephemeral_containers(before: Option<Raw<'_>>) -> Result<Vec<Text<'_>>, json::Error> {
    let Some(before) = before else {
        return Ok(Vec::new());
    };
    let before: Option<Before<'_>> = json::from_str(before.0)?;
    let containers = before.unwrap_or_default().spec.ephemeral_containers.0.unwrap_or_default();
    Ok(containers.into_iter().map(|container| container.name).collect())
}

fn uid(body: &[u8]) -> Option<Text<'_>> {
    serde_json::from_slice::<Envelope<'_>>(body).ok().map(|envelope| envelope.request.uid)
}

/// A request that the webhook's registration should not have sent.
fn not_ours(uid: &str, metrics: &ReviewMetrics) -> Answer {
    metrics.skipped(Skip::not_a_pod, 1);
    allowed(uid, Outcome::skipped, None, &[])
}

/// A review whose object cannot be read: admitted unchanged when it can be answered at all.
fn unreadable(body: &[u8]) -> Answer {
    match uid(body) {
        Some(uid) => {
            let warning = "reach: injection skipped: the pod cannot be read; it is admitted unchanged";
            allowed(&uid, Outcome::unreadable, None, &[warning.to_owned()])
        }
        None => bad_request("the body is no AdmissionReview with a request.uid"),
    }
}

fn allowed(uid: &str, outcome: Outcome, patch: Option<&[u8]>, warnings: &[String]) -> Answer {
    let mut body = Vec::with_capacity(patch.map_or(256, |patch| 320 + patch.len() * 4 / 3));
    body.extend_from_slice(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#,
    );
    patch::string(&mut body, uid);
    body.extend_from_slice(br#","allowed":true"#);
    if let Some(patch) = patch {
        body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        base64_simd::STANDARD.encode_append(patch, &mut body);
        body.push(b'"');
    }
    if !warnings.is_empty() {
        body.extend_from_slice(br#","warnings":["#);
        for (index, warning) in warnings.iter().take(MAX_WARNINGS).enumerate() {
            if index > 0 {
                body.push(b',');
            }
            // Warnings travel in an HTTP header.
            let line: String =
                warning.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_WARNING).collect();
            patch::string(&mut body, &line);
        }
        body.push(b']');
    }
    body.extend_from_slice(b"}}");
    Answer { status: StatusCode::OK, body, outcome }
}

fn bad_request(message: &str) -> Answer {
    failure(StatusCode::BAD_REQUEST, Outcome::bad_request, message)
}

fn failure(status: StatusCode, outcome: Outcome, message: &str) -> Answer {
    let mut body = br#"{"error":"#.to_vec();
    patch::string(&mut body, message);
    body.push(b'}');
    Answer { status, body, outcome }
}

// === impl Answer ===

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(Full::from(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

// === impl Admission ===

impl Admission {
    /// A handler over these presets.
    #[must_use]
    pub fn new(presets: Arc<Presets>, metrics: ReviewMetrics) -> Self {
        Self { presets, metrics }
    }

    /// The webhook, for [`crate::server`], which clones it for each connection. There is one path and one method: a router
    /// would cost more than all else that is done to a request before its body is read.
    #[must_use]
    pub fn service<B>(
        self,
    ) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone + Send
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send,
    {
        let connection = Connection(Arc::new(self));
        service_fn(move |request| {
            let admission = Arc::clone(&connection.0);
            async move { Ok(admission.handle(request).await.into()) }
        })
    }

    async fn handle<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
    {
        if let Err(answer) = acceptable(&request) {
            self.metrics.refused(answer.outcome);
            return answer;
        }
        let limit = time_limit(request.uri().query());
        let mut body = pin!(read(request));
        // Most of the time it has arrived with the head, and needs no clock.
        let (body, deadline) = match futures::poll!(&mut body) {
            Poll::Ready(body) => (body, None),
            Poll::Pending => {
                let deadline = tokio::time::Instant::now() + limit;
                let late = |_| Err(body_is_late());
                (tokio::time::timeout_at(deadline, body).await.unwrap_or_else(late), Some(deadline))
            }
        };
        let body = match body {
            Ok(body) => body,
            Err(answer) => {
                self.metrics.refused(answer.outcome);
                return answer;
            }
        };
        let start = Instant::now();
        let answer = self.review(&body, deadline.unwrap_or_else(|| (start + limit).into())).await;
        let took = start.elapsed();
        self.metrics.reviewed(answer.outcome, took);
        tracing::debug!(
            uid = uid(&body).as_deref().unwrap_or_default(),
            outcome = ?answer.outcome,
            request_bytes = body.len(),
            reply_bytes = answer.body.len(),
            micros = took.as_micros(),
            "reviewed"
        );
        answer
    }

    /// Answers from the current snapshot; waits a moment for a namespace that is not known.
    async fn review(&self, body: &[u8], deadline: tokio::time::Instant) -> Answer {
        let Some(snapshot) = self.presets.current() else {
            return failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                Outcome::not_ready,
                "presets are not loaded yet",
            );
        };
        let UnknownNamespace(namespace) = match review(body, &snapshot, &self.metrics) {
            Ok(answer) => return answer,
            Err(unknown) => unknown,
        };
        let deadline = deadline.min(tokio::time::Instant::now() + NAMESPACE_LAG);
        let mut changes = self.presets.changes();
        loop {
            // Many may wait, and few changes are about their namespaces.
            if let Some(snapshot) = self.presets.current()
                && snapshot.namespace(&namespace).is_some()
                && let Ok(answer) = review(body, &snapshot, &self.metrics)
            {
                return answer;
            }
            if !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                let message = "the namespace of the request is not known (yet)";
                return failure(StatusCode::INTERNAL_SERVER_ERROR, Outcome::not_ready, message);
            }
        }
    }
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        Self(Arc::new(Admission::clone(&self.0)))
    }
}

/// Refuses what no API server sends.
fn acceptable<B>(request: &Request<B>) -> Result<(), Answer> {
    let refused = |status, message| Err(failure(status, Outcome::bad_request, message));
    if request.uri().path() != PATH {
        return refused(StatusCode::NOT_FOUND, "the path is not /mutate/pods");
    }
    if request.method() != Method::POST {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "expected POST");
    }
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected Content-Type: application/json");
    }
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected a body without Content-Encoding");
    }
    let length = text(header::CONTENT_LENGTH).parse::<usize>().unwrap_or_default();
    if length > MAX_BODY { Err(too_long()) } else { Ok(()) }
}

fn body_is_late() -> Answer {
    failure(StatusCode::REQUEST_TIMEOUT, Outcome::timed_out, "the body did not arrive in time")
}

fn too_long() -> Answer {
    failure(StatusCode::PAYLOAD_TOO_LARGE, Outcome::bad_request, "the body has more than 7 MiB")
}

/// Reads the body, up to its limit.
pub(crate) async fn read<B>(request: Request<B>) -> Result<Bytes, Answer>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
{
    let mut body = pin!(Limited::new(request.into_body(), MAX_BODY));
    let mut first = Bytes::new();
    // Into one piece of memory: to keep each chunk would take many times the memory of one that has a single byte.
    let mut whole = Vec::new();
    // Whoever knows the length need not ask once more.
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(|error| unread(&*error))?.into_data() else { continue };
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            // A length that is not known is taken for the largest one: what is reserved and never written costs nothing, but
            // each piece that a growing body leaves behind does.
            let rest =
                body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok()).unwrap_or(MAX_BODY);
            whole.reserve_exact((first.len() + data.len() + rest).min(MAX_BODY));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// Why a body could not be read.
fn unread(error: &(dyn StdError + Send + Sync + 'static)) -> Answer {
    if error.is::<LengthLimitError>() {
        too_long()
    } else if error.is::<NoRoom>() {
        failure(StatusCode::SERVICE_UNAVAILABLE, Outcome::overloaded, "too many large requests at once")
    } else {
        bad_request("the body ended early")
    }
}

/// The time the API server gives (`?timeout=10s`, a Go duration of whole seconds), at most [`MAX_TIME`].
fn time_limit(query: Option<&str>) -> Duration {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout=")?.strip_suffix('s')?.parse().ok())
        .map_or(MAX_TIME, Duration::from_secs)
        .min(MAX_TIME)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::*;
    use crate::no_proxy::portable::{Author, List};
    use crate::presets::directory;

    #[test]
    fn a_panic_admits_the_pod_unchanged() {
        let body =
            br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1"}}"#;
        let answer = guard(body, || panic!("secret")).unwrap();
        let reply: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.outcome, Outcome::panicked);
        assert_eq!(reply["response"]["uid"], "u-1");
        assert_eq!(reply["response"]["allowed"], true);
        assert!(reply["response"].get("patch").is_none());
        assert!(reply["response"]["warnings"][0].as_str().unwrap().contains("internal error"));
    }

    #[test]
    fn a_list_of_services_that_is_too_long_for_a_patch_keeps_nothing_else_from_a_pod() {
        let list = |text: &str| List::parse(text, Author::Preset);
        let preset = |from: &[&str], derive: &[&str]| {
            let object = json!({
                "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "p"},
                "spec": {
                    "env": [{"name": "http_proxy", "value": "http://proxy:1"}, {"name": "no_proxy", "value": "own.example"}],
                    "noProxyFrom": from, "derive": derive,
                },
            });
            Arc::new(directory::preset(&object).unwrap())
        };
        let services: Vec<String> = (0..600).map(|n| format!("service-{n}.shop")).collect();
        let metrics = ReviewMetrics::register(&mut Registry::default());
        let review_of = |pod: &Value| {
            json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "request": {
                    "uid": "u", "operation": "CREATE", "namespace": "shop",
                    "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": pod,
                },
            })
            .to_string()
        };
        let answer = |pod: &Value, from: &[&str], derive: &[&str]| {
            let derived = ClusterLists {
                all_services: list(&services.join(",")),
                cluster_network: list("10.96.0.0/12"),
                ..ClusterLists::default()
            };
            let snapshot =
                Snapshot::from_parts([preset(from, derive)], [], true).with_derived(Arc::new(derived));
            let answer = review(review_of(pod).as_bytes(), &snapshot, &metrics).unwrap();
            let reply: Value = serde_json::from_slice(&answer.body).unwrap();
            let warnings = reply["response"]["warnings"].as_array().cloned().unwrap_or_default();
            let mut after = pod.clone();
            if let Some(patch) = reply["response"]["patch"].as_str() {
                let patch = base64_simd::STANDARD.decode_to_vec(patch).unwrap();
                assert!(patch.len() <= MAX_PATCH);
                let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
                json_patch::patch(&mut after, &patch).unwrap();
            }
            (answer.outcome, warnings, after)
        };
        let pod_of = |containers: usize| {
            let containers: Vec<Value> = (0..containers).map(|n| json!({"name": format!("c{n}")})).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
        };
        let both = ["AllServices", "ClusterNetwork"];
        let (outcome, warnings, after) = answer(&pod_of(2), &both, &["Java"]);
        assert_eq!((outcome, warnings.len()), (Outcome::injected, 0));
        assert!(after.to_string().contains("service-599.shop"));
        // What the first answer takes is more than what a second one would have to add.
        for (containers, derive) in [(8, &["Java"][..]), (20, &[]), (20, &["Java"])] {
            let (outcome, warnings, after) = answer(&pod_of(containers), &both, derive);
            assert_eq!(outcome, Outcome::injected);
            let said = "Services and Nodes of noProxyFrom: the patch would be too long";
            assert_eq!(warnings, [json!(format!("reach: left out: {said}"))]);
            assert_eq!(after["metadata"]["annotations"][annotation::SKIPPED], said);
            let text = after.to_string();
            for kept in ["http://proxy:1", "own.example", "10.96.0.0/12"] {
                assert!(text.contains(kept), "{kept}");
            }
            assert!(!text.contains("service-"));
            let (outcome, warnings, again) = answer(&after, &both, derive);
            assert_eq!((outcome, warnings.len(), &again), (Outcome::unchanged, 1, &after));
            // Where there are no names any more, nothing is left out.
            let preset = preset(&both, derive);
            let body = review_of(&after);
            let without =
                review(body.as_bytes(), &Snapshot::from_parts([preset], [], true), &metrics).unwrap();
            assert!(
                matches!(without.outcome, Outcome::injected | Outcome::unchanged),
                "{:?}",
                without.outcome
            );
            // With other presets it is another question.
            let (_, warnings, other) = answer(&after, &["ClusterNetwork"], derive);
            assert_eq!(
                (warnings.len(), &other["metadata"]["annotations"][annotation::SKIPPED]),
                (0, &json!(""))
            );
        }
        // What presets say themselves is never cut.
        let (outcome, warnings, after) = answer(&pod_of(4000), &both, &[]);
        assert_eq!((outcome, &after), (Outcome::too_large, &pod_of(4000)));
        assert!(warnings[0].as_str().unwrap().contains("injection skipped"), "{warnings:?}");
    }

    #[test]
    fn of_a_pod_with_more_containers_than_may_be_nothing_is_made() {
        let env = json!([{"name": "http_proxy", "value": "http://proxy:1"}]);
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "p"}, "spec": {"env": env}
        });
        let preset = Arc::new(directory::preset(&object).unwrap());
        let snapshot = Snapshot::from_parts([preset], [], true);
        let metrics = ReviewMetrics::register(&mut Registry::default());
        let outcome = |containers: &str| {
            let body = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"CREATE",
                "namespace":"shop","resource":{{"group":"","version":"v1","resource":"pods"}},
                "object":{{"spec":{{"containers":[{containers}]}}}}}}}}"#
            );
            let answer = review(body.as_bytes(), &snapshot, &metrics).unwrap();
            let reply: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(reply["response"]["allowed"], true);
            answer.outcome
        };
        assert_eq!(outcome(&vec!["{}"; 500].join(",")), Outcome::injected);
        assert_eq!(outcome(&vec!["{}"; 40_000].join(",")), Outcome::too_large);
        assert_eq!(outcome(&vec!["{}"; 2_000_000].join(",")), Outcome::unreadable);
        let variables = vec!["{}"; 2_000_000].join(",");
        assert_eq!(outcome(&format!(r#"{{"env":[{variables}]}}"#)), Outcome::unreadable);
        // What nobody reads takes nothing.
        assert_eq!(outcome(&format!(r#"{{"ports":[{variables}]}}"#)), Outcome::injected);
    }

    #[test]
    fn the_time_of_the_api_server_shortens_ours_and_never_lengthens_it() {
        assert_eq!(time_limit(Some("timeout=1s")), Duration::from_secs(1));
        assert_eq!(time_limit(Some("a=b&timeout=30s")), MAX_TIME);
        assert_eq!(time_limit(Some("timeout=soon")), MAX_TIME);
        assert_eq!(time_limit(None), MAX_TIME);
    }
}
