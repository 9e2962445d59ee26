//! Texts of a command line, a file or stdin through an encoder, in their order. Does not know what comes of them.

use crate::output;
use clap::Args;
use narthex_answer::{TextEncoder, encoder_inputs};
use narthex_base::{Error, Result};
use narthex_infer::Ticket;
use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
};

/// Which texts.
#[derive(Args)]
pub struct Texts {
    /// The texts; `-` reads lines from stdin
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    pub texts: Vec<String>,
    /// Take each line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub file: Option<PathBuf>,
}

/// Texts that are tokenized and computed together.
const TEXTS_AT_ONCE: usize = 256;

/// Bytes of a line at most.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Lots of texts that are under way: while one is computed, the next is tokenized.
const LOTS_AHEAD: usize = 2;

/// What a lot of texts will give.
struct Lot {
    texts: Vec<String>,
    tokens: Vec<usize>,
    numbers: Receiver<Result<Vec<Vec<f32>>, String>>,
    _ticket: Ticket,
}

/// Hands each text, its tokens and the encoder's numbers for it behind `prompt` to `write`. Gives how many were longer
/// than the model can read, and were cut.
///
/// # Errors
/// If a text cannot be read or encoded, or `write` fails.
pub fn each(
    encoder: &TextEncoder,
    prompt: &str,
    mut texts: impl Iterator<Item = Result<String>>,
    mut write: impl FnMut(&str, usize, Vec<f32>) -> Result<()>,
) -> Result<usize> {
    let (mut cut, mut under_way) = (0, VecDeque::new());
    loop {
        let texts: Vec<String> = texts.by_ref().take(TEXTS_AT_ONCE).collect::<Result<_>>()?;
        let done = texts.is_empty();
        if !done {
            let sequences = {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                encoder.texts(prompt, &texts, encoder.engine.context())?
            };
            cut += sequences.iter().filter(|sequence| sequence.cut > 0).count();
            let tokens = sequences.iter().map(|sequence| sequence.ids.len()).collect();
            let (sender, numbers) = sync_channel(1);
            let sink = Box::new(move |outcome| _ = sender.send(outcome));
            let ticket = encoder.engine.submit(encoder_inputs(sequences), sink);
            let _ticket = ticket.map_err(|error| Error::internal("the engine takes no texts").cause(error))?;
            under_way.push_back(Lot { texts, tokens, numbers, _ticket });
        }
        while under_way.len() > if done { 0 } else { LOTS_AHEAD } {
            let lot: Lot = under_way.pop_front().expect("there is one");
            let outcome = lot.numbers.recv().map_err(|_| Error::internal("the engine has stopped"))?;
            let numbers = outcome.map_err(Error::internal)?;
            for ((text, tokens), numbers) in lot.texts.iter().zip(lot.tokens).zip(numbers) {
                write(text, tokens, numbers)?;
            }
        }
        if done || output::is_lost() {
            break;
        }
    }
    Ok(cut)
}

/// Says so if texts were cut.
pub fn warn_of_cut(cut: usize, encoder: &TextEncoder) {
    if cut > 0 {
        let context = encoder.engine.context();
        noteln!("warning: {cut} texts were longer than the model's {context} tokens and were cut");
    }
}

/// The texts of the command line, of the file, or of stdin.
pub fn lines(texts: &Texts) -> Result<Box<dyn Iterator<Item = Result<String>>>> {
    if let Some(path) = &texts.file {
        let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
        return Ok(Box::new(lines_of(BufReader::new(file), path.display().to_string())));
    }
    if texts.texts == ["-"] {
        return Ok(Box::new(lines_of(std::io::stdin().lock(), "stdin".into())));
    }
    Ok(Box::new(texts.texts.clone().into_iter().map(Ok)))
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
