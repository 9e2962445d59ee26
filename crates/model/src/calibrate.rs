//! What a model's layers are given, measured on text, and how two models do on the same text. Knows models and token
//! ids; no files, no text.

pub use crate::calibration::{Calibration, Watching, awq_factors};

use crate::{
    attention::{AttentionContext, CausalContext},
    decoder::Decoder,
    device::cpu,
    dropout::Dropout,
    weights::TensorMap,
};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_base::Result;

/// Runs a model over windows of tokens and returns what its layers were given. No window is longer than the model's
/// context.
///
/// # Errors
/// None of a model whose weights fit its config.
pub fn calibrate(model: &Decoder, windows: &[Vec<u32>]) -> Result<Calibration> {
    let weights: TensorMap = model.tensors();
    let watching = Watching::new(&weights);
    let packed = Decoder::packed(model.config(), &watching, model.precision())?;
    for window in windows.iter().filter(|window| !window.is_empty()) {
        drop(scores(&packed, window));
    }
    Ok(watching.calibration())
}

/// The scores of the next token after each token of a window: `[T, vocabulary]`.
pub fn scores(model: &Decoder, window: &[u32]) -> Tensor<2> {
    let ids: Vec<i64> = window.iter().map(|id| i64::from(*id)).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, window.len()]), &cpu());
    let positions: Vec<usize> = (0..window.len()).collect();
    let rows = model.positions(&[&positions], &cpu());
    let mut context: Box<dyn AttentionContext> = Box::new(CausalContext::new(window.len()));
    let logits = model.forward(tokens, &rows, &mut *context, &mut Dropout::none());
    let vocabulary = model.config().vocab_size;
    logits.reshape([window.len(), vocabulary])
}

/// How two models do on the same text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Tokens predicted.
    pub tokens: usize,
    /// The sum of negative log-likelihoods of the first model, in nats.
    pub nats: f64,
    /// That of the second.
    pub other_nats: f64,
    /// Tokens of which both find the same one likeliest.
    pub same_top: usize,
}

/// Compares two models, both packed or not, on windows of tokens.
pub fn compare(model: &Decoder, other: &Decoder, windows: &[Vec<u32>]) -> Comparison {
    let mut comparison = Comparison::default();
    for window in windows.iter().filter(|window| window.len() > 1) {
        let (input, targets) = (&window[..window.len() - 1], &window[1..]);
        let ours = judged(model, input, targets);
        for ((nats, top), (other_nats, other_top)) in ours.into_iter().zip(judged(other, input, targets)) {
            comparison.tokens += 1;
            comparison.nats += nats;
            comparison.other_nats += other_nats;
            comparison.same_top += usize::from(top == other_top);
        }
    }
    comparison
}

/// For each target its negative log-likelihood, and the token that was likeliest instead or as well.
fn judged(model: &Decoder, input: &[u32], targets: &[u32]) -> Vec<(f64, usize)> {
    let scores = scores(model, input);
    let vocabulary = model.config().vocab_size;
    let scores = scores.into_data().try_to_vec::<f32>().expect("scores are f32");
    let judge = |(row, target): (&[f32], &u32)| {
        let top = row.iter().enumerate().fold(0, |best, (i, score)| if *score > row[best] { i } else { best });
        let largest = f64::from(row[top]);
        let sum: f64 = row.iter().map(|score| (f64::from(*score) - largest).exp()).sum();
        (sum.ln() + largest - f64::from(row[*target as usize]), top)
    };
    scores.chunks_exact(vocabulary).zip(targets).map(judge).collect()
}
