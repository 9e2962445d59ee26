//! GGUF, the file format of llama.cpp (versions 2 and 3 of the specification in ggml's docs/gguf.md), and the way
//! between it and a folder in Hugging Face layout.

mod architecture;
mod export;
mod file;
mod import;
mod quant;
mod tokenizer;
mod vocabulary;
mod weights;
mod wordpiece;
mod write;

pub use architecture::supported;
pub use export::{About, Stored, from_hugging_face};
pub use file::{File, Numbers, Tensor, Value};
pub use import::{BaseModel, Imported, to_hugging_face};
pub use quant::{TensorType, dequantize};
pub use weights::Weights;
