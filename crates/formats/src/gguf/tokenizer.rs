//! The vocabulary in a GGUF file as `tokenizer.json` and `tokenizer_config.json`, and back. Knows both forms; tokenizes
//! nothing.

use super::{File, vocabulary::Cut};
use crate::bytes::{beyond, shown};
use narthex_base::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Tokens in a vocabulary; the largest have some hundred thousand.
const TOKENS_MAX: usize = 1 << 22;
/// Bytes of a token that others are merged into.
const TOKEN_BYTES_MAX: usize = 1 << 10;
/// Merges of a vocabulary that has scores instead; Gemma's gives some 600,000.
const MERGES_MAX: usize = 1 << 22;

/// What a token is: `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    fn of_number(number: f64) -> Option<Self> {
        [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte]
            .into_iter()
            .find(|kind| f64::from(*kind as u8) == number)
    }
}

/// The tokens with a part of their own, by llama.cpp's name and Hugging Face's.
pub(super) const ROLES: [(&str, &str); 4] = [
    ("tokenizer.ggml.bos_token_id", "bos_token"),
    ("tokenizer.ggml.eos_token_id", "eos_token"),
    ("tokenizer.ggml.unknown_token_id", "unk_token"),
    ("tokenizer.ggml.padding_token_id", "pad_token"),
];

/// The files of a tokenizer in a Hugging Face folder.
pub(super) struct Imported {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`.
    pub config: Value,
    /// `generation_config.json`.
    pub generation: Value,
}

/// Reads the tokenizer in a file; `vocab_size` is the number of rows of the embedding.
pub(super) fn import(file: &File, vocab_size: usize) -> Result<Imported> {
    let missing =
        |key: &str| Error::input(format!("the file has no `{key}`, so no tokenizer")).at(file.path().display(), None);
    let model = file.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
    let tokens = file.texts("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
    let wrong = |what: String| Error::input(what).at(file.path().display(), None);
    if tokens.len() > TOKENS_MAX {
        return Err(beyond("the number of tokens", tokens.len(), TOKENS_MAX as u64, 0).at(file.path().display(), None));
    }
    if tokens.len() > vocab_size {
        return Err(wrong(format!("the vocabulary has {} tokens, but the embedding {vocab_size} rows", tokens.len())));
    }
    let kinds = kinds(file, tokens)?;
    let mut ids = HashMap::new();
    for (id, token) in tokens.iter().enumerate() {
        if ids.insert(token.as_str(), id).is_some() && kinds[id] != Kind::Unused {
            return Err(wrong(format!("the token `{}` is there twice", shown(token))));
        }
    }
    let roles = Roles::read(file, tokens)?;
    let (spells_bytes, cut) = match model {
        "gpt2" => (
            true,
            Some(
                Cut::named(file.text("tokenizer.ggml.pre")?.unwrap_or("default"))
                    .map_err(|error| error.at(file.path().display(), None))?,
            ),
        ),
        "llama" => (false, None),
        "bert" => return super::wordpiece::import(file, tokens, &kinds),
        other => {
            return Err(wrong(format!("`tokenizer.ggml.model` is `{}`, which is not supported", shown(other)))
                .help("supported: gpt2 (byte-level BPE), llama (SentencePiece), bert (WordPiece)"));
        }
    };
    let merges = match file.texts("tokenizer.ggml.merges")? {
        Some(merges) if spells_bytes => stored_merges(file, merges, &ids)?,
        None if spells_bytes => return Err(missing("tokenizer.ggml.merges")),
        _ => merges_by_score(file, tokens, &kinds)?,
    };
    let added: Vec<Value> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| {
            matches!(kinds[*id], Kind::Control | Kind::UserDefined | Kind::Unknown) || roles.ids.iter().flatten().any(|role| role == id)
        })
        .map(|(id, token)| {
            let special = kinds[id] != Kind::UserDefined;
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
        })
        .collect();
    // The converter fills the vocabulary up to the embedding; those are no tokens of the tokenizer.
    let is_filler = |id: &usize| kinds[*id] == Kind::Unused && tokens[*id] == format!("[PAD{id}]");
    let vocab: Map<String, Value> =
        (0..tokens.len()).filter(|id| !is_filler(id)).map(|id| (tokens[id].clone(), json!(id))).collect();
    let has_all_bytes = (0..=255u8).all(|byte| ids.contains_key(format!("<0x{byte:02X}>").as_str()));
    let adds_space = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = roles.ids[2].or_else(|| kinds.iter().position(|kind| *kind == Kind::Unknown));
    let unknown = unknown.filter(|_| !spells_bytes).map(|id| tokens[id].as_str());
    let adds_bos = file.flag("tokenizer.ggml.add_bos_token")?;
    // RoBERTa's encoders surround every text, whatever the flags say.
    let surrounds = spells_bytes && file.text("general.architecture")? == Some("bert");
    let adds_bos = surrounds || adds_bos.unwrap_or(cut.is_none_or(|cut| cut.names[0] == "llama-bpe"));
    let adds_bos = adds_bos && roles.ids[0].is_some();
    let adds_eos = surrounds || file.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let adds_eos = adds_eos && roles.ids[1].is_some();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": match cut {
            Some(cut) if cut.nfc => json!({"type": "NFC"}),
            Some(_) => Value::Null,
            None => spaces_as_marks(adds_space),
        },
        "pre_tokenizer": cut.map_or(Value::Null, Cut::to_json),
        "post_processor": template(tokens, roles.ids[0].filter(|_| adds_bos), roles.ids[1].filter(|_| adds_eos)),
        "decoder": if spells_bytes {
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})
        } else {
            marks_as_spaces(adds_space)
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": !spells_bytes,
            "byte_fallback": !spells_bytes && has_all_bytes,
            "ignore_merges": cut.is_some_and(|cut| cut.ignore_merges),
            "vocab": vocab,
            "merges": merges,
        },
    });
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    config.insert("add_bos_token".into(), json!(adds_bos));
    config.insert("add_eos_token".into(), json!(adds_eos));
    for ((_, role), id) in ROLES.iter().zip(roles.ids) {
        if let Some(id) = id {
            config.insert((*role).into(), json!(tokens[id]));
        }
    }
    if let Some(template) = file.text("tokenizer.chat_template")? {
        config.insert("chat_template".into(), json!(template));
    }
    Ok(Imported { tokenizer, config: Value::Object(config), generation: roles.generation() })
}

fn kinds(file: &File, tokens: &[String]) -> Result<Vec<Kind>> {
    let key = "tokenizer.ggml.token_type";
    let Some(numbers) = file.numbers(key)? else { return Ok(vec![Kind::Normal; tokens.len()]) };
    let kinds: Option<Vec<Kind>> = numbers.to_f64().into_iter().map(Kind::of_number).collect();
    kinds
        .filter(|kinds| kinds.len() == tokens.len())
        .ok_or_else(|| file.wrong(key, "a number from 1 to 6 for each token"))
}

/// The token that a key names, if it names one.
pub(super) fn special(file: &File, key: &str, tokens: &[String]) -> Result<Option<usize>> {
    match file.count(key)? {
        // What llama.cpp writes for "none".
        None | Some(0xffff_ffff) => Ok(None),
        Some(id) if id < tokens.len() as u64 => Ok(Some(id as usize)),
        Some(_) => Err(file.wrong(key, &format!("a token, of which there are {}", tokens.len()))),
    }
}

/// The tokens with a part of their own, in the order of [`ROLES`], and those that end a turn.
struct Roles {
    ids: [Option<usize>; 4],
    ends_turn: Option<usize>,
}

impl Roles {
    fn read(file: &File, tokens: &[String]) -> Result<Self> {
        let id = |key: &str| special(file, key, tokens);
        let [bos, eos, unknown, padding] = ROLES.map(|(key, _)| id(key));
        Ok(Self { ids: [bos?, eos?, unknown?, padding?], ends_turn: id("tokenizer.ggml.eot_token_id")? })
    }

    fn generation(&self) -> Value {
        let mut ends: Vec<usize> = self.ids[1].into_iter().collect();
        ends.extend(self.ends_turn.filter(|end| !ends.contains(end)));
        let mut generation = Map::new();
        for (key, id) in [("bos_token_id", self.ids[0]), ("pad_token_id", self.ids[3])] {
            if let Some(id) = id {
                generation.insert(key.into(), json!(id));
            }
        }
        match ends.as_slice() {
            [] => {}
            [one] => _ = generation.insert("eos_token_id".into(), json!(one)),
            many => _ = generation.insert("eos_token_id".into(), json!(many)),
        }
        Value::Object(generation)
    }
}

fn stored_merges(file: &File, merges: &[String], ids: &HashMap<&str, usize>) -> Result<Vec<Value>> {
    let pairs = merges.iter().enumerate().map(|(number, merge)| {
        let pair = merge.split_once(' ').filter(|(left, right)| {
            ids.contains_key(left) && ids.contains_key(right) && ids.contains_key(format!("{left}{right}").as_str())
        });
        let (left, right) = pair.ok_or_else(|| {
            Error::input(format!("merge {number}, `{}`, does not join two tokens to a third", shown(merge)))
                .at(file.path().display(), None)
        })?;
        Ok(json!([left, right]))
    });
    pairs.collect()
}

/// SentencePiece joins the neighbours whose union has the highest score, the leftmost of equals; BPE asks for pairs in
/// order. So each token gives all pairs that make it up, best score first.
fn merges_by_score(file: &File, tokens: &[String], kinds: &[Kind]) -> Result<Vec<Value>> {
    let key = "tokenizer.ggml.scores";
    let scores = file.numbers(key)?.map(super::Numbers::to_f64).filter(|scores| scores.len() == tokens.len());
    let scores = scores.filter(|scores| scores.iter().all(|score| score.is_finite()));
    let scores = scores.ok_or_else(|| file.wrong(key, "a finite number for each token"))?;
    let normal: HashMap<&str, usize> =
        (0..tokens.len()).filter(|id| kinds[*id] == Kind::Normal).map(|id| (tokens[id].as_str(), id)).collect();
    let mut order: Vec<usize> = normal.values().copied().collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut merges = Vec::new();
    for id in order {
        let token = tokens[id].as_str();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(
                beyond("the length of a token", token.len(), TOKEN_BYTES_MAX as u64, 0).at(file.path().display(), None)
            );
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let pairs = cuts.filter(|(left, right)| normal.contains_key(left) && normal.contains_key(right));
        merges.extend(pairs.map(|(left, right)| json!([left, right])));
        if merges.len() > MERGES_MAX {
            return Err(
                beyond("the number of merges", merges.len(), MERGES_MAX as u64, 0).at(file.path().display(), None)
            );
        }
    }
    Ok(merges)
}

fn spaces_as_marks(adds_space: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    match adds_space {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}),
        false => replace,
    }
}

fn marks_as_spaces(adds_space: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if adds_space {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// The post-processor that puts tokens around a text.
pub(super) fn template(tokens: &[String], before: Option<usize>, after: Option<usize>) -> Value {
    if before.is_none() && after.is_none() {
        return Value::Null;
    }
    let around = |sequence: &str, type_id: u8| {
        let special = |id: usize| json!({"SpecialToken": {"id": tokens[id], "type_id": type_id}});
        let text = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        before.map(special).into_iter().chain([text]).chain(after.map(special)).collect::<Vec<_>>()
    };
    let special: Map<String, Value> = before
        .iter()
        .chain(&after)
        .map(|id| (tokens[*id].clone(), json!({"id": tokens[*id], "ids": [id], "tokens": [tokens[*id]]})))
        .collect();
    let (single, second) = (around("A", 0), around("B", 1));
    let pair: Vec<&Value> = single.iter().chain(&second).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}

/// A tokenizer as GGUF keeps it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Exported {
    pub model: &'static str,
    pub pre: Option<&'static str>,
    pub tokens: Vec<String>,
    pub kinds: Vec<i32>,
    /// Where the model is `llama`.
    pub scores: Vec<f32>,
    /// Where the model is `gpt2`.
    pub merges: Vec<String>,
    pub adds_space: bool,
    pub adds_bos: bool,
    pub adds_eos: bool,
}

/// Takes a `tokenizer.json` apart; `vocab_size` is the number of rows of the embedding.
pub(super) fn export(tokenizer: &Map<String, Value>, vocab_size: usize) -> Result<Exported> {
    let null = Value::Null;
    let get = |key: &str| tokenizer.get(key).unwrap_or(&null);
    let model = get("model");
    // Old files do not say.
    if !matches!(model["type"].as_str(), None | Some("BPE")) || !model["merges"].is_array() {
        return Err(Error::input(format!("the tokenizer's model is {}, which is not written to GGUF", model["type"]))
            .help("supported: BPE"));
    }
    let ends_words = ["continuing_subword_prefix", "end_of_word_suffix"];
    if ends_words.iter().any(|key| model[key].as_str().is_some_and(|mark| !mark.is_empty())) {
        return Err(Error::input("the tokenizer marks parts of words, which GGUF cannot say"));
    }
    let mut exported = Exported {
        tokens: vec![String::new(); vocab_size],
        kinds: vec![Kind::Unused as i32; vocab_size],
        ..Exported::default()
    };
    let falls_back = model["byte_fallback"].as_bool() == Some(true);
    let unknown = model["unk_token"].as_str();
    let vocab = model["vocab"].as_object().ok_or_else(|| Error::input("the tokenizer has no vocabulary"))?;
    let added = get("added_tokens").as_array().map(Vec::as_slice).unwrap_or_default();
    for (token, id) in vocab {
        let kind = match token.as_str() {
            token if Some(token) == unknown && falls_back => Kind::Unknown,
            token if falls_back && is_byte(token) => Kind::Byte,
            _ => Kind::Normal,
        };
        exported.put(token, id, kind)?;
    }
    for token in added {
        let content = token["content"].as_str().ok_or_else(|| Error::input("an added token has no content"))?;
        let is_special = token["special"].as_bool() == Some(true);
        let kind = match is_special {
            true if Some(content) == unknown && falls_back => Kind::Unknown,
            true => Kind::Control,
            false => Kind::UserDefined,
        };
        exported.put(content, &token["id"], kind)?;
    }
    for (id, token) in exported.tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        *token = format!("[PAD{id}]");
    }
    let merges = model["merges"].as_array().into_iter().flatten().map(|merge| match merge {
        Value::String(merge) => merge.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())),
        pair => Some((pair[0].as_str()?.to_string(), pair[1].as_str()?.to_string())),
    });
    let merges: Option<Vec<(String, String)>> = merges.collect();
    let merges = merges.ok_or_else(|| Error::input("a merge of the tokenizer is no pair of tokens"))?;
    if falls_back {
        exported.model = "llama";
        // The best score to what is merged first; any order-preserving numbers will do.
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, (left, right)) in merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let last = ranks.len().max(merges.len());
        exported.scores = exported.tokens.iter().map(|token| -(*ranks.get(token).unwrap_or(&last) as f32)).collect();
        exported.adds_space = adds_space(get("normalizer"), get("pre_tokenizer"))?;
    } else {
        exported.model = "gpt2";
        let ignores = model["ignore_merges"].as_bool() == Some(true);
        exported.pre = Some(Cut::of_json(get("pre_tokenizer"), ignores)?.names[0]);
        exported.merges = merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    }
    (exported.adds_bos, exported.adds_eos) = surrounds(get("post_processor"));
    Ok(exported)
}

impl Exported {
    fn put(&mut self, token: &str, id: &Value, kind: Kind) -> Result<()> {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < self.tokens.len());
        let place = place.ok_or_else(|| {
            Error::input(format!("the token `{}` has the id {id}", shown(token)))
                .cause(format!("the embedding has {} rows", self.tokens.len()))
        })?;
        self.tokens[place] = token.into();
        self.kinds[place] = kind as i32;
        Ok(())
    }
}

fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether a text gets a space in front; only SentencePiece's ways of treating spaces are known.
fn adds_space(normalizer: &Value, pre_tokenizer: &Value) -> Result<bool> {
    let steps: Vec<&Value> = match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"].as_array().into_iter().flatten().collect(),
        Some(_) => vec![normalizer],
        None => vec![],
    };
    let marks = |step: &&Value| step["type"] == "Replace" && step["content"] == "▁";
    let prepends = |step: &&Value| step["type"] == "Prepend" && step["prepend"] == "▁";
    if steps.iter().any(marks) && steps.iter().all(|step| marks(step) || prepends(step)) {
        return Ok(steps.iter().any(prepends));
    }
    if steps.is_empty() && pre_tokenizer["type"] == "Metaspace" {
        let scheme = pre_tokenizer["prepend_scheme"].as_str();
        let adds = pre_tokenizer["add_prefix_space"].as_bool();
        return Ok(scheme.map_or(adds.unwrap_or(true), |scheme| scheme != "never"));
    }
    Err(Error::input("the tokenizer treats spaces in a way that GGUF cannot say")
        .cause(format!("`normalizer` is {}", shown(&normalizer.to_string()))))
}

/// Whether a post-processor puts a token before a text, and after it.
fn surrounds(post_processor: &Value) -> (bool, bool) {
    match post_processor["type"].as_str() {
        Some("Sequence") => {
            let all = post_processor["processors"].as_array().into_iter().flatten().map(surrounds);
            all.fold((false, false), |(before, after), (b, a)| (before || b, after || a))
        }
        Some("TemplateProcessing") => {
            let single = post_processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_special = |part: Option<&Value>| part.is_some_and(|part| part.get("SpecialToken").is_some());
            (is_special(single.first()), is_special(single.last()))
        }
        _ => (false, false),
    }
}
