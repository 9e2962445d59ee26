//! From a plan to artifacts: opens a project, decides which steps must run and why, runs them, and
//! records what they made. Front ends render its events and reports.

mod card;
mod loaded;
mod material;
mod project;
mod runner;
mod scaffold;
mod source;
mod steps;

pub use loaded::{LoadedModel, Provenance, WeightForm};
pub use project::{OpenOptions, Project};
pub use runner::{Row, RowState, RunOptions, RunReport};
pub use scaffold::scaffold;
pub use source::import_manifest;
