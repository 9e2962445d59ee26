//! The tools that ask a model of the project: continue a text, answer a conversation, turn texts into vectors, sort them
//! into classes. Knows models as they are held ready, not where they come from.

use super::{
    desk::{Desk, named},
    verb::{About, Watch, verb},
};
use crate::commands::{
    classify::{check, line, no_labels},
    embed::{Wish, no_embeddings},
    generate::told_json,
    texts::each,
};
use narthex_agent::{Effect, Tool};
use narthex_answer::{SamplingWish, Told};
use narthex_base::{Error, Message, Result, Role};
use narthex_infer::shortened;
use narthex_shelf::{Ready, ReadyEncoder, ReadyText};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{ops::ControlFlow, sync::Arc};

/// Tokens of an answer unless the caller says.
const TOKENS: usize = 200;

#[derive(Deserialize, JsonSchema)]
struct Sampling {
    /// New tokens at most; 200 by default.
    #[schemars(range(min = 1, max = 8192))]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token; the model's own setting by default, else 1.
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: Option<f32>,
    /// Keep the likeliest tokens up to this probability.
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    top_k: Option<usize>,
    /// The same seed gives the same text; 0 by default.
    seed: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
struct Generate {
    /// A model that generates text: a name, `name@digest-prefix`, or a digest.
    model: String,
    /// The text to continue.
    #[schemars(length(min = 1))]
    prompt: String,
    #[serde(flatten)]
    sampling: Sampling,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Speaker {
    System,
    User,
    Assistant,
}

#[derive(Deserialize, JsonSchema)]
struct Said {
    /// Who speaks.
    role: Speaker,
    /// What is said.
    content: String,
}

#[derive(Deserialize, JsonSchema)]
struct Chat {
    /// A model with a chat template, as tuning gives it one: a name, `name@digest-prefix`, or a digest.
    model: String,
    /// The conversation; the model says what comes next.
    #[schemars(length(min = 1, max = 1000))]
    messages: Vec<Said>,
    #[serde(flatten)]
    sampling: Sampling,
}

#[derive(Deserialize, JsonSchema)]
struct Embed {
    /// A text encoder: a name, `name@digest-prefix`, or a digest.
    model: String,
    /// The texts.
    #[schemars(length(min = 1, max = 256))]
    texts: Vec<String>,
    /// Put the model's prompt of this name before each text, such as `query`; its default prompt otherwise.
    prompt_name: Option<String>,
    /// Keep the first values and give the vector the length 1 again.
    #[schemars(range(min = 1))]
    dimensions: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
struct Classify {
    /// A classifier: a name, `name@digest-prefix`, or a digest.
    model: String,
    /// The texts.
    #[schemars(length(min = 1, max = 256))]
    texts: Vec<String>,
}

/// The tools that ask a model.
pub fn tools(desk: &Arc<Desk>) -> Vec<Arc<dyn Tool>> {
    vec![
        verb(
            desk,
            About {
                name: "generate",
                description: "Lets a model of this project continue a text, on this machine. The first call loads the \
                    model. Use it to try a model that was trained here.",
                effect: Effect::Reads,
                gives: &[("model", "string"), ("text", "string"), ("finish_reason", "string")],
            },
            generate,
        ),
        verb(
            desk,
            About {
                name: "chat",
                description: "Asks a model of this project that was tuned on conversations what it says next.",
                effect: Effect::Reads,
                gives: &[("model", "string"), ("text", "string"), ("finish_reason", "string")],
            },
            chat,
        ),
        verb(
            desk,
            About {
                name: "embed",
                description: "Turns texts into vectors with a text encoder of this project, one for each text.",
                effect: Effect::Reads,
                gives: &[("model", "string"), ("data", "array"), ("cut", "integer")],
            },
            embed,
        ),
        verb(
            desk,
            About {
                name: "classify",
                description: "Sorts texts into the classes of a classifier of this project, with the probability of \
                    each label.",
                effect: Effect::Reads,
                gives: &[("model", "string"), ("data", "array"), ("cut", "integer")],
            },
            classify,
        ),
    ]
}

fn held(desk: &Desk, model: &str, watch: &Watch) -> Result<Arc<Ready>> {
    watch.tell(0.0, None, &format!("opening {model}"));
    desk.models.get(&desk.shelf(), named(model)?, desk.purpose)
}

fn text_model<'a>(ready: &'a Ready, name: &str) -> Result<&'a ReadyText> {
    match ready {
        Ready::Text(model) => Ok(model.as_ref()),
        Ready::Encoder(_) => Err(Error::input(format!("`{name}` reads texts and writes none"))
            .help("ask it with `embed` or `classify`; for this, name a model that generates")),
    }
}

fn encoder(ready: &Ready) -> Option<&ReadyEncoder> {
    match ready {
        Ready::Text(_) => None,
        Ready::Encoder(encoder) => Some(encoder.as_ref()),
    }
}

/// Lets a model write, until it ends or nobody waits any more.
fn told(model: &ReadyText, prompt: Vec<u32>, sampling: &Sampling, watch: &Watch) -> Result<Told> {
    let Sampling { max_tokens, temperature, top_p, top_k, seed } = *sampling;
    let wish = SamplingWish { temperature, top_p, top_k, seed: seed.unwrap_or(0) };
    let tokens = max_tokens.unwrap_or(TOKENS);
    let request = model.model.request(prompt, tokens, model.model.defaults.sampling(&wish));
    let (mut pieces, mut written) = (0.0, 0);
    let told = model.model.tell(request, |text| {
        pieces += 1.0;
        written += text.len();
        watch.tell(pieces, Some(tokens as f64), &format!("{written} bytes of text"));
        if watch.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    watch.check()?;
    Ok(told)
}

fn generate(desk: &Desk, ask: Generate, watch: &Watch) -> Result<Value> {
    let ready = held(desk, &ask.model, watch)?;
    let model = text_model(&ready, &ask.model)?;
    let ids = model.model.tokenizer.encode(&ask.prompt, true)?;
    if ids.is_empty() {
        return Err(Error::input("the prompt is empty").help("give some text to continue"));
    }
    let prompt_tokens = ids.len();
    let told = told(model, ids, &ask.sampling, watch)?;
    Ok(told_json(&ask.model, &ask.prompt, prompt_tokens, &told))
}

fn chat(desk: &Desk, ask: Chat, watch: &Watch) -> Result<Value> {
    let ready = held(desk, &ask.model, watch)?;
    let model = text_model(&ready, &ask.model)?;
    let message = |said: &Said| {
        let role = match said.role {
            Speaker::System => Role::System,
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        Message::new(role, said.content.as_str())
    };
    let messages: Vec<Message> = ask.messages.iter().map(message).collect();
    let ids = model.model.chat_prompt(&messages)?;
    let prompt_tokens = ids.len();
    let told = told(model, ids, &ask.sampling, watch)?;
    let mut value = told_json(&ask.model, "", prompt_tokens, &told);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("prompt");
    }
    Ok(value)
}

fn embed(desk: &Desk, ask: Embed, watch: &Watch) -> Result<Value> {
    let ready = held(desk, &ask.model, watch)?;
    let encoder = encoder(&ready).ok_or_else(|| no_embeddings(&ask.model))?;
    let wish = Wish::new(&ask.model, encoder, ask.prompt_name.as_deref(), ask.dimensions)?;
    let mut data: Vec<Value> = vec![];
    let cut = each(&encoder.encoder, wish.prompt, ask.texts.into_iter().map(Ok), |text, tokens, vector| {
        watch.check()?;
        // By way of text, in which a number of single precision has its own digits, as the verb writes it.
        let written = serde_json::to_string(&shortened(vector, wish.dimensions));
        let embedding: Value = written
            .and_then(|written| serde_json::from_str(&written))
            .map_err(|error| Error::internal("a vector is JSON").cause(error))?;
        data.push(json!({"text": text, "tokens": tokens, "embedding": embedding}));
        Ok(())
    })?;
    Ok(json!({"model": ask.model, "data": data, "cut": cut}))
}

fn classify(desk: &Desk, ask: Classify, watch: &Watch) -> Result<Value> {
    let ready = held(desk, &ask.model, watch)?;
    let encoder = encoder(&ready).ok_or_else(|| no_labels(&ask.model, "generates text"))?;
    check(&ask.model, encoder)?;
    let mut data: Vec<Value> = vec![];
    let cut = each(&encoder.encoder, "", ask.texts.into_iter().map(Ok), |text, tokens, numbers| {
        watch.check()?;
        let line = line(text, tokens, &numbers, encoder)?;
        data.push(serde_json::from_str(&line).map_err(|error| Error::internal("no JSON").cause(error))?);
        Ok(())
    })?;
    Ok(json!({"model": ask.model, "data": data, "cut": cut}))
}
