//! Conversations that a client of the Agent Protocol opened and has not used yet. A conversation with runs is known by
//! them; one without holds nothing but its name and notes, and is kept in memory only: it is gone after a restart.

use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// So many are kept, of all tenants together, the newest ones.
pub(crate) const OPENED_MAX: usize = 2_000;

/// A conversation without runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Empty {
    pub tenant: String,
    pub thread: String,
    pub metadata: Map<String, Value>,
    pub at_ms: u64,
}

/// Those that are known.
#[derive(Default)]
pub(crate) struct Opened(Mutex<VecDeque<Empty>>);

impl Opened {
    fn list(&self) -> MutexGuard<'_, VecDeque<Empty>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, in place of one of the same name.
    pub fn put(&self, empty: Empty) {
        let mut list = self.list();
        list.retain(|known| known.tenant != empty.tenant || known.thread != empty.thread);
        if list.len() == OPENED_MAX {
            list.pop_front();
        }
        list.push_back(empty);
    }

    /// One of a tenant's.
    pub fn get(&self, tenant: &str, thread: &str) -> Option<Empty> {
        self.list().iter().find(|known| known.tenant == tenant && known.thread == thread).cloned()
    }

    /// All of a tenant's, the newest first.
    pub fn of(&self, tenant: &str) -> Vec<Empty> {
        self.list().iter().rev().filter(|known| known.tenant == tenant).cloned().collect()
    }

    /// Forgets one.
    pub fn remove(&self, tenant: &str, thread: &str) {
        self.list().retain(|known| known.tenant != tenant || known.thread != thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_tenants_see_their_own() {
        let opened = Opened::default();
        let empty = |tenant: &str, number: usize| Empty {
            tenant: tenant.into(),
            thread: number.to_string(),
            metadata: Map::new(),
            at_ms: number as u64,
        };
        opened.put(empty("b", 0));
        (0..OPENED_MAX).for_each(|number| opened.put(empty("a", number)));
        assert_eq!(opened.get("b", "0"), None);
        assert_eq!(opened.of("a").len(), OPENED_MAX);
        opened.put(empty("b", 5));
        assert_eq!(opened.of("b"), [empty("b", 5)]);
        assert_eq!((opened.get("a", "0"), opened.of("a")[0].at_ms), (None, OPENED_MAX as u64 - 1));
        opened.remove("b", "5");
        assert_eq!(opened.get("b", "5"), None);
    }
}
