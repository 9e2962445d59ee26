//! Text in, text out: a conversation becomes a prompt, the engine continues it, and its tokens become text again, as
//! they come or all at once, for code that waits and for code that does not.
//!
//! One place for what that takes: defaults of sampling, stop tokens, stop strings, a context that is full, tasks that
//! score a model. It knows texts, token ids and engines; no HTTP, no files, no names of models. Who wants to know times
//! is a [`Watcher`].
//!
//! ```
//! use narthex_answer::{Constraints, SamplingDefaults, SamplingWish, TextModel};
//! use narthex_infer::scripted::{Scripted, say};
//! use narthex_text::Tokenizer;
//! use std::{ops::ControlFlow, sync::Arc};
//!
//! let tokenizer = Tokenizer::train_bpe(std::iter::empty(), 257, &["<|endoftext|>"]).unwrap();
//! let said = tokenizer.encode("the answer", false).unwrap();
//! let model = TextModel {
//!     tokenizer: tokenizer.clone(),
//!     template: None,
//!     engine: Arc::new(Scripted::new(move |request| say(request, &said))),
//!     stop_tokens: vec![0],
//!     defaults: SamplingDefaults::default(),
//!     constraints: Arc::new(Constraints::new(&tokenizer)),
//! };
//! let prompt = model.tokenizer.encode("the question", false).unwrap();
//! let request = model.request(prompt, 100, model.defaults.sampling(&SamplingWish::default()));
//! assert_eq!(model.tell(request, |_| ControlFlow::Continue(())).unwrap().text, "the answer");
//! ```

mod beams;
mod constraint;
mod defaults;
mod encoder;
mod error;
mod generation;
mod model;
mod parts;
mod stop_strings;
mod stop_tokens;
mod tasks;
#[cfg(test)]
mod tests;
mod told;

pub use beams::BeamSearch;
pub use constraint::{Constraints, Either, FORM_BYTES_MAX, Form, Spacing, Tag, Tags, Thoughts, prepared_schema};
pub use defaults::{SamplingDefaults, SamplingWish};
pub use encoder::{Chances, TextEncoder, encoder_inputs, likeliest};
pub use error::AnswerError;
pub use generation::{Ended, Ending, Generation, Life, Piece, Reading, Scored, StoppedBy, Watcher, Whole};
pub use model::{ChatPrompt, TextModel};
pub use parts::{Part, Parts, Thinking};
pub use stop_strings::StopMatcher;
pub use stop_tokens::stop_tokens;
pub use tasks::{TaskItem, TaskScore, score_task};
pub use told::Told;
