//! One training loop for every objective and any Burn module, with checkpoints to the same byte. Knows token shards,
//! never documents.
//!
//! [`fit`] trains a module with an [`Objective`]; `docs/src/how-to/own-network.md` shows it with a network of one's
//! own.

mod bench;
mod checkpoint;
mod fault;
mod gradients;
mod label_figures;
mod learning_rate;
mod metrics;
mod network;
pub mod objective;
mod optimizer;
mod report;
mod saving;
mod selection;
mod session;
mod stored;
mod world;

pub use bench::{BenchSetting, BenchShape, OperatorShare, TrainBench, TrainRun, TrainTiming};
pub use checkpoint::{has_checkpoint, keep_state};
pub use gradients::NamedGradients;
pub use label_figures::LabelFigures;
pub use learning_rate::learning_rate;
pub use objective::Objective;
pub use selection::{Selected, Selection};
pub use session::{Fitted, Sampler, Training, fit, replay};
pub use world::{
    Alone, Communicator, Gathering, Layout, Mesh, Message, MpiFamily, Operation, Part, Pending, Pieces, Ranks, Seat,
    Segment, Sums, Traffic, World, mpi, sockets, tcp, threads,
};

// What a network of one's own is written with.
pub use burn;
pub use narthex_base as base;
pub use narthex_model::{Device, Dropout, cpu, device};

/// The page's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/how-to/own-network.md")]
struct OwnNetwork;
