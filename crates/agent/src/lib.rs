//! Agents: a loop whose state is data, over models and tools that others bring.
//!
//! This crate knows no HTTP, no protocol and no model: a [`Model`] answers, a [`Tool`] acts, a [`Store`] keeps every
//! step before it is taken. Who serves agents to others asks [`Agents`], which a [`Runner`] is.
//!
//! What happens to a run is [`Event`]s; one pure function, [`step`], says what an event makes of a [`State`] and what
//! is to be done then. All else carries out what it says, and keeps the event that says so first. A run whose process
//! dies is taken up by whoever opens the store next: what only reads is done again, and of anything else that was begun
//! a person is asked.

mod agents;
mod builtin;
mod canonical;
mod clock;
mod decide;
mod definition;
pub mod eval;
mod event;
mod judge;
mod kit;
mod load;
mod looks_up;
mod model;
mod openai;
mod policy;
mod recorded;
mod redact;
mod result;
mod runner;
mod schema;
pub mod scripted;
mod spans;
mod state;
mod step;
mod store;
#[cfg(test)]
mod tests;
mod tool;
mod window;

pub use agents::{
    AgentError, AgentView, Agents, Answer, Ask, Interrupt, Page, RunEvent, RunEventKind, RunFilter, RunStatus, RunView,
};
pub use builtin::{AGENT_PREFIX, LOOK_BACK, RECALL, REMEMBER};
pub use clock::{Clock, SetClock, SystemClock, new_id};
pub use decide::decide;
pub use definition::{AgentDefinition, Context, Limits, Output, Price, Retry, Sampling};
pub use event::{Checked, Created, Decision, Edit, Event, JudgedCall, Parent, Purpose, Stamped, Verdict};
pub use kit::Kit;
pub use load::{THREAD_RUNS_MAX, earlier, load};
pub use looks_up::RETRIEVE;
pub use model::{Delta, Ended, Model, ModelAnswer, ModelFailure, ModelRequest, Wish};
pub use openai::{OpenAiModel, Reply, Transport};
pub use policy::{Pattern, Policy, PolicyRules, RegexPattern, Rule, Then};
pub use recorded::{Recorder, Replayed};
pub use redact::{Masker, Redact};
pub use result::RESULT_BYTES_MAX;
pub use runner::{NewId, Runner, Still, Surroundings};
pub use schema::Schema;
pub use spans::{RunLog, SERVICE, Span, SpanEvent, SpanKind, otlp, spans};
pub use state::{Approval, Asking, CallState, Earlier, Form, Outcome, Phase, State, Summary, Used};
pub use step::{Action, Step, TODO, due, fold, step};
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
pub use store::{
    Append, Creation, Durability, EVENTS_MAX, Lease, Memory, NewRun, Row, SqliteStore, Standing, Store, StoreError,
    Wait, open_store,
};
pub use tool::{Call, Content, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult};
