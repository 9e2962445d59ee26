//! How repositories are named: `hf:org/name[@revision]`, `hf:datasets/org/name[@revision]`; and the addresses made of
//! that.

use narthex_base::{Error, Result};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// A repository of a model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of the Hub, and perhaps a revision of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoSpec {
    /// What it holds.
    pub kind: RepoKind,
    /// `org/name`; a few old ones have only a name.
    pub id: String,
    /// A branch, a tag or a commit; `main` if none is given.
    pub revision: String,
}

/// The longest part of a repository's name, and the longest revision.
const NAME_BYTES_MAX: usize = 96;
const REVISION_BYTES_MAX: usize = 200;

impl RepoSpec {
    /// Reads `hf:[datasets/]org/name[@revision]`.
    ///
    /// # Errors
    /// If it is written otherwise.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(format!("`{text}` {what}"))
                .help("write `hf:ORG/NAME`, `hf:ORG/NAME@REVISION` or `hf:datasets/ORG/NAME`")
        };
        let Some(rest) = text.strip_prefix("hf:") else {
            return Err(wrong("is not a repository of the Hugging Face Hub"));
        };
        let (path, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let (kind, id) = match path.strip_prefix("datasets/") {
            Some(id) => (RepoKind::Dataset, id),
            None => (RepoKind::Model, path.strip_prefix("models/").unwrap_or(path)),
        };
        if !is_id(id) {
            return Err(wrong("names no repository"));
        }
        if !is_revision(revision) {
            return Err(wrong("has no revision that git takes"));
        }
        Ok(Self { kind, id: id.into(), revision: revision.into() })
    }

    /// The last part of the name.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }

    /// `org/name`, for data sets `datasets/org/name`: the path of its page.
    pub fn page(&self) -> String {
        match self.kind {
            RepoKind::Model => self.id.clone(),
            RepoKind::Dataset => format!("datasets/{}", self.id),
        }
    }

    /// `hf:org/name`, as it is written without a revision.
    pub fn origin(&self) -> String {
        format!("hf:{}", self.page())
    }

    /// `models` or `datasets`, as the API has it.
    pub(crate) fn collection(&self) -> &'static str {
        match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }

    /// `models--org--name`: its folder in caches.
    pub(crate) fn cache_folder(&self) -> String {
        format!("{}--{}", self.collection(), self.id.replace('/', "--"))
    }
}

/// Whether this can be the name of a repository: one or two parts of letters, digits, `-`, `_` and `.`.
pub(crate) fn is_id(id: &str) -> bool {
    let fits = |part: &str| {
        let known = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        known
            && !part.is_empty()
            && part.len() <= NAME_BYTES_MAX
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    id.split('/').count() <= 2 && id.split('/').all(fits)
}

/// Whether this can be a revision: git's rules for references, a little narrower.
fn is_revision(text: &str) -> bool {
    let fits = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && !part.ends_with(".lock")
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    text.len() <= REVISION_BYTES_MAX && text.chars().all(known) && !text.contains("..") && text.split('/').all(fits)
}

/// Whether this is a git commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A path or revision as a part of an address. `/` stays where `keep_slash` says so.
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slash && byte == b'/');
        match plain {
            true => encoded.push(char::from(byte)),
            false => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        for (text, expected) in [
            ("hf:org/name", Some(("hf:org/name", "main", "models--org--name"))),
            ("hf:gpt2", Some(("hf:gpt2", "main", "models--gpt2"))),
            ("hf:models/org/name@v1.0", Some(("hf:org/name", "v1.0", "models--org--name"))),
            ("hf:datasets/o-1/n_2.b@refs/pr/3", Some(("hf:datasets/o-1/n_2.b", "refs/pr/3", "datasets--o-1--n_2.b"))),
            ("org/name", None),
            ("hf:", None),
            ("hf:a/b/c", None),
            ("hf:../x", None),
            ("hf:a/..", None),
            ("hf:/name", None),
            ("hf:org/na me", None),
            ("hf:org/name@", None),
            ("hf:org/name@../../x", None),
            ("hf:org/name@a?b=c", None),
        ] {
            let found = RepoSpec::parse(text).ok();
            let found = found.as_ref().map(|spec| (spec.origin(), spec.revision.clone(), spec.cache_folder()));
            let expected = expected.map(|(origin, revision, folder)| (origin.into(), revision.into(), folder.into()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn parts_of_addresses() {
        assert_eq!(encode("a/b c#?ä.bin", true), "a/b%20c%23%3F%C3%A4.bin");
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
