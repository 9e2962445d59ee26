//! How tokens are chosen and when an answer ends. Knows nothing of prompts.

use super::prompt::Tokens;
use crate::dialects::passing::{Ignored, Target, pass};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// `/v1/completions` writes 16 tokens where nothing is said; llama-server writes until the model ends.
const WITHOUT_END: i64 = i32::MAX as i64;

/// What llama-server says where the seed is a new one each time.
const NO_SEED: i64 = u32::MAX as i64;

/// What our endpoint takes as a bias at most.
const BIAS_MAX: f64 = 100.0;

/// The model that answers, and how it chooses tokens where nothing is said.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Its name.
    pub model: String,
    /// Tokens that a prompt and its answer may have together.
    pub context: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// 0 keeps all tokens.
    pub top_k: i64,
    /// 1 keeps all tokens.
    pub top_p: f64,
    /// 0 keeps all tokens.
    pub min_p: f64,
    /// 1 is none.
    pub repeat_penalty: f64,
}

impl Defaults {
    /// `generation_settings` of a request that says nothing.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "n_ctx": self.context,
            "model": self.model,
            "seed": NO_SEED,
            "temperature": self.temperature,
            "dynatemp_range": 0.0,
            "dynatemp_exponent": 1.0,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "top_n_sigma": -1.0,
            "xtc_probability": 0.0,
            "xtc_threshold": 0.1,
            "typical_p": 1.0,
            "repeat_last_n": -1,
            "repeat_penalty": self.repeat_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "dry_multiplier": 0.0,
            "mirostat": 0,
            "stop": [],
            "max_tokens": -1,
            "n_predict": -1,
            "n_keep": 0,
            "n_discard": 0,
            "ignore_eos": false,
            "stream": false,
            "logit_bias": [],
            "n_probs": 0,
            "min_keep": 0,
            "grammar": "",
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "timings_per_token": false,
            "post_sampling_probs": false,
            "lora": [],
        });
        let Value::Object(settings) = settings else { return Map::new() };
        settings
    }
}

/// What the answer needs to know of the request.
pub(super) struct Settings {
    pub stream: bool,
    pub return_tokens: bool,
    pub response_fields: Vec<String>,
    /// Choices per prompt.
    pub n: usize,
    /// `generation_settings`.
    pub shown: Map<String, Value>,
}

/// Fields that only say how something works that is off.
const COMPANIONS: [&str; 9] = [
    "adaptive_decay",
    "dry_allowed_length",
    "dry_base",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "mirostat_eta",
    "mirostat_tau",
    "xtc_threshold",
];

/// Reads all but the prompt and the model.
pub(super) fn read(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    defaults: &Defaults,
    tokens: &dyn Tokens,
    ignored: &mut Ignored,
) -> Result<Settings, ApiError> {
    refuse_unsupported(fields)?;
    let mut shown = defaults.settings();
    let mut show = |field: &str, value: Value| shown.insert(field.into(), value);
    read_length(fields, request, &mut show)?;
    read_sampling(fields, request, &mut show)?;
    if let Some(bias) = read_bias(fields, tokens)? {
        let entry = |(id, bias): (&String, &Value)| json!({"token": id.parse::<u32>().ok(), "bias": bias});
        show("logit_bias", bias.iter().map(entry).collect());
        request.insert("logit_bias".into(), bias.into());
    }
    read_grammar(fields, request, &mut show)?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let return_tokens = fields.flag("return_tokens")?.unwrap_or(false);
    show("stream", stream.into());
    if stream {
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({"include_usage": true}));
    }
    fields.take("stream_options"); // Our own always asks for the usage.
    if stream || return_tokens {
        request.insert("return_token_ids".into(), true.into());
    }
    let older = fields.integer("logprobs", 0..=i64::MAX)?;
    if let Some(count) = fields.integer("n_probs", 0..=i64::MAX)?.or(older).filter(|count| *count > 0) {
        show("n_probs", count.into());
        request.insert("logprobs".into(), count.into());
        request.insert("return_tokens_as_token_ids".into(), true.into());
    }
    let response_fields = read_response_fields(fields)?;
    let older = fields.integer("n", 1..=i64::from(u16::MAX))?;
    let n = fields.integer("n_cmpl", 1..=i64::from(u16::MAX))?.or(older).unwrap_or(1);
    if n > 1 {
        request.insert("n".into(), n.into());
    }
    pass(fields, Target::Completions, request, ignored);
    if request.get("ignore_eos") == Some(&Value::Bool(true)) {
        show("ignore_eos", true.into());
    }
    Ok(Settings { stream, return_tokens, response_fields, n: n as usize, shown })
}

/// What would change the answer if we could honour it.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let zero = [json!(0)];
    for (field, neutral) in [
        ("adaptive_target", &[json!(-1)][..]),
        ("dry_multiplier", &zero),
        ("dynatemp_range", &zero),
        ("grammar_lazy", &[json!(false)]),
        ("grammar_triggers", &[]),
        ("lora", &[]),
        ("min_keep", &zero),
        ("mirostat", &zero),
        ("n_indent", &zero),
        ("post_sampling_probs", &[json!(false)]),
        ("reasoning_budget_tokens", &[json!(-1)]),
        ("t_max_predict_ms", &[json!(0), json!(-1)]),
        ("top_n_sigma", &[json!(0), json!(-1)]),
        ("typical_p", &[json!(1)]),
        ("xtc_probability", &zero),
    ] {
        fields.unsupported(field, neutral)?;
    }
    for field in COMPANIONS {
        fields.take(field);
    }
    Ok(())
}

fn read_length(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    show: &mut impl FnMut(&str, Value) -> Option<Value>,
) -> Result<(), ApiError> {
    let mut wanted = None;
    for field in ["max_tokens", "max_completion_tokens", "n_predict"] {
        wanted = fields.integer(field, i64::MIN..=i64::MAX)?.or(wanted);
    }
    // Below 0: no limit.
    let limit = wanted.filter(|tokens| *tokens >= 0);
    show("n_predict", limit.unwrap_or(-1).into());
    show("max_tokens", limit.unwrap_or(-1).into());
    request.insert("max_tokens".into(), limit.unwrap_or(WITHOUT_END).into());
    Ok(())
}

fn read_sampling(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    show: &mut impl FnMut(&str, Value) -> Option<Value>,
) -> Result<(), ApiError> {
    for (field, ours) in [
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("presence_penalty", "presence_penalty"),
        ("frequency_penalty", "frequency_penalty"),
        ("repeat_penalty", "repetition_penalty"),
    ] {
        if let Some(value) = fields.take(field) {
            show(field, value.clone());
            request.insert(ours.into(), value);
        }
    }
    if let Some(temperature) = fields.number("temperature", f64::MIN..=f64::MAX)? {
        show("temperature", temperature.into());
        // Below 0 is greedy too.
        request.insert("temperature".into(), temperature.max(0.0).into());
    }
    if let Some(top_k) = fields.integer("top_k", i64::MIN..=i64::MAX)? {
        show("top_k", top_k.into());
        request.insert("top_k".into(), if top_k > 0 { top_k } else { -1 }.into());
    }
    let seed = fields.integer("seed", i64::MIN..=i64::MAX)?.filter(|seed| *seed >= 0 && *seed != NO_SEED);
    if let Some(seed) = seed {
        show("seed", seed.into());
        request.insert("seed".into(), seed.into());
    }
    let stops = match fields.take("stop") {
        None => vec![],
        Some(Value::String(stop)) => vec![Value::String(stop)],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => list,
        Some(_) => return Err(ApiError::field("stop", "`stop` must be a list of strings")),
    };
    let stops: Vec<Value> = stops.into_iter().filter(|stop| stop != "").collect();
    if !stops.is_empty() {
        show("stop", stops.clone().into());
        request.insert("stop".into(), stops.into());
    }
    Ok(())
}

/// `logit_bias`: pairs in a list, or a map. Tokens may be texts, of which each token counts; `false` forbids.
fn read_bias(fields: &mut Fields, tokens: &dyn Tokens) -> Result<Option<Map<String, Value>>, ApiError> {
    let wrong = || {
        let message = "`logit_bias` must be a list of pairs, or an object, of tokens and numbers or false";
        ApiError::field("logit_bias", message)
    };
    let pairs: Vec<(Value, Value)> = match fields.take("logit_bias") {
        None => return Ok(None),
        Some(Value::Object(map)) => {
            // Keys are strings, so that those which look like ids are ids.
            let key = |key: String| key.parse::<u64>().map_or(Value::String(key), Value::from);
            map.into_iter().map(|(name, bias)| (key(name), bias)).collect()
        }
        Some(Value::Array(list)) => {
            let pair = |pair: Value| match pair {
                Value::Array(pair) => {
                    <[Value; 2]>::try_from(pair).map(|[token, bias]| (token, bias)).map_err(|_| wrong())
                }
                _ => Err(wrong()),
            };
            list.into_iter().map(pair).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    let mut biases = Map::new();
    for (token, bias) in pairs {
        let bias = match bias {
            Value::Bool(false) => json!(-BIAS_MAX),
            Value::Number(number) => match number.as_f64() {
                Some(bias) if bias.abs() > BIAS_MAX => json!(bias.clamp(-BIAS_MAX, BIAS_MAX)),
                _ => Value::Number(number),
            },
            _ => return Err(wrong()),
        };
        let ids = match (token.as_u64(), token.as_str()) {
            (Some(id), _) => vec![u32::try_from(id).map_err(|_| wrong())?],
            (_, Some(text)) => tokens.ids(text, false)?,
            _ => return Err(wrong()),
        };
        biases.extend(ids.into_iter().map(|id| (id.to_string(), bias.clone())));
    }
    Ok((!biases.is_empty()).then_some(biases))
}

/// `grammar` and `json_schema`.
fn read_grammar(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    show: &mut impl FnMut(&str, Value) -> Option<Value>,
) -> Result<(), ApiError> {
    let grammar = fields.string("grammar")?.filter(|grammar| !grammar.is_empty());
    let schema = match fields.take("json_schema") {
        None => None,
        Some(Value::Object(schema)) => Some(schema),
        Some(_) => return Err(ApiError::field("json_schema", "`json_schema` must be an object")),
    };
    match (grammar, schema) {
        (Some(_), Some(_)) => Err(ApiError::field("grammar", "`grammar` and `json_schema` exclude each other")),
        (Some(grammar), None) => {
            show("grammar", grammar.clone().into());
            request.insert("structured_outputs".into(), json!({"grammar": grammar}));
            Ok(())
        }
        (None, Some(schema)) => {
            show("json_schema", schema.clone().into());
            request.insert("structured_outputs".into(), json!({"json": schema}));
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn read_response_fields(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let name = |value: Value| match value {
        Value::String(name) => Some(name),
        _ => None,
    };
    let names = match fields.take("response_fields") {
        None => Some(vec![]),
        Some(Value::Array(list)) => list.into_iter().map(name).collect(),
        Some(_) => None,
    };
    names.ok_or_else(|| ApiError::field("response_fields", "`response_fields` must be a list of strings"))
}
