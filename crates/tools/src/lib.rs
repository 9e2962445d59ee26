//! What an agent can call: a command in a sandbox, the operations of an OpenAPI file, the files of one folder,
//! passages of knowledge, tables, pages of the web. Each kind is a file with its settings and a constructor; reaching
//! out to others is [`outside`] alone. A model behind somebody's API is reached the same way.
//!
//! This crate knows no model and no policy: whoever runs agents judges a call before it comes here.

mod bounds;
mod described;
pub mod endpoint;
pub mod fetch;
pub mod files;
pub mod openapi;
pub mod outside;
pub mod pinned;
pub mod retrieve;
pub mod settings;
pub mod shell;
pub mod sql;

#[cfg(test)]
mod listener;
