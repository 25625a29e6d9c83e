//! The chart and the plain manifests on a real control plane, by the real Helm 4, Helm 3 and kubectl. No pod runs here;
//! the one of the Job that upgrades the CRDs is played.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::thread;

use serde_json::{Value, json};
use support::control_plane::{ControlPlane, Options};
use support::eventually;
use support::helm::{NAMESPACE, Version, chart, helm, objects, root, text};
use support::kubectl::Kubectl as _;
use support::process::programs;

/// A release in a control plane of its own.
struct Cluster {
    control_plane: ControlPlane,
    version: Version,
}

/// What every upgrade and install here has.
const PROXY: [&str; 4] =
    ["--set", "proxy.http=http://proxy.corp.example:3128", "--set", "proxy.noProxy={10.96.0.0/12,mysql}"];

fn start() -> ControlPlane {
    ControlPlane::start(Options::default().with_controller_manager())
}

#[track_caller]
fn ok(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Cluster {
    fn start(version: Version) -> Self {
        Self { control_plane: start(), version }
    }

    /// Runs a command of Helm on this cluster.
    fn helm(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        all.extend(["--namespace", NAMESPACE, "--kubeconfig", text(self.control_plane.kubeconfig())]);
        helm(self.version, all)
    }

    fn install(&self, arguments: &[&str]) -> Output {
        let chart = chart();
        let mut all = vec!["install", "reach", text(&chart), "--create-namespace"];
        all.extend(arguments);
        self.helm(&all)
    }

    /// Upgrades, with the Job that runs before it played.
    #[track_caller]
    fn upgrade(&self, arguments: &[&str]) {
        let chart = chart();
        let mut all = vec!["upgrade", "reach", text(&chart)];
        all.extend(arguments);
        thread::scope(|scope| {
            let upgrade = scope.spawn(|| self.helm(&all));
            if !arguments.contains(&"crds.upgrade=false") {
                self.play_the_job(&|| upgrade.is_finished());
            }
            ok(&upgrade.join().expect("helm runs"));
        });
    }

    /// Does what the Job's pod does, with no more than the rights of its ServiceAccount, and reports it done.
    #[track_caller]
    fn play_the_job(&self, over: &dyn Fn() -> bool) {
        let labels = "app.kubernetes.io/component=crds";
        let pod = eventually("the Job has a pod", || {
            let pods = self.get(&["pods", "--namespace", NAMESPACE, "--selector", labels]);
            // Nobody waits for a Job of an upgrade that has failed.
            if over() {
                Ok(None)
            } else {
                pods["items"].get(0).cloned().map(Some).ok_or_else(|| pods.to_string())
            }
        });
        let Some(pod) = pod else { return };
        assert_eq!(pod["spec"]["containers"][0]["args"], json!(["crds", "--apply"]));
        let account = pod["spec"]["serviceAccountName"].as_str().expect("an account");
        let token = self.kubectl(&["create", "token", account, "--namespace", NAMESPACE]);
        let mut config: Value =
            serde_json::from_slice(&fs::read(self.control_plane.kubeconfig()).expect("a kubeconfig"))
                .expect("JSON");
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(kubeconfig.path(), config.to_string()).expect("a temporary file");
        let applied = support::serve::command()
            .args(["crds", "--apply"])
            .env("KUBECONFIG", kubeconfig.path())
            .output()
            .expect("reach runs");
        ok(&applied);
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let done = json!({"status": {"phase": "Succeeded"}}).to_string();
        self.kubectl(&[
            "patch",
            "pod",
            name,
            "--namespace",
            NAMESPACE,
            "--subresource=status",
            "--patch",
            &done,
        ]);
    }

    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        ok(&self.control_plane.kubectl(arguments))
    }

    #[track_caller]
    fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get"];
        all.extend(arguments);
        all.extend(["--output", "json"]);
        serde_json::from_str(&self.kubectl(&all)).expect("JSON")
    }

    fn webhook(&self) -> Value {
        self.get(&["mutatingwebhookconfiguration", "reach"])["webhooks"][0].clone()
    }

    /// The versions of all objects of the release: a write that changes anything changes one.
    fn object_versions(&self) -> Vec<String> {
        // Deployments and what they make change by themselves, to say how they are.
        let kinds = "services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,poddisruptionbudgets,\
                     networkpolicies,mutatingwebhookconfigurations,clusterpodpresets";
        let path =
            "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}";
        let selector = "app.kubernetes.io/instance=reach";
        let versions =
            self.kubectl(&["get", kinds, "--all-namespaces", "--selector", selector, "--output", path]);
        versions.lines().map(str::to_owned).collect()
    }

    /// What another server-side apply of the release would change.
    fn diff(&self) -> String {
        let manifest = ok(&self.helm(&["get", "manifest", "reach"]));
        let output = self.control_plane.kubectl_with_stdin(
            &["diff", "--server-side", "--force-conflicts", "--field-manager=diff", "--filename", "-"],
            manifest,
        );
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        // 1 says that there is a difference, more that it failed.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }

    /// Tries to make a pod, and says what the API server said.
    fn pod(&self, namespace: &str) -> Result<(), String> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "try-", "namespace": namespace},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        let output = self.control_plane.kubectl_with_stdin(&["create", "--filename", "-"], pod.to_string());
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A counter of the API server about our webhook.
    fn counted(&self, metric: &str) -> f64 {
        let metrics = self.kubectl(&["get", "--raw", "/metrics"]);
        let ours = metrics.lines().filter(|line| {
            line.starts_with(&format!("{metric}{{")) && line.contains("name=\"pods.reach.dev\"")
        });
        ours.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Everything of the release that is in the cluster, as kind/name.
    fn left(&self) -> Vec<String> {
        let kinds = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,jobs,pods,\
                     configmaps,poddisruptionbudgets,networkpolicies,mutatingwebhookconfigurations,clusterpodpresets";
        let selector = "app.kubernetes.io/instance=reach";
        let names =
            self.kubectl(&["get", kinds, "--all-namespaces", "--selector", selector, "--output", "name"]);
        names.lines().map(str::to_owned).collect()
    }
}

fn lives_as_documented(version: Version) {
    let cluster = Cluster::start(version);
    it_installs(&cluster);
    users_get_their_roles(&cluster);
    it_warns_of_presets(&cluster);
    it_upgrades(&cluster);
    it_refuses_only_what_it_must(&cluster);
    it_leaves_only_presets(&cluster);
    it_takes_over_what_was_left(&cluster);
    presets_leave_when_asked_to(&cluster);
}

fn it_installs(cluster: &Cluster) {
    let said = ok(&cluster.install(&PROXY));
    assert!(said.contains("kubectl delete mutatingwebhookconfiguration reach"), "{said}");
    let preset = cluster.get(&["clusterpodpreset", "corporate-proxy"]);
    assert_eq!(
        preset["spec"]["env"][2]["value"],
        "localhost,127.0.0.1,.svc,.cluster.local,10.96.0.0/12,mysql"
    );
    assert_eq!(cluster.diff(), "", "applied again, nothing changes");
    let taken = refused(&cluster.install(&PROXY));
    assert!(taken.contains("name that is still in use"), "{taken}");
    let versions = cluster.object_versions();
    assert!(versions.len() > 10, "{versions:?}");
    cluster.upgrade(&PROXY);
    assert_eq!(cluster.object_versions(), versions, "the same again writes nothing");
    let pods = eventually("the Deployment makes its pods", || {
        let pods = cluster.get(&["pods", "--namespace", NAMESPACE]);
        let pods = pods["items"].as_array().expect("a list").clone();
        if pods.len() == 2 { Ok(pods) } else { Err(format!("{pods:?}")) }
    });
    assert!(pods.iter().all(|pod| pod["spec"]["priorityClassName"] == "system-cluster-critical"));

    // While no replica answers: pods are made, and it is counted as the alert reads it.
    cluster.control_plane.create_namespace("shop");
    let webhook = eventually("the API server calls the webhook", || {
        cluster.pod("shop").expect("a pod is made");
        let open = cluster.counted("apiserver_admission_webhook_fail_open_count");
        if open > 0.0 { Ok(cluster.webhook()) } else { Err("no call that failed open") }
    });
    assert!(cluster.counted("apiserver_admission_webhook_admission_duration_seconds_count") > 0.0);
    assert_eq!(webhook["clientConfig"].get("caBundle"), None);
}

/// view reads, admin writes PodPresets, nobody but cluster administrators ClusterPodPresets.
fn users_get_their_roles(cluster: &Cluster) {
    for role in ["view", "edit", "admin"] {
        let (binding, user) = (format!("--user={role}"), format!("--clusterrole={role}"));
        cluster.kubectl(&["create", "rolebinding", role, "--namespace=shop", &binding, &user]);
    }
    for (user, verb, resource, expected) in [
        ("view", "list", "podpresets.reach.dev", true),
        ("view", "create", "podpresets.reach.dev", false),
        ("edit", "create", "podpresets.reach.dev", false),
        ("admin", "list", "podpresets.reach.dev", true),
        ("admin", "create", "podpresets.reach.dev", true),
        ("admin", "create", "clusterpodpresets.reach.dev", false),
    ] {
        eventually(&format!("{user} {verb} {resource}: {expected}"), || {
            let arguments = ["auth", "can-i", verb, resource, "--namespace=shop", "--as", user];
            let can = cluster.control_plane.kubectl(&arguments);
            if can.status.success() == expected {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&can.stdout).into_owned())
            }
        });
    }
}

/// `kubectl apply` of a preset says what is wrong with it, and takes it.
fn it_warns_of_presets(cluster: &Cluster) {
    let apply = |env: &Value| {
        let preset = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": "warned"},
            "spec": {"env": env},
        });
        let output = cluster.control_plane.kubectl_with_stdin(
            &["apply", "--dry-run=server", "--filename=-"],
            preset.to_string().as_bytes(),
        );
        ok(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let list = |value: &str| json!([{"name": "No_Proxy", "value": value}]);
    let proxy = |value: &str| json!([{"name": "https_proxy", "value": value}]);
    let wrong = [
        (list("http://web"), "E1"),
        (list("a;b"), "E2"),
        (list("a 10.96.,b"), "E4"),
        (list("10.96.*"), "E4"),
        (list("fd00::/64"), "E5"),
        (list("[fd00::1]"), "E5"),
        (proxy("proxy:3128"), "E7"),
        (proxy("http://me:secret@proxy:3128"), "E8"),
        (list("registry:5000"), "W5"),
        (list("a,0.0.0.0/0"), "W8"),
    ];
    // API servers learn of a policy a moment later.
    eventually("a preset is warned of", || {
        let said = apply(&wrong[0].0);
        if said.contains("E1: ") { Ok(()) } else { Err(said) }
    });
    for (env, id) in &wrong {
        let said = apply(env);
        assert!(said.contains(&format!(": {id}: ")), "{env}: expected {id} in {said:?}");
        assert_eq!(said.matches("Warning").count(), 1, "{env}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    for env in [
        list("localhost,.svc,*.corp.example,10.96.0.0/12,fd00::1,$(EXTRA):80,10.0.0.1-10.0.0.9"),
        list(""),
        proxy("http://me:$(PASSWORD)@proxy:3128"),
        proxy("http://$(ME):$(PASSWORD)@proxy:3128"),
        proxy("$(PROXY)"),
        json!([{"name": "https_proxy", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}]),
        json!([{"name": "TZ", "value": "http://a;b"}]),
    ] {
        assert_eq!(apply(&env), "", "{env}");
    }
}

/// With changed values, over CRDs of an older version. What reach wrote stays.
fn it_upgrades(cluster: &Cluster) {
    let ca = reach::certs::self_made(&["reach.reach-system.svc".to_owned()]).expect("a certificate").ca_pem;
    let bundle = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "reach"},
        "webhooks": [{
            "name": "pods.reach.dev",
            "clientConfig": {"caBundle": base64_simd::STANDARD.encode_to_string(&ca)},
        }],
    });
    let applied = cluster.control_plane.kubectl_with_stdin(
        &["apply", "--server-side", "--field-manager=reach", "--validate=false", "--filename", "-"],
        bundle.to_string(),
    );
    ok(&applied);
    let bundle = cluster.webhook()["clientConfig"]["caBundle"].clone();
    assert!(bundle.is_string());
    let older = json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]).to_string();
    let columns = |cluster: &Cluster| {
        let crd = cluster.get(&["crd", "clusterpodpresets.reach.dev"]);
        crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().map_or(0, Vec::len)
    };
    let before = columns(cluster);
    cluster.kubectl(&["patch", "crd", "clusterpodpresets.reach.dev", "--type=json", "--patch", &older]);
    assert_eq!(columns(cluster), before - 1);
    let changed =
        ["--set", "namespaces.mode=optIn,timeoutSeconds=1,replicas=3,namespaces.exclude={calico-system}"];
    cluster.upgrade(&[&PROXY[..], &changed].concat());
    assert_eq!(columns(cluster), before, "the CRDs are up to date");
    let webhook = cluster.webhook();
    assert_eq!(webhook["clientConfig"]["caBundle"], bundle, "what reach wrote stays");
    assert_eq!(webhook["timeoutSeconds"], 1);
    let names = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
    assert_eq!(*names, json!(["kube-system", "kube-public", "kube-node-lease", NAMESPACE, "calico-system"]));
    assert_eq!(cluster.get(&["deployment", "reach", "--namespace", NAMESPACE])["spec"]["replicas"], 3);
    assert_eq!(cluster.diff(), "", "applied again, nothing changes");
    assert!(cluster.left().iter().all(|name| !name.contains("reach-crds")), "the rights of the Job are gone");
}

/// With `failurePolicy: Fail`, in namespaces that asked for it: the rest of the cluster goes on.
fn it_refuses_only_what_it_must(cluster: &Cluster) {
    let bundle = cluster.webhook()["clientConfig"]["caBundle"].clone();
    let fail = ["--set", "namespaces.mode=optIn,timeoutSeconds=1,failurePolicy=Fail,crds.upgrade=false"];
    cluster.upgrade(&[&PROXY[..], &fail].concat());
    assert_eq!(cluster.webhook()["clientConfig"]["caBundle"], bundle);
    cluster.kubectl(&["label", "namespace", "shop", "reach.dev/injection=enabled"]);
    let error = eventually("pods that must be injected are refused", || {
        cluster.pod("shop").map_or_else(Ok, Err).map_err(|()| "made")
    });
    assert!(error.contains("pods.reach.dev"), "{error}");
    assert!(cluster.counted("apiserver_admission_webhook_rejection_count") > 0.0);
    for namespace in ["default", "kube-system", NAMESPACE] {
        cluster.pod(namespace).expect("pods elsewhere are made");
    }
    // The break-glass command.
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "reach"]);
    eventually("pods are made", || cluster.pod("shop"));
    cluster.upgrade(&[&PROXY[..], &fail].concat());
    assert_eq!(cluster.webhook()["failurePolicy"], "Fail", "an upgrade brings it back");
}

/// And the CRDs.
fn it_leaves_only_presets(cluster: &Cluster) {
    ok(&cluster.helm(&["uninstall", "reach"]));
    eventually("only the preset is left", || {
        let left = cluster.left();
        if left == ["clusterpodpreset.reach.dev/corporate-proxy"] { Ok(()) } else { Err(left.join("\n")) }
    });
    cluster.pod("shop").expect("a pod is made");
}

/// Other values than at first.
const OTHER: [&str; 2] = ["--set", "proxy.http=http://other.corp.example:3128,proxy.noProxy={10.0.0.0/8}"];

fn it_takes_over_what_was_left(cluster: &Cluster) {
    let http_proxy = || {
        let preset = cluster.get(&["clusterpodpreset", "corporate-proxy"]);
        preset["spec"]["env"][0]["value"].as_str().unwrap_or_default().to_owned()
    };
    if cluster.version == Version::V3 {
        // It does not see that the preset differs, unless told to look. At least it is said, with what helps.
        let said = ok(&cluster.install(&OTHER));
        assert!(
            said.contains("WARNING: ClusterPodPreset corporate-proxy was there before, and differs"),
            "{said}"
        );
        let manifest = ok(&cluster.helm(&["get", "manifest", "reach"]));
        let repair = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
        ok(&cluster.control_plane.kubectl_with_stdin(&repair, manifest));
        assert_eq!(http_proxy(), "http://other.corp.example:3128");
        ok(&cluster.helm(&["uninstall", "reach"]));
        let first = ok(&cluster.install(&[&PROXY[..], &["--take-ownership"]].concat()));
        assert!(first.contains("WARNING"), "{first}");
        assert_eq!(http_proxy(), "http://proxy.corp.example:3128");
        ok(&cluster.helm(&["uninstall", "reach"]));
        ok(&cluster.install(&[&OTHER[..], &["--take-ownership"]].concat()));
    } else {
        let said = ok(&cluster.install(&OTHER));
        assert!(!said.contains("WARNING"), "{said}");
    }
    assert_eq!(http_proxy(), "http://other.corp.example:3128");
    assert_eq!(cluster.diff(), "");
}

fn presets_leave_when_asked_to(cluster: &Cluster) {
    let presets = |cluster: &Cluster| cluster.kubectl(&["get", "clusterpodpresets", "--output", "name"]);
    let more = [
        "--set",
        "crds.upgrade=false",
        "--set",
        "presets.more.env[0].name=MORE",
        "--set-string",
        "presets.more.env[0].value=1",
    ];
    cluster.upgrade(&[&OTHER[..], &more].concat());
    cluster.upgrade(&[&OTHER[..], &["--set", "crds.upgrade=false"]].concat());
    assert_eq!(presets(cluster).lines().count(), 2, "a preset that left the values stays");
    let gone = ["--set", "keepPresets=false", "--set", "crds.upgrade=false"];
    cluster.upgrade(&[&OTHER[..], &gone].concat());
    ok(&cluster.helm(&["uninstall", "reach"]));
    assert_eq!(presets(cluster), "clusterpodpreset.reach.dev/more\n");
    cluster.kubectl(&["get", "crd", "clusterpodpresets.reach.dev", "podpresets.reach.dev"]);
}

#[test]
fn a_release_of_helm_4_lives_as_documented() {
    lives_as_documented(Version::V4);
}

#[test]
fn a_release_of_helm_3_lives_as_documented() {
    lives_as_documented(Version::V3);
}

#[test]
fn the_plain_install_and_its_certificate_modes_apply_and_apply_again() {
    let control_plane = start();
    let path = |name: &str| root().join(name);
    let kubectl = |arguments: &[&str]| ok(&control_plane.kubectl(arguments));
    let (plain, reach): (PathBuf, PathBuf) = (path("webhook"), path("webhook/reach.yaml"));
    kubectl(&["apply", "--server-side", "--kustomize", text(&plain)]);
    let diff = |files: &[&str]| {
        let mut all = vec!["diff", "--server-side"];
        for file in files {
            all.extend(["--filename", file]);
        }
        let output = control_plane.kubectl(&all);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(diff(&[text(&reach)]), "", "-f is the same as -k");
    let example = path("examples/presets/cluster.yaml");
    kubectl(&["apply", "--filename", text(&example)]);

    // cert-manager's kinds, from its own module.
    for entry in fs::read_dir(programs("chart/build.sh").join("files")).expect("files of modules") {
        let file = entry.expect("a file").path();
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cert-manager.io_")) {
            kubectl(&["apply", "--server-side", "--filename", text(&file)]);
            kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", text(&file)]);
        }
    }
    for (mode, arguments) in
        [("cert-manager", "--tls-secret=reach-tls"), ("bring-your-own", "--tls-secret=reach-tls")]
    {
        let mode = path(&format!("certs/{mode}.yaml"));
        // As documented, and without a conflict.
        kubectl(&["apply", "--server-side", "--filename", text(&reach), "--filename", text(&mode)]);
        assert_eq!(diff(&[text(&mode)]), "");
        let deployment =
            kubectl(&["get", "deployment", "reach", "--namespace", NAMESPACE, "--output", "json"]);
        assert!(deployment.contains(arguments) && !deployment.contains("--ca-secret"), "{deployment}");
        let role = kubectl(&["get", "role", "reach", "--namespace", NAMESPACE, "--output", "json"]);
        assert!(!role.contains("reach-ca"), "{role}");
        let role: Value = serde_json::from_str(&role).expect("JSON");
        let rules = role["rules"].as_array().expect("rules");
        let of_secrets: Vec<_> =
            rules.iter().filter(|rule| rule["resources"] == json!(["secrets"])).collect();
        assert_eq!(of_secrets.len(), 1, "{role}");
        assert_eq!(of_secrets[0]["resourceNames"], json!(["reach-tls"]));
        assert_eq!(of_secrets[0]["verbs"], json!(["get", "list", "watch"]));
    }
    // And back.
    kubectl(&["apply", "--server-side", "--filename", text(&reach)]);
    assert_eq!(diff(&[text(&reach)]), "");
    let all = objects(&fs::read_to_string(&reach).expect("a file"));
    assert!(all.len() > 12);
}
