//! Pods created all the time, while something happens to reach.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::place::{Product, is_injected};
use crate::support::PATIENCE;

/// Creations in flight at each API server.
const AT_ONCE: usize = 3;

/// Pause of each of them, so that the machine has time for what is to be watched.
const PAUSE: Duration = Duration::from_millis(10);

/// Pods that are created, by the API server's word: it does everything but keep them.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    created: AtomicUsize,
    bare: AtomicUsize,
    errors: std::sync::Mutex<Vec<String>>,
}

/// What came of it.
pub struct Outcome {
    /// Pods that the API server made.
    pub created: usize,
    /// Those of them that were not injected.
    pub bare: usize,
    /// What it said of those it did not make.
    pub errors: Vec<String>,
}

impl Load {
    /// Starts it, in a namespace, at each API server.
    pub fn start(product: &Product, namespace: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let kubeconfigs: Vec<_> = product.kubeconfigs().into_iter().map(Path::to_owned).collect();
        let (of_thread, namespace) = (Arc::clone(&shared), namespace.to_owned());
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut workers = tokio::task::JoinSet::new();
                for kubeconfig in &kubeconfigs {
                    let client = client(kubeconfig).await;
                    for _ in 0..AT_ONCE {
                        let pods = Api::namespaced(client.clone(), &namespace);
                        workers.spawn(create(pods, Arc::clone(&of_thread)));
                    }
                }
                while let Some(ended) = workers.join_next().await {
                    ended.expect("no worker panics");
                }
            });
        });
        Self { shared, thread: Some(thread) }
    }

    /// How many pods were made so far.
    pub fn created(&self) -> usize {
        self.shared.created.load(Ordering::Relaxed)
    }

    /// Waits until at least so many pods were made.
    ///
    /// # Panics
    /// When none is made for a while.
    pub fn await_created(&self, count: usize) {
        let (mut last, mut since) = (self.created(), Instant::now());
        while self.created() < count {
            assert!(since.elapsed() < PATIENCE, "no pod is made: {:?}", self.errors());
            thread::sleep(Duration::from_millis(20));
            if self.created() > last {
                (last, since) = (self.created(), Instant::now());
            }
        }
    }

    /// Ends it.
    pub fn stop(mut self) -> Outcome {
        self.end();
        Outcome {
            created: self.created(),
            bare: self.shared.bare.load(Ordering::Relaxed),
            errors: self.errors(),
        }
    }

    fn errors(&self) -> Vec<String> {
        self.shared.errors.lock().expect("no worker panics").clone()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that fails meanwhile has told so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// A client of the API server of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a kubeconfig of one cluster");
    // Whatever the environment says: it is not of this cluster.
    config.proxy_url = None;
    // A failure counts, also one that would go well the next time.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

async fn create(pods: Api<Pod>, shared: Arc<Shared>) {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let container =
        Container { name: "app".to_owned(), image: Some("app".to_owned()), ..Container::default() };
    let mut pod =
        Pod { spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }), ..Pod::default() };
    pod.metadata.generate_name = Some("load-".to_owned());
    while !shared.stop.load(Ordering::Relaxed) {
        match pods.create(&dry_run, &pod).await {
            Ok(created) => {
                let created = serde_json::to_value(created).expect("JSON");
                if !is_injected(&created) {
                    shared.bare.fetch_add(1, Ordering::Relaxed);
                }
                shared.created.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => shared.errors.lock().expect("no worker panics").push(error.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
