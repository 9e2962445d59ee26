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

/// All of them.
pub(super) static CUTS: [Cut; 8] = [
    Cut {
        names: &["gpt-2", "olmo", "phi-2", "mpt", "roberta-bpe", "jina-es", "jina-de", "exaone4"],
        steps: &[Step::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"],
        steps: &[Step::Split(CL100K)],
        ignore_merges: true,
        nfc: false,
    },
    Cut {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        steps: &[Step::Split(CL100K)],
        ignore_merges: false,
        nfc: false,
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        steps: &[Step::Split(QWEN2)],
        ignore_merges: false,
        nfc: true,
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell"],
        steps: &[Step::Digits, Step::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Cut { names: &["gpt-4o", "llama4"], steps: &[Step::Split(O200K)], ignore_merges: false, nfc: false },
    Cut { names: &["tekken"], steps: &[Step::Split(TEKKEN)], ignore_merges: true, nfc: false },
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
            });
        }
        if !matches!(self.steps.last(), Some(Step::Gpt2)) {
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
                .help("known are those of GPT-2, Llama 3, Qwen2, SmolLM, StarCoder, GPT-4o and Mistral's tekken")
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
        let error = Cut::named("poro-chat").err().unwrap();
        assert!(error.to_string().contains("`poro-chat`, which is not supported"), "{error}");
        let other = json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": false});
        assert!(Cut::of_json(&other, false).err().unwrap().what().contains("no name in GGUF"));
    }
}
