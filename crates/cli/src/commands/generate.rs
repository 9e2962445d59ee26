//! `narthex generate`

use super::{print_json, shelf};
use crate::{flags::ModelRef, output};
use clap::Args;
use narthex_base::{Error, Result};
use narthex_infer::{Engine, EngineOptions, FinishReason, Output, Request};
use narthex_shelf::{LoadedModel, Purpose};
use narthex_text::TextStream;
use std::{io::Read, ops::ControlFlow, sync::mpsc::channel, time::Instant};

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
    /// 0 always takes the likeliest token; the model's own setting by default, else 0.8
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens up to this probability
    #[arg(long)]
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long)]
    pub top_k: Option<usize>,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// New tokens at most
    #[arg(long, default_value_t = 200)]
    pub max_tokens: usize,
}

/// The temperature where neither the user nor the model's author says one.
const TEMPERATURE: f32 = 0.8;

pub fn run(args: &Generate) -> Result<()> {
    let opened = shelf(&args.model.project).model(&args.model.reference, Purpose::Own)?.permitted()?;
    let model = opened.generator(args.model.dtype.form())?;
    let mut prompt = args.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        std::io::stdin().read_to_string(&mut prompt).map_err(|error| Error::io("cannot read", "stdin", error))?;
    }
    let ids = model.tokenizer.encode(&prompt, true)?;
    if ids.is_empty() {
        return Err(Error::input("the prompt is empty").help("give some text to continue: `--prompt \"Once\"`"));
    }
    let engine = Engine::start(model.decoder.clone(), EngineOptions::default());
    // The prompt is shown with the first text, so that a refusal stands alone.
    let mut shown = args.json;
    let answer = stream(&model, &engine, request(&model, ids.clone(), &args.sampling, 0), |text| {
        if args.json {
            return ControlFlow::Continue(());
        }
        if !std::mem::replace(&mut shown, true) {
            output::stream(&prompt)?;
        }
        output::stream(text)
    })?;
    if args.json {
        print_json(&serde_json::json!({
            "model": model.name, "prompt": prompt, "text": answer.text, "prompt_tokens": ids.len(),
            "completion_tokens": answer.tokens, "finish_reason": answer.reason, "seconds": answer.seconds,
        }));
    } else {
        outln!();
        noteln!("{}", answer.summary());
    }
    Ok(())
}

/// A request with the user's settings, the model's, or ours.
pub fn request(model: &LoadedModel, prompt: Vec<u32>, sampling: &Sampling, turn: u64) -> Request {
    let generation = &model.generation;
    Request {
        prompt,
        max_tokens: sampling.max_tokens,
        sampling: narthex_infer::Sampling {
            temperature: sampling.temperature.or(generation.temperature).unwrap_or(TEMPERATURE),
            top_k: sampling.top_k.or(generation.top_k.map(|k| k as usize)).unwrap_or(0),
            top_p: sampling.top_p.or(generation.top_p).unwrap_or(1.0),
            seed: sampling.seed.wrapping_add(turn),
            ..narthex_infer::Sampling::default()
        },
        stop_tokens: model.stop_tokens.clone(),
        ..Request::default()
    }
}

/// What a model wrote.
pub struct Answer {
    pub text: String,
    pub tokens: usize,
    pub reason: &'static str,
    pub seconds: f64,
    pub first_token_seconds: f64,
}

impl Answer {
    pub fn summary(&self) -> String {
        let speed = self.tokens as f64 / self.seconds.max(1e-9);
        format!(
            "({} tokens, first after {:.0} ms, {speed:.0} tokens/s, ended by {})",
            self.tokens,
            1e3 * self.first_token_seconds,
            self.reason
        )
    }
}

/// Runs a request and hands out its text as it comes, until nobody wants more of it.
pub fn stream(
    model: &LoadedModel,
    engine: &Engine,
    request: Request,
    mut show: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Answer> {
    let start = Instant::now();
    let (sender, outputs) = channel();
    let mut text_stream = TextStream::new(&model.tokenizer, true).after(&request.prompt);
    let ticket = engine.submit(request, Box::new(move |output| sender.send(output).is_ok()));
    let _ticket = ticket.map_err(|error| {
        Error::input("the model cannot take this prompt")
            .cause(error)
            .help("shorten the prompt, or choose a model with a longer context")
    })?;
    let mut answer =
        Answer { text: String::new(), tokens: 0, reason: "length", seconds: 0.0, first_token_seconds: 0.0 };
    for output in outputs {
        match output {
            Output::Admitted | Output::Prompt(_) | Output::StopToken { .. } => {}
            Output::Token { id, .. } => {
                answer.tokens += 1;
                if answer.tokens == 1 {
                    answer.first_token_seconds = start.elapsed().as_secs_f64();
                }
                if let Some(text) = text_stream.push(id)? {
                    answer.text += &text;
                    if show(&text).is_break() {
                        break;
                    }
                }
            }
            Output::Finished(reason) => {
                answer.reason = if reason == FinishReason::Stop { "stop" } else { "length" };
                break;
            }
            Output::Failed(why) => return Err(Error::internal(why)),
        }
    }
    let rest = text_stream.finish()?;
    answer.text += &rest;
    _ = show(&rest);
    answer.seconds = start.elapsed().as_secs_f64();
    Ok(answer)
}
