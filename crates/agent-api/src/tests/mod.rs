//! The routes over scripted agents: requests in, answers out.

mod agent_protocol;
mod chat;
mod page;
mod responses;
mod runs;
