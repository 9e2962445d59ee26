//! The fields that chat and completions share: which model, how many choices, how tokens are
//! chosen, when to stop and whether to stream. Knows neither messages nor prompts.

use crate::{Limits, SamplingDefaults, ServedModel, error::ApiError, fields::Fields};
use axum::http::StatusCode;
use narthex_infer::{Request, Sampling};
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};

/// What both endpoints read the same way.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// Choices per prompt.
    pub n: usize,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// How tokens are chosen; the seed is that of the first choice.
    pub sampling: Sampling,
    /// Whether to send the answer piece by piece.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// Report each token's log-probability and this many alternatives; each endpoint asks for it
    /// in a way of its own.
    pub logprobs: Option<usize>,
}

impl Parameters {
    /// Reads the shared fields.
    pub fn read(fields: &mut Fields, model: &ServedModel, limits: &Limits) -> Result<Self, ApiError> {
        let name = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
        check_model(&name, model)?;
        let n = fields.integer("n", 1..=limits.n_max as i64)?.unwrap_or(1) as usize;
        let sampling = read_sampling(fields, &model.defaults)?;
        let stop = read_stop(fields.take("stop"), limits)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        let include_usage = read_stream_options(fields, stream)?;
        refuse_unsupported(fields)?;
        Ok(Self { n, stop, sampling, stream, include_usage, logprobs: None })
    }

    /// The requests for one prompt, one per choice; choice `i` of the whole answer adds `i` to the seed.
    pub fn requests(&self, first: usize, request: &Request) -> Vec<Request> {
        (first..first + self.n)
            .map(|index| {
                let seed = self.sampling.seed.wrapping_add(index as u64);
                Request { sampling: Sampling { seed, ..self.sampling.clone() }, ..request.clone() }
            })
            .collect()
    }
}

/// Refuses any name but that of the served model.
pub(crate) fn check_model(name: &str, model: &ServedModel) -> Result<(), ApiError> {
    if name == model.id {
        return Ok(());
    }
    let message = format!("the model `{name}` does not exist; this server has `{}`", model.id);
    Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("model_not_found")).param("model"))
}

fn read_sampling(fields: &mut Fields, defaults: &SamplingDefaults) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.map_or(defaults.temperature, |number| number as f32);
    // The smallest set of tokens has one token, so 0 means greedy choice, as with OpenAI.
    let top_p =
        fields.number("top_p", 0.0..=1.0)?.map_or(defaults.top_p, |number| number as f32).max(f32::MIN_POSITIVE);
    let top_k = match fields.integer("top_k", -1..=i64::from(u32::MAX))? {
        None => defaults.top_k,
        Some(number) => number.max(0) as usize, // -1 keeps all, as with vLLM
    };
    let seed = match fields.take("seed") {
        None => entropy(),
        Some(value) => match value.as_i64().map(|seed| seed as u64).or_else(|| value.as_u64()) {
            Some(seed) => seed,
            None => return Err(ApiError::field("seed", "`seed` must be a whole number of 64 bits")),
        },
    };
    Ok(Sampling { temperature, top_k, top_p, seed })
}

/// 64 bits that differ each time: std keys each hasher's state from the system's entropy.
pub(crate) fn entropy() -> u64 {
    RandomState::new().hash_one(0u64)
}

fn read_stop(value: Option<Value>, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field("stop", "`stop` must be a string or a list of strings");
    let stops: Vec<String> = match value {
        None => vec![],
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|stop| if let Value::String(stop) = stop { Ok(stop) } else { Err(wrong()) })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    if stops.len() > limits.stop_strings_max {
        return Err(ApiError::field("stop", format!("`stop` may have {} strings at most", limits.stop_strings_max)));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "a string in `stop` must not be empty"));
    }
    if stops.iter().any(|stop| stop.len() > limits.stop_string_bytes_max) {
        let message = format!("a string in `stop` may have {} bytes at most", limits.stop_string_bytes_max);
        return Err(ApiError::field("stop", message));
    }
    Ok(stops)
}

fn read_stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::field("stream_options", "`stream_options` needs `stream` to be true"));
    }
    let include_usage = options.flag("include_usage")?.unwrap_or(false);
    options.unsupported("include_obfuscation", &[json!(false)])?;
    options.finish()?;
    Ok(include_usage)
}

/// Fields of OpenAI and vLLM that would change the answer if we could honour them.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (field, neutral) in [
        ("frequency_penalty", json!(0)),
        ("presence_penalty", json!(0)),
        ("repetition_penalty", json!(1)),
        ("min_p", json!(0)),
        ("min_tokens", json!(0)),
        ("logit_bias", json!({})),
        ("ignore_eos", json!(false)),
        ("stop_token_ids", json!([])),
    ] {
        fields.unsupported(field, &[neutral])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, message_of};

    fn check(body: Value, expected: Result<(&str, Sampling), &str>) {
        let model = testing::model(|_| vec![]);
        let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        match (Parameters::read(&mut fields, &model, &Limits::default()), expected) {
            (Ok(parameters), Ok((stop, sampling))) => {
                assert_eq!(parameters.stop.join("|"), stop, "{body}");
                assert_eq!(parameters.sampling, sampling, "{body}");
            }
            (Err(error), Err(message)) => assert_eq!(message_of(&error), message, "{body}"),
            (outcome, _) => panic!("{body}: {outcome:?}"),
        }
    }

    #[test]
    fn reads_how_to_sample() {
        let seed = |seed| Sampling { seed, ..Sampling::default() };
        for (body, stop, sampling) in [
            (json!({"model": "m", "seed": 7}), "", seed(7)),
            (json!({"model": "m", "seed": -1, "stop": "x"}), "x", seed(u64::MAX)),
            (json!({"model": "m", "seed": u64::MAX, "stop": ["x", "y"]}), "x|y", seed(u64::MAX)),
            (
                json!({"model": "m", "seed": 1, "temperature": 0, "top_p": 0.5, "top_k": 3}),
                "",
                Sampling { temperature: 0.0, top_p: 0.5, top_k: 3, seed: 1 },
            ),
            (json!({"model": "m", "seed": 1, "top_k": -1}), "", seed(1)),
            (json!({"model": "m", "seed": 1, "presence_penalty": 0, "logit_bias": {}}), "", seed(1)),
        ] {
            check(body, Ok((stop, sampling)));
        }
        for (body, message) in [
            (json!({}), "model: the field `model` is missing"),
            (json!({"model": "x"}), "model: the model `x` does not exist; this server has `m`"),
            (json!({"model": "m", "seed": 1.5}), "seed: `seed` must be a whole number of 64 bits"),
            (json!({"model": "m", "stop": [1]}), "stop: `stop` must be a string or a list of strings"),
            (json!({"model": "m", "stop": ""}), "stop: a string in `stop` must not be empty"),
            (json!({"model": "m", "stop": vec!["x"; 17]}), "stop: `stop` may have 16 strings at most"),
            (
                json!({"model": "m", "stream_options": {"include_usage": true}}),
                "stream_options: `stream_options` needs `stream` to be true",
            ),
            (
                json!({"model": "m", "logit_bias": {"5": 1}}),
                "logit_bias: `logit_bias` is not supported yet: leave it out",
            ),
        ] {
            check(body, Err(message));
        }
    }

    #[test]
    fn unseeded_requests_differ() {
        let seeds: std::collections::BTreeSet<u64> = (0..8).map(|_| entropy()).collect();
        assert!(seeds.len() > 1, "{seeds:?}");
    }
}
