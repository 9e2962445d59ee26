//! The training step of a known shape, timed: what `narthex bench train` runs.

use crate::{
    objective::{DecoderPass, Loss, Objective, Parts, Pass, Place, TokenBatch, Units},
    session::{Session, Training},
    world::{Traffic, World},
};
use narthex_base::{
    Error, Result,
    config::{Batching, Decay, LearningRate, Machine, Reports, Schedule, Shard},
    random::Stream,
};
use narthex_kernels::{
    memory::{minor_page_faults, peak_resident_bytes},
    probe::flop_per_second_now,
    profile,
};
use narthex_model::{Decoder, Design, Device, ModelConfig, Precision};
use serde::Serialize;
use std::time::Instant;

/// Steps before anything is timed: buffers find their places.
const WARM_UP_STEPS: usize = 3;

/// Steps over which operators are timed.
const PROFILED_STEPS: usize = 3;

/// Shapes that peers are compared on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchShape {
    /// 10.8 million parameters, 8 sequences of 256 tokens.
    Llama10m,
    /// 100 million parameters, 4 sequences of 512 tokens.
    Llama100m,
}

impl BenchShape {
    /// The name in commands and reports.
    pub fn name(self) -> &'static str {
        match self {
            BenchShape::Llama10m => "llama-10m",
            BenchShape::Llama100m => "llama-100m",
        }
    }

    /// The model, and the sequences of a step.
    pub fn config(self) -> (ModelConfig, usize) {
        let base = ModelConfig {
            vocab_size: 256,
            hidden_size: 384,
            intermediate_size: 1024,
            layers: 6,
            heads: 6,
            kv_heads: 6,
            head_width: 64,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied_embeddings: false,
            context: 256,
            bos_token: None,
            eos_tokens: vec![],
            design: Design::default(),
        };
        match self {
            BenchShape::Llama10m => (base, 8),
            BenchShape::Llama100m => {
                let config = ModelConfig {
                    vocab_size: 32_000,
                    hidden_size: 768,
                    intermediate_size: 2048,
                    layers: 12,
                    heads: 12,
                    kv_heads: 4,
                    tied_embeddings: true,
                    context: 512,
                    ..base
                };
                (config, 4)
            }
        }
    }
}

/// What a run of steps took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainTiming {
    /// The shape.
    pub shape: &'static str,
    /// `f32` or `bf16`.
    pub precision: Precision,
    /// The instruction set.
    pub isa: &'static str,
    /// Threads of each process.
    pub threads: usize,
    /// Processes that train together.
    pub ranks: usize,
    /// What each of them has alone.
    pub shard: Shard,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Steps timed.
    pub steps: usize,
    /// The median over steps.
    pub tokens_per_second: f64,
    /// The median step.
    pub step_ms: f64,
    /// Model FLOP utilisation against the measured peak of multiply-adds in this precision, 0 to 1.
    pub mfu: f64,
    /// That peak, the median of measurements between the steps.
    pub peak_gflop_per_second: f64,
    /// The most resident memory of a process so far.
    pub peak_rss_mb: f64,
    /// What this process sends to others in a step.
    pub sent_mb_per_step: f64,
    /// The part of the time in which this process waits for others, 0 to 1.
    pub waiting: f64,
    /// Page faults of a step: memory that the system had to hand out anew.
    pub page_faults_per_step: f64,
    /// The loss of the last step, in nats.
    pub loss: f64,
    /// Time by operator, most first.
    pub operators: Vec<OperatorShare>,
}

/// One operator's part of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorShare {
    /// The operator; `other` is what no operator accounts for.
    pub operator: String,
    /// Milliseconds of a step.
    pub ms: f64,
    /// Part of the step, 0 to 1.
    pub share: f64,
    /// Speed at the operator's arithmetic.
    pub gflop_per_second: f64,
}

/// How the steps are made.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchSetting {
    /// Model and batch.
    pub shape: BenchShape,
    /// Of products.
    pub precision: Precision,
    /// Whether blocks are computed again on the way back.
    pub activation_checkpointing: bool,
    /// What each process has alone.
    pub shard: Shard,
    /// Micro-batches of a step.
    pub micro_batches: usize,
}

/// The same micro-batch again and again.
struct Repeated {
    pass: DecoderPass,
    batch: TokenBatch,
}

impl Objective<Decoder> for Repeated {
    type Batch = TokenBatch;

    fn units(&self, model: &Decoder) -> Units {
        Units {
            item: "tokens",
            items_per_batch: self.batch.counted() as u64,
            flop_per_item: None,
            loss_figure: "training_nats_per_token",
            parameters: model.config().parameters(),
        }
    }

    fn batch(&self, _: Place<Decoder>) -> Result<TokenBatch> {
        Ok(self.batch.clone())
    }

    fn weight(&self, batch: &TokenBatch) -> u64 {
        batch.counted() as u64
    }

    fn loss(&self, model: &Decoder, batch: &TokenBatch, noise: Stream, scale: f64) -> Loss {
        self.pass.loss(model, batch, noise, scale)
    }

    fn part(&self, parameter: &str) -> usize {
        self.pass.part(parameter)
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
        self.pass.pass(parts, batch, noise, scale)
    }
}

/// Training on one batch of random tokens: the same every time.
pub struct TrainBench<'a> {
    setting: BenchSetting,
    objective: Repeated,
    training: Training<'a, Decoder>,
}

impl<'a> TrainBench<'a> {
    /// On a device, by the processes of a world.
    pub fn new(setting: BenchSetting, device: &Device, world: &'a dyn World) -> Self {
        let (config, rows) = setting.shape.config();
        let stream = Stream::new(0, "bench");
        let (len, vocabulary) = (config.context, config.vocab_size as u64);
        let window = |offset: usize| {
            let id = |i: usize| stream.below((i + i / len + offset) as u64, vocabulary) as i64;
            (0..rows * len).map(id).collect::<Vec<i64>>()
        };
        let batch = TokenBatch {
            rows,
            len,
            tokens: window(0),
            targets: window(1),
            counts: vec![true; rows * len],
            documents: None,
        };
        let schedule = Schedule {
            batches: Batching {
                // Without an end.
                steps: u64::MAX,
                batch_size: rows,
                gradient_accumulation: setting.micro_batches,
                context: len,
                ..Default::default()
            },
            rate: LearningRate { lr: 3e-4, warmup: 0, decay: Decay::Wsd, decay_fraction: 0.0, ..Default::default() },
            reports: Reports { eval_every: 0, sample_every: 0 },
            machine: Machine {
                activation_checkpointing: setting.activation_checkpointing,
                shard: setting.shard,
                ..Default::default()
            },
            ..Default::default()
        };
        let pass = DecoderPass::new(&schedule);
        let training = Training { schedule, device: device.clone(), world, ..Default::default() };
        Self { setting, objective: Repeated { pass, batch }, training }
    }

    /// The model with its first weights, and steps to warm up.
    ///
    /// # Errors
    /// If another process cannot be reached, or the device has no room.
    pub fn start(&self) -> Result<TrainRun<'_>> {
        let (config, _) = self.setting.shape.config();
        let model = Decoder::random(&config, 0, &self.training.device).with_precision(self.setting.precision);
        let mut run = TrainRun { bench: self, session: Session::start(model, &self.objective, &self.training)? };
        (0..WARM_UP_STEPS).try_for_each(|_| run.step().map(drop))?;
        Ok(run)
    }
}

/// A training under way.
pub struct TrainRun<'a> {
    bench: &'a TrainBench<'a>,
    session: Session<'a, Decoder, Repeated>,
}

impl TrainRun<'_> {
    /// One step; the seconds that it took.
    fn step(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.session.train(self.session.steps() + 1)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Times `steps` steps. `profiled`: then also times the operators.
    ///
    /// # Errors
    /// If another process cannot be reached.
    pub fn time(&mut self, steps: usize, profiled: bool) -> Result<TrainTiming> {
        let (setting, world) = (&self.bench.setting, self.bench.training.world);
        // The peak is measured between the steps, as the speed of shared machines drifts.
        let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
        let (faults, mut traffic) = (minor_page_faults(), Traffic::default());
        for _ in 0..steps.max(1) {
            let before = world.traffic();
            seconds.push(self.step()?);
            let after = world.traffic();
            traffic.sent_bytes += after.sent_bytes - before.sent_bytes;
            traffic.waited_seconds += after.waited_seconds - before.waited_seconds;
            peaks.push(world.gather(flop_per_second_now(setting.precision))?.iter().sum());
        }
        let faults = minor_page_faults() - faults;
        let (all, count) = (seconds.iter().sum::<f64>(), seconds.len());
        let (median, peak) = (median(&mut seconds), median(&mut peaks));
        let (config, rows) = setting.shape.config();
        let tokens_per_second = (setting.micro_batches * rows * config.context) as f64 / median;
        let resident = world.gather(peak_resident_bytes() as f64)?;
        Ok(TrainTiming {
            shape: setting.shape.name(),
            precision: setting.precision,
            isa: narthex_kernels::isa().name(),
            threads: rayon::current_num_threads(),
            ranks: world.size(),
            shard: setting.shard,
            micro_batches: setting.micro_batches,
            steps: count,
            tokens_per_second,
            step_ms: 1e3 * median,
            mfu: tokens_per_second * config.training_flop_per_token(config.context) / peak,
            peak_gflop_per_second: peak / 1e9,
            peak_rss_mb: resident.into_iter().fold(0.0, f64::max) / 1e6,
            sent_mb_per_step: traffic.sent_bytes as f64 / count as f64 / 1e6,
            waiting: traffic.waited_seconds / all,
            page_faults_per_step: faults as f64 / count as f64,
            loss: self.session.last_loss().ok_or_else(|| Error::internal("a step without a loss"))?,
            operators: if profiled { self.operators()? } else { vec![] },
        })
    }

    fn operators(&mut self) -> Result<Vec<OperatorShare>> {
        profile::start();
        let total = (0..PROFILED_STEPS).map(|_| self.step()).sum::<Result<f64>>()?;
        let times = profile::stop();
        let accounted: f64 = times.values().map(|time| time.seconds).sum();
        let share = |operator: &str, seconds: f64, flop: f64| OperatorShare {
            operator: operator.into(),
            ms: 1e3 * seconds / PROFILED_STEPS as f64,
            share: seconds / total,
            gflop_per_second: flop / seconds.max(1e-12) / 1e9,
        };
        let mut shares: Vec<OperatorShare> =
            times.iter().map(|(name, time)| share(name, time.seconds, time.flop)).collect();
        shares.push(share("other", (total - accounted).max(0.0), 0.0));
        shares.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        Ok(shares)
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
