//! A response piece by piece: chat's chunks come in, this API's events go out. Knows no requests; what stays the same
//! throughout is handed in with each call.

use super::{
    ids::Ids,
    output::{self, Outcome},
};
use crate::dialects::Event;
use serde_json::{Map, Value, json};
use std::mem;

/// What stays the same.
pub(super) struct Fixed<'a> {
    pub frame: &'a Map<String, Value>,
    pub ids: &'a Ids,
    /// How many items were given: those of the answer are counted on.
    pub given: usize,
    pub now: fn() -> u64,
}

/// How far the answer has come.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Events so far.
    events: u64,
    /// Items that are complete.
    output: Vec<Value>,
    open: Option<Open>,
    /// Scored tokens whose text has not come yet.
    logprobs: Vec<Value>,
    reason: Option<String>,
    usage: Option<Value>,
    /// What is wrong with the chunks.
    fault: Option<&'static str>,
    ended: bool,
}

/// The item that is being written.
#[derive(Debug)]
struct Open {
    kind: Kind,
    id: String,
    text: String,
    logprobs: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Reasoning,
    Message,
    /// A call, and its place among chat's calls.
    Call {
        place: u64,
        call_id: String,
        name: String,
    },
}

impl Open {
    fn part(&self) -> Value {
        match self.kind {
            Kind::Message => output::said(&self.text, &self.logprobs),
            _ => output::thought(&self.text),
        }
    }

    /// The item as it stands; `begun` has nothing in it yet.
    fn item(&self, begun: bool, status: &str) -> Value {
        match &self.kind {
            Kind::Reasoning => output::reasoning(&self.id, (!begun).then_some(self.text.as_str()), status),
            Kind::Message => output::message(&self.id, (!begun).then(|| self.part()), status),
            Kind::Call { call_id, name, .. } => output::call(&self.id, call_id, name, &self.text, status),
        }
    }
}

impl Stream {
    /// Before the first chunk.
    pub fn begin(&mut self, fixed: &Fixed<'_>) -> Vec<Event> {
        let mut events = vec![];
        for name in ["response.created", "response.in_progress"] {
            self.tell(&mut events, name, json!({"response": fixed.frame}));
        }
        events
    }

    /// One chunk.
    pub fn piece(&mut self, fixed: &Fixed<'_>, chunk: &Value) -> Vec<Event> {
        let mut events = vec![];
        if self.ended {
            return events;
        }
        if chunk["usage"].is_object() {
            self.usage = Some(chunk["usage"].clone());
        }
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        let text = |field: &str| delta[field].as_str().filter(|text| !text.is_empty());
        if let Some(text) = text("reasoning_content") {
            self.write(&mut events, fixed, Kind::Reasoning, text);
        }
        // Scores of thoughts and of calls belong to no text of the answer.
        let other = text("reasoning_content").is_some() || !delta["tool_calls"].is_null();
        if text("content").is_some() || !other {
            self.logprobs.extend(output::logprobs(choice));
        }
        if let Some(text) = text("content") {
            self.write(&mut events, fixed, Kind::Message, text);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(&mut events, fixed, call);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.reason = Some(reason.to_string());
        }
        events
    }

    /// After the last chunk.
    pub fn end(&mut self, fixed: &Fixed<'_>) -> Vec<Event> {
        let outcome = match self.fault {
            Some(message) => Outcome::Failed(json!({"code": "server_error", "message": message})),
            None => Outcome::of(self.reason.as_deref()),
        };
        if let Outcome::Failed(error) = &outcome {
            let error = json!({"code": error["code"], "message": error["message"], "param": null});
            return self.fail(fixed, error, outcome);
        }
        let mut events = vec![];
        if self.ended {
            return events;
        }
        self.ended = true;
        if self.output.is_empty() && self.open.is_none() {
            self.open(&mut events, fixed, Kind::Message);
        }
        self.close(&mut events, outcome.last_item());
        self.last(&mut events, fixed, &outcome);
        events
    }

    /// The chunks broke off; `error` is what stands under `error` in an error object.
    pub fn broken(&mut self, fixed: &Fixed<'_>, error: &Value) -> Vec<Event> {
        let failure = output::failure(error);
        let code = if error["code"].is_string() { &error["code"] } else { &failure["code"] };
        let told = json!({"code": code, "message": failure["message"], "param": error["param"]});
        self.fail(fixed, told, Outcome::Failed(failure))
    }

    /// What was being written is not done: it stands in the response as it is.
    fn fail(&mut self, fixed: &Fixed<'_>, error: Value, outcome: Outcome) -> Vec<Event> {
        let mut events = vec![];
        if self.ended {
            return events;
        }
        self.ended = true;
        self.output.extend(self.open.take().map(|open| open.item(false, outcome.last_item())));
        self.tell(&mut events, "error", error);
        self.last(&mut events, fixed, &outcome);
        events
    }

    fn last(&mut self, events: &mut Vec<Event>, fixed: &Fixed<'_>, outcome: &Outcome) {
        let output = mem::take(&mut self.output);
        let response = output::response(fixed.frame, outcome, output, self.usage.as_ref(), (fixed.now)());
        self.tell(events, outcome.event(), json!({"response": response}));
    }

    /// A piece of a call: the first one of each has its name.
    fn call(&mut self, events: &mut Vec<Event>, fixed: &Fixed<'_>, call: &Value) {
        let place = call["index"].as_u64().unwrap_or(0);
        let function = &call["function"];
        let kind = match self.open.as_ref().map(|open| &open.kind) {
            Some(kind @ Kind::Call { place: current, .. }) if *current == place => kind.clone(),
            _ => {
                let Some(name) = function["name"].as_str() else {
                    self.fault = Some("a piece of a function call came without its beginning");
                    return;
                };
                let call_id = call["id"].as_str().map_or_else(|| fixed.ids.call(self.index(fixed)), str::to_string);
                Kind::Call { place, call_id, name: name.to_string() }
            }
        };
        self.write(events, fixed, kind, function["arguments"].as_str().unwrap_or_default());
    }

    /// The number of the item that would come next.
    fn index(&self, fixed: &Fixed<'_>) -> usize {
        fixed.given + self.output.len() + usize::from(self.open.is_some())
    }

    /// Adds text to an item of this kind, the open one or a new one.
    fn write(&mut self, events: &mut Vec<Event>, fixed: &Fixed<'_>, kind: Kind, text: &str) {
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(events, "completed");
            self.open(events, fixed, kind);
        }
        let place = self.output.len();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let id = open.id.clone();
        let (name, data) = match open.kind {
            _ if text.is_empty() => return,
            Kind::Reasoning => (
                "response.reasoning_text.delta",
                json!({"item_id": id, "output_index": place, "content_index": 0, "delta": text}),
            ),
            Kind::Message => {
                let logprobs = mem::take(&mut self.logprobs);
                open.logprobs.extend(logprobs.iter().cloned());
                let name = "response.output_text.delta";
                let data = json!({
                    "item_id": id, "output_index": place, "content_index": 0, "delta": text, "logprobs": logprobs,
                });
                (name, data)
            }
            Kind::Call { .. } => {
                ("response.function_call_arguments.delta", json!({"item_id": id, "output_index": place, "delta": text}))
            }
        };
        self.tell(events, name, data);
    }

    fn open(&mut self, events: &mut Vec<Event>, fixed: &Fixed<'_>, kind: Kind) {
        let word = match kind {
            Kind::Reasoning => "reasoning",
            Kind::Message => "message",
            Kind::Call { .. } => "function_call",
        };
        let place = self.output.len();
        let id = fixed.ids.item(word, fixed.given + place);
        let open = Open { kind, id, text: String::new(), logprobs: vec![] };
        let item = open.item(true, "in_progress");
        self.tell(events, "response.output_item.added", json!({"output_index": place, "item": item}));
        if !matches!(open.kind, Kind::Call { .. }) {
            let data = json!({"item_id": open.id, "output_index": place, "content_index": 0, "part": open.part()});
            self.tell(events, "response.content_part.added", data);
        }
        self.open = Some(open);
    }

    fn close(&mut self, events: &mut Vec<Event>, status: &str) {
        let Some(mut open) = self.open.take() else { return };
        let place = self.output.len();
        let (id, text) = (open.id.clone(), open.text.clone());
        let (name, data) = match &open.kind {
            Kind::Reasoning => (
                "response.reasoning_text.done",
                json!({"item_id": id, "output_index": place, "content_index": 0, "text": text}),
            ),
            Kind::Message => {
                open.logprobs.append(&mut self.logprobs);
                let logprobs = &open.logprobs;
                let name = "response.output_text.done";
                let data = json!({
                    "item_id": id, "output_index": place, "content_index": 0, "text": text, "logprobs": logprobs,
                });
                (name, data)
            }
            Kind::Call { name: called, .. } => (
                "response.function_call_arguments.done",
                json!({"item_id": id, "output_index": place, "name": called, "arguments": text}),
            ),
        };
        self.tell(events, name, data);
        if !matches!(open.kind, Kind::Call { .. }) {
            let data = json!({"item_id": open.id, "output_index": place, "content_index": 0, "part": open.part()});
            self.tell(events, "response.content_part.done", data);
        }
        let item = open.item(false, status);
        self.tell(events, "response.output_item.done", json!({"output_index": place, "item": item}));
        self.output.push(item);
    }

    /// Adds an event: its type, its number, then what it says.
    fn tell(&mut self, events: &mut Vec<Event>, name: &'static str, data: Value) {
        let mut whole = Map::new();
        whole.insert("type".to_string(), json!(name));
        whole.insert("sequence_number".to_string(), json!(self.events));
        if let Value::Object(data) = data {
            whole.extend(data);
        }
        self.events += 1;
        events.push(Event { name: Some(name), data: Value::Object(whole) });
    }
}

#[cfg(test)]
mod tests;
