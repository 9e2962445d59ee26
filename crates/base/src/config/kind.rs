//! What the rest of Narthex asks of a kind of step: what it takes and yields, and what decides its bytes. Each kind answers
//! in a file of its own here; this file does not know what they answer, and how a step is made is `run`'s business.

mod bundle;
mod data;
mod eval;
mod fit;
mod knowledge;
mod quantize;
mod tokenize;
mod train;
mod tune;

pub use bundle::BundleStep;
pub use data::{DataOutput, DataStep, Normalize, SplitBy};
pub use eval::EvalStep;
pub use fit::{FitStep, TextWeights};
pub use knowledge::{KnowledgeStep, LoadLimits, SearchMode, SearchSettings, SplitSettings, SplitUnit, Stemming};
pub use quantize::{IntegerKind, QuantizeStep};
pub use tokenize::TokenizeStep;
pub use train::{ModelShape, TrainStep};
pub use tune::{Lora, TuneMethod, TuneStep};

use super::{Precision, Schedule, Step, Table, Use};
use crate::{artifact::ArtifactKind, component::ComponentKind, figure::Figure};
use std::collections::BTreeMap;
use toml::de::{Error, ValueDeserializer};

/// What is known of a kind of step before there is a step of it.
#[derive(Debug)]
pub struct Kind {
    /// The name in the file, and the verb that runs a step of this kind.
    pub name: &'static str,
    /// Rises when the same configuration and inputs give other bytes: otherwise old artifacts would pass for new ones.
    pub recipe_version: u32,
    /// Whether the project's seed decides its bytes.
    pub uses_seed: bool,
    /// What it does with its inputs in the eyes of the policy; none where the policy has no say.
    pub policy_use: Option<Use>,
    /// How a model learns by it.
    pub learning: Option<Learning>,
    /// What the verb of its name does.
    pub verb: Verb,
    /// The figures that tell how it went, the one that matters most first.
    pub figures: &'static [Figure],
    /// What may be written in its table.
    pub table: fn() -> Table,
    /// Reads its table, without the key `kind`.
    pub(crate) read: fn(ValueDeserializer<'_>) -> Result<Step, Error>,
}

impl Kind {
    /// The figure that matters most among those that a step of this kind gave.
    pub fn figure(&self, figures: &BTreeMap<String, f64>) -> Option<(Figure, f64)> {
        self.figures.iter().find_map(|figure| Some((*figure, *figures.get(figure.name)?)))
    }
}

/// How a model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// From texts: every token is predicted from those before it.
    SelfSupervised,
    /// From examples of what is asked and what is answered.
    Supervised,
}

impl Learning {
    /// The word for it in papers.
    pub fn name(self) -> &'static str {
        match self {
            Learning::SelfSupervised => "self-supervised",
            Learning::Supervised => "supervised",
        }
    }
}

/// What the verb of a kind's name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Runs a step of the project file, and what it needs.
    RunsStep,
    /// Makes an artifact of what it is given; no project file needs to hold the step.
    MakesApart,
}

/// An input as a step names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The key in the step's table.
    pub role: &'static str,
    /// The name of a step or a source, or `ref:NAME` in the ledger.
    pub name: String,
    /// What it may be.
    pub accepts: Accepts,
}

/// What may stand behind an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// All of it in words, for messages.
    pub words: &'static str,
    /// Steps that yield one of these.
    pub steps: &'static [ArtifactKind],
    /// Steps of the same kind are refused all the same: what they would yield is what they were given.
    pub refuses_own_kind: bool,
    /// A source of this form.
    pub source: Option<SourceForm>,
    /// Whether it may be a reference into the ledger.
    pub references: bool,
}

/// What a source is to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceForm {
    /// Files of data.
    Data,
    /// Files to be read and cited: text, Markdown, HTML, PDF, DOCX.
    Files,
    /// A model folder in Hugging Face layout.
    Model,
    /// A document that goes along with a bundle, and what it is there.
    Document(ComponentKind),
}

impl Accepts {
    /// A model to work on or to measure.
    pub const MODEL: Accepts = Accepts {
        words: "a train, tune or quantize step, a model folder as a source, or `ref:NAME`",
        steps: &[ArtifactKind::Model],
        refuses_own_kind: false,
        source: Some(SourceForm::Model),
        references: true,
    };
    /// Token shards of this project.
    pub const TOKENS: Accepts = Accepts::steps("a tokenize step", &[ArtifactKind::Tokens]);

    /// Steps alone.
    pub const fn steps(words: &'static str, steps: &'static [ArtifactKind]) -> Self {
        Accepts { words, steps, refuses_own_kind: false, source: None, references: false }
    }

    /// Sources alone.
    pub const fn source(words: &'static str, form: SourceForm) -> Self {
        Accepts { words, steps: &[], refuses_own_kind: false, source: Some(form), references: false }
    }

    /// Whether what comes in is used as a model.
    pub fn is_model(&self) -> bool {
        !self.steps.is_empty()
            && self.steps.iter().all(|kind| matches!(kind, ArtifactKind::Model | ArtifactKind::Predictor))
    }
}

/// What a step of a kind says of itself.
pub trait StepKind {
    /// What is known of its kind.
    fn kind(&self) -> &'static Kind;

    /// The inputs in the order of the key's digest.
    fn inputs(&self) -> Vec<StepInput>;

    /// What it yields.
    fn yields(&self) -> ArtifactKind;

    /// What must hold between several values; each by itself is checked by its range.
    ///
    /// # Errors
    /// The first value that does not fit, and what to do.
    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }

    /// How it trains, if it does.
    fn schedule(&self) -> Option<&Schedule> {
        None
    }

    /// The numbers that it computes with a model in where the CPU's instruction set decides its bytes.
    fn computes_in(&self) -> Option<Precision> {
        self.schedule()
            .map(|schedule| &schedule.machine)
            .filter(|machine| machine.device == "cpu")
            .map(|machine| machine.precision)
    }

    /// Whether it takes the source code of Narthex along.
    fn takes_code(&self) -> bool {
        false
    }
}

/// A value that does not fit to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The key, dotted from the step's table on.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: &'static str,
}

/// A complaint unless it is good.
fn require(good: bool, key: &'static str, what: impl Into<String>, help: &'static str) -> Result<(), Complaint> {
    if good { Ok(()) } else { Err(Complaint { key, what: what.into(), help }) }
}

/// The inputs of one role.
fn inputs(
    role: &'static str,
    accepts: Accepts,
    names: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = StepInput> {
    names.into_iter().map(move |name| StepInput { role, name, accepts })
}
