//! What a model's or data set's card says that it was made from, and that nobody here has checked: kept in the recipe of
//! what came in from elsewhere. Where the ledger holds what is named, it becomes a parent instead.

use crate::artifact::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// The key in a recipe's configuration.
pub const DECLARED_KEY: &str = "declared";

/// The most that is taken from one card.
pub const DECLARED_MAX: usize = 100;

/// An ancestor that a card names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredOrigin {
    /// What it is to the artifact: `base model` or `data`.
    pub role: String,
    /// `hf:org/name` or `hf:datasets/org/name`.
    pub origin: String,
    /// How the artifact came of it, as the card says: `finetune`, `adapter`, `merge`, `quantized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
}

impl Manifest {
    /// What the card names as ancestors and the ledger did not hold when this came in.
    pub fn declared(&self) -> Vec<DeclaredOrigin> {
        let listed = self.recipe.config.get(DECLARED_KEY).and_then(Value::as_array);
        let read = |value: &Value| serde_json::from_value(value.clone()).ok();
        listed.into_iter().flatten().take(DECLARED_MAX).filter_map(read).collect()
    }
}

/// `base model hf:org/name (finetune), declared by its card and not verified`
impl fmt::Display for DeclaredOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = self.relation.as_ref().map(|relation| format!(" ({relation})")).unwrap_or_default();
        write!(f, "{} {}{relation}, declared by its card and not verified", self.role, self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArtifactKind, Recipe};
    use serde_json::json;

    #[test]
    fn only_what_is_well_formed() {
        for (config, expected) in [
            (json!({}), &[][..]),
            (json!({"declared": "x"}), &[]),
            (
                json!({"declared": [{"role": "base model", "origin": "hf:a/b", "relation": "finetune"}, {"role": 1}]}),
                &["base model hf:a/b (finetune), declared by its card and not verified"],
            ),
            (
                json!({"declared": [{"role": "data", "origin": "hf:datasets/a/b"}]}),
                &["data hf:datasets/a/b, declared by its card and not verified"],
            ),
        ] {
            let manifest = Manifest::new(ArtifactKind::Model, Recipe { config, ..Recipe::new("a", "import") });
            let found: Vec<String> = manifest.declared().iter().map(DeclaredOrigin::to_string).collect();
            assert_eq!(found, expected);
        }
    }
}
