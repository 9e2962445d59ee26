//! The binary as its users run it: one program of tests, so that it is linked once.

mod agents;
mod classifiers;
mod cli;
mod doors;
mod encoders;
mod formats;
mod hub;
mod knowledge;
mod mcp;
mod openness;
mod ours;
mod output;
mod preferences;
mod program;
mod quantized;
mod ranks;
mod registries;
mod serve_only;
