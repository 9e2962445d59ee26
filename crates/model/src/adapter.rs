//! An adapter packed for inference: what it adds to each product of each block, to the rows that ask for it. Many are
//! there at a time over one base. Knows no files: see `decoder/packed_adapter.rs`.

use crate::site::Site;
use narthex_kernels::LowRank;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The updates of an adapter. Its weights are in the base's precision.
#[derive(Debug)]
pub struct Adapter {
    /// Of all that this process has read, which.
    number: u64,
    updates: HashMap<(usize, Site), Arc<LowRank>>,
    rank: usize,
    bytes: usize,
    base_model: Option<String>,
}

/// Adapters that this process has read.
static READ: AtomicU64 = AtomicU64::new(0);

impl Adapter {
    /// One that changes nothing and says that it has this rank: a stand-in where no model is.
    pub fn nothing(rank: usize) -> Self {
        Self::new(HashMap::new(), rank, None)
    }

    /// Tells it from all others that this process has read, also from the same folder.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of these updates.
    pub(crate) fn new(updates: HashMap<(usize, Site), Arc<LowRank>>, rank: usize, base_model: Option<String>) -> Self {
        let bytes = updates.values().map(|update| update.bytes()).sum();
        Self { number: READ.fetch_add(1, Ordering::Relaxed), updates, rank, bytes, base_model }
    }

    /// What it adds to a product, if anything.
    pub(crate) fn update(&self, layer: usize, site: Site) -> Option<Arc<LowRank>> {
        self.updates.get(&(layer, site)).cloned()
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The model that it was trained on, as its config says.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }
}
