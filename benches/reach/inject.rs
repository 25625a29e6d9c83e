//! How long `reach inject` takes for a long stream of manifests.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::process::{command_runs, folder};
use super::report::Row;

/// Documents in the stream.
const DOCUMENTS: usize = 10_000;
/// Runs.
const RUNS: usize = 7;

/// Runs it some times.
///
/// # Panics
/// If it fails.
pub fn measure() -> Vec<Row> {
    let folder = folder();
    let (manifests, injected) = (folder.path().join("manifests.yaml"), folder.path().join("injected.yaml"));
    fs::write(&manifests, stream()).expect("a new file");
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets");
    let arguments =
        ["inject".as_ref(), "-f".as_ref(), manifests.as_os_str(), "--presets".as_ref(), presets.as_os_str()];
    let runs = command_runs(RUNS, &arguments, &injected);
    let injected = fs::read_to_string(&injected).expect("its output");
    assert_eq!(injected.matches("reach.dev/presets").count(), DOCUMENTS, "documents that are injected");
    vec![
        Row::new(format!("inject: {DOCUMENTS} Deployments, median of {RUNS}"), runs.seconds, "s").below(0.7),
        Row::new("inject: the same in CPU seconds, of all processors", runs.cpu_seconds, "s"),
    ]
}

/// Deployments as people write them.
fn stream() -> String {
    let mut stream = String::new();
    for number in 0..DOCUMENTS {
        let _ = write!(
            stream,
            r#"---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop-{number}
  namespace: shop
  labels:
    app.kubernetes.io/name: shop
    app.kubernetes.io/instance: shop-{number}
spec:
  replicas: 2
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      app: shop
  template:
    metadata:
      labels:
        app: shop
      annotations:
        prometheus.io/scrape: "true"
    spec:
      serviceAccountName: shop
      containers:
      - name: web
        image: registry.corp.example/shop:1.4
        ports:
        - name: http
          containerPort: 8080
        env:
        # Spoken to directly, by this container only.
        - name: no_proxy
          value: redis
        - name: LOG_LEVEL
          value: info
        resources:
          requests:
            cpu: 100m
            memory: 128Mi
          limits:
            memory: 256Mi
        readinessProbe:
          httpGet:
            path: /healthz
            port: http
        volumeMounts:
        - name: data
          mountPath: /var/lib/shop
      volumes:
      - name: data
        emptyDir: {{}}
"#
        );
    }
    stream
}
