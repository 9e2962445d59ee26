//! From a plan to artifacts: opens a project, decides which steps must run and why, runs them, and
//! records what they made. Front ends render its events and reports.

mod adapter_source;
mod card;
mod card_of_folder;
mod encoder;
mod events;
mod foreign;
mod hub_card;
mod loaded;
mod material;
mod opened;
mod papers;
mod policy;
mod project;
mod pulled;
mod quantize;
mod recipe;
mod reference;
mod reproduce;
mod runner;
mod scaffold;
mod source;
mod steps;
mod verify;

pub use adapter_source::AdapterSource;
pub use encoder::LoadedEncoder;
pub use events::LineageEvents;
pub use foreign::{GgufWeights, ImportSource, export_gguf, import_source};
pub use hub_card::link_declared;
pub use loaded::{LoadedModel, Provenance, WeightForm};
pub use opened::{Judged, OpenedModel, Purpose, Shelf};
pub use papers::{papers_in, provenance_of, with_subject};
pub use project::{OpenOptions, Project, SourceCode};
pub use pulled::{
    PulledFrom, already_pulled, check_model_config, check_model_folder, has_safetensors, pulled_dataset, pulled_model,
};
pub use quantize::{QuantizeOptions, quantizing};
pub use reference::Reference;
pub use reproduce::{ReproduceOptions, Reproduced, reproduce};
pub use runner::{Row, RowState, RunOptions, RunReport};
pub use scaffold::scaffold;
pub use source::import_manifest;
pub use verify::{Interval, Verified, verify};
