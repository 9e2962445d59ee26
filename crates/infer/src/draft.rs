//! A draft model beside the model: it guesses tokens one after the other, for all sequences at once. Its keys and
//! values lie in blocks of the same numbers as the model's, so that it shares the scheduler's tables and prefixes;
//! which of their positions it has filled, it knows itself. It reads what it lacks when it is next asked.

use crate::{BlockPool, History, PagedContext, Scheduler, SequenceId, asked::Asked};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_kernels::{KV_BLOCK, KvLayer, PagedBatch, team::map};
use narthex_model::{Decoder, Dropout, PositionCache};
use std::{collections::HashSet, ops::Range};

/// Rows that the draft model reads at once to catch up; a sequence that lacks more than is left guesses nothing
/// meanwhile.
const CATCH_UP_ROWS: usize = 256;

/// What the draft model knows of a block.
#[derive(Clone, Copy, Default)]
struct Filled {
    /// How often it had been taken when it was filled.
    taken: u64,
    /// Its first positions that are filled.
    positions: usize,
}

pub(crate) struct Draft {
    model: Decoder,
    layers: Vec<KvLayer>,
    places: PositionCache,
    filled: Vec<Filled>,
}

/// A sequence under way.
struct Guessing<'a> {
    index: usize,
    asked: &'a Asked,
    history: History,
    blocks: &'a [u32],
    /// Tokens to be read next, from this position on.
    first: usize,
    next: Vec<u32>,
    /// Guesses at most.
    most: usize,
}

impl Draft {
    /// The layers have as many blocks as the model's.
    pub(crate) fn new(model: Decoder, layers: Vec<KvLayer>, blocks: usize) -> Self {
        Self { places: model.position_cache(), model, layers, filled: vec![Filled::default(); blocks] }
    }

    /// Tokens that a sequence may have.
    pub(crate) fn context(&self) -> usize {
        self.model.config().context
    }

    /// Up to so many guesses for each of these sequences.
    pub(crate) fn guess(
        &mut self,
        wanted: &[(SequenceId, usize, &Asked)],
        scheduler: &Scheduler,
    ) -> Vec<(SequenceId, Vec<u32>)> {
        let mut guesses: Vec<_> = wanted.iter().map(|(id, ..)| (*id, vec![])).collect();
        let (mut guessing, mut written, mut left) = (vec![], HashSet::<u32>::new(), CATCH_UP_ROWS);
        for (index, (id, most, asked)) in wanted.iter().copied().enumerate() {
            let (tokens, blocks) = (scheduler.tokens(id), scheduler.blocks(id));
            let first = self.known(blocks, scheduler.pool()).min(tokens.len() - 1);
            let end = tokens.len().min(first + left);
            let last = if end == tokens.len() { end + most - 1 } else { end };
            // A block that two would fill is filled by the first; the other finds it later.
            let writes = &blocks[first / KV_BLOCK..last.div_ceil(KV_BLOCK)];
            if end == first || most == 0 || writes.iter().any(|block| written.contains(block)) {
                continue;
            }
            written.extend(writes);
            left -= end - first;
            let most = if end == tokens.len() { most } else { 0 };
            let (next, history) = (tokens[first..end].to_vec(), asked.history.clone());
            guessing.push(Guessing { index, asked, history, blocks, first, next, most });
        }
        while !guessing.is_empty() {
            let found = self.read(&guessing, scheduler.pool());
            for (one, id) in guessing.iter_mut().zip(found) {
                one.first += one.next.len();
                // Who only catches up is done, and so is who guesses the end.
                let Some(id) = id else { continue };
                guesses[one.index].1.push(id);
                one.most -= 1;
                if one.asked.request.stop_tokens.contains(&id) {
                    one.most = 0;
                }
                one.history.push(id);
                one.next = vec![id];
            }
            guessing.retain(|one| one.most > 0);
        }
        guesses
    }

    /// Reads the next tokens of these sequences; the token that comes next, for those that guess.
    fn read(&mut self, guessing: &[Guessing], pool: &BlockPool) -> Vec<Option<u32>> {
        let (mut ids, mut positions, mut batch, mut last) = (vec![], vec![], PagedBatch::default(), vec![]);
        for Guessing { blocks, first, next, most, .. } in guessing {
            ids.extend(next.iter().map(|id| *id as i32));
            positions.extend(*first..first + next.len());
            batch.push(*first, next.len(), blocks);
            last.extend((*most > 0).then_some(ids.len() as i32 - 1));
        }
        let device = self.model.device();
        let places = self.places.rows(&positions, &device);
        let count = ids.len();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), &device);
        let mut context = PagedContext::new(&self.layers, batch, vec![]);
        let hidden = self.model.hidden(tokens, &places, &mut context, &mut Dropout::none());
        for Guessing { blocks, first, next, .. } in guessing {
            self.fill(blocks, *first..first + next.len(), pool);
        }
        let mut found = vec![None; guessing.len()];
        if last.is_empty() {
            return found;
        }
        let rows = last.len();
        let hidden = hidden.select(0, Tensor::from_data(TensorData::new(last, [rows]), &device));
        let logits = self.model.logits(hidden).into_data();
        let logits = logits.as_slice::<f32>().expect("logits are f32");
        let width = self.model.config().vocab_size;
        let asking: Vec<usize> = (0..guessing.len()).filter(|i| guessing[*i].most > 0).collect();
        let guesses = map(rows, |row| {
            let one = &guessing[asking[row]];
            one.asked.guess(&logits[row * width..(row + 1) * width], &one.history)
        });
        asking.into_iter().zip(guesses).for_each(|(i, id)| found[i] = Some(id));
        found
    }

    /// Positions from the beginning that are filled.
    fn known(&self, blocks: &[u32], pool: &BlockPool) -> usize {
        let mut known = 0;
        for block in blocks {
            let Filled { taken, positions } = self.filled[*block as usize];
            let positions = if taken == pool.taken(*block) { positions } else { 0 };
            known += positions;
            if positions < KV_BLOCK {
                break;
            }
        }
        known
    }

    /// These positions are filled, as those before them are.
    fn fill(&mut self, blocks: &[u32], range: Range<usize>, pool: &BlockPool) {
        let touched = blocks.iter().enumerate().take(range.end.div_ceil(KV_BLOCK)).skip(range.start / KV_BLOCK);
        for (i, block) in touched {
            let positions = (range.end - i * KV_BLOCK).min(KV_BLOCK);
            self.filled[*block as usize] = Filled { taken: pool.taken(*block), positions };
        }
    }

    /// Only positions before `end` hold what the sequence holds: guesses behind that were wrong.
    pub(crate) fn keep(&mut self, blocks: &[u32], end: usize) {
        for (i, block) in blocks.iter().enumerate().skip(end / KV_BLOCK) {
            let filled = &mut self.filled[*block as usize];
            filled.positions = filled.positions.min(end.saturating_sub(i * KV_BLOCK));
        }
    }
}
