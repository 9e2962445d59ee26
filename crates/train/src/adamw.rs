//! AdamW (Loshchilov and Hutter, 2019) as PyTorch computes it, over all parameters in one pass,
//! with clipping by the norm over all gradients together. Plain slices; no tensors.
//!
//! Every sum runs over blocks of fixed size in a fixed order, so that the result does not depend on
//! the number of threads.

use rayon::prelude::*;

/// Values that one task handles at a time.
const BLOCK: usize = 1 << 14;

/// The constants of one step.
#[derive(Clone, Copy, Debug)]
pub struct Hyperparameters {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of matrices only.
    pub weight_decay: f64,
    /// Largest norm over all gradients; 0 for no limit.
    pub grad_clip: f64,
}

/// One parameter with its moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Master weights.
    pub weights: Vec<f32>,
    /// First moment.
    pub first: Vec<f32>,
    /// Second moment.
    pub second: Vec<f32>,
}

/// The optimizer's state: every trained parameter in the order of the model's definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdamW {
    /// The parameters.
    pub slots: Vec<Slot>,
    /// Steps taken.
    pub steps: u64,
}

impl AdamW {
    /// Adds a parameter with zero moments.
    pub fn add(&mut self, name: String, shape: Vec<usize>, weights: Vec<f32>) {
        let zeros = vec![0.0; weights.len()];
        self.slots.push(Slot { name, shape, first: zeros.clone(), second: zeros, weights });
    }

    /// One step. `gradients` are in the order of the slots. Returns the norm before clipping.
    pub fn step(&mut self, gradients: &[Vec<f32>], hyper: &Hyperparameters) -> f64 {
        assert_eq!(gradients.len(), self.slots.len(), "one gradient for each parameter");
        self.steps += 1;
        let norm = gradients.iter().map(|gradient| square_sum(gradient)).sum::<f64>().sqrt();
        let clip = if hyper.grad_clip > 0.0 { (hyper.grad_clip / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
        let (b1, b2) = (hyper.beta1 as f32, hyper.beta2 as f32);
        let correction1 = 1.0 - hyper.beta1.powi(self.steps as i32);
        let correction2 = (1.0 - hyper.beta2.powi(self.steps as i32)).sqrt() as f32;
        let (rate, eps) = ((hyper.lr / correction1) as f32, hyper.eps as f32);
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            let decay = if slot.shape.len() >= 2 { hyper.weight_decay } else { 0.0 };
            let keep = (1.0 - hyper.lr * decay) as f32;
            let blocks = slot.weights.par_chunks_mut(BLOCK).zip(slot.first.par_chunks_mut(BLOCK));
            let blocks = blocks.zip(slot.second.par_chunks_mut(BLOCK)).zip(gradient.par_chunks(BLOCK));
            blocks.for_each(|(((weights, first), second), gradient)| {
                for i in 0..weights.len() {
                    let g = gradient[i] * clip;
                    first[i] = b1 * first[i] + (1.0 - b1) * g;
                    second[i] = b2 * second[i] + (1.0 - b2) * g * g;
                    let denominator = second[i].sqrt() / correction2 + eps;
                    weights[i] = weights[i] * keep - rate * first[i] / denominator;
                }
            });
        }
        norm
    }
}

/// The sum of squares in f64, block by block.
fn square_sum(values: &[f32]) -> f64 {
    let blocks: Vec<f64> =
        values.par_chunks(BLOCK).map(|block| block.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()).collect();
    blocks.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `xtask/goldens/adamw.py`: torch.optim.AdamW with clip_grad_norm_, five steps.
    #[test]
    fn steps_are_those_of_pytorch() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../tests/golden/adamw.json")).unwrap();
        let list = |value: &serde_json::Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
        let hyper =
            Hyperparameters { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, grad_clip: 1.0 };
        let mut optimizer = AdamW::default();
        optimizer.add("matrix".into(), vec![2, 3], list(&golden["initial"]));
        for step in golden["steps"].as_array().unwrap() {
            let norm = optimizer.step(&[list(&step["gradient"])], &hyper);
            assert!((norm - step["norm"].as_f64().unwrap()).abs() < 1e-5);
            for (found, expected) in optimizer.slots[0].weights.iter().zip(list(&step["weights"])) {
                assert!((found - expected).abs() < 5e-7, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn vectors_are_not_decayed() {
        let hyper = Hyperparameters { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.5, grad_clip: 0.0 };
        let mut optimizer = AdamW::default();
        optimizer.add("vector".into(), vec![2], vec![1.0, -1.0]);
        optimizer.add("matrix".into(), vec![1, 2], vec![1.0, -1.0]);
        optimizer.step(&[vec![0.0; 2], vec![0.0; 2]], &hyper);
        assert_eq!(optimizer.slots[0].weights, [1.0, -1.0]);
        assert_eq!(optimizer.slots[1].weights, [0.95, -0.95]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let values: Vec<f32> = (0..200_000).map(|i| (i as f32 * 0.37).sin()).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let hyper =
                    Hyperparameters { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, grad_clip: 1.0 };
                let mut optimizer = AdamW::default();
                optimizer.add("x".into(), vec![400, 500], values.clone());
                let norm = optimizer.step(std::slice::from_ref(&values), &hyper);
                (norm, optimizer)
            })
        };
        assert_eq!(run(1), run(4));
    }
}
