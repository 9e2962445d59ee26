//! OpenAI's Responses API (<https://platform.openai.com/docs/api-reference/responses>) over chat completions: a request
//! becomes one of chat, and chat's answer, whole or in pieces, becomes a response. Knows neither HTTP nor models.

mod fields;
mod ids;
mod input;
mod journal;
mod messages;
mod output;
mod settings;
mod store;
mod stream;
mod tools;

pub use store::{Given, Page, Responses, StoreLimits};

use crate::dialects::Event;
use fields::Fields;
use ids::Ids;
use narthex_http::ApiError;
use output::Outcome;
use serde_json::{Map, Value, json};
use stream::{Fixed, Stream};

/// What a request is read with.
pub struct Reading<'a> {
    /// Random letters and digits: the names of the response and of its items are made from it.
    pub seed: String,
    /// Seconds since 1970.
    pub now: fn() -> u64,
    /// Where `previous_response_id` and referenced items are looked up.
    pub responses: &'a Responses,
    /// What the response shows where the request says nothing: the model's own `temperature` and `top_p`, say.
    pub defaults: Map<String, Value>,
}

/// What is needed to answer a request in this API's words.
pub struct Answering {
    /// Whether events are wanted.
    pub stream: bool,
    /// Names of fields that nobody knows.
    pub ignored: Vec<String>,
    /// The response before anything came of it.
    frame: Map<String, Value>,
    ids: Ids,
    /// How many items were given.
    given: usize,
    now: fn() -> u64,
    kept: Option<Given>,
    progress: Stream,
}

/// Reads a request: as chat completions takes it, and what is needed to answer.
///
/// # Errors
/// If the request is wrong or asks for what cannot be done.
pub fn read(body: Map<String, Value>, reading: Reading<'_>) -> Result<(Map<String, Value>, Answering), ApiError> {
    let Reading { seed, now, responses, defaults } = reading;
    let ids = Ids::new(seed);
    let mut ignored = vec![];
    let mut fields = Fields::top(body);
    let settings = settings::read(&mut fields, &mut ignored)?;
    let tools = tools::read(&mut fields, &mut ignored)?;
    let parallel = fields.flag("parallel_tool_calls")?;
    let instructions = fields.string("instructions")?;
    let previous = fields.string("previous_response_id")?;
    let before = match &previous {
        None => None,
        Some(id) => Some(responses.conversation(id).ok_or_else(|| unknown(id))?),
    };
    let given = fields.take("input");
    if before.is_none() && given.as_ref().is_none_or(|given| given.as_array().is_some_and(Vec::is_empty)) {
        return Err(fields.missing("input"));
    }
    let items = input::read(given, &ids, &|id| responses.item(id), &mut ignored)?;
    let store = fields.flag("store")?.unwrap_or(true) && responses.is_on();
    let stream = fields.flag("stream")?.unwrap_or(false);
    if let Some(mut options) = fields.object("stream_options")? {
        options.unsupported("include_obfuscation", &[json!(false)], "events are as long as what they say")?;
        options.finish(&mut ignored);
    }
    fields.finish(&mut ignored);

    let conversation = before.iter().flat_map(store::Conversation::items).chain(&items);
    let mut chat = settings.chat;
    chat.insert("messages".to_string(), json!(messages::messages(instructions.as_deref(), conversation)?));
    if !tools.chat.is_empty() {
        chat.insert("tools".to_string(), json!(tools.chat));
        chat.extend(parallel.map(|parallel| ("parallel_tool_calls".to_string(), json!(parallel))));
    }
    chat.extend(tools.chat_choice.map(|choice| ("tool_choice".to_string(), choice)));
    if stream {
        chat.insert("stream".to_string(), json!(true));
        chat.insert("stream_options".to_string(), json!({"include_usage": true}));
    }

    let mut shown = settings.shown;
    for (field, value) in [
        ("id", json!(ids.response())),
        ("created_at", json!(now())),
        ("instructions", json!(instructions)),
        ("parallel_tool_calls", json!(parallel.unwrap_or(true))),
        ("previous_response_id", json!(previous)),
        ("store", json!(store)),
        ("tool_choice", tools.shown_choice),
        ("tools", json!(tools.shown)),
    ] {
        shown.insert(field.to_string(), value);
    }
    let answering = Answering {
        stream,
        ignored,
        frame: frame(shown, defaults),
        ids,
        given: items.len(),
        now,
        kept: store.then_some(Given { input: items, before }),
        progress: Stream::default(),
    };
    Ok((chat, answering))
}

fn unknown(id: &str) -> ApiError {
    let message = format!(
        "no response `{id}` is kept here: it is unknown, deleted, forgotten as too old, or of `\"store\": false`"
    );
    ApiError::field("previous_response_id", message).code("previous_response_not_found")
}

/// All fields of a response in OpenAI's order, before anything came of it.
fn frame(mut shown: Map<String, Value>, mut defaults: Map<String, Value>) -> Map<String, Value> {
    let fields = [
        ("id", Value::Null),
        ("object", json!("response")),
        ("created_at", Value::Null),
        ("status", json!("in_progress")),
        ("background", json!(false)),
        ("completed_at", Value::Null),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("model", Value::Null),
        ("output", json!([])),
        ("parallel_tool_calls", Value::Null),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("prompt_cache_retention", Value::Null),
        ("reasoning", Value::Null),
        ("safety_identifier", Value::Null),
        ("service_tier", Value::Null),
        ("store", Value::Null),
        ("temperature", Value::Null),
        ("text", Value::Null),
        ("tool_choice", Value::Null),
        ("tools", Value::Null),
        ("top_logprobs", Value::Null),
        ("top_p", Value::Null),
        ("truncation", json!("disabled")),
        ("usage", Value::Null),
        ("user", Value::Null),
        ("metadata", Value::Null),
    ];
    let filled = fields.map(|(field, own)| {
        let said = shown.remove(field).filter(|value| !value.is_null());
        let value = said.or_else(|| defaults.remove(field).filter(|_| own.is_null())).unwrap_or(own);
        (field.to_string(), value)
    });
    filled.into_iter().collect()
}

impl Answering {
    /// What the response is to be kept with, once; none if it is not to be kept.
    pub fn kept(&mut self) -> Option<Given> {
        self.kept.take()
    }

    /// The response of a `chat.completion`.
    pub fn whole(self, completion: &Value) -> Value {
        let choice = &completion["choices"][0];
        let said = &choice["message"];
        let outcome = Outcome::of(choice["finish_reason"].as_str());
        let text = |field: &str| said[field].as_str().filter(|text| !text.is_empty());
        let (thought, content) = (text("reasoning_content"), text("content"));
        let calls: Vec<&Value> = said["tool_calls"].as_array().into_iter().flatten().collect();
        let mut output: Vec<Value> = vec![];
        if let Some(text) = thought {
            output.push(output::reasoning(&self.ids.item("reasoning", self.given), Some(text), "completed"));
        }
        // Without anything else there is a message that says nothing; what failed says nothing at all.
        let silent = thought.is_none() && calls.is_empty() && !matches!(outcome, Outcome::Failed(_));
        if content.is_some() || silent {
            let part = output::said(content.unwrap_or_default(), &output::logprobs(choice));
            let id = self.ids.item("message", self.given + output.len());
            output.push(output::message(&id, Some(part), "completed"));
        }
        for call in calls {
            let index = self.given + output.len();
            let function = |field: &str| call["function"][field].as_str().unwrap_or_default();
            let call_id = call["id"].as_str().map_or_else(|| self.ids.call(index), str::to_string);
            let id = self.ids.item("function_call", index);
            output.push(output::call(&id, &call_id, function("name"), function("arguments"), "completed"));
        }
        // The answer was cut off in what came last.
        if let Some(last) = output.last_mut() {
            last["status"] = json!(outcome.last_item());
        }
        let usage = Some(&completion["usage"]).filter(|usage| usage.is_object());
        output::response(&self.frame, &outcome, output, usage, (self.now)())
    }

    /// The events before the first chunk.
    pub fn begin(&mut self) -> Vec<Event> {
        let (progress, fixed) = self.parts();
        progress.begin(&fixed)
    }

    /// The events of one `chat.completion.chunk`.
    pub fn piece(&mut self, chunk: &Value) -> Vec<Event> {
        let (progress, fixed) = self.parts();
        progress.piece(&fixed, chunk)
    }

    /// The events after the last chunk; the last one has the response under `response`.
    pub fn end(&mut self) -> Vec<Event> {
        let (progress, fixed) = self.parts();
        progress.end(&fixed)
    }

    /// The events of a stream that failed, from OpenAI's error object.
    pub fn broken(&mut self, error: &Value) -> Vec<Event> {
        let (progress, fixed) = self.parts();
        progress.broken(&fixed, if error["error"].is_object() { &error["error"] } else { error })
    }

    fn parts(&mut self) -> (&mut Stream, Fixed<'_>) {
        let Self { frame, ids, given, now, progress, .. } = self;
        (progress, Fixed { frame, ids, given: *given, now: *now })
    }
}

#[cfg(test)]
mod tests;
