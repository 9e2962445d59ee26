//! A small world for runs: tools whose effects are counted, a clock that stands still, names that are counted, and a
//! store that dies when it is told to.

use crate::{
    agents::{AgentError, Agents, Answer, Ask, Page, RunEvent, RunFilter, RunView},
    clock::{Clock, SetClock},
    definition::AgentDefinition,
    event::Stamped,
    kit::Kit,
    model::Model,
    runner::{Runner, Surroundings},
    store::{Append, Creation, Durability, Lease, Memory, NewRun, Row, SqliteStore, Store, StoreError, Wait},
    tool::{Call, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult},
};
use futures::{StreamExt, future::BoxFuture};
use narthex_base::chat::{Message, Role};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::sync::Notify;

pub(super) const TENANT: &str = "anna";
pub(super) const NOW_MS: u64 = 1_700_000_000_000;
/// The environment's word for a PostgreSQL server that all tests are to run over: `postgres://USER@HOST:PORT/DATABASE`.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES: &str = "NARTHEX_TEST_POSTGRES";

/// What tools did: run and call, with the tool and the arguments, in the order in which it was done.
pub(super) type Effects = Arc<Mutex<Vec<(String, String, String)>>>;

/// A tool that writes down each call, and gives a text that names it.
pub(super) struct Counted {
    definition: ToolDefinition,
    effects: Effects,
}

impl Counted {
    pub(super) fn tool(name: &str, effect: Effect, effects: &Effects) -> Arc<dyn Tool> {
        Self::described(name, "Does something.", effect, effects)
    }

    pub(super) fn described(name: &str, description: &str, effect: Effect, effects: &Effects) -> Arc<dyn Tool> {
        let input_schema = json!({"type": "object", "properties": {"x": {"type": ["string", "integer"]}},
            "additionalProperties": false});
        let (name, description) = (name.to_string(), description.to_string());
        let definition = ToolDefinition { name, description, input_schema, output_schema: None, effect };
        Arc::new(Self { definition, effects: effects.clone() })
    }
}

impl Tool for Counted {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (effects, name) = (self.effects.clone(), self.definition.name.clone());
        Box::pin(async move {
            progress(0.5, Some(1.0), None);
            let arguments = Value::Object(call.arguments).to_string();
            let text = format!("{name} did {arguments}");
            effects.lock().unwrap().push((format!("{}/{}", call.run, call.id), name.clone(), arguments.clone()));
            match arguments.as_str() {
                r#"{"x":"panic"}"# => panic!("as it was told"),
                r#"{"x":"file"}"# => Ok(ToolResult::text("0123456789abcdef".repeat(1 << 16))),
                r#"{"x":"fail"}"# => Err(ToolFailure { message: "it broke".into(), harmless: false }),
                _ => Ok(ToolResult::text(text)),
            }
        })
    }
}

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) clock: SetClock,
    pub(super) effects: Effects,
    names: Arc<AtomicUsize>,
    pub(super) warnings: Arc<Mutex<Vec<String>>>,
    /// Runs that ended or waited, in this order.
    pub(super) still: Arc<Mutex<Vec<String>>>,
    #[cfg(feature = "postgres")]
    schema: postgres::Schema,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: SetClock::at(NOW_MS),
            effects: Arc::default(),
            names: Arc::default(),
            warnings: Arc::default(),
            still: Arc::default(),
            #[cfg(feature = "postgres")]
            schema: postgres::Schema::default(),
        }
    }

    /// The world's store, opened anew: a file, or a schema of the database that the environment names.
    pub(super) async fn store(&self) -> Arc<dyn Store> {
        #[cfg(feature = "postgres")]
        if let Ok(server) = std::env::var(POSTGRES) {
            return Arc::new(self.schema.connect(&server).await);
        }
        Arc::new(SqliteStore::open(&self.folder.path().join("runs.db"), Durability::Process).await.unwrap())
    }

    /// How many bytes the store takes.
    pub(super) async fn bytes(&self) -> u64 {
        #[cfg(feature = "postgres")]
        if let Ok(server) = std::env::var(POSTGRES) {
            return self.schema.connect(&server).await.bytes().await.unwrap();
        }
        let file = SqliteStore::open(&self.folder.path().join("runs.db"), Durability::Process).await.unwrap();
        file.bytes().await.unwrap()
    }

    /// Five tools: two that read, two that write, one that reaches out.
    pub(super) fn tools(&self) -> Vec<Arc<dyn Tool>> {
        let tool = |name, effect| Counted::tool(name, effect, &self.effects);
        vec![
            tool("look", Effect::Reads),
            tool("list", Effect::Reads),
            tool("write", Effect::Writes),
            tool("store", Effect::Writes),
            tool("send", Effect::Reaches),
        ]
    }

    pub(super) fn surroundings(&self, owner: &str) -> Surroundings {
        let (names, warnings, still) = (self.names.clone(), self.warnings.clone(), self.still.clone());
        Surroundings {
            clock: Arc::new(self.clock.clone()),
            new_id: Arc::new(move |what| format!("{what}-{}", names.fetch_add(1, Ordering::SeqCst))),
            seed: 7,
            owner: owner.into(),
            still: Arc::new(move |tenant, run| still.lock().unwrap().push(format!("{tenant}/{run}"))),
            warn: Arc::new(move |what| warnings.lock().unwrap().push(what)),
        }
    }

    /// A runner of these agents with this model under the name `m`.
    pub(super) async fn runner(&self, agents: Vec<(&str, AgentDefinition)>, model: impl Model + 'static) -> Runner {
        self.runner_over(self.store().await, agents, Arc::new(model), "here").await
    }

    pub(super) async fn runner_over(
        &self,
        store: Arc<dyn Store>,
        agents: Vec<(&str, AgentDefinition)>,
        model: Arc<dyn Model>,
        owner: &str,
    ) -> Runner {
        let agents = agents.into_iter().map(|(name, agent)| (name.to_string(), agent)).collect();
        let kit = Kit { models: BTreeMap::from([("m".to_string(), model)]), tools: self.tools() };
        Runner::new(agents, kit, store, self.surroundings(owner)).unwrap()
    }

    /// How often each tool was called.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, tool, _) in self.effects.lock().unwrap().iter() {
            *counts.entry(tool.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// How often each call was made.
    pub(super) fn calls(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (call, tool, _) in self.effects.lock().unwrap().iter() {
            *counts.entry(format!("{call} {tool}")).or_insert(0) += 1;
        }
        counts
    }
}

/// An agent with all tools, which are allowed, and `store`, which is asked about.
pub(super) fn agent() -> AgentDefinition {
    let policy = json!({"rules": [{"tool": "store", "then": "ask"}, {"tool": "*", "then": "allow"}]});
    AgentDefinition {
        tools: ["look", "list", "write", "store", "send"].map(String::from).into(),
        policy: serde_json::from_value(policy).unwrap(),
        ..AgentDefinition::new("m")
    }
}

pub(super) fn ask(agent: &str, text: &str) -> Ask {
    Ask {
        agent: agent.into(),
        tenant: TENANT.into(),
        messages: vec![Message::new(Role::User, text)],
        thread: None,
        key: None,
        metadata: Map::new(),
    }
}

pub(super) fn approve() -> Answer {
    Answer::Approve { by: "berta".into() }
}

/// What a run tells until it ends or waits, and how it stands then.
pub(super) async fn until_still(runner: &Runner, run: &str) -> Result<(Vec<RunEvent>, RunView), AgentError> {
    let events: Vec<_> = runner.follow(TENANT, run, 0).collect().await;
    let events = events.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok((events, runner.run(TENANT, run).await?))
}

/// Starts a run and gives it as it stands when it ends or waits.
pub(super) async fn begun(runner: &Runner, ask: Ask) -> RunView {
    let run = runner.start(ask).await.unwrap();
    until_still(runner, &run).await.unwrap().1
}

/// Answers the only question of a run, and gives it as it stands then.
pub(super) async fn answered(runner: &Runner, run: &RunView, answer: Answer) -> RunView {
    runner.answer(TENANT, &run.id, &run.interrupts[0].id, answer).await.unwrap();
    until_still(runner, &run.id).await.unwrap().1
}

/// Role and text of each message.
pub(super) fn texts(run: &RunView) -> Vec<String> {
    run.messages.iter().map(|message| format!("{}: {}", message.role.as_str(), message.text())).collect()
}

pub(super) async fn all_runs(runner: &Runner, tenant: &str) -> Vec<RunView> {
    runner.runs(tenant, RunFilter::default(), Page { after: None, size: 100 }).await.unwrap()
}

/// A store that dies at one of its writes, before or after it is made: from then on it does nothing.
pub(super) struct Dying {
    inner: Arc<dyn Store>,
    left: AtomicUsize,
    after: bool,
    dead: AtomicBool,
    death: Arc<Notify>,
}

impl Dying {
    /// Tells when it dies.
    pub(super) fn over(inner: Arc<dyn Store>, write: usize, after: bool, death: Arc<Notify>) -> Arc<dyn Store> {
        Arc::new(Self { inner, left: AtomicUsize::new(write), after, dead: AtomicBool::new(false), death })
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.dead.load(Ordering::SeqCst) { Err(StoreError::Failed("dead".into())) } else { Ok(()) }
    }

    /// Makes a write, unless it is the one.
    fn write<'a, T: Send + 'a>(&'a self, write: Wait<'a, T>) -> Wait<'a, T> {
        Box::pin(async move {
            self.alive()?;
            let last = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Err(0);
            if last {
                self.dead.store(true, Ordering::SeqCst);
                self.death.notify_one();
            }
            match (last, self.after) {
                (true, false) => Err(StoreError::Failed("died before a write".into())),
                (true, true) => {
                    write.await?;
                    Err(StoreError::Failed("died after a write".into()))
                }
                (false, _) => write.await,
            }
        })
    }

    fn read<'a, T: Send + 'a>(&'a self, read: Wait<'a, T>) -> Wait<'a, T> {
        Box::pin(async move {
            self.alive()?;
            read.await
        })
    }
}

impl Store for Dying {
    fn create(&self, new: NewRun) -> Wait<'_, Creation> {
        self.write(self.inner.create(new))
    }
    fn append(&self, append: Append) -> Wait<'_, ()> {
        self.write(self.inner.append(append))
    }
    fn events<'a>(&'a self, tenant: &'a str, run: &'a str, after: u64) -> Wait<'a, Vec<Stamped>> {
        self.read(self.inner.events(tenant, run, after))
    }
    fn row<'a>(&'a self, tenant: &'a str, run: &'a str) -> Wait<'a, Option<Row>> {
        self.read(self.inner.row(tenant, run))
    }
    fn rows<'a>(&'a self, tenant: &'a str, filter: RunFilter, page: Page) -> Wait<'a, Vec<Row>> {
        self.read(self.inner.rows(tenant, filter, page))
    }
    fn last_of_thread<'a>(&'a self, tenant: &'a str, thread: &'a str) -> Wait<'a, Option<Row>> {
        self.read(self.inner.last_of_thread(tenant, thread))
    }
    fn run_of_key<'a>(&'a self, tenant: &'a str, key: &'a str) -> Wait<'a, Option<String>> {
        self.read(self.inner.run_of_key(tenant, key))
    }
    fn lease<'a>(&'a self, run: &'a str, owner: &'a str, now_ms: u64, until_ms: u64) -> Wait<'a, Option<Lease>> {
        self.write(self.inner.lease(run, owner, now_ms, until_ms))
    }
    fn renew<'a>(&'a self, lease: &'a Lease, until_ms: u64) -> Wait<'a, bool> {
        self.write(self.inner.renew(lease, until_ms))
    }
    fn release<'a>(&'a self, lease: &'a Lease, events: u64) -> Wait<'a, bool> {
        self.write(self.inner.release(lease, events))
    }
    fn due<'a>(&'a self, owner: &'a str, now_ms: u64, count: usize) -> Wait<'a, Vec<(String, String)>> {
        self.read(self.inner.due(owner, now_ms, count))
    }
    fn remember(&self, memory: Memory) -> Wait<'_, ()> {
        self.write(self.inner.remember(memory))
    }
    fn recall<'a>(&'a self, tenant: &'a str, agent: &'a str, words: &'a str, count: usize) -> Wait<'a, Vec<Memory>> {
        self.read(self.inner.recall(tenant, agent, words, count))
    }
}

/// A schema of a PostgreSQL database for one world, made when it is first wanted.
#[cfg(feature = "postgres")]
mod postgres {
    use crate::store::PostgresStore;
    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
    use tokio::sync::OnceCell;

    #[derive(Default)]
    pub(super) struct Schema(OnceCell<String>);

    impl Schema {
        pub(super) async fn connect(&self, server: &str) -> PostgresStore {
            let made = async || {
                let name = crate::clock::new_id("world").replace('-', "_");
                let mut connection = PgConnection::connect(server).await.unwrap();
                connection.execute(AssertSqlSafe(format!("create schema {name}"))).await.unwrap();
                name
            };
            let name = self.0.get_or_init(made).await;
            PostgresStore::connect(&format!("{server}?options[search_path]={name}")).await.unwrap()
        }
    }
}

/// The clock's time, so that tests need not import the trait.
pub(super) fn now_ms(world: &World) -> u64 {
    world.clock.now_ms()
}
