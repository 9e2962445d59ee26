//! Micro-batches of token sequences, and the shards that they come from. Knows neither which tokens are learnt nor
//! models.

use narthex_base::config::Schedule;
use narthex_text::TokenShard;

/// One micro-batch: `rows` sequences of `len` tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenBatch {
    /// Sequences.
    pub rows: usize,
    /// Tokens in a sequence.
    pub len: usize,
    /// Token ids, row by row.
    pub tokens: Vec<i64>,
    /// The id to predict at each position.
    pub targets: Vec<i64>,
    /// Whether the prediction at each position counts.
    pub counts: Vec<bool>,
    /// The document of each position, if attention stops at borders.
    pub documents: Option<Vec<u32>>,
}

impl TokenBatch {
    pub(super) fn empty(rows: usize, len: usize, documents: bool) -> Self {
        let size = rows * len;
        Self {
            rows,
            len,
            tokens: Vec::with_capacity(size),
            targets: Vec::with_capacity(size),
            counts: Vec::with_capacity(size),
            documents: documents.then(|| Vec::with_capacity(size)),
        }
    }

    /// Predictions that count.
    pub fn counted(&self) -> usize {
        self.counts.iter().filter(|counts| **counts).count()
    }

    /// Adds inputs and, shifted by one, targets: one more token than positions. Whether a prediction counts is left to
    /// the caller.
    pub(super) fn push_tokens(&mut self, tokens: &[u32]) {
        let len = tokens.len().saturating_sub(1);
        self.tokens.extend(tokens[..len].iter().map(|id| i64::from(*id)));
        self.targets.extend(tokens.iter().skip(1).map(|id| i64::from(*id)));
    }

    /// Pads the row that has `len` positions.
    pub(super) fn fill_row(&mut self, len: usize) {
        let missing = self.len - len;
        self.tokens.extend(std::iter::repeat_n(0, missing));
        self.targets.extend(std::iter::repeat_n(0, missing));
        self.counts.extend(std::iter::repeat_n(false, missing));
        if let Some(documents) = &mut self.documents {
            documents.extend(std::iter::repeat_n(u32::MAX, missing));
        }
    }
}

/// Token shards, and how batches are cut from them.
#[derive(Clone, Copy, Debug)]
pub struct TokenData<'a> {
    /// What is learnt from.
    pub train: &'a TokenShard,
    /// What is measured on.
    pub validation: Option<&'a TokenShard>,
    /// Sequences in a micro-batch.
    pub rows: usize,
    /// Tokens in a sequence.
    pub len: usize,
}

impl<'a> TokenData<'a> {
    /// Batches as the schedule asks for them.
    pub fn new(train: &'a TokenShard, validation: Option<&'a TokenShard>, schedule: &Schedule) -> Self {
        Self { train, validation, rows: schedule.batches.batch_size, len: schedule.batches.context }
    }
}

/// Whether something of a document is learnt when it is cut to `len + 1` tokens.
pub(super) fn answers(shard: &TokenShard, document: usize, len: usize) -> bool {
    let range = shard.document_range(document);
    let end = range.end.min(range.start + len + 1);
    (range.start + 1..end).any(|position| shard.mask(position))
}

#[cfg(test)]
pub(super) mod tests {
    use narthex_text::{ShardWriter, TokenShard};

    /// Documents `[10, 11, 12]`, `[20, 21, 22, 23]`, `[30, 31]`, `[40, 41, 42, 43, 44, 45]`; with a mask, the first
    /// token of each is not trained.
    pub(crate) fn shard(folder: &std::path::Path, masked: bool) -> TokenShard {
        let path = folder.join(if masked { "masked.tokens" } else { "plain.tokens" });
        let mut writer = ShardWriter::create(&path, 64, masked).unwrap();
        for (first, len) in [(10u32, 3usize), (20, 4), (30, 2), (40, 6)] {
            let ids: Vec<u32> = (0..len as u32).map(|i| first + i).collect();
            let mask: Vec<bool> = (0..len).map(|i| i > 0).collect();
            writer.push(&ids, masked.then_some(mask.as_slice()), len as u64).unwrap();
        }
        writer.finish().unwrap();
        TokenShard::open(&path).unwrap()
    }

    /// What counts in all batches, as ids.
    pub(crate) fn counted(batches: impl Iterator<Item = super::TokenBatch>) -> Vec<i64> {
        let ids = |batch: super::TokenBatch| {
            (0..batch.tokens.len()).filter(|i| batch.counts[*i]).map(|i| batch.targets[i]).collect::<Vec<_>>()
        };
        batches.flat_map(ids).collect()
    }
}
