//! `make cluster` and `make cluster-down`: a cluster to try things in.

use std::path::Path;
use std::process::ExitCode;

use crate::support::node::{self, Client, Cluster, OUTSIDE, Options};
use crate::support::process::programs;

/// The number of the cluster of `make cluster`, which [`Options::detached`] has.
const NUMBER: u8 = 0;

/// Brings up the cluster and says how to use it.
pub fn up() -> ExitCode {
    let missing = node::missing();
    if !missing.is_empty() {
        eprintln!("a real node needs what is missing here: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    // Helm is for the person, so it is there before they are told to use it.
    let helm = programs("helm/build.sh");
    let cluster = Cluster::attach().unwrap_or_else(|| Cluster::start(Options::detached()));
    for client in Client::ALL {
        cluster.provide(client);
    }
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image/reach.tar");
    let reach = if archive.exists() {
        format!("reach's own: {}", cluster.import_reach(&archive))
    } else {
        "reach's own is not there: `make image`, then `make cluster` again, brings it in".to_owned()
    };
    let clients: Vec<_> = Client::ALL.map(Client::image).to_vec();
    println!(
        "\nA cluster of one node runs until `make cluster-down`. To use it:

  export KUBECONFIG={kubeconfig}
  export PATH={programs}:{helm}:$PATH   # kubectl, helm (4) and helm3 (3)

Images in it: {clients}; {reach}.
The corporate proxy is {proxy}, another one is {other}; only they know http://{OUTSIDE}/.
Their logs, and everyone's: {logs}",
        kubeconfig = cluster.kubeconfig().display(),
        programs = cluster.programs().display(),
        helm = helm.display(),
        clients = clients.join(", "),
        proxy = cluster.proxy().url(),
        other = cluster.other_proxy().url(),
        logs = cluster.logs().display(),
    );
    cluster.leave_running();
    ExitCode::SUCCESS
}

/// Ends it.
pub fn down() -> ExitCode {
    Cluster::remove(NUMBER);
    println!("no cluster runs");
    ExitCode::SUCCESS
}
