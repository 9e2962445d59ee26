//! What an artifact was made from, down to the raw files, and whether it is still what it was.
//! Reads manifests; decides nothing about licences.

use crate::{Artifact, Ledger, disk};
use narthex_base::{ArtifactKind, Component, Digest, Error, FileEntry, License, Manifest, Parent, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The longest chain of ancestors.
const MAX_LINEAGE_DEPTH: usize = 500;

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

impl Ledger {
    /// The tree of an artifact's ancestors. One that is reached twice is expanded at its first place.
    ///
    /// # Errors
    /// If the artifact is not in the store, a manifest is damaged, or the chain is unreasonably long.
    pub fn lineage(&self, digest: Digest) -> Result<LineageNode> {
        let top = self.get(digest)?;
        let name = top.name().to_string();
        self.node(None, name, top, &mut BTreeSet::new(), 0)
    }

    fn node(
        &self,
        role: Option<String>,
        name: String,
        artifact: Artifact,
        seen: &mut BTreeSet<Digest>,
        depth: usize,
    ) -> Result<LineageNode> {
        if depth > MAX_LINEAGE_DEPTH {
            return Err(Error::input(format!("the lineage is longer than {MAX_LINEAGE_DEPTH} steps")));
        }
        let presence = if artifact.is_complete() { Presence::Complete } else { Presence::ManifestOnly };
        let manifest = artifact.manifest;
        let repeated = !seen.insert(artifact.digest);
        let mut parents = Vec::new();
        if !repeated {
            for parent in &manifest.parents {
                let role = Some(parent.role.clone());
                parents.push(match self.find(parent.digest)? {
                    Some(artifact) => self.node(role, parent.name.clone(), artifact, seen, depth + 1)?,
                    None => missing(parent),
                });
            }
        }
        let components: Vec<Component> = manifest.components.iter().filter(|c| !c.paths.is_empty()).cloned().collect();
        let mut origins: Vec<String> = Vec::new();
        for origin in components.iter().filter_map(|component| component.origin.clone()) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        Ok(LineageNode {
            role,
            name,
            kind: manifest.kind,
            digest: artifact.digest,
            license: manifest.license(),
            origins,
            components,
            files: if manifest.kind == ArtifactKind::Source { manifest.files } else { vec![] },
            parents,
            repeated,
            presence,
        })
    }

    /// An artifact's manifest with those of all its ancestors that are in the store.
    ///
    /// # Errors
    /// If an ancestor's manifest is damaged.
    pub fn provenance(&self, artifact: &Artifact) -> Result<Provenance> {
        let mut lineage = Vec::new();
        let mut seen = BTreeSet::from([artifact.digest]);
        // Breadth first: the nearest ancestors stand in front.
        let mut next: Vec<Parent> = artifact.manifest.parents.clone();
        while !next.is_empty() {
            for parent in std::mem::take(&mut next) {
                if !seen.insert(parent.digest) {
                    continue;
                }
                match self.find(parent.digest)? {
                    Some(ancestor) => {
                        next.extend(ancestor.manifest.parents.iter().cloned());
                        lineage.push(ancestor.manifest);
                    }
                    None => self.warn(format!(
                        "`{}` ({}), an ancestor of `{}`, is not in the ledger: its lineage ends there",
                        parent.name,
                        parent.digest.short(),
                        artifact.name()
                    )),
                }
            }
        }
        Ok(Provenance { manifest: artifact.manifest.clone(), lineage })
    }

    /// Hashes the artifact's files again and compares. A source's files are looked for where they were
    /// (relative paths start at the project's folder).
    ///
    /// # Errors
    /// Names the first file that differs, is missing, or does not belong there.
    pub fn verify(&self, artifact: &Artifact) -> Result<()> {
        let is_source = artifact.manifest.kind == ArtifactKind::Source;
        let base = if is_source { self.root().parent().unwrap_or(self.root()) } else { &artifact.folder };
        let wrong = |path: &str, what: &str| {
            let error = Error::input(format!("{path} of `{}` ({}) {what}", artifact.name(), artifact.digest.short()))
                .at(base.join(path).display(), None);
            match is_source {
                true => error.help("restore the file, or run again: `narthex run` makes what follows from the new one"),
                false => error.help(format!("make it again: `narthex run --force {}`", artifact.name())),
            }
        };
        for file in &artifact.manifest.files {
            let path = base.join(&file.path);
            if !path.is_file() {
                return Err(wrong(&file.path, "is missing"));
            }
            let (bytes, digest) = disk::hash(&path)?;
            if bytes != file.bytes {
                return Err(wrong(&file.path, &format!("has {bytes} bytes instead of {}", file.bytes)));
            }
            if digest != file.digest {
                let cause = format!("its digest is {digest}, the manifest says {}", file.digest);
                return Err(wrong(&file.path, "differs from what was stored").cause(cause));
            }
        }
        if !is_source {
            for (path, _) in disk::walk(&artifact.folder, disk::Links::Refuse)? {
                let is_ours = path == crate::artifact::MANIFEST_FILE
                    || path.starts_with(&format!("{}/", crate::artifact::RUN_FOLDER));
                if !is_ours && artifact.manifest.file(&path).is_none() {
                    return Err(wrong(&path, "does not belong to it"));
                }
            }
        }
        Ok(())
    }
}

fn missing(parent: &Parent) -> LineageNode {
    LineageNode {
        role: Some(parent.role.clone()),
        name: parent.name.clone(),
        kind: parent.kind,
        digest: parent.digest,
        license: None,
        origins: vec![],
        components: vec![],
        files: vec![],
        parents: vec![],
        repeated: false,
        presence: Presence::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Project, chain};
    use std::fs;

    /// The tree in one line: name(parents), `*` where repeated, `?` where missing.
    fn line(node: &LineageNode) -> String {
        let mark = match (node.repeated, node.presence) {
            (true, _) => "*",
            (_, Presence::Missing) => "?",
            _ => "",
        };
        let parents: Vec<String> = node.parents.iter().map(line).collect();
        format!("{}{mark}({})", node.name, parents.join(" "))
    }

    #[test]
    fn goes_down_to_the_raw_files() {
        let project = Project::new();
        let ledger = project.ledger();
        let chat = chain(&project);
        let tree = ledger.lineage(chat.digest).unwrap();
        assert_eq!(line(&tree), "bard-chat(bard(plays-data(plays())) plays-data*())");
        assert_eq!((tree.role.as_deref(), tree.parents[0].role.as_deref()), (None, Some("from")));
        let source = &tree.parents[0].parents[0].parents[0];
        assert_eq!((source.kind, source.files.len()), (ArtifactKind::Source, 1));
        assert_eq!(source.license.as_ref().unwrap().as_str(), "CC0-1.0");
        assert_eq!(source.origins, ["https://example.org/plays"]);
        let provenance = ledger.provenance(&chat).unwrap();
        let steps: Vec<&str> = provenance.lineage.iter().map(|manifest| manifest.recipe.step.as_str()).collect();
        assert_eq!(steps, ["bard", "plays-data", "plays"]);
        fs::remove_dir_all(ledger.artifact_folder(source.digest)).unwrap();
        assert_eq!(line(&ledger.lineage(chat.digest).unwrap()), "bard-chat(bard(plays-data(plays?())) plays-data*())");
        assert_eq!(ledger.provenance(&chat).unwrap().lineage.len(), 2);
        assert!(ledger.take_warnings()[0].contains("its lineage ends there"));
    }

    #[test]
    fn verify_names_the_first_file_that_differs() {
        let project = Project::new();
        let ledger = project.ledger();
        type Harm<'a> = &'a dyn Fn(&Artifact);
        let harm: [(&str, Harm); 4] = [
            ("b of `bard`", &|a| {
                fs::remove_file(a.path("b")).unwrap();
                fs::write(a.path("b"), "owt").unwrap();
            }),
            ("has 1 bytes instead of 3", &|a| {
                fs::remove_file(a.path("b")).unwrap();
                fs::write(a.path("b"), "o").unwrap();
            }),
            ("is missing", &|a| fs::remove_file(a.path("c/d")).unwrap()),
            ("extra of `bard`", &|a| fs::write(a.path("extra"), "").unwrap()),
        ];
        for (expected, harm) in harm {
            let made = project.commit("bard", &[], &[("a", "one"), ("b", "two"), ("c/d", "three")]);
            ledger.verify(&made).unwrap();
            harm(&made);
            let error = ledger.verify(&made).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
            assert!(error.help_text().unwrap().contains("--force bard"), "{error}");
            fs::remove_dir_all(&made.folder).unwrap();
        }
    }
}
