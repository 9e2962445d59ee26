//! One training loop for every objective, its checkpoints, and the evaluation of models. Knows
//! token shards, never documents.

mod adamw;
mod batch;
mod checkpoint;
mod evaluate;
mod fit;
mod loss;
mod metrics;
mod probe;
mod schedule;
mod validate;

pub use adamw::{AdamW, Hyperparameters};
pub use batch::{Batch, Batches, Objective};
pub use evaluate::{TaskItem, TaskScore, score_task};
pub use fit::{Fit, Fitted, Sampler, Trained, fit};
pub use loss::nats;
pub use probe::matmul_flop_per_second;
pub use schedule::learning_rate;
pub use validate::{Validation, validate};
