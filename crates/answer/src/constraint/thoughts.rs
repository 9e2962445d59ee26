//! A constraint that begins behind what a model thinks: until then anything may come but the end, up to a budget.

use narthex_infer::{Allowed, Constraint, ConstraintState, TokenSet};
use narthex_text::Tokenizer;
use std::sync::Arc;

/// Thoughts that come first, and what comes behind them.
#[derive(Clone, Debug)]
pub struct Thoughts {
    tokenizer: Tokenizer,
    /// Whether the prompt has begun them.
    begun: bool,
    /// The token that begins them, if there is one.
    open: Option<u32>,
    /// What ends them.
    close: String,
    /// The same as one token, if there is one.
    close_id: Option<u32>,
    /// What is written for the model when the budget is used up.
    closing: Arc<[u32]>,
    /// Tokens of thoughts at most.
    budget: usize,
    /// What comes behind them, if not just anything.
    then: Option<Arc<dyn Constraint>>,
}

impl Thoughts {
    /// Thoughts between these marks (`<think>`, `</think>`), of so many tokens at most; `begun` if the prompt ends
    /// within them.
    pub fn new(
        tokenizer: &Tokenizer,
        (open, close): (&str, &str),
        begun: bool,
        budget: usize,
        then: Option<Arc<dyn Constraint>>,
    ) -> Self {
        let token = |text: &str| tokenizer.token_id(text).filter(|id| tokenizer.is_added(*id));
        let closing = tokenizer.encode(&format!("\n{close}\n\n"), false).unwrap_or_default();
        Self {
            tokenizer: tokenizer.clone(),
            begun,
            open: token(open),
            close: close.into(),
            close_id: token(close),
            closing: closing.into(),
            budget,
            then,
        }
    }

    /// Whether the model may or must think before it answers.
    fn phase(&self) -> Phase {
        match (self.begun, self.open) {
            (true, _) => Phase::Thinks,
            (false, Some(_)) => Phase::May,
            (false, None) => Phase::Answers,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is written yet: the model may begin to think.
    May,
    Thinks,
    /// The budget is used up, and so much of the closing is written.
    Closes(usize),
    Answers,
}

impl Constraint for Thoughts {
    fn begin(&self) -> Box<dyn ConstraintState> {
        let then = self.then.as_ref().map(|then| then.begin());
        let phase = self.phase();
        let mut state = Thinking { of: self.clone(), then, phase, tokens: 0, written: vec![] };
        state.watch_budget();
        Box::new(state)
    }
}

struct Thinking {
    of: Thoughts,
    then: Option<Box<dyn ConstraintState>>,
    phase: Phase,
    tokens: usize,
    /// The last bytes, as many as may begin the mark.
    written: Vec<u8>,
}

impl Thinking {
    /// Whether a token ends the thoughts.
    fn closes(&mut self, id: u32) -> bool {
        if let Some(close) = self.of.close_id {
            return id == close;
        }
        self.written.extend(self.of.tokenizer.token_bytes(id).unwrap_or_default());
        let close = self.of.close.as_bytes();
        let found = self.written.windows(close.len()).any(|window| window == close);
        let surplus = self.written.len().saturating_sub(close.len());
        self.written.drain(..surplus);
        found
    }

    fn watch_budget(&mut self) {
        if self.phase == Phase::Thinks && self.tokens >= self.of.budget {
            self.phase = if self.of.closing.is_empty() { Phase::Answers } else { Phase::Closes(0) };
        }
    }
}

impl ConstraintState for Thinking {
    fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String> {
        let vocabulary = self.of.tokenizer.vocab_size();
        match self.phase {
            // Who is to answer in a form does not end in the midst of thinking.
            Phase::Thinks if self.then.is_some() => {
                let tokens = TokenSet::from_words(vec![u32::MAX; vocabulary.div_ceil(u32::BITS as usize)]);
                Ok(vec![Allowed::Only { tokens, end: false }])
            }
            Phase::Thinks => Ok(vec![Allowed::Anything]),
            Phase::Closes(written) => {
                let tokens = TokenSet::of(vocabulary, &self.of.closing[written..=written]);
                Ok(vec![Allowed::Only { tokens, end: false }])
            }
            Phase::May | Phase::Answers => {
                let guesses = if self.phase == Phase::May { &[] } else { guesses };
                let Some(then) = &mut self.then else { return Ok(vec![Allowed::Anything]) };
                let mut all = then.allowed(guesses)?;
                if let (Phase::May, Some(open), [Allowed::Only { tokens, .. }, ..]) =
                    (self.phase, self.of.open, all.as_mut_slice())
                {
                    tokens.insert(open);
                }
                Ok(all)
            }
        }
    }

    fn push(&mut self, id: u32) -> Result<(), String> {
        match self.phase {
            Phase::May if self.of.open == Some(id) => self.phase = Phase::Thinks,
            Phase::May | Phase::Answers => {
                self.phase = Phase::Answers;
                return self.then.as_mut().map_or(Ok(()), |then| then.push(id));
            }
            Phase::Thinks => {
                self.tokens += 1;
                if self.closes(id) {
                    self.phase = Phase::Answers;
                }
            }
            Phase::Closes(written) if written + 1 == self.of.closing.len() => self.phase = Phase::Answers,
            Phase::Closes(written) => self.phase = Phase::Closes(written + 1),
        }
        self.watch_budget();
        Ok(())
    }

    fn forced(&self) -> Option<u32> {
        match self.phase {
            Phase::May | Phase::Thinks => None,
            Phase::Closes(written) => Some(self.of.closing[written]),
            Phase::Answers => self.then.as_ref().and_then(|then| then.forced()),
        }
    }

    fn is_complete(&self) -> bool {
        self.phase == Phase::Answers && self.then.as_ref().is_some_and(|then| then.is_complete())
    }
}
