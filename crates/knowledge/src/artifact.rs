//! The folder that knowledge is kept in: which files it has, what they hold, how they are read back. Knows neither
//! encoders nor how passages are found.
//!
//! | file | holds |
//! |---|---|
//! | `knowledge.json` | settings, sources with licences, files with digests, and the digest of all passages |
//! | `passages.jsonl` | a passage a line |
//! | `vectors.f32` | a vector for each passage, where there is an encoder |
//! | `graph.u32` | links between near vectors, where there are many |
//!
//! The same input gives the same bytes: no times, no random numbers, no order of a hash map.

use crate::{kind::FileKind, passage::Passage};
use memmap2::Mmap;
use narthex_base::{Digest, Error, License, Result, config::KnowledgeStep, text_file::json_of};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// The form of the folder.
const FORMAT: u32 = 1;

/// Passages at most: their numbers are u32, and all of their vectors are one file.
pub const PASSAGES_MAX: u32 = 10_000_000;

pub(crate) const CARD: &str = "knowledge.json";
pub(crate) const PASSAGES: &str = "passages.jsonl";
pub(crate) const VECTORS: &str = "vectors.f32";
pub(crate) const GRAPH: &str = "graph.u32";

/// What is in the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The form of the folder.
    pub format: u32,
    /// What it was made by.
    pub settings: KnowledgeStep,
    /// Stands for how files become passages: where it is the same, so are the passages of a file.
    pub cut: Digest,
    /// The encoder, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
    /// What it was made from.
    pub sources: Vec<CardSource>,
    /// The files, in the order of their passages.
    pub files: Vec<CardFile>,
    /// Files that could not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How many passages there are.
    pub passages: u32,
    /// BLAKE3 of `passages.jsonl`.
    pub passages_digest: Digest,
    /// BLAKE3 of the numbers of `vectors.f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors_digest: Option<Digest>,
    /// Whether there is a graph.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub graph: bool,
}

/// What made the vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Which encoder.
    pub identity: String,
    /// Numbers in a vector.
    pub width: usize,
}

/// A source, and the terms that its material comes under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardSource {
    /// Its name.
    pub name: String,
    /// The licence, if declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<License>,
    /// What must be kept when the material is passed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A file that passages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// What it is cited as.
    pub name: String,
    /// Which of the sources it belongs to.
    pub source: usize,
    /// What it is.
    pub kind: FileKind,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// The number of its first passage.
    pub first: u32,
    /// How many it has.
    pub passages: u32,
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The file.
    pub file: String,
    /// Why, in one line.
    pub why: String,
}

impl Card {
    /// A card of nothing yet.
    pub(crate) fn new(settings: KnowledgeStep, cut: Digest, encoder: Option<Encoder>) -> Self {
        Self {
            format: FORMAT,
            settings,
            cut,
            encoder,
            sources: vec![],
            files: vec![],
            left_out: vec![],
            passages: 0,
            passages_digest: Digest::of(b""),
            vectors_digest: None,
            graph: false,
        }
    }

    /// Reads the card of a folder.
    ///
    /// # Errors
    /// If it is none, or its numbers do not fit together.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CARD);
        let bytes = std::fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))?;
        let card: Self = json_of(bytes, &path)?;
        if card.format != FORMAT {
            let format = card.format;
            return Err(Error::input(format!("the knowledge has form {format}, and form {FORMAT} is read"))
                .at(path.display(), None)
                .help("make it anew"));
        }
        let mut next = 0_u32;
        for file in &card.files {
            let fits = file.first == next && file.source < card.sources.len();
            let Some(end) = next.checked_add(file.passages).filter(|_| fits) else {
                return Err(damaged(&path, "the numbers of its files do not fit together"));
            };
            next = end;
        }
        match next == card.passages && next <= PASSAGES_MAX {
            true => Ok(card),
            false => Err(damaged(&path, "the numbers of its files do not fit together")),
        }
    }

    /// Writes it, last of all files: a folder without a card is not finished.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(CARD);
        let fail = |error| Error::io("cannot write", &path, error);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("the card of knowledge cannot be written").cause(error))?;
        text.push(b'\n');
        let mut file = File::create(&path).map_err(fail)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::input(format!("the knowledge is damaged: {why}")).at(path.display(), None).help("make it anew")
}

/// Writes passages, one a line.
pub(crate) struct PassagesWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl PassagesWriter {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(PASSAGES);
        let file = File::create(&path).map_err(|error| Error::io("cannot write", &path, error))?;
        Ok(Self { path, file: BufWriter::new(file), hash: blake3::Hasher::new() })
    }

    pub(crate) fn write(&mut self, passage: &Passage) -> Result<()> {
        let mut line =
            serde_json::to_vec(passage).map_err(|error| Error::internal("a passage cannot be written").cause(error))?;
        line.push(b'\n');
        self.hash.update(&line);
        self.file.write_all(&line).map_err(|error| Error::io("cannot write", &self.path, error))
    }

    /// The digest of all of it, once it is on disk.
    pub(crate) fn finish(self) -> Result<Digest> {
        let fail = |error| Error::io("cannot write", &self.path, error);
        let file = self.file.into_inner().map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        Ok(self.hash.finalize().into())
    }
}

/// The passages of a folder, mapped into memory.
pub(crate) struct Passages {
    path: PathBuf,
    map: Mmap,
    /// Where each line begins, and where the last one ends.
    begins: Vec<usize>,
}

impl Passages {
    /// Opens them, and reads all once to check the digest.
    ///
    /// # Errors
    /// If they cannot be read, or are not those of the card.
    pub(crate) fn open(folder: &Path, card: &Card) -> Result<Self> {
        let path = folder.join(PASSAGES);
        let fail = |error| Error::io("cannot read", &path, error);
        if !std::fs::metadata(&path).map_err(fail)?.is_file() {
            return Err(damaged(&path, "this is no regular file"));
        }
        let file = File::open(&path).map_err(fail)?;
        // SAFETY: the map is read-only and owned by `Passages`; a file that another process truncates meanwhile can
        // end the process with SIGBUS, but cannot be written through or read out of bounds.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        let digest: Digest = blake3::Hasher::new().update_rayon(&map).finalize().into();
        if digest != card.passages_digest {
            return Err(damaged(&path, "its digest does not match"));
        }
        let ends = map.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let begins: Vec<usize> = std::iter::once(0).chain(ends).collect();
        match begins.len() - 1 == card.passages as usize {
            true => Ok(Self { path, map, begins }),
            false => Err(damaged(&path, "it has another number of lines")),
        }
    }

    /// The passage of this number.
    ///
    /// # Errors
    /// If its line is no passage.
    pub(crate) fn get(&self, id: u32) -> Result<Passage> {
        let at = id as usize;
        let line = match (self.begins.get(at), self.begins.get(at + 1)) {
            (Some(begin), Some(end)) => &self.map[*begin..*end],
            _ => return Err(Error::internal(format!("there is no passage {id}"))),
        };
        let passage: Passage = serde_json::from_slice(line)
            .map_err(|error| damaged(&self.path, &format!("line {} is no passage", at + 1)).cause(error))?;
        match passage.id == id {
            true => Ok(passage),
            false => Err(damaged(&self.path, &format!("line {} has another number", at + 1))),
        }
    }
}
