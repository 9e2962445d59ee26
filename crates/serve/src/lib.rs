//! An OpenAI-compatible HTTP server for one model, generator or encoder, and the chat page at `/`.
//!
//! Text goes in and comes out; between them stand token ids and a [`Generator`]. This crate holds
//! no tensors, reads no model files and knows no command line: the caller hands it a
//! [`ServedModel`] (in a [`Serving`], which can exchange it) and a [`ServeOptions`].

mod adapter_source;
mod adapters;
mod answer;
mod api;
mod app;
mod batch;
mod embedder;
mod encoding;
mod error;
mod events;
mod exchange;
mod fields;
mod generation;
mod generator;
mod guard;
mod head;
mod lineage;
mod log;
mod logprobs;
mod metrics;
mod observe;
mod parameters;
mod router;
pub mod scripted;
mod served;
mod server;
mod serving;
mod stop;
#[cfg(test)]
mod testing;
mod tls;
mod trace;

pub use adapter_source::{AdapterSource, AdapterSources, NotServed};
pub use adapters::{AdapterEntry, Adapters};
pub use batch::{BatchSummary, run_batch};
pub use embedder::{Embedder, Encodes};
pub use generator::{Counters, Generator, Sink, Ticket};
pub use router::router;
pub use served::{ApiKey, Limits, SamplingDefaults, ServeOptions, ServedModel};
pub use server::{Bound, bind, serve};
pub use serving::Serving;
pub use tls::TlsFiles;
