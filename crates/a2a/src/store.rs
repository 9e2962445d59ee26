//! What A2A needs beyond runs, in SQLite: the messages that a task was sent, what callers call their conversations, and
//! where updates go. Every write is on disk before it is answered. Knows rows, not what they mean.

use narthex_base::{Error, Result};
use sqlx::{
    ConnectOptions, Row, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow},
};
use std::{fmt, path::Path, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most messages that are kept of all tasks together; the oldest go first.
const EXCHANGES_MAX: i64 = 1_000_000;

/// The most conversations that callers have named; the oldest names go first.
const CONTEXTS_MAX: i64 = 1_000_000;

/// The most messages that one task takes.
pub(crate) const EXCHANGES_PER_TASK_MAX: usize = 1_000;

/// The most places that updates of one task are sent to.
pub(crate) const PUSH_CONFIGS_PER_TASK_MAX: usize = 10;

/// The most places with updates still to come, of all tasks together.
pub(crate) const PUSH_CONFIGS_OPEN_MAX: usize = 10_000;

/// The most places with nothing more to come that are kept to be shown; the oldest go first.
const PUSH_CONFIGS_CLOSED_MAX: i64 = 10_000;

/// The migrations, in order.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "a2a", include_str!("../migrations/0001_a2a.sql"))];

/// A message that a task was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exchange {
    pub position: usize,
    pub message_id: String,
    pub content: String,
    pub done: bool,
    /// What it answers, by its id within the run.
    pub interrupt: Option<String>,
    /// JSON of an A2A message.
    pub question: Option<String>,
    /// JSON of an A2A message.
    pub message: String,
}

/// Where updates of a task are sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PushRow {
    pub tenant: String,
    pub task: String,
    pub id: String,
    pub agent: String,
    pub context: String,
    pub url: String,
    pub token: Option<String>,
    pub scheme: Option<String>,
    pub credentials: Option<String>,
    pub cursor: u64,
    pub closed: bool,
    pub created_ms: u64,
}

/// Why a row was not taken.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// There are too many: of what.
    Full(&'static str),
    /// SQLite's own trouble.
    Sqlite(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(what) => write!(f, "there are too many {what}"),
            Self::Sqlite(error) => write!(f, "the store of A2A failed: {error}"),
        }
    }
}

/// The store of one server. Cheap to clone; several processes may share the file.
#[derive(Clone)]
pub struct Store(Arc<Mutex<SqliteConnection>>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the file, or creates it for its owner only, and brings its tables up to date.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else.
    pub async fn open(path: &Path) -> Result<Self> {
        let cannot = |error: &dyn fmt::Display| {
            Error::input("cannot use the store of A2A").at(path.display(), None).cause(error).help(format!(
                "it holds messages and push addresses of tasks: `mv {0} {0}.old`, and a new one is made",
                path.display()
            ))
        };
        own(path).map_err(|error| cannot(&error))?;
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).busy_timeout(BUSY_TIMEOUT);
        let mut connection = options.connect().await.map_err(|error| cannot(&error))?;
        for pragma in ["pragma journal_mode = wal", "pragma synchronous = full"] {
            sqlx::query(pragma).execute(&mut connection).await.map_err(|error| cannot(&error))?;
        }
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        let migrated = Migrator::with_migrations(migrations.into()).run(&mut connection).await;
        migrated.map_err(|error| cannot(&error))?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Keeps a message before the run gets it. Says no if the task has it already: then with its row.
    pub(crate) async fn put_exchange(
        &self,
        tenant: &str,
        task: &str,
        row: &Exchange,
    ) -> Result<Option<Exchange>, StoreError> {
        const PUT: &str = "insert into exchanges \
            (tenant, task, position, message_id, content, done, interrupt, question, message) \
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing";
        let mut connection = self.0.lock().await;
        let connection = &mut *connection;
        let known = exchanges(connection, tenant, task).await?;
        if let Some(known) = known.iter().find(|k| k.message_id == row.message_id && k.content == row.content) {
            return Ok(Some(known.clone()));
        }
        if known.len() >= EXCHANGES_PER_TASK_MAX {
            return Err(StoreError::Full("messages of this task"));
        }
        sqlx::query(PUT)
            .bind(tenant)
            .bind(task)
            .bind(row.position as i64)
            .bind(&row.message_id)
            .bind(&row.content)
            .bind(row.done)
            .bind(&row.interrupt)
            .bind(&row.question)
            .bind(&row.message)
            .execute(&mut *connection)
            .await?;
        sqlx::query("delete from exchanges where seq <= (select max(seq) from exchanges) - $1")
            .bind(EXCHANGES_MAX)
            .execute(connection)
            .await?;
        Ok(None)
    }

    /// Notes that the run has the message.
    pub(crate) async fn finish_exchange(
        &self,
        tenant: &str,
        task: &str,
        message_id: &str,
        content: &str,
    ) -> Result<(), StoreError> {
        const DONE: &str =
            "update exchanges set done = 1 where tenant = $1 and task = $2 and message_id = $3 and content = $4";
        let mut connection = self.0.lock().await;
        let query = sqlx::query(DONE).bind(tenant).bind(task).bind(message_id).bind(content);
        query.execute(&mut *connection).await?;
        Ok(())
    }

    /// Forgets a message that the run did not take.
    pub(crate) async fn remove_exchange(
        &self,
        tenant: &str,
        task: &str,
        message_id: &str,
        content: &str,
    ) -> Result<(), StoreError> {
        const REMOVE: &str = "delete from exchanges \
            where tenant = $1 and task = $2 and message_id = $3 and content = $4 and done = 0";
        let mut connection = self.0.lock().await;
        let query = sqlx::query(REMOVE).bind(tenant).bind(task).bind(message_id).bind(content);
        query.execute(&mut *connection).await?;
        Ok(())
    }

    /// The messages that a task was sent, oldest first.
    pub(crate) async fn exchanges(&self, tenant: &str, task: &str) -> Result<Vec<Exchange>, StoreError> {
        Ok(exchanges(&mut *self.0.lock().await, tenant, task).await?)
    }

    /// Keeps what a caller calls a conversation. The first name that a thread gets stays.
    pub(crate) async fn put_context(&self, tenant: &str, context: &str, thread: &str) -> Result<(), StoreError> {
        const PUT: &str = "insert into contexts (tenant, context, thread) values ($1, $2, $3) on conflict do nothing";
        let mut connection = self.0.lock().await;
        let connection = &mut *connection;
        sqlx::query(PUT).bind(tenant).bind(context).bind(thread).execute(&mut *connection).await?;
        sqlx::query("delete from contexts where seq <= (select max(seq) from contexts) - $1")
            .bind(CONTEXTS_MAX)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The thread that a caller calls so.
    pub(crate) async fn thread(&self, tenant: &str, context: &str) -> Result<Option<String>, StoreError> {
        const THREAD: &str = "select thread from contexts where tenant = $1 and context = $2";
        let mut connection = self.0.lock().await;
        let row = sqlx::query(THREAD).bind(tenant).bind(context).fetch_optional(&mut *connection).await?;
        Ok(row.map(|row| row.try_get("thread")).transpose()?)
    }

    /// What a caller calls a thread: what it is called here, without a name of the caller's.
    pub(crate) async fn context(&self, tenant: &str, thread: &str) -> Result<String, StoreError> {
        const CONTEXT: &str = "select context from contexts where tenant = $1 and thread = $2";
        let mut connection = self.0.lock().await;
        let row = sqlx::query(CONTEXT).bind(tenant).bind(thread).fetch_optional(&mut *connection).await?;
        Ok(row.map(|row| row.try_get("context")).transpose()?.unwrap_or_else(|| thread.to_string()))
    }

    /// Keeps where updates go; a row of the same id is replaced, and begins at this row's cursor.
    pub(crate) async fn put_push(&self, row: &PushRow) -> Result<(), StoreError> {
        const PUT: &str = "insert into push_configs \
            (tenant, task, id, agent, context, url, token, scheme, credentials, cursor, closed, created_ms) \
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (tenant, task, id) do update set \
            url = excluded.url, token = excluded.token, scheme = excluded.scheme, credentials = excluded.credentials, \
            cursor = excluded.cursor, closed = excluded.closed, created_ms = excluded.created_ms";
        let mut connection = self.0.lock().await;
        let connection = &mut *connection;
        let count = "select count(*) from push_configs where tenant = $1 and task = $2 and id <> $3";
        let query = sqlx::query(count).bind(&row.tenant).bind(&row.task).bind(&row.id);
        let of_task: i64 = query.fetch_one(&mut *connection).await?.try_get(0)?;
        if of_task >= PUSH_CONFIGS_PER_TASK_MAX as i64 {
            return Err(StoreError::Full("push notification configs of this task"));
        }
        let open =
            sqlx::query("select count(*) from push_configs where closed = 0").fetch_one(&mut *connection).await?;
        if open.try_get::<i64, _>(0)? >= PUSH_CONFIGS_OPEN_MAX as i64 {
            return Err(StoreError::Full("push notification configs"));
        }
        sqlx::query(PUT)
            .bind(&row.tenant)
            .bind(&row.task)
            .bind(&row.id)
            .bind(&row.agent)
            .bind(&row.context)
            .bind(&row.url)
            .bind(&row.token)
            .bind(&row.scheme)
            .bind(&row.credentials)
            .bind(row.cursor as i64)
            .bind(row.closed)
            .bind(row.created_ms as i64)
            .execute(&mut *connection)
            .await?;
        const FORGET: &str = "delete from push_configs where rowid in \
            (select rowid from push_configs where closed = 1 order by created_ms desc limit -1 offset $1)";
        sqlx::query(FORGET).bind(PUSH_CONFIGS_CLOSED_MAX).execute(connection).await?;
        Ok(())
    }

    /// Where updates of a task go, by id.
    pub(crate) async fn pushes(&self, tenant: &str, task: &str) -> Result<Vec<PushRow>, StoreError> {
        const PUSHES: &str = "select * from push_configs where tenant = $1 and task = $2 order by id";
        let mut connection = self.0.lock().await;
        let rows = sqlx::query(PUSHES).bind(tenant).bind(task).fetch_all(&mut *connection).await?;
        Ok(rows.iter().map(push_row).collect::<sqlx::Result<_>>()?)
    }

    /// All with updates still to come, oldest first.
    pub(crate) async fn open_pushes(&self) -> Result<Vec<PushRow>, StoreError> {
        const OPEN: &str = "select * from push_configs where closed = 0 order by created_ms, tenant, task, id limit $1";
        let mut connection = self.0.lock().await;
        let rows = sqlx::query(OPEN).bind(PUSH_CONFIGS_OPEN_MAX as i64).fetch_all(&mut *connection).await?;
        Ok(rows.iter().map(push_row).collect::<sqlx::Result<_>>()?)
    }

    /// Notes how far the delivery to this place has come. Says no if the place has been removed or replaced.
    pub(crate) async fn advance_push(&self, row: &PushRow, cursor: u64, closed: bool) -> Result<bool, StoreError> {
        const ADVANCE: &str = "update push_configs set cursor = $5, closed = $6 \
            where tenant = $1 and task = $2 and id = $3 and created_ms = $4";
        let mut connection = self.0.lock().await;
        let query = sqlx::query(ADVANCE).bind(&row.tenant).bind(&row.task).bind(&row.id).bind(row.created_ms as i64);
        let done = query.bind(cursor as i64).bind(closed).execute(&mut *connection).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes one; it need not be there.
    pub(crate) async fn remove_push(&self, tenant: &str, task: &str, id: &str) -> Result<(), StoreError> {
        const REMOVE: &str = "delete from push_configs where tenant = $1 and task = $2 and id = $3";
        let mut connection = self.0.lock().await;
        sqlx::query(REMOVE).bind(tenant).bind(task).bind(id).execute(&mut *connection).await?;
        Ok(())
    }
}

async fn exchanges(connection: &mut SqliteConnection, tenant: &str, task: &str) -> sqlx::Result<Vec<Exchange>> {
    const EXCHANGES: &str = "select * from exchanges where tenant = $1 and task = $2 order by seq limit $3";
    let query = sqlx::query(EXCHANGES).bind(tenant).bind(task).bind(EXCHANGES_PER_TASK_MAX as i64);
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(exchange_row).collect()
}

/// Tokens and credentials stand in it: others of this machine must not read them.
#[cfg(unix)]
fn own(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

#[cfg(not(unix))]
fn own(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn unsigned(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.max(0) as u64)
}

fn exchange_row(row: &SqliteRow) -> sqlx::Result<Exchange> {
    Ok(Exchange {
        position: unsigned(row, "position")? as usize,
        message_id: row.try_get("message_id")?,
        content: row.try_get("content")?,
        done: row.try_get("done")?,
        interrupt: row.try_get("interrupt")?,
        question: row.try_get("question")?,
        message: row.try_get("message")?,
    })
}

fn push_row(row: &SqliteRow) -> sqlx::Result<PushRow> {
    Ok(PushRow {
        tenant: row.try_get("tenant")?,
        task: row.try_get("task")?,
        id: row.try_get("id")?,
        agent: row.try_get("agent")?,
        context: row.try_get("context")?,
        url: row.try_get("url")?,
        token: row.try_get("token")?,
        scheme: row.try_get("scheme")?,
        credentials: row.try_get("credentials")?,
        cursor: unsigned(row, "cursor")?,
        closed: row.try_get("closed")?,
        created_ms: unsigned(row, "created_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(message_id: &str, content: &str) -> Exchange {
        let (message_id, content) = (message_id.to_string(), content.to_string());
        Exchange {
            position: 2,
            message_id,
            content,
            done: false,
            interrupt: None,
            question: None,
            message: "{}".into(),
        }
    }

    fn push(id: &str) -> PushRow {
        PushRow {
            tenant: "a".into(),
            task: "t".into(),
            id: id.into(),
            agent: "bard".into(),
            context: "c".into(),
            url: "https://example.com/".into(),
            token: Some("word".into()),
            scheme: None,
            credentials: None,
            cursor: 3,
            closed: false,
            created_ms: 7,
        }
    }

    #[tokio::test]
    async fn messages_are_kept_once_and_for_their_tenant_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a2a.db");
        let store = Store::open(&path).await.unwrap();
        let first = exchange("m", "1");
        assert_eq!(store.put_exchange("a", "t", &first).await.unwrap(), None);
        assert_eq!(store.put_exchange("a", "t", &first).await.unwrap(), Some(first.clone()));
        assert_eq!(store.put_exchange("a", "t", &exchange("m", "2")).await.unwrap(), None, "other words");
        store.finish_exchange("a", "t", "m", "1").await.unwrap();
        store.remove_exchange("a", "t", "m", "1").await.unwrap();
        store.remove_exchange("a", "t", "m", "2").await.unwrap();
        // As after a crash: another connection sees what was written.
        let again = Store::open(&path).await.unwrap();
        assert_eq!(again.exchanges("a", "t").await.unwrap(), [Exchange { done: true, ..first }]);
        assert_eq!(again.exchanges("b", "t").await.unwrap(), []);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o77, 0);
        }
    }

    #[tokio::test]
    async fn places_for_updates_have_limits_and_a_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
        for id in 0..PUSH_CONFIGS_PER_TASK_MAX {
            store.put_push(&push(&format!("{id:02}"))).await.unwrap();
        }
        assert!(matches!(store.put_push(&push("more")).await, Err(StoreError::Full(_))));
        store.put_push(&push("00")).await.unwrap();
        assert_eq!(store.pushes("b", "t").await.unwrap(), []);
        store.remove_push("b", "t", "01").await.unwrap();
        assert_eq!(store.pushes("a", "t").await.unwrap().len(), PUSH_CONFIGS_PER_TASK_MAX);
        assert!(store.advance_push(&push("00"), 9, true).await.unwrap());
        assert!(!store.advance_push(&PushRow { created_ms: 8, ..push("01") }, 9, true).await.unwrap(), "replaced");
        let open = store.open_pushes().await.unwrap();
        assert_eq!((open.len(), open[0].id.as_str()), (PUSH_CONFIGS_PER_TASK_MAX - 1, "01"));
        assert_eq!(store.pushes("a", "t").await.unwrap()[0].cursor, 9);
    }

    /// Not a test of its own: the process that [`what_was_answered_survives_a_kill`] kills while it writes.
    #[tokio::test]
    async fn writes_until_it_is_killed() {
        use std::io::Write;
        let Ok(path) = std::env::var("A2A_KILLED_STORE") else { return };
        let store = Store::open(Path::new(&path)).await.unwrap();
        for number in 0.. {
            let id = number.to_string();
            store.put_exchange("a", &id, &exchange(&id, "1")).await.unwrap();
            store.put_push(&PushRow { task: id.clone(), ..push("c") }).await.unwrap();
            // What the parent has read was answered, so it must be on disk.
            writeln!(std::io::stdout(), "written {id}").unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_answered_survives_a_kill() {
        use std::io::BufRead;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a2a.db");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writes_until_it_is_killed", "--nocapture"])
            .env("A2A_KILLED_STORE", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let written: Vec<String> =
            lines.filter_map(|line| line.split_once("written ").map(|(_, id)| id.into())).take(20).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(written.len(), 20);
        let store = Store::open(&path).await.unwrap();
        for id in written {
            assert_eq!(store.exchanges("a", &id).await.unwrap(), [exchange(&id, "1")]);
            assert_eq!(store.pushes("a", &id).await.unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn conversations_keep_the_name_that_a_caller_gave_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
        store.put_context("a", "mine", "t1").await.unwrap();
        store.put_context("a", "mine", "t2").await.unwrap();
        store.put_context("a", "other", "t1").await.unwrap();
        assert_eq!(store.thread("a", "mine").await.unwrap().as_deref(), Some("t1"));
        assert_eq!((store.thread("b", "mine").await.unwrap(), store.thread("a", "other").await.unwrap()), (None, None));
        for (tenant, thread, expected) in [("a", "t1", "mine"), ("a", "t2", "t2"), ("b", "t1", "t1")] {
            assert_eq!(store.context(tenant, thread).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a2a.db");
        std::fs::write(&path, "this is no database, though it is long enough to be taken for one".repeat(100)).unwrap();
        let error = Store::open(&path).await.unwrap_err();
        assert!(error.help_text().is_some_and(|help| help.contains("mv ")));
        assert!(Store::open(&folder.path().join("missing/a2a.db")).await.is_err());
    }
}
