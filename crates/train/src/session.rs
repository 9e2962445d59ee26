//! The one training loop. What differs between objectives is what a batch is and what its loss is, and between networks
//! which parameters they have; the loop does not ask. Knows no tokens.

use crate::{
    checkpoint::{Snapshot, load, restore},
    gradients::NamedGradients,
    learning_rate::learning_rate,
    objective::{Extent, Objective, Pass, Place},
    optimizer::Optimizer,
    report::{Report, Step},
    selection::{Selected, Selection},
    sharded,
    world::{Alone, World},
};
use burn::module::Module;
use narthex_base::{
    Digest, Error, Event, Observer, Passed, Result,
    config::{Batching, Checkpointing, Optimizer as Algorithm, Schedule, Shard},
    random::Stream,
};
use narthex_model::{Device, Replacement, TensorMap, cpu, for_training, map_parameters};
use std::{collections::BTreeMap, path::Path, sync::mpsc::sync_channel, thread::JoinHandle};

/// Batches that are made ahead of their use.
const BATCHES_AHEAD: usize = 2;

/// Lets a network write something while it is trained, as text.
pub type Sampler<'a, M> = dyn Fn(&M) -> Result<String> + 'a;

/// How a network of type `M` is trained, apart from what it learns.
///
/// Of the schedule, the loop itself uses all but the shape of batches, dropout, device and activation checkpointing:
/// those are for the objective, which uses what it has a use for, and for who makes the network and
/// [`Training::device`].
pub struct Training<'a, M> {
    /// Which parameters are trained; all where nothing is said.
    pub selection: Option<Selection>,
    /// The training loop's configuration.
    pub schedule: Schedule,
    /// The seed of batches and of what is dropped.
    pub seed: u64,
    /// Where it runs.
    pub device: Device,
    /// Identifies the run, so that only its own checkpoints are taken up; made of schedule, seed and selection where
    /// nothing is said.
    pub run: Option<Digest>,
    /// The folder for checkpoints; without one there are none.
    pub work: Option<&'a Path>,
    /// The file for the metrics, one JSON line a step.
    pub metrics: Option<&'a Path>,
    /// Lets the network write something.
    pub sample: Option<&'a Sampler<'a, M>>,
    /// Where events go, and what interrupts.
    pub observer: Observer<'a>,
    /// The processes that train together.
    pub world: &'a dyn World,
}

impl<M> Default for Training<'_, M> {
    fn default() -> Self {
        Self {
            selection: None,
            schedule: Schedule::default(),
            seed: 0,
            device: cpu(),
            run: None,
            work: None,
            metrics: None,
            sample: None,
            observer: Observer::silent(),
            world: &Alone,
        }
    }
}

/// A finished run.
pub struct Fitted<M> {
    /// The network on the CPU, without gradients; adapters are not merged.
    pub model: M,
    /// What the same run always gives.
    pub figures: BTreeMap<String, f64>,
    /// Times and speeds of this run.
    pub measured: BTreeMap<String, f64>,
    /// The states that the run passed through at its checkpoints, first to last; the end is one of them.
    pub passed: Vec<Passed>,
}

/// Trains a network.
///
/// # Errors
/// If the data does not fit the objective, a file cannot be written, or the run is interrupted: then a checkpoint has
/// been written, and the same call goes on from there.
pub fn fit<M: Module, O: Objective<M>>(network: M, objective: &O, training: &Training<M>) -> Result<Fitted<M>> {
    let mut session = Session::start(network, objective, training)?;
    session.take_up()?;
    session.train(training.schedule.batches.steps)?;
    session.finish()
}

/// Takes the steps from a state of a run to a later one again, and gives the state that results. `network` is as it was
/// before the first step; without `from`, that is where the interval begins. Nothing is kept: `work` is for what comes
/// up on the way.
///
/// # Errors
/// If the state is not the one with these digests, a file cannot be read or written, or the run is interrupted.
pub fn replay<M: Module, O: Objective<M>>(
    network: M,
    objective: &O,
    training: &Training<M>,
    from: Option<(&Path, &Passed)>,
    until: u64,
) -> Result<Passed> {
    let mut session = Session::start(network, objective, training)?;
    session.looked_at = false;
    if let Some((path, state)) = from {
        let (optimizer, weights) = load(path, state, &session.optimizer)?;
        session.set(optimizer, weights);
    }
    session.train(until)?;
    let work = training.work.ok_or_else(|| Error::internal("a state is taken again without a folder to work in"))?;
    let snapshot = session.snapshot()?;
    snapshot.ok_or_else(|| Error::internal("a state is taken again by rank 0"))?.write(work)
}

/// A micro-batch and its number in the run.
type Numbered<B> = (u64, B);

struct Session<'a, M: Module, O> {
    training: &'a Training<'a, M>,
    objective: &'a O,
    selection: Selection,
    run: Digest,
    /// Absent only while the optimizer has it.
    network: Option<M>,
    optimizer: Optimizer,
    report: Report<'a>,
    /// Whether the network is validated, sampled and kept on the way.
    looked_at: bool,
    /// A checkpoint being written; it gives the states passed so far.
    writing: Option<JoinHandle<Result<Vec<Passed>>>>,
    /// The states passed at the checkpoints that are written.
    passed: Vec<Passed>,
}

impl<'a, M: Module, O: Objective<M>> Session<'a, M, O> {
    fn start(network: M, objective: &'a O, training: &'a Training<'a, M>) -> Result<Self> {
        let schedule = &training.schedule;
        let selection = training.selection.clone().unwrap_or_else(|| Selection::all(&network));
        let selected = selection.parameters();
        if selected.is_empty() {
            return Err(Error::input("no parameter of the network is trained").help("select at least one"));
        }
        if schedule.update.optimizer == Algorithm::Muon && !selected.iter().any(|selected| selected.hidden) {
            return Err(Error::input("Muon takes the matrices of hidden layers, and none is named")
                .help("name them with `Selection::with_hidden`, or set `optimizer = \"adamw\"`"));
        }
        let run = training.run.unwrap_or_else(|| {
            let selected = selected.iter().map(|Selected { name, shape, hidden }| (name, shape, hidden));
            Digest::of_json(&(schedule, training.seed, selected.collect::<Vec<_>>()))
        });
        let units = objective.units(&network);
        let network = network.to_device(&training.device);
        let optimizer = Optimizer::new(&network, &selection, schedule.update.optimizer);
        // One process writes what the run writes.
        let metrics = training.metrics.filter(|_| training.world.rank() == 0);
        let mut session = Self {
            training,
            objective,
            run,
            report: Report::new(schedule, units, O::VALUES, metrics, training.observer)?.of(training.world.size()),
            looked_at: true,
            writing: None,
            passed: vec![],
            network: Some(for_training(network, |name| selection.contains(name))),
            selection,
            optimizer,
        };
        if session.is_sharded() {
            sharded::shard(&mut session.optimizer, training.world);
        }
        Ok(session)
    }

    /// Goes on from the newest checkpoint of this run, if there is one.
    fn take_up(&mut self) -> Result<()> {
        let Training { work, observer, .. } = *self.training;
        if let Some(work) = work
            && let Some(restored) = restore(work, self.run, &self.optimizer, observer)?
        {
            self.set(restored.optimizer, restored.weights);
            self.passed = restored.passed;
            self.report.go_on(self.optimizer.steps, restored.seconds, restored.loss);
        }
        // All ranks must stand where rank 0 stands.
        let steps = self.training.world.gather(self.optimizer.steps as f64)?;
        if let Some((rank, steps)) = steps.iter().enumerate().find(|(_, found)| **found != steps[0]) {
            return Err(Error::input(format!("rank {rank} goes on from step {steps}, rank 0 from another"))
                .help("all ranks must see the same project folder"));
        }
        self.report.open(self.optimizer.steps)
    }

    /// Puts this state in the place of the present one.
    fn set(&mut self, optimizer: Optimizer, mut weights: TensorMap) {
        let network = self.network.take().expect("there is a network between steps");
        let network = map_parameters(network, |name, _| Replacement {
            values: weights.remove(name).map(|(_, values)| values),
            trained: false,
        });
        self.network = Some(for_training(network, |name| self.selection.contains(name)));
        self.optimizer = optimizer;
        if self.is_sharded() {
            sharded::shard(&mut self.optimizer, self.training.world);
        }
    }

    /// All steps that are left until `until`.
    fn train(&mut self, until: u64) -> Result<()> {
        let (objective, seed) = (self.objective, self.training.seed);
        if O::BY_NETWORK {
            return self
                .run(until, |index, network| objective.batch(Place { seed, index, network: Some(&network.valid()) }));
        }
        let indices: Vec<u64> = (self.optimizer.steps..until).flat_map(|step| self.own_indices(step)).collect();
        std::thread::scope(|scope| {
            // Batches are made while the last one is trained on.
            let (sender, coming) = sync_channel(BATCHES_AHEAD);
            scope.spawn(move || {
                for index in indices {
                    if sender.send(objective.batch(Place { seed, index, network: None })).is_err() {
                        return;
                    }
                }
            });
            self.run(until, |_, _| coming.recv().unwrap_or_else(|_| Err(Error::internal("no more batches came"))))
        })
    }

    /// The numbers of the micro-batches of a step that this process works on.
    fn own_indices(&self, step: u64) -> impl Iterator<Item = u64> + use<M, O> {
        let micro = self.training.schedule.batches.gradient_accumulation as u64;
        let (rank, size) = (self.training.world.rank() as u64, self.training.world.size() as u64);
        (rank..micro).step_by(size as usize).map(move |i| step * micro + i)
    }

    fn run(&mut self, until: u64, mut make: impl FnMut(u64, &M) -> Result<O::Batch>) -> Result<()> {
        while self.optimizer.steps < until {
            self.stop_if_interrupted()?;
            let mut batches = Vec::new();
            for index in self.own_indices(self.optimizer.steps) {
                batches.push((index, make(index, self.network())?));
            }
            self.step(batches)?;
            if !self.looked_at {
                continue;
            }
            if self.is_due() {
                self.save(true)?;
            }
            let every = self.training.schedule.reports.sample_every;
            if every > 0 && self.optimizer.steps.is_multiple_of(every) {
                self.write_sample()?;
            }
        }
        self.written()
    }

    /// Saves and stops once any of the processes has been asked to.
    fn stop_if_interrupted(&mut self) -> Result<()> {
        let Training { observer, world, .. } = *self.training;
        let own = if observer.is_interrupted() { 1.0 } else { 0.0 };
        if world.gather(own)?.iter().all(|asked| *asked == 0.0) {
            return Ok(());
        }
        if self.looked_at {
            self.save(self.is_due())?;
            self.written()?;
        }
        observer.check()?;
        Err(Error::interrupted("another process of this training was interrupted"))
    }

    /// One optimizer step over this process's micro-batches.
    fn step(&mut self, batches: Vec<Numbered<O::Batch>>) -> Result<()> {
        self.report.begin_step();
        let Training { schedule, seed, world, .. } = self.training;
        let rounds = schedule.batches.gradient_accumulation.div_ceil(world.size());
        let weights: Vec<u64> = batches.iter().map(|(_, batch)| self.objective.weight(batch)).collect();
        let mut weight = 0;
        for round in 0..rounds {
            let own = weights.get(round).copied().unwrap_or_default();
            weight += world.gather(own as f64)?.iter().sum::<f64>() as u64;
        }
        // Divided by the weight of the whole step, so that accumulation changes nothing but memory.
        let scale = if weight == 0 { 0.0 } else { 1.0 / weight as f64 };
        let (mut loss, mut values) = (0.0, vec![0.0; O::VALUES.len()]);
        let layout = self.optimizer.layout();
        let mut sums = world.sums(&layout);
        for round in 0..rounds {
            let own =
                batches.get(round).zip(weights.get(round)).filter(|(_, weight)| **weight > 0).map(|(batch, _)| batch);
            let pass = own.map(|(index, batch)| {
                let noise = Stream::new(*seed, "dropout").at(*index);
                self.objective.gradients(self.network(), batch, noise, scale)
            });
            let Pass { loss: part, values: found, gradients } = match pass {
                Some(pass) => pass,
                None => Pass { loss: 0.0, values: vec![0.0; O::VALUES.len()], gradients: NamedGradients::default() },
            };
            loss = world.gather(part)?.iter().fold(loss, |sum, part| sum + part);
            for (value, part) in values.iter_mut().zip(found) {
                *value = world.gather(part)?.iter().fold(*value, |sum, part| sum + part);
            }
            sums.add_round(own.is_some().then_some(gradients))?;
        }
        values.iter_mut().for_each(|value| *value *= scale);
        let lr = learning_rate(schedule, self.optimizer.steps);
        // The old weights are given up, so that the new ones can take their place.
        let grad_norm = if self.is_sharded() {
            let own = sums.finish_own()?;
            let network = self.network.take().expect("there is a network between steps");
            let (network, norm) =
                sharded::step(&mut self.optimizer, network.valid(), own, *world, &schedule.update, lr)?;
            self.network = Some(for_training(network, |name| self.selection.contains(name)));
            norm
        } else {
            let sum = sums.finish()?;
            let network = self.network.take().expect("there is a network between steps");
            let (network, norm) = self.optimizer.step(network, sum, &schedule.update, lr);
            self.network = Some(network);
            norm
        };
        self.finish_step(Step { done: self.optimizer.steps, loss, lr, grad_norm, weight, values })
    }

    /// Validation and the report after a step.
    fn finish_step(&mut self, step: Step) -> Result<()> {
        self.report.end_work();
        let Schedule { batches: Batching { steps, .. }, reports, .. } = &self.training.schedule;
        let every = reports.eval_every;
        let due = every > 0 && step.done.is_multiple_of(every) && step.done < *steps;
        let validation = if due && self.looked_at && self.training.world.rank() == 0 {
            self.objective.validate(&self.network().valid(), Extent::Part, Observer::silent())?
        } else {
            None
        };
        let shown = self.objective.shown(&step.values);
        self.report.step(step, &shown, validation)
    }

    /// Whether each rank has its share of the optimizer's state alone.
    fn is_sharded(&self) -> bool {
        self.training.schedule.machine.shard != Shard::None && self.training.world.size() > 1
    }

    fn network(&self) -> &M {
        self.network.as_ref().expect("there is a network between steps")
    }

    /// Whether the schedule asks for a checkpoint now: at its intervals, and at the end.
    fn is_due(&self) -> bool {
        let Schedule { batches, checkpoints: Checkpointing { checkpoint_every, .. }, .. } = &self.training.schedule;
        let done = self.optimizer.steps;
        *checkpoint_every > 0 && done > 0 && (done.is_multiple_of(*checkpoint_every) || done == batches.steps)
    }

    /// A copy of the state; none where another rank takes it.
    fn snapshot(&self) -> Result<Option<Snapshot>> {
        let world = self.training.world;
        let take = |optimizer: &Optimizer| Snapshot::take(self.run, self.network(), optimizer, self.report.seconds());
        if !self.is_sharded() {
            return Ok((world.rank() == 0).then(|| take(&self.optimizer)));
        }
        // All ranks give what they have.
        let whole = sharded::whole(&self.optimizer, world)?;
        Ok((world.rank() == 0).then(|| take(&whole)))
    }

    /// Copies the state and writes it while training goes on. States that do not count are there to go on from only.
    fn save(&mut self, counts: bool) -> Result<()> {
        let Some(folder) = self.training.work else { return Ok(()) };
        self.written()?;
        let Some(mut snapshot) = self.snapshot()? else { return Ok(()) };
        let passed = self.passed.clone();
        let counts = counts && passed.last().is_none_or(|passed| passed.step < self.optimizer.steps);
        (snapshot.passed, snapshot.counts, snapshot.loss) = (passed, counts, self.report.last_loss());
        snapshot.keep = self.training.schedule.checkpoints.keep_checkpoints;
        let folder = folder.to_path_buf();
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
        let Training { sample: Some(sample), observer, .. } = self.training else { return Ok(()) };
        let text = sample(&self.network().valid().to_device(&cpu()))?;
        observer.emit(Event::Sample { step: observer.step().into(), at: self.optimizer.steps, text });
        Ok(())
    }

    fn finish(mut self) -> Result<Fitted<M>> {
        let (network, seconds) = (self.network().valid(), self.report.seconds());
        if let Some(loss) = self.report.last_loss().filter(|loss| !loss.is_finite()) {
            return Err(Error::input(format!("training has diverged: the loss of the last step is {loss}"))
                .help("lower `lr`, or raise `warmup`, in the schedule, and train again"));
        }
        let validation = match self.training.world.rank() {
            0 => self.objective.validate(&network, Extent::Whole, self.training.observer),
            _ => Ok(None),
        };
        // All ranks save together.
        let failed = self.training.world.gather(if validation.is_err() { 1.0 } else { 0.0 })?;
        if failed.iter().any(|failed| *failed != 0.0) && !self.is_due() {
            // What was trained is not lost with it.
            self.save(false)?;
            self.written()?;
        }
        let validation = validation?;
        let trained = self.optimizer.trained_parameters();
        let (mut figures, measured) = self.report.finish(self.optimizer.steps, seconds, trained, validation);
        figures.extend(self.objective.figures());
        Ok(Fitted { model: network.to_device(&cpu()), figures, measured, passed: std::mem::take(&mut self.passed) })
    }
}
