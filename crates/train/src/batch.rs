//! Batches from token shards: which tokens go into which step is a pure function of
//! (seed, step), so that a resumed run sees what an uninterrupted one would have seen.

use narthex_base::{
    Error, Result,
    random::{Permutation, Stream},
};
use narthex_text::TokenShard;
use std::collections::VecDeque;

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Every next token of running text, in windows at random offsets.
    Pretrain {
        /// Attention stops at document borders.
        document_mask: bool,
    },
    /// The tokens that the shard's mask marks, whole conversations packed into rows.
    Chat,
}

/// One micro-batch: `rows` sequences of `len` tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
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

impl Batch {
    fn empty(rows: usize, len: usize, documents: bool) -> Self {
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

    /// Adds one row of `len + 1` tokens: inputs and, shifted by one, targets.
    fn push_window(&mut self, shard: &TokenShard, start: usize, scratch: &mut Vec<u32>) {
        let len = self.len.min(shard.len() - 1 - start);
        shard.read(start..start + len + 1, scratch);
        self.tokens.extend(scratch[..len].iter().map(|id| i64::from(*id)));
        self.targets.extend(scratch[1..].iter().map(|id| i64::from(*id)));
        self.counts.extend(std::iter::repeat_n(true, len));
        if let Some(documents) = &mut self.documents {
            let first = shard.document_of(start);
            let mut document = first;
            for position in start..start + len {
                while position >= shard.document_range(document).end {
                    document += 1;
                }
                documents.push((document - first) as u32);
            }
            // The last token of a document is not asked for the first of the next.
            let offset = self.counts.len() - len;
            for i in 0..len - 1 {
                self.counts[offset + i] = documents[offset + i] == documents[offset + i + 1];
            }
            self.counts[offset + len - 1] = start + len < shard.document_range(document).end;
        }
        self.fill_row(len);
    }

    /// Pads the row that has `len` positions.
    fn fill_row(&mut self, len: usize) {
        let missing = self.len - len;
        self.tokens.extend(std::iter::repeat_n(0, missing));
        self.targets.extend(std::iter::repeat_n(0, missing));
        self.counts.extend(std::iter::repeat_n(false, missing));
        if let Some(documents) = &mut self.documents {
            documents.extend(std::iter::repeat_n(u32::MAX, missing));
        }
    }
}

/// All batches of a training run.
pub struct Batches<'a> {
    shard: &'a TokenShard,
    objective: Objective,
    rows: usize,
    len: usize,
    stream: Stream,
    /// For packing: rows of documents in the epoch at hand.
    packed: Option<(u64, Vec<Vec<usize>>)>,
    /// For packing: how many rows each epoch has, as far as known.
    epoch_rows: Vec<u64>,
}

impl<'a> Batches<'a> {
    /// Batches of `rows` sequences of `len` tokens.
    ///
    /// # Errors
    /// If the shard is too small for one sequence, or a chat shard has no mask.
    pub fn new(shard: &'a TokenShard, objective: Objective, rows: usize, len: usize, seed: u64) -> Result<Self> {
        match objective {
            Objective::Pretrain { .. } if shard.len() < len + 2 => {
                return Err(Error::input(format!(
                    "the training part has {} tokens, too few for sequences of {len}",
                    shard.len()
                ))
                .help("lower `context`, or add data"));
            }
            Objective::Chat if !shard.has_mask() => {
                return Err(Error::input("the training data is plain text, but tuning needs conversations")
                    .help("tokenize a data step with `output = \"chat\"`"));
            }
            Objective::Chat if shard.documents() == 0 => {
                return Err(
                    Error::input("the training part has no conversations").help("lower `validation`, or add data")
                );
            }
            _ => {}
        }
        Ok(Self { shard, objective, rows, len, stream: Stream::new(seed, "batches"), packed: None, epoch_rows: vec![] })
    }

    /// The micro-batch `index` of the run (step * accumulation + micro-step).
    pub fn get(&mut self, index: u64) -> Batch {
        match self.objective {
            Objective::Pretrain { document_mask } => {
                let mut batch = Batch::empty(self.rows, self.len, document_mask);
                let mut scratch = Vec::new();
                for row in 0..self.rows as u64 {
                    let starts = (self.shard.len() - self.len) as u64;
                    let start = self.stream.below(index * self.rows as u64 + row, starts);
                    batch.push_window(self.shard, start as usize, &mut scratch);
                }
                batch
            }
            Objective::Chat => self.packed_batch(index),
        }
    }

    fn packed_batch(&mut self, index: u64) -> Batch {
        let mut batch = Batch::empty(self.rows, self.len, true);
        let (mut epoch, mut row) = self.locate(index * self.rows as u64);
        for _ in 0..self.rows {
            if row == self.epoch(epoch).len() {
                (epoch, row) = (epoch + 1, 0);
            }
            let documents = self.epoch(epoch)[row].clone();
            push_documents(&mut batch, self.shard, &documents);
            row += 1;
        }
        batch
    }

    /// The epoch and the row in it of a row counted over the whole run.
    fn locate(&mut self, row: u64) -> (u64, usize) {
        // Packing differs a little from epoch to epoch, so their lengths are added up.
        let (mut epoch, mut first) = (0, 0u64);
        loop {
            let rows = self.epoch_len(epoch);
            if row < first + rows {
                return (epoch, (row - first) as usize);
            }
            first += rows;
            epoch += 1;
        }
    }

    fn epoch_len(&mut self, epoch: u64) -> u64 {
        while self.epoch_rows.len() <= epoch as usize {
            let next = self.epoch_rows.len() as u64;
            let rows = self.epoch(next).len() as u64;
            self.epoch_rows.push(rows);
        }
        self.epoch_rows[epoch as usize]
    }

    fn epoch(&mut self, epoch: u64) -> &Vec<Vec<usize>> {
        if self.packed.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.packed = Some((epoch, pack(self.shard, self.len, self.stream.at(epoch))));
        }
        &self.packed.as_ref().expect("it was just packed").1
    }
}

/// Puts the documents into rows: in a random order, each into the first of the open rows with room.
fn pack(shard: &TokenShard, len: usize, stream: Stream) -> Vec<Vec<usize>> {
    /// Rows that are kept open for later, smaller documents.
    const OPEN_ROWS: usize = 32;
    let count = shard.documents();
    let order = Permutation::new(stream, count as u64);
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut open: VecDeque<(usize, usize)> = VecDeque::new();
    for i in 0..count {
        let document = order.get(i as u64) as usize;
        // One position less than tokens: the last token is only a target.
        let need = (shard.document_range(document).len().saturating_sub(1)).min(len);
        if need == 0 {
            continue;
        }
        match open.iter_mut().find(|(_, room)| *room >= need) {
            Some((row, room)) => {
                rows[*row].push(document);
                *room -= need;
            }
            None => {
                rows.push(vec![document]);
                open.push_back((rows.len() - 1, len - need));
                if open.len() > OPEN_ROWS {
                    open.pop_front();
                }
            }
        }
    }
    rows
}

/// One row of whole documents; a document longer than the row is cut at its end.
fn push_documents(batch: &mut Batch, shard: &TokenShard, documents: &[usize]) {
    let mut used = 0;
    let mut scratch = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let range = shard.document_range(*document);
        let len = (range.len() - 1).min(batch.len - used);
        shard.read(range.start..range.start + len + 1, &mut scratch);
        batch.tokens.extend(scratch[..len].iter().map(|id| i64::from(*id)));
        batch.targets.extend(scratch[1..].iter().map(|id| i64::from(*id)));
        batch.counts.extend((range.start + 1..range.start + len + 1).map(|position| shard.mask(position)));
        if let Some(numbers) = &mut batch.documents {
            numbers.extend(std::iter::repeat_n(number as u32, len));
        }
        used += len;
    }
    batch.fill_row(used);
}

/// Batches that cover a whole shard once, in order, for validation. At most `tokens_max` tokens, from the start.
pub(crate) fn covering(
    shard: &TokenShard,
    objective: Objective,
    rows: usize,
    len: usize,
    tokens_max: usize,
) -> impl Iterator<Item = Batch> {
    let mut work: VecDeque<Vec<usize>> = match objective {
        // Windows that touch: the last token of one is the first of the next.
        Objective::Pretrain { .. } => {
            (0..shard.len().saturating_sub(1).min(tokens_max)).step_by(len).map(|start| vec![start]).collect()
        }
        Objective::Chat => {
            let mut packed: Vec<Vec<usize>> = vec![vec![]];
            let (mut used, mut tokens) = (0, 0);
            for document in 0..shard.documents() {
                let need = shard.document_range(document).len().saturating_sub(1).min(len);
                if need == 0 || tokens >= tokens_max {
                    continue;
                }
                if used + need > len {
                    packed.push(vec![]);
                    used = 0;
                }
                packed.last_mut().expect("it starts with one row").push(document);
                used += need;
                tokens += need;
            }
            packed.into_iter().filter(|row| !row.is_empty()).collect()
        }
    };
    let mut scratch = Vec::new();
    std::iter::from_fn(move || {
        let take = rows.min(work.len());
        if take == 0 {
            return None;
        }
        let documents = !matches!(objective, Objective::Pretrain { document_mask: false });
        let mut batch = Batch::empty(take, len, documents);
        for row in work.drain(..take) {
            match objective {
                Objective::Pretrain { .. } => batch.push_window(shard, row[0], &mut scratch),
                Objective::Chat => push_documents(&mut batch, shard, &row),
            }
        }
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_text::ShardWriter;

    /// Documents `[10, 11, 12]`, `[20, 21, 22, 23]`, `[30, 31]`, `[40, 41, 42, 43, 44, 45]`; with a mask, the first token
    /// of each is not trained.
    fn shard(folder: &std::path::Path, masked: bool) -> TokenShard {
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

    #[test]
    fn batches_are_a_function_of_their_index() {
        let folder = tempfile::tempdir().unwrap();
        for (objective, masked) in [(Objective::Pretrain { document_mask: true }, false), (Objective::Chat, true)] {
            let shard = shard(folder.path(), masked);
            let new = || Batches::new(&shard, objective, 2, 6, 5).unwrap();
            let mut in_order = new();
            let all: Vec<Batch> = (0..8).map(|i| in_order.get(i)).collect();
            let mut backwards = new();
            for i in (0..8).rev() {
                assert_eq!(backwards.get(i), all[i as usize], "{objective:?}");
            }
            assert!(all.iter().any(|batch| batch != &all[0]));
        }
    }

    #[test]
    fn targets_are_the_next_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), false);
        let batch = Batches::new(&shard, Objective::Pretrain { document_mask: true }, 16, 5, 1).unwrap().get(0);
        for i in 0..batch.tokens.len() {
            let (token, target) = (batch.tokens[i], batch.targets[i]);
            let same_document = token / 10 == target / 10;
            assert_eq!(batch.counts[i], same_document, "{token} -> {target}");
            assert!(!same_document || target == token + 1);
        }
    }

    #[test]
    fn packing_trains_every_marked_token_once_an_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), true);
        for len in [6, 9, 16] {
            let rows = pack(&shard, len, Stream::new(1, "x"));
            let mut batch = Batch::empty(rows.len(), len, true);
            rows.iter().for_each(|row| push_documents(&mut batch, &shard, row));
            let mut trained: Vec<i64> =
                (0..batch.tokens.len()).filter(|i| batch.counts[*i]).map(|i| batch.targets[i]).collect();
            trained.sort_unstable();
            assert_eq!(trained, [11, 12, 21, 22, 23, 31, 41, 42, 43, 44, 45]);
            for row in 0..batch.rows {
                let documents = &batch.documents.as_ref().unwrap()[row * len..(row + 1) * len];
                for i in 1..len {
                    let (a, b) = (batch.tokens[row * len + i - 1] / 10, batch.tokens[row * len + i] / 10);
                    assert_eq!(documents[i - 1] == documents[i], a == b, "one number for each document");
                }
            }
        }
    }

    #[test]
    fn covering_predicts_every_token_but_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), false);
        for len in [3, 4, 14, 20] {
            let counted: Vec<i64> = covering(&shard, Objective::Pretrain { document_mask: false }, 2, len, usize::MAX)
                .flat_map(|batch| {
                    (0..batch.tokens.len()).filter(|i| batch.counts[*i]).map(|i| batch.targets[i]).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(counted, [11, 12, 20, 21, 22, 23, 30, 31, 40, 41, 42, 43, 44, 45]);
        }
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let plain = shard(folder.path(), false);
        let too_long = Batches::new(&plain, Objective::Pretrain { document_mask: false }, 1, 14, 0).err().unwrap();
        assert!(too_long.to_string().contains("too few"), "{too_long}");
        let no_mask = Batches::new(&plain, Objective::Chat, 1, 8, 0).err().unwrap();
        assert!(no_mask.to_string().contains("needs conversations"), "{no_mask}");
    }
}
