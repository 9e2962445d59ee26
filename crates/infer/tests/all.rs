//! The engine from outside: one program of tests, since each would be built over all of Burn anew.

mod adapters;
mod families;
