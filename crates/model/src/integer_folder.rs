//! Folders in Hugging Face layout whose matrices are integers: read from what GPTQ, AWQ and compressed-tensors write,
//! and written as compressed-tensors. Knows configs, tensors and files; what a matrix is for it tells by its name only.

use crate::{
    calibration::Calibration,
    config::ModelConfig,
    quantize::{Int4Matrix, Int8Matrix, QuantizedMatrix},
    weights::{RawTensor, StoredWeights, WeightSource, mismatch},
};
use half::{bf16, f16};
use narthex_base::{Error, Result};
use narthex_kernels::{Precision, Quantization, WeightValues};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    path::Path,
};

/// How a folder holds its matrices, by `quantization_config` of its config.json.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// `qweight`, `qzeros`, `scales`, `g_idx`, four bits.
    Gptq {
        /// Inputs of a group; none for a whole row.
        group: Option<usize>,
        /// Whether zeros are stored as they are (version 2) and not 1 too small.
        zeros_are_whole: bool,
    },
    /// `qweight`, `qzeros`, `scales`, four bits, in the layout "GEMM".
    Awq {
        /// As above.
        group: Option<usize>,
    },
    /// compressed-tensors "pack-quantized" of four bits: `weight_packed`, `weight_scale`, `weight_zero_point`.
    Packed {
        /// As above.
        group: Option<usize>,
    },
    /// compressed-tensors "int-quantized" of eight bits: `weight` in int8, `weight_scale`.
    Int8,
}

fn unsupported(key: &str, value: &Value, supported: &str) -> Error {
    Error::input(format!("config.json asks for `quantization_config.{key}` = {value}, which is not supported"))
        .help(format!("supported: {supported}"))
}

impl Scheme {
    /// What a config.json says; none if the model is not quantized.
    ///
    /// # Errors
    /// If it is quantized in a way that is not supported; it is named.
    pub fn of_config(config: &Value) -> Result<Option<Self>> {
        let quantization = &config["quantization_config"];
        if quantization.is_null() {
            return Ok(None);
        }
        let bits_must_be_4 = |value: &Value, key: &str| match value.as_u64() {
            Some(4) => Ok(()),
            _ => Err(unsupported(key, value, "4")),
        };
        let group = |value: &Value| value.as_i64().filter(|group| *group > 0).map(|group| group as usize);
        let scheme = match quantization["quant_method"].as_str() {
            Some("gptq") => {
                bits_must_be_4(&quantization["bits"], "bits")?;
                let format = &quantization["checkpoint_format"];
                let zeros_are_whole = match format.as_str().unwrap_or("gptq") {
                    "gptq" => false,
                    "gptq_v2" => true,
                    _ => return Err(unsupported("checkpoint_format", format, "gptq, gptq_v2")),
                };
                Scheme::Gptq { group: group(&quantization["group_size"]), zeros_are_whole }
            }
            Some("awq") => {
                bits_must_be_4(&quantization["bits"], "bits")?;
                let version = &quantization["version"];
                if !version.as_str().unwrap_or("gemm").eq_ignore_ascii_case("gemm") {
                    return Err(unsupported("version", version, "gemm"));
                }
                Scheme::Awq { group: group(&quantization["group_size"]) }
            }
            Some("compressed-tensors") => Self::of_compressed(quantization)?,
            _ => {
                return Err(unsupported(
                    "quant_method",
                    &quantization["quant_method"],
                    "gptq, awq, compressed-tensors",
                ));
            }
        };
        Ok(Some(scheme))
    }

    fn of_compressed(quantization: &Value) -> Result<Self> {
        let groups = quantization["config_groups"].as_object();
        let Some(first) = groups.filter(|groups| groups.len() == 1).and_then(|groups| groups.values().next()) else {
            return Err(unsupported("config_groups", &quantization["config_groups"], "one group for all layers"));
        };
        let weights = &first["weights"];
        if weights["type"].as_str() != Some("int") {
            return Err(unsupported("config_groups.*.weights.type", &weights["type"], "int"));
        }
        let strategy = weights["strategy"].as_str().unwrap_or("");
        let (bits, format) = (weights["num_bits"].as_u64(), quantization["format"].as_str().unwrap_or(""));
        match (bits, format, strategy) {
            (Some(4), "pack-quantized", "group" | "channel") => {
                Ok(Scheme::Packed { group: weights["group_size"].as_u64().map(|group| group as usize) })
            }
            (Some(8), "int-quantized" | "naive-quantized", "channel") => Ok(Scheme::Int8),
            _ => Err(Error::input(format!(
                "config.json asks for weights of {} bits by {strategy} in the format `{format}`, which is not supported",
                weights["num_bits"]
            ))
            .help("supported: 4 bits by group or channel, pack-quantized; 8 bits by channel, int-quantized")),
        }
    }
}

/// How the model of a folder holds its matrices; none if they are numbers.
///
/// # Errors
/// If config.json cannot be read, or names a way that is not supported.
pub fn scheme_of(folder: &Path) -> Result<Option<Scheme>> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let config: Value = narthex_base::text_file::json_of(bytes, &path)?;
    Scheme::of_config(&config).map_err(|error| error.at(path.display(), None))
}

/// The `quantization_config` of a folder that is written here.
pub fn config_of(kind: Quantization, ignored: &[String]) -> Value {
    let (format, bits) = match kind {
        Quantization::Int8 => ("int-quantized", 8),
        Quantization::Int4 { .. } => ("pack-quantized", 4),
    };
    let weights = |group: Option<usize>| {
        json!({
            "num_bits": bits,
            "type": "int",
            "symmetric": true,
            "strategy": if group.is_some() { "group" } else { "channel" },
            "group_size": group,
            "dynamic": false,
        })
    };
    let (weights, activations) = match kind {
        // Inputs are rounded as they come.
        Quantization::Int8 => (
            weights(None),
            json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true}),
        ),
        Quantization::Int4 { group } => (weights(Some(group)), Value::Null),
    };
    json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "ignore": ignored,
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "format": format,
            "weights": weights,
            "input_activations": activations,
            "output_activations": null,
        }},
    })
}

/// A table that rows are taken from: no linear layer anywhere.
fn is_input_table(name: &str) -> bool {
    ["embed_tokens.weight", "embed_in.weight", "wte.weight", "wpe.weight"].iter().any(|end| name.ends_with(end))
}

/// The weights of a folder, of which some may be integers.
pub struct ModelWeights {
    stored: StoredWeights,
    scheme: Option<Scheme>,
}

/// Embedding and output projection: a matrix that stands beside integers as numbers, and would be most of what is read.
fn is_table(name: &str) -> bool {
    ["embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight", "embed_out.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

impl ModelWeights {
    /// Opens a folder.
    ///
    /// # Errors
    /// If there are no weights, a file is broken or truncated, or config.json names a scheme that is not supported.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { scheme: scheme_of(folder)?, stored: StoredWeights::open(folder)? })
    }

    /// Opens the weights of a folder whose config.json would name this scheme.
    ///
    /// # Errors
    /// If there are no weights, or a file is broken or truncated.
    pub fn with_scheme(folder: &Path, scheme: Scheme) -> Result<Self> {
        Ok(Self { scheme: Some(scheme), stored: StoredWeights::open(folder)? })
    }

    /// The precision that does justice to what is computed with them.
    pub fn precision(&self) -> Precision {
        if self.scheme.is_some() { Precision::Bf16 } else { self.stored.precision() }
    }

    /// Counts a tensor as used that is of no use here.
    pub(crate) fn ignore(&self, name: &str) {
        self.stored.ignore(name);
    }

    /// Two matrices are tied only if they are one: where the files hold a head that differs from the embedding, the
    /// config is corrected, as transformers does.
    pub(crate) fn correct(&self, config: &mut ModelConfig) {
        let name = |ours: &str| config.design.family.weights.module(ours) + ".weight";
        let (head, embedding) = (name("lm_head"), name("model.embed_tokens"));
        if !config.tied_embeddings || !self.stored.contains(&head) || !self.stored.contains(&embedding) {
            return;
        }
        let (Some(one), Some(other)) = (self.stored.raw(&head), self.stored.raw(&embedding)) else { return };
        if one.shape == other.shape && one.dtype == other.dtype && one.bytes == other.bytes {
            return;
        }
        config.tied_embeddings = false;
        config.design.notes.push(format!(
            "config.json says `tie_word_embeddings`, but `{head}` differs from `{embedding}`: both are used, as by transformers"
        ));
    }

    /// Refuses files that hold more than was asked for.
    pub(crate) fn all_used(&self, config: &ModelConfig) -> Result<()> {
        self.stored.all_used(config)
    }
}

impl WeightSource for ModelWeights {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        if let &[outputs, inputs] = shape
            && let Some(matrix) = self.matrix(name, [outputs, inputs])?
        {
            return Ok(WeightValues::Owned(matrix.dequantized()));
        }
        self.stored.values(name, shape)
    }

    fn contains(&self, name: &str) -> bool {
        let of_layer = |end: &str| {
            let layer = name.strip_suffix(".weight");
            layer.is_some_and(|layer| self.stored.contains(&format!("{layer}.{end}")))
        };
        self.stored.contains(name) || (self.scheme.is_some() && ["qweight", "weight_packed"].into_iter().any(of_layer))
    }

    /// The matrix of a layer whose weight would have this name and shape.
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Option<QuantizedMatrix>> {
        let Some(scheme) = &self.scheme else { return Ok(None) };
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let part = |end: &str| format!("{layer}.{end}");
        let required = |end: &str| {
            self.stored.raw(&part(end)).ok_or_else(|| mismatch(format!("tensor `{}` is missing", part(end))))
        };
        let words = |end: &str| required(end).and_then(|raw| words(&part(end), &raw));
        let halves = |end: &str| required(end).and_then(|raw| halves(&part(end), &raw));
        let [_, inputs] = shape;
        let named = |matrix: Result<Int4Matrix>| {
            let matrix = matrix.map_err(|error| error.at(layer, None))?;
            Ok(Some(QuantizedMatrix::Int4(matrix)))
        };
        match *scheme {
            Scheme::Gptq { group, zeros_are_whole } => {
                let Some(weights) = self.stored.raw(&part("qweight")) else { return Ok(None) };
                let weights = self::words(&part("qweight"), &weights)?;
                let g_idx = match self.stored.raw(&part("g_idx")) {
                    Some(raw) => Some(self::words(&part("g_idx"), &raw)?),
                    None => None,
                };
                let (zeros, scales) = (words("qzeros")?, halves("scales")?);
                let group = group.unwrap_or(inputs);
                named(Int4Matrix::from_gptq(shape, group, &weights, &zeros, &scales, g_idx.as_deref(), zeros_are_whole))
            }
            Scheme::Awq { group } => {
                let Some(weights) = self.stored.raw(&part("qweight")) else { return Ok(None) };
                let weights = self::words(&part("qweight"), &weights)?;
                let (zeros, scales) = (words("qzeros")?, halves("scales")?);
                named(Int4Matrix::from_awq(shape, group.unwrap_or(inputs), &weights, &zeros, &scales))
            }
            Scheme::Packed { group } => {
                let Some(packed) = self.stored.raw(&part("weight_packed")) else { return Ok(None) };
                let packed = self::words(&part("weight_packed"), &packed)?;
                // The shape that it says is ours, or the sizes do not fit.
                let _ = self.stored.raw(&part("weight_shape"));
                let scales = halves("weight_scale")?;
                let zeros = match self.stored.raw(&part("weight_zero_point")) {
                    Some(raw) => Some(self::words(&part("weight_zero_point"), &raw)?),
                    None => None,
                };
                named(Int4Matrix::from_packed(shape, group.unwrap_or(inputs), &packed, scales, zeros.as_deref()))
            }
            Scheme::Int8 => {
                let Some(raw) = self.stored.raw(name).filter(|raw| raw.dtype == Dtype::I8) else { return Ok(None) };
                let scale = required("weight_scale")?;
                let mut scales = vec![0f32; shape[0]];
                if raw.shape != shape || scale.shape.iter().product::<usize>() != shape[0] {
                    return Err(mismatch(format!(
                        "`{layer}` is {:?} with scales {:?}, not {shape:?}",
                        raw.shape, scale.shape
                    )));
                }
                self.stored.values(&part("weight_scale"), scale.shape)?.read(0, &mut scales);
                let codes = raw.bytes.iter().map(|byte| *byte as i8).collect();
                Ok(Some(QuantizedMatrix::Int8(Int8Matrix { inputs, codes, scales })))
            }
        }
    }

    fn rounding(&self, name: &str, _shape: [usize; 2]) -> Option<Quantization> {
        (self.scheme.is_some() && is_table(name)).then_some(Quantization::Int8)
    }
}

/// Numbers that are rounded to integers as they are packed.
pub struct Rounding<'a> {
    /// The numbers.
    pub weights: &'a dyn WeightSource,
    /// What the layers become. Embedding and output become int8.
    pub kind: Quantization,
}

impl WeightSource for Rounding<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        self.weights.values(name, shape)
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    fn rounding(&self, name: &str, shape: [usize; 2]) -> Option<Quantization> {
        if is_table(name) {
            return Some(Quantization::Int8);
        }
        is_layer(name, &shape, self.kind).then_some(self.kind)
    }
}

/// Whether a tensor is the matrix of a linear layer, as Hugging Face stores it, `[out, in]`, and in whole groups.
fn is_layer(name: &str, shape: &[usize], kind: Quantization) -> bool {
    const ENDS: [&str; 10] = [
        "_proj.weight",
        ".w1.weight",
        ".w2.weight",
        ".w3.weight",
        "query_key_value.weight",
        "attention.dense.weight",
        "dense_h_to_4h.weight",
        "dense_4h_to_h.weight",
        "c_fc.weight",
        "c_proj.weight",
    ];
    let step = if let Quantization::Int4 { group } = kind { group } else { 1 };
    // GPT-2's are `[in, out]`.
    let turned = name.starts_with("h.") || name.starts_with("transformer.h.");
    !turned && matches!(shape, [_, inputs] if inputs.is_multiple_of(step)) && ENDS.iter().any(|end| name.ends_with(end))
}

/// What quantizing a folder did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Written {
    /// Matrices that are integers now.
    pub matrices: usize,
    /// Bytes of all tensors before.
    pub bytes_before: usize,
    /// And after.
    pub bytes_after: usize,
    /// The squared error of the matrices over their squared size.
    pub relative_error: f64,
}

/// Writes the model of a folder with its layers' matrices as integers into another, which must exist: config.json and
/// safetensors files of the same names. Embedding and output stay as they are, and norms but for the calibration's
/// factors.
///
/// # Errors
/// If a file cannot be read or written, or the model is quantized already.
pub fn write_quantized(from: &Path, to: &Path, kind: Quantization, calibration: &Calibration) -> Result<Written> {
    let path = from.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let mut config: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input("config.json is not valid JSON").at(path.display(), error.line()).cause(error))?;
    if !config["quantization_config"].is_null() || !config.is_object() {
        return Err(Error::input("this model is quantized already")
            .at(path.display(), None)
            .help("quantize the original"));
    }
    let stored = StoredWeights::open(from)?;
    // The experts of a layer run as one in other programs: they become integers together, or none does.
    let experts = |name: &str| name.find(".experts.").map(|at| name[..at + ".experts.".len()].to_string());
    let is_uneven = |(name, shape): &(String, Vec<usize>)| shape.len() == 2 && !is_layer(name, shape, kind);
    let stays: BTreeSet<String> = stored.shapes().filter(is_uneven).filter_map(|(name, _)| experts(&name)).collect();
    let (mut written, mut ignored, mut errors) = (Written::default(), vec![], (0f64, 0f64));
    let mut index = serde_json::Map::new();
    for file in stored.file_names() {
        let mut tensors: Vec<Encoded> = vec![];
        for name in stored.names().filter(|name| stored.file_of(name) == Some(file.as_str())) {
            let Some(raw) = stored.raw(name) else { continue };
            written.bytes_before += raw.bytes.len();
            let inputs = raw.shape.last().copied().unwrap_or(1).max(1);
            let scaled = calibration.columns.contains_key(name) || calibration.rows.contains_key(name);
            let becomes = is_layer(name, raw.shape, kind) && !stays.iter().any(|experts| name.starts_with(experts));
            if !becomes && scaled {
                let mut values = numbers(&stored, name, &raw)?;
                calibration.apply(name, &mut values, inputs);
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                tensors.push((name.into(), Dtype::F32, raw.shape.to_vec(), bytes.into()));
                continue;
            }
            if !becomes {
                if raw.shape.len() == 2 && !is_input_table(name) {
                    ignored.extend(name.strip_suffix(".weight").map(str::to_string));
                }
                tensors.push((name.into(), raw.dtype, raw.shape.to_vec(), Cow::Borrowed(raw.bytes)));
                continue;
            }
            let mut values = numbers(&stored, name, &raw)?;
            calibration.apply(name, &mut values, inputs);
            let weighing = calibration.squares.get(name).map_or(&[][..], |squares| squares);
            let matrix = match kind {
                Quantization::Int8 => QuantizedMatrix::Int8(Int8Matrix::round(&values, inputs)),
                Quantization::Int4 { group } => {
                    QuantizedMatrix::Int4(Int4Matrix::round(&values, inputs, group, weighing))
                }
            };
            for (value, found) in values.iter().zip(matrix.dequantized()) {
                errors.0 += f64::from(value - found).powi(2);
                errors.1 += f64::from(*value).powi(2);
            }
            written.matrices += 1;
            tensors.extend(tensors_of(name, [raw.shape[0], inputs], &matrix));
        }
        for (name, _, _, bytes) in &tensors {
            written.bytes_after += bytes.len();
            index.insert(name.clone(), json!(file));
        }
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes fill the shape"))
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let path = to.join(&file);
        safetensors::serialize_to_file(views, Some(metadata), &path)
            .map_err(|error| Error::internal(format!("cannot write {}", path.display())).cause(error))?;
    }
    if written.matrices == 0 {
        return Err(Error::input("there is no matrix here that can be quantized").at(from.display(), None));
    }
    let write = |name: &str, value: &Value| {
        let path = to.join(name);
        let text = serde_json::to_string_pretty(value).expect("JSON serializes");
        std::fs::write(&path, text + "\n").map_err(|error| Error::io("cannot write", &path, error))
    };
    if stored.file_names().len() > 1 {
        let index = json!({"metadata": {"total_size": written.bytes_after}, "weight_map": index});
        write("model.safetensors.index.json", &index)?;
    }
    // Programs make the output projection of a tied table, or by another name, and look for it under this one.
    if !ignored.iter().any(|name| name == "lm_head") {
        ignored.push("lm_head".into());
    }
    config["quantization_config"] = config_of(kind, &ignored);
    write("config.json", &config)?;
    written.relative_error = errors.0 / errors.1.max(f64::MIN_POSITIVE);
    Ok(written)
}

fn numbers(stored: &StoredWeights, name: &str, raw: &RawTensor) -> Result<Vec<f32>> {
    let from = stored.values(name, raw.shape)?;
    let mut values = vec![0f32; from.len()];
    from.read(0, &mut values);
    Ok(values)
}

/// A tensor as it is written: name, type, shape, bytes.
type Encoded<'a> = (String, Dtype, Vec<usize>, Cow<'a, [u8]>);

/// A matrix as compressed-tensors stores it.
fn tensors_of(name: &str, shape: [usize; 2], matrix: &QuantizedMatrix) -> Vec<Encoded<'static>> {
    let layer = name.strip_suffix(".weight").unwrap_or(name);
    let part = |end: &str| format!("{layer}.{end}");
    let bytes_of = |words: &[u32]| Cow::from(words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    let [outputs, inputs] = shape;
    match matrix {
        QuantizedMatrix::Int8(matrix) => {
            let scales: Vec<u8> = matrix.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            let codes: Vec<u8> = matrix.codes.iter().map(|code| *code as u8).collect();
            vec![
                (part("weight"), Dtype::I8, shape.to_vec(), codes.into()),
                (part("weight_scale"), Dtype::F32, vec![outputs, 1], scales.into()),
            ]
        }
        QuantizedMatrix::Int4(matrix) => {
            let groups = inputs.div_ceil(matrix.group);
            let scales: Vec<u8> = matrix.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            let sizes: Vec<u8> = shape.iter().flat_map(|size| (*size as i64).to_le_bytes()).collect();
            vec![
                (part("weight_packed"), Dtype::I32, vec![outputs, inputs.div_ceil(8)], bytes_of(&matrix.to_packed())),
                (part("weight_scale"), Dtype::F16, vec![outputs, groups], scales.into()),
                (part("weight_shape"), Dtype::I64, vec![2], sizes.into()),
            ]
        }
    }
}

/// Words of 32 bits; `g_idx` is stored so too.
fn words(name: &str, raw: &RawTensor) -> Result<Vec<u32>> {
    if !matches!(raw.dtype, Dtype::I32 | Dtype::U32) {
        return Err(mismatch(format!("tensor `{name}` has dtype {:?}, not I32", raw.dtype)));
    }
    Ok(raw.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Scales, in f16: those of other dtypes are rounded to it.
fn halves(name: &str, raw: &RawTensor) -> Result<Vec<f16>> {
    match raw.dtype {
        Dtype::F16 => Ok(raw.bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()),
        Dtype::BF16 => {
            let value = |b: &[u8]| f16::from_f32(bf16::from_le_bytes([b[0], b[1]]).to_f32());
            Ok(raw.bytes.chunks_exact(2).map(value).collect())
        }
        Dtype::F32 => {
            let value = |b: &[u8]| f16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Ok(raw.bytes.chunks_exact(4).map(value).collect())
        }
        other => Err(mismatch(format!("tensor `{name}` has dtype {other:?}, not F16, BF16 or F32"))),
    }
}
