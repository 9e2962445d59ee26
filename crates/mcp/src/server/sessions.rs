//! Sessions of the revisions before 2026-07-28: no more than a number of them, and each only for whoever opened it.
//! Knows the user of a request through the task that serves it.

use futures::Stream;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::{
        SessionId, SessionManager,
        session::{
            ServerSseMessage,
            local::{LocalSessionManager, LocalSessionManagerError, SessionConfig},
        },
    },
};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

tokio::task_local! {
    /// The request that this task serves.
    static VISIT: Visit;
}

/// A request's user, and what became of it where the SDK has no words for it.
#[derive(Clone)]
pub(crate) struct Visit {
    /// Whose request it is.
    pub tenant: String,
    /// Set where a session was refused because there are too many.
    pub crowded: Arc<AtomicBool>,
}

impl Visit {
    pub fn new(tenant: String) -> Self {
        Self { tenant, crowded: Arc::default() }
    }

    /// Serves a request as this visit's.
    pub async fn serve<T>(self, serving: impl Future<Output = T>) -> T {
        VISIT.scope(self, serving).await
    }
}

/// The sessions that are open.
pub(crate) struct Sessions {
    local: LocalSessionManager,
    /// Whose each is. What closes without a word is taken out when room is needed.
    owners: Mutex<HashMap<SessionId, String>>,
    sessions_max: usize,
}

/// Why a session is not to be had.
#[derive(Debug)]
pub(crate) enum SessionError {
    Crowded(usize),
    Local(LocalSessionManagerError),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crowded(sessions_max) => write!(f, "{sessions_max} sessions are open, and no more are opened"),
            Self::Local(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<LocalSessionManagerError> for SessionError {
    fn from(error: LocalSessionManagerError) -> Self {
        Self::Local(error)
    }
}

impl Sessions {
    pub fn new(sessions_max: usize, idle_s: u64) -> Self {
        let mut local = LocalSessionManager::default();
        let mut config = SessionConfig::default();
        config.keep_alive = Some(Duration::from_secs(idle_s));
        local.session_config = config;
        Self { local, owners: Mutex::default(), sessions_max }
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session is whose request this is. A session of another does not exist for it.
    fn is_own(&self, id: &SessionId) -> bool {
        VISIT.try_with(|visit| self.owners().get(id).is_some_and(|owner| *owner == visit.tenant)).unwrap_or(false)
    }

    /// Forgets the owners of sessions that are closed.
    async fn sweep(&self) {
        let open: std::collections::HashSet<SessionId> = self.local.sessions.read().await.keys().cloned().collect();
        self.owners().retain(|id, _| open.contains(id));
    }
}

impl SessionManager for Sessions {
    type Error = SessionError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        if self.owners().len() >= self.sessions_max {
            self.sweep().await;
        }
        let visit = VISIT.try_with(Clone::clone).ok();
        if self.owners().len() >= self.sessions_max {
            if let Some(visit) = &visit {
                visit.crowded.store(true, Ordering::Relaxed);
            }
            return Err(SessionError::Crowded(self.sessions_max));
        }
        let (id, transport) = self.local.create_session().await?;
        if let Some(visit) = visit {
            self.owners().insert(id.clone(), visit.tenant);
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        Ok(self.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        Ok(self.is_own(id) && self.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        // The worker of a session closes it too, outside of any request.
        if VISIT.try_with(|_| ()).is_ok() && !self.is_own(id) {
            return Ok(());
        }
        self.owners().remove(id);
        Ok(self.local.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.local.create_stream(id, message).await?)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.local.resume(id, last_event_id).await?)
    }
}
