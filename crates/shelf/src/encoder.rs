//! A text encoder ready for use: weights, tokenizer, prompts and what is known of its origin.

use crate::loaded::unread_of;
use narthex_base::{Error, Result};
use narthex_model::{EncoderModel, Precision};
use narthex_openness::Shown;
use narthex_text::{SequenceTokenizer, Tokenizer, TokenizerConfig};
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
    pub provenance: Shown,
    /// When it was made: seconds since 1970; 0 where that is not known.
    pub created: u64,
    /// Bytes of the files of its weights.
    pub bytes: u64,
    /// What a user should know of how its files were read.
    pub notes: Vec<String>,
}

/// Reads the model and its tokenizer.
pub(crate) fn read(
    folder: &Path,
    precision: Option<Precision>,
) -> Result<(EncoderModel, SequenceTokenizer, Vec<String>)> {
    let model = EncoderModel::read(folder, precision)?;
    let tokenizer = Tokenizer::read(folder)?;
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
    let mut notes = model.notes().to_vec();
    notes.extend(unread_of(&TokenizerConfig::read(folder)?));
    Ok((model, SequenceTokenizer::new(tokenizer, lower_case), notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PlanOptions, Purpose, Shelf, import_manifest};
    use narthex_ledger::Ledger;
    use serde_json::json;
    use std::fs;

    /// The tiny BERT of the goldens in sentence-transformers' layout, with a tokenizer and a card.
    fn folder(at: &Path) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/encoder-bert");
        fs::create_dir_all(at.join("1_Pooling")).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden.join(name), at.join(name)).unwrap();
        }
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat"];
        let vocabulary: serde_json::Map<_, _> =
            words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        let modules = json!([
            {"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ]);
        for (name, text) in [
            ("tokenizer.json", tokenizer.to_string()),
            ("modules.json", modules.to_string()),
            ("1_Pooling/config.json", json!({"pooling_mode_cls_token": true}).to_string()),
            ("sentence_bert_config.json", json!({"max_seq_length": 6}).to_string()),
            ("README.md", "---\nlicense: apache-2.0\n---\n# Tiny\n".into()),
        ] {
            fs::write(at.join(name), text).unwrap();
        }
    }

    #[test]
    fn an_encoder_goes_through_the_ledger_with_its_modules_and_licence() {
        let made = tempfile::tempdir().unwrap();
        let (project, source) = (made.path().join("project"), made.path().join("tiny"));
        folder(&source);
        let manifest = import_manifest(&source, None, None).unwrap();
        assert_eq!(manifest.license().unwrap().as_str(), "Apache-2.0");
        assert!(manifest.components[0].paths.contains(&"1_Pooling/config.json".to_string()));
        fs::create_dir(&project).unwrap();
        let ledger = Ledger::open(&project.join(".narthex")).unwrap();
        let artifact = ledger.import(&source, "tiny", manifest).unwrap();
        let exported = made.path().join("exported");
        ledger.export(&artifact, &exported).unwrap();
        drop(ledger);
        let mut found = Vec::new();
        for reference in ["tiny", source.to_str().unwrap(), exported.to_str().unwrap()] {
            let encoder = open(&project, reference).unwrap();
            assert_eq!(encoder.provenance.license.as_ref().unwrap().as_str(), "Apache-2.0", "{reference}");
            assert_eq!(encoder.model.context(), 6, "{reference}");
            let sequence =
                encoder.tokenizer.texts(&["the cat sat the cat sat"], encoder.model.context()).unwrap().remove(0);
            assert_eq!((sequence.ids.as_slice(), sequence.cut), (&[2, 4, 5, 6, 4, 3][..], 2), "{reference}");
            let input = narthex_model::EncoderInput { ids: sequence.ids, types: sequence.types };
            found.push(encoder.model.run(&[&input]));
        }
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], found[2]);
        // A pair's second text has its own segment.
        let encoder = open(&project, "tiny").unwrap();
        let pair = encoder.tokenizer.pairs(&["the"], &["cat"], 6).unwrap().remove(0);
        assert_eq!((pair.ids.as_slice(), pair.types.as_slice()), (&[2, 4, 3, 5, 3][..], &[0, 0, 0, 1, 1][..]));
    }

    fn open(project: &Path, reference: &str) -> Result<LoadedEncoder> {
        let opened = Shelf::new(project, PlanOptions::default()).model(reference, Purpose::Own)?.permitted()?;
        assert!(opened.is_encoder());
        opened.encoder(None)
    }

    #[test]
    fn a_decoder_is_no_encoder() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/llama-tied");
        let shelf = Shelf::new(Path::new("."), PlanOptions::default());
        let opened = shelf.model(golden.to_str().unwrap(), Purpose::Own).unwrap().permitted().unwrap();
        assert!(!opened.is_encoder());
        assert!(shelf.model("./nowhere", Purpose::Own).is_err());
    }
}
