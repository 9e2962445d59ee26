//! Every family learns: a step down the gradient of all weights, or of adapters alone, lowers the loss by what the
//! gradient says.

use burn::{module::ModuleVisitor, tensor::Tensor};
use narthex_model::{
    Decoder, Dropout, LoraSpec, Module, Quantization, Replacement, calibrate::Calibration, cpu,
    integer_folder::write_quantized, map_parameters, named_parameters,
};
use narthex_train::objective::{TokenBatch, nats};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

const LEN: usize = 12;

fn batch() -> TokenBatch {
    let ids = |shift: usize| (0..2 * LEN).map(|i| 3 + ((i + shift) * 7 % 80) as i64).collect::<Vec<_>>();
    TokenBatch { rows: 2, len: LEN, tokens: ids(0), targets: ids(1), counts: vec![true; 2 * LEN], documents: None }
}

fn loss(model: &Decoder) -> f64 {
    nats(model, &batch(), &mut Dropout::none(), 1.0).into_scalar::<f64>()
}

/// The gradients by name.
fn gradients(model: &Decoder) -> HashMap<String, Vec<f32>> {
    struct Collect<'a> {
        path: Vec<String>,
        found: HashMap<String, Vec<f32>>,
        gradients: &'a burn::tensor::Gradients,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(self.path.join("."), gradient.into_data().try_to_vec().unwrap());
            }
        }
    }
    let gradients = nats(model, &batch(), &mut Dropout::none(), 1.0).backward();
    let mut collect = Collect { path: vec![], found: HashMap::new(), gradients: &gradients };
    model.visit(&mut collect);
    collect.found
}

fn check(name: &str, model: Decoder, trained: impl Fn(&str) -> bool + Copy) {
    let before = loss(&model);
    let gradients = gradients(&model.clone().for_training(trained));
    let wanted = named_parameters(&model).iter().filter(|tensor| trained(&tensor.name)).count();
    // A batch this small leaves some experts without a token.
    if !name.contains("moe") && !name.contains("mixtral") {
        assert_eq!(gradients.len(), wanted, "{name}: every trained weight has a gradient");
    }
    let square: f64 = gradients.values().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum();
    assert!(square.is_finite() && square > 0.0, "{name}: {square}");
    // So small a step that the loss falls by its size times the square of the gradient.
    let step = 0.02 / square;
    let values: HashMap<String, Vec<f32>> =
        named_parameters(&model).into_iter().map(|tensor| (tensor.name, tensor.values)).collect();
    let after = map_parameters(model, |tensor, _| Replacement {
        values: gradients.get(tensor).map(|gradient| {
            values[tensor].iter().zip(gradient).map(|(x, g)| (f64::from(*x) - step * f64::from(*g)) as f32).collect()
        }),
        trained: false,
    });
    let fall = before - loss(&after);
    assert!((0.015..0.025).contains(&fall), "{name}: the loss fell by {fall} instead of 0.02");
}

/// The folders of all families, with their names.
fn families() -> impl Iterator<Item = (String, PathBuf)> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    let folders = std::fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path());
    let is_decoder = |folder: &PathBuf| {
        std::fs::read_to_string(folder.join("golden.json")).is_ok_and(|text| text.contains("greedy"))
    };
    folders.filter(is_decoder).map(|folder| (folder.file_name().unwrap().to_string_lossy().into_owned(), folder))
}

fn lora(decomposed: bool) -> LoraSpec {
    let targets = ["q_proj", "v_proj", "up_proj"].map(String::from).to_vec();
    LoraSpec { rank: 2, alpha: 4.0, targets, dropout: 0.0, rank_stabilized: false, decomposed }
}

#[test]
fn a_step_down_the_gradient_lowers_the_loss() {
    let mut checked = 0;
    for (name, folder) in families() {
        let model = Decoder::read(&folder, &cpu()).unwrap();
        check(&name, model.clone(), |_| true);
        for decomposed in [false, true] {
            check(&name, model.clone().with_lora(&lora(decomposed), 1), |tensor| tensor.contains(".lora."));
        }
        checked += 1;
    }
    assert!(checked >= 20, "only {checked} families");
}

/// The model with the adapters' values of another.
fn with_weights(model: Decoder, other: &Decoder) -> Decoder {
    let values: HashMap<String, Vec<f32>> =
        named_parameters(other).into_iter().map(|tensor| (tensor.name, tensor.values)).collect();
    let of_adapter = |name: &str| values.get(name).filter(|_| name.contains(".lora.")).cloned();
    map_parameters(model, |name, _| Replacement { values: of_adapter(name), trained: false })
}

fn cosine(a: &HashMap<String, Vec<f32>>, b: &HashMap<String, Vec<f32>>) -> f64 {
    let [mut ab, mut aa, mut bb] = [0f64; 3];
    for (a, b) in a.iter().flat_map(|(name, a)| a.iter().zip(&b[name])) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    ab / (aa * bb).sqrt()
}

#[test]
fn adapters_learn_over_integers() {
    let mut checked = 0;
    for (name, folder) in families() {
        let made = tempfile::tempdir().unwrap();
        // GPT-2's matrices are not quantized.
        let written = write_quantized(&folder, made.path(), Quantization::Int8, &Calibration::default());
        if written.is_err() {
            assert!(name.starts_with("gpt2"), "{name}: {written:?}");
            continue;
        }
        let model = Decoder::read_frozen(made.path()).unwrap();
        let numbers = Decoder::read(made.path(), &cpu()).unwrap();
        let kept = named_parameters(&numbers).len() - named_parameters(&model).len();
        assert!(kept >= 6, "{name}: {kept} matrices stay integers");
        let whole = loss(&numbers);
        assert!((loss(&model) / whole - 1.0).abs() < 0.01, "{name}: {} beside {whole}", loss(&model));
        for decomposed in [false, true] {
            let adapted = model.clone().with_lora(&lora(decomposed), 1);
            // `b` starts as zero, and with it the gradient of `a`.
            let adapted = map_parameters(adapted, |tensor, shape| Replacement {
                values: tensor
                    .ends_with("lora_b")
                    .then(|| (0..shape.iter().product::<usize>()).map(|i| 0.02 * (i % 7) as f32 - 0.06).collect()),
                trained: false,
            });
            let found = gradients(&adapted.clone().for_training(|tensor| tensor.contains(".lora.")));
            let merged = adapted.clone().merged();
            let whole =
                with_weights(Decoder::read(made.path(), &cpu()).unwrap().with_lora(&lora(decomposed), 1), &adapted);
            let expected = gradients(&whole.clone().for_training(|tensor| tensor.contains(".lora.")));
            assert_eq!(found.len(), expected.len(), "{name}");
            let alike = cosine(&found, &expected);
            assert!(alike > 0.99, "{name}, DoRA {decomposed}: gradients over integers and over numbers {alike}");
            let whole = loss(&whole);
            assert_eq!(named_parameters(&merged).len(), named_parameters(&numbers).len(), "{name}");
            assert!((loss(&merged) / whole - 1.0).abs() < 1e-4, "{name}: merged");
        }
        checked += 1;
    }
    assert!(checked >= 19, "only {checked} families");
}
