//! The CEL rules of the CRDs (`x-kubernetes-validations`), each with a message that says what to write
//! instead. They are evaluated by the API server for objects in a cluster and by [`super::validate`]
//! for objects in files, so every rule stands here once.

use serde_json::{Value, json};

/// The key of CEL rules in a schema.
pub const KEY: &str = "x-kubernetes-validations";

/// Kubernetes label syntax: at most 63 characters, alphanumeric at both ends, or empty.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A label key: an optional DNS subdomain and a slash, then a name of at most 63 characters.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$";
/// The same of an annotation, whose prefix may have upper case.
const ANNOTATION_KEY: &str =
    "^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$";
/// RFC 1123 DNS label.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// What a pod may say of itself in a variable, as Kubernetes has it (`spec.host` is an old name of `spec.nodeName`).
const FIELD_PATHS: &str = "['metadata.name', 'metadata.namespace', 'metadata.uid', 'spec.nodeName', 'spec.serviceAccountName', 'status.hostIP', 'status.hostIPs', 'status.podIP', 'status.podIPs', 'spec.host']";
/// What every supported API server takes as the name of a variable (newer ones take more).
const VARIABLE_NAME: &str = "^[-._a-zA-Z][-._a-zA-Z0-9]*$";

fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

fn rules(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(cel, message)| rule(cel, message)).collect()
}

pub(super) fn preset(namespaced: bool) -> Value {
    let mut all = vec![
        rule(
            "(has(self.env) && size(self.env) > 0) || (has(self.envFrom) && size(self.envFrom) > 0) || (has(self.volumes) && size(self.volumes) > 0) || (has(self.volumeMounts) && size(self.volumeMounts) > 0) || (has(self.noProxyFrom) && size(self.noProxyFrom) > 0) || (has(self.derive) && size(self.derive) > 0)",
            "the preset is empty: give at least one of env, envFrom, volumes, volumeMounts, noProxyFrom or derive",
        ),
        rule(
            "!has(self.noProxyFrom) || size(self.noProxyFrom) == 0 || !has(self.env) || self.env.all(v, !has(v.valueFrom) || v.name.lowerAscii() != 'no_proxy')",
            "noProxyFrom cannot add to a no_proxy with valueFrom, its value is not known: give no_proxy a literal value, or take noProxyFrom out",
        ),
        rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            "a volumeMount names no volume of this preset: add that volume to spec.volumes, or correct the mount's name",
        ),
    ];
    if namespaced {
        all.push(rule(
            "!has(self.volumes) || self.volumes.all(v, !has(v.hostPath))",
            "a PodPreset may not carry hostPath volumes: use a configMap, secret, projected or emptyDir volume, or ask for a ClusterPodPreset",
        ));
    }
    Value::Array(all)
}

pub(super) fn variable() -> Value {
    rules(&[
        (
            "!(has(self.value) && has(self.valueFrom))",
            "a variable has both value and valueFrom: keep one of them",
        ),
        (
            "!(has(self.valueFrom) && has(self.mergeStrategy) && self.mergeStrategy == 'Merge')",
            "a variable with valueFrom cannot be merged, its value is not known: write mergeStrategy: Replace, or give a literal value",
        ),
    ])
}

pub(super) fn variable_name() -> Value {
    rules(&[(
        &format!("self.matches('{VARIABLE_NAME}') && self != '.' && !self.startsWith('..')"),
        "not a valid name of a variable: write letters, digits, '_', '-' or '.', not starting with a digit, for example http_proxy",
    )])
}

/// A variable twice; proxy variables are one variable in any letter case.
pub(super) fn env() -> Value {
    rules(&[(
        "self.all(a, self.exists_one(b, a.name == b.name || (a.name.lowerAscii() == b.name.lowerAscii() && a.name.lowerAscii() in ['http_proxy', 'https_proxy', 'ftp_proxy', 'all_proxy', 'no_proxy'])))",
        "a variable stands twice: keep one item for each (a proxy variable is the same in lower and upper case: write it once, letterCase: Both emits both spellings)",
    )])
}

pub(super) fn exclude_containers() -> Value {
    rules(&[(
        "self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$|^([a-z0-9][-a-z0-9]*)?[*]$'))",
        "not a container name or pattern: write an exact name (istio-proxy), or a prefix and one trailing * (linkerd-*)",
    )])
}

pub(super) fn selector() -> Value {
    rules(&[(
        &format!(
            "!has(self.matchLabels) || self.matchLabels.all(k, k.matches('{LABEL_KEY}') && self.matchLabels[k].matches('{LABEL_VALUE}'))"
        ),
        "matchLabels holds a key or value that is no label: write keys as name or prefix/name and values of at most 63 letters, digits, '-', '_' or '.', for example app: shop",
    )])
}

pub(super) fn match_expression() -> Value {
    rules(&[
        (
            "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
            "operator In and NotIn need values: add at least one, or use Exists or DoesNotExist",
        ),
        (
            "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
            "operator Exists and DoesNotExist take no values: remove values, or use In or NotIn",
        ),
        (
            &format!(
                "self.key.matches('{LABEL_KEY}') && (!has(self.values) || self.values.all(v, v.matches('{LABEL_VALUE}')))"
            ),
            "matchExpressions holds a key or value that is no label: write keys as name or prefix/name and values of at most 63 letters, digits, '-', '_' or '.'",
        ),
    ])
}

/// Exactly one of several members, as CEL.
fn present(members: &[String]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("has(self.{member})")).collect();
    format!("[{}].filter(given, given).size()", members.join(", "))
}

pub(super) fn value_from(sources: &[String]) -> Value {
    rules(&[(
        &format!("{} == 1", present(sources)),
        "valueFrom needs exactly one source: configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef",
    )])
}

/// With any other field, the API server refuses every pod that has the variable.
pub(super) fn field_path() -> Value {
    let key = |expression: &'static str| expression.trim_matches(['^', '$']);
    rules(&[(
        &format!(
            r#"self in {FIELD_PATHS} || self.matches("^metadata[.](labels\\['{}'\\]|annotations\\['{}'\\])$")"#,
            key(LABEL_KEY),
            key(ANNOTATION_KEY),
        ),
        "not a field that a variable can have: write metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs",
    )])
}

pub(super) fn env_from() -> Value {
    rules(&[
        (
            "has(self.configMapRef) != has(self.secretRef)",
            "an envFrom entry needs exactly one of configMapRef and secretRef",
        ),
        (
            &format!("!has(self.prefix) || self.prefix == '' || self.prefix.matches('{VARIABLE_NAME}')"),
            "not a valid prefix: write letters, digits, '_', '-' or '.', not starting with a digit",
        ),
    ])
}

pub(super) fn volumes() -> Value {
    rules(&[(
        "self.all(a, self.exists_one(b, a.name == b.name))",
        "a volume name stands twice: give each volume its own name",
    )])
}

pub(super) fn volume(sources: &[String]) -> Value {
    rules(&[
        (
            &format!("self.name.matches('{DNS_LABEL}')"),
            "not a valid volume name: write lower-case letters, digits and '-', at most 63, for example corporate-ca",
        ),
        (
            &format!("{} <= 1", present(sources)),
            "a volume has more than one source: keep one (configMap, secret, emptyDir, ...)",
        ),
    ])
}

pub(super) fn volume_mounts() -> Value {
    rules(&[(
        "self.all(a, self.exists_one(b, a.mountPath == b.mountPath))",
        "a mountPath stands twice: mount each volume at a path of its own",
    )])
}

pub(super) fn volume_mount() -> Value {
    rules(&[
        (
            "!(has(self.subPath) && has(self.subPathExpr))",
            "a volumeMount has both subPath and subPathExpr: keep one of them",
        ),
        (
            "(!has(self.subPath) || (!self.subPath.startsWith('/') && !self.subPath.matches('(^|/)[.][.](/|$)'))) && (!has(self.subPathExpr) || (!self.subPathExpr.startsWith('/') && !self.subPathExpr.matches('(^|/)[.][.](/|$)')))",
            "subPath and subPathExpr must be relative and without '..': write the path inside the volume, for example certs/ca.pem",
        ),
        (
            "!self.mountPath.contains(':')",
            "mountPath may not contain ':': write an absolute path, for example /etc/ssl/corporate",
        ),
        (
            "!has(self.recursiveReadOnly) || self.recursiveReadOnly == 'Disabled' || (has(self.readOnly) && self.readOnly && (!has(self.mountPropagation) || self.mountPropagation == 'None'))",
            "recursiveReadOnly needs a mount that is read-only and not propagated: write readOnly: true and leave mountPropagation out, or leave recursiveReadOnly out",
        ),
    ])
}
