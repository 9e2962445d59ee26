//! A request of responses as what an agent is asked, or answers to what a run waits for. Knows no run.

use crate::said;
use narthex_agent::Answer;
use narthex_base::chat::{Message, Role};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// What is wanted.
#[derive(Debug, PartialEq)]
pub(super) struct ResponseRequest {
    pub model: String,
    pub given: Given,
    /// The response that came before.
    pub previous: Option<String>,
    pub conversation: Option<String>,
    pub stream: bool,
    pub background: bool,
    pub metadata: Map<String, Value>,
}

/// What a client says.
#[derive(Debug, PartialEq)]
pub(super) enum Given {
    Messages(Vec<Message>),
    /// Each with the interrupt that it answers.
    Answers(Vec<(String, Answer)>),
}

/// Items that say what an agent did: its run knows that better.
const PASSED_OVER: [&str; 4] = ["mcp_call", "mcp_approval_request", "mcp_list_tools", "reasoning"];

impl ResponseRequest {
    /// Reads a request. Answers in it are `by`'s.
    ///
    /// # Errors
    /// If a field is wrong, or asks for what agents do not do.
    pub fn read(mut fields: Fields, by: String) -> Result<Self, ApiError> {
        let Some(model) = fields.string("model")? else { return Err(fields.missing("model")) };
        for (field, neutral) in [("tools", vec![]), ("tool_choice", vec![json!("auto"), json!("none")])] {
            fields.unsupported(field, &neutral).map_err(|_| own(field))?;
        }
        let plain = [json!({"format": {"type": "text"}}), json!({"format": {"type": "text"}, "verbosity": "medium"})];
        fields.unsupported("text", &plain).map_err(|_| own("text"))?;
        let (stream, background) =
            (fields.flag("stream")?.unwrap_or(false), fields.flag("background")?.unwrap_or(false));
        let previous = fields.string("previous_response_id")?;
        let conversation = match fields.take("conversation") {
            None => None,
            Some(Value::String(id)) => Some(id),
            Some(Value::Object(map)) if map.get("id").is_some_and(Value::is_string) => {
                map["id"].as_str().map(str::to_string)
            }
            Some(_) => {
                return Err(ApiError::field("conversation", "`conversation` must be an id, or an object with one"));
            }
        };
        if previous.is_some() && conversation.is_some() {
            let what = "give `previous_response_id` or `conversation`, not both";
            return Err(ApiError::field("conversation", what));
        }
        let metadata = said::metadata(fields.take("metadata"), "metadata")?;
        let instructions = fields.string("instructions")?;
        let mut given = read(fields.take("input"), by)?;
        fields.finish()?;
        if let (Some(text), Given::Messages(messages)) = (instructions, &mut given) {
            messages.insert(0, Message::new(Role::User, text));
        }
        Ok(Self { model, given, previous, conversation, stream, background, metadata })
    }
}

/// Why a field is not taken.
fn own(field: &str) -> ApiError {
    let what = "an agent has tools and a form of answers of its own";
    ApiError::field(field, format!("`{field}` cannot be chosen by a request: {what}; leave it out"))
        .code("unsupported_parameter")
}

fn read(input: Option<Value>, by: String) -> Result<Given, ApiError> {
    let list = match input {
        None => return Err(ApiError::field("input", "the field `input` is missing")),
        Some(Value::String(text)) => return Ok(Given::Messages(vec![Message::new(Role::User, text)])),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field("input", "`input` must be a string or a list of items")),
    };
    said::bounded(list.len(), "input")?;
    let (mut messages, mut answers) = (vec![], vec![]);
    for (index, value) in list.into_iter().enumerate() {
        let name = format!("input[{index}]");
        let Value::Object(map) = value else {
            return Err(ApiError::field(&name, format!("`{name}` must be an object")));
        };
        let kind = map.get("type").and_then(Value::as_str).unwrap_or("message").to_string();
        let mut fields = Fields::new(map, format!("{name}."));
        match kind.as_str() {
            "mcp_approval_response" => answers.push(approval(&mut fields, &by)?),
            kind if PASSED_OVER.contains(&kind) => {}
            kind => messages.push(message(kind, fields, &name)?),
        }
    }
    match (messages.is_empty(), answers.is_empty()) {
        (_, true) => Ok(Given::Messages(joined(messages))),
        (true, false) => Ok(Given::Answers(answers)),
        (false, false) => {
            Err(ApiError::field("input", "answer what is waited for first, and say more when that is done"))
        }
    }
}

fn approval(fields: &mut Fields, by: &str) -> Result<(String, Answer), ApiError> {
    let Some(id) = fields.string("approval_request_id")? else { return Err(fields.missing("approval_request_id")) };
    let Some(approve) = fields.flag("approve")? else { return Err(fields.missing("approve")) };
    let why = fields.string("reason")?.unwrap_or_default();
    let by = by.to_string();
    Ok((id, if approve { Answer::Approve { by } } else { Answer::Refuse { by, why } }))
}

fn message(kind: &str, mut fields: Fields, name: &str) -> Result<Message, ApiError> {
    let mut needed = |field: &'static str| match fields.string(field)? {
        Some(text) => Ok(text),
        None => Err(fields.missing(field)),
    };
    match kind {
        "message" => said::message(Value::Object(fields.rest()), name),
        "function_call" => {
            let call = said::call(&needed("call_id")?, &needed("name")?, &needed("arguments")?);
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            said::message(message, name)
        }
        "function_call_output" => {
            let id = needed("call_id")?;
            let mut message = Message::new(Role::Tool, "");
            message.content = said::content(fields.take("output"), &fields.name("output"))?;
            message.tool_call_id = Some(id);
            Ok(message)
        }
        _ => Err(ApiError::field(format!("{name}.type"), format!("items of type `{kind}` cannot be read here"))),
    }
}

/// Calls of one turn stand in one message.
fn joined(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = vec![];
    for message in messages {
        match joined.last_mut() {
            Some(last) if last.role == Role::Assistant && !message.tool_calls.is_empty() => {
                last.tool_calls.extend(message.tool_calls);
            }
            _ => joined.push(message),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value, expected: Result<Given, &str>) {
        let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        match ResponseRequest::read(fields, "me".into()) {
            Ok(request) => assert_eq!(Ok(request.given), expected, "{body}"),
            Err(error) => {
                let told = serde_json::to_value(error.object()).unwrap()["error"]["message"].clone();
                assert_eq!(Err(told.as_str().unwrap()), expected, "{body}");
            }
        }
    }

    #[test]
    fn input_is_read_or_named() {
        let user = |text: &str| Message::new(Role::User, text);
        let with = |input: Value| json!({"model": "m", "input": input});
        check(with(json!("a")), Ok(Given::Messages(vec![user("a")])));
        check(
            json!({"model": "m", "input": "a", "instructions": "b"}),
            Ok(Given::Messages(vec![user("b"), user("a")])),
        );
        let items = json!([{"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": []}, {"type": "mcp_call", "id": "1"},
            {"type": "message", "id": "x", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]}]);
        check(with(items), Ok(Given::Messages(vec![user("a"), Message::new(Role::Assistant, "b")])));
        let calls = json!([{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "c"}]);
        let mut called = Message::new(Role::Assistant, "");
        called.content = narthex_base::MessageContent::Nothing;
        called.tool_calls = vec![said::call("1", "f", "{}"), said::call("2", "g", "{}")];
        let mut result = Message::new(Role::Tool, "c");
        result.tool_call_id = Some("1".into());
        check(with(calls), Ok(Given::Messages(vec![called, result])));
        let approval = json!({"type": "mcp_approval_response", "approval_request_id": "i", "approve": true});
        let by = "me".to_string();
        check(with(json!([approval])), Ok(Given::Answers(vec![("i".into(), Answer::Approve { by: by.clone() })])));
        let refusal =
            json!({"type": "mcp_approval_response", "approval_request_id": "i", "approve": false, "reason": "no"});
        let refuse = Answer::Refuse { by, why: "no".into() };
        check(with(json!([refusal])), Ok(Given::Answers(vec![("i".into(), refuse)])));
        for (body, told) in [
            (json!({"input": "a"}), "the field `model` is missing"),
            (json!({"model": "m"}), "the field `input` is missing"),
            (with(json!(1)), "`input` must be a string or a list of items"),
            (with(json!([1])), "`input[0]` must be an object"),
            (with(json!([{"type": "computer_call"}])), "items of type `computer_call` cannot be read here"),
            (
                with(json!([{"type": "mcp_approval_response", "approve": true}])),
                "the field `input[0].approval_request_id` is missing",
            ),
            (
                with(json!([approval, {"role": "user", "content": "a"}])),
                "answer what is waited for first, and say more when that is done",
            ),
            (
                json!({"model": "m", "input": "a", "tools": [{"type": "web_search"}]}),
                "`tools` cannot be chosen by a request: an agent has tools and a form of answers of its own; \
                 leave it out",
            ),
            (
                json!({"model": "m", "input": "a", "conversation": "c", "previous_response_id": "r"}),
                "give `previous_response_id` or `conversation`, not both",
            ),
        ] {
            check(body, Err(told));
        }
    }
}
