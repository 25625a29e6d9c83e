//! A replica for a while, with everything about it coming and going.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admitted::pods;
use crate::client::{API_SERVER, Crowd, Load, STRANGER, Target};
use crate::report::{Row, Size};
use crate::stage::Stage;
use crate::support::background::SetOnDrop;
use crate::support::eventually;
use crate::support::load::{Api, Load as Creations};
use crate::support::review::review_of;
use crate::support::serve::Reach;
use crate::tenancy::{Cluster, OWN_WEBHOOK, env, pod, pod_preset, registration};

const NAMESPACE: &str = "soak";

/// What a replica has at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    hours: f64,
    memory_kib: f64,
    own_memory_kib: f64,
    files: f64,
    threads: f64,
}

/// Row 33.
#[allow(clippy::too_many_lines, reason = "one fault from its beginning to its end")]
pub fn everything_comes_and_goes_and_nothing_stays(stage: &Stage) {
    let cluster = stage.tenancy();
    let time = minutes_wanted()
        .unwrap_or_else(|| Size::wanted().of(Duration::from_secs(6), Duration::from_mins(30)));
    let pause = Size::wanted().of(Duration::from_millis(200), Duration::from_secs(5));
    cluster.namespace(NAMESPACE, &json!({OWN_WEBHOOK: NAMESPACE}));
    let stays = json!({"env": [{"name": "STAYS", "value": "yes"}]});
    cluster.apply(&json!([pod_preset(NAMESPACE, "stays", &stays)]));
    let reach = Reach::start(["--kubeconfig".as_ref(), cluster.kubeconfig.path().as_os_str()]);
    reach.await_ready();
    let selector = json!({"matchLabels": {OWN_WEBHOOK: NAMESPACE}});
    cluster.apply(&json!([registration("soak", &reach.url(), &reach.ca(), &selector)]));
    let api = Api::new(cluster.control_plane.kubeconfig());
    eventually("pods are injected", || {
        let stored = api.create(&pods(NAMESPACE, true), &pod(&json!({}), &json!([])))?;
        if env(&stored, "web").contains(&"STAYS=yes".to_owned()) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    // In a namespace whose presets do not change: each answer is to be the same.
    cluster.namespace("soak-still", &json!({}));
    cluster.apply(&json!([pod_preset("soak-still", "stays", &stays)]));
    let mut still = review_of(&pod(&json!({}), &json!([])));
    still["request"]["namespace"] = json!("soak-still");
    eventually("the other namespace is known", || {
        let patched = reach.review(&still)["patch"].is_string();
        if patched { Ok(()) } else { Err("no patch") }
    });
    let target = Target::with(&reach, &still);
    let (files, threads) = (reach.open_files(), reach.threads());

    let (done, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut samples = Vec::new();
    let (calls, created) = thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for part in 0..2 {
            let (done, changes) = (&done, &changes);
            scope.spawn(move || change(cluster, part, done, changes));
        }
        let creations = Creations::start_amid_changes(
            &[cluster.control_plane.kubeconfig()],
            NAMESPACE,
            ("STAYS", "yes"),
            Duration::from_millis(10),
        );
        let load = Load::start(&target, API_SERVER, 4, Duration::from_millis(5));
        let crowd = {
            let target = target.clone();
            Crowd::start(20, move |number| {
                let target = target.clone();
                async move {
                    let mut stream = target.connect(STRANGER).await?;
                    if number % 2 == 0 {
                        target.call(&mut stream).await?;
                    }
                    Ok::<_, io::Error>(())
                }
            })
        };
        let start = Instant::now();
        while start.elapsed() < time {
            samples.push(sample(&reach, start.elapsed()));
            thread::sleep(pause);
        }
        drop(crowd);
        (load.stop(), creations.stop())
    });
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "soak"]);
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    // What it takes at first, it takes once.
    let (at_first, settled) = samples.split_at(samples.len() / 3);
    let (then, at_last) = settled.split_at(settled.len() / 2);
    let own = [at_first, then, at_last].map(|third| mean(third, own_memory_mib));
    let most = samples.iter().map(|sample| sample.memory_kib).fold(0.0, f64::max);
    let slopes = [
        slope(settled, own_memory_mib),
        slope(settled, |sample| sample.files),
        slope(settled, |sample| sample.threads),
    ];
    let mut row = Row {
        number: "33",
        fault: "presets, namespaces, pods and connections that come and go",
        done: format!(
            "{:.0} minutes: {} changes of presets and namespaces, {} pods, {} direct calls",
            time.as_secs_f64() / 60.0,
            changes.load(Ordering::Relaxed),
            created.total(),
            calls.total()
        ),
        calls: calls.total() + created.total(),
        failed: calls.failed_count() + calls.refused + created.failed,
        uninjected: calls.bare + created.bare,
        latency: calls.latency(),
        recovery: None,
        more: format!(
            "memory {:.0} MiB at first, {:.0} at last, {:.0} at most; without the pages of its program, which the kernel reads and \
             drops, on average {:.1}, {:.1} and {:.1} in the first, second and last third; of that, by least squares over the \
             last two: {:+.2} MiB, {:+.1} files and {:+.1} threads an hour; {:.0} files and {:.0} threads at last",
            first.memory_kib / 1024.0,
            last.memory_kib / 1024.0,
            most / 1024.0,
            own[0],
            own[1],
            own[2],
            slopes[0],
            slopes[1],
            slopes[2],
            last.files,
            last.threads,
        ),
    };
    if Size::wanted() == Size::Fast {
        row.more.push_str(" (too short for a slope to mean anything)");
    }
    let _recorded = row.record();
    calls.assert_all_injected(10);
    created.assert_all_injected(10);
    eventually("all namespaces that came have gone", || {
        let left = api.get("/api/v1/namespaces?labelSelector=number").expect("a list")["items"].clone();
        if left == json!([]) { Ok(()) } else { Err(left) }
    });
    assert!(most < 128.0 * 1024.0, "{most} KiB");
    eventually("what came with them has gone", || {
        let now = (reach.open_files(), reach.threads());
        if now.0 <= files + 2 && now.1 <= threads {
            Ok(())
        } else {
            Err(format!("{now:?}, before {:?}", (files, threads)))
        }
    });
}

/// Changes presets and namespaces until it is told to stop.
fn change(cluster: &Cluster, part: usize, done: &AtomicBool, changes: &AtomicUsize) {
    let api = Api::new(cluster.control_plane.kubeconfig());
    let presets = format!("/apis/reach.dev/v1alpha1/namespaces/{NAMESPACE}/podpresets");
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("comes-{part}-{}", number % 50);
        let path = format!("{presets}/{name}");
        let spec = json!({"env": [
            {"name": format!("V{}", number % 7), "value": format!("{number}").repeat(number % 40)},
            {"name": "no_proxy", "value": format!("h{number}.example,10.{}.0.0/16", number % 250)},
        ]});
        let preset = pod_preset(NAMESPACE, &name, &spec);
        if number % 3 == 0 {
            api.delete(&path);
        } else if api.create(&presets, &preset).is_err()
            && let Some(present) = api.get(&path)
        {
            // There is one of this name; that somebody else changes it meanwhile is no failure.
            let version = &present["metadata"]["resourceVersion"];
            let _ = api.patch(
                &path,
                &json!([
                    {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                    {"op": "replace", "path": "/spec", "value": preset["spec"]},
                ]),
            );
        }
        if number % 20 == 0 {
            let name = format!("comes-{part}-{number}");
            let namespace: Value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"number": format!("{number}")}}});
            if api.create("/api/v1/namespaces", &namespace).is_ok() {
                let path = format!("/api/v1/namespaces/{name}");
                api.delete(&path);
                // Not left to its controller, which may take longer than until the next one: what stays, reach has to know.
                let emptied = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}});
                // That the controller was faster is no failure.
                let _ = api.try_replace(&format!("{path}/finalize"), &emptied);
            }
        }
        changes.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
}

fn sample(reach: &Reach, after: Duration) -> Sample {
    Sample {
        hours: after.as_secs_f64() / 3600.0,
        memory_kib: reach.memory_kib() as f64,
        own_memory_kib: reach.own_memory_kib() as f64,
        files: reach.open_files() as f64,
        threads: reach.threads() as f64,
    }
}

/// For how long, when that is said: `SOAK_MINUTES`. What grows slowly takes hours to be told from what settles.
fn minutes_wanted() -> Option<Duration> {
    let minutes = std::env::var("SOAK_MINUTES").ok()?;
    let minutes: NonZeroU64 = minutes.parse().unwrap_or_else(|_| {
        panic!("SOAK_MINUTES={minutes}: expected a whole number of minutes, such as 120")
    });
    Some(Duration::from_mins(minutes.get()))
}

fn own_memory_mib(sample: &Sample) -> f64 {
    sample.own_memory_kib / 1024.0
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len() as f64
}

/// How much more of it there is each hour, by least squares.
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let (x, y) = (mean(samples, |sample| sample.hours), mean(samples, &of));
    let over = samples.iter().map(|sample| (sample.hours - x) * (of(sample) - y)).sum::<f64>();
    let under = samples.iter().map(|sample| (sample.hours - x).powi(2)).sum::<f64>();
    over / under
}
