//! The Model Context Protocol, both ends: tools, agents, resources and prompts offered to whoever speaks it, and the
//! tools of others' servers as tools of ours. Revisions 2026-07-28 and 2025-11-25.
//!
//! It knows tools and agents by their seams and the wire by the protocol's SDK, which is linked here and nowhere else.
//! It knows no model, no store and no project file.

mod changes;
mod client;
mod convert;
mod cut;
mod limits;
mod offer;
mod schema;
mod server;
mod settings;

pub use changes::{Change, Changes};
pub use client::{
    ClientOptions, Consent, Credentials, McpServer, MemoryTokens, NoQuestions, OAuth, PromptMessages, Questions, Reach,
    Revision, ServerSpec, TokenStore, client_builder, connect,
};
pub use limits::{ClientLimits, ServerLimits};
pub use offer::{
    Ability, Answered, Dialogue, Level, Line, Listed, Offer, PromptAsk, PromptReply, PromptView, Prompts, Question,
    Refusal, Reply, ResourceView, Resources, Turn,
};
pub use server::{
    Access, Audience, BadToken, Bearer, Clock, LOCAL_TENANT, ServerOptions, StaticKeys, Tokens, router, serve_pipe,
    serve_stdio,
};
pub use settings::McpSettings;
