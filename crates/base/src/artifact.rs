//! Artifacts: what every stage consumes and yields. A manifest says what an artifact is, what it
//! was made from, under which licences, and how to make it again. Its digest is its identity.

use crate::{
    component::{Component, ComponentKind},
    digest::Digest,
    license::License,
};
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
    /// Pairs of answers to one prompt, in splits.
    Pairs,
    /// Rows of named columns, in splits.
    Rows,
    /// A tokenizer and token shards.
    Tokens,
    /// A model in Hugging Face layout.
    Model,
    /// A model that tells a column of rows from others, in Hugging Face layout.
    Predictor,
    /// Passages of files, found by words and by meaning.
    Knowledge,
    /// Figures of an evaluation.
    Evaluation,
    /// A model with everything needed to pass it on.
    Bundle,
}

impl ArtifactKind {
    /// All kinds, in the order in which they are made.
    pub const ALL: [ArtifactKind; 11] = [
        ArtifactKind::Source,
        ArtifactKind::Documents,
        ArtifactKind::Chat,
        ArtifactKind::Pairs,
        ArtifactKind::Rows,
        ArtifactKind::Tokens,
        ArtifactKind::Model,
        ArtifactKind::Predictor,
        ArtifactKind::Knowledge,
        ArtifactKind::Evaluation,
        ArtifactKind::Bundle,
    ];

    /// The name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            ArtifactKind::Source => "source",
            ArtifactKind::Documents => "documents",
            ArtifactKind::Chat => "chat",
            ArtifactKind::Pairs => "pairs",
            ArtifactKind::Rows => "rows",
            ArtifactKind::Tokens => "tokens",
            ArtifactKind::Model => "model",
            ArtifactKind::Predictor => "predictor",
            ArtifactKind::Knowledge => "knowledge",
            ArtifactKind::Evaluation => "evaluation",
            ArtifactKind::Bundle => "bundle",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
    /// The project's name: papers carry it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The project's licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<License>,
    /// The instruction set that computed it (`avx512`), where the step computes with a model on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
}

impl Recipe {
    /// A recipe of this version of Narthex with nothing to configure.
    pub fn new(step: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            kind: kind.into(),
            config: serde_json::json!({}),
            seed: 0,
            narthex: env!("CARGO_PKG_VERSION").into(),
            version: 1,
            project: String::new(),
            license: None,
            isa: None,
        }
    }
}

/// The digests of the files that one part of a state lies in, a file for each shard. A state in one piece is written as
/// its digest alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct ShardDigests(Vec<Digest>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(Digest),
    Several(Vec<Digest>),
}

impl From<ShardDigests> for OneOrSeveral {
    fn from(ShardDigests(digests): ShardDigests) -> Self {
        match digests.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Several(digests),
        }
    }
}

impl From<OneOrSeveral> for ShardDigests {
    fn from(digests: OneOrSeveral) -> Self {
        match digests {
            OneOrSeveral::One(one) => Self(vec![one]),
            OneOrSeveral::Several(digests) => Self(digests),
        }
    }
}

impl From<Digest> for ShardDigests {
    fn from(whole: Digest) -> Self {
        Self(vec![whole])
    }
}

impl ShardDigests {
    /// The digests, by shard.
    pub fn all(&self) -> &[Digest] {
        &self.0
    }

    /// The files of a part of a state, `weights` or `moments`, with their digests: one of that name, or one for each
    /// shard.
    pub fn files(&self, part: &str) -> impl Iterator<Item = (String, Digest)> {
        let (part, count) = (part.to_string(), self.0.len());
        self.0.iter().enumerate().map(move |(shard, digest)| match count {
            1 => (format!("{part}.safetensors"), *digest),
            _ => (format!("{part}-{:05}-of-{count:05}.safetensors", shard + 1), *digest),
        })
    }

    /// The first 12 digits of each, which is what people see.
    pub fn short(&self) -> String {
        self.0.iter().map(Digest::short).collect::<Vec<_>>().join("+")
    }
}

/// A state that training passed through. In JSON it is a list of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, ShardDigests, ShardDigests)", into = "(u64, ShardDigests, ShardDigests)")]
pub struct Passed {
    /// Optimizer steps taken.
    pub step: u64,
    /// BLAKE3 of the trained weights as safetensors files.
    pub weights: ShardDigests,
    /// BLAKE3 of the optimizer's moments as safetensors files.
    pub moments: ShardDigests,
}

impl From<(u64, ShardDigests, ShardDigests)> for Passed {
    fn from((step, weights, moments): (u64, ShardDigests, ShardDigests)) -> Self {
        Self { step, weights, moments }
    }
}

impl From<Passed> for (u64, ShardDigests, ShardDigests) {
    fn from(Passed { step, weights, moments }: Passed) -> Self {
        (step, weights, moments)
    }
}

/// A state that training passed through, as a link of the chain of all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Optimizer steps taken.
    pub step: u64,
    /// BLAKE3 of the trained weights as safetensors files.
    pub weights: ShardDigests,
    /// BLAKE3 of the optimizer's moments as safetensors files.
    pub moments: ShardDigests,
    /// The chain up to here: the digest of the one before with these three; see [`Manifest::chain`].
    pub chain: Digest,
}

impl Checkpoint {
    /// The state, without its place in the chain.
    pub fn passed(&self) -> Passed {
        Passed { step: self.step, weights: self.weights.clone(), moments: self.moments.clone() }
    }
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
    /// Licence texts that components name by digest and that the binary does not carry: set union along the lineage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<Digest, String>,
    /// How to make it again.
    pub recipe: Recipe,
    /// The states that training passed through, first to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// Numbers that the same recipe always gives (losses, counts).
    pub figures: BTreeMap<String, f64>,
}

/// The manifest format written by this version.
pub const MANIFEST_SCHEMA: u32 = 2;

impl Manifest {
    /// A manifest with neither files nor parents.
    pub fn new(kind: ArtifactKind, recipe: Recipe) -> Self {
        Self {
            schema: MANIFEST_SCHEMA,
            kind,
            files: vec![],
            parents: vec![],
            components: vec![],
            texts: BTreeMap::new(),
            recipe,
            checkpoints: vec![],
            figures: BTreeMap::new(),
        }
    }

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

    /// The licence of the weights, whatever code and data lie beside them; without weights, that of the whole.
    pub fn model_license(&self) -> Option<License> {
        let weights = self.components.iter().find(|c| c.is_own() && c.kind == ComponentKind::ModelParameters);
        weights.map_or_else(|| self.license(), |weights| weights.license.clone())
    }

    /// Adds the components of a parent that are not there yet: licences, notices and texts travel along the lineage as
    /// sets. Inherited components stand behind the own ones in an order that does not depend on that of the parents.
    pub fn inherit(&mut self, parent: &Manifest) {
        for component in &parent.components {
            match self.components.iter_mut().find(|known| known.is_same(component)) {
                Some(known) => known.notices.extend(component.notices.iter().cloned()),
                None => self.components.push(Component { paths: vec![], ..component.clone() }),
            }
        }
        let (mut components, mut inherited): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.components).into_iter().partition(|component| !component.paths.is_empty());
        inherited.sort();
        components.append(&mut inherited);
        self.components = components;
        self.texts.extend(parent.texts.iter().map(|(digest, text)| (*digest, text.clone())));
    }

    /// The text of a licence that a component names; the standard one where the binary has it.
    pub fn license_text(&self, id: &str, digest: Digest) -> Option<&str> {
        let known = || crate::license::text_of(id).filter(|text| Digest::of(text.as_bytes()) == digest);
        self.texts.get(&digest).map(String::as_str).or_else(known)
    }

    /// Where the chain of checkpoints begins: what the recipe and the inputs are.
    pub fn chain_start(&self) -> Digest {
        Digest::of_json(&(&self.recipe, &self.parents))
    }

    /// Links states into a chain that begins with the recipe and the inputs: none can be changed, added or left out
    /// without changing the last link, and with it the manifest's digest.
    pub fn chain(&self, states: impl IntoIterator<Item = Passed>) -> Vec<Checkpoint> {
        let mut before = self.chain_start();
        let link = |Passed { step, weights, moments }| {
            before = Digest::of_json(&(before, step, &weights, &moments));
            Checkpoint { step, weights, moments, chain: before }
        };
        states.into_iter().map(link).collect()
    }

    /// The first checkpoint that is not linked to those before it.
    pub fn broken_link(&self) -> Option<&Checkpoint> {
        let wanted = self.chain(self.checkpoints.iter().map(Checkpoint::passed));
        self.checkpoints.iter().zip(wanted).find(|(found, wanted)| *found != wanted).map(|(found, _)| found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{component::Evidence, random::Stream};
    use std::collections::BTreeSet;

    fn component(name: &str, license: Option<&str>, path: &str) -> Component {
        Component {
            name: name.into(),
            kind: ComponentKind::Datasets,
            license: license.map(|l| License::parse(l).unwrap()),
            license_texts: BTreeMap::new(),
            notices: BTreeSet::new(),
            origin: None,
            evidence: Evidence::Declared,
            paths: if path.is_empty() { vec![] } else { vec![path.into()] },
        }
    }

    fn manifest(components: Vec<Component>) -> Manifest {
        Manifest { components, ..Manifest::new(ArtifactKind::Documents, Recipe::new("s", "data")) }
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
    fn licence_of_the_weights() {
        let data = component("a", Some("MIT"), "x");
        let weights = Component { kind: ComponentKind::ModelParameters, ..component("w", Some("CC0-1.0"), "y") };
        let inherited = Component { kind: ComponentKind::ModelParameters, ..component("v", Some("Zlib"), "") };
        for (parts, expected) in [
            (vec![data.clone(), weights.clone()], Some("CC0-1.0")),
            (vec![data.clone(), inherited], Some("MIT")),
            (vec![Component { license: None, ..weights }, data], None),
        ] {
            assert_eq!(manifest(parts).model_license().as_ref().map(License::as_str), expected);
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

    /// A random artifact without parents: components with notices and texts of their own.
    fn leaf(number: u64, draw: &mut impl FnMut(u64) -> u64) -> Manifest {
        let components = (0..1 + draw(3)).map(|i| {
            let text = format!("text {}", draw(4));
            let mut made = component(&format!("c{}", draw(5)), [Some("MIT"), None][draw(2) as usize], &format!("f{i}"));
            made.notices = (0..draw(3)).map(|_| format!("notice {}", draw(6))).collect();
            made.license_texts = BTreeMap::from([("MIT".to_string(), Digest::of(text.as_bytes()))]);
            (made, text)
        });
        let (components, texts): (Vec<_>, Vec<_>) = components.collect();
        let texts = texts.into_iter().map(|text| (Digest::of(text.as_bytes()), text)).collect();
        let mut made = Manifest { texts, ..manifest(components) };
        made.recipe.step = format!("s{number}");
        made
    }

    #[test]
    fn propagation_loses_no_notice_and_knows_no_order() {
        for seed in 0..500 {
            let stream = Stream::new(seed, "lineage");
            let mut position = 0;
            let mut draw = |below: u64| {
                position += 1;
                stream.below(position, below)
            };
            // A random graph: each artifact inherits from some of those before it.
            let mut all: Vec<(Manifest, BTreeSet<usize>)> = Vec::new();
            for number in 0..12 {
                let mut made = leaf(number, &mut draw);
                let mut parents: Vec<usize> = (0..all.len()).filter(|_| draw(3) == 0).collect();
                let mut mirror = made.clone();
                parents.iter().for_each(|parent| made.inherit(&all[*parent].0));
                // The other way round, and one of them twice.
                parents.reverse();
                parents.iter().chain(parents.first()).for_each(|parent| mirror.inherit(&all[*parent].0));
                assert_eq!(made, mirror, "the order of the parents matters");
                let mut ancestors: BTreeSet<usize> = parents.iter().copied().collect();
                parents.iter().for_each(|parent| ancestors.extend(all[*parent].1.clone()));
                for ancestor in &ancestors {
                    let ancestor = &all[*ancestor].0;
                    for component in &ancestor.components {
                        let kept =
                            made.components.iter().find(|known| known.is_same(component)).expect("a component is lost");
                        assert!(kept.notices.is_superset(&component.notices), "a notice is lost");
                        for (id, digest) in &component.license_texts {
                            assert!(made.license_text(id, *digest).is_some(), "a text is lost");
                        }
                    }
                }
                all.push((made, ancestors));
            }
        }
    }

    #[test]
    fn a_chain_shows_every_change() {
        let state = |step: u64| Passed {
            step,
            weights: Digest::of(&step.to_le_bytes()).into(),
            moments: Digest::of(b"moments").into(),
        };
        let mut made = manifest(vec![]);
        made.checkpoints = made.chain((1..5).map(state));
        assert_eq!(made.broken_link(), None);
        let mut swapped = made.clone();
        swapped.checkpoints[1].weights = Digest::of(b"others").into();
        assert_eq!(swapped.broken_link().unwrap().step, 2);
        let mut left_out = made.clone();
        left_out.checkpoints.remove(0);
        assert_eq!(left_out.broken_link().unwrap().step, 2);
        let mut other_recipe = made.clone();
        other_recipe.recipe.seed = 1;
        assert_eq!(other_recipe.broken_link().unwrap().step, 1);
    }

    #[test]
    fn a_state_in_one_piece_is_written_as_before_there_were_shards() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let whole = Passed { step: 3, weights: a.into(), moments: b.into() };
        assert_eq!(serde_json::to_value(&whole).unwrap(), serde_json::json!([3, a, b]));
        let halves = Passed { weights: ShardDigests(vec![a, b]), ..whole.clone() };
        assert_eq!(serde_json::to_value(&halves).unwrap(), serde_json::json!([3, [a, b], b]));
        for state in [whole, halves] {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<Passed>(&text).unwrap(), state);
            let names: Vec<String> = state.weights.files("weights").map(|(name, _)| name).collect();
            let expected = match state.weights.all() {
                [_] => vec!["weights.safetensors"],
                _ => vec!["weights-00001-of-00002.safetensors", "weights-00002-of-00002.safetensors"],
            };
            assert_eq!(names, expected);
        }
    }
}
