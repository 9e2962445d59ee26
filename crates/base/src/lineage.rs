//! Lineage: what an artifact was made from, down to the raw files, as a tree and as a set of manifests. Data only:
//! how it is found is the ledger's work.

use crate::{
    artifact::{ArtifactKind, FileEntry, Manifest, Parent},
    component::Component,
    declared::DeclaredOrigin,
    digest::Digest,
    license::License,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How much of an artifact is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Manifest and files.
    Complete,
    /// The manifest alone: it came as the ancestor of an imported artifact.
    ManifestOnly,
    /// Nothing: what is known of it stands in its child's manifest.
    Missing,
}

/// An artifact in a tree of ancestors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineageNode {
    /// What its child used it as; absent at the top.
    pub role: Option<String>,
    /// The name its child knew it by; at the top, the step that made it.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its identity.
    pub digest: Digest,
    /// The licence of its own components; absent means undeclared, or that it is missing.
    pub license: Option<License>,
    /// Where its own components come from, each once.
    pub origins: Vec<String>,
    /// Its own components.
    pub components: Vec<Component>,
    /// What its card says it was made from, unverified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<DeclaredOrigin>,
    /// The raw files of a source; empty for all else.
    pub files: Vec<FileEntry>,
    /// What it was made from. Empty where `repeated`.
    pub parents: Vec<LineageNode>,
    /// Whether it stands, with its parents, earlier in the tree.
    pub repeated: bool,
    /// How much of it is in the store.
    pub presence: Presence,
}

/// What travels with an exported artifact: the content of `narthex.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The artifact's manifest.
    pub manifest: Manifest,
    /// The manifests of its ancestors, each once, nearest first.
    pub lineage: Vec<Manifest>,
}

impl Provenance {
    /// The manifest of an artifact or of one of its ancestors.
    pub fn find(&self, digest: Digest) -> Option<&Manifest> {
        self.all().find(|manifest| manifest.digest() == digest)
    }

    /// The artifact's manifest, then those of its ancestors.
    pub fn all(&self) -> impl Iterator<Item = &Manifest> {
        std::iter::once(&self.manifest).chain(&self.lineage)
    }
}

/// The longest chain of ancestors that is drawn as a tree.
const LINEAGE_DEPTH_MAX: usize = 500;

impl Provenance {
    /// The tree of ancestors, as far as their manifests are here. One that is reached twice is expanded at its first
    /// place.
    pub fn tree(&self) -> LineageNode {
        let known: BTreeMap<Digest, &Manifest> = self.all().map(|manifest| (manifest.digest(), manifest)).collect();
        let top = self.manifest.digest();
        node(&known, None, &self.manifest.recipe.step, top, &mut BTreeSet::new(), 0)
            .unwrap_or_else(|| LineageNode::of(&self.manifest, top))
    }

    /// The artifact's components, and those of its ancestors that it should have inherited and has not: papers that
    /// contradict themselves are not believed.
    pub fn components(&self) -> Vec<Component> {
        let mut components = self.manifest.components.clone();
        let (mut seen, mut open) = (BTreeSet::new(), vec![&self.manifest]);
        while let Some(manifest) = open.pop() {
            // What a card says that it was made from hands nothing down.
            let parents = manifest.parents.iter().filter(|parent| !parent.role.starts_with("declared "));
            for parent in parents.filter_map(|parent| self.find(parent.digest)) {
                if !seen.insert(parent.digest()) {
                    continue;
                }
                for component in &parent.components {
                    let has = |known: &Component| known.name == component.name && known.license == component.license;
                    if !components.iter().any(has) {
                        components.push(Component { paths: vec![], ..component.clone() });
                    }
                }
                open.push(parent);
            }
        }
        components
    }

    /// The first manifest that a child names and that is not here: lineage that was cut off, or changed. (child,
    /// parent)
    pub fn missing(&self) -> Option<(&Manifest, &Parent)> {
        let known: BTreeSet<Digest> = self.all().map(Manifest::digest).collect();
        self.all().find_map(|child| Some((child, child.parents.iter().find(|parent| !known.contains(&parent.digest))?)))
    }
}

impl LineageNode {
    /// A node without parents and role.
    pub fn of(manifest: &Manifest, digest: Digest) -> Self {
        let components: Vec<Component> = manifest.components.iter().filter(|c| c.is_own()).cloned().collect();
        let mut origins: Vec<String> = Vec::new();
        for origin in components.iter().filter_map(|component| component.origin.clone()) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        Self {
            role: None,
            name: manifest.recipe.step.clone(),
            kind: manifest.kind,
            digest,
            license: manifest.license(),
            origins,
            components,
            declared: manifest.declared(),
            files: if manifest.kind == ArtifactKind::Source { manifest.files.clone() } else { vec![] },
            parents: vec![],
            repeated: false,
            presence: Presence::ManifestOnly,
        }
    }

    /// What is known of a parent whose manifest is not here.
    pub fn missing(parent: &Parent) -> Self {
        Self {
            role: Some(parent.role.clone()),
            name: parent.name.clone(),
            kind: parent.kind,
            digest: parent.digest,
            license: None,
            origins: vec![],
            components: vec![],
            declared: vec![],
            files: vec![],
            parents: vec![],
            repeated: false,
            presence: Presence::Missing,
        }
    }
}

fn node(
    known: &BTreeMap<Digest, &Manifest>,
    role: Option<String>,
    name: &str,
    digest: Digest,
    seen: &mut BTreeSet<Digest>,
    depth: usize,
) -> Option<LineageNode> {
    let manifest = known.get(&digest).filter(|_| depth <= LINEAGE_DEPTH_MAX)?;
    let repeated = !seen.insert(digest);
    let parents = if repeated { &[][..] } else { &manifest.parents };
    let parents = parents.iter().map(|parent| {
        node(known, Some(parent.role.clone()), &parent.name, parent.digest, seen, depth + 1)
            .unwrap_or_else(|| LineageNode::missing(parent))
    });
    let parents = parents.collect();
    Some(LineageNode { role, name: name.into(), repeated, parents, ..LineageNode::of(manifest, digest) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArtifactKind, ComponentKind, Evidence, License, Recipe};

    /// What a child lacks of its parents' components, or has under other terms, is not gone.
    #[test]
    fn papers_that_contradict_themselves_are_not_believed() {
        let license = |id: &str| Some(License::parse(id).unwrap());
        let data = |id: &str| {
            let own = Component::new("sample", ComponentKind::Datasets, license(id), Evidence::Declared);
            Component { paths: vec!["sample.txt".into()], ..own }
        };
        let mut source = Manifest::new(ArtifactKind::Source, Recipe::new("sample", "source"));
        source.components.push(data("CC-BY-NC-4.0"));
        let parent = |role: &str| Parent {
            role: role.into(),
            name: "sample".into(),
            kind: ArtifactKind::Source,
            digest: source.digest(),
        };
        let mut model = Manifest::new(ArtifactKind::Model, Recipe::new("base", "train"));
        model.parents.push(parent("data"));
        let licenses = |manifest: &Manifest| -> Vec<String> {
            let papers = Provenance { manifest: manifest.clone(), lineage: vec![source.clone()] };
            papers.components().iter().map(|component| component.license_name().to_string()).collect()
        };
        assert_eq!(licenses(&model), ["CC-BY-NC-4.0"]);
        model.components.push(data("CC0-1.0"));
        assert_eq!(licenses(&model), ["CC0-1.0", "CC-BY-NC-4.0"]);
        let mut whole = model.clone();
        whole.components.clear();
        whole.inherit(&source);
        assert_eq!(licenses(&whole), ["CC-BY-NC-4.0"]);
        // What a card declares hands nothing down.
        model.parents[0] = parent("declared base_model");
        assert_eq!(licenses(&model), ["CC0-1.0"]);
    }
}
