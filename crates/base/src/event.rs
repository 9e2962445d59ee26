//! What a running job tells the world: one closed set of events. Terminal, JSON and web page
//! are renderers of it; nothing here prints.

use crate::{
    digest::Digest,
    error::{Error, Result},
};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};

/// One thing that happened. Serialised with a `type` field for `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A step begins, and why it has to run.
    StepStarted {
        /// The step's name in the project file.
        step: String,
        /// Its kind (`data`, `train`, …).
        kind: String,
        /// Why it runs: `new`, `changed: lr 0.001 -> 0.0003`, …
        reason: String,
    },
    /// A step's result is already known.
    StepUnchanged {
        /// The step's name.
        step: String,
        /// The known artifact.
        digest: Digest,
    },
    /// A step yielded its artifact.
    StepFinished {
        /// The step's name.
        step: String,
        /// The new artifact.
        digest: Digest,
        /// Wall-clock seconds.
        seconds: f64,
    },
    /// How far a step has come.
    Progress {
        /// The step's name.
        step: String,
        /// Units done so far.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is counted (`steps`, `documents`, …).
        unit: String,
        /// A short remark (`loss 1.93, 9,120 tokens/s`).
        detail: String,
    },
    /// Measured numbers at one point of a step.
    Metric {
        /// The step's name.
        step: String,
        /// The optimizer step, or the position in the work.
        at: u64,
        /// Name and value, in order.
        values: Vec<(String, f64)>,
    },
    /// Text that the model in training wrote.
    Sample {
        /// The step's name.
        step: String,
        /// The optimizer step.
        at: u64,
        /// The text, prompt included.
        text: String,
    },
    /// Something the user should know; work goes on.
    Warning {
        /// The step's name, or empty.
        step: String,
        /// What it is.
        message: String,
    },
}

/// Where a job sends its events, and how it learns that it should stop. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Observer<'a> {
    emit: &'a (dyn Fn(Event) + Sync),
    interrupt: &'a AtomicBool,
    step: &'a str,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Observer<'a> {
    /// Events go to `emit`; a raised `interrupt` asks the job to save and stop.
    pub fn new(emit: &'a (dyn Fn(Event) + Sync), interrupt: &'a AtomicBool) -> Self {
        Self { emit, interrupt, step: "" }
    }

    /// Nobody listens and nobody interrupts.
    pub fn silent() -> Observer<'static> {
        Observer { emit: &|_| {}, interrupt: &NEVER, step: "" }
    }

    /// The same observer for one step.
    pub fn for_step<'b>(self, step: &'b str) -> Observer<'b>
    where
        'a: 'b,
    {
        Observer { step, ..self }
    }

    /// The step this observer speaks for.
    pub fn step(&self) -> &str {
        self.step
    }

    /// Sends an event.
    pub fn emit(&self, event: Event) {
        (self.emit)(event);
    }

    /// Sends progress.
    pub fn progress(&self, done: u64, total: u64, unit: &str, detail: impl Into<String>) {
        self.emit(Event::Progress { step: self.step.into(), done, total, unit: unit.into(), detail: detail.into() });
    }

    /// Sends a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warning { step: self.step.into(), message: message.into() });
    }

    /// Whether the job has been asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// An error of kind `Interrupted` once the job has been asked to stop.
    pub fn check(&self) -> Result<()> {
        if !self.is_interrupted() {
            return Ok(());
        }
        let place = if self.step.is_empty() { String::new() } else { format!(" in step `{}`", self.step) };
        Err(Error::interrupted(format!("interrupted{place}")).help("run the same command again to go on from here"))
    }
}
