//! Constant creation of pods through API servers, every one of them counted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::Request;
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::background::Background;
use super::eventually;

/// Every so many creations one is stored; the others are dry runs, which admission sees all the same.
pub const STORED: Option<usize> = Some(20);

/// How many failures are remembered word by word.
const REMEMBERED: usize = 5;

/// Pods being created. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    created: Arc<AtomicUsize>,
    work: Background<Counts>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Accepted, with exactly the environment of the first one that was.
    pub injected: usize,
    /// Accepted without any.
    pub bare: usize,
    /// Refused, without an answer, or accepted with another environment.
    pub failed: usize,
    /// Of the injected, those that were stored; the others were dry runs.
    pub stored: usize,
    /// The first failures.
    pub failures: Vec<String>,
    /// How long each call took, whatever became of it.
    pub times: Vec<Duration>,
    /// When calls ended that were not injected.
    pub troubles: Vec<Instant>,
}

/// The environments of a pod's containers.
type Environments = Vec<Vec<EnvVar>>;

/// A client of an API server, blocking, as a user who may do everything or another one.
pub struct Api {
    runtime: Runtime,
    client: kube::Client,
}

/// A client for the cluster of a kubeconfig, whatever the environment says about proxies.
pub async fn client(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a kubeconfig");
    config.proxy_url = None;
    // A failure counts, also one that would go well the next time.
    config.default_retry = false;
    kube::Client::try_from(config).expect("a client")
}

// === impl Load ===

impl Load {
    /// Starts creating pods in a namespace through each of these clusters' API servers, over two connections each, with a
    /// pause after each creation; one of `stored` is stored, or none where pods would run. A pod is injected when each
    /// container has this variable with this value, and nothing but what those of the first injected pod have.
    pub fn start(
        kubeconfigs: &[&Path],
        namespace: &str,
        variable: (&'static str, &'static str),
        pause: Duration,
        stored: Option<usize>,
    ) -> Self {
        Self::begin(kubeconfigs, namespace, (variable, true), pause, stored)
    }

    /// [`Self::start`] while presets come and go: what a pod has beside this variable may differ from pod to pod.
    pub fn start_amid_changes(
        kubeconfigs: &[&Path],
        namespace: &str,
        variable: (&'static str, &'static str),
        pause: Duration,
    ) -> Self {
        Self::begin(kubeconfigs, namespace, (variable, false), pause, None)
    }

    fn begin(
        kubeconfigs: &[&Path],
        namespace: &str,
        (variable, is_same): ((&'static str, &'static str), bool),
        pause: Duration,
        stored: Option<usize>,
    ) -> Self {
        let created = Arc::new(AtomicUsize::new(0));
        let workers: Vec<PathBuf> =
            kubeconfigs.iter().flat_map(|&path| [path.to_owned(), path.to_owned()]).collect();
        let namespace = namespace.to_owned();
        let count = Arc::clone(&created);
        let work = Background::start(move |stop| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let expected = OnceLock::new();
                let workers = workers.iter().map(|kubeconfig| {
                    let expected = (variable, is_same.then_some(&expected));
                    work(kubeconfig, &namespace, expected, (pause, stored), (stop, &count))
                });
                let mut total = Counts::default();
                for counts in futures::future::join_all(workers).await {
                    total.add(counts);
                }
                total
            })
        });
        Self { created, work }
    }

    /// How many pods there have been so far, whatever became of them.
    pub fn so_far(&self) -> usize {
        self.created.load(Ordering::Relaxed)
    }

    /// Waits until there have been so many: how fast they come is the machine's affair.
    ///
    /// # Panics
    /// When none comes for a while.
    pub fn await_pods(&self, count: usize) {
        while self.so_far() < count {
            let before = self.so_far();
            eventually("another pod", || if self.so_far() > before { Ok(()) } else { Err(before) });
        }
    }

    /// Ends it.
    pub fn stop(self) -> Counts {
        self.work.stop()
    }
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> usize {
        self.injected + self.bare + self.failed
    }

    /// Adds those of others.
    pub fn add(&mut self, others: Self) {
        self.injected += others.injected;
        self.bare += others.bare;
        self.failed += others.failed;
        self.stored += others.stored;
        self.failures.extend(others.failures);
        self.times.extend(others.times);
        self.troubles.extend(others.troubles);
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        if self.failures.len() < REMEMBERED {
            self.failures.push(format!("{}: {why}", k8s_openapi::jiff::Timestamp::now()));
        }
    }

    /// # Panics
    /// If not all of them were injected, or there were fewer than so many.
    #[track_caller]
    pub fn assert_all_injected(&self, least: usize) {
        assert!(self.failed == 0 && self.bare == 0, "{self}: {:?}", self.failures);
        assert!(self.injected >= least, "only {} pods", self.injected);
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { injected, bare, failed, stored, .. } = self;
        let total = self.total();
        write!(
            f,
            "{injected} of {total} pods injected ({stored} of them stored), {failed} failed, {bare} bare"
        )
    }
}

async fn work(
    kubeconfig: &Path,
    namespace: &str,
    (variable, expected): ((&str, &str), Option<&OnceLock<Environments>>),
    (pause, stored): (Duration, Option<usize>),
    (stop, created): (&AtomicBool, &AtomicUsize),
) -> Counts {
    let api: kube::Api<Pod> = kube::Api::namespaced(client(kubeconfig).await, namespace);
    let pod: Pod = serde_json::from_value(pod()).expect("a pod");
    let mut counts = Counts::default();
    while !stop.load(Ordering::Relaxed) {
        let is_stored = stored.is_some_and(|stored| counts.total() % stored == stored - 1);
        let parameters = PostParams { dry_run: !is_stored, field_manager: None };
        let start = Instant::now();
        let answer = api.create(&parameters, &pod).await;
        counts.times.push(start.elapsed());
        let injected = counts.injected;
        match answer.map(environments) {
            Ok(environments) if environments.iter().all(Vec::is_empty) => counts.bare += 1,
            Ok(environments) if is_as_expected(&environments, variable, expected) => {
                counts.injected += 1;
                counts.stored += usize::from(is_stored);
            }
            Ok(environments) => {
                let names: Vec<_> = environments.iter().flatten().map(|variable| &variable.name).collect();
                counts.fail(&format!("another environment: {names:?}"));
            }
            Err(error) => counts.fail(&error.to_string()),
        }
        if counts.injected == injected {
            counts.troubles.push(Instant::now());
        }
        created.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
    counts
}

fn environments(pod: Pod) -> Environments {
    let containers = pod.spec.into_iter().flat_map(|spec| spec.containers);
    containers.map(|container| container.env.unwrap_or_default()).collect()
}

fn is_as_expected(
    environments: &Environments,
    (name, value): (&str, &str),
    expected: Option<&OnceLock<Environments>>,
) -> bool {
    let has = |env: &Vec<EnvVar>| {
        env.iter().any(|variable| variable.name == name && variable.value.as_deref() == Some(value))
    };
    let is_same =
        expected.is_none_or(|expected| environments == expected.get_or_init(|| environments.clone()));
    environments.iter().all(has) && is_same
}

/// A pod that says nothing of proxies.
pub fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-"},
        "spec": {"containers": [{"name": "web", "image": "web"}, {"name": "log", "image": "log"}]},
    })
}

// === impl Api ===

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// A client for the cluster of a kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(client(kubeconfig));
        Self { runtime, client }
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send_text(method, path, content_type, body)
    }

    fn send_text(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, kube::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.runtime.block_on(self.client.request(request.body(body).expect("a request")))
    }

    /// Reads an object, if it exists.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn get(&self, path: &str) -> Option<Value> {
        match self.send("GET", path, "application/json", &Value::Null) {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("cannot read {path}: {error}"),
        }
    }

    /// Reads text, such as metrics.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let request = Request::builder().uri(path).body(Vec::new()).expect("a request");
        self.runtime.block_on(self.client.request_text(request)).expect("a text")
    }

    /// Creates an object below a path.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value, String> {
        self.send("POST", path, "application/json", object).map_err(|error| error.to_string())
    }

    /// The same for an object that is spelled like this.
    pub fn create_text(&self, path: &str, text: Vec<u8>) -> Result<Value, String> {
        self.send_text("POST", path, "application/json", text).map_err(|error| error.to_string())
    }

    /// Replaces an object.
    ///
    /// # Panics
    /// When it cannot be replaced.
    #[track_caller]
    pub fn replace(&self, path: &str, object: &Value) -> Value {
        self.try_replace(path, object).unwrap_or_else(|error| panic!("cannot replace {path}: {error}"))
    }

    /// Replaces an object, if it can be.
    pub fn try_replace(&self, path: &str, object: &Value) -> Result<Value, String> {
        self.send("PUT", path, "application/json", object).map_err(|error| error.to_string())
    }

    /// Server-side apply, with force.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, path: &str, manager: &str, object: &Value) -> Value {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.send("PATCH", &path, "application/apply-patch+yaml", object)
            .unwrap_or_else(|error| panic!("cannot apply {path}: {error}"))
    }

    /// A JSON merge patch.
    pub fn merge(&self, path: &str, change: &Value) -> Result<Value, String> {
        self.send("PATCH", path, "application/merge-patch+json", change).map_err(|error| error.to_string())
    }

    /// A JSON patch.
    pub fn patch(&self, path: &str, operations: &Value) -> Result<Value, String> {
        self.send("PATCH", path, "application/json-patch+json", operations).map_err(|error| error.to_string())
    }

    /// Deletes an object, if it exists.
    ///
    /// # Panics
    /// When it cannot be deleted.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        match self.send("DELETE", path, "application/json", &Value::Null) {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("cannot delete {path}: {error}"),
        }
    }
}
