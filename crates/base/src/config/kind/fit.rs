//! `kind = "fit"`: what a model learns to tell from rows. Which texts are tokens, and how it learns, is not its work.

use super::{Accepts, Complaint, Kind, Learning, Lora, StepInput, StepKind, TuneMethod, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Schedule, Step, Table, Use},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "fit"`: rows and a model -> a classifier of texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FitStep {
    /// A data step with `output = "rows"`.
    pub data: String,
    /// What is fine-tuned: a model folder as a source (an encoder or a decoder), a train or tune step, or `ref:NAME`.
    pub model: String,
    /// The column that is told; its values are the labels.
    pub target: String,
    /// The column with the text.
    #[serde(default = "text")]
    pub text: String,
    /// The label whose F1 and precision over recall are figures; the rarest of the training part by default.
    #[serde(default)]
    pub positive: Option<String>,
    /// What a text weighs: all the same, or `balanced`, so that every label weighs the same in all.
    #[serde(default)]
    pub weights: TextWeights,
    /// All weights, or low-rank adapters and the head.
    #[serde(default = "full")]
    pub method: TuneMethod,
    /// The adapters, with `method = "lora"`.
    #[serde(default)]
    pub lora: Lora,
    /// The training loop; texts are cut to its `context`. Its `lr` is for fresh models: 5e-5 is usual for fine-tuning in
    /// full, 1e-3 for adapters.
    #[serde(default)]
    pub schedule: Schedule,
}

/// What a text weighs in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextWeights {
    /// All texts weigh the same.
    #[default]
    Equal,
    /// A text weighs `texts / (labels * texts of its label)`.
    Balanced,
}

fn text() -> String {
    "text".into()
}

fn full() -> TuneMethod {
    TuneMethod::Full
}

impl FitStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "fit",
        recipe_version: 1,
        uses_seed: true,
        policy_use: Some(Use::Train),
        learning: Some(Learning::Supervised),
        verb: Verb::RunsStep,
        figures: &[Figure::VALIDATION_F1, Figure::VALIDATION_ACCURACY, Figure::TRAINING_NATS_PER_TEXT],
        table: Table::of::<FitStep>,
        read: |value| FitStep::deserialize(value).map(Step::Fit),
    };
}

impl StepKind for FitStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let rows = Accepts::steps("a data step with `output = \"rows\"`", &[ArtifactKind::Rows]);
        let model = inputs("model", Accepts::MODEL, [self.model.clone()]);
        model.chain(inputs("data", rows, [self.data.clone()])).collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Predictor
    }

    fn check(&self) -> Result<(), Complaint> {
        require(
            self.text != self.target,
            "target",
            "`target` and `text` are the same column",
            "what is told cannot be what it is told from",
        )?;
        require(
            !self.schedule.machine.activation_checkpointing,
            "schedule.activation_checkpointing",
            "`activation_checkpointing` is for language models",
            "leave it out: texts to be classified are short",
        )?;
        self.lora.check(self.method)?;
        self.schedule.check()
    }

    fn schedule(&self) -> Option<&Schedule> {
        Some(&self.schedule)
    }
}
