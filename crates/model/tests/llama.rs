//! The Llama definition against transformers (`xtask/goldens/llama.py`), and against itself.

use burn::tensor::TensorData;
use narthex_model::{CausalContext, Decoder, Dropout, Int, LoraSpec, Tensor, cpu, load_adapter, save_adapter};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn logits(model: &Decoder, rows: &[Vec<i64>]) -> Vec<f32> {
    let len = rows[0].len();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(rows.concat(), [rows.len(), len]), &cpu());
    let positions: Vec<usize> = (0..len).collect();
    let places = model.positions(&[&positions], &cpu());
    let logits = model.forward(tokens, &places, &mut CausalContext::new(len), &mut Dropout::none());
    logits.into_data().try_to_vec().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn reference(name: &str) -> (Vec<Vec<i64>>, Vec<f32>) {
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden(name).join("golden.json")).unwrap()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(json["logits"].clone()).unwrap();
    (serde_json::from_value(json["tokens"].clone()).unwrap(), logits.concat())
}

const CHECKPOINTS: [&str; 3] = ["llama-tied", "llama-untied", "llama-sharded-bf16"];

#[test]
fn logits_are_those_of_transformers() {
    for name in CHECKPOINTS {
        let (tokens, expected) = reference(name);
        let model = Decoder::read(&golden(name), &cpu()).unwrap();
        let difference = largest_difference(&logits(&model, &tokens), &expected);
        let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(largest > 1.0, "{name}: the reference is not near zero");
        assert!(difference < 1e-4, "{name}: logits differ by up to {difference}");
    }
}

#[test]
fn written_models_read_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in CHECKPOINTS {
        let model = Decoder::read(&golden(name), &cpu()).unwrap();
        model.write(folder.path()).unwrap();
        let again = Decoder::read(folder.path(), &cpu()).unwrap();
        assert_eq!(model.tensors(), again.tensors());
        assert_eq!(model.config(), again.config());
    }
}

#[test]
fn documents_in_one_row_do_not_see_each_other() {
    let (tokens, _) = reference("llama-tied");
    let model = Decoder::read(&golden("llama-tied"), &cpu()).unwrap();
    let (a, b) = (&tokens[0][..7], &tokens[1][..10]);
    let packed: Vec<i64> = [a, b].concat();
    let documents: Vec<u32> = (0..17).map(|i| u32::from(i >= 7)).collect();
    let positions: Vec<usize> = (0..17).collect();
    let row = Tensor::<2, Int>::from_data(TensorData::new(packed, [1, 17]), &cpu());
    let mut context = CausalContext::within_documents(&documents, 17);
    let places = model.positions(&[&positions], &cpu());
    let together: Vec<f32> =
        model.forward(row, &places, &mut context, &mut Dropout::none()).into_data().try_to_vec().unwrap();
    let apart = [logits(&model, &[a.to_vec()]), logits(&model, &[b.to_vec()])].concat();
    // Rotary embeddings are relative, so the second document's later positions change rounding only.
    assert!(largest_difference(&together, &apart) < 1e-4);
    let leaking = logits(&model, &[[a, b].concat()]);
    assert!(largest_difference(&leaking, &apart) > 0.1, "without the mask the documents do see each other");
}

#[test]
fn adapters_start_as_nothing_and_merge_to_the_same() {
    let (tokens, expected) = reference("llama-untied");
    let base = Decoder::read(&golden("llama-untied"), &cpu()).unwrap();
    let spec = LoraSpec {
        rank: 3,
        alpha: 6.0,
        targets: vec!["q_proj".into(), "down_proj".into()],
        dropout: 0.0,
        rank_stabilized: false,
        decomposed: false,
    };
    let model = base.clone().with_lora(&spec, 1);
    assert!(largest_difference(&logits(&model, &tokens), &expected) < 1e-4, "b is zero at the start");
    let trained = narthex_model::map_parameters(model, |name, shape| {
        let len: usize = shape.iter().product();
        let values = name.ends_with("lora_b").then(|| (0..len).map(|i| (i % 7) as f32 * 0.05 - 0.1).collect());
        narthex_model::Replacement { values, trained: false }
    });
    let adapted = logits(&trained, &tokens);
    assert!(largest_difference(&adapted, &expected) > 0.01);
    let merged = logits(&trained.clone().merged(), &tokens);
    assert!(largest_difference(&adapted, &merged) < 1e-4);
    let folder = tempfile::tempdir().unwrap();
    save_adapter(&trained, &spec, "base", folder.path()).unwrap();
    let loaded = load_adapter(base, folder.path()).unwrap();
    assert_eq!(logits(&loaded, &tokens), adapted);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let model = || Decoder::read(&golden("llama-untied"), &cpu()).unwrap();
    let tensors = model().tensors();
    let mut missing = tensors.clone();
    missing.remove("model.norm.weight");
    let mut wrong = tensors.clone();
    wrong.insert("model.norm.weight".into(), (vec![3], vec![0.0; 3]));
    let mut extra = tensors;
    extra.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![32], vec![0.0; 32]));
    for (weights, expected) in [
        (missing, "tensor `model.norm.weight` is missing"),
        (wrong, "tensor `model.norm.weight` has shape [3], but the config asks for [32]"),
        (extra, "tensor `model.layers.0.self_attn.q_proj.bias` is not part of this architecture"),
    ] {
        assert_eq!(model().load(weights).unwrap_err().what(), expected);
    }
}
