//! `POST /v1/chat/completions` (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! Clients of this API keep the conversation themselves and send all of it each time. So each request is a conversation
//! of its own, whose beginning is all that it says; `narthex: {"thread": …}` goes on with one that is kept, and then
//! only what stands behind the last answer is said. The answer is all that the agent says in the run, also between
//! calls of its tools; of an agent whose answer is data, it is that data as JSON and nothing else. A run that waits
//! ends the answer with `stop`, with words on what it waits for, and with `narthex` as data; `narthex: {"run": …,
//! "answers": […]}` answers it and gives the rest.

use super::{chat_request::ChatRequest, ending::failure, models};
use crate::{
    app::{App, Tenant},
    key::key,
    pending,
    pieces::{Piece, Stretch},
    refusal::refused,
};
use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use narthex_agent::{Ask, RunStatus, RunView};
use narthex_http::{ApiError, Events, JsonBody, event_stream};
use serde_json::{Map, Value, json};

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatRequest::read(fields, |claimed| tenant.approver(claimed))?;
    let agent = models::find(&app, &request.model)?;
    let (stream, model) = (request.stream, request.model.clone());
    let (run, after) = begin(&app, &tenant, &headers, request).await?;
    let created = (app.options.now_ms)() / 1000;
    let talk = Talk { app, tenant: tenant.0, run, after, model, created, is_data: agent.output.is_some() };
    if stream {
        return Ok(event_stream(async move |events| talk.stream(&events).await));
    }
    Ok(Json(talk.whole().await?).into_response())
}

/// Starts a run, or answers what one waits for: the run, and the event behind which the answer begins.
async fn begin(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    request: ChatRequest,
) -> Result<(String, u64), ApiError> {
    if let Some((run, answers)) = request.run {
        let view = app.agents.run(&tenant.0, &run).await.map_err(refused)?;
        for (interrupt, answer) in answers {
            app.agents.answer(&tenant.0, &run, &interrupt, answer).await.map_err(refused)?;
        }
        return Ok((run, view.last_event));
    }
    let ask = Ask {
        agent: request.model,
        tenant: tenant.0.clone(),
        messages: request.messages,
        thread: request.thread,
        key: key(headers)?,
        metadata: request.metadata,
    };
    Ok((app.agents.start(ask).await.map_err(refused)?, 0))
}

struct Talk {
    app: App,
    tenant: String,
    run: String,
    after: u64,
    model: String,
    created: u64,
    /// Whether the answer is data.
    is_data: bool,
}

impl Talk {
    fn head(&self, object: &str) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("id".into(), json!(format!("chatcmpl-{}-{}", self.run, self.after)));
        head.insert("object".into(), json!(object));
        head.insert("created".into(), json!(self.created));
        head.insert("model".into(), json!(self.model));
        head
    }

    /// Reads what the run says from here on.
    fn read(&self) -> Reading<'_> {
        let stretch = Stretch::follow(&*self.app.agents, &self.tenant, &self.run, self.after);
        Reading { talk: self, stretch, said: false, gap: false, view: None }
    }

    async fn whole(self) -> Result<Value, ApiError> {
        let (mut text, mut thought) = (String::new(), String::new());
        let mut reading = self.read();
        while let Some(words) = reading.next().await? {
            match words {
                Words::Text(more) => text.push_str(&more),
                Words::Thought(more) => thought.push_str(&more),
            }
        }
        let view = reading.end()?;
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !thought.is_empty() {
            message["reasoning_content"] = json!(thought);
        }
        let mut whole = self.head("chat.completion");
        let finish = finish_reason(&view);
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish});
        whole.insert("choices".into(), json!([choice]));
        whole.insert("narthex".into(), pending::standing(&view));
        Ok(Value::Object(whole))
    }

    async fn stream(self, events: &Events) -> Result<(), ApiError> {
        let chunk = |delta: Value, finish: Option<&str>| {
            let mut chunk = self.head("chat.completion.chunk");
            let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
            chunk.insert("choices".into(), json!([choice]));
            chunk
        };
        events.send(&chunk(json!({"role": "assistant", "content": ""}), None)).await?;
        let mut reading = self.read();
        while let Some(words) = reading.next().await? {
            let delta = match words {
                Words::Text(text) => json!({"content": text}),
                Words::Thought(text) => json!({"reasoning_content": text}),
            };
            events.send(&chunk(delta, None)).await?;
        }
        let view = reading.end()?;
        let mut last = chunk(json!({}), Some(finish_reason(&view)));
        last.insert("narthex".into(), pending::standing(&view));
        events.send(&last).await
    }
}

/// How far an answer has been read.
struct Reading<'a> {
    talk: &'a Talk,
    stretch: Stretch,
    /// Whether a text has come.
    said: bool,
    /// Whether what comes next is another message.
    gap: bool,
    /// How the run stands at the end.
    view: Option<RunView>,
}

impl Reading<'_> {
    /// The next text or thought; at the end, data or what is waited for.
    async fn next(&mut self) -> Result<Option<Words>, ApiError> {
        if self.view.is_some() {
            return Ok(None);
        }
        while let Some(told) = self.stretch.next().await? {
            match told.piece {
                Piece::Text(text) if !self.talk.is_data => return Ok(Some(self.text(text))),
                Piece::Thought(text) => return Ok(Some(Words::Thought(text))),
                Piece::Message(_) => self.gap = true,
                _ => {}
            }
        }
        let Talk { app, tenant, run, is_data, .. } = self.talk;
        let view = app.agents.run(tenant, run).await.map_err(refused)?;
        let rest = match &view.output {
            Some(output) if *is_data => output.to_string(),
            _ => pending::words(&view),
        };
        self.view = Some(view);
        self.gap = true;
        Ok((!rest.is_empty()).then(|| self.text(rest)))
    }

    fn text(&mut self, text: String) -> Words {
        let apart = std::mem::take(&mut self.gap) && self.said;
        self.said = true;
        Words::Text(if apart { format!("\n\n{text}") } else { text })
    }

    /// How the run stands.
    fn end(self) -> Result<RunView, ApiError> {
        let view = self.view.ok_or_else(|| ApiError::internal("the answer was not read to its end"))?;
        failure(&view).map_or(Ok(view), Err)
    }
}

/// A part of the answer.
enum Words {
    Text(String),
    Thought(String),
}

fn finish_reason(view: &RunView) -> &'static str {
    if view.status == RunStatus::Limited { "length" } else { "stop" }
}
