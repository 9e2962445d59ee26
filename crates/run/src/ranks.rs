//! Several processes that run one project together. Rank 0 does all that a single process does; where a step trains, it
//! says so to the others, who find the same inputs and take part in the training, and nothing else. Knows no sockets.

use crate::{
    project::Project,
    steps::{self, StepContext},
};
use narthex_base::{Digest, Error, Manifest, Observer, Result, plan::Input, plan::PlannedStep};
use narthex_kernels::isa;
use narthex_ledger::{Artifact, RunRecord};
use narthex_train::World;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What rank 0 says to the others between two trainings.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Take part in the training of a step.
    Train(Task),
    /// There is nothing more to train.
    End,
}

/// A step that trains, with its inputs where rank 0 has found them.
#[derive(Serialize, Deserialize)]
struct Task {
    step: String,
    key: Digest,
    stage: PathBuf,
    inputs: Vec<Given>,
}

#[derive(Serialize, Deserialize)]
struct Given {
    digest: Digest,
    manifest: Manifest,
    folder: PathBuf,
}

impl Project {
    /// The same project, run by several processes together.
    pub fn among(self, world: Arc<dyn World + Send>) -> Self {
        Self { world, ..self }
    }

    /// What must be the same in all processes that train this project together, each part with its name.
    pub fn identity(&self) -> Vec<(&'static str, String)> {
        let steps: Vec<_> = self.plan.steps.iter().map(|planned| (&planned.name, &planned.step)).collect();
        let source = self.source_code.map_or(String::new(), |code| Digest::of(code.bytes).short());
        vec![
            ("program", format!("{} {source}", env!("CARGO_PKG_VERSION"))),
            ("plan", Digest::of_json(&(steps, self.plan.project.seed)).short()),
            ("instruction set", isa().name().to_string()),
        ]
    }

    /// Says to the other processes that a step trains.
    pub(crate) fn call(
        &self,
        planned: &PlannedStep,
        inputs: &[(Input, Artifact)],
        key: Digest,
        stage: &Path,
    ) -> Result<()> {
        if self.world.size() == 1 || planned.step.schedule().is_none() {
            return Ok(());
        }
        let given = |(_, artifact): &(Input, Artifact)| Given {
            digest: artifact.digest,
            manifest: artifact.manifest.clone(),
            folder: artifact.folder.clone(),
        };
        let inputs = inputs.iter().map(given).collect();
        self.say(&Order::Train(Task { step: planned.name.clone(), key, stage: stage.into(), inputs }))
    }

    /// Says to the other processes that all is done, or why it is not.
    pub(crate) fn dismiss<T>(&self, outcome: &Result<T>) -> Result<()> {
        match outcome {
            _ if self.world.size() == 1 => Ok(()),
            Ok(_) => self.say(&Order::End),
            Err(error) => {
                self.world.abort(error.what());
                Ok(())
            }
        }
    }

    fn say(&self, order: &Order) -> Result<()> {
        self.world.tell(serde_json::to_vec(order).expect("orders serialize")).map(drop)
    }

    /// Takes part in what rank 0 trains, until that is done. For all ranks but 0.
    ///
    /// # Errors
    /// If another process fails or has gone, an input is not what it is there, or the run is interrupted.
    pub fn take_part(&self, observer: Observer) -> Result<()> {
        let outcome = self.follow(observer);
        if let Err(error) = &outcome {
            self.world.abort(error.what());
        }
        outcome
    }

    fn follow(&self, observer: Observer) -> Result<()> {
        loop {
            let words = self.world.tell(vec![])?;
            let order = serde_json::from_slice(&words)
                .map_err(|error| Error::internal("rank 0 does not say what to do").cause(error))?;
            let Order::Train(Task { step, key, stage, inputs }) = order else { return Ok(()) };
            let planned = self.plan.step(&step)?;
            let found = inputs.into_iter().map(|Given { digest, manifest, folder }| Artifact {
                digest,
                manifest,
                folder,
                run: RunRecord::default(),
            });
            let inputs: Vec<(Input, Artifact)> = planned.inputs.iter().cloned().zip(found).collect();
            let run =
                tempfile::tempdir().map_err(|error| Error::io("cannot write into", std::env::temp_dir(), error))?;
            let context = StepContext {
                project: self,
                planned,
                inputs: &inputs,
                key,
                stage: &stage,
                files: run.path(),
                run: run.path(),
                observer,
            };
            steps::take_part(&context)?;
        }
    }
}
