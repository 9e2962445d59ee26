//! `kind = "tokenize"`: what is asked of a tokenizer and of the token shards that it writes. It knows no tokenizer.

use super::{Accepts, Complaint, Kind, SourceForm, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Step, Table},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "tokenize"`: documents, conversations or pairs of answers -> a tokenizer and token shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeStep {
    /// A data step.
    pub from: String,
    /// Trains a byte-level BPE of this many tokens on the training part. It becomes smaller if the text has too few
    /// repeated pairs.
    #[serde(default)]
    #[schemars(range(min = 260, max = 1_000_000), extend("x-hint" = "256 bytes and the special tokens come first"))]
    pub vocab_size: Option<u32>,
    /// Takes the tokenizer of a tokenize, train, tune or quantize step, of a model folder, or of `ref:NAME` instead.
    #[serde(default)]
    pub tokenizer: Option<String>,
}

impl TokenizeStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "tokenize",
        recipe_version: 2,
        uses_seed: false,
        policy_use: None,
        learning: None,
        verb: Verb::RunsStep,
        figures: &[Figure::TRAIN_TOKENS],
        table: Table::of::<TokenizeStep>,
        read: |value| TokenizeStep::deserialize(value).map(Step::Tokenize),
    };
}

impl StepKind for TokenizeStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let data = Accepts::steps("a data step", &[ArtifactKind::Documents, ArtifactKind::Chat, ArtifactKind::Pairs]);
        let tokenizer = Accepts {
            source: Some(SourceForm::Model),
            references: true,
            ..Accepts::steps("a step or source with a tokenizer", &[ArtifactKind::Tokens, ArtifactKind::Model])
        };
        inputs("from", data, [self.from.clone()])
            .chain(inputs("tokenizer", tokenizer, self.tokenizer.clone()))
            .collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Tokens
    }

    fn check(&self) -> Result<(), Complaint> {
        require(
            self.vocab_size.is_some() != self.tokenizer.is_some(),
            "vocab_size",
            "give either `vocab_size` or `tokenizer`",
            "`vocab_size = 1024` trains a tokenizer; `tokenizer = \"STEP\"` takes one",
        )
    }
}
