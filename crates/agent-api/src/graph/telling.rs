//! A run's pieces as the events of LangGraph's streams. Knows no request and sends nothing.

use super::{
    find::id_of,
    human, messages,
    modes::Modes,
    state::{message_id, waiting},
};
use crate::pieces::Piece;
use narthex_agent::{RunStatus, RunView};
use narthex_base::chat::{Message, Role};
use serde_json::{Value, json};

/// An event to send.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub name: &'static str,
    pub data: Value,
}

/// How far a run's story has been told.
pub(super) struct Telling {
    modes: Modes,
    run: String,
    thread: String,
    agent: String,
    /// The thread's messages so far, those of earlier runs first.
    messages: Vec<Value>,
    /// Messages of this run so far.
    count: usize,
    /// Whether there are messages that no `values` told.
    untold: bool,
    /// The text under way.
    said: String,
    /// The message whose metadata was told.
    told: Option<String>,
}

impl Telling {
    /// `earlier` are the messages of the thread's earlier runs.
    pub fn new(modes: Modes, view: &RunView, earlier: Vec<Value>) -> Self {
        let (run, thread, agent) = (view.id.clone(), view.thread.clone(), view.agent.clone());
        Self { modes, run, thread, agent, messages: earlier, count: 0, untold: true, said: String::new(), told: None }
    }

    /// The first event: which run it is.
    pub fn begin(&self) -> Event {
        Event { name: "metadata", data: json!({"run_id": id_of(&self.run), "thread_id": self.thread, "attempt": 1}) }
    }

    /// The events of a piece.
    pub fn piece(&mut self, piece: Piece) -> Vec<Event> {
        match piece {
            Piece::Text(text) => self.text(&text),
            Piece::Thought(text) => self.tuple(messages::chunk(&self.id(), "", Some(&text)), "model"),
            Piece::Message(message) => self.message(&message),
            Piece::Started { .. } => self.values(),
            Piece::Progress { call, done, of, word } if self.modes.custom => {
                let data = json!({"type": "tool_progress", "tool_call_id": call, "done": done, "of": of, "word": word});
                vec![Event { name: "custom", data }]
            }
            _ => vec![],
        }
    }

    /// The last events: the state, what is waited for, and what went wrong.
    pub fn end(&mut self, view: &RunView) -> Vec<Event> {
        // A person may have edited calls: the run's own messages are right.
        self.messages.truncate(self.messages.len() - self.count);
        let own = |(place, message)| messages::written(message, &message_id(&view.id, place));
        self.messages.extend(view.messages.iter().enumerate().map(own));
        self.count = view.messages.len();
        let mut events = vec![];
        let interrupts = human::written(&waiting(view));
        if view.status == RunStatus::Waiting && self.modes.updates {
            events.push(Event { name: "updates", data: json!({"__interrupt__": interrupts}) });
        }
        if let Some(output) = view.output.as_ref().filter(|_| self.modes.updates) {
            events.push(Event { name: "updates", data: json!({"model": {"structured_response": output}}) });
        }
        if self.modes.values {
            events.push(Event { name: "values", data: self.last_values(view) });
        }
        match failure(view) {
            Some(data) => events.push(Event { name: "error", data }),
            None => events.push(Event { name: "end", data: Value::Null }),
        }
        events
    }

    /// The thread's values at the end, as an answer that is waited for has them.
    pub fn last_values(&self, view: &RunView) -> Value {
        let mut values = json!({"messages": self.messages});
        if let Some(output) = &view.output {
            values["structured_response"] = output.clone();
        }
        if view.status == RunStatus::Waiting {
            values["__interrupt__"] = human::written(&waiting(view));
        }
        values
    }

    /// The id of the message under way.
    fn id(&self) -> String {
        message_id(&self.run, self.count)
    }

    fn metadata(&self, node: &str) -> Value {
        json!({
            "langgraph_node": node, "langgraph_step": self.count, "run_id": id_of(&self.run), "thread_id": self.thread,
            "graph_id": self.agent, "assistant_id": super::assistants::id_of(&self.agent), "tags": [],
        })
    }

    fn tuple(&self, message: Value, node: &str) -> Vec<Event> {
        if !self.modes.tuples {
            return vec![];
        }
        vec![Event { name: "messages", data: json!([message, self.metadata(node)]) }]
    }

    fn text(&mut self, text: &str) -> Vec<Event> {
        let mut events = self.values();
        self.said.push_str(text);
        events.extend(self.tuple(messages::chunk(&self.id(), text, None), "model"));
        if self.modes.messages {
            let so_far = messages::written(&Message::new(Role::Assistant, self.said.clone()), &self.id());
            events.extend(self.whole("messages/partial", so_far, "model"));
        }
        events
    }

    /// A message as far as it is known, after its metadata.
    fn whole(&mut self, name: &'static str, message: Value, node: &str) -> Vec<Event> {
        let mut events = vec![];
        let id = self.id();
        if self.told.as_ref() != Some(&id) {
            let data = json!({id.clone(): {"metadata": self.metadata(node)}});
            events.push(Event { name: "messages/metadata", data });
            self.told = Some(id);
        }
        events.push(Event { name, data: json!([message]) });
        events
    }

    fn message(&mut self, message: &Message) -> Vec<Event> {
        let id = self.id();
        let written = messages::written(message, &id);
        let node = match message.role {
            Role::Assistant => "model",
            Role::Tool => "tools",
            Role::User | Role::System => {
                self.keep(written);
                return vec![];
            }
        };
        let mut events = self.values();
        match message.role {
            Role::Assistant => events.extend(self.tuple(messages::last_chunk(message, &id), node)),
            _ => events.extend(self.tuple(written.clone(), node)),
        }
        if self.modes.messages {
            events.extend(self.whole("messages/complete", written.clone(), node));
        }
        if self.modes.updates {
            events.push(Event { name: "updates", data: json!({node: {"messages": [written.clone()]}}) });
        }
        self.keep(written);
        events.extend(self.values());
        events
    }

    fn keep(&mut self, message: Value) {
        self.messages.push(message);
        self.count += 1;
        self.untold = true;
        self.said.clear();
    }

    /// The state, if there is something new in it.
    fn values(&mut self) -> Vec<Event> {
        if !std::mem::take(&mut self.untold) || !self.modes.values {
            return vec![];
        }
        vec![Event { name: "values", data: json!({"messages": self.messages}) }]
    }
}

/// What went wrong with a run, as LangGraph says it.
pub(super) fn failure(view: &RunView) -> Option<Value> {
    let error = match view.status {
        RunStatus::Failed => "RunFailed",
        RunStatus::Limited => "RunLimited",
        RunStatus::Cancelled => "UserInterrupt",
        _ => return None,
    };
    let message = view.reason.as_deref().unwrap_or("the run does not say why");
    Some(json!({"error": error, "message": message}))
}
