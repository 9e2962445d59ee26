//! From logits to a token. Pure functions over one row of logits; random numbers come from a counter.

use crate::{Sampling, TokenLogprobs};
use narthex_base::random::Stream;

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub id: u32,
    /// Present if log-probabilities were asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Chooses the token at `position` (counted from the first new token).
///
/// The order is vLLM's: temperature, top-k, top-p. Ties go to the lower id, so that a result never depends on the
/// order of a sort.
pub fn sample(logits: &[f32], sampling: &Sampling, position: u64, logprobs: Option<usize>) -> Sampled {
    let id = if sampling.temperature <= 0.0 { greedy(logits) } else { draw(logits, sampling, position) };
    Sampled { id, logprobs: logprobs.map(|top| token_logprobs(logits, id, top)) }
}

/// The log-probability of `id` and of the `top` most likely tokens.
pub(crate) fn token_logprobs(logits: &[f32], id: u32, top: usize) -> TokenLogprobs {
    let all = log_softmax(logits);
    let best = ranked(&all, top);
    TokenLogprobs { logprob: all[id as usize], top: best.into_iter().map(|id| (id, all[id as usize])).collect() }
}

/// Logits -> log-probabilities, summed in f64 in the order of the ids.
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    let offset = f64::from(largest) + sum.ln();
    logits.iter().map(|l| (f64::from(*l) - offset) as f32).collect()
}

fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// The ids of the `count` largest values, largest first, ties by id.
fn ranked(values: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..values.len() as u32).collect();
    let order = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
    let count = count.min(ids.len());
    if count == 0 {
        return vec![];
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

fn draw(logits: &[f32], sampling: &Sampling, position: u64) -> u32 {
    let keep = if sampling.top_k == 0 { logits.len() } else { sampling.top_k };
    let ids = ranked(logits, keep);
    let largest = logits[ids[0] as usize];
    let temperature = f64::from(sampling.temperature);
    let weights: Vec<f64> =
        ids.iter().map(|id| (f64::from(logits[*id as usize] - largest) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = ids.len();
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        let enough = f64::from(sampling.top_p) * total;
        let reached = weights.iter().position(|w| {
            sum += w;
            sum >= enough
        });
        kept = reached.map_or(ids.len(), |last| last + 1);
    }
    let total: f64 = weights[..kept].iter().sum();
    let mut rest = Stream::new(sampling.seed, "sampling").uniform_f64(position) * total;
    for (id, weight) in ids[..kept].iter().zip(&weights) {
        rest -= weight;
        if rest < 0.0 {
            return *id;
        }
    }
    ids[kept - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn shares(sampling: &Sampling) -> Vec<f64> {
        let mut counts = [0f64; 5];
        let draws = 40_000;
        (0..draws).for_each(|i| counts[sample(&LOGITS, sampling, i, None).id as usize] += 1.0);
        counts.iter().map(|count| count / draws as f64).collect()
    }

    fn check(sampling: &Sampling, allowed: &[usize]) {
        let scaled: Vec<f64> = LOGITS.iter().map(|l| (f64::from(*l) / f64::from(sampling.temperature)).exp()).collect();
        let total: f64 = allowed.iter().map(|i| scaled[*i]).sum();
        for (i, share) in shares(sampling).into_iter().enumerate() {
            let expected = if allowed.contains(&i) { scaled[i] / total } else { 0.0 };
            assert!((share - expected).abs() < 0.01, "{sampling:?}: token {i} has share {share}, not {expected}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let base = Sampling { seed: 9, ..Sampling::default() };
        check(&base, &[0, 1, 2, 3, 4]);
        check(&Sampling { temperature: 2.0, ..base.clone() }, &[0, 1, 2, 3, 4]);
        check(&Sampling { top_k: 3, ..base.clone() }, &[1, 2, 3]);
        check(&Sampling { top_p: 0.5, ..base.clone() }, &[1, 3]);
        check(&Sampling { top_k: 3, top_p: 0.4, ..base }, &[1]);
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(sample(&LOGITS, &greedy, 0, None), Sampled { id: 1, logprobs: None });
    }

    #[test]
    fn logprobs_are_of_the_models_distribution() {
        let sampled = sample(&LOGITS, &Sampling { temperature: 0.0, ..Sampling::default() }, 0, Some(3));
        let logprobs = sampled.logprobs.unwrap();
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(logprobs.logprob, logprobs.top[0].1);
        let total: f64 = log_softmax(&LOGITS).iter().map(|l| f64::from(*l).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }
}
