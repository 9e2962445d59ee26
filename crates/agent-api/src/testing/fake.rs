//! Agents that play small scripts, for tests and for checks with real clients. Knows the contract and nothing else of
//! this crate: an example takes this file as it is.
//!
//! | agent | what it does |
//! |---|---|
//! | `echo` | says what was said, word by word |
//! | `looker` | speaks, calls `look` with progress, and says what it saw |
//! | `mailer` | calls `mail.send`, which waits for approval |
//! | `pair` | two calls that wait |
//! | `asker` | asks for data |
//! | `former` | its answer is data |
//! | `failing`, `limited` | end so |
//! | `slow` | works until it is released or cancelled |

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use narthex_agent::{
    AgentError, AgentView, Agents, Answer, Ask, Delta, Interrupt, Page, RunEvent, RunEventKind, RunFilter, RunStatus,
    RunView,
};
use narthex_base::chat::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// When the first run begins, in milliseconds since 1970.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

struct Run {
    tenant: String,
    key: Option<String>,
    view: RunView,
    log: Vec<RunEvent>,
}

#[derive(Default)]
struct Runs {
    list: Vec<Run>,
    asked: Vec<Ask>,
    now: u64,
}

/// Scripted agents.
pub struct Fake {
    runs: Arc<Mutex<Runs>>,
    changed: watch::Sender<u64>,
    /// Whether those who follow see the pieces of messages that are over.
    live: bool,
}

fn lock(runs: &Mutex<Runs>) -> MutexGuard<'_, Runs> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(dead_code)]
impl Fake {
    pub fn new() -> Self {
        Self { runs: Arc::default(), changed: watch::channel(0).0, live: true }
    }

    /// Pieces are seen by nobody, as by those who come late.
    pub fn late() -> Self {
        Self { live: false, ..Self::new() }
    }

    /// What was asked last.
    pub fn asked(&self) -> Ask {
        lock(&self.runs).asked.last().cloned().expect("something was asked")
    }

    /// How many runs there are.
    pub fn count(&self) -> usize {
        lock(&self.runs).list.len()
    }

    /// Lets the `slow` runs end.
    pub fn release(&self) {
        let mut runs = lock(&self.runs);
        for place in 0..runs.list.len() {
            if runs.list[place].view.status == RunStatus::Running {
                runs.speak(place, "at last");
                runs.end(place, RunStatus::Done, None, None);
            }
        }
        drop(runs);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

fn message(role: Role, text: &str) -> Message {
    Message::new(role, text)
}

fn called(calls: &[(&str, &str, Value)]) -> Message {
    let mut message = message(Role::Assistant, "");
    message.content = MessageContent::Nothing;
    let call = |(id, tool, arguments): &(&str, &str, Value)| ToolCall {
        id: id.to_string(),
        kind: ToolKind::Function,
        function: FunctionCall { name: tool.to_string(), arguments: arguments.to_string() },
    };
    message.tool_calls = calls.iter().map(call).collect();
    message
}

fn interrupt(id: &str, tool: &str, arguments: &Value) -> Interrupt {
    Interrupt {
        id: id.into(),
        question: format!("may `{tool}` be called with these arguments?"),
        call: Some((tool.into(), arguments.clone())),
        form: None,
        expires_ms: BEGIN_MS * 2,
    }
}

impl Runs {
    fn push(&mut self, place: usize, kind: RunEventKind) {
        self.now += 1;
        let run = &mut self.list[place];
        let piece = matches!(kind, RunEventKind::Said { .. } | RunEventKind::ToolProgress { .. });
        if !piece {
            run.view.last_event += 1;
        }
        let number = if piece { 0 } else { run.view.last_event };
        let at_ms = BEGIN_MS + self.now;
        run.view.changed_ms = at_ms;
        match &kind {
            RunEventKind::Message { message } => run.view.messages.push(message.clone()),
            RunEventKind::Waiting { interrupt } => {
                run.view.status = RunStatus::Waiting;
                run.view.interrupts.push(interrupt.clone());
            }
            RunEventKind::Working => run.view.status = RunStatus::Running,
            RunEventKind::Ended { status, reason, output } => {
                (run.view.status, run.view.reason, run.view.output) = (*status, reason.clone(), output.clone());
                run.view.interrupts.clear();
            }
            _ => {}
        }
        run.log.push(RunEvent { number, at_ms, kind });
    }

    fn whole(&mut self, place: usize, message: Message) {
        self.push(place, RunEventKind::Message { message });
    }

    fn speak(&mut self, place: usize, text: &str) {
        for word in text.split_inclusive(' ') {
            self.push(place, RunEventKind::Said { delta: Delta::Text(word.into()) });
        }
        self.whole(place, message(Role::Assistant, text));
    }

    fn end(&mut self, place: usize, status: RunStatus, reason: Option<&str>, output: Option<Value>) {
        self.push(place, RunEventKind::Ended { status, reason: reason.map(str::to_string), output });
    }

    fn done(&mut self, place: usize, text: &str) {
        self.speak(place, text);
        self.end(place, RunStatus::Done, None, None);
    }

    fn tool(&mut self, place: usize, id: &str, tool: &str, arguments: &Value, result: &str) {
        let (call, tool, arguments) = (id.to_string(), tool.to_string(), arguments.clone());
        self.push(place, RunEventKind::ToolStarted { call, tool: tool.clone(), arguments });
        let progress =
            RunEventKind::ToolProgress { call: id.into(), done: 1.0, of: Some(2.0), word: Some("half".into()) };
        self.push(place, progress);
        self.result(place, id, &tool, result);
    }

    fn result(&mut self, place: usize, id: &str, tool: &str, text: &str) {
        let mut result = message(Role::Tool, text);
        (result.tool_call_id, result.name) = (Some(id.into()), Some(tool.into()));
        self.whole(place, result);
    }

    fn begin(&mut self, place: usize, ask: &Ask) {
        self.push(place, RunEventKind::Working);
        for message in &ask.messages {
            self.whole(place, message.clone());
        }
        let said = ask.messages.last().map(|message| message.text().into_owned()).unwrap_or_default();
        match ask.agent.as_str() {
            "echo" => self.done(place, &format!("you said: {said}")),
            "looker" => {
                let arguments = json!({"at": said});
                let mut message = called(&[("c1", "look", arguments.clone())]);
                message.content = MessageContent::Text("let me look".into());
                self.push(place, RunEventKind::Said { delta: Delta::Thought("hm".into()) });
                self.push(place, RunEventKind::Said { delta: Delta::Text("let me ".into()) });
                self.whole(place, message);
                self.tool(place, "c1", "look", &arguments, "a cat");
                self.done(place, "it is a cat");
            }
            "mailer" => {
                let arguments = json!({"to": "anna", "text": said});
                self.whole(place, called(&[("c1", "mail.send", arguments.clone())]));
                self.push(place, RunEventKind::Waiting { interrupt: interrupt("i1", "mail.send", &arguments) });
            }
            "pair" => {
                let calls = [("c1", "one", json!({"n": 1})), ("c2", "two", json!({"n": 2}))];
                self.whole(place, called(&calls));
                for (id, (_, tool, arguments)) in ["i1", "i2"].iter().zip(&calls) {
                    self.push(place, RunEventKind::Waiting { interrupt: interrupt(id, tool, arguments) });
                }
            }
            "asker" => {
                let form = json!({"type": "object", "properties": {"colour": {"type": "string"}}});
                let question = "which colour?".to_string();
                let interrupt =
                    Interrupt { id: "i1".into(), question, call: None, form: Some(form), expires_ms: BEGIN_MS * 2 };
                self.push(place, RunEventKind::Waiting { interrupt });
            }
            "former" => {
                self.speak(place, "{\"colour\": \"red\"}");
                self.end(place, RunStatus::Done, None, Some(json!({"colour": "red"})));
            }
            "failing" => self.end(place, RunStatus::Failed, Some("the model is gone"), None),
            "limited" => {
                self.speak(place, "so far");
                self.end(place, RunStatus::Limited, Some("model_calls: 3"), None);
            }
            _ => {}
        }
    }

    fn answered(&mut self, place: usize, interrupt: Interrupt, answer: Answer) {
        let view = &mut self.list[place].view;
        view.interrupts.retain(|open| open.id != interrupt.id);
        let left = view.interrupts.len();
        if left == 0 {
            self.push(place, RunEventKind::Working);
        }
        let id = interrupt.id.replace('i', "c");
        let Some((tool, arguments)) = interrupt.call else {
            let Answer::Say { value } = answer else { return };
            return self.done(place, &format!("{value} it is"));
        };
        match answer {
            Answer::Approve { by } => self.tool(place, &id, &tool, &arguments, &format!("done for {by}")),
            Answer::Edit { arguments, by } => {
                let arguments = Value::Object(arguments);
                // History shows the edited call.
                for message in &mut self.list[place].view.messages {
                    for call in message.tool_calls.iter_mut().filter(|call| call.id == id) {
                        call.function.arguments = arguments.to_string();
                    }
                }
                self.tool(place, &id, &tool, &arguments, &format!("done for {by} with {arguments}"));
            }
            Answer::Refuse { why, by } => self.result(place, &id, &tool, &format!("refused by {by}: {why}")),
            Answer::Say { .. } => {}
        }
        if left == 0 {
            self.done(place, "that is all");
        }
    }

    fn find(&self, tenant: &str, run: &str) -> Result<usize, AgentError> {
        let found = self.list.iter().position(|known| known.tenant == tenant && known.view.id == run);
        found.ok_or_else(|| AgentError::Unknown(format!("there is no run `{run}`")))
    }

    fn start(&mut self, ask: Ask) -> Result<String, AgentError> {
        if !agents().iter().any(|agent| agent.name == ask.agent) {
            return Err(AgentError::Unknown(format!("there is no agent `{}`", ask.agent)));
        }
        if ask.messages.is_empty() {
            return Err(AgentError::Input("say something: `messages` is empty".into()));
        }
        self.asked.push(ask.clone());
        let of_key = |run: &&Run| run.tenant == ask.tenant && run.key.is_some() && run.key == ask.key;
        if let Some(known) = self.list.iter().find(of_key) {
            return Ok(known.view.id.clone());
        }
        let number = self.list.len() + 1;
        let thread = ask.thread.clone().unwrap_or_else(|| format!("thread-{number}"));
        let open = |run: &&Run| run.tenant == ask.tenant && run.view.thread == thread && !run.view.status.is_final();
        if let Some(open) = self.list.iter().find(open) {
            return Err(AgentError::Busy(format!("the run {} of this conversation is not over", open.view.id)));
        }
        let at_ms = BEGIN_MS + self.now;
        let view = RunView {
            id: format!("run-{number}"),
            thread,
            agent: ask.agent.clone(),
            status: RunStatus::Running,
            interrupts: vec![],
            messages: vec![],
            output: None,
            reason: None,
            started_ms: at_ms,
            changed_ms: at_ms,
            last_event: 0,
            metadata: ask.metadata.clone(),
        };
        let id = view.id.clone();
        self.list.push(Run { tenant: ask.tenant.clone(), key: ask.key.clone(), view, log: vec![] });
        self.begin(number - 1, &ask);
        Ok(id)
    }

    fn answer(&mut self, tenant: &str, run: &str, id: &str, answer: Answer) -> Result<(), AgentError> {
        let place = self.find(tenant, run)?;
        let view = &self.list[place].view;
        if view.status.is_final() {
            return Err(AgentError::Ended("the run has ended: it asks nothing any more".into()));
        }
        let Some(interrupt) = view.interrupts.iter().find(|open| open.id == id).cloned() else {
            return Err(AgentError::Unknown(format!("the run asks no question `{id}`")));
        };
        if interrupt.call.is_some() == matches!(answer, Answer::Say { .. }) {
            return Err(AgentError::Input("the answer does not fit the question".into()));
        }
        if let Answer::Edit { arguments, .. } = &answer
            && arguments.get("to") == Some(&json!("mallory"))
        {
            return Err(AgentError::Refused("the edited call is denied by the policy".into()));
        }
        self.answered(place, interrupt, answer);
        Ok(())
    }
}

fn agents() -> Vec<AgentView> {
    let agent = |name: &str, tools: &[&str], output: Option<Value>| AgentView {
        name: name.into(),
        description: format!("plays {name}"),
        version: format!("digest of {name}"),
        output,
        tools: tools.iter().map(|tool| (tool.to_string(), format!("does {tool}"))).collect(),
    };
    let colour = json!({"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]});
    vec![
        agent("echo", &[], None),
        agent("looker", &["look"], None),
        agent("mailer", &["mail.send"], None),
        agent("pair", &["one", "two"], None),
        agent("asker", &[], None),
        agent("former", &[], Some(colour)),
        agent("failing", &[], None),
        agent("limited", &[], None),
        agent("slow", &[], None),
    ]
}

impl Agents for Fake {
    fn list(&self) -> Vec<AgentView> {
        agents()
    }

    fn start(&self, ask: Ask) -> BoxFuture<'static, Result<String, AgentError>> {
        let started = lock(&self.runs).start(ask);
        self.tell();
        Box::pin(async { started })
    }

    fn run(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let runs = lock(&self.runs);
        let found = runs.find(tenant, run).map(|place| runs.list[place].view.clone());
        Box::pin(async { found })
    }

    fn follow(&self, tenant: &str, run: &str, after: u64) -> BoxStream<'static, Result<RunEvent, AgentError>> {
        let (runs, changed, live) = (self.runs.clone(), self.changed.subscribe(), self.live);
        let place = match lock(&runs).find(tenant, run) {
            Ok(place) => place,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        // Behind the event, with all that stands between it and the next one.
        let next = lock(&runs).list[place].log.iter().rposition(|event| event.number == after && after > 0);
        let next = next.map_or(0, |place| place + 1);
        futures::stream::unfold((next, changed), move |(mut next, mut changed)| {
            let runs = runs.clone();
            async move {
                loop {
                    changed.borrow_and_update();
                    let (event, over) = {
                        let runs = lock(&runs);
                        let run = &runs.list[place];
                        (run.log.get(next).cloned(), run.view.status != RunStatus::Running)
                    };
                    match event {
                        Some(event) if event.number > after || (event.number == 0 && live) => {
                            return Some((Ok(event), (next + 1, changed)));
                        }
                        Some(_) => next += 1,
                        None if over => return None,
                        None => changed.changed().await.ok()?,
                    }
                }
            }
        })
        .boxed()
    }

    fn runs(
        &self,
        tenant: &str,
        filter: RunFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<Vec<RunView>, AgentError>> {
        let runs = lock(&self.runs);
        let fits = |view: &RunView| {
            filter.agent.as_ref().is_none_or(|agent| *agent == view.agent)
                && filter.thread.as_ref().is_none_or(|thread| *thread == view.thread)
                && filter.status.is_none_or(|status| status == view.status)
                && filter.changed_since_ms.is_none_or(|since| view.changed_ms >= since)
        };
        let of_tenant = runs.list.iter().rev().filter(|run| run.tenant == tenant).map(|run| &run.view);
        let mut list: Vec<RunView> = of_tenant.cloned().collect();
        if let Some((after, _)) = page.place() {
            let behind = list.iter().position(|view| view.id == after).map_or(list.len(), |place| place + 1);
            list.drain(..behind);
        }
        list.retain(fits);
        list.truncate(page.size);
        Box::pin(async { Ok(list) })
    }

    fn answer(
        &self,
        tenant: &str,
        run: &str,
        interrupt: &str,
        answer: Answer,
    ) -> BoxFuture<'static, Result<(), AgentError>> {
        let answered = lock(&self.runs).answer(tenant, run, interrupt, answer);
        self.tell();
        Box::pin(async { answered })
    }

    fn cancel(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let mut runs = lock(&self.runs);
        let cancelled = runs.find(tenant, run).and_then(|place| {
            if runs.list[place].view.status.is_final() {
                return Err(AgentError::Ended(format!("the run {run} has ended already")));
            }
            runs.end(place, RunStatus::Cancelled, Some("it was cancelled"), None);
            Ok(runs.list[place].view.clone())
        });
        drop(runs);
        self.tell();
        Box::pin(async { cancelled })
    }
}
