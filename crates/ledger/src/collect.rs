//! Garbage collection: what nothing needs any more is listed, and removed on request.

use crate::{
    disk,
    open::{CATALOG_FILE, DAMAGED_CATALOG_PREFIX, Ledger, first_line},
};
use narthex_base::{Digest, Error, Result};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An unfinished step's work is kept for this long after it was last touched: it can go on from its
/// checkpoints until then.
pub const UNFINISHED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why something may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GcKind {
    /// No name leads to this artifact.
    Artifact,
    /// The work folder of a step that finished, or that was not touched for [`UNFINISHED_KEPT`].
    Work,
    /// Something half made that a crash left, or a damaged catalog that was set aside.
    Leftover,
}

/// One thing that may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GcItem {
    /// Why it can go.
    pub kind: GcKind,
    /// The file or folder.
    pub path: PathBuf,
    /// The size of its files.
    pub bytes: u64,
    /// The step that made the artifact, or the key of the work folder, where known.
    pub name: Option<String>,
}

/// What garbage collection found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// What may go, or went.
    pub items: Vec<GcItem>,
    /// The work of unfinished steps, which stays.
    pub unfinished: Vec<GcItem>,
    /// The size of `items`.
    pub bytes: u64,
    /// Whether they were removed.
    pub applied: bool,
}

impl Ledger {
    /// Finds the artifacts to which no name leads (directly or through what was made from them), the
    /// work folders of steps that are done or were given up, and what crashes left. With `keep_history`,
    /// what a name pointed to earlier stays too. Nothing is removed unless `apply`.
    ///
    /// # Errors
    /// If a manifest on the way is damaged (what it leads to is then unknown, so nothing is removed), if
    /// with `apply` another run is active, or something cannot be removed.
    pub fn gc(&self, apply: bool, keep_history: bool) -> Result<GcReport> {
        let _lock = if apply { self.lock_unless_held()? } else { None };
        let reachable = self.reachable(keep_history)?;
        let mut items = self.unreachable_artifacts(&reachable)?;
        let (done, unfinished) = self.work(&reachable)?;
        items.extend(done);
        items.extend(self.leftovers()?);
        let bytes = items.iter().map(|item| item.bytes).sum();
        if apply {
            self.remove_all(&items)?;
        }
        Ok(GcReport { items, unfinished, bytes, applied: apply })
    }

    /// The artifacts that names lead to.
    fn reachable(&self, keep_history: bool) -> Result<BTreeSet<Digest>> {
        let mut reachable = BTreeSet::new();
        let mut next: Vec<Digest> = Vec::new();
        for history in self.read_refs()?.values() {
            let kept = if keep_history { history.as_slice() } else { &history[history.len().saturating_sub(1)..] };
            next.extend(kept.iter().map(|row| row.digest));
        }
        while let Some(digest) = next.pop() {
            if !reachable.insert(digest) {
                continue;
            }
            let artifact = self.find(digest).map_err(|error| {
                let help = error.help_text().map(str::to_string);
                error.context("cannot tell what is still needed, so nothing is removed").help(help.unwrap_or_default())
            })?;
            next.extend(
                artifact.into_iter().flat_map(|artifact| artifact.manifest.parents).map(|parent| parent.digest),
            );
        }
        Ok(reachable)
    }

    fn unreachable_artifacts(&self, reachable: &BTreeSet<Digest>) -> Result<Vec<GcItem>> {
        let mut items = Vec::new();
        for name in disk::names_in(&self.root().join("artifacts"))? {
            // A name that is no digest is not ours to remove.
            let Ok(digest) = name.parse::<Digest>() else { continue };
            if !reachable.contains(&digest) {
                let path = self.artifact_folder(digest);
                let name = self.find(digest).ok().flatten().map(|artifact| artifact.name().to_string());
                items.push(GcItem { kind: GcKind::Artifact, bytes: disk::measure(&path).0, path, name });
            }
        }
        Ok(items)
    }

    /// The work folders that may go, and those that stay.
    fn work(&self, reachable: &BTreeSet<Digest>) -> Result<(Vec<GcItem>, Vec<GcItem>)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let (mut done, mut unfinished) = (Vec::new(), Vec::new());
        for name in disk::names_in(&self.root().join("work"))? {
            let path = self.root().join("work").join(&name);
            let (bytes, changed_ns) = disk::measure(&path);
            let is_finished = match step_key(&name) {
                Some(key) => self.catalog.step(key)?.is_some_and(|row| reachable.contains(&row.artifact)),
                None => false,
            };
            let is_old = now.saturating_sub(changed_ns) > UNFINISHED_KEPT.as_nanos() as i64;
            let item = GcItem { kind: GcKind::Work, path, bytes, name: Some(name) };
            if is_finished || is_old { done.push(item) } else { unfinished.push(item) }
        }
        Ok((done, unfinished))
    }

    fn leftovers(&self) -> Result<Vec<GcItem>> {
        let tmp = self.tmp();
        let mut paths: Vec<PathBuf> = disk::names_in(&tmp)?.into_iter().map(|name| tmp.join(name)).collect();
        let is_aside = |name: &String| name.starts_with(DAMAGED_CATALOG_PREFIX) && !name.starts_with(CATALOG_FILE);
        paths.extend(
            disk::names_in(self.root())?.iter().filter(|name| is_aside(name)).map(|name| self.root().join(name)),
        );
        let leftover =
            |path: PathBuf| GcItem { kind: GcKind::Leftover, bytes: disk::measure(&path).0, path, name: None };
        Ok(paths.into_iter().map(leftover).collect())
    }

    fn remove_all(&self, items: &[GcItem]) -> Result<()> {
        for item in items {
            let digest =
                item.path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            match (item.kind, digest) {
                (GcKind::Artifact, Some(digest)) => {
                    // Out of the store in one go; a crash after that leaves a leftover, not half an artifact.
                    // The row goes last and may stay: on a full disk there is room for little, and the next
                    // opening drops it.
                    let grave = self.tmp().join(format!("removed-{digest}"));
                    disk::remove(&grave)?;
                    disk::rename(&item.path, &grave)?;
                    disk::remove(&grave)?;
                    self.tolerate(self.catalog.remove_artifact(digest));
                }
                (GcKind::Artifact, None) => {
                    return Err(Error::internal("an artifact without a digest was to be removed"));
                }
                _ => disk::remove(&item.path)?,
            }
        }
        self.forget_the_gone()
    }

    /// Turns a failure of the catalog, which only indexes what has changed already, into a warning.
    fn tolerate(&self, done: Result<()>) {
        if let Err(error) = done {
            self.warn(format!("the catalog is behind until the next command: {}", first_line(&error)));
        }
    }

    /// Drops steps and entries of names' histories whose artifacts are gone. The current entry of a name
    /// stays even so, for the error that tells.
    fn forget_the_gone(&self) -> Result<()> {
        for row in self.catalog.steps()? {
            if !self.artifact_folder(row.artifact).is_dir() {
                disk::remove(&self.step_file(row.key))?;
                self.tolerate(self.catalog.remove_step(row.key));
            }
        }
        for (name, history) in self.read_refs()? {
            let last = history.len().saturating_sub(1);
            let is_kept = |index: usize, digest: Digest| index == last || self.artifact_folder(digest).is_dir();
            let kept: Vec<_> = history
                .iter()
                .enumerate()
                .filter(|(i, row)| is_kept(*i, row.digest))
                .map(|(_, row)| row.clone())
                .collect();
            if kept.len() < history.len() {
                self.write_ref(&name, &kept)?;
            }
        }
        Ok(())
    }
}

/// The step key that a work folder's name is, or ends in.
fn step_key(name: &str) -> Option<Digest> {
    name.get(name.len().checked_sub(64)?..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Project, chain, write_below};
    use serde_json::json;
    use std::{fs, fs::File};

    fn paths(items: &[GcItem]) -> Vec<String> {
        items.iter().map(|item| item.path.file_name().unwrap().to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn keeps_what_names_lead_to_and_removes_the_rest_only_when_told() {
        let mut project = Project::new();
        let chat = chain(&project);
        let old = project.commit("bard", &[], &[("w", "old")]);
        let loose = project.commit("loose", &[], &[("w", "four")]);
        let ledger = project.ledger();
        let new = ledger.resolve("bard").unwrap();
        ledger.set_ref("bard", old.digest).unwrap();
        ledger.set_ref("bard", new.digest).unwrap();
        ledger.remember_step("loose", Digest::of(b"k"), loose.digest, &json!({})).unwrap();
        fs::write(ledger.root().join("artifacts/not-ours"), "").unwrap();

        let dry = ledger.gc(false, true).unwrap();
        assert_eq!(paths(&dry.items), [loose.digest.to_string()], "history kept");
        assert_eq!((dry.items[0].name.as_deref(), dry.applied), (Some("loose"), false));
        let dry = ledger.gc(false, false).unwrap();
        let mut expected = [loose.digest.to_string(), old.digest.to_string()];
        expected.sort();
        assert_eq!(paths(&dry.items), expected);
        assert!(dry.bytes > 7 && loose.is_complete() && old.is_complete(), "a dry run removes nothing");

        let applied = ledger.gc(true, false).unwrap();
        assert_eq!((&applied.items, applied.bytes, applied.applied), (&dry.items, dry.bytes, true));
        assert!(!loose.folder.exists() && !old.folder.exists());
        for name in ["plays", "plays-data", "bard", "bard-chat"] {
            ledger.verify(&ledger.resolve(name).unwrap()).unwrap();
        }
        assert!(ledger.known_step(Digest::of(b"k")).unwrap().is_none());
        assert_eq!(ledger.last_step("loose").unwrap(), None);
        assert!(ledger.resolve(&format!("bard@{}", old.digest.short())).is_err());
        assert_eq!(ledger.gc(false, false).unwrap().items, []);
        project.reopen();
        assert_eq!(project.ledger().take_warnings(), Vec::<String>::new());
        assert_eq!(project.ledger().list().unwrap().len(), 4);
        assert!(chat.is_complete());
    }

    #[test]
    fn work_is_kept_while_it_can_go_on() {
        let project = Project::new();
        let ledger = project.ledger();
        let made = project.commit("bard", &[], &[("w", "1")]);
        ledger.set_ref("bard", made.digest).unwrap();
        let key = Digest::of(b"finished");
        ledger.remember_step("bard", key, made.digest, &json!({})).unwrap();
        for name in [format!("{key}"), format!("bard-{key}"), "going-on".into(), "given-up".into()] {
            let work = ledger.stage(&name).unwrap();
            write_below(&work, &[("checkpoint", "state")]);
        }
        let given_up = ledger.root().join("work/given-up");
        let long_ago = SystemTime::now() - UNFINISHED_KEPT - Duration::from_secs(60);
        for path in [given_up.join("checkpoint"), given_up.join("files"), given_up.clone()] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        let report = ledger.gc(true, false).unwrap();
        let mut removed = paths(&report.items);
        removed.sort();
        let mut expected = vec![format!("{key}"), format!("bard-{key}"), "given-up".to_string()];
        expected.sort();
        assert_eq!(removed, expected);
        assert_eq!((paths(&report.unfinished), report.unfinished[0].bytes), (vec!["going-on".to_string()], 5));
        assert_eq!(disk::names_in(&ledger.root().join("work")).unwrap(), ["going-on"]);
    }

    #[test]
    fn what_crashes_left_goes_but_not_while_a_run_is_active() {
        let mut project = Project::new();
        chain(&project);
        project.close();
        fs::write(project.root().join(CATALOG_FILE), "x".repeat(5000)).unwrap();
        project.reopen();
        let ledger = project.ledger();
        write_below(&ledger.tmp(), &[("new-abc/artifact/w", "half"), ("new-abc/ready/manifest.json", "{")]);
        let report = ledger.gc(false, false).unwrap();
        assert!(report.items.iter().all(|item| item.kind == GcKind::Leftover), "{report:?}");
        assert_eq!(report.items.len(), 2, "{report:?}");
        let other = Ledger::open(&project.root()).unwrap();
        let held = other.lock().unwrap();
        assert!(ledger.gc(true, false).unwrap_err().what().contains("another narthex run"));
        assert!(ledger.gc(false, false).is_ok(), "looking needs no lock");
        assert!(other.gc(true, false).is_ok(), "its own lock does not hinder it");
        drop(held);
        assert_eq!(ledger.gc(true, false).unwrap().items, []);
        assert!(disk::names_in(&ledger.tmp()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_manifest_stops_it() {
        let project = Project::new();
        let chat = chain(&project);
        let loose = project.commit("loose", &[], &[("w", "1")]);
        fs::remove_file(chat.path("manifest.json")).unwrap();
        fs::write(chat.path("manifest.json"), "{").unwrap();
        let error = project.ledger().gc(true, false).unwrap_err();
        assert!(error.what().contains("nothing is removed"), "{error}");
        assert!(loose.is_complete());
        // An unreachable artifact may be as damaged as it likes.
        fs::remove_file(project.root().join("refs/bard-chat")).unwrap();
        assert_eq!(project.ledger().gc(true, false).unwrap().items.len(), 2);
    }
}
