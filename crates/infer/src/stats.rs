//! Counters of an engine, shared between its handles and its thread.

use crate::PROPOSED_TOKENS_MAX;
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Bounds of [`EngineStats::steps_by_tokens`].
pub const STEP_TOKENS_BOUNDS: [u64; 12] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// Counters of an engine, as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences in the batch.
    pub requests_running: u64,
    /// Sequences that wait for a place.
    pub requests_waiting: u64,
    /// Prompt tokens of sequences whose prompt has been read, those from the prefix cache included.
    pub prompt_tokens_total: u64,
    /// Tokens generated since the start, stop tokens included.
    pub generation_tokens_total: u64,
    /// Sequences that ended on a stop token.
    pub finished_stop_total: u64,
    /// Sequences that ended on their limit.
    pub finished_length_total: u64,
    /// Sequences whose reader went away or that failed.
    pub finished_abort_total: u64,
    /// Steps since the start.
    pub steps_total: u64,
    /// Tokens computed in them.
    pub step_tokens_total: u64,
    /// Steps of up to so many tokens as [`STEP_TOKENS_BOUNDS`] says, each counted once; then those of more.
    pub steps_by_tokens: [u64; STEP_TOKENS_BOUNDS.len() + 1],
    /// Sequences that gave their place in the cache to others and were computed again.
    pub preemptions_total: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_cache_queries_total: u64,
    /// Prompt tokens found there.
    pub prefix_cache_hits_total: u64,
    /// Blocks of the cache in use.
    pub kv_blocks_used: u64,
    /// Blocks of the cache in all.
    pub kv_blocks_total: u64,
    /// Tokens that are guessed of a sequence in a step at most; 0 without speculation.
    pub guesses_max: u64,
    /// Steps in which tokens of a sequence were guessed, each sequence counted.
    pub guesses_total: u64,
    /// Tokens guessed.
    pub guessed_tokens_total: u64,
    /// Guessed tokens that were right, as those before them were. By their place: the first is the one that comes next.
    pub right_tokens_by_place: [u64; PROPOSED_TOKENS_MAX],
}

impl EngineStats {
    /// Guessed tokens that were right.
    pub fn right_tokens_total(&self) -> u64 {
        self.right_tokens_by_place.iter().sum()
    }

    /// Counts a sequence's guesses in a step.
    pub(crate) fn guessed(&mut self, guessed: usize, right: usize) {
        self.guesses_total += 1;
        self.guessed_tokens_total += guessed as u64;
        self.right_tokens_by_place[..right].iter_mut().for_each(|count| *count += 1);
    }
}

/// What handles and the worker both see.
#[derive(Default)]
pub(crate) struct Shared {
    stats: Mutex<EngineStats>,
    /// Requests that the worker has not taken in yet.
    queued: AtomicU64,
    tickets: AtomicU64,
}

impl Shared {
    pub(crate) fn update(&self, change: impl FnOnce(&mut EngineStats)) {
        change(&mut self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// A number for a request that no other has.
    pub(crate) fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// A request is on its way to the worker.
    pub(crate) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker has taken a request in.
    pub(crate) fn taken(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let mut stats = *self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        stats.requests_waiting += self.queued.load(Ordering::Relaxed);
        stats
    }
}
