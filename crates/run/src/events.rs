//! OpenLineage events of a run: what each step reads and writes, as it happens.

use crate::project::Project;
use narthex_base::{Digest, Event, Manifest};
use narthex_ledger::Artifact;
use narthex_openness::{Dataset, RunOf, RunState, openlineage_event, run_id};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

/// Turns the events of a run into OpenLineage's.
pub struct LineageEvents<'a> {
    project: &'a Project,
    /// The steps under way: kind and run id.
    running: Mutex<BTreeMap<String, (String, String)>>,
}

impl<'a> LineageEvents<'a> {
    /// For the runs of a project.
    pub fn new(project: &'a Project) -> Self {
        Self { project, running: Mutex::new(BTreeMap::new()) }
    }

    /// The OpenLineage event that an event of a run amounts to, if it does.
    pub fn event(&self, event: &Event) -> Option<Value> {
        let mut running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Event::StepStarted { step, kind, .. } => {
                let at_ms = now_ms();
                let id = run_id(Digest::of(format!("{}/{step}", self.project.plan.project.name).as_bytes()), at_ms);
                running.insert(step.clone(), (kind.clone(), id.clone()));
                // The inputs are known by their names already; what a step reads is committed before it starts.
                let names = self.project.plan.step(step).ok()?.inputs.iter();
                let inputs: Vec<(String, Artifact)> = names
                    .filter_map(|input| Some((input.name.clone(), self.project.ledger.resolve(&input.name).ok()?)))
                    .collect();
                let inputs: Vec<(&str, &Manifest, Digest)> = inputs
                    .iter()
                    .map(|(name, artifact)| (name.as_str(), &artifact.manifest, artifact.digest))
                    .collect();
                Some(self.write(RunState::Start, at_ms, step, (kind, &id), &inputs, None, None))
            }
            Event::StepFinished { step, digest, .. } => {
                let (kind, id) = running.remove(step)?;
                let output = self.project.ledger.find(*digest).ok().flatten()?;
                let inputs: Vec<(String, Artifact)> = output
                    .manifest
                    .parents
                    .iter()
                    .filter_map(|parent| Some((parent.name.clone(), self.project.ledger.find(parent.digest).ok()??)))
                    .collect();
                let inputs: Vec<(&str, &Manifest, Digest)> = inputs
                    .iter()
                    .map(|(name, artifact)| (name.as_str(), &artifact.manifest, artifact.digest))
                    .collect();
                let made = Some((step.as_str(), &output.manifest, *digest));
                Some(self.write(RunState::Complete, now_ms(), step, (&kind, &id), &inputs, made, None))
            }
            _ => None,
        }
    }

    /// The events for the steps that are under way when a run ends with an error.
    pub fn failed(&self, message: &str, interrupted: bool) -> Vec<Value> {
        let mut running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let state = if interrupted { RunState::Abort } else { RunState::Fail };
        let ended = std::mem::take(&mut *running);
        let event = |(step, (kind, id)): (String, (String, String))| {
            self.write(state, now_ms(), &step, (&kind, &id), &[], None, Some(message))
        };
        ended.into_iter().map(event).collect()
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        state: RunState,
        at_ms: u64,
        step: &str,
        (kind, run_id): (&str, &str),
        inputs: &[(&str, &Manifest, Digest)],
        output: Option<(&str, &Manifest, Digest)>,
        error: Option<&str>,
    ) -> Value {
        let dataset = |(name, manifest, digest)| Dataset { name, manifest, digest };
        let inputs: Vec<Dataset> = inputs.iter().copied().map(dataset).collect();
        let project = &self.project.plan.project.name;
        let run = RunOf { run_id, project, step, kind, inputs: &inputs, output: output.map(dataset), error };
        openlineage_event(state, at_ms, &run)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
