//! The one training loop. What differs between objectives is what a batch is and what its loss is, and between networks
//! which parameters they have; the loop does not ask. Knows no tokens.

use crate::{
    checkpoint::{self, Header, State},
    fault,
    learning_rate::learning_rate,
    network::{Held, Network, Parted, Round},
    objective::{Extent, Objective, Pass, Place},
    optimizer::{Optimizer, layout, norm, norm_of_ranges},
    report::{Report, Step},
    saving::Saving,
    selection::{Selected, Selection},
    stored::Scratch,
    world::{Alone, Part, World},
};
use burn::module::Module;
use narthex_base::{
    Digest, Error, Event, Observer, Passed, Result,
    config::{Batching, Checkpointing, Offload, Optimizer as Algorithm, Schedule, Shard},
    random::Stream,
};
use narthex_kernels::alloc::keep_at_most;
use narthex_model::{Device, cpu, for_training};
use std::{collections::BTreeMap, iter, ops::Range, path::Path, sync::mpsc::sync_channel};

/// Free memory that is kept for the next use where a run is to need little, in bytes: what a block of a model of some
/// hundred million parameters works with.
const WORKING_BYTES_KEPT: usize = 128 << 20;

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
    /// The network on the CPU, without gradients; adapters are not merged. Where the network was in parts, rank 0 alone
    /// has it: at other ranks its parameters have no values.
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
        checkpoint::check(path, state)?;
        session.set(path, state.step)?;
    }
    session.train(until)?;
    let work = training.work.ok_or_else(|| Error::internal("a state is taken again without a folder to work in"))?;
    checkpoint::create_files(work, &session.optimizer)?;
    session.snapshot()?.write(work, session.optimizer.scratch.as_ref(), (0, session.optimizer.steps))?;
    checkpoint::digests_of(work, session.optimizer.steps)
}

/// A micro-batch and its number in the run.
type Numbered<B> = (u64, B);

pub(crate) struct Session<'a, M: Module, O> {
    training: &'a Training<'a, M>,
    objective: &'a O,
    selection: Selection,
    run: Digest,
    /// Absent only while it is changed.
    network: Option<Network<M>>,
    optimizer: Optimizer,
    /// The trained parameters, and of each the range that this process updates.
    layout: Vec<Part>,
    ranges: Vec<Range<usize>>,
    /// The numbers of the trained parameters of each part of the network.
    groups: Vec<Vec<usize>>,
    report: Report<'a>,
    /// Whether the network is validated, sampled and kept on the way.
    looked_at: bool,
    /// The checkpoint that is being written.
    saving: Saving<'a>,
}

impl<'a, M: Module, O: Objective<M>> Session<'a, M, O> {
    pub(crate) fn start(network: M, objective: &'a O, training: &'a Training<'a, M>) -> Result<Self> {
        let (schedule, world) = (&training.schedule, training.world);
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
        let (shard, offload) = (schedule.machine.shard, schedule.machine.offload == Offload::Disk);
        let in_parts = shard == Shard::Parameters && (world.size() > 1 || offload);
        if (in_parts || offload) && training.device != cpu() {
            return Err(Error::input("weights and moments are spread over processes and disks on the CPU only")
                .help("set `device = \"cpu\"`, or `shard = \"none\"` and `offload = \"none\"`"));
        }
        let mut scratch = match offload {
            true => Some(Scratch::new(training.work.unwrap_or(&std::env::temp_dir()))?),
            false => None,
        };
        let sums = schedule.batches.sums();
        if sums < world.size() {
            let (size, left) = (world.size(), world.size() - sums);
            training.observer.warn(format!(
                "{left} of {size} processes have nothing to do, as a step has work for {sums}: raise `gradient_accumulation`"
            ));
        }
        let units = objective.units(&network);
        let layout = layout(&selection, schedule.update.optimizer);
        let own = |part: &Part| match shard {
            Shard::None => 0..part.len,
            _ => world.range(part, world.rank()),
        };
        if in_parts || offload {
            // What is given up is to be gone.
            keep_at_most(WORKING_BYTES_KEPT);
        }
        let network = match in_parts {
            true => {
                let part_of = |name: &str| objective.part(name);
                let rounded = objective.rounded_parameters(&network).into_iter().collect();
                let parted = Parted::new(network, &layout, part_of, &rounded, world, scratch.as_mut())?;
                Network::Parted(Box::new(parted))
            }
            false => {
                let network = network.to_device(&training.device);
                Network::Whole(for_training(network, |name| selection.contains(name)))
            }
        };
        // After what is given up of the network is gone.
        let optimizer = Optimizer::new(&selection, schedule.update.optimizer, own, &training.device, scratch)?;
        let mut groups: Vec<Vec<usize>> = vec![];
        for (number, part) in layout.iter().enumerate() {
            let group = objective.part(&part.name);
            groups.resize(groups.len().max(group + 1), vec![]);
            groups[group].push(number);
        }
        Ok(Self {
            training,
            objective,
            run,
            report: Report::new(schedule, units, O::VALUES, training.metrics, training.observer, world)?,
            looked_at: true,
            saving: Saving::new(training.work, world),
            network: Some(network),
            selection,
            optimizer,
            ranges: layout.iter().map(own).collect(),
            layout,
            groups,
        })
    }

    /// Steps taken.
    pub(crate) fn steps(&self) -> u64 {
        self.optimizer.steps
    }

    /// The loss of the last step.
    pub(crate) fn last_loss(&self) -> Option<f64> {
        self.report.last_loss()
    }

    /// Goes on from the newest checkpoint of this run, if there is one. Rank 0 says which one.
    fn take_up(&mut self) -> Result<()> {
        let Training { work, observer, world, .. } = *self.training;
        let found = work.filter(|_| world.rank() == 0).and_then(|work| checkpoint::newest(work, self.run, observer));
        let words = world.tell(serde_json::to_vec(&found).expect("our own types serialize"))?;
        let found: Option<State> = serde_json::from_slice(&words)
            .map_err(|error| Error::internal("rank 0 does not say where to go on").cause(error))?;
        let taken = match (work, &found) {
            (Some(work), Some(state)) => self.set(&checkpoint::folder_of(work, state.step), state.step),
            (None, Some(_)) => Err(Error::internal("a checkpoint is to be taken up without a folder")),
            (_, None) => Ok(()),
        };
        taken.map_err(|error| match world.size() {
            1 => error,
            _ => error.help("all ranks must see the same project folder"),
        })?;
        if let Some(state) = found {
            self.report.go_on(state.step, state.seconds, state.loss());
            self.saving.passed = state.passed;
        }
        self.report.open(self.optimizer.steps)
    }

    /// Puts the state in a folder in the place of the present one.
    fn set(&mut self, folder: &Path, step: u64) -> Result<()> {
        let network = self.network.take().ok_or_else(no_network)?;
        let (world, is_parted) = (self.training.world, matches!(network, Network::Parted(_)));
        let range = |part: &Part| if is_parted { world.range(part, world.rank()) } else { 0..part.len };
        let weights = checkpoint::load(folder, step, &mut self.optimizer, &self.layout, range)?;
        self.network = Some(network.set(&self.layout, weights, &self.selection, self.optimizer.scratch.as_ref())?);
        Ok(())
    }

    /// All steps that are left until `until`.
    pub(crate) fn train(&mut self, until: u64) -> Result<()> {
        let (objective, seed) = (self.objective, self.training.seed);
        if O::BY_NETWORK {
            return self.run(until, |index, network| objective.batch(Place { seed, index, network }));
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

    /// The rounds of a step, of which each adds one sum of each process, and the passes of a round.
    fn rounds(&self) -> (usize, usize) {
        let batches = &self.training.schedule.batches;
        (batches.sums().div_ceil(self.training.world.size()), batches.gradient_accumulation.div_ceil(batches.sums()))
    }

    /// The number in its step of the micro-batch that this process works on in a pass of a round.
    fn own_number(&self, round: usize, pass: usize) -> Option<usize> {
        let (batches, world) = (&self.training.schedule.batches, self.training.world);
        let sum = round * world.size() + world.rank();
        let number = sum + pass * batches.sums();
        (sum < batches.sums() && number < batches.gradient_accumulation).then_some(number)
    }

    /// The numbers of the micro-batches of a step that this process works on, in their order.
    fn own_indices(&self, step: u64) -> Vec<u64> {
        let (rounds, passes) = self.rounds();
        let micro = self.training.schedule.batches.gradient_accumulation as u64;
        let numbers = (0..rounds).flat_map(|round| (0..passes).map(move |pass| (round, pass)));
        let numbers = numbers.filter_map(|(round, pass)| self.own_number(round, pass));
        numbers.map(|number| step * micro + number as u64).collect()
    }

    fn run(&mut self, until: u64, mut make: impl FnMut(u64, Option<&M>) -> Result<O::Batch>) -> Result<()> {
        while self.optimizer.steps < until {
            self.stop_if_interrupted()?;
            let network = O::BY_NETWORK.then(|| self.everywhere()).transpose()?;
            let mut batches = Vec::new();
            for index in self.own_indices(self.optimizer.steps) {
                batches.push((index, make(index, network.as_ref())?));
            }
            drop(network);
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
        self.saving.finish()
    }

    /// Saves and stops once any of the processes has been asked to.
    fn stop_if_interrupted(&mut self) -> Result<()> {
        let Training { observer, world, .. } = *self.training;
        let own = [u8::from(observer.is_interrupted()), u8::from(self.saving.own_is_written())];
        let found = world.all(own.to_vec())?;
        let all = |place: usize| found.iter().all(|words| words.get(place) == Some(&1));
        let any = |place: usize| found.iter().any(|words| words.get(place) == Some(&1));
        if all(1) {
            self.saving.all_are_written()?;
        }
        if !any(0) {
            return Ok(());
        }
        if self.looked_at {
            self.save(self.is_due())?;
            self.saving.finish()?;
        }
        observer.check()?;
        Err(Error::interrupted("another process of this training was interrupted"))
    }

    /// One optimizer step over this process's micro-batches.
    fn step(&mut self, batches: Vec<Numbered<O::Batch>>) -> Result<()> {
        self.report.begin_step();
        let (schedule, seed, world) = (&self.training.schedule, self.training.seed, self.training.world);
        let own: u64 = batches.iter().map(|(_, batch)| self.objective.weight(batch)).sum();
        let weight = world.gather(own as f64)?.iter().sum::<f64>() as u64;
        // Divided by the weight of the whole step, so that accumulation changes nothing but memory.
        let scale = if weight == 0 { 0.0 } else { 1.0 / weight as f64 };
        let mut batches = batches.iter();
        // Of each of this process's micro-batches its loss and its values.
        let mut found = BTreeMap::new();
        let network = self.network.as_ref().ok_or_else(no_network)?;
        let mut sums = world.sums(&self.layout);
        let (rounds, passes) = self.rounds();
        for round in 0..rounds {
            let mut held = Held::default();
            for pass in 0..passes {
                let number = self.own_number(round, pass);
                let own = number.and_then(|_| batches.next()).filter(|(_, batch)| self.objective.weight(batch) > 0);
                let noise = Stream::new(seed, "dropout").at(own.map_or(0, |(index, _)| *index));
                held.is_whole = pass + 1 == passes;
                let mut parts = Round::new(network, &self.groups, &mut *sums, &mut held, world, &self.optimizer);
                let pass = self.objective.pass(&mut parts, own.map(|(_, batch)| batch), noise, scale)?;
                if let (Some(number), Some(Pass { loss, values })) = (number, pass) {
                    found.insert(number, iter::once(loss).chain(values).collect());
                }
            }
        }
        let mut numbers = added(world, &found, 1 + O::VALUES.len())?.into_iter();
        let loss = numbers.next().unwrap_or_default();
        let mut values: Vec<f64> = numbers.collect();
        values.iter_mut().for_each(|value| *value *= scale);
        let lr = learning_rate(schedule, self.optimizer.steps);
        let is_spread = schedule.machine.shard != Shard::None;
        let gradients = if is_spread { sums.finish_own()? } else { sums.finish()? };
        let grad_norm = match is_spread {
            true => norm_of_ranges(&gradients, world, &self.layout)?,
            false => norm(&gradients),
        };
        fault::point("optimizer", world.rank(), self.optimizer.steps);
        let optimizer = &mut self.optimizer;
        let change = |weights| optimizer.step(weights, gradients, grad_norm, &schedule.update, lr);
        // The old weights are given up, so that the new ones can take their place.
        let network = self.network.take().ok_or_else(no_network)?;
        self.network = Some(network.update(&self.layout, &self.ranges, is_spread.then_some(world), change)?);
        self.finish_step(Step { done: self.optimizer.steps, loss, lr, grad_norm, weight, values })
    }

    /// Validation and the report after a step.
    fn finish_step(&mut self, step: Step) -> Result<()> {
        self.report.end_work();
        let Schedule { batches: Batching { steps, .. }, reports, .. } = &self.training.schedule;
        let every = reports.eval_every;
        let due = every > 0 && step.done.is_multiple_of(every) && step.done < *steps && self.looked_at;
        let validation = match due.then(|| self.at_first()).transpose()?.flatten() {
            Some(network) => self.objective.validate(&network, Extent::Part, Observer::silent())?,
            None => None,
        };
        let shown = self.objective.shown(&step.values);
        self.report.step(step, &shown, validation)
    }

    /// The network at every process.
    fn everywhere(&self) -> Result<M> {
        let network = self.network.as_ref().ok_or_else(no_network)?;
        network.everywhere(self.training.world, self.optimizer.scratch.as_ref())
    }

    /// The network at rank 0. All processes take part.
    fn at_first(&self) -> Result<Option<M>> {
        let network = self.network.as_ref().ok_or_else(no_network)?;
        network.at_first(self.training.world, self.optimizer.scratch.as_ref())
    }

    /// Whether the schedule asks for a checkpoint now: at its intervals, and at the end.
    fn is_due(&self) -> bool {
        let Schedule { batches, checkpoints: Checkpointing { checkpoint_every, .. }, .. } = &self.training.schedule;
        let done = self.optimizer.steps;
        *checkpoint_every > 0 && done > 0 && (done.is_multiple_of(*checkpoint_every) || done == batches.steps)
    }

    /// What this process has of the state. Of what all have, rank 0 gives it.
    fn snapshot(&self) -> Result<checkpoint::Snapshot> {
        let network = self.network.as_ref().ok_or_else(no_network)?;
        let world = self.training.world;
        let weights = network.own(&self.layout, &self.ranges);
        let is_given = self.training.schedule.machine.shard != Shard::None || world.rank() == 0;
        Ok(match is_given {
            true => checkpoint::Snapshot::take(&self.optimizer, weights, &self.ranges),
            false => checkpoint::Snapshot::default(),
        })
    }

    /// Writes the state while training goes on. States that do not count are there to go on from only.
    fn save(&mut self, counts: bool) -> Result<()> {
        if self.training.work.is_none() {
            return Ok(());
        }
        self.saving.finish()?;
        let passed = self.saving.passed.clone();
        let header = Header {
            run: self.run,
            step: self.optimizer.steps,
            seconds: self.report.seconds(),
            loss: self.report.last_loss(),
            counts: counts && passed.last().is_none_or(|passed| passed.step < self.optimizer.steps),
            passed,
            keep: self.training.schedule.checkpoints.keep_checkpoints,
        };
        let snapshot = self.snapshot()?;
        self.saving.begin(header, snapshot, &self.optimizer)
    }

    fn write_sample(&self) -> Result<()> {
        let Training { sample, observer, .. } = self.training;
        // All ranks know whether there is one.
        let Some(sample) = sample else { return Ok(()) };
        let Some(network) = self.at_first()? else { return Ok(()) };
        let text = sample(&network.to_device(&cpu()))?;
        observer.emit(Event::Sample { step: observer.step().into(), at: self.optimizer.steps, text });
        Ok(())
    }

    fn finish(mut self) -> Result<Fitted<M>> {
        let seconds = self.report.seconds();
        if let Some(loss) = self.report.last_loss().filter(|loss| !loss.is_finite()) {
            return Err(Error::input(format!("training has diverged: the loss of the last step is {loss}"))
                .help("lower `lr`, or raise `warmup`, in the schedule, and train again"));
        }
        let network = self.at_first()?;
        let validation = match &network {
            Some(network) => self.objective.validate(network, Extent::Whole, self.training.observer),
            None => Ok(None),
        };
        // All ranks save together.
        let failed = self.training.world.gather(if validation.is_err() { 1.0 } else { 0.0 })?;
        if failed.iter().any(|failed| *failed != 0.0) && !self.is_due() {
            // What was trained is not lost with it.
            self.save(false)?;
            self.saving.finish()?;
        }
        let validation = validation?;
        let trained = self.optimizer.trained_parameters();
        let (mut figures, measured) = self.report.finish(self.optimizer.steps, seconds, trained, validation);
        figures.extend(self.objective.figures());
        let skeleton = || self.network.as_ref().map(Network::skeleton).ok_or_else(no_network);
        let model = network.map_or_else(skeleton, Ok)?.to_device(&cpu());
        Ok(Fitted { model, figures, measured, passed: std::mem::take(&mut self.saving.passed) })
    }
}

/// The sums of the numbers that each micro-batch of a step has given, added in the order of micro-batches, whoever has
/// worked on them.
fn added(world: &dyn World, own: &BTreeMap<usize, Vec<f64>>, count: usize) -> Result<Vec<f64>> {
    let mut words = vec![];
    for (number, values) in own {
        words.extend((*number as u64).to_le_bytes());
        words.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let mut all = BTreeMap::new();
    for (rank, words) in world.all(words)?.into_iter().enumerate() {
        let (numbers, rest) = words.as_chunks::<8>();
        let batches = numbers.chunks_exact(1 + count);
        if !rest.is_empty() || !batches.remainder().is_empty() {
            return Err(Error::internal(format!("rank {rank} sent losses of another form")));
        }
        all.extend(batches.map(|batch| (u64::from_le_bytes(batch[0]), batch[1..].to_vec())));
    }
    let add = |sums: Vec<f64>, batch: Vec<[u8; 8]>| {
        sums.iter().zip(batch).map(|(sum, value)| sum + f64::from_le_bytes(value)).collect()
    };
    Ok(all.into_values().fold(vec![0.0; count], add))
}

fn no_network() -> Error {
    Error::internal("a step before has failed")
}
