//! PEFT's adapters (`xtask/goldens/adapters.py`): beside others in one batch, in training's form, merged, written and
//! read.

use burn::tensor::TensorData;
use narthex_model::{
    Adapter, AttentionContext, CausalContext, Decoder, Dropout, Int, Layer, LoraSpec, Precision, Quantization,
    Replacement, Tensor, calibrate::Calibration, cpu, integer_folder::write_quantized, load_adapter, map_parameters,
    save_adapter,
};
use serde_json::Value;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

const CASES: [&str; 6] = ["lora", "rslora", "dora", "fused", "by-head", "transposed"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Reference {
    adapter: PathBuf,
    base: PathBuf,
    tokens: Vec<Vec<i64>>,
    logits: Vec<f32>,
}

fn reference(name: &str) -> Reference {
    let adapter = golden("adapters").join(name);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(adapter.join("golden.json")).unwrap()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(json["logits"].clone()).unwrap();
    Reference {
        base: golden(json["base"].as_str().unwrap()),
        tokens: serde_json::from_value(json["tokens"].clone()).unwrap(),
        logits: logits.concat(),
        adapter,
    }
}

/// Causal attention over rows of which some have an adapter.
struct WithAdapters(CausalContext, Vec<(Range<usize>, Arc<Adapter>)>);

impl AttentionContext for WithAdapters {
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, precision: Precision) -> Tensor<2> {
        self.0.attend(layer, qkv, table, precision)
    }

    fn adapters(&self) -> &[(Range<usize>, Arc<Adapter>)] {
        &self.1
    }
}

fn logits(model: &Decoder, rows: &[Vec<i64>], adapters: Vec<(Range<usize>, Arc<Adapter>)>) -> Vec<f32> {
    let len = rows[0].len();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(rows.concat(), [rows.len(), len]), &cpu());
    let positions: Vec<usize> = (0..len).collect();
    let places = model.positions(&[&positions], &cpu());
    let mut context = WithAdapters(CausalContext::new(len), adapters);
    model.forward(tokens, &places, &mut context, &mut Dropout::none()).into_data().try_to_vec().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_peft() {
    for name in CASES {
        let Reference { adapter, base, tokens, logits: expected } = reference(name);
        let whole = Decoder::read(&base, &cpu()).unwrap();
        let plain = logits(&whole, &tokens, vec![]);
        assert!(largest_difference(&plain, &expected) > 0.1, "{name}: the adapter does something");
        let trained = load_adapter(whole, &adapter).unwrap();
        let found = logits(&trained, &tokens, vec![]);
        assert!(largest_difference(&found, &expected) < 1e-4, "{name}: in training's form");
        let merged = logits(&trained.merged(), &tokens, vec![]);
        assert!(largest_difference(&merged, &expected) < 1e-4, "{name}: merged");
        let packed = Decoder::read_packed(&base, Some(Precision::F32)).unwrap();
        let adapter = Arc::new(Adapter::read(&adapter, &packed).unwrap());
        let rows = tokens.len() * tokens[0].len();
        let served = logits(&packed, &tokens, vec![(0..rows, adapter.clone())]);
        assert!(largest_difference(&served, &expected) < 1e-4, "{name}: served");
        // The other row is the base's, to the byte.
        let half = rows / 2;
        let beside = logits(&packed, &tokens, vec![(half..rows, adapter)]);
        let bare = logits(&packed, &tokens, vec![]);
        let border = beside.len() / 2;
        assert_eq!((&beside[..border], &beside[border..]), (&bare[..border], &served[border..]), "{name}");
    }
}

/// The Euclidean norm of the difference over that of `b`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn adapters_run_over_integers_as_over_their_numbers() {
    for (name, kind) in CASES
        .into_iter()
        .flat_map(|name| [Quantization::Int8, Quantization::Int4 { group: 32 }].map(|kind| (name, kind)))
    {
        let Reference { adapter, base, tokens, .. } = reference(name);
        if name == "transposed" {
            // GPT-2's matrices are not quantized.
            continue;
        }
        let made = tempfile::tempdir().unwrap();
        write_quantized(&base, made.path(), kind, &Calibration::default()).unwrap();
        let whole = Decoder::read(made.path(), &cpu()).unwrap();
        let bare = logits(&whole, &tokens, vec![]);
        let expected = logits(&load_adapter(whole, &adapter).unwrap(), &tokens, vec![]);
        assert!(distance(&bare, &expected) > 0.2, "{name}: the adapter does something");
        let frozen = load_adapter(Decoder::read_frozen(made.path()).unwrap(), &adapter).unwrap();
        let tuned = distance(&logits(&frozen, &tokens, vec![]), &expected);
        assert!(tuned < 0.05, "{name}, {kind:?}: in training's form {tuned}");
        let merged = distance(&logits(&frozen.clone().merged(), &tokens, vec![]), &expected);
        assert!(merged < 1e-5, "{name}, {kind:?}: merged {merged}");
        let packed = distance(&logits(&frozen.pack(Precision::F32), &tokens, vec![]), &expected);
        assert!(packed < 1e-5, "{name}, {kind:?}: packed with its adapter {packed}");
        let packed = Decoder::read_packed(made.path(), None).unwrap();
        let adapter = Arc::new(Adapter::read(&adapter, &packed).unwrap());
        let rows = tokens.len() * tokens[0].len();
        let served = distance(&logits(&packed, &tokens, vec![(0..rows, adapter)]), &expected);
        // Embedding and output are rounded too when a quantized model is served.
        assert!(served < 0.06, "{name}, {kind:?}: served {served}");
    }
}

#[test]
fn written_adapters_read_back_the_same() {
    // In Phi, GPT-NeoX and GPT-2 several projections lie in one matrix, of which not all need have an adapter.
    let bases = ["qwen3", "phi4-partial", "gpt-neox", "gpt2"];
    let ways = [(false, false), (true, false), (false, true)];
    for (name, (rank_stabilized, decomposed)) in bases.into_iter().flat_map(|name| ways.map(|way| (name, way))) {
        let base = Decoder::read(&golden(name), &cpu()).unwrap();
        let targets = ["q_proj", "v_proj", "up_proj", "down_proj"].map(String::from).to_vec();
        let spec = LoraSpec { rank: 3, alpha: 6.0, targets, dropout: 0.0, rank_stabilized, decomposed };
        let tokens = vec![(5..20).collect::<Vec<i64>>()];
        let fresh = base.clone().with_lora(&spec, 1);
        let plain = logits(&base, &tokens, vec![]);
        assert!(largest_difference(&logits(&fresh, &tokens, vec![]), &plain) < 1e-4, "an adapter starts as nothing");
        let trained = map_parameters(fresh, |name, shape| {
            let len: usize = shape.iter().product();
            let values = match name.rsplit('.').next() {
                Some("lora_b") => Some((0..len).map(|i| (i % 7) as f32 * 0.05 - 0.1).collect()),
                Some("magnitude") => Some((0..len).map(|i| 0.5 + (i % 5) as f32 * 0.3).collect()),
                _ => None,
            };
            Replacement { values, trained: false }
        });
        let folder = tempfile::tempdir().unwrap();
        save_adapter(&trained, &spec, "base", folder.path()).unwrap();
        let expected = logits(&trained, &tokens, vec![]);
        assert!(largest_difference(&expected, &plain) > 0.01, "{name}");
        let found = logits(&load_adapter(base, folder.path()).unwrap(), &tokens, vec![]);
        let error = largest_difference(&found, &expected);
        assert!(error < 1e-4 && (name != "qwen3" || error == 0.0), "{name}, DoRA {decomposed}: {error}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_named() {
    let packed = |name: &str| Decoder::read_packed(&golden(name), Some(Precision::F32)).unwrap();
    let error = Adapter::read(&golden("adapters").join("lora"), &packed("qwen3")).unwrap_err();
    assert!(error.what().contains("tensor `base_model.model.model.layers.0.self_attn."), "{error}");
    let error = Adapter::read(&golden("adapters").join("fused"), &packed("gpt2")).unwrap_err();
    assert!(error.what().contains("is not for a projection of this model"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(golden("adapters").join("lora/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    for (key, value, expected) in [
        ("peft_type", "IA3".into(), "peft_type = IA3"),
        ("bias", "all".into(), "bias = all"),
        ("r", 0.into(), "r = 0"),
        ("modules_to_save", serde_json::json!(["lm_head"]), "modules_to_save = lm_head"),
    ] {
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        let error = Adapter::read(folder.path(), &packed("llama-untied")).unwrap_err();
        assert!(error.what().contains(expected), "{error}");
    }
}
