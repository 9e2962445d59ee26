//! Artifacts: what every stage consumes and yields. A manifest says what an artifact is, what it
//! was made from, under which licences, and how to make it again. Its digest is its identity.

use crate::{Digest, License};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactKind {
    /// Raw files, kept where they are and known by digest.
    Source,
    /// Cleaned documents, in splits.
    Documents,
    /// Conversations, in splits.
    Chat,
    /// A tokenizer and token shards.
    Tokens,
    /// A model in Hugging Face layout.
    Model,
    /// Figures of an evaluation.
    Evaluation,
    /// A model with everything needed to pass it on.
    Bundle,
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ArtifactKind::Source => "source",
            ArtifactKind::Documents => "documents",
            ArtifactKind::Chat => "chat",
            ArtifactKind::Tokens => "tokens",
            ArtifactKind::Model => "model",
            ArtifactKind::Evaluation => "evaluation",
            ArtifactKind::Bundle => "bundle",
        })
    }
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path inside the artifact, with `/`.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
}

/// An artifact that this one was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// What it was used as (`from`, `model`, `data`, `tokenizer`, …).
    pub role: String,
    /// Its name at the time.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its digest.
    pub digest: Digest,
}

/// What a component is, in the terms of the Model Openness Framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// Data that was trained or evaluated on.
    Dataset,
    /// Weights.
    ModelParameters,
    /// `config.json` and its like.
    ModelMetadata,
    /// Vocabulary, merges, chat template.
    Tokenizer,
    /// Figures.
    EvaluationResults,
    /// A model or data card.
    Document,
}

/// A part with its own licence and origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name (`weights`, or the name of a source).
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// Its licence; absent means undeclared.
    pub license: Option<License>,
    /// Where it comes from (a URL or a sentence).
    pub origin: Option<String>,
    /// The files it covers inside the artifact; empty for inherited components.
    pub paths: Vec<String>,
}

/// How to make the artifact again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The step's name.
    pub step: String,
    /// The step's kind.
    pub kind: String,
    /// The resolved configuration of the step.
    pub config: serde_json::Value,
    /// The seed.
    pub seed: u64,
    /// The version of Narthex.
    pub narthex: String,
    /// The version of the recipe for this kind of step: it rises when the same config makes other bytes.
    pub version: u32,
}

/// Everything that identifies an artifact. Times and speeds are not part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub schema: u32,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
    /// What it was made from.
    pub parents: Vec<Parent>,
    /// Its own components first, then those inherited along the lineage.
    pub components: Vec<Component>,
    /// How to make it again.
    pub recipe: Recipe,
    /// Numbers that the same recipe always gives (losses, counts).
    pub figures: BTreeMap<String, f64>,
}

/// The manifest format written by this version.
pub const MANIFEST_SCHEMA: u32 = 1;

impl Manifest {
    /// The artifact's identity.
    pub fn digest(&self) -> Digest {
        Digest::of_json(self)
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The licence of the artifact's own components; absent if any of them has none declared.
    pub fn license(&self) -> Option<License> {
        let own: Vec<_> = self.components.iter().filter(|component| !component.paths.is_empty()).collect();
        let first = own.first()?.license.clone()?;
        let mut all = vec![first];
        for component in &own[1..] {
            let license = component.license.clone()?;
            if !all.contains(&license) {
                all.push(license);
            }
        }
        match all.as_slice() {
            [one] => Some(one.clone()),
            many => {
                let joined: Vec<String> = many.iter().map(|license| format!("({license})")).collect();
                License::parse(&joined.join(" AND ")).ok()
            }
        }
    }

    /// Adds the components of a parent that are not there yet: licences travel along the lineage.
    pub fn inherit(&mut self, parent: &Manifest) {
        for component in &parent.components {
            let inherited = Component { paths: vec![], ..component.clone() };
            let known = self.components.iter().any(|c| {
                c.name == inherited.name
                    && c.kind == inherited.kind
                    && c.license == inherited.license
                    && c.origin == inherited.origin
            });
            if !known {
                self.components.push(inherited);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, license: Option<&str>, path: &str) -> Component {
        Component {
            name: name.into(),
            kind: ComponentKind::Dataset,
            license: license.map(|l| License::parse(l).unwrap()),
            origin: None,
            paths: if path.is_empty() { vec![] } else { vec![path.into()] },
        }
    }

    fn manifest(components: Vec<Component>) -> Manifest {
        Manifest {
            schema: MANIFEST_SCHEMA,
            kind: ArtifactKind::Documents,
            files: vec![],
            parents: vec![],
            components,
            recipe: Recipe {
                step: "s".into(),
                kind: "data".into(),
                config: serde_json::json!({}),
                seed: 0,
                narthex: "0".into(),
                version: 1,
            },
            figures: BTreeMap::new(),
        }
    }

    #[test]
    fn licence_of_own_components() {
        let cases = [
            (vec![component("a", Some("MIT"), "x")], Some("MIT")),
            (
                vec![component("a", Some("MIT"), "x"), component("b", Some("CC-BY-4.0"), "y")],
                Some("(MIT) AND (CC-BY-4.0)"),
            ),
            (vec![component("a", Some("MIT"), "x"), component("b", None, "y")], None),
            (vec![component("a", Some("MIT"), "x"), component("inherited", None, "")], Some("MIT")),
        ];
        for (components, expected) in cases {
            assert_eq!(manifest(components).license().as_ref().map(License::as_str), expected);
        }
    }

    #[test]
    fn inheriting_loses_and_doubles_nothing() {
        let parent = manifest(vec![component("a", Some("MIT"), "x"), component("b", None, "y")]);
        let mut child = manifest(vec![component("own", Some("MIT"), "w")]);
        child.inherit(&parent);
        child.inherit(&parent);
        let names: Vec<_> = child.components.iter().map(|c| (c.name.as_str(), c.paths.len())).collect();
        assert_eq!(names, [("own", 1), ("a", 0), ("b", 0)]);
    }
}
