//! The time from a preset to the first pod that has it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::report::{Row, Size, percentiles};
use crate::stage::Stage;
use crate::support::load::{Api, pod};

/// The namespace of presets and pods.
const PLACE: &str = "faults-lag";

/// How long a preset may stay unknown. It only bounds a failure.
const LONGEST: Duration = Duration::from_secs(30);

pub fn of_a_new_preset_is_short(stage: &Stage) {
    let presets = Size::wanted().of(20, 500);
    let product = stage.product();
    product.namespace(PLACE);
    product.await_injection(PLACE, true);
    let [first, second] = &product.kubeconfigs()[..] else { panic!("2 API servers") };
    // Made at one API server; pods come through the other one.
    let (maker, user) = (Api::new(first), Api::new(second));
    let collection = format!("/apis/reach.dev/v1alpha1/namespaces/{PLACE}/podpresets");
    let pods = format!("/api/v1/namespaces/{PLACE}/pods?dryRun=All");
    let (mut lags, mut early, mut calls) = (Vec::new(), 0, 0);
    for number in 0..presets {
        let name = format!("preset-{number}");
        let preset = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "PodPreset",
            "metadata": {"name": name},
            "spec": {"env": [{"name": "LAG", "value": name}]},
        });
        maker.create(&collection, &preset).expect("a preset");
        let start = Instant::now();
        loop {
            let pod = user.create(&pods, &pod()).expect("a pod");
            calls += 1;
            let lag = start.elapsed();
            if has(&pod, &name) {
                lags.push(lag);
                break;
            }
            early += 1;
            assert!(lag < LONGEST, "{name} is not known: {pod}");
        }
        maker.delete(&format!("{collection}/{name}"));
    }
    let at_once = calls - early == presets && early == 0;
    let longest = lags.iter().max().copied();
    let row = Row {
        number: "18",
        fault: "a preset and at once a pod",
        done: format!(
            "{presets} × a preset through one API server, then pods through the other one until one has it"
        ),
        calls,
        failed: 0,
        uninjected: early,
        latency: percentiles(&mut lags),
        recovery: longest,
        more: format!(
            "times: from the answer to the preset until the answer to the first pod that has it; {}",
            if at_once { "each first pod had it" } else { "not injected: pods that were faster" }
        ),
    };
    let _recorded = row.record();
}

/// Whether each container has the variable with this value.
fn has(pod: &Value, value: &str) -> bool {
    let containers = pod["spec"]["containers"].as_array().expect("containers");
    containers.iter().all(|container| {
        let mut env = container["env"].as_array().into_iter().flatten();
        env.any(|variable| variable["name"] == "LAG" && variable["value"] == value)
    })
}
