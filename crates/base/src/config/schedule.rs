//! The training loop's configuration: one table of keys in the file, several groups of them in the code. Knows what the
//! keys mean, but neither models nor data.

use super::Complaint;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Writes each key once: with its group, meaning, type and default. In the file, in JSON and in a step's material the
/// keys lie in one table in the order given here.
macro_rules! groups {
    ($($(#[doc = $about:expr])* $field:ident: $Group:ident {
        $($(#[doc = $doc:expr])* $(#[schemars($($facts:tt)*)])* $(#[serde($($how:tt)*)])* $key:ident: $type:ty = $default:expr,)*
    })*) => {
        /// The training loop, shared by `train`, `tune` and `fit`.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(from = "Keys", into = "Keys")]
        pub struct Schedule {
            $($(#[doc = $about])* pub $field: $Group,)*
        }

        $($(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Group {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl Default for $Group {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        })*

        /// The training loop, shared by `train`, `tune` and `fit`.
        #[derive(Clone, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(rename = "Schedule")]
        struct Keys {
            $($($(#[doc = $doc])* $(#[schemars($($facts)*)])* $(#[serde($($how)*)])* $key: $type,)*)*
        }

        impl From<Schedule> for Keys {
            fn from(schedule: Schedule) -> Self {
                Self { $($($key: schedule.$field.$key,)*)* }
            }
        }

        impl From<Keys> for Schedule {
            fn from(keys: Keys) -> Self {
                Self { $($field: $Group { $($key: keys.$key,)* },)* }
            }
        }
    };
}

groups! {
    /// How much is trained on.
    batches: Batching {
        /// Optimizer steps.
        #[schemars(range(min = 1), extend("x-hint" = "say how many optimizer steps to take"))]
        steps: u64 = 1000,
        /// Sequences in one micro-batch.
        #[schemars(range(min = 1), extend("x-hint" = "16 is a start"))]
        batch_size: usize = 16,
        /// Micro-batches in one optimizer step.
        #[schemars(range(min = 1), extend("x-hint" = "1 means none"))]
        gradient_accumulation: usize = 1,
        /// Sums that the micro-batches of a step are added to in turn, before those are added: each is one process's,
        /// so that with `--ranks` gradients travel once for a sum. 0 for as many as micro-batches, which travel one by
        /// one. Another order of additions, so another recipe.
        #[schemars(extend("x-hint" = "the number of processes, where links are slow"))]
        #[serde(skip_serializing_if = "is_zero")]
        gradient_sums: usize = 0,
        /// Tokens in a sequence. In a train step, also the model's context.
        #[schemars(range(min = 2, max = 1_048_576), extend("x-hint" = "128 is a start"))]
        context: usize = 128,
    }
    /// The learning rate over the steps.
    rate: LearningRate {
        /// Peak learning rate.
        #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "1e-3 is a start for small models"))]
        lr: f64 = 1e-3,
        /// The learning rate at the end, as a fraction of the peak.
        #[schemars(range(min = 0.0, max = 1.0), extend("x-hint" = "it is a fraction of `lr`"))]
        lr_end: f64 = 0.1,
        /// Steps of linear warm-up; at most `steps`.
        warmup: u64 = 50,
        /// Half a cosine after warm-up; or, for `wsd`, warm-up, stable, linear decay.
        decay: Decay = Decay::Cosine,
        /// For `wsd`: the fraction of all steps spent decaying.
        #[schemars(range(min = 0.0, max = 1.0), extend("x-hint" = "0.2 is usual"))]
        decay_fraction: f64 = 0.2,
    }
    /// What it runs on.
    machine: Machine {
        /// Where it runs; all but the CPU need a build with that feature. Only the CPU promises the same bytes every
        /// time.
        #[schemars(extend("enum" = Schedule::DEVICES))]
        device: String = "cpu".into(),
        /// The numbers that matrix products are computed in. With `bf16` the factors are rounded to bfloat16 and the
        /// sums are f32: about twice as fast where the CPU has bf16 instructions, slower where it has not. Weights,
        /// moments, norms, softmax and loss are f32 in any case.
        precision: Precision = Precision::F32,
        /// Keeps only what enters each block and computes the rest again on the way back: less memory, about a third
        /// more arithmetic, the same bytes.
        activation_checkpointing: bool = false,
        /// What each process has of its own, with `--ranks`: nothing, so that each has all; its share of the
        /// optimizer's moments and of the sums of gradients; or that and its share of the weights. The same bytes: it
        /// is no part of the recipe.
        #[serde(skip_serializing_if = "Shard::is_none")]
        shard: Shard = Shard::None,
        /// Where the optimizer's moments are kept between steps, and with `shard = "parameters"` the weights too. The
        /// same bytes: it is no part of the recipe.
        #[serde(skip_serializing_if = "Offload::is_none")]
        offload: Offload = Offload::None,
    }
    /// What gradients do to weights.
    update: Update {
        /// How gradients become steps. `muon` is for the matrices of the blocks, its steps scaled to the size of
        /// AdamW's; the rest stays with AdamW.
        optimizer: Optimizer = Optimizer::Adamw,
        /// Decoupled weight decay, of matrices only.
        #[schemars(range(min = 0.0), extend("x-hint" = "0.01 is usual"))]
        weight_decay: f64 = 0.01,
        /// AdamW's decay of the first moment, and Muon's momentum.
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0.9 is usual"))]
        beta1: f64 = 0.9,
        /// AdamW's decay of the second moment.
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0.999 is usual"))]
        beta2: f64 = 0.999,
        /// AdamW's epsilon.
        #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "1e-8 is usual"))]
        eps: f64 = 1e-8,
        /// Clips the norm over all gradients together; 0 turns it off.
        #[schemars(range(min = 0.0), extend("x-hint" = "1.0 is usual, 0 turns it off"))]
        grad_clip: f64 = 1.0,
        /// Dropout probability.
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0 turns it off"))]
        dropout: f64 = 0.0,
    }
    /// How often the model is looked at.
    reports: Reports {
        /// Steps between validations; 0 validates at the end only.
        eval_every: u64 = 250,
        /// Steps between samples; 0 for none.
        sample_every: u64 = 0,
    }
    /// What is kept of the way.
    checkpoints: Checkpointing {
        /// Steps between checkpoints; 0 for none. Their digests become part of the model's manifest.
        checkpoint_every: u64 = 200,
        /// Keeps all checkpoints with the model, three times its weights each, so that anyone can check parts of the
        /// training: `narthex verify`.
        keep_checkpoints: bool = false,
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Batching {
    /// Sums of gradients that are added at the end of a step, each of one process's.
    pub fn sums(&self) -> usize {
        if self.gradient_sums == 0 { self.gradient_accumulation } else { self.gradient_sums }
    }
}

impl Schedule {
    /// The devices that can be asked for; all but the first are also features of the build.
    pub const DEVICES: [&'static str; 6] = ["cpu", "cuda", "rocm", "vulkan", "metal", "wgpu"];
}

impl Schedule {
    /// What must hold between several values.
    ///
    /// # Errors
    /// The first value that does not fit, and what to do.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let Schedule { batches, rate, checkpoints, .. } = self;
        let complaint = |key, what: String, help| Err(Complaint { key, what, help });
        if batches.gradient_sums > batches.gradient_accumulation {
            let (sums, micro) = (batches.gradient_sums, batches.gradient_accumulation);
            let what = format!("`gradient_sums` = {sums} is more than `gradient_accumulation` = {micro}");
            return complaint("schedule.gradient_sums", what, "a sum needs a micro-batch; leave it out");
        }
        if rate.warmup > batches.steps {
            let what = format!("`warmup` = {} is more than `steps` = {}", rate.warmup, batches.steps);
            return complaint("schedule.warmup", what, "warm up for a tenth of the steps or less");
        }
        if checkpoints.keep_checkpoints && checkpoints.checkpoint_every == 0 {
            let what = "`keep_checkpoints` without checkpoints".into();
            return complaint("schedule.keep_checkpoints", what, "set `checkpoint_every`, or leave it out");
        }
        Ok(())
    }
}

impl Default for Keys {
    fn default() -> Self {
        Schedule::default().into()
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> Cow<'static, str> {
        Keys::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        Keys::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Keys::json_schema(generator)
    }
}

/// The numbers that matrix products are computed in. Weights, moments, norms, softmax and loss are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// The factors are rounded to bfloat16 and the sums are f32: about twice as fast where the CPU has bf16
    /// instructions, and slower where it has not.
    Bf16,
}

/// What each of several processes has of its own (ZeRO: Rajbhandari et al., 2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shard {
    /// Each process has everything: plain data parallelism.
    #[default]
    None,
    /// Each has its share of the optimizer's moments: ZeRO's stage 1.
    Optimizer,
    /// And of the sums of gradients: stage 2. Here the same as `optimizer`, as gradients are added where they are used.
    Gradients,
    /// And of the weights: stage 3. They are put together block by block, when they are used, and blocks are computed
    /// again on the way back as with `activation_checkpointing`.
    Parameters,
}

/// Where the state of training is kept between steps (ZeRO-Infinity: Rajbhandari et al., 2021).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// In memory.
    #[default]
    None,
    /// In a file of the project's folder, read and written in pieces while a step is taken.
    Disk,
}

impl Offload {
    /// Whether all is in memory.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Shard {
    /// Whether every process has everything.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How gradients become steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// AdamW (Loshchilov and Hutter, 2019).
    #[default]
    Adamw,
    /// Muon for the matrices of the blocks (Jordan et al., 2024), its steps scaled to the size of AdamW's so that one
    /// learning rate serves both (Liu et al., 2025); AdamW for the rest.
    Muon,
}

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine from the peak to the end value.
    Cosine,
    /// Constant, then a linear decay over the last `decay_fraction`.
    Wsd,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The material of a step is hashed in this order: another one would give every model another key.
    #[test]
    fn keys_lie_in_one_table_in_their_old_order() {
        let json = serde_json::to_string(&Schedule::default()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"steps":1000,"batch_size":16,"gradient_accumulation":1,"context":128,"#,
                r#""lr":0.001,"lr_end":0.1,"warmup":50,"decay":"cosine","decay_fraction":0.2,"#,
                r#""device":"cpu","precision":"f32","activation_checkpointing":false,"#,
                r#""optimizer":"adamw","weight_decay":0.01,"beta1":0.9,"beta2":0.999,"eps":1e-8,"grad_clip":1.0,"#,
                r#""dropout":0.0,"eval_every":250,"sample_every":0,"checkpoint_every":200,"keep_checkpoints":false}"#
            )
        );
        let schedule: Schedule = serde_json::from_str(r#"{"lr": 0.5, "eval_every": 7}"#).unwrap();
        assert_eq!((schedule.rate.lr, schedule.reports.eval_every, schedule.batches.steps), (0.5, 7, 1000));
    }
}
