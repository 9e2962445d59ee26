//! The engine: a thread that owns the model and carries a batch of running sequences forward, one
//! token each per step. New sequences join between steps.
//!
//! It knows token ids only. Whoever reads a sink decides what the tokens mean; a sink that returns
//! `false` cancels its sequence.

use crate::{
    FinishReason, KvCache, KvContext, Output, Request, SubmitError, TokenLogprobs,
    sampling::{sample, token_logprobs},
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use narthex_model::{Decoder, Dropout, ModelConfig};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Where the outputs of a request go. Returns whether anybody still listens.
pub type Sink = Box<dyn FnMut(Output) -> bool + Send>;

/// Limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sequences that run at once.
    pub sequences_max: usize,
    /// Sequences that wait at most.
    pub waiting_max: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { sequences_max: 32, waiting_max: 1024 }
    }
}

/// Counters of an engine, as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences in the batch.
    pub requests_running: u64,
    /// Sequences that wait for a place.
    pub requests_waiting: u64,
    /// Prompt tokens processed since the start.
    pub prompt_tokens_total: u64,
    /// Tokens generated since the start.
    pub generation_tokens_total: u64,
    /// Sequences that ended on a stop token.
    pub finished_stop_total: u64,
    /// Sequences that ended on their limit.
    pub finished_length_total: u64,
    /// Sequences whose reader went away or that failed.
    pub finished_abort_total: u64,
}

/// A handle on the engine; cheap to clone. The engine ends with its last handle.
#[derive(Clone)]
pub struct Engine {
    requests: Sender<Sequence>,
    stats: Arc<Mutex<EngineStats>>,
    config: ModelConfig,
    options: EngineOptions,
}

/// One request's state.
struct Sequence {
    request: Request,
    sink: Sink,
    cache: KvCache,
    /// The token that goes in next, once the prompt is in.
    last: u32,
    generated: usize,
}

impl Engine {
    /// Moves the model into a thread.
    pub fn start(model: Decoder, options: EngineOptions) -> Self {
        let model = model.for_inference();
        let config = model.config().clone();
        let stats = Arc::new(Mutex::new(EngineStats::default()));
        let (requests, incoming) = channel();
        let shared = stats.clone();
        thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                Worker { model, options, stats: shared, running: vec![], waiting: VecDeque::new() }.run(incoming)
            })
            .expect("the system gives the process one more thread");
        Self { requests, stats, config, options }
    }

    /// Queues a request. Its outputs go to `sink`, from the engine's thread: it must not block.
    ///
    /// # Errors
    /// If the request cannot be run, or too many wait.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<(), SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(SubmitError::UnknownToken(*id));
        }
        let room = if request.max_tokens == 0 { self.config.context } else { self.config.context.saturating_sub(1) };
        if request.prompt.len() > room {
            return Err(SubmitError::TooLong { prompt: request.prompt.len(), context: self.config.context });
        }
        {
            let mut stats = lock(&self.stats);
            if stats.requests_waiting >= self.options.waiting_max as u64 {
                return Err(SubmitError::QueueFull);
            }
            stats.requests_waiting += 1;
        }
        let sequence = Sequence { request, sink, cache: KvCache::default(), last: 0, generated: 0 };
        self.requests.send(sequence).map_err(|_| {
            lock(&self.stats).requests_waiting -= 1;
            SubmitError::Stopped
        })
    }

    /// Runs one request to its end and returns the new tokens and why they end.
    ///
    /// # Errors
    /// If the request cannot be run.
    pub fn generate(&self, request: Request) -> Result<(Vec<u32>, Result<FinishReason, String>), SubmitError> {
        let (sender, outputs) = channel();
        self.submit(request, Box::new(move |output| sender.send(output).is_ok()))?;
        let mut tokens = Vec::new();
        for output in outputs {
            match output {
                Output::Prompt(_) => {}
                Output::Token { id, .. } => tokens.push(id),
                Output::Finished(reason) => return Ok((tokens, Ok(reason))),
                Output::Failed(why) => return Ok((tokens, Err(why))),
            }
        }
        Err(SubmitError::Stopped)
    }

    /// Counters as of now.
    pub fn stats(&self) -> EngineStats {
        *lock(&self.stats)
    }

    /// Tokens in the model's vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// Tokens that a sequence may have, prompt included.
    pub fn context(&self) -> usize {
        self.config.context
    }
}

fn lock(stats: &Mutex<EngineStats>) -> std::sync::MutexGuard<'_, EngineStats> {
    stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

struct Worker {
    model: Decoder,
    options: EngineOptions,
    stats: Arc<Mutex<EngineStats>>,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
}

impl Worker {
    /// Until every handle is gone and every sequence has ended.
    fn run(mut self, incoming: Receiver<Sequence>) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                match incoming.recv() {
                    Ok(sequence) => self.waiting.push_back(sequence),
                    Err(_) => return,
                }
            }
            self.waiting.extend(incoming.try_iter());
            while self.running.len() < self.options.sequences_max {
                let Some(sequence) = self.waiting.pop_front() else { break };
                self.admit(sequence);
            }
            self.step();
            let mut stats = lock(&self.stats);
            stats.requests_running = self.running.len() as u64;
        }
    }

    /// Runs the prompt of a new sequence, and keeps it if it goes on.
    fn admit(&mut self, mut sequence: Sequence) {
        lock(&self.stats).requests_waiting -= 1;
        let model = &self.model;
        let outcome = catch_unwind(AssertUnwindSafe(|| prefill(model, &mut sequence)));
        lock(&self.stats).prompt_tokens_total += sequence.request.prompt.len() as u64;
        let Ok((logits, prompt)) = outcome else {
            return self.fail(vec![sequence]);
        };
        if let Some(prompt) = prompt
            && !(sequence.sink)(Output::Prompt(prompt))
        {
            lock(&self.stats).finished_abort_total += 1;
            return;
        }
        if sequence.request.max_tokens == 0 {
            self.finish(&mut sequence, FinishReason::Length);
        } else if self.accept(&mut sequence, &logits) {
            self.running.push(sequence);
        }
    }

    /// One token for every running sequence.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let mut running = std::mem::take(&mut self.running);
        let model = &self.model;
        let Ok(logits) = catch_unwind(AssertUnwindSafe(|| decode(model, &mut running))) else {
            return self.fail(running);
        };
        for (mut sequence, logits) in running.into_iter().zip(logits.chunks_exact(self.model.config().vocab_size)) {
            if self.accept(&mut sequence, logits) {
                self.running.push(sequence);
            }
        }
    }

    /// Samples the next token and hands it out. Returns whether the sequence goes on.
    fn accept(&mut self, sequence: &mut Sequence, logits: &[f32]) -> bool {
        let request = &sequence.request;
        let sampled = sample(logits, &request.sampling, sequence.generated as u64, request.logprobs);
        if request.stop_tokens.contains(&sampled.id) {
            self.finish(sequence, FinishReason::Stop);
            return false;
        }
        sequence.generated += 1;
        sequence.last = sampled.id;
        let full = sequence.generated >= request.max_tokens
            || request.prompt.len() + sequence.generated >= self.model.config().context;
        lock(&self.stats).generation_tokens_total += 1;
        if !(sequence.sink)(Output::Token { id: sampled.id, logprobs: sampled.logprobs }) {
            lock(&self.stats).finished_abort_total += 1;
            return false;
        }
        if full {
            self.finish(sequence, FinishReason::Length);
        }
        !full
    }

    fn finish(&self, sequence: &mut Sequence, reason: FinishReason) {
        let mut stats = lock(&self.stats);
        match reason {
            FinishReason::Stop => stats.finished_stop_total += 1,
            FinishReason::Length => stats.finished_length_total += 1,
        }
        drop(stats);
        (sequence.sink)(Output::Finished(reason));
    }

    /// A forward pass panicked: its sequences end, the engine goes on.
    fn fail(&self, sequences: Vec<Sequence>) {
        for mut sequence in sequences {
            lock(&self.stats).finished_abort_total += 1;
            (sequence.sink)(Output::Failed(
                "the model could not process this sequence; this is a bug in narthex".into(),
            ));
        }
    }
}

/// Runs a prompt: the logits after its last token, and those of the prompt's own tokens where asked for.
fn prefill(model: &Decoder, sequence: &mut Sequence) -> (Vec<f32>, Option<Vec<Option<TokenLogprobs>>>) {
    let device = narthex_model::cpu();
    let request = &sequence.request;
    let len = request.prompt.len();
    let positions: Vec<usize> = (0..len).collect();
    let mut context = KvContext::new(vec![&mut sequence.cache]);
    let rotary = model.rotary(&[&positions], &device);
    let hidden = model.hidden(tokens(&request.prompt, 1, &device), &rotary, &mut context, &mut Dropout::none());
    context.advance(len);
    if !request.prompt_logprobs {
        let last = hidden.narrow(0, len - 1, 1);
        return (values(model.logits(last)), None);
    }
    let logits = values(model.logits(hidden));
    let rows: Vec<&[f32]> = logits.chunks_exact(model.config().vocab_size).collect();
    let top = request.logprobs.unwrap_or(0);
    let prompt =
        request.prompt.iter().enumerate().map(|(i, id)| (i > 0).then(|| token_logprobs(rows[i - 1], *id, top)));
    (rows[len - 1].to_vec(), Some(prompt.collect()))
}

/// One more token for each sequence: their logits, row after row.
fn decode(model: &Decoder, sequences: &mut [Sequence]) -> Vec<f32> {
    let device = narthex_model::cpu();
    let last: Vec<u32> = sequences.iter().map(|sequence| sequence.last).collect();
    let positions: Vec<[usize; 1]> = sequences.iter().map(|sequence| [sequence.cache.len()]).collect();
    let rows: Vec<&[usize]> = positions.iter().map(|row| row.as_slice()).collect();
    let rotary = model.rotary(&rows, &device);
    let mut context = KvContext::new(sequences.iter_mut().map(|sequence| &mut sequence.cache).collect());
    let logits = model.forward(tokens(&last, last.len(), &device), &rotary, &mut context, &mut Dropout::none());
    context.advance(1);
    values(logits)
}

fn tokens(ids: &[u32], rows: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let len = ids.len() / rows;
    Tensor::from_data(TensorData::new(ids, [rows, len]), device)
}

fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_to_vec().expect("logits are f32")
}

#[cfg(test)]
mod tests;
