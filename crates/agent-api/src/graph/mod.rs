//! The Agent Protocol as LangGraph's clients speak it (`langgraph-sdk`, `RemoteGraph`): assistants, threads, runs.
//!
//! - An assistant is an agent. It is named by the agent's name or by a UUID made of it.
//! - A thread is a conversation: known by its runs, or by having been opened ([`crate::opened`]). Its state has
//!   `messages`, and `structured_response` where the agent's answer is data.
//! - A run's id is a UUID made of the run's name; the name itself is taken too. A run that waits and is resumed stays
//!   one run with one id.
//! - What waits for approval is one interrupt in the form of LangChain's human-in-the-loop middleware; what asks for
//!   data is an interrupt of its own, resumed by that data.
//! - A state is where a run ended or waits: no state within a run, none that is written from outside, and nothing is
//!   erased. What a client asks for beyond that is refused by name, not passed over.

pub(crate) mod assistants;
pub(crate) mod runs;
pub(crate) mod server;
pub(crate) mod threads;

mod find;
mod human;
mod messages;
mod modes;
mod request;
mod start;
mod state;
mod telling;
mod time;
