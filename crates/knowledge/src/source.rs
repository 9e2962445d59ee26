//! The files of a source: which of them are wanted, in the order of their names. Knows names, not contents.

use crate::kind::FileKind;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use narthex_base::{Error, License, Result};
use std::path::PathBuf;

/// Material that knowledge is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name: in messages, and in what is kept of licences.
    pub name: String,
    /// The files: where each lies, and what it is cited as (`docs/guide/install.md`).
    pub files: Vec<(PathBuf, String)>,
    /// The licence of the material, if declared.
    pub license: Option<License>,
    /// What must be kept when the material is passed on.
    pub notices: Vec<String>,
    /// Where it comes from.
    pub origin: Option<String>,
}

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is cited as.
    pub name: String,
    pub kind: FileKind,
}

/// Which files are wanted, by what they are cited as.
pub(crate) struct Wanted {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Wanted {
    /// # Errors
    /// If a glob is none.
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        let include = if include.is_empty() { None } else { Some(globs(include)?) };
        Ok(Self { include, exclude: globs(exclude)? })
    }

    fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(name)) && !self.exclude.is_match(name)
    }
}

/// A set of globs; `*` stays inside of one folder, `**` does not.
///
/// # Errors
/// If one of them is none.
pub(crate) fn globs(globs: &[String]) -> Result<GlobSet> {
    let wrong = |error: globset::Error| {
        Error::input(format!("`{}` is not a glob", error.glob().unwrap_or_default()))
            .cause(error.kind())
            .help("globs look like `guide/**/*.md`")
    };
    let glob =
        |text: &String| -> Result<Glob> { GlobBuilder::new(text).literal_separator(true).build().map_err(wrong) };
    let mut set = GlobSetBuilder::new();
    for text in globs {
        set.add(glob(text)?);
    }
    set.build().map_err(wrong)
}

/// The files of a source that are wanted, in the order of their names: those that can be read, and the names of those
/// of no kind that is.
pub(crate) fn files(source: &Source, wanted: &Wanted) -> (Vec<SourceFile>, Vec<String>) {
    let mut files: Vec<&(PathBuf, String)> = source.files.iter().filter(|(_, name)| wanted.takes(name)).collect();
    files.sort_by(|a, b| a.1.cmp(&b.1));
    let (mut found, mut unread) = (vec![], vec![]);
    for (path, name) in files {
        match FileKind::of_name(name) {
            Some(kind) => found.push(SourceFile { path: path.clone(), name: name.clone(), kind }),
            None => unread.push(name.clone()),
        }
    }
    (found, unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_files_in_order() {
        let named = |name: &str| (PathBuf::from("/files").join(name), name.to_string());
        let names = ["b.md", "a/z.txt", "a/b/c.html", "a.md", "x.bin", "drafts/d.md", "ä.md"];
        let source = Source {
            name: "s".into(),
            files: names.into_iter().map(named).collect(),
            license: None,
            notices: vec![],
            origin: None,
        };
        let check = |include: &[&str], exclude: &[&str], expected: &[&str], left: &[&str]| {
            let owned = |globs: &[&str]| globs.iter().map(|glob| glob.to_string()).collect::<Vec<_>>();
            let wanted = Wanted::new(&owned(include), &owned(exclude)).unwrap();
            let (found, unread) = files(&source, &wanted);
            let found: Vec<&str> = found.iter().map(|file| file.name.as_str()).collect();
            assert_eq!(
                (found.as_slice(), unread.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                (expected, left)
            );
        };
        check(&[], &[], &["a.md", "a/b/c.html", "a/z.txt", "b.md", "drafts/d.md", "ä.md"], &["x.bin"]);
        check(&["*.md"], &[], &["a.md", "b.md", "ä.md"], &[]);
        check(&["**/*.md"], &["drafts/**"], &["a.md", "b.md", "ä.md"], &[]);
        check(&["a/**"], &["a/b/**"], &["a/z.txt"], &[]);
        assert!(Wanted::new(&["[".into()], &[]).err().unwrap().what().contains("`[` is not a glob"));
    }
}
