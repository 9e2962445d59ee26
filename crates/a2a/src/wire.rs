//! Requests to an agent of somebody else, in both bindings over HTTP. The official client reads answers and streams
//! without a limit; here each has one. Knows A2A's envelopes, not what is asked.

use crate::{front::VERSION, screen::Screen};
use a2a::{
    A2AError, AgentInterface, CancelTaskRequest, GetTaskRequest, SendMessageRequest, StreamResponse,
    SubscribeToTaskRequest, TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC, Task, TypedDetail, error_code,
    methods, reason_to_error_code,
};
use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use futures::{Stream, StreamExt, stream::BoxStream};
use reqwest::{Client, Method, RequestBuilder, Response, header};
use serde_json::{Value, json};

/// What an answer may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireLimits {
    pub answer_bytes: usize,
    pub event_bytes: usize,
    pub stream_bytes: usize,
}

/// Which of the two bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    JsonRpc,
    HttpJson,
}

/// One interface of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    client: Client,
    binding: Binding,
    url: String,
    token: Option<String>,
    tenant: Option<String>,
    limits: WireLimits,
}

impl Wire {
    /// The first interface that is spoken here and may be asked.
    ///
    /// # Errors
    /// If there is none: why the last one was left out.
    pub(crate) fn choose(
        interfaces: &[AgentInterface],
        client: Client,
        screen: &Screen,
        limits: WireLimits,
    ) -> Result<Self, String> {
        let mut why = "it offers none that is spoken here: JSON-RPC or HTTP+JSON of A2A 1.0".to_string();
        for interface in interfaces {
            let binding = match interface.protocol_binding.as_str() {
                TRANSPORT_PROTOCOL_JSONRPC => Binding::JsonRpc,
                TRANSPORT_PROTOCOL_HTTP_JSON => Binding::HttpJson,
                _ => continue,
            };
            if interface.protocol_version != VERSION && !interface.protocol_version.starts_with("1.0.") {
                continue;
            }
            if let Err(refusal) = screen.check_form(&interface.url) {
                why = format!("its URL must not be asked: {refusal}");
                continue;
            }
            let url = interface.url.trim_end_matches('/').to_string();
            let tenant = interface.tenant.clone().filter(|tenant| !tenant.is_empty());
            return Ok(Self { client, binding, url, token: None, tenant, limits });
        }
        Err(why)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same with a bearer token, if there is one.
    pub(crate) fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    pub(crate) async fn stream(&self, mut request: SendMessageRequest) -> Result<Updates, A2AError> {
        request.tenant.clone_from(&self.tenant);
        self.streamed(methods::SEND_STREAMING_MESSAGE, "/message:stream", Some(&request)).await
    }

    pub(crate) async fn subscribe(&self, task: &str) -> Result<Updates, A2AError> {
        let request = SubscribeToTaskRequest { id: task.to_string(), tenant: self.tenant.clone() };
        match self.binding {
            Binding::JsonRpc => self.streamed(methods::SUBSCRIBE_TO_TASK, "", Some(&request)).await,
            Binding::HttpJson => {
                let path = format!("/tasks/{}:subscribe", segment(task));
                self.streamed::<SubscribeToTaskRequest>(methods::SUBSCRIBE_TO_TASK, &path, None).await
            }
        }
    }

    pub(crate) async fn send(&self, mut request: SendMessageRequest) -> Result<a2a::SendMessageResponse, A2AError> {
        request.tenant.clone_from(&self.tenant);
        self.asked(methods::SEND_MESSAGE, Method::POST, "/message:send", Some(&request)).await
    }

    pub(crate) async fn get(&self, task: &str) -> Result<Task, A2AError> {
        let request = GetTaskRequest { id: task.to_string(), history_length: Some(0), tenant: self.tenant.clone() };
        match self.binding {
            Binding::JsonRpc => self.asked(methods::GET_TASK, Method::POST, "", Some(&request)).await,
            Binding::HttpJson => {
                let path = format!("/tasks/{}?historyLength=0", segment(task));
                self.asked::<GetTaskRequest, _>(methods::GET_TASK, Method::GET, &path, None).await
            }
        }
    }

    pub(crate) async fn cancel(&self, task: &str) -> Result<Task, A2AError> {
        let request = CancelTaskRequest { id: task.to_string(), metadata: None, tenant: self.tenant.clone() };
        match self.binding {
            Binding::JsonRpc => self.asked(methods::CANCEL_TASK, Method::POST, "", Some(&request)).await,
            Binding::HttpJson => {
                let path = format!("/tasks/{}:cancel", segment(task));
                self.asked::<CancelTaskRequest, _>(methods::CANCEL_TASK, Method::POST, &path, None).await
            }
        }
    }

    fn request<Asked: ProtoJsonPayload>(
        &self,
        method_name: &str,
        method: Method,
        path: &str,
        asked: Option<&Asked>,
    ) -> Result<RequestBuilder, A2AError> {
        let body = asked.map(protojson_conv::to_value).transpose();
        let body = body.map_err(|error| A2AError::internal(format!("the request cannot be written: {error}")))?;
        let request = match self.binding {
            Binding::JsonRpc => {
                let body = json!({"jsonrpc": "2.0", "id": 1, "method": method_name, "params": body});
                self.client.post(&self.url).header(header::CONTENT_TYPE, "application/json").body(body.to_string())
            }
            Binding::HttpJson => {
                let request = self.client.request(method, format!("{}{path}", self.url));
                let request = request.header(header::CONTENT_TYPE, "application/a2a+json");
                if let Some(body) = body { request.body(body.to_string()) } else { request }
            }
        };
        let request = request.header("a2a-version", VERSION);
        Ok(if let Some(token) = &self.token { request.bearer_auth(token) } else { request })
    }

    async fn asked<Asked: ProtoJsonPayload, Answer: ProtoJsonPayload>(
        &self,
        method_name: &str,
        method: Method,
        path: &str,
        asked: Option<&Asked>,
    ) -> Result<Answer, A2AError> {
        let request = self.request(method_name, method, path, asked)?;
        let request = request.header(header::ACCEPT, "application/a2a+json, application/json");
        let response = request.send().await.map_err(unsent)?;
        let json = self.json(response).await?;
        protojson_conv::from_value(json)
            .map_err(|error| A2AError::internal(format!("the answer is not one of A2A: {error}")))
    }

    async fn streamed<Asked: ProtoJsonPayload>(
        &self,
        method_name: &str,
        path: &str,
        asked: Option<&Asked>,
    ) -> Result<Updates, A2AError> {
        let request = self.request(method_name, Method::POST, path, asked)?;
        let response = request.header(header::ACCEPT, "text/event-stream").send().await.map_err(unsent)?;
        let media_type =
            response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !response.status().is_success() || !media_type.starts_with("text/event-stream") {
            // An error comes as one object; anything else is no stream.
            self.json(response).await?;
            return Err(A2AError::internal("the agent answered with one object instead of a stream"));
        }
        Ok(updates(response.bytes_stream(), self.binding, self.limits.clone()))
    }

    /// The result in an answer, or its error.
    async fn json(&self, response: Response) -> Result<Value, A2AError> {
        let status = response.status();
        let bytes = limited(response, self.limits.answer_bytes).await.map_err(A2AError::internal)?;
        let json: Result<Value, _> = serde_json::from_slice(&bytes);
        match (json, self.binding) {
            (Ok(json), Binding::JsonRpc) => result(json),
            (Ok(json), Binding::HttpJson) if status.is_success() => Ok(json),
            (Ok(json), Binding::HttpJson) => Err(error(&json["error"], error_code::INTERNAL_ERROR)),
            (Err(_), _) => Err(A2AError::internal(format!("the agent answered {status} and no JSON"))),
        }
    }
}

/// What comes over a stream.
pub(crate) type Updates = BoxStream<'static, Result<StreamResponse, A2AError>>;

/// An answer's body, unless it is longer.
///
/// # Errors
/// If it is longer, or breaks off.
pub(crate) async fn limited(response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = response.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| format!("the answer broke off: {}", error.without_url()))?;
        if bytes.len() + chunk.len() > bytes_max {
            return Err(format!("the answer has more than {bytes_max} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The code of an error of ours: nothing was sent. No agent's, whose codes are those of JSON-RPC.
pub(crate) const UNSENT: i32 = i32::MIN;

/// The code of another: what the agent sends is more than is taken, or not about what was asked; so it would be again.
pub(crate) const REFUSED: i32 = i32::MIN + 1;

fn unsent(error: reqwest::Error) -> A2AError {
    let is_unsent = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let code = if is_unsent { UNSENT } else { error_code::INTERNAL_ERROR };
    A2AError::new(code, format!("the agent cannot be reached: {text}"))
}

/// The result in an envelope of JSON-RPC.
fn result(mut envelope: Value) -> Result<Value, A2AError> {
    match envelope.get("error") {
        Some(json) if !json.is_null() => {
            let code = json.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
            Err(error(json, code.unwrap_or(error_code::INTERNAL_ERROR)))
        }
        _ => Ok(envelope.get_mut("result").map(Value::take).unwrap_or_default()),
    }
}

/// The longest message of an error that is read, in characters.
const ERROR_CHARS_MAX: usize = 1_000;

fn error(json: &Value, code: i32) -> A2AError {
    let details = json.get("details").or(json.get("data")).and_then(Value::as_array);
    let read = |one: &Value| serde_json::from_value::<TypedDetail>(one.clone()).ok();
    let reason = |detail: TypedDetail| reason_to_error_code(detail.value.get("reason")?.as_str()?);
    let named = details.into_iter().flatten().filter_map(read).find_map(reason);
    let message = json.get("message").and_then(Value::as_str).unwrap_or("the agent gave no reason");
    A2AError::new(named.unwrap_or(code), message.chars().take(ERROR_CHARS_MAX).collect::<String>())
}

/// A part of a path.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Reads server-sent events, each of which holds an update. Ends after the first error.
fn updates<Bytes: AsRef<[u8]> + Send + 'static>(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    binding: Binding,
    limits: WireLimits,
) -> Updates {
    struct Reading<Body> {
        body: Body,
        events: Events,
        read: usize,
        is_over: bool,
    }
    let reading = Reading { body: Box::pin(body), events: Events::new(limits.event_bytes), read: 0, is_over: false };
    Box::pin(futures::stream::unfold(reading, move |mut reading| {
        let stream_bytes = limits.stream_bytes;
        async move {
            loop {
                if let Some(event) = reading.events.next() {
                    let update = event.and_then(|data| update(&data, binding));
                    reading.is_over |= update.is_err();
                    return Some((update, reading));
                }
                if reading.is_over {
                    return None;
                }
                let failed = match reading.body.next().await {
                    None => return None,
                    Some(Err(error)) => A2AError::internal(format!("the stream broke off: {}", error.without_url())),
                    Some(Ok(chunk)) => {
                        reading.read += chunk.as_ref().len();
                        if reading.read <= stream_bytes {
                            reading.events.take(chunk.as_ref());
                            continue;
                        }
                        A2AError::new(REFUSED, format!("the stream has more than {stream_bytes} bytes"))
                    }
                };
                reading.is_over = true;
                return Some((Err(failed), reading));
            }
        }
    }))
}

fn update(data: &str, binding: Binding) -> Result<StreamResponse, A2AError> {
    let json: Value = serde_json::from_str(data)
        .map_err(|error| A2AError::internal(format!("an event of the stream is no JSON: {error}")))?;
    let json = match binding {
        Binding::JsonRpc => result(json)?,
        Binding::HttpJson if json.get("code").is_some() && json.get("message").is_some() => {
            let code = json["code"].as_i64().and_then(|code| i32::try_from(code).ok());
            return Err(error(&json, code.unwrap_or(error_code::INTERNAL_ERROR)));
        }
        Binding::HttpJson => json,
    };
    protojson_conv::from_value(json).map_err(|error| A2AError::internal(format!("an event is not one of A2A: {error}")))
}

/// Server-sent events taken apart (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), each byte once.
struct Events {
    line: Vec<u8>,
    data: Option<String>,
    ready: std::collections::VecDeque<Result<String, A2AError>>,
    after_return: bool,
    bytes_max: usize,
}

impl Events {
    fn new(bytes_max: usize) -> Self {
        Self { line: vec![], data: None, ready: Default::default(), after_return: false, bytes_max }
    }

    fn next(&mut self) -> Option<Result<String, A2AError>> {
        self.ready.pop_front()
    }

    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let is_second = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if is_second => {}
                b'\r' | b'\n' => self.end_line(),
                _ if self.line.len() + self.data.as_ref().map_or(0, String::len) >= self.bytes_max => {
                    let why = format!("an event of the stream has more than {} bytes", self.bytes_max);
                    self.ready.push_back(Err(A2AError::new(REFUSED, why)));
                    return;
                }
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.ready.extend(self.data.take().map(Ok));
        } else if let Some(data) = line.strip_prefix(b"data:") {
            let text = String::from_utf8_lossy(data.strip_prefix(b" ").unwrap_or(data)).into_owned();
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&text);
                }
                None => self.data = Some(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes events apart, given in pieces of each size.
    fn check(text: &str, expected: &[&str]) {
        for size in [1, 2, 3, text.len().max(1)] {
            let mut events = Events::new(100);
            text.as_bytes().chunks(size).for_each(|chunk| events.take(chunk));
            let found: Vec<String> = std::iter::from_fn(|| events.next()).map(|event| event.unwrap()).collect();
            assert_eq!(found, expected, "{text:?} in pieces of {size}");
        }
    }

    #[test]
    fn events_end_with_an_empty_line_of_any_kind() {
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("id: 1\r\ndata:a\r\n\r\n: keep\r\n\r\ndata: b\r\rdata: c\n", &["a", "b"]);
        check("data: a\ndata: b\n\n\n\n", &["a\nb"]);
        check("event: x\n\ndatum: a\n\n", &[]);
        check("data: \u{e9}\u{1f600}\n\n", &["\u{e9}\u{1f600}"]);
        let mut events = Events::new(10);
        events.take(b"data: 0123456789");
        assert!(events.next().unwrap().is_err());
    }

    #[test]
    fn errors_keep_their_code() {
        let info = json!({"@type": a2a::ERROR_INFO_TYPE, "reason": "TASK_NOT_FOUND", "domain": "a2a-protocol.org"});
        for (json, code) in [
            (json!({"code": 404, "message": "m", "details": [info.clone()]}), error_code::TASK_NOT_FOUND),
            (json!({"code": -32001, "message": "m", "data": [info]}), error_code::TASK_NOT_FOUND),
            (json!({"message": 1}), -5),
            (json!("bard"), -5),
        ] {
            assert_eq!(error(&json, -5).code, code, "{json}");
        }
        assert!(result(json!({"result": 1, "error": null})).is_ok());
        assert_eq!(result(json!({"error": {"code": -32004, "message": "m"}})).unwrap_err().code, -32004);
    }

    #[test]
    fn ids_stay_inside_their_part_of_a_path() {
        assert_eq!(segment("../a b/c?d"), "..%2Fa%20b%2Fc%3Fd");
    }
}
