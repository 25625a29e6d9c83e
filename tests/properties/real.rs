//! What pods of today have in them besides what injection reads: fields of core/v1, among them those newer than the API that
//! reach is compiled with, and the spellings of JSON that no `Value` knows.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// In front of a text that is written as it is, such as a number in a spelling of its own: of `1.50E+2`, a `Value` would
/// keep 150.
pub const TOKEN: char = '\u{e000}';

/// Fields of `metadata`, `spec` and containers. The API accepts each of them beside any other.
pub struct Fields {
    pub metadata: Vec<(String, Value)>,
    pub spec: Vec<(String, Value)>,
    pub container: Vec<(String, Value)>,
}

/// Pods of examples, in which generated parts take the place of what is there.
pub static EXAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let review: Value = serde_json::from_str(include_str!("../../examples/review.json")).expect("JSON");
    let documents = reach::manifest::documents(include_str!("../../examples/deployment.yaml"));
    let deployment = documents[0].read().expect("YAML").expect("an object");
    vec![review["request"]["object"].clone(), deployment["spec"]["template"].clone()]
});

pub static FIELDS: LazyLock<Fields> = LazyLock::new(|| Fields {
    metadata: fields(json!({
        "creationTimestamp": null,
        "generateName": "web-",
        "finalizers": ["example.com/hold"],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "6f1b", "controller": true}],
        "managedFields": [{"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:env": {"k:{\"name\":\"A\"}": {}}}}}}}],
    })),
    spec: fields(json!({
        "serviceAccountName": "default",
        "automountServiceAccountToken": false,
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
        "activeDeadlineSeconds": token("3600"),
        "enableServiceLinks": false,
        "shareProcessNamespace": true,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.corp.example", "b.corp.example"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}], "searches": []},
        "imagePullSecrets": [{"name": "registry"}],
        "tolerations": [{"operator": "Exists"}, {"key": "a/b", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
        ]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "readinessGates": [{"conditionType": "example.com/ready"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}, "sysctls": []},
        "hostUsers": true,
        "os": {"name": "linux"},
        "schedulingGates": [{"name": "example.com/wait"}],
        // Newer than 1.30, where the API server drops what it does not know.
        "hostnameOverride": "a.corp.example",
        "workloadRef": {"name": "batch", "podGroup": "workers"},
        "schedulingGroup": {"podGroupName": "workers"},
    })),
    container: fields(json!({
        "image": "registry.corp.example/app:1.4@sha256:\u{e9}",
        "command": ["/bin/sh", "-c", "echo \"$HTTP_PROXY\" '\\' \u{1f980} \u{2028} \t"],
        "args": [],
        "workingDir": "",
        "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}, {"containerPort": token("9090"), "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": token("1.5e3")}, "limits": {"cpu": 1, "memory": "1Gi"}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 10},
        "readinessProbe": {"exec": {"command": ["true"]}, "failureThreshold": token("3")},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "stdin": true,
        "tty": false,
        // Newer than 1.30.
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
    })),
});

/// What no API knows, yet: also what only a text can say.
pub static UNKNOWN: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!(null),
        json!({"deep": [1, {"\u{e9}\"": -9_007_199_254_740_993_i64}]}),
        json!(1.5e300),
        json!([]),
        json!({}),
        json!("a\u{0}b\u{1f}\u{7f}"),
        json!("e\u{301}\u{202e}\u{5e9}\u{5dc}\u{200f}\u{feff}"),
        token("-0"),
        token("1.50E+2"),
        token("0.1000000000000000055511151231257827"),
        token("123456789012345678901234567890"),
        token("[ ]"),
        token("{\n}"),
        token(r#""\ud83e\udd80 \/ \u002f \u0000""#),
        // Whose value it is, readers disagree.
        token(r#"{"name": 1, "name": {"env": []}}"#),
    ]
});

/// What readers replace or refuse, and what is harmless where nobody reads it: a number past all floats, half of a character.
pub static UNREADABLE: LazyLock<Vec<Value>> = LazyLock::new(|| vec![token("1e400"), token(r#""\ud83e""#)]);

/// How a value is spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// White space between tokens: none, a space, or lines.
    pub space: usize,
    /// What is escaped in strings, keys among them: what has to be, what is not ASCII, a solidus, or everything.
    pub escapes: usize,
}

pub fn token(text: &str) -> Value {
    format!("{TOKEN}{text}").into()
}

fn fields(object: Value) -> Vec<(String, Value)> {
    let Value::Object(fields) = object else { unreachable!("only objects are given") };
    fields.into_iter().collect()
}

// === impl Spelling ===

impl Spelling {
    pub const SPACES: usize = 3;
    pub const ESCAPES: usize = 4;

    /// The JSON text of a value.
    pub fn write(self, value: &Value) -> Vec<u8> {
        let mut text = String::new();
        self.space(&mut text);
        self.value(&mut text, value);
        self.space(&mut text);
        text.into_bytes()
    }

    fn space(self, text: &mut String) {
        text.push_str(["", " ", "\r\n\t  "][self.space % Self::SPACES]);
    }

    fn value(self, text: &mut String, value: &Value) {
        match value {
            Value::String(string) => match string.strip_prefix(TOKEN) {
                Some(token) => text.push_str(token),
                None => self.string(text, string),
            },
            Value::Array(items) => {
                text.push('[');
                for (position, item) in items.iter().enumerate() {
                    self.between(text, position);
                    self.value(text, item);
                    self.space(text);
                }
                text.push(']');
            }
            Value::Object(fields) => self.object(text, fields),
            scalar => text.push_str(&scalar.to_string()),
        }
    }

    fn object(self, text: &mut String, fields: &Map<String, Value>) {
        text.push('{');
        for (position, (key, field)) in fields.iter().enumerate() {
            self.between(text, position);
            self.string(text, key);
            self.space(text);
            text.push(':');
            self.space(text);
            self.value(text, field);
            self.space(text);
        }
        text.push('}');
    }

    fn between(self, text: &mut String, position: usize) {
        if position > 0 {
            text.push(',');
        }
        self.space(text);
    }

    fn string(self, text: &mut String, string: &str) {
        let escapes = self.escapes % Self::ESCAPES;
        text.push('"');
        for c in string.chars() {
            let is_escaped = match escapes {
                0 => false,
                1 => !c.is_ascii(),
                2 => c == '/',
                _ => true,
            };
            match c {
                '"' | '\\' if !is_escaped => text.extend(['\\', c]),
                '/' if escapes == 2 => text.push_str("\\/"),
                _ if is_escaped || c < ' ' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Digits in either case.
                        let hex =
                            if *unit % 2 == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
                        text.push_str(&hex);
                    }
                }
                _ => text.push(c),
            }
        }
        text.push('"');
    }
}
