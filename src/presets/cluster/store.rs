//! Objects of a watch.

use std::collections::HashMap;
use std::hash::Hash;

use kube::runtime::watcher::Event;

/// Objects of one watch. While it lists again after a gap, the old ones stay until the list is complete.
#[derive(Debug)]
pub(super) struct Store<K, V> {
    pub current: HashMap<K, V>,
    listing: Option<HashMap<K, V>>,
}

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self { current: HashMap::new(), listing: None }
    }
}

impl<K: Eq + Hash, V> Store<K, V> {
    /// What there is, and what has been listed so far.
    pub fn both(&mut self) -> (&HashMap<K, V>, Option<&mut HashMap<K, V>>) {
        (&self.current, self.listing.as_mut())
    }

    /// Applies an event; returns whether everything may have changed.
    pub fn apply(&mut self, event: Event<(K, V)>) -> bool {
        match event {
            Event::Apply((key, value)) => {
                self.current.insert(key, value);
            }
            Event::Delete((key, _)) => {
                self.current.remove(&key);
            }
            Event::Init => self.listing = Some(HashMap::new()),
            Event::InitApply((key, value)) => {
                self.listing.get_or_insert_default().insert(key, value);
            }
            Event::InitDone => {
                self.current = self.listing.take().unwrap_or_default();
                return true;
            }
        }
        false
    }
}

impl<K: Eq + Hash, V: PartialEq> Store<K, V> {
    /// Applies an event; returns whether anything is different. Nodes report every few minutes, and say nothing new.
    pub fn update(&mut self, event: Event<(K, V)>) -> bool {
        let differs = match &event {
            Event::Apply((key, value)) => self.current.get(key) != Some(value),
            Event::Delete((key, _)) => self.current.contains_key(key),
            Event::Init | Event::InitApply(_) => false,
            Event::InitDone => self.listing.as_ref() != Some(&self.current),
        };
        self.apply(event);
        differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_a_change() {
        let mut store = Store::default();
        let list = |store: &mut Store<_, _>, items: &[(&'static str, u32)]| {
            assert!(!store.update(Event::Init));
            for item in items {
                assert!(!store.update(Event::InitApply(*item)));
            }
            store.update(Event::InitDone)
        };
        assert!(list(&mut store, &[("a", 1), ("b", 2)]));
        assert!(!list(&mut store, &[("b", 2), ("a", 1)]), "listed again after a gap");
        assert!(!store.update(Event::Apply(("a", 1))));
        assert!(store.update(Event::Apply(("a", 3))));
        assert!(store.update(Event::Delete(("a", 0))));
        assert!(!store.update(Event::Delete(("a", 0))));
        assert!(list(&mut store, &[]));
        assert!(store.current.is_empty());
    }
}
