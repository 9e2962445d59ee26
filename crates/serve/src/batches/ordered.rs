//! Things with names in the order in which they came, and pages of them. Knows no disk.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Names of removed things that can still be the end of a page: a client may delete what it lists while it lists.
const GONE_MAX: usize = 10_000;

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Paging {
    /// Things at most.
    pub limit: usize,
    /// The last thing of the page before.
    pub after: Option<String>,
    /// Whether the newest come first.
    pub newest_first: bool,
}

/// Things by name and by number; numbers rise.
pub(crate) struct Ordered<T> {
    things: BTreeMap<u64, T>,
    numbers: HashMap<String, u64>,
    gone: VecDeque<(String, u64)>,
}

impl<T> Ordered<T> {
    pub fn new() -> Self {
        Self { things: BTreeMap::new(), numbers: HashMap::new(), gone: VecDeque::new() }
    }

    /// The number of the next thing: above those of all that are there or have been.
    pub fn next_number(&self) -> u64 {
        let last = self.things.keys().next_back().into_iter().chain(self.gone.iter().map(|(_, number)| number)).max();
        last.map_or(0, |number| number.saturating_add(1))
    }

    pub fn insert(&mut self, id: &str, number: u64, thing: T) {
        self.numbers.insert(id.into(), number);
        self.things.insert(number, thing);
    }

    pub fn get(&self, id: &str) -> Option<&T> {
        self.things.get(self.numbers.get(id)?)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.things.get_mut(self.numbers.get(id)?)
    }

    pub fn remove(&mut self, id: &str) -> Option<T> {
        let number = self.numbers.remove(id)?;
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((id.into(), number));
        self.things.remove(&number)
    }

    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// All, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.values()
    }

    /// One page of what `keep` keeps, and whether there is more; nothing if nobody knows what it should come after.
    pub fn page(&self, paging: &Paging, keep: impl Fn(&T) -> bool) -> Option<(Vec<&T>, bool)> {
        let after = match &paging.after {
            None => None,
            Some(id) => Some(self.number_of(id)?),
        };
        let mut page: Vec<&T> = if paging.newest_first {
            let things = self.things.range(..after.unwrap_or(u64::MAX)).rev().map(|(_, thing)| thing);
            things.filter(|thing| keep(thing)).take(paging.limit + 1).collect()
        } else {
            let first = after.map_or(0, |number| number.saturating_add(1));
            let things = self.things.range(first..).map(|(_, thing)| thing);
            things.filter(|thing| keep(thing)).take(paging.limit + 1).collect()
        };
        let more = page.len() > paging.limit;
        page.truncate(paging.limit);
        Some((page, more))
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        let gone = || self.gone.iter().rev().find(|(name, _)| name == id).map(|(_, number)| *number);
        self.numbers.get(id).copied().or_else(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let mut things = Ordered::new();
        assert_eq!(things.next_number(), 0);
        for name in ["a", "b", "c", "d", "e", "f"] {
            things.insert(name, things.next_number(), name);
        }
        assert_eq!((things.remove("c"), things.remove("f"), things.remove("f")), (Some("c"), Some("f"), None));
        assert_eq!((things.next_number(), things.len(), things.get("c")), (6, 4, None));
        let all = |_: &&str| true;
        let some = |name: &&str| *name != "b";
        let check = |limit, after: &str, newest_first, expected: Option<(&str, bool)>| {
            let after = (!after.is_empty()).then(|| after.to_string());
            let paging = Paging { limit, after, newest_first };
            let shown = |page: Option<(Vec<&&str>, bool)>| {
                page.map(|(page, more)| (page.into_iter().copied().collect::<String>(), more))
            };
            assert_eq!(
                shown(things.page(&paging, all)),
                expected.map(|(names, more)| (names.into(), more)),
                "{paging:?}"
            );
            let few = shown(things.page(&Paging { limit: 9, ..paging.clone() }, some));
            assert!(few.is_none_or(|(names, more)| !names.contains('b') && !more));
        };
        for (limit, after, newest_first, expected) in [
            (9, "", false, Some(("abde", false))),
            (4, "", false, Some(("abde", false))),
            (3, "", false, Some(("abd", true))),
            (2, "b", false, Some(("de", false))),
            (1, "b", false, Some(("d", true))),
            (9, "c", false, Some(("de", false))),
            (9, "e", false, Some(("", false))),
            (9, "f", false, Some(("", false))),
            (9, "x", false, None),
            (9, "", true, Some(("edba", false))),
            (2, "", true, Some(("ed", true))),
            (2, "d", true, Some(("ba", false))),
            (1, "c", true, Some(("b", true))),
            (9, "f", true, Some(("edba", false))),
            (9, "a", true, Some(("", false))),
            (9, "x", true, None),
        ] {
            check(limit, after, newest_first, expected);
        }
    }
}
