//! What becomes of the keys of a `tokenizer_config.json`: which are read, which change nothing and why, and which
//! change the `tokenizer.json` beside it. Knows transformers' classes of tokenizers by name.

use crate::config::TokenizerConfig;
use narthex_base::{Error, Result};
use serde_json::Value;

/// Keys that change nothing here, and why. Those that name a token, `…_token`, are for templates.
const WITHOUT_EFFECT: [(&str, &[&str]); 5] = [
    (
        "names and versions",
        &[
            "added_tokens_file",
            "auto_map",
            "backend",
            "from_slow",
            "init_inputs",
            "is_local",
            "local_files_only",
            "merges_file",
            "name_or_path",
            "processor_class",
            "slow_tokenizer_class",
            "special_tokens_map_file",
            "tokenizer_class",
            "tokenizer_file",
            "transformers_version",
            "trust_remote_code",
            "use_fast",
            "vocab_file",
        ],
    ),
    (
        "how texts of different lengths make a batch; the lengths are the model's",
        &[
            "max_len",
            "max_length",
            "model_input_names",
            "model_max_length",
            "pad_to_multiple_of",
            "pad_token_type_id",
            "padding",
            "padding_side",
            "return_token_type_ids",
            "stride",
            "truncation",
            "truncation_side",
            "truncation_strategy",
        ],
    ),
    (
        "`tokenizer.json` says it, and transformers goes by that where there is one",
        &[
            "add_bos_token",
            "add_dummy_prefix_space",
            "add_eos_token",
            "byte_fallback",
            "clean_text",
            "do_basic_tokenize",
            "errors",
            "fix_mistral_regex",
            "keep_accents",
            "legacy",
            "never_split",
            "remove_space",
            "sp_model_kwargs",
            "trim_offsets",
            "unk_id",
            "wordpieces_prefix",
        ],
    ),
    (
        "how transformers tidies text that was decoded: here it is what the tokens say",
        &[
            "clean_up_tokenization_spaces",
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
            "spaces_between_special_tokens",
        ],
    ),
    ("templates of before there were templates", &["default_chat_template", "use_default_system_prompt"]),
];

/// Keys that are read, besides those with a field of their own.
const READ: [&str; 9] = [
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "do_lower_case",
    "extra_special_tokens",
    "model_specific_special_tokens",
    "strip_accents",
    "tokenize_chinese_chars",
    "split_special_tokens",
];

/// Classes of transformers that apply `add_prefix_space`, without `Tokenizer` at the end. What a class applies it
/// applies with its default too, where the file is silent.
const PREFIX_SPACE: [&str; 11] =
    ["Bart", "Blenderbot", "Bloom", "CodeGen", "Deberta", "GPT2", "GPTNeoX", "LED", "Longformer", "Mvp", "Roberta"];

/// Classes that apply `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`.
const BERT: [&str; 9] =
    ["Bert", "DistilBert", "DPRReader", "Electra", "LayoutLM", "Lxmert", "MPNet", "MobileBert", "SqueezeBert"];

impl TokenizerConfig {
    /// The keys that nobody reads and that say something. Warned of once, since they may be a later version's.
    pub fn unread(&self) -> Vec<&str> {
        let known = |key: &str| {
            READ.contains(&key)
                || WITHOUT_EFFECT.iter().any(|(_, keys)| keys.contains(&key))
                || key.ends_with("_token")
                || key.starts_with('_')
        };
        let says = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        self.other.iter().filter(|(key, value)| says(value) && !known(key)).map(|(key, _)| key.as_str()).collect()
    }

    /// What transformers changes in the `tokenizer.json` beside it when it reads both: the classes of tokenizers have
    /// their settings from here.
    ///
    /// # Errors
    /// If it asks for what is not supported.
    pub(crate) fn applied(&self, tokenizer: &mut Value) -> Result<()> {
        if self.other.get("split_special_tokens") == Some(&Value::Bool(true)) {
            return Err(Error::input("`split_special_tokens` = true in tokenizer_config.json is not supported")
                .cause("special tokens in a text would be spelt out, those of templates too")
                .help("set it to false"));
        }
        let class = self.other.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let class = class.trim_end_matches("Fast").trim_end_matches("Tokenizer");
        let asked = |key: &str, default: Value| match self.other.get(key) {
            Some(value) if value.is_boolean() => value.clone(),
            _ => default,
        };
        if BERT.contains(&class) && tokenizer["normalizer"]["type"] == "BertNormalizer" {
            let normalizer = &mut tokenizer["normalizer"];
            normalizer["lowercase"] = asked("do_lower_case", true.into());
            normalizer["strip_accents"] = asked("strip_accents", Value::Null);
            normalizer["handle_chinese_chars"] = asked("tokenize_chinese_chars", true.into());
        }
        if PREFIX_SPACE.contains(&class) {
            let adds = asked("add_prefix_space", false.into());
            let outer = &mut tokenizer["pre_tokenizer"];
            let steps: Vec<&mut Value> = match outer["type"] == "Sequence" {
                true => outer["pretokenizers"].as_array_mut().into_iter().flatten().collect(),
                false => vec![outer],
            };
            for step in steps.into_iter().filter(|step| step["type"] == "ByteLevel") {
                step["add_prefix_space"] = adds.clone();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(keys: Value) -> TokenizerConfig {
        TokenizerConfig::from_json(&keys.to_string()).unwrap()
    }

    /// As transformers 5.24 and 4.57 do: `xtask/checks/tokenizer_check.py`.
    #[test]
    fn classes_have_their_settings_from_the_configuration() {
        let bert = json!({"normalizer": {"type": "BertNormalizer", "lowercase": false, "strip_accents": false,
            "handle_chinese_chars": false}});
        for (keys, expected) in [
            (json!({}), json!([false, false, false])),
            (
                json!({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": true}),
                json!([false, false, false]),
            ),
            (json!({"tokenizer_class": "BertTokenizer"}), json!([true, null, true])),
            (json!({"tokenizer_class": "BertTokenizerFast", "do_lower_case": false}), json!([false, null, true])),
            (
                json!({"tokenizer_class": "ElectraTokenizer", "strip_accents": true, "tokenize_chinese_chars": false}),
                json!([true, true, false]),
            ),
        ] {
            let mut found = bert.clone();
            config(keys.clone()).applied(&mut found).unwrap();
            let found =
                ["lowercase", "strip_accents", "handle_chinese_chars"].map(|key| found["normalizer"][key].clone());
            assert_eq!(json!(found), expected, "{keys}");
        }
        let bytes = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits"}, {"type": "ByteLevel", "add_prefix_space": true}]}});
        for (keys, expected) in [
            (json!({"tokenizer_class": "TokenizersBackend", "add_prefix_space": false}), true),
            (json!({"tokenizer_class": "GPT2Tokenizer"}), false),
            (json!({"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": true}), true),
        ] {
            let mut found = bytes.clone();
            config(keys.clone()).applied(&mut found).unwrap();
            assert_eq!(found["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"], expected, "{keys}");
        }
        let error = config(json!({"split_special_tokens": true})).applied(&mut json!({})).unwrap_err();
        assert!(error.what().contains("`split_special_tokens` = true"), "{error}");
    }

    #[test]
    fn keys_that_nobody_reads_are_named() {
        let keys = json!({
            "tokenizer_class": "GPT2Tokenizer", "model_max_length": 8, "image_token": "<image>", "legacy": true,
            "brand_new": 7, "another": false, "added_tokens_decoder": {}
        });
        assert_eq!(config(keys).unread(), ["brand_new"]);
    }

    /// transformers adds the tokens that are named and that no vocabulary has.
    #[test]
    fn named_tokens_are_there() {
        let keys = json!({"eos_token": "<end>", "pad_token": {"content": "<pad>", "lstrip": true},
            "extra_special_tokens": ["<new>", "<pad>"]});
        let added: Vec<String> = config(keys).added_tokens().into_iter().map(|token| token.content).collect();
        assert_eq!(added, ["<end>", "<pad>", "<new>"]);
    }
}
