//! Models against transformers and PyTorch: one program for all families, since each would be built over all of Burn
//! anew.

mod adapters;
mod classifiers;
mod encoders;
mod families;
mod llama;
mod quantized;
