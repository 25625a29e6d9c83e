//! Pods and presets from a tape of numbers.
//!
//! Each decision of the generator reads one number, and 0 (also what an exhausted tape gives) is always the
//! simplest choice. So the generators are plain functions, and proptest shrinks a failure by shrinking a list
//! of numbers. Pools of names are small: collisions are the point.

#![allow(dead_code, reason = "each test binary uses only a part of it")]

use serde_json::{Map, Value, json};

use crate::real::{EXAMPLES, FIELDS, Spelling, UNKNOWN, UNREADABLE};

/// The decisions.
#[derive(Clone, Debug)]
pub struct Tape<'t> {
    numbers: &'t [u16],
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    pub presets: Vec<Value>,
    /// The namespace of the request.
    pub namespace: &'static str,
    pub namespaces: Vec<(&'static str, Value)>,
    pub pod: Value,
    /// Names of ephemeral containers that are there already, if only new ones are concerned.
    pub ephemeral: Option<Vec<&'static str>>,
    /// How the pod is spelled.
    pub spelling: Spelling,
}

const NAMESPACES: [&str; 3] = ["shop", "pay", "ops"];
const CONTAINERS: [&str; 5] = ["app", "istio-proxy", "linkerd-init", "linkerd-proxy", "debug"];
const NAMES: [&str; 15] = [
    "no_proxy",
    "http_proxy",
    "NO_PROXY",
    "HTTP_PROXY",
    "https_proxy",
    "PATH",
    "JAVA_TOOL_OPTIONS",
    "No_Proxy",
    "PROXY_PASSWORD",
    "path",
    "Http_Proxy",
    "ALL_PROXY",
    "ftp_proxy",
    "A_B",
    "NODE_USE_ENV_PROXY",
];
/// With what is derived, more than Java 8 reads.
const LONG: &str = match std::str::from_utf8(&[b'x'; 1000]) {
    Ok(text) => text,
    Err(_) => "",
};
const VALUES: [&str; 32] = [
    "-Dhttp.proxyPort=8080 -javaagent:/otel.jar",
    "$(PATH):$(A_B)$$(path)",
    "a",
    "",
    "b",
    "a,b",
    "http://proxy:3128",
    ".svc, .cluster.local",
    "B,c,,a",
    "-Dx=1 -Dy=2",
    "-Dx=1",
    " a ",
    "/bin:/usr/bin",
    "http://u:$(PROXY_PASSWORD)@proxy:3128",
    "caf\u{e9},\u{1f980} \"q\" \\ \u{2028}\t\u{1}",
    ",",
    "c",
    "-Dy=2  -Dx=1",
    "*",
    "*,a",
    "*.Corp.example,.corp.example,x.corp.example.",
    "10.10.192.1/18,10.0.0.0/8,10.1.2.3/32,10.0.0.9,10.0.0.10",
    "fd00::/64,[fd00::1],fd00:0::1,::1,[fd00::1]:80,fd00::1-fd00::9",
    "web:8080,.web:80,*:80,10.0.0.0/8:80,10.0.0.1-10.0.0.9,10.0.0.9-10.0.0.1:1",
    "localhost,.localhost.,LOCALHOST,127.0.0.1",
    "10.96.,10.96.*,10.0.0.300,10.0.0.0/33,010.0.0.1/8,1.2.3:80",
    "http://web,web/path,me@web,a;b,a%b,..x,.,a:b:c,web:http,::1]2.3://.[,a]b://x:y",
    "*corp,foo.*.bar:80,*.*.x,$(Extra),$(A):80",
    "10.96.0.0/12 mysql\nredis\tk8s",
    "b,a.,A",
    "\u{0}a,\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{200f},e\u{301},\u{e9},\u{202e}x",
    "\u{a0}a\u{2003}b\u{85}c\u{feff},\u{200b}",
];
const VOLUMES: [&str; 3] = ["ca", "data", "cfg"];
const PATHS: [&str; 5] = ["/etc/ssl", "/data", "/etc/ssl/", "/", "/data/sub"];

/// What a source of `noProxyFrom` has in a namespace, in the portable form.
pub fn source(source: &str, namespace: &str) -> &'static str {
    match (source, namespace) {
        ("Services", "shop") => ".db,db,.web,web",
        ("Services", "pay") => ".ledger,ledger",
        ("AllServices", _) => ".db.shop,db.shop,.ledger.pay,ledger.pay,.web.shop,web.shop",
        ("ClusterNetwork", _) => "10.96.0.1,10.96.0.0/12,10.244.0.0/16",
        ("Nodes", _) => "10.0.0.11,10.0.0.12,fd00::11",
        _ => "",
    }
}

impl<'t> Tape<'t> {
    pub fn new(numbers: &'t [u16]) -> Self {
        Self { numbers }
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        let (first, rest) = self.numbers.split_first().unwrap_or((&0, &[]));
        self.numbers = rest;
        usize::from(*first) % end
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn many<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    // === labels and selectors ===

    pub fn labels(&mut self) -> Value {
        let pairs =
            self.many(3, |tape| (tape.pick(&["app", "tier", "zone"]), tape.pick(&["shop", "web", ""])));
        let mut labels: Map<String, Value> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        if self.once_in(40) {
            labels.insert("reach.dev/injection".into(), self.pick(&["disabled", "enabled"]).into());
        }
        labels.into()
    }

    fn selector(&mut self) -> Value {
        let expression = |tape: &mut Self| {
            let operator = tape.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
            let mut expression = json!({"key": tape.pick(&["app", "tier", "zone"]), "operator": operator});
            if operator.ends_with("In") {
                let mut values = tape.many(2, |tape| tape.pick(&["web", "", "db"]));
                values.push("shop");
                expression["values"] = json!(values);
            }
            expression
        };
        match self.below(6) {
            0 | 1 => json!({}),
            2 => json!({"matchLabels": {"app": self.pick(&["shop", "web"])}}),
            3 => {
                json!({"matchExpressions": self.many(2, expression), "matchLabels": {"tier": self.pick(&["web", "shop"])}})
            }
            4 => json!({"matchExpressions": self.many(2, expression)}),
            _ => json!({"matchExpressions": []}),
        }
    }

    // === presets ===

    /// Presets that the CRD accepts.
    pub fn presets(&mut self) -> Vec<Value> {
        let mut presets: Vec<Value> = self.many(6, Self::preset);
        // Two objects of one kind, name and namespace cannot be.
        let identity = |preset: &Value| {
            (
                preset["kind"].clone(),
                preset["metadata"]["name"].clone(),
                preset["metadata"]["namespace"].clone(),
            )
        };
        let mut seen = Vec::new();
        presets.retain(|preset| {
            let new = !seen.contains(&identity(preset));
            seen.push(identity(preset));
            new
        });
        presets
    }

    fn preset(&mut self) -> Value {
        let namespaced = self.below(2) == 1;
        let mut spec = json!({});
        if self.once_in(3) {
            spec["selector"] = self.selector();
        }
        if !namespaced && self.once_in(3) {
            spec["namespaceSelector"] = if self.once_in(4) {
                json!({"matchLabels": {"kubernetes.io/metadata.name": self.pick(&NAMESPACES)}})
            } else {
                self.selector()
            };
        }
        if self.once_in(3) {
            spec["priority"] = json!(self.pick(&[0, 1, -1, 1000, i64::from(i32::MIN)]));
        }
        if self.once_in(3) {
            spec["letterCase"] = json!(self.pick(&["Both", "AsWritten"]));
        }
        if self.once_in(4) {
            spec["noProxyForm"] = json!(self.pick(&["Portable", "AsWritten"]));
        }
        if self.once_in(4) {
            spec["excludeContainers"] =
                json!(self.many(2, |tape| tape.pick(&["app", "istio-proxy", "linkerd-*", "debug", "*"])));
        }
        let mut names: Vec<String> = Vec::new();
        let mut env = Vec::new();
        for _ in 0..self.below(5) {
            let name = self.pick(&NAMES);
            let key =
                if name.to_lowercase().ends_with("_proxy") { name.to_lowercase() } else { name.to_owned() };
            let item = self.preset_variable(name);
            if !names.contains(&key) {
                names.push(key);
                env.push(item);
            }
        }
        if env.is_empty() {
            env.push(json!({"name": "no_proxy", "value": self.pick(&VALUES)}));
        }
        let is_list =
            |item: &Value| item["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("no_proxy"));
        if self.once_in(5) && !env.iter().any(|item| is_list(item) && !item["valueFrom"].is_null()) {
            spec["noProxyFrom"] = json!(self.pick(&[
                &["ClusterNetwork"][..],
                &["Services", "ClusterNetwork"],
                &["Nodes", "AllServices"],
                &["Nodes"],
                &["Services"],
                &["ClusterNetwork", "Nodes", "Services", "AllServices"],
            ]));
        }
        if self.once_in(5) {
            spec["derive"] =
                json!(self.pick(&[&["Java"][..], &["Node"], &["Java", "Node"], &["Node", "Java"]]));
        }
        spec["env"] = json!(env);
        if self.once_in(4) {
            spec["envFrom"] = json!(self.many(2, Self::env_from));
        }
        if self.once_in(3) {
            self.preset_volumes(&mut spec, namespaced);
        }
        let mut metadata = json!({"name": self.pick(&["corporate", "proxy", "a", "b", "shop", "z"])});
        if !self.once_in(5) {
            metadata["generation"] = json!(self.pick(&[1, 2, 17]));
        }
        if namespaced {
            metadata["namespace"] = json!(self.pick(&["shop", "shop", "shop", "pay"]));
        }
        json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": if namespaced { "PodPreset" } else { "ClusterPodPreset" },
            "metadata": metadata,
            "spec": spec,
        })
    }

    fn preset_variable(&mut self, name: &str) -> Value {
        let mut item = json!({"name": name});
        if self.once_in(8) {
            item["valueFrom"] = self.source();
            if self.once_in(3) {
                item["mergeStrategy"] = json!("Replace");
            }
            return item;
        }
        if !self.once_in(12) {
            item["value"] = json!(self.pick(&VALUES));
        }
        match self.below(3) {
            0 => {}
            1 => item["mergeStrategy"] = json!("Merge"),
            _ => item["mergeStrategy"] = json!("Replace"),
        }
        if self.once_in(3) {
            item["separator"] = json!(self.pick(&[" ", ":", ","]));
        }
        item
    }

    fn source(&mut self) -> Value {
        match self.below(3) {
            0 => json!({"secretKeyRef": {"name": "proxy", "key": "password"}}),
            1 => json!({"fieldRef": {"fieldPath": "status.hostIP"}}),
            _ => json!({"configMapKeyRef": {"name": "proxy", "key": "list", "optional": true}}),
        }
    }

    fn env_from(&mut self) -> Value {
        let mut entry = match self.below(3) {
            0 => json!({"configMapRef": {"name": "common"}}),
            1 => json!({"secretRef": {"name": "common"}}),
            _ => json!({"configMapRef": {"name": "other", "optional": true}}),
        };
        if self.once_in(3) {
            entry["prefix"] = json!(self.pick(&["P_", ""]));
        }
        entry
    }

    /// The content of a volume, not completed; a few repeat often, so that equal ones meet.
    fn volume_source(&mut self, namespaced: bool) -> Value {
        match self.below(if namespaced { 7 } else { 8 }) {
            0 => json!({"configMap": {"name": "ca"}}),
            1 => json!({"secret": {"secretName": "ca"}}),
            2 => json!({"emptyDir": {}}),
            3 => json!({}),
            4 => json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            5 => {
                json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}})
            }
            6 => {
                json!({"configMap": {"name": "ca", "items": [{"key": "ca", "path": "ca.pem"}], "defaultMode": 256}})
            }
            _ => json!({"hostPath": {"path": "/etc/ssl"}}),
        }
    }

    fn preset_volumes(&mut self, spec: &mut Value, namespaced: bool) {
        let mut volumes: Vec<Value> = Vec::new();
        for _ in 0..=self.below(2) {
            let volume = with(json!({"name": self.pick(&VOLUMES)}), self.volume_source(namespaced));
            if !volumes.iter().any(|other| other["name"] == volume["name"]) {
                volumes.push(volume);
            }
        }
        let mut mounts: Vec<Value> = Vec::new();
        for _ in 0..self.below(3) {
            let volume = self.pick(&volumes);
            let mount = self.mount(&volume);
            if !mounts.iter().any(|other| slashes(other) == slashes(&mount)) {
                mounts.push(mount);
            }
        }
        spec["volumes"] = json!(volumes);
        if !mounts.is_empty() {
            spec["volumeMounts"] = json!(mounts);
        }
    }

    fn mount(&mut self, volume: &Value) -> Value {
        let mut mount = json!({"name": volume["name"], "mountPath": self.pick(&PATHS)});
        match self.below(8) {
            5 => mount["subPath"] = json!("ca.pem"),
            6 => mount["readOnly"] = json!(true),
            7 => mount["readOnly"] = json!(false),
            _ => {}
        }
        mount
    }

    // === pods ===

    /// A pod; volumes and mounts are often those of presets, as the API server completes them.
    pub fn pod(&mut self, presets: &[Value]) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
        let mut spec = json!({});
        let example = self.below(4);
        if example > 1 {
            pod = EXAMPLES[example - 2].clone();
            spec = pod["spec"].take();
        }
        match self.below(12) {
            10 => {}
            11 => pod["metadata"] = Value::Null,
            _ => pod["metadata"] = self.metadata(),
        }
        self.fields(&FIELDS.spec, &mut spec);
        spec["containers"] = (0..=self.below(2)).map(|_| self.container(presets)).collect();
        if self.once_in(3) {
            let mut containers: Vec<Value> = self.many(2, |tape| tape.container(presets));
            if self.once_in(2) {
                for container in &mut containers {
                    container["restartPolicy"] = json!("Always");
                }
            }
            spec["initContainers"] = containers.into();
        } else if self.once_in(10) {
            spec["initContainers"] = Value::Null;
        }
        if self.once_in(12) {
            spec["ephemeralContainers"] = self.many(2, |tape| tape.container(presets)).into();
        }
        self.pod_volumes(presets, &mut spec);
        self.unread(&mut spec);
        pod["spec"] = spec;
        if self.once_in(4) {
            pod["status"] = json!({"phase": "Pending", "odd": 18_446_744_073_709_551_615_u64});
        }
        self.unread(&mut pod);
        pod
    }

    fn metadata(&mut self) -> Value {
        let mut metadata = json!({"name": "web-0"});
        match self.below(8) {
            6 => metadata["labels"] = Value::Null,
            7 => {}
            _ => metadata["labels"] = self.labels(),
        }
        match self.below(5) {
            3 => metadata["annotations"] = Value::Null,
            4 => {}
            _ => {
                metadata["annotations"] = json!({});
                let annotations = metadata["annotations"].as_object_mut().expect("an object");
                for _ in 0..self.below(3) {
                    let (key, value) = self.pick(&[
                        ("example.com/caf\u{e9}~1", "\"\\\u{7}\u{1f980}"),
                        ("reach.dev/presets", "ClusterPodPreset/corporate@1"),
                        ("reach.dev/hash", "0123456789abcdef"),
                        ("reach.dev/skipped", "PodPreset/z@1: old"),
                        ("podpreset.admission.kubernetes.io/exclude", "false"),
                    ]);
                    annotations.insert(key.into(), value.into());
                }
                if self.once_in(40) {
                    annotations.insert("kubernetes.io/config.mirror".into(), self.pick(&["", "x"]).into());
                }
                if self.once_in(40) {
                    annotations.insert("podpreset.admission.kubernetes.io/exclude".into(), "true".into());
                }
            }
        }
        self.fields(&FIELDS.metadata, &mut metadata);
        self.unread(&mut metadata);
        metadata
    }

    fn pod_volumes(&mut self, presets: &[Value], spec: &mut Value) {
        match self.below(8) {
            5 => spec["volumes"] = Value::Null,
            6 | 7 => {}
            _ => {
                let mut volumes: Vec<Value> = Vec::new();
                for _ in 0..self.below(4) {
                    let of_presets = values(presets, "volumes");
                    let volume = if of_presets.is_empty() || self.once_in(3) {
                        let mut volume =
                            with(json!({"name": self.pick(&VOLUMES)}), self.volume_source(false));
                        self.unknown(&mut volume, &UNKNOWN);
                        volume
                    } else {
                        let volume = self.pick(&of_presets);
                        if self.below(2) == 1 { completed(volume) } else { volume }
                    };
                    if !volumes.iter().any(|other| other["name"] == volume["name"]) {
                        volumes.push(volume);
                    }
                }
                spec["volumes"] = volumes.into();
            }
        }
    }

    fn container(&mut self, presets: &[Value]) -> Value {
        let mut container = json!({"name": self.pick(&CONTAINERS)});
        self.fields(&FIELDS.container, &mut container);
        match self.below(10) {
            7 => container["env"] = Value::Null,
            8 | 9 => {}
            _ => container["env"] = self.many(5, |tape| tape.own_variable(presets)).into(),
        }
        match self.below(6) {
            4 => container["envFrom"] = Value::Null,
            5 => container["envFrom"] = self.many(2, Self::env_from).into(),
            _ => {}
        }
        match self.below(6) {
            4 => container["volumeMounts"] = Value::Null,
            5 => {
                let mut mounts: Vec<Value> = Vec::new();
                for _ in 0..self.below(3) {
                    let of_presets = values(presets, "volumeMounts");
                    let mount = if of_presets.is_empty() || self.once_in(3) {
                        let volume = json!({"name": self.pick(&VOLUMES)});
                        self.mount(&volume)
                    } else {
                        self.pick(&of_presets)
                    };
                    if !mounts.iter().any(|other| slashes(other) == slashes(&mount)) {
                        mounts.push(mount);
                    }
                }
                container["volumeMounts"] = mounts.into();
            }
            _ => {}
        }
        let device = json!({"name": "disk", "mountPath": self.pick(&PATHS)});
        // Kubernetes refuses a mount and a device at one path.
        let taken = values(&[json!({"spec": container.clone()})], "volumeMounts");
        if self.once_in(20) && !taken.iter().any(|mount| slashes(mount) == slashes(&device)) {
            container["volumeDevices"] = json!([{"name": "disk", "devicePath": device["mountPath"]}]);
        }
        self.unread(&mut container);
        container
    }

    fn own_variable(&mut self, presets: &[Value]) -> Value {
        let of_presets = values(presets, "env");
        let name = if of_presets.is_empty() || self.below(2) == 0 {
            self.pick(&NAMES).to_owned()
        } else {
            let name = self.pick(&of_presets)["name"].as_str().unwrap_or_default().to_owned();
            if self.once_in(3) { name.to_uppercase() } else { name }
        };
        let mut variable = json!({"name": name});
        match self.below(12) {
            8 => {}
            9 => variable["value"] = Value::Null,
            10 => variable = with(variable, json!({"value": self.pick(&VALUES), "valueFrom": null})),
            11 => variable["valueFrom"] = self.source(),
            // Beside what is derived, seldom by chance.
            0..=4 if variable["name"] == "JAVA_TOOL_OPTIONS" => variable["value"] = LONG.into(),
            _ => variable["value"] = self.pick(&VALUES).into(),
        }
        self.unread(&mut variable);
        variable
    }

    /// Some of the fields that objects of the kind have.
    fn fields(&mut self, known: &[(String, Value)], object: &mut Value) {
        if self.once_in(3) {
            for (field, value) in self.many(4, |tape| tape.pick(known)) {
                object[field] = value;
            }
        }
    }

    /// The same where nothing is read but what is known.
    fn unread(&mut self, object: &mut Value) {
        let values: &[Value] = if self.once_in(4) { &UNREADABLE } else { &UNKNOWN };
        self.unknown(object, values);
    }

    /// Sometimes a field that no version of Kubernetes has.
    fn unknown(&mut self, object: &mut Value, values: &[Value]) {
        if self.once_in(10) {
            let value = self.pick(values);
            object[self.pick(&["x-unknown", "", "a/b~c", "\u{1f980}"])] = value;
        }
    }

    /// Presets and everything around them.
    pub fn case(&mut self) -> Case {
        let ephemeral = self.once_in(8);
        let presets = self.presets();
        let namespaces = NAMESPACES.map(|name| (name, self.labels())).into();
        let mut pod = self.pod(&presets);
        if ephemeral && self.below(4) != 3 {
            let mut containers: Vec<Value> = Vec::new();
            for name in ["debug", "app-debug", "linkerd-debug"] {
                if self.below(2) == 0 {
                    let mut container = self.container(&presets);
                    container["name"] = name.into();
                    containers.push(container);
                }
            }
            pod["spec"]["ephemeralContainers"] = containers.into();
        }
        Case {
            presets,
            namespace: self.pick(&["shop", "shop", "shop", "pay", "ops"]),
            namespaces,
            pod,
            ephemeral: ephemeral.then(|| self.many(2, |tape| tape.pick(&["debug", "app-debug"]))),
            spelling: self.spelling(),
        }
    }

    fn spelling(&mut self) -> Spelling {
        Spelling { space: self.below(Spelling::SPACES), escapes: self.below(Spelling::ESCAPES) }
    }

    /// Any JSON value.
    pub fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 8 } else { 10 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(0),
            3 => json!(-1.5e-300),
            4 => json!(u64::MAX),
            5 => json!(""),
            6 => json!(self.pick(&VALUES)),
            7 => json!("disabled"),
            8 => self.many(3, |tape| tape.json(depth - 1)).into(),
            _ => {
                let field = |tape: &mut Self| {
                    let key = tape.pick(&[
                        "spec",
                        "metadata",
                        "name",
                        "env",
                        "value",
                        "annotations",
                        "containers",
                        "\u{0}",
                    ]);
                    (key.to_owned(), tape.json(depth - 1))
                };
                self.many(4, field).into_iter().collect::<Map<_, _>>().into()
            }
        }
    }

    /// Replaces one value somewhere inside by another.
    pub fn mutate(&mut self, value: &mut Value) {
        let descend = self.below(8) != 0;
        match value {
            Value::Array(items) if descend && !items.is_empty() => {
                let index = self.below(items.len());
                self.mutate(&mut items[index]);
            }
            Value::Object(fields) if descend && !fields.is_empty() => {
                let index = self.below(fields.len());
                if let Some((_, field)) = fields.iter_mut().nth(index) {
                    self.mutate(field);
                }
            }
            other => *other = self.json(2),
        }
    }
}

/// A pod as an API server takes it: with what it asks for, and without what it refuses whoever sends it.
pub fn acceptable(mut pod: Value) -> Value {
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    pod["metadata"]["name"] = json!("generated");
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| key.is_ascii());
    }
    let Some(spec) = pod["spec"].as_object_mut() else { unreachable!("a pod has a spec") };
    spec.remove("ephemeralContainers");
    let volumes: Vec<Value> = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|volume| volume["name"].clone())
        .collect();
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if names.contains(&container["name"]) {
                container["name"] = format!("app-{}", names.len()).into();
            }
            names.push(container["name"].clone());
            let is_sidecar = container["restartPolicy"] == "Always";
            let fields = container.as_object_mut().expect("a container is an object");
            fields.entry("image").or_insert(json!("app"));
            // A disk is a claim's, and rules come with a policy of their own.
            for field in ["volumeDevices", "restartPolicyRules"] {
                fields.remove(field);
            }
            if list == "initContainers" && !is_sidecar {
                for field in ["livenessProbe", "readinessProbe", "lifecycle"] {
                    fields.remove(field);
                }
            }
            if let Some(mounts) = fields.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| volumes.contains(&mount["name"]));
            }
        }
    }
    pod
}

/// Presets that concern no pod of the generator, though their selectors name its keys.
pub fn unrelated(count: usize) -> Vec<Value> {
    let spec = |n: usize| {
        let mut spec =
            json!({"env": [{"name": "no_proxy", "value": format!("never-{n}"), "mergeStrategy": "Replace"}]});
        match n % 4 {
            0 => spec["selector"] = json!({"matchLabels": {"app": format!("other-{n}")}}),
            1 => spec["selector"] = json!({"matchExpressions": [{"key": "never", "operator": "Exists"}]}),
            2 => {
                spec["selector"] = json!({"matchExpressions": [{
                    "key": "app", "operator": "In", "values": ["never", format!("x{n}"), "never"],
                }]});
            }
            _ => spec["namespaceSelector"] = json!({"matchLabels": {"tier": format!("other-{n}")}}),
        }
        spec["priority"] = json!(n % 7);
        spec
    };
    let preset = |n: usize| {
        let spec = spec(n);
        let namespaced = n.is_multiple_of(3) && n % 4 != 3;
        let mut metadata = json!({"name": format!("unrelated-{n}"), "generation": 1});
        if namespaced {
            metadata["namespace"] = json!(NAMESPACES[n % NAMESPACES.len()]);
        }
        let kind = if namespaced { "PodPreset" } else { "ClusterPodPreset" };
        json!({"apiVersion": "reach.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    (0..count).map(preset).collect()
}

/// Every item of a list of the presets.
fn values(presets: &[Value], field: &str) -> Vec<Value> {
    presets.iter().filter_map(|preset| preset["spec"][field].as_array()).flatten().cloned().collect()
}

fn slashes(mount: &Value) -> String {
    mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/').to_owned()
}

fn with(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

/// A volume as the API server returns it.
fn completed(mut volume: Value) -> Value {
    if volume.as_object().is_some_and(|fields| fields.len() == 1) {
        volume["emptyDir"] = json!({});
    }
    for source in ["configMap", "secret", "projected", "downwardAPI"] {
        if volume[source].is_object() && volume[source]["defaultMode"].is_null() {
            volume[source]["defaultMode"] = json!(420);
        }
    }
    if volume["hostPath"].is_object() {
        volume["hostPath"]["type"] = json!("");
    }
    if volume["projected"].is_object() {
        volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] = json!(3600);
    }
    if volume["downwardAPI"].is_object() {
        volume["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] = json!("v1");
    }
    volume
}
