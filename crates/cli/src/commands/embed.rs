//! `narthex embed`: a vector for each line.

use super::{
    shelf_of,
    texts::{Texts, each, lines, warn_of_cut},
};
use crate::flags::{ModelRef, ThreadsFlag};
use clap::Args;
use narthex_base::{Error, Result};
use narthex_infer::{EncoderTask, shortened};
use narthex_shelf::{Purpose, ReadyEncoder};
use serde::Serialize;

/// The arguments of `narthex embed`.
#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pub model: ModelRef,
    #[command(flatten)]
    pub texts: Texts,
    /// Put the model's prompt of this name before each text, such as `query`; its default prompt otherwise
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Keep the first N values and give the vector the length 1 again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: Option<u32>,
    #[command(flatten)]
    pub threads: ThreadsFlag,
    /// Objects with the text and its tokens beside the vector
    #[arg(long)]
    pub json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    tokens: usize,
    embedding: &'a [f32],
}

/// `narthex embed`
pub fn run(args: &Embed) -> Result<()> {
    let name = &args.model.reference;
    let opened = shelf_of(&args.model).model(name, Purpose::Own)?.permitted()?;
    if !opened.is_encoder() {
        return Err(no_embeddings(name));
    }
    let encoder = opened.encoder(args.model.opening.dtype.precision())?;
    encoder.notes.iter().for_each(|note| noteln!("warning: {note}"));
    let ready = encoder.start(&args.threads.encoder_options())?;
    let wish = Wish::new(name, &ready, args.prompt_name.as_deref(), args.dimensions)?;
    let cut = each(&ready.encoder, wish.prompt, lines(&args.texts)?, |text, tokens, vector| {
        let vector = shortened(vector, wish.dimensions);
        let line = match args.json {
            true => serde_json::to_string(&Line { text, tokens, embedding: &vector }),
            false => serde_json::to_string(&vector),
        };
        let line = line.map_err(|error| Error::internal("cannot write the vector").cause(error))?;
        outln!("{line}");
        Ok(())
    })?;
    warn_of_cut(cut, &ready.encoder);
    Ok(())
}

/// The error of a model that generates text.
pub fn no_embeddings(name: &str) -> Error {
    Error::input(format!("`{name}` generates text and gives no embeddings"))
        .help("name an encoder, such as a folder of sentence-transformers; for this model use `narthex generate`")
}

/// How vectors are wanted.
pub struct Wish<'a> {
    /// What is put before each text.
    pub prompt: &'a str,
    /// So many values are kept.
    pub dimensions: usize,
}

impl<'a> Wish<'a> {
    /// What is wanted of a model, if it can be had.
    ///
    /// # Errors
    /// If the model gives no vectors, or not so many values, or has no such prompt.
    pub fn new(name: &str, ready: &'a ReadyEncoder, prompt: Option<&str>, dimensions: Option<u32>) -> Result<Self> {
        let encoder = &ready.encoder;
        if encoder.engine.task() == EncoderTask::Score {
            let (does, help) = match ready.labels.len() {
                1 => ("scores pairs of texts", format!("serve it and ask /v1/rerank: `narthex serve {name}`")),
                _ => ("sorts texts into classes", format!("use `narthex classify {name}`")),
            };
            return Err(Error::input(format!("`{name}` {does} and gives no embeddings")).help(help));
        }
        let own = encoder.engine.dimension();
        let dimensions = dimensions.map_or(own, |dimensions| dimensions as usize);
        if dimensions > own {
            return Err(Error::usage(format!("`--dimensions {dimensions}` is more than the model's {own}")));
        }
        let prompt = encoder.prompt(prompt).ok_or_else(|| {
            let names: Vec<&str> = encoder.prompts.keys().map(String::as_str).collect();
            let help =
                if names.is_empty() { "the model has no prompts: leave it out".into() } else { names.join(", ") };
            Error::usage("the model has no prompt of this name").help(help)
        })?;
        Ok(Self { prompt, dimensions })
    }
}
