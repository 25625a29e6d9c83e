//! "How a value is made" in docs/injection.md, row by row, on the real API server.

use serde_json::{Value, json};

use crate::cluster::{Cluster, annotation, cluster_pod_preset, env, env_of, pod, pod_preset};

/// One rule, or a corner of one.
struct Row {
    /// What it shows, after the number of the rule in the document.
    what: &'static str,
    /// The `env` of cluster presets, the first with the highest priority.
    cluster: Vec<Value>,
    /// The same of presets of the namespace.
    namespace: Vec<Value>,
    /// The `env` of the container.
    own: Value,
    /// What the container has then.
    expected: &'static [&'static str],
    /// What `reach.dev/skipped` says; empty when it says nothing.
    skipped: &'static str,
    /// `letterCase` and `noProxyForm`.
    forms: (&'static str, &'static str),
}

fn row(
    what: &'static str,
    cluster: &[Value],
    namespace: &[Value],
    own: Value,
    expected: &'static [&'static str],
) -> Row {
    Row {
        what,
        cluster: cluster.to_vec(),
        namespace: namespace.to_vec(),
        own,
        expected,
        skipped: "",
        forms: ("Both", "AsWritten"),
    }
}

impl Row {
    /// Expects a conflict.
    fn skips(self, skipped: &'static str) -> Self {
        Self { skipped, ..self }
    }

    /// With proxy variables only as written, but for their lists.
    fn written_as_it_is(self) -> Self {
        Self { forms: ("AsWritten", "AsWritten"), ..self }
    }

    /// With `no_proxy` in the portable form, as without `noProxyForm`.
    fn portable(self) -> Self {
        Self { forms: ("Both", "Portable"), ..self }
    }
}

fn of(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn merge(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value, "mergeStrategy": "Merge"})
}

fn merge_with(separator: &str, name: &str, value: &str) -> Value {
    json!({"name": name, "value": value, "mergeStrategy": "Merge", "separator": separator})
}

fn replace(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value, "mergeStrategy": "Replace"})
}

fn from(name: &str) -> Value {
    json!({"name": name, "valueFrom": {"configMapKeyRef": {"name": "map", "key": "k"}}})
}

/// The rows. `c` stands for a value of the cluster, `n` of the namespace, `p` of the pod.
fn rows() -> Vec<Row> {
    let none = || json!([]);
    vec![
        row("1: no_proxy is merged by default", &[json!([of("no_proxy", "c")])], &[json!([of("no_proxy", "n")])], json!([of("no_proxy", "p")]), &["no_proxy=c,n,p", "NO_PROXY=c,n,p"]),
        row("1: everything else is replaced by default", &[json!([of("http_proxy", "c"), of("TZ", "c")])], &[json!([of("http_proxy", "n"), of("TZ", "n")])], none(), &["http_proxy=n", "HTTP_PROXY=n", "TZ=n"]),
        row("1: the strategy of a less specific level is inherited", &[json!([replace("no_proxy", "c")])], &[json!([of("no_proxy", "n")])], json!([of("no_proxy", "p")]), &["no_proxy=p"]),
        row("1: an own strategy wins over an inherited one", &[json!([replace("no_proxy", "c")])], &[json!([merge("no_proxy", "n")])], json!([of("no_proxy", "p")]), &["no_proxy=c,n,p", "NO_PROXY=c,n,p"]),
        row("1: valueFrom always replaces", &[json!([merge("no_proxy", "c")])], &[json!([from("no_proxy")])], none(), &["no_proxy<-map/k", "NO_PROXY<-map/k"]),
        row("2: of several that replace, the first stands", &[json!([of("TZ", "c1")]), json!([of("TZ", "c2")])], &[], none(), &["TZ=c1"]).skips("ClusterPodPreset/row-5-1@1: variable TZ differs from that of ClusterPodPreset/row-5-0"),
        row("2: the same twice is no conflict", &[json!([of("TZ", "c")]), json!([of("TZ", "c")])], &[], none(), &["TZ=c"]),
        row("2: those that merge join in order of use", &[json!([of("no_proxy", "c1")]), json!([of("no_proxy", "c2")])], &[], none(), &["no_proxy=c1,c2", "NO_PROXY=c1,c2"]),
        row("2: those that merge join what replaces", &[json!([replace("no_proxy", "c1")]), json!([merge("no_proxy", "c2")])], &[], none(), &["no_proxy=c1,c2", "NO_PROXY=c1,c2"]),
        row("2: nothing joins a valueFrom", &[json!([from("no_proxy")]), json!([merge("no_proxy", "c2")])], &[], none(), &["no_proxy<-map/k", "NO_PROXY<-map/k"]).skips("ClusterPodPreset/row-9-1@1: variable no_proxy cannot be merged with that of ClusterPodPreset/row-9-0"),
        row("3: a namespace that replaces drops the cluster's", &[json!([merge("no_proxy", "c")])], &[json!([replace("no_proxy", "n")])], none(), &["no_proxy=n", "NO_PROXY=n"]),
        row("3: the cluster's valueFrom cannot be united", &[json!([from("no_proxy")])], &[json!([merge("no_proxy", "n")])], none(), &["no_proxy=n", "NO_PROXY=n"]).skips("ClusterPodPreset/row-11-0@1: variable no_proxy cannot be merged with that of PodPreset/row-11-0"),
        row("4: what the container lacks is added behind its own", &[json!([of("TZ", "c")])], &[], json!([of("A", "p")]), &["A=p", "TZ=c"]),
        row("4: the container's value stands", &[json!([of("http_proxy", "c")])], &[], json!([of("http_proxy", "p")]), &["http_proxy=p"]),
        row("4: the empty value stands, under no spelling is anything added", &[json!([of("http_proxy", "c"), of("https_proxy", "c")])], &[], json!([of("HTTP_PROXY", ""), of("Https_Proxy", "")]), &["HTTP_PROXY=", "Https_Proxy="]),
        row("4: a valueFrom of the container stands", &[json!([of("http_proxy", "c")])], &[], json!([from("http_proxy")]), &["http_proxy<-map/k"]),
        row("4: a valueFrom of a preset does not replace the container's", &[json!([from("no_proxy")])], &[], json!([of("no_proxy", "p")]), &["no_proxy=p"]),
        row("4: merged in place, the container's entries last", &[json!([of("no_proxy", "c")])], &[], json!([of("A", "p"), of("no_proxy", "p1,p2"), of("B", "p")]), &["A=p", "no_proxy=c,p1,p2", "B=p", "NO_PROXY=c,p1,p2"]),
        row("4: several spellings are united and all set", &[json!([of("no_proxy", "c")])], &[], json!([of("no_proxy", "p1"), of("NO_PROXY", "p2"), of("No_Proxy", "p3")]), &["no_proxy=c,p1,p2,p3", "NO_PROXY=c,p1,p2,p3", "No_Proxy=c,p1,p2,p3"]),
        row("4: a valueFrom of the container cannot be merged", &[json!([of("no_proxy", "c")])], &[], json!([from("NO_PROXY")]), &["NO_PROXY<-map/k"]),
        row("4: of a name that stands twice the last one counts", &[json!([of("no_proxy", "c")])], &[], json!([of("no_proxy", "p1"), of("no_proxy", "p2")]), &["no_proxy=p1", "no_proxy=c,p2", "NO_PROXY=c,p2"]),
        row("4: the namespace's strategy is the pod's", &[json!([replace("TZ", "c")])], &[json!([merge("TZ", "n")])], json!([of("TZ", "p")]), &["TZ=c,n,p"]),
        row("5: both spellings, the lower case first", &[json!([of("HTTP_PROXY", "c")])], &[], none(), &["http_proxy=c", "HTTP_PROXY=c"]),
        row("5: names that are no proxy variables have one spelling", &[json!([of("tz", "c")])], &[], json!([of("TZ", "p")]), &["TZ=p", "tz=c"]),
        row("6: no_proxy is split at commas and white space, without duplicates", &[json!([of("no_proxy", " a, b ,,A  c,\n")])], &[json!([of("no_proxy", "B d")])], json!([of("no_proxy", "e A e")]), &["no_proxy=a,b,c,d,e", "NO_PROXY=a,b,c,d,e"]),
        row("7: other values are split at the separator", &[json!([merge_with(":", "PATH", "/c: /c2:/p:/c")])], &[], json!([of("PATH", "/p:/p:/p2")]), &["PATH=/c:/c2:/p:/p:/p2"]),
        row("7: without a separator, at a comma", &[json!([merge("LIST", "a,b")])], &[json!([merge("LIST", "b,c")])], none(), &["LIST=a,b,c"]),
        row("7: a command line is one entry", &[json!([merge_with(" ", "JAVA_TOOL_OPTIONS", "-Da -Db")])], &[json!([merge_with(" ", "JAVA_TOOL_OPTIONS", "-Da -Dc")])], json!([of("JAVA_TOOL_OPTIONS", "-Xmx1g")]), &["JAVA_TOOL_OPTIONS=-Da -Db -Da -Dc -Xmx1g"]),
        row("8: what refers stands behind what it refers to", &[json!([json!({"name": "PROXY_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "password"}}}), of("http_proxy", "http://u:$(PROXY_PASSWORD)@c:3128")])], &[json!([of("HOST", "n"), of("ftp_proxy", "http://$(HOST)")])], json!([of("A", "p")]), &["A=p", "PROXY_PASSWORD<-proxy/password", "http_proxy=http://u:$(PROXY_PASSWORD)@c:3128", "HTTP_PROXY=http://u:$(PROXY_PASSWORD)@c:3128", "HOST=n", "ftp_proxy=http://$(HOST)", "FTP_PROXY=http://$(HOST)"]),
        row("8: it stands where the last one that contributed stands", &[json!([of("no_proxy", "c"), of("TZ", "c")])], &[json!([of("B", "n"), of("no_proxy", "n")])], none(), &["TZ=c", "B=n", "no_proxy=c,n", "NO_PROXY=c,n"]),
    ]
}

pub fn are_made_as_documented(cluster: &Cluster) {
    let namespace = "values";
    cluster.namespace(namespace, &json!({}));
    let mut rows = rows();
    rows.extend([
        row("5: as written", &[json!([of("HTTP_PROXY", "c")])], &[], json!([]), &["HTTP_PROXY=c"])
            .written_as_it_is(),
        row(
            "5: each spelling that a contributor wants",
            &[json!([of("no_proxy", "c")])],
            &[json!([of("No_Proxy", "n")])],
            json!([]),
            &["no_proxy=c,n", "No_Proxy=c,n"],
        )
        .written_as_it_is(),
        row(
            "5: one that the container lacks is added",
            &[json!([of("NO_PROXY", "c")])],
            &[],
            json!([of("no_proxy", "p")]),
            &["no_proxy=c,p", "NO_PROXY=c,p"],
        )
        .written_as_it_is(),
        row(
            "6: the portable form",
            &[json!([of("no_proxy", "*.Svc,10.96.0.1/12,fd00::/64")])],
            &[json!([of("no_proxy", "mysql")])],
            json!([of("no_proxy", "web:80 10.0.0.9")]),
            &[
                "no_proxy=.mysql,mysql,.svc,svc,localhost,10.0.0.9,10.96.0.1,127.0.0.1,10.96.0.0/12,web:80",
                "NO_PROXY=.mysql,mysql,.svc,svc,localhost,10.0.0.9,10.96.0.1,127.0.0.1,10.96.0.0/12,web:80",
            ],
        )
        .portable(),
    ]);

    // Each row has presets of its own, which select its pod.
    let mut presets = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for (make, envs) in [
            (cluster_pod_preset as fn(&str, &str, &Value) -> Value, &row.cluster),
            (pod_preset as fn(&str, &str, &Value) -> Value, &row.namespace),
        ] {
            for (place, env) in envs.iter().enumerate() {
                let spec = json!({
                    "selector": {"matchLabels": {"row": index.to_string()}},
                    "priority": 100 - place,
                    "letterCase": row.forms.0,
                    "noProxyForm": row.forms.1,
                    "env": env,
                });
                presets.push(make(namespace, &format!("row-{index}-{place}"), &spec));
            }
        }
    }
    cluster.apply(&Value::Array(presets));
    for (index, row) in rows.iter().enumerate() {
        let expected = [("ClusterPodPreset", &row.cluster), ("PodPreset", &row.namespace)];
        let expected: Vec<String> = expected
            .iter()
            .flat_map(|(kind, envs)| (0..envs.len()).map(move |place| format!("{kind}/row-{index}-{place}@")))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        cluster.await_presets(namespace, &json!({"row": index.to_string()}), &expected);
    }

    let pods = rows.iter().enumerate().map(|(index, row)| {
        let mut pod = pod(&json!({"row": index.to_string()}), &row.own);
        pod["metadata"]["name"] = json!(format!("row-{index}"));
        pod
    });
    let (stored, warnings) = cluster.create_all(namespace, &pods.collect::<Vec<_>>(), &[]);
    let mut wrong = String::new();
    for (row, pod) in rows.iter().zip(&stored) {
        let (env, skipped) = (env(pod, "web"), annotation(pod, "skipped").unwrap_or_default());
        if env != row.expected || skipped != row.skipped {
            use std::fmt::Write;
            let own = env_of(&row.own);
            let _ = write!(
                wrong,
                "\n{}\n  own      {own:?}\n  expected {:?} {}\n  has      {env:?} {skipped}",
                row.what, row.expected, row.skipped
            );
        }
    }
    assert_eq!(wrong, "");
    assert!(
        warnings.contains("reach: variable no_proxy of container web has valueFrom: left as it is"),
        "{warnings}"
    );
}
