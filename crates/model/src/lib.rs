//! Model architectures on Burn: one file each, with Hugging Face names and configs. Knows weights
//! and configs; knows no text, no documents and no schedule.
//!
//! One definition serves training and inference: what differs is the [`AttentionContext`] that is
//! passed in.

pub mod arch;
mod attention;
mod config;
mod device;
mod dropout;
pub mod encoder;
mod layers;
mod lora;
mod parameters;
mod weights;

pub use arch::Decoder;
pub use attention::{AttentionContext, CausalContext, Heads};
pub use burn::tensor::{Bool, Device, Int, Tensor};
pub use config::ModelConfig;
pub use device::{cpu, device};
pub use dropout::Dropout;
pub use encoder::{EncoderInput, EncoderModel, EncoderTask};
pub use layers::{Linear, Rotary, RotaryCache};
pub use lora::{AdapterConfig, LoraSpec, load_adapter, save_adapter};
pub use narthex_kernels::{ForceIsaError, Isa, Precision, force_isa, isa};
pub use parameters::{NamedTensor, Replacement, map_parameters, named_parameters};
pub use weights::{StoredWeights, TensorMap, WeightSource, read_safetensors, write_safetensors};
