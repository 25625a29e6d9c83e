//! A stand-in for an API server that has presets, namespaces and Services: it lists them in pages and holds the
//! watches open. Plain HTTP, no objects ever change.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// One kind of objects, each as the JSON that is sent.
#[derive(Debug)]
struct Kind {
    api_version: &'static str,
    list: &'static str,
    items: Vec<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Parameters {
    watch: String,
    limit: usize,
    #[serde(rename = "continue")]
    from: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { watch: String::new(), limit: usize::MAX, from: 0 }
    }
}

impl Cluster {
    /// Serves these objects.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(presets: &[Value], namespaces: &[Value], services: &[Value]) -> Self {
        let of = |kind: &str| presets.iter().filter(|object| object["kind"] == kind).map(stored).collect();
        let api_version = "reach.dev/v1alpha1";
        let kinds = [
            (
                "/apis/reach.dev/v1alpha1/clusterpodpresets",
                Kind { api_version, list: "ClusterPodPresetList", items: of("ClusterPodPreset") },
            ),
            (
                "/apis/reach.dev/v1alpha1/podpresets",
                Kind { api_version, list: "PodPresetList", items: of("PodPreset") },
            ),
            ("/api/v1/namespaces", Kind::of_metadata(namespaces)),
            ("/api/v1/services", Kind::of_metadata(services)),
        ];
        let router = kinds.into_iter().fold(Router::new(), |router, (path, kind)| {
            router.route(path, get(answer).with_state(Arc::new(kind)))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, address) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
                sender.send(listener.local_addr().expect("an address")).expect("somebody waits for it");
                // Ends by the drop of the sender, which is an error here.
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, router) => {}
                }
            });
        });
        Self { address: address.recv().expect("an address"), _stop: stop }
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        let name = "bench";
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        })
        .to_string()
    }
}

/// Serves connections until it is dropped.
async fn serve(listener: TcpListener, router: Router) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    while let Ok((stream, _)) = listener.accept().await {
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service.clone());
        tokio::spawn(connection);
    }
}

async fn answer(State(kind): State<Arc<Kind>>, Query(parameters): Query<Parameters>) -> Response {
    let body = if matches!(parameters.watch.as_str(), "1" | "true") {
        Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>())
    } else {
        Body::from(kind.page(parameters.from, parameters.limit))
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Kind {
    fn of_metadata(objects: &[Value]) -> Self {
        let items = objects.iter().map(metadata).collect();
        Self { api_version: "meta.k8s.io/v1", list: "PartialObjectMetadataList", items }
    }

    fn page(&self, from: usize, limit: usize) -> String {
        let rest = self.items.get(from..).unwrap_or_default();
        let items = &rest[..limit.min(rest.len())];
        let mut metadata = json!({"resourceVersion": "1000"});
        if items.len() < rest.len() {
            metadata["continue"] = (from + items.len()).to_string().into();
        }
        format!(
            r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata},"items":[{}]}}"#,
            self.list,
            self.api_version,
            items.join(",")
        )
    }
}

/// A preset as an API server has it after `kubectl apply`.
fn stored(object: &Value) -> String {
    let mut stored = object.clone();
    let metadata = &mut stored["metadata"];
    complete(metadata);
    metadata["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": object.to_string()});
    metadata["managedFields"] = json!([{
        "apiVersion": "reach.dev/v1alpha1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}},
            "f:spec": {".": {}, "f:env": {}, "f:excludeContainers": {}, "f:selector": {}},
        },
        "manager": "kubectl-client-side-apply",
        "operation": "Update",
        "time": "2025-11-20T09:12:44Z",
    }]);
    stored.to_string()
}

/// A namespace or Service as it is answered to who asks for metadata only.
fn metadata(object: &Value) -> String {
    let mut metadata = object["metadata"].clone();
    complete(&mut metadata);
    metadata["managedFields"] = json!([{
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}, "f:team": {}}}},
        "manager": "kubectl-create",
        "operation": "Update",
        "time": "2025-11-20T09:12:44Z",
    }]);
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}).to_string()
}

/// What an API server gives every object.
fn complete(metadata: &mut Value) {
    metadata["uid"] = "0d9f8a55-1f0c-4d7c-9f7e-3b0a7a6c5e11".into();
    metadata["resourceVersion"] = "812".into();
    metadata["creationTimestamp"] = "2025-11-20T09:12:44Z".into();
}
