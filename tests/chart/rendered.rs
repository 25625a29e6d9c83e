//! What every rendering of the chart has to be, whatever the values.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::{Map, Value, json};

use crate::support::helm::{NAMESPACE, VERSIONS, Version, chart, helm, objects, template, text};
use crate::support::serve::command;

/// A set of values, and what came of it.
#[derive(Debug)]
pub struct Rendering {
    pub values: Value,
    pub objects: Vec<Value>,
}

/// The chart with every combination of values that changes more than a word, rendered by Helm 4 and found the same by
/// Helm 3. Made once: it takes a while.
pub static RENDERINGS: LazyLock<Vec<Rendering>> = LazyLock::new(|| {
    let sets = combinations();
    let next = AtomicUsize::new(0);
    let renderings = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(values) = sets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let [v4, v3] = VERSIONS.map(|version| {
                        let text = template(version, values, &[])
                            .unwrap_or_else(|error| panic!("{version:?} with {values}: {error}"));
                        // Helm 4 and 3 put objects of one kind in different orders.
                        let mut objects = objects(&text);
                        objects.sort_by_key(reference);
                        objects
                    });
                    assert_eq!(v4, v3, "both versions of Helm render the same with {values}");
                    renderings
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Rendering { values: values.clone(), objects: v4 });
                }
            });
        }
    });
    let renderings = renderings.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(renderings.len(), sets.len());
    eprintln!("chart: {} sets of values rendered by both versions of Helm", sets.len());
    renderings
});

/// Kind, namespace and name.
pub fn reference(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
}

/// Every combination of one choice of each list.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn combinations() -> Vec<Value> {
    let everything = json!({
        "nameOverride": "proxies",
        "image": {"digest": format!("sha256:{}", "0".repeat(64))},
        "imagePullSecrets": [{"name": "registry"}],
        "proxy": {
            "http": "http://proxy.corp.example:3128",
            "noProxy": ["10.96.0.0/12", "mysql"],
            "noProxyFrom": ["Services", "ClusterNetwork"],
        },
        "noProxyFrom": {"services": true, "clusterNetwork": true, "networks": ["10.244.0.0/16", "fd00::/64"]},
        "presets": {"corporate-ca": {
            "env": [{"name": "SSL_CERT_FILE", "value": "/etc/ssl/corporate/ca.pem"}],
            "volumes": [{"name": "corporate-ca", "configMap": {"name": "corporate-ca"}}],
            "volumeMounts": [{"name": "corporate-ca", "mountPath": "/etc/ssl/corporate", "readOnly": true}],
        }},
        "namespaces": {"exclude": ["calico-system", "kube-system"]},
        "timeoutSeconds": 10,
        "webhook": {
            "port": 10250,
            "annotations": {"example.com/owner": "platform"},
            "labels": {"admissions.enforcer/disabled": "true"},
        },
        "listenAddress": "[::]",
        "clientAuth": {"enabled": true, "caConfigMap": "api-server-ca", "names": ["kube-apiserver", "front-proxy"]},
        "clusterApiHooks": {
            "enabled": true,
            "settings": {"unit": "containerd,kubelet", "static-pods": "explicit"},
            "namespaceSelector": {"matchLabels": {"example.com/team": "platform"}},
        },
        "serviceAccount": {"name": "injector", "annotations": {"example.com/owner": "platform"}},
        "service": {"annotations": {"example.com/owner": "platform"}},
        "networkPolicy": {"webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.7/32"]}}]},
        "monitoring": {
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": true},
            "dashboard": {"enabled": true, "annotations": {"grafana_folder": "Platform"}},
        },
        "hostNetwork": true,
        "drainSeconds": 45,
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]},
        ]}}},
        "topologySpreadConstraints": [{
            "maxSkew": 2,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "webhook"}},
        }],
        "podAnnotations": {"example.com/owner": "platform"},
        // Neither may take away what selectors and locks are made of.
        "podLabels": {"team": "platform", "app.kubernetes.io/name": "other", "app.kubernetes.io/component": "other"},
        "extraArgs": ["--context=other"],
        "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "logFormat": "json",
        "keepPresets": false,
        "presetWarnings": false,
        "presetStatus": false,
    });
    let nothing = json!({
        "fullnameOverride": "a-name-that-is-longer-than-what-names-may-have-with-endings",
        "proxy": {"https": "http://proxy.corp.example:3129", "noProxyDefaults": [], "excludeContainers": []},
        "imagePullSecrets": [],
        "noProxyFrom": {"nodes": true},
        "webhook": {"annotations": {"cert-manager.io/inject-ca-from": "other/other"}},
        "networkPolicy": {"enabled": false},
        "rbac": {"aggregate": false},
        "crds": {"upgrade": false},
        "priorityClassName": "",
        "runAsUser": null,
        "monitoring": {"prometheusRule": {"enabled": true, "runbookUrl": ""}},
    });
    let choices: [Vec<Value>; 4] = [
        vec![json!({}), everything, nothing],
        vec![json!({"namespaces": {"mode": "optOut"}}), json!({"namespaces": {"mode": "optIn"}})],
        vec![
            json!({}),
            json!({"failurePolicy": "Fail", "replicas": 3, "podDisruptionBudget": {"maxUnavailable": "50%"}}),
            json!({"replicas": 1}),
            json!({"podDisruptionBudget": {"enabled": false}}),
        ],
        vec![
            json!({}),
            json!({"selfManaged": {"secretName": "own-ca", "leafLifetime": "2m", "caLifetime": "1h30m"}}),
            json!({"mode": "certManager", "certManager": {"namespace": "pki"}}),
            json!({"mode": "certManager", "caBundle": "certManager"}),
            json!({
                "mode": "certManager",
                "caBundle": "external",
                "certManager": {"secretName": "own-tls", "issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}},
            }),
            json!({"mode": "secret", "secret": {"name": "own-tls"}}),
            json!({"mode": "secret", "caBundle": "external", "secret": {"name": "own-tls"}}),
        ]
        .into_iter()
        .map(|certificates| json!({"certificates": certificates}))
        .collect(),
    ];
    choices.iter().fold(vec![json!({})], |sets, choices| {
        let joined = |set: &Value, choice: &Value| {
            let mut joined = set.clone();
            merge(&mut joined, choice);
            joined
        };
        sets.iter().flat_map(|set| choices.iter().map(move |choice| joined(set, choice))).collect()
    })
}

/// Puts what `from` has into `into`, deeply.
fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (&mut *into, from) {
        for (key, value) in from {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    } else {
        *into = from.clone();
    }
}

impl Rendering {
    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    fn only(&self, kind: &str) -> &Value {
        let [object] = self.of_kind(kind)[..] else { panic!("exactly one {kind} with {}", self.values) };
        object
    }

    /// The only webhook of the only configuration.
    fn webhook(&self) -> &Value {
        let webhooks = self.only("MutatingWebhookConfiguration")["webhooks"].as_array().expect("webhooks");
        assert_eq!(webhooks.len(), 1, "exactly one webhook with {}", self.values);
        &webhooks[0]
    }

    /// Whatever the chart runs: the Deployment's pods and those of hooks.
    pub fn pods(&self) -> Vec<(String, &Value)> {
        self.objects
            .iter()
            .filter_map(|object| {
                let pod = match object["kind"].as_str() {
                    Some("Deployment" | "Job") => &object["spec"]["template"],
                    Some("Pod") => object,
                    _ => return None,
                };
                Some((reference(object), pod))
            })
            .collect()
    }

    fn value(&self, pointer: &str) -> &Value {
        self.values.pointer(pointer).unwrap_or(&Value::Null)
    }
}

/// Strings of an array.
fn strings(array: &Value) -> Vec<&str> {
    array.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Visits every member of every object inside a value.
pub fn visit(value: &Value, visitor: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                visitor(key, value);
                visit(value, visitor);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, visitor)),
        _ => {}
    }
}

#[test]
fn cluster_api_is_told_of_hooks_that_are_served_and_of_the_ca_that_signs_for_them() {
    let mut told = 0;
    for rendering in RENDERINGS.iter() {
        let container = &rendering.only("Deployment")["spec"]["template"]["spec"]["containers"][0];
        let arguments = strings(&container["args"]);
        let enabled = rendering.value("/clusterApiHooks/enabled") == true;
        assert_eq!(arguments.contains(&"--cluster-api-hooks"), enabled, "with {}", rendering.values);
        if !enabled {
            assert!(rendering.of_kind("ExtensionConfig").is_empty(), "with {}", rendering.values);
            continue;
        }
        told += 1;
        let config = rendering.only("ExtensionConfig");
        let name = &rendering.only("Service")["metadata"]["name"];
        assert_eq!(config["metadata"]["name"], *name);
        assert_eq!(
            config["spec"]["clientConfig"],
            json!({"service": {"name": name, "namespace": NAMESPACE, "port": 443}})
        );
        let of = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag));
        let secret = of("--ca-secret=").or(of("--tls-secret=")).expect("a Secret");
        assert_eq!(
            config["metadata"]["annotations"]["runtime.cluster.x-k8s.io/inject-ca-from-secret"],
            format!("{NAMESPACE}/{secret}")
        );
        assert_eq!(&config["spec"]["settings"], rendering.value("/clusterApiHooks/settings"));
        assert_eq!(
            &config["spec"]["namespaceSelector"],
            rendering.value("/clusterApiHooks/namespaceSelector")
        );
    }
    assert!(told > 0);
}

#[test]
fn helm_lints_it_without_a_complaint() {
    for version in VERSIONS {
        let output = helm(version, ["lint", "--strict", text(&chart())]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("0 chart(s) failed"), "{version:?}: {said}");
    }
}

#[test]
fn namespaces_without_which_no_cluster_comes_up_are_always_excluded() {
    for rendering in RENDERINGS.iter() {
        let expressions =
            rendering.webhook()["namespaceSelector"]["matchExpressions"].as_array().expect("conditions");
        let by_name: Vec<&Value> = expressions
            .iter()
            .filter(|expression| expression["key"] == "kubernetes.io/metadata.name")
            .collect();
        let [by_name] = by_name[..] else { panic!("one condition on the name with {}", rendering.values) };
        assert_eq!(by_name["operator"], "NotIn");
        let excluded = strings(&by_name["values"]);
        for name in ["kube-system", "kube-public", "kube-node-lease", NAMESPACE]
            .into_iter()
            .chain(strings(rendering.value("/namespaces/exclude")))
        {
            assert!(excluded.contains(&name), "{name} is excluded with {}", rendering.values);
        }
        if rendering.value("/certificates/mode") == "certManager" {
            let theirs =
                rendering.value("/certificates/certManager/namespace").as_str().unwrap_or("cert-manager");
            assert!(excluded.contains(&theirs), "{theirs} is excluded with {}", rendering.values);
        }
        let unique: HashSet<_> = excluded.iter().collect();
        assert_eq!(unique.len(), excluded.len(), "named once: {excluded:?}");

        let by_label: Vec<&Value> =
            expressions.iter().filter(|expression| expression["key"] == "reach.dev/injection").collect();
        let expected = if rendering.value("/namespaces/mode") == "optIn" {
            json!({"key": "reach.dev/injection", "operator": "In", "values": ["enabled"]})
        } else {
            json!({"key": "reach.dev/injection", "operator": "NotIn", "values": ["disabled"]})
        };
        assert_eq!(by_label, [&expected], "with {}", rendering.values);
        assert_eq!(expressions.len(), 2);
    }
}

#[test]
fn the_registration_is_what_a_careful_one_is() {
    for rendering in RENDERINGS.iter() {
        let configuration = rendering.only("MutatingWebhookConfiguration");
        let webhook = rendering.webhook();
        let service = rendering.only("Service");
        let name = &service["metadata"]["name"];
        assert_eq!(configuration["metadata"]["name"], *name);
        assert_eq!(
            webhook["clientConfig"],
            json!({"service": {"name": name, "namespace": NAMESPACE, "path": reach::admission::PATH, "port": 443}})
        );
        assert_eq!(service["spec"]["ports"][0]["port"], 443);
        for (field, value) in [
            ("name", json!("pods.reach.dev")),
            ("admissionReviewVersions", json!(["v1"])),
            ("sideEffects", json!("None")),
            ("matchPolicy", json!("Equivalent")),
            ("reinvocationPolicy", json!("IfNeeded")),
            (
                "rules",
                json!([
                    {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced"},
                    {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/ephemeralcontainers"], "operations": ["UPDATE"], "scope": "Namespaced"},
                ]),
            ),
        ] {
            assert_eq!(webhook[field], value, "{field} with {}", rendering.values);
        }
        let seconds = webhook["timeoutSeconds"].as_u64().expect("a number");
        assert!((1..=10).contains(&seconds), "timeoutSeconds {seconds}");
        let conditions = webhook["matchConditions"].as_array().expect("conditions");
        assert!(conditions.iter().all(|condition| {
            condition["expression"]
                .as_str()
                .is_some_and(|expression| expression.starts_with("!has(object.metadata.annotations) || "))
        }));
        assert_eq!(conditions.len(), 1);

        // reach's own pods are not sent to reach, wherever they are.
        let locked = json!({"key": "app.kubernetes.io/name", "operator": "NotIn", "values": [service["spec"]["selector"]["app.kubernetes.io/name"]]});
        let conditions = webhook["objectSelector"]["matchExpressions"].as_array().expect("conditions");
        assert!(conditions.contains(&locked), "{conditions:?}");
        assert!(
            conditions.contains(
                &json!({"key": "reach.dev/injection", "operator": "NotIn", "values": ["disabled"]})
            )
        );
        for (reference, pod) in rendering.pods() {
            let label = &pod["metadata"]["labels"]["app.kubernetes.io/name"];
            assert!(
                strings(&locked["values"]).contains(&label.as_str().expect("a label")),
                "{reference}: {label}"
            );
        }
    }
}

#[test]
fn no_ca_and_no_wildcard_stands_in_any_template() {
    for rendering in RENDERINGS.iter() {
        for object in &rendering.objects {
            visit(object, &mut |key, _| {
                assert_ne!(key, "caBundle", "{} with {}", reference(object), rendering.values);
            });
            let rules = match object["kind"].as_str() {
                Some("ClusterRole" | "Role") => &object["rules"],
                Some("MutatingWebhookConfiguration") => &object["webhooks"],
                _ => continue,
            };
            assert!(rules.as_array().is_some_and(|rules| !rules.is_empty()), "{}", reference(object));
            let all = rules.to_string();
            assert!(!all.contains('*'), "{} with {}: {all}", reference(object), rendering.values);
        }
    }
    let crds = std::fs::read_dir(chart().join("crds")).expect("CRDs");
    for crd in crds {
        let crd = std::fs::read_to_string(crd.expect("a file").path()).expect("a file");
        assert!(!crd.contains("caBundle"), "no conversion webhook");
    }
}

#[test]
fn pods_are_refused_for_want_of_reach_only_when_two_replicas_are_kept() {
    for rendering in RENDERINGS.iter() {
        let replicas = rendering.only("Deployment")["spec"]["replicas"].as_u64().expect("a number");
        let budgets = rendering.of_kind("PodDisruptionBudget");
        if rendering.webhook()["failurePolicy"] == "Fail" {
            assert!(replicas >= 2 && budgets.len() == 1, "with {}", rendering.values);
        } else {
            assert_eq!(rendering.webhook()["failurePolicy"], "Ignore");
        }
        assert!(budgets.is_empty() || replicas > 1, "a budget over one replica blocks every drain");
        for budget in budgets {
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
            assert_eq!(budget["spec"]["selector"], rendering.only("Deployment")["spec"]["selector"]);
        }
    }
}

#[test]
fn the_policy_for_presets_warns_and_never_refuses() {
    for rendering in RENDERINGS.iter() {
        let is_on = rendering.value("/presetWarnings").as_bool().unwrap_or(true);
        let policies = rendering.of_kind("ValidatingAdmissionPolicy");
        let bindings = rendering.of_kind("ValidatingAdmissionPolicyBinding");
        assert_eq!((policies.len(), bindings.len()), (usize::from(is_on), usize::from(is_on)));
        for (policy, binding) in policies.into_iter().zip(bindings) {
            assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
            assert_eq!(binding["spec"]["validationActions"], json!(["Warn"]));
            assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
            let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array().expect("a list");
            assert!(rules.iter().all(|rule| rule["apiGroups"] == json!(["reach.dev"])));
            // What they say is what `reach lint` says.
            for validation in policy["spec"]["validations"].as_array().expect("a list") {
                let message = validation["message"].as_str().expect("a message");
                let (id, _) = message.split_once(": ").expect("the id of a rule");
                assert!(reach::lint::RULES.iter().any(|rule| rule.id.to_string() == id), "{message}");
            }
        }
    }
}

#[test]
fn a_system_priority_has_the_quota_that_some_platforms_want() {
    for rendering in RENDERINGS.iter() {
        let priority = rendering.only("Deployment")["spec"]["template"]["spec"]["priorityClassName"].clone();
        let quotas = rendering.of_kind("ResourceQuota");
        let is_system = priority.as_str().is_some_and(|priority| priority.starts_with("system-"));
        assert_eq!(quotas.len(), usize::from(is_system), "with {}", rendering.values);
        for quota in quotas {
            let scope = &quota["spec"]["scopeSelector"]["matchExpressions"][0];
            assert_eq!(scope["values"], serde_json::json!([priority]), "with {}", rendering.values);
        }
    }
}

#[test]
fn every_pod_fits_the_restricted_level_and_gets_its_token_by_hand() {
    for rendering in RENDERINGS.iter() {
        let pods = rendering.pods();
        assert!(pods.len() >= 2, "the webhook and helm test");
        for (reference, pod) in pods {
            let spec = &pod["spec"];
            let with = format!("{reference} with {}", rendering.values);
            assert_eq!(spec["automountServiceAccountToken"], false, "{with}");
            assert_eq!(spec["enableServiceLinks"], false, "{with}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{with}");
            assert_eq!(
                spec["securityContext"]["seccompProfile"],
                json!({"type": "RuntimeDefault"}),
                "{with}"
            );
            let user = if rendering.values.get("runAsUser") == Some(&Value::Null) {
                Value::Null
            } else {
                json!(65532)
            };
            assert_eq!(spec["securityContext"]["runAsUser"], user, "{with}");
            let containers = spec["containers"].as_array().expect("containers");
            assert_eq!((containers.len(), &spec["initContainers"]), (1, &Value::Null), "{with}");
            let container = &containers[0];
            assert_eq!(
                container["securityContext"],
                json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}),
                "{with}"
            );
            assert_eq!(
                container["resources"]["limits"],
                json!({"memory": container["resources"]["requests"]["memory"]})
            );
            let volumes = spec["volumes"].as_array().expect("volumes");
            let token = volumes.iter().find(|volume| volume["name"] == "token").expect("a token");
            assert!(token["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"].is_u64());
            for volume in volumes {
                assert!(volume.get("projected").or(volume.get("configMap")).is_some(), "{with}: {volume}");
            }
            let mounts = container["volumeMounts"].as_array().expect("mounts");
            assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{with}");
            assert_eq!(
                mounts.iter().find(|mount| mount["name"] == "token").expect("a token")["mountPath"],
                "/var/run/secrets/kubernetes.io/serviceaccount"
            );
            let host = rendering.value("/hostNetwork") == true && reference.contains("Deployment");
            assert_eq!(spec["hostNetwork"] == true, host, "{with}");
            for field in ["hostPID", "hostIPC"] {
                assert_eq!(spec[field], Value::Null, "{with}");
            }
        }
        for account in rendering.of_kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{}", reference(account));
        }
    }
}

#[test]
fn replicas_are_replaced_one_by_one_and_end_after_their_drain() {
    for rendering in RENDERINGS.iter() {
        let deployment = &rendering.only("Deployment")["spec"];
        assert_eq!(
            deployment["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        );
        let pod = &deployment["template"]["spec"];
        let drain = argument(&pod["containers"][0]["args"], "--drain").expect("--drain");
        let drain: u64 = drain.parse().expect("a number");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
        assert!(grace > drain + 20, "{grace} s to end, {drain} s of it to drain");
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(pod["containers"][0][probe]["httpGet"]["path"], path);
            assert_eq!(pod["containers"][0][probe]["httpGet"]["port"], "admin");
        }
        assert!(pod["affinity"].as_object().is_some_and(|affinity| !affinity.is_empty()));
        assert!(
            pod["topologySpreadConstraints"].as_array().is_some_and(|constraints| !constraints.is_empty())
        );
        // What selects the replicas selects nothing else of the release.
        let selector = deployment["selector"]["matchLabels"].as_object().expect("labels");
        assert_eq!(rendering.only("Service")["spec"]["selector"].as_object(), Some(selector));
        for (reference, pod) in rendering.pods() {
            let labels = pod["metadata"]["labels"].as_object().expect("labels");
            let selected = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            assert_eq!(selected, reference.contains("Deployment"), "{reference} with {}", rendering.values);
        }
    }
}

fn argument<'a>(arguments: &'a Value, flag: &str) -> Option<&'a str> {
    strings(arguments).into_iter().find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='))
}

#[test]
fn the_rights_are_those_that_the_mode_needs_and_no_more() {
    for rendering in RENDERINGS.iter() {
        let deployment = rendering.only("Deployment");
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let name = deployment["metadata"]["name"].clone();
        let keeps = argument(arguments, "--ca-bundle") == Some("keep");
        let expected = match rendering.value("/certificates/caBundle").as_str() {
            None | Some("reach") => "keep",
            _ => "check",
        };
        assert_eq!(argument(arguments, "--ca-bundle"), Some(expected), "with {}", rendering.values);
        assert_eq!(argument(arguments, "--webhook-configuration"), name.as_str());
        let rules = |kind: &str| -> Value {
            let roles: Vec<&Value> =
                rendering.of_kind(kind).into_iter().filter(|role| role["metadata"]["name"] == name).collect();
            assert_eq!(roles.len(), 1);
            roles[0]["rules"].clone()
        };
        let verbs =
            if keeps { json!(["get", "list", "watch", "patch"]) } else { json!(["get", "list", "watch"]) };
        // What is only watched takes no right to get it. Presets are got before their status is written.
        let read = json!(["list", "watch"]);
        let mut expected = vec![
            json!({"apiGroups": ["reach.dev"], "resources": ["clusterpodpresets", "podpresets"], "verbs": ["get", "list", "watch"]}),
        ];
        let status_lease = argument(arguments, "--status-lease");
        assert_eq!(status_lease.is_some(), *rendering.value("/presetStatus") != false);
        if status_lease.is_some() {
            expected.push(json!({"apiGroups": ["reach.dev"], "resources": ["clusterpodpresets/status", "podpresets/status"], "verbs": ["patch"]}));
        }
        expected.push(json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": read}));
        let from = |value: &str| *rendering.value(&format!("/noProxyFrom/{value}")) == true;
        for (group, resource, is_used) in [
            ("", "services", from("services")),
            ("", "nodes", from("clusterNetwork") || from("nodes")),
            ("networking.k8s.io", "servicecidrs", from("clusterNetwork")),
        ] {
            if is_used {
                expected.push(json!({"apiGroups": [group], "resources": [resource], "verbs": read}));
            }
        }
        expected.push(json!({"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"], "resourceNames": [name], "verbs": verbs}));
        assert_eq!(rules("ClusterRole"), json!(expected), "with {}", rendering.values);
        let mut expected = match (argument(arguments, "--ca-secret"), argument(arguments, "--tls-secret")) {
            (Some(secret), None) => vec![
                json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get", "list", "watch", "update"]}),
                json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}),
            ],
            (None, Some(secret)) => vec![
                json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get", "list", "watch"]}),
            ],
            other => panic!("exactly one source of certificates: {other:?} with {}", rendering.values),
        };
        let leases: Vec<_> = argument(arguments, "--lease").into_iter().chain(status_lease).collect();
        if !leases.is_empty() {
            let group = ["coordination.k8s.io"];
            expected.push(json!({"apiGroups": group, "resources": ["leases"], "resourceNames": leases, "verbs": ["get", "update"]}));
            expected.push(json!({"apiGroups": group, "resources": ["leases"], "verbs": ["create"]}));
        }
        assert_eq!(rules("Role"), json!(expected), "with {}", rendering.values);

        // Whoever else has rights: hooks, for as long as they run, and users.
        for role in rendering.of_kind("ClusterRole") {
            let rules = role["rules"].to_string();
            assert!(
                !rules.contains("secrets") && !rules.contains("escalate") && !rules.contains("impersonate")
            );
            let labels = role["metadata"]["labels"].as_object().expect("labels");
            let aggregated =
                labels.keys().any(|label| label.starts_with("rbac.authorization.k8s.io/aggregate-to-"));
            if aggregated {
                for rule in role["rules"].as_array().expect("rules") {
                    let writes =
                        strings(&rule["verbs"]).iter().any(|verb| !["get", "list", "watch"].contains(verb));
                    assert!(
                        !writes || rule["resources"] == json!(["podpresets"]),
                        "ClusterPodPresets are written by cluster administrators: {rule}"
                    );
                }
            }
            if role["metadata"]["name"] != name && !aggregated {
                let annotations = &role["metadata"]["annotations"];
                assert!(annotations["helm.sh/hook"].is_string(), "{}", reference(role));
                assert_eq!(
                    annotations["helm.sh/hook-delete-policy"],
                    "before-hook-creation,hook-succeeded,hook-failed",
                    "{}",
                    reference(role)
                );
                assert!(role["rules"][0]["resourceNames"].is_array(), "{}", reference(role));
            }
        }
        // Each ServiceAccount that is used is there.
        let accounts: HashSet<&Value> =
            rendering.of_kind("ServiceAccount").iter().map(|account| &account["metadata"]["name"]).collect();
        for (reference, pod) in rendering.pods() {
            assert!(
                accounts.contains(&pod["spec"]["serviceAccountName"]),
                "{reference} with {}",
                rendering.values
            );
        }
    }
}

#[test]
fn what_the_cluster_adds_to_no_proxy_is_watched_when_the_values_say_so() {
    for rendering in RENDERINGS.iter() {
        let deployment = rendering.only("Deployment");
        let name = &deployment["metadata"]["name"];
        let pod = &deployment["spec"]["template"]["spec"];
        let arguments = &pod["containers"][0]["args"];
        let from = |value: &str| *rendering.value(&format!("/noProxyFrom/{value}")) == true;
        let flags = [("clusterNetwork", "cluster-network"), ("nodes", "nodes"), ("services", "services")];
        let flags: Vec<&str> =
            flags.into_iter().filter_map(|(value, flag)| from(value).then_some(flag)).collect();
        let expected = (!flags.is_empty()).then(|| flags.join(","));
        assert_eq!(argument(arguments, "--no-proxy-from"), expected.as_deref(), "with {}", rendering.values);
        let networks = strings(rendering.value("/noProxyFrom/networks"));
        let expected = (!networks.is_empty()).then(|| networks.join(","));
        assert_eq!(
            argument(arguments, "--cluster-network"),
            expected.as_deref(),
            "with {}",
            rendering.values
        );

        // Outside of its own namespace it reads two objects, and only for ClusterNetwork.
        let name = format!("{}-no-proxy", name.as_str().expect("a name"));
        let roles = rendering.of_kind("Role").into_iter().filter(|role| role["metadata"]["name"] == *name);
        let mut read = Vec::new();
        for role in roles {
            assert_eq!(role["rules"].as_array().map(Vec::len), Some(1));
            let rule = &role["rules"][0];
            assert_eq!(rule["verbs"], json!(["list", "watch"]));
            let resource = [&rule["resources"], &rule["resourceNames"]].map(|list| strings(list).join(","));
            let namespace = &role["metadata"]["namespace"];
            read.push(format!("{} {}", namespace.as_str().expect("a namespace"), resource.join("/")));

            let bindings = rendering.of_kind("RoleBinding");
            let is_its = |binding: &&&Value| {
                binding["roleRef"]["name"] == *name && binding["metadata"]["namespace"] == *namespace
            };
            let account = &pod["serviceAccountName"];
            assert_eq!(
                bindings.iter().find(is_its).expect("a binding")["subjects"],
                json!([{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}])
            );
        }
        read.sort();
        let two = ["default services/kubernetes", "kube-system configmaps/kubeadm-config"];
        assert_eq!(read, if from("clusterNetwork") { &two[..] } else { &[] }, "with {}", rendering.values);
    }
}

#[test]
fn certificates_come_from_where_the_values_say() {
    for rendering in RENDERINGS.iter() {
        let certificates = rendering.of_kind("Certificate");
        let issuers = rendering.of_kind("Issuer");
        let own_issuer = rendering.value("/certificates/certManager/issuerRef/name").is_string();
        let expected = match (rendering.value("/certificates/mode").as_str(), own_issuer) {
            (Some("certManager"), false) => (2, 2),
            (Some("certManager"), true) => (1, 0),
            _ => (0, 0),
        };
        assert_eq!((certificates.len(), issuers.len()), expected, "with {}", rendering.values);
        let deployment = rendering.only("Deployment");
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        for certificate in &certificates {
            let spec = &certificate["spec"];
            assert_eq!(spec["privateKey"]["rotationPolicy"], "Always");
            if spec["isCA"] == true {
                continue;
            }
            let service = rendering.only("Service")["metadata"]["name"].as_str().expect("a name");
            assert_eq!(spec["dnsNames"], json!([format!("{service}.{NAMESPACE}.svc")]));
            assert_eq!(spec["secretName"].as_str(), argument(arguments, "--tls-secret"));
            let issuer = &spec["issuerRef"]["name"];
            if !own_issuer {
                let issuer =
                    issuers.iter().find(|other| other["metadata"]["name"] == *issuer).expect("its issuer");
                assert!(issuer["spec"]["ca"]["secretName"].is_string(), "a CA signs, not the leaf itself");
            }
        }
        let injected = &rendering.only("MutatingWebhookConfiguration")["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
        if rendering.value("/certificates/caBundle") == "certManager" {
            let leaf = certificates.iter().find(|other| other["spec"]["isCA"] != true).expect("a leaf");
            let leaf = leaf["metadata"]["name"].as_str().expect("a name");
            assert_eq!(*injected, json!(format!("{NAMESPACE}/{leaf}")), "with {}", rendering.values);
        } else {
            assert_eq!(injected, rendering.value("/webhook/annotations/cert-manager.io~1inject-ca-from"));
        }
    }
}

#[test]
fn presets_of_the_values_stand_in_the_cluster_as_the_examples_do() {
    let values = json!({"proxy": {"http": "http://proxy.corp.example:3128", "noProxy": ["10.96.0.0/12"]}});
    let rendered = objects(&template(Version::V4, &values, &[]).expect("a rendering"));
    let preset = rendered.iter().find(|object| object["kind"] == "ClusterPodPreset").expect("a preset");
    let example = std::fs::read_to_string(crate::support::helm::root().join("examples/presets/cluster.yaml"));
    let mut example = objects(&example.expect("the example")).remove(0);
    // The example leaves out what is the default.
    for variable in example["spec"]["env"].as_array_mut().expect("variables") {
        let variable = variable.as_object_mut().expect("a variable");
        variable.entry("mergeStrategy").or_insert(json!("Replace"));
        if variable["name"] == "no_proxy" {
            variable["value"] = json!("localhost,127.0.0.1,.svc,.cluster.local,10.96.0.0/12");
        }
    }
    assert_eq!(preset["spec"]["env"], example["spec"]["env"]);
    assert_eq!(preset["spec"]["excludeContainers"], example["spec"]["excludeContainers"]);
    assert_eq!(preset["metadata"]["name"], example["metadata"]["name"]);
    assert_eq!(preset["spec"].as_object().map(Map::len), Some(2), "it selects every pod");
    assert_eq!(preset["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));

    for rendering in RENDERINGS.iter() {
        let keep = if rendering.value("/keepPresets") == false { Value::Null } else { json!("keep") };
        let presets = rendering.of_kind("ClusterPodPreset");
        for preset in &presets {
            assert_eq!(preset["metadata"]["annotations"]["helm.sh/resource-policy"], keep);
        }
        let proxies =
            ["/proxy/http", "/proxy/https"].into_iter().any(|value| rendering.value(value).is_string());
        let others = rendering.value("/presets").as_object().map_or(0, Map::len);
        assert_eq!(presets.len(), others + usize::from(proxies), "with {}", rendering.values);
    }
}

#[test]
fn every_command_line_is_one_that_the_binary_takes() {
    let mut lines = HashSet::new();
    for rendering in RENDERINGS.iter() {
        for (_, pod) in rendering.pods() {
            lines.insert(strings(&pod["spec"]["containers"][0]["args"]).join("\n"));
        }
    }
    let mut refused = String::new();
    for line in &lines {
        // Arguments are read in order, so all of them have been when help is asked for last.
        let output = command().args(line.split('\n')).arg("--help").output().expect("reach runs");
        if !output.status.success() {
            let _ =
                writeln!(refused, "{}\n{}", line.replace('\n', " "), String::from_utf8_lossy(&output.stderr));
        }
    }
    eprintln!("chart: {} different command lines", lines.len());
    assert_eq!(refused, "");
}

#[test]
fn the_network_policy_lets_in_and_out_what_is_needed() {
    for rendering in RENDERINGS.iter() {
        let policies = rendering.of_kind("NetworkPolicy");
        let wanted = rendering.value("/networkPolicy/enabled") != false;
        assert_eq!(policies.len(), usize::from(wanted));
        for policy in policies {
            let spec = &policy["spec"];
            assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
            assert_eq!(spec["podSelector"], rendering.only("Deployment")["spec"]["selector"]);
            let ports = |rules: &Value| -> Vec<u64> {
                let rules = rules.as_array().expect("rules");
                rules
                    .iter()
                    .flat_map(|rule| rule["ports"].as_array().expect("ports"))
                    .filter_map(|port| port["port"].as_u64())
                    .collect()
            };
            let container = &rendering.only("Deployment")["spec"]["template"]["spec"]["containers"][0];
            let own: Vec<u64> = container["ports"]
                .as_array()
                .expect("ports")
                .iter()
                .filter_map(|port| port["containerPort"].as_u64())
                .collect();
            assert_eq!(ports(&spec["ingress"]), own, "with {}", rendering.values);
            assert_eq!(ports(&spec["egress"]), [53, 53, 443, 6443]);
        }
    }
}

#[test]
fn the_notes_say_what_is_in_force_and_how_to_switch_it_off() {
    // What `helm install` prints is a part of the template, shown without a cluster by a client-side dry run.
    let notes = |values: &Value| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), values.to_string()).expect("a temporary file");
        let chart: PathBuf = chart();
        let output = helm(
            Version::V4,
            [
                "install",
                "reach",
                text(&chart),
                "--namespace",
                NAMESPACE,
                "--dry-run=client",
                "--values",
                text(file.path()),
            ],
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        said.split_once("NOTES:").expect("notes").1.to_owned()
    };
    let plain = notes(&json!({}));
    for expected in [
        "kubectl delete mutatingwebhookconfiguration reach\n",
        "Failure policy:   Ignore.",
        "kube-system, kube-public, kube-node-lease, reach-system",
        "helm -n reach-system test reach",
        "Presets:          none yet",
    ] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
    let fail = notes(&json!({
        "failurePolicy": "Fail",
        "namespaces": {"mode": "optIn"},
        "proxy": {"http": "http://p:1"},
        "presets": {"b": {"env": [{"name": "A"}]}},
    }));
    for expected in [
        "Failure policy:   Fail.",
        "labelled reach.dev/injection: enabled",
        "Presets:          corporate-proxy, b",
        "WARNING: proxy.noProxy has no network in it",
    ] {
        assert!(fail.contains(expected), "{expected}: {fail}");
    }
    let network = notes(&json!({"proxy": {"http": "http://p:1", "noProxy": ["10.96.0.0/12"]}}));
    assert!(!network.contains("WARNING"), "{network}");
    let network = notes(&json!({
        "proxy": {"http": "http://p:1", "noProxyFrom": ["ClusterNetwork"]},
        "noProxyFrom": {"clusterNetwork": true},
    }));
    assert!(!network.contains("WARNING"), "{network}");
}
