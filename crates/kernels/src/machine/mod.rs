//! What the processor offers: lanes, threads, memory, and what of them is used. Knows arrays; no tensors, no operators.

pub mod alloc;
pub mod memory;
pub(crate) mod parallel;
pub mod probe;
pub mod processor;
pub mod profile;
pub(crate) mod simd;
pub(crate) mod team;
