//! The one training loop. What differs between objectives is which tokens count and which
//! parameters are trained; the loop does not ask.

use crate::{
    AdamW, Batches, Hyperparameters, Objective,
    checkpoint::{restore, save},
    learning_rate,
    metrics::{Line, Metrics},
    nats, probe, validate,
};
use burn::{
    module::{ModuleVisitor, Param},
    tensor::{Gradients, Tensor},
};
use narthex_base::{Digest, Event, Observer, Result, config::Schedule, random::Stream};
use narthex_model::{Decoder, Dropout, Replacement, map_parameters, named_parameters};
use narthex_text::TokenShard;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

/// Validation tokens between steps; at the end all of them count.
const INTERIM_TOKENS_MAX: usize = 32_768;

/// Time between two progress events.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

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
    /// Where it starts.
    pub model: Decoder,
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

/// Trains.
///
/// # Errors
/// If the data does not fit the objective, a file cannot be written, or the run is interrupted: then a checkpoint has
/// been written, and the same call goes on from there.
pub fn fit(fit: Fit) -> Result<Fitted> {
    let mut session = Session::start(&fit)?;
    let steps = fit.schedule.steps;
    while session.optimizer.steps < steps {
        if fit.observer.is_interrupted() {
            session.save()?;
            fit.observer.check()?;
        }
        session.step()?;
        let done = session.optimizer.steps;
        let every = |interval: u64| interval > 0 && done.is_multiple_of(interval);
        if every(fit.schedule.checkpoint_every) && done < steps {
            session.save()?;
        }
        if every(fit.schedule.sample_every) {
            session.write_sample()?;
        }
    }
    session.finish()
}

struct Session<'a> {
    fit: &'a Fit<'a>,
    model: Decoder,
    optimizer: AdamW,
    batches: Batches<'a>,
    metrics: Metrics,
    /// Seconds of training before this process, and the start of this one.
    seconds_before: f64,
    started: Instant,
    steps_before: u64,
    flop_per_token: f64,
    last_progress: Option<Instant>,
    last_loss: f64,
}

impl<'a> Session<'a> {
    fn start(fit: &'a Fit<'a>) -> Result<Self> {
        let trained = |name: &str| fit.trained == Trained::All || name.contains(".lora.");
        let mut optimizer = AdamW::default();
        for tensor in named_parameters(&fit.model).into_iter().filter(|tensor| trained(&tensor.name)) {
            optimizer.add(tensor.name, tensor.shape, tensor.values);
        }
        let Schedule { batch_size, context, .. } = *fit.schedule;
        let batches = Batches::new(fit.data, fit.objective, batch_size, context, fit.seed)?;
        let restored = restore(fit.work, fit.run, &optimizer, fit.observer)?;
        let resumed = restored.is_some();
        let seconds_before = restored.as_ref().map_or(0.0, |restored| restored.seconds);
        if let Some(restored) = restored {
            optimizer = restored.optimizer;
        }
        let steps_before = optimizer.steps;
        let mut session = Self {
            fit,
            model: fit.model.clone().for_training(trained),
            batches,
            metrics: Metrics::open(fit.metrics, steps_before)?,
            seconds_before,
            started: Instant::now(),
            steps_before,
            flop_per_token: fit.model.config().training_flop_per_token(context),
            last_progress: None,
            last_loss: f64::NAN,
            optimizer,
        };
        if resumed {
            session.model = session.model_from_optimizer();
            fit.observer.progress(
                steps_before,
                fit.schedule.steps,
                "steps",
                format!("going on from the checkpoint of step {steps_before}"),
            );
        }
        Ok(session)
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<()> {
        let start = Instant::now();
        let Schedule { gradient_accumulation, weight_decay, beta1, beta2, eps, grad_clip, dropout, .. } =
            *self.fit.schedule;
        let step = self.optimizer.steps;
        let device = narthex_model::cpu().autodiff();
        let micro = gradient_accumulation as u64;
        let batches: Vec<_> = (0..micro).map(|i| self.batches.get(step * micro + i)).collect();
        let counted: usize = batches.iter().map(|batch| batch.counted()).sum();
        let mut gradients: Vec<Vec<f32>> = Vec::new();
        let mut loss = 0.0;
        for (i, batch) in batches.iter().enumerate() {
            if batch.counted() == 0 {
                continue;
            }
            let stream = Stream::new(self.fit.seed, "dropout").at(step * micro + i as u64);
            // Divided by the tokens of the whole step, so that accumulation changes nothing but memory.
            let part = nats(&self.model, batch, &mut Dropout::new(stream, dropout), &device) / counted as f64;
            loss += part.clone().inner().into_scalar::<f64>();
            accumulate(&mut gradients, collect(&self.model, part.backward()));
        }
        let lr = learning_rate(self.fit.schedule, step);
        let hyper = Hyperparameters { lr, beta1, beta2, eps, weight_decay, grad_clip };
        if gradients.is_empty() {
            gradients = self.optimizer.slots.iter().map(|slot| vec![0.0; slot.weights.len()]).collect();
        }
        let grad_norm = self.optimizer.step(&gradients, &hyper);
        self.model = self.model_from_optimizer();
        self.last_loss = loss;
        let tokens: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
        self.report(loss, lr, grad_norm, counted, tokens_per_second)
    }

    /// Metrics, validation and progress after a step.
    fn report(&mut self, loss: f64, lr: f64, grad_norm: f64, counted: usize, tokens_per_second: f64) -> Result<()> {
        let (done, steps) = (self.optimizer.steps, self.fit.schedule.steps);
        let mfu = tokens_per_second * self.flop_per_token / probe::matmul_flop_per_second();
        let mut line = Line {
            step: done,
            loss,
            lr,
            grad_norm,
            tokens: counted as u64,
            tokens_per_second,
            mfu,
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
                &self.model,
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

    /// The model in training with the optimizer's master weights.
    fn model_from_optimizer(&self) -> Decoder {
        let mut slots = self.optimizer.slots.iter();
        map_parameters(self.model.clone(), |name, _| {
            let trained = self.fit.trained == Trained::All || name.contains(".lora.");
            let values = trained.then(|| {
                let slot = slots.next().expect("one slot for each trained parameter");
                debug_assert_eq!(slot.name, name);
                slot.weights.clone()
            });
            Replacement { values, trained }
        })
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn save(&self) -> Result<()> {
        save(self.fit.work, self.fit.run, &self.optimizer, self.seconds())
    }

    fn write_sample(&self) -> Result<()> {
        let Some(sample) = self.fit.sample else { return Ok(()) };
        let text = sample(&self.model.for_inference())?;
        let observer = self.fit.observer;
        observer.emit(Event::Sample { step: observer.step().into(), at: self.optimizer.steps, text });
        Ok(())
    }

    fn finish(self) -> Result<Fitted> {
        let seconds = self.seconds();
        let model = self.model.for_inference();
        let steps = self.fit.schedule.steps;
        let Schedule { batch_size, gradient_accumulation, context, .. } = *self.fit.schedule;
        let tokens_per_step = (batch_size * gradient_accumulation * context) as u64;
        let mut figures = BTreeMap::from([
            ("parameters".to_string(), model.config().parameters() as f64),
            (
                "trained_parameters".into(),
                self.optimizer.slots.iter().map(|slot| slot.weights.len()).sum::<usize>() as f64,
            ),
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
        let mut measured = BTreeMap::from([("training_seconds".to_string(), seconds)]);
        if tokens_here > 0 {
            measured.insert("tokens_per_second".into(), speed);
            measured.insert("mfu".into(), speed * self.flop_per_token / probe::matmul_flop_per_second());
        }
        Ok(Fitted { model, figures, measured })
    }
}

/// The gradients of the trained parameters, in the order of the definition.
fn collect(model: &Decoder, gradients: Gradients) -> Vec<Vec<f32>> {
    struct Collect {
        gradients: Gradients,
        found: Vec<Vec<f32>>,
    }
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            if tensor.is_require_grad() {
                let len = tensor.dims().iter().product();
                let gradient = tensor.grad_remove(&mut self.gradients);
                let values = gradient.map(|g| g.into_data().try_to_vec().expect("gradients are f32"));
                self.found.push(values.unwrap_or_else(|| vec![0.0; len]));
            }
        }
    }
    let mut collect = Collect { gradients, found: vec![] };
    model.visit(&mut collect);
    collect.found
}

fn accumulate(total: &mut Vec<Vec<f32>>, part: Vec<Vec<f32>>) {
    if total.is_empty() {
        *total = part;
        return;
    }
    for (total, part) in total.iter_mut().zip(part) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
}
