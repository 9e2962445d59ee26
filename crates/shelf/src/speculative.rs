//! How tokens are guessed ahead, in vLLM's words. Reads JSON and compares vocabularies; loads nothing.

use narthex_base::{Error, Result};
use narthex_infer::{PROPOSED_TOKENS_MAX, Speculation, SpeculationMethod};
use narthex_model::Decoder;
use serde::Deserialize;

/// Tokens that are looked up at most and at least unless set otherwise.
const LOOKUP_MAX: usize = 4;
const LOOKUP_MIN: usize = 2;

/// The longest end of a sequence that is looked up.
const LOOKUP_LIMIT: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    Ngram,
    DraftModel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    method: Option<Method>,
    model: Option<String>,
    num_speculative_tokens: usize,
    prompt_lookup_max: Option<usize>,
    prompt_lookup_min: Option<usize>,
}

/// How tokens are guessed ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculativeConfig {
    tokens: usize,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Ngram { max: usize, min: usize },
    Draft(String),
}

impl SpeculativeConfig {
    /// Reads JSON.
    ///
    /// # Errors
    /// What is wrong with it, and an example.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let fields: Fields = serde_json::from_str(text).map_err(|error| {
            format!(
                "{error}; such as {{\"method\":\"ngram\",\"num_speculative_tokens\":5}} or \
                 {{\"model\":\"REF\",\"num_speculative_tokens\":3}}"
            )
        })?;
        let Fields { method, model, num_speculative_tokens: tokens, prompt_lookup_max, prompt_lookup_min } = fields;
        if !(1..=PROPOSED_TOKENS_MAX).contains(&tokens) {
            return Err(format!("`num_speculative_tokens` is from 1 to {PROPOSED_TOKENS_MAX}"));
        }
        let looks_up = prompt_lookup_max.is_some() || prompt_lookup_min.is_some();
        let source = match (method, model) {
            (Some(Method::Ngram), Some(_)) => return Err("`ngram` takes no `model`".into()),
            (None | Some(Method::DraftModel), Some(_)) if looks_up => {
                return Err("a draft model takes no `prompt_lookup_max` or `prompt_lookup_min`".into());
            }
            (None | Some(Method::DraftModel), Some(model)) => Source::Draft(model),
            (Some(Method::DraftModel), None) => return Err("a draft model is named by `model`".into()),
            (None, None) => return Err("`method` is \"ngram\", or `model` names a draft model".into()),
            (Some(Method::Ngram), None) => {
                let min = prompt_lookup_min
                    .unwrap_or_else(|| prompt_lookup_max.map_or(LOOKUP_MIN, |max| max.min(LOOKUP_MIN)));
                let max = prompt_lookup_max.unwrap_or(LOOKUP_MAX.max(min));
                if !(1..=max).contains(&min) || max > LOOKUP_LIMIT {
                    return Err(format!("1 <= `prompt_lookup_min` <= `prompt_lookup_max` <= {LOOKUP_LIMIT}"));
                }
                Source::Ngram { max, min }
            }
        };
        Ok(Self { tokens, source })
    }

    /// The draft model's reference, if there is one.
    pub fn draft(&self) -> Option<&str> {
        match &self.source {
            Source::Ngram { .. } => None,
            Source::Draft(reference) => Some(reference),
        }
    }

    /// For an engine with this model; `draft` is the draft model, where the config names one.
    ///
    /// # Errors
    /// If the draft model has another vocabulary.
    pub fn speculation(&self, model: &Decoder, draft: Option<Decoder>) -> Result<Speculation> {
        let method = match &self.source {
            Source::Ngram { max, min } => SpeculationMethod::Ngram { max: *max, min: *min },
            Source::Draft(reference) => {
                let draft = draft.ok_or_else(|| Error::internal(format!("`{reference}` was not loaded")))?;
                let (wanted, found) = (model.config().vocab_size, draft.config().vocab_size);
                if wanted != found {
                    let what =
                        format!("`{reference}` cannot guess for this model: it has {found} tokens, not {wanted}");
                    return Err(Error::input(what).help(
                        "take a smaller model of the same family, with the same tokenizer, or `\"method\":\"ngram\"`",
                    ));
                }
                SpeculationMethod::Draft(Box::new(draft))
            }
        };
        Ok(Speculation { method, tokens: self.tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_read_or_refused() {
        let ngram = |tokens, max, min| Ok(SpeculativeConfig { tokens, source: Source::Ngram { max, min } });
        let draft = |tokens, model: &str| Ok(SpeculativeConfig { tokens, source: Source::Draft(model.into()) });
        for (text, expected) in [
            (
                r#"{"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":4,"prompt_lookup_min":2}"#,
                ngram(5, 4, 2),
            ),
            (r#"{"method":"ngram","num_speculative_tokens":5}"#, ngram(5, 4, 2)),
            (r#"{"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":1}"#, ngram(5, 1, 1)),
            (r#"{"method":"ngram","num_speculative_tokens":1,"prompt_lookup_min":6}"#, ngram(1, 6, 6)),
            (r#"{"model":"small","num_speculative_tokens":4}"#, draft(4, "small")),
            (r#"{"method":"draft_model","model":"small","num_speculative_tokens":4}"#, draft(4, "small")),
            (r#"{"method":"ngram"}"#, Err("missing field `num_speculative_tokens`")),
            (r#"{"method":"ngram","num_speculative_tokens":0}"#, Err("from 1 to 16")),
            (r#"{"method":"ngram","num_speculative_tokens":17}"#, Err("from 1 to 16")),
            (r#"{"method":"ngram","num_speculative_tokens":2,"prompt_lookup_min":0}"#, Err("1 <= ")),
            (r#"{"method":"ngram","num_speculative_tokens":2,"prompt_lookup_max":65}"#, Err("<= 64")),
            (
                r#"{"method":"ngram","num_speculative_tokens":2,"prompt_lookup_max":1,"prompt_lookup_min":2}"#,
                Err("1 <= "),
            ),
            (r#"{"method":"ngram","model":"small","num_speculative_tokens":2}"#, Err("takes no `model`")),
            (
                r#"{"model":"small","num_speculative_tokens":2,"prompt_lookup_max":2}"#,
                Err("takes no `prompt_lookup_max`"),
            ),
            (r#"{"method":"draft_model","num_speculative_tokens":2}"#, Err("named by `model`")),
            (r#"{"num_speculative_tokens":2}"#, Err("`method` is")),
            (r#"{"method":"eagle","num_speculative_tokens":2}"#, Err("unknown variant `eagle`")),
            (r#"{"method":"ngram","num_speculative_tokens":2,"tokens":2}"#, Err("unknown field `tokens`")),
            ("ngram", Err("such as {")),
        ] {
            match (SpeculativeConfig::parse(text), expected) {
                (Err(found), Err(part)) => assert!(found.contains(part), "{text}: {found}"),
                (found, expected) => assert_eq!(found, expected.map_err(String::from), "{text}"),
            }
        }
    }
}
