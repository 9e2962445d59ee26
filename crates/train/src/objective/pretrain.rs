//! Pretraining: every next token of running text, in windows at random offsets. Knows no conversations.

use super::{
    DecoderPass, Extent, Loss, Objective, Parts, Pass, Place, TextLoss, TokenBatch, TokenData, Units, Validation,
    text_loss,
};
use narthex_base::{Error, Observer, Result, random::Stream};
use narthex_model::Decoder;
use narthex_text::TokenShard;

/// The next tokens of running text.
pub struct Pretrain<'a> {
    data: TokenData<'a>,
    document_mask: bool,
    pass: DecoderPass,
}

impl<'a> Pretrain<'a> {
    /// Windows over the shards; with `document_mask`, attention stops at document borders.
    ///
    /// # Errors
    /// If the training shard is too small for one sequence.
    pub fn new(data: TokenData<'a>, document_mask: bool, pass: DecoderPass) -> Result<Self> {
        if data.train.len() < data.len + 2 {
            return Err(Error::input(format!(
                "the training part has {} tokens, too few for sequences of {}",
                data.train.len(),
                data.len
            ))
            .help("lower `context`, or add data"));
        }
        Ok(Self { data, document_mask, pass })
    }

    fn window_batch(&self, seed: u64, index: u64) -> TokenBatch {
        let TokenData { train, rows, len, .. } = self.data;
        let stream = Stream::new(seed, "batches");
        let mut batch = TokenBatch::empty(rows, len, self.document_mask);
        let mut scratch = Vec::new();
        for row in 0..rows as u64 {
            let starts = (train.len() - len) as u64;
            let start = stream.below(index * rows as u64 + row, starts);
            push_window(&mut batch, train, start as usize, &mut scratch);
        }
        batch
    }

    /// Measures a model on the first `tokens_max` tokens of a shard of running text, in windows of `len` tokens.
    ///
    /// # Errors
    /// If the shard holds nothing to predict, or the work is interrupted.
    pub fn measure(
        model: &Decoder,
        shard: &TokenShard,
        document_mask: bool,
        len: usize,
        tokens_max: usize,
        observer: Observer,
    ) -> Result<TextLoss> {
        let batches = covering(shard, document_mask, text_loss::ROWS, len, tokens_max);
        TextLoss::of(model, batches, shard.len(), shard.text_bytes(), observer)
    }
}

impl Objective<Decoder> for Pretrain<'_> {
    type Batch = TokenBatch;

    fn units(&self, model: &Decoder) -> Units {
        self.pass.units(model, &self.data)
    }

    fn batch(&self, place: Place<Decoder>) -> Result<TokenBatch> {
        Ok(self.window_batch(place.seed, place.index))
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
        let measure = |shard| {
            let tokens_max = text_loss::tokens_max(extent);
            Self::measure(model, shard, self.document_mask, self.data.len, tokens_max, observer)
        };
        Ok(self.data.validation.map(measure).transpose()?.map(TextLoss::validation))
    }
}

/// Adds one row of `len + 1` tokens: inputs and, shifted by one, targets.
fn push_window(batch: &mut TokenBatch, shard: &TokenShard, start: usize, scratch: &mut Vec<u32>) {
    let len = batch.len.min(shard.len() - 1 - start);
    shard.read(start..start + len + 1, scratch);
    batch.push_tokens(scratch);
    batch.counts.extend(std::iter::repeat_n(true, len));
    if let Some(documents) = &mut batch.documents {
        let first = shard.document_of(start);
        let mut document = first;
        for position in start..start + len {
            while position >= shard.document_range(document).end {
                document += 1;
            }
            documents.push((document - first) as u32);
        }
        // The last token of a document is not asked for the first of the next.
        let offset = batch.counts.len() - len;
        for i in 0..len - 1 {
            batch.counts[offset + i] = documents[offset + i] == documents[offset + i + 1];
        }
        batch.counts[offset + len - 1] = start + len < shard.document_range(document).end;
    }
    batch.fill_row(len);
}

/// Batches that cover a whole shard once, in order. At most `tokens_max` tokens, from the start.
fn covering(
    shard: &TokenShard,
    document_mask: bool,
    rows: usize,
    len: usize,
    tokens_max: usize,
) -> impl Iterator<Item = TokenBatch> {
    // Windows that touch: the last token of one is the first of the next.
    let starts: Vec<usize> = (0..shard.len().saturating_sub(1).min(tokens_max)).step_by(len).collect();
    let mut next = 0;
    let mut scratch = Vec::new();
    std::iter::from_fn(move || {
        let of_batch = &starts[next..starts.len().min(next + rows)];
        if of_batch.is_empty() {
            return None;
        }
        next += of_batch.len();
        let mut batch = TokenBatch::empty(of_batch.len(), len, document_mask);
        of_batch.iter().for_each(|start| push_window(&mut batch, shard, *start, &mut scratch));
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tokens::tests::{counted, shard},
        *,
    };

    fn objective(shard: &TokenShard, rows: usize, len: usize) -> Result<Pretrain<'_>> {
        let data = TokenData { train: shard, validation: None, rows, len };
        Pretrain::new(data, true, DecoderPass::default())
    }

    #[test]
    fn batches_are_a_function_of_their_index() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), false);
        let new = || objective(&shard, 2, 6).unwrap();
        let all: Vec<TokenBatch> = (0..8).map(|i| new().window_batch(5, i)).collect();
        let again = new();
        for i in (0..8).rev() {
            assert_eq!(again.window_batch(5, i), all[i as usize]);
        }
        assert!(all.iter().any(|batch| batch != &all[0]));
    }

    #[test]
    fn targets_are_the_next_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), false);
        let batch = objective(&shard, 16, 5).unwrap().window_batch(1, 0);
        for i in 0..batch.tokens.len() {
            let (token, target) = (batch.tokens[i], batch.targets[i]);
            let same_document = token / 10 == target / 10;
            assert_eq!(batch.counts[i], same_document, "{token} -> {target}");
            assert!(!same_document || target == token + 1);
        }
    }

    #[test]
    fn covering_predicts_every_token_but_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path(), false);
        for len in [3, 4, 14, 20] {
            let found = counted(covering(&shard, false, 2, len, usize::MAX));
            assert_eq!(found, [11, 12, 20, 21, 22, 23, 30, 31, 40, 41, 42, 43, 44, 45]);
        }
    }

    #[test]
    fn a_shard_that_is_too_small_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = objective(&shard(folder.path(), false), 1, 14).err().unwrap();
        assert!(error.to_string().contains("too few"), "{error}");
    }
}
