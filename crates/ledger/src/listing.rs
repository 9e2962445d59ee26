//! The list of what a ledger holds, from the catalog alone.

use crate::{catalog::ArtifactRow, open::Ledger};
use narthex_base::{ArtifactKind, Digest, Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listing {
    /// A name that points to it or once did; else the step that made it.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// The artifact's identity.
    pub digest: Digest,
    /// When it was made: seconds since 1970.
    pub created: u64,
    /// The size of its files.
    pub bytes: u64,
    /// The licence of its own components; absent means undeclared.
    pub license: Option<String>,
    /// Numbers that the same recipe always gives.
    pub figures: BTreeMap<String, f64>,
    /// Wall-clock seconds that the step took.
    pub seconds: f64,
    /// What the run measured.
    pub measured: BTreeMap<String, f64>,
    /// Whether `name` points to it now.
    pub current: bool,
    /// Whether its files are here, and not its manifest alone.
    pub complete: bool,
}

impl Ledger {
    /// Every artifact, newest first; one with several names has a line for each.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn list(&self) -> Result<Vec<Listing>> {
        // For each artifact, the names it had, and whether they point to it now.
        let mut names: BTreeMap<Digest, BTreeMap<String, bool>> = BTreeMap::new();
        let refs = self.catalog.refs()?;
        for (index, (name, row)) in refs.iter().enumerate() {
            let is_current = refs.get(index + 1).is_none_or(|(next, _)| next != name);
            *names.entry(row.digest).or_default().entry(name.clone()).or_default() |= is_current;
        }
        let mut listings = Vec::new();
        for row in self.catalog.artifacts()? {
            let own = names.remove(&row.digest).unwrap_or_else(|| BTreeMap::from([(row.step.clone(), false)]));
            for (name, current) in own {
                listings.push(listing(&row, name, current)?);
            }
        }
        Ok(listings)
    }
}

fn listing(row: &ArtifactRow, name: String, current: bool) -> Result<Listing> {
    let unreadable =
        |error| Error::internal(format!("the catalog's row of {} is unreadable", row.digest.short())).cause(error);
    let kind = serde_json::Value::String(row.kind.clone());
    Ok(Listing {
        name,
        kind: serde_json::from_value(kind).map_err(unreadable)?,
        digest: row.digest,
        created: row.created_ms / 1000,
        bytes: row.bytes,
        license: row.license.clone(),
        figures: serde_json::from_str(&row.figures).map_err(unreadable)?,
        seconds: row.seconds,
        measured: serde_json::from_str(&row.measured).map_err(unreadable)?,
        current,
        complete: row.complete,
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        RunRecord,
        testing::{Project, manifest, write_below},
    };
    use narthex_base::{ArtifactKind, Component, ComponentKind, Evidence, License};

    #[test]
    fn newest_first_with_every_name() {
        let project = Project::new();
        let ledger = project.ledger();
        let old = project.commit("bard", &[], &[("w", "1")]);
        let new = project.commit("bard", &[], &[("w", "22")]);
        project.commit("unnamed", &[], &[("w", "3")]);
        for (name, artifact) in [("bard", &old), ("bard", &new), ("stable", &old), ("bard", &old), ("bard", &new)] {
            ledger.set_ref(name, artifact.digest).unwrap();
        }
        let list = ledger.list().unwrap();
        let seen: Vec<_> = list.iter().map(|line| (line.name.as_str(), line.bytes, line.current)).collect();
        assert_eq!(seen, [("unnamed", 1, false), ("bard", 2, true), ("bard", 1, false), ("stable", 1, true)]);
        assert_eq!((list[1].digest, list[1].seconds, list[1].figures["loss"]), (new.digest, 2.5, 1.5));
        assert!(list.iter().all(|line| line.complete && line.created > 1_500_000_000));
    }

    #[test]
    fn licence_figures_and_measurements_are_shown() {
        let project = Project::new();
        let work = project.ledger().stage("x").unwrap();
        write_below(&work, &[("files/w", "w")]);
        let mut licensed = manifest(ArtifactKind::Bundle, "x");
        licensed.components = vec![Component {
            origin: None,
            paths: vec!["w".into()],
            ..Component::new(
                "weights",
                ComponentKind::ModelParameters,
                Some(License::parse("MIT OR Apache-2.0").unwrap()),
                Evidence::Declared,
            )
        }];
        let record = RunRecord { measured: [("mfu".to_string(), 0.25)].into(), ..RunRecord::default() };
        project.ledger().commit(licensed, &work.join("files"), None, record).unwrap();
        let line = &project.ledger().list().unwrap()[0];
        assert_eq!((line.license.as_deref(), line.kind), (Some("MIT OR Apache-2.0"), ArtifactKind::Bundle));
        assert_eq!(line.measured["mfu"], 0.25);
    }
}
