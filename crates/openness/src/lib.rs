//! Openness that can be checked: what a policy says of an artifact's licences, which class of the Model Openness
//! Framework it qualifies for, the same facts in the formats that others read, and signatures over all of it.
//!
//! Everything here is computed from manifests and lineage; only `sign` reads files.

mod advice;
mod attestation;
mod card;
mod croissant;
mod cyclonedx;
mod graph;
mod mof;
mod openlineage;
mod policy;
mod shown;
mod sign;
mod spdx;
mod subject;

pub use advice::advice;
pub use attestation::{OPENNESS_PREDICATE, openness_predicate};
pub use card::{dataset_card_metadata, model_card_metadata};
pub use croissant::croissant;
pub use cyclonedx::cyclonedx;
pub use graph::lineage_html;
pub use mof::*;
pub use openlineage::{Dataset, RunOf, RunState, openlineage_event, run_id};
pub use policy::*;
pub use shown::Shown;
pub use sign::*;
pub use spdx::spdx;
pub use subject::Subject;
