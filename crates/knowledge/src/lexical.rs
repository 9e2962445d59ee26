//! Passages by words: tantivy's BM25 (k1 1.2, b 0.75; tantivy 0.27 takes no others). Knows neither files nor vectors.
//!
//! The index is no part of the artifact. tantivy names its files by random numbers, so the same passages would give
//! another folder each time, and its format belongs to its version. It is made from the passages when they are opened:
//! in memory, or in a folder that may be deleted at any time.

use crate::{
    scored::Scored,
    words::{analyzed, analyzer},
};
use narthex_base::{Digest, Error, Result, config::Stemming};
use std::{fs, path::Path};
use tantivy::{
    DocAddress, Index, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
    collector::TopDocs,
    directory::{Directory, MmapDirectory, RamDirectory},
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{TextAnalyzer, TokenizerManager},
};

/// Rises when the same passages give another index: words, fields, tantivy's version.
const INDEX_VERSION: u32 = 1;

/// Words of a question that are looked for; further ones are left out.
const QUESTION_WORDS_MAX: usize = 1024;

/// What tantivy sizes its table of words by.
const TABLE_BYTES: usize = 64 << 20;

const WORDS: &str = "words";
const TEXT: &str = "text";
const FILE: &str = "file";

/// An index over passages, by number.
pub(crate) struct Lexical {
    searcher: Searcher,
    text: Field,
    file: Field,
    analyzer: TextAnalyzer,
}

/// A passage as it is indexed: the number of its file, and its words.
pub(crate) struct Indexed {
    pub file: u32,
    pub text: String,
}

impl Lexical {
    /// Makes the index in memory. Passages come in the order of their numbers.
    ///
    /// # Errors
    /// Those of the passages.
    pub(crate) fn in_memory(stemming: Stemming, passages: &mut dyn Iterator<Item = Result<Indexed>>) -> Result<Self> {
        Self::of(build(Box::new(RamDirectory::create()), stemming, passages)?, stemming)
    }

    /// Opens the index in a folder below `cache`, or makes it there. `content` stands for the passages.
    ///
    /// # Errors
    /// Those of the passages, or if the folder cannot be written.
    pub(crate) fn cached(
        cache: &Path,
        content: Digest,
        stemming: Stemming,
        passages: &mut dyn Iterator<Item = Result<Indexed>>,
    ) -> Result<Self> {
        let name = Digest::of_json(&(INDEX_VERSION, tantivy::version_string(), content, stemming)).to_string();
        let folder = cache.join(&name);
        let opened = |folder: &Path| -> tantivy::Result<Index> {
            let mut index = Index::open(MmapDirectory::open(folder)?)?;
            index.set_tokenizers(tokenizers(stemming));
            match index.validate_checksum()?.is_empty() {
                true => Ok(index),
                false => Err(TantivyError::InternalError("damaged".into())),
            }
        };
        // Whatever is wrong with it: it is only a cache.
        if let Ok(index) = opened(&folder) {
            return Self::of(index, stemming);
        }
        let fail = |error| Error::io("cannot write", &folder, error);
        fs::create_dir_all(cache).map_err(fail)?;
        // Two processes that make it at once do not see each other's; the first one stays.
        let partial = cache.join(format!("{name}.{}.partial", std::process::id()));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial).map_err(fail)?;
        let directory = MmapDirectory::open(&partial).map_err(|error| broken(&error.into()))?;
        let made = build(Box::new(directory), stemming, passages).map(drop);
        let moved = made.and_then(|()| {
            if fs::rename(&partial, &folder).is_err() {
                fs::remove_dir_all(&folder).map_err(fail)?;
                fs::rename(&partial, &folder).map_err(fail)?;
            }
            Ok(())
        });
        if moved.is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
        moved?;
        Self::of(opened(&folder).map_err(|error| broken(&error))?, stemming)
    }

    fn of(index: Index, stemming: Stemming) -> Result<Self> {
        let field = |name: &str| index.schema().get_field(name).map_err(|error| broken(&error));
        let (text, file) = (field(TEXT)?, field(FILE)?);
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        let reader = reader.map_err(|error| broken(&error))?;
        Ok(Self { searcher: reader.searcher(), text, file, analyzer: analyzer(stemming) })
    }

    /// The best by words, of these files if any are named. Passages with none of the words are not among them.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn nearest(&self, question: &str, limit: usize, files: Option<&[u32]>) -> Result<Vec<Scored>> {
        let mut words = analyzed(&mut self.analyzer.clone(), question);
        words.truncate(QUESTION_WORDS_MAX);
        if words.is_empty() || limit == 0 || files.is_some_and(<[u32]>::is_empty) {
            return Ok(vec![]);
        }
        let word = |word: &String| -> Box<dyn Query> {
            Box::new(TermQuery::new(Term::from_field_text(self.text, word), IndexRecordOption::WithFreqs))
        };
        let mut query = BooleanQuery::union(words.iter().map(word).collect());
        if let Some(files) = files {
            let files = files.iter().map(|file| Term::from_field_u64(self.file, (*file).into()));
            // A condition, not a reason: it adds nothing to the score.
            let among = ConstScoreQuery::new(Box::new(TermSetQuery::new(files)), 0.0);
            query = BooleanQuery::new(vec![(Occur::Must, Box::new(query)), (Occur::Must, Box::new(among))]);
        }
        let best = self.searcher.search(&query, &TopDocs::with_limit(limit).order_by_score());
        let mut best: Vec<Scored> = best
            .map_err(|error| broken(&error))?
            .into_iter()
            // One segment, filled in order: a document's number there is the passage's.
            .map(|(score, DocAddress { doc_id, .. })| Scored { score, id: doc_id })
            .collect();
        best.sort_by(|a, b| b.cmp(a));
        Ok(best)
    }
}

fn tokenizers(stemming: Stemming) -> TokenizerManager {
    // With tantivy's own: it asks for the one called `default` for fields that hold no text, too.
    let tokenizers = TokenizerManager::default();
    tokenizers.register(WORDS, analyzer(stemming));
    tokenizers
}

fn broken(error: &TantivyError) -> Error {
    Error::input("the index of words cannot be made or read").cause(error)
}

/// One segment, so that scores are the same sums and ties fall the same way each time.
fn build(
    directory: Box<dyn Directory>,
    stemming: Stemming,
    passages: &mut dyn Iterator<Item = Result<Indexed>>,
) -> Result<Index> {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default().set_tokenizer(WORDS).set_index_option(IndexRecordOption::WithFreqs);
    let text = schema.add_text_field(TEXT, TextOptions::default().set_indexing_options(indexing));
    let file = schema.add_u64_field(FILE, INDEXED);
    let builder = Index::builder().schema(schema.build()).tokenizers(tokenizers(stemming));
    let mut writer = builder
        .single_segment_index_writer::<TantivyDocument>(directory, TABLE_BYTES)
        .map_err(|error| broken(&error))?;
    for passage in passages {
        let passage = passage?;
        let mut document = TantivyDocument::new();
        document.add_text(text, passage.text);
        document.add_u64(file, passage.file.into());
        writer.add_document(document).map_err(|error| broken(&error))?;
    }
    writer.finalize().map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] =
        ["the wing of an aircraft", "wings and wings", "heat flows", "the wing of an aircraft", "slipstream heat"];

    fn passages() -> impl Iterator<Item = Result<Indexed>> {
        TEXTS.iter().zip(0..).map(|(text, id)| Ok(Indexed { file: id / 2, text: text.to_string() }))
    }

    fn found(index: &Lexical, question: &str, files: Option<&[u32]>) -> Vec<u32> {
        index.nearest(question, 3, files).unwrap().iter().map(|scored| scored.id).collect()
    }

    #[test]
    fn best_first_ties_in_order_and_files() {
        let index = Lexical::in_memory(Stemming::English, &mut passages()).unwrap();
        for (question, files, expected) in [
            ("Wing", None, &[1, 0, 3][..]),
            ("heat", None, &[2, 4]),
            ("aircraft", None, &[0, 3]),
            ("heat", Some(&[2][..]), &[4]),
            ("wing", Some(&[0, 2]), &[1, 0]),
            ("wing", Some(&[]), &[]),
            ("unknown", None, &[]),
            ("?!", None, &[]),
        ] {
            assert_eq!(found(&index, question, files), expected, "{question} {files:?}");
        }
        let whole = Lexical::in_memory(Stemming::None, &mut passages()).unwrap();
        assert_eq!(found(&whole, "wing", None), [0, 3]);
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        let index = Lexical::in_memory(Stemming::None, &mut passages()).unwrap();
        let found = index.nearest("slipstream heat", 5, None).unwrap();
        // ln(1 + (N - n + 0.5) / (n + 0.5)) * f (k1 + 1) / (f + k1 (1 - b + b length / mean length)); mean 17 / 5.
        let idf = |n: f64| (1.0 + (5.0 - n + 0.5) / (n + 0.5)).ln();
        let weight = 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 2.0 / (17.0 / 5.0)));
        let expected = [(4, (idf(1.0) + idf(2.0)) * weight), (2, idf(2.0) * weight)];
        for (scored, (id, score)) in found.iter().zip(expected) {
            assert_eq!(scored.id, id);
            assert!((f64::from(scored.score) - score).abs() < 1e-5, "{scored:?} {score}");
        }
        let filtered = index.nearest("slipstream heat", 5, Some(&[1, 2])).unwrap();
        assert_eq!(filtered, found);
    }

    #[test]
    fn a_cache_is_used_or_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let content = Digest::of(b"passages");
        let open = |passages: &mut dyn Iterator<Item = Result<Indexed>>| {
            let index = Lexical::cached(folder.path(), content, Stemming::English, passages).unwrap();
            found(&index, "wing", None)
        };
        assert_eq!(open(&mut passages()), [1, 0, 3]);
        // Made already: nobody asks for passages.
        let mut never = std::iter::from_fn(|| panic!("asked for passages"));
        assert_eq!(open(&mut never), [1, 0, 3]);
        let made = || -> Vec<_> {
            let folders: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(folders.len(), 1, "{folders:?}");
            let mut files: Vec<_> = fs::read_dir(&folders[0]).unwrap().map(|entry| entry.unwrap().path()).collect();
            // Names begin with random numbers, endings do not.
            files.sort_by_key(|file| file.extension().map(|ending| ending.to_owned()));
            files
        };
        for number in 0..made().len() {
            let file = &made()[number];
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
            assert_eq!(open(&mut passages()), [1, 0, 3], "{file:?}");
        }
    }
}
