//! One file per endpoint: its wire types and its handler. `router.rs` lists them.

pub(crate) mod adapters;
pub(crate) mod chat_completions;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod provenance;
pub(crate) mod rerank;
pub(crate) mod score;
pub(crate) mod tokenize;
