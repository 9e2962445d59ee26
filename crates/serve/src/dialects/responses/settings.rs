//! The fields of a request besides its input and its tools: how to answer, in which form, and what changes nothing.
//! Each is put where chat takes it and where the response shows it.

use super::fields::{Fields, listed};
use crate::dialects::passing::SHARED;
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// What chats alone take besides, in their own words.
const PASSED_ON: [&str; 4] =
    ["add_generation_prompt", "chat_template_kwargs", "continue_final_message", "thinking_token_budget"];

/// What chat calls otherwise: whoever sends it here means the field behind it.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("messages", "input"),
    ("max_tokens", "max_output_tokens"),
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format", "text.format"),
    ("verbosity", "text.verbosity"),
    ("reasoning_effort", "reasoning.effort"),
    ("functions", "tools"),
    ("function_call", "tool_choice"),
    ("logprobs", "include"),
];

const INCLUDABLE: [&str; 8] = [
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const SUMMARIES: [&str; 3] = ["auto", "concise", "detailed"];
const TIERS: [&str; 7] = ["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"];
/// OpenAI's bounds of `metadata`.
const METADATA_ENTRIES: usize = 16;
const METADATA_NAME_CHARS: usize = 64;
const METADATA_TEXT_CHARS: usize = 512;

/// The same settings in two places.
#[derive(Default)]
pub(super) struct Settings {
    /// Fields of the chat request.
    pub chat: Map<String, Value>,
    /// Fields of the response.
    pub shown: Map<String, Value>,
}

impl Settings {
    fn chat(&mut self, field: &str, value: Value) {
        self.chat.insert(field.to_string(), value);
    }

    fn show(&mut self, field: &str, value: Value) {
        self.shown.insert(field.to_string(), value);
    }
}

/// Reads the fields.
pub(super) fn read(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Settings, ApiError> {
    refuse(fields)?;
    let mut settings = Settings::default();
    let model = fields.needed("model")?;
    settings.chat("model", json!(model));
    settings.show("model", json!(model));
    let most = fields.integer("max_output_tokens", 1..=i64::MAX)?;
    settings.show("max_output_tokens", json!(most));
    if let Some(most) = most {
        settings.chat("max_completion_tokens", json!(most));
    }
    for field in ["temperature", "top_p"] {
        let number = fields.number(field)?;
        settings.show(field, json!(number));
        if let Some(number) = number {
            settings.chat(field, number);
        }
    }
    read_logprobs(fields, &mut settings)?;
    read_text(fields, &mut settings, ignored)?;
    read_reasoning(fields, &mut settings, ignored)?;
    read_names(fields, &mut settings)?;
    for field in PASSED_ON.into_iter().chain(SHARED) {
        if let Some(value) = fields.take(field) {
            settings.chat(field, value);
        }
    }
    Ok(settings)
}

fn refuse(fields: &mut Fields) -> Result<(), ApiError> {
    for (field, meant) in OTHER_NAMES {
        fields.unsupported(field, &[json!(false)], &format!("the field is called `{meant}` here"))?;
    }
    fields.unsupported("n", &[json!(1)], "a response is one answer")?;
    fields.unsupported("conversation", &[], "give `previous_response_id`, or all items as `input`")?;
    fields.unsupported("prompt", &[], "no prompts are kept here: give `instructions` and `input`")?;
    fields.unsupported("background", &[json!(false)], "leave it out, and wait for the answer or stream it")?;
    fields.unsupported("background_options", &[], "nothing is answered in the background: leave it out")?;
    fields.unsupported("truncation", &[json!("disabled")], "what is too long is refused: shorten `input`")?;
    fields.unsupported("context_management", &[], "nothing is compacted: shorten `input`")?;
    fields.unsupported("moderation", &[], "nothing is moderated: leave it out")?;
    if let Some(mut options) = fields.object("prompt_cache_options")? {
        options.unsupported("prewarm", &[json!(false)], "a request is always answered")?;
    }
    // They concern images, models and keys that only OpenAI has.
    fields.harmless(&["image", "access_programs"]);
    Ok(())
}

fn read_logprobs(fields: &mut Fields, settings: &mut Settings) -> Result<(), ApiError> {
    let mut wanted = false;
    for (index, value) in fields.list("include")?.unwrap_or_default().into_iter().enumerate() {
        match value.as_str() {
            Some("message.output_text.logprobs") => wanted = true,
            // Thoughts come in plain words, and of other tools there are none.
            Some(name) if INCLUDABLE.contains(&name) => {}
            _ => {
                let name = format!("include[{index}]");
                let message = format!("`{name}` must be {}", listed(&INCLUDABLE));
                return Err(ApiError::field(name, message));
            }
        }
    }
    let top = fields.integer("top_logprobs", 0..=20)?.unwrap_or(0);
    settings.show("top_logprobs", json!(top));
    // Who names a number of alternatives wants to see them.
    if wanted || top > 0 {
        settings.chat("logprobs", json!(true));
        settings.chat("top_logprobs", json!(top));
    }
    Ok(())
}

fn read_text(fields: &mut Fields, settings: &mut Settings, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let (mut shown, mut verbosity) = (json!({"type": "text"}), None);
    if let Some(mut text) = fields.object("text")? {
        verbosity = text.word("verbosity", &["low", "medium", "high"])?;
        if let Some(format) = text.object("format")? {
            let (form, chat) = read_format(format, ignored)?;
            shown = form;
            settings.chat.extend(chat.map(|format| ("response_format".to_string(), format)));
        }
        text.finish(ignored);
    }
    settings.show("text", json!({"format": shown, "verbosity": verbosity}));
    if let Some(word) = verbosity {
        settings.chat("verbosity", json!(word));
    }
    Ok(())
}

/// A format as it is shown, and for chat.
fn read_format(mut format: Fields, ignored: &mut Vec<String>) -> Result<(Value, Option<Value>), ApiError> {
    let both = match format.needed("type")?.as_str() {
        "text" => (json!({"type": "text"}), None),
        "json_object" => (json!({"type": "json_object"}), Some(json!({"type": "json_object"}))),
        "json_schema" => {
            let mut inner = Map::new();
            inner.insert("name".to_string(), json!(format.needed("name")?));
            let description = format.string("description")?;
            inner.extend(description.map(|text| ("description".to_string(), json!(text))));
            let schema = format.map("schema")?.ok_or_else(|| format.missing("schema"))?;
            inner.insert("schema".to_string(), Value::Object(schema));
            inner.extend(format.flag("strict")?.map(|strict| ("strict".to_string(), json!(strict))));
            let mut shown = Map::new();
            shown.insert("type".to_string(), json!("json_schema"));
            shown.extend(inner.clone());
            (Value::Object(shown), Some(json!({"type": "json_schema", "json_schema": inner})))
        }
        _ => return Err(format.wrong("type", "text, json_object or json_schema")),
    };
    format.finish(ignored);
    Ok(both)
}

fn read_reasoning(fields: &mut Fields, settings: &mut Settings, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let mut effort = None;
    if let Some(mut reasoning) = fields.object("reasoning")? {
        effort = reasoning.word("effort", &EFFORTS)?;
        for field in ["summary", "generate_summary"] {
            // Thoughts are given whole: no shorter ones are made besides.
            if reasoning.word(field, &SUMMARIES)?.is_some() {
                ignored.push(reasoning.name(field));
            }
        }
        let why = "earlier thoughts are shown as the model's template has it";
        reasoning.unsupported("context", &[json!("auto")], why)?;
        reasoning.unsupported("mode", &[json!("standard")], "a model thinks in one way here")?;
        reasoning.finish(ignored);
    }
    // What comes of `summary` is none, and the response says so.
    settings.show("reasoning", json!({"effort": effort, "summary": null}));
    if let Some(effort) = effort {
        settings.chat("reasoning_effort", json!(effort));
    }
    Ok(())
}

/// Whose request it is and how it is called: shown, and passed on where chat reads it too.
fn read_names(fields: &mut Fields, settings: &mut Settings) -> Result<(), ApiError> {
    for field in ["user", "safety_identifier", "prompt_cache_key"] {
        let text = fields.string(field)?;
        settings.show(field, json!(text));
        if let Some(text) = text {
            settings.chat(field, json!(text));
        }
    }
    let retention = fields.word("prompt_cache_retention", &["in_memory", "24h"])?;
    settings.show("prompt_cache_retention", json!(retention));
    // There is one tier, whichever was asked for.
    fields.word("service_tier", &TIERS)?;
    settings.show("service_tier", json!("default"));
    // It bounds calls of built-in tools, and there are none.
    settings.show("max_tool_calls", json!(fields.integer("max_tool_calls", 1..=i64::MAX)?));
    let metadata = fields.map("metadata")?.unwrap_or_default();
    let fits = |(name, value): (&String, &Value)| {
        let text = value.as_str().is_some_and(|text| text.chars().count() <= METADATA_TEXT_CHARS);
        text && name.chars().count() <= METADATA_NAME_CHARS
    };
    if metadata.len() > METADATA_ENTRIES || !metadata.iter().all(fits) {
        let what = format!(
            "an object of {METADATA_ENTRIES} strings at most, of {METADATA_TEXT_CHARS} characters at most, with names \
             of {METADATA_NAME_CHARS} characters at most"
        );
        return Err(fields.wrong("metadata", &what));
    }
    settings.show("metadata", Value::Object(metadata));
    Ok(())
}
