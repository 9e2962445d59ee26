//! `options` and the other settings of a request. Knows nothing of prompts.

use crate::dialects::passing::{Ignored, Target, template_flag};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// `/v1/completions` writes 16 tokens where nothing is said; Ollama writes until the model ends or its context is full.
const WITHOUT_END: i64 = i32::MAX as i64;

/// Options with the same meaning and bounds of their own at our endpoints.
const ALIKE: [&str; 6] = ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "top_k"];

/// `options`.
pub(super) fn read(
    fields: &mut Fields,
    target: Target,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let mut max_tokens = (target == Target::Completions).then_some(WITHOUT_END);
    if let Some(mut options) = fields.object("options")? {
        // 0 and below mean no limit.
        max_tokens = options.integer("num_predict", i64::MIN..=i64::MAX)?.filter(|tokens| *tokens > 0).or(max_tokens);
        for option in ALIKE {
            request.extend(options.take(option).map(|value| (option.to_string(), value)));
        }
        if let Some(penalty) = options.take("repeat_penalty") {
            request.insert("repetition_penalty".into(), penalty);
        }
        // Below 0: a new one each time.
        if let Some(seed) = options.integer("seed", i64::MIN..=i64::MAX)?.filter(|seed| *seed >= 0) {
            request.insert("seed".into(), seed.into());
        }
        if let Some(stop) = options.take("stop").filter(|stop| !matches!(stop, Value::Array(list) if list.is_empty())) {
            request.insert("stop".into(), stop);
        }
        options.unsupported("typical_p", &[json!(1)])?;
        options.unsupported("tfs_z", &[json!(1)])?;
        options.unsupported("mirostat", &[json!(0)])?;
        // How a model is loaded was said when it was loaded; other names say nothing to us.
        ignored.rest(&mut options);
    }
    request.extend(max_tokens.map(|tokens| ("max_tokens".to_string(), tokens.into())));
    Ok(())
}

/// `format`: `"json"` or a schema.
pub(super) fn read_format(
    fields: &mut Fields,
    target: Target,
    request: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let format = fields.take("format").filter(|format| format != "");
    let (field, value) = match (format, target) {
        (None, _) => return Ok(()),
        (Some(Value::String(format)), Target::Chat) if format == "json" => {
            ("response_format", json!({"type": "json_object"}))
        }
        (Some(Value::String(format)), Target::Completions) if format == "json" => {
            ("structured_outputs", json!({"json_object": true}))
        }
        (Some(Value::Object(schema)), Target::Chat) => {
            let schema = json!({"name": "format", "schema": schema, "strict": true});
            ("response_format", json!({"type": "json_schema", "json_schema": schema}))
        }
        (Some(Value::Object(schema)), Target::Completions) => ("structured_outputs", json!({"json": schema})),
        (Some(_), _) => return Err(ApiError::field("format", "`format` must be \"json\" or a JSON schema")),
    };
    request.insert(field.into(), value);
    Ok(())
}

/// `think`. Without it, the model's template decides.
pub(super) fn read_think(
    fields: &mut Fields,
    target: Target,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let Some(think) = fields.take("think") else { return Ok(()) };
    let (flag, effort) = match &think {
        Value::Bool(flag) => (*flag, None),
        Value::String(effort) if ["low", "medium", "high"].contains(&effort.as_str()) => (true, Some(effort.as_str())),
        // The highest that chats have.
        Value::String(effort) if effort == "max" => (true, Some("xhigh")),
        _ => return Err(ApiError::field("think", "`think` must be true, false, low, medium, high or max")),
    };
    if target == Target::Completions {
        ignored.note("think");
        return Ok(());
    }
    template_flag(request, "enable_thinking", flag);
    request.extend(effort.map(|effort| ("reasoning_effort".to_string(), effort.into())));
    Ok(())
}

/// `logprobs` and `top_logprobs`, which are those of chats.
pub(super) fn read_logprobs(
    fields: &mut Fields,
    target: Target,
    request: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=20)?;
    if !wanted {
        return Ok(());
    }
    if target == Target::Completions {
        let message = "`logprobs` of a raw prompt are not supported: `/v1/completions` has them";
        return Err(ApiError::field("logprobs", message).code("unsupported_parameter"));
    }
    request.insert("logprobs".into(), true.into());
    request.extend(top.map(|top| ("top_logprobs".to_string(), top.into())));
    Ok(())
}
