//! An OpenAI-compatible HTTP server for models, and the chat page at `/`.
//!
//! What is served has an [`Ability`]: it writes text, or gives vectors, scores or labels for texts; an endpoint asks
//! for one. This crate holds no tensors, reads no model files and knows no command line: the caller hands it a
//! [`Served`] (in a [`Serving`], which can replace it, among the [`Models`]) and a [`ServeOptions`]. How text is made is the crate `answer`;
//! what listens, `http`.

mod api;
mod app;
mod batch;
mod batches;
mod dialects;
mod in_house;
mod listen;
mod metrics;
mod model;
mod options;
mod router;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_files;
#[cfg(test)]
mod tests;

pub use batch::{BatchSummary, run_batch};
pub use batches::FilesOptions;
pub use dialects::responses::StoreLimits;
pub use in_house::{HouseAnswer, InHouse};
pub use listen::serve;
pub use model::{
    Ability, AdapterEntry, AdapterSources, Adapters, LabelAbility, Models, NotServed, Served, ServedAdapter, Serving,
    Sizes, TextAbility,
};
pub use options::{Limits, ServeOptions};
pub use router::router;
