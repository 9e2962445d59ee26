//! What is learnt: where the micro-batches of a run come from, what their loss is, and which numbers tell how far it
//! has come. Knows neither the optimizer nor files; the loop knows nothing else of what it trains.

mod chat;
mod classify;
mod decoder;
mod preference;
mod pretrain;
mod text_loss;
mod tokens;

pub use chat::Chat;
pub use classify::{Classify, LabelledText};
pub use decoder::{DecoderPass, nats};
pub use preference::{Answer, PairBatch, Preference};
pub use pretrain::Pretrain;
pub use text_loss::TextLoss;
pub use tokens::{TokenBatch, TokenData};

use crate::gradients::NamedGradients;
pub use crate::network::Parts;
use burn::{module::Module, tensor::Tensor};
use indexmap::IndexMap;
use narthex_base::{Observer, Result, random::Stream};

/// Named numbers in the order in which they are shown, the unit last in each name.
pub type Values = IndexMap<String, f64>;

/// Where in a run a micro-batch stands.
pub struct Place<'a, M> {
    /// The run's seed.
    pub seed: u64,
    /// Its number, counted over the run: step * accumulation + number in the step.
    pub index: u64,
    /// The network as it is before the step; only for objectives that are [`Objective::BY_NETWORK`].
    pub network: Option<&'a M>,
}

/// How an objective's work is counted and called.
#[derive(Clone, Debug, PartialEq)]
pub struct Units {
    /// What is counted, in the plural: `tokens`, `rows`.
    pub item: &'static str,
    /// Items in a micro-batch, those that only fill it up included.
    pub items_per_batch: u64,
    /// Floating-point operations for an item, forward and backward, where they are known.
    pub flop_per_item: Option<f64>,
    /// The figure under which the loss of the last step is recorded: `training_nats_per_token`.
    pub loss_figure: &'static str,
    /// Values in all parameters of the network, trained or not.
    pub parameters: usize,
}

/// The loss of a micro-batch.
pub struct Loss {
    /// The sum over what the batch weighs, times the scale asked for: one element, to be differentiated.
    pub sum: Tensor<1>,
    /// The number that is reported, where it is not that of `sum`: then `sum` is there for its gradients only.
    pub value: Option<f64>,
    /// For each of [`Objective::VALUES`], its sum over what the batch weighs.
    pub values: Vec<f64>,
}

impl Loss {
    /// The loss as a number.
    pub fn number(&self) -> f64 {
        self.value.unwrap_or_else(|| self.sum.clone().inner().into_scalar::<f64>())
    }
}

/// The loss of a micro-batch as a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// See [`Loss::number`].
    pub loss: f64,
    /// See [`Loss::values`].
    pub values: Vec<f64>,
}

/// A pass over all parts at once.
pub(crate) fn whole_pass<M: Module>(
    parts: &mut dyn Parts<M>,
    loss: Option<impl FnOnce(&M) -> Loss>,
) -> Result<Option<Pass>> {
    let network = parts.network(0, true)?;
    let found = loss.map(|loss| loss(&network));
    let pass = found.as_ref().map(|found| Pass { loss: found.number(), values: found.values.clone() });
    let gradients = found.map(|found| NamedGradients::of(&network, found.sum.backward()));
    drop(network);
    parts.give(0, gradients)?;
    Ok(pass)
}

/// The whole of a network, whose gradients are collected: for a pass outside of a run.
pub struct Collected<'a, M> {
    network: &'a M,
    /// What a pass has given.
    pub gradients: NamedGradients,
}

impl<'a, M> Collected<'a, M> {
    /// With gradients tracked for what is trained of it.
    pub fn new(network: &'a M) -> Self {
        Self { network, gradients: NamedGradients::default() }
    }
}

impl<M: Module> Parts<M> for Collected<'_, M> {
    fn ahead(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    fn network(&mut self, _: usize, tracked: bool) -> Result<M> {
        Ok(if tracked { self.network.clone() } else { self.network.valid() })
    }
    fn give(&mut self, _: usize, gradients: Option<NamedGradients>) -> Result<()> {
        gradients.into_iter().for_each(|gradients| self.gradients.add(gradients));
        Ok(())
    }
}

/// How much of the validation data is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A part that costs little beside the steps between.
    Part,
    /// All.
    Whole,
}

/// What a validation measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// The numbers; their names begin with `validation_`.
    pub values: Values,
    /// The name of the one that matters.
    pub headline: &'static str,
    /// That one for the progress bar: `1.234 nats/byte`.
    pub shown: String,
}

/// What is learnt by a network of type `M`.
///
/// A run must be the same whenever it is repeated or taken up again: [`Objective::batch`] is a pure function of seed
/// and index (and of the network's weights where it is [`Objective::BY_NETWORK`]), and what is random in a pass comes
/// from the stream that it is given.
pub trait Objective<M: Module>: Sync {
    /// One micro-batch.
    type Batch: Send;

    /// Whether the network itself makes the batches. They are then made between the steps, not ahead of their use.
    const BY_NETWORK: bool = false;

    /// The names of the objective's own numbers, which go into the metrics as means over what a step weighs.
    const VALUES: &'static [&'static str] = &[];

    /// How the work is counted.
    fn units(&self, network: &M) -> Units;

    /// A micro-batch.
    ///
    /// # Errors
    /// If what it is made from cannot be read.
    fn batch(&self, place: Place<M>) -> Result<Self::Batch>;

    /// What a batch weighs in the mean over a step: predictions, rows, pairs. A batch of weight 0 is passed over.
    fn weight(&self, batch: &Self::Batch) -> u64;

    /// The loss of a batch, times `scale`. What is dropped or drawn comes from `noise`.
    fn loss(&self, network: &M, batch: &Self::Batch, noise: Stream, scale: f64) -> Loss;

    /// The part of the network that a parameter belongs to, counted from 0: what a pass needs at one time. One part, if
    /// an objective does not say more.
    fn part(&self, _parameter: &str) -> usize {
        0
    }

    /// The parameters that every use rounds to bf16, so that other processes may be sent them rounded.
    fn rounded_parameters(&self, _network: &M) -> Vec<String> {
        vec![]
    }

    /// A pass through the network and back: the gradients go to `parts`, part by part. Without a batch nothing is
    /// computed, and the same calls are made. An objective that can save memory has its own way.
    ///
    /// # Errors
    /// If another process cannot be reached, or has parted from the common path.
    fn pass(
        &self,
        parts: &mut dyn Parts<M>,
        batch: Option<&Self::Batch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        whole_pass(parts, batch.map(|batch| move |network: &M| self.loss(network, batch, noise, scale)))
    }

    /// Measures a network on data that it is not trained on; none if there are none.
    ///
    /// # Errors
    /// If the data hold nothing to measure, or the work is interrupted.
    fn validate(&self, _network: &M, _extent: Extent, _observer: Observer) -> Result<Option<Validation>> {
        Ok(None)
    }

    /// The objective's own numbers of a step for the progress bar, in the order of [`Objective::VALUES`].
    fn shown(&self, _values: &[f64]) -> String {
        String::new()
    }

    /// Numbers about the data, for the figures of the finished run.
    fn figures(&self) -> Values {
        Values::new()
    }
}
