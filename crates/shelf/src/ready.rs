//! A model made ready to answer others: judged, loaded, its engine started, and with it the model that guesses ahead.
//! How it is asked, and over which protocol, is the business of who holds it.

use crate::{
    encoder::LoadedEncoder,
    loaded::{LoadedModel, WeightForm},
    opened::{Purpose, Shelf},
    speculative::SpeculativeConfig,
};
use narthex_answer::{Chances, TextEncoder, TextModel};
use narthex_base::{Digest, Error, Result};
use narthex_infer::{EncoderEngine, EncoderOptions, Engine, EngineOptions};
use narthex_kernels::{
    alloc::{keep_at_most, release},
    memory::available_bytes,
};
use narthex_model::{Precision, ScoreActivation, encoder::SentenceConfig};
use narthex_openness::{Finding, Shown};
use std::sync::Arc;

/// The share of the available memory that keys and values may take unless set otherwise.
pub const KV_CACHE_MEMORY_SHARE: f64 = 0.25;

/// Bytes for keys and values where the system does not say how much memory is available.
const KV_CACHE_BYTES: usize = 1 << 30;

/// Bytes of working memory kept between steps: what a step of 256 rows needs of a model of a billion parameters or so.
/// Steps differ, and would otherwise come to hold their largest buffers of every size.
const WORKING_BYTES_KEPT: usize = 64 << 20;

/// Bytes for keys and values: this share of the memory that is available now.
pub fn kv_cache_bytes(share: f64) -> usize {
    available_bytes().map_or(KV_CACHE_BYTES, |bytes| (bytes as f64 * share) as usize)
}

/// How a model is to run.
#[derive(Clone, Debug)]
pub struct ReadyOptions {
    /// The precision of the weights; none takes bf16 for weights that are stored in 16 bits, else f32.
    pub precision: Option<Precision>,
    /// The engine's limits. A text encoder takes its threads alone.
    pub engine: EngineOptions,
    /// How tokens are guessed ahead, if they are.
    pub speculative: Option<SpeculativeConfig>,
}

impl Default for ReadyOptions {
    fn default() -> Self {
        let engine =
            EngineOptions { kv_cache_bytes: kv_cache_bytes(KV_CACHE_MEMORY_SHARE), ..EngineOptions::default() };
        Self { precision: None, engine, speculative: None }
    }
}

/// A model that is ready.
pub enum Ready {
    /// It generates text.
    Text(Box<ReadyText>),
    /// It gives vectors or scores.
    Encoder(Box<ReadyEncoder>),
}

/// A model that generates text, in its engine.
pub struct ReadyText {
    /// Its name: the reference it was asked for by.
    pub name: String,
    /// The digest that was opened; none for a folder.
    pub version: Option<Digest>,
    /// When it was made: seconds since 1970; 0 where that is not known.
    pub created: u64,
    /// What is known of it.
    pub shown: Shown,
    /// The engine, which has the weights.
    pub engine: Engine,
    /// The precision of the weights.
    pub precision: Precision,
    /// Tokens a sequence could have, were the cache for keys and values large enough.
    pub context_max: usize,
    /// What answers in text, through the engine.
    pub model: TextModel,
    /// What a user should know of how its files were read.
    pub notes: Vec<String>,
}

/// A text encoder, in its engine.
pub struct ReadyEncoder {
    /// Its name: the reference it was asked for by.
    pub name: String,
    /// The digest that was opened; none for a folder.
    pub version: Option<Digest>,
    /// When it was made: seconds since 1970; 0 where that is not known.
    pub created: u64,
    /// What is known of it.
    pub shown: Shown,
    /// The precision of the weights.
    pub precision: Precision,
    /// Bytes of the files of its weights.
    pub bytes: u64,
    /// Text to vectors or scores, through the engine.
    pub encoder: TextEncoder,
    /// The names of a classifier's labels; none for a model that embeds.
    pub labels: Vec<String>,
    /// How a classifier's numbers become probabilities.
    pub chances: Chances,
    /// What a user should know of how its files were read.
    pub notes: Vec<String>,
}

impl Shelf {
    /// Opens a model to answer others, and starts it. The policy is asked first, also of the model that guesses ahead:
    /// what may not answer is better said before a large model is loaded.
    ///
    /// # Errors
    /// If the reference is unknown or no model, the policy is against it, its files are broken, or the model that
    /// guesses ahead does not fit.
    pub fn ready(&self, reference: &str, options: &ReadyOptions) -> Result<Ready> {
        let opened = self.model(reference, Purpose::Serve)?.permitted()?;
        let draft = options.speculative.as_ref().and_then(SpeculativeConfig::draft);
        let draft = draft.map(|draft| self.model(draft, Purpose::Serve)?.permitted()).transpose()?;
        keep_at_most(WORKING_BYTES_KEPT);
        let version = opened.version();
        if opened.is_encoder() {
            let (threads, pinned) = (options.engine.threads, options.engine.pinned);
            let encoder = opened.encoder(options.precision)?;
            let ready = encoder.start(&EncoderOptions { threads, pinned, ..EncoderOptions::default() })?;
            return Ok(Ready::Encoder(Box::new(ReadyEncoder { version, ..ready })));
        }
        let form = WeightForm::Packed(options.precision);
        let model = opened.generator(form)?;
        let (asked, holds) = (options.engine.context_max, model.decoder.config().context);
        if asked != usize::MAX && asked > holds {
            return Err(Error::input(format!(
                "`--max-model-len {asked}` is more than the model's context: {holds} tokens"
            ))
            .help("leave it out, or set `max_position_embeddings` in config.json if the model was trained for more"));
        }
        let draft = draft.map(|draft| draft.generator(form)).transpose()?.map(|draft| draft.decoder);
        let speculative = options.speculative.as_ref();
        let speculation = speculative.map(|config| config.speculation(&model.decoder, draft)).transpose()?;
        let ready = model.start(EngineOptions { speculation, ..options.engine.clone() })?;
        // What reading needed, tables of a large vocabulary above all, is not needed again.
        release();
        Ok(Ready::Text(Box::new(ReadyText { version, ..ready })))
    }

    /// What the policy says of a model that is to answer others, and of the one that guesses for it.
    ///
    /// # Errors
    /// If a reference is unknown or no model, or the project file is wrong.
    pub fn findings_of_serving(&self, reference: &str, options: &ReadyOptions) -> Result<Vec<Finding>> {
        let mut findings = self.model(reference, Purpose::Serve)?.findings().to_vec();
        if let Some(draft) = options.speculative.as_ref().and_then(SpeculativeConfig::draft) {
            findings.extend_from_slice(self.model(draft, Purpose::Serve)?.findings());
        }
        Ok(findings)
    }
}

impl LoadedModel {
    /// Moves the weights into an engine.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    pub fn start(self, options: EngineOptions) -> Result<ReadyText> {
        let context_max = self.decoder.config().context.min(options.context_max);
        let precision = self.decoder.precision();
        let engine = Engine::start(self.decoder.clone(), options)?;
        let model = self.answering(engine.clone());
        let Self { name, provenance: shown, created, notes, .. } = self;
        Ok(ReadyText { name, version: None, created, shown, engine, precision, context_max, model, notes })
    }
}

impl LoadedEncoder {
    /// Moves the weights into an engine.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    pub fn start(self, options: &EncoderOptions) -> Result<ReadyEncoder> {
        let Self { name, model, tokenizer, provenance: shown, created, bytes, notes } = self;
        let (precision, labels) = (model.precision(), model.labels().to_vec());
        let chances = match (model.score_activation(), model.has_several_labels()) {
            (Some(ScoreActivation::Sigmoid), _) => Chances::AsTheyAre,
            (_, true) => Chances::Each,
            (_, false) => Chances::OneOf,
        };
        let SentenceConfig { prompts, default_prompt, .. } = model.sentence().clone();
        let engine = Arc::new(EncoderEngine::start(model, options)?);
        let encoder = TextEncoder { tokenizer, engine, prompts, default_prompt };
        Ok(ReadyEncoder { name, version: None, created, shown, precision, bytes, encoder, labels, chances, notes })
    }
}
