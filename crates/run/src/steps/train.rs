//! `train`: token shards -> a model.

use super::{Course, Made, StepContext, Whole};
use narthex_answer::{SamplingDefaults, SamplingWish, TextModel, stop_tokens};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, Result,
    config::{Schedule, TrainStep},
    plan::Input,
};
use narthex_infer::{Engine, EngineOptions};
use narthex_ledger::Artifact;
use narthex_model::{Decoder, Design, ModelConfig, cpu, device};
use narthex_text::{GenerationConfig, TokenShard, Tokenizer, TokenizerConfig};
use narthex_train::{
    Fitted, Sampler, Selection, Training,
    objective::{DecoderPass, Pretrain, TokenData},
};
use std::{ops::ControlFlow, path::Path, sync::Arc};

/// New tokens in a sample during training.
const SAMPLE_TOKENS: usize = 80;

/// How a fresh model samples unless it is asked otherwise: small models ramble at their own distribution.
const TEMPERATURE: f32 = 0.7;
const TOP_P: f32 = 0.9;

pub(super) fn make(context: &StepContext, step: &TrainStep) -> Result<Made> {
    let (_, tokens) = context.input("data")?;
    let Fitted { model, figures, measured, passed } = with_training(context, step, Whole)?;
    model.write(context.files)?;
    let generation = GenerationConfig { eos_token_id: model.config().eos_tokens.clone(), ..fresh_generation() };
    context.write("generation_config.json", generation.to_json())?;
    copy_tokenizer(context, &tokens.folder)?;
    let components = model_components(context, context.input("data")?);
    Ok(Made { measured, passed, ..Made::new(ArtifactKind::Model, components, figures) })
}

/// The untrained model and all that training it takes, for `course`.
pub(super) fn with_training<C: Course>(context: &StepContext, step: &TrainStep, course: C) -> Result<C::Outcome> {
    let (_, tokens) = context.input("data")?;
    let shards = Shards::open(&tokens.folder)?;
    if shards.train.has_mask() {
        return Err(Error::input(format!(
            "step `{}` trains on plain text, but its data are conversations",
            context.planned.name
        ))
        .help("use `kind = \"tune\"` for conversations"));
    }
    let tokenizer = Tokenizer::from_file(&tokens.path("tokenizer.json"))?;
    let config = TokenizerConfig::read(&tokens.folder)?;
    let stop_tokens = stop_tokens(&[], &tokenizer, &config, &[]);
    let shape = &step.model;
    let model = Decoder::random(
        &ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            layers: shape.layers,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_width: shape.hidden_size / shape.heads,
            rms_norm_eps: 1e-6,
            rope_theta: shape.rope_theta,
            tied_embeddings: shape.tied_embeddings,
            context: step.schedule.batches.context,
            bos_token: None,
            eos_tokens: stop_tokens.clone(),
            design: Design::default(),
        },
        context.project.plan.project.seed,
        &cpu(),
    )
    .with_precision(step.schedule.machine.precision);
    let metrics = context.run.join("metrics.jsonl");
    let prompt = &step.sample_prompt;
    let sampler = |model: &Decoder| {
        let ids = tokenizer.encode(prompt, false)?;
        Ok(format!("{prompt}{}", sample(model, &tokenizer, ids, &stop_tokens)?))
    };
    let tokens = TokenData::new(&shards.train, shards.validation.as_ref(), &step.schedule);
    let objective = Pretrain::new(tokens, step.document_mask, DecoderPass::new(&step.schedule))?;
    let training = Training {
        selection: Some(Selection::whole_decoder(&model)),
        sample: (!prompt.is_empty()).then_some(&sampler as &Sampler<Decoder>),
        ..training(context, &step.schedule, &metrics)?
    };
    course.take(model, &objective, &training)
}

/// Training as a step's schedule asks for it, in the step's own folder.
pub(super) fn training<'a>(
    context: &'a StepContext,
    schedule: &Schedule,
    metrics: &'a Path,
) -> Result<Training<'a, Decoder>> {
    Ok(Training {
        schedule: schedule.clone(),
        seed: context.project.plan.project.seed,
        device: device(&schedule.machine.device, schedule.machine.precision)?,
        run: Some(context.key),
        work: Some(context.stage),
        metrics: Some(metrics),
        observer: context.observer,
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
fn fresh_generation() -> GenerationConfig {
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
