//! What several presets say together, made once for each set of presets that meets in a container.
//!
//! A snapshot sees the same few sets again and again: most containers of a namespace get the same presets. A review
//! only looks up what they say; what is left to do is to let it meet the container's own variables.

use std::hash::Hasher;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::merge::{self, Outcome, Resolved, VariableConflict};
use super::pod::Container;
use super::preset::{Preset, ProxyVariable};
use super::snapshot::Derived;
use crate::api::NoProxySource;
use crate::no_proxy::portable::List;

/// Presets that apply together, and what they say.
#[derive(Debug)]
pub struct PresetSet {
    /// The presets, in order of use.
    pub presets: Box<[Arc<Preset>]>,
    /// The Services that they ask for.
    services: Option<Arc<List>>,
    /// Their variables, merged.
    pub variables: Vec<Resolved>,
    /// Items that are not followed.
    pub conflicts: Vec<VariableConflict>,
    /// What becomes of the variables in a container that has none of them.
    pub(super) bare: Vec<Outcome>,
    /// How many bytes that adds to a patch, at least.
    pub(super) bare_bytes: usize,
    /// `kind/name@generation` of each preset.
    pub(super) stamps: Box<str>,
    /// 16 hexadecimal digits over the content of the presets, in order of use.
    pub(super) hash: Box<str>,
}

/// The sets that reviews of one snapshot have met.
#[derive(Debug)]
pub struct PresetSets {
    slots: Box<[OnceLock<Box<PresetSet>>]>,
    /// Weight of the large sets among them.
    large: AtomicUsize,
}

/// A set that is kept, or one that there was no place for.
#[derive(Debug)]
pub enum Shared<'s> {
    /// It is kept.
    Kept(&'s PresetSet),
    /// It was made for this review.
    Made(Box<PresetSet>),
}

/// Sets that a snapshot keeps: a bound, because pods choose by their labels which sets there are.
const SLOTS: usize = 512;
/// Slots in which a set is looked for.
const PROBES: usize = 4;
/// Weight from which a set is large: pods of one namespace could choose as many sets as there are slots, of presets that are as
/// large as an object can be, and with all Services of the cluster in them.
const LARGE: usize = 16 * 1024;
/// What large sets that are kept may weigh together.
const LARGE_KEPT: usize = 8 * 1024 * 1024;

// === impl PresetSet ===

impl PresetSet {
    fn new(presets: &[&Arc<Preset>], derived: Derived<'_>, services: Option<&Arc<List>>) -> Self {
        let presets: Box<[Arc<Preset>]> = presets.iter().copied().map(Arc::clone).collect();
        let (variables, conflicts) = merge::resolve(&presets, derived);
        let stamps: Vec<&str> = presets.iter().map(|preset| &*preset.stamp).collect();
        let mut hasher = fnv::FnvHasher::default();
        for preset in &presets {
            hasher.write_u64(preset.digest.to_be());
        }
        let mut set = Self {
            stamps: stamps.join(",").into(),
            hash: format!("{:016x}", hasher.finish()).into(),
            services: services.cloned(),
            bare: merge::meet(&variables, &Container::default()),
            bare_bytes: 0,
            variables,
            conflicts,
            presets,
        };
        set.bare_bytes = set.bytes(&set.bare);
        set
    }

    /// How many bytes these outcomes add to a patch, at least.
    pub(super) fn bytes(&self, outcomes: &[Outcome]) -> usize {
        let of = |(variable, outcome): (&Resolved, &Outcome)| match outcome {
            Outcome::Added => variable.json.iter().map(|json| json.len()).sum(),
            Outcome::Merged { value, set, add, .. } => value.len() * (set.len() + add.len()),
            Outcome::Kept | Outcome::Unmergeable => 0,
        };
        self.variables.iter().zip(outcomes).map(of).sum()
    }

    /// About how many bytes of memory it takes: its texts, each of which is there as a value, in parts, and as JSON.
    fn weight(&self) -> usize {
        let texts: usize = self.variables.iter().map(Resolved::weight).sum();
        let bare = self.bare.iter().map(|outcome| match outcome {
            Outcome::Merged { value, .. } => value.len(),
            Outcome::Added | Outcome::Kept | Outcome::Unmergeable => 0,
        });
        texts + bare.sum::<usize>() + self.stamps.len()
    }

    fn is(&self, presets: &[&Arc<Preset>], services: Option<&Arc<List>>) -> bool {
        let same_services = match (&self.services, services) {
            (Some(own), Some(services)) => Arc::ptr_eq(own, services),
            (None, None) => true,
            _ => false,
        };
        same_services && self.has(presets)
    }

    /// Whether it is of these presets.
    pub(super) fn has(&self, presets: &[&Arc<Preset>]) -> bool {
        self.presets.len() == presets.len()
            && self.presets.iter().zip(presets).all(|(own, preset)| Arc::ptr_eq(own, preset))
    }

    /// What becomes of the variables in a container that has some of them.
    pub(super) fn meet(&self, container: &Container<'_>) -> Option<Vec<Outcome>> {
        let concerns = |name: &str| {
            ProxyVariable::of(name).is_some()
                || self.variables.iter().any(|variable| variable.identity().is(name))
        };
        let is_bare = !container.env.iter().any(|own| concerns(&own.name));
        (!is_bare).then(|| merge::meet(&self.variables, container))
    }
}

// === impl PresetSets ===

impl PresetSets {
    /// The set of these presets, given in order of use.
    pub(super) fn get<'s>(&'s self, presets: &[&'s Arc<Preset>], derived: Derived<'s>) -> Shared<'s> {
        let asks = presets.iter().any(|preset| preset.no_proxy_from.contains(&NoProxySource::Services));
        let services = derived.services().filter(|_| asks);
        let mut hasher = fnv::FnvHasher::default();
        for preset in presets {
            hasher.write_usize(Arc::as_ptr(preset).addr());
        }
        hasher.write_usize(services.map_or(0, |services| Arc::as_ptr(services).addr()));
        let first = usize::try_from(hasher.finish() >> 32).unwrap_or_default();
        let make = || Box::new(PresetSet::new(presets, derived, services));
        for probe in 0..PROBES {
            let slot = &self.slots[(first + probe) % SLOTS];
            let Some(set) = slot.get() else {
                let set = make();
                if !self.may_keep(&set) {
                    return Shared::Made(set);
                }
                // Another thread may have taken the slot meanwhile.
                return match slot.set(set) {
                    Ok(()) => Shared::Kept(slot.get().expect("it has just been set")),
                    Err(set) => Shared::Made(set),
                };
            };
            if set.is(presets, services) {
                return Shared::Kept(set);
            }
        }
        Shared::Made(make())
    }

    /// Whether there is memory to keep a set.
    fn may_keep(&self, set: &PresetSet) -> bool {
        let weight = set.weight();
        // Two that come for the same slot at once are both counted: too much rather than too little.
        let with = |kept: usize| Some(kept + weight).filter(|kept| *kept <= LARGE_KEPT);
        weight <= LARGE || self.large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }
}

impl Default for PresetSets {
    fn default() -> Self {
        let slots = std::iter::repeat_with(OnceLock::new).take(SLOTS).collect();
        Self { slots, large: AtomicUsize::default() }
    }
}

/// Another snapshot may say other things.
impl Clone for PresetSets {
    fn clone(&self) -> Self {
        Self::default()
    }
}

// === impl Shared ===

impl Deref for Shared<'_> {
    type Target = PresetSet;

    fn deref(&self) -> &PresetSet {
        match self {
            Self::Kept(set) => set,
            Self::Made(set) => set,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inject::snapshot::{ClusterLists, NamespaceEntry, NamespaceLabels, Snapshot};
    use crate::no_proxy::portable::{Author, unite};

    fn preset(number: usize, from: &[&str]) -> Arc<Preset> {
        let object = json!({
            "apiVersion": "reach.dev/v1alpha1",
            "kind": "ClusterPodPreset",
            "metadata": {"name": format!("preset-{number}"), "generation": 1},
            "spec": {
                "noProxyFrom": from,
                "env": [{"name": "no_proxy", "value": format!("host-{number}")}],
            },
        });
        Arc::new(Preset::cluster(&serde_json::from_value(object).unwrap()).unwrap())
    }

    fn snapshot() -> Snapshot {
        let entry = |service: &str| {
            Arc::new(NamespaceEntry {
                labels: Some(NamespaceLabels::default()),
                services: Arc::new(List::parse(service, Author::Preset)),
                ..NamespaceEntry::default()
            })
        };
        let namespaces = [("shop".into(), entry("mysql")), ("blog".into(), entry("redis"))];
        Snapshot::new(Arc::default(), namespaces.into(), false)
    }

    fn value(set: &PresetSet) -> &str {
        set.variables[0].value.literal().unwrap()
    }

    #[test]
    fn a_set_is_made_once_for_all_namespaces_unless_it_asks_for_their_services() {
        let snapshot = snapshot();
        let [shop, blog] = ["shop", "blog"].map(|name| snapshot.namespace(name).unwrap());
        let (plain, asking) = (preset(1, &[]), preset(2, &["Services"]));
        let get = |presets: &[&Arc<Preset>], namespace: &crate::inject::snapshot::Namespace<'_>| match shop
            .sets
            .get(presets, namespace.derived)
        {
            Shared::Kept(set) => (std::ptr::from_ref(set), value(set).to_owned()),
            Shared::Made(_) => panic!("there is a place for it"),
        };
        assert_eq!(get(&[&plain], &shop), get(&[&plain], &blog));
        assert_eq!(get(&[&plain, &asking], &shop), get(&[&plain, &asking], &shop));
        assert_eq!(get(&[&plain], &shop).1, ".host-1,host-1,localhost,127.0.0.1");
        assert_eq!(
            get(&[&plain, &asking], &shop).1,
            ".host-1,host-1,.host-2,host-2,.mysql,mysql,localhost,127.0.0.1"
        );
        assert_eq!(get(&[&asking], &blog).1, ".host-2,host-2,.redis,redis,localhost,127.0.0.1");
    }

    #[test]
    fn values_of_containers_are_united_the_same_whether_they_were_met_before_or_not() {
        let snapshot = snapshot();
        let namespace = snapshot.namespace("shop").unwrap();
        let preset = preset(1, &[]);
        let set = namespace.sets.get(&[&preset], namespace.derived);
        let of_preset = List::parse("host-1", Author::Preset);
        for round in 0..2 {
            // More than are kept, and one that is too long.
            for own in (0..9).map(|number| format!("own-{number}{}", ",x".repeat(number * 100))) {
                let pod = format!(
                    r#"{{"spec":{{"containers":[{{"env":[{{"name":"no_proxy","value":"{own}"}}]}}]}}}}"#
                );
                let pod = crate::inject::pod::Pod::from_slice(pod.as_bytes()).unwrap();
                let outcomes = set.meet(&pod.spec.as_ref().unwrap().containers[0]);
                let expected = unite([&of_preset, &List::parse(&own, Author::Pod)].into_iter());
                assert!(
                    matches!(outcomes.as_deref(), Some([Outcome::Merged { value, .. }]) if *value == expected),
                    "round {round}: {outcomes:?}"
                );
            }
        }
    }

    #[test]
    fn no_more_sets_of_large_presets_are_kept_than_there_is_memory_for() {
        let snapshot = snapshot();
        let namespace = snapshot.namespace("shop").unwrap();
        let env: Vec<_> =
            (0..64).map(|number| json!({"name": format!("V{number}"), "value": "x".repeat(LARGE)})).collect();
        let preset = |number: usize, env: &serde_json::Value| {
            let object = json!({"metadata": {"name": format!("large-{number}")}, "spec": {"env": env}});
            Arc::new(Preset::cluster(&serde_json::from_value(object).unwrap()).unwrap())
        };
        let is_kept = |preset: &Arc<Preset>| {
            let set = namespace.sets.get(&[preset], namespace.derived);
            assert!(!set.variables.is_empty());
            matches!(set, Shared::Kept(_))
        };
        // Three megabytes each: the text of each value, its entries, and its JSON.
        let large: Vec<_> = (0..6).map(|number| preset(number, &json!(env))).collect();
        assert_eq!(large.iter().map(is_kept).collect::<Vec<_>>(), [true, true, false, false, false, false]);
        assert!(is_kept(&large[0]));
        // Those that were too many take nothing from one that still fits.
        assert!(is_kept(&preset(6, &json!(env[..8]))));
        assert!(is_kept(&preset(7, &json!([{"name": "A"}]))), "small ones always are");
    }

    /// A tenant may have as many as fit into a megabyte; what is quadratic would take minutes.
    #[test]
    fn variables_that_refer_to_each_other_may_be_many() {
        let count = 20_000;
        // Each to the next one, and the last one to the first.
        let value = |number: usize| format!("$(V{})", (number + 1) % count);
        let env: Vec<_> =
            (0..count).map(|number| json!({"name": format!("V{number}"), "value": value(number)})).collect();
        let object = json!({"metadata": {"name": "many"}, "spec": {"env": env}});
        let preset = Arc::new(Preset::cluster(&serde_json::from_value(object).unwrap()).unwrap());
        let snapshot = snapshot();
        let namespace = snapshot.namespace("shop").unwrap();
        let set = namespace.sets.get(&[&preset], namespace.derived);
        let names: Vec<&str> = set.variables.iter().map(|variable| &*variable.spellings[0]).collect();
        let backwards: Vec<String> = (0..count).rev().map(|number| format!("V{number}")).collect();
        assert_eq!(names, backwards);
    }

    #[test]
    fn what_the_cluster_adds_to_small_presets_counts_too() {
        let names: Vec<String> = (0..500).map(|number| format!("service-{number}.shop")).collect();
        let all_services = List::parse(&names.join(","), Author::Preset);
        let weight = all_services.text().len() * 6;
        let derived = Arc::new(ClusterLists { all_services, ..ClusterLists::default() });
        let snapshot = snapshot().with_derived(derived);
        let namespace = snapshot.namespace("shop").unwrap();
        let presets: Vec<Arc<Preset>> = (0..SLOTS).map(|number| preset(number, &["AllServices"])).collect();
        let is_kept = |preset: &&Arc<Preset>| {
            matches!(namespace.sets.get(&[preset], namespace.derived), Shared::Kept(_))
        };
        let kept = presets.iter().filter(is_kept).count();
        assert!(kept > 50 && kept * weight < 2 * LARGE_KEPT, "{kept} sets of some {weight} bytes");
    }

    #[test]
    fn sets_that_there_is_no_place_for_say_what_they_say_all_the_same() {
        let snapshot = snapshot();
        let namespace = snapshot.namespace("shop").unwrap();
        let presets: Vec<Arc<Preset>> = (0..2 * SLOTS).map(|number| preset(number, &[])).collect();
        let mut made = 0;
        for round in 0..2 {
            for (number, preset) in presets.iter().enumerate() {
                let set = namespace.sets.get(&[preset], namespace.derived);
                let expected = format!(".host-{number},host-{number},localhost,127.0.0.1");
                assert_eq!(value(&set), expected, "round {round}");
                made += usize::from(matches!(set, Shared::Made(_)));
            }
        }
        // Those that found a place keep it.
        assert!(made >= 2 * SLOTS && made.is_multiple_of(2), "{made}");
        assert!(namespace.sets.slots.iter().filter(|slot| slot.get().is_some()).count() > SLOTS / 2);
    }
}
