//! `narthex serve` and `narthex batch`: models behind the API.

use crate::{
    commands::{
        adapters::{self, AdapterFlags},
        engine::{EngineLimits, memory_bytes, tool_call_parser},
        models_file,
        openness::explain,
        print_json,
        registry::RegistryFlags,
        shelf_in,
        source::{Source, reload},
    },
    flags::{ModelRef, Opening},
    render::Renderer,
    service, signals,
    style::Style,
};
use clap::Args;
use narthex_base::{Error, Observer, Result};
use narthex_http::{ApiKey, HttpOptions, TlsFiles, bind};
use narthex_serve::{BatchSummary, FilesOptions, Models, ServeOptions, run_batch, serve};
use narthex_shelf::ReadyOptions;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The arguments of `narthex serve`.
#[derive(Args)]
pub struct Serve {
    /// Models: each a step's name, `name@digest-prefix`, a digest, a model folder, as `./DIR`, a GGUF file, or one in a
    /// registry, as `oci://HOST/REPOSITORY:TAG`; `NAME=REF` gives one another name
    #[arg(value_name = "REF", required_unless_present = "models")]
    pub references: Vec<String>,
    #[command(flatten)]
    pub opening: Opening,
    /// Serve the models of this file too: `[models.NAME]` with `model = "REF"`, and limits and adapters of its own
    #[arg(long, value_name = "FILE")]
    pub models: Option<PathBuf>,
    /// The bytes that loaded models may take together, keys and values included: those that were asked for longest ago
    /// make room. A number, or one with K, M or G
    #[arg(long, value_name = "BYTES", value_parser = memory_bytes)]
    pub models_memory_bytes: Option<usize>,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "HTTP")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8000, help_heading = "HTTP")]
    pub port: u16,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY", help_heading = "HTTP")]
    pub api_key: Vec<String>,
    /// The name clients ask for, of one model; the reference by default
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
    /// Seconds after SIGTERM in which requests are still taken while `/ready` says 503, so that whoever sends them here
    /// finds out; a second signal ends it, and Ctrl-C does not begin it
    #[arg(long, default_value_t = 5, value_name = "SECONDS", help_heading = "HTTP")]
    pub drain_time: u64,
    /// Seconds that answers under way get after that
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
    /// Keep files, batches and responses of OpenAI's API in this folder, and go on with them after a restart
    #[arg(long, value_name = "DIR", help_heading = "HTTP")]
    pub files_dir: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryFlags,
    /// How the model writes calls of tools; its chat template tells by default
    #[arg(long, value_name = "NAME", value_parser = tool_call_parser, help_heading = "Engine")]
    pub tool_call_parser: Option<String>,
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

/// `narthex serve`
pub fn run(args: &Serve) -> Result<()> {
    let tls = args.ssl_certfile.clone().zip(args.ssl_keyfile.clone());
    let mut http = HttpOptions {
        host: args.host.clone(),
        port: args.port,
        api_keys: api_keys(&args.api_key, args.api_key_file.as_deref())?,
        allowed_hosts: args.allowed_host.clone(),
        allowed_origins: args.allowed_origin.clone(),
        strict_fields: args.strict_fields,
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        access_log: args.access_log.clone(),
        otlp_traces_endpoint: args.otlp_traces_endpoint.clone(),
        ..HttpOptions::default()
    };
    http.limits.shutdown_s = args.shutdown_timeout;
    warn_if_open(&http);
    let files = args.files_dir.clone().map(FilesOptions::new);
    let options = ServeOptions { http, files, ..ServeOptions::default() };
    let sources = sources(args)?;
    if args.explain {
        let mut findings = vec![];
        for source in &sources {
            let (reference, _) = source.here()?;
            findings.extend(source.shelf.findings_of_serving(&reference, &source.options)?);
            findings.extend(adapters::judge(&source.modules, &source.shelf)?);
        }
        explain(&findings);
    }
    let drain = Duration::from_secs(args.drain_time);
    listen(sources, args.models_memory_bytes.map(|bytes| bytes as u64), (args.follow, drain), &options)
}

/// The models that are asked for: as references, in a file, or both.
fn sources(args: &Serve) -> Result<Vec<Arc<Source>>> {
    let shelf = shelf_in(&args.opening);
    let entries = args.models.as_deref().map(models_file::read).transpose()?.unwrap_or_default();
    let count = args.references.len() + entries.len();
    if count > 1 && args.served_model_name.is_some() {
        return Err(Error::usage("`--served-model-name` names one model, and there are several")
            .help("write `NAME=REF` for each, or `[models.NAME]` in the file of `--models`"));
    }
    if count > 1 && !args.adapters.lora_modules.is_empty() {
        return Err(Error::usage("`--lora-modules` does not say over which of the models")
            .help("write them below `[models.NAME.adapters]` in the file of `--models`"));
    }
    let mut engine = args.engine.options()?;
    if args.engine.kv_cache_memory_bytes.is_none() {
        engine.kv_cache_bytes /= count.max(1);
    }
    let options = ReadyOptions {
        precision: args.opening.dtype.precision(),
        engine,
        speculative: args.engine.speculative_config.clone(),
    };
    let adapters = || adapters::adapters(&args.adapters, &shelf).map(Arc::new);
    let mut sources = vec![];
    for reference in &args.references {
        let (name, reference) = match reference.split_once('=') {
            Some((name, reference)) if !name.is_empty() && !name.contains('/') => (Some(name.to_string()), reference),
            _ => (args.served_model_name.clone(), reference.as_str()),
        };
        let modules = args.adapters.lora_modules.iter().map(|(name, place)| (name.clone(), place.into())).collect();
        let mut source = Source::new(shelf.clone(), reference.into(), options.clone());
        (source.name, source.call_parser) = (name, args.tool_call_parser.clone());
        (source.adapters, source.modules) = (adapters()?, modules);
        source.registry = args.registry.clone();
        sources.push(Arc::new(source));
    }
    for (name, entry) in entries {
        let options = entry.options(&options).map_err(|error| error.at(format!("[models.{name}]"), None))?;
        let call_parser = entry.call_parser()?.or_else(|| args.tool_call_parser.clone());
        let mut source = Source::new(shelf.clone(), entry.model, options);
        (source.name, source.call_parser) = (Some(name), call_parser);
        (source.adapters, source.modules) = (adapters()?, entry.adapters.into_iter().collect());
        source.registry = args.registry.clone();
        sources.push(Arc::new(source));
    }
    Ok(sources)
}

/// Serves a model with the default options, as `run --serve` does.
#[cfg(feature = "run")]
pub fn serve_reference(project: &Path, reference: &str, port: u16) -> Result<()> {
    let source = Source::new(super::shelf(project), reference.into(), ReadyOptions::default());
    let http = HttpOptions { port, ..HttpOptions::default() };
    listen(vec![Arc::new(source)], None, (false, Duration::ZERO), &ServeOptions { http, ..ServeOptions::default() })
}

/// `narthex batch`
pub fn batch(args: &Batch, style: Style) -> Result<()> {
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, false);
    let emit = |event| renderer.event(event);
    let options = ReadyOptions {
        precision: args.model.opening.dtype.precision(),
        engine: args.engine.options()?,
        speculative: args.engine.speculative_config.clone(),
    };
    let at_once = options.engine.sequences_max;
    let mut source = Source::new(shelf_in(&args.model.opening), args.model.reference.clone(), options);
    source.name = args.served_model_name.clone();
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

/// The keys of flags and of a file.
pub(super) fn api_keys(keys: &[String], file: Option<&Path>) -> Result<Vec<ApiKey>> {
    if keys.iter().any(|key| key.trim().is_empty()) {
        return Err(
            Error::usage("the API key is empty").help("give a key, or leave `--api-key` and NARTHEX_API_KEY out")
        );
    }
    let mut all: Vec<ApiKey> = keys.iter().map(|key| ApiKey::new(key)).collect();
    if let Some(path) = file {
        all.extend(read_keys(path)?);
    }
    Ok(all)
}

/// Says so where whoever reaches the server may use it.
pub(super) fn warn_if_open(http: &HttpOptions) {
    let is_local =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if http.api_keys.is_empty() && !is_local(&http.host) {
        noteln!("warning: whoever reaches {}:{} may use this server: `--api-key` asks for a key", http.host, http.port);
    }
}

/// Keys or their digests, one a line, and perhaps whose they are; empty lines and those that begin with `#` do not count.
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

/// Loads the models, each in its turn, and answers until a signal ends it.
fn listen(
    sources: Vec<Arc<Source>>,
    memory_bytes_max: Option<u64>,
    (follow, drain): (bool, Duration),
    options: &ServeOptions,
) -> Result<()> {
    // The port first: it is quick to find out that it is taken.
    let bound = bind(&options.http)?;
    for source in &sources {
        if follow && source.latest()?.is_none() {
            return Err(Error::usage(format!("`--follow` cannot watch the folder {}", source.reference)).help(
                "name a model of a ledger or a registry, or send the server SIGHUP after the folder has changed",
            ));
        }
    }
    let mut models = Models::within(memory_bytes_max);
    for source in &sources {
        models.add(source.start()?)?;
    }
    let address = format!("{}://{}", if options.http.tls.is_some() { "https" } else { "http" }, bound.address());
    noteln!("  chat page   {address}/");
    noteln!("  OpenAI API  {address}/v1");
    noteln!("  Ctrl-C ends");
    let asked = signals::hangups()?;
    let followed: Vec<_> = sources.iter().cloned().zip(models.all().iter().cloned()).collect();
    std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || reload(&followed, &asked, follow))
        .map_err(|error| Error::internal("cannot start a thread").cause(error))?;
    let stop = service::stop_drained(bound.stopping(), drain);
    service::ready();
    let served = serve(bound, models, options, stop);
    // The thread that reloads holds them to the end: what was made for reading them would stay behind.
    sources.iter().for_each(|source| source.adapters.clear());
    served
}
