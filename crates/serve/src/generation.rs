//! From token ids to text: submits the sequences of one request and follows them until each has
//! ended by a stop token, a stop string or its length. Knows no wire format.

use crate::{
    Sink, Ticket,
    app::App,
    error::ApiError,
    exchange::{Exchange, GenerationRecord},
    head::{Head, reason_word},
    metrics::{Ended, Life, Metrics},
    parameters::Parameters,
    stop::StopMatcher,
};
use narthex_infer::{FinishReason, Output, Request, TokenLogprobs};
use narthex_text::TextStream;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::sync::mpsc;

/// Outputs of a sequence that are not tokens: its prompt's scores, its end, and one to spare.
const EXTRA_OUTPUTS: usize = 3;

/// What the sequences are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Completion,
}

impl Operation {
    /// The request's field that the prompt is made of.
    fn prompt_field(self) -> &'static str {
        match self {
            Operation::Chat => "messages",
            Operation::Completion => "prompt",
        }
    }

    /// As OpenTelemetry names it.
    fn name(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Completion => "text_completion",
        }
    }
}

/// One thing that a choice yields.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Scores of the prompt's tokens, if they were asked for.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// Text, and the scores of the tokens it began with, if they were asked for.
    Text(String, Vec<Scored>),
    /// The choice has ended.
    End(FinishReason),
}

/// A token of an answer with its scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// The token.
    pub id: u32,
    /// Its scores.
    pub logprobs: TokenLogprobs,
    /// Where it begins in the choice's text, in characters.
    pub start_chars: usize,
    start_bytes: usize,
}

/// The running sequences of one request. Dropping it tells the engine that nobody listens.
pub(crate) struct Generation {
    receiver: mpsc::Receiver<(usize, Output)>,
    choices: Vec<Choice>,
    ready: VecDeque<(usize, Piece)>,
    running: usize,
    started: Instant,
    metrics: Arc<Metrics>,
    exchange: Arc<Exchange>,
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
    prompt_tokens: usize,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    wanted: Arc<AtomicBool>,
}

impl Generation {
    /// Hands the sequences to the engine: for each prompt as many as there are choices.
    pub fn start(
        app: &App,
        exchange: Arc<Exchange>,
        operation: Operation,
        head: &Head,
        parameters: &Parameters,
        requests: Vec<Request>,
    ) -> Result<Self, ApiError> {
        exchange.generates(record(operation, head, parameters, &requests));
        // The engine must never wait for a slow client: the channel has room for all it can say.
        let room = requests.iter().map(|request| request.max_tokens + EXTRA_OUTPUTS).sum::<usize>().max(1);
        let (sender, receiver) = mpsc::channel(room.min(tokio::sync::Semaphore::MAX_PERMITS));
        let mut choices = Vec::with_capacity(requests.len());
        let mut tickets = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            let wanted = Arc::new(AtomicBool::new(true));
            choices.push(Choice {
                stream: Some(TextStream::new(&app.model.tokenizer, true).after(&request.prompt)),
                stop: StopMatcher::new(parameters.stop.clone()),
                scored: VecDeque::new(),
                decoded_bytes: 0,
                decoded_chars: 0,
                shown_bytes: 0,
                tokens: 0,
                prompt_tokens: request.prompt.len(),
                admitted: None,
                first_token: None,
                last_token: None,
                wanted: wanted.clone(),
            });
            let sender = sender.clone();
            let sink: Sink =
                Box::new(move |output| wanted.load(Ordering::Relaxed) && sender.try_send((index, output)).is_ok());
            let taken = app.model.generator.submit(request, sink);
            tickets.push(taken.map_err(|error| ApiError::submit(&error, operation.prompt_field()))?);
        }
        let running = choices.len();
        let (metrics, ready) = (app.shared.metrics.clone(), VecDeque::new());
        Ok(Self { receiver, choices, ready, running, started: Instant::now(), metrics, exchange, _tickets: tickets })
    }

    /// The next piece of any choice; nothing once all have ended.
    pub async fn next(&mut self) -> Result<Option<(usize, Piece)>, ApiError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.running == 0 {
                return Ok(None);
            }
            let (index, output) = self.receiver.recv().await.ok_or_else(ApiError::engine_stopped)?;
            self.take(index, output)?;
        }
    }

    /// Tokens of all choices so far, stop tokens included.
    pub fn completion_tokens(&self) -> usize {
        self.choices.iter().map(|choice| choice.tokens).sum()
    }

    fn take(&mut self, index: usize, output: Output) -> Result<(), ApiError> {
        let choice = &mut self.choices[index];
        if choice.stream.is_none() {
            return Ok(());
        }
        let decoder =
            |error: narthex_base::Error| ApiError::internal(format!("cannot decode the answer: {}", error.what()));
        match output {
            Output::Admitted => choice.admitted = Some(Instant::now()),
            Output::Prompt(scores) => self.ready.push_back((index, Piece::Prompt(scores))),
            Output::Token { id, logprobs } => {
                self.count(index, id, logprobs);
                let choice = &mut self.choices[index];
                let Some(stream) = &mut choice.stream else { return Ok(()) };
                let Some(text) = stream.push(id).map_err(decoder)? else { return Ok(()) };
                let (shown, stopped) = choice.decoded(&text);
                self.show(index, shown, false);
                if stopped {
                    self.end(index, FinishReason::Stop);
                }
            }
            // Counted like the others, with its score, but without text.
            Output::StopToken { id, logprobs } => self.count(index, id, logprobs),
            Output::Finished(reason) => {
                let rest = choice.stream.take().expect("checked above").finish().map_err(decoder)?;
                let (mut shown, stopped) = choice.decoded(&rest);
                if !stopped {
                    shown += &choice.stop.finish();
                }
                self.show(index, shown, !stopped);
                self.end(index, if stopped { FinishReason::Stop } else { reason });
            }
            Output::Failed(message) => return Err(ApiError::internal(format!("the engine failed: {message}"))),
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
                self.metrics.first_token(now - self.started);
            }
            Some(last) => self.metrics.next_token(now - last),
        }
        // At once: who watches the exchange may see it end before we do.
        self.exchange.update(|record| {
            record.completion_tokens += 1;
            // From the request on, reading and tokenizing it included.
            record.first_token_s.get_or_insert((now - self.exchange.begun).as_secs_f64());
        });
        choice.tokens += 1;
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
        if !text.is_empty() || !scored.is_empty() {
            self.ready.push_back((index, Piece::Text(text, scored)));
        }
    }

    fn end(&mut self, index: usize, reason: FinishReason) {
        let choice = &mut self.choices[index];
        choice.stream = None;
        choice.wanted.store(false, Ordering::Relaxed);
        self.running -= 1;
        let ended = match reason {
            FinishReason::Stop => Ended::Stop,
            FinishReason::Length => Ended::Length,
        };
        self.metrics.ended(ended, &choice.life(self.started));
        self.exchange.update(|record| record.finish_reasons.push(reason_word(reason)));
        self.ready.push_back((index, Piece::End(reason)));
    }
}

fn record(operation: Operation, head: &Head, parameters: &Parameters, requests: &[Request]) -> GenerationRecord {
    let sampling = &parameters.sampling;
    GenerationRecord {
        operation: operation.name(),
        model: head.model.clone(),
        response_id: head.id.clone(),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed,
        max_tokens: requests.iter().map(|request| request.max_tokens).max().unwrap_or(0),
        choices: parameters.n,
        stream: parameters.stream,
        prompt_tokens: requests.iter().map(|request| request.prompt.len()).sum::<usize>() / parameters.n,
        ..GenerationRecord::default()
    }
}

impl Choice {
    /// What its times were.
    fn life(&self, taken: Instant) -> Life {
        let ended = Instant::now();
        let admitted = self.admitted.unwrap_or(ended);
        let (first_token, last_token) = (self.first_token.unwrap_or(ended), self.last_token.unwrap_or(ended));
        Life {
            whole: ended.saturating_duration_since(taken),
            queue: admitted.saturating_duration_since(taken),
            prefill: first_token.saturating_duration_since(admitted),
            decode: last_token.saturating_duration_since(first_token),
            prompt_tokens: self.prompt_tokens,
            generation_tokens: self.tokens,
        }
    }

    /// Counts decoded text and gives what of it may be shown, and whether a stop string is complete.
    fn decoded(&mut self, text: &str) -> (String, bool) {
        self.decoded_bytes += text.len();
        self.decoded_chars += text.chars().count();
        self.stop.push(text)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        for choice in &self.choices {
            choice.wanted.store(false, Ordering::Relaxed);
            if choice.stream.is_some() {
                self.metrics.ended(Ended::Abort, &choice.life(self.started));
            }
        }
    }
}
