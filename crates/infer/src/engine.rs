//! The engine: a thread that owns the model and the cache, and carries sequences forward step by step as the scheduler
//! decides.
//!
//! It knows token ids only. Whoever reads a sink decides what the tokens mean; a sink that returns
//! `false`, or a dropped [`Ticket`], cancels its sequence.

use crate::{
    EngineStats, FinishReason, Output, Policy, Request, Sampling, Scheduler, Sink, Speculation, SpeculationMethod,
    StatsReader, SubmitError, Takes, Ticket,
    draft::Draft,
    guesser::Guesser,
    handle::Handle,
    speculation::relative_cost,
    stats::Shared,
    worker::{Job, Message, Worker},
};
use narthex_base::Result;
use narthex_kernels::{KV_BLOCK, KvLayer, KvShape, team::Team};
use narthex_model::{Adapter, Decoder, ModelConfig, cpu};
use std::{
    path::Path,
    sync::{Arc, mpsc::channel},
};

/// Something that continues sequences of tokens: [`Engine`], or a script in tests.
pub trait Generates: Takes<Request, Sink> {
    /// Reads an adapter for the model.
    ///
    /// # Errors
    /// If it cannot be read or does not fit.
    fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>>;
}

/// Limits of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences that run at once.
    pub sequences_max: usize,
    /// Sequences that wait at most.
    pub waiting_max: usize,
    /// Tokens that a step computes at most, of all sequences together; prompts get a sixth of it while most sequences
    /// generate.
    pub step_tokens_max: usize,
    /// Tokens of one sequence in a step: longer prompts come in chunks, so that others get in between.
    pub chunk_tokens_max: usize,
    /// Bytes for keys and values at most. They are taken as they are needed, and never more than all sequences at full
    /// length could fill.
    pub kv_cache_bytes: usize,
    /// Whether keys and values are stored as 8-bit integers ([`narthex_kernels::KvShape::int8`]) rather than in the
    /// model's precision.
    pub kv_cache_int8: bool,
    /// Tokens that a sequence may have at most, prompt included; the model's own limit if that is lower.
    pub context_max: usize,
    /// Whether prompts with a common beginning share what was computed for it.
    pub prefix_cache: bool,
    /// Who goes first.
    pub policy: Policy,
    /// Threads that compute; all processors if 0.
    pub threads: usize,
    /// Whether each stays on a processor of its own.
    pub pinned: bool,
    /// Whether tokens are guessed ahead, and how.
    pub speculation: Option<Speculation>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            sequences_max: 32,
            waiting_max: 1024,
            step_tokens_max: 256,
            chunk_tokens_max: 256,
            kv_cache_bytes: 1 << 30,
            kv_cache_int8: false,
            context_max: usize::MAX,
            prefix_cache: true,
            policy: Policy::Fcfs,
            threads: 0,
            pinned: false,
            speculation: None,
        }
    }
}

/// A handle on the engine; cheap to clone. The engine ends with its last handle, after the sequences in hand.
#[derive(Clone)]
pub struct Engine {
    /// Packed weights are shared with the worker.
    model: Decoder,
    handle: Handle<Message>,
    config: ModelConfig,
    policy: Policy,
    waiting_max: usize,
    context: usize,
    kv_bytes: usize,
}

impl Engine {
    /// Moves the model into a thread. On the CPU its weights are packed first, unless they are.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    ///
    /// # Panics
    /// If a limit is 0, or a draft model has another vocabulary.
    pub fn start(model: Decoder, options: EngineOptions) -> Result<Self> {
        Self::start_with(model, options, None)
    }

    /// With what a draft model's row costs beside the model's, if that is not to be taken from their weights.
    fn start_with(model: Decoder, options: EngineOptions, draft_cost: Option<f64>) -> Result<Self> {
        let config = model.config().clone();
        let team = Team::new(options.threads, options.pinned);
        let model = ready(model);
        let speculation = options.speculation.as_ref();
        let draft = speculation.and_then(|speculation| {
            speculation.check(&config);
            match &speculation.method {
                SpeculationMethod::Draft(draft) => Some(ready(Decoder::clone(draft))),
                SpeculationMethod::Ngram { .. } => None,
            }
        });
        let shape_of = |model: &Decoder| KvShape {
            blocks: 0,
            kv_heads: model.config().kv_heads,
            head_width: model.config().head_width,
            precision: model.precision(),
            int8: options.kv_cache_int8,
        };
        let bytes_of = |model: &Decoder| shape_of(model).block_bytes() * model.config().layers;
        let context = config.context.min(options.context_max);
        let block_bytes = bytes_of(&model) + draft.as_ref().map_or(0, bytes_of);
        let enough = options.sequences_max.saturating_mul(context.div_ceil(KV_BLOCK));
        let blocks = (options.kv_cache_bytes / block_bytes).clamp(1, enough.max(1));
        let context = context.min(blocks * KV_BLOCK);
        let layers_of = |model: &Decoder| -> Vec<KvLayer> {
            let shape = KvShape { blocks, ..shape_of(model) };
            (0..model.config().layers).map(|_| KvLayer::new(shape, &model.device())).collect()
        };
        let layers = layers_of(&model);
        let draft = draft.map(|draft| {
            let cost = draft_cost.unwrap_or_else(|| relative_cost(draft.config(), &config));
            let layers = layers_of(&draft);
            (Draft::new(draft, layers, blocks), cost)
        });
        let guesser = speculation.map(|speculation| Guesser::new(speculation, draft));
        let scheduler = Scheduler::new(crate::Limits {
            sequences_max: options.sequences_max,
            // Every sequence that runs gets its token in every step.
            step_tokens_max: options.step_tokens_max.max(options.sequences_max),
            chunk_tokens_max: options.chunk_tokens_max,
            blocks,
            prefix_cache: options.prefix_cache,
            policy: options.policy,
        });
        let shared = Arc::new(Shared::default());
        shared.update(|stats| {
            stats.kv_blocks_total = blocks as u64;
            stats.guesses_max = speculation.map_or(0, |speculation| speculation.tokens as u64);
        });
        let worker = Worker::new(model.clone(), layers, scheduler, context, shared.clone(), guesser);
        let handle = Handle::start("engine", team, shared, move |incoming| worker.run(incoming))?;
        let (policy, waiting_max, kv_bytes) = (options.policy, options.waiting_max, block_bytes * blocks);
        Ok(Self { model, handle, config, policy, waiting_max, context, kv_bytes })
    }

    /// Queues a request. Its outputs go to `sink`, from the engine's thread: it must not block.
    ///
    /// # Errors
    /// If the request cannot be run, or too many wait.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let biased = request.sampling.logit_bias.iter().map(|(id, _)| id);
        let Sampling { bad_words, allowed, .. } = &request.sampling;
        let wished = bad_words.iter().flatten().chain(allowed).chain(&request.logprob_ids);
        let ids = request.prompt.iter().chain(biased).chain(&request.stop_tokens).chain(wished);
        if let Some(id) = ids.copied().find(|id| *id as usize >= self.config.vocab_size) {
            return Err(SubmitError::UnknownToken(id));
        }
        let room = if request.max_tokens == 0 { self.context } else { self.context.saturating_sub(1) };
        if request.prompt.len() > room {
            return Err(SubmitError::TooLong { prompt: request.prompt.len(), context: self.context });
        }
        if request.priority != 0 && self.policy == Policy::Fcfs {
            return Err(SubmitError::NoPriorities);
        }
        if self.handle.shared.stats().requests_waiting >= self.waiting_max as u64 {
            return Err(SubmitError::QueueFull);
        }
        let number = self.handle.shared.next_ticket();
        self.handle.request(Message::Submit(Box::new(Job::new(request, sink, number, self.context))))?;
        Ok(self.handle.ticket(move || Message::Cancel(number)))
    }

    /// Runs one request to its end and returns the new tokens and why they end.
    ///
    /// # Errors
    /// If the request cannot be run.
    pub fn generate(&self, request: Request) -> Result<(Vec<u32>, Result<FinishReason, String>), SubmitError> {
        let (sender, outputs) = channel();
        let _ticket = self.submit(request, Box::new(move |output| sender.send(output).is_ok()))?;
        let mut tokens = Vec::new();
        for output in outputs {
            match output {
                Output::Admitted { .. } | Output::Prompt(_) | Output::StopToken { .. } => {}
                Output::Token { id, .. } => tokens.push(id),
                Output::Finished(reason) => return Ok((tokens, Ok(reason))),
                Output::Failed(why) => return Ok((tokens, Err(why))),
            }
        }
        Err(SubmitError::Stopped)
    }

    /// Reads an adapter for requests to this engine.
    ///
    /// # Errors
    /// If it cannot be read, does not fit the model, or the model is not on the CPU.
    pub fn adapter(&self, folder: &Path) -> Result<Adapter> {
        Adapter::read(folder, &self.model)
    }

    /// Counters as of now.
    pub fn stats(&self) -> EngineStats {
        self.handle.shared.stats()
    }

    /// How the model is made.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Tokens in the model's vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// Tokens that a sequence may have, prompt included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Positions whose keys and values the cache holds.
    pub fn kv_cache_tokens(&self) -> usize {
        self.handle.shared.stats().kv_blocks_total as usize * KV_BLOCK
    }

    /// Bytes that keys and values take when the cache is full.
    pub fn kv_cache_bytes(&self) -> usize {
        self.kv_bytes
    }
}

impl Takes<Request, Sink> for Engine {
    fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, SubmitError> {
        Engine::submit(self, request, sink)
    }

    fn stats_reader(&self) -> StatsReader {
        self.handle.stats_reader()
    }

    fn context(&self) -> usize {
        self.context
    }
}

impl Generates for Engine {
    fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>> {
        Ok(Arc::new(Engine::adapter(self, folder)?))
    }
}

/// A model as it runs here: on the CPU with its weights packed.
fn ready(model: Decoder) -> Decoder {
    match model.device().inner() == cpu() && !model.is_packed() {
        true => model.pack(model.precision()),
        false => model.for_inference(),
    }
}

#[cfg(test)]
mod tests;
