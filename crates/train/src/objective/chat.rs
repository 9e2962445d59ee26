//! Tuning on conversations: the tokens that the shard's mask marks, whole conversations packed into rows. Knows no text
//! and no template.

use super::{
    DecoderPass, Extent, Loss, Objective, Parts, Pass, Place, TextLoss, TokenBatch, TokenData, Units, Validation,
    text_loss, tokens::answers,
};
use narthex_base::{
    Error, Observer, Result,
    random::{Permutation, Stream},
};
use narthex_model::Decoder;
use narthex_text::TokenShard;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The marked tokens of conversations.
pub struct Chat<'a> {
    data: TokenData<'a>,
    pass: DecoderPass,
    cut: usize,
    /// What is known of the packing of epochs; it decides nothing, it only saves time.
    packing: Mutex<Packing>,
}

/// Rows of documents, epoch by epoch.
#[derive(Default)]
struct Packing {
    seed: Option<u64>,
    /// The rows of the epoch at hand.
    packed: Option<(u64, Vec<Vec<usize>>)>,
    /// How many rows each epoch has, as far as known.
    epoch_rows: Vec<u64>,
}

impl<'a> Chat<'a> {
    /// Rows of whole conversations.
    ///
    /// # Errors
    /// If the training shard has no mask or no conversation, or no answer lies within the context.
    pub fn new(data: TokenData<'a>, pass: DecoderPass) -> Result<Self> {
        if !data.train.has_mask() {
            return Err(Error::input("the training data is plain text, but tuning needs conversations")
                .help("tokenize a data step with `output = \"chat\"`"));
        }
        if data.train.has_pairs() {
            return Err(Error::input("the training data are pairs of answers, not conversations")
                .help("set `objective = \"dpo\"`, or tokenize a data step with `output = \"chat\"`"));
        }
        if data.train.documents() == 0 {
            return Err(Error::input("the training part has no conversations").help("lower `validation`, or add data"));
        }
        let cut = (0..data.train.documents()).filter(|document| !answers(data.train, *document, data.len)).count();
        if cut == data.train.documents() {
            return Err(Error::input(format!(
                "none of the {cut} conversations has an answer within {} tokens",
                data.len
            ))
            .help("raise `context` in the schedule, or shorten what the user says"));
        }
        Ok(Self { data, pass, cut, packing: Mutex::default() })
    }

    /// Conversations of the training shard of which nothing is learnt, as their answers lie beyond the context.
    pub fn cut(&self) -> usize {
        self.cut
    }

    fn packed_batch(&self, seed: u64, index: u64) -> TokenBatch {
        let TokenData { train, rows, len, .. } = self.data;
        let mut packing = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        if packing.seed != Some(seed) {
            *packing = Packing { seed: Some(seed), ..Packing::default() };
        }
        let stream = Stream::new(seed, "batches");
        let mut pack = |epoch: u64| pack(train, len, stream.at(epoch));
        let mut batch = TokenBatch::empty(rows, len, true);
        let (mut epoch, mut row) = packing.locate(index * rows as u64, &mut pack);
        for _ in 0..rows {
            if row == packing.epoch(epoch, &mut pack).len() {
                (epoch, row) = (epoch + 1, 0);
            }
            push_documents(&mut batch, train, &packing.epoch(epoch, &mut pack)[row]);
            row += 1;
        }
        batch
    }

    /// Measures a model on the first `tokens_max` tokens of a shard of conversations, in rows of `len` tokens.
    ///
    /// # Errors
    /// If the shard holds nothing to predict, or the work is interrupted.
    pub fn measure(
        model: &Decoder,
        shard: &TokenShard,
        len: usize,
        tokens_max: usize,
        observer: Observer,
    ) -> Result<TextLoss> {
        let batches = covering(shard, text_loss::ROWS, len, tokens_max);
        let trained = (0..shard.len()).filter(|position| shard.mask(*position)).count();
        TextLoss::of(model, batches, trained, shard.text_bytes(), observer)
    }
}

impl Objective<Decoder> for Chat<'_> {
    type Batch = TokenBatch;

    fn units(&self, model: &Decoder) -> Units {
        self.pass.units(model, &self.data)
    }

    fn batch(&self, place: Place<Decoder>) -> Result<TokenBatch> {
        Ok(self.packed_batch(place.seed, place.index))
    }

    fn weight(&self, batch: &TokenBatch) -> u64 {
        batch.counted() as u64
    }

    fn loss(&self, model: &Decoder, batch: &TokenBatch, noise: Stream, scale: f64) -> Loss {
        self.pass.loss(model, batch, noise, scale)
    }

    fn part(&self, parameter: &str) -> usize {
        self.pass.part(parameter)
    }

    fn rounded_parameters(&self, model: &Decoder) -> Vec<String> {
        model.rounded_parameters()
    }

    fn pass(
        &self,
        parts: &mut dyn Parts<Decoder>,
        batch: Option<&TokenBatch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        self.pass.pass(parts, batch, noise, scale)
    }

    fn validate(&self, model: &Decoder, extent: Extent, observer: Observer) -> Result<Option<Validation>> {
        let measure = |shard| Self::measure(model, shard, self.data.len, text_loss::tokens_max(extent), observer);
        Ok(self.data.validation.map(measure).transpose()?.map(TextLoss::validation))
    }
}

type Pack<'a> = dyn FnMut(u64) -> Vec<Vec<usize>> + 'a;

impl Packing {
    /// The epoch and the row in it of a row counted over the whole run.
    fn locate(&mut self, row: u64, pack: &mut Pack) -> (u64, usize) {
        // Packing differs a little from epoch to epoch, so their lengths are added up.
        let (mut epoch, mut first) = (0, 0u64);
        loop {
            let rows = self.epoch_len(epoch, pack);
            if row < first + rows {
                return (epoch, (row - first) as usize);
            }
            first += rows;
            epoch += 1;
        }
    }

    fn epoch_len(&mut self, epoch: u64, pack: &mut Pack) -> u64 {
        while self.epoch_rows.len() <= epoch as usize {
            let next = self.epoch_rows.len() as u64;
            let rows = self.epoch(next, pack).len() as u64;
            self.epoch_rows.push(rows);
        }
        self.epoch_rows[epoch as usize]
    }

    fn epoch(&mut self, epoch: u64, pack: &mut Pack) -> &Vec<Vec<usize>> {
        if self.packed.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.packed = Some((epoch, pack(epoch)));
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
fn push_documents(batch: &mut TokenBatch, shard: &TokenShard, documents: &[usize]) {
    let mut used = 0;
    let mut scratch = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let range = shard.document_range(*document);
        let len = (range.len() - 1).min(batch.len - used);
        shard.read(range.start..range.start + len + 1, &mut scratch);
        batch.push_tokens(&scratch);
        batch.counts.extend((range.start + 1..range.start + len + 1).map(|position| shard.mask(position)));
        if let Some(numbers) = &mut batch.documents {
            numbers.extend(std::iter::repeat_n(number as u32, len));
        }
        used += len;
    }
    batch.fill_row(used);
}

/// Batches that cover a whole shard once, in order. At most `tokens_max` tokens, from the start.
fn covering(shard: &TokenShard, rows: usize, len: usize, tokens_max: usize) -> impl Iterator<Item = TokenBatch> {
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
    packed.retain(|row| !row.is_empty());
    let mut next = 0;
    std::iter::from_fn(move || {
        let of_batch = &packed[next..packed.len().min(next + rows)];
        if of_batch.is_empty() {
            return None;
        }
        next += of_batch.len();
        let mut batch = TokenBatch::empty(of_batch.len(), len, true);
        of_batch.iter().for_each(|row| push_documents(&mut batch, shard, row));
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tokens::tests::{counted, shard},
        *,
    };

    fn objective(shard: &TokenShard) -> Result<Chat<'_>> {
        Chat::new(TokenData { train: shard, validation: None, rows: 2, len: 6 }, DecoderPass::default())
    }

    #[test]
    fn batches_are_a_function_of_their_index() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), true);
        let in_order = objective(&shard).unwrap();
        let all: Vec<TokenBatch> = (0..8).map(|i| in_order.packed_batch(5, i)).collect();
        let backwards = objective(&shard).unwrap();
        for i in (0..8).rev() {
            assert_eq!(backwards.packed_batch(5, i), all[i as usize]);
        }
        assert!(all.iter().any(|batch| batch != &all[0]));
        assert!((0..8).any(|i| backwards.packed_batch(6, i) != all[i as usize]), "another seed, another order");
    }

    #[test]
    fn packing_trains_every_marked_token_once_an_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), true);
        for len in [6, 9, 16] {
            let rows = pack(&shard, len, Stream::new(1, "x"));
            let mut batch = TokenBatch::empty(rows.len(), len, true);
            rows.iter().for_each(|row| push_documents(&mut batch, &shard, row));
            for row in 0..batch.rows {
                let documents = &batch.documents.as_ref().unwrap()[row * len..(row + 1) * len];
                for i in 1..len {
                    let (a, b) = (batch.tokens[row * len + i - 1] / 10, batch.tokens[row * len + i] / 10);
                    assert_eq!(documents[i - 1] == documents[i], a == b, "one number for each document");
                }
            }
            let mut trained = counted(std::iter::once(batch));
            trained.sort_unstable();
            assert_eq!(trained, [11, 12, 21, 22, 23, 31, 41, 42, 43, 44, 45]);
            let covered = counted(covering(&shard, 2, len, usize::MAX));
            assert_eq!(covered, trained, "validation sees the same, in order");
        }
    }

    #[test]
    fn answers_beyond_the_context_are_counted_and_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), true);
        let of = |len| Chat::new(TokenData { train: &shard, validation: None, rows: 2, len }, DecoderPass::default());
        assert_eq!(of(16).unwrap().cut(), 0);
        let first = |document: usize| {
            let range = shard.document_range(document);
            (range.start + 1..range.end).position(|position| shard.mask(position)).map(|place| place + 1)
        };
        let firsts: Vec<usize> = (0..shard.documents()).filter_map(first).collect();
        let (least, most) = (*firsts.iter().min().unwrap(), *firsts.iter().max().unwrap());
        if most > least {
            let cut = firsts.iter().filter(|place| **place > most - 1).count();
            assert_eq!(of(most - 1).unwrap().cut(), cut);
        }
        if least > 1 {
            let error = of(least - 1).err().unwrap().to_string();
            assert!(error.contains("has an answer within"), "{error}");
        }
    }

    #[test]
    fn plain_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = objective(&shard(folder.path(), false)).err().unwrap();
        assert!(error.to_string().contains("needs conversations"), "{error}");
    }
}
