//! What is known of a model whether it is loaded or not: what lists show of it. Plain data.

use crate::{Ability, AdapterEntry, Adapters, Served, Sizes};
use narthex_openness::Shown;
use std::sync::Arc;

/// What lists show of a model.
pub(crate) struct Described {
    /// The name clients ask for.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its sizes, as far as they are known.
    pub sizes: Sizes,
    /// Where it comes from and under which terms.
    pub provenance: Shown,
    /// A word for what it does.
    pub task: &'static str,
    /// Tokens that a sequence may have.
    pub context: usize,
    /// Whether it takes messages.
    pub chats: bool,
    /// The classes of a classifier.
    pub labels: Option<Vec<String>>,
    adapters: Option<Arc<Adapters>>,
}

impl Described {
    /// What is known of this model.
    pub fn of(model: &Served) -> Self {
        let labels = match &model.ability {
            Ability::Labels(labels) => Some(labels.names.clone()),
            _ => None,
        };
        Self {
            id: model.id.clone(),
            created: model.created,
            sizes: model.sizes.clone(),
            provenance: model.provenance.clone(),
            task: model.ability.task(),
            context: model.ability.context(),
            chats: model.ability.chats(),
            labels,
            adapters: model.ability.adapters().cloned(),
        }
    }

    /// The adapters over it, in the order in which they came.
    pub fn adapters(&self) -> Vec<AdapterEntry> {
        self.adapters.as_ref().map(|adapters| adapters.list()).unwrap_or_default()
    }

    /// How many adapters may be in memory over it at once.
    pub fn adapters_max(&self) -> usize {
        self.adapters.as_ref().map_or(0, |adapters| adapters.loaded_max())
    }

    /// The adapter of this name.
    pub fn adapter(&self, name: &str) -> Option<AdapterEntry> {
        self.adapters.as_ref()?.find(name)
    }

    /// Takes the adapters out of memory, as the model under them goes; they stay known.
    pub fn unload_adapters(&self) {
        if let Some(adapters) = &self.adapters {
            adapters.unload();
        }
    }
}
