//! Adapters that are to be served: where each lies, under which terms, and what it was made from. A tuned model of the
//! ledger and a folder that an export wrote have papers; of any other folder counts what its card and its licence's
//! text say. Knows files and papers; whether an adapter fits a model, only the model can say.

use crate::{
    card_of_folder::{folder_name, how_to_declare, papers_by_card},
    foreign::shortened,
    known::Known,
    project::open_ledger,
    reference::{Reference, resolve},
};
use narthex_base::{ArtifactKind, Digest, Error, FileEntry, Manifest, Parent, Provenance, Result};
use narthex_formats::pickle;
use narthex_ledger::{Artifact, Ledger, hash_file, read_provenance};
use narthex_model::AdapterConfig;
use narthex_openness::Shown;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The form that PEFT wrote before: it is taken apart, never run.
const PICKLED: &str = "adapter_model.bin";
/// Where a tuned model keeps its adapter.
const BESIDE_MODEL: &str = "adapter";

/// An adapter that is ready to be read, and what is known of it.
#[derive(Debug)]
pub struct OpenedAdapter {
    place: PathBuf,
    /// What lies there, as it was found.
    files: Vec<FileEntry>,
    /// Holds what was converted; it goes with this value.
    made: Option<tempfile::TempDir>,
    /// What the papers say; of a folder without any, what was found out.
    papers: Provenance,
    /// Where it comes from and under which terms. A folder without papers has no class, and nothing to download.
    pub provenance: Shown,
    /// What the user should know about the conversion; each a line.
    pub notes: Vec<String>,
}

impl OpenedAdapter {
    /// Finds out what a place is: a folder with an adapter, or a name or digest in the project's ledger.
    ///
    /// # Errors
    /// If there is no adapter, its files are not those that its papers are for, its card and its licence say different
    /// things, or its weights are a pickle that is damaged or made to do harm.
    pub(crate) fn open(project: &Path, place: &Path) -> Result<Self> {
        let reference = place.to_str().map_or(Reference::Place(place), Reference::of);
        if let Reference::Name(name) = reference {
            let (ledger, artifact) =
                resolve(project, name).map_err(|error| error.context(format!("there is no adapter at `{name}`")))?;
            return Self::in_ledger(&ledger, &artifact, name);
        }
        if place.join(CONFIG).is_file() {
            return Self::in_folder(project, place);
        }
        Err(Error::input(format!("there is no adapter at `{}`", place.display()))
            .help(format!("name a folder with {CONFIG} and {WEIGHTS} (or {PICKLED}), or a model tuned with LoRA")))
    }

    fn in_ledger(ledger: &Ledger, artifact: &Artifact, reference: &str) -> Result<Self> {
        let has_adapter = |inside: &&str| artifact.folder.join(inside).join(CONFIG).is_file();
        let Some(inside) = [BESIDE_MODEL, ""].into_iter().find(has_adapter) else {
            return Err(Error::input(format!("`{reference}` has no adapter beside its weights"))
                .help(format!("tune with `method = \"lora\"`, or name a folder with {CONFIG}")));
        };
        let Known { papers, shown: provenance, gap, .. } = Known::of_artifact(ledger, artifact)?;
        if let Some(gap) = gap {
            return Err(Error::input(format!("the lineage of `{reference}` is not whole")).cause(gap));
        }
        ledger.verify_files(artifact)?;
        let place = artifact.folder.join(inside);
        let files = files(&place)?;
        let inside = if inside.is_empty() { String::new() } else { format!("{inside}/") };
        if !covers(&papers.manifest, &inside, &files, &place)? {
            return Err(Error::input(format!("the adapter of `{reference}` is not among its files"))
                .at(place.display(), None)
                .help("make it again: `narthex run --force STEP`"));
        }
        Self::with_papers(place, &inside, files, papers, provenance)
    }

    fn in_folder(project: &Path, place: &Path) -> Result<Self> {
        let files = files(place)?;
        let whole = place.canonicalize().map_err(|error| Error::io("cannot read", place, error))?;
        // Papers lie in the folder itself, or beside the model that it is an adapter of.
        let name = folder_name(place);
        let above = whole.parent().unwrap_or(&whole);
        for (folder, inside) in [(whole.as_path(), String::new()), (above, format!("{name}/"))] {
            let path = folder.join("narthex.json");
            if !path.is_file() {
                continue;
            }
            let papers = read_provenance(&path)?;
            if covers(&papers.manifest, &inside, &files, folder)? {
                let tree = papers.tree();
                let provenance = Shown::of(papers.clone(), tree);
                return Self::with_papers(place.into(), &inside, files, papers, provenance);
            }
        }
        Self::without_papers(project, place, name, files)
    }

    /// An adapter whose papers are for exactly these files, which lie `inside` the artifact.
    fn with_papers(
        place: PathBuf,
        inside: &str,
        files: Vec<FileEntry>,
        papers: Provenance,
        provenance: Shown,
    ) -> Result<Self> {
        // A model that was tuned from somebody else's may be under other terms than the adapter beside it.
        let path = format!("{inside}{}", weights_of(&files));
        let own = papers.manifest.components.iter().find(|component| component.paths.contains(&path));
        let license = own.map_or(provenance.license.clone(), |component| component.license.clone());
        let provenance = Shown { license, ..provenance };
        Self { place, files, made: None, papers, provenance, notes: vec![] }.converted()
    }

    /// An adapter of which only its own card and the text of a licence speak, if anything does.
    fn without_papers(project: &Path, place: &Path, name: String, files: Vec<FileEntry>) -> Result<Self> {
        let paths = files.iter().map(|file| file.path.clone()).collect();
        // A server may have no project: then what the card names stays declared.
        let papers = papers_by_card(place, &name, paths, files.clone(), open_ledger(project).ok().as_ref())?;
        let tree = papers.tree();
        let provenance = Shown { openness: None, papers: None, ..Shown::of(papers.clone(), tree) };
        Self { place: place.into(), files, made: None, papers, provenance, notes: vec![] }.converted()
    }

    /// Takes a pickle apart, without running it, into a temporary folder, and notes what of its config nobody reads.
    fn converted(mut self) -> Result<Self> {
        // What cannot be read is told when the adapter is loaded.
        if let Ok(config) = AdapterConfig::read(&self.place.join(CONFIG)) {
            self.notes.extend(config.unread().map(|key| {
                format!("`{key}` in {CONFIG} is not known: it changes nothing here; compare answers if it should")
            }));
        }
        if weights_of(&self.files) != PICKLED {
            return Ok(self);
        }
        let made = tempfile::Builder::new().prefix("narthex-adapter-").tempdir();
        let made = made.map_err(|error| Error::io("cannot write into", std::env::temp_dir(), error))?;
        let done = pickle::to_safetensors(&self.place.join(PICKLED), made.path())?;
        let fail = |error| Error::io("cannot write into", made.path(), error);
        for file in &done.files {
            std::fs::rename(file, made.path().join(WEIGHTS)).map_err(fail)?;
        }
        std::fs::copy(self.place.join(CONFIG), made.path().join(CONFIG)).map_err(fail)?;
        if !done.passed_over.is_empty() {
            self.notes.push(format!("not taken over, as they are no weights: {}", shortened(&done.passed_over)));
        }
        self.made = Some(made);
        Ok(self)
    }

    /// Where it lies.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The folder to read it from: where it lies, or, of a pickle, what was made of it.
    pub fn folder(&self) -> &Path {
        self.made.as_ref().map_or(&self.place, |made| made.path())
    }

    /// Whether there still lies what was found: its terms are known of nothing else.
    pub fn is_current(&self) -> bool {
        files(&self.place).is_ok_and(|files| files == self.files)
    }

    /// What its papers say; of a folder without any, what was found out.
    pub(crate) fn papers(&self) -> &Provenance {
        &self.papers
    }

    /// How to declare its terms, where nothing is known of them: they stand in no project file.
    pub(crate) fn how_to_declare(&self) -> Option<String> {
        let is_silent = self.provenance.papers.is_none() && self.provenance.license.is_none();
        is_silent.then(|| how_to_declare(&self.place))
    }

    /// The model that it was tuned from, where papers name that and it is another than `base`, and none that `base` was
    /// made from. Weights are the same if their files are.
    pub fn other_base(&self, base: &Provenance) -> Option<&Parent> {
        let parent = self.tuned_from()?;
        if base.all().any(|manifest| {
            manifest.digest() == parent.digest || manifest.parents.iter().any(|of| of.digest == parent.digest)
        }) {
            return None;
        }
        let wanted = self.papers.find(parent.digest).map(weights).unwrap_or_default();
        let is_same = |manifest: &Manifest| {
            let found = weights(manifest);
            !wanted.is_empty() && wanted.iter().all(|digest| found.contains(digest))
        };
        (!base.all().any(is_same)).then_some(parent)
    }

    /// What its papers name as the model under it.
    fn tuned_from(&self) -> Option<&Parent> {
        let mut manifest = &self.papers.manifest;
        // A bundle holds a model as it is; each manifest is passed once at most.
        for _ in self.papers.all() {
            let is_base = |parent: &&Parent| ["model", "declared base model"].contains(&parent.role.as_str());
            let parent = manifest.parents.iter().find(is_base)?;
            if manifest.kind != ArtifactKind::Bundle {
                return Some(parent);
            }
            manifest = self.papers.find(parent.digest)?;
        }
        None
    }
}

/// The digests of an artifact's weights, those of adapters aside.
fn weights(manifest: &Manifest) -> Vec<Digest> {
    let is_whole = |file: &&FileEntry| file.path.ends_with(".safetensors") && !file.path.ends_with(WEIGHTS);
    manifest.files.iter().filter(is_whole).map(|file| file.digest).collect()
}

/// The files of an adapter as they are now: its config, then its weights.
fn files(folder: &Path) -> Result<Vec<FileEntry>> {
    let Some(weights) = [WEIGHTS, PICKLED].into_iter().find(|name| folder.join(name).is_file()) else {
        return Err(Error::input("this adapter has no weights")
            .at(folder.display(), None)
            .help(format!("expected {WEIGHTS} or {PICKLED} beside {CONFIG}: fetch or write it again")));
    };
    let entry = |name: &str| {
        let (bytes, digest) = hash_file(&folder.join(name))?;
        Ok(FileEntry { path: name.into(), bytes, digest })
    };
    [CONFIG, weights].into_iter().map(entry).collect()
}

/// The name of the file with the weights.
fn weights_of(files: &[FileEntry]) -> &str {
    files.last().map(|file| file.path.as_str()).unwrap_or_default()
}

/// Whether papers speak of these files, `inside` the folder that the papers are for.
///
/// # Errors
/// If they do, and of others than lie there now.
fn covers(manifest: &Manifest, inside: &str, files: &[FileEntry], folder: &Path) -> Result<bool> {
    let recorded: Option<Vec<&FileEntry>> =
        files.iter().map(|file| manifest.file(&format!("{inside}{}", file.path))).collect();
    let Some(recorded) = recorded else { return Ok(false) };
    match files.iter().zip(recorded).find(|(found, recorded)| found.digest != recorded.digest) {
        None => Ok(true),
        Some((_, recorded)) => Err(Error::input(format!("{} is not what its papers are for", recorded.path))
            .at(folder.display(), None)
            .cause(format!("recorded is BLAKE3 {}", recorded.digest.short()))
            .help("fetch or export it again, or take narthex.json away if the adapter is another")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PlanOptions, Shelf};
    use narthex_base::{Component, ComponentKind, Evidence, License, Recipe};
    use narthex_model::{Decoder, PeftAdapter, cpu, read_safetensors};
    use std::fs;

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    /// Copies an adapter's files, and writes others beside them.
    fn adapter(folder: &Path, others: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for name in [CONFIG, WEIGHTS] {
            fs::copy(golden("model/tests/golden/adapters/lora").join(name), folder.join(name)).unwrap();
        }
        others.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    /// An adapter that PEFT wrote as a pickle.
    fn pickled(folder: &Path, from: &str) {
        adapter(folder, &[]);
        fs::remove_file(folder.join(WEIGHTS)).unwrap();
        fs::copy(golden("formats/tests/golden/pickle").join(from), folder.join(PICKLED)).unwrap();
    }

    fn part(name: &str, license: &str, paths: &[&str]) -> Component {
        let license = Some(License::parse(license).unwrap());
        let paths = paths.iter().map(|path| path.to_string()).collect();
        Component { paths, ..Component::new(name, ComponentKind::ModelParameters, license, Evidence::Made) }
    }

    /// A project with `base`, which is said to come from hf:org/base, and `talker`, which was tuned from it.
    struct Made {
        home: tempfile::TempDir,
        base: Provenance,
    }

    impl Made {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("project");
            fs::create_dir_all(&root).unwrap();
            let ledger = Ledger::open(&root.join(".narthex")).unwrap();
            let folder = home.path().join("base");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("model.safetensors"), "weights").unwrap();
            let weights = part("weights", "CC-BY-NC-4.0", &["model.safetensors"]);
            let weights = Component { origin: Some("hf:org/base@0123".into()), ..weights };
            let recipe = |name: &str, kind: &str| Manifest::new(ArtifactKind::Model, Recipe::new(name, kind));
            let manifest = Manifest { components: vec![weights], ..recipe("base", "import") };
            let base = ledger.import(&folder, "base", manifest).unwrap();
            let folder = home.path().join("talker");
            adapter(&folder.join("adapter"), &[]);
            fs::write(folder.join("model.safetensors"), "merged").unwrap();
            let parent =
                Parent { role: "model".into(), name: "base".into(), kind: ArtifactKind::Model, digest: base.digest };
            let mut manifest = recipe("talker", "tune");
            manifest.components = vec![
                part("weights", "CC-BY-NC-4.0", &["model.safetensors"]),
                part("adapter", "Apache-2.0", &["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]),
            ];
            manifest.parents = vec![parent];
            manifest.inherit(&base.manifest);
            ledger.import(&folder, "talker", manifest).unwrap();
            let base = ledger.provenance(&base).unwrap();
            Self { home, base }
        }

        fn project(&self) -> PathBuf {
            self.home.path().join("project")
        }

        fn place(&self, name: &str) -> PathBuf {
            self.home.path().join(name)
        }

        fn open(&self, place: impl AsRef<Path>) -> Result<OpenedAdapter> {
            OpenedAdapter::open(&self.project(), place.as_ref())
        }

        fn policy(&self, rule: &str) {
            let file = format!("[project]\nname = \"p\"\n[policy]\ncommercial = true\n[policy.rules.sold]\n{rule}\n");
            fs::write(self.project().join("narthex.toml"), file).unwrap();
        }

        /// What stands in the way of serving it, as the user reads it.
        fn refusal(&self, name: &str, place: impl AsRef<Path>) -> Option<String> {
            let shelf = Shelf::new(&self.project(), PlanOptions::default());
            shelf.adapter(name, place.as_ref()).unwrap().permitted().err().map(|error| error.to_string())
        }
    }

    fn license(source: &OpenedAdapter) -> Option<&str> {
        source.provenance.license.as_ref().map(License::as_str)
    }

    #[test]
    fn of_a_tuned_model_count_its_papers() {
        let made = Made::new();
        let source = made.open("talker").unwrap();
        assert!(source.folder().ends_with("adapter") && source.folder() == source.place() && source.is_current());
        // The merged weights are under other terms.
        assert_eq!(license(&source), Some("Apache-2.0"));
        let Shown { digest, lineage, papers, openness, .. } = &source.provenance;
        let papers = papers.as_ref().unwrap();
        assert_eq!(digest.as_deref(), Some(papers.manifest.digest().to_string().as_str()));
        assert_eq!(lineage.as_ref().unwrap().parents[0].role.as_deref(), Some("model"));
        assert!(openness.is_some() && papers.lineage.len() == 1);

        assert_eq!(made.refusal("fr", "talker"), None, "without a policy nothing stands in the way");
        made.policy("licenses = [\"non-commercial\"]\nreason = \"we sell it\"");
        let error = made.refusal("fr", "talker").unwrap();
        assert!(error.contains("the adapter `fr` is not served") && error.contains("rule sold"), "{error}");
        assert!(error.contains("fr ← tuned from ← base (weights): CC-BY-NC-4.0"), "{error}");

        let error = made.open("base").unwrap_err();
        assert!(error.what().contains("has no adapter beside its weights"), "{error}");
        let error = made.open("nothing").unwrap_err();
        assert!(error.what().contains("there is no adapter at `nothing`"), "{error}");
    }

    #[test]
    fn of_an_exported_folder_count_its_papers_if_they_are_for_its_files() {
        let made = Made::new();
        let ledger = open_ledger(&made.project()).unwrap();
        let folder = made.place("exported");
        ledger.export(&ledger.resolve("talker").unwrap(), &folder).unwrap();
        drop(ledger);
        // Also where there is no project.
        for project in [made.project(), made.place("nowhere")] {
            let source = OpenedAdapter::open(&project, &folder.join("adapter")).unwrap();
            assert_eq!(license(&source), Some("Apache-2.0"));
            assert_eq!(source.provenance.lineage.as_ref().unwrap().parents[0].name, "base");
            assert!(source.provenance.papers.is_some());
        }
        let source = made.open(folder.join("adapter")).unwrap();
        let config = fs::read_to_string(folder.join("adapter").join(CONFIG)).unwrap();
        fs::write(folder.join("adapter").join(CONFIG), config.replace("\"r\": 4", "\"r\": 5")).unwrap();
        assert!(!source.is_current());
        let error = made.open(folder.join("adapter")).unwrap_err().to_string();
        assert!(error.contains("adapter/adapter_config.json is not what its papers are for"), "{error}");
        // Another adapter beside that model is not what the papers speak of.
        adapter(&folder.join("other"), &[]);
        let source = made.open(folder.join("other")).unwrap();
        assert!(license(&source).is_none() && source.provenance.papers.is_none());
    }

    #[test]
    fn of_a_bare_folder_count_its_card_and_the_text_of_a_licence() {
        let made = Made::new();
        let card =
            "---\nlicense: mit\nbase_model: org/base\nbase_model_relation: adapter\ndatasets: [org/words]\n---\n";
        let folder = made.place("french");
        adapter(&folder, &[("README.md", card)]);
        let source = made.open(&folder).unwrap();
        assert_eq!(license(&source), Some("MIT"));
        assert!(source.provenance.papers.is_none() && source.provenance.openness.is_none());
        let tree = source.provenance.lineage.as_ref().unwrap();
        let digest = Digest::of(&fs::read(folder.join(WEIGHTS)).unwrap());
        assert_eq!((tree.name.as_str(), tree.files[1].digest), ("french", digest));
        // The ledger has the base that the card names; what it has not stays declared.
        assert_eq!(tree.parents[0].digest, made.base.manifest.digest());
        assert_eq!(tree.declared.iter().map(|d| d.origin.as_str()).collect::<Vec<_>>(), ["hf:datasets/org/words"]);
        made.policy("licenses = [\"non-commercial\"]");
        let error = made.refusal("fr", &folder).unwrap();
        assert!(error.contains("fr ← base (weights): CC-BY-NC-4.0"), "{error}");
        let alone = OpenedAdapter::open(&made.place("nowhere"), &folder).unwrap();
        let tree = alone.provenance.lineage.as_ref().unwrap();
        assert_eq!((tree.parents.len(), tree.declared.len()), (0, 2));

        let folder = made.place("german");
        adapter(&folder, &[("LICENSE", narthex_base::license::text_of("Apache-2.0").unwrap())]);
        let source = made.open(&folder).unwrap();
        assert_eq!(license(&source), Some("Apache-2.0"));
        assert_eq!(source.provenance.components[0].evidence, Evidence::Text);
        fs::write(folder.join("README.md"), card).unwrap();
        assert!(!source.folder().join("narthex.json").exists() && source.is_current());
        let error = made.open(&folder).unwrap_err().to_string();
        assert!(error.contains("say different things") && error.contains("correct README.md"), "{error}");
    }

    #[test]
    fn of_an_unknown_one_nothing_is_declared() {
        let made = Made::new();
        let folder = made.place("found");
        adapter(&folder, &[]);
        let source = made.open(&folder).unwrap();
        assert_eq!(license(&source), None);
        assert_eq!(source.provenance.components[0].paths, [CONFIG, WEIGHTS]);
        made.policy("licenses = [\"non-commercial\"]");
        assert_eq!(made.refusal("fr", &folder), None, "the rule does not speak of it");
        made.policy("licenses = [\"undeclared\"]");
        let error = made.refusal("fr", &folder).unwrap();
        assert!(error.contains("which has no declared licence") && error.contains("found/README.md"), "{error}");
        fs::remove_file(folder.join(WEIGHTS)).unwrap();
        let error = made.open(&folder).unwrap_err().to_string();
        assert!(error.contains("has no weights") && error.contains(PICKLED), "{error}");
    }

    #[test]
    fn a_key_that_nobody_reads_is_noted() {
        let made = Made::new();
        let folder = made.place("new");
        adapter(&folder, &[]);
        assert!(made.open(&folder).unwrap().notes.is_empty());
        let path = folder.join(CONFIG);
        let config = fs::read_to_string(&path).unwrap().replacen('{', "{\"next_years_key\": 3,", 1);
        fs::remove_file(&path).unwrap();
        fs::write(&path, config).unwrap();
        assert!(made.open(&folder).unwrap().notes[0].contains("`next_years_key`"));
    }

    #[test]
    fn a_pickle_is_taken_apart_for_as_long_as_it_is_known() {
        let made = Made::new();
        let folder = made.place("pickled");
        pickled(&folder, "zip.pt");
        assert_eq!(made.open(&folder).unwrap().notes, ["not taken over, as they are no weights: mask, positions"]);
        pickled(&folder, "adapter/adapter_model.bin");
        let source = made.open(&folder).unwrap();
        assert!(source.place() == folder && source.notes.is_empty());
        let converted = source.folder().to_path_buf();
        let (lora, read) = (golden("model/tests/golden/adapters/lora"), |path: &Path| read_safetensors(path).unwrap());
        assert_eq!(read(&converted.join(WEIGHTS)), read(&lora.join(WEIGHTS)));
        let base = Decoder::read(&golden("model/tests/golden/llama-untied"), &cpu()).unwrap();
        assert_eq!(PeftAdapter::read(&converted, base.config()).unwrap().rank(), 4);
        assert_eq!(source.provenance.components[0].paths, [CONFIG, PICKLED], "what lies there is what is known");
        assert!(source.is_current());
        drop(source);
        assert!(!converted.exists());
        // Papers may be for a pickle too.
        let manifest = Manifest::new(ArtifactKind::Model, Recipe::new("p", "import"));
        let components = vec![part("weights", "MIT", &[CONFIG, PICKLED])];
        let ledger = open_ledger(&made.project()).unwrap();
        ledger.import(&folder, "pickled", Manifest { components, ..manifest }).unwrap();
        let source = made.open("pickled").unwrap();
        assert_eq!((license(&source), source.folder().join(WEIGHTS).is_file()), (Some("MIT"), true));

        pickled(&folder, "code.pt");
        let error = made.open(&folder).unwrap_err().to_string();
        assert!(error.contains("asks for torch.nn.modules.container.Sequential"), "{error}");
        assert!(error.contains(PICKLED), "{error}");
    }

    #[test]
    fn another_base_is_noticed() {
        let made = Made::new();
        let source = made.open("talker").unwrap();
        assert_eq!(source.other_base(&made.base), None);
        let ledger = open_ledger(&made.project()).unwrap();
        let talker = ledger.resolve("talker").unwrap();
        assert_eq!(source.other_base(&ledger.provenance(&talker).unwrap()), None, "it was made from that base");
        let alone = |manifest: Manifest| Provenance { manifest, lineage: vec![] };
        let other = Manifest::new(ArtifactKind::Model, Recipe::new("other", "train"));
        let parent = source.other_base(&alone(other.clone())).unwrap();
        assert_eq!((parent.name.as_str(), parent.digest), ("base", made.base.manifest.digest()));
        // The same weights that came by another way are the same model.
        assert_eq!(
            source.other_base(&alone(Manifest { files: made.base.manifest.files.clone(), ..other.clone() })),
            None
        );
        // A bundle holds the tuned model: what that was tuned from counts.
        let parent =
            Parent { role: "model".into(), name: "talker".into(), kind: talker.manifest.kind, digest: talker.digest };
        let mut manifest = Manifest::new(ArtifactKind::Bundle, Recipe::new("release", "bundle"));
        manifest.components = talker.manifest.components.clone();
        manifest.parents = vec![parent];
        ledger.import(&made.place("talker"), "release", manifest).unwrap();
        let source = made.open("release").unwrap();
        assert_eq!(source.other_base(&made.base), None);
        assert_eq!(source.other_base(&alone(other)).unwrap().name, "base");
        // A folder without papers names no digest.
        adapter(&made.place("bare"), &[]);
        assert_eq!(made.open(made.place("bare")).unwrap().other_base(&alone(made.base.manifest.clone())), None);
    }
}
