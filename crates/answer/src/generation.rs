//! From token ids to text: submits sequences that belong together and follows them until each has ended by a stop
//! token, a stop string or its length, for code that waits and for code that does not. Knows no wire format.

use crate::{error::AnswerError, model::TextModel, stop_strings::StopMatcher};
use narthex_infer::{FinishReason, Output, Request, Sink, Ticket, TokenLogprobs};
use narthex_text::{TextStream, Tokenizer};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Outputs of a sequence that are not tokens: its prompt's scores, its end, and one to spare.
const EXTRA_OUTPUTS: usize = 3;

/// Who wants to know when things happen. Called from where the generation is read.
pub trait Watcher: Send {
    /// A choice yielded its first token, so long after the start.
    fn first_token(&mut self, _after: Duration) {}

    /// A choice yielded another token, so long after the one before.
    fn next_token(&mut self, _after: Duration) {}

    /// A choice ended, or nobody reads it any more.
    fn ended(&mut self, _ended: Ended, _life: &Life) {}
}

/// Nobody wants to know.
impl Watcher for () {}

/// The times of a sequence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// From being taken to the end.
    pub whole: Duration,
    /// From being taken to the first step.
    pub queue: Duration,
    /// From the first step to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it that the engine had at hand.
    pub cached_tokens: usize,
    /// Tokens of the answer, the one that ended it included.
    pub generation_tokens: usize,
}

/// Why a sequence ended, as its reader sees it. The engine cannot tell: to it, a stop string and a reader that went
/// away are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A stop token or a stop string.
    Stop,
    /// The most tokens that were asked for, or the context.
    Length,
    /// The reader went away, or the engine failed.
    Abort,
}

/// One thing that a choice yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Scores of the prompt's tokens, if they were asked for.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// Text, the scores of the tokens it began with, if they were asked for, and the tokens since the piece before.
    Text(String, Vec<Scored>, Vec<u32>),
    /// A token that is no text, by its spelling, if they were asked for.
    Mark(String),
    /// The choice has ended.
    End(Ending),
}

/// How a choice ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Why.
    pub reason: FinishReason,
    /// What was met that says stop: none if nothing else could come.
    pub stopped_by: Option<StoppedBy>,
}

/// What ended a choice.
#[derive(Clone, Debug, PartialEq)]
pub enum StoppedBy {
    /// A token.
    Token(u32),
    /// A string.
    Text(String),
}

/// How tokens become text.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// Whether the string that ends an answer is part of it.
    pub keep_stop: bool,
    /// Whether special tokens are left out of the text.
    pub skip_special: bool,
    /// Whether tokens that are no text are told besides.
    pub marks: bool,
    /// Whether tokens without text are told at the end.
    pub ids: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { stop: vec![], keep_stop: false, skip_special: true, marks: false, ids: false }
    }
}

/// A token of an answer with its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub id: u32,
    /// Its scores.
    pub logprobs: TokenLogprobs,
    /// Where it begins in the choice's text, in characters.
    pub start_chars: usize,
    start_bytes: usize,
}

/// Sequences that run together. Dropping it tells the engine that nobody listens.
pub struct Generation {
    receiver: mpsc::Receiver<(usize, Output)>,
    choices: Vec<Choice>,
    ready: VecDeque<(usize, Piece)>,
    running: usize,
    reading: Reading,
    tokenizer: Tokenizer,
    started: Instant,
    watcher: Box<dyn Watcher>,
    /// Dropped with the answer, they tell the engine that nobody waits any more.
    _tickets: Vec<Ticket>,
}

struct Choice {
    /// Absent once the choice has ended.
    stream: Option<TextStream>,
    stop: StopMatcher,
    /// Tokens whose text has not been shown yet.
    scored: VecDeque<Scored>,
    decoded_bytes: usize,
    decoded_chars: usize,
    shown_bytes: usize,
    tokens: usize,
    /// Before so many, no string ends it.
    min_tokens: usize,
    /// Tokens that no piece has told yet.
    ids: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    stop_token: Option<u32>,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    ended: Option<Instant>,
    wanted: Arc<AtomicBool>,
}

/// All of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Scores of the prompt's tokens, if they were asked for.
    pub prompt: Vec<Option<TokenLogprobs>>,
    /// Its text.
    pub text: String,
    /// Its tokens with their scores, if they were asked for.
    pub scored: Vec<Scored>,
    /// Its tokens, the one that ended it included.
    pub ids: Vec<u32>,
    /// How it ended.
    pub ending: Ending,
}

impl Whole {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Prompt(scores) => self.prompt = scores,
            Piece::Text(text, scored, ids) => {
                self.text += &text;
                self.scored.extend(scored);
                self.ids.extend(ids);
            }
            Piece::Mark(_) => {}
            Piece::End(ending) => self.ending = ending,
        }
    }
}

impl Generation {
    /// Hands sequences to the engine, each a choice of its own.
    ///
    /// # Errors
    /// If the engine does not take one; those before it are cancelled.
    pub fn start(
        model: &TextModel,
        requests: Vec<Request>,
        reading: &Reading,
        watcher: impl Watcher + 'static,
    ) -> Result<Self, AnswerError> {
        // The engine must never wait for a slow client: the channel has room for all it can say.
        let outputs = requests.iter().map(|request| request.max_tokens.saturating_add(EXTRA_OUTPUTS));
        let room = outputs.fold(1, usize::saturating_add);
        let (sender, receiver) = mpsc::channel(room.min(tokio::sync::Semaphore::MAX_PERMITS));
        let mut choices = Vec::with_capacity(requests.len());
        let mut tickets = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            let wanted = Arc::new(AtomicBool::new(true));
            choices.push(Choice {
                stream: Some(TextStream::new(&model.tokenizer, reading.skip_special).after(&request.prompt)),
                stop: StopMatcher::new(reading.stop.clone()),
                scored: VecDeque::new(),
                decoded_bytes: 0,
                decoded_chars: 0,
                shown_bytes: 0,
                tokens: 0,
                min_tokens: request.min_tokens,
                ids: vec![],
                prompt_tokens: request.prompt.len(),
                cached_tokens: 0,
                stop_token: None,
                admitted: None,
                first_token: None,
                last_token: None,
                ended: None,
                wanted: wanted.clone(),
            });
            let sender = sender.clone();
            let sink: Sink =
                Box::new(move |output| wanted.load(Ordering::Relaxed) && sender.try_send((index, output)).is_ok());
            tickets.push(model.engine.submit(request, sink).map_err(AnswerError::NotTaken)?);
        }
        let running = choices.len();
        let (watcher, ready) = (Box::new(watcher), VecDeque::new());
        let (reading, tokenizer) = (reading.clone(), model.tokenizer.clone());
        let started = Instant::now();
        Ok(Self { receiver, choices, ready, running, reading, tokenizer, started, watcher, _tickets: tickets })
    }

    /// The next piece of any choice; nothing once all have ended.
    ///
    /// # Errors
    /// If the engine fails or stops, or tokens are no text.
    pub async fn next(&mut self) -> Result<Option<(usize, Piece)>, AnswerError> {
        loop {
            if let Some(found) = self.at_hand() {
                return Ok(found);
            }
            let (index, output) = self.receiver.recv().await.ok_or(AnswerError::Stopped)?;
            self.take(index, output)?;
        }
    }

    /// The same for code that waits. Not from within an asynchronous runtime.
    ///
    /// # Errors
    /// As [`Generation::next`].
    pub fn next_blocking(&mut self) -> Result<Option<(usize, Piece)>, AnswerError> {
        loop {
            if let Some(found) = self.at_hand() {
                return Ok(found);
            }
            let (index, output) = self.receiver.blocking_recv().ok_or(AnswerError::Stopped)?;
            self.take(index, output)?;
        }
    }

    /// What need not be waited for: a piece, or that there will be no more.
    fn at_hand(&mut self) -> Option<Option<(usize, Piece)>> {
        match self.ready.pop_front() {
            Some(piece) => Some(Some(piece)),
            None => (self.running == 0).then_some(None),
        }
    }

    /// Follows all choices to their ends.
    ///
    /// # Errors
    /// As [`Generation::next`].
    pub async fn wholes(&mut self) -> Result<Vec<Whole>, AnswerError> {
        let ending = Ending { reason: FinishReason::Stop, stopped_by: None };
        let empty = Whole { prompt: vec![], text: String::new(), scored: vec![], ids: vec![], ending };
        let mut wholes = vec![empty; self.choices.len()];
        while let Some((index, piece)) = self.next().await? {
            wholes[index].take(piece);
        }
        Ok(wholes)
    }

    /// The times of a choice, up to now or to its end.
    pub fn life(&self, index: usize) -> Life {
        self.choices[index].life(self.started)
    }

    /// Tokens of all choices so far, stop tokens included.
    pub fn completion_tokens(&self) -> usize {
        self.choices.iter().map(|choice| choice.tokens).sum()
    }

    /// Tokens of a choice's prompt that the engine had at hand.
    pub fn cached_tokens(&self, index: usize) -> usize {
        self.choices.get(index).map_or(0, |choice| choice.cached_tokens)
    }

    fn take(&mut self, index: usize, output: Output) -> Result<(), AnswerError> {
        let choice = &mut self.choices[index];
        if choice.stream.is_none() {
            return Ok(());
        }
        match output {
            Output::Admitted { cached } => {
                choice.admitted = Some(Instant::now());
                choice.cached_tokens = cached;
            }
            Output::Prompt(scores) => self.ready.push_back((index, Piece::Prompt(scores))),
            Output::Token { id, logprobs } => {
                self.count(index, id, logprobs);
                if self.reading.marks && self.tokenizer.is_mark(id) {
                    return self.mark(index, id);
                }
                let choice = &mut self.choices[index];
                let Some(stream) = &mut choice.stream else { return Ok(()) };
                let Some(text) = stream.push(id).map_err(AnswerError::Undecodable)? else { return Ok(()) };
                let (shown, stopped) = choice.decoded(&text, self.reading.keep_stop);
                self.show(index, shown, false);
                if let Some(stop) = stopped {
                    self.end(index, FinishReason::Stop, Some(StoppedBy::Text(stop)));
                }
            }
            // Counted like the others, with its score, but without text.
            Output::StopToken { id, logprobs } => {
                self.count(index, id, logprobs);
                self.choices[index].stop_token = Some(id);
            }
            Output::Finished(reason) => {
                let rest = choice.stream.take().expect("checked above").finish().map_err(AnswerError::Undecodable)?;
                let (mut shown, stopped) = choice.decoded(&rest, self.reading.keep_stop);
                if stopped.is_none() {
                    shown += &choice.stop.finish();
                }
                let token = choice.stop_token.map(StoppedBy::Token);
                self.show(index, shown, stopped.is_none());
                match stopped {
                    Some(stop) => self.end(index, FinishReason::Stop, Some(StoppedBy::Text(stop))),
                    None => self.end(index, reason, token),
                }
            }
            Output::Failed(message) => return Err(AnswerError::Failed(message)),
        }
        Ok(())
    }

    /// Counts a token, and keeps its scores until its text is shown.
    fn count(&mut self, index: usize, id: u32, logprobs: Option<TokenLogprobs>) {
        let choice = &mut self.choices[index];
        let now = Instant::now();
        match choice.last_token.replace(now) {
            None => {
                choice.first_token = Some(now);
                self.watcher.first_token(now - self.started);
            }
            Some(last) => self.watcher.next_token(now - last),
        }
        choice.tokens += 1;
        choice.ids.push(id);
        if let Some(logprobs) = logprobs {
            let (start_chars, start_bytes) = (choice.decoded_chars, choice.decoded_bytes);
            choice.scored.push_back(Scored { id, logprobs, start_chars, start_bytes });
        }
    }

    /// Shows text and the tokens that begin in it; with `all`, those that have no text too.
    fn show(&mut self, index: usize, text: String, all: bool) {
        let choice = &mut self.choices[index];
        choice.shown_bytes += text.len();
        let shown = choice.scored.iter().take_while(|scored| all || scored.start_bytes < choice.shown_bytes).count();
        let scored: Vec<Scored> = choice.scored.drain(..shown).collect();
        if !text.is_empty() || !scored.is_empty() || all && self.reading.ids && !choice.ids.is_empty() {
            let ids = std::mem::take(&mut choice.ids);
            self.ready.push_back((index, Piece::Text(text, scored, ids)));
        }
    }

    /// Tells a token that is no text: what was held back before it can become no stop string any more.
    fn mark(&mut self, index: usize, id: u32) -> Result<(), AnswerError> {
        let choice = &mut self.choices[index];
        let stream = TextStream::new(&self.tokenizer, self.reading.skip_special);
        let Some(before) = choice.stream.replace(stream) else { return Ok(()) };
        let rest = before.finish().map_err(AnswerError::Undecodable)?;
        let (mut shown, stopped) = choice.decoded(&rest, self.reading.keep_stop);
        if let Some(stop) = stopped {
            self.show(index, shown, false);
            self.end(index, FinishReason::Stop, Some(StoppedBy::Text(stop)));
            return Ok(());
        }
        shown += &choice.stop.finish();
        self.show(index, shown, false);
        self.ready.push_back((index, Piece::Mark(self.tokenizer.token_text(id).unwrap_or_default())));
        Ok(())
    }

    fn end(&mut self, index: usize, reason: FinishReason, stopped_by: Option<StoppedBy>) {
        let choice = &mut self.choices[index];
        choice.stream = None;
        choice.wanted.store(false, Ordering::Relaxed);
        self.running -= 1;
        let ended = match reason {
            FinishReason::Stop => Ended::Stop,
            FinishReason::Length => Ended::Length,
        };
        choice.ended = Some(Instant::now());
        self.watcher.ended(ended, &choice.life(self.started));
        self.ready.push_back((index, Piece::End(Ending { reason, stopped_by })));
    }
}

impl Choice {
    /// What its times were.
    fn life(&self, taken: Instant) -> Life {
        let ended = self.ended.unwrap_or_else(Instant::now);
        let admitted = self.admitted.unwrap_or(ended);
        let (first_token, last_token) = (self.first_token.unwrap_or(ended), self.last_token.unwrap_or(ended));
        Life {
            whole: ended.saturating_duration_since(taken),
            queue: admitted.saturating_duration_since(taken),
            prefill: first_token.saturating_duration_since(admitted),
            decode: last_token.saturating_duration_since(first_token),
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generation_tokens: self.tokens,
        }
    }

    /// Counts decoded text and gives what of it may be shown, and the stop string that is complete, if one is.
    fn decoded(&mut self, text: &str, keep_stop: bool) -> (String, Option<String>) {
        self.decoded_bytes += text.len();
        self.decoded_chars += text.chars().count();
        if self.tokens < self.min_tokens {
            return (self.stop.finish() + text, None);
        }
        let (mut shown, stopped) = self.stop.push(text);
        if let (Some(stop), true) = (&stopped, keep_stop) {
            shown += stop;
        }
        (shown, stopped)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        for choice in &self.choices {
            choice.wanted.store(false, Ordering::Relaxed);
            if choice.stream.is_some() {
                self.watcher.ended(Ended::Abort, &choice.life(self.started));
            }
        }
    }
}
