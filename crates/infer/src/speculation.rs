//! Guessing what comes next: how many guesses each sequence may make, where those of an n-gram look-up come from, and
//! what is learnt from those that were right. Knows tokens and counts; no tensors. What a sequence yields never depends
//! on it.

use narthex_model::{Decoder, ModelConfig};

/// Guesses of one sequence in a step at most.
pub const PROPOSED_TOKENS_MAX: usize = 16;

/// What a further row adds to a step, in times of what the step takes with none: weights are read once for all rows, so
/// the first rows cost little more than the reading. Between 1 and 32 rows, see `docs/src/explanation/serving.md`.
const ROW_COST: f64 = 0.1;

/// How likely a guess is right as long as nothing is known of a sequence, and how many guesses that is worth.
const PRIOR: f64 = 0.5;
const PRIOR_WEIGHT: f64 = 1.0;

/// What a step with guesses leaves of the weight of earlier ones: about twenty count.
const KEPT_BY_STEP: f64 = 0.95;

/// What a step without guesses leaves of it. So a sequence whose guesses were wrong comes to guess again, at the
/// soonest some sixteen steps later: one wrong row in sixteen steps costs half a percent.
const KEPT_BY_IDLE_STEP: f64 = 0.99;

/// Guesses of tokens that come next, which the model then checks in the same step: several tokens a step where they are
/// right. Tokens and log-probabilities stay the same to the bit, drawn ones included.
#[derive(Clone, Debug)]
pub struct Speculation {
    /// Where guesses come from.
    pub method: SpeculationMethod,
    /// Guesses of one sequence in a step at most, up to [`PROPOSED_TOKENS_MAX`]. Fewer are made where they do not pay.
    pub tokens: usize,
}

/// Where guesses come from.
#[derive(Clone, Debug)]
pub enum SpeculationMethod {
    /// What followed the latest earlier occurrence of the sequence's last tokens (Saxena, "Prompt lookup decoding",
    /// 2023).
    Ngram {
        /// The longest end of the sequence that is looked up, in tokens; the longest occurrence counts.
        max: usize,
        /// The shortest.
        min: usize,
    },
    /// A smaller model with the same vocabulary (Leviathan et al., "Fast inference from transformers via speculative
    /// decoding", 2023).
    Draft(Box<Decoder>),
}

impl Speculation {
    /// # Panics
    /// If a limit is 0 or too large, or the draft model has another vocabulary.
    pub(crate) fn check(&self, config: &ModelConfig) {
        assert!((1..=PROPOSED_TOKENS_MAX).contains(&self.tokens), "from 1 to {PROPOSED_TOKENS_MAX} tokens are guessed");
        match &self.method {
            SpeculationMethod::Ngram { max, min } => assert!(*min > 0 && min <= max, "from 1 token on are looked up"),
            SpeculationMethod::Draft(draft) => {
                assert_eq!(draft.config().vocab_size, config.vocab_size, "a draft model has the same vocabulary");
            }
        }
    }
}

/// What followed the latest of the longest earlier occurrences of the last `max` to `min` tokens, `count` tokens of it.
/// Where that runs into the end, it goes on with what was found: so a loop is continued.
pub(crate) fn look_up(tokens: &[u32], max: usize, min: usize, count: usize) -> Vec<u32> {
    let Some((last, before)) = tokens.split_last() else { return vec![] };
    let (mut longest, mut behind) = (0, 0);
    for i in (0..before.len()).rev() {
        if tokens[i] != *last {
            continue;
        }
        let same = |back: &usize| *back <= i && tokens[i - back] == tokens[before.len() - back];
        let length = 1 + (1..max).take_while(same).count();
        if length > longest {
            (longest, behind) = (length, i + 1);
        }
        if length == max {
            break;
        }
    }
    if longest < min {
        return vec![];
    }
    let mut found: Vec<u32> = Vec::with_capacity(count);
    for at in behind..behind + count {
        found.push(if at < tokens.len() { tokens[at] } else { found[at - tokens.len()] });
    }
    found
}

/// What is known of a sequence's guesses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Record {
    right: f64,
    tried: f64,
}

impl Record {
    /// How likely the next guess is right, if those before it are.
    pub(crate) fn likelihood(&self) -> f64 {
        (PRIOR * PRIOR_WEIGHT + self.right) / (PRIOR_WEIGHT + self.tried)
    }

    /// Adds a step in which the first `right` of its guesses were. Behind the first wrong one nothing is known.
    pub(crate) fn add(&mut self, guessed: usize, right: usize) {
        let kept = if guessed == 0 { KEPT_BY_IDLE_STEP } else { KEPT_BY_STEP };
        self.right = self.right * kept + right as f64;
        self.tried = self.tried * kept + (right + usize::from(right < guessed)) as f64;
    }
}

/// A sequence that could guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) likelihood: f64,
    /// Guesses at most.
    pub(crate) most: usize,
}

/// How many guesses each of these may make in a step of so many other rows, with so many to spare, if each guess costs
/// as much as `ROW_COST` and `extra`.
///
/// The likeliest first, as long as a guess adds to tokens per time: as long as its likelihood by its cost is more than
/// tokens by time of the step before. So a lone sequence guesses far ahead; where many rows keep the processor busy,
/// only what is nearly certain is guessed.
pub(crate) fn allot(candidates: &[Candidate], rows: usize, spare: usize, extra: f64) -> Vec<usize> {
    let mut counts = vec![0; candidates.len()];
    let mut next: Vec<f64> = candidates.iter().map(|candidate| candidate.likelihood).collect();
    let cost = ROW_COST + extra;
    let (mut tokens, mut time) = (rows as f64, 1.0 + ROW_COST * rows as f64);
    for _ in 0..spare {
        let open = (0..counts.len()).filter(|i| counts[*i] < candidates[*i].most);
        // Of equals the one with fewest guesses, so that nobody takes them all; then the first.
        let best = open.reduce(|a, b| if (next[b], counts[a]) > (next[a], counts[b]) { b } else { a });
        let Some(best) = best.filter(|best| next[*best] * time > cost * tokens) else { break };
        counts[best] += 1;
        tokens += next[best];
        time += cost;
        next[best] *= candidates[best].likelihood;
    }
    counts
}

/// What a draft model's row costs beside the model's, by the weights that each of them multiplies with.
pub(crate) fn relative_cost(draft: &ModelConfig, model: &ModelConfig) -> f64 {
    let weights = |config: &ModelConfig| {
        let attention = 2 * (config.heads + config.kv_heads) * config.head_width;
        let layer = config.hidden_size * (attention + 3 * config.intermediate_size);
        (config.layers * layer + config.vocab_size * config.hidden_size) as f64
    };
    weights(draft) / weights(model)
}

/// What a guess of a draft model costs more than one that is looked up: a share of a step of that model, in which
/// `sequences` of them have a row each.
pub(crate) fn draft_cost(relative: f64, sequences: usize) -> f64 {
    relative * (1.0 / sequences.max(1) as f64 + ROW_COST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_then_the_latest_occurrence_is_continued() {
        for (tokens, max, min, count, expected) in [
            (&[1, 2, 3, 9, 1, 2][..], 3, 1, 3, &[3, 9, 1][..]),
            // Behind the end it goes on with what was found.
            (&[7, 8, 7, 8], 2, 2, 5, &[7, 8, 7, 8, 7]),
            (&[5, 5], 4, 1, 3, &[5, 5, 5]),
            // The longer one, though the other is later.
            (&[1, 2, 3, 4, 9, 3, 5, 2, 3], 3, 1, 2, &[4, 9]),
            (&[1, 2, 3, 4, 9, 3, 5, 2, 3], 1, 1, 2, &[5, 2]),
            // Of equals the later one.
            (&[2, 3, 4, 2, 3, 5, 2, 3], 2, 2, 1, &[5]),
            // Too short.
            (&[1, 3, 4, 2, 3], 3, 2, 1, &[]),
            (&[1, 2, 3], 3, 1, 4, &[]),
            (&[1], 3, 1, 4, &[]),
            (&[], 3, 1, 4, &[]),
            (&[4, 4, 4], 2, 2, 0, &[]),
        ] {
            assert_eq!(look_up(tokens, max, min, count), expected, "{tokens:?}");
        }
    }

    fn allotted(likelihoods: &[f64], rows: usize, extra: f64) -> Vec<usize> {
        let candidates: Vec<_> = likelihoods.iter().map(|l| Candidate { likelihood: *l, most: 5 }).collect();
        allot(&candidates, rows, 1000, extra)
    }

    #[test]
    fn guesses_are_made_where_they_pay() {
        assert_eq!(allotted(&[0.95], 1, 0.0), [5]);
        assert_eq!(allotted(&[0.02], 1, 0.0), [0]);
        // One that is as good as right pays in any company; others do not.
        let many = |likelihood| allotted(&vec![likelihood; 64], 64, 0.0).iter().sum::<usize>();
        assert!(many(0.99) > 0 && many(0.7) == 0, "{} {}", many(0.99), many(0.7));
        let few: usize = allotted(&[0.7; 4], 4, 0.0).iter().sum();
        assert!((4..20).contains(&few), "{few}");
        // The likelier ones first.
        let both = allotted(&[0.3, 0.9], 2, 0.0);
        assert!(both[0] < both[1] && both[1] == 5, "{both:?}");
        // A prompt's rows count too.
        assert!(allotted(&[0.9], 200, 0.0)[0] < 5);
        // What costs as much as a step of the model itself never pays.
        assert_eq!(allotted(&[0.999], 1, 1.0), [0]);
        let limits = [Candidate { likelihood: 0.9, most: 2 }, Candidate { likelihood: 0.9, most: 0 }];
        assert_eq!(allot(&limits, 2, 1000, 0.0), [2, 0]);
        assert_eq!(allot(&[Candidate { likelihood: 0.9, most: 5 }; 3], 3, 4, 0.0), [2, 1, 1]);
        assert_eq!(allot(&[], 0, 10, 0.0), [0; 0]);
    }

    #[test]
    fn records_learn_and_forget() {
        let mut record = Record::default();
        assert_eq!(record.likelihood(), PRIOR);
        (0..10).for_each(|_| record.add(5, 5));
        assert!(record.likelihood() > 0.95);
        let pays = |record: &Record| allotted(&[record.likelihood()], 1, 0.0)[0] > 0;
        let mut wrong = 0;
        (0..1000).for_each(|_| {
            let guessed = usize::from(pays(&record));
            wrong += guessed;
            record.add(guessed, 0);
        });
        // Some to learn that they are wrong, then one in a while.
        assert!((40..150).contains(&wrong), "{wrong} of 1000 steps with wrong guesses");
        let mut idle = 0;
        while !pays(&record) && idle < 100 {
            record.add(0, 0);
            idle += 1;
        }
        let before = record.likelihood();
        (0..5).for_each(|_| record.add(3, 3));
        assert!(idle < 40 && record.likelihood() > 4.0 * before);
    }
}
