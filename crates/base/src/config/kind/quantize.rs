//! `kind = "quantize"`: which integers a model's weights become. How they are found is `model`'s work.

use super::{Accepts, Complaint, Kind, SourceForm, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Precision, Step, Table, Use},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "quantize"`: a model -> the same with the weights of its layers as small integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizeStep {
    /// A train or tune step, a model folder as a source, or `ref:NAME`.
    pub model: String,
    /// What weights become: 8 bits with a scale for each output, or 4 bits with a scale for each group.
    pub to: IntegerKind,
    /// Weights that share a scale, with `int4`.
    #[schemars(extend("enum" = QuantizeStep::GROUPS, "x-hint" = "64 is usual"))]
    #[serde(default = "group")]
    pub group: usize,
    /// Text like that which the model will meet: a tokenize step with the model's tokenizer, a source of plain text, or
    /// `ref:NAME`. It shows where errors count most; its validation part, or the last quarter, what they cost.
    #[serde(default)]
    pub calibrate: Option<String>,
}

impl QuantizeStep {
    /// The sizes that groups can have.
    pub const GROUPS: [usize; 3] = [32, 64, 128];
}

/// The integers that weights become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntegerKind {
    /// 8 bits, with a scale for each output.
    Int8,
    /// 4 bits, with a scale for each group of inputs of an output.
    Int4,
}

fn group() -> usize {
    64
}

impl QuantizeStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "quantize",
        recipe_version: 1,
        uses_seed: false,
        policy_use: Some(Use::Train),
        learning: None,
        verb: Verb::MakesApart,
        figures: &[Figure::NATS_PER_BYTE, Figure::BYTES],
        table: Table::of::<QuantizeStep>,
        read: |value| QuantizeStep::deserialize(value).map(Step::Quantize),
    };
}

impl StepKind for QuantizeStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let model = Accepts {
            words: "a train or tune step, a model folder as a source, or `ref:NAME`",
            refuses_own_kind: true,
            ..Accepts::MODEL
        };
        let text = Accepts {
            source: Some(SourceForm::Data),
            references: true,
            ..Accepts::steps("a tokenize step, a source of plain text, or `ref:NAME`", &[ArtifactKind::Tokens])
        };
        inputs("model", model, [self.model.clone()]).chain(inputs("calibrate", text, self.calibrate.clone())).collect()
    }

    fn check(&self) -> Result<(), Complaint> {
        require(
            self.to == IntegerKind::Int4 || self.group == group(),
            "group",
            "`group` is for 4 bits: with 8, every output has one scale",
            "set `to = \"int4\"`, or leave it out",
        )
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Model
    }

    /// What the layers are given is measured in single precision.
    fn computes_in(&self) -> Option<Precision> {
        self.calibrate.is_some().then_some(Precision::F32)
    }
}
