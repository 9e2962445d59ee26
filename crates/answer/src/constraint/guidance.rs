//! The engine behind constraints: llguidance (<https://github.com/guidance-ai/llguidance>). The one file that knows it.

use super::vocabulary::Vocabulary;
use llguidance::{
    Matcher, ParserFactory,
    api::{GrammarInit, TopLevelGrammar},
    earley::lexerspec::LexerSpec,
};
use narthex_infer::{Allowed, Constraint, ConstraintState, TokenSet};
use narthex_text::Tokenizer;
use serde_json::Value;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
    thread,
};
use toktrie::{InferenceCapabilities, SimpleVob};

/// Work at most to tell what may come first: some 30 ms. The most of 1,896 schemas of JSONSchemaBench is 161,748.
const FIRST_FUEL: u64 = 500_000;

/// The stack of a thread that compiles. Only what is used of it takes memory.
const STACK_BYTES: usize = 256 << 20;

/// What is said if that work is not enough.
pub(super) const TOO_LONG: &str = "it takes too long to tell what may come first";

/// Makes grammars for one vocabulary.
pub(super) struct Factory {
    parsers: ParserFactory,
    /// The token behind all of the vocabulary's, which stands for the end.
    end: u32,
}

impl Factory {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        let vocabulary = Vocabulary::shared(tokenizer);
        let end = vocabulary.tok_trie().eos_token();
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut parsers = ParserFactory::new(&vocabulary, capabilities, &slices).map_err(|error| error.to_string())?;
        parsers.quiet();
        parsers.limits_mut().verbose_errors = false;
        Ok(Self { parsers, end })
    }

    pub(super) fn schema(&self, schema: Value) -> Result<Grammar, String> {
        self.grammar(|| TopLevelGrammar::from_json_schema(schema))
    }

    pub(super) fn regex(&self, regex: &str) -> Result<Grammar, String> {
        self.grammar(|| TopLevelGrammar::from_regex(regex))
    }

    pub(super) fn lark(&self, text: &str) -> Result<Grammar, String> {
        self.grammar(|| TopLevelGrammar::from_lark(text.to_string()))
    }

    /// Whether it can be told with so much work what may come first. The engine asks the same when it makes a parser,
    /// but without a limit: multiples of 999,983 took it nine seconds.
    fn can_begin(&self, words: &LexerSpec) -> Result<(), String> {
        let mut limits = self.parsers.limits().clone();
        let mut lexer = words.to_regex_vec(&mut limits).map_err(|error| format!("{error:#}"))?;
        lexer.set_fuel(FIRST_FUEL);
        let start = lexer.initial_state(&words.all_lexemes());
        for byte in 0..=u8::MAX {
            lexer.transition(start, byte);
        }
        if lexer.get_fuel() == 0 { Err(TOO_LONG.into()) } else { Ok(()) }
    }

    /// Compiles a grammar, and sees that something can come of it. The engine calls itself for each part of a list, so
    /// it gets a stack for as many as a form may have: 12,000 properties went through two megabytes, and the process
    /// with them.
    fn grammar(&self, grammar: impl FnOnce() -> TopLevelGrammar + Send) -> Result<Grammar, String> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("form".into()).stack_size(STACK_BYTES);
            let compiling = thread.spawn_scoped(scope, || self.compiled(grammar()));
            let compiling = compiling.map_err(|error| format!("there is no thread to compile it: {error}"))?;
            compiling.join().unwrap_or_else(|_| Err("it is not understood".into()))
        })
    }

    fn compiled(&self, grammar: TopLevelGrammar) -> Result<Grammar, String> {
        let (limits, tokens) = (self.parsers.limits().clone(), self.parsers.tok_env().clone());
        let made = GrammarInit::Serialized(grammar).to_internal(Some(tokens), limits);
        let (rules, words) = made.map_err(|error| format!("{error:#}"))?;
        self.can_begin(&words)?;
        let parser = self.parsers.create_parser_from_init_default(GrammarInit::Internal(rules, words));
        let parser = parser.map_err(|error| format!("{error:#}"))?;
        let mut state = State { matcher: Matcher::new(Ok(parser)), pending: VecDeque::new(), end: self.end };
        if let Some(why) = state.matcher.get_error() {
            return Err(why);
        }
        state.look_ahead();
        match state.now()? {
            Allowed::Only { tokens, end: false } if tokens.is_empty() => Err("nothing fits it".into()),
            _ => Ok(Grammar(Mutex::new(state))),
        }
    }
}

/// A compiled grammar, before the first token.
pub(super) struct Grammar(Mutex<State>);

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammar")
    }
}

impl Constraint for Grammar {
    fn begin(&self) -> Box<dyn ConstraintState> {
        Box::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[derive(Clone)]
struct State {
    matcher: Matcher,
    /// What comes next whatever the model says.
    pending: VecDeque<u32>,
    end: u32,
}

impl State {
    fn look_ahead(&mut self) {
        if !self.matcher.is_stopped() {
            self.pending.extend(self.matcher.compute_ff_tokens().into_iter().filter(|id| *id != self.end));
        }
    }

    /// What may come next.
    fn now(&mut self) -> Result<Allowed, String> {
        let vocabulary = self.end as usize;
        if let Some(id) = self.pending.front() {
            return Ok(Allowed::Only { tokens: TokenSet::of(vocabulary, &[*id]), end: false });
        }
        if self.matcher.is_stopped() {
            return match self.matcher.get_error() {
                Some(why) => Err(why),
                None => Ok(Allowed::Only { tokens: TokenSet::new(vocabulary), end: true }),
            };
        }
        let mask: SimpleVob = self.matcher.compute_mask().map_err(|error| error.to_string())?;
        let end = mask.is_allowed(self.end);
        let mut tokens = TokenSet::from_words(mask.as_slice().to_vec());
        tokens.remove(self.end);
        Ok(Allowed::Only { tokens, end })
    }
}

impl ConstraintState for State {
    fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String> {
        let mut all = vec![self.now()?];
        let mut ahead = (!guesses.is_empty()).then(|| self.clone());
        for guess in guesses {
            let Some(ahead) = &mut ahead else { break };
            let fits = matches!(all.last(), Some(Allowed::Only { tokens, .. }) if tokens.contains(*guess));
            if !fits || ahead.push(*guess).is_err() {
                break;
            }
            all.push(ahead.now()?);
        }
        Ok(all)
    }

    fn push(&mut self, id: u32) -> Result<(), String> {
        self.matcher.consume_token(id).map_err(|error| error.to_string())?;
        // What is drawn is what is allowed, so it is the one that was to come, if one was.
        if self.pending.pop_front().is_none() || self.pending.is_empty() {
            self.look_ahead();
        }
        Ok(())
    }

    fn forced(&self) -> Option<u32> {
        self.pending.front().copied()
    }

    fn is_complete(&self) -> bool {
        self.pending.is_empty() && self.matcher.is_stopped() && self.matcher.get_error().is_none()
    }
}
