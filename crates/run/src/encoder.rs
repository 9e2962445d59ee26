//! A text encoder ready for use: weights, tokenizer, prompts and what is known of its origin.

use crate::{
    Provenance,
    loaded::{folder_of, from_artifact, is_model_folder, named, named_folder},
};
use narthex_base::{Error, Result};
use narthex_model::{EncoderModel, Precision, encoder::is_encoder};
use narthex_text::{SequenceTokenizer, Tokenizer};
use std::path::Path;

/// A text encoder ready for use.
pub struct LoadedEncoder {
    /// Its name: the reference it was asked for by.
    pub name: String,
    /// The weights.
    pub model: EncoderModel,
    /// Text to tokens.
    pub tokenizer: SequenceTokenizer,
    /// Its origin.
    pub provenance: Provenance,
    /// When it was made: seconds since 1970; 0 where that is not known.
    pub created: u64,
}

impl LoadedEncoder {
    /// Loads an encoder by reference, as [`LoadedModel::open`](crate::LoadedModel::open) does a decoder; none if the
    /// reference is not that of an encoder. Without a precision it is that of the file.
    ///
    /// # Errors
    /// If the reference is unknown, is not a model, or its files are broken.
    pub fn open(project: &Path, reference: &str, precision: Option<Precision>) -> Result<Option<Self>> {
        let folder = folder_of(project, reference)?;
        if !is_encoder(&folder) {
            return Ok(None);
        }
        let (name, provenance, created) = if is_model_folder(Path::new(reference)) {
            let (name, provenance) = named_folder(project, reference)?;
            (name, provenance, 0)
        } else {
            let ledger = named(project, reference)?;
            let (provenance, created) = from_artifact(&ledger, &ledger.resolve(reference)?)?;
            (reference.to_string(), provenance, created)
        };
        let (model, tokenizer) = read(&folder, precision)?;
        Ok(Some(Self { name, model, tokenizer, provenance, created }))
    }
}

/// Reads the model and its tokenizer.
pub(crate) fn read(folder: &Path, precision: Option<Precision>) -> Result<(EncoderModel, SequenceTokenizer)> {
    let model = EncoderModel::read(folder, precision)?;
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
    if tokenizer.vocab_size() > model.vocab_size() {
        return Err(Error::input(format!(
            "the tokenizer has {} tokens, but the model only {}",
            tokenizer.vocab_size(),
            model.vocab_size()
        ))
        .at(folder.display(), None)
        .help("tokenizer.json belongs to another model: fetch or export the model again"));
    }
    let lower_case = model.sentence().lower_case;
    Ok((model, SequenceTokenizer::new(tokenizer, lower_case)))
}
