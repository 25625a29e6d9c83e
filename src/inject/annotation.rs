//! What is left behind on the pod: three annotations, and admission warnings that say the same.

use std::fmt::Write;
use std::hash::Hasher;

use super::merge::{ConflictReason, VariableConflict};
use super::pod::Pod;
use super::{Plan, SkipReason, Skipped};

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
pub(super) fn wanted(plan: &Plan<'_>, pod: &Pod<'_>, unchanged: bool) -> Option<Vec<(&'static str, String)>> {
    if !plan.annotate || (plan.applied.is_empty() && plan.skipped.is_empty()) {
        return None;
    }
    let mut annotations = Vec::with_capacity(3);
    if !plan.applied.is_empty() {
        let stamps: Vec<&str> = plan.applied.iter().map(|preset| &*preset.stamp).collect();
        annotations.push((PRESETS, stamps.join(",")));
        annotations.push((HASH, hash(plan)));
        let stamped = annotations.iter().all(|(key, value)| pod.annotation(key) == Some(value));
        if unchanged && stamped {
            return None;
        }
    }
    let skipped = skipped(plan);
    if !skipped.is_empty() {
        annotations.push((SKIPPED, skipped));
    }
    annotations.retain(|(key, value)| pod.annotation(key) != Some(value));
    (!annotations.is_empty()).then_some(annotations)
}

/// 16 hexadecimal digits over the content of the presets applied, in order of use.
fn hash(plan: &Plan<'_>) -> String {
    let mut hasher = fnv::FnvHasher::default();
    for preset in &plan.applied {
        hasher.write_u64(preset.digest.to_be());
    }
    format!("{:016x}", hasher.finish())
}

fn skipped(plan: &Plan<'_>) -> String {
    let presets = plan.skipped.iter().map(|skipped| format!("{}: {}", skipped.preset.stamp, skipped.reason));
    let variables = plan.conflicts.iter().map(|conflict| {
        format!("{}: variable {} {}", conflict.loser.stamp, conflict.variable, explanation(conflict))
    });
    presets.chain(variables).collect::<Vec<_>>().join("; ")
}

/// Why a variable of a preset is not followed.
fn explanation(conflict: &VariableConflict<'_>) -> String {
    match conflict.reason {
        ConflictReason::Differs => format!("differs from that of {}", conflict.winner),
        ConflictReason::Unmergeable => format!("cannot be merged with that of {}", conflict.winner),
    }
}

/// Admission warnings: one short line each, no values.
#[must_use]
pub fn warnings(plan: &Plan<'_>, pod: &Pod<'_>) -> Vec<String> {
    let mut warnings: Vec<String> = plan
        .skipped
        .iter()
        .map(|Skipped { preset, reason }| format!("reach: {preset} not applied: {reason}"))
        .collect();
    for conflict in &plan.conflicts {
        let VariableConflict { winner, loser, variable, .. } = conflict;
        warnings.push(format!(
            "reach: variable {variable} of {loser} {}; {winner} is followed",
            explanation(conflict)
        ));
    }
    for (container, variable) in plan.unmergeable(pod) {
        let mut line = String::new();
        let _ =
            write!(line, "reach: variable {variable} of container {container} has valueFrom: left as it is");
        warnings.push(line);
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
