//! Connecting to a server: how it is reached, with what token, in which revision. Knows no request but the first.

use super::{
    child::{Child, Complaints, Running, start},
    ears::Ears,
    http::{self, Bounded},
    oauth::{kept, log_in},
    spec::{Credentials, Reach, Revision, ServerSpec},
};
use crate::limits::ClientLimits;
use narthex_base::{Error, Result};
use rmcp::{
    ClientCacheConfig, ClientLifecycleMode, ClientServiceExt, RoleClient,
    model::{ProtocolVersion, SubscriptionFilter},
    service::{ClientInitializeError, RunningService},
    transport::{
        Transport,
        async_rw::AsyncRwTransport,
        streamable_http_client::{
            StreamableHttpClient, StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
            StreamableHttpError,
        },
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// How one server is connected to.
pub(super) struct Dial {
    pub spec: ServerSpec,
    pub limits: ClientLimits,
    pub ears: Ears,
    /// How often a message was longer than anybody reads.
    pub too_long: watch::Sender<u64>,
    http: Option<Bounded>,
}

/// What a connection is made of. A lost login is mended by another one.
pub(super) struct Live {
    pub service: RunningService<RoleClient, Ears>,
    pub complaints: Complaints,
    listening: Option<JoinHandle<()>>,
    /// Let go after the service, which may still have a word for it.
    _child: Option<Running>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

/// Why a connection did not start.
struct Start {
    error: Error,
    /// What a login would meet.
    challenge: Option<String>,
    /// Whether another way to agree on a revision may do better.
    senseless: bool,
}

impl Dial {
    /// For a server, on the caller's client or on one of ours.
    ///
    /// # Errors
    /// If this machine has no certificates to trust.
    pub fn new(spec: ServerSpec, limits: ClientLimits, ears: Ears, client: Option<reqwest::Client>) -> Result<Self> {
        let too_long = watch::Sender::new(0);
        let http = match &spec.reach {
            Reach::Stdio { .. } => None,
            Reach::Http { .. } => {
                let client = client.map_or_else(http::client, Ok)?;
                let stream_bytes_max = limits.stream_bytes_max;
                Some(Bounded { client, stream_bytes_max, too_long: too_long.clone(), unreached: Arc::default() })
            }
        };
        Ok(Self { spec, limits, ears, too_long, http })
    }

    /// Connects as the server is reached, logging in once if it asks for that.
    ///
    /// # Errors
    /// If it cannot be reached, or does not speak the protocol.
    pub async fn connect(&self) -> Result<Live> {
        let (Reach::Http { url, credentials }, Some(http)) = (&self.spec.reach, &self.http) else {
            return self.over_stdio().await;
        };
        match credentials {
            Credentials::None => self.over_http(url, http.clone(), None).await.map_err(|start| start.error),
            Credentials::Bearer(token) => {
                self.over_http(url, http.clone(), Some(token)).await.map_err(|start| start.error)
            }
            Credentials::OAuth(oauth) => {
                if let Some(client) = kept(oauth, &self.spec.name, url, http).await {
                    match self.over_http(url, client, None).await {
                        Err(Start { challenge: Some(_), .. }) => {}
                        other => return other.map_err(|start| start.error),
                    }
                }
                // Where to log in, the server says when it refuses; one that refuses nothing needs no login yet.
                match self.over_http(url, http.clone(), None).await {
                    Err(Start { challenge: Some(challenge), .. }) => self.log_in(&challenge).await,
                    other => other.map_err(|start| start.error),
                }
            }
        }
    }

    /// Logs in as a server's challenge says how, and connects with what that brought.
    ///
    /// # Errors
    /// If nobody can log in here, or the token does not open the server either.
    pub async fn log_in(&self, challenge: &str) -> Result<Live> {
        let (Reach::Http { url, credentials: Credentials::OAuth(oauth) }, Some(http)) = (&self.spec.reach, &self.http)
        else {
            let what = format!("the MCP server `{}` does not take the token, or wants one", self.spec.name);
            return Err(Error::input(what).help("set its token in the configuration"));
        };
        let client = log_in(oauth, &self.spec.name, url, http, challenge).await?;
        self.over_http(url, client, None).await.map_err(|start| start.error)
    }

    /// Connects over HTTP, in one way after the other.
    async fn over_http(
        &self,
        url: &str,
        client: impl StreamableHttpClient + Sync,
        token: Option<&str>,
    ) -> std::result::Result<Live, Start> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .max_sse_event_size(self.limits.message_bytes_max)
            .max_json_response_size(self.limits.message_bytes_max)
            .max_concurrent_requests(self.limits.calls_max);
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let mut modes = modes(self.spec.revision).into_iter().peekable();
        while let Some(mode) = modes.next() {
            let transport = StreamableHttpClientTransport::with_client(client.clone(), config.clone());
            match self.agree(transport, mode).await {
                Err(Start { senseless: true, .. }) if modes.peek().is_some() => {}
                Err(start) => return Err(start),
                Ok(service) => return Ok(self.live(service, Complaints::default(), None).await),
            }
        }
        Err(Start { error: Error::internal("no way to agree on a revision"), challenge: None, senseless: false })
    }

    /// Starts the program and agrees with it, in one way after the other: each needs a program that has heard nothing.
    async fn over_stdio(&self) -> Result<Live> {
        let mut modes = modes(self.spec.revision).into_iter().peekable();
        while let Some(mode) = modes.next() {
            let child = start(&self.spec.reach, self.limits.message_bytes_max, self.too_long.clone())?;
            let transport = AsyncRwTransport::new_client(child.output, child.input)
                .with_max_line_length(self.limits.message_bytes_max);
            match self.agree(transport, mode).await {
                Err(Start { senseless: true, .. }) if modes.peek().is_some() => {}
                Err(start) => {
                    let said = Child::last_words(child.running, &child.complaints, child.reading).await;
                    return Err(match said {
                        Some(said) => start.error.cause(format!("it wrote: {said}")),
                        None => start.error,
                    });
                }
                Ok(service) => return Ok(self.live(service, child.complaints, Some(child.running)).await),
            }
        }
        Err(Error::internal("no way to agree on a revision"))
    }

    /// Agrees on a revision in one way, in the time that there is for it.
    async fn agree(
        &self,
        transport: impl Transport<RoleClient> + 'static,
        mode: ClientLifecycleMode,
    ) -> std::result::Result<RunningService<RoleClient, Ears>, Start> {
        let served = self.ears.clone().serve_with_lifecycle(transport, mode);
        match tokio::time::timeout(Duration::from_secs(self.limits.connect_s), served).await {
            Ok(Ok(service)) => Ok(service),
            Ok(Err(error)) => {
                let challenge = error.auth_challenge().map(String::from);
                let senseless = challenge.is_none() && self.is_senseless(&error);
                let why = match &error {
                    ClientInitializeError::TransportError { error, .. } => said_by(error.error.as_ref()),
                    error => said_by(error),
                };
                Err(Start { error: self.refused(&why, challenge.is_some()), challenge, senseless })
            }
            Err(_) => {
                let what =
                    format!("the MCP server `{}` did not answer within {} s", self.spec.name, self.limits.connect_s);
                let error = Error::input(what).help("check that it is up and speaks MCP");
                Err(Start { error, challenge: None, senseless: false })
            }
        }
    }

    /// Whether a server answered something that makes no sense in the way that was tried. A program that ends at a
    /// question which it does not know is one too.
    fn is_senseless(&self, error: &ClientInitializeError) -> bool {
        match error {
            ClientInitializeError::ExpectedInitResult(_) | ClientInitializeError::ExpectedInitResponse(_) => true,
            // An answer to the newest revision's question that came when the older one's was awaited already.
            ClientInitializeError::ConflictInitResponseId(..)
            | ClientInitializeError::UncorrelatedErrorResponse { .. } => true,
            ClientInitializeError::ConnectionClosed(_) => self.http.is_none(),
            _ => false,
        }
    }

    fn refused(&self, why: &str, wants_token: bool) -> Error {
        let (name, shown) = (&self.spec.name, self.spec.describe());
        let help = match wants_token {
            true => "it wants a token: set one for this server in the configuration",
            false => "check that it is up and speaks MCP",
        };
        Error::input(format!("cannot connect to the MCP server `{name}`, which {shown}")).cause(why).help(help)
    }

    async fn live(
        &self,
        service: RunningService<RoleClient, Ears>,
        complaints: Complaints,
        child: Option<Running>,
    ) -> Live {
        // The SDK keeps answers for as long as a server says, and shows old ones when it is down: a tool's description
        // must be what it is now, and 512 of the largest messages are more than anybody has room for.
        let mut cache = ClientCacheConfig::default();
        (cache.enabled, cache.serve_stale_on_error) = (false, false);
        service.peer().set_response_cache_config(cache).await;
        let listening = listen(&service, &self.ears);
        Live { service, complaints, listening, _child: child }
    }
}

/// How to agree on a revision, one way after the other.
fn modes(revision: Revision) -> Vec<ClientLifecycleMode> {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    match revision {
        Revision::Auto => {
            let legacy_version = Some(ProtocolVersion::V_2025_11_25);
            // There are older servers that answer the newest revision's first question with an empty result: the SDK
            // gives up on them, and a second try without the question does not.
            vec![ClientLifecycleMode::Auto { preferred_versions, legacy_version }, ClientLifecycleMode::Initialize]
        }
        Revision::Newest => vec![ClientLifecycleMode::Discover { preferred_versions }],
        Revision::Older => vec![ClientLifecycleMode::Initialize],
    }
}

/// Listens for changes of the tools, where a server of the newest revision tells them to listeners only.
fn listen(service: &RunningService<RoleClient, Ears>, ears: &Ears) -> Option<JoinHandle<()>> {
    let peer = service.peer().clone();
    let info = peer.peer_info()?;
    let is_newest = info.protocol_version.as_str() >= ProtocolVersion::V_2026_07_28.as_str();
    let tells = info.capabilities.tools.as_ref().is_some_and(|tools| tools.list_changed == Some(true));
    if !is_newest || !tells {
        return None;
    }
    let ears = ears.clone();
    Some(tokio::spawn(async move {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let Ok(mut subscription) = peer.listen(filter).await else { return };
        while let Ok(Some(_)) = subscription.next().await {
            ears.tools_changed();
        }
    }))
}

/// An error in few words: what lies deepest, which names the fault; what stands before it names types of the SDK.
pub(super) fn said_by(error: &(dyn std::error::Error + 'static)) -> String {
    match request_error(error) {
        Some(error) => deepest(error).to_string(),
        None => deepest(error).to_string(),
    }
}

/// Whether a request certainly never reached a server.
pub(super) fn is_unreached(error: &(dyn std::error::Error + 'static)) -> bool {
    request_error(error).is_some_and(reqwest::Error::is_connect)
}

/// What went wrong with a request: the SDK keeps it, and does not name it as the source of its own error.
fn request_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a reqwest::Error> {
    match deepest(error).downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(error)) => Some(error),
        _ => None,
    }
}

fn deepest<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest
}
