//! A number of something with its score, and the best of many. The order is total: the same scores give the same list,
//! whatever the order in which they come. Knows neither vectors nor words.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// A thing by number. Greater is better: the higher score, and of equal ones the lower number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub score: f32,
    pub id: u32,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.id.cmp(&self.id))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best of what is put in.
pub(crate) struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<Scored>>,
}

impl Best {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::with_capacity(limit + 1) }
    }

    pub(crate) fn push(&mut self, scored: Scored) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(scored));
        } else if self.heap.peek().is_some_and(|Reverse(worst)| scored > *worst) {
            self.heap.pop();
            self.heap.push(Reverse(scored));
        }
    }

    /// The worst of the best, once there are as many as asked for.
    pub(crate) fn bar(&self) -> Option<Scored> {
        self.heap.peek().filter(|_| self.heap.len() >= self.limit).map(|Reverse(worst)| *worst)
    }

    /// The best, the very best first.
    pub(crate) fn into_sorted(self) -> Vec<Scored> {
        // Ascending order of what is reversed is descending order of what is not.
        self.heap.into_sorted_vec().into_iter().map(|Reverse(scored)| scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_whatever_the_order() {
        let all = [(0.5, 3), (0.9, 7), (0.5, 1), (-0.1, 2), (0.5, 9), (0.7, 4)];
        for (limit, expected) in
            [(0, &[][..]), (1, &[7]), (3, &[7, 4, 1]), (4, &[7, 4, 1, 3]), (9, &[7, 4, 1, 3, 9, 2])]
        {
            for turn in 0..all.len() {
                let mut best = Best::new(limit);
                let mut all = all;
                all.rotate_left(turn);
                all.iter().for_each(|&(score, id)| best.push(Scored { score, id }));
                let found: Vec<u32> = best.into_sorted().iter().map(|scored| scored.id).collect();
                assert_eq!(found, expected, "{limit} of {all:?}");
            }
        }
    }
}
