//! A question to passages: by words, by vectors, or both. Knows neither sources nor how knowledge is made.

use crate::{
    artifact::{Card, CardFile, GRAPH, Passages, VECTORS},
    embed::{Embed, EmbedKind, Rerank},
    fuse::{Ranks, fuse},
    graph::Graph,
    lexical::{Indexed, Lexical},
    passage::Passage,
    scored::Scored,
    source::globs,
    vectors::{Vectors, normalize},
};
use narthex_base::{
    Digest, Error, Result,
    config::{SearchMode, SearchSettings},
};
use std::{ops::Range, path::Path};

/// Bytes of a question at most.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Knowledge that can be asked.
pub struct Knowledge {
    card: Card,
    passages: Passages,
    lexical: Lexical,
    vectors: Option<Vectors>,
    graph: Option<Graph>,
}

/// How a question is answered.
pub struct SearchOptions<'a> {
    /// What is compared, and how much of it.
    pub settings: SearchSettings,
    /// Globs: only passages of such files (`docs/guide/**`). Empty takes all.
    pub files: Vec<String>,
    /// The encoder that made the vectors; not needed for words alone.
    pub embed: Option<&'a dyn Embed>,
    /// Puts the best in order anew.
    pub rerank: Option<&'a dyn Rerank>,
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The passage.
    pub passage: Passage,
    /// What the order follows: the reranker's score; else the sum of reciprocal ranks (hybrid), BM25 (words), or the
    /// cosine (vectors).
    pub score: f32,
    /// Where it stands by words, from 1.
    pub bm25_rank: Option<u32>,
    /// Where it stands by vectors, from 1.
    pub vector_rank: Option<u32>,
}

impl Knowledge {
    /// Opens a folder; the index of words is made in memory.
    ///
    /// # Errors
    /// If the folder is none, or damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, None)
    }

    /// As [`Knowledge::open`], with the index of words kept below `cache`, which may be deleted at any time.
    ///
    /// # Errors
    /// As [`Knowledge::open`], or if `cache` cannot be written.
    pub fn open_cached(folder: &Path, cache: &Path) -> Result<Self> {
        Self::open_with(folder, Some(cache))
    }

    fn open_with(folder: &Path, cache: Option<&Path>) -> Result<Self> {
        let card = Card::read(folder)?;
        let passages = Passages::open(folder, &card)?;
        let vectors = match &card.encoder {
            Some(_) => Some(Vectors::of_card(&folder.join(VECTORS), &card)?),
            None => None,
        };
        let graph = if card.graph { Some(Graph::open(&folder.join(GRAPH), card.passages)?) } else { None };
        let stemming = card.settings.stemming;
        let mut indexed = card.files.iter().zip(0_u32..).flat_map(|(file, number)| {
            let ids = file.first..file.first + file.passages;
            let passages = &passages;
            ids.map(move |id| Ok(Indexed { file: number, text: passages.get(id)?.indexed_text() }))
        });
        let lexical = match cache {
            Some(cache) => {
                // The files' numbers are in the index too.
                let content = Digest::of_json(&(card.passages_digest, &card.files));
                Lexical::cached(cache, content, stemming, &mut indexed)?
            }
            None => Lexical::in_memory(stemming, &mut indexed)?,
        };
        drop(indexed);
        Ok(Self { card, passages, lexical, vectors, graph })
    }

    /// What is in it.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The passage of this number.
    ///
    /// # Errors
    /// If there is none.
    pub fn passage(&self, id: u32) -> Result<Passage> {
        match id < self.card.passages {
            true => self.passages.get(id),
            false => Err(Error::input(format!("there is no passage {id}: there are {}", self.card.passages))),
        }
    }

    /// The passages that answer a question best, the best first.
    ///
    /// # Errors
    /// If the question is too long, a glob is none, the encoder is missing or another one, or a model gives up.
    pub fn search(&self, question: &str, options: &SearchOptions) -> Result<Vec<Found>> {
        if question.len() > QUESTION_BYTES_MAX {
            let bytes = question.len();
            return Err(Error::input(format!("the question has {bytes} bytes, more than {QUESTION_BYTES_MAX}"))
                .help("ask in fewer words"));
        }
        let SearchSettings { mode, limit, candidates } = options.settings;
        let (limit, candidates) = (limit as usize, candidates.max(limit) as usize);
        let files = self.files(&options.files)?;
        // What has no vectors is asked by words.
        let mode = if self.vectors.is_none() && mode == SearchMode::Hybrid { SearchMode::Words } else { mode };
        let words = match mode {
            SearchMode::Vectors => vec![],
            _ => self.lexical.nearest(question, candidates, files.as_deref())?,
        };
        let vectors = match mode {
            SearchMode::Words => vec![],
            _ => self.by_vectors(question, candidates, files.as_deref(), options.embed)?,
        };
        let ranked = |list: Vec<Scored>, ranks: fn(u32) -> Ranks| {
            list.into_iter().zip(1..).map(|(scored, rank)| (scored, ranks(rank))).collect()
        };
        let mut order: Vec<(Scored, Ranks)> = match mode {
            SearchMode::Hybrid => fuse(&words, &vectors),
            SearchMode::Words => ranked(words, |rank| Ranks { words: Some(rank), vectors: None }),
            SearchMode::Vectors => ranked(vectors, |rank| Ranks { words: None, vectors: Some(rank) }),
        };
        order.truncate(if options.rerank.is_some() { candidates } else { limit });
        let mut found = Vec::with_capacity(order.len());
        for (Scored { score, id }, ranks) in order {
            let passage = self.passages.get(id)?;
            found.push(Found { passage, score, bm25_rank: ranks.words, vector_rank: ranks.vectors });
        }
        if let Some(rerank) = options.rerank {
            reorder(rerank, question, &mut found)?;
            found.truncate(limit);
        }
        Ok(found)
    }

    /// The numbers of files that the globs name; none where all are meant.
    fn files(&self, wanted: &[String]) -> Result<Option<Vec<u32>>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let wanted = globs(wanted)?;
        let numbers = (0..).zip(&self.card.files).filter(|(_, file)| wanted.is_match(&file.name));
        Ok(Some(numbers.map(|(number, _)| number).collect()))
    }

    fn by_vectors(
        &self,
        question: &str,
        limit: usize,
        files: Option<&[u32]>,
        embed: Option<&dyn Embed>,
    ) -> Result<Vec<Scored>> {
        let (Some(vectors), Some(encoder)) = (&self.vectors, &self.card.encoder) else {
            return Err(Error::input("this knowledge has no vectors")
                .help("give it a `model` and make it anew, or search with `mode = \"words\"`"));
        };
        let Some(embed) = embed else {
            return Err(Error::input("a search by vectors needs the encoder that made them")
                .help("or search with `mode = \"words\"`"));
        };
        if embed.identity() != encoder.identity {
            let (one, other) = (embed.identity(), &encoder.identity);
            return Err(Error::input("the encoder is not the one that made the vectors")
                .cause(format!("it is {one}, and they were made by {other}"))
                .help("make the knowledge anew"));
        }
        let mut given = embed.embed(&[question], EmbedKind::Query)?;
        let (Some(mut vector), true) = (given.pop(), given.is_empty()) else {
            return Err(Error::input("the encoder gave another number of vectors than one for a question"));
        };
        normalize(&mut vector, encoder.width)?;
        let rows = vectors.rows();
        Ok(match (files, &self.graph) {
            (None, Some(graph)) => graph.nearest(rows, &vector, limit),
            (None, None) => rows.nearest(&vector, limit, std::slice::from_ref(&(0..rows.count()))),
            // Through a graph, most of what is near could be of other files.
            (Some(files), _) => {
                let among = |number: &u32| -> Range<u32> {
                    let CardFile { first, passages, .. } = &self.card.files[*number as usize];
                    *first..first + passages
                };
                let among: Vec<Range<u32>> = files.iter().map(among).collect();
                rows.nearest(&vector, limit, &among)
            }
        })
    }
}

fn reorder(rerank: &dyn Rerank, question: &str, found: &mut [Found]) -> Result<()> {
    let texts: Vec<String> = found.iter().map(|found| found.passage.indexed_text()).collect();
    let scores = rerank.scores(question, &texts.iter().map(String::as_str).collect::<Vec<_>>())?;
    if scores.len() != found.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(Error::input("the reranker did not give a number for each passage"));
    }
    for (found, score) in found.iter_mut().zip(scores) {
        found.score = score;
    }
    // Stable: of those it cannot tell apart, the former order stands.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(())
}

#[cfg(test)]
mod tests;
