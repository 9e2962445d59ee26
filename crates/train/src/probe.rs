//! How fast this machine multiplies matrices: what utilisation is measured against.

use burn::tensor::{Distribution, Tensor};
use std::{sync::OnceLock, time::Instant};

/// Floating-point operations per second of the best of several products of two 1024 x 1024 matrices in f32.
/// Measured once in a process.
pub fn matmul_flop_per_second() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(|| {
        const SIZE: usize = 1024;
        const TRIES: usize = 8;
        let device = narthex_model::cpu();
        let random = || Tensor::<2>::random([SIZE, SIZE], Distribution::Uniform(-1.0, 1.0), &device);
        let (a, b) = (random(), random());
        let seconds = (0..TRIES).map(|_| {
            let start = Instant::now();
            let product = a.clone().matmul(b.clone());
            let seconds = start.elapsed().as_secs_f64();
            drop(product);
            seconds
        });
        2.0 * (SIZE * SIZE * SIZE) as f64 / seconds.fold(f64::INFINITY, f64::min)
    })
}
