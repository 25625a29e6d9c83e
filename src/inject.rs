//! The engine: a pod and the presets in, what to add out.
//!
//! Pure: no clock, no I/O, no logging. [`plan`] decides, [`patch::write`] writes the decision as RFC
//! 6902 operations, and everything that shows or applies injection (the webhook, `reach inject`,
//! `reach explain`) goes through the two.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::api::INJECTION_LABEL;

pub mod annotation;
pub mod defaults;
pub mod java;
pub mod json;
pub mod merge;
pub mod patch;
pub mod pod;
pub mod preset;
pub mod select;
pub mod set;
pub mod snapshot;
pub mod workload;

use self::merge::{LeftOut, Outcome, Resolved, VariableConflict};
use self::pod::{Container, List, MAX_PARSED, Pod, Spec, Text, items};
use self::preset::{EnvFrom, EnvFromKey, Mount, Preset, PresetLevel, Volume, normal_path};
use self::set::{PresetSets, Shared};
use self::snapshot::{Derived, Namespace};

/// What a request asks to inject into.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A pod that is being created, or the template of one.
    Pod,
    /// The ephemeral containers of a running pod; those with these names are there already.
    EphemeralContainers(&'a [Text<'a>]),
}

/// Why a pod is left alone altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftAlone {
    /// A mirror pod: the API's picture of a static pod, which must not change.
    Mirror,
    /// The namespace is labelled `reach.dev/injection: disabled`.
    NamespaceOptOut,
    /// The pod is labelled so, or has the opt-out annotation of Kubernetes < 1.20.
    PodOptOut,
    /// No preset selects it.
    NoPreset,
    /// What it would get is more than may be.
    TooLarge,
}

/// The pod has something where core/v1 wants something else.
#[derive(Debug, thiserror::Error)]
#[error("{field}: expected a list of a length that a pod can have")]
pub struct Unreadable {
    field: Cow<'static, str>,
    // Not in the message: it may show a value.
    source: serde_json::Error,
}

/// One of the three lists of containers of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerList {
    /// `initContainers`
    Init,
    /// `containers`
    Regular,
    /// `ephemeralContainers`
    Ephemeral,
}

/// Everything that is decided about a pod.
#[derive(Debug)]
pub struct Plan<'s> {
    /// Presets not applied at all.
    pub skipped: Vec<Skipped<'s>>,
    /// The presets applied, and then the smaller sets of containers that some of them exclude.
    pub sets: Vec<Shared<'s>>,
    /// What each container gets.
    pub containers: Vec<ContainerPlan<'s>>,
    /// Volumes that are added.
    pub volumes: Vec<&'s Volume>,
    /// Whether Services and Nodes of `noProxyFrom` were left out, since the patch would be too long with them.
    pub without_names: bool,
    /// Whether the pod's annotations may be written.
    annotate: bool,
}

/// What one container gets.
#[derive(Debug)]
pub struct ContainerPlan<'s> {
    /// The list it is in.
    pub list: ContainerList,
    /// Its position there.
    pub index: usize,
    /// Position in [`Plan::sets`].
    pub set: usize,
    /// What becomes of each variable of the set; `None` when the container has none of them.
    own: Option<Vec<Outcome>>,
    /// Entries that are appended to `envFrom`.
    pub env_from: Vec<&'s EnvFrom>,
    /// Mounts that are appended.
    pub mounts: Vec<&'s Mount>,
    /// Whether there are entries to append to.
    has_env_from: bool,
    has_mounts: bool,
}

/// A preset that is not applied to a pod.
#[derive(Debug)]
pub struct Skipped<'s> {
    /// The preset.
    pub preset: &'s Preset,
    /// Why.
    pub reason: SkipReason<'s>,
}

/// Why a preset is not applied to a pod. A proxy without its CA is worse than none, so one conflict
/// keeps the whole preset out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason<'s> {
    /// The pod, or an earlier preset, has a volume of this name with different content.
    VolumeTaken(&'s str),
    /// A volume is needed that cannot be added to a running pod.
    VolumeMissing(&'s str),
    /// Something else is mounted there.
    MountTaken {
        /// The path.
        path: &'s str,
        /// The container.
        container: String,
    },
    /// Ephemeral containers may not have mounts with a `subPath`.
    SubPath {
        /// The path.
        path: &'s str,
        /// The container.
        container: String,
    },
}

/// The label value, on a namespace or pod, that switches injection off.
const DISABLED: &str = "disabled";
/// Marks mirror pods (`kubernetes.io/config.mirror` of core/v1).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The opt-out of the PodPreset of Kubernetes < 1.20.
const OLD_OPT_OUT: &str = "podpreset.admission.kubernetes.io/exclude";

/// Decides what a pod gets.
///
/// `namespace` is the one of the request. The outer error says that the pod cannot be read; the inner
/// one why it is left alone.
///
/// # Errors
/// If the pod has a list of volumes, mounts or `envFrom` that is none.
pub fn plan<'s>(
    namespace: &Namespace<'s>,
    pod: &Pod<'_>,
    target: Target<'_>,
) -> Result<Result<Plan<'s>, LeftAlone>, Unreadable> {
    plan_within(namespace, pod, target, usize::MAX)
}

/// [`plan`], which ends as soon as the values of variables alone would make a patch of more than `most` bytes: how many
/// containers there are is up to who makes the pod.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_within<'s>(
    namespace: &Namespace<'s>,
    pod: &Pod<'_>,
    target: Target<'_>,
    most: usize,
) -> Result<Result<Plan<'s>, LeftAlone>, Unreadable> {
    if pod.annotation(MIRROR).is_some() {
        return Ok(Err(LeftAlone::Mirror));
    }
    if namespace.label(INJECTION_LABEL) == Some(DISABLED) {
        return Ok(Err(LeftAlone::NamespaceOptOut));
    }
    if pod.label(INJECTION_LABEL) == Some(DISABLED) || pod.annotation(OLD_OPT_OUT) == Some("true") {
        return Ok(Err(LeftAlone::PodOptOut));
    }
    let none = pod::TextMap::default();
    let labels = pod.metadata.as_ref().map_or(&none, |metadata| &metadata.labels);
    let mut presets = namespace.select(labels);
    let containers = targets(pod, target);
    presets.retain(|preset| containers.iter().any(|(_, _, container)| !preset.excludes(&container.name)));
    if presets.is_empty() {
        return Ok(Err(LeftAlone::NoPreset));
    }
    let plan = decide(&presets, namespace.sets, namespace.derived, pod, &containers, (target, most))?;
    Ok(plan.ok_or(LeftAlone::TooLarge))
}

type Targets<'p, 'a> = Vec<(ContainerList, usize, &'p Container<'a>)>;

/// The containers that may be injected into.
fn targets<'p, 'a>(pod: &'p Pod<'a>, target: Target<'_>) -> Targets<'p, 'a> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let lists: &[ContainerList] = match target {
        Target::Pod => &[ContainerList::Init, ContainerList::Regular, ContainerList::Ephemeral],
        Target::EphemeralContainers(_) => &[ContainerList::Ephemeral],
    };
    let is_new = |container: &Container<'_>| match target {
        Target::Pod => true,
        Target::EphemeralContainers(old) => !old.contains(&container.name),
    };
    let mut found = Vec::with_capacity(4);
    for list in lists {
        for (index, container) in list.of(spec).iter().enumerate() {
            if is_new(container) {
                found.push((*list, index, container));
            }
        }
    }
    found
}

fn decide<'s>(
    presets: &[&'s Arc<Preset>],
    sets: &'s PresetSets,
    derived: Derived<'s>,
    pod: &Pod<'_>,
    containers: &Targets<'_, '_>,
    (target, most): (Target<'_>, usize),
) -> Result<Option<Plan<'s>>, Unreadable> {
    let mut storage = Storage::read(presets, pod, containers, target)?;
    // The more specific level takes its places first, so that what a preset of the cluster may have
    // depends on those of the namespace and never the other way round: deciding again, with an injected
    // pod, cannot come out differently.
    let split = presets.partition_point(|preset| preset.level == PresetLevel::Cluster);
    let (cluster, namespaced) = presets.split_at(split);
    let namespaced: Vec<_> = namespaced.iter().map(|preset| storage.take(preset, containers)).collect();
    let cluster: Vec<_> = cluster.iter().map(|preset| storage.take(preset, containers)).collect();
    let (mut applied, mut skipped) = (Vec::with_capacity(presets.len()), Vec::new());
    for (preset, taken) in presets.iter().zip(cluster.into_iter().chain(namespaced)) {
        match taken {
            Ok(()) => applied.push(*preset),
            Err(reason) => skipped.push(Skipped { preset, reason }),
        }
    }
    let mut plan = Plan {
        skipped,
        sets: vec![sets.get(&applied, derived)],
        containers: Vec::with_capacity(containers.len()),
        volumes: storage.added_volumes(&applied),
        without_names: false,
        annotate: matches!(target, Target::Pod),
    };
    let mut bytes = 0;
    for (position, &(list, index, container)) in containers.iter().enumerate() {
        let is_here = |preset: &&'s Arc<Preset>| !preset.excludes(&container.name);
        let fewer: Vec<&'s Arc<Preset>>;
        let (here, set) = if applied.iter().all(is_here) {
            (&applied, 0)
        } else {
            fewer = applied.iter().copied().filter(is_here).collect();
            let set = plan.sets.iter().position(|set| set.has(&fewer)).unwrap_or_else(|| {
                plan.sets.push(sets.get(&fewer, derived));
                plan.sets.len() - 1
            });
            (&fewer, set)
        };
        if here.is_empty() {
            continue;
        }
        let own = plan.sets[set].meet(container);
        bytes += own.as_deref().map_or(plan.sets[set].bare_bytes, |own| plan.sets[set].bytes(own));
        if bytes > most {
            return Ok(None);
        }
        let (has_env_from, env_from) = missing_env_from(here, container)?;
        let (has_mounts, mounts) = storage.added_mounts(position, here);
        plan.containers.push(ContainerPlan {
            list,
            index,
            set,
            own,
            env_from,
            mounts,
            has_env_from,
            has_mounts,
        });
    }
    Ok(Some(plan))
}

/// The entries of `envFrom` that a container lacks, and whether it has any.
fn missing_env_from<'s>(
    presets: &[&'s Arc<Preset>],
    container: &Container<'_>,
) -> Result<(bool, Vec<&'s EnvFrom>), Unreadable> {
    if presets.iter().all(|preset| preset.env_from.is_empty()) {
        return Ok((false, Vec::new()));
    }
    let own = items(container.env_from).map_err(|source| unreadable("envFrom", container, source))?;
    let own_keys: Vec<EnvFromKey> = own.iter().map(EnvFromKey::of).collect();
    let mut missing: Vec<&'s EnvFrom> = Vec::new();
    for entry in presets.iter().flat_map(|preset| &*preset.env_from) {
        if !own_keys.contains(&entry.key) && missing.iter().all(|known| known.key != entry.key) {
            missing.push(entry);
        }
    }
    Ok((!own.is_empty(), missing))
}

fn unreadable(field: &str, container: &Container<'_>, source: serde_json::Error) -> Unreadable {
    Unreadable { field: format!("{field} of container {}", &*container.name).into(), source }
}

/// Volumes and mounts while presets take their places, one after the other.
struct Storage<'s> {
    /// Names and canonical forms of the pod's own volumes.
    own_volumes: Vec<(String, Value)>,
    taken_volumes: Vec<(&'s Volume, PresetLevel)>,
    /// Per target container.
    containers: Vec<ContainerStorage<'s>>,
    /// Whether volumes can still be added to the pod.
    growing: bool,
}

#[derive(Default)]
struct ContainerStorage<'s> {
    /// Paths and canonical forms of the container's own mounts; a block device is `null`.
    own: Vec<(Box<str>, Value)>,
    has_mounts: bool,
    taken: Vec<&'s Mount>,
}

impl<'s> Storage<'s> {
    /// Reads the pod's volumes and mounts, if a preset has some.
    fn read(
        presets: &[&'s Arc<Preset>],
        pod: &Pod<'_>,
        containers: &Targets<'_, '_>,
        target: Target<'_>,
    ) -> Result<Self, Unreadable> {
        let mut storage = Self {
            own_volumes: Vec::new(),
            taken_volumes: Vec::new(),
            containers: Vec::new(),
            growing: matches!(target, Target::Pod),
        };
        if presets.iter().any(|preset| !preset.volumes.is_empty()) {
            let volumes = items(pod.spec.as_ref().and_then(|spec| spec.volumes))
                .map_err(|source| Unreadable { field: "spec.volumes".into(), source })?;
            storage.own_volumes = volumes
                .into_iter()
                .map(|volume| {
                    (volume["name"].as_str().unwrap_or_default().to_owned(), defaults::volume(volume))
                })
                .collect();
        }
        if presets.iter().any(|preset| !preset.mounts.is_empty()) {
            let lists = containers
                .iter()
                .flat_map(|(_, _, container)| [container.volume_mounts, container.volume_devices]);
            if lists.flatten().map(|raw| raw.0.len()).sum::<usize>() > MAX_PARSED {
                let source = serde::de::Error::custom("too long");
                return Err(Unreadable { field: "volumeMounts".into(), source });
            }
            for (_, _, container) in containers {
                storage.containers.push(ContainerStorage::read(container)?);
            }
        }
        Ok(storage)
    }

    /// Gives a preset its volumes and mounts, all or none.
    fn take(&mut self, preset: &'s Preset, containers: &Targets<'_, '_>) -> Result<(), SkipReason<'s>> {
        for volume in &preset.volumes {
            self.check_volume(volume, preset)?;
        }
        if !preset.mounts.is_empty() {
            let lengths: Vec<usize> = self.containers.iter().map(|container| container.taken.len()).collect();
            for (storage, (list, _, container)) in self.containers.iter_mut().zip(containers) {
                if preset.excludes(&container.name) {
                    continue;
                }
                let result = preset.mounts.iter().try_for_each(|mount| storage.take(mount, *list, container));
                if let Err(reason) = result {
                    for (storage, length) in self.containers.iter_mut().zip(lengths) {
                        storage.taken.truncate(length);
                    }
                    return Err(reason);
                }
            }
        }
        for volume in &preset.volumes {
            if self.taken(&volume.name).is_none() {
                self.taken_volumes.push((volume, preset.level));
            }
        }
        Ok(())
    }

    /// The volume of a name that presets have taken.
    fn taken(&self, name: &str) -> Option<(&'s Volume, PresetLevel)> {
        self.taken_volumes.iter().find(|(volume, _)| *volume.name == *name).copied()
    }

    fn check_volume(&self, volume: &'s Volume, preset: &'s Preset) -> Result<(), SkipReason<'s>> {
        let own = self.own_volumes.iter().find(|(name, _)| **name == *volume.name).map(|(_, own)| own);
        let needed = || preset.mounts.iter().any(|mount| mount.volume == volume.name);
        if own.is_none() && !self.growing && needed() {
            return Err(SkipReason::VolumeMissing(&volume.name));
        }
        let taken = self.taken(&volume.name);
        // A volume of the namespace takes the place of the cluster's.
        if taken.is_some_and(|(_, level)| level != preset.level) {
            return Ok(());
        }
        let other = own.or(taken.map(|(other, _)| &other.canonical).filter(|_| self.growing));
        if other.is_some_and(|other| *other != volume.canonical) {
            return Err(SkipReason::VolumeTaken(&volume.name));
        }
        Ok(())
    }

    /// The volumes of the presets applied that the pod lacks, in order of use.
    fn added_volumes(&self, applied: &[&'s Arc<Preset>]) -> Vec<&'s Volume> {
        let mut added: Vec<&'s Volume> = Vec::new();
        if !self.growing {
            return added;
        }
        for volume in applied.iter().flat_map(|preset| &*preset.volumes) {
            let own = self.own_volumes.iter().any(|(name, _)| **name == *volume.name);
            if !own && added.iter().all(|known| known.name != volume.name) {
                added.push(self.taken(&volume.name).map_or(volume, |(taken, _)| taken));
            }
        }
        added
    }

    /// The mounts of the presets applied that a target container lacks, in order of use, and whether it
    /// has any.
    fn added_mounts(&self, position: usize, applied: &[&'s Arc<Preset>]) -> (bool, Vec<&'s Mount>) {
        let Some(container) = self.containers.get(position) else {
            return (false, Vec::new());
        };
        let mut added: Vec<&'s Mount> = Vec::new();
        for mount in applied.iter().flat_map(|preset| &*preset.mounts) {
            let own = container.own.iter().any(|(path, _)| *path == mount.path);
            if !own && added.iter().all(|known| known.path != mount.path) {
                added.push(mount);
            }
        }
        (container.has_mounts, added)
    }
}

impl<'s> ContainerStorage<'s> {
    fn read(container: &Container<'_>) -> Result<Self, Unreadable> {
        let mounts =
            items(container.volume_mounts).map_err(|source| unreadable("volumeMounts", container, source))?;
        let devices = items(container.volume_devices)
            .map_err(|source| unreadable("volumeDevices", container, source))?;
        let has_mounts = !mounts.is_empty();
        let path = |item: &Value, field: &str| normal_path(item[field].as_str().unwrap_or_default());
        let own = mounts
            .into_iter()
            .map(|mount| (path(&mount, "mountPath"), defaults::mount(mount)))
            .chain(devices.iter().map(|device| (path(device, "devicePath"), Value::Null)))
            .collect();
        Ok(Self { own, has_mounts, taken: Vec::new() })
    }

    fn take(
        &mut self,
        mount: &'s Mount,
        list: ContainerList,
        container: &Container<'_>,
    ) -> Result<(), SkipReason<'s>> {
        if let Some((_, own)) = self.own.iter().find(|(path, _)| *path == mount.path) {
            return if *own == mount.canonical { Ok(()) } else { Err(mount.conflict(container)) };
        }
        if let Some(other) = self.taken.iter().find(|other| other.path == mount.path) {
            return if other.canonical == mount.canonical { Ok(()) } else { Err(mount.conflict(container)) };
        }
        if mount.sub_path && list == ContainerList::Ephemeral {
            return Err(SkipReason::SubPath { path: &mount.path, container: container.name.to_string() });
        }
        self.taken.push(mount);
        Ok(())
    }
}

impl Mount {
    fn conflict(&self, container: &Container<'_>) -> SkipReason<'_> {
        SkipReason::MountTaken { path: &self.path, container: container.name.to_string() }
    }
}

// === impl ContainerList ===

impl ContainerList {
    /// The field of a pod's spec.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }

    /// The list itself.
    #[must_use]
    pub fn of<'p, 'a>(self, spec: &'p Spec<'a>) -> &'p List<Container<'a>> {
        match self {
            Self::Init => &spec.init_containers,
            Self::Regular => &spec.containers,
            Self::Ephemeral => &spec.ephemeral_containers,
        }
    }
}

// === impl Plan ===

impl Plan<'_> {
    /// The presets applied, in order of use.
    #[must_use]
    pub fn applied(&self) -> &[Arc<Preset>] {
        &self.sets[0].presets
    }

    /// The variables of a container, and what becomes of each.
    pub fn variables<'p>(
        &'p self,
        planned: &'p ContainerPlan<'_>,
    ) -> impl Iterator<Item = (&'p Resolved, &'p Outcome)> {
        let set = &self.sets[planned.set];
        set.variables.iter().zip(planned.own.as_ref().unwrap_or(&set.bare))
    }

    /// Variables of applied presets that are not followed.
    #[must_use]
    pub fn conflicts(&self) -> Vec<&VariableConflict> {
        let mut conflicts: Vec<&VariableConflict> = Vec::new();
        let used = |set: &usize| self.containers.iter().any(|planned| planned.set == *set);
        for set in (0..self.sets.len()).filter(used) {
            for conflict in &self.sets[set].conflicts {
                if conflicts.iter().all(|known| !known.is(conflict)) {
                    conflicts.push(conflict);
                }
            }
        }
        conflicts
    }

    /// Containers and variables whose own value comes from elsewhere and so could not be merged.
    pub fn unmergeable<'p>(&'p self, pod: &'p Pod<'_>) -> impl Iterator<Item = (&'p str, &'p str)> {
        self.outcomes(pod, |outcome| *outcome == Outcome::Unmergeable)
    }

    /// Containers and variables that would be too long with all that is derived for them, and so are without this.
    pub fn left_out<'p>(
        &'p self,
        pod: &'p Pod<'_>,
        what: LeftOut,
    ) -> impl Iterator<Item = (&'p str, &'p str)> {
        self.outcomes(pod, move |outcome| outcome.left_out() == what)
    }

    /// Containers and variables that come out so.
    fn outcomes<'p>(
        &'p self,
        pod: &'p Pod<'_>,
        is: impl Fn(&Outcome) -> bool + Copy + 'p,
    ) -> impl Iterator<Item = (&'p str, &'p str)> {
        self.containers.iter().flat_map(move |planned| {
            let name = pod
                .spec
                .as_ref()
                .and_then(|spec| planned.list.of(spec).get(planned.index))
                .map_or("", |container| &container.name);
            self.variables(planned)
                .filter(move |(_, outcome)| is(outcome))
                .map(move |(variable, _)| (name, variable.identity().key()))
        })
    }
}
