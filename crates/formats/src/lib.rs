//! Model files of other ecosystems, turned into a folder in Hugging Face layout and back: GGUF, and what `torch.save`
//! writes. Knows bytes, shapes and names; computes nothing with a model, and runs nothing that a file brings along.
//!
//! Every length, count, offset and nesting in a file is held against a named limit and the file's size before anything
//! is allocated for it. What is wrong is said with the file, the field and the byte.

mod bytes;
pub mod folder;
pub mod gguf;
pub mod pickle;
mod weights;

pub use weights::Element;
