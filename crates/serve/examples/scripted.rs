//! A server that answers from a fixed script instead of a model: for work on the page and for its
//! test. `cargo run -p narthex-serve --example scripted -- PORT [KEY]`
//!
//! It repeats what it was told; `long` gives a long answer, `fail` breaks off, and `😀` shows
//! characters of several tokens.

use narthex_answer::{Constraints, SamplingDefaults, TextModel};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Digest, Error, Evidence, License, LineageNode, Presence, Result,
};
use narthex_http::{ApiKey, HttpOptions, bind};
use narthex_infer::{
    Output, Request,
    scripted::{Scripted, say},
};
use narthex_openness::Shown;
use narthex_serve::{Ability, Models, ServeOptions, Served, Serving, Sizes, TextAbility, serve};
use narthex_text::{CHATML, ChatTemplate, Tokenizer};
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
    let http =
        HttpOptions { port, api_keys: arguments.map(|key| ApiKey::new(&key)).collect(), ..HttpOptions::default() };
    let options = ServeOptions { http, ..ServeOptions::default() };
    let bound = bind(&options.http)?;

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
    let model = TextModel {
        constraints: Arc::new(Constraints::new(&tokenizer)),
        tokenizer,
        template: Some(ChatTemplate::new(CHATML, None, None)?),
        engine: Arc::new(Scripted::new(script).with_context(CONTEXT).delay(Duration::from_millis(30))),
        stop_tokens: vec![2],
        defaults: SamplingDefaults::default(),
    };
    let model = Served {
        id: "bard-chat".into(),
        created: 1_700_000_000,
        sizes: Sizes::default(),
        provenance: provenance()?,
        ability: Ability::Text(TextAbility { model, adapters: Arc::default(), call_parser: None }),
    };
    eprintln!("the script answers at http://{}:{}", options.http.host, options.http.port);
    serve(bound, Models::of(Arc::new(Serving::new(model))), &options, std::future::pending())
}

/// What a small chain of steps would be shown as.
fn provenance() -> Result<Shown> {
    let (open, free) = (License::parse("LicenseRef-OpenMDW-1.1")?, License::parse("CC0-1.0")?);
    let node = |role: Option<&str>, name: &str, kind, license: &License, parents| LineageNode {
        role: role.map(str::to_string),
        name: name.into(),
        kind,
        digest: Digest::of(name.as_bytes()),
        license: Some(license.clone()),
        origins: vec![],
        components: vec![],
        declared: vec![],
        files: vec![],
        parents,
        repeated: false,
        presence: Presence::Complete,
    };
    let source = node(Some("from"), "tinyshakespeare", ArtifactKind::Source, &free, vec![]);
    let plays = node(Some("data"), "plays", ArtifactKind::Documents, &free, vec![source.clone()]);
    let speeches = node(Some("data"), "speeches", ArtifactKind::Chat, &free, vec![source]);
    let base = node(Some("model"), "bard", ArtifactKind::Model, &open, vec![plays]);
    let tuned = node(None, "bard-chat", ArtifactKind::Model, &open, vec![base, speeches]);
    let component = |name: &str, kind, license: Option<&License>, origin: Option<&str>| Component {
        origin: origin.map(str::to_string),
        ..Component::new(name, kind, license.cloned(), Evidence::default())
    };
    Ok(Shown {
        digest: Some("0123456789abcdef".repeat(4)),
        license: Some(open.clone()),
        components: vec![
            component("weights", ComponentKind::ModelParameters, Some(&open), None),
            component(
                "tinyshakespeare",
                ComponentKind::Datasets,
                Some(&free),
                Some("https://www.gutenberg.org/ebooks/100"),
            ),
            component("notes", ComponentKind::Datasets, None, Some("written by hand")),
        ],
        lineage: Some(tuned),
        ..Shown::unknown()
    })
}
