//! `tune`: a model and conversations, or pairs of answers -> a tuned model.

use super::{
    Made, StepContext,
    training::{Course, Shards, Whole, copy_tokenizer, model_components, sample, training},
};
use narthex_answer::stop_tokens;
use narthex_base::{
    ArtifactKind, ComponentKind, Error, Message, Result, Role,
    config::{Lora, TuneMethod, TuneObjective, TuneStep},
};
use narthex_model::{Decoder, LoraSpec, ModelConfig, Module, cpu, device, save_adapter};
use narthex_text::{ChatTemplate, GenerationConfig, TokenShard, Tokenizer, TokenizerConfig};
use narthex_train::{
    Fitted, Sampler, Selection, Training,
    objective::{Chat, DecoderPass, Preference, TokenData},
};
use std::collections::BTreeMap;

pub(super) fn make(context: &StepContext, step: &TuneStep) -> Result<Made> {
    let (input, base) = context.input("model")?;
    let base_folder = context.model_folder(input, base)?;
    let (_, tokens) = context.input("data")?;
    let Fitted { model, figures, measured, passed } = with_training(context, step, Whole)?;
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
        save_adapter(&model, &LoraSpec::from(&step.lora), &input.name, &adapter)?;
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

/// The model before tuning, with its adapters, and all that tuning it takes, for `course`.
pub(super) fn with_training<C: Course>(
    context: &StepContext,
    step: &TuneStep,
    course: C,
) -> Result<C::Outcome<Decoder>> {
    let (input, base) = context.input("model")?;
    let base_folder = context.model_folder(input, base)?;
    let (_, tokens) = context.input("data")?;
    let shards = Shards::open(&tokens.folder)?;
    let metrics = context.run.join("metrics.jsonl");
    let training = training(context, &step.schedule, &metrics)?;
    // Kernels for integers are the CPU's; elsewhere they are read as numbers.
    let frozen = step.method == TuneMethod::Lora && training.device == cpu();
    let model = if frozen { Decoder::read_frozen(&base_folder)? } else { Decoder::read(&base_folder, &cpu())? };
    model.config().design.notes.iter().for_each(|note| context.observer.warn(note.clone()));
    context.require_same_tokenizer(&base_folder, &tokens.folder, "data")?;
    if step.schedule.batches.context > model.config().context {
        return Err(Error::input(format!(
            "step `{}` tunes with sequences of {} tokens, but the model holds {}",
            context.planned.name,
            step.schedule.batches.context,
            model.config().context
        ))
        .help(format!("set `context = {}` or less in its schedule", model.config().context)));
    }
    let tokenizer = Tokenizer::read(&tokens.folder)?;
    let config = TokenizerConfig::read(&tokens.folder)?;
    require_rows(&tokenizer, &model.config().vocab_size, &shards.train)?;
    let turn_end = turn_end(&tokenizer, &shards.train);
    if turn_end.is_none() && shards.train.has_mask() && step.objective == TuneObjective::Sft {
        context
            .observer
            .warn("most answers do not end with a token of their own: the tuned model may not know when to stop");
    }
    // What the base's author names as ends are ends still.
    let named = GenerationConfig::read(&base_folder)?.eos_token_id;
    let first: Vec<u32> = turn_end.into_iter().chain(named).collect();
    let stop_tokens = stop_tokens(&first, &tokenizer, &config, &model.config().eos_tokens);
    // What ends an answer travels with the model.
    let config_of_model = ModelConfig { eos_tokens: stop_tokens.clone(), ..model.config().clone() };
    let model = model.with_config(config_of_model).with_precision(step.schedule.machine.precision);
    // What pairs are judged by; conversations need no copy.
    let reference = (step.objective == TuneObjective::Dpo).then(|| model.clone());
    let (model, selection) = match step.method {
        TuneMethod::Lora => {
            let model = model.with_lora(&LoraSpec::from(&step.lora), context.project.plan.project.seed);
            let adapters = Selection::adapters(&model);
            (model, adapters)
        }
        TuneMethod::Full => {
            let all = Selection::whole_decoder(&model);
            (model, all)
        }
    };
    let template = ChatTemplate::from_config(&config)?;
    let sampler = |model: &Decoder| {
        let Some(template) = &template else { return Ok(String::new()) };
        let messages = [Message::new(Role::User, &step.sample_prompt)];
        let ids = tokenizer.encode(&template.render(&messages, true)?, false)?;
        Ok(format!("{}\n=> {}", step.sample_prompt, sample(model, &tokenizer, ids, &stop_tokens)?))
    };
    let training = Training {
        selection: Some(selection),
        sample: (!step.sample_prompt.is_empty()).then_some(&sampler as &Sampler<Decoder>),
        ..training
    };
    let tokens = TokenData::new(&shards.train, shards.validation.as_ref(), &step.schedule);
    let pass = DecoderPass::new(&step.schedule);
    match reference {
        None => {
            let objective = Chat::new(tokens, pass)?;
            if objective.cut() > 0 {
                context.observer.warn(format!(
                    "of {} of {} conversations nothing is learnt: their answers lie beyond the context of {} tokens",
                    objective.cut(),
                    shards.train.documents(),
                    step.schedule.batches.context
                ));
            }
            course.take(model, &objective, &training)
        }
        Some(reference) => course.take(model, &preference(context, step, tokens, pass, reference)?, &training),
    }
}

/// The values in adapters of a model.
pub(super) fn adapter_parameters(lora: &Lora, model: &ModelConfig) -> u64 {
    let ModelConfig { hidden_size: hidden, intermediate_size: inner, heads, kv_heads, head_width, layers, .. } = model;
    let (query, key) = (heads * head_width, kv_heads * head_width);
    let widths = lora.targets.iter().map(|target| match target.as_str() {
        "q_proj" => hidden + query,
        "k_proj" | "v_proj" => hidden + key,
        "o_proj" => query + hidden,
        _ => hidden + inner,
    });
    (layers * lora.rank * widths.sum::<usize>()) as u64
}

/// What pairs teach, held against the model as it was before.
fn preference<'a>(
    context: &StepContext,
    step: &TuneStep,
    tokens: TokenData<'a>,
    pass: DecoderPass,
    reference: Decoder,
) -> Result<Preference<'a>> {
    let device = device(&step.schedule.machine.device, step.schedule.machine.precision)?;
    let settings = step.preference.clone().unwrap_or_default();
    let objective = Preference::new(tokens, &settings, pass, reference.to_device(&device))?;
    if objective.dropped() > 0 {
        context.observer.warn(format!(
            "{} of {} pairs are left out: their prompts fill the context of {} tokens",
            objective.dropped(),
            tokens.train.documents() / 2,
            tokens.len
        ));
    }
    Ok(objective)
}

/// Refuses tokens that the model has no row for: a tokenizer may have more than the model.
fn require_rows(tokenizer: &Tokenizer, rows: &usize, shard: &TokenShard) -> Result<()> {
    if tokenizer.vocab_size() <= *rows {
        return Ok(());
    }
    match (0..shard.len()).map(|position| shard.get(position)).find(|id| *id as usize >= *rows) {
        None => Ok(()),
        Some(id) => Err(Error::input(format!(
            "the data holds the token `{}` ({id}), for which the model has no row: it has {rows}",
            tokenizer.token_text(id).unwrap_or_default()
        ))
        .help("leave the token out of the data, or enlarge the model with transformers' `resize_token_embeddings`")),
    }
}

/// The token that most conversations train last, if it stands beside the vocabulary.
fn turn_end(tokenizer: &Tokenizer, shard: &TokenShard) -> Option<u32> {
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for document in (0..shard.documents()).filter(|_| shard.has_mask()) {
        if let Some(last) = shard.document_range(document).rev().find(|position| shard.mask(*position)) {
            *counts.entry(Some(shard.get(last)).filter(|id| tokenizer.is_added(*id))).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).and_then(|(id, _)| id)
}
