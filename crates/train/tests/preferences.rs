//! Preferences against TRL: its batches, from its weights, give its losses, gradient norms and rewards. What the files
//! of `golden/preferences` were made with stands in them under `versions`; the weights are those that TRL started with.

use burn::module::Module;
use narthex_base::{
    Observer, Result,
    config::{Batching, Checkpointing, LearningRate, Machine, Preference as Settings, Reports, Schedule, Update},
    random::Stream,
};
use narthex_model::{Decoder, LoraSpec, cpu};
use narthex_text::{ShardWriter, TokenShard};
use narthex_train::{
    Objective, Selection, Training, fit,
    objective::{Answer, DecoderPass, PairBatch, Parts, Pass, Place, Preference, TokenData, Units},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preferences")
}

fn recorded(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn answer(row: &Value) -> Answer {
    let tokens: Vec<u32> = row[1].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let prompt_len = row[0].as_u64().unwrap() as usize;
    Answer { own: (0..tokens.len()).map(|i| i >= prompt_len).collect(), tokens }
}

fn pairs(batch: &Value) -> Vec<[Answer; 2]> {
    batch.as_array().unwrap().iter().map(|pair| [answer(&pair[0]), answer(&pair[1])]).collect()
}

/// A preference objective whose batches are the recorded ones.
struct Recorded<'a> {
    objective: Preference<'a>,
    batches: Vec<PairBatch>,
}

impl Objective<Decoder> for Recorded<'_> {
    type Batch = PairBatch;
    const VALUES: &'static [&'static str] = <Preference as Objective<Decoder>>::VALUES;

    fn units(&self, model: &Decoder) -> Units {
        self.objective.units(model)
    }
    fn batch(&self, place: Place<Decoder>) -> Result<PairBatch> {
        Ok(self.batches[place.index as usize].clone())
    }
    fn weight(&self, batch: &PairBatch) -> u64 {
        self.objective.weight(batch)
    }
    fn loss(&self, model: &Decoder, batch: &PairBatch, noise: Stream, scale: f64) -> narthex_train::objective::Loss {
        self.objective.loss(model, batch, noise, scale)
    }
    fn part(&self, parameter: &str) -> usize {
        self.objective.part(parameter)
    }
    fn pass(
        &self,
        parts: &mut dyn Parts<Decoder>,
        batch: Option<&PairBatch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        self.objective.pass(parts, batch, noise, scale)
    }
}

/// A shard of the pairs of all batches.
fn shard(folder: &Path, batches: &[Vec<[Answer; 2]>]) -> TokenShard {
    let path = folder.join("pairs.tokens");
    let mut writer = ShardWriter::create_pairs(&path, 384).unwrap();
    for answer in batches.iter().flatten().flatten() {
        writer.push(&answer.tokens, Some(&answer.own), 1).unwrap();
    }
    writer.finish().unwrap();
    TokenShard::open(&path).unwrap()
}

fn schedule(steps: u64, batch_size: usize, gradient_accumulation: usize, context: usize) -> Schedule {
    Schedule {
        batches: Batching { steps, batch_size, gradient_accumulation, context, ..Default::default() },
        rate: LearningRate { lr: 1e-3, lr_end: 1.0, warmup: 0, ..LearningRate::default() },
        update: Update { weight_decay: 0.0, ..Update::default() },
        reports: Reports { eval_every: 0, sample_every: 0 },
        checkpoints: Checkpointing { checkpoint_every: 0, keep_checkpoints: false },
        ..Schedule::default()
    }
}

/// The lines of a run over the recorded batches.
fn run(name: &str, activation_checkpointing: bool) -> (Value, Vec<Value>) {
    let recorded = recorded(name);
    let folder = tempfile::tempdir().unwrap();
    let batches: Vec<Vec<[Answer; 2]>> = recorded["batches"].as_array().unwrap().iter().map(pairs).collect();
    let accumulation = recorded["options"]["gradient_accumulation_steps"].as_u64().unwrap_or(1) as usize;
    let mut schedule = schedule(10, batches[0].len(), accumulation, 255);
    schedule.machine = Machine { activation_checkpointing, ..Machine::default() };
    let model = Decoder::read(&golden(), &cpu()).unwrap();
    let data = shard(folder.path(), &batches);
    let tokens = TokenData::new(&data, None, &schedule);
    let objective = Recorded {
        objective: Preference::new(tokens, &Settings::default(), DecoderPass::new(&schedule), model.clone()).unwrap(),
        batches: batches.iter().map(|pairs| PairBatch::new(pairs, 255)).collect(),
    };
    let metrics = folder.path().join("metrics.jsonl");
    fit(model, &objective, &Training { schedule, metrics: Some(&metrics), ..Training::default() }).unwrap();
    let lines = std::fs::read_to_string(&metrics).unwrap();
    (recorded, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn losses_and_gradients_are_those_of_trl() {
    let mut of_runs = Vec::new();
    for name in ["dpo-sigmoid", "dpo-sigmoid-accumulate", "dpo-truncated"] {
        let (recorded, lines) = run(name, false);
        let steps = recorded["steps"].as_array().unwrap();
        assert_eq!((steps.len(), lines.len()), (10, 10));
        assert!((lines[0]["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-6, "{name}: {}", lines[0]);
        for (i, (line, step)) in lines.iter().zip(steps).enumerate() {
            for (key, expected) in step.as_object().unwrap() {
                let (found, expected) = (line[key].as_f64().unwrap(), expected.as_f64().unwrap());
                let tolerance = match key.as_str() {
                    "grad_norm" => 1e-3 * expected,
                    _ => 1e-4 * expected.abs().max(1.0),
                };
                assert!((found - expected).abs() <= tolerance, "{name} step {i} {key}: {found}, not {expected}");
            }
        }
        of_runs.push(lines);
    }
    for (whole, parts) in of_runs[0].iter().zip(&of_runs[1]) {
        for key in ["loss", "grad_norm"] {
            let [whole, parts] = [whole, parts].map(|line| line[key].as_f64().unwrap());
            assert!((whole - parts).abs() < 1e-6 * whole.max(1.0), "{key}: {whole} in one batch, {parts} in two");
        }
    }
    let (_, again) = run("dpo-sigmoid", true);
    for (line, other) in again.iter().zip(&of_runs[0]) {
        assert_eq!((&line["loss"], &line["grad_norm"]), (&other["loss"], &other["grad_norm"]), "checkpointed");
    }
}

/// Truncation as TRL does it: of the inputs in full, cut here, what is left is what TRL trained on.
#[test]
fn prompts_that_fill_the_context_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let whole: Vec<Vec<[Answer; 2]>> =
        recorded("dpo-sigmoid")["batches"].as_array().unwrap().iter().map(pairs).collect();
    let data = shard(folder.path(), &whole);
    let model = Decoder::read(&golden(), &cpu()).unwrap();
    let new = |context: usize| {
        let tokens = TokenData { train: &data, validation: None, rows: 4, len: context };
        Preference::new(tokens, &Settings::default(), DecoderPass::default(), model.clone())
    };
    let fits = |context: usize| {
        let long = |answer: &Answer| !answer.own.iter().take(context + 1).any(|own| *own);
        whole.iter().flatten().filter(|pair| !pair.iter().any(long)).count()
    };
    // TRL's `max_length` counts tokens, of which the last is a target only.
    for context in [23, 15, 255] {
        assert_eq!(40 - new(context).unwrap().dropped(), fits(context));
    }
    assert!((1..40).contains(&fits(23)), "some are dropped, some are not");
    let error = new(2).err().unwrap().to_string();
    assert!(error.contains("no prompt of the 40 pairs leaves room"), "{error}");
    let cut = recorded("dpo-truncated");
    let cut: Vec<[Answer; 2]> = cut["batches"].as_array().unwrap().iter().flat_map(pairs).collect();
    let unique = |pairs: Vec<[Answer; 2]>| {
        let mut batches: Vec<String> =
            pairs.iter().map(|pair| format!("{:?}", PairBatch::new(std::slice::from_ref(pair), 23))).collect();
        batches.sort();
        batches.dedup();
        batches
    };
    let fitting = whole
        .iter()
        .flatten()
        .filter(|pair| pair.iter().all(|answer| answer.own[..answer.own.len().min(24)].contains(&true)))
        .cloned();
    let ours = unique(fitting.collect());
    assert!(unique(cut).iter().all(|batch| ours.contains(batch)), "TRL's rows are our rows, cut at the end");
}

/// With adapters or without, resumed or not, in one thread or three: the chosen answers win, and the bytes are the
/// same.
#[test]
fn pairs_are_learnt_and_runs_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let batches: Vec<Vec<[Answer; 2]>> =
        recorded("dpo-sigmoid")["batches"].as_array().unwrap().iter().map(pairs).collect();
    let data = shard(folder.path(), &batches);
    let base = Decoder::read(&golden(), &cpu()).unwrap();
    let targets = ["q_proj", "v_proj", "down_proj"].map(String::from).to_vec();
    let lora = LoraSpec { rank: 4, alpha: 8.0, targets, dropout: 0.0, rank_stabilized: false, decomposed: false };
    for adapted in [false, true] {
        let learn = |stop_at: Option<u64>, work: &Path| {
            let mut schedule = schedule(12, 4, 1, 40);
            schedule.update.dropout = 0.1;
            schedule.checkpoints.checkpoint_every = 5;
            schedule.rate.lr = if adapted { 1e-2 } else { 2e-3 };
            let model = if adapted { base.clone().with_lora(&lora, 1) } else { base.clone() };
            let selection = if adapted { Selection::adapters(&model) } else { Selection::whole_decoder(&model) };
            let tokens = TokenData::new(&data, Some(&data), &schedule);
            let pass = DecoderPass::new(&schedule);
            let objective = Preference::new(tokens, &Settings::default(), pass, base.clone()).unwrap();
            let flag = std::sync::atomic::AtomicBool::new(false);
            let emit = |event| {
                if let narthex_base::Event::Metric { at, .. } = event
                    && Some(at) == stop_at
                {
                    flag.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            };
            let observer = Observer::new(&emit, &flag);
            let training = Training {
                selection: Some(selection),
                schedule,
                seed: 3,
                work: Some(work),
                observer,
                ..Training::default()
            };
            fit(model, &objective, &training).map(|fitted| (fitted.model.tensors(), fitted.figures))
        };
        let run = |threads: usize, stop_at: Option<u64>, work: &Path| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learn(stop_at, work))
        };
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(format!("{name}{adapted}")));
        [&whole, &parts].iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
        let expected = run(1, None, &whole).unwrap();
        assert!(expected.1["validation_rewards_accuracies"] > 0.8, "{:?}", expected.1);
        assert!(expected.1["validation_preference_loss"] < 0.65, "{:?}", expected.1);
        assert_eq!((expected.1["usable_pairs"], expected.1["dropped_pairs"]), (40.0, 0.0));
        run(1, Some(7), &parts).err().unwrap();
        let resumed = run(3, None, &parts).unwrap();
        assert!(resumed == expected, "adapters {adapted}: a resumed run is another");
        if adapted {
            let whole = base.devices();
            assert_eq!(whole.len(), 1, "the reference stays where it was");
        }
    }
}
