//! The terms of what a binary is made of: ours, and those of every crate that is linked into it, with the texts that
//! lie in the crates. Asks Cargo; downloads nothing.

use super::{output, read};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The terms of a binary.
pub struct Licenses {
    apache: Vec<u8>,
    pub mit: String,
    pub crates: Vec<Linked>,
    /// Code of others that lies among ours, with its terms.
    vendored: Vec<(String, String)>,
}

/// A crate that is linked.
pub struct Linked {
    pub name: String,
    pub version: String,
    /// An expression of SPDX, as its manifest has it.
    pub license: String,
    pub copyright: Vec<String>,
    texts: Vec<String>,
}

impl Licenses {
    /// Reads the terms of the default binary of the workspace at this folder.
    pub fn read(root: &Path) -> Result<Self, String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let cargo = |arguments: &[&str]| {
            output(Command::new(&cargo).current_dir(root).args(arguments).args(["--locked", "--offline"]))
        };
        let tree =
            cargo(&["tree", "--package", "narthex", "--edges", "normal", "--prefix", "none", "--format", "{p}"])?;
        let linked: BTreeSet<(String, String)> =
            String::from_utf8_lossy(&tree).lines().filter_map(name_and_version).collect();
        let metadata = cargo(&["metadata", "--format-version", "1"])?;
        let metadata: serde_json::Value =
            serde_json::from_slice(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
        let mut crates = Vec::new();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let field = |name: &str| package[name].as_str().unwrap_or_default().to_string();
            let (name, version) = (field("name"), field("version"));
            let is_ours = package["source"].is_null();
            if !is_ours && linked.contains(&(name.clone(), version.clone())) {
                crates.push(Linked::read(name, version, field("license"), &PathBuf::from(field("manifest_path")))?);
            }
        }
        crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let mut vendored = Vec::new();
        collect_vendored(&root.join("crates"), root, &mut vendored)?;
        vendored.sort();
        Ok(Self {
            apache: read(&root.join("LICENSE-APACHE"))?,
            mit: String::from_utf8_lossy(&read(&root.join("LICENSE-MIT"))?).into_owned(),
            crates,
            vendored,
        })
    }

    /// The files that go with every package.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("LICENSE-APACHE", self.apache.clone()),
            ("LICENSE-MIT", self.mit.clone().into_bytes()),
            ("THIRD-PARTY.txt", self.third_party().into_bytes()),
        ]
    }

    /// The terms of others, each text once, with the crates that stand under it.
    pub fn third_party(&self) -> String {
        let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut list = String::from("Narthex is linked from these crates of others.\n\n");
        for linked in &self.crates {
            let title = format!("{} {}", linked.name, linked.version);
            list += &format!("{title}: {}\n", linked.license);
            linked.texts.iter().for_each(|text| texts.entry(text.trim()).or_default().push(title.clone()));
        }
        for (place, text) in &self.vendored {
            texts.entry(text.trim()).or_default().push(place.clone());
        }
        let mut texts: Vec<(&str, Vec<String>)> = texts.into_iter().collect();
        texts.sort_by(|a, b| a.1.cmp(&b.1).then(a.0.cmp(b.0)));
        for (text, titles) in texts {
            let line = "-".repeat(80);
            list += &format!("\n{line}\n{}\n{line}\n\n{text}\n", titles.join(", "));
        }
        list
    }
}

impl Linked {
    fn read(name: String, version: String, license: String, manifest: &Path) -> Result<Self, String> {
        let folder = manifest.parent().unwrap_or(Path::new("."));
        let mut texts = Vec::new();
        let mut names: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(|error| format!("cannot read {}: {error}; fetch it first: `cargo fetch`", folder.display()))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        for path in names.into_iter().filter(|path| path.is_file() && is_terms(path)) {
            texts.push(String::from_utf8_lossy(&read(&path)?).replace("\r\n", "\n"));
        }
        let license = if license.is_empty() { "see its text".into() } else { license };
        let copyright = copyright(&texts);
        Ok(Self { name, version, license, copyright, texts })
    }
}

/// `name v1.2.3 (…)`, as `cargo tree` has it.
fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    Some((words.next()?.to_string(), words.next()?.strip_prefix('v')?.to_string()))
}

/// Whether a file by its name holds terms.
fn is_terms(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
    let is_code = [".RS", ".TOML", ".PY"].iter().any(|end| name.ends_with(end));
    !is_code
        && ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// The lines that say whose it is, each once.
fn copyright(texts: &[String]) -> Vec<String> {
    let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
    let claims = lines.filter(|line| {
        let rest = line.strip_prefix("Copyright ").unwrap_or_default();
        // Neither the sentences of licences themselves nor their blanks to fill in.
        (rest.starts_with("(c)")
            || rest.starts_with("(C)")
            || rest.starts_with('©')
            || rest.starts_with(|c: char| c.is_ascii_digit()))
            && !rest.contains('{')
            && !rest.contains('[')
    });
    let claims: BTreeSet<String> = claims.map(String::from).collect();
    claims.into_iter().collect()
}

/// The terms that lie among our own sources: of code of others.
fn collect_vendored(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let inside = path.strip_prefix(root).unwrap_or(&path);
        let is_for_tests = inside
            .components()
            .any(|part| ["tests", "target", "goldens"].map(Some).contains(&part.as_os_str().to_str()));
        if path.is_dir() && !is_for_tests {
            collect_vendored(&path, root, found)?;
        } else if path.is_file() && is_terms(&path) {
            found.push((inside.display().to_string(), String::from_utf8_lossy(&read(&path)?).into_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is() {
        let text = "MIT License\n\nCopyright (c) 2020 A. Person\n  Copyright 2019 B\nCopyright [yyyy] [name]\n\
                    Copyright notice and this permission\nCopyright (c) 2020 A. Person\n";
        assert_eq!(copyright(&[text.into()]), ["Copyright (c) 2020 A. Person", "Copyright 2019 B"]);
    }

    #[test]
    fn terms_by_their_names() {
        let are = ["LICENSE", "LICENSE-MIT", "license.txt", "COPYING", "NOTICE", "UNLICENSE"];
        assert!(are.iter().all(|name| is_terms(Path::new(name))));
        assert!(["license.rs", "README.md", "licensing.toml"].iter().all(|name| !is_terms(Path::new(name))));
        assert_eq!(name_and_version("a v1.0.0 (proc-macro)"), Some(("a".into(), "1.0.0".into())));
        assert_eq!(name_and_version(""), None);
    }
}
