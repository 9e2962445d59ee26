//! The catalog: SQL over one SQLite connection, made synchronous. An index only: it holds
//! nothing that the folders do not. Only [`Catalog::open`] is SQLite's own; the queries are
//! such that PostgreSQL reads them too.

use narthex_base::{Digest, Error, Result};
use sqlx::{
    ConnectOptions, Connection, Row, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Runtime;

/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most digests of outside files that are remembered; beyond it the cache starts afresh.
const MAX_FILE_DIGESTS: i64 = 1_000_000;

/// The version of the catalog's tables.
pub(crate) const SCHEMA: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// The migrations, in order.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "catalog", include_str!("../migrations/0001_catalog.sql"))];

/// SQLite's result codes that matter here (<https://sqlite.org/rescode.html>).
mod code {
    pub const BUSY: i32 = 5;
    pub const READ_ONLY: i32 = 8;
    pub const IO_ERROR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANNOT_OPEN: i32 = 14;
    pub const NOT_A_DATABASE: i32 = 26;
}

/// One artifact's row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArtifactRow {
    pub digest: Digest,
    pub kind: String,
    pub step: String,
    pub created_ms: u64,
    pub bytes: u64,
    pub license: Option<String>,
    pub seconds: f64,
    /// JSON: name -> number.
    pub figures: String,
    /// JSON: name -> number.
    pub measured: String,
    pub complete: bool,
}

/// One time that a name was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefRow {
    pub digest: Digest,
    pub at_ms: u64,
}

/// One remembered step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepRow {
    pub key: Digest,
    pub step: String,
    pub artifact: Digest,
    pub at_ms: u64,
    /// What the step is made of, as JSON.
    pub material: String,
}

/// What tells whether an outside file is still the one that was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    pub path: String,
    pub bytes: i64,
    pub modified_ns: i64,
    pub inode: i64,
}

/// Why the catalog could not be opened.
pub(crate) enum OpenError {
    /// Its content is unusable; the reason. It can be rebuilt.
    Damaged(String),
    /// The disk is full or read-only, or the file is out of reach; the reason.
    Unwritable(String),
    /// Something else that a new file would not cure.
    Other(Error),
}

pub(crate) struct Catalog {
    inner: Mutex<Inner>,
    path: PathBuf,
}

struct Inner {
    runtime: Runtime,
    connection: Option<SqliteConnection>,
}

impl Catalog {
    /// Opens the file, or creates it, and brings its tables up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).busy_timeout(BUSY_TIMEOUT);
        Self::connect(options, path)
    }

    /// An empty catalog that lives as long as the process, for when the file cannot be used.
    pub(crate) fn in_memory() -> Result<Self> {
        let path = Path::new(":memory:");
        Self::connect(SqliteConnectOptions::new().in_memory(true), path).map_err(|error| match error {
            OpenError::Other(error) => error,
            OpenError::Damaged(reason) | OpenError::Unwritable(reason) => {
                Error::internal("cannot make a catalog in memory").cause(reason)
            }
        })
    }

    /// The options set no pragma that reads the file: a connection that fails on one must be closed
    /// before the file can be moved, and one that fails to connect closes at a time of its own.
    fn connect(options: SqliteConnectOptions, path: &Path) -> Result<Self, OpenError> {
        let other = |error: io::Error| OpenError::Other(Error::internal("cannot start the catalog").cause(error));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(other)?;
        let connection = runtime.block_on(async {
            let mut connection = options.connect().await.map_err(|error| sort_out(error, path))?;
            match prepare(&mut connection, path).await {
                Ok(()) => Ok(connection),
                Err(error) => {
                    // What the file holds is unusable or out of reach: there is nothing to save on closing.
                    let _ = connection.close().await;
                    Err(error)
                }
            }
        })?;
        Ok(Self { inner: Mutex::new(Inner { runtime, connection: Some(connection) }), path: path.to_path_buf() })
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>) -> Result<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { runtime, connection } = &mut *inner;
        let connection = connection.as_mut().expect("the connection is taken only on drop");
        runtime.block_on(work(connection)).map_err(|error| explain(error, &self.path))
    }

    /// Adds an artifact; of one that is there, only the completeness changes.
    pub(crate) fn put_artifact(&self, row: &ArtifactRow) -> Result<()> {
        const PUT: &str = "insert into artifacts \
            (digest, kind, step, created_ms, bytes, license, seconds, figures, measured, complete) \
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
            on conflict (digest) do update set complete = excluded.complete";
        self.run(async |connection| {
            sqlx::query(PUT)
                .bind(row.digest.to_string())
                .bind(&row.kind)
                .bind(&row.step)
                .bind(row.created_ms as i64)
                .bind(row.bytes as i64)
                .bind(&row.license)
                .bind(row.seconds)
                .bind(&row.figures)
                .bind(&row.measured)
                .bind(i64::from(row.complete))
                .execute(connection)
                .await
                .map(drop)
        })
    }

    pub(crate) fn remove_artifact(&self, digest: Digest) -> Result<()> {
        self.run(async |connection| {
            sqlx::query("delete from artifacts where digest = $1")
                .bind(digest.to_string())
                .execute(connection)
                .await
                .map(drop)
        })
    }

    /// All artifacts, newest first.
    pub(crate) fn artifacts(&self) -> Result<Vec<ArtifactRow>> {
        self.run(async |connection| {
            let rows =
                sqlx::query("select * from artifacts order by created_ms desc, digest").fetch_all(connection).await?;
            rows.iter().map(artifact_row).collect()
        })
    }

    /// The artifacts whose digest begins with these hexadecimal digits, at most `limit`.
    pub(crate) fn artifacts_with_prefix(&self, prefix: &str, limit: usize) -> Result<Vec<ArtifactRow>> {
        self.run(async |connection| {
            let rows =
                sqlx::query("select * from artifacts where digest like $1 order by created_ms desc, digest limit $2")
                    .bind(format!("{prefix}%"))
                    .bind(limit as i64)
                    .fetch_all(connection)
                    .await?;
            rows.iter().map(artifact_row).collect()
        })
    }

    /// The artifacts that a step of this name made, newest first.
    pub(crate) fn artifacts_of_step(&self, step: &str) -> Result<Vec<ArtifactRow>> {
        self.run(async |connection| {
            let rows = sqlx::query("select * from artifacts where step = $1 order by created_ms desc, digest")
                .bind(step)
                .fetch_all(connection)
                .await?;
            rows.iter().map(artifact_row).collect()
        })
    }

    /// Makes this the whole history of a name, oldest first.
    pub(crate) fn put_ref(&self, name: &str, history: &[RefRow]) -> Result<()> {
        let known = self.ref_history(name)?;
        // As a rule something was added at the end; all else is written anew.
        let kept = if history.starts_with(&known) { known.len() } else { 0 };
        const PUT: &str = "insert into refs (name, position, digest, at_ms) values ($1, $2, $3, $4) \
            on conflict (name, position) do update set digest = excluded.digest, at_ms = excluded.at_ms";
        self.run(async |connection| {
            let mut transaction = connection.begin().await?;
            sqlx::query("delete from refs where name = $1 and position >= $2")
                .bind(name)
                .bind(kept as i64)
                .execute(&mut *transaction)
                .await?;
            for (position, row) in history.iter().enumerate().skip(kept) {
                sqlx::query(PUT)
                    .bind(name)
                    .bind(position as i64)
                    .bind(row.digest.to_string())
                    .bind(row.at_ms as i64)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        })
    }

    /// Every name with its history, oldest first.
    pub(crate) fn refs(&self) -> Result<Vec<(String, RefRow)>> {
        self.run(async |connection| {
            let rows = sqlx::query("select name, digest, at_ms from refs order by name, position")
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| Ok((row.try_get("name")?, ref_row(row)?))).collect()
        })
    }

    /// The history of one name, oldest first.
    pub(crate) fn ref_history(&self, name: &str) -> Result<Vec<RefRow>> {
        self.run(async |connection| {
            let rows = sqlx::query("select digest, at_ms from refs where name = $1 order by position")
                .bind(name)
                .fetch_all(connection)
                .await?;
            rows.iter().map(ref_row).collect()
        })
    }

    pub(crate) fn put_step(&self, row: &StepRow) -> Result<()> {
        const PUT: &str = "insert into steps (key, step, artifact, at_ms, material) values ($1, $2, $3, $4, $5) \
            on conflict (key) do update set step = excluded.step, artifact = excluded.artifact, \
            at_ms = excluded.at_ms, material = excluded.material";
        self.run(async |connection| {
            sqlx::query(PUT)
                .bind(row.key.to_string())
                .bind(&row.step)
                .bind(row.artifact.to_string())
                .bind(row.at_ms as i64)
                .bind(&row.material)
                .execute(connection)
                .await
                .map(drop)
        })
    }

    pub(crate) fn remove_step(&self, key: Digest) -> Result<()> {
        self.run(async |connection| {
            sqlx::query("delete from steps where key = $1").bind(key.to_string()).execute(connection).await.map(drop)
        })
    }

    /// Every remembered step, by key.
    pub(crate) fn steps(&self) -> Result<Vec<StepRow>> {
        self.run(async |connection| {
            let rows = sqlx::query("select * from steps order by key").fetch_all(connection).await?;
            rows.iter().map(step_row).collect()
        })
    }

    pub(crate) fn step(&self, key: Digest) -> Result<Option<StepRow>> {
        self.run(async |connection| {
            let row = sqlx::query("select * from steps where key = $1")
                .bind(key.to_string())
                .fetch_optional(connection)
                .await?;
            row.as_ref().map(step_row).transpose()
        })
    }

    /// The newest record of a step of this name.
    pub(crate) fn last_step(&self, step: &str) -> Result<Option<StepRow>> {
        self.run(async |connection| {
            let row = sqlx::query("select * from steps where step = $1 order by at_ms desc, key limit 1")
                .bind(step)
                .fetch_optional(connection)
                .await?;
            row.as_ref().map(step_row).transpose()
        })
    }

    /// The digest of an outside file, if it is the one that was hashed.
    pub(crate) fn file_digest(&self, stamp: &FileStamp) -> Result<Option<Digest>> {
        self.run(async |connection| {
            let row = sqlx::query(
                "select digest from file_digests where path = $1 and bytes = $2 and modified_ns = $3 and inode = $4",
            )
            .bind(&stamp.path)
            .bind(stamp.bytes)
            .bind(stamp.modified_ns)
            .bind(stamp.inode)
            .fetch_optional(connection)
            .await?;
            row.as_ref().map(|row| digest(row, "digest")).transpose()
        })
    }

    pub(crate) fn put_file_digest(&self, stamp: &FileStamp, digest: Digest) -> Result<()> {
        const PUT: &str = "insert into file_digests (path, bytes, modified_ns, inode, digest) values ($1, $2, $3, $4, $5) \
            on conflict (path) do update set bytes = excluded.bytes, modified_ns = excluded.modified_ns, \
            inode = excluded.inode, digest = excluded.digest";
        self.run(async |connection| {
            let count: i64 =
                sqlx::query("select count(*) from file_digests").fetch_one(&mut *connection).await?.try_get(0)?;
            if count >= MAX_FILE_DIGESTS {
                sqlx::query("delete from file_digests").execute(&mut *connection).await?;
            }
            sqlx::query(PUT)
                .bind(&stamp.path)
                .bind(stamp.bytes)
                .bind(stamp.modified_ns)
                .bind(stamp.inode)
                .bind(digest.to_string())
                .execute(connection)
                .await
                .map(drop)
        })
    }

    /// The newest time in any record, in milliseconds since 1970.
    pub(crate) fn newest_ms(&self) -> Result<u64> {
        const NEWEST: &str = "select coalesce(max(at), 0) from (select max(created_ms) as at from artifacts \
            union all select max(at_ms) as at from refs union all select max(at_ms) as at from steps) as times";
        self.run(async |connection| {
            let newest: i64 = sqlx::query(NEWEST).fetch_one(connection).await?.try_get(0)?;
            Ok(newest.max(0) as u64)
        })
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = inner.connection.take() {
            // Failing to close costs nothing: the next open replays the write-ahead log.
            let _ = inner.runtime.block_on(connection.close());
        }
    }
}

/// Sets SQLite's modes, checks the file, and brings the tables up to date.
async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    // The log is folded into the file every 32 pages of 4 KiB: on a full disk it must not eat what is freed.
    for pragma in ["pragma journal_mode = wal", "pragma synchronous = full", "pragma wal_autocheckpoint = 32"] {
        sqlx::query(pragma).execute(&mut *connection).await.map_err(|error| sort_out(error, path))?;
    }
    let check: String = sqlx::query("pragma quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| sort_out(error, path))?;
    if check != "ok" {
        return Err(OpenError::Damaged(check));
    }
    migrate(connection, path).await
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    match Migrator::with_migrations(migrations.into()).run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Err(sort_out(error, path)),
        // Written by another version, or half written: an index is cheaper to build than to mend.
        Err(error) => Err(OpenError::Damaged(error.to_string())),
    }
}

/// The primary result code of SQLite, where the error has one.
fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn sort_out(error: sqlx::Error, path: &Path) -> OpenError {
    match sqlite_code(&error) {
        Some(code::CORRUPT | code::NOT_A_DATABASE) => OpenError::Damaged(error.to_string()),
        Some(code::READ_ONLY | code::IO_ERROR | code::FULL | code::CANNOT_OPEN) => {
            OpenError::Unwritable(error.to_string())
        }
        _ => OpenError::Other(explain(error, path)),
    }
}

fn explain(error: sqlx::Error, path: &Path) -> Error {
    let kind = match sqlite_code(&error) {
        Some(code::FULL) => Some(io::ErrorKind::StorageFull),
        Some(code::READ_ONLY) => Some(io::ErrorKind::PermissionDenied),
        _ => None,
    };
    if let Some(kind) = kind {
        return Error::io("cannot write the catalog", path, kind.into());
    }
    let report = Error::input("cannot use the catalog").at(path.display(), None).cause(&error);
    match sqlite_code(&error) {
        Some(code::BUSY) => {
            report.help("another narthex process is writing: run the same command again when it is done")
        }
        _ => report.help(format!("it is only an index: `rm {}*`, and the next command rebuilds it", path.display())),
    }
}

fn digest(row: &SqliteRow, column: &str) -> sqlx::Result<Digest> {
    row.try_get::<String, _>(column)?.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

fn unsigned(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.max(0) as u64)
}

fn artifact_row(row: &SqliteRow) -> sqlx::Result<ArtifactRow> {
    Ok(ArtifactRow {
        digest: digest(row, "digest")?,
        kind: row.try_get("kind")?,
        step: row.try_get("step")?,
        created_ms: unsigned(row, "created_ms")?,
        bytes: unsigned(row, "bytes")?,
        license: row.try_get("license")?,
        seconds: row.try_get("seconds")?,
        figures: row.try_get("figures")?,
        measured: row.try_get("measured")?,
        complete: row.try_get::<i64, _>("complete")? != 0,
    })
}

fn ref_row(row: &SqliteRow) -> sqlx::Result<RefRow> {
    Ok(RefRow { digest: digest(row, "digest")?, at_ms: unsigned(row, "at_ms")? })
}

fn step_row(row: &SqliteRow) -> sqlx::Result<StepRow> {
    Ok(StepRow {
        key: digest(row, "key")?,
        step: row.try_get("step")?,
        artifact: digest(row, "artifact")?,
        at_ms: unsigned(row, "at_ms")?,
        material: row.try_get("material")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Catalog {
        match Catalog::open(path) {
            Ok(catalog) => catalog,
            Err(OpenError::Damaged(reason) | OpenError::Unwritable(reason)) => panic!("{reason}"),
            Err(OpenError::Other(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let row = ArtifactRow {
            digest: Digest::of(b"a"),
            kind: "model".into(),
            step: "bard".into(),
            created_ms: 5,
            bytes: 7,
            license: None,
            seconds: 2.0,
            figures: "{}".into(),
            measured: "{}".into(),
            complete: false,
        };
        {
            let catalog = open(&path);
            catalog.put_artifact(&row).unwrap();
            catalog.put_artifact(&ArtifactRow { complete: true, created_ms: 99, ..row.clone() }).unwrap();
            assert_eq!(catalog.newest_ms().unwrap(), 5, "the time it was made stays");
        }
        let catalog = open(&path);
        let expected = ArtifactRow { complete: true, ..row.clone() };
        assert_eq!(catalog.artifacts().unwrap(), std::slice::from_ref(&expected));
        assert_eq!(catalog.artifacts_with_prefix(&row.digest.short(), 2).unwrap(), std::slice::from_ref(&expected));
        assert_eq!(catalog.artifacts_of_step("bard").unwrap(), [expected]);
        catalog.remove_artifact(row.digest).unwrap();
        assert_eq!(catalog.artifacts().unwrap(), []);
        assert_eq!(catalog.newest_ms().unwrap(), 0);
    }

    #[test]
    fn tells_damage_from_other_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        std::fs::write(&path, "this is no database, though it is long enough to be taken for one".repeat(100)).unwrap();
        assert!(matches!(Catalog::open(&path), Err(OpenError::Damaged(_))));
        let nowhere = folder.path().join("missing/catalog.db");
        assert!(matches!(Catalog::open(&nowhere), Err(OpenError::Unwritable(_))));
        assert_eq!(Catalog::in_memory().unwrap().artifacts().unwrap(), []);
    }
}
