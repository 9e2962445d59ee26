//! `kind = "tune"`: how a model is tuned on conversations or on pairs of answers, and the adapters that it may get. It
//! knows no tensors.

use super::{Accepts, Complaint, Kind, Learning, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Preference, Schedule, Step, Table, TuneObjective, Use},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "tune"`: a model and conversations, or pairs of answers -> a tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TuneStep {
    /// A train, tune or quantize step, a model folder source, or `ref:NAME`. Over integers, adapters are tuned while
    /// the integers stay as they are (QLoRA: Dettmers et al., 2023).
    pub model: String,
    /// A tokenize step over conversations, or over pairs with `objective = "dpo"`, with the model's tokenizer.
    pub data: String,
    /// What is learnt. `sft`: what the assistant says in conversations. `dpo`: the chosen answers of pairs against the
    /// rejected ones.
    #[serde(default, skip_serializing_if = "TuneObjective::is_sft")]
    #[schemars(extend("default" = "sft"))]
    pub objective: TuneObjective,
    /// How pairs are judged, with `objective = "dpo"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// Low-rank adapters, or all weights.
    #[serde(default)]
    pub method: TuneMethod,
    /// The adapters, with `method = "lora"`.
    #[serde(default)]
    pub lora: Lora,
    /// What the user says in samples during tuning; empty for none.
    #[serde(default)]
    pub sample_prompt: String,
    /// The training loop; its `context` may not exceed the model's.
    #[serde(default)]
    pub schedule: Schedule,
}

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TuneMethod {
    /// Low-rank adapters (Hu et al., 2021).
    #[default]
    Lora,
    /// All weights.
    Full,
}

/// Low-rank adapters. The tuned model has them merged; they also stand beside it in PEFT's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank of the two matrices.
    #[schemars(range(min = 1), extend("x-hint" = "8 is usual"))]
    pub rank: usize,
    /// The update is multiplied by `alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`.
    #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "twice the rank is usual"))]
    pub alpha: f64,
    /// The projections that get an adapter, by the last part of their name.
    #[schemars(
        length(min = 1),
        extend("items" = {"type": "string", "enum": Lora::TARGETS}, "x-hint" = "name at least one projection")
    )]
    pub targets: Vec<String>,
    /// Dropout before the first matrix.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0.05 is usual"))]
    pub dropout: f64,
    /// The update is multiplied by `alpha / sqrt(rank)`: for large ranks (Kalajdzievski, "rsLoRA", 2023).
    #[serde(skip_serializing_if = "is_off")]
    pub use_rslora: bool,
    /// The size of each output's weights is learned beside their direction (Liu et al., "DoRA", 2024).
    #[serde(skip_serializing_if = "is_off")]
    pub use_dora: bool,
}

/// Recipes from before a switch was there stay as they are while it is off.
fn is_off(switch: &bool) -> bool {
    !switch
}

impl Lora {
    /// The projections that can have an adapter.
    pub const TARGETS: [&'static str; 7] =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
}

impl Lora {
    /// That there are adapters to be described.
    pub(super) fn check(&self, method: TuneMethod) -> Result<(), Complaint> {
        require(
            method == TuneMethod::Lora || *self == Self::default(),
            "lora",
            "[lora] is for adapters, but all weights are trained",
            "set `method = \"lora\"`, or leave the table out",
        )
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            targets: Self::TARGETS.map(String::from).to_vec(),
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
        }
    }
}

impl TuneStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "tune",
        recipe_version: 3,
        uses_seed: true,
        policy_use: Some(Use::Train),
        learning: Some(Learning::Supervised),
        verb: Verb::RunsStep,
        figures: &[
            Figure::VALIDATION_NATS_PER_BYTE,
            Figure::VALIDATION_PREFERENCE_LOSS,
            Figure::TRAINING_NATS_PER_TOKEN,
            Figure::TRAINING_PREFERENCE_LOSS,
        ],
        table: Table::of::<TuneStep>,
        read: |value| TuneStep::deserialize(value).map(Step::Tune),
    };
}

impl StepKind for TuneStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let model = inputs("model", Accepts::MODEL, [self.model.clone()]);
        model.chain(inputs("data", Accepts::TOKENS, [self.data.clone()])).collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Model
    }

    fn check(&self) -> Result<(), Complaint> {
        require(
            self.preference.is_none() || self.objective == TuneObjective::Dpo,
            "preference",
            "[preference] is for pairs of answers, but the objective is `sft`",
            "set `objective = \"dpo\"`, or leave the table out",
        )?;
        self.lora.check(self.method)?;
        self.schedule.check()
    }

    fn schedule(&self) -> Option<&Schedule> {
        Some(&self.schedule)
    }
}
