//! `narthex generate`

use super::{print_json, shelf_of};
use crate::{flags::ModelRef, output};
use clap::Args;
use narthex_answer::{SamplingWish, TextModel, Told};
use narthex_base::{Error, Result};
use narthex_infer::{Engine, EngineOptions, Request};
use narthex_shelf::Purpose;
use serde_json::{Value, json};
use std::{io::Read, ops::ControlFlow};

/// The arguments of `narthex generate`.
#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    pub model: ModelRef,
    /// The text to continue; `-` reads it from stdin
    #[arg(long, short)]
    pub prompt: String,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Text and counts as JSON
    #[arg(long)]
    pub json: bool,
}

/// How tokens are chosen.
#[derive(Args)]
pub struct Sampling {
    /// 0 always takes the likeliest token; the model's own setting by default, else 1
    #[arg(long, allow_negative_numbers = true, value_parser = |text: &str| between(text, 0.0, 2.0))]
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens up to this probability
    #[arg(long, allow_negative_numbers = true, value_parser = |text: &str| between(text, 0.0, 1.0))]
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, allow_negative_numbers = true)]
    pub top_k: Option<usize>,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// New tokens at most
    #[arg(long, default_value_t = 200, allow_negative_numbers = true)]
    pub max_tokens: usize,
}

/// A number within these, both included.
fn between(text: &str, least: f32, most: f32) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("a number from {least} to {most} is wanted"))
    }
}

pub fn run(args: &Generate) -> Result<()> {
    let opened = shelf_of(&args.model).model(&args.model.reference, Purpose::Own)?.permitted()?;
    let model = opened.generator(args.model.opening.dtype.form())?;
    let mut prompt = args.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        std::io::stdin().read_to_string(&mut prompt).map_err(|error| Error::io("cannot read", "stdin", error))?;
    }
    let ids = model.tokenizer.encode(&prompt, true)?;
    if ids.is_empty() {
        return Err(Error::input("the prompt is empty").help("give some text to continue: `--prompt \"Once\"`"));
    }
    let answering = model.answering(Engine::start(model.decoder.clone(), EngineOptions::default())?);
    // The prompt is shown with the first text, so that a refusal stands alone.
    let mut shown = args.json;
    let told = answering.tell(request(&answering, ids.clone(), &args.sampling, 0), |text| {
        if args.json {
            return ControlFlow::Continue(());
        }
        if !std::mem::replace(&mut shown, true) {
            output::stream(&prompt)?;
        }
        output::stream(text)
    })?;
    if args.json {
        print_json(&told_json(&model.name, &prompt, ids.len(), &told));
    } else {
        outln!();
        noteln!("{}", summary(&told));
    }
    Ok(())
}

/// What was generated, as `--json` says it.
pub fn told_json(model: &str, prompt: &str, prompt_tokens: usize, told: &Told) -> Value {
    json!({
        "model": model, "prompt": prompt, "text": told.text, "prompt_tokens": prompt_tokens,
        "completion_tokens": told.tokens, "finish_reason": told.reason.as_str(), "seconds": told.seconds,
    })
}

/// A request with the user's settings, the model's, or ours.
pub fn request(model: &TextModel, prompt: Vec<u32>, sampling: &Sampling, turn: u64) -> Request {
    let Sampling { temperature, top_p, top_k, .. } = *sampling;
    let wish = SamplingWish { temperature, top_p, top_k, seed: sampling.seed.wrapping_add(turn) };
    model.request(prompt, sampling.max_tokens, model.defaults.sampling(&wish))
}

/// How fast it was and why it ended.
pub fn summary(told: &Told) -> String {
    let speed = told.tokens as f64 / told.seconds.max(1e-9);
    format!(
        "({} tokens, first after {:.0} ms, {speed:.0} tokens/s, ended by {})",
        told.tokens,
        1e3 * told.first_token_seconds,
        told.reason.as_str()
    )
}
