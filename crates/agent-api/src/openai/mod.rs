//! OpenAI's API over agents: the name of an agent stands where a model's does.

pub(crate) mod chat;
pub(crate) mod models;
pub(crate) mod responses;

mod chat_request;
mod ending;
