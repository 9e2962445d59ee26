//! What a request asks of rows of logits, and the answers: pure functions, run for many sequences at once.

use crate::{
    constraint::{Allowed, TokenSet},
    request::{Request, TokenLogprobs},
    sampling::{History, Sampled, logprobs_of, sample, token_logprobs},
};

/// What answering rows of logits needs of a request.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) history: History,
    /// The scores of the prompt, until they are handed out.
    pub(crate) scores: Option<Vec<Option<TokenLogprobs>>>,
    /// What its constraint allows in the rows of the step under way; without entries, anything.
    pub(crate) allowed: Vec<Allowed>,
}

#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    scored: Option<u32>,
    sampled: bool,
}

pub(crate) struct Answer {
    pub(crate) scores: Option<TokenLogprobs>,
    /// The tokens that come next: one, and one for each guess that was right.
    pub(crate) sampled: Vec<Sampled>,
}

impl Asked {
    pub(crate) fn new(request: Request) -> Self {
        let scores = request.prompt_logprobs.map(|_| vec![None; request.prompt.len()]);
        Self { history: History::new(&request.prompt), request, scores, allowed: vec![] }
    }

    /// What a row of logits is for, if anything.
    pub(crate) fn wants(&self, position: usize, len: usize) -> Option<Wanted> {
        let scored = (self.scores.is_some() && position + 1 < self.request.prompt.len())
            .then(|| self.request.prompt[position + 1]);
        let sampled = position + 1 == len && self.request.max_tokens > 0;
        (scored.is_some() || sampled).then_some(Wanted { scored, sampled })
    }

    /// How many tokens may be guessed, in a sequence of `len` tokens of `context`: behind the last one there is
    /// another.
    pub(crate) fn room(&self, len: usize, context: usize) -> usize {
        let sampled = usize::try_from(self.history.sampled()).unwrap_or(usize::MAX);
        let left = self.request.max_tokens.saturating_sub(sampled).min(context.saturating_sub(len));
        left.saturating_sub(1)
    }

    /// Answers a row of logits, and those of the guesses behind it as far as they are right: `[1 + guesses, width]`.
    /// Each token is chosen as if nothing had been guessed.
    pub(crate) fn answer(&self, logits: &[f32], width: usize, wanted: Wanted, guesses: &[u32]) -> Answer {
        let Request { sampling, stop_tokens, logprobs, prompt_logprobs, logprob_ids, .. } = &self.request;
        let scores = wanted.scored.map(|id| token_logprobs(&logits[..width], id, prompt_logprobs.unwrap_or(0)));
        let mut sampled = vec![];
        let mut ahead = None;
        for (i, row) in logits.chunks_exact(width).enumerate().take_while(|_| wanted.sampled) {
            let history = ahead.as_ref().unwrap_or(&self.history);
            let allowed = self.allowed(history, i, width);
            let mut found = sample(row, sampling, history, allowed.as_ref(), *logprobs);
            let id = found.id;
            if let (Some(scores), false) = (&mut found.logprobs, logprob_ids.is_empty()) {
                scores.top = logprobs_of(row, logprob_ids);
            }
            sampled.push(found);
            if guesses.get(i) != Some(&id) || stop_tokens.contains(&id) {
                break;
            }
            ahead.get_or_insert_with(|| self.history.clone()).push(id);
        }
        Answer { scores, sampled }
    }

    /// The token that would come next if these were the logits of a row.
    pub(crate) fn guess(&self, logits: &[f32], history: &History) -> u32 {
        sample(logits, &self.request.sampling, history, self.allowed(history, 0, logits.len()).as_ref(), None).id
    }

    /// The tokens that may come next in a row of the step, unless all may.
    fn allowed(&self, history: &History, row: usize, vocabulary: usize) -> Option<TokenSet> {
        let Request { sampling, stop_tokens, min_tokens, .. } = &self.request;
        let early = history.sampled() < *min_tokens as u64 && !stop_tokens.is_empty();
        let (tokens, may_end) = match self.allowed.get(row) {
            None | Some(Allowed::Anything) => (None, true),
            Some(Allowed::Only { tokens, end }) => (Some(tokens), *end),
        };
        if tokens.is_none() && sampling.allowed.is_empty() && !early {
            return None;
        }
        let mut set = match tokens {
            Some(tokens) => tokens.clone(),
            None => TokenSet::from_words(vec![u32::MAX; vocabulary.div_ceil(u32::BITS as usize)]),
        };
        if !sampling.allowed.is_empty() {
            let mut both = set.clone();
            both.intersect(&TokenSet::of(vocabulary, &sampling.allowed));
            // What must be goes over what is wished.
            if !both.is_empty() || tokens.is_none() {
                set = both;
            }
        }
        stop_tokens.iter().for_each(|id| if may_end { set.insert(*id) } else { set.remove(*id) });
        if early {
            let mut later = set.clone();
            stop_tokens.iter().for_each(|id| later.remove(*id));
            if !later.is_empty() {
                return Some(later);
            }
        }
        Some(set)
    }
}
