//! The one training loop. What differs between objectives is which tokens count and which
//! parameters are trained; the loop does not ask.

use crate::{
    Batch, Batches, Objective,
    checkpoint::{Snapshot, restore},
    learning_rate,
    loss::{checkpointed_gradients, gradients},
    metrics::{Line, Metrics},
    optimizer::{GradientList, Optimizer},
    validate,
};
use narthex_base::{Digest, Error, Event, Observer, Result, config::Schedule, random::Stream};
use narthex_kernels::{memory::peak_resident_bytes, probe::flop_per_second_now};
use narthex_model::{Decoder, Device, Dropout, Replacement, cpu, map_parameters};
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
}

/// Trains `model`.
///
/// # Errors
/// If the data does not fit the objective, a file cannot be written, or the run is interrupted: then a checkpoint has
/// been written, and the same call goes on from there.
pub fn fit(model: Decoder, fit: &Fit) -> Result<Fitted> {
    let Schedule { steps, batch_size, gradient_accumulation, context, .. } = *fit.schedule;
    let mut batches = Batches::new(fit.data, fit.objective, batch_size, context, fit.seed)?;
    let mut session = Session::start(model, fit)?;
    let micro = gradient_accumulation as u64;
    let first = session.optimizer.steps * micro;
    std::thread::scope(|scope| {
        // Batches are made while the last one is trained on.
        let (sender, coming) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            for index in first..steps * micro {
                if sender.send(batches.get(index)).is_err() {
                    return;
                }
            }
        });
        session.run(coming)
    })?;
    session.finish()
}

struct Session<'a> {
    fit: &'a Fit<'a>,
    /// Absent only while the optimizer has it.
    model: Option<Decoder>,
    optimizer: Optimizer,
    metrics: Metrics,
    /// A checkpoint being written.
    writing: Option<JoinHandle<Result<()>>>,
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
        let mut model = model.with_precision(precision).to_device(&fit.device);
        let mut optimizer = Optimizer::new(&model, fit.schedule, trained);
        let mut seconds_before = 0.0;
        if let Some(mut restored) = restore(fit.work, fit.run, &optimizer, fit.observer)? {
            optimizer = restored.optimizer;
            seconds_before = restored.seconds;
            model = map_parameters(model, |name, _| Replacement {
                values: restored.weights.remove(name).map(|(_, values)| values),
                trained: false,
            });
            fit.observer.progress(
                optimizer.steps,
                fit.schedule.steps,
                "steps",
                format!("going on from the checkpoint of step {}", optimizer.steps),
            );
        }
        Ok(Self {
            fit,
            metrics: Metrics::open(fit.metrics, optimizer.steps)?,
            writing: None,
            seconds_before,
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

    /// All steps that are left.
    fn run(&mut self, batches: Receiver<Batch>) -> Result<()> {
        let Schedule { steps, gradient_accumulation, checkpoint_every, sample_every, .. } = *self.fit.schedule;
        while self.optimizer.steps < steps {
            if self.fit.observer.is_interrupted() {
                self.save()?;
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
            if every(checkpoint_every) && done < steps {
                self.save()?;
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

    /// Copies the state and writes it while training goes on.
    fn save(&mut self) -> Result<()> {
        self.written()?;
        let snapshot = Snapshot::take(self.fit.run, self.model(), &self.optimizer, self.seconds());
        let folder = self.fit.work.to_path_buf();
        self.writing = Some(std::thread::spawn(move || snapshot.save(&folder)));
        Ok(())
    }

    /// Waits until the last checkpoint is written.
    fn written(&mut self) -> Result<()> {
        match self.writing.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Error::internal("writing a checkpoint panicked")),
        }
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
        Ok(Fitted { model: model.to_device(&cpu()), figures, measured })
    }
}
