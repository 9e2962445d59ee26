//! `train`: token shards -> a model.

use super::{
    Made, StepContext,
    training::{Course, Shards, Whole, copy_tokenizer, fresh_generation, model_components, sample, training},
};
use narthex_answer::stop_tokens;
use narthex_base::{ArtifactKind, Error, Result, config::TrainStep};
use narthex_model::{Decoder, Design, ModelConfig, cpu};
use narthex_text::{GenerationConfig, Tokenizer, TokenizerConfig};
use narthex_train::{
    Fitted, Sampler, Selection, Training,
    objective::{DecoderPass, Pretrain, TokenData},
};

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
pub(super) fn with_training<C: Course>(
    context: &StepContext,
    step: &TrainStep,
    course: C,
) -> Result<C::Outcome<Decoder>> {
    let (_, tokens) = context.input("data")?;
    let shards = Shards::open(&tokens.folder)?;
    if shards.train.has_pairs() {
        return Err(Error::input(format!(
            "step `{}` trains on plain text, but its data are pairs of answers",
            context.planned.name
        ))
        .help("use `kind = \"tune\"` with `objective = \"dpo\"` for pairs"));
    }
    if shards.train.has_mask() {
        return Err(Error::input(format!(
            "step `{}` trains on plain text, but its data are conversations",
            context.planned.name
        ))
        .help("use `kind = \"tune\"` for conversations"));
    }
    let tokenizer = Tokenizer::read(&tokens.folder)?;
    let config = TokenizerConfig::read(&tokens.folder)?;
    let stop_tokens = stop_tokens(&[], &tokenizer, &config, &[]);
    let config = shape_of(step, tokenizer.vocab_size(), stop_tokens.clone());
    let model = Decoder::random(&config, context.project.plan.project.seed, &cpu())
        .with_precision(step.schedule.machine.precision);
    let metrics = context.run.join("metrics.jsonl");
    let prompt = &step.sample_prompt;
    let sampler = |model: &Decoder| {
        let ids = tokenizer.encode_open(prompt)?;
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

/// The model that a step trains, over a vocabulary of this size.
pub(super) fn shape_of(step: &TrainStep, vocab_size: usize, eos_tokens: Vec<u32>) -> ModelConfig {
    let shape = &step.model;
    ModelConfig {
        vocab_size,
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
        eos_tokens,
        design: Design::default(),
    }
}
