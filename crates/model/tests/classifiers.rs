//! Classifiers against what transformers and torch give for tiny random checkpoints (`xtask/goldens/classifiers.py`),
//! and against themselves.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Gradients, Int, TensorData, activation::log_softmax},
};
use narthex_base::random::Stream;
use narthex_model::{
    Classifier, Dropout, EncoderInput, LoraSpec, Precision, Replacement, Tensor, cpu, map_parameters, named_parameters,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

const NAMES: [&str; 5] = ["bert", "roberta", "modernbert", "llama", "gpt2"];

struct Golden {
    folder: PathBuf,
    inputs: Vec<EncoderInput>,
    logits: Vec<f32>,
    targets: Vec<i64>,
    json: Value,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Golden {
    let folder = folder(&format!("classifier-{name}"));
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_value(json["ids"].clone()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(json["logits"].clone()).unwrap();
    let targets = serde_json::from_value(json["targets"].clone()).unwrap();
    let inputs = ids.into_iter().map(|ids| EncoderInput { ids, types: vec![] }).collect();
    Golden { folder, inputs, logits: logits.concat(), targets, json }
}

fn read(golden: &Golden) -> Classifier {
    Classifier::read(&golden.folder, None, 0, &cpu()).unwrap()
}

fn scores(classifier: &Classifier, inputs: &[EncoderInput]) -> Vec<f32> {
    classifier.scores(&inputs.iter().collect::<Vec<_>>()).concat()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // NaN must not pass for nothing.
    a.iter().zip(b).map(|(a, b)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_transformers() {
    for name in NAMES {
        let golden = golden(name);
        let classifier = read(&golden);
        assert_eq!(classifier.labels(), ["ham", "maybe", "spam"], "{name}");
        let found = scores(&classifier, &golden.inputs);
        let error = distance(&found, &golden.logits);
        assert!(error < 1e-4, "{name}: {error}");
        let alone: Vec<f32> =
            golden.inputs.iter().flat_map(|input| scores(&classifier, std::slice::from_ref(input))).collect();
        assert_eq!(alone, found, "{name}: what else is in the batch must not matter");
        for packed in [classifier.pack(Precision::F32), Classifier::read_packed(&golden.folder, None).unwrap()] {
            let error = distance(&scores(&packed, &golden.inputs), &golden.logits);
            assert!(error < 1e-4, "{name}, packed: {error}");
        }
        let rough = Classifier::read_packed(&golden.folder, Some(Precision::Bf16)).unwrap();
        let error = distance(&scores(&rough, &golden.inputs), &golden.logits);
        assert!(error > 1e-5 && error < 0.5, "{name} in bf16: {error}");
    }
}

/// The mean cross-entropy, to be differentiated.
fn loss(classifier: &Classifier, golden: &Golden, dropout: &mut Dropout) -> Tensor<1> {
    let logits = classifier.logits(&golden.inputs.iter().collect::<Vec<_>>(), dropout);
    let count = golden.targets.len();
    let data = TensorData::new(golden.targets.clone(), [count, 1]);
    let targets = Tensor::<2, Int>::from_data(data, &classifier.device());
    log_softmax(logits, 1).gather(1, targets).sum() * (-1.0 / count as f64)
}

/// The Euclidean size of the gradient of each parameter that has one.
fn gradient_norms(classifier: &Classifier, gradients: &Gradients) -> Vec<(String, f64)> {
    struct Collect<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        found: Vec<(String, f64)>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                let square: f64 = gradient.into_data().iter::<f64>().map(|x| x * x).sum();
                self.found.push((self.path.join("."), square.sqrt()));
            }
        }
    }
    let mut collect = Collect { path: vec![], gradients, found: vec![] };
    classifier.visit(&mut collect);
    collect.found
}

#[test]
fn loss_and_gradients_are_those_of_torch() {
    for name in NAMES {
        let golden = golden(name);
        let classifier = read(&golden).for_training(|_| true);
        let loss = loss(&classifier, &golden, &mut Dropout::none());
        let expected = golden.json["loss"].as_f64().unwrap();
        let found = loss.clone().into_scalar::<f64>();
        assert!((found - expected).abs() < 1e-5 * expected, "{name}: {found} instead of {expected}");
        let mut found: Vec<f64> =
            gradient_norms(&classifier, &loss.backward()).into_iter().map(|(_, norm)| norm).collect();
        let mut expected: Vec<f64> =
            golden.json["gradient_norms"].as_object().unwrap().values().map(|norm| norm.as_f64().unwrap()).collect();
        // Where matrices of theirs are several of ours, only the whole can be compared.
        if found.len() == expected.len() {
            found.sort_by(f64::total_cmp);
            expected.sort_by(f64::total_cmp);
        } else {
            assert!(["modernbert", "gpt2"].contains(&name), "{name}");
            let whole = |norms: &[f64]| vec![norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()];
            (found, expected) = (whole(&found), whole(&expected));
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * expected + 1e-6, "{name}: {found} instead of {expected}");
        }
    }
}

#[test]
fn written_classifiers_read_back_the_same() {
    for name in NAMES {
        let golden = golden(name);
        let (classifier, made) = (read(&golden), tempfile::tempdir().unwrap());
        classifier.write(made.path()).unwrap();
        let again = Classifier::read(made.path(), None, 0, &cpu()).unwrap();
        assert_eq!(named_parameters(&classifier), named_parameters(&again), "{name}");
        assert_eq!(classifier.labels(), again.labels(), "{name}");
        let names = |folder: &Path| {
            let stored = narthex_model::StoredWeights::open(folder).unwrap();
            stored.shapes().collect::<Vec<_>>()
        };
        assert_eq!(names(&golden.folder), names(made.path()), "{name}: names and shapes as transformers has them");
        let json = |folder: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
        };
        let (read, written) = (json(&golden.folder), json(made.path()));
        for key in ["model_type", "architectures", "id2label", "label2id"] {
            assert_eq!(read[key], written[key], "{name}: {key}");
        }
    }
}

fn spec(decomposed: bool) -> LoraSpec {
    let targets = ["q_proj", "v_proj", "up_proj"].map(String::from).to_vec();
    LoraSpec { rank: 2, alpha: 4.0, targets, dropout: 0.0, rank_stabilized: false, decomposed }
}

#[test]
fn adapters_learn_and_merge() {
    for (name, decomposed) in NAMES.into_iter().flat_map(|name| [false, true].map(|decomposed| (name, decomposed))) {
        let golden = golden(name);
        let adapted = read(&golden).with_lora(&spec(decomposed), 1);
        assert!(distance(&scores(&adapted, &golden.inputs), &golden.logits) < 1e-4, "{name}: as nothing at first");
        // `b` starts as zero, and with it the gradient of `a`.
        let adapted = map_parameters(adapted, |tensor, shape| Replacement {
            values: tensor
                .ends_with("lora_b")
                .then(|| (0..shape.iter().product::<usize>()).map(|i| 0.05 * (i % 7) as f32 - 0.15).collect()),
            trained: false,
        });
        let found = scores(&adapted, &golden.inputs);
        assert!(distance(&found, &golden.logits) > 1e-3, "{name}: the adapter does something");
        let (mut trained, head) = (adapted.adapter_parameters(), adapted.head_parameters());
        trained.extend(head.clone());
        let training = adapted.clone().for_training(|name| trained.iter().any(|known| known == name));
        let gradients = loss(&training, &golden, &mut Dropout::none()).backward();
        let norms = gradient_norms(&training, &gradients);
        let parts = if decomposed { 3 } else { 2 };
        let adapters = norms.iter().filter(|(name, _)| name.contains(".lora.")).count();
        let layers = if name == "modernbert" { 4 } else { 2 };
        assert_eq!(adapters, parts * 3 * layers, "{name}: three projections of each layer are adapted");
        assert!(norms.iter().all(|(_, norm)| *norm > 0.0), "{name}: {norms:?}");
        assert_eq!(norms.len(), trained.len(), "{name}: the head is trained too, and nothing else");
        let hidden = adapted.hidden_parameters();
        assert!(adapted.adapter_parameters().iter().all(|name| hidden.contains(name)) && !hidden.contains(&head[0]));
        let merged = distance(&scores(&adapted.clone().merged(), &golden.inputs), &found);
        assert!(merged < 1e-4, "{name}, DoRA {decomposed}: merged {merged}");
        let made = tempfile::tempdir().unwrap();
        adapted.write(made.path()).unwrap();
        let again = Classifier::read_packed(made.path(), Some(Precision::F32)).unwrap();
        let written = distance(&scores(&again, &golden.inputs), &found);
        assert!(written < 1e-4, "{name}, DoRA {decomposed}: written {written}");
    }
}

#[test]
fn dropout_repeats_and_has_gradients_of_its_own() {
    for name in NAMES {
        let golden = golden(name);
        let classifier = read(&golden).for_training(|_| true);
        let run = |seed: u64| {
            let mut dropout = Dropout::new(Stream::new(seed, "dropout"), 0.3);
            loss(&classifier, &golden, &mut dropout).into_scalar::<f64>()
        };
        assert_eq!(run(1), run(1), "{name}: the same counter drops the same");
        assert_ne!(run(1), run(2), "{name}");
        let mut dropout = Dropout::new(Stream::new(1, "dropout"), 0.3);
        let loss = loss(&classifier, &golden, &mut dropout);
        let norms = gradient_norms(&classifier, &loss.backward());
        assert!(norms.iter().all(|(_, norm)| norm.is_finite()), "{name}");
    }
}

fn labels(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn a_head_is_drawn_where_there_is_none() {
    let input = [EncoderInput { ids: vec![5, 6, 7], types: vec![] }];
    for name in ["encoder-bert", "encoder-bert-prefix", "encoder-roberta", "encoder-modernbert", "llama-untied", "gpt2"]
    {
        let read = |seed: u64| Classifier::read(&folder(name), Some(&labels(&["no", "yes"])), seed, &cpu()).unwrap();
        let (one, again, other) = (scores(&read(1), &input), scores(&read(1), &input), scores(&read(2), &input));
        assert_eq!((one.len(), &one), (2, &again), "{name}");
        assert_ne!(one, other, "{name}: another seed draws another head");
        let made = tempfile::tempdir().unwrap();
        read(1).write(made.path()).unwrap();
        let written = Classifier::read(made.path(), None, 0, &cpu()).unwrap();
        assert_eq!((written.labels(), scores(&written, &input)), (&labels(&["no", "yes"])[..], one), "{name}");
    }
    // Other labels than the folder's: a new last layer over the rest of its head.
    for name in NAMES {
        let golden = golden(name);
        let other = Classifier::read(&golden.folder, Some(&labels(&["a", "b"])), 1, &cpu()).unwrap();
        assert_eq!(scores(&other, &golden.inputs).len(), 2 * golden.inputs.len(), "{name}");
        let kept = |classifier: &Classifier| {
            let all = named_parameters(classifier).into_iter();
            all.filter(|tensor| !tensor.name.starts_with("head.out")).collect::<Vec<_>>()
        };
        assert_eq!(kept(&other), kept(&read(&golden)), "{name}");
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    let of = |name: &str, labels: Option<&[String]>| Classifier::read(&folder(name), labels, 0, &cpu()).unwrap_err();
    for (error, expected) in [
        (of("encoder-bert", None), "this model is no classifier"),
        (of("llama-tied", None), "this model is no classifier"),
        (of("encoder-bert", Some(&labels(&["a", "b", "a"]))), "the label `a` is there twice"),
        (of("encoder-bert", Some(&[])), "a classifier of 0 labels"),
        (of("nowhere", None), "cannot read"),
    ] {
        assert!(error.what().contains(expected), "{expected}: {error}");
    }
}
