//! Low-rank adapters (Hu et al., "LoRA", 2021), read and written in PEFT's format.

use crate::{
    Decoder, Dropout, TensorMap,
    layers::Linear,
    parameters::named_parameters,
    weights::{read_safetensors, write_safetensors},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use narthex_base::{Error, Result, random::Stream};
use narthex_kernels::{Precision, linear};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The two matrices of an adapter: the update of the weight is `scale * b a`.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[rank, in]`
    pub lora_a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub lora_b: Param<Tensor<2>>,
    /// alpha / rank
    pub scale: f64,
    /// Dropout before `a`.
    pub dropout: f64,
}

/// What adapters to add.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// Rank.
    pub rank: usize,
    /// The update is scaled by alpha / rank.
    pub alpha: f64,
    /// Projections by the last part of their name.
    pub targets: Vec<String>,
    /// Dropout before the first matrix.
    pub dropout: f64,
}

impl Lora {
    /// As PEFT starts: `a` uniform in ±1/sqrt(in), `b` zero. Drawn by counter from (seed, name).
    pub(crate) fn random(spec: &LoraSpec, seed: u64, name: &str, [d_out, d_in]: [usize; 2], device: &Device) -> Self {
        let stream = Stream::new(seed, &format!("{name}.lora_A"));
        let bound = 1.0 / (d_in as f32).sqrt();
        let values: Vec<f32> =
            (0..(spec.rank * d_in) as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect();
        Self {
            lora_a: Param::from_tensor(Tensor::from_data(TensorData::new(values, [spec.rank, d_in]), device)),
            lora_b: Param::from_tensor(Tensor::zeros([d_out, spec.rank], device)),
            scale: spec.alpha / spec.rank as f64,
            dropout: spec.dropout,
        }
    }

    /// `[N, in]` -> `[N, out]`
    pub(crate) fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        let x = dropout.apply_with(x, self.dropout);
        let x = linear(x, &[self.lora_a.val()], None, None, precision);
        linear(x, &[self.lora_b.val()], None, None, precision) * self.scale
    }

    /// `[out, in]`: what the adapter adds to the weight.
    pub(crate) fn update(&self) -> Tensor<2> {
        self.lora_b.val().matmul(self.lora_a.val()) * self.scale
    }
}

impl Linear {
    /// Adds the adapter into the weight and drops it.
    pub(crate) fn merge(&mut self) {
        if let Some(lora) = self.lora.take() {
            self.weight = Param::from_tensor(self.weight.val() + lora.update());
        }
    }
}

/// PEFT's `adapter_config.json`, the part that matters here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Always `LORA`.
    pub peft_type: String,
    /// Always `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// The model it was trained on.
    pub base_model_name_or_path: Option<String>,
    /// Rank.
    pub r: usize,
    /// Alpha.
    pub lora_alpha: f64,
    /// Dropout.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Projections.
    pub target_modules: Vec<String>,
    /// Always `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Ready for use.
    #[serde(default)]
    pub inference_mode: bool,
}

fn none() -> String {
    "none".into()
}

const PREFIX: &str = "base_model.model.";

/// Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does.
///
/// # Errors
/// If a file cannot be written.
pub fn save_adapter(model: &Decoder, spec: &LoraSpec, base_name: &str, folder: &Path) -> Result<()> {
    let mut tensors = TensorMap::new();
    for tensor in named_parameters(model) {
        let peft = tensor.name.replace(".lora.lora_a", ".lora_A.weight").replace(".lora.lora_b", ".lora_B.weight");
        if peft != tensor.name {
            tensors.insert(format!("{PREFIX}{peft}"), (tensor.shape, tensor.values));
        }
    }
    write_safetensors(&folder.join("adapter_model.safetensors"), &tensors)?;
    let config = AdapterConfig {
        peft_type: "LORA".into(),
        task_type: Some("CAUSAL_LM".into()),
        base_model_name_or_path: Some(base_name.into()),
        r: spec.rank,
        lora_alpha: spec.alpha,
        lora_dropout: spec.dropout,
        target_modules: spec.targets.clone(),
        bias: none(),
        inference_mode: true,
    };
    let path = folder.join("adapter_config.json");
    let text = serde_json::to_string_pretty(&config).expect("our own types serialize");
    std::fs::write(&path, text).map_err(|error| Error::io("cannot write", &path, error))
}

/// Reads a PEFT adapter onto a model.
///
/// # Errors
/// If files are missing or broken, or the adapter does not fit the model.
pub fn load_adapter(model: Decoder, folder: &Path) -> Result<Decoder> {
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let config: AdapterConfig = serde_json::from_str(&text)
        .map_err(|error| Error::input("not a PEFT LoRA config").at(path.display(), error.line()).cause(error))?;
    if config.peft_type != "LORA" || config.bias != "none" {
        return Err(Error::input(format!(
            "an adapter of type {} with bias {} is not supported",
            config.peft_type, config.bias
        ))
        .at(path.display(), None)
        .help("supported: LORA with bias none"));
    }
    let spec = LoraSpec {
        rank: config.r,
        alpha: config.lora_alpha,
        targets: config.target_modules,
        dropout: config.lora_dropout,
    };
    let path = folder.join("adapter_model.safetensors");
    let tensors = read_safetensors(&path)?;
    let renamed = tensors.into_iter().map(|(name, value)| {
        let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_string();
        (name.replace(".lora_A.weight", ".lora.lora_a").replace(".lora_B.weight", ".lora.lora_b"), value)
    });
    let model = model.with_lora(&spec, 0);
    let mut weights: TensorMap = renamed.collect();
    for tensor in named_parameters(&model) {
        if !tensor.name.contains(".lora.") {
            weights.insert(tensor.name, (tensor.shape, tensor.values));
        }
    }
    model.load(weights).map_err(|error| error.at(path.display(), None))
}
