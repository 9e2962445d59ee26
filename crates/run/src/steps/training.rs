//! What the steps that train share: whether training is taken as a whole or between two states, and what goes into it
//! and along with the model that comes of it. Knows no kind of step.

use super::StepContext;
use narthex_answer::{Constraints, SamplingDefaults, SamplingWish, TextModel};
use narthex_base::{Component, ComponentKind, Error, Passed, Result, config::Schedule, plan::Input};
use narthex_infer::{Engine, EngineOptions};
use narthex_ledger::Artifact;
use narthex_model::{Decoder, Module, device};
use narthex_text::{GenerationConfig, TokenShard, Tokenizer};
use narthex_train::{Fitted, Objective, Training};
use std::{ops::ControlFlow, path::Path, sync::Arc};

/// New tokens in a sample during training.
const SAMPLE_TOKENS: usize = 80;

/// How a fresh model samples unless it is asked otherwise: small models ramble at their own distribution.
const TEMPERATURE: f32 = 0.7;
const TOP_P: f32 = 0.9;

/// What becomes of an untrained model once all that training it takes is there.
pub(super) trait Course {
    /// What comes of it.
    type Outcome<M>;

    fn take<M: Module, O: Objective<M>>(
        self,
        model: M,
        objective: &O,
        training: &Training<M>,
    ) -> Result<Self::Outcome<M>>;
}

/// Training from the beginning, or from the newest checkpoint, to the end.
pub(super) struct Whole;

impl Course for Whole {
    type Outcome<M> = Fitted<M>;

    fn take<M: Module, O: Objective<M>>(self, model: M, objective: &O, training: &Training<M>) -> Result<Fitted<M>> {
        narthex_train::fit(model, objective, training)
    }
}

/// The steps between two recorded states, taken again.
pub(super) struct Interval<'a> {
    pub(super) from: Option<(&'a Path, &'a Passed)>,
    pub(super) until: u64,
}

impl Course for Interval<'_> {
    type Outcome<M> = Passed;

    fn take<M: Module, O: Objective<M>>(self, model: M, objective: &O, training: &Training<M>) -> Result<Passed> {
        narthex_train::replay(model, objective, training, self.from, self.until)
    }
}

/// Training as a step's schedule asks for it, in the step's own folder.
pub(super) fn training<'a, M: Module>(
    context: &'a StepContext,
    schedule: &Schedule,
    metrics: &'a Path,
) -> Result<Training<'a, M>> {
    Ok(Training {
        schedule: schedule.clone(),
        seed: context.project.plan.project.seed,
        device: device(&schedule.machine.device, schedule.machine.precision)?,
        run: Some(context.key),
        work: Some(context.stage),
        metrics: Some(metrics),
        observer: context.observer,
        world: &*context.project.world,
        ..Training::default()
    })
}

/// The token shards of an artifact.
pub(super) struct Shards {
    pub(super) train: TokenShard,
    pub(super) validation: Option<TokenShard>,
}

impl Shards {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let validation = folder.join("validation.tokens");
        let validation = validation.is_file().then(|| TokenShard::open(&validation)).transpose()?;
        // A split may leave nothing for validation.
        let validation = validation.filter(|shard| shard.len() > 1);
        Ok(Self { train: TokenShard::open(&folder.join("train.tokens"))?, validation })
    }
}

/// How a fresh model is sampled, as its `generation_config.json` says.
pub(super) fn fresh_generation() -> GenerationConfig {
    let (temperature, top_p) = (Some(TEMPERATURE), Some(TOP_P));
    GenerationConfig { do_sample: Some(true), temperature, top_p, ..GenerationConfig::default() }
}

/// What the model writes after `prompt`.
pub(super) fn sample(model: &Decoder, tokenizer: &Tokenizer, prompt: Vec<u32>, stop_tokens: &[u32]) -> Result<String> {
    let model = TextModel {
        tokenizer: tokenizer.clone(),
        template: None,
        engine: Arc::new(Engine::start(model.clone(), EngineOptions::default())?),
        stop_tokens: stop_tokens.to_vec(),
        defaults: SamplingDefaults::of(&fresh_generation()),
        constraints: Arc::new(Constraints::new(tokenizer)),
    };
    let request = model.request(prompt, SAMPLE_TOKENS, model.defaults.sampling(&SamplingWish::default()));
    let told = model.tell(request, |_| ControlFlow::Continue(()));
    told.map(|told| told.text)
        .map_err(|error| Error::input("no sample can be drawn").cause(error).help("shorten `sample_prompt`"))
}

pub(super) fn copy_tokenizer(context: &StepContext, from: &Path) -> Result<()> {
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let path = from.join(name);
        if path.is_file() {
            context.copy(&path, name)?;
        }
    }
    Ok(())
}

/// The components of a model: its weights, its configuration, and the tokenizer that came with `tokens`.
pub(super) fn model_components(context: &StepContext, tokens: &(Input, Artifact)) -> Vec<Component> {
    let tokenizer =
        context.own("tokenizer", ComponentKind::ModelMetadata, &["tokenizer.json", "tokenizer_config.json"]);
    vec![
        context.own("weights", ComponentKind::ModelParameters, &["model.safetensors"]),
        context.own("configuration", ComponentKind::ModelMetadata, &["config.json", "generation_config.json"]),
        context.of_input(tokens, "tokenizer.json", tokenizer),
    ]
}
