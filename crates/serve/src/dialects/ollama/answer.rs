//! An answer of ours in Ollama's form: one object, or one a line. Knows nothing of requests.

use super::{Form, Route, error};
use crate::dialects::{
    Event,
    clock::{Spent, nanoseconds, rfc3339},
    completion::{self, Used},
    passing::Ignored,
};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// Makes the answer to one request.
pub struct Answering {
    model: String,
    form: Form,
    route: Route,
    stream: bool,
    ignored: Ignored,
    used: Used,
    /// Calls of which more may come; clients take whole ones only.
    calls: Vec<Call>,
    /// Calls that have been given out.
    given: usize,
    is_cut: bool,
}

struct Call {
    place: u64,
    id: Value,
    name: String,
    arguments: String,
}

/// What one line shows.
#[derive(Default)]
struct Shown<'a> {
    content: &'a str,
    thinking: &'a str,
    calls: Vec<Value>,
    logprobs: Option<&'a Value>,
}

impl Answering {
    pub(super) fn new(model: String, form: Form, route: Route, stream: bool, ignored: Ignored) -> Self {
        let used = Used::default();
        Self { model, form, route, stream, ignored, used, calls: vec![], given: 0, is_cut: false }
    }

    /// Whether the answer is a stream.
    pub fn streams(&self) -> bool {
        self.stream
    }

    /// The request's fields that nobody knows, and those that change nothing here.
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// The answer where there was nothing to say.
    pub fn idle(self, now: SystemTime) -> Value {
        let mut line = self.line(now, Shown::default(), true);
        let reason = if self.route == Route::Unload { "unload" } else { "load" };
        line.insert("done_reason".into(), reason.into());
        line.into()
    }

    /// The answer from a whole completion.
    pub fn whole(mut self, completion: &Value, now: SystemTime, spent: &Spent) -> Value {
        let choice = completion::choice(completion);
        self.used = Used::of(completion).unwrap_or_default();
        self.is_cut = choice["finish_reason"] == "length";
        let message = &choice["message"];
        for (place, call) in completion::calls(message).iter().enumerate() {
            self.collect(place as u64, call);
        }
        let calls = self.give_calls();
        let shown = Shown { calls, ..self.shown(choice, message) };
        self.last(now, shown, spent)
    }

    /// What a stream begins with.
    pub fn begin(&mut self) -> Vec<Event> {
        vec![]
    }

    /// What one chunk brings.
    pub fn piece(&mut self, chunk: &Value, now: SystemTime) -> Vec<Event> {
        self.used = Used::of(chunk).unwrap_or(self.used);
        let choice = completion::choice(chunk);
        let delta = &choice["delta"];
        let mut events = vec![];
        let shown = self.shown(choice, delta);
        if !shown.content.is_empty() || !shown.thinking.is_empty() || shown.logprobs.is_some() {
            events.push(Event::plain(self.line(now, shown, false).into()));
        }
        for call in completion::calls(delta) {
            let place = call["index"].as_u64().unwrap_or(0);
            if self.calls.iter().any(|known| known.place != place) {
                self.call_line(now, &mut events);
            }
            self.collect(place, call);
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.is_cut = finish == "length";
            self.call_line(now, &mut events);
        }
        events
    }

    /// After the last chunk.
    pub fn end(&mut self, now: SystemTime, spent: &Spent) -> Vec<Event> {
        let mut events = vec![];
        self.call_line(now, &mut events);
        events.push(Event::plain(self.last(now, Shown::default(), spent)));
        events
    }

    /// The stream failed: an OpenAI error object.
    pub fn broken(&mut self, object: &Value) -> Vec<Event> {
        vec![Event::plain(error(object))]
    }

    fn shown<'a>(&self, choice: &'a Value, message: &'a Value) -> Shown<'a> {
        if self.route == Route::Completions {
            return Shown { content: choice["text"].as_str().unwrap_or(""), ..Shown::default() };
        }
        let logprobs =
            Some(&choice["logprobs"]["content"]).filter(|list| list.as_array().is_some_and(|l| !l.is_empty()));
        let (content, thinking) = (completion::content(message), completion::reasoning(message));
        Shown { content, thinking, calls: vec![], logprobs }
    }

    /// Keeps what a message or delta says of one call.
    fn collect(&mut self, place: u64, call: &Value) {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or("");
        match self.calls.iter_mut().find(|known| known.place == place) {
            Some(known) => known.arguments += arguments,
            None => {
                let (id, name) = (call["id"].clone(), function["name"].as_str().unwrap_or("").into());
                self.calls.push(Call { place, id, name, arguments: arguments.into() });
            }
        }
    }

    fn give_calls(&mut self) -> Vec<Value> {
        let first = self.given;
        self.given += self.calls.len();
        let call = |(index, call): (usize, Call)| {
            let arguments = completion::arguments(&call.arguments);
            json!({"id": call.id, "function": {"index": first + index, "name": call.name, "arguments": arguments}})
        };
        std::mem::take(&mut self.calls).into_iter().enumerate().map(call).collect()
    }

    fn call_line(&mut self, now: SystemTime, events: &mut Vec<Event>) {
        let calls = self.give_calls();
        if !calls.is_empty() {
            events.push(Event::plain(self.line(now, Shown { calls, ..Shown::default() }, false).into()));
        }
    }

    fn line(&self, now: SystemTime, shown: Shown, is_done: bool) -> Map<String, Value> {
        let mut said = Map::new();
        let content = if self.form == Form::Chat { "content" } else { "response" };
        said.insert(content.into(), shown.content.into());
        if !shown.thinking.is_empty() {
            said.insert("thinking".into(), shown.thinking.into());
        }
        if !shown.calls.is_empty() {
            said.insert("tool_calls".into(), shown.calls.into());
        }
        let mut line = Map::new();
        line.insert("model".into(), self.model.clone().into());
        line.insert("created_at".into(), rfc3339(now).into());
        match self.form {
            Form::Chat => {
                said.shift_insert(0, "role".into(), "assistant".into());
                line.insert("message".into(), said.into());
            }
            Form::Generate => line.extend(said),
        }
        line.insert("done".into(), is_done.into());
        line.extend(shown.logprobs.map(|list| ("logprobs".to_string(), list.clone())));
        line
    }

    fn last(&self, now: SystemTime, shown: Shown, spent: &Spent) -> Value {
        let mut line = self.line(now, shown, true);
        line.insert("done_reason".into(), if self.is_cut { "length" } else { "stop" }.into());
        for (field, number) in [
            ("total_duration", nanoseconds(spent.total)),
            ("load_duration", nanoseconds(spent.load)),
            ("prompt_eval_count", self.used.prompt),
            ("prompt_eval_duration", nanoseconds(spent.prompt)),
            ("eval_count", self.used.answer),
            ("eval_duration", nanoseconds(spent.answer)),
        ] {
            line.insert(field.into(), number.into());
        }
        line.into()
    }
}
