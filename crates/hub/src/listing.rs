//! What a repository holds, as the Hub's API tells it. Every name is checked before it is used as a path.

use super::{
    Checksum, RepoKind, RepoSpec,
    address::{encode, is_commit, is_id},
    http::Client,
};
use narthex_base::{Error, Observer, Result, error::nearest};
use serde_json::Value;
use std::{collections::BTreeSet, path::PathBuf};
use ureq::http::HeaderMap;

/// Files that a repository may have.
pub(super) const FILES_MAX: usize = 10_000;
/// The longest path of a file, its longest part, and how deep it may lie.
const PATH_BYTES_MAX: usize = 1024;
const PART_BYTES_MAX: usize = 255;
pub(super) const DEPTH_MAX: usize = 16;
/// How much of what a server says goes into a message.
const MESSAGE_CHARS_MAX: usize = 300;
/// Names that an error suggests.
const SUGGESTIONS_MAX: usize = 5;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoFile {
    /// Its path with `/`.
    pub path: String,
    /// Its size, where it is told.
    pub bytes: Option<u64>,
    /// What its bytes must give, where it is told.
    pub checksum: Option<Checksum>,
    /// Where a cache holds it.
    pub cached: Option<PathBuf>,
}

impl RepoFile {
    /// A file of which only the name is known.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), bytes: None, checksum: None, cached: None }
    }
}

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The repository; where it was renamed, under the name that it has now.
    pub spec: RepoSpec,
    /// The commit that the revision stands for.
    pub commit: String,
    /// Its files, sorted.
    pub files: Vec<RepoFile>,
}

impl Listing {
    /// `hf:org/name@COMMIT`.
    pub fn origin(&self) -> String {
        format!("{}@{}", self.spec.origin(), self.commit)
    }
}

pub(super) fn online(client: &Client, spec: &RepoSpec, observer: Observer) -> Result<Listing> {
    let path = format!("/api/{}/{}/revision/{}?blobs=true", spec.collection(), spec.id, encode(&spec.revision, false));
    match client.json(&path, observer)? {
        Ok(value) => read(spec, &value).map_err(|error| error.context(format!("{} cannot be listed", spec.origin()))),
        Err((status, headers)) => Err(explain(client, spec, None, status, &headers, observer)),
    }
}

fn read(asked: &RepoSpec, value: &Value) -> Result<Listing> {
    let wrong =
        |what: &str| Error::input(format!("the answer is not that of the Hub's API: {what}")).help("check HF_ENDPOINT");
    let commit = value["sha"].as_str().filter(|sha| is_commit(sha)).ok_or_else(|| wrong("it names no commit"))?;
    if is_commit(&asked.revision) && asked.revision != commit {
        return Err(wrong("it is about another commit than was asked for"));
    }
    let id = value["id"].as_str().or(value["modelId"].as_str()).unwrap_or(&asked.id);
    if !is_id(id) {
        return Err(wrong("the repository's name is none"));
    }
    let siblings = value["siblings"].as_array().ok_or_else(|| wrong("it lists no files"))?;
    if siblings.len() > FILES_MAX {
        return Err(Error::input(format!("the repository has {} files, more than {FILES_MAX}", siblings.len())));
    }
    let mut files = Vec::new();
    for sibling in siblings {
        let path = sibling["rfilename"].as_str().ok_or_else(|| wrong("a file has no name"))?;
        check_path(path)?;
        let large = sibling["lfs"]["sha256"].as_str().or(sibling["lfs"]["oid"].as_str());
        let tag = large.or_else(|| sibling["blobId"].as_str().filter(|_| !sibling["lfs"].is_object()));
        files.push(RepoFile {
            path: path.into(),
            bytes: sibling["size"].as_u64().or(sibling["lfs"]["size"].as_u64()),
            checksum: tag.and_then(Checksum::from_tag),
            cached: None,
        });
    }
    files.sort();
    check_tree(&files)?;
    let spec = RepoSpec { id: id.into(), ..asked.clone() };
    Ok(Listing { spec, commit: commit.into(), files })
}

/// Refuses a name that is not that of a file inside a folder.
pub(super) fn check_path(path: &str) -> Result<()> {
    let is_reserved = |c: char| c.is_control() || ['\\', ':', '*', '?', '"', '<', '>', '|'].contains(&c);
    let fits = |part: &str| {
        !["", ".", "..", ".git"].contains(&part) && part.len() <= PART_BYTES_MAX && !part.ends_with([' ', '.'])
    };
    let depth = path.split('/').count();
    if path.len() <= PATH_BYTES_MAX && depth <= DEPTH_MAX && !path.contains(is_reserved) && path.split('/').all(fits) {
        return Ok(());
    }
    let shown: String = path.escape_debug().take(MESSAGE_CHARS_MAX).collect();
    Err(Error::input(format!("the repository has a file whose name is not taken: `{shown}`"))
        .cause("a file may neither leave its folder nor have a name that some systems cannot hold")
        .help("tell whoever keeps the repository; nothing was fetched"))
}

/// Refuses what no folder can hold: a name twice, or as a file and as a folder.
fn check_tree(files: &[RepoFile]) -> Result<()> {
    let names: BTreeSet<String> = files.iter().map(|file| file.path.to_lowercase()).collect();
    if names.len() < files.len() {
        return Err(Error::input("the repository has two files whose names differ in capitals alone, or not at all"));
    }
    for file in &names {
        let mut above = file.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            if names.contains(folder) {
                return Err(Error::input(format!("in the repository, `{folder}` is a file and a folder")));
            }
            above = folder;
        }
    }
    Ok(())
}

/// What a refusal means, and what to do about it.
pub(super) fn explain(
    client: &Client,
    spec: &RepoSpec,
    file: Option<&str>,
    status: u16,
    headers: &HeaderMap,
    observer: Observer,
) -> Error {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (code, origin) = (header("x-error-code"), spec.origin());
    let page = format!("{}/{}", client.base(), spec.page());
    let said: String = header("x-error-message").chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    let with_said = |error: Error| {
        let error = error.cause(format!("{} answers {status}", client.base()));
        if said.is_empty() { error } else { error.cause(&said) }
    };
    let token_page = "https://huggingface.co/settings/tokens";
    match (status, code) {
        (401 | 403, "GatedRepo") | (403, "") => with_said(Error::input(format!("{origin} is gated")))
            .help(format!("accept its licence at {page}, then set a token of {token_page}: `export HF_TOKEN=hf_…`")),
        (404, "RevisionNotFound") => with_said(Error::input(format!("{origin} has no revision `{}`", spec.revision)))
            .help(revisions(client, spec, observer)),
        (404, "EntryNotFound") => {
            with_said(Error::input(format!("{origin} has no file `{}` at this commit", file.unwrap_or("?"))))
                .help("run the same command again: the repository may have changed")
        }
        (401, _) if client.has_token() && code != "RepoNotFound" => {
            with_said(Error::input("the Hub does not accept the token")).help(format!("make a new one at {token_page}"))
        }
        (401 | 404, _) => {
            let private = "if it is private, set a token that may read it: `export HF_TOKEN=hf_…`";
            let help = match suggestions(client, spec, observer).as_slice() {
                [] => private.to_string(),
                names => format!("did you mean {}? {private}", names.join(", ")),
            };
            with_said(Error::input(format!("there is no {origin} that you may read"))).help(help)
        }
        _ => with_said(Error::input(match file {
            Some(file) => format!("`{file}` of {origin} cannot be fetched"),
            None => format!("{origin} cannot be listed"),
        }))
        .help(format!("look at {page}")),
    }
}

/// The names of repositories like this one.
fn suggestions(client: &Client, spec: &RepoSpec, observer: Observer) -> Vec<String> {
    let path = format!("/api/{}?search={}&limit={SUGGESTIONS_MAX}", spec.collection(), encode(spec.name(), false));
    let Ok(Ok(found)) = client.json(&path, observer) else { return vec![] };
    let prefix = if spec.kind == RepoKind::Dataset { "hf:datasets/" } else { "hf:" };
    let names = found.as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).filter(|id| is_id(id));
    names.take(SUGGESTIONS_MAX).map(|id| format!("`{prefix}{id}`")).collect()
}

/// The nearest branch or tag, in words.
fn revisions(client: &Client, spec: &RepoSpec, observer: Observer) -> String {
    let path = format!("/api/{}/{}/refs", spec.collection(), spec.id);
    let Ok(Ok(found)) = client.json(&path, observer) else { return "leave `@REVISION` out for the newest".into() };
    let of = |key: &str| {
        found[key].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect::<Vec<_>>()
    };
    let mut names = of("branches");
    names.extend(of("tags"));
    names.retain(|name| name.len() <= PART_BYTES_MAX && name.chars().all(|c| c.is_ascii_graphic()));
    match nearest(&spec.revision, names.iter().copied()) {
        Some(near) => format!("did you mean `{}@{near}`?", spec.origin()),
        None => format!("it has: {}", names.into_iter().take(SUGGESTIONS_MAX).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_and_harmless_names() {
        for path in ["a", "a/b.json", "1_Pooling/config.json", "ä b (c).txt", ".gitattributes", "a..b/c"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        let long = "x".repeat(256);
        let deep = "d/".repeat(16) + "x";
        for path in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "C:/x",
            "a\\b",
            "..\\x",
            "a\0b",
            "a\nb",
            ".git/config",
            "x/.git/hooks/a",
            "con.",
            "a /b",
            &long,
            &deep,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn answers() {
        let sha = "a".repeat(40);
        let file = |name: &str| json!({"rfilename": name, "size": 3, "blobId": "b".repeat(40)});
        let spec = |text: &str| RepoSpec::parse(text).unwrap();
        let check = |asked: &str, value: Value, expected: &str| match read(&spec(asked), &value) {
            Ok(listing) => assert_eq!(expected, format!("{} {}", listing.spec.origin(), listing.files.len())),
            Err(error) => assert!(error.what().contains(expected), "{error}"),
        };
        check("hf:o/n", json!({"id": "o/n", "sha": sha, "siblings": [file("a"), file("b/c")]}), "hf:o/n 2");
        check("hf:n", json!({"id": "o/n", "sha": sha, "siblings": []}), "hf:o/n 0");
        check("hf:o/n", json!({"id": "../x", "sha": sha, "siblings": []}), "name is none");
        check("hf:o/n", json!({"id": "o/n", "sha": "main", "siblings": []}), "no commit");
        check(&format!("hf:o/n@{}", "c".repeat(40)), json!({"sha": sha, "siblings": []}), "another commit");
        check("hf:o/n", json!({"sha": sha}), "lists no files");
        check("hf:o/n", json!({"sha": sha, "siblings": [{"size": 1}]}), "no name");
        check("hf:o/n", json!({"sha": sha, "siblings": [file("../a")]}), "not taken");
        check("hf:o/n", json!({"sha": sha, "siblings": [file("a"), file("A")]}), "capitals");
        check("hf:o/n", json!({"sha": sha, "siblings": [file("a"), file("a/b/c")]}), "a file and a folder");
        check("hf:o/n", json!({"sha": sha, "siblings": vec![file("a"); FILES_MAX + 1]}), "more than");
        let large = json!({"rfilename": "w", "size": 9, "blobId": "b".repeat(40), "lfs": {"sha256": "c".repeat(64), "size": 9}});
        let found = read(&spec("hf:o/n"), &json!({"sha": sha, "siblings": [large, file("a")]})).unwrap();
        assert_eq!(found.files[1].checksum, Some(Checksum::Sha256("c".repeat(64))));
        assert_eq!(found.files[0].checksum, Some(Checksum::Git("b".repeat(40))));
    }
}
