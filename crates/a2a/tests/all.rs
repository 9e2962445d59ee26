//! Both ends of the protocol: one program of tests, since each would be built over the SDK anew.

mod client;
mod push;
mod scripted;
mod server;
