//! A stand-in for an API server that has presets, namespaces and Services: it lists them in pages and holds the
//! watches open. Plain HTTP; what changes is only told to those who watch.

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
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    changes: broadcast::Sender<Change>,
    _stop: oneshot::Sender<()>,
}

/// A change of an object of a kind, as a line of a watch.
type Change = (String, Bytes);

/// One kind of objects, each as the JSON that is sent.
#[derive(Debug)]
struct Kind {
    api_version: &'static str,
    list: &'static str,
    items: Vec<String>,
    /// Changes of all kinds.
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Parameters {
    watch: String,
    #[serde(rename = "sendInitialEvents")]
    send_initial_events: String,
    limit: usize,
    #[serde(rename = "continue")]
    from: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { watch: String::new(), send_initial_events: String::new(), limit: usize::MAX, from: 0 }
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
        let (changes, _) = broadcast::channel(64);
        let new = |api_version, list, items| Kind { api_version, list, items, changes: changes.clone() };
        let of_metadata = |objects: &[Value]| {
            new("meta.k8s.io/v1", "PartialObjectMetadataList", objects.iter().map(metadata).collect())
        };
        let kinds = [
            (
                "/apis/reach.dev/v1alpha1/clusterpodpresets",
                new(api_version, "ClusterPodPresetList", of("ClusterPodPreset")),
            ),
            ("/apis/reach.dev/v1alpha1/podpresets", new(api_version, "PodPresetList", of("PodPreset"))),
            ("/api/v1/namespaces", of_metadata(namespaces)),
            ("/api/v1/services", of_metadata(services)),
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
        Self { address: address.recv().expect("an address"), changes, _stop: stop }
    }

    /// Changes a preset.
    ///
    /// # Panics
    /// If nobody watches.
    pub fn modify(&self, preset: &Value) {
        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", stored(preset));
        let kind = format!("{}List", preset["kind"].as_str().expect("a kind"));
        self.changes.send((kind, line.into())).expect("somebody watches");
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
        let first = (parameters.send_initial_events == "true")
            .then(|| Ok::<_, Infallible>(Bytes::from(kind.events())));
        // Watched before they are listed, so that no change falls between the two.
        let changes = kind.watch();
        Body::from_stream(futures::stream::iter(first).chain(changes))
    } else {
        Body::from(kind.page(parameters.from, parameters.limit))
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Kind {
    /// Its changes from now on, without an end.
    fn watch(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let list = self.list;
        futures::stream::unfold(self.changes.subscribe(), move |mut changes| async move {
            loop {
                match changes.recv().await {
                    Ok((kind, line)) if kind == list => return Some((Ok(line), changes)),
                    Ok(_) => {}
                    // With the bench.
                    Err(_) => return None,
                }
            }
        })
    }

    /// All objects, each as an event, and that these were all.
    fn events(&self) -> String {
        let mut events: Vec<String> =
            self.items.iter().map(|item| format!(r#"{{"type":"ADDED","object":{item}}}"#)).collect();
        let metadata =
            json!({"resourceVersion": "1000", "annotations": {"k8s.io/initial-events-end": "true"}});
        let kind = self.list.trim_end_matches("List");
        let end = json!({"kind": kind, "apiVersion": self.api_version, "metadata": metadata});
        events.push(json!({"type": "BOOKMARK", "object": end}).to_string());
        events.join("\n") + "\n"
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
