//! The one training loop. What differs between objectives is which tokens count and which
//! parameters are trained; the loop does not ask.

use crate::{
    Batch, Batches, Objective,
    checkpoint::{Passed, Snapshot, load, restore},
    learning_rate,
    loss::{checkpointed_gradients, gradients},
    metrics::{Line, Metrics},
    optimizer::{GradientList, Optimizer},
    validate,
};
use narthex_base::{Digest, Error, Event, Observer, Result, config::Schedule, random::Stream};
use narthex_kernels::{memory::peak_resident_bytes, probe::flop_per_second_now};
use narthex_model::{Decoder, Device, Dropout, Replacement, TensorMap, cpu, map_parameters};
use narthex_text::TokenShard;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::mpsc::{Receiver, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Validation tokens between steps; at the end all of them count.
const INTERIM_TOKENS_MAX: usize = 32_768;

/// Batches that are made ahead of their use.
const BATCHES_AHEAD: usize = 2;

/// Time between two progress events.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Time between two measurements of the machine's peak: shared machines change their speed, and one measurement in a slow
/// moment would make utilisation exceed 1.
const PEAK_EVERY: Duration = Duration::from_secs(10);

/// Which parameters are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trained {
    /// All of them.
    All,
    /// The adapters.
    Adapters,
}

/// Lets a model write something: a continuation of a prompt, as text.
pub type Sampler<'a> = dyn Fn(&Decoder) -> Result<String> + 'a;

/// A training run.
pub struct Fit<'a> {
    /// What it learns from.
    pub data: &'a TokenShard,
    /// What it is measured on.
    pub validation: Option<&'a TokenShard>,
    /// What is learnt.
    pub objective: Objective,
    /// What is trained.
    pub trained: Trained,
    /// How.
    pub schedule: &'a Schedule,
    /// The seed of batches and dropout.
    pub seed: u64,
    /// Where it runs.
    pub device: Device,
    /// Identifies the run, so that only its own checkpoints are taken up.
    pub run: Digest,
    /// Checkpoints go into this folder.
    pub work: &'a Path,
    /// The file for the metrics, one JSON line a step.
    pub metrics: &'a Path,
    /// Lets the model write something.
    pub sample: Option<&'a Sampler<'a>>,
    /// Who listens.
    pub observer: Observer<'a>,
}

/// A finished run.
pub struct Fitted {
    /// The model, adapters not merged.
    pub model: Decoder,
    /// What the same run always gives.
    pub figures: BTreeMap<String, f64>,
    /// Times and speeds of this run.
    pub measured: BTreeMap<String, f64>,
    /// The states that the run passed through at its checkpoints, first to last; the end is one of them.
    pub passed: Vec<Passed>,
}

/// Trains `model`.
///
/// # Errors
/// If the data does not fit the objective, a file cannot be written, or the run is interrupted: then a checkpoint has
/// been written, and the same call goes on from there.
pub fn fit(model: Decoder, fit: &Fit) -> Result<Fitted> {
    let mut session = Session::start(model, fit)?;
    session.take_up()?;
    train(&mut session, fit.schedule.steps)?;
    session.finish()
}

/// Takes the steps from a state of a run to a later one again, and gives the digests of weights and moments that result.
/// `model` is as it was before the first step; without `from`, that is where the interval begins. Nothing is kept: `work`
/// and `metrics` are for what comes up on the way.
///
/// # Errors
/// If the state is not the one with these digests, a file cannot be read or written, or the run is interrupted.
pub fn replay(model: Decoder, fit: &Fit, from: Option<(&Path, Passed)>, until: u64) -> Result<[Digest; 2]> {
    let schedule = Schedule { eval_every: 0, sample_every: 0, checkpoint_every: 0, ..fit.schedule.clone() };
    let device = fit.device.clone();
    let fit = Fit { schedule: &schedule, validation: None, sample: None, device, ..*fit };
    let mut session = Session::start(model, &fit)?;
    if let Some((path, state)) = from {
        let (optimizer, weights) = load(path, state, &session.optimizer)?;
        session.set(optimizer, weights);
    }
    train(&mut session, until)?;
    session.snapshot().write(fit.work)
}

/// The steps until `until`.
fn train(session: &mut Session, until: u64) -> Result<()> {
    let fit = session.fit;
    let Schedule { batch_size, gradient_accumulation, context, .. } = *fit.schedule;
    let mut batches = Batches::new(fit.data, fit.objective, batch_size, context, fit.seed)?;
    let micro = gradient_accumulation as u64;
    let first = session.optimizer.steps * micro;
    std::thread::scope(|scope| {
        // Batches are made while the last one is trained on.
        let (sender, coming) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            for index in first..until * micro {
                if sender.send(batches.get(index)).is_err() {
                    return;
                }
            }
        });
        session.run(coming, until)
    })
}

struct Session<'a> {
    fit: &'a Fit<'a>,
    /// Absent only while the optimizer has it.
    model: Option<Decoder>,
    optimizer: Optimizer,
    metrics: Metrics,
    /// A checkpoint being written; it gives the states passed so far.
    writing: Option<JoinHandle<Result<Vec<Passed>>>>,
    /// The states passed at the checkpoints that are written.
    passed: Vec<Passed>,
    /// Seconds of training before this process, and the start of this one.
    seconds_before: f64,
    started: Instant,
    steps_before: u64,
    flop_per_token: f64,
    last_progress: Option<Instant>,
    /// The highest peak measured so far, and when it was last measured.
    peak: Option<(f64, Instant)>,
    last_loss: f64,
}

impl<'a> Session<'a> {
    fn start(model: Decoder, fit: &'a Fit<'a>) -> Result<Self> {
        let Schedule { context, precision, .. } = *fit.schedule;
        let trained = |name: &str| fit.trained == Trained::All || name.contains(".lora.");
        let model = model.with_precision(precision).to_device(&fit.device);
        let optimizer = Optimizer::new(&model, fit.schedule, trained);
        Ok(Self {
            fit,
            metrics: Metrics::open(fit.metrics, u64::MAX)?,
            writing: None,
            passed: vec![],
            seconds_before: 0.0,
            started: Instant::now(),
            steps_before: optimizer.steps,
            flop_per_token: model.config().training_flop_per_token(context),
            last_progress: None,
            peak: None,
            last_loss: f64::NAN,
            model: Some(model.for_training(trained)),
            optimizer,
        })
    }

    /// Goes on from the newest checkpoint of this run, if there is one.
    fn take_up(&mut self) -> Result<()> {
        let fit = self.fit;
        if let Some(restored) = restore(fit.work, fit.run, &self.optimizer, fit.observer)? {
            self.set(restored.optimizer, restored.weights);
            (self.seconds_before, self.passed) = (restored.seconds, restored.passed);
            let detail = format!("going on from the checkpoint of step {}", self.optimizer.steps);
            fit.observer.progress(self.optimizer.steps, fit.schedule.steps, "steps", detail);
        }
        self.metrics = Metrics::open(fit.metrics, self.optimizer.steps)?;
        Ok(())
    }

    /// Puts this state in the place of the present one.
    fn set(&mut self, optimizer: Optimizer, mut weights: TensorMap) {
        let model = self.model.take().expect("there is a model between steps");
        let model = map_parameters(model, |name, _| Replacement {
            values: weights.remove(name).map(|(_, values)| values),
            trained: false,
        });
        let trained = |name: &str| self.fit.trained == Trained::All || name.contains(".lora.");
        self.model = Some(model.for_training(trained));
        self.steps_before = optimizer.steps;
        self.optimizer = optimizer;
    }

    /// All steps that are left until `until`.
    fn run(&mut self, batches: Receiver<Batch>, until: u64) -> Result<()> {
        let Schedule { gradient_accumulation, sample_every, .. } = *self.fit.schedule;
        while self.optimizer.steps < until {
            if self.fit.observer.is_interrupted() {
                self.save(self.is_due())?;
                self.written()?;
                self.fit.observer.check()?;
            }
            let micro: Vec<Batch> = batches.iter().take(gradient_accumulation).collect();
            if micro.len() < gradient_accumulation {
                return Err(Error::internal("no more batches came"));
            }
            self.step(micro)?;
            let done = self.optimizer.steps;
            let every = |interval: u64| interval > 0 && done.is_multiple_of(interval);
            if self.is_due() {
                self.save(true)?;
            }
            if every(sample_every) {
                self.write_sample()?;
            }
        }
        self.written()
    }

    /// One optimizer step.
    fn step(&mut self, batches: Vec<Batch>) -> Result<()> {
        let start = Instant::now();
        let Schedule { gradient_accumulation, dropout, activation_checkpointing, .. } = *self.fit.schedule;
        let step = self.optimizer.steps;
        let counted: usize = batches.iter().map(|batch| batch.counted()).sum();
        let mut sum = GradientList::default();
        let mut loss = 0.0;
        for (i, batch) in batches.iter().enumerate() {
            if batch.counted() == 0 {
                continue;
            }
            let stream = Stream::new(self.fit.seed, "dropout").at(step * gradient_accumulation as u64 + i as u64);
            let mut dropout = Dropout::new(stream, dropout);
            // Divided by the tokens of the whole step, so that accumulation changes nothing but memory.
            let scale = 1.0 / counted as f64;
            let pass = if activation_checkpointing { checkpointed_gradients } else { gradients };
            let (part, found) = pass(self.model(), batch, &mut dropout, scale);
            loss += part;
            sum.add(found);
        }
        let lr = learning_rate(self.fit.schedule, step);
        // The old weights are given up, so that the new ones can take their place.
        let model = self.model.take().expect("there is a model between steps");
        let (model, grad_norm) = self.optimizer.step(model, sum, self.fit.schedule, lr);
        self.model = Some(model);
        self.last_loss = loss;
        let tokens: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
        self.report(loss, lr, grad_norm, counted, tokens_per_second)
    }

    /// Metrics, validation and progress after a step.
    fn report(&mut self, loss: f64, lr: f64, grad_norm: f64, counted: usize, tokens_per_second: f64) -> Result<()> {
        let (done, steps) = (self.optimizer.steps, self.fit.schedule.steps);
        let mfu = tokens_per_second * self.flop_per_token / self.peak();
        let mut line = Line {
            step: done,
            loss,
            lr,
            grad_norm,
            tokens: counted as u64,
            tokens_per_second,
            mfu,
            peak_memory_bytes: peak_resident_bytes(),
            validation_nats_per_token: None,
            validation_nats_per_byte: None,
        };
        let mut values = vec![("loss".to_string(), loss), ("lr".into(), lr), ("grad_norm".into(), grad_norm)];
        values.extend([("tokens_per_second".into(), tokens_per_second), ("mfu".into(), mfu)]);
        let every = self.fit.schedule.eval_every;
        if let Some(shard) = self.fit.validation
            && every > 0
            && done.is_multiple_of(every)
            && done < steps
        {
            let found = validate(
                self.model(),
                shard,
                self.fit.objective,
                self.fit.schedule.context,
                INTERIM_TOKENS_MAX,
                Observer::silent(),
            )?;
            line.validation_nats_per_token = Some(found.nats_per_token);
            line.validation_nats_per_byte = Some(found.nats_per_byte);
            values.push(("validation_nats_per_byte".into(), found.nats_per_byte));
        }
        self.metrics.write(&line)?;
        let observer = self.fit.observer;
        observer.emit(Event::Metric { step: observer.step().into(), at: done, values });
        let due = self.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY);
        if due || line.validation_nats_per_byte.is_some() || done == steps {
            self.last_progress = Some(Instant::now());
            let validation =
                line.validation_nats_per_byte.map(|v| format!(", validation {v:.3} nats/byte")).unwrap_or_default();
            let detail =
                format!("loss {loss:.3}{validation}, {tokens_per_second:.0} tokens/s, MFU {:.0} %", 100.0 * mfu);
            observer.progress(done, steps, "steps", detail);
        }
        Ok(())
    }

    /// Floating-point operations per second of multiply-adds in the schedule's precision.
    fn peak(&mut self) -> f64 {
        match self.peak {
            Some((peak, at)) if at.elapsed() < PEAK_EVERY => peak,
            before => {
                let now = flop_per_second_now(self.fit.schedule.precision);
                let peak = before.map_or(now, |(peak, _)| peak.max(now));
                self.peak = Some((peak, Instant::now()));
                peak
            }
        }
    }

    fn model(&self) -> &Decoder {
        self.model.as_ref().expect("there is a model between steps")
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// Whether the schedule asks for a checkpoint now: at its intervals, and at the end.
    fn is_due(&self) -> bool {
        let Schedule { steps, checkpoint_every, .. } = *self.fit.schedule;
        let done = self.optimizer.steps;
        checkpoint_every > 0 && done > 0 && (done.is_multiple_of(checkpoint_every) || done == steps)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.fit.run, self.model(), &self.optimizer, self.seconds())
    }

    /// Copies the state and writes it while training goes on. States that do not count are there to go on from only.
    fn save(&mut self, counts: bool) -> Result<()> {
        self.written()?;
        let passed = self.passed.clone();
        let counts = counts && passed.last().is_none_or(|(step, ..)| *step < self.optimizer.steps);
        let mut snapshot = self.snapshot();
        (snapshot.passed, snapshot.counts) = (passed, counts);
        snapshot.keep = self.fit.schedule.keep_checkpoints;
        let folder = self.fit.work.to_path_buf();
        self.writing = Some(std::thread::spawn(move || snapshot.save(&folder)));
        Ok(())
    }

    /// Waits until the last checkpoint is written.
    fn written(&mut self) -> Result<()> {
        match self.writing.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(outcome)) => self.passed = outcome?,
            Some(Err(_)) => return Err(Error::internal("writing a checkpoint panicked")),
        }
        Ok(())
    }

    fn write_sample(&self) -> Result<()> {
        let Some(sample) = self.fit.sample else { return Ok(()) };
        let text = sample(&self.model().for_inference().to_device(&cpu()))?;
        let observer = self.fit.observer;
        observer.emit(Event::Sample { step: observer.step().into(), at: self.optimizer.steps, text });
        Ok(())
    }

    fn finish(mut self) -> Result<Fitted> {
        let seconds = self.seconds();
        let model = self.model().for_inference();
        let steps = self.fit.schedule.steps;
        let Schedule { batch_size, gradient_accumulation, context, .. } = *self.fit.schedule;
        let tokens_per_step = (batch_size * gradient_accumulation * context) as u64;
        let mut figures = BTreeMap::from([
            ("parameters".to_string(), model.config().parameters() as f64),
            ("trained_parameters".into(), self.optimizer.trained_parameters() as f64),
            ("steps".into(), steps as f64),
            ("tokens".into(), (steps * tokens_per_step) as f64),
        ]);
        if self.last_loss.is_finite() {
            figures.insert("training_nats_per_token".into(), self.last_loss);
        }
        if let Some(shard) = self.fit.validation {
            let found = validate(&model, shard, self.fit.objective, context, usize::MAX, self.fit.observer)?;
            figures.insert("validation_nats_per_token".into(), found.nats_per_token);
            figures.insert("validation_nats_per_byte".into(), found.nats_per_byte);
        }
        let tokens_here = (steps - self.steps_before) * tokens_per_step;
        let speed = tokens_here as f64 / self.started.elapsed().as_secs_f64();
        let mut measured = BTreeMap::from([
            ("training_seconds".to_string(), seconds),
            ("peak_memory_bytes".into(), peak_resident_bytes() as f64),
        ]);
        if tokens_here > 0 {
            measured.insert("tokens_per_second".into(), speed);
            measured.insert("mfu".into(), speed * self.flop_per_token / self.peak());
        }
        Ok(Fitted { model: model.to_device(&cpu()), figures, measured, passed: std::mem::take(&mut self.passed) })
    }
}
