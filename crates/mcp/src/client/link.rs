//! A connection to one server: agreed on, asked, and mended where logging in mends it. Every wait has an end. Knows
//! messages, not what they are for.

use super::dial::{Dial, Live, is_unreached, said_by};
use narthex_agent::Progress;
use narthex_base::Result;
use rmcp::{
    RoleClient, ServiceError,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, InputRequiredResult, InputResponses,
        ServerResult,
    },
    service::{Peer, PeerRequestOptions},
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::{RwLock, Semaphore};

/// Times that a person is asked to log in for one request.
const LOGINS_MAX: usize = 2;

/// A connection.
pub(super) struct Link {
    pub dial: Dial,
    live: RwLock<Arc<Live>>,
    calls: Semaphore,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server refused it: the code and what it says.
    Refused(i32, String),
    /// It took too long.
    Late(u64),
    /// An answer was longer than anybody reads.
    TooLong(usize),
    /// The server was never reached.
    Unreached(String),
    /// The connection is broken, or the server says something that means nothing.
    Broken(String),
    /// Nobody is logged in.
    Login(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(code, what) => write!(f, "{what} (error {code})"),
            Trouble::Late(seconds) => write!(f, "no answer came within {seconds} s"),
            Trouble::TooLong(bytes) => {
                write!(f, "the answer is longer than {bytes} bytes and was not read; ask for less at once")
            }
            Trouble::Unreached(what) | Trouble::Broken(what) | Trouble::Login(what) => f.write_str(what),
        }
    }
}

impl Link {
    /// Connects and agrees on a revision.
    pub async fn open(dial: Dial) -> Result<Self> {
        let live = RwLock::new(Arc::new(dial.connect().await?));
        Ok(Self { calls: Semaphore::new(dial.limits.calls_max.max(1)), dial, live })
    }

    /// The revision that is spoken.
    pub async fn revision(&self) -> Option<String> {
        let live = self.live.read().await.clone();
        live.service.peer().peer_info().map(|info| info.protocol_version.to_string())
    }

    /// What the server says of how to use it. A stranger's text.
    pub async fn instructions(&self) -> Option<String> {
        let live = self.live.read().await.clone();
        live.service.peer().peer_info().and_then(|info| info.instructions.clone())
    }

    /// Asks the server something that changes nothing, within so many seconds, logging in where that helps.
    pub async fn ask<T, F, Fut>(&self, seconds: u64, ask: F) -> std::result::Result<T, Trouble>
    where
        F: Fn(Peer<RoleClient>) -> Fut,
        Fut: Future<Output = std::result::Result<T, ServiceError>>,
    {
        self.mended(|live| {
            let asked = ask(live.service.peer().clone());
            async move { self.timed(seconds, asked).await }
        })
        .await
    }

    /// Calls a tool, answers what it asks meanwhile, and tells how far it is.
    pub async fn call(
        &self,
        params: CallToolRequestParams,
        progress: Progress,
    ) -> std::result::Result<CallToolResult, Trouble> {
        let closed = |_| Trouble::Broken("the connection is closed".into());
        let _permit = self.calls.acquire().await.map_err(closed)?;
        self.mended(|live| {
            let (params, progress) = (params.clone(), progress.clone());
            async move { self.timed(self.dial.limits.call_s, self.rounds(&live, params, progress)).await }
        })
        .await
    }

    /// Does something again after a login, where the server asks for one.
    async fn mended<T, F, Fut>(&self, work: F) -> std::result::Result<T, Trouble>
    where
        F: Fn(Arc<Live>) -> Fut,
        Fut: Future<Output = std::result::Result<T, Failed>>,
    {
        let mut logins = 0;
        loop {
            let live = self.live.read().await.clone();
            let failed = match work(live.clone()).await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let Failed { trouble, challenge } = failed;
            let Some(challenge) = challenge else { return Err(self.explained(trouble, &live)) };
            if logins >= LOGINS_MAX {
                let what = format!("the server wants another login after {logins}, and none of them was enough");
                return Err(Trouble::Login(what));
            }
            logins += 1;
            self.log_in(&challenge).await?;
        }
    }

    /// Adds what the program complained about, where a broken pipe says nothing.
    fn explained(&self, trouble: Trouble, live: &Live) -> Trouble {
        match (trouble, live.complaints.text()) {
            (Trouble::Broken(what), Some(said)) => Trouble::Broken(format!("{what}; it wrote: {said}")),
            (trouble, _) => trouble,
        }
    }

    async fn log_in(&self, challenge: &str) -> std::result::Result<(), Trouble> {
        let live = self.dial.log_in(challenge).await.map_err(|error| {
            let causes = error.causes().join(": ");
            Trouble::Login(if causes.is_empty() { error.what().into() } else { format!("{}: {causes}", error.what()) })
        })?;
        *self.live.write().await = Arc::new(live);
        Ok(())
    }

    /// Waits for something so long, or until a message is longer than anybody reads.
    async fn timed<T>(
        &self,
        seconds: u64,
        work: impl Future<Output = std::result::Result<T, ServiceError>>,
    ) -> std::result::Result<T, Failed> {
        let mut too_long = self.dial.too_long.subscribe();
        tokio::select! {
            biased;
            done = tokio::time::timeout(Duration::from_secs(seconds), work) => match done {
                // A stream that was cut off ends the request too, without a word of why.
                Ok(Err(_)) if too_long.has_changed().unwrap_or(false) => {
                    Err(Trouble::TooLong(self.dial.limits.message_bytes_max).into())
                }
                Ok(done) => done.map_err(|error| self.failed(error)),
                Err(_) => Err(Trouble::Late(seconds).into()),
            },
            // Which request it was for, nobody knows: it was in what was not read.
            Ok(()) = too_long.changed() => Err(Trouble::TooLong(self.dial.limits.message_bytes_max).into()),
        }
    }

    fn failed(&self, error: ServiceError) -> Failed {
        let challenge = error.auth_challenge().map(String::from);
        let trouble = match error {
            ServiceError::McpError(error) => Trouble::Refused(error.code.0, error.message.into_owned()),
            ServiceError::Timeout { timeout } => Trouble::Late(timeout.as_secs()),
            other if is_unreached(&other) => Trouble::Unreached(said_by(&other)),
            other => {
                let text = said_by(&other);
                match text.contains("maximum size") {
                    true => Trouble::TooLong(self.dial.limits.message_bytes_max),
                    false => Trouble::Broken(text),
                }
            }
        };
        Failed { trouble, challenge }
    }

    /// Calls until there is a result: in the newest revision a server asks by an answer, and is called again.
    async fn rounds(
        &self,
        live: &Live,
        mut params: CallToolRequestParams,
        progress: Progress,
    ) -> std::result::Result<CallToolResult, ServiceError> {
        let peer = live.service.peer();
        for _ in 0..=self.dial.limits.rounds_max {
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(params.clone()));
            let handle = peer.send_request_with_option(request, PeerRequestOptions::no_options()).await?;
            let _telling = self.dial.ears.tell(handle.progress_token.clone(), progress.clone());
            let mut guard = CancelOnDrop { peer: peer.clone(), id: Some(handle.id.clone()) };
            let answered = handle.await_response().await;
            guard.id = None;
            match answered? {
                ServerResult::CallToolResult(result) => return Ok(result),
                ServerResult::InputRequiredResult(required) => {
                    params.request_state = required.request_state.clone();
                    params.input_responses = self.answers(required).await;
                }
                ServerResult::EmptyResult(_) => return Ok(CallToolResult::success(vec![])),
                _ => return Err(ServiceError::UnexpectedResponse),
            }
        }
        Err(ServiceError::InputRequiredRoundsExceeded { max_rounds: self.dial.limits.rounds_max })
    }

    async fn answers(&self, required: InputRequiredResult) -> Option<InputResponses> {
        let requests = required.input_requests?;
        let mut answers = InputResponses::new();
        for (name, request) in &requests {
            if let Some(answer) = self.dial.ears.answer(request).await {
                answers.insert(name.clone(), answer);
            }
        }
        Some(answers)
    }
}

/// Trouble, and the challenge that a login would meet.
struct Failed {
    trouble: Trouble,
    challenge: Option<String>,
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, challenge: None }
    }
}

/// Tells the server that nobody waits for an answer any more.
struct CancelOnDrop {
    peer: Peer<RoleClient>,
    id: Option<rmcp::model::RequestId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let peer = self.peer.clone();
        let params = rmcp::model::CancelledNotificationParam::new(Some(id), Some("nobody waits for it".into()));
        runtime.spawn(async move { drop(peer.notify_cancelled(params).await) });
    }
}
