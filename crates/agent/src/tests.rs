//! The loop as a whole, with scripted models and tools that count: what it does, what survives a crash, and what nobody
//! gets to do.

mod approvals;
mod crash;
mod evals;
mod limits;
mod redaction;
mod runs;
mod steps;
mod stores;
mod tenants;
mod traces;
mod world;
