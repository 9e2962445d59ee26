//! Servers on this machine and agents of a few lines, for the tests of both ends.
#![allow(dead_code, reason = "each test program uses some of it")]

use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use narthex_agent::{
    AgentError, AgentView, Agents, Answer, Ask, Call, Content, Delta, Effect, Interrupt, Page, Progress, RunEvent,
    RunEventKind, RunFilter, RunStatus, RunView, Tool, ToolDefinition, ToolFailure, ToolResult,
};
use narthex_base::{Message, Role};
use narthex_mcp::{Offer, ServerOptions, router};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, MutexGuard};

pub const SECRET: [u8; 32] = [7; 32];

/// Serves routes on a free port and returns the address.
pub async fn serve(routes: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    format!("http://{address}")
}

/// Serves an offer and returns its address.
pub async fn offered(offer: Offer, options: ServerOptions) -> String {
    format!("{}/mcp", serve(router(offer, options)).await)
}

pub fn options() -> ServerOptions {
    ServerOptions::new(SECRET)
}

/// A tool that gives its arguments back, and counts its calls.
pub struct Echo {
    pub definition: ToolDefinition,
    pub calls: Arc<Mutex<Vec<Call>>>,
}

impl Echo {
    pub fn new(name: &str) -> Self {
        let definition = ToolDefinition {
            name: name.into(),
            description: "Gives back.".into(),
            input_schema: json!({
                "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"],
                "additionalProperties": false
            }),
            output_schema: None,
            effect: Effect::Reads,
        };
        Self { definition, calls: Arc::default() }
    }
}

impl Tool for Echo {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let text = call.arguments.get("text").and_then(Value::as_str).unwrap_or_default().to_string();
        progress(1.0, Some(2.0), Some("half"));
        self.calls.lock().unwrap().push(call);
        Box::pin(std::future::ready(match text.as_str() {
            "break" => Err(ToolFailure { message: "it broke".into(), harmless: false }),
            "fail" => Ok(ToolResult::error("it failed")),
            _ => Ok(ToolResult {
                content: vec![Content::Text { text: text.clone() }],
                structured: Some(json!({"text": text})),
                is_error: false,
            }),
        }))
    }
}

/// An agent `helper` that waits for a call to be approved, and then says what became of it.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Runs>>);

#[derive(Default)]
pub struct Runs {
    pub asked: Vec<Ask>,
    pub answers: Vec<(String, Answer)>,
    pub cancelled: Vec<String>,
    runs: Vec<(String, RunView)>,
    /// Runs that neither end nor wait.
    pub endless: bool,
}

impl Script {
    pub fn look(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap()
    }

    fn view(&self, tenant: &str, run: &str) -> Result<RunView, AgentError> {
        let runs = self.look();
        let found = runs.runs.iter().find(|(owner, view)| owner == tenant && view.id == run);
        found.map(|(_, view)| view.clone()).ok_or_else(|| AgentError::Unknown(format!("there is no run `{run}`")))
    }
}

fn event(number: u64, kind: RunEventKind) -> Result<RunEvent, AgentError> {
    Ok(RunEvent { number, at_ms: 1, kind })
}

impl Agents for Script {
    fn list(&self) -> Vec<AgentView> {
        vec![AgentView {
            name: "helper".into(),
            description: "Sends a mail.".into(),
            version: "1".into(),
            output: Some(json!({"type": "object"})),
            tools: vec![],
        }]
    }

    fn start(&self, ask: Ask) -> BoxFuture<'static, Result<String, AgentError>> {
        let mut runs = self.look();
        let id = format!("r{}", runs.asked.len() + 1);
        let interrupt = Interrupt {
            id: "i1".into(),
            question: "May I send this mail?".into(),
            call: Some(("mail.send".into(), json!({"to": "bob"}))),
            form: None,
            expires_ms: u64::MAX,
        };
        let view = RunView {
            id: id.clone(),
            thread: ask.thread.clone().unwrap_or_else(|| "t1".into()),
            agent: ask.agent.clone(),
            status: if runs.endless { RunStatus::Running } else { RunStatus::Waiting },
            interrupts: if runs.endless { vec![] } else { vec![interrupt] },
            messages: ask.messages.clone(),
            output: None,
            reason: None,
            started_ms: 1_785_196_800_000,
            changed_ms: 1_785_196_800_000,
            last_event: 3,
            metadata: Map::new(),
        };
        runs.runs.push((ask.tenant.clone(), view));
        runs.asked.push(ask);
        Box::pin(std::future::ready(Ok(id)))
    }

    fn run(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        Box::pin(std::future::ready(self.view(tenant, run)))
    }

    fn follow(&self, tenant: &str, run: &str, after: u64) -> BoxStream<'static, Result<RunEvent, AgentError>> {
        let view = match self.view(tenant, run) {
            Ok(view) => view,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let said = |text: &str| RunEventKind::Said { delta: Delta::Text(text.into()) };
        let all = stream::iter([event(1, RunEventKind::Working), event(2, said("I ")), event(3, said("think."))]);
        let all = all.filter(move |event| std::future::ready(event.as_ref().is_ok_and(|event| event.number > after)));
        if view.status == RunStatus::Running { all.chain(stream::pending()).boxed() } else { all.boxed() }
    }

    fn runs(&self, _: &str, _: RunFilter, _: Page) -> BoxFuture<'static, Result<Vec<RunView>, AgentError>> {
        Box::pin(std::future::ready(Ok(vec![])))
    }

    fn answer(
        &self,
        tenant: &str,
        run: &str,
        interrupt: &str,
        answer: Answer,
    ) -> BoxFuture<'static, Result<(), AgentError>> {
        let mut runs = self.look();
        let found = runs.runs.iter_mut().find(|(owner, view)| owner == tenant && view.id == run);
        let Some((_, view)) = found.filter(|(_, view)| view.interrupts.iter().any(|i| i.id == interrupt)) else {
            return Box::pin(std::future::ready(Err(AgentError::Ended("it was answered already".into()))));
        };
        let text = match &answer {
            Answer::Approve { by } => format!("sent, as {by} said"),
            Answer::Refuse { why, .. } => format!("not sent: {why}"),
            other => format!("{other:?}"),
        };
        view.interrupts.clear();
        view.status = RunStatus::Done;
        view.output = Some(json!({"sent": matches!(answer, Answer::Approve { .. })}));
        view.messages.push(Message::new(Role::Assistant, text));
        runs.answers.push((run.into(), answer));
        Box::pin(std::future::ready(Ok(())))
    }

    fn cancel(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let mut runs = self.look();
        let found = runs.runs.iter_mut().find(|(owner, view)| owner == tenant && view.id == run);
        let cancelled = match found {
            None => Err(AgentError::Unknown("there is no such run".into())),
            Some((_, view)) if view.status.is_final() => Err(AgentError::Ended("it has ended".into())),
            Some((_, view)) => {
                view.status = RunStatus::Cancelled;
                Ok(view.clone())
            }
        };
        if cancelled.is_ok() {
            runs.cancelled.push(run.into());
        }
        Box::pin(std::future::ready(cancelled))
    }
}

/// A call of a tool with these arguments.
pub async fn call(tool: &Arc<dyn Tool>, arguments: Value) -> Result<ToolResult, ToolFailure> {
    call_told(tool, arguments).await.0
}

/// A call, and what was told of how far it is.
pub async fn call_told(tool: &Arc<dyn Tool>, arguments: Value) -> (Result<ToolResult, ToolFailure>, Vec<String>) {
    let told = Arc::new(Mutex::new(vec![]));
    let tells = told.clone();
    let progress: Progress = Arc::new(move |_, _, word| tells.lock().unwrap().push(word.unwrap_or_default().into()));
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let call = Call { id: "c1".into(), run: "r1".into(), tenant: "here".into(), arguments };
    let result = tool.call(call, progress).await;
    let told = told.lock().unwrap().clone();
    (result, told)
}

/// The texts of a result.
pub fn text(result: &ToolResult) -> String {
    let texts = result.content.iter().map(|content| match content {
        Content::Text { text } => text.clone(),
        other => format!("{other:?}"),
    });
    texts.collect::<Vec<_>>().join("\n")
}
