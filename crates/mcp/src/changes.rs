//! That something changed: told by whoever changes it, heard by the servers, which tell their clients. Knows no client.

use tokio::sync::broadcast;

/// Changes that a listener may lag behind; who lags further is told of every kind once.
const LAG_MAX: usize = 256;

/// Where changes are told. Clones are the same.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Change>);

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list of tools or agents.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The list of resources.
    Resources,
    /// What is at an address.
    Resource(String),
}

impl Changes {
    /// Tells it to all who listen now.
    pub fn tell(&self, change: Change) {
        // Nobody listening is no error.
        let _ = self.0.send(change);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::channel(LAG_MAX).0)
    }
}

/// The next changes: one, or one of each kind of list if the listener lagged. Nothing once nobody can tell any more.
pub(crate) async fn next(listener: &mut broadcast::Receiver<Change>) -> Option<Vec<Change>> {
    match listener.recv().await {
        Ok(change) => Some(vec![change]),
        Err(broadcast::error::RecvError::Lagged(_)) => Some(vec![Change::Tools, Change::Prompts, Change::Resources]),
        Err(broadcast::error::RecvError::Closed) => None,
    }
}
