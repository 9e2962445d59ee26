//! Our own routes: agents, runs, what a run does, and answers to what it waits for.

pub(crate) mod feed;
pub(crate) mod routes;

mod shown;
