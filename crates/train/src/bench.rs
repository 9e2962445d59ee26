//! The training step of a known shape, timed: what `narthex bench train` runs.

use crate::{
    network::{Network, Parts, Round},
    objective::{DecoderPass, Pass, TokenBatch},
    optimizer::{Optimizer, layout, norm},
    selection::Selection,
    world::{Alone, Part, World},
};
use narthex_base::{Error, Result, config::Update, random::Stream};
use narthex_kernels::{
    memory::{minor_page_faults, peak_resident_bytes},
    probe::flop_per_second_now,
    profile,
};
use narthex_model::{Decoder, Design, Device, ModelConfig, Precision};
use serde::Serialize;
use std::{ops::Range, time::Instant};

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
    /// Threads.
    pub threads: usize,
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
    /// The most resident memory of the process so far.
    pub peak_rss_mb: f64,
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

/// A decoder that is trained step by step, by one process and all at once.
pub(crate) struct Trainee {
    network: Option<Network<Decoder>>,
    optimizer: Optimizer,
    layout: Vec<Part>,
    ranges: Vec<Range<usize>>,
    groups: Vec<Vec<usize>>,
    update: Update,
}

impl Trainee {
    pub(crate) fn new(model: Decoder, update: &Update) -> Self {
        let selection = Selection::whole_decoder(&model);
        let layout = layout(&selection, update.optimizer);
        let device = model.device().inner();
        let optimizer = Optimizer::new(&selection, update.optimizer, |part| 0..part.len, &device, None)
            .expect("nothing is kept on the disk");
        Self {
            network: Some(Network::Whole(model.for_training(|_| true))),
            optimizer,
            ranges: layout.iter().map(|part| 0..part.len).collect(),
            groups: vec![(0..layout.len()).collect()],
            layout,
            update: update.clone(),
        }
    }

    /// One step with the gradients of a pass.
    pub(crate) fn step(
        &mut self,
        lr: f64,
        pass: impl FnOnce(&mut dyn Parts<Decoder>) -> Result<Option<Pass>>,
    ) -> Result<Pass> {
        let Self { network, optimizer, layout, ranges, groups, update } = self;
        let network_before = network.take().ok_or_else(|| Error::internal("a step before has failed"))?;
        let mut sums = Alone.sums(layout);
        let found = pass(&mut Round::new(&network_before, groups, &mut *sums, &Alone, optimizer))?;
        let gradients = sums.finish_own()?;
        let norm = norm(&gradients);
        let step = |weights| optimizer.step(weights, gradients, norm, update, lr);
        *network = Some(network_before.update(layout, ranges, None, step)?);
        found.ok_or_else(|| Error::internal("a pass without a batch"))
    }
}

/// A model in training on one batch of random tokens.
pub struct TrainBench {
    shape: BenchShape,
    precision: Precision,
    trainee: Trainee,
    pass: DecoderPass,
    batch: TokenBatch,
    warm: bool,
    loss: f64,
}

/// The learning rate of the steps.
const LEARNING_RATE: f64 = 3e-4;

impl TrainBench {
    /// Random weights and tokens, the same every time.
    pub fn new(shape: BenchShape, precision: Precision, activation_checkpointing: bool, device: &Device) -> Self {
        let (config, rows) = shape.config();
        let model = Decoder::random(&config, 0, device).with_precision(precision);
        let stream = Stream::new(0, "bench");
        let (len, vocabulary) = (config.context, config.vocab_size as u64);
        let window = |offset: usize| {
            let id = |i: usize| stream.below((i + i / len + offset) as u64, vocabulary) as i64;
            (0..rows * len).map(id).collect::<Vec<i64>>()
        };
        Self {
            shape,
            precision,
            trainee: Trainee::new(model, &Update::default()),
            pass: DecoderPass { dropout: 0.0, block_by_block: activation_checkpointing },
            batch: TokenBatch {
                rows,
                len,
                tokens: window(0),
                targets: window(1),
                counts: vec![true; rows * len],
                documents: None,
            },
            warm: false,
            loss: f64::NAN,
        }
    }

    /// One step; the seconds that it took.
    fn step(&mut self) -> f64 {
        let start = Instant::now();
        let scale = 1.0 / self.batch.counted() as f64;
        let (pass, batch) = (self.pass, &self.batch);
        let found = self
            .trainee
            .step(LEARNING_RATE, |parts| pass.pass(parts, Some(batch), Stream::new(0, "bench"), scale))
            .expect("one process on its own cannot fail");
        self.loss = found.loss;
        start.elapsed().as_secs_f64()
    }

    /// Times `steps` steps, after some to warm up at the first call. `profiled`: then also times the operators.
    pub fn run(&mut self, steps: usize, profiled: bool) -> TrainTiming {
        if !self.warm {
            for _ in 0..WARM_UP_STEPS {
                self.step();
            }
            self.warm = true;
        }
        // The peak is measured between the steps, as the speed of shared machines drifts.
        let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
        let faults = minor_page_faults();
        for _ in 0..steps.max(1) {
            seconds.push(self.step());
            peaks.push(flop_per_second_now(self.precision));
        }
        let faults = minor_page_faults() - faults;
        let (median, peak) = (median(&mut seconds), median(&mut peaks));
        let (config, rows) = self.shape.config();
        let tokens_per_second = (rows * config.context) as f64 / median;
        TrainTiming {
            shape: self.shape.name(),
            precision: self.precision,
            isa: narthex_kernels::isa().name(),
            threads: rayon::current_num_threads(),
            steps: seconds.len(),
            tokens_per_second,
            step_ms: 1e3 * median,
            mfu: tokens_per_second * config.training_flop_per_token(config.context) / peak,
            peak_gflop_per_second: peak / 1e9,
            peak_rss_mb: peak_resident_bytes() as f64 / 1e6,
            page_faults_per_step: faults as f64 / seconds.len() as f64,
            loss: self.loss,
            operators: if profiled { self.operators() } else { vec![] },
        }
    }

    fn operators(&mut self) -> Vec<OperatorShare> {
        profile::start();
        let total: f64 = (0..PROFILED_STEPS).map(|_| self.step()).sum();
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
        shares
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
