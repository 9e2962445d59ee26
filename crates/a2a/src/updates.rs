//! Events of a run, told as updates of a task. Pieces of the answer are parts of one artifact that grows; when the
//! model calls a tool after all, the next piece begins it anew. Pure; knows no stream and no request.

use crate::task::{ANSWER, artifact, artifacts, is_answer, state, status};
use a2a::{
    Message, Part, PartContent, Role, StreamResponse, TaskArtifactUpdateEvent, TaskState, TaskStatus,
    TaskStatusUpdateEvent,
};
use chrono::DateTime;
use narthex_agent::{Delta, RunEvent, RunEventKind, RunStatus, RunView};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The longest answer that is told in pieces; what is longer is told whole at the end.
const PIECES_BYTES_MAX: usize = 1 << 20;

/// The longest word of a tool that is told, in characters.
const WORD_CHARS_MAX: usize = 500;

/// Tells what happens in one run.
pub(crate) struct Updates {
    task: String,
    context: String,
    /// Whether pieces of the answer are told: not where the answer is data, nor to a push notification.
    pieces: bool,
    /// What has been told, with the piece that is held back to know which one is the last.
    told: String,
    held: Option<String>,
    /// Whether the artifact has been begun in this turn.
    begun: bool,
    /// Whether all of `told` is a whole answer.
    whole: bool,
}

impl Updates {
    pub(crate) fn new(view: &RunView, pieces: bool) -> Self {
        Self {
            task: view.id.clone(),
            context: view.thread.clone(),
            pieces,
            told: String::new(),
            held: None,
            begun: false,
            whole: false,
        }
    }

    /// What an event means to others. The end and the waiting are told from the run: [`Self::end`], [`Self::pause`].
    pub(crate) fn tell(&mut self, event: &RunEvent) -> Vec<StreamResponse> {
        match &event.kind {
            RunEventKind::Working => vec![self.working(event, None, None)],
            RunEventKind::Said { delta: Delta::Text(text) } if self.pieces && !text.is_empty() => self.piece(text),
            RunEventKind::Message { message } if is_answer(message) => self.complete(&message.text()),
            RunEventKind::Message { message } => {
                self.restart();
                let text = message.text();
                let is_remark = message.role == narthex_base::chat::Role::Assistant && !text.is_empty();
                is_remark.then(|| self.working(event, Some(&text), None)).into_iter().collect()
            }
            RunEventKind::ToolStarted { call, tool, .. } => {
                // Not the arguments: they may hold what the caller must not see.
                vec![self.working(event, None, Some(json!({"tool": tool, "call": call})))]
            }
            RunEventKind::ToolProgress { call, done, of, word } => {
                vec![self.working(event, word.as_deref(), Some(json!({"call": call, "done": done, "of": of})))]
            }
            RunEventKind::Said { .. } | RunEventKind::Waiting { .. } | RunEventKind::Ended { .. } => vec![],
        }
    }

    /// That the run waits.
    pub(crate) fn pause(&mut self, view: &RunView) -> StreamResponse {
        self.restart();
        self.status(status(view), None)
    }

    /// The end: the artifacts that have not been told yet, and how it stands.
    pub(crate) fn end(&mut self, view: &RunView) -> Vec<StreamResponse> {
        let mut updates = Vec::new();
        for artifact in artifacts(view) {
            let is_told = self.whole
                && artifact.artifact_id == ANSWER
                && matches!(artifact.parts.as_slice(),
                    [Part { content: PartContent::Text(text), .. }] if *text == self.told);
            if !is_told {
                updates.push(self.artifact(artifact, false, true));
            }
        }
        updates.push(self.status(status(view), None));
        updates
    }

    fn piece(&mut self, text: &str) -> Vec<StreamResponse> {
        if self.told.len() + text.len() > PIECES_BYTES_MAX {
            self.pieces = false;
            return vec![];
        }
        self.told.push_str(text);
        self.whole = false;
        let ready = self.held.replace(text.to_string());
        ready.map(|piece| self.send(piece, false)).into_iter().collect()
    }

    fn complete(&mut self, text: &str) -> Vec<StreamResponse> {
        if text.is_empty() || text != self.told {
            self.restart();
            return vec![];
        }
        self.whole = true;
        self.held.take().map(|piece| self.send(piece, true)).into_iter().collect()
    }

    fn restart(&mut self) {
        self.told.clear();
        (self.held, self.begun, self.whole) = (None, false, false);
    }

    fn send(&mut self, piece: String, is_last: bool) -> StreamResponse {
        let append = std::mem::replace(&mut self.begun, true);
        self.artifact(artifact(ANSWER.into(), ANSWER.into(), vec![Part::text(piece)]), append, is_last)
    }

    fn artifact(&self, artifact: a2a::Artifact, append: bool, is_last: bool) -> StreamResponse {
        StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: self.task.clone(),
            context_id: self.context.clone(),
            artifact,
            append: Some(append),
            last_chunk: Some(is_last),
            metadata: None,
        })
    }

    fn working(&self, event: &RunEvent, word: Option<&str>, tool: Option<Value>) -> StreamResponse {
        let message = word.map(|word| Message {
            message_id: format!("{}-event-{}", self.task, event.number),
            context_id: Some(self.context.clone()),
            task_id: Some(self.task.clone()),
            ..Message::new(Role::Agent, vec![Part::text(word.chars().take(WORD_CHARS_MAX).collect::<String>())])
        });
        let timestamp = DateTime::from_timestamp_millis(i64::try_from(event.at_ms).unwrap_or(i64::MAX));
        let status = TaskStatus { state: state(RunStatus::Running), message, timestamp };
        self.status(status, tool.map(|tool| HashMap::from([("tool".to_string(), tool)])))
    }

    fn status(&self, status: TaskStatus, metadata: Option<HashMap<String, Value>>) -> StreamResponse {
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: self.task.clone(),
            context_id: self.context.clone(),
            status,
            metadata,
        })
    }
}

/// Whether an update is the last of its task.
pub(crate) fn is_last(update: &StreamResponse) -> bool {
    match update {
        StreamResponse::Task(task) => task.status.state.is_terminal(),
        StreamResponse::StatusUpdate(update) => update.status.state.is_terminal(),
        StreamResponse::Message(_) => true,
        StreamResponse::ArtifactUpdate(_) => false,
    }
}

/// Whether a state waits for the caller.
pub(crate) fn is_waiting(state: &TaskState) -> bool {
    matches!(state, TaskState::InputRequired | TaskState::AuthRequired)
}

#[cfg(test)]
mod tests;
