//! Dropout whose masks come from a counter: (seed, step, site, element) -> kept or not, so that a
//! resumed run drops the same elements, whatever the number of threads.

use burn::tensor::{Tensor, TensorData};
use narthex_base::random::Stream;
use narthex_kernels::AttentionDropout;
use rayon::prelude::*;

/// Elements that one task draws at a time.
const BLOCK: usize = 1 << 14;

/// Dropout for one forward pass. Each use is a new site of the stream.
#[derive(Clone, Debug)]
pub struct Dropout {
    stream: Stream,
    probability: f64,
    site: u64,
}

impl Dropout {
    /// Drops with this probability, drawing from `stream` (one stream per training step and micro-batch).
    pub fn new(stream: Stream, probability: f64) -> Self {
        Self { stream, probability, site: 0 }
    }

    /// Drops nothing.
    pub fn none() -> Self {
        Self::new(Stream::new(0, "no dropout"), 0.0)
    }

    /// Whether it drops anything.
    pub fn drops(&self) -> bool {
        self.probability > 0.0
    }

    /// Dropout of the weights of a layer's attention; none if nothing is dropped.
    pub(crate) fn of_attention(&self, layer: usize) -> Option<AttentionDropout> {
        // Apart from the sites, which count from 0.
        let stream = self.stream.at(u64::MAX - layer as u64);
        self.drops().then_some(AttentionDropout { stream, probability: self.probability as f32 })
    }

    /// Zeroes elements with the set probability and scales the others by 1 / (1 - p).
    pub fn apply<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        self.apply_with(x, self.probability)
    }

    /// The same with another probability, from the same stream.
    pub fn apply_with<const D: usize>(&mut self, x: Tensor<D>, probability: f64) -> Tensor<D> {
        if probability <= 0.0 {
            return x;
        }
        let stream = self.stream.at(self.site);
        self.site += 1;
        let shape = x.dims();
        let mut mask = vec![0f32; shape.iter().product()];
        let (keep, scale) = (1.0 - probability as f32, (1.0 / (1.0 - probability)) as f32);
        mask.par_chunks_mut(BLOCK).enumerate().for_each(|(block, chunk)| {
            for (i, value) in chunk.iter_mut().enumerate() {
                let kept = stream.uniform((block * BLOCK + i) as u64) < keep;
                *value = if kept { scale } else { 0.0 };
            }
        });
        let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), &x.device().inner());
        if x.is_autodiff() { x * Tensor::from_inner(mask) } else { x * mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn keeps_the_mean_and_repeats() {
        let stream = Stream::new(3, "dropout");
        let ones = Tensor::<2>::ones([200, 300], &cpu());
        let mut dropout = Dropout::new(stream, 0.25);
        let (first, second) = (values(dropout.apply(ones.clone())), values(dropout.apply(ones.clone())));
        assert_ne!(first, second, "each site draws anew");
        assert_eq!(first, values(Dropout::new(stream, 0.25).apply(ones.clone())), "the same counter drops the same");
        let zeros = first.iter().filter(|v| **v == 0.0).count() as f64 / 60_000.0;
        let mean = first.iter().sum::<f32>() / 60_000.0;
        assert!((zeros - 0.25).abs() < 0.01 && (mean - 1.0).abs() < 0.01, "{zeros} {mean}");
        assert_eq!(values(Dropout::none().apply(ones)), vec![1.0; 60_000]);
    }
}
