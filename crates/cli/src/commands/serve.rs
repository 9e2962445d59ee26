//! `narthex serve` and `narthex batch`: a model behind the API.

use crate::{
    commands::{
        adapters::{self, AdapterFlags},
        engine::{EngineLimits, KV_CACHE_MEMORY_SHARE, kv_cache_bytes},
        openness::explain,
        print_json, shelf,
        speculative::SpeculativeConfig,
    },
    flags::{Dtype, ModelRef},
    render::Renderer,
    signals,
    style::{Style, bytes},
};
use clap::Args;
use narthex_base::{Digest, Error, Observer, Result};
use narthex_infer::{Engine, EngineOptions};
use narthex_kernels::alloc::keep_at_most;
use narthex_model::Precision;
use narthex_openness::Finding;
use narthex_run::{Judged, OpenedModel, Purpose};
use narthex_serve::{
    Adapters, ApiKey, BatchSummary, SamplingDefaults, ServeOptions, ServedModel, Serving, TlsFiles, bind, run_batch,
    serve,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// The arguments of `narthex serve`.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    pub model: ModelRef,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// The name clients ask for; the reference by default
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Ask clients for one of the keys in this file, one a line; `sha256:` begins a key's digest, `#` a comment
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Say by which rule of the policy each component may be served, or not
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub engine: EngineLimits,
    #[command(flatten)]
    pub adapters: AdapterFlags,
    /// Go over to the newest version of the model as soon as its name points to one; SIGHUP does so once
    #[arg(long)]
    pub follow: bool,
    /// Speak TLS with this certificate, followed by those that vouch for it, as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    pub ssl_certfile: Option<PathBuf>,
    /// The certificate's private key as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    pub ssl_keyfile: Option<PathBuf>,
    /// Add a line of JSON for each request to this file, without its content; `-` is standard error
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Send an OpenTelemetry span for each generation, without its content, to this collector by OTLP over HTTP
    #[arg(long, value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,
    /// Seconds that answers under way get after the signal to stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub shutdown_timeout: u64,
    /// A further host name under which the server may be addressed, as by a reverse proxy
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
}

/// The arguments of `narthex batch`.
#[derive(Args)]
pub struct Batch {
    #[command(flatten)]
    pub model: ModelRef,
    /// Requests as JSON lines: `{"custom_id", "method", "url", "body"}`, as OpenAI's batches have them
    pub input: PathBuf,
    /// Where answers go, a line as soon as it is there; lines of an earlier run are not asked again
    pub output: PathBuf,
    /// The name that the requests ask for; the reference by default
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    #[command(flatten)]
    pub engine: EngineLimits,
    /// The summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Bytes of working memory kept between steps: what a step of 256 rows needs of a model of a billion parameters or so. Steps
/// differ, and would otherwise come to hold their largest buffers of every size.
const WORKING_BYTES_KEPT: usize = 64 << 20;

/// How often `--follow` looks whether there is a new version.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// `narthex serve`
pub fn run(args: &Serve) -> Result<()> {
    let tls = args.ssl_certfile.clone().zip(args.ssl_keyfile.clone());
    let mut options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        api_keys: args.api_key.iter().cloned().map(ApiKey::Plain).collect(),
        allowed_hosts: args.allowed_host.clone(),
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        access_log: args.access_log.clone(),
        otlp_traces_endpoint: args.otlp_traces_endpoint.clone(),
        ..ServeOptions::default()
    };
    options.limits.shutdown_s = args.shutdown_timeout;
    if let Some(path) = &args.api_key_file {
        options.api_keys.extend(read_keys(path)?);
    }
    let source = Source::new(&args.model, args.served_model_name.clone(), &args.engine)?;
    let source = Source { adapters: Arc::new(adapters::adapters(&args.adapters, &source.project)?), ..source };
    if args.explain {
        let mut findings = source.findings()?;
        findings.extend(adapters::judge(&args.adapters, &source.project)?);
        explain(&findings);
    }
    listen(source, &args.adapters.lora_modules, args.follow, &options)
}

/// Serves a model with the default options, as `run --serve` does.
pub fn serve_reference(project: &Path, reference: &str) -> Result<()> {
    let engine = EngineOptions { kv_cache_bytes: kv_cache_bytes(KV_CACHE_MEMORY_SHARE), ..EngineOptions::default() };
    let source = Source {
        project: project.into(),
        reference: reference.into(),
        dtype: Dtype::Auto,
        name: None,
        engine,
        speculative: None,
        adapters: Arc::default(),
    };
    listen(source, &[], false, &ServeOptions::default())
}

/// `narthex batch`
pub fn batch(args: &Batch, style: Style) -> Result<()> {
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, false);
    let emit = |event| renderer.event(event);
    let source = Source::new(&args.model, args.served_model_name.clone(), &args.engine)?;
    let at_once = source.engine.sequences_max;
    let (model, _) = source.ready()?;
    let observer = Observer::new(&emit, &interrupt);
    let summary = run_batch(model, &args.input, &args.output, at_once, observer)?;
    drop(renderer);
    if args.json {
        print_json(&summary);
    } else {
        let BatchSummary { lines, known, answered, failed } = summary;
        noteln!("{lines} requests: {known} answered before, {answered} now, {failed} of those with an error");
        noteln!("  answers in {}", args.output.display());
    }
    Ok(())
}

/// Keys or their digests, one a line; empty lines and those that begin with `#` do not count.
fn read_keys(path: &Path) -> Result<Vec<ApiKey>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys =
        lines.map(|(index, line)| ApiKey::parse(line).map_err(|what| Error::input(what).at(path.display(), index + 1)));
    let keys: Vec<ApiKey> = keys.collect::<Result<_>>()?;
    if keys.is_empty() {
        return Err(Error::input("there are no keys in this file")
            .at(path.display(), None)
            .help("write one key a line, such as the output of `openssl rand -hex 24`"));
    }
    Ok(keys)
}

/// What to say about a model once it answers.
pub(super) struct Facts {
    pub license: String,
    pub dtype: &'static str,
    /// What it can take.
    pub about: String,
    /// Tokens of the model's own context, if the cache is too small for it.
    pub cut: Option<usize>,
}

/// Where a model comes from and how it is to run.
pub(super) struct Source {
    pub project: PathBuf,
    pub reference: String,
    pub dtype: Dtype,
    pub name: Option<String>,
    pub engine: EngineOptions,
    pub speculative: Option<SpeculativeConfig>,
    pub adapters: Arc<Adapters>,
}

impl Source {
    fn new(model: &ModelRef, name: Option<String>, limits: &EngineLimits) -> Result<Self> {
        let (project, reference) = (model.project.clone(), model.reference.clone());
        let (engine, speculative) = (limits.options()?, limits.speculative_config.clone());
        Ok(Self { project, reference, dtype: model.dtype, name, engine, speculative, adapters: Arc::default() })
    }

    fn open(&self, reference: &str) -> Result<Judged<OpenedModel>> {
        shelf(&self.project).model(reference, Purpose::Serve)
    }

    /// What the project's policy says of serving the model, and the one that guesses for it.
    fn findings(&self) -> Result<Vec<Finding>> {
        let mut findings = self.open(&self.reference)?.findings().to_vec();
        if let Some(draft) = self.speculative.as_ref().and_then(SpeculativeConfig::draft) {
            findings.extend_from_slice(self.open(draft)?.findings());
        }
        Ok(findings)
    }

    /// Loads the model and starts its engine, if the policy lets it.
    fn ready(&self) -> Result<(ServedModel, Facts)> {
        let opened = self.open(&self.reference)?.permitted()?;
        // What may not guess is better said before a large model is loaded.
        let draft = self.speculative.as_ref().and_then(SpeculativeConfig::draft);
        let draft = draft.map(|draft| self.open(draft)?.permitted()).transpose()?;
        keep_at_most(WORKING_BYTES_KEPT);
        if opened.is_encoder() {
            return super::embed::served(self, opened);
        }
        let model = opened.generator(self.dtype.form())?;
        let wanted = model.decoder.config().context.min(self.engine.context_max);
        let precision = model.decoder.precision();
        let draft = draft.map(|draft| draft.generator(self.dtype.form())).transpose()?.map(|draft| draft.decoder);
        let speculation =
            self.speculative.as_ref().map(|config| config.speculation(&model.decoder, draft)).transpose()?;
        let engine = Engine::start(model.decoder, EngineOptions { speculation, ..self.engine.clone() });
        let (context, tokens) = (engine.context(), engine.kv_cache_tokens());
        let license = model.provenance.license.as_ref();
        let facts = Facts {
            license: license.map_or("licence undeclared".into(), |license| license.to_string()),
            dtype: if precision == Precision::Bf16 { "bfloat16" } else { "float32" },
            about: format!(
                "keys and values take up to {} for {tokens} tokens, {context} a sequence",
                bytes(engine.kv_cache_bytes() as u64)
            ),
            cut: (context < wanted).then_some(wanted),
        };
        let (generation, defaults) = (&model.generation, SamplingDefaults::default());
        let served = ServedModel {
            id: self.name.clone().unwrap_or_else(|| model.name.clone()),
            generator: Arc::new(engine),
            adapters: self.adapters.clone(),
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
            papers: model.provenance.papers.as_ref().and_then(|papers| serde_json::to_value(papers).ok()),
            embedder: None,
        };
        Ok((served, facts))
    }

    /// The version that the reference stands for now; none for a folder.
    fn version(&self) -> Result<Option<Digest>> {
        shelf(&self.project).version(&self.reference)
    }

    /// Goes over to the version that the reference stands for, as often as `asked` or, with `follow`, as it changes.
    /// What fails is said; the model that answers goes on.
    fn reload(&self, mut served: Option<Digest>, serving: &Serving, asked: &Receiver<()>, follow: bool) {
        let mut tried = served;
        loop {
            let interval = if follow { FOLLOW_INTERVAL } else { Duration::MAX };
            let by_hand = match asked.recv_timeout(interval) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let version = match self.version() {
                Ok(version) => version,
                // A name may be away for a moment while a run renews it.
                Err(_) if !by_hand => continue,
                Err(error) => {
                    noteln!("warning: the model stays as it is: {error}");
                    continue;
                }
            };
            if version.is_some() && version == served && by_hand {
                noteln!("{} has no other version: nothing changes", self.reference);
                continue;
            }
            // A version that could not be loaded is tried again by hand only.
            if version == tried && !by_hand {
                continue;
            }
            tried = version;
            let begun = Instant::now();
            match self.ready() {
                Ok((model, Facts { license, .. })) => {
                    let digest = version.map_or("its folder".into(), |version| version.short());
                    let id = model.id.clone();
                    let warnings = self.adapters.warnings(&model);
                    serving.exchange(model);
                    served = version;
                    let seconds = begun.elapsed().as_secs_f64();
                    noteln!("new requests go to {id} from {digest} ({license}), ready after {seconds:.2} s");
                    warn(&warnings);
                }
                Err(error) => noteln!("warning: the model stays as it is: {error}"),
            }
        }
    }
}

fn listen(source: Source, modules: &[(String, String)], follow: bool, options: &ServeOptions) -> Result<()> {
    let begun = Instant::now();
    // The port first: it is quick to find out that it is taken.
    let bound = bind(options)?;
    let current = source.version()?;
    if follow && current.is_none() {
        return Err(Error::usage(format!("`--follow` cannot watch the folder {}", source.reference))
            .help("name a model of a ledger, or send the server SIGHUP after the folder has changed"));
    }
    // What may not be served is better said before a large model is loaded.
    let opened = modules.iter().map(|(name, place)| source.adapters.open(name, Path::new(place)));
    let opened: Vec<_> = opened.collect::<Result<_, _>>().map_err(Error::from)?;
    let (served, Facts { license, dtype, about, cut }) = source.ready()?;
    noteln!("serving {} ({license}) in {dtype}, ready after {:.2} s", served.id, begun.elapsed().as_secs_f64());
    for ((name, _), adapter) in modules.iter().zip(opened) {
        if *name == served.id {
            return Err(Error::usage(format!("the adapter `{name}` has the name of the model"))
                .help("give one of them another name: `--lora-modules NAME=PATH`, `--served-model-name NAME`"));
        }
        noteln!("  adapter {name} ({}) from {}", adapters::license_of(adapter.as_ref()), adapter.place().display());
        warn(&source.adapters.add(name, adapter, &served)?);
    }
    noteln!("  {about}");
    if let Some(tokens) = cut {
        noteln!("  the model could hold {tokens} a sequence: raise `--kv-cache-memory-bytes`");
    }
    let address = format!("{}://{}", if options.tls.is_some() { "https" } else { "http" }, bound.address());
    noteln!("  chat page   {address}/");
    noteln!("  OpenAI API  {address}/v1");
    noteln!("  Ctrl-C ends");
    let serving = Arc::new(Serving::new(served));
    let asked = signals::hangups()?;
    let (exchanged, adapters) = (serving.clone(), source.adapters.clone());
    std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || source.reload(current, &exchanged, &asked, follow))
        .map_err(|error| Error::internal("cannot start a thread").cause(error))?;
    let served = serve(bound, serving, options, stop_signal());
    // The thread that reloads holds them to the end: what was made for reading them would stay behind.
    adapters.clear();
    served
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| noteln!("warning: {warning}"));
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
