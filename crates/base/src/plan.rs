//! The resolved configuration: immutable, every value with its origin, every name resolved.
//!
//! Layers, strongest first: `--set` flags, the environment, the project file, the user's file,
//! defaults. This module reads texts that it is given; it knows no files and no environment.

mod check;
mod conform;
mod guests;
mod layers;

use crate::{
    config::{Accepts, Policy, Project, ProjectFile, Source, Step},
    error::{Error, Result},
};
pub use guests::guests;
pub use layers::GUESTS;
use layers::Merged;
use std::{collections::BTreeMap, fmt};

/// The texts that a plan is resolved from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The project file's name, for messages.
    pub file_name: String,
    /// The project file's text.
    pub file: String,
    /// The user's own file, if there is one: name and text. Only `[defaults.KIND]` tables.
    pub user_file: Option<(String, String)>,
    /// Assignments `key=value` from the environment.
    pub environment: Vec<String>,
    /// Assignments `key=value` from `--set`.
    pub flags: Vec<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--set`
    Flag,
    /// The environment.
    Environment,
    /// A file, and the line counted from 1.
    File(String, usize),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag --set"),
            Origin::Environment => f.write_str("environment"),
            Origin::File(name, line) => write!(f, "{name}:{line}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// What an input's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A step of this project.
    Step,
    /// A source of this project.
    Source,
    /// A reference into the ledger.
    Ref,
}

/// An input of a step, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The key in the step (`from`, `model`, `data`, …).
    pub role: String,
    /// The name of the step or source, or the reference.
    pub name: String,
    /// What the name stands for.
    pub kind: InputKind,
    /// What the step takes it for.
    pub accepts: Accepts,
}

/// A step with its inputs resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// Its name.
    pub name: String,
    /// Its configuration, complete.
    pub step: Step,
    /// Its inputs in the order of the configuration.
    pub inputs: Vec<Input>,
}

/// A resolved project. After this: no environment reads, no defaults.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The project file's name.
    pub file_name: String,
    /// `[project]`
    pub project: Project,
    /// The sources by name.
    pub sources: BTreeMap<String, Source>,
    /// The steps, each after its inputs; otherwise in the file's order.
    pub steps: Vec<PlannedStep>,
    /// `[policy]`
    pub policy: Policy,
    origins: BTreeMap<String, Origin>,
}

impl Plan {
    /// Resolves and checks everything that can be checked without files.
    ///
    /// # Errors
    /// Syntax, unknown keys, wrong types, values out of range, missing inputs, cycles: with file, line and a fix.
    pub fn resolve(layers: &Layers) -> Result<Self> {
        let texts = layers::texts(layers)?;
        let merged = Merged::read(&texts, &layers.file_name)?;
        let file = merged.typed()?;
        let steps = check::steps(&merged, &file)?;
        let origins = merged.origins();
        let ProjectFile { project, sources, policy, .. } = file;
        Ok(Plan { file_name: layers.file_name.clone(), project, sources, steps, policy, origins })
    }

    /// A step by name.
    ///
    /// # Errors
    /// If there is none; the help names the nearest.
    pub fn step(&self, name: &str) -> Result<&PlannedStep> {
        self.steps.iter().find(|step| step.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
            let report = Error::input(format!("there is no step `{name}`")).at(&self.file_name, None);
            match crate::error::nearest(name, names.iter().copied()) {
                Some(near) => report.help(format!("did you mean `{near}`? steps: {}", names.join(", "))),
                None => report.help(format!("steps: {}", names.join(", "))),
            }
        })
    }

    /// The steps needed for `goal`, itself included, in order.
    ///
    /// # Errors
    /// If there is no such step.
    pub fn steps_to(&self, goal: &str) -> Result<Vec<&PlannedStep>> {
        self.step(goal)?;
        let mut needed = vec![goal.to_string()];
        for step in self.steps.iter().rev() {
            if needed.contains(&step.name) {
                needed.extend(step.inputs.iter().filter(|i| i.kind == InputKind::Step).map(|i| i.name.clone()));
            }
        }
        Ok(self.steps.iter().filter(|step| needed.contains(&step.name)).collect())
    }

    /// Where the value at a dotted path comes from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// Every value of the resolved configuration: (path, value as JSON, origin), in the file's structure.
    pub fn values(&self) -> Vec<(String, serde_json::Value, Origin)> {
        let mut values = Vec::new();
        let mut add = |prefix: String, value: serde_json::Value| flatten(prefix, value, &mut values);
        add("project".into(), serde_json::to_value(&self.project).expect("our own types serialize"));
        for (name, source) in &self.sources {
            add(format!("sources.{name}"), serde_json::to_value(source).expect("our own types serialize"));
        }
        for planned in &self.steps {
            add(
                format!("steps.{}", planned.name),
                serde_json::to_value(&planned.step).expect("our own types serialize"),
            );
        }
        if !self.policy.is_empty() {
            add("policy".into(), serde_json::to_value(&self.policy).expect("our own types serialize"));
        }
        values
            .into_iter()
            .map(|(path, value)| {
                let origin = self.origin(&path);
                (path, value, origin)
            })
            .collect()
    }

    /// The JSON schema of the project file.
    pub fn schema() -> serde_json::Value {
        serde_json::to_value(schemars::schema_for!(ProjectFile)).expect("a schema is JSON")
    }
}

/// Leaves of a JSON tree, with their dotted paths; lists count as leaves.
fn flatten(prefix: String, value: serde_json::Value, into: &mut Vec<(String, serde_json::Value)>) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flatten(format!("{prefix}.{key}"), value, into);
            }
        }
        leaf => into.push((prefix, leaf)),
    }
}

#[cfg(test)]
mod tests;
