//! The router before servers of all kinds: one program of tests, so that it is linked once.

mod failures;
#[allow(dead_code, reason = "each of the tests uses a part of it")]
mod fake;
mod front;
mod prompts;
