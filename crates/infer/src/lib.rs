//! The serving engine: sequences, scheduling, paged KV cache and sampling. Token ids only: no text, no HTTP, and
//! no files but those of adapters, which the model's crate reads.
//!
//! [`Engine::start`] moves a model into a thread of its own; [`Engine::submit`] hands it a [`Request`] and a sink that
//! receives [`Output`]s as they are computed. What a request yields does not depend on what else runs, on the number of
//! threads, or on how the scheduler cuts and postpones its work: on the CPU it is the same to the byte.
//!
//! ```
//! use narthex_infer::{Engine, EngineOptions, FinishReason, Request, Sampling};
//! use narthex_model::{Decoder, Design, ModelConfig, cpu};
//!
//! let config = ModelConfig {
//!     vocab_size: 64, hidden_size: 32, intermediate_size: 48, layers: 2, heads: 4, kv_heads: 2, head_width: 8,
//!     rms_norm_eps: 1e-6, rope_theta: 10_000.0, tied_embeddings: true, context: 128, bos_token: None, eos_tokens: vec![],
//!     design: Design::default(),
//! };
//! let engine = Engine::start(Decoder::random(&config, 1, &cpu()), EngineOptions::default()).unwrap();
//! let request = Request {
//!     prompt: vec![1, 2, 3],
//!     max_tokens: 8,
//!     sampling: Sampling { temperature: 0.0, ..Sampling::default() },
//!     ..Request::default()
//! };
//! let (tokens, reason) = engine.generate(request.clone()).unwrap();
//! assert_eq!((tokens.len(), reason), (8, Ok(FinishReason::Length)));
//! assert_eq!(engine.generate(request).unwrap().0, tokens);
//! ```

mod asked;
mod blocks;
mod constraint;
mod context;
mod draft;
mod encoder;
mod engine;
mod guesser;
mod handle;
mod masks;
mod request;
mod sampling;
mod scheduler;
pub mod scripted;
mod speculation;
mod stats;
mod worker;

pub use blocks::BlockPool;
pub use constraint::{Allowed, Constraint, ConstraintState, TokenSet};
pub use context::PagedContext;
pub use encoder::{EncoderEngine, EncoderOptions, EncoderSink, Encodes, shortened};
pub use engine::{Engine, EngineOptions, Generates};
pub use handle::{StatsReader, Takes, Ticket};
pub use narthex_kernels::KV_BLOCK;
pub use narthex_model::{Adapter, EncoderInput, EncoderTask};
pub use request::{FinishReason, Output, Request, Sampling, Sink, SubmitError, TokenLogprobs};
pub use sampling::{History, Sampled, log_softmax, sample};
pub use scheduler::{Counters, Limits, NewSequence, Outlook, Policy, Scheduler, SequenceId, Work};
pub use speculation::{PROPOSED_TOKENS_MAX, Speculation, SpeculationMethod};
pub use stats::{EngineStats, STEP_TOKENS_BOUNDS};
