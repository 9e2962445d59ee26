//! One training loop for every objective, its checkpoints, and the evaluation of models. Knows
//! token shards, never documents.

mod batch;
mod bench;
mod checkpoint;
mod evaluate;
mod fit;
mod loss;
mod metrics;
mod optimizer;
mod schedule;
mod validate;

pub use batch::{Batch, Batches, Objective};
pub use bench::{BenchShape, OperatorShare, TrainBench, TrainTiming};
pub use checkpoint::Passed;
pub use evaluate::{TaskItem, TaskScore, score_task};
pub use fit::{Fit, Fitted, Sampler, Trained, fit, replay};
pub use loss::nats;
pub use schedule::learning_rate;
pub use validate::{Validation, validate};
