//! Where faults happen.

use std::sync::{OnceLock, mpsc};
use std::thread;

use serde_json::json;

use crate::cluster::Cluster;
use crate::place::Product;
use crate::report::Size;
use crate::support::node::Options;
use crate::tenancy;

/// What rows share; each part is started for the first row that asks for it.
#[derive(Debug, Default)]
pub struct Stage {
    product: OnceLock<Product>,
    cluster: OnceLock<Cluster>,
    tenancy: OnceLock<tenancy::Cluster>,
}

/// Replicas of the product.
pub const REPLICAS: usize = 3;

impl Stage {
    /// The product on a real node, with two API servers and three replicas.
    pub fn product(&self) -> &Product {
        let product = self.product.get_or_init(|| {
            // A container that is killed again and again waits ever longer until it is started, up to five minutes: that is what
            // the kubelet is like, and would be all that there is to be measured.
            let restarts = json!({"maxContainerRestartPeriod": "1s"});
            Product::start_with(Options::default().with_kubelet("crashLoopBackOff", restarts))
        });
        product.release(&values());
        product
    }

    /// A control plane without nodes, with two API servers, where replicas are processes.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.get_or_init(Cluster::start)
    }

    /// A control plane without nodes, with one `reach serve` that its API server calls with `failurePolicy: Fail`.
    pub fn tenancy(&self) -> &tenancy::Cluster {
        self.tenancy.get_or_init(|| {
            // Its `reach serve` ends with the thread that starts it, and a thread that runs tests may end before others are done.
            let (started, start) = mpsc::channel();
            thread::spawn(move || {
                if started.send(tenancy::Cluster::start()).is_ok() {
                    loop {
                        thread::park();
                    }
                }
            });
            start.recv().expect("it starts, or has said why not")
        })
    }
}

/// Values of the product's release.
pub fn values() -> Vec<&'static str> {
    // What is drained is waited for.
    Size::wanted().of(vec!["--set=replicas=3", "--set=drainSeconds=5"], vec!["--set=replicas=3"])
}
