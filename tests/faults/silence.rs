//! An API server that takes what it is asked and answers nothing, while its kernel goes on answering.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{API_SERVER, Load, Target};
use crate::hostile::{PAUSE, row};
use crate::relay::Relay;
use crate::report::Size;
use crate::stage::Stage;
use crate::support::eventually_within;
use crate::support::review::{patch, review_of};
use crate::support::serve::Reach;
use crate::tenancy::{Cluster, OWN_WEBHOOK, pod, pod_preset};

const NAMESPACE: &str = "silence";

/// How long an answer may be silent, and what an attempt to connect may take after that.
const NOTICED: Duration = Duration::from_mins(6);

/// Row 15a.
pub fn of_the_api_server_is_noticed_and_leaves_the_last_presets_serving(stage: &Stage) {
    let cluster = stage.tenancy();
    cluster.namespace(NAMESPACE, &json!({OWN_WEBHOOK: NAMESPACE}));
    let preset =
        |value: &str| pod_preset(NAMESPACE, "one", &json!({"env": [{"name": "SAYS", "value": value}]}));
    cluster.apply(&json!([preset("before")]));
    let silence = Silence::default();
    let kubeconfig = through(cluster, &silence);
    let reach = Reach::start(["--kubeconfig".as_ref(), kubeconfig.path().as_os_str()]);
    reach.await_ready();
    let mut review = review_of(&pod(&json!({}), &json!([])));
    review["request"]["namespace"] = json!(NAMESPACE);
    let says = |value: &str| {
        let patch = patch(&reach.review(&review)).map(|patch| patch.to_string()).unwrap_or_default();
        if patch.contains(value) { Ok(()) } else { Err(patch + &reach.stderr()) }
    };
    eventually_within(NOTICED, "the preset is served", || says("before"));
    let target = Target::with(&reach, &review);
    let load = Load::start(&target, API_SERVER, 2, PAUSE);
    load.await_more(10);

    silence.begin();
    let start = Instant::now();
    cluster.apply(&json!([preset("after")]));
    eventually_within(NOTICED, "presets are said to be stale", || {
        assert_eq!(reach.status("/readyz").status, 200, "{}", reach.stderr());
        match reach.metric("reach_presets_stale") {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}: {}", reach.stderr())),
        }
    });
    let noticed = start.elapsed();
    let calls = load.stop();
    says("before").expect("the last presets it knew");
    silence.end();
    let start = Instant::now();
    eventually_within(NOTICED, "the preset that was changed is served", || {
        assert_eq!(reach.status("/readyz").status, 200, "{}", reach.stderr());
        says("after")
    });
    let mut row = row(
        "15a",
        "an API server that takes requests and answers nothing",
        "all connections of a replica to its API server stay open and say nothing, and so does each new one; then new ones work"
            .to_owned(),
        &calls,
        format!(
            "noticed, and `reach_presets_stale` 1, after {:.0} s; ready all the time; recovery: from the first connection that \
             could work until a preset that was changed meanwhile is served",
            noticed.as_secs_f32()
        ),
    );
    row.recovery = Some(start.elapsed());
    let _recorded = row.record();
    calls.assert_all_injected(Size::wanted().of(10, 10_000));
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// The kubeconfig of reach, to an API server that can be silenced.
fn through(cluster: &Cluster, silence: &Silence) -> tempfile::NamedTempFile {
    let mut config: Value =
        serde_json::from_slice(&fs::read(cluster.kubeconfig.path()).expect("a kubeconfig")).expect("JSON");
    let server = &mut config["clusters"][0]["cluster"]["server"];
    let address = server.as_str().and_then(|url| url.strip_prefix("https://")).expect("a URL");
    let relay = silence.relay(address.parse().expect("an address and a port"));
    *server = json!(format!("https://{}", relay.address));
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), config.to_string()).expect("a temporary file");
    file
}

/// Of all connections that are open when it begins, for ever, and of those that are made until it ends.
#[derive(Clone, Debug, Default)]
struct Silence {
    times: Arc<AtomicUsize>,
    lasts: Arc<AtomicBool>,
}

impl Silence {
    fn begin(&self) {
        self.lasts.store(true, Ordering::SeqCst);
        self.times.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {
        self.lasts.store(false, Ordering::SeqCst);
    }

    fn relay(&self, target: SocketAddr) -> Relay {
        let silence = self.clone();
        Relay::new(Ipv4Addr::LOCALHOST, target, move |from, to| silence.pass(from, to))
    }

    /// Passes on what comes from one end until there is silence; from then on takes it, and no more.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        // In this order: one that is made while it begins is silent by one of the two.
        let before = self.times.load(Ordering::SeqCst);
        let from_the_start = self.lasts.load(Ordering::SeqCst);
        let is_silent = || from_the_start || self.times.load(Ordering::SeqCst) != before;
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !is_silent() && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !is_silent() {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}
