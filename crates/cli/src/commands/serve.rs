//! `narthex serve`

use crate::arguments::Serve;
use narthex_base::{Error, Result};
use narthex_infer::{Engine, EngineOptions};
use narthex_run::LoadedModel;
use narthex_serve::{SamplingDefaults, ServeOptions, ServedModel, bind, serve};
use std::{path::Path, sync::Arc, time::Instant};

pub fn run(args: &Serve) -> Result<()> {
    let options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        api_keys: args.api_key.clone(),
        allowed_hosts: args.allowed_host.clone(),
        ..ServeOptions::default()
    };
    if args.max_num_seqs == 0 {
        return Err(Error::usage("`--max-num-seqs` is 0").help("say how many sequences may run at once"));
    }
    let engine = EngineOptions { sequences_max: args.max_num_seqs, ..EngineOptions::default() };
    start(&args.model.project, &args.model.reference, args.served_model_name.clone(), &options, engine)
}

/// Serves a model with the default options, as `run --serve` does.
pub fn serve_reference(project: &Path, reference: &str) -> Result<()> {
    start(project, reference, None, &ServeOptions::default(), EngineOptions::default())
}

fn start(
    project: &Path,
    reference: &str,
    name: Option<String>,
    options: &ServeOptions,
    engine: EngineOptions,
) -> Result<()> {
    let begun = Instant::now();
    // The port first: it is quick to find out that it is taken.
    let listener = bind(options)?;
    let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").cause(error))?;
    let model = LoadedModel::open(project, reference)?;
    let defaults = SamplingDefaults::default();
    let generation = &model.generation;
    let license =
        model.provenance.license.as_ref().map_or("licence undeclared".to_string(), |license| license.to_string());
    let served = ServedModel {
        id: name.unwrap_or_else(|| model.name.clone()),
        generator: Arc::new(Engine::start(model.decoder, engine)),
        tokenizer: model.tokenizer,
        template: model.template,
        stop_tokens: model.stop_tokens,
        defaults: SamplingDefaults {
            temperature: generation.temperature.unwrap_or(defaults.temperature),
            top_p: generation.top_p.unwrap_or(defaults.top_p),
            top_k: generation.top_k.map_or(defaults.top_k, |k| k as usize),
        },
        created: model.created,
        provenance: serde_json::to_value(&model.provenance)
            .map_err(|error| Error::internal("cannot write the provenance").cause(error))?,
    };
    eprintln!("serving {} ({license}), ready after {:.2} s", served.id, begun.elapsed().as_secs_f64());
    eprintln!("  chat page   http://{address}/");
    eprintln!("  OpenAI API  http://{address}/v1");
    eprintln!("  Ctrl-C ends");
    serve(listener, Arc::new(served), options, stop_signal())
}

/// Ready on the first SIGINT or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
