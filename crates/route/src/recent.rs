//! A map that forgets what was not asked for in a long time, so that it stays below a size. Knows neither keys nor
//! values.

use std::{collections::HashMap, hash::Hash};

/// A map of so many entries at most. There are two halves: what is used moves to the young one; when that is full, it
/// becomes the old one, and what nobody used since then is gone. So every entry outlives at least half as many others.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// An empty one for so many entries, at least two.
    pub fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (entries_max / 2).max(1) }
    }

    /// The value of a key, which is young again.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.insert(key.clone(), value);
        }
        self.young.get(key)
    }

    /// Sets a value.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Changes every value; those for which `change` says no are gone.
    pub fn retain(&mut self, mut change: impl FnMut(&mut V) -> bool) {
        self.young.retain(|_, value| change(value));
        self.old.retain(|_, value| change(value));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_size_is_bounded() {
        let mut recent = Recent::new(8);
        for key in 0..1000 {
            recent.insert(key, key * 2);
            assert_eq!(recent.get(&0), Some(&0), "used all the time, at {key}");
            assert!(recent.len() <= 8, "{}", recent.len());
        }
        assert_eq!(recent.get(&999), Some(&1998));
        assert_eq!(recent.get(&500), None);
        recent.retain(|value| *value == 0);
        assert_eq!((recent.len(), recent.get(&0).copied()), (1, Some(0)));
        recent.insert(0, 5);
        assert_eq!((recent.len(), recent.get(&0).copied()), (1, Some(5)));
    }
}
