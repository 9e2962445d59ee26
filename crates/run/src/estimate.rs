//! What a step that trains will need at least, said before anything runs: memory and time. Only what is certain is
//! counted, so that whoever is refused could not have been served. Trains nothing.

use crate::{memory::MemoryNeed, project::Project, source, steps};
use narthex_base::{
    Error, Result,
    config::{Machine, Offload, Optimizer, Shard, SourceFormat},
    plan::{Input, InputKind, PlannedStep},
};
use narthex_kernels::{
    memory::{available_bytes, limit_bytes},
    probe::flop_per_second_now,
};
use narthex_model::ModelConfig;
use serde::Serialize;
use std::path::PathBuf;

/// Bytes for each weight that is trained: itself, its gradient and the two moments of AdamW, in f32. Muon keeps one
/// moment for matrices.
const TRAINED_BYTES: u64 = 16;
const TRAINED_BYTES_LEAST: u64 = 12;

/// Floating-point operations of a step that trains adapters alone, as a share of one that trains all weights: the
/// gradients of the weights, a third, are not computed.
const ADAPTER_SHARE: f64 = 2.0 / 3.0;

/// What a step needs at least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Weights of the model.
    pub parameters: u64,
    /// Memory, in bytes: weights, gradients and moments, and what enters each block for each token of a micro-batch.
    pub memory_bytes: u64,
    /// Time, in seconds: the floating-point operations of all steps, at what multiply-adds reach on this machine now.
    pub seconds: f64,
}

impl Project {
    /// What a step needs at least; none if it does not train, trains elsewhere than on the CPU, or what it trains is
    /// not known before it runs.
    pub(crate) fn estimate(&self, planned: &PlannedStep) -> Option<Estimate> {
        let schedule = planned.step.schedule().filter(|schedule| schedule.machine.device == "cpu")?;
        let adapters = steps::trains_adapters(&planned.step)?;
        let model = self.model_of(planned)?;
        let batches = &schedule.batches;
        let micro = (batches.batch_size as u64).saturating_mul(batches.context as u64);
        let parameters = model.parameters() as u64;
        let Machine { shard, offload, .. } = schedule.machine;
        let spread = if shard.is_none() { 1 } else { self.world.size() as u64 };
        let each = match (adapters, schedule.update.optimizer) {
            // Frozen weights may be integers of half a byte.
            (true, _) => 0,
            // Gradients are in memory in any case.
            (false, _) if offload == Offload::Disk && shard == Shard::Parameters => 4 / spread,
            (false, _) if offload == Offload::Disk => 4 + 4 / spread,
            (false, Optimizer::Adamw) if shard == Shard::Parameters => TRAINED_BYTES / spread,
            (false, Optimizer::Muon) if shard == Shard::Parameters => TRAINED_BYTES_LEAST / spread,
            (false, Optimizer::Adamw) => 4 + (TRAINED_BYTES - 4) / spread,
            (false, Optimizer::Muon) => 4 + (TRAINED_BYTES_LEAST - 4) / spread,
        };
        let entering = micro.saturating_mul(4 * (model.layers * model.hidden_size) as u64);
        let tokens = micro as f64 * batches.gradient_accumulation as f64 * batches.steps as f64;
        let share = if adapters { ADAPTER_SHARE } else { 1.0 };
        let flop = tokens * share * model.training_flop_per_token(batches.context);
        Some(Estimate {
            parameters,
            memory_bytes: parameters.saturating_mul(each).saturating_add(entering),
            seconds: flop / flop_per_second_now(schedule.machine.precision),
        })
    }

    /// Refuses what this machine cannot do: a device that is not there, or more memory than there is.
    pub(crate) fn refuse_impossible(&self, planned: &PlannedStep, estimate: Option<&Estimate>) -> Result<()> {
        let Some(schedule) = planned.step.schedule() else { return Ok(()) };
        narthex_model::device(&schedule.machine.device, schedule.machine.precision)
            .map_err(|error| error.context(format!("step `{}` cannot run here", planned.name)))?;
        let (Some(estimate), Some(limit)) = (estimate, limit_bytes()) else { return Ok(()) };
        if estimate.memory_bytes <= limit {
            return Ok(());
        }
        let what = format!(
            "step `{}` needs {} of memory at least, and there are {}",
            planned.name,
            gigabytes(estimate.memory_bytes),
            gigabytes(limit)
        );
        let plan = self.memory_of(planned, self.world.size());
        let advised = plan.as_ref().and_then(|plan| plan.advised()).map(MemoryNeed::lines);
        let weights = estimate.parameters.saturating_mul(TRAINED_BYTES_LEAST) > limit;
        Err(Error::input(what).help(match (advised, weights) {
            (Some(lines), _) => {
                format!("set {lines} in its schedule; `narthex plan memory {}` shows what each takes", planned.name)
            }
            (None, true) => "make the model smaller: `hidden_size`, `intermediate_size`, `layers`".into(),
            (None, false) => {
                "set a smaller `batch_size`, with more `gradient_accumulation`, or a shorter `context`".into()
            }
        }))
    }

    /// What to say of a step that will hardly fit beside what else is in memory.
    pub(crate) fn doubt(&self, estimate: &Estimate) -> Option<String> {
        let available = available_bytes().filter(|available| estimate.memory_bytes > *available)?;
        Some(format!(
            "needs {} of memory at least, and {} are free: other programs will have to give some back",
            gigabytes(estimate.memory_bytes),
            gigabytes(available)
        ))
    }

    /// The model that a step makes from nothing, or else that it takes.
    pub(crate) fn model_of(&self, planned: &PlannedStep) -> Option<ModelConfig> {
        let fresh = steps::fresh_model(&planned.step, self.vocab_size(planned).unwrap_or(0));
        fresh.or_else(|| self.model_of_input(planned.inputs.iter().find(|input| input.accepts.is_model())?))
    }

    fn model_of_input(&self, input: &Input) -> Option<ModelConfig> {
        match input.kind {
            InputKind::Step => self.model_of(self.plan.step(&input.name).ok()?),
            _ => ModelConfig::read(&self.folder_of(input)?.join("config.json")).ok(),
        }
    }

    /// The folder of an input that is there already.
    fn folder_of(&self, input: &Input) -> Option<PathBuf> {
        match input.kind {
            InputKind::Step => None,
            InputKind::Ref => Some(self.ledger.resolve(&input.name).ok()?.folder),
            InputKind::Source => {
                let source = self.plan.sources.get(&input.name)?;
                let is_model = source.format == SourceFormat::HuggingFace;
                is_model.then(|| source::model_folder(self, &input.name, source).ok()).flatten()
            }
        }
    }

    /// The vocabulary that a step's tokens will have, as far as the plan tells.
    fn vocab_size(&self, planned: &PlannedStep) -> Option<usize> {
        let mut before = planned.inputs.iter().filter(|input| input.kind == InputKind::Step);
        before.find_map(|input| steps::vocab_size(&self.plan.step(&input.name).ok()?.step))
    }
}

/// 12.3 GB
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
