//! Which step gave which artifact, so that a step whose key is known need not run.

use crate::{
    artifact::Artifact,
    catalog::StepRow,
    disk,
    open::{Ledger, first_line},
};
use narthex_base::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// A step that has run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's name.
    pub step: String,
    /// The step's key.
    pub key: Digest,
    /// The artifact that it gave.
    pub artifact: Digest,
    /// When it was remembered: milliseconds since 1970.
    pub at_ms: u64,
    /// What the key is made of: configuration and inputs.
    pub material: Value,
}

impl Ledger {
    /// Remembers that the step of this key gave this artifact. `material` is what the key was made of,
    /// so that a later run can say what changed. To be called with the lock held.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remember_step(&self, step: &str, key: Digest, artifact: Digest, material: &Value) -> Result<()> {
        let record = StepRecord { step: step.into(), key, artifact, at_ms: self.next_ms(), material: material.clone() };
        let text = serde_json::to_string_pretty(&record).expect("a record always serializes") + "\n";
        disk::replace(&self.step_file(key), text.as_bytes(), &self.tmp())?;
        self.catalog.put_step(&row_of(record))
    }

    /// The artifact that the step of this key gave, if it is still there with all its files.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn known_step(&self, key: Digest) -> Result<Option<Artifact>> {
        let Some(row) = self.catalog.step(key)? else { return Ok(None) };
        match self.find(row.artifact) {
            Ok(artifact) => Ok(artifact.filter(Artifact::is_complete)),
            Err(error) => {
                self.warn(format!("{}; step `{}` runs again", first_line(&error), row.step));
                Ok(None)
            }
        }
    }

    /// The newest record of a step of this name.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn last_step(&self, step: &str) -> Result<Option<StepRecord>> {
        let Some(StepRow { key, step, artifact, at_ms, material }) = self.catalog.last_step(step)? else {
            return Ok(None);
        };
        let material = serde_json::from_str(&material)
            .map_err(|error| Error::internal("a step's record in the catalog is not JSON").cause(error))?;
        Ok(Some(StepRecord { step, key, artifact, at_ms, material }))
    }

    pub(crate) fn step_file(&self, key: Digest) -> PathBuf {
        self.root().join("steps").join(format!("{key}.json"))
    }

    /// Brings the catalog's steps up to date with the files.
    pub(crate) fn index_steps(&self) -> Result<()> {
        let known: BTreeMap<Digest, StepRow> = self.catalog.steps()?.into_iter().map(|row| (row.key, row)).collect();
        let mut stored = BTreeSet::new();
        for name in disk::names_in(&self.root().join("steps"))? {
            let path = self.root().join("steps").join(&name);
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<StepRecord>(&bytes).ok());
            let Some(row) = record.filter(|record| name == format!("{}.json", record.key)).map(row_of) else {
                self.warn(format!("{}: not the record of a step: passed over", path.display()));
                continue;
            };
            stored.insert(row.key);
            if known.get(&row.key) != Some(&row) {
                self.catalog.put_step(&row)?;
            }
        }
        for key in known.keys().filter(|key| !stored.contains(key)) {
            self.catalog.remove_step(*key)?;
        }
        Ok(())
    }
}

fn row_of(record: StepRecord) -> StepRow {
    let StepRecord { step, key, artifact, at_ms, material } = record;
    StepRow { key, step, artifact, at_ms, material: material.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Project;
    use serde_json::json;

    #[test]
    fn a_step_is_known_while_its_artifact_is_whole() {
        let project = Project::new();
        let ledger = project.ledger();
        let made = project.commit("bard", &[], &[("w", "1")]);
        let [first, second] = [b"1", b"2"].map(|text| Digest::of(text));
        assert!(ledger.known_step(first).unwrap().is_none());
        assert_eq!(ledger.last_step("bard").unwrap(), None);
        let material = json!({"z": 0.1, "a": [1, 2], "inputs": {"from": made.digest.to_string()}});
        ledger.remember_step("bard", first, made.digest, &json!({})).unwrap();
        ledger.remember_step("bard", second, made.digest, &material).unwrap();
        ledger.remember_step("other", Digest::of(b"3"), made.digest, &json!({})).unwrap();
        assert_eq!(ledger.known_step(first).unwrap().unwrap().digest, made.digest);
        let last = ledger.last_step("bard").unwrap().unwrap();
        assert_eq!((last.key, last.artifact), (second, made.digest));
        assert_eq!(last.material.to_string(), material.to_string(), "the order of keys stays");
        // The older key again: it becomes the newest.
        ledger.remember_step("bard", first, made.digest, &json!({})).unwrap();
        assert_eq!(ledger.last_step("bard").unwrap().unwrap().key, first);
        std::fs::remove_file(made.path("w")).unwrap();
        assert!(ledger.known_step(first).unwrap().is_none());
        std::fs::remove_dir_all(&made.folder).unwrap();
        assert!(ledger.known_step(first).unwrap().is_none());
    }

    #[test]
    fn a_record_that_is_none_is_passed_over() {
        let mut project = Project::new();
        let key = Digest::of(b"x");
        std::fs::write(project.root().join(format!("steps/{key}.json")), "{").unwrap();
        project.reopen();
        assert!(project.ledger().take_warnings()[0].contains("not the record of a step"));
        assert!(project.ledger().known_step(key).unwrap().is_none());
    }
}
