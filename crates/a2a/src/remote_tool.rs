//! Another's agent as a tool: a call is a message, and what becomes of its task is the result. A call that is dropped
//! cancels the task. What the agent says is somebody else's text: it stays in the result.

use crate::{
    client_options::ClientOptions,
    task::words,
    updates::is_waiting,
    wire::{REFUSED, UNSENT, Updates, Wire},
};
use a2a::{
    A2AError, Artifact, Message, Part, PartContent, Role, SendMessageRequest, SendMessageResponse, StreamResponse,
};
use a2a::{TaskState, TaskStatus};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{StreamExt, future::BoxFuture};
use narthex_agent::{Call, Content, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The longest message of a call, in characters.
const MESSAGE_CHARS_MAX: usize = 1_000_000;

/// Times that a stream which broke off is taken up again.
const RESUBSCRIBED_MAX: usize = 3;

/// The wait before that, and between two looks at a task that tells nothing by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long cancelling a task may take after its call was dropped.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The most artifacts of a task.
const ARTIFACTS_MAX: usize = 1_000;

/// See the module.
pub(crate) struct RemoteTool {
    definition: ToolDefinition,
    wire: Wire,
    streams: bool,
    call_ms: u64,
    result_bytes: usize,
}

impl RemoteTool {
    pub(crate) fn new(wire: Wire, name: String, description: String, streams: bool, options: &ClientOptions) -> Self {
        let input_schema = json!({
            "type": "object",
            "properties": {
                "message": {
                    "type": "string", "minLength": 1, "maxLength": MESSAGE_CHARS_MAX, "description": "What to ask.",
                },
                "context": {"type": "string", "description": "The conversation to go on with, from an earlier result."},
                "task": {"type": "string", "description": "The task that asked for input, from an earlier result."},
            },
            "required": ["message"],
            "additionalProperties": false,
        });
        let definition =
            ToolDefinition { name, description, input_schema, output_schema: None, effect: Effect::Reaches };
        Self { definition, wire, streams, call_ms: options.call_ms, result_bytes: options.result_bytes }
    }
}

impl Tool for RemoteTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let text = |key: &str| call.arguments.get(key).and_then(Value::as_str).map(str::to_string);
        let Some(message) = text("message").filter(|message| message.chars().count() <= MESSAGE_CHARS_MAX) else {
            let failure = ToolFailure { message: "`message` is missing or too long".into(), harmless: true };
            return Box::pin(async move { Err(failure) });
        };
        let message = Message {
            // The same after a crash: an agent that knows its messages does not begin again.
            message_id: format!("{}-{}", call.run, call.id),
            context_id: text("context").filter(|context| !context.is_empty()),
            task_id: text("task").filter(|task| !task.is_empty()),
            ..Message::new(Role::User, vec![Part::text(message)])
        };
        let mut asking = Asking {
            wire: self.wire.clone(),
            guard: Guard { wire: self.wire.clone(), task: None },
            found: Found { bytes_max: self.result_bytes, ..Found::default() },
            progress,
            told: 0,
        };
        let (streams, call_ms) = (self.streams, self.call_ms);
        Box::pin(async move {
            match timeout(Duration::from_millis(call_ms), asking.ask(message, streams)).await {
                Ok(Ok(())) => Ok(asking.found.result()),
                Ok(Err(error)) if error.code == UNSENT => Err(ToolFailure { message: error.message, harmless: true }),
                // What the agent itself refuses is for the model to read; what broke may have had an effect.
                Ok(Err(error)) if !matches!(error.code, a2a::error_code::INTERNAL_ERROR | REFUSED) => {
                    Ok(ToolResult::error(format!("the agent refuses: {}", error.message)))
                }
                Ok(Err(error)) => Err(ToolFailure { message: error.message, harmless: false }),
                Err(_) => {
                    Err(ToolFailure { message: format!("the agent took more than {call_ms} ms"), harmless: false })
                }
            }
        })
    }
}

/// Cancels the task when it is dropped before it was disarmed.
struct Guard {
    wire: Wire,
    task: Option<String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(task), Ok(runtime)) = (self.task.take(), tokio::runtime::Handle::try_current()) else { return };
        let wire = self.wire.clone();
        runtime.spawn(async move {
            // Nobody waits for the outcome: a task that cannot be cancelled ends by itself.
            _ = timeout(CANCEL_TIMEOUT, wire.cancel(&task)).await;
        });
    }
}

/// One call under way.
struct Asking {
    wire: Wire,
    guard: Guard,
    found: Found,
    progress: Progress,
    told: u32,
}

impl Asking {
    async fn ask(&mut self, message: Message, streams: bool) -> Result<(), A2AError> {
        let request = SendMessageRequest { message, configuration: None, metadata: None, tenant: None };
        if !streams {
            match self.wire.send(request).await? {
                SendMessageResponse::Message(message) => self.take(StreamResponse::Message(message))?,
                SendMessageResponse::Task(task) => self.take(StreamResponse::Task(task))?,
            }
            return self.look().await;
        }
        let mut updates = self.wire.stream(request).await?;
        for again in 0..=RESUBSCRIBED_MAX {
            let broken = self.read(&mut updates).await;
            if self.is_over() || broken.as_ref().is_err_and(|error| error.code == REFUSED) {
                return broken;
            }
            let Some(task) = self.guard.task.clone() else {
                return Err(broken.err().unwrap_or_else(|| A2AError::internal("the stream ended before it began")));
            };
            if again == RESUBSCRIBED_MAX {
                return broken.and(Err(A2AError::internal("the stream breaks off again and again")));
            }
            sleep(LOOK_AGAIN).await;
            match self.wire.subscribe(&task).await {
                Ok(taken_up) => updates = taken_up,
                // It ended meanwhile, or takes no subscriptions.
                Err(_) => return self.look().await,
            }
        }
        Ok(())
    }

    /// Reads a stream until it ends.
    async fn read(&mut self, updates: &mut Updates) -> Result<(), A2AError> {
        while let Some(update) = updates.next().await {
            self.take(update?)?;
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Looks at the task until it is over.
    async fn look(&mut self) -> Result<(), A2AError> {
        while !self.is_over() {
            let Some(task) = self.guard.task.clone() else { return Ok(()) };
            let task = self.wire.get(&task).await?;
            self.take(StreamResponse::Task(task))?;
            if !self.is_over() {
                sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    fn take(&mut self, update: StreamResponse) -> Result<(), A2AError> {
        if let StreamResponse::Task(task) = &update {
            self.guard.task = Some(task.id.clone());
        }
        let word = self.found.take(update)?;
        self.told += 1;
        (self.progress)(f64::from(self.told), None, word.as_deref());
        if self.is_over() {
            // A task that waits for us is not cancelled either: the next call answers it.
            self.guard.task = None;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let state = self.found.status.as_ref().map(|status| &status.state);
        self.found.message.is_some() || state.is_some_and(|state| state.is_terminal() || is_waiting(state))
    }
}

/// What has come of a task so far.
#[derive(Default)]
struct Found {
    task: Option<String>,
    context: Option<String>,
    status: Option<TaskStatus>,
    message: Option<Message>,
    artifacts: Vec<Artifact>,
    bytes_max: usize,
}

impl Found {
    /// Takes an update, and gives the word for it.
    ///
    /// # Errors
    /// If it is of another task, or there is too much of it.
    fn take(&mut self, update: StreamResponse) -> Result<Option<String>, A2AError> {
        let word = match update {
            StreamResponse::Message(message) => {
                self.context.clone_from(&message.context_id);
                self.message = Some(message);
                None
            }
            StreamResponse::Task(task) => {
                self.same(&task.id)?;
                (self.task, self.context) = (Some(task.id), Some(task.context_id));
                // A list of tasks leaves them out; a snapshot has them all.
                self.artifacts = task.artifacts.unwrap_or_else(|| std::mem::take(&mut self.artifacts));
                let word = task.status.message.as_ref().map(words);
                self.status = Some(task.status);
                word
            }
            StreamResponse::StatusUpdate(update) => {
                self.same(&update.task_id)?;
                let word = update.status.message.as_ref().map(words);
                self.status = Some(update.status);
                word
            }
            StreamResponse::ArtifactUpdate(update) => {
                self.same(&update.task_id)?;
                let place = self.artifacts.iter_mut().find(|known| known.artifact_id == update.artifact.artifact_id);
                match place {
                    Some(place) if update.append == Some(true) => place.parts.extend(update.artifact.parts),
                    Some(place) => *place = update.artifact,
                    None => self.artifacts.push(update.artifact),
                }
                None
            }
        };
        let bytes: usize = self.artifacts.iter().flat_map(|artifact| &artifact.parts).map(size).sum();
        if bytes > self.bytes_max || self.artifacts.len() > ARTIFACTS_MAX {
            return Err(A2AError::new(REFUSED, format!("the agent's result has more than {} bytes", self.bytes_max)));
        }
        Ok(word)
    }

    fn same(&self, task: &str) -> Result<(), A2AError> {
        match &self.task {
            Some(known) if known != task => {
                Err(A2AError::new(REFUSED, "the agent answers with updates of another task"))
            }
            _ => Ok(()),
        }
    }

    fn result(self) -> ToolResult {
        let mut structured = Map::new();
        for (key, value) in [("task", &self.task), ("context", &self.context)] {
            if let Some(value) = value {
                structured.insert(key.into(), json!(value));
            }
        }
        if let Some(message) = &self.message {
            let content = message.parts.iter().map(content).collect();
            return ToolResult { content, structured: Some(structured.into()), is_error: false };
        }
        let mut content: Vec<Content> = Vec::new();
        for artifact in &self.artifacts {
            let texts: Option<String> = artifact.parts.iter().map(Part::as_text).collect();
            match texts {
                // Pieces of one text.
                Some(text) => content.push(Content::Text { text }),
                None => content.extend(artifact.parts.iter().map(self::content)),
            }
        }
        let data = self.artifacts.iter().flat_map(|artifact| &artifact.parts).find_map(|part| match &part.content {
            PartContent::Data(data) => Some(data.clone()),
            _ => None,
        });
        structured.extend(data.map(|data| ("data".to_string(), data)));
        let status = self.status;
        let state = status.as_ref().map(|status| status.state.clone()).unwrap_or_default();
        structured.insert("state".into(), json!(state));
        let said = status.and_then(|status| status.message).map(|message| words_only(&message)).unwrap_or_default();
        match &state {
            TaskState::Completed => {}
            state if is_waiting(state) => content.push(Content::Text {
                text: format!(
                    "The agent asks for input: {said}\nTo answer, call it again with the `task` of this result."
                ),
            }),
            _ => content.push(Content::Text { text: format!("The agent did not complete the task: {said}") }),
        }
        let is_error = !matches!(state, TaskState::Completed) && !is_waiting(&state);
        ToolResult { content, structured: Some(structured.into()), is_error }
    }
}

/// The texts of a message, without its data.
fn words_only(message: &Message) -> String {
    message.parts.iter().filter_map(Part::as_text).collect::<Vec<_>>().join("\n")
}

fn size(part: &Part) -> usize {
    match &part.content {
        PartContent::Text(text) | PartContent::Url(text) => text.len(),
        PartContent::Raw(bytes) => bytes.len(),
        PartContent::Data(data) => data.to_string().len(),
    }
}

fn content(part: &Part) -> Content {
    let media_type = part.media_type.clone();
    let name = part.filename.clone().unwrap_or_else(|| "file".into());
    match &part.content {
        PartContent::Text(text) => Content::Text { text: text.clone() },
        PartContent::Data(data) => Content::Text { text: data.to_string() },
        PartContent::Url(uri) => Content::Link { uri: uri.clone(), name, mime_type: media_type },
        PartContent::Raw(bytes) => {
            let data = STANDARD.encode(bytes);
            match media_type {
                Some(mime_type) if mime_type.starts_with("image/") => Content::Image { data, mime_type },
                Some(mime_type) if mime_type.starts_with("audio/") => Content::Audio { data, mime_type },
                mime_type => Content::Resource { uri: format!("file:{name}"), mime_type, text: None, blob: Some(data) },
            }
        }
    }
}
