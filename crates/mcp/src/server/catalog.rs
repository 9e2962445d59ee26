//! What can be called, by name and in a fixed order; and the notices that a call sends meanwhile. Knows no request.

use super::{agent::AgentTool, seal::Seals};
use crate::{
    convert,
    limits::ServerLimits,
    offer::{Dialogue, Level, Line, Offer},
};
use narthex_agent::{Schema, Tool, ToolDefinition};
use narthex_base::Digest;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Semaphore, mpsc};

/// What the time is, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What all requests share.
pub(crate) struct Catalog {
    pub offer: Offer,
    pub limits: ServerLimits,
    pub seals: Seals,
    pub clock: Clock,
    /// Calls that may begin.
    pub calls: Semaphore,
    /// Subscriptions that may begin.
    pub subscriptions: Arc<Semaphore>,
    secret: [u8; 32],
    counter: AtomicU64,
    /// Of tools and dialogues, compiled once: the schema, or why it is none.
    validators: HashMap<String, Result<Schema, String>>,
}

/// What a name stands for.
pub(crate) enum Found {
    Tool(Arc<dyn Tool>),
    Dialogue(Arc<dyn Dialogue>),
    Agent(AgentTool),
}

impl Found {
    pub fn definition(&self) -> &ToolDefinition {
        match self {
            Found::Tool(tool) => tool.definition(),
            Found::Dialogue(dialogue) => dialogue.definition(),
            Found::Agent(agent) => agent.definition(),
        }
    }
}

impl Catalog {
    pub fn new(offer: Offer, limits: ServerLimits, secret: [u8; 32], clock: Clock) -> Self {
        let tools = offer.tools.iter().map(|tool| tool.definition());
        let definitions = tools.chain(offer.dialogues.iter().map(|dialogue| dialogue.definition()));
        let compile =
            |definition: &ToolDefinition| (definition.name.clone(), Schema::compile(&definition.input_schema));
        let validators = definitions.map(compile).collect();
        Self {
            validators,
            calls: Semaphore::new(limits.calls_max),
            subscriptions: Arc::new(Semaphore::new(limits.subscriptions_max)),
            seals: Seals::new(&secret),
            offer,
            limits,
            clock,
            secret,
            counter: AtomicU64::new(0),
        }
    }

    /// The tool of this name: of several, the first.
    pub fn find(&self, name: &str) -> Option<Found> {
        if let Some(tool) = self.offer.tools.iter().find(|tool| tool.definition().name == name) {
            return Some(Found::Tool(tool.clone()));
        }
        if let Some(dialogue) = self.offer.dialogues.iter().find(|dialogue| dialogue.definition().name == name) {
            return Some(Found::Dialogue(dialogue.clone()));
        }
        let agents = self.offer.agents.as_ref()?;
        let view = agents.list().into_iter().find(|view| view.name == name)?;
        Some(Found::Agent(AgentTool::new(agents.clone(), view)))
    }

    /// All that can be called, in a fixed order, as the wire names it.
    pub fn tools(&self) -> Vec<rmcp::model::Tool> {
        let mut tools: Vec<rmcp::model::Tool> = vec![];
        let mut add = |definition: &ToolDefinition| {
            if !tools.iter().any(|tool| tool.name == definition.name) {
                tools.push(convert::tool(definition));
            }
        };
        self.offer.tools.iter().for_each(|tool| add(tool.definition()));
        self.offer.dialogues.iter().for_each(|dialogue| add(dialogue.definition()));
        if let Some(agents) = &self.offer.agents {
            agents.list().into_iter().for_each(|view| add(AgentTool::new(agents.clone(), view).definition()));
        }
        tools
    }

    /// Whether arguments fit what is called.
    ///
    /// # Errors
    /// Says where they do not.
    pub fn fits(&self, found: &Found, arguments: &Value) -> Result<(), String> {
        let definition = found.definition();
        match (self.validators.get(&definition.name), found) {
            (_, Found::Agent(_)) => Schema::compile(&definition.input_schema)?.check(arguments),
            (Some(Ok(validator)), _) => validator.check(arguments),
            (Some(Err(why)), _) => Err(format!("the tool's own schema is wrong: {why}")),
            (None, _) => Ok(()),
        }
    }

    /// A name for a call that nobody can guess and no other call has.
    pub fn call_id(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let parts = [&self.secret[..], &(self.clock)().to_le_bytes(), &number.to_le_bytes()].concat();
        format!("mcp-{}", &Digest::of(&parts).to_string()[..32])
    }
}

/// Something that a call tells while it runs.
pub(crate) enum Notice {
    Progress { done: f64, of: Option<f64>, word: Option<String> },
    Log { level: Level, data: Value },
}

/// A line on which so many notices wait, and its end. What finds no room is dropped: whoever calls must not wait for
/// whoever reads.
pub(crate) fn line(notices_max: usize) -> (Line, mpsc::Receiver<Notice>) {
    let (sender, receiver) = mpsc::channel(notices_max);
    let logs = sender.clone();
    let line = Line {
        progress: Arc::new(move |done, of, word| {
            let _ = sender.try_send(Notice::Progress { done, of, word: word.map(String::from) });
        }),
        notice: Arc::new(move |level, data| {
            let _ = logs.try_send(Notice::Log { level, data });
        }),
    };
    (line, receiver)
}
