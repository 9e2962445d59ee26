//! Every family against transformers (`xtask/goldens/families.py`), in training's form and packed for inference.

use burn::tensor::TensorData;
use narthex_model::{
    CausalContext, Decoder, Dropout, Int, ModelConfig, Precision, StoredWeights, Tensor, WeightSource, cpu,
    named_parameters,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

const CASES: [&str; 21] = [
    "llama3-scaled",
    "llama-linear",
    "llama-dynamic",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "mixtral",
    "gemma2",
    "gemma3",
    "phi3",
    "phi4-partial",
    "smollm3",
    "olmo2",
    "granite",
    "gpt2",
    "gpt-neox",
    "gpt-neox-serial",
    "starcoder2",
    "llama-untied",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn reference(name: &str) -> (Vec<Vec<i64>>, Vec<f32>) {
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(golden(name).join("golden.json")).unwrap()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(json["logits"].clone()).unwrap();
    (serde_json::from_value(json["tokens"].clone()).unwrap(), logits.concat())
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

#[test]
fn logits_are_those_of_transformers() {
    let mut failed = String::new();
    for name in CASES {
        let (tokens, expected) = reference(name);
        let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(largest > 1.0, "{name}: the reference is not near zero");
        for (form, model) in [
            ("whole", Decoder::read(&golden(name), &cpu())),
            ("packed", Decoder::read_packed(&golden(name), Some(Precision::F32))),
        ] {
            match model.map(|model| largest_difference(&logits(&model, &tokens), &expected)) {
                Ok(difference) if difference < 1e-4 => {
                    // `cargo test -- --nocapture` prints the table.
                    println!("{name:18} {form:8} {difference:.1e}");
                }
                Ok(difference) => failed += &format!("{name}, {form}: logits differ by up to {difference}\n"),
                Err(error) => failed += &format!("{name}, {form}: {error}\n"),
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn written_models_are_the_checkpoints_that_were_read() {
    for name in CASES {
        let folder = tempfile::tempdir().unwrap();
        let model = Decoder::read(&golden(name), &cpu()).unwrap();
        model.write(folder.path()).unwrap();
        let again = Decoder::read(folder.path(), &cpu()).unwrap();
        assert_eq!(model.tensors(), again.tensors(), "{name}");
        assert_eq!(model.config().parameters(), again.config().parameters());
        let (before, after) =
            (StoredWeights::open(&golden(name)).unwrap(), StoredWeights::open(folder.path()).unwrap());
        for (tensor, shape) in before.shapes() {
            let [mut old, mut new] = [vec![0f32; shape.iter().product()], vec![0f32; shape.iter().product()]];
            before.values(&tensor, &shape).unwrap().read(0, &mut old);
            after.values(&tensor, &shape).unwrap_or_else(|error| panic!("{name}: {error}")).read(0, &mut new);
            // Gemma's norms are kept less 1, which costs a rounding.
            assert!(largest_difference(&old, &new) < 1e-6, "{name}: {tensor}");
        }
        let json = |path: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path.join("config.json")).unwrap()).unwrap()
        };
        let (read, written) = (json(&golden(name)), json(folder.path()));
        assert_eq!(read["model_type"], written["model_type"]);
        assert_eq!(read["architectures"], written["architectures"]);
    }
}

#[test]
fn parameters_are_counted_without_making_them() {
    for name in CASES {
        let model = Decoder::random(&ModelConfig::read(&golden(name).join("config.json")).unwrap(), 1, &cpu());
        let made: usize = named_parameters(&model).iter().map(|tensor| tensor.values.len()).sum();
        assert_eq!(model.config().parameters(), made, "{name}");
    }
}

/// transformers 5.24 finds that the two differ, keeps both and warns.
#[test]
fn a_head_of_its_own_beside_tie_word_embeddings_is_used() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("llama-untied")).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["tie_word_embeddings"] = true.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let (tokens, expected) = reference("llama-untied");
    for model in [Decoder::read(folder.path(), &cpu()), Decoder::read_packed(folder.path(), Some(Precision::F32))] {
        let model = model.unwrap();
        assert!(largest_difference(&logits(&model, &tokens), &expected) < 1e-4);
        assert!(model.config().design.notes[0].contains("tie_word_embeddings"));
        assert_eq!(model.config().to_json()["tie_word_embeddings"], false, "what is written says so");
    }
}
