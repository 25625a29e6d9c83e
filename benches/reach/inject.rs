//! How long `reach inject` takes for a long stream of manifests.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::process::{folder, reach};
use super::report::{Row, median};

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
    let (mut times, mut cpu_times) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut command = reach();
        command.arg("inject").arg("-f").arg(&manifests).arg("--presets").arg(&presets);
        command.stdout(File::create(&injected).expect("a new file"));
        let start = Instant::now();
        let mut child = command.spawn().expect("reach");
        // Looked at after its end and before it is waited for, while the kernel still knows.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), ended).expect("a child");
        times.push(start.elapsed().as_secs_f64());
        cpu_times.push(cpu_seconds(child.id()));
        let status = child.wait().expect("a status");
        assert!(status.success(), "reach inject: {status}");
    }
    let injected = fs::read_to_string(&injected).expect("its output");
    assert_eq!(injected.matches("reach.dev/presets").count(), DOCUMENTS, "documents that are injected");
    vec![
        Row::new(format!("inject: {DOCUMENTS} Deployments, median of {RUNS}"), median(times), "s").below(1.0),
        Row::new("inject: the same in CPU seconds, of all processors", median(cpu_times), "s"),
    ]
}

/// The processor time of a process, user and system, of all its threads.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    // After the name, which is in brackets and may hold anything; see proc_pid_stat(5).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
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
