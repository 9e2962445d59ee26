//! An agent as a tool: it takes a message, tells how far it is, and answers with text and data. What its run waits for
//! becomes a question to whoever called it. Knows agents by their seam only.

use crate::offer::{Ability, Answered, Dialogue, Line, Question, Refusal, Reply, Turn};
use futures::{StreamExt, future::BoxFuture};
use narthex_agent::{
    AgentError, AgentView, Agents, Answer, Ask, Delta, Effect, Interrupt, RunEventKind, RunStatus, RunView,
    ToolDefinition, ToolResult,
};
use narthex_base::{Message, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// An agent as a tool.
pub(crate) struct AgentTool {
    agents: Arc<dyn Agents>,
    definition: ToolDefinition,
}

/// What the next turn needs to know.
#[derive(Clone, Serialize, Deserialize)]
struct Waiting {
    run: String,
    /// The last event that was followed.
    after: u64,
    /// What the run waits for.
    interrupts: Vec<Interrupt>,
}

impl AgentTool {
    pub fn new(agents: Arc<dyn Agents>, view: AgentView) -> Self {
        let message = "What to do, or what to say to the agent.";
        let thread = "The conversation to go on with, as an earlier result named it; a new one without.";
        let definition = ToolDefinition {
            name: view.name,
            description: view.description,
            input_schema: json!({
                "type": "object",
                "properties": {
                    "message": {"type": "string", "minLength": 1, "description": message},
                    "thread": {"type": "string", "description": thread}
                },
                "required": ["message"],
                "additionalProperties": false
            }),
            output_schema: Some(output_schema(view.output)),
            effect: Effect::default(),
        };
        Self { agents, definition }
    }

    /// Starts a run for the arguments of a call.
    pub async fn start(
        agents: &Arc<dyn Agents>,
        agent: &str,
        tenant: &str,
        key: &str,
        arguments: &Map<String, Value>,
    ) -> Result<String, Refusal> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let ask = Ask {
            agent: agent.into(),
            tenant: tenant.into(),
            messages: vec![Message::new(Role::User, text("message").unwrap_or_default())],
            thread: text("thread").map(String::from),
            key: Some(key.into()),
            metadata: Map::from_iter([("asked_by".into(), "mcp".into())]),
        };
        agents.start(ask).await.map_err(refusal)
    }
}

fn output_schema(output: Option<Value>) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "run": {"type": "string"},
            "thread": {"type": "string"},
            "status": {"type": "string"},
            "text": {"type": "string"},
            "reason": {"type": "string"}
        },
        "required": ["run", "thread", "status", "text"]
    });
    if let Some(output) = output {
        schema["properties"]["output"] = output;
    }
    schema
}

/// An agent's error in the words of a server.
pub(crate) fn refusal(error: AgentError) -> Refusal {
    match error {
        AgentError::Unknown(what) => Refusal::Unknown(what),
        AgentError::Ended(what) | AgentError::Input(what) | AgentError::Refused(what) => Refusal::Input(what),
        AgentError::Busy(what) | AgentError::Failed(what) => Refusal::Failed(what),
    }
}

impl Dialogue for AgentTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn turn(&self, turn: Turn, line: Line) -> BoxFuture<'static, Result<Reply, Refusal>> {
        Box::pin(take(self.agents.clone(), self.definition.name.clone(), turn, line))
    }
}

async fn take(agents: Arc<dyn Agents>, agent: String, turn: Turn, line: Line) -> Result<Reply, Refusal> {
    let tenant = turn.call.tenant.clone();
    let (run, after) = match turn.state {
        None => (AgentTool::start(&agents, &agent, &tenant, &turn.call.id, &turn.call.arguments).await?, 0),
        Some(state) => {
            let waiting: Waiting = serde_json::from_value(state).map_err(|error| Refusal::Input(error.to_string()))?;
            for (id, answered) in turn.answers {
                let Some(interrupt) = waiting.interrupts.iter().find(|interrupt| interrupt.id == id) else { continue };
                let answer = answer(&tenant, interrupt, answered);
                agents.answer(&tenant, &waiting.run, &id, answer).await.map_err(refusal)?;
            }
            (waiting.run, waiting.after)
        }
    };
    let mut guard = CancelOnDrop { agents: agents.clone(), tenant: tenant.clone(), run: Some(run.clone()) };
    let after = follow(&agents, &tenant, &run, after, &line).await?;
    let view = agents.run(&tenant, &run).await.map_err(refusal)?;
    guard.run = None;
    let asks = turn.abilities.contains(&Ability::Form);
    if view.status == RunStatus::Waiting && asks && !view.interrupts.is_empty() {
        let questions = view.interrupts.iter().map(|interrupt| (interrupt.id.clone(), question(interrupt))).collect();
        let waiting = Waiting { run, after, interrupts: view.interrupts };
        let state = serde_json::to_value(waiting).map_err(|error| Refusal::Failed(error.to_string()))?;
        return Ok(Reply::Ask { questions, state });
    }
    Ok(Reply::Done(outcome(&view)))
}

/// Tells what a run does until it ends or waits, and returns the number of its last event.
async fn follow(agents: &Arc<dyn Agents>, tenant: &str, run: &str, after: u64, line: &Line) -> Result<u64, Refusal> {
    let mut events = agents.follow(tenant, run, after);
    let (mut last, mut told) = (after, 0.0);
    while let Some(event) = events.next().await {
        let event = event.map_err(refusal)?;
        last = last.max(event.number);
        let word = match event.kind {
            RunEventKind::Said { delta: Delta::Text(text) } => text,
            RunEventKind::ToolStarted { tool, .. } => format!("[calls {tool}]"),
            RunEventKind::ToolProgress { word: Some(word), .. } => format!("[{word}]"),
            _ => continue,
        };
        told += 1.0;
        (line.progress)(told, None, Some(&word));
    }
    Ok(last)
}

/// What a run waits for, as a question to a person.
pub(crate) fn question(interrupt: &Interrupt) -> Question {
    if let Some((tool, arguments)) = &interrupt.call {
        let message = format!("{}\n\n{tool} {arguments}", interrupt.question);
        let schema = json!({
            "type": "object",
            "properties": {
                "approve": {"type": "boolean", "title": "Approve", "description": "Whether this exact call is made"},
                "why": {"type": "string", "title": "Why", "description": "What the agent reads if it is not made"}
            },
            "required": ["approve"]
        });
        return Question::Form { message, schema };
    }
    // A form of this protocol has plain fields only; anything else is asked for as JSON in a text.
    let plain = interrupt.form.as_ref().filter(|form| is_plain(form));
    let schema = plain.cloned().unwrap_or_else(|| {
        let what = interrupt.form.as_ref().map_or("The answer".into(), |form| format!("JSON, valid for {form}"));
        let answer = json!({"type": "string", "title": "Answer", "description": what});
        json!({"type": "object", "properties": {"answer": answer}, "required": ["answer"]})
    });
    Question::Form { message: interrupt.question.clone(), schema }
}

/// Whether a schema is one that this protocol's forms can have.
fn is_plain(schema: &Value) -> bool {
    serde_json::from_value::<rmcp::model::ElicitationSchema>(schema.clone()).is_ok()
}

/// A person's answer in the agents' words. Whoever does not answer does not approve.
pub(crate) fn answer(tenant: &str, interrupt: &Interrupt, answered: Answered) -> Answer {
    let by = tenant.to_string();
    let fields = match answered {
        Answered::Filled(fields) => fields,
        Answered::Declined => return Answer::Refuse { by, why: "declined".into() },
        _ => return Answer::Refuse { by, why: "put away without an answer".into() },
    };
    if interrupt.call.is_some() {
        let approved = fields.get("approve") == Some(&Value::Bool(true));
        let why = fields.get("why").and_then(Value::as_str).unwrap_or("not approved").to_string();
        return if approved { Answer::Approve { by } } else { Answer::Refuse { by, why } };
    }
    if interrupt.form.as_ref().is_some_and(is_plain) {
        return Answer::Say { value: Value::Object(fields) };
    }
    let text = fields.get("answer").and_then(Value::as_str).unwrap_or_default();
    let as_json = interrupt.form.as_ref().and_then(|_| serde_json::from_str(text).ok());
    Answer::Say { value: as_json.unwrap_or_else(|| text.into()) }
}

/// How a run stands, as the result of a call.
pub(crate) fn outcome(view: &RunView) -> ToolResult {
    let status = serde_json::to_value(view.status).unwrap_or_default();
    let said = view
        .messages
        .iter()
        .rev()
        .find(|message| message.role == Role::Assistant)
        .map(|message| message.text().into_owned());
    let text = match view.status {
        RunStatus::Done => said.unwrap_or_default(),
        RunStatus::Waiting => {
            let questions: Vec<&str> = view.interrupts.iter().map(|interrupt| interrupt.question.as_str()).collect();
            let run = &view.id;
            format!(
                "the run {run} waits for an answer that this client cannot give: {}\nanswer it with `narthex agent \
                 approve {run}`, then ask again with the thread {}",
                questions.join("; "),
                view.thread
            )
        }
        _ => {
            let reason = view.reason.as_deref().unwrap_or("no reason is known");
            format!("the run {} is {}: {reason}", view.id, status.as_str().unwrap_or_default())
        }
    };
    let mut structured = json!({"run": view.id, "thread": view.thread, "status": status, "text": text});
    if let Some(output) = &view.output {
        structured["output"] = output.clone();
    }
    if let Some(reason) = &view.reason {
        structured["reason"] = json!(reason);
    }
    let is_error = view.status != RunStatus::Done;
    ToolResult { structured: Some(structured), is_error, ..ToolResult::text(text) }
}

/// Stops a run whose caller went away: nobody would read its answer.
struct CancelOnDrop {
    agents: Arc<dyn Agents>,
    tenant: String,
    run: Option<String>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let cancelled = self.agents.cancel(&self.tenant, &run);
        // One that has ended meanwhile is no error.
        runtime.spawn(async move { drop(cancelled.await) });
    }
}

/// The questions of a run that waits, by name.
pub(crate) fn questions(view: &RunView) -> BTreeMap<String, Question> {
    view.interrupts.iter().map(|interrupt| (interrupt.id.clone(), question(interrupt))).collect()
}
