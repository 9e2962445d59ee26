//! What the whole server does, beyond its endpoints.

mod access_log;
mod connections;
mod traces;
