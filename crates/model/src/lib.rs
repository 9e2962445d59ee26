//! Model architectures on Burn: one decoder, and one file for what each family makes of it, with Hugging Face names and
//! configs. Knows weights and configs; knows no text, no documents and no schedule.
//!
//! One definition serves training and inference: what differs is the [`AttentionContext`] that is passed in, and that
//! weights may be packed.

mod adapter;
pub mod arch;
mod attention;
mod block;
mod block_matrix;
pub mod calibrate;
mod calibration;
mod classifier;
mod config;
mod config_json;
mod decoder;
mod device;
mod dropout;
pub mod encoder;
mod encoder_model;
mod experts;
mod feed_forward;
pub mod integer_folder;
mod layers;
mod lora;
mod maker;
mod mapped;
mod one_of;
mod parameters;
mod peft;
mod positions;
pub mod quantize;
mod site;
mod tensor_file;
mod unsupported;
mod weight;
mod weight_map;
mod weights;

pub use adapter::Adapter;
pub use attention::{AttentionContext, CausalContext, Heads, Layer};
pub use block_matrix::BlockMatrix;
pub use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor},
};
pub use classifier::Classifier;
pub use config::{Design, Experts, LayerKind, ModelConfig, NormKind, Placement, QkNorm};
pub use decoder::{Decoder, load_adapter, save_adapter};
pub use device::{cpu, device};
pub use dropout::Dropout;
pub use encoder::EncoderInput;
pub use encoder_model::{EncoderModel, EncoderTask, ScoreActivation};
pub use layers::{Embedding, Linear, Norm, NormRule};
pub use lora::LoraSpec;
pub use narthex_kernels::{BlockKind, ForceIsaError, Isa, Precision, Quantization, WeightValues, force_isa, isa};
pub use parameters::{
    NamedTensor, NewValue, Replacement, for_training, map_parameters, named_parameters, named_parameters_of,
    put_parameters, shapes, take_parameters,
};
pub use peft::{AdapterConfig, PeftAdapter};
pub use positions::{PositionCache, Positions, Rope, RopeScaling};
pub use tensor_file::TensorFile;
pub use weight::{PackedRows, Weight};
pub use weights::{StoredWeights, TensorMap, WeightSource, read_safetensors, write_safetensors};
