//! Agents over A2A 1.0 (<https://a2a-protocol.org>): ours offered to others, and others' called as tools.
//!
//! The server maps tasks to runs: a message begins a run or answers what one waits for, and what a run does becomes
//! updates of a task. It knows agents only by [`Agents`], and keeps in a small [`Store`] what runs do not hold. The
//! protocol's types and bindings are the official crates'; nothing outside this crate sees them. It listens on no port
//! and authenticates nobody: a layer around the [`router`] does, and says who asks with a
//! [`Caller`](narthex_base::Caller).
//!
//! The module `screen` knows nothing of A2A: it keeps whatever asks a URL of somebody else's away from this machine and
//! the networks behind it.
//!
//! [`Agents`]: narthex_agent::Agents

mod card;
mod client;
mod client_options;
mod follow;
mod front;
mod handler;
mod incoming;
mod listing;
mod options;
mod push;
mod remote_tool;
mod router;
pub mod screen;
#[cfg(test)]
#[path = "../tests/scripted/mod.rs"]
mod scripted;
mod settings;
mod signature;
mod store;
mod task;
mod updates;
mod wire;

pub use client::{RemoteAgent, connect};
pub use client_options::ClientOptions;
pub use options::{A2aLimits, A2aOptions, Clock, PushLimits, Warn};
pub use router::router;
pub use screen::Screen;
pub use settings::RemoteSettings;
pub use signature::{CardKey, CardSigner};
pub use store::Store;
