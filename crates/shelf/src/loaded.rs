//! A model ready for use: weights, tokenizer, chat template and what is known of its origin.

use crate::gguf::GgufModel;
use narthex_answer::{Constraints, SamplingDefaults, TextModel, stop_tokens};
use narthex_base::{ArtifactKind, Error, Result};
use narthex_infer::Engine;
use narthex_ledger::Artifact;
use narthex_model::{Decoder, Precision, cpu, encoder::is_encoder};
use narthex_openness::Shown;
use narthex_text::{ChatTemplate, GenerationConfig, Tokenizer, TokenizerConfig};
use std::{path::Path, sync::Arc};

/// How a model's weights are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// In single precision, to be changed or scored.
    #[default]
    Full,
    /// Packed for inference in this precision; none takes bf16 for weights that are stored in 16 bits, else f32.
    Packed(Option<Precision>),
}

/// A model ready for use.
pub struct LoadedModel {
    /// Its name: the reference it was asked for by.
    pub name: String,
    /// The weights.
    pub decoder: Decoder,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// How its author would sample.
    pub generation: GenerationConfig,
    /// Tokens that end its output.
    pub stop_tokens: Vec<u32>,
    /// Its origin.
    pub provenance: Shown,
    /// When it was made: seconds since 1970; 0 where that is not known.
    pub created: u64,
    /// What a user should know of how its files were read.
    pub notes: Vec<String>,
}

/// What is said of keys of a `tokenizer_config.json` that nobody reads.
pub(crate) fn unread_of(config: &TokenizerConfig) -> Vec<String> {
    let unread = config.unread();
    let note = |key: &&str| format!("`{key}` in tokenizer_config.json is not known and not taken up");
    unread.iter().map(note).collect()
}

impl LoadedModel {
    /// Loads a model from a folder in Hugging Face layout, whose weights may lie in a GGUF file instead.
    ///
    /// # Errors
    /// If files are missing or broken.
    pub(crate) fn read(
        name: &str,
        folder: &Path,
        gguf: Option<&GgufModel>,
        provenance: Shown,
        form: WeightForm,
    ) -> Result<Self> {
        if is_encoder(folder) {
            return Err(Error::input(format!("`{name}` is a text encoder or a classifier and generates no text"))
                .at(folder.display(), None)
                .help(format!(
                    "`narthex embed {name} TEXT` gives an encoder's vector; `narthex serve {name}` answers with what it \
                     can do: vectors, scores or labels"
                )));
        }
        let config = TokenizerConfig::read(folder)?;
        // A large vocabulary takes as long as a gigabyte of weights.
        let (tokenizer, decoder) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::read(folder));
            let decoder = match (form, gguf) {
                (WeightForm::Full, None) => Decoder::read(folder, &cpu()),
                (WeightForm::Full, Some(gguf)) => Decoder::made_from(folder, gguf),
                (WeightForm::Packed(precision), None) => Decoder::read_packed(folder, precision),
                (WeightForm::Packed(precision), Some(gguf)) => {
                    Decoder::packed_from(folder, gguf, precision.unwrap_or_else(|| gguf.precision()))
                }
            };
            (tokenizer.join(), decoder)
        });
        let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let decoder = decoder.map_err(|error| match gguf {
            Some(gguf) if error.place().is_none() => error.at(gguf.path().display(), None),
            _ => error,
        })?;
        // Tokens beside the vocabulary may have no row: text that holds one is refused by name.
        let rows = decoder.config().vocab_size;
        if let Some(id) = (rows..tokenizer.vocab_size()).find(|id| !tokenizer.is_added(*id as u32)) {
            return Err(Error::input(format!(
                "the tokenizer has {} tokens, but the model only {rows}",
                tokenizer.vocab_size()
            ))
            .at(folder.display(), None)
            .cause(format!("the token {id} is of its vocabulary"))
            .help("tokenizer.json belongs to another model: fetch or export the model again"));
        }
        let generation = GenerationConfig::read(folder)?;
        let mut notes = decoder.config().design.notes.clone();
        notes.extend(gguf.iter().flat_map(|gguf| gguf.notes()).cloned());
        notes.extend(unread_of(&config));
        notes.extend(generation.unread().iter().map(|key| {
            format!(
                "`{key}` in generation_config.json is not taken up: ask for it in each request where that is possible"
            )
        }));
        let stop_tokens = stop_tokens(&generation.eos_token_id, &tokenizer, &config, &decoder.config().eos_tokens);
        let (stop_tokens, beyond): (Vec<u32>, Vec<u32>) = stop_tokens.into_iter().partition(|id| (*id as usize) < rows);
        notes.extend(beyond.iter().map(|id| format!("the end token {id} is passed over: the model has {rows} tokens")));
        Ok(Self {
            name: name.into(),
            template: ChatTemplate::from_config(&config)?,
            decoder,
            tokenizer,
            generation,
            stop_tokens,
            provenance,
            created: 0,
            notes,
        })
    }

    /// The model as it answers in text, through an engine with its weights.
    pub fn answering(&self, engine: Engine) -> TextModel {
        TextModel {
            tokenizer: self.tokenizer.clone(),
            template: self.template.clone(),
            engine: Arc::new(engine),
            stop_tokens: self.stop_tokens.clone(),
            defaults: SamplingDefaults::of(&self.generation),
            constraints: Arc::new(Constraints::new(&self.tokenizer)),
        }
    }
}

/// Refuses what is not a model, by name.
///
/// # Errors
/// If it is something else.
pub fn require_model(artifact: &Artifact, reference: &str) -> Result<()> {
    match artifact.manifest.kind {
        ArtifactKind::Model | ArtifactKind::Predictor | ArtifactKind::Bundle => Ok(()),
        kind => Err(Error::input(format!("`{reference}` is not a model but {}", with_article(kind)))
            .help("`narthex ls --kind model` lists the models")),
    }
}

fn with_article(kind: ArtifactKind) -> String {
    match kind {
        ArtifactKind::Evaluation => format!("an {kind}"),
        ArtifactKind::Documents
        | ArtifactKind::Chat
        | ArtifactKind::Pairs
        | ArtifactKind::Rows
        | ArtifactKind::Tokens => format!("a set of {kind}"),
        _ => format!("a {kind}"),
    }
}
