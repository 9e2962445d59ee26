//! What is served: what answers now, what it can do, and the adapters over it. Knows no wire format.

mod adapters;
mod current;
mod described;
mod models;
mod rollout;
mod served;
mod served_adapter;

pub use adapters::{AdapterEntry, Adapters};
pub use current::Serving;
pub(crate) use described::Described;
pub use models::Models;
pub(crate) use models::NotReady;
pub(crate) use rollout::TrialLimits;
pub use served::{Ability, LabelAbility, Served, Sizes, TextAbility};
pub use served_adapter::{AdapterSources, NotServed, ServedAdapter};
