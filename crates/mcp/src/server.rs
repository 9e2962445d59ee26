//! An MCP server for an offer: over HTTP as routes, or over standard input and output. Both revisions are served at
//! one address; which one a client speaks, its messages tell.

mod access;
mod agent;
mod asking;
mod calls;
mod catalog;
mod gate;
mod handler;
mod seal;
mod sessions;
mod tasks;
mod watching;

use self::{catalog::Catalog, gate::Gate, handler::Handler, sessions::Sessions};
use crate::{limits::ServerLimits, offer::Offer};
use axum::{Router, middleware::from_fn};
use narthex_base::{Error, Result};
use rmcp::{
    ServiceExt,
    transport::{StreamableHttpServerConfig, StreamableHttpService, async_rw::AsyncRwTransport},
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use access::{Access, Audience, BadToken, Bearer, LOCAL_TENANT, StaticKeys, Tokens};
pub use catalog::Clock;

/// How a server is reached and what it allows.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where it lies: `/mcp`.
    pub path: String,
    /// Host names, without port, under which it answers; `*` is any. Only names of this machine where there are none.
    pub allowed_hosts: Vec<String>,
    /// Origins of other sites' pages that may ask (`https://chat.example`); `*` is any.
    pub allowed_origins: Vec<String>,
    /// Who may ask. Everyone who reaches it where this is nothing.
    pub access: Option<Access>,
    /// What state that clients carry is sealed with. All processes of one server need the same; one that is kept lets
    /// calls and tasks go on after a restart.
    pub secret: [u8; 32],
    /// What a client may make it do.
    pub limits: ServerLimits,
    /// What the time is.
    pub clock: Clock,
}

impl ServerOptions {
    /// On this machine only, for everyone on it.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            path: "/mcp".into(),
            allowed_hosts: vec![],
            allowed_origins: vec![],
            access: None,
            secret,
            limits: ServerLimits::default(),
            clock: Arc::new(now_ms),
        }
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 is as good as one at it.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The routes of a server over HTTP: its own path, and the metadata of a protected resource if it is one.
///
/// Of tools with one name, the first counts: tools, then dialogues, then agents.
pub fn router(offer: Offer, options: ServerOptions) -> Router {
    let limits = options.limits.clone();
    let catalog = Arc::new(Catalog::new(offer, options.limits, options.secret, options.clock));
    let mut config = StreamableHttpServerConfig::default();
    // The gate looks at both, before a token is asked for; here they would be looked at after it.
    config = config.disable_allowed_hosts().disable_allowed_origins();
    config = config.with_max_request_body_bytes(limits.body_bytes_max);
    let sessions = Arc::new(Sessions::new(limits.sessions_max, limits.session_idle_s));
    let service = StreamableHttpService::new(move || Ok(Handler::new(catalog.clone())), sessions, config);
    let has_access = options.access.is_some();
    let gate = Arc::new(Gate::new(&options.allowed_hosts, &options.allowed_origins, options.access));
    let mut router = Router::new().route_service(&options.path, service);
    if has_access {
        // Answered by the gate; the route makes it known.
        let metadata = || async { axum::http::StatusCode::NOT_FOUND };
        router = router.route(gate::METADATA_PATH, axum::routing::get(metadata));
        router = router.route(&format!("{}/{{*resource}}", gate::METADATA_PATH), axum::routing::get(metadata));
    }
    router.layer(from_fn(move |request, next| gate::check(gate.clone(), request, next)))
}

/// Serves one client on standard input and output, until it goes away. Nothing else may write to standard output.
///
/// # Errors
/// If the client does not speak the protocol.
pub async fn serve_stdio(offer: Offer, options: ServerOptions) -> Result<()> {
    serve_pipe(offer, options, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Serves one client on a pair of pipes, until it goes away.
///
/// # Errors
/// If the client does not speak the protocol.
pub async fn serve_pipe<R, W>(offer: Offer, options: ServerOptions, input: R, output: W) -> Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let line_bytes_max = options.limits.body_bytes_max;
    let catalog = Arc::new(Catalog::new(offer, options.limits, options.secret, options.clock));
    let transport = AsyncRwTransport::new_server(input, output).with_max_line_length(line_bytes_max);
    let failed = |error: String| Error::input("the client does not speak MCP").cause(error);
    let running = Handler::new(catalog).serve(transport).await.map_err(|error| failed(error.to_string()))?;
    running.waiting().await.map_err(|error| failed(error.to_string()))?;
    Ok(())
}
