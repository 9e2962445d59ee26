//! Matrices of integers against the layouts' own packing (`xtask/goldens/quantized.py`), and quantized folders against
//! the models that they were made from.

use burn::tensor::TensorData;
use narthex_kernels::Quantization;
use narthex_model::{
    CausalContext, Decoder, Dropout, Int, Tensor, WeightSource,
    calibrate::{Calibration, calibrate},
    cpu,
    integer_folder::{ModelWeights, Scheme, write_quantized},
    read_safetensors, write_safetensors,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn logits(model: &Decoder, rows: &[Vec<i64>]) -> Vec<f32> {
    let len = rows[0].len();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(rows.concat(), [rows.len(), len]), &cpu());
    let positions: Vec<usize> = (0..len).collect();
    let rows = model.positions(&[&positions], &cpu());
    let logits = model.forward(tokens, &rows, &mut CausalContext::new(len), &mut Dropout::none());
    logits.into_data().try_to_vec().unwrap()
}

/// The Euclidean norm of the difference over that of `b`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn every_layout_stands_for_its_numbers() {
    let folder = golden("quantized");
    let numbers = |name: &str| {
        let weights = ModelWeights::with_scheme(&folder, Scheme::Int8).unwrap();
        let shape = match name {
            "awq" => [24, 128],
            "gptq" | "gptq_order" => [16, 256],
            _ => [20, 96],
        };
        let mut values = vec![0f32; shape[0] * shape[1]];
        weights.values(&format!("{name}.numbers"), &shape).unwrap().read(0, &mut values);
        (shape, values)
    };
    let gptq = Scheme::Gptq { group: Some(128), zeros_are_whole: false };
    for (name, scheme) in [
        ("gptq", gptq.clone()),
        ("gptq_order", gptq.clone()),
        ("awq", Scheme::Awq { group: Some(128) }),
        ("packed", Scheme::Packed { group: Some(32) }),
        ("packed_symmetric", Scheme::Packed { group: Some(32) }),
    ] {
        let weights = ModelWeights::with_scheme(&folder, scheme).unwrap();
        let (shape, expected) = numbers(name);
        let matrix = weights.matrix(&format!("{name}.weight"), shape).unwrap().expect("integers");
        assert_eq!(matrix.dequantized(), expected, "{name}");
        let packed = narthex_model::quantize::QuantizedMatrix::pack(vec![matrix.clone()], shape[1]).unwrap();
        assert_eq!(packed.dequantized(), expected, "{name}, packed");
        assert!(weights.matrix("other.weight", shape).unwrap().is_none());
        // Two that differ in their order run as int8.
        if name == "gptq_order" {
            let other = weights.matrix("gptq.weight", shape).unwrap().unwrap();
            let both = narthex_model::quantize::QuantizedMatrix::pack(vec![matrix, other], shape[1]).unwrap();
            assert_eq!(both.quantization(), Some(Quantization::Int8));
            assert!(distance(&both.dequantized()[..expected.len()], &expected) < 0.01);
        }
        let error = weights.matrix(&format!("{name}.weight"), [shape[0] + 8, shape[1]]).unwrap_err();
        assert!(error.to_string().contains("do not form"), "{error}");
    }
    // Version 2 of GPTQ stores zeros as they are.
    let whole = ModelWeights::with_scheme(&folder, Scheme::Gptq { group: Some(128), zeros_are_whole: true }).unwrap();
    let (shape, expected) = numbers("gptq");
    assert_ne!(whole.matrix("gptq.weight", shape).unwrap().unwrap().dequantized(), expected);
}

const KINDS: [(Quantization, f32); 2] = [(Quantization::Int8, 0.03), (Quantization::Int4 { group: 32 }, 0.4)];

#[test]
fn quantized_folders_are_near_their_originals() {
    for name in ["llama-tied", "llama-untied", "llama-sharded-bf16"] {
        let json: Value =
            serde_json::from_str(&std::fs::read_to_string(golden(name).join("golden.json")).unwrap()).unwrap();
        let tokens: Vec<Vec<i64>> = serde_json::from_value(json["tokens"].clone()).unwrap();
        let original = logits(&Decoder::read(&golden(name), &cpu()).unwrap(), &tokens);
        for (kind, bound) in KINDS {
            let folder = tempfile::tempdir().unwrap();
            let written = write_quantized(&golden(name), folder.path(), kind, &Calibration::default()).unwrap();
            assert!(written.matrices >= 7 && written.bytes_after < written.bytes_before, "{written:?}");
            let numbers = Decoder::read(folder.path(), &cpu()).unwrap();
            let packed = Decoder::read_packed(folder.path(), None).unwrap();
            let (numbers, packed) = (logits(&numbers, &tokens), logits(&packed, &tokens));
            let (weights, inputs) = (distance(&numbers, &original), distance(&packed, &numbers));
            assert!(weights < bound && inputs < 0.05, "{name} {kind:?}: {weights}, {inputs}");
            assert!(weights > 1e-4, "{name} {kind:?}: nothing was rounded");
            let rounded = Decoder::read(&golden(name), &cpu()).unwrap().pack_rounded(kind);
            assert!(distance(&logits(&rounded, &tokens), &packed) < 0.01, "{name} {kind:?}: rounded while packed");
            // Once only.
            let again = tempfile::tempdir().unwrap();
            let error = write_quantized(folder.path(), again.path(), kind, &Calibration::default()).unwrap_err();
            assert!(error.to_string().contains("quantized already"), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let packed = |bits: u64, strategy: &str, format: &str| {
        json!({"quant_method": "compressed-tensors", "format": format, "config_groups": {"g": {"weights":
            {"num_bits": bits, "type": "int", "strategy": strategy, "group_size": 64}}}})
    };
    for (quantization, named) in [
        (json!({"quant_method": "bitsandbytes"}), "quant_method"),
        (json!({"quant_method": "gptq", "bits": 3}), "quantization_config.bits` = 3"),
        (json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}), "marlin"),
        (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "gemv"),
        (json!({"quant_method": "compressed-tensors"}), "config_groups"),
        (packed(3, "group", "pack-quantized"), "3 bits"),
        (packed(4, "group", "float-quantized"), "float-quantized"),
        (packed(8, "tensor", "int-quantized"), "tensor"),
    ] {
        let error = Scheme::of_config(&json!({"quantization_config": quantization})).unwrap_err().to_string();
        assert!(error.contains(named), "{quantization}: {error}");
    }
    assert_eq!(Scheme::of_config(&json!({"model_type": "llama"})).unwrap(), None);
    let gptq = json!({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1}});
    assert_eq!(Scheme::of_config(&gptq).unwrap(), Some(Scheme::Gptq { group: None, zeros_are_whole: false }));

    // A scale that is not a number, and one that is missing.
    let folder = tempfile::tempdir().unwrap();
    write_quantized(&golden("llama-untied"), folder.path(), Quantization::Int8, &Calibration::default()).unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let name = b"layers.0.mlp.down_proj.weight_scale";
    let at = whole.windows(name.len()).position(|window| window == name).unwrap();
    let mut renamed = whole.clone();
    renamed[at + name.len() - 1] = b'f';
    std::fs::write(&path, renamed).unwrap();
    let error = Decoder::read_packed(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("down_proj.weight_scale` is missing"), "{error}");
    for len in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(Decoder::read_packed(folder.path(), None).is_err(), "{len} bytes were accepted");
    }
}

/// Factors move precision to the inputs that are large, and change nothing else.
#[test]
fn calibration_helps_where_inputs_differ() {
    let mut model = Decoder::read(&golden("llama-untied"), &cpu()).unwrap();
    let mut tensors = model.tensors();
    // Some values of the state are large.
    for (name, (_, values)) in &mut tensors {
        if name.ends_with("layernorm.weight") {
            values.iter_mut().step_by(7).for_each(|x| *x *= 20.0);
        }
    }
    model = model.load(tensors.clone()).unwrap();
    let original = tempfile::tempdir().unwrap();
    model.write(original.path()).unwrap();
    let windows: Vec<Vec<u32>> = (0..4).map(|i| (0..32).map(|j| (i * 31 + j * 17) % 96).collect()).collect();
    let mut calibration = calibrate(&model, &windows).unwrap();
    assert_eq!(calibration.squares.len(), 2 * 7 + 1);
    let tokens: Vec<Vec<i64>> = windows.iter().map(|window| window.iter().map(|id| i64::from(*id)).collect()).collect();
    let expected = logits(&model, &tokens);
    let kind = Quantization::Int4 { group: 32 };
    let error = |calibration: &Calibration| {
        let folder = tempfile::tempdir().unwrap();
        write_quantized(original.path(), folder.path(), kind, calibration).unwrap();
        distance(&logits(&Decoder::read(folder.path(), &cpu()).unwrap(), &tokens), &expected)
    };
    let (plain, weighted) = (error(&Calibration::default()), error(&calibration));
    calibration.scale("llama", &tensors, 32);
    let scaled = error(&calibration);
    let largest = calibration.columns.values().flatten().fold(0f32, |largest, factor| largest.max(*factor));
    assert!(largest > 1.2, "{largest}: {plain}, weighted {weighted}, scaled {scaled}");
    assert!(weighted < plain && scaled < 0.8 * plain, "{plain}, weighted {weighted}, scaled {scaled}");
    // Another family's norms may multiply otherwise.
    let mut other = calibrate(&model, &windows).unwrap();
    other.scale("gemma2", &tensors, 32);
    assert!(other.columns.is_empty());
}

/// Errors count where the inputs are large.
#[test]
fn importance_is_heeded() {
    let inputs = 64;
    let values: Vec<f32> = (0..8 * inputs).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let importance: Vec<f32> = (0..inputs).map(|i| if i % 9 == 0 { 100.0 } else { 0.01 }).collect();
    let error = |importance_used: &[f32]| {
        let matrix = narthex_model::quantize::Int4Matrix::round(&values, inputs, 64, importance_used);
        let errors = values.iter().zip(matrix.dequantized()).enumerate();
        errors.map(|(i, (a, b))| importance[i % inputs] * (a - b).powi(2)).sum::<f32>()
    };
    assert!(error(&importance) < 0.9 * error(&[]), "{} against {}", error(&importance), error(&[]));
    // The round trip through a file keeps every byte.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let map = [("x".to_string(), (vec![8, inputs], values))].into();
    write_safetensors(&path, &map).unwrap();
    assert_eq!(read_safetensors(&path).unwrap(), map);
}

/// Merged, reordered and renamed matrices come out as they went in, in every family.
#[test]
fn every_family_is_written_and_read() {
    let mut families = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_string_lossy().into_owned();
        let no_decoder = name.starts_with("encoder") || name.starts_with("classifier");
        if no_decoder || !from.join("config.json").is_file() || !from.join("golden.json").is_file() {
            continue;
        }
        let original = Decoder::read(&from, &cpu()).unwrap();
        let vocabulary = original.config().vocab_size as u32;
        let window: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % vocabulary).collect();
        let numbers =
            |model: &Decoder| narthex_model::calibrate::scores(model, &window).into_data().try_to_vec::<f32>().unwrap();
        let folder = tempfile::tempdir().unwrap();
        match write_quantized(&from, folder.path(), Quantization::Int8, &Calibration::default()) {
            Ok(_) => families += 1,
            // Its matrices are `[in, out]`.
            Err(error) if name.starts_with("gpt2") => {
                assert!(error.to_string().contains("no matrix"), "{error}");
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        }
        let expected = numbers(&original);
        for (way, model) in [
            ("as numbers", Decoder::read(folder.path(), &cpu()).unwrap()),
            ("packed", Decoder::read_packed(folder.path(), None).unwrap()),
        ] {
            let error = distance(&numbers(&model), &expected);
            assert!(error < 0.3, "{name} {way}: {error}");
        }
    }
    assert!(families > 15, "{families} families");
}
