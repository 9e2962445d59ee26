//! `narthex serve` and `narthex batch`: a model behind the API.

use crate::{
    commands::{
        adapters::{self, AdapterFlags},
        engine::EngineLimits,
        openness::explain,
        print_json, shelf, shelf_of,
    },
    flags::ModelRef,
    render::Renderer,
    signals,
    style::{Style, bytes},
};
use clap::Args;
use narthex_base::{Digest, Error, Observer, Result};
use narthex_http::{ApiKey, HttpOptions, TlsFiles, bind};
use narthex_infer::EncoderTask;
use narthex_model::Precision;
use narthex_serve::{
    Ability, Adapters, BatchSummary, FilesOptions, LabelAbility, ServeOptions, Served, Serving, Sizes, TextAbility,
    run_batch, serve,
};
use narthex_shelf::{Follow, FollowMove, Ready, ReadyEncoder, ReadyOptions, ReadyText, Shelf, Shown};
use narthex_text::calls;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The arguments of `narthex serve`.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    pub model: ModelRef,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "HTTP")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8000, help_heading = "HTTP")]
    pub port: u16,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY", help_heading = "HTTP")]
    pub api_key: Vec<String>,
    /// The name clients ask for; the reference by default
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Ask clients for one of the keys in this file, one a line; `sha256:` begins a key's digest, `#` a comment
    #[arg(long, value_name = "FILE", help_heading = "HTTP")]
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
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile", help_heading = "HTTP")]
    pub ssl_certfile: Option<PathBuf>,
    /// The certificate's private key as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_certfile", help_heading = "HTTP")]
    pub ssl_keyfile: Option<PathBuf>,
    /// Add a line of JSON for each request to this file, without its content; `-` is standard error
    #[arg(long, value_name = "FILE", help_heading = "Observation")]
    pub access_log: Option<PathBuf>,
    /// Send an OpenTelemetry span for each generation, without its content, to this collector by OTLP over HTTP
    #[arg(long, value_name = "URL", help_heading = "Observation")]
    pub otlp_traces_endpoint: Option<String>,
    /// Seconds that answers under way get after the signal to stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS", help_heading = "HTTP")]
    pub shutdown_timeout: u64,
    /// A further host name under which the server may be addressed, as by a reverse proxy
    #[arg(long, value_name = "NAME", help_heading = "HTTP")]
    pub allowed_host: Vec<String>,
    /// Another site whose pages may use the server, as `https://chat.example`; `*` is any
    #[arg(long, value_name = "ORIGIN", help_heading = "HTTP")]
    pub allowed_origin: Vec<String>,
    /// Refuse fields of requests that nobody knows, rather than name them in the header `x-narthex-ignored`
    #[arg(long, help_heading = "HTTP")]
    pub strict_fields: bool,
    /// Keep files and batches of OpenAI's API in this folder, and go on with them after a restart
    #[arg(long, value_name = "DIR", help_heading = "HTTP")]
    pub files_dir: Option<PathBuf>,
    /// How the model writes calls of tools; its chat template tells by default
    #[arg(long, value_name = "NAME", value_parser = tool_call_parser, help_heading = "Engine")]
    pub tool_call_parser: Option<String>,
}

/// A way of writing calls of tools that there is.
fn tool_call_parser(name: &str) -> Result<String, String> {
    match calls::by_name(name) {
        Some(syntax) => Ok(syntax.name().into()),
        None => Err(format!("there are: {}", calls::names().collect::<Vec<_>>().join(", "))),
    }
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

/// How often `--follow` looks whether there is a new version.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// `narthex serve`
pub fn run(args: &Serve) -> Result<()> {
    let tls = args.ssl_certfile.clone().zip(args.ssl_keyfile.clone());
    let mut http = HttpOptions {
        host: args.host.clone(),
        port: args.port,
        api_keys: args.api_key.iter().cloned().map(ApiKey::Plain).collect(),
        allowed_hosts: args.allowed_host.clone(),
        allowed_origins: args.allowed_origin.clone(),
        strict_fields: args.strict_fields,
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        access_log: args.access_log.clone(),
        otlp_traces_endpoint: args.otlp_traces_endpoint.clone(),
        ..HttpOptions::default()
    };
    http.limits.shutdown_s = args.shutdown_timeout;
    if args.api_key.iter().any(|key| key.trim().is_empty()) {
        return Err(
            Error::usage("the API key is empty").help("give a key, or leave `--api-key` and NARTHEX_API_KEY out")
        );
    }
    if let Some(path) = &args.api_key_file {
        http.api_keys.extend(read_keys(path)?);
    }
    let is_local =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if http.api_keys.is_empty() && !is_local(&http.host) {
        noteln!("warning: whoever reaches {}:{} may use this server: `--api-key` asks for a key", http.host, http.port);
    }
    let tool_call_parser = args.tool_call_parser.clone();
    let files = args.files_dir.clone().map(FilesOptions::new);
    let options = ServeOptions { http, tool_call_parser, files, ..ServeOptions::default() };
    let source = Source::new(&args.model, args.served_model_name.clone(), &args.engine)?;
    let source = Source { adapters: Arc::new(adapters::adapters(&args.adapters, &source.shelf)?), ..source };
    if args.explain {
        let mut findings = source.shelf.findings_of_serving(&source.reference, &source.options)?;
        findings.extend(adapters::judge(&args.adapters, &source.shelf)?);
        explain(&findings);
    }
    listen(source, &args.adapters.lora_modules, args.follow, &options)
}

/// Serves a model with the default options, as `run --serve` does.
#[cfg(feature = "run")]
pub fn serve_reference(project: &Path, reference: &str, port: u16) -> Result<()> {
    let source = Source {
        shelf: shelf(project),
        reference: reference.into(),
        name: None,
        options: ReadyOptions::default(),
        adapters: Arc::default(),
    };
    let http = HttpOptions { port, ..HttpOptions::default() };
    listen(source, &[], false, &ServeOptions { http, ..ServeOptions::default() })
}

/// `narthex batch`
pub fn batch(args: &Batch, style: Style) -> Result<()> {
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, false);
    let emit = |event| renderer.event(event);
    let source = Source::new(&args.model, args.served_model_name.clone(), &args.engine)?;
    let at_once = source.options.engine.sequences_max;
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
struct Facts {
    license: String,
    dtype: &'static str,
    /// What it can take.
    about: String,
    /// Tokens of the model's own context, if the cache is too small for it.
    cut: Option<usize>,
    /// The digest that was opened; none for a folder.
    version: Option<Digest>,
}

impl Facts {
    fn new(shown: &Shown, precision: Precision, about: String) -> Self {
        Self {
            license: shown.license.as_ref().map_or("licence undeclared".into(), |license| license.to_string()),
            dtype: if precision == Precision::Bf16 { "bfloat16" } else { "float32" },
            about,
            cut: None,
            version: None,
        }
    }
}

/// When something was made, in seconds since 1970; where that is not known, now.
fn made(created: u64) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if created == 0 { now() } else { created }
}

/// Sizes as Ollama's clients are shown them.
fn sizes(parameters: usize, width: usize, precision: Precision) -> Sizes {
    let (name, bytes) = if precision == Precision::Bf16 { ("BF16", 2) } else { ("F32", 4) };
    let parameters = parameters as u64;
    Sizes { parameters, bytes: parameters * bytes, width, precision: name.into() }
}

/// Where a model comes from and how it is to run.
struct Source {
    shelf: Shelf,
    reference: String,
    /// What it is called; its own name otherwise.
    name: Option<String>,
    options: ReadyOptions,
    adapters: Arc<Adapters>,
}

impl Source {
    fn new(model: &ModelRef, name: Option<String>, limits: &EngineLimits) -> Result<Self> {
        let speculative = limits.speculative_config.clone();
        let options = ReadyOptions { precision: model.dtype.precision(), engine: limits.options()?, speculative };
        let (shelf, reference) = (shelf_of(model), model.reference.clone());
        Ok(Self { shelf, reference, name, options, adapters: Arc::default() })
    }

    /// Loads the model and starts its engine, if the policy lets it.
    fn ready(&self) -> Result<(Served, Facts)> {
        match self.shelf.ready(&self.reference, &self.options)? {
            Ready::Text(model) => self.text(*model),
            Ready::Encoder(encoder) => self.encoder(*encoder),
        }
    }

    fn text(&self, model: ReadyText) -> Result<(Served, Facts)> {
        model.notes.iter().for_each(|note| noteln!("warning: {note}"));
        let (context, tokens) = (model.engine.context(), model.engine.kv_cache_tokens());
        let about = format!(
            "keys and values take up to {} for {tokens} tokens, {context} a sequence",
            bytes(model.engine.kv_cache_bytes() as u64)
        );
        let cut = (context < model.context_max).then_some(model.context_max);
        let facts = Facts { cut, version: model.version, ..Facts::new(&model.shown, model.precision, about) };
        let id = self.name.clone().unwrap_or(model.name);
        let config = model.engine.config();
        let sizes = sizes(config.parameters(), config.hidden_size, model.precision);
        let ability = Ability::Text(TextAbility { model: model.model, adapters: self.adapters.clone() });
        let served = Served { id, created: made(model.created), sizes, provenance: model.shown, ability };
        Ok((served, facts))
    }

    fn encoder(&self, encoder: ReadyEncoder) -> Result<(Served, Facts)> {
        encoder.notes.iter().for_each(|note| noteln!("warning: {note}"));
        let ReadyEncoder { name, version, created, shown, precision, encoder, labels, chances, .. } = encoder;
        let (context, values) = (encoder.engine.context(), encoder.engine.dimension());
        let (ability, about) = match encoder.engine.task() {
            EncoderTask::Embedding => (
                Ability::Vectors(encoder),
                format!("gives vectors of {values} values for texts of up to {context} tokens"),
            ),
            EncoderTask::Score if values == 1 => {
                (Ability::Scores(encoder), format!("scores pairs of texts of up to {context} tokens"))
            }
            EncoderTask::Score => (
                Ability::Labels(LabelAbility { encoder, names: labels, chances }),
                format!("sorts texts of up to {context} tokens into {values} classes"),
            ),
        };
        let facts = Facts { version, ..Facts::new(&shown, precision, about) };
        let (id, sizes) = (self.name.clone().unwrap_or(name), sizes(0, values, precision));
        let created = made(created);
        let served = Served { id, created, sizes, provenance: shown, ability };
        Ok((served, facts))
    }

    /// Goes over to the version that the reference stands for, as often as `asked` or, with `follow`, as it changes.
    /// What fails is said; the model that answers goes on.
    fn reload(&self, served: Option<Digest>, serving: &Serving, asked: &Receiver<()>, follow: bool) {
        let mut state = Follow::new(served);
        loop {
            let interval = if follow { FOLLOW_INTERVAL } else { Duration::MAX };
            let by_hand = match asked.recv_timeout(interval) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match state.next(self.shelf.version(&self.reference), by_hand) {
                FollowMove::Stay => continue,
                FollowMove::SayUnknown(error) => {
                    noteln!("warning: the model stays as it is: {error}");
                    continue;
                }
                FollowMove::SayUnchanged => {
                    noteln!("{} has no other version: nothing changes", self.reference);
                    continue;
                }
                FollowMove::Load => {}
            }
            let begun = Instant::now();
            match self.ready() {
                // The name may have gone on since it was looked up.
                Ok((model, Facts { license, version, .. })) => {
                    let digest = version.map_or("its folder".into(), |version| version.short());
                    let id = model.id.clone();
                    let warnings = self.adapters.warnings(&model);
                    serving.replace(model);
                    state.loaded(version);
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
    let bound = bind(&options.http)?;
    if follow && source.shelf.version(&source.reference)?.is_none() {
        return Err(Error::usage(format!("`--follow` cannot watch the folder {}", source.reference))
            .help("name a model of a ledger, or send the server SIGHUP after the folder has changed"));
    }
    // What may not be served is better said before a large model is loaded.
    let opened = modules.iter().map(|(name, place)| source.adapters.open(name, Path::new(place)));
    let opened: Vec<_> = opened.collect::<Result<_, _>>().map_err(Error::from)?;
    let (served, Facts { license, dtype, about, cut, version }) = source.ready()?;
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
    let address = format!("{}://{}", if options.http.tls.is_some() { "https" } else { "http" }, bound.address());
    noteln!("  chat page   {address}/");
    noteln!("  OpenAI API  {address}/v1");
    noteln!("  Ctrl-C ends");
    let serving = Arc::new(Serving::new(served));
    let asked = signals::hangups()?;
    let (replaced, adapters) = (serving.clone(), source.adapters.clone());
    std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || source.reload(version, &replaced, &asked, follow))
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
