//! What was made before: passages of files that have not changed, vectors of texts that have not. Knows no sources.

use crate::{
    artifact::{Card, GRAPH, Passages, VECTORS},
    graph::Graph,
    kind::FileKind,
    passage::Passage,
    vectors::Vectors,
};
use narthex_base::{Digest, Result};
use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
};

/// Nothing, or a folder that was made before.
#[derive(Default)]
pub(crate) struct Previous {
    passages: Option<Passages>,
    files: HashMap<(Digest, FileKind), Range<u32>>,
    vectors: Option<Vectors>,
    texts: HashMap<Digest, u32>,
    graph: Option<PathBuf>,
}

impl Previous {
    /// Opens what was made before, as far as it is of use for what is made now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(folder: &Path, now: &Card) -> Result<Self> {
        let card = Card::read(folder)?;
        let passages = Passages::open(folder, &card)?;
        let mut previous = Self::default();
        if card.cut == now.cut {
            let ranges =
                card.files.iter().map(|file| ((file.digest, file.kind), file.first..file.first + file.passages));
            previous.files = ranges.collect();
        }
        if card.encoder.is_some() && card.encoder == now.encoder {
            let vectors = Vectors::of_card(&folder.join(VECTORS), &card)?;
            for id in 0..card.passages {
                previous.texts.insert(Digest::of(passages.get(id)?.indexed_text().as_bytes()), id);
            }
            previous.vectors = Some(vectors);
            previous.graph = card.graph.then(|| folder.join(GRAPH));
        }
        previous.passages = Some(passages);
        Ok(previous)
    }

    /// The passages of a file with this content.
    ///
    /// # Errors
    /// If they are damaged.
    pub(crate) fn passages(&self, digest: Digest, kind: FileKind) -> Result<Option<Vec<Passage>>> {
        let (Some(passages), Some(ids)) = (&self.passages, self.files.get(&(digest, kind))) else { return Ok(None) };
        ids.clone().map(|id| passages.get(id)).collect::<Result<_>>().map(Some)
    }

    /// The vector of an indexed text with this digest.
    pub(crate) fn vector(&self, text: Digest) -> Option<&[f32]> {
        Some(self.vectors.as_ref()?.rows().get(*self.texts.get(&text)?))
    }

    /// The graph over vectors with this digest: as long as none of them changes, it takes longest to make.
    ///
    /// # Errors
    /// If it is damaged.
    pub(crate) fn graph(&self, vectors: Digest) -> Result<Option<Graph>> {
        let (Some(known), Some(path)) = (&self.vectors, &self.graph) else { return Ok(None) };
        match known.digest() == vectors {
            true => Graph::open(path, known.rows().count()).map(Some),
            false => Ok(None),
        }
    }
}
