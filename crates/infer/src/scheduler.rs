//! Which sequences run next, how much of each, and where their keys and values lie. Pure: tokens and block numbers in,
//! a list of work out. It knows no tensors, no clocks and no threads.
//!
//! There are no phases: a sequence has tokens (its prompt, then what was sampled) of which some are computed, and each
//! step brings it closer within one budget of tokens. Sequences that run come first, in the order in which they were
//! admitted; then those that wait, if all their tokens fit the pool. Every sequence that generates gets its token
//! first; while they are the majority, the rest of the step is kept short for their sake. Where a running sequence
//! needs a block and there is none, the last admitted gives its blocks back and computes them again later (vLLM's
//! recomputation; mostly the prefix cache still has them).
//!
//! A sequence may ask for positions of tokens that are only guessed ([`Scheduler::propose`]). They get what nobody else
//! wants of a step, never push anybody out, and count as computed only when the sampled tokens turn out to be the same.

use crate::BlockPool;
use narthex_base::Digest;
use narthex_kernels::KV_BLOCK;
use std::collections::{BTreeMap, HashMap};

/// Names a sequence.
pub type SequenceId = u64;

/// Who goes first among those that wait, and last among those that must make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In the order of arrival.
    #[default]
    Fcfs,
    /// Lower numbers of `priority` first, then in the order of arrival.
    Priority,
}

/// The limits of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run at once.
    pub sequences_max: usize,
    /// Tokens in a step.
    pub step_tokens_max: usize,
    /// Tokens of one sequence in a step.
    pub chunk_tokens_max: usize,
    /// Blocks in the pool.
    pub blocks: usize,
    /// Whether full blocks are found again by later sequences.
    pub prefix_cache: bool,
    /// The order.
    pub policy: Policy,
}

/// The share of a step that prompts get while as many sequences generate as read their prompts, or more, unless one
/// step reads them all: a long step delays every token of the many for the first one of the few.
const MINORITY_SHARE: usize = 6;

/// What is left of a step.
struct Budget {
    tokens: usize,
    /// Of them, for sequences that read their prompts.
    prompt_tokens: usize,
}

impl Budget {
    /// How many of these tokens of one sequence fit.
    fn grant(&self, wanted: usize, chunk_tokens_max: usize) -> usize {
        let most = if wanted == 1 { self.tokens } else { self.tokens.min(self.prompt_tokens) };
        wanted.min(most).min(chunk_tokens_max)
    }

    fn spend(&mut self, wanted: usize, granted: usize) {
        self.tokens -= granted;
        if wanted > 1 {
            self.prompt_tokens -= granted;
        }
    }
}

/// A sequence that arrives.
#[derive(Clone, Debug, Default)]
pub struct NewSequence {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// Lower numbers go first, if the policy asks for it.
    pub priority: i64,
    /// Only sequences with the same salt share blocks.
    pub salt: Option<String>,
    /// Every position must be computed in its own name: nothing is taken from the cache.
    pub compute_all: bool,
}

/// A sequence's part in a step: positions `first..end` of its tokens, and as many behind them as there are proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Which.
    pub id: SequenceId,
    /// The first position.
    pub first: usize,
    /// The position behind the last.
    pub end: usize,
    /// Positions behind that for tokens that are guessed.
    pub proposed: usize,
}

impl Work {
    /// Rows of the step.
    pub fn rows(&self) -> usize {
        self.end - self.first + self.proposed
    }
}

/// What the next step has to do without proposals, as far as can be told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Rows of tokens that are there.
    pub rows: usize,
    /// Rows that are left.
    pub spare: usize,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sequences that had to make room.
    pub preemptions: u64,
    /// Tokens looked up in the prefix cache.
    pub cache_queries: u64,
    /// Tokens found there.
    pub cache_hits: u64,
}

#[derive(Debug)]
struct Entry {
    tokens: Vec<u32>,
    /// Positions whose keys and values are in the blocks, or will be after this step.
    computed: usize,
    blocks: Vec<u32>,
    /// What the full blocks of `tokens` hold, as far as anybody asked.
    contents: Vec<Digest>,
    /// Blocks of which the pool knows what they hold.
    remembered: usize,
    salt: Option<Digest>,
    compute_all: bool,
    place: Place,
    /// Guesses that the step computes and that no sampled token has met yet.
    guesses: Vec<u32>,
}

/// Where a sequence stands in line.
type Place = (i64, SequenceId);

impl Entry {
    /// Tokens that are still to be computed.
    fn missing(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The digest of the first `count` full blocks: of the last one and all before it.
    fn content(&mut self, block: usize) -> Digest {
        while self.contents.len() <= block {
            let start = self.contents.len() * KV_BLOCK;
            let parent = self.contents.last().or(self.salt.as_ref());
            let mut bytes: Vec<u8> = parent.map_or_else(String::new, Digest::to_string).into_bytes();
            bytes.extend(self.tokens[start..start + KV_BLOCK].iter().flat_map(|token| token.to_le_bytes()));
            self.contents.push(Digest::of(&bytes));
        }
        self.contents[block]
    }
}

/// The sequences of an engine.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    entries: HashMap<SequenceId, Entry>,
    /// In the order of admission.
    running: Vec<SequenceId>,
    waiting: BTreeMap<Place, SequenceId>,
    arrived: SequenceId,
    counters: Counters,
    step: Vec<Work>,
    /// Proposals that the next step is asked for.
    proposals: HashMap<SequenceId, usize>,
}

impl Scheduler {
    /// Nothing to do yet.
    ///
    /// # Panics
    /// If a limit is 0.
    pub fn new(limits: Limits) -> Self {
        let Limits { sequences_max, step_tokens_max, chunk_tokens_max, blocks, .. } = limits;
        assert!(
            sequences_max > 0 && step_tokens_max > 0 && chunk_tokens_max > 0 && blocks > 0,
            "limits are at least 1"
        );
        Self {
            limits,
            pool: BlockPool::new(blocks),
            entries: HashMap::new(),
            running: vec![],
            waiting: BTreeMap::new(),
            arrived: 0,
            counters: Counters::default(),
            step: vec![],
            proposals: HashMap::new(),
        }
    }

    /// Tokens that the longest sequence may have: it must fit the pool alone.
    pub fn tokens_max(&self) -> usize {
        self.limits.blocks * KV_BLOCK
    }

    /// Queues a sequence.
    ///
    /// # Panics
    /// If it has no tokens, or more than [`Scheduler::tokens_max`].
    pub fn add(&mut self, new: NewSequence) -> SequenceId {
        assert!(!new.tokens.is_empty() && new.tokens.len() <= self.tokens_max(), "a sequence fits the pool");
        let id = self.arrived;
        self.arrived += 1;
        let place = (if self.limits.policy == Policy::Priority { new.priority } else { 0 }, id);
        let entry = Entry {
            tokens: new.tokens,
            computed: 0,
            blocks: vec![],
            contents: vec![],
            remembered: 0,
            salt: new.salt.map(|salt| Digest::of(salt.as_bytes())),
            compute_all: new.compute_all,
            place,
            guesses: vec![],
        };
        self.entries.insert(id, entry);
        self.waiting.insert(place, id);
        id
    }

    /// Decides the next step: what is in it counts as computed from now on, so it must run before the next call.
    /// Empty only if there are no sequences.
    pub fn step(&mut self) -> &[Work] {
        let mut step = std::mem::take(&mut self.step);
        step.clear();
        let mut budget = self.budget();
        let preempted = self.continue_running(&mut step, &mut budget);
        // Nobody makes room from here on, so what is in the step will be computed.
        step.iter().for_each(|work| self.remember(work.id));
        if !preempted {
            self.admit(&mut step, &mut budget);
            self.extend(&mut step, budget.tokens);
        }
        self.proposals.clear();
        self.step = step;
        &self.step
    }

    /// Asks for this many positions behind a sequence's tokens in the next step, for tokens that are guessed. It may
    /// get fewer.
    pub fn propose(&mut self, id: SequenceId, count: usize) {
        self.proposals.insert(id, count);
    }

    /// Says which tokens the proposed positions of a step hold: at most as many as it was given. Must be said before
    /// the step's tokens are pushed.
    pub fn guess(&mut self, id: SequenceId, tokens: Vec<u32>) {
        let entry = self.entries.get_mut(&id).expect("guesses are about sequences in hand");
        debug_assert!(entry.blocks.len() * KV_BLOCK >= entry.computed + tokens.len(), "guesses have their blocks");
        entry.guesses = tokens;
    }

    /// The guesses of the step under way that no sampled token has met yet.
    pub fn guesses(&self, id: SequenceId) -> &[u32] {
        &self.entries[&id].guesses
    }

    /// The sequences that run and lack their last token only, in the order of admission.
    pub fn generating(&self) -> impl Iterator<Item = SequenceId> {
        self.running.iter().copied().filter(|id| self.entries[id].missing() == 1)
    }

    /// What the next step has to do.
    pub fn outlook(&self) -> Outlook {
        let generating = self.generating().count();
        let (_, missing) = self.readers();
        let Budget { tokens, prompt_tokens } = self.budget();
        let rows = (generating + missing.min(prompt_tokens)).min(tokens);
        Outlook { rows, spare: tokens - rows }
    }

    /// How many read their prompts or could begin to, and how many tokens they lack.
    fn readers(&self) -> (usize, usize) {
        let places = self.limits.sequences_max - self.running.len();
        let running = self.running.iter().filter(|id| self.entries[*id].missing() != 1);
        let readers = running.chain(self.waiting.values().take(places)).map(|id| self.entries[id].missing());
        readers.fold((0, 0), |(count, sum), missing| (count + 1, sum + missing))
    }

    /// The tokens of a step.
    fn budget(&self) -> Budget {
        let tokens = self.limits.step_tokens_max;
        let generating = self.generating().count();
        let (reading, missing) = self.readers();
        let long = reading > generating || reading == generating && missing + generating <= tokens;
        let share = if long { tokens } else { tokens.div_ceil(MINORITY_SHARE) };
        Budget { tokens, prompt_tokens: share.min(tokens.saturating_sub(generating)) }
    }

    /// Adds work for those that run. Returns whether somebody had to make room.
    fn continue_running(&mut self, step: &mut Vec<Work>, budget: &mut Budget) -> bool {
        let mut preempted = false;
        let mut i = 0;
        while i < self.running.len() && budget.tokens > 0 {
            let id = self.running[i];
            let entry = &self.entries[&id];
            let (first, have) = (entry.computed, entry.blocks.len());
            let wanted = entry.missing();
            let end = first + budget.grant(wanted, self.limits.chunk_tokens_max);
            let missing = end.div_ceil(KV_BLOCK).saturating_sub(have);
            if missing > self.pool.free() {
                let victim = self.victim();
                preempted = true;
                // Nobody else gets what it had of the step: the next one comes soon.
                step.retain(|work| work.id != self.running[victim]);
                // The others move up by one; if it was this one itself, the next stands here now.
                i -= usize::from(victim < i);
                self.preempt(victim);
                continue;
            }
            if end > first {
                let entry = self.entries.get_mut(&id).expect("a running sequence has an entry");
                entry.blocks.extend((0..missing).map(|_| self.pool.take().expect("free blocks were counted")));
                entry.computed = end;
                budget.spend(wanted, end - first);
                step.push(Work { id, first, end, proposed: 0 });
            }
            i += 1;
        }
        preempted
    }

    /// Adds work for those that wait, as far as they fit.
    fn admit(&mut self, step: &mut Vec<Work>, budget: &mut Budget) {
        while budget.tokens.min(budget.prompt_tokens) > 0 && self.running.len() < self.limits.sequences_max {
            let Some((&place, &id)) = self.waiting.first_key_value() else { return };
            let entry = self.entries.get_mut(&id).expect("a waiting sequence has an entry");
            // At least the last token is computed: its logits are what the sequence is here for.
            let reusable = (entry.tokens.len() - 1) / KV_BLOCK;
            let mut found = vec![];
            let mut found_free = 0;
            if self.limits.prefix_cache && !entry.compute_all {
                while found.len() < reusable {
                    let Some((number, free)) = self.pool.find(&entry.content(found.len())) else { break };
                    found.push(number);
                    found_free += usize::from(free);
                }
            }
            let missing = entry.tokens.len().div_ceil(KV_BLOCK) - found.len();
            // Those that run will each need another block before long; an empty house takes anybody.
            let reserve = if self.running.is_empty() { 0 } else { self.limits.blocks / 100 };
            if missing + found_free + reserve > self.pool.free() {
                return;
            }
            self.waiting.remove(&place);
            self.running.push(id);
            if self.limits.prefix_cache && !entry.compute_all {
                self.counters.cache_queries += entry.tokens.len() as u64;
                self.counters.cache_hits += (found.len() * KV_BLOCK) as u64;
            }
            found.iter().for_each(|number| self.pool.share(*number));
            let first = found.len() * KV_BLOCK;
            entry.remembered = found.len();
            entry.blocks = found;
            entry.blocks.extend((0..missing).map(|_| self.pool.take().expect("free blocks were counted")));
            entry.computed = first;
            let wanted = entry.missing();
            let end = first + budget.grant(wanted, self.limits.chunk_tokens_max);
            entry.computed = end;
            budget.spend(wanted, end - first);
            step.push(Work { id, first, end, proposed: 0 });
            // At once, so that the next in line finds these blocks: a step writes all before it reads any.
            self.remember(id);
        }
    }

    /// Adds proposed positions, as far as tokens and free blocks are left.
    fn extend(&mut self, step: &mut [Work], mut tokens: usize) {
        for work in step.iter_mut() {
            let Some(wanted) = self.proposals.get(&work.id).copied() else { continue };
            let entry = self.entries.get_mut(&work.id).expect("a sequence in a step has an entry");
            if work.end < entry.tokens.len() {
                continue;
            }
            let have = entry.blocks.len();
            let places = (have + self.pool.free()) * KV_BLOCK - work.end;
            let chunk = self.limits.chunk_tokens_max - (work.end - work.first);
            work.proposed = wanted.min(tokens).min(chunk).min(places);
            tokens -= work.proposed;
            let missing = (work.end + work.proposed).div_ceil(KV_BLOCK).saturating_sub(have);
            entry.blocks.extend((0..missing).map(|_| self.pool.take().expect("free blocks were counted")));
        }
    }

    /// Tells the pool what the blocks hold that this step fills.
    fn remember(&mut self, id: SequenceId) {
        if !self.limits.prefix_cache {
            return;
        }
        let entry = self.entries.get_mut(&id).expect("a sequence in a step has an entry");
        for block in entry.remembered..entry.computed / KV_BLOCK {
            let content = entry.content(block);
            self.pool.remember(entry.blocks[block], content);
        }
        entry.remembered = entry.remembered.max(entry.computed / KV_BLOCK);
    }

    /// Who makes room: the last admitted, or the last in line.
    fn victim(&self) -> usize {
        match self.limits.policy {
            Policy::Fcfs => self.running.len() - 1,
            Policy::Priority => {
                let places = self.running.iter().map(|id| self.entries[id].place).enumerate();
                places.max_by_key(|(_, place)| *place).map_or(0, |(i, _)| i)
            }
        }
    }

    fn preempt(&mut self, index: usize) {
        let id = self.running.remove(index);
        let entry = self.entries.get_mut(&id).expect("a running sequence has an entry");
        // Tails first, so that of a long sequence the beginning stays longest.
        entry.blocks.drain(..).rev().for_each(|block| self.pool.release(block));
        (entry.computed, entry.remembered) = (0, 0);
        entry.guesses.clear();
        self.waiting.insert(entry.place, id);
        self.counters.preemptions += 1;
    }

    /// Adds a sampled token to a sequence all of whose tokens are computed. If it is the one that was guessed, its
    /// position is computed too; else what was guessed behind it is given up.
    pub fn push(&mut self, id: SequenceId, token: u32) {
        let entry = self.entries.get_mut(&id).expect("only sequences in hand grow");
        entry.tokens.push(token);
        if entry.guesses.first() == Some(&token) {
            entry.guesses.remove(0);
            entry.computed += 1;
            self.remember(id);
            return;
        }
        entry.guesses.clear();
        let needed = entry.tokens.len().div_ceil(KV_BLOCK);
        entry.blocks.drain(needed.min(entry.blocks.len())..).rev().for_each(|block| self.pool.release(block));
    }

    /// Ends a sequence, running or waiting. Returns whether there was one.
    pub fn remove(&mut self, id: SequenceId) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        entry.blocks.iter().rev().for_each(|block| self.pool.release(*block));
        self.waiting.remove(&entry.place);
        self.running.retain(|running| *running != id);
        true
    }

    /// Forgets what the blocks hold, and starts every sequence again: after a step that may have left anything.
    pub fn forget(&mut self) {
        while !self.running.is_empty() {
            self.preempt(self.running.len() - 1);
        }
        self.pool.forget();
    }

    /// A sequence's tokens.
    pub fn tokens(&self, id: SequenceId) -> &[u32] {
        &self.entries[&id].tokens
    }

    /// The blocks of a sequence that runs.
    pub fn blocks(&self, id: SequenceId) -> &[u32] {
        &self.entries[&id].blocks
    }

    /// Sequences that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The pool.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Counters as of now.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
