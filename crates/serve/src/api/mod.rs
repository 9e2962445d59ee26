//! One file per endpoint: its wire types and its handler. `router.rs` lists them. What several share has files of its
//! own: `ability` says what the model can do; `parameters` and `encoding` read requests, `generating` runs them;
//! `head`, `usage`, `logprobs` and `lineage` make answers, `refusal` says why there is none.

mod ability;
pub(crate) mod adapters;
pub(crate) mod anthropic;
mod chat_answer;
pub(crate) mod chat_completions;
mod chunks;
pub(crate) mod classify;
pub(crate) mod cohere;
pub(crate) mod completions;
mod conversing;
pub(crate) mod embeddings;
mod encoding;
mod forms;
mod generating;
mod head;
pub(crate) mod health;
mod lineage;
pub(crate) mod llama_server;
mod logprobs;
mod messages;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod ollama;
pub(crate) mod page;
mod parameters;
pub(crate) mod pooling;
pub(crate) mod provenance;
mod refusal;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod score;
pub(crate) mod server;
pub(crate) mod tokenize;
mod tools;
mod usage;
