//! Components: the parts of an artifact, each with its own licence and origin, named after the 17
//! components of the Model Openness Framework (White et al., 2024, arXiv:2403.13784).

use crate::{digest::Digest, license::License};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What a component is. The order is the framework's list in its tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentKind {
    /// The model's definition as code.
    ModelArchitecture,
    /// Code that prepares data.
    DataPreprocessingCode,
    /// Code that trains.
    TrainingCode,
    /// Code that generates.
    InferenceCode,
    /// Code that measures.
    EvaluationCode,
    /// Libraries and tools that the rest needs.
    SupportingLibraries,
    /// The trained weights.
    ModelParameters,
    /// Weights and optimizer states on the way there.
    IntermediateParameters,
    /// Data that was trained on.
    Datasets,
    /// Data that was measured on.
    EvaluationData,
    /// Configuration, vocabulary, merges, chat template, recipe.
    ModelMetadata,
    /// What the model wrote.
    SampleOutputs,
    /// The model card.
    ModelCard,
    /// The data card.
    DataCard,
    /// A technical report.
    TechnicalReport,
    /// A research paper.
    ResearchPaper,
    /// Figures.
    EvaluationResults,
}

/// The form of a component's content, which decides the licences that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Programs.
    Code,
    /// Data and weights.
    Data,
    /// Texts for people.
    Document,
}

impl ComponentKind {
    /// All 17.
    pub const ALL: [ComponentKind; 17] = [
        Self::ModelArchitecture,
        Self::DataPreprocessingCode,
        Self::TrainingCode,
        Self::InferenceCode,
        Self::EvaluationCode,
        Self::SupportingLibraries,
        Self::ModelParameters,
        Self::IntermediateParameters,
        Self::Datasets,
        Self::EvaluationData,
        Self::ModelMetadata,
        Self::SampleOutputs,
        Self::ModelCard,
        Self::DataCard,
        Self::TechnicalReport,
        Self::ResearchPaper,
        Self::EvaluationResults,
    ];

    /// The framework's name for it, as the Model Openness Tool writes it.
    pub fn title(self) -> &'static str {
        match self {
            Self::ModelArchitecture => "Model architecture",
            Self::DataPreprocessingCode => "Data preprocessing code",
            Self::TrainingCode => "Training code",
            Self::InferenceCode => "Inference code",
            Self::EvaluationCode => "Evaluation code",
            Self::SupportingLibraries => "Supporting libraries and tools",
            Self::ModelParameters => "Model parameters (Final)",
            Self::IntermediateParameters => "Model parameters (Intermediate)",
            Self::Datasets => "Datasets",
            Self::EvaluationData => "Evaluation data",
            Self::ModelMetadata => "Model metadata",
            Self::SampleOutputs => "Sample model outputs",
            Self::ModelCard => "Model card",
            Self::DataCard => "Data card",
            Self::TechnicalReport => "Technical report",
            Self::ResearchPaper => "Research paper",
            Self::EvaluationResults => "Evaluation results",
        }
    }

    /// The form of its content.
    pub fn content(self) -> Content {
        match self {
            Self::ModelArchitecture
            | Self::DataPreprocessingCode
            | Self::TrainingCode
            | Self::InferenceCode
            | Self::EvaluationCode
            | Self::SupportingLibraries => Content::Code,
            Self::ModelParameters
            | Self::IntermediateParameters
            | Self::Datasets
            | Self::EvaluationData
            | Self::ModelMetadata => Content::Data,
            Self::SampleOutputs
            | Self::ModelCard
            | Self::DataCard
            | Self::TechnicalReport
            | Self::ResearchPaper
            | Self::EvaluationResults => Content::Document,
        }
    }

    /// The name used in configuration and JSON: `model-parameters`.
    pub fn slug(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.and_then(|name| Some(name.as_str()?.to_string())).unwrap_or_default()
    }
}

impl Content {
    /// The name used in configuration, JSON and the Model Openness Tool's files.
    pub fn name(self) -> &'static str {
        match self {
            Content::Code => "code",
            Content::Data => "data",
            Content::Document => "document",
        }
    }
}

/// How a component's licence is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Somebody says so: the project file, or a flag.
    #[default]
    Declared,
    /// A licence text lies beside the material.
    Text,
    /// The project made it and gives it its own licence.
    Made,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Declared => "declared",
            Evidence::Text => "text",
            Evidence::Made => "made",
        })
    }
}

/// The step that made a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The step's name.
    pub step: String,
    /// The name of its project.
    pub project: String,
}

/// As it stands in a manifest: ``step `base` of project `mine` ``.
impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step `{}` of project `{}`", self.step, self.project)
    }
}

impl Maker {
    /// Reads what it is written as. The names of steps hold no backtick, so that there is one way to do so.
    fn read(text: &str) -> Option<Self> {
        let (step, project) = text.strip_prefix("step `")?.strip_suffix('`')?.split_once("` of project `")?;
        Some(Self { step: step.into(), project: project.into() })
    }
}

/// A part with its own licence and origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Component {
    /// Its name (`weights`, or the name of a source).
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// Its licence; absent means undeclared.
    pub license: Option<License>,
    /// The texts of the licences that the expression names: identifier -> BLAKE3 of the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub license_texts: BTreeMap<String, Digest>,
    /// What must be kept when it is passed on: copyright lines, attributions.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub notices: BTreeSet<String>,
    /// Where it comes from (a URL or a sentence).
    pub origin: Option<String>,
    /// How the licence is known.
    #[serde(default)]
    pub evidence: Evidence,
    /// The files it covers inside the artifact, as paths or globs; empty for inherited components.
    pub paths: Vec<String>,
}

impl Component {
    /// A component with the standard texts of its licence.
    pub fn new(name: impl Into<String>, kind: ComponentKind, license: Option<License>, evidence: Evidence) -> Self {
        let texts = license.as_ref().map(License::texts).unwrap_or_default();
        Self {
            name: name.into(),
            kind,
            license_texts: texts.into_iter().map(|(id, text)| (id, Digest::of(text.as_bytes()))).collect(),
            license,
            notices: BTreeSet::new(),
            origin: None,
            evidence,
            paths: vec![],
        }
    }

    /// A component that a step made.
    pub fn made(name: impl Into<String>, kind: ComponentKind, license: Option<License>, maker: &Maker) -> Self {
        Self { origin: Some(maker.to_string()), ..Self::new(name, kind, license, Evidence::Made) }
    }

    /// The step that made it. What an origin says counts only with the evidence that steps alone give: the origin of a source,
    /// of an import or on a card is whatever somebody wrote there. What came in by reference names another way, and no maker.
    pub fn maker(&self) -> Option<Maker> {
        (self.evidence == Evidence::Made).then(|| Maker::read(self.origin.as_deref()?)).flatten()
    }

    /// Whether this is the same part as another, whatever files it covers and notices it has come to carry.
    pub fn is_same(&self, other: &Component) -> bool {
        let identity = |c: &Component| (c.name.clone(), c.kind, c.license.clone(), c.origin.clone(), c.evidence);
        identity(self) == identity(other) && self.license_texts == other.license_texts
    }

    /// Whether it has files in the artifact.
    pub fn is_own(&self) -> bool {
        !self.paths.is_empty()
    }

    /// The licence as people read it.
    pub fn license_name(&self) -> &str {
        self.license.as_ref().map_or("undeclared", License::as_str)
    }

    /// The address in the origin, if there is one.
    pub fn url(&self) -> Option<&str> {
        let origin = self.origin.as_deref()?;
        let start = origin.find("https://").or_else(|| origin.find("http://"))?;
        let rest = &origin[start..];
        let end = rest.find([' ', ',', ';', ')', '>']).unwrap_or(rest.len());
        Some(&rest[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_as_they_are_written() {
        for kind in ComponentKind::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<ComponentKind>(&text).unwrap(), kind);
            assert_eq!(text, format!("\"{}\"", kind.slug()));
        }
        let contents = |content| ComponentKind::ALL.iter().filter(|kind| kind.content() == content).count();
        assert_eq!([Content::Code, Content::Data, Content::Document].map(contents), [6, 5, 6]);
    }

    #[test]
    fn only_a_step_is_a_maker() {
        let maker = |step: &str, project: &str| Some(Maker { step: step.into(), project: project.into() });
        let own = "step `base` of project `mine`";
        for (origin, evidence, expected) in [
            (own, Evidence::Made, maker("base", "mine")),
            ("step `a.b-c` of project `it`s of project `x``", Evidence::Made, maker("a.b-c", "it`s of project `x`")),
            // The words alone are nothing.
            (own, Evidence::Declared, None),
            (own, Evidence::Text, None),
            ("https://example.org/base", Evidence::Declared, None),
            ("`ref`: step `base` of project `mine`", Evidence::Made, None),
            ("step `base`", Evidence::Made, None),
        ] {
            let part = Component::new("weights", ComponentKind::ModelParameters, None, evidence);
            assert_eq!(Component { origin: Some(origin.into()), ..part }.maker(), expected, "{origin} {evidence}");
        }
        let made = Component::made("weights", ComponentKind::ModelParameters, None, &maker("base", "mine").unwrap());
        assert_eq!((made.origin.as_deref(), made.maker()), (Some(own), maker("base", "mine")));
    }

    #[test]
    fn addresses_in_origins() {
        for (origin, expected) in [
            ("https://example.org/a.txt, the plays", Some("https://example.org/a.txt")),
            ("from http://x.org/y; written down", Some("http://x.org/y")),
            ("written for this project", None),
        ] {
            let component = Component {
                origin: Some(origin.into()),
                ..Component::new("a", ComponentKind::Datasets, None, Evidence::Declared)
            };
            assert_eq!(component.url(), expected);
        }
    }
}
