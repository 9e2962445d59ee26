//! The adapters that a decoder trains as a PEFT folder, and such a folder read onto a decoder.

use super::Decoder;
use crate::{
    layers::Linear,
    lora::{LoraSpec, sizes},
    mapped::rows_in_theirs,
    peft::{PREFIX, PeftAdapter},
    site::all_projection_shapes,
    weights::{TensorMap, write_safetensors},
};
use burn::tensor::Tensor;
use narthex_base::{Error, Result};
use std::{collections::BTreeMap, path::Path};

/// A projection of the decoder and the adapter that it trains; of rank 0 if it has none.
#[derive(Clone, Debug)]
struct AdapterPart {
    outputs: usize,
    rank: usize,
    /// `[rank, in]`
    a: Vec<f32>,
    /// `[out, rank]`
    b: Vec<f32>,
    /// `[out]`
    magnitude: Option<Vec<f32>>,
}

impl Decoder {
    /// Every projection that can carry an adapter, with the one that it trains.
    fn adapter_parts(&self) -> BTreeMap<String, AdapterPart> {
        let values = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().expect("parameters are f32");
        let part = |(name, linear): (String, &mut Linear)| {
            let mut part =
                AdapterPart { outputs: linear.weight.shape()[0], rank: 0, a: vec![], b: vec![], magnitude: None };
            if let Some(lora) = &linear.lora {
                part.rank = lora.lora_a.dims()[0];
                (part.a, part.b) = (values(lora.lora_a.val()), values(lora.lora_b.val()));
                part.magnitude = lora.magnitude.as_ref().map(|sizes| values(sizes.val().unsqueeze()));
            }
            (name, part)
        };
        self.clone().projections().map(part).collect()
    }

    /// The Euclidean size of each output's weights of a projection; empty if there is none of this name.
    fn sizes(&self, module: &str) -> Vec<f32> {
        let found =
            self.clone().projections().find(|(name, _)| name == module).map(|(_, linear)| linear.weight.numbers());
        let found = found.map(|weight| sizes(weight).into_data().try_to_vec::<f32>().expect("weights are f32"));
        found.unwrap_or_default()
    }
}

/// An adapter of one module of the base's checkpoints, put together from those of the projections that lie in it.
struct Joined {
    rank: usize,
    /// `[rank, in]`
    a: Vec<f32>,
    /// `[out, rank]`
    b: Vec<f32>,
    /// `[out]`
    magnitude: Option<Vec<f32>>,
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does. Projections that lie in one matrix of the
/// base's checkpoints become one adapter of the sum of their ranks, in which each has its own rows.
///
/// # Errors
/// If a file cannot be written.
pub fn save_adapter(model: &Decoder, spec: &LoraSpec, base_name: &str, folder: &Path) -> Result<()> {
    // In the decoder's order, in which those of one matrix follow each other.
    let mut of_theirs: Vec<(String, Vec<String>)> = vec![];
    for (module, [outputs, _]) in all_projection_shapes(model.config()) {
        let (theirs, ..) = rows_in_theirs(model.config(), &module, outputs);
        match of_theirs.last_mut().filter(|(name, _)| *name == theirs) {
            Some((_, modules)) => modules.push(module),
            None => of_theirs.push((theirs, vec![module])),
        }
    }
    let parts = model.adapter_parts();
    let mut tensors = TensorMap::new();
    let (mut targets, mut ranks, mut alphas) = (vec![], serde_json::Map::new(), serde_json::Map::new());
    for (theirs, modules) in of_theirs {
        let Some(joined) = joined(model, &parts, &modules) else { continue };
        let target = theirs.rsplit('.').next().unwrap_or_default().to_string();
        if joined.rank != spec.rank {
            let more = joined.rank as f64 / spec.rank as f64;
            let alpha = spec.alpha * if spec.rank_stabilized { more.sqrt() } else { more };
            ranks.insert(target.clone(), joined.rank.into());
            alphas.insert(target.clone(), alpha.into());
        }
        if !targets.contains(&target) {
            targets.push(target);
        }
        let Joined { rank, a, b, magnitude } = joined;
        let key = |part: &str| format!("{PREFIX}{theirs}.{part}");
        let shapes = (vec![rank, a.len() / rank], vec![b.len() / rank, rank]);
        tensors.insert(key("lora_A.weight"), (shapes.0, a));
        tensors.insert(key("lora_B.weight"), (shapes.1, b));
        if let Some(sizes) = magnitude {
            tensors.insert(key("lora_magnitude_vector"), (vec![sizes.len()], sizes));
        }
    }
    write_safetensors(&folder.join("adapter_model.safetensors"), &tensors)?;
    let mut config = serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": targets,
        "bias": "none",
        "inference_mode": true,
    });
    let turned = model.config().design.family.weights.transposed;
    let switches = [("use_rslora", spec.rank_stabilized), ("use_dora", spec.decomposed), ("fan_in_fan_out", turned)];
    for (key, _) in switches.into_iter().filter(|(_, on)| *on) {
        config[key] = true.into();
    }
    if !ranks.is_empty() {
        config["rank_pattern"] = ranks.into();
        config["alpha_pattern"] = alphas.into();
    }
    let path = folder.join("adapter_config.json");
    let text = serde_json::to_string_pretty(&config).expect("JSON serializes");
    std::fs::write(&path, text).map_err(|error| Error::io("cannot write", &path, error))
}

/// The adapters of projections that lie in one matrix, as one; none if none has any.
fn joined(model: &Decoder, parts: &BTreeMap<String, AdapterPart>, modules: &[String]) -> Option<Joined> {
    let adapted: Vec<&AdapterPart> =
        modules.iter().filter_map(|module| parts.get(module)).filter(|part| part.rank > 0).collect();
    let rank: usize = adapted.iter().map(|part| part.rank).sum();
    let decomposed = adapted.first()?.magnitude.is_some();
    let mut joined = Joined { rank, a: vec![], b: vec![], magnitude: None };
    let mut first = 0;
    for module in modules {
        let part = &parts[module];
        let (_, whole, rows) = rows_in_theirs(model.config(), module, part.outputs);
        joined.b.resize(whole * rank, 0.0);
        for (row, values) in rows.iter().zip(part.b.chunks_exact(part.rank.max(1))) {
            joined.b[row * rank + first..][..part.rank].copy_from_slice(values);
        }
        joined.a.extend(&part.a);
        first += part.rank;
        if decomposed {
            // Those without an adapter keep the size that they have.
            let sizes = part.magnitude.clone().unwrap_or_else(|| model.sizes(module));
            let all = joined.magnitude.get_or_insert_with(|| vec![0.0; whole]);
            rows.iter().zip(sizes).for_each(|(row, size)| all[*row] = size);
        }
    }
    Some(joined)
}

/// Reads a PEFT adapter onto a model, to go on training it or to merge it.
///
/// # Errors
/// If files are missing or broken, or the adapter does not fit the model.
pub fn load_adapter(model: Decoder, folder: &Path) -> Result<Decoder> {
    let adapter = PeftAdapter::read(folder, model.config())?;
    Ok(model.with_adapter(&adapter))
}
