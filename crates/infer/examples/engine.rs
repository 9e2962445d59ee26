//! The engine inside a program of one's own: several sequences at once, each with a reader of its own.
//!
//! `cargo run --release -p narthex-infer --example engine -- FOLDER 12 7 99`: continues the token ids 12 7 99, and its
//! beginnings, with the model of a folder in Hugging Face layout.

use narthex_infer::{Engine, EngineOptions, Output, Request, Sampling};
use narthex_model::Decoder;
use std::{error::Error, path::Path, sync::mpsc::channel};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder? FOLDER ID ID …")?;
    let prompt: Vec<u32> = arguments.map(|id| id.parse()).collect::<Result<_, _>>()?;
    // None takes bf16 for weights that are stored in 16 bits, else f32.
    let model = Decoder::read_packed(Path::new(&folder), None)?;
    let engine = Engine::start(model, EngineOptions { kv_cache_bytes: 256 << 20, ..EngineOptions::default() })?;
    let (sender, outputs) = channel();
    let mut tickets = Vec::new();
    for len in 1..=prompt.len() {
        let request = Request {
            prompt: prompt[..len].to_vec(),
            max_tokens: 16,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            ..Request::default()
        };
        let sender = sender.clone();
        // Called from the engine's thread for each token; false would end the sequence, and so would dropping the ticket.
        tickets.push(engine.submit(request, Box::new(move |output| sender.send((len, output)).is_ok()))?);
    }
    drop(sender);
    for (len, output) in outputs {
        match output {
            Output::Token { id, .. } => println!("after {len} tokens: {id}"),
            Output::Finished(reason) => println!("after {len} tokens: {reason:?}"),
            Output::Failed(why) => return Err(why.into()),
            Output::Admitted { .. } | Output::Prompt(_) | Output::StopToken { .. } => {}
        }
    }
    let stats = engine.stats();
    println!("{} tokens in {} steps", stats.generation_tokens_total, stats.steps_total);
    Ok(())
}
