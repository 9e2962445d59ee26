//! Agents over HTTP, for programs that exist already and for people: OpenAI's chat and responses, the Agent Protocol as
//! LangGraph's clients speak it, our own runs and approvals, and a page.
//!
//! It knows HTTP and other people's forms. It knows no model, no tool and no store: whoever has agents hands them in as
//! [`Agents`](narthex_agent::Agents), and every request is made for the tenant that an outer layer names with
//! [`Caller`](narthex_base::Caller).
//!
//! # What holds for all of it
//! - A run outlives the request that began it: a client that goes away stops nothing, unless it asked for that
//!   (`on_disconnect: "cancel"` of the Agent Protocol).
//! - Instructions are the agent's own. What a client sends as `system` or `developer` is said as the user, because
//!   agents take no other word from a caller.
//! - Figures that a run does not tell (tokens used) are left out, not made up.

mod app;
mod graph;
mod key;
mod notes;
mod openai;
mod opened;
mod options;
mod page;
mod params;
mod pending;
mod pieces;
mod refusal;
mod router;
mod runs;
mod said;
mod sse;
mod uuid;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use options::ApiOptions;
pub use router::{needs_key, router};
