//! Every family learns: a step down the gradient of all weights, or of adapters alone, lowers the loss by what the gradient says.

use burn::{module::ModuleVisitor, tensor::Tensor};
use narthex_model::{Decoder, Dropout, LoraSpec, Replacement, cpu, map_parameters, named_parameters};
use narthex_train::{Batch, nats};
use std::{collections::HashMap, path::Path};

const LEN: usize = 12;

fn batch() -> Batch {
    let ids = |shift: usize| (0..2 * LEN).map(|i| 3 + ((i + shift) * 7 % 80) as i64).collect::<Vec<_>>();
    Batch { rows: 2, len: LEN, tokens: ids(0), targets: ids(1), counts: vec![true; 2 * LEN], documents: None }
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

#[test]
fn a_step_down_the_gradient_lowers_the_loss() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    let mut checked = 0;
    for folder in std::fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !std::fs::read_to_string(folder.join("golden.json")).is_ok_and(|golden| golden.contains("greedy")) {
            continue;
        }
        let model = Decoder::read(&folder, &cpu()).unwrap();
        check(&name, model.clone(), |_| true);
        let targets = ["q_proj", "v_proj", "up_proj"].map(String::from).to_vec();
        for decomposed in [false, true] {
            let spec = LoraSpec {
                rank: 2,
                alpha: 4.0,
                targets: targets.clone(),
                dropout: 0.0,
                rank_stabilized: false,
                decomposed,
            };
            check(&name, model.clone().with_lora(&spec, 1), |tensor| tensor.contains(".lora."));
        }
        checked += 1;
    }
    assert!(checked >= 20, "only {checked} families");
}
