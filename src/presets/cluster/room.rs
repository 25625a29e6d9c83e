//! The PodPresets of the cluster, and which of a namespace are used when together they weigh more than they may: a tenant's
//! presets must not take the memory that every other tenant's pods depend on.
//!
//! Those that were made first are used, as far as there is room. That depends on nothing but what there is, so replicas agree
//! whenever and in whatever order they hear of it, and a new preset takes the place of none. Of those that are left out nothing
//! is kept but what they weigh; when there is room for one again, it has to be read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::source::Key;
use super::status::{Said, Seen};
use super::store::Store;
use crate::inject::preset::Preset;

/// What the presets of one namespace may weigh together. A patch has a quarter of that at most.
pub(super) const MAX_WEIGHT: usize = 1024 * 1024;
/// What is kept of those of one namespace while they are listed.
const MAX_LISTED: usize = 2 * MAX_WEIGHT;

/// What is known of a preset.
#[derive(Debug)]
pub(super) struct Known {
    /// The preset, if it is used.
    pub preset: Option<Arc<Preset>>,
    /// Nothing if it cannot be used.
    weight: u32,
    created: i64,
    /// There is room for it.
    fits: bool,
    said: Said,
}

/// PodPresets.
#[derive(Debug, Default)]
pub(super) struct Room {
    store: Store<Key, Known>,
    /// What those of each namespace weigh, with those that are left out.
    weights: HashMap<Box<str>, usize>,
    /// What is kept of those of each namespace while they are listed.
    listed: HashMap<Box<str>, usize>,
    /// Namespaces in which there is no room for all.
    crowds: HashMap<Box<str>, Crowd>,
    /// Namespaces in which there may be room for others than before.
    unweighed: BTreeSet<Box<str>>,
    /// Those for which there is room and that have to be read.
    wanted: BTreeSet<Key>,
}

/// Presets of a namespace that are used.
#[derive(Debug, Default)]
struct Crowd {
    weight: usize,
    /// When the one was made that was made last, and its name.
    last: (i64, Box<str>),
}

// === impl Known ===

impl Known {
    pub fn new(preset: Option<Arc<Preset>>, created: i64, said: Said) -> Self {
        let weight = |preset: &Arc<Preset>| u32::try_from(preset.weight.max(1)).unwrap_or(u32::MAX);
        Self { weight: preset.as_ref().map_or(0, weight), preset, created, fits: true, said }
    }

    pub fn seen(&self, key: Key) -> Seen {
        let is_too_much = !self.fits;
        Seen { key, is_too_much, is_news: self.said.is_news(is_too_much) }
    }

    fn weight(&self) -> usize {
        self.weight as usize
    }

    fn leave_out(&mut self, key: &Key) {
        self.preset = None;
        if std::mem::take(&mut self.fits) {
            tracing::error!(namespace = %key.0, name = %key.1, most = MAX_WEIGHT, "preset left out: those of its namespace have too many bytes together; make it or older ones smaller, or delete some");
        }
    }
}

impl PartialEq for Known {
    /// Every other event of a preset is about what reach has written into its status, which makes no difference.
    fn eq(&self, other: &Self) -> bool {
        (&self.preset, self.weight, self.created, self.fits)
            == (&other.preset, other.weight, other.created, other.fits)
    }
}

// === impl Room ===

impl Room {
    pub fn current(&self) -> &HashMap<Key, Known> {
        &self.store.current
    }

    /// Applies an event; returns whether anything is different.
    pub fn update(&mut self, mut event: Event<(Key, Known)>) -> bool {
        match &mut event {
            Event::Apply((key, known)) => {
                if known.preset.is_some() || known.weight == 0 {
                    self.wanted.remove(key);
                }
                self.note(key, known);
            }
            Event::Delete((key, _)) => {
                self.wanted.remove(key);
                let old = self.store.current.get(key).map_or((0, false), |old| (old.weight(), old.fits));
                self.add(key, old.0, 0, old.1);
            }
            Event::Init => self.listed.clear(),
            Event::InitApply((key, known)) => {
                let namespace = key.0.clone();
                let listed = self.listed.entry(namespace.clone()).or_default();
                *listed += known.weight();
                let is_much = *listed > MAX_LISTED;
                self.store.apply(event);
                if is_much {
                    let kept = self.thin_out(&namespace);
                    self.listed.insert(namespace, kept);
                }
                return false;
            }
            Event::InitDone => self.note_all(),
        }
        self.store.update(event)
    }

    /// Notes what a preset weighs now. Where many are left out, what makes no difference to the others costs nothing.
    fn note(&mut self, key: &Key, known: &mut Known) {
        let old = self.store.current.get(key);
        known.fits = known.weight == 0 || old.is_none_or(|old| old.fits);
        let before = old.map_or(0, Known::weight);
        let stays = match old {
            Some(old) if old.weight > 0 && old.created == known.created => {
                // As large as it was, it is still too much.
                old.weight == known.weight || (!old.fits && old.weight < known.weight)
            }
            _ => false,
        };
        let is_new = old.is_none();
        if stays && !known.fits {
            known.preset = None;
        }
        // Younger than all that are used, it is in the place of none.
        let crowd = self
            .crowds
            .get_mut(&key.0)
            .filter(|crowd| is_new && (known.created, &key.1) > (crowd.last.0, &crowd.last.1));
        let is_youngest = crowd.is_some();
        if let Some(crowd) = crowd {
            if crowd.weight + known.weight() <= MAX_WEIGHT {
                crowd.weight += known.weight();
                crowd.last = (known.created, key.1.clone());
            } else {
                known.leave_out(key);
            }
        }
        self.add(key, before, known.weight(), !stays && !is_youngest);
    }

    /// Adds to what a namespace weighs, which may make a difference to others in it.
    fn add(&mut self, key: &Key, before: usize, weight: usize, is_change: bool) {
        let all = self.weights.entry(key.0.clone()).or_default();
        let with = all.saturating_sub(before) + weight;
        if is_change && with.max(*all) > MAX_WEIGHT {
            self.crowds.remove(&key.0);
            self.unweighed.insert(key.0.clone());
        }
        *all = with;
        if with == 0 {
            self.weights.remove(&key.0);
        }
        if with <= MAX_WEIGHT {
            self.crowds.remove(&key.0);
        }
    }

    /// The same of all that have been listed.
    fn note_all(&mut self) {
        self.listed = HashMap::new();
        self.weights.clear();
        self.crowds.clear();
        self.unweighed.clear();
        self.wanted.clear();
        let (current, listing) = self.store.both();
        for (key, known) in listing.into_iter().flatten() {
            // What has been said of it.
            known.fits = known.weight == 0 || current.get(key).is_none_or(|old| old.fits);
            let all = self.weights.entry(key.0.clone()).or_default();
            *all += known.weight();
            if *all > MAX_WEIGHT || !known.fits || (known.preset.is_none() && known.weight > 0) {
                self.unweighed.insert(key.0.clone());
            }
        }
    }

    /// Keeps of what has been listed of a namespace what may be used; returns what that weighs.
    fn thin_out(&mut self, namespace: &str) -> usize {
        let (_, listing) = self.store.both();
        let listing = listing.into_iter().flatten();
        let of = |(key, known): &(&Key, &mut Known)| *key.0 == *namespace && known.preset.is_some();
        by_age(&mut listing.filter(of).collect::<Vec<_>>(), |_, known, fits| {
            if !fits {
                known.preset = None;
            }
        })
    }

    /// Decides which presets are used; returns those of which that is another decision than before.
    pub fn weigh(&mut self) -> Vec<Key> {
        let namespaces = std::mem::take(&mut self.unweighed);
        let mut changed = Vec::new();
        if namespaces.is_empty() {
            return changed;
        }
        let mut presets: HashMap<&str, Vec<(&Key, &mut Known)>> = HashMap::new();
        for (key, known) in &mut self.store.current {
            if known.weight > 0 && namespaces.contains(&key.0) {
                presets.entry(&key.0).or_default().push((key, known));
            }
        }
        for (namespace, presets) in &mut presets {
            let mut crowd = Crowd::default();
            let mut all = 0;
            crowd.weight = by_age(presets, |key, known, fits| {
                all += known.weight();
                if known.fits != fits {
                    changed.push(key.clone());
                }
                if fits {
                    known.fits = true;
                    crowd.last = (known.created, key.1.clone());
                    if known.preset.is_none() {
                        self.wanted.insert(key.clone());
                    }
                } else {
                    known.leave_out(key);
                    self.wanted.remove(key);
                }
            });
            if all > MAX_WEIGHT {
                self.crowds.insert((*namespace).into(), crowd);
            }
        }
        changed
    }

    /// Some for which there is room and that have to be read.
    pub fn wanted(&self, most: usize) -> Vec<Key> {
        self.wanted.iter().take(most).cloned().collect()
    }

    pub fn is_complete(&self) -> bool {
        self.wanted.is_empty()
    }

    /// It is gone, which its watch says, too.
    pub fn is_gone(&mut self, key: &Key) {
        self.wanted.remove(key);
    }
}

/// Goes through presets of a namespace, the first that was made first, with whether there is room for each; returns what those
/// weigh for which there is.
fn by_age(presets: &mut [(&Key, &mut Known)], mut each: impl FnMut(&Key, &mut Known, bool)) -> usize {
    presets.sort_unstable_by(|(a, x), (b, y)| (x.created, &a.1).cmp(&(y.created, &b.1)));
    let mut all = 0;
    for (key, known) in presets {
        let with = all + known.weight();
        let fits = with <= MAX_WEIGHT;
        if fits {
            all = with;
        }
        each(key, known, fits);
    }
    all
}
