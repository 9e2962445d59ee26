//! Runs in SQLite: one file, several processes. Every write is one transaction that is on disk when it returns.

use super::{
    Append, Creation, EVENTS_MAX, Lease, Memory, NewRun, Row, Standing, Store, StoreError, Wait,
    packed::{pack, references, unpack},
};
use crate::{
    agents::{Page, RunFilter, RunStatus},
    event::{Parent, Stamped},
};
use narthex_base::Digest;
use serde_json::Value;
use sqlx::{
    QueryBuilder, Row as _, SqlSafeStr, Sqlite, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one process: readers do not wait for the writer.
const CONNECTIONS_MAX: u32 = 4;
/// Runs of one page at most.
const PAGE_MAX: usize = 100;
/// Texts of one agent of one tenant at most.
const MEMORIES_MAX: i64 = 10_000;
/// Words of a question that are looked for.
const WORDS_MAX: usize = 32;
/// The migrations, in order.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "runs", include_str!("../../migrations/0001_runs.sql"))];

/// Runs in a file.
#[derive(Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive a loss of power.
    #[default]
    Disk,
    /// When it would survive the end of the process: for tests.
    Process,
}

impl SqliteStore {
    /// Opens a file, or creates it, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with what is wrong with the file.
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        let explain = |error: &dyn std::fmt::Display| {
            StoreError::Failed(format!("cannot open the runs in {}: {error}", path.display()))
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Disk => SqliteSynchronous::Full,
                Durability::Process => SqliteSynchronous::Off,
            });
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await;
        let pool = pool.map_err(|error| explain(&error))?;
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        Migrator::with_migrations(migrations.into()).run(&pool).await.map_err(|error| explain(&error))?;
        Ok(Self { pool })
    }

    /// Bytes of the file, without what its log holds still.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        const BYTES: &str = "select page_count * page_size as bytes from pragma_page_count(), pragma_page_size()";
        unsigned(&sqlx::query(BYTES).fetch_one(&self.pool).await?, "bytes")
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that holds the right to write from its start, so that what it reads stays true.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("begin immediate").await?)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(format!("the store of runs failed: {error}"))
    }
}

impl Store for SqliteStore {
    fn create(&self, new: NewRun) -> Wait<'_, Creation> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            if let Some(known) = known(&mut transaction, &new).await? {
                return Ok(Creation::Known(known));
            }
            if new.follows != last(&mut transaction, &new.tenant, &new.thread).await?.map(|row| row.run) {
                return Err(StoreError::Conflict);
            }
            insert_run(&mut transaction, &new).await?;
            let mut number = 1;
            if let Some((from, at)) = &new.copied {
                const COPY: &str = "insert into steps (run, number, at_ms, event) \
                    select $1, number, at_ms, event from steps where run = $2 and number <= $3";
                let copied =
                    sqlx::query(COPY).bind(&new.run).bind(from).bind(*at as i64).execute(&mut *transaction).await?;
                if copied.rows_affected() != *at {
                    return Err(StoreError::Conflict);
                }
                number += at;
            }
            insert_step(&mut transaction, &new.run, number, &new.first).await?;
            transaction.commit().await?;
            Ok(Creation::New)
        })
    }

    fn append(&self, append: Append) -> Wait<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let standing = append.standing;
            // One statement says whether the number is the next and the lease is ours, and moves the row.
            const MOVE: &str = "update runs set events = $2, status = $3, told = $4, wake_at_ms = $5, \
                changed_ms = max(changed_ms, $6) where run = $1 and events = $2 - 1 \
                and ($7 is null or (owner = $7 and epoch = $8))";
            let moved = sqlx::query(MOVE)
                .bind(&append.run)
                .bind(append.number as i64)
                .bind(status_word(standing.status))
                .bind(standing.told as i64)
                .bind(standing.wake_at_ms.map(|ms| ms as i64))
                .bind(append.stamped.at_ms as i64)
                .bind(append.lease.as_ref().map(|lease| lease.owner.clone()))
                .bind(append.lease.as_ref().map_or(0, |lease| lease.epoch as i64))
                .execute(&mut *transaction)
                .await?;
            if moved.rows_affected() == 0 {
                let Some(lease) = &append.lease else { return Err(StoreError::Conflict) };
                let ours = sqlx::query("select 1 from runs where run = $1 and owner = $2 and epoch = $3")
                    .bind(&lease.run)
                    .bind(&lease.owner)
                    .bind(lease.epoch as i64)
                    .fetch_optional(&mut *transaction)
                    .await?;
                return Err(if ours.is_some() { StoreError::Conflict } else { StoreError::Lost });
            }
            insert_step(&mut transaction, &append.run, append.number, &append.stamped).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn events<'a>(&'a self, tenant: &'a str, run: &'a str, after: u64) -> Wait<'a, Vec<Stamped>> {
        Box::pin(async move {
            const EVENTS: &str = "select steps.at_ms, steps.event from steps join runs on runs.run = steps.run \
                where runs.tenant = $1 and steps.run = $2 and steps.number > $3 order by steps.number limit $4";
            let rows = sqlx::query(EVENTS)
                .bind(tenant)
                .bind(run)
                .bind(after as i64)
                .bind(EVENTS_MAX as i64)
                .fetch_all(&self.pool)
                .await?;
            let mut texts = BTreeMap::new();
            let mut events = Vec::with_capacity(rows.len());
            for row in &rows {
                let packed: Value = serde_json::from_str(row.try_get("event")?).map_err(|error| damaged(run, error))?;
                self.fetch_texts(&packed, &mut texts).await?;
                let whole = unpack(packed, &texts).map_err(|digest| damaged(run, format!("no text {digest}")))?;
                let event = serde_json::from_value(whole).map_err(|error| damaged(run, error))?;
                events.push(Stamped { at_ms: unsigned(row, "at_ms")?, event });
            }
            Ok(events)
        })
    }

    fn row<'a>(&'a self, tenant: &'a str, run: &'a str) -> Wait<'a, Option<Row>> {
        Box::pin(async move {
            let row = sqlx::query("select * from runs where tenant = $1 and run = $2")
                .bind(tenant)
                .bind(run)
                .fetch_optional(&self.pool)
                .await?;
            row.as_ref().map(run_row).transpose()
        })
    }

    fn rows<'a>(&'a self, tenant: &'a str, filter: RunFilter, page: Page) -> Wait<'a, Vec<Row>> {
        Box::pin(async move {
            let mut query = QueryBuilder::<Sqlite>::new("select * from runs where tenant = ");
            query.push_bind(tenant);
            for (column, value) in [
                (" and agent = ", filter.agent),
                (" and thread = ", filter.thread),
                (" and status = ", filter.status.map(|status| status_word(status).to_string())),
            ] {
                if let Some(value) = value {
                    query.push(column).push_bind(value);
                }
            }
            if let Some(since) = filter.changed_since_ms {
                query.push(" and changed_ms >= ").push_bind(since.min(i64::MAX as u64) as i64);
            }
            if let Some(after) = page.after {
                query.push(" and number < (select number from runs where tenant = ").push_bind(tenant);
                query.push(" and run = ").push_bind(after).push(")");
            }
            query.push(" order by number desc limit ").push_bind(page.size.min(PAGE_MAX) as i64);
            query.build().fetch_all(&self.pool).await?.iter().map(run_row).collect()
        })
    }

    fn last_of_thread<'a>(&'a self, tenant: &'a str, thread: &'a str) -> Wait<'a, Option<Row>> {
        Box::pin(async move {
            let row = sqlx::query(LAST).bind(tenant).bind(thread).fetch_optional(&self.pool).await?;
            row.as_ref().map(run_row).transpose()
        })
    }

    fn run_of_key<'a>(&'a self, tenant: &'a str, key: &'a str) -> Wait<'a, Option<String>> {
        Box::pin(async move {
            let row = sqlx::query("select run from runs where tenant = $1 and key = $2")
                .bind(tenant)
                .bind(key)
                .fetch_optional(&self.pool)
                .await?;
            Ok(row.map(|row| row.try_get("run")).transpose()?)
        })
    }

    fn lease<'a>(&'a self, run: &'a str, owner: &'a str, now_ms: u64, until_ms: u64) -> Wait<'a, Option<Lease>> {
        Box::pin(async move {
            const LEASE: &str = "update runs set owner = $2, epoch = epoch + 1, lease_until_ms = $4 where run = $1 \
                and (lease_until_ms <= $3 or owner is null or owner = $2) returning epoch";
            let row = sqlx::query(LEASE)
                .bind(run)
                .bind(owner)
                .bind(now_ms as i64)
                .bind(until_ms as i64)
                .fetch_optional(&self.pool)
                .await?;
            let Some(row) = row else { return Ok(None) };
            Ok(Some(Lease { run: run.into(), owner: owner.into(), epoch: unsigned(&row, "epoch")? }))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, until_ms: u64) -> Wait<'a, bool> {
        Box::pin(async move {
            let renewed =
                sqlx::query("update runs set lease_until_ms = $4 where run = $1 and owner = $2 and epoch = $3")
                    .bind(&lease.run)
                    .bind(&lease.owner)
                    .bind(lease.epoch as i64)
                    .bind(until_ms as i64)
                    .execute(&self.pool)
                    .await?;
            Ok(renewed.rows_affected() == 1)
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease, events: u64) -> Wait<'a, bool> {
        Box::pin(async move {
            const RELEASE: &str = "update runs set owner = null, lease_until_ms = 0 \
                where run = $1 and owner = $2 and epoch = $3 and events = $4";
            let released = sqlx::query(RELEASE)
                .bind(&lease.run)
                .bind(&lease.owner)
                .bind(lease.epoch as i64)
                .bind(events as i64)
                .execute(&self.pool)
                .await?;
            Ok(released.rows_affected() == 1)
        })
    }

    fn due<'a>(&'a self, owner: &'a str, now_ms: u64, count: usize) -> Wait<'a, Vec<(String, String)>> {
        Box::pin(async move {
            const DUE: &str = "select tenant, run from runs where wake_at_ms <= $1 \
                and (lease_until_ms <= $1 or owner is null or owner = $2) order by wake_at_ms, number limit $3";
            let rows =
                sqlx::query(DUE).bind(now_ms as i64).bind(owner).bind(count as i64).fetch_all(&self.pool).await?;
            rows.iter().map(|row| Ok((row.try_get("tenant")?, row.try_get("run")?))).collect()
        })
    }

    fn remember(&self, memory: Memory) -> Wait<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let kept: i64 = sqlx::query("select count(*) from memories where tenant = $1 and agent = $2")
                .bind(&memory.tenant)
                .bind(&memory.agent)
                .fetch_one(&mut *transaction)
                .await?
                .try_get(0)?;
            if kept >= MEMORIES_MAX {
                return Err(StoreError::Full(format!("{kept} things are remembered, and no more are")));
            }
            const KEEP: &str = "insert into memories (tenant, agent, key, at_ms, text) values ($1, $2, $3, $4, $5) \
                on conflict (tenant, agent, key) do nothing";
            sqlx::query(KEEP)
                .bind(memory.tenant)
                .bind(memory.agent)
                .bind(memory.key)
                .bind(memory.at_ms as i64)
                .bind(memory.text)
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
    }

    fn recall<'a>(&'a self, tenant: &'a str, agent: &'a str, words: &'a str, count: usize) -> Wait<'a, Vec<Memory>> {
        Box::pin(async move {
            const RECALL: &str = "select memories.key, memories.at_ms, memories.text from memory_words \
                join memories on memories.number = memory_words.rowid \
                where memory_words match $1 and memories.tenant = $2 and memories.agent = $3 \
                order by bm25(memory_words), memories.number desc limit $4";
            let Some(query) = any_of(words) else { return Ok(vec![]) };
            let rows = sqlx::query(RECALL)
                .bind(query)
                .bind(tenant)
                .bind(agent)
                .bind(count as i64)
                .fetch_all(&self.pool)
                .await?;
            let memory = |row: &SqliteRow| {
                let (tenant, agent) = (tenant.to_string(), agent.to_string());
                let (key, at_ms, text) = (row.try_get("key")?, unsigned(row, "at_ms")?, row.try_get("text")?);
                Ok(Memory { tenant, agent, key, at_ms, text })
            };
            rows.iter().map(memory).collect()
        })
    }
}

impl SqliteStore {
    /// Adds the texts that a packed event refers to and that are not there yet.
    async fn fetch_texts(&self, packed: &Value, texts: &mut BTreeMap<Digest, String>) -> Result<(), StoreError> {
        let mut wanted = Vec::new();
        references(packed, &mut wanted);
        for digest in wanted {
            let Ok(parsed) = digest.parse::<Digest>() else { continue };
            if texts.contains_key(&parsed) {
                continue;
            }
            let row =
                sqlx::query("select text from blobs where digest = $1").bind(digest).fetch_optional(&self.pool).await?;
            if let Some(row) = row {
                texts.insert(parsed, row.try_get("text")?);
            }
        }
        Ok(())
    }
}

/// The newest run of a conversation.
const LAST: &str = "select * from runs where tenant = $1 and thread = $2 order by number desc limit 1";

async fn last(
    transaction: &mut Transaction<'_, Sqlite>,
    tenant: &str,
    thread: &str,
) -> Result<Option<Row>, StoreError> {
    let row = sqlx::query(LAST).bind(tenant).bind(thread).fetch_optional(&mut **transaction).await?;
    row.as_ref().map(run_row).transpose()
}

/// The run of this id or of this key, if it is there.
async fn known(transaction: &mut Transaction<'_, Sqlite>, new: &NewRun) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("select run from runs where tenant = $1 and (run = $2 or ($3 is not null and key = $3))")
        .bind(&new.tenant)
        .bind(&new.run)
        .bind(&new.key)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|row| row.try_get("run")).transpose()?)
}

async fn insert_run(transaction: &mut Transaction<'_, Sqlite>, new: &NewRun) -> Result<(), StoreError> {
    const PUT: &str = "insert into runs (run, tenant, thread, agent, key, parent_run, parent_call, status, events, \
        told, wake_at_ms, started_ms, changed_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)";
    let Standing { status, told, wake_at_ms } = new.standing;
    let copied = new.copied.as_ref().map_or(0, |(_, at)| *at);
    sqlx::query(PUT)
        .bind(&new.run)
        .bind(&new.tenant)
        .bind(&new.thread)
        .bind(&new.agent)
        .bind(&new.key)
        .bind(new.parent.as_ref().map(|parent| parent.run.clone()))
        .bind(new.parent.as_ref().map(|parent| parent.call.clone()))
        .bind(status_word(status))
        .bind((copied + 1) as i64)
        .bind(told as i64)
        .bind(wake_at_ms.map(|ms| ms as i64))
        .bind(new.first.at_ms as i64)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn insert_step(
    transaction: &mut Transaction<'_, Sqlite>,
    run: &str,
    number: u64,
    stamped: &Stamped,
) -> Result<(), StoreError> {
    let mut texts = BTreeMap::new();
    let event = serde_json::to_value(&stamped.event).map_err(|error| damaged(run, error))?;
    let event = pack(event, &mut texts).to_string();
    for (digest, text) in texts {
        sqlx::query("insert into blobs (digest, text) values ($1, $2) on conflict (digest) do nothing")
            .bind(digest.to_string())
            .bind(text)
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query("insert into steps (run, number, at_ms, event) values ($1, $2, $3, $4)")
        .bind(run)
        .bind(number as i64)
        .bind(stamped.at_ms as i64)
        .bind(event)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Words as a full-text query for any of them: what stands in it is looked for and never read as an operator.
fn any_of(words: &str) -> Option<String> {
    let words = words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(WORDS_MAX);
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

fn damaged(run: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("an event of the run {run} cannot be read: {why}"))
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    Ok(row.try_get::<i64, _>(column)?.max(0) as u64)
}

/// The status as rows have it: the words of the wire.
fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Waiting => "waiting",
        RunStatus::Done => "done",
        RunStatus::Failed => "failed",
        RunStatus::Limited => "limited",
        RunStatus::Cancelled => "cancelled",
    }
}

fn run_row(row: &SqliteRow) -> Result<Row, StoreError> {
    let run: String = row.try_get("run")?;
    let status = serde_json::from_value(Value::String(row.try_get("status")?)).map_err(|error| damaged(&run, error))?;
    let parent = match (row.try_get("parent_run")?, row.try_get("parent_call")?) {
        (Some(run), Some(call)) => Some(Parent { run, call }),
        _ => None,
    };
    Ok(Row {
        run,
        thread: row.try_get("thread")?,
        agent: row.try_get("agent")?,
        status,
        events: unsigned(row, "events")?,
        told: unsigned(row, "told")?,
        started_ms: unsigned(row, "started_ms")?,
        changed_ms: unsigned(row, "changed_ms")?,
        parent,
    })
}
