//! Model architectures on Burn: one decoder, and one file for what each family makes of it, with Hugging Face names and configs. Knows weights
//! and configs; knows no text, no documents and no schedule.
//!
//! One definition serves training and inference: what differs is the [`AttentionContext`] that is
//! passed in.

mod adapter;
pub mod arch;
mod attention;
mod block;
pub mod calibrate;
mod config;
mod decoder;
mod device;
mod dropout;
pub mod encoder;
mod experts;
mod layers;
mod lora;
mod parameters;
mod peft;
mod positions;
pub mod quantize;
pub mod quantized;
mod weight_map;
mod weights;

pub use adapter::Adapter;
pub use attention::{AttentionContext, CausalContext, Heads, Layer};
pub use burn::tensor::{Bool, Device, Int, Tensor};
pub use config::{Design, Experts, LayerKind, ModelConfig, NormKind, Placement, QkNorm};
pub use decoder::Decoder;
pub use device::{cpu, device};
pub use dropout::Dropout;
pub use encoder::{EncoderInput, EncoderModel, EncoderTask};
pub use layers::Linear;
pub use lora::LoraSpec;
pub use narthex_kernels::{ForceIsaError, Isa, Precision, Quantization, force_isa, isa};
pub use parameters::{NamedTensor, Replacement, map_parameters, named_parameters};
pub use peft::{AdapterConfig, PeftAdapter, load_adapter, save_adapter};
pub use positions::{PositionCache, Positions, Rope, RopeScaling};
pub use weights::{StoredWeights, TensorMap, WeightSource, read_safetensors, write_safetensors};
