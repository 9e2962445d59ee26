//! `kind = "train"`: a model's shape and how it is trained from nothing. It knows no tensors.

use super::{Accepts, Complaint, Kind, Learning, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Schedule, Step, Table, Use},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "train"`: token shards -> a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainStep {
    /// A tokenize step over documents.
    pub data: String,
    /// The shape of the model.
    #[serde(default)]
    pub model: ModelShape,
    /// Attention stops at document borders.
    #[serde(default)]
    pub document_mask: bool,
    /// The prompt for samples during training; empty for none.
    #[serde(default)]
    pub sample_prompt: String,
    /// The training loop.
    #[serde(default)]
    pub schedule: Schedule,
}

/// A Llama-style decoder's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelShape {
    /// Width of the residual stream.
    #[schemars(range(min = 1), extend("x-hint" = "256 is a start"))]
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    #[schemars(range(min = 1), extend("x-hint" = "2.75 times `hidden_size` is usual"))]
    pub intermediate_size: usize,
    /// Blocks of attention and feed-forward.
    #[schemars(range(min = 1), extend("x-hint" = "4 is a start"))]
    pub layers: usize,
    /// Query heads; a divisor of `hidden_size` that leaves an even width.
    #[schemars(range(min = 1), extend("x-hint" = "choose a divisor of `hidden_size`"))]
    pub heads: usize,
    /// Key/value heads; a divisor of `heads`.
    #[schemars(range(min = 1), extend("x-hint" = "choose a divisor of `heads`"))]
    pub kv_heads: usize,
    /// One matrix for the embedding and the output projection.
    pub tied_embeddings: bool,
    /// Base of the rotary embedding.
    #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "10000 is usual"))]
    pub rope_theta: f64,
}

impl Default for ModelShape {
    fn default() -> Self {
        Self {
            hidden_size: 256,
            intermediate_size: 704,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            tied_embeddings: true,
            rope_theta: 10_000.0,
        }
    }
}

impl TrainStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "train",
        recipe_version: 2,
        uses_seed: true,
        policy_use: Some(Use::Train),
        learning: Some(Learning::SelfSupervised),
        verb: Verb::RunsStep,
        figures: &[Figure::VALIDATION_NATS_PER_BYTE, Figure::TRAINING_NATS_PER_TOKEN],
        table: Table::of::<TrainStep>,
        read: |value| TrainStep::deserialize(value).map(Step::Train),
    };
}

impl StepKind for TrainStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        inputs("data", Accepts::TOKENS, [self.data.clone()]).collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Model
    }

    fn check(&self) -> Result<(), Complaint> {
        self.model.check()?;
        self.schedule.check()
    }

    fn schedule(&self) -> Option<&Schedule> {
        Some(&self.schedule)
    }
}

impl ModelShape {
    fn check(&self) -> Result<(), Complaint> {
        let ModelShape { hidden_size, heads, kv_heads, .. } = *self;
        require(
            hidden_size.is_multiple_of(heads),
            "model.heads",
            format!("`heads` = {heads} does not divide `hidden_size` = {hidden_size}"),
            "choose a divisor",
        )?;
        require(
            (hidden_size / heads).is_multiple_of(2),
            "model.heads",
            format!("the head width {} is odd", hidden_size / heads),
            "rotary embeddings rotate pairs: choose an even head width",
        )?;
        require(
            heads.is_multiple_of(kv_heads),
            "model.kv_heads",
            format!("`kv_heads` = {kv_heads} does not divide `heads` = {heads}"),
            "choose a divisor",
        )
    }
}
