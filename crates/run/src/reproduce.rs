//! Making an artifact again from its recipe, to see whether the same bytes result; and where not, where they first
//! differ.

use crate::{
    material,
    project::OpenOptions,
    recipe::{self, in_order, is_step, made_here},
    runner::RunOptions,
};
use narthex_base::{
    ArtifactKind, Digest, Error, FileEntry, Manifest, Observer, Provenance, Result,
    config::{Kind, Verb},
};
use narthex_ledger::{Artifact, Ledger, hash_file as hash};
use narthex_model::{Isa, force_isa, isa};
use narthex_shelf::{Reference, check_folder, has_plan, open_ledger, read_plan, whole_provenance};
use serde::Serialize;
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    time::Instant,
};

/// A step that was made again.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// Its name.
    pub step: String,
    /// Its kind.
    pub kind: String,
    /// The digest, the same as recorded.
    pub digest: Digest,
    /// Seconds it took now.
    pub seconds: f64,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct ReproduceOptions {
    /// The folder to work in; a temporary one in the project otherwise.
    pub work: Option<PathBuf>,
    /// Follows the recipe even where the project file says something else by now.
    pub ignore_project_file: bool,
}

/// Makes an artifact again: its sources are looked up by digest, every step is run in an empty ledger, and each result
/// is compared with what is recorded.
///
/// # Errors
/// If a source, a manifest, a value of the configuration or a checkpoint is not what was recorded; if this machine or
/// this version cannot follow the recipe, which is said before any work; or if a step gives other bytes: then it is
/// said which step, and where it first differs.
pub fn reproduce(
    project: &Path,
    reference: &str,
    options: &ReproduceOptions,
    open: &OpenOptions,
    observer: Observer,
) -> Result<Vec<Reproduced>> {
    let provenance = whole_provenance(project, reference)?;
    require_machine(&provenance)?;
    require_version(&provenance)?;
    if provenance.manifest.kind == ArtifactKind::Source {
        require_sources(project, reference, &provenance)?;
        return Ok(vec![]);
    }
    if let Some(folder) = Reference::of(reference).folder() {
        check_folder(folder, &provenance.manifest)?;
    }
    let original = Original::find(project, reference, &provenance)?;
    original.check(&provenance)?;
    if !options.ignore_project_file {
        require_same_plan(project, open, &provenance)?;
    }
    let root = require_sources(project, reference, &provenance)?;
    let work = match &options.work {
        Some(folder) => Work::Kept(folder.clone()),
        None => Work::temporary(project)?,
    };
    let ledger = Ledger::open(&work.path().join(".narthex"))?;
    original.bring_imports(&provenance, &ledger)?;
    let again = recipe::open(&provenance, &root, ledger, open.source_code)?;
    let mut made = Vec::new();
    for manifest in in_order(&provenance).into_iter().filter(|manifest| is_step(manifest)) {
        let begun = Instant::now();
        let step = &manifest.recipe.step;
        again.run(&RunOptions { to: Some(step.clone()), ..RunOptions::default() }, observer)?;
        let artifact = again.ledger.resolve(step)?;
        if artifact.digest != manifest.digest() {
            return Err(original.difference(manifest, &artifact));
        }
        let kind = manifest.recipe.kind.clone();
        let seconds = begun.elapsed().as_secs_f64();
        made.push(Reproduced { step: step.clone(), kind, digest: artifact.digest, seconds });
    }
    Ok(made)
}

/// Refuses, before any work, what this machine cannot compute, and computes with what the recipe was computed with.
pub(crate) fn require_machine(provenance: &Provenance) -> Result<()> {
    for manifest in provenance.all() {
        let device = manifest.recipe.config.get("schedule").and_then(|schedule| schedule.get("device"));
        if let Some(device) = device.and_then(|device| device.as_str()).filter(|device| *device != "cpu") {
            return Err(Error::input(format!("`{}` was trained on {device}", manifest.recipe.step))
                .cause("only the CPU promises the same bytes every time")
                .help("train it with `device = \"cpu\"` to make it checkable"));
        }
    }
    let mut wanted: Vec<&str> = provenance.all().filter_map(|manifest| manifest.recipe.isa.as_deref()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let names = |sets: Vec<Isa>| sets.into_iter().map(Isa::name).collect::<Vec<_>>().join(", ");
    let name = match wanted.as_slice() {
        [] => return Ok(()),
        [one] => *one,
        // Single precision is the same with and without the instructions for bf16.
        ["avx512", both] | [both, "avx512"] if [Isa::Avx512Bf16, Isa::Amx].map(Isa::name).contains(both) => both,
        many => {
            return Err(Error::input(format!(
                "its steps were computed with different instruction sets: {}",
                many.join(", ")
            ))
            .help("run the project again on one machine, so that all of it is of one kind"));
        }
    };
    let set = Isa::from_name(name).filter(|set| set.is_available()).ok_or_else(|| {
        Error::input(format!("the recipe was computed with {name}, which this machine does not have"))
            .cause(format!("this machine has: {}", names(Isa::available())))
            .help(format!("use a machine with {name}; other instruction sets need not give the same bytes"))
    })?;
    match force_isa(set) {
        // A process that has computed already, as a server has, cannot change; single precision need not.
        Err(_) if isa().in_single_precision() != set => {
            Err(Error::input(format!("the recipe was computed with {name}, and {} is in use here", isa().name()))
                .help("check it in a process of its own and without NARTHEX_ISA: the recipe says what it needs"))
        }
        _ => Ok(()),
    }
}

/// Refuses recipes of other versions than this one follows.
pub(crate) fn require_version(provenance: &Provenance) -> Result<()> {
    let ours = env!("CARGO_PKG_VERSION");
    for manifest in provenance.all().filter(|manifest| is_step(manifest)) {
        let recipe = &manifest.recipe;
        let version = Kind::named(&recipe.kind).map(|kind| kind.recipe_version);
        if recipe.narthex != ours || version.is_some_and(|version| version != recipe.version) {
            return Err(Error::input(format!(
                "`{}` was made by narthex {} (recipe {}), and this is narthex {ours} (recipe {})",
                recipe.step,
                recipe.narthex,
                recipe.version,
                version.unwrap_or_default()
            ))
            .help(format!("use narthex {} to make it again", recipe.narthex)));
        }
    }
    Ok(())
}

/// Refuses where the project file by now says something else than the recipe.
fn require_same_plan(project: &Path, open: &OpenOptions, provenance: &Provenance) -> Result<()> {
    if !has_plan(project) {
        return Ok(());
    }
    let now = read_plan(project, &open.plan)?;
    if now.project.name != provenance.manifest.recipe.project {
        return Ok(());
    }
    let mut changes = Vec::new();
    for manifest in provenance.all().filter(|manifest| is_step(manifest)) {
        let recipe = &manifest.recipe;
        match now.steps.iter().find(|step| step.name == recipe.step) {
            // What such a verb makes is in no project file.
            None if Kind::named(&recipe.kind).is_some_and(|kind| kind.verb == Verb::MakesApart) => {}
            None => changes.push(format!("step `{}` is gone", recipe.step)),
            Some(planned) => {
                let found = material::config_changes(&recipe.config, &material::config(planned));
                changes.extend(found.into_iter().map(|change| format!("steps.{}.{change}", recipe.step)));
            }
        }
    }
    let recipe = &provenance.manifest.recipe;
    if now.project.seed != recipe.seed {
        changes.push(format!("project.seed {} -> {}", recipe.seed, now.project.seed));
    }
    if Some(&now.project.license) != recipe.license.as_ref() {
        changes.push("project.license".into());
    }
    if changes.is_empty() {
        return Ok(());
    }
    let name = &recipe.step;
    let mut error =
        Error::input(format!("the project file is not the recipe of `{name}` any more")).at(&now.file_name, None);
    for change in changes {
        error = error.cause(change);
    }
    Err(error.help("put it back, or follow the recipe alone: `--ignore-project-file`"))
}

/// The folder below which all sources lie with the bytes that the recipe names: the project's, or a bundle's data.
fn require_sources(project: &Path, reference: &str, provenance: &Provenance) -> Result<PathBuf> {
    let project = if project.is_file() { project.parent().unwrap_or(Path::new(".")) } else { project };
    let mut roots = vec![project.to_path_buf()];
    roots.splice(
        0..0,
        Reference::of(reference).papers_folder().map(|folder| folder.join("data")).filter(|folder| folder.is_dir()),
    );
    let mut problem = None;
    for root in &roots {
        match check_sources(root, provenance) {
            Ok(()) => return Ok(root.clone()),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    Err(problem.unwrap_or_else(|| Error::internal("no place was searched for sources")))
}

fn check_sources(root: &Path, provenance: &Provenance) -> Result<()> {
    for manifest in made_here(provenance).into_iter().filter(|manifest| manifest.kind == ArtifactKind::Source) {
        let name = &manifest.recipe.step;
        for file in &manifest.files {
            let path = root.join(&file.path);
            let origin = manifest.components.iter().find_map(|component| component.origin.as_deref());
            let from = origin.map(|origin| format!("; it comes from {origin}")).unwrap_or_default();
            if !path.is_file() {
                return Err(Error::input(format!("the source `{name}` is not here: {} is missing", path.display()))
                    .help(format!("put the file with BLAKE3 {} there{from}", file.digest)));
            }
            let (bytes, digest) = hash(&path)?;
            if digest != file.digest {
                return Err(Error::input(format!("the source `{name}` is not what the recipe was made from"))
                    .at(path.display(), None)
                    .cause(format!("it has {bytes} bytes and BLAKE3 {}", digest.short()))
                    .cause(format!("the recipe names {} bytes and {}", file.bytes, file.digest.short()))
                    .help(format!("get the original file{from}")));
            }
        }
    }
    Ok(())
}

/// The folder that a reproduction works in.
enum Work {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Work {
    fn temporary(project: &Path) -> Result<Self> {
        let near = if project.is_dir() { project } else { Path::new(".") };
        let made = tempfile::Builder::new().prefix(".narthex-reproduce-").tempdir_in(near);
        let made =
            made.or_else(|_| tempfile::tempdir()).map_err(|error| Error::io("cannot write into", near, error))?;
        Ok(Work::Temporary(made))
    }

    fn path(&self) -> &Path {
        match self {
            Work::Kept(path) => path,
            Work::Temporary(made) => made.path(),
        }
    }
}

/// What is still there of the first making: a ledger, or a folder with the artifact's own files.
struct Original {
    ledger: Option<Ledger>,
    folder: Option<PathBuf>,
    top: Digest,
}

impl Original {
    fn find(project: &Path, reference: &str, provenance: &Provenance) -> Result<Self> {
        let folder = Reference::of(reference).papers_folder();
        // Beside a folder, what the project has of it helps: imports, and the files of its ancestors.
        let ledger = if folder.is_none() { Some(open_ledger(project)?) } else { open_ledger(project).ok() };
        Ok(Self { ledger, folder, top: provenance.manifest.digest() })
    }

    /// Where a file of an artifact lies, if it is there.
    fn file(&self, manifest: &Manifest, file: &FileEntry) -> Option<PathBuf> {
        let digest = manifest.digest();
        let in_ledger = || {
            let artifact = self.ledger.as_ref()?.find(digest).ok().flatten()?;
            Some(artifact.path(&file.path))
        };
        let in_folder = || self.folder.as_ref().filter(|_| digest == self.top).map(|folder| folder.join(&file.path));
        in_ledger().or_else(in_folder).filter(|path| path.is_file())
    }

    /// Whether what is still there is what is recorded: files of the steps, and kept checkpoints.
    fn check(&self, provenance: &Provenance) -> Result<()> {
        for manifest in provenance.all().filter(|manifest| manifest.kind != ArtifactKind::Source) {
            for entry in &manifest.files {
                let Some(path) = self.file(manifest, entry) else { continue };
                let (bytes, digest) = hash(&path)?;
                if (bytes, digest) != (entry.bytes, entry.digest) {
                    return Err(Error::input(format!("{} of `{}` was changed", entry.path, manifest.recipe.step))
                        .at(path.display(), None)
                        .cause(format!("its BLAKE3 is {}, recorded is {}", digest.short(), entry.digest.short()))
                        .help("remove the artifact's folder and run the project again, or get the original file"));
                }
            }
            if let Some(ledger) = &self.ledger
                && let Some(artifact) = ledger.find(manifest.digest())?
            {
                check_checkpoints(&artifact)?;
            }
        }
        Ok(())
    }

    /// Copies what came in from elsewhere: nobody can make it again from here.
    fn bring_imports(&self, provenance: &Provenance, to: &Ledger) -> Result<()> {
        for manifest in made_here(provenance).into_iter().filter(|manifest| manifest.recipe.kind == "import") {
            let name = provenance
                .all()
                .flat_map(|child| &child.parents)
                .find(|parent| parent.digest == manifest.digest())
                .map_or(manifest.recipe.step.as_str(), |parent| parent.name.as_str());
            let missing = || {
                Error::input(format!("`{name}` was imported and is not here"))
                    .help(format!("import it again into this project: `narthex import DIR --name {name}`"))
            };
            let artifact = self.ledger.as_ref().and_then(|ledger| ledger.find(manifest.digest()).ok().flatten());
            let artifact = artifact.filter(Artifact::is_complete).ok_or_else(missing)?;
            let copy =
                tempfile::tempdir_in(to.root()).map_err(|error| Error::io("cannot write into", to.root(), error))?;
            let folder = copy.path().join("copy");
            self.ledger.as_ref().ok_or_else(missing)?.export(&artifact, &folder)?;
            to.import(&folder, name, manifest.clone())?;
        }
        Ok(())
    }

    /// In words, where a step that was made again first differs.
    fn difference(&self, expected: &Manifest, found: &Artifact) -> Error {
        let step = &expected.recipe.step;
        let error = Error::input(format!("step `{step}` gives another result"))
            .cause(format!("recorded is {}, made now is {}", expected.digest().short(), found.digest.short()))
            .help("same recipe, other bytes: this is worth a report, with the machine's name");
        let now = &found.manifest;
        let states = expected.checkpoints.iter().zip(&now.checkpoints);
        if let Some((before, index)) = states.enumerate().find(|(_, (a, b))| a != b).map(|(i, (a, _))| (a.step, i)) {
            let from = index.checked_sub(1).map_or(0, |index| expected.checkpoints[index].step);
            return error.cause(format!("training first differs between its steps {from} and {before}"));
        }
        for entry in &expected.files {
            match now.file(&entry.path) {
                None => return error.cause(format!("{} is missing now", entry.path)),
                Some(other) if other.digest != entry.digest => {
                    let place =
                        self.file(expected, entry).and_then(|path| first_difference(&path, &found.path(&entry.path)));
                    let place = place.map(|byte| format!(" first at byte {byte}")).unwrap_or_default();
                    return error.cause(format!("{} differs{place}", entry.path));
                }
                Some(_) => {}
            }
        }
        if let Some(extra) = now.files.iter().find(|file| expected.file(&file.path).is_none()) {
            return error.cause(format!("{} is new", extra.path));
        }
        let old = serde_json::to_value(expected).expect("a manifest serializes");
        let new = serde_json::to_value(now).expect("a manifest serializes");
        match material::config_changes(&old, &new).first() {
            Some(change) => error.cause(format!("its manifest differs: {change}")),
            None => error,
        }
    }
}

/// Whether the checkpoints that were kept with an artifact are those of its manifest.
pub(crate) fn check_checkpoints(artifact: &Artifact) -> Result<()> {
    for checkpoint in &artifact.manifest.checkpoints {
        let folder = checkpoint_folder(artifact, checkpoint.step);
        let files = checkpoint.weights.files("weights").chain(checkpoint.moments.files("moments"));
        for (name, expected) in files {
            let path = folder.join(&name);
            if path.is_file() && hash(&path)?.1 != expected {
                return Err(Error::input(format!(
                    "the checkpoint of step {} of `{}` was changed: {name}",
                    checkpoint.step,
                    artifact.name()
                ))
                .at(path.display(), None)
                .cause(format!("recorded is BLAKE3 {}", expected.short()))
                .help("run the step again to make it anew: `narthex run --force STEP`"));
            }
        }
    }
    Ok(())
}

/// Where a kept checkpoint of an artifact lies.
pub(crate) fn checkpoint_folder(artifact: &Artifact, step: u64) -> PathBuf {
    artifact.run_path(&format!("checkpoints/step-{step}"))
}

/// The first byte, counted from 0, at which two files differ.
fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let open = |path| File::open(path).ok().map(|file| BufReader::with_capacity(1 << 20, file));
    let (mut a, mut b) = (open(a)?.bytes(), open(b)?.bytes());
    let mut position = 0;
    loop {
        match (a.next(), b.next()) {
            (Some(Ok(x)), Some(Ok(y))) if x == y => position += 1,
            (None, None) => return None,
            _ => return Some(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::Recipe;

    #[test]
    fn what_this_machine_cannot_compute_is_said_before_any_work() {
        let refused = |isa: &str, device: &str| {
            let config = serde_json::json!({ "schedule": { "device": device } });
            let recipe = Recipe { isa: Some(isa.into()), config, ..Recipe::new("bard", "train") };
            let manifest = Manifest::new(ArtifactKind::Model, recipe);
            require_machine(&Provenance { manifest, lineage: vec![] }).unwrap_err()
        };
        let error = refused("mmx", "cpu");
        assert!(error.what().contains("computed with mmx, which this machine does not have"), "{error}");
        assert!(error.causes()[0].contains("portable"), "{error}");
        assert!(refused("portable", "cuda").what().contains("was trained on cuda"));
    }
}
