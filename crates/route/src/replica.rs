//! One replica as the router sees it: whether it takes requests, how busy it is, what went wrong. Asks nobody itself.

use crate::{
    address::Address,
    client::{Connector, Upstream},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;
use xxhash_rust::xxh64::xxh64;

/// A replica. Shared by all that ask it and by what checks it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub address: Address,
    /// Its bit in the words of the affinity.
    pub slot: u8,
    /// A hash of its address: the same in every router.
    pub name: u64,
    connector: Connector,
    client: RwLock<Upstream>,
    ready: AtomicBool,
    in_flight: AtomicUsize,
    /// Requests that others than this router have there, as its metrics told last.
    foreign: AtomicUsize,
    /// The share of its cache that is in use, in thousandths, as its metrics told last.
    cache_permille: AtomicU32,
    /// The models that it names, once it has.
    models: Mutex<Option<Arc<BTreeSet<String>>>>,
    /// Requests sent, and those that broke.
    pub sent: AtomicU64,
    pub broken: AtomicU64,
    /// Wakes its check.
    pub doubt: Notify,
}

impl Replica {
    /// One of which nothing is known: it is not ready.
    pub fn new(address: Address, slot: u8, connector: &Connector) -> Self {
        Self {
            name: xxh64(address.as_str().as_bytes(), 0),
            address,
            slot,
            client: RwLock::new(connector.keeping()),
            connector: connector.clone(),
            ready: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
            cache_permille: AtomicU32::new(0),
            models: Mutex::default(),
            sent: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            doubt: Notify::new(),
        }
    }

    /// What requests to it are sent with.
    pub fn client(&self) -> Upstream {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes new connections from now on: who comes back there is another than was asked before.
    pub fn reconnect(&self) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = self.connector.keeping();
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// What a check found; whether that is new.
    pub fn set_ready(&self, ready: bool) -> bool {
        self.ready.swap(ready, Relaxed) != ready
    }

    /// Takes it out until the next check finds it ready, and asks for that check now.
    pub fn suspect(&self) {
        self.broken.fetch_add(1, Relaxed);
        self.ready.store(false, Relaxed);
        self.doubt.notify_one();
    }

    /// Requests of this router whose answers have not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Requests that it has, as far as the router knows.
    pub fn load(&self) -> usize {
        self.in_flight() + self.foreign.load(Relaxed)
    }

    /// The share of its cache in use, from 0 to 1.
    pub fn cache_use(&self) -> f64 {
        f64::from(self.cache_permille.load(Relaxed)) / 1000.0
    }

    /// What its metrics told: requests running and waiting there beside those of this router, and its cache's use.
    pub fn set_load(&self, foreign: usize, cache_use: f64) {
        self.foreign.store(foreign, Relaxed);
        // A float that is too large or no number becomes the nearest whole number there is, or 0.
        self.cache_permille.store((cache_use.clamp(0.0, 1.0) * 1000.0) as u32, Relaxed);
    }

    pub fn models(&self) -> Option<Arc<BTreeSet<String>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_models(&self, models: Option<BTreeSet<String>>) {
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = models.map(Arc::new);
    }
}

/// A request under way on a replica, until its answer has ended or nobody waits for it any more.
pub(crate) struct Hold(Arc<Replica>);

impl Hold {
    pub fn new(replica: Arc<Replica>) -> Self {
        replica.in_flight.fetch_add(1, Relaxed);
        Self(replica)
    }

    pub fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
