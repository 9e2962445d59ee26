//! Sequences, batching, KV cache and sampling. Token ids only: no text, no HTTP, no files.
//!
//! [`Engine::start`] moves a model into a thread of its own; [`Engine::submit`] hands it a
//! [`Request`] and a sink that receives [`Output`]s as they are computed.

mod cache;
mod engine;
mod request;
mod sampling;

pub use cache::{KvCache, KvContext};
pub use engine::{Engine, EngineOptions, EngineStats, Sink};
pub use request::{FinishReason, Output, Request, Sampling, SubmitError, TokenLogprobs};
pub use sampling::{Sampled, log_softmax, sample};
