//! From a folder to where it is deployed. Knows files and their papers; computes nothing.

mod oci;

pub use oci::{OciTarget, Pushed, push};
