//! A chat's answer as a message, whole or as a stream of events. Knows nothing of requests.

use super::error::late_error;
use crate::dialects::{
    Event,
    completion::{self, Used},
    passing::Ignored,
};
use serde_json::{Map, Value, json};

/// Clients send thoughts back with the signature that they came with; ours are not signed.
const SIGNATURE: &str = "unsigned";

/// Makes the answer to one request.
pub struct Answering {
    id: String,
    model: String,
    stream: bool,
    /// Whether thoughts are shown; if not, their block is empty.
    shown: bool,
    ignored: Ignored,
    used: Used,
    /// The block that is open, if any.
    open: Option<Open>,
    /// Blocks that have begun.
    blocks: usize,
    /// Whether one of them was text.
    said: bool,
    /// Calls by their place in the chat's message, and the blocks that they are.
    calls: Vec<(u64, usize)>,
    ending: Option<Ending>,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Thinking,
    Text,
    Call,
}

#[derive(Clone)]
struct Ending {
    reason: &'static str,
    sequence: Option<String>,
}

impl Ending {
    /// How a choice of a completion or chunk ended, if it did.
    fn of(choice: &Value, has_calls: bool) -> Option<Self> {
        let finish = choice["finish_reason"].as_str()?;
        let sequence = choice["stop_reason"].as_str().filter(|_| finish == "stop").map(String::from);
        let reason = match finish {
            "length" => "max_tokens",
            "content_filter" => "refusal",
            "tool_calls" | "function_call" => "tool_use",
            // A call that was forced ends with `stop`.
            _ if has_calls => "tool_use",
            _ if sequence.is_some() => "stop_sequence",
            _ => "end_turn",
        };
        Some(Self { reason, sequence: sequence.filter(|_| reason == "stop_sequence") })
    }
}

impl Answering {
    pub(super) fn new(id: String, model: String, stream: bool, shown: bool, ignored: Ignored) -> Self {
        let (used, open, ending) = (Used::default(), None, None);
        Self { id, model, stream, shown, ignored, used, open, blocks: 0, said: false, calls: vec![], ending }
    }

    /// Whether the answer is a stream.
    pub fn streams(&self) -> bool {
        self.stream
    }

    /// The request's fields that nobody knows.
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// Tells the prompt's length before the stream begins, as its first event names it; without this it says 0, and
    /// the last but one says the truth.
    pub fn prompt_tokens(&mut self, tokens: usize) {
        self.used.prompt = tokens as u64;
    }

    /// The message of a `chat.completion`.
    pub fn whole(self, completion: &Value) -> Value {
        let choice = completion::choice(completion);
        let message = &choice["message"];
        let mut content = vec![];
        let (thought, said) = (completion::reasoning(message), completion::content(message));
        if !thought.is_empty() {
            let shown = if self.shown { thought } else { "" };
            content.push(json!({"type": "thinking", "thinking": shown, "signature": SIGNATURE}));
        }
        if !said.is_empty() {
            content.push(json!({"type": "text", "text": said}));
        }
        let calls = completion::calls(message);
        for call in calls {
            let input = completion::arguments(call["function"]["arguments"].as_str().unwrap_or(""));
            content.push(call_block(call, input));
        }
        if !content.iter().any(|block| block["type"] != "thinking") {
            // Programs look for the text of an answer without asking whether there is one.
            content.push(json!({"type": "text", "text": ""}));
        }
        let ending = Ending::of(choice, !calls.is_empty());
        let used = Used::of(completion).unwrap_or_default();
        self.message(content, ending, used)
    }

    fn message(&self, content: Vec<Value>, ending: Option<Ending>, used: Used) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": ending.as_ref().map(|ending| ending.reason),
            "stop_sequence": ending.and_then(|ending| ending.sequence),
            "usage": usage(used),
        })
    }

    /// What a stream begins with.
    pub fn begin(&mut self) -> Vec<Event> {
        let message = self.message(vec![], None, self.used);
        vec![event("message_start", json!({"message": message})), event("ping", json!({}))]
    }

    /// What one `chat.completion.chunk` brings.
    pub fn piece(&mut self, chunk: &Value) -> Vec<Event> {
        let mut events = vec![];
        self.used = Used::of(chunk).unwrap_or(self.used);
        let choice = completion::choice(chunk);
        let delta = &choice["delta"];
        let thought = completion::reasoning(delta);
        if !thought.is_empty() {
            let start = json!({"type": "thinking", "thinking": "", "signature": ""});
            let block = self.open(Open::Thinking, start, &mut events);
            if self.shown {
                events.push(block_delta(block, json!({"type": "thinking_delta", "thinking": thought})));
            }
        }
        let said = completion::content(delta);
        if !said.is_empty() {
            let block = self.open(Open::Text, json!({"type": "text", "text": ""}), &mut events);
            events.push(block_delta(block, json!({"type": "text_delta", "text": said})));
        }
        for call in completion::calls(delta) {
            self.call(call, &mut events);
        }
        if let Some(ending) = Ending::of(choice, !self.calls.is_empty()) {
            self.ending = Some(ending);
        }
        events
    }

    fn call(&mut self, call: &Value, events: &mut Vec<Event>) {
        let place = call["index"].as_u64().unwrap_or(0);
        let known = self.calls.iter().find(|(index, _)| *index == place).map(|(_, block)| *block);
        let block = known.unwrap_or_else(|| {
            self.close(events);
            let block = self.open(Open::Call, call_block(call, json!({})), events);
            self.calls.push((place, block));
            block
        });
        let arguments = call["function"]["arguments"].as_str().unwrap_or("");
        if !arguments.is_empty() {
            // The block's own number: pieces of a call that is no longer the last one still add up in a client.
            events.push(block_delta(block, json!({"type": "input_json_delta", "partial_json": arguments})));
        }
    }

    /// The number of the open block of this kind; opens one if there is none.
    fn open(&mut self, kind: Open, start: Value, events: &mut Vec<Event>) -> usize {
        if self.open != Some(kind) {
            self.close(events);
            let data = json!({"index": self.blocks, "content_block": start});
            events.push(event("content_block_start", data));
            self.open = Some(kind);
            self.said |= kind == Open::Text;
            self.blocks += 1;
        }
        self.blocks - 1
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        let Some(kind) = self.open.take() else { return };
        let block = self.blocks - 1;
        if kind == Open::Thinking {
            events.push(block_delta(block, json!({"type": "signature_delta", "signature": SIGNATURE})));
        }
        events.push(event("content_block_stop", json!({"index": block})));
    }

    /// After the last chunk.
    pub fn end(&mut self) -> Vec<Event> {
        let mut events = vec![];
        self.close(&mut events);
        if self.calls.is_empty() && !self.said {
            self.open(Open::Text, json!({"type": "text", "text": ""}), &mut events);
            self.close(&mut events);
        }
        let ending = self.ending.take();
        let delta = json!({
            "stop_reason": ending.as_ref().map(|ending| ending.reason),
            "stop_sequence": ending.and_then(|ending| ending.sequence),
        });
        events.push(event("message_delta", json!({"delta": delta, "usage": usage(self.used)})));
        events.push(event("message_stop", json!({})));
        events
    }

    /// The stream failed: an OpenAI error object.
    pub fn broken(&mut self, error: &Value) -> Vec<Event> {
        vec![Event { name: Some("error"), data: late_error(error) }]
    }
}

fn call_block(call: &Value, input: Value) -> Value {
    json!({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": input})
}

/// Tokens from the cache do not count as read, unlike OpenAI's.
fn usage(used: Used) -> Value {
    let mut usage = Map::new();
    usage.insert("input_tokens".into(), (used.prompt - used.cached).into());
    usage.insert("cache_creation_input_tokens".into(), 0.into());
    usage.insert("cache_read_input_tokens".into(), used.cached.into());
    usage.insert("output_tokens".into(), used.answer.into());
    if let Some(thoughts) = used.thoughts {
        usage.insert("output_tokens_details".into(), json!({"thinking_tokens": thoughts}));
    }
    usage.into()
}

fn block_delta(block: usize, delta: Value) -> Event {
    event("content_block_delta", json!({"index": block, "delta": delta}))
}

/// An event carries its name as its type too.
fn event(name: &'static str, mut data: Value) -> Event {
    if let Value::Object(map) = &mut data {
        map.shift_insert(0, "type".into(), name.into());
    }
    Event { name: Some(name), data }
}
