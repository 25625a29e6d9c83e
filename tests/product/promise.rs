//! The promise: an unchanged pod reaches the outside through the proxy, and its neighbours directly.

use serde_json::{Value, json};

use crate::place::Product;
use crate::support::kubectl::{Kubectl as _, succeeded, text};
use crate::support::node::{Client, OUTSIDE, OUTSIDE_PAGE, Proxy};
use crate::support::workloads::{
    NEIGHBOUR_PAGE, Site as _, await_neighbour, container, create_strict_namespace, deploy_clients,
    deploy_neighbour, deployment, fetch, name,
};
use crate::support::{PATIENCE, eventually, eventually_within};

/// What a namespace says: a neighbour is reached directly.
fn preset(namespace: &str, more: &[Value]) -> Value {
    let own = json!({"name": "no_proxy", "value": "mysql", "mergeStrategy": "Merge"});
    let env = [&[own], more].concat();
    json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "PodPreset",
        "metadata": {"name": "neighbours", "namespace": namespace},
        "spec": {"env": env},
    })
}

/// Waits until reach knows of the preset of a namespace.
fn await_preset(product: &Product, namespace: &str) {
    eventually("the preset is in use", || {
        let pod = product.try_pod(namespace, &json!({}))?;
        let presets =
            pod["metadata"]["annotations"]["reach.dev/presets"].as_str().unwrap_or_default().to_owned();
        if presets.contains("PodPreset/neighbours") { Ok(()) } else { Err(format!("presets: {presets:?}")) }
    });
}

/// What a client gets from the outside and from the neighbour, and how many requests for either a proxy has in its log then.
fn ask_both(product: &Product, namespace: &str, client: Client, proxy: &Proxy<'_>) -> Asked {
    let seen = |host: &str| proxy.requests(host).len();
    let (outside, neighbour) = (seen(OUTSIDE), seen("mysql"));
    let far = fetch(product, namespace, client, &format!("http://{OUTSIDE}/"));
    let near = fetch(product, namespace, client, "http://mysql/");
    // The log is written after the answer.
    if far.is_ok() {
        eventually("the proxy has written its log", || {
            if seen(OUTSIDE) > outside { Ok(()) } else { Err(proxy.log()) }
        });
    }
    Asked { far, near, outside: seen(OUTSIDE) - outside, neighbour: seen("mysql") - neighbour }
}

/// What came of asking both.
struct Asked {
    far: Result<String, String>,
    near: Result<String, String>,
    /// Requests for the outside in the proxy's log.
    outside: usize,
    /// Those for the neighbour.
    neighbour: usize,
}

/// Asserts that both were reached, the outside through the proxy and the neighbour not.
#[track_caller]
fn assert_kept(asked: &Asked, who: &str) {
    assert_eq!(asked.far.as_deref(), Ok(OUTSIDE_PAGE), "{who}");
    assert_eq!(asked.near.as_deref(), Ok(NEIGHBOUR_PAGE), "{who}");
    assert_eq!((asked.outside, asked.neighbour), (1, 0), "{who}: in the proxy's log");
}

pub fn is_kept_for_unchanged_deployments(product: &Product) {
    product.release(&[]);
    let (proxy, other) = (product.proxy(), product.other_proxy());
    // Four times the same Deployments. Nobody has told the first ones anything; reach leaves those namespaces alone.
    for namespace in ["promise-without", "promise-by-hand"] {
        create_strict_namespace(product, namespace);
        product.ask(&["label", "namespace", namespace, "reach.dev/injection=disabled"]);
        product.await_injection(namespace, false);
    }
    for (namespace, more) in [
        ("promise", vec![]),
        (
            "promise-other",
            vec![json!({"name": "http_proxy", "value": other.url(), "mergeStrategy": "Replace"})],
        ),
    ] {
        create_strict_namespace(product, namespace);
        product.apply(&preset(namespace, &more));
        await_preset(product, namespace);
    }
    let by_hand = json!([{"name": "http_proxy", "value": proxy.url()}]);
    let none = json!([]);
    for (namespace, env) in [
        ("promise-without", &none),
        ("promise-by-hand", &by_hand),
        ("promise", &none),
        ("promise-other", &none),
    ] {
        deploy_clients(product, namespace, 1, env);
        await_neighbour(product, namespace);
    }
    for client in Client::ALL {
        let who = name(client);
        let without = ask_both(product, "promise-without", client, &proxy);
        assert!(without.far.is_err(), "{who}: without a proxy, {:?}", without.far);
        assert_eq!(without.near.as_deref(), Ok(NEIGHBOUR_PAGE), "{who}");
        assert_eq!((without.outside, without.neighbour), (0, 0), "{who}");

        let by_hand = ask_both(product, "promise-by-hand", client, &proxy);
        assert_eq!(by_hand.far.as_deref(), Ok(OUTSIDE_PAGE), "{who}");
        assert!(by_hand.near.is_err(), "{who}: by hand, {:?}", by_hand.near);
        assert_eq!(by_hand.outside, 1, "{who}");

        assert_kept(&ask_both(product, "promise", client, &proxy), who);

        let asked = ask_both(product, "promise-other", client, &other);
        assert_kept(&asked, who);
        println!(
            "{who}: without reach the neighbour only, by hand the outside only, with a preset both: through the proxy 1 of 1, \
             of another one 1 of 1, the neighbour through none"
        );
    }
    let direct = [&proxy, &other].map(|proxy| {
        let seen = proxy.log();
        seen.lines().filter(|line| line.contains("mysql")).count()
    });
    println!(
        "requests for the neighbour in the logs: {} (all by hand), other proxy {}",
        direct[0], direct[1]
    );
    assert_eq!(direct[1], 0);
    for namespace in ["promise-without", "promise-by-hand", "promise", "promise-other"] {
        product.ask(&["delete", "namespace", namespace, "--wait=false"]);
    }
}

/// A command that asks both, says what it got, and then goes on with something else.
fn asks(then: &str) -> Value {
    let ask = "curl -sS --fail --max-time 10 --retry 3 --retry-all-errors";
    json!(["sh", "-c", format!("{ask} http://{OUTSIDE}/ && {ask} http://mysql/ && {then}")])
}

/// What it says.
fn both_pages() -> String {
    format!("{OUTSIDE_PAGE}{NEIGHBOUR_PAGE}")
}

/// A container of that command.
fn asking(container_name: &str, then: &str) -> Value {
    let mut asking = container(Client::Curl, &json!([]));
    asking["name"] = json!(container_name);
    asking["command"] = asks(then);
    asking
}

/// What a container has fetched. It asks until it is answered, and its log has what curl says of a Service that the node
/// does not know yet.
fn pages_in(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    log.split_inclusive('\n').filter(|line| !line.starts_with("curl: (")).collect()
}

pub fn is_kept_for_every_kind_of_container(product: &Product) {
    const NAMESPACE: &str = "promise-kinds";
    let stay = "trap 'exit 0' TERM; sleep infinity & wait";
    let proxy = product.proxy();
    product.release(&[]);
    product.provide(Client::Curl);
    create_strict_namespace(product, NAMESPACE);
    product.apply(&preset(NAMESPACE, &[]));
    await_preset(product, NAMESPACE);
    deploy_neighbour(product, NAMESPACE);
    let seen = |host: &str| proxy.requests(host).len();
    let before = (seen(OUTSIDE), seen("mysql"));

    // The CronJob first, since it takes its time: at the next full minute.
    let job_pod = json!({"restartPolicy": "Never", "containers": [asking("job", "true")]});
    let cron_job = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "cron", "namespace": NAMESPACE},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"app": "cron"}}, "spec": job_pod}}},
        },
    });
    let mut sidecar = asking("sidecar", stay);
    sidecar["restartPolicy"] = json!("Always");
    let pod = json!({
        "initContainers": [asking("init", "true"), sidecar],
        "containers": [asking("app", stay)],
        "securityContext": {"runAsUser": 65532},
        "terminationGracePeriodSeconds": 1,
    });
    product.apply(&json!([cron_job, deployment(NAMESPACE, "kinds", 1, &pod)]));
    product.await_rollout(NAMESPACE, "deployment/kinds");
    let said = |what: &str, container: &str| {
        eventually(&format!("the container {container} has asked both"), || {
            let container = format!("--container={container}");
            let log = product.kubectl(&["logs", "--namespace", NAMESPACE, what, &container]);
            if pages_in(&log.stdout) == both_pages() { Ok(()) } else { Err(text(&log)) }
        });
    };
    for container in ["init", "sidecar", "app"] {
        said("deployment/kinds", container);
    }
    let pods = product.get(&["pods", "--namespace", NAMESPACE, "--selector=app=kinds"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let command = asks("true");
    let command: Vec<&str> = command.as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let debug = [
        "debug",
        "--namespace",
        NAMESPACE,
        &pod,
        "--image",
        Client::Curl.image(),
        "--image-pull-policy=IfNotPresent",
        "--container=debugger",
        "--profile=restricted",
        "--",
    ];
    succeeded("kubectl debug", product.kubectl(&[&debug[..], &command].concat()));
    eventually("the ephemeral container has asked both", || {
        let log = product.kubectl(&["logs", "--namespace", NAMESPACE, &pod, "--container=debugger"]);
        if pages_in(&log.stdout) == both_pages() { Ok(()) } else { Err(text(&log)) }
    });
    let job = eventually_within(2 * PATIENCE, "the CronJob makes a Job", || {
        let jobs = product.get(&["jobs", "--namespace", NAMESPACE]);
        jobs["items"][0]["metadata"]["name"].as_str().map(str::to_owned).ok_or_else(|| jobs.to_string())
    });
    said(&format!("job/{job}"), "job");

    // Each once, all by the proxy, and a job that came later perhaps.
    eventually("the proxy has all of them in its log", || {
        if seen(OUTSIDE) >= before.0 + 5 { Ok(()) } else { Err(proxy.log()) }
    });
    assert_eq!(seen("mysql"), before.1, "the neighbour is reached directly");
    println!(
        "init container, sidecar, app, ephemeral container and the pod of a CronJob: {} requests through the proxy, 0 for the neighbour",
        seen(OUTSIDE) - before.0
    );
    product.ask(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}
