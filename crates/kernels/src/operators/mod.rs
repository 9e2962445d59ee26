//! Operators of networks, forward and backward, a file for each. Each knows its own mathematics; no models.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod gated;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod muon;
pub(crate) mod ragged;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod softmax;
