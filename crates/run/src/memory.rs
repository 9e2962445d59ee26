//! The memory that training takes, before it runs: for each way to spread it over processes and the disk, what each
//! process holds and what it sends (the tables of Rajbhandari et al., "ZeRO", 2020, for the way that it is done here).
//! The formulas stand in docs/src/how-to/several-processes.md. Trains nothing.

use crate::{project::Project, steps};
use narthex_base::{
    Error, Result,
    config::{Offload, Optimizer, Precision, Schedule, Shard},
    plan::PlannedStep,
};
use narthex_kernels::memory::limit_bytes;
use narthex_model::ModelConfig;
use serde::Serialize;

/// Bytes of a value.
const VALUE: u64 = 4;

/// What a process takes that trains nothing: program, text, buffers.
const PROCESS_BYTES: u64 = 60 << 20;

/// Buffers of `offload = "disk"`.
const DISK_BUFFERS_BYTES: u64 = 48 << 20;

/// What a training step takes in each process, in bytes, spread in one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryNeed {
    /// `[schedule] shard`.
    pub shard: Shard,
    /// `[schedule] offload`.
    pub offload: Offload,
    /// `[schedule] activation_checkpointing`.
    pub activation_checkpointing: bool,
    /// Weights, those on the disk left out.
    pub weights_bytes: u64,
    /// Gradients, the sums of a step and those of a micro-batch.
    pub gradients_bytes: u64,
    /// The optimizer's moments.
    pub moments_bytes: u64,
    /// What a pass keeps of a micro-batch, and the process itself.
    pub activations_bytes: u64,
    /// What is on its way to and from the other processes, or the disk.
    pub messages_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// What each process keeps on the disk.
    pub disk_bytes: u64,
    /// What each process sends to the others in a step.
    pub sent_bytes_per_step: u64,
    /// Whether all processes together fit into this machine's memory; none where its size is not known.
    pub fits: Option<bool>,
    /// Whether this is what the project says.
    pub is_chosen: bool,
}

/// What a training step would take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// The step.
    pub step: String,
    /// Processes.
    pub ranks: usize,
    /// Weights of the model, adapters left out.
    pub parameters: u64,
    /// Those that are trained.
    pub trained_parameters: u64,
    /// Memory of this machine, its container's or shell's limit counted, in bytes.
    pub limit_bytes: Option<u64>,
    /// The ways to spread it, the fastest first.
    pub settings: Vec<MemoryNeed>,
}

impl MemoryPlan {
    /// The fastest way that fits.
    pub fn advised(&self) -> Option<&MemoryNeed> {
        self.settings.iter().find(|need| need.fits == Some(true))
    }
}

impl MemoryNeed {
    /// The lines of a schedule that choose this.
    pub fn lines(&self) -> String {
        let mut lines = vec![];
        if self.activation_checkpointing && self.shard != Shard::Parameters {
            lines.push("activation_checkpointing = true".to_string());
        }
        if !self.shard.is_none() {
            lines.push(format!("shard = \"{}\"", word(&self.shard)));
        }
        if !self.offload.is_none() {
            lines.push(format!("offload = \"{}\"", word(&self.offload)));
        }
        if lines.is_empty() { "the defaults".into() } else { lines.join(", ") }
    }
}

/// A setting as it is written.
fn word(setting: &impl Serialize) -> String {
    serde_json::to_value(setting).ok().and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

impl Project {
    /// What a step that trains a language model takes, spread over so many processes in each way.
    ///
    /// # Errors
    /// If the step trains none, or what it trains is not known before it runs.
    pub fn memory_plan(&self, step: &str, ranks: usize) -> Result<MemoryPlan> {
        let planned = self.plan.step(step)?;
        self.memory_of(planned, ranks).ok_or_else(|| {
            Error::input(format!("what step `{step}` takes is not known before it runs")).help(
                "name a step of kind train or tune whose model is there, or made from a vocabulary that the plan knows",
            )
        })
    }

    pub(crate) fn memory_of(&self, planned: &PlannedStep, ranks: usize) -> Option<MemoryPlan> {
        let schedule = planned.step.schedule()?;
        steps::trains_adapters(&planned.step)?;
        let model = self.model_of(planned)?;
        let adapters = steps::adapter_parameters(&planned.step, &model);
        let sizes = Sizes::new(&model, schedule, adapters, ranks as u64);
        let limit = limit_bytes();
        let machine = &schedule.machine;
        let mut ways = vec![];
        for offload in [Offload::None, Offload::Disk] {
            for (shard, again) in [
                (Shard::None, false),
                (Shard::Optimizer, false),
                (Shard::None, true),
                (Shard::Optimizer, true),
                (Shard::Parameters, true),
            ] {
                // Among one process nothing is shared, but weights can go to the disk.
                let is_idle =
                    ranks == 1 && (shard == Shard::Optimizer || shard == Shard::Parameters && offload == Offload::None);
                if !is_idle {
                    ways.push((shard, offload, again));
                }
            }
        }
        let settings = ways.into_iter().map(|(shard, offload, again)| {
            let need = sizes.need(shard, offload, again);
            let chosen = if machine.shard == Shard::Gradients { Shard::Optimizer } else { machine.shard };
            let chosen_again = machine.activation_checkpointing || chosen == Shard::Parameters;
            MemoryNeed {
                fits: limit.map(|limit| need.total_bytes.saturating_mul(ranks as u64) <= limit),
                is_chosen: (shard, offload, again) == (chosen, machine.offload, chosen_again),
                ..need
            }
        });
        Some(MemoryPlan {
            step: planned.name.clone(),
            ranks,
            parameters: sizes.parameters,
            trained_parameters: sizes.trained,
            limit_bytes: limit,
            settings: settings.collect(),
        })
    }
}

/// What the formulas are made of, in values.
struct Sizes {
    ranks: u64,
    /// Micro-batches of a step; how many sums a process gives, and how many micro-batches it works on.
    micro_batches: u64,
    rounds: u64,
    passes: u64,
    /// Values of a sum of gradients that a process keeps to itself over several micro-batches.
    held: u64,
    /// Bytes of a weight of a block on its way.
    in_transit: u64,
    parameters: u64,
    trained: u64,
    /// Moments of all trained values.
    moments: u64,
    /// Values of one block, and of what stands before and after the blocks.
    block: u64,
    root: u64,
    /// What a pass keeps of one block, and what enters all of them.
    tape: u64,
    entries: u64,
    layers: u64,
}

impl Sizes {
    fn new(model: &ModelConfig, schedule: &Schedule, adapters: Option<u64>, ranks: u64) -> Self {
        let batches = &schedule.batches;
        let tokens = (batches.batch_size as u64).saturating_mul(batches.context as u64);
        let (hidden, layers) = (model.hidden_size as u64, model.layers.max(1) as u64);
        let parameters = model.parameters() as u64;
        let tables = if model.tied_embeddings { 1 } else { 2 };
        let root = tables * (model.vocab_size as u64) * hidden;
        let trained = adapters.unwrap_or(parameters);
        let in_blocks = trained.saturating_sub(if adapters.is_some() { 0 } else { root });
        let moments = match schedule.update.optimizer {
            Optimizer::Adamw => 2 * trained,
            Optimizer::Muon => 2 * trained - in_blocks,
        };
        let attention = ((model.heads + 2 * model.kv_heads) * model.head_width) as u64;
        let kept = 5 * hidden + attention + 3 * model.intermediate_size as u64;
        let micro_batches = batches.gradient_accumulation.max(1) as u64;
        Self {
            ranks,
            micro_batches,
            rounds: (batches.sums().max(1) as u64).div_ceil(ranks),
            passes: micro_batches.div_ceil(ranks),
            held: if (batches.sums() as u64) < micro_batches { trained } else { 0 },
            in_transit: if schedule.machine.precision == Precision::Bf16 { VALUE / 2 } else { VALUE },
            parameters,
            trained,
            moments,
            block: parameters.saturating_sub(root) / layers,
            root,
            tape: tokens.saturating_mul(kept),
            entries: tokens.saturating_mul(hidden * layers),
            layers,
        }
    }

    fn need(&self, shard: Shard, offload: Offload, again: bool) -> MemoryNeed {
        let Self { ranks, parameters, trained, block, root, .. } = *self;
        let (in_parts, on_disk, alone) = (shard == Shard::Parameters, offload == Offload::Disk, ranks == 1);
        let share = |values: u64| if shard.is_none() { values } else { values / ranks };
        let part = block.max(root);
        let weights = match (in_parts, on_disk) {
            // The part in use, the root, and from the disk also the next part; from others that is a message.
            (true, true) => 2 * part + root,
            (true, false) => parameters / ranks + part + root,
            (false, _) => parameters,
        };
        let gradients = self.held
            + match (again, alone) {
                // Added as they come, block by block.
                (true, true) => trained + part.min(trained),
                (true, false) => trained / ranks + part.min(trained) + if shard.is_none() { trained } else { 0 },
                (false, true) => trained * if self.micro_batches > 1 { 2 } else { 1 },
                (false, false) => trained + if self.rounds > 1 { trained / ranks } else { 0 },
            };
        let activations = match again {
            // A block's own, and the gradients of as much.
            true => self.entries + 2 * self.tape,
            false => self.layers * self.tape,
        };
        // What has come of others and what is still to be sent, where that is no gradient that is there anyway.
        let messages = match (alone, again) {
            (true, _) => 0,
            (false, true) if in_parts => part,
            (false, true) => 2 * part.min(trained),
            (false, false) => trained,
        };
        let moments = share(self.moments);
        let disk = if on_disk { moments + if in_parts { parameters / ranks } else { 0 } } else { 0 };
        let moments = if on_disk { 0 } else { moments };
        let to_others = |values: u64| values * (ranks - 1) / ranks;
        let sent_bytes = match in_parts {
            // Blocks are put together twice, the root once.
            true => {
                let blocks = 2 * self.in_transit * (parameters - root.min(parameters));
                self.rounds * VALUE * to_others(trained) + self.passes * to_others(blocks + VALUE * root)
            }
            false => VALUE * (self.rounds + 1) * to_others(trained),
        };
        let activations_bytes = VALUE * activations + PROCESS_BYTES;
        let messages_bytes = VALUE * messages + if on_disk { DISK_BUFFERS_BYTES } else { 0 };
        let state = VALUE * (weights + gradients + moments);
        MemoryNeed {
            shard,
            offload,
            activation_checkpointing: again,
            weights_bytes: VALUE * weights,
            gradients_bytes: VALUE * gradients,
            moments_bytes: VALUE * moments,
            activations_bytes,
            messages_bytes,
            total_bytes: state + activations_bytes + messages_bytes,
            disk_bytes: VALUE * disk,
            sent_bytes_per_step: sent_bytes,
            fits: None,
            is_chosen: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What processes were measured to hold at most (`peak_memory_bytes` of `metrics.jsonl`): 102 million parameters in
    /// 16 blocks, 2 micro-batches of 4 x 512 tokens.
    #[test]
    fn needs_are_those_measured() {
        let sizes = |ranks: u64| {
            let (hidden, intermediate, vocabulary) = (768, 2048, 2000);
            let block = hidden * (2 * 768 + 2 * 256) + 3 * hidden * intermediate;
            let root = vocabulary * hidden;
            let parameters = 16 * block + root;
            let kept = 5 * hidden + 1280 + 3 * intermediate;
            Sizes {
                ranks,
                micro_batches: 2,
                rounds: 2u64.div_ceil(ranks),
                passes: 2u64.div_ceil(ranks),
                held: 0,
                in_transit: VALUE / 2,
                parameters,
                trained: parameters,
                moments: 2 * parameters,
                block,
                root,
                tape: 2048 * kept,
                entries: 2048 * hidden * 16,
                layers: 16,
            }
        };
        for (ranks, shard, offload, again, measured) in [
            (1, Shard::None, Offload::None, false, 3586),
            (1, Shard::None, Offload::None, true, 2076),
            (1, Shard::None, Offload::Disk, true, 1175),
            (1, Shard::Parameters, Offload::Disk, true, 819),
            (2, Shard::None, Offload::None, false, 3629),
            (2, Shard::Optimizer, Offload::None, false, 3162),
            (2, Shard::None, Offload::None, true, 2091),
            (2, Shard::Optimizer, Offload::None, true, 1418),
            (2, Shard::Parameters, Offload::None, true, 1156),
        ] {
            let need = sizes(ranks).need(shard, offload, again).total_bytes as f64 / 1e6;
            let off = need / f64::from(measured) - 1.0;
            assert!(off.abs() < 0.1, "{ranks} {shard:?} {offload:?} {again}: {need:.0} MB, measured {measured}");
        }
        // Each sent 409 MB a step with its share of the moments, and as much in parts, where blocks travel in bf16.
        for (shard, again, measured) in [(Shard::Optimizer, false, 408.9), (Shard::Parameters, true, 409.0)] {
            let sent = sizes(2).need(shard, Offload::None, again).sent_bytes_per_step as f64 / 1e6;
            assert!((sent / measured - 1.0).abs() < 0.05, "{shard:?}: {sent:.1} MB, measured {measured}");
        }
    }
}
