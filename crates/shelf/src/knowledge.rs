//! Knowledge ready to be asked: its passages, and the models that its lineage names, which must be the ones that it was
//! made with. Makes none.

use crate::{
    encoder::LoadedEncoder,
    opened::{OpenedModel, Purpose, Shelf},
    project::root_of,
};
use narthex_answer::TextEncoder;
use narthex_base::{
    ArtifactKind, Digest, Error, Manifest, Parent, Result,
    config::{OneOrMany, SearchMode, SearchSettings},
};
use narthex_infer::EncoderOptions;
use narthex_knowledge::{Card, Embed, EmbedKind, Found, Knowledge, Measure, Rerank, SearchOptions};
use narthex_ledger::Ledger;
use std::path::{Path, PathBuf};

/// The folder of a ledger in which indexes are kept that can be made anew at any time.
const CACHE: &str = "cache/knowledge";

/// Names that models give to what stands before a question, and before a passage.
const QUESTION_PROMPTS: [&str; 2] = ["query", "question"];
const PASSAGE_PROMPTS: [&str; 3] = ["passage", "document", "corpus"];

/// An encoder as knowledge asks it.
pub struct KnowledgeEncoder {
    encoder: TextEncoder,
    identity: String,
}

impl KnowledgeEncoder {
    /// Loads the encoder in `model`, of the artifact with this digest.
    ///
    /// # Errors
    /// If it is none, or its files are broken.
    pub fn load(name: &str, model: OpenedModel, artifact: Digest) -> Result<Self> {
        let encoder = start(name, model)?;
        if !encoder.labels.is_empty() {
            return Err(Error::input(format!("`{name}` scores texts and gives no vectors")).help(
                "name an encoder, such as a folder of sentence-transformers; a cross-encoder belongs to `rerank`",
            ));
        }
        Ok(Self { encoder: encoder.encoder, identity: artifact.to_string() })
    }
}

impl Embed for KnowledgeEncoder {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn width(&self) -> usize {
        self.encoder.engine.dimension()
    }

    fn embed(&self, texts: &[&str], kind: EmbedKind) -> Result<Vec<Vec<f32>>> {
        let prompt = match kind {
            EmbedKind::Query => self.encoder.prompt_of(&QUESTION_PROMPTS),
            EmbedKind::Passage => self.encoder.prompt_of(&PASSAGE_PROMPTS),
        };
        self.encoder.vectors(prompt, texts)
    }
}

impl Measure for KnowledgeEncoder {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn measure(&self, text: &str) -> Result<usize> {
        Ok(self.encoder.tokenizer.tokenizer().encode(text, false)?.len())
    }
}

/// A model that scores pairs, as knowledge asks it.
struct Scorer(TextEncoder);

impl Rerank for Scorer {
    fn scores(&self, question: &str, passages: &[&str]) -> Result<Vec<f32>> {
        self.0.scores(question, passages)
    }
}

fn start(name: &str, model: OpenedModel) -> Result<crate::ready::ReadyEncoder> {
    if !model.is_encoder() {
        return Err(Error::input(format!("`{name}` generates text and gives no vectors"))
            .help("name an encoder, such as a folder of sentence-transformers"));
    }
    let encoder: LoadedEncoder = model.encoder(None)?;
    encoder.start(&EncoderOptions::default())
}

/// Knowledge ready to be asked.
pub struct ReadyKnowledge {
    /// The reference that it was asked for by.
    pub name: String,
    /// The artifact.
    pub digest: Digest,
    knowledge: Knowledge,
    embed: Option<KnowledgeEncoder>,
    rerank: Option<Scorer>,
}

impl ReadyKnowledge {
    /// What is in it.
    pub fn card(&self) -> &Card {
        self.knowledge.card()
    }

    /// How questions are answered unless one asks otherwise.
    pub fn settings(&self) -> SearchSettings {
        self.card().settings.search.clone()
    }

    /// The passages that answer a question best, the best first; `files` are globs, none takes all.
    ///
    /// # Errors
    /// If the question is too long, a glob is none, vectors are asked for and there are none, or a model gives up.
    pub fn search(&self, question: &str, settings: SearchSettings, files: Vec<String>) -> Result<Vec<Found>> {
        let embed = self.embed.as_ref().map(|embed| embed as &dyn Embed);
        let rerank = self.rerank.as_ref().map(|rerank| rerank as &dyn Rerank);
        self.knowledge.search(question, &SearchOptions { settings, files, embed, rerank })
    }
}

impl Shelf {
    /// Opens knowledge, to be asked. Without `SearchMode::Words` the encoder that made its vectors is loaded too, and
    /// the model that puts passages in order, if it names one.
    ///
    /// # Errors
    /// If the reference is unknown or no knowledge, a file of it is not what was stored, a model that it was made with
    /// is not there any more or changed, or the policy is against its use.
    pub fn knowledge(&self, reference: &str, purpose: Purpose, mode: Option<SearchMode>) -> Result<ReadyKnowledge> {
        let (ledger, artifact) = self.artifact(reference, purpose)?.permitted()?;
        if artifact.manifest.kind != ArtifactKind::Knowledge {
            let kind = artifact.manifest.kind;
            return Err(Error::input(format!("`{reference}` is no knowledge but of kind {kind}"))
                .help("`narthex ls --kind knowledge` lists what there is"));
        }
        ledger.verify_files(&artifact)?;
        let knowledge = Knowledge::open_cached(&artifact.folder, &ledger.root().join(CACHE))?;
        let mode = mode.unwrap_or(knowledge.card().settings.search.mode);
        let model = |role: &str| artifact.manifest.parents.iter().find(|parent| parent.role == role);
        let embed = match model("model").filter(|_| mode != SearchMode::Words) {
            Some(parent) => {
                let model = self.of_lineage(&ledger, parent)?;
                Some(KnowledgeEncoder::load(&parent.name, model, parent.digest)?)
            }
            None => None,
        };
        let rerank = match model("rerank") {
            Some(parent) => Some(Scorer(start(&parent.name, self.of_lineage(&ledger, parent)?)?.encoder)),
            None => None,
        };
        Ok(ReadyKnowledge { name: reference.into(), digest: artifact.digest, knowledge, embed, rerank })
    }

    /// The model that something was made with, as it was then.
    fn of_lineage(&self, ledger: &Ledger, parent: &Parent) -> Result<OpenedModel> {
        let artifact = ledger.get(parent.digest).map_err(|error| {
            error.context(format!("the model `{}` that the knowledge was made with cannot be opened", parent.name))
        })?;
        if parent.kind != ArtifactKind::Source {
            ledger.verify_files(&artifact)?;
            return Ok(OpenedModel::of_step(&parent.name, artifact.folder));
        }
        let folder = folder_of_source(&root_of(self.project()), &artifact.manifest)?;
        for file in &artifact.manifest.files {
            let path = root_of(self.project()).join(&file.path);
            if ledger.digest_file(&path)?.digest != file.digest {
                return Err(Error::input(format!(
                    "the model `{}` has changed since the knowledge was made with it",
                    parent.name
                ))
                .at(path.display(), None)
                .help("make the knowledge anew: `narthex run`"));
            }
        }
        Ok(OpenedModel::of_step(&parent.name, folder))
    }
}

/// The folder that a source of a model stands for.
fn folder_of_source(root: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let path = manifest.recipe.config["path"].clone();
    let paths: Option<OneOrMany> = serde_json::from_value(path).ok();
    match paths.map(|paths| paths.to_vec()).as_deref() {
        Some([one]) => Ok(root.join(one)),
        _ => Err(Error::internal(format!("the source `{}` does not say which folder it is", manifest.recipe.step))),
    }
}
