//! What tuning learns, and the table of preferences. Knows neither models nor data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a model is tuned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TuneObjective {
    /// Conversations: what the assistant says in them.
    #[default]
    Sft,
    /// Pairs of answers: the chosen one against the rejected one (Rafailov et al., "DPO", 2023).
    Dpo,
}

impl TuneObjective {
    /// Recipes from before there was another objective stay as they are.
    pub(crate) fn is_sft(&self) -> bool {
        *self == Self::Sft
    }
}

/// How much the chosen answer of a pair is preferred. The reference is the model before tuning, without its adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preference {
    /// What a pair costs.
    pub loss: PreferenceLoss,
    /// How strongly the tuned model is held to the reference: the lower, the further it may go.
    #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "0.1 is usual"))]
    pub beta: f64,
}

impl Default for Preference {
    fn default() -> Self {
        Self { loss: PreferenceLoss::Sigmoid, beta: 0.1 }
    }
}

/// What a pair costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// Minus the logarithm of the probability that the chosen answer wins.
    #[default]
    Sigmoid,
}
