//! The training loop on a tiny model: it learns, resumes to the same bytes, and does not depend on
//! the number of threads.

use narthex_base::{
    Digest, ErrorKind, Event, Observer,
    config::{Batching, Checkpointing, LearningRate, Machine, Optimizer, Precision, Reports, Schedule, Update},
};
use narthex_model::{Decoder, Design, LoraSpec, ModelConfig, TensorMap, cpu};
use narthex_text::{ShardWriter, TokenShard};
use narthex_train::{
    Fitted, Selection, Training, fit, has_checkpoint,
    objective::{Chat, DecoderPass, Pretrain, TokenData},
    replay,
};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 24,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_width: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tied_embeddings: true,
        context: 16,
        bos_token: None,
        eos_tokens: vec![],
        design: Design::default(),
    }
}

/// Documents that count upwards from different starts; the first two tokens are the question.
fn shard(folder: &Path) -> TokenShard {
    let path = folder.join("data.tokens");
    let mut writer = ShardWriter::create(&path, 32, true).unwrap();
    for start in 0..40u32 {
        let ids: Vec<u32> = (0..10).map(|i| (start * 3 + i * (1 + start % 2)) % 32).collect();
        let mask: Vec<bool> = (0..10).map(|i| i >= 2).collect();
        writer.push(&ids, Some(&mask), 20).unwrap();
    }
    writer.finish().unwrap();
    TokenShard::open(&path).unwrap()
}

fn schedule(steps: u64) -> Schedule {
    Schedule {
        batches: Batching { steps, batch_size: 4, gradient_accumulation: 2, context: 16, ..Default::default() },
        rate: LearningRate { lr: 1e-2, warmup: 3, ..LearningRate::default() },
        update: Update { dropout: 0.1, ..Update::default() },
        reports: Reports { eval_every: 5, ..Reports::default() },
        checkpoints: Checkpointing { checkpoint_every: 4, ..Checkpointing::default() },
        ..Schedule::default()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Learnt {
    Text { document_mask: bool },
    Answers,
}

#[derive(Clone, Copy, PartialEq)]
enum Trained {
    All,
    Adapters,
}

struct Case {
    learnt: Learnt,
    trained: Trained,
    precision: Precision,
    optimizer: Optimizer,
}

const PLAIN: Case = Case {
    learnt: Learnt::Text { document_mask: false },
    trained: Trained::All,
    precision: Precision::F32,
    optimizer: Optimizer::Adamw,
};

const CASES: [Case; 5] = [
    PLAIN,
    Case { learnt: Learnt::Answers, ..PLAIN },
    Case { learnt: Learnt::Answers, trained: Trained::Adapters, ..PLAIN },
    Case { learnt: Learnt::Text { document_mask: true }, precision: Precision::Bf16, ..PLAIN },
    Case { optimizer: Optimizer::Muon, ..PLAIN },
];

fn model(case: &Case) -> Decoder {
    let model = Decoder::random(&config(), 1, &cpu());
    let targets = ["q_proj", "v_proj", "down_proj"].map(String::from).to_vec();
    match case.trained {
        Trained::All => model,
        Trained::Adapters => model.with_lora(
            &LoraSpec { rank: 4, alpha: 8.0, targets, dropout: 0.2, rank_stabilized: false, decomposed: false },
            1,
        ),
    }
}

/// Calls `fit` or `replay` with what a case asks for.
macro_rules! with_case {
    ($case:expr, $data:expr, $validation:expr, $schedule:expr, |$model:ident, $objective:ident, $selection:ident| $call:expr) => {{
        let $model = model($case).with_precision($case.precision);
        let $selection = Some(match $case.trained {
            Trained::All => Selection::whole_decoder(&$model),
            Trained::Adapters => Selection::adapters(&$model),
        });
        let tokens = TokenData::new($data, $validation, $schedule);
        match $case.learnt {
            Learnt::Text { document_mask } => {
                let $objective = &Pretrain::new(tokens, document_mask, DecoderPass::new($schedule)).unwrap();
                $call
            }
            Learnt::Answers => {
                let $objective = &Chat::new(tokens, DecoderPass::new($schedule)).unwrap();
                $call
            }
        }
    }};
}

/// The schedule in a case's precision and with its optimizer.
fn of_case(case: &Case, schedule: &Schedule) -> Schedule {
    let Schedule { machine, update, .. } = schedule.clone();
    Schedule {
        machine: Machine { precision: case.precision, ..machine },
        update: Update { optimizer: case.optimizer, ..update },
        ..schedule.clone()
    }
}

fn train(
    case: &Case,
    data: &TokenShard,
    work: &Path,
    schedule: &Schedule,
    observer: Observer,
) -> narthex_base::Result<Fitted<Decoder>> {
    train_as("run", case, data, work, schedule, observer)
}

fn train_as(
    run: &str,
    case: &Case,
    data: &TokenShard,
    work: &Path,
    schedule: &Schedule,
    observer: Observer,
) -> narthex_base::Result<Fitted<Decoder>> {
    let schedule = of_case(case, schedule);
    let metrics = work.join("metrics.jsonl");
    with_case!(case, data, Some(data), &schedule, |model, objective, selection| fit(
        model,
        objective,
        &Training {
            selection,
            schedule: schedule.clone(),
            seed: 5,
            run: Some(Digest::of(run.as_bytes())),
            work: Some(work),
            metrics: Some(&metrics),
            observer,
            ..Training::default()
        },
    ))
}

fn weights(fitted: &Fitted<Decoder>) -> TensorMap {
    fitted.model.tensors()
}

#[test]
fn it_learns() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    for (i, case) in CASES.iter().enumerate() {
        let work = folder.path().join(i.to_string());
        std::fs::create_dir_all(&work).unwrap();
        // Adapters cannot move the embeddings, so on a random base they learn little, and with a higher rate.
        let (lr, wanted) = if case.trained == Trained::All { (1e-2, 2.3) } else { (1e-1, 3.36) };
        let schedule =
            Schedule { rate: LearningRate { lr, ..schedule(60).rate }, update: Update::default(), ..schedule(60) };
        let fitted = train(case, &data, &work, &schedule, Observer::silent()).unwrap();
        let loss = fitted.figures["validation_nats_per_token"];
        // Guessing costs ln 32 = 3.47 nats.
        assert!(loss < wanted, "case {i}: {loss}");
        let lines = std::fs::read_to_string(work.join("metrics.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 60);
    }
}

#[test]
fn resumed_is_what_it_would_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    for (i, case) in CASES.iter().enumerate() {
        let (whole, parts) = (folder.path().join(format!("whole{i}")), folder.path().join(format!("parts{i}")));
        [&whole, &parts].iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
        let expected = train(case, &data, &whole, &schedule(15), Observer::silent()).unwrap();
        for stop_at in [2, 9] {
            let flag = AtomicBool::new(false);
            let emit = |event: Event| {
                if matches!(event, Event::Metric { at, .. } if at == stop_at) {
                    flag.store(true, Ordering::Relaxed);
                }
            };
            let error = train(case, &data, &parts, &schedule(15), Observer::new(&emit, &flag)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        let resumed = train(case, &data, &parts, &schedule(15), Observer::silent()).unwrap();
        assert_eq!(weights(&resumed), weights(&expected), "case {i}");
        assert_eq!(resumed.figures, expected.figures);
        let losses = |path: &Path| -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].clone()).collect()
        };
        assert_eq!(losses(&whole), losses(&parts));
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    let case = &CASES[0];
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    [&whole, &parts].iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
    let expected = train(case, &data, &whole, &schedule(10), Observer::silent()).unwrap();
    // The schedule leaves checkpoints of steps 8 and 10 behind.
    train(case, &data, &parts, &schedule(10), Observer::silent()).unwrap();
    let newest = parts.join("checkpoint-10/weights.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let warnings = std::sync::Mutex::new(vec![]);
    let emit = |event: Event| {
        if let Event::Warning { message, .. } = event {
            warnings.lock().unwrap().push(message);
        }
    };
    let never = AtomicBool::new(false);
    let resumed = train(case, &data, &parts, &schedule(10), Observer::new(&emit, &never)).unwrap();
    assert_eq!(weights(&resumed), weights(&expected));
    let warnings = warnings.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("step 10 is damaged"), "{warnings:?}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    for (i, case) in CASES.iter().enumerate() {
        let run = |threads: usize| {
            let work = folder.path().join(format!("case{i}-threads{threads}"));
            std::fs::create_dir_all(&work).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| weights(&train(case, &data, &work, &schedule(6), Observer::silent()).unwrap()))
        };
        assert_eq!(run(1), run(3), "case {i}");
    }
}

#[test]
fn keeping_fewer_activations_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    for (i, case) in CASES.iter().enumerate() {
        let run = |activation_checkpointing: bool| {
            let work = folder.path().join(format!("case{i}-{activation_checkpointing}"));
            std::fs::create_dir_all(&work).unwrap();
            let machine = Machine { activation_checkpointing, ..Machine::default() };
            let schedule = Schedule { machine, ..schedule(6) };
            weights(&train(case, &data, &work, &schedule, Observer::silent()).unwrap())
        };
        assert_eq!(run(false), run(true), "case {i}");
    }
}

#[test]
fn accumulation_is_the_same_as_a_larger_batch() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    let case = &CASES[0];
    let loss = |batch_size, gradient_accumulation| {
        let work = folder.path().join(format!("{batch_size}x{gradient_accumulation}"));
        std::fs::create_dir_all(&work).unwrap();
        let batches = Batching { batch_size, gradient_accumulation, ..schedule(8).batches };
        let schedule = Schedule { batches, update: Update::default(), ..schedule(8) };
        train(case, &data, &work, &schedule, Observer::silent()).unwrap().figures["validation_nats_per_token"]
    };
    assert!((loss(8, 1) - loss(2, 4)).abs() < 1e-4);
}

#[test]
fn another_runs_checkpoints_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    let checkpoints = Checkpointing { checkpoint_every: 2, keep_checkpoints: false };
    let fit_as = |run: &str, steps: u64| {
        let schedule = Schedule { checkpoints: checkpoints.clone(), ..schedule(steps) };
        train_as(run, &PLAIN, &data, folder.path(), &schedule, Observer::silent()).unwrap();
        let entries = std::fs::read_dir(folder.path()).unwrap().flatten();
        let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok();
        let mut steps: Vec<u64> = entries.filter_map(name).collect();
        steps.sort_unstable();
        steps
    };
    assert_eq!(fit_as("a", 10), [8, 10]);
    assert_eq!(fit_as("b", 5), [4, 5, 8, 10]);
}

#[test]
fn a_run_that_has_diverged_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    let rate = LearningRate { lr: 1e30, warmup: 0, ..LearningRate::default() };
    let schedule = Schedule { rate, ..schedule(6) };
    for attempt in ["at once", "from its last checkpoint"] {
        let error = train(&PLAIN, &data, folder.path(), &schedule, Observer::silent()).err().unwrap();
        assert!(error.what().contains("training has diverged"), "{attempt}: {error}");
    }
}

#[test]
fn any_interval_can_be_taken_again() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let data = shard(folder.path());
        let checkpoints = Checkpointing { checkpoint_every: 4, keep_checkpoints: true };
        let kept = Schedule { checkpoints, ..schedule(10) };
        let fitted = train(&case, &data, folder.path(), &kept, Observer::silent()).unwrap();
        let steps: Vec<u64> = fitted.passed.iter().map(|passed| passed.step).collect();
        assert_eq!(steps, [4, 8, 10]);
        // Stopped and taken up again, the same states are passed and the same is told; also when nothing but the last
        // validation was left, and when no checkpoints are asked for.
        for (stop, checkpoint_every) in [(5, 4), (10, 4), (10, 0)] {
            let halves = tempfile::tempdir().unwrap();
            let checkpoints = Checkpointing { checkpoint_every, keep_checkpoints: checkpoint_every > 0 };
            let asked = Schedule { checkpoints, ..kept.clone() };
            let interrupt = AtomicBool::new(false);
            let emit = |event| {
                if let Event::Metric { at, .. } = event {
                    interrupt.fetch_or(at == stop, Ordering::Relaxed);
                }
            };
            train(&case, &data, halves.path(), &asked, Observer::new(&emit, &interrupt)).err().unwrap();
            assert!(has_checkpoint(halves.path(), None), "stopped at {stop}");
            let resumed = train(&case, &data, halves.path(), &asked, Observer::silent()).unwrap();
            assert_eq!(resumed.figures, fitted.figures, "stopped at {stop}");
            assert!(checkpoint_every == 0 || resumed.passed == fitted.passed, "stopped at {stop}");
        }
        let again = |from: Option<usize>, until: u64, seed: u64| {
            let scratch = tempfile::tempdir().unwrap();
            let schedule = of_case(&case, &kept);
            let state = from.map(|index| &fitted.passed[index]);
            let path = state.map(|state| folder.path().join(format!("checkpoint-{}", state.step)));
            with_case!(&case, &data, None, &schedule, |model, objective, selection| replay(
                model,
                objective,
                &Training {
                    selection,
                    schedule: schedule.clone(),
                    seed,
                    work: Some(scratch.path()),
                    ..Training::default()
                },
                path.as_deref().zip(state),
                until,
            ))
        };
        let passed = |index: usize| fitted.passed[index].clone();
        assert_eq!(again(None, 4, 5).unwrap(), passed(0));
        assert_eq!(again(Some(0), 8, 5).unwrap(), passed(1));
        assert_eq!(again(Some(1), 10, 5).unwrap(), passed(2));
        assert_ne!(again(Some(1), 10, 6).unwrap(), passed(2), "another seed");
        let weights = folder.path().join("checkpoint-4/weights.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&weights, bytes).unwrap();
        assert!(again(Some(0), 8, 5).unwrap_err().what().contains("weights.safetensors of step 4"));
    }
}
