//! The tools that every agent can have: a to-do list, a memory across runs, a look back into the conversation. Knows
//! the store; knows no model.

use crate::{
    clock::Clock,
    load::load,
    step::TODO,
    store::{Memory, Store},
    tool::{Call, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// Keeps a text for later runs.
pub const REMEMBER: &str = "remember";
/// Finds such texts.
pub const RECALL: &str = "recall";
/// Finds what was said earlier in the conversation and is not shown any more.
pub const LOOK_BACK: &str = "look_back";
/// What the names of tools begin with that ask other agents.
pub const AGENT_PREFIX: &str = "agent.";

/// Bytes of a text that is remembered.
const MEMORY_BYTES_MAX: usize = 8 << 10;
/// Things on a to-do list.
const TODO_ITEMS_MAX: usize = 100;
/// Texts that are found at once.
const FOUND_MAX: usize = 10;
/// Bytes that are shown of a message that is found.
const FOUND_BYTES_MAX: usize = 2 << 10;

/// The names that no other tool may have.
pub(crate) fn is_reserved(name: &str) -> bool {
    [TODO, REMEMBER, RECALL, LOOK_BACK].contains(&name) || name.starts_with(AGENT_PREFIX)
}

/// A tool of this name for an agent, if there is one.
pub(crate) fn builtin(
    name: &str,
    agent: &str,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
) -> Option<Arc<dyn Tool>> {
    let (agent, store, clock) = (agent.to_string(), store.clone(), clock.clone());
    Some(match name {
        TODO => Arc::new(Todo { definition: todo() }),
        REMEMBER => Arc::new(Remember { definition: remember(), agent, store, clock }),
        RECALL => Arc::new(Recall { definition: recall(), agent, store }),
        LOOK_BACK => Arc::new(LookBack { definition: look_back(), store }),
        _ => return None,
    })
}

/// The tool that asks another agent.
pub(crate) fn ask_agent(name: &str, description: &str) -> ToolDefinition {
    let description = if description.is_empty() { format!("Asks the agent {name}.") } else { description.to_string() };
    let input_schema = json!({"type": "object", "properties": {"task": {"type": "string",
        "description": "What it is to do, with all that it needs to know: it sees nothing else."}},
        "required": ["task"], "additionalProperties": false});
    // Each of its own calls is judged; asking it again after a crash finds the same run.
    definition(&format!("{AGENT_PREFIX}{name}"), &description, input_schema, Effect::Reads)
}

fn definition(name: &str, description: &str, input_schema: Value, effect: Effect) -> ToolDefinition {
    let (name, description) = (name.to_string(), description.to_string());
    ToolDefinition { name, description, input_schema, output_schema: None, effect }
}

fn todo() -> ToolDefinition {
    let item = json!({"type": "object", "properties": {"text": {"type": "string"},
        "status": {"enum": ["open", "doing", "done"]}}, "required": ["text", "status"], "additionalProperties": false});
    let input_schema = json!({"type": "object", "properties":
        {"items": {"type": "array", "items": item, "maxItems": TODO_ITEMS_MAX}},
        "required": ["items"], "additionalProperties": false});
    let description = "Writes the list of what is to be done in this task, in place of the list before.";
    // The list is a part of the run: writing it twice is writing it once.
    definition(TODO, description, input_schema, Effect::Reads)
}

fn remember() -> ToolDefinition {
    let input_schema = json!({"type": "object", "properties": {"text": {"type": "string", "minLength": 1,
        "maxLength": MEMORY_BYTES_MAX}}, "required": ["text"], "additionalProperties": false});
    // What is remembered speaks in later runs: nothing that a result says may get there unasked.
    definition(REMEMBER, "Keeps a text for later conversations.", input_schema, Effect::Writes)
}

fn words() -> Value {
    json!({"type": "object", "properties": {"words": {"type": "string", "minLength": 1,
        "description": "Words to look for; any of them."}}, "required": ["words"], "additionalProperties": false})
}

fn recall() -> ToolDefinition {
    definition(RECALL, "Finds what was kept in earlier conversations.", words(), Effect::Reads)
}

fn look_back() -> ToolDefinition {
    let description = "Finds earlier messages of this conversation, those too that were summed up since.";
    definition(LOOK_BACK, description, words(), Effect::Reads)
}

/// A text among the arguments; the schema has seen to it that it is there.
fn text(call: &Call, name: &str) -> String {
    call.arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_string()
}

struct Todo {
    definition: ToolDefinition,
}

impl Tool for Todo {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let items = call.arguments.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |status: &str| items.iter().filter(|item| item["status"] == status).count();
        let result = ToolResult::text(format!("{} open, {} doing, {} done", of("open"), of("doing"), of("done")));
        Box::pin(async { Ok(result) })
    }
}

struct Remember {
    definition: ToolDefinition,
    agent: String,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Tool for Remember {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (store, text, at_ms) = (self.store.clone(), text(&call, "text"), self.clock.now_ms());
        let key = format!("{}/{}", call.run, call.id);
        let memory = Memory { tenant: call.tenant, agent: self.agent.clone(), key, at_ms, text };
        Box::pin(async move {
            if memory.text.len() > MEMORY_BYTES_MAX {
                return Ok(ToolResult::error(format!("the text has more than {MEMORY_BYTES_MAX} bytes")));
            }
            match store.remember(memory).await {
                Ok(()) => Ok(ToolResult::text("kept")),
                // The key makes a second try harmless.
                Err(error) => Err(ToolFailure { message: error.to_string(), harmless: true }),
            }
        })
    }
}

struct Recall {
    definition: ToolDefinition,
    agent: String,
    store: Arc<dyn Store>,
}

impl Tool for Recall {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (store, agent, words) = (self.store.clone(), self.agent.clone(), text(&call, "words"));
        Box::pin(async move {
            match store.recall(&call.tenant, &agent, &words, FOUND_MAX).await {
                Ok(found) if found.is_empty() => Ok(ToolResult::text("nothing was found")),
                Ok(found) => {
                    let texts: Vec<String> = found.into_iter().map(|memory| format!("- {}", memory.text)).collect();
                    Ok(ToolResult::text(texts.join("\n")))
                }
                Err(error) => Err(ToolFailure { message: error.to_string(), harmless: true }),
            }
        })
    }
}

struct LookBack {
    definition: ToolDefinition,
    store: Arc<dyn Store>,
}

impl Tool for LookBack {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (store, words) = (self.store.clone(), text(&call, "words").to_lowercase());
        Box::pin(async move {
            let step = match load(&*store, &call.tenant, &call.run).await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(ToolResult::error("there is no such run")),
                Err(error) => return Err(ToolFailure { message: error.to_string(), harmless: true }),
            };
            let words: Vec<&str> = words.split_whitespace().collect();
            let mut found: Vec<(usize, usize, String)> = Vec::new();
            for (place, message) in step.state.handed_on().messages.iter().enumerate() {
                let (said, lower) = (message.text(), message.text().to_lowercase());
                let hits = words.iter().filter(|word| lower.contains(**word)).count();
                if hits > 0 {
                    let said = &said[..said.floor_char_boundary(FOUND_BYTES_MAX)];
                    found.push((hits, place, format!("message {place}, {}: {said}", message.role.as_str())));
                }
            }
            found.sort_by_key(|(hits, place, _)| (std::cmp::Reverse(*hits), std::cmp::Reverse(*place)));
            let texts: Vec<String> = found.into_iter().take(FOUND_MAX).map(|(_, _, text)| text).collect();
            Ok(ToolResult::text(if texts.is_empty() { "nothing was found".into() } else { texts.join("\n\n") }))
        })
    }
}
