//! `narthex classify`: a label for each line.

use super::{
    shelf_of,
    texts::{Texts, each},
};
use crate::flags::{ModelRef, ThreadsFlag};
use clap::Args;
use narthex_answer::likeliest;
use narthex_base::{Error, Result};
use narthex_shelf::Purpose;
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
    let none = |does: &str| {
        Error::input(format!("`{name}` {does} and tells no labels"))
            .help("make a classifier of it with a step of `kind = \"fit\"`, or name one")
    };
    if !opened.is_encoder() {
        return Err(none("generates text"));
    }
    let encoder = opened.encoder(args.model.opening.dtype.precision())?;
    encoder.notes.iter().for_each(|note| noteln!("warning: {note}"));
    match encoder.model.labels().len() {
        0 => return Err(none("gives vectors")),
        1 => return Err(none("scores pairs of texts")),
        _ => {}
    }
    let ready = encoder.start(&args.threads.encoder_options())?;
    let (labels, chances) = (ready.labels, ready.chances);
    each(&ready.encoder, "", &args.texts, |text, tokens, numbers| {
        let probs = chances.of(&numbers);
        let (best, all) = (likeliest(&probs), labels.iter().zip(&probs));
        if args.json {
            let probs = all.map(|(label, share)| Ok((label.clone(), as_written(*share)?))).collect::<Result<_>>()?;
            let line = serde_json::to_string(&Line { text, tokens, label: &labels[best], probs });
            outln!("{}", line.map_err(|error| Error::internal("cannot write the line").cause(error))?);
        } else {
            outln!("{}\t{:.4}", labels[best], probs[best]);
        }
        Ok(())
    })
}

/// A probability in as many digits as single precision has.
fn as_written(share: f32) -> Result<serde_json::Value> {
    share.to_string().parse::<f64>().map(Into::into).map_err(|error| Error::internal("no number").cause(error))
}
