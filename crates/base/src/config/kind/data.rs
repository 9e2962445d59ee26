//! `kind = "data"`: what is asked of rows on their way to documents, conversations or pairs of answers. Reading them is
//! `data`'s work.

use super::{Accepts, Complaint, Kind, SourceForm, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{FilterName, FilterSettings, NearDuplicates, OneOrMany, Step, Table},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "data"`: rows -> documents, conversations or pairs of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataStep {
    /// Sources with the same columns, or data steps.
    pub from: OneOrMany,
    /// What the rows become: `documents` needs the column `text`; `chat` needs `messages`, or `user` and `assistant`
    /// (and perhaps `system`); `pairs` needs `chosen` and `rejected` (and perhaps `prompt`); `rows`
    /// keeps all columns.
    #[serde(default)]
    pub output: DataOutput,
    /// One SQL query over the table `source`, or over the sources by their names. The column `row` numbers the rows
    /// from 0.
    #[serde(default)]
    pub transform: Option<String>,
    /// Unicode normalisation; line ends become `\n` in any case.
    #[serde(default)]
    pub normalize: Normalize,
    /// Rules that keep, change or drop documents, in this order; only for `documents`. What they drop stands with its
    /// reason in the artifact's `dropped.parquet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterName>,
    /// What the rules are measured by, where it is not what was published.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: FilterSettings,
    /// Removes documents whose text was seen before.
    #[serde(default = "yes")]
    pub deduplicate: bool,
    /// Removes documents that are nearly the same as one before, if this table is there, even empty; only for
    /// `documents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_duplicates: Option<NearDuplicates>,
    /// How the validation part is chosen. `hash`: the content decides, so the split is stable when other documents come
    /// or go. `position`: the last part of the input.
    #[serde(default)]
    pub split: SplitBy,
    /// The part held back for validation: of the bytes (`position`) or of the documents (`hash`).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.5), extend("x-hint" = "0.1 keeps a tenth for validation"))]
    pub validation: f64,
    /// More broken rows than this fail the step.
    #[serde(default)]
    pub max_bad_rows: u64,
}

/// What the rows of a data step become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataOutput {
    /// Texts: the column `text`.
    #[default]
    Documents,
    /// Conversations: the column `messages` (JSON, or a list of role and content), or the columns `user` and
    /// `assistant`, and `system` if there is one.
    Chat,
    /// Two answers to one prompt: the columns `chosen` and `rejected`, and `prompt` if there is one; otherwise the
    /// prompt is what both begin with. All are text, or all are messages (JSON, or a list of role and content).
    Pairs,
    /// Rows of named columns, which hold text, numbers or booleans: all columns of the source or of the transform but
    /// `row`.
    Rows,
}

/// Unicode normalisation forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// As it is.
    None,
    /// Canonical composition.
    #[default]
    Nfc,
    /// Compatibility composition.
    Nfkc,
}

/// How documents are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// By the hash of the content: stable when other documents come or go.
    #[default]
    Hash,
    /// The last part of the bytes. A text file that lies across the border is cut at the nearest line end; other
    /// documents stay whole.
    Position,
}

impl DataStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "data",
        recipe_version: 2,
        uses_seed: true,
        policy_use: None,
        learning: None,
        verb: Verb::RunsStep,
        figures: &[Figure::DOCUMENTS],
        table: Table::of::<DataStep>,
        read: |value| DataStep::deserialize(value).map(Step::Data),
    };
}

impl StepKind for DataStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let accepts = Accepts {
            source: Some(SourceForm::Data),
            ..Accepts::steps(
                "a source or a data step",
                &[ArtifactKind::Documents, ArtifactKind::Chat, ArtifactKind::Pairs],
            )
        };
        inputs("from", accepts, self.from.to_vec()).collect()
    }

    fn yields(&self) -> ArtifactKind {
        match self.output {
            DataOutput::Documents => ArtifactKind::Documents,
            DataOutput::Chat => ArtifactKind::Chat,
            DataOutput::Pairs => ArtifactKind::Pairs,
            DataOutput::Rows => ArtifactKind::Rows,
        }
    }

    fn check(&self) -> Result<(), Complaint> {
        require(!self.from.to_vec().is_empty(), "from", "`from` is empty", "name a source")?;
        let documents = self.output == DataOutput::Documents;
        require(
            documents || self.filters.is_empty(),
            "filters",
            "filters judge documents, and this step yields none",
            "filter the documents in a step of their own, or leave `filters` out",
        )?;
        require(
            documents || self.near_duplicates.is_none(),
            "near_duplicates",
            "near copies are looked for among documents, and this step yields none",
            "leave `near_duplicates` out",
        )?;
        let twice = (1..self.filters.len()).find(|at| self.filters[..*at].contains(&self.filters[*at]));
        require(twice.is_none(), "filters", "a filter is named twice", "name each filter once")?;
        // Settings of a rule that is not applied would change nothing, which nobody means.
        let unused = FilterName::ALL.into_iter().filter(|name| !self.filters.contains(name));
        let unused = unused.into_iter().find(|name| self.filter.of(*name) != FilterSettings::default().of(*name));
        require(
            unused.is_none(),
            "filter",
            "a rule has settings that is not in `filters`",
            "name it in `filters`, or take its settings away",
        )
    }
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
