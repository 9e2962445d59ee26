//! What evaluations ask and expect, found again in texts for training: runs of simplified words (Brown et al., "GPT-3",
//! 2020, appendix C; datatrove's `NGramsDecontConfig`).

use crate::{
    near::Signer,
    simplify::{Simplify, simplify},
    tokens,
};
use foldhash::fast::FixedState;
use narthex_base::config::NearDuplicates;
use std::collections::HashSet;
use xxhash_rust::xxh64::xxh64;

/// Which runs are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Words of a run.
    pub ngram: u32,
    /// Runs of the question alone.
    pub of_questions: bool,
    /// Runs that begin in the question and end in the answer.
    pub of_both: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self { ngram: 12, of_questions: false, of_both: true }
    }
}

/// The runs of what a model is evaluated by.
#[derive(Clone, Debug)]
pub struct Evaluations {
    which: Runs,
    signer: Signer,
    runs: HashSet<u64, FixedState>,
}

impl Evaluations {
    /// None yet.
    pub fn new(which: Runs) -> Self {
        let how = NearDuplicates { ngram: which.ngram, bands: 1, rows: 1, ..NearDuplicates::default() };
        Self { which, signer: Signer::new(how), runs: HashSet::default() }
    }

    /// Adds a question and the answer to it.
    pub fn add(&mut self, question: Option<&str>, answer: &str) {
        self.runs.extend(self.signer.runs(answer));
        let Some(question) = question else { return };
        if self.which.of_questions {
            self.runs.extend(self.signer.runs(question));
        }
        if self.which.of_both {
            let n = self.which.ngram as usize;
            let simple = [question, answer].map(|text| simplify(text, &Simplify::default()));
            let [question, answer] = [&simple[0], &simple[1]].map(|text| tokens::words(text));
            for from_answer in 1..n {
                let from_question = n - from_answer;
                if question.len() >= from_question && answer.len() >= from_answer {
                    let run = [&question[question.len() - from_question..], &answer[..from_answer]].concat();
                    self.runs.insert(xxh64(run.join(" ").as_bytes(), 0));
                }
            }
        }
    }

    /// The number of runs that are looked for.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many words stand before the first run that is known; nothing if none is.
    pub fn first_in(&self, text: &str) -> Option<usize> {
        self.signer.runs(text).iter().position(|run| self.runs.contains(run))
    }
}
