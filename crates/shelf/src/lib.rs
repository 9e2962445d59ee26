//! Opens what a reference names: looks it up, finds out under which terms it stands, asks the policy, and makes it
//! ready to use. What comes in from elsewhere gets its papers here too. It runs no steps, and knows neither training
//! nor how data is made.
//!
//! ```no_run
//! use narthex_shelf::{PlanOptions, Purpose, Shelf, WeightForm};
//!
//! let shelf = Shelf::new("my-project".as_ref(), PlanOptions::default());
//! let model = shelf.model("talker", Purpose::Own)?.permitted()?.generator(WeightForm::Full)?;
//! println!("{}", model.provenance.license.map_or("undeclared".into(), |license| license.to_string()));
//! # Ok::<(), narthex_base::Error>(())
//! ```

mod adapter;
mod card_of_folder;
mod encoder;
mod follow;
mod foreign;
mod gguf;
mod hub_card;
mod knowledge;
mod known;
mod loaded;
mod model_folder;
mod opened;
mod papers;
mod project;
mod pulled;
mod ready;
mod reference;
mod speculative;
mod terms;

pub use adapter::OpenedAdapter;
pub use encoder::LoadedEncoder;
pub use follow::{Follow, FollowMove};
pub use foreign::{GgufWeights, ImportSource, export_gguf, import_source};
pub use hub_card::{HubCard, link_declared};
pub use knowledge::{KnowledgeEncoder, ReadyKnowledge};
pub use loaded::{LoadedModel, WeightForm, require_model};
pub use model_folder::{import_manifest, is_model_folder, model_files};
pub use narthex_openness::Shown;
pub use opened::{Judged, OpenedModel, Purpose, Shelf};
pub use papers::{check_folder, papers_in, provenance_of, whole_provenance, with_subject};
pub use project::{PlanOptions, has_plan, layers, open_ledger, read_plan, root_of};
pub use pulled::{PulledFrom, already_pulled, check_model_config, check_model_folder, pulled_component, pulled_model};
pub use ready::{KV_CACHE_MEMORY_SHARE, Ready, ReadyEncoder, ReadyOptions, ReadyText, kv_cache_bytes};
pub use reference::{Reference, help_for, no_model};
pub use speculative::SpeculativeConfig;
pub use terms::{Terms, unread_license};
