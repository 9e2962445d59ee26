//! `tune`: a model and conversations -> a tuned model.

use super::{
    Made, StepContext,
    train::{Shards, copy_tokenizer, model_components, sample},
};
use narthex_base::{
    ArtifactKind, ComponentKind, Error, Message, Result, Role,
    config::{TuneMethod, TuneStep},
};
use narthex_model::{Decoder, LoraSpec, ModelConfig, cpu, device, save_adapter};
use narthex_text::{ChatTemplate, GenerationConfig, Tokenizer, TokenizerConfig};
use narthex_train::{Fit, Fitted, Objective, Sampler, Trained, fit};

pub(super) fn make(context: &StepContext, step: &TuneStep) -> Result<Made> {
    let (input, base) = context.input("model")?;
    let base_folder = context.model_folder(input, base)?;
    let (_, tokens) = context.input("data")?;
    let Fitted { model, figures, measured, passed } = with_fit(context, step, fit)?;
    let mut components = model_components(context, context.input("data")?);
    // Weights that were tuned from somebody else's stay under the terms of those; the adapter is ours.
    let weights = context.of_input(context.input("model")?, ".safetensors", components[0].clone());
    if !context.is_ours(&weights) {
        let configuration = context.of_input(context.input("model")?, "config.json", components[1].clone());
        components[0] = weights;
        components[1] = configuration;
    }
    if step.method == TuneMethod::Lora {
        let adapter = context.files.join("adapter");
        std::fs::create_dir_all(&adapter).map_err(|error| Error::io("cannot write", &adapter, error))?;
        save_adapter(&model, &lora(step), &input.name, &adapter)?;
        components.push(context.own(
            "adapter",
            ComponentKind::ModelParameters,
            &["adapter/adapter_config.json", "adapter/adapter_model.safetensors"],
        ));
    }
    let merged = model.merged();
    merged.write(context.files)?;
    let stop_tokens = merged.config().eos_tokens.clone();
    let generation = GenerationConfig { eos_token_id: stop_tokens, ..GenerationConfig::read(&base_folder)? };
    context.write("generation_config.json", generation.to_json())?;
    copy_tokenizer(context, &tokens.folder)?;
    Ok(Made { measured, passed, ..Made::new(ArtifactKind::Model, components, figures) })
}

fn lora(step: &TuneStep) -> LoraSpec {
    let TuneStep { lora, .. } = step;
    LoraSpec {
        rank: lora.rank,
        alpha: lora.alpha,
        targets: lora.targets.clone(),
        dropout: lora.dropout,
        rank_stabilized: lora.use_rslora,
        decomposed: lora.use_dora,
    }
}

/// The model before tuning, with its adapters, and all that tuning it takes, for `go`.
pub(super) fn with_fit<T>(
    context: &StepContext,
    step: &TuneStep,
    go: impl FnOnce(Decoder, &Fit) -> Result<T>,
) -> Result<T> {
    let (input, base) = context.input("model")?;
    let base_folder = context.model_folder(input, base)?;
    let (_, tokens) = context.input("data")?;
    let shards = Shards::open(&tokens.folder)?;
    let device = device(&step.schedule.device, step.schedule.precision)?;
    // Kernels for integers are the CPU's; elsewhere they are read as numbers.
    let frozen = step.method == TuneMethod::Lora && device == cpu();
    let model = if frozen { Decoder::read_frozen(&base_folder)? } else { Decoder::read(&base_folder, &cpu())? };
    context.require_same_tokenizer(&base_folder, &tokens.folder, "data")?;
    if step.schedule.context > model.config().context {
        return Err(Error::input(format!(
            "step `{}` tunes with sequences of {} tokens, but the model holds {}",
            context.planned.name,
            step.schedule.context,
            model.config().context
        ))
        .help(format!("set `context = {}` or less in its schedule", model.config().context)));
    }
    let tokenizer = Tokenizer::from_file(&tokens.path("tokenizer.json"))?;
    let config = TokenizerConfig::read(&tokens.folder)?;
    let stop_tokens = stop_tokens(&tokenizer, &config, &shards, &model)?;
    let seed = context.project.plan.project.seed;
    // What ends an answer travels with the model.
    let config_of_model = ModelConfig { eos_tokens: stop_tokens.clone(), ..model.config().clone() };
    let model = model.with_config(config_of_model);
    let (model, trained) = match step.method {
        TuneMethod::Lora => (model.with_lora(&lora(step), seed), Trained::Adapters),
        TuneMethod::Full => (model, Trained::All),
    };
    let template = ChatTemplate::from_config(&config)?;
    let sampler = |model: &Decoder| {
        let Some(template) = &template else { return Ok(String::new()) };
        let messages = [Message::new(Role::User, &step.sample_prompt)];
        let ids = tokenizer.encode(&template.render(&messages, true)?, false)?;
        Ok(format!("{}\n=> {}", step.sample_prompt, sample(model, &tokenizer, ids, &stop_tokens)?))
    };
    go(
        model,
        &Fit {
            data: &shards.train,
            validation: shards.validation.as_ref(),
            objective: Objective::Chat,
            trained,
            schedule: &step.schedule,
            seed,
            device,
            run: context.key,
            work: context.stage,
            metrics: &context.run.join("metrics.jsonl"),
            sample: (!step.sample_prompt.is_empty()).then_some(&sampler as &Sampler),
            observer: context.observer,
        },
    )
}

/// What ends an answer: the token that the conversations train at the end of a turn, then what ended texts before.
fn stop_tokens(tokenizer: &Tokenizer, config: &TokenizerConfig, shards: &Shards, model: &Decoder) -> Result<Vec<u32>> {
    let mut stops = Vec::new();
    if shards.train.has_mask() && shards.train.documents() > 0 {
        let range = shards.train.document_range(0);
        stops.extend(
            range.rev().find(|position| shards.train.mask(*position)).map(|position| shards.train.get(position)),
        );
    }
    stops.retain(|id| tokenizer.is_special(*id));
    let before = config.eos_token.as_deref().and_then(|token| tokenizer.token_id(token));
    for id in before.into_iter().chain(model.config().eos_tokens.iter().copied()) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    Ok(stops)
}
