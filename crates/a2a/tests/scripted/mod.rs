//! Agents that do what a script says, kept in memory: for tests, and for the official suite. Knows no protocol.

#![allow(dead_code)]

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use narthex_agent::{
    AgentError, AgentView, Agents, Answer, Ask, Delta, Interrupt, Page, RunEvent, RunEventKind, RunFilter, RunStatus,
    RunView,
};
use narthex_base::chat::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The newest runs are at the end.
const RUNS_MAX: usize = 10_000;

/// What an agent does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A piece of the answer.
    Piece(&'static str),
    /// A remark, and a call of a tool.
    Call(&'static str, &'static str),
    /// A word of the tool.
    Progress(f64, &'static str),
    /// It asks.
    Ask(Interrupt),
    /// Time passes.
    Wait(Duration),
    /// It waits until the test says so: [`Scripted::go_on`].
    Hold,
    /// The final message.
    Done(Message),
    /// The final answer as data.
    Structured(Value),
    /// It fails.
    Fail(RunStatus, &'static str),
}

/// What comes next, by what was asked and, if it was, answered.
pub type Script = Arc<dyn Fn(&Ask, Option<&Answer>) -> Vec<Step> + Send + Sync>;

struct Run {
    tenant: String,
    ask: Ask,
    view: RunView,
    log: Vec<RunEvent>,
    changed: watch::Sender<u64>,
    answers: Vec<Answer>,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<String, Run>,
    keys: HashMap<(String, String), String>,
}

/// See the module.
#[derive(Clone)]
pub struct Scripted {
    agents: Vec<AgentView>,
    script: Script,
    state: Arc<Mutex<State>>,
    clock: Arc<AtomicU64>,
    held: Arc<watch::Sender<u64>>,
}

pub fn agent(name: &str) -> AgentView {
    let (description, version) = (format!("{name} does what a script says"), "1".to_string());
    AgentView { name: name.into(), description, version, output: None, tools: vec![("look".into(), "Looks".into())] }
}

pub fn interrupt(id: &str, question: &str, call: Option<(&str, Value)>) -> Interrupt {
    let call = call.map(|(tool, arguments)| (tool.to_string(), arguments));
    Interrupt { id: id.into(), question: question.into(), call, form: None, expires_ms: 1 << 50 }
}

pub fn said(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

impl Scripted {
    pub fn new(agents: Vec<AgentView>, script: Script) -> Self {
        let held = Arc::new(watch::channel(0).0);
        Self { agents, script, state: Arc::default(), clock: Arc::new(AtomicU64::new(1_700_000_000_000)), held }
    }

    /// Lets a run that holds go on.
    pub fn go_on(&self) {
        self.held.send_modify(|count| *count += 1);
    }

    /// What runs were asked, oldest first.
    pub fn asked(&self) -> Vec<Ask> {
        self.state.lock().unwrap().runs.values().map(|run| run.ask.clone()).collect()
    }

    /// The answers that a run was given.
    pub fn answers(&self, run: &str) -> Vec<Answer> {
        self.state.lock().unwrap().runs[run].answers.clone()
    }

    pub fn status(&self, run: &str) -> RunStatus {
        self.state.lock().unwrap().runs[run].view.status
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn with<T>(&self, tenant: &str, run: &str, work: impl FnOnce(&mut Run) -> T) -> Result<T, AgentError> {
        let mut state = self.state.lock().unwrap();
        let found = state.runs.get_mut(run).filter(|found| found.tenant == tenant);
        found.map(work).ok_or_else(|| AgentError::Unknown(format!("no run {run}")))
    }

    /// Adds an event; `kept` ones are numbered.
    fn log(&self, run: &str, kept: bool, kind: RunEventKind) -> bool {
        let at_ms = self.now();
        let mut state = self.state.lock().unwrap();
        let run = state.runs.get_mut(run).unwrap();
        if run.view.status.is_final() {
            return false;
        }
        if kept {
            run.view.last_event += 1;
            run.view.changed_ms = at_ms;
        }
        let number = if kept { run.view.last_event } else { 0 };
        match &kind {
            RunEventKind::Message { message } => run.view.messages.push(message.clone()),
            RunEventKind::Waiting { interrupt } => {
                run.view.status = RunStatus::Waiting;
                run.view.interrupts.push(interrupt.clone());
            }
            RunEventKind::Ended { status, reason, output } => {
                run.view.status = *status;
                run.view.interrupts.clear();
                (run.view.reason, run.view.output) = (reason.clone(), output.clone());
            }
            _ => {}
        }
        run.log.push(RunEvent { number, at_ms, kind });
        run.changed.send_modify(|count| *count += 1);
        true
    }

    fn play(&self, run: String, steps: Vec<Step>) {
        let this = self.clone();
        let mut held = self.held.subscribe();
        tokio::spawn(async move {
            this.log(&run, true, RunEventKind::Working);
            for step in steps {
                let going = match step {
                    Step::Piece(text) => this.log(&run, false, RunEventKind::Said { delta: Delta::Text(text.into()) }),
                    Step::Call(remark, tool) => {
                        let function = FunctionCall { name: tool.into(), arguments: "{}".into() };
                        let call = ToolCall { id: "c1".into(), kind: ToolKind::Function, function };
                        let message = Message { tool_calls: vec![call], ..said(remark) };
                        this.log(&run, true, RunEventKind::Message { message });
                        let (call, tool) = ("c1".into(), tool.into());
                        this.log(&run, true, RunEventKind::ToolStarted { call, tool, arguments: json!({"secret": 1}) })
                    }
                    Step::Progress(done, word) => {
                        let (call, word) = ("c1".to_string(), Some(word.to_string()));
                        this.log(&run, true, RunEventKind::ToolProgress { call, done, of: None, word })
                    }
                    Step::Ask(interrupt) => this.log(&run, true, RunEventKind::Waiting { interrupt }),
                    Step::Wait(time) => {
                        tokio::time::sleep(time).await;
                        true
                    }
                    Step::Hold => held.changed().await.is_ok(),
                    Step::Done(message) => {
                        if message.content != MessageContent::Nothing || !message.others.is_empty() {
                            this.log(&run, true, RunEventKind::Message { message });
                        }
                        this.log(&run, true, ended(RunStatus::Done, None, None))
                    }
                    Step::Structured(output) => {
                        this.log(&run, true, RunEventKind::Message { message: said(&output.to_string()) });
                        this.log(&run, true, ended(RunStatus::Done, None, Some(output)))
                    }
                    Step::Fail(status, reason) => this.log(&run, true, ended(status, Some(reason.into()), None)),
                };
                if !going {
                    return;
                }
            }
        });
    }
}

fn ended(status: RunStatus, reason: Option<String>, output: Option<Value>) -> RunEventKind {
    RunEventKind::Ended { status, reason, output }
}

impl Agents for Scripted {
    fn list(&self) -> Vec<AgentView> {
        self.agents.clone()
    }

    fn start(&self, ask: Ask) -> BoxFuture<'static, Result<String, AgentError>> {
        let this = self.clone();
        async move {
            if !this.agents.iter().any(|agent| agent.name == ask.agent) {
                return Err(AgentError::Unknown(format!("no agent {}", ask.agent)));
            }
            let now = this.now();
            let id = {
                let mut state = this.state.lock().unwrap();
                let key = ask.key.clone().map(|key| (ask.tenant.clone(), key));
                if let Some(known) = key.as_ref().and_then(|key| state.keys.get(key)) {
                    return Ok(known.clone());
                }
                if let Some(thread) = &ask.thread
                    && !state.runs.values().any(|run| run.tenant == ask.tenant && run.view.thread == *thread)
                {
                    return Err(AgentError::Unknown(format!("no thread {thread}")));
                }
                if state.runs.len() >= RUNS_MAX {
                    return Err(AgentError::Busy("too many runs".into()));
                }
                let id = format!("run-{:06}", state.runs.len() + 1);
                state.keys.extend(key.map(|key| (key, id.clone())));
                let view = RunView {
                    id: id.clone(),
                    thread: ask.thread.clone().unwrap_or_else(|| format!("thread-{id}")),
                    agent: ask.agent.clone(),
                    status: RunStatus::Running,
                    interrupts: vec![],
                    messages: ask.messages.clone(),
                    output: None,
                    reason: None,
                    started_ms: now,
                    changed_ms: now,
                    last_event: 0,
                    metadata: ask.metadata.clone(),
                };
                let (changed, tenant) = (watch::channel(0).0, ask.tenant.clone());
                let run = Run { tenant, ask: ask.clone(), view, log: vec![], changed, answers: vec![] };
                state.runs.insert(id.clone(), run);
                id
            };
            this.play(id.clone(), (this.script)(&ask, None));
            Ok(id)
        }
        .boxed()
    }

    fn run(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let view = self.with(tenant, run, |run| run.view.clone());
        async move { view }.boxed()
    }

    fn follow(&self, tenant: &str, run: &str, after: u64) -> BoxStream<'static, Result<RunEvent, AgentError>> {
        let this = self.clone();
        let (tenant, run) = (tenant.to_string(), run.to_string());
        let begin = self.with(&tenant, &run, |run| {
            let position = run.log.iter().position(|event| event.number == after && after > 0);
            (position.map_or(0, |position| position + 1), run.changed.subscribe())
        });
        let (position, changed) = match begin {
            Ok(begin) => begin,
            Err(error) => return futures::stream::once(async move { Err(error) }).boxed(),
        };
        futures::stream::unfold((this, position, changed), move |(this, position, mut changed)| {
            let (tenant, run) = (tenant.clone(), run.clone());
            async move {
                loop {
                    let seen = this.with(&tenant, &run, |run| {
                        changed.mark_unchanged();
                        (run.log.get(position).cloned(), run.view.status)
                    });
                    match seen.ok()? {
                        (Some(event), _) => return Some((Ok(event), (this, position + 1, changed))),
                        (None, RunStatus::Running) => changed.changed().await.ok()?,
                        (None, _) => return None,
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
        let state = self.state.lock().unwrap();
        let own = |run: &&Run| run.tenant == tenant;
        let mut views: Vec<RunView> = state.runs.values().filter(own).map(|run| run.view.clone()).collect();
        views.sort_by_key(|view| std::cmp::Reverse((view.changed_ms, view.id.clone())));
        let mut found = Ok(0);
        if let Some((after, _)) = page.place() {
            let position = views.iter().position(|view| view.id == after);
            found = position.map(|position| position + 1).ok_or_else(|| AgentError::Unknown(format!("no run {after}")));
        }
        let fits = move |view: &RunView| {
            filter.agent.as_ref().is_none_or(|agent| *agent == view.agent)
                && filter.thread.as_ref().is_none_or(|thread| *thread == view.thread)
                && filter.status.is_none_or(|status| status == view.status)
                && filter.changed_since_ms.is_none_or(|since| view.changed_ms >= since)
        };
        let views = found.map(|begin| views.into_iter().skip(begin).filter(fits).take(page.size).collect());
        async move { views }.boxed()
    }

    fn answer(
        &self,
        tenant: &str,
        run: &str,
        interrupt: &str,
        answer: Answer,
    ) -> BoxFuture<'static, Result<(), AgentError>> {
        let outcome = self.with(tenant, run, |found| {
            let place = found.view.interrupts.iter().position(|waiting| waiting.id == interrupt);
            let Some(place) = place else { return Err(AgentError::Unknown(format!("no interrupt {interrupt}"))) };
            found.view.interrupts.remove(place);
            found.answers.push(answer.clone());
            if found.view.interrupts.is_empty() {
                found.view.status = RunStatus::Running;
                return Ok(Some(found.ask.clone()));
            }
            Ok(None)
        });
        match outcome {
            Ok(Ok(Some(ask))) => {
                self.play(run.to_string(), (self.script)(&ask, Some(&answer)));
                async { Ok(()) }.boxed()
            }
            Ok(Ok(None)) => async { Ok(()) }.boxed(),
            Ok(Err(error)) | Err(error) => async { Err(error) }.boxed(),
        }
    }

    fn cancel(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let this = self.clone();
        let (tenant, run) = (tenant.to_string(), run.to_string());
        async move {
            this.with(&tenant, &run, |_| ())?;
            if !this.log(&run, true, ended(RunStatus::Cancelled, None, None)) {
                return Err(AgentError::Ended(format!("run {run} has ended")));
            }
            this.with(&tenant, &run, |run| run.view.clone())
        }
        .boxed()
    }
}

/// The id of the message that began a run.
pub fn message_id(ask: &Ask) -> &str {
    ask.key.as_deref().and_then(|key| key.splitn(4, ':').nth(3)).unwrap_or_default()
}

/// A final message with files.
pub fn with_files(files: Value) -> Message {
    let others = Map::from_iter([("attachments".to_string(), files)]);
    Message { content: MessageContent::Nothing, others, ..said("") }
}
