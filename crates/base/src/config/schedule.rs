//! `[steps.NAME.schedule]`: how anything is trained, shared by the kinds that train. It knows neither what is trained nor
//! what is learnt.

use super::Complaint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The training loop, shared by `train` and `tune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Optimizer steps.
    #[schemars(range(min = 1), extend("x-hint" = "say how many optimizer steps to take"))]
    pub steps: u64,
    /// Sequences in one micro-batch.
    #[schemars(range(min = 1), extend("x-hint" = "16 is a start"))]
    pub batch_size: usize,
    /// Micro-batches in one optimizer step.
    #[schemars(range(min = 1), extend("x-hint" = "1 means none"))]
    pub gradient_accumulation: usize,
    /// Tokens in a sequence. In a train step, also the model's context.
    #[schemars(range(min = 2, max = 1_048_576), extend("x-hint" = "128 is a start"))]
    pub context: usize,
    /// Peak learning rate.
    #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "1e-3 is a start for small models"))]
    pub lr: f64,
    /// The learning rate at the end, as a fraction of the peak.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-hint" = "it is a fraction of `lr`"))]
    pub lr_end: f64,
    /// Steps of linear warm-up; at most `steps`.
    pub warmup: u64,
    /// Half a cosine after warm-up; or, for `wsd`, warm-up, stable, linear decay.
    pub decay: Decay,
    /// For `wsd`: the fraction of all steps spent decaying.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-hint" = "0.2 is usual"))]
    pub decay_fraction: f64,
    /// Where it runs; all but the CPU need a build with that feature. Only the CPU promises the same bytes every time.
    #[schemars(extend("enum" = Schedule::DEVICES))]
    pub device: String,
    /// The numbers that matrix products are computed in. With `bf16` the factors are rounded to bfloat16 and the sums are
    /// f32: about twice as fast where the CPU has bf16 instructions, slower where it has not. Weights, moments, norms, softmax
    /// and loss are f32 in any case.
    pub precision: Precision,
    /// Keeps only what enters each block and computes the rest again on the way back: less memory, about a third more
    /// arithmetic, the same bytes.
    pub activation_checkpointing: bool,
    /// How gradients become steps. `muon` is for the matrices of the blocks, its steps scaled to the size of AdamW's; the rest
    /// stays with AdamW.
    pub optimizer: Optimizer,
    /// Decoupled weight decay, of matrices only.
    #[schemars(range(min = 0.0), extend("x-hint" = "0.01 is usual"))]
    pub weight_decay: f64,
    /// AdamW's decay of the first moment, and Muon's momentum.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0.9 is usual"))]
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0.999 is usual"))]
    pub beta2: f64,
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0, "x-hint" = "1e-8 is usual"))]
    pub eps: f64,
    /// Clips the norm over all gradients together; 0 turns it off.
    #[schemars(range(min = 0.0), extend("x-hint" = "1.0 is usual, 0 turns it off"))]
    pub grad_clip: f64,
    /// Dropout probability.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1, "x-hint" = "0 turns it off"))]
    pub dropout: f64,
    /// Steps between validations; 0 validates at the end only.
    pub eval_every: u64,
    /// Steps between samples; 0 for none.
    pub sample_every: u64,
    /// Steps between checkpoints; 0 for none. Their digests become part of the model's manifest.
    pub checkpoint_every: u64,
    /// Keeps all checkpoints with the model, three times its weights each, so that anyone can check parts of the training:
    /// `narthex verify`.
    pub keep_checkpoints: bool,
}

impl Schedule {
    /// The devices that can be asked for; all but the first are also features of the build.
    pub const DEVICES: [&'static str; 6] = ["cpu", "cuda", "rocm", "vulkan", "metal", "wgpu"];
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 16,
            gradient_accumulation: 1,
            context: 128,
            lr: 1e-3,
            lr_end: 0.1,
            warmup: 50,
            decay: Decay::Cosine,
            decay_fraction: 0.2,
            device: "cpu".into(),
            precision: Precision::F32,
            activation_checkpointing: false,
            optimizer: Optimizer::Adamw,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            grad_clip: 1.0,
            dropout: 0.0,
            eval_every: 250,
            sample_every: 0,
            checkpoint_every: 200,
            keep_checkpoints: false,
        }
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

impl Schedule {
    /// What must hold between several values.
    ///
    /// # Errors
    /// The first value that does not fit, and what to do.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let complaint = |key, what: String, help| Err(Complaint { key, what, help });
        if self.warmup > self.steps {
            let what = format!("`warmup` = {} is more than `steps` = {}", self.warmup, self.steps);
            return complaint("schedule.warmup", what, "warm up for a tenth of the steps or less");
        }
        if self.keep_checkpoints && self.checkpoint_every == 0 {
            let what = "`keep_checkpoints` without checkpoints".into();
            return complaint("schedule.keep_checkpoints", what, "set `checkpoint_every`, or leave it out");
        }
        Ok(())
    }
}
