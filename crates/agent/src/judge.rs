//! Judges calls: is there such a tool, are the arguments right, does the policy allow it. Pure: the tools and the
//! policies are given, and a verdict comes out.

use crate::{
    canonical::{DEPTH_MAX, is_deeper},
    event::{JudgedCall, Verdict},
    policy::{Policy, Then},
    schema::Schema,
    state::State,
    tool::{Effect, Tool, ToolDefinition},
};
use narthex_base::{
    Digest,
    chat::{Message, ToolCall},
    error::nearest,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

/// A model's own id of a call is kept up to so many bytes.
const CALL_ID_BYTES_MAX: usize = 64;
/// A longer text of arguments is refused before it is read.
const ARGUMENTS_BYTES_MAX: usize = 4 << 20;
/// So many tools are named to a model that asks for one that is not there.
const NAMES_TOLD_MAX: usize = 20;

/// A tool that an agent has.
pub(crate) struct Equipped {
    pub(crate) definition: ToolDefinition,
    pub(crate) digest: Digest,
    pub(crate) schema: Schema,
    pub(crate) act: Act,
}

/// What stands behind a tool.
pub(crate) enum Act {
    Call(Arc<dyn Tool>),
    /// The agent of this name.
    Delegate(String),
}

/// What calls are judged by.
pub(crate) struct Judge<'a> {
    pub(crate) tools: &'a [Equipped],
    /// All must agree; the strictest word counts.
    pub(crate) policies: &'a [Policy],
    /// Whether a run may have runs of other agents below it.
    pub(crate) may_delegate: bool,
}

impl Judge<'_> {
    /// A call as the model wrote it.
    pub(crate) fn call(&self, call: &ToolCall) -> JudgedCall {
        let (id, tool, text) = (&call.id, &call.function.name, call.function.arguments.trim());
        let wrong = |why: String| self.wrong(id, tool, Map::new(), why);
        if text.len() > ARGUMENTS_BYTES_MAX {
            return wrong(format!("the arguments have {} bytes, and {ARGUMENTS_BYTES_MAX} are the limit", text.len()));
        }
        match serde_json::from_str(if text.is_empty() { "{}" } else { text }) {
            Ok(Value::Object(arguments)) => self.arguments(id, tool, arguments),
            Ok(_) => wrong("the arguments must be a JSON object".into()),
            Err(error) => wrong(format!("the arguments are no JSON: {error}")),
        }
    }

    /// A call with these arguments.
    pub(crate) fn arguments(&self, id: &str, tool: &str, arguments: Map<String, Value>) -> JudgedCall {
        let Some(equipped) = self.tools.iter().find(|equipped| equipped.definition.name == tool) else {
            return self.wrong(id, tool, arguments, self.no_such(tool));
        };
        let value = Value::Object(arguments);
        if is_deeper(&value, DEPTH_MAX) {
            return self.wrong(
                id,
                tool,
                Map::new(),
                format!("the arguments are nested deeper than {DEPTH_MAX} levels"),
            );
        }
        let checked = equipped.schema.check(&value);
        let Value::Object(arguments) = value else { return self.wrong(id, tool, Map::new(), String::new()) };
        let delegate = match &equipped.act {
            Act::Delegate(agent) => Some(agent.clone()),
            Act::Call(_) => None,
        };
        let verdict = match checked {
            Err(complaint) => Verdict::Wrong { why: format!("the arguments are not valid: {complaint}") },
            Ok(()) if delegate.is_some() && !self.may_delegate => {
                Verdict::Wrong { why: "too many agents stand above this one: it cannot ask another".into() }
            }
            Ok(()) => match self.verdict(tool, equipped.definition.effect, &arguments) {
                Verdict::Allow if matches!(&equipped.act, Act::Call(tool) if tool.has_changed()) => Verdict::Ask,
                verdict => verdict,
            },
        };
        let (effect, digest) = (equipped.definition.effect, equipped.digest);
        JudgedCall { id: id.into(), tool: tool.into(), arguments, effect, digest, delegate, verdict }
    }

    fn verdict(&self, tool: &str, effect: Effect, arguments: &Map<String, Value>) -> Verdict {
        let words = self.policies.iter().map(|policy| policy.judge(tool, effect, arguments));
        // Of equally strict ones, the first gives its reason.
        let strictest = words.reduce(|a, b| if b.0 > a.0 { b } else { a });
        match strictest {
            Some((Then::Allow, _)) => Verdict::Allow,
            Some((Then::Ask, _)) => Verdict::Ask,
            Some((Then::Deny, why)) => Verdict::Deny { why },
            None => Verdict::Deny { why: "the want of a policy".into() },
        }
    }

    fn wrong(&self, id: &str, tool: &str, arguments: Map<String, Value>, why: String) -> JudgedCall {
        JudgedCall {
            id: id.into(),
            tool: tool.into(),
            arguments,
            effect: Effect::Reaches,
            digest: Digest::of(b""),
            delegate: None,
            verdict: Verdict::Wrong { why },
        }
    }

    fn no_such(&self, tool: &str) -> String {
        let names = || self.tools.iter().map(|equipped| equipped.definition.name.as_str());
        match nearest(tool, names()) {
            Some(near) => format!("there is no tool `{tool}`: did you mean `{near}`?"),
            None if self.tools.is_empty() => format!("there is no tool `{tool}`: there are no tools"),
            None => {
                let some: Vec<&str> = names().take(NAMES_TOLD_MAX).collect();
                format!("there is no tool `{tool}`: there are {}", some.join(", "))
            }
        }
    }
}

/// Gives the calls of an answer ids that no other call of the conversation has, so that results find theirs.
pub(crate) fn number_calls(answer: &mut Message, state: &State) {
    let known = state.earlier.iter().chain(&state.messages).flat_map(|message| &message.tool_calls);
    let mut taken: BTreeSet<String> = known.map(|call| call.id.clone()).collect();
    for (index, call) in answer.tool_calls.iter_mut().enumerate() {
        let fits = !call.id.is_empty() && call.id.len() <= CALL_ID_BYTES_MAX;
        if !fits || taken.contains(&call.id) {
            let ids = (0..).map(|again: u32| match again {
                0 => format!("call_{}_{index}", state.turn + 1),
                again => format!("call_{}_{index}_{again}", state.turn + 1),
            });
            call.id = ids.into_iter().find(|id| !taken.contains(id)).unwrap_or_default();
        }
        taken.insert(call.id.clone());
    }
}
