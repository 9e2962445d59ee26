//! Every family learns: a step down the gradient of all weights, or of adapters alone, lowers the loss by what the
//! gradient says.

use burn::{module::ModuleVisitor, tensor::Tensor};
use narthex_base::{
    Result,
    config::{Batching, LearningRate, Machine, Precision, Reports, Schedule, Shard, Update},
    random::Stream,
};
use narthex_model::{
    Decoder, Dropout, LoraSpec, Module, Quantization, Replacement, calibrate::Calibration, cpu,
    integer_folder::write_quantized, map_parameters, named_parameters,
};
use narthex_train::{
    Alone, Objective, Ranks, Selection, Training, World, fit,
    objective::{DecoderPass, Loss, Parts, Pass, Place, TokenBatch, Units, nats},
    threads,
};
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

/// Batches that differ by their number.
struct Shifted(DecoderPass);

impl Objective<Decoder> for Shifted {
    type Batch = TokenBatch;

    fn units(&self, model: &Decoder) -> Units {
        Units {
            item: "tokens",
            items_per_batch: 2 * LEN as u64,
            flop_per_item: None,
            loss_figure: "training_nats_per_token",
            parameters: model.config().parameters(),
        }
    }
    fn batch(&self, place: Place<Decoder>) -> Result<TokenBatch> {
        let mut batch = batch();
        batch.tokens.iter_mut().for_each(|token| *token = 3 + (*token + 5 * place.index as i64) % 80);
        Ok(batch)
    }
    fn weight(&self, batch: &TokenBatch) -> u64 {
        batch.counted() as u64
    }
    fn loss(&self, model: &Decoder, batch: &TokenBatch, noise: Stream, scale: f64) -> Loss {
        self.0.loss(model, batch, noise, scale)
    }
    fn part(&self, parameter: &str) -> usize {
        self.0.part(parameter)
    }
    fn rounded_parameters(&self, model: &Decoder) -> Vec<String> {
        model.rounded_parameters()
    }
    fn pass(
        &self,
        parts: &mut dyn Parts<Decoder>,
        batch: Option<&TokenBatch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        self.0.pass(parts, batch, noise, scale)
    }
}

/// The bits of all weights after a few steps.
fn trained(model: Decoder, selection: &Selection, shard: Shard, world: &dyn World) -> Vec<u32> {
    let schedule = Schedule {
        batches: Batching { steps: 2, gradient_accumulation: 3, batch_size: 2, context: LEN, ..Default::default() },
        rate: LearningRate { lr: 1e-2, warmup: 0, ..Default::default() },
        machine: Machine { shard, ..Default::default() },
        update: Update { dropout: 0.1, ..Default::default() },
        reports: Reports { eval_every: 0, ..Default::default() },
        ..Default::default()
    };
    let objective = Shifted(DecoderPass::new(&schedule));
    let training = Training { schedule, selection: Some(selection.clone()), world, ..Default::default() };
    let model = fit(model, &objective, &training).unwrap().model;
    named_parameters(&model).into_iter().flat_map(|tensor| tensor.values).map(f32::to_bits).collect()
}

/// Two processes that put blocks together as they need them end in the bits of one that has all. Gives the bytes that
/// they have sent.
fn check_in_parts(name: &str, model: &Decoder, selection: &Selection) -> u64 {
    let expected = trained(model.clone(), selection, Shard::None, &Alone);
    let again = trained(model.clone(), selection, Shard::Parameters, &Alone);
    assert!(again == expected, "{name}: other bits where blocks are computed again");
    let ranks = std::thread::scope(|scope| {
        let run = |mesh| {
            scope.spawn(|| {
                let world = Ranks::meet(mesh, &[]).unwrap();
                let bits = trained(model.clone(), selection, Shard::Parameters, &world);
                (bits, world.traffic().sent_bytes)
            })
        };
        let running: Vec<_> = threads(2).into_iter().map(run).collect();
        running.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
    });
    // The first rank alone has the model at the end.
    assert!(ranks[0].0 == expected, "{name}: other bits in parts");
    let before: Vec<u32> =
        named_parameters(model).into_iter().flat_map(|tensor| tensor.values).map(f32::to_bits).collect();
    assert!(before != expected, "{name}: nothing was learnt");
    ranks.iter().map(|(_, sent)| sent).sum()
}

#[test]
fn every_family_is_trained_in_parts() {
    for (name, folder) in families() {
        let model = Decoder::read(&folder, &cpu()).unwrap();
        let mut sent = vec![];
        for precision in [Precision::F32, Precision::Bf16] {
            let model = model.clone().with_precision(precision);
            sent.push(check_in_parts(&format!("{name}, {precision:?}"), &model, &Selection::whole_decoder(&model)));
            for decomposed in [false, true] {
                let adapted = model.clone().with_lora(&lora(decomposed), 1);
                let name = format!("{name}, {precision:?}, adapters, decomposed {decomposed}");
                check_in_parts(&name, &adapted, &Selection::adapters(&adapted));
            }
        }
        // Weights of blocks that products round travel rounded.
        assert!(sent[1] < sent[0] * 9 / 10, "{name}: {sent:?} bytes in f32 and in bf16");
        let made = tempfile::tempdir().unwrap();
        if write_quantized(&folder, made.path(), Quantization::Int8, &Calibration::default()).is_ok() {
            let frozen = Decoder::read_frozen(made.path()).unwrap().with_precision(Precision::Bf16);
            let adapted = frozen.with_lora(&lora(false), 1);
            check_in_parts(&format!("{name}, over integers"), &adapted, &Selection::adapters(&adapted));
        }
    }
}
