//! A second reading of docs/injection.md: plain and slow, with no index, no sharing and no raw JSON, so that
//! it can be compared with the text of the contract by eye. It shares no code with the engine.

#![allow(dead_code, reason = "each test binary uses only a part of it")]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::portable;

const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What the cluster says in a namespace: source of `noProxyFrom` and namespace to a list.
pub type Sources = fn(&str, &str) -> &'static str;

/// What the contract says about a pod that is not left alone.
#[derive(Debug)]
pub struct Expected {
    /// The pod, with nothing in `reach.dev/hash` and `reach.dev/skipped`.
    pub pod: Value,
    /// `kind/name@generation` of the presets applied, in order of use.
    pub applied: Vec<String>,
    /// The same of those not applied at all.
    pub skipped: BTreeSet<String>,
    /// Presets and the variables of theirs that are not followed.
    pub conflicts: BTreeSet<(String, String)>,
    /// Containers and those variables of theirs that cannot be merged.
    pub unmergeable: BTreeSet<(String, String)>,
    /// Containers and those variables of theirs that do without what is derived.
    pub too_long: BTreeSet<(String, String)>,
}

/// A pod, or the ephemeral containers that are not among these.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Pod,
    Ephemeral(&'a [&'a str]),
}

/// Injects; `None` when the pod is left alone altogether.
pub fn inject(
    presets: &[Value],
    namespace: &str,
    namespace_labels: &Value,
    pod: &Value,
    target: Target<'_>,
    sources: Sources,
) -> Option<Expected> {
    // Which pods
    let meta = &pod["metadata"];
    let disabled = json!("disabled");
    if meta["annotations"].get("kubernetes.io/config.mirror").is_some()
        || namespace_labels["reach.dev/injection"] == disabled
        || meta["labels"]["reach.dev/injection"] == disabled
        || meta["annotations"]["podpreset.admission.kubernetes.io/exclude"] == "true"
    {
        return None;
    }
    let places = containers(pod, target);
    let concerned: Vec<&Value> = in_order_of_use(presets)
        .into_iter()
        .filter(|preset| selects(preset, namespace, namespace_labels, &meta["labels"]))
        .filter(|preset| places.iter().any(|place| !excludes(preset, name(at(pod, *place)))))
        .collect();
    if concerned.is_empty() {
        return None;
    }

    // Conflicts
    let mut applied = concerned;
    let mut skipped = BTreeSet::new();
    while let Some(position) = first_conflict(&applied, pod, &places, target) {
        skipped.insert(stamp(applied.remove(position)));
    }

    let mut result = pod.clone();
    let mut conflicts = BTreeSet::new();
    let (mut unmergeable, mut too_long) = (BTreeSet::new(), BTreeSet::new());
    if matches!(target, Target::Pod) {
        add_volumes(&mut result, &applied);
    }
    for (list, index) in places {
        let container = &mut result["spec"][list][index];
        let presets: Vec<&Value> =
            applied.iter().copied().filter(|preset| !excludes(preset, name(container))).collect();
        let says = |source: &str| sources(source, namespace);
        for (preset, variable) in add_variables(container, &presets, &says, &mut unmergeable, &mut too_long) {
            conflicts.insert((preset, variable));
        }
        for preset in presets {
            add_env_from(container, preset);
            add_mounts(container, preset);
        }
    }

    let applied: Vec<String> = applied.into_iter().map(stamp).collect();
    if matches!(target, Target::Pod) && !applied.is_empty() {
        annotations(&mut result).insert("reach.dev/presets".into(), applied.join(",").into());
    }
    Some(Expected { pod: result, applied, skipped, conflicts, unmergeable, too_long })
}

/// The annotations of a pod, made if there are none.
pub fn annotations(pod: &mut Value) -> &mut Map<String, Value> {
    for field in ["/metadata", "/metadata/annotations"] {
        let (parent, key) = field.rsplit_once('/').expect("a pointer");
        let parent = pod.pointer_mut(parent).expect("just made");
        if parent[key].is_null() {
            parent[key] = json!({});
        }
    }
    pod["metadata"]["annotations"].as_object_mut().expect("an object")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(&object["name"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Appends to a list that may be absent or `null`.
fn append(object: &mut Value, field: &str, item: Value) {
    match &mut object[field] {
        Value::Array(items) => items.push(item),
        absent => *absent = json!([item]),
    }
}

// === which pods ===

/// Where the containers concerned are.
fn containers(pod: &Value, target: Target<'_>) -> Vec<(&'static str, usize)> {
    let mut places = Vec::new();
    for field in LISTS {
        for (index, container) in list(&pod["spec"][field]).iter().enumerate() {
            let concerned = match target {
                Target::Pod => true,
                Target::Ephemeral(old) => field == "ephemeralContainers" && !old.contains(&name(container)),
            };
            if concerned {
                places.push((field, index));
            }
        }
    }
    places
}

fn at<'p>(pod: &'p Value, (list, index): (&str, usize)) -> &'p Value {
    &pod["spec"][list][index]
}

fn is_namespaced(preset: &Value) -> bool {
    preset["kind"] == "PodPreset"
}

fn in_order_of_use(presets: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = presets.iter().collect();
    sorted.sort_by_key(|preset| {
        let priority = preset["spec"]["priority"].as_i64().unwrap_or(0);
        (is_namespaced(preset), -priority, name(&preset["metadata"]))
    });
    sorted
}

fn selects(preset: &Value, namespace: &str, namespace_labels: &Value, labels: &Value) -> bool {
    let mut named = namespace_labels.clone();
    if named["kubernetes.io/metadata.name"].is_null() {
        named["kubernetes.io/metadata.name"] = namespace.into();
    }
    let spec = &preset["spec"];
    let right_namespace = if is_namespaced(preset) {
        preset["metadata"]["namespace"] == namespace
    } else {
        matches(&spec["namespaceSelector"], &named)
    };
    right_namespace && matches(&spec["selector"], labels)
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let equal =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    let expressions = list(&selector["matchExpressions"]).iter().all(|expression| {
        let label = &labels[text(&expression["key"])];
        let values = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" => !label.is_null() && values.contains(label),
            "NotIn" => label.is_null() || !values.contains(label),
            "Exists" => !label.is_null(),
            "DoesNotExist" => label.is_null(),
            other => unreachable!("operator {other}"),
        }
    });
    equal && expressions
}

fn excludes(preset: &Value, container: &str) -> bool {
    list(&preset["spec"]["excludeContainers"]).iter().map(text).any(|pattern| {
        pattern.strip_suffix('*').map_or(pattern == container, |prefix| container.starts_with(prefix))
    })
}

/// `kind/name@generation`.
pub fn stamp(preset: &Value) -> String {
    let generation = preset["metadata"]["generation"].as_i64().unwrap_or(0);
    format!("{}/{}@{generation}", text(&preset["kind"]), name(&preset["metadata"]))
}

// === conflicts ===

/// The first preset that may not be applied to the pod along with the others.
fn first_conflict(
    presets: &[&Value],
    pod: &Value,
    places: &[(&'static str, usize)],
    target: Target<'_>,
) -> Option<usize> {
    let own_volumes = list(&pod["spec"]["volumes"]);
    let taken_by_pod = |volume: &Value| {
        own_volumes.iter().any(|own| name(own) == name(volume) && complete(own) != complete(volume))
    };
    // The presets of the namespace take their places first, then those of the cluster.
    let (namespaced, cluster): (Vec<usize>, Vec<usize>) =
        (0..presets.len()).partition(|&position| is_namespaced(presets[position]));
    let turns: Vec<usize> = namespaced.into_iter().chain(cluster).collect();
    (0..turns.len())
        .find(|&turn| {
            let preset = presets[turns[turn]];
            let earlier: Vec<&Value> = turns[..turn].iter().map(|&position| presets[position]).collect();
            let volumes = list(&preset["spec"]["volumes"]).iter().any(|volume| {
                let of_namespace = |other: &&Value| is_namespaced(other) && has_volume(other, name(volume));
                if !is_namespaced(preset) && earlier.iter().any(of_namespace) {
                    return false;
                }
                // Where no volumes are added, presets do not take names from each other.
                let added = matches!(target, Target::Pod);
                taken_by_pod(volume)
                    || earlier
                        .iter()
                        .filter(|other| added && other["kind"] == preset["kind"])
                        .flat_map(|other| list(&other["spec"]["volumes"]))
                        .any(|other| name(other) == name(volume) && complete(other) != complete(volume))
            });
            volumes || places.iter().any(|&place| mounts_conflict(preset, &earlier, pod, place, target))
        })
        .map(|turn| turns[turn])
}

fn has_volume(preset: &Value, volume: &str) -> bool {
    list(&preset["spec"]["volumes"]).iter().any(|own| name(own) == volume)
}

/// Whether the mounts of a preset cannot be in a container.
fn mounts_conflict(
    preset: &Value,
    earlier: &[&Value],
    pod: &Value,
    place: (&'static str, usize),
    target: Target<'_>,
) -> bool {
    let container = at(pod, place);
    if excludes(preset, name(container)) {
        return false;
    }
    let mut there: Vec<&Value> = list(&container["volumeMounts"]).iter().collect();
    for other in earlier.iter().filter(|other| !excludes(other, name(container))) {
        there.extend(list(&other["spec"]["volumeMounts"]));
    }
    list(&preset["spec"]["volumeMounts"]).iter().any(|mount| {
        // Kubernetes forbids a new volume in a running pod.
        let missing = !list(&pod["spec"]["volumes"]).iter().any(|own| name(own) == name(mount));
        if missing && matches!(target, Target::Ephemeral(_)) {
            return true;
        }
        let same_place: Vec<_> = there.iter().filter(|other| path(other) == path(mount)).collect();
        let device = list(&container["volumeDevices"])
            .iter()
            .any(|device| slashes(text(&device["devicePath"])) == path(mount));
        if device || same_place.iter().any(|other| complete_mount(other) != complete_mount(mount)) {
            return true;
        }
        if !same_place.is_empty() {
            return false;
        }
        // And this one in any ephemeral container.
        let sub_path = !text(&mount["subPath"]).is_empty() || !text(&mount["subPathExpr"]).is_empty();
        sub_path && place.0 == "ephemeralContainers"
    })
}

fn path(mount: &Value) -> String {
    slashes(text(&mount["mountPath"]))
}

/// `/etc/ssl` and `/etc//ssl/` are one place.
fn slashes(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// A volume as the API server would have completed it, for the sources that the generator uses.
pub fn complete(volume: &Value) -> Value {
    let mut volume = without_nulls(volume.clone());
    let fields = volume.as_object_mut().expect("a volume is an object");
    // core/v1: a volume with no source is an emptyDir.
    if fields.len() == 1 {
        fields.insert("emptyDir".into(), json!({}));
    }
    let defaults = [
        ("configMap", "defaultMode", json!(0o644)),
        ("secret", "defaultMode", json!(0o644)),
        ("downwardAPI", "defaultMode", json!(0o644)),
        ("projected", "defaultMode", json!(0o644)),
        ("hostPath", "type", json!("")),
    ];
    for (source, field, default) in defaults {
        if let Some(source) = fields.get_mut(source)
            && source[field].is_null()
        {
            source[field] = default;
        }
    }
    let fields_of_pod = |item: &mut Value| {
        if item["fieldRef"].is_object() && item["fieldRef"]["apiVersion"].is_null() {
            item["fieldRef"]["apiVersion"] = json!("v1");
        }
    };
    for item in volume.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten() {
        fields_of_pod(item);
    }
    for source in volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if source["serviceAccountToken"].is_object()
            && source["serviceAccountToken"]["expirationSeconds"].is_null()
        {
            source["serviceAccountToken"]["expirationSeconds"] = json!(3600);
        }
        for item in
            source.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten()
        {
            fields_of_pod(item);
        }
    }
    without_nulls(volume)
}

/// `null` is as good as absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn complete_mount(mount: &Value) -> Value {
    let mut mount = without_nulls(mount.clone());
    mount["mountPath"] = path(&mount).into();
    for (field, default) in [
        ("readOnly", json!(false)),
        ("subPath", json!("")),
        ("subPathExpr", json!("")),
        ("mountPropagation", json!("None")),
        ("recursiveReadOnly", json!("Disabled")),
    ] {
        if mount[field].is_null() {
            mount[field] = default;
        }
    }
    mount
}

fn add_volumes(pod: &mut Value, applied: &[&Value]) {
    for preset in applied {
        for volume in list(&preset["spec"]["volumes"]) {
            let replacement = applied
                .iter()
                .filter(|other| is_namespaced(other))
                .flat_map(|other| list(&other["spec"]["volumes"]))
                .find(|other| name(other) == name(volume));
            let volume = replacement.unwrap_or(volume);
            if !list(&pod["spec"]["volumes"]).iter().any(|own| name(own) == name(volume)) {
                append(&mut pod["spec"], "volumes", volume.clone());
            }
        }
    }
}

fn add_mounts(container: &mut Value, preset: &Value) {
    for mount in list(&preset["spec"]["volumeMounts"]) {
        if !list(&container["volumeMounts"]).iter().any(|own| path(own) == path(mount)) {
            append(container, "volumeMounts", mount.clone());
        }
    }
}

fn add_env_from(container: &mut Value, preset: &Value) {
    let key = |entry: &Value| {
        ["/prefix", "/configMapRef/name", "/secretRef/name"]
            .map(|field| entry.pointer(field).map_or("", text).to_owned())
    };
    for entry in list(&preset["spec"]["envFrom"]) {
        if !list(&container["envFrom"]).iter().any(|own| key(own) == key(entry)) {
            append(container, "envFrom", entry.clone());
        }
    }
}

// === how a value is made ===

/// A variable of a preset.
#[derive(Clone, Copy, Debug)]
struct Item<'a> {
    preset: &'a Value,
    variable: &'a Value,
    /// In order of use.
    position: (usize, usize),
}

/// What the cluster says, by source.
type Says<'a> = &'a dyn Fn(&str) -> &'static str;

/// The variables of a preset, and those that rules 9 and 10 give it.
fn variables(preset: &Value) -> Vec<Value> {
    let spec = &preset["spec"];
    let mut variables = list(&spec["env"]).to_vec();
    let has = |variables: &[Value], wanted: &str| variables.iter().any(|own| family(name(own)) == wanted);
    if !list(&spec["noProxyFrom"]).is_empty() && !has(&variables, "no_proxy") {
        variables.push(json!({"name": "no_proxy", "implied": true}));
    }
    for runtime in list(&spec["derive"]) {
        if runtime == "Java" {
            variables
                .push(json!({"name": JAVA, "mergeStrategy": "Merge", "separator": " ", "derived": true}));
        } else if !has(&variables, NODE) {
            variables.push(json!({"name": NODE, "value": "1"}));
        }
    }
    variables
}

const JAVA: &str = "JAVA_TOOL_OPTIONS";
const NODE: &str = "NODE_USE_ENV_PROXY";

/// The variable that a name stands for.
pub fn family(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if PROXIES.contains(&lower.as_str()) { lower } else { name.to_owned() }
}

fn is_from(variable: &Value) -> bool {
    !variable["valueFrom"].is_null()
}

impl Item<'_> {
    fn declared(&self) -> Option<&str> {
        self.variable["mergeStrategy"].as_str()
    }

    fn value(&self) -> &str {
        text(&self.variable["value"])
    }

    fn is_from(&self) -> bool {
        is_from(self.variable)
    }

    /// Where its list comes from beside its value.
    fn sources(&self) -> &[Value] {
        list(&self.preset["spec"]["noProxyFrom"])
    }

    /// Lists say the same when their entries do.
    fn same_value(&self, other: &Item<'_>) -> bool {
        let content = |item: &Item<'_>| {
            if family(name(item.variable)) == "no_proxy" && !item.is_from() {
                let sources: BTreeSet<&str> = item.sources().iter().map(text).collect();
                return json!([portable::portable(&[item.value()], &[item.value()]), sources]);
            }
            json!([item.value(), item.variable["valueFrom"]])
        };
        content(self) == content(other)
    }

    fn spellings(&self) -> Vec<String> {
        let written = name(self.variable);
        let family = family(written);
        if PROXIES.contains(&family.as_str()) && self.preset["spec"]["letterCase"] != "AsWritten" {
            vec![family.to_ascii_uppercase().to_ascii_lowercase(), family.to_ascii_uppercase()]
        } else {
            vec![written.to_owned()]
        }
    }

    /// The preset and the variable, for a conflict.
    fn conflict(&self) -> (String, String) {
        (stamp(self.preset), family(name(self.variable)))
    }
}

/// Rule 1, with the level before.
fn strategy<'a>(item: &Item<'a>, less_specific: &[Item<'a>], family: &str) -> String {
    if item.is_from() {
        return "Replace".to_owned();
    }
    // Rule 9
    if item.variable["implied"] == true {
        return "Merge".to_owned();
    }
    item.declared()
        .or_else(|| less_specific.iter().find_map(Item::declared))
        .unwrap_or_else(|| default_strategy(family))
        .to_owned()
}

pub fn default_strategy(family: &str) -> &'static str {
    if family == "no_proxy" { "Merge" } else { "Replace" }
}

/// What one level makes of a variable: the items that contribute, and whether one of them replaces.
fn level<'a>(
    items: &[Item<'a>],
    less_specific: &[Item<'a>],
    family: &str,
    conflicts: &mut Vec<(String, String)>,
) -> (Vec<Item<'a>>, bool) {
    let replaces = |item: &Item<'a>| strategy(item, less_specific, family) == "Replace";
    let standing = items.iter().find(|item| replaces(item));
    let mut contributing = Vec::new();
    for item in items {
        match standing {
            // One that says the same again adds nothing, and is no conflict.
            Some(standing) if replaces(item) && item.position != standing.position => {
                if !item.same_value(standing) {
                    conflicts.push(item.conflict());
                }
            }
            Some(standing) if !replaces(item) && standing.is_from() => conflicts.push(item.conflict()),
            _ => contributing.push(*item),
        }
    }
    (contributing, standing.is_some())
}

/// Adds and merges variables; returns the conflicts of variables.
#[allow(
    clippy::too_many_lines,
    reason = "one variable from its items into the container, in the order of the rules"
)]
fn add_variables(
    container: &mut Value,
    presets: &[&Value],
    says: Says<'_>,
    unmergeable: &mut BTreeSet<(String, String)>,
    too_long: &mut BTreeSet<(String, String)>,
) -> Vec<(String, String)> {
    let mut conflicts = Vec::new();
    let variables: Vec<Vec<Value>> = presets.iter().map(|preset| variables(preset)).collect();
    let items: Vec<Item<'_>> = presets
        .iter()
        .zip(&variables)
        .enumerate()
        .flat_map(|(order, (preset, variables))| {
            variables.iter().enumerate().map(move |(index, variable)| Item {
                preset,
                variable,
                position: (order, index),
            })
        })
        .collect();
    let mut families: Vec<String> = items.iter().map(|item| family(name(item.variable))).collect();
    // After the others, whose values it repeats.
    families.sort_by_key(|name| (name == JAVA, name.clone()));
    families.dedup();
    let own = list(&container["env"]).to_vec();
    let mut added: Vec<((usize, usize), Value)> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    // `no_proxy` without what only the cluster knows, and the variables whose value nobody knows.
    let mut without_names: Option<String> = None;
    let mut hidden: Vec<Value> = Vec::new();
    for family_name in families {
        let of_level = |namespaced: bool| -> Vec<Item<'_>> {
            items
                .iter()
                .copied()
                .filter(|item| {
                    family(name(item.variable)) == family_name && is_namespaced(item.preset) == namespaced
                })
                .collect()
        };
        let (cluster, namespace) = (of_level(false), of_level(true));
        // Rules 2 and 3
        let (cluster_stands, _) = level(&cluster, &[], &family_name, &mut conflicts);
        let (namespace_stands, replaced) = level(&namespace, &cluster, &family_name, &mut conflicts);
        let cluster_is_from = cluster_stands.iter().any(Item::is_from);
        let contributing: Vec<Item<'_>> = if replaced {
            namespace_stands
        } else if cluster_is_from && namespace_stands.iter().all(|item| item.variable["implied"] == true) {
            // Rule 9: nothing is there to take its place.
            conflicts.extend(namespace_stands.iter().map(Item::conflict));
            cluster_stands
        } else if cluster_is_from && !namespace_stands.is_empty() {
            // The one that says where the value comes from is not followed.
            conflicts.extend(cluster_stands.iter().map(Item::conflict));
            namespace_stands
        } else {
            cluster_stands.into_iter().chain(namespace_stands).collect()
        };
        // Rule 4
        let strategy = namespace
            .iter()
            .find_map(Item::declared)
            .or_else(|| cluster.iter().find_map(Item::declared))
            .unwrap_or_else(|| default_strategy(&family_name));
        let from = contributing.iter().find(|item| item.is_from());
        // What only replaces is not split.
        let to_the_letter = contributing.len() == 1
            && self::strategy(
                &contributing[0],
                if namespace.is_empty() { &[] } else { &cluster },
                &family_name,
            ) == "Replace";
        // For each spelling in the container, the position of the one that counts.
        let mut spellings: Vec<(&str, usize)> = Vec::new();
        for (position, variable) in own.iter().enumerate().filter(|(_, own)| family(name(own)) == family_name)
        {
            spellings.retain(|(spelling, _)| *spelling != name(variable));
            spellings.push((name(variable), position));
        }
        let said: Vec<&str> = contributing
            .iter()
            .map(Item::value)
            .chain(spellings.iter().map(|(_, position)| text(&own[*position]["value"])))
            .collect();
        let tell = |no_proxy: Option<String>| {
            if !contributing.iter().any(|item| item.variable["derived"] == true) {
                return String::new();
            }
            let [http, https] =
                ["http_proxy", "https_proxy"].map(|family| effective(family, container, &added, &hidden));
            java_options([http, https, no_proxy], &said.join(" "))
        };
        let derived = tell(effective("no_proxy", container, &added, &hidden));
        let shorter = without_names.clone().map(|list| tell(Some(list)));
        let with = |derived: &str, own: &[&str]| {
            united(&family_name, &contributing, presets, says, derived, to_the_letter, own)
        };
        // Java 8 ignores all of what is longer than 1023 bytes: what others say with it.
        let unite = |own: &[&str]| {
            let is_too_long = |whole: &str| whole.len() > 1023 && !with("", own).is_empty();
            let whole = with(&derived, own);
            if derived.is_empty() || !is_too_long(&whole) {
                return (whole, false);
            }
            let shorter = shorter.as_deref().map(|derived| with(derived, own));
            (shorter.filter(|shorter| !is_too_long(shorter)).unwrap_or_else(|| with("", own)), true)
        };
        let (value, mut is_too_long) = unite(&[]);
        is_too_long &= from.is_none();
        let mut content = match from {
            Some(item) => json!({"valueFrom": item.variable["valueFrom"]}),
            None => json!({"value": value}),
        };
        // Rule 8
        let place = contributing.iter().map(|item| item.position).max().expect("a contribution");
        places.push(Place {
            at: place,
            names: contributing.iter().flat_map(Item::spellings).collect(),
            refers_to: if from.is_some() { vec![] } else { references(&with("", &[])) },
        });
        if spellings.is_empty()
            && contributing.iter().any(|item| item.variable["derived"] == true)
            && content["value"] == ""
        {
            continue;
        }
        if !spellings.is_empty() {
            if strategy == "Replace" || from.is_some() {
                continue;
            }
            if spellings.iter().any(|(_, position)| is_from(&own[*position])) {
                hidden.push(json!({"name": family_name, "valueFrom": {}}));
                unmergeable.insert((name(container).to_owned(), family_name));
                continue;
            }
            let values: Vec<&str> =
                spellings.iter().map(|(_, position)| text(&own[*position]["value"])).collect();
            let value;
            (value, is_too_long) = unite(&values);
            for (_, position) in &spellings {
                if text(&own[*position]["value"]) != value {
                    container["env"][*position]["value"] = value.clone().into();
                }
            }
            content = json!({"value": value});
        }
        if family_name == "no_proxy" && from.is_none() {
            let few = |source: &str| if source == "ClusterNetwork" { says(source) } else { "" };
            let values: Vec<&str> =
                spellings.iter().map(|(_, position)| text(&own[*position]["value"])).collect();
            without_names = Some(united(&family_name, &contributing, presets, &few, "", false, &values));
        }
        if is_too_long {
            too_long.insert((name(container).to_owned(), family_name));
        }
        // Rule 5
        let mut wanted: Vec<String> = Vec::new();
        for spelling in contributing.iter().flat_map(Item::spellings) {
            if !wanted.contains(&spelling) && !spellings.iter().any(|(there, _)| *there == spelling) {
                wanted.push(spelling);
            }
        }
        for spelling in wanted {
            let mut variable = json!({"name": spelling});
            variable
                .as_object_mut()
                .expect("an object")
                .extend(content.as_object().expect("an object").clone());
            added.push((place, variable));
        }
    }
    places.sort_by_key(|place| place.at);
    let mut order = Vec::new();
    for first in 0..places.len() {
        put(first, &places, &mut vec![], &mut order);
    }
    for at in order {
        for (_, variable) in added.iter().filter(|(place, _)| *place == at) {
            append(container, "env", variable.clone());
        }
    }
    conflicts
}

/// Where a variable stands.
struct Place {
    at: (usize, usize),
    names: Vec<String>,
    refers_to: Vec<String>,
}

/// Puts a variable behind those that it refers to, unless one of those refers to it.
fn put(position: usize, places: &[Place], path: &mut Vec<usize>, order: &mut Vec<(usize, usize)>) {
    if path.contains(&position) || order.contains(&places[position].at) {
        return;
    }
    path.push(position);
    for (other, place) in places.iter().enumerate() {
        if place.names.iter().any(|name| places[position].refers_to.contains(name)) {
            put(other, places, path, order);
        }
    }
    path.pop();
    order.push(places[position].at);
}

/// `NAME` of each `$(NAME)`; `$$` is a dollar sign.
fn references(value: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = value;
    while let Some((_, behind)) = rest.split_once('$') {
        rest = behind.strip_prefix('$').unwrap_or(behind);
        if let Some((name, behind)) = behind.strip_prefix('(').and_then(|behind| behind.split_once(')')) {
            names.push(name.to_owned());
            rest = behind;
        }
    }
    names
}

/// The value of a proxy variable that a container ends up with, if it is known; empty where there is none.
fn effective(
    wanted: &str,
    container: &Value,
    added: &[((usize, usize), Value)],
    hidden: &[Value],
) -> Option<String> {
    let of_family = |variable: &&Value| family(name(variable)) == wanted;
    let own = list(&container["env"]).iter().rev().find(of_family);
    let added = added.iter().map(|(_, variable)| variable).find(of_family);
    // What cannot be seen may say more than the presets, but hardly less.
    match hidden.iter().find(of_family).or(own).or(added) {
        None => Some(String::new()),
        Some(variable) => (!is_from(variable)).then(|| text(&variable["value"]).to_owned()),
    }
}

/// Rule 10 for Java.
fn java_options([http, https, no]: [Option<String>; 3], said: &str) -> String {
    let Some(no) = no else { return String::new() };
    let says = |property: &str| said.contains(&format!("-D{property}="));
    let mut options = Vec::new();
    for (scheme, proxy) in [("http", http), ("https", https)] {
        if let Some((host, port)) = proxy.as_deref().and_then(host_and_port)
            && !says(&format!("{scheme}.proxyHost"))
            && !says(&format!("{scheme}.proxyPort"))
        {
            options.push(format!("-D{scheme}.proxyHost={host}"));
            options.push(format!("-D{scheme}.proxyPort={port}"));
        }
    }
    if options.is_empty() || says("http.nonProxyHosts") {
        return options.join(" ");
    }
    let mut patterns: Vec<String> = Vec::new();
    for (class, entry) in portable::entries(&[], &[no.as_str()]) {
        match class {
            portable::NAME => patterns.extend(
                entry
                    .split(',')
                    .map(|name| name.strip_prefix('.').map_or(name.to_owned(), |under| format!("*.{under}"))),
            ),
            portable::ADDRESS if entry.contains(':') => patterns.push(format!("[{entry}]")),
            portable::ANY | portable::ADDRESS => patterns.push(entry),
            portable::NETWORK => patterns.extend(octets(&entry)),
            _ => {}
        }
    }
    options.push(format!("-Dhttp.nonProxyHosts={}", patterns.join("|")));
    options.join(" ")
}

/// A network as patterns that end at an octet, at most 64.
fn octets(network: &str) -> Vec<String> {
    let (address, length) = network.split_once('/').expect("a network");
    let [a, b, c, d] = address.parse::<std::net::Ipv4Addr>().expect("an address").octets();
    let numbers = |from: u8, free: u8| (u16::from(from)..u16::from(from) + (1 << free)).collect::<Vec<u16>>();
    match length.parse::<u8>().expect("a length") {
        length @ 2..=8 => numbers(a, 8 - length).iter().map(|a| format!("{a}.*")).collect(),
        length @ 10..=16 => numbers(b, 16 - length).iter().map(|b| format!("{a}.{b}.*")).collect(),
        length @ 18..=24 => numbers(c, 24 - length).iter().map(|c| format!("{a}.{b}.{c}.*")).collect(),
        length @ 26..=32 => numbers(d, 32 - length).iter().map(|d| format!("{a}.{b}.{c}.{d}")).collect(),
        _ => vec![],
    }
}

/// Where a proxy is, if that is clear, without user and password.
fn host_and_port(url: &str) -> Option<(String, String)> {
    let url = url.trim();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !scheme.contains([':', '/', '@', ',', ' ']) => {
            (scheme, rest)
        }
        _ => ("", url),
    };
    let rest = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(['/', '?', '#']) => return None,
        Some((_, rest)) => rest,
        None => rest,
    };
    let authority = rest.split(['/', '?', '#']).next().expect("a first part");
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_brackets..].find(':') {
        Some(colon) => authority.split_at(after_brackets + colon),
        None => (authority, ""),
    };
    let port = match port.strip_prefix(':').unwrap_or_default() {
        "" if scheme.eq_ignore_ascii_case("https") => "443",
        "" => "80",
        port => port,
    };
    let is_one_word = !host.is_empty() && !host.contains([' ', '\t', '\n', '\r', '"', '\'', '$']);
    (is_one_word && port.parse::<u16>().is_ok()).then(|| (host.to_owned(), port.to_owned()))
}

/// Rules 6, 7, 9 and 10: the value of some items, of what is derived, and of a container's own spellings.
fn united(
    family: &str,
    items: &[Item<'_>],
    presets: &[&Value],
    says: Says<'_>,
    derived: &str,
    to_the_letter: bool,
    own: &[&str],
) -> String {
    // The nearest level that says it, there the first preset.
    let form = |namespaced: bool| {
        let mut of_level = presets.iter().filter(|preset| is_namespaced(preset) == namespaced);
        of_level.find_map(|preset| preset["spec"]["noProxyForm"].as_str())
    };
    let of_cluster = || items.iter().flat_map(Item::sources).map(|source| says(text(source)));
    if family == "no_proxy" && form(true).or(form(false)) != Some("AsWritten") {
        let lists: Vec<&str> = items.iter().map(Item::value).chain(of_cluster()).collect();
        return portable::portable(&lists, own);
    }
    if family == "no_proxy" {
        let mut entries: Vec<&str> = Vec::new();
        for list in items.iter().map(Item::value).chain(of_cluster()).chain(own.iter().copied()) {
            for entry in list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
            {
                // Names of variables have a case.
                let is = |known: &&str| {
                    *known == entry || (!entry.contains("$(") && known.eq_ignore_ascii_case(entry))
                };
                if !entries.iter().any(is) {
                    entries.push(entry);
                }
            }
        }
        return entries.join(",");
    }
    if to_the_letter {
        assert!(own.is_empty(), "what replaces is not merged with the container's own");
        return items[0].value().to_owned();
    }
    let separator = items.iter().find_map(|item| item.variable["separator"].as_str()).unwrap_or(",");
    let split = |value: &str| -> Vec<String> {
        let parts: Vec<&str> =
            if separator.trim().is_empty() { vec![value] } else { value.split(separator).collect() };
        parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    // The container's own spellings, each to the letter; what is in both stands once.
    let mut tail: Vec<String> = Vec::new();
    for value in own.iter().filter(|value| !value.is_empty()) {
        if !tail.iter().any(|known| known == value) {
            tail.push((*value).to_owned());
        }
    }
    let mut entries: Vec<String> = Vec::new();
    for entry in items.iter().flat_map(|item| split(item.value())) {
        if !tail.iter().chain(&entries).any(|known| has(known, &entry, separator)) {
            entries.push(entry);
        }
    }
    let derived = (!derived.is_empty()).then(|| derived.to_owned());
    entries.into_iter().chain(derived).chain(tail).collect::<Vec<_>>().join(separator)
}

/// Whether a value has an entry already. Between white space the words of an entry stand together.
fn has(value: &str, entry: &str, separator: &str) -> bool {
    if separator.trim().is_empty() {
        (0..value.len()).any(|start| {
            value.get(start..).and_then(|rest| rest.strip_prefix(entry)).is_some_and(|rest| {
                (start == 0 || value[..start].ends_with(char::is_whitespace))
                    && (rest.is_empty() || rest.starts_with(char::is_whitespace))
            })
        })
    } else {
        value.split(separator).any(|known| known.trim() == entry)
    }
}
