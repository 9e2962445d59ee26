//! One file per endpoint: its wire types and its handler. `router.rs` lists them. What several share has files of its
//! own: `ability` says what the model can do; `parameters` and `encoding` read requests, `generating` runs them;
//! `head`, `usage`, `logprobs` and `lineage` make answers, `refusal` says why there is none.

mod ability;
pub(crate) mod adapters;
pub(crate) mod chat_completions;
pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod encoding;
mod generating;
mod head;
pub(crate) mod health;
mod lineage;
mod logprobs;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod page;
mod parameters;
pub(crate) mod provenance;
mod refusal;
pub(crate) mod rerank;
pub(crate) mod score;
pub(crate) mod tokenize;
mod usage;
