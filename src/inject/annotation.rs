//! What is left behind on the pod: three annotations, and admission warnings that say the same.

use std::borrow::Cow;

use super::merge::LeftOut;
use super::pod::Pod;
use super::{Plan, SkipReason, Skipped, java};

/// Presets applied, `kind/name@generation` in order of use.
pub const PRESETS: &str = "reach.dev/presets";
/// Digest of everything those presets inject, to see drift later.
pub const HASH: &str = "reach.dev/hash";
/// Presets, or parts of them, that were not applied, and why.
pub const SKIPPED: &str = "reach.dev/skipped";

/// The annotations to write; `None` when those on the pod need no change.
///
/// `unchanged` says that nothing else of the pod changes. The wording in `reach.dev/skipped` depends on
/// what stands in the way at the time, so an injected pod that comes by again keeps the wording it has.
pub(super) fn wanted<'p>(
    plan: &'p Plan<'_>,
    pod: &Pod<'_>,
    unchanged: bool,
) -> Option<Vec<(&'static str, Cow<'p, str>)>> {
    let applied = &plan.sets[0];
    if !plan.annotate || (applied.presets.is_empty() && plan.skipped.is_empty()) {
        return None;
    }
    let mut annotations: Vec<(&'static str, Cow<'p, str>)> = Vec::with_capacity(3);
    if !applied.presets.is_empty() {
        annotations.push((PRESETS, (&*applied.stamps).into()));
        annotations.push((HASH, (&*applied.hash).into()));
        let stamped = annotations.iter().all(|(key, value)| pod.annotation(key) == Some(value));
        if unchanged && stamped {
            return None;
        }
    }
    let skipped = skipped(plan);
    // What another pod was told, of which this one is a copy, is not so here.
    if !skipped.is_empty() || pod.annotation(SKIPPED).is_some() {
        annotations.push((SKIPPED, skipped.into()));
    }
    annotations.retain(|(key, value)| pod.annotation(key) != Some(value));
    (!annotations.is_empty()).then_some(annotations)
}

fn skipped(plan: &Plan<'_>) -> String {
    let presets = plan.skipped.iter().map(|skipped| format!("{}: {}", skipped.preset.stamp, skipped.reason));
    let conflicts = plan.conflicts();
    let variables = conflicts.iter().map(|conflict| {
        format!("{}: variable {} {}", conflict.loser.preset.stamp, conflict.variable(), conflict.why())
    });
    let names = plan.without_names.then(|| WITHOUT_NAMES.to_owned());
    names.into_iter().chain(presets).chain(variables).collect::<Vec<_>>().join("; ")
}

/// What is said of a pod for which a list with all names was too long.
const WITHOUT_NAMES: &str = "Services and Nodes of noProxyFrom: the patch would be too long";

/// Whether an earlier review of this pod has left them out: it needs less now that it has the rest, and is not to get in one
/// variable what another one is without.
#[must_use]
pub fn was_without_names(plan: &Plan<'_>, pod: &Pod<'_>) -> bool {
    let applied = &plan.sets[0];
    plan.annotate
        && pod.annotation(SKIPPED).is_some_and(|skipped| skipped.starts_with(WITHOUT_NAMES))
        && pod.annotation(PRESETS) == Some(&applied.stamps)
        && pod.annotation(HASH) == Some(&applied.hash)
}

/// Admission warnings: one short line each, no values.
#[must_use]
pub fn warnings(plan: &Plan<'_>, pod: &Pod<'_>) -> Vec<String> {
    let mut warnings: Vec<String> =
        plan.without_names.then(|| format!("reach: left out: {WITHOUT_NAMES}")).into_iter().collect();
    let skipped = plan.skipped.iter();
    warnings
        .extend(skipped.map(|Skipped { preset, reason }| format!("reach: {preset} not applied: {reason}")));
    warnings.extend(plan.conflicts().iter().map(|conflict| format!("reach: {conflict}")));
    let unmergeable = plan.unmergeable(pod).map(|(container, variable)| {
        format!("reach: variable {variable} of container {container} has valueFrom: left as it is")
    });
    warnings.extend(unmergeable);
    for (what, left_out) in [
        (LeftOut::Names, "is without Services and Nodes of noProxyFrom"),
        (LeftOut::Everything, "does not get the proxy"),
    ] {
        let too_long = plan.left_out(pod, what).map(|(container, variable)| {
            format!(
                "reach: variable {variable} of container {container} {left_out}: with more than {} bytes Java 8 would ignore all of it",
                java::LONGEST
            )
        });
        warnings.extend(too_long);
    }
    warnings
}

impl std::fmt::Display for SkipReason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::VolumeTaken(volume) => write!(f, "volume {volume} is taken by different content"),
            Self::VolumeMissing(volume) => {
                write!(f, "volume {volume} is not in the pod and cannot be added to it now")
            }
            Self::MountTaken { path, container } => {
                write!(f, "mount path {path} in container {container} is taken")
            }
            Self::SubPath { path, container } => {
                write!(
                    f,
                    "mount path {path} has a subPath, which ephemeral container {container} cannot have"
                )
            }
        }
    }
}
