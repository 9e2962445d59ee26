//! `kind = "eval"`: what of a model is measured, and on what. Measuring is not its work.

use super::{Accepts, Complaint, Kind, SourceForm, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{Precision, Step, Table},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "eval"`: a model -> figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalStep {
    /// The model to measure: a train, tune or quantize step, a model folder as a source, or `ref:NAME`.
    pub model: String,
    /// Another model, measured the same way: before and after.
    #[serde(default)]
    pub baseline: Option<String>,
    /// A tokenize step: nats per byte and per token on its validation part.
    #[serde(default)]
    pub data: Option<String>,
    /// A JSONL source. Rows with `prompt` and `answer` are answered greedily and compared; rows with `prompt`,
    /// `choices` and `answer` (an index) are scored by the log-likelihood of each choice: `acc`, `acc_norm` (for each
    /// character) and `acc_bytes`, as lm-evaluation-harness counts.
    #[serde(default)]
    pub task: Option<String>,
    /// Puts the prompts of the task through the chat template.
    #[serde(default)]
    pub chat: bool,
    /// At most this many rows of the task.
    #[serde(default = "max_rows")]
    #[schemars(range(min = 1), extend("x-hint" = "say how many rows to use"))]
    pub max_rows: usize,
    /// New tokens per answer at most.
    #[serde(default = "max_answer_tokens")]
    #[schemars(range(min = 1), extend("x-hint" = "say how long an answer may be"))]
    pub max_answer_tokens: usize,
}

fn max_rows() -> usize {
    200
}

fn max_answer_tokens() -> usize {
    64
}

impl EvalStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "eval",
        recipe_version: 6,
        uses_seed: false,
        policy_use: None,
        learning: None,
        verb: Verb::RunsStep,
        figures: &[Figure::NATS_PER_BYTE, Figure::EXACT_MATCH, Figure::ACC],
        table: Table::of::<EvalStep>,
        read: |value| EvalStep::deserialize(value).map(Step::Eval),
    };
}

impl StepKind for EvalStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let task = Accepts::source("a JSONL source", SourceForm::Data);
        inputs("model", Accepts::MODEL, [self.model.clone()])
            .chain(inputs("baseline", Accepts::MODEL, self.baseline.clone()))
            .chain(inputs("data", Accepts::TOKENS, self.data.clone()))
            .chain(inputs("task", task, self.task.clone()))
            .collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Evaluation
    }

    fn check(&self) -> Result<(), Complaint> {
        require(
            self.data.is_some() || self.task.is_some(),
            "model",
            "nothing to measure",
            "add `data = \"TOKENIZE STEP\"` or `task = \"SOURCE\"`",
        )?;
        let (rows, tokens) = (self.max_rows != max_rows(), self.max_answer_tokens != max_answer_tokens());
        for (key, is_set) in [("chat", self.chat), ("max_rows", rows), ("max_answer_tokens", tokens)] {
            require(
                self.task.is_some() || !is_set,
                key,
                format!("`{key}` is for tasks, and there is none"),
                "add `task = \"SOURCE\"`, or leave it out",
            )?;
        }
        Ok(())
    }

    fn computes_in(&self) -> Option<Precision> {
        Some(Precision::F32)
    }
}
