//! The learning rate of a step. Pure.

use narthex_base::config::{Decay, LearningRate, Schedule};

/// The learning rate of `step`, counted from 0: linear warm-up, then a cosine (Loshchilov and Hutter, 2017) or constant
/// with a linear decay at the end ("WSD": Hu et al., "MiniCPM", 2024), down to `lr_end` times the peak.
pub fn learning_rate(schedule: &Schedule, step: u64) -> f64 {
    let LearningRate { lr, lr_end, warmup, decay, decay_fraction } = schedule.rate;
    let steps = schedule.batches.steps;
    if step < warmup {
        return lr * (step + 1) as f64 / warmup as f64;
    }
    let progress = |from: u64| {
        let len = steps.saturating_sub(from).max(1) as f64;
        ((step.saturating_sub(from)) as f64 / len).min(1.0)
    };
    let fraction = match decay {
        Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress(warmup)).cos()),
        Decay::Wsd => {
            let decay_steps = (steps as f64 * decay_fraction).round() as u64;
            1.0 - progress(steps.saturating_sub(decay_steps).max(warmup))
        }
    };
    lr * (lr_end + (1.0 - lr_end) * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::config::Batching;

    fn check(decay: Decay, step: u64, expected: f64) {
        let schedule = Schedule {
            batches: Batching { steps: 100, ..Batching::default() },
            rate: LearningRate { lr: 1.0, lr_end: 0.1, warmup: 10, decay, decay_fraction: 0.2 },
            ..Schedule::default()
        };
        let found = learning_rate(&schedule, step);
        assert!((found - expected).abs() < 1e-9, "{decay:?} at {step}: {found}, not {expected}");
    }

    #[test]
    fn warms_up_and_decays() {
        for decay in [Decay::Cosine, Decay::Wsd] {
            check(decay, 0, 0.1);
            check(decay, 9, 1.0);
            check(decay, 10, 1.0);
            check(decay, 100, 0.1);
        }
        check(Decay::Cosine, 55, 0.55);
        check(Decay::Wsd, 79, 1.0);
        check(Decay::Wsd, 90, 0.55);
    }
}
