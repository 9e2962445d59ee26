//! The fields that chat and completions share: which model, how many choices, how tokens are
//! chosen, when to stop and whether to stream. Knows neither messages nor prompts.

use super::{
    ability,
    forms::{AskedForm, read_form},
};
use crate::{Limits, Served, TextAbility};
use axum::http::StatusCode;
use narthex_answer::{BeamSearch, Ending, Reading, SamplingDefaults, SamplingWish, StoppedBy, TextModel};
use narthex_http::{ApiError, Fields, entropy};
use narthex_infer::{Adapter, Constraint, Request, Sampling};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What both endpoints read the same way.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The name that was asked for: the model's or an adapter's.
    pub model: String,
    adapter: Option<Arc<Adapter>>,
    /// Choices per prompt.
    pub n: usize,
    /// How tokens become text.
    pub reading: Reading,
    /// How tokens are chosen; the seed is that of the first choice.
    pub sampling: Sampling,
    /// Whether to send the answer piece by piece.
    pub stream: bool,
    /// Whether a stream ends with the usage, and whether each piece has it.
    pub usage: StreamUsage,
    /// Report each token's log-probability and this many alternatives; each endpoint asks for it
    /// in a way of its own.
    pub logprobs: Option<usize>,
    /// Report those of these tokens instead.
    logprob_ids: Vec<u32>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Whether tokens are named by their ids.
    pub token_ids: TokenIds,
    /// What the answer must be.
    pub form: Option<AskedForm>,
    /// Ids that end an answer besides the model's own.
    stop_token_ids: Vec<u32>,
    /// The model's own ends do not count.
    ignore_eos: bool,
    min_tokens: usize,
    /// Only the last tokens of a prompt are kept, so many.
    truncate: Option<usize>,
    priority: i64,
    cache_salt: Option<String>,
    /// How the likeliest answers are searched for, if nothing is drawn.
    pub beams: Option<BeamSearch>,
    /// The client's own name for the request.
    pub request_id: Option<String>,
}

/// When a stream tells how much it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamUsage {
    /// At its end.
    pub last: bool,
    /// In each piece.
    pub each: bool,
}

/// Where an answer names tokens by their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenIds {
    /// Beside its text.
    pub beside: bool,
    /// In place of the tokens of log-probabilities: `token_id:5`.
    pub named: bool,
}

impl Parameters {
    /// Reads the shared fields.
    pub fn read(fields: &mut Fields, model: &Served, limits: &Limits) -> Result<Self, ApiError> {
        // Where there is one model, it need not be named.
        let name = fields.string("model")?.unwrap_or_else(|| model.id.clone());
        let text = ability::text(model)?;
        let adapter = chosen(&name, model, text)?;
        let n = fields.integer("n", 1..=limits.n_max as i64)?.unwrap_or(1) as usize;
        let vocabulary = text.model.tokenizer.vocab_size();
        let mut sampling = read_sampling(fields, &text.model.defaults, vocabulary, limits)?;
        sampling.allowed = read_token_ids(fields, "allowed_token_ids", limits.logit_biases_max, vocabulary)?;
        if sampling.allowed.is_empty() && fields.asked("allowed_token_ids") {
            return Err(ApiError::field("allowed_token_ids", "`allowed_token_ids` must not be empty"));
        }
        sampling.bad_words = read_bad_words(fields, &text.model, limits)?;
        let reading = Reading {
            stop: read_stop(fields.take("stop"), limits)?,
            keep_stop: fields.flag("include_stop_str_in_output")?.unwrap_or(false),
            skip_special: fields.flag("skip_special_tokens")?.unwrap_or(true),
            marks: false,
            ids: fields.flag("return_token_ids")?.unwrap_or(false),
        };
        // Our text never has blanks that the tokens have not.
        fields.flag("spaces_between_special_tokens")?;
        fields.flag("detokenize")?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        let usage = read_stream_options(fields, stream)?;
        let stop_token_ids = read_token_ids(fields, "stop_token_ids", limits.stop_strings_max, vocabulary)?;
        let logprob_ids = read_token_ids(fields, "logprob_token_ids", limits.logit_biases_max, vocabulary)?;
        let ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        let min_tokens = fields.integer("min_tokens", 0..=i64::from(u32::MAX))?.unwrap_or(0) as usize;
        let priority = fields.integer("priority", i64::MIN..=i64::MAX)?.unwrap_or(0);
        let cache_salt = fields.string("cache_salt")?;
        if cache_salt.as_deref() == Some("") {
            return Err(ApiError::field("cache_salt", "`cache_salt` must not be empty"));
        }
        let prompt_logprobs = fields.integer("prompt_logprobs", -1..=limits.logprobs_max as i64)?;
        if prompt_logprobs.is_some() && stream {
            let message = "`prompt_logprobs` comes with whole answers only: leave out `stream`";
            return Err(ApiError::field("prompt_logprobs", message));
        }
        let context = text.model.engine.context();
        let truncate = match fields.integer("truncate_prompt_tokens", -1..=context as i64)? {
            Some(0) => {
                return Err(ApiError::field(
                    "truncate_prompt_tokens",
                    "`truncate_prompt_tokens` must be at least 1, or -1",
                ));
            }
            Some(-1) => Some(context.saturating_sub(1)),
            asked => asked.map(|tokens| tokens as usize),
        };
        let searches = fields.flag("use_beam_search")?.unwrap_or(false);
        let length_penalty = fields.number("length_penalty", -10.0..=10.0)?.unwrap_or(1.0);
        if searches && (stream || n > BEAMS_MAX) {
            let message = format!("`use_beam_search` comes whole (no `stream`), with `n` of {BEAMS_MAX} at most");
            return Err(ApiError::field("use_beam_search", message));
        }
        let token_ids =
            TokenIds { beside: reading.ids, named: fields.flag("return_tokens_as_token_ids")?.unwrap_or(false) };
        Ok(Self {
            model: name,
            adapter,
            n,
            reading,
            sampling,
            stream,
            usage,
            logprobs: None,
            logprob_ids,
            prompt_logprobs: prompt_logprobs.map(|count| count.max(0) as usize),
            token_ids,
            form: read_form(fields)?,
            stop_token_ids,
            ignore_eos,
            min_tokens,
            truncate,
            priority,
            cache_salt,
            beams: searches.then_some(BeamSearch { width: n, length_penalty }),
            request_id: fields.string("request_id")?.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX),
        })
    }

    /// Refuses what a search cannot honour.
    pub fn check_beams(&self) -> Result<(), ApiError> {
        if self.beams.is_none() {
            return Ok(());
        }
        let wrong = [
            ("logprobs", self.logprobs.is_some() || self.prompt_logprobs.is_some()),
            ("structured_outputs", self.form.is_some()),
            ("stop", !self.reading.stop.is_empty()),
        ];
        match wrong.iter().find(|(_, asked)| *asked) {
            Some((field, _)) => {
                Err(ApiError::field(*field, format!("`{field}` and `use_beam_search` exclude each other")))
            }
            None => Ok(()),
        }
    }

    /// Checks what is asked of the number of tokens.
    pub fn check_tokens(&self, max_tokens: Option<usize>) -> Result<(), ApiError> {
        if max_tokens.is_some_and(|most| self.min_tokens > most) {
            return Err(ApiError::field("min_tokens", "`min_tokens` must not be more than `max_tokens`"));
        }
        Ok(())
    }

    /// What of a prompt is kept.
    pub fn kept(&self, mut prompt: Vec<u32>) -> Vec<u32> {
        if let Some(most) = self.truncate {
            prompt.drain(..prompt.len().saturating_sub(most));
        }
        prompt
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
            logprob_ids: self.logprob_ids.clone(),
            prompt_logprobs: self.prompt_logprobs,
            priority: self.priority,
            cache_salt: self.cache_salt.clone(),
            adapter: self.adapter.clone(),
            constraint: None,
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

    /// What ended a choice, as vLLM's `stop_reason`: a string or a token that the request named; else nothing.
    pub fn stop_reason(&self, ending: &Ending) -> Value {
        match &ending.stopped_by {
            Some(StoppedBy::Text(text)) => text.as_str().into(),
            Some(StoppedBy::Token(id)) if self.stop_token_ids.contains(id) => (*id).into(),
            _ => Value::Null,
        }
    }

    /// The constraint that lets nothing but the asked form pass.
    ///
    /// # Errors
    /// If the form cannot be honoured; its field is named.
    pub fn constraint(&self, model: &TextModel) -> Result<Option<Arc<dyn Constraint>>, ApiError> {
        let Some(AskedForm { form, field }) = &self.form else { return Ok(None) };
        let made = model.constraints.of(form);
        made.map(Some).map_err(|error| not_a_form(field, &error))
    }
}

/// A form that cannot be honoured, and why.
pub(crate) fn not_a_form(field: &str, error: &narthex_base::Error) -> ApiError {
    ApiError::field(field, format!("`{field}` cannot be honoured: {}", error.what())).code("invalid_schema")
}

/// Answers that a search may follow.
const BEAMS_MAX: usize = 16;

/// Bytes of a client's own name for a request.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Words that the answer shall not hold, as tokens at the beginning of a text and behind a blank.
fn read_bad_words(fields: &mut Fields, model: &TextModel, limits: &Limits) -> Result<Vec<Vec<u32>>, ApiError> {
    let wrong = || ApiError::field("bad_words", "`bad_words` must be a list of strings that are not empty");
    let list = match fields.take("bad_words") {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    if list.len() > limits.logit_biases_max {
        let message = format!("`bad_words` may have {} words at most", limits.logit_biases_max);
        return Err(ApiError::field("bad_words", message));
    }
    let mut words = vec![];
    for word in list {
        let word = word.as_str().map(str::trim).filter(|word| !word.is_empty()).ok_or_else(wrong)?;
        for text in [word.to_string(), format!(" {word}")] {
            let ids = model.tokenizer.encode(&text, false);
            words.push(ids.map_err(|error| ApiError::field("bad_words", error.what()))?);
        }
    }
    Ok(words)
}

/// A body of another API with the model that is served where it names none.
pub(crate) fn with_model(mut body: Map<String, Value>, model: &Served) -> Map<String, Value> {
    body.entry("model").or_insert_with(|| model.id.clone().into());
    body
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
        // As with vLLM and llama.cpp: any.
        Some(value) if value == -1 => entropy(),
        Some(value) => match value.as_i64() {
            Some(seed) => seed as u64,
            None => return Err(ApiError::field("seed", "`seed` must be a whole number of 64 bits with its sign")),
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
    let unknown = |id: &str| {
        let message = format!("`logit_bias` names `{id}`, which is no token id of the model: there are {vocabulary}");
        ApiError::field("logit_bias", message)
    };
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
        let id = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary).ok_or_else(|| unknown(&id))?;
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
    let id = |value: Value| match value.as_i64() {
        Some(id) if (0..vocabulary as i64).contains(&id) => Ok(id as u32),
        Some(id) => {
            let message = format!("`{name}` names {id}, which is no token id of the model: there are {vocabulary}");
            Err(ApiError::field(name, message))
        }
        None => Err(wrong()),
    };
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

fn read_stream_options(fields: &mut Fields, stream: bool) -> Result<StreamUsage, ApiError> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(StreamUsage::default()) };
    if !stream {
        return Err(ApiError::field("stream_options", "`stream_options` needs `stream` to be true"));
    }
    let last = options.flag("include_usage")?.unwrap_or(false);
    let each = last && options.flag("continuous_usage_stats")?.unwrap_or(false);
    options.unsupported("include_obfuscation", &[json!(false)])?;
    options.finish()?;
    Ok(StreamUsage { last, each })
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
                assert_eq!(parameters.reading.stop.join("|"), stop, "{body}");
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
            (json!({"model": "m", "seed": -2, "stop": "x"}), "x", seed(u64::MAX - 1)),
            (json!({"seed": i64::MAX, "stop": ["x", "y"]}), "x|y", seed(i64::MAX as u64)),
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
            (json!({"model": "x"}), "model: the model `x` does not exist; this server has `m`"),
            (json!({"model": "m", "seed": 1.5}), "seed: `seed` must be a whole number of 64 bits with its sign"),
            (json!({"seed": u64::MAX}), "seed: `seed` must be a whole number of 64 bits with its sign"),
            (json!({"cache_salt": ""}), "cache_salt: `cache_salt` must not be empty"),
            (json!({"allowed_token_ids": []}), "allowed_token_ids: `allowed_token_ids` must not be empty"),
            (json!({"model": "m", "stop": [1]}), "stop: `stop` must be a string or a list of strings"),
            (json!({"model": "m", "stop": ""}), "stop: a string in `stop` must not be empty"),
            (json!({"model": "m", "stop": vec!["x"; 17]}), "stop: `stop` may have 16 strings at most"),
            (
                json!({"model": "m", "stream_options": {"include_usage": true}}),
                "stream_options: `stream_options` needs `stream` to be true",
            ),
            (
                json!({"model": "m", "logit_bias": {"259": 1}}),
                "logit_bias: `logit_bias` names `259`, which is no token id of the model: there are 259",
            ),
            (
                json!({"model": "m", "logit_bias": {"5": 101}}),
                "logit_bias: `logit_bias` must map token ids of the model to numbers from -100 to 100",
            ),
            (
                json!({"model": "m", "stop_token_ids": [259]}),
                "stop_token_ids: `stop_token_ids` names 259, which is no token id of the model: there are 259",
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
