//! A model behind OpenAI's chat API (<https://platform.openai.com/docs/api-reference/chat>): our own server in this
//! process, or whoever else speaks it. Knows requests and streams of answers; how they travel is a [`Transport`]'s.

use crate::model::{Delta, Ended, Model, ModelAnswer, ModelFailure, ModelRequest, Wish};
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use narthex_base::{
    Conversation,
    chat::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of one answer, as it travels.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes of one event of it.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Calls in one answer.
const CALLS_MAX: usize = 128;

/// Bytes of an error that are shown.
const ERROR_BYTES_SHOWN: usize = 1000;

/// How requests get to an API, and answers back.
pub trait Transport: Send + Sync {
    /// Posts JSON to a path below the API's base. Dropping what comes back ends the request.
    fn post(&self, path: &'static str, body: Vec<u8>) -> BoxFuture<'static, Result<Reply, ModelFailure>>;
}

/// An answer that begins.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Milliseconds after which to ask again, if it says so.
    pub wait_ms: Option<u64>,
    /// The body, in pieces; an error says what broke.
    pub body: BoxStream<'static, Result<Vec<u8>, String>>,
}

/// A model behind OpenAI's chat API.
pub struct OpenAiModel {
    name: String,
    served: String,
    transport: Arc<dyn Transport>,
}

impl OpenAiModel {
    /// A model that traces call `name`, and the API `served`.
    pub fn new(name: impl Into<String>, served: impl Into<String>, transport: Arc<dyn Transport>) -> Self {
        Self { name: name.into(), served: served.into(), transport }
    }
}

impl Model for OpenAiModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, Result<ModelAnswer, ModelFailure>> {
        let names = Names::of(&request.conversation);
        let body = body_of(&self.served, &request, &names).to_string().into_bytes();
        let transport = self.transport.clone();
        Box::pin(async move {
            let reply = transport.post("/chat/completions", body).await?;
            if reply.status != 200 {
                return Err(refused(reply).await);
            }
            let mut answer = read(reply.body, &*said).await?;
            for call in &mut answer.message.tool_calls {
                call.function.name = names.ours(&call.function.name);
            }
            Ok(answer)
        })
    }
}

/// Characters of a tool's name, as the API has it.
const NAME_CHARS_MAX: usize = 64;

/// Names of tools as the API takes them, `a–z A–Z 0–9 _ -`, with ours: a dot stands in many of these.
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(conversation: &Conversation) -> Self {
        let mut names = BTreeMap::new();
        for name in conversation.tools.iter().filter_map(|tool| tool.pointer("/function/name")?.as_str()) {
            let fits = |char: char| if char.is_ascii_alphanumeric() || char == '-' { char } else { '_' };
            let plain: String = name.chars().map(fits).take(NAME_CHARS_MAX).collect();
            // Two of ours may look alike: the later one is numbered.
            let mut wire = plain.clone();
            let mut count = 1;
            while names.get(&wire).is_some_and(|other| other != name) {
                count += 1;
                let number = format!("_{count}");
                let kept = plain.chars().take(NAME_CHARS_MAX - number.len());
                wire = kept.chain(number.chars()).collect();
            }
            names.insert(wire, name.to_string());
        }
        Self(names)
    }

    /// The API's name of one of ours.
    fn wire(&self, name: &str) -> String {
        let found = self.0.iter().find(|(_, ours)| *ours == name);
        found.map_or_else(|| name.to_string(), |(wire, _)| wire.clone())
    }

    /// Our name of one of the API's.
    fn ours(&self, wire: &str) -> String {
        self.0.get(wire).cloned().unwrap_or_else(|| wire.to_string())
    }
}

/// The request as the API has it.
fn body_of(served: &str, ModelRequest { conversation, wish }: &ModelRequest, names: &Names) -> Value {
    let Conversation { messages, tools } = conversation;
    let messages: Vec<Value> = messages.iter().map(|message| shown(message, names)).collect();
    let mut tools = tools.clone();
    for tool in &mut tools {
        if let Some(name) = tool.pointer_mut("/function/name") {
            *name = names.wire(name.as_str().unwrap_or_default()).into();
        }
    }
    let mut body = json!({
        "model": served, "messages": messages, "stream": true, "stream_options": {"include_usage": true},
    });
    let Wish { form, tokens_max, temperature, seed, must_call } = wish;
    if !tools.is_empty() {
        body["tools"] = json!(tools);
        if *must_call {
            body["tool_choice"] = json!("required");
        }
    }
    if let Some(schema) = form {
        let form = json!({"name": "answer", "schema": schema, "strict": true});
        body["response_format"] = json!({"type": "json_schema", "json_schema": form});
    }
    let asked = [
        ("max_tokens", tokens_max.map(|tokens| json!(tokens))),
        // As it is written: 0.7 in single precision is not 0.7.
        ("temperature", temperature.map(|number| json!(number.to_string().parse::<f64>().unwrap_or(number.into())))),
        ("seed", seed.map(|seed| json!(seed))),
    ];
    for (name, value) in asked {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

/// A message without what only templates and training know.
fn shown(message: &Message, names: &Names) -> Value {
    let mut plain = Message { others: Map::new(), train: true, ..message.clone() };
    for call in &mut plain.tool_calls {
        call.function.name = names.wire(&call.function.name);
    }
    plain.name = plain.name.map(|name| names.wire(&name));
    json!(plain)
}

/// What an answer that is none says.
async fn refused(mut reply: Reply) -> ModelFailure {
    let mut body = vec![];
    while let Some(Ok(piece)) = reply.body.next().await {
        body.extend(piece);
        if body.len() > EVENT_BYTES_MAX {
            break;
        }
    }
    let said = serde_json::from_slice::<Value>(&body).ok();
    let said = said.as_ref().and_then(|value| value.pointer("/error/message").or_else(|| value.get("message")));
    let text = said.and_then(Value::as_str).map_or_else(|| String::from_utf8_lossy(&body).into_owned(), String::from);
    let cut: String = text.chars().take(ERROR_BYTES_SHOWN).collect();
    let passing = matches!(reply.status, 408 | 409 | 425 | 429 | 500..=599);
    ModelFailure {
        message: format!("the model's server answered {}: {cut}", reply.status),
        passing,
        wait_ms: reply.wait_ms,
    }
}

fn broken(message: impl Into<String>) -> ModelFailure {
    ModelFailure { message: message.into(), passing: true, wait_ms: None }
}

/// An answer that grows.
#[derive(Default)]
struct Growing {
    text: String,
    thoughts: String,
    /// By their place in the answer.
    calls: BTreeMap<u64, ToolCall>,
    ended: Option<Ended>,
    tokens_in: u64,
    tokens_out: u64,
}

async fn read(
    mut body: BoxStream<'static, Result<Vec<u8>, String>>,
    said: &(dyn Fn(Delta) + Send + Sync),
) -> Result<ModelAnswer, ModelFailure> {
    let (mut growing, mut line, mut bytes, mut is_whole) = (Growing::default(), vec![], 0, false);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|why| broken(format!("the answer broke off: {why}")))?;
        bytes += piece.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(fatal(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        for byte in piece {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > EVENT_BYTES_MAX {
                    return Err(fatal(format!("an event of the answer has more than {EVENT_BYTES_MAX} bytes")));
                }
                continue;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            match text.strip_prefix("data:").map(str::trim) {
                None => {}
                Some("[DONE]") => is_whole = true,
                Some(event) => growing.take(event, said)?,
            }
        }
    }
    if !is_whole && growing.ended.is_none() {
        return Err(broken("the answer broke off before its end"));
    }
    Ok(growing.answer())
}

fn fatal(message: impl Into<String>) -> ModelFailure {
    ModelFailure { passing: false, ..broken(message) }
}

impl Growing {
    fn take(&mut self, event: &str, said: &(dyn Fn(Delta) + Send + Sync)) -> Result<(), ModelFailure> {
        let chunk: Value = serde_json::from_str(event)
            .map_err(|error| broken(format!("an event of the answer is no JSON: {error}")))?;
        if let Some(message) = chunk.pointer("/error/message").and_then(Value::as_str) {
            return Err(broken(format!("the model's server says: {message}")));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.tokens_in = usage["prompt_tokens"].as_u64().unwrap_or(self.tokens_in);
            self.tokens_out = usage["completion_tokens"].as_u64().unwrap_or(self.tokens_out);
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let delta = &choice["delta"];
        let text_of =
            |names: &[&str]| names.iter().find_map(|name| delta[*name].as_str()).filter(|text| !text.is_empty());
        if let Some(thought) = text_of(&["reasoning_content", "reasoning"]) {
            self.thoughts += thought;
            said(Delta::Thought(thought.into()));
        }
        if let Some(text) = text_of(&["content"]) {
            self.text += text;
            said(Delta::Text(text.into()));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call)?;
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.ended = Some(if reason == "length" { Ended::Length } else { Ended::Stop });
        }
        Ok(())
    }

    /// A piece of a call.
    fn call(&mut self, piece: &Value) -> Result<(), ModelFailure> {
        // Some servers number whole calls only.
        let index = piece["index"].as_u64().unwrap_or(self.calls.len() as u64);
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(&index) {
            return Err(fatal(format!("the answer has more than {CALLS_MAX} calls")));
        }
        let empty = || ToolCall {
            id: String::new(),
            kind: ToolKind::Function,
            function: FunctionCall { name: String::new(), arguments: String::new() },
        };
        let call = self.calls.entry(index).or_insert_with(empty);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        if call.id.is_empty() {
            call.id = text(&piece["id"]);
        }
        call.function.name += &text(&piece["function"]["name"]);
        call.function.arguments += &text(&piece["function"]["arguments"]);
        Ok(())
    }

    fn answer(self) -> ModelAnswer {
        let content = match self.text.is_empty() && !self.calls.is_empty() {
            true => MessageContent::Nothing,
            false => MessageContent::Text(self.text),
        };
        let mut message = Message::new(Role::Assistant, "");
        message.content = content;
        message.tool_calls = self.calls.into_values().collect();
        if !self.thoughts.is_empty() {
            message.others.insert("reasoning_content".into(), self.thoughts.into());
        }
        let ended = match self.ended {
            Some(Ended::Length) => Ended::Length,
            _ if !message.tool_calls.is_empty() => Ended::Calls,
            _ => Ended::Stop,
        };
        ModelAnswer { message, tokens_in: self.tokens_in, tokens_out: self.tokens_out, ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::sync::Mutex;

    /// Answers with this status and these pieces, and keeps what it was asked.
    struct Said {
        status: u16,
        pieces: Vec<Result<Vec<u8>, String>>,
        asked: Mutex<Vec<Value>>,
    }

    impl Transport for Said {
        fn post(&self, path: &'static str, body: Vec<u8>) -> BoxFuture<'static, Result<Reply, ModelFailure>> {
            assert_eq!(path, "/chat/completions");
            self.asked.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let (status, pieces) = (self.status, self.pieces.clone());
            Box::pin(async move { Ok(Reply { status, wait_ms: Some(7), body: stream::iter(pieces).boxed() }) })
        }
    }

    async fn ask(
        status: u16,
        pieces: Vec<Result<Vec<u8>, String>>,
    ) -> (Result<ModelAnswer, ModelFailure>, Vec<Delta>, Value) {
        let said = Arc::new(Said { status, pieces, asked: Mutex::default() });
        let model = OpenAiModel::new("m", "served", said.clone());
        let deltas = Arc::new(Mutex::new(vec![]));
        let kept = deltas.clone();
        let tools = vec![json!({"type": "function", "function": {"name": "f", "parameters": {}}})];
        let mut told = Message::new(Role::User, "hi");
        told.others.insert("mood".into(), json!("good"));
        let wish =
            Wish { form: Some(json!({"type": "object"})), temperature: Some(0.7), must_call: true, ..Wish::default() };
        let request = ModelRequest { conversation: Conversation { messages: vec![told], tools }, wish };
        let answer = model.answer(request, Arc::new(move |delta| kept.lock().unwrap().push(delta))).await;
        let asked = said.asked.lock().unwrap().remove(0);
        let deltas = deltas.lock().unwrap().clone();
        (answer, deltas, asked)
    }

    fn events(chunks: &[Value]) -> Vec<u8> {
        let mut text: String = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
        text += ": a comment\n\ndata: [DONE]\n\n";
        text.into_bytes()
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    #[tokio::test]
    async fn answers_are_put_together_however_they_are_cut() {
        let function = |name: &str, arguments: &str| json!({"name": name, "arguments": arguments});
        let whole = events(&[
            delta(json!({"role": "assistant", "reasoning": "hm", "reasoning_content": "hm"})),
            delta(json!({"content": "é"})),
            delta(json!({"tool_calls": [{"index": 0, "id": "c1", "function": function("f", "")}]})),
            delta(
                json!({"tool_calls": [{"index": 0, "function": function("", "{\"a\"")}, {"index": 1, "id": "c2", "function": function("g", "{}")}]}),
            ),
            delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}),
        ]);
        for size in [1, 2, 7, whole.len()] {
            let pieces = whole.chunks(size).map(|piece| Ok(piece.to_vec())).collect();
            let (answer, deltas, _) = ask(200, pieces).await;
            let answer = answer.unwrap();
            assert_eq!((answer.tokens_in, answer.tokens_out, answer.ended), (5, 9, Ended::Calls));
            let calls: Vec<_> = answer
                .message
                .tool_calls
                .iter()
                .map(|call| (call.id.as_str(), call.function.name.as_str(), call.function.arguments.as_str()))
                .collect();
            assert_eq!(calls, [("c1", "f", "{\"a\":1}"), ("c2", "g", "{}")]);
            assert_eq!(
                (answer.message.text().as_ref(), &answer.message.others["reasoning_content"]),
                ("é", &json!("hm"))
            );
            assert_eq!(deltas, [Delta::Thought("hm".into()), Delta::Text("é".into())]);
        }
    }

    #[test]
    fn names_that_the_api_does_not_take_are_others_there() {
        let tools = ["notes.write", "notes_write", "é", "plain-1"].map(|name| json!({"function": {"name": name}}));
        let names = Names::of(&Conversation { messages: vec![], tools: tools.to_vec() });
        for (ours, wire) in [
            ("notes.write", "notes_write"),
            ("notes_write", "notes_write_2"),
            ("é", "_"),
            ("plain-1", "plain-1"),
            ("x.y", "x.y"),
        ] {
            assert_eq!((names.wire(ours).as_str(), names.ours(wire).as_str()), (wire, ours));
        }
        let mut said = Message::new(Role::Assistant, "");
        let function = FunctionCall { name: "notes.write".into(), arguments: "{}".into() };
        said.tool_calls = vec![ToolCall { id: "c".into(), kind: ToolKind::Function, function }];
        assert_eq!(shown(&said, &names)["tool_calls"][0]["function"]["name"], "notes_write");
    }

    #[tokio::test]
    async fn requests_say_what_is_wished() {
        let (_, _, asked) = ask(200, vec![Ok(events(&[]))]).await;
        let form = json!({"name": "answer", "schema": {"type": "object"}, "strict": true});
        let expected = json!({
            "model": "served", "messages": [{"role": "user", "content": "hi"}], "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "required",
            "response_format": {"type": "json_schema", "json_schema": form}, "temperature": 0.7,
        });
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_with_whether_it_passes() {
        let body = |text: &str| vec![Ok(text.as_bytes().to_vec())];
        for (status, pieces, passing, expected) in [
            (429, body("{\"error\": {\"message\": \"slowly\"}}"), true, "answered 429: slowly"),
            (503, body("overloaded"), true, "answered 503: overloaded"),
            (400, body("{\"error\": {\"message\": \"no\"}}"), false, "answered 400: no"),
            (200, vec![Ok(b"data: {\"choices\": []}\n".to_vec())], true, "before its end"),
            (200, vec![Err("reset".into())], true, "broke off: reset"),
            (200, body("data: {\n"), true, "no JSON"),
            (200, body("data: {\"error\": {\"message\": \"stopped\"}}\n"), true, "says: stopped"),
            (200, vec![Ok(vec![b'x'; EVENT_BYTES_MAX + 1])], false, "an event of the answer has more"),
        ] {
            let (answer, ..) = ask(status, pieces).await;
            let failure = answer.unwrap_err();
            assert!(failure.message.contains(expected), "{}", failure.message);
            assert_eq!(failure.passing, passing, "{expected}");
        }
    }
}
