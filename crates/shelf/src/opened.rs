//! The one door to what a project holds and to folders beside it: a reference is looked up, what is known of its terms
//! is found, and the policy is asked, before anything is handed out. Whoever opens a model, an adapter or an artifact
//! comes through here, so that nothing is used of which the policy was not asked. Runs no steps.

use crate::{
    adapter::OpenedAdapter,
    card_of_folder::{folder_name, known_by_card},
    encoder::LoadedEncoder,
    gguf::{GgufModel, is_gguf},
    known::{Known, gap},
    loaded::{LoadedModel, WeightForm, require_model},
    model_folder::is_model_folder,
    papers::{check_weights, papers_in},
    project::{PlanOptions, has_plan, open_ledger, read_plan},
    reference::{Reference, no_model, resolve},
};
use narthex_base::{
    Digest, Error, Plan, Provenance, Result,
    config::{Policy, Use},
};
use narthex_ledger::{Artifact, Ledger, PROVENANCE_FILE};
use narthex_model::{Precision, encoder::is_encoder};
use narthex_openness::{Finding, Shown, judge, refusal};
use std::path::{Path, PathBuf};

/// What is to be done with what is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The user's own use: to try it, to measure it, to have a copy. No rule of a policy speaks of it.
    Own,
    /// It answers others: what the policy says of serving commercially holds where the project does that.
    Serve,
    /// It is passed on.
    PassOn,
}

impl Purpose {
    /// The use that rules of a policy may speak of.
    fn uses(self) -> Option<Use> {
        match self {
            Self::Own => None,
            Self::Serve => Some(Use::ServeCommercially),
            Self::PassOn => Some(Use::Redistribute),
        }
    }

    /// What does not happen where a policy is against it.
    fn refused(self, name: &str) -> String {
        match self {
            Self::Own => format!("`{name}` is not opened"),
            Self::Serve => format!("`{name}` is not served"),
            Self::PassOn => format!("`{name}` is not pushed"),
        }
    }
}

/// What was opened, with what the policy says of using it so. Only [`Judged::permitted`] hands it out.
#[must_use = "it is handed out by `permitted`"]
pub struct Judged<T> {
    opened: T,
    findings: Vec<Finding>,
    /// What does not happen if a finding stands in the way.
    refused: String,
    /// How to declare the terms of what nothing is known of.
    how_to_declare: Option<String>,
}

impl<T> Judged<T> {
    /// What the policy says of each component.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was opened, if the policy lets it be used so.
    ///
    /// # Errors
    /// With the findings that stand in the way.
    pub fn permitted(self) -> Result<T> {
        match (refusal(&self.refused, &self.findings), self.how_to_declare) {
            (None, _) => Ok(self.opened),
            (Some(error), None) => Err(error),
            (Some(error), Some(help)) => Err(error.help(help)),
        }
    }
}

/// A project as those see it who open what it holds: its ledger, and the policy in its file. There may be neither.
#[derive(Clone, Debug)]
pub struct Shelf {
    project: PathBuf,
    options: PlanOptions,
    /// Whether the files of a model are used as they are, without a look at their digests.
    trusts_files: bool,
}

impl Shelf {
    /// The shelf of a project's folder. Nothing is read yet.
    pub fn new(project: &Path, options: PlanOptions) -> Self {
        Self { project: project.into(), options, trusts_files: false }
    }

    /// Whether the files of models in the ledger are used as they are. Otherwise their digests are computed again when
    /// one is opened, and a file that changed since is refused.
    pub fn trusting_files(self, trusts_files: bool) -> Self {
        Self { trusts_files, ..self }
    }

    /// Opens a model, to be loaded: a name or digest of the ledger, or a folder in Hugging Face layout.
    ///
    /// # Errors
    /// If the reference is unknown or no model, a file of it is not what was stored, what is said of its terms cannot
    /// be right, or the project file is wrong.
    pub fn model(&self, reference: &str, purpose: Purpose) -> Result<Judged<OpenedModel>> {
        let (known, model) = match Reference::of(reference) {
            Reference::Place(file) if is_gguf(file) => {
                let gguf = GgufModel::open(file)?;
                let known = Known {
                    how_to_declare: Some(format!(
                        "take it into the ledger with its terms: `narthex import {} --license …`",
                        file.display()
                    )),
                    ..self.known_folder(gguf.settings(), purpose.uses())?
                };
                let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
                let (provenance, folder) = (known.shown.clone(), gguf.settings().to_path_buf());
                (known, OpenedModel { name, folder, gguf: Some(gguf), provenance, created: 0, version: None })
            }
            Reference::Place(folder) => {
                if !is_model_folder(folder) {
                    return Err(no_model(folder));
                }
                let known = self.known_folder(folder, purpose.uses())?;
                let (folder, created, version) = (folder.to_path_buf(), 0, None);
                let (name, provenance) = (folder_name(&folder), known.shown.clone());
                (known, OpenedModel { name, folder, gguf: None, provenance, created, version })
            }
            Reference::Name(name) => {
                let (ledger, artifact) = resolve(&self.project, name)?;
                require_model(&artifact, name)?;
                if !self.trusts_files {
                    ledger.verify_files(&artifact)?;
                }
                let known = Known::of_artifact(&ledger, &artifact)?;
                let model = OpenedModel {
                    name: name.into(),
                    provenance: known.shown.clone(),
                    created: artifact.run.created_ms / 1000,
                    version: Some(artifact.digest),
                    folder: artifact.folder,
                    gguf: None,
                };
                (known, model)
            }
        };
        self.judged(model, known, reference, purpose)
    }

    /// Opens an adapter that is to be served under a name: a folder, or a name or digest of the ledger.
    ///
    /// # Errors
    /// If there is none, it is damaged or made to do harm, or what is said of its terms cannot be right.
    pub fn adapter(&self, name: &str, place: &Path) -> Result<Judged<OpenedAdapter>> {
        let source = OpenedAdapter::open(&self.project, place)?;
        let (findings, how_to_declare) =
            (self.findings(source.papers(), None, name, Purpose::Serve)?, source.how_to_declare());
        Ok(Judged { opened: source, findings, refused: format!("the adapter `{name}` is not served"), how_to_declare })
    }

    /// Opens an artifact of any kind, with the ledger that has it.
    ///
    /// # Errors
    /// If the reference is unknown, or the project file is wrong.
    pub fn artifact(&self, reference: &str, purpose: Purpose) -> Result<Judged<(Ledger, Artifact)>> {
        let (ledger, artifact) = resolve(&self.project, reference)?;
        let known = Known::of_artifact(&ledger, &artifact)?;
        self.judged((ledger, artifact), known, reference, purpose)
    }

    /// What the policy says of a folder that came from elsewhere, by its papers, or by its card where it has none; no
    /// file of weights needs to be there yet. Hands out the papers.
    ///
    /// # Errors
    /// If the papers are damaged, or the project file is wrong.
    pub fn folder(&self, folder: &Path, name: &str, purpose: Purpose) -> Result<Judged<Option<Provenance>>> {
        let papers = folder.join(PROVENANCE_FILE);
        let has_papers = papers.is_file();
        let known = self.known_folder(if has_papers { &papers } else { folder }, purpose.uses())?;
        self.judged(has_papers.then(|| known.papers.clone()), known, name, purpose)
    }

    /// The digest that a reference stands for now; none for a folder.
    ///
    /// # Errors
    /// If the reference is unknown.
    pub fn version(&self, reference: &str) -> Result<Option<Digest>> {
        match Reference::of(reference) {
            Reference::Place(_) => Ok(None),
            Reference::Name(name) => Ok(Some(resolve(&self.project, name)?.1.digest)),
        }
    }

    /// What the policy says of a use of what a reference names, be it a model or not.
    ///
    /// # Errors
    /// If the reference is unknown, or the project file is wrong.
    pub fn judge(&self, reference: &str, uses: Use) -> Result<Vec<Finding>> {
        let known = match Reference::of(reference) {
            Reference::Place(file) if is_gguf(file) => {
                self.known_folder(GgufModel::open(file)?.settings(), Some(uses))?
            }
            Reference::Place(place) if place.exists() => self.known_folder(place, Some(uses))?,
            Reference::Place(place) => return Err(no_model(place)),
            Reference::Name(name) => {
                let (ledger, artifact) = resolve(&self.project, name)?;
                Known::of_artifact(&ledger, &artifact)?
            }
        };
        self.findings_for(&known.papers, known.gap.as_deref(), reference, uses)
    }

    /// The project's folder or file.
    pub(crate) fn project(&self) -> &Path {
        &self.project
    }

    /// The project's ledger.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn ledger(&self) -> Result<Ledger> {
        open_ledger(&self.project)
    }

    /// The project's plan: what its file asks for, and its policy.
    ///
    /// # Errors
    /// If there is no project file, or it is wrong.
    pub fn plan(&self) -> Result<Plan> {
        read_plan(&self.project, &self.options)
    }

    /// The policy in the project's file; the empty one where there is no file.
    ///
    /// # Errors
    /// If the file is wrong.
    pub fn policy(&self) -> Result<Policy> {
        if has_plan(&self.project) { Ok(self.plan()?.policy) } else { Ok(Policy::default()) }
    }

    /// The policy that speaks of a use; none where that is served for nobody's gain.
    fn policy_for(&self, uses: Use) -> Result<Option<Policy>> {
        let policy = self.policy()?;
        let is_silent = uses == Use::ServeCommercially && !policy.commercial && !policy.open_source;
        Ok((!is_silent).then_some(policy))
    }

    /// What is known of a folder, or of papers alone. Where a policy speaks of the use, the weights must be those that
    /// the papers are for.
    fn known_folder(&self, place: &Path, uses: Option<Use>) -> Result<Known> {
        if let Some(papers) = papers_in(place)? {
            let speaks = uses.map(|uses| self.policy_for(uses)).transpose()?.flatten().is_some();
            if speaks && place.is_dir() {
                check_weights(place, &papers.manifest)?;
            }
            let (shown, gap) = (Shown::of(papers.clone(), papers.tree()), gap(&papers));
            return Ok(Known { papers, shown, gap, how_to_declare: None });
        }
        // A server may have no project: then what the card names stays declared.
        known_by_card(place, open_ledger(&self.project).ok().as_ref())
    }

    fn judged<T>(&self, opened: T, known: Known, reference: &str, purpose: Purpose) -> Result<Judged<T>> {
        let findings = self.findings(&known.papers, known.gap.as_deref(), reference, purpose)?;
        Ok(Judged { opened, findings, refused: purpose.refused(reference), how_to_declare: known.how_to_declare })
    }

    fn findings(&self, papers: &Provenance, gap: Option<&str>, name: &str, purpose: Purpose) -> Result<Vec<Finding>> {
        purpose.uses().map_or(Ok(vec![]), |uses| self.findings_for(papers, gap, name, uses))
    }

    fn findings_for(&self, papers: &Provenance, gap: Option<&str>, name: &str, uses: Use) -> Result<Vec<Finding>> {
        let Some(policy) = self.policy_for(uses)? else { return Ok(vec![]) };
        if let Some(gap) = gap {
            return Err(Error::input(format!("the lineage of `{name}` is not whole")).cause(gap));
        }
        let mut tree = papers.tree();
        tree.name = name.into();
        Ok(judge(&policy, uses, &tree, &papers.components()))
    }
}

/// A model that may be used as asked: where its files lie, and what is known of it.
pub struct OpenedModel {
    name: String,
    folder: PathBuf,
    /// The file that has the weights, where the folder has none.
    gguf: Option<GgufModel>,
    provenance: Shown,
    created: u64,
    version: Option<Digest>,
}

impl OpenedModel {
    /// A model that a step takes, of whose inputs the plan was judged before the run began.
    pub fn of_step(name: &str, folder: PathBuf) -> Self {
        Self { name: name.into(), folder, gguf: None, provenance: Shown::unknown(), created: 0, version: None }
    }

    /// The digest that was opened; none for a folder.
    pub fn version(&self) -> Option<Digest> {
        self.version
    }

    /// Whether it is a text encoder, which gives vectors or scores and no text.
    pub fn is_encoder(&self) -> bool {
        is_encoder(&self.folder)
    }

    /// Loads it as a model that generates text.
    ///
    /// # Errors
    /// If it is a text encoder, or files are missing or broken.
    pub fn generator(self, form: WeightForm) -> Result<LoadedModel> {
        let Self { name, folder, gguf, provenance, created, .. } = self;
        Ok(LoadedModel { created, ..LoadedModel::read(&name, &folder, gguf.as_ref(), provenance, form)? })
    }

    /// Loads it as a text encoder. Without a precision it is that of the file.
    ///
    /// # Errors
    /// If files are missing or broken.
    pub fn encoder(self, precision: Option<Precision>) -> Result<LoadedEncoder> {
        if let Some(gguf) = &self.gguf {
            let file = gguf.path().display();
            return Err(Error::input("a text encoder is not read from a GGUF file as it is")
                .at(&file, None)
                .help(format!("take it into the ledger first: `narthex import {file}`")));
        }
        let (model, tokenizer, notes) = crate::encoder::read(&self.folder, precision)?;
        let bytes = weight_bytes(&self.folder);
        let Self { name, provenance, created, .. } = self;
        Ok(LoadedEncoder { name, model, tokenizer, provenance, created, bytes, notes })
    }
}

/// Bytes of the files of a folder's weights.
fn weight_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"));
    // What lies in the ledger may be linked.
    weights.filter_map(|file| std::fs::metadata(file.path()).ok()).map(|about| about.len()).sum()
}
