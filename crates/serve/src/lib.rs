//! An OpenAI-compatible HTTP server for one model, and the chat page at `/`.
//!
//! Text goes in and comes out; between them stand token ids and a [`Generator`]. This crate holds
//! no tensors, reads no model files and knows no command line: the caller hands it a
//! [`ServedModel`] and a [`ServeOptions`].

mod answer;
mod api;
mod batch;
mod error;
mod events;
mod fields;
mod generation;
mod generator;
mod guard;
mod logprobs;
mod metrics;
mod parameters;
mod router;
pub mod scripted;
mod served;
mod server;
mod stop;
#[cfg(test)]
mod testing;

pub use batch::{BatchSummary, run_batch};
pub use generator::{Generator, Sink, Ticket};
pub use router::router;
pub use served::{Limits, SamplingDefaults, ServeOptions, ServedModel};
pub use server::{bind, serve};
