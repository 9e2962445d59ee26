//! Under which terms material stands: what is declared, held against the text that lies beside it. Knows folders and
//! licences, no cards and no projects.

use narthex_base::{Component, ComponentKind, Digest, Error, Evidence, License, Result, license};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Under which terms material stands, and how that is known.
pub struct Terms {
    /// The licence; absent means undeclared.
    pub license: Option<License>,
    /// How the licence is known.
    pub evidence: Evidence,
    /// Identifier -> digest of the text.
    pub license_texts: BTreeMap<String, Digest>,
    /// The texts that lie beside the material.
    pub texts: BTreeMap<Digest, String>,
    /// What must be kept when it is passed on.
    pub notices: BTreeSet<String>,
}

/// How the names of files with licence texts begin, in any case.
const LICENSE_FILES: [&str; 5] = ["license", "licence", "copying", "unlicense", "use_policy"];
/// The folder of licence texts, one a file (REUSE).
const LICENSE_FOLDER: &str = "LICENSES";
/// What such a file is not, by its ending.
const OTHER_ENDINGS: [&str; 8] = ["json", "yaml", "yml", "toml", "py", "spdx", "xml", "sig"];
/// The file names of notices.
const NOTICE_FILES: [&str; 3] = ["NOTICE", "NOTICE.txt", "NOTICE.md"];
/// The largest licence text or notice that is read.
const TEXT_BYTES_MAX: u64 = 1 << 20;

impl Terms {
    /// The terms of material: what is declared, held against the text that lies beside it. `file` was named by the
    /// user; in `folder`, the usual names are looked for.
    ///
    /// # Errors
    /// If the text is that of another licence, is not known though it was named, or cannot be read.
    pub fn find(declared: Option<&License>, file: Option<&Path>, folder: Option<&Path>) -> Result<Self> {
        let mut terms = Terms {
            license: declared.cloned(),
            evidence: Evidence::Declared,
            license_texts: Component::new("", ComponentKind::Datasets, declared.cloned(), Evidence::Declared)
                .license_texts,
            texts: BTreeMap::new(),
            notices: BTreeSet::new(),
        };
        let beside = |names: &[&str]| {
            names
                .iter()
                .map(|name| folder.map(|folder| folder.join(name)))
                .find_map(|path| path.filter(|p| p.is_file()))
        };
        match (file, folder) {
            (Some(path), _) => terms.read_license(path, true)?,
            (None, Some(folder)) => terms.read_all(folder)?,
            (None, None) => {}
        }
        // What an export wrote says the same in narthex.json.
        let has_papers = folder.is_some_and(|folder| folder.join("narthex.json").is_file());
        if let Some(path) = beside(&NOTICE_FILES).filter(|_| !has_papers) {
            terms.notices.insert(read_text(&path)?.trim().to_string());
        }
        Ok(terms)
    }

    /// Takes up the licence texts in the files of a folder: all of them hold. Where nothing is declared and one is not
    /// known, none is.
    fn read_all(&mut self, folder: &Path) -> Result<()> {
        let mut paths = license_files(folder);
        if self.license.is_none() {
            // Of texts in a folder of their own, one of which may be that of what is declared, all are meant here.
            // Those of an export are those of its components, each of which its papers name.
            if !folder.join("narthex.json").is_file() {
                paths.extend(texts_in(&folder.join(LICENSE_FOLDER)));
            }
            let mut all: Vec<License> = Vec::new();
            for path in &paths {
                let Some(found) = license::recognise(&read_text(path)?).unchanged() else { return Ok(()) };
                if !all.iter().any(|known| known.is(&found)) {
                    all.push(found);
                }
            }
            self.license = match all.as_slice() {
                [] => return Ok(()),
                [one] => Some(one.clone()),
                several => {
                    let parts: Vec<String> = several.iter().map(|license| format!("({license})")).collect();
                    Some(License::parse(&parts.join(" AND "))?)
                }
            };
        }
        paths.iter().try_for_each(|path| self.read_license(path, false))
    }

    /// Takes up the licence text in a file. Texts that are not known count only where the user names the file.
    fn read_license(&mut self, path: &Path, named: bool) -> Result<()> {
        let text = read_text(path)?;
        let found = license::recognise(&text);
        let unchanged = found.unchanged();
        let unknown = |license: &License| license.ids().into_iter().find(|id| license::text_of(id).is_none());
        // The licences whose text this is, among those that are declared.
        let ids = match (&self.license, &unchanged) {
            (None, Some(license)) => {
                self.license = Some(license.clone());
                self.evidence = Evidence::Text;
                license.ids()
            }
            (None, None) => {
                if !named {
                    return Ok(());
                }
                let difference = found.difference();
                let error = Error::input("the text in this file is no licence that is known").at(path.display(), None);
                let error = difference.into_iter().fold(error, Error::cause);
                return Err(error.help(
                    "read it, and say what it is: `license = \"LicenseRef-NAME\"` keeps it with its text; an SPDX identifier says \
                     that it is that licence",
                ));
            }
            (Some(license), Some(text)) => {
                let declared = license.ids();
                let covers = |id: &String| declared.iter().any(|known| same_text(known, id));
                if !text.ids().iter().all(covers) {
                    return Err(Error::input(format!(
                        "this is the text of {text}, but the material is declared as {license}"
                    ))
                    .at(path.display(), None)
                    .cause("what others have licensed cannot be put under other terms")
                    .help(format!("declare it as it is: `license = \"{text}\"`")));
                }
                self.evidence = Evidence::Text;
                declared.into_iter().filter(|known| text.ids().iter().any(|id| same_text(known, id))).collect()
            }
            // A text of somebody's own belongs to the one licence that has no known text.
            (Some(license), None) => match (unknown(license), found.difference()) {
                (Some(id), _) => vec![id],
                (None, None) if !named => return Ok(()),
                (None, difference) => {
                    let error = Error::input(format!("the text in this file is not that of {license}"))
                        .at(path.display(), None);
                    return Err(match difference {
                        Some(difference) => error.cause(difference).help(
                            "read it: where it says more or less than the licence, name it `license = \"LicenseRef-NAME\"`",
                        ),
                        None => error
                            .help("leave `license_file` out: the text of known licences is carried along anyway"),
                    });
                }
            },
        };
        let digest = Digest::of(text.as_bytes());
        for id in ids {
            // Of several texts of somebody's own the first is that of the licence.
            if unchanged.is_none() && self.license_texts.contains_key(&id) {
                continue;
            }
            self.license_texts.insert(id.clone(), digest);
            if license::text_of(&id) != Some(text.as_str()) {
                self.texts.insert(digest, text.clone());
            }
        }
        Ok(())
    }
}

/// Why the licence text in a folder was not taken for the one that it resembles, if it was not.
pub fn unread_license(folder: &Path) -> Option<String> {
    license_files(folder).iter().find_map(|path| {
        let difference = license::recognise(&read_text(path).ok()?).difference()?;
        Some(format!("the text in {} is no licence that is known: {difference}", path.display()))
    })
}

/// The files of a folder that may be texts, in the order of their names.
fn texts_in(folder: &Path) -> Vec<PathBuf> {
    let is_text = |path: &PathBuf| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        path.is_file() && !OTHER_ENDINGS.contains(&ending.as_str())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(is_text).collect();
    files.sort();
    files
}

/// The files with licence texts that lie in a folder itself.
fn license_files(folder: &Path) -> Vec<PathBuf> {
    let is_named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let rest = LICENSE_FILES.iter().find_map(|beginning| name.strip_prefix(beginning));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '_']))
    };
    texts_in(folder).into_iter().filter(is_named).collect()
}

/// Whether two identifiers stand for one text: `GPL-3.0-or-later` and `GPL-3.0-only` do.
fn same_text(a: &str, b: &str) -> bool {
    let base = |id: &str| id.trim_end_matches("-only").trim_end_matches("-or-later").trim_end_matches('+').to_string();
    base(a) == base(b)
}

fn read_text(path: &Path) -> Result<String> {
    let fail = |error| Error::io("cannot read", path, error);
    if std::fs::metadata(path).map_err(fail)?.len() > TEXT_BYTES_MAX {
        return Err(Error::input("this is too long for a licence or a notice").at(path.display(), None));
    }
    Ok(license::decode(&std::fs::read(path).map_err(fail)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_held_against_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let mit = license::text_of("MIT").unwrap().replace("<year> <copyright holders>", "2015 A");
        let file = folder.path().join("LICENSE");
        std::fs::write(folder.path().join("NOTICE"), "Keep this\n").unwrap();
        let check = |declared: Option<&str>, text: &str, named: bool| {
            std::fs::write(&file, text).unwrap();
            let declared = declared.map(|id| License::parse(id).unwrap());
            Terms::find(declared.as_ref(), named.then_some(file.as_path()), Some(folder.path()))
        };
        let found = check(None, &mit, false).unwrap();
        assert_eq!((found.license.unwrap().as_str(), found.evidence), ("MIT", Evidence::Text));
        assert_eq!(found.texts.values().collect::<Vec<_>>(), [&mit], "the copyright line is kept");
        assert_eq!(found.notices, BTreeSet::from(["Keep this".to_string()]));
        // Of several texts all hold, whatever the files are called; one that nobody knows leaves nothing known.
        let by_nc = license::text_of("CC-BY-NC-4.0").unwrap();
        for name in ["COPYING", "license-data.md", "LICENSES/CC-BY-NC-4.0.txt"] {
            let second = folder.path().join(name);
            std::fs::create_dir_all(second.parent().unwrap()).unwrap();
            std::fs::write(&second, by_nc).unwrap();
            let found = check(None, &mit, false).unwrap();
            let both: BTreeSet<String> = found.license.unwrap().ids().into_iter().collect();
            assert_eq!(both, BTreeSet::from(["CC-BY-NC-4.0".to_string(), "MIT".into()]), "{name}");
            match check(Some("MIT"), &mit, false) {
                // One of the texts there may well be that of what is declared.
                Ok(found) => assert_eq!((name.starts_with("LICENSES"), found.license.unwrap().as_str()), (true, "MIT")),
                Err(error) => assert!(error.what().contains("this is the text of CC-BY-NC-4.0"), "{error}"),
            }
            std::fs::write(&second, "Do as you are told.").unwrap();
            assert_eq!(check(None, &mit, false).unwrap().license, None, "{name}");
            std::fs::remove_file(&second).unwrap();
        }
        let found = check(Some("Apache-2.0 OR MIT"), &mit, false).unwrap();
        assert_eq!((found.license_texts["MIT"], found.license_texts.len()), (Digest::of(mit.as_bytes()), 2));
        let found = check(Some("LicenseRef-mine"), "You may look at this.", true).unwrap();
        assert_eq!(found.texts.len(), 1);
        let changed = format!("{mit}\nFor research only.\n");
        assert_eq!(
            check(Some("LicenseRef-mine"), &changed, false).unwrap().texts.values().collect::<Vec<_>>(),
            [&changed]
        );
        assert!(check(None, &changed, false).unwrap().license.is_none());
        let note = unread_license(folder.path()).unwrap();
        assert!(
            note.contains("LICENSE") && note.ends_with("beside the text of MIT it says `For research only`"),
            "{note}"
        );
        let both = format!("{mit}\n{}", license::text_of("Apache-2.0").unwrap());
        assert_eq!(check(None, &both, false).unwrap().license.unwrap().as_str(), "MIT AND Apache-2.0");
        let found = check(Some("MIT OR Apache-2.0"), &both, false).unwrap();
        assert_eq!((found.evidence, found.license_texts.len(), found.texts.len()), (Evidence::Text, 2, 1));
        assert!(check(None, "You may look at this.", false).unwrap().license.is_none());
        for (declared, text, named, expected) in [
            (Some("CC0-1.0"), mit.as_str(), false, "this is the text of MIT, but the material is declared as CC0-1.0"),
            (None, "You may look at this.", true, "no licence that is known"),
            (Some("MIT"), "You may look at this.", true, "is not that of MIT"),
            (None, &changed, true, "no licence that is known"),
            (Some("MIT"), &changed, false, "is not that of MIT"),
            (Some("MIT"), &both, false, "this is the text of MIT AND Apache-2.0, but"),
        ] {
            let error = check(declared, text, named).err().unwrap();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
