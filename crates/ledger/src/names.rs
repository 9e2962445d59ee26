//! Names of artifacts: setting them, their history, and finding an artifact by what a user types.

use crate::{
    artifact::Artifact,
    catalog::{ArtifactRow, RefRow},
    disk,
    open::Ledger,
};
use narthex_base::{Digest, Error, Result, error::nearest};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The fewest hexadecimal digits that stand for an artifact by themselves.
pub const MIN_PREFIX_DIGITS: usize = 4;

/// The longest name.
const MAX_NAME_BYTES: usize = 120;

/// The most candidates that an error lists.
const MAX_LISTED: usize = 8;

/// Refuses a name that would not be one file name, or that `@` and digests make ambiguous.
///
/// # Errors
/// If it is one: the rules are named.
pub fn check(name: &str) -> Result<()> {
    let is_fit = |c: char| !c.is_control() && !c.is_whitespace() && !['/', '\\', '@', ':'].contains(&c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.chars().all(is_fit) {
        return Err(Error::input(format!("`{name}` cannot be a name"))
            .cause(format!("a name has 1 to {MAX_NAME_BYTES} bytes, no spaces, none of / \\ @ :, and no dot in front"))
            .help("use letters, digits and hyphens, as in `bard-chat`"));
    }
    Ok(())
}

impl Ledger {
    /// Makes a name point to an artifact. Earlier ones stay in the name's history. To be called with
    /// the lock held.
    ///
    /// # Errors
    /// If the name is not fit to be one, or there is no such artifact.
    pub fn set_ref(&self, name: &str, digest: Digest) -> Result<()> {
        check(name)?;
        if name.parse::<Digest>().is_ok() {
            return Err(Error::input(format!("`{name}` looks like a digest")).help("use a word as the name"));
        }
        self.get(digest)?;
        let mut history = self.read_ref(name)?;
        if history.last().is_some_and(|row| row.digest == digest) {
            return self.catalog.put_ref(name, &history);
        }
        history.push(RefRow { digest, at_ms: self.next_ms() });
        self.write_ref(name, &history)
    }

    fn ref_file(&self, name: &str) -> PathBuf {
        self.root().join("refs").join(name)
    }

    /// Makes this the history of a name; an empty one removes it.
    pub(crate) fn write_ref(&self, name: &str, history: &[RefRow]) -> Result<()> {
        if history.is_empty() {
            disk::remove(&self.ref_file(name))?;
        } else {
            let text: String = history.iter().map(|row| format!("{} {}\n", row.digest, row.at_ms)).collect();
            disk::replace(&self.ref_file(name), text.as_bytes(), &self.tmp())?;
        }
        self.catalog.put_ref(name, history)
    }

    /// The history of a name as its file has it, oldest first.
    pub(crate) fn read_ref(&self, name: &str) -> Result<Vec<RefRow>> {
        let path = self.ref_file(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(Error::io("cannot read", path, error)),
        };
        let mut history = Vec::new();
        for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let row = line.split_once(' ').and_then(|(digest, at_ms)| {
                Some(RefRow { digest: digest.parse().ok()?, at_ms: at_ms.trim().parse().ok()? })
            });
            match row {
                Some(row) => history.push(row),
                None => self.warn(format!("{}:{}: not a digest and a time: passed over", path.display(), index + 1)),
            }
        }
        Ok(history)
    }

    /// Every name with its history as the files have it, oldest first.
    pub(crate) fn read_refs(&self) -> Result<BTreeMap<String, Vec<RefRow>>> {
        let mut refs = BTreeMap::new();
        for name in disk::names_in(&self.root().join("refs"))? {
            if check(&name).is_ok() {
                refs.insert(name.clone(), self.read_ref(&name)?);
            }
        }
        Ok(refs)
    }

    /// Brings the catalog's names up to date with the files.
    pub(crate) fn index_refs(&self) -> Result<()> {
        let mut known: BTreeMap<String, Vec<RefRow>> = BTreeMap::new();
        for (name, row) in self.catalog.refs()? {
            known.entry(name).or_default().push(row);
        }
        let stored = self.read_refs()?;
        for (name, history) in &stored {
            if known.get(name).is_none_or(|rows| rows != history) {
                self.catalog.put_ref(name, history)?;
            }
        }
        for name in known.keys().filter(|name| !stored.contains_key(*name)) {
            self.catalog.put_ref(name, &[])?;
        }
        Ok(())
    }

    /// Finds an artifact by a name (`bard`), a name and the beginning of a digest (`bard@3f2a`, which
    /// also finds earlier ones of that name), or the beginning of a digest (at least
    /// [`MIN_PREFIX_DIGITS`] digits).
    ///
    /// # Errors
    /// If nothing or more than one artifact fits; the error lists what is near.
    pub fn resolve(&self, reference: &str) -> Result<Artifact> {
        if let Some((name, prefix)) = reference.split_once('@') {
            return self.resolve_earlier(name, prefix);
        }
        if let Some(current) = self.catalog.ref_history(reference)?.last() {
            return self.get(current.digest).map_err(|error| match self.find(current.digest) {
                Ok(None) => error.context(format!("the artifact that `{reference}` points to is gone")),
                _ => error,
            });
        }
        if !is_prefix(reference, MIN_PREFIX_DIGITS) {
            return Err(self.unknown(reference)?);
        }
        let found = self.catalog.artifacts_with_prefix(&reference.to_ascii_lowercase(), MAX_LISTED + 1)?;
        match found.as_slice() {
            [] => Err(self.unknown(reference)?),
            [one] => self.get(one.digest),
            many => Err(ambiguous(reference, many)),
        }
    }

    fn resolve_earlier(&self, name: &str, prefix: &str) -> Result<Artifact> {
        if !is_prefix(prefix, 1) {
            return Err(Error::input(format!("`{prefix}` is not the beginning of a digest")).help(format!(
                "write hexadecimal digits after the `@`, as `narthex ls` shows them; `{name}` alone is the newest"
            )));
        }
        let prefix = prefix.to_ascii_lowercase();
        let history = self.catalog.ref_history(name)?;
        let made = self.catalog.artifacts_of_step(name)?;
        if history.is_empty() && made.is_empty() {
            return Err(self.unknown(name)?);
        }
        let of_name = |digest: &Digest| history.iter().any(|row| row.digest == *digest);
        let mut found = made;
        for row in self.catalog.artifacts_with_prefix(&prefix, disk::MAX_FILES)? {
            if of_name(&row.digest) && found.iter().all(|other| other.digest != row.digest) {
                found.push(row);
            }
        }
        found.retain(|row| row.digest.to_string().starts_with(&prefix));
        match found.as_slice() {
            [one] => self.get(one.digest),
            [] => {
                let removed = history.iter().any(|row| row.digest.to_string().starts_with(&prefix));
                let error = Error::input(format!("`{name}` has no artifact that begins with {prefix}"));
                let error = if removed { error.cause("it had one, which is no longer in the store") } else { error };
                Err(error.help("list what there is: `narthex ls`"))
            }
            many => Err(ambiguous(&format!("{name}@{prefix}"), many)),
        }
    }

    /// The error for a reference that nothing fits, with what is near.
    fn unknown(&self, reference: &str) -> Result<Error> {
        let mut names: Vec<String> = self.catalog.refs()?.into_iter().map(|(name, _)| name).collect();
        names.dedup();
        let error = Error::input(format!("there is no artifact `{reference}`"));
        Ok(match nearest(reference, names.iter().map(String::as_str)) {
            Some(near) => error.help(format!("did you mean `{near}`? all names: `narthex ls`")),
            None if names.is_empty() => error.help("nothing has been made yet: `narthex run`"),
            None => {
                let some = names.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
                let more = if names.len() > MAX_LISTED { ", …" } else { "" };
                error.cause(format!("the names here: {some}{more}")).help("list what there is: `narthex ls`")
            }
        })
    }
}

fn is_prefix(text: &str, min_digits: usize) -> bool {
    (min_digits..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn ambiguous(reference: &str, rows: &[ArtifactRow]) -> Error {
    let mut error = Error::input(format!("`{reference}` fits more than one artifact"));
    for row in rows.iter().take(MAX_LISTED) {
        error = error.cause(format!("{} {} `{}`", row.digest.short(), row.kind, row.step));
    }
    if rows.len() > MAX_LISTED {
        error = error.cause("and more");
    }
    error.help("write more digits of the one you mean; `narthex ls` shows them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Project;

    #[test]
    fn finds_by_name_history_and_prefix() {
        let project = Project::new();
        let ledger = project.ledger();
        let old = project.commit("bard", &[], &[("w", "1")]);
        let new = project.commit("bard", &[], &[("w", "2")]);
        let other = project.commit("data", &[], &[("w", "3")]);
        for (name, artifact) in [("bard", &old), ("bard", &new), ("data", &other), ("copy", &old)] {
            ledger.set_ref(name, artifact.digest).unwrap();
        }
        let full = old.digest.to_string();
        for (reference, expected) in [
            ("bard".to_string(), &new),
            ("copy".into(), &old),
            (format!("bard@{}", &full[..8]), &old),
            (format!("copy@{}", &full[..8]), &old),
            (format!("bard@{}", new.digest.short()), &new),
            (full.clone(), &old),
            (full[..10].to_string(), &old),
            (full[..10].to_uppercase(), &old),
        ] {
            assert_eq!(ledger.resolve(&reference).unwrap().digest, expected.digest, "{reference}");
        }
        let foreign = format!("bard@{}", other.digest.short());
        for (reference, what, help) in [
            ("brad", "no artifact `brad`", "did you mean `bard`"),
            ("something-else", "no artifact", "narthex ls"),
            ("abc", "no artifact", "narthex ls"),
            ("brad@12", "no artifact `brad`", "did you mean `bard`"),
            ("bard@", "not the beginning of a digest", "hexadecimal"),
            ("bard@xyz", "not the beginning of a digest", "hexadecimal"),
            (&foreign, "`bard` has no artifact that begins", "narthex ls"),
            ("", "no artifact", "narthex ls"),
        ] {
            let error = ledger.resolve(reference).unwrap_err();
            assert!(error.what().contains(what), "{reference}: {error}");
            assert!(error.help_text().unwrap().contains(help), "{reference}: {error}");
        }
    }

    #[test]
    fn an_ambiguous_prefix_lists_the_candidates() {
        let project = Project::new();
        let ledger = project.ledger();
        // 33 artifacts of one step: two of them share their first digit, whatever the digests are.
        let made: Vec<_> = (0..33).map(|i| project.commit("bard", &[], &[("w", &i.to_string())])).collect();
        let first = made[0].digest.to_string();
        let twins = made.iter().filter(|artifact| artifact.digest.to_string()[..1] == first[..1]).count();
        let letter = made
            .iter()
            .map(|artifact| artifact.digest.to_string()[..1].to_string())
            .find(|letter| made.iter().filter(|a| a.digest.to_string().starts_with(letter.as_str())).count() > 2)
            .unwrap();
        let error = ledger.resolve(&format!("bard@{letter}")).unwrap_err();
        assert!(error.what().contains("more than one"), "{error}");
        assert!(error.causes().iter().all(|cause| cause.starts_with(&letter) || cause == "and more"), "{error}");
        assert!(error.causes().len() >= 3 && error.causes()[0].contains("`bard`"), "{error}");
        assert!(twins >= 1);
        // A bare prefix: rows alone decide, so that four digits can be made to agree.
        let row = ledger.catalog.artifacts().unwrap().remove(0);
        for end in ["0", "1"] {
            let digest = format!("abcd{}{end}", "0".repeat(59)).parse().unwrap();
            ledger.catalog.put_artifact(&ArtifactRow { digest, ..row.clone() }).unwrap();
        }
        let error = ledger.resolve("abcd").unwrap_err();
        assert!(error.what().contains("more than one"), "{error}");
        assert_eq!(error.causes().len(), 2, "{error}");
    }

    #[test]
    fn names_are_checked_and_repeats_add_no_history() {
        let project = Project::new();
        let ledger = project.ledger();
        let made = project.commit("bard", &[], &[("w", "1")]);
        for name in ["", ".hidden", "a/b", "a@b", "a b", "..", "x\n", &"x".repeat(200), &"ab".repeat(32)] {
            assert!(ledger.set_ref(name, made.digest).is_err(), "{name:?}");
        }
        for name in ["bard", "bard-chat", "a.b_c", "Ä"] {
            ledger.set_ref(name, made.digest).unwrap();
            ledger.set_ref(name, made.digest).unwrap();
            assert_eq!(ledger.read_ref(name).unwrap().len(), 1);
        }
        assert!(ledger.set_ref("bard", Digest::of(b"nothing")).is_err());
        std::fs::remove_dir_all(&made.folder).unwrap();
        let error = ledger.resolve("bard").unwrap_err();
        assert!(error.what().contains("`bard` points to is gone"), "{error}");
    }

    #[test]
    fn a_broken_line_is_passed_over_with_a_warning() {
        let mut project = Project::new();
        let made = project.commit("bard", &[], &[("w", "1")]);
        project.ledger().set_ref("bard", made.digest).unwrap();
        let path = project.root().join("refs/bard");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}nonsense\n")).unwrap();
        project.reopen();
        assert_eq!(project.ledger().resolve("bard").unwrap().digest, made.digest);
        assert!(project.ledger().take_warnings()[0].contains("refs/bard:2"));
    }
}
