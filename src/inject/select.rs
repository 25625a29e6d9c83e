//! Which presets concern a pod: label selectors, and an index over them.
//!
//! Selectors are compiled once per change of a preset. The index posts each preset under one label that
//! its selector demands, so that a review looks only at presets that may match, however many there are.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::preset::Preset;

/// Labels of an object.
pub trait Labels {
    /// The value of a label, if the object has it.
    fn label(&self, key: &str) -> Option<&str>;
    /// Every label.
    fn labels(&self) -> impl Iterator<Item = (&str, &str)>;
}

/// A compiled `LabelSelector` (core/v1 semantics: all requirements hold; an empty one matches all).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Box<[Requirement]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Box<str>, Box<[Box<str>]>),
    NotIn(Box<str>, Box<[Box<str>]>),
    Exists(Box<str>),
    DoesNotExist(Box<str>),
}

/// A selector that Kubernetes would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// An operator that does not exist.
    #[error("unknown operator {0:?}: write In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("operator {0} needs values: add at least one")]
    NoValues(String),
}

/// The presets of one level, in order of use, with an index.
#[derive(Clone, Debug, Default)]
pub struct Level {
    presets: Box<[Arc<Preset>]>,
    /// Only where it saves something: namespaces are many, and most have few presets.
    index: Option<Box<Index>>,
}

/// Where presets stand that a pod may be selected by.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Positions by a label that the selector of the namespace demands.
    by_namespace: Postings,
    /// Positions by a label that the selector of the pod demands.
    by_pod: Postings,
    /// Positions of presets that demand no particular label.
    rest: Vec<u32>,
}

type Postings = HashMap<Box<str>, HashMap<Box<str>, Vec<u32>>>;

/// Up to this many presets are looked at one by one; an index of so few costs more than it saves.
const UNINDEXED: usize = 8;

// === impl Selector ===

impl Selector {
    /// Compiles a selector.
    ///
    /// # Errors
    /// If it has an unknown operator, or `In`/`NotIn` without values.
    pub fn compile(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        if let Some(selector) = selector {
            for (key, value) in selector.match_labels.iter().flatten() {
                requirements.push(Requirement::In(key.as_str().into(), Box::new([value.as_str().into()])));
            }
            for expression in selector.match_expressions.iter().flatten() {
                let key = expression.key.as_str().into();
                let values: Box<[Box<str>]> =
                    expression.values.iter().flatten().map(|value| value.as_str().into()).collect();
                requirements.push(match expression.operator.as_str() {
                    "In" | "NotIn" if values.is_empty() => {
                        return Err(SelectorError::NoValues(expression.operator.clone()));
                    }
                    "In" => Requirement::In(key, values),
                    "NotIn" => Requirement::NotIn(key, values),
                    "Exists" => Requirement::Exists(key),
                    "DoesNotExist" => Requirement::DoesNotExist(key),
                    other => return Err(SelectorError::Operator(other.to_owned())),
                });
            }
        }
        Ok(Self { requirements: requirements.into() })
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                labels.label(key).is_some_and(|value| values.iter().any(|wanted| **wanted == *value))
            }
            // As in Kubernetes, an absent label is not in any list.
            Requirement::NotIn(key, values) => {
                labels.label(key).is_none_or(|value| values.iter().all(|unwanted| **unwanted != *value))
            }
            Requirement::Exists(key) => labels.label(key).is_some(),
            Requirement::DoesNotExist(key) => labels.label(key).is_none(),
        })
    }

    /// A label with its possible values without which nothing is selected.
    fn demanded(&self) -> Option<(&str, &[Box<str>])> {
        self.requirements.iter().find_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((&**key, &**values)),
            _ => None,
        })
    }
}

// === impl Level ===

impl Level {
    /// Puts presets of one level in [order of use](Preset::order_of_use) and indexes them.
    #[must_use]
    pub fn new(mut presets: Vec<Arc<Preset>>) -> Self {
        presets.sort_by(|a, b| a.order_of_use(b));
        let index = Index::new(&presets).map(Box::new);
        Self { presets: presets.into(), index }
    }

    /// The presets, in order of use.
    #[must_use]
    pub fn presets(&self) -> &[Arc<Preset>] {
        &self.presets
    }

    /// Adds the presets that select the pod to `found`, in order of use.
    pub fn select<'s>(
        &'s self,
        namespace: &impl Labels,
        pod: &impl Labels,
        found: &mut Vec<&'s Arc<Preset>>,
    ) {
        let fits =
            |preset: &Preset| preset.namespace_selector.matches(namespace) && preset.selector.matches(pod);
        let Some(index) = &self.index else {
            found.extend(self.presets.iter().filter(|preset| fits(preset)));
            return;
        };
        let mut positions = index.rest.clone();
        collect(&index.by_namespace, namespace, &mut positions);
        collect(&index.by_pod, pod, &mut positions);
        positions.retain(|&position| fits(&self.presets[position as usize]));
        positions.sort_unstable();
        found.extend(positions.into_iter().map(|position| &self.presets[position as usize]));
    }
}

// === impl Index ===

impl Index {
    /// `None` for so few presets that it costs more than it saves, and for those of which each has to be looked at anyhow.
    fn new(presets: &[Arc<Preset>]) -> Option<Self> {
        if presets.len() <= UNINDEXED {
            return None;
        }
        let mut index = Self::default();
        for (position, preset) in (0..).zip(presets) {
            if let Some((key, values)) = preset.namespace_selector.demanded() {
                post(&mut index.by_namespace, key, values, position);
            } else if let Some((key, values)) = preset.selector.demanded() {
                post(&mut index.by_pod, key, values, position);
            } else {
                index.rest.push(position);
            }
        }
        (index.rest.len() < presets.len()).then_some(index)
    }
}

fn post(postings: &mut Postings, key: &str, values: &[Box<str>], position: u32) {
    let by_value = postings.entry(key.into()).or_default();
    for value in values {
        let positions = by_value.entry(value.clone()).or_default();
        // A value may stand twice in one `In`.
        if positions.last() != Some(&position) {
            positions.push(position);
        }
    }
}

fn collect(postings: &Postings, labels: &impl Labels, positions: &mut Vec<u32>) {
    if postings.is_empty() {
        return;
    }
    for (key, value) in labels.labels() {
        if let Some(found) = postings.get(key).and_then(|by_value| by_value.get(value)) {
            positions.extend(found);
        }
    }
}
