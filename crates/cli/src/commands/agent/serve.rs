//! `narthex agent serve`: the agents of a project behind a port. Knows routers and who is let in; no run.

use super::{
    project::Project,
    telemetry::{Exporter, Still},
};
use crate::{
    commands::serve::{api_keys, warn_if_open},
    flags::HttpFlags,
    output::plain,
    service,
};
use clap::Args;
use narthex_a2a::{A2aOptions, Store as A2aStore};
use narthex_agent::Agents;
use narthex_agent_api::ApiOptions;
use narthex_base::{Error, Result};
use narthex_http::{HttpOptions, bind, entropy};
use narthex_mcp::{Offer, ServerOptions};
use std::sync::Arc;

/// The arguments of `narthex agent serve`.
#[derive(Args)]
pub(super) struct ServeArguments {
    /// These agents; all by default
    agents: Vec<String>,
    #[command(flatten)]
    project: super::ProjectFlag,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8010, help_heading = "HTTP")]
    port: u16,
    #[command(flatten)]
    http: HttpFlags,
    /// Send spans of runs to this collector of OpenTelemetry, as `http://127.0.0.1:4318`
    #[arg(long, value_name = "URL", help_heading = "Telemetry")]
    otlp_endpoint: Option<String>,
    /// Send with them what people, models and tools said
    #[arg(long, requires = "otlp_endpoint", help_heading = "Telemetry")]
    with_content: bool,
}

/// What flags say of a server over HTTP.
///
/// # Errors
/// If a key cannot be read.
pub(in crate::commands) fn http_options(flags: &HttpFlags, port: u16) -> Result<HttpOptions> {
    Ok(HttpOptions {
        host: flags.host.clone(),
        port,
        api_keys: api_keys(&flags.api_key, flags.api_key_file.as_deref())?,
        allowed_hosts: flags.allowed_host.clone(),
        allowed_origins: flags.allowed_origin.clone(),
        ..HttpOptions::default()
    })
}

/// What an agent's card is asked for at: who it is and how it is reached is nobody's secret.
const OPEN: &str = "/.well-known/";

fn needs_key(path: &str) -> bool {
    !path.starts_with(OPEN) && narthex_agent_api::needs_key(path)
}

/// `narthex agent serve`
pub(super) async fn serve(args: ServeArguments) -> Result<()> {
    let http = http_options(&args.http, args.port)?;
    warn_if_open(&http);
    let bound = bind(&http)?;
    let address = format!("http://{}", bound.address());
    let project = Project::read(&args.project.project)?;
    let names: Vec<&str> = args.agents.iter().map(String::as_str).collect();
    let exporter = args.otlp_endpoint.as_ref().map(|url| Exporter::new(url, args.with_content)).transpose()?;
    let (exporter, still) =
        exporter.map_or((None, Arc::new(|_: &str, _: &str| {}) as Still), |(exporter, still)| (Some(exporter), still));
    let ready = project.ready_and_told(&names, still).await?;
    if let Some(exporter) = exporter {
        tokio::spawn(exporter.keep_sending(Arc::downgrade(&ready.runner)));
    }
    let agents: Arc<dyn Agents> = ready.runner.clone();
    let taken_up = ready.go_on().await?;
    let routes = narthex_agent_api::router(agents.clone(), ApiOptions::default())
        .merge(narthex_mcp::router(offer(agents.clone()), mcp_options(&http)))
        .merge(narthex_a2a::router(agents.clone(), a2a_options(&project, &address, !http.api_keys.is_empty()).await?));
    for view in agents.list() {
        noteln!("agent {}: {}", view.name, view.description);
    }
    if taken_up > 0 {
        noteln!("  {taken_up} runs go on");
    }
    noteln!("  page            {address}/");
    noteln!("  OpenAI API      {address}/v1");
    noteln!("  Agent Protocol  {address}");
    noteln!("  MCP             {address}/mcp");
    noteln!("  A2A             {address}/.well-known/agent-card.json");
    noteln!("  Ctrl-C ends");
    service::ready();
    let served =
        tokio::task::spawn_blocking(move || narthex_http::serve(bound, routes, &http, needs_key, service::stop()));
    served.await.map_err(|error| Error::internal("the server broke").cause(error))?
}

/// What MCP's clients are offered: the agents, each as a tool.
fn offer(agents: Arc<dyn Agents>) -> Offer {
    Offer {
        name: "narthex".into(),
        title: Some("Agents of a Narthex project".into()),
        version: env!("CARGO_PKG_VERSION").into(),
        agents: Some(agents),
        ..Offer::default()
    }
}

/// How MCP is spoken beside or behind such a server.
pub(in crate::commands) fn mcp_options(http: &HttpOptions) -> ServerOptions {
    let mut secret = [0; 32];
    for part in secret.chunks_mut(8) {
        part.copy_from_slice(&entropy().to_le_bytes());
    }
    // Who may ask at all is decided before its routes are reached.
    let (allowed_hosts, allowed_origins) = (http.allowed_hosts.clone(), http.allowed_origins.clone());
    ServerOptions { allowed_hosts, allowed_origins, ..ServerOptions::new(secret) }
}

async fn a2a_options(project: &Project, address: &str, bearer: bool) -> Result<A2aOptions> {
    let store = A2aStore::open(&project.state("a2a.db")?).await?;
    let warn: narthex_a2a::Warn = Arc::new(|what| noteln!("warning: {}", plain(what)));
    Ok(A2aOptions { bearer, warn, ..A2aOptions::new(address, store) })
}
