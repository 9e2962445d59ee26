//! `kind = "bundle"`: what goes along with a model that is passed on. Writing it is not its work.

use super::{Accepts, Kind, SourceForm, StepInput, StepKind, Verb, inputs};
use crate::{
    artifact::ArtifactKind,
    component::ComponentKind,
    config::{Step, Table, Use},
    figure::Figure,
    license::License,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "bundle"`: a model -> a folder anyone can use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleStep {
    /// A train, tune, fit or quantize step, a model folder as a source, or `ref:NAME`.
    pub model: String,
    /// Eval steps whose figures go into the model card.
    #[serde(default)]
    pub evaluations: Vec<String>,
    /// The licence of what this project made; the project's by default. Others' material keeps its own, and asking for
    /// another is an error.
    #[serde(default)]
    pub license: Option<License>,
    /// A paragraph for the model card.
    #[serde(default)]
    pub description: String,
    /// Takes the source code of Narthex along, in `code/`: what defined, trained, ran and measured the model.
    #[serde(default)]
    pub code: bool,
    /// Takes the raw files along that the model was made from and measured on, in `data/`.
    #[serde(default)]
    pub data: bool,
    /// Takes the kept checkpoints along, in `checkpoints/`; an error if there are none.
    #[serde(default)]
    pub checkpoints: bool,
    /// A source with a data card, in place of the one written from the ledger.
    #[serde(default)]
    pub data_card: Option<String>,
    /// A source with a technical report, in place of the one written from the ledger.
    #[serde(default)]
    pub technical_report: Option<String>,
    /// A source with a research paper.
    #[serde(default)]
    pub research_paper: Option<String>,
    /// A source with outputs of the model.
    #[serde(default)]
    pub sample_outputs: Option<String>,
}

impl BundleStep {
    /// The documents that come from sources: (key, what they are, source).
    pub fn documents(&self) -> Vec<(&'static str, ComponentKind, String)> {
        [
            ("data_card", ComponentKind::DataCard, &self.data_card),
            ("technical_report", ComponentKind::TechnicalReport, &self.technical_report),
            ("research_paper", ComponentKind::ResearchPaper, &self.research_paper),
            ("sample_outputs", ComponentKind::SampleOutputs, &self.sample_outputs),
        ]
        .into_iter()
        .filter_map(|(role, kind, source)| Some((role, kind, source.clone()?)))
        .collect()
    }
}

impl BundleStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "bundle",
        recipe_version: 2,
        uses_seed: false,
        policy_use: Some(Use::Redistribute),
        learning: None,
        verb: Verb::RunsStep,
        figures: &[Figure::BYTES],
        table: Table::of::<BundleStep>,
        read: |value| BundleStep::deserialize(value).map(Step::Bundle),
    };
}

impl StepKind for BundleStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let evaluation = Accepts::steps("an eval step", &[ArtifactKind::Evaluation]);
        let document = |kind| Accepts::source("a source with the document", SourceForm::Document(kind));
        let documents = self.documents().into_iter();
        let model = Accepts {
            words: "a train, tune, fit or quantize step, a model folder as a source, or `ref:NAME`",
            steps: &[ArtifactKind::Model, ArtifactKind::Predictor],
            ..Accepts::MODEL
        };
        inputs("model", model, [self.model.clone()])
            .chain(inputs("evaluations", evaluation, self.evaluations.clone()))
            .chain(documents.map(|(role, kind, name)| StepInput { role, name, accepts: document(kind) }))
            .collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Bundle
    }

    fn takes_code(&self) -> bool {
        self.code
    }
}
