//! A response as it is written: a run's pieces come in, this API's events go out, and the response grows. Knows no
//! requests.

use super::items;
use crate::{pending, pieces::Piece};
use narthex_agent::{RunStatus, RunView};
use narthex_base::chat::{Message, Role};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// What stays the same.
pub(super) struct Frame {
    /// Without `resp_`.
    pub id: String,
    pub model: String,
    /// Seconds since 1970.
    pub created: u64,
    pub previous: Value,
    pub metadata: Map<String, Value>,
    /// Whether the answer is data: then nothing else is said.
    pub is_data: bool,
}

impl Frame {
    /// The response before anything has happened.
    pub fn shown(&self, status: &str) -> Value {
        json!({
            "id": format!("resp_{}", self.id), "object": "response", "created_at": self.created, "status": status,
            "background": false, "error": null, "incomplete_details": null, "instructions": null,
            "max_output_tokens": null, "model": self.model, "output": [], "parallel_tool_calls": true,
            "previous_response_id": self.previous, "reasoning": {"effort": null, "summary": null}, "store": true,
            "temperature": null, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": null, "truncation": "disabled", "usage": null, "user": null, "metadata": self.metadata,
        })
    }
}

/// An event to send.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub name: &'static str,
    pub data: Value,
}

/// How far a response has come.
pub(super) struct Writing {
    frame: Frame,
    /// As it is.
    pub response: Value,
    output: Vec<Value>,
    /// The item of text under way: its place, its text, and whether it is thought.
    open: Option<(usize, String, bool)>,
    /// Calls under way: their id and their place.
    calls: Vec<(String, usize)>,
    events: Vec<Event>,
    number: u64,
}

impl Writing {
    pub fn new(frame: Frame) -> Self {
        let response = frame.shown("in_progress");
        Self { frame, response, output: vec![], open: None, calls: vec![], events: vec![], number: 0 }
    }

    /// Before the first piece.
    pub fn begin(&mut self) -> Vec<Event> {
        for name in ["response.created", "response.in_progress"] {
            let response = self.response.clone();
            self.tell(name, json!({"response": response}));
        }
        std::mem::take(&mut self.events)
    }

    /// One piece.
    pub fn piece(&mut self, piece: Piece) -> Vec<Event> {
        match piece {
            Piece::Text(text) if !self.frame.is_data => self.write(&text, false),
            Piece::Thought(text) => self.write(&text, true),
            Piece::Message(message) => self.message(&message),
            Piece::Started { call, tool, arguments } => {
                self.close();
                let id = self.id("mcp");
                let place = self.add(items::call(&id, &tool, &arguments));
                let at = json!({"item_id": id, "output_index": place});
                self.tell("response.mcp_call.in_progress", at.clone());
                let mut done = at;
                done["arguments"] = json!(arguments.to_string());
                self.tell("response.mcp_call_arguments.done", done);
                self.calls.push((call, place));
            }
            _ => {}
        }
        std::mem::take(&mut self.events)
    }

    /// After the last piece, whose event had the number `last`. A later stretch of the run is none of this response's.
    pub fn end(&mut self, view: &RunView, last: Option<u64>) -> Vec<Event> {
        self.close();
        let is_last = last.is_none_or(|last| last >= view.last_event);
        let status = if is_last { view.status } else { RunStatus::Waiting };
        let words = match &view.output {
            Some(output) if self.frame.is_data && is_last => output.to_string(),
            _ if is_last => pending::words(view),
            _ => String::new(),
        };
        if !words.is_empty() {
            self.write(&words, false);
            self.close();
        }
        if is_last && status == RunStatus::Waiting {
            for interrupt in &view.interrupts {
                if let Some((tool, arguments)) = &interrupt.call {
                    let item = items::approval(&interrupt.id, tool, arguments);
                    let place = self.add(item);
                    self.done(place);
                }
            }
        }
        let left = if status.is_final() { "incomplete" } else { "in_progress" };
        for (_, place) in std::mem::take(&mut self.calls) {
            self.output[place]["status"] = json!(left);
        }
        self.finish(status, view.reason.as_deref());
        self.response["narthex"] = pending::standing(view);
        let name = match status {
            RunStatus::Failed | RunStatus::Cancelled => "response.failed",
            RunStatus::Limited => "response.incomplete",
            _ => "response.completed",
        };
        let response = self.response.clone();
        self.tell(name, json!({"response": response}));
        std::mem::take(&mut self.events)
    }

    /// The run cannot be read on.
    pub fn broken(&mut self, error: &ApiError) -> Vec<Event> {
        self.close();
        let told = serde_json::to_value(error.object()).unwrap_or_default();
        let message = told["error"]["message"].as_str().unwrap_or("the answer broke off").to_string();
        self.finish(RunStatus::Failed, Some(&message));
        self.tell("error", json!({"code": told["error"]["code"], "message": message, "param": null}));
        let response = self.response.clone();
        self.tell("response.failed", json!({"response": response}));
        std::mem::take(&mut self.events)
    }

    fn finish(&mut self, status: RunStatus, reason: Option<&str>) {
        self.response["status"] = json!(status_word(status));
        self.response["output"] = Value::Array(self.output.clone());
        match status {
            RunStatus::Failed => {
                let message = reason.unwrap_or("the run does not say why it failed");
                self.response["error"] = json!({"code": "server_error", "message": message});
            }
            // OpenAI has two words for why; `narthex.reason` says which limit it was.
            RunStatus::Limited => self.response["incomplete_details"] = json!({"reason": "max_output_tokens"}),
            _ => {}
        }
    }

    fn message(&mut self, message: &Message) {
        match message.role {
            Role::Assistant => self.close(),
            Role::Tool => {
                let id = message.tool_call_id.as_deref().unwrap_or_default();
                let Some(known) = self.calls.iter().position(|(call, _)| call == id) else { return };
                let (_, place) = self.calls.remove(known);
                self.output[place]["status"] = json!("completed");
                self.output[place]["output"] = json!(message.text());
                let item = self.output[place]["id"].clone();
                self.tell("response.mcp_call.completed", json!({"item_id": item, "output_index": place}));
                self.done(place);
            }
            _ => {}
        }
    }

    fn id(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.frame.id, self.output.len())
    }

    /// Adds an item and says so.
    fn add(&mut self, item: Value) -> usize {
        let place = self.output.len();
        self.output.push(item.clone());
        self.tell("response.output_item.added", json!({"output_index": place, "item": item}));
        place
    }

    /// Says that an item is done.
    fn done(&mut self, place: usize) {
        let item = self.output[place].clone();
        self.tell("response.output_item.done", json!({"output_index": place, "item": item}));
    }

    /// Adds text to the item under way, or to a new one.
    fn write(&mut self, text: &str, is_thought: bool) {
        if self.open.as_ref().is_none_or(|(.., thought)| *thought != is_thought) {
            self.close();
            let (item, part) = match is_thought {
                true => (items::reasoning(&self.id("rs"), None, "in_progress"), items::thought("")),
                false => (items::message(&self.id("msg"), None, "in_progress"), items::said("")),
            };
            let id = item["id"].clone();
            let place = self.add(item);
            let data = json!({"item_id": id, "output_index": place, "content_index": 0, "part": part});
            self.tell("response.content_part.added", data);
            self.open = Some((place, String::new(), is_thought));
        }
        let Some((place, whole, _)) = &mut self.open else { return };
        whole.push_str(text);
        let (id, place) = (self.output[*place]["id"].clone(), *place);
        let mut data = json!({"item_id": id, "output_index": place, "content_index": 0, "delta": text});
        if is_thought {
            return self.tell("response.reasoning_text.delta", data);
        }
        data["logprobs"] = json!([]);
        self.tell("response.output_text.delta", data);
    }

    /// Ends the text under way.
    fn close(&mut self) {
        let Some((place, text, is_thought)) = self.open.take() else { return };
        let id = self.output[place]["id"].as_str().unwrap_or_default().to_string();
        let mut data = json!({"item_id": id, "output_index": place, "content_index": 0, "text": text});
        let part = if is_thought { items::thought(&text) } else { items::said(&text) };
        if is_thought {
            self.tell("response.reasoning_text.done", data);
            self.output[place] = items::reasoning(&id, Some(part.clone()), "completed");
        } else {
            data["logprobs"] = json!([]);
            self.tell("response.output_text.done", data);
            self.output[place] = items::message(&id, Some(part.clone()), "completed");
        }
        let data = json!({"item_id": id, "output_index": place, "content_index": 0, "part": part});
        self.tell("response.content_part.done", data);
        self.done(place);
    }

    /// Adds an event: its type, its number, then what it says.
    fn tell(&mut self, name: &'static str, data: Value) {
        let mut whole = Map::new();
        whole.insert("type".into(), json!(name));
        whole.insert("sequence_number".into(), json!(self.number));
        if let Value::Object(data) = data {
            whole.extend(data);
        }
        self.number += 1;
        self.events.push(Event { name, data: Value::Object(whole) });
    }
}

/// How a run's status looks.
fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "in_progress",
        RunStatus::Waiting | RunStatus::Done => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Limited => "incomplete",
        RunStatus::Cancelled => "cancelled",
    }
}
