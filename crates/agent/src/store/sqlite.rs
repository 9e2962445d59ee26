//! SQLite as a database for runs: one file, several processes.

use super::{
    StoreError, Wait,
    database::{Cell, Cells, Database, Value, Writing},
    rows::SqlStore,
};
use sqlx::{
    Decode, Row as _, SqlSafeStr, SqlStr, Sqlite, Transaction, TypeInfo, ValueRef,
    migrate::{Migration, MigrationType, Migrator},
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use std::{path::Path, time::Duration};

/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one process: readers do not wait for the writer.
const CONNECTIONS_MAX: u32 = 4;
/// The migrations, in order.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "runs", include_str!("../../migrations/0001_runs.sql")),
    (2, "changed", include_str!("../../migrations/0002_changed.sql")),
];

/// A file of SQLite's.
#[derive(Clone)]
pub struct SqliteFile(SqlitePool);

/// Runs in a file. Every write is one transaction that is on disk when it returns.
pub type SqliteStore = SqlStore<SqliteFile>;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive a loss of power.
    #[default]
    Disk,
    /// When it would survive the end of the process: for tests.
    Process,
}

impl SqlStore<SqliteFile> {
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
        Ok(Self::over(SqliteFile(pool)))
    }

    /// Bytes of the file, without what its log holds still.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        const BYTES: &str = "select page_count * page_size from pragma_page_count(), pragma_page_size()";
        self.number(BYTES).await
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.database().0.close().await;
    }
}

impl Database for SqliteFile {
    const RECALL: &'static str = "select memories.key, memories.at_ms, memories.text from memory_words \
        join memories on memories.number = memory_words.rowid \
        where memory_words match $1 and memories.tenant = $2 and memories.agent = $3 \
        order by bm25(memory_words), memories.number desc limit $4";

    fn question(words: &[&str]) -> String {
        words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" OR ")
    }

    fn begin<'a>(&'a self, _: Option<&'a str>) -> Wait<'a, Box<dyn Writing>> {
        // There is one writer at a time, from the transaction's start on: all claims are one.
        Box::pin(async move { Ok(Box::new(self.0.begin_with("begin immediate").await?) as Box<dyn Writing>) })
    }

    fn rows<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, Vec<Cells>> {
        Box::pin(async move { cells(&query(statement, values).fetch_all(&self.0).await?) })
    }

    fn change<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, u64> {
        Box::pin(async move { Ok(query(statement, values).execute(&self.0).await?.rows_affected()) })
    }
}

impl Writing for Transaction<'static, Sqlite> {
    fn rows<'a>(&'a mut self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, Vec<Cells>> {
        Box::pin(async move { cells(&query(statement, values).fetch_all(&mut **self).await?) })
    }

    fn change<'a>(&'a mut self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, u64> {
        Box::pin(async move { Ok(query(statement, values).execute(&mut **self).await?.rows_affected()) })
    }

    fn commit(self: Box<Self>) -> Wait<'static, ()> {
        Box::pin(async move { Ok((*self).commit().await?) })
    }
}

fn query<'a>(statement: SqlStr, values: Vec<Value<'a>>) -> Query<'a, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(statement), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    })
}

fn cells(rows: &[SqliteRow]) -> Result<Vec<Cells>, StoreError> {
    let cell = |row: &SqliteRow, index: usize| -> Result<Cell, StoreError> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Cell::Nothing);
        }
        let is_number = raw.type_info().name() == "INTEGER";
        let decoded = match is_number {
            true => <i64 as Decode<Sqlite>>::decode(raw).map(Cell::Number),
            false => <String as Decode<Sqlite>>::decode(raw).map(Cell::Text),
        };
        Ok(decoded.map_err(sqlx::Error::Decode)?)
    };
    let row =
        |row: &SqliteRow| Ok(Cells::new((0..row.len()).map(|i| cell(row, i)).collect::<Result<_, StoreError>>()?));
    rows.iter().map(row).collect()
}
