//! What all requests share: the replicas, what is known of prompts and names, the client, the figures.

use crate::{
    address::Address,
    affinity::{Affinity, Candidate},
    client::Connector,
    fleet::Fleet,
    kept::Name,
    options::RouteOptions,
    prefix,
    recent::Recent,
    replica::{Hold, Replica},
};
use axum::http::{HeaderValue, StatusCode};
use narthex_base::{Error, Result};
use narthex_http::{ApiError, Stopping};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Names of kept things that are remembered; others are looked for.
const NAMES_MAX: usize = 1 << 16;

/// Shared by all requests and by what checks the replicas.
pub(crate) struct Shared {
    pub fleet: Fleet,
    /// `Bearer KEY`, instead of what clients send.
    pub replica_key: Option<HeaderValue>,
    pub body_bytes_max: usize,
    pub upload_bytes_max: usize,
    pub stopping: Stopping,
    affinity: Mutex<Affinity>,
    /// The address of the replica that keeps what is named.
    names: Mutex<Recent<String, Address>>,
    /// Requests sent once more, before a byte of an answer had come.
    pub sent_again: AtomicU64,
    /// Requests for which there was no replica.
    pub refused: AtomicU64,
}

/// What a request asks of a replica.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    /// The hashes of its prompt.
    pub chain: Vec<u64>,
    /// The model that it names.
    pub model: Option<String>,
}

impl Shared {
    pub fn new(options: &RouteOptions, connector: Connector, stopping: Stopping) -> Result<Self> {
        let key = |key: &String| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Error::usage("the key of the replicas holds characters that no header takes"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self {
            fleet: Fleet::new(connector),
            replica_key: options.replica_key.as_ref().map(key).transpose()?,
            body_bytes_max: options.http.limits.body_bytes_max,
            upload_bytes_max: options.upload_bytes_max,
            stopping,
            affinity: Mutex::new(Affinity::new(options.blocks_max, options.margin)),
            names: Mutex::new(Recent::new(NAMES_MAX)),
            sent_again: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub fn affinity(&self) -> MutexGuard<'_, Affinity> {
        self.affinity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place on the replica that fits a request best, of those that are ready and were not tried.
    pub fn pick(&self, ask: &Ask, tried: &[Arc<Replica>]) -> Option<Hold> {
        let mut able = self.fleet.ready();
        able.retain(|replica| !tried.iter().any(|other| Arc::ptr_eq(other, replica)));
        if let Some(model) = &ask.model {
            let may_have = |replica: &Arc<Replica>| replica.models().is_none_or(|models| models.contains(model));
            // Where nobody names it, somebody says so to the client, or it has just come.
            if able.iter().any(may_have) {
                able.retain(may_have);
            }
        }
        // Under the lock until the place is taken, so that requests at the same moment see each other.
        let mut affinity = self.affinity();
        let candidate = |replica: &Arc<Replica>| Candidate {
            slot: replica.slot,
            name: replica.name,
            load: replica.load(),
            cache_use: replica.cache_use(),
        };
        let candidates: Vec<Candidate> = able.iter().map(candidate).collect();
        let chosen = affinity.choose(&ask.chain, prefix::home(&ask.chain), &candidates)?;
        Some(Hold::new(able.swap_remove(chosen)))
    }

    fn names(&self) -> MutexGuard<'_, Recent<String, Address>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who keeps something.
    pub fn keep(&self, id: String, address: &Address) {
        self.names().insert(id, address.clone());
    }

    /// Who keeps it, if that is remembered and the replica is still one of ours.
    pub fn keeper(&self, name: &Name) -> Option<Arc<Replica>> {
        let address = self.names().get(&name.id).cloned()?;
        self.fleet.all().iter().find(|replica| replica.address == address).cloned()
    }

    /// The answer where nobody is ready.
    pub fn nobody(&self) -> ApiError {
        self.refused("no server is ready for this: try again")
    }

    /// An answer to a request that nobody takes, which is counted.
    pub fn refused(&self, what: &str) -> ApiError {
        self.refused.fetch_add(1, Relaxed);
        ApiError::server(StatusCode::SERVICE_UNAVAILABLE, what, Some("no_replica"))
    }
}
