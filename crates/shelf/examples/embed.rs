//! Embeds the lines of a file again and again and prints the seconds it took, tokenizing included, once for each line
//! on stdin: so that a script can take turns between programs.
//!
//!     cargo run --release -p narthex-shelf --example embed -- FOLDER FILE [float32|bfloat16 [THREADS [STEP_TOKENS]]]

use narthex_base::{Error, Result};
use narthex_infer::{EncoderEngine, EncoderInput, EncoderOptions};
use narthex_model::Precision;
use narthex_shelf::{PlanOptions, Purpose, Shelf};
use std::{io::BufRead, path::Path, time::Instant};

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, rest @ ..] = arguments.as_slice() else {
        return Err(Error::usage("give a model folder and a file of lines"));
    };
    let precision =
        if rest.first().is_some_and(|dtype| dtype == "bfloat16") { Precision::Bf16 } else { Precision::F32 };
    let number = |at: usize, default: usize| rest.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let text = std::fs::read_to_string(file).map_err(|error| Error::io("cannot read", file, error))?;
    let lines: Vec<&str> = text.lines().collect();
    let shelf = Shelf::new(Path::new("."), PlanOptions::default());
    let encoder = shelf.model(folder, Purpose::Own)?.permitted()?.encoder(Some(precision))?;
    let options = EncoderOptions {
        threads: number(1, 0),
        step_tokens_max: number(2, EncoderOptions::default().step_tokens_max),
        ..EncoderOptions::default()
    };
    let tokenizer = encoder.tokenizer;
    let engine = EncoderEngine::start(encoder.model, &options)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line.map_err(|error| Error::io("cannot read", "stdin", error))?;
        let start = Instant::now();
        let sequences = tokenizer.texts(&lines, engine.context())?;
        let inputs = sequences.into_iter().map(|found| EncoderInput { ids: found.ids, types: found.types }).collect();
        let outcome = engine.run(inputs).map_err(|error| Error::internal("the engine takes no texts").cause(error))?;
        let vectors = outcome.map_err(Error::internal)?;
        assert_eq!(vectors.len(), lines.len());
        println!("{:.6}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
