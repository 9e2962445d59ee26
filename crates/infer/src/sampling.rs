//! From logits to a token. Pure functions over one row of logits; random numbers come from a counter.

use crate::{
    constraint::TokenSet,
    request::{Sampling, TokenLogprobs},
};
use narthex_base::random::Stream;
use std::collections::HashMap;

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub id: u32,
    /// Present if log-probabilities were asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// The tokens that a sequence holds, as far as sampling wants to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// How often each token was sampled; 0 if it stands in the prompt only.
    counts: HashMap<u32, u32>,
    /// What was sampled, in order.
    output: Vec<u32>,
}

impl History {
    /// Of a prompt.
    pub fn new(prompt: &[u32]) -> Self {
        Self { counts: prompt.iter().map(|id| (*id, 0)).collect(), output: vec![] }
    }

    /// Adds a sampled token.
    pub fn push(&mut self, id: u32) {
        *self.counts.entry(id).or_default() += 1;
        self.output.push(id);
    }

    /// The token with which the output would hold this word at its end, if it holds what comes before.
    fn next_of(&self, word: &[u32]) -> Option<u32> {
        let (last, before) = word.split_last()?;
        self.output.ends_with(before).then_some(*last)
    }

    /// Tokens sampled so far.
    pub fn sampled(&self) -> u64 {
        self.output.len() as u64
    }
}

/// Chooses the next token of a sequence.
///
/// The order is vLLM's: biases, penalties, what may not be chosen, then temperature, min-p, top-k, top-p. Ties go to
/// the lower id, so that a result never depends on the order of a sort. Tokens outside `allowed` are never chosen, and
/// bad words only where nothing else is left.
pub fn sample(
    logits: &[f32],
    sampling: &Sampling,
    history: &History,
    allowed: Option<&TokenSet>,
    logprobs: Option<usize>,
) -> Sampled {
    let changed = change(logits, sampling, history, allowed);
    let wanted = changed.as_deref().unwrap_or(logits);
    let id = if sampling.temperature <= 0.0 { greedy(wanted) } else { draw(wanted, sampling, history.sampled()) };
    Sampled { id, logprobs: logprobs.map(|top| token_logprobs(logits, id, top)) }
}

/// The logits that are drawn from, if they are not the model's own.
fn change(logits: &[f32], sampling: &Sampling, history: &History, allowed: Option<&TokenSet>) -> Option<Vec<f32>> {
    let Sampling { repetition_penalty, presence_penalty, frequency_penalty, logit_bias, bad_words, .. } = sampling;
    let bad: Vec<u32> = bad_words.iter().filter_map(|word| history.next_of(word)).collect();
    let penalised = *repetition_penalty != 1.0 || *presence_penalty != 0.0 || *frequency_penalty != 0.0;
    if !penalised && logit_bias.is_empty() && allowed.is_none() && bad.is_empty() {
        return None;
    }
    let mut logits = logits.to_vec();
    for (id, bias) in logit_bias {
        logits[*id as usize] += bias;
    }
    if penalised {
        for (id, count) in &history.counts {
            let logit = &mut logits[*id as usize];
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if *count > 0 {
                *logit -= presence_penalty + frequency_penalty * *count as f32;
            }
        }
    }
    if let Some(allowed) = allowed {
        allowed.keep(&mut logits);
    }
    let before: Vec<f32> = bad.iter().map(|id| logits[*id as usize]).collect();
    bad.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
    if !bad.is_empty() && largest(&logits) == f32::NEG_INFINITY {
        bad.iter().zip(before).for_each(|(id, logit)| logits[*id as usize] = logit);
    }
    Some(logits)
}

/// The log-probability of `id` and of the `top` most likely tokens.
pub(crate) fn token_logprobs(logits: &[f32], id: u32, top: usize) -> TokenLogprobs {
    let offset = log_sum(logits);
    let logprob = |id: u32| (f64::from(logits[id as usize]) - offset) as f32;
    let own = logits[id as usize];
    let rank = 1 + logits.iter().filter(|logit| **logit > own).count();
    TokenLogprobs {
        logprob: logprob(id),
        rank,
        top: ranked(logits, top).into_iter().map(|id| (id, logprob(id))).collect(),
    }
}

/// The log-probabilities of these tokens; the sum over all is made once.
pub(crate) fn logprobs_of(logits: &[f32], ids: &[u32]) -> Vec<(u32, f32)> {
    let offset = log_sum(logits);
    ids.iter().map(|id| (*id, (f64::from(logits[*id as usize]) - offset) as f32)).collect()
}

/// The logarithm of the sum of the exponentials, summed in f64 in the order of the ids.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = largest(logits);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

/// Logits -> log-probabilities.
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let offset = log_sum(logits);
    logits.iter().map(|l| (f64::from(*l) - offset) as f32).collect()
}

/// The largest value; a comparison that vectorizes, and that passes over NaN.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in chunks.by_ref() {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    chunks.remainder().iter().chain(&lanes).fold(f32::NEG_INFINITY, larger)
}

fn greedy(logits: &[f32]) -> u32 {
    let largest = largest(logits);
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32
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

/// Candidates that top-p looks at first; four times as many each time they are not enough.
const CANDIDATES: usize = 64;

fn draw(logits: &[f32], sampling: &Sampling, position: u64) -> u32 {
    let largest = largest(logits);
    let temperature = f64::from(sampling.temperature);
    let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(logit - largest) / temperature).exp()).collect();
    let uniform = Stream::new(sampling.seed, "sampling").uniform_f64(position);
    // What has no probability is never drawn, even where the last of a sum is lost to rounding.
    let enough = |weight: f64| weight > 0.0 && weight >= f64::from(sampling.min_p);
    if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        // Nothing to rank: the order of the ids will do.
        let all = weights.iter().enumerate().filter(|(_, weight)| enough(**weight));
        let total: f64 = all.clone().map(|(_, weight)| weight).sum();
        return pick(all.map(|(id, weight)| (id as u32, *weight)), uniform * total);
    }
    let total: f64 = weights.iter().filter(|weight| enough(**weight)).sum();
    let mut count = if sampling.top_k == 0 { CANDIDATES } else { sampling.top_k };
    loop {
        let ids = ranked(logits, count);
        let kept = ids.iter().take_while(|id| enough(weights[**id as usize])).count();
        let ids = &ids[..kept.max(1)];
        // Of what top-k leaves, if that was asked for.
        let total = if sampling.top_k == 0 { total } else { ids.iter().map(|id| weights[*id as usize]).sum() };
        let mut sum = 0.0;
        let reached = ids.iter().position(|id| {
            sum += weights[*id as usize];
            sum >= f64::from(sampling.top_p) * total
        });
        let complete = sampling.top_k > 0 || ids.len() < count || count >= logits.len();
        let Some(last) = reached.or(complete.then_some(ids.len() - 1)) else {
            count *= 4;
            continue;
        };
        let ids = &ids[..=last];
        let total: f64 = ids.iter().map(|id| weights[*id as usize]).sum();
        return pick(ids.iter().map(|id| (*id, weights[*id as usize])), uniform * total);
    }
}

/// The first id at which the sum of the weights passes `at`.
fn pick(weights: impl Iterator<Item = (u32, f64)>, mut at: f64) -> u32 {
    let mut last = 0;
    for (id, weight) in weights {
        at -= weight;
        last = id;
        if at < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    /// What [`sample`] chooses when `sampled` tokens came before.
    fn nth(sampling: &Sampling, sampled: u64) -> u32 {
        sample(&LOGITS, sampling, &History { output: vec![0; sampled as usize], ..History::default() }, None, None).id
    }

    fn shares(sampling: &Sampling) -> Vec<f64> {
        let mut counts = [0f64; 5];
        let draws = 40_000;
        (0..draws).for_each(|i| counts[nth(sampling, i) as usize] += 1.0);
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
        check(&Sampling { top_k: 3, top_p: 0.4, ..base.clone() }, &[1]);
        check(&Sampling { min_p: 0.3, ..base.clone() }, &[1, 2, 3]);
        check(&Sampling { min_p: 0.3, top_p: 0.6, ..base.clone() }, &[1, 3]);
        check(&Sampling { min_p: 0.3, top_k: 2, ..base }, &[1, 3]);
    }

    #[test]
    fn top_p_looks_as_far_as_it_must() {
        let logits: Vec<f32> = (0..1000).map(|i| -(i as f32) / 1e4).collect();
        let sampling = Sampling { top_p: 0.9, seed: 4, ..Sampling::default() };
        let drawn = (0..2000).map(|sampled| {
            sample(&logits, &sampling, &History { output: vec![0; sampled], ..History::default() }, None, None).id
        });
        let largest = drawn.max().unwrap();
        assert!((880..900).contains(&largest), "{largest}");
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(sample(&LOGITS, &greedy, &History::default(), None, None), Sampled { id: 1, logprobs: None });
        let long: Vec<f32> = (0..100).map(|i| if i == 37 || i == 90 { 1.0 } else { 0.0 }).collect();
        assert_eq!(sample(&long, &greedy, &History::default(), None, None).id, 37);
    }

    #[test]
    fn biases_penalties_and_forbidden_tokens_change_the_choice() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut history = History::new(&[1, 1]);
        [3, 3, 2].into_iter().for_each(|id| history.push(id));
        let choose = |sampling: &Sampling, forbidden: &[u32]| {
            let mut allowed = TokenSet::of(5, &[0, 1, 2, 3, 4]);
            forbidden.iter().for_each(|id| allowed.remove(*id));
            sample(&LOGITS, sampling, &history, Some(&allowed), None).id
        };
        assert_eq!(choose(&greedy, &[1]), 3);
        assert_eq!(choose(&greedy, &[1, 3]), 2);
        assert_eq!(choose(&Sampling { logit_bias: vec![(4, 5.0)], ..greedy.clone() }, &[]), 4);
        // 1 and 3 stand in the sequence: 3 / 4 < 1; 2 does too.
        assert_eq!(choose(&Sampling { repetition_penalty: 4.0, ..greedy.clone() }, &[]), 0);
        // The prompt does not count here: 1 stays.
        assert_eq!(choose(&Sampling { presence_penalty: 2.0, ..greedy.clone() }, &[]), 1);
        assert_eq!(choose(&Sampling { frequency_penalty: 2.0, ..greedy.clone() }, &[1]), 0);
        assert_eq!(choose(&Sampling { frequency_penalty: 0.4, ..greedy.clone() }, &[1]), 3);
        // 3, 2 were the last two: of the bad words `2 3` and `3 2 1` the next would be 3 and 1; `1 1` and `2 2 4` begin
        // otherwise.
        let bad = |words: &[&[u32]]| {
            let bad_words = words.iter().map(|word| word.to_vec()).collect();
            choose(&Sampling { bad_words, ..greedy.clone() }, &[])
        };
        assert_eq!(bad(&[&[2, 3], &[3, 2, 1]]), 2);
        assert_eq!(bad(&[&[1, 1], &[2, 2, 1], &[]]), 1);
        assert_eq!(bad(&[&[1], &[3]]), 2);
        let only = Some(TokenSet::of(5, &[4]));
        let stubborn = Sampling { bad_words: vec![vec![4]], ..greedy.clone() };
        assert_eq!(sample(&LOGITS, &stubborn, &history, only.as_ref(), None).id, 4, "what must be goes over bad words");
        let rest = TokenSet::of(5, &[0, 2, 3, 4]);
        let scored = sample(&LOGITS, &greedy, &history, Some(&rest), Some(1));
        assert_eq!(scored.logprobs.unwrap().top[0].0, 1, "log-probabilities are the model's own");
    }

    #[test]
    fn logprobs_are_of_the_models_distribution() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let sampled = sample(&LOGITS, &greedy, &History::default(), None, Some(3));
        let logprobs = sampled.logprobs.unwrap();
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!((logprobs.logprob, logprobs.rank), (logprobs.top[0].1, 1));
        assert_eq!(logprobs_of(&LOGITS, &[2, 1]), [logprobs.top[2], logprobs.top[0]]);
        assert_eq!(token_logprobs(&LOGITS, 0, 0).rank, 4);
        let total: f64 = log_softmax(&LOGITS).iter().map(|l| f64::from(*l).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }
}
