//! From a folder to where it is deployed, and from the Hugging Face Hub to a folder. Knows files and their papers; computes
//! nothing.

pub mod hub;
mod oci;

pub use oci::{OciTarget, Pushed, push};
