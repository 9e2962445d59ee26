//! Text to tokens and back: the tokenizer, the chat template, and token shards.
//!
//! This crate knows no document formats, no HTTP and no tensors. It reads and writes the files
//! that Hugging Face's tools use (`tokenizer.json`, `tokenizer_config.json`,
//! `generation_config.json`), and one of its own: the token shard, which is all that training reads.

pub mod calls;
mod config;
mod config_keys;
mod messages;
mod pair;
mod python;
mod repr;
mod sequence;
mod shard;
mod stream;
mod template;
mod thoughts;
mod tokenizer;

pub use config::{GenerationConfig, TokenizerConfig};
pub use pair::encode_pair;
pub use sequence::{SequenceTokenizer, TokenSequence};
pub use shard::{ShardWriter, TokenShard};
pub use stream::TextStream;
pub use template::{CHATML, ChatInput, ChatTemplate, Clock, MaskedIds};
pub use thoughts::thought_marks;
pub use tokenizer::Tokenizer;
