//! Classifying texts: the losses and gradients of transformers and torch, and the same bytes on any number of threads,
//! after an interruption, and with adapters.

use narthex_base::{
    ErrorKind, Event, Observer, Result,
    config::{Batching, Checkpointing, LearningRate, Reports, Schedule, Update},
    random::Stream,
};
use narthex_model::{Classifier, EncoderInput, LoraSpec, TensorMap, cpu, named_parameters};
use narthex_train::{
    LabelFigures, Objective, Selection, Training, fit,
    objective::{Classify, Collected, LabelledText, Place},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

fn golden(name: &str) -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name);
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    (folder, serde_json::from_str(&text).unwrap())
}

/// The texts whose loss torch has computed.
fn texts(golden: &Value) -> Vec<LabelledText> {
    let ids: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let labels: Vec<usize> = serde_json::from_value(golden["targets"].clone()).unwrap();
    let text = |(ids, label)| LabelledText { input: EncoderInput { ids, types: vec![] }, label };
    ids.into_iter().zip(labels).map(text).collect()
}

/// Texts of 3 to 12 tokens whose label is the parity of the second one.
fn parities(count: u64) -> Vec<LabelledText> {
    let text = |number| {
        let stream = Stream::new(5, "parities").at(number);
        let ids: Vec<u32> = (0..3 + stream.below(0, 10)).map(|place| 5 + stream.below(1 + place, 20) as u32).collect();
        LabelledText { label: (ids[1] % 2) as usize, input: EncoderInput { ids, types: vec![] } }
    };
    (0..count).map(text).collect()
}

fn schedule(steps: u64) -> Schedule {
    Schedule {
        batches: Batching { steps, batch_size: 8, context: 16, ..Default::default() },
        rate: LearningRate { lr: 3e-3, warmup: 5, ..LearningRate::default() },
        update: Update { weight_decay: 0.0, ..Update::default() },
        reports: Reports { eval_every: 0, sample_every: 0 },
        checkpoints: Checkpointing { checkpoint_every: 4, keep_checkpoints: false },
        ..Schedule::default()
    }
}

#[test]
fn losses_and_gradients_are_those_of_torch() {
    for name in ["bert", "roberta", "modernbert", "llama", "gpt2"] {
        let (folder, golden) = golden(&format!("classifier-{name}"));
        let classifier = Classifier::read(&folder, None, 0, &cpu()).unwrap();
        let texts = texts(&golden);
        let objective = Classify::new(&classifier, &texts, &[], texts.len(), 0.0).unwrap();
        let place = Place { seed: 1, index: 0, network: None };
        let mut batch = objective.batch(place).unwrap();
        batch.sort_unstable();
        assert_eq!(batch, [0, 1, 2, 3], "{name}: an epoch meets every text");
        let weight = <Classify as Objective<Classifier>>::weight(&objective, &batch) as f64;
        let tracked = classifier.for_training(|_| true);
        let mut collected = Collected::new(&tracked);
        let pass = objective.pass(&mut collected, Some(&batch), Stream::new(0, "noise"), 1.0 / weight);
        let pass = pass.unwrap().unwrap();
        let expected = golden["loss"].as_f64().unwrap();
        assert!((pass.loss - expected).abs() < 1e-5 * expected, "{name}: {} instead of {expected}", pass.loss);
        let norms = golden["gradient_norms"].as_object().unwrap().values();
        let expected = norms.map(|norm| norm.as_f64().unwrap().powi(2)).sum::<f64>().sqrt();
        let mut gradients = collected.gradients;
        let mut square = |name: &str| -> f64 {
            let gradient = gradients.remove(name).map(|gradient| gradient.into_data());
            gradient.iter().flat_map(|gradient| gradient.iter::<f64>()).map(|x| x * x).sum()
        };
        let found = named_parameters(&tracked).iter().map(|tensor| square(&tensor.name)).sum::<f64>().sqrt();
        assert!((found - expected).abs() < 1e-4 * expected, "{name}: {found} instead of {expected}");
    }
}

#[test]
fn an_epoch_meets_every_text_once_and_no_batch_is_empty() {
    let (folder, _) = golden("classifier-bert");
    let classifier = Classifier::read(&folder, None, 0, &cpu()).unwrap();
    for (count, rows) in [(1, 8), (8, 8), (9, 8), (131, 8), (200, 3)] {
        let texts = parities(count);
        let objective = Classify::new(&classifier, &texts, &[], rows, 0.0).unwrap();
        let per_epoch = objective.batches_per_epoch();
        let batch = |index| objective.batch(Place { seed: 2, index, network: None }).unwrap();
        for epoch in 0..2 {
            let batches: Vec<Vec<usize>> = (epoch * per_epoch..(epoch + 1) * per_epoch).map(batch).collect();
            assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= rows), "{count} by {rows}");
            let mut all = batches.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count as usize), "{count} by {rows}, epoch {epoch}");
        }
        assert_eq!(batch(0), batch(0));
        assert!(count < 100 || batch(0) != batch(per_epoch), "{count} by {rows}: epochs differ");
    }
}

/// The classifier after `steps` on texts of two labels.
fn fitted(steps: u64, work: Option<&Path>, lora: bool, observer: Observer) -> Result<(Classifier, LabelFigures)> {
    let (folder, _) = golden("classifier-bert");
    let labels = ["even".to_string(), "odd".to_string()];
    let classifier = Classifier::read(&folder, Some(&labels), 1, &cpu())?;
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"].map(String::from).to_vec();
    let spec = LoraSpec { rank: 8, alpha: 32.0, targets, dropout: 0.0, rank_stabilized: false, decomposed: false };
    let classifier = if lora { classifier.with_lora(&spec, 1) } else { classifier };
    let (train, held) = (parities(256), parities(320).split_off(256));
    let objective = Classify::new(&classifier, &train, &held, 8, 0.1)?.balanced();
    let trained: Vec<String> =
        classifier.adapter_parameters().into_iter().chain(classifier.head_parameters()).collect();
    let selection = match lora {
        true => Selection::named(&classifier, |name| trained.iter().any(|known| known == name)),
        false => Selection::all(&classifier),
    };
    let training = Training {
        schedule: schedule(steps),
        seed: 4,
        selection: Some(selection),
        work,
        observer,
        ..Training::default()
    };
    let model = fit(classifier, &objective, &training)?.model;
    let figures = Classify::measure(&model, &held, Observer::silent())?;
    Ok((model, figures))
}

fn weights(classifier: &Classifier) -> Vec<(String, Vec<f32>)> {
    named_parameters(classifier).into_iter().map(|tensor| (tensor.name, tensor.values)).collect()
}

#[test]
fn threads_and_interruptions_change_no_byte() {
    let whole = fitted(12, None, false, Observer::silent()).unwrap().0;
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| fitted(12, None, false, Observer::silent()).unwrap().0);
        assert_eq!(weights(&whole), weights(&again), "{threads} threads");
    }
    let work = tempfile::tempdir().unwrap();
    let interrupt = AtomicBool::new(false);
    let emit = |event| {
        if let Event::Metric { at: 9, .. } = event {
            interrupt.store(true, Ordering::Relaxed);
        }
    };
    let stopped = fitted(12, Some(work.path()), false, Observer::new(&emit, &interrupt)).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    let resumed = fitted(12, Some(work.path()), false, Observer::silent()).unwrap().0;
    assert_eq!(weights(&whole), weights(&resumed));
}

#[test]
fn what_is_learnt_is_told_and_adapters_leave_the_rest_alone() {
    let (before, _) = fitted(1, None, true, Observer::silent()).unwrap();
    for (lora, least) in [(false, 0.95), (true, 0.7)] {
        let (model, found) = fitted(300, None, lora, Observer::silent()).unwrap();
        assert!(found.accuracy > least, "adapters: {lora}, {found:?}");
        assert!(found.f1.iter().chain(&found.pr_auc).all(|value| *value > least - 0.1), "{found:?}");
        if lora {
            let kept = |model: &Classifier| -> TensorMap {
                let all = named_parameters(model).into_iter();
                let base = all.filter(|tensor| !tensor.name.contains(".lora.") && !tensor.name.starts_with("head."));
                base.map(|tensor| (tensor.name, (tensor.shape, tensor.values))).collect()
            };
            assert_eq!(kept(&before), kept(&model));
        }
    }
}
