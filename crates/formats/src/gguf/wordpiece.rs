//! WordPiece in a GGUF file (`tokenizer.ggml.model` is `bert`), the vocabulary of BERT and its kin. llama.cpp's
//! converter marks the words that begin one with `▁` and takes the `##` from those that go on; here that is undone.

use super::{
    File,
    tokenizer::{Imported, Kind, special, template},
};
use narthex_base::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The tokens with a part of their own: llama.cpp's keys in the order in which they are asked, Hugging Face's name, and
/// BERT's own text.
const ROLES: [(&[&str], &str, &str); 5] = [
    (&["tokenizer.ggml.cls_token_id", "tokenizer.ggml.bos_token_id"], "cls_token", "[CLS]"),
    // The word is misspelt in the format.
    (&["tokenizer.ggml.seperator_token_id", "tokenizer.ggml.eos_token_id"], "sep_token", "[SEP]"),
    (&["tokenizer.ggml.unknown_token_id"], "unk_token", "[UNK]"),
    (&["tokenizer.ggml.padding_token_id"], "pad_token", "[PAD]"),
    (&["tokenizer.ggml.mask_token_id"], "mask_token", "[MASK]"),
];

/// Letters of a word at most; a longer one is unknown. BERT's.
const WORD_MAX: usize = 100;

/// The tokenizer of these tokens.
pub(super) fn import(file: &File, tokens: &[String], kinds: &[Kind]) -> Result<Imported> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut roles = Map::new();
    let mut found = Vec::new();
    for (keys, role, usual) in ROLES {
        let mut stated = None;
        for key in keys {
            stated = stated.or(special(file, key, tokens)?);
        }
        let id = stated.or_else(|| ids.get(usual).copied());
        if let Some(id) = id {
            roles.insert(role.into(), json!(tokens[id]));
        }
        found.push(id);
    }
    let needed = |place: usize| {
        found[place].ok_or_else(|| {
            Error::input(format!("the vocabulary has no token {}", ROLES[place].2)).at(file.path().display(), None)
        })
    };
    let (cls, sep, unknown) = (needed(0)?, needed(1)?, needed(2)?);
    let is_special = |id: usize| kinds[id] == Kind::Control || found.contains(&Some(id));
    let spelt = |id: usize| match tokens[id].strip_prefix('▁') {
        _ if is_special(id) || kinds[id] == Kind::Unused => tokens[id].clone(),
        Some(word) => word.into(),
        None => format!("##{}", tokens[id]),
    };
    let vocab: Map<String, Value> = (0..tokens.len()).map(|id| (spelt(id), json!(id))).collect();
    if vocab.len() < tokens.len() {
        return Err(Error::input("two tokens of the vocabulary are the same word").at(file.path().display(), None));
    }
    // The file does not say so; a vocabulary with capitals in it was made for text with capitals.
    let lowercase = !(0..tokens.len()).any(|id| !is_special(id) && tokens[id].chars().any(char::is_uppercase));
    let added: Vec<Value> = (0..tokens.len())
        .filter(|id| is_special(*id))
        .map(|id| {
            json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template(tokens, Some(cls), Some(sep)),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": tokens[unknown], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": WORD_MAX, "vocab": vocab},
    });
    let mut config = roles;
    config.insert("tokenizer_class".into(), json!("BertTokenizer"));
    config.insert("do_lower_case".into(), json!(lowercase));
    let mut generation = Map::new();
    found[3].map(|id| generation.insert("pad_token_id".into(), json!(id)));
    Ok(Imported { tokenizer, config: Value::Object(config), generation: Value::Object(generation) })
}
