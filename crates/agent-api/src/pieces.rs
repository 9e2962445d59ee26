//! A run from one point to where it ends or waits, as pieces in which every text comes once: models tell pieces of an
//! answer as they come, and the whole answer follows. Knows no protocol.

use crate::refusal::refused;
use futures::{StreamExt, stream::BoxStream};
use narthex_agent::{Agents, Delta, Interrupt, RunEvent, RunEventKind, RunStatus};
use narthex_base::chat::{Message, Role};
use narthex_http::ApiError;
use serde_json::Value;
use std::collections::VecDeque;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// It works.
    Working,
    /// A part of what the agent says.
    Text(String),
    /// A part of what it thinks.
    Thought(String),
    /// A whole message. Of the agent's, all text has come as [`Piece::Text`] before.
    Message(Message),
    /// A tool is called.
    Started { call: String, tool: String, arguments: Value },
    /// A tool says how far it is.
    Progress { call: String, done: f64, of: Option<f64>, word: Option<String> },
    /// An answer is waited for.
    Waiting(Interrupt),
    /// It ended.
    Ended { status: RunStatus, reason: Option<String>, output: Option<Value> },
}

/// Makes pieces of events.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// Of the message under way.
    said: String,
    thought: String,
}

impl Pieces {
    /// The pieces of one event.
    pub fn take(&mut self, kind: RunEventKind) -> Vec<Piece> {
        match kind {
            RunEventKind::Working => vec![Piece::Working],
            RunEventKind::Said { delta: Delta::Text(text) } => {
                self.said.push_str(&text);
                vec![Piece::Text(text)]
            }
            RunEventKind::Said { delta: Delta::Thought(text) } => {
                self.thought.push_str(&text);
                vec![Piece::Thought(text)]
            }
            RunEventKind::Message { message } => self.message(message),
            RunEventKind::ToolStarted { call, tool, arguments } => vec![Piece::Started { call, tool, arguments }],
            RunEventKind::ToolProgress { call, done, of, word } => vec![Piece::Progress { call, done, of, word }],
            RunEventKind::Waiting { interrupt } => vec![Piece::Waiting(interrupt)],
            RunEventKind::Ended { status, reason, output } => vec![Piece::Ended { status, reason, output }],
        }
    }

    fn message(&mut self, message: Message) -> Vec<Piece> {
        let mut pieces = vec![];
        if message.role == Role::Assistant {
            let thought = message.others.get("reasoning_content").and_then(Value::as_str).unwrap_or_default();
            pieces.extend(missing(&std::mem::take(&mut self.thought), thought).map(Piece::Thought));
            pieces.extend(missing(&std::mem::take(&mut self.said), &message.text()).map(Piece::Text));
        }
        pieces.push(Piece::Message(message));
        pieces
    }
}

/// What has not been said yet of the whole.
fn missing(said: &str, whole: &str) -> Option<String> {
    let rest = match whole.strip_prefix(said) {
        Some(rest) => rest.to_string(),
        // Whoever came in the middle heard the end only, and has the beginning from before.
        None if whole.ends_with(said) => String::new(),
        // The model began anew: what was said cannot be taken back.
        None => format!("\n\n{whole}"),
    };
    (!rest.is_empty() && !whole.is_empty()).then_some(rest)
}

/// A piece with the event that it is part of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// 0 for a piece of a message under way.
    pub number: u64,
    pub at_ms: u64,
    pub piece: Piece,
    /// Whether it is the last one of its event.
    pub last: bool,
}

/// A run from one point on to where it ends or waits.
pub(crate) struct Stretch {
    events: BoxStream<'static, Result<RunEvent, narthex_agent::AgentError>>,
    pieces: Pieces,
    ready: VecDeque<Told>,
    /// Events up to this number only, if it is set.
    until: Option<u64>,
    waits: bool,
    /// Whether going on after it has waited is part of it.
    through: bool,
    over: bool,
}

impl Stretch {
    /// What follows an event, as it comes.
    pub fn follow(agents: &dyn Agents, tenant: &str, run: &str, after: u64) -> Self {
        let events = agents.follow(tenant, run, after);
        let over = false;
        Self {
            events,
            pieces: Pieces::default(),
            ready: VecDeque::new(),
            until: None,
            waits: false,
            through: false,
            over,
        }
    }

    /// What has happened up to an event, without waiting for more.
    pub fn known(agents: &dyn Agents, tenant: &str, run: &str, after: u64, until: u64) -> Self {
        Self { until: Some(until), over: until <= after, ..Self::follow(agents, tenant, run, after) }
    }

    /// Takes what was answered before as part of it: all of the run, to where it ends or waits now.
    pub fn through_waiting(&mut self) {
        self.through = true;
    }

    /// The next piece; none where the run ends, or goes on after it has waited.
    ///
    /// # Errors
    /// What the agents say.
    pub async fn next(&mut self) -> Result<Option<Told>, ApiError> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(Some(told));
            }
            if self.over {
                return Ok(None);
            }
            let Some(event) = self.events.next().await else { return Ok(None) };
            let RunEvent { number, at_ms, kind } = event.map_err(refused)?;
            if self.waits && !self.through && kind == RunEventKind::Working {
                self.over = true;
                continue;
            }
            self.waits |= matches!(kind, RunEventKind::Waiting { .. });
            self.over |= matches!(kind, RunEventKind::Ended { .. });
            self.over |= self.until.is_some_and(|until| number >= until);
            let pieces = self.pieces.take(kind);
            let count = pieces.len();
            let told = |(index, piece)| Told { number, at_ms, piece, last: index + 1 == count };
            self.ready.extend(pieces.into_iter().enumerate().map(told));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> RunEventKind {
        RunEventKind::Said { delta: Delta::Text(text.into()) }
    }

    fn whole(text: &str) -> RunEventKind {
        RunEventKind::Message { message: Message::new(Role::Assistant, text) }
    }

    #[test]
    fn every_text_comes_once() {
        let check = |events: Vec<RunEventKind>, expected: &[&str]| {
            let mut pieces = Pieces::default();
            let texts: Vec<String> = events
                .into_iter()
                .flat_map(|event| pieces.take(event))
                .filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None })
                .collect();
            assert_eq!(texts, expected);
        };
        check(vec![whole("a b")], &["a b"]);
        check(vec![said("a "), said("b"), whole("a b")], &["a ", "b"]);
        check(vec![said("a "), whole("a b")], &["a ", "b"]);
        check(vec![said("b"), whole("a b")], &["b"]);
        check(vec![said("no"), whole("a b")], &["no", "\n\na b"]);
        check(vec![said("a"), whole("a"), said("b"), whole("b")], &["a", "b"]);
        check(vec![whole("")], &[]);
        check(vec![said("x"), whole("")], &["x"]);
        let message = Message::new(Role::User, "said by a person");
        check(vec![RunEventKind::Message { message }], &[]);
    }
}
