//! The seam between the loop and where runs are kept: an append-only log of events for each run, with a row that says
//! how it stands. Whoever appends names the number that the event must get, so that of two writers one wins.

mod database;
mod packed;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
mod sqlite;

use crate::{
    agents::{AgentError, Page, RunFilter, RunStatus},
    event::{Parent, Stamped},
};
use futures::future::BoxFuture;
use std::{path::Path, sync::Arc};

#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use sqlite::{Durability, SqliteStore};

/// Events that are read at once: each may hold a whole result.
pub const EVENTS_MAX: usize = 32;

/// What a store gives, later.
pub type Wait<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The addresses of databases that are no files.
const POSTGRES_SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// The address of a file, written as one.
const SQLITE_SCHEME: &str = "sqlite://";

/// Opens the store at an address: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, or a file of SQLite's, which is made
/// if it is not there. Two servers may have the same.
///
/// # Errors
/// [`StoreError::Failed`] with what is wrong with it; or that it takes a program that was built otherwise, and how.
pub async fn open_store(address: &str) -> Result<Arc<dyn Store>, StoreError> {
    if POSTGRES_SCHEMES.iter().any(|scheme| address.starts_with(scheme)) {
        return postgres(address).await;
    }
    let path = address.strip_prefix(SQLITE_SCHEME).unwrap_or(address);
    if let Some((scheme, _)) = path.split_once("://") {
        let known = "it is a path, `sqlite://PATH` or `postgres://USER@HOST/DATABASE`";
        return Err(StoreError::Failed(format!("runs cannot be kept at an address of `{scheme}`: {known}")));
    }
    Ok(Arc::new(SqliteStore::open(Path::new(path), Durability::Disk).await?))
}

#[cfg(feature = "postgres")]
async fn postgres(address: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(PostgresStore::connect(address).await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &str) -> Result<Arc<dyn Store>, StoreError> {
    let how = "build it with `cargo build --release -p narthex --features postgres`";
    Err(StoreError::Failed(format!("this program was built without PostgreSQL: {how}")))
}

/// Where runs are kept. All methods but those on leases and sweeps see one tenant only.
pub trait Store: Send + Sync + 'static {
    /// Keeps a new run with its first event.
    fn create(&self, new: NewRun) -> Wait<'_, Creation>;

    /// Adds events: all of them, or none.
    fn append(&self, append: Append) -> Wait<'_, ()>;

    /// The next events of a run after this number, in their order, [`EVENTS_MAX`] at most; nothing if there are no
    /// more, or if the tenant has no such run.
    fn events<'a>(&'a self, tenant: &'a str, run: &'a str, after: u64) -> Wait<'a, Vec<Stamped>>;

    /// How a run stands.
    fn row<'a>(&'a self, tenant: &'a str, run: &'a str) -> Wait<'a, Option<Row>>;

    /// The runs that a filter lets through, those first that changed last; of two that changed at once, the newer.
    fn rows<'a>(&'a self, tenant: &'a str, filter: RunFilter, page: Page) -> Wait<'a, Vec<Row>>;

    /// The newest run of a conversation.
    fn last_of_thread<'a>(&'a self, tenant: &'a str, thread: &'a str) -> Wait<'a, Option<Row>>;

    /// The run that was started with this key.
    fn run_of_key<'a>(&'a self, tenant: &'a str, key: &'a str) -> Wait<'a, Option<String>>;

    /// Takes a run for a process until a time; nothing if another process has it.
    fn lease<'a>(&'a self, run: &'a str, owner: &'a str, now_ms: u64, until_ms: u64) -> Wait<'a, Option<Lease>>;

    /// Keeps a lease longer; false if it is another's by now.
    fn renew<'a>(&'a self, lease: &'a Lease, until_ms: u64) -> Wait<'a, bool>;

    /// Gives a lease back, unless the run has other than so many events: then false.
    fn release<'a>(&'a self, lease: &'a Lease, events: u64) -> Wait<'a, bool>;

    /// Tenants and runs that somebody must look after now and that no other process has, at most so many.
    fn due<'a>(&'a self, owner: &'a str, now_ms: u64, count: usize) -> Wait<'a, Vec<(String, String)>>;

    /// Keeps a text for later runs of an agent. The same key of the same agent keeps it once.
    fn remember(&self, memory: Memory) -> Wait<'_, ()>;

    /// The texts of an agent that fit these words best.
    fn recall<'a>(&'a self, tenant: &'a str, agent: &'a str, words: &'a str, count: usize) -> Wait<'a, Vec<Memory>>;
}

/// A run that is to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub run: String,
    /// Whose it is.
    pub tenant: String,
    /// The conversation.
    pub thread: String,
    /// The run that must be the last of the conversation; none if it must be new.
    pub follows: Option<String>,
    /// The agent.
    pub agent: String,
    /// Makes creating it twice the same as once.
    pub key: Option<String>,
    /// The call of another run that it is made for.
    pub parent: Option<Parent>,
    /// A run whose events up to this number come first.
    pub copied: Option<(String, u64)>,
    /// Its first event, or the first after those that are copied.
    pub first: Stamped,
    /// How it stands then.
    pub standing: Standing,
}

/// What came of keeping a new run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is kept.
    New,
    /// It was there: its id.
    Known(String),
}

/// Events that are to be added to a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The run.
    pub run: String,
    /// The number that the first event gets: one more than the run has.
    pub number: u64,
    /// The events, one or more.
    pub stamped: Vec<Stamped>,
    /// How the run stands then.
    pub standing: Standing,
    /// The lease of whoever works on the run; none for an answer from outside.
    pub lease: Option<Lease>,
}

/// What a row says of a run besides its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How it stands.
    pub status: RunStatus,
    /// The number of the last event that others are told.
    pub told: u64,
    /// Milliseconds since 1970 when somebody must look after it; 0 if it works; none if it has ended.
    pub wake_at_ms: Option<u64>,
}

/// A run's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub run: String,
    /// The conversation.
    pub thread: String,
    /// The agent.
    pub agent: String,
    /// How it stands.
    pub status: RunStatus,
    /// How many events it has.
    pub events: u64,
    /// The number of the last event that others are told.
    pub told: u64,
    /// Milliseconds since 1970 when it began.
    pub started_ms: u64,
    /// When it last changed.
    pub changed_ms: u64,
    /// The call of another run that it is made for.
    pub parent: Option<Parent>,
}

/// A process's hold on a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: String,
    /// The process.
    pub owner: String,
    /// Counts the leases of the run: only the newest may write.
    pub epoch: u64,
}

/// A text that is kept across runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whose it is.
    pub tenant: String,
    /// The agent's name.
    pub agent: String,
    /// The call that kept it.
    pub key: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The text.
    pub text: String,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Somebody else wrote first: read again.
    Conflict,
    /// The lease is another's.
    Lost,
    /// Too much is kept already.
    Full(String),
    /// The store failed: why, and how to mend it.
    Failed(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conflict => f.write_str("somebody else wrote first"),
            Self::Lost => f.write_str("another process has taken the run over"),
            Self::Full(what) | Self::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for AgentError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict | StoreError::Lost => Self::Busy(error.to_string()),
            StoreError::Full(what) => Self::Busy(what),
            StoreError::Failed(what) => Self::Failed(what),
        }
    }
}
