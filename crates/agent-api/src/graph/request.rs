//! A request for a run as the Agent Protocol has it. Knows no run.

use super::{messages, modes::Modes};
use crate::{refusal::not_here, said};
use narthex_base::chat::Message;
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value};

/// What happens to a request that comes while another run of the thread is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Strategy {
    /// It waits until that one has ended.
    #[default]
    Enqueue,
    /// It is refused.
    Reject,
    /// That one is cancelled.
    Interrupt,
}

impl Strategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Reject => "reject",
            Self::Interrupt => "interrupt",
        }
    }
}

/// What is wanted.
#[derive(Debug, PartialEq)]
pub(super) struct RunRequest {
    pub assistant: String,
    pub given: Given,
    pub modes: Modes,
    pub strategy: Strategy,
    /// Whether a thread that is not known is opened.
    pub create_thread: bool,
    /// Whether the run is cancelled when the client goes away.
    pub cancel_on_disconnect: bool,
    pub metadata: Map<String, Value>,
}

/// What a client says.
#[derive(Debug, PartialEq)]
pub(super) enum Given {
    Messages(Vec<Message>),
    /// The value of `command.resume`.
    Resume(Value),
}

/// Fields that change nothing here: what they ask for is so anyway, or is told to nobody.
const HARMLESS: [&str; 12] = [
    "config",
    "context",
    "stream_subgraphs",
    "stream_resumable",
    "feedback_keys",
    "checkpoint_during",
    "durability",
    "on_completion",
    "strict_resume",
    "langsmith_tracer",
    "interrupt_before",
    "interrupt_after",
];

impl RunRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// If a field is wrong, or asks for what is not done here.
    pub fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let Some(assistant) = fields.string("assistant_id")? else { return Err(fields.missing("assistant_id")) };
        refuse(&mut fields)?;
        let modes = Modes::read(fields.take("stream_mode"))?;
        let strategy = match fields.string("multitask_strategy")?.as_deref() {
            None | Some("enqueue") => Strategy::Enqueue,
            Some("reject") => Strategy::Reject,
            Some("interrupt") => Strategy::Interrupt,
            Some(other) => {
                let what = "is not done here, for runs are never erased: take reject, enqueue or interrupt";
                let error = not_here(&format!("`multitask_strategy` `{other}` {what}"));
                return Err(error.param("multitask_strategy"));
            }
        };
        let create_thread = fields.string("if_not_exists")?.as_deref() == Some("create");
        let cancel_on_disconnect = fields.string("on_disconnect")?.as_deref() == Some("cancel");
        let metadata = said::metadata(fields.take("metadata"), "metadata")?;
        let given = given(fields.take("input"), fields.object("command")?)?;
        for field in HARMLESS {
            fields.take(field);
        }
        fields.finish()?;
        Ok(Self { assistant, given, modes, strategy, create_thread, cancel_on_disconnect, metadata })
    }
}

/// What would be done otherwise than it was asked for.
fn refuse(fields: &mut Fields) -> Result<(), ApiError> {
    for (field, what) in [
        ("checkpoint_id", "a run goes on from the end of its thread, not from a checkpoint"),
        ("after_seconds", "a run begins at once"),
        ("webhook", "no webhook is called: follow the run, or ask for its state"),
    ] {
        if fields.take(field).is_some() {
            return Err(not_here(&format!("{what}: leave out `{field}`")).param(field));
        }
    }
    // RemoteGraph gives the thread here.
    let checkpoint = fields.take("checkpoint").unwrap_or_default();
    if !checkpoint["checkpoint_id"].is_null() {
        let what = "a run goes on from the end of its thread, not from a checkpoint: leave out `checkpoint`";
        return Err(not_here(what).param("checkpoint"));
    }
    for field in ["interrupt_before", "interrupt_after"] {
        if fields.look(field).is_some_and(|value| *value != Value::Array(vec![])) {
            let what = "what waits for a person is said by the agent's policy, not by a request: leave out";
            return Err(not_here(&format!("{what} `{field}`")).param(field));
        }
    }
    Ok(())
}

fn given(input: Option<Value>, command: Option<Fields>) -> Result<Given, ApiError> {
    if let Some(mut command) = command {
        let resume = command.take("resume");
        for field in ["update", "goto", "graph"] {
            let nothing = |value: &Value| *value == Value::Array(vec![]) || *value == Value::Object(Map::new());
            if command.take(field).is_some_and(|value| !nothing(&value)) {
                let what = "a run's state and order are its own: only `resume` can be commanded";
                return Err(not_here(what).param(format!("command.{field}")));
            }
        }
        return resume.map(Given::Resume).ok_or_else(|| command.missing("resume"));
    }
    match input {
        None => Err(ApiError::field("input", "give `input` with `messages`, or `command` with `resume`")),
        Some(Value::Object(mut map)) => match map.shift_remove("messages") {
            Some(list) if map.values().all(Value::is_null) => {
                messages::read(list, "input.messages").map(Given::Messages)
            }
            Some(_) => {
                let others = map.keys().cloned().collect::<Vec<_>>().join("`, `");
                Err(ApiError::field(
                    "input",
                    format!("an agent takes `messages` and nothing else: leave out `{others}`"),
                ))
            }
            None => Err(ApiError::field("input.messages", "the field `input.messages` is missing")),
        },
        Some(Value::Array(list)) => messages::read(Value::Array(list), "input").map(Given::Messages),
        Some(_) => Err(ApiError::field("input", "`input` must be an object with `messages`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::chat::Role;
    use serde_json::json;

    #[test]
    fn requests_are_read_or_named() {
        let check = |more: Value, expected: Result<Given, &str>| {
            let mut body = json!({"assistant_id": "a", "config": {"recursion_limit": 5}, "stream_mode": ["values"]});
            for (field, value) in more.as_object().unwrap() {
                body[field] = value.clone();
            }
            match RunRequest::read(Fields::parse(body.to_string().as_bytes()).unwrap()) {
                Ok(request) => assert_eq!(Ok(request.given), expected, "{more}"),
                Err(error) => {
                    let told = serde_json::to_value(error.object()).unwrap();
                    assert_eq!(Err(told["error"]["param"].as_str().unwrap()), expected, "{more}: {told}");
                }
            }
        };
        let input = json!({"messages": [{"type": "human", "content": "x"}]});
        let said = || Given::Messages(vec![Message::new(Role::User, "x")]);
        check(json!({"input": input}), Ok(said()));
        check(json!({"input": input, "checkpoint": {"checkpoint_ns": ""}, "interrupt_before": []}), Ok(said()));
        let command = json!({"resume": 1, "update": null, "goto": [], "graph": null});
        check(json!({"command": command, "input": null}), Ok(Given::Resume(json!(1))));
        for (more, field) in [
            (json!({"assistant_id": null, "input": input}), "assistant_id"),
            (json!({}), "input"),
            (json!({"input": "x"}), "input"),
            (json!({"input": {}}), "input.messages"),
            (json!({"input": {"messages": [], "files": {}}}), "input"),
            (json!({"input": {"messages": [{"type": "robot"}]}}), "input.messages[0].role"),
            (json!({"command": {"goto": "x", "resume": 1}}), "command.goto"),
            (json!({"command": {"update": {"a": 1}, "resume": 1}}), "command.update"),
            (json!({"command": {}}), "command.resume"),
            (json!({"input": input, "multitask_strategy": "rollback"}), "multitask_strategy"),
            (json!({"input": input, "checkpoint_id": "x"}), "checkpoint_id"),
            (json!({"input": input, "checkpoint": {"checkpoint_id": "x"}}), "checkpoint"),
            (json!({"input": input, "interrupt_before": ["tools"]}), "interrupt_before"),
            (json!({"input": input, "interrupt_after": "*"}), "interrupt_after"),
            (json!({"input": input, "webhook": "http://x"}), "webhook"),
            (json!({"input": input, "stream_mode": "debug"}), "stream_mode"),
            (json!({"input": input, "colour": 1}), "colour"),
        ] {
            check(more, Err(field));
        }
    }
}
