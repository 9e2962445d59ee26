//! Sequences, batching, KV cache and sampling. Token ids only: no text, no HTTP, no files.
//!
//! [`Engine::start`] moves a model into a thread of its own; [`Engine::submit`] hands it a
//! [`Request`] and a sink that receives [`Output`]s as they are computed.

mod blocks;
mod context;
mod engine;
mod request;
mod sampling;
mod scheduler;
mod worker;

pub use blocks::BlockPool;
pub use context::PagedContext;
pub use engine::{Engine, EngineOptions, EngineStats, STEP_TOKENS_BOUNDS, Sink, Ticket};
pub use narthex_kernels::KV_BLOCK;
pub use request::{FinishReason, Output, Request, Sampling, SubmitError, TokenLogprobs};
pub use sampling::{History, Sampled, log_softmax, sample};
pub use scheduler::{Counters, Limits, NewSequence, Policy, Scheduler, SequenceId, Work};
