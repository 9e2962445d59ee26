//! The fields that chat and completions share: which model, how many choices, how tokens are
//! chosen, when to stop and whether to stream. Knows neither messages nor prompts.

use super::ability;
use crate::{Limits, Served, TextAbility};
use axum::http::StatusCode;
use narthex_answer::{SamplingDefaults, SamplingWish, TextModel};
use narthex_http::{ApiError, Fields, entropy};
use narthex_infer::{Adapter, Request, Sampling};
use serde_json::{Value, json};
use std::sync::Arc;

/// What both endpoints read the same way.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The name that was asked for: the model's or an adapter's.
    pub model: String,
    adapter: Option<Arc<Adapter>>,
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
    /// Ids that end an answer besides the model's own.
    stop_token_ids: Vec<u32>,
    /// The model's own ends do not count.
    ignore_eos: bool,
    min_tokens: usize,
    priority: i64,
    cache_salt: Option<String>,
}

impl Parameters {
    /// Reads the shared fields.
    pub fn read(fields: &mut Fields, model: &Served, limits: &Limits) -> Result<Self, ApiError> {
        let name = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
        let text = ability::text(model)?;
        let adapter = chosen(&name, model, text)?;
        let n = fields.integer("n", 1..=limits.n_max as i64)?.unwrap_or(1) as usize;
        let vocabulary = text.model.tokenizer.vocab_size();
        let sampling = read_sampling(fields, &text.model.defaults, vocabulary, limits)?;
        let stop = read_stop(fields.take("stop"), limits)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        let include_usage = read_stream_options(fields, stream)?;
        let stop_token_ids = read_token_ids(fields, "stop_token_ids", limits.stop_strings_max, vocabulary)?;
        let ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        let min_tokens = fields.integer("min_tokens", 0..=i64::from(u32::MAX))?.unwrap_or(0) as usize;
        let priority = fields.integer("priority", i64::MIN..=i64::MAX)?.unwrap_or(0);
        let cache_salt = fields.string("cache_salt")?;
        Ok(Self {
            model: name,
            adapter,
            n,
            stop,
            sampling,
            stream,
            include_usage,
            logprobs: None,
            stop_token_ids,
            ignore_eos,
            min_tokens,
            priority,
            cache_salt,
        })
    }

    /// A request for a prompt; `requests` makes one for each choice.
    pub fn request(&self, model: &TextModel, prompt: Vec<u32>, max_tokens: usize) -> Request {
        let own: &[u32] = if self.ignore_eos { &[] } else { &model.stop_tokens };
        Request {
            prompt,
            max_tokens,
            sampling: self.sampling.clone(),
            stop_tokens: own.iter().chain(&self.stop_token_ids).copied().collect(),
            min_tokens: self.min_tokens,
            logprobs: self.logprobs,
            prompt_logprobs: false,
            priority: self.priority,
            cache_salt: self.cache_salt.clone(),
            adapter: self.adapter.clone(),
        }
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

/// Refuses any name but those of the served model and of its adapters. Loads nothing.
pub(crate) fn check_model(name: &str, model: &Served) -> Result<(), ApiError> {
    let is_adapter = || model.ability.adapters().is_some_and(|adapters| adapters.find(name).is_some());
    let is_known = name == model.id || is_adapter();
    if is_known { Ok(()) } else { Err(unknown_model(name, model)) }
}

/// The adapter of this name, none for the model itself.
fn chosen(name: &str, model: &Served, text: &TextAbility) -> Result<Option<Arc<Adapter>>, ApiError> {
    if name == model.id {
        return Ok(None);
    }
    match text.adapters.get(name, &text.model.engine) {
        Ok(Some(adapter)) => return Ok(Some(adapter)),
        Ok(None) => {}
        Err(error) => {
            let message = format!("the adapter `{name}` cannot be loaded any more: {error}");
            return Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("model_not_found")).param("model"));
        }
    }
    Err(unknown_model(name, model))
}

/// There is neither a model nor an adapter of this name.
pub(crate) fn unknown_model(name: &str, model: &Served) -> ApiError {
    let message = format!("the model `{name}` does not exist; this server has `{}`", model.id);
    ApiError::request(StatusCode::NOT_FOUND, message, Some("model_not_found")).param("model")
}

fn read_sampling(
    fields: &mut Fields,
    defaults: &SamplingDefaults,
    vocabulary: usize,
    limits: &Limits,
) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.map(|number| number as f32);
    let top_p = fields.number("top_p", 0.0..=1.0)?.map(|number| number as f32);
    // -1 keeps all, as with vLLM.
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?.map(|number| number.max(0) as usize);
    let seed = match fields.take("seed") {
        None => entropy(),
        Some(value) => match value.as_i64().map(|seed| seed as u64).or_else(|| value.as_u64()) {
            Some(seed) => seed,
            None => return Err(ApiError::field("seed", "`seed` must be a whole number of 64 bits")),
        },
    };
    let mut number = |name, range, default: f32| -> Result<f32, ApiError> {
        Ok(fields.number(name, range)?.map_or(default, |number| number as f32))
    };
    let chosen = defaults.sampling(&SamplingWish { temperature, top_p, top_k, seed });
    Ok(Sampling {
        // The smallest set of tokens has one token, so 0 means greedy choice, as with OpenAI.
        top_p: chosen.top_p.max(f32::MIN_POSITIVE),
        min_p: number("min_p", 0.0..=1.0, defaults.min_p)?,
        // 0 would divide by nothing.
        repetition_penalty: number("repetition_penalty", 1e-3..=1e3, defaults.repetition_penalty)?,
        presence_penalty: number("presence_penalty", -2.0..=2.0, 0.0)?,
        frequency_penalty: number("frequency_penalty", -2.0..=2.0, 0.0)?,
        logit_bias: read_logit_bias(fields, limits, vocabulary)?,
        ..chosen
    })
}

/// `{"token id": bias}`, as OpenAI has it.
fn read_logit_bias(fields: &mut Fields, limits: &Limits, vocabulary: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong =
        || ApiError::field("logit_bias", "`logit_bias` must map token ids of the model to numbers from -100 to 100");
    let map = match fields.take("logit_bias") {
        None => return Ok(vec![]),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(wrong()),
    };
    if map.len() > limits.logit_biases_max {
        let message = format!("`logit_bias` may have {} entries at most", limits.logit_biases_max);
        return Err(ApiError::field("logit_bias", message));
    }
    let entries = map.into_iter().map(|(id, bias)| {
        let id = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary).ok_or_else(wrong)?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(wrong)?;
        Ok((id, bias as f32))
    });
    entries.collect()
}

fn read_token_ids(
    fields: &mut Fields,
    name: &'static str,
    count_max: usize,
    vocabulary: usize,
) -> Result<Vec<u32>, ApiError> {
    let wrong = || ApiError::field(name, format!("`{name}` must be a list of token ids of the model"));
    let list = match fields.take(name) {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    if list.len() > count_max {
        return Err(ApiError::field(name, format!("`{name}` may have {count_max} ids at most")));
    }
    let id = |value: Value| value.as_u64().filter(|id| *id < vocabulary as u64).map(|id| id as u32).ok_or_else(wrong);
    list.into_iter().map(id).collect()
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
                Sampling { temperature: 0.0, top_p: 0.5, top_k: 3, seed: 1, ..Sampling::default() },
            ),
            (json!({"model": "m", "seed": 1, "top_k": -1}), "", seed(1)),
            (json!({"model": "m", "seed": 1, "presence_penalty": 0, "logit_bias": {}}), "", seed(1)),
            (
                json!({
                    "model": "m", "seed": 1, "presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.5,
                    "min_p": 0.25, "logit_bias": {"5": -100},
                }),
                "",
                Sampling {
                    presence_penalty: 0.5,
                    frequency_penalty: -1.0,
                    repetition_penalty: 1.5,
                    min_p: 0.25,
                    logit_bias: vec![(5, -100.0)],
                    ..seed(1)
                },
            ),
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
                json!({"model": "m", "logit_bias": {"259": 1}}),
                "logit_bias: `logit_bias` must map token ids of the model to numbers from -100 to 100",
            ),
            (
                json!({"model": "m", "logit_bias": {"5": 101}}),
                "logit_bias: `logit_bias` must map token ids of the model to numbers from -100 to 100",
            ),
            (
                json!({"model": "m", "stop_token_ids": [259]}),
                "stop_token_ids: `stop_token_ids` must be a list of token ids of the model",
            ),
        ] {
            check(body, Err(message));
        }
    }

    #[test]
    fn what_ends_an_answer_can_be_set() {
        let model = testing::model(|_| vec![]);
        for (body, stop_tokens, min_tokens) in [
            (json!({"model": "m"}), vec![2], 0),
            (json!({"model": "m", "stop_token_ids": [7, 9], "min_tokens": 3}), vec![2, 7, 9], 3),
            (json!({"model": "m", "ignore_eos": true}), vec![], 0),
            (json!({"model": "m", "ignore_eos": true, "stop_token_ids": [7]}), vec![7], 0),
        ] {
            let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
            let parameters = Parameters::read(&mut fields, &model, &Limits::default()).unwrap();
            let request = parameters.request(&ability::text(&model).unwrap().model, vec![5], 4);
            assert_eq!((request.stop_tokens, request.min_tokens), (stop_tokens, min_tokens), "{body}");
        }
    }
}
