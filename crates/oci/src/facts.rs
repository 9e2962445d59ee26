//! What a model's files say of it: how many parameters, of which types, of which family. From the headers of
//! safetensors and from `config.json`; no tensor is read.

use narthex_base::{Error, Result};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
};

/// The longest header of safetensors, by the format's own rule.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The longest `config.json`.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Values in all tensors; of integers that hold several weights, one for each.
    pub parameters: u64,
    /// The types of its tensors of floating point, or of all if there are none, as ModelPack calls them (PyTorch's
    /// names).
    pub precision: BTreeSet<&'static str>,
    /// How its weights were quantized.
    pub quantization: Option<String>,
    /// `model_type` of its configuration.
    pub family: Option<String>,
    /// `safetensors` or `gguf`.
    pub format: Option<&'static str>,
}

impl Facts {
    /// Of the files of a folder.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn of(folder: &Path, files: &[String]) -> Result<Self> {
        let mut facts = Self::default();
        let mut others = BTreeSet::new();
        for path in files {
            if path.ends_with(".gguf") {
                facts.format = Some("gguf");
            }
            if path.ends_with(".safetensors") && !path.contains('/') {
                facts.format = Some("safetensors");
                facts.take_weights(&folder.join(path), &mut others)?;
            }
        }
        let config = config(&folder.join("config.json"));
        let text = |key: &str| config[key].as_str().map(str::to_string);
        facts.family = text("model_type");
        let quantization = &config["quantization_config"];
        let bits = quantization["bits"].as_u64().map(|bits| format!("int{bits}"));
        let method = quantization["quant_method"].as_str().or(quantization["format"].as_str()).map(str::to_string);
        facts.quantization = bits.or(method).or_else(|| quantization.is_object().then(|| "quantized".to_string()));
        if facts.precision.is_empty() {
            facts.precision = others;
        }
        if facts.precision.is_empty() {
            let named = text("torch_dtype").or_else(|| text("dtype"));
            facts.precision.insert(match named.as_deref() {
                Some("bfloat16") => "bfloat16",
                Some("float16") => "float16",
                _ => "float32",
            });
        }
        Ok(facts)
    }

    fn take_weights(&mut self, path: &Path, others: &mut BTreeSet<&'static str>) -> Result<()> {
        let wrong = |what: &str| Error::input(format!("these are no safetensors: {what}")).at(path.display(), None);
        let mut file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| wrong("the file ends within its first 8 bytes"))?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX {
            return Err(wrong("the header is longer than the format allows"));
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header).map_err(|error| Error::io("cannot read", path, error))?;
        let header: Value =
            serde_json::from_slice(&header).map_err(|error| wrong("the header is not JSON").cause(error))?;
        for (_, tensor) in header.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__") {
            let shape = tensor["shape"].as_array().into_iter().flatten();
            let values = shape.filter_map(Value::as_u64).fold(1_u64, u64::saturating_mul);
            self.parameters = self.parameters.saturating_add(values);
            let (name, is_float) = match tensor["dtype"].as_str().unwrap_or_default() {
                "F64" => ("float64", true),
                "F32" => ("float32", true),
                "F16" => ("float16", true),
                "BF16" => ("bfloat16", true),
                "F8_E4M3" => ("float8_e4m3", true),
                "F8_E5M2" => ("float8_e5m2", true),
                "I64" => ("int64", false),
                "I32" | "U32" => ("int32", false),
                "I16" | "U16" => ("int16", false),
                "I8" => ("int8", false),
                "U8" => ("uint8", false),
                "BOOL" => ("bool", false),
                _ => continue,
            };
            if is_float {
                self.precision.insert(name)
            } else {
                others.insert(name)
            };
        }
        Ok(())
    }

    /// As ModelPack writes a count: `113.0K`, `10.8M`, `7.2B`.
    pub fn size(&self) -> String {
        let count = self.parameters as f64;
        for (unit, name) in [(1e12, "T"), (1e9, "B"), (1e6, "M")] {
            // Nothing is written as 1000.0 of a smaller unit.
            if count >= unit * 0.999_95 {
                return format!("{:.1}{name}", count / unit);
            }
        }
        format!("{:.1}K", count / 1e3)
    }
}

/// A configuration; null where there is none that can be read.
fn config(path: &Path) -> Value {
    if !fs::metadata(path).is_ok_and(|meta| meta.len() <= CONFIG_BYTES_MAX) {
        return Value::Null;
    }
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_headers_and_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[1000,10],"data_offsets":[0,20000]},"b":{"dtype":"I32","shape":[500],"data_offsets":[0,0]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        let config = r#"{"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4}}"#;
        fs::write(folder.path().join("config.json"), config).unwrap();
        let files = ["config.json".to_string(), "model.safetensors".to_string()];
        let facts = Facts::of(folder.path(), &files).unwrap();
        assert_eq!((facts.parameters, facts.size().as_str()), (10_500, "10.5K"));
        assert_eq!(facts.precision, BTreeSet::from(["bfloat16"]));
        assert_eq!((facts.quantization.as_deref(), facts.family.as_deref()), (Some("int4"), Some("llama")));
        fs::write(folder.path().join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
        assert!(Facts::of(folder.path(), &files).is_err());
    }

    #[test]
    fn sizes() {
        for (parameters, expected) in
            [(0, "0.0K"), (113_000, "113.0K"), (999_960, "1.0M"), (10_800_000, "10.8M"), (7_240_000_000, "7.2B")]
        {
            assert_eq!(Facts { parameters, ..Facts::default() }.size(), expected);
        }
    }
}
