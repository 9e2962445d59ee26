//! How text is cut before byte-level BPE, by llama.cpp's name (`tokenizer.ggml.pre`) and as Hugging Face's tokenizers
//! describe it. One list, read in both directions. Knows no vocabularies.

use narthex_base::{Error, Result};
use serde_json::{Value, json};

/// A way of cutting.
pub(super) struct Cut {
    /// llama.cpp's names for it; the first is written.
    pub names: &'static [&'static str],
    pub steps: &'static [Step],
    /// Whether a whole piece that is in the vocabulary is taken as it is.
    pub ignore_merges: bool,
    /// Whether text is brought to Unicode's form NFC before.
    pub nfc: bool,
}

/// A step of cutting.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Matches and what lies between them become pieces.
    Split(&'static str),
    /// Each digit is a piece.
    Digits,
    /// The regular expression of GPT-2.
    Gpt2,
    /// A step of `tokenizer.json` as it stands.
    Exact(&'static str),
}

/// GPT-4's expression (cl100k), with up to three digits in a piece.
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with one digit in a piece.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's expression (o200k).
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: o200k without English endings, one digit in a piece.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// DeepSeek's first: words with the space before them, marks, and scripts of East Asia.
const DEEPSEEK_WORDS: &str = "\
    \\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\
    \u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\
    \u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\
    \u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\
    \u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\
    \u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\
    \u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\
    \u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\
    \u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\
    \u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\
    \u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\
    \u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\
    \u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";
const DEEPSEEK_MARKS: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const DEEPSEEK_EAST: &str = r"[一-龥ࠀ-一가-퟿]+";
/// That of DeepSeek-V3, after digits and East Asia.
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"##,
    "\r\n",
    r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[",
    "\r\n",
    r"]*|\s*[",
    "\r\n",
    r"]+|\s+(?!\S)|\s+"
);
/// BLOOM's.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
/// Seed-Coder's: Qwen2's with line ends apart from marks.
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^",
    "\r\n",
    r"\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}",
    "\r\n",
    r"]+|\s*[",
    "\r\n",
    r"]+|\s+(?!\S)|\s+"
);

/// All of them.
pub(super) static CUTS: [Cut; 15] = [
    Cut {
        names: &[
            "gpt-2",
            "olmo",
            "phi-2",
            "mpt",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jais",
            "trillion",
            "granite-docling",
        ],
        steps: &[Step::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[Step::Split(CL100K)],
        ignore_merges: true,
        nfc: false,
    },
    Cut {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        steps: &[Step::Split(CL100K)],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo", "f2llmv2"],
        steps: &[Step::Split(QWEN2)],
        ignore_merges: false,
        nfc: true,
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        steps: &[Step::Digits, Step::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        steps: &[Step::Split(O200K)],
        ignore_merges: false,
        nfc: false,
    },
    Cut { names: &["tekken"], steps: &[Step::Split(TEKKEN)], ignore_merges: true, nfc: false },
    Cut {
        names: &["deepseek-llm"],
        steps: &[
            Step::Split("[\r\n]"),
            Step::Split(DEEPSEEK_WORDS),
            Step::Split(DEEPSEEK_MARKS),
            Step::Split(r"\s+$"),
            Step::Split(DEEPSEEK_EAST),
            Step::Digits,
        ],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["deepseek-coder"],
        steps: &[
            Step::Split("[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split(DEEPSEEK_EAST),
            Step::Digits,
        ],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["deepseek-v3", "hunyuan-dense"],
        steps: &[Step::Split(r"\p{N}{1,3}"), Step::Split("[一-龥\u{3040}-ゟ゠-ヿ]+"), Step::Split(DEEPSEEK3)],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["falcon"],
        // The last two see the spelling of bytes.
        steps: &[
            Step::Exact(r#"{"type": "Punctuation", "behavior": "Contiguous"}"#),
            Step::Exact(r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#),
            Step::Exact(r#"{"type": "Digits", "individual_digits": false}"#),
            Step::Split("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        steps: &[Step::Split(BLOOM)],
        ignore_merges: false,
        nfc: false,
    },
    Cut { names: &["viking"], steps: &[Step::Split(BLOOM), Step::Digits], ignore_merges: false, nfc: false },
    Cut { names: &["seed-coder"], steps: &[Step::Split(SEED_CODER)], ignore_merges: false, nfc: false },
    // What llama.cpp falls back to for files that say nothing.
    Cut {
        names: &["default"],
        steps: &[
            Step::Split(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Gpt2,
            Step::Split(r"\p{N}+"),
            Step::Split("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        nfc: false,
    },
];

/// GPT-2's expression, for where more steps follow it.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl Cut {
    /// The one with this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        CUTS.iter().find(|cut| cut.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = CUTS.iter().flat_map(|cut| cut.names).copied().collect();
            Error::input(format!("`tokenizer.ggml.pre` is `{}`, which is not supported", crate::bytes::shown(name)))
                .help(format!("supported: {}", known.join(", ")))
        })
    }

    /// `pre_tokenizer` in `tokenizer.json`.
    pub fn to_json(&self) -> Value {
        let byte_level = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let split = |expression: &str| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Value> = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            steps.push(match step {
                Step::Split(expression) => split(expression),
                Step::Digits => json!({"type": "Digits", "individual_digits": true}),
                Step::Gpt2 if place + 1 == self.steps.len() => byte_level(true),
                Step::Gpt2 => split(GPT2),
                Step::Exact(json) => serde_json::from_str(json).expect("our own table"),
            });
        }
        if steps.iter().all(|step| step["type"] != "ByteLevel") {
            steps.push(byte_level(false));
        }
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }

    /// The one that a `pre_tokenizer` in a `tokenizer.json` describes.
    pub fn of_json(pre_tokenizer: &Value, ignore_merges: bool) -> Result<&'static Self> {
        let wanted = essence(pre_tokenizer);
        let same = |cut: &&Cut| essence(&cut.to_json()) == wanted;
        let exact = CUTS.iter().filter(same).find(|cut| cut.ignore_merges == ignore_merges);
        exact.or_else(|| CUTS.iter().find(same)).ok_or_else(|| {
            Error::input("the tokenizer cuts text in a way that has no name in GGUF")
                .cause(format!("`pre_tokenizer` is {}", crate::bytes::shown(&pre_tokenizer.to_string())))
                .help("known are those of GPT-2, Llama 3, Qwen2, SmolLM, StarCoder, GPT-4o, DeepSeek, Falcon, BLOOM and Mistral's tekken")
        })
    }
}

/// What decides where text is cut, without what only decides offsets.
fn essence(pre_tokenizer: &Value) -> Vec<String> {
    match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().into_iter().flatten().flat_map(essence).collect(),
        Some("ByteLevel") => vec![format!(
            "bytes {} {}",
            pre_tokenizer["add_prefix_space"].as_bool().unwrap_or(true),
            // Absent in old files, when it always was.
            pre_tokenizer["use_regex"].as_bool().unwrap_or(true)
        )],
        Some("Digits") => vec![format!("digits {}", pre_tokenizer["individual_digits"])],
        _ => vec![format!("{} {} {}", pre_tokenizer["pattern"], pre_tokenizer["behavior"], pre_tokenizer["invert"])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_cutting_is_found_again() {
        for cut in &CUTS {
            let found = Cut::of_json(&cut.to_json(), cut.ignore_merges).unwrap();
            assert_eq!(found.names, cut.names);
            for name in cut.names {
                assert_eq!(Cut::named(name).unwrap().names, cut.names);
            }
        }
        let error = Cut::named("kimi-k2").err().unwrap();
        assert!(error.to_string().contains("`kimi-k2`, which is not supported"), "{error}");
        let other = json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": false});
        assert!(Cut::of_json(&other, false).err().unwrap().what().contains("no name in GGUF"));
    }

    /// Pieces by Python's `tokenizers`, with the pre-tokenizers that the families' own `tokenizer.json` have.
    #[test]
    fn families_cut_as_their_tokenizers_do() {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/gguf/golden.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let texts = golden["cut_texts"].as_array().unwrap();
        for (name, expected) in golden["cuts"].as_object().unwrap() {
            let cutter: PreTokenizerWrapper = serde_json::from_value(Cut::named(name).unwrap().to_json()).unwrap();
            for (text, pieces) in texts.iter().zip(expected.as_array().unwrap()) {
                let mut text = PreTokenizedString::from(text.as_str().unwrap());
                cutter.pre_tokenize(&mut text).unwrap();
                let found = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
                let found: Vec<&str> = found.iter().map(|(piece, ..)| *piece).collect();
                assert_eq!(json!(found), *pieces, "{name}");
            }
        }
    }
}
