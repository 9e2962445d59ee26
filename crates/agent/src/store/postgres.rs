//! PostgreSQL as a database for runs: several machines, one truth.

use super::{
    StoreError, Wait,
    database::{Cell, Cells, Database, Value, Writing},
    rows::SqlStore,
};
use sqlx::{
    Decode, Postgres, Row as _, SqlSafeStr, SqlStr, Transaction, TypeInfo, ValueRef,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow},
    query::Query,
};
use std::{borrow::Cow, time::Duration};

/// How long a statement waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one process: a server has a hundred in all, as it comes.
const CONNECTIONS_MAX: u32 = 8;
/// The migrations, in order.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "runs", include_str!("../../migrations/postgres/0001_runs.sql"))];
/// Which of them were made: a name of our own, so that others may have theirs in the same database.
const MIGRATIONS_TABLE: &str = "narthex_agent_migrations";

/// A PostgreSQL database.
#[derive(Clone)]
pub struct PostgresDatabase(PgPool);

/// Runs in a PostgreSQL database. Every write is one transaction that is on disk when it returns, unless the database
/// was told otherwise (`fsync`, `synchronous_commit`).
pub type PostgresStore = SqlStore<PostgresDatabase>;

impl SqlStore<PostgresDatabase> {
    /// Connects to a database and brings its tables up to date. They stand in the first schema of the search path.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with what is wrong; the password of the URL is not told.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            StoreError::Failed(format!("the address of the runs is no PostgreSQL URL: {error}"))
        })?;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        let place = format!("{database} at {}:{}", options.get_host(), options.get_port());
        let explain = |error: &dyn std::fmt::Display| {
            StoreError::Failed(format!("cannot open the runs in the PostgreSQL database {place}: {error}"))
        };
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_TIMEOUT);
        let pool = pool.connect_with(options).await.map_err(|error| explain(&error))?;
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        let mut migrator = Migrator::with_migrations(migrations.into());
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrator.run(&pool).await.map_err(|error| explain(&error))?;
        Ok(Self::over(PostgresDatabase(pool)))
    }

    /// Bytes of the tables and their indexes.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        const BYTES: &str = "select pg_total_relation_size('runs') + pg_total_relation_size('steps') \
            + pg_total_relation_size('blobs') + pg_total_relation_size('memories')";
        self.number(BYTES).await
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.database().0.close().await;
    }
}

impl Database for PostgresDatabase {
    const RECALL: &'static str = "select key, at_ms, text from memories \
        where words @@ to_tsquery('simple', $1) and tenant = $2 and agent = $3 \
        order by ts_rank(words, to_tsquery('simple', $1)) desc, number desc limit $4";

    fn question(words: &[&str]) -> String {
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" | ")
    }

    fn begin<'a>(&'a self, claim: Option<&'a str>) -> Wait<'a, Box<dyn Writing>> {
        Box::pin(async move {
            let mut transaction = self.0.begin().await?;
            if let Some(claim) = claim {
                const CLAIM: &str = "select pg_advisory_xact_lock(hashtextextended($1, 0))";
                query(CLAIM.into_sql_str(), vec![claim.into()]).execute(&mut *transaction).await?;
            }
            Ok(Box::new(transaction) as Box<dyn Writing>)
        })
    }

    fn rows<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, Vec<Cells>> {
        Box::pin(async move { cells(&query(statement, values).fetch_all(&self.0).await?) })
    }

    fn change<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, u64> {
        Box::pin(async move { Ok(query(statement, values).execute(&self.0).await?.rows_affected()) })
    }
}

impl Writing for Transaction<'static, Postgres> {
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

fn query<'a>(statement: SqlStr, values: Vec<Value<'a>>) -> Query<'a, Postgres, PgArguments> {
    values.into_iter().fold(sqlx::query(statement), |query, value| match value {
        Value::Text(text) => query.bind(text.map(storable)),
        Value::Number(number) => query.bind(number),
    })
}

fn cells(rows: &[PgRow]) -> Result<Vec<Cells>, StoreError> {
    let cell = |row: &PgRow, index: usize| -> Result<Cell, StoreError> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Cell::Nothing);
        }
        let is_number = raw.type_info().name() == "INT8";
        let decoded = match is_number {
            true => <i64 as Decode<Postgres>>::decode(raw).map(Cell::Number),
            false => <String as Decode<Postgres>>::decode(raw).map(|text| Cell::Text(restored(text))),
        };
        Ok(decoded.map_err(sqlx::Error::Decode)?)
    };
    let row = |row: &PgRow| Ok(Cells::new((0..row.len()).map(|i| cell(row, i)).collect::<Result<_, StoreError>>()?));
    rows.iter().map(row).collect()
}

/// A text as PostgreSQL takes it: it has no zero character, and texts of models and tools may. The character 1 stands
/// before what stands for either of the two.
fn storable(text: &str) -> Cow<'_, str> {
    match text.contains(['\0', '\u{1}']) {
        true => Cow::Owned(text.replace('\u{1}', "\u{1}1").replace('\0', "\u{1}0")),
        false => Cow::Borrowed(text),
    }
}

/// The text that was stored so.
fn restored(text: String) -> String {
    match text.contains('\u{1}') {
        true => text.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in ["", "a", "\0", "\u{1}", "\u{1}0", "\u{1}1", "\0\u{1}\u{1}0\0", "ä\0ö\u{1}"] {
            let stored = storable(text);
            assert!(!stored.contains('\0'));
            assert_eq!(restored(stored.into_owned()), text, "{text:?}");
        }
    }
}
