//! What an artifact was made from, down to the raw files, and whether it is still what it was.
//! Reads manifests; decides nothing about licences.

use crate::{artifact::Artifact, disk, open::Ledger};
use narthex_base::{ArtifactKind, Digest, Error, LineageNode, Parent, Presence, Provenance, Result};
use std::{collections::BTreeSet, path::Path};

/// The longest chain of ancestors.
const MAX_LINEAGE_DEPTH: usize = 500;

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
                    None => LineageNode::missing(parent),
                });
            }
        }
        let mut node = LineageNode::of(&manifest, artifact.digest);
        (node.role, node.name, node.parents) = (role, name, parents);
        (node.repeated, node.presence) = (repeated, presence);
        Ok(node)
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
        self.verify_files(artifact)?;
        if artifact.manifest.kind != ArtifactKind::Source {
            for (path, _) in disk::walk(&artifact.folder, disk::Links::Refuse)? {
                let is_ours = path == crate::artifact::MANIFEST_FILE
                    || path.starts_with(&format!("{}/", crate::artifact::RUN_FOLDER));
                if !is_ours && artifact.manifest.file(&path).is_none() {
                    return Err(self.wrong_file(artifact, &path, "does not belong to it"));
                }
            }
        }
        Ok(())
    }

    /// The same of the files that belong to it, whatever lies beside them: what is asked before an artifact is used.
    ///
    /// # Errors
    /// Names the first file that differs or is missing.
    pub fn verify_files(&self, artifact: &Artifact) -> Result<()> {
        for file in &artifact.manifest.files {
            let wrong = |what: &str| self.wrong_file(artifact, &file.path, what);
            let path = self.base(artifact).join(&file.path);
            if !path.is_file() {
                return Err(wrong("is missing"));
            }
            let (bytes, digest) = disk::hash(&path)?;
            if bytes != file.bytes {
                return Err(wrong(&format!("has {bytes} bytes instead of {}", file.bytes)));
            }
            if digest != file.digest {
                let cause = format!("its digest is {digest}, the manifest says {}", file.digest);
                return Err(wrong("differs from what was stored").cause(cause));
            }
        }
        Ok(())
    }

    /// Where the paths of an artifact's files start.
    fn base<'a>(&'a self, artifact: &'a Artifact) -> &'a Path {
        match artifact.manifest.kind {
            ArtifactKind::Source => self.root().parent().unwrap_or(self.root()),
            _ => &artifact.folder,
        }
    }

    fn wrong_file(&self, artifact: &Artifact, path: &str, what: &str) -> Error {
        let error = Error::input(format!("{path} of `{}` ({}) {what}", artifact.name(), artifact.digest.short()))
            .at(self.base(artifact).join(path).display(), None);
        match artifact.manifest.kind {
            ArtifactKind::Source => {
                error.help("restore the file, or run again: `narthex run` makes what follows from the new one")
            }
            _ if artifact.manifest.recipe.kind == "import" => error.help("import it again"),
            _ => error.help(format!("make it again: `narthex run --force {}`", artifact.name())),
        }
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
