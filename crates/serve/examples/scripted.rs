//! A server that answers from a fixed script instead of a model: for work on the page and for its
//! test. `cargo run -p narthex-serve --example scripted -- PORT [KEY]`
//!
//! It repeats what it was told; `long` gives a long answer, `fail` breaks off, and `😀` shows
//! characters of several tokens.

use narthex_base::{Error, Result};
use narthex_infer::{Output, Request};
use narthex_serve::{
    ApiKey, SamplingDefaults, ServeOptions, ServedModel, Serving, bind,
    scripted::{Scripted, say},
    serve,
};
use narthex_text::{CHATML, ChatTemplate, Tokenizer};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const LONG: &str = "Friends, Romans, countrymen, lend me your ears;\nI come to bury Caesar, not to praise him.\n\
    The evil that men do lives after them;\nThe good is oft interred with their bones;\nSo let it be with Caesar.\n\n";
const SHORT: &str = "What, you egg! Speak plainly, and I shall answer as plainly as a script can. <b>Not bold</b> 😀";
const VOCABULARY: usize = 400;
const CONTEXT: usize = 8192;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or_else(|| "8000".into());
    let port = port.parse().map_err(|error| Error::usage(format!("`{port}` is not a port")).cause(error))?;
    let options = ServeOptions { port, api_keys: arguments.map(ApiKey::Plain).collect(), ..ServeOptions::default() };
    let bound = bind(&options)?;

    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let texts = [LONG.repeat(5), SHORT.repeat(5)];
    let tokenizer = Tokenizer::train_bpe(texts.into_iter(), VOCABULARY, &special)?;
    let (short, long) = (tokenizer.encode(SHORT, false)?, tokenizer.encode(&LONG.repeat(20), false)?);
    let reader = tokenizer.clone();
    let script = move |request: &Request| -> Vec<Output> {
        let prompt = reader.decode(&request.prompt, false).unwrap_or_default();
        let asked = prompt.rsplit("<|im_start|>user").next().unwrap_or_default();
        if asked.contains("fail") {
            let mut outputs = say(request, &short[..short.len() / 2]);
            outputs.pop();
            outputs.push(Output::Failed("the script says so".into()));
            return outputs;
        }
        say(request, if asked.contains("long") { &long } else { &short })
    };
    let model = ServedModel {
        id: "bard-chat".into(),
        tokenizer,
        template: Some(ChatTemplate::new(CHATML, None, None)?),
        generator: Arc::new(Scripted::new(script).with_context(CONTEXT).delay(Duration::from_millis(30))),
        stop_tokens: vec![2],
        defaults: SamplingDefaults::default(),
        created: 1_700_000_000,
        adapters: Arc::default(),
        provenance: provenance(),
        papers: None,
        embedder: None,
    };
    eprintln!("the script answers at http://{}:{}", options.host, options.port);
    serve(bound, Arc::new(Serving::new(model)), &options, std::future::pending())
}

fn provenance() -> serde_json::Value {
    let source = json!({
        "name": "tinyshakespeare", "kind": "source", "role": "from", "license": "CC0-1.0", "digest": "5a1e".repeat(16), "parents": [],
    });
    let documents = |name: &str, kind: &str, role: &str| {
        json!({
            "name": name, "kind": kind, "role": role, "license": "CC0-1.0", "digest": "c0ffee00".repeat(8), "parents": [source.clone()],
        })
    };
    let base = json!({
        "name": "bard", "kind": "model", "role": "model", "license": "LicenseRef-OpenMDW-1.1", "digest": "ba5e".repeat(16),
        "parents": [documents("plays", "documents", "data")],
    });
    json!({
        "digest": "0123456789abcdef".repeat(4),
        "license": "LicenseRef-OpenMDW-1.1",
        "components": [
            {"name": "weights", "kind": "model_parameters", "license": "LicenseRef-OpenMDW-1.1", "origin": null},
            {"name": "tinyshakespeare", "kind": "dataset", "license": "CC0-1.0", "origin": "https://www.gutenberg.org/ebooks/100"},
            {"name": "notes", "kind": "dataset", "license": null, "origin": "written by hand"},
        ],
        "lineage": {
            "name": "bard-chat", "kind": "model", "role": null, "license": "LicenseRef-OpenMDW-1.1",
            "digest": "0123456789abcdef".repeat(4), "parents": [base, documents("speeches", "chat", "data")],
        },
    })
}
