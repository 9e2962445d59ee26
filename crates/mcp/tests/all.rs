//! Both ends of the protocol: one program of tests, since each would be built over all of rmcp anew.

mod both_ends;
mod requests;
mod strangers;
mod support;
