//! `narthex classify`: a label for each line.

use super::{
    shelf_of,
    texts::{Texts, each, lines, warn_of_cut},
};
use crate::flags::{ModelRef, ThreadsFlag};
use clap::Args;
use narthex_answer::likeliest;
use narthex_base::{Error, Result};
use narthex_shelf::{Purpose, ReadyEncoder};
use serde::Serialize;

/// The arguments of `narthex classify`.
#[derive(Args)]
pub struct Classify {
    #[command(flatten)]
    pub model: ModelRef,
    #[command(flatten)]
    pub texts: Texts,
    #[command(flatten)]
    pub threads: ThreadsFlag,
    /// Objects with the text, its tokens and the probability of each label beside the label
    #[arg(long)]
    pub json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    tokens: usize,
    label: &'a str,
    probs: serde_json::Map<String, serde_json::Value>,
}

/// `narthex classify`
pub fn run(args: &Classify) -> Result<()> {
    let name = &args.model.reference;
    let opened = shelf_of(&args.model).model(name, Purpose::Own)?.permitted()?;
    if !opened.is_encoder() {
        return Err(no_labels(name, "generates text"));
    }
    let encoder = opened.encoder(args.model.opening.dtype.precision())?;
    encoder.notes.iter().for_each(|note| noteln!("warning: {note}"));
    let ready = encoder.start(&args.threads.encoder_options())?;
    check(name, &ready)?;
    let cut = each(&ready.encoder, "", lines(&args.texts)?, |text, tokens, numbers| {
        if args.json {
            outln!("{}", line(text, tokens, &numbers, &ready)?);
        } else {
            let probs = ready.chances.of(&numbers);
            let best = likeliest(&probs);
            outln!("{}\t{:.4}", ready.labels[best], probs[best]);
        }
        Ok(())
    })?;
    warn_of_cut(cut, &ready.encoder);
    Ok(())
}

/// The error of a model that does something else.
pub fn no_labels(name: &str, does: &str) -> Error {
    Error::input(format!("`{name}` {does} and tells no labels"))
        .help("make a classifier of it with a step of `kind = \"fit\"`, or name one")
}

/// Refuses a model that is no classifier.
///
/// # Errors
/// Says what it does instead.
pub fn check(name: &str, ready: &ReadyEncoder) -> Result<()> {
    match ready.labels.len() {
        0 => Err(no_labels(name, "gives vectors")),
        1 => Err(no_labels(name, "scores pairs of texts")),
        _ => Ok(()),
    }
}

/// What a classifier says of a text, as JSON in a line.
pub fn line(text: &str, tokens: usize, numbers: &[f32], ready: &ReadyEncoder) -> Result<String> {
    let (labels, probs) = (&ready.labels, ready.chances.of(numbers));
    let (best, all) = (likeliest(&probs), labels.iter().zip(&probs));
    let probs = all.map(|(label, share)| Ok((label.clone(), as_written(*share)?))).collect::<Result<_>>()?;
    serde_json::to_string(&Line { text, tokens, label: &labels[best], probs })
        .map_err(|error| Error::internal("cannot write the line").cause(error))
}

/// A probability in as many digits as single precision has.
fn as_written(share: f32) -> Result<serde_json::Value> {
    share.to_string().parse::<f64>().map(Into::into).map_err(|error| Error::internal("no number").cause(error))
}
