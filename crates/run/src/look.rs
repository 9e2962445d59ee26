//! What data looks like from near: the rows of a source or a step as they were understood, and the tokens of
//! documents with those that are learnt. Changes nothing.

use crate::{project::Project, source};
use narthex_base::{ArtifactKind, Error, Observer, Result};
use narthex_data::{Preview, Tables, preview, read_chats, read_pairs, read_records, read_texts};
use narthex_ledger::Artifact;
use narthex_text::{TokenShard, Tokenizer};
use serde::Serialize;
use serde_json::{Value, json};

/// A part of a document in tokens: of one kind, learnt or only read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenRun {
    /// Whether a model that is trained on it learns it.
    pub learnt: bool,
    /// The text.
    pub text: String,
    /// The token ids.
    pub ids: Vec<u32>,
}

/// Which documents of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// `train` or `validation`.
    pub part: &'a str,
    /// The first, from 0.
    pub first: usize,
    /// How many at most.
    pub count: usize,
}

/// A source of a project as it was understood.
///
/// # Errors
/// If there is no such source, it is a model, or a file can't be read.
pub fn source_preview(project: &Project, name: &str, rows: usize, observer: Observer) -> Result<Preview> {
    let found = project.plan.sources.get(name).ok_or_else(|| Error::input(format!("there is no source `{name}`")))?;
    preview(&source::spec(project, name, found)?, rows, observer)
}

/// Sources and data steps of a project as tables that can be asked.
///
/// # Errors
/// If there is no such source or step, it holds no rows or is not made yet, or a file can't be read.
pub fn tables(project: &Project, names: &[String], observer: Observer) -> Result<Tables> {
    let spec = |name: &String| match project.plan.sources.get(name) {
        Some(source) => source::spec(project, name, source),
        None => {
            let artifact = project
                .ledger
                .resolve(name)
                .map_err(|error| error.context(format!("there is no source `{name}`, and no data of that name")))?;
            let found = source::of_artifact(name, &artifact);
            if found.files.is_empty() {
                return Err(Error::input(format!(
                    "`{name}` holds no rows: it is of the kind {}",
                    artifact.manifest.kind
                ))
                .help("name a source, or a `data` step"));
            }
            Ok(found)
        }
    };
    Tables::open(names.iter().map(spec).collect::<Result<_>>()?, observer)
}

/// Documents of a `tokenize` step, each as runs of tokens that are learnt or not, and how many there are.
///
/// # Errors
/// If the artifact holds no tokens, or not in this part.
pub fn token_documents(artifact: &Artifact, range: Range) -> Result<(Vec<Vec<TokenRun>>, usize)> {
    if artifact.manifest.kind != ArtifactKind::Tokens {
        return Err(Error::input(format!(
            "`{}` holds no tokens: it is of the kind {}",
            artifact.name(),
            artifact.manifest.kind
        ))
        .help("name a `tokenize` step, or leave `--tokens` out to see rows"));
    }
    let path = artifact.path(&format!("{}.tokens", range.part));
    if !path.is_file() {
        return Err(Error::input(format!("`{}` has no {} part", artifact.name(), range.part)));
    }
    let (tokenizer, shard) = (Tokenizer::read(&artifact.folder)?, TokenShard::open(&path)?);
    let last = shard.documents().min(range.first.saturating_add(range.count));
    let documents = (range.first..last).map(|document| {
        let mut runs: Vec<(bool, Vec<u32>)> = Vec::new();
        for position in shard.document_range(document) {
            let learnt = !shard.has_mask() || shard.mask(position);
            match runs.last_mut().filter(|(known, _)| *known == learnt) {
                Some((_, ids)) => ids.push(shard.get(position)),
                None => runs.push((learnt, vec![shard.get(position)])),
            }
        }
        let run = |(learnt, ids): (bool, Vec<u32>)| Ok(TokenRun { learnt, text: tokenizer.decode(&ids, false)?, ids });
        runs.into_iter().map(run).collect::<Result<Vec<TokenRun>>>()
    });
    Ok((documents.collect::<Result<_>>()?, shard.documents()))
}

/// Rows of a `data` step.
///
/// # Errors
/// If the artifact holds no rows, or not in this part.
pub fn data_rows(artifact: &Artifact, range: Range) -> Result<Vec<Value>> {
    let path = artifact.path(&format!("{}.parquet", range.part));
    let kind = artifact.manifest.kind;
    let has_rows =
        [ArtifactKind::Documents, ArtifactKind::Chat, ArtifactKind::Pairs, ArtifactKind::Rows].contains(&kind);
    if !has_rows {
        return Err(Error::input(format!("`{}` holds no rows: it is of the kind {kind}", artifact.name()))
            .help("name a source, a `data` step, or, with `--tokens`, a `tokenize` step"));
    }
    if !path.is_file() {
        return Err(Error::input(format!("`{}` has no {} part", artifact.name(), range.part)));
    }
    fn taken<T: Serialize>(rows: impl Iterator<Item = Result<T>>, range: Range) -> Result<Vec<Value>> {
        rows.skip(range.first).take(range.count).map(|row| row.map(|row| json!(row))).collect()
    }
    match kind {
        ArtifactKind::Chat => taken(read_chats(&path)?, range),
        ArtifactKind::Pairs => taken(read_pairs(&path)?, range),
        ArtifactKind::Rows => taken(read_records(&path)?, range),
        _ => taken(read_texts(&path)?, range),
    }
}
