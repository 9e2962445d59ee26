//! Preferences: of two answers to a prompt, the chosen one is to become likelier against the rejected one than a
//! reference holds it to be (Rafailov et al., "Direct Preference Optimization", 2023). Knows no text and no template.
//!
//! Symbols: `chosen` and `rejected` stand for log π − log π_ref, summed over the tokens of an answer, in nats.

use super::{
    DecoderPass, Extent, Loss, Objective, Parts, Pass, Place, TokenBatch, TokenData, Units, Validation, Values,
    decoder::predictions, text_loss, tokens::answers,
};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_base::{
    Error, Observer, Result,
    config::{Preference as Settings, PreferenceLoss},
    random::{Permutation, Stream},
};
use narthex_model::{Decoder, Dropout};
use narthex_text::TokenShard;

/// One answer of a pair, after its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Token ids, the prompt's first.
    pub tokens: Vec<u32>,
    /// For each token, whether it belongs to the answer.
    pub own: Vec<bool>,
}

/// A micro-batch of pairs: as many rows with chosen answers, then as many with rejected ones.
#[derive(Clone, Debug, PartialEq)]
pub struct PairBatch {
    rows: TokenBatch,
}

impl PairBatch {
    /// Pairs of a chosen and a rejected answer, cut at the end to `len + 1` tokens.
    pub fn new(pairs: &[[Answer; 2]], len: usize) -> Self {
        let rows: Vec<&Answer> = (0..2).flat_map(|side| pairs.iter().map(move |pair| &pair[side])).collect();
        let positions = |answer: &Answer| answer.tokens.len().saturating_sub(1).min(len);
        let longest = rows.iter().map(|answer| positions(answer)).max().unwrap_or_default();
        let mut batch = TokenBatch::empty(rows.len(), longest, false);
        for answer in rows {
            let used = positions(answer);
            batch.push_tokens(&answer.tokens[..answer.tokens.len().min(used + 1)]);
            batch.counts.extend((0..used).map(|position| answer.own[position + 1]));
            batch.fill_row(used);
        }
        Self { rows: batch }
    }

    /// Pairs in it.
    pub fn pairs(&self) -> usize {
        self.rows.rows / 2
    }

    /// How many predictions count in each row.
    fn counted(&self) -> impl Iterator<Item = usize> {
        let rows = self.rows.counts.chunks(self.rows.len.max(1));
        rows.map(|row| row.iter().filter(|counts| **counts).count())
    }

    /// The sum of each row's part of `values`, which are those of the predictions that count.
    fn sums(&self, values: &[f32]) -> Vec<f64> {
        let mut values = values.iter().map(|value| f64::from(*value));
        self.counted().map(|count| values.by_ref().take(count).sum()).collect()
    }
}

/// What pairs teach.
pub struct Preference<'a> {
    data: TokenData<'a>,
    /// The pairs of both shards whose prompts leave room for an answer, by number.
    train: Vec<usize>,
    validation: Vec<usize>,
    settings: Settings,
    pass: DecoderPass,
    /// What likelihoods are held against: the model as it was before, without adapters.
    reference: Decoder,
}

impl<'a> Preference<'a> {
    /// Pairs of the shards; pairs whose prompt fills the context are left out. `reference` is where the trained model
    /// is.
    ///
    /// # Errors
    /// If the training shard holds no pairs, or none fits.
    pub fn new(data: TokenData<'a>, settings: &Settings, pass: DecoderPass, reference: Decoder) -> Result<Self> {
        if !data.train.has_pairs() {
            return Err(Error::input(
                "the training data are no pairs, but preferences need a chosen and a rejected answer",
            )
            .help("tokenize a data step with `output = \"pairs\"`"));
        }
        let fitting = |shard: &TokenShard| {
            (0..shard.documents() / 2).filter(|pair| fits(shard, *pair, data.len)).collect::<Vec<usize>>()
        };
        let train = fitting(data.train);
        if train.is_empty() {
            return Err(Error::input(format!(
                "no prompt of the {} pairs leaves room for an answer in {} tokens",
                data.train.documents() / 2,
                data.len
            ))
            .help("raise `context` in the schedule, or shorten the prompts"));
        }
        let validation = data.validation.filter(|shard| shard.has_pairs()).map(fitting).unwrap_or_default();
        Ok(Self { data, train, validation, settings: settings.clone(), pass, reference })
    }

    /// Pairs of the training shard that are left out, as their prompt fills the context.
    pub fn dropped(&self) -> usize {
        self.data.train.documents() / 2 - self.train.len()
    }

    /// The pairs of a micro-batch: every pair once an epoch, in an order of its own.
    fn numbers(&self, seed: u64, index: u64) -> Vec<usize> {
        let (stream, count) = (Stream::new(seed, "pairs"), self.train.len() as u64);
        let number = |row: u64| {
            let place = index * self.data.rows as u64 + row;
            self.train[Permutation::new(stream.at(place / count), count).get(place % count) as usize]
        };
        (0..self.data.rows as u64).map(number).collect()
    }

    /// What a model makes of a batch whose answers cost it `nats`: the loss, its slope over each row's nats, both times
    /// `scale`, and the sums of [`Preference::VALUES`].
    fn judge(&self, batch: &PairBatch, nats: &[f64], scale: f64) -> (f64, Vec<f64>, Vec<f64>) {
        let reference = self.reference_nats(batch);
        let (pairs, beta) = (batch.pairs(), self.settings.beta);
        let mut slopes = vec![0.0; 2 * pairs];
        let mut values = vec![0.0; VALUES.len()];
        let mut total = 0.0;
        for pair in 0..pairs {
            let [chosen, rejected] = [pair, pairs + pair].map(|row| reference[row] - nats[row]);
            let (loss, [by_chosen, by_rejected]) = pair_loss(self.settings.loss, beta, chosen, rejected);
            total += loss * scale;
            // The likelihood of an answer is minus its nats.
            (slopes[pair], slopes[pairs + pair]) = (-by_chosen * scale, -by_rejected * scale);
            let [reward, against] = [beta * chosen, beta * rejected];
            let better = if reward > against { 1.0 } else { 0.0 };
            let found = [reward, against, better, reward - against, -nats[pair], -nats[pairs + pair]];
            values.iter_mut().zip(found).for_each(|(sum, value)| *sum += value);
        }
        (total, slopes, values)
    }

    fn reference_nats(&self, batch: &PairBatch) -> Vec<f64> {
        row_nats(&self.reference, batch)
    }

    /// What is differentiated: the nats of the predictions, weighed by the slope of the loss over their row.
    fn finish(
        &self,
        model: &Decoder,
        batch: &PairBatch,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        scale: f64,
    ) -> Loss {
        let nats = model.nats_each(hidden, targets);
        let (value, slopes, values) = self.judge(batch, &batch.sums(&numbers_of(&nats)), scale);
        let slopes: Vec<f32> =
            batch.counted().zip(slopes).flat_map(|(count, slope)| std::iter::repeat_n(slope as f32, count)).collect();
        let count = slopes.len();
        let slopes = Tensor::from_data(TensorData::new(slopes, [count]), &nats.device().inner());
        Loss { sum: (nats * Tensor::from_inner(slopes)).sum(), value: Some(value), values }
    }

    fn measure(&self, model: &Decoder, shard: &TokenShard, extent: Extent, observer: Observer) -> Result<Validation> {
        let (mut loss, mut values, mut pairs, mut tokens) = (0.0, vec![0.0; VALUES.len()], 0, 0);
        for numbers in self.validation.chunks(text_loss::ROWS) {
            if tokens >= text_loss::tokens_max(extent) {
                break;
            }
            observer.check()?;
            let batch = batch_of(shard, numbers, self.data.len);
            let (part, _, found) = self.judge(&batch, &row_nats(model, &batch), 1.0);
            loss += part;
            values.iter_mut().zip(found).for_each(|(sum, value)| *sum += value);
            pairs += numbers.len();
            tokens += batch.rows.tokens.len();
        }
        let headline = "validation_preference_loss";
        let mut measured = Values::from([(headline.to_string(), loss / pairs as f64)]);
        measured
            .extend(VALUES.iter().zip(values).map(|(name, sum)| (format!("validation_{name}"), sum / pairs as f64)));
        let shown = format!("{:.3}", measured[headline]);
        Ok(Validation { values: measured, headline, shown })
    }
}

const VALUES: &[&str] =
    &["rewards_chosen", "rewards_rejected", "rewards_accuracies", "rewards_margins", "logps_chosen", "logps_rejected"];

/// The loss of a pair, and its slopes over `chosen` and `rejected`.
fn pair_loss(loss: PreferenceLoss, beta: f64, chosen: f64, rejected: f64) -> (f64, [f64; 2]) {
    match loss {
        PreferenceLoss::Sigmoid => {
            let x = beta * (chosen - rejected);
            // -log sigmoid(x), without overflow on either side.
            let value = (-x).max(0.0) + (-x.abs()).exp().ln_1p();
            let slope = -1.0 / (1.0 + x.exp());
            (value, [beta * slope, -beta * slope])
        }
    }
}

impl Objective<Decoder> for Preference<'_> {
    type Batch = PairBatch;

    const VALUES: &'static [&'static str] = VALUES;

    fn units(&self, model: &Decoder) -> Units {
        Units {
            item: "pairs",
            items_per_batch: self.data.rows as u64,
            flop_per_item: None,
            loss_figure: "training_preference_loss",
            parameters: model.config().parameters(),
        }
    }

    fn batch(&self, place: Place<Decoder>) -> Result<PairBatch> {
        Ok(batch_of(self.data.train, &self.numbers(place.seed, place.index), self.data.len))
    }

    fn weight(&self, batch: &PairBatch) -> u64 {
        batch.pairs() as u64
    }

    fn loss(&self, model: &Decoder, batch: &PairBatch, noise: Stream, scale: f64) -> Loss {
        let mut dropout = Dropout::new(noise, self.pass.dropout);
        let (hidden, targets) = predictions(model, &batch.rows, &mut dropout);
        self.finish(model, batch, hidden, targets, scale)
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
        batch: Option<&PairBatch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        let work = batch.map(|batch| {
            let finish = |model: &Decoder, hidden, targets| self.finish(model, batch, hidden, targets, scale);
            (&batch.rows, finish)
        });
        self.pass.pass_with(parts, work, noise)
    }

    fn validate(&self, model: &Decoder, extent: Extent, observer: Observer) -> Result<Option<Validation>> {
        let shard = self.data.validation.filter(|_| !self.validation.is_empty());
        shard.map(|shard| self.measure(&model.for_inference(), shard, extent, observer)).transpose()
    }

    fn shown(&self, values: &[f64]) -> String {
        format!("margin {:.3}, {:.0} % right", values[3], 100.0 * values[2])
    }

    fn figures(&self) -> Values {
        let count = |count: usize| count as f64;
        Values::from([
            ("usable_pairs".to_string(), count(self.train.len())),
            ("dropped_pairs".to_string(), count(self.dropped())),
        ])
    }
}

/// Whether both answers of a pair have a token left when they are cut to `len + 1` tokens.
fn fits(shard: &TokenShard, pair: usize, len: usize) -> bool {
    [2 * pair, 2 * pair + 1].into_iter().all(|document| answers(shard, document, len))
}

/// Pairs of a shard, by number: documents 2i and 2i + 1.
fn batch_of(shard: &TokenShard, numbers: &[usize], len: usize) -> PairBatch {
    let answer = |document: usize| {
        let range = shard.document_range(document);
        let own = range.clone().map(|position| shard.mask(position)).collect();
        let mut tokens = Vec::new();
        shard.read(range, &mut tokens);
        Answer { tokens, own }
    };
    let pairs: Vec<[Answer; 2]> = numbers.iter().map(|pair| [answer(2 * pair), answer(2 * pair + 1)]).collect();
    PairBatch::new(&pairs, len)
}

/// What the answers of a batch cost a model, row by row, without gradients.
fn row_nats(model: &Decoder, batch: &PairBatch) -> Vec<f64> {
    let (hidden, targets) = predictions(model, &batch.rows, &mut Dropout::none());
    batch.sums(&numbers_of(&model.nats_each(hidden, targets)))
}

fn numbers_of(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().inner().into_data().try_to_vec().expect("nats are f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_equals_costs_ln_2_and_slopes_are_slopes() {
        let loss = |chosen, rejected| pair_loss(PreferenceLoss::Sigmoid, 0.1, chosen, rejected);
        assert!((loss(3.0, 3.0).0 - std::f64::consts::LN_2).abs() < 1e-15);
        for (chosen, rejected) in [(0.0, 0.0), (5.0, -3.0), (-40.0, 60.0), (3e4, -3e4), (-3e4, 3e4)] {
            let (value, slopes) = loss(chosen, rejected);
            let step = 1e-4;
            let by_chosen = (loss(chosen + step, rejected).0 - loss(chosen - step, rejected).0) / (2.0 * step);
            let by_rejected = (loss(chosen, rejected + step).0 - loss(chosen, rejected - step).0) / (2.0 * step);
            assert!(value.is_finite() && value >= 0.0, "{chosen} {rejected}: {value}");
            for (slope, expected) in slopes.into_iter().zip([by_chosen, by_rejected]) {
                assert!((slope - expected).abs() < 1e-6, "{chosen} {rejected}: {slope}, not {expected}");
            }
        }
    }

    #[test]
    fn answers_are_cut_at_their_end() {
        let answer =
            |tokens: &[u32]| Answer { tokens: tokens.to_vec(), own: tokens.iter().map(|id| *id > 2).collect() };
        let pair = [answer(&[1, 2, 3, 4, 5]), answer(&[1, 2, 6])];
        for (len, tokens, counted) in [
            (9, vec![1, 2, 3, 4, 1, 2, 0, 0], [3, 1]),
            (3, vec![1, 2, 3, 1, 2, 0], [2, 1]),
            (2, vec![1, 2, 1, 2], [1, 1]),
        ] {
            let batch = PairBatch::new(std::slice::from_ref(&pair), len);
            assert_eq!((batch.rows.tokens.clone(), batch.pairs()), (tokens, 1));
            assert_eq!(batch.counted().collect::<Vec<_>>(), counted);
        }
    }
}
