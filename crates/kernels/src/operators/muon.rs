//! Muon (Jordan et al., 2024): momentum whose matrix is made nearly orthogonal by five Newton-Schulz steps, in
//! the scaling of Moonlight (Liu et al., 2025), which gives its steps the size of AdamW's.
//!
//! Shapes: R rows, C columns, S the smaller and L the larger of them.
//! Arithmetic: 5 (4 S² L + 2 S³). Bytes: little beside that.

use crate::operators::{adamw::square_sum, linear::linear};
use burn::tensor::Tensor;
use narthex_base::config::Precision;

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonStep {
    /// The learning rate of this step.
    pub lr: f64,
    /// Decay of the momentum, used in Nesterov's way.
    pub momentum: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What gradients are multiplied by: clipping, and unscaling of a scaled loss.
    pub gradient_scale: f64,
}

/// How many Newton-Schulz iterations bring a matrix near enough to an orthogonal one.
const ITERATIONS: usize = 5;

/// The coefficients of the quintic that takes singular values from (0, 1] to about 0.7..1.2.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Moonlight's factor to the root mean square of an AdamW step.
const RMS: f64 = 0.2;

/// One step of a matrix `[R, C]`: (weights, momentum). None of the tensors may be tracked by autodiff.
pub fn muon(weights: Tensor<2>, gradient: Tensor<2>, momentum: Tensor<2>, step: &MuonStep) -> (Tensor<2>, Tensor<2>) {
    let [rows, columns] = weights.dims();
    let gradient = gradient * step.gradient_scale;
    let momentum = momentum * step.momentum + gradient.clone() * (1.0 - step.momentum);
    let ahead = gradient * (1.0 - step.momentum) + momentum.clone() * step.momentum;
    let update = orthogonal(ahead);
    let size = RMS * (rows.max(columns) as f64).sqrt();
    let weights = weights * (1.0 - step.lr * step.weight_decay) - update * (step.lr * size);
    (weights, momentum)
}

/// The nearest (semi-)orthogonal matrix, roughly: all singular values between about 0.7 and 1.2.
pub(crate) fn orthogonal(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let norm = square_sum(&x).sqrt();
    // The columns of the taller form: products with it are inner products along its rows.
    let mut tall = if rows > columns { x } else { x.transpose() } * (1.0 / (norm + 1e-7));
    let product = |x: &Tensor<2>, y: &Tensor<2>| linear(x.clone(), std::slice::from_ref(y), None, None, Precision::F32);
    let [a, b, c] = QUINTIC;
    for _ in 0..ITERATIONS {
        let wide = tall.clone().transpose();
        let gram = product(&wide, &wide);
        let mix = gram.clone() * b + product(&gram, &gram) * c;
        // Both factors are symmetric, so X (a + b G + c G²) needs no more transposing.
        tall = tall.clone() * a + product(&tall, &mix);
    }
    if rows > columns { tall } else { tall.transpose() }
}
