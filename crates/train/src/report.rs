//! What a run says of itself: a line of metrics and an event for each step, progress, and the figures at its end. Knows
//! neither networks nor batches.

use crate::{
    metrics::{Line, Metrics, OfRanks, Work},
    objective::{Units, Validation, Values},
    world::{Traffic, World},
};
use narthex_base::{Error, Event, Observer, Result, config::Schedule};
use narthex_kernels::{memory::peak_resident_bytes, probe::flop_per_second_now};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

/// Time between two progress events.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Time between two measurements of the machine's peak: shared machines change their speed, and one measurement in a
/// slow moment would make utilisation exceed 1.
const PEAK_EVERY: Duration = Duration::from_secs(10);

/// The numbers of a step.
pub(crate) struct Step {
    /// Optimizer steps taken, this one included.
    pub(crate) done: u64,
    /// The mean over what the step weighs.
    pub(crate) loss: f64,
    pub(crate) lr: f64,
    /// The norm before clipping.
    pub(crate) grad_norm: f64,
    /// What counted in the loss.
    pub(crate) weight: u64,
    /// The objective's own numbers, means.
    pub(crate) values: Vec<f64>,
}

pub(crate) struct Report<'a> {
    schedule: &'a Schedule,
    units: Units,
    /// The names of the objective's own numbers.
    names: &'static [&'static str],
    path: Option<&'a Path>,
    metrics: Option<Metrics>,
    observer: Observer<'a>,
    /// Seconds of training before this process, and the start of this one.
    seconds_before: f64,
    started: Instant,
    steps_before: u64,
    /// When the step at hand began, and how long its work took.
    step_started: Instant,
    step_seconds: f64,
    last_progress: Option<Instant>,
    /// The processes that train together, each with processors of its own, and what had gone between them before the
    /// step at hand.
    world: &'a dyn World,
    traffic: Traffic,
    /// The sums of [`OfRanks::scaling_efficiency`] and of bytes that rank 0 has sent over the steps so far.
    efficiency: f64,
    sent_bytes: u64,
    steps_here: u64,
    /// The highest peak measured so far, and when it was last measured.
    peak: Option<(f64, Instant)>,
    last_loss: Option<f64>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        schedule: &'a Schedule,
        units: Units,
        names: &'static [&'static str],
        path: Option<&'a Path>,
        observer: Observer<'a>,
        world: &'a dyn World,
    ) -> Result<Self> {
        // One process writes what the run writes.
        let path = path.filter(|_| world.rank() == 0);
        Ok(Self {
            schedule,
            units,
            names,
            path,
            metrics: path.map(|path| Metrics::open(path, u64::MAX)).transpose()?,
            observer,
            seconds_before: 0.0,
            started: Instant::now(),
            steps_before: 0,
            step_started: Instant::now(),
            step_seconds: 0.0,
            last_progress: None,
            world,
            traffic: Traffic::default(),
            efficiency: 0.0,
            sent_bytes: 0,
            steps_here: 0,
            peak: None,
            last_loss: None,
        })
    }

    /// The run goes on from a checkpoint.
    pub(crate) fn go_on(&mut self, step: u64, seconds_before: f64, last_loss: Option<f64>) {
        (self.steps_before, self.seconds_before, self.last_loss) = (step, seconds_before, last_loss);
        let detail = format!("going on from the checkpoint of step {step}");
        self.observer.progress(step, self.schedule.batches.steps, "steps", detail);
    }

    /// Opens the metrics and drops the lines after `step`.
    pub(crate) fn open(&mut self, step: u64) -> Result<()> {
        self.metrics = self.path.map(|path| Metrics::open(path, step)).transpose()?;
        Ok(())
    }

    /// The batches of a step are there; its work begins.
    pub(crate) fn begin_step(&mut self) {
        self.step_started = Instant::now();
    }

    /// The work of a step is done, apart from looking at what came of it.
    pub(crate) fn end_work(&mut self) {
        self.step_seconds = self.step_started.elapsed().as_secs_f64();
    }

    /// Metrics, event and progress after a step.
    pub(crate) fn step(&mut self, step: Step, shown: &str, validation: Option<Validation>) -> Result<()> {
        let Step { done, loss, lr, grad_norm, weight, values: own } = step;
        self.last_loss = Some(loss);
        let items_per_second = self.items_per_step() as f64 / self.step_seconds;
        let mfu = self.utilisation(items_per_second);
        let item = self.units.item;
        let mut values = vec![("loss".to_string(), loss), ("lr".into(), lr), ("grad_norm".into(), grad_norm)];
        values.push((format!("{item}_per_second"), items_per_second));
        values.extend(mfu.map(|mfu| ("mfu".into(), mfu)));
        let own: Values = self.names.iter().map(|name| name.to_string()).zip(own).collect();
        let mut in_line = Values::new();
        if let Some(found) = &validation {
            values.extend(found.values.get(found.headline).map(|value| (found.headline.into(), *value)));
            in_line.extend(found.values.clone());
        }
        values.extend(own.clone());
        in_line.extend(own);
        let work = Work { item, weight, items_per_second, mfu };
        let peak_memory_bytes = peak_resident_bytes();
        let ranks = self.of_ranks()?;
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&Line {
                step: done,
                loss,
                lr,
                grad_norm,
                work,
                peak_memory_bytes,
                ranks,
                values: in_line,
            })?;
        }
        self.observer.emit(Event::Metric { step: self.observer.step().into(), at: done, values });
        let steps = self.schedule.batches.steps;
        let due = self.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY);
        if due || validation.is_some() || done == steps {
            self.last_progress = Some(Instant::now());
            let validation = validation.map(|found| format!(", validation {}", found.shown)).unwrap_or_default();
            let mfu = mfu.map(|mfu| format!(", MFU {:.0} %", 100.0 * mfu)).unwrap_or_default();
            let shown = if shown.is_empty() { String::new() } else { format!(", {shown}") };
            let detail = format!("loss {loss:.3}{shown}{validation}, {items_per_second:.0} {item}/s{mfu}");
            self.observer.progress(done, steps, "steps", detail);
        }
        Ok(())
    }

    /// What each process has needed in the step; nothing of one alone. All take part.
    fn of_ranks(&mut self) -> Result<Option<OfRanks>> {
        if self.world.size() == 1 {
            return Ok(None);
        }
        let now = self.world.traffic();
        let sent = now.sent_bytes - self.traffic.sent_bytes;
        let own = (peak_resident_bytes(), sent, now.waited_seconds - self.traffic.waited_seconds);
        let found = self.world.all(serde_json::to_vec(&own).expect("numbers serialize"))?;
        self.traffic = self.world.traffic();
        let mut ranks = OfRanks::default();
        for (rank, words) in found.iter().enumerate() {
            let (memory, sent, waited): (u64, u64, f64) = serde_json::from_slice(words)
                .map_err(|error| Error::internal(format!("rank {rank} does not say what it needs")).cause(error))?;
            ranks.rank_peak_memory_bytes.push(memory);
            ranks.rank_sent_bytes.push(sent);
            ranks.rank_waited_seconds.push(waited);
        }
        let waited: f64 = ranks.rank_waited_seconds.iter().sum::<f64>() / found.len() as f64;
        ranks.scaling_efficiency = (1.0 - waited / self.step_seconds).clamp(0.0, 1.0);
        self.efficiency += ranks.scaling_efficiency;
        self.sent_bytes += ranks.rank_sent_bytes.iter().sum::<u64>();
        self.steps_here += 1;
        Ok(Some(ranks))
    }

    fn items_per_step(&self) -> u64 {
        self.units.items_per_batch * self.schedule.batches.gradient_accumulation as u64
    }

    /// Model FLOP utilisation at this speed.
    fn utilisation(&mut self, items_per_second: f64) -> Option<f64> {
        // A machine that was busy while its peak was measured has shown less than it can: what is reached counts too.
        let flop_per_second = items_per_second * self.units.flop_per_item?;
        let peak = self.peak() * self.world.size() as f64;
        if flop_per_second > peak {
            let of_one = flop_per_second / self.world.size() as f64;
            self.peak = self.peak.map(|(_, at)| (of_one, at));
        }
        Some((flop_per_second / peak).min(1.0))
    }

    /// Floating-point operations per second of multiply-adds in the schedule's precision.
    fn peak(&mut self) -> f64 {
        match self.peak {
            Some((peak, at)) if at.elapsed() < PEAK_EVERY => peak,
            before => {
                let now = flop_per_second_now(self.schedule.machine.precision);
                let peak = before.map_or(now, |(peak, _)| peak.max(now));
                self.peak = Some((peak, Instant::now()));
                peak
            }
        }
    }

    /// The loss of the last step; none before the first.
    pub(crate) fn last_loss(&self) -> Option<f64> {
        self.last_loss
    }

    /// Seconds of training so far, those before this process included.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// The figures of the run, and what was measured. `seconds` is what training took, `trained` counts values.
    pub(crate) fn finish(
        &mut self,
        steps: u64,
        seconds: f64,
        trained: usize,
        validation: Option<Validation>,
    ) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
        let items = self.items_per_step();
        let mut figures = BTreeMap::from([
            ("parameters".to_string(), self.units.parameters as f64),
            ("trained_parameters".into(), trained as f64),
            ("steps".into(), steps as f64),
            (self.units.item.into(), (steps * items) as f64),
        ]);
        figures.extend(self.last_loss.map(|loss| (self.units.loss_figure.to_string(), loss)));
        figures.extend(validation.into_iter().flat_map(|found| found.values));
        let items_here = (steps - self.steps_before) * items;
        let speed = items_here as f64 / (seconds - self.seconds_before);
        let mut measured = BTreeMap::from([
            ("training_seconds".to_string(), seconds),
            ("peak_memory_bytes".into(), peak_resident_bytes() as f64),
        ]);
        if self.steps_here > 0 {
            measured.insert("scaling_efficiency".into(), self.efficiency / self.steps_here as f64);
            measured.insert("sent_bytes_per_step".into(), self.sent_bytes as f64 / self.steps_here as f64);
        }
        if items_here > 0 {
            measured.insert(format!("{}_per_second", self.units.item), speed);
            measured.extend(self.utilisation(speed).map(|mfu| ("mfu".into(), mfu)));
        }
        (figures, measured)
    }
}
