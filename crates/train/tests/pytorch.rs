//! Losses are those of PyTorch: from the same weights and data, of one process and of several.

use narthex_base::{
    Result,
    config::{Batching, Decay, LearningRate, Machine, Reports, Schedule, Shard, Update},
    random::Stream,
};
use narthex_model::{Decoder, Design, ModelConfig, Replacement, cpu, map_parameters};
use narthex_train::{
    Alone, Communicator, Objective, Ranks, Training, World, fit,
    objective::{DecoderPass, Loss, Parts, Pass, Place, TokenBatch, Units},
    threads,
};

const VOCABULARY: usize = 97;
const ROWS: usize = 3;
const LENGTH: usize = 48;
const STEPS: u64 = 100;

/// The token that `xtask/goldens/training.py` puts there.
fn token(batch: usize, row: usize, i: usize) -> i64 {
    ((batch * 7 + row * 31 + i * 3 + i / 7) % VOCABULARY) as i64
}

/// The weights that it starts with.
fn model(names: &[String]) -> Decoder {
    let config = ModelConfig {
        vocab_size: VOCABULARY,
        hidden_size: 64,
        intermediate_size: 172,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_width: 16,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tied_embeddings: false,
        context: LENGTH,
        bos_token: None,
        eos_tokens: vec![],
        design: Design::default(),
    };
    map_parameters(Decoder::random(&config, 0, &cpu()), |name, shape| {
        let number = names.iter().position(|known| known == name).expect("a tensor that PyTorch has too");
        let value = |i: usize| match shape.len() {
            1 => 1.0,
            _ => (0.08 * (0.37 * ((i + 1) * (i + 1)) as f64 + number as f64).sin()) as f32,
        };
        Replacement { values: Some((0..shape.iter().product()).map(value).collect()), trained: false }
    })
}

/// Its batches, by number.
struct Formula(DecoderPass);

impl Objective<Decoder> for Formula {
    type Batch = TokenBatch;

    fn units(&self, model: &Decoder) -> Units {
        Units {
            item: "tokens",
            items_per_batch: (ROWS * LENGTH) as u64,
            flop_per_item: None,
            loss_figure: "training_nats_per_token",
            parameters: model.config().parameters(),
        }
    }
    fn batch(&self, place: Place<Decoder>) -> Result<TokenBatch> {
        let batch = place.index as usize;
        let ids = |shift: usize| {
            (0..ROWS).flat_map(|row| (0..LENGTH).map(move |i| token(batch, row, i + shift))).collect::<Vec<i64>>()
        };
        Ok(TokenBatch {
            rows: ROWS,
            len: LENGTH,
            tokens: ids(0),
            targets: ids(1),
            counts: vec![true; ROWS * LENGTH],
            documents: None,
        })
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

/// The loss of each step, as the metrics have it.
fn losses(names: &[String], micro_batches: usize, machine: Machine, world: &dyn World) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let schedule = Schedule {
        batches: Batching {
            steps: STEPS,
            batch_size: ROWS,
            gradient_accumulation: micro_batches,
            context: LENGTH,
            ..Default::default()
        },
        rate: LearningRate { lr: 1e-3, warmup: 0, decay: Decay::Wsd, decay_fraction: 0.0, ..Default::default() },
        machine,
        update: Update { weight_decay: 0.1, beta2: 0.99, ..Default::default() },
        reports: Reports { eval_every: 0, ..Default::default() },
        ..Default::default()
    };
    let objective = Formula(DecoderPass::new(&schedule));
    let training = Training { schedule, metrics: Some(&metrics), world, ..Default::default() };
    fit(model(names), &objective, &training).unwrap();
    let Ok(text) = std::fs::read_to_string(&metrics) else { return vec![] };
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

fn check(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!((found.len(), expected.len()), (STEPS as usize, STEPS as usize), "{name}");
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "{name}, step {step}: {found}, not {expected}");
    }
}

#[test]
fn losses_are_those_of_pytorch() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/training.json")).unwrap();
    let names: Vec<String> = serde_json::from_value(golden["names"].clone()).unwrap();
    let expected = |key: &str| serde_json::from_value::<Vec<f64>>(golden[key].clone()).unwrap();
    for activation_checkpointing in [false, true] {
        let machine = Machine { activation_checkpointing, ..Default::default() };
        let found = losses(&names, 1, machine, &Alone);
        check(&format!("one process, recomputing {activation_checkpointing}"), &found, &expected("losses"));
    }
    // FSDP2 by two processes, each with half of everything.
    let of_rank = |mesh| {
        let world = Ranks::meet(mesh, &[]).unwrap();
        let machine = Machine { shard: Shard::Parameters, ..Default::default() };
        losses(&names, 2, machine, &world)
    };
    let found = std::thread::scope(|scope| {
        let run = |mesh: narthex_train::Mesh| scope.spawn(|| (mesh.rank(), of_rank(mesh)));
        let ranks: Vec<_> = threads(2).into_iter().map(run).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).find(|(rank, _)| *rank == 0).unwrap().1
    });
    check("two processes", &found, &expected("fsdp_losses"));
}
