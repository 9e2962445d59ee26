//! The engine's side of guessing: which method, and what it found for the sequences of the next step.

use crate::{
    Outlook, Scheduler, SequenceId, Speculation, SpeculationMethod,
    asked::Asked,
    draft::Draft,
    speculation::{Candidate, allot, draft_cost, look_up},
};
use std::collections::HashMap;

/// Where guesses come from.
pub(crate) enum Source {
    /// The sequence itself; what was found for the next step.
    Ngram { max: usize, min: usize, found: HashMap<SequenceId, Vec<u32>> },
    /// A draft model, and what its rows cost beside the model's.
    Draft { draft: Box<Draft>, relative_cost: f64 },
}

pub(crate) struct Guesser {
    source: Source,
    /// Guesses of one sequence in a step at most.
    pub(crate) tokens: usize,
    /// Tokens of a sequence beyond which nothing is guessed.
    pub(crate) context: usize,
}

impl Guesser {
    /// The draft model is ready for its own thread.
    pub(crate) fn new(speculation: &Speculation, draft: Option<(Draft, f64)>) -> Self {
        let tokens = speculation.tokens;
        match (&speculation.method, draft) {
            (_, Some((draft, relative_cost))) => {
                let context = draft.context();
                Self { source: Source::Draft { draft: Box::new(draft), relative_cost }, tokens, context }
            }
            (SpeculationMethod::Ngram { max, min }, None) => {
                let source = Source::Ngram { max: *max, min: *min, found: HashMap::new() };
                Self { source, tokens, context: usize::MAX }
            }
            (SpeculationMethod::Draft(_), None) => unreachable!("a draft model was made ready"),
        }
    }

    /// How many guesses there can be for a sequence. Looks them up, unless not even one would pay.
    pub(crate) fn look(&mut self, id: SequenceId, tokens: &[u32], candidate: Candidate, outlook: Outlook) -> usize {
        let Source::Ngram { max, min, found } = &mut self.source else { return candidate.most };
        if allot(&[candidate], outlook.rows, outlook.spare.min(1), 0.0) != [1] {
            return 0;
        }
        let guesses = look_up(tokens, *max, *min, candidate.most);
        let most = guesses.len();
        found.insert(id, guesses);
        most
    }

    /// How many guesses each gets.
    pub(crate) fn allot(&self, candidates: &[Candidate], outlook: Outlook) -> Vec<usize> {
        let extra = match &self.source {
            Source::Ngram { .. } => 0.0,
            Source::Draft { relative_cost, .. } => draft_cost(*relative_cost, candidates.len()),
        };
        allot(candidates, outlook.rows, outlook.spare, extra)
    }

    /// The guesses for the next step, at most so many for each.
    pub(crate) fn guess(
        &mut self,
        wanted: &[(SequenceId, usize, &Asked)],
        scheduler: &Scheduler,
    ) -> Vec<(SequenceId, Vec<u32>)> {
        match &mut self.source {
            Source::Ngram { found, .. } => {
                let mut found = std::mem::take(found);
                let guesses = wanted.iter().map(|(id, most, _)| {
                    let mut tokens = found.remove(id).unwrap_or_default();
                    tokens.truncate(*most);
                    (*id, tokens)
                });
                guesses.collect()
            }
            Source::Draft { draft, .. } => draft.guess(wanted, scheduler),
        }
    }

    /// A sequence goes on behind its first `end` positions; what was guessed beyond them was wrong.
    pub(crate) fn keep(&mut self, blocks: &[u32], end: usize) {
        if let Source::Draft { draft, .. } = &mut self.source {
            draft.keep(blocks, end);
        }
    }
}
