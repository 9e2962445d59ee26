//! From a plan to artifacts: decides which steps of a project must run and why, runs them, records what they made, and
//! makes it again to see whether the same results. Front ends render its events and reports. What a project holds is
//! opened by `narthex-shelf`.

mod card;
mod estimate;
mod events;
pub mod inspect;
pub mod look;
mod material;
mod memory;
mod policy;
mod project;
mod pulled_data;
mod quantize;
mod ranks;
mod recipe;
mod reproduce;
mod runner;
mod scaffold;
mod source;
mod steps;
mod verify;

pub use estimate::Estimate;
pub use events::LineageEvents;
pub use memory::{MemoryNeed, MemoryPlan};
pub use narthex_data::{Rows, Tables};
pub use project::{OpenOptions, Project, SourceCode};
pub use pulled_data::pulled_dataset;
pub use quantize::{QuantizeOptions, quantizing};
pub use reproduce::{ReproduceOptions, Reproduced, reproduce};
pub use runner::{Row, RowState, RunOptions, RunReport};
pub use scaffold::scaffold;
pub use verify::{Interval, Verified, verify};
