//! Goes through a run's events once and makes a span of each thing that begins and ends. Pure; knows no JSON of OTLP.

use super::said;
use crate::{
    agents::RunStatus,
    definition::AgentDefinition,
    event::{Decision, Event, Purpose, Stamped},
    model::{Ended, ModelAnswer},
    state::{Earlier, State},
    step::step,
    tool::ToolResult,
    window::request,
};
use narthex_base::{Digest, chat::Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who is named as the provider of models: which of them is behind an endpoint, a run's log does not say.
const PROVIDER: &str = "narthex";

/// Hexadecimal digits of a trace's id and of a span's.
const TRACE_DIGITS: usize = 32;
const SPAN_DIGITS: usize = 16;

/// A run with all its events.
#[derive(Clone, Debug, PartialEq)]
pub struct RunLog {
    /// Its id.
    pub run: String,
    /// What happened, from the first event on.
    pub events: Vec<Stamped>,
}

/// Something that began and ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// 32 hexadecimal digits, the same for a run and all below it.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// The span that it is a part of.
    pub parent: Option<String>,
    /// What it is, with the name of the agent, the model or the tool.
    pub name: String,
    /// On which side of a call it is.
    pub kind: SpanKind,
    /// Milliseconds since 1970.
    pub start_ms: u64,
    /// The same; the run's last event where it has not ended.
    pub end_ms: u64,
    /// The number of the event that ended it, counted from 1.
    pub ended_by: Option<u64>,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened in between.
    pub events: Vec<SpanEvent>,
    /// The trace and the span that it is a copy of.
    pub link: Option<(String, String)>,
    /// Whether it failed, and why where contents are wanted.
    pub error: Option<String>,
}

/// On which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Within the process.
    Internal,
    /// It asks somebody.
    Client,
}

/// Something that happened at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub name: &'static str,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The spans of a run. `root` is the run at the top of the tree that it is part of: itself, unless another agent asked
/// for it. What people, models and tools said is only told where `with_content` asks for it.
pub fn spans(root: &str, log: &RunLog, with_content: bool) -> Vec<Span> {
    let mut walk = Walk::new(root, log, with_content);
    for (number, stamped) in (1..).zip(&log.events) {
        walk.take(number, stamped);
    }
    walk.finish()
}

fn digits(of: &Value, count: usize) -> String {
    Digest::of(of.to_string().as_bytes()).to_string()[..count].to_string()
}

fn trace_id(root: &str) -> String {
    digits(&json!(["trace", root]), TRACE_DIGITS)
}

fn agent_span(run: &str) -> String {
    digits(&json!(["run", run]), SPAN_DIGITS)
}

/// The span of a call that another agent works on: its run hangs below it.
fn call_span(run: &str, call: &str) -> String {
    digits(&json!(["call", run, call]), SPAN_DIGITS)
}

/// A number as it is written, and not as its nearest neighbour in double precision.
fn f64_of(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

struct Walk<'a> {
    run: &'a str,
    trace: String,
    with_content: bool,
    state: State,
    agent: Option<Span>,
    chat: Option<Span>,
    tools: BTreeMap<String, Span>,
    ended: Vec<Span>,
    tokens: (u64, u64),
    last_ms: u64,
}

impl<'a> Walk<'a> {
    fn new(root: &str, log: &'a RunLog, with_content: bool) -> Self {
        Self {
            run: &log.run,
            trace: trace_id(root),
            with_content,
            state: State::new(&log.run, "", Earlier::default()),
            agent: None,
            chat: None,
            tools: BTreeMap::new(),
            ended: vec![],
            tokens: (0, 0),
            last_ms: 0,
        }
    }

    fn begin(&self, id: String, name: String, kind: SpanKind, at_ms: u64) -> Span {
        let parent = Some(agent_span(self.run));
        let (trace, attributes, events) = (self.trace.clone(), vec![], vec![]);
        Span {
            trace,
            id,
            parent,
            name,
            kind,
            start_ms: at_ms,
            end_ms: at_ms,
            ended_by: None,
            attributes,
            events,
            link: None,
            error: None,
        }
    }

    fn end(&mut self, mut span: Span, number: u64, at_ms: u64) {
        (span.end_ms, span.ended_by) = (at_ms.max(span.start_ms), Some(number));
        self.ended.push(span);
    }

    fn take(&mut self, number: u64, stamped: &Stamped) {
        let at_ms = stamped.at_ms;
        if let Event::Asked { purpose, model } = &stamped.event {
            self.asked(number, at_ms, *purpose, model);
        }
        let state = std::mem::replace(&mut self.state, State::new("", "", Earlier::default()));
        // A copy of a run that has ended begins anew.
        let before = state.outcome.is_some() && !matches!(stamped.event, Event::Forked { .. });
        self.state = step(state, stamped).state;
        self.read(number, at_ms, &stamped.event);
        self.last_ms = self.last_ms.max(at_ms);
        if self.state.outcome.is_some() && !before {
            self.over(number, at_ms);
        }
    }

    fn read(&mut self, number: u64, at_ms: u64, event: &Event) {
        match event {
            Event::Created(_) => self.created(at_ms),
            Event::Answered { answer, .. } => self.answered(number, at_ms, answer),
            Event::NotAnswered { failure, .. } => {
                if let Some(mut chat) = self.chat.take() {
                    let kind = if failure.passing { "unavailable" } else { "refused" };
                    chat.attributes.push(("error.type", kind.into()));
                    chat.error = Some(self.content(&failure.message));
                    self.end(chat, number, at_ms);
                }
            }
            Event::Started { call } => {
                self.started(at_ms, call, digits(&json!(["start", self.run, number]), SPAN_DIGITS));
            }
            Event::Delegated { call, .. } => self.started(at_ms, call, call_span(self.run, call)),
            Event::Done { call, result } => self.done(number, at_ms, call, result),
            Event::Decided { call, decision, .. } => {
                let (name, by) = match decision {
                    Decision::Approve { by } => ("narthex.approval.approved", Some(by)),
                    Decision::Edit { by, .. } => ("narthex.approval.edited", Some(by)),
                    Decision::Refuse { by, .. } => ("narthex.approval.refused", Some(by)),
                    Decision::Given { .. } => ("narthex.approval.given", None),
                };
                self.happened(at_ms, name, call, by);
            }
            Event::Lapsed { call } => self.happened(at_ms, "narthex.approval.lapsed", call, None),
            Event::Resumed => self.broken_off(number, "interrupted"),
            Event::Forked { from, .. } => self.forked(at_ms, from),
            Event::Asked { .. }
            | Event::Rejudged { .. }
            | Event::ChildWaits { .. }
            | Event::TimeUp
            | Event::Cancelled => {}
        }
    }

    /// Contents only where they are wanted.
    fn content(&self, text: &str) -> String {
        if self.with_content { text.to_string() } else { String::new() }
    }

    fn created(&mut self, at_ms: u64) {
        let created = self.state.created.clone();
        let definition = &created.definition;
        let name = format!("invoke_agent {}", created.agent);
        let mut agent = self.begin(agent_span(self.run), name, SpanKind::Internal, at_ms);
        agent.parent = created.parent.as_ref().map(|parent| call_span(&parent.run, &parent.call));
        agent.attributes = vec![
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.agent.name", created.agent.clone().into()),
            ("gen_ai.conversation.id", created.thread.clone().into()),
            ("narthex.run.id", self.run.into()),
        ];
        if !definition.description.is_empty() {
            agent.attributes.push(("gen_ai.agent.description", definition.description.clone().into()));
        }
        if definition.fallback.is_empty() {
            agent.attributes.push(("gen_ai.request.model", definition.model.clone().into()));
        }
        if self.with_content {
            self.instructions(definition, &mut agent);
            agent.attributes.push(("gen_ai.input.messages", said::input(&created.messages).into()));
        }
        self.agent = Some(agent);
    }

    fn instructions(&self, definition: &AgentDefinition, span: &mut Span) {
        if self.with_content && !definition.instructions.is_empty() {
            let instructions = said::instructions(&definition.instructions);
            span.attributes.push(("gen_ai.system_instructions", instructions.into()));
        }
    }

    fn asked(&mut self, number: u64, at_ms: u64, purpose: Purpose, model: &str) {
        let created = self.state.created.clone();
        let (definition, sampling) = (&created.definition, &created.definition.sampling);
        let id = digits(&json!(["chat", self.run, number]), SPAN_DIGITS);
        let mut chat = self.begin(id, format!("chat {model}"), SpanKind::Client, at_ms);
        let word = match purpose {
            Purpose::Answer => "answer",
            Purpose::Form => "form",
            Purpose::Summary { .. } => "summary",
        };
        chat.attributes = vec![
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", PROVIDER.into()),
            ("gen_ai.request.model", model.into()),
            ("gen_ai.agent.name", created.agent.clone().into()),
            ("gen_ai.conversation.id", created.thread.clone().into()),
            ("narthex.chat.purpose", word.into()),
        ];
        chat.attributes.extend(sampling.temperature.map(|value| ("gen_ai.request.temperature", f64_of(value))));
        chat.attributes.extend(sampling.seed.map(|value| ("gen_ai.request.seed", json!(value))));
        chat.attributes.extend(sampling.tokens_max.map(|value| ("gen_ai.request.max_tokens", json!(value))));
        if purpose == Purpose::Form {
            chat.attributes.push(("gen_ai.output.type", "json".into()));
        }
        if self.with_content {
            let request = request(&self.state, purpose, &[]);
            self.instructions(definition, &mut chat);
            chat.attributes.push(("gen_ai.input.messages", said::input(&request.conversation.messages).into()));
        }
        self.chat = Some(chat);
    }

    fn answered(&mut self, number: u64, at_ms: u64, answer: &ModelAnswer) {
        let Some(mut chat) = self.chat.take() else { return };
        let (reason, part) = match answer.ended {
            Ended::Stop => ("stop", "stop"),
            Ended::Calls => ("tool_calls", "tool_call"),
            Ended::Length => ("length", "length"),
        };
        self.tokens.0 += answer.tokens_in;
        self.tokens.1 += answer.tokens_out;
        chat.attributes.extend([
            ("gen_ai.response.finish_reasons", json!([reason])),
            ("gen_ai.usage.input_tokens", answer.tokens_in.into()),
            ("gen_ai.usage.output_tokens", answer.tokens_out.into()),
        ]);
        if self.with_content {
            chat.attributes.push(("gen_ai.output.messages", said::output(&answer.message, part).into()));
        }
        self.end(chat, number, at_ms);
    }

    fn started(&mut self, at_ms: u64, id: &str, span: String) {
        let Some(judged) = self.state.call(id).map(|call| call.judged.clone()) else { return };
        let mut tool = self.begin(span, format!("execute_tool {}", judged.tool), SpanKind::Internal, at_ms);
        tool.attributes = vec![
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.name", judged.tool.into()),
            ("gen_ai.tool.call.id", id.into()),
            ("gen_ai.tool.type", "function".into()),
        ];
        if self.with_content {
            let arguments = said::bounded(Value::Object(judged.arguments).to_string());
            tool.attributes.push(("gen_ai.tool.call.arguments", arguments.into()));
        }
        self.tools.insert(id.to_string(), tool);
    }

    fn done(&mut self, number: u64, at_ms: u64, id: &str, result: &ToolResult) {
        let Some(mut tool) = self.tools.remove(id) else { return };
        if result.is_error {
            tool.attributes.push(("error.type", "tool_error".into()));
            tool.error = Some(String::new());
        }
        if self.with_content {
            let given = result.structured.clone().unwrap_or_else(|| json!(result.content)).to_string();
            tool.attributes.push(("gen_ai.tool.call.result", said::bounded(given).into()));
        }
        self.end(tool, number, at_ms);
    }

    fn happened(&mut self, at_ms: u64, name: &'static str, call: &str, by: Option<&String>) {
        let tool = self.state.call(call).map(|call| call.judged.tool.clone());
        let mut attributes: Vec<(&str, Value)> = vec![("gen_ai.tool.call.id", call.into())];
        attributes.extend(tool.map(|tool| ("gen_ai.tool.name", tool.into())));
        attributes.extend(by.filter(|_| self.with_content).map(|by| ("narthex.approval.by", by.clone().into())));
        if let Some(agent) = &mut self.agent {
            agent.events.push(SpanEvent { at_ms, name, attributes });
        }
    }

    /// What was under way when a process ended; when it ended, nobody knows: no earlier than its last event.
    fn broken_off(&mut self, number: u64, why: &'static str) {
        let delegated = |state: &State, id: &str| state.call(id).is_some_and(|call| call.judged.delegate.is_some());
        let ids: Vec<String> = self.tools.keys().filter(|id| !delegated(&self.state, id)).cloned().collect();
        let tools: Vec<Span> = ids.iter().filter_map(|id| self.tools.remove(id)).collect();
        for mut span in self.chat.take().into_iter().chain(tools) {
            span.attributes.push(("error.type", why.into()));
            span.error = Some(String::new());
            self.end(span, number, self.last_ms);
        }
    }

    /// What stands before it belongs to the run that was copied.
    fn forked(&mut self, at_ms: u64, from: &str) {
        (self.chat, self.tokens) = (None, (0, 0));
        self.tools.clear();
        self.ended.clear();
        self.created(at_ms);
        if let Some(agent) = &mut self.agent {
            agent.link = Some((trace_id(from), agent_span(from)));
        }
    }

    fn over(&mut self, number: u64, at_ms: u64) {
        let tools = std::mem::take(&mut self.tools).into_values();
        for mut span in self.chat.take().into_iter().chain(tools).collect::<Vec<_>>() {
            span.attributes.push(("error.type", "cancelled".into()));
            span.error = Some(String::new());
            self.end(span, number, at_ms);
        }
        if let Some(agent) = self.agent.take() {
            let agent = self.summed(agent);
            self.end(agent, number, at_ms);
        }
    }

    /// The run's span with what is known of the whole.
    fn summed(&self, mut agent: Span) -> Span {
        let status = self.state.status();
        let word = json!(status);
        agent.attributes.extend([
            ("gen_ai.usage.input_tokens", self.tokens.0.into()),
            ("gen_ai.usage.output_tokens", self.tokens.1.into()),
            ("narthex.run.status", word.clone()),
        ]);
        if matches!(status, RunStatus::Failed | RunStatus::Limited | RunStatus::Cancelled) {
            let reason = self.state.outcome.as_ref().and_then(|outcome| outcome.reason.clone());
            agent.attributes.push(("error.type", word));
            agent.error = Some(self.content(&reason.unwrap_or_default()));
        }
        let last = self.state.messages.iter().rfind(|message| message.role == Role::Assistant);
        if let Some(last) = last.filter(|_| self.with_content) {
            agent.attributes.push(("gen_ai.output.messages", said::output(last, "stop").into()));
        }
        agent
    }

    /// What has not ended lasts until the last event.
    fn finish(mut self) -> Vec<Span> {
        let agent = self.agent.take().map(|agent| self.summed(agent));
        let tools = std::mem::take(&mut self.tools).into_values();
        for mut span in agent.into_iter().chain(self.chat.take()).chain(tools) {
            span.end_ms = self.last_ms.max(span.start_ms);
            self.ended.push(span);
        }
        self.ended.sort_by_key(|span| span.start_ms);
        self.ended
    }
}
