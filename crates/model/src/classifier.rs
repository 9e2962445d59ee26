//! Text classifiers: an encoder or a decoder with a head that gives a score for each label. To be trained in full or
//! through adapters, and run. Knows tokens and labels' names; no text and no schedule.

mod files;

use crate::{
    attention::CausalContext,
    decoder::Decoder,
    dropout::Dropout,
    encoder::{Encoder, EncoderInput, Head, HeadShape, Places},
    layers::Linear,
    lora::{Lora, LoraSpec},
    maker::{Maker, Packing},
    one_of::one_of,
    parameters::{for_training, named_parameters, shapes},
    weights::TensorMap,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_kernels::Precision;
use serde_json::Value;

/// A classifier of token sequences. As a module it holds the parameters of its network, named below `network`, and of
/// its head, below `head`.
///
/// ```no_run
/// # fn main() -> narthex_base::Result<()> {
/// use narthex_model::{Classifier, Dropout, EncoderInput, cpu};
/// let labels = ["ham".to_string(), "spam".to_string()];
/// let classifier = Classifier::read("all-MiniLM-L6-v2".as_ref(), Some(&labels), 1, &cpu())?;
/// let input = EncoderInput { ids: vec![101, 2489, 2769, 102], types: vec![] };
/// let scores = classifier.logits(&[&input], &mut Dropout::none()); // [1, 2]
/// # Ok(())
/// # }
/// ```
#[derive(Module, Debug)]
pub struct Classifier {
    network: Network,
    head: Head,
    #[module(skip)]
    form: Form,
}

/// What gives a vector for each token.
#[derive(Clone, Debug)]
enum Network {
    Encoder(Encoder),
    Decoder(Decoder),
}
one_of!(Network { Encoder, Decoder });

/// What a classifier is, besides its weights.
#[derive(Clone, Debug)]
struct Form {
    head: HeadShape,
    labels: Vec<String>,
    /// `config.json` as it was read.
    source: Value,
}

impl Classifier {
    /// The labels, in the order of their scores.
    pub fn labels(&self) -> &[String] {
        &self.form.labels
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        match &self.network {
            Network::Encoder(encoder) => encoder.config().shape.context,
            Network::Decoder(decoder) => decoder.config().context,
        }
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        match &self.network {
            Network::Encoder(encoder) => encoder.config().shape.vocab_size,
            Network::Decoder(decoder) => decoder.config().vocab_size,
        }
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        match &self.network {
            Network::Encoder(encoder) => encoder.precision(),
            Network::Decoder(decoder) => decoder.precision(),
        }
    }

    /// The same with products in this precision; f32 unless set. Weights stay f32.
    pub fn with_precision(self, precision: Precision) -> Self {
        let network = match self.network {
            Network::Encoder(encoder) => Network::Encoder(encoder.with_precision(precision)),
            Network::Decoder(decoder) => Network::Decoder(decoder.with_precision(precision)),
        };
        Self { network, ..self }
    }

    /// What a user should know of how its config was read.
    pub fn notes(&self) -> &[String] {
        match &self.network {
            Network::Encoder(encoder) => &encoder.config().shape.design.notes,
            Network::Decoder(decoder) => &decoder.config().design.notes,
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        match &self.network {
            Network::Encoder(encoder) => encoder.device(),
            Network::Decoder(decoder) => decoder.device(),
        }
    }

    /// The score of each label for each sequence, as logits: `[S, labels]`. It can be differentiated. What a sequence
    /// yields does not depend on the others. Dropout is that of transformers, with one probability for all places.
    ///
    /// # Panics
    /// If there is no sequence, or one is empty, longer than [`Classifier::context`], or has unknown ids.
    pub fn logits(&self, inputs: &[&EncoderInput], dropout: &mut Dropout) -> Tensor<2> {
        assert!(!inputs.is_empty(), "there is a sequence");
        assert!(inputs.iter().all(|input| !input.ids.is_empty()), "every sequence has a token");
        let lengths = inputs.iter().map(|input| input.ids.len());
        let (hidden, places) = match &self.network {
            Network::Encoder(encoder) => (encoder.forward(inputs, dropout), Places::packed(lengths)),
            Network::Decoder(decoder) => {
                let longest = lengths.clone().max().unwrap_or(0);
                (hidden_of_rows(decoder, inputs, longest, dropout), Places::padded(lengths, longest))
            }
        };
        self.head.forward(hidden, &places, dropout, self.precision())
    }

    /// The same as numbers, one row a sequence; none for none.
    ///
    /// # Panics
    /// As [`Classifier::logits`], but for no sequence.
    pub fn scores(&self, inputs: &[&EncoderInput]) -> Vec<Vec<f32>> {
        if inputs.is_empty() {
            return vec![];
        }
        let logits = self.logits(inputs, &mut Dropout::none()).into_data();
        let values = logits.as_slice::<f32>().expect("logits are f32");
        values.chunks_exact(self.form.labels.len()).map(<[f32]>::to_vec).collect()
    }

    /// Every projection of the blocks, with its name.
    fn projections(&mut self) -> Box<dyn Iterator<Item = (String, &mut Linear)> + '_> {
        match &mut self.network {
            Network::Encoder(encoder) => Box::new(encoder.projections()),
            Network::Decoder(decoder) => Box::new(decoder.projections()),
        }
    }

    /// Adds adapters to the projections whose names end in one of the targets, drawn by counter from the seed.
    /// Projections have Llama's names, whatever the family: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`,
    /// `up_proj`, `down_proj`.
    pub fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Self {
        for (name, linear) in self.projections() {
            let target = name.rsplit('.').next().unwrap_or_default();
            if spec.targets.iter().any(|wanted| wanted == target) {
                linear.lora = Some(Lora::random(spec, seed, &name, &linear.weight));
            }
        }
        self
    }

    /// Names of the parameters of the adapters, which are trained alone with those of the head.
    pub fn adapter_parameters(&self) -> Vec<String> {
        let mut copy = self.clone();
        let adapters = copy.projections().filter_map(|(name, linear)| Some((name, linear.lora.take()?)));
        let names = |(name, adapter)| {
            shapes(&adapter).into_iter().map(move |(part, _)| format!("network.{name}.lora.{part}")).collect::<Vec<_>>()
        };
        adapters.flat_map(names).collect()
    }

    /// Names of the parameters of the head.
    pub fn head_parameters(&self) -> Vec<String> {
        shapes(&self.head).into_iter().map(|(name, _)| format!("head.{name}")).collect()
    }

    /// Names of the parameters of the projections of the blocks, adapters included: the hidden layers.
    pub fn hidden_parameters(&self) -> Vec<String> {
        let mut copy = self.clone();
        let names = |(name, linear): (String, &mut Linear)| {
            shapes(&*linear).into_iter().map(move |(part, _)| format!("network.{name}.{part}")).collect::<Vec<_>>()
        };
        copy.projections().flat_map(names).collect()
    }

    /// Adds the adapters into the weights and drops them.
    pub fn merged(mut self) -> Self {
        self.projections().for_each(|(_, linear)| linear.merge());
        self
    }

    /// The same with gradients tracked for the parameters whose names `trained` accepts.
    pub fn for_training(self, trained: impl Fn(&str) -> bool) -> Self {
        for_training(self, trained)
    }

    /// The same packed for inference on the CPU, adapters merged: faster, with nothing left to train or to write.
    pub fn pack(&self, precision: Precision) -> Self {
        let merged = self.clone().merged();
        let head = merged.head_tensors();
        let made = || -> Result<Self> {
            let network = match &merged.network {
                Network::Encoder(encoder) => {
                    let weights: TensorMap = tensors(encoder);
                    let maker = Packing { weights: &weights, precision };
                    Network::Encoder(Encoder::made(encoder.config().clone(), &maker, precision)?)
                }
                Network::Decoder(decoder) => Network::Decoder(decoder.pack(precision)),
            };
            let maker = Packing { weights: &head, precision };
            let form = &self.form;
            let head = Head::made(&form.head, self.hidden_size(), form.labels.len(), &|_| &maker as &dyn Maker)?;
            Ok(Self { network, head, form: form.clone() })
        };
        made().expect("a classifier's weights fit its config")
    }

    fn hidden_size(&self) -> usize {
        match &self.network {
            Network::Encoder(encoder) => encoder.config().shape.hidden_size,
            Network::Decoder(decoder) => decoder.config().hidden_size,
        }
    }

    /// The head's weights by their names in checkpoints.
    fn head_tensors(&self) -> TensorMap {
        tensors(&self.head).into_iter().map(|(name, tensor)| (self.form.head.theirs(&name), tensor)).collect()
    }
}

/// All weights of a module by its own names.
fn tensors(module: &impl Module) -> TensorMap {
    named_parameters(module).into_iter().map(|tensor| (tensor.name, (tensor.shape, tensor.values))).collect()
}

/// The vectors of all tokens of sequences that are filled up behind to `longest`, which none of their tokens sees:
/// `[S * longest, hidden]`.
fn hidden_of_rows(decoder: &Decoder, inputs: &[&EncoderInput], longest: usize, dropout: &mut Dropout) -> Tensor<2> {
    let device = decoder.device();
    let mut ids = vec![0i64; inputs.len() * longest];
    for (row, input) in ids.chunks_exact_mut(longest).zip(inputs) {
        row.iter_mut().zip(&input.ids).for_each(|(to, id)| *to = i64::from(*id));
    }
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [inputs.len(), longest]), &device);
    let places: Vec<usize> = (0..longest).collect();
    let positions = decoder.positions(&[&places], &device);
    decoder.hidden(tokens, &positions, &mut CausalContext::new(longest), dropout)
}
