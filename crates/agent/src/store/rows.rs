//! Runs as rows of an SQL database: what is kept, and what of two writers one wins by. The same for every database;
//! what a dialect has of its own stands behind [`Database`].

use super::{
    Append, Creation, EVENTS_MAX, Lease, Memory, NewRun, Row, Standing, Store, StoreError, Wait,
    database::{Cells, Database, Writing},
    packed::{pack, references, unpack},
};
use crate::{
    agents::{Page, RunFilter, RunStatus},
    event::{Parent, Stamped},
};
use narthex_base::Digest;
use serde_json::Value;
use sqlx::{AssertSqlSafe, SqlSafeStr};
use std::collections::BTreeMap;

/// Runs of one page at most.
const PAGE_MAX: usize = 100;
/// Texts of one agent of one tenant at most.
const MEMORIES_MAX: u64 = 10_000;
/// Words of a question that are looked for.
const WORDS_MAX: usize = 32;

/// The columns of a run, as [`run_row`] reads them.
macro_rules! run_columns {
    () => {
        "run, thread, agent, status, events, told, started_ms, changed_ms, parent_run, parent_call"
    };
}

/// The newest run of a conversation.
const LAST: &str =
    concat!("select ", run_columns!(), " from runs where tenant = $1 and thread = $2 order by number desc limit 1");

/// Runs in an SQL database. Every write is one transaction.
#[derive(Clone)]
pub struct SqlStore<D>(D);

impl<D: Database> SqlStore<D> {
    /// Runs in a database whose tables are up to date.
    pub(super) fn over(database: D) -> Self {
        Self(database)
    }

    pub(super) fn database(&self) -> &D {
        &self.0
    }

    /// The number that a statement without values gives.
    pub(super) async fn number(&self, statement: &'static str) -> Result<u64, StoreError> {
        let rows = self.0.rows(statement.into_sql_str(), vec![]).await?;
        rows.into_iter().next().ok_or_else(|| StoreError::Failed("the store of runs gave no row".into()))?.number()
    }

    async fn first(&self, statement: &'static str, values: Vec<Given<'_>>) -> Result<Option<Cells>, StoreError> {
        Ok(self.0.rows(statement.into_sql_str(), values).await?.into_iter().next())
    }

    async fn changes_one(&self, statement: &'static str, values: Vec<Given<'_>>) -> Result<bool, StoreError> {
        Ok(self.0.change(statement.into_sql_str(), values).await? == 1)
    }

    /// Adds the texts that packed events refer to.
    async fn texts(&self, packed: &[Value]) -> Result<BTreeMap<Digest, String>, StoreError> {
        let (mut wanted, mut texts) = (Vec::new(), BTreeMap::new());
        packed.iter().for_each(|event| references(event, &mut wanted));
        wanted.sort();
        wanted.dedup();
        for digest in wanted {
            let Ok(parsed) = digest.parse::<Digest>() else { continue };
            if let Some(mut row) =
                self.first("select text from blobs where digest = $1", vec![(&digest).into()]).await?
            {
                texts.insert(parsed, row.text()?);
            }
        }
        Ok(texts)
    }
}

type Given<'a> = super::database::Value<'a>;

impl<D: Database> Store for SqlStore<D> {
    fn create(&self, new: NewRun) -> Wait<'_, Creation> {
        Box::pin(async move {
            let claim = format!("{}\n{}", new.tenant, new.thread);
            let mut transaction = self.0.begin(Some(&claim)).await?;
            if let Some(known) = known(&mut *transaction, &new).await? {
                return Ok(Creation::Known(known));
            }
            let last = transaction.rows(LAST.into_sql_str(), vec![(&new.tenant).into(), (&new.thread).into()]).await?;
            let last = last.into_iter().next().map(run_row).transpose()?;
            if new.follows != last.map(|row| row.run) {
                return Err(StoreError::Conflict);
            }
            insert_run(&mut *transaction, &new).await?;
            let mut number = 1;
            if let Some((from, at)) = &new.copied {
                const COPY: &str = "insert into steps (run, number, at_ms, event) \
                    select $1, number, at_ms, event from steps where run = $2 and number <= $3";
                let copy = vec![(&new.run).into(), from.into(), (*at).into()];
                if transaction.change(COPY.into_sql_str(), copy).await? != *at {
                    return Err(StoreError::Conflict);
                }
                number += at;
            }
            insert_step(&mut *transaction, &new.run, number, &new.first).await?;
            transaction.commit().await?;
            Ok(Creation::New)
        })
    }

    fn append(&self, append: Append) -> Wait<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.0.begin(None).await?;
            // One statement says whether the number is the next and the lease is ours, and moves the row.
            const MOVE: &str = "update runs set events = $3, status = $4, told = $5, wake_at_ms = $6, \
                changed_ms = case when changed_ms > $7 then changed_ms else $7 end where run = $1 and events = $2 - 1 \
                and ($8 is null or (owner = $8 and epoch = $9))";
            let Standing { status, told, wake_at_ms } = append.standing;
            let (owner, epoch) = append.lease.as_ref().map_or((None, 0), |lease| (Some(&*lease.owner), lease.epoch));
            let Some(last) = append.stamped.last() else { return Ok(()) };
            let values = vec![
                (&append.run).into(),
                append.number.into(),
                (append.number + append.stamped.len() as u64 - 1).into(),
                status_word(status).into(),
                told.into(),
                wake_at_ms.into(),
                last.at_ms.into(),
                owner.into(),
                epoch.into(),
            ];
            if transaction.change(MOVE.into_sql_str(), values).await? == 0 {
                let Some(lease) = &append.lease else { return Err(StoreError::Conflict) };
                const OURS: &str = "select epoch from runs where run = $1 and owner = $2 and epoch = $3";
                let values = vec![(&lease.run).into(), (&lease.owner).into(), lease.epoch.into()];
                let ours = transaction.rows(OURS.into_sql_str(), values).await?;
                return Err(if ours.is_empty() { StoreError::Lost } else { StoreError::Conflict });
            }
            for (number, stamped) in (append.number..).zip(&append.stamped) {
                insert_step(&mut *transaction, &append.run, number, stamped).await?;
            }
            transaction.commit().await
        })
    }

    fn events<'a>(&'a self, tenant: &'a str, run: &'a str, after: u64) -> Wait<'a, Vec<Stamped>> {
        Box::pin(async move {
            const EVENTS: &str = "select steps.at_ms, steps.event from steps join runs on runs.run = steps.run \
                where runs.tenant = $1 and steps.run = $2 and steps.number > $3 order by steps.number limit $4";
            let values = vec![tenant.into(), run.into(), after.into(), (EVENTS_MAX as u64).into()];
            let (mut times, mut packed) = (Vec::new(), Vec::new());
            for mut row in self.0.rows(EVENTS.into_sql_str(), values).await? {
                times.push(row.number()?);
                packed.push(serde_json::from_str(&row.text()?).map_err(|error| damaged(run, error))?);
            }
            let texts = self.texts(&packed).await?;
            let event = |(at_ms, packed)| {
                let whole = unpack(packed, &texts).map_err(|digest| damaged(run, format!("no text {digest}")))?;
                let event = serde_json::from_value(whole).map_err(|error| damaged(run, error))?;
                Ok(Stamped { at_ms, event })
            };
            times.into_iter().zip(packed).map(event).collect()
        })
    }

    fn row<'a>(&'a self, tenant: &'a str, run: &'a str) -> Wait<'a, Option<Row>> {
        Box::pin(async move {
            const ROW: &str = concat!("select ", run_columns!(), " from runs where tenant = $1 and run = $2");
            self.first(ROW, vec![tenant.into(), run.into()]).await?.map(run_row).transpose()
        })
    }

    fn rows<'a>(&'a self, tenant: &'a str, filter: RunFilter, page: Page) -> Wait<'a, Vec<Row>> {
        Box::pin(async move {
            let mut statement = String::from(concat!("select ", run_columns!(), " from runs where tenant = $1"));
            let status = filter.status.map(status_word);
            let (after, at_ms) = page.place().unzip();
            let mut values: Vec<Given> = vec![tenant.into()];
            for (condition, value) in [
                (" and agent = ?", filter.agent.as_deref().map(Given::from)),
                (" and thread = ?", filter.thread.as_deref().map(Given::from)),
                (" and status = ?", status.map(Given::from)),
                (" and changed_ms >= ?", filter.changed_since_ms.map(Given::from)),
                // A run that has changed since is behind nothing: the place in the list stays where it was.
                (" and (changed_ms, number) < (coalesce(?, ", after.map(|_| at_ms.flatten().into())),
                ("(select changed_ms from runs where tenant = $1 and run = ?)), ", after.map(Given::from)),
                ("(select number from runs where tenant = $1 and run = ?))", after.map(Given::from)),
            ] {
                if let Some(value) = value {
                    values.push(value);
                    statement += &condition.replace('?', &format!("${}", values.len()));
                }
            }
            values.push((page.size.min(PAGE_MAX) as u64).into());
            statement += &format!(" order by changed_ms desc, number desc limit ${}", values.len());
            // It is made of the words above and of numbers.
            let rows = self.0.rows(AssertSqlSafe(statement).into_sql_str(), values).await?;
            rows.into_iter().map(run_row).collect()
        })
    }

    fn last_of_thread<'a>(&'a self, tenant: &'a str, thread: &'a str) -> Wait<'a, Option<Row>> {
        Box::pin(async move { self.first(LAST, vec![tenant.into(), thread.into()]).await?.map(run_row).transpose() })
    }

    fn run_of_key<'a>(&'a self, tenant: &'a str, key: &'a str) -> Wait<'a, Option<String>> {
        Box::pin(async move {
            const OF_KEY: &str = "select run from runs where tenant = $1 and key = $2";
            self.first(OF_KEY, vec![tenant.into(), key.into()]).await?.map(|mut row| row.text()).transpose()
        })
    }

    fn lease<'a>(&'a self, run: &'a str, owner: &'a str, now_ms: u64, until_ms: u64) -> Wait<'a, Option<Lease>> {
        Box::pin(async move {
            const LEASE: &str = "update runs set owner = $2, epoch = epoch + 1, lease_until_ms = $4 where run = $1 \
                and (lease_until_ms <= $3 or owner is null or owner = $2) returning epoch";
            let values = vec![run.into(), owner.into(), now_ms.into(), until_ms.into()];
            let Some(mut row) = self.first(LEASE, values).await? else { return Ok(None) };
            Ok(Some(Lease { run: run.into(), owner: owner.into(), epoch: row.number()? }))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, until_ms: u64) -> Wait<'a, bool> {
        Box::pin(async move {
            const RENEW: &str = "update runs set lease_until_ms = $4 where run = $1 and owner = $2 and epoch = $3";
            let Lease { run, owner, epoch } = lease;
            self.changes_one(RENEW, vec![run.into(), owner.into(), (*epoch).into(), until_ms.into()]).await
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease, events: u64) -> Wait<'a, bool> {
        Box::pin(async move {
            const RELEASE: &str = "update runs set owner = null, lease_until_ms = 0 \
                where run = $1 and owner = $2 and epoch = $3 and events = $4";
            let Lease { run, owner, epoch } = lease;
            self.changes_one(RELEASE, vec![run.into(), owner.into(), (*epoch).into(), events.into()]).await
        })
    }

    fn due<'a>(&'a self, owner: &'a str, now_ms: u64, count: usize) -> Wait<'a, Vec<(String, String)>> {
        Box::pin(async move {
            const DUE: &str = "select tenant, run from runs where wake_at_ms <= $1 \
                and (lease_until_ms <= $1 or owner is null or owner = $2) order by wake_at_ms, number limit $3";
            let values = vec![now_ms.into(), owner.into(), (count as u64).into()];
            let rows = self.0.rows(DUE.into_sql_str(), values).await?;
            rows.into_iter().map(|mut row| Ok((row.text()?, row.text()?))).collect()
        })
    }

    fn remember(&self, memory: Memory) -> Wait<'_, ()> {
        Box::pin(async move {
            const COUNT: &str = "select count(*) from memories where tenant = $1 and agent = $2";
            const KEEP: &str = "insert into memories (tenant, agent, key, at_ms, text) values ($1, $2, $3, $4, $5) \
                on conflict (tenant, agent, key) do nothing";
            let Memory { tenant, agent, key, at_ms, text } = &memory;
            let claim = format!("{tenant}\n{agent}");
            let mut transaction = self.0.begin(Some(&claim)).await?;
            let rows = transaction.rows(COUNT.into_sql_str(), vec![tenant.into(), agent.into()]).await?;
            let kept = rows.into_iter().next().map_or(Ok(0), |mut row| row.number())?;
            if kept >= MEMORIES_MAX {
                return Err(StoreError::Full(format!("{kept} things are remembered, and no more are")));
            }
            let values = vec![tenant.into(), agent.into(), key.into(), (*at_ms).into(), text.into()];
            transaction.change(KEEP.into_sql_str(), values).await?;
            transaction.commit().await
        })
    }

    fn recall<'a>(&'a self, tenant: &'a str, agent: &'a str, words: &'a str, count: usize) -> Wait<'a, Vec<Memory>> {
        Box::pin(async move {
            // What stands in it is looked for and never read as an operator.
            let words = words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            let words: Vec<&str> = words.take(WORDS_MAX).collect();
            if words.is_empty() {
                return Ok(vec![]);
            }
            let question = D::question(&words);
            let values = vec![(&question).into(), tenant.into(), agent.into(), (count as u64).into()];
            let memory = |mut row: Cells| {
                let (tenant, agent) = (tenant.to_string(), agent.to_string());
                Ok(Memory { tenant, agent, key: row.text()?, at_ms: row.number()?, text: row.text()? })
            };
            self.0.rows(D::RECALL.into_sql_str(), values).await?.into_iter().map(memory).collect()
        })
    }
}

/// The run of this id or of this key, if it is there.
async fn known(transaction: &mut dyn Writing, new: &NewRun) -> Result<Option<String>, StoreError> {
    const KNOWN: &str = "select run from runs where tenant = $1 and (run = $2 or ($3 is not null and key = $3))";
    let values = vec![(&new.tenant).into(), (&new.run).into(), new.key.as_deref().into()];
    let rows = transaction.rows(KNOWN.into_sql_str(), values).await?;
    rows.into_iter().next().map(|mut row| row.text()).transpose()
}

async fn insert_run(transaction: &mut dyn Writing, new: &NewRun) -> Result<(), StoreError> {
    const PUT: &str = "insert into runs (run, tenant, thread, agent, key, parent_run, parent_call, status, events, \
        told, wake_at_ms, started_ms, changed_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)";
    let Standing { status, told, wake_at_ms } = new.standing;
    let copied = new.copied.as_ref().map_or(0, |(_, at)| *at);
    let values = vec![
        (&new.run).into(),
        (&new.tenant).into(),
        (&new.thread).into(),
        (&new.agent).into(),
        new.key.as_deref().into(),
        new.parent.as_ref().map(|parent| &*parent.run).into(),
        new.parent.as_ref().map(|parent| &*parent.call).into(),
        status_word(status).into(),
        (copied + 1).into(),
        told.into(),
        wake_at_ms.into(),
        new.first.at_ms.into(),
    ];
    transaction.change(PUT.into_sql_str(), values).await.map(drop)
}

async fn insert_step(
    transaction: &mut dyn Writing,
    run: &str,
    number: u64,
    stamped: &Stamped,
) -> Result<(), StoreError> {
    const BLOB: &str = "insert into blobs (digest, text) values ($1, $2) on conflict (digest) do nothing";
    const STEP: &str = "insert into steps (run, number, at_ms, event) values ($1, $2, $3, $4)";
    let mut texts = BTreeMap::new();
    let event = serde_json::to_value(&stamped.event).map_err(|error| damaged(run, error))?;
    let event = pack(event, &mut texts).to_string();
    // In the order of their digests, so that of two writers of the same texts neither waits for the other in a circle.
    for (digest, text) in &texts {
        let digest = digest.to_string();
        transaction.change(BLOB.into_sql_str(), vec![(&digest).into(), text.into()]).await?;
    }
    let values = vec![run.into(), number.into(), stamped.at_ms.into(), (&event).into()];
    transaction.change(STEP.into_sql_str(), values).await.map(drop)
}

fn damaged(run: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("an event of the run {run} cannot be read: {why}"))
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

fn run_row(mut row: Cells) -> Result<Row, StoreError> {
    let (run, thread, agent, status) = (row.text()?, row.text()?, row.text()?, row.text()?);
    let status = serde_json::from_value(Value::String(status)).map_err(|error| damaged(&run, error))?;
    let (events, told, started_ms, changed_ms) = (row.number()?, row.number()?, row.number()?, row.number()?);
    let parent = match (row.text_or_nothing()?, row.text_or_nothing()?) {
        (Some(run), Some(call)) => Some(Parent { run, call }),
        _ => None,
    };
    Ok(Row { run, thread, agent, status, events, told, started_ms, changed_ms, parent })
}
