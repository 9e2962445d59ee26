//! Which replica a prompt goes to: the one that has read most of it, unless it is much busier than another. Knows
//! hashes, bits and numbers: asks nobody.

use crate::recent::Recent;

/// What the home of a prompt that nobody knows counts for: less than a request, so that it decides among equals only.
const HOME_WORTH: f64 = 0.9;

/// The part of a prompt that must be known somewhere for it to count as known.
const KNOWN_MIN: f64 = 0.25;

/// A cache so full, where another has so much less in use, counts as busier by the whole margin.
const CACHE_FULL: f64 = 0.9;
const CACHE_EMPTIER: f64 = 0.3;

/// Unknown prompts that a replica can have had more than another, as far as that counts: load counts more.
const PLACED_MAX: u32 = 2;

/// A replica that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its bit.
    pub slot: u8,
    /// A hash of its address: the same in every router.
    pub name: u64,
    /// Requests under way there.
    pub load: usize,
    /// The part of its cache in use, 0 to 1.
    pub cache_use: f64,
}

/// What is known of prompts.
pub(crate) struct Affinity {
    /// The replicas that have read a block, a bit each.
    readers: Recent<u64, u64>,
    /// Prompts that were unknown and went to each replica of late, more than to that which got fewest.
    placed: [u32; 64],
    margin: f64,
    /// Blocks asked for, and those of them that the chosen replica had read.
    pub blocks: u64,
    pub known: u64,
}

impl Affinity {
    /// Remembers so many blocks; see [`crate::RouteOptions`] for the margin.
    pub fn new(blocks_max: usize, margin: f64) -> Self {
        Self { readers: Recent::new(blocks_max), placed: [0; 64], margin, blocks: 0, known: 0 }
    }

    /// The index of the replica that a prompt goes to, which is taken to have read it from now on. Nothing if there is
    /// no candidate. Without a chain, the least busy one.
    pub fn choose(&mut self, chain: &[u64], home: Option<u64>, candidates: &[Candidate]) -> Option<usize> {
        let known = self.known(chain, candidates);
        let chosen = self.cheapest(&known, chain.len(), home, candidates)?;
        let slot = candidates[chosen].slot;
        for block in chain {
            let readers = self.readers.get(block).copied().unwrap_or_default();
            if readers & (1 << slot) == 0 {
                self.readers.insert(*block, readers | (1 << slot));
            }
        }
        self.blocks += chain.len() as u64;
        self.known += known[chosen] as u64;
        Some(chosen)
    }

    /// How many blocks from the first on each candidate has read.
    fn known(&mut self, chain: &[u64], candidates: &[Candidate]) -> Vec<usize> {
        let mut known = vec![0; candidates.len()];
        let mut alive: u64 = candidates.iter().fold(0, |bits, candidate| bits | (1 << candidate.slot));
        for block in chain {
            alive &= self.readers.get(block).copied().unwrap_or_default();
            if alive == 0 {
                break;
            }
            for (count, candidate) in known.iter_mut().zip(candidates) {
                *count += usize::from(alive & (1 << candidate.slot) != 0);
            }
        }
        known
    }

    /// The candidate that costs least: its load, less what it knows of the prompt in margins.
    fn cheapest(
        &mut self,
        known: &[usize],
        blocks: usize,
        home: Option<u64>,
        candidates: &[Candidate],
    ) -> Option<usize> {
        let part = |index: usize| known[index] as f64 / blocks.max(1) as f64;
        let is_known = (0..candidates.len()).any(|index| part(index) >= KNOWN_MIN);
        let emptiest = candidates.iter().map(|candidate| candidate.cache_use).fold(1.0, f64::min);
        // Rendezvous hashing: each pair of prompt and replica has a rank that no other replica has a say in.
        let rank = |candidate: &Candidate| home.map_or(0, |home| mixed(home ^ candidate.name));
        let first = candidates.iter().map(rank).max()?;
        let cost = |index: usize| {
            let candidate = &candidates[index];
            let mut cost = candidate.load as f64 - self.margin * part(index);
            if candidate.cache_use >= CACHE_FULL && emptiest <= candidate.cache_use - CACHE_EMPTIER {
                cost += self.margin;
            }
            if !is_known {
                cost += f64::from(self.placed[usize::from(candidate.slot)]);
                if home.is_some() && rank(candidate) == first {
                    cost -= HOME_WORTH;
                }
            }
            cost
        };
        let better = |a: &usize, b: &usize| {
            let ranks = || rank(&candidates[*b]).cmp(&rank(&candidates[*a]));
            cost(*a).total_cmp(&cost(*b)).then_with(ranks)
        };
        let chosen = (0..candidates.len()).min_by(better)?;
        if !is_known {
            self.place(candidates, candidates[chosen].slot);
        }
        Some(chosen)
    }

    fn place(&mut self, candidates: &[Candidate], slot: u8) {
        self.placed[usize::from(slot)] += 1;
        let least = candidates.iter().map(|candidate| self.placed[usize::from(candidate.slot)]).min().unwrap_or(0);
        for candidate in candidates {
            let placed = &mut self.placed[usize::from(candidate.slot)];
            *placed = (*placed - least).min(PLACED_MAX);
        }
    }

    /// A replica has lost what it had read, or is another one now.
    pub fn forget(&mut self, slot: u8) {
        self.placed[usize::from(slot)] = 0;
        self.readers.retain(|readers| {
            *readers &= !(1 << slot);
            *readers != 0
        });
    }

    /// Blocks that are remembered.
    pub fn len(&self) -> usize {
        self.readers.len()
    }
}

/// A hash of a number (the end of splitmix64).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(loads: &[usize]) -> Vec<Candidate> {
        let of = |(slot, load): (usize, &usize)| Candidate {
            slot: slot as u8,
            name: mixed(slot as u64 + 99),
            load: *load,
            cache_use: 0.0,
        };
        loads.iter().enumerate().map(of).collect()
    }

    /// A chain of a prompt: some blocks that many have, then some of its own.
    fn prompt(shared: u64, blocks: u64, own: u64, of_own: u64) -> Vec<u64> {
        (0..blocks).map(|i| mixed(shared * 1000 + i)).chain((0..of_own).map(|i| mixed(own * 1_000_003 + i))).collect()
    }

    #[test]
    fn the_longest_match_unless_it_is_much_busier() {
        let chain = prompt(1, 10, 5, 10);
        for (loads, extra, expected) in [
            ([0, 0, 0], 0, 1),
            ([0, 8, 0], 0, 1),
            ([0, 9, 3], 0, 0),
            ([9, 16, 8], 0, 1),
            ([9, 17, 8], 0, 2),
            // Half of another prompt is known: half of the margin.
            ([0, 4, 9], 7, 1),
            ([0, 5, 9], 7, 0),
        ] {
            let mut affinity = Affinity::new(1 << 10, 8.0);
            assert_eq!(affinity.choose(&chain, Some(3), &candidates(&[5, 0, 5])), Some(1));
            let chain = if extra == 0 { chain.clone() } else { prompt(1, 10, extra, 10) };
            assert_eq!(affinity.choose(&chain, Some(3), &candidates(&loads)), Some(expected), "{loads:?} {extra}");
        }
    }

    #[test]
    fn a_hot_prompt_spreads_and_stays_known_where_it_was() {
        let (mut affinity, chain) = (Affinity::new(1 << 10, 8.0), prompt(1, 20, 0, 0));
        let mut loads = [0; 3];
        for _ in 0..30 {
            loads[affinity.choose(&chain, Some(1), &candidates(&loads)).unwrap()] += 1;
        }
        assert!(loads.iter().all(|load| (5..=14).contains(load)), "{loads:?}");
        // All have read it now, and the least busy one is taken.
        assert_eq!(affinity.choose(&chain, Some(1), &candidates(&[2, 1, 2])), Some(1));
        // One hot replica does not switch it off for other prompts.
        let other = prompt(2, 20, 0, 0);
        assert_eq!(affinity.choose(&other, Some(2), &candidates(&[50, 0, 3])), Some(1));
        assert_eq!(affinity.choose(&other, Some(2), &candidates(&[50, 4, 0])), Some(1));
    }

    #[test]
    fn unknown_prompts_spread_and_a_new_router_sends_them_alike() {
        let place = |count: u64| {
            let mut affinity = Affinity::new(1 << 12, 8.0);
            let all = candidates(&[0; 4]);
            let send = |i| affinity.choose(&prompt(i, 8, 0, 0), Some(mixed(i)), &all).unwrap();
            (0..count).map(send).collect::<Vec<usize>>()
        };
        let placed = place(64);
        assert_eq!(placed, place(64));
        let counts: Vec<usize> = (0..4).map(|i| placed.iter().filter(|place| **place == i).count()).collect();
        assert!(counts.iter().all(|count| (15..=17).contains(count)), "{counts:?}");
        // No fixed place wins a tie, and the home of a prompt is where it goes unless that has had more of late.
        let all = candidates(&[0; 4]);
        let alone = |i: u64| Affinity::new(8, 8.0).choose(&[i], Some(mixed(i)), &all).unwrap();
        let homes: Vec<usize> = (0..64).map(alone).collect();
        assert!((0..4).all(|i| homes.iter().filter(|home| **home == i).count() > 5), "{homes:?}");
        let kept = placed.iter().zip(&homes).filter(|(placed, home)| placed == home).count();
        assert!(kept >= 32, "{kept} of 64 at home");
    }

    #[test]
    fn without_a_prompt_the_least_busy_in_turn() {
        let mut affinity = Affinity::new(8, 8.0);
        assert_eq!(affinity.choose(&[], None, &candidates(&[2, 3, 0])), Some(2));
        let (mut affinity, mut counts) = (Affinity::new(8, 8.0), [0; 3]);
        for _ in 0..30 {
            counts[affinity.choose(&[], None, &candidates(&[0; 3])).unwrap()] += 1;
        }
        assert_eq!(counts, [10; 3]);
        assert_eq!(affinity.choose(&[], None, &[]), None);
    }

    #[test]
    fn a_full_cache_counts() {
        let (mut affinity, chain) = (Affinity::new(64, 8.0), prompt(1, 20, 0, 0));
        let mut all = candidates(&[0, 1]);
        assert_eq!(affinity.choose(&chain, None, &all), Some(0));
        (all[0].cache_use, all[0].load) = (0.95, 2);
        assert_eq!(affinity.choose(&chain, None, &all), Some(1), "0.95 against 0");
        let mut affinity = Affinity::new(64, 8.0);
        assert_eq!(affinity.choose(&chain, None, &candidates(&[0, 1])), Some(0));
        all[1].cache_use = 0.9;
        assert_eq!(affinity.choose(&chain, None, &all), Some(0), "both are full");
    }

    #[test]
    fn what_a_replica_lost_is_forgotten_and_memory_is_bounded() {
        let (mut affinity, chain) = (Affinity::new(100, 8.0), prompt(1, 10, 0, 0));
        assert_eq!(affinity.choose(&chain, None, &candidates(&[0, 1])), Some(0));
        affinity.forget(0);
        assert_eq!((affinity.len(), affinity.choose(&chain, None, &candidates(&[1, 0]))), (0, Some(1)));
        for i in 0..1000 {
            affinity.choose(&prompt(i, 10, 0, 0), Some(i), &candidates(&[0, 0]));
            assert!(affinity.len() <= 100);
        }
    }
}
