//! Training as those use it who embed the crate: one program for all of it, since each would be built over all of Burn anew.

mod classify;
mod device;
mod families;
mod fit;
mod preferences;
mod pytorch;
mod world;
