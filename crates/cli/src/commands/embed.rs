//! `narthex embed`: a vector for each line.

use super::shelf;
use crate::{
    flags::{ModelRef, ThreadsFlag},
    output,
};
use clap::Args;
use narthex_answer::encoder_inputs;
use narthex_base::{Error, Result};
use narthex_infer::{EncoderOptions, EncoderTask, Ticket, shortened};
use narthex_shelf::Purpose;
use serde::Serialize;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
};

/// The arguments of `narthex embed`.
#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pub model: ModelRef,
    /// The texts; `-` reads lines from stdin
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    pub texts: Vec<String>,
    /// Embed each line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub file: Option<PathBuf>,
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

/// Texts that are tokenized and computed together.
const TEXTS_AT_ONCE: usize = 256;

/// Bytes of a line at most.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Lots of texts whose vectors are under way: while one is computed, the next is tokenized.
const LOTS_AHEAD: usize = 2;

/// What a lot of texts will give.
struct Lot {
    texts: Vec<String>,
    tokens: Vec<usize>,
    vectors: Receiver<Result<Vec<Vec<f32>>, String>>,
    _ticket: Ticket,
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
    let opened = shelf(&args.model.project).model(&args.model.reference, Purpose::Own)?.permitted()?;
    if !opened.is_encoder() {
        return Err(Error::input(format!("`{}` generates text and gives no embeddings", args.model.reference)).help(
            "name an encoder, such as a folder of sentence-transformers; for this model use `narthex generate`",
        ));
    }
    let encoder = opened.encoder(args.model.dtype.precision())?;
    if encoder.model.task() == EncoderTask::Score {
        return Err(Error::input(format!("`{}` scores pairs of texts and gives no embeddings", args.model.reference))
            .help(format!("serve it and ask /v1/rerank: `narthex serve {}`", args.model.reference)));
    }
    let own = encoder.model.dimension();
    let dimensions = args.dimensions.map_or(own, |dimensions| dimensions as usize);
    if dimensions > own {
        return Err(Error::usage(format!("`--dimensions {dimensions}` is more than the model's {own}")));
    }
    let options = EncoderOptions {
        threads: args.threads.threads.map_or(0, |threads| threads as usize),
        ..EncoderOptions::default()
    };
    let embedder = encoder.start(&options)?.encoder;
    let prompt = embedder.prompt(args.prompt_name.as_deref()).ok_or_else(|| {
        let names: Vec<&str> = embedder.prompts.keys().map(String::as_str).collect();
        let help = if names.is_empty() { "the model has no prompts: leave it out".into() } else { names.join(", ") };
        Error::usage("the model has no prompt of this name").help(help)
    })?;
    let mut lines = lines(args)?;
    let (mut cut, mut under_way) = (0, std::collections::VecDeque::new());
    loop {
        let texts: Vec<String> = lines.by_ref().take(TEXTS_AT_ONCE).collect::<Result<_>>()?;
        let done = texts.is_empty();
        if !done {
            let sequences = {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                embedder.texts(prompt, &texts, embedder.engine.context())?
            };
            cut += sequences.iter().filter(|sequence| sequence.cut > 0).count();
            let tokens = sequences.iter().map(|sequence| sequence.ids.len()).collect();
            let (sender, vectors) = sync_channel(1);
            let sink = Box::new(move |outcome| _ = sender.send(outcome));
            let ticket = embedder.engine.submit(encoder_inputs(sequences), sink);
            let _ticket = ticket.map_err(|error| Error::internal("the engine takes no texts").cause(error))?;
            under_way.push_back(Lot { texts, tokens, vectors, _ticket });
        }
        while under_way.len() > if done { 0 } else { LOTS_AHEAD } {
            let lot = under_way.pop_front().expect("there is one");
            write(lot, dimensions, args.json)?;
        }
        if done || output::is_lost() {
            break;
        }
    }
    if cut > 0 {
        let context = embedder.engine.context();
        noteln!("warning: {cut} texts were longer than the model's {context} tokens and were cut");
    }
    Ok(())
}

/// The texts of the command line, of the file, or of stdin.
fn lines(args: &Embed) -> Result<Box<dyn Iterator<Item = Result<String>>>> {
    if let Some(path) = &args.file {
        let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
        return Ok(Box::new(lines_of(BufReader::new(file), path.display().to_string())));
    }
    if args.texts == ["-"] {
        return Ok(Box::new(lines_of(std::io::stdin().lock(), "stdin".into())));
    }
    Ok(Box::new(args.texts.clone().into_iter().map(Ok)))
}

fn lines_of(mut reader: impl BufRead, name: String) -> impl Iterator<Item = Result<String>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                let text = line.strip_suffix('\n').unwrap_or(&line);
                Some(Ok(text.strip_suffix('\r').unwrap_or(text).to_string()))
            }
            Err(error) => Some(Err(Error::io("cannot read", &name, error))),
        }
    })
}

fn write(lot: Lot, dimensions: usize, json: bool) -> Result<()> {
    let outcome = lot.vectors.recv().map_err(|_| Error::internal("the engine has stopped"))?;
    let vectors = outcome.map_err(Error::internal)?;
    for ((text, tokens), vector) in lot.texts.iter().zip(lot.tokens).zip(vectors) {
        let vector = shortened(vector, dimensions);
        let line = match json {
            true => serde_json::to_string(&Line { text, tokens, embedding: &vector }),
            false => serde_json::to_string(&vector),
        };
        let line = line.map_err(|error| Error::internal("cannot write the vector").cause(error))?;
        outln!("{line}");
    }
    Ok(())
}
