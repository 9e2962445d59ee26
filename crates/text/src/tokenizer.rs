//! The tokenizer: text to ids and back, and training a byte-level BPE vocabulary.
//! Knows `tokenizer.json` (Hugging Face tokenizers' format), but neither chats nor documents.

use crate::config::TokenizerConfig;
use narthex_base::{Error, Result, text_file::text_of};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokenizers::{
    AddedToken, ProgressFormat, TokenizerBuilder, TokenizerImpl,
    models::bpe::{BPE, BpeTrainer},
    normalizers::NormalizerWrapper,
    pre_tokenizers::byte_level::ByteLevel,
    processors::PostProcessorWrapper,
};

/// Bytes that a byte-level vocabulary needs one token each for.
const BYTES: usize = 256;
/// Training cuts longer texts at a line end near this size, so that no text is held in pieces twice its size.
const TRAINING_CHUNK_BYTES: usize = 1 << 20;
/// The trainer counts pairs in 32 bits, so it must not see more bytes than this.
const TRAINING_LIMIT_BYTES: u64 = i32::MAX as u64;

/// A tokenizer as `tokenizer.json` describes it. Cheap to clone; usable from many threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// Without the post-processor, which may trim offsets; made on first use.
    plain: OnceLock<tokenizers::Tokenizer>,
    /// The exact file this came from.
    json: String,
    spelling: Spelling,
    special: HashSet<u32>,
    added: HashSet<u32>,
    vocab_size: usize,
}

/// How the vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Every byte is one printable character (GPT-2).
    ByteLevel,
    /// `▁` is a space where `spaces`; unknown characters are `<0x0A>` tokens (SentencePiece).
    ByteFallback { spaces: bool },
    /// Anything else: only the decoder knows.
    Other,
}

/// What a folder may have instead of a `tokenizer.json`.
const OTHER_FORMS: [&str; 4] = ["tokenizer.model", "vocab.json", "vocab.txt", "tekken.json"];

impl Tokenizer {
    /// Reads the tokenizer in a model's folder: `tokenizer.json`, with the tokens that only the files beside it name.
    ///
    /// # Errors
    /// If there is none, a file can't be read, or a token's id is not the one that it is said to have.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if !path.is_file()
            && let Some(other) = OTHER_FORMS.iter().find(|name| folder.join(name).is_file())
        {
            return Err(Error::input(format!("the tokenizer is {other}, which is not read"))
                .at(folder.display(), None)
                .help("write a tokenizer.json: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` of transformers"));
        }
        let config = TokenizerConfig::read(folder)?;
        let tokenizer = Self::from_file(&path)?;
        let tokenizer = tokenizer.with_settings(&config).map_err(|error| error.at(folder.display(), None))?;
        tokenizer.with_added(config.added_tokens()).map_err(|error| error.at(folder.display(), None))
    }

    /// The tokenizer with what the configuration beside it changes.
    fn with_settings(self, config: &TokenizerConfig) -> Result<Self> {
        let fault = |error| Error::internal("a tokenizer that was read is not JSON").cause(error);
        let json: serde_json::Value = serde_json::from_str(&self.0.json).map_err(fault)?;
        let mut changed = json.clone();
        config.applied(&mut changed)?;
        if changed == json { Ok(self) } else { Self::from_bytes(changed.to_string().as_bytes()) }
    }

    /// The tokenizer with these tokens, where it lacks them.
    fn with_added(self, added: Vec<crate::config::AddedToken>) -> Result<Self> {
        let missing: Vec<_> = added.into_iter().filter(|token| self.token_id(&token.content).is_none()).collect();
        if missing.is_empty() {
            return Ok(self);
        }
        let mut tokenizer = self.0.tokenizer.clone();
        for token in missing {
            let made = AddedToken::from(token.content.as_str(), token.special)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .single_word(token.single_word)
                .normalized(token.normalized);
            let fault = |error: tokenizers::Error| Error::input("a token cannot be added").cause(error);
            match token.special {
                true => tokenizer.add_special_tokens([made]).map_err(fault)?,
                false => tokenizer.add_tokens([made]).map_err(fault)?,
            };
            let id = tokenizer.token_to_id(&token.content);
            if token.id.is_some() && token.id != id {
                let (said, is) = (token.id.unwrap_or_default(), id.unwrap_or_default());
                return Err(Error::input(format!("the added token `{}` cannot have the id {said}", token.content))
                    .cause(format!("the next free id in tokenizer.json is {is}"))
                    .help("write the tokenizer anew with transformers' `save_pretrained`"));
            }
        }
        let json =
            tokenizer.to_string(false).map_err(|error| Error::internal("a tokenizer is not written").cause(error))?;
        Ok(Self::new(tokenizer, json))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file can't be read or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io("cannot read the tokenizer", path, error))?;
        let text = text_of(bytes, path)?;
        Self::from_bytes(text.as_bytes()).map_err(|error| error.at(path.display(), None))
    }

    /// The tokenizer in the bytes of a `tokenizer.json`. Truncation and padding settings in it are
    /// not applied, as transformers does not apply them unless asked.
    ///
    /// # Errors
    /// If the bytes are not a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let help = "the file must be Hugging Face's `tokenizer.json`; export or download it again";
        let json = std::str::from_utf8(bytes)
            .map_err(|error| Error::input("the tokenizer is not UTF-8").cause(error).help(help))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::input("the tokenizer can't be understood").cause(error).help(help))?;
        let reset = tokenizer.with_truncation(None).map(|tokenizer| _ = tokenizer.with_padding(None));
        reset.map_err(|error| Error::input("the tokenizer's truncation can't be reset").cause(error))?;
        Ok(Self::new(tokenizer, json.to_string()))
    }

    fn new(tokenizer: tokenizers::Tokenizer, json: String) -> Self {
        let spelling = serde_json::to_value(tokenizer.get_decoder()).map_or(Spelling::Other, |json| spelling(&json));
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let added = added.into_keys().collect();
        let vocab_size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Self(Arc::new(Inner { tokenizer, plain: OnceLock::new(), json, spelling, special, added, vocab_size }))
    }

    /// The `tokenizer.json`, byte for byte as it was read, or as it was trained.
    ///
    /// # Errors
    /// None at present.
    pub fn to_json(&self) -> Result<String> {
        Ok(self.0.json.clone())
    }

    /// Trains a byte-level BPE vocabulary (GPT-2's pre-tokenizer without a prefix space, all 256
    /// bytes, so that any text encodes and decodes to itself). `special_tokens` get the first ids.
    /// The same texts give the same tokenizer, whatever their order and the number of threads.
    /// The vocabulary is smaller than asked for where the texts hold too few pairs.
    ///
    /// # Errors
    /// If `vocab_size` is below 256 + `special_tokens`, or the texts exceed 2 GiB.
    pub fn train_bpe(
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
        special_tokens: &[&str],
    ) -> Result<Self> {
        let special: Vec<&str> = special_tokens.to_vec();
        if let Some(twice) =
            special.iter().enumerate().find(|(i, token)| token.is_empty() || special[..*i].contains(token))
        {
            return Err(Error::input(format!("the special token `{}` is empty or named twice", twice.1)));
        }
        let least = BYTES + special.len();
        if vocab_size < least {
            return Err(Error::input(format!("a vocabulary of {vocab_size} is too small for a byte-level tokenizer"))
                .cause(format!("{BYTES} bytes and {} special tokens need {least}", special.len()))
                .help(format!("set `vocab_size = {least}` or more")));
        }
        let level = ByteLevel::new(false, false, true);
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .progress_format(ProgressFormat::Silent)
            .special_tokens(special.iter().map(|token| AddedToken::from(*token, true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let fault = |error: tokenizers::Error| Error::internal("the tokenizer could not be trained").cause(error);
        let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel> =
            TokenizerBuilder::default()
                .with_model(BPE::default())
                .with_pre_tokenizer(Some(level))
                .with_decoder(Some(level))
                .build()
                .map_err(fault)?;
        let seen = AtomicU64::new(0);
        let within_limit = |text: &String| {
            seen.fetch_add(text.len() as u64, Ordering::Relaxed) + text.len() as u64 <= TRAINING_LIMIT_BYTES
        };
        tokenizer.train(&mut trainer, texts.take_while(within_limit).flat_map(chunks)).map_err(fault)?;
        if seen.into_inner() > TRAINING_LIMIT_BYTES {
            return Err(Error::input("the tokenizer can't be trained on more than 2 GiB of text")
                .help("train it on a sample: a few hundred megabytes give the same vocabulary"));
        }
        let tokenizer: tokenizers::Tokenizer = tokenizer.into();
        let json = tokenizer.to_string(false).map_err(fault)?;
        Ok(Self::new(tokenizer, json))
    }

    /// The ids of a text; with `add_special`, the tokens the post-processor adds too (often BOS).
    /// Special tokens spelt out in the text become their ids.
    ///
    /// # Errors
    /// If the tokenizer's model can't encode the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.0.tokenizer.encode_fast(text, add_special).map_err(cannot_encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What the post-processor puts before a text, the BOS token mostly.
    pub fn prefix(&self) -> Result<Vec<u32>> {
        const ANY: &str = "a";
        let (whole, plain) = (self.encode(ANY, true)?, self.encode(ANY, false)?);
        let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
        Ok(whole[..at.unwrap_or(0)].to_vec())
    }

    /// The ids of a text that goes on: with what the post-processor puts before it, without what it puts behind.
    ///
    /// # Errors
    /// If the tokenizer's model can't encode the text.
    pub fn encode_open(&self, text: &str) -> Result<Vec<u32>> {
        Ok([self.prefix()?, self.encode(text, false)?].concat())
    }

    /// [`encode`](Self::encode) of each text, in order, on all cores.
    ///
    /// # Errors
    /// If the tokenizer's model can't encode a text.
    pub fn encode_batch(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = self.0.tokenizer.encode_batch_fast(texts, add_special).map_err(cannot_encode)?;
        Ok(encodings.into_iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The library's own tokenizer, without truncation and padding.
    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.0.tokenizer
    }

    /// The ids of a text, each with the bytes of the text it stands for. Adds no special tokens.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, std::ops::Range<usize>)>> {
        let whole = &self.0.tokenizer;
        let tokenizer = match whole.get_post_processor() {
            None => whole,
            Some(_) => self.0.plain.get_or_init(|| {
                let mut plain = whole.clone();
                plain.with_post_processor(None::<PostProcessorWrapper>);
                plain
            }),
        };
        let encoding = tokenizer.encode(text, false).map_err(cannot_encode)?;
        let offsets = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
        Ok(encoding.get_ids().iter().copied().zip(offsets).collect())
    }

    /// The text of these ids. Bytes that are not UTF-8 become U+FFFD; unknown ids are left out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.0
            .tokenizer
            .decode(ids, skip_special)
            .map_err(|error| Error::input("cannot decode the tokens").cause(error))
    }

    /// One more than the largest id: the rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    /// The id of a token spelt as in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// The token as the vocabulary spells it (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.0.tokenizer.id_to_token(id)
    }

    /// Whether this is a special token (left out when decoding with `skip_special`).
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// Whether this token stands beside the vocabulary, special or not, as those that end turns do.
    pub fn is_added(&self, id: u32) -> bool {
        self.0.added.contains(&id)
    }

    /// Whether this token is no text but a mark: a special one, or one beside the vocabulary that is written like a tag
    /// (`<tool_call>`, `[/THINK]`).
    pub fn is_mark(&self, id: u32) -> bool {
        if self.is_special(id) {
            return true;
        }
        let text = if self.is_added(id) { self.token_text(id).unwrap_or_default() } else { String::new() };
        let tagged = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
        text.len() > 2 && (tagged('<', '>') || tagged('[', ']')) && !text.contains(char::is_whitespace)
    }

    /// The bytes a token stands for; they need not be UTF-8 by themselves. For vocabularies that
    /// are neither byte-level nor byte-fallback, the token decoded by itself.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let text = self.token_text(id)?;
        match self.0.spelling {
            Spelling::ByteLevel => Some(level_bytes(&text)),
            Spelling::ByteFallback { spaces } => Some(match fallback_byte(&text) {
                Some(byte) => vec![byte],
                None if spaces && !self.is_special(id) => text.replace('▁', " ").into_bytes(),
                None => text.into_bytes(),
            }),
            Spelling::Other => self.decode(&[id], false).ok().map(String::into_bytes),
        }
    }

    /// Whether a text is the concatenation of its tokens' bytes.
    pub(crate) fn is_byte_level(&self) -> bool {
        self.0.spelling == Spelling::ByteLevel
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.0.vocab_size)
    }
}

fn cannot_encode(error: tokenizers::Error) -> Error {
    Error::input("cannot encode the text").cause(error)
}

/// A text in pieces of about [`TRAINING_CHUNK_BYTES`], cut after line ends.
fn chunks(text: String) -> Vec<String> {
    if text.len() <= TRAINING_CHUNK_BYTES {
        return vec![text];
    }
    let mut pieces = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let last = pieces.last_mut().expect("starts with one piece");
        match last.len() + line.len() > TRAINING_CHUNK_BYTES && !last.is_empty() {
            true => pieces.push(line.to_string()),
            false => last.push_str(line),
        }
    }
    pieces
}

fn spelling(decoder: &Value) -> Spelling {
    let steps: Vec<&Value> = match decoder["decoders"].as_array() {
        Some(steps) => steps.iter().collect(),
        None => vec![decoder],
    };
    let has = |kind: &str| steps.iter().any(|step| step["type"] == kind);
    let replaces =
        |step: &&Value| step["type"] == "Replace" && step["pattern"]["String"] == "▁" && step["content"] == " ";
    if steps.len() == 1 && has("ByteLevel") {
        Spelling::ByteLevel
    } else if has("ByteFallback") {
        Spelling::ByteFallback { spaces: has("Metaspace") || steps.iter().any(replaces) }
    } else {
        Spelling::Other
    }
}

/// GPT-2's table from characters to bytes: printable Latin-1 characters are themselves, the other
/// bytes are U+0100 and up, in order (`bytes_to_unicode` in OpenAI's `gpt-2/src/encoder.py`).
fn level_table() -> &'static HashMap<char, u8> {
    static TABLE: OnceLock<HashMap<char, u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut next = 0x100;
        let spell = |byte: u8| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                next += 1;
                (char::from_u32(next - 1).expect("below U+0200"), byte)
            }
        };
        (0..=u8::MAX).map(spell).collect()
    })
}

/// As the byte-level decoder does it: a token with any other character is its own UTF-8.
fn level_bytes(token: &str) -> Vec<u8> {
    let table = level_table();
    let bytes: Option<Vec<u8>> = token.chars().map(|character| table.get(&character).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte in `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

    pub fn trained() -> Tokenizer {
        let texts = ["the cat sat on the mat, then the other cats sat\n".repeat(20), "naïve façade — €5\n".repeat(5)];
        Tokenizer::train_bpe(texts.into_iter(), 280, &SPECIAL).unwrap()
    }

    /// A SentencePiece-like vocabulary: `▁` for spaces, `<0x..>` for bytes.
    pub fn byte_fallback() -> Tokenizer {
        let mut vocab: Vec<(String, usize)> = (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte)).collect();
        let more = ["▁", "▁Hello", "▁world", "a", "<s>", "<unk>"];
        vocab.extend(more.iter().enumerate().map(|(i, token)| (token.to_string(), 256 + i)));
        let vocab: serde_json::Map<String, Value> = vocab.into_iter().map(|(token, id)| (token, id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 260, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", "vocab": vocab, "merges": []},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn training_is_deterministic_and_special_tokens_come_first() {
        let tokenizer = trained();
        assert_eq!(tokenizer.to_json().unwrap(), trained().to_json().unwrap());
        for (id, token) in SPECIAL.iter().enumerate() {
            assert_eq!(tokenizer.token_id(token), Some(id as u32));
            assert!(tokenizer.is_special(id as u32));
        }
        assert_eq!(tokenizer.vocab_size(), 280);
        let again = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.to_json().unwrap(), tokenizer.to_json().unwrap());
        assert_eq!(again.encode("the cats", false).unwrap(), tokenizer.encode("the cats", false).unwrap());
    }

    #[test]
    fn the_order_of_texts_does_not_matter() {
        let words = |i: usize| format!("w{} x{} the{}\n", i % 7, i % 11, i % 3).repeat(3);
        let train = |texts: Vec<String>| Tokenizer::train_bpe(texts.into_iter(), 340, &[]).unwrap().to_json().unwrap();
        let forwards = train((0..200).map(words).collect());
        assert_eq!(forwards, train((0..200).rev().map(words).collect()));
        assert_eq!(forwards, train(vec![(0..200).map(words).collect()]));
    }

    #[test]
    fn any_text_survives() {
        let tokenizer = trained();
        for text in
            ["", "the cat", "  two  spaces ", "日本語 🦀 \u{0} \r\n\t", "naïve", "a\u{fffd}b", "<|im_start|>user\n"]
        {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
            let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
            assert_eq!(bytes, text.as_bytes());
        }
        assert_eq!(tokenizer.encode("<|im_start|>", false).unwrap(), [1]);
        assert_eq!(tokenizer.decode(&[1], true).unwrap(), "");
        let texts: Vec<String> = (0..50).map(|i| format!("the cat {i}")).collect();
        let one_by_one: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text, false).unwrap()).collect();
        assert_eq!(tokenizer.encode_batch(&texts, false).unwrap(), one_by_one);
    }

    #[test]
    fn bytes_of_fallback_vocabularies() {
        let tokenizer = byte_fallback();
        for (id, bytes) in [(0x0a, &b"\n"[..]), (0xe2, b"\xe2"), (257, b" Hello"), (259, b"a"), (260, b"<s>")] {
            assert_eq!(tokenizer.token_bytes(id).unwrap(), bytes, "{id}");
        }
        assert_eq!(tokenizer.token_bytes(999), None);
        assert_eq!(tokenizer.token_text(257).unwrap(), "▁Hello");
    }

    /// Ids as transformers 5.24 gives them for such a folder.
    #[test]
    fn tokens_that_stand_beside_the_vocabulary_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), trained().to_json().unwrap()).unwrap();
        let write = |json: &str| std::fs::write(folder.path().join("tokenizer_config.json"), json).unwrap();
        write(
            r#"{"added_tokens_decoder": {"280": {"content": "<new>", "special": false}}, "extra_special_tokens": ["<tool>"]}"#,
        );
        let read = Tokenizer::read(folder.path()).unwrap();
        assert_eq!(read.encode("<new><tool>", false).unwrap(), [280, 281]);
        assert_eq!((read.is_special(280), read.is_special(281), read.vocab_size()), (false, true, 282));
        let again = Tokenizer::from_bytes(read.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.encode("<new><tool>", false).unwrap(), [280, 281]);
        write(r#"{"added_tokens_decoder": {"300": {"content": "<new>"}}}"#);
        assert!(Tokenizer::read(folder.path()).unwrap_err().what().contains("cannot have the id 300"));
        std::fs::rename(folder.path().join("tokenizer.json"), folder.path().join("vocab.json")).unwrap();
        assert!(Tokenizer::read(folder.path()).unwrap_err().help_text().unwrap().contains("save_pretrained"));
    }

    #[test]
    fn the_prefix_is_what_the_post_processor_adds() {
        assert_eq!(trained().prefix().unwrap(), [0; 0]);
        let mut json: Value = serde_json::from_str(&trained().to_json().unwrap()).unwrap();
        json["post_processor"] = serde_json::json!({"type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]},
                "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}}});
        let framed = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        assert_eq!(framed.prefix().unwrap(), [1]);
    }

    #[test]
    fn refuses_with_a_fix() {
        let train = |size, special: &[&str]| {
            Tokenizer::train_bpe(std::iter::once("a".into()), size, special).unwrap_err().to_string()
        };
        assert!(train(258, &SPECIAL).contains("set `vocab_size = 259` or more"));
        assert!(train(300, &["<a>", "<a>"]).contains("named twice"));
        for bytes in [&b"{}"[..], b"\xff", b"{\"model\":", b""] {
            assert!(Tokenizer::from_bytes(bytes).unwrap_err().to_string().contains("tokenizer.json"));
        }
        assert!(
            Tokenizer::from_file(Path::new("/nowhere/tokenizer.json")).unwrap_err().to_string().contains("/nowhere")
        );
    }

    #[test]
    fn long_texts_are_cut_at_line_ends() {
        let text = "line\n".repeat(TRAINING_CHUNK_BYTES / 2);
        let pieces = chunks(text.clone());
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.ends_with('\n')));
        assert_eq!(pieces.concat(), text);
    }
}
